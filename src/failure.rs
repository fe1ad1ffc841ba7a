//! The failure of a restart: why a successor did not get ready, in words.
//!
//! Both the restart, which finds it, and the notification, which reports it, depend on this module. It makes no system
//! call.

use crate::error::Error;
use crate::ready::Refusal;
#[cfg(doc)]
use crate::restart::Successor;
use core::fmt;

/// Why a successor did not get ready. Whatever the reason, it has ended and was collected, but for
/// [`Failure::Manager`] and [`Failure::Error`], after which it is in flight still; the predecessor has everything it had
/// before.
///
/// A killed process may take long to end, while the kernel waits for a disk on its behalf. It runs nothing of its own any
/// more, so it is waited for a second at most. Later [`Successor::poll`] collects it, or the next restart, if it has
/// ended by then.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Failure {
    /// It could not be started.
    NotStarted(Error),
    /// It exited with this status.
    Exited(i32),
    /// It was killed by this signal.
    Killed(i32),
    /// It ended, and its status is not known: a sibling's, or one that somebody else collected, such as a
    /// `wait` of this program's for any child, or an ignored SIGCHLD. From Linux 6.15 on it is known of those
    /// too, but of a sibling that its parent does not collect.
    Vanished,
    /// It closed the readiness socket, or wrote something that is no report, and was killed.
    Closed,
    /// It gave up, for this reason.
    Refused(Refusal),
    /// It was not ready at the deadline, and was killed.
    Deadline,
    /// It was killed by [`Successor::kill`].
    Cancelled,
    /// It is ready and serves, but the service manager could not be told, or has not answered. It is still in
    /// flight, and is not killed: look again with [`Successor::poll`], which tries again, and do not end
    /// before, because the manager would take that for the end of the service.
    Manager(Error),
    /// Watching it failed. It is still in flight.
    Error(Error),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotStarted(error) => error.fmt(f),
            Self::Exited(status) => write!(f, "successor exited with status {status} before it was ready"),
            Self::Killed(signal) => write!(f, "successor was killed by signal {signal} before it was ready"),
            Self::Vanished => f.write_str("successor ended before it was ready, its status is unknown"),
            Self::Closed => f.write_str("successor closed the readiness socket without a report"),
            Self::Refused(reason) => write!(f, "successor gave up: {reason}"),
            Self::Deadline => f.write_str("successor was not ready at the deadline"),
            Self::Cancelled => f.write_str("successor was killed before it was ready"),
            Self::Manager(error) => {
                write!(f, "successor is ready, the service manager does not know: {error}")
            }
            Self::Error(error) => write!(f, "watching the successor: {error}"),
        }
    }
}

impl core::error::Error for Failure {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::NotStarted(error) | Self::Manager(error) | Self::Error(error) => Some(error),
            _ => None,
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

#[cfg(feature = "std")]
impl From<Failure> for std::io::Error {
    /// Keeps the errno of a call that failed, here or in the successor; every other failure becomes the inner error.
    fn from(failure: Failure) -> Self {
        use std::io::ErrorKind;
        match failure {
            Failure::NotStarted(error) | Failure::Manager(error) | Failure::Error(error) => error.into(),
            Failure::Refused(Refusal::Errno(errno)) => errno.into(),
            Failure::Deadline => Self::new(ErrorKind::TimedOut, failure),
            _ => Self::other(failure),
        }
    }
}
