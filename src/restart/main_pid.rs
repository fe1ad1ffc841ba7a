//! The hand-over of the main PID: what the predecessor tells the service manager about a restart.
//!
//! | when | message |
//! |---|---|
//! | the restart begins | `RELOADING=1`, with the time |
//! | the successor is ready | `MAINPID=`, `MAINPIDFDID=` where the kernel has it, `READY=1`; then `BARRIER=1` |
//! | it never will be | `READY=1`, `STATUS=restart failed:` and why |
//!
//! All of them come from the predecessor. With `NotifyAccess=main` the manager hears nobody else until it
//! knows of the successor, and with the other settings it hears the predecessor as well. The barrier is
//! answered when the manager has changed its mind about who is the main process: then the predecessor may
//! end, and not before, or the manager would take that for the end of the service.
//!
//! References: `sd_notify(3)`, `Type=notify-reload` and `NotifyAccess=` in `systemd.service(5)`.

use super::Failure;
use crate::deadline::{Deadline, poll_until};
use crate::error::Error;
use crate::notify::{self, Assignment, Notifier};
use crate::pidfd;
use core::time::Duration;
use rustix::event::PollFlags;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::process::Pid;

/// The predecessor's side of one restart.
#[derive(Debug)]
pub(crate) struct MainPid {
    notifier: Notifier,
    /// Hangs up when the manager has come to the barrier.
    ours: OwnedFd,
    /// The manager's end, until the barrier is sent.
    theirs: Option<OwnedFd>,
    announced: bool,
}

impl MainPid {
    /// Tells the manager that a restart begins; `None` if there is no manager.
    pub(crate) fn begin(notifier: &Notifier) -> Result<Option<Self>, Error> {
        if !notifier.is_present() {
            return Ok(None);
        }
        let (ours, theirs) = notify::barrier_pipe()?;
        notifier.send(&[Assignment::Reloading])?;
        Ok(Some(Self { notifier: notifier.clone(), ours, theirs: Some(theirs), announced: false }))
    }

    /// Tells the manager who the main process is now, by the earlier of this deadline and the notifier's own. Called
    /// again after an error, it goes on where it was.
    pub(crate) fn announce(
        &mut self,
        pid: Pid,
        pidfd: BorrowedFd<'_>,
        deadline: &mut Deadline,
    ) -> Result<(), Error> {
        let mut own = self.notifier.deadline();
        let deadline = own.earlier(deadline);
        if !self.announced {
            let main_pid = Assignment::MainPid(pid);
            let message = match pidfd::id(pidfd) {
                Some(id) => &[main_pid, Assignment::MainPidfdId(id), Assignment::Ready][..],
                None => &[main_pid, Assignment::Ready],
            };
            self.notifier.send_by(message, &[], deadline)?;
            self.announced = true;
        }
        if let Some(theirs) = &self.theirs {
            // Behind a vsock there is a machine's manager, which has one main process for ever.
            if self.notifier.takes_fds() {
                self.notifier.send_by(&[Assignment::Barrier], &[theirs.as_fd()], deadline)?;
            }
            self.theirs = None;
        }
        Ok(())
    }

    /// Whether the manager has come to it.
    pub(crate) fn is_confirmed(&self) -> Result<bool, Error> {
        let [found] =
            poll_until([(self.ours.as_fd(), PollFlags::empty())], &mut Deadline::after(Duration::ZERO))?;
        Ok(!found.is_empty())
    }

    /// The descriptor that hangs up when it has.
    pub(crate) fn barrier(&self) -> BorrowedFd<'_> {
        self.ours.as_fd()
    }

    /// Tells the manager that the restart has failed.
    pub(crate) fn withdraw(&self, why: Failure) {
        self.notifier.report_failure(why);
    }
}
