//! What a libc would bring along: the entry, the exit, and the functions that the compiler takes for granted.

use crate::complaint::Complained;
use core::arch::{asm, naked_asm};
use rustix::fd::BorrowedFd;

/// The program's entry: hands the stack pointer on.
#[unsafe(naked)]
#[unsafe(no_mangle)]
unsafe extern "C" fn _start() -> ! {
    #[cfg(target_arch = "x86_64")]
    naked_asm!("mov rdi, rsp", "xor ebp, ebp", "call {begin}", "ud2", begin = sym begin);
    #[cfg(target_arch = "aarch64")]
    naked_asm!("mov x0, sp", "mov x29, xzr", "mov x30, xzr", "b {begin}", begin = sym begin);
    #[cfg(target_arch = "riscv64")]
    naked_asm!(
        ".option push",
        ".option norelax",
        "la gp, __global_pointer$",
        ".option pop",
        "mv a0, sp",
        "mv s0, zero",
        "mv ra, zero",
        "tail {begin}",
        begin = sym begin,
    );
    #[cfg(target_arch = "x86")]
    naked_asm!(
        "mov eax, esp",
        "xor ebp, ebp",
        "sub esp, 12",
        "push eax",
        "call {begin}",
        "ud2",
        begin = sym begin,
    );
    #[cfg(target_arch = "arm")]
    naked_asm!("mov r0, sp", "mov r11, #0", "bl {begin}", "udf #0", begin = sym begin);
}

extern "C" fn begin(stack: *const usize) -> ! {
    exit(match crate::main(stack) {
        Ok(status) => status.into(),
        Err(Complained) => 1,
    })
}

/// Ends the process.
fn exit(status: i32) -> ! {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: exit_group(2) touches nothing.
    unsafe {
        asm!("syscall", in("rax") 231, in("rdi") status, options(noreturn, nostack));
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: exit_group(2) touches nothing.
    unsafe {
        asm!("svc 0", in("x8") 94, in("x0") status, options(noreturn, nostack));
    }
    #[cfg(target_arch = "riscv64")]
    // SAFETY: exit_group(2) touches nothing.
    unsafe {
        asm!("ecall", in("a7") 94, in("a0") status, options(noreturn, nostack));
    }
    #[cfg(target_arch = "x86")]
    // SAFETY: exit_group(2) touches nothing.
    unsafe {
        asm!("int 0x80", in("eax") 252, in("ebx") status, options(noreturn, nostack));
    }
    #[cfg(target_arch = "arm")]
    // SAFETY: exit_group(2) touches nothing.
    unsafe {
        asm!("mov r7, #248", "svc 0", in("r0") status, options(noreturn, nostack));
    }
}

/// This process's PID.
pub(crate) fn pid() -> u64 {
    rustix::process::getpid().as_raw_nonzero().get().unsigned_abs().into()
}

pub(crate) fn stdout() -> BorrowedFd<'static> {
    // SAFETY: this program closes neither. One that was started without has its own descriptors there, which
    // stay open as long as it runs.
    unsafe { rustix::stdio::stdout() }
}

pub(crate) fn stderr() -> BorrowedFd<'static> {
    // SAFETY: as above.
    unsafe { rustix::stdio::stderr() }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    exit(101)
}

/// What the compiler calls for copies and comparisons. Written in assembly or with volatile accesses, or it
/// would make calls of the loops, to themselves.
mod memory {
    #[cfg(target_arch = "x86_64")]
    use core::arch::asm;

    #[unsafe(no_mangle)]
    unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, len: usize) -> *mut u8 {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: within both ranges, which is the contract of every caller.
        unsafe {
            asm!(
                "rep movsb",
                inout("rcx") len => _, inout("rdi") to => _, inout("rsi") from => _,
                options(nostack, preserves_flags),
            );
        }
        #[cfg(not(target_arch = "x86_64"))]
        for position in 0..len {
            // SAFETY: as above.
            unsafe { to.add(position).write_volatile(from.add(position).read()) };
        }
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
        #[cfg(target_arch = "x86_64")]
        // SAFETY: within the range, which is the contract of every caller.
        unsafe {
            asm!(
                "rep stosb",
                inout("rcx") len => _, inout("rdi") to => _, in("al") byte as u8,
                options(nostack, preserves_flags),
            );
        }
        #[cfg(not(target_arch = "x86_64"))]
        for position in 0..len {
            // SAFETY: as above.
            unsafe { to.add(position).write_volatile(byte as u8) };
        }
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

    #[unsafe(no_mangle)]
    unsafe extern "C" fn strlen(string: *const u8) -> usize {
        let mut len = 0;
        // SAFETY: not past the NUL.
        while unsafe { string.add(len).read_volatile() } != 0 {
            len += 1;
        }
        len
    }
}
