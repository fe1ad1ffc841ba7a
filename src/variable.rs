//! The environment variables of socket activation and of notification, by name.
//!
//! This module makes no system call and reads no environment.

/// The variables with which a service manager or a predecessor informs a process.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Variable {
    /// `LISTEN_PID`
    Pid,
    /// `LISTEN_PIDFDID`
    PidfdId,
    /// `LISTEN_FDS`
    Fds,
    /// `LISTEN_FDNAMES`
    Names,
    /// `LISTEN_READY_FD`
    ReadyFd,
    /// `NOTIFY_SOCKET`
    NotifySocket,
    /// `WATCHDOG_USEC`
    WatchdogUsec,
    /// `WATCHDOG_PID`
    WatchdogPid,
}

impl Variable {
    /// The variables of socket activation, which a restart writes anew.
    pub const ACTIVATION: [Self; 5] = [Self::Pid, Self::PidfdId, Self::Fds, Self::Names, Self::ReadyFd];

    /// The variables of notification, which a successor gets too.
    pub const NOTIFICATION: [Self; 3] = [Self::NotifySocket, Self::WatchdogUsec, Self::WatchdogPid];

    /// Returns the variable's name in the environment.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pid => "LISTEN_PID",
            Self::PidfdId => "LISTEN_PIDFDID",
            Self::Fds => "LISTEN_FDS",
            Self::Names => "LISTEN_FDNAMES",
            Self::ReadyFd => "LISTEN_READY_FD",
            Self::NotifySocket => "NOTIFY_SOCKET",
            Self::WatchdogUsec => "WATCHDOG_USEC",
            Self::WatchdogPid => "WATCHDOG_PID",
        }
    }
}
