//! The hand-over: how a [`Net`] pays what a process owes: ready, refuse, spawn, exec.
//!
//! What is owed is in `debt`. A `Net` holds it, so that sockets and debt cannot be taken apart while a restart is under
//! way; this module makes the calls of the one for the other.

use crate::debt::Debt;
use crate::error::{Error, Operation};
use crate::failure::Failure;
use crate::launch::{Launch, LaunchView};
use crate::names;
use crate::net::Net;
use crate::notify::{Assignment, Notifier};
use crate::predecessor::Predecessor;
use crate::ready::Refusal;
use crate::restart::image::Inheritance;
use crate::restart::{Progress, Restart, Successor, exec, spawn};
use crate::slot::Slot;
use core::convert::Infallible;
use core::time::Duration;
use rustix::fd::AsFd;
use rustix::io::Errno;

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
            self.report_to_manager()?;
        }
        self.owed.debt = Debt::Paid;
        self.inherited.clear();
        Ok(())
    }

    /// Reports to the service manager, which drops what nobody claimed.
    #[cold]
    #[inline(never)]
    fn report_to_manager(&self) -> Result<(), Error> {
        let notifier = &self.owed.notifier;
        let mut deadline = notifier.deadline();
        for name in self.unwanted() {
            let unstore = [Assignment::FdStoreRemove, Assignment::FdName(name)];
            notifier.send_by(&unstore, &[], &mut deadline)?;
        }
        notifier.send_by(&[Assignment::Ready], &[], &mut deadline)?;
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
                    || names::split(self.active.view().1).any(|active| active == name.as_bytes());
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
        let successor = if self.owed.successor().is_some_and(Successor::is_in_flight) {
            self.owed.successor_mut().ok_or(Failure::NotStarted(Error::InFlight))?
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
            let main_pid = self.owed.notifier.begin_restart()?;
            let successor = spawn::spawn(launch, restart, inheritance, main_pid)
                .inspect_err(|error| self.owed.notifier.report_failure(Failure::NotStarted(*error)))?;
            self.owed.succeed(successor);
        }
        self.owed.successor_mut().ok_or(Error::call(Operation::Clone, Errno::CHILD))
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
        self.exec_from(launch.view(), restart, false)
    }

    /// [`Net::exec`] from a launch of any capacity, of which the service manager may have been told.
    #[cold]
    #[inline(never)]
    pub(crate) fn exec_from(
        &mut self,
        launch: LaunchView<'_>,
        restart: &Restart<'_>,
        is_told: bool,
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
        if is_main && !is_told && self.owed.notifier.is_present() {
            self.owed.notifier.send(&[Assignment::Reloading])?;
        }
        exec::exec(launch, restart, inheritance).inspect_err(|error| {
            if is_main {
                self.owed.notifier.report_failure(Failure::NotStarted(*error));
            }
        })
    }
}
