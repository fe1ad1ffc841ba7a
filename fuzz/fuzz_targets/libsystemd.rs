//! The service manager's variables, read by libsystemd and by this crate: what `sd_listen_fds_with_names(3)`
//! and `sd_watchdog_enabled(3)` answer, this crate answers too.
//!
//! Every difference is one that this crate means, and stands in [`compare`] or [`is_another_number`] with its
//! reason. The library is looked up when the target starts (`libsystemd.so.0`; Debian's package is libsystemd0).
//! Where there is none the target fails at once: it never passes for having compared nothing.
#![no_main]

use arbitrary::Arbitrary;
use gracenet::Variable;
use gracenet::error::{Error, Fault};
use gracenet::internal::{Activation, Variables};
use gracenet::{Launch, notify};
use libfuzzer_sys::fuzz_target;
use libloading::{Library, Symbol};
use std::ffi::{CStr, CString, OsStr, c_char, c_int};
use std::os::unix::ffi::OsStrExt;
use std::sync::LazyLock;
use std::time::Duration;
use std::{env, process, ptr};

#[derive(Arbitrary, Debug)]
struct Input<'d> {
    pid: Value<'d>,
    fds: Value<'d>,
    names: Option<&'d [u8]>,
    watchdog_pid: Value<'d>,
    watchdog_usec: Value<'d>,
}

#[derive(Arbitrary, Debug)]
enum Value<'d> {
    Absent,
    /// So far behind what is right: this process's PID, which no corpus could hold, or how many names there
    /// are.
    Behind(u8),
    Number(u64),
    /// One of those around the largest that a PID or a count can be.
    Limit(u8),
    /// As far as the first NUL.
    Text(&'d [u8]),
}

impl Value<'_> {
    fn bytes(&self, right: usize) -> Option<Vec<u8>> {
        match *self {
            Self::Absent => None,
            Self::Behind(by) => Some(right.saturating_sub(by.into()).to_string().into()),
            Self::Number(number) => Some(number.to_string().into()),
            Self::Limit(which) => Some((0x7fff_fff8 + u32::from(which % 16)).to_string().into()),
            Self::Text(text) => Some(until_nul(text)),
        }
    }
}

fn until_nul(text: &[u8]) -> Vec<u8> {
    text.split(|byte| *byte == 0).next().unwrap_or(text).to_vec()
}

fuzz_target!(init: { LazyLock::force(&LIBSYSTEMD); }, |input: Input<'_>| {
    let pid = process::id() as usize;
    let names = input.names.map(until_nul);
    let count = names.as_ref().map_or(1, |names| names.split(|byte| *byte == b':').count());
    compare_activation(input.pid.bytes(pid), input.fds.bytes(count), names);
    compare_watchdog(input.watchdog_usec.bytes(1), input.watchdog_pid.bytes(pid));
});

fn compare_activation(pid: Option<Vec<u8>>, fds: Option<Vec<u8>>, names: Option<Vec<u8>>) {
    set(Variable::Pid, pid.as_deref());
    set(Variable::Fds, fds.as_deref());
    set(Variable::Names, names.as_deref());
    let theirs = LIBSYSTEMD.listen_fds_with_names();
    if [&pid, &fds].into_iter().flatten().any(|value| is_another_number(value)) {
        return;
    }
    let variables = Variables {
        pid: pid.as_deref(),
        // An older libsystemd knows nothing of it, and does not so much as take it out.
        pidfd_id: None,
        fds: fds.as_deref(),
        names: names.as_deref(),
        ready_fd: None,
    };
    // Without `LISTEN_PID`, libsystemd has no descriptors for anybody: here that has to be asked for, because
    // the Go original sets none.
    let ours = Activation::parse(&variables, true, process::id(), || None);
    compare(&variables, ours, theirs);
}

fn compare(
    variables: &Variables<'_>,
    ours: Result<Activation<'_>, Error>,
    theirs: Result<Vec<Vec<u8>>, i32>,
) {
    // libsystemd takes a backslash for the beginning of an escape, although systemd itself joins the names as
    // they are, so what it reads is not what was written. Here a backslash is a byte like others.
    if variables.names.is_some_and(|names| names.contains(&b'\\')) {
        return;
    }
    let none = matches!(variables.fds, Some(b"" | b"0"));
    match (ours, theirs) {
        // No descriptors are no error here: a manager that leaves the variable says nothing by it.
        (Ok(ours), Err(libc::EINVAL)) if none => assert_eq!(ours.count, 0),
        // Whether they are open is looked at by `Net::inherit`, not by the parser.
        (Ok(Activation { count, .. }), Err(libc::EBADF)) => assert!(!are_open(count)),
        (Err(Error::Variable { variable: Variable::Names, fault }), Err(libc::EBADF)) => match fault {
            Fault::NameCount { fds, .. } => assert!(!are_open(fds as usize)),
            fault => assert!(matches!(fault, Fault::InvalidName { .. })),
        },
        // libsystemd does not look at the names' bytes and lengths; systemd refuses to set such a one.
        (
            Err(Error::Variable { variable: Variable::Names, fault: Fault::InvalidName { position } }),
            Ok(names),
        ) => {
            let name = &names[position as usize];
            assert!(name.len() > 255 || name.iter().any(|byte| !(b' '..=b'~').contains(byte)));
        }
        (Ok(ours), Ok(theirs)) => {
            assert_eq!(ours.count, theirs.len());
            assert!(ours.names().eq(theirs.iter().map(Vec::as_slice)));
        }
        (Err(_), Err(_)) => {}
        (ours, theirs) => panic!("{ours:?} here, {theirs:?} for libsystemd: {variables:?}"),
    }
}

fn compare_watchdog(usec: Option<Vec<u8>>, pid: Option<Vec<u8>>) {
    set(Variable::WatchdogUsec, usec.as_deref());
    set(Variable::WatchdogPid, pid.as_deref());
    let theirs = LIBSYSTEMD.watchdog_enabled();
    if [&pid, &usec].into_iter().flatten().any(|value| is_another_number(value)) {
        return;
    }
    let line = |name: &str, value: Option<Vec<u8>>| {
        Some(CString::new([name.as_bytes(), &value?].concat()).expect("cut at the NUL"))
    };
    let lines = [line("WATCHDOG_USEC=", usec), line("WATCHDOG_PID=", pid)];
    let mut table: Vec<*const c_char> = lines.iter().flatten().map(|line| line.as_ptr()).collect();
    table.push(ptr::null());
    // SAFETY: no arguments, and a table of strings that ends with a null pointer and outlives the launch.
    let launch = unsafe { Launch::<1, 3>::new(0, [ptr::null()].as_ptr(), table.as_ptr()) };
    let ours = notify::watchdog(&launch.expect("room for two variables"));
    match (ours, theirs) {
        (Ok(ours), Ok(theirs)) => assert_eq!(ours, theirs),
        (Err(_), Err(_)) => {}
        (ours, theirs) => panic!("{ours:?} here, {theirs:?} for libsystemd: {lines:?}"),
    }
}

/// Whether libsystemd may read a number that is none here, or another one: it takes leading blanks and a
/// plus, and `0`, `0x`, `0o` and `0b` for a base. Here a number is decimal and has nothing before it.
fn is_another_number(value: &[u8]) -> bool {
    matches!(value, [b' ' | b'\t'..=b'\r' | b'+', ..] | [b'0', _, ..])
}

/// How many descriptors there are, from 3 on.
const OPEN: c_int = 8;

fn are_open(count: usize) -> bool {
    // SAFETY: the call changes nothing.
    (3..).take(count).all(|fd| unsafe { libc::fcntl(fd, libc::F_GETFD) } >= 0)
}

fn set(variable: Variable, value: Option<&[u8]>) {
    match value {
        // SAFETY: there is one thread.
        Some(value) => unsafe { env::set_var(variable.name(), OsStr::from_bytes(value)) },
        // SAFETY: as above.
        None => unsafe { env::remove_var(variable.name()) },
    }
}

type ListenFdsWithNames = unsafe extern "C" fn(c_int, *mut *mut *mut c_char) -> c_int;
type WatchdogEnabled = unsafe extern "C" fn(c_int, *mut u64) -> c_int;

struct Libsystemd {
    listen_fds_with_names: Symbol<'static, ListenFdsWithNames>,
    watchdog_enabled: Symbol<'static, WatchdogEnabled>,
}

static LIBSYSTEMD: LazyLock<Libsystemd> = LazyLock::new(|| {
    for fd in 3..3 + OPEN {
        if !are_open((fd - 2) as usize) {
            // SAFETY: the number is free, and 2 is standard error.
            assert_eq!(unsafe { libc::dup2(2, fd) }, fd);
        }
    }
    set(Variable::PidfdId, None);
    // SAFETY: the library initialises nothing but itself.
    let library = unsafe { Library::new("libsystemd.so.0") };
    let library = library.expect("libsystemd.so.0, without which there is nothing to compare with");
    let library: &'static Library = Box::leak(Box::new(library));
    let symbol = "a function that is older than the library's name";
    Libsystemd {
        // SAFETY: the type is the one of sd-daemon.h.
        listen_fds_with_names: unsafe { library.get(b"sd_listen_fds_with_names\0") }.expect(symbol),
        // SAFETY: as above.
        watchdog_enabled: unsafe { library.get(b"sd_watchdog_enabled\0") }.expect(symbol),
    }
});

impl Libsystemd {
    /// The names, or the errno.
    fn listen_fds_with_names(&self) -> Result<Vec<Vec<u8>>, i32> {
        let mut table = ptr::null_mut();
        // SAFETY: the variables stay set; the table is written if the answer is positive.
        let count = unsafe { (self.listen_fds_with_names)(0, &mut table) };
        let count = usize::try_from(count).map_err(|_| -count)?;
        let names = (0..count).map(|position| {
            // SAFETY: the table has as many strings as the call answered, each allocated.
            let string = unsafe { *table.add(position) };
            // SAFETY: as above.
            let name = unsafe { CStr::from_ptr(string) }.to_bytes().to_vec();
            // SAFETY: as above, and nobody uses it any more.
            unsafe { libc::free(string.cast()) };
            name
        });
        let names = names.collect();
        // SAFETY: as above; null where the answer was 0.
        unsafe { libc::free(table.cast()) };
        Ok(names)
    }

    /// The time, or none; or the errno.
    fn watchdog_enabled(&self) -> Result<Option<Duration>, i32> {
        let mut usec = 0;
        // SAFETY: the variables stay set; the pointer is to this frame.
        match unsafe { (self.watchdog_enabled)(0, &mut usec) } {
            0 => Ok(None),
            1 => Ok(Some(Duration::from_micros(usec))),
            errno => Err(-errno),
        }
    }
}
