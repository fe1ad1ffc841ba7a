//! The successor, seen from the predecessor: whether it is ready, whether it has failed, and how.
//!
//! Everything is learned from three descriptors: the pidfd, the readiness socket and the manager's barrier. An event
//! loop can poll them beside its own. A successor that fails is reaped here before its failure is returned, so it
//! does not stay a zombie. No handler of SIGCHLD and no thread is needed.

use super::progress::{Outcome, Patience, Progress, Step, Track, Unsettled, Watch};
use super::{Parentage, Readiness};
use crate::deadline::{Deadline, poll_until};
use crate::error::{Error, Operation};
use crate::failure::Failure;
use crate::notify::MainPid;
use crate::pidfd::{self, Exit};
use crate::ready::{self, Received};
use core::time::Duration;
use rustix::event::PollFlags;
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions};

/// The process that [`Net::spawn`](crate::Net::spawn) started.
///
/// The methods in the order in which they are called:
///
/// 1. [`Successor::poll`] in an event loop, when one of [`Successor::fds`] is readable. Or [`Successor::wait_ready`]
///    in a program that has nothing else to do.
/// 2. [`Successor::kill`] ends a successor that is not wanted any more.
///
/// The [`Net`](crate::Net) holds the successor. When the `Net` is dropped, the successor goes on, and its outcome is
/// not reported to any process.
///
/// ```no_run
/// # use gracenet::{Failure, Launch, Net, Progress};
/// # fn restart(net: &mut Net<16>, launch: &mut Launch) -> Result<(), Failure> {
/// let successor = net.start_process(launch).map_err(Failure::NotStarted)?;
/// while successor.poll()? != Progress::Ready {
///     let fds: Vec<_> = successor.fds().collect();
///     // Poll these beside the listeners, until one of them is readable.
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Successor {
    pid: Pid,
    pidfd: OwnedFd,
    parentage: Parentage,
    socket: Option<OwnedFd>,
    track: Track,
    /// The time at which a successor that only has to stay alive counts as ready.
    proven: Deadline,
    main_pid: Option<MainPid>,
}

impl AsFd for Successor {
    /// Returns the pidfd, which is readable once the successor has ended.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

impl AsRawFd for Successor {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
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
        let has_manager = main_pid.is_some();
        let (track, proven) = match readiness {
            Readiness::Reported => (Track::reported(has_manager), Deadline::NEVER),
            Readiness::Executed => (Track::executed(has_manager), Deadline::NEVER),
            Readiness::Alive(time) => (Track::proving(has_manager), Deadline::after(time)),
        };
        Self { pid, pidfd, parentage, socket, track, proven, main_pid }
    }

    /// Returns how far the successor has got, without waiting for it. For an event loop: call it when one of
    /// [`Successor::fds`] is readable or becomes ready with `POLLHUP`.
    ///
    /// If there is a service manager, this call tells the manager that the successor is the main process now, or that
    /// the restart failed and why. The result is [`Progress::Ready`] once the manager has confirmed the successor.
    ///
    /// The call waits in two cases. If the successor closed the readiness socket, it waits 100 ms at most for the
    /// exit status. If the manager's socket is full, it waits no longer than the notifier's timeout.
    ///
    /// # Errors
    ///
    /// - [`Failure`]: the successor will not get ready. It has ended and was reaped.
    pub fn poll(&mut self) -> Result<Progress, Failure> {
        let mut never = Deadline::NEVER;
        self.look(&mut never)
    }

    /// Waits until the successor is ready, for `timeout` at most. A successor that has not reported by then stays in
    /// flight: wait again, or [`Successor::kill`] it.
    ///
    /// # Errors
    ///
    /// - As for [`Successor::poll`].
    pub fn wait(&mut self, timeout: Duration) -> Result<Progress, Failure> {
        self.wait_until(&mut Deadline::after(timeout))
    }

    /// Waits until the successor is ready, for `timeout` at most, and kills it if it has not reported by then.
    ///
    /// Returns [`Progress::Ready`], or [`Progress::Unsettled`] with a successor that is still in flight.
    ///
    /// # Errors
    ///
    /// - [`Failure`]: the successor is not ready and never will be. It has ended and was reaped.
    pub fn wait_ready(&mut self, timeout: Duration) -> Result<Progress, Failure> {
        let mut deadline = Deadline::after(timeout);
        let found = self.wait_until(&mut deadline)?;
        if self.track.is_expected() && found == Progress::Waiting {
            self.track.give_up(Failure::Deadline);
            return self.advance(&mut deadline);
        }
        Ok(found)
    }

    /// Kills a successor that has not reported, and reaps it. Returns whether the successor was ended.
    ///
    /// A successor that has just ended by itself is reaped too, and failed for its own reason. A successor that is
    /// known to have failed is left alone. So is a successor that is ready, even if that was not noticed yet or the
    /// service manager has not confirmed it. Call [`Successor::poll`] then.
    ///
    /// # Errors
    ///
    /// - [`Error::Call`]: the successor could not be killed; it is still in flight.
    #[cold]
    #[inline(never)]
    pub fn kill(&mut self) -> Result<bool, Error> {
        if !self.track.is_expected() {
            return Ok(false);
        }
        match self.give_up(Failure::Cancelled) {
            Ok(Progress::Unsettled(Unsettled::Unseen(error))) => Err(error),
            Ok(_) => Ok(false),
            Err(_) => Ok(true),
        }
    }

    /// Ends the successor for this reason, unless its report is there. Returns its progress after that.
    pub(crate) fn give_up(&mut self, failure: Failure) -> Result<Progress, Failure> {
        self.track.give_up(failure);
        let mut never = Deadline::NEVER;
        self.advance(&mut never)
    }

    /// Returns the successor's process ID.
    #[must_use]
    pub const fn pid(&self) -> Pid {
        self.pid
    }

    /// Returns whose child the successor is.
    #[must_use]
    pub const fn parentage(&self) -> Parentage {
        self.parentage
    }

    /// Returns the successor's pidfd, which is readable once it has ended.
    #[must_use]
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// Returns this process's end of the readiness socket. Call [`Successor::poll`] when it is readable.
    ///
    /// Returns `None` for a successor that is not expected to report.
    #[must_use]
    pub fn socket(&self) -> Option<BorrowedFd<'_>> {
        self.socket.as_ref().map(AsFd::as_fd)
    }

    /// Returns the descriptor that becomes readable with `POLLHUP` when the service manager has confirmed the
    /// successor as the main process.
    ///
    /// Returns `None` if there is no manager.
    #[must_use]
    pub fn barrier(&self) -> Option<BorrowedFd<'_>> {
        self.main_pid.as_ref().map(MainPid::barrier)
    }

    /// Returns the descriptors to poll for reading, two at most. Call [`Successor::poll`] when one of them is
    /// readable or hung up.
    ///
    /// The set changes, so fetch it again after each call. It is empty once the successor is no longer in flight.
    pub fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let fds = match self.track.watch() {
            Watch::EndAndReport => [Some(self.pidfd()), self.socket()],
            Watch::End => [Some(self.pidfd()), None],
            Watch::Barrier => [self.barrier(), None],
            Watch::Nothing => [None, None],
        };
        fds.into_iter().flatten()
    }

    /// Returns all descriptors of the successor, whether they are polled now or not.
    pub(crate) fn open_fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        [Some(self.pidfd()), self.socket(), self.barrier()].into_iter().flatten()
    }

    /// Returns whether the outcome is still open. A successor that is ready counts as open until the service manager
    /// has confirmed it.
    #[must_use]
    pub const fn is_in_flight(&self) -> bool {
        self.track.is_in_flight()
    }

    /// Returns whether the successor was seen to be ready, and confirmed by the service manager if there is one.
    #[must_use]
    pub const fn is_ready(&self) -> bool {
        self.track.is_ready()
    }

    fn wait_until(&mut self, deadline: &mut Deadline) -> Result<Progress, Failure> {
        loop {
            let found = self.look(deadline)?;
            let is_pending = matches!(found, Progress::Waiting | Progress::Unsettled(Unsettled::Unanswered));
            if !is_pending || deadline.has_passed() {
                return Ok(found);
            }
            let shown = match self.track.watch() {
                Watch::Barrier => match &self.main_pid {
                    Some(main_pid) => {
                        poll_until([(main_pid.barrier(), PollFlags::empty())], deadline).map(drop)
                    }
                    None => Ok(()),
                },
                watch => {
                    let pidfd = (self.pidfd.as_fd(), PollFlags::IN);
                    match (watch, &self.socket) {
                        (Watch::EndAndReport, Some(socket)) => {
                            poll_until([pidfd, (socket.as_fd(), PollFlags::IN)], deadline).map(drop)
                        }
                        _ => poll_until([pidfd], self.proven.earlier(deadline)).map(drop),
                    }
                }
            };
            if let Err(error) = shown {
                return Ok(Progress::Unsettled(Unsettled::Unseen(error)));
            }
        }
    }

    fn look(&mut self, deadline: &mut Deadline) -> Result<Progress, Failure> {
        if !self.track.is_in_flight() {
            self.reap();
        }
        self.track.look();
        self.advance(deadline)
    }

    /// Does the steps of the machine until there is none left. `deadline` is for the messages to the manager.
    fn advance(&mut self, deadline: &mut Deadline) -> Result<Progress, Failure> {
        loop {
            let outcome = match self.track.step() {
                Step::Rest => return self.track.progress(),
                Step::SeeEnd(patience) => found(self.has_ended(patience)),
                Step::SeeTime => Outcome::Found(self.proven.has_passed()),
                Step::Receive => self.receive(),
                Step::Announce => self.announce(deadline),
                Step::SeeBarrier => found(self.main_pid.as_ref().map_or(Ok(true), MainPid::is_confirmed)),
                step => self.take_rare(step),
            };
            self.track.take(outcome);
        }
    }

    /// Does a step of a successor that fails.
    #[cold]
    #[inline(never)]
    fn take_rare(&mut self, step: Step) -> Outcome {
        match step {
            Step::RefuseReports => match &self.socket {
                Some(socket) => done(ready::refuse_reports(socket.as_fd())),
                None => Outcome::Done,
            },
            Step::CloseSocket => {
                if let Some(socket) = self.socket.take() {
                    ready::give_up(socket.as_fd());
                }
                Outcome::Done
            }
            Step::Kill => done(self.send_kill()),
            Step::Collect => self.collect().map_or_else(Outcome::Failed, Outcome::Exited),
            Step::Withdraw => {
                if let Some(main_pid) = self.main_pid.take() {
                    main_pid.withdraw(self.track.failure());
                }
                Outcome::Done
            }
            _ => Outcome::Done,
        }
    }

    fn receive(&self) -> Outcome {
        match &self.socket {
            Some(socket) => ready::receive(socket.as_fd()).map_or_else(Outcome::Failed, Outcome::Received),
            None => Outcome::Received(Received::Nothing),
        }
    }

    #[cold]
    #[inline(never)]
    fn announce(&mut self, deadline: &mut Deadline) -> Outcome {
        match &mut self.main_pid {
            Some(main_pid) => done(main_pid.announce(self.pid, self.pidfd.as_fd(), deadline)),
            None => Outcome::Done,
        }
    }

    /// Reaps a successor that is no longer in flight and has ended since, so that it does not stay a zombie.
    pub(crate) fn reap(&self) {
        if !self.is_in_flight() && self.parentage == Parentage::Child {
            let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
            // If the successor has failed, it was usually reaped before.
            let _ = rustix::process::waitid(WaitId::PidFd(self.pidfd.as_fd()), options);
        }
    }

    fn has_ended(&self, patience: Patience) -> Result<bool, Error> {
        let mut deadline = Deadline::after(patience.time());
        let [found] = poll_until([(self.pidfd.as_fd(), PollFlags::IN)], &mut deadline)?;
        Ok(!found.is_empty())
    }

    fn send_kill(&self) -> Result<(), Error> {
        let killed = match rustix::process::pidfd_send_signal(&self.pidfd, Signal::KILL) {
            // The error comes from a seccomp filter. No other process gets the number of a child before it is reaped,
            // which happens here.
            Err(Errno::NOSYS | Errno::PERM) if self.parentage == Parentage::Child => {
                rustix::process::kill_process(self.pid, Signal::KILL)
            }
            other => other,
        };
        match killed {
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            Err(errno) => Err(Error::call_on(Operation::Kill, self.pidfd.as_raw_fd(), errno)),
        }
    }

    fn collect(&self) -> Result<Option<Exit>, Error> {
        match self.parentage {
            Parentage::Child => self.wait_for_child(),
            Parentage::Sibling => pidfd::exit(self.pidfd.as_fd(), Patience::LAST_BREATH),
        }
    }

    #[cold]
    #[inline(never)]
    fn wait_for_child(&self) -> Result<Option<Exit>, Error> {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
        for _ in 0..Patience::LAST_BREATH.as_millis() {
            match rustix::process::waitid(WaitId::PidFd(self.pidfd.as_fd()), options) {
                Ok(Some(status)) => {
                    return Ok(match status.exit_status() {
                        Some(status) => Some(Exit::Status(status)),
                        None => status.terminating_signal().map(Exit::Signal),
                    });
                }
                // A tracer reaps it first, and no descriptor becomes readable then.
                Ok(None) => {
                    let mut moment = Deadline::after(Duration::from_millis(1));
                    poll_until([(self.pidfd.as_fd(), PollFlags::empty())], &mut moment)?;
                }
                Err(Errno::INTR) => {}
                // Another waiter was first.
                Err(Errno::CHILD) => return pidfd::exit(self.pidfd.as_fd(), Patience::LAST_BREATH),
                Err(errno) => return Err(Error::call_on(Operation::Waitid, self.pidfd.as_raw_fd(), errno)),
            }
        }
        Ok(None)
    }
}

fn found(found: Result<bool, Error>) -> Outcome {
    found.map_or_else(Outcome::Failed, Outcome::Found)
}

fn done(done: Result<(), Error>) -> Outcome {
    match done {
        Ok(()) => Outcome::Done,
        Err(error) => Outcome::Failed(error),
    }
}
