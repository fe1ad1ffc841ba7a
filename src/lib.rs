#![doc = include_str!("../README.md")]
#![no_std]

#[cfg(not(target_os = "linux"))]
compile_error!("gracenet is made of Linux system calls: it supports Linux only");

#[cfg(any(test, feature = "std"))]
extern crate std;

pub mod address;
pub mod descriptor;
pub mod error;
pub mod launch;
pub mod notify;
pub mod restart;
pub mod service;

mod activation;
mod cstr;
mod deadline;
mod debt;
mod digits;
mod environ;
mod failure;
mod handover;
mod hash;
mod inherit;
mod listener;
mod moment;
mod names;
mod net;
mod pidfd;
mod placement;
mod predecessor;
mod ready;
mod signals;
mod slot;
mod sys;
mod table;
mod variable;

/// The rustix whose types this crate's functions take and return.
pub use rustix;

#[doc(inline)]
pub use address::{Endpoint, Network};
#[doc(inline)]
pub use error::Error;
#[doc(inline)]
pub use launch::Launch;
pub use listener::ListenOptions;
pub use net::{InheritOptions, Net, Rejected, SocketRef};
#[doc(inline)]
pub use notify::Notifier;
pub use predecessor::Predecessor;
pub use ready::Refusal;
#[doc(inline)]
pub use restart::{Failure, Progress, Restart, Successor, Unsettled};
#[cfg(feature = "std")]
#[doc(inline)]
pub use service::ListenError;
#[doc(inline)]
pub use service::{Event, Leave, Moment, Policy, Process, Reload, Request, Service};
pub use signals::Signals;
pub use table::SocketId;
pub use variable::Variable;

// Documented where they belong.
#[doc(hidden)]
pub use descriptor::Description;
#[doc(hidden)]
pub use restart::{Change, Executable, Parentage, Readiness};

/// What the crate's own fuzz targets, benchmarks and tests reach beyond the documented interface. It may change in any
/// release.
#[doc(hidden)]
pub mod internal {
    pub use crate::activation::{
        Activation, FIRST_FD, NAME_MAX, NUMBER_LINE, UNKNOWN, Variables, check_name, render_number,
    };
    pub use crate::address::{Equivalent, Key, Keys};
    pub use crate::cstr::CStrPtr;
    pub use crate::digits::{DIGITS, decimal};
    pub use crate::environ::{CHANGES, Environ, Journal};
    pub use crate::names::{Name, Names};
    pub use crate::placement::{Placement, Source, Step};
}
