//! The policy: how long what may take, and what a signal means. Values alone; no system call.

use crate::restart::Restart;
use core::time::Duration;

/// How a [`Service`](super::Service) lives: times, signals, and how a successor is started.
///
/// ```
/// use gracenet::Policy;
/// use std::time::Duration;
///
/// const POLICY: Policy<'_> = Policy::new().drain_within(Duration::from_secs(60));
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Policy<'p> {
    pub(super) ready_within: Duration,
    pub(super) drain_within: Duration,
    pub(super) barrier_within: Duration,
    pub(super) retry_every: Duration,
    pub(super) restart: Restart<'p>,
    pub(super) reload: Reload,
    pub(super) takes_signals: bool,
    pub(super) reaps_orphans: bool,
    pub(super) watchdog: Watchdog,
    pub(super) watches: bool,
    pub(super) has_manager: bool,
}

/// What SIGHUP asks for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Reload {
    /// A successor, as SIGUSR2 does. As PID 1, which no successor outlives: an exec in place.
    Spawn,
    /// An exec in place.
    Exec,
}

/// Who feeds the service manager's watchdog.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Watchdog {
    /// The service, as long as the program calls [`Service::poll`](super::Service::poll).
    Poll,
    /// The service, if the program has called [`Service::alive`](super::Service::alive) since the last time. For a program
    /// whose loop may go on while its work does not.
    Alive,
    /// The program itself, or nobody.
    Off,
}

impl Default for Policy<'_> {
    fn default() -> Self {
        Self::new()
    }
}

impl<'p> Policy<'p> {
    /// 30 seconds for a successor to get ready and for connections to end, 5 seconds for a service manager to answer, and
    /// everything that failed is tried again each second. The service takes SIGUSR2, SIGHUP, SIGTERM and SIGINT, feeds the
    /// watchdog, and reaps orphans as PID 1.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            ready_within: Duration::from_secs(30),
            drain_within: Duration::from_secs(30),
            barrier_within: Duration::from_secs(5),
            retry_every: Duration::from_secs(1),
            restart: Restart::new(),
            reload: Reload::Spawn,
            takes_signals: true,
            reaps_orphans: true,
            watchdog: Watchdog::Poll,
            watches: true,
            has_manager: true,
        }
    }

    /// Sets how long a successor may take to get ready. A successor that takes longer is killed, and this process serves on.
    #[must_use]
    pub const fn ready_within(mut self, time: Duration) -> Self {
        self.ready_within = time;
        self
    }

    /// Sets how long connections may take to end. The process leaves when the time is over, whatever is still open.
    #[must_use]
    #[doc(alias = "graceful shutdown")]
    pub const fn drain_within(mut self, time: Duration) -> Self {
        self.drain_within = time;
        self
    }

    /// Sets how long the service manager may take to confirm a successor that is ready. This process leaves all the same
    /// when the time is over.
    #[must_use]
    pub const fn barrier_within(mut self, time: Duration) -> Self {
        self.barrier_within = time;
        self
    }

    /// Sets the time after which a failed message, or a failed look at a successor, is tried again; a millisecond at least.
    #[must_use]
    pub const fn retry_every(mut self, time: Duration) -> Self {
        // At once would be within one call of `Service::poll`, which would not return.
        const LEAST: Duration = Duration::from_millis(1);
        self.retry_every = if time.as_nanos() < LEAST.as_nanos() { LEAST } else { time };
        self
    }

    /// Sets how a successor is started, and how the program is executed in place.
    #[must_use]
    pub const fn restart(mut self, restart: Restart<'p>) -> Self {
        self.restart = restart;
        self
    }

    /// Sets what SIGHUP asks for.
    #[must_use]
    pub const fn reload(mut self, reload: Reload) -> Self {
        self.reload = reload;
        self
    }

    /// Sets whether the service takes the signals that control it. A program that takes them itself says what they mean by
    /// [`Service::request`](super::Service::request).
    ///
    /// | signal | asks for |
    /// |---|---|
    /// | SIGUSR2 | [`Request::Spawn`](super::Request::Spawn) |
    /// | SIGHUP | what [`Policy::reload`] says |
    /// | SIGTERM, SIGINT | [`Request::Terminate`](super::Request::Terminate) |
    ///
    /// The service blocks the signals that it takes, in the thread that begins it and in every later one: see
    /// [`Signals`](crate::Signals).
    #[must_use]
    pub const fn signals(mut self, takes: bool) -> Self {
        self.takes_signals = takes;
        self
    }

    /// Sets whether the service, as PID 1, reaps the children that are given to it. A wait for any child takes the status
    /// that `std::process::Child::wait` waits for, so a PID 1 that starts children of its own sets this to `false`.
    ///
    /// Needs [`Policy::signals`].
    #[must_use]
    pub const fn orphans(mut self, reaps: bool) -> Self {
        self.reaps_orphans = reaps;
        self
    }

    /// Sets who feeds the service manager's watchdog.
    #[must_use]
    #[doc(alias = "WatchdogSec")]
    pub const fn watchdog(mut self, watchdog: Watchdog) -> Self {
        self.watchdog = watchdog;
        self
    }

    /// Sets whether the service makes the one descriptor that shows everything: an epoll instance and a timer. Without it, a
    /// loop polls [`Service::fds`](super::Service::fds) until [`Service::deadline`](super::Service::deadline).
    ///
    /// Needs [`Policy::signals`]: a service that takes no signals makes the descriptor all the same.
    #[must_use]
    pub const fn one_descriptor(mut self, makes: bool) -> Self {
        self.watches = makes;
        self
    }

    /// Sets whether a [`Process`](super::Process) has its service speak to the service manager that `NOTIFY_SOCKET` names.
    /// Without it, a program that is linked as one whole does not carry the code of the messages and their words: 25 KB.
    ///
    /// A program that leaves the manager to somebody else switches off the [`Policy::watchdog`] too.
    #[must_use]
    #[doc(alias = "NOTIFY_SOCKET")]
    pub const fn manager(mut self, speaks: bool) -> Self {
        self.has_manager = speaks;
        self
    }
}
