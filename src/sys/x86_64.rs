//! x86_64: system call numbers, the call instruction and the clone trampoline.
//!
//! References: `arch/x86/entry/syscalls/syscall_64.tbl`, syscall(2), System V ABI (AMD64 supplement).

use core::arch::asm;
use core::ffi::c_void;

pub(super) mod nr {
    pub(in crate::sys) const WRITE: usize = 1;
    pub(in crate::sys) const CLOSE: usize = 3;
    pub(in crate::sys) const RT_SIGACTION: usize = 13;
    pub(in crate::sys) const RT_SIGPROCMASK: usize = 14;
    pub(in crate::sys) const GETPID: usize = 39;
    pub(in crate::sys) const GETSOCKNAME: usize = 51;
    pub(in crate::sys) const GETSOCKOPT: usize = 55;
    pub(in crate::sys) const CLONE: usize = 56;
    pub(in crate::sys) const EXECVE: usize = 59;
    pub(in crate::sys) const EXIT: usize = 60;
    pub(in crate::sys) const FCNTL: usize = 72;
    pub(in crate::sys) const CHDIR: usize = 80;
    pub(in crate::sys) const FCHDIR: usize = 81;
    pub(in crate::sys) const RT_SIGPENDING: usize = 127;
    pub(in crate::sys) const FSTATFS: usize = 138;
    pub(in crate::sys) const PRCTL: usize = 157;
    pub(in crate::sys) const FUTEX: usize = 202;
    pub(in crate::sys) const GETDENTS64: usize = 217;
    pub(in crate::sys) const CLOCK_GETTIME: usize = 228;
    pub(in crate::sys) const EXIT_GROUP: usize = 231;
    pub(in crate::sys) const OPENAT: usize = 257;
    pub(in crate::sys) const UNSHARE: usize = 272;
    pub(in crate::sys) const SIGNALFD4: usize = 289;
    pub(in crate::sys) const DUP3: usize = 292;
    pub(in crate::sys) const EXECVEAT: usize = 322;
    pub(in crate::sys) const STATX: usize = 332;
    pub(in crate::sys) const PIDFD_OPEN: usize = 434;
    pub(in crate::sys) const CLONE3: usize = 435;
    pub(in crate::sys) const CLOSE_RANGE: usize = 436;
}

/// Performs one system call and returns what the kernel left in `rax`: `-errno` on failure.
///
/// # Safety
///
/// - The arguments are what call `nr` expects; pointers among them are valid for what it reads and writes.
#[inline]
pub(super) unsafe fn syscall(nr: usize, args: [usize; 6]) -> isize {
    let [a, b, c, d, e, f] = args;
    let ret;
    // SAFETY: the instruction clobbers rcx and r11 only; what the call does to memory is the caller's contract.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") nr => ret,
            in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d, in("r8") e, in("r9") f,
            lateout("rcx") _, lateout("r11") _,
            options(nostack),
        );
    }
    ret
}

/// Performs `nr`, a clone, and in the new task calls `entry(data)`.
/// Returns in the calling task only: the new task's ID, or `-errno`.
///
/// # Safety
///
/// - The arguments give the new task a stack of its own, its top aligned to 16 bytes. Or they give it none, and have
///   the calling task wait: the new task then runs below the frames of the calling task.
/// - `entry` never returns, and everything it reaches through `data` outlives the new task's use of it.
#[inline]
pub(super) unsafe fn clone_into(
    nr: usize,
    args: [usize; 5],
    entry: unsafe extern "C" fn(*mut c_void) -> !,
    data: *mut c_void,
) -> isize {
    let [a, b, c, d, e] = args;
    let ret;
    // SAFETY: rax is 0 only in the new task, which is on a stack that nothing else uses, and never reaches the end of
    // the block, so the registers it clobbers are its own. `call` leaves rsp as the ABI wants it at entry.
    unsafe {
        asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "mov rdi, r12",
            "call r13",
            "ud2",
            "2:",
            inlateout("rax") nr => ret,
            in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d, in("r8") e,
            in("r12") data, in("r13") entry,
            lateout("rcx") _, lateout("r11") _,
        );
    }
    ret
}
