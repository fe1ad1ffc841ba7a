//! Functions that ask the kernel what a descriptor is, with the meaning of libsystemd's `sd_is_*` functions.
//!
//! They are for a program that wants to be sure of what was handed over. Each returns `false` for any other kind of
//! descriptor, and fails only if a system call fails. They change nothing.

pub use crate::listener::Description;

use crate::address::{Address, family};
use crate::error::{Error, Operation};
use crate::sys::SocketName;
use core::ffi::CStr;
use core::net::SocketAddr;
use heapless::Vec;
use rustix::fd::{AsFd, AsRawFd, BorrowedFd};
use rustix::fs::{FileType, OFlags, Stat};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrAny, SocketType, sockopt};

/// The file system of POSIX message queues.
const MQUEUE_MAGIC: u64 = 0x1980_0202;

/// The longest name of a message queue, with its directory and a NUL.
const QUEUE_PATH_MAX: usize = "/dev/mqueue".len() + 257;

/// Returns whether `fd` is a FIFO or a pipe. If `path` is given, `fd` must be the FIFO at that path.
///
/// # Errors
///
/// - [`Error::Call`]: fstat(2) or stat(2) failed. A path that does not exist is not an error.
///
/// # References
///
/// - `sd_is_fifo(3)`
#[doc(alias = "sd_is_fifo")]
pub fn is_fifo(fd: impl AsFd, path: Option<&CStr>) -> Result<bool, Error> {
    let own = stat(fd.as_fd())?;
    if !file_type(&own).is_fifo() {
        return Ok(false);
    }
    match path {
        None => Ok(true),
        Some(path) => Ok(stat_path(path)?.is_some_and(|there| is_same_file(&own, &there))),
    }
}

/// Returns whether `fd` is a regular file or a character device. If `path` is given, `fd` must be the file at that
/// path, or the device that the path names.
///
/// # Errors
///
/// - As for [`is_fifo`].
///
/// # References
///
/// - `sd_is_special(3)`
#[doc(alias = "sd_is_special")]
pub fn is_special(fd: impl AsFd, path: Option<&CStr>) -> Result<bool, Error> {
    let own = stat(fd.as_fd())?;
    let kind = file_type(&own);
    if !kind.is_file() && !kind.is_char_device() {
        return Ok(false);
    }
    let Some(path) = path else {
        return Ok(true);
    };
    Ok(stat_path(path)?.is_some_and(|there| match file_type(&there) {
        other if other != kind => false,
        FileType::CharacterDevice => own.st_rdev == there.st_rdev,
        _ => is_same_file(&own, &there),
    }))
}

/// A query whether a descriptor is a socket, and of which kind. A property that is not set matches any value.
///
/// The functions of libsystemd correspond to these queries:
///
/// | function | query |
/// |---|---|
/// | `sd_is_socket` | [`family`](Self::family), [`kind`](Self::kind), [`listening`](Self::listening) |
/// | `sd_is_socket_inet` | also [`internet`](Self::internet), or [`port`](Self::port) |
/// | `sd_is_socket_sockaddr` | also [`address`](Self::address) |
/// | `sd_is_socket_unix` | also [`unix`](Self::unix), or `AF_UNIX` as the family |
///
/// If several of [`internet`](Self::internet), [`port`](Self::port), [`address`](Self::address) and
/// [`unix`](Self::unix) are called, the last call counts.
///
/// # References
///
/// - `sd_is_socket(3)`
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
#[doc(alias = "sd_is_socket")]
#[doc(alias = "sd_is_socket_inet")]
#[doc(alias = "sd_is_socket_sockaddr")]
#[doc(alias = "sd_is_socket_unix")]
pub struct SocketQuery<'a> {
    family: Option<AddressFamily>,
    kind: Option<SocketType>,
    listening: Option<bool>,
    own: Own<'a>,
}

/// The query about a socket's own address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Own<'a> {
    Any,
    Internet(Option<u16>),
    Address(SocketAddr),
    Unix(UnixName<'a>),
}

/// The address that a Unix socket must have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum UnixName<'a> {
    /// No address: the socket was never bound.
    Unnamed,
    /// A path, of at most [`UNIX_MAX`](crate::address::UNIX_MAX) bytes.
    Path(&'a [u8]),
    /// An abstract name, without the NUL in front.
    Abstract(&'a [u8]),
}

impl Default for SocketQuery<'_> {
    fn default() -> Self {
        Self::new()
    }
}

impl<'a> SocketQuery<'a> {
    /// Returns a query that matches any socket.
    pub const fn new() -> Self {
        Self { family: None, kind: None, listening: None, own: Own::Any }
    }

    /// Matches only a socket of this address family.
    pub const fn family(mut self, family: AddressFamily) -> Self {
        self.family = Some(family);
        self
    }

    /// Matches only a socket of this type.
    pub const fn kind(mut self, kind: SocketType) -> Self {
        self.kind = Some(kind);
        self
    }

    /// Matches only a socket that listens, or only a socket that does not.
    #[doc(alias = "SO_ACCEPTCONN")]
    pub const fn listening(mut self, listening: bool) -> Self {
        self.listening = Some(listening);
        self
    }

    /// Matches only an internet socket, on any port. Libsystemd writes this as port 0.
    ///
    /// With a family other than `AF_INET` and `AF_INET6`, which libsystemd refuses, no socket matches.
    pub const fn internet(mut self) -> Self {
        self.own = Own::Internet(None);
        self
    }

    /// Matches only an internet socket on this port. Port 0 matches a socket that has no port yet.
    pub const fn port(mut self, port: u16) -> Self {
        self.own = Own::Internet(Some(port));
        self
    }

    /// Matches only an internet socket with this own address. A port, a flow label and a scope of 0 match any.
    pub const fn address(mut self, address: SocketAddr) -> Self {
        self.own = Own::Address(address);
        self
    }

    /// Matches only a Unix socket with this own address.
    ///
    /// A path of 108 bytes leaves no space for its NUL. Libsystemd recognises such a path. This crate does not bind
    /// it, and [`matches`](Self::matches) returns `false` for it with any name.
    pub const fn unix(mut self, name: UnixName<'a>) -> Self {
        self.own = Own::Unix(name);
        self
    }

    /// Returns whether `fd` is a socket that matches this query.
    ///
    /// # Errors
    ///
    /// - [`Error::Call`]: fstat(2), getsockopt(2) or getsockname(2) failed.
    pub fn matches(&self, fd: impl AsFd) -> Result<bool, Error> {
        let fd = fd.as_fd();
        if !is_socket_of(fd, self.kind, self.listening)? {
            return Ok(false);
        }
        match self.own {
            Own::Any => match self.family {
                None => Ok(true),
                Some(family) => Ok(own_address(fd)?.address_family() == family),
            },
            Own::Internet(port) => {
                let own = own_address(fd)?;
                let is_family = self.is_family(own.address_family());
                let own = SocketAddr::try_from(own);
                Ok(own.is_ok_and(|own| is_family && port.is_none_or(|port| port == own.port())))
            }
            Own::Address(wanted) => {
                let own = own_address(fd)?;
                Ok(self.is_family(own.address_family()) && is_address(&wanted, own))
            }
            Own::Unix(name) => Ok(self.is_family(AddressFamily::UNIX) && is_name(fd, name)?),
        }
    }

    fn is_family(&self, own: AddressFamily) -> bool {
        self.family.is_none_or(|family| family == own)
    }
}

fn is_address(wanted: &SocketAddr, own: SocketAddrAny) -> bool {
    let fits = |wanted: u32, own: u32| wanted == 0 || wanted == own;
    match (wanted, SocketAddr::try_from(own)) {
        (SocketAddr::V4(wanted), Ok(SocketAddr::V4(own))) => {
            fits(wanted.port().into(), own.port().into()) && wanted.ip() == own.ip()
        }
        (SocketAddr::V6(wanted), Ok(SocketAddr::V6(own))) => {
            fits(wanted.port().into(), own.port().into())
                && fits(wanted.flowinfo(), own.flowinfo())
                && fits(wanted.scope_id(), own.scope_id())
                && wanted.ip() == own.ip()
        }
        _ => false,
    }
}

fn is_name(fd: BorrowedFd<'_>, name: UnixName<'_>) -> Result<bool, Error> {
    let mut own = SocketName::new();
    let own = own.ask(fd).map_err(|errno| failed(Operation::Getsockname, fd, errno))?;
    let Some((AddressFamily::UNIX, rest)) = family(own) else {
        return Ok(false);
    };
    Ok(match (name, Address::from_sockaddr(own)) {
        (UnixName::Unnamed, _) => rest.is_empty(),
        (UnixName::Path(path), Some(Address::Path(own))) => own == path,
        (UnixName::Abstract(name), Some(Address::Abstract(own))) => own == name,
        _ => false,
    })
}

/// Returns whether `fd` is a POSIX message queue. If `name` is given, with a slash in front, `fd` must be the queue
/// of that name.
///
/// # Errors
///
/// - [`Error::Call`]: fstat(2), fstatfs(2), fcntl(2) or stat(2) failed. The last fails with `ENOENT` if there is no
///   queue of this name, or no file system of queues on `/dev/mqueue`. It fails with `EINVAL` for a name without a
///   slash in front, and with `ENAMETOOLONG` for more than 255 bytes behind the slash.
///
/// # References
///
/// - `sd_is_mq(3)`
#[doc(alias = "sd_is_mq")]
pub fn is_mq(fd: impl AsFd, name: Option<&CStr>) -> Result<bool, Error> {
    let fd = fd.as_fd();
    let own = stat(fd)?;
    if !file_type(&own).is_file() {
        return Ok(false);
    }
    let file_system = rustix::fs::fstatfs(fd).map_err(|errno| failed(Operation::Fstatfs, fd, errno))?;
    if file_system.f_type as u64 != MQUEUE_MAGIC {
        return Ok(false);
    }
    // mq_getsetattr(2), which libsystemd calls, refuses no other regular file of this file system. Every such file is
    // a queue, however it was opened. But a file that is open with O_PATH is not a queue to it.
    let flags = rustix::fs::fcntl_getfl(fd).map_err(|errno| failed(Operation::Fcntl, fd, errno))?;
    if flags.contains(OFlags::PATH) {
        return Ok(false);
    }
    let Some(name) = name else {
        return Ok(true);
    };
    let stat_failed = |errno| Error::call(Operation::Stat, errno);
    if !name.to_bytes().starts_with(b"/") {
        return Err(stat_failed(Errno::INVAL));
    }
    let mut path = Vec::<u8, QUEUE_PATH_MAX>::new();
    for part in [&b"/dev/mqueue"[..], name.to_bytes_with_nul()] {
        path.extend_from_slice(part).map_err(|_| stat_failed(Errno::NAMETOOLONG))?;
    }
    let path = CStr::from_bytes_with_nul(&path).map_err(|_| stat_failed(Errno::INVAL))?;
    let there = rustix::fs::stat(path).map_err(stat_failed)?;
    Ok(is_same_file(&own, &there))
}

fn is_socket_of(
    fd: BorrowedFd<'_>,
    kind: Option<SocketType>,
    listening: Option<bool>,
) -> Result<bool, Error> {
    if !file_type(&stat(fd)?).is_socket() {
        return Ok(false);
    }
    let error = |errno| failed(Operation::Getsockopt, fd, errno);
    if let Some(kind) = kind {
        if sockopt::socket_type(fd).map_err(error)? != kind {
            return Ok(false);
        }
    }
    match listening {
        None => Ok(true),
        Some(listening) => Ok(sockopt::socket_acceptconn(fd).map_err(error)? == listening),
    }
}

fn own_address(fd: BorrowedFd<'_>) -> Result<SocketAddrAny, Error> {
    rustix::net::getsockname(fd).map_err(|errno| failed(Operation::Getsockname, fd, errno))
}

fn stat(fd: BorrowedFd<'_>) -> Result<Stat, Error> {
    rustix::fs::fstat(fd).map_err(|errno| failed(Operation::Fstat, fd, errno))
}

/// Returns what is at the path; `None` if nothing is.
fn stat_path(path: &CStr) -> Result<Option<Stat>, Error> {
    match rustix::fs::stat(path) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(errno) => Err(Error::call(Operation::Stat, errno)),
    }
}

const fn file_type(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

fn is_same_file(a: &Stat, b: &Stat) -> bool {
    (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino)
}

fn failed(operation: Operation, fd: BorrowedFd<'_>, errno: Errno) -> Error {
    Error::call_on(operation, fd.as_raw_fd(), errno)
}
