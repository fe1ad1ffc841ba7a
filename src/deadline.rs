//! Waiting: until a descriptor is ready, or until a moment has passed. Nothing here waits longer.

use crate::error::{Error, Operation};
use crate::moment::Moment;
pub(crate) use crate::sys::monotonic as now;
use core::time::Duration;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fd::BorrowedFd;
use rustix::io::Errno;

impl Moment {
    /// Returns the present moment. Reads the clock with a system call.
    #[must_use]
    pub fn now() -> Self {
        Self::at(now())
    }

    /// Returns the time from now until this moment; zero if it has passed.
    #[must_use]
    pub fn remaining(self) -> Duration {
        self.since(Self::now())
    }
}

/// A time to wait until, on a clock that cannot be set.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Deadline(Option<Moment>);

impl Deadline {
    pub(crate) const NEVER: Self = Self(None);
    const NOW: Self = Self(Some(Moment::at(Duration::ZERO)));

    /// Returns the moment `timeout` from now.
    pub(crate) fn after(timeout: Duration) -> Self {
        if timeout.is_zero() {
            return Self::NOW;
        }
        Self(Some(Moment::now().later(timeout)))
    }

    /// Returns the time until then; `None` for ever.
    fn remaining(&self) -> Option<Duration> {
        self.0.map(|at| if *self == Self::NOW { Duration::ZERO } else { at.remaining() })
    }

    /// Returns whether the moment has come.
    pub(crate) fn has_passed(&self) -> bool {
        self.remaining().is_some_and(|remaining| remaining.is_zero())
    }

    /// Returns the earlier one of the two.
    pub(crate) fn earlier<'d>(&'d mut self, other: &'d mut Self) -> &'d mut Self {
        match (self.0, other.0) {
            (Some(own), Some(others)) if others < own => other,
            (None, Some(_)) => other,
            _ => self,
        }
    }
}

/// Polls until a descriptor is ready or the deadline has passed. Signals do not end the wait.
///
/// A deadline that has passed is marked so. A seccomp filter may refuse the call that reads the clock, since libc
/// reads it without one. Then no deadline would ever pass.
pub(crate) fn poll_until<const N: usize>(
    fds: [(BorrowedFd<'_>, PollFlags); N],
    deadline: &mut Deadline,
) -> Result<[PollFlags; N], Error> {
    let mut fds = fds.map(|(fd, flags)| PollFd::from_borrowed_fd(fd, flags));
    loop {
        let timeout = deadline.remaining().and_then(|remaining| Timespec::try_from(remaining).ok());
        match rustix::event::poll(&mut fds, timeout.as_ref()) {
            Ok(0) => *deadline = Deadline::NOW,
            Ok(_) => {}
            Err(Errno::INTR) => continue,
            Err(errno) => return Err(Error::call(Operation::Poll, errno)),
        }
        return Ok(fds.map(|fd| fd.revents()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadlines_pass_or_never_come() {
        assert!(Deadline::after(Duration::ZERO).has_passed());
        assert!(!Deadline::after(Duration::from_secs(3600)).has_passed());
        assert!(!Deadline::after(Duration::MAX).has_passed());
        let [mut now, mut late, mut never] =
            [Duration::ZERO, Duration::from_secs(3600), Duration::MAX].map(Deadline::after);
        assert!(never.earlier(&mut now).has_passed());
        assert!(now.earlier(&mut late).has_passed());
        assert!(late.earlier(&mut never).0.is_some());
    }
}
