//! Adoption: the numbers that the environment promises become owned descriptors.
//!
//! This is all or nothing. Every number is inspected before one is owned, and until then nothing is changed or
//! closed. Here an integer turns into an `OwnedFd`, which no safe function can do. The caller of
//! [`Net::inherit`](crate::Net::inherit) promises that nothing else owns the number.
#![allow(unsafe_code)]

use crate::activation::{Activation, NAMES_PREFIX, Variables};
use crate::address::family;
use crate::cstr::CStrPtr;
use crate::error::{Error, Fault, Operation, Table, counted};
use crate::listener;
use crate::names::{self, Name};
use crate::predecessor::Predecessor;
use crate::sys::{self, SocketName};
use crate::table::{Inherited, InheritedTable};
use crate::variable::Variable;
use heapless::VecView;
use rustix::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use rustix::io::{Errno, FdFlags};
use rustix::net::AddressFamily;

/// The descriptors and processes that came with the sockets.
#[derive(Debug)]
pub(crate) struct Adopted {
    pub(crate) readiness: Option<OwnedFd>,
    pub(crate) predecessor: Option<Predecessor>,
}

/// Returns the activation variables of a table of variables.
///
/// # Safety
///
/// - The strings stay where they are, unchanged, for `'s`.
pub(crate) unsafe fn variables<'s>(table: &VecView<Option<CStrPtr>>) -> Variables<'s> {
    let value = |variable: Variable| {
        let name = variable.name().as_bytes();
        let string = crate::environ::find(table, name)?.behind(name.len() + 1)?;
        // SAFETY: the caller's promise.
        Some(unsafe { string.detach() })
    };
    Variables {
        pid: value(Variable::Pid),
        pidfd_id: value(Variable::PidfdId),
        fds: value(Variable::Fds),
        names: value(Variable::Names),
        ready_fd: value(Variable::ReadyFd),
    }
}

/// Takes ownership of the descriptors `first..first + activation.count` and of the readiness socket, and sets
/// `FD_CLOEXEC` on all of them.
///
/// `own_fd` is the descriptor that this crate opened since the process started. A descriptor on that number was not
/// inherited.
///
/// # Safety
///
/// - Nothing else owns the descriptors: the process has just started, and adopts them once.
pub(crate) unsafe fn adopt<const N: usize>(
    activation: &Activation<'_>,
    first: RawFd,
    listeners_only: bool,
    own_fd: Option<RawFd>,
    table: &mut InheritedTable<N>,
) -> Result<Adopted, Error> {
    if activation.count > N {
        return Err(Error::Capacity {
            table: Table::Inherited,
            needed: counted(activation.count),
            capacity: counted(N),
        });
    }
    // All names must fit, so that each socket can be claimed under its name, and handed over.
    let (needed, capacity) = (NAMES_PREFIX + activation.names_len(), names::capacity(N));
    if needed > capacity {
        return Err(Error::Capacity {
            table: Table::Names,
            needed: counted(needed),
            capacity: counted(capacity),
        });
    }
    if first < 0 || first.checked_add(activation.count as RawFd).is_none() {
        return Err(Error::NotOpen { fd: first });
    }
    // SAFETY: the caller's promise.
    let adopted = unsafe { inspect(activation, first, listeners_only, own_fd, table) }
        // SAFETY: as above; each of the numbers was found open.
        .and_then(|predecessor| unsafe { own(activation, first, table, predecessor) });
    if adopted.is_err() {
        table.clear();
    }
    adopted
}

/// Inspects every descriptor: fills the table with what they are, and owns none.
///
/// # Safety
///
/// - As for [`adopt`].
unsafe fn inspect<const N: usize>(
    activation: &Activation<'_>,
    first: RawFd,
    listeners_only: bool,
    own_fd: Option<RawFd>,
    table: &mut InheritedTable<N>,
) -> Result<Option<Predecessor>, Error> {
    // Whether all sockets so far are listeners. While they are, each is asked for it here and not when it is claimed.
    // A second call on a socket costs half as much while the kernel's data of it is in the caches.
    let mut all_listen = true;
    for (fd, name) in (first..=RawFd::MAX).zip(activation.names()) {
        if own_fd == Some(fd) {
            return Err(Error::NotOpen { fd });
        }
        // SAFETY: if the number is open, it is open for the process, and nothing closes it meanwhile; if not, the
        // first call on it fails.
        let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
        let key = match listener::own_key(borrowed) {
            Ok(key) => key,
            // The number is not open, or open with O_PATH.
            Err(Errno::BADF) if rustix::io::fcntl_getfd(borrowed).is_err() => {
                return Err(Error::NotOpen { fd });
            }
            Err(_) => None,
        };
        let listens = (listeners_only || all_listen && key.is_some()) && listener::is_listener(borrowed);
        if listeners_only && !listens {
            return Err(Error::NotAListener { fd });
        }
        all_listen &= listens || key.is_none();
        // A socket that does not listen yet may listen when it is claimed.
        let listening = listens.then_some(true);
        let slot = Inherited { fd: None, name: Name::UNKNOWN, key, listening, kind: None, v6only: None };
        // The count was compared with the capacity.
        let _full = table.push(slot, activation.has_names().then_some(name));
    }
    let Some(fd) = activation.ready_fd else {
        return Ok(None);
    };
    let sockets = first..first.saturating_add(activation.count as RawFd);
    if fd < 3 || sockets.contains(&fd) {
        return Err(Variable::ReadyFd.fault(Fault::OutOfRange));
    }
    if own_fd == Some(fd) {
        return Err(Error::NotOpen { fd });
    }
    // SAFETY: as above.
    let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
    match SocketName::new().ask(borrowed).map(family) {
        Ok(Some((AddressFamily::UNIX, _))) => match Predecessor::of(borrowed) {
            // A seccomp filter refuses the pidfd. The predecessor is there, but cannot be distinguished from another
            // process.
            Err(error) if matches!(error.errno(), Some(Errno::NOSYS | Errno::PERM)) => Ok(None),
            other => other,
        },
        Err(Errno::BADF) => Err(Error::NotOpen { fd }),
        _ => Err(Variable::ReadyFd.fault(Fault::NotASocket)),
    }
}

/// Makes the descriptors this process's own.
///
/// # Safety
///
/// - As for [`adopt`], and [`inspect`] has just found all of them open.
unsafe fn own<const N: usize>(
    activation: &Activation<'_>,
    first: RawFd,
    table: &mut InheritedTable<N>,
    predecessor: Option<Predecessor>,
) -> Result<Adopted, Error> {
    let sockets = first..first.saturating_add(activation.count as RawFd);
    let (range, single) = match activation.ready_fd {
        Some(fd) if fd == sockets.end => (first..fd.saturating_add(1), None),
        other => (sockets, other),
    };
    set_cloexec(range)?;
    set_cloexec(single.map_or(0..0, |fd| fd..fd.saturating_add(1)))?;
    for (fd, slot) in (first..=RawFd::MAX).zip(table.view().slots.iter_mut()) {
        // SAFETY: the number is open, and the caller promised that nothing else owns it.
        slot.fd = Some(unsafe { OwnedFd::from_raw_fd(fd) });
    }
    table.index();
    Ok(Adopted {
        // SAFETY: as above, and it is not among the others.
        readiness: activation.ready_fd.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }),
        predecessor,
    })
}

/// Sets `FD_CLOEXEC` on a range with one call, or one by one if the kernel has no such call.
fn set_cloexec(range: core::ops::Range<RawFd>) -> Result<(), Error> {
    if range.is_empty() {
        return Ok(());
    }
    match sys::set_cloexec(range.start, range.end - 1) {
        Ok(()) => Ok(()),
        Err(Errno::NOSYS | Errno::INVAL | Errno::PERM) => set_cloexec_each(range),
        Err(errno) => Err(Error::call(Operation::CloseRange, errno)),
    }
}

#[cold]
#[inline(never)]
fn set_cloexec_each(mut range: core::ops::Range<RawFd>) -> Result<(), Error> {
    range.try_for_each(|fd| {
        // SAFETY: the numbers were found open.
        close_on_exec(unsafe { BorrowedFd::borrow_raw(fd) })
    })
}

/// Sets `FD_CLOEXEC` on a descriptor.
pub(crate) fn close_on_exec(fd: BorrowedFd<'_>) -> Result<(), Error> {
    rustix::io::fcntl_setfd(fd, FdFlags::CLOEXEC)
        .map_err(|errno| Error::call_on(Operation::Fcntl, fd.as_raw_fd(), errno))
}
