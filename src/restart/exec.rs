//! Exec in place: this process runs the program anew and keeps its PID.
//!
//! The descriptors have to be on their targets before execve. But the table in which they move belongs to all
//! threads, and a thread may be writing to a number that is about to change. So nothing moves in this table. A thread
//! that was cloned with a table and a working directory of its own does the work. If that thread reaches execve, the
//! kernel ends every other thread and gives it the process's PID. If it does not, it ends, and every number, flag and
//! directory is as before because none was touched. Moving in place, and undoing that on failure, would have shown
//! every other thread wrong descriptors meanwhile.
//!
//! A handler of the program must not run in that thread, where a self-pipe's number may already be another file's. So
//! all signals are blocked in the thread, except SIGSYS: a seccomp filter that traps a call needs it. At the end the
//! thread sets the mask that the new program gets. If a signal with a handler is waiting just before that, the thread
//! gives up, and the handler runs where it should. Only the caller knows what the handler recorded, so the caller
//! decides. The instant between the last look and execve remains.
//!
//! Some consequences of the second table: record locks (`F_SETLK`) belong to the table and end with the old one.
//! `flock` and open-file-description locks are handed over. An `mq_notify` registration ends whenever a thread of the
//! process closes the queue, so a failed exec ends it too.
//!
//! The thread counts against `RLIMIT_NPROC` and `pids.max` for a moment. Three things belong to a thread and not to
//! its process. The signal at a parent's death is set in the new thread as the calling thread has it. A scheduling
//! policy with `SCHED_RESET_ON_FORK` ends. Signals that wait only for the calling thread, for example from raise(3),
//! end with it. Children with a parent's death signal of their own get that signal when the thread that forked them
//! ends. Any execve of a program with threads does the same.
//!
//! A user-mode emulator refuses such a thread. There the thread is made as libc makes its own, and leaves what it
//! shares before anything else (`sys/emulator.rs`). The same promises hold, except for a signal that arrives at the
//! last moment: the emulator may already have received it.
#![allow(unsafe_code)]

use super::Restart;
use super::child::become_successor;
use super::image::{Image, Inheritance, with_image};
use crate::error::{Error, Operation};
use crate::launch::LaunchView;
use crate::sys::{self, Cloned, Kin, Mask, Task};
use core::convert::Infallible;
use core::ffi::c_void;
use core::mem::MaybeUninit;
use rustix::mm::{MapFlags, ProtFlags};
use rustix::process::Signal;

/// The thread's stack, in bytes. A handler of the program may run on it, between the restoring of the signal mask and
/// execve. So it is as large as a small thread's stack; pages that are not touched cost nothing.
const STACK: usize = 256 * 1024;

/// Executes the program in place. Returns only on failure, and then every number, flag and directory is as before.
#[cold]
pub(crate) fn exec(
    launch: LaunchView<'_>,
    restart: &Restart<'_>,
    inheritance: Inheritance<'_>,
) -> Result<Infallible, Error> {
    let mut stack = Stack::new()?;
    // A kernel that cannot report this signal does not have it.
    let parent_death_signal = rustix::process::parent_process_death_signal().unwrap_or_default();
    let cloned = with_image(launch, restart, inheritance, &mut |image| {
        image.parent_death_signal = parent_death_signal;
        clone(image, &mut stack)
    })?;
    // Only a seccomp filter's SECCOMP_RET_KILL_THREAD kills one thread and not its process.
    Err(cloned.answer.unwrap_or(Error::Killed { signal: Signal::SYS.as_raw() }))
}

/// Starts the thread that executes the program, and waits until it is done with memory.
#[cold]
#[inline(never)]
fn clone(image: &mut Image<'_>, stack: &mut Stack) -> Result<Cloned<Error>, Error> {
    image.yields = true;
    let mask = sys::block_signals().map_err(|errno| Error::call(Operation::Sigprocmask, errno))?;
    image.mask = Some(mask);
    let free = image.first_free();
    // SAFETY: all signals are blocked, and `replace` keeps to the rules of a clone's body.
    let cloned = unsafe { sys::clone_and_run(Kin::Thread(stack.bytes()), free, image, replace) };
    // The mask was the thread's own a moment ago, so the kernel has nothing to refuse in it.
    let _ = sys::restore_signals(mask);
    cloned.map_err(|errno| Error::call(Operation::Clone, errno))
}

/// Runs between clone and execve.
///
/// The caller goes on as soon as this thread is done with memory, which is before the kernel closes the thread's
/// descriptors. So this closes them first: otherwise a descriptor that the caller closes would still be open here.
#[cold]
fn replace(task: &Task, image: &mut Image<'_>) -> Error {
    let error = become_successor(task, image);
    // A handler must not run in the code that follows.
    let _ = task.set_mask(Mask::ALL);
    task.close_all();
    error
}

/// A stack in a mapping of its own, which is unmapped on drop.
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
