//! The image: the program, arguments, environment and descriptors of the successor, prepared in the predecessor.
//!
//! [`with_image`] rewrites the launch's tables in place, lends them out, and restores them in every case. The module
//! `child` turns an [`Image`] into the successor.
#![allow(unsafe_code)]

use super::{Change, Executable, Restart};
use crate::activation::{FIRST_FD, NUMBER_LINE, render_number};
use crate::cstr::CStrPtr;
use crate::digits::{DIGITS, decimal};
use crate::environ::{Environ, Journal};
use crate::error::{Error, Table, counted};
use crate::launch::{Directory, LaunchView};
use crate::placement::{Placement, Source};
use crate::sys::{Cloned, Mask};
use crate::table::Active;
use crate::variable::Variable;
use core::cell::Cell;
use core::ffi::CStr;
use heapless::VecView;
use rustix::fd::{AsRawFd, BorrowedFd, RawFd};
use rustix::process::{Signal, getpid};

/// The descriptors and names that are handed over.
pub(crate) struct Inheritance<'r> {
    /// The sockets, for the numbers from 3 on.
    pub(crate) active: &'r [Active],
    /// The successor's end of the readiness socket, for the number behind the sockets.
    pub(crate) readiness: Option<BorrowedFd<'r>>,
    /// Scratch space, one slot for each active socket.
    pub(crate) sources: &'r mut VecView<Source>,
    /// `LISTEN_FDNAMES=` with the sockets' names and a NUL; empty if they have none.
    pub(crate) names: &'r mut [u8],
}

/// Everything that the clone needs to become the successor.
pub(super) struct Image<'r> {
    pub(super) directory: &'r Directory,
    pub(super) program: Program<'r>,
    pub(super) argv: &'r [Option<CStrPtr>],
    pub(super) envp: &'r [Cell<Option<CStrPtr>>],
    /// `LISTEN_PID=` and its digits, if the successor gets any descriptor.
    pub(super) pid: Option<Line<'r>>,
    /// `WATCHDOG_PID=` and its digits, if the watchdog watches this process.
    pub(super) watchdog_pid: Option<Line<'r>>,
    /// `LISTEN_PIDFDID=`, its digits, and its slot, which is the last of the table.
    pub(super) pidfd_id: Option<(Line<'r>, &'r Cell<Option<CStrPtr>>)>,
    pub(super) placement: Placement<'r>,
    pub(super) count: RawFd,
    pub(super) readiness: Option<RawFd>,
    /// The signal mask that the successor gets.
    pub(super) mask: Option<Mask>,
    /// Whether the clone gives way to signals that came since they were blocked.
    pub(super) yields: bool,
    /// The signal that the clone gets when its parent ends.
    pub(super) parent_death_signal: Option<Signal>,
    /// How far the clone came, if it shares memory.
    pub(super) progress: Progress,
}

/// How far a clone came, as it recorded before it was killed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Progress {
    /// The clone did not begin, or has memory of its own.
    Unknown,
    Begun,
    Executes,
}

impl Image<'_> {
    /// Returns the number behind all descriptors that the successor gets.
    pub(super) fn first_free(&self) -> RawFd {
        FIRST_FD + self.count + RawFd::from(self.readiness.is_some())
    }
}

/// A variable's `NAME=value` and NUL. They are cells because the clone writes the digits of some variables.
pub(super) type Line<'r> = &'r [Cell<u8>];

/// How the clone finds the program.
pub(super) enum Program<'r> {
    Path(&'r CStr),
    Search { name: &'r [u8], path: &'r [u8] },
    Fd(RawFd),
}

/// The function that makes a clone from a prepared image.
pub(super) type Run<'r> = dyn FnMut(&mut Image<'_>) -> Result<Cloned<Error>, Error> + 'r;

/// Prepares the image and calls `run` with it. The launch's tables are restored when this returns, whatever `run`
/// returns.
pub(super) fn with_image(
    launch: LaunchView<'_>,
    restart: &Restart<'_>,
    inheritance: Inheritance<'_>,
    run: &mut Run<'_>,
) -> Result<Cloned<Error>, Error> {
    let LaunchView { args, vars, directory, privileged } = launch;
    if privileged && !is_told(&restart.executable) {
        return Err(Error::Untrusted);
    }
    let args_len = args.len();
    let mut lines = [[0; NUMBER_LINE]; 5];
    let mut tables = Tables { args, environ: Environ::new(vars)?, journal: Journal::new() };
    let result = prepare(&mut tables, &mut lines, directory, restart, inheritance, run);
    tables.environ.undo(&mut tables.journal);
    tables.args.truncate(args_len);
    result
}

/// The launch's tables while a restart rewrites them, and the journal to undo that.
struct Tables<'t> {
    args: &'t mut VecView<Option<CStrPtr>>,
    environ: Environ<'t>,
    journal: Journal,
}

/// Returns whether the caller names the program to run, so that nothing of the choice is left to the starter.
fn is_told(executable: &Executable<'_>) -> bool {
    match executable {
        Executable::Launched => false,
        Executable::Path(path) => path.to_bytes().starts_with(b"/"),
        Executable::Fd(_) | Executable::SameImage => true,
    }
}

/// Fills the frame that the image points into, and calls `run` with the image. [`with_image`] undoes it.
fn prepare(
    tables: &mut Tables<'_>,
    lines: &mut [[u8; NUMBER_LINE]; 5],
    directory: &Directory,
    restart: &Restart<'_>,
    inheritance: Inheritance<'_>,
    run: &mut Run<'_>,
) -> Result<Cloned<Error>, Error> {
    let Tables { args, environ, journal } = tables;
    let Inheritance { active, readiness, sources, names } = inheritance;
    let name = args.first().copied().flatten();
    let path = environ.find(b"PATH");
    let argv = write_args(args, restart)?;
    for (position, change) in restart.changes.iter().enumerate() {
        apply(change, position, environ, journal)?;
    }
    let own = write_variables(environ, journal, lines, active, readiness.is_some(), names)?;
    list_sources(active, sources)?;
    let program = program(restart, name.as_ref(), path.as_ref())?;
    let envp = environ.cells();
    let last = envp.len().checked_sub(2).and_then(|last| envp.get(last));
    let mut image = Image {
        directory,
        program,
        argv,
        envp,
        pid: own.pid,
        watchdog_pid: own.watchdog_pid,
        pidfd_id: own.pidfd_id.zip(last),
        placement: Placement::new(sources, FIRST_FD),
        count: active.len() as RawFd,
        readiness: readiness.map(|fd| fd.as_raw_fd()),
        mask: None,
        yields: false,
        parent_death_signal: None,
        progress: Progress::Unknown,
    };
    run(&mut image)
}

/// Adds the arguments that replace the launch's behind them, and returns the arguments that the successor gets.
fn write_args<'a>(
    args: &'a mut VecView<Option<CStrPtr>>,
    restart: &Restart<'_>,
) -> Result<&'a [Option<CStrPtr>], Error> {
    let own_args = args.len();
    for arg in restart.args.unwrap_or(&[]).iter().map(Some).chain(restart.args.map(|_| None)) {
        // SAFETY: the slot is gone before `restart` is: `with_image` truncates the table.
        let arg = arg.and_then(|arg| unsafe { CStrPtr::new(arg.as_ptr()) });
        args.push(arg).map_err(|_| Error::Capacity {
            table: Table::Arguments,
            needed: counted(own_args + restart.args.map_or(0, <[_]>::len) + 1),
            capacity: counted(args.capacity()),
        })?;
    }
    let argv = args.get(if restart.args.is_some() { own_args } else { 0 }..).unwrap_or(&[]);
    // An empty table has no null pointer, at which the kernel stops.
    if matches!(argv, [Some(_), .., None]) { Ok(argv) } else { Err(Error::NoArguments) }
}

/// The variables whose digits the clone writes.
struct OwnLines<'l> {
    pid: Option<Line<'l>>,
    watchdog_pid: Option<Line<'l>>,
    pidfd_id: Option<Line<'l>>,
}

/// Sets the variables that describe the successor's descriptors, or removes them.
fn write_variables<'l>(
    environ: &mut Environ<'_>,
    journal: &mut Journal,
    lines: &'l mut [[u8; NUMBER_LINE]; 5],
    active: &[Active],
    reports: bool,
    names: &mut [u8],
) -> Result<OwnLines<'l>, Error> {
    let count = active.len();
    let [fds, ready_fd, pid, watchdog_pid, pidfd_id] = lines;
    let granted = count > 0 || reports;
    let ready_number = FIRST_FD as u64 + count as u64;
    put_number(environ, journal, Variable::Fds, (count > 0).then_some(count as u64), fds)?;
    put_number(environ, journal, Variable::ReadyFd, reports.then_some(ready_number), ready_fd)?;
    let names = Cell::from_mut(names).as_slice_of_cells();
    put(environ, journal, Variable::Names, Some(names).filter(|names| !names.is_empty()))?;
    // The clone replaces the zeros with other digits.
    let zero = granted.then_some(0);
    let pid = put_number(environ, journal, Variable::Pid, zero, pid)?;
    // A `WATCHDOG_PID` of another process is not about this one, and stays as it is.
    let watchdog_pid = match environ.var(Variable::WatchdogPid.name().as_bytes()) {
        Some(pid) if is_own(pid) => {
            put_number(environ, journal, Variable::WatchdogPid, Some(0), watchdog_pid)?
        }
        _ => None,
    };
    environ.remove(Variable::PidfdId.name().as_bytes(), journal)?;
    let pidfd_id = put_number(environ, journal, Variable::PidfdId, zero, pidfd_id)?;
    Ok(OwnLines { pid, watchdog_pid, pidfd_id })
}

/// Lists the active sockets for the placement.
fn list_sources(active: &[Active], sources: &mut VecView<Source>) -> Result<(), Error> {
    sources.clear();
    for slot in active {
        // The caller's scratch space has as many slots as the table of active sockets.
        sources.push(Source::new(slot.fd.as_raw_fd())).map_err(|_| Error::Capacity {
            table: Table::Active,
            needed: counted(active.len()),
            capacity: counted(sources.capacity()),
        })?;
    }
    Ok(())
}

/// Returns how the clone finds the program. `name` is the launch's first argument, `path` its `PATH=` line.
fn program<'r>(
    restart: &Restart<'r>,
    name: Option<&'r CStrPtr>,
    path: Option<&'r CStrPtr>,
) -> Result<Program<'r>, Error> {
    Ok(match restart.executable {
        Executable::Path(path) => Program::Path(path),
        Executable::Fd(fd) => Program::Fd(fd.as_raw_fd()),
        Executable::SameImage => Program::Path(c"/proc/self/exe"),
        Executable::Launched => {
            let name = name.ok_or(Error::NoArguments)?;
            if name.to_bytes().contains(&b'/') {
                Program::Path(name.as_c_str())
            } else {
                let path = path.map_or(&b""[..], CStrPtr::to_bytes);
                Program::Search { name: name.to_bytes(), path: path.strip_prefix(b"PATH=").unwrap_or(path) }
            }
        }
    })
}

#[cold]
#[inline(never)]
fn apply(
    change: &Change<'_>,
    position: usize,
    environ: &mut Environ<'_>,
    journal: &mut Journal,
) -> Result<(), Error> {
    let (name, string) = match change {
        Change::Set(string) => {
            let bytes = string.to_bytes();
            let name = bytes.iter().position(|byte| *byte == b'=').and_then(|end| bytes.get(..end));
            (name.unwrap_or(b""), Some(string))
        }
        Change::Remove(name) => (name.to_bytes(), None),
    };
    let reserved = Variable::ACTIVATION.iter().any(|variable| variable.name().as_bytes() == name);
    if name.is_empty() || name.contains(&b'=') || reserved {
        return Err(Error::InvalidChange { position: counted(position) });
    }
    match string {
        // SAFETY: the slot is put back before the caller's string goes: `with_image` undoes the changes.
        Some(string) => match unsafe { CStrPtr::new(string.as_ptr()) } {
            Some(string) => environ.set(name, string, journal),
            None => Ok(()),
        },
        None => environ.remove(name, journal),
    }
}

/// Returns whether a variable's value is this process's PID.
fn is_own(pid: &[u8]) -> bool {
    let mut digits = [0; DIGITS];
    let own = getpid().as_raw_nonzero().get().unsigned_abs();
    pid == decimal(own.into(), &mut digits)
}

/// Sets a variable to the line, or removes the variable.
fn put(
    environ: &mut Environ<'_>,
    journal: &mut Journal,
    variable: Variable,
    line: Option<Line<'_>>,
) -> Result<(), Error> {
    let name = variable.name().as_bytes();
    // SAFETY: the line ends with a NUL, the slot is put back before it goes, and nothing reads the line while the
    // clone writes its digits.
    match line.and_then(|line| unsafe { CStrPtr::new(line.as_ptr().cast()) }) {
        Some(line) => environ.set(name, line, journal),
        None => environ.remove(name, journal),
    }
}

/// Sets a variable to a number, or removes it. Returns the line that the variable is in now.
fn put_number<'l>(
    environ: &mut Environ<'_>,
    journal: &mut Journal,
    variable: Variable,
    value: Option<u64>,
    line: &'l mut [u8],
) -> Result<Option<Line<'l>>, Error> {
    let line = match value {
        Some(value) => {
            render_number(variable, value, line)?;
            Some(Cell::from_mut(line).as_slice_of_cells())
        }
        None => None,
    };
    put(environ, journal, variable, line)?;
    Ok(line)
}
