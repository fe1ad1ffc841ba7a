//! Networks and addresses: parsing, and the rule that says when two of them are the same.
//!
//! [`Endpoint::parse`] reads what `listen` takes; [`Key`] is a socket's own address as the kernel tells it,
//! in a form that is compared and hashed fast; [`Endpoint::keys`] says which keys an endpoint may claim.
//! This module makes no system call: names of interfaces are resolved by whoever calls it, host names by nobody.

use crate::digits::value_of;
use crate::error::{AddressFault, Error, Word};
use crate::hash::fnv;
use core::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use rustix::net::AddressFamily;

/// The longest Unix path and the longest abstract name, in bytes: `sun_path` less its NUL.
pub const UNIX_MAX: usize = 107;

/// The kind of socket asked for, with the names that the seed's `Listen` takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Network {
    /// `tcp`: a stream over IPv6 or IPv4.
    Tcp,
    /// `tcp4`: a stream over IPv4.
    Tcp4,
    /// `tcp6`: a stream over IPv6 alone.
    Tcp6,
    /// `udp`: datagrams over IPv6 or IPv4.
    Udp,
    /// `udp4`: datagrams over IPv4.
    Udp4,
    /// `udp6`: datagrams over IPv6 alone.
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
    /// - [`Error::UnknownNetwork`], with the name.
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

    /// The type of its sockets.
    #[must_use]
    pub const fn kind(self) -> Kind {
        match self {
            Self::Tcp | Self::Tcp4 | Self::Tcp6 | Self::Unix => Kind::Stream,
            Self::Udp | Self::Udp4 | Self::Udp6 | Self::Unixgram => Kind::Datagram,
            Self::UnixPacket => Kind::Packet,
        }
    }

    /// Whether its sockets may be of `family`.
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

/// The zone of a link-local address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Zone<'a> {
    /// The interface's name.
    Name(&'a str),
    /// The interface's index.
    Index(u32),
}

/// An address as asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Address<'a> {
    /// `:80`, every address of this machine: dual-stack where the network allows both families.
    Any {
        /// The port; 0 lets the kernel choose.
        port: u16,
    },
    /// `localhost:80`: the loopback address, IPv4's unless the network is IPv6's.
    Loopback {
        /// The port; 0 lets the kernel choose.
        port: u16,
    },
    /// An IP address.
    Inet(SocketAddr),
    /// An IPv6 address with the zone it is valid in; the scope in the address is 0.
    Zoned(SocketAddr, Zone<'a>),
    /// A path, without a NUL.
    Path(&'a [u8]),
    /// An abstract name, without the leading NUL.
    Abstract(&'a [u8]),
}

impl<'a> Address<'a> {
    /// Reads what `getsockname` writes, a `struct sockaddr` and its length, as an address that can be asked for.
    ///
    /// `None` for another family than those of [`Family`], for a Unix socket that was never bound, for a path that
    /// fills `sun_path` without a NUL, and for what is cut short. The flow label is not part of an address.
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
            // The kernel counts the NUL, and where there is no room for one it counts it all the same.
            (AddressFamily::UNIX, [path @ .., 0]) if path.len() <= UNIX_MAX => Some(Self::Path(path)),
            _ => None,
        }
    }
}

/// The family of a `struct sockaddr`, and what follows it.
pub(crate) fn family(sockaddr: &[u8]) -> Option<(AddressFamily, &[u8])> {
    let (family, rest) = sockaddr.split_first_chunk()?;
    Some((AddressFamily::from_raw(u16::from_ne_bytes(*family)), rest))
}

/// A network and an address that fit together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Endpoint<'a> {
    pub(crate) network: Network,
    pub(crate) address: Address<'a>,
}

impl<'a> Endpoint<'a> {
    /// Reads a network and an address as the seed's `Listen` takes them.
    ///
    /// | network | addresses |
    /// |---|---|
    /// | `tcp`, `tcp4`, `tcp6`, `udp`, `udp4`, `udp6` | `127.0.0.1:80`, `[::1]:80`, `[fe80::1%eth0]:80`, `[fe80::1%2]:80`, `:80`, `localhost:80` |
    /// | `unix`, `unixpacket`, `unixgram` | a path, or `@` and an abstract name |
    ///
    /// # Errors
    ///
    /// - [`Error::UnknownNetwork`], with the network's name.
    /// - [`Error::Address`], with what is wrong; a host name is, since nothing here resolves any.
    pub fn parse(network: &str, address: &'a str) -> Result<Self, Error> {
        Self::parse_in(Network::parse(network)?, address.as_bytes())
    }

    /// Reads an address of `network`.
    ///
    /// # Errors
    ///
    /// - [`Error::Address`], with what is wrong.
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

    /// A TCP listener's address: `tcp4`'s or `tcp6`'s by its family, `[::]` being dual-stack.
    #[must_use]
    pub const fn tcp(address: SocketAddr) -> Self {
        Self { network: Network::Tcp, address: Address::Inet(address) }
    }

    /// A UDP socket's address.
    #[must_use]
    pub const fn udp(address: SocketAddr) -> Self {
        Self { network: Network::Udp, address: Address::Inet(address) }
    }

    /// A path for a Unix socket of `network`.
    ///
    /// # Errors
    ///
    /// - [`Error::Address`]: the path is empty, longer than [`UNIX_MAX`], holds a NUL, or `network` has none.
    pub const fn unix_path(network: Network, path: &'a [u8]) -> Result<Self, Error> {
        match check_unix(network, path) {
            Ok(()) => Ok(Self { network, address: Address::Path(path) }),
            Err(fault) => Err(Error::Address(fault)),
        }
    }

    /// An abstract name, without the leading NUL, for a Unix socket of `network`.
    ///
    /// # Errors
    ///
    /// - [`Error::Address`]: the name is empty, longer than [`UNIX_MAX`], holds a NUL, or `network` has none.
    ///   (Linux takes a NUL within an abstract name; no text form has one, so it is taken for a mistake.)
    pub const fn unix_abstract(network: Network, name: &'a [u8]) -> Result<Self, Error> {
        match check_unix(network, name) {
            Ok(()) => Ok(Self { network, address: Address::Abstract(name) }),
            Err(fault) => Err(Error::Address(fault)),
        }
    }

    /// The network asked for.
    #[must_use]
    pub const fn network(&self) -> Network {
        self.network
    }

    /// The address asked for.
    #[must_use]
    pub const fn address(&self) -> Address<'a> {
        self.address
    }

    /// The addresses whose sockets this endpoint may claim: the exact one, then the seed's equivalence of
    /// the wildcards, where the network allows that family. `scope` is the index of the zone, if there is one.
    ///
    /// A port of 0 asks for a fresh port, which no socket that is bound already can be: no key.
    #[must_use]
    pub fn keys(&self, scope: u32) -> Keys {
        let exact = match self.address {
            Address::Any { port } if self.network.allows(Family::V6) => {
                Key::inet(SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port))
            }
            Address::Any { port } => Key::inet(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port)),
            Address::Loopback { port } => Key::inet(self.loopback(port)),
            Address::Inet(address) => Key::inet(address),
            Address::Zoned(address, _) => Key::inet(scoped(address, scope)),
            Address::Path(path) => Key::unix(path),
            Address::Abstract(name) => Key::unix_abstract(name),
        };
        let equivalent = match exact {
            Key::V4 { ip, port } if ip == [0; 4] && self.network.allows(Family::V6) => {
                Some(Equivalent::DualStack(Key::V6 { ip: [0; 16], port, scope: 0 }))
            }
            Key::V6 { ip, port, .. } if ip == [0; 16] && self.network.allows(Family::V4) => {
                Some(Equivalent::V4(Key::V4 { ip: [0; 4], port }))
            }
            _ => None,
        };
        if exact.port() == Some(0) {
            return Keys { exact: None, equivalent: None };
        }
        Keys { exact: Some(exact), equivalent }
    }

    /// The loopback address that `localhost` stands for in this network.
    pub(crate) fn loopback(&self, port: u16) -> SocketAddr {
        if self.network.allows(Family::V4) {
            SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port)
        } else {
            SocketAddr::new(Ipv6Addr::LOCALHOST.into(), port)
        }
    }
}

/// `address` with the scope `scope`, which IPv4 has none of.
pub(crate) const fn scoped(mut address: SocketAddr, scope: u32) -> SocketAddr {
    if let SocketAddr::V6(v6) = &mut address {
        v6.set_scope_id(scope);
    }
    address
}

/// What [`Endpoint::keys`] found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Keys {
    /// The address itself.
    pub exact: Option<Key>,
    /// The other family's wildcard.
    pub equivalent: Option<Equivalent>,
}

/// The wildcard of the other family.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Equivalent {
    /// `[::]` may stand for `0.0.0.0`, if its `IPV6_V6ONLY` is off.
    DualStack(Key),
    /// `0.0.0.0` may stand for `[::]`, unless the caller wants `IPV6_V6ONLY`.
    V4(Key),
}

/// How many bytes of a Unix address a [`Key`] holds.
const INLINE: usize = 28;

/// A socket's own address, as `getsockname` tells it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Key {
    /// An IPv4 address.
    V4 {
        /// The address, in network order.
        ip: [u8; 4],
        /// The port.
        port: u16,
    },
    /// An IPv6 address.
    V6 {
        /// The address, in network order.
        ip: [u8; 16],
        /// The port.
        port: u16,
        /// The index of the zone, or 0 where the address means the same in all zones.
        scope: u32,
    },
    /// A path or an abstract name: its bytes, or of a long one the first 20 and a digest of all.
    Unix {
        /// How many bytes the address has; those of an abstract name count its leading NUL.
        len: u8,
        /// See above; unused bytes are 0.
        bytes: [u8; INLINE],
    },
}

impl Key {
    /// The key of an IP address. The flow label is not part of an address, and a zone only of one that is
    /// valid within a link or an interface: the kernel takes any for the others, and tells none.
    #[must_use]
    pub const fn inet(address: SocketAddr) -> Self {
        match address {
            SocketAddr::V4(v4) => Self::V4 { ip: v4.ip().octets(), port: v4.port() },
            SocketAddr::V6(v6) => {
                let scope = if has_zone(v6.ip()) { v6.scope_id() } else { 0 };
                Self::V6 { ip: v6.ip().octets(), port: v6.port(), scope }
            }
        }
    }

    /// The key of an address that a socket can have: an IP address, a path or an abstract name.
    #[must_use]
    pub fn of(address: &Address<'_>) -> Option<Self> {
        match address {
            Address::Inet(address) => Some(Self::inet(*address)),
            Address::Path(path) => Some(Self::unix(path)),
            Address::Abstract(name) => Some(Self::unix_abstract(name)),
            _ => None,
        }
    }

    /// The key of a path, without its NUL.
    #[must_use]
    pub fn unix(path: &[u8]) -> Self {
        Self::unix_bytes(path.len(), path.iter().copied())
    }

    /// The key of an abstract name, without its leading NUL.
    #[must_use]
    pub fn unix_abstract(name: &[u8]) -> Self {
        Self::unix_bytes(name.len() + 1, core::iter::once(0).chain(name.iter().copied()))
    }

    fn unix_bytes(len: usize, address: impl Iterator<Item = u8> + Clone) -> Self {
        let mut bytes = [0; INLINE];
        for (to, from) in bytes.iter_mut().zip(address.clone()) {
            *to = from;
        }
        if len > INLINE {
            if let Some(tail) = bytes.last_chunk_mut() {
                *tail = fnv(address).to_ne_bytes();
            }
        }
        Self::Unix { len: len.min(u8::MAX as usize) as u8, bytes }
    }

    /// Whether equal keys mean equal addresses. If not, the addresses themselves have to be compared.
    #[must_use]
    pub const fn is_exact(&self) -> bool {
        match self {
            Self::Unix { len, .. } => *len as usize <= INLINE,
            _ => true,
        }
    }

    /// The family of the address.
    #[must_use]
    pub const fn family(&self) -> Family {
        match self {
            Self::V4 { .. } => Family::V4,
            Self::V6 { .. } => Family::V6,
            Self::Unix { .. } => Family::Unix,
        }
    }

    /// The port, where the family has ports.
    #[must_use]
    pub const fn port(&self) -> Option<u16> {
        match self {
            Self::V4 { port, .. } | Self::V6 { port, .. } => Some(*port),
            Self::Unix { .. } => None,
        }
    }

    /// A hash that equal keys share.
    #[must_use]
    pub fn hash(&self) -> u32 {
        let hash = match self {
            Self::V4 { ip, port } => mix(u32::from_ne_bytes(*ip).into(), *port),
            Self::V6 { ip, port, scope } => {
                let ip = u128::from_ne_bytes(*ip);
                mix(mix(ip as u64, 0) ^ (ip >> 64) as u64 ^ u64::from(*scope), *port)
            }
            Self::Unix { bytes, .. } => fnv(bytes.iter().copied()),
        };
        (hash ^ (hash >> 32)) as u32
    }
}

/// Whether the address means something else in each zone, as `__ipv6_addr_needs_scope_id` in Linux has it:
/// link-local ones, and multicast ones of the interface or the link.
const fn has_zone(ip: &Ipv6Addr) -> bool {
    match ip.octets() {
        [0xff, scope, ..] => matches!(scope & 0x0f, 1 | 2),
        _ => ip.is_unicast_link_local(),
    }
}

/// Spreads an IP address, in one word, and a port: as FNV does, with one step for all of it.
const fn mix(ip: u64, port: u16) -> u64 {
    (ip ^ (port as u64) << 32).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

const fn check_unix(network: Network, bytes: &[u8]) -> Result<(), AddressFault> {
    if !network.is_unix() {
        return Err(AddressFault::Family);
    }
    if bytes.is_empty() {
        return Err(AddressFault::Empty);
    }
    if bytes.len() > UNIX_MAX {
        return Err(AddressFault::PathTooLong { bytes: bytes.len() });
    }
    let mut rest = bytes;
    while let [first, tail @ ..] = rest {
        if *first == 0 {
            return Err(AddressFault::Nul);
        }
        rest = tail;
    }
    Ok(())
}

/// Reads an address with a port. Where there is none, [`inet_fault`] says why.
fn read_inet(network: Network, text: &[u8]) -> Option<Address<'_>> {
    if let [b':', port @ ..] = text {
        return Some(Address::Any { port: read_port(port)? });
    }
    if let Some(port) = text.strip_prefix(b"localhost:") {
        return Some(Address::Loopback { port: read_port(port)? });
    }
    if let [b'[', rest @ ..] = text {
        let (host, rest) = split_at(rest, b']')?;
        let (ip, zone) = read_ipv6(host).filter(|_| network.allows(Family::V6))?;
        let address = SocketAddr::new(ip.into(), read_port(rest.strip_prefix(b":")?)?);
        return Some(zone.map_or(Address::Inet(address), |zone| Address::Zoned(address, zone)));
    }
    let (ip, port) = read_ipv4(text).filter(|_| network.allows(Family::V4))?;
    Some(Address::Inet(SocketAddr::new(ip.into(), read_port(port)?)))
}

/// An IPv4 address that a colon ends, and what follows the colon. It takes what std's parser takes; that one wants text,
/// which would have to be checked for UTF-8 first.
fn read_ipv4(mut text: &[u8]) -> Option<(Ipv4Addr, &[u8])> {
    let mut ip = 0;
    for end in b"...:" {
        let [first @ b'0'..=b'9', rest @ ..] = text else { return None };
        let mut octet = u32::from(first - b'0');
        text = rest;
        while let [digit @ b'0'..=b'9', rest @ ..] = text {
            // One with a leading 0 may be meant as octal.
            let longer = octet * 10 + u32::from(digit - b'0');
            if octet == 0 || longer > 255 {
                return None;
            }
            octet = longer;
            text = rest;
        }
        ip = ip << 8 | octet;
        text = text.strip_prefix(&[*end])?;
    }
    Some((ip.into(), text))
}

/// What stands in brackets.
fn read_ipv6(host: &[u8]) -> Option<(Ipv6Addr, Option<Zone<'_>>)> {
    let (ip, zone) = match split_at(host, b'%') {
        Some((ip, zone)) => (ip, Some(read_zone(zone)?)),
        None => (host, None),
    };
    Some((core::str::from_utf8(ip).ok()?.parse().ok()?, zone))
}

fn read_port(digits: &[u8]) -> Option<u16> {
    value_of(digits)?.try_into().ok()
}

/// An index if it is all digits, which no interface's name may be on the way to `if_indextoname`.
fn read_zone(zone: &[u8]) -> Option<Zone<'_>> {
    // IFNAMSIZ is 16 with the NUL.
    if zone.is_empty() || zone.len() > 15 {
        return None;
    }
    if zone.iter().all(u8::is_ascii_digit) {
        let index = value_of(zone)?.try_into().ok()?;
        return (index != 0).then_some(Zone::Index(index));
    }
    let is_foreign = |byte: &u8| *byte == 0 || byte.is_ascii_whitespace();
    core::str::from_utf8(zone).ok().filter(|_| !zone.iter().any(is_foreign)).map(Zone::Name)
}

/// What is wrong with an address that [`read_inet`] cannot read; the family, if it is nothing else.
#[cold]
#[inline(never)]
fn inet_fault(text: &[u8]) -> AddressFault {
    if text.contains(&0) {
        return AddressFault::Nul;
    }
    if core::str::from_utf8(text).is_err() {
        return AddressFault::Host;
    }
    if text.iter().any(u8::is_ascii_whitespace) {
        return AddressFault::Space;
    }
    let (port, host_fault) = if let [b'[', rest @ ..] = text {
        match split_at(rest, b']') {
            Some((_, [])) => return AddressFault::MissingPort,
            Some((host, [b':', port @ ..])) => (port, ipv6_fault(host)),
            _ => return AddressFault::Bracket,
        }
    } else {
        match split_at(text, b':') {
            None => return AddressFault::MissingPort,
            Some((host, port)) if port.contains(&b':') || host.iter().any(|byte| b"[]".contains(byte)) => {
                return AddressFault::Bracket;
            }
            Some((host, port)) => (port, read_ipv4(text).map_or(ipv4_fault(host), |_| AddressFault::Family)),
        }
    };
    match port {
        [] => AddressFault::MissingPort,
        [b'+' | b'-', ..] => AddressFault::PortSign,
        digits if !digits.iter().all(u8::is_ascii_digit) => AddressFault::PortNotANumber,
        digits if read_port(digits).is_none() => AddressFault::PortOutOfRange,
        _ => host_fault,
    }
}

fn ipv6_fault(host: &[u8]) -> AddressFault {
    match split_at(host, b'%') {
        Some((_, zone)) if read_zone(zone).is_none() => AddressFault::Zone,
        _ if read_ipv6(host).is_none() => AddressFault::Ipv6,
        _ => AddressFault::Family,
    }
}

/// What looks like numbers was meant as an IPv4 address, the rest as a host name.
fn ipv4_fault(host: &[u8]) -> AddressFault {
    if host.iter().all(|byte| byte.is_ascii_digit() || *byte == b'.') {
        AddressFault::Ipv4
    } else {
        AddressFault::Host
    }
}

/// What stands before the first such byte, and behind it.
fn split_at(text: &[u8], byte: u8) -> Option<(&[u8], &[u8])> {
    let end = text.iter().position(|other| *other == byte)?;
    text.get(..end).zip(text.get(end + 1..))
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
    use std::string::String;
    use std::vec::Vec;

    const NETWORKS: [(&str, Network, Kind, &[Family]); 9] = [
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

    fn parse<'a>(network: &str, address: &'a str) -> Result<Address<'a>, AddressFault> {
        match Endpoint::parse(network, address) {
            Ok(endpoint) => Ok(endpoint.address()),
            Err(Error::Address(fault)) => Err(fault),
            Err(other) => panic!("{other:?}"),
        }
    }

    fn socket_address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn key(text: &str) -> Key {
        Key::inet(socket_address(text))
    }

    fn keys(network: &str, address: &str, scope: u32) -> Keys {
        Endpoint::parse(network, address).unwrap().keys(scope)
    }

    /// The bytes of a `struct sockaddr`: its family and what follows.
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
    fn internet_addresses() {
        let v6 = |text| Address::Inet(socket_address(text));
        let zoned = |text, zone| Address::Zoned(socket_address(text), zone);
        for (network, text, expected) in [
            ("tcp", "127.0.0.1:80", Address::Inet(socket_address("127.0.0.1:80"))),
            ("udp4", "255.255.255.255:1", Address::Inet(socket_address("255.255.255.255:1"))),
            ("tcp", "0.0.0.0:0080", Address::Inet(socket_address("0.0.0.0:80"))),
            ("tcp", "[::1]:80", v6("[::1]:80")),
            ("udp6", "[2001:DB8::1]:53", v6("[2001:db8::1]:53")),
            ("tcp6", "[::ffff:1.2.3.4]:80", v6("[::ffff:1.2.3.4]:80")),
            ("tcp", "[fe80::1%eth0]:80", zoned("[fe80::1]:80", Zone::Name("eth0"))),
            ("tcp", "[fe80::1%2]:80", zoned("[fe80::1]:80", Zone::Index(2))),
            ("tcp", "[fe80::1%4294967295]:80", zoned("[fe80::1]:80", Zone::Index(u32::MAX))),
            ("tcp", "[fe80::1%0eth]:80", zoned("[fe80::1]:80", Zone::Name("0eth"))),
            ("tcp", "[fe80::1%a%b]:80", zoned("[fe80::1]:80", Zone::Name("a%b"))),
            ("tcp", "[fe80::1%fifteen_letters]:1", zoned("[fe80::1]:1", Zone::Name("fifteen_letters"))),
            ("tcp", ":80", Address::Any { port: 80 }),
            ("tcp4", ":0", Address::Any { port: 0 }),
            ("udp6", ":65535", Address::Any { port: 65535 }),
            ("tcp", ":000000000000000000000000000065535", Address::Any { port: 65535 }),
            ("tcp", "localhost:80", Address::Loopback { port: 80 }),
            ("udp6", "localhost:0", Address::Loopback { port: 0 }),
        ] {
            assert_eq!(parse(network, text), Ok(expected), "{network} {text}");
        }
    }

    #[test]
    fn internet_address_faults() {
        use AddressFault::*;
        for (network, text, expected) in [
            ("tcp", "", MissingPort),
            ("tcp", ":", MissingPort),
            ("tcp", "127.0.0.1", MissingPort),
            ("tcp", "127.0.0.1:", MissingPort),
            ("tcp", "localhost", MissingPort),
            ("tcp", "[::1]", MissingPort),
            ("tcp", "[::1]:", MissingPort),
            ("tcp", ":+80", PortSign),
            ("tcp", ":-80", PortSign),
            ("tcp", ":http", PortNotANumber),
            ("tcp", ":8o", PortNotANumber),
            ("tcp", ":0x50", PortNotANumber),
            ("tcp", ":٨٠", PortNotANumber),
            ("tcp", ":65536", PortOutOfRange),
            ("tcp", ":99999999999999999999", PortOutOfRange),
            ("tcp", " :80", Space),
            ("tcp", ":80\n", Space),
            ("tcp", "127.0.0.1 :80", Space),
            ("tcp", "[::1%\t]:80", Space),
            ("tcp", "127.0.0.1\0:80", Nul),
            ("tcp", "\0", Nul),
            ("tcp", "1.2.3:80", Ipv4),
            ("tcp", "1.2.3.4.5:80", Ipv4),
            ("tcp", "256.0.0.1:80", Ipv4),
            ("tcp", "01.2.3.4:80", Ipv4),
            ("tcp", "80:80", Ipv4),
            ("tcp6", "1.2.3:80", Ipv4),
            ("tcp", "[]:80", Ipv6),
            ("tcp", "[:::]:80", Ipv6),
            ("tcp", "[127.0.0.1]:80", Ipv6),
            ("tcp", "[localhost]:80", Ipv6),
            ("tcp", "[[::1]:80", Ipv6),
            ("tcp", "[%eth0]:80", Ipv6),
            ("tcp4", "[::g]:80", Ipv6),
            ("tcp", "::1:80", Bracket),
            ("tcp", "::1", Bracket),
            ("tcp", "fe80::1%eth0:80", Bracket),
            ("tcp", "[::1", Bracket),
            ("tcp", "[::1:80", Bracket),
            ("tcp", "[::1]80", Bracket),
            ("tcp", "[::1]]:80", Bracket),
            ("tcp", "::1]:80", Bracket),
            ("tcp", "1.2.3.4]:80", Bracket),
            ("tcp", "1.[2].3.4:80", Bracket),
            ("tcp", "[fe80::1%]:80", Zone),
            ("tcp", "[fe80::1%0]:80", Zone),
            ("tcp", "[fe80::1%000]:80", Zone),
            ("tcp", "[fe80::1%4294967296]:80", Zone),
            ("tcp", "[fe80::1%sixteen__letters]:80", Zone),
            ("tcp", "example.org:80", Host),
            ("tcp", "LOCALHOST:80", Host),
            ("tcp", "*:80", Host),
            ("tcp", "1.2.3.4%eth0:80", Host),
            ("tcp", "é:80", Host),
            ("tcp4", "[::1]:80", Family),
            ("udp4", "[fe80::1%eth0]:80", Family),
            ("tcp6", "127.0.0.1:80", Family),
            ("udp6", "0.0.0.0:80", Family),
        ] {
            assert_eq!(parse(network, text), Err(expected), "{network} {text}");
        }
        let not_text = Endpoint::parse_in(Network::Tcp, b"\xff:80");
        assert_eq!(not_text, Err(Error::Address(Host)));
    }

    #[test]
    fn unix_addresses() {
        let longest = "p".repeat(UNIX_MAX);
        let longest_name = std::format!("@{longest}");
        for network in ["unix", "unixpacket", "unixgram"] {
            for (text, expected) in [
                ("/run/app.sock", Address::Path(b"/run/app.sock")),
                ("app.sock", Address::Path(b"app.sock")),
                (" ", Address::Path(b" ")),
                ("127.0.0.1:80", Address::Path(b"127.0.0.1:80")),
                ("@app", Address::Abstract(b"app")),
                ("@@", Address::Abstract(b"@")),
                (&longest, Address::Path(longest.as_bytes())),
                (&longest_name, Address::Abstract(longest.as_bytes())),
            ] {
                assert_eq!(parse(network, text), Ok(expected), "{network} {text}");
            }
        }
        let path = Endpoint::parse_in(Network::Unix, b"/\xff").unwrap();
        assert_eq!(path.address(), Address::Path(b"/\xff"));
        assert_eq!(path.network(), Network::Unix);
        let literal = Endpoint::unix_path(Network::Unix, b"@app").unwrap();
        assert_eq!(literal.address(), Address::Path(b"@app"));
    }

    #[test]
    fn unix_address_faults() {
        let too_long = "p".repeat(UNIX_MAX + 1);
        let too_long_name = std::format!("@{too_long}");
        for (text, expected) in [
            ("", AddressFault::Empty),
            ("@", AddressFault::Empty),
            ("/a\0", AddressFault::Nul),
            ("@\0", AddressFault::Nul),
            (&too_long, AddressFault::PathTooLong { bytes: 108 }),
            (&too_long_name, AddressFault::PathTooLong { bytes: 108 }),
        ] {
            assert_eq!(parse("unix", text), Err(expected), "{text:?}");
        }
        for (_, network, _, _) in &NETWORKS[..6] {
            let family = Err(Error::Address(AddressFault::Family));
            assert_eq!(Endpoint::unix_path(*network, b"/a"), family);
            assert_eq!(Endpoint::unix_abstract(*network, b"a"), family);
        }
    }

    #[test]
    fn addresses_as_values() {
        let address = socket_address("[::1]:80");
        assert_eq!(Endpoint::tcp(address), Endpoint::parse("tcp", "[::1]:80").unwrap());
        assert_eq!(Endpoint::udp(address), Endpoint::parse("udp", "[::1]:80").unwrap());
    }

    #[test]
    fn exact_keys() {
        for (network, text, expected) in [
            ("tcp", "127.0.0.1:80", "127.0.0.1:80"),
            ("tcp", "[::1]:80", "[::1]:80"),
            ("tcp", ":80", "[::]:80"),
            ("tcp4", ":80", "0.0.0.0:80"),
            ("udp6", ":80", "[::]:80"),
            ("tcp", "localhost:80", "127.0.0.1:80"),
            ("tcp4", "localhost:80", "127.0.0.1:80"),
            ("tcp6", "localhost:80", "[::1]:80"),
            // An address of IPv6, whatever it maps to.
            ("tcp", "[::ffff:127.0.0.1]:80", "[::ffff:127.0.0.1]:80"),
        ] {
            assert_eq!(keys(network, text, 0).exact, Some(key(expected)), "{network} {text}");
        }
        assert_eq!(keys("unix", "/a", 0), Keys { exact: Some(Key::unix(b"/a")), equivalent: None });
        assert_eq!(keys("unix", "@a", 0), Keys { exact: Some(Key::unix_abstract(b"a")), equivalent: None });
    }

    #[test]
    fn a_zone_counts_where_the_kernel_keeps_it() {
        for (ip, kept) in [
            ("fe80::1", true),
            ("febf:ffff::1", true),
            ("fec0::1", false),
            ("ff01::1", true),
            ("ff12::1", true),
            ("ff02::fb", true),
            ("ff05::2", false),
            ("ff0e::1", false),
            ("fd00::1", false),
            ("2001:db8::1", false),
            ("::1", false),
            ("::", false),
        ] {
            let zoned = keys("tcp6", &std::format!("[{ip}%eth0]:80"), 3).exact;
            let told = key(&std::format!("[{ip}%{}]:80", if kept { 3 } else { 0 }));
            assert_eq!(zoned, Some(told), "{ip}");
            // As a program may have put it together.
            assert_eq!(key(&std::format!("[{ip}%3]:80")), told, "{ip}");
        }
        // The wildcard with a zone is the wildcard.
        assert_eq!(keys("tcp", "[::%eth0]:80", 3), keys("tcp", "[::]:80", 0));
    }

    #[test]
    fn wildcards_are_equivalent_where_the_network_has_both_families() {
        let v4 = key("0.0.0.0:80");
        let v6 = key("[::]:80");
        for (network, text, equivalent) in [
            ("tcp", ":80", Some(Equivalent::V4(v4))),
            ("tcp", "[::]:80", Some(Equivalent::V4(v4))),
            ("tcp", "0.0.0.0:80", Some(Equivalent::DualStack(v6))),
            ("udp", ":80", Some(Equivalent::V4(v4))),
            ("udp", "0.0.0.0:80", Some(Equivalent::DualStack(v6))),
            ("tcp4", ":80", None),
            ("tcp4", "0.0.0.0:80", None),
            ("tcp6", ":80", None),
            ("tcp6", "[::]:80", None),
            ("udp4", ":80", None),
            ("udp6", ":80", None),
            ("tcp", "127.0.0.1:80", None),
            ("tcp", "[::1]:80", None),
            ("tcp", "localhost:80", None),
            ("tcp", "[::ffff:0.0.0.0]:80", None),
        ] {
            assert_eq!(keys(network, text, 0).equivalent, equivalent, "{network} {text}");
        }
    }

    #[test]
    fn port_0_claims_nothing() {
        for (network, text) in [
            ("tcp", ":0"),
            ("tcp", "[::]:0"),
            ("tcp", "0.0.0.0:0"),
            ("tcp6", "localhost:0"),
            ("udp", "[::1]:0"),
        ] {
            assert_eq!(keys(network, text, 0), Keys { exact: None, equivalent: None }, "{network} {text}");
        }
    }

    #[test]
    fn keys_of_the_internet() {
        let same_but = [
            key("127.0.0.1:80"),
            key("127.0.0.1:81"),
            key("127.0.0.2:80"),
            key("[::1]:80"),
            key("[::ffff:127.0.0.1]:80"),
            key("[fe80::1]:80"),
            key("[fe80::1%1]:80"),
            key("[fe80::1%2]:80"),
            key("0.0.0.0:80"),
            key("[::]:80"),
        ];
        for (i, a) in same_but.iter().enumerate() {
            assert!(a.is_exact());
            assert_eq!(a.port(), Some(if i == 1 { 81 } else { 80 }));
            for (j, b) in same_but.iter().enumerate() {
                assert_eq!(a == b, i == j, "{a:?} {b:?}");
            }
        }
        let mut labelled = socket_address("[::1]:80");
        if let SocketAddr::V6(v6) = &mut labelled {
            v6.set_flowinfo(1);
        }
        assert_eq!(Key::inet(labelled), key("[::1]:80"));
        assert_eq!(Key::inet(labelled).hash(), key("[::1]:80").hash());
        assert_eq!(key("1.1.1.1:1").family(), Family::V4);
        assert_eq!(key("[::1]:1").family(), Family::V6);
    }

    #[test]
    fn keys_of_unix_sockets() {
        let text: String = ('!'..='~').chain('!'..='~').collect();
        let text = text.as_bytes();
        let mut seen = Vec::new();
        for len in 0..=UNIX_MAX {
            for key in [Key::unix(&text[..len]), Key::unix_abstract(&text[..len])] {
                assert_eq!(key.family(), Family::Unix);
                assert_eq!(key.port(), None);
                assert!(!seen.contains(&key));
                seen.push(key);
            }
            assert_eq!(Key::unix(&text[..len]).is_exact(), len <= 28, "path of {len}");
            assert_eq!(Key::unix_abstract(&text[..len]).is_exact(), len <= 27, "name of {len}");
        }
        // A digest of all: the bytes that are not kept count as well.
        for len in 1..=UNIX_MAX {
            for changed in 0..len {
                let mut other = [0; UNIX_MAX];
                other[..len].copy_from_slice(&text[..len]);
                other[changed] ^= 1;
                assert_ne!(Key::unix(&text[..len]), Key::unix(&other[..len]), "{changed} of {len}");
            }
        }
        assert_ne!(Key::unix(b"a"), Key::unix(b"a\0"));
        assert_eq!(Key::unix(b"/run/app.sock").hash(), Key::unix(b"/run/app.sock").hash());
        // Longer than any address, and still no exact key.
        assert!(!Key::unix(&[b'p'; 256 + 28]).is_exact());
    }
}
