//! Clones for a user-mode emulator, which refuses the ones that restarts are made of.
//!
//! An emulator of another architecture makes a plain fork of every clone that asks its caller to wait. So memory is
//! not shared, and the caller does not wait. The emulator also answers `EINVAL` to a process with a pidfd or an exit
//! signal other than SIGCHLD. It answers the same to a thread that does not share everything that libc's threads
//! share. No kernel that this crate supports answers `EINVAL` to the same flags, so no kernel reaches this code. The
//! code costs 1 KiB, and a restart no call.
//!
//! | clone | here | the answer | the end of the waiting |
//! |---|---|---|---|
//! | process | with SIGCHLD, and without a pidfd | a pipe | end of file, at execve or exit |
//! | thread | as libc makes them; it unshares its descriptors and directory before anything else | memory | its ID, which is cleared when it has left its stack |
//!
//! A pipe is the cheapest way to report both a success and a failure. An exit status comes only at an exit. A caller
//! that waits for it cannot distinguish a program that runs from one that is still to be executed. The status also
//! has no space for the failed call and its descriptor. The code does not ask whether memory was shared, because the
//! pipe is right either way. The thread keeps the promise of an exec in place: nothing is moved in the table that the
//! process's threads use, so a failure has nothing to undo.
//!
//! An emulator has two limits. A clone that failed is a child of the usual kind for a moment, so a handler of SIGCHLD
//! or a wait for any child can see it. Signals that the emulator itself has received, but not delivered yet, are lost
//! when a program is executed in place.

use super::job::{
    AnswerPipe, CLONE_CHILD_CLEARTID, CLONE_FILES, CLONE_FS, CLONE_SIGHAND, CLONE_SYSVSEM, CLONE_THREAD,
    CLONE_VFORK, CLONE_VM, Job, enter,
};
use super::{arch, nr, result};
use core::mem::MaybeUninit;
use core::sync::atomic::{AtomicU32, Ordering};
use rustix::fd::{AsRawFd, RawFd};
use rustix::io::Errno;
use rustix::pipe::PipeFlags;
use rustix::process::{Pid, WaitId, WaitIdOptions};

const SIGCHLD: usize = 17;

/// Runs the job in a process, in its copy of the calling thread's stack. Returns its ID once it has executed a
/// program or ended.
///
/// The process may use a descriptor of its own from `free` on.
///
/// # Safety
///
/// - As for [`clone_and_run`](super::clone_and_run).
#[cold]
#[inline(never)]
pub(super) unsafe fn process<T, R: Copy>(free: RawFd, job: &mut Job<'_, T, R>) -> Result<usize, Errno> {
    let (ours, theirs) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    job.pipe = Some(AnswerPipe { fd: theirs.as_raw_fd(), free });
    let args = [(CLONE_VM | CLONE_VFORK) as usize | SIGCHLD, 0, 0, 0, 0];
    // SAFETY: the caller's contract.
    let ret = unsafe { arch::clone_into(nr::CLONE, args, enter::<T, R>, (&raw mut *job).cast()) };
    let id = result(ret)?;
    drop(theirs);
    let mut answer = MaybeUninit::<Option<R>>::uninit();
    // SAFETY: the bytes of the value, which may be anything until they are looked at.
    let bytes = unsafe {
        core::slice::from_raw_parts_mut(answer.as_mut_ptr().cast::<MaybeUninit<u8>>(), size_of_val(&answer))
    };
    // All signals are blocked, so nothing interrupts this. An end of file means that a program was executed.
    let read = rustix::io::read(&ours, bytes).map_or(0, |(read, _)| read.len());
    if read == size_of_val(&answer) {
        // SAFETY: a fork of this very program wrote a whole value of this type, in one piece.
        job.answer = unsafe { answer.assume_init() };
        if let Some(id) = Pid::from_raw(id as i32) {
            // The process is about to end. Another wait for any child, or an ignored SIGCHLD, may have reaped it
            // first.
            let _ = rustix::process::waitid(WaitId::Pid(id), WaitIdOptions::EXITED);
        }
    }
    Ok(id)
}

/// Runs the job in a thread, on the stack below `top`. Returns its ID once it has ended.
///
/// # Safety
///
/// - As for [`clone_and_run`](super::clone_and_run).
#[cold]
#[inline(never)]
pub(super) unsafe fn thread<T, R: Copy>(top: usize, job: &mut Job<'_, T, R>) -> Result<usize, Errno> {
    job.unshares = true;
    let shared = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_SYSVSEM;
    let flags = shared | CLONE_THREAD | CLONE_CHILD_CLEARTID;
    let running = AtomicU32::new(1);
    let word = running.as_ptr() as usize;
    // The word's place among the arguments is one of the last two. The other is the thread pointer, which is not read
    // with these flags.
    let args = [flags as usize, top, 0, word, word];
    // SAFETY: the caller's contract; this frame stays until the thread has left its stack.
    let ret = unsafe { arch::clone_into(nr::CLONE, args, enter::<T, R>, (&raw mut *job).cast()) };
    let id = result(ret)?;
    while running.load(Ordering::Acquire) != 0 {
        const FUTEX_WAIT: usize = 0;
        // SAFETY: sleeps while the word is 1, and touches nothing.
        unsafe { arch::syscall(nr::FUTEX, [word, FUTEX_WAIT, 1, 0, 0, 0]) };
    }
    // Without an answer, the thread could not get a table of its own.
    if job.answer.is_none() { Err(Errno::NOSYS) } else { Ok(id) }
}
