//! One descriptor for everything that a service waits for: an epoll instance, with a timer in it.
//!
//! Descriptors are taken out of the instance before anything closes them. Closing is not enough: the descriptor would stay in
//! the instance as long as a forked process has it open, and a new descriptor of the same number would look like it. An epoll
//! instance is shared with a process that is forked and executes nothing; [`Service`](super::Service) changes it in its own
//! process alone.

use super::Moment;
use crate::error::{Error, Operation};
use crate::restart::Successor;
use core::mem::MaybeUninit;
use core::time::Duration;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use rustix::io::Errno;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create, timerfd_settime,
};

/// What a service waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Source {
    Signals,
    Predecessor,
    Successor,
}

/// Which sources have something to tell, each to be taken once.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Shown(u8);

impl Shown {
    pub(super) const NOTHING: Self = Self(0);

    pub(super) const fn add(&mut self, source: Source) {
        self.0 |= 1 << source as u8;
    }

    /// Takes one out: signals first, because they ask for most.
    pub(super) fn take(&mut self) -> Option<Source> {
        let all = [Source::Signals, Source::Predecessor, Source::Successor];
        let source = all.into_iter().find(|source| self.0 & 1 << *source as u8 != 0)?;
        self.0 &= !(1 << source as u8);
        Some(source)
    }
}

/// The timer's mark among the sources.
const TIMER: u64 = u64::MAX;

/// The instance, its timer, and what is in it beside the descriptors that never change.
#[derive(Debug)]
pub(super) struct Watch {
    verbs: &'static Verbs,
    epoll: OwnedFd,
    timer: OwnedFd,
    armed: Option<Moment>,
    has_fired: bool,
    successor: [Option<RawFd>; 2],
}

/// What an instance can do. Reached through pointers that [`Watch::new`] alone hands out, so that a program which never
/// makes an instance does not carry the code.
#[derive(Debug)]
struct Verbs {
    is_set: fn(&Watch, Option<Moment>, Option<&Successor>, bool) -> bool,
    watch_successor: fn(&mut Watch, Option<&Successor>, bool) -> Result<(), Error>,
    remove: fn(&Watch, BorrowedFd<'_>),
    arm: fn(&mut Watch, Option<Moment>),
    ask: fn(&mut Watch) -> Result<Shown, Error>,
}

static VERBS: Verbs = Verbs { is_set, watch_successor, remove, arm, ask };

impl Watch {
    /// # Errors
    ///
    /// - [`Error::Call`]: epoll or timerfd has no descriptor, or no memory.
    pub(super) fn new() -> Result<Self, Error> {
        let failed = |errno| Error::call(Operation::Watch, errno);
        let epoll = epoll::create(CreateFlags::CLOEXEC).and_then(crate::sys::above_stdio).map_err(failed)?;
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)
            .and_then(crate::sys::above_stdio)
            .map_err(failed)?;
        epoll::add(&epoll, &timer, EventData::new_u64(TIMER), EventFlags::IN).map_err(failed)?;
        Ok(Self { verbs: &VERBS, epoll, timer, armed: None, has_fired: false, successor: [None; 2] })
    }

    /// Watches a descriptor until it is removed.
    pub(super) fn add(&self, fd: BorrowedFd<'_>, source: Source) -> Result<(), Error> {
        epoll::add(&self.epoll, fd, EventData::new_u64(source as u64), EventFlags::IN)
            .map_err(|errno| Error::call_on(Operation::Watch, fd.as_raw_fd(), errno))
    }

    /// Whether the instance is as it is to be, with nothing to change.
    pub(super) fn is_set(
        &self,
        deadline: Option<Moment>,
        successor: Option<&Successor>,
        is_watched: bool,
    ) -> bool {
        (self.verbs.is_set)(self, deadline, successor, is_watched)
    }

    /// Watches those of a successor's descriptors that have something to tell yet, and no other.
    pub(super) fn watch_successor(
        &mut self,
        successor: Option<&Successor>,
        is_watched: bool,
    ) -> Result<(), Error> {
        (self.verbs.watch_successor)(self, successor, is_watched)
    }

    /// Watches a descriptor no more. Nothing that closes it may be called before.
    pub(super) fn remove(&self, fd: BorrowedFd<'_>) {
        (self.verbs.remove)(self, fd);
    }

    /// Has the timer run out at this moment.
    pub(super) fn arm(&mut self, deadline: Option<Moment>) {
        (self.verbs.arm)(self, deadline);
    }

    /// What shows now.
    pub(super) fn ask(&mut self) -> Result<Shown, Error> {
        (self.verbs.ask)(self)
    }
}

fn is_set(watch: &Watch, deadline: Option<Moment>, successor: Option<&Successor>, is_watched: bool) -> bool {
    watch.armed == deadline && !watch.has_fired && numbers(&telling(successor, is_watched)) == watch.successor
}

fn watch_successor(watch: &mut Watch, successor: Option<&Successor>, is_watched: bool) -> Result<(), Error> {
    let wanted = telling(successor, is_watched);
    let numbers = numbers(&wanted);
    let before = core::mem::replace(&mut watch.successor, numbers);
    if before == numbers {
        return Ok(());
    }
    for fd in successor.into_iter().flat_map(Successor::open_fds) {
        let number = Some(fd.as_raw_fd());
        if before.contains(&number) && !numbers.contains(&number) {
            remove(watch, fd);
        }
    }
    for fd in wanted.into_iter().flatten() {
        if !before.contains(&Some(fd.as_raw_fd())) {
            watch.add(fd, Source::Successor)?;
        }
    }
    Ok(())
}

fn remove(watch: &Watch, fd: BorrowedFd<'_>) {
    // A descriptor that could not be added is not there.
    let _ = epoll::delete(&watch.epoll, fd);
}

fn arm(watch: &mut Watch, deadline: Option<Moment>) {
    if watch.armed == deadline && !watch.has_fired {
        return;
    }
    // Zero stops the timer; the first nanosecond of the clock has passed long ago.
    let since_start = deadline.map_or(Duration::ZERO, |at| at.since_start().max(Duration::from_nanos(1)));
    let value = Timespec {
        tv_sec: since_start.as_secs().min(i64::MAX as u64) as i64,
        tv_nsec: since_start.subsec_nanos().into(),
    };
    let time = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: value };
    // There is nothing in it to refuse.
    if timerfd_settime(&watch.timer, TimerfdTimerFlags::ABSTIME, &time).is_ok() {
        watch.armed = deadline;
        watch.has_fired = false;
    }
}

fn ask(watch: &mut Watch) -> Result<Shown, Error> {
    let mut room = [const { MaybeUninit::uninit() }; 6];
    let events = loop {
        match epoll::wait(&watch.epoll, &mut room, Some(&Timespec::default())) {
            Ok((events, _)) => break events,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(Error::call(Operation::Watch, errno)),
        }
    };
    let mut shown = Shown::NOTHING;
    for event in events {
        match event.data.u64() {
            0 => shown.add(Source::Signals),
            1 => shown.add(Source::Predecessor),
            2 => shown.add(Source::Successor),
            // It shows until it is armed again.
            _ => watch.has_fired = true,
        }
    }
    Ok(shown)
}

/// Those of a successor's descriptors that have something to tell yet.
fn telling(successor: Option<&Successor>, is_watched: bool) -> [Option<BorrowedFd<'_>>; 2] {
    let mut telling = [None; 2];
    let fds = successor.filter(|_| is_watched).into_iter().flat_map(Successor::fds);
    telling.iter_mut().zip(fds).for_each(|(slot, fd)| *slot = Some(fd));
    telling
}

fn numbers(fds: &[Option<BorrowedFd<'_>>; 2]) -> [Option<RawFd>; 2] {
    fds.map(|fd| fd.map(|fd| fd.as_raw_fd()))
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_source_is_taken_once_and_signals_first() {
        let mut shown = Shown::default();
        assert_eq!(shown.take(), None);
        for source in [Source::Successor, Source::Predecessor, Source::Signals, Source::Successor] {
            shown.add(source);
        }
        assert_eq!(shown.take(), Some(Source::Signals));
        assert_eq!(shown.take(), Some(Source::Predecessor));
        assert_eq!(shown.take(), Some(Source::Successor));
        assert_eq!(shown.take(), None);
    }
}
