//! What a libc would bring along: the entry, the exit, and the functions that the compiler takes for granted.

use core::arch::{asm, naked_asm};
use rustix::fd::BorrowedFd;
use rustix::io::Errno;

/// The program's entry: hands the stack pointer on.
#[unsafe(naked)]
#[unsafe(no_mangle)]
unsafe extern "C" fn _start() -> ! {
    naked_asm!("mov rdi, rsp", "xor ebp, ebp", "call {begin}", "ud2", begin = sym begin);
}

/// An error ends the program, and is its exit status.
extern "C" fn begin(stack: *const usize) -> ! {
    exit(crate::main(stack).map_or_else(Errno::raw_os_error, |()| 0))
}

fn exit(status: i32) -> ! {
    // SAFETY: exit_group(2) touches nothing.
    unsafe {
        asm!("syscall", in("rax") 231, in("rdi") status, options(noreturn, nostack));
    }
}

/// The monotonic clock, which all processes share, in nanoseconds; by a system call, as the limit has it.
pub(crate) fn now() -> u64 {
    let mut time = [0_u64; 2];
    // SAFETY: clock_gettime(2) writes two words.
    unsafe {
        asm!(
            "syscall",
            inout("rax") 228_usize => _,
            in("rdi") 1, in("rsi") &raw mut time,
            out("rcx") _, out("r11") _,
            options(nostack),
        );
    }
    time[0] * 1_000_000_000 + time[1]
}

pub(crate) fn write(to: i32, bytes: &[u8]) {
    // SAFETY: this program closes neither stdout nor stderr, and the kernel refuses what is no descriptor.
    let _ = rustix::io::write(unsafe { BorrowedFd::borrow_raw(to) }, bytes);
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    exit(101)
}

/// What the compiler calls for copies and comparisons. With volatile accesses, or it would make calls of the loops,
/// to themselves.
mod memory {
    /// One after the other, words and then bytes.
    macro_rules! each {
        ($len:expr, |$at:ident, $unit:ident| $step:expr) => {
            let mut $at = 0;
            while $at + 8 <= $len {
                type $unit = u64;
                $step;
                $at += 8;
            }
            while $at < $len {
                type $unit = u8;
                $step;
                $at += 1;
            }
        };
    }

    #[repr(C, packed)]
    struct Unaligned<T>(T);

    #[unsafe(no_mangle)]
    unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, len: usize) -> *mut u8 {
        each!(len, |at, Unit| {
            // SAFETY: within both ranges, which is the contract of every caller.
            unsafe {
                let from = from.add(at).cast::<Unaligned<Unit>>();
                to.add(at).cast::<Unaligned<Unit>>().write_volatile(from.read_volatile());
            }
        });
        to
    }

    #[unsafe(no_mangle)]
    unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, len: usize) -> *mut u8 {
        if (to as usize).wrapping_sub(from as usize) >= len {
            // SAFETY: what is written is not read any more.
            return unsafe { memcpy(to, from, len) };
        }
        for position in (0..len).rev() {
            // SAFETY: within both ranges, which is the contract of every caller.
            unsafe { to.add(position).write_volatile(from.add(position).read()) };
        }
        to
    }

    #[unsafe(no_mangle)]
    unsafe extern "C" fn memset(to: *mut u8, byte: i32, len: usize) -> *mut u8 {
        let word = u64::from(byte as u8) * 0x0101_0101_0101_0101;
        each!(len, |at, Unit| {
            // SAFETY: within the range, which is the contract of every caller.
            unsafe { to.add(at).cast::<Unaligned<Unit>>().write_volatile(Unaligned(word as Unit)) }
        });
        to
    }

    #[unsafe(no_mangle)]
    unsafe extern "C" fn memcmp(a: *const u8, b: *const u8, len: usize) -> i32 {
        for position in 0..len {
            // SAFETY: within both ranges, which is the contract of every caller.
            let (a, b) = unsafe { (a.add(position).read_volatile(), b.add(position).read_volatile()) };
            if a != b {
                return i32::from(a) - i32::from(b);
            }
        }
        0
    }

    #[unsafe(no_mangle)]
    unsafe extern "C" fn bcmp(a: *const u8, b: *const u8, len: usize) -> i32 {
        // SAFETY: the caller's contract.
        unsafe { memcmp(a, b, len) }
    }

    /// 16 bytes at a time, as glibc's does: strings are what the program is told its addresses by.
    #[unsafe(no_mangle)]
    unsafe extern "C" fn strlen(string: *const u8) -> usize {
        use core::arch::x86_64::{_mm_cmpeq_epi8, _mm_load_si128, _mm_movemask_epi8, _mm_setzero_si128};
        let before = string as usize % 16;
        // SAFETY: 16 aligned bytes are of one page, of which the caller may read one byte at least.
        let nuls = |at: *const u8| unsafe {
            _mm_movemask_epi8(_mm_cmpeq_epi8(_mm_load_si128(at.cast()), _mm_setzero_si128()))
        };
        let mut at = string.wrapping_sub(before);
        let mut found = nuls(at) >> before << before;
        while found == 0 {
            at = at.wrapping_add(16);
            found = nuls(at);
        }
        at as usize + found.trailing_zeros() as usize - string as usize
    }
}
