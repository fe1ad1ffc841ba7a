//! Process: how a program begins, in one call, from memory that is nobody's stack.
#![allow(unsafe_code)]

use super::sockets::Sockets;
use super::{Policy, Service};
use crate::error::Error;
use crate::launch::Launch;
use crate::net::Net;
use crate::notify::{self, Notifier};
use crate::service::Watchdog;
use crate::variable::Variable;
use core::cell::UnsafeCell;
use core::ffi::{c_char, c_int};
use core::fmt;
use core::sync::atomic::{AtomicBool, Ordering};

/// The memory of a program's launch and sockets, and the one call that begins its [`Service`].
///
/// `N` is the capacity of the [`Net`], `ARGS` and `VARS` are those of the [`Launch`]. It is all zeros, so that a static takes
/// no room in the program's file, and no more of it is touched than what it holds takes.
///
/// ```no_run
/// use gracenet::{Policy, Process};
///
/// static PROCESS: Process<16> = Process::new();
///
/// # fn main() -> Result<(), gracenet::Error> {
/// // SAFETY: first thing in main; no other thread, and nothing was opened yet.
/// let mut service = unsafe { PROCESS.begin(Policy::new()) }?;
/// # Ok(())
/// # }
/// ```
#[repr(C)]
pub struct Process<const N: usize = 16, const ARGS: usize = 1024, const VARS: usize = 2048> {
    is_begun: AtomicBool,
    parts: UnsafeCell<Parts<N, ARGS, VARS>>,
}

#[repr(C)]
struct Parts<const N: usize, const ARGS: usize, const VARS: usize> {
    net: Net<N>,
    launch: Launch<ARGS, VARS>,
}

// SAFETY: the parts are reached by the one caller that has found them not begun, and all of them may be sent to it.
unsafe impl<const N: usize, const ARGS: usize, const VARS: usize> Sync for Process<N, ARGS, VARS> {}

impl<const N: usize, const ARGS: usize, const VARS: usize> Default for Process<N, ARGS, VARS> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const N: usize, const ARGS: usize, const VARS: usize> Process<N, ARGS, VARS> {
    /// Nothing yet.
    #[must_use]
    pub const fn new() -> Self {
        let parts = Parts { net: Net::new(), launch: Launch::empty() };
        Self { is_begun: AtomicBool::new(false), parts: UnsafeCell::new(parts) }
    }

    /// Begins a program with libc: captures the launch, adopts what it inherits, finds the service manager, removes their
    /// variables from libc's environment, and takes the signals that `policy` says. Call it first thing in `main`.
    ///
    /// # Errors
    ///
    /// No descriptor is closed. Inherited descriptors that were adopted before the error stay with this value, which closes
    /// them when it is dropped. The variables may be removed, and the signals may be blocked.
    ///
    /// - [`Error::AlreadyBegun`]: this value was begun before. A program has one such value.
    /// - Those of [`Launch::from_libc`], [`Net::inherit`], [`Notifier::from_launch`] and [`Service::new`].
    ///
    /// # Safety
    ///
    /// - Nobody else owns the descriptors that the activation variables promise: nothing in this process has adopted them
    ///   before, or opened something on their numbers.
    /// - Nobody changes the environment while this call reads it.
    /// - There is one thread. A thread that was started before does not block the signals, and the first SIGUSR2 would end
    ///   the process there.
    /// - From then on nobody frees or rewrites the strings of arguments and environment: neither libc's `unsetenv` and
    ///   `setenv` of a variable that was there, nor `setproctitle`.
    #[inline]
    pub unsafe fn begin<'p>(&'p self, policy: Policy<'p>) -> Result<Service<'p>, Error> {
        let parts = self.parts()?;
        // SAFETY: the caller's contract.
        unsafe { parts.launch.capture_from_libc() }?;
        // SAFETY: as above.
        let service = unsafe { parts.assemble(policy, any_net) };
        for variables in [&Variable::ACTIVATION[..], &Variable::NOTIFICATION] {
            // SAFETY: as above; there is one thread.
            unsafe { crate::launch::remove_from_libc(variables) };
        }
        service
    }

    /// Begins a program without libc, from the stack pointer that it began with: see [`Launch::from_stack`].
    ///
    /// # Errors
    ///
    /// - As for [`Process::begin`].
    ///
    /// # Safety
    ///
    /// - As for [`Launch::from_stack`] and [`Process::begin`].
    pub unsafe fn begin_from_stack<'p>(
        &'p self,
        stack: *const usize,
        policy: Policy<'p>,
    ) -> Result<Service<'p, Net<N>>, Error> {
        let parts = self.parts()?;
        // SAFETY: the caller's contract.
        unsafe { parts.launch.capture_from_stack(stack) }?;
        // SAFETY: as above.
        unsafe { parts.assemble(policy, |net| net) }
    }

    /// Begins a program from what C's `main` was given: see [`Launch::new`]. The variables stay in libc's environment:
    /// remove them with [`remove_from_libc`](crate::launch::remove_from_libc).
    ///
    /// # Errors
    ///
    /// - As for [`Process::begin`].
    ///
    /// # Safety
    ///
    /// - As for [`Launch::new`] and [`Process::begin`].
    pub unsafe fn begin_from_main<'p>(
        &'p self,
        argc: c_int,
        argv: *const *const c_char,
        envp: *const *const c_char,
        policy: Policy<'p>,
    ) -> Result<Service<'p>, Error> {
        let parts = self.parts()?;
        // SAFETY: the caller's contract.
        unsafe { parts.launch.capture(argc, argv, envp) }?;
        // SAFETY: as above.
        unsafe { parts.assemble(policy, any_net) }
    }

    /// The parts, for the first caller.
    #[allow(clippy::mut_from_ref, reason = "one caller gets it, ever")]
    fn parts(&self) -> Result<&mut Parts<N, ARGS, VARS>, Error> {
        if self.is_begun.swap(true, Ordering::AcqRel) {
            return Err(Error::AlreadyBegun);
        }
        // SAFETY: nobody comes here twice, so there is one reference.
        Ok(unsafe { &mut *self.parts.get() })
    }
}

impl<const N: usize, const ARGS: usize, const VARS: usize> Parts<N, ARGS, VARS> {
    /// # Safety
    ///
    /// - As for [`Net::inherit`].
    unsafe fn assemble<'p, S: Sockets + ?Sized>(
        &'p mut self,
        policy: Policy<'p>,
        sockets: fn(&'p mut Net<N>) -> &'p mut S,
    ) -> Result<Service<'p, S>, Error> {
        // SAFETY: the caller's contract.
        unsafe { self.net.inherit(&mut self.launch) }?;
        if policy.has_manager {
            self.net.set_notifier(Notifier::from_launch(&self.launch)?);
        }
        let fed_within =
            if policy.watchdog == Watchdog::Off { None } else { notify::watchdog(&self.launch)? };
        let mut service = Service::assemble(sockets(&mut self.net), self.launch.view(), policy, fed_within)?;
        service.owns = true;
        Ok(service)
    }
}

/// A `Net` of any capacity, for a [`Service`] that is to be named without one.
fn any_net<'p, const N: usize>(net: &'p mut Net<N>) -> &'p mut (dyn Sockets + 'p) {
    net
}

impl<const N: usize, const ARGS: usize, const VARS: usize> fmt::Debug for Process<N, ARGS, VARS> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Process").field("is_begun", &self.is_begun).finish_non_exhaustive()
    }
}
