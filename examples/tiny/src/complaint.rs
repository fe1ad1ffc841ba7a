//! What went wrong, in a few words and a number: the text that errors have in the crate would be as large as the rest.

use crate::line::Line;
use crate::start;
use gracenet::{Error, Failure, Reason};
use rustix::io::Errno;

pub(crate) struct Complaint {
    what: &'static str,
    number: Option<u64>,
}

impl Complaint {
    pub(crate) const fn new(what: &'static str) -> Self {
        Self { what, number: None }
    }

    const fn numbered(what: &'static str, number: i32) -> Self {
        Self { what, number: Some(number.unsigned_abs() as u64) }
    }

    /// One line on stderr.
    pub(crate) fn write(&self) {
        let mut line = Line::new();
        line.text("tiny: ").text(self.what);
        if let Some(number) = self.number {
            line.text(" ").number(number);
        }
        line.text("\n").write(&start::stderr());
    }
}

impl From<Errno> for Complaint {
    #[inline(never)]
    fn from(errno: Errno) -> Self {
        Self::numbered("errno", errno.raw_os_error())
    }
}

impl From<Error> for Complaint {
    #[inline(never)]
    fn from(error: Error) -> Self {
        match error {
            Error::Call { errno, .. } => errno.into(),
            Error::Capacity { .. } => Self::new("too many arguments, variables or sockets"),
            Error::Variable { .. } => Self::new("an activation variable cannot be read"),
            Error::NotOpen { fd } => Self::numbered("not open: fd", fd),
            Error::UnknownNetwork(_) | Error::Address(_) => Self::new("an address cannot be read"),
            Error::GivenUp => Self::new("the predecessor serves on"),
            Error::InFlight => Self::new("a successor is in flight"),
            _ => Self::new("cannot restart"),
        }
    }
}

impl From<Failure> for Complaint {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::NotStarted(error) | Failure::Error(error) => error.into(),
            Failure::Exited(status) => Self::numbered("successor exited with status", status),
            Failure::Killed(signal) => Self::numbered("successor was killed by signal", signal),
            Failure::Refused(Reason::Errno(errno)) => {
                Self::numbered("successor refused, errno", errno.raw_os_error())
            }
            Failure::Cancelled => Self::new("successor was not ready in time"),
            _ => Self::new("successor ended before it was ready"),
        }
    }
}
