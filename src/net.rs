//! The tables and their verbs: [`Net`] holds the inherited and the active sockets and hands them to the next process.
//!
//! This module moves slots between the two tables and asks the other modules for everything else. It makes no system
//! call of its own.

use crate::activation::{Activation, FIRST_FD, UNKNOWN, check_name};
use crate::address::Endpoint;
use crate::debt::Owed;
use crate::error::{Error, Operation};
use crate::inherit;
use crate::launch::Launch;
use crate::listener::{self, Description, ListenOptions, Wanted};
use crate::names;
use crate::pidfd;
use crate::placement::Source;
use crate::table::{Active, ActiveTable, InheritedTable, SocketId};
use core::fmt;
use heapless::{Vec, VecView};
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use rustix::process::getpid;

/// The sockets of a server: inherited, claimed or opened, and handed over.
///
/// A server with an event loop is easier to write on a [`Service`](crate::Service), which holds a `Net`. The methods
/// in the order in which they are called:
///
/// 1. [`Net::inherit`] adopts the descriptors that a service manager or a predecessor hands over. Call it first in
///    `main`.
/// 2. [`Net::listen`] and its variants claim an inherited socket or open a fresh one.
/// 3. [`Net::ready`] reports that this process is ready; [`Net::refuse`] reports that it cannot serve. Accept after
///    that.
/// 4. [`Net::spawn`] starts a successor, and [`Net::exec`] replaces the program in place.
/// 5. Dropping the `Net` closes everything it holds.
///
/// ```no_run
/// use gracenet::{Launch, Net, Progress, Restart};
/// use std::time::Duration;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// // SAFETY: first thing in main; nothing else owns the descriptors or changes the environment.
/// let mut launch: Launch = unsafe { Launch::from_libc() }?;
/// let mut net = Net::<16>::new();
/// unsafe { net.inherit(&mut launch) }?;
/// let http = net.listen("tcp", "127.0.0.1:8080")?;
/// net.ready()?;
/// let listener = std::net::TcpListener::from(net.try_clone(http)?);
/// // Accept, until it is time to restart.
/// match net.hand_over(&mut launch, &Restart::new(), Duration::from_secs(30)) {
///     Ok(Progress::Ready) => println!("the successor serves: drain, and exit"),
///     Ok(progress) => println!("in flight still: {progress:?}"),
///     Err(failure) => println!("restart failed: {failure}"),
/// }
/// # Ok(())
/// # }
/// ```
///
/// # Memory
///
/// `N` is the capacity of both tables: at most `N` descriptors are inherited, and at most `N` are active. Nothing is
/// allocated. A `Net` is at most `152 * N + 1176` bytes large on a 64-bit machine, and touches only the part of them
/// that holds something. [`Net::new`] is all zeros, so a static uses no space in the program's file. A restart uses
/// 10 KiB of stack, and 26 KiB without optimisation.
#[derive(Debug)]
#[doc(alias = "gracenet")]
pub struct Net<const N: usize> {
    pub(crate) inherited: InheritedTable<N>,
    pub(crate) active: ActiveTable<N>,
    /// The descriptors of a restart, here and not on the stack: pages that are not touched cost nothing.
    pub(crate) sources: Vec<Source, N>,
    state: State,
    /// What this process owes to its predecessor and to its successor.
    pub(crate) owed: Owed,
}

/// Whether [`Net::inherit_with`] was called, and how it ended. `Fresh` is zero for the reason that
/// [`Slot`](crate::slot::Slot) has.
#[repr(u8)]
#[derive(Clone, Copy, Debug)]
enum State {
    Fresh = 0,
    Inherited = 1,
    Failed(Error) = 2,
}

/// How [`Net::inherit_with`] reads the activation variables.
#[derive(Clone, Copy, Debug)]
pub struct InheritOptions {
    strict: bool,
    keep: bool,
    listeners_only: bool,
    trust_privileged_start: bool,
    first_fd: RawFd,
}

impl Default for InheritOptions {
    fn default() -> Self {
        Self::new()
    }
}

impl InheritOptions {
    /// Returns the default: `LISTEN_PID` may be absent, the variables are consumed, and any descriptor from 3 on is
    /// inherited.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            strict: false,
            keep: false,
            listeners_only: false,
            trust_privileged_start: false,
            first_fd: FIRST_FD,
        }
    }

    /// Inherits nothing without `LISTEN_PID`, as libsystemd does. Go gracenet does not set `LISTEN_PID`.
    #[must_use]
    pub const fn strict(mut self, strict: bool) -> Self {
        self.strict = strict;
        self
    }

    /// Leaves the variables in the launch's table. A later [`Net::spawn`] rewrites the variables nevertheless.
    #[must_use]
    pub const fn keep(mut self, keep: bool) -> Self {
        self.keep = keep;
        self
    }

    /// Believes the variables of a privileged start too, as libsystemd does. Use this in a program with file
    /// capabilities that only a service manager starts.
    ///
    /// A start is privileged if it gave the program more rights than its starter has. Set-user-ID bits, file
    /// capabilities and security modules can do that: see [`Launch::is_privileged`].
    #[must_use]
    pub const fn trust_privileged_start(mut self, trust_privileged_start: bool) -> Self {
        self.trust_privileged_start = trust_privileged_start;
        self
    }

    /// Treats an inherited descriptor that is not a listener as an error, as Go gracenet does.
    #[must_use]
    pub const fn listeners_only(mut self, listeners_only: bool) -> Self {
        self.listeners_only = listeners_only;
        self
    }

    /// Counts the inherited descriptors from this number instead of 3. For tests, which use descriptor 3 otherwise.
    #[must_use]
    pub const fn first_fd(mut self, first_fd: RawFd) -> Self {
        self.first_fd = first_fd;
        self
    }
}

/// A socket or other descriptor in one of the tables.
#[derive(Clone, Copy, Debug)]
pub struct SocketRef<'n> {
    name: &'n str,
    fd: BorrowedFd<'n>,
}

impl<'n> SocketRef<'n> {
    /// Returns the name of the descriptor, or `unknown` if it has no name.
    #[must_use]
    pub const fn name(&self) -> &'n str {
        self.name
    }

    /// Returns the descriptor, for as long as the [`Net`] is borrowed.
    #[must_use]
    pub const fn fd(&self) -> BorrowedFd<'n> {
        self.fd
    }

    /// Asks the kernel for the socket's family, type and address. Returns `None` if the descriptor is not a socket.
    ///
    /// # Errors
    ///
    /// - [`Error::Call`]: getsockname(2) or getsockopt(2) failed.
    pub fn describe(&self) -> Result<Option<Description>, Error> {
        listener::describe(self.fd)
    }
}

impl AsFd for SocketRef<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd
    }
}

impl AsRawFd for SocketRef<'_> {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

/// The active sockets of these slots, whose names are in this line.
pub(crate) fn sockets<'t>(
    slots: &'t VecView<Active>,
    names: &'t [u8],
) -> impl ExactSizeIterator<Item = (SocketId, SocketRef<'t>)> {
    let mut names = names::split(names).map(names::text);
    slots.iter().map(move |slot| {
        let name = names.next().unwrap_or(UNKNOWN);
        (slot.id, SocketRef { name, fd: slot.fd.as_fd() })
    })
}

/// A descriptor that [`Net::add`] rejected, and why.
#[derive(Debug)]
pub struct Rejected {
    /// The descriptor, unchanged.
    pub fd: OwnedFd,
    /// Why the descriptor was rejected.
    pub error: Error,
}

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl core::error::Error for Rejected {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        Some(&self.error)
    }
}

impl<const N: usize> Default for Net<N> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const N: usize> Net<N> {
    /// Creates a `Net` with empty tables.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            inherited: InheritedTable::new(),
            active: ActiveTable::new(),
            sources: Vec::new(),
            state: State::Fresh,
            owed: Owed::new(),
        }
    }

    /// Adopts the descriptors that a service manager or a predecessor hands over, and returns their number.
    ///
    /// Call it once, first thing in `main`, before anything else can use these descriptor numbers. It returns 0 if
    /// the variables are absent or meant for another process. It also returns 0 after a privileged start, because
    /// that environment cannot be trusted: see [`InheritOptions::trust_privileged_start`].
    ///
    /// The variables are consumed from `launch`, even if the call fails. `FD_CLOEXEC` is set on all inherited
    /// descriptors, so no child of the program gets them except the successor.
    ///
    /// # Errors
    ///
    /// On failure no descriptor is owned, closed or changed. The error stays: every later call that would listen or
    /// claim returns it again. So no second socket is opened beside an inherited one.
    ///
    /// - [`Error::Variable`]: a variable cannot be read.
    /// - [`Error::Capacity`]: there are more than `N` descriptors, or their names are longer than fits in
    ///   `LISTEN_FDNAMES`.
    /// - [`Error::NotOpen`]: one of the descriptors is not open.
    /// - [`Error::AlreadyInherited`]: this is the second call; the first one's result stands.
    /// - [`Error::Call`]: a system call failed.
    ///
    /// # Safety
    ///
    /// - Nothing else owns the descriptors that the variables promise: nothing in this process has adopted them
    ///   before, or opened something on their numbers.
    ///
    /// # References
    ///
    /// - `sd_listen_fds(3)`; `inherit` of Go gracenet
    #[doc(alias = "sd_listen_fds")]
    #[allow(unsafe_code, reason = "adoption")]
    pub unsafe fn inherit<const ARGS: usize, const VARS: usize>(
        &mut self,
        launch: &mut Launch<ARGS, VARS>,
    ) -> Result<usize, Error> {
        // SAFETY: the caller's contract.
        unsafe { self.inherit_with(launch, InheritOptions::new()) }
    }

    /// Adopts the inherited descriptors as [`Net::inherit`] does, and reads the variables as `options` say.
    ///
    /// # Errors
    ///
    /// As for [`Net::inherit`], and:
    ///
    /// - [`Error::NotAListener`]: a descriptor is not a listener, and `options` allow only listeners.
    ///
    /// # Safety
    ///
    /// - As for [`Net::inherit`].
    #[allow(unsafe_code, reason = "adoption")]
    pub unsafe fn inherit_with<const ARGS: usize, const VARS: usize>(
        &mut self,
        launch: &mut Launch<ARGS, VARS>,
        options: InheritOptions,
    ) -> Result<usize, Error> {
        if !matches!(self.state, State::Fresh) {
            return Err(Error::AlreadyInherited);
        }
        // SAFETY: the caller's contract.
        let result = unsafe { self.adopt(launch, options) };
        self.state = match result {
            Ok(_) => State::Inherited,
            Err(error) => State::Failed(error),
        };
        result
    }

    #[allow(unsafe_code, reason = "adoption")]
    /// Adopts the inherited descriptors, without a look at the state.
    ///
    /// # Safety
    ///
    /// - As for [`Net::inherit`].
    unsafe fn adopt<const ARGS: usize, const VARS: usize>(
        &mut self,
        launch: &mut Launch<ARGS, VARS>,
        options: InheritOptions,
    ) -> Result<usize, Error> {
        // SAFETY: the strings stay as long as the launch is used, and are copied here.
        let variables = unsafe { inherit::variables(launch.view().vars) };
        if !options.keep {
            launch.consume()?;
        }
        if launch.is_privileged() && !options.trust_privileged_start {
            return Ok(0);
        }
        let pid = getpid().as_raw_nonzero().get() as u32;
        let activation = Activation::parse(&variables, options.strict, pid, pidfd::own_id)?;
        let own_fd = launch.view().directory.fd().map(|fd| fd.as_raw_fd());
        // SAFETY: nothing else owns the descriptors, as the caller promised.
        let adopted = unsafe {
            inherit::adopt(&activation, options.first_fd, options.listeners_only, own_fd, &mut self.inherited)
        }?;
        self.owed.begin(adopted, activation.count);
        Ok(activation.count)
    }

    /// Claims the inherited socket for this address, or opens a fresh one.
    ///
    /// The result is a listener for `tcp`, `tcp4`, `tcp6`, `unix` and `unixpacket`, and a bound socket for `udp`,
    /// `udp4`, `udp6` and `unixgram`. See [`Endpoint::parse`] for the addresses.
    ///
    /// An inherited socket is claimed if its family, its type and its address in the kernel match. A stream socket
    /// must also be listening. The claim does not change the socket.
    ///
    /// # Errors
    ///
    /// A call that fails closes what it opened. It changes nothing else, except that a stale path that was to be
    /// replaced may be gone.
    ///
    /// - [`Error::UnknownNetwork`], [`Error::Address`]: the network or the address cannot be read.
    /// - [`Error::Capacity`]: the table of active sockets, or of their names, is full; nothing was opened.
    /// - [`Error::Call`]: a system call failed, for example `bind` with `EADDRINUSE`.
    /// - The error of [`Net::inherit`], if that failed.
    ///
    /// # References
    ///
    /// - `Net.Listen` of Go gracenet
    ///
    /// # Cost
    ///
    /// Queries each inherited socket once: 2 system calls for TCP and UDP, 3 for Unix sockets. One more is needed for
    /// the first socket that does not listen, where `IPV6_V6ONLY` decides, and for a Unix address longer than 28
    /// bytes.
    #[doc(alias = "Listen")]
    pub fn listen(&mut self, network: &str, address: &str) -> Result<SocketId, Error> {
        self.listen_with(network, address, &ListenOptions::new())
    }

    /// Claims or opens a socket as [`Net::listen`] does, with a name and with settings for a fresh socket.
    ///
    /// # Errors
    ///
    /// As for [`Net::listen`], and:
    ///
    /// - [`Error::Name`]: the name is not valid in `LISTEN_FDNAMES`.
    pub fn listen_with(
        &mut self,
        network: &str,
        address: &str,
        options: &ListenOptions<'_>,
    ) -> Result<SocketId, Error> {
        self.usable()?;
        self.listen_at(&Endpoint::parse(network, address)?, options)
    }

    /// Claims or opens a socket for a parsed [`Endpoint`], by name and address as in [`Net::listen_with`].
    ///
    /// [`Endpoint::tcp`], [`Endpoint::udp`], [`Endpoint::unix_path`] and [`Endpoint::unix_abstract`] make an endpoint
    /// from a typed address.
    ///
    /// # Errors
    ///
    /// As for [`Net::listen_with`].
    #[doc(alias = "ListenTCP")]
    #[doc(alias = "ListenUnix")]
    pub fn listen_at(
        &mut self,
        endpoint: &Endpoint<'_>,
        options: &ListenOptions<'_>,
    ) -> Result<SocketId, Error> {
        match self.claim_at(endpoint, options) {
            Err(Error::NotInherited) => {}
            other => return other,
        }
        let name = options.name.unwrap_or(UNKNOWN);
        self.active.check_room(name)?;
        let fd = listener::open(endpoint, options)?;
        self.active.push(fd, name).map_err(|(_closed, error)| error)
    }

    /// Claims the inherited socket for this address, and never opens a fresh one.
    ///
    /// # Errors
    ///
    /// A call that fails changes nothing.
    ///
    /// - [`Error::NotInherited`]: no inherited socket matches.
    /// - As for [`Net::listen`], except the errors from opening a socket.
    pub fn claim(&mut self, network: &str, address: &str) -> Result<SocketId, Error> {
        self.usable()?;
        self.claim_at(&Endpoint::parse(network, address)?, &ListenOptions::new())
    }

    /// Claims the inherited socket for a parsed [`Endpoint`], by name and address as in [`Net::listen_with`].
    ///
    /// # Errors
    ///
    /// As for [`Net::claim`], and:
    ///
    /// - [`Error::Name`]: the name is not valid in `LISTEN_FDNAMES`.
    pub fn claim_at(
        &mut self,
        endpoint: &Endpoint<'_>,
        options: &ListenOptions<'_>,
    ) -> Result<SocketId, Error> {
        self.usable()?;
        if let Some(name) = options.name {
            check_name(name)?;
        }
        if self.inherited.slots().is_empty() {
            return Err(Error::NotInherited);
        }
        // // The endpoint's own lifetime is shorter than the names', and the two only have to meet here.
        let wanted = Wanted::new(endpoint, listener::scope(endpoint)?, options);
        let mut inherited =
            if options.name.is_some() { self.inherited.view_with_names() } else { self.inherited.view() };
        let position = wanted.find(&mut inherited)?;
        let id = self.activate(position.ok_or(Error::NotInherited)?, options.name)?;
        if options.nonblocking && !self.owed.is_shared() {
            // // All processes that have the socket share the flag. Without a predecessor no other process accepts
            // from it.
            let fd = self.active.find(id)?.fd.as_fd();
            listener::set_nonblocking(fd)
                .map_err(|errno| Error::call_on(Operation::Fcntl, fd.as_raw_fd(), errno))?;
        }
        Ok(id)
    }

    /// Claims the first unclaimed inherited descriptor with this name, of any kind.
    ///
    /// # Errors
    ///
    /// A call that fails changes nothing.
    ///
    /// - [`Error::NotInherited`]: no unclaimed inherited descriptor has this name.
    /// - [`Error::Capacity`]: the table of active sockets, or of their names, is full.
    /// - The error of [`Net::inherit`], if that failed.
    #[doc(alias = "sd_listen_fds_with_names")]
    pub fn claim_name(&mut self, name: &str) -> Result<SocketId, Error> {
        self.usable()?;
        let view = self.inherited.view_with_names();
        let is_left = |position: usize| view.slots.get(position).is_some_and(|slot| slot.fd.is_some());
        let position = view.named(name).find(|position| view.is_named(*position, name) && is_left(*position));
        self.activate(position.ok_or(Error::NotInherited)?, None)
    }

    /// Claims the inherited descriptor at this position, counted from 0, of any kind.
    ///
    /// # Errors
    ///
    /// As for [`Net::claim_name`].
    pub fn claim_position(&mut self, position: usize) -> Result<SocketId, Error> {
        self.usable()?;
        self.activate(position, None)
    }

    /// Moves an inherited descriptor to the active descriptors, under its own name or `name`.
    fn activate(&mut self, position: usize, name: Option<&str>) -> Result<SocketId, Error> {
        let fd = self.inherited.take(position).ok_or(Error::NotInherited)?;
        let name = name.unwrap_or_else(|| self.inherited.name(position));
        self.active.push(fd, name).map_err(|(fd, error)| {
            self.inherited.put_back(position, fd);
            error
        })
    }

    /// Adds `fd` to the active descriptors under `name`, so that the next process gets it.
    ///
    /// `fd` may be of any kind, for example a connected socket or a memfd with state. It gets `FD_CLOEXEC`, as
    /// everything in the tables has, so no other child inherits it.
    ///
    /// # Errors
    ///
    /// `fd` comes back with the error.
    ///
    /// - [`Error::Name`]: the name is not valid in `LISTEN_FDNAMES`.
    /// - [`Error::Capacity`]: the table of active sockets, or of their names, is full.
    /// - [`Error::Call`]: fcntl(2) failed.
    /// - The error of [`Net::inherit`], if that failed.
    pub fn add(&mut self, fd: OwnedFd, name: &str) -> Result<SocketId, Rejected> {
        let check = self
            .usable()
            .and_then(|()| check_name(name))
            .and_then(|()| self.active.check_room(name))
            .and_then(|()| inherit::close_on_exec(fd.as_fd()));
        if let Err(error) = check {
            return Err(Rejected { fd, error });
        }
        self.active.push(fd, name).map_err(|(fd, error)| Rejected { fd, error })
    }

    /// Borrows an active socket.
    ///
    /// # Errors
    ///
    /// - [`Error::StaleId`]: the socket was closed or taken.
    pub fn fd(&self, id: SocketId) -> Result<BorrowedFd<'_>, Error> {
        self.active.find(id).map(|slot| slot.fd.as_fd())
    }

    /// Duplicates an active socket, for std or an async runtime to own.
    ///
    /// The duplicate and the original share the open socket and its flags. The duplicate has `FD_CLOEXEC`.
    ///
    /// # Errors
    ///
    /// - [`Error::StaleId`]: the socket was closed or taken.
    /// - [`Error::Call`]: the socket could not be duplicated.
    pub fn try_clone(&self, id: SocketId) -> Result<OwnedFd, Error> {
        let fd = &self.active.find(id)?.fd;
        rustix::io::fcntl_dupfd_cloexec(fd, FIRST_FD)
            .map_err(|errno| Error::call_on(Operation::Dup, fd.as_raw_fd(), errno))
    }

    /// Takes a socket out of the table. The caller owns it from then on, and it is no longer handed over.
    ///
    /// # Errors
    ///
    /// - [`Error::StaleId`]: the socket was closed or taken.
    pub fn take(&mut self, id: SocketId) -> Result<OwnedFd, Error> {
        self.active.remove(id)
    }

    /// Closes an active socket in this process, so it is no longer handed over. Copies in other processes stay open.
    /// The path of a Unix socket stays too.
    ///
    /// # Errors
    ///
    /// - [`Error::StaleId`]: the socket was closed or taken.
    pub fn close(&mut self, id: SocketId) -> Result<(), Error> {
        self.take(id).map(drop)
    }

    /// Removes the path of an active Unix socket, then closes the socket.
    ///
    /// Call this only in the last process that serves the path, and never for a path that a service manager made. If
    /// another process has bound a new socket to the path since, that one is removed.
    ///
    /// # Errors
    ///
    /// The socket stays active and its path stays.
    ///
    /// - [`Error::StaleId`]: the socket was closed or taken.
    /// - [`Error::InFlight`]: a successor is in flight and may be about to serve the socket.
    /// - [`Error::HandedOver`]: a successor got ready, now or before, and serves the socket.
    /// - [`Error::NoPath`]: the socket has no path, or the path is still the predecessor's. The latter holds for a
    ///   socket that this process was started with, until [`Net::ready`] has reported.
    /// - [`Error::Call`]: the path could not be removed.
    pub fn close_and_unlink(&mut self, id: SocketId) -> Result<(), Error> {
        let slot = self.active.find(id)?;
        if !self.owed.is_paid() && self.came_with(slot.fd.as_fd()) {
            return Err(Error::NoPath);
        }
        self.owed.check_sole()?;
        listener::unlink(slot.fd.as_fd())?;
        self.close(id)
    }

    /// Returns whether this process was started with a socket of the same address. Not known once this process is
    /// ready.
    fn came_with(&self, fd: BorrowedFd<'_>) -> bool {
        let own = listener::own_key(fd).ok().flatten();
        own.is_some() && self.inherited.slots().iter().any(|slot| slot.key == own)
    }

    /// Iterates over the active sockets, in the order in which a successor gets them.
    pub fn active(&self) -> impl ExactSizeIterator<Item = (SocketId, SocketRef<'_>)> {
        let (slots, names) = self.active.view();
        sockets(slots, names)
    }

    /// Iterates over the inherited descriptors that are not claimed, with their positions.
    pub fn inherited(&self) -> impl Iterator<Item = (usize, SocketRef<'_>)> {
        let positions = 0..self.inherited.slots().len();
        positions.filter_map(|position| Some((position, self.inherited_at(position)?)))
    }

    pub(crate) fn inherited_at(&self, position: usize) -> Option<SocketRef<'_>> {
        let fd = self.inherited.slots().get(position)?.fd.as_ref()?.as_fd();
        Some(SocketRef { name: self.inherited.name(position), fd })
    }

    /// Stores a duplicate of an active descriptor in the service manager, under its name. Returns `false` if there is
    /// no manager.
    ///
    /// Call this in the main process of the service, once for each socket. A successor need not repeat it for the
    /// sockets that were handed over to it. See [`Notifier::store`](crate::Notifier::store).
    ///
    /// After a crash the stored descriptor is inherited like any other, under the same name. So the same code claims
    /// sockets from a `.socket` unit, from a predecessor and from the store.
    ///
    /// # Errors
    ///
    /// Nothing was sent.
    ///
    /// - [`Error::StaleId`]: the socket was closed or taken.
    /// - [`Error::Call`]: a system call failed.
    #[doc(alias = "FDSTORE")]
    pub fn store(&self, id: SocketId) -> Result<bool, Error> {
        let (_, socket) = self.active().find(|(active, _)| *active == id).ok_or(Error::StaleId)?;
        self.owed.notifier.store(socket.name(), &[socket.fd()], true)
    }

    /// Returns the error of an inherit that failed.
    pub(crate) const fn usable(&self) -> Result<(), Error> {
        match self.state {
            State::Failed(error) => Err(error),
            State::Fresh | State::Inherited => Ok(()),
        }
    }
}

#[cfg(all(test, target_pointer_width = "64"))]
mod tests {
    use super::*;

    #[test]
    fn takes_the_memory_that_is_stated() {
        assert!(size_of::<Net<1>>() <= 152 + 1176);
        assert!(size_of::<Net<16>>() <= 152 * 16 + 1176);
        assert!(size_of::<Net<1024>>() <= 152 * 1024 + 1176);
        assert!(size_of::<Launch<16, 64>>() <= 8 * 16 + 8 * 64 + 40);
        assert!(size_of::<Error>() <= 32);
    }
}
