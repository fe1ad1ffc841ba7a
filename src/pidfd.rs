//! Facts about a process that its pidfd reports, besides its end. This module asks the kernel and changes nothing.

use crate::deadline::{Deadline, poll_until};
use crate::error::Error;
use crate::sys;
use core::time::Duration;
use rustix::event::PollFlags;
use rustix::fd::{AsFd, BorrowedFd};
use rustix::process::{PidfdFlags, getpid};

/// Returns the inode number of a pidfd, which no other process ever gets.
///
/// Pidfds have such a number since Linux 6.9, where they have a file system of their own. Returns `None` on 32 bits,
/// where the kernel's number has 64 bits and an inode's 32. There two calls for one process may return two numbers,
/// as seen with Linux 6.12 on arm, and a manager may have another one.
///
/// # References
///
/// - `LISTEN_PIDFDID` in `sd_listen_fds(3)`, `MAINPIDFDID` in `sd_notify(3)`
pub(crate) fn id(pidfd: BorrowedFd<'_>) -> Option<u64> {
    if cfg!(target_pointer_width = "32") {
        return None;
    }
    let file_system = rustix::fs::fstatfs(pidfd).ok()?.f_type as u64;
    if file_system != sys::PIDFS_MAGIC {
        return None;
    }
    Some(rustix::fs::fstat(pidfd).ok()?.st_ino as u64)
}

/// Returns the inode number of a pidfd of this process, as [`id`] does.
pub(crate) fn own_id() -> Option<u64> {
    if cfg!(target_pointer_width = "32") {
        return None;
    }
    let pidfd = rustix::process::pidfd_open(getpid(), PidfdFlags::empty()).ok()?;
    id(pidfd.as_fd())
}

/// How a process ended.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Exit {
    Status(i32),
    Signal(i32),
}

/// Returns how a process that is not a child of this one ended.
///
/// Waits for `patience` at most, until the process has ended and its parent has reaped it: only then the kernel has a
/// status. Returns `None` if there is no status by then, before Linux 6.15 or if the parent does not reap the
/// process.
///
/// # References
///
/// - `PIDFD_GET_INFO` in ioctl_pidfd(2)
#[cold]
#[inline(never)]
pub(crate) fn exit(pidfd: BorrowedFd<'_>, patience: Duration) -> Result<Option<Exit>, Error> {
    let mut deadline = Deadline::after(patience);
    poll_until([(pidfd, PollFlags::IN)], &mut deadline)?;
    let Ok(mut status) = sys::pidfd_exit(pidfd) else {
        return Ok(None);
    };
    if status.is_none() {
        // A pidfd becomes readable with POLLHUP when its process was reaped.
        poll_until([(pidfd, PollFlags::empty())], &mut deadline)?;
        status = sys::pidfd_exit(pidfd).unwrap_or_default();
    }
    Ok(status.map(|status| match status & 0x7f {
        0 => Exit::Status(status >> 8 & 0xff),
        signal => Exit::Signal(signal),
    }))
}
