//! A moment on the monotonic clock, which nobody sets. This module asks no clock.

use core::time::Duration;

/// A moment, as the time since an unspecified start of the monotonic clock.
///
/// # References
///
/// - `CLOCK_MONOTONIC` in clock_gettime(2)
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Moment(Duration);

impl Moment {
    /// The moment at this time since the clock's start.
    #[must_use]
    pub const fn at(since_start: Duration) -> Self {
        Self(since_start)
    }

    /// The time since the clock's start, as timerfd_settime(2) takes it for an absolute timer.
    #[must_use]
    pub const fn since_start(self) -> Duration {
        self.0
    }

    /// The moment `time` later; the last one that the clock reaches, if it would be beyond that.
    #[must_use]
    pub const fn later(self, time: Duration) -> Self {
        Self(self.0.saturating_add(time))
    }

    /// The time from `now` until this moment; zero if it has passed.
    #[must_use]
    pub const fn since(self, now: Self) -> Duration {
        self.0.saturating_sub(now.0)
    }
}
