//! Networks and addresses: the arguments of `listen`, and the addresses that sockets are bound to.
//!
//! [`Endpoint::parse`] reads a network and an address. [`Address::from_sockaddr`] reads an address that the kernel
//! writes. This module makes no system call. Its callers resolve the names of interfaces, and the crate resolves no
//! host names except `localhost`.

mod key;
mod parse;

pub use key::{Equivalent, Key, Keys};

use crate::error::{Error, Word};
use core::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use core::str::FromStr;
use parse::{check_unix, inet_fault, read_inet};
use rustix::net::AddressFamily;

/// The longest Unix path and the longest abstract name, in bytes: `sun_path` less its NUL.
pub const UNIX_MAX: usize = 107;

/// A kind of socket, with the names that `Listen` of Go gracenet accepts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Network {
    /// `tcp`: a stream over IPv6 or IPv4.
    Tcp,
    /// `tcp4`: a stream over IPv4.
    Tcp4,
    /// `tcp6`: a stream over IPv6 only.
    Tcp6,
    /// `udp`: datagrams over IPv6 or IPv4.
    Udp,
    /// `udp4`: datagrams over IPv4.
    Udp4,
    /// `udp6`: datagrams over IPv6 only.
    Udp6,
    /// `unix`: a stream on this machine.
    Unix,
    /// `unixpacket`: a stream that keeps the boundaries of messages.
    UnixPacket,
    /// `unixgram`: datagrams on this machine.
    Unixgram,
}

/// The family of an address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Family {
    /// `AF_INET`
    V4,
    /// `AF_INET6`
    V6,
    /// `AF_UNIX`
    Unix,
}

/// The type of a socket.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// `SOCK_STREAM`
    Stream,
    /// `SOCK_DGRAM`
    Datagram,
    /// `SOCK_SEQPACKET`
    Packet,
}

impl Network {
    /// Reads a network's name.
    ///
    /// # Errors
    ///
    /// - [`Error::UnknownNetwork`]: no network has this name.
    pub fn parse(name: &str) -> Result<Self, Error> {
        Ok(match name {
            "tcp" => Self::Tcp,
            "tcp4" => Self::Tcp4,
            "tcp6" => Self::Tcp6,
            "udp" => Self::Udp,
            "udp4" => Self::Udp4,
            "udp6" => Self::Udp6,
            "unix" => Self::Unix,
            "unixpacket" => Self::UnixPacket,
            "unixgram" => Self::Unixgram,
            _ => return Err(Error::UnknownNetwork(Word::new(name))),
        })
    }

    /// Returns the type of the network's sockets.
    #[must_use]
    pub const fn kind(self) -> Kind {
        match self {
            Self::Tcp | Self::Tcp4 | Self::Tcp6 | Self::Unix => Kind::Stream,
            Self::Udp | Self::Udp4 | Self::Udp6 | Self::Unixgram => Kind::Datagram,
            Self::UnixPacket => Kind::Packet,
        }
    }

    /// Returns whether the network's sockets may be of `family`.
    #[must_use]
    pub const fn allows(self, family: Family) -> bool {
        match self {
            Self::Tcp | Self::Udp => matches!(family, Family::V4 | Family::V6),
            Self::Tcp4 | Self::Udp4 => matches!(family, Family::V4),
            Self::Tcp6 | Self::Udp6 => matches!(family, Family::V6),
            Self::Unix | Self::UnixPacket | Self::Unixgram => matches!(family, Family::Unix),
        }
    }

    const fn is_unix(self) -> bool {
        self.allows(Family::Unix)
    }
}

impl FromStr for Network {
    type Err = Error;

    /// Reads a network's name, as [`Network::parse`] does.
    fn from_str(name: &str) -> Result<Self, Error> {
        Self::parse(name)
    }
}

/// The zone of a link-local address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Zone<'a> {
    /// The interface's name.
    Name(&'a str),
    /// The interface's index.
    Index(u32),
}

/// An address to listen on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Address<'a> {
    /// `:80`, every address of this machine: dual-stack if the network allows both families.
    Any {
        /// The port; 0 lets the kernel choose.
        port: u16,
    },
    /// `localhost:80`, the loopback address: IPv4's unless the network allows only IPv6.
    Loopback {
        /// The port; 0 lets the kernel choose.
        port: u16,
    },
    /// An IP address.
    Inet(SocketAddr),
    /// An IPv6 address with the zone in which it is valid. The scope in the address is 0.
    Zoned(SocketAddr, Zone<'a>),
    /// A path, without a NUL.
    Path(&'a [u8]),
    /// An abstract name, without the leading NUL.
    Abstract(&'a [u8]),
}

impl<'a> Address<'a> {
    /// Reads a `struct sockaddr` with its length, as `getsockname` writes it, as an address to listen on.
    ///
    /// Returns `None` for a family outside of [`Family`], for a Unix socket that was never bound, and for a truncated
    /// address. It also returns `None` for a path that fills `sun_path` without a NUL. The flow label is not part of
    /// an address.
    ///
    /// # References
    ///
    /// - `struct sockaddr_in` in ip(7), `struct sockaddr_in6` in ipv6(7), `struct sockaddr_un` in unix(7)
    #[must_use]
    #[doc(alias = "sockaddr")]
    pub fn from_sockaddr(sockaddr: &'a [u8]) -> Option<Self> {
        let (family, rest) = family(sockaddr)?;
        match (family, rest) {
            (AddressFamily::INET, [p, q, a, b, c, d, ..]) => {
                let ip = Ipv4Addr::new(*a, *b, *c, *d);
                Some(Self::Inet(SocketAddr::new(ip.into(), u16::from_be_bytes([*p, *q]))))
            }
            (AddressFamily::INET6, rest) => {
                let (port, rest) = rest.split_first_chunk()?;
                let (_flow, rest) = rest.split_first_chunk::<4>()?;
                let (ip, rest) = rest.split_first_chunk::<16>()?;
                let (scope, _) = rest.split_first_chunk()?;
                let (ip, port) = (Ipv6Addr::from(*ip), u16::from_be_bytes(*port));
                Some(Self::Inet(SocketAddrV6::new(ip, port, 0, u32::from_ne_bytes(*scope)).into()))
            }
            (AddressFamily::UNIX, [0, name @ ..]) => Some(Self::Abstract(name)),
            // The kernel counts the NUL, even if there is no space for one.
            (AddressFamily::UNIX, [path @ .., 0]) if path.len() <= UNIX_MAX => Some(Self::Path(path)),
            _ => None,
        }
    }
}

/// Returns the family of a `struct sockaddr`, and the bytes that follow it.
pub(crate) fn family(sockaddr: &[u8]) -> Option<(AddressFamily, &[u8])> {
    let (family, rest) = sockaddr.split_first_chunk()?;
    Some((AddressFamily::from_raw(u16::from_ne_bytes(*family)), rest))
}

/// A network and an address that match.
///
/// ```
/// use gracenet::{Endpoint, Network};
/// use std::net::SocketAddr;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let read = Endpoint::parse("tcp", "[::1]:8080")?;
/// let made = Endpoint::from("[::1]:8080".parse::<SocketAddr>()?);
/// assert_eq!(read, made);
/// let path = Endpoint::unix_path(Network::Unix, b"/run/app.sock")?;
/// assert_eq!(path.network(), "unix".parse()?);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Endpoint<'a> {
    pub(crate) network: Network,
    pub(crate) address: Address<'a>,
}

impl<'a> Endpoint<'a> {
    /// Reads a network and an address as `Listen` of Go gracenet does.
    ///
    /// | network | addresses |
    /// |---|---|
    /// | `tcp`, `tcp4`, `tcp6`, `udp`, `udp4`, `udp6` | `127.0.0.1:80`, `[::1]:80`, `[fe80::1%eth0]:80`, `[fe80::1%2]:80`, `:80`, `localhost:80` |
    /// | `unix`, `unixpacket`, `unixgram` | a path, or `@` and an abstract name |
    ///
    /// # Errors
    ///
    /// - [`Error::UnknownNetwork`]: no network has this name.
    /// - [`Error::Address`]: the address cannot be read; the error holds the fault. A host name is a fault too,
    ///   because this crate resolves only `localhost`.
    pub fn parse(network: &str, address: &'a str) -> Result<Self, Error> {
        Self::parse_in(Network::parse(network)?, address.as_bytes())
    }

    /// Reads an address of `network`.
    ///
    /// # Errors
    ///
    /// - [`Error::Address`]: the address cannot be read; the error holds the fault.
    pub fn parse_in(network: Network, address: &'a [u8]) -> Result<Self, Error> {
        if network.is_unix() {
            return match address {
                [b'@', name @ ..] => Self::unix_abstract(network, name),
                path => Self::unix_path(network, path),
            };
        }
        match read_inet(network, address) {
            Some(address) => Ok(Self { network, address }),
            None => Err(Error::Address(inet_fault(address))),
        }
    }

    /// Returns the endpoint of a TCP listener: `tcp4` or `tcp6` by the address's family, and dual-stack for `[::]`.
    #[must_use]
    pub const fn tcp(address: SocketAddr) -> Self {
        Self { network: Network::Tcp, address: Address::Inet(address) }
    }

    /// Returns the endpoint of a UDP socket.
    #[must_use]
    pub const fn udp(address: SocketAddr) -> Self {
        Self { network: Network::Udp, address: Address::Inet(address) }
    }

    /// Returns the endpoint of a Unix socket of `network` at a path.
    ///
    /// # Errors
    ///
    /// - [`Error::Address`]: the path is empty, longer than [`UNIX_MAX`] or holds a NUL, or `network` has no paths.
    pub const fn unix_path(network: Network, path: &'a [u8]) -> Result<Self, Error> {
        match check_unix(network, path) {
            Ok(()) => Ok(Self { network, address: Address::Path(path) }),
            Err(fault) => Err(Error::Address(fault)),
        }
    }

    /// Returns the endpoint of a Unix socket of `network` with an abstract name, given without the leading NUL.
    ///
    /// # Errors
    ///
    /// - [`Error::Address`]: the name is empty, longer than [`UNIX_MAX`] or holds a NUL, or `network` has no names.
    ///   Linux accepts a NUL within an abstract name. No text form has one, so this call treats it as a mistake.
    pub const fn unix_abstract(network: Network, name: &'a [u8]) -> Result<Self, Error> {
        match check_unix(network, name) {
            Ok(()) => Ok(Self { network, address: Address::Abstract(name) }),
            Err(fault) => Err(Error::Address(fault)),
        }
    }

    /// Returns the network.
    #[must_use]
    pub const fn network(&self) -> Network {
        self.network
    }

    /// Returns the address.
    #[must_use]
    pub const fn address(&self) -> Address<'a> {
        self.address
    }

    /// Returns the loopback address that `localhost` means in this network.
    pub(crate) fn loopback(&self, port: u16) -> SocketAddr {
        if self.network.allows(Family::V4) {
            SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port)
        } else {
            SocketAddr::new(Ipv6Addr::LOCALHOST.into(), port)
        }
    }
}

impl From<SocketAddr> for Endpoint<'_> {
    /// Returns the endpoint of a TCP listener, as [`Endpoint::tcp`] does.
    fn from(address: SocketAddr) -> Self {
        Self::tcp(address)
    }
}

/// Returns `address` with the scope `scope`. An IPv4 address has no scope and stays as it is.
pub(crate) const fn scoped(mut address: SocketAddr, scope: u32) -> SocketAddr {
    if let SocketAddr::V6(v6) = &mut address {
        v6.set_scope_id(scope);
    }
    address
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::std_instead_of_core
)]
mod tests {
    use super::*;

    pub(super) const NETWORKS: [(&str, Network, Kind, &[Family]); 9] = [
        ("tcp", Network::Tcp, Kind::Stream, &[Family::V4, Family::V6]),
        ("tcp4", Network::Tcp4, Kind::Stream, &[Family::V4]),
        ("tcp6", Network::Tcp6, Kind::Stream, &[Family::V6]),
        ("udp", Network::Udp, Kind::Datagram, &[Family::V4, Family::V6]),
        ("udp4", Network::Udp4, Kind::Datagram, &[Family::V4]),
        ("udp6", Network::Udp6, Kind::Datagram, &[Family::V6]),
        ("unix", Network::Unix, Kind::Stream, &[Family::Unix]),
        ("unixpacket", Network::UnixPacket, Kind::Packet, &[Family::Unix]),
        ("unixgram", Network::Unixgram, Kind::Datagram, &[Family::Unix]),
    ];

    pub(super) fn socket_address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    /// Returns the bytes of a `struct sockaddr`: its family and the bytes that follow.
    fn sockaddr(family: AddressFamily, rest: &[&[u8]]) -> std::vec::Vec<u8> {
        let mut bytes = family.as_raw().to_ne_bytes().to_vec();
        bytes.extend(rest.iter().copied().flatten());
        bytes
    }

    #[test]
    fn sockaddrs_are_read_as_the_kernel_writes_them() {
        let port = &443_u16.to_be_bytes();
        let v4 = sockaddr(AddressFamily::INET, &[port, &[127, 0, 0, 2], &[0; 8]]);
        assert_eq!(
            Address::from_sockaddr(&v4),
            Some(Address::Inet(SocketAddr::new(Ipv4Addr::new(127, 0, 0, 2).into(), 443)))
        );
        let ip: Ipv6Addr = "fe80::1".parse().unwrap();
        let flow = &7_u32.to_be_bytes();
        let v6 = sockaddr(AddressFamily::INET6, &[port, flow, &ip.octets(), &2_u32.to_ne_bytes()]);
        let expected = Address::Inet(SocketAddrV6::new(ip, 443, 0, 2).into());
        assert_eq!(Address::from_sockaddr(&v6), Some(expected));
        for (name, least) in [(&v4, 8), (&v6, 28)] {
            for len in 0..name.len() {
                assert_eq!(Address::from_sockaddr(&name[..len]).is_some(), len >= least, "{len}");
            }
        }

        let unix = |rest: &[&[u8]]| sockaddr(AddressFamily::UNIX, rest);
        assert_eq!(Address::from_sockaddr(&unix(&[])), None);
        assert_eq!(Address::from_sockaddr(&unix(&[b"/run/a\0"])), Some(Address::Path(b"/run/a")));
        assert_eq!(Address::from_sockaddr(&unix(&[b"\0a\0b\0"])), Some(Address::Abstract(b"a\0b\0")));
        assert_eq!(Address::from_sockaddr(&unix(&[&[0; 108]])), Some(Address::Abstract(&[0; 107])));
        let path = [b'x'; UNIX_MAX + 1];
        assert_eq!(
            Address::from_sockaddr(&unix(&[&path[..UNIX_MAX], b"\0"])),
            Some(Address::Path(&path[..UNIX_MAX]))
        );
        assert_eq!(Address::from_sockaddr(&unix(&[&path, b"\0"])), None);
        assert_eq!(Address::from_sockaddr(&unix(&[&path])), None);
        assert_eq!(Address::from_sockaddr(&sockaddr(AddressFamily::NETLINK, &[&[0; 10]])), None);
    }

    #[test]
    fn networks() {
        for (name, network, kind, families) in NETWORKS {
            assert_eq!(Network::parse(name), Ok(network));
            assert_eq!(network.kind(), kind, "{name}");
            for family in [Family::V4, Family::V6, Family::Unix] {
                assert_eq!(network.allows(family), families.contains(&family), "{name}, {family:?}");
            }
        }
        for name in ["", "TCP", "tcp5", "tcp ", "ip4:icmp", "unixpackets", "unixé"] {
            assert_eq!(Network::parse(name), Err(Error::UnknownNetwork(Word::new(name))));
            assert_eq!(Endpoint::parse(name, ":80"), Err(Error::UnknownNetwork(Word::new(name))));
        }
    }

    #[test]
    fn addresses_as_values() {
        let address = socket_address("[::1]:80");
        assert_eq!(Endpoint::tcp(address), Endpoint::parse("tcp", "[::1]:80").unwrap());
        assert_eq!(Endpoint::from(address), Endpoint::tcp(address));
        assert_eq!(Endpoint::udp(address), Endpoint::parse("udp", "[::1]:80").unwrap());
    }
}
