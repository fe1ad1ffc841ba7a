//! The clone: a process or a thread that shares memory with a sleeping caller until it executes a program or ends.

use super::job::{
    CLONE_CLEAR_SIGHAND, CLONE_PARENT, CLONE_PIDFD, CLONE_SIGHAND, CLONE_SYSVSEM, CLONE_THREAD, CLONE_VFORK,
    CLONE_VM, Job, enter,
};
use super::{Task, arch, emulator, nr, result};
use core::ffi::c_int;
use core::mem::MaybeUninit;
use rustix::fd::{FromRawFd, OwnedFd, RawFd};
use rustix::io::Errno;

/// The relation of a clone to the process that makes it, and what the two share.
#[derive(Debug)]
pub(crate) enum Kin<'s> {
    /// A new process, with this process as its parent. It shares memory until it executes or exits. Its handlers are
    /// its own, and default.
    ///
    /// It goes on below the calling thread's frames, which no code uses meanwhile, as with vfork. For a stack of its
    /// own the caller would have to provide memory. A stack in a frame would be touched as a whole, and any other
    /// would need two more system calls.
    Child,
    /// A new process like [`Kin::Child`], with this process's parent as its parent. The init process of a PID
    /// namespace cannot make one: `EINVAL`.
    Sibling,
    /// A thread of this process that no other code knows of, on this stack. It shares memory, handlers, what semop(2)
    /// is to undo and the PID, but not the descriptors and the working directory. When it executes, the program is
    /// replaced. When it exits, the process goes on as before.
    Thread(&'s mut [MaybeUninit<u8>]),
}

/// A clone that ran, and has executed a program or ended.
#[derive(Debug)]
pub(crate) struct Cloned<R> {
    /// The clone's ID, as the calling process sees it.
    pub(crate) id: i32,
    /// The clone's pidfd, if it is a process and the kernel gave one.
    pub(crate) pidfd: Option<OwnedFd>,
    /// The result of the clone's body. There is none if the clone executed a program, or was killed.
    pub(crate) answer: Option<R>,
}

/// `struct clone_args`, as Linux 5.3 has it.
#[repr(C, align(8))]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
}

/// Clones, runs `body` in the clone, and returns once the clone has executed a program or ended. Only the calling
/// thread waits, and no page table is copied.
///
/// It first tries `clone3`. If the kernel or a seccomp filter refuses that, it tries `clone` with the same flags. If
/// an emulator refuses those, it uses flags that the emulator accepts.
///
/// The result of `body` is there when this returns, whether memory was shared or not. The data that `body` writes to
/// `data` may not be.
///
/// # Errors
///
/// - The error of clone(2): there is no new task, and `body` did not run.
///
/// # Safety
///
/// - The signals of [`Mask::ALL`](super::Mask::ALL) are blocked in the calling thread.
/// - `body` calls nothing but the methods of [`Task`] and code that makes no system call, does not allocate, does not
///   panic and uses no thread-local. It needs no more stack than there is. If the stack is the calling thread's and
///   ends, the fault kills the clone. Before Linux 5.16 it kills the calling process too, because core dumps there
///   end every process that shares the memory.
/// - If the clone is a process, `body` closes and replaces no descriptor from `free` on that it did not make.
pub(crate) unsafe fn clone_and_run<T, R: Copy>(
    mut what: Kin<'_>,
    free: RawFd,
    data: &mut T,
    body: fn(&Task, &mut T) -> R,
) -> Result<Cloned<R>, Errno> {
    let mut pidfd: c_int = -1;
    // A process ends as processes do: for the end of a thread an emulator takes a lock, which in a fork may be held
    // for ever.
    let exit = if matches!(what, Kin::Thread(_)) { nr::EXIT } else { nr::EXIT_GROUP };
    let mut job = Job { body, data, exit, reset_handlers: false, unshares: false, pipe: None, answer: None };
    // The exit signal stays 0 until the clone executes, when execve makes it SIGCHLD. So no handler sees a clone that
    // fails to execute, and no wait reaps it except ours, which asks for it (__WALL).
    let process = CLONE_VM | CLONE_VFORK | CLONE_PIDFD;
    let (flags, clear, stack) = match &mut what {
        Kin::Child => (process, CLONE_CLEAR_SIGHAND, None),
        Kin::Sibling => (process | CLONE_PARENT, CLONE_CLEAR_SIGHAND, None),
        // The semop(2) undo list of the process survives an execve, if the executing task shares it.
        Kin::Thread(stack) => {
            (CLONE_VM | CLONE_VFORK | CLONE_THREAD | CLONE_SIGHAND | CLONE_SYSVSEM, 0, Some(stack))
        }
    };
    // Two zeros mean the calling thread's own stack, below its frames.
    let (bottom, top) = stack.map_or((0, 0), |stack| {
        let bottom = stack.as_mut_ptr() as usize;
        (bottom, (bottom + stack.len()) & !15)
    });
    let args = CloneArgs {
        flags: flags | clear,
        pidfd: &raw mut pidfd as u64,
        stack: bottom as u64,
        stack_size: (top - bottom) as u64,
        ..CloneArgs::default()
    };
    let args = [&raw const args as usize, size_of::<CloneArgs>(), 0, 0, 0];
    // SAFETY: the stack is this call's alone, or below the frames of the calling thread, which sleeps until the clone
    // has stopped using memory; `job` and all it refers to live in those frames. `enter` never returns.
    let ret = unsafe { arch::clone_into(nr::CLONE3, args, enter::<T, R>, (&raw mut job).cast()) };
    let ret = match result(ret) {
        // ENOSYS: Linux 5.2, or a seccomp filter. EPERM: a seccomp filter. EINVAL: CLONE_CLEAR_SIGHAND before Linux
        // 5.5.
        Err(Errno::NOSYS | Errno::PERM | Errno::INVAL) => {
            job.reset_handlers = clear != 0;
            let args = [flags as usize, top, &raw mut pidfd as usize, 0, 0];
            // SAFETY: as above.
            let ret = unsafe { arch::clone_into(nr::CLONE, args, enter::<T, R>, (&raw mut job).cast()) };
            result(ret)
        }
        other => other,
    };
    let ret = match (ret, what) {
        // SAFETY: the caller's contract; there is no clone yet.
        (Err(Errno::INVAL), Kin::Child) => unsafe { emulator::process(free, &mut job) },
        // SAFETY: as above.
        (Err(Errno::INVAL), Kin::Thread(_)) => unsafe { emulator::thread(top, &mut job) },
        (ret, _) => ret,
    };
    // SAFETY: the pointer is to this frame; the kernel wrote behind the compiler's back.
    let pidfd = unsafe { (&raw const pidfd).read_volatile() };
    Ok(Cloned {
        id: ret? as i32,
        // SAFETY: the kernel has just made this descriptor for us, and nothing else owns it.
        pidfd: (pidfd >= 0).then(|| unsafe { OwnedFd::from_raw_fd(pidfd) }),
        answer: job.answer,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::std_instead_of_core, reason = "tests")]
    use super::*;
    use crate::sys::{block_signals, restore_signals};
    use core::ffi::c_void;
    use rustix::process::Signal;

    /// Checks that a clone finds by raw calls what rustix finds. Its stack is its own, or below its caller's frames,
    /// and aligned as the compiler expects it.
    #[test]
    fn a_clone_knows_its_process() {
        #[derive(Clone, Copy)]
        struct Seen {
            pid: u32,
            id: Option<u64>,
            local: usize,
            null: Option<Errno>,
            numbers: Option<Errno>,
        }
        // The answer comes back from a copy of memory too.
        fn look(task: &Task, (): &mut ()) -> Seen {
            #[repr(align(16))]
            struct Aligned(u8);
            let aligned = Aligned(0);
            // The address, hidden from the compiler, which would otherwise know what it has to be.
            let local = core::hint::black_box(&raw const aligned.0).addr();
            let pid = task.pid();
            let id = task.pidfd_id(pid);
            let null = task.each_listed(|_| Err(Errno::XDEV)).err();
            Seen { pid, id, local, null, numbers: task.close_on_exec_all((1 << 20) - 8).err() }
        }
        let mut stack = [MaybeUninit::uninit(); 16 * 1024];
        let own = stack.as_ptr_range();
        let own = own.start.addr()..own.end.addr();
        for what in [Kin::Thread(&mut stack), Kin::Child] {
            let is_thread = matches!(what, Kin::Thread(_));
            let mask = block_signals().unwrap();
            // SAFETY: signals are blocked, and the body keeps to its rules.
            let cloned = unsafe { clone_and_run(what, 64, &mut (), look) };
            restore_signals(mask).unwrap();
            let cloned = cloned.unwrap();
            let seen = cloned.answer.unwrap();
            assert_eq!(seen.pid, if is_thread { std::process::id() } else { cloned.id as u32 });
            if is_thread {
                assert_eq!(seen.id, crate::pidfd::own_id());
            }
            assert!(seen.local.is_multiple_of(16), "{:#x}", seen.local);
            assert_eq!(own.contains(&seen.local), is_thread);
            assert!(is_thread || seen.local < own.start, "below this frame");
            assert_eq!(seen.null, Some(Errno::XDEV));
            assert_eq!(seen.numbers, None);
        }
    }

    /// Checks that a clone leaves the red zone alone, where it goes on below the calling frames. The ABI of x86_64
    /// lets a function that calls no other keep data below the stack pointer. Such data exists only if all of this is
    /// inlined: `--release`.
    #[test]
    fn a_clone_spares_the_red_zone() {
        unsafe extern "C" fn end(_: *mut c_void) -> ! {
            let mut frame = [0; 32];
            for word in &mut frame {
                // SAFETY: a word of this frame, which is written to although nothing reads it.
                unsafe { core::ptr::from_mut(word).write_volatile(usize::MAX) };
            }
            loop {
                // SAFETY: ends this task and touches nothing.
                unsafe { arch::syscall(nr::EXIT_GROUP, [0; 6]) };
            }
        }
        #[inline(never)]
        fn keep(value: usize) -> (isize, [usize; 8]) {
            let mut kept = [0; 8];
            for (word, number) in kept.iter_mut().zip(value..) {
                // SAFETY: a word of this frame, which the compiler cannot do without.
                unsafe { core::ptr::from_mut(word).write_volatile(number) };
            }
            let args = [(CLONE_VM | CLONE_VFORK) as usize | Signal::CHILD.as_raw() as usize, 0, 0, 0, 0];
            // SAFETY: the calling task waits until the new one, which is below its frames, has ended.
            let id = unsafe { arch::clone_into(nr::CLONE, args, end, core::ptr::null_mut()) };
            // SAFETY: as above.
            (id, kept.each_ref().map(|word| unsafe { core::ptr::from_ref(word).read_volatile() }))
        }
        let mask = block_signals().unwrap();
        let (id, kept) = keep(1000);
        restore_signals(mask).unwrap();
        assert_eq!(kept, core::array::from_fn(|word| 1000 + word));
        let child = rustix::process::Pid::from_raw(id as i32).unwrap();
        let options = rustix::process::WaitOptions::empty();
        let status = rustix::process::waitpid(Some(child), options).unwrap().unwrap().1;
        assert_eq!(status.exit_status(), Some(0));
    }
}
