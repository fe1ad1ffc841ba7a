//! The values of `WATCHDOG_USEC` and `WATCHDOG_PID`: how often the service manager expects a message from this
//! process. This module makes no system call.

use crate::digits::number;
use crate::error::{Error, Fault};
use crate::variable::Variable;
use core::time::Duration;

/// Returns the time within which a message must be sent, if the watchdog is on for the process `own`.
///
/// # Errors
///
/// - [`Error::Variable`]: one of the variables cannot be read.
pub(super) fn parse(usec: Option<&[u8]>, pid: Option<&[u8]>, own: u32) -> Result<Option<Duration>, Error> {
    let Some(usec) = usec else {
        return Ok(None);
    };
    // 0 and the largest number, which is "for ever", are not times.
    let usec = match number(Variable::WatchdogUsec, usec, u64::MAX - 1)? {
        0 => return Err(Variable::WatchdogUsec.fault(Fault::OutOfRange)),
        usec => usec,
    };
    if let Some(pid) = pid {
        match number(Variable::WatchdogPid, pid, i32::MAX as u64)? {
            0 => return Err(Variable::WatchdogPid.fault(Fault::OutOfRange)),
            pid if pid != own.into() => return Ok(None),
            _ => {}
        }
    }
    Ok(Some(Duration::from_micros(usec)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_on_for_this_process_alone() {
        let usec = |fault| Err(Variable::WatchdogUsec.fault(fault));
        let pid = |fault| Err(Variable::WatchdogPid.fault(fault));
        for (usec_value, pid_value, expected) in [
            (None, None, Ok(None)),
            (None, Some(&b"x"[..]), Ok(None)),
            (Some(&b"3000000"[..]), None, Ok(Some(Duration::from_secs(3)))),
            (Some(b"1"), Some(b"7"), Ok(Some(Duration::from_micros(1)))),
            (Some(b"1"), Some(b"8"), Ok(None)),
            (Some(b"18446744073709551614"), None, Ok(Some(Duration::from_micros(u64::MAX - 1)))),
            (Some(b"0"), Some(b"8"), usec(Fault::OutOfRange)),
            (Some(b"18446744073709551615"), None, usec(Fault::OutOfRange)),
            (Some(b"18446744073709551616"), None, usec(Fault::OutOfRange)),
            (Some(b""), None, usec(Fault::NotANumber)),
            (Some(b"-1"), None, usec(Fault::OutOfRange)),
            (Some(b"3s"), None, usec(Fault::NotANumber)),
            (Some(b"1"), Some(b""), pid(Fault::NotANumber)),
            (Some(b"1"), Some(b"0"), pid(Fault::OutOfRange)),
            (Some(b"1"), Some(b"2147483648"), pid(Fault::OutOfRange)),
            (Some(b"1"), Some(b" 7"), pid(Fault::NotANumber)),
        ] {
            assert_eq!(parse(usec_value, pid_value, 7), expected);
        }
    }
}
