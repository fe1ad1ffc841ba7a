//! A moment on the monotonic clock, which nobody sets. This module asks no clock.

use core::time::Duration;

/// A moment, as the time since an unspecified start of the monotonic clock.
///
/// It counts nanoseconds, as the kernel does, for 584 years. What is beyond that is the last moment.
///
/// # References
///
/// - `CLOCK_MONOTONIC` in clock_gettime(2)
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Moment(u64);

impl Moment {
    /// The moment at this time since the clock's start.
    #[must_use]
    pub const fn at(since_start: Duration) -> Self {
        Self(nanoseconds(since_start))
    }

    /// The time since the clock's start, as timerfd_settime(2) takes it for an absolute timer.
    #[must_use]
    pub const fn since_start(self) -> Duration {
        Duration::from_nanos(self.0)
    }

    /// The moment `time` later; the last one that the clock reaches, if it would be beyond that.
    #[must_use]
    pub const fn later(self, time: Duration) -> Self {
        Self(self.0.saturating_add(nanoseconds(time)))
    }

    /// The time from `now` until this moment; zero if it has passed.
    #[must_use]
    pub const fn since(self, now: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(now.0))
    }
}

const fn nanoseconds(time: Duration) -> u64 {
    time.as_secs().saturating_mul(1_000_000_000).saturating_add(time.subsec_nanos() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_moment_is_later_than_the_last() {
        let last = Moment::at(Duration::MAX);
        let first = Moment::at(Duration::from_nanos(1));
        assert_eq!(first.later(Duration::MAX), last);
        assert_eq!(last.later(Duration::from_secs(1)), last);
        assert_eq!(last.since_start(), Duration::from_nanos(u64::MAX));
        assert_eq!(first.later(Duration::new(2, 3)).since_start(), Duration::new(2, 4));
        assert_eq!(first.since(last), Duration::ZERO);
        assert_eq!(first.later(Duration::from_millis(1)).since(first), Duration::from_millis(1));
    }
}
