//! Networks and addresses: parsing, and the rule that says when two of them are the same.
//!
//! [`Endpoint::parse`] reads what `listen` takes; [`Key`] is a socket's own address as the kernel tells it,
//! in a form that is compared and hashed fast; [`Endpoint::keys`] says which keys an endpoint may claim.
//! This room makes no system call: names of interfaces are resolved by whoever calls it, host names by nobody.

use crate::error::{AddressFault, Error, Word};
use core::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

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
        let address = parse_inet(network, address).map_err(Error::Address)?;
        Ok(Self { network, address })
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
            Self::V4 { ip, port } => fnv(ip.iter().copied().chain(port.to_ne_bytes())),
            Self::V6 { ip, port, scope } => {
                fnv(ip.iter().copied().chain(port.to_ne_bytes()).chain(scope.to_ne_bytes()))
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

/// FNV-1a: spreads short keys, keeps no secret. Whoever could choose colliding addresses here already
/// chooses what the process listens on.
pub(crate) fn fnv(bytes: impl Iterator<Item = u8>) -> u64 {
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
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

fn parse_inet(network: Network, address: &[u8]) -> Result<Address<'_>, AddressFault> {
    if address.contains(&0) {
        return Err(AddressFault::Nul);
    }
    let text = core::str::from_utf8(address).map_err(|_| AddressFault::Host)?;
    if text.bytes().any(|byte| byte.is_ascii_whitespace()) {
        return Err(AddressFault::Space);
    }
    let (host, port) = split_host_port(text)?;
    let port = parse_port(port)?;
    match host {
        Host::Plain("") => Ok(Address::Any { port }),
        Host::Plain("localhost") => Ok(Address::Loopback { port }),
        Host::Plain(host) => {
            let ip: Ipv4Addr = host.parse().map_err(|_| not_an_address(host))?;
            if !network.allows(Family::V4) {
                return Err(AddressFault::Family);
            }
            Ok(Address::Inet(SocketAddr::new(ip.into(), port)))
        }
        Host::Bracketed(host) => {
            let (ip, zone) = match host.split_once('%') {
                Some((ip, zone)) => (ip, Some(parse_zone(zone)?)),
                None => (host, None),
            };
            let ip: Ipv6Addr = ip.parse().map_err(|_| AddressFault::Ipv6)?;
            if !network.allows(Family::V6) {
                return Err(AddressFault::Family);
            }
            let address = SocketAddr::new(ip.into(), port);
            Ok(zone.map_or(Address::Inet(address), |zone| Address::Zoned(address, zone)))
        }
    }
}

enum Host<'a> {
    Plain(&'a str),
    Bracketed(&'a str),
}

fn split_host_port(text: &str) -> Result<(Host<'_>, &str), AddressFault> {
    if let Some(rest) = text.strip_prefix('[') {
        let (host, rest) = rest.split_once(']').ok_or(AddressFault::Bracket)?;
        if rest.is_empty() {
            return Err(AddressFault::MissingPort);
        }
        let port = rest.strip_prefix(':').ok_or(AddressFault::Bracket)?;
        return Ok((Host::Bracketed(host), port));
    }
    let (host, port) = text.rsplit_once(':').ok_or(AddressFault::MissingPort)?;
    if host.contains(':') {
        return Err(AddressFault::Bracket);
    }
    if host.contains(['[', ']']) {
        return Err(AddressFault::Bracket);
    }
    Ok((Host::Plain(host), port))
}

fn parse_port(port: &str) -> Result<u16, AddressFault> {
    if port.is_empty() {
        return Err(AddressFault::MissingPort);
    }
    if port.starts_with(['+', '-']) {
        return Err(AddressFault::PortSign);
    }
    if !port.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(AddressFault::PortNotANumber);
    }
    port.parse().map_err(|_| AddressFault::PortOutOfRange)
}

/// An index if it is all digits, which no interface's name may be on the way to `if_indextoname`.
fn parse_zone(zone: &str) -> Result<Zone<'_>, AddressFault> {
    // IFNAMSIZ is 16 with the NUL.
    if zone.is_empty() || zone.len() > 15 {
        return Err(AddressFault::Zone);
    }
    if zone.bytes().all(|byte| byte.is_ascii_digit()) {
        let index = zone.parse().map_err(|_| AddressFault::Zone)?;
        return if index == 0 { Err(AddressFault::Zone) } else { Ok(Zone::Index(index)) };
    }
    Ok(Zone::Name(zone))
}

/// What looks like numbers was meant as an IPv4 address, the rest as a host name.
fn not_an_address(host: &str) -> AddressFault {
    if host.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        AddressFault::Ipv4
    } else {
        AddressFault::Host
    }
}
