//! A message to the service manager, as text: an assignment a line, as sd_notify(3) has them.

use crate::error::Last;
use core::time::Duration;
use gracenet::notify::{Access, Assignment};
use rustix::io::Errno;
use rustix::process::Pid;

/// How many assignments a message holds at most.
const MOST: usize = 16;

/// Reads the assignments, and has them sent.
pub(crate) fn read<T>(
    text: &str,
    send: impl FnOnce(&[Assignment<'_>]) -> Result<T, Last>,
) -> Result<T, Last> {
    let mut assignments = [Assignment::Ready; MOST];
    let mut count = 0;
    for line in text.split('\n') {
        // Goes with RELOADING=1, which is sent with a time of its own.
        if line.is_empty() || line.starts_with("MONOTONIC_USEC=") {
            continue;
        }
        *assignments.get_mut(count).ok_or(Last::Argument)? = assignment(line).ok_or(Last::Argument)?;
        count += 1;
    }
    send(assignments.get(..count).unwrap_or(&[]))
}

/// What a line says; `None` if that is nothing that this process says without a descriptor.
fn assignment(line: &str) -> Option<Assignment<'_>> {
    let (key, value) = line.split_once('=')?;
    let microseconds = || number(value).map(Duration::from_micros);
    Some(match (key, value) {
        ("READY", "1") => Assignment::Ready,
        ("RELOADING", "1") => Assignment::Reloading,
        ("STOPPING", "1") => Assignment::Stopping,
        ("STATUS", _) => Assignment::Status(value),
        ("ERRNO", _) => Assignment::Errno(Errno::from_raw_os_error(small(value, 4095)?)),
        ("BUSERROR", _) => Assignment::BusError(value),
        ("VARLINKERROR", _) => Assignment::VarlinkError(value),
        ("EXIT_STATUS", _) => Assignment::ExitStatus(number(value)?.try_into().ok()?),
        ("MAINPID", _) => Assignment::MainPid(Pid::from_raw(small(value, i32::MAX as u64)?)?),
        ("MAINPIDFDID", _) => Assignment::MainPidfdId(number(value)?),
        ("NOTIFYACCESS", "none") => Assignment::NotifyAccess(Access::None),
        ("NOTIFYACCESS", "main") => Assignment::NotifyAccess(Access::Main),
        ("NOTIFYACCESS", "exec") => Assignment::NotifyAccess(Access::Exec),
        ("NOTIFYACCESS", "all") => Assignment::NotifyAccess(Access::All),
        ("WATCHDOG", "1") => Assignment::Watchdog,
        ("WATCHDOG", "trigger") => Assignment::WatchdogTrigger,
        ("WATCHDOG_USEC", _) => Assignment::WatchdogTimeout(microseconds()?),
        ("EXTEND_TIMEOUT_USEC", _) => Assignment::ExtendTimeout(microseconds()?),
        ("RESTART_RESET", "1") => Assignment::RestartReset,
        ("FDSTOREREMOVE", "1") => Assignment::FdStoreRemove,
        ("FDNAME", _) => Assignment::FdName(value),
        _ if key.starts_with("X_") => Assignment::Private { key, value },
        _ => return None,
    })
}

/// A number without a sign.
fn number(digits: &str) -> Option<u64> {
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
}

/// A number from 1 to `most`, which an `i32` holds.
fn small(digits: &str, most: u64) -> Option<i32> {
    number(digits).filter(|number| (1..=most).contains(number))?.try_into().ok()
}
