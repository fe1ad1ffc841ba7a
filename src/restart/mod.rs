//! Restart: starting the program again with the active sockets, as a second process or in place.
//!
//! [`Net::spawn`](crate::Net::spawn) makes a successor that overlaps with this process until it is ready;
//! [`Net::exec`](crate::Net::exec) replaces this process's image and keeps its PID. Both do the same work at
//! the same place, between clone and execve (`child`); what differs is whether the clone is a process or a
//! thread.
//!
//! | module | holds |
//! |---|---|
//! | `image` | what the successor will see |
//! | `child` | the steps from clone to execve |
//! | `spawn` | a clone that is a process |
//! | `exec` | a clone that is a thread with descriptors of its own |
//! | `progress` | what becomes of the process that was started: a pure machine |
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

/// Which program the successor runs. It is resolved when the restart happens, so a file or a symbolic link
/// that was replaced since starts the new program.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub enum Executable<'a> {
    /// What the first argument of the launch names, as the seed resolves it: with a slash it is a path,
    /// relative to the launch directory; without, it is looked up in the `PATH` of the launch, of which
    /// empty and relative elements are refused.
    #[default]
    #[doc(alias = "LookPath")]
    Launched,
    /// This path, relative to the launch directory.
    Path(&'a CStr),
    /// This open file. A script cannot be run from a descriptor with `FD_CLOEXEC`, which it gets.
    #[doc(alias = "fexecve")]
    Fd(BorrowedFd<'a>),
    /// The very image this process runs, also if its file has been replaced or deleted: `/proc/self/exe`. Its name in
    /// `/proc/PID/comm`, by which pgrep(1) finds processes, becomes `exe`.
    SameImage,
}

/// A change of the successor's environment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Change<'a> {
    /// Replaces or adds a variable: `NAME=value`.
    Set(&'a CStr),
    /// Takes the variable of this name out.
    Remove(&'a CStr),
}

/// What counts as ready.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum Readiness {
    /// The successor says so, with [`Net::ready`](crate::Net::ready) or by writing `READY=1` to the socket
    /// whose number is in `LISTEN_READY_FD`. One that has said so and exits with status 0 was ready: it may have
    /// handed over to a successor of its own. (Where there is a service manager it has failed.)
    #[default]
    Reported,
    /// The successor was executed: for programs that report nothing. They get no readiness socket.
    Executed,
    /// The successor is still alive after this time: for programs that report nothing but fail early. They
    /// get no readiness socket.
    Alive(Duration),
}

/// Whose child the successor is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Parentage {
    /// This process's. It collects a successor that fails, and knows its status.
    Child,
    /// This process's parent's, as this process is: a service manager stops, and collects, only children of
    /// its own as it should. systemd sends SIGTERM and SIGKILL at once to a main process that is not.
    ///
    /// It cannot be waited for. That it ended shows on the pidfd; how it ended is known from Linux 6.15 on,
    /// if its parent collects it, and else [`Failure::Vanished`] says that it is not. The init process of a
    /// PID namespace has no siblings: there it becomes a child.
    #[doc(alias = "CLONE_PARENT")]
    Sibling,
}

impl<'a> Restart<'a> {
    /// The launch again, with readiness reported.
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

    /// Runs this program.
    #[must_use]
    pub const fn executable(mut self, executable: Executable<'a>) -> Self {
        self.executable = executable;
        self
    }

    /// Replaces the arguments, the first included, which there has to be. They take the free slots of the launch's
    /// table.
    #[must_use]
    pub const fn args(mut self, args: &'a [&'a CStr]) -> Self {
        self.args = Some(args);
        self
    }

    /// Changes the successor's environment; the launch's own reads as before once the call is over.
    #[must_use]
    pub const fn changes(mut self, changes: &'a [Change<'a>]) -> Self {
        self.changes = changes;
        self
    }

    /// Chooses what counts as ready. Has no meaning for an exec in place.
    #[must_use]
    pub const fn readiness(mut self, readiness: Readiness) -> Self {
        self.readiness = readiness;
        self
    }

    /// Chooses whose child the successor is. By default it is a sibling where there is a service manager to
    /// notify, and a child elsewhere. Has no meaning for an exec in place.
    #[must_use]
    pub const fn parentage(mut self, parentage: Parentage) -> Self {
        self.parentage = Some(parentage);
        self
    }
}
