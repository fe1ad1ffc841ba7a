//! riscv64: system call numbers, the call instruction and the clone trampoline.
//!
//! References: `include/uapi/asm-generic/unistd.h`, syscall(2), RISC-V ELF psABI.

use core::arch::asm;
use core::ffi::c_void;

pub(super) mod nr {
    pub(in crate::sys) const DUP3: usize = 24;
    pub(in crate::sys) const FCNTL: usize = 25;
    pub(in crate::sys) const FSTATFS: usize = 44;
    pub(in crate::sys) const CHDIR: usize = 49;
    pub(in crate::sys) const FCHDIR: usize = 50;
    pub(in crate::sys) const OPENAT: usize = 56;
    pub(in crate::sys) const CLOSE: usize = 57;
    pub(in crate::sys) const GETDENTS64: usize = 61;
    pub(in crate::sys) const WRITE: usize = 64;
    pub(in crate::sys) const SIGNALFD4: usize = 74;
    pub(in crate::sys) const EXIT: usize = 93;
    pub(in crate::sys) const EXIT_GROUP: usize = 94;
    pub(in crate::sys) const UNSHARE: usize = 97;
    pub(in crate::sys) const FUTEX: usize = 98;
    pub(in crate::sys) const CLOCK_GETTIME: usize = 113;
    pub(in crate::sys) const RT_SIGACTION: usize = 134;
    pub(in crate::sys) const RT_SIGPROCMASK: usize = 135;
    pub(in crate::sys) const RT_SIGPENDING: usize = 136;
    pub(in crate::sys) const PRCTL: usize = 167;
    pub(in crate::sys) const GETPID: usize = 172;
    pub(in crate::sys) const GETSOCKNAME: usize = 204;
    pub(in crate::sys) const GETSOCKOPT: usize = 209;
    pub(in crate::sys) const CLONE: usize = 220;
    pub(in crate::sys) const EXECVE: usize = 221;
    pub(in crate::sys) const EXECVEAT: usize = 281;
    pub(in crate::sys) const STATX: usize = 291;
    pub(in crate::sys) const PIDFD_OPEN: usize = 434;
    pub(in crate::sys) const CLONE3: usize = 435;
    pub(in crate::sys) const CLOSE_RANGE: usize = 436;
}

/// Performs one system call and returns what the kernel left in `a0`: `-errno` on failure.
///
/// # Safety
///
/// - The arguments are what call `nr` expects; pointers among them are valid for what it reads and writes.
#[inline]
pub(super) unsafe fn syscall(nr: usize, args: [usize; 6]) -> isize {
    let [a, b, c, d, e, f] = args;
    let ret;
    // SAFETY: of the general registers the instruction clobbers a0 only, but it may discard the vector
    // state, so the clobbers are those of a function. What the call does to memory is the caller's contract.
    unsafe {
        asm!(
            "ecall",
            in("a7") nr,
            inlateout("a0") a => ret,
            in("a1") b, in("a2") c, in("a3") d, in("a4") e, in("a5") f,
            clobber_abi("C"),
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
    // SAFETY: a0 is 0 only in the new task, which is on a stack that nothing else uses, and never reaches the end of
    // the block, so the registers it clobbers are its own. For the calling task it is as `syscall`.
    unsafe {
        asm!(
            "ecall",
            "bnez a0, 2f",
            "mv s0, zero",
            "mv a0, s2",
            "jalr s3",
            "unimp",
            "2:",
            in("a7") nr,
            inlateout("a0") a => ret,
            in("a1") b, in("a2") c, in("a3") d, in("a4") e,
            in("s2") data, in("s3") entry,
            clobber_abi("C"),
        );
    }
    ret
}
