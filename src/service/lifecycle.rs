//! The life of a server, as a pure machine: no system call, no descriptor, no clock.
//!
//! Requests, outcomes and moments go in. [`Lifecycle::next`] hands out one [`Action`] at a time. [`Lifecycle::deadline`]
//! says when to ask again if nothing happens before. The [`Service`](super::Service) takes the actions.
//!
//! | asked, or happened | serving | a successor in flight | draining to execute anew | draining to exit |
//! |---|---|---|---|---|
//! | spawn | start a successor; PID 1: refused | look first: a successor that got ready is this restart; else refused | refused | nothing |
//! | exec | drain, then execute | refused | nothing | refused |
//! | terminate | drain, then exit | end the successor, unless it is ready; drain, then exit | exit instead | nothing |
//! | terminate again | exit at once, status 1 | the same | the same | the same |
//! | successor ready | | announce it, drain, then exit | | announce it |
//! | successor failed | | serve on, and say why | | `STOPPING=1`, if that was not said |
//! | manager silent for too long | | leave all the same, and say so | | the same |
//! | exec failed | | | serve on | |
//! | drained, or drain deadline | | | execute | exit |
//!
//! A process that drains to exit may have a successor in flight too: one that was to be ended and could not be, or one
//! that is ready and that the service manager has not confirmed. It leaves when that is settled, or at the drain deadline.
//!
//! # Moments
//!
//! - A look that fails is repeated after each `retry_every`. Until a look succeeds, the successor's descriptors are not
//!   watched: what they show may stay.
//! - A look that finds nothing moves no deadline. A successor that reports nothing is ready at its first look, and would
//!   be killed at the deadline for a report if that look were forgotten.
//! - The time for the manager begins when the successor is first known to be ready. It goes on while the manager cannot
//!   be told. A successor that cannot be looked at is not left alone at its end: it may have ended.
//!
//! # The service manager
//!
//! - From the announcement on, this process is silent: the manager would take its words for the successor's, or for a
//!   second announcement. `READY=1` is not sent again, and neither `STOPPING=1` nor `STATUS=` follows.
//! - If the successor fails before it was announced, this process has been the main one all along. A `READY=1` that was
//!   not heard is sent again, and a process that was asked to terminate says `STOPPING=1`.
//! - A process with a predecessor is not heard. It says `STOPPING=1` when the predecessor has ended.
//! - A report that the manager did not hear is sent again after each `retry_every`, until this process is asked to
//!   terminate.
//!
//! # Inputs
//!
//! [`Lifecycle::request`] and [`Lifecycle::drained`] may be called at any time. The others are called when
//! [`Lifecycle::next`] has returned `None`, or as the answer to an action.

use crate::error::{Error, Operation};
use crate::moment::Moment;
use crate::notify::Message;
use crate::restart::{Failure, Progress, Unsettled};
use core::fmt;
use core::time::Duration;
use heapless::Deque;
use rustix::io::Errno;
use rustix::process::Pid;

/// What a program, or a signal, asks of its [`Service`](super::Service).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Request {
    /// Start a successor; once it is ready, drain and exit.
    Spawn,
    /// Drain, then execute the program anew in place, with the same PID.
    Exec,
    /// Drain, then exit. Asked again: exit at once.
    Terminate,
}

/// What comes after draining.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Leave {
    /// A successor serves: close the listeners, finish what was accepted, exit.
    HandOver,
    /// Nobody serves any more: close the listeners, finish what was accepted, exit.
    Exit,
    /// The program is executed anew: keep the listeners, finish what was accepted.
    Exec,
}

/// Why a request was refused.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Refused {
    /// A successor is in flight.
    InFlight,
    /// This process is draining.
    Leaving,
    /// This is PID 1, which no successor outlives. [`Request::Exec`] restarts it.
    Init,
    /// This process is not ready itself yet.
    NotReady,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::InFlight => "a successor is in flight",
            Self::Leaving => "this process is leaving",
            Self::Init => "no successor outlives PID 1; a restart in place does",
            Self::NotReady => "this process is not ready itself",
        })
    }
}

/// What a [`Service`](super::Service) tells its program.
///
/// [`Event::Serve`], [`Event::Drain`] and [`Event::Exit`] are to be obeyed. The others are for a log: `Display` is the line.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Event {
    /// Accept again: a restart in place has failed.
    Serve,
    /// Accept no more, and call [`Service::drained`](super::Service::drained) when the last connection is done.
    ///
    /// With [`Leave::HandOver`] and [`Leave::Exit`], first accept once more what waits in each queue, then close the
    /// listeners: the service closes its own at the next [`Service::poll`](super::Service::poll). With [`Leave::Exec`], keep
    /// them.
    Drain(Leave),
    /// Exit with this status.
    Exit(u8),
    /// A successor was started, and is not ready yet.
    Started(Pid),
    /// A successor is ready, and serves.
    HandedOver(Pid),
    /// A restart has failed. This process has everything it had before, and serves on.
    Failed(Failure),
    /// A request was refused, and nothing was changed.
    Refused(Refused),
    /// The service manager did not hear a message, and this is the first one in a row. Of all messages, those that say
    /// which process is ready are sent again, unless the manager is gone.
    Unheard(Error),
    /// The successor cannot be looked at. It is in flight still, and is looked at again.
    Unseen(Error),
    /// The predecessor has ended: this process is the main one now.
    Main,
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Serve => f.write_str("serving again"),
            Self::Drain(Leave::HandOver) => f.write_str("draining, a successor serves"),
            Self::Drain(Leave::Exit) => f.write_str("draining, to exit"),
            Self::Drain(Leave::Exec) => f.write_str("draining, to execute anew"),
            Self::Exit(status) => write!(f, "exit with status {status}"),
            Self::Started(pid) => write!(f, "successor {pid} started"),
            Self::HandedOver(pid) => write!(f, "successor {pid} serves"),
            Self::Failed(failure) => write!(f, "restart failed: {failure}"),
            Self::Refused(why) => write!(f, "restart failed: {why}"),
            Self::Unheard(error @ Error::Call { operation: Operation::Barrier, .. }) => error.fmt(f),
            Self::Unheard(error) => write!(f, "service manager: {error}"),
            Self::Unseen(error) => write!(f, "restart: watching the successor: {error}"),
            Self::Main => f.write_str("the predecessor has ended"),
        }
    }
}

/// What the shell does next.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Action {
    /// Start a successor: [`Lifecycle::started`].
    Start,
    /// Look at the successor: [`Lifecycle::looked`].
    Look,
    /// End the successor, unless its report is there, for this reason: [`Lifecycle::looked`].
    GiveUp(Failure),
    /// Execute in place: [`Lifecycle::exec_failed`], if it returns.
    Exec,
    /// Tell the service manager again that this process is ready: [`Lifecycle::reported`].
    Report,
    /// Tell the service manager.
    Tell(Message),
    /// Tell the program.
    Event(Event),
}

/// The times and circumstances of a life, which do not change.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    pub(crate) ready_within: Duration,
    pub(crate) drain_within: Duration,
    pub(crate) barrier_within: Duration,
    pub(crate) retry_every: Duration,
    /// How often the watchdog is fed.
    pub(crate) feed_every: Option<Duration>,
    pub(crate) is_init: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Phase {
    Opening,
    Serving,
    Draining {
        leave: Leave,
        until: Moment,
        /// Whether the program has nothing open any more.
        is_done: bool,
    },
    /// The program is executed anew in place, unless that fails.
    Executing,
    Left,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Succession {
    None,
    InFlight {
        pid: Pid,
        /// When to look, whatever shows.
        look_at: Moment,
        /// Whether its descriptors are watched.
        is_watched: bool,
        stage: Stage,
    },
    /// A successor serves.
    Over,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Stage {
    /// It is to be ready by then.
    Expected { by: Moment },
    /// It serves, and the manager is to confirm it by then.
    Announced { by: Moment },
    /// It is to be ended, as this process is.
    Unwanted,
}

/// What was asked, and is looked at when everything before is done.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
struct Asked {
    spawn: bool,
    exec: bool,
    terminate: u8,
}

/// The life of a server.
#[derive(Clone, Debug)]
pub(crate) struct Lifecycle {
    terms: Terms,
    phase: Phase,
    succession: Succession,
    asked: Asked,
    /// Whether this is the main process to the service manager, as far as it knows.
    is_main: bool,
    /// Whether it was asked to terminate.
    is_terminated: bool,
    /// Whether `STOPPING=1` was said.
    has_stopped: bool,
    /// Whether a look at the successor is for somebody who wants another one.
    wants_another: bool,
    /// Whether the last report was not heard.
    is_unheard: bool,
    report_at: Option<Moment>,
    feed_at: Option<Moment>,
    actions: Deque<Action, 4>,
}

impl Lifecycle {
    /// A process that is not ready yet; the main one if there is no predecessor.
    pub(crate) fn new(terms: Terms, is_main: bool) -> Self {
        Self {
            terms,
            phase: Phase::Opening,
            succession: Succession::None,
            asked: Asked::default(),
            is_main,
            is_terminated: false,
            has_stopped: false,
            wants_another: false,
            is_unheard: false,
            report_at: None,
            feed_at: None,
            actions: Deque::new(),
        }
    }

    /// Whether the program may accept.
    pub(crate) const fn accepts(&self) -> bool {
        matches!(self.phase, Phase::Serving)
    }

    /// Whether this is the main process to the service manager: its predecessor has ended, and it has not handed over.
    pub(crate) const fn is_main(&self) -> bool {
        self.is_main
    }

    /// Whether the successor's descriptors are to be watched.
    pub(crate) const fn watches_successor(&self) -> bool {
        matches!(self.succession, Succession::InFlight { is_watched: true, .. })
    }

    /// Whether this process has yet to say that it is ready.
    pub(crate) const fn is_opening(&self) -> bool {
        matches!(self.phase, Phase::Opening)
    }

    /// Whether [`Lifecycle::next`], or the action that it hands out, has to know the moment.
    pub(crate) fn needs_clock(&self) -> bool {
        self.is_pending() || self.deadline().is_some()
    }

    /// Whether [`Lifecycle::next`] has something to hand out, whatever the moment.
    pub(crate) fn is_pending(&self) -> bool {
        !self.actions.is_empty() || self.asked != Asked::default()
    }

    /// The next moment at which there is something to do.
    pub(crate) fn deadline(&self) -> Option<Moment> {
        let drain = match self.phase {
            Phase::Draining { until, .. } => Some(until),
            Phase::Left => return None,
            Phase::Opening | Phase::Serving | Phase::Executing => None,
        };
        let look = match self.succession {
            Succession::InFlight { look_at, .. } => Some(look_at),
            Succession::None | Succession::Over => None,
        };
        [drain, look, self.report_at, self.feed_at].into_iter().flatten().min()
    }

    /// Takes a request; what is asked twice before it is looked at is asked once, but for termination.
    pub(crate) const fn request(&mut self, request: Request) {
        match request {
            Request::Spawn => self.asked.spawn = true,
            Request::Exec => self.asked.exec = true,
            Request::Terminate => self.asked.terminate = self.asked.terminate.saturating_add(1),
        }
    }

    /// What to do next; `None` until something happens, or until the deadline.
    pub(crate) fn next(&mut self, now: Moment) -> Option<Action> {
        // Each round queues an action or makes less to do.
        loop {
            if let Some(action) = self.actions.pop_front() {
                return Some(action);
            }
            if matches!(self.phase, Phase::Left) {
                // Nobody waits for what is asked of a process that is to exit.
                self.asked = Asked::default();
                return None;
            }
            if !(self.take_request(now) || self.take_moment(now)) {
                return None;
            }
        }
    }

    fn push(&mut self, action: Action) {
        // No input queues more than fit, and all are taken before the next input: the exploration counts them.
        let _full = self.actions.push_back(action);
    }

    fn event(&mut self, event: Event) {
        self.push(Action::Event(event));
    }

    fn take_request(&mut self, now: Moment) -> bool {
        if self.asked.terminate > 0 {
            self.asked.terminate -= 1;
            self.terminate(now);
        } else if core::mem::take(&mut self.asked.spawn) {
            self.spawn();
        } else if core::mem::take(&mut self.asked.exec) {
            self.exec(now);
        } else {
            return false;
        }
        true
    }

    fn spawn(&mut self) {
        match (self.phase, self.succession) {
            (Phase::Opening, _) => self.event(Event::Refused(Refused::NotReady)),
            (Phase::Serving, Succession::InFlight { .. }) => {
                self.wants_another = true;
                self.push(Action::Look);
            }
            (Phase::Serving, _) => self.start(),
            (Phase::Draining { leave: Leave::Exec, .. }, _) => self.event(Event::Refused(Refused::Leaving)),
            (Phase::Draining { .. } | Phase::Executing | Phase::Left, _) => {}
        }
    }

    fn start(&mut self) {
        if self.terms.is_init {
            self.event(Event::Refused(Refused::Init));
        } else {
            self.push(Action::Start);
        }
    }

    #[cold]
    #[inline(never)]
    fn exec(&mut self, now: Moment) {
        match (self.phase, self.succession) {
            (Phase::Opening, _) => self.event(Event::Refused(Refused::NotReady)),
            (Phase::Serving, Succession::InFlight { .. }) => self.event(Event::Refused(Refused::InFlight)),
            (Phase::Serving, _) => {
                if self.is_main {
                    self.push(Action::Tell(Message::Reloading));
                }
                self.drain(Leave::Exec, now);
            }
            (Phase::Draining { leave: Leave::Exec, .. } | Phase::Executing | Phase::Left, _) => {}
            (Phase::Draining { .. }, _) => self.event(Event::Refused(Refused::Leaving)),
        }
    }

    #[cold]
    #[inline(never)]
    fn terminate(&mut self, now: Moment) {
        if core::mem::replace(&mut self.is_terminated, true) {
            self.leave(1);
            return;
        }
        self.report_at = None;
        match (&mut self.phase, self.succession) {
            (Phase::Opening, _) => self.leave(0),
            (Phase::Serving, Succession::InFlight { .. }) => self.push(Action::GiveUp(Failure::Cancelled)),
            (Phase::Serving, _) => self.stop(Leave::Exit, now),
            (Phase::Draining { leave: leave @ Leave::Exec, .. }, _) => {
                *leave = Leave::Exit;
                self.say_stopping();
                self.event(Event::Drain(Leave::Exit));
            }
            (Phase::Draining { .. } | Phase::Executing | Phase::Left, _) => {}
        }
    }

    fn stop(&mut self, leave: Leave, now: Moment) {
        self.say_stopping();
        self.drain(leave, now);
    }

    fn say_stopping(&mut self) {
        if self.speaks() && !core::mem::replace(&mut self.has_stopped, true) {
            self.push(Action::Tell(Message::Stopping));
        }
    }

    fn drain(&mut self, leave: Leave, now: Moment) {
        let until = now.later(self.terms.drain_within);
        self.phase = Phase::Draining { leave, until, is_done: false };
        self.event(Event::Drain(leave));
    }

    fn leave(&mut self, status: u8) {
        self.phase = Phase::Left;
        self.event(Event::Exit(status));
    }

    /// Does what is due.
    fn take_moment(&mut self, now: Moment) -> bool {
        let is_due = |at: Moment| at <= now;
        if self.feed_at.is_some_and(is_due) {
            self.feed_at = self.terms.feed_every.map(|time| now.later(time));
            self.push(Action::Tell(Message::Alive));
        } else if self.report_at.is_some_and(is_due) {
            self.report_at = None;
            self.push(Action::Report);
        } else {
            return self.look_due(now) || self.drain_due(now);
        }
        true
    }

    fn look_due(&mut self, now: Moment) -> bool {
        let Succession::InFlight { look_at, stage, .. } = &mut self.succession else { return false };
        if *look_at > now {
            return false;
        }
        *look_at = again(stage, self.terms.retry_every, now);
        let action = match stage {
            Stage::Expected { by } if *by <= now => Action::GiveUp(Failure::Deadline),
            Stage::Unwanted => Action::GiveUp(Failure::Cancelled),
            Stage::Expected { .. } | Stage::Announced { .. } => Action::Look,
        };
        self.push(action);
        true
    }

    fn drain_due(&mut self, now: Moment) -> bool {
        match self.phase {
            Phase::Draining { leave, until, .. } if until <= now => {
                self.finish(leave);
                true
            }
            _ => false,
        }
    }

    fn finish(&mut self, leave: Leave) {
        match leave {
            Leave::Exec => {
                // It returns only if it failed.
                self.phase = Phase::Executing;
                self.push(Action::Exec);
            }
            Leave::HandOver | Leave::Exit => self.leave(0),
        }
    }

    /// Leaves, if the program has nothing open any more and nothing is to be waited for.
    ///
    /// While a successor is in flight, to leave would look like the end of the service to a manager that has not
    /// confirmed it, and a successor that is to be ended would serve.
    fn finish_if_done(&mut self) {
        if let Phase::Draining { leave, is_done: true, .. } = self.phase {
            if !matches!(self.succession, Succession::InFlight { .. }) {
                self.finish(leave);
            }
        }
    }

    /// The program has nothing open any more. A program that has yet to be told to drain does not know what it says: it
    /// accepts once more when it is told.
    pub(crate) fn drained(&mut self) {
        if self.actions.iter().any(|action| matches!(action, Action::Event(Event::Drain(_)))) {
            return;
        }
        if let Phase::Draining { is_done, .. } = &mut self.phase {
            *is_done = true;
        }
        self.finish_if_done();
    }

    /// This process is ready, and has said so; or the service manager did not hear it.
    pub(crate) fn opened(&mut self, heard: Result<(), Error>, now: Moment) {
        self.phase = Phase::Serving;
        self.feed_at = self.terms.feed_every.map(|time| now.later(time));
        self.reported(heard, now);
        self.say_serving();
    }

    /// What came of [`Action::Report`].
    pub(crate) fn reported(&mut self, heard: Result<(), Error>, now: Moment) {
        match heard {
            Ok(()) => {
                if core::mem::take(&mut self.is_unheard) {
                    self.say_serving();
                }
            }
            Err(error) => {
                self.report_at = Some(now.later(self.terms.retry_every));
                // Said once, however often it is tried again.
                if !core::mem::replace(&mut self.is_unheard, true) {
                    self.event(Event::Unheard(error));
                }
            }
        }
    }

    /// What came of [`Action::Tell`].
    pub(crate) fn told(&mut self, heard: Result<(), Error>) {
        match heard {
            Ok(()) => self.is_unheard = false,
            Err(error) => {
                if !core::mem::replace(&mut self.is_unheard, true) {
                    self.event(Event::Unheard(error));
                }
            }
        }
    }

    fn say_serving(&mut self) {
        if self.speaks() && self.accepts() {
            self.push(Action::Tell(Message::Serving));
        }
    }

    /// Whether this is the main process to the service manager, as it may have been told.
    const fn speaks(&self) -> bool {
        let is_announced =
            matches!(self.succession, Succession::InFlight { stage: Stage::Announced { .. }, .. });
        self.is_main && !is_announced
    }

    /// The predecessor has ended.
    pub(crate) fn predecessor_ended(&mut self) {
        if matches!(self.succession, Succession::Over) || self.is_main || matches!(self.phase, Phase::Left) {
            return;
        }
        self.is_main = true;
        self.event(Event::Main);
        self.say_serving();
        if let Phase::Draining { leave: Leave::Exit, .. } = self.phase {
            self.say_stopping();
        }
    }

    /// What came of [`Action::Start`]. A successor that does not report is to be looked at after `first_look`.
    pub(crate) fn started(&mut self, started: Result<Pid, Error>, first_look: Duration, now: Moment) {
        match started {
            Ok(pid) => {
                let by = now.later(self.terms.ready_within);
                self.succession = Succession::InFlight {
                    pid,
                    look_at: by.min(now.later(first_look)),
                    is_watched: true,
                    stage: Stage::Expected { by },
                };
                self.event(Event::Started(pid));
            }
            Err(error) => self.event(Event::Failed(Failure::NotStarted(error))),
        }
    }

    /// What came of [`Action::Exec`].
    #[cold]
    #[inline(never)]
    pub(crate) fn exec_failed(&mut self, error: Error) {
        self.phase = Phase::Serving;
        self.event(Event::Failed(Failure::NotStarted(error)));
        self.event(Event::Serve);
    }

    /// What a descriptor of the successor's showed, or [`Action::Look`] and [`Action::GiveUp`] found.
    pub(crate) fn looked(&mut self, found: Result<Progress, Failure>, now: Moment) {
        let Succession::InFlight { pid, .. } = self.succession else { return };
        let wants_another = core::mem::take(&mut self.wants_another);
        match found {
            Ok(Progress::Ready) => self.hand_over(pid, now),
            Err(failure) => self.failed(failure, wants_another, now),
            Ok(Progress::Waiting) => self.wait(None, now),
            Ok(Progress::Unsettled(Unsettled::Unseen(error))) => self.wait(Some(error), now),
            Ok(Progress::Unsettled(Unsettled::Untold(error))) => self.announce(Some(error), now),
            Ok(Progress::Unsettled(Unsettled::Unanswered)) => self.announce(None, now),
        }
        if wants_another && matches!(self.succession, Succession::InFlight { .. }) {
            self.event(Event::Refused(Refused::InFlight));
        }
    }

    #[cold]
    #[inline(never)]
    fn failed(&mut self, failure: Failure, wants_another: bool, now: Moment) {
        self.succession = Succession::None;
        self.event(Event::Failed(failure));
        if self.is_unheard && !self.is_terminated && self.report_at.is_none() {
            self.report_at = Some(now.later(self.terms.retry_every));
        }
        match &mut self.phase {
            Phase::Serving if self.is_terminated => self.stop(Leave::Exit, now),
            Phase::Serving if wants_another => self.start(),
            // Nobody serves after this process, which was the main one all along, or will be.
            Phase::Draining { leave, .. } => {
                *leave = Leave::Exit;
                self.say_stopping();
                self.finish_if_done();
            }
            Phase::Opening | Phase::Serving | Phase::Executing | Phase::Left => {}
        }
    }

    fn hand_over(&mut self, pid: Pid, now: Moment) {
        self.succession = Succession::Over;
        self.is_main = false;
        self.report_at = None;
        self.feed_at = None;
        self.event(Event::HandedOver(pid));
        if matches!(self.phase, Phase::Serving) {
            self.drain(Leave::HandOver, now);
        } else {
            self.finish_if_done();
        }
    }

    /// The successor is not ready, as far as can be seen.
    fn wait(&mut self, unseen: Option<Error>, now: Moment) {
        let Succession::InFlight { look_at, is_watched, stage, .. } = &mut self.succession else { return };
        // One that was ready when it was looked at last may serve still.
        let leave = if matches!(stage, Stage::Announced { .. }) { Leave::HandOver } else { Leave::Exit };
        if self.is_terminated && leave == Leave::Exit {
            *stage = Stage::Unwanted;
        }
        // What could not be watched is looked at by the clock from now on, and that is said once.
        let was_watched = *is_watched;
        *is_watched &= unseen.is_none();
        if let Some(error) = unseen {
            *look_at = again(stage, self.terms.retry_every, now);
            if was_watched {
                self.event(Event::Unseen(error));
            }
        }
        if self.is_terminated && matches!(self.phase, Phase::Serving) {
            self.stop(leave, now);
        }
    }

    /// The successor serves, and the manager has not confirmed it.
    #[cold]
    #[inline(never)]
    fn announce(&mut self, untold: Option<Error>, now: Moment) {
        let Succession::InFlight { pid, look_at, is_watched, stage } = &mut self.succession else { return };
        let pid = *pid;
        let (by, is_news) = match *stage {
            Stage::Announced { by } => (by, false),
            Stage::Expected { .. } | Stage::Unwanted => (now.later(self.terms.barrier_within), true),
        };
        *stage = Stage::Announced { by };
        *is_watched = untold.is_none();
        // The announcement says that this process is ready, too.
        self.report_at = None;
        *look_at = if untold.is_some() { again(stage, self.terms.retry_every, now) } else { by };
        if by <= now {
            // The manager has had its time. Both would serve for ever otherwise.
            let silent = Error::call(Operation::Barrier, Errno::TIMEDOUT);
            self.event(Event::Unheard(untold.unwrap_or(silent)));
            self.hand_over(pid, now);
            return;
        }
        if let Some(error) = untold.filter(|_| is_news) {
            self.event(Event::Unheard(error));
        }
        if self.is_terminated && matches!(self.phase, Phase::Serving) {
            self.stop(Leave::HandOver, now);
        }
    }
}

/// When to look again, if a look does not settle it.
fn again(stage: &Stage, retry_every: Duration, now: Moment) -> Moment {
    let again = now.later(retry_every);
    match *stage {
        Stage::Expected { by } | Stage::Announced { by } if by > now => again.min(by),
        Stage::Expected { .. } | Stage::Announced { .. } | Stage::Unwanted => again,
    }
}

#[cfg(test)]
impl Lifecycle {
    /// All that tells one state from another.
    pub(super) fn key(&self) -> impl Eq + core::hash::Hash + use<> {
        let actions: std::vec::Vec<_> = self.actions.iter().copied().collect();
        let flags = [self.is_main, self.is_terminated, self.has_stopped, self.wants_another, self.is_unheard];
        let times = [self.report_at, self.feed_at];
        (self.phase, self.succession, self.asked, flags, times, actions)
    }

    /// Has the clock, which stands at `now` for the explorer, go on by `time`: all moments come as much nearer, and of
    /// those that have passed it does not matter when.
    pub(super) fn elapse(&mut self, time: Duration, now: Moment) {
        let past = Moment::at(now.since_start().saturating_sub(time));
        let nearer = |at: &mut Moment| *at = Moment::at(at.since_start().saturating_sub(time)).max(past);
        if let Phase::Draining { until, .. } = &mut self.phase {
            nearer(until);
        }
        if let Succession::InFlight { look_at, stage, .. } = &mut self.succession {
            nearer(look_at);
            if let Stage::Expected { by } | Stage::Announced { by } = stage {
                nearer(by);
            }
        }
        self.report_at.iter_mut().chain(&mut self.feed_at).for_each(nearer);
    }

    pub(super) fn is_asked(&self) -> bool {
        self.asked != Asked::default()
    }

    pub(super) const fn is_in_flight(&self) -> bool {
        matches!(self.succession, Succession::InFlight { .. })
    }

    /// When a process that is draining leaves at the latest.
    pub(super) const fn leaves_at(&self) -> Option<Moment> {
        match self.phase {
            Phase::Draining { until, .. } => Some(until),
            _ => None,
        }
    }

    pub(super) const fn has_left(&self) -> bool {
        matches!(self.phase, Phase::Left)
    }

    pub(super) fn queued(&self) -> usize {
        self.actions.len()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, clippy::std_instead_of_core, reason = "tests")]
    use super::*;
    use std::string::ToString;
    use std::vec::Vec;

    const PID: Pid = Pid::from_raw(7).unwrap();
    const FAULT: Error = Error::call(Operation::Poll, Errno::NOMEM);
    const SILENT: Error = Error::call(Operation::Barrier, Errno::TIMEDOUT);

    const fn at(seconds: u64) -> Moment {
        Moment::at(Duration::from_secs(seconds))
    }

    const TERMS: Terms = Terms {
        ready_within: Duration::from_secs(30),
        drain_within: Duration::from_secs(40),
        barrier_within: Duration::from_secs(20),
        retry_every: Duration::from_secs(10),
        feed_every: None,
        is_init: false,
    };

    /// The columns of the table.
    #[derive(Clone, Copy, Debug)]
    enum Now {
        Serving,
        InFlight,
        ToExec,
        ToExit,
    }

    /// Its rows.
    #[derive(Clone, Copy, Debug)]
    enum What {
        Asked(Request),
        /// The same, and once more.
        Twice(Request),
        Found(Result<Progress, Failure>),
        /// Asked for a successor, and a look finds this.
        Another(Result<Progress, Failure>),
        /// Asked to terminate, and a look finds this.
        Terminated(Result<Progress, Failure>),
        ExecFailed,
        Drained,
        /// Nothing, for so many seconds.
        Silence(u64),
    }

    fn all(life: &mut Lifecycle, now: Moment) -> Vec<Action> {
        core::iter::from_fn(|| life.next(now)).collect()
    }

    fn serving(terms: Terms) -> Lifecycle {
        let mut life = Lifecycle::new(terms, true);
        life.opened(Ok(()), at(0));
        assert_eq!(all(&mut life, at(0)), [Action::Tell(Message::Serving)]);
        life
    }

    fn life(now: Now) -> Lifecycle {
        let mut life = serving(TERMS);
        match now {
            Now::Serving => {}
            Now::InFlight => life.started(Ok(PID), Duration::MAX, at(0)),
            Now::ToExec => life.request(Request::Exec),
            Now::ToExit => life.request(Request::Terminate),
        }
        all(&mut life, at(0));
        life
    }

    fn after(now: Now, what: What) -> Vec<Action> {
        let mut life = life(now);
        match what {
            What::Asked(request) => life.request(request),
            What::Twice(request) => {
                life.request(request);
                life.request(request);
            }
            What::Found(found) => life.looked(found, at(0)),
            What::Another(found) => {
                life.request(Request::Spawn);
                assert_eq!(all(&mut life, at(0)), [Action::Look]);
                life.looked(found, at(0));
            }
            What::Terminated(found) => {
                life.request(Request::Terminate);
                assert_eq!(all(&mut life, at(0)), [Action::GiveUp(Failure::Cancelled)]);
                life.looked(found, at(0));
            }
            What::ExecFailed => {
                life.drained();
                assert_eq!(all(&mut life, at(0)), [Action::Exec]);
                life.exec_failed(FAULT);
            }
            What::Drained => life.drained(),
            What::Silence(seconds) => return all(&mut life, at(seconds)),
        }
        all(&mut life, at(0))
    }

    #[test]
    fn each_cell_of_the_table() {
        use Action::{Event as Say, Tell};
        use Request::{Exec, Spawn, Terminate};
        use What::{Another, Asked, Drained, ExecFailed, Found, Silence, Terminated, Twice};
        let failed = Failure::Exited(1);
        let not_started = Failure::NotStarted(FAULT);
        let unseen = Ok(Progress::Unsettled(Unsettled::Unseen(FAULT)));
        let untold = Ok(Progress::Unsettled(Unsettled::Untold(FAULT)));
        let unanswered = Ok(Progress::Unsettled(Unsettled::Unanswered));
        let refused = |why| Say(Event::Refused(why));
        let drain = |leave| Say(Event::Drain(leave));
        let exit = |status| Say(Event::Exit(status));
        let stopping = Tell(Message::Stopping);
        let handed_over = Say(Event::HandedOver(PID));
        let in_flight = refused(Refused::InFlight);
        let leaving = refused(Refused::Leaving);
        let rows: [(Now, What, &[Action]); 45] = [
            (Now::Serving, Asked(Spawn), &[Action::Start]),
            (Now::InFlight, Asked(Spawn), &[Action::Look]),
            (Now::InFlight, Another(Ok(Progress::Ready)), &[handed_over, drain(Leave::HandOver)]),
            (Now::InFlight, Another(Err(failed)), &[Say(Event::Failed(failed)), Action::Start]),
            (Now::InFlight, Another(Ok(Progress::Waiting)), &[in_flight]),
            (Now::InFlight, Another(unanswered), &[in_flight]),
            (Now::ToExec, Asked(Spawn), &[leaving]),
            (Now::ToExit, Asked(Spawn), &[]),
            (Now::Serving, Asked(Exec), &[Tell(Message::Reloading), drain(Leave::Exec)]),
            (Now::InFlight, Asked(Exec), &[in_flight]),
            (Now::ToExec, Asked(Exec), &[]),
            (Now::ToExit, Asked(Exec), &[leaving]),
            (Now::Serving, Asked(Terminate), &[stopping, drain(Leave::Exit)]),
            (Now::InFlight, Asked(Terminate), &[Action::GiveUp(Failure::Cancelled)]),
            (Now::InFlight, Terminated(Ok(Progress::Ready)), &[handed_over, drain(Leave::HandOver)]),
            (
                Now::InFlight,
                Terminated(Err(failed)),
                &[Say(Event::Failed(failed)), stopping, drain(Leave::Exit)],
            ),
            (Now::InFlight, Terminated(Ok(Progress::Waiting)), &[stopping, drain(Leave::Exit)]),
            (Now::InFlight, Terminated(unseen), &[Say(Event::Unseen(FAULT)), stopping, drain(Leave::Exit)]),
            (Now::InFlight, Terminated(untold), &[Say(Event::Unheard(FAULT)), drain(Leave::HandOver)]),
            (Now::InFlight, Terminated(unanswered), &[drain(Leave::HandOver)]),
            (Now::ToExec, Asked(Terminate), &[stopping, drain(Leave::Exit)]),
            (Now::ToExit, Asked(Terminate), &[exit(1)]),
            (Now::Serving, Twice(Terminate), &[stopping, drain(Leave::Exit), exit(1)]),
            (Now::InFlight, Twice(Terminate), &[Action::GiveUp(Failure::Cancelled), exit(1)]),
            (Now::ToExec, Twice(Terminate), &[stopping, drain(Leave::Exit), exit(1)]),
            (Now::Serving, Found(Ok(Progress::Ready)), &[]),
            (Now::InFlight, Found(Ok(Progress::Ready)), &[handed_over, drain(Leave::HandOver)]),
            (Now::InFlight, Found(Err(failed)), &[Say(Event::Failed(failed))]),
            (Now::InFlight, Found(Ok(Progress::Waiting)), &[]),
            (Now::InFlight, Found(unseen), &[Say(Event::Unseen(FAULT))]),
            (Now::InFlight, Found(untold), &[Say(Event::Unheard(FAULT))]),
            (Now::InFlight, Found(unanswered), &[]),
            (Now::ToExec, ExecFailed, &[Say(Event::Failed(not_started)), Say(Event::Serve)]),
            (Now::Serving, Drained, &[]),
            (Now::InFlight, Drained, &[]),
            (Now::ToExec, Drained, &[Action::Exec]),
            (Now::ToExit, Drained, &[exit(0)]),
            (Now::Serving, Silence(1000), &[]),
            (Now::InFlight, Silence(29), &[]),
            (Now::InFlight, Silence(30), &[Action::GiveUp(Failure::Deadline)]),
            (Now::ToExec, Silence(39), &[]),
            (Now::ToExec, Silence(40), &[Action::Exec]),
            (Now::ToExit, Silence(39), &[]),
            (Now::ToExit, Silence(40), &[exit(0)]),
            (Now::ToExit, Silence(41), &[exit(0)]),
        ];
        for (now, what, expected) in rows {
            assert_eq!(after(now, what), expected, "{now:?}: {what:?}");
        }
    }

    #[test]
    fn a_manager_is_waited_for_so_long() {
        let mut life = life(Now::InFlight);
        let untold = Ok(Progress::Unsettled(Unsettled::Untold(FAULT)));
        let unanswered = Ok(Progress::Unsettled(Unsettled::Unanswered));
        life.looked(untold, at(5));
        assert_eq!(all(&mut life, at(5)), [Action::Event(Event::Unheard(FAULT))]);
        assert!(!life.watches_successor());
        // Told again each retry, and said once.
        assert_eq!(life.deadline(), Some(at(15)));
        assert_eq!(all(&mut life, at(15)), [Action::Look]);
        life.looked(untold, at(15));
        assert_eq!(all(&mut life, at(15)), []);
        // Told at last: the barrier is watched, and waited for till 20 seconds are over.
        life.looked(unanswered, at(16));
        assert!(life.watches_successor());
        assert_eq!(life.deadline(), Some(at(25)));
        assert_eq!(all(&mut life, at(25)), [Action::Look]);
        life.looked(unanswered, at(25));
        let said = [Event::Unheard(SILENT), Event::HandedOver(PID), Event::Drain(Leave::HandOver)];
        assert_eq!(all(&mut life, at(25)), said.map(Action::Event));
        assert!(!life.is_main());
    }

    #[test]
    fn nobody_accepts_between_the_end_of_a_drain_and_the_exec() {
        let mut life = serving(TERMS);
        life.request(Request::Exec);
        assert!(all(&mut life, at(0)).contains(&Action::Event(Event::Drain(Leave::Exec))));
        assert!(!life.accepts());
        life.drained();
        assert!(!life.accepts());
        assert_eq!(all(&mut life, at(0)), [Action::Exec]);
        assert!(!life.accepts());
        life.exec_failed(FAULT);
        let failed = [Event::Failed(Failure::NotStarted(FAULT)), Event::Serve];
        assert_eq!(all(&mut life, at(0)), failed.map(Action::Event));
        assert!(life.accepts());
    }

    /// The program may call something else between the event and the start behind it.
    #[test]
    fn a_start_behind_an_event_has_a_moment() {
        let mut life = life(Now::InFlight);
        life.request(Request::Spawn);
        assert_eq!(life.next(at(1)), Some(Action::Look));
        life.looked(Err(Failure::Closed), at(1));
        assert_eq!(life.next(at(1)), Some(Action::Event(Event::Failed(Failure::Closed))));
        life.drained();
        assert!(life.needs_clock());
        assert_eq!(life.next(at(1)), Some(Action::Start));
    }

    #[test]
    fn nothing_is_asked_of_a_process_that_is_to_exit() {
        let mut life = serving(TERMS);
        life.request(Request::Terminate);
        all(&mut life, at(0));
        assert!(!life.is_pending() && life.needs_clock(), "the drain has a deadline");
        // What is queued beside has nothing to do with the drain.
        life.told(Err(FAULT));
        assert!(life.is_pending());
        life.drained();
        assert_eq!(all(&mut life, at(0)), [Event::Unheard(FAULT), Event::Exit(0)].map(Action::Event));
        for request in [Request::Terminate, Request::Spawn, Request::Exec] {
            life.request(request);
            assert_eq!(all(&mut life, at(0)), []);
            assert!(!life.is_pending(), "{request:?}");
            assert_eq!(life.deadline(), None);
        }
    }

    #[test]
    fn nothing_is_drained_before_the_program_was_told_to() {
        let mut life = life(Now::InFlight);
        life.looked(Ok(Progress::Ready), at(0));
        life.drained();
        let told = [Event::HandedOver(PID), Event::Drain(Leave::HandOver)];
        assert_eq!(all(&mut life, at(0)), told.map(Action::Event));
        life.drained();
        assert_eq!(all(&mut life, at(0)), [Action::Event(Event::Exit(0))]);
    }

    #[test]
    fn a_look_that_finds_nothing_moves_no_deadline() {
        let mut life = serving(TERMS);
        life.started(Ok(PID), Duration::from_secs(2), at(0));
        all(&mut life, at(0));
        // One that proves itself in 2 seconds is looked at then, whatever was seen before.
        life.looked(Ok(Progress::Waiting), at(1));
        assert_eq!(life.deadline(), Some(at(2)));
        assert_eq!(all(&mut life, at(2)), [Action::Look]);
        // And again, if its clock was late.
        life.looked(Ok(Progress::Waiting), at(2));
        assert_eq!(life.deadline(), Some(at(12)));
    }

    #[test]
    fn a_retry_waits_for_no_deadline_to_pass() {
        let unseen = Ok(Progress::Unsettled(Unsettled::Unseen(FAULT)));
        let mut life = life(Now::InFlight);
        for (now, deadline) in [(5, 15), (25, 30), (30, 40), (35, 45)] {
            life.looked(unseen, at(now));
            assert_eq!(life.deadline(), Some(at(deadline)));
        }
        assert_eq!(all(&mut life, at(45)).last(), Some(&Action::GiveUp(Failure::Deadline)));
        // Said once, and not watched again: the descriptor that could not be watched is refused each time.
        life.looked(Ok(Progress::Waiting), at(46));
        assert!(!life.watches_successor());
        life.looked(unseen, at(47));
        assert_eq!(all(&mut life, at(47)), []);
    }

    #[test]
    fn a_successor_that_could_not_be_ended_is_ended_later() {
        let mut life = serving(TERMS);
        life.started(Ok(PID), Duration::MAX, at(0));
        assert_eq!(all(&mut life, at(0)), [Action::Event(Event::Started(PID))]);
        life.request(Request::Terminate);
        all(&mut life, at(0));
        life.looked(Ok(Progress::Unsettled(Unsettled::Unseen(FAULT))), at(0));
        all(&mut life, at(0));
        // Nothing is open any more, but to leave now would leave a successor behind.
        life.drained();
        assert_eq!(all(&mut life, at(9)), []);
        assert_eq!(all(&mut life, at(10)), [Action::GiveUp(Failure::Cancelled)]);
        life.looked(Err(Failure::Cancelled), at(10));
        let said = [Event::Failed(Failure::Cancelled), Event::Exit(0)];
        assert_eq!(all(&mut life, at(10)), said.map(Action::Event));
    }

    #[test]
    fn a_report_is_sent_till_it_is_heard() {
        let mut life = Lifecycle::new(TERMS, true);
        life.opened(Err(FAULT), at(0));
        let said = [Action::Event(Event::Unheard(FAULT)), Action::Tell(Message::Serving)];
        assert_eq!(all(&mut life, at(9)), said);
        assert_eq!(all(&mut life, at(10)), [Action::Report]);
        // Unheard again is not said again.
        life.reported(Err(FAULT), at(10));
        assert_eq!(all(&mut life, at(19)), []);
        assert_eq!(all(&mut life, at(20)), [Action::Report]);
        life.reported(Ok(()), at(20));
        assert_eq!(life.deadline(), None);
    }

    #[test]
    fn init_restarts_in_place_alone() {
        let mut life = serving(Terms { is_init: true, ..TERMS });
        life.request(Request::Spawn);
        assert_eq!(all(&mut life, at(0)), [Action::Event(Event::Refused(Refused::Init))]);
        life.request(Request::Exec);
        assert_eq!(all(&mut life, at(0)).len(), 2);
    }

    #[test]
    fn before_it_is_ready() {
        for (request, said) in [
            (Request::Spawn, Event::Refused(Refused::NotReady)),
            (Request::Exec, Event::Refused(Refused::NotReady)),
            (Request::Terminate, Event::Exit(0)),
        ] {
            let mut life = Lifecycle::new(TERMS, true);
            life.request(request);
            assert_eq!(all(&mut life, at(0)), [Action::Event(said)]);
            assert!(!life.accepts());
        }
    }

    #[test]
    fn a_successor_becomes_the_main_process_once_its_predecessor_has_ended() {
        let main = Action::Event(Event::Main);
        let mut life = Lifecycle::new(TERMS, false);
        life.opened(Ok(()), at(0));
        assert_eq!(all(&mut life, at(0)), []);
        assert!(!life.is_main());
        let mut stopping = life.clone();
        life.predecessor_ended();
        assert_eq!(all(&mut life, at(0)), [main, Action::Tell(Message::Serving)]);
        life.predecessor_ended();
        assert_eq!(all(&mut life, at(0)), []);
        assert!(life.is_main());
        // It says that it stops when it can be heard.
        stopping.request(Request::Terminate);
        assert_eq!(all(&mut stopping, at(0)), [Action::Event(Event::Drain(Leave::Exit))]);
        stopping.predecessor_ended();
        assert_eq!(all(&mut stopping, at(0)), [main, Action::Tell(Message::Stopping)]);
    }

    #[test]
    fn the_watchdog_is_fed_to_the_end() {
        let mut life = serving(Terms { feed_every: Some(Duration::from_secs(5)), ..TERMS });
        assert_eq!(life.deadline(), Some(at(5)));
        assert_eq!(all(&mut life, at(7)), [Action::Tell(Message::Alive)]);
        assert_eq!(life.deadline(), Some(at(12)));
        life.request(Request::Terminate);
        all(&mut life, at(7));
        assert_eq!(life.deadline(), Some(at(12)));
        life.drained();
        all(&mut life, at(7));
        assert_eq!(life.deadline(), None);
    }

    #[test]
    fn words() {
        for (event, words) in [
            (Event::Serve, "serving again"),
            (Event::Drain(Leave::HandOver), "draining, a successor serves"),
            (Event::Drain(Leave::Exit), "draining, to exit"),
            (Event::Drain(Leave::Exec), "draining, to execute anew"),
            (Event::Exit(3), "exit with status 3"),
            (Event::Started(PID), "successor 7 started"),
            (Event::HandedOver(PID), "successor 7 serves"),
            (Event::Failed(Failure::Closed), "restart failed: successor closed"),
            (Event::Refused(Refused::InFlight), "restart failed: a successor is in flight"),
            (Event::Refused(Refused::Leaving), "restart failed: this process is leaving"),
            (Event::Refused(Refused::Init), "restart failed: no successor outlives PID 1"),
            (Event::Refused(Refused::NotReady), "restart failed: this process is not ready"),
            (Event::Unheard(FAULT), "service manager: "),
            (Event::Unseen(FAULT), "restart: watching the successor: "),
            (Event::Main, "the predecessor has ended"),
        ] {
            assert!(event.to_string().starts_with(words), "{event}");
        }
    }
}
