//! Spawn: a second process that runs beside this one until it is ready.
//!
//! The clone shares memory and suspends the calling thread alone, as vfork does: no page table is copied,
//! however large the heap, and the error of a failing execve is there when the call returns. In the
//! predecessor nothing is duplicated; all moving of descriptors happens in the clone's copy of the table.
#![allow(unsafe_code)]

use super::image::{HandOver, become_successor, with_image};
use super::main_pid::MainPid;
use super::successor::Successor;
use super::{Parentage, Readiness, Restart};
use crate::error::{Call, Error};
use crate::launch::LaunchView;
use crate::ready;
use crate::sys::{self, Clone, Cloned};
use core::mem::MaybeUninit;
use rustix::fd::{AsFd, AsRawFd};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, WaitId, WaitIdOptions};

/// The clone's stack, in bytes: it lives in the frame of the thread that is suspended meanwhile. A spawn was
/// seen to use 3 KiB of it in a debug build and 1.4 KiB in a release build.
const STACK: usize = 16 * 1024;

/// Waits for a child whatever its exit signal; rustix has no name for it.
const WALL: WaitIdOptions = WaitIdOptions::from_bits_retain(0x4000_0000);

/// Starts the successor. If this fails, everything is as before and there is no second process.
///
/// `main_pid` is the hand-over of the main PID that this restart is part of, where there is a service manager.
pub(crate) fn spawn<'env>(
    launch: LaunchView<'_>,
    restart: &Restart<'_>,
    hand_over: HandOver<'_>,
    main_pid: Option<MainPid<'env>>,
) -> Result<Successor<'env>, Error> {
    let by_default = if main_pid.is_some() { Parentage::Sibling } else { Parentage::Child };
    let mut parentage = restart.parentage.unwrap_or(by_default);
    let pair = match restart.readiness {
        Readiness::Reported => Some(ready::pair()?),
        Readiness::Executed | Readiness::Alive(_) => None,
    };
    let mut hand_over = HandOver { readiness: pair.as_ref().map(|(_, theirs)| theirs.as_fd()), ..hand_over };
    let ends = pair.iter().flat_map(|(ours, theirs)| [ours.as_fd(), theirs.as_fd()]);
    for fd in ends.chain(main_pid.iter().flat_map(MainPid::fds)) {
        hand_over.stdio.add(fd.as_raw_fd());
    }
    let cloned = with_image(launch, restart, hand_over, |image| {
        let mask = sys::block_signals().map_err(|errno| Error::call(Call::Sigprocmask, errno))?;
        image.mask = Some(mask);
        let mut stack = [MaybeUninit::<u8>::uninit(); STACK];
        let mut clone = |what| {
            // SAFETY: all signals are blocked, and `become_successor` keeps to the rules of its room; its
            // frames take a small part of the stack.
            unsafe { sys::clone_and_run(what, &mut stack, image, become_successor) }
        };
        let cloned = match parentage {
            Parentage::Child => clone(Clone::Child),
            Parentage::Sibling => match clone(Clone::Sibling) {
                // The init process of a PID namespace, which has no siblings.
                Err(Errno::INVAL) => {
                    parentage = Parentage::Child;
                    clone(Clone::Child)
                }
                other => other,
            },
        };
        // The mask was the thread's own a moment ago; there is nothing in it to refuse.
        let _ = sys::restore_signals(mask);
        let cloned = cloned.map_err(|errno| Error::call(Call::Clone, errno))?;
        match image.outcome.take() {
            Some(error) => {
                collect(&cloned);
                Err(error)
            }
            None => Ok(cloned),
        }
    })?;
    let pid = Pid::from_raw(cloned.id).ok_or(Error::call(Call::Clone, Errno::CHILD))?;
    let pidfd = match cloned.pidfd {
        Some(pidfd) => pidfd,
        // An older kernel, or an emulator. Without a pidfd nobody could tell the successor from another
        // process, so if there is none to be had the restart has failed.
        None => match rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
            Ok(pidfd) => pidfd,
            Err(errno) => {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
                let _ = rustix::process::waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WALL);
                return Err(Error::call(Call::PidfdOpen, errno));
            }
        },
    };
    let socket = pair.map(|(ours, _)| ours);
    Ok(Successor::new(pid, pidfd, parentage, socket, restart.readiness, main_pid))
}

/// Collects a clone that ended without executing.
fn collect(cloned: &Cloned) {
    let id = || match &cloned.pidfd {
        Some(pidfd) => Some(WaitId::PidFd(pidfd.as_fd())),
        None => Pid::from_raw(cloned.id).map(WaitId::Pid),
    };
    while let Some(id) = id() {
        match rustix::process::waitid(id, WaitIdOptions::EXITED | WALL) {
            Err(Errno::INTR) => {}
            // Collected, by this or by somebody else.
            _ => return,
        }
    }
}
