//! Keys: the rule by which two addresses are the same, in a form that is compared and hashed fast.
//!
//! [`Key`] is a socket's own address as the kernel reports it. [`Endpoint::keys`] returns the keys that an endpoint
//! may claim. This module makes no system call.

use super::{Address, Endpoint, Family, scoped};
use crate::hash::fnv;
use core::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

impl Endpoint<'_> {
    /// Returns the addresses whose sockets this endpoint may claim: the exact one, then the equivalent wildcard of
    /// the other family.
    ///
    /// Go gracenet has the same equivalence. It holds where the network allows that family. `scope` is the index of
    /// the zone, if there is one. A port of 0 asks for a fresh port, which no bound socket can be, so it has no key.
    #[must_use]
    #[doc(hidden)]
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
}

/// The result of [`Endpoint::keys`].
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
    /// `[::]` may be claimed for `0.0.0.0`, if its `IPV6_V6ONLY` is off.
    DualStack(Key),
    /// `0.0.0.0` may be claimed for `[::]`, unless the caller wants `IPV6_V6ONLY`.
    V4(Key),
}

/// How many bytes of a Unix address a [`Key`] holds.
const INLINE: usize = 28;

/// A socket's own address, as `getsockname` reports it.
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
    /// A path or an abstract name. The key holds all its bytes, or of a long one the first 20 and a digest of all.
    Unix {
        /// How many bytes the address has. An abstract name counts its leading NUL.
        len: u8,
        /// The bytes, or the first 20 and the digest. Unused bytes are 0.
        bytes: [u8; INLINE],
    },
}

impl Key {
    /// Returns the key of an IP address.
    ///
    /// The flow label is not part of an address. A zone is part only of an address that is valid within a link or an
    /// interface. For other addresses the kernel accepts any zone and reports none.
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

    /// Returns the key of an address that a socket can have: an IP address, a path or an abstract name.
    #[must_use]
    pub fn of(address: &Address<'_>) -> Option<Self> {
        match address {
            Address::Inet(address) => Some(Self::inet(*address)),
            Address::Path(path) => Some(Self::unix(path)),
            Address::Abstract(name) => Some(Self::unix_abstract(name)),
            _ => None,
        }
    }

    /// Returns the key of a path, without its NUL.
    #[must_use]
    pub fn unix(path: &[u8]) -> Self {
        Self::unix_bytes(path.len(), path.iter().copied())
    }

    /// Returns the key of an abstract name, without its leading NUL.
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

    /// Returns whether equal keys mean equal addresses. If not, the addresses themselves have to be compared.
    #[must_use]
    pub const fn is_exact(&self) -> bool {
        match self {
            Self::Unix { len, .. } => *len as usize <= INLINE,
            _ => true,
        }
    }

    /// Returns the family of the address.
    #[must_use]
    pub const fn family(&self) -> Family {
        match self {
            Self::V4 { .. } => Family::V4,
            Self::V6 { .. } => Family::V6,
            Self::Unix { .. } => Family::Unix,
        }
    }

    /// Returns the port, if the family has ports.
    #[must_use]
    pub const fn port(&self) -> Option<u16> {
        match self {
            Self::V4 { port, .. } | Self::V6 { port, .. } => Some(*port),
            Self::Unix { .. } => None,
        }
    }

    /// Returns a hash that equal keys share.
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

/// Returns whether the address means something else in each zone, as `__ipv6_addr_needs_scope_id` in Linux does.
/// These are link-local addresses, and multicast addresses of the interface or the link.
const fn has_zone(ip: &Ipv6Addr) -> bool {
    match ip.octets() {
        [0xff, scope, ..] => matches!(scope & 0x0f, 1 | 2),
        _ => ip.is_unicast_link_local(),
    }
}

/// Mixes an IP address, in one word, and a port as FNV does, with one step for all of it.
const fn mix(ip: u64, port: u16) -> u64 {
    (ip ^ (port as u64) << 32).wrapping_mul(0x9e37_79b9_7f4a_7c15)
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
    use super::super::UNIX_MAX;
    use super::super::tests::socket_address;
    use super::*;
    use std::string::String;
    use std::vec::Vec;

    fn key(text: &str) -> Key {
        Key::inet(socket_address(text))
    }

    fn keys(network: &str, address: &str, scope: u32) -> Keys {
        Endpoint::parse(network, address).unwrap().keys(scope)
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
            // An IPv6 address, whatever it maps to.
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
