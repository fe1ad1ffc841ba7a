//! The one error type, and its words.
//!
//! An error is a `Copy` value of a few words, and borrows nothing. It names the call that failed and its descriptor,
//! the variable and its fault, or the table that is too small.
//!
//! A call that fails changes nothing, except where its documentation says so (for example
//! [`Signals::new`](crate::Signals::new) and [`Notifier::store`](crate::Notifier::store)).

mod errno;

pub(crate) use errno::describe;

use crate::variable::Variable;
use core::fmt;
use rustix::fd::RawFd;
use rustix::io::Errno;

/// A length or a position as an error keeps it; as the largest number, if it is larger than that.
pub(crate) const fn counted(number: usize) -> u32 {
    if number > u32::MAX as usize { u32::MAX } else { number as u32 }
}

/// Why a call of this crate failed.
///
/// ```
/// use gracenet::{Endpoint, Error};
///
/// let error = Endpoint::parse("tcp", "example.org:80").unwrap_err();
/// assert!(matches!(error, Error::Address(_)));
/// assert_eq!(error.to_string(), "host names are not resolved: give an IP address");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Error {
    /// A system call failed.
    Call {
        /// Which call.
        operation: Operation,
        /// The descriptor that the call was about, if there was one.
        fd: Option<RawFd>,
        /// The kernel's answer.
        errno: Errno,
    },
    /// A table of fixed size is too small.
    Capacity {
        /// Which table.
        table: Table,
        /// How many entries, or bytes, the table would have to hold for the first that does not fit. More may follow.
        needed: u32,
        /// How many entries, or bytes, the table holds.
        capacity: u32,
    },
    /// A variable from the service manager cannot be read.
    Variable {
        /// Which variable.
        variable: Variable,
        /// The fault of its value.
        fault: Fault,
    },
    /// A descriptor that the variables promise is not open.
    NotOpen {
        /// The descriptor's number.
        fd: RawFd,
    },
    /// An inherited descriptor is not a listener, and only listeners were asked for.
    NotAListener {
        /// The descriptor's number.
        fd: RawFd,
    },
    /// [`Net::inherit`](crate::Net::inherit) was called before.
    AlreadyInherited,
    /// No network has this name; holds the first bytes of the name.
    UnknownNetwork(Word),
    /// An address cannot be read.
    Address(AddressFault),
    /// A name is not valid in `LISTEN_FDNAMES`.
    Name(NameFault),
    /// No inherited socket matches.
    NotInherited,
    /// The id's socket was closed or taken.
    StaleId,
    /// The socket has no path, or its path is not this process's.
    NoPath,
    /// A successor got ready and owns what this process had. Drain and exit.
    HandedOver,
    /// The predecessor no longer waits for this process, and goes on serving.
    GivenUp,
    /// A signal killed the clone before it executed the program.
    Killed {
        /// The signal; 0 if it is unknown, because its parent did not reap the sibling, or because an emulator gave
        /// the clone memory of its own.
        signal: i32,
    },
    /// After a privileged start, the first argument, `PATH` and the working directory cannot decide which program to
    /// run, because the starter chose them.
    Untrusted,
    /// A successor is in flight.
    InFlight,
    /// [`Process::begin`](crate::Process::begin) was called before.
    AlreadyBegun,
    /// This process is a fork of the process that began the service, and may not speak for it.
    Forked,
    /// This process has not reported to its predecessor that it is ready. A successor of its own would serve beside
    /// the predecessor.
    NotReported,
    /// There is no first argument, which is the program's name.
    NoArguments,
    /// A change of the environment is not of the form `NAME=value`, or is one of the crate's own variables.
    InvalidChange {
        /// Which of the changes, counted from 0.
        position: u32,
    },
    /// The service manager would refuse, ignore or misread a message. Nothing was sent.
    Message {
        /// Which of the message's assignments, counted from 0.
        position: u32,
        /// The fault of the assignment.
        fault: MessageFault,
    },
    /// The program was not found in `PATH`, which holds an empty or a relative element. Such an element is refused.
    RelativePath,
}

impl Error {
    /// Returns the kernel's answer, if a system call failed.
    #[must_use]
    pub const fn errno(&self) -> Option<Errno> {
        match self {
            Self::Call { errno, .. } => Some(*errno),
            _ => None,
        }
    }

    pub(crate) const fn call(operation: Operation, errno: Errno) -> Self {
        Self::Call { operation, fd: None, errno }
    }

    pub(crate) const fn call_on(operation: Operation, fd: RawFd, errno: Errno) -> Self {
        Self::Call { operation, fd: Some(fd), errno }
    }
}

/// The system calls that [`Error::Call`] names.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the names are the kernel's")]
pub enum Operation {
    Barrier,
    Bind,
    Chdir,
    Chmod,
    Clone,
    CloseRange,
    Configure,
    Connect,
    Dup,
    Execve,
    Fcntl,
    Fstat,
    Fstatfs,
    Getsockname,
    Getsockopt,
    InterfaceIndex,
    Kill,
    Listen,
    Mmap,
    OpenDirectory,
    OpenNull,
    PidfdOpen,
    Pipe,
    Poll,
    Prctl,
    ReadSignal,
    ReadStat,
    Recv,
    Send,
    Setsockopt,
    Shutdown,
    Signalfd,
    Sigprocmask,
    Socket,
    Socketpair,
    Stat,
    Unlink,
    Waitid,
    Watch,
}

impl Operation {
    const fn phrase(self) -> &'static str {
        match self {
            Self::Barrier => "wait for the service manager",
            Self::Bind => "bind",
            Self::Chdir => "change to the launch directory",
            Self::Chmod => "change the mode of the socket's path",
            Self::Clone => "clone",
            Self::CloseRange => "close_range",
            Self::Configure => "configure",
            Self::Connect => "connect",
            Self::Dup => "duplicate",
            Self::Execve => "execve",
            Self::Fcntl => "fcntl",
            Self::Fstat => "fstat",
            Self::Fstatfs => "fstatfs",
            Self::Getsockname => "getsockname",
            Self::Getsockopt => "getsockopt",
            Self::InterfaceIndex => "find the zone's interface",
            Self::Kill => "pidfd_send_signal",
            Self::Listen => "listen",
            Self::Mmap => "mmap",
            Self::OpenDirectory => "open the current directory",
            Self::OpenNull => "open /dev/null",
            Self::PidfdOpen => "pidfd_open",
            Self::Pipe => "pipe",
            Self::Poll => "poll",
            Self::Prctl => "prctl",
            Self::ReadSignal => "read a signal",
            Self::ReadStat => "read /proc/self/stat",
            Self::Recv => "recv",
            Self::Send => "send",
            Self::Setsockopt => "setsockopt",
            Self::Shutdown => "shutdown",
            Self::Signalfd => "signalfd",
            Self::Sigprocmask => "rt_sigprocmask",
            Self::Socket => "socket",
            Self::Socketpair => "socketpair",
            Self::Stat => "stat",
            Self::Unlink => "unlink",
            Self::Waitid => "waitid",
            Self::Watch => "watch by epoll",
        }
    }
}

/// The tables that [`Error::Capacity`] names.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Table {
    /// The arguments of a [`Launch`](crate::Launch), with the null pointer that ends them.
    Arguments,
    /// The environment of a [`Launch`](crate::Launch), with the null pointer that ends it.
    Variables,
    /// The changes of one restart's environment.
    Changes,
    /// The inherited descriptors of a [`Net`](crate::Net).
    Inherited,
    /// The active sockets of a [`Net`](crate::Net).
    Active,
    /// The names of all active sockets together, in bytes.
    Names,
}

impl Table {
    const fn phrase(self) -> &'static str {
        match self {
            Self::Arguments => "arguments",
            Self::Variables => "environment variables",
            Self::Changes => "environment changes",
            Self::Inherited => "inherited descriptors",
            Self::Active => "active sockets",
            Self::Names => "bytes of names",
        }
    }
}

/// The fault of a variable's value.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Fault {
    /// The value holds something other than decimal digits.
    NotANumber,
    /// The number is negative, or larger than the variable's rule allows.
    OutOfRange,
    /// `LISTEN_FDNAMES` and `LISTEN_FDS` disagree.
    NameCount {
        /// How many names there are.
        names: u32,
        /// How many descriptors there are.
        fds: u32,
    },
    /// A name is longer than 255 bytes or holds something other than printable ASCII.
    InvalidName {
        /// Which name, counted from 0.
        position: u32,
    },
    /// The descriptor that the variable names is not a Unix socket.
    NotASocket,
    /// The value is not a path, an abstract name or one of the forms of vsock.
    NotAnAddress,
    /// The path or abstract name is longer than 107 bytes.
    TooLong {
        /// How long the path or name is.
        bytes: u32,
    },
}

impl Variable {
    pub(crate) const fn fault(self, fault: Fault) -> Error {
        Error::Variable { variable: self, fault }
    }
}

/// The fault of an address that cannot be read.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum AddressFault {
    /// There is no port.
    MissingPort,
    /// The port begins with a sign.
    PortSign,
    /// The port is not a number.
    PortNotANumber,
    /// The port is larger than 65535.
    PortOutOfRange,
    /// The address holds white space.
    Space,
    /// The address holds a NUL.
    Nul,
    /// The address looks like an IPv4 address and is none.
    Ipv4,
    /// The text in brackets is not an IPv6 address.
    Ipv6,
    /// An IPv6 address has no brackets, or the brackets do not match.
    Bracket,
    /// The zone is empty, 0, or longer than an interface's name.
    Zone,
    /// The address is a host name. This crate resolves only `localhost`.
    Host,
    /// The address is not of the network's family.
    Family,
    /// The path or abstract name is empty.
    Empty,
    /// The path or abstract name is longer than 107 bytes.
    PathTooLong {
        /// How long the path or name is.
        bytes: u32,
    },
}

impl AddressFault {
    const fn phrase(self) -> &'static str {
        match self {
            Self::MissingPort => "missing port in address",
            Self::PortSign => "port with a sign",
            Self::PortNotANumber => "port is not a number",
            Self::PortOutOfRange => "port is larger than 65535",
            Self::Space => "space in address",
            Self::Nul => "NUL in address",
            Self::Ipv4 => "not an IPv4 address",
            Self::Ipv6 => "not an IPv6 address",
            Self::Bracket => "an IPv6 address and a port need the form [address]:port",
            Self::Zone => "zone is neither an interface's name nor its index",
            Self::Host => "host names are not resolved: give an IP address",
            Self::Family => "address is not of the network's family",
            Self::Empty => "path is empty",
            Self::PathTooLong { .. } => "path is longer than 107 bytes",
        }
    }
}

/// The fault of a name.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum NameFault {
    /// The name is longer than 255 bytes.
    TooLong {
        /// How long the name is.
        bytes: u32,
    },
    /// The name holds a colon, or a byte outside of 0x20–0x7E.
    Byte(u8),
}

impl fmt::Display for NameFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::TooLong { bytes } => write!(f, "name of {bytes} bytes is longer than 255"),
            Self::Byte(byte) => write!(f, "byte {byte:#04x} in a name"),
        }
    }
}

/// The fault of a message to the service manager.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum MessageFault {
    /// There is no assignment.
    Empty,
    /// A value holds a newline or a NUL.
    Byte(u8),
    /// The name of the descriptors is not valid.
    Name(NameFault),
    /// The key of a private assignment is not `X_` and capital letters, digits and underscores.
    Key,
    /// A time has more microseconds than 64 bits hold.
    OutOfRange,
    /// The message is longer than 4096 bytes from this assignment on.
    TooLong,
    /// There are more than 253 descriptors.
    TooManyFds {
        /// How many descriptors there are.
        fds: u32,
    },
    /// The number of descriptors does not match the message.
    Fds {
        /// How many descriptors there are.
        fds: u32,
    },
    /// The message has a second name.
    Repeated,
    /// The descriptors to drop have no name.
    NoName,
    /// The assignment is not valid together with the others.
    NotTogether,
    /// Descriptors cannot be sent over a vsock.
    Vsock,
}

impl MessageFault {
    pub(crate) const fn at(self, position: u32) -> Error {
        Error::Message { position, fault: self }
    }
}

impl fmt::Display for MessageFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Empty => f.write_str("there is none"),
            Self::Byte(byte) => write!(f, "byte {byte:#04x} in a value"),
            Self::Name(fault) => fault.fmt(f),
            Self::Key => f.write_str("private key is not X_ and capital letters, digits, underscores"),
            Self::OutOfRange => f.write_str("time is out of range"),
            Self::TooLong => f.write_str("message is longer than 4096 bytes"),
            Self::TooManyFds { fds } => write!(f, "{fds} descriptors are more than 253"),
            Self::Fds { fds } => write!(f, "{fds} descriptors do not go with it"),
            Self::Repeated => f.write_str("a second name for the descriptors"),
            Self::NoName => f.write_str("no name for what is to be dropped"),
            Self::NotTogether => f.write_str("does not go together with the others"),
            Self::Vsock => f.write_str("a vsock takes no descriptors"),
        }
    }
}

/// The first bytes of a word that came from outside, for an error message.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Word {
    bytes: [u8; 15],
    len: u8,
}

impl Word {
    /// Keeps the first 15 bytes of `word`, without a character that would be cut.
    #[must_use]
    pub const fn new(word: &str) -> Self {
        const MAX: usize = 15;
        let mut len = if word.len() < MAX { word.len() } else { MAX };
        while !word.is_char_boundary(len) {
            len -= 1;
        }
        // Nothing of a character that is cut: words that read the same are equal.
        let mut bytes = [0; MAX];
        let (kept, _) = word.as_bytes().split_at(len);
        bytes.split_at_mut(len).0.copy_from_slice(kept);
        Self { bytes, len: len as u8 }
    }

    /// Keeps the first 15 bytes of `word`, up to one that is not ASCII. Public for a fuzz target alone.
    #[doc(hidden)]
    #[must_use]
    pub fn ascii(word: &[u8]) -> Self {
        let mut kept = Self { bytes: [0; 15], len: 0 };
        let letters = word.iter().take_while(|letter| letter.is_ascii());
        for (place, letter) in kept.bytes.iter_mut().zip(letters) {
            *place = *letter;
            kept.len += 1;
        }
        kept
    }

    /// Returns the bytes that were kept.
    #[must_use]
    pub fn as_str(&self) -> &str {
        let kept = self.bytes.get(..usize::from(self.len)).unwrap_or(&[]);
        core::str::from_utf8(kept).unwrap_or("")
    }
}

impl fmt::Debug for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Call { operation, fd, errno } => {
                f.write_str(operation.phrase())?;
                if let Some(fd) = fd {
                    write!(f, " on fd {fd}")?;
                }
                f.write_str(": ")?;
                describe(errno, f)
            }
            Self::Capacity { table, needed, capacity } => {
                write!(f, "{needed} {} do not fit in {capacity}", table.phrase())
            }
            Self::Variable { variable, fault } => {
                f.write_str(variable.name())?;
                match fault {
                    Fault::NotANumber => f.write_str(" is not a number"),
                    Fault::OutOfRange => f.write_str(" is out of range"),
                    Fault::NameCount { names, fds } => {
                        write!(f, " has {names} names for {fds} descriptors")
                    }
                    Fault::InvalidName { position } => write!(f, " has an invalid name at {position}"),
                    Fault::NotASocket => f.write_str(" does not name a unix socket"),
                    Fault::NotAnAddress => f.write_str(" is not an address"),
                    Fault::TooLong { bytes } => write!(f, " has a path of {bytes} bytes, longer than 107"),
                }
            }
            Self::NotOpen { fd } => write!(f, "inherited fd {fd} is not open"),
            Self::NotAListener { fd } => write!(f, "inherited fd {fd} is not a listener"),
            Self::AlreadyInherited => f.write_str("inherited already"),
            Self::UnknownNetwork(word) => write!(f, "unknown network {word:?}"),
            Self::Address(fault) => f.write_str(fault.phrase()),
            Self::Name(fault) => fault.fmt(f),
            Self::Message { position, fault } => write!(f, "assignment {position} of a message: {fault}"),
            Self::NotInherited => f.write_str("no inherited socket fits"),
            Self::StaleId => f.write_str("no active socket has this id"),
            Self::NoPath => f.write_str("the socket has no path of this process's own"),
            Self::HandedOver => f.write_str("a successor has taken over"),
            Self::GivenUp => f.write_str("the predecessor has given this process up"),
            Self::Killed { signal: 0 } => f.write_str("the clone ended before the program was executed"),
            Self::Killed { signal } => write!(f, "signal {signal} came before the program was executed"),
            Self::Untrusted => f.write_str("a set-user-ID start does not say which program to run"),
            Self::InFlight => f.write_str("a successor is in flight"),
            Self::AlreadyBegun => f.write_str("the process was begun already"),
            Self::Forked => f.write_str("this process is a fork of the one that began the service"),
            Self::NotReported => f.write_str("the predecessor has not been told that this process is ready"),
            Self::NoArguments => f.write_str("no argument names the program"),
            Self::InvalidChange { position } => {
                write!(f, "environment change {position} is not NAME=value or is reserved")
            }
            Self::RelativePath => {
                f.write_str("program not found in PATH, whose relative elements are refused")
            }
        }
    }
}

impl core::error::Error for Error {}

#[cfg(feature = "std")]
impl From<Error> for std::io::Error {
    /// Keeps the errno of a failed call as the OS error. Every other error becomes the inner error of an I/O error of
    /// the matching kind.
    fn from(error: Error) -> Self {
        use std::io::ErrorKind;
        if let Some(errno) = error.errno() {
            return Self::from_raw_os_error(errno.raw_os_error());
        }
        let kind = match error {
            Error::NotInherited | Error::RelativePath => ErrorKind::NotFound,
            Error::AlreadyInherited | Error::InFlight | Error::HandedOver => ErrorKind::Other,
            _ => ErrorKind::InvalidInput,
        };
        Self::new(kind, error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_what_can_be_read_of_it() {
        for (word, kept) in [
            ("", ""),
            ("tcp5", "tcp5"),
            ("fifteen letters", "fifteen letters"),
            ("fifteen letters and more", "fifteen letters"),
            ("half a letter \u{e9}", "half a letter "),
            ("half a letter \u{1f980}", "half a letter "),
        ] {
            assert_eq!(Word::new(word).as_str(), kept);
            assert_eq!(Word::new(word), Word::new(kept));
        }
    }

    #[cfg(feature = "std")]
    #[test]
    fn an_errno_stays_one() {
        use crate::ready::Refusal;
        use crate::restart::Failure;
        use std::io::{self, ErrorKind};
        let called = Error::call(Operation::Bind, Errno::ADDRINUSE);
        for error in [
            io::Error::from(called),
            Failure::NotStarted(called).into(),
            Failure::Refused(Refusal::Errno(Errno::ADDRINUSE)).into(),
        ] {
            assert_eq!(error.raw_os_error(), Some(Errno::ADDRINUSE.raw_os_error()));
        }
        for (error, kind, said) in [
            (Error::NotInherited.into(), ErrorKind::NotFound, "no inherited socket fits"),
            (Error::InFlight.into(), ErrorKind::Other, "a successor is in flight"),
            (Error::NoArguments.into(), ErrorKind::InvalidInput, "no argument names the program"),
            (Failure::Deadline.into(), ErrorKind::TimedOut, "successor was not ready at the deadline"),
            (Failure::Refused(Refusal::Code(7)).into(), ErrorKind::Other, "successor gave up: code 7"),
            (Failure::NotStarted(Error::Untrusted).into(), ErrorKind::InvalidInput, "a set-user-ID start"),
        ] {
            let error: io::Error = error;
            assert_eq!(error.kind(), kind);
            assert!(std::format!("{error}").starts_with(said), "{error}");
        }
    }
}
