//! The last error of a handle: as a negative errno, by its parts, in words.

use core::ffi::{CStr, c_char, c_int};
use core::fmt;
use core::ptr::null;
use gracenet::{Error, Failure, Refusal, Unsettled, Variable};
use rustix::io::Errno;

#[derive(Clone, Copy)]
pub(crate) enum Last {
    None,
    /// A null pointer, not UTF-8, out of range.
    Argument,
    NoSuccessor,
    /// Only a handle of `gracenet_begin` has it.
    NotBegun,
    /// Only a handle of `gracenet_inherit` has it.
    Begun,
    Error(Error),
    Failure(Failure),
    /// The successor is in flight still.
    Unsettled(Unsettled),
}

impl From<Error> for Last {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

impl From<Failure> for Last {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::NotStarted(error) => Self::Error(error),
            failure => Self::Failure(failure),
        }
    }
}

/// `enum gracenet_kind`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) enum Kind {
    None,
    Call,
    Argument,
    Address,
    Capacity,
    Variable,
    NotOpen,
    NotInherited,
    State,
    Exited,
    Killed,
    Refused,
    Closed,
    Vanished,
    Cancelled,
    Manager,
}

/// `struct gracenet_error`.
#[repr(C)]
pub struct Parts {
    kind: Kind,
    number: c_int,
    fd: c_int,
    variable: *const c_char,
}

impl Last {
    /// What a function that fails so returns.
    pub(crate) fn code(&self) -> c_int {
        if let Self::None = self { 0 } else { -self.errno().raw_os_error() }
    }

    /// The errno that comes closest.
    pub(crate) fn errno(&self) -> Errno {
        match self {
            Self::None => Errno::from_raw_os_error(0),
            Self::Argument | Self::NotBegun | Self::Begun => Errno::INVAL,
            Self::NoSuccessor => Errno::SRCH,
            Self::Error(error) | Self::Unsettled(Unsettled::Untold(error) | Unsettled::Unseen(error)) => {
                errno(error)
            }
            Self::Unsettled(_) => Errno::AGAIN,
            Self::Failure(Failure::Cancelled | Failure::Deadline) => Errno::CANCELED,
            Self::Failure(_) => Errno::CHILD,
        }
    }

    pub(crate) fn parts(&self) -> Parts {
        match self {
            Self::None => Parts::of(Kind::None),
            Self::Argument => Parts::of(Kind::Argument),
            Self::NoSuccessor | Self::NotBegun | Self::Begun => Parts::of(Kind::State),
            Self::Error(error) | Self::Unsettled(Unsettled::Unseen(error)) => Parts::of_error(error),
            Self::Unsettled(Unsettled::Untold(error)) => {
                Parts { kind: Kind::Manager, ..Parts::of_error(error) }
            }
            Self::Unsettled(_) => Parts::of(Kind::Manager),
            Self::Failure(failure) => Parts::of_failure(failure),
        }
    }
}

impl fmt::Display for Last {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("nothing has failed"),
            Self::Argument => f.write_str("an argument is null, not UTF-8 or out of range"),
            Self::NoSuccessor => f.write_str("no successor was started"),
            Self::NotBegun => f.write_str("the handle has no service: gracenet_begin makes one"),
            Self::Begun => f.write_str("the service does this: ask it by gracenet_request"),
            Self::Error(error) => error.fmt(f),
            Self::Failure(failure) => failure.fmt(f),
            Self::Unsettled(why) => why.fmt(f),
        }
    }
}

/// The errno that comes closest.
fn errno(error: &Error) -> Errno {
    match error {
        Error::Call { errno, .. } => *errno,
        Error::Capacity { .. } => Errno::NOSPC,
        Error::Variable { .. } => Errno::PROTO,
        Error::NotOpen { .. } | Error::StaleId => Errno::BADF,
        Error::AlreadyInherited | Error::AlreadyBegun | Error::HandedOver => Errno::ALREADY,
        Error::UnknownNetwork(_) => Errno::PROTONOSUPPORT,
        Error::NotInherited | Error::NoArguments | Error::RelativePath => Errno::NOENT,
        Error::GivenUp => Errno::CANCELED,
        Error::InFlight | Error::NotReported => Errno::BUSY,
        Error::Killed { .. } => Errno::CHILD,
        Error::Untrusted | Error::Forked => Errno::PERM,
        _ => Errno::INVAL,
    }
}

impl Parts {
    const fn of(kind: Kind) -> Self {
        Self { kind, number: 0, fd: -1, variable: null() }
    }

    const fn numbered(kind: Kind, number: c_int) -> Self {
        Self { number, ..Self::of(kind) }
    }

    /// What does not go with what was asked before.
    pub(crate) const fn of_state(errno: Errno) -> Self {
        Self::numbered(Kind::State, errno.raw_os_error())
    }

    fn of_error(error: &Error) -> Self {
        match *error {
            Error::Call { fd, errno, .. } => {
                Self { fd: fd.unwrap_or(-1), ..Self::numbered(Kind::Call, errno.raw_os_error()) }
            }
            Error::UnknownNetwork(_) | Error::Address(_) | Error::Name(_) => Self::of(Kind::Address),
            Error::Capacity { needed, .. } => {
                Self::numbered(Kind::Capacity, needed.try_into().unwrap_or(c_int::MAX))
            }
            Error::Variable { variable, .. } => Self { variable: name(variable), ..Self::of(Kind::Variable) },
            Error::NotOpen { fd } => Self { fd, ..Self::of(Kind::NotOpen) },
            Error::NotInherited => Self::of(Kind::NotInherited),
            Error::Killed { signal } => Self::numbered(Kind::Killed, signal),
            _ => Self::of(Kind::State),
        }
    }

    fn of_failure(failure: &Failure) -> Self {
        match failure {
            Failure::Exited(status) => Self::numbered(Kind::Exited, *status),
            Failure::Killed(signal) => Self::numbered(Kind::Killed, *signal),
            Failure::Refused(Refusal::Errno(errno)) => Self::numbered(Kind::Refused, errno.raw_os_error()),
            Failure::Refused(Refusal::Code(code)) => {
                Self::numbered(Kind::Refused, (*code).try_into().unwrap_or(c_int::MAX))
            }
            Failure::Closed | Failure::Unknown(_) => Self::of(Kind::Closed),
            Failure::Cancelled | Failure::Deadline => Self::of(Kind::Cancelled),
            _ => Self::of(Kind::Vanished),
        }
    }
}

fn name(variable: Variable) -> *const c_char {
    let name: &CStr = match variable {
        Variable::Pid => c"LISTEN_PID",
        Variable::PidfdId => c"LISTEN_PIDFDID",
        Variable::Fds => c"LISTEN_FDS",
        Variable::Names => c"LISTEN_FDNAMES",
        Variable::ReadyFd => c"LISTEN_READY_FD",
        Variable::NotifySocket => c"NOTIFY_SOCKET",
        Variable::WatchdogUsec => c"WATCHDOG_USEC",
        Variable::WatchdogPid => c"WATCHDOG_PID",
        _ => return null(),
    };
    name.as_ptr()
}
