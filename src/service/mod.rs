//! Service: the life of a server as one object.
//!
//! A [`Service`] restarts, drains, reports and recovers, and tells its program what to do in few words: accept, accept no
//! more, exit. It is policy on top of [`Net`], [`Launch`], [`Signals`] and [`Notifier`], and replaces none of them.
//!
//! No call waits for a service manager, for a successor to become ready, or for a full pipe. Two short waits remain, both
//! for the kernel: at most 100 ms for the exit status of a successor that has closed its readiness pipe, and at most one
//! second for a successor that was killed.
//!
//! | module | holds |
//! |---|---|
//! | this one | [`Service`]: takes what the machine asks for, and tells it what came of it |
//! | `lifecycle` | the machine: what a server does next. Pure |
//! | `policy` | [`Policy`]: times, and what a signal means. Pure |
//! | `process` | [`Process`]: how a program begins |
//! | `sockets` | what a service needs of a [`Net`] |
//! | `watch` | one descriptor for everything that a service waits for |
//! | `listen` | sockets as std's types |

#[cfg(test)]
mod explore;
mod lifecycle;
#[cfg(feature = "std")]
mod listen;
mod policy;
mod process;
mod sockets;
mod watch;

pub use crate::moment::Moment;
pub use lifecycle::{Event, Leave, Refused, Request};
#[cfg(feature = "std")]
pub use listen::ListenError;
pub use policy::{Policy, Reload, Watchdog};
pub use process::Process;

use crate::address::Endpoint;
use crate::cstr::CStrPtr;
use crate::deadline::now;
use crate::error::{Error, Operation};
use crate::failure::Failure;
use crate::launch::{Launch, LaunchView};
use crate::listener::ListenOptions;
use crate::net::{self, Net, Rejected, SocketRef};
use crate::notify::{self, Assignment, Message, Notifier};
use crate::predecessor::Predecessor;
use crate::ready::Refusal;
use crate::restart::{Progress, Readiness, Unsettled};
use crate::signals::Signals;
use crate::table::SocketId;
use core::ffi::CStr;
use core::fmt;
use core::time::Duration;
use lifecycle::{Action, Lifecycle, Terms};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, getpid, waitid};
use sockets::Sockets;
use watch::{Shown, Source, Watch};

/// The life of a server: it starts successors, hands over to them, drains and reports.
///
/// In the order in which they are called:
///
/// 1. [`Process::begin`] makes it, first thing in `main`; or [`Service::new`], from parts.
/// 2. [`Service::listen`] and its like claim an inherited socket or open a fresh one; with the feature `std`, `tcp`, `udp`
///    and `unix` return std's types.
/// 3. [`Service::ready`] reports that this process can serve. Accept from then on, and not before.
/// 4. Wait until the service is readable ([`AsFd`]), and call [`Service::poll`] until it returns `None`. Obey the events.
/// 5. While draining, call [`Service::drained`] when the last connection is done. If it is not called, the deadline of
///    [`Policy::drain_within`] ends the drain.
///
/// A loop that polls by itself waits for [`Service::fds`] until [`Service::deadline`] instead.
///
/// ```no_run
/// # use gracenet::{Event, Policy, Process};
/// # static PROCESS: Process<16> = Process::new();
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let mut service = unsafe { PROCESS.begin(Policy::new()) }?;
/// # let mut accept_more = |_: bool| ();
/// // When the service is readable:
/// while let Some(event) = service.poll() {
///     match event {
///         Event::Serve => accept_more(true),
///         Event::Drain(_) => accept_more(false), // and see Event::Drain
///         Event::Exit(status) => std::process::exit(status.into()),
///         event => eprintln!("{event}"),
///     }
/// }
/// # Ok(())
/// # }
/// ```
///
/// # Threads and processes
///
/// A service may move to another thread. A process that is forked and executes nothing must leave it alone: what it calls
/// fails with [`Error::Forked`] or returns nothing.
///
/// # Dropping
///
/// Dropping a service that is not ready yet tells the predecessor why, if listening has failed. Dropping one that a
/// [`Process`] began closes the descriptors that it holds.
///
/// # The second parameter
///
/// `Service<'p>` is a service of any [`Net`], whatever its capacity. It reaches the `Net` through a table of methods, and so a
/// program carries all of them, called or not. [`Process::begin_from_stack`] is for programs that are to be small, and
/// returns a `Service<'p, Net<N>>`, which calls its `Net` directly. Both have the same methods.
pub struct Service<'p, S: Sockets + ?Sized = dyn Sockets + 'p> {
    net: &'p mut S,
    launch: LaunchView<'p>,
    policy: Policy<'p>,
    life: Lifecycle,
    wait: Wait,
    /// Of the sources that were asked, those to take yet; `None` before they are asked.
    shown: Option<Shown>,
    /// How many were taken in this round of calls.
    taken: u8,
    /// The clock's reading, if it was read for what happens now.
    now: Option<Moment>,
    /// What the predecessor is told if this process gives up before it is ready.
    refusal: Refusal,
    /// Whether the program has called [`Service::alive`] since the watchdog was fed.
    is_alive: bool,
    /// Whether the listeners are to be closed at the next call, as the program was told to close its own.
    closes: bool,
    /// Whether the service manager was told that this process is about to execute the program anew.
    is_reloading: bool,
    /// Whether the program has set a status line of its own.
    has_status: bool,
    /// Whether the descriptors are closed with the service.
    owns: bool,
    owner: Pid,
    /// Whether this is the owner, if that was asked in this round of calls.
    is_owner: Option<bool>,
}

/// How a program waits for its service.
enum Wait {
    /// For one descriptor that shows everything.
    One(Watch, Option<Signals>),
    /// For each of [`Service::fds`].
    Each(Signals),
}

impl Wait {
    const fn signals(&self) -> Option<&Signals> {
        match self {
            Self::One(_, signals) => signals.as_ref(),
            Self::Each(signals) => Some(signals),
        }
    }
}

/// What comes next in a call of [`Service::poll`].
enum Next {
    Act(Action),
    Take(Source),
    Rest,
}

impl<'p> Service<'p> {
    /// Makes a service from its parts, after [`Net::inherit`] and [`Net::set_notifier`]. [`Process::begin`] does all of it.
    ///
    /// No call of the service waits for the service manager, so the notifier's timeout becomes zero. Call it before a second
    /// thread exists, unless the policy leaves the signals to the program.
    ///
    /// # Errors
    ///
    /// - [`Error::Variable`]: `WATCHDOG_USEC` or `WATCHDOG_PID` cannot be read.
    /// - [`Error::Call`]: no descriptor, or no memory, for signals, epoll or timer. The signals may be blocked.
    pub fn new<const N: usize, const ARGS: usize, const VARS: usize>(
        net: &'p mut Net<N>,
        launch: &'p mut Launch<ARGS, VARS>,
        policy: Policy<'p>,
    ) -> Result<Self, Error> {
        let fed_within = if policy.watchdog == Watchdog::Off { None } else { notify::watchdog(launch)? };
        Self::assemble(net as &mut (dyn Sockets + 'p), launch.view(), policy, fed_within)
    }
}

impl<'p, S: Sockets + ?Sized> Service<'p, S> {
    fn assemble(
        net: &'p mut S,
        launch: LaunchView<'p>,
        policy: Policy<'p>,
        fed_within: Option<Duration>,
    ) -> Result<Self, Error> {
        let owner = getpid();
        let is_init = owner.is_init();
        let signals = match (policy.takes_signals, is_init && policy.reaps_orphans) {
            (false, _) => None,
            (true, false) => Some(Signals::new(&CONTROL)?),
            (true, true) => Some(Signals::new(&CONTROL_AND_ORPHANS)?),
        };
        let wait = match signals {
            Some(signals) if !policy.watches => Wait::Each(signals),
            signals => Wait::One(Watch::new()?, signals),
        };
        let owed = net.owed_mut();
        owed.notifier.set_timeout(Duration::ZERO);
        if let Wait::One(watch, signals) = &wait {
            if let Some(signals) = signals {
                watch.add(signals.as_fd(), Source::Signals)?;
            }
            if let Some(predecessor) = owed.predecessor() {
                watch.add(predecessor.as_fd(), Source::Predecessor)?;
            }
        }
        let terms = Terms {
            ready_within: policy.ready_within,
            drain_within: policy.drain_within,
            barrier_within: policy.barrier_within,
            retry_every: policy.retry_every,
            // Twice as often as the manager wants, as sd_watchdog_enabled(3) recommends.
            feed_every: fed_within.map(|time| time / 2),
            is_init,
        };
        let life = Lifecycle::new(terms, owed.predecessor().is_none());
        Ok(Self {
            net,
            launch,
            policy,
            life,
            wait,
            shown: None,
            taken: 0,
            now: None,
            refusal: Refusal::Code(1),
            is_alive: true,
            closes: false,
            is_reloading: false,
            has_status: false,
            owns: false,
            owner,
            is_owner: None,
        })
    }

    /// Claims the inherited socket for an address, or opens a fresh one: see [`Net::listen_with`].
    ///
    /// # Errors
    ///
    /// - As for [`Net::listen_with`]. If the service is dropped before it is ready, the predecessor is told of it.
    #[doc(alias = "Listen")]
    pub fn listen(
        &mut self,
        network: &str,
        address: &str,
        options: &ListenOptions<'_>,
    ) -> Result<SocketId, Error> {
        let endpoint = Endpoint::parse(network, address).inspect_err(|error| self.note(error))?;
        self.listen_at(&endpoint, options)
    }

    /// Claims the inherited socket for a parsed [`Endpoint`], or opens a fresh one: see [`Net::listen_at`].
    ///
    /// # Errors
    ///
    /// - As for [`Service::listen`].
    pub fn listen_at(
        &mut self,
        endpoint: &Endpoint<'_>,
        options: &ListenOptions<'_>,
    ) -> Result<SocketId, Error> {
        self.net.listen_at(endpoint, options).inspect_err(|error| self.refusal = refusal(error))
    }

    /// Claims the inherited socket for a parsed [`Endpoint`], and opens none: see [`Net::claim_at`].
    ///
    /// # Errors
    ///
    /// - As for [`Net::claim_at`].
    pub fn claim_at(
        &mut self,
        endpoint: &Endpoint<'_>,
        options: &ListenOptions<'_>,
    ) -> Result<SocketId, Error> {
        self.net.claim_at(endpoint, options).inspect_err(|error| self.refusal = refusal(error))
    }

    /// Claims the first unclaimed inherited descriptor with this name, of any kind: see [`Net::claim_name`].
    ///
    /// # Errors
    ///
    /// - As for [`Net::claim_name`].
    pub fn claim_name(&mut self, name: &str) -> Result<SocketId, Error> {
        self.net.claim_name(name)
    }

    /// Hands `fd` to the next process under `name`: see [`Net::add`].
    ///
    /// # Errors
    ///
    /// - As for [`Net::add`], with `fd`.
    pub fn add(&mut self, fd: OwnedFd, name: &str) -> Result<SocketId, Rejected> {
        self.net.add(fd, name)
    }

    /// Closes a socket here: it is no longer handed over. See [`Net::close`].
    ///
    /// # Errors
    ///
    /// - [`Error::StaleId`]: it was closed already.
    pub fn close(&mut self, id: SocketId) -> Result<(), Error> {
        self.net.close(id)
    }

    /// Borrows an active socket.
    ///
    /// # Errors
    ///
    /// - [`Error::StaleId`]: it was closed, by [`Service::close`] or because this process drains.
    pub fn fd(&self, id: SocketId) -> Result<BorrowedFd<'_>, Error> {
        self.net.fd(id)
    }

    /// Duplicates an active socket, for std or an async runtime to own: see [`Net::try_clone`].
    ///
    /// # Errors
    ///
    /// - As for [`Net::try_clone`].
    pub fn try_clone(&self, id: SocketId) -> Result<OwnedFd, Error> {
        self.net.try_clone(id)
    }

    /// Returns the active sockets, in the order in which a successor gets them.
    pub fn active(&self) -> impl ExactSizeIterator<Item = (SocketId, SocketRef<'_>)> {
        let (slots, names) = self.net.active();
        net::sockets(slots, names)
    }

    /// Stores a duplicate of an active descriptor in the service manager, under its name: see [`Net::store`].
    ///
    /// # Errors
    ///
    /// - As for [`Net::store`].
    pub fn store(&self, id: SocketId) -> Result<bool, Error> {
        self.net.store(id)
    }

    /// Returns the inherited descriptors that are not claimed yet, with their positions: see [`Net::inherited`]. There are
    /// none once the service is ready.
    pub fn inherited(&self) -> impl Iterator<Item = (usize, SocketRef<'_>)> {
        (0..self.net.inherited_count()).filter_map(|position| Some((position, self.net.inherited(position)?)))
    }

    /// Returns the process that started this one, until [`Service::poll`] finds that it has ended: see
    /// [`Net::predecessor`].
    #[must_use]
    pub fn predecessor(&self) -> Option<&Predecessor> {
        self.net.owed().predecessor()
    }

    /// Reports to the predecessor, if there is one, why this process gives up: see [`Net::refuse`]. Dropping the service
    /// reports the error of a listener by itself; this is for the reasons of the program's own. Exit then.
    ///
    /// # Errors
    ///
    /// - [`Error::Forked`]: this is a fork of the process that began the service.
    /// - [`Error::Call`]: the report could not be sent.
    pub fn refuse(&mut self, refusal: Refusal) -> Result<(), Error> {
        self.check_owner()?;
        self.net.owed_mut().refuse(refusal)
    }

    /// Returns the arguments that the program was started with, its name first: for a program without libc, which finds
    /// them nowhere else. See [`Launch::args`].
    pub fn args(&self) -> impl Iterator<Item = &CStr> {
        self.launch.args.iter().map_while(Option::as_ref).map(CStrPtr::as_c_str)
    }

    /// Returns what speaks to the service manager. It does not wait.
    #[must_use]
    pub fn notifier(&self) -> &Notifier {
        &self.net.owed().notifier
    }

    /// Returns whether the service manager listens to this process: not before the predecessor has ended, and not once a
    /// successor serves.
    #[must_use]
    pub const fn is_main(&self) -> bool {
        self.life.is_main()
    }

    /// Reports that this process can serve: to the predecessor, or without one to the service manager. Closes what was
    /// inherited and not claimed, so listen before. Accept from now on, and not before. A second call does nothing.
    ///
    /// A service manager that does not hear it is told again at each [`Policy::retry_every`], and [`Service::poll`] says so.
    /// A manager that is gone is not: from then on the service goes on as without one.
    ///
    /// # Errors
    ///
    /// - [`Error::GivenUp`]: the predecessor serves on. Exit, and accept nothing.
    /// - [`Error::Forked`]: this is a fork of the process that began the service.
    /// - The error of [`Net::inherit`], if that failed.
    pub fn ready(&mut self) -> Result<(), Error> {
        self.check_owner()?;
        if !self.life.is_opening() {
            return Ok(());
        }
        let heard = match self.net.ready() {
            Err(error @ Error::Call { .. }) if self.life.is_main() => {
                if self.give_up_manager(error) {
                    // Closes what nobody claimed.
                    self.net.ready()?;
                }
                Err(error)
            }
            heard => heard.map(Ok)?,
        };
        let now = self.read_clock();
        self.life.opened(heard, now);
        self.reap_orphans();
        self.show();
        Ok(())
    }

    /// Goes on as without a service manager if this says that it is gone. Nobody will ever hear.
    #[cold]
    #[inline(never)]
    fn give_up_manager(&mut self, error: Error) -> bool {
        let is_gone = matches!(
            error,
            Error::Call {
                operation: Operation::Connect | Operation::Send,
                errno: Errno::CONNREFUSED | Errno::NOENT,
                ..
            }
        );
        if is_gone {
            self.net.owed_mut().notifier = Notifier::none();
        }
        is_gone
    }

    /// Does something that begins with a word to the service manager; once more, and as without a manager, if it is gone.
    fn with_manager<T>(&mut self, act: impl Fn(&mut Self) -> Result<T, Error>) -> Result<T, Error> {
        let result = act(self);
        match result {
            Err(error) if self.give_up_manager(error) => {
                self.life.told(Err(error));
                act(self)
            }
            result => result,
        }
    }

    /// Returns whether the program may accept: from [`Service::ready`] until [`Service::poll`] has told it to drain, or is
    /// about to, and again after [`Event::Serve`].
    #[must_use]
    pub const fn accepts(&self) -> bool {
        self.life.accepts()
    }

    /// Returns what the program is to do, or to know, next; `None` when there is nothing until the service is readable, or
    /// until its deadline. Does not wait.
    pub fn poll(&mut self) -> Option<Event> {
        if core::mem::take(&mut self.closes) && self.is_owner() {
            self.net.close_active();
        }
        loop {
            let now = self.moment();
            let next = match self.life.next(now) {
                Some(Action::Event(event)) => {
                    // The program may fork before it calls again.
                    self.is_owner = None;
                    return Some(self.told(event));
                }
                Some(action) => Next::Act(action),
                None => self.next_source().map_or(Next::Rest, Next::Take),
            };
            // What a forked copy did here would be done to the process that began the service.
            match next {
                Next::Act(action) if self.is_owner() => self.act(action),
                Next::Take(source) if self.is_owner() => self.take(source),
                Next::Act(Action::Start) => self.life.started(Err(Error::Forked), Duration::ZERO, now),
                Next::Act(Action::Exec) => self.life.exec_failed(Error::Forked),
                Next::Act(_) => {}
                Next::Take(_) | Next::Rest => {
                    self.arm();
                    self.forget_round();
                    return None;
                }
            }
        }
    }

    /// The next source that shows something, of those that were asked since the last call that returned `None`.
    fn next_source(&mut self) -> Option<Source> {
        // An epoll instance that a forked copy asks forgets what is pending for the process that made it.
        if matches!(self.wait, Wait::One(..)) && !self.is_owner() {
            return None;
        }
        let mut shown = match self.shown.take() {
            Some(shown) => shown,
            None => self.ask(),
        };
        let mut source = shown.take();
        // Whoever watches by edges hears of nothing that has shown before and shows still. What has told everything is taken
        // out before, and a source that will not be quiet does not keep the program from its own work.
        if source.is_none() && (1..=TAKEN_AT_MOST).contains(&self.taken) && matches!(self.wait, Wait::One(..))
        {
            self.arm();
            shown = self.ask();
            source = shown.take();
        }
        self.taken += u8::from(source.is_some());
        self.shown = Some(shown);
        source
    }

    /// What was found out for one round of calls, and does not hold in the next.
    const fn forget_round(&mut self) {
        self.shown = None;
        self.taken = 0;
        self.now = None;
        self.is_owner = None;
    }

    fn is_owner(&mut self) -> bool {
        *self.is_owner.get_or_insert_with(|| getpid() == self.owner)
    }

    /// Asks for something that no signal has asked for. [`Service::poll`] says what comes of it; the service becomes
    /// readable for that.
    pub fn request(&mut self, request: Request) {
        self.life.request(request);
        self.show();
    }

    /// Says, while draining, that no connection is open any more. [`Service::poll`] says what follows; the service becomes
    /// readable for that. Close idle keep-alive connections first: nobody else does. At other times this does nothing.
    pub fn drained(&mut self) {
        self.life.drained();
        self.show();
    }

    /// Has the one descriptor show what the program's own call has brought about.
    fn show(&mut self) {
        self.arm();
        self.forget_round();
    }

    /// Says that the program does its work, for [`Watchdog::Alive`].
    pub fn alive(&mut self) {
        self.is_alive = true;
    }

    /// Sets the line that the service manager shows, `STATUS=`, if this is the main process. From the first call on the
    /// program has to set it itself, when it is ready and after [`Event::Main`]; the service says `serving N sockets`
    /// otherwise.
    ///
    /// # Errors
    ///
    /// - [`Error::Message`]: the line holds a newline or a NUL, or is too long.
    /// - [`Error::Call`]: the manager did not hear it. Nobody waits for that.
    #[doc(alias = "STATUS")]
    pub fn status(&mut self, line: &str) -> Result<(), Error> {
        self.has_status = true;
        if self.is_main() { self.notifier().send(&[Assignment::Status(line)]).map(drop) } else { Ok(()) }
    }

    /// Returns the descriptors to poll for reading, four at most, for a loop without [`AsFd`]. The set changes, so fetch it
    /// again after each [`Service::poll`].
    pub fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.sources().into_iter().map(|(_, fd)| fd)
    }

    /// Returns the moment at which to call [`Service::poll`] if nothing shows before; `None` for never. A moment that has
    /// passed means at once.
    #[must_use]
    pub fn deadline(&self) -> Option<Moment> {
        if self.life.is_pending() { Some(Moment::at(Duration::ZERO)) } else { self.life.deadline() }
    }

    /// What is waited for now; there is room for all of it.
    fn sources(&self) -> heapless::Vec<(Source, BorrowedFd<'_>), 4> {
        let mut sources = heapless::Vec::new();
        let mut add = |source, fd| {
            let _fits = sources.push((source, fd));
        };
        if let Some(signals) = self.wait.signals() {
            add(Source::Signals, signals.as_fd());
        }
        if let Some(predecessor) = self.net.owed().predecessor() {
            add(Source::Predecessor, predecessor.as_fd());
        }
        if let Some(successor) = self.net.owed().successor().filter(|_| self.life.watches_successor()) {
            successor.fds().for_each(|fd| add(Source::Successor, fd));
        }
        sources
    }

    /// The moment, if anything depends on it.
    fn moment(&mut self) -> Moment {
        match self.now {
            Some(now) => now,
            None if self.life.needs_clock() => self.read_clock(),
            None => Moment::at(Duration::ZERO),
        }
    }

    fn read_clock(&mut self) -> Moment {
        *self.now.insert(Moment::at(now()))
    }

    fn check_owner(&self) -> Result<(), Error> {
        if getpid() == self.owner { Ok(()) } else { Err(Error::Forked) }
    }

    /// Which sources show something now.
    fn ask(&mut self) -> Shown {
        match &mut self.wait {
            // An instance that cannot be asked has its sources asked one by one.
            Wait::One(watch, _) => watch.ask().unwrap_or_else(|_| self.ask_each()),
            Wait::Each(_) => self.ask_each(),
        }
    }

    fn ask_each(&self) -> Shown {
        let sources = self.sources();
        let mut fds = heapless::Vec::<_, 4>::new();
        for (_, fd) in &sources {
            let _fits = fds.push(PollFd::from_borrowed_fd(*fd, PollFlags::IN));
        }
        let mut shown = Shown::NOTHING;
        if rustix::event::poll(&mut fds, Some(&Timespec::default())).is_ok() {
            for (fd, (source, _)) in fds.iter().zip(&sources) {
                if !fd.revents().is_empty() {
                    shown.add(*source);
                }
            }
        } else {
            // More than the limit of open files, which was lowered since. To look at these two finds out the same.
            shown.add(Source::Signals);
            shown.add(Source::Successor);
        }
        shown
    }

    fn take(&mut self, source: Source) {
        match source {
            Source::Signals => self.take_signal(),
            Source::Predecessor => {
                // Its pidfd shows one thing, for ever.
                if let (Wait::One(watch, _), Some(predecessor)) = (&self.wait, self.net.owed().predecessor())
                {
                    watch.remove(predecessor.as_fd());
                }
                drop(self.net.owed_mut().take_predecessor());
                self.life.predecessor_ended();
            }
            Source::Successor => self.look(None),
        }
    }

    #[inline(never)]
    fn take_signal(&mut self) {
        // A signal that cannot be read now shows again.
        let Some(Ok(Some(signal))) = self.wait.signals().map(Signals::take) else { return };
        let is_init = self.owner.is_init();
        self.life.request(match signal {
            Signal::CHILD => return self.reap_orphans(),
            Signal::USR2 => Request::Spawn,
            Signal::HUP if is_init || self.policy.reload == Reload::Exec => Request::Exec,
            Signal::HUP => Request::Spawn,
            _ => Request::Terminate,
        });
        self.read_clock();
    }

    /// Reaps whatever child has ended: orphans, since PID 1 starts no successor.
    fn reap_orphans(&self) {
        if self.owner.is_init() && self.policy.takes_signals && self.policy.reaps_orphans {
            while let Ok(Some(_)) = waitid(WaitId::All, WaitIdOptions::EXITED | WaitIdOptions::NOHANG) {}
        }
    }

    fn look(&mut self, given_up: Option<Failure>) {
        self.release_successor();
        let Some(successor) = self.net.owed_mut().successor_mut() else { return };
        let found = match given_up {
            Some(failure) => successor.give_up(failure),
            None => successor.poll(),
        };
        let now = self.read_clock();
        self.life.looked(found, now);
    }

    #[inline(never)]
    fn act(&mut self, action: Action) {
        let now = self.moment();
        match action {
            Action::Start => self.start(now),
            Action::Look => self.look(None),
            Action::GiveUp(failure) => self.look(Some(failure)),
            Action::Tell(Message::Alive) if !self.feeds() => {}
            Action::Tell(Message::Serving) if self.has_status => {}
            Action::Tell(message) => self.tell(message),
            Action::Exec => self.exec(),
            Action::Report => self.report(now),
            Action::Event(_) => {}
        }
    }

    #[inline(never)]
    fn tell(&mut self, message: Message) {
        let heard = self.notifier().tell(message, self.net.count());
        if !matches!(message, Message::Alive) {
            self.is_reloading = matches!(message, Message::Reloading) && heard.is_ok();
        }
        if let Err(error) = heard {
            self.give_up_manager(error);
        }
        self.life.told(heard);
    }

    #[cold]
    #[inline(never)]
    fn exec(&mut self) {
        let is_told = core::mem::take(&mut self.is_reloading);
        let exec = |service: &mut Self| {
            service.net.exec(service.launch.reborrow(), &service.policy.restart, is_told)
        };
        let Err(error) = self.with_manager(exec);
        self.life.exec_failed(error);
    }

    /// Reports once more that this process is ready.
    #[cold]
    #[inline(never)]
    fn report(&mut self, now: Moment) {
        let heard = self.with_manager(|service| service.net.ready());
        self.life.reported(heard, now);
    }

    #[inline(never)]
    fn start(&mut self, now: Moment) {
        self.release_successor();
        let successor = self.net.spawn(self.launch.reborrow(), &self.policy.restart);
        let started = successor.map(|successor| successor.pid());
        let (first_look, now) = match self.policy.restart.readiness {
            Readiness::Reported => (self.policy.ready_within, now),
            Readiness::Executed => (Duration::ZERO, now),
            // The time that it has to live began while it was started.
            Readiness::Alive(time) => (time, self.read_clock()),
        };
        self.life.started(started, first_look, now);
    }

    /// Watches the successor no more, before something is called that may close its descriptors: [`Service::arm`] watches
    /// what is left of them.
    #[inline(never)]
    fn release_successor(&mut self) {
        if let Wait::One(watch, _) = &mut self.wait {
            // Nothing is added, so nothing fails.
            let _ = watch.watch_successor(self.net.owed().successor(), false);
        }
    }

    /// Whether the watchdog is to be fed now.
    fn feeds(&mut self) -> bool {
        self.policy.watchdog == Watchdog::Poll || core::mem::take(&mut self.is_alive)
    }

    /// Notes what an event means for this service itself.
    fn told(&mut self, event: Event) -> Event {
        self.closes = matches!(event, Event::Drain(Leave::HandOver | Leave::Exit));
        event
    }

    /// Has the one descriptor show what is to be waited for now.
    fn arm(&mut self) {
        let (deadline, is_watched) = (self.deadline(), self.life.watches_successor());
        let successor = self.net.owed().successor();
        let Wait::One(watch, _) = &mut self.wait else { return };
        if watch.is_set(deadline, successor, is_watched) || !self.is_owner() {
            return;
        }
        let Wait::One(watch, _) = &mut self.wait else { return };
        if let Err(error) = watch.watch_successor(self.net.owed().successor(), is_watched) {
            // It is looked at by the clock instead. What that finds is told at the next call.
            let now = self.read_clock();
            self.life.looked(Ok(Progress::Unsettled(Unsettled::Unseen(error))), now);
        }
        let deadline = self.deadline();
        if let Wait::One(watch, _) = &mut self.wait {
            watch.arm(deadline);
        }
    }

    fn note(&mut self, error: &Error) {
        self.refusal = refusal(error);
    }
}

/// How many sources are taken in one round of calls, before those that show still are left to the next.
const TAKEN_AT_MOST: u8 = 8;

const CONTROL: [Signal; 4] = [Signal::USR2, Signal::HUP, Signal::TERM, Signal::INT];
const CONTROL_AND_ORPHANS: [Signal; 5] =
    [Signal::USR2, Signal::HUP, Signal::TERM, Signal::INT, Signal::CHILD];

/// What a predecessor is told about an error.
fn refusal(error: &Error) -> Refusal {
    error.errno().map_or(Refusal::Code(1), Refusal::Errno)
}

impl<S: Sockets + ?Sized> Drop for Service<'_, S> {
    #[cold]
    #[inline(never)]
    fn drop(&mut self) {
        if getpid() != self.owner {
            return;
        }
        // A predecessor that has ended needs no reason.
        let _ = self.net.owed_mut().refuse(self.refusal);
        if self.owns {
            self.net.close_all();
        }
    }
}

impl<S: Sockets + ?Sized> AsFd for Service<'_, S> {
    /// The descriptor that is readable when [`Service::poll`] has something to return: an epoll instance, which other
    /// instances can watch. It is the same one until the service is dropped. Who watches it by edges, as tokio does, hears
    /// of nothing that is left there: call [`Service::poll`] until it returns `None`, then wait. Without [`Policy::one_descriptor`] it shows signals alone.
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.wait {
            Wait::One(watch, _) => watch.as_fd(),
            Wait::Each(signals) => signals.as_fd(),
        }
    }
}

impl<S: Sockets + ?Sized> AsRawFd for Service<'_, S> {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

impl<S: Sockets + ?Sized> fmt::Debug for Service<'_, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Service")
            .field("policy", &self.policy)
            .field("life", &self.life)
            .finish_non_exhaustive()
    }
}
