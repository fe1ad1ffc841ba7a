//! x86, 32 bits: system call numbers, the call instruction and the clone trampoline.
//!
//! `getsockopt` is the direct call, which Linux has since 4.3; before, it went through `socketcall`. Calls that
//! have a variant with 64-bit fields are named by that variant. `int 0x80` is slower than the vDSO's entry,
//! but needs no address of the auxiliary vector, and a clone has to come back without a frame on the stack.
//!
//! References: `arch/x86/entry/syscalls/syscall_32.tbl`, syscall(2), System V ABI (Intel386 supplement).

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
    pub(in crate::sys) const GETDENTS64: usize = 220;
    /// `fcntl64`.
    pub(in crate::sys) const FCNTL: usize = 221;
    pub(in crate::sys) const FUTEX: usize = 240;
    pub(in crate::sys) const EXIT_GROUP: usize = 252;
    /// With fields of 32 bits.
    pub(in crate::sys) const CLOCK_GETTIME_32: usize = 265;
    /// `fstatfs64`, which takes the size of the buffer.
    pub(in crate::sys) const FSTATFS: usize = 269;
    pub(in crate::sys) const OPENAT: usize = 295;
    pub(in crate::sys) const UNSHARE: usize = 310;
    pub(in crate::sys) const SIGNALFD4: usize = 327;
    pub(in crate::sys) const DUP3: usize = 330;
    pub(in crate::sys) const EXECVEAT: usize = 358;
    pub(in crate::sys) const GETSOCKOPT: usize = 365;
    pub(in crate::sys) const GETSOCKNAME: usize = 367;
    pub(in crate::sys) const STATX: usize = 383;
    /// `clock_gettime64`.
    pub(in crate::sys) const CLOCK_GETTIME: usize = 403;
    pub(in crate::sys) const PIDFD_OPEN: usize = 434;
    pub(in crate::sys) const CLONE3: usize = 435;
    pub(in crate::sys) const CLOSE_RANGE: usize = 436;
}

/// Performs one system call and returns what the kernel left in `eax`: `-errno` on failure.
///
/// # Safety
///
/// - The arguments are what call `nr` expects; pointers among them are valid for what it reads and writes.
#[inline]
pub(super) unsafe fn syscall(nr: usize, args: [usize; 6]) -> isize {
    let [a, b, c, rest @ ..] = args;
    let ret;
    // SAFETY: the instruction clobbers eax only; what the call does to memory is the caller's contract. The
    // compiler keeps esi and ebp for itself: they are on the stack meanwhile, and restored. `rest` is read
    // before the pointer to it is overwritten.
    unsafe {
        asm!(
            "push esi",
            "push ebp",
            "mov esi, [edi]",
            "mov ebp, [edi + 8]",
            "mov edi, [edi + 4]",
            "int 0x80",
            "pop ebp",
            "pop esi",
            inlateout("eax") nr => ret,
            in("ebx") a, in("ecx") b, in("edx") c,
            inlateout("edi") &raw const rest => _,
        );
    }
    ret
}

/// Performs `nr`, a clone, and in the new task calls `entry(data)`.
/// Returns in the calling task only: the new task's ID, or `-errno`.
///
/// The fourth argument, which is the thread pointer if the flags say so, is not passed: there are not enough
/// registers.
///
/// # Safety
///
/// - The arguments give the new task a stack of its own, its top aligned to 16 bytes. Or they give it none, and have
///   the calling task wait: the new task then runs below the frames of the calling task. They give no thread pointer.
/// - `entry` never returns, and everything it reaches through `data` outlives the new task's use of it.
#[inline]
pub(super) unsafe fn clone_into(
    nr: usize,
    args: [usize; 5],
    entry: unsafe extern "C" fn(*mut c_void) -> !,
    data: *mut c_void,
) -> isize {
    let [a, b, c, _, e] = args;
    let rest = [e, data as usize, entry as usize];
    let ret;
    // SAFETY: eax is 0 only in the new task, which is on a stack that nothing else uses, and never reaches the end of
    // the block, so the registers it clobbers are its own. The argument is pushed so that `call` leaves esp
    // as the ABI wants it at entry. For the calling task it is as `syscall`; the new one does not read
    // `rest`, which may be gone, but has it in its registers.
    unsafe {
        asm!(
            "push esi",
            "push ebp",
            "mov esi, [edi + 4]",
            "mov ebp, [edi + 8]",
            "mov edi, [edi]",
            "int 0x80",
            "test eax, eax",
            "jnz 2f",
            "mov eax, ebp",
            "xor ebp, ebp",
            "and esp, -16",
            "sub esp, 12",
            "push esi",
            "call eax",
            "ud2",
            "2:",
            "pop ebp",
            "pop esi",
            inlateout("eax") nr => ret,
            in("ebx") a, in("ecx") b, in("edx") c,
            inlateout("edi") &raw const rest => _,
        );
    }
    ret
}
