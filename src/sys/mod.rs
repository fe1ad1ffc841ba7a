//! The system calls that rustix does not offer, or not in a form that costs as little, and the clone that restarts are
//! made of.
//!
//! Two kinds of functions live here. Free functions are called by the process itself. The methods of
//! [`Task`] are called between clone and execve, where memory is shared with a suspended thread of the
//! predecessor: they make raw system calls and nothing else; no libc, no allocation, no panic, no
//! thread-local. A `Task` is handed out there only, and there the descriptor table and the working
//! directory are the new task's own copies, so changing them is nobody else's business.
//!
//! This is the only room with assembly: one file for each architecture, each with `syscall`, `clone_into`
//! and the numbers in `nr`.
#![allow(unsafe_code)]

use core::ffi::{CStr, c_char, c_int, c_void};
use core::mem::MaybeUninit;
use core::time::Duration;
use rustix::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use rustix::io::Errno;
use rustix::ioctl::{self, Opcode};
use rustix::net::AddressFamily;
use rustix::net::addr::{SocketAddrArg, SocketAddrLen, SocketAddrOpaque};
use rustix::process::Signal;

#[cfg_attr(target_arch = "x86_64", path = "x86_64.rs")]
#[cfg_attr(target_arch = "aarch64", path = "aarch64.rs")]
#[cfg_attr(target_arch = "riscv64", path = "riscv64.rs")]
#[cfg_attr(target_arch = "x86", path = "x86.rs")]
#[cfg_attr(target_arch = "arm", path = "arm.rs")]
mod arch;
mod emulator;

// The signal set is one number here, its low bits first; the numbers of x32 and of ILP32 are others.
#[cfg(not(all(
    target_os = "linux",
    target_endian = "little",
    any(
        all(
            target_pointer_width = "64",
            any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64"),
        ),
        all(target_pointer_width = "32", any(target_arch = "x86", target_arch = "arm")),
    ),
)))]
compile_error!(
    "gracenet supports Linux on x86_64, aarch64, riscv64, x86 and arm (little-endian; not x32, not ILP32)"
);

use arch::nr;

const AT_FDCWD: usize = -100_isize as usize;
const AT_EMPTY_PATH: usize = 0x1000;
const CLOSE_RANGE_CLOEXEC: usize = 1 << 2;
const F_DUPFD_CLOEXEC: usize = 1030;
const F_GETFD: usize = 1;
const F_SETFD: usize = 2;
const FD_CLOEXEC: usize = 1;
const O_RDWR: usize = 2;
const O_CLOEXEC: usize = 0o2_000_000;
const O_NONBLOCK: usize = 0o4_000;
#[cfg(not(any(target_arch = "aarch64", target_arch = "arm")))]
const O_DIRECTORY: usize = 0o200_000;
#[cfg(any(target_arch = "aarch64", target_arch = "arm"))]
const O_DIRECTORY: usize = 0o40_000;
pub(crate) const PIDFS_MAGIC: u64 = 0x5049_4446;
const SIG_BLOCK: usize = 0;
const SIG_SETMASK: usize = 2;
/// How many bytes the kernel's signal set has.
const SIGSET: usize = 8;
const SIGNALS: usize = 64;
const SOL_SOCKET: usize = 1;
const SO_PEERCRED: usize = 17;
const SO_PEERPIDFD: usize = 77;

const CLONE_VM: u64 = 0x100;
const CLONE_SIGHAND: u64 = 0x800;
const CLONE_PIDFD: u64 = 0x1000;
const CLONE_VFORK: u64 = 0x4000;
const CLONE_PARENT: u64 = 0x8000;
const CLONE_THREAD: u64 = 0x1_0000;
const CLONE_SYSVSEM: u64 = 0x4_0000;
const CLONE_CLEAR_SIGHAND: u64 = 1 << 32;

/// A call's result: the kernel answers `-errno` for a failure.
fn result(ret: isize) -> Result<usize, Errno> {
    if (-4095..0).contains(&ret) { Err(Errno::from_raw_os_error(-ret as i32)) } else { Ok(ret as usize) }
}

/// Sets `FD_CLOEXEC` on the descriptors `first..=last` with one call.
///
/// # Errors
///
/// - `ENOSYS` before Linux 5.9, `EINVAL` before 5.11, and whatever a seccomp filter says.
pub(crate) fn set_cloexec(first: RawFd, last: RawFd) -> Result<(), Errno> {
    close_range(first as u32, last as u32)
}

fn close_range(first: u32, last: u32) -> Result<(), Errno> {
    let args = [first as usize, last as usize, CLOSE_RANGE_CLOEXEC, 0, 0, 0];
    // SAFETY: the call takes numbers only, and closes nothing with this flag.
    let ret = unsafe { arch::syscall(nr::CLOSE_RANGE, args) };
    result(ret).map(drop)
}

/// A signal mask of the kernel's.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mask(u64);

impl Mask {
    /// Blocks every signal that can be blocked, but for SIGSYS: a filter that traps a call means the handler to
    /// answer it there and then, and where it is blocked the kernel ends the process instead.
    pub(crate) const ALL: Self = Self(!(1 << (Signal::SYS.as_raw() - 1)));
}

impl Mask {
    /// These.
    pub(crate) fn of(signals: &[Signal]) -> Self {
        Self(signals.iter().fold(0, |mask, signal| mask | 1 << (signal.as_raw() - 1)))
    }
}

/// Blocks these signals in the calling thread, beside those that are.
pub(crate) fn block(mask: Mask) -> Result<(), Errno> {
    change_mask(SIG_BLOCK, mask).map(drop)
}

/// A descriptor that shows these signals when they come. Non-blocking, with `FD_CLOEXEC`.
///
/// # References
///
/// - signalfd(2)
pub(crate) fn signalfd(mask: Mask) -> Result<OwnedFd, Errno> {
    let args = [usize::MAX, &raw const mask.0 as usize, SIGSET, O_CLOEXEC | O_NONBLOCK, 0, 0];
    // SAFETY: the pointer is to 8 bytes of this frame, which is what the argument behind it says.
    let fd = result(unsafe { arch::syscall(nr::SIGNALFD4, args) })?;
    // SAFETY: the kernel has just made this descriptor for us, and nobody else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// The time on the monotonic clock. The vDSO would be faster, but finding it takes more calls, and more code,
/// than a restart has times to ask for.
///
/// # References
///
/// - clock_gettime(2)
pub(crate) fn monotonic() -> Duration {
    const CLOCK_MONOTONIC: usize = 1;
    let mut time = [0_i64; 2];
    let args = [CLOCK_MONOTONIC, time.as_mut_ptr() as usize, 0, 0, 0, 0];
    // SAFETY: the pointer is to a `struct timespec` of two 64-bit words. The clock is always there.
    let _ret = unsafe { arch::syscall(nr::CLOCK_GETTIME, args) };
    #[cfg(target_pointer_width = "32")]
    if _ret != 0 {
        // A filter that is older than 64-bit time on this architecture.
        let mut short = [0_i32; 2];
        let args = [CLOCK_MONOTONIC, short.as_mut_ptr() as usize, 0, 0, 0, 0];
        // SAFETY: as above, of two 32-bit words.
        unsafe { arch::syscall(nr::CLOCK_GETTIME_32, args) };
        time = short.map(i64::from);
    }
    let [seconds, nanoseconds] = time;
    Duration::new(seconds as u64, nanoseconds as u32)
}

/// Blocks the signals of [`Mask::ALL`] in the calling thread and returns its mask as it was.
pub(crate) fn block_signals() -> Result<Mask, Errno> {
    change_mask(SIG_BLOCK, Mask::ALL)
}

/// Sets the calling thread's mask.
pub(crate) fn restore_signals(mask: Mask) -> Result<(), Errno> {
    set_mask(mask).map(drop)
}

fn set_mask(mask: Mask) -> Result<Mask, Errno> {
    change_mask(SIG_SETMASK, mask)
}

fn change_mask(how: usize, mask: Mask) -> Result<Mask, Errno> {
    let mut old = Mask(0);
    let args = [how, &raw const mask.0 as usize, &raw mut old.0 as usize, SIGSET, 0, 0];
    // SAFETY: both pointers are to 8 bytes of this frame, which is what the last argument says.
    let ret = unsafe { arch::syscall(nr::RT_SIGPROCMASK, args) };
    result(ret)?;
    Ok(old)
}

/// Copies the auxiliary vector into `words`; Linux 6.4.
///
/// # References
///
/// - `PR_GET_AUXV(2const)`
pub(crate) fn auxv(words: &mut [usize]) -> Result<usize, Errno> {
    const PR_GET_AUXV: usize = 0x4155_5856;
    let args = [PR_GET_AUXV, words.as_mut_ptr() as usize, size_of_val(words), 0, 0, 0];
    // SAFETY: the pointer and the length are those of `words`, and any bits make a `usize`.
    let ret = unsafe { arch::syscall(nr::PRCTL, args) };
    result(ret)
}

/// The pidfd of the process that made the socket's other end; Linux 6.5.
///
/// # References
///
/// - `SO_PEERPIDFD` in unix(7)
pub(crate) fn peer_pidfd(socket: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    let [pidfd] = socket_option(socket, SO_PEERPIDFD)?;
    // SAFETY: the kernel has just made this descriptor for us, and nobody else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(pidfd) })
}

/// The PID of the process that made the socket's other end; 0 if it has none in this PID namespace, which
/// rustix's type for it cannot hold.
///
/// # References
///
/// - `SO_PEERCRED` in unix(7)
pub(crate) fn peer_pid(socket: BorrowedFd<'_>) -> Result<i32, Errno> {
    let [pid, _uid, _gid] = socket_option(socket, SO_PEERCRED)?;
    Ok(pid)
}

/// Room for an address, as the kernel writes it into a `struct sockaddr`. It stays where it is: rustix's type moves 136
/// bytes at each step from here to a key, of which an address of TCP's has 16.
pub(crate) struct SocketName([MaybeUninit<u8>; Self::MAX]);

impl SocketName {
    /// The most that the kernel writes: `struct sockaddr_storage`.
    const MAX: usize = 128;

    pub(crate) const fn new() -> Self {
        Self([const { MaybeUninit::uninit() }; Self::MAX])
    }

    /// Asks for a socket's own address: the family, then what that has for one, as long as the kernel says that it is.
    ///
    /// # References
    ///
    /// - getsockname(2)
    pub(crate) fn ask(&mut self, socket: BorrowedFd<'_>) -> Result<&[u8], Errno> {
        let mut len = Self::MAX as u32;
        let start = self.0.as_mut_ptr();
        let args = [socket.as_raw_fd() as usize, start as usize, &raw mut len as usize, 0, 0, 0];
        // SAFETY: both pointers are to what is this call's alone, and `len` says how much the first may take.
        let ret = unsafe { arch::syscall(nr::GETSOCKNAME, args) };
        result(ret)?;
        // No family's is longer than the room for it.
        let len = (len as usize).min(Self::MAX);
        // SAFETY: that many were written.
        Ok(unsafe { core::slice::from_raw_parts(start.cast(), len) })
    }
}

fn socket_option<const WORDS: usize>(socket: BorrowedFd<'_>, option: usize) -> Result<[c_int; WORDS], Errno> {
    let mut value = [-1; WORDS];
    let mut len = size_of_val(&value) as u32;
    let args = [
        socket.as_raw_fd() as usize,
        SOL_SOCKET,
        option,
        value.as_mut_ptr() as usize,
        &raw mut len as usize,
        0,
    ];
    // SAFETY: both pointers are to this frame, and `len` says how much the first may take.
    let ret = unsafe { arch::syscall(nr::GETSOCKOPT, args) };
    result(ret)?;
    Ok(value)
}

/// The wait status of a pidfd's process, if it has ended and was collected; Linux 6.15.
///
/// # References
///
/// - `PIDFD_GET_INFO` in ioctl_pidfd(2)
pub(crate) fn pidfd_exit(pidfd: BorrowedFd<'_>) -> Result<Option<c_int>, Errno> {
    const PIDFD_INFO_EXIT: u64 = 1 << 3;
    const PIDFD_GET_INFO: Opcode = ioctl::opcode::read_write::<PidfdInfo>(0xff, 11);
    let mut info = PidfdInfo { mask: PIDFD_INFO_EXIT, cgroup: 0, ids: [0; 11], exit_code: 0 };
    // SAFETY: the call reads and writes a `struct pidfd_info` of the size that its number holds.
    let request = unsafe { ioctl::Updater::<PIDFD_GET_INFO, _>::new(&mut info) };
    // SAFETY: as above; another kind of file answers ENOTTY.
    unsafe { ioctl::ioctl(pidfd, request) }?;
    Ok((info.mask & PIDFD_INFO_EXIT != 0).then_some(info.exit_code))
}

/// `struct pidfd_info`, as Linux 6.13 has it.
#[repr(C)]
struct PidfdInfo {
    mask: u64,
    cgroup: u64,
    ids: [u32; 11],
    exit_code: c_int,
}

/// The address of a vsock: `struct sockaddr_vm`.
///
/// # References
///
/// - vsock(7)
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(crate) struct VsockAddress {
    family: u16,
    reserved: u16,
    port: u32,
    cid: u32,
    zero: [u8; 4],
}

impl VsockAddress {
    pub(crate) const fn new(cid: u32, port: u32) -> Self {
        Self { family: AddressFamily::VSOCK.as_raw(), reserved: 0, port, cid, zero: [0; 4] }
    }

    /// This port of this machine.
    pub(crate) const fn any(port: u32) -> Self {
        Self::new(u32::MAX, port)
    }
}

// SAFETY: the pointer is to a whole `struct sockaddr_vm`, which has no padding.
unsafe impl SocketAddrArg for VsockAddress {
    unsafe fn with_sockaddr<R>(&self, f: impl FnOnce(*const SocketAddrOpaque, SocketAddrLen) -> R) -> R {
        f((&raw const *self).cast(), size_of::<Self>() as SocketAddrLen)
    }
}

/// What a clone shares with the process that makes it.
#[derive(Debug)]
pub(crate) enum Clone<'s> {
    /// A new process: memory until it executes or exits; handlers are its own, and default. This process is
    /// its parent.
    ///
    /// It goes on below the calling thread's frames, where nobody is meanwhile, as vfork has it. A stack of its own
    /// would be the caller's to find: in a frame, where all of it is touched, or by two more system calls.
    Child,
    /// The same with this process's parent as its parent, which the init process of a PID namespace cannot
    /// make: `EINVAL`.
    Sibling,
    /// A thread of this process that nobody knows: memory, handlers, what semop(2) is to undo and the PID, but
    /// not descriptors and not the working directory. When it executes, the program is replaced; when it exits,
    /// nothing was. It runs on this stack.
    Thread(&'s mut [MaybeUninit<u8>]),
}

/// A clone that ran, and has executed a program or ended.
#[derive(Debug)]
pub(crate) struct Cloned<R> {
    /// Its ID, as the calling process sees it.
    pub(crate) id: i32,
    /// Its pidfd, if it is a process and the kernel gave one.
    pub(crate) pidfd: Option<OwnedFd>,
    /// What its body answered. One that executed a program, or was killed, gave no answer.
    pub(crate) answer: Option<R>,
}

/// `struct clone_args`, as Linux 5.3 has it.
#[repr(C, align(8))]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
}

/// What the clone finds in memory, be it shared or a copy.
struct Job<'d, T, R> {
    body: fn(&Task, &mut T) -> R,
    data: &'d mut T,
    /// The call that ends the clone.
    exit: usize,
    reset_handlers: bool,
    /// Whether the clone has yet to leave what it shares.
    unshares: bool,
    /// Where the answer goes too, if memory may be a copy.
    report: Option<Report>,
    answer: Option<R>,
}

/// A pipe for the answer, and the number from which on the body leaves descriptors alone.
#[derive(Clone, Copy)]
struct Report {
    fd: RawFd,
    free: RawFd,
}

/// Clones, runs `body` in the clone, and returns once the clone has executed a program or ended.
/// Only the calling thread waits, and no page table is copied. `clone3` first; where the kernel or a filter
/// does not know it, `clone` with the same flags; where an emulator refuses those, what it does not refuse.
///
/// What `body` answers is there when this returns, whether memory was shared or not. What it writes to `data`
/// may not be.
///
/// # Errors
///
/// - What clone(2) answers: there is no new task, and `body` did not run.
///
/// # Safety
///
/// - The signals of [`Mask::ALL`] are blocked in the calling thread.
/// - `body` calls nothing but the methods of [`Task`] and code that makes no system call, does not allocate,
///   does not panic and uses no thread-local; it needs no more stack than there is. (Where that is the calling
///   thread's, and ends, the fault kills the clone; before Linux 5.16, whose core dumps end everybody who shares the
///   memory, the calling process too.)
/// - If the clone is a process, `body` closes and replaces no descriptor from `free` on that it did not make.
pub(crate) unsafe fn clone_and_run<T, R: Copy>(
    mut what: Clone<'_>,
    free: RawFd,
    data: &mut T,
    body: fn(&Task, &mut T) -> R,
) -> Result<Cloned<R>, Errno> {
    let mut pidfd: c_int = -1;
    // A process ends as processes do: an emulator takes a lock for the end of a thread, which in a fork may be
    // held for ever.
    let exit = if matches!(what, Clone::Thread(_)) { nr::EXIT } else { nr::EXIT_GROUP };
    let mut job =
        Job { body, data, exit, reset_handlers: false, unshares: false, report: None, answer: None };
    // The exit signal stays 0 until the clone executes (execve makes it SIGCHLD), so a clone that fails to
    // is seen by nobody's handler and collected by nobody's wait but ours, which asks for it (__WALL).
    let process = CLONE_VM | CLONE_VFORK | CLONE_PIDFD;
    let (flags, clear, stack) = match &mut what {
        Clone::Child => (process, CLONE_CLEAR_SIGHAND, None),
        Clone::Sibling => (process | CLONE_PARENT, CLONE_CLEAR_SIGHAND, None),
        // What semop(2) is to undo at the end of the process survives an execve, if who executes shares it.
        Clone::Thread(stack) => {
            (CLONE_VM | CLONE_VFORK | CLONE_THREAD | CLONE_SIGHAND | CLONE_SYSVSEM, 0, Some(stack))
        }
    };
    // Two zeros are the calling thread's own, below its frames.
    let (bottom, top) = stack.map_or((0, 0), |stack| {
        let bottom = stack.as_mut_ptr() as usize;
        (bottom, (bottom + stack.len()) & !15)
    });
    let args = CloneArgs {
        flags: flags | clear,
        pidfd: &raw mut pidfd as u64,
        stack: bottom as u64,
        stack_size: (top - bottom) as u64,
        ..CloneArgs::default()
    };
    let args = [&raw const args as usize, size_of::<CloneArgs>(), 0, 0, 0];
    // SAFETY: the stack is this call's alone, or below the frames of the calling thread, which sleeps until the clone
    // has stopped using memory; `job` and all it refers to live in those frames. `enter` never returns.
    let ret = unsafe { arch::clone_into(nr::CLONE3, args, enter::<T, R>, (&raw mut job).cast()) };
    let ret = match result(ret) {
        // ENOSYS: Linux 5.2, or a filter. EPERM: a filter. EINVAL: CLONE_CLEAR_SIGHAND before Linux 5.5.
        Err(Errno::NOSYS | Errno::PERM | Errno::INVAL) => {
            job.reset_handlers = clear != 0;
            let args = [flags as usize, top, &raw mut pidfd as usize, 0, 0];
            // SAFETY: as above.
            let ret = unsafe { arch::clone_into(nr::CLONE, args, enter::<T, R>, (&raw mut job).cast()) };
            result(ret)
        }
        other => other,
    };
    let ret = match (ret, what) {
        // SAFETY: the caller's contract; there is no clone yet.
        (Err(Errno::INVAL), Clone::Child) => unsafe { emulator::process(free, &mut job) },
        // SAFETY: as above.
        (Err(Errno::INVAL), Clone::Thread(_)) => unsafe { emulator::thread(top, &mut job) },
        (ret, _) => ret,
    };
    // SAFETY: the pointer is to this frame; the kernel wrote behind the compiler's back.
    let pidfd = unsafe { (&raw const pidfd).read_volatile() };
    Ok(Cloned {
        id: ret? as i32,
        // SAFETY: the kernel has just made this descriptor for us, and nobody else knows of it.
        pidfd: (pidfd >= 0).then(|| unsafe { OwnedFd::from_raw_fd(pidfd) }),
        answer: job.answer,
    })
}

/// Where the clone begins, with no frame to return to.
unsafe extern "C" fn enter<T, R: Copy>(job: *mut c_void) -> ! {
    let task = Task(());
    // SAFETY: `clone_and_run` passed a pointer to its `Job<T, R>`, and does not touch it while the clone does.
    let job = unsafe { &mut *job.cast::<Job<'_, T, R>>() };
    run(&task, job);
    loop {
        // SAFETY: ends this task and touches nothing.
        unsafe { arch::syscall(job.exit, [127, 0, 0, 0, 0, 0]) };
    }
}

/// Runs the body and leaves its answer; there is none if what an emulator makes necessary did not succeed.
fn run<T, R: Copy>(task: &Task, job: &mut Job<'_, T, R>) {
    if job.reset_handlers {
        task.reset_handlers();
    }
    let report = match job.report {
        // The body needs room above this number too, so where there is none it would not have succeeded.
        Some(Report { fd, free }) => match task.duplicate_above(fd, free) {
            Ok(fd) => Some(fd),
            Err(_) => return,
        },
        None => None,
    };
    if job.unshares && task.unshare().is_err() {
        return;
    }
    job.answer = Some((job.body)(task, job.data));
    if let Some(report) = report {
        task.write_answer(report, &job.answer);
    }
}

/// Proof that this code runs between clone and execve.
#[derive(Debug)]
pub(crate) struct Task(());

impl Task {
    /// Makes a call that takes numbers only, or pointers that the caller made from references.
    fn call(&self, nr: usize, args: [usize; 6]) -> Result<usize, Errno> {
        // SAFETY: this is private to the methods below, each of which passes what its call expects; what
        // the calls do to descriptors and directories happens to this task's copies.
        let ret = unsafe { arch::syscall(nr, args) };
        result(ret)
    }

    /// The PID of the process this task is, or is a thread of.
    pub(crate) fn pid(&self) -> u32 {
        self.call(nr::GETPID, [0; 6]).unwrap_or(0) as u32
    }

    /// The inode number of the pidfd of this process, whose PID is `pid`, if the kernel keeps pidfds on a file system of
    /// their own.
    pub(crate) fn pidfd_id(&self, pid: u32) -> Option<u64> {
        let pidfd = self.call(nr::PIDFD_OPEN, [pid as usize, 0, 0, 0, 0, 0]).ok()?;
        // `struct statfs` on 64 bits, 120 bytes; else `struct statfs64`, whose size is an argument: 84 bytes,
        // without the padding that it has on some. The type of the file system is the first word of both.
        let mut statfs = [0_usize; 22];
        let buffer = statfs.as_mut_ptr() as usize;
        let [first, second] = if cfg!(target_pointer_width = "64") { [buffer, 0] } else { [84, buffer] };
        self.call(nr::FSTATFS, [pidfd, first, second, 0, 0, 0]).ok()?;
        let [file_system, ..] = statfs;
        if file_system as u64 != PIDFS_MAGIC {
            return None;
        }
        const STATX_INO: usize = 0x100;
        // `struct statx`: 256 bytes, stx_ino at 32. The descriptor closes when this task executes or ends.
        let mut statx = [0_u64; 32];
        let empty = c"".as_ptr() as usize;
        self.call(nr::STATX, [pidfd, empty, AT_EMPTY_PATH, STATX_INO, statx.as_mut_ptr() as usize, 0])
            .ok()?;
        let [_, _, _, _, inode, ..] = statx;
        Some(inode)
    }

    /// Changes the working directory to a path.
    pub(crate) fn chdir(&self, path: &CStr) -> Result<(), Errno> {
        self.call(nr::CHDIR, [path.as_ptr() as usize, 0, 0, 0, 0, 0]).map(drop)
    }

    /// Changes the working directory to an open one.
    pub(crate) fn fchdir(&self, fd: RawFd) -> Result<(), Errno> {
        self.call(nr::FCHDIR, [fd as usize, 0, 0, 0, 0, 0]).map(drop)
    }

    /// Duplicates `fd` to a free number, `least` or more, with `FD_CLOEXEC`.
    pub(crate) fn duplicate_above(&self, fd: RawFd, least: RawFd) -> Result<RawFd, Errno> {
        self.call(nr::FCNTL, [fd as usize, F_DUPFD_CLOEXEC, least as usize, 0, 0, 0]).map(|fd| fd as RawFd)
    }

    /// Duplicates `from` onto `to`, another number, without `FD_CLOEXEC`.
    pub(crate) fn duplicate_onto(&self, from: RawFd, to: RawFd) -> Result<(), Errno> {
        self.call(nr::DUP3, [from as usize, to as usize, 0, 0, 0, 0]).map(drop)
    }

    /// Whether it has `FD_CLOEXEC`.
    pub(crate) fn is_close_on_exec(&self, fd: RawFd) -> Result<bool, Errno> {
        self.call(nr::FCNTL, [fd as usize, F_GETFD, 0, 0, 0, 0]).map(|flags| flags & FD_CLOEXEC != 0)
    }

    /// Clears `FD_CLOEXEC`.
    pub(crate) fn keep(&self, fd: RawFd) -> Result<(), Errno> {
        self.call(nr::FCNTL, [fd as usize, F_SETFD, 0, 0, 0, 0]).map(drop)
    }

    /// Opens `/dev/null` on the lowest free number, with `FD_CLOEXEC`.
    pub(crate) fn open_null(&self) -> Result<RawFd, Errno> {
        let path = c"/dev/null".as_ptr() as usize;
        self.call(nr::OPENAT, [AT_FDCWD, path, O_RDWR | O_CLOEXEC, 0, 0, 0]).map(|fd| fd as RawFd)
    }

    /// Sets `FD_CLOEXEC` on every descriptor from `first` on: with one call, or one by one where the kernel
    /// has no such call, as `/proc` lists them, or where that is missing each number that one can have.
    pub(crate) fn close_on_exec_from(&self, first: RawFd) -> Result<(), Errno> {
        match close_range(first as u32, u32::MAX) {
            Err(Errno::NOSYS | Errno::INVAL | Errno::PERM) => self.close_on_exec_each(first),
            other => other,
        }
    }

    #[cold]
    #[inline(never)]
    fn close_on_exec_each(&self, first: RawFd) -> Result<(), Errno> {
        let listed = self.each_listed(|fd| {
            if fd < first {
                return Ok(());
            }
            self.call(nr::FCNTL, [fd as usize, F_SETFD, FD_CLOEXEC, 0, 0, 0]).map(drop)
        });
        listed.or_else(|_| self.close_on_exec_all(first))
    }

    /// Closes every descriptor: what a task that gives up does not leave to its end, which its process would
    /// not wait for.
    #[cold]
    #[inline(never)]
    pub(crate) fn close_all(&self) {
        if self.call(nr::CLOSE_RANGE, [0, u32::MAX as usize, 0, 0, 0, 0]).is_err() {
            // What cannot be closed now closes with the task, a moment later.
            let _ = self.each_listed(|fd| self.call(nr::CLOSE, [fd as usize, 0, 0, 0, 0, 0]).map(drop));
        }
    }

    /// Calls `act` for each descriptor that `/proc` lists, but for the one that reads the list.
    fn each_listed(&self, mut act: impl FnMut(RawFd) -> Result<(), Errno>) -> Result<(), Errno> {
        // The thread's list: a thread made by `Clone::Thread` does not have its process's descriptors.
        let path = c"/proc/thread-self/fd".as_ptr() as usize;
        let list = self.call(nr::OPENAT, [AT_FDCWD, path, O_DIRECTORY | O_CLOEXEC, 0, 0, 0])?;
        let mut buffer = [0_u8; 1024];
        loop {
            let args = [list, buffer.as_mut_ptr() as usize, buffer.len(), 0, 0, 0];
            let read = self.call(nr::GETDENTS64, args)?;
            if read == 0 {
                return Ok(());
            }
            let mut entries = buffer.get(..read).unwrap_or(&[]);
            // `struct linux_dirent64`: the length of the entry at 16, the name from 19 on.
            while let Some(len) = entries.get(16..18).and_then(|len| len.first_chunk()) {
                let len = usize::from(u16::from_ne_bytes(*len));
                let name = entries.get(19..len).unwrap_or(&[]);
                if let Some(fd) = parse_fd(name).filter(|fd| *fd as usize != list) {
                    act(fd)?;
                }
                entries = entries.get(len.max(19)..).unwrap_or(&[]);
            }
        }
    }

    #[cold]
    #[inline(never)]
    fn close_on_exec_all(&self, first: RawFd) -> Result<(), Errno> {
        // The kernel's default for fs.nr_open. The limit of open files says nothing: it may have been lowered since.
        const NR_OPEN: RawFd = 1 << 20;
        for fd in first..NR_OPEN {
            match self.call(nr::FCNTL, [fd as usize, F_SETFD, FD_CLOEXEC, 0, 0, 0]) {
                Ok(_) | Err(Errno::BADF) => {}
                Err(errno) => return Err(errno),
            }
        }
        Ok(())
    }

    /// Sets the signal that this task gets when its parent ends.
    pub(crate) fn set_parent_death_signal(&self, signal: Signal) -> Result<(), Errno> {
        const PR_SET_PDEATHSIG: usize = 1;
        self.call(nr::PRCTL, [PR_SET_PDEATHSIG, signal.as_raw() as usize, 0, 0, 0, 0]).map(drop)
    }

    /// Sets this task's signal mask.
    pub(crate) fn set_mask(&self, mask: Mask) -> Result<(), Errno> {
        set_mask(mask).map(drop)
    }

    /// Whether a signal waits that `mask` would let through to this task, and that there is a handler for. One
    /// without does nothing, or stops or ends the process, as it would have done a moment earlier or later.
    pub(crate) fn is_signalled(&self, mask: Mask) -> bool {
        let mut pending = 0_u64;
        let args = [&raw mut pending as usize, SIGSET, 0, 0, 0, 0];
        let asked = self.call(nr::RT_SIGPENDING, args).is_ok();
        let waiting = pending & !mask.0;
        asked && (1..=SIGNALS).any(|signal| waiting & (1 << (signal - 1)) != 0 && self.has_handler(signal))
    }

    fn has_handler(&self, signal: usize) -> bool {
        const SIG_IGN: usize = 1;
        // `struct sigaction` of the kernel's: the handler first, at most 8 words in all.
        let mut action = [0_usize; 8];
        let args = [signal, 0, action.as_mut_ptr() as usize, SIGSET, 0, 0];
        let asked = self.call(nr::RT_SIGACTION, args).is_ok();
        let [handler, ..] = action;
        asked && handler > SIG_IGN
    }

    /// Gives every signal with a handler its default action; ignored ones stay ignored, as over execve.
    #[cold]
    #[inline(never)]
    fn reset_handlers(&self) {
        for signal in (1..=SIGNALS).filter(|signal| self.has_handler(*signal)) {
            let action = [0_usize; 8];
            let args = [signal, action.as_ptr() as usize, 0, SIGSET, 0, 0];
            // SIGKILL and SIGSTOP have no handler, so there is nothing to refuse.
            let _ = self.call(nr::RT_SIGACTION, args);
        }
    }

    /// Executes the program at `path`, relative to the working directory. Returns only on failure.
    ///
    /// # Safety
    ///
    /// - `argv` and `envp` point to tables of strings that end with a null pointer.
    pub(crate) unsafe fn execute(
        &self,
        path: &CStr,
        argv: *const *const c_char,
        envp: *const *const c_char,
    ) -> Errno {
        let path = path.as_ptr() as usize;
        self.failed(nr::EXECVE, [path, argv as usize, envp as usize, 0, 0, 0])
    }

    /// Executes the program that is open as `fd`. Returns only on failure.
    ///
    /// # Safety
    ///
    /// - `argv` and `envp` point to tables of strings that end with a null pointer.
    pub(crate) unsafe fn execute_fd(
        &self,
        fd: RawFd,
        argv: *const *const c_char,
        envp: *const *const c_char,
    ) -> Errno {
        let empty = c"".as_ptr() as usize;
        let args = [fd as usize, empty, argv as usize, envp as usize, AT_EMPTY_PATH, 0];
        self.failed(nr::EXECVEAT, args)
    }

    /// The error of a call that does not return when it succeeds.
    fn failed(&self, nr: usize, args: [usize; 6]) -> Errno {
        match self.call(nr, args) {
            Err(errno) => errno,
            Ok(_) => Errno::NOSYS,
        }
    }
}

/// The number that a NUL-terminated name is; `None` for `.` and `..`.
fn parse_fd(name: &[u8]) -> Option<RawFd> {
    name.iter().take_while(|byte| **byte != 0).try_fold(0 as RawFd, |sum, byte| {
        let digit = byte.checked_sub(b'0').filter(|digit| *digit < 10)?;
        sum.checked_mul(10)?.checked_add(RawFd::from(digit))
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::std_instead_of_core, reason = "tests")]
    use super::*;
    use std::fs::File;
    use std::os::fd::AsFd;

    #[test]
    fn numbers_are_those_of_the_architecture() {
        #[cfg(target_pointer_width = "64")]
        use libc::{SYS_clock_gettime as CLOCK_GETTIME, SYS_fcntl as FCNTL, SYS_fstatfs as FSTATFS};
        #[cfg(target_pointer_width = "32")]
        use libc::{SYS_fcntl64 as FCNTL, SYS_fstatfs64 as FSTATFS};
        // One number for all that need it, of which libc does not know for each libc.
        #[cfg(target_pointer_width = "32")]
        const CLOCK_GETTIME: libc::c_long = 403;
        for (ours, theirs) in [
            (nr::CHDIR, libc::SYS_chdir),
            (nr::CLOCK_GETTIME, CLOCK_GETTIME),
            (nr::CLONE, libc::SYS_clone),
            (nr::CLONE3, libc::SYS_clone3),
            (nr::CLOSE, libc::SYS_close),
            (nr::CLOSE_RANGE, libc::SYS_close_range),
            (nr::DUP3, libc::SYS_dup3),
            (nr::EXECVE, libc::SYS_execve),
            (nr::EXECVEAT, libc::SYS_execveat),
            (nr::EXIT, libc::SYS_exit),
            (nr::EXIT_GROUP, libc::SYS_exit_group),
            (nr::FCHDIR, libc::SYS_fchdir),
            (nr::FCNTL, FCNTL),
            (nr::FSTATFS, FSTATFS),
            (nr::FUTEX, libc::SYS_futex),
            (nr::GETDENTS64, libc::SYS_getdents64),
            (nr::GETPID, libc::SYS_getpid),
            (nr::GETSOCKNAME, libc::SYS_getsockname),
            (nr::GETSOCKOPT, libc::SYS_getsockopt),
            (nr::OPENAT, libc::SYS_openat),
            (nr::PIDFD_OPEN, libc::SYS_pidfd_open),
            (nr::PRCTL, libc::SYS_prctl),
            (nr::RT_SIGACTION, libc::SYS_rt_sigaction),
            (nr::RT_SIGPENDING, libc::SYS_rt_sigpending),
            (nr::RT_SIGPROCMASK, libc::SYS_rt_sigprocmask),
            (nr::SIGNALFD4, libc::SYS_signalfd4),
            (nr::STATX, libc::SYS_statx),
            (nr::UNSHARE, libc::SYS_unshare),
            (nr::WRITE, libc::SYS_write),
        ] {
            assert_eq!(ours, usize::try_from(theirs).unwrap());
        }
    }

    #[test]
    fn flags_are_those_of_the_architecture() {
        assert_eq!(O_DIRECTORY, libc::O_DIRECTORY as usize);
        assert_eq!(O_CLOEXEC, libc::O_CLOEXEC as usize);
        assert_eq!(O_NONBLOCK, libc::O_NONBLOCK as usize);
        assert_eq!(O_RDWR, libc::O_RDWR as usize);
        assert_eq!(F_DUPFD_CLOEXEC, libc::F_DUPFD_CLOEXEC as usize);
        assert_eq!(SIG_SETMASK, libc::SIG_SETMASK as usize);
        assert_eq!(SOL_SOCKET, libc::SOL_SOCKET as usize);
        assert_eq!(SO_PEERCRED, libc::SO_PEERCRED as usize);
    }

    /// Every argument arrives in its place, and what the instruction clobbers is known to the compiler.
    #[test]
    fn six_arguments() {
        // SAFETY: asks for a number.
        let page = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap();
        let file = File::open("/proc/self/exe").unwrap();
        #[cfg(target_pointer_width = "64")]
        let (number, offset) = (libc::SYS_mmap, page);
        // In units of 4096 bytes, whatever a page is.
        #[cfg(target_pointer_width = "32")]
        let (number, offset) = (libc::SYS_mmap2, page / 4096);
        let mut before = std::vec![0; page];
        std::os::unix::fs::FileExt::read_exact_at(&file, &mut before, page as u64).unwrap();
        let (read, private) = (libc::PROT_READ as usize, libc::MAP_PRIVATE as usize);
        let args = [0, page, read, private, file.as_raw_fd() as usize, offset];
        // SAFETY: a fresh mapping.
        let address = result(unsafe { arch::syscall(number as usize, args) }).unwrap();
        let mapping: *const u8 = core::ptr::with_exposed_provenance(address);
        // SAFETY: it is as long as that, and nobody writes to this file.
        assert_eq!(unsafe { core::slice::from_raw_parts(mapping, page) }, before);
        // SAFETY: mapped above, and used no more.
        unsafe { rustix::mm::munmap(mapping.cast_mut().cast(), page) }.unwrap();
    }

    #[test]
    fn masks_have_a_bit_for_each_signal() {
        let before = block_signals().unwrap();
        let all = set_mask(Mask(1 << 61 | 1 << 32 | 1)).unwrap();
        let some = set_mask(before).unwrap();
        // SIGKILL and SIGSTOP cannot be blocked, SIGSYS is not; an emulator keeps the last two for itself.
        assert_eq!(all.0 | 1 << 8 | 1 << 18 | 3 << 62, !(1 << 30));
        assert_eq!(some.0, 1 << 61 | 1 << 32 | 1);
        assert_eq!(block_signals().unwrap().0, before.0);
        restore_signals(before).unwrap();
    }

    /// What the clone finds by raw calls is what rustix finds. Its stack is its own, or below its caller's frames, and
    /// aligned as the compiler expects it.
    #[test]
    fn a_clone_knows_its_process() {
        #[derive(Clone, Copy)]
        struct Seen {
            pid: u32,
            id: Option<u64>,
            local: usize,
            null: Option<Errno>,
            numbers: Option<Errno>,
        }
        // The answer comes back from a copy of memory too.
        fn look(task: &Task, (): &mut ()) -> Seen {
            #[repr(align(16))]
            struct Aligned(u8);
            let aligned = Aligned(0);
            // The address, of which the compiler would else know that it is what it has to be.
            let local = core::hint::black_box(&raw const aligned.0).addr();
            let pid = task.pid();
            let id = task.pidfd_id(pid);
            let null = task.each_listed(|_| Err(Errno::XDEV)).err();
            Seen { pid, id, local, null, numbers: task.close_on_exec_all((1 << 20) - 8).err() }
        }
        let mut stack = [MaybeUninit::uninit(); 16 * 1024];
        let own = stack.as_ptr_range();
        let own = own.start.addr()..own.end.addr();
        for what in [Clone::Thread(&mut stack), Clone::Child] {
            let is_thread = matches!(what, Clone::Thread(_));
            let mask = block_signals().unwrap();
            // SAFETY: signals are blocked, and the body keeps to its rules.
            let cloned = unsafe { clone_and_run(what, 64, &mut (), look) };
            restore_signals(mask).unwrap();
            let cloned = cloned.unwrap();
            let seen = cloned.answer.unwrap();
            assert_eq!(seen.pid, if is_thread { std::process::id() } else { cloned.id as u32 });
            if is_thread {
                assert_eq!(seen.id, crate::pidfd::own_id());
            }
            assert!(seen.local.is_multiple_of(16), "{:#x}", seen.local);
            assert_eq!(own.contains(&seen.local), is_thread);
            assert!(is_thread || seen.local < own.start, "below this frame");
            assert_eq!(seen.null, Some(Errno::XDEV));
            assert_eq!(seen.numbers, None);
        }
    }

    /// What a function that calls no other keeps below the stack pointer, where the ABI of x86_64 lets it, is not the
    /// clone's to write to, which goes on there. It keeps something there where all of this is inlined: `--release`.
    #[test]
    fn a_clone_spares_the_red_zone() {
        unsafe extern "C" fn end(_: *mut c_void) -> ! {
            let mut frame = [0; 32];
            for word in &mut frame {
                // SAFETY: a word of this frame, which is written to although nobody reads it.
                unsafe { core::ptr::from_mut(word).write_volatile(usize::MAX) };
            }
            loop {
                // SAFETY: ends this task and touches nothing.
                unsafe { arch::syscall(nr::EXIT_GROUP, [0; 6]) };
            }
        }
        #[inline(never)]
        fn keep(value: usize) -> (isize, [usize; 8]) {
            let mut kept = [0; 8];
            for (word, number) in kept.iter_mut().zip(value..) {
                // SAFETY: a word of this frame, which the compiler cannot do without.
                unsafe { core::ptr::from_mut(word).write_volatile(number) };
            }
            let args = [(CLONE_VM | CLONE_VFORK) as usize | Signal::CHILD.as_raw() as usize, 0, 0, 0, 0];
            // SAFETY: the calling task waits until the new one, which is below its frames, has ended.
            let id = unsafe { arch::clone_into(nr::CLONE, args, end, core::ptr::null_mut()) };
            // SAFETY: as above.
            (id, kept.each_ref().map(|word| unsafe { core::ptr::from_ref(word).read_volatile() }))
        }
        let mask = block_signals().unwrap();
        let (id, kept) = keep(1000);
        restore_signals(mask).unwrap();
        assert_eq!(kept, core::array::from_fn(|word| 1000 + word));
        let child = rustix::process::Pid::from_raw(id as i32).unwrap();
        let options = rustix::process::WaitOptions::empty();
        let status = rustix::process::waitpid(Some(child), options).unwrap().unwrap().1;
        assert_eq!(status.exit_status(), Some(0));
    }

    #[test]
    fn the_clock_is_the_one_that_libc_has() {
        let theirs = || {
            let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
            Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
        };
        let (before, ours, after) = (theirs(), monotonic(), theirs());
        assert!(before <= ours && ours <= after, "{before:?} {ours:?} {after:?}");
    }

    /// Where a filter is older than 64-bit time, and refuses it, there is the call that it knows.
    #[cfg(target_pointer_width = "32")]
    #[test]
    fn the_clock_is_read_by_the_old_call_where_the_new_one_is_refused() {
        let before = monotonic();
        // In a thread of its own, which alone has the filter.
        let thread = std::thread::spawn(|| {
            let statement = |code: u32, jf, k| libc::sock_filter { code: code as u16, jt: 0, jf, k };
            let mut filter = [
                statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0),
                statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 1, nr::CLOCK_GETTIME as u32),
                statement(libc::BPF_RET | libc::BPF_K, 0, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32),
                statement(libc::BPF_RET | libc::BPF_K, 0, libc::SECCOMP_RET_ALLOW),
            ];
            let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
            // SAFETY: takes numbers.
            assert_eq!(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }, 0);
            let mode = libc::SECCOMP_MODE_FILTER;
            // SAFETY: the program and its statements are in this frame.
            assert_eq!(unsafe { libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const program) }, 0);
            let mut time = [0_i64; 2];
            let args = [1, time.as_mut_ptr() as usize, 0, 0, 0, 0];
            // SAFETY: as in `monotonic`, and refused.
            assert_eq!(result(unsafe { arch::syscall(nr::CLOCK_GETTIME, args) }), Err(Errno::PERM));
            monotonic()
        });
        let ours = thread.join().unwrap();
        assert!(before < ours && ours <= monotonic(), "{before:?} {ours:?}");
    }

    #[test]
    fn a_socket_option_is_as_long_as_asked_for() {
        let (a, _b) = std::os::unix::net::UnixStream::pair().unwrap();
        assert_eq!(peer_pid(a.as_fd()), Ok(std::process::id() as i32));
    }
}
