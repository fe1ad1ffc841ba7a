//! Messages to the service manager: assignments in, one datagram out.
//!
//! [`render`] writes the assignments in the caller's order, with a newline between them. It refuses any message that
//! the manager would refuse, ignore or misread, before anything is sent. This module makes no system call.

use crate::activation::name_fault;
use crate::digits::{DIGITS, decimal};
use crate::error::{Error, MessageFault, counted};
use core::time::Duration;
use heapless::Vec;
use rustix::io::Errno;
use rustix::process::Pid;

/// The longest message, in bytes: the manager reads as much at once.
pub const MESSAGE_MAX: usize = 4096;

/// The most descriptors that the kernel passes with one message.
pub const FDS_MAX: usize = 253;

/// One assignment of a message to the service manager.
///
/// # References
///
/// - `sd_notify(3)`, "Well-known assignments"
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
#[doc(alias = "NotifyState")]
pub enum Assignment<'a> {
    /// The service has started, or a reload is over.
    #[doc(alias = "READY=1")]
    Ready,
    /// The service reloads from now on. The message carries its time too, as `Type=notify-reload` requires.
    #[doc(alias = "RELOADING=1")]
    #[doc(alias = "MONOTONIC_USEC")]
    Reloading,
    /// The service is about to end.
    #[doc(alias = "STOPPING=1")]
    Stopping,
    /// A line for people.
    #[doc(alias = "STATUS")]
    Status(&'a str),
    /// The service failed with this errno.
    #[doc(alias = "ERRNO")]
    Errno(Errno),
    /// The service failed with this D-Bus error.
    #[doc(alias = "BUSERROR")]
    BusError(&'a str),
    /// The service failed with this Varlink error; systemd 257.
    #[doc(alias = "VARLINKERROR")]
    VarlinkError(&'a str),
    /// The service ends with this status; systemd 254.
    #[doc(alias = "EXIT_STATUS")]
    ExitStatus(u8),
    /// The process with this ID is the main process.
    #[doc(alias = "MAINPID")]
    MainPid(Pid),
    /// The main process's pidfd has this inode number; systemd 257. See [`pidfd_id`](super::pidfd_id).
    #[doc(alias = "MAINPIDFDID")]
    MainPidfdId(u64),
    /// The main process is the process of the pidfd that is sent with the message; systemd 257.
    #[doc(alias = "MAINPIDFD")]
    MainPidfd,
    /// The processes whose messages the manager accepts from now on; systemd 254.
    #[doc(alias = "NOTIFYACCESS")]
    NotifyAccess(Access),
    /// The service is alive.
    #[doc(alias = "WATCHDOG=1")]
    Watchdog,
    /// The service found itself unwell: the manager acts as if the watchdog had expired.
    #[doc(alias = "WATCHDOG=trigger")]
    WatchdogTrigger,
    /// The watchdog's timeout from now on.
    #[doc(alias = "WATCHDOG_USEC")]
    WatchdogTimeout(Duration),
    /// Starting, running or stopping may take this much longer from now.
    #[doc(alias = "EXTEND_TIMEOUT_USEC")]
    ExtendTimeout(Duration),
    /// The count of automatic restarts begins anew; systemd 258.
    #[doc(alias = "RESTART_RESET=1")]
    RestartReset,
    /// The manager keeps the descriptors that are sent with the message.
    #[doc(alias = "FDSTORE=1")]
    FdStore,
    /// The name of the descriptors to keep or drop.
    #[doc(alias = "FDNAME")]
    FdName(&'a str),
    /// The manager keeps the descriptors even if they become readable with `POLLHUP`. Otherwise it drops them then.
    #[doc(alias = "FDPOLL=0")]
    NoFdPoll,
    /// The manager drops the descriptors that it keeps under the name in this message.
    #[doc(alias = "FDSTOREREMOVE=1")]
    FdStoreRemove,
    /// The manager closes the descriptor that is sent with the message, once it has processed every earlier message.
    /// [`Notifier::barrier`](super::Notifier::barrier) sends such a message and waits.
    #[doc(alias = "BARRIER=1")]
    Barrier,
    /// An assignment that the manager ignores and its monitors may read. The key begins with `X_`, followed by
    /// capital letters, digits and underscores.
    Private {
        /// The key, with its `X_`.
        key: &'a str,
        /// The value: any text without a newline or a NUL.
        value: &'a str,
    },
}

/// The processes whose messages a manager accepts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
#[doc(alias = "NotifyAccess")]
pub enum Access {
    /// No process.
    None,
    /// The main process.
    Main,
    /// The main process and the processes of the unit's control commands.
    Exec,
    /// Every process of the unit.
    All,
}

impl Access {
    const fn word(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Main => "main",
            Self::Exec => "exec",
            Self::All => "all",
        }
    }
}

/// A message's bytes.
pub(super) type Bytes = Vec<u8, MESSAGE_MAX>;

/// Writes the message that is sent with `fds` descriptors, behind what is in `bytes`. `now` is the time on the
/// monotonic clock.
///
/// The caller lends `bytes`, so the stack holds one copy.
///
/// # Errors
///
/// - [`Error::Message`]: the manager would refuse, ignore or misread the message.
pub(super) fn render(
    assignments: &[Assignment<'_>],
    fds: usize,
    now: Duration,
    bytes: &mut Bytes,
) -> Result<(), Error> {
    if assignments.is_empty() {
        return Err(MessageFault::Empty.at(0));
    }
    for (position, assignment) in assignments.iter().enumerate() {
        let line = Line { bytes, first: position == 0 };
        line.write(assignment, now).map_err(|fault| fault.at(counted(position)))?;
    }
    check_company(assignments, fds)
}

/// Checks that the number of descriptors matches the assignments about descriptors.
fn check_company(assignments: &[Assignment<'_>], fds: usize) -> Result<(), Error> {
    let position = |wanted| assignments.iter().position(|assignment| *assignment == wanted);
    let is_name = |assignment: &Assignment<'_>| matches!(assignment, Assignment::FdName(_));
    if fds > FDS_MAX {
        return Err(MessageFault::TooManyFds { fds: counted(fds) }.at(0));
    }
    if let Some(second) = assignments.iter().enumerate().filter(|(_, entry)| is_name(entry)).nth(1) {
        return Err(MessageFault::Repeated.at(counted(second.0)));
    }
    let mut wanted = 0..=0;
    for (position, range, together) in [
        (position(Assignment::Barrier), 1..=1, assignments.len() == 1),
        (position(Assignment::MainPidfd), 1..=1, true),
        (position(Assignment::FdStore), 1..=FDS_MAX, position(Assignment::MainPidfd).is_none()),
        (position(Assignment::FdStoreRemove), 0..=0, position(Assignment::FdStore).is_none()),
    ] {
        let Some(position) = position else { continue };
        if !together {
            return Err(MessageFault::NotTogether.at(counted(position)));
        }
        if !range.contains(&fds) {
            return Err(MessageFault::Fds { fds: counted(fds) }.at(counted(position)));
        }
        wanted = range;
    }
    if let Some(position) = position(Assignment::FdStoreRemove) {
        if !assignments.iter().any(is_name) {
            return Err(MessageFault::NoName.at(counted(position)));
        }
    }
    // The manager would close descriptors that no assignment is about, and report that to no process.
    if wanted.contains(&fds) { Ok(()) } else { Err(MessageFault::Fds { fds: counted(fds) }.at(0)) }
}

struct Line<'b> {
    bytes: &'b mut Bytes,
    first: bool,
}

impl Line<'_> {
    fn write(mut self, assignment: &Assignment<'_>, now: Duration) -> Result<(), MessageFault> {
        match *assignment {
            Assignment::Ready => self.word("READY", "1"),
            Assignment::Reloading => {
                self.word("RELOADING", "1")?;
                self.first = false;
                self.number("MONOTONIC_USEC", microseconds(now)?)
            }
            Assignment::Stopping => self.word("STOPPING", "1"),
            Assignment::Status(text) => self.text("STATUS", text),
            Assignment::Errno(errno) => self.number("ERRNO", errno.raw_os_error().unsigned_abs().into()),
            Assignment::BusError(name) => self.text("BUSERROR", name),
            Assignment::VarlinkError(name) => self.text("VARLINKERROR", name),
            Assignment::ExitStatus(status) => self.number("EXIT_STATUS", status.into()),
            Assignment::MainPid(pid) => {
                self.number("MAINPID", pid.as_raw_nonzero().get().unsigned_abs().into())
            }
            Assignment::MainPidfdId(id) => self.number("MAINPIDFDID", id),
            Assignment::MainPidfd => self.word("MAINPIDFD", "1"),
            Assignment::NotifyAccess(access) => self.word("NOTIFYACCESS", access.word()),
            Assignment::Watchdog => self.word("WATCHDOG", "1"),
            Assignment::WatchdogTrigger => self.word("WATCHDOG", "trigger"),
            Assignment::WatchdogTimeout(time) => self.number("WATCHDOG_USEC", microseconds(time)?),
            Assignment::ExtendTimeout(time) => self.number("EXTEND_TIMEOUT_USEC", microseconds(time)?),
            Assignment::RestartReset => self.word("RESTART_RESET", "1"),
            Assignment::FdStore => self.word("FDSTORE", "1"),
            Assignment::FdName(name) => match name_fault(name) {
                None => self.word("FDNAME", name),
                Some(fault) => Err(MessageFault::Name(fault)),
            },
            Assignment::NoFdPoll => self.word("FDPOLL", "0"),
            Assignment::FdStoreRemove => self.word("FDSTOREREMOVE", "1"),
            Assignment::Barrier => self.word("BARRIER", "1"),
            Assignment::Private { key, value } => {
                let is_fit = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_';
                match key.strip_prefix("X_") {
                    Some(rest) if !rest.is_empty() && rest.bytes().all(is_fit) => self.text(key, value),
                    _ => Err(MessageFault::Key),
                }
            }
        }
    }

    /// Writes a value that comes from outside.
    fn text(&mut self, key: &str, value: &str) -> Result<(), MessageFault> {
        // The manager treats a newline as the start of the next assignment, and drops a message with a NUL.
        match value.bytes().find(|byte| matches!(byte, b'\n' | 0)) {
            Some(byte) => Err(MessageFault::Byte(byte)),
            None => self.word(key, value),
        }
    }

    fn number(&mut self, key: &str, value: u64) -> Result<(), MessageFault> {
        let mut digits = [0; DIGITS];
        self.put(key, decimal(value, &mut digits))
    }

    fn word(&mut self, key: &str, value: &str) -> Result<(), MessageFault> {
        self.put(key, value.as_bytes())
    }

    fn put(&mut self, key: &str, value: &[u8]) -> Result<(), MessageFault> {
        let separator: &[u8] = if self.first { b"" } else { b"\n" };
        [separator, key.as_bytes(), b"=", value]
            .iter()
            .try_for_each(|part| self.bytes.extend_from_slice(part))
            .map_err(|_| MessageFault::TooLong)
    }
}

/// Returns whole microseconds. The largest number means "for ever" to the manager, and is not a time.
fn microseconds(time: Duration) -> Result<u64, MessageFault> {
    u64::try_from(time.as_micros()).ok().filter(|time| *time != u64::MAX).ok_or(MessageFault::OutOfRange)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::std_instead_of_core)]
mod tests {
    use super::*;
    use crate::error::NameFault;
    use std::string::String;
    use std::vec::Vec;

    const NOW: Duration = Duration::new(12, 345_678_999);

    fn text(assignments: &[Assignment<'_>], fds: usize) -> Result<String, Error> {
        let mut bytes = Bytes::new();
        render(assignments, fds, NOW, &mut bytes).map(|()| String::from_utf8(bytes.to_vec()).unwrap())
    }

    #[test]
    fn every_assignment_is_written_as_the_manual_has_it() {
        let pid = Pid::from_raw(4711).unwrap();
        for (assignment, fds, expected) in [
            (Assignment::Ready, 0, "READY=1"),
            (Assignment::Reloading, 0, "RELOADING=1\nMONOTONIC_USEC=12345678"),
            (Assignment::Stopping, 0, "STOPPING=1"),
            (Assignment::Status("über = alles"), 0, "STATUS=über = alles"),
            (Assignment::Status(""), 0, "STATUS="),
            (Assignment::Errno(Errno::NOENT), 0, "ERRNO=2"),
            (Assignment::BusError("org.Error"), 0, "BUSERROR=org.Error"),
            (Assignment::VarlinkError("org.error"), 0, "VARLINKERROR=org.error"),
            (Assignment::ExitStatus(255), 0, "EXIT_STATUS=255"),
            (Assignment::MainPid(pid), 0, "MAINPID=4711"),
            (Assignment::MainPidfdId(u64::MAX), 0, "MAINPIDFDID=18446744073709551615"),
            (Assignment::MainPidfd, 1, "MAINPIDFD=1"),
            (Assignment::NotifyAccess(Access::None), 0, "NOTIFYACCESS=none"),
            (Assignment::NotifyAccess(Access::Main), 0, "NOTIFYACCESS=main"),
            (Assignment::NotifyAccess(Access::Exec), 0, "NOTIFYACCESS=exec"),
            (Assignment::NotifyAccess(Access::All), 0, "NOTIFYACCESS=all"),
            (Assignment::Watchdog, 0, "WATCHDOG=1"),
            (Assignment::WatchdogTrigger, 0, "WATCHDOG=trigger"),
            (Assignment::WatchdogTimeout(Duration::from_millis(1500)), 0, "WATCHDOG_USEC=1500000"),
            (Assignment::ExtendTimeout(Duration::from_secs(7)), 0, "EXTEND_TIMEOUT_USEC=7000000"),
            (Assignment::RestartReset, 0, "RESTART_RESET=1"),
            (Assignment::FdStore, 1, "FDSTORE=1"),
            (Assignment::FdName("a b"), 0, "FDNAME=a b"),
            (Assignment::NoFdPoll, 0, "FDPOLL=0"),
            (Assignment::Barrier, 1, "BARRIER=1"),
            (Assignment::Private { key: "X_APP_2", value: "=\t" }, 0, "X_APP_2==\t"),
        ] {
            assert_eq!(text(&[assignment], fds).as_deref(), Ok(expected));
        }
        let remove = [Assignment::FdStoreRemove, Assignment::FdName("old")];
        assert_eq!(text(&remove, 0).as_deref(), Ok("FDSTOREREMOVE=1\nFDNAME=old"));
    }

    #[test]
    fn assignments_stand_in_the_callers_order() {
        let message =
            [Assignment::Status("a"), Assignment::Ready, Assignment::Reloading, Assignment::Status("b")];
        let expected = "STATUS=a\nREADY=1\nRELOADING=1\nMONOTONIC_USEC=12345678\nSTATUS=b";
        assert_eq!(text(&message, 0).as_deref(), Ok(expected));
    }

    #[test]
    fn what_the_manager_would_misread_is_refused_with_its_place() {
        let private = |key| Assignment::Private { key, value: "" };
        let long = "n".repeat(256);
        for (assignment, fault) in [
            (Assignment::Status("a\nMAINPID=1"), MessageFault::Byte(b'\n')),
            (Assignment::Status("a\0"), MessageFault::Byte(0)),
            (Assignment::BusError("\n"), MessageFault::Byte(b'\n')),
            (Assignment::VarlinkError("\0"), MessageFault::Byte(0)),
            (Assignment::Private { key: "X_A", value: "\n" }, MessageFault::Byte(b'\n')),
            (private("READY"), MessageFault::Key),
            (private("X_"), MessageFault::Key),
            (private("X_a"), MessageFault::Key),
            (private("X_A=1"), MessageFault::Key),
            (private("x_A"), MessageFault::Key),
            (private(""), MessageFault::Key),
            (Assignment::FdName("a:b"), MessageFault::Name(NameFault::Byte(b':'))),
            (Assignment::FdName("a\n"), MessageFault::Name(NameFault::Byte(b'\n'))),
            (Assignment::FdName(&long), MessageFault::Name(NameFault::TooLong { bytes: 256 })),
            (Assignment::WatchdogTimeout(Duration::MAX), MessageFault::OutOfRange),
            (Assignment::ExtendTimeout(Duration::from_micros(u64::MAX)), MessageFault::OutOfRange),
        ] {
            let refused = Err(Error::Message { position: 1, fault });
            assert_eq!(text(&[Assignment::Ready, assignment], 0), refused, "{assignment:?}");
        }
        assert_eq!(text(&[], 0), Err(Error::Message { position: 0, fault: MessageFault::Empty }));
        let longest = Assignment::ExtendTimeout(Duration::from_micros(u64::MAX - 1));
        assert_eq!(text(&[longest], 0).as_deref(), Ok("EXTEND_TIMEOUT_USEC=18446744073709551614"));
    }

    /// Checks byte by byte what a line for people, a descriptor's name and a private key may hold.
    #[test]
    fn each_byte_is_let_through_or_named() {
        for byte in 0..=127_u8 {
            let value = String::from_utf8([b'a', byte].into()).unwrap();
            let key = String::from_utf8([b'X', b'_', byte].into()).unwrap();
            let refused = |fault| Err(Error::Message { position: 0, fault });
            let written = |key: &str| Ok(std::format!("{key}={value}"));
            let status = match byte {
                b'\n' | 0 => refused(MessageFault::Byte(byte)),
                _ => written("STATUS"),
            };
            assert_eq!(text(&[Assignment::Status(&value)], 0), status);
            let name = match byte {
                b' '..=b'9' | b';'..=b'~' => written("FDNAME"),
                _ => refused(MessageFault::Name(NameFault::Byte(byte))),
            };
            assert_eq!(text(&[Assignment::FdName(&value)], 0), name);
            let private = match byte {
                b'A'..=b'Z' | b'0'..=b'9' | b'_' => Ok(std::format!("{key}=")),
                _ => refused(MessageFault::Key),
            };
            assert_eq!(text(&[Assignment::Private { key: &key, value: "" }], 0), private);
        }
        for len in [0, 255] {
            let name = "n".repeat(len);
            assert_eq!(text(&[Assignment::FdName(&name)], 0), Ok(std::format!("FDNAME={name}")));
        }
    }

    /// Checks that two assignments are rendered as the first, a newline and the second, also if they are the same.
    #[test]
    fn a_newline_stands_between_any_two() {
        let all = [
            Assignment::Ready,
            Assignment::Reloading,
            Assignment::Status(""),
            Assignment::Errno(Errno::PERM),
            Assignment::MainPidfdId(0),
            Assignment::NotifyAccess(Access::Exec),
            Assignment::WatchdogTrigger,
            Assignment::ExtendTimeout(Duration::ZERO),
            Assignment::NoFdPoll,
            Assignment::Private { key: "X_1", value: "=" },
        ];
        for (first, second) in all.iter().flat_map(|first| all.iter().map(move |second| (*first, *second))) {
            let [one, other] = [first, second].map(|assignment| text(&[assignment], 0).unwrap());
            assert_eq!(text(&[first, second], 0), Ok(std::format!("{one}\n{other}")));
        }
    }

    #[test]
    fn a_message_is_as_long_as_the_manager_reads() {
        assert_eq!((MESSAGE_MAX, FDS_MAX), (4096, 253));
        let room = MESSAGE_MAX - "READY=1\nSTATUS=".len();
        let fits = "s".repeat(room);
        assert_eq!(text(&[Assignment::Ready, Assignment::Status(&fits)], 0).unwrap().len(), MESSAGE_MAX);
        let too_long = "s".repeat(room + 1);
        let refused = Err(Error::Message { position: 1, fault: MessageFault::TooLong });
        assert_eq!(text(&[Assignment::Ready, Assignment::Status(&too_long)], 0), refused);
    }

    #[test]
    fn descriptors_go_with_what_is_about_them() {
        use Assignment::{Barrier, FdName, FdStore, FdStoreRemove, MainPidfd, NoFdPoll, Ready};
        let name = FdName("n");
        for (message, fds, position, fault) in [
            (&[Ready][..], 1, 0, MessageFault::Fds { fds: 1 }),
            (&[name], 1, 0, MessageFault::Fds { fds: 1 }),
            (&[FdStore, name], 0, 0, MessageFault::Fds { fds: 0 }),
            (&[FdStore, name], 254, 0, MessageFault::TooManyFds { fds: 254 }),
            (&[Ready, MainPidfd], 0, 1, MessageFault::Fds { fds: 0 }),
            (&[Ready, MainPidfd], 2, 1, MessageFault::Fds { fds: 2 }),
            (&[MainPidfd, FdStore, name], 1, 1, MessageFault::NotTogether),
            (&[Barrier], 0, 0, MessageFault::Fds { fds: 0 }),
            (&[Barrier], 2, 0, MessageFault::Fds { fds: 2 }),
            (&[Ready, Barrier], 1, 1, MessageFault::NotTogether),
            (&[FdStoreRemove], 0, 0, MessageFault::NoName),
            (&[FdStoreRemove, name], 1, 0, MessageFault::Fds { fds: 1 }),
            (&[FdStore, FdStoreRemove, name], 1, 1, MessageFault::NotTogether),
            (&[FdStore, name, name], 1, 2, MessageFault::Repeated),
        ] {
            assert_eq!(text(message, fds), Err(Error::Message { position, fault }), "{message:?} with {fds}");
        }
        for fds in [1, 253] {
            let message: Vec<_> = [FdStore, name, NoFdPoll].into();
            assert_eq!(text(&message, fds).as_deref(), Ok("FDSTORE=1\nFDNAME=n\nFDPOLL=0"));
        }
        assert_eq!(text(&[Ready, MainPidfd], 1).as_deref(), Ok("READY=1\nMAINPIDFD=1"));
    }
}
