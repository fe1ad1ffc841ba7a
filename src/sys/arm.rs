//! arm, 32 bits, EABI: system call numbers, the call instruction and the clone trampoline.
//!
//! Calls that have a variant with 64-bit fields are named by that variant. The call's number goes to r7, which
//! is the frame pointer of Thumb code and cannot be an operand there: it is kept in r12 meanwhile.
//!
//! References: `arch/arm/tools/syscall.tbl`, syscall(2), Procedure Call Standard for the Arm Architecture.

use core::arch::asm;
use core::ffi::c_void;

pub(super) mod nr {
    pub(in crate::sys) const EXIT: usize = 1;
    pub(in crate::sys) const WRITE: usize = 4;
    pub(in crate::sys) const CLOSE: usize = 6;
    pub(in crate::sys) const EXECVE: usize = 11;
    pub(in crate::sys) const CHDIR: usize = 12;
    pub(in crate::sys) const GETPID: usize = 20;
    pub(in crate::sys) const CLONE: usize = 120;
    pub(in crate::sys) const FCHDIR: usize = 133;
    pub(in crate::sys) const PRCTL: usize = 172;
    pub(in crate::sys) const RT_SIGACTION: usize = 174;
    pub(in crate::sys) const RT_SIGPROCMASK: usize = 175;
    pub(in crate::sys) const RT_SIGPENDING: usize = 176;
    pub(in crate::sys) const GETDENTS64: usize = 217;
    /// `fcntl64`.
    pub(in crate::sys) const FCNTL: usize = 221;
    pub(in crate::sys) const FUTEX: usize = 240;
    pub(in crate::sys) const EXIT_GROUP: usize = 248;
    /// With fields of 32 bits.
    pub(in crate::sys) const CLOCK_GETTIME_32: usize = 263;
    /// `fstatfs64`, which takes the size of the buffer.
    pub(in crate::sys) const FSTATFS: usize = 267;
    pub(in crate::sys) const GETSOCKNAME: usize = 286;
    pub(in crate::sys) const GETSOCKOPT: usize = 295;
    pub(in crate::sys) const OPENAT: usize = 322;
    pub(in crate::sys) const UNSHARE: usize = 337;
    pub(in crate::sys) const SIGNALFD4: usize = 355;
    pub(in crate::sys) const DUP3: usize = 358;
    pub(in crate::sys) const EXECVEAT: usize = 387;
    pub(in crate::sys) const STATX: usize = 397;
    /// `clock_gettime64`.
    pub(in crate::sys) const CLOCK_GETTIME: usize = 403;
    pub(in crate::sys) const PIDFD_OPEN: usize = 434;
    pub(in crate::sys) const CLONE3: usize = 435;
    pub(in crate::sys) const CLOSE_RANGE: usize = 436;
}

/// Performs one system call and returns what the kernel left in `r0`: `-errno` on failure.
///
/// # Safety
///
/// - The arguments are what call `nr` expects; pointers among them are valid for what it reads and writes.
#[inline]
pub(super) unsafe fn syscall(nr: usize, args: [usize; 6]) -> isize {
    let [a, b, c, d, e, f] = args;
    let ret;
    // SAFETY: the instruction clobbers r0 only, and r7 is restored; what the call does to memory is the
    // caller's contract.
    unsafe {
        asm!(
            "mov r12, r7",
            "mov r7, r8",
            "svc 0",
            "mov r7, r12",
            in("r8") nr,
            inlateout("r0") a => ret,
            in("r1") b, in("r2") c, in("r3") d, in("r4") e, in("r5") f,
            out("r12") _,
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
    // SAFETY: r0 is 0 only in the new task, which is on a stack that nothing else uses, and never reaches the end of
    // the block, so the registers it clobbers are its own; both frame pointers end its chain of frames.
    unsafe {
        asm!(
            "mov r12, r7",
            "mov r7, r8",
            "svc 0",
            "mov r7, r12",
            "cmp r0, #0",
            "bne 2f",
            "mov r7, #0",
            "mov r11, #0",
            "mov r0, r5",
            "blx r10",
            "udf #0",
            "2:",
            in("r8") nr,
            inlateout("r0") a => ret,
            in("r1") b, in("r2") c, in("r3") d, in("r4") e,
            in("r5") data, in("r10") entry,
            out("r12") _,
        );
    }
    ret
}
