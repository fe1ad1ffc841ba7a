//! The clone: the steps from clone to execve that turn the clone into the successor that the image describes.
//!
//! The descriptor table and the working directory are the clone's own, so the predecessor has nothing to undo,
//! whatever fails. Memory is shared with a thread that sleeps. All that the clone writes there belongs to this
//! restart: the digits of three variables, and how far the clone came. This module makes raw system calls through
//! [`Task`] and does nothing else: no libc, no allocation, no panic, no thread-local.
#![allow(unsafe_code)]

use super::image::{Image, Line, Program, Progress};
use crate::activation::FIRST_FD;
use crate::digits::{DIGITS, decimal};
use crate::error::{Error, Operation};
use crate::launch::Directory;
use crate::placement::{Placement, Step};
use crate::sys::Task;
use crate::variable::Variable;
use core::convert::Infallible;
use core::ffi::{CStr, c_char};
use heapless::Vec;
use rustix::fd::{AsRawFd, RawFd};
use rustix::io::Errno;

/// The longest path that execve accepts, with its NUL.
const PATH_MAX: usize = 4096;

/// Becomes the successor, or returns why it could not.
pub(super) fn become_successor(task: &Task, image: &mut Image<'_>) -> Error {
    let Err(error) = attempt(task, image);
    error
}

fn attempt(task: &Task, image: &mut Image<'_>) -> Result<Infallible, Error> {
    image.progress = Progress::Begun;
    enter_directory(task, image.directory)?;
    let first_free = image.first_free();
    let program_fd = match image.program {
        Program::Fd(fd) => Some(out_of_the_way(task, fd, first_free, first_free)?),
        _ => None,
    };
    let readiness_target = FIRST_FD + image.count;
    let readiness = match image.readiness {
        Some(fd) => Some(out_of_the_way(task, fd, readiness_target, first_free)?),
        None => None,
    };
    place(task, &mut image.placement, first_free)?;
    match readiness {
        Some(fd) if fd == readiness_target => keep(task, fd)?,
        Some(fd) => duplicate(task, fd, readiness_target)?,
        None => {}
    }
    fill_stdio(task)?;
    task.close_on_exec_from(first_free).map_err(|errno| Error::call(Operation::CloseRange, errno))?;
    write_pid(task, image);
    if let Some(signal) = image.parent_death_signal {
        task.set_parent_death_signal(signal).map_err(|errno| Error::call(Operation::Prctl, errno))?;
    }
    if let Some(mask) = image.mask {
        if image.yields && task.is_signalled(mask) {
            return Err(Error::call(Operation::Execve, Errno::INTR));
        }
        task.set_mask(mask).map_err(|errno| Error::call(Operation::Sigprocmask, errno))?;
    }
    image.progress = Progress::Executes;
    Err(execute(task, image, program_fd))
}

/// Writes the values that only the clone knows into their variables.
fn write_pid(task: &Task, image: &Image<'_>) {
    if image.pid.is_none() && image.watchdog_pid.is_none() {
        return;
    }
    let pid = task.pid();
    if let Some(line) = image.watchdog_pid {
        write_digits(line, Variable::WatchdogPid, pid.into());
    }
    if let Some(line) = image.pid {
        write_digits(line, Variable::Pid, pid.into());
    }
    if let Some((line, slot)) = image.pidfd_id {
        match task.pidfd_id(pid) {
            Some(id) => write_digits(line, Variable::PidfdId, id),
            // The last slot: the table ends here.
            None => slot.set(None),
        }
    }
}

fn enter_directory(task: &Task, directory: &Directory) -> Result<(), Error> {
    if let Some(path) = &directory.path {
        if task.chdir(path.as_c_str()).is_ok() {
            return Ok(());
        }
    }
    match directory.fd() {
        Some(fd) => task
            .fchdir(fd.as_raw_fd())
            .map_err(|errno| Error::call_on(Operation::Chdir, fd.as_raw_fd(), errno)),
        None => Ok(()),
    }
}

/// Returns `fd`, or a duplicate of it above all targets if a target below `limit` would replace it.
fn out_of_the_way(task: &Task, fd: RawFd, limit: RawFd, first_free: RawFd) -> Result<RawFd, Error> {
    if fd >= limit {
        return Ok(fd);
    }
    task.duplicate_above(fd, first_free).map_err(|errno| Error::call_on(Operation::Dup, fd, errno))
}

fn place(task: &Task, placement: &mut Placement<'_>, first_free: RawFd) -> Result<(), Error> {
    let mut spare = -1;
    for step in placement {
        match step {
            Step::Keep { fd } => keep(task, fd)?,
            Step::Move { from, to } => duplicate(task, from, to)?,
            Step::Park { from } => {
                spare = task
                    .duplicate_above(from, first_free)
                    .map_err(|errno| Error::call_on(Operation::Dup, from, errno))?;
            }
            Step::Unpark { to } => duplicate(task, spare, to)?,
        }
    }
    Ok(())
}

fn keep(task: &Task, fd: RawFd) -> Result<(), Error> {
    task.keep(fd).map_err(|errno| Error::call_on(Operation::Fcntl, fd, errno))
}

fn duplicate(task: &Task, from: RawFd, to: RawFd) -> Result<(), Error> {
    task.duplicate_onto(from, to).map_err(|errno| {
        // The kernel also returns EBADF for a target beyond the limit of open files, if the limit was lowered.
        let is_open = errno == Errno::BADF && task.is_close_on_exec(from).is_ok();
        Error::call_on(Operation::Dup, from, if is_open { Errno::MFILE } else { errno })
    })
}

/// Opens `/dev/null` on each of 0, 1 and 2 that is closed or has `FD_CLOEXEC`.
///
/// A descriptor with `FD_CLOEXEC` is not a stdin: it is a file that found the number free.
fn fill_stdio(task: &Task) -> Result<(), Error> {
    for fd in 0..=2 {
        match task.is_close_on_exec(fd) {
            Ok(false) => continue,
            Ok(true) | Err(Errno::BADF) => {}
            Err(errno) => return Err(Error::call_on(Operation::Fcntl, fd, errno)),
        }
        let null = task.open_null().map_err(|errno| Error::call(Operation::OpenNull, errno))?;
        if null == fd {
            keep(task, fd)?;
        } else {
            duplicate(task, null, fd)?;
        }
    }
    Ok(())
}

fn write_digits(line: Line<'_>, variable: Variable, value: u64) {
    let mut digits = [0; DIGITS];
    let digits = decimal(value, &mut digits).iter().chain(&[0]);
    let behind_name = line.iter().skip(variable.name().len() + 1);
    for (cell, digit) in behind_name.zip(digits) {
        cell.set(*digit);
    }
}

fn execute(task: &Task, image: &Image<'_>, program_fd: Option<RawFd>) -> Error {
    let argv: *const *const c_char = image.argv.as_ptr().cast();
    let envp: *const *const c_char = image.envp.as_ptr().cast();
    let errno = match (&image.program, program_fd) {
        // SAFETY: both tables hold strings and end with a `None`, which is a null pointer.
        (Program::Path(path), _) => unsafe { task.execute(path, argv, envp) },
        (Program::Search { name, path }, _) => {
            // SAFETY: as above.
            let execute = |path: &CStr| unsafe { task.execute(path, argv, envp) };
            return search(name, path, execute);
        }
        // SAFETY: as above.
        (Program::Fd(fd), moved) => unsafe { task.execute_fd(moved.unwrap_or(*fd), argv, envp) },
    };
    Error::call(Operation::Execve, errno)
}

/// Tries `name` in each directory of `path`, as a shell would, except the directories that are not absolute.
///
/// This is out of line, so that only a search uses the stack for a path.
#[cold]
#[inline(never)]
fn search(name: &[u8], path: &[u8], execute: impl Fn(&CStr) -> Errno) -> Error {
    if name.is_empty() {
        // Behind a directory's name, this name would mean the directory itself.
        return Error::call(Operation::Execve, Errno::NOENT);
    }
    let mut candidate = Vec::<u8, PATH_MAX>::new();
    let mut refused = false;
    let mut found = Errno::NOENT;
    for directory in path.split(|byte| *byte == b':') {
        if !directory.starts_with(b"/") {
            refused = true;
            continue;
        }
        candidate.clear();
        let fits =
            [directory, b"/", name, b"\0"].iter().all(|part| candidate.extend_from_slice(part).is_ok());
        let Some(candidate) = CStr::from_bytes_with_nul(&candidate).ok().filter(|_| fits) else {
            continue;
        };
        match execute(candidate) {
            // No file is there, or it cannot be reached: a network's file system may be away.
            Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::NODEV | Errno::STALE | Errno::TIMEDOUT => {}
            Errno::ACCESS => found = Errno::ACCESS,
            errno => return Error::call(Operation::Execve, errno),
        }
    }
    if refused && found == Errno::NOENT && !path.is_empty() {
        return Error::RelativePath;
    }
    Error::call(Operation::Execve, found)
}
