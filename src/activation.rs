//! Socket activation: the `LISTEN_*` variables, parsed and rendered.
//!
//! | variable | holds |
//! |---|---|
//! | `LISTEN_PID` | the PID the descriptors are meant for |
//! | `LISTEN_PIDFDID` | the inode number of that process's pidfd, which no later process shares (Linux 6.9) |
//! | `LISTEN_FDS` | how many descriptors there are, from 3 on |
//! | `LISTEN_FDNAMES` | their names, joined by `:` |
//! | `LISTEN_READY_FD` | this crate's own: the socket on which a successor reports that it is ready |
//!
//! The first four belong to `sd_listen_fds(3)`. The fifth is believed only together with a correct `LISTEN_PID`:
//! programs that ignore it hand it over to processes it was never meant for.
//!
//! Numbers are decimal, without sign, space or prefix. Libsystemd is less strict, but no manager needs that. This
//! module makes no system call and copies no name.

use crate::digits::{DIGITS, decimal, number};
use crate::error::{Error, Fault, NameFault, Table, counted};
use crate::variable::Variable;

/// The number of the first inherited descriptor, `SD_LISTEN_FDS_START`.
#[doc(alias = "SD_LISTEN_FDS_START")]
pub const FIRST_FD: i32 = 3;

/// The name of a descriptor without a name of its own.
pub const UNKNOWN: &str = "unknown";

/// The longest name, in bytes.
pub const NAME_MAX: usize = 255;

/// The values of the variables as the environment holds them; `None` for an absent variable.
#[derive(Clone, Copy, Debug, Default)]
pub struct Variables<'e> {
    /// `LISTEN_PID`
    pub pid: Option<&'e [u8]>,
    /// `LISTEN_PIDFDID`
    pub pidfd_id: Option<&'e [u8]>,
    /// `LISTEN_FDS`
    pub fds: Option<&'e [u8]>,
    /// `LISTEN_FDNAMES`
    pub names: Option<&'e [u8]>,
    /// `LISTEN_READY_FD`
    pub ready_fd: Option<&'e [u8]>,
}

/// The descriptors and names that the variables grant to one process.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Activation<'e> {
    /// How many descriptors there are, from [`FIRST_FD`] on.
    pub count: usize,
    /// Their names as in `LISTEN_FDNAMES`; `None` if each is [`UNKNOWN`].
    joined: Option<&'e [u8]>,
    /// The number of the readiness socket.
    pub ready_fd: Option<i32>,
}

impl<'e> Activation<'e> {
    /// Reads the variables for the process `pid`.
    ///
    /// `pidfd_id` returns the inode number of the process's own pidfd, or `None` if the kernel has none. It is called
    /// only if the variables hold such a number. Variables that are meant for another process grant nothing, whatever
    /// else they hold, and that is not an error. `LISTEN_PID` may be absent, as in Go gracenet, unless `strict`.
    ///
    /// # Errors
    ///
    /// - [`Error::Variable`]: a variable breaks its rule; the error names the first such variable.
    ///
    /// # References
    ///
    /// - `sd_listen_fds(3)`, `sd_listen_fds_with_names(3)`
    #[doc(alias = "sd_listen_fds_with_names")]
    pub fn parse(
        variables: &Variables<'e>,
        strict: bool,
        pid: u32,
        pidfd_id: impl FnOnce() -> Option<u64>,
    ) -> Result<Self, Error> {
        match variables.pid {
            Some(value) => {
                let named = number(Variable::Pid, value, i32::MAX as u64)?;
                if named == 0 {
                    return Err(Variable::Pid.fault(Fault::OutOfRange));
                }
                if named != u64::from(pid) {
                    return Ok(Self::default());
                }
            }
            None if strict => return Ok(Self::default()),
            None => {}
        }
        if let Some(value) = variables.pidfd_id {
            let named = number(Variable::PidfdId, value, u64::MAX)?;
            if pidfd_id().is_some_and(|own| own != named) {
                return Ok(Self::default());
            }
        }
        let count = match variables.fds {
            None | Some(b"") => 0,
            Some(value) => number(Variable::Fds, value, (i32::MAX - FIRST_FD) as u64)? as usize,
        };
        let joined = match variables.names {
            Some(value) if count > 0 => {
                check_names(value, count)?;
                Some(value)
            }
            _ => None,
        };
        let ready_fd = match variables.ready_fd {
            Some(value) if variables.pid.is_some() => {
                Some(number(Variable::ReadyFd, value, i32::MAX as u64)? as i32)
            }
            _ => None,
        };
        Ok(Self { count, joined, ready_fd })
    }

    /// Iterates over the names, one for each descriptor, in their order.
    pub fn names(&self) -> impl Iterator<Item = &'e [u8]> + use<'e> {
        let mut joined = self.joined;
        (0..self.count).map(move |_| {
            let Some(names) = joined else { return UNKNOWN.as_bytes() };
            let end = names.iter().position(|byte| *byte == b':').unwrap_or(names.len());
            joined = names.get(end + 1..);
            names.get(..end).unwrap_or(&[])
        })
    }

    /// Returns whether there are names. Otherwise each is [`UNKNOWN`].
    pub(crate) const fn has_names(&self) -> bool {
        self.joined.is_some()
    }

    /// Returns how many bytes the names need, each with a separator.
    pub(crate) fn names_len(&self) -> usize {
        self.joined.map_or(self.count.saturating_mul(UNKNOWN.len() + 1), |joined| joined.len() + 1)
    }
}

/// Checks that `name` is valid in `LISTEN_FDNAMES`: at most 255 bytes 0x20–0x7E, except `:`. It may be empty.
///
/// # Errors
///
/// - [`Error::Name`]: the name is not valid; the error holds the fault.
pub fn check_name(name: &str) -> Result<(), Error> {
    name_fault(name).map_or(Ok(()), |fault| Err(Error::Name(fault)))
}

/// Returns what makes `name` invalid.
pub(crate) fn name_fault(name: &str) -> Option<NameFault> {
    if name.len() > NAME_MAX {
        return Some(NameFault::TooLong { bytes: counted(name.len()) });
    }
    name.bytes().find(|byte| !valid_in_name(*byte)).map(NameFault::Byte)
}

/// The longest line that holds a number: the longest variable's name, `=`, the digits and a NUL.
pub const NUMBER_LINE: usize = 15 + 1 + DIGITS + 1;

/// Renders `NAME=VALUE` and a NUL into `line`, and returns the number of bytes written.
///
/// # Errors
///
/// - [`Error::Capacity`]: `line` is too short. [`NUMBER_LINE`] bytes are always enough.
pub fn render_number(variable: Variable, value: u64, line: &mut [u8]) -> Result<usize, Error> {
    let mut digits = [0; DIGITS];
    let mut line = Writer { bytes: line, len: 0 };
    line.append(variable.name().as_bytes())?;
    line.append(b"=")?;
    line.append(decimal(value, &mut digits))?;
    line.append(b"\0")?;
    Ok(line.len)
}

/// How many bytes the line of the names needs besides the names and a colon, or the NUL, behind each.
pub(crate) const NAMES_PREFIX: usize = "LISTEN_FDNAMES=".len();

fn check_names(value: &[u8], count: usize) -> Result<(), Error> {
    // A server may have thousands of them: one look at each byte.
    let (mut found, mut len, mut wrong) = (1, 0, None);
    for byte in value {
        match byte {
            b':' => {
                found += 1;
                len = 0;
            }
            _ if len < NAME_MAX && valid_in_name(*byte) => len += 1,
            _ => wrong = wrong.or(Some(found - 1)),
        }
    }
    if found != count {
        return Err(Variable::Names.fault(Fault::NameCount { names: counted(found), fds: counted(count) }));
    }
    if let Some(position) = wrong {
        return Err(Variable::Names.fault(Fault::InvalidName { position: counted(position) }));
    }
    Ok(())
}

const fn valid_in_name(byte: u8) -> bool {
    matches!(byte, 0x20..=0x7e) && byte != b':'
}

/// A buffer and how much of it is written.
struct Writer<'b> {
    bytes: &'b mut [u8],
    len: usize,
}

impl Writer<'_> {
    fn append(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let end = self.len + bytes.len();
        let capacity = self.bytes.len();
        let room = self.bytes.get_mut(self.len..end).ok_or(Error::Capacity {
            table: Table::Names,
            needed: counted(end),
            capacity: counted(capacity),
        })?;
        room.copy_from_slice(bytes);
        self.len = end;
        Ok(())
    }
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
    use super::*;
    use std::string::String;
    use std::vec::Vec;

    const PID: u32 = 42;
    const PIDFD_ID: u64 = 7;

    /// Returns the variables from lines of an environment.
    fn variables<'e>(lines: &[&'e str]) -> Variables<'e> {
        let value = |variable: Variable| {
            let value = |line: &&'e str| line.strip_prefix(variable.name())?.strip_prefix('=');
            lines.iter().find_map(value).map(str::as_bytes)
        };
        Variables {
            pid: value(Variable::Pid),
            pidfd_id: value(Variable::PidfdId),
            fds: value(Variable::Fds),
            names: value(Variable::Names),
            ready_fd: value(Variable::ReadyFd),
        }
    }

    fn parse<'e>(lines: &[&'e str], strict: bool) -> Result<Activation<'e>, Error> {
        Activation::parse(&variables(lines), strict, PID, || Some(PIDFD_ID))
    }

    fn names<'e>(activation: &Activation<'e>) -> Vec<&'e str> {
        activation.names().map(|name| core::str::from_utf8(name).unwrap()).collect()
    }

    #[test]
    fn pid() {
        use Fault::{NotANumber, OutOfRange};
        let granted = |pid: &str, strict| {
            let line = std::format!("LISTEN_PID={pid}");
            parse(&[&line, "LISTEN_FDS=1"], strict).map(|activation| activation.count)
        };
        for (pid, expected) in [
            ("42", Ok(1)),
            ("00042", Ok(1)),
            ("43", Ok(0)),
            ("2147483647", Ok(0)),
            ("2147483648", Err(OutOfRange)),
            ("18446744073709551658", Err(OutOfRange)), // 2^64 + 42
            ("0", Err(OutOfRange)),
            ("-42", Err(OutOfRange)),
            ("", Err(NotANumber)),
            ("-", Err(NotANumber)),
            ("+42", Err(NotANumber)),
            (" 42", Err(NotANumber)),
            ("42 ", Err(NotANumber)),
            ("42\n", Err(NotANumber)),
            ("0x2a", Err(NotANumber)),
            ("٤٢", Err(NotANumber)),
        ] {
            let expected = expected.map_err(|fault| Error::Variable { variable: Variable::Pid, fault });
            assert_eq!(granted(pid, false), expected, "{pid:?}");
            assert_eq!(granted(pid, true), expected, "{pid:?}, strict");
        }
    }

    #[test]
    fn absent_pid_is_accepted_unless_strict() {
        assert_eq!(parse(&["LISTEN_FDS=1"], false).unwrap().count, 1);
        assert_eq!(parse(&["LISTEN_FDS=1"], true), Ok(Activation::default()));
        assert_eq!(parse(&["LISTEN_FDS=nonsense"], true), Ok(Activation::default()));
    }

    #[test]
    fn another_process_gets_nothing_whatever_else_is_there() {
        let rest = ["LISTEN_FDS=x", "LISTEN_FDNAMES=\u{e9}", "LISTEN_READY_FD=x"];
        for meant_for in [&["LISTEN_PID=43", "LISTEN_PIDFDID=x"][..], &["LISTEN_PID=42", "LISTEN_PIDFDID=8"]]
        {
            let lines: Vec<&str> = meant_for.iter().copied().chain(rest).collect();
            assert_eq!(parse(&lines, false), Ok(Activation::default()), "{meant_for:?}");
        }
    }

    #[test]
    fn pidfd_id() {
        use Fault::{NotANumber, OutOfRange};
        for (value, own, expected) in [
            ("7", Some(7), Ok(1)),
            ("8", Some(7), Ok(0)),
            // A kernel that has no such number cannot disagree.
            ("8", None, Ok(1)),
            ("18446744073709551615", Some(u64::MAX), Ok(1)),
            ("18446744073709551616", Some(u64::MAX), Err(OutOfRange)),
            ("99999999999999999999", None, Err(OutOfRange)),
            ("-7", Some(7), Err(OutOfRange)),
            ("", Some(7), Err(NotANumber)),
            ("7a", Some(7), Err(NotANumber)),
        ] {
            let line = std::format!("LISTEN_PIDFDID={value}");
            let lines = [&*line, "LISTEN_FDS=1"];
            let found = Activation::parse(&variables(&lines), false, PID, || own).map(|found| found.count);
            let expected = expected.map_err(|fault| Variable::PidfdId.fault(fault));
            assert_eq!(found, expected, "{value:?} for {own:?}");
        }
    }

    #[test]
    fn own_pidfd_is_asked_for_only_if_a_variable_names_one() {
        let unasked = || panic!("nobody named a pidfd");
        let found = Activation::parse(&variables(&["LISTEN_PID=42", "LISTEN_FDS=1"]), false, PID, unasked);
        assert_eq!(found.unwrap().count, 1);
        let other = variables(&["LISTEN_PID=43", "LISTEN_PIDFDID=7", "LISTEN_FDS=1"]);
        assert_eq!(Activation::parse(&other, false, PID, unasked), Ok(Activation::default()));
    }

    #[test]
    fn fds() {
        use Fault::{NotANumber, OutOfRange};
        assert_eq!(parse(&[], false), Ok(Activation::default()));
        for (value, expected) in [
            ("", Ok(0)),
            ("0", Ok(0)),
            ("1", Ok(1)),
            ("000000000000000000000000000000003", Ok(3)),
            // The last descriptor's number is INT_MAX - 1.
            ("2147483644", Ok(i32::MAX as usize - 3)),
            ("2147483645", Err(OutOfRange)),
            ("4294967297", Err(OutOfRange)),
            ("18446744073709551617", Err(OutOfRange)),
            ("-1", Err(OutOfRange)),
            ("-0", Err(OutOfRange)),
            ("-", Err(NotANumber)),
            ("--1", Err(NotANumber)),
            ("+1", Err(NotANumber)),
            (" 1", Err(NotANumber)),
            ("1 ", Err(NotANumber)),
            ("1.0", Err(NotANumber)),
            ("one", Err(NotANumber)),
        ] {
            let line = std::format!("LISTEN_FDS={value}");
            let found = parse(&[&line], false).map(|activation| activation.count);
            assert_eq!(found, expected.map_err(|fault| Variable::Fds.fault(fault)), "{value:?}");
        }
    }

    #[test]
    fn names_are_one_per_descriptor() {
        use Fault::{InvalidName, NameCount};
        let longest = "n".repeat(NAME_MAX);
        let too_long = "n".repeat(NAME_MAX + 1);
        let behind = std::format!("a:{too_long}");
        for (fds, value, expected) in [
            ("1", "http", Ok(&["http"][..])),
            ("2", "http:admin", Ok(&["http", "admin"])),
            ("2", "http:http", Ok(&["http", "http"])),
            ("1", "", Ok(&[""])),
            ("2", ":", Ok(&["", ""])),
            ("4", ":a::", Ok(&["", "a", "", ""])),
            ("1", " ~!", Ok(&[" ~!"])),
            ("1", &longest, Ok(&[&*longest])),
            ("2", "", Err(NameCount { names: 1, fds: 2 })),
            ("1", "a:b", Err(NameCount { names: 2, fds: 1 })),
            ("3", "a:b", Err(NameCount { names: 2, fds: 3 })),
            ("2147483644", "a", Err(NameCount { names: 1, fds: 2_147_483_644 })),
            ("1", &too_long, Err(InvalidName { position: 0 })),
            ("2", &behind, Err(InvalidName { position: 1 })),
            ("2", "a:b\u{7f}", Err(InvalidName { position: 1 })),
            ("2", "a:\t", Err(InvalidName { position: 1 })),
            ("3", "a:b:é", Err(InvalidName { position: 2 })),
        ] {
            let lines = [&*std::format!("LISTEN_FDS={fds}"), &*std::format!("LISTEN_FDNAMES={value}")];
            match (parse(&lines, false), expected) {
                (Ok(found), Ok(expected)) => assert_eq!(names(&found), expected, "{value:?}"),
                (found, expected) => {
                    assert_eq!(found.unwrap_err(), Variable::Names.fault(expected.unwrap_err()), "{value:?}");
                }
            }
        }
    }

    #[test]
    fn names_that_are_not_text_are_invalid() {
        let variables = Variables { fds: Some(b"1"), names: Some(b"\xff"), ..Variables::default() };
        let found = Activation::parse(&variables, false, PID, || None);
        assert_eq!(found, Err(Variable::Names.fault(Fault::InvalidName { position: 0 })));
    }

    #[test]
    fn without_names_each_is_unknown() {
        let found = parse(&["LISTEN_FDS=3"], false).unwrap();
        assert_eq!(names(&found), [UNKNOWN; 3]);
    }

    #[test]
    fn names_of_no_descriptor_are_not_read() {
        for fds in ["LISTEN_FDS=0", "LISTEN_FDS=", "NOTHING=1"] {
            let found = parse(&[fds, "LISTEN_FDNAMES=a:\u{e9}"], false).unwrap();
            assert_eq!((found.count, names(&found)), (0, Vec::new()), "{fds}");
        }
    }

    #[test]
    fn ready_fd() {
        use Fault::{NotANumber, OutOfRange};
        for (value, expected) in [
            ("5", Ok(Some(5))),
            ("2147483647", Ok(Some(i32::MAX))),
            ("2147483648", Err(OutOfRange)),
            ("-1", Err(OutOfRange)),
            ("", Err(NotANumber)),
            ("x", Err(NotANumber)),
        ] {
            let line = std::format!("LISTEN_READY_FD={value}");
            let found = parse(&["LISTEN_PID=42", &line], false).map(|found| found.ready_fd);
            assert_eq!(found, expected.map_err(|fault| Variable::ReadyFd.fault(fault)), "{value:?}");
            // Without a PID, it is unclear which process the variables were meant for.
            assert_eq!(parse(&[&line], false), Ok(Activation::default()), "{value:?} without a PID");
            assert_eq!(parse(&["LISTEN_PID=43", &line], false), Ok(Activation::default()), "{value:?}");
        }
        assert_eq!(parse(&["LISTEN_PID=42"], false).unwrap().ready_fd, None);
    }

    #[test]
    fn the_first_fault_is_named() {
        let wrong =
            ["LISTEN_PID=x", "LISTEN_PIDFDID=x", "LISTEN_FDS=x", "LISTEN_FDNAMES=\t", "LISTEN_READY_FD=x"];
        let right = ["LISTEN_PID=42", "LISTEN_PIDFDID=7", "LISTEN_FDS=1", "LISTEN_FDNAMES=a"];
        for (position, variable) in Variable::ACTIVATION.into_iter().enumerate() {
            let lines: Vec<&str> = right[..position].iter().chain(&wrong[position..]).copied().collect();
            match parse(&lines, false) {
                Err(Error::Variable { variable: named, .. }) => assert_eq!(named, variable),
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn check_name_takes_printable_ascii_but_colons() {
        for byte in 0..=0x7f_u8 {
            let mut name = String::from("a");
            name.push(byte.into());
            let expected = match byte {
                0x20..=0x39 | 0x3b..=0x7e => Ok(()),
                _ => Err(Error::Name(NameFault::Byte(byte))),
            };
            assert_eq!(check_name(&name), expected, "{byte:#04x}");
        }
        assert_eq!(check_name(""), Ok(()));
        assert_eq!(check_name("é"), Err(Error::Name(NameFault::Byte(0xc3))));
        assert_eq!(check_name(&"n".repeat(255)), Ok(()));
        assert_eq!(check_name(&"n".repeat(256)), Err(Error::Name(NameFault::TooLong { bytes: 256 })));
    }

    #[test]
    fn a_number_fits_its_line() {
        for variable in Variable::ACTIVATION {
            let mut line = [0xff; NUMBER_LINE];
            let len = render_number(variable, u64::MAX, &mut line).unwrap();
            let expected = std::format!("{}=18446744073709551615\0", variable.name());
            assert_eq!(&line[..len], expected.as_bytes());
            for room in 0..len {
                let short = render_number(variable, u64::MAX, &mut line[..room]);
                assert!(
                    matches!(short, Err(Error::Capacity { table: Table::Names, needed, capacity })
                        if capacity == counted(room) && needed > capacity),
                    "{short:?}"
                );
            }
        }
        let longest = Variable::ACTIVATION.map(|variable| variable.name().len()).into_iter().max();
        assert_eq!(longest.map(|name| name + 1 + DIGITS + 1), Some(NUMBER_LINE));
    }
}
