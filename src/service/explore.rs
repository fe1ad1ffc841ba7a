//! Explores the two machines, [`Lifecycle`] and [`Track`], and what is around them, as one system.
//!
//! A [`Chain`] is processes of which each is the successor in flight of the one before. Every process takes its steps in
//! every order, every call may fail, and everything may be asked of every process at every time. All chains that can be
//! reached are visited. The deadlines differ and the clock goes on by one, so each deadline is met before, at and after
//! its moment. The rules are checked in each step of a process ([`Taking`]) and in each step of a chain
//! ([`Explorer::step_with`]). The text of a rule is what is printed when it is broken, after the steps that lead there.
//!
//! There are three generations. The first sees nothing of the third but that the second may end because it has handed
//! over. So two processes are explored exactly, and the last one may end like this at any time. `explored_with_three_exact_generations`
//! checks that three exact processes bring the first into no other state.
//!
//! # What makes it small, and why nothing is lost
//!
//! - A process is a number. What an input makes of a process does not depend on the others, so each pair of process and
//!   input is computed once.
//! - What is not tied by a successor in flight is a chain of its own. A process that has handed over never looks at its
//!   successor again. The successor may see its predecessor's end at any time, since a process may be late.
//! - A process takes what it says, events and messages, together with the input that caused it. Nobody else sees these
//!   words, except the exit, and to take that later is to get the input later.
//! - A request is taken as it comes. To come and lie there is to come later. Two at a time are one after the other.
//! - While a process looks at its successor, only that successor goes on, and only by what the look can see: a report, a
//!   closed socket, an end. The other steps of the chain change nothing that the look sees, nor does the look change
//!   what they see: they are taken before or after. The clock stands still, as a look is short.
//! - A process that nobody watches does not crash: for its successor that is the same as a second termination.
//!
//! # What the environment does not do
//!
//! - A process that serves does not crash once its predecessor has looked at its report, or during that look. Without
//!   a probation there is nobody who could take its place.
//! - The first process gets ready. If it fails, there is nothing to explore.
//!
//! # Two that serve
//!
//! In three cases a predecessor serves on while its successor's successor serves too. Each is seen as a chain that falls
//! apart, and no rule forbids it.
//!
//! - A successor reports, starts a successor of its own, and crashes before its predecessor has looked.
//! - A successor reports, hands over, and ends before its predecessor has looked; and its exit status is unknown.
//! - The same with a service manager, whatever the status. The predecessor cannot announce a process that is no more. It
//!   takes the word of the probation, by which a successor is released, to hold a restart until then.
//!
//! # Mutations that nothing notices, and why
//!
//! None is left. The mutations were those of cargo-mutants, and: each statement that is an assignment or a call of the
//! machine's own taken out; each `true`, `is_some`, `min`, term, message, leave, reason and patience replaced by another.
//! Four that could make no difference led to simpler machines. A mutation that makes [`Lifecycle::next`] hand out actions
//! for ever shows as a test that does not end.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::std_instead_of_core,
    reason = "tests"
)]

use super::lifecycle::{Action, Event, Leave, Lifecycle, Request, Terms};
use crate::error::{Error, Operation};
use crate::failure::Failure;
use crate::moment::Moment;
use crate::notify::Message;
use crate::pidfd::Exit;
use crate::ready::{Received, Refusal, Report};
use crate::restart::progress::{Outcome, Patience, Progress, Step, Track, Unsettled};
use core::hash::{BuildHasher, BuildHasherDefault, Hash};
use core::time::Duration;
use rustix::io::Errno;
use rustix::process::Pid;
use std::collections::HashMap;
use std::hash::DefaultHasher;
use std::string::String;
use std::vec::Vec;

/// What the clock shows, always: the deadlines come nearer instead.
const NOW: Moment = Moment::at(Duration::from_secs(1000));

// In ticks of a second.
const RETRY: u8 = 1;
const BARRIER: u8 = 2;
const READY: u8 = 3;
const DRAIN: u8 = 4;
const FEED: u8 = 5;

const FAULT: Error = Error::call(Operation::Poll, Errno::NOMEM);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Reported,
    /// Ready once it has lived for two ticks.
    Proving,
    Executed,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct World {
    has_manager: bool,
    has_watchdog: bool,
    /// Whether looks may fail, and the manager may not hear that the first process is ready.
    has_faults: bool,
    kind: Kind,
    /// The most processes in a chain. To start one more fails.
    generations: usize,
}

/// What the readiness socket shows to the predecessor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Wire {
    Silent,
    Ready,
    Refusal,
    /// The successor closed it, or its report was taken.
    Closed,
    /// The predecessor takes no report any more.
    Refused,
}

const WIRES: [Wire; 5] = [Wire::Silent, Wire::Ready, Wire::Refusal, Wire::Closed, Wire::Refused];

/// How a process ended. Each of these is the end for one reason alone.
const DONE: Exit = Exit::Status(0);
const LEFT_AT_ONCE: Exit = Exit::Status(1);
const GAVE_UP: Exit = Exit::Status(2);
const CRASHED: Exit = Exit::Signal(11);
const KILLED: Exit = Exit::Signal(9);
const EXITS: [Option<Exit>; 6] =
    [None, Some(DONE), Some(LEFT_AT_ONCE), Some(GAVE_UP), Some(CRASHED), Some(KILLED)];

/// What happens to a process.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Input {
    Tick,
    /// It is ready; whether the service manager heard it, if that is told.
    Opened(bool),
    Asked(Request),
    /// It does one thing that is due.
    Due,
    PredecessorEnded,
    /// A descriptor of its successor's showed something.
    Shown,
    Drained,
    /// What came of a step of its look.
    Found(Outcome),
    /// The look is over.
    Rest,
}

/// The inputs by number. The numbers from [`INPUTS`] on are the same, with a fault in what the process does about it.
const INPUTS: usize = 25;

const fn input(number: usize) -> Input {
    match number % INPUTS {
        0 => Input::Tick,
        1 => Input::Opened(true),
        2 => Input::Opened(false),
        3 => Input::Asked(Request::Spawn),
        4 => Input::Asked(Request::Exec),
        5 => Input::Asked(Request::Terminate),
        6 => Input::Due,
        7 => Input::PredecessorEnded,
        8 => Input::Shown,
        9 => Input::Drained,
        10 => Input::Rest,
        11 => Input::Found(Outcome::Done),
        12 => Input::Found(Outcome::Found(false)),
        13 => Input::Found(Outcome::Found(true)),
        14 => Input::Found(Outcome::Received(Received::Nothing)),
        15 => Input::Found(Outcome::Received(Received::Report(Report::Ready))),
        16 => Input::Found(Outcome::Received(Received::Report(Report::Refused(Refusal::Code(1))))),
        17 => Input::Found(Outcome::Received(Received::Closed)),
        18 => Input::Found(Outcome::Failed(FAULT)),
        number => Input::Found(Outcome::Exited(EXITS[number - 19])),
    }
}

fn number(input_: Input) -> usize {
    (0..INPUTS).find(|&number| input(number) == input_).unwrap()
}

/// What a process does to others in a step.
#[derive(Clone, Copy, Default)]
struct Effects {
    starts: bool,
    refuses_reports: bool,
    kills: bool,
    /// The index in [`EXITS`].
    exit: u8,
    /// A fault would have made a difference.
    may_fail: bool,
    broken: Option<&'static str>,
}

/// Ticks that have passed since something began; none while it is not so.
type Since = Option<u8>;

/// A process: its machines, and what the rules ask about its past.
#[derive(Clone)]
struct Process {
    world: World,
    life: Lifecycle,
    /// Of its successor in flight.
    track: Option<Track>,
    past: Past,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
struct Past {
    /// Whether the program is ready.
    is_open: bool,
    /// Whether the program accepts, as it was told.
    accepts: bool,
    /// Whether its predecessor is alive, as far as it knows.
    follows: bool,
    /// Whether a look at the successor is under way.
    looks: bool,
    /// Whether that look is to end the successor.
    ends: bool,
    /// Whether the manager was told that the successor is the main process.
    announced: bool,
    stopped: bool,
    handed_over: bool,
    exec_failed: bool,
    terminations: u8,
    drains: Option<Leave>,
    is_drained: bool,
    unfed: Since,
    expects: Since,
    unconfirmed: Since,
    draining: Since,
    unheard: Since,
    is_unheard: bool,
}

/// One step of a process.
struct Taking<'l> {
    process: Process,
    is_fault: bool,
    effects: Effects,
    log: Option<&'l mut Vec<String>>,
}

impl Process {
    fn new(world: World, follows: bool) -> Self {
        let seconds = |ticks: u8| Duration::from_secs(ticks.into());
        let terms = Terms {
            ready_within: seconds(READY),
            drain_within: seconds(DRAIN),
            barrier_within: seconds(BARRIER),
            retry_every: seconds(RETRY),
            feed_every: world.has_watchdog.then_some(seconds(FEED)),
            is_init: false,
        };
        let past = Past { follows, ..Past::default() };
        Self { world, life: Lifecycle::new(terms, !follows), track: None, past }
    }

    fn key(&self) -> u64 {
        let hasher = BuildHasherDefault::<DefaultHasher>::default();
        hasher.hash_one((self.life.key(), &self.track, &self.past))
    }

    fn is_due(&self) -> bool {
        self.life.clone().next(NOW).is_some()
    }

    /// Accepts, or is about to; not if it was asked to terminate.
    fn serves(&self, is_first: bool) -> bool {
        let opens = !self.past.is_open && (is_first || !self.past.follows);
        let opens = opens || !self.past.is_open && self.world.kind == Kind::Executed;
        let executes = self.past.drains == Some(Leave::Exec);
        self.past.terminations == 0 && (self.past.accepts || opens || executes)
    }

    fn expects_successor(&self) -> bool {
        self.track.is_some_and(|track| track.is_expected())
    }
}

impl Taking<'_> {
    fn rule(&mut self, holds: bool, rule: &'static str) {
        if !holds {
            self.effects.broken.get_or_insert(rule);
        }
    }

    fn log(&mut self, line: core::fmt::Arguments<'_>) {
        if let Some(log) = &mut self.log {
            log.push(std::format!("{line}"));
        }
    }

    fn take(&mut self, input: Input) {
        let leaves_at = self.process.life.leaves_at();
        let Process { life, past, track, world } = &mut self.process;
        let mut is_due = false;
        match input {
            Input::Tick => {
                life.elapse(Duration::from_secs(1), NOW);
                let later = |since: &mut Since, limit| {
                    *since = since.map(|ticks| (ticks + 1).min(limit + 1));
                };
                later(&mut past.unfed, FEED);
                later(&mut past.expects, READY);
                later(&mut past.unconfirmed, BARRIER);
                later(&mut past.draining, DRAIN);
                later(&mut past.unheard, RETRY);
            }
            Input::Opened(is_heard) => {
                past.is_open = true;
                past.accepts = true;
                past.unfed = world.has_watchdog.then_some(0);
                past.unheard = (!is_heard).then_some(0);
                past.is_unheard = !is_heard;
                life.opened(if is_heard { Ok(()) } else { Err(FAULT) }, NOW);
            }
            Input::Asked(request) => {
                if request == Request::Terminate {
                    past.terminations += 1;
                    past.unheard = None;
                }
                life.request(request);
            }
            Input::Due => is_due = true,
            Input::PredecessorEnded => {
                past.follows = false;
                life.predecessor_ended();
            }
            Input::Shown => {
                past.looks = true;
                track.as_mut().unwrap().look();
            }
            Input::Drained => {
                past.is_drained = true;
                life.drained();
            }
            Input::Found(outcome) => self.found(outcome),
            Input::Rest => {
                past.looks = false;
                let ends = core::mem::take(&mut past.ends);
                let progress = track.unwrap().progress();
                if matches!(progress, Ok(Progress::Unsettled(Unsettled::Unanswered | Unsettled::Untold(_)))) {
                    past.expects = None;
                    past.unconfirmed.get_or_insert(0);
                    // The announcement says it too.
                    past.unheard = None;
                }
                self.rule(!ends || progress != Ok(Progress::Waiting), "given up, and waited for");
                self.log(format_args!("found {progress:?}"));
                self.process.life.looked(progress, NOW);
            }
        }
        // Of what is due, one thing at a time.
        while self.effects.exit == 0
            && !self.process.past.looks
            && (core::mem::take(&mut is_due)
                || self.process.life.queued() > 0
                || self.process.life.is_asked())
        {
            self.rule(self.process.life.queued() < 4, "an action may be lost from the queue");
            let Some(action) = self.process.life.next(NOW) else { break };
            self.log(format_args!("{action:?}"));
            self.act(action, input);
        }
        if let (Some(before), false) = (leaves_at, input == Input::Tick) {
            let is_later = self.process.life.leaves_at().is_none_or(|after| after > before);
            self.rule(
                !is_later || self.process.past.terminations == 0 || self.effects.exit != 0,
                "the moment to leave moves",
            );
        }
        if self.effects.exit == 0 && !self.process.past.looks {
            self.check();
        }
    }

    fn act(&mut self, action: Action, input: Input) {
        let past = self.process.past;
        match action {
            Action::Start => {
                self.rule(self.process.track.is_none(), "two successors in flight");
                self.rule(past.accepts, "a successor of a process that leaves");
                self.effects.may_fail = true;
                if self.is_fault {
                    self.process.life.started(Err(FAULT), Duration::ZERO, NOW);
                    return;
                }
                self.effects.starts = true;
                let has_manager = self.process.world.has_manager;
                let (track, first_look) = match self.process.world.kind {
                    Kind::Reported => (Track::reported(has_manager), READY),
                    Kind::Proving => (Track::proving(has_manager), 2),
                    Kind::Executed => (Track::executed(has_manager), 0),
                };
                self.process.track = Some(track);
                self.process.past.expects = Some(0);
                let pid = Pid::from_raw(7).unwrap();
                self.process.life.started(Ok(pid), Duration::from_secs(first_look.into()), NOW);
            }
            Action::Look | Action::GiveUp(_) => {
                let Some(track) = &mut self.process.track else {
                    return self.rule(false, "a look at nothing");
                };
                self.process.past.looks = true;
                match action {
                    Action::GiveUp(failure) => {
                        track.give_up(failure);
                        self.process.past.ends = true;
                        let is_late = past.expects.is_none_or(|ticks| ticks >= READY);
                        self.rule(failure != Failure::Deadline || is_late, "given up before its deadline");
                        self.rule(
                            failure != Failure::Cancelled || past.terminations > 0,
                            "cancelled by nobody",
                        );
                    }
                    _ => {
                        let is_expected = track.is_expected();
                        track.look();
                        let is_late = input == Input::Due && past.expects.is_some_and(|ticks| ticks >= READY);
                        self.rule(!is_late || !is_expected, "not given up at its deadline");
                        let is_unwanted =
                            input == Input::Due && past.terminations > 0 && past.unconfirmed.is_none();
                        self.rule(!is_unwanted, "looked at, but not ended, though asked to terminate");
                    }
                }
            }
            Action::Exec => {
                let is_over = past.is_drained || past.draining.is_some_and(|ticks| ticks >= DRAIN);
                self.rule(past.drains == Some(Leave::Exec) && is_over, "executed before it has drained");
                self.rule(self.process.track.is_none(), "executed with a successor in flight");
                self.rule(past.terminations == 0, "executed though asked to terminate");
                self.effects.may_fail = true;
                if self.is_fault {
                    self.process.past.exec_failed = true;
                    self.process.life.exec_failed(FAULT);
                } else {
                    self.process = Process::new(self.process.world, false);
                }
            }
            Action::Report => {
                self.rule(past.unheard.is_some_and(|ticks| ticks >= RETRY), "a report too early");
                self.rule(!past.announced && !past.stopped, "a report out of turn");
                self.effects.may_fail = true;
                self.process.past.unheard = self.is_fault.then_some(0);
                self.process.past.is_unheard = self.is_fault;
                let heard = if self.is_fault { Err(FAULT) } else { Ok(()) };
                self.process.life.reported(heard, NOW);
            }
            Action::Tell(message) => self.tell(message),
            Action::Event(event) => self.obey(event),
        }
    }

    fn tell(&mut self, message: Message) {
        let past = self.process.past;
        if message == Message::Alive {
            self.rule(past.unfed.is_some_and(|ticks| ticks >= FEED), "the watchdog is fed out of turn");
            self.process.past.unfed = Some(0);
            return;
        }
        let is_main = !past.follows && !past.announced;
        self.rule(is_main, "a message of a process that is not the main one");
        self.rule(!past.stopped, "a message after STOPPING=1");
        match message {
            Message::Serving => self.rule(past.accepts, "STATUS= of a process that does not serve"),
            Message::Reloading => self.rule(past.accepts, "RELOADING=1 of a process that does not serve"),
            Message::Stopping => {
                self.rule(past.terminations > 0, "STOPPING=1 though nobody asked");
                self.process.past.stopped = true;
            }
            Message::Alive => {}
        }
    }

    fn obey(&mut self, event: Event) {
        let past = self.process.past;
        match event {
            Event::Serve => {
                self.rule(past.exec_failed, "Serve without a failed exec");
                let past = &mut self.process.past;
                (past.accepts, past.exec_failed) = (true, false);
                (past.drains, past.draining, past.is_drained) = (None, None, false);
            }
            Event::Drain(leave) => {
                let is_news =
                    past.drains.is_none() || past.drains == Some(Leave::Exec) && leave == Leave::Exit;
                self.rule(is_news, "drains twice");
                self.rule(self.process.life.queued() == 0, "a word between Drain and what drains");
                match leave {
                    Leave::HandOver => {
                        // It was ready when it was looked at last.
                        self.rule(
                            past.handed_over || past.unconfirmed.is_some(),
                            "drains for a successor that does not serve",
                        );
                    }
                    Leave::Exit => self.rule(past.terminations > 0, "drains to exit though nobody asked"),
                    Leave::Exec => {
                        self.rule(self.process.track.is_none(), "drains with a successor in flight")
                    }
                }
                let past = &mut self.process.past;
                past.accepts = false;
                past.drains = Some(leave);
                past.draining.get_or_insert(0);
            }
            Event::Exit(status) => self.exit(status),
            Event::Started(_) => self.rule(self.process.track.is_some(), "Started, and nothing was"),
            Event::HandedOver(_) => {
                let is_ready = self.process.track.is_some_and(|track| track.is_ready());
                let is_late = past.unconfirmed.is_some_and(|ticks| ticks >= BARRIER);
                self.rule(!past.handed_over && self.process.track.is_some(), "handed over twice");
                self.rule(is_ready || is_late, "handed over before the manager knows");
                let past = &mut self.process.past;
                past.handed_over = true;
                (past.expects, past.unconfirmed, past.unfed, past.unheard) = (None, None, None, None);
                self.process.track = None;
            }
            Event::Failed(Failure::NotStarted(_)) => {
                self.rule(self.is_fault, "a failure out of nothing");
            }
            Event::Failed(_) => {
                let has_failed = self.process.track.is_some_and(|track| track.progress().is_err());
                self.rule(has_failed, "a failure out of nothing");
                self.rule(!past.announced, "taken back");
                self.process.track = None;
                (self.process.past.expects, self.process.past.unconfirmed) = (None, None);
                if past.is_unheard && past.terminations == 0 {
                    self.process.past.unheard.get_or_insert(0);
                }
            }
            Event::Refused(_) => self.rule(past.handed_over || past.terminations < 2, "a word to nobody"),
            Event::Unheard(_) => self.rule(self.process.world.has_manager, "unheard by nobody"),
            Event::Unseen(_) => self.rule(self.process.track.is_some(), "unseen, and nobody looked"),
            Event::Main => self.rule(!past.follows, "Main beside a predecessor"),
        }
    }

    fn exit(&mut self, status: u8) {
        let past = self.process.past;
        let is_over = past.draining.is_some_and(|ticks| ticks >= DRAIN);
        self.rule(self.process.life.has_left(), "exits, and goes on");
        self.rule(self.process.life.queued() == 0, "a word after Exit");
        self.rule(self.process.life.deadline().is_none(), "a deadline after Exit");
        self.effects.exit = if status == 0 { 1 } else { 2 };
        if status != 0 {
            self.rule(past.terminations == 2, "leaves at once, though not asked twice");
        } else if past.is_open {
            let leaves = matches!(past.drains, Some(Leave::HandOver | Leave::Exit));
            self.rule(leaves, "exits without a Drain");
            self.rule(past.is_drained || is_over, "exits before it has drained");
            self.rule(self.process.track.is_none() || is_over, "exits while its successor is not settled");
            // A successor that is ready, and cannot be announced, leaves the last word open.
            let is_alone = past.unconfirmed.is_none();
            let speaks = !past.follows && !past.announced && !past.handed_over && is_alone;
            self.rule(past.stopped || !speaks, "the main process exits without STOPPING=1");
        } else {
            self.rule(past.terminations == 1, "exits before it is ready, though nobody asked");
        }
    }

    /// Takes the outcome of a step of the look.
    fn found(&mut self, outcome: Outcome) {
        let track = self.process.track.as_mut().unwrap();
        let step = track.step();
        track.take(outcome);
        self.log(format_args!("{step:?}: {outcome:?}"));
        let has_failed = matches!(outcome, Outcome::Failed(_));
        match step {
            Step::RefuseReports => self.effects.refuses_reports = !has_failed,
            Step::Kill => {
                self.effects.kills = !has_failed;
                self.rule(!self.process.past.announced, "killed, though announced");
            }
            Step::Announce if !has_failed => {
                self.rule(!self.process.past.announced, "announced twice");
                self.rule(self.process.world.has_manager, "announced to nobody");
                self.process.past.announced = true;
            }
            Step::Withdraw => {
                self.rule(!self.process.past.announced, "taken back");
                self.rule(self.process.world.has_manager, "withdrawn from nobody");
            }
            _ => {}
        }
    }

    /// What holds while a process waits.
    fn check(&mut self) {
        let Process { life, past, track, world } = self.process.clone();
        self.rule(past.accepts == life.accepts(), "accepts, or not, without a word");
        self.rule(track.is_some() == life.is_in_flight(), "in flight for one machine alone");
        self.rule(!past.exec_failed, "a failed exec without Serve");
        let due = |life: &Lifecycle| life.clone().next(NOW).is_some();
        if due(&life) {
            return;
        }
        // The deadline is the moment at which something is to be done.
        let mut later = life.clone();
        let first = (1..=10_u8).find(|_| {
            later.elapse(Duration::from_secs(1), NOW);
            due(&later)
        });
        let at = first.map(|ticks| NOW.later(Duration::from_secs(ticks.into())));
        self.rule(life.deadline() == at, "the deadline is not when something is to be done");

        let within = |ticks: u8| {
            let limit = NOW.later(Duration::from_secs(ticks.into()));
            life.deadline().is_some_and(|deadline| deadline <= limit)
        };
        let is_fed = past.unfed.is_some_and(|ticks| ticks < FEED);
        let is_to_feed = world.has_watchdog && past.is_open && !past.handed_over;
        self.rule(is_fed == is_to_feed, "the watchdog is not fed");
        self.rule(
            past.expects.is_none_or(|ticks| ticks < READY) || within(RETRY),
            "a successor is expected for ever",
        );
        // One that cannot be looked at may have ended: the manager is not to blame.
        let is_unseen = !life.watches_successor() && within(RETRY);
        self.rule(
            past.unconfirmed.is_none_or(|ticks| ticks < BARRIER) || is_unseen,
            "a silent manager holds it",
        );
        self.rule(past.draining.is_none_or(|ticks| ticks < DRAIN), "drains beyond its deadline");
        self.rule(past.unheard.is_none_or(|ticks| ticks < RETRY), "not reported again");
        if let Some(track) = track {
            self.rule(
                life.watches_successor() || within(RETRY),
                "an unseen successor is not looked at again",
            );
            let is_untold = !track.is_expected() && !past.announced;
            self.rule(!is_untold || within(RETRY), "not announced again");
        }
        self.rule(
            past.terminations == 0
                || life
                    .leaves_at()
                    .is_some_and(|at| within(DRAIN) && at <= NOW.later(Duration::from_secs(DRAIN.into()))),
            "no exit follows a termination",
        );
        self.rule(past.draining.is_some() == life.leaves_at().is_some(), "drains without a word");
        self.rule(!past.is_drained || track.is_some(), "has drained, and stays");
    }
}

/// A process of a chain, by its number; 0 if it has ended.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Member {
    process: u32,
    wire: Wire,
    /// The index in [`EXITS`].
    exit: u8,
}

/// Each is the successor in flight of the one before. Those after the first 0 are not there.
type Chain = Vec<Member>;

/// The chain as a number, which nothing else has.
fn pack(chain: &[Member]) -> u128 {
    chain.iter().rev().fold(0, |packed, member| {
        let bits = u128::from(member.process) << 6 | (member.wire as u128) << 3 | u128::from(member.exit);
        packed << 32 | 1 << 31 | bits
    })
}

fn unpack(mut packed: u128, chain: &mut Chain) {
    chain.clear();
    while packed != 0 {
        let bits = packed as u32;
        chain.push(Member {
            process: bits << 1 >> 7,
            wire: WIRES[(bits >> 3 & 7) as usize],
            exit: (bits & 7) as u8,
        });
        packed >>= 32;
    }
}

/// What is asked of a process over and over.
#[derive(Clone, Copy)]
struct Traits {
    is_open: bool,
    follows: bool,
    looks: bool,
    is_due: bool,
    is_watching: bool,
    is_draining: bool,
    /// Asked to terminate, or has handed over.
    is_leaving: bool,
    has_handed_over: bool,
    /// That it serves if it is the first of its chain, and if it is not.
    serves: [bool; 2],
    /// Its successor's report may still get lost.
    expects: bool,
    is_untold: bool,
    has_track: bool,
    terminations: u8,
    step: Step,
}

struct Explorer {
    world: World,
    numbers: HashMap<u64, u32>,
    processes: Vec<Process>,
    traits: Vec<Traits>,
    known: Vec<[Option<(u32, Effects)>; 2 * INPUTS]>,
    seen: Set,
    /// The chains in the order in which they were found, each with the one before it and what happened.
    found: Vec<(u128, u32, u8, u8)>,
}

/// What happened that no machine took as an input.
const REFUSES: usize = 100;
const CLOSES: usize = 101;
const ENDS: usize = 102;

impl Explorer {
    fn new(world: World) -> Self {
        let mut explorer = Self {
            world,
            numbers: HashMap::new(),
            processes: Vec::new(),
            traits: Vec::new(),
            known: Vec::new(),
            seen: Set::new(),
            found: Vec::new(),
        };
        // Number 0 is no process, 1 the first of all, 2 a successor.
        explorer.number(Process::new(world, false));
        explorer.numbers.clear();
        explorer.number(Process::new(world, false));
        explorer.number(Process::new(world, true));
        explorer
    }

    fn number(&mut self, process: Process) -> u32 {
        let next = self.processes.len() as u32;
        let number = *self.numbers.entry(process.key()).or_insert(next);
        if number == next {
            let track = process.track;
            self.traits.push(Traits {
                is_open: process.past.is_open,
                follows: process.past.follows,
                looks: process.past.looks,
                is_due: !process.past.looks && process.is_due(),
                is_watching: process.life.watches_successor(),
                is_draining: process.past.drains.is_some() && !process.past.is_drained,
                has_handed_over: process.past.handed_over,
                is_leaving: process.past.terminations > 0 || process.past.handed_over,
                serves: [process.serves(true), process.serves(false)],
                expects: process.expects_successor(),
                is_untold: track.is_some_and(|track| track.is_in_flight()) && !process.past.announced,
                has_track: track.is_some(),
                terminations: process.past.terminations,
                step: track.map_or(Step::Rest, |track| track.step()),
            });
            self.processes.push(process);
            self.known.push([None; 2 * INPUTS]);
        }
        number
    }

    /// What the input makes of a process, and of others.
    fn take(&mut self, process: u32, number: usize) -> (u32, Effects) {
        if let Some(known) = self.known[process as usize][number] {
            return known;
        }
        let mut taking = Taking {
            process: self.processes[process as usize].clone(),
            is_fault: number >= INPUTS,
            effects: Effects::default(),
            log: None,
        };
        taking.take(input(number));
        let effects = taking.effects;
        let next = if effects.exit == 0 { self.number(taking.process) } else { 0 };
        self.known[process as usize][number] = Some((next, effects));
        (next, effects)
    }

    /// Visits every chain that can be reached.
    fn explore(&mut self) {
        let start = [Member { process: 1, wire: Wire::Silent, exit: 0 }];
        let mut chain = Chain::new();
        self.meet(pack(&start), 0, 0, 0);
        let mut at = 0;
        while at < self.found.len() {
            unpack(self.found[at].0, &mut chain);
            self.steps(at, &chain);
            at += 1;
        }
    }

    fn meet(&mut self, packed: u128, before: usize, member: usize, number: usize) {
        if self.seen.insert(packed) {
            self.found.push((packed, before as u32, member as u8, number as u8));
        }
    }

    /// All that can happen next.
    fn steps(&mut self, at: usize, chain: &Chain) {
        let looking = chain.iter().position(|member| self.traits[member.process as usize].looks);
        if let Some(looking) = looking {
            for number in self.outcomes(chain, looking) {
                self.step(at, chain, looking, number);
            }
            if chain.get(looking + 1).is_some_and(|successor| successor.exit == 0) {
                self.seen_by_look(at, chain, looking + 1);
            }
            return;
        }
        self.tick(at, chain);
        for member in 0..chain.len() {
            if chain[member].exit == 0 {
                self.own_steps(at, chain, member);
                self.opening(at, chain, member);
                self.crash(at, chain, member);
            }
        }
    }

    fn tick(&mut self, at: usize, chain: &Chain) {
        let mut next = chain.clone();
        for member in &mut next {
            if member.exit == 0 {
                member.process = self.take(member.process, 0).0;
            }
        }
        self.meet(pack(&next), at, 0, 0);
    }

    fn own_steps(&mut self, at: usize, chain: &Chain, member: usize) {
        let traits = self.traits[chain[member].process as usize];
        for number in 3..=5 {
            if number != 5 || traits.terminations < 2 {
                self.step(at, chain, member, number);
            }
        }
        if traits.is_due {
            self.step(at, chain, member, 6);
        }
        if traits.follows && member == 0 {
            self.step(at, chain, member, 7);
        }
        if traits.is_watching {
            self.step(at, chain, member, 8);
        }
        if traits.is_draining {
            self.step(at, chain, member, 9);
        }
    }

    /// What a process does that its predecessor sees while it looks.
    fn seen_by_look(&mut self, at: usize, chain: &Chain, member: usize) {
        self.opening(at, chain, member);
        self.crash(at, chain, member);
        let traits = self.traits[chain[member].process as usize];
        for number in [5, 6, 9] {
            let can = [traits.terminations < 2, traits.is_due, traits.is_draining][(number - 4) / 2];
            if can && self.take(chain[member].process, number).1.exit != 0 {
                self.step(at, chain, member, number);
            }
        }
    }

    /// What a process does that is not ready.
    fn opening(&mut self, at: usize, chain: &Chain, member: usize) {
        let traits = self.traits[chain[member].process as usize];
        if traits.is_open {
            return;
        }
        let with = |wire, exit| {
            let mut next = chain.clone();
            next[member] = Member { wire, exit, ..next[member] };
            next
        };
        let Member { wire, .. } = chain[member];
        // It tells its predecessor, or else the service manager, which may not hear it.
        let tells_manager = member == 0 || !traits.follows;
        match wire {
            _ if tells_manager => {
                self.step(at, chain, member, 1);
                if self.world.has_manager && self.world.has_faults {
                    self.step(at, chain, member, 2);
                }
            }
            Wire::Silent if self.world.kind != Kind::Reported => self.step(at, chain, member, 1),
            Wire::Silent => {
                let (next, effects) = self.take(chain[member].process, 1);
                self.report_broken(at, member, 1, effects);
                let mut chain = with(Wire::Ready, 0);
                chain[member].process = next;
                self.meet(pack(&chain), at, member, 1);
                self.meet(pack(&with(Wire::Refusal, 0)), at, member, REFUSES);
                self.meet(pack(&with(Wire::Closed, 0)), at, member, CLOSES);
            }
            // It finds out that it was given up, or gave up itself.
            Wire::Ready | Wire::Refusal | Wire::Closed | Wire::Refused => {}
        }
    }

    /// The end of a process for no reason of its machine's.
    fn crash(&mut self, at: usize, chain: &Chain, member: usize) {
        let Some(before) = member.checked_sub(1) else { return };
        let before = self.traits[chain[before].process as usize];
        let traits = self.traits[chain[member].process as usize];
        if !(before.expects || before.is_untold) {
            return;
        }
        // The last of the chain has no successor in it, but may have had one, and have handed over to it.
        let hands_over = traits.is_open && chain.len() == self.world.generations;
        let exits: &[Exit] = if hands_over {
            &[CRASHED, DONE]
        } else if traits.is_open || !traits.follows {
            &[CRASHED]
        } else {
            &[CRASHED, GAVE_UP, DONE]
        };
        // What crashes in the very moment of a look at its report crashes after that.
        let is_looked_at = before.looks && (traits.is_open || !traits.follows);
        for exit in exits.iter().filter(|exit| !is_looked_at || **exit != CRASHED) {
            let exit = EXITS.iter().position(|known| *known == Some(*exit)).unwrap();
            let mut next = chain.clone();
            next[member] = Member { process: 0, exit: exit as u8, ..next[member] };
            self.fall_apart(at, next, member, ENDS + exit);
        }
    }

    /// What can come of the step that a process takes in its look.
    fn outcomes(&self, chain: &Chain, looking: usize) -> Vec<usize> {
        let successor = chain[looking + 1];
        let exit = EXITS[usize::from(successor.exit)];
        let found = |found| number(Input::Found(Outcome::Found(found)));
        let done = number(Input::Found(Outcome::Done));
        let mut outcomes = match self.traits[chain[looking].process as usize].step {
            Step::Rest => return std::vec![number(Input::Rest)],
            Step::CloseSocket | Step::Withdraw => return std::vec![done],
            Step::SeeEnd(Patience::None | Patience::LastBreath) => std::vec![found(exit.is_some())],
            // A killed process runs no more, but may be long in ending.
            Step::SeeEnd(Patience::Death) | Step::SeeTime | Step::SeeBarrier => {
                std::vec![found(false), found(true)]
            }
            Step::Receive => std::vec![number(Input::Found(Outcome::Received(match successor.wire {
                Wire::Ready => Received::Report(Report::Ready),
                Wire::Refusal => Received::Report(Report::Refused(Refusal::Code(1))),
                Wire::Closed | Wire::Refused => Received::Closed,
                Wire::Silent if exit.is_some() => Received::Closed,
                Wire::Silent => Received::Nothing,
            })))],
            Step::RefuseReports | Step::Kill | Step::Announce => std::vec![done],
            Step::Collect => [exit, None].map(|exit| number(Input::Found(Outcome::Exited(exit)))).to_vec(),
        };
        if self.world.has_faults {
            outcomes.push(number(Input::Found(Outcome::Failed(FAULT))));
        }
        outcomes
    }

    /// Has a process take an input, with a fault and without.
    fn step(&mut self, at: usize, chain: &Chain, member: usize, number: usize) {
        let (_, effects) = self.take(chain[member].process, number);
        // There is no room for one more.
        if !(effects.starts && member + 1 == self.world.generations) {
            self.step_with(at, chain, member, number);
        }
        if effects.may_fail {
            self.step_with(at, chain, member, number + INPUTS);
        }
    }

    fn step_with(&mut self, at: usize, chain: &Chain, member: usize, number: usize) {
        let (process, effects) = self.take(chain[member].process, number);
        self.report_broken(at, member, number, effects);
        let mut next = chain.clone();
        let step = self.traits[chain[member].process as usize].step;
        let is_receipt = matches!(input(number), Input::Found(Outcome::Received(Received::Report(_))));
        next[member].process = process;
        next[member].exit = effects.exit;
        if let Some(successor) = next.get_mut(member + 1) {
            if effects.refuses_reports && successor.wire == Wire::Silent {
                successor.wire = Wire::Refused;
            }
            if is_receipt {
                successor.wire = Wire::Closed;
            }
            if effects.kills {
                let is_wrong = self.world.kind == Kind::Reported
                    && successor.exit == 0
                    && self.traits[successor.process as usize].is_open;
                self.rule(at, member, number, !is_wrong, "killed one that serves");
                if successor.exit == 0 {
                    (successor.process, successor.exit) = (0, 5);
                }
            }
            let announces = step == Step::Announce && input(number) == Input::Found(Outcome::Done);
            let is_ready = self.world.kind != Kind::Reported || successor.wire == Wire::Closed;
            self.rule(at, member, number, !announces || is_ready, "announced before it is ready");
        }
        let before = self.traits[chain[member].process as usize];
        let after = self.traits[process as usize];
        let loses = before.has_track && (!after.has_track || effects.starts) && effects.exit == 0;
        let is_alive = chain.get(member + 1).is_some_and(|successor| successor.exit == 0);
        let is_settled = !loses || after.has_handed_over || !is_alive;
        self.rule(at, member, number, is_settled, "a failure of a successor that lives");
        if effects.starts {
            // In place of one that has failed.
            next.truncate(member + 1);
            next.push(Member { process: 2, wire: Wire::Silent, exit: 0 });
        }
        let has_left =
            |member: &Member| matches!(member.exit, 1 | 2) || self.traits[member.process as usize].is_leaving;
        let is_excused = number % INPUTS == 5
            || self.traits[chain[member].process as usize].is_leaving
            || chain.get(member + 1).is_some_and(has_left)
            || self.world.kind != Kind::Reported;
        let serves = !self.serves(chain) || self.serves(&next) || is_excused;
        self.rule(at, member, number, serves, "nobody accepts, nor is about to");
        self.fall_apart(at, next, member, number);
    }

    /// Somebody accepts, or is about to.
    fn serves(&self, chain: &Chain) -> bool {
        chain.iter().enumerate().any(|(at, member)| {
            member.exit == 0 && self.traits[member.process as usize].serves[usize::from(at > 0)]
        })
    }

    /// Takes the chain apart where a process has ended, or has no successor in flight any more.
    fn fall_apart(&mut self, at: usize, chain: Chain, member: usize, number: usize) {
        let mut part = Chain::new();
        for (index, link) in chain.iter().enumerate() {
            let is_tied = index.checked_sub(1).is_some_and(|before| {
                let before = chain[before];
                before.exit == 0 && self.traits[before.process as usize].has_track
            });
            if is_tied {
                part.push(*link);
                continue;
            }
            self.meet_part(at, &part, member, number);
            part.clear();
            // One that has ended is there as long as somebody watches it. One that has given up only ends.
            let has_given_up = matches!(link.wire, Wire::Refusal | Wire::Closed)
                && !self.traits[link.process as usize].is_open;
            if link.exit == 0 && !has_given_up {
                part.push(Member { wire: Wire::Silent, ..*link });
            }
        }
        self.meet_part(at, &part, member, number);
    }

    fn meet_part(&mut self, at: usize, part: &Chain, member: usize, number: usize) {
        if !part.is_empty() {
            self.meet(pack(part), at, member, number);
        }
    }

    fn report_broken(&self, at: usize, member: usize, number: usize, effects: Effects) {
        if let Some(rule) = effects.broken {
            self.rule(at, member, number, false, rule);
        }
    }

    fn rule(&self, at: usize, member: usize, number: usize, holds: bool, rule: &str) {
        if !holds {
            let mut steps = std::vec![(at, member, number)];
            let mut before = at;
            while before != 0 {
                let (_, earlier, member, number) = self.found[before];
                steps.push((earlier as usize, member.into(), number.into()));
                before = earlier as usize;
            }
            std::eprintln!("{:?}", self.world);
            for (at, member, number) in steps.into_iter().rev() {
                std::eprintln!("{}", self.describe(at, member, number));
            }
            panic!("{rule}");
        }
    }

    /// A step in words: which member of its chain, what happened to it, and what it did.
    fn describe(&self, at: usize, member: usize, number: usize) -> String {
        let mut chain = Chain::new();
        unpack(self.found[at].0, &mut chain);
        let mut log = Vec::new();
        let words = match number {
            0 => return "the clock goes on".into(),
            REFUSES => "refuses".into(),
            CLOSES => "closes its socket".into(),
            ENDS.. => std::format!("ends: {:?}", EXITS[number - ENDS]),
            _ => {
                let mut taking = Taking {
                    process: self.processes[chain[member].process as usize].clone(),
                    is_fault: number >= INPUTS,
                    effects: Effects::default(),
                    log: Some(&mut log),
                };
                taking.take(input(number));
                let fault = if number >= INPUTS { ", and a fault" } else { "" };
                std::format!("{:?}{fault}", input(number))
            }
        };
        std::format!("process {} of {}: {words} -> {}", member + 1, chain.len(), log.join(", "))
    }
}

/// A set of numbers that are not 0, faster without optimization than that of std.
struct Set {
    slots: Vec<u128>,
    len: usize,
}

impl Set {
    fn new() -> Self {
        Self { slots: std::vec![0; 1 << 12], len: 0 }
    }

    /// Whether it was not there.
    fn insert(&mut self, value: u128) -> bool {
        if self.len * 2 > self.slots.len() {
            let slots = std::vec![0; self.slots.len() * 2];
            for value in core::mem::replace(&mut self.slots, slots) {
                if value != 0 {
                    let at = self.find(value);
                    self.slots[at] = value;
                }
            }
        }
        let at = self.find(value);
        let is_new = self.slots[at] == 0;
        self.slots[at] = value;
        self.len += usize::from(is_new);
        is_new
    }

    fn find(&self, value: u128) -> usize {
        let folded = (value ^ value >> 64) as u64;
        let mut at = (folded.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 20) as usize & (self.slots.len() - 1);
        while self.slots[at] != 0 && self.slots[at] != value {
            at = (at + 1) & (self.slots.len() - 1);
        }
        at
    }
}

fn explore(world: World) -> Explorer {
    let begin = std::time::Instant::now();
    let mut explorer = Explorer::new(world);
    explorer.explore();
    let (states, processes) = (explorer.found.len(), explorer.processes.len());
    std::println!("{world:?}: {states} states of {processes} processes in {:?}", begin.elapsed());
    explorer
}

/// Two generations, and the third by what it does to the second.
const BARE: World =
    World { has_manager: false, has_watchdog: false, has_faults: true, kind: Kind::Reported, generations: 2 };

#[test]
fn explored_without_a_manager() {
    explore(BARE);
}

#[test]
fn explored_with_a_manager() {
    explore(World { has_manager: true, ..BARE });
}

/// Without faults of looks and reports: when the watchdog is fed does not depend on them. With them there are 16 million
/// states, which `GRACENET_EXPLORE=full` visits.
#[test]
fn explored_with_a_watchdog() {
    explore(World { has_manager: true, has_watchdog: true, has_faults: false, ..BARE });
}

#[test]
fn explored_without_reports() {
    explore(World { kind: Kind::Proving, ..BARE });
    explore(World { kind: Kind::Executed, ..BARE });
    explore(World { kind: Kind::Proving, has_manager: true, has_faults: false, ..BARE });
    explore(World { kind: Kind::Executed, has_manager: true, has_faults: false, ..BARE });
}

/// Three exact processes bring the first into no state that two do not: with successors that do not report, whose states
/// are few. With `GRACENET_EXPLORE=full` all are visited that take minutes: 30 million states, in 1.5 GiB, with `--release`.
#[test]
fn explored_with_three_exact_generations() {
    let is_full = std::env::var_os("GRACENET_EXPLORE").is_some_and(|extent| extent == "full");
    let mut worlds = std::vec![World { kind: Kind::Executed, ..BARE }];
    if is_full {
        explore(World { has_manager: true, has_watchdog: true, ..BARE });
        explore(World { kind: Kind::Proving, has_manager: true, ..BARE });
        explore(World { kind: Kind::Executed, has_manager: true, ..BARE });
        worlds.extend([BARE, World { has_manager: true, has_faults: false, ..BARE }]);
    }
    for world in worlds {
        let (two, three) = (explore(world), explore(World { generations: 3, ..world }));
        let is_known = |key| two.numbers.contains_key(key);
        assert!(three.numbers.keys().all(is_known), "a third process makes something new of the first");
    }
}
