//! The failure of a restart: why a successor did not get ready, in words.
//!
//! Both the restart, which finds it, and the notification, which reports it, depend on this module. It makes no system
//! call.

use crate::error::{Error, Word};
use crate::ready::Refusal;
use core::fmt;

/// Why a successor did not get ready. A failure is final: the successor has ended and was reaped, and the predecessor has
/// everything it had before.
///
/// A killed process may take long to end, while the kernel waits for a disk on its behalf. It runs nothing of its own any
/// more, so this process waits a second for it at most. A later [`Successor::poll`](crate::Successor::poll), or the next
/// restart, reaps it once it has ended.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Failure {
    /// The successor could not be started.
    NotStarted(Error),
    /// The successor exited with this status.
    Exited(i32),
    /// The successor was killed by this signal.
    Killed(i32),
    /// The successor ended, and its status is unknown: a sibling's, or one that another `wait` of this program reaped. From
    /// Linux 6.15 on the status of those is known too, except of a sibling that its parent does not reap.
    Vanished,
    /// The successor closed the readiness socket without a report, and was killed.
    Closed,
    /// The successor sent a word on the readiness socket that this version of the crate does not know, and was killed.
    Unknown(Word),
    /// The successor gave up, for this reason.
    Refused(Refusal),
    /// The successor was not ready at the deadline, and was killed.
    Deadline,
    /// The successor was killed by [`Successor::kill`](crate::Successor::kill).
    Cancelled,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotStarted(error) => error.fmt(f),
            Self::Exited(status) => write!(f, "successor exited with status {status} before it was ready"),
            Self::Killed(signal) => write!(f, "successor was killed by signal {signal} before it was ready"),
            Self::Vanished => f.write_str("successor ended before it was ready, its status is unknown"),
            Self::Closed => f.write_str("successor closed the readiness socket without a report"),
            Self::Unknown(word) => write!(f, "successor sent an unknown report: {word:?}"),
            Self::Refused(reason) => write!(f, "successor gave up: {reason}"),
            Self::Deadline => f.write_str("successor was not ready at the deadline"),
            Self::Cancelled => f.write_str("successor was killed before it was ready"),
        }
    }
}

impl core::error::Error for Failure {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::NotStarted(error) => Some(error),
            _ => None,
        }
    }
}

#[cfg(feature = "std")]
impl From<Failure> for std::io::Error {
    /// Keeps the errno of a call that failed, here or in the successor; every other failure becomes the inner error.
    fn from(failure: Failure) -> Self {
        use std::io::ErrorKind;
        match failure {
            Failure::NotStarted(error) => error.into(),
            Failure::Refused(Refusal::Errno(errno)) => errno.into(),
            Failure::Deadline => Self::new(ErrorKind::TimedOut, failure),
            _ => Self::other(failure),
        }
    }
}
