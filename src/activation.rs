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
//! The first four are `sd_listen_fds(3)`'s. The fifth is believed only together with a `LISTEN_PID` that is
//! right, because programs that do not know it pass it on to processes it was never meant for.
//!
//! Numbers are decimal, without sign, space or prefix: stricter than libsystemd, which no manager needs.
//! This room makes no system call and copies no name.

use crate::error::{Error, Fault, NameFault, Table, Variable};

/// The number of the first inherited descriptor, `SD_LISTEN_FDS_START`.
#[doc(alias = "SD_LISTEN_FDS_START")]
pub const FIRST_FD: i32 = 3;

/// The name of a descriptor that was given none.
pub const UNKNOWN: &str = "unknown";

/// The longest name, in bytes.
pub const NAME_MAX: usize = 255;

/// The values of the variables as the environment holds them; `None` for one that is not there.
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

/// What the variables grant to one process.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Activation<'e> {
    /// How many descriptors there are, from [`FIRST_FD`] on.
    pub count: usize,
    /// Their names as they stand in `LISTEN_FDNAMES`; `None` if each is [`UNKNOWN`].
    joined: Option<&'e str>,
    /// The number of the readiness socket.
    pub ready_fd: Option<i32>,
}

impl<'e> Activation<'e> {
    /// Reads the variables for the process `pid`; `pidfd_id` is asked for the inode number of its own
    /// pidfd if the variables name one, and answers `None` where the kernel has none.
    ///
    /// Variables that are meant for another process grant nothing, and that is no error, whatever else
    /// they hold. `LISTEN_PID` may be absent, as the seed leaves it, unless `strict`.
    ///
    /// # Errors
    ///
    /// - [`Error::Variable`]: a variable that cannot be read as its rule asks; it names the first such.
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
            Some(value) if count > 0 => Some(names(value, count)?),
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

    /// The names, one for each descriptor, in their order.
    pub fn names(&self) -> impl Iterator<Item = &'e str> + use<'e> {
        let given = self.joined.map(|joined| joined.split(':'));
        given
            .into_iter()
            .flatten()
            .chain(core::iter::repeat_n(UNKNOWN, if self.joined.is_some() { 0 } else { self.count }))
    }
}

/// Checks that `name` can stand in `LISTEN_FDNAMES`: bytes 0x20–0x7E but `:`, at most 255 of them. It may
/// be empty.
///
/// # Errors
///
/// - [`Error::Name`]: what is wrong with it.
pub fn check_name(name: &str) -> Result<(), Error> {
    if name.len() > NAME_MAX {
        return Err(Error::Name(NameFault::TooLong { bytes: name.len() }));
    }
    match name.bytes().find(|byte| !valid_in_name(*byte)) {
        Some(byte) => Err(Error::Name(NameFault::Byte(byte))),
        None => Ok(()),
    }
}

/// The longest line that holds a number: the longest variable's name, `=`, the digits and a NUL.
pub const NUMBER_LINE: usize = 15 + 1 + DIGITS + 1;

/// Renders `NAME=VALUE` and a NUL into `line` and returns how many bytes that took.
///
/// # Errors
///
/// - [`Error::Capacity`]: `line` is too short; [`NUMBER_LINE`] bytes never are.
pub fn render_number(variable: Variable, value: u64, line: &mut [u8]) -> Result<usize, Error> {
    let mut digits = [0; DIGITS];
    let mut line = Line { bytes: line, len: 0 };
    line.append(variable.name().as_bytes())?;
    line.append(b"=")?;
    line.append(decimal(value, &mut digits))?;
    line.append(b"\0")?;
    Ok(line.len)
}

/// How many bytes [`render_names`] takes beside the names and a colon, or the NUL, behind each.
pub const NAMES_PREFIX: usize = "LISTEN_FDNAMES=".len();

/// Renders `LISTEN_FDNAMES=a:b:c` and a NUL into `line` and returns how many bytes that took.
///
/// # Errors
///
/// - [`Error::Capacity`]: `line` is too short.
pub fn render_names<'n>(names: impl Iterator<Item = &'n str>, line: &mut [u8]) -> Result<usize, Error> {
    let mut line = Line { bytes: line, len: 0 };
    line.append(b"LISTEN_FDNAMES=")?;
    for (position, name) in names.enumerate() {
        if position > 0 {
            line.append(b":")?;
        }
        line.append(name.as_bytes())?;
    }
    line.append(b"\0")?;
    Ok(line.len)
}

/// The most digits of a 64-bit number.
pub const DIGITS: usize = 20;

/// Writes `value` in decimal to the end of `digits` and returns that end. Cannot fail or panic, so that it
/// may run between clone and execve.
#[must_use]
pub fn decimal(mut value: u64, digits: &mut [u8; DIGITS]) -> &[u8] {
    let mut rest = digits.len();
    for (position, digit) in digits.iter_mut().enumerate().rev() {
        *digit = b'0' + (value % 10) as u8;
        value /= 10;
        rest = position;
        if value == 0 {
            break;
        }
    }
    digits.get(rest..).unwrap_or(&[])
}

/// A decimal number up to `most`.
fn number(variable: Variable, value: &[u8], most: u64) -> Result<u64, Error> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return Err(variable.fault(match value {
            [b'-', rest @ ..] if !rest.is_empty() && rest.iter().all(u8::is_ascii_digit) => Fault::OutOfRange,
            _ => Fault::NotANumber,
        }));
    }
    value
        .iter()
        .try_fold(0_u64, |sum, digit| sum.checked_mul(10)?.checked_add(u64::from(digit - b'0')))
        .filter(|number| *number <= most)
        .ok_or(variable.fault(Fault::OutOfRange))
}

fn names(value: &[u8], count: usize) -> Result<&str, Error> {
    let found = value.split(|byte| *byte == b':').count();
    if found != count {
        return Err(Variable::Names.fault(Fault::NameCount { names: found, fds: count }));
    }
    let wrong = value
        .split(|byte| *byte == b':')
        .position(|name| name.len() > NAME_MAX || !name.iter().all(|byte| valid_in_name(*byte)));
    if let Some(position) = wrong {
        return Err(Variable::Names.fault(Fault::InvalidName { position }));
    }
    core::str::from_utf8(value).map_err(|_| Variable::Names.fault(Fault::InvalidName { position: 0 }))
}

const fn valid_in_name(byte: u8) -> bool {
    matches!(byte, 0x20..=0x7e) && byte != b':'
}

/// A buffer and how much of it is written.
struct Line<'b> {
    bytes: &'b mut [u8],
    len: usize,
}

impl Line<'_> {
    fn append(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let end = self.len + bytes.len();
        let capacity = self.bytes.len();
        let room = self.bytes.get_mut(self.len..end).ok_or(Error::Capacity {
            table: Table::Names,
            needed: end,
            capacity,
        })?;
        room.copy_from_slice(bytes);
        self.len = end;
        Ok(())
    }
}
