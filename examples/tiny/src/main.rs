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
//! As PID 1 it collects the orphans that are given to it, and restarts in place alone: no successor outlives PID 1.
//!
//! What is called in one place is kept out of line there, by `inline(never)`: inlined, all of it would share one large
//! frame, with longer instructions for each access, and more of the stack in use at any time.
#![no_std]
#![no_main]

mod complaint;
mod connection;
mod line;
mod start;

use complaint::Complaint;
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

/// How many sockets it serves: 16, or what `TINY_LISTENERS` says when it is built.
const LISTENERS: usize = match option_env!("TINY_LISTENERS") {
    Some(number) => match usize::from_str_radix(number, 10) {
        Ok(number) => number,
        Err(_) => panic!("TINY_LISTENERS is not a number"),
    },
    None => 16,
};

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
    /// The first connection; the others follow.
    pub(super) const CONNECTION: u64 = 0x100;
    /// The first listener; the others follow.
    pub(super) const LISTENER: u64 = CONNECTION + super::CONNECTIONS as u64;
}

/// The program, given the stack that it began with, where arguments and environment are.
fn main(stack: *const usize) -> Result<(), Complaint> {
    // Borrowed where they are, here and below: a move would take as much of the stack once more.
    // SAFETY: it is the stack pointer at the entry, and nothing writes to what it points to.
    let launch = &mut unsafe { Launch::from_stack(stack) };
    let launch = launch.as_mut().map_err(|error| *error)?;
    let net = &mut Net::new();
    // SAFETY: nothing has been opened yet.
    unsafe { net.inherit(launch) }?;
    let connections = &mut [const { None }; CONNECTIONS];
    let mut server = Server::open(net, connections, launch)?;
    // First the report: one that is not taken is from a process that shall not serve.
    server.net.ready()?;
    server.say_ready();
    server.run(launch)
}

/// How this program was started; with room for an argument for each socket and 15 more, and for 255 variables.
type Launched = Launch<{ LISTENERS + 16 }, 256>;

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

struct Server<'s> {
    net: &'s mut Net<'static, LISTENERS>,
    claimed: usize,
    connections: &'s mut [Option<Connection>; CONNECTIONS],
    phase: Phase,
    terminated: bool,
    signals: Signals,
    /// Runs out when the phase has lasted too long.
    timer: OwnedFd,
    epoll: OwnedFd,
    /// Whether the listeners are watched.
    accepting: bool,
}

impl<'s> Server<'s> {
    #[inline(never)]
    fn open(
        net: &'s mut Net<'static, LISTENERS>,
        connections: &'s mut [Option<Connection>; CONNECTIONS],
        launch: &Launched,
    ) -> Result<Self, Complaint> {
        // From here on signals wait until they are read.
        let signals = Signals::new(if getpid().is_init() { &CONTROL_AND_ORPHANS } else { &CONTROL })?;
        let inherited = net.inherited().count();
        let mut addresses = launch.args().skip(1).filter_map(|address| address.to_str().ok()).peekable();
        if addresses.peek().is_none() {
            listen(net, "127.0.0.1:8080")?;
        }
        addresses.try_for_each(|address| listen(net, address))?;
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let server = Self {
            claimed: inherited - net.inherited().count(),
            net,
            connections,
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

    fn watch(&self, fd: impl AsFd, key: u64) -> Result<(), Complaint> {
        let data = epoll::EventData::new_u64(key);
        Ok(epoll::add(&self.epoll, fd, data, epoll::EventFlags::IN)?)
    }

    fn say_ready(&self) {
        let mut line = Line::new();
        line.text("ready pid=").number(start::pid());
        line.text(" inherited=").number(self.claimed as u64);
        line.text(" listeners=").number(self.net.active().len() as u64).text("\n");
        line.write(&start::stdout());
    }

    #[inline(never)]
    fn run(&mut self, launch: &mut Launched) -> Result<(), Complaint> {
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
                Err(errno) => return Err(errno.into()),
            };
            for event in events {
                match event.data.u64() {
                    key::SIGNALS => {
                        // Another one shows again.
                        if let Some(signal) = self.signals.take()?
                            && self.handle(signal, launch)?
                        {
                            return Ok(());
                        }
                    }
                    key::TIMER => self.run_out()?,
                    key::SUCCESSOR => self.look_at_successor()?,
                    key @ key::LISTENER.. => self.accept((key - key::LISTENER) as usize)?,
                    key => {
                        let slot = self.connections.get_mut((key - key::CONNECTION) as usize);
                        if let Some(slot) = slot
                            && slot.as_mut().is_some_and(Connection::advance)
                        {
                            *slot = None;
                        }
                    }
                }
            }
        }
    }

    /// Watches the listeners while there is room for a connection and this process serves.
    fn watch_listeners(&mut self) -> Result<(), Complaint> {
        let has_room = self.connections.iter().any(Option::is_none);
        let accepting = has_room && !matches!(self.phase, Phase::Draining { .. });
        if accepting != self.accepting {
            for ((_, listener), key) in self.net.active().zip(key::LISTENER..) {
                if accepting {
                    self.watch(listener, key)?;
                } else {
                    epoll::delete(&self.epoll, listener)?;
                }
            }
            self.accepting = accepting;
        }
        Ok(())
    }

    /// Does what a signal asks for; whether the program is to end at once.
    #[inline(never)]
    fn handle(&mut self, signal: Signal, launch: &mut Launched) -> Result<bool, Complaint> {
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

    #[inline(never)]
    fn spawn(&mut self, launch: &mut Launched) -> Result<(), Complaint> {
        if getpid().is_init() {
            // The kernel ends a container with its PID 1.
            Complaint::new("PID 1 has no successor, but restarts in place").write();
            return Ok(());
        }
        match self.net.start_process(launch) {
            Ok(_) => {
                self.phase = Phase::Restarting;
                self.set_timer(PATIENCE)?;
                let epoll = &self.epoll;
                for fd in self.net.successor().into_iter().flat_map(|successor| successor.fds()) {
                    let data = epoll::EventData::new_u64(key::SUCCESSOR);
                    epoll::add(epoll, fd, data, epoll::EventFlags::IN)?;
                }
                Ok(())
            }
            // It got ready since, and the loop has yet to come to it.
            Err(Error::HandedOver) => self.drain(false),
            Err(error) => {
                Complaint::from(error).write();
                Ok(())
            }
        }
    }

    fn look_at_successor(&mut self) -> Result<(), Complaint> {
        match (self.phase, self.net.successor()) {
            (Phase::Restarting, Some(successor)) => {
                let verdict = successor.poll();
                self.settle(verdict)
            }
            _ => Ok(()),
        }
    }

    #[inline(never)]
    fn settle(&mut self, verdict: Result<bool, Failure>) -> Result<(), Complaint> {
        match verdict {
            Ok(false) => Ok(()),
            Ok(true) => self.drain(false),
            Err(failure) => {
                Complaint::from(failure).write();
                self.forget_successor();
                self.phase = Phase::Serving;
                self.set_timer(0)
            }
        }
    }

    /// The phase has lasted too long.
    #[inline(never)]
    fn run_out(&mut self) -> Result<(), Complaint> {
        self.set_timer(0)?;
        match (self.phase, self.net.successor()) {
            (Phase::Restarting, Some(successor)) => {
                // One that is ready already stays.
                successor.kill()?;
                let verdict = successor.poll();
                self.settle(verdict)
            }
            (Phase::Draining { .. }, _) => {
                *self.connections = [const { None }; CONNECTIONS];
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Accepts no more: what comes from now on waits in the queues, for whoever has the listeners next.
    fn drain(&mut self, exec: bool) -> Result<(), Complaint> {
        self.forget_successor();
        self.phase = Phase::Draining { exec };
        self.set_timer(PATIENCE)
    }

    /// What the successor's descriptors still have to say is nothing to wait for, and they would say it again and again.
    fn forget_successor(&mut self) {
        for fd in self.net.successor().into_iter().flat_map(|successor| successor.fds()) {
            // One that is not watched is what was wanted.
            let _ = epoll::delete(&self.epoll, fd);
        }
    }

    /// Executes anew in place; if that fails, serves on.
    #[inline(never)]
    fn exec(&mut self, launch: &mut Launched) -> Result<(), Complaint> {
        let Err(error) = self.net.exec(launch, &Restart::new());
        Complaint::from(error).write();
        self.phase = Phase::Serving;
        self.set_timer(0)
    }

    #[inline(never)]
    fn accept(&mut self, position: usize) -> Result<(), Complaint> {
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
    fn set_timer(&self, seconds: i64) -> Result<(), Complaint> {
        let time = Itimerspec {
            it_interval: Timespec { tv_sec: 0, tv_nsec: 0 },
            it_value: Timespec { tv_sec: seconds, tv_nsec: 0 },
        };
        timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &time)?;
        Ok(())
    }
}

/// Claims or opens one socket.
fn listen(net: &mut Net<'static, LISTENERS>, argument: &str) -> Result<(), Complaint> {
    let address = argument.parse().map_err(|_| Complaint::new("an address cannot be read"))?;
    let endpoint = Endpoint::tcp(address);
    let id = net.listen_at(&endpoint, &Options::new().nonblocking(true))?;
    if net.predecessor().is_none() {
        // A service manager hands sockets over blocking. No other process uses them yet.
        rustix::io::ioctl_fionbio(net.fd(id)?, true)?;
    }
    Ok(())
}
