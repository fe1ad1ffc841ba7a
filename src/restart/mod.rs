//! Restart: starting the program again with the active sockets, as a second process or in place.
//!
//! [`Net::spawn`](crate::Net::spawn) starts a successor that overlaps with this process until it is ready.
//! [`Net::exec`](crate::Net::exec) replaces the program of this process and keeps its PID. Both do the same work at
//! the same place, between clone and execve (`child`). They differ in whether the clone is a process or a thread.
//!
//! | module | holds |
//! |---|---|
//! | `image` | what the successor gets |
//! | `child` | the steps from clone to execve |
//! | `spawn` | a clone that is a process |
//! | `exec` | a clone that is a thread with descriptors of its own |
//! | `progress` | the state of the process that was started: a pure machine |
//! | `successor` | that process: its descriptors, and the steps that the machine asks for |

mod child;
pub(crate) mod exec;
pub(crate) mod image;
pub(crate) mod progress;
pub(crate) mod spawn;
mod successor;

pub use crate::failure::Failure;
pub use progress::{Progress, Unsettled};
pub use successor::Successor;

use core::ffi::CStr;
use core::time::Duration;
use rustix::fd::BorrowedFd;

/// How to restart. The default repeats the launch and expects the successor to report.
///
/// ```
/// use gracenet::restart::{Change, Executable};
/// use gracenet::{Policy, Restart};
///
/// const CHANGES: [Change<'_>; 1] = [Change::Set(c"RUST_LOG=info")];
/// const RESTART: Restart<'_> =
///     Restart::new().executable(Executable::Path(c"/usr/local/bin/server")).changes(&CHANGES);
/// const POLICY: Policy<'_> = Policy::new().restart(RESTART);
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Restart<'a> {
    pub(crate) executable: Executable<'a>,
    pub(crate) args: Option<&'a [&'a CStr]>,
    pub(crate) changes: &'a [Change<'a>],
    pub(crate) readiness: Readiness,
    pub(crate) parentage: Option<Parentage>,
}

/// Which program the successor runs.
///
/// It is resolved when the restart happens. If a file or a symbolic link was replaced since, the successor runs the
/// new program.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub enum Executable<'a> {
    /// The program in the first argument of the launch, resolved as in Go gracenet.
    ///
    /// With a slash it is a path, relative to the launch directory. Without a slash it is looked up in the `PATH` of
    /// the launch, whose empty and relative elements are refused.
    #[default]
    #[doc(alias = "LookPath")]
    Launched,
    /// The program at this path, relative to the launch directory.
    Path(&'a CStr),
    /// The program in this open file. It gets `FD_CLOEXEC`, and a script cannot be run from such a descriptor.
    #[doc(alias = "fexecve")]
    Fd(BorrowedFd<'a>),
    /// The very program that this process runs, through `/proc/self/exe`, even if its file has been replaced or
    /// deleted.
    ///
    /// Its name in `/proc/PID/comm`, by which pgrep(1) finds processes, becomes `exe`.
    SameImage,
}

/// A change of the successor's environment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Change<'a> {
    /// Replaces or adds a variable: `NAME=value`.
    Set(&'a CStr),
    /// Removes the variable of this name.
    Remove(&'a CStr),
}

/// When a successor counts as ready.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum Readiness {
    /// The successor reports with [`Net::ready`](crate::Net::ready), or by writing `READY=1` to the socket whose
    /// number is in `LISTEN_READY_FD`.
    ///
    /// A successor that has reported and exits with status 0 was ready: it may have handed over to a successor of its
    /// own. If there is a service manager, such a successor has failed.
    #[default]
    Reported,
    /// The successor was executed. For programs that report nothing; they get no readiness socket.
    Executed,
    /// The successor is still alive after this time. For programs that report nothing but fail early; they get no
    /// readiness socket.
    Alive(Duration),
}

/// Whose child the successor is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Parentage {
    /// A child of this process, which reaps a successor that fails and gets its exit status.
    Child,
    /// A child of this process's parent, as this process is.
    ///
    /// A service manager properly stops and reaps only its own children. For example, systemd sends SIGTERM and
    /// SIGKILL at once to a main process that is not its child.
    ///
    /// This process cannot wait for a sibling. The sibling's pidfd becomes readable when it has ended. How it ended
    /// is known from Linux 6.15 on, if its parent reaps it; otherwise the failure is [`Failure::Vanished`]. The init
    /// process of a PID namespace has no siblings, so its successor becomes a child.
    #[doc(alias = "CLONE_PARENT")]
    Sibling,
}

impl<'a> Restart<'a> {
    /// Returns the default: the launch is repeated, and the successor reports that it is ready.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            executable: Executable::Launched,
            args: None,
            changes: &[],
            readiness: Readiness::Reported,
            parentage: None,
        }
    }

    /// Sets the program to run.
    #[must_use]
    pub const fn executable(mut self, executable: Executable<'a>) -> Self {
        self.executable = executable;
        self
    }

    /// Replaces the arguments. There must be a first one, which is the program's name. The new arguments use the free
    /// slots of the launch's table.
    #[must_use]
    pub const fn args(mut self, args: &'a [&'a CStr]) -> Self {
        self.args = Some(args);
        self
    }

    /// Changes the successor's environment. The launch's own environment is restored when the call is over.
    #[must_use]
    pub const fn changes(mut self, changes: &'a [Change<'a>]) -> Self {
        self.changes = changes;
        self
    }

    /// Sets when a successor counts as ready. Has no meaning for an exec in place.
    #[must_use]
    pub const fn readiness(mut self, readiness: Readiness) -> Self {
        self.readiness = readiness;
        self
    }

    /// Sets whose child the successor is. By default it is a sibling if there is a service manager to notify, and a
    /// child otherwise. Has no meaning for an exec in place.
    #[must_use]
    pub const fn parentage(mut self, parentage: Parentage) -> Self {
        self.parentage = Some(parentage);
        self
    }
}
