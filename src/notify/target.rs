//! The value of `NOTIFY_SOCKET`: where the service manager listens. This module makes no system call.

use crate::address::{Kind, UNIX_MAX};
use crate::digits;
use crate::error::{Error, Fault, counted};
use crate::variable::Variable;

/// The CID that means any machine, which no message can be sent to.
const CID_ANY: u32 = u32::MAX;

/// The address to which messages are sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Target<'env> {
    Path(&'env [u8]),
    Abstract(&'env [u8]),
    Vsock { kind: Option<Kind>, cid: u32, port: u32 },
}

impl<'env> Target<'env> {
    /// Reads the value of `NOTIFY_SOCKET`.
    ///
    /// # Errors
    ///
    /// - [`Error::Variable`]: the value has none of the forms.
    pub(super) fn parse(value: &'env [u8]) -> Result<Self, Error> {
        if let Some(name) = value.strip_prefix(b"@") {
            return check(name).map(Self::Abstract);
        }
        if value.starts_with(b"/") {
            return check(value).map(Self::Path);
        }
        let (kind, rest) = [
            (&b"vsock:"[..], None),
            (b"vsock-dgram:", Some(Kind::Datagram)),
            (b"vsock-seqpacket:", Some(Kind::Packet)),
            (b"vsock-stream:", Some(Kind::Stream)),
        ]
        .into_iter()
        .find_map(|(prefix, kind)| Some((kind, value.strip_prefix(prefix)?)))
        .ok_or(fault(Fault::NotAnAddress))?;
        let mut parts = rest.splitn(2, |byte| *byte == b':');
        let (Some(cid), Some(port)) = (parts.next(), parts.next()) else {
            return Err(fault(Fault::NotAnAddress));
        };
        Ok(Self::Vsock { kind, cid: number(cid, CID_ANY - 1)?, port: number(port, u32::MAX)? })
    }
}

fn check(name: &[u8]) -> Result<&[u8], Error> {
    match name.len() {
        0 => Err(fault(Fault::NotAnAddress)),
        1..=UNIX_MAX => Ok(name),
        bytes => Err(fault(Fault::TooLong { bytes: counted(bytes) })),
    }
}

fn number(digits: &[u8], most: u32) -> Result<u32, Error> {
    digits::number(Variable::NotifySocket, digits, most.into()).map(|number| number as u32)
}

const fn fault(fault: Fault) -> Error {
    Variable::NotifySocket.fault(fault)
}

#[cfg(test)]
#[allow(clippy::indexing_slicing)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_forms() {
        let vsock = |kind, cid, port| Ok(Target::Vsock { kind, cid, port });
        let longest = [b'x'; UNIX_MAX + 2];
        for (value, expected) in [
            (&b"/run/systemd/notify"[..], Ok(Target::Path(b"/run/systemd/notify"))),
            (b"/", Ok(Target::Path(b"/"))),
            (b"@a", Ok(Target::Abstract(b"a"))),
            (b"@/a:1", Ok(Target::Abstract(b"/a:1"))),
            (b"vsock:2:1234", vsock(None, 2, 1234)),
            (b"vsock-dgram:0:0", vsock(Some(Kind::Datagram), 0, 0)),
            (b"vsock-seqpacket:4294967294:4294967295", vsock(Some(Kind::Packet), u32::MAX - 1, u32::MAX)),
            (b"vsock-stream:3:22", vsock(Some(Kind::Stream), 3, 22)),
            (b"", Err(Fault::NotAnAddress)),
            (b"@", Err(Fault::NotAnAddress)),
            (b"run/notify", Err(Fault::NotAnAddress)),
            (b"unix:/run/notify", Err(Fault::NotAnAddress)),
            (b"vsock", Err(Fault::NotAnAddress)),
            (b"vsock:", Err(Fault::NotAnAddress)),
            (b"vsock:2", Err(Fault::NotAnAddress)),
            (b"vsock::1", Err(Fault::NotANumber)),
            (b"vsock:2:", Err(Fault::NotANumber)),
            (b"vsock:2:1:1", Err(Fault::NotANumber)),
            (b"vsock:-1:1", Err(Fault::OutOfRange)),
            (b"vsock:+1:1", Err(Fault::NotANumber)),
            (b"vsock:0x2:1", Err(Fault::NotANumber)),
            (b"vsock:2: 1", Err(Fault::NotANumber)),
            (b"vsock:4294967295:1", Err(Fault::OutOfRange)),
            (b"vsock:4294967296:1", Err(Fault::OutOfRange)),
            (b"vsock:2:4294967296", Err(Fault::OutOfRange)),
            (&longest[..UNIX_MAX + 1], Err(Fault::NotAnAddress)),
        ] {
            assert_eq!(Target::parse(value), expected.map_err(fault), "{}", value.escape_ascii());
        }
    }

    #[test]
    fn a_name_is_as_long_as_the_kernel_takes() {
        for first in [b'/', b'@'] {
            let mut value = [b'x'; UNIX_MAX + 3];
            value[0] = first;
            let name = usize::from(first == b'@');
            assert!(Target::parse(&value[..UNIX_MAX + name]).is_ok());
            let too_long = Err(fault(Fault::TooLong { bytes: UNIX_MAX as u32 + 1 }));
            assert_eq!(Target::parse(&value[..UNIX_MAX + name + 1]), too_long);
        }
    }
}
