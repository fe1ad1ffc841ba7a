//! The tables and their verbs: [`Net`] holds the inherited and the active sockets and hands them to the next process.
//!
//! It moves slots between the two tables and asks the other modules for everything else; it makes no system
//! call of its own.

use crate::activation::{Activation, FIRST_FD, UNKNOWN, check_name};
use crate::address::Endpoint;
use crate::error::{Error, Operation};
use crate::inherit;
use crate::launch::Launch;
use crate::listener::{self, Description, ListenOptions, Wanted};
use crate::notify::{Assignment, Notifier};
use crate::pidfd;
use crate::predecessor::Predecessor;
use crate::ready::{self, Refusal, Report};
use crate::restart::image::{HandOver, Scratch};
use crate::restart::main_pid::MainPid;
use crate::restart::{Failure, Progress, Restart, Successor, exec, spawn};
use crate::slot::Slot;
use crate::table::{ActiveTable, InheritedTable, SocketId};
use core::convert::Infallible;
use core::fmt;
use core::time::Duration;
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use rustix::io::Errno;
use rustix::process::getpid;

/// The sockets of a server: those it inherited, those it has opened or claimed, and the processes it got
/// them from and gives them to.
///
/// `N` is the capacity of both tables: at most `N` descriptors are inherited, at most `N` are active.
/// Nothing is allocated: a `Net` takes `148 * N + 808` bytes on a 64-bit machine at most, and no more of it is
/// touched than what it holds takes. [`Net::new`] is all zeros, so that a static takes no room in the program's file.
/// A restart takes 10 KiB of stack, and 26 KiB without optimisation. `'env` is how long the names live.
///
/// Dropping it closes everything it holds.
#[derive(Debug)]
#[doc(alias = "gracenet")]
pub struct Net<'env, const N: usize> {
    inherited: InheritedTable<'env, N>,
    active: ActiveTable<'env, N>,
    /// For a restart, here and not on the stack: pages that are not touched cost nothing.
    scratch: Scratch<N>,
    state: State,
    /// The readiness socket, until the report is sent.
    readiness: Slot<OwnedFd>,
    predecessor: Slot<Predecessor>,
    successor: Slot<Successor>,
    notifier: Notifier,
    /// Whether [`Net::ready`] has been through.
    reported: bool,
    /// Whether a successor before the present one got ready.
    handed_over: bool,
    /// Whether this process has told its predecessor that it gives up, or been given up itself by then.
    refused: bool,
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

impl<const N: usize> Default for Net<'_, N> {
    fn default() -> Self {
        Self::new()
    }
}

impl<'env, const N: usize> Net<'env, N> {
    /// Empty tables.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            inherited: InheritedTable::new(),
            active: ActiveTable::new(),
            scratch: Scratch::new(),
            state: State::Fresh,
            readiness: Slot::Empty,
            predecessor: Slot::Empty,
            successor: Slot::Empty,
            notifier: Notifier::none(),
            reported: false,
            handed_over: false,
            refused: false,
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
    /// - The strings that `launch` points to stay where they are, unchanged, for `'env`.
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
        // SAFETY: the strings stay for 'env.
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
        // Whoever said so before spoke to nobody.
        self.reported &= adopted.readiness.is_none() && activation.count == 0;
        self.readiness = adopted.readiness.into();
        self.predecessor = adopted.predecessor.into();
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
        options: &ListenOptions<'env, '_>,
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
        options: &ListenOptions<'env, '_>,
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
        options: &ListenOptions<'env, '_>,
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
        self.activate(position.ok_or(Error::NotInherited)?, options.name)
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
        let position = view.named(name).find(|position| {
            view.slots.get(*position).is_some_and(|slot| slot.name == name && slot.fd.is_some())
        });
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

    /// Moves an inherited descriptor to the active ones.
    fn activate(&mut self, position: usize, name: Option<&'env str>) -> Result<SocketId, Error> {
        let view = self.inherited.view();
        let slot = view.slots.get_mut(position).ok_or(Error::NotInherited)?;
        let fd = slot.fd.take().ok_or(Error::NotInherited)?;
        self.active.push(fd, name.unwrap_or(slot.name)).map_err(|(fd, error)| {
            slot.fd = Some(fd);
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
    pub fn add(&mut self, fd: OwnedFd, name: &'env str) -> Result<SocketId, Rejected> {
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
        self.active.remove(id).map(|slot| slot.fd)
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
        if !self.reported && self.came_with(slot.fd.as_fd()) {
            return Err(Error::NoPath);
        }
        if let Some(successor) = self.successor.as_ref() {
            if successor.is_in_flight() {
                return Err(Error::InFlight);
            }
        }
        if self.handed_over || self.successor.as_ref().is_some_and(Successor::is_ready) {
            return Err(Error::HandedOver);
        }
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
        self.active.slots().iter().map(|slot| {
            let fd = slot.fd.as_fd();
            (slot.id, SocketRef { name: slot.name, fd })
        })
    }

    /// The inherited descriptors that nobody has claimed, with their positions.
    pub fn inherited(&self) -> impl Iterator<Item = (usize, SocketRef<'_>)> {
        let slots = self.inherited.slots().iter().enumerate();
        slots.filter_map(|(position, slot)| {
            let fd = slot.fd.as_ref()?.as_fd();
            Some((position, SocketRef { name: slot.name, fd }))
        })
    }

    /// Says that this process can serve now: to the predecessor, if there is one, which tells the service
    /// manager; else to the manager, if there is one. Closes the inherited sockets that nobody claimed: they
    /// would swallow connections. The second call does nothing.
    ///
    /// The main process of a service also has the manager drop what it keeps under a name that nobody
    /// claimed, or it would come back with every start. See [`Net::store`].
    ///
    /// # Errors
    ///
    /// Nothing was closed.
    ///
    /// - [`Error::GivenUp`]: the predecessor does not wait for this process any more, or was told not to by
    ///   [`Net::refuse`], and serves on. Exit, and accept nothing.
    /// - [`Error::Call`]: the report could not be sent, within the notifier's timeout. A predecessor that has
    ///   ended is no error, nor is one that dropped its [`Net`].
    /// - The error of [`Net::inherit`], if that failed.
    #[doc(alias = "sd_notify")]
    #[doc(alias = "READY=1")]
    pub fn ready(&mut self) -> Result<(), Error> {
        self.usable()?;
        if self.reported {
            return Ok(());
        }
        if self.refused {
            return Err(Error::GivenUp);
        }
        if let Some(socket) = self.readiness.as_ref() {
            if !ready::send(socket.as_fd(), Report::Ready)? && self.is_given_up(socket.as_fd())? {
                return Err(Error::GivenUp);
            }
            self.readiness = Slot::Empty;
        } else if self.notifier.is_present() {
            let mut deadline = self.notifier.deadline();
            for name in self.unwanted() {
                let unstore = [Assignment::FdStoreRemove, Assignment::FdName(name)];
                self.notifier.send_by(&unstore, &[], &mut deadline)?;
            }
            self.notifier.send_by(&[Assignment::Ready], &[], &mut deadline)?;
        }
        self.reported = true;
        self.inherited.clear();
        Ok(())
    }

    /// The names under which something was inherited and nothing was claimed, each once.
    fn unwanted(&self) -> impl Iterator<Item = &str> {
        let slots = self.inherited.slots();
        let left = slots.iter().enumerate().filter(|(_, slot)| slot.fd.is_some());
        left.filter(|(position, slot)| {
            let is_namesake = |name| name == slot.name;
            // Claimed, if perhaps under another name.
            !slots.iter().any(|other| other.fd.is_none() && is_namesake(other.name))
                && !self.active.slots().iter().any(|active| is_namesake(active.name))
                && !slots.iter().take(*position).any(|before| is_namesake(before.name))
        })
        .map(|(_, slot)| slot.name)
    }

    /// Reports to the predecessor, if there is one, why this process gives up. It is expected to exit now;
    /// the predecessor serves on.
    ///
    /// # Errors
    ///
    /// - [`Error::Call`]: the report could not be sent.
    pub fn refuse(&mut self, refusal: Refusal) -> Result<(), Error> {
        if let Some(socket) = self.readiness.as_ref() {
            let socket = socket.as_fd();
            self.refused = ready::send(socket, Report::Refused(refusal))? || self.is_given_up(socket)?;
        }
        self.readiness = Slot::Empty;
        Ok(())
    }

    /// Whether the predecessor, which took no report on `socket`, has given this process up and is still there.
    fn is_given_up(&self, socket: BorrowedFd<'_>) -> Result<bool, Error> {
        match self.predecessor.as_ref() {
            Some(predecessor) if predecessor.has_exited()? => Ok(false),
            _ => ready::is_given_up(socket),
        }
    }

    /// Speaks to the service manager from now on: [`Net::ready`], [`Net::spawn`], [`Net::exec`] and what becomes
    /// of a successor tell it what it has to know. By default there is [`Notifier::none`].
    ///
    /// While a successor is in flight, a process that this one forks and that executes nothing holds up what the
    /// manager answers by: [`Failure::Manager`] until it ends.
    ///
    /// ```
    /// # fn main() -> Result<(), gracenet::Error> {
    /// # let launch: gracenet::Launch = unsafe { gracenet::Launch::from_libc() }?;
    /// # let mut net = gracenet::Net::<16>::new();
    /// net.set_notifier(gracenet::Notifier::from_launch(&launch)?);
    /// # Ok(())
    /// # }
    /// ```
    pub fn set_notifier(&mut self, notifier: Notifier) {
        self.notifier = notifier;
    }

    /// What speaks to the service manager. For what only the program knows: its status, that it stops, that it
    /// is alive.
    #[must_use]
    pub const fn notifier(&self) -> &Notifier {
        &self.notifier
    }

    /// Has the service manager keep a duplicate of an active socket, or whatever it is, under its name; tells
    /// whether there is a manager. After a crash it is inherited like any other: under that name, so that one
    /// code path claims what came from a `.socket` unit, from a predecessor and from the store.
    ///
    /// To be called by the main process of the service, once for each socket: a successor need not repeat it
    /// for those that it was handed. See [`Notifier::store`].
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
        self.notifier.store(slot.name, &[slot.fd.as_fd()], true)
    }

    /// The process that started this one, by [`Net::spawn`]; it may drain for some time yet, or have ended
    /// ([`Predecessor::has_exited`]), as one that ended first has on new kernels; older ones do not know it any more.
    /// `None` also where a filter lets nobody open pidfds, on a kernel before 6.5.
    #[must_use]
    pub const fn predecessor(&self) -> Option<&Predecessor> {
        self.predecessor.as_ref()
    }

    /// Takes the predecessor out, to own it, or to drop it once it has ended.
    pub fn take_predecessor(&mut self) -> Option<Predecessor> {
        self.predecessor.take()
    }

    /// The successor that was started last: in flight, ready, or failed.
    #[must_use]
    pub const fn successor(&self) -> Option<&Successor> {
        self.successor.as_ref()
    }

    /// The same, to look at how it is, to wait for it, or to end it.
    pub const fn successor_mut(&mut self) -> Option<&mut Successor> {
        self.successor.as_mut()
    }

    /// Starts the program again, as it was launched, with the active sockets, and expects the successor to
    /// report that it is ready. The same as [`Net::spawn`] with the default [`Restart`].
    ///
    /// # Errors
    ///
    /// As for [`Net::spawn`].
    ///
    /// # References
    ///
    /// - `Net.StartProcess` of the seed
    #[doc(alias = "StartProcess")]
    pub fn start_process<const ARGS: usize, const VARS: usize>(
        &mut self,
        launch: &mut Launch<ARGS, VARS>,
    ) -> Result<&mut Successor, Error> {
        self.spawn(launch, &Restart::new())
    }

    /// The whole of a restart, for a program that has nothing else to do meanwhile: [`Net::spawn`] and
    /// [`Successor::wait_ready`]. If this succeeds, the successor serves, and is the main process to the
    /// service manager: drain, and exit. One that is in flight already, after [`Failure::Manager`] or
    /// [`Failure::Error`] or because [`Net::spawn`] started it, is waited for; no other is started.
    ///
    /// # Errors
    ///
    /// - [`Failure`]: see there. But for [`Failure::Manager`] and [`Failure::Error`], everything is as before.
    pub fn hand_over<const ARGS: usize, const VARS: usize>(
        &mut self,
        launch: &mut Launch<ARGS, VARS>,
        restart: &Restart<'_>,
        timeout: Duration,
    ) -> Result<Progress, Failure> {
        let successor = if self.successor.as_ref().is_some_and(Successor::is_in_flight) {
            self.successor.as_mut().ok_or(Failure::NotStarted(Error::InFlight))?
        } else {
            self.spawn(launch, restart).map_err(Failure::NotStarted)?
        };
        successor.wait_ready(timeout)
    }

    /// Starts a successor: a second process with stdin, stdout, stderr, the active sockets from 3 on and the
    /// readiness socket behind them, and no other descriptor.
    ///
    /// It begins in the launch directory with the launch's arguments and environment, as `restart` changes
    /// them, and with the calling thread's signal mask; signals with a handler get their default action,
    /// ignored ones stay ignored. Of 0, 1 and 2, those that are closed become `/dev/null`.
    ///
    /// This process keeps everything. While the call runs, the calling thread waits until the successor was
    /// executed; other threads do not.
    ///
    /// Where there is a service manager, it is told that the service reloads, and [`Successor::poll`] tells it
    /// how that ends; and the successor is a sibling, unless `restart` says otherwise: see
    /// [`Parentage`](crate::restart::Parentage).
    ///
    /// # Errors
    ///
    /// There is no successor, and everything is as before.
    ///
    /// - [`Error::InFlight`]: one is in flight already.
    /// - [`Error::HandedOver`]: one that was in flight is ready, and nobody had looked: drain. (Called again,
    ///   this starts another.)
    /// - [`Error::NotReported`]: the predecessor waits for this process's [`Net::ready`], or was told not to.
    /// - [`Error::Untrusted`]: a set-user-ID start does not say which program to run.
    /// - [`Error::Killed`]: a signal killed the successor on the way to the program.
    /// - [`Error::Call`]: a system call failed, here or on the way to the successor: `execve` with `ENOENT`
    ///   where there is no such program.
    /// - [`Error::RelativePath`], [`Error::NoArguments`]: the program cannot be resolved.
    /// - [`Error::Capacity`]: arguments or changes of the environment do not fit.
    /// - [`Error::InvalidChange`]: a change of the environment is not one.
    /// - The error of [`Net::inherit`], if that failed.
    ///
    /// # References
    ///
    /// - clone(2), execve(2), `sd_listen_fds(3)`
    pub fn spawn<const ARGS: usize, const VARS: usize>(
        &mut self,
        launch: &mut Launch<ARGS, VARS>,
        restart: &Restart<'_>,
    ) -> Result<&mut Successor, Error> {
        if self.settle_successor()? {
            // To start another beside it would be one too many.
            return self.successor.as_mut().ok_or(Error::InFlight);
        }
        // The predecessor, which may give this process up, knows nothing of its successor.
        if self.readiness.as_ref().is_some() || self.refused {
            return Err(Error::NotReported);
        }
        let (sources, names) = self.scratch.parts(self.active.names_len());
        let hand_over = HandOver { active: self.active.slots(), readiness: None, sources, names };
        let main_pid = MainPid::begin(&self.notifier)?;
        let successor = spawn::spawn(launch.view(), restart, hand_over, main_pid)
            .inspect_err(|error| self.notifier.report_failure(Failure::NotStarted(*error)))?;
        if let Some(before) = self.successor.take() {
            self.handed_over |= before.is_ready();
            before.reap();
        }
        self.successor = Slot::Full(successor);
        self.successor.as_mut().ok_or(Error::call(Operation::Clone, Errno::CHILD))
    }

    /// Replaces this process's image and keeps its PID; the new image gets what [`Net::spawn`] says, and no
    /// readiness socket unless this process has not reported to its predecessor yet. All threads end.
    ///
    /// The service manager, if there is one, is told that the service reloads; the new image's [`Net::ready`]
    /// tells it that this is over. A process that has not reported to its predecessor leaves both to that.
    ///
    /// For PID 1 of a container, and wherever a supervisor follows the PID. Connections that come meanwhile
    /// wait in the listeners' queues; those that were accepted end with the image.
    ///
    /// A signal with a handler is not lost in it. One that comes before the image is replaced makes this fail
    /// with `EINTR`, and its handler has run: look at what it asks for, then try again. One that the calling
    /// thread blocks waits for the new image, which gets the mask; so block what the new image must not miss,
    /// or must not meet before it has its handlers, and let it unblock them. This is so for signals to the
    /// process; one to a thread alone, by raise(3) or pthread_kill(3), ends with the thread. And it is so where all
    /// other threads block the signal: one that does not may handle it at the last moment, and what its handler
    /// notes ends with the image. [`Signals`](crate::Signals), made before a second thread exists, sees to that.
    ///
    /// # Errors
    ///
    /// Every descriptor's number and flags, the working directory, the signal mask and the environment are
    /// as before.
    ///
    /// - [`Error::Call`] with [`Errno::INTR`](rustix::io::Errno::INTR): a signal came first.
    /// - [`Error::Killed`]: a filter killed the thread that was to execute the program.
    /// - [`Error::HandedOver`]: a successor got ready, now or before, and serves: the new image would beside it.
    /// - [`Error::NotReported`]: the predecessor was told that this process is not ready, by [`Net::refuse`].
    /// - The others of [`Net::spawn`].
    ///
    /// # References
    ///
    /// - execve(2)
    #[doc(alias = "execve")]
    pub fn exec<const ARGS: usize, const VARS: usize>(
        &mut self,
        launch: &mut Launch<ARGS, VARS>,
        restart: &Restart<'_>,
    ) -> Result<Infallible, Error> {
        self.settle_successor()?;
        if self.refused {
            return Err(Error::NotReported);
        }
        if self.handed_over || self.successor.as_ref().is_some_and(Successor::is_ready) {
            return Err(Error::HandedOver);
        }
        let (sources, names) = self.scratch.parts(self.active.names_len());
        let hand_over = HandOver {
            active: self.active.slots(),
            readiness: self.readiness.as_ref().map(AsFd::as_fd),
            sources,
            names,
        };
        // One that owes a predecessor the report is not the main process: the predecessor speaks.
        let is_main = self.readiness.as_ref().is_none();
        if is_main && self.notifier.is_present() {
            self.notifier.send(&[Assignment::Reloading])?;
        }
        exec::exec(launch.view(), restart, hand_over).inspect_err(|error| {
            if is_main {
                self.notifier.report_failure(Failure::NotStarted(*error));
            }
        })
    }

    /// Looks at a successor that is in flight; returns whether it has just been found ready, which nobody had noticed.
    ///
    /// # Errors
    ///
    /// - [`Error::InFlight`]: it is in flight still.
    fn settle_successor(&mut self) -> Result<bool, Error> {
        self.usable()?;
        let Some(successor) = self.successor.as_mut() else { return Ok(false) };
        if !successor.is_in_flight() {
            successor.reap();
            return Ok(false);
        }
        match successor.poll() {
            Ok(Progress::Ready) => Ok(true),
            Ok(Progress::Waiting | Progress::Unsettled(_)) => Err(Error::InFlight),
            // It failed unnoticed, and was reaped.
            Err(_) => Ok(false),
        }
    }

    /// The error of an inherit that failed.
    const fn usable(&self) -> Result<(), Error> {
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
        assert!(size_of::<Net<'_, 1>>() <= 148 + 808);
        assert!(size_of::<Net<'_, 16>>() <= 148 * 16 + 808);
        assert!(size_of::<Net<'_, 1024>>() <= 148 * 1024 + 808);
        assert!(size_of::<Launch<16, 64>>() <= 8 * 16 + 8 * 64 + 40);
        assert!(size_of::<Error>() <= 32);
    }
}
