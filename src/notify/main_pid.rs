//! The hand-over of the main PID: the predecessor's messages to the service manager about a restart.
//!
//! | when | message |
//! |---|---|
//! | the restart begins | `RELOADING=1`, with the time |
//! | the successor is ready | `MAINPID=`, `MAINPIDFDID=` where the kernel has it, `READY=1`; then `BARRIER=1` |
//! | the successor has failed | `READY=1`, `STATUS=restart failed:` and why |
//!
//! All messages come from the predecessor. With `NotifyAccess=main` the manager accepts messages only from the main
//! process, and with the other settings it accepts the predecessor's as well. The manager answers the barrier when it
//! has changed the main process to the successor. The predecessor may end only then: before, the manager would treat
//! its end as the end of the service.
//!
//! References: `sd_notify(3)`, `Type=notify-reload` and `NotifyAccess=` in `systemd.service(5)`.

use super::{Assignment, Notifier, barrier_pipe};
use crate::deadline::{Deadline, poll_until};
use crate::error::Error;
use crate::failure::Failure;
use crate::pidfd;
use core::time::Duration;
use rustix::event::PollFlags;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::process::Pid;

/// The predecessor's side of one restart.
#[derive(Debug)]
pub(crate) struct MainPid {
    notifier: Notifier,
    /// Becomes readable with `POLLHUP` when the manager has processed the barrier.
    ours: OwnedFd,
    /// The manager's end, until the barrier is sent.
    theirs: Option<OwnedFd>,
    announced: bool,
    verbs: &'static Verbs,
}

/// What is done about a restart that has begun. Reached through pointers for the reason that [`Notifier`] has, and handed
/// out by [`begin`] alone, which is itself one of the notifier's.
#[derive(Debug)]
struct Verbs {
    announce: fn(&mut MainPid, Pid, BorrowedFd<'_>, &mut Deadline) -> Result<(), Error>,
    is_confirmed: fn(&MainPid) -> Result<bool, Error>,
}

static VERBS: Verbs = Verbs { announce, is_confirmed };

impl MainPid {
    /// Sends the manager the new main process, and then the barrier.
    ///
    /// Waits until the earlier of `deadline` and the notifier's own deadline. When it is called again after an error,
    /// it continues where it stopped.
    pub(crate) fn announce(
        &mut self,
        pid: Pid,
        pidfd: BorrowedFd<'_>,
        deadline: &mut Deadline,
    ) -> Result<(), Error> {
        (self.verbs.announce)(self, pid, pidfd, deadline)
    }

    /// Returns whether the manager has processed the barrier.
    pub(crate) fn is_confirmed(&self) -> Result<bool, Error> {
        (self.verbs.is_confirmed)(self)
    }

    /// Returns the descriptor that becomes readable with `POLLHUP` when the manager has processed the barrier.
    pub(crate) fn barrier(&self) -> BorrowedFd<'_> {
        self.ours.as_fd()
    }

    /// Reports to the manager that the restart has failed.
    pub(crate) fn withdraw(&self, why: Failure) {
        self.notifier.report_failure(why);
    }
}

/// Tells the manager that a restart begins.
pub(super) fn begin(notifier: &Notifier) -> Result<MainPid, Error> {
    let (ours, theirs) = barrier_pipe()?;
    notifier.send(&[Assignment::Reloading])?;
    Ok(MainPid { notifier: notifier.clone(), ours, theirs: Some(theirs), announced: false, verbs: &VERBS })
}

fn announce(
    main_pid: &mut MainPid,
    pid: Pid,
    pidfd: BorrowedFd<'_>,
    deadline: &mut Deadline,
) -> Result<(), Error> {
    let mut own = main_pid.notifier.deadline();
    let deadline = own.earlier(deadline);
    if !main_pid.announced {
        let assignment = Assignment::MainPid(pid);
        let message = match pidfd::id(pidfd) {
            Some(id) => &[assignment, Assignment::MainPidfdId(id), Assignment::Ready][..],
            None => &[assignment, Assignment::Ready],
        };
        main_pid.notifier.send_by(message, &[], deadline)?;
        main_pid.announced = true;
    }
    if let Some(theirs) = &main_pid.theirs {
        // Behind a vsock there is a machine's manager, which has one main process for ever.
        if main_pid.notifier.takes_fds() {
            main_pid.notifier.send_by(&[Assignment::Barrier], &[theirs.as_fd()], deadline)?;
        }
        main_pid.theirs = None;
    }
    Ok(())
}

fn is_confirmed(main_pid: &MainPid) -> Result<bool, Error> {
    let mut at_once = Deadline::after(Duration::ZERO);
    let [found] = poll_until([(main_pid.ours.as_fd(), PollFlags::empty())], &mut at_once)?;
    Ok(!found.is_empty())
}
