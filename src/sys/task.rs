//! The task: the calls of a process or thread that a clone made, before it executes a program.
//!
//! Memory is shared with a suspended thread of the predecessor. So the methods make raw system calls and nothing
//! else: no libc, no allocation, no panic, no thread-local. A `Task` exists only there. The descriptor table and the
//! working directory are the new task's own copies there, so changing them affects no other task.

use super::{
    AT_EMPTY_PATH, AT_FDCWD, F_DUPFD_CLOEXEC, F_GETFD, F_SETFD, FD_CLOEXEC, Mask, O_CLOEXEC, O_DIRECTORY,
    O_RDWR, PIDFS_MAGIC, SIGNALS, SIGSET, arch, close_range, nr, result, set_mask,
};
use core::ffi::{CStr, c_char};
use rustix::fd::RawFd;
use rustix::io::Errno;
use rustix::process::Signal;

/// Proof that this code runs between clone and execve.
#[derive(Debug)]
pub(crate) struct Task(pub(super) ());

impl Task {
    /// Makes a call that takes numbers only, or pointers that the caller made from references.
    fn call(&self, nr: usize, args: [usize; 6]) -> Result<usize, Errno> {
        // SAFETY: this is private to the methods below, each of which passes what its call expects; what
        // the calls do to descriptors and directories happens to this task's copies.
        let ret = unsafe { arch::syscall(nr, args) };
        result(ret)
    }

    /// Returns the PID of the process that this task is, or is a thread of.
    pub(crate) fn pid(&self) -> u32 {
        self.call(nr::GETPID, [0; 6]).unwrap_or(0) as u32
    }

    /// Returns the inode number of the pidfd of this process, whose PID is `pid`, as [`pidfd::id`](crate::pidfd::id)
    /// does. Returns `None` if the kernel has no file system of its own for pidfds.
    pub(crate) fn pidfd_id(&self, pid: u32) -> Option<u64> {
        if cfg!(target_pointer_width = "32") {
            return None;
        }
        let pidfd = self.call(nr::PIDFD_OPEN, [pid as usize, 0, 0, 0, 0, 0]).ok()?;
        // `struct statfs` of 64 bits: 120 bytes, the type of the file system first.
        let mut statfs = [0_u64; 15];
        self.call(nr::FSTATFS, [pidfd, statfs.as_mut_ptr() as usize, 0, 0, 0, 0]).ok()?;
        let [file_system, ..] = statfs;
        if file_system != PIDFS_MAGIC {
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

    /// Returns whether `fd` has `FD_CLOEXEC`.
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

    /// Sets `FD_CLOEXEC` on every descriptor from `first` on, with one call. If the kernel has no such call, it sets
    /// the flag one by one on the descriptors in `/proc`. If `/proc` is missing, it uses every number below the
    /// kernel's default limit.
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

    /// Closes every descriptor of a task that gives up. Its own end would close them too, but the process would not
    /// wait for that.
    #[cold]
    #[inline(never)]
    pub(crate) fn close_all(&self) {
        if self.call(nr::CLOSE_RANGE, [0, u32::MAX as usize, 0, 0, 0, 0]).is_err() {
            // A descriptor that cannot be closed now closes with the task, a moment later.
            let _ = self.each_listed(|fd| self.call(nr::CLOSE, [fd as usize, 0, 0, 0, 0, 0]).map(drop));
        }
    }

    /// Calls `act` for each descriptor that `/proc` lists, except the descriptor that reads the list.
    pub(super) fn each_listed(&self, mut act: impl FnMut(RawFd) -> Result<(), Errno>) -> Result<(), Errno> {
        // The thread's list, because a thread made by `Kin::Thread` does not have its process's descriptors.
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
    pub(super) fn close_on_exec_all(&self, first: RawFd) -> Result<(), Errno> {
        // The kernel's default for fs.nr_open. The limit of open files may have been lowered since, so it is no
        // guide.
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

    /// Returns whether a signal is pending that `mask` would let through to this task, and that has a handler.
    ///
    /// A signal without a handler does nothing, or stops or ends the process, as it would have done a moment earlier
    /// or later.
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

    /// Gives every signal with a handler its default action. Ignored signals stay ignored, as over execve.
    #[cold]
    #[inline(never)]
    pub(super) fn reset_handlers(&self) {
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

    /// Gives this task its own copy of everything that these flags of clone(2) share.
    #[cold]
    #[inline(never)]
    pub(super) fn unshare(&self, flags: u64) -> Result<(), Errno> {
        self.call(nr::UNSHARE, [flags as usize, 0, 0, 0, 0, 0]).map(drop)
    }

    /// Writes the answer to the pipe, in one piece: a pipe accepts more than that at once.
    #[cold]
    #[inline(never)]
    pub(super) fn write_answer<R>(&self, pipe: RawFd, answer: &Option<R>) {
        let args = [pipe as usize, &raw const *answer as usize, size_of_val(answer), 0, 0, 0];
        // If this fails, the exit status reports that something failed.
        let _ = self.call(nr::WRITE, args);
    }

    /// Returns the error of a call that does not return when it succeeds.
    fn failed(&self, nr: usize, args: [usize; 6]) -> Errno {
        match self.call(nr, args) {
            Err(errno) => errno,
            Ok(_) => Errno::NOSYS,
        }
    }
}

/// Returns the number in a NUL-terminated name; `None` for `.` and `..`.
fn parse_fd(name: &[u8]) -> Option<RawFd> {
    name.iter().take_while(|byte| **byte != 0).try_fold(0 as RawFd, |sum, byte| {
        let digit = byte.checked_sub(b'0').filter(|digit| *digit < 10)?;
        sum.checked_mul(10)?.checked_add(RawFd::from(digit))
    })
}
