//! What went wrong, in a few words and a number: the text that errors have in the crate would be as large as the rest.

use crate::line::Line;
use crate::start;
use gracenet::service::Refused;
use gracenet::{Error, Failure, Refusal};
use rustix::io::Errno;

/// An error that has been said.
pub(crate) struct Complained;

/// One line on stderr; a number of 0 is left out.
#[cold]
#[inline(never)]
pub(crate) fn complain(what: &str, number: i32) -> Complained {
    let mut line = Line::new();
    line.text("tiny: ").text(what);
    if number != 0 {
        line.text(" ").number(number.unsigned_abs().into());
    }
    line.text("\n").write(&start::stderr());
    Complained
}

impl From<Errno> for Complained {
    #[cold]
    #[inline(never)]
    fn from(errno: Errno) -> Self {
        complain("errno", errno.raw_os_error())
    }
}

impl From<Error> for Complained {
    #[cold]
    #[inline(never)]
    fn from(error: Error) -> Self {
        let (what, number) = match error {
            Error::Call { errno, .. } => ("errno", errno.raw_os_error()),
            Error::Capacity { .. } => ("too many arguments, variables or sockets", 0),
            Error::Variable { .. } => ("an activation variable cannot be read", 0),
            Error::NotOpen { fd } => ("not open: fd", fd),
            Error::GivenUp => ("the predecessor serves on", 0),
            Error::InFlight => ("a successor is in flight", 0),
            _ => ("cannot restart", 0),
        };
        complain(what, number)
    }
}

impl From<Failure> for Complained {
    #[cold]
    #[inline(never)]
    fn from(failure: Failure) -> Self {
        let (what, number) = match failure {
            Failure::NotStarted(error) => return error.into(),
            Failure::Exited(status) => ("successor exited with status", status),
            Failure::Killed(signal) => ("successor was killed by signal", signal),
            Failure::Refused(Refusal::Errno(errno)) => ("successor refused, errno", errno.raw_os_error()),
            Failure::Deadline => ("successor was not ready in time", 0),
            _ => ("successor ended before it was ready", 0),
        };
        complain(what, number)
    }
}

impl From<Refused> for Complained {
    #[cold]
    #[inline(never)]
    fn from(why: Refused) -> Self {
        let what = match why {
            // The kernel ends a container with its PID 1.
            Refused::Init => "PID 1 has no successor, but restarts in place",
            Refused::InFlight => "a successor is in flight",
            _ => "cannot restart",
        };
        complain(what, 0)
    }
}
