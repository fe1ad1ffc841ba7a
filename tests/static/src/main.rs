//! Restarts itself, first by spawn and then in place, and answers one connection that was queued before:
//! exit status 0 if all of that worked. No libc and no allocator: nothing is there to link them from.
#![no_std]
#![no_main]

use core::arch::naked_asm;
use core::cell::UnsafeCell;
use core::hint::black_box;
use core::time::Duration;
use gracenet::{Change, Launch, Net, Progress, Restart};
use rustix::net::{AddressFamily, SocketType};

/// The memory that is stated, with rustix's own `OwnedFd`, which is larger than std's.
const _: () = {
    assert!(size_of::<Net<1>>() <= 152 + 1176);
    assert!(size_of::<Net<3>>() <= 152 * 3 + 1176);
    assert!(size_of::<Net<1000>>() <= 152 * 1000 + 1176);
};

/// All zeros, and so in no file.
struct Empty(UnsafeCell<(Net<16>, Launch<16, 16>)>);

// SAFETY: there is one thread, and it takes the address alone.
unsafe impl Sync for Empty {}

static EMPTY: Empty = Empty(UnsafeCell::new((Net::new(), Launch::empty())));

unsafe extern "C" {
    /// Where what stands in the file ends.
    safe static _edata: u8;
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    exit(101)
}

/// The program's entry.
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

unsafe extern "C" fn begin(stack: *const usize) -> ! {
    // SAFETY: the stack pointer at the entry.
    let status = unsafe { run(stack) };
    exit(match status {
        Ok(()) => 0,
        Err(step) => step,
    })
}

/// Tells by the exit status which step failed.
unsafe fn run(stack: *const usize) -> Result<(), i32> {
    // SAFETY: the caller's contract.
    let mut launch: Launch<16, 256> = unsafe { Launch::from_stack(stack) }.map_err(|_| 10)?;
    if black_box(EMPTY.0.get()).addr() < (&raw const _edata).addr() {
        return Err(9);
    }
    let mut net = Net::<4>::new();
    // SAFETY: nothing was opened yet.
    unsafe { net.inherit(&mut launch) }.map_err(|_| 11)?;
    let generation =
        launch.var(b"GENERATION").map_or(0, |digits| digits.first().map_or(0, |digit| digit - b'0'));
    let name = "@gracenet-static";
    match generation {
        // Queues a connection, and has a successor take it.
        0 => {
            let listener = net.listen("unix", name).map_err(|_| 12)?;
            let own = rustix::net::getsockname(net.fd(listener).map_err(|_| 13)?).map_err(|_| 14)?;
            let client =
                rustix::net::socket(AddressFamily::UNIX, SocketType::STREAM, None).map_err(|_| 15)?;
            rustix::net::connect(&client, &own).map_err(|_| 16)?;
            let changes = [Change::Set(c"GENERATION=1")];
            let restart = Restart::new().changes(&changes);
            let successor = net.spawn(&mut launch, &restart).map_err(|_| 17)?;
            if successor.wait_ready(Duration::from_secs(10)) != Ok(Progress::Ready) {
                return Err(18);
            }
            let mut answer = [0; 2];
            let (read, _) =
                rustix::net::recv(&client, &mut answer, rustix::net::RecvFlags::empty()).map_err(|_| 19)?;
            if read == 1 && answer.first() == Some(&b'2') { Ok(()) } else { Err(20) }
        }
        // Goes on in place, before it has reported.
        1 => {
            net.claim("unix", name).map_err(|_| 21)?;
            let changes = [Change::Set(c"GENERATION=2")];
            let Err(_) = net.exec(&mut launch, &Restart::new().changes(&changes));
            Err(22)
        }
        _ => {
            let listener = net.claim("unix", name).map_err(|_| 23)?;
            net.ready().map_err(|_| 24)?;
            let connection = rustix::net::accept(net.fd(listener).map_err(|_| 25)?).map_err(|_| 26)?;
            rustix::net::send(&connection, b"2", rustix::net::SendFlags::NOSIGNAL).map_err(|_| 27)?;
            Ok(())
        }
    }
}

/// Ends the process.
fn exit(status: i32) -> ! {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: exit_group(2) touches nothing.
    unsafe {
        core::arch::asm!("syscall", in("rax") 231, in("rdi") status, options(noreturn, nostack));
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: exit_group(2) touches nothing.
    unsafe {
        core::arch::asm!("svc 0", in("x8") 94, in("x0") status, options(noreturn, nostack));
    }
    #[cfg(target_arch = "riscv64")]
    // SAFETY: exit_group(2) touches nothing.
    unsafe {
        core::arch::asm!("ecall", in("a7") 94, in("a0") status, options(noreturn, nostack));
    }
    #[cfg(target_arch = "x86")]
    // SAFETY: exit_group(2) touches nothing.
    unsafe {
        core::arch::asm!("int 0x80", in("eax") 252, in("ebx") status, options(noreturn, nostack));
    }
    #[cfg(target_arch = "arm")]
    // SAFETY: exit_group(2) touches nothing.
    unsafe {
        core::arch::asm!("mov r7, #248", "svc 0", in("r0") status, options(noreturn, nostack));
    }
}

/// What the compiler may call for copies and comparisons.
mod memory {
    #[unsafe(no_mangle)]
    unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, len: usize) -> *mut u8 {
        copy(to, from, len, false);
        to
    }

    #[unsafe(no_mangle)]
    unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, len: usize) -> *mut u8 {
        copy(to, from, len, (to as usize).wrapping_sub(from as usize) < len);
        to
    }

    #[unsafe(no_mangle)]
    unsafe extern "C" fn memset(to: *mut u8, byte: i32, len: usize) -> *mut u8 {
        for position in 0..len {
            // SAFETY: within the range; volatile, so that it does not become a call to itself.
            unsafe { to.add(position).write_volatile(byte as u8) };
        }
        to
    }

    #[unsafe(no_mangle)]
    unsafe extern "C" fn memcmp(a: *const u8, b: *const u8, len: usize) -> i32 {
        for position in 0..len {
            // SAFETY: within the range.
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

    fn copy(to: *mut u8, from: *const u8, len: usize, backwards: bool) {
        for step in 0..len {
            let position = if backwards { len - 1 - step } else { step };
            // SAFETY: within both ranges, which is the contract of every caller.
            unsafe { to.add(position).write_volatile(from.add(position).read_volatile()) };
        }
    }
}
