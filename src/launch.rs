//! The launch: how this process was started, which is what a restart repeats.
//!
//! A [`Launch`] points to the arguments and the environment that the kernel put on the stack, or libc keeps;
//! it copies no string. It remembers the working directory, and whether the start was a set-user-ID one.
//! Capture makes a handful of system calls; nothing here changes the process. The tables are rewritten by
//! [`Net::inherit`](crate::Net::inherit), which consumes the activation variables, and for the time of a
//! restart.
#![allow(unsafe_code)]

use crate::cstr::CStrPtr;
use crate::environ::{self, Environ};
use crate::error::{Error, Operation, Table};
use crate::slot::Slot;
use crate::sys;
use crate::variable::Variable;
use core::ffi::{CStr, c_char, c_int, c_ulong};
use heapless::{Vec, VecView};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

/// How this process was launched: arguments, environment, working directory.
///
/// `ARGS` and `VARS` are the capacities of the two pointer tables, each counting the null pointer that ends
/// it; a slot is one pointer. The table of variables should have some room beyond the environment: a
/// restart adds up to five variables, and those that its caller adds. The table of arguments needs twice the
/// room if a restart is to replace them.
///
/// The working directory is held open, so that it is found again when it has been renamed. A program that means to
/// shut itself in with chroot(2) captures its launch after that: its successor would begin outside. One that gives up
/// privileges captures it after that too, or begins in a directory that it may enter then: else no restart may.
#[derive(Debug)]
pub struct Launch<const ARGS: usize = 1024, const VARS: usize = 2048> {
    args: Vec<Option<CStrPtr>, ARGS>,
    vars: Vec<Option<CStrPtr>, VARS>,
    directory: Directory,
    privileged: bool,
}

/// The working directory at the launch.
#[derive(Debug)]
pub(crate) struct Directory {
    /// `$PWD`, if it named the current directory: so a path through a symbolic link is followed anew.
    pub(crate) path: Option<CStrPtr>,
    /// The directory itself, for when the path has gone.
    pub(crate) fd: Slot<OwnedFd>,
}

/// A [`Launch`] of any capacity, for a restart to rewrite.
pub(crate) struct LaunchView<'l> {
    pub(crate) args: &'l mut VecView<Option<CStrPtr>>,
    pub(crate) vars: &'l mut VecView<Option<CStrPtr>>,
    pub(crate) directory: &'l Directory,
    pub(crate) privileged: bool,
}

impl<const ARGS: usize, const VARS: usize> Launch<ARGS, VARS> {
    /// Captures the launch from the running libc: the arguments from the initial stack, which the auxiliary
    /// vector leads to, or else `/proc/self/stat`; the environment from libc's `environ` as it is now. For std
    /// programs; call it first thing in `main`.
    ///
    /// # Errors
    ///
    /// - [`Error::Capacity`]: more arguments or variables than fit, with their number.
    /// - [`Error::Call`]: the initial stack was not found, and `/proc/self/stat` cannot be read or tells another
    ///   program's; or there is no descriptor, or no memory, left to open the working directory.
    ///
    /// # Safety
    ///
    /// - Nobody changes the environment while this call reads it.
    /// - From then on, as long as the `Launch` is used, nobody frees or rewrites the strings: neither libc's
    ///   `unsetenv` and `setenv` of a variable that was there, nor `setproctitle`.
    ///
    /// # References
    ///
    /// - `environ(7)`, field 28 of `proc_pid_stat(5)`, getauxval(3)
    #[inline]
    pub unsafe fn from_libc() -> Result<Self, Error> {
        let mut launch = Self::empty();
        // SAFETY: the caller's contract.
        unsafe { launch.capture_from_libc() }?;
        Ok(launch)
    }

    /// A launch without arguments and variables, for [`Launch::capture_from_libc`] and
    /// [`Launch::capture_from_stack`]. All zeros: a static takes no room in the program's file.
    #[must_use]
    pub const fn empty() -> Self {
        let directory = Directory { path: None, fd: Slot::Empty };
        Self { args: Vec::new(), vars: Vec::new(), directory, privileged: false }
    }

    /// The same as [`Launch::from_libc`], without a move: for a static, of whose tables no more is touched than
    /// what is captured takes. What was in it before is gone; on an error it is empty.
    ///
    /// # Errors
    ///
    /// As for [`Launch::from_libc`].
    ///
    /// # Safety
    ///
    /// - As for [`Launch::from_libc`].
    #[inline]
    pub unsafe fn capture_from_libc(&mut self) -> Result<(), Error> {
        unsafe extern "C" {
            static environ: *const *const c_char;
            safe fn getauxval(kind: c_ulong) -> c_ulong;
        }
        self.clear();
        let random = getauxval(AT_RANDOM as c_ulong) as usize;
        // SAFETY: as the kernel told libc, and libc tells this.
        let stack = match unsafe { find_stack(random) } {
            Some(stack) => stack,
            // SAFETY: as above; the variable is libc's own.
            None => match unsafe { find_stack_of(environ, random) } {
                Some(stack) => stack,
                None => initial_stack(random)?,
            },
        };
        // SAFETY: the kernel put the number of arguments where it says the stack began.
        let argc = unsafe { stack.read() };
        // SAFETY: the arguments' pointers follow it.
        let argv = unsafe { stack.add(1) }.cast::<*const c_char>();
        // SAFETY: libc's own variable, which the caller promised nobody changes now.
        let envp = unsafe { environ };
        let privileged = getauxval(AT_SECURE as c_ulong) != 0;
        // SAFETY: argv is the kernel's table, envp libc's.
        unsafe { self.fill(argc, argv, envp, privileged) }
    }

    /// Captures the launch from what C's `main` was given.
    ///
    /// # Errors
    ///
    /// - [`Error::Capacity`]: more arguments or variables than fit, with their number.
    /// - [`Error::Call`]: there is no descriptor, or no memory, left to open the working directory.
    ///
    /// # Safety
    ///
    /// - `argv` points to `argc` strings and a null pointer; `envp` is null, or points to strings and a null
    ///   pointer.
    /// - The strings stay there, unchanged, as long as the `Launch` is used.
    pub unsafe fn new(
        argc: c_int,
        argv: *const *const c_char,
        envp: *const *const c_char,
    ) -> Result<Self, Error> {
        let mut launch = Self::empty();
        // SAFETY: the caller's contract.
        unsafe { launch.fill(argc.max(0) as usize, argv, envp, read_privileged()) }?;
        Ok(launch)
    }

    /// Captures the launch from the stack pointer that the process began with: the address of argc, which
    /// argv, envp and the auxiliary vector follow.
    ///
    /// # Errors
    ///
    /// - [`Error::Capacity`]: more arguments or variables than fit, with their number.
    /// - [`Error::Call`]: there is no descriptor, or no memory, left to open the working directory.
    ///
    /// # Safety
    ///
    /// - `stack` is the value of the stack pointer at the program's entry.
    /// - What it points to stays there, unchanged, as long as the `Launch` is used.
    ///
    /// # References
    ///
    /// - System V ABI, "Process Initialization"; `getauxval(3)` for `AT_SECURE`
    pub unsafe fn from_stack(stack: *const usize) -> Result<Self, Error> {
        let mut launch = Self::empty();
        // SAFETY: the caller's contract.
        unsafe { launch.capture_from_stack(stack) }?;
        Ok(launch)
    }

    /// The same as [`Launch::from_stack`], without a move. What was in it before is gone; on an error it is empty.
    ///
    /// # Errors
    ///
    /// As for [`Launch::from_stack`].
    ///
    /// # Safety
    ///
    /// - As for [`Launch::from_stack`].
    pub unsafe fn capture_from_stack(&mut self, stack: *const usize) -> Result<(), Error> {
        // SAFETY: the initial stack begins with the number of arguments.
        let argc = unsafe { stack.read() };
        // SAFETY: the arguments' pointers follow it.
        let argv = unsafe { stack.add(1) };
        // SAFETY: the environment follows the null pointer behind them.
        let envp = unsafe { argv.add(argc + 1) };
        // SAFETY: the environment ends with a null word.
        let vars = unsafe { count(envp.cast()) };
        // SAFETY: the auxiliary vector follows that word.
        let mut entry = unsafe { envp.add(vars + 1) }.cast::<[usize; 2]>();
        let mut privileged = false;
        loop {
            // SAFETY: the vector goes on until its AT_NULL.
            match unsafe { entry.read() } {
                [AT_NULL, _] => break,
                [AT_SECURE, value] => privileged = value != 0,
                _ => {}
            }
            // SAFETY: the entry just read was not the last.
            entry = unsafe { entry.add(1) };
        }
        // SAFETY: both tables are the kernel's.
        unsafe { self.fill(argc, argv.cast(), envp.cast(), privileged) }
    }

    /// Fills the tables, or leaves them empty.
    ///
    /// # Safety
    ///
    /// As for [`Launch::new`].
    unsafe fn fill(
        &mut self,
        argc: usize,
        argv: *const *const c_char,
        envp: *const *const c_char,
        privileged: bool,
    ) -> Result<(), Error> {
        self.clear();
        self.privileged = privileged;
        let mut fill = || {
            // SAFETY: the caller promised `argc` strings.
            unsafe { point_to(argv, argc, Table::Arguments, self.args.as_mut_view()) }?;
            // SAFETY: the caller promised a table that ends with a null pointer, or none.
            let count = unsafe { count(envp) };
            // SAFETY: that many strings were just counted.
            unsafe { point_to(envp, count, Table::Variables, self.vars.as_mut_view()) }?;
            let pwd = environ::find(self.vars.as_view(), b"PWD").copied().filter(|_| !privileged);
            self.directory = Directory::current(pwd)?;
            Ok(())
        };
        fill().inspect_err(|_| self.clear())
    }

    fn clear(&mut self) {
        self.args.clear();
        self.vars.clear();
        self.directory = Directory { path: None, fd: Slot::Empty };
    }

    /// The arguments, the program's name first.
    pub fn args(&self) -> impl Iterator<Item = &CStr> {
        self.args.iter().map_while(Option::as_ref).map(CStrPtr::as_c_str)
    }

    /// The environment as the successor will see it, without what a restart adds: `NAME=value` each.
    pub fn vars(&self) -> impl Iterator<Item = &CStr> {
        self.vars.iter().map_while(Option::as_ref).map(CStrPtr::as_c_str)
    }

    /// The value of the variable `name`.
    #[must_use]
    #[doc(alias = "getenv")]
    pub fn var(&self, name: &[u8]) -> Option<&[u8]> {
        environ::var(self.vars.as_view(), name)
    }

    /// Whether the start was a set-user-ID or set-group-ID one, or gave capabilities: whoever made it is not
    /// to be believed, so the variables are ignored, and a restart wants to be told which program to run.
    #[must_use]
    #[doc(alias = "AT_SECURE")]
    pub const fn is_privileged(&self) -> bool {
        self.privileged
    }

    pub(crate) fn view(&mut self) -> LaunchView<'_> {
        LaunchView {
            args: self.args.as_mut_view(),
            vars: self.vars.as_mut_view(),
            directory: &self.directory,
            privileged: self.privileged,
        }
    }

    /// Takes the activation variables out of the table.
    pub(crate) fn consume(&mut self) -> Result<(), Error> {
        let mut environ = Environ::new(self.vars.as_mut_view())?;
        for variable in Variable::ACTIVATION {
            environ.consume(variable.name().as_bytes());
        }
        Ok(())
    }
}

/// Takes `variables` out of libc's `environ`, in place, so that no later child of the program sees them:
/// [`Variable::ACTIVATION`], which [`Net::inherit`](crate::Net::inherit) consumes in the launch's table, and
/// [`Variable::NOTIFICATION`], by which a child could speak for this process to the service manager. A
/// [`Launch`] keeps its own table, from which a successor gets the latter.
///
/// # Safety
///
/// - Nobody reads or changes the environment during the call: best before a second thread exists.
///
/// # References
///
/// - `unset_environment` in `sd_listen_fds(3)` and `sd_notify(3)`
#[inline]
pub unsafe fn remove_from_libc(variables: &[Variable]) {
    unsafe extern "C" {
        static environ: *mut Option<CStrPtr>;
    }
    // SAFETY: libc's own variable, which the caller promised nobody changes now.
    let vector = unsafe { environ };
    if !vector.is_null() {
        // SAFETY: libc keeps a table of strings that ends with a null pointer.
        unsafe { compact(vector, variables) };
    }
}

/// Closes the gaps that `variables` leave in a table of strings.
///
/// # Safety
///
/// - `vector` points to strings and a null pointer, and nobody else uses it now.
unsafe fn compact(vector: *mut Option<CStrPtr>, variables: &[Variable]) {
    let mut from = vector;
    let mut to = vector;
    loop {
        // SAFETY: `from` has not passed the null pointer.
        let string = unsafe { from.read() };
        let goes = string.is_some_and(|string| {
            variables.iter().any(|variable| string.is_variable(variable.name().as_bytes()))
        });
        if !goes {
            // SAFETY: `to` is behind `from` or at it.
            unsafe { to.write(string) };
            // SAFETY: as above; past the null pointer nothing is read or written.
            to = unsafe { to.add(1) };
        }
        if string.is_none() {
            return;
        }
        // SAFETY: the string just read was not the last.
        from = unsafe { from.add(1) };
    }
}

impl Directory {
    /// The working directory: as the seed has it, `$PWD` if that names it; and the directory itself.
    fn current(pwd: Option<CStrPtr>) -> Result<Self, Error> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = match rustix::fs::open(c".", flags, Mode::empty()) {
            Ok(fd) => Some(fd),
            Err(errno @ (Errno::MFILE | Errno::NFILE | Errno::NOMEM)) => {
                return Err(Error::call(Operation::OpenDirectory, errno));
            }
            // Not searchable, or on a file system that is gone: the successor begins where this process is when it
            // restarts.
            Err(_) => None,
        };
        let path = pwd.and_then(|pwd| pwd.behind("PWD=".len()));
        let path = path.filter(|path| path.to_bytes().starts_with(b"/") && same(fd.as_ref(), path));
        Ok(Self { path, fd: fd.into() })
    }

    pub(crate) fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.fd.as_ref().map(AsFd::as_fd)
    }
}

/// Whether `path` names the open directory.
fn same(directory: Option<&OwnedFd>, path: &CStrPtr) -> bool {
    let here = directory.and_then(|fd| rustix::fs::fstat(fd).ok());
    let there = rustix::fs::stat(path.as_c_str()).ok();
    match (here, there) {
        (Some(here), Some(there)) => (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino),
        _ => false,
    }
}

const AT_NULL: usize = 0;
const AT_SECURE: usize = 23;
const AT_RANDOM: usize = 25;

/// How many strings a table holds before its null pointer; 0 if it is null itself.
///
/// # Safety
///
/// - `table` is null, or points to strings and a null pointer.
unsafe fn count(table: *const *const c_char) -> usize {
    if table.is_null() {
        return 0;
    }
    (0..)
        // SAFETY: every entry before this one was not null, so the table goes on.
        .take_while(|position| !unsafe { table.wrapping_add(*position).read() }.is_null())
        .count()
}

/// Fills `table` with pointers to `count` strings, and a `None` behind them.
///
/// # Safety
///
/// - `strings` points to that many strings, which stay there as long as the table is used.
unsafe fn point_to(
    strings: *const *const c_char,
    count: usize,
    name: Table,
    table: &mut VecView<Option<CStrPtr>>,
) -> Result<(), Error> {
    let full = Error::Capacity { table: name, needed: count + 1, capacity: table.capacity() };
    if count >= table.capacity() {
        return Err(full);
    }
    for position in 0..count {
        // SAFETY: there are that many.
        let string = unsafe { strings.wrapping_add(position).read() };
        // SAFETY: the caller promised a string that stays.
        let string = unsafe { CStrPtr::new(string) };
        table.push(string).map_err(|_| full)?;
    }
    table.push(None).map_err(|_| full)
}

/// The address of the initial stack: below the bytes at `random` are the auxiliary vector, with an entry that
/// has this very address, the environment, the arguments, and their number. `None` if it does not look so, which
/// is not known to happen, and for a program without arguments.
///
/// # Safety
///
/// - `random` is the value of `AT_RANDOM`, or 0.
///
/// # References
///
/// - getauxval(3); `create_elf_tables` in Linux's `fs/binfmt_elf.c`
unsafe fn find_stack(random: usize) -> Option<*const usize> {
    /// How far below its bytes the entry is looked for, in words. The entries alone take about as much.
    const NEAR: usize = 48;
    /// No kind of entry has a larger number, and no string a smaller address.
    const KINDS: usize = 1024;
    let word = size_of::<usize>();
    let top = (random & !(word - 1)).checked_sub(NEAR * word)? + NEAR * word;
    let at = |down: usize| core::ptr::with_exposed_provenance::<usize>(top - down * word);
    // SAFETY: the stack reaches from these bytes down to where the program is now. What is asked for is not
    // farther down than the tables are, because each of them ends where it is said to, or the search does.
    let read = |down: usize| unsafe { at(down).read() };
    let mut entry = (2..NEAR).find(|down| read(*down) == AT_RANDOM && read(*down - 1) == random)?;
    while (1..KINDS).contains(&read(entry + 2)) {
        entry += 2;
    }
    // From here on down: a null pointer, the variables from the last to the first, a null pointer, the arguments
    // likewise, and how many those are, which is no string's address.
    let vars_end = entry + 1;
    let vars = (0..).find(|count| read(vars_end + 1 + count) < KINDS)?;
    let args_end = vars_end + 1 + vars;
    let args = (0..).find(|count| read(args_end + 1 + count) < KINDS.max(count + 1))?;
    let argc = args_end + 1 + args;
    let fits = read(vars_end) == 0 && read(args_end) == 0 && args > 0 && read(argc) == args;
    fits.then(|| at(argc))
}

/// How far the tables and strings of the initial stack reach at most, in bytes: the kernel grants 6 MiB.
const STACK_MAX: usize = 32 << 20;

/// The same where the bytes are not next to the tables, as under gVisor and valgrind: from libc's `environ`, as long as
/// that is the table that the auxiliary vector follows.
///
/// # Safety
///
/// - As for [`find_stack`]; `environ` is libc's.
#[cold]
#[inline(never)]
unsafe fn find_stack_of(environ: *const *const c_char, random: usize) -> Option<*const usize> {
    let table = environ.cast::<usize>();
    let room = random.checked_sub(table.addr()).filter(|room| *room < STACK_MAX)? / size_of::<usize>();
    // SAFETY: up to the bytes, which are on the same stack, and from the entry that has their address down to where the
    // arguments' number is.
    let read = |at: isize| unsafe { table.wrapping_offset(at).read() };
    (0..room as isize - 1).find(|at| read(*at) == AT_RANDOM && read(*at + 1) == random)?;
    // From here on down: a null pointer, the arguments from the last to the first, and how many those are, which is no
    // string's address.
    let args = (0..).find(|count| read(-2 - *count) <= *count as usize)?;
    let fits = read(-1) == 0 && args > 0 && read(-2 - args) == args as usize;
    fits.then(|| table.wrapping_offset(-2 - args))
}

/// The address of the initial stack, as the kernel tells it. It is another program's where the bytes at `random` are
/// far from it: the one that plays the kernel for this one.
fn initial_stack(random: usize) -> Result<*const usize, Error> {
    let error = |errno| Error::call(Operation::ReadStat, errno);
    let mut buffer = [0; 1024];
    let stat = read_file(c"/proc/self/stat", &mut buffer).map_err(error)?;
    let is_own = |stack: &usize| random == 0 || random.checked_sub(*stack).is_some_and(|far| far < STACK_MAX);
    let stack = stack_field(stat).filter(is_own).ok_or(error(Errno::INVAL))?;
    Ok(core::ptr::with_exposed_provenance(stack))
}

/// Field 28 of a process's stat line. The second is the program's name, which may hold anything.
fn stack_field(stat: &[u8]) -> Option<usize> {
    let behind_name = stat.iter().rposition(|byte| *byte == b')')? + 2;
    let field = stat.get(behind_name..)?.split(|byte| *byte == b' ').nth(25)?;
    let address = core::str::from_utf8(field).ok()?.parse().ok()?;
    (address != 0).then_some(address)
}

/// `AT_SECURE`, for whoever does not have the stack it stands on. If nothing tells, a process whose real and
/// effective IDs differ is one.
fn read_privileged() -> bool {
    let mut words = [0_usize; 128];
    let mut buffer = [0; 1024];
    let len = match sys::auxv(&mut words) {
        Ok(len) => len / size_of::<usize>(),
        Err(_) => match read_file(c"/proc/self/auxv", &mut buffer) {
            Ok(bytes) => {
                let chunks = bytes.chunks_exact(size_of::<usize>());
                let len = chunks.len();
                for (word, chunk) in words.iter_mut().zip(chunks) {
                    *word = chunk.first_chunk().map_or(0, |bytes| usize::from_ne_bytes(*bytes));
                }
                len
            }
            // Not even its own: a process that was made undumpable, as a set-user-ID start is.
            Err(Errno::ACCESS | Errno::PERM) => return true,
            Err(_) => 0,
        },
    };
    let vector = words.get(..len).unwrap_or(&words);
    let entry = vector.chunks_exact(2).find_map(|entry| match entry {
        [AT_SECURE, value] => Some(*value != 0),
        _ => None,
    });
    entry.unwrap_or_else(|| {
        use rustix::process::{getegid, geteuid, getgid, getuid};
        getuid() != geteuid() || getgid() != getegid()
    })
}

fn read_file<'b>(path: &CStr, buffer: &'b mut [u8]) -> Result<&'b [u8], Errno> {
    let file = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let mut len = 0;
    while let Some(rest) = buffer.get_mut(len..).filter(|rest| !rest.is_empty()) {
        match rustix::io::read(&file, rest) {
            Ok(0) => break,
            Ok(read) => len += read,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(buffer.get(..len).unwrap_or(&[]))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
    use super::*;
    use std::vec::Vec as StdVec;

    /// An initial stack: argc, argv, envp, auxiliary vector.
    fn stack(args: &[&'static CStr], vars: &[&'static CStr], auxv: &[[usize; 2]]) -> StdVec<usize> {
        let mut words = std::vec![args.len()];
        for strings in [args, vars] {
            words.extend(strings.iter().map(|string| string.as_ptr().expose_provenance()));
            words.push(0);
        }
        words.extend(auxv.iter().flatten());
        words
    }

    fn capture<const ARGS: usize, const VARS: usize>(stack: &[usize]) -> Result<Launch<ARGS, VARS>, Error> {
        // SAFETY: laid out as the kernel does, with strings that are static.
        unsafe { Launch::from_stack(stack.as_ptr()) }
    }

    #[test]
    fn reads_the_initial_stack() {
        let stack = stack(&[c"prog", c"", c"b"], &[c"A=1", c"=", c"B"], &[[6, 4096], [AT_SECURE, 0], [0, 0]]);
        let launch: Launch<8, 8> = capture(&stack).unwrap();
        assert!(launch.args().eq([c"prog", c"", c"b"]));
        assert!(launch.vars().eq([c"A=1", c"=", c"B"]));
        assert_eq!(launch.var(b"A"), Some(&b"1"[..]));
        assert_eq!(launch.var(b"B"), None);
        assert!(!launch.is_privileged());
    }

    #[test]
    fn believes_the_kernel_about_a_privileged_start() {
        let vars = [c"LISTEN_FDS=1", c"LISTEN_FDNAMES=a:b"];
        let stack = stack(&[c"prog"], &vars, &[[AT_SECURE, 1], [0, 0]]);
        let mut launch: Launch<8, 8> = capture(&stack).unwrap();
        assert!(launch.is_privileged());
        let mut net = crate::Net::<1>::new();
        // SAFETY: nothing is adopted: the variables are ignored, also that the names are wrong.
        assert_eq!(unsafe { net.inherit(&mut launch) }, Ok(0));
        assert_eq!(launch.vars().count(), 0);
    }

    #[test]
    fn says_what_does_not_fit_and_how_much_it_is() {
        let stack = stack(&[c"a", c"b", c"c"], &[c"A=", c"B=", c"C="], &[[0, 0]]);
        let full = |table| Error::Capacity { table, needed: 4, capacity: 3 };
        assert_eq!(capture::<3, 4>(&stack).unwrap_err(), full(Table::Arguments));
        assert_eq!(capture::<4, 3>(&stack).unwrap_err(), full(Table::Variables));
        assert!(capture::<4, 4>(&stack).is_ok());
    }

    /// What the kernel puts above the tables: padding, and the bytes that `AT_RANDOM` points to.
    fn with_random(mut stack: StdVec<usize>, padding: usize) -> (StdVec<usize>, usize) {
        stack.extend(core::iter::repeat_n(usize::MAX, padding + 2));
        let random = stack.as_ptr().expose_provenance() + (stack.len() - 2) * size_of::<usize>();
        let entry = stack.iter().rposition(|word| *word == AT_RANDOM);
        if let Some(entry) = entry {
            stack[entry + 1] = random;
        }
        (stack, random)
    }

    /// Words below the stack, for a search that goes wrong to end in.
    const BELOW: [usize; 64] = [0; 64];

    #[test]
    fn finds_the_stack_below_the_random_bytes() {
        let vector = [[6, 4096], [AT_SECURE, 0], [8, 0], [AT_RANDOM, 0], [0, 0]];
        let many = StdVec::from([c"x"; 3000]);
        for args in [&[c"prog"][..], &[c"prog", c"", c"b"], &many] {
            for vars in [&[][..], &[c"A=1"], &[c"A=1", c"B"], &many] {
                for padding in 0..8 {
                    let mut words = StdVec::from(BELOW);
                    words.extend(stack(args, vars, &vector));
                    let (words, random) = with_random(words, padding);
                    // SAFETY: laid out as the kernel does.
                    let found = unsafe { find_stack(random) };
                    assert_eq!(found, Some(&raw const words[BELOW.len()]), "{} {}", args.len(), vars.len());
                }
            }
        }
    }

    #[test]
    fn finds_no_stack_that_looks_otherwise() {
        let entry = [AT_RANDOM, 0];
        let long = [[6, 4096]; 48];
        let mut wrong_count = stack(&[c"prog"], &[c"A=1"], &[entry, [0, 0]]);
        wrong_count[0] = 2;
        let mut no_end = stack(&[c"prog"], &[c"A=1"], &[entry, [0, 0]]);
        no_end[4] = 4096;
        for words in [
            stack(&[c"prog"], &[c"A=1"], &[[6, 4096], [0, 0]]),
            stack(&[c"prog"], &[c"A=1"], &[&[entry][..], &long, &[[0, 0]]].concat()),
            stack(&[], &[c"A=1"], &[entry, [0, 0]]),
            wrong_count,
            no_end,
        ] {
            let (words, random) = with_random([&BELOW[..], &words].concat(), 1);
            // SAFETY: all that is read is in `words`.
            assert_eq!(unsafe { find_stack(random) }, None, "{words:?}");
        }
        // SAFETY: not there at all.
        assert_eq!(unsafe { find_stack(0) }, None);
    }

    #[test]
    fn the_stack_is_where_the_kernel_says() {
        // SAFETY: libc's own.
        let random = unsafe { libc::getauxval(libc::AT_RANDOM) };
        // SAFETY: what libc tells.
        assert_eq!(unsafe { find_stack(random as usize) }, Some(initial_stack(random as usize).unwrap()));
        // Another program's.
        assert!(initial_stack(random as usize / 2).is_err());
        assert!(initial_stack(1).is_err());
    }

    #[test]
    fn finds_the_stack_below_the_environment() {
        let vector = [[6, 4096], [AT_RANDOM, 0], [8, 0], [0, 0]];
        for args in [&[c"prog"][..], &[c"prog", c"", c"b"]] {
            for vars in [&[][..], &[c"A=1"], &[c"A=1", c"B"]] {
                let mut words = StdVec::from(BELOW);
                words.extend(stack(args, vars, &vector));
                let (words, random) = with_random(words, 4000);
                let environ = BELOW.len() + 1 + args.len() + 1;
                let find = |environ: usize| {
                    let environ = (&raw const words[environ]).cast();
                    // SAFETY: all that is read is in `words`.
                    unsafe { find_stack_of(environ, random) }
                };
                assert_eq!(find(environ), Some(&raw const words[BELOW.len()]));
                // Not the whole table, or not on this stack.
                assert_eq!(find(environ + 1), None);
                // SAFETY: nothing is read.
                assert_eq!(unsafe { find_stack_of(core::ptr::null(), random) }, None);
                let elsewhere: *const *const c_char = core::ptr::without_provenance(random + 64);
                // SAFETY: as above.
                assert_eq!(unsafe { find_stack_of(elsewhere, random) }, None);
            }
        }
    }

    #[test]
    fn finds_the_stack_field_whatever_the_program_is_called() {
        let rest = "S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 4711 26";
        for name in ["(prog)", "(a b) c)", "())"] {
            let stat = std::format!("42 {name} {rest}\n");
            assert_eq!(stack_field(stat.as_bytes()), Some(4711), "{name}");
        }
        assert_eq!(stack_field(b"42 (prog) S 1"), None);
        assert_eq!(stack_field(b""), None);
    }

    #[test]
    fn libc_and_the_kernel_agree() {
        // SAFETY: the test harness changes neither arguments nor environment.
        let launch: Launch = unsafe { Launch::from_libc() }.unwrap();
        let args: StdVec<_> = std::env::args().collect();
        assert!(launch.args().map(|arg| arg.to_str().unwrap()).eq(args.iter()));
        assert_eq!(launch.vars().count(), std::env::vars_os().count());
        assert!(!launch.is_privileged());
    }

    #[test]
    fn closes_the_gaps_in_libc_s_vector() {
        let string = |string: &'static CStr| Some(CStrPtr::from(string));
        let mut vector = [
            string(c"LISTEN_FDS=1"),
            string(c"A=1"),
            string(c"LISTEN_PID=1"),
            string(c"LISTEN_FDS=2"),
            string(c"LISTEN_FDSX=1"),
            string(c"LISTEN_READY_FD=4"),
            None,
        ];
        // SAFETY: ends with a `None`, and is used here alone.
        unsafe { compact(vector.as_mut_ptr(), &Variable::ACTIVATION) };
        assert_eq!(vector[..3], [string(c"A=1"), string(c"LISTEN_FDSX=1"), None]);
    }
}
