//! Error messages: each tells its error from every other one, on one line that any terminal or log can take.
#![no_main]

use arbitrary::Arbitrary;
use gracenet::Error;
use gracenet::Variable;
use gracenet::error::{AddressFault, Fault, MessageFault, NameFault, Operation, Table, Word};
use libfuzzer_sys::fuzz_target;
use rustix::io::Errno;
use std::collections::HashSet;

#[derive(Arbitrary, Debug)]
enum Choice<'d> {
    Call { call: u8, fd: Option<u16>, errno: u16 },
    Capacity { table: u8, needed: u16, capacity: u16 },
    Variable { variable: u8, fault: u8, number: u16, other: u16 },
    Fd { listener: bool, fd: u16 },
    UnknownNetwork(&'d str),
    Address { fault: u8, bytes: u16 },
    Name(NameChoice),
    Message { position: u8, fault: u8, number: u8, name: NameChoice },
    Killed { signal: u8 },
    InvalidChange { position: u8 },
    Plain(u8),
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum NameChoice {
    TooLong(u16),
    Byte(u8),
}

const OPERATIONS: [Operation; 39] = [
    Operation::Barrier,
    Operation::Bind,
    Operation::Chdir,
    Operation::Chmod,
    Operation::Clone,
    Operation::CloseRange,
    Operation::Configure,
    Operation::Connect,
    Operation::Dup,
    Operation::Execve,
    Operation::Fcntl,
    Operation::Fstat,
    Operation::Fstatfs,
    Operation::Getsockname,
    Operation::Getsockopt,
    Operation::InterfaceIndex,
    Operation::Kill,
    Operation::Listen,
    Operation::Mmap,
    Operation::OpenDirectory,
    Operation::OpenNull,
    Operation::PidfdOpen,
    Operation::Pipe,
    Operation::Poll,
    Operation::Prctl,
    Operation::ReadSignal,
    Operation::ReadStat,
    Operation::Recv,
    Operation::Send,
    Operation::Setsockopt,
    Operation::Shutdown,
    Operation::Signalfd,
    Operation::Sigprocmask,
    Operation::Socket,
    Operation::Socketpair,
    Operation::Stat,
    Operation::Unlink,
    Operation::Waitid,
    Operation::Watch,
];

const TABLES: [Table; 6] =
    [Table::Arguments, Table::Variables, Table::Changes, Table::Inherited, Table::Active, Table::Names];

const ADDRESS_FAULTS: [AddressFault; 13] = [
    AddressFault::MissingPort,
    AddressFault::PortSign,
    AddressFault::PortNotANumber,
    AddressFault::PortOutOfRange,
    AddressFault::Space,
    AddressFault::Nul,
    AddressFault::Ipv4,
    AddressFault::Ipv6,
    AddressFault::Bracket,
    AddressFault::Zone,
    AddressFault::Host,
    AddressFault::Family,
    AddressFault::Empty,
];

const PLAIN: [Error; 14] = [
    Error::AlreadyBegun,
    Error::Forked,
    Error::NotReported,
    Error::AlreadyInherited,
    Error::NotInherited,
    Error::StaleId,
    Error::NoPath,
    Error::HandedOver,
    Error::GivenUp,
    Error::Untrusted,
    Error::InFlight,
    Error::NoArguments,
    Error::RelativePath,
    Error::Message { position: 0, fault: MessageFault::Empty },
];

fn pick<T: Copy>(all: &[T], which: u8) -> T {
    all[usize::from(which) % all.len()]
}

impl NameChoice {
    fn fault(self) -> NameFault {
        match self {
            Self::TooLong(bytes) => NameFault::TooLong { bytes: bytes.into() },
            Self::Byte(byte) => NameFault::Byte(byte),
        }
    }
}

impl Choice<'_> {
    fn error(&self) -> Error {
        match *self {
            Self::Call { call, fd, errno } => Error::Call {
                operation: pick(&OPERATIONS, call),
                fd: fd.map(i32::from),
                errno: Errno::from_raw_os_error(i32::from(errno % 4095) + 1),
            },
            Self::Capacity { table, needed, capacity } => Error::Capacity {
                table: pick(&TABLES, table),
                needed: needed.into(),
                capacity: capacity.into(),
            },
            Self::Variable { variable, fault, number, other } => Error::Variable {
                variable: match pick(&[true, false], variable) {
                    true => pick(&Variable::ACTIVATION, variable / 2),
                    false => pick(&Variable::NOTIFICATION, variable / 2),
                },
                fault: match fault % 7 {
                    0 => Fault::NotANumber,
                    1 => Fault::OutOfRange,
                    2 => Fault::NameCount { names: number.into(), fds: other.into() },
                    3 => Fault::InvalidName { position: number.into() },
                    4 => Fault::NotASocket,
                    5 => Fault::NotAnAddress,
                    _ => Fault::TooLong { bytes: number.into() },
                },
            },
            Self::Fd { listener: true, fd } => Error::NotAListener { fd: fd.into() },
            Self::Fd { listener: false, fd } => Error::NotOpen { fd: fd.into() },
            Self::UnknownNetwork(name) => Error::UnknownNetwork(word(name)),
            Self::Address { fault, bytes } => Error::Address(match fault {
                0 => AddressFault::PathTooLong { bytes: bytes.into() },
                fault => pick(&ADDRESS_FAULTS, fault),
            }),
            Self::Name(name) => Error::Name(name.fault()),
            Self::Message { position, fault, number, name } => Error::Message {
                position: position.into(),
                fault: match fault % 11 {
                    0 => MessageFault::Byte(number),
                    1 => MessageFault::Name(name.fault()),
                    2 => MessageFault::Key,
                    3 => MessageFault::OutOfRange,
                    4 => MessageFault::TooLong,
                    5 => MessageFault::TooManyFds { fds: number.into() },
                    6 => MessageFault::Fds { fds: number.into() },
                    7 => MessageFault::Repeated,
                    8 => MessageFault::NoName,
                    9 => MessageFault::NotTogether,
                    _ => MessageFault::Vsock,
                },
            },
            Self::Killed { signal } => Error::Killed { signal: signal.into() },
            Self::InvalidChange { position } => Error::InvalidChange { position: position.into() },
            Self::Plain(which) => pick(&PLAIN, which),
        }
    }
}

/// A word keeps what fits of a name, and never half a character.
fn word(name: &str) -> Word {
    let word = Word::new(name);
    assert!(name.starts_with(word.as_str()));
    match name[word.as_str().len()..].chars().next() {
        Some(next) => assert!(word.as_str().len() + next.len_utf8() > 15),
        None => assert!(name.len() <= 15),
    }
    assert_eq!(format!("{word:?}"), format!("{:?}", word.as_str()));
    let ascii = name.find(|letter: char| !letter.is_ascii()).map_or(name, |end| &name[..end]);
    assert_eq!(Word::ascii(name.as_bytes()), Word::new(ascii));
    word
}

/// What there is a list of is gone through once: no branch of a table of words shows in the coverage that guides
/// the fuzzer.
fn check_words() {
    let (operation, errno) = (Operation::Bind, Errno::NOENT);
    let operations = OPERATIONS.map(|operation| Error::Call { operation, fd: None, errno });
    let errnos = (1..4096).map(|errno| Errno::from_raw_os_error(errno));
    let errnos = errnos.map(|errno| Error::Call { operation, fd: None, errno });
    let tables = TABLES.map(|table| Error::Capacity { table, needed: 2, capacity: 1 });
    let variables = Variable::ACTIVATION.into_iter().chain(Variable::NOTIFICATION);
    let variables = variables.map(|variable| Error::Variable { variable, fault: Fault::OutOfRange });
    let addresses = ADDRESS_FAULTS.map(Error::Address);
    let errors = operations.into_iter().chain(errnos).chain(tables).chain(variables).chain(addresses);
    // One call with one errno is in both lists.
    let texts: HashSet<String> = errors.map(|error| error.to_string()).collect();
    assert_eq!(texts.len(), OPERATIONS.len() + 4095 - 1 + 6 + 8 + 13);
}

fuzz_target!(init: check_words(), |input: (Choice<'_>, Choice<'_>)| {
    let [a, b] = [input.0.error(), input.1.error()];
    let [a_text, b_text] = [a, b].map(|error| error.to_string());
    for (error, text) in [(a, &a_text), (b, &b_text)] {
        assert!(!text.is_empty() && !text.contains(char::is_control), "{text:?}");
        assert!(text.len() < 160, "{text:?}");
        let errno = if let Error::Call { errno, .. } = error { Some(errno) } else { None };
        assert_eq!(error.errno(), errno);
        let io = std::io::Error::from(error);
        assert_eq!(io.raw_os_error(), errno.map(|errno| errno.raw_os_error()));
        assert!(errno.is_some() || io.to_string() == *text);
    }
    // How long a path is does not show: only that it is too long.
    let too_long = |error| matches!(error, Error::Address(AddressFault::PathTooLong { .. }));
    assert_eq!(a == b || too_long(a) && too_long(b), a_text == b_text, "{a_text:?} {b_text:?}");
    let [a_debug, b_debug] = [a, b].map(|error| format!("{error:?}"));
    assert_eq!(a == b, a_debug == b_debug, "{a_debug} {b_debug}");
});
