//! Listeners: opening a fresh one, and recognising an inherited one.
//!
//! | module | holds |
//! |---|---|
//! | this one | the options, and what the kernel says about a socket |
//! | `open` | opening a fresh socket, and the paths of Unix sockets |
//! | `claim` | which inherited socket is claimed for an endpoint |
//!
//! Everything here is a safe call: rustix's, or of `sys` for a socket's own address. Nothing ever calls `shutdown` on
//! a listener, which would stop every copy of it in every process, and nothing touches the flags or options of one
//! that was inherited: `O_NONBLOCK` and all socket options belong to the open socket that predecessor and successor
//! share.

mod claim;
mod open;

pub(crate) use claim::Wanted;
pub(crate) use open::{open, unlink};

use crate::address::{Address, Endpoint, Key, Zone};
use crate::error::{Error, Operation};
use crate::sys::SocketName;
use core::fmt;
use rustix::fd::{AsRawFd, BorrowedFd, OwnedFd};
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrAny, SocketFlags, SocketType, sockopt};

/// How [`Net::listen_with`](crate::Net::listen_with) finds or opens a socket.
///
/// ```
/// use gracenet::{ListenOptions, Net};
///
/// # fn main() -> Result<(), gracenet::Error> {
/// let mut net = Net::<16>::new();
/// let options = ListenOptions::new().name("http").nonblocking(true);
/// let http = net.listen_with("tcp", "127.0.0.1:0", &options)?;
/// # Ok(())
/// # }
/// ```
///
/// All but the name and [`ListenOptions::nonblocking`] concern a fresh socket only: an inherited one is as its first owner
/// made it.
#[derive(Clone, Copy)]
pub struct ListenOptions<'a> {
    pub(crate) name: Option<&'a str>,
    backlog: i32,
    pub(crate) nonblocking: bool,
    reuse_port: bool,
    pub(crate) v6only: Option<bool>,
    mode: Option<u16>,
    replace_stale: bool,
    configure: Option<Configure<'a>>,
}

type Configure<'a> = &'a dyn Fn(BorrowedFd<'_>) -> Result<(), Errno>;

impl Default for ListenOptions<'_> {
    fn default() -> Self {
        Self::new()
    }
}

impl<'a> ListenOptions<'a> {
    /// No name, the kernel's largest backlog, blocking, the network's own default for all else.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            name: None,
            backlog: i32::MAX,
            nonblocking: false,
            reuse_port: false,
            v6only: None,
            mode: None,
            replace_stale: false,
            configure: None,
        }
    }

    /// Names the socket: an inherited one of this name is claimed before any of this address, and a
    /// successor will find it under this name. So a listener on port 0 keeps its port over restarts.
    #[must_use]
    #[doc(alias = "FileDescriptorName")]
    pub const fn name(mut self, name: &'a str) -> Self {
        self.name = Some(name);
        self
    }

    /// How many connections may wait; the kernel clamps it to `net.core.somaxconn`.
    #[must_use]
    pub const fn backlog(mut self, backlog: i32) -> Self {
        self.backlog = backlog;
        self
    }

    /// Sets `O_NONBLOCK`, for every process that shares the socket.
    ///
    /// An inherited socket gets the flag too where there is no predecessor: it comes from a service manager, which hands it
    /// over blocking and never accepts. A predecessor has set it, if it was to be set.
    #[must_use]
    #[doc(alias = "O_NONBLOCK")]
    pub const fn nonblocking(mut self, nonblocking: bool) -> Self {
        self.nonblocking = nonblocking;
        self
    }

    /// Lets further sockets be bound to the same address and shares the connections among them. A successor claims as
    /// many of them as its predecessor had: what waits in one that nobody claims is reset when the last who has it
    /// closes it, and that is [`Net::ready`](crate::Net::ready)'s doing and the predecessor's. Where there have to be
    /// fewer, the sysctl `net.ipv4.tcp_migrate_req` of Linux 5.14 hands it to the others.
    #[must_use]
    #[doc(alias = "SO_REUSEPORT")]
    pub const fn reuse_port(mut self, reuse_port: bool) -> Self {
        self.reuse_port = reuse_port;
        self
    }

    /// Whether an IPv6 socket leaves IPv4 alone. By default `tcp6` and `udp6` do, `tcp` and `udp` do not.
    /// Where it is given, an inherited socket of the wildcard address is claimed only if it agrees.
    #[must_use]
    #[doc(alias = "IPV6_V6ONLY")]
    pub const fn v6only(mut self, v6only: bool) -> Self {
        self.v6only = Some(v6only);
        self
    }

    /// The permission bits of a Unix socket's path, whatever the umask; the path never has more on the way.
    #[must_use]
    #[doc(alias = "SocketMode")]
    pub const fn mode(mut self, mode: u16) -> Self {
        self.mode = Some(mode);
        self
    }

    /// Replaces a Unix socket's path that nobody listens on: one that is a socket, and refuses a connection.
    ///
    /// Looking and replacing are several steps. Of two processes that take them for one path at once, the later one
    /// has it, and the earlier one listens where nobody comes: where that may be, take a lock before. Where the socket
    /// cannot be bound after all, the stale path is gone.
    #[must_use]
    pub const fn replace_stale(mut self, replace_stale: bool) -> Self {
        self.replace_stale = replace_stale;
        self
    }

    /// Calls `configure` with a fresh socket before it is bound. If it fails, so does the call, with that
    /// error.
    #[must_use]
    #[doc(alias = "ListenConfig")]
    pub const fn configure(mut self, configure: Configure<'a>) -> Self {
        self.configure = Some(configure);
        self
    }
}

impl fmt::Debug for ListenOptions<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ListenOptions")
            .field("name", &self.name)
            .field("backlog", &self.backlog)
            .field("nonblocking", &self.nonblocking)
            .field("reuse_port", &self.reuse_port)
            .field("v6only", &self.v6only)
            .field("mode", &self.mode)
            .field("replace_stale", &self.replace_stale)
            .field("configure", &self.configure.is_some())
            .finish()
    }
}

/// What the kernel says about a socket.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Description {
    /// Its address family.
    #[doc(alias = "SO_DOMAIN")]
    pub family: AddressFamily,
    /// Its type.
    #[doc(alias = "SO_TYPE")]
    pub kind: SocketType,
    /// Its own address.
    #[doc(alias = "getsockname")]
    pub address: SocketAddrAny,
}

/// Sets `O_NONBLOCK` where it is not set.
pub(crate) fn set_nonblocking(fd: BorrowedFd<'_>) -> Result<(), Errno> {
    let flags = rustix::fs::fcntl_getfl(fd)?;
    if flags.contains(OFlags::NONBLOCK) {
        Ok(())
    } else {
        rustix::fs::fcntl_setfl(fd, flags | OFlags::NONBLOCK)
    }
}

/// Asks the kernel what `fd` is; `None` if it is no socket.
pub(crate) fn describe(fd: BorrowedFd<'_>) -> Result<Option<Description>, Error> {
    let number = fd.as_raw_fd();
    let address = match rustix::net::getsockname(fd) {
        Ok(address) => address,
        // EBADF of a descriptor that is open: open for its path alone.
        Err(Errno::NOTSOCK | Errno::BADF) => return Ok(None),
        Err(errno) => return Err(Error::call_on(Operation::Getsockname, number, errno)),
    };
    let kind =
        sockopt::socket_type(fd).map_err(|errno| Error::call_on(Operation::Getsockopt, number, errno))?;
    Ok(Some(Description { family: address.address_family(), kind, address }))
}

/// A socket's own address as a key; `None` for what is no socket, has no address, or is of another family.
pub(crate) fn own_key(fd: BorrowedFd<'_>) -> Result<Option<Key>, Errno> {
    match SocketName::new().ask(fd) {
        Ok(name) => Ok(Address::from_sockaddr(name).and_then(|address| Key::of(&address))),
        Err(Errno::NOTSOCK) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// Whether `fd` is a listener, for a caller that wants nothing else.
pub(crate) fn is_listener(fd: BorrowedFd<'_>) -> bool {
    sockopt::socket_acceptconn(fd).unwrap_or(false)
}

/// The index of the endpoint's zone, or 0.
#[inline]
pub(crate) fn scope(endpoint: &Endpoint<'_>) -> Result<u32, Error> {
    match endpoint.address {
        Address::Zoned(_, Zone::Index(index)) => Ok(index),
        Address::Zoned(_, Zone::Name(name)) => interface_index(name),
        _ => Ok(0),
    }
}

#[cold]
#[inline(never)]
fn interface_index(name: &str) -> Result<u32, Error> {
    let socket = socket(AddressFamily::UNIX, SocketType::DGRAM)?;
    rustix::net::netdevice::name_to_index(&socket, name)
        .map_err(|errno| Error::call(Operation::InterfaceIndex, errno))
}

fn socket(family: AddressFamily, kind: SocketType) -> Result<OwnedFd, Error> {
    rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC, None)
        .map_err(|errno| Error::call(Operation::Socket, errno))
}
