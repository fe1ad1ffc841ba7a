//! A static HTTP server without libc and without an allocator, that restarts without losing a connection.
//!
//! ```text
//! tiny [ADDRESS...]
//! ```
//!
//! ADDRESS is `[NETWORK=]ADDRESS` as for `serve`, of which this is the small sister: the same ready line, the
//! same `GET /`, the same signals. Without one it serves on 127.0.0.1:8080.
//!
//! | signal | effect |
//! |---|---|
//! | SIGUSR2 | starts a successor; when that is ready, stops accepting, drains, exits |
//! | SIGHUP | drains, then executes in place |
//! | SIGTERM, SIGINT | drains, exits; the second one exits at once |
//!
//! As PID 1 it collects the orphans that are given to it.
#![no_std]
#![no_main]

mod connection;
mod line;
mod start;

use connection::Connection;
use core::mem::MaybeUninit;
use gracenet::{Endpoint, Error, Failure, Launch, Net, Options, Restart, Signals};
use line::Line;
use rustix::event::epoll;
use rustix::fd::{AsFd, OwnedFd};
use rustix::io::Errno;
use rustix::net::SocketFlags;
use rustix::process::{Signal, WaitId, WaitIdOptions, getpid, waitid};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};

/// How many sockets it serves.
const LISTENERS: usize = 16;

/// How many connections it serves at a time; more wait in the queues.
const CONNECTIONS: usize = 64;

/// How many seconds a successor has to get ready, and connections have to end.
const PATIENCE: i64 = 30;

const CONTROL: [Signal; 4] = [Signal::USR2, Signal::HUP, Signal::TERM, Signal::INT];
const CONTROL_AND_ORPHANS: [Signal; 5] =
    [Signal::USR2, Signal::HUP, Signal::TERM, Signal::INT, Signal::CHILD];

/// What the loop waits for.
mod key {
    pub(super) const SIGNALS: u64 = 0;
    pub(super) const TIMER: u64 = 1;
    pub(super) const SUCCESSOR: u64 = 2;
    /// The first listener; the others follow.
    pub(super) const LISTENER: u64 = 0x100;
    /// The first connection; the others follow.
    pub(super) const CONNECTION: u64 = 0x200;
}

/// The program, given the stack that it began with, where arguments and environment are.
fn main(stack: *const usize) -> Result<(), Error> {
    // SAFETY: it is the stack pointer at the entry, and nothing writes to what it points to.
    let mut launch: Launch<32, 512> = unsafe { Launch::from_stack(stack) }?;
    let mut net = Net::<LISTENERS>::new();
    // SAFETY: nothing has been opened yet.
    unsafe { net.inherit(&mut launch) }?;
    let mut server = Server::open(net, &launch)?;
    server.net.ready()?;
    server.say_ready();
    server.run(&mut launch)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Serving,
    /// A successor is in flight.
    Restarting,
    /// Accepts no more, and exits or executes anew when the last connection is done.
    Draining {
        exec: bool,
    },
}

struct Server {
    net: Net<'static, LISTENERS>,
    claimed: usize,
    connections: [Option<Connection>; CONNECTIONS],
    phase: Phase,
    terminated: bool,
    signals: Signals,
    /// Runs out when the phase has lasted too long.
    timer: OwnedFd,
    epoll: OwnedFd,
    /// Whether the listeners are watched.
    accepting: bool,
}

impl Server {
    fn open(mut net: Net<'static, LISTENERS>, launch: &Launch<32, 512>) -> Result<Self, Error> {
        // From here on signals wait until they are read.
        let signals = Signals::new(if getpid().is_init() { &CONTROL_AND_ORPHANS } else { &CONTROL })?;
        let inherited = net.inherited().count();
        let mut addresses = launch.args().skip(1).filter_map(|address| address.to_str().ok()).peekable();
        if addresses.peek().is_none() {
            listen(&mut net, "127.0.0.1:8080")?;
        }
        addresses.try_for_each(|address| listen(&mut net, address))?;
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags).map_err(failed)?;
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(failed)?;
        let server = Self {
            claimed: inherited - net.inherited().count(),
            net,
            connections: [const { None }; CONNECTIONS],
            phase: Phase::Serving,
            terminated: false,
            signals,
            timer,
            epoll,
            accepting: false,
        };
        server.watch(&server.signals, key::SIGNALS)?;
        server.watch(&server.timer, key::TIMER)?;
        Ok(server)
    }

    fn watch(&self, fd: impl AsFd, key: u64) -> Result<(), Error> {
        let data = epoll::EventData::new_u64(key);
        epoll::add(&self.epoll, fd, data, epoll::EventFlags::IN).map_err(failed)
    }

    fn say_ready(&self) {
        let mut line = Line::new();
        line.text("ready pid=").number(start::pid());
        line.text(" inherited=").number(self.claimed as u64);
        line.text(" listeners=").number(self.net.active().len() as u64).text("\n");
        line.write(&start::stdout());
    }

    fn run(&mut self, launch: &mut Launch<32, 512>) -> Result<(), Error> {
        loop {
            let is_idle = self.connections.iter().all(Option::is_none);
            match self.phase {
                Phase::Draining { exec: false } if is_idle => return Ok(()),
                Phase::Draining { exec: true } if is_idle => self.exec(launch)?,
                _ => {}
            }
            self.watch_listeners()?;
            let mut events = [MaybeUninit::uninit(); 16];
            let events = match epoll::wait(&self.epoll, &mut events, None) {
                Ok((events, _)) => events,
                Err(Errno::INTR) => continue,
                Err(errno) => return Err(failed(errno)),
            };
            for event in events {
                match event.data.u64() {
                    key::SIGNALS => {
                        while let Some(signal) = self.signals.take()? {
                            if self.handle(signal, launch)? {
                                return Ok(());
                            }
                        }
                    }
                    key::TIMER => self.run_out()?,
                    key::SUCCESSOR => self.look_at_successor()?,
                    key @ key::CONNECTION.. => {
                        let slot = self.connections.get_mut((key - key::CONNECTION) as usize);
                        if let Some(slot) = slot
                            && slot.as_mut().is_some_and(Connection::advance)
                        {
                            *slot = None;
                        }
                    }
                    key => self.accept((key - key::LISTENER) as usize)?,
                }
            }
        }
    }

    /// Watches the listeners while there is room for a connection and this process serves.
    fn watch_listeners(&mut self) -> Result<(), Error> {
        let has_room = self.connections.iter().any(Option::is_none);
        let accepting = has_room && !matches!(self.phase, Phase::Draining { .. });
        if accepting != self.accepting {
            for ((_, listener), key) in self.net.active().zip(key::LISTENER..) {
                if accepting {
                    self.watch(listener, key)?;
                } else {
                    epoll::delete(&self.epoll, listener).map_err(failed)?;
                }
            }
            self.accepting = accepting;
        }
        Ok(())
    }

    /// Does what a signal asks for; whether the program is to end at once.
    fn handle(&mut self, signal: Signal, launch: &mut Launch<32, 512>) -> Result<bool, Error> {
        match (signal, self.phase) {
            (Signal::CHILD, _) => {
                let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
                while let Ok(Some(_)) = waitid(WaitId::All, options) {}
            }
            (Signal::USR2, Phase::Serving | Phase::Restarting) => self.spawn(launch)?,
            (Signal::HUP, Phase::Serving) => self.drain(true)?,
            (Signal::TERM | Signal::INT, _) if self.terminated => return Ok(true),
            (Signal::TERM | Signal::INT, phase) => {
                self.terminated = true;
                if phase == Phase::Restarting {
                    // One that is ready already stays.
                    self.net.successor().map_or(Ok(false), |successor| successor.kill())?;
                }
                self.drain(false)?;
            }
            _ => {}
        }
        Ok(false)
    }

    fn spawn(&mut self, launch: &mut Launch<32, 512>) -> Result<(), Error> {
        match self.net.start_process(launch) {
            Ok(_) => {
                self.phase = Phase::Restarting;
                self.set_timer(PATIENCE)?;
                let epoll = &self.epoll;
                for fd in self.net.successor().into_iter().flat_map(|successor| successor.fds()) {
                    let data = epoll::EventData::new_u64(key::SUCCESSOR);
                    epoll::add(epoll, fd, data, epoll::EventFlags::IN).map_err(failed)?;
                }
                Ok(())
            }
            // It got ready since, and the loop has yet to come to it.
            Err(Error::HandedOver) => self.drain(false),
            Err(error) => {
                complain(&error);
                Ok(())
            }
        }
    }

    fn look_at_successor(&mut self) -> Result<(), Error> {
        match (self.phase, self.net.successor()) {
            (Phase::Restarting, Some(successor)) => {
                let verdict = successor.poll();
                self.settle(verdict)
            }
            _ => Ok(()),
        }
    }

    fn settle(&mut self, verdict: Result<bool, Failure>) -> Result<(), Error> {
        match verdict {
            Ok(false) => Ok(()),
            Ok(true) => self.drain(false),
            Err(failure) => {
                complain(match &failure {
                    Failure::Error(error) => error,
                    _ => &Error::NotInherited,
                });
                self.phase = Phase::Serving;
                self.set_timer(0)
            }
        }
    }

    /// The phase has lasted too long.
    fn run_out(&mut self) -> Result<(), Error> {
        self.set_timer(0)?;
        match (self.phase, self.net.successor()) {
            (Phase::Restarting, Some(successor)) => {
                let verdict = successor.wait_ready(core::time::Duration::ZERO).map(|()| true);
                self.settle(verdict)
            }
            (Phase::Draining { .. }, _) => {
                self.connections = [const { None }; CONNECTIONS];
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Accepts no more: what comes from now on waits in the queues, for whoever has the listeners next.
    fn drain(&mut self, exec: bool) -> Result<(), Error> {
        self.forget_successor();
        self.phase = Phase::Draining { exec };
        self.set_timer(PATIENCE)
    }

    /// What the successor's descriptors still have to say is nothing to wait for.
    fn forget_successor(&mut self) {
        for fd in self.net.successor().into_iter().flat_map(|successor| successor.fds()) {
            // One that is not watched is what was wanted.
            let _ = epoll::delete(&self.epoll, fd);
        }
    }

    /// Executes anew in place; if that fails, serves on.
    fn exec(&mut self, launch: &mut Launch<32, 512>) -> Result<(), Error> {
        let Err(error) = self.net.exec(launch, &Restart::new());
        complain(&error);
        self.phase = Phase::Serving;
        self.set_timer(0)
    }

    fn accept(&mut self, position: usize) -> Result<(), Error> {
        let Some(slot) = self.connections.iter().position(Option::is_none).filter(|_| self.accepting) else {
            return Ok(());
        };
        let Some((_, listener)) = self.net.active().nth(position) else { return Ok(()) };
        // Another process may have been faster: then there is nothing to accept.
        let Ok(connection) = rustix::net::accept_with(listener, SocketFlags::CLOEXEC) else { return Ok(()) };
        self.watch(&connection, key::CONNECTION + slot as u64)?;
        if let Some(slot) = self.connections.get_mut(slot) {
            *slot = Some(Connection::new(connection));
        }
        Ok(())
    }

    /// Has the timer run out in so many seconds; never, for 0.
    fn set_timer(&self, seconds: i64) -> Result<(), Error> {
        let time = Itimerspec {
            it_interval: Timespec { tv_sec: 0, tv_nsec: 0 },
            it_value: Timespec { tv_sec: seconds, tv_nsec: 0 },
        };
        timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &time).map(drop).map_err(failed)
    }
}

/// Claims or opens one socket.
fn listen(net: &mut Net<'static, LISTENERS>, argument: &str) -> Result<(), Error> {
    let (network, address) = match argument.split_once('=') {
        Some(pair) => pair,
        None if argument.starts_with(['/', '@']) => ("unix", argument),
        None => ("tcp", argument),
    };
    let endpoint = Endpoint::parse(network, address)?;
    let id = net.listen_at(&endpoint, &Options::new().nonblocking(true).replace_stale(true))?;
    if net.predecessor().is_none() {
        // A service manager hands sockets over blocking. No other process uses them yet.
        rustix::io::ioctl_fionbio(net.fd(id)?, true).map_err(failed)?;
    }
    Ok(())
}

/// One line on stderr about a restart that failed.
fn complain(error: &Error) {
    let mut line = Line::new();
    line.text("restart failed: ");
    match error.errno() {
        Some(errno) => line.text("errno ").number(errno.raw_os_error() as u64),
        None => line.text("successor ended or was late"),
    };
    line.text("\n").write(&start::stderr());
}

/// A call of the server's own that does not fail unless the kernel has no memory or descriptor left.
fn failed(errno: Errno) -> Error {
    Error::Call { call: gracenet::error::Call::Poll, fd: None, errno }
}
