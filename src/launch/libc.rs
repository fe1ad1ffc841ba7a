//! The launch as libc keeps it, and libc's own environment.
//!
//! A program links nothing of libc unless it calls a function of this module: every function is generic or
//! `#[inline]`.

use super::stack::{find_stack, find_stack_of, initial_stack};
use super::{AT_RANDOM, AT_SECURE, Launch};
use crate::cstr::CStrPtr;
use crate::error::Error;
use crate::variable::Variable;
use core::ffi::{c_char, c_ulong};

impl<const ARGS: usize, const VARS: usize> Launch<ARGS, VARS> {
    /// Captures the launch from the running libc. For std programs; call it first thing in `main`.
    ///
    /// The arguments come from the initial stack. The auxiliary vector leads to the stack, or else `/proc/self/stat`.
    /// The environment comes from libc's `environ` as it is now.
    ///
    /// # Errors
    ///
    /// - [`Error::Capacity`]: there are more arguments or variables than fit; the error has their number.
    /// - [`Error::Call`]: the initial stack was not found, and `/proc/self/stat` cannot be read or describes another
    ///   program. Or there is no descriptor, or no memory, left to open the working directory.
    ///
    /// # Safety
    ///
    /// - Nothing changes the environment while this call reads it.
    /// - From then on, as long as the `Launch` is used, nothing frees or rewrites the strings. Libc's `unsetenv` and
    ///   `setenv` do that to an existing variable, and `setproctitle` does it too.
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

    /// Captures the launch as [`Launch::from_libc`] does, in place. The previous content is lost; on an error the
    /// launch is empty.
    ///
    /// For a static, of whose tables only the part that the capture needs is touched.
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
        // SAFETY: libc's own variable, which the caller promised nothing changes now.
        let envp = unsafe { environ };
        let privileged = getauxval(AT_SECURE as c_ulong) != 0;
        // SAFETY: argv is the kernel's table, envp libc's.
        unsafe { self.fill(argc, argv, envp, privileged) }
    }
}

/// Removes `variables` from libc's `environ`, in place, so that no later child of the program gets them.
///
/// [`Variable::ACTIVATION`] lists the variables that [`Net::inherit`](crate::Net::inherit) consumes in the launch's
/// table. [`Variable::NOTIFICATION`] lists those by which a child could speak for this process to the service
/// manager. A [`Launch`] keeps its own table, from which a successor gets the notification variables.
///
/// # Safety
///
/// - Nothing reads or changes the environment during the call: best before a second thread exists.
///
/// # References
///
/// - `unset_environment` in `sd_listen_fds(3)` and `sd_notify(3)`
#[inline]
pub unsafe fn remove_from_libc(variables: &[Variable]) {
    unsafe extern "C" {
        static environ: *mut Option<CStrPtr>;
    }
    // SAFETY: libc's own variable, which the caller promised nothing changes now.
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
/// - `vector` points to strings and a null pointer, and nothing else uses it now.
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

#[cfg(test)]
mod tests {
    #![allow(clippy::indexing_slicing, reason = "tests")]
    use super::*;
    use core::ffi::CStr;

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
