//! The successor, seen from the predecessor: is it ready, has it failed, and how.
//!
//! Everything is learned from two descriptors, the pidfd and the readiness socket, which an event loop can
//! poll beside its own. A successor that fails is collected here, before its failure is told, so none is
//! left as a zombie; no handler of SIGCHLD and no thread is needed.

use super::Readiness;
use crate::error::{Call, Error};
use crate::ready::{self, Deadline, Reason, Received, Report};
use core::fmt;
use core::time::Duration;
use rustix::event::PollFlags;
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions};

/// How long a successor that closed its end may take to end: one that exits closes its descriptors a moment
/// before its status can be had.
const LAST_BREATH: Duration = Duration::from_millis(100);

/// Why a successor did not get ready. Whatever the reason, it has ended and was collected, but for
/// [`Failure::Error`]; the predecessor has everything it had before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Failure {
    /// It exited with this status.
    Exited(i32),
    /// It was killed by this signal.
    Killed(i32),
    /// It ended, and somebody else collected its status: a `wait` of this program's for any child, or an
    /// ignored SIGCHLD.
    Vanished,
    /// It closed the readiness socket, or wrote something that is no report, and was killed.
    Closed,
    /// It gave up, for this reason.
    Refused(Reason),
    /// It was not ready at the deadline, and was killed.
    Deadline,
    /// It was killed by [`Successor::kill`].
    Cancelled,
    /// Watching it failed. It is still in flight.
    Error(Error),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(status) => write!(f, "successor exited with status {status} before it was ready"),
            Self::Killed(signal) => write!(f, "successor was killed by signal {signal} before it was ready"),
            Self::Vanished => f.write_str("successor ended before it was ready, its status is unknown"),
            Self::Closed => f.write_str("successor closed the readiness socket without a report"),
            Self::Refused(reason) => write!(f, "successor gave up: {reason}"),
            Self::Deadline => f.write_str("successor was not ready at the deadline"),
            Self::Cancelled => f.write_str("successor was killed before it was ready"),
            Self::Error(error) => write!(f, "watching the successor: {error}"),
        }
    }
}

impl core::error::Error for Failure {}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

/// The process that [`Net::spawn`](crate::Net::spawn) started. The [`Net`](crate::Net) keeps it.
#[derive(Debug)]
pub struct Successor {
    pid: Pid,
    pidfd: OwnedFd,
    socket: Option<OwnedFd>,
    state: State,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// Waits for the report.
    Waiting,
    /// Waits for this moment, alive.
    Proving(Deadline),
    /// Gave up, and has not ended yet.
    Refused(Reason),
    Ready,
    Failed(Failure),
}

impl Successor {
    pub(crate) fn new(pid: Pid, pidfd: OwnedFd, socket: Option<OwnedFd>, readiness: Readiness) -> Self {
        let state = match readiness {
            Readiness::Reported => State::Waiting,
            Readiness::Executed => State::Ready,
            Readiness::Alive(time) => State::Proving(Deadline::after(time)),
        };
        Self { pid, pidfd, socket, state }
    }

    /// Its process ID.
    #[must_use]
    pub const fn pid(&self) -> Pid {
        self.pid
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

    /// Whether it is neither ready nor known to have failed.
    #[must_use]
    pub const fn is_in_flight(&self) -> bool {
        matches!(self.state, State::Waiting | State::Proving(_) | State::Refused(_))
    }

    /// Whether it was seen to be ready.
    #[must_use]
    pub const fn is_ready(&self) -> bool {
        matches!(self.state, State::Ready)
    }

    /// Looks, without waiting, whether it is ready; `Ok(false)` if that is not known yet. For an event loop:
    /// call it when one of the two descriptors is readable. (It waits for a moment where a successor closed
    /// the readiness socket, for its exit status.)
    ///
    /// # Errors
    ///
    /// - [`Failure`]: it will not get ready. It was collected, but for [`Failure::Error`].
    pub fn poll(&mut self) -> Result<bool, Failure> {
        match self.state {
            State::Ready => return Ok(true),
            State::Failed(failure) => return Err(failure),
            State::Proving(deadline) => {
                if self.has_ended(Duration::ZERO)? {
                    return Err(self.collect(None));
                }
                if deadline.has_passed() {
                    self.state = State::Ready;
                }
                return Ok(self.is_ready());
            }
            State::Waiting | State::Refused(_) => {}
        }
        // Asked before the report is looked for: one that reported and then ended was ready.
        let ended = self.has_ended(Duration::ZERO)?;
        if let (State::Waiting, Some(socket)) = (self.state, &self.socket) {
            match ready::receive(socket.as_fd())? {
                Received::Report(Report::Ready) => {
                    self.state = State::Ready;
                    return Ok(true);
                }
                Received::Report(Report::Refused(reason)) => self.state = State::Refused(reason),
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

    /// Waits until it is ready, for `timeout` at most. One that is not is killed: whatever the outcome, no
    /// successor is in flight afterwards, but for [`Failure::Error`].
    ///
    /// # Errors
    ///
    /// - [`Failure`]: it is not ready and never will be.
    pub fn wait_ready(&mut self, timeout: Duration) -> Result<(), Failure> {
        if self.wait(timeout)? {
            return Ok(());
        }
        Err(self.end(Some(Failure::Deadline)))
    }

    /// Waits until it is ready, for `timeout` at most, and tells whether it is. One that is not stays in
    /// flight: wait again, or [`Successor::kill`] it.
    ///
    /// # Errors
    ///
    /// - [`Failure`]: it is not ready and never will be.
    pub fn wait(&mut self, timeout: Duration) -> Result<bool, Failure> {
        let deadline = Deadline::after(timeout);
        loop {
            if self.poll()? {
                return Ok(true);
            }
            if deadline.has_passed() {
                return Ok(false);
            }
            let pidfd = (self.pidfd.as_fd(), PollFlags::IN);
            match (self.state, &self.socket) {
                (State::Waiting, Some(socket)) => {
                    ready::poll_until([pidfd, (socket.as_fd(), PollFlags::IN)], &deadline).map(drop)?;
                }
                (State::Proving(proven), _) => {
                    ready::poll_until([pidfd], &deadline.earlier(proven)).map(drop)?;
                }
                _ => ready::poll_until([pidfd], &deadline).map(drop)?,
            }
        }
    }

    /// Kills a successor that is in flight, and collects it. One that is ready or has failed is left alone.
    ///
    /// # Errors
    ///
    /// - [`Error::Call`]: it could not be killed; it is still in flight.
    pub fn kill(&mut self) -> Result<(), Error> {
        if !self.is_in_flight() {
            return Ok(());
        }
        match self.end(Some(Failure::Cancelled)) {
            Failure::Error(error) => Err(error),
            _ => Ok(()),
        }
    }

    /// Collects a successor that was ready and has ended since, so that it does not stay a zombie.
    pub(crate) fn reap(&self) {
        if self.is_ready() {
            let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
            // Somebody else's wait may have been first.
            let _ = rustix::process::waitid(WaitId::PidFd(self.pidfd.as_fd()), options);
        }
    }

    fn has_ended(&self, patience: Duration) -> Result<bool, Error> {
        let [found] = ready::poll_until([(self.pidfd.as_fd(), PollFlags::IN)], &Deadline::after(patience))?;
        Ok(!found.is_empty())
    }

    /// Kills it if it still runs, collects it, and settles on a failure: the one given, or what its status
    /// says.
    fn end(&mut self, failure: Option<Failure>) -> Failure {
        match rustix::process::pidfd_send_signal(&self.pidfd, Signal::KILL) {
            Ok(()) | Err(Errno::SRCH) => self.collect(failure),
            Err(errno) => Failure::Error(Error::call_on(Call::Kill, self.pidfd.as_raw_fd(), errno)),
        }
    }

    fn collect(&mut self, failure: Option<Failure>) -> Failure {
        let status = loop {
            match rustix::process::waitid(WaitId::PidFd(self.pidfd.as_fd()), WaitIdOptions::EXITED) {
                Ok(status) => break status,
                Err(Errno::INTR) => {}
                Err(Errno::CHILD) => break None,
                Err(errno) => {
                    return Failure::Error(Error::call_on(Call::Waitid, self.pidfd.as_raw_fd(), errno));
                }
            }
        };
        let failure = match (self.state, failure) {
            (State::Refused(reason), _) => Failure::Refused(reason),
            (_, Some(failure)) => failure,
            (_, None) => match status {
                Some(status) => match (status.exit_status(), status.terminating_signal()) {
                    (Some(status), _) => Failure::Exited(status),
                    (None, Some(signal)) => Failure::Killed(signal),
                    (None, None) => Failure::Vanished,
                },
                None => Failure::Vanished,
            },
        };
        self.state = State::Failed(failure);
        self.socket = None;
        failure
    }
}
