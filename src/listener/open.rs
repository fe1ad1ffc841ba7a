//! Opens a fresh socket, and removes the path of a Unix socket.
//!
//! A step that fails is undone: the socket is closed, and a path that was bound is removed.

use super::{ListenOptions, scope};
use crate::address::{Address, Endpoint, Family, Kind, Network, UNIX_MAX, scoped};
use crate::error::{Error, Operation};
use crate::sys::{self, SocketName};
use core::ffi::CStr;
use core::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use heapless::Vec;
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, sockopt};

/// Opens a fresh socket for `endpoint`. If a step fails, this call closes what it opened and removes a path that it
/// bound. It changes nothing else, except that a stale path that was to be replaced may be gone.
pub(crate) fn open(endpoint: &Endpoint<'_>, options: &ListenOptions<'_>) -> Result<OwnedFd, Error> {
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
    options: &ListenOptions<'_>,
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

#[cold]
#[inline(never)]
fn open_abstract(
    endpoint: &Endpoint<'_>,
    name: &[u8],
    options: &ListenOptions<'_>,
) -> Result<OwnedFd, Error> {
    let fd = fresh(endpoint, AddressFamily::UNIX, options)?;
    let error = |errno| Error::call_on(Operation::Bind, fd.as_raw_fd(), errno);
    let address = SocketAddrUnix::new_abstract_name(name).map_err(error)?;
    configure(&fd, options)?;
    rustix::net::bind(&fd, &address).map_err(error)?;
    listen(&fd, endpoint, options)?;
    Ok(fd)
}

#[cold]
#[inline(never)]
fn open_path(endpoint: &Endpoint<'_>, path: &[u8], options: &ListenOptions<'_>) -> Result<OwnedFd, Error> {
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

/// Returns whether `path` is a socket that no process listens on.
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
    // EPROTOTYPE, EAGAIN and success all mean that a process listens there.
    Ok(rustix::net::connect(&probe, address) == Err(Errno::CONNREFUSED))
}

/// Removes the path of a Unix socket, if the path still leads to a socket.
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

/// Returns the path with a NUL behind it.
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
    options: &ListenOptions<'_>,
) -> Result<OwnedFd, Error> {
    let mut flags = SocketFlags::CLOEXEC;
    flags.set(SocketFlags::NONBLOCK, options.nonblocking);
    rustix::net::socket_with(family, socket_type(endpoint.network), flags, None)
        .and_then(sys::above_stdio)
        .map_err(|errno| Error::call(Operation::Socket, errno))
}

fn configure(fd: &OwnedFd, options: &ListenOptions<'_>) -> Result<(), Error> {
    match options.configure {
        Some(configure) => {
            configure(fd.as_fd()).map_err(|errno| Error::call_on(Operation::Configure, fd.as_raw_fd(), errno))
        }
        None => Ok(()),
    }
}

fn listen(fd: &OwnedFd, endpoint: &Endpoint<'_>, options: &ListenOptions<'_>) -> Result<(), Error> {
    if endpoint.network.kind() == Kind::Datagram {
        return Ok(());
    }
    rustix::net::listen(fd, options.backlog)
        .map_err(|errno| Error::call_on(Operation::Listen, fd.as_raw_fd(), errno))
}
