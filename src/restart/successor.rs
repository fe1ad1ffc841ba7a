//! The successor, seen from the predecessor: is it ready, has it failed, and how.
//!
//! Everything is learned from two descriptors, the pidfd and the readiness socket, which an event loop can
//! poll beside its own. A successor that fails is collected here, before its failure is told, so none is
//! left as a zombie; no handler of SIGCHLD and no thread is needed.

use super::main_pid::MainPid;
use super::{Parentage, Readiness};
use crate::deadline::{Deadline, poll_until};
use crate::error::{Error, Operation};
use crate::failure::Failure;
use crate::pidfd::{self, Exit};
use crate::ready::{self, Received, Refusal, Report};
use core::time::Duration;
use rustix::event::PollFlags;
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions};

/// How long a successor that closed its end may take to end: one that exits closes its descriptors a moment
/// before its status can be had.
pub(super) const LAST_BREATH: Duration = Duration::from_millis(100);

/// How long one that was killed may take to end, before it is left to [`Successor::reap`].
const DEATH: Duration = Duration::from_secs(1);

/// The process that [`Net::spawn`](crate::Net::spawn) started. The [`Net`](crate::Net) keeps it; when that is
/// dropped the process goes on, and nobody learns what becomes of it.
#[derive(Debug)]
pub struct Successor {
    pid: Pid,
    pidfd: OwnedFd,
    parentage: Parentage,
    socket: Option<OwnedFd>,
    state: State,
    main_pid: Option<MainPid>,
}

impl AsFd for Successor {
    /// The pidfd: readable once it has ended.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

impl AsRawFd for Successor {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// Waits for the report.
    Waiting,
    /// Waits for this moment, alive.
    Proving(Deadline),
    /// Gave up, and has not ended yet.
    Refused(Refusal),
    /// Ready, which the service manager has not been told.
    Announcing,
    /// Ready, and the manager has been told; it has not said that it heard.
    Confirming,
    Ready,
    Failed(Failure),
}

impl Successor {
    pub(crate) fn new(
        pid: Pid,
        pidfd: OwnedFd,
        parentage: Parentage,
        socket: Option<OwnedFd>,
        readiness: Readiness,
        main_pid: Option<MainPid>,
    ) -> Self {
        let state = match (readiness, &main_pid) {
            (Readiness::Reported, _) => State::Waiting,
            (Readiness::Executed, None) => State::Ready,
            (Readiness::Executed, Some(_)) => State::Announcing,
            (Readiness::Alive(time), _) => State::Proving(Deadline::after(time)),
        };
        Self { pid, pidfd, parentage, socket, state, main_pid }
    }

    /// Its process ID.
    #[must_use]
    pub const fn pid(&self) -> Pid {
        self.pid
    }

    /// Whose child it is.
    #[must_use]
    pub const fn parentage(&self) -> Parentage {
        self.parentage
    }

    /// Its pidfd: readable once it has ended.
    #[must_use]
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// This process's end of the readiness socket: readable once there is something to learn from
    /// [`Successor::poll`]. `None` for a successor that is not expected to report.
    #[must_use]
    pub fn socket(&self) -> Option<BorrowedFd<'_>> {
        self.socket.as_ref().map(AsFd::as_fd)
    }

    /// What hangs up when the service manager has heard that the successor is the main process now. `None`
    /// where there is no manager.
    #[must_use]
    pub fn barrier(&self) -> Option<BorrowedFd<'_>> {
        self.main_pid.as_ref().map(MainPid::barrier)
    }

    /// What an event loop polls, for reading, to know when to call [`Successor::poll`]: of the pidfd, the readiness
    /// socket and the manager's barrier those that have something to tell yet. What has told all shows for ever, so
    /// ask again after each [`Successor::poll`]; of one that is not in flight there is nothing left.
    pub fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let fds = match self.state {
            State::Waiting => [Some(self.pidfd()), self.socket()],
            State::Proving(_) | State::Refused(_) | State::Announcing => [Some(self.pidfd()), None],
            // The manager has been told, and speaks of a successor that ends, too.
            State::Confirming => [self.barrier(), None],
            State::Ready | State::Failed(_) => [None, None],
        };
        fds.into_iter().flatten()
    }

    /// Whether it is neither ready, with the service manager knowing it, nor known to have failed.
    #[must_use]
    pub const fn is_in_flight(&self) -> bool {
        self.is_expected() || matches!(self.state, State::Announcing | State::Confirming)
    }

    /// Whether it has neither got ready nor failed.
    const fn is_expected(&self) -> bool {
        matches!(self.state, State::Waiting | State::Proving(_) | State::Refused(_))
    }

    /// Whether it was seen to be ready, and the service manager, where there is one, knows it.
    #[must_use]
    pub const fn is_ready(&self) -> bool {
        matches!(self.state, State::Ready)
    }

    /// Looks, without waiting, whether it is ready; `Ok(false)` if that is not known yet. For an event loop:
    /// call it when one of [`Successor::fds`] is readable or hangs up. (It waits for a moment where a successor
    /// closed the readiness socket, for its exit status; and for the service manager where its socket is full,
    /// no longer than the notifier's timeout.)
    ///
    /// Where there is a service manager, ready means that it knows: this tells it that the successor is the
    /// main process now, or that there is none and why.
    ///
    /// # Errors
    ///
    /// - [`Failure`]: it will not get ready. It was collected, but for [`Failure::Error`].
    /// - [`Failure::Manager`]: it is ready, and the manager could not be told.
    pub fn poll(&mut self) -> Result<bool, Failure> {
        let mut never = Deadline::NEVER;
        self.look(&mut never)
    }

    /// The same, with a deadline for what it says to the service manager.
    fn look(&mut self, deadline: &mut Deadline) -> Result<bool, Failure> {
        match self.state {
            State::Ready => {
                self.reap();
                return Ok(true);
            }
            State::Failed(failure) => {
                self.reap();
                return Err(failure);
            }
            State::Announcing | State::Confirming => return self.announce(deadline),
            State::Proving(proven) => {
                if self.has_ended(Duration::ZERO)? {
                    return Err(self.collect(None));
                }
                if !proven.has_passed() {
                    return Ok(false);
                }
                self.state = State::Announcing;
                return self.announce(deadline);
            }
            State::Waiting | State::Refused(_) => {}
        }
        // Asked before the report is looked for, which is there, if ever, when it has ended.
        let ended = self.has_ended(Duration::ZERO)?;
        if let (State::Waiting, Some(socket)) = (self.state, &self.socket) {
            match ready::receive(socket.as_fd())? {
                Received::Report(Report::Ready) if ended => return self.settle_early_end(),
                Received::Report(Report::Ready) => {
                    self.state = State::Announcing;
                    return self.announce(deadline);
                }
                Received::Report(Report::Refused(reason)) => self.refused(reason),
                Received::Closed => {
                    let failure = (!self.has_ended(LAST_BREATH)?).then_some(Failure::Closed);
                    return Err(self.end(failure));
                }
                Received::Nothing => {}
            }
        }
        if ended {
            return Err(self.collect(None));
        }
        Ok(false)
    }

    /// It said why it gives up, and has nothing more to say: what is left of it is the pidfd.
    #[cold]
    #[inline(never)]
    fn refused(&mut self, reason: Refusal) {
        self.state = State::Refused(reason);
        self.close_socket();
    }

    /// Closes this end of the readiness socket, with a word to whoever still has the other.
    #[cold]
    #[inline(never)]
    fn close_socket(&mut self) {
        if let Some(socket) = self.socket.take() {
            ready::give_up(socket.as_fd());
        }
    }

    /// It reported and has ended already. With status 0 it may have handed over to a successor of its own, or
    /// had nothing else to do: then it was ready. If it crashed, or the service manager would have to be told
    /// of a process that is no more, it has failed.
    #[cold]
    #[inline(never)]
    fn settle_early_end(&mut self) -> Result<bool, Failure> {
        let has_manager = self.main_pid.is_some();
        match self.collect(None) {
            Failure::Exited(0) if !has_manager => {
                self.state = State::Ready;
                Ok(true)
            }
            failure => Err(failure),
        }
    }

    /// Tells the service manager, if there is one, who the main process is now; whether it has heard.
    fn announce(&mut self, deadline: &mut Deadline) -> Result<bool, Failure> {
        if self.main_pid.is_some() && !self.announce_main_pid(deadline)? {
            return Ok(false);
        }
        self.state = State::Ready;
        Ok(true)
    }

    #[cold]
    #[inline(never)]
    fn announce_main_pid(&mut self, deadline: &mut Deadline) -> Result<bool, Failure> {
        if let State::Announcing = self.state {
            if self.has_ended(Duration::ZERO)? {
                // The manager knows nothing of it yet, or of one that has ended: this process stays the main one.
                return Err(self.collect(None));
            }
            if let Some(main_pid) = &mut self.main_pid {
                main_pid.announce(self.pid, self.pidfd.as_fd(), deadline).map_err(Failure::Manager)?;
            }
            self.state = State::Confirming;
        }
        Ok(self.main_pid.as_ref().map_or(Ok(true), MainPid::is_confirmed)?)
    }

    /// Waits until it is ready, for `timeout` at most. One that is not is killed: whatever the outcome, no
    /// successor is in flight afterwards, but for [`Failure::Manager`] and [`Failure::Error`].
    ///
    /// # Errors
    ///
    /// - [`Failure`]: it is not ready and never will be.
    /// - [`Failure::Manager`]: it is ready, and the service manager does not know yet.
    pub fn wait_ready(&mut self, timeout: Duration) -> Result<(), Failure> {
        let mut deadline = Deadline::after(timeout);
        if self.wait_until(&mut deadline)? {
            return Ok(());
        }
        if self.is_expected() {
            self.give_up(Failure::Deadline)?;
        }
        if self.announce(&mut deadline)? {
            return Ok(());
        }
        Err(Failure::Manager(Error::call(Operation::Barrier, Errno::TIMEDOUT)))
    }

    /// Waits until it is ready, for `timeout` at most, and tells whether it is. One that is not stays in
    /// flight: wait again, or [`Successor::kill`] it.
    ///
    /// # Errors
    ///
    /// - As for [`Successor::poll`].
    pub fn wait(&mut self, timeout: Duration) -> Result<bool, Failure> {
        self.wait_until(&mut Deadline::after(timeout))
    }

    fn wait_until(&mut self, deadline: &mut Deadline) -> Result<bool, Failure> {
        loop {
            if self.look(deadline)? {
                return Ok(true);
            }
            if deadline.has_passed() {
                return Ok(false);
            }
            let pidfd = (self.pidfd.as_fd(), PollFlags::IN);
            match (&mut self.state, &self.socket, &self.main_pid) {
                (State::Waiting, Some(socket), _) => {
                    poll_until([pidfd, (socket.as_fd(), PollFlags::IN)], deadline).map(drop)?;
                }
                (State::Proving(proven), ..) => poll_until([pidfd], proven.earlier(deadline)).map(drop)?,
                (State::Confirming, _, Some(main_pid)) => {
                    poll_until([(main_pid.barrier(), PollFlags::empty())], deadline).map(drop)?;
                }
                _ => poll_until([pidfd], deadline).map(drop)?,
            }
        }
    }

    /// Kills a successor that is in flight, and collects it; tells whether it did. (One that has just ended by itself is
    /// collected, and failed for its own reason.) One that is known to have failed is left alone, and so is one that is
    /// ready, also where nobody has looked yet or the service manager does not know: look with [`Successor::poll`].
    ///
    /// # Errors
    ///
    /// - [`Error::Call`]: it could not be killed; it is still in flight.
    #[cold]
    #[inline(never)]
    pub fn kill(&mut self) -> Result<bool, Error> {
        if !self.is_expected() {
            return Ok(false);
        }
        match self.give_up(Failure::Cancelled) {
            Ok(()) => Ok(false),
            Err(Failure::Error(error)) => Err(error),
            Err(_) => Ok(true),
        }
    }

    /// Collects a successor that is not in flight any more and has ended since, so that it does not stay a zombie.
    pub(crate) fn reap(&self) {
        if !self.is_in_flight() && self.parentage == Parentage::Child {
            let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
            // Collected before, as a rule, if it has failed.
            let _ = rustix::process::waitid(WaitId::PidFd(self.pidfd.as_fd()), options);
        }
    }

    fn has_ended(&self, patience: Duration) -> Result<bool, Error> {
        let [found] = poll_until([(self.pidfd.as_fd(), PollFlags::IN)], &mut Deadline::after(patience))?;
        Ok(!found.is_empty())
    }

    /// Ends it, for this reason, unless its report is there. Whether it is cannot change any more: the socket
    /// takes no report from here on, and a successor whose report is not taken does not serve.
    #[cold]
    #[inline(never)]
    fn give_up(&mut self, failure: Failure) -> Result<(), Failure> {
        if let (State::Waiting, Some(socket)) = (self.state, &self.socket) {
            ready::refuse_reports(socket.as_fd())?;
            match ready::receive(socket.as_fd())? {
                Received::Report(Report::Ready) => {
                    self.state = State::Announcing;
                    return Ok(());
                }
                Received::Report(Report::Refused(reason)) => self.refused(reason),
                Received::Closed | Received::Nothing => {}
            }
        }
        Err(self.end(Some(failure)))
    }

    /// Kills it if it still runs, collects it, and settles on a failure: the one given, or what its status
    /// says.
    #[cold]
    #[inline(never)]
    fn end(&mut self, failure: Option<Failure>) -> Failure {
        match self.has_ended(Duration::ZERO) {
            Ok(true) => return self.collect(failure),
            Ok(false) => {}
            Err(error) => return Failure::Error(error),
        }
        let killed = match rustix::process::pidfd_send_signal(&self.pidfd, Signal::KILL) {
            // A filter. Nobody else gets the number of a child before it is collected, which happens here.
            Err(Errno::NOSYS | Errno::PERM) if self.parentage == Parentage::Child => {
                rustix::process::kill_process(self.pid, Signal::KILL)
            }
            other => other,
        };
        match killed {
            Ok(()) | Err(Errno::SRCH) => {}
            Err(errno) => {
                return Failure::Error(Error::call_on(Operation::Kill, self.pidfd.as_raw_fd(), errno));
            }
        }
        match self.has_ended(DEATH) {
            Ok(true) => self.collect(failure),
            // The kernel does something for it that no signal interrupts.
            Ok(false) => self.settle(failure.unwrap_or(Failure::Vanished)),
            Err(error) => Failure::Error(error),
        }
    }

    #[cold]
    #[inline(never)]
    fn collect(&mut self, failure: Option<Failure>) -> Failure {
        let exit = match self.parentage {
            Parentage::Child => self.wait_for_child(),
            Parentage::Sibling => pidfd::exit(self.pidfd.as_fd(), LAST_BREATH),
        };
        let exit = match exit {
            Ok(exit) => exit,
            Err(error) => return Failure::Error(error),
        };
        const KILL: i32 = Signal::KILL.as_raw();
        self.settle(match (exit, failure) {
            // Which is what it was killed for.
            (Some(Exit::Signal(KILL)) | None, Some(failure)) => failure,
            // It ended by itself, if at the last moment.
            (Some(Exit::Status(status)), _) => Failure::Exited(status),
            (Some(Exit::Signal(signal)), _) => Failure::Killed(signal),
            (None, None) => Failure::Vanished,
        })
    }

    /// It has failed, for this reason if it gave none itself.
    #[cold]
    #[inline(never)]
    fn settle(&mut self, failure: Failure) -> Failure {
        let failure =
            if let State::Refused(reason) = self.state { Failure::Refused(reason) } else { failure };
        self.state = State::Failed(failure);
        self.close_socket();
        if let Some(main_pid) = self.main_pid.take() {
            main_pid.withdraw(failure);
        }
        failure
    }

    #[cold]
    #[inline(never)]
    fn wait_for_child(&self) -> Result<Option<Exit>, Error> {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
        for _ in 0..LAST_BREATH.as_millis() {
            match rustix::process::waitid(WaitId::PidFd(self.pidfd.as_fd()), options) {
                Ok(Some(status)) => {
                    return Ok(match status.exit_status() {
                        Some(status) => Some(Exit::Status(status)),
                        None => status.terminating_signal().map(Exit::Signal),
                    });
                }
                // A tracer collects it first, and no descriptor shows when.
                Ok(None) => {
                    let mut moment = Deadline::after(Duration::from_millis(1));
                    poll_until([(self.pidfd.as_fd(), PollFlags::empty())], &mut moment)?;
                }
                Err(Errno::INTR) => {}
                // Somebody else was first.
                Err(Errno::CHILD) => return pidfd::exit(self.pidfd.as_fd(), LAST_BREATH),
                Err(errno) => return Err(Error::call_on(Operation::Waitid, self.pidfd.as_raw_fd(), errno)),
            }
        }
        Ok(None)
    }
}
