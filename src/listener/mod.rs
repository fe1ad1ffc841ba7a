//! Listeners: opens a fresh one, or recognises an inherited one.
//!
//! | module | holds |
//! |---|---|
//! | this one | the options, and what the kernel reports about a socket |
//! | `open` | opening a fresh socket, and the paths of Unix sockets |
//! | `claim` | which inherited socket is claimed for an endpoint |
//!
//! Everything here is a safe call, of rustix or, for a socket's own address, of `sys`. Nothing here ever calls
//! `shutdown` on a listener, which would stop every copy of it in every process.
//!
//! Nothing here touches the options of an inherited socket, or its flags, except for [`ListenOptions::nonblocking`]
//! without a predecessor. `O_NONBLOCK` and all socket options belong to the open socket that predecessor and
//! successor share.

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
/// Only the name, [`ListenOptions::v6only`] and [`ListenOptions::nonblocking`] concern inherited sockets too. All
/// other options concern fresh sockets only: an inherited socket stays as its first owner made it.
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
    /// Returns the default: no name, the kernel's largest backlog, blocking, and the network's own defaults for all
    /// else.
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

    /// Names the socket. An inherited socket with this name is claimed before any with this address.
    ///
    /// A successor finds the socket under this name. So a listener on port 0 keeps its port over restarts.
    #[must_use]
    #[doc(alias = "FileDescriptorName")]
    pub const fn name(mut self, name: &'a str) -> Self {
        self.name = Some(name);
        self
    }

    /// Sets how many connections may wait. The kernel clamps the number to `net.core.somaxconn`.
    #[must_use]
    pub const fn backlog(mut self, backlog: i32) -> Self {
        self.backlog = backlog;
        self
    }

    /// Sets `O_NONBLOCK`, for every process that shares the socket.
    ///
    /// An inherited socket gets the flag only if there is no predecessor. Such a socket comes from a service manager,
    /// which hands it over blocking and never accepts. A predecessor has already set the flag, if it was to be set.
    #[must_use]
    #[doc(alias = "O_NONBLOCK")]
    pub const fn nonblocking(mut self, nonblocking: bool) -> Self {
        self.nonblocking = nonblocking;
        self
    }

    /// Lets further sockets be bound to the same address, and shares the connections among them.
    ///
    /// Claim in a successor as many of these sockets as its predecessor had. [`Net::ready`](crate::Net::ready) closes
    /// the unclaimed ones, and when the predecessor has closed them too, their waiting connections are reset. If
    /// there must be fewer, set the sysctl `net.ipv4.tcp_migrate_req` (Linux 5.14), which moves the connections to
    /// the other sockets.
    #[must_use]
    #[doc(alias = "SO_REUSEPORT")]
    pub const fn reuse_port(mut self, reuse_port: bool) -> Self {
        self.reuse_port = reuse_port;
        self
    }

    /// Sets whether an IPv6 socket excludes IPv4. By default `tcp6` and `udp6` exclude it, `tcp` and `udp` do not.
    ///
    /// If this is set, an inherited socket on the wildcard address is claimed only if it agrees.
    #[must_use]
    #[doc(alias = "IPV6_V6ONLY")]
    pub const fn v6only(mut self, v6only: bool) -> Self {
        self.v6only = Some(v6only);
        self
    }

    /// Sets the permission bits of a Unix socket's path, whatever the umask. The path never has more bits than these.
    #[must_use]
    #[doc(alias = "SocketMode")]
    pub const fn mode(mut self, mode: u16) -> Self {
        self.mode = Some(mode);
        self
    }

    /// Replaces the path of a Unix socket that no process listens on: the path is a socket and refuses a connection.
    ///
    /// Take a lock first if two processes may do this for one path at the same time. Checking and replacing are
    /// separate steps: the later process gets the path, and the earlier one listens where no connection arrives. If
    /// the socket cannot be bound afterwards, the stale path is gone.
    #[must_use]
    pub const fn replace_stale(mut self, replace_stale: bool) -> Self {
        self.replace_stale = replace_stale;
        self
    }

    /// Calls `configure` with a fresh socket before it is bound. If `configure` fails, the call fails with that
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

/// What the kernel reports about a socket.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Description {
    /// The socket's address family.
    #[doc(alias = "SO_DOMAIN")]
    pub family: AddressFamily,
    /// The socket's type.
    #[doc(alias = "SO_TYPE")]
    pub kind: SocketType,
    /// The socket's own address.
    #[doc(alias = "getsockname")]
    pub address: SocketAddrAny,
}

/// Sets `O_NONBLOCK` unless it is set.
pub(crate) fn set_nonblocking(fd: BorrowedFd<'_>) -> Result<(), Errno> {
    let flags = rustix::fs::fcntl_getfl(fd)?;
    if flags.contains(OFlags::NONBLOCK) {
        Ok(())
    } else {
        rustix::fs::fcntl_setfl(fd, flags | OFlags::NONBLOCK)
    }
}

/// Asks the kernel what `fd` is. Returns `None` if it is not a socket.
pub(crate) fn describe(fd: BorrowedFd<'_>) -> Result<Option<Description>, Error> {
    let number = fd.as_raw_fd();
    let address = match rustix::net::getsockname(fd) {
        Ok(address) => address,
        // A descriptor with O_PATH is open, but getsockname answers EBADF.
        Err(Errno::NOTSOCK | Errno::BADF) => return Ok(None),
        Err(errno) => return Err(Error::call_on(Operation::Getsockname, number, errno)),
    };
    let kind =
        sockopt::socket_type(fd).map_err(|errno| Error::call_on(Operation::Getsockopt, number, errno))?;
    Ok(Some(Description { family: address.address_family(), kind, address }))
}

/// Returns a socket's own address as a key; `None` if `fd` is not a socket, has no address, or is of another family.
pub(crate) fn own_key(fd: BorrowedFd<'_>) -> Result<Option<Key>, Errno> {
    match SocketName::new().ask(fd) {
        Ok(name) => Ok(Address::from_sockaddr(name).and_then(|address| Key::of(&address))),
        Err(Errno::NOTSOCK) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// Returns whether `fd` is a listener, for a caller that wants no other fact.
pub(crate) fn is_listener(fd: BorrowedFd<'_>) -> bool {
    sockopt::socket_acceptconn(fd).unwrap_or(false)
}

/// Returns the index of the endpoint's zone, or 0.
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
