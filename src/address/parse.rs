//! Reads addresses, and finds the fault of an address that cannot be read.
//!
//! This module resolves no name and makes no system call.

use super::{Address, Family, Network, UNIX_MAX, Zone};
use crate::digits::value_of;
use crate::error::{AddressFault, counted};
use core::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

pub(super) const fn check_unix(network: Network, bytes: &[u8]) -> Result<(), AddressFault> {
    if !network.is_unix() {
        return Err(AddressFault::Family);
    }
    if bytes.is_empty() {
        return Err(AddressFault::Empty);
    }
    if bytes.len() > UNIX_MAX {
        return Err(AddressFault::PathTooLong { bytes: counted(bytes.len()) });
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

/// Reads an address with a port. If there is none, [`inet_fault`] finds out why.
pub(super) fn read_inet(network: Network, text: &[u8]) -> Option<Address<'_>> {
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

/// Reads an IPv4 address that ends with a colon, and returns it with the bytes behind the colon.
///
/// It accepts what std's parser accepts. That parser needs text, which would have to be checked for UTF-8 first.
fn read_ipv4(mut text: &[u8]) -> Option<(Ipv4Addr, &[u8])> {
    let mut ip = 0;
    for end in b"...:" {
        let [first @ b'0'..=b'9', rest @ ..] = text else { return None };
        let mut octet = u32::from(first - b'0');
        text = rest;
        while let [digit @ b'0'..=b'9', rest @ ..] = text {
            // A number with a leading 0 may be meant as octal.
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

/// Reads the address and the zone in brackets.
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

/// Reads a zone. A zone of digits only is an index, which no interface's name may be on the way to `if_indextoname`.
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

/// Returns what is wrong with an address that [`read_inet`] cannot read. Returns the family if nothing else is wrong.
#[cold]
#[inline(never)]
pub(super) fn inet_fault(text: &[u8]) -> AddressFault {
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

/// Returns the fault of a host: text that looks like numbers was meant as an IPv4 address, other text as a host name.
fn ipv4_fault(host: &[u8]) -> AddressFault {
    if host.iter().all(|byte| byte.is_ascii_digit() || *byte == b'.') {
        AddressFault::Ipv4
    } else {
        AddressFault::Host
    }
}

/// Returns the bytes before the first `byte`, and the bytes behind it.
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
    use super::super::Endpoint;
    use super::super::tests::{NETWORKS, socket_address};
    use super::*;
    use crate::error::Error;

    fn parse<'a>(network: &str, address: &'a str) -> Result<Address<'a>, AddressFault> {
        match Endpoint::parse(network, address) {
            Ok(endpoint) => Ok(endpoint.address()),
            Err(Error::Address(fault)) => Err(fault),
            Err(other) => panic!("{other:?}"),
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
}
