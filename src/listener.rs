//! Listeners: opening a fresh one, and recognising an inherited one.
//!
//! Everything here is a safe call: rustix's, or of `sys` for a socket's own address. Nothing ever calls `shutdown` on
//! a listener, which would stop every copy of it in every process, and nothing touches the flags or options of one
//! that was inherited: `O_NONBLOCK` and all socket options belong to the open socket that predecessor and successor
//! share.

use crate::address::{
    Address, Endpoint, Equivalent, Family, Key, Keys, Kind, Network, UNIX_MAX, Zone, scoped,
};
use crate::error::{Error, Operation};
use crate::sys::{self, SocketName};
use crate::table::{Inherited, InheritedView};
use core::ffi::CStr;
use core::fmt;
use core::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use heapless::Vec;
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrAny, SocketAddrUnix, SocketFlags, SocketType, ipproto, sockopt};

/// How [`Net::listen_with`](crate::Net::listen_with) finds or opens a socket.
///
/// All but the name concern a fresh socket only: an inherited one is as its first owner made it.
#[derive(Clone, Copy)]
pub struct ListenOptions<'env, 'c> {
    pub(crate) name: Option<&'env str>,
    backlog: i32,
    nonblocking: bool,
    reuse_port: bool,
    pub(crate) v6only: Option<bool>,
    mode: Option<u16>,
    replace_stale: bool,
    configure: Option<Configure<'c>>,
}

type Configure<'c> = &'c dyn Fn(BorrowedFd<'_>) -> Result<(), Errno>;

impl Default for ListenOptions<'_, '_> {
    fn default() -> Self {
        Self::new()
    }
}

impl<'env, 'c> ListenOptions<'env, 'c> {
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
    pub const fn name(mut self, name: &'env str) -> Self {
        self.name = Some(name);
        self
    }

    /// How many connections may wait; the kernel clamps it to `net.core.somaxconn`.
    #[must_use]
    pub const fn backlog(mut self, backlog: i32) -> Self {
        self.backlog = backlog;
        self
    }

    /// Sets `O_NONBLOCK`, for every process that will share the socket.
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
    pub const fn configure(mut self, configure: Configure<'c>) -> Self {
        self.configure = Some(configure);
        self
    }
}

impl fmt::Debug for ListenOptions<'_, '_> {
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

/// What an inherited socket has to be to be claimed for an endpoint.
pub(crate) struct Wanted<'a> {
    endpoint: &'a Endpoint<'a>,
    name: Option<&'a str>,
    v6only: Option<bool>,
    keys: Keys,
}

impl<'a> Wanted<'a> {
    /// `scope` is the index of the endpoint's zone, as [`scope`] finds it.
    pub(crate) fn new(endpoint: &'a Endpoint<'a>, scope: u32, options: &ListenOptions<'a, '_>) -> Self {
        Self { endpoint, name: options.name, v6only: options.v6only, keys: endpoint.keys(scope) }
    }

    /// The position of the inherited socket to claim: by name first, then by the exact address, then by the
    /// other family's wildcard.
    ///
    /// A name that one socket alone was inherited under decides, whatever its address. Of several sockets of
    /// one name the address decides; if it leaves the port open, the first that is left is taken.
    pub(crate) fn find(&self, inherited: &mut InheritedView<'_, '_>) -> Result<Option<usize>, Error> {
        if let Some(name) = self.name {
            if let Some(position) = self.find_address(inherited, Some(name))? {
                return Ok(Some(position));
            }
            let slots = &*inherited.slots;
            let is_namesake = |position: &usize| slots.get(*position).is_some_and(|slot| slot.name == name);
            let decides =
                self.keys.exact.is_none() || inherited.named(name).filter(is_namesake).nth(1).is_none();
            for position in inherited.named(name).filter(|_| decides) {
                if let Some(slot) = inherited.slots.get_mut(position) {
                    // Nothing of IPv6 comes to the wildcard of IPv4.
                    let is_v4 = matches!(slot.key, Some(Key::V4 { ip: [0, 0, 0, 0], .. }));
                    let agrees = !is_v4 || self.v6only != Some(true) || !self.may_be_v6();
                    if slot.name == name && agrees && self.fits(slot, self.v6only)? {
                        return Ok(Some(position));
                    }
                }
            }
        }
        self.find_address(inherited, None)
    }

    /// Whether a fresh socket could be one of IPv6.
    const fn may_be_v6(&self) -> bool {
        match self.endpoint.address {
            Address::Inet(address) => address.is_ipv6(),
            _ => self.endpoint.network.allows(Family::V6),
        }
    }

    /// The same among the sockets of one name, or among all.
    fn find_address(
        &self,
        inherited: &mut InheritedView<'_, '_>,
        name: Option<&str>,
    ) -> Result<Option<usize>, Error> {
        let exact = self.keys.exact.as_ref().map(|key| (key, self.v6only));
        let equivalent = match &self.keys.equivalent {
            _ if self.v6only == Some(true) => None,
            Some(Equivalent::DualStack(key)) => Some((key, Some(false))),
            Some(Equivalent::V4(key)) => Some((key, None)),
            None => None,
        };
        for (key, v6only) in exact.into_iter().chain(equivalent) {
            for position in inherited.near(key) {
                let Some(slot) = inherited.slots.get_mut(position) else {
                    continue;
                };
                if slot.key.as_ref() == Some(key)
                    && name.is_none_or(|name| slot.name == name)
                    && self.fits(slot, v6only)?
                    && (key.is_exact() || self.is_address(slot)?)
                {
                    return Ok(Some(position));
                }
            }
        }
        Ok(None)
    }

    /// Whether the slot's socket can be claimed, whatever its address.
    fn fits(&self, slot: &mut Inherited<'_>, v6only: Option<bool>) -> Result<bool, Error> {
        Ok(self.is_kind(slot)? && agrees_on_v6only(slot, v6only)?)
    }

    /// Whether the slot's socket is of the family and the type asked for, and listens if it is a stream. A
    /// listener of an internet family is taken for TCP's, or MPTCP's: nothing else that this crate opens listens
    /// there, and to ask for the protocol would be one more call for each. (A manager may hand over SCTP's, if told to
    /// by `SocketProtocol=`: claim that by its name.)
    fn is_kind(&self, slot: &mut Inherited<'_>) -> Result<bool, Error> {
        let (Some(fd), Some(key)) = (&slot.fd, &slot.key) else {
            return Ok(false);
        };
        let error = |errno| Error::call_on(Operation::Getsockopt, fd.as_raw_fd(), errno);
        let network = self.endpoint.network;
        if !network.allows(key.family()) {
            return Ok(false);
        }
        if network.kind() != Kind::Datagram {
            let listening = match slot.listening {
                Some(listening) => listening,
                None => *slot.listening.insert(sockopt::socket_acceptconn(fd).map_err(error)?),
            };
            if !listening || key.family() != Family::Unix {
                return Ok(listening);
            }
        }
        let kind = match slot.kind {
            Some(kind) => kind,
            // UDP-Lite is a datagram too, and not what `udp` means.
            None if key.family() != Family::Unix => {
                let protocol = sockopt::socket_protocol(fd).map_err(error)?;
                *slot.kind.insert((protocol == Some(ipproto::UDP)).then_some(Kind::Datagram))
            }
            None => *slot.kind.insert(kind(sockopt::socket_type(fd).map_err(error)?)),
        };
        Ok(kind == Some(network.kind()))
    }

    /// Whether the slot's address is the one asked for, where its key holds only part of it.
    #[cold]
    #[inline(never)]
    fn is_address(&self, slot: &Inherited<'_>) -> Result<bool, Error> {
        let Some(fd) = &slot.fd else {
            return Ok(false);
        };
        let mut name = SocketName::new();
        let name = name
            .ask(fd.as_fd())
            .map_err(|errno| Error::call_on(Operation::Getsockname, fd.as_raw_fd(), errno))?;
        Ok(Address::from_sockaddr(name) == Some(self.endpoint.address))
    }
}

/// Whether `IPV6_V6ONLY` of an IPv6 socket on the wildcard address is as asked for.
fn agrees_on_v6only(slot: &mut Inherited<'_>, wanted: Option<bool>) -> Result<bool, Error> {
    let (Some(fd), Some(Key::V6 { ip, .. }), Some(wanted)) = (&slot.fd, &slot.key, wanted) else {
        return Ok(true);
    };
    if *ip != [0; 16] {
        return Ok(true);
    }
    let found = match slot.v6only {
        Some(found) => found,
        None => *slot.v6only.insert(
            sockopt::ipv6_v6only(fd)
                .map_err(|errno| Error::call_on(Operation::Getsockopt, fd.as_raw_fd(), errno))?,
        ),
    };
    Ok(found == wanted)
}

const fn kind(found: SocketType) -> Option<Kind> {
    match found {
        SocketType::STREAM => Some(Kind::Stream),
        SocketType::DGRAM => Some(Kind::Datagram),
        SocketType::SEQPACKET => Some(Kind::Packet),
        _ => None,
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

/// Opens a fresh socket for `endpoint`. If any step fails, what this call opened is closed, a path that it
/// bound is removed, and nothing else has changed.
pub(crate) fn open(endpoint: &Endpoint<'_>, options: &ListenOptions<'_, '_>) -> Result<OwnedFd, Error> {
    match endpoint.address {
        Address::Path(path) => open_path(endpoint, path, options),
        Address::Abstract(name) => open_abstract(endpoint, name, options),
        Address::Any { port } if endpoint.network.allows(Family::V6) => {
            let wildcard = |address| SocketAddr::new(address, port);
            let v6 = wildcard(Ipv6Addr::UNSPECIFIED.into());
            match open_inet(endpoint, v6, options) {
                // A kernel without IPv6.
                Err(Error::Call { operation: Operation::Socket, errno: Errno::AFNOSUPPORT, .. })
                    if endpoint.network.allows(Family::V4) && options.v6only != Some(true) =>
                {
                    open_inet(endpoint, wildcard(Ipv4Addr::UNSPECIFIED.into()), options)
                }
                other => other,
            }
        }
        Address::Any { port } => {
            open_inet(endpoint, SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port), options)
        }
        Address::Loopback { port } => open_inet(endpoint, endpoint.loopback(port), options),
        Address::Inet(address) => open_inet(endpoint, address, options),
        Address::Zoned(address, _) => open_inet(endpoint, scoped(address, scope(endpoint)?), options),
    }
}

fn open_inet(
    endpoint: &Endpoint<'_>,
    address: SocketAddr,
    options: &ListenOptions<'_, '_>,
) -> Result<OwnedFd, Error> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let fd = fresh(endpoint, family, options)?;
    let setsockopt = |errno| Error::call_on(Operation::Setsockopt, fd.as_raw_fd(), errno);
    if address.is_ipv6() {
        let only_v6 = matches!(endpoint.network, Network::Tcp6 | Network::Udp6);
        sockopt::set_ipv6_v6only(&fd, options.v6only.unwrap_or(only_v6)).map_err(setsockopt)?;
    }
    if endpoint.network.kind() == Kind::Stream {
        sockopt::set_socket_reuseaddr(&fd, true).map_err(setsockopt)?;
    }
    if options.reuse_port {
        sockopt::set_socket_reuseport(&fd, true).map_err(setsockopt)?;
    }
    configure(&fd, options)?;
    rustix::net::bind(&fd, &address)
        .map_err(|errno| Error::call_on(Operation::Bind, fd.as_raw_fd(), errno))?;
    listen(&fd, endpoint, options)?;
    Ok(fd)
}

fn open_abstract(
    endpoint: &Endpoint<'_>,
    name: &[u8],
    options: &ListenOptions<'_, '_>,
) -> Result<OwnedFd, Error> {
    let fd = fresh(endpoint, AddressFamily::UNIX, options)?;
    let error = |errno| Error::call_on(Operation::Bind, fd.as_raw_fd(), errno);
    let address = SocketAddrUnix::new_abstract_name(name).map_err(error)?;
    configure(&fd, options)?;
    rustix::net::bind(&fd, &address).map_err(error)?;
    listen(&fd, endpoint, options)?;
    Ok(fd)
}

fn open_path(
    endpoint: &Endpoint<'_>,
    path: &[u8],
    options: &ListenOptions<'_, '_>,
) -> Result<OwnedFd, Error> {
    let fd = fresh(endpoint, AddressFamily::UNIX, options)?;
    let number = fd.as_raw_fd();
    let error = |call| move |errno| Error::call_on(call, number, errno);
    let path = terminated(path).map_err(error(Operation::Bind))?;
    let path = CStr::from_bytes_until_nul(&path).map_err(|_| error(Operation::Bind)(Errno::INVAL))?;
    let address = SocketAddrUnix::new(path).map_err(error(Operation::Bind))?;
    if let Some(mode) = options.mode {
        // The path is made with the socket's own mode less the umask, so it never has more than this.
        rustix::fs::fchmod(&fd, Mode::from_raw_mode(mode.into())).map_err(error(Operation::Chmod))?;
    }
    configure(&fd, options)?;
    match rustix::net::bind(&fd, &address) {
        Err(Errno::ADDRINUSE) if options.replace_stale && is_stale(endpoint, path, &address)? => {
            rustix::fs::unlink(path).map_err(error(Operation::Unlink))?;
            rustix::net::bind(&fd, &address)
        }
        other => other,
    }
    .map_err(error(Operation::Bind))?;
    let finish = || {
        if let Some(mode) = options.mode {
            rustix::fs::chmod(path, Mode::from_raw_mode(mode.into())).map_err(error(Operation::Chmod))?;
        }
        listen(&fd, endpoint, options)
    };
    if let Err(error) = finish() {
        // Best effort: the error to report is the first one.
        let _ = rustix::fs::unlink(path);
        return Err(error);
    }
    Ok(fd)
}

/// Whether `path` is a socket that nobody listens on.
#[cold]
#[inline(never)]
fn is_stale(endpoint: &Endpoint<'_>, path: &CStr, address: &SocketAddrUnix) -> Result<bool, Error> {
    use rustix::fs::FileType;
    let is_socket =
        rustix::fs::lstat(path).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Socket);
    if !is_socket {
        return Ok(false);
    }
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let probe = rustix::net::socket_with(AddressFamily::UNIX, socket_type(endpoint.network), flags, None)
        .map_err(|errno| Error::call(Operation::Socket, errno))?;
    // EPROTOTYPE, EAGAIN and success all come from somebody who is there.
    Ok(rustix::net::connect(&probe, address) == Err(Errno::CONNREFUSED))
}

/// Removes the path of a Unix socket, if it leads to a socket still.
pub(crate) fn unlink(fd: BorrowedFd<'_>) -> Result<(), Error> {
    use rustix::fs::FileType;
    let number = fd.as_raw_fd();
    let error = |call| move |errno| Error::call_on(call, number, errno);
    let mut name = SocketName::new();
    let name = name.ask(fd).map_err(|_| Error::NoPath)?;
    let Some(Address::Path(path)) = Address::from_sockaddr(name) else { return Err(Error::NoPath) };
    let path = terminated(path).map_err(error(Operation::Unlink))?;
    let path = CStr::from_bytes_until_nul(&path).map_err(|_| Error::NoPath)?;
    let stat = rustix::fs::lstat(path).map_err(error(Operation::Unlink))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Socket {
        return Err(Error::NoPath);
    }
    rustix::fs::unlink(path).map_err(error(Operation::Unlink))
}

/// The path with a NUL behind it.
fn terminated(path: &[u8]) -> Result<Vec<u8, { UNIX_MAX + 1 }>, Errno> {
    let mut terminated = Vec::new();
    terminated.extend_from_slice(path).map_err(|_| Errno::NAMETOOLONG)?;
    terminated.push(0).map_err(|_| Errno::NAMETOOLONG)?;
    Ok(terminated)
}

const fn socket_type(network: Network) -> SocketType {
    match network.kind() {
        Kind::Stream => SocketType::STREAM,
        Kind::Datagram => SocketType::DGRAM,
        Kind::Packet => SocketType::SEQPACKET,
    }
}

fn fresh(
    endpoint: &Endpoint<'_>,
    family: AddressFamily,
    options: &ListenOptions<'_, '_>,
) -> Result<OwnedFd, Error> {
    let mut flags = SocketFlags::CLOEXEC;
    flags.set(SocketFlags::NONBLOCK, options.nonblocking);
    rustix::net::socket_with(family, socket_type(endpoint.network), flags, None)
        .and_then(sys::above_stdio)
        .map_err(|errno| Error::call(Operation::Socket, errno))
}

fn configure(fd: &OwnedFd, options: &ListenOptions<'_, '_>) -> Result<(), Error> {
    match options.configure {
        Some(configure) => {
            configure(fd.as_fd()).map_err(|errno| Error::call_on(Operation::Configure, fd.as_raw_fd(), errno))
        }
        None => Ok(()),
    }
}

fn listen(fd: &OwnedFd, endpoint: &Endpoint<'_>, options: &ListenOptions<'_, '_>) -> Result<(), Error> {
    if endpoint.network.kind() == Kind::Datagram {
        return Ok(());
    }
    rustix::net::listen(fd, options.backlog)
        .map_err(|errno| Error::call_on(Operation::Listen, fd.as_raw_fd(), errno))
}
