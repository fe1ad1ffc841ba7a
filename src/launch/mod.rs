//! The launch: how this process was started, which is what a restart repeats.
//!
//! A [`Launch`] points to the arguments and the environment that the kernel put on the stack, or libc keeps. It
//! copies no string. It remembers the working directory, and whether the start was privileged.
//!
//! Capture makes a handful of system calls, and nothing here changes the process.
//! [`Net::inherit`](crate::Net::inherit) rewrites the tables to consume the activation variables. A restart rewrites
//! them for as long as it lasts.
//!
//! | module | holds |
//! |---|---|
//! | this one | the [`Launch`] and its tables |
//! | `stack` | finding the initial stack, and whether the start was privileged |
//! | `directory` | the working directory |
//! | `libc` | what libc keeps: `environ` and the auxiliary vector |
#![allow(unsafe_code)]

mod directory;
mod libc;
mod stack;

pub(crate) use directory::Directory;
pub use libc::remove_from_libc;

use crate::cstr::CStrPtr;
use crate::environ::{self, Environ};
use crate::error::{Error, Table, counted};
use crate::slot::Slot;
use crate::variable::Variable;
use core::ffi::{CStr, c_char, c_int};
use heapless::{Vec, VecView};
use stack::read_privileged;

/// How this process was launched: arguments, environment, working directory. A restart repeats it.
///
/// ```no_run
/// # fn main() -> Result<(), gracenet::Error> {
/// // SAFETY: first thing in main; nothing changes the environment now, or frees its strings later.
/// let launch: gracenet::Launch = unsafe { gracenet::Launch::from_libc() }?;
/// println!("{:?} in {:?}", launch.args().next(), launch.var(b"PWD"));
/// # Ok(())
/// # }
/// ```
///
/// `ARGS` and `VARS` are the capacities of the two pointer tables. Each counts the null pointer that ends the table;
/// a slot is one pointer. Make the table of variables larger than the environment: a restart adds up to five
/// variables, and its caller may add others. Make the table of arguments twice as large if a restart is to replace
/// the arguments.
///
/// The working directory is held open, so a restart finds it again after it was renamed. Capture the launch after
/// chroot(2), or the successor starts outside it. A program that gives up privileges captures the launch after that
/// too. Otherwise it must start in a directory that it may still enter then, or no restart works.
#[derive(Debug)]
#[repr(C)]
pub struct Launch<const ARGS: usize = 1024, const VARS: usize = 2048> {
    directory: Directory,
    privileged: bool,
    args: Vec<Option<CStrPtr>, ARGS>,
    // Last, in a `Process` too: what nobody fills of it need not be resident.
    vars: Vec<Option<CStrPtr>, VARS>,
}

/// A [`Launch`] of any capacity, for a restart to rewrite.
pub(crate) struct LaunchView<'l> {
    pub(crate) args: &'l mut VecView<Option<CStrPtr>>,
    pub(crate) vars: &'l mut VecView<Option<CStrPtr>>,
    pub(crate) directory: &'l Directory,
    pub(crate) privileged: bool,
}

impl LaunchView<'_> {
    /// Returns the view for a shorter time.
    pub(crate) const fn reborrow(&mut self) -> LaunchView<'_> {
        LaunchView {
            args: self.args,
            vars: self.vars,
            directory: self.directory,
            privileged: self.privileged,
        }
    }
}

impl<const ARGS: usize, const VARS: usize> Launch<ARGS, VARS> {
    /// Returns a launch without arguments and variables, for [`Launch::capture_from_libc`] and
    /// [`Launch::capture_from_stack`]. It is all zeros, so a static uses no space in the program's file.
    #[must_use]
    pub const fn empty() -> Self {
        let directory = Directory { path: None, fd: Slot::Empty };
        Self { args: Vec::new(), vars: Vec::new(), directory, privileged: false }
    }

    /// Captures the launch from the arguments of C's `main`.
    ///
    /// # Errors
    ///
    /// - [`Error::Capacity`]: there are more arguments or variables than fit; the error has their number.
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
        unsafe { launch.capture(argc, argv, envp) }?;
        Ok(launch)
    }

    /// Captures the launch as [`Launch::new`] does, in place. The previous content is lost; on an error the launch is
    /// empty.
    ///
    /// # Errors
    ///
    /// As for [`Launch::new`].
    ///
    /// # Safety
    ///
    /// - As for [`Launch::new`].
    pub unsafe fn capture(
        &mut self,
        argc: c_int,
        argv: *const *const c_char,
        envp: *const *const c_char,
    ) -> Result<(), Error> {
        // SAFETY: the caller's contract.
        unsafe { self.fill(argc.max(0) as usize, argv, envp, read_privileged()) }
    }

    /// Captures the launch from the stack pointer that the process started with. It is the address of argc, which
    /// argv, envp and the auxiliary vector follow.
    ///
    /// # Errors
    ///
    /// - [`Error::Capacity`]: there are more arguments or variables than fit; the error has their number.
    /// - [`Error::Call`]: there is no descriptor, or no memory, left to open the working directory.
    ///
    /// # Safety
    ///
    /// - `stack` is the value of the stack pointer at the program's entry.
    /// - The memory that `stack` points to stays there, unchanged, as long as the `Launch` is used.
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

    /// Captures the launch as [`Launch::from_stack`] does, in place. The previous content is lost; on an error the
    /// launch is empty.
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

    /// Fills the tables, or leaves them empty on an error.
    ///
    /// # Safety
    ///
    /// - As for [`Launch::new`].
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

    /// Iterates over the arguments, the program's name first.
    pub fn args(&self) -> impl Iterator<Item = &CStr> {
        self.args.iter().map_while(Option::as_ref).map(CStrPtr::as_c_str)
    }

    /// Iterates over the environment that a successor gets, as `NAME=value`, without the variables that a restart
    /// adds.
    pub fn vars(&self) -> impl Iterator<Item = &CStr> {
        self.vars.iter().map_while(Option::as_ref).map(CStrPtr::as_c_str)
    }

    /// Returns the value of the variable `name`.
    #[must_use]
    #[doc(alias = "getenv")]
    pub fn var(&self, name: &[u8]) -> Option<&[u8]> {
        environ::var(self.vars.as_view(), name)
    }

    /// Returns whether the start was privileged: set-user-ID or set-group-ID, or capabilities were given.
    ///
    /// Such a process must not trust its starter. So the activation variables are ignored, and a restart needs to be
    /// given the program to run.
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

    /// Removes the activation variables from the table.
    pub(crate) fn consume(&mut self) -> Result<(), Error> {
        let mut environ = Environ::new(self.vars.as_mut_view())?;
        for variable in Variable::ACTIVATION {
            environ.consume(variable.name().as_bytes());
        }
        Ok(())
    }
}

const AT_NULL: usize = 0;
const AT_SECURE: usize = 23;
const AT_RANDOM: usize = 25;

/// Returns how many strings a table holds before its null pointer; 0 if the table itself is null.
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
/// - `strings` points to `count` strings, which stay there as long as the table is used.
unsafe fn point_to(
    strings: *const *const c_char,
    count: usize,
    name: Table,
    table: &mut VecView<Option<CStrPtr>>,
) -> Result<(), Error> {
    let full =
        Error::Capacity { table: name, needed: counted(count + 1), capacity: counted(table.capacity()) };
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
    use super::*;
    use std::vec::Vec as StdVec;

    /// Returns an initial stack: argc, argv, envp, auxiliary vector.
    pub(super) fn stack(
        args: &[&'static CStr],
        vars: &[&'static CStr],
        auxv: &[[usize; 2]],
    ) -> StdVec<usize> {
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
        // SAFETY: nothing is adopted, because the variables are ignored, wrong names included.
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

    #[test]
    fn libc_and_the_kernel_agree() {
        // SAFETY: the test harness changes neither arguments nor environment.
        let launch: Launch = unsafe { Launch::from_libc() }.unwrap();
        let args: StdVec<_> = std::env::args().collect();
        assert!(launch.args().map(|arg| arg.to_str().unwrap()).eq(args.iter()));
        assert_eq!(launch.vars().count(), std::env::vars_os().count());
        assert!(!launch.is_privileged());
    }
}
