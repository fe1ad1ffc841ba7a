//! What a pidfd tells about its process, beside that it has ended. It asks the kernel and changes nothing.

use crate::deadline::{Deadline, poll_until};
use crate::error::Error;
use crate::sys;
use core::time::Duration;
use rustix::event::PollFlags;
use rustix::fd::{AsFd, BorrowedFd};
use rustix::process::{PidfdFlags, getpid};

/// The inode number of a pidfd, which no other process ever gets: where pidfds have a file system of their
/// own, since Linux 6.9. `None` on 32 bits, where the kernel's number has 64 and an inode's 32: two looks at one process
/// may show two numbers (seen with Linux 6.12 on arm), and a manager has another one to tell.
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

/// The same of this process.
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

/// How a process ended that is not a child of this one: waits for `patience` at most, until it has ended and its parent
/// has collected it, which is when the kernel has a status to tell. `None` if there is none by then: before Linux 6.15,
/// or if the parent does not collect it.
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
        // Collected processes hang up.
        poll_until([(pidfd, PollFlags::empty())], &mut deadline)?;
        status = sys::pidfd_exit(pidfd).unwrap_or_default();
    }
    Ok(status.map(|status| match status & 0x7f {
        0 => Exit::Status(status >> 8 & 0xff),
        signal => Exit::Signal(signal),
    }))
}
