//! Readiness: how the successor reports to its predecessor, and how the predecessor receives the report.
//!
//! One socket pair does all of it. The successor's end is handed over behind its sockets, and `LISTEN_READY_FD` holds
//! its number. The successor sends one packet on it, and the kernel reports to the successor which process made the
//! pair. The predecessor's end becomes readable with the packet, or with the end of file when the successor ends
//! without one.
//!
//! The packet is text, so that a program in any language can report:
//!
//! | packet | means |
//! |---|---|
//! | `READY=1` | ready: the predecessor may drain |
//! | `ERRNO=n` | refused, for this errno |
//! | `CODE=n` | refused, for a reason of the program's own |
//!
//! A newline at the packet's end is ignored. The predecessor sends `GIVEN_UP=1` to a successor that it gave up,
//! before it closes its own end. Otherwise a process that an ended successor left behind would serve beside the
//! predecessor. This module makes system calls through rustix and `sys`, and starts nothing.

use crate::digits::{DIGITS, decimal, value_of};
use crate::error::{Error, Operation, Word};
use crate::sys;
use core::fmt;
use heapless::Vec;
use rustix::fd::{AsRawFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, Shutdown, SocketFlags, SocketType};

/// Why a successor refuses to serve.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Refusal {
    /// A system call failed.
    Errno(Errno),
    /// A code that predecessor and successor agreed on.
    Code(u32),
}

impl From<Errno> for Refusal {
    fn from(errno: Errno) -> Self {
        Self::Errno(errno)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Errno(errno) => crate::error::describe(errno, f),
            Self::Code(code) => write!(f, "code {code}"),
        }
    }
}

/// The report of a successor.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Report {
    Ready,
    Refused(Refusal),
}

impl Report {
    fn render(self) -> Vec<u8, { 8 + DIGITS }> {
        let mut digits = [0; DIGITS];
        let (key, value): (&[u8], _) = match self {
            Self::Ready => (b"READY=", 1),
            Self::Refused(Refusal::Errno(errno)) => (b"ERRNO=", errno.raw_os_error() as u64),
            Self::Refused(Refusal::Code(code)) => (b"CODE=", code.into()),
        };
        key.iter().chain(decimal(value, &mut digits)).copied().collect()
    }

    fn parse(packet: &[u8]) -> Option<Self> {
        let text = packet.strip_suffix(b"\n").unwrap_or(packet);
        if text == b"READY=1" { Some(Self::Ready) } else { Refusal::parse(text).map(Self::Refused) }
    }
}

impl Refusal {
    #[cold]
    #[inline(never)]
    fn parse(text: &[u8]) -> Option<Self> {
        if let Some(value) = text.strip_prefix(b"ERRNO=") {
            let errno = value_of(value).filter(|errno| (1..4096).contains(errno))?;
            return Some(Self::Errno(Errno::from_raw_os_error(errno as i32)));
        }
        let code = value_of(text.strip_prefix(b"CODE=")?)?;
        Some(Self::Code(code.try_into().ok()?))
    }
}

/// Makes the two ends: the predecessor's, then the successor's. Both have `FD_CLOEXEC`.
pub(crate) fn pair() -> Result<(OwnedFd, OwnedFd), Error> {
    let flags = SocketFlags::CLOEXEC;
    rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)
        .and_then(|(ours, theirs)| Ok((sys::above_stdio(ours)?, sys::above_stdio(theirs)?)))
        .map_err(|errno| Error::call(Operation::Socketpair, errno))
}

/// Sends the report. Returns `false` if the predecessor has ended, or accepts no report any more.
pub(crate) fn send(socket: BorrowedFd<'_>, report: Report) -> Result<bool, Error> {
    let packet = report.render();
    loop {
        match rustix::net::send(socket, &packet, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
            Ok(_) => return Ok(true),
            Err(Errno::PIPE | Errno::CONNRESET | Errno::NOTCONN) => return Ok(false),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(Error::call_on(Operation::Send, socket.as_raw_fd(), errno)),
        }
    }
}

/// Accepts no report from here on. A report that was sent before can still be received.
pub(crate) fn refuse_reports(socket: BorrowedFd<'_>) -> Result<(), Error> {
    match rustix::net::shutdown(socket, Shutdown::Read) {
        // The other end is closed.
        Ok(()) | Err(Errno::NOTCONN) => Ok(()),
        Err(errno) => Err(Error::call_on(Operation::Shutdown, socket.as_raw_fd(), errno)),
    }
}

/// Sends `GIVEN_UP=1` to the process that has the successor's end: usually a process that it left behind.
pub(crate) fn give_up(socket: BorrowedFd<'_>) {
    // The send fails if no process has the other end, and then there is none to inform.
    let _ = rustix::net::send(socket, b"GIVEN_UP=1", SendFlags::NOSIGNAL | SendFlags::DONTWAIT);
}

/// Returns whether a predecessor that accepts no report has given this process up: it has sent that, or is about to.
///
/// A predecessor that closed its end without a message has ended, or let go of its successor.
pub(crate) fn is_given_up(socket: BorrowedFd<'_>) -> Result<bool, Error> {
    loop {
        // The message stays in the queue, so that the caller may ask again.
        return match rustix::net::recv(socket, &mut [0_u8; 64], RecvFlags::DONTWAIT | RecvFlags::PEEK) {
            Ok((len, _)) => Ok(len > 0),
            Err(Errno::AGAIN) => Ok(true),
            // The kernel reports this once, before the queue's content.
            Err(Errno::INTR | Errno::CONNRESET) => continue,
            Err(errno) => Err(Error::call_on(Operation::Recv, socket.as_raw_fd(), errno)),
        };
    }
}

/// The state of the predecessor's end.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Received {
    Nothing,
    Report(Report),
    /// The successor closed its end.
    Closed,
    /// Something that is no report, which begins like this.
    Unknown(Word),
}

impl Received {
    #[cold]
    #[inline(never)]
    fn unknown(packet: &[u8]) -> Self {
        Self::Unknown(Word::ascii(packet))
    }
}

/// Receives the report, without waiting.
#[inline(never)]
pub(crate) fn receive(socket: BorrowedFd<'_>) -> Result<Received, Error> {
    let mut packet = [0; 64];
    loop {
        // The length is the packet's own, so a packet longer than any report is not cut into one.
        return match rustix::net::recv(socket, &mut packet, RecvFlags::DONTWAIT | RecvFlags::TRUNC) {
            Ok((_, len)) => {
                let report = packet.get(..len).and_then(Report::parse);
                Ok(match report {
                    Some(report) => Received::Report(report),
                    None if len == 0 => Received::Closed,
                    None => Received::unknown(packet.get(..len).unwrap_or(&packet)),
                })
            }
            Err(Errno::INTR) => continue,
            Err(Errno::AGAIN) => Ok(Received::Nothing),
            Err(Errno::CONNRESET) => Ok(Received::Closed),
            Err(errno) => Err(Error::call_on(Operation::Recv, socket.as_raw_fd(), errno)),
        };
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::std_instead_of_core, reason = "tests")]
    use super::*;
    use rustix::fd::AsFd;

    #[test]
    fn reports_travel() {
        for report in [
            Report::Ready,
            Report::Refused(Refusal::Errno(Errno::ADDRINUSE)),
            Report::Refused(Refusal::Code(0)),
            Report::Refused(Refusal::Code(u32::MAX)),
        ] {
            let (ours, theirs) = pair().unwrap();
            assert_eq!(receive(ours.as_fd()), Ok(Received::Nothing));
            send(theirs.as_fd(), report).unwrap();
            drop(theirs);
            assert_eq!(receive(ours.as_fd()), Ok(Received::Report(report)));
            assert_eq!(receive(ours.as_fd()), Ok(Received::Closed));
        }
    }

    #[test]
    fn reports_are_text() {
        assert_eq!(Report::parse(b"READY=1\n"), Some(Report::Ready));
        assert_eq!(Report::parse(b"CODE=7"), Some(Report::Refused(Refusal::Code(7))));
        let wrong: [&[u8]; 13] = [
            b"",
            b"READY",
            b"READY=2",
            b"ERRNO=0",
            b"ERRNO=-1",
            b"ERRNO=4096",
            b"ERRNO=+1",
            b"CODE=4294967296",
            b"CODE=",
            b"CODE=+7",
            b"CODE=-0",
            b"ERRNO=+2",
            b"\xff=1",
        ];
        for packet in wrong {
            assert_eq!(Report::parse(packet), None, "{packet:?}");
        }
    }

    #[test]
    fn every_packet_of_a_few_pieces_is_read_by_the_rule() {
        const PIECES: [&str; 15] = [
            "",
            "READY=",
            "ERRNO=",
            "CODE=",
            "=",
            "1",
            "0",
            "4095",
            "4294967295",
            "6",
            "+",
            "-",
            " ",
            "\n",
            "\0",
        ];
        let expected = |packet: &str| {
            let line = packet.strip_suffix('\n').unwrap_or(packet);
            let number = |key| {
                let digits =
                    line.strip_prefix(key).filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()))?;
                digits.parse::<u64>().ok()
            };
            if line == "READY=1" {
                return Some(Report::Ready);
            }
            let refused = match (number("ERRNO="), number("CODE=")) {
                (Some(errno @ 1..=4095), _) => Refusal::Errno(Errno::from_raw_os_error(errno as i32)),
                (_, Some(code @ 0..=0xffff_ffff)) => Refusal::Code(code as u32),
                _ => return None,
            };
            Some(Report::Refused(refused))
        };
        let mut reports = 0;
        for mut which in 0..PIECES.len().pow(4) {
            let mut packet = std::string::String::new();
            for _ in 0..4 {
                packet.push_str(PIECES[which % PIECES.len()]);
                which /= PIECES.len();
            }
            let found = Report::parse(packet.as_bytes());
            assert_eq!(found, expected(&packet), "{packet:?}");
            reports += usize::from(found.is_some());
        }
        assert!(reports > 100, "{reports}");
    }

    #[test]
    fn what_is_longer_than_any_report_is_none() {
        let (ours, theirs) = pair().unwrap();
        for (digits, expected) in [
            (59, Received::Report(Report::Refused(Refusal::Code(1)))),
            (60, Received::Unknown(Word::new("CODE=0000000000"))),
        ] {
            let packet = std::format!("CODE={:0>digits$}", 1);
            rustix::net::send(&theirs, packet.as_bytes(), SendFlags::empty()).unwrap();
            assert_eq!(receive(ours.as_fd()), Ok(expected), "{digits}");
        }
        // A packet that would be a report if it were cut.
        let packet = [&b"READY=1"[..], &[b'\n'; 57], b"and more"].concat();
        rustix::net::send(&theirs, &packet, SendFlags::empty()).unwrap();
        assert_eq!(receive(ours.as_fd()), Ok(Received::Unknown(Word::new("READY=1\n\n\n\n\n\n\n\n"))));
    }

    #[test]
    fn nobody_to_report_to_is_no_error() {
        let (ours, theirs) = pair().unwrap();
        drop(ours);
        assert_eq!(send(theirs.as_fd(), Report::Ready), Ok(false));
    }

    #[test]
    fn a_report_is_taken_or_it_is_not() {
        let (ours, theirs) = pair().unwrap();
        assert_eq!(send(theirs.as_fd(), Report::Ready), Ok(true));
        refuse_reports(ours.as_fd()).unwrap();
        assert_eq!(send(theirs.as_fd(), Report::Ready), Ok(false));
        assert_eq!(receive(ours.as_fd()), Ok(Received::Report(Report::Ready)));
        assert_eq!(receive(ours.as_fd()), Ok(Received::Closed));
        drop(theirs);
        refuse_reports(ours.as_fd()).unwrap();
    }

    #[test]
    fn who_closes_without_a_word_has_given_nobody_up() {
        for (unread, says_so, given_up) in
            [(false, false, false), (false, true, true), (true, false, false), (true, true, true)]
        {
            let (ours, theirs) = pair().unwrap();
            if unread {
                assert_eq!(send(theirs.as_fd(), Report::Ready), Ok(true));
            }
            refuse_reports(ours.as_fd()).unwrap();
            assert_eq!(is_given_up(theirs.as_fd()), Ok(true), "about to");
            if says_so {
                give_up(ours.as_fd());
            }
            drop(ours);
            for _ in 0..2 {
                assert_eq!(is_given_up(theirs.as_fd()), Ok(given_up), "{unread} {says_so}");
            }
        }
    }
}
