//! Networks and addresses: std's `SocketAddr` parser accepts what this one does and the other way round, what
//! is damaged in one place fails for that, and the same-address rule.
//!
//! Where the two parsers differ by intent is said in [`check_inet`].
#![no_main]

use arbitrary::Arbitrary;
use gracenet::address::{Address, Family, Kind, Zone};
use gracenet::error::AddressFault;
use gracenet::internal::{Equivalent, Key};
use gracenet::{Endpoint, Error, Network};
use libfuzzer_sys::fuzz_target;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

#[derive(Arbitrary, Debug)]
struct Input<'d> {
    /// The networks of the two addresses.
    networks: [u8; 2],
    /// The indices of their zones, where they have zones by name.
    scopes: [u8; 2],
    /// The second address is the text from here on, or, with `flip`, the first one with the byte here changed.
    at: u8,
    flip: u8,
    text: &'d [u8],
}

const V4: &[Family] = &[Family::V4];
const V6: &[Family] = &[Family::V6];
const BOTH: &[Family] = &[Family::V4, Family::V6];
const UNIX: &[Family] = &[Family::Unix];

const NETWORKS: [(&str, Network, Kind, &[Family]); 9] = [
    ("tcp", Network::Tcp, Kind::Stream, BOTH),
    ("tcp4", Network::Tcp4, Kind::Stream, V4),
    ("tcp6", Network::Tcp6, Kind::Stream, V6),
    ("udp", Network::Udp, Kind::Datagram, BOTH),
    ("udp4", Network::Udp4, Kind::Datagram, V4),
    ("udp6", Network::Udp6, Kind::Datagram, V6),
    ("unix", Network::Unix, Kind::Stream, UNIX),
    ("unixpacket", Network::UnixPacket, Kind::Packet, UNIX),
    ("unixgram", Network::Unixgram, Kind::Datagram, UNIX),
];

/// `sun_path` has 108 bytes, of which the kernel wants one for a NUL.
const UNIX_MAX: usize = 107;

fuzz_target!(|input: Input<'_>| {
    let at = usize::from(input.at).min(input.text.len());
    let mut flipped = input.text.to_vec();
    let (first, second) = match flipped.get_mut(at) {
        Some(byte) if input.flip > 0 => {
            *byte ^= input.flip;
            (input.text, &flipped[..])
        }
        _ => input.text.split_at(at),
    };
    let [a, b] = [(0, first), (1, second)].map(|(which, text)| {
        let (name, network, kind, families) = NETWORKS[usize::from(input.networks[which]) % NETWORKS.len()];
        assert_eq!(network.kind(), kind);
        for family in [Family::V4, Family::V6, Family::Unix] {
            assert_eq!(network.allows(family), families.contains(&family));
        }
        let endpoint = parse(name, network, text);
        endpoint.map(|endpoint| check_keys(endpoint, input.scopes[which].into()))
    });
    if let (Some(a), Some(b)) = (a, b) {
        compare(&a, &b);
    }
    compare_unix(first, second);
    let families = [libc::AF_INET, libc::AF_INET6, libc::AF_UNIX, libc::AF_NETLINK];
    check_sockaddr(families[usize::from(input.networks[0]) % families.len()], input.text);
    // It takes as long as all the rest, and asks less of the text.
    if input.scopes[1] % 8 == 0 {
        damage(NETWORKS[usize::from(input.networks[0]) % NETWORKS.len()].1, input.text);
    }
    // No name but the nine is a network's.
    if let Ok(text) = str::from_utf8(input.text) {
        let known = NETWORKS.iter().find(|(name, ..)| *name == text);
        assert_eq!(text.parse(), Network::parse(text));
        assert_eq!(Network::parse(text).ok(), known.map(|(_, network, ..)| *network));
        assert!(known.is_some() || matches!(Endpoint::parse(text, ":80"), Err(Error::UnknownNetwork(_))));
    }
});

fn parse<'d>(name: &str, network: Network, text: &'d [u8]) -> Option<Endpoint<'d>> {
    let parsed = Endpoint::parse_in(network, text);
    if let Ok(text) = str::from_utf8(text) {
        assert_eq!(Endpoint::parse(name, text), parsed);
    }
    if network.allows(Family::Unix) {
        check_unix(network, text, parsed);
    } else {
        check_inet(network, text, parsed);
    }
    assert!(matches!(parsed, Ok(_) | Err(Error::Address(_))));
    parsed.ok()
}

fn check_unix(network: Network, text: &[u8], parsed: Result<Endpoint<'_>, Error>) {
    let (bytes, expected) = match text.strip_prefix(b"@") {
        Some(name) => (name, Address::Abstract(name)),
        None => (text, Address::Path(text)),
    };
    let fault = match bytes {
        [] => Some(AddressFault::Empty),
        _ if bytes.len() > UNIX_MAX => Some(AddressFault::PathTooLong { bytes: bytes.len() as u32 }),
        _ if bytes.contains(&0) => Some(AddressFault::Nul),
        _ => None,
    };
    let foreign = Endpoint::unix_path(Network::Tcp, bytes).map(|endpoint| endpoint.address());
    assert_eq!(foreign, Err(Error::Address(AddressFault::Family)));
    match (parsed, fault) {
        (Ok(endpoint), None) => {
            assert_eq!(endpoint.address(), expected);
            assert_eq!(endpoint.network(), network);
        }
        (Err(error), Some(fault)) => assert_eq!(error, Error::Address(fault)),
        (parsed, fault) => panic!("{parsed:?} although {fault:?}"),
    }
}

fn check_inet(network: Network, text: &[u8], parsed: Result<Endpoint<'_>, Error>) {
    let parsed = parsed.map(|endpoint| {
        assert_eq!(endpoint.network(), network);
        endpoint.address()
    });
    let utf8 = str::from_utf8(text).unwrap_or("");
    let std: Option<SocketAddr> = utf8.parse().ok();
    let zone = utf8.split_once('%').and_then(|(_, rest)| rest.split_once(']')).map(|(zone, _)| zone);
    // What stands before the port is nothing or this one name: no address to std, and a short form here.
    let port = |host| {
        let rest = utf8.strip_prefix(host).filter(|rest| rest.starts_with(':'))?;
        format!("0.0.0.0{rest}").parse().ok().map(|address: SocketAddr| address.port())
    };
    if let Some(std) = std {
        let expected = match (std, zone) {
            // std takes zone 0, which is no interface's, for none; and digits of any number, where here a zone
            // is no longer than an interface's name.
            (SocketAddr::V6(v6), Some(zone)) if v6.scope_id() == 0 || zone.len() > 15 => {
                Err(AddressFault::Zone)
            }
            // std knows no networks.
            _ if !network.allows(if std.is_ipv4() { Family::V4 } else { Family::V6 }) => {
                Err(AddressFault::Family)
            }
            (SocketAddr::V6(v6), Some(_)) => {
                let address = SocketAddr::new(IpAddr::V6(*v6.ip()), v6.port());
                Ok(Address::Zoned(address, Zone::Index(v6.scope_id())))
            }
            _ => Ok(Address::Inet(std)),
        };
        assert_eq!(parsed, expected.map_err(Error::Address));
        assert_eq!(Endpoint::from(std), Endpoint::tcp(std));
        for (typed, network) in [(Endpoint::tcp(std), Network::Tcp), (Endpoint::udp(std), Network::Udp)] {
            assert_eq!((typed.network(), typed.address()), (network, Address::Inet(std)));
        }
    } else if let Some(port) = port("") {
        assert_eq!(parsed, Ok(Address::Any { port }));
    } else if let Some(port) = port("localhost") {
        assert_eq!(parsed, Ok(Address::Loopback { port }));
    } else if let Ok(address) = parsed {
        // All that is left is a zone by name. Without it, std reads the rest.
        let Address::Zoned(address, Zone::Name(name)) = address else {
            panic!("{address:?} is none to std");
        };
        assert_eq!(zone, Some(name));
        assert!((1..=15).contains(&name.len()) && !name.bytes().all(|byte| byte.is_ascii_digit()));
        assert_eq!(utf8.replacen(&format!("%{name}"), "", 1).parse(), Ok(address));
    }
    let Ok(address) = parsed else {
        return;
    };
    // Written out again, it reads as the same.
    let again = match address {
        Address::Any { port } => format!(":{port}"),
        Address::Loopback { port } => format!("localhost:{port}"),
        Address::Inet(address) => address.to_string(),
        Address::Zoned(SocketAddr::V6(address), zone) => {
            assert_eq!(address.scope_id(), 0);
            let (ip, port) = (address.ip(), address.port());
            match zone {
                Zone::Index(index) => format!("[{ip}%{index}]:{port}"),
                Zone::Name(name) => format!("[{ip}%{name}]:{port}"),
            }
        }
        other => panic!("{other:?} on {network:?}"),
    };
    assert_eq!(Endpoint::parse_in(network, again.as_bytes()).map(|again| again.address()), Ok(address));
}

/// An address that is written as it should be, with one thing wrong: the error is about that.
fn damage(network: Network, seed: &[u8]) {
    use AddressFault::{
        Bracket, Family as WrongFamily, Host, Ipv4, Ipv6, MissingPort, Nul, PortNotANumber, PortOutOfRange,
        PortSign, Space, Zone as NoZone,
    };
    if network.allows(Family::Unix) {
        return;
    }
    let mut bytes = [0; 18];
    for (byte, from) in bytes.iter_mut().zip(seed) {
        *byte = *from;
    }
    let [a, b, c, d, .., high, low] = bytes;
    let port = u16::from_be_bytes([high, low]);
    let v4 = Ipv4Addr::new(a, b, c, d).to_string();
    let v6 = Ipv6Addr::from_bits(u128::from_be_bytes(*bytes.first_chunk().expect("18 bytes"))).to_string();
    let check = |text: String, fault: AddressFault| {
        let parsed = Endpoint::parse_in(network, text.as_bytes()).map(|endpoint| endpoint.address());
        assert_eq!(parsed, Err(Error::Address(fault)), "{text:?}");
    };
    for (host, family) in [(v4.clone(), Family::V4), (format!("[{v6}]"), Family::V6)] {
        if !network.allows(family) {
            check(format!("{host}:{port}"), WrongFamily);
        }
        check(host.clone(), MissingPort);
        check(format!("{host}:"), MissingPort);
        check(format!("{host}:+{port}"), PortSign);
        check(format!("{host}:-{port}"), PortSign);
        check(format!("{host}:{port}x"), PortNotANumber);
        check(format!("{host}:{}", 65536 + u32::from(port)), PortOutOfRange);
        check(format!("{host}:1{port}00000000000000000000"), PortOutOfRange);
        check(format!("{host}:{port}\0"), Nul);
        for space in [' ', '\t', '\n', '\r', '\x0c'] {
            check(format!("{host}:{space}{port}"), Space);
            check(format!("{space}{host}:{port}"), Space);
        }
    }
    check(format!("{v4}.{d}:{port}"), Ipv4);
    check(format!("host{v4}:{port}"), Host);
    check(format!("[{v4}]:{port}"), Ipv6);
    check(format!("[{v4}:{port}"), Bracket);
    check(format!("{v4}]:{port}"), Bracket);
    check(format!("{v6}:{port}"), Bracket);
    check(format!("[{v6}:{port}"), Bracket);
    check(format!("[{v6}]{port}"), Bracket);
    check(format!("[{v6}:x]:{port}"), Ipv6);
    for zone in ["", "0", "000", "4294967296", "sixteen-bytes-xx"] {
        check(format!("[{v6}%{zone}]:{port}"), NoZone);
    }
}

fn scoped(address: SocketAddr, scope: u32) -> SocketAddr {
    match address {
        SocketAddr::V4(_) => address,
        SocketAddr::V6(mut v6) => {
            v6.set_scope_id(scope);
            v6.into()
        }
    }
}

/// What getsockname would tell of a socket that was bound to an endpoint.
#[derive(PartialEq, Eq, Debug)]
enum Bound<'d> {
    Inet(SocketAddr),
    Path(&'d [u8]),
    Abstract(&'d [u8]),
}

/// What the kernel tells of a socket that is bound so.
fn sockaddr(bound: &Bound<'_>) -> Vec<u8> {
    let join = |family: i32, parts: &[&[u8]]| [&(family as u16).to_ne_bytes(), &*parts.concat()].concat();
    match bound {
        Bound::Inet(SocketAddr::V4(v4)) => {
            join(libc::AF_INET, &[&v4.port().to_be_bytes(), &v4.ip().octets(), &[0; 8]])
        }
        Bound::Inet(SocketAddr::V6(v6)) => {
            let (port, scope) = (v6.port().to_be_bytes(), v6.scope_id().to_ne_bytes());
            join(libc::AF_INET6, &[&port, &v6.flowinfo().to_ne_bytes(), &v6.ip().octets(), &scope])
        }
        Bound::Path(path) => join(libc::AF_UNIX, &[path, b"\0"]),
        Bound::Abstract(name) => join(libc::AF_UNIX, &[b"\0", name]),
    }
}

/// Whatever bytes follow a family, what is read of them is what they say, and nothing is read past their end.
fn check_sockaddr(family: i32, rest: &[u8]) {
    let bytes = [&(family as u16).to_ne_bytes(), rest].concat();
    let told = Address::from_sockaddr(&bytes);
    let (bound, needed) = match told {
        Some(Address::Inet(address)) if address.is_ipv4() => (Bound::Inet(address), 8),
        Some(Address::Inet(address)) => (Bound::Inet(address), 28),
        Some(Address::Path(path)) => (Bound::Path(path), bytes.len()),
        Some(Address::Abstract(name)) => (Bound::Abstract(name), bytes.len()),
        Some(other) => panic!("{other:?} is no socket's address"),
        None => {
            let readable = match family {
                libc::AF_INET => rest.len() >= 6,
                libc::AF_INET6 => rest.len() >= 26,
                libc::AF_UNIX => {
                    rest.first() == Some(&0) || rest.len() <= UNIX_MAX + 1 && rest.ends_with(&[0])
                }
                _ => false,
            };
            assert!(!readable, "{bytes:?} was not read");
            return;
        }
    };
    let mut again = sockaddr(&bound);
    // The flow label, which is passed over.
    if let (libc::AF_INET6, Some(flow)) = (family, bytes.get(4..8)) {
        again[4..8].copy_from_slice(flow);
    }
    assert_eq!(again[..needed], bytes[..needed]);
}

struct Checked<'d> {
    bound: Bound<'d>,
    /// `None` with port 0.
    key: Option<Key>,
}

fn check_keys(endpoint: Endpoint<'_>, scope: u32) -> Checked<'_> {
    let network = endpoint.network();
    let bound = bound(endpoint, scope);
    let keys = endpoint.keys(scope);
    let own = match bound {
        Bound::Inet(address) => Key::inet(address),
        Bound::Path(path) => Key::unix(path),
        Bound::Abstract(name) => Key::unix_abstract(name),
    };
    let sockaddr = sockaddr(&bound);
    let told = Address::from_sockaddr(&sockaddr).expect("what the kernel tells can be read");
    assert_eq!(Key::of(&told), Some(own));
    if own.port() == Some(0) {
        assert_eq!((keys.exact, keys.equivalent), (None, None));
        return Checked { bound, key: None };
    }
    assert_eq!(keys.exact, Some(own));
    assert!(network.allows(own.family()));
    assert_eq!(
        own.is_exact(),
        !matches!(bound, Bound::Path(path) if path.len() > 28)
            && !matches!(bound, Bound::Abstract(name) if name.len() > 27)
    );
    let wildcard = matches!(bound, Bound::Inet(address) if address.ip().is_unspecified());
    let both = network.allows(Family::V4) && network.allows(Family::V6);
    assert_eq!(keys.equivalent.is_some(), wildcard && both);
    if let Some(equivalent) = keys.equivalent {
        let (key, ip): (Key, IpAddr) = match equivalent {
            Equivalent::DualStack(key) => (key, Ipv6Addr::UNSPECIFIED.into()),
            Equivalent::V4(key) => (key, Ipv4Addr::UNSPECIFIED.into()),
        };
        let port = own.port().expect("an address of the internet has a port");
        assert_eq!(key, Key::inet(SocketAddr::new(ip, port)));
        assert_ne!(key.family(), own.family());
        // And the other way round.
        let text = SocketAddr::new(ip, port).to_string();
        let other = Endpoint::parse_in(network, text.as_bytes()).expect("a wildcard").keys(0);
        let back = match other.equivalent {
            Some(Equivalent::DualStack(key) | Equivalent::V4(key)) => Some(key),
            None => None,
        };
        assert_eq!((other.exact, back), (Some(key), Some(own)));
    }
    Checked { bound, key: Some(own) }
}

fn bound(endpoint: Endpoint<'_>, scope: u32) -> Bound<'_> {
    let inet = |v4: Ipv4Addr, v6: Ipv6Addr, v6_first: bool, port: u16| {
        let network = endpoint.network();
        let use_v6 = if v6_first { network.allows(Family::V6) } else { !network.allows(Family::V4) };
        Bound::Inet(SocketAddr::new(if use_v6 { v6.into() } else { v4.into() }, port))
    };
    match endpoint.address() {
        Address::Any { port } => inet(Ipv4Addr::UNSPECIFIED, Ipv6Addr::UNSPECIFIED, true, port),
        Address::Loopback { port } => inet(Ipv4Addr::LOCALHOST, Ipv6Addr::LOCALHOST, false, port),
        Address::Inet(address) => Bound::Inet(address),
        Address::Zoned(address, _) => Bound::Inet(match address.ip() {
            // fe80::/10, ff?1::/16 and ff?2::/16: the kernel forgets every other zone.
            IpAddr::V6(ip) if ip.segments()[0] & 0xffc0 == 0xfe80 => scoped(address, scope),
            IpAddr::V6(ip) if matches!(ip.segments()[0] & 0xff0f, 0xff01 | 0xff02) => scoped(address, scope),
            _ => address,
        }),
        Address::Path(path) => Bound::Path(path),
        Address::Abstract(name) => Bound::Abstract(name),
    }
}

/// Equal keys are equal addresses, unless they say that they do not know.
fn compare(a: &Checked<'_>, b: &Checked<'_>) {
    let (Some(a_key), Some(b_key)) = (a.key, b.key) else {
        return;
    };
    if a.bound == b.bound {
        assert_eq!(a_key, b_key);
    }
    if a_key == b_key && a_key.is_exact() {
        assert_eq!(a.bound, b.bound);
    }
    compare_keys(a_key, b_key);
}

fn compare_keys(a: Key, b: Key) {
    assert_eq!(a.eq(&b), b.eq(&a));
    if a == b {
        assert_eq!(a.hash(), b.hash());
        assert_eq!(a.is_exact(), b.is_exact());
        assert_eq!((a.family(), a.port()), (b.family(), b.port()));
    }
}

/// The same for any bytes the kernel may tell, beyond what can be asked for.
fn compare_unix(a: &[u8], b: &[u8]) {
    let [a_path, b_path] = [a, b].map(Key::unix);
    let [a_name, b_name] = [a, b].map(Key::unix_abstract);
    for (key, len) in [(a_path, a.len()), (b_path, b.len()), (a_name, a.len() + 1), (b_name, b.len() + 1)] {
        assert_eq!(key.is_exact(), len <= 28);
    }
    if a_path.is_exact() || b_path.is_exact() {
        assert_eq!(a_path == b_path, a == b);
    }
    if a_name.is_exact() || b_name.is_exact() {
        assert_eq!(a_name == b_name, a == b);
    }
    // A path has no NUL, so it is never taken for an abstract name.
    assert!(a.contains(&0) || a_path != b_name);
    compare_keys(a_path, b_path);
    compare_keys(a_name, b_name);
    compare_keys(a_path, b_name);
}
