#![doc = include_str!("../README.md")]
#![no_std]

#[cfg(not(target_os = "linux"))]
compile_error!("gracenet is made of Linux system calls: it supports Linux only");

#[cfg(any(test, feature = "std"))]
extern crate std;

pub mod activation;
pub mod address;
pub mod cstr;
pub mod descriptor;
pub mod environ;
pub mod error;
pub mod launch;
pub mod notify;
pub mod placement;
pub mod ready;
pub mod restart;
pub mod signals;

mod deadline;
mod inherit;
mod listener;
mod net;
mod pidfd;
mod predecessor;
mod slot;
mod sys;
mod table;
mod variable;

/// The rustix whose types this crate's functions take and return.
pub use rustix;

pub use address::{Endpoint, Network};
pub use error::Error;
pub use launch::Launch;
pub use listener::{Description, ListenOptions};
pub use net::{InheritOptions, Net, Rejected, SocketRef};
pub use notify::Notifier;
pub use predecessor::Predecessor;
pub use ready::Refusal;
pub use restart::{Change, Executable, Failure, Parentage, Readiness, Restart, Successor};
pub use signals::Signals;
pub use table::SocketId;
pub use variable::Variable;
