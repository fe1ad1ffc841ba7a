//! Messages to the service manager and its address: each message goes through a real socket and is compared
//! with a second rendering, or with the rules that it breaks.
#![no_main]

use arbitrary::Arbitrary;
use gracenet::Variable;
use gracenet::error::{Error, Fault, MessageFault, NameFault};
use gracenet::notify::{Access, Assignment, Notifier};
use libfuzzer_sys::fuzz_target;
use rustix::fd::{AsFd, OwnedFd};
use rustix::io::{Errno, IoSliceMut};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketAddrUnix, SocketType,
};
use rustix::process::Pid;
use rustix::time::{ClockId, clock_gettime};
use std::mem::MaybeUninit;
use std::process;
use std::sync::LazyLock;
use std::time::Duration;

#[derive(Arbitrary, Debug)]
struct Input<'d> {
    fds: u8,
    message: Vec<Line<'d>>,
    address: &'d [u8],
}

#[derive(Arbitrary, Debug)]
enum Line<'d> {
    Ready,
    Reloading,
    Stopping,
    Status(Text<'d>),
    Errno(u16),
    BusError(Text<'d>),
    VarlinkError(Text<'d>),
    ExitStatus(u8),
    MainPid(u32),
    MainPidfdId(u64),
    MainPidfd,
    NotifyAccess(u8),
    Watchdog,
    WatchdogTrigger,
    WatchdogTimeout(Time),
    ExtendTimeout(Time),
    RestartReset,
    FdStore,
    FdName(Text<'d>),
    NoFdPoll,
    FdStoreRemove,
    Barrier,
    Private(Text<'d>, Text<'d>),
    /// One whose key may be good.
    Keyed(u8, Text<'d>),
}

/// Microseconds, and so many nanoseconds more.
#[derive(Arbitrary, Debug)]
struct Time(u64, u16);

impl Time {
    fn duration(&self) -> Duration {
        Duration::from_micros(self.0) + Duration::from_nanos(self.1.into())
    }
}

#[derive(Arbitrary, Debug)]
enum Text<'d> {
    Short(&'d str),
    /// So many bytes, modulo [`LONG`], which the message may not have room for.
    Long(u16),
}

const LONG: &str = match str::from_utf8(&[b'x'; 4200]) {
    Ok(long) => long,
    Err(_) => panic!(),
};

const KEYS: [&str; 8] = ["X_", "X_A", "X_A_9", "X_a", "X_Z=", "X-A", "READY", "X__"];

impl<'d> Text<'d> {
    fn str(&self) -> &'d str {
        match self {
            Self::Short(text) => text,
            Self::Long(len) => &LONG[..usize::from(*len) % LONG.len()],
        }
    }
}

impl<'d> Line<'d> {
    fn assignment(&self) -> Assignment<'d> {
        match self {
            Self::Ready => Assignment::Ready,
            Self::Reloading => Assignment::Reloading,
            Self::Stopping => Assignment::Stopping,
            Self::Status(text) => Assignment::Status(text.str()),
            Self::Errno(errno) => Assignment::Errno(Errno::from_raw_os_error(i32::from(*errno % 4095) + 1)),
            Self::BusError(text) => Assignment::BusError(text.str()),
            Self::VarlinkError(text) => Assignment::VarlinkError(text.str()),
            Self::ExitStatus(status) => Assignment::ExitStatus(*status),
            Self::MainPid(pid) => {
                Assignment::MainPid(Pid::from_raw((pid >> 1) as i32 | 1).expect("it is not 0"))
            }
            Self::MainPidfdId(id) => Assignment::MainPidfdId(*id),
            Self::MainPidfd => Assignment::MainPidfd,
            Self::NotifyAccess(access) => Assignment::NotifyAccess(match access % 4 {
                0 => Access::None,
                1 => Access::Main,
                2 => Access::Exec,
                _ => Access::All,
            }),
            Self::Watchdog => Assignment::Watchdog,
            Self::WatchdogTrigger => Assignment::WatchdogTrigger,
            Self::WatchdogTimeout(time) => Assignment::WatchdogTimeout(time.duration()),
            Self::ExtendTimeout(time) => Assignment::ExtendTimeout(time.duration()),
            Self::RestartReset => Assignment::RestartReset,
            Self::FdStore => Assignment::FdStore,
            Self::FdName(text) => Assignment::FdName(text.str()),
            Self::NoFdPoll => Assignment::NoFdPoll,
            Self::FdStoreRemove => Assignment::FdStoreRemove,
            Self::Barrier => Assignment::Barrier,
            Self::Private(key, value) => Assignment::Private { key: key.str(), value: value.str() },
            Self::Keyed(key, value) => {
                Assignment::Private { key: KEYS[usize::from(*key) % KEYS.len()], value: value.str() }
            }
        }
    }
}

fuzz_target!(|input: Input<'_>| {
    check_address(input.address);
    let message: Vec<Assignment<'_>> = input.message.iter().map(Line::assignment).collect();
    check_message(&message, input.fds.into());
});

fn check_message(message: &[Assignment<'_>], fds: usize) {
    let manager = &*MANAGER;
    let lent = vec![manager.socket.as_fd(); fds];
    let before = monotonic();
    let sent = manager.notifier.send_with_fds(message, &lent);
    let after = monotonic();
    let received = manager.receive();
    match (sent, wrong(message, fds, before)) {
        (Ok(true), wrong) if wrong.is_empty() => {
            let (bytes, passed) = received.expect("a message");
            assert_eq!(passed, fds);
            // The first line with this key is one that a reload has: no value has a newline in it.
            let stamp = bytes.split(|byte| *byte == b'\n').find_map(|line| {
                str::from_utf8(line.strip_prefix(b"MONOTONIC_USEC=")?).ok()?.parse::<u128>().ok()
            });
            let stamp = stamp.unwrap_or(0);
            let lines: Vec<String> = message.iter().map(|line| written(line, stamp).join("\n")).collect();
            assert_eq!(
                bytes.escape_ascii().to_string(),
                lines.join("\n").as_bytes().escape_ascii().to_string()
            );
            if message.contains(&Assignment::Reloading) {
                assert!((before.as_micros()..=after.as_micros()).contains(&stamp));
            }
        }
        (Err(Error::Message { position, fault }), wrong) => {
            assert!(
                wrong.contains(&(position as usize, fault)),
                "{fault:?} at {position} is not among {wrong:?}"
            );
            assert_eq!(received, None, "something was sent");
        }
        (sent, wrong) => panic!("{sent:?} although {wrong:?}"),
    }
}

/// The lines of an assignment, as the manual has them.
fn written(assignment: &Assignment<'_>, stamp: u128) -> Vec<String> {
    let one = |line: String| vec![line];
    match *assignment {
        Assignment::Ready => one("READY=1".into()),
        Assignment::Reloading => vec!["RELOADING=1".into(), format!("MONOTONIC_USEC={stamp}")],
        Assignment::Stopping => one("STOPPING=1".into()),
        Assignment::Status(text) => one(format!("STATUS={text}")),
        Assignment::Errno(errno) => one(format!("ERRNO={}", errno.raw_os_error())),
        Assignment::BusError(text) => one(format!("BUSERROR={text}")),
        Assignment::VarlinkError(text) => one(format!("VARLINKERROR={text}")),
        Assignment::ExitStatus(status) => one(format!("EXIT_STATUS={status}")),
        Assignment::MainPid(pid) => one(format!("MAINPID={}", pid.as_raw_pid())),
        Assignment::MainPidfdId(id) => one(format!("MAINPIDFDID={id}")),
        Assignment::MainPidfd => one("MAINPIDFD=1".into()),
        Assignment::NotifyAccess(access) => {
            one(format!("NOTIFYACCESS={}", format!("{access:?}").to_lowercase()))
        }
        Assignment::Watchdog => one("WATCHDOG=1".into()),
        Assignment::WatchdogTrigger => one("WATCHDOG=trigger".into()),
        Assignment::WatchdogTimeout(time) => one(format!("WATCHDOG_USEC={}", time.as_micros())),
        Assignment::ExtendTimeout(time) => one(format!("EXTEND_TIMEOUT_USEC={}", time.as_micros())),
        Assignment::RestartReset => one("RESTART_RESET=1".into()),
        Assignment::FdStore => one("FDSTORE=1".into()),
        Assignment::FdName(name) => one(format!("FDNAME={name}")),
        Assignment::NoFdPoll => one("FDPOLL=0".into()),
        Assignment::FdStoreRemove => one("FDSTOREREMOVE=1".into()),
        Assignment::Barrier => one("BARRIER=1".into()),
        Assignment::Private { key, value } => one(format!("{key}={value}")),
        other => panic!("{other:?} is new"),
    }
}

/// Everything that is wrong with a message. Of what is wrong with its lines the first alone, since that is
/// where rendering ends; what is wrong with its company counts if every line is right.
fn wrong(message: &[Assignment<'_>], fds: usize, now: Duration) -> Vec<(usize, MessageFault)> {
    if message.is_empty() {
        return vec![(0, MessageFault::Empty)];
    }
    let mut len = 0;
    for (position, assignment) in message.iter().enumerate() {
        if let Some(fault) = wrong_in(assignment) {
            return vec![(position, fault)];
        }
        let lines = written(assignment, now.as_micros());
        len += lines.iter().map(|line| line.len() + 1).sum::<usize>();
        // The last line ends without a newline.
        if len - 1 > 4096 {
            return vec![(position, MessageFault::TooLong)];
        }
    }
    let at = |wanted: Assignment<'_>| message.iter().position(|assignment| *assignment == wanted);
    let names: Vec<usize> =
        (0..message.len()).filter(|at| matches!(message[*at], Assignment::FdName(_))).collect();
    let (barrier, main_pidfd) = (at(Assignment::Barrier), at(Assignment::MainPidfd));
    let (store, remove) = (at(Assignment::FdStore), at(Assignment::FdStoreRemove));
    let mut wrong = Vec::new();
    let mut rule = |breaks: bool, position: Option<usize>, fault: MessageFault| {
        if let Some(position) = position.filter(|_| breaks) {
            wrong.push((position, fault));
        }
    };
    let number = MessageFault::Fds { fds: fds as u32 };
    rule(fds > 253, Some(0), MessageFault::TooManyFds { fds: fds as u32 });
    rule(true, names.get(1).copied(), MessageFault::Repeated);
    rule(message.len() > 1, barrier, MessageFault::NotTogether);
    rule(fds != 1, barrier, number);
    rule(fds != 1, main_pidfd, number);
    rule(main_pidfd.is_some(), store, MessageFault::NotTogether);
    rule(fds == 0, store, number);
    rule(store.is_some(), remove, MessageFault::NotTogether);
    rule(fds > 0, remove, number);
    rule(names.is_empty(), remove, MessageFault::NoName);
    rule(fds > 0 && barrier.or(main_pidfd).or(store).is_none(), Some(0), number);
    wrong
}

fn wrong_in(assignment: &Assignment<'_>) -> Option<MessageFault> {
    let text = |text: &str| text.bytes().find(|byte| [b'\n', 0].contains(byte)).map(MessageFault::Byte);
    match *assignment {
        Assignment::Status(value) | Assignment::BusError(value) | Assignment::VarlinkError(value) => {
            text(value)
        }
        Assignment::Private { key, value } => {
            let rest = key.strip_prefix("X_").unwrap_or("");
            let fits = |c: char| matches!(c, 'A'..='Z' | '0'..='9' | '_');
            if rest.is_empty() || !rest.chars().all(fits) { Some(MessageFault::Key) } else { text(value) }
        }
        Assignment::FdName(name) if name.len() > 255 => {
            Some(MessageFault::Name(NameFault::TooLong { bytes: name.len() as u32 }))
        }
        Assignment::FdName(name) => name
            .bytes()
            .find(|byte| !(b' '..=b'~').contains(byte) || *byte == b':')
            .map(|byte| MessageFault::Name(NameFault::Byte(byte))),
        // The largest number is "for ever".
        Assignment::WatchdogTimeout(time) | Assignment::ExtendTimeout(time) => {
            (time.as_micros() >= u64::MAX.into()).then_some(MessageFault::OutOfRange)
        }
        _ => None,
    }
}

/// The service manager's end.
struct Manager {
    socket: OwnedFd,
    notifier: Notifier,
}

static MANAGER: LazyLock<Manager> = LazyLock::new(|| {
    let name = format!("gracenet-fuzz-{}", process::id());
    let socket = rustix::net::socket(AddressFamily::UNIX, SocketType::DGRAM, None).expect("a socket");
    let address = SocketAddrUnix::new_abstract_name(name.as_bytes()).expect("a short name");
    rustix::net::bind(&socket, &address).expect("a name of our own");
    let notifier = Notifier::parse(format!("@{name}").as_bytes()).expect("an abstract name");
    Manager { socket, notifier }
});

impl Manager {
    /// The message that waits, if one does, and how many descriptors came with it.
    fn receive(&self) -> Option<(Vec<u8>, usize)> {
        let mut bytes = vec![0; 8192];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(253))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut slices = [IoSliceMut::new(&mut bytes)];
        let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
        let received = match rustix::net::recvmsg(&self.socket, &mut slices, &mut control, flags) {
            Ok(received) => received,
            Err(Errno::AGAIN) => return None,
            Err(errno) => panic!("{errno}"),
        };
        bytes.truncate(received.bytes);
        let fds = control.drain().map(|message| match message {
            RecvAncillaryMessage::ScmRights(fds) => fds.count(),
            _ => panic!("something else than descriptors"),
        });
        Some((bytes, fds.sum()))
    }
}

fn monotonic() -> Duration {
    let time = clock_gettime(ClockId::Monotonic);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// `NOTIFY_SOCKET` is read as the manual has it.
fn check_address(value: &[u8]) {
    let fault = match value {
        // `sun_path` has 108 bytes: one for the NUL before an abstract name or behind a path.
        [b'/', ..] | [b'@', _, ..] => {
            let bytes = value.len() - usize::from(value[0] == b'@');
            (bytes > 107).then_some(Fault::TooLong { bytes: bytes as u32 })
        }
        _ => wrong_in_vsock(value),
    };
    match Notifier::parse(value) {
        Ok(notifier) => assert_eq!((notifier.is_present(), fault), (true, None)),
        Err(error) => {
            let fault = fault.unwrap_or_else(|| panic!("{error:?}"));
            assert_eq!(error, Error::Variable { variable: Variable::NotifySocket, fault });
        }
    }
}

/// `vsock:CID:PORT`, of any type of socket.
fn wrong_in_vsock(value: &[u8]) -> Option<Fault> {
    let mut parts = value.splitn(3, |byte| *byte == b':');
    let kinds: [&[u8]; 4] = [b"vsock", b"vsock-stream", b"vsock-dgram", b"vsock-seqpacket"];
    let (Some(kind), Some(cid), Some(port)) = (parts.next(), parts.next(), parts.next()) else {
        return Some(Fault::NotAnAddress);
    };
    if !kinds.contains(&kind) {
        return Some(Fault::NotAnAddress);
    }
    // Every machine, the largest CID, is nobody to send to.
    let fault = wrong_number(cid, u128::from(u32::MAX) - 1).or_else(|| wrong_number(port, u32::MAX.into()));
    // No number needs leading zeros until nothing else fits.
    fault.or_else(|| (value.len() > 108).then_some(Fault::TooLong { bytes: value.len() as u32 }))
}

fn wrong_number(text: &[u8], most: u128) -> Option<Fault> {
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    if digits.is_empty() || !digits.iter().all(|byte| (b'0'..=b'9').contains(byte)) {
        return Some(Fault::NotANumber);
    }
    let number = str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok()).unwrap_or(u128::MAX);
    (number > most || digits.len() < text.len()).then_some(Fault::OutOfRange)
}
