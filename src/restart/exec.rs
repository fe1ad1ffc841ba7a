//! Exec in place: this process runs the program anew and keeps its PID.
//!
//! The descriptors have to be on their targets before execve, and the table they move in belongs to all
//! threads, one of which may be writing to a number that is about to change. So nothing moves in it: the
//! work is done by a thread that was cloned with a table and a working directory of its own. If it reaches
//! execve, the kernel ends every other thread and gives it the process's PID; if it does not, it ends, and
//! every number, flag and directory is as before because none was touched. (The alternative, moving in place
//! and undoing it all on failure, would have shown every other thread wrong descriptors meanwhile.)
//!
//! A handler of the program's must not run in that thread, where a self-pipe's number may be another file's by
//! then. So all signals are blocked in it, but for the SIGSYS of a filter that traps, which is a part of the call;
//! and when one with a handler is waiting at the end, just before the mask has to be what the new image shall
//! have, the thread gives up, the handler runs where it should, and the caller, who alone knows what the handler
//! wrote down, decides. (That leaves the instant between the last look and execve.)
//!
//! What follows from the second table: record locks (`F_SETLK`) belong to the table and end with the old one,
//! `flock` and open-file-description locks travel. An `mq_notify` registration ends whenever a thread of the
//! process closes the queue, so a failed exec ends it too.
//!
//! The thread counts against `RLIMIT_NPROC` and `pids.max` for a moment. Three things belong to a thread, and not to
//! its process: the signal at a parent's death, which the thread is given as the calling one has it; a scheduling
//! policy with `SCHED_RESET_ON_FORK`, which ends; and the signals that wait for the calling thread alone, as those
//! of raise(3) do, which end with it. Children that were forked with a parent's death signal of their own get it
//! when the thread that forked them ends, as in any execve of a program with threads.
//!
//! A user-mode emulator refuses such a thread. There it is made as libc makes its own, and leaves what it
//! shares before anything else (`sys/emulator.rs`): the same promises hold, but for a signal that comes at the last
//! moment, which the emulator may have taken already.
#![allow(unsafe_code)]

use super::Restart;
use super::child::become_successor;
use super::image::{Image, Inheritance, with_image};
use crate::error::{Error, Operation};
use crate::launch::LaunchView;
use crate::sys::{self, Kin, Mask, Task};
use core::convert::Infallible;
use core::ffi::c_void;
use core::mem::MaybeUninit;
use rustix::mm::{MapFlags, ProtFlags};
use rustix::process::Signal;

/// The thread's stack, in bytes. Between the restoring of the signal mask and execve a handler of the
/// program's may run on it, so it is as large as a small thread's; pages that are not touched cost nothing.
const STACK: usize = 256 * 1024;

/// Executes in place; returns only if that failed, and then everything is as before.
pub(crate) fn exec(
    launch: LaunchView<'_>,
    restart: &Restart<'_>,
    inheritance: Inheritance<'_>,
) -> Result<Infallible, Error> {
    let mut stack = Stack::new()?;
    // A kernel that does not tell has not got it.
    let parent_death_signal = rustix::process::parent_process_death_signal().unwrap_or_default();
    let cloned = with_image(launch, restart, inheritance, &mut |image| {
        image.yields = true;
        image.parent_death_signal = parent_death_signal;
        let mask = sys::block_signals().map_err(|errno| Error::call(Operation::Sigprocmask, errno))?;
        image.mask = Some(mask);
        let free = image.first_free();
        // SAFETY: all signals are blocked, and `replace` keeps to the rules of a clone's body.
        let cloned = unsafe { sys::clone_and_run(Kin::Thread(stack.bytes()), free, image, replace) };
        // The mask was the thread's own a moment ago; there is nothing in it to refuse.
        let _ = sys::restore_signals(mask);
        cloned.map_err(|errno| Error::call(Operation::Clone, errno))
    })?;
    // A signal that kills one thread and not its process is a filter's (SECCOMP_RET_KILL_THREAD).
    Err(cloned.answer.unwrap_or(Error::Killed { signal: Signal::SYS.as_raw() }))
}

/// Between clone and execve. The caller goes on as soon as this thread is done with memory, which is before
/// the kernel closes its descriptors: what the caller closes then would still be open here.
fn replace(task: &Task, image: &mut Image<'_>) -> Error {
    let error = become_successor(task, image);
    // A handler must not meet what follows.
    let _ = task.set_mask(Mask::ALL);
    task.close_all();
    error
}

/// A mapping of its own, gone when dropped.
struct Stack(*mut c_void);

impl Stack {
    fn new() -> Result<Self, Error> {
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: a fresh anonymous mapping, at an address that the kernel chooses.
        let mapping = unsafe { rustix::mm::mmap_anonymous(core::ptr::null_mut(), STACK, protection, flags) };
        mapping.map(Self).map_err(|errno| Error::call(Operation::Mmap, errno))
    }

    fn bytes(&mut self) -> &mut [MaybeUninit<u8>] {
        // SAFETY: the mapping is that long, and this value's alone.
        unsafe { core::slice::from_raw_parts_mut(self.0.cast(), STACK) }
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // SAFETY: mapped by `new`, with that length; the clone that ran on it has ended.
        let _ = unsafe { rustix::mm::munmap(self.0, STACK) };
    }
}
