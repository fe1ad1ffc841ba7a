//! Waiting: until a descriptor shows something, or a moment has passed. Nothing here waits longer.

use crate::error::{Call, Error};
pub(crate) use crate::sys::monotonic as now;
use core::time::Duration;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fd::BorrowedFd;
use rustix::io::Errno;

/// A time to wait until, on a clock that nobody sets.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline(Option<Duration>);

impl Deadline {
    pub(crate) const NOW: Self = Self(Some(Duration::ZERO));
    pub(crate) const NEVER: Self = Self(None);

    /// The moment `timeout` from now; never, if no clock reaches it.
    pub(crate) fn after(timeout: Duration) -> Self {
        if timeout.is_zero() {
            return Self::NOW;
        }
        Self(now().checked_add(timeout))
    }

    /// How long it is until then; `None` for ever.
    fn remaining(&self) -> Option<Duration> {
        self.0.map(|deadline| if deadline.is_zero() { deadline } else { deadline.saturating_sub(now()) })
    }

    /// Whether it is now, or was.
    pub(crate) fn has_passed(&self) -> bool {
        self.remaining().is_some_and(|remaining| remaining.is_zero())
    }

    /// The earlier one.
    pub(crate) fn earlier(self, other: Self) -> Self {
        match (self.0, other.0) {
            (Some(a), Some(b)) => Self(Some(a.min(b))),
            (a, b) => Self(a.or(b)),
        }
    }
}

/// Polls until something is found or the deadline has passed; signals do not end it.
pub(crate) fn poll_until<const N: usize>(
    fds: [(BorrowedFd<'_>, PollFlags); N],
    deadline: &Deadline,
) -> Result<[PollFlags; N], Error> {
    let mut fds = fds.map(|(fd, flags)| PollFd::from_borrowed_fd(fd, flags));
    loop {
        let timeout = deadline.remaining().and_then(|remaining| Timespec::try_from(remaining).ok());
        match rustix::event::poll(&mut fds, timeout.as_ref()) {
            Ok(_) => return Ok(fds.map(|fd| fd.revents())),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(Error::call(Call::Poll, errno)),
        }
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
        let soon = Deadline::after(Duration::ZERO);
        assert!(Deadline::after(Duration::MAX).earlier(soon).has_passed());
        assert!(soon.earlier(Deadline::after(Duration::from_secs(3600))).has_passed());
    }
}
