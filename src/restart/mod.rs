//! Restart: starting the program again with the active sockets, as a second process or in place.
//!
//! [`Net::spawn`](crate::Net::spawn) makes a successor that overlaps with this process until it is ready;
//! [`Net::exec`](crate::Net::exec) replaces this process's image and keeps its PID. Both do the same work at
//! the same place, between clone and execve (`image`); what differs is whether the clone is a process or a
//! thread.
//!
//! | room | holds |
//! |---|---|
//! | `image` | what the successor will see, and the steps from clone to execve |
//! | `spawn` | a clone that is a process |
//! | `exec` | a clone that is a thread with descriptors of its own |
//! | `successor` | the process that was started: readiness, deadline, exit |

pub(crate) mod exec;
pub(crate) mod image;
pub(crate) mod spawn;
mod successor;

pub use successor::{Failure, Successor};

use core::ffi::CStr;
use core::time::Duration;
use rustix::fd::BorrowedFd;

/// How to restart. The default repeats the launch and expects the successor to report.
#[derive(Clone, Copy, Debug, Default)]
pub struct Restart<'a> {
    pub(crate) executable: Executable<'a>,
    pub(crate) args: Option<&'a [&'a CStr]>,
    pub(crate) changes: &'a [Change<'a>],
    pub(crate) readiness: Readiness,
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
    /// The very image this process runs, also if its file has been replaced or deleted: `/proc/self/exe`.
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
    /// whose number is in `LISTEN_READY_FD`.
    #[default]
    Reported,
    /// The successor was executed: for programs that report nothing. They get no readiness socket.
    Executed,
    /// The successor is still alive after this time: for programs that report nothing but fail early. They
    /// get no readiness socket.
    Alive(Duration),
}

impl<'a> Restart<'a> {
    /// The launch again, with readiness reported.
    #[must_use]
    pub const fn new() -> Self {
        Self { executable: Executable::Launched, args: None, changes: &[], readiness: Readiness::Reported }
    }

    /// Runs this program.
    #[must_use]
    pub const fn executable(mut self, executable: Executable<'a>) -> Self {
        self.executable = executable;
        self
    }

    /// Replaces the arguments, the first included. They take the free slots of the launch's table.
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
}
