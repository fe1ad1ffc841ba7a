//! Spawn: starts a second process that runs beside this one until it is ready.
//!
//! The clone shares memory and suspends only the calling thread, as vfork does. So no page table is copied, however
//! large the heap is, and the error of a failing execve is there when the call returns. The clone runs below the
//! frames of the calling thread and has no stack of its own. A stack in a frame would be touched, and so resident, as
//! a whole. A mapped stack costs two more system calls.
//!
//! Nothing is duplicated in the predecessor: all descriptors are moved in the clone's copy of the table. If memory is
//! not shared after all, as under a user-mode emulator, the error comes through a pipe (`sys/emulator.rs`).
#![allow(unsafe_code)]

use super::child::become_successor;
use super::image::{Inheritance, Progress, with_image};
use super::progress::Patience;
use super::successor::Successor;
use super::{Parentage, Readiness, Restart};
use crate::error::{Error, Operation};
use crate::launch::LaunchView;
use crate::notify::MainPid;
use crate::pidfd::{self, Exit};
use crate::ready;
use crate::sys::{self, Cloned, Kin};
use rustix::fd::{AsFd, OwnedFd};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, WaitId, WaitIdOptions};

/// Waits for a child whose exit signal is not SIGCHLD; rustix has no name for it.
const WCLONE: WaitIdOptions = WaitIdOptions::from_bits_retain(0x8000_0000);

/// Starts the successor. If this fails, there is no second process, and nothing has changed.
///
/// `main_pid` is the hand-over of the main PID that this restart belongs to, if there is a service manager.
pub(crate) fn spawn(
    launch: LaunchView<'_>,
    restart: &Restart<'_>,
    inheritance: Inheritance<'_>,
    main_pid: Option<MainPid>,
) -> Result<Successor, Error> {
    let by_default = if main_pid.is_some() { Parentage::Sibling } else { Parentage::Child };
    let mut parentage = restart.parentage.unwrap_or(by_default);
    let pair = match restart.readiness {
        Readiness::Reported => Some(ready::pair()?),
        Readiness::Executed | Readiness::Alive(_) => None,
    };
    let inheritance =
        Inheritance { readiness: pair.as_ref().map(|(_, theirs)| theirs.as_fd()), ..inheritance };
    let cloned = with_image(launch, restart, inheritance, &mut |image| {
        let mask = sys::block_signals().map_err(|errno| Error::call(Operation::Sigprocmask, errno))?;
        image.mask = Some(mask);
        let free = image.first_free();
        let mut clone = |what| {
            // SAFETY: all signals are blocked, and `become_successor` keeps to the rules of its module. It puts
            // sockets below `free`, and parks above.
            unsafe { sys::clone_and_run(what, free, image, become_successor) }
        };
        let cloned = match parentage {
            Parentage::Child => clone(Kin::Child),
            Parentage::Sibling => match clone(Kin::Sibling) {
                // This is the init process of a PID namespace, which has no siblings.
                Err(Errno::INVAL) => {
                    parentage = Parentage::Child;
                    clone(Kin::Child)
                }
                other => other,
            },
        };
        // The mask was the thread's own a moment ago, so the kernel has nothing to refuse in it.
        let _ = sys::restore_signals(mask);
        let cloned = cloned.map_err(|errno| Error::call(Operation::Clone, errno))?;
        match (cloned.answer, collect(&cloned)) {
            (Some(error), _) => Err(error),
            (None, Some(signal)) => Err(Error::Killed { signal }),
            (None, None) if image.progress == Progress::Begun => {
                Err(Error::Killed { signal: killed_by(&cloned) })
            }
            (None, None) => Ok(cloned),
        }
    })?;
    let pid = Pid::from_raw(cloned.id).ok_or(Error::call(Operation::Clone, Errno::CHILD))?;
    let pidfd = match cloned.pidfd {
        Some(pidfd) => pidfd,
        None => open_pidfd(pid)?,
    };
    let socket = pair.map(|(ours, _)| ours);
    Ok(Successor::new(pid, pidfd, parentage, socket, restart.readiness, main_pid))
}

/// Opens the pidfd of a successor, for an old kernel or an emulator that gave none with the clone.
///
/// Without a pidfd no process could distinguish the successor from another one. So if none can be opened, the restart
/// has failed.
#[cold]
#[inline(never)]
fn open_pidfd(pid: Pid) -> Result<OwnedFd, Error> {
    rustix::process::pidfd_open(pid, PidfdFlags::empty()).map_err(|errno| {
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        while let Err(Errno::INTR) = rustix::process::waitid(WaitId::Pid(pid), WaitIdOptions::EXITED) {}
        Error::call(Operation::PidfdOpen, errno)
    })
}

/// Returns the signal that killed a clone whose parent is another process, if the parent reaps it at once and the
/// kernel reports it. Returns 0 otherwise.
#[cold]
#[inline(never)]
fn killed_by<R>(cloned: &Cloned<R>) -> i32 {
    match cloned.pidfd.as_ref().map(|pidfd| pidfd::exit(pidfd.as_fd(), Patience::LAST_BREATH)) {
        Some(Ok(Some(Exit::Signal(signal)))) => signal,
        _ => 0,
    }
}

/// Reaps a clone that ended without executing. Returns the signal that killed it, or 0 if none did.
///
/// The exit signal of the clone is 0 until it executes, and SIGCHLD afterwards. The kernel's `__WCLONE` distinguishes
/// the two, so a successor that was executed is not found here, alive or not. Only its parent can reap a sibling.
fn collect<R>(cloned: &Cloned<R>) -> Option<i32> {
    let pidfd = cloned.pidfd.as_ref().map(AsFd::as_fd);
    let pid = Pid::from_raw(cloned.id)?;
    loop {
        let id = pidfd.map_or(WaitId::Pid(pid), WaitId::PidFd);
        match rustix::process::waitid(id, WaitIdOptions::EXITED | WCLONE) {
            // The clone may have an exit status: it has memory of its own, and answered there.
            Ok(status) => return Some(status?.terminating_signal().unwrap_or(0)),
            Err(Errno::INTR) => {}
            // The clone was executed, or another process reaped it.
            Err(_) => return None,
        }
    }
}
