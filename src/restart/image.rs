//! The image: what the successor will see, prepared in the predecessor, and the steps that make it so.
//!
//! [`with_image`] rewrites the launch's tables in place, lends them out, and puts them back, whatever
//! happens. [`become_successor`] runs between clone and execve. There the descriptor table and the working
//! directory are the clone's own, so whatever fails, the predecessor has nothing to undo; memory is shared
//! with a thread that sleeps, and all it writes there is this restart's own: the digits of three variables, and how
//! far it came. It makes raw system calls through [`Task`] and nothing else: no libc, no allocation,
//! no panic, no thread-local.
#![allow(unsafe_code)]

use super::{Change, Executable, Restart};
use crate::activation::{DIGITS, FIRST_FD, NUMBER_LINE, UNKNOWN, decimal, render_names, render_number};
use crate::cstr::CStrPtr;
use crate::environ::{Changes, Environ};
use crate::error::{Call, Error, Table, Variable};
use crate::launch::{Directory, LaunchView};
use crate::placement::{Placement, Source, Step};
use crate::sys::{Cloned, Mask, Task};
use crate::table::{Active, NAMES_HEAD, NAMES_ROW, names_capacity};
use core::cell::Cell;
use core::convert::Infallible;
use core::ffi::{CStr, c_char};
use core::mem::MaybeUninit;
use heapless::{Vec, VecView};
use rustix::fd::{AsRawFd, BorrowedFd, RawFd};
use rustix::io::Errno;
use rustix::process::{Signal, getpid};

/// The longest path that execve takes, with its NUL.
const PATH_MAX: usize = 4096;

/// What is handed over.
pub(crate) struct HandOver<'r> {
    /// The sockets, for 3 and on.
    pub(crate) active: &'r [Active<'r>],
    /// The successor's end of the readiness socket, for the number behind them.
    pub(crate) readiness: Option<BorrowedFd<'r>>,
    /// Scratch space, one slot for each active socket.
    pub(crate) sources: &'r mut VecView<Source>,
    /// Scratch space for `LISTEN_FDNAMES`.
    pub(crate) names: &'r mut [u8],
}

/// Scratch space for a [`HandOver`] of up to `N` sockets: nothing in it is written before a restart, and then no
/// more than the sockets take.
#[derive(Debug)]
pub(crate) struct Scratch<const N: usize> {
    sources: Vec<Source, N>,
    names: MaybeUninit<NamesLine<N>>,
}

/// Room for `LISTEN_FDNAMES`, as much as the table of active sockets counts on.
#[repr(C)]
struct NamesLine<const N: usize> {
    head: [u8; NAMES_HEAD],
    rows: [[u8; NAMES_ROW]; N],
}

impl<const N: usize> Scratch<N> {
    pub(crate) const fn new() -> Self {
        Self { sources: Vec::new(), names: MaybeUninit::uninit() }
    }

    /// The parts of a [`HandOver`]; the second has room for `names` bytes, or less if the capacity is less.
    pub(crate) fn parts(&mut self, names: usize) -> (&mut VecView<Source>, &mut [u8]) {
        let len = names.min(names_capacity(N));
        let start = self.names.as_mut_ptr().cast::<u8>();
        // SAFETY: within the line, which is nothing but bytes, one field behind the other without a gap.
        unsafe { start.write_bytes(0, len) };
        // SAFETY: as above, and these bytes were just initialised.
        let line = unsafe { core::slice::from_raw_parts_mut(start, len) };
        (self.sources.as_mut_view(), line)
    }
}

/// What the clone needs to become the successor.
pub(super) struct Image<'r> {
    directory: &'r Directory,
    program: Program<'r>,
    argv: &'r [Option<CStrPtr>],
    envp: &'r [Cell<Option<CStrPtr>>],
    /// `LISTEN_PID=` and its digits, if the successor gets any descriptor.
    pid: Option<Digits<'r>>,
    /// `WATCHDOG_PID=` and its digits, if the watchdog watches this process.
    watchdog_pid: Option<Digits<'r>>,
    /// `LISTEN_PIDFDID=`, its digits, and its slot, which is the last of the table.
    pidfd_id: Option<(Digits<'r>, &'r Cell<Option<CStrPtr>>)>,
    placement: Placement<'r>,
    count: RawFd,
    readiness: Option<RawFd>,
    /// The signal mask that the successor gets.
    pub(super) mask: Option<Mask>,
    /// Whether the clone gives way to signals that came since they were blocked.
    pub(super) yields: bool,
    /// The signal that the clone is to get when its parent ends.
    pub(super) parent_death_signal: Option<Signal>,
    /// How far the clone came, where it shares memory.
    pub(super) progress: Progress,
}

/// What a clone that is killed leaves behind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Progress {
    /// It did not begin, or has memory of its own.
    Unknown,
    Begun,
    Executes,
}

/// A variable whose digits the clone writes.
type Digits<'r> = &'r [Cell<u8>];

enum Program<'r> {
    Path(&'r CStr),
    Search { name: &'r [u8], path: &'r [u8] },
    Fd(RawFd),
}

/// What makes the clone of a prepared image.
pub(super) type Run<'r> = dyn FnMut(&mut Image<'_>) -> Result<Cloned<Error>, Error> + 'r;

/// Prepares the image and calls `run` with it. Whatever `run` answers, the launch's tables read as before
/// when this returns.
pub(super) fn with_image(
    launch: LaunchView<'_>,
    restart: &Restart<'_>,
    hand_over: HandOver<'_>,
    run: &mut Run<'_>,
) -> Result<Cloned<Error>, Error> {
    let LaunchView { args, vars, directory, secure } = launch;
    if secure && !is_told(&restart.executable) {
        return Err(Error::Untrusted);
    }
    let args_len = args.len();
    let mut changes = Changes::new();
    let mut lines = [[0; NUMBER_LINE]; 5];
    let mut environ = Environ::new(vars)?;
    let result = prepare(args, &mut environ, &mut changes, &mut lines, directory, restart, hand_over, run);
    environ.undo(&mut changes);
    args.truncate(args_len);
    result
}

/// Whether the caller says which program to run, and leaves nothing to whoever made the launch.
fn is_told(executable: &Executable<'_>) -> bool {
    match executable {
        Executable::Launched => false,
        Executable::Path(path) => path.to_bytes().starts_with(b"/"),
        Executable::Fd(_) | Executable::SameImage => true,
    }
}

#[allow(clippy::too_many_arguments, reason = "the frame that the image points into, split from its undoing")]
fn prepare(
    args: &mut VecView<Option<CStrPtr>>,
    environ: &mut Environ<'_>,
    changes: &mut Changes,
    lines: &mut [[u8; NUMBER_LINE]; 5],
    directory: &Directory,
    restart: &Restart<'_>,
    hand_over: HandOver<'_>,
    run: &mut Run<'_>,
) -> Result<Cloned<Error>, Error> {
    let HandOver { active, readiness, sources, names } = hand_over;
    let program = args.first().copied().flatten();
    let path = environ.find(b"PATH");
    let own_args = args.len();
    for arg in restart.args.unwrap_or(&[]).iter().map(Some).chain(restart.args.map(|_| None)) {
        // SAFETY: the slot is gone before `restart` is: `with_image` truncates the table.
        let arg = arg.and_then(|arg| unsafe { CStrPtr::new(arg.as_ptr()) });
        args.push(arg).map_err(|_| Error::Capacity {
            table: Table::Arguments,
            needed: own_args + restart.args.map_or(0, <[_]>::len) + 1,
            capacity: args.capacity(),
        })?;
    }
    let argv = args.get(if restart.args.is_some() { own_args } else { 0 }..).unwrap_or(&[]);
    // An empty table has no null pointer, at which the kernel stops.
    if !matches!(argv, [Some(_), .., None]) {
        return Err(Error::NoArguments);
    }

    for (position, change) in restart.changes.iter().enumerate() {
        apply(change, position, environ, changes)?;
    }
    let count = active.len();
    let [fds, ready_fd, pid, watchdog_pid, pidfd_id] = lines;
    let named = active.iter().any(|slot| slot.name != UNKNOWN);
    let granted = count > 0 || readiness.is_some();
    let ready_number = FIRST_FD as u64 + count as u64;
    put_number(environ, changes, Variable::Fds, (count > 0).then_some(count as u64), fds)?;
    put_number(environ, changes, Variable::ReadyFd, readiness.map(|_| ready_number), ready_fd)?;
    let names_line = if named {
        render_names(active.iter().map(|slot| slot.name), names)?;
        Some(&*names)
    } else {
        None
    };
    put(environ, changes, Variable::Names, names_line)?;
    // The clone fills in the digits, so the strings are cells from here on.
    let pid = granted.then(|| cells(Variable::Pid, pid)).transpose()?;
    put_cells(environ, changes, Variable::Pid, pid)?;
    // One that names another process is not about this one, and stays as it is.
    let watchdog_pid = environ
        .var(Variable::WatchdogPid.name().as_bytes())
        .is_some_and(is_own)
        .then(|| cells(Variable::WatchdogPid, watchdog_pid))
        .transpose()?;
    if watchdog_pid.is_some() {
        put_cells(environ, changes, Variable::WatchdogPid, watchdog_pid)?;
    }
    environ.remove(Variable::PidfdId.name().as_bytes(), changes)?;
    let pidfd_id = granted.then(|| cells(Variable::PidfdId, pidfd_id)).transpose()?;
    put_cells(environ, changes, Variable::PidfdId, pidfd_id)?;

    sources.clear();
    for slot in active {
        // The caller's scratch space has as many slots as the table of active sockets.
        sources.push(Source::new(slot.fd.as_raw_fd())).map_err(|_| Error::Capacity {
            table: Table::Active,
            needed: count,
            capacity: sources.capacity(),
        })?;
    }
    let program = match restart.executable {
        Executable::Path(path) => Program::Path(path),
        Executable::Fd(fd) => Program::Fd(fd.as_raw_fd()),
        Executable::SameImage => Program::Path(c"/proc/self/exe"),
        Executable::Launched => {
            let name = program.as_ref().ok_or(Error::NoArguments)?;
            if name.to_bytes().contains(&b'/') {
                Program::Path(name.as_c_str())
            } else {
                let path = path.as_ref().map_or(&b""[..], CStrPtr::to_bytes);
                Program::Search { name: name.to_bytes(), path: path.strip_prefix(b"PATH=").unwrap_or(path) }
            }
        }
    };
    let envp = environ.cells();
    let last = envp.len().checked_sub(2).and_then(|last| envp.get(last));
    let mut image = Image {
        directory,
        program,
        argv,
        envp,
        pid,
        watchdog_pid,
        pidfd_id: pidfd_id.zip(last),
        placement: Placement::new(sources, FIRST_FD),
        count: count as RawFd,
        readiness: readiness.map(|fd| fd.as_raw_fd()),
        mask: None,
        yields: false,
        parent_death_signal: None,
        progress: Progress::Unknown,
    };
    run(&mut image)
}

fn apply(
    change: &Change<'_>,
    position: usize,
    environ: &mut Environ<'_>,
    changes: &mut Changes,
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
        return Err(Error::InvalidChange { position });
    }
    match string {
        // SAFETY: the slot is put back before the caller's string goes: `with_image` undoes the changes.
        Some(string) => match unsafe { CStrPtr::new(string.as_ptr()) } {
            Some(string) => environ.set(name, string, changes),
            None => Ok(()),
        },
        None => environ.remove(name, changes),
    }
}

/// Whether a variable's value is this process's PID.
fn is_own(pid: &[u8]) -> bool {
    let mut digits = [0; DIGITS];
    let own = getpid().as_raw_nonzero().get().unsigned_abs();
    pid == decimal(own.into(), &mut digits)
}

/// Sets a variable to the line, or takes it out.
fn put(
    environ: &mut Environ<'_>,
    changes: &mut Changes,
    variable: Variable,
    line: Option<&[u8]>,
) -> Result<(), Error> {
    let name = variable.name().as_bytes();
    // SAFETY: the line ends with a NUL, and the slot is put back before it goes.
    match line.and_then(|line| unsafe { CStrPtr::new(line.as_ptr().cast()) }) {
        Some(line) => environ.set(name, line, changes),
        None => environ.remove(name, changes),
    }
}

fn put_number(
    environ: &mut Environ<'_>,
    changes: &mut Changes,
    variable: Variable,
    value: Option<u64>,
    line: &mut [u8],
) -> Result<(), Error> {
    let line = match value {
        Some(value) => {
            render_number(variable, value, line)?;
            Some(&*line)
        }
        None => None,
    };
    put(environ, changes, variable, line)
}

/// The variable with the value 0, for the clone to write another.
fn cells(variable: Variable, line: &mut [u8]) -> Result<Digits<'_>, Error> {
    render_number(variable, 0, line)?;
    Ok(Cell::from_mut(line).as_slice_of_cells())
}

fn put_cells(
    environ: &mut Environ<'_>,
    changes: &mut Changes,
    variable: Variable,
    line: Option<Digits<'_>>,
) -> Result<(), Error> {
    let name = variable.name().as_bytes();
    // SAFETY: the line ends with a NUL, the slot is put back before it goes, and it is not being read while
    // the clone writes its digits.
    match line.and_then(|line| unsafe { CStrPtr::new(line.as_ptr().cast()) }) {
        Some(line) => environ.set(name, line, changes),
        None => environ.remove(name, changes),
    }
}

/// Between clone and execve: becomes the successor, or answers why not.
pub(super) fn become_successor(task: &Task, image: &mut Image<'_>) -> Error {
    let Err(error) = attempt(task, image);
    error
}

impl Image<'_> {
    /// The number behind all that the successor gets.
    pub(super) fn first_free(&self) -> RawFd {
        FIRST_FD + self.count + RawFd::from(self.readiness.is_some())
    }
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
    task.close_on_exec_from(first_free).map_err(|errno| Error::call(Call::CloseRange, errno))?;
    write_pid(task, image);
    if let Some(signal) = image.parent_death_signal {
        task.set_parent_death_signal(signal).map_err(|errno| Error::call(Call::Prctl, errno))?;
    }
    if let Some(mask) = image.mask {
        if image.yields && task.is_signalled(mask) {
            return Err(Error::call(Call::Execve, Errno::INTR));
        }
        task.set_mask(mask).map_err(|errno| Error::call(Call::Sigprocmask, errno))?;
    }
    image.progress = Progress::Executes;
    Err(execute(task, image, program_fd))
}

/// Writes what only the clone knows into the variables that hold it.
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
        Some(fd) => {
            task.fchdir(fd.as_raw_fd()).map_err(|errno| Error::call_on(Call::Chdir, fd.as_raw_fd(), errno))
        }
        None => Ok(()),
    }
}

/// `fd`, or a duplicate of it above all targets if a target below `limit` would replace it.
fn out_of_the_way(task: &Task, fd: RawFd, limit: RawFd, first_free: RawFd) -> Result<RawFd, Error> {
    if fd >= limit {
        return Ok(fd);
    }
    task.duplicate_above(fd, first_free).map_err(|errno| Error::call_on(Call::Dup, fd, errno))
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
                    .map_err(|errno| Error::call_on(Call::Dup, from, errno))?;
            }
            Step::Unpark { to } => duplicate(task, spare, to)?,
        }
    }
    Ok(())
}

fn keep(task: &Task, fd: RawFd) -> Result<(), Error> {
    task.keep(fd).map_err(|errno| Error::call_on(Call::Fcntl, fd, errno))
}

fn duplicate(task: &Task, from: RawFd, to: RawFd) -> Result<(), Error> {
    task.duplicate_onto(from, to).map_err(|errno| Error::call_on(Call::Dup, from, errno))
}

/// Sees to it that 0, 1 and 2 are open in the successor. What is closed there, or has `FD_CLOEXEC` and so is
/// nobody's stdin but something that found the number free, becomes `/dev/null`.
fn fill_stdio(task: &Task) -> Result<(), Error> {
    for fd in 0..=2 {
        match task.is_close_on_exec(fd) {
            Ok(false) => continue,
            Ok(true) | Err(Errno::BADF) => {}
            Err(errno) => return Err(Error::call_on(Call::Fcntl, fd, errno)),
        }
        let null = task.open_null().map_err(|errno| Error::call(Call::OpenNull, errno))?;
        if null == fd {
            keep(task, fd)?;
        } else {
            duplicate(task, null, fd)?;
        }
    }
    Ok(())
}

fn write_digits(line: Digits<'_>, variable: Variable, value: u64) {
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
    Error::call(Call::Execve, errno)
}

/// Tries `name` in each directory of `path`, as a shell would, but for those that are not absolute.
///
/// Out of line, so that only a search takes the stack for a path.
#[cold]
#[inline(never)]
fn search(name: &[u8], path: &[u8], execute: impl Fn(&CStr) -> Errno) -> Error {
    if name.is_empty() {
        // Behind a directory it would be that.
        return Error::call(Call::Execve, Errno::NOENT);
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
            Errno::NOENT | Errno::NOTDIR => {}
            Errno::ACCESS => found = Errno::ACCESS,
            errno => return Error::call(Call::Execve, errno),
        }
    }
    if refused && found == Errno::NOENT && !path.is_empty() {
        return Error::RelativePath;
    }
    Error::call(Call::Execve, found)
}
