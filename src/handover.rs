//! The hand-over: what a process owes its predecessor and its successor, and how it pays: ready, refuse, spawn, exec.
//!
//! What is owed is a [`Debt`], which is pure: four states, of which each allows what is right in it. The descriptors that
//! belong to it stand beside it, in [`Owed`]. A [`Net`] is the sockets alone and holds an `Owed`, so that the two cannot
//! be taken apart while a restart is under way.
//!
//! | debt | means | `ready` | `refuse` | `spawn` | `exec` |
//! |---|---|---|---|---|---|
//! | none | nobody waits for a report | tells the service manager | nothing | yes | yes |
//! | a report | the predecessor waits for it | reports | reports | no | yes, and the new program owes it |
//! | paid | this process is ready, and has said so | nothing | nothing | yes | yes |
//! | refused | the predecessor serves on | an error | nothing | no | no |

use crate::error::{Error, Operation};
use crate::failure::Failure;
use crate::inherit::Adopted;
use crate::launch::{Launch, LaunchView};
use crate::net::Net;
use crate::notify::{Assignment, Notifier};
use crate::predecessor::Predecessor;
use crate::ready::{self, Refusal, Report};
use crate::restart::image::Inheritance;
use crate::restart::main_pid::MainPid;
use crate::restart::{Progress, Restart, Successor, exec, spawn};
use crate::slot::Slot;
use core::convert::Infallible;
use core::time::Duration;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;

/// What a process owes its predecessor.
#[repr(u8)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Debt {
    /// Zero, for the reason that [`Slot`] has.
    None = 0,
    Report = 1,
    Paid = 2,
    Refused = 3,
}

impl Debt {
    /// What is owed once something was inherited: a report, where there is a socket for it.
    ///
    /// A process that said that it is ready before it inherited anything spoke to nobody.
    const fn inherited(self, reports: bool, count: usize) -> Self {
        match self {
            _ if reports => Self::Report,
            Self::Paid if count == 0 => Self::Paid,
            _ => Self::None,
        }
    }

    /// Whether a successor of this process's may be started.
    ///
    /// A predecessor that may give this process up knows nothing of a successor, which would serve beside it.
    const fn allows_spawn(self) -> bool {
        matches!(self, Self::None | Self::Paid)
    }

    const fn allows_exec(self) -> bool {
        !matches!(self, Self::Refused)
    }

    /// Whether this process speaks to the service manager: its predecessor does until the report is sent.
    const fn is_main(self) -> bool {
        !matches!(self, Self::Report)
    }
}

/// What a process owes, and the descriptors that belong to it.
#[derive(Debug)]
pub(crate) struct Owed {
    debt: Debt,
    /// Whether a successor before the present one got ready.
    handed_over: bool,
    /// While the debt is a report.
    readiness: Slot<OwnedFd>,
    predecessor: Slot<Predecessor>,
    successor: Slot<Successor>,
    pub(crate) notifier: Notifier,
}

impl Owed {
    /// Nothing. All zeros but the notifier.
    pub(crate) const fn new() -> Self {
        Self {
            debt: Debt::None,
            handed_over: false,
            readiness: Slot::Empty,
            predecessor: Slot::Empty,
            successor: Slot::Empty,
            notifier: Notifier::none(),
        }
    }

    /// What came with `count` descriptors.
    pub(crate) fn begin(&mut self, adopted: Adopted, count: usize) {
        self.debt = self.debt.inherited(adopted.readiness.is_some(), count);
        self.readiness = adopted.readiness.into();
        self.predecessor = adopted.predecessor.into();
    }

    pub(crate) const fn predecessor(&self) -> Option<&Predecessor> {
        self.predecessor.as_ref()
    }

    pub(crate) fn take_predecessor(&mut self) -> Option<Predecessor> {
        self.predecessor.take()
    }

    pub(crate) const fn successor(&self) -> Option<&Successor> {
        self.successor.as_ref()
    }

    pub(crate) const fn successor_mut(&mut self) -> Option<&mut Successor> {
        self.successor.as_mut()
    }

    /// Whether a predecessor may accept beside this process: its report is owed.
    pub(crate) fn is_shared(&self) -> bool {
        self.debt == Debt::Report
    }

    /// Whether this process has said that it is ready.
    pub(crate) fn is_paid(&self) -> bool {
        self.debt == Debt::Paid
    }

    /// Whether nobody else serves, or may be about to: a successor.
    pub(crate) fn check_sole(&self) -> Result<(), Error> {
        if self.successor.as_ref().is_some_and(Successor::is_in_flight) {
            return Err(Error::InFlight);
        }
        if self.has_handed_over() { Err(Error::HandedOver) } else { Ok(()) }
    }

    fn has_handed_over(&self) -> bool {
        self.handed_over || self.successor.as_ref().is_some_and(Successor::is_ready)
    }

    /// Reports to the predecessor.
    fn report(&self, socket: BorrowedFd<'_>) -> Result<(), Error> {
        if ready::send(socket, Report::Ready)? || !self.is_given_up(socket)? {
            Ok(())
        } else {
            Err(Error::GivenUp)
        }
    }

    /// Whether the predecessor, which took no report on `socket`, has given this process up and is still there.
    fn is_given_up(&self, socket: BorrowedFd<'_>) -> Result<bool, Error> {
        match self.predecessor.as_ref() {
            Some(predecessor) if predecessor.has_exited()? => Ok(false),
            _ => ready::is_given_up(socket),
        }
    }

    pub(crate) fn refuse(&mut self, refusal: Refusal) -> Result<(), Error> {
        if let Some(socket) = self.readiness.as_ref() {
            let socket = socket.as_fd();
            let is_heard = ready::send(socket, Report::Refused(refusal))? || self.is_given_up(socket)?;
            self.debt = if is_heard { Debt::Refused } else { Debt::None };
        }
        self.readiness = Slot::Empty;
        Ok(())
    }

    /// Looks at a successor that is in flight; returns whether it has just been found ready, which nobody had noticed.
    ///
    /// # Errors
    ///
    /// - [`Error::InFlight`]: it is in flight still.
    fn settle_successor(&mut self) -> Result<bool, Error> {
        let Some(successor) = self.successor.as_mut() else { return Ok(false) };
        if !successor.is_in_flight() {
            successor.reap();
            return Ok(false);
        }
        match successor.poll() {
            Ok(Progress::Ready) => Ok(true),
            Ok(Progress::Waiting | Progress::Unsettled(_)) => Err(Error::InFlight),
            // It failed unnoticed, and was reaped.
            Err(_) => Ok(false),
        }
    }

    /// Puts a new successor in the place of the one before.
    fn succeed(&mut self, successor: Successor) {
        if let Some(before) = self.successor.take() {
            self.handed_over |= before.is_ready();
            before.reap();
        }
        self.successor = Slot::Full(successor);
    }
}

/// The hand-over, after the sockets were inherited and listened on.
impl<const N: usize> Net<N> {
    /// Reports that this process is ready. The report goes to the predecessor, or without one to the service manager.
    /// Also closes the unclaimed inherited sockets, because connections to them would never be accepted. The second call
    /// does nothing.
    ///
    /// The main process of a service also has the manager drop what it keeps under a name that nobody claimed, or it
    /// would come back with every start. See [`Net::store`].
    ///
    /// # Errors
    ///
    /// Nothing was closed.
    ///
    /// - [`Error::GivenUp`]: the predecessor does not wait for this process any more, or was told not to by
    ///   [`Net::refuse`], and serves on. Exit, and accept nothing.
    /// - [`Error::Call`]: the report could not be sent within the notifier's timeout. A predecessor that has ended is no
    ///   error, nor is one that dropped its [`Net`].
    /// - The error of [`Net::inherit`], if that failed.
    #[doc(alias = "sd_notify")]
    #[doc(alias = "READY=1")]
    pub fn ready(&mut self) -> Result<(), Error> {
        self.usable()?;
        match self.owed.debt {
            Debt::Paid => return Ok(()),
            Debt::Refused => return Err(Error::GivenUp),
            Debt::Report | Debt::None => {}
        }
        if let Some(socket) = self.owed.readiness.as_ref() {
            self.owed.report(socket.as_fd())?;
            self.owed.readiness = Slot::Empty;
        } else if self.owed.notifier.is_present() {
            let notifier = &self.owed.notifier;
            let mut deadline = notifier.deadline();
            for name in self.unwanted() {
                let unstore = [Assignment::FdStoreRemove, Assignment::FdName(name)];
                notifier.send_by(&unstore, &[], &mut deadline)?;
            }
            notifier.send_by(&[Assignment::Ready], &[], &mut deadline)?;
        }
        self.owed.debt = Debt::Paid;
        self.inherited.clear();
        Ok(())
    }

    /// The names under which something was inherited and nothing was claimed, each once.
    fn unwanted(&self) -> impl Iterator<Item = &str> {
        let table = &self.inherited;
        let slots = table.slots();
        let positions =
            (0..slots.len()).filter(|position| slots.get(*position).is_some_and(|slot| slot.fd.is_some()));
        positions.map(|position| (position, table.name(position))).filter_map(move |(position, name)| {
            // Claimed, if perhaps under another name.
            let is_claimed =
                slots.iter().enumerate().any(|(at, slot)| slot.fd.is_none() && table.name(at) == name)
                    || self.active.names().any(|active| active == name);
            let is_repeated = (0..position).any(|before| table.name(before) == name);
            (!is_claimed && !is_repeated).then_some(name)
        })
    }

    /// Reports to the predecessor, if there is one, why this process gives up. The predecessor serves on, and this
    /// process is expected to exit.
    ///
    /// # Errors
    ///
    /// - [`Error::Call`]: the report could not be sent.
    pub fn refuse(&mut self, refusal: Refusal) -> Result<(), Error> {
        self.owed.refuse(refusal)
    }

    /// Sets the service manager that [`Net::ready`], [`Net::spawn`], [`Net::exec`] and the looks at a successor speak to.
    /// By default there is [`Notifier::none`].
    ///
    /// While a successor is in flight, do not fork without exec: the child keeps the barrier pipe open, and the successor
    /// stays [`Unsettled::Unanswered`](crate::Unsettled::Unanswered) until the child exits.
    ///
    /// ```
    /// # fn main() -> Result<(), gracenet::Error> {
    /// # let launch: gracenet::Launch = unsafe { gracenet::Launch::from_libc() }?;
    /// # let mut net = gracenet::Net::<16>::new();
    /// net.set_notifier(gracenet::Notifier::from_launch(&launch)?);
    /// # Ok(())
    /// # }
    /// ```
    pub fn set_notifier(&mut self, notifier: Notifier) {
        self.owed.notifier = notifier;
    }

    /// Returns what speaks to the service manager, for what only the program knows: its status, that it stops, that it is
    /// alive.
    #[must_use]
    pub const fn notifier(&self) -> &Notifier {
        &self.owed.notifier
    }

    /// Returns the process that started this one by [`Net::spawn`]. It may drain for some time yet, or have ended:
    /// [`Predecessor::has_exited`].
    ///
    /// `None` without one. Also `None` where a seccomp filter lets nobody open pidfds, on a kernel before 6.5; and on older
    /// kernels for a predecessor that ended first.
    #[must_use]
    pub const fn predecessor(&self) -> Option<&Predecessor> {
        self.owed.predecessor()
    }

    /// Takes the predecessor out, to own it, or to drop it once it has ended.
    pub fn take_predecessor(&mut self) -> Option<Predecessor> {
        self.owed.take_predecessor()
    }

    /// Returns the successor that was started last: in flight, ready, or failed.
    #[must_use]
    pub const fn successor(&self) -> Option<&Successor> {
        self.owed.successor()
    }

    /// Returns the successor that was started last, to look at it, to wait for it, or to end it.
    pub const fn successor_mut(&mut self) -> Option<&mut Successor> {
        self.owed.successor_mut()
    }

    /// Starts the program again, as it was launched, with the active sockets: [`Net::spawn`] with the default
    /// [`Restart`].
    ///
    /// # Errors
    ///
    /// - As for [`Net::spawn`].
    ///
    /// # References
    ///
    /// - `Net.StartProcess` of Go gracenet
    #[doc(alias = "StartProcess")]
    pub fn start_process<const ARGS: usize, const VARS: usize>(
        &mut self,
        launch: &mut Launch<ARGS, VARS>,
    ) -> Result<&mut Successor, Error> {
        self.spawn(launch, &Restart::new())
    }

    /// Restarts, for a program that has nothing else to do meanwhile: [`Net::spawn`] and [`Successor::wait_ready`].
    ///
    /// With [`Progress::Ready`] the successor serves, and is the main process to the service manager: drain, and exit. With
    /// [`Progress::Unsettled`] it is in flight still: call this again, which waits for it and starts no other.
    ///
    /// # Errors
    ///
    /// - [`Failure`]: there is no successor, and everything is as before.
    pub fn hand_over<const ARGS: usize, const VARS: usize>(
        &mut self,
        launch: &mut Launch<ARGS, VARS>,
        restart: &Restart<'_>,
        timeout: Duration,
    ) -> Result<Progress, Failure> {
        let successor = if self.owed.successor.as_ref().is_some_and(Successor::is_in_flight) {
            self.owed.successor.as_mut().ok_or(Failure::NotStarted(Error::InFlight))?
        } else {
            self.spawn(launch, restart).map_err(Failure::NotStarted)?
        };
        successor.wait_ready(timeout)
    }

    /// Starts a successor: a second process with stdin, stdout, stderr, the active sockets from 3 on and the readiness
    /// socket behind them, and no other descriptor.
    ///
    /// The successor begins in the launch directory with the launch's arguments and environment, as `restart` changes
    /// them, and with the calling thread's signal mask. Signals with a handler get their default action, ignored ones
    /// stay ignored. Of 0, 1 and 2, those that are closed become `/dev/null`.
    ///
    /// This process keeps everything. While the call runs, the calling thread waits until the successor was executed;
    /// other threads do not.
    ///
    /// A successor that is in flight already is looked at first. One that is found ready is this restart, and is
    /// returned: no other is started beside it. Called again, this starts another.
    ///
    /// Where there is a service manager, it is told that the service reloads, and [`Successor::poll`] tells it how that
    /// ends; and the successor is a sibling, unless `restart` says otherwise: see
    /// [`Parentage`](crate::restart::Parentage).
    ///
    /// # Errors
    ///
    /// There is no successor, and everything is as before.
    ///
    /// - [`Error::InFlight`]: a successor is in flight already.
    /// - [`Error::NotReported`]: the predecessor waits for this process's [`Net::ready`], or was told not to.
    /// - [`Error::Untrusted`]: a privileged start does not say which program to run.
    /// - [`Error::Killed`]: a signal killed the successor on the way to the program.
    /// - [`Error::Call`]: a system call failed, here or on the way to the successor: `execve` with `ENOENT` where there is
    ///   no such program.
    /// - [`Error::RelativePath`], [`Error::NoArguments`]: the program cannot be resolved.
    /// - [`Error::Capacity`]: arguments or changes of the environment do not fit.
    /// - [`Error::InvalidChange`]: a change of the environment is not one.
    /// - The error of [`Net::inherit`], if that failed.
    ///
    /// # References
    ///
    /// - clone(2), execve(2), `sd_listen_fds(3)`
    pub fn spawn<const ARGS: usize, const VARS: usize>(
        &mut self,
        launch: &mut Launch<ARGS, VARS>,
        restart: &Restart<'_>,
    ) -> Result<&mut Successor, Error> {
        self.spawn_from(launch.view(), restart)
    }

    /// [`Net::spawn`] from a launch of any capacity.
    pub(crate) fn spawn_from(
        &mut self,
        launch: LaunchView<'_>,
        restart: &Restart<'_>,
    ) -> Result<&mut Successor, Error> {
        self.usable()?;
        if !self.owed.settle_successor()? {
            if !self.owed.debt.allows_spawn() {
                return Err(Error::NotReported);
            }
            let (active, names) = self.active.parts();
            let sources = self.sources.as_mut_view();
            let inheritance = Inheritance { active, readiness: None, sources, names };
            let main_pid = MainPid::begin(&self.owed.notifier)?;
            let successor = spawn::spawn(launch, restart, inheritance, main_pid)
                .inspect_err(|error| self.owed.notifier.report_failure(Failure::NotStarted(*error)))?;
            self.owed.succeed(successor);
        }
        self.owed.successor.as_mut().ok_or(Error::call(Operation::Clone, Errno::CHILD))
    }

    /// Replaces the program of this process, which keeps its PID. The new program gets what [`Net::spawn`] says, and no
    /// readiness socket unless this process has not reported to its predecessor yet. All threads end.
    ///
    /// The service manager, if there is one, is told that the service reloads; the new program's [`Net::ready`] tells it
    /// that this is over. A process that has not reported to its predecessor leaves both to that.
    ///
    /// For PID 1 of a container, and wherever a supervisor follows the PID. Connections that come meanwhile wait in the
    /// listeners' queues; those that were accepted end with the program.
    ///
    /// A signal with a handler is not lost in it. One that comes before the program is replaced makes this fail with
    /// `EINTR`, and its handler has run: look at what it asks for, then try again. One that the calling thread blocks
    /// waits for the new program, which gets the mask; so block what the new program must not miss, or must not meet
    /// before it has its handlers, and let it unblock them. This is so for signals to the process; one to a thread alone,
    /// by raise(3) or pthread_kill(3), ends with the thread. And it is so where all other threads block the signal: one
    /// that does not may handle it at the last moment, and what its handler notes ends with the program.
    /// [`Signals`](crate::Signals), made before a second thread exists, sees to that.
    ///
    /// # Errors
    ///
    /// Every descriptor's number and flags, the working directory, the signal mask and the environment are as before.
    ///
    /// - [`Error::Call`] with [`Errno::INTR`](rustix::io::Errno::INTR): a signal came first.
    /// - [`Error::Killed`]: a seccomp filter killed the thread that was to execute the program.
    /// - [`Error::InFlight`]: a successor is in flight.
    /// - [`Error::HandedOver`]: a successor got ready, now or before, and serves: the new program would beside it.
    /// - [`Error::NotReported`]: the predecessor was told that this process is not ready, by [`Net::refuse`].
    /// - The others of [`Net::spawn`].
    ///
    /// # References
    ///
    /// - execve(2)
    #[doc(alias = "execve")]
    pub fn exec<const ARGS: usize, const VARS: usize>(
        &mut self,
        launch: &mut Launch<ARGS, VARS>,
        restart: &Restart<'_>,
    ) -> Result<Infallible, Error> {
        self.exec_from(launch.view(), restart)
    }

    /// [`Net::exec`] from a launch of any capacity.
    pub(crate) fn exec_from(
        &mut self,
        launch: LaunchView<'_>,
        restart: &Restart<'_>,
    ) -> Result<Infallible, Error> {
        self.usable()?;
        self.owed.settle_successor()?;
        if !self.owed.debt.allows_exec() {
            return Err(Error::NotReported);
        }
        if self.owed.has_handed_over() {
            return Err(Error::HandedOver);
        }
        let (active, names) = self.active.parts();
        let readiness = self.owed.readiness.as_ref().map(AsFd::as_fd);
        let inheritance = Inheritance { active, readiness, sources: self.sources.as_mut_view(), names };
        let is_main = self.owed.debt.is_main();
        if is_main && self.owed.notifier.is_present() {
            self.owed.notifier.send(&[Assignment::Reloading])?;
        }
        exec::exec(launch, restart, inheritance).inspect_err(|error| {
            if is_main {
                self.owed.notifier.report_failure(Failure::NotStarted(*error));
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_debt_allows_what_is_right_in_it() {
        for (debt, spawn, exec, is_main) in [
            (Debt::None, true, true, true),
            (Debt::Report, false, true, false),
            (Debt::Paid, true, true, true),
            (Debt::Refused, false, false, true),
        ] {
            assert_eq!(
                (debt.allows_spawn(), debt.allows_exec(), debt.is_main()),
                (spawn, exec, is_main),
                "{debt:?}"
            );
            assert_eq!(debt.inherited(true, 0), Debt::Report, "{debt:?}");
        }
        assert_eq!(Debt::Paid.inherited(false, 0), Debt::Paid);
        assert_eq!(Debt::Paid.inherited(false, 1), Debt::None);
        assert_eq!(Debt::None.inherited(false, 1), Debt::None);
    }
}
