//! Explores the two machines, [`Lifecycle`] and [`Track`], with everything around them, as one system: up to three
//! generations of a server, their clients, a service manager that hears or does not, and the clock.
//!
//! Every process goes on by single steps, in every order; every call may fail. All states that can be reached are
//! visited, and the rules of [`check`] hold in each. The deadlines differ, and the clock goes on by one at a time, so
//! each of them is met before, at and after its moment.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::std_instead_of_core,
    reason = "tests"
)]

use super::lifecycle::{Action, Event, Leave, Lifecycle, Message, Request, Terms};
use crate::error::{Error, Operation};
use crate::failure::Failure;
use crate::moment::Moment;
use crate::pidfd::Exit;
use crate::ready::{Received, Refusal, Report};
use crate::restart::progress::{Outcome, Patience, Step, Track};
use core::time::Duration;
use rustix::io::Errno;
use rustix::process::Pid;
use std::collections::{HashSet, VecDeque};
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::vec::Vec;

/// The most processes that there are at a time.
const GENERATIONS: usize = 3;

/// The clock's reading, for ever: it is the deadlines that come nearer.
const NOW: Moment = Moment::at(Duration::from_secs(1000));
const TICK: Duration = Duration::from_secs(1);

const RETRY: u64 = 1;
const BARRIER: u64 = 2;
const READY: u64 = 3;
const DRAIN: u64 = 4;
const FEED: u64 = 5;

const FAULT: Error = Error::call(Operation::Poll, Errno::NOMEM);

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct World {
    has_manager: bool,
    has_watchdog: bool,
}

/// The successor's end of the readiness socket, while the predecessor has the other.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Wire {
    Silent,
    Sent(Report),
    Closed,
    /// The predecessor takes no report any more.
    Refused,
}

/// Whose process it is, and what it owes.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Shell {
    /// Whether the program accepts, as it was told.
    accepts: bool,
    /// Of its successor in flight.
    track: Option<Track>,
    /// Whether a look at the successor is under way.
    looks: bool,
    /// Whether the manager was told that the successor is the main process.
    told: bool,
    /// Whether the manager was told that this process stops.
    stops: bool,
    /// How it is connected with its predecessor; `None` if it is not.
    wire: Option<Wire>,
    /// Whether its predecessor has ended, and this process has not seen it yet.
    orphaned: bool,
    /// Whether it has a predecessor that is alive.
    follows: bool,
    exit: Option<Exit>,
}

#[derive(Clone)]
struct Process {
    life: Lifecycle,
    shell: Shell,
}

/// The processes, the oldest first: each is the successor of the one before.
#[derive(Clone)]
struct System {
    world: World,
    processes: Vec<Process>,
    /// Whether somebody was asked to terminate.
    is_ending: bool,
}

impl Process {
    fn new(world: World, wire: Option<Wire>) -> Self {
        let seconds = Duration::from_secs;
        let terms = Terms {
            ready_within: seconds(READY),
            drain_within: seconds(DRAIN),
            barrier_within: seconds(BARRIER),
            retry_every: seconds(RETRY),
            feed_every: world.has_watchdog.then_some(seconds(FEED)),
            is_init: false,
        };
        let follows = wire.is_some();
        let shell = Shell {
            accepts: false,
            track: None,
            looks: false,
            told: false,
            stops: false,
            wire,
            orphaned: false,
            follows,
            exit: None,
        };
        Self { life: Lifecycle::new(terms, !follows), shell }
    }

    fn is_alive(&self) -> bool {
        self.shell.exit.is_none()
    }
}

impl System {
    fn new(world: World) -> Self {
        Self { world, processes: std::vec![Process::new(world, None)], is_ending: false }
    }

    fn key(&self) -> u64 {
        let hasher = BuildHasherDefault::<DefaultHasher>::default();
        let processes: Vec<_> =
            self.processes.iter().map(|process| (process.life.key(), &process.shell)).collect();
        hasher.hash_one((processes, self.is_ending))
    }

    /// All states that are one step away.
    fn next(&self, found: &mut dyn FnMut(&'static str, usize, Self)) {
        let mut step = |label, at, change: &dyn Fn(&mut Self)| {
            let mut next = self.clone();
            change(&mut next);
            next.bury();
            found(label, at, next);
        };
        // Looks take no time that matters, and what is to be done next is done before anybody waits.
        if self.processes.iter().all(|process| !process.shell.looks && process.life.queued() == 0) {
            step("the clock goes on", 0, &|system| system.tick());
        }
        for at in 0..self.processes.len() {
            let process = &self.processes[at];
            if !process.is_alive() {
                continue;
            }
            if process.shell.looks {
                for outcome in self.outcomes(at) {
                    step("looks", at, &|system| system.look(at, outcome));
                }
                continue;
            }
            if !process.life.is_ready() {
                self.open(at, &mut step);
            }
            let rests = process.life.queued() == 0;
            for request in [Request::Spawn, Request::Exec, Request::Terminate] {
                if rests && !process.life.is_asked() {
                    step("is asked", at, &|system| {
                        system.is_ending |= request == Request::Terminate;
                        system.processes[at].life.request(request);
                    });
                }
            }
            for is_fault in [false, true] {
                step("polls", at, &|system| system.poll(at, is_fault));
            }
            if process.shell.orphaned && rests {
                step("sees its predecessor's end", at, &|system| {
                    system.processes[at].shell.orphaned = false;
                    system.processes[at].life.predecessor_ended();
                });
            }
            if process.life.watches_successor() && rests {
                step("sees something of its successor", at, &|system| system.begin_look(at, None));
            }
            // Its last connection is done, now or later.
            if !process.shell.accepts && process.life.leaves_at().is_some() && rests {
                step("has nothing open", at, &|system| system.processes[at].life.drained());
            }
            if self.may_crash(at) {
                step("crashes", at, &|system| system.end(at, Exit::Status(1)));
                if !process.life.is_ready() {
                    step("exits", at, &|system| system.end(at, Exit::Status(0)));
                }
            }
        }
    }

    /// What a process does that is not ready.
    fn open(&self, at: usize, step: &mut dyn FnMut(&'static str, usize, &dyn Fn(&mut Self))) {
        let process = &self.processes[at];
        match process.shell.wire {
            // The predecessor has given it up, and it is told so if that is alive.
            Some(Wire::Refused) if process.shell.follows => {
                step("sees that it was given up", at, &|system| system.end(at, Exit::Status(1)))
            }
            Some(Wire::Silent | Wire::Refused) => {
                step("is ready", at, &|system| {
                    system.processes[at].shell.wire = Some(Wire::Sent(Report::Ready));
                    system.serve(at, Ok(()));
                });
                step("refuses", at, &|system| {
                    system.processes[at].shell.wire = Some(Wire::Sent(Report::Refused(Refusal::Code(1))));
                });
                step("closes its end", at, &|system| system.processes[at].shell.wire = Some(Wire::Closed));
            }
            Some(Wire::Sent(_) | Wire::Closed) => step("ends", at, &|system| system.end(at, Exit::Status(1))),
            None => {
                step("is ready", at, &|system| system.serve(at, Ok(())));
                if self.world.has_manager {
                    step("is ready, unheard", at, &|system| system.serve(at, Err(FAULT)));
                }
            }
        }
    }

    fn serve(&mut self, at: usize, heard: Result<(), Error>) {
        let process = &mut self.processes[at];
        process.life.opened(heard, NOW);
        process.shell.accepts = true;
    }

    /// Until its predecessor has seen its report: what becomes of it later, as in the moment of that look, is a crash of the
    /// process that serves.
    fn may_crash(&self, at: usize) -> bool {
        let Some(predecessor) = at.checked_sub(1).map(|before| &self.processes[before].shell) else {
            return false;
        };
        let is_expected = predecessor.track.is_some_and(|track| track.is_expected());
        let has_successor = at + 1 < self.processes.len();
        is_expected && !has_successor && !(predecessor.looks && self.processes[at].life.is_ready())
    }

    fn tick(&mut self) {
        for process in &mut self.processes {
            process.life.elapse(TICK, NOW);
        }
    }

    /// Takes what the process at `at` is to do next; what can fail in it does, if `is_fault`.
    fn poll(&mut self, at: usize, is_fault: bool) {
        loop {
            let Some(action) = self.processes[at].life.next(NOW) else {
                let deadline = self.processes[at].life.deadline();
                assert!(deadline.is_none_or(|deadline| deadline > NOW), "nothing is done about what is due");
                return;
            };
            assert!(self.processes[at].life.queued() < 3, "an action may be lost");
            if !self.take(at, action, is_fault) {
                return;
            }
        }
    }

    /// Takes an action; returns whether it was a word that something else follows.
    fn take(&mut self, at: usize, action: Action, is_fault: bool) -> bool {
        let count = self.processes.len();
        let process = &mut self.processes[at];
        match action {
            Action::Start => {
                assert!(process.shell.track.is_none(), "two successors in flight");
                assert_eq!(at + 1, count, "a successor beside another");
                if is_fault || count == GENERATIONS {
                    self.processes[at].life.started(Err(FAULT), Duration::ZERO, NOW);
                    return false;
                }
                process.shell.track = Some(Track::reported(self.world.has_manager));
                let pid = Pid::from_raw(7).unwrap();
                process.life.started(Ok(pid), Duration::from_secs(READY), NOW);
                self.processes.insert(at + 1, Process::new(self.world, Some(Wire::Silent)));
            }
            Action::Look => self.begin_look(at, None),
            Action::GiveUp(failure) => self.begin_look(at, Some(failure)),
            Action::Exec if is_fault => process.life.exec_failed(FAULT),
            Action::Exec => {
                assert!(process.shell.track.is_none(), "executed with a successor in flight");
                let follows = process.shell.follows;
                *process = Process::new(self.world, None);
                process.shell.follows = follows;
            }
            Action::Report => process.life.reported(if is_fault { Err(FAULT) } else { Ok(()) }, NOW),
            Action::Tell(message) => {
                assert!(!process.shell.told, "{message:?} of a process that is not the main one");
                if message == Message::Stopping {
                    assert!(!process.shell.stops, "stops twice");
                    process.shell.stops = true;
                }
                return true;
            }
            Action::Event(event) => {
                self.obey(at, event);
                return self.processes[at].is_alive();
            }
        }
        false
    }

    fn obey(&mut self, at: usize, event: Event) {
        let shell = &mut self.processes[at].shell;
        match event {
            Event::Serve => shell.accepts = true,
            Event::Drain(leave) => {
                shell.accepts = false;
                assert!(leave != Leave::HandOver || self.processes.len() > at + 1 || self.is_ending);
            }
            Event::Exit(status) => {
                assert!(self.processes[at].life.has_left());
                self.end(at, Exit::Status(status.into()));
            }
            Event::HandedOver(_) => {
                assert!(shell.track.take().is_some(), "handed over twice");
                shell.told = true;
            }
            Event::Failed(Failure::NotStarted(_)) => {}
            Event::Failed(_) => {
                assert!(!shell.told, "taken back");
                assert!(shell.track.take().is_some());
            }
            Event::Started(_) | Event::Refused(_) | Event::Unheard(_) | Event::Unseen(_) | Event::Main => {}
        }
    }

    fn begin_look(&mut self, at: usize, failure: Option<Failure>) {
        let shell = &mut self.processes[at].shell;
        let track = shell.track.as_mut().unwrap();
        match failure {
            Some(failure) => track.give_up(failure),
            None => track.look(),
        }
        shell.looks = true;
    }

    /// What can come of the step that the process at `at` takes.
    fn outcomes(&self, at: usize) -> Vec<Option<Outcome>> {
        let track = self.processes[at].shell.track.as_ref().unwrap();
        let successor = self.processes.get(at + 1);
        let exit = successor.and_then(|successor| successor.shell.exit);
        let wire = successor.and_then(|successor| successor.shell.wire);
        let outcomes = match track.step() {
            Step::Rest => return std::vec![None],
            Step::SeeEnd(Patience::None | Patience::LastBreath) => std::vec![Outcome::Found(exit.is_some())],
            Step::SeeEnd(Patience::Death) => std::vec![Outcome::Found(true), Outcome::Found(false)],
            Step::SeeTime => std::vec![Outcome::Found(true), Outcome::Found(false)],
            Step::Receive => std::vec![Outcome::Received(match wire {
                Some(Wire::Sent(report)) => Received::Report(report),
                Some(Wire::Closed) => Received::Closed,
                _ if exit.is_some() => Received::Closed,
                _ => Received::Nothing,
            })],
            Step::RefuseReports | Step::Kill | Step::Announce => std::vec![Outcome::Done],
            Step::CloseSocket | Step::Withdraw(_) => return std::vec![Some(Outcome::Done)],
            Step::Collect => std::vec![Outcome::Exited(exit), Outcome::Exited(None)],
            Step::SeeBarrier => std::vec![Outcome::Found(true), Outcome::Found(false)],
        };
        outcomes.into_iter().chain([Outcome::Failed(FAULT)]).map(Some).collect()
    }

    fn look(&mut self, at: usize, outcome: Option<Outcome>) {
        let (before, after) = self.processes.split_at_mut(at + 1);
        let process = &mut before[at];
        let track = process.shell.track.as_mut().unwrap();
        let Some(outcome) = outcome else {
            process.shell.looks = false;
            process.life.looked(track.progress(), NOW);
            return;
        };
        let has_failed = matches!(outcome, Outcome::Failed(_));
        match (track.step(), after.first_mut()) {
            (Step::RefuseReports, Some(successor))
                if !has_failed && successor.shell.wire == Some(Wire::Silent) =>
            {
                successor.shell.wire = Some(Wire::Refused);
            }
            // Once the report was taken, there is none.
            (Step::Receive, Some(successor))
                if matches!(successor.shell.wire, Some(Wire::Sent(_))) && !has_failed =>
            {
                successor.shell.wire = Some(Wire::Closed);
            }
            (Step::Kill, Some(successor)) if !has_failed => {
                assert!(!successor.life.is_ready() || !successor.is_alive(), "killed one that serves");
                successor.shell.exit.get_or_insert(Exit::Signal(9));
                successor.shell.accepts = false;
            }
            (Step::Announce, successor) if !has_failed => {
                assert!(!core::mem::replace(&mut process.shell.told, true), "announced twice");
                assert!(successor.is_some_and(|successor| successor.life.is_ready()));
            }
            (Step::Withdraw(_), _) => assert!(!process.shell.told, "taken back"),
            _ => {}
        }
        track.take(outcome);
    }

    fn end(&mut self, at: usize, exit: Exit) {
        let shell = &mut self.processes[at].shell;
        shell.exit = Some(exit);
        shell.accepts = false;
        if let Some(successor) = self.processes.get_mut(at + 1) {
            if successor.shell.follows {
                successor.shell.follows = false;
                successor.shell.orphaned = true;
            }
        }
    }

    /// Takes out what has ended and is watched by nobody any more.
    fn bury(&mut self) {
        let mut at = 0;
        while at < self.processes.len() {
            let is_watched =
                at > 0 && self.processes[at - 1].is_alive() && self.processes[at - 1].shell.track.is_some();
            if self.processes[at].is_alive() || is_watched {
                at += 1;
            } else {
                self.processes.remove(at);
            }
        }
    }
}

/// What holds in every state.
fn check(system: &System) {
    let alive: Vec<_> = system.processes.iter().filter(|process| process.is_alive()).collect();
    // Somebody accepts, or is about to: it opens, or executes anew.
    let is_about_to = |process: &&Process| {
        process.life.accepts() || !process.life.is_ready() || process.life.leaves_at().is_some()
    };
    assert!(
        system.is_ending
            || alive.iter().any(|process| process.shell.accepts)
            || alive.iter().any(is_about_to)
    );
    for process in alive {
        let rests = !process.shell.looks && process.life.queued() == 0 && !process.life.is_asked();
        if process.life.is_terminated() && rests {
            assert!(
                process.life.leaves_at().is_some() || process.life.has_left(),
                "no exit follows a termination"
            );
        }
        if let Some(leaves_at) = process.life.leaves_at() {
            assert!(process.life.deadline().is_some_and(|deadline| deadline <= leaves_at));
        }
        assert_eq!(process.shell.accepts && rests, process.life.accepts() && rests);
    }
}

/// How a state was reached, printed if a rule does not hold in it.
struct Trail {
    steps: Vec<(usize, &'static str, usize)>,
    at: usize,
}

impl Drop for Trail {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let mut lines = Vec::new();
            while self.at != 0 {
                let (before, label, process) = self.steps[self.at];
                lines.push(std::format!("{process} {label}"));
                self.at = before;
            }
            lines.iter().rev().for_each(|line| std::eprintln!("{line}"));
        }
    }
}

/// Every state that can be reached, each once, the nearest first.
fn explore(world: World) -> usize {
    let start = System::new(world);
    let mut seen = HashSet::from([start.key()]);
    let mut open = VecDeque::from([(0, start)]);
    let mut trail = Trail { steps: std::vec![(0, "", 0)], at: 0 };
    while let Some((at, system)) = open.pop_front() {
        trail.at = at;
        check(&system);
        system.next(&mut |label, process, next| {
            if !next.processes.is_empty() && seen.insert(next.key()) {
                trail.steps.push((at, label, process));
                open.push_back((trail.steps.len() - 1, next));
            }
        });
    }
    seen.len()
}

#[test]
fn explored_to_a_fixpoint() {
    for (has_manager, has_watchdog) in [(false, false), (true, false)] {
        let world = World { has_manager, has_watchdog };
        let begin = std::time::Instant::now();
        std::println!("{world:?}: {} states in {:?}", explore(world), begin.elapsed());
    }
}
