//! The tables and their verbs: [`Net`] holds the inherited and the active sockets and hands them to the next process.
//!
//! It moves slots between the two tables and asks the other modules for everything else; it makes no system
//! call of its own.

use crate::activation::{Activation, FIRST_FD, UNKNOWN, check_name};
use crate::address::Endpoint;
use crate::debt::Owed;
use crate::error::{Error, Operation};
use crate::inherit;
use crate::launch::Launch;
use crate::listener::{self, Description, ListenOptions, Wanted};
use crate::pidfd;
use crate::placement::Source;
use crate::table::{ActiveTable, InheritedTable, SocketId};
use core::fmt;
use heapless::Vec;
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use rustix::process::getpid;

/// The sockets of a server: inherited, claimed or opened, and handed over.
///
/// A server that has a loop is easier to write on a [`Service`](crate::Service), which holds a `Net`. In the order in which
/// they are called:
///
/// 1. [`Net::inherit`] adopts what a service manager or a predecessor hands over. First thing in `main`.
/// 2. [`Net::listen`] and its like claim an inherited socket or open a fresh one.
/// 3. [`Net::ready`] reports that this process can serve; or [`Net::refuse`] that it cannot. Accept after that.
/// 4. [`Net::spawn`] starts a successor, and [`Net::exec`] replaces the program in place.
/// 5. Dropping the `Net` closes everything it holds.
///
/// ```no_run
/// use gracenet::{Launch, Net, Progress, Restart};
/// use std::time::Duration;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// // SAFETY: first thing in main; nobody owns the descriptors, nobody changes the environment.
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
/// `N` is the capacity of both tables: at most `N` descriptors are inherited, at most `N` are active. Nothing is allocated. A
/// `Net` takes `152 * N + 1176` bytes on a 64-bit machine at most, and no more of it is touched than what it holds takes.
/// [`Net::new`] is all zeros, so that a static takes no room in the program's file. A restart takes 10 KiB of stack, and
/// 26 KiB without optimisation.
#[derive(Debug)]
#[doc(alias = "gracenet")]
pub struct Net<const N: usize> {
    pub(crate) inherited: InheritedTable<N>,
    pub(crate) active: ActiveTable<N>,
    /// For a restart, here and not on the stack: pages that are not touched cost nothing.
    pub(crate) sources: Vec<Source, N>,
    state: State,
    /// What is owed to a predecessor and to a successor.
    pub(crate) owed: Owed,
}

/// Zeros when it is fresh, for the reason that [`Slot`] has.
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
    /// `LISTEN_PID` may be absent, the variables are consumed, anything may be inherited, from 3 on.
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

    /// Without `LISTEN_PID` nothing is inherited, as libsystemd has it. The Go original sets none.
    #[must_use]
    pub const fn strict(mut self, strict: bool) -> Self {
        self.strict = strict;
        self
    }

    /// Leaves the variables in the launch's table. A later [`Net::spawn`] rewrites them all the same.
    #[must_use]
    pub const fn keep(mut self, keep: bool) -> Self {
        self.keep = keep;
        self
    }

    /// Believes the variables of a privileged start too, as libsystemd does: for a program with file capabilities that nobody
    /// but a service manager starts. A start is privileged if it gave the program more than whoever made it has, by a
    /// set-user-ID bit, file capabilities or a security module: [`Launch::is_privileged`].
    #[must_use]
    pub const fn trust_privileged_start(mut self, trust_privileged_start: bool) -> Self {
        self.trust_privileged_start = trust_privileged_start;
        self
    }

    /// Takes anything but a listener among the descriptors for an error, as the seed does.
    #[must_use]
    pub const fn listeners_only(mut self, listeners_only: bool) -> Self {
        self.listeners_only = listeners_only;
        self
    }

    /// Counts from this number instead of 3. For tests, which have other uses for their descriptors.
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
    /// Its name; `unknown` if it has none.
    #[must_use]
    pub const fn name(&self) -> &'n str {
        self.name
    }

    /// Its descriptor, for as long as the [`Net`] is borrowed.
    #[must_use]
    pub const fn fd(&self) -> BorrowedFd<'n> {
        self.fd
    }

    /// Asks the kernel for its family, type and address; `None` if it is no socket.
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

/// A descriptor that [`Net::add`] did not take, and why.
#[derive(Debug)]
pub struct Rejected {
    /// The descriptor, unchanged.
    pub fd: OwnedFd,
    /// Why it was not taken.
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
    /// Empty tables.
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

    /// Adopts the descriptors that a service manager or a predecessor hands over, and returns how many there
    /// are: none, if the variables are absent or meant for another process, and none after a privileged start, where
    /// the environment is not to be believed: see [`InheritOptions::trust_privileged_start`]. Call it once, first thing
    /// in `main`, before anything else could use their numbers.
    ///
    /// The variables are consumed from `launch`, on errors too. `FD_CLOEXEC` is set on all descriptors with
    /// one call, so no child of the program gets them but the successor.
    ///
    /// # Errors
    ///
    /// No descriptor is owned, closed or changed, and the error stays: every later call that would listen
    /// or claim returns it again, so that no second socket is opened beside one that is there.
    ///
    /// - [`Error::Variable`]: a variable cannot be read.
    /// - [`Error::Capacity`]: there are more than `N`, or their names take more than fits in `LISTEN_FDNAMES`.
    /// - [`Error::NotOpen`]: one of them is not open.
    /// - [`Error::AlreadyInherited`]: this is the second call; the first one's result stands.
    /// - [`Error::Call`]: a system call failed.
    ///
    /// # Safety
    ///
    /// - Nobody else owns the descriptors that the variables promise: nothing in this process has adopted
    ///   them before, or opened something on their numbers.
    ///
    /// # References
    ///
    /// - `sd_listen_fds(3)`; `inherit` of the seed
    #[doc(alias = "sd_listen_fds")]
    #[allow(unsafe_code, reason = "adoption")]
    pub unsafe fn inherit<const ARGS: usize, const VARS: usize>(
        &mut self,
        launch: &mut Launch<ARGS, VARS>,
    ) -> Result<usize, Error> {
        // SAFETY: the caller's contract.
        unsafe { self.inherit_with(launch, InheritOptions::new()) }
    }

    /// The same, with the variables read as `options` say.
    ///
    /// # Errors
    ///
    /// As for [`Net::inherit`], and:
    ///
    /// - [`Error::NotAListener`]: a descriptor is no listener, and only those were asked for.
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
        // SAFETY: nobody else owns the descriptors.
        let adopted = unsafe {
            inherit::adopt(&activation, options.first_fd, options.listeners_only, own_fd, &mut self.inherited)
        }?;
        self.owed.begin(adopted, activation.count);
        Ok(activation.count)
    }

    /// The inherited socket for this address, or a fresh one: a listener of `tcp`, `tcp4`, `tcp6`, `unix` or
    /// `unixpacket`, or a bound socket of `udp`, `udp4`, `udp6` or `unixgram`. See [`Endpoint::parse`] for
    /// the addresses.
    ///
    /// An inherited socket is taken if its family, its type and the address that the kernel tells of it fit;
    /// a stream has to be listening, which is asked when it is adopted, or else now. Nothing about it is changed.
    ///
    /// What the kernel tells of a socket is asked once, however many calls follow: 2 system calls for each TCP or
    /// UDP socket, with the one that read its address, and 3 for a Unix one. One more is for the first that does not
    /// listen, one for `IPV6_V6ONLY` where that decides, and one for a Unix address of more than 28 bytes.
    ///
    /// # Errors
    ///
    /// What this call opened is closed again, and nothing else has changed; but a stale path that was to be replaced may
    /// be gone.
    ///
    /// - [`Error::UnknownNetwork`], [`Error::Address`]: what was asked for cannot be read.
    /// - [`Error::Capacity`]: the table of active sockets, or of their names, is full; nothing was opened.
    /// - [`Error::Call`]: a system call failed: `EADDRINUSE` from `bind`, and so on.
    /// - The error of [`Net::inherit`], if that failed.
    ///
    /// # References
    ///
    /// - `Net.Listen` of the seed
    #[doc(alias = "Listen")]
    pub fn listen(&mut self, network: &str, address: &str) -> Result<SocketId, Error> {
        self.listen_with(network, address, &ListenOptions::new())
    }

    /// The same, with a name and with the settings of a fresh socket.
    ///
    /// # Errors
    ///
    /// As for [`Net::listen`], and:
    ///
    /// - [`Error::Name`]: the name cannot stand in `LISTEN_FDNAMES`.
    pub fn listen_with(
        &mut self,
        network: &str,
        address: &str,
        options: &ListenOptions<'_>,
    ) -> Result<SocketId, Error> {
        self.usable()?;
        self.listen_at(&Endpoint::parse(network, address)?, options)
    }

    /// The same, for an address of a type: [`Endpoint::tcp`], [`Endpoint::udp`], [`Endpoint::unix_path`],
    /// [`Endpoint::unix_abstract`].
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

    /// The inherited socket for this address; opens none.
    ///
    /// # Errors
    ///
    /// Nothing has changed.
    ///
    /// - [`Error::NotInherited`]: no inherited socket fits.
    /// - The others of [`Net::listen`] but those of opening.
    pub fn claim(&mut self, network: &str, address: &str) -> Result<SocketId, Error> {
        self.usable()?;
        self.claim_at(&Endpoint::parse(network, address)?, &ListenOptions::new())
    }

    /// The same, for an address of a type, by name and address as [`Net::listen_with`] does.
    ///
    /// # Errors
    ///
    /// As for [`Net::claim`], and [`Error::Name`].
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
        // The endpoint's own lifetime is shorter than the names', and they only have to meet here.
        let wanted = Wanted::new(endpoint, listener::scope(endpoint)?, options);
        let mut inherited =
            if options.name.is_some() { self.inherited.view_with_names() } else { self.inherited.view() };
        let position = wanted.find(&mut inherited)?;
        let id = self.activate(position.ok_or(Error::NotInherited)?, options.name)?;
        if options.nonblocking && !self.owed.is_shared() {
            // The flag is shared by all who have the socket. Without a predecessor nobody else accepts from it.
            let fd = self.active.find(id)?.fd.as_fd();
            listener::set_nonblocking(fd)
                .map_err(|errno| Error::call_on(Operation::Fcntl, fd.as_raw_fd(), errno))?;
        }
        Ok(id)
    }

    /// The first inherited descriptor of this name that is left, whatever it is.
    ///
    /// # Errors
    ///
    /// Nothing has changed.
    ///
    /// - [`Error::NotInherited`]: there is none.
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

    /// The inherited descriptor at this position, from 0, whatever it is.
    ///
    /// # Errors
    ///
    /// As for [`Net::claim_name`].
    pub fn claim_position(&mut self, position: usize) -> Result<SocketId, Error> {
        self.usable()?;
        self.activate(position, None)
    }

    /// Moves an inherited descriptor to the active ones, under its own name or another.
    fn activate(&mut self, position: usize, name: Option<&str>) -> Result<SocketId, Error> {
        let fd = self.inherited.take(position).ok_or(Error::NotInherited)?;
        let name = name.unwrap_or_else(|| self.inherited.name(position));
        self.active.push(fd, name).map_err(|(fd, error)| {
            self.inherited.put_back(position, fd);
            error
        })
    }

    /// Hands `fd` to the next process under `name`, whatever it is: a connected socket, a memfd with state. It
    /// gets `FD_CLOEXEC`, as all that is in the tables has it, so that no other child inherits it.
    ///
    /// # Errors
    ///
    /// `fd` comes back with the error.
    ///
    /// - [`Error::Name`]: the name cannot stand in `LISTEN_FDNAMES`.
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
    /// - [`Error::StaleId`]: it was closed or taken.
    pub fn fd(&self, id: SocketId) -> Result<BorrowedFd<'_>, Error> {
        self.active.find(id).map(|slot| slot.fd.as_fd())
    }

    /// Duplicates an active socket, for std or an async runtime to own. Both share the open socket, its
    /// flags included; the duplicate has `FD_CLOEXEC`.
    ///
    /// # Errors
    ///
    /// - [`Error::StaleId`]: it was closed or taken.
    /// - [`Error::Call`]: it could not be duplicated.
    pub fn try_clone(&self, id: SocketId) -> Result<OwnedFd, Error> {
        let fd = &self.active.find(id)?.fd;
        rustix::io::fcntl_dupfd_cloexec(fd, FIRST_FD)
            .map_err(|errno| Error::call_on(Operation::Dup, fd.as_raw_fd(), errno))
    }

    /// Takes a socket out of the table: it is the caller's now, and no longer handed over.
    ///
    /// # Errors
    ///
    /// - [`Error::StaleId`]: it was closed or taken.
    pub fn take(&mut self, id: SocketId) -> Result<OwnedFd, Error> {
        self.active.remove(id)
    }

    /// Closes an active socket here: it is no longer handed over. Other processes' copies stay open, and so
    /// does the path of a Unix socket.
    ///
    /// # Errors
    ///
    /// - [`Error::StaleId`]: it was closed or taken.
    pub fn close(&mut self, id: SocketId) -> Result<(), Error> {
        self.take(id).map(drop)
    }

    /// Removes the path of an active Unix socket, then closes it. For the last process that serves it: never
    /// do this to a path that a service manager made. (What is removed is the socket that the path leads to
    /// now: whoever bound another one there since is not told apart.)
    ///
    /// # Errors
    ///
    /// The socket stays active and its path stays.
    ///
    /// - [`Error::StaleId`]: it was closed or taken.
    /// - [`Error::InFlight`]: a successor may be about to serve it.
    /// - [`Error::HandedOver`]: a successor got ready, now or before, and serves it.
    /// - [`Error::NoPath`]: it has no path, or this process was started with it and has not said yet that it is
    ///   ready ([`Net::ready`]), so the path is still the predecessor's.
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

    /// Whether this process was started with a socket of this one's address. Not known once it is ready.
    fn came_with(&self, fd: BorrowedFd<'_>) -> bool {
        let own = listener::own_key(fd).ok().flatten();
        own.is_some() && self.inherited.slots().iter().any(|slot| slot.key == own)
    }

    /// The active sockets, in the order in which a successor gets them.
    pub fn active(&self) -> impl ExactSizeIterator<Item = (SocketId, SocketRef<'_>)> {
        let mut names = self.active.names();
        self.active.slots().iter().map(move |slot| {
            let name = names.next().unwrap_or(UNKNOWN);
            (slot.id, SocketRef { name, fd: slot.fd.as_fd() })
        })
    }

    /// The inherited descriptors that nobody has claimed, with their positions.
    pub fn inherited(&self) -> impl Iterator<Item = (usize, SocketRef<'_>)> {
        let slots = self.inherited.slots().iter().enumerate();
        slots.filter_map(|(position, slot)| {
            let fd = slot.fd.as_ref()?.as_fd();
            Some((position, SocketRef { name: self.inherited.name(position), fd }))
        })
    }

    /// Has the service manager keep a duplicate of an active socket, or whatever it is, under its name; tells
    /// whether there is a manager. After a crash it is inherited like any other: under that name, so that one
    /// code path claims what came from a `.socket` unit, from a predecessor and from the store.
    ///
    /// To be called by the main process of the service, once for each socket: a successor need not repeat it
    /// for those that it was handed. See [`Notifier::store`](crate::Notifier::store).
    ///
    /// # Errors
    ///
    /// Nothing was sent.
    ///
    /// - [`Error::StaleId`]: it was closed or taken.
    /// - [`Error::Call`]: a system call failed.
    #[doc(alias = "FDSTORE")]
    pub fn store(&self, id: SocketId) -> Result<bool, Error> {
        let slot = self.active.find(id)?;
        self.owed.notifier.store(self.active.name(id)?, &[slot.fd.as_fd()], true)
    }

    /// The error of an inherit that failed.
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
