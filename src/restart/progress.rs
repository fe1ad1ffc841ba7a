//! What becomes of a successor, as a pure machine: no system call, no descriptor, no clock.
//!
//! A [`Track`] says which [`Step`] to take next, and is told the [`Outcome`] of each. `successor` takes the steps: it
//! holds the pidfd, the readiness socket and the manager's barrier. `service/explore` explores this machine together with
//! the life of a server.
//!
//! | state | left when |
//! |---|---|
//! | waiting | the successor reports, or ends, or is given up |
//! | proving | the successor has lived for its time, or ends, or is given up |
//! | refused | the successor, which said why it gives up, has ended, or is given up |
//! | ended | the exit status of a successor that was ready is known |
//! | announcing | the service manager has been told who the main process is now, or the successor has ended |
//! | confirming | the manager has come to the barrier |
//! | ready, failed | never |
//!
//! The state *ended* remembers what cannot be seen twice. A report is taken from the socket once: if the successor has
//! ended and the call for its status fails, the next look has to know of the report. And a successor that was found
//! ended before its announcement must not be announced after such a failure.

use crate::error::Error;
use crate::failure::Failure;
use crate::pidfd::Exit;
use crate::ready::{Received, Report};
use core::fmt;
use core::time::Duration;
use rustix::process::Signal;

/// How far a successor in flight has got, or that it is ready.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
#[must_use]
pub enum Progress {
    /// The successor has not reported yet.
    Waiting,
    /// The successor serves, and the service manager, where there is one, has confirmed it as the main process.
    Ready,
    /// The successor is in flight, and its outcome cannot be told yet. Look again: each look tries again.
    Unsettled(Unsettled),
}

/// Why the outcome of a successor cannot be told yet.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Unsettled {
    /// The successor serves, and the service manager has been told so but has not answered. Do not exit: the manager
    /// would take that for the end of the service.
    Unanswered,
    /// The successor serves. The service manager could not be told, or its answer could not be looked for. Do not exit,
    /// as above.
    Untold(Error),
    /// The successor could not be looked at. It may serve, or have ended.
    Unseen(Error),
}

impl fmt::Display for Unsettled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unanswered => f.write_str("successor is ready, the service manager has not answered"),
            Self::Untold(error) => {
                write!(f, "successor is ready, the service manager does not know: {error}")
            }
            Self::Unseen(error) => write!(f, "watching the successor: {error}"),
        }
    }
}

/// How long a look at the pidfd may wait for the successor's end.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Patience {
    /// It may not.
    None,
    /// A process that exits closes its descriptors a moment before its status can be had.
    LastBreath,
    /// A killed process ends at once, unless the kernel has something to finish for it.
    Death,
}

impl Patience {
    pub(crate) const LAST_BREATH: Duration = Duration::from_millis(100);

    pub(crate) const fn time(self) -> Duration {
        match self {
            Self::None => Duration::ZERO,
            Self::LastBreath => Self::LAST_BREATH,
            Self::Death => Duration::from_secs(1),
        }
    }
}

/// What is to be done next about a successor; each step but [`Step::Rest`] has an [`Outcome`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Step {
    /// Nothing, until a descriptor shows something.
    Rest,
    /// Look whether the successor has ended: [`Outcome::Found`].
    SeeEnd(Patience),
    /// Look whether the time to prove itself has passed: [`Outcome::Found`].
    SeeTime,
    /// Look for a report: [`Outcome::Received`].
    Receive,
    /// Take no report from here on: [`Outcome::Done`].
    RefuseReports,
    /// Close the readiness socket, with a word to a process that still has the other end: [`Outcome::Done`].
    CloseSocket,
    /// Kill the successor: [`Outcome::Done`].
    Kill,
    /// Reap the successor, which has ended: [`Outcome::Exited`].
    Collect,
    /// Tell the service manager that the successor is the main process: [`Outcome::Done`].
    Announce,
    /// Look whether the manager has come to the barrier: [`Outcome::Found`].
    SeeBarrier,
    /// Tell the manager that the restart has failed: [`Outcome::Done`], whether it was heard or not.
    Withdraw,
}

impl Step {
    const SEE_END: Self = Self::SeeEnd(Patience::None);
}

/// What came of a [`Step`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Outcome {
    Done,
    Found(bool),
    Received(Received),
    /// `None` where nobody can tell how the successor ended.
    Exited(Option<Exit>),
    Failed(Error),
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum State {
    Waiting,
    Proving,
    Refused,
    /// It was ready, and has ended. Its status is to be had.
    Ended,
    Announcing,
    Confirming,
    Ready,
    Failed,
}

/// A successor, as far as it is known.
///
/// What follows a step depends on the state, and on what this look, or this ending, has come to.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Track {
    state: State,
    step: Step,
    has_manager: bool,
    /// Whether it was seen to have ended before its report was looked for.
    has_ended: bool,
    /// Whether it is killed if it has not ended by itself: its report is not there.
    is_doomed: bool,
    /// Why it has failed; why it refuses; or why it is given up.
    failure: Option<Failure>,
    unsettled: Option<Unsettled>,
}

/// What an event loop waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Watch {
    Nothing,
    EndAndReport,
    End,
    Barrier,
}

impl Track {
    const fn new(state: State, has_manager: bool) -> Self {
        Self {
            state,
            step: Step::Rest,
            has_manager,
            has_ended: false,
            is_doomed: false,
            failure: None,
            unsettled: None,
        }
    }

    /// A successor that is to report.
    pub(crate) const fn reported(has_manager: bool) -> Self {
        Self::new(State::Waiting, has_manager)
    }

    /// A successor that is ready because it was executed.
    pub(crate) const fn executed(has_manager: bool) -> Self {
        Self::new(if has_manager { State::Announcing } else { State::Ready }, has_manager)
    }

    /// A successor that is ready once it has lived for some time.
    pub(crate) const fn proving(has_manager: bool) -> Self {
        Self::new(State::Proving, has_manager)
    }

    /// Begins a look at the successor.
    pub(crate) const fn look(&mut self) {
        self.unsettled = None;
        self.has_ended = false;
        self.is_doomed = false;
        if !matches!(self.state, State::Refused | State::Failed) {
            self.failure = None;
        }
        self.step = match self.state {
            // The end is looked for before the report: that is there, if ever, when it has ended.
            State::Waiting | State::Proving | State::Refused | State::Announcing => Step::SEE_END,
            State::Ended => Step::Collect,
            State::Confirming => Step::SeeBarrier,
            State::Ready | State::Failed => Step::Rest,
        };
    }

    /// Begins to end a successor that is expected, unless its report is there or its time has passed. The report cannot
    /// come any more: the socket takes none from here on, and a successor whose report is not taken does not serve. Of a
    /// successor that is not expected any more, this is a look.
    pub(crate) const fn give_up(&mut self, failure: Failure) {
        self.look();
        match self.state {
            State::Waiting => {
                self.failure = Some(failure);
                self.step = Step::RefuseReports;
            }
            State::Proving => self.failure = Some(failure),
            State::Refused => self.is_doomed = true,
            _ => {}
        }
    }

    /// The step to take next.
    pub(crate) const fn step(&self) -> Step {
        self.step
    }

    /// Takes the outcome of the step.
    #[inline(never)]
    pub(crate) fn take(&mut self, outcome: Outcome) {
        self.step = match outcome {
            Outcome::Done => self.done(),
            Outcome::Found(is_so) => self.found(is_so),
            Outcome::Received(received) => self.received(received),
            Outcome::Exited(exit) => self.collected(exit),
            Outcome::Failed(error) => {
                self.unsettled = Some(match self.step {
                    Step::Announce | Step::SeeBarrier => Unsettled::Untold(error),
                    _ => Unsettled::Unseen(error),
                });
                Step::Rest
            }
        };
    }

    const fn done(&mut self) -> Step {
        match self.step {
            Step::RefuseReports => Step::SEE_END,
            Step::CloseSocket => match self.state {
                State::Failed if self.has_manager => Step::Withdraw,
                State::Refused if self.is_doomed => Step::SEE_END,
                State::Refused => self.collect_if_ended(),
                _ => Step::Rest,
            },
            Step::Kill => Step::SeeEnd(Patience::Death),
            Step::Announce => {
                self.state = State::Confirming;
                Step::SeeBarrier
            }
            _ => Step::Rest,
        }
    }

    const fn found(&mut self, is_so: bool) -> Step {
        match self.step {
            Step::SeeEnd(Patience::None) => self.saw_end(is_so),
            Step::SeeEnd(Patience::LastBreath) if is_so => Step::Collect,
            Step::SeeEnd(Patience::LastBreath) => {
                self.failure = Some(Failure::Closed);
                Step::Kill
            }
            Step::SeeEnd(Patience::Death) if is_so => Step::Collect,
            // The kernel does something for it that no signal interrupts.
            Step::SeeEnd(Patience::Death) => self.settle(self.failure()),
            Step::SeeTime if is_so => self.is_ready_now(),
            Step::SeeTime if self.failure.is_some() => Step::Kill,
            Step::SeeBarrier if is_so => {
                self.state = State::Ready;
                Step::Rest
            }
            _ => Step::Rest,
        }
    }

    const fn saw_end(&mut self, has_ended: bool) -> Step {
        self.has_ended = has_ended;
        match self.state {
            State::Waiting if !self.is_doomed => Step::Receive,
            State::Announcing if has_ended => {
                // The manager knows nothing of it yet: this process stays the main one.
                self.state = State::Ended;
                Step::Collect
            }
            State::Announcing => Step::Announce,
            State::Proving if !has_ended => Step::SeeTime,
            _ if self.is_doomed && !has_ended => Step::Kill,
            _ => self.collect_if_ended(),
        }
    }

    const fn received(&mut self, received: Received) -> Step {
        let is_given_up = self.failure.is_some();
        match received {
            Received::Report(Report::Ready) if self.has_ended => {
                self.failure = None;
                self.state = State::Ended;
                Step::Collect
            }
            Received::Report(Report::Ready) => self.is_ready_now(),
            Received::Report(Report::Refused(reason)) => {
                self.failure = Some(Failure::Refused(reason));
                self.is_doomed = is_given_up;
                self.state = State::Refused;
                Step::CloseSocket
            }
            Received::Unknown(word) => {
                self.failure = Some(Failure::Unknown(word));
                self.doom()
            }
            Received::Closed | Received::Nothing if is_given_up => self.doom(),
            // A moment for the exit that explains it.
            Received::Closed => Step::SeeEnd(Patience::LastBreath),
            Received::Nothing => self.collect_if_ended(),
        }
    }

    const fn collect_if_ended(&self) -> Step {
        if self.has_ended { Step::Collect } else { Step::Rest }
    }

    const fn doom(&mut self) -> Step {
        self.is_doomed = true;
        Step::SEE_END
    }

    const fn is_ready_now(&mut self) -> Step {
        self.failure = None;
        if self.has_manager {
            self.state = State::Announcing;
            Step::SEE_END
        } else {
            self.state = State::Ready;
            Step::Rest
        }
    }

    #[cold]
    #[inline(never)]
    fn collected(&mut self, exit: Option<Exit>) -> Step {
        match (self.state, verdict(exit, self.failure)) {
            // It may have handed over to a successor of its own, or had nothing else to do. A service manager would have
            // to be told of a process that is no more.
            (State::Ended, Failure::Exited(0)) if !self.has_manager => {
                self.state = State::Ready;
                Step::Rest
            }
            (_, failure) => self.settle(failure),
        }
    }

    /// It has failed, for this reason if it gave none itself.
    const fn settle(&mut self, failure: Failure) -> Step {
        if !matches!(self.state, State::Refused) {
            self.failure = Some(failure);
        }
        self.state = State::Failed;
        Step::CloseSocket
    }

    /// Why it has failed.
    pub(crate) const fn failure(&self) -> Failure {
        match self.failure {
            Some(failure) => failure,
            None => Failure::Vanished,
        }
    }

    /// What is known at the end of a look.
    pub(crate) const fn progress(&self) -> Result<Progress, Failure> {
        match (self.state, self.unsettled) {
            (State::Ready, _) => Ok(Progress::Ready),
            (State::Failed, _) => Err(self.failure()),
            (_, Some(why)) => Ok(Progress::Unsettled(why)),
            (State::Announcing | State::Confirming, None) => Ok(Progress::Unsettled(Unsettled::Unanswered)),
            (State::Waiting | State::Proving | State::Refused | State::Ended, None) => Ok(Progress::Waiting),
        }
    }

    /// Whether it has neither got ready nor failed.
    pub(crate) const fn is_expected(&self) -> bool {
        matches!(self.state, State::Waiting | State::Proving | State::Refused | State::Ended)
    }

    /// Whether its outcome is still open. A successor that is ready counts as open until the manager has confirmed it.
    pub(crate) const fn is_in_flight(&self) -> bool {
        self.is_expected() || matches!(self.state, State::Announcing | State::Confirming)
    }

    pub(crate) const fn is_ready(&self) -> bool {
        matches!(self.state, State::Ready)
    }

    /// What can change the progress. A descriptor that has told everything is readable for ever, and so not among these.
    pub(crate) const fn watch(&self) -> Watch {
        match self.state {
            State::Waiting => Watch::EndAndReport,
            State::Proving | State::Refused | State::Ended | State::Announcing => Watch::End,
            // The manager has been told, and reports the successor's end too.
            State::Confirming => Watch::Barrier,
            State::Ready | State::Failed => Watch::Nothing,
        }
    }
}

/// What an exit says, beside the reason for which the successor was killed, if it was.
const fn verdict(exit: Option<Exit>, failure: Option<Failure>) -> Failure {
    const KILL: i32 = Signal::KILL.as_raw();
    match (exit, failure) {
        // Which is what it was killed for.
        (Some(Exit::Signal(KILL)) | None, Some(failure)) => failure,
        // It ended by itself, if at the last moment.
        (Some(Exit::Status(status)), _) => Failure::Exited(status),
        (Some(Exit::Signal(signal)), _) => Failure::Killed(signal),
        (None, None) => Failure::Vanished,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::std_instead_of_core, reason = "tests")]
    use super::*;
    use crate::error::{Operation, Word};
    use crate::ready::Refusal;
    use rustix::io::Errno;
    use std::string::ToString;

    const FAULT: Error = Error::call(Operation::Poll, Errno::NOMEM);
    const READY: Outcome = Outcome::Received(Received::Report(Report::Ready));
    const REFUSAL: Refusal = Refusal::Code(7);
    const REFUSED: Outcome = Outcome::Received(Received::Report(Report::Refused(REFUSAL)));
    const WORD: Word = Word::new("PROMISED=1");
    const UNKNOWN: Outcome = Outcome::Received(Received::Unknown(WORD));
    const ALIVE: Outcome = Outcome::Found(false);
    const ENDED: Outcome = Outcome::Found(true);
    const SEE_END: Step = Step::SeeEnd(Patience::None);
    const SEE_LAST_BREATH: Step = Step::SeeEnd(Patience::LastBreath);
    const SEE_DEATH: Step = Step::SeeEnd(Patience::Death);

    const fn exited(status: i32) -> Outcome {
        Outcome::Exited(Some(Exit::Status(status)))
    }

    const KILLED: Outcome = Outcome::Exited(Some(Exit::Signal(9)));

    /// Takes these steps in a look, or in an end for this reason, and tells what is known then.
    fn after(
        track: &mut Track,
        reason: Option<Failure>,
        script: &[(Step, Outcome)],
    ) -> Result<Progress, Failure> {
        match reason {
            None => track.look(),
            Some(failure) => track.give_up(failure),
        }
        for &(step, outcome) in script {
            assert_eq!(track.step(), step, "{script:?}");
            track.take(outcome);
        }
        assert_eq!(track.step(), Step::Rest, "{script:?}");
        track.progress()
    }

    const UNANSWERED: Result<Progress, Failure> = Ok(Progress::Unsettled(Unsettled::Unanswered));
    const UNTOLD: Result<Progress, Failure> = Ok(Progress::Unsettled(Unsettled::Untold(FAULT)));
    const UNSEEN: Result<Progress, Failure> = Ok(Progress::Unsettled(Unsettled::Unseen(FAULT)));

    #[test]
    fn without_a_manager() {
        use Step::{CloseSocket, Collect, Kill, Receive, RefuseReports};
        let done = Outcome::Done;
        let silence = Outcome::Received(Received::Nothing);
        let closed = Outcome::Received(Received::Closed);
        let late = Some(Failure::Deadline);
        for (reason, script, found) in [
            // What a look finds.
            (None, &[(SEE_END, ALIVE), (Receive, silence)][..], Ok(Progress::Waiting)),
            (None, &[(SEE_END, ALIVE), (Receive, READY)], Ok(Progress::Ready)),
            (None, &[(SEE_END, Outcome::Failed(FAULT))], UNSEEN),
            (None, &[(SEE_END, ENDED), (Receive, READY), (Collect, exited(0))], Ok(Progress::Ready)),
            (
                None,
                &[(SEE_END, ENDED), (Receive, READY), (Collect, exited(1)), (CloseSocket, done)],
                Err(Failure::Exited(1)),
            ),
            (
                None,
                &[(SEE_END, ENDED), (Receive, silence), (Collect, exited(0)), (CloseSocket, done)],
                Err(Failure::Exited(0)),
            ),
            // A word that this version does not know, from a successor that lives, or has ended.
            (
                None,
                &[
                    (SEE_END, ALIVE),
                    (Receive, UNKNOWN),
                    (SEE_END, ALIVE),
                    (Kill, done),
                    (SEE_DEATH, ENDED),
                    (Collect, KILLED),
                    (CloseSocket, done),
                ],
                Err(Failure::Unknown(WORD)),
            ),
            (
                late,
                &[
                    (RefuseReports, done),
                    (SEE_END, ENDED),
                    (Receive, UNKNOWN),
                    (SEE_END, ENDED),
                    (Collect, exited(1)),
                    (CloseSocket, done),
                ],
                Err(Failure::Exited(1)),
            ),
            (None, &[(SEE_END, ALIVE), (Receive, REFUSED), (CloseSocket, done)], Ok(Progress::Waiting)),
            (
                None,
                &[
                    (SEE_END, ENDED),
                    (Receive, REFUSED),
                    (CloseSocket, done),
                    (Collect, exited(1)),
                    (CloseSocket, done),
                ],
                Err(Failure::Refused(REFUSAL)),
            ),
            (
                None,
                &[
                    (SEE_END, ALIVE),
                    (Receive, closed),
                    (SEE_LAST_BREATH, ENDED),
                    (Collect, exited(3)),
                    (CloseSocket, done),
                ],
                Err(Failure::Exited(3)),
            ),
            (
                None,
                &[
                    (SEE_END, ALIVE),
                    (Receive, closed),
                    (SEE_LAST_BREATH, ALIVE),
                    (Kill, done),
                    (SEE_DEATH, ENDED),
                    (Collect, KILLED),
                    (CloseSocket, done),
                ],
                Err(Failure::Closed),
            ),
            // What an end comes to.
            (late, &[(RefuseReports, done), (SEE_END, ALIVE), (Receive, READY)], Ok(Progress::Ready)),
            (
                late,
                &[
                    (RefuseReports, done),
                    (SEE_END, ALIVE),
                    (Receive, silence),
                    (SEE_END, ALIVE),
                    (Kill, done),
                    (SEE_DEATH, ALIVE),
                    (CloseSocket, done),
                ],
                Err(Failure::Deadline),
            ),
            (
                late,
                &[
                    (RefuseReports, done),
                    (SEE_END, ALIVE),
                    (Receive, REFUSED),
                    (CloseSocket, done),
                    (SEE_END, ENDED),
                    (Collect, exited(1)),
                    (CloseSocket, done),
                ],
                Err(Failure::Refused(REFUSAL)),
            ),
            (
                late,
                &[(RefuseReports, done), (SEE_END, ENDED), (Receive, READY), (Collect, exited(0))],
                Ok(Progress::Ready),
            ),
            (late, &[(RefuseReports, Outcome::Failed(FAULT))], UNSEEN),
            // It may have been killed in a look before, which could not see it end.
            (
                late,
                &[
                    (RefuseReports, done),
                    (SEE_END, ENDED),
                    (Receive, silence),
                    (SEE_END, ENDED),
                    (Collect, Outcome::Exited(None)),
                    (CloseSocket, done),
                ],
                Err(Failure::Deadline),
            ),
        ] {
            assert_eq!(after(&mut Track::reported(false), reason, script), found, "{script:?}");
        }
    }

    #[test]
    fn with_a_manager() {
        use Step::{Announce, CloseSocket, Collect, Receive, SeeBarrier};
        let done = Outcome::Done;
        let mut track = Track::reported(true);
        let first =
            [(SEE_END, ALIVE), (Receive, READY), (SEE_END, ALIVE), (Announce, Outcome::Failed(FAULT))];
        assert_eq!(after(&mut track, None, &first), UNTOLD);
        // What cannot be looked at may have ended.
        let mut unseen = track;
        assert_eq!(after(&mut unseen, None, &[(SEE_END, Outcome::Failed(FAULT))]), UNSEEN);
        // What has ended is never announced.
        let mut ended = track;
        assert_eq!(after(&mut ended, None, &[(SEE_END, ENDED), (Collect, Outcome::Failed(FAULT))]), UNSEEN);
        let withdrawn = [(Collect, exited(0)), (CloseSocket, done), (Step::Withdraw, done)];
        assert_eq!(after(&mut ended, None, &withdrawn), Err(Failure::Exited(0)));
        // To give up what is ready is to look.
        let told = [(SEE_END, ALIVE), (Announce, done), (SeeBarrier, Outcome::Found(false))];
        assert_eq!(after(&mut track, Some(Failure::Cancelled), &told), UNANSWERED);
        assert_eq!(after(&mut track, None, &[(SeeBarrier, Outcome::Failed(FAULT))]), UNTOLD);
        assert_eq!(after(&mut track, None, &[(SeeBarrier, Outcome::Found(true))]), Ok(Progress::Ready));
        assert_eq!(after(&mut track, None, &[]), Ok(Progress::Ready));
        // The manager cannot be told of a process that is no more.
        let gone = [
            (SEE_END, ENDED),
            (Receive, READY),
            (Collect, exited(0)),
            (CloseSocket, done),
            (Step::Withdraw, done),
        ];
        assert_eq!(after(&mut Track::reported(true), None, &gone), Err(Failure::Exited(0)));
    }

    #[test]
    fn one_that_refuses_and_stays_is_killed() {
        let mut track = Track::reported(false);
        let refused = [(SEE_END, ALIVE), (Step::Receive, REFUSED), (Step::CloseSocket, Outcome::Done)];
        assert_eq!(after(&mut track, None, &refused), Ok(Progress::Waiting));
        assert_eq!(after(&mut track, None, &[(SEE_END, ALIVE)]), Ok(Progress::Waiting));
        let killed = [
            (SEE_END, ALIVE),
            (Step::Kill, Outcome::Done),
            (SEE_DEATH, ENDED),
            (Step::Collect, KILLED),
            (Step::CloseSocket, Outcome::Done),
        ];
        let found = after(&mut track, Some(Failure::Deadline), &killed);
        assert_eq!(found, Err(Failure::Refused(REFUSAL)));
    }

    #[test]
    fn a_report_outlives_a_status_that_cannot_be_had() {
        let mut track = Track::reported(false);
        let first = [(SEE_END, ENDED), (Step::Receive, READY), (Step::Collect, Outcome::Failed(FAULT))];
        assert_eq!(after(&mut track, None, &first), UNSEEN);
        assert_eq!(track.watch(), Watch::End);
        assert!(track.is_expected() && track.is_in_flight());
        let mut other = track;
        assert_eq!(after(&mut track, None, &[(Step::Collect, exited(0))]), Ok(Progress::Ready));
        let again = [(Step::Collect, exited(0))];
        assert_eq!(after(&mut other, Some(Failure::Deadline), &again), Ok(Progress::Ready));
    }

    #[test]
    fn one_that_reports_nothing() {
        use Step::{CloseSocket, Collect, Kill, SeeTime};
        let done = Outcome::Done;
        let late = Some(Failure::Deadline);
        assert_eq!(after(&mut Track::executed(false), None, &[]), Ok(Progress::Ready));
        for (reason, script, found) in [
            (None, &[(SEE_END, ALIVE), (SeeTime, Outcome::Found(false))][..], Ok(Progress::Waiting)),
            (None, &[(SEE_END, ALIVE), (SeeTime, Outcome::Found(true))], Ok(Progress::Ready)),
            (late, &[(SEE_END, ALIVE), (SeeTime, Outcome::Found(true))], Ok(Progress::Ready)),
            (
                late,
                &[
                    (SEE_END, ALIVE),
                    (SeeTime, Outcome::Found(false)),
                    (Kill, done),
                    (SEE_DEATH, ENDED),
                    (Collect, KILLED),
                    (CloseSocket, done),
                ],
                Err(Failure::Deadline),
            ),
            (None, &[(SEE_END, ENDED), (Collect, exited(0)), (CloseSocket, done)], Err(Failure::Exited(0))),
        ] {
            assert_eq!(after(&mut Track::proving(false), reason, script), found, "{script:?}");
        }
    }

    #[test]
    fn each_state_is_watched_by_what_ends_it() {
        for (state, watch, is_expected, is_in_flight) in [
            (State::Waiting, Watch::EndAndReport, true, true),
            (State::Proving, Watch::End, true, true),
            (State::Refused, Watch::End, true, true),
            (State::Ended, Watch::End, true, true),
            (State::Announcing, Watch::End, false, true),
            (State::Confirming, Watch::Barrier, false, true),
            (State::Ready, Watch::Nothing, false, false),
            (State::Failed, Watch::Nothing, false, false),
        ] {
            let track = Track::new(state, true);
            assert_eq!(track.watch(), watch, "{state:?}");
            assert_eq!(track.is_expected(), is_expected, "{state:?}");
            assert_eq!(track.is_in_flight(), is_in_flight, "{state:?}");
            assert_eq!(track.is_ready(), state == State::Ready);
        }
    }

    #[test]
    fn an_exit_says_more_than_the_reason_to_kill() {
        let late = Some(Failure::Deadline);
        for (exit, failure, found) in [
            (Some(Exit::Signal(9)), late, Failure::Deadline),
            (None, late, Failure::Deadline),
            (Some(Exit::Status(3)), late, Failure::Exited(3)),
            (Some(Exit::Signal(11)), late, Failure::Killed(11)),
            (Some(Exit::Signal(9)), None, Failure::Killed(9)),
            (None, None, Failure::Vanished),
        ] {
            assert_eq!(verdict(exit, failure), found);
        }
    }

    #[test]
    fn words_and_times() {
        assert_eq!(Patience::None.time(), Duration::ZERO);
        assert_eq!(Patience::LastBreath.time(), Duration::from_millis(100));
        assert_eq!(Patience::Death.time(), Duration::from_secs(1));
        for (why, words) in [
            (Unsettled::Unanswered, "successor is ready, the service manager has not answered"),
            (Unsettled::Untold(FAULT), "successor is ready, the service manager does not know: "),
            (Unsettled::Unseen(FAULT), "watching the successor: "),
        ] {
            assert!(why.to_string().starts_with(words));
        }
    }
}
