//! The predecessor: the process that started this one, identified by its pidfd.
//!
//! The kernel gives the pidfd for the readiness socket, which the predecessor made. This module makes system calls
//! through rustix and `sys`, and sends nothing.

use crate::deadline::{Deadline, poll_until};
use crate::error::{Error, Operation};
use crate::sys;
use core::time::Duration;
use rustix::event::PollFlags;
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags};

/// The process that started this one with [`Net::spawn`](crate::Net::spawn) and may still drain.
///
/// It is identified by its pidfd, which the kernel gave for the readiness socket. It is never identified by
/// `getppid`, or by a number that another process may have got since. Poll the descriptor for reading to see the
/// exit.
#[derive(Debug)]
pub struct Predecessor {
    pidfd: OwnedFd,
    /// The process ID, if it was needed to open the pidfd.
    pid: Option<Pid>,
}

impl Predecessor {
    /// Finds the process that made `socket`'s other end; `None` if that process has ended.
    pub(crate) fn of(socket: BorrowedFd<'_>) -> Result<Option<Self>, Error> {
        let number = socket.as_raw_fd();
        let unknown = |errno| Error::call_on(Operation::Getsockopt, number, errno);
        match sys::peer_pidfd(socket) {
            Ok(pidfd) => return Ok(Some(Self { pidfd, pid: None })),
            // The process has ended: EINVAL before Linux 6.13 or so.
            Err(Errno::SRCH | Errno::INVAL) => return Ok(None),
            // Before Linux 6.5.
            Err(Errno::NOPROTOOPT) => {}
            Err(errno) => return Err(unknown(errno)),
        }
        let pid = sys::peer_pid(socket).map_err(unknown)?;
        let Some(pid) = Pid::from_raw(pid).filter(|_| pid > 0) else {
            return Ok(None);
        };
        let pidfd = match rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
            Ok(pidfd) => pidfd,
            Err(Errno::SRCH) => return Ok(None),
            Err(errno) => return Err(Error::call(Operation::PidfdOpen, errno)),
        };
        // The other end is still open, so the number still belonged to that process when it was looked up.
        let gone = poll_until([(socket, PollFlags::empty())], &mut Deadline::after(Duration::ZERO))?;
        Ok((gone == [PollFlags::empty()]).then_some(Self { pidfd, pid: Some(pid) }))
    }

    /// Returns its process ID, where the kernel reports it: before Linux 6.5, and from 6.13 on until the process was
    /// reaped.
    ///
    /// Signal by the pidfd instead: another process may have the number by the time it is used.
    ///
    /// # References
    ///
    /// - `PIDFD_GET_INFO` in ioctl_pidfd(2)
    #[must_use]
    pub fn pid(&self) -> Option<Pid> {
        self.pid.or_else(|| sys::pidfd_pid(self.pidfd.as_fd()))
    }

    /// Returns whether the predecessor has ended.
    ///
    /// # Errors
    ///
    /// - [`Error::Call`]: poll(2) failed.
    pub fn has_exited(&self) -> Result<bool, Error> {
        self.wait(Duration::ZERO)
    }

    /// Waits until the predecessor has ended, for `timeout` at most. Returns whether it has ended.
    ///
    /// # Errors
    ///
    /// - [`Error::Call`]: poll(2) failed.
    pub fn wait(&self, timeout: Duration) -> Result<bool, Error> {
        let [found] = poll_until([(self.pidfd.as_fd(), PollFlags::IN)], &mut Deadline::after(timeout))?;
        Ok(!found.is_empty())
    }
}

impl AsFd for Predecessor {
    /// Returns the pidfd, which is readable once the process has ended.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

impl AsRawFd for Predecessor {
    fn as_raw_fd(&self) -> RawFd {
        self.pidfd.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::ready::pair;

    #[test]
    fn the_maker_of_a_pair_is_known() {
        let (ours, theirs) = pair().unwrap();
        let predecessor = Predecessor::of(theirs.as_fd()).unwrap().unwrap();
        // A kernel that opens pidfds by number has reported it; another reports it for a pidfd, or not at all.
        let is_told = predecessor.pid.is_some() || sys::pidfd_pid(predecessor.as_fd()).is_some();
        assert_eq!(predecessor.pid(), is_told.then(rustix::process::getpid));
        assert_eq!(predecessor.has_exited(), Ok(false));
        assert_eq!(predecessor.wait(Duration::from_millis(1)), Ok(false));
        drop(ours);
    }
}
