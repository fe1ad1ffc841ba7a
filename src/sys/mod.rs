//! The system calls that rustix does not offer, or offers only in a costlier form, and the clone that restarts use.
//!
//! This module has two kinds of functions. The process itself calls the free functions. The methods of [`Task`] are
//! called between clone and execve, where memory is shared with a suspended thread of the predecessor. They make raw
//! system calls and nothing else.
//!
//! | module | holds |
//! |---|---|
//! | this one | calls of the process itself |
//! | `clone` | a process or a thread that runs until it executes a program |
//! | `task` | calls of that process or thread |
//! | `job` | what a clone runs, and the flags that make it |
//! | `emulator` | the clones that a user-mode emulator accepts |
//! | one for each architecture | `syscall`, `clone_into` and the numbers in `nr`: all the assembly |
#![allow(unsafe_code)]

use core::ffi::c_int;
use core::mem::MaybeUninit;
use core::time::Duration;
use rustix::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use rustix::io::Errno;
use rustix::ioctl::{self, Opcode};
use rustix::net::AddressFamily;
use rustix::net::addr::{SocketAddrArg, SocketAddrLen, SocketAddrOpaque};
use rustix::process::{Pid, Signal};

#[cfg_attr(target_arch = "x86_64", path = "x86_64.rs")]
#[cfg_attr(target_arch = "aarch64", path = "aarch64.rs")]
#[cfg_attr(target_arch = "riscv64", path = "riscv64.rs")]
#[cfg_attr(target_arch = "x86", path = "x86.rs")]
#[cfg_attr(target_arch = "arm", path = "arm.rs")]
mod arch;
mod clone;
mod emulator;
mod job;
mod task;

pub(crate) use clone::{Cloned, Kin, clone_and_run};
pub(crate) use task::Task;

// The signal set is one number here, its low bits first. The numbers of x32 and of ILP32 differ.
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

/// Returns a call's result: the kernel answers `-errno` for a failure.
fn result(ret: isize) -> Result<usize, Errno> {
    if (-4095..0).contains(&ret) { Err(Errno::from_raw_os_error(-ret as i32)) } else { Ok(ret as usize) }
}

/// Sets `FD_CLOEXEC` on the descriptors `first..=last` with one call.
///
/// # Errors
///
/// - `ENOSYS` before Linux 5.9, `EINVAL` before 5.11, and any error from a seccomp filter.
pub(crate) fn set_cloexec(first: RawFd, last: RawFd) -> Result<(), Errno> {
    close_range(first as u32, last as u32)
}

fn close_range(first: u32, last: u32) -> Result<(), Errno> {
    let args = [first as usize, last as usize, CLOSE_RANGE_CLOEXEC, 0, 0, 0];
    // SAFETY: the call takes numbers only, and closes nothing with this flag.
    let ret = unsafe { arch::syscall(nr::CLOSE_RANGE, args) };
    result(ret).map(drop)
}

/// Returns `fd`, or a duplicate of it if `fd` has the number of a closed stdin, stdout or stderr. Printed text would
/// otherwise go to `fd`.
#[inline]
pub(crate) fn above_stdio(fd: OwnedFd) -> Result<OwnedFd, Errno> {
    if fd.as_raw_fd() > 2 { Ok(fd) } else { rustix::io::fcntl_dupfd_cloexec(&fd, 3) }
}

/// A signal mask of the kernel.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mask(u64);

impl Mask {
    /// Every signal that can be blocked, except SIGSYS. A seccomp filter that traps a call wants the handler to
    /// answer it at once. If SIGSYS is blocked, the kernel ends the process instead.
    pub(crate) const ALL: Self = Self(!(1 << (Signal::SYS.as_raw() - 1)));
}

/// Returns the signal of this number, which the kernel has just reported; a real-time signal has no name.
pub(crate) fn signal(number: c_int) -> Option<Signal> {
    let is_one = (1..=SIGNALS as c_int).contains(&number);
    // SAFETY: a number that the kernel delivered, of a signal that the caller blocked.
    is_one.then(|| unsafe { Signal::from_raw_unchecked(number) })
}

impl Mask {
    /// Returns a mask of these signals.
    pub(crate) fn of(signals: &[Signal]) -> Self {
        Self(signals.iter().fold(0, |mask, signal| mask | 1 << (signal.as_raw() - 1)))
    }
}

/// Blocks these signals in the calling thread, in addition to the signals that are blocked already.
pub(crate) fn block(mask: Mask) -> Result<(), Errno> {
    change_mask(SIG_BLOCK, mask).map(drop)
}

/// Returns a descriptor that is readable when one of these signals is pending. It is non-blocking, with `FD_CLOEXEC`.
///
/// # References
///
/// - signalfd(2)
pub(crate) fn signalfd(mask: Mask) -> Result<OwnedFd, Errno> {
    let args = [usize::MAX, &raw const mask.0 as usize, SIGSET, O_CLOEXEC | O_NONBLOCK, 0, 0];
    // SAFETY: the pointer is to 8 bytes of this frame, which is what the argument behind it says.
    let fd = result(unsafe { arch::syscall(nr::SIGNALFD4, args) })?;
    // SAFETY: the kernel has just made this descriptor for us, and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Returns the time on the monotonic clock.
///
/// The vDSO would be faster. But finding it needs more code, and more calls than a restart makes to read the clock.
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
        // A seccomp filter that is older than 64-bit time on this architecture.
        let mut short = [0_i32; 2];
        let args = [CLOCK_MONOTONIC, short.as_mut_ptr() as usize, 0, 0, 0, 0];
        // SAFETY: as above, of two 32-bit words.
        unsafe { arch::syscall(nr::CLOCK_GETTIME_32, args) };
        time = short.map(i64::from);
    }
    let [seconds, nanoseconds] = time;
    Duration::new(seconds as u64, nanoseconds as u32)
}

/// Blocks the signals of [`Mask::ALL`] in the calling thread, and returns its previous mask.
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

/// Returns the pidfd of the process that made the socket's other end; Linux 6.5.
///
/// # References
///
/// - `SO_PEERPIDFD` in unix(7)
pub(crate) fn peer_pidfd(socket: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    let [pidfd] = socket_option(socket, SO_PEERPIDFD)?;
    // SAFETY: the kernel has just made this descriptor for us, and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(pidfd) })
}

/// Returns the PID of the process that made the socket's other end. It is 0 if that process has none in this PID
/// namespace, which rustix's type for it cannot hold.
///
/// # References
///
/// - `SO_PEERCRED` in unix(7)
pub(crate) fn peer_pid(socket: BorrowedFd<'_>) -> Result<i32, Errno> {
    let [pid, _uid, _gid] = socket_option(socket, SO_PEERCRED)?;
    Ok(pid)
}

/// Space for an address, as the kernel writes it into a `struct sockaddr`. It does not move. Rustix's type moves 136
/// bytes at each step from here to a key, and a TCP address has 16.
pub(crate) struct SocketName([MaybeUninit<u8>; Self::MAX]);

impl SocketName {
    /// The largest size that the kernel writes: `struct sockaddr_storage`.
    const MAX: usize = 128;

    pub(crate) const fn new() -> Self {
        Self([const { MaybeUninit::uninit() }; Self::MAX])
    }

    /// Asks for a socket's own address: the family, then the family's data, with the length that the kernel reports.
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
        // No family's address is longer than this space.
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

/// Returns the wait status of a pidfd's process, if it has ended and was reaped; Linux 6.15.
///
/// # References
///
/// - `PIDFD_GET_INFO` in ioctl_pidfd(2)
pub(crate) fn pidfd_exit(pidfd: BorrowedFd<'_>) -> Result<Option<c_int>, Errno> {
    const PIDFD_INFO_EXIT: u64 = 1 << 3;
    let info = pidfd_info(pidfd, PIDFD_INFO_EXIT)?;
    Ok((info.mask & PIDFD_INFO_EXIT != 0).then_some(info.exit_code))
}

/// Returns the PID of a pidfd's process, until it was reaped; Linux 6.13.
///
/// # References
///
/// - `PIDFD_GET_INFO` in ioctl_pidfd(2)
pub(crate) fn pidfd_pid(pidfd: BorrowedFd<'_>) -> Option<Pid> {
    const PIDFD_INFO_PID: u64 = 1 << 0;
    let info = pidfd_info(pidfd, PIDFD_INFO_PID).ok().filter(|info| info.mask & PIDFD_INFO_PID != 0)?;
    let [pid, ..] = info.ids;
    i32::try_from(pid).ok().and_then(Pid::from_raw)
}

fn pidfd_info(pidfd: BorrowedFd<'_>, mask: u64) -> Result<PidfdInfo, Errno> {
    const PIDFD_GET_INFO: Opcode = ioctl::opcode::read_write::<PidfdInfo>(0xff, 11);
    let mut info = PidfdInfo { mask, cgroup: 0, ids: [0; 11], exit_code: 0 };
    // SAFETY: the call reads and writes a `struct pidfd_info` of the size that its number holds.
    let request = unsafe { ioctl::Updater::<PIDFD_GET_INFO, _>::new(&mut info) };
    // SAFETY: as above; another kind of file answers ENOTTY.
    unsafe { ioctl::ioctl(pidfd, request) }?;
    Ok(info)
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

    /// Returns the address of this port on this machine.
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

    /// Checks that every argument arrives in its place, and that the compiler knows what the instruction clobbers.
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
        // SAFETY: it is as long as that, and nothing writes to this file.
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

    #[test]
    fn the_clock_is_the_one_that_libc_has() {
        let theirs = || {
            let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
            Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
        };
        let (before, ours, after) = (theirs(), monotonic(), theirs());
        assert!(before <= ours && ours <= after, "{before:?} {ours:?} {after:?}");
    }

    /// Checks that the old call is used if a seccomp filter is older than 64-bit time, and refuses the new call.
    #[cfg(target_pointer_width = "32")]
    #[test]
    fn the_clock_is_read_by_the_old_call_where_the_new_one_is_refused() {
        let before = monotonic();
        // A thread of its own, which alone has the seccomp filter.
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
