//! The job: what a clone runs, whichever call made it, and the flags of those calls.
//!
//! Every clone begins in [`enter`]. This module calls only the methods of [`Task`] and the call that ends the clone:
//! no libc, no allocation, no panic, no thread-local.

use super::{Task, arch};
use core::ffi::c_void;
use rustix::fd::RawFd;

pub(super) const CLONE_VM: u64 = 0x100;
pub(super) const CLONE_FS: u64 = 0x200;
pub(super) const CLONE_FILES: u64 = 0x400;
pub(super) const CLONE_SIGHAND: u64 = 0x800;
pub(super) const CLONE_PIDFD: u64 = 0x1000;
pub(super) const CLONE_VFORK: u64 = 0x4000;
pub(super) const CLONE_PARENT: u64 = 0x8000;
pub(super) const CLONE_THREAD: u64 = 0x1_0000;
pub(super) const CLONE_SYSVSEM: u64 = 0x4_0000;
pub(super) const CLONE_CHILD_CLEARTID: u64 = 0x20_0000;
pub(super) const CLONE_CLEAR_SIGHAND: u64 = 1 << 32;

/// The data that the clone finds in memory, shared or copied.
pub(super) struct Job<'d, T, R> {
    pub(super) body: fn(&Task, &mut T) -> R,
    pub(super) data: &'d mut T,
    /// The call that ends the clone.
    pub(super) exit: usize,
    pub(super) reset_handlers: bool,
    /// Whether the clone still has to leave what it shares.
    pub(super) unshares: bool,
    /// The pipe for the answer, if memory may be a copy.
    pub(super) pipe: Option<AnswerPipe>,
    pub(super) answer: Option<R>,
}

/// A pipe for the answer, and the number from which on the body leaves descriptors alone.
#[derive(Clone, Copy)]
pub(super) struct AnswerPipe {
    pub(super) fd: RawFd,
    pub(super) free: RawFd,
}

/// Runs the job in the clone, which begins here with no frame to return to.
pub(super) unsafe extern "C" fn enter<T, R: Copy>(job: *mut c_void) -> ! {
    let task = Task(());
    // SAFETY: `clone_and_run` passed a pointer to its `Job<T, R>`, and does not touch it while the clone does.
    let job = unsafe { &mut *job.cast::<Job<'_, T, R>>() };
    run(&task, job);
    loop {
        // SAFETY: ends this task and touches nothing.
        unsafe { arch::syscall(job.exit, [127, 0, 0, 0, 0, 0]) };
    }
}

/// Runs the body and stores its answer. There is none if the calls that an emulator needs failed.
fn run<T, R: Copy>(task: &Task, job: &mut Job<'_, T, R>) {
    if job.reset_handlers {
        task.reset_handlers();
    }
    let pipe = match job.pipe {
        // The body needs descriptors above this number too. If there are none, it would not have succeeded.
        Some(AnswerPipe { fd, free }) => match task.duplicate_above(fd, free) {
            Ok(fd) => Some(fd),
            Err(_) => return,
        },
        None => None,
    };
    if job.unshares && task.unshare(CLONE_FILES | CLONE_FS).is_err() {
        return;
    }
    job.answer = Some((job.body)(task, job.data));
    if let Some(pipe) = pipe {
        task.write_answer(pipe, &job.answer);
    }
}
