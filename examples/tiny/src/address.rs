//! An address in text, read in a third of the bytes that the parser of `core` takes. It knows the same forms, and does not mind
//! more zeros at the begin of a group.

use core::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

/// `1.2.3.4:80`, `[::1]:80`, `[::ffff:1.2.3.4]:80` or `[fe80::1%2]:80`.
#[inline(never)]
pub(crate) fn parse(text: &[u8]) -> Option<SocketAddr> {
    let (host, port) = cut(text, text.iter().rposition(|byte| *byte == b':')?);
    let port = number(port, 10, 0xffff)? as u16;
    let Some(host) = host.strip_prefix(b"[") else { return Some((ipv4(host)?, port).into()) };
    let mut host = host.strip_suffix(b"]")?;
    let mut zone = 0;
    if let Some(at) = host.iter().position(|byte| *byte == b'%') {
        let digits;
        (host, digits) = cut(host, at);
        zone = number(digits, 10, u32::MAX)?;
    }
    let mut groups = [0; 8];
    match host.windows(2).position(|pair| pair == b"::") {
        Some(at) if !host.get(..at)?.contains(&b'.') => {
            let mut tail = [0; 8];
            let (before, after) = cut(host, at);
            let begun = read_groups(before, &mut groups)?;
            let ended = read_groups(after.get(1..)?, &mut tail)?;
            // The gap stands for one group at least.
            let gap = 7_usize.checked_sub(begun + ended)? + 1;
            groups.iter_mut().skip(begun + gap).zip(tail).for_each(|(group, found)| *group = found);
        }
        None if read_groups(host, &mut groups)? == 8 => {}
        _ => return None,
    }
    Some(SocketAddrV6::new(Ipv6Addr::from(groups), port, 0, zone).into())
}

/// What is before a byte and behind it.
fn cut(text: &[u8], at: usize) -> (&[u8], &[u8]) {
    (text.get(..at).unwrap_or(&[]), text.get(at + 1..).unwrap_or(&[]))
}

/// Four numbers, none with a leading zero, which some take for octal.
#[inline(never)]
fn ipv4(text: &[u8]) -> Option<Ipv4Addr> {
    let mut bytes = [0; 4];
    let mut parts = text.split(|byte| *byte == b'.');
    for byte in &mut bytes {
        let digits = parts.next()?;
        *byte = number(digits, 10, 0xff).filter(|_| digits.len() == 1 || !digits.starts_with(b"0"))? as u8;
    }
    parts.next().is_none().then(|| bytes.into())
}

/// Reads groups of 16 bits, of which the last two may be an IPv4 address; how many.
#[inline(never)]
fn read_groups(text: &[u8], groups: &mut [u16; 8]) -> Option<usize> {
    let mut count = 0;
    if text.is_empty() {
        return Some(count);
    }
    let mut parts = text.split(|byte| *byte == b':');
    while let Some(part) = parts.next() {
        let bits = if part.contains(&b'.') {
            let address = ipv4(part).filter(|_| parts.next().is_none())?.to_bits();
            *groups.get_mut(count)? = (address >> 16) as u16;
            count += 1;
            address
        } else {
            number(part, 16, 0xffff)?
        };
        *groups.get_mut(count)? = bits as u16;
        count += 1;
    }
    Some(count)
}

/// Reads digits.
#[inline(never)]
fn number(digits: &[u8], radix: u32, most: u32) -> Option<u32> {
    let mut number = 0_u64;
    for digit in digits {
        number = number * u64::from(radix) + u64::from(char::from(*digit).to_digit(radix)?);
        if number > most.into() {
            return None;
        }
    }
    (!digits.is_empty()).then_some(number as u32)
}
