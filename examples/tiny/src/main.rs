//! A static HTTP server without libc and without an allocator, that restarts without losing a connection.
//!
//! ```text
//! tiny [ADDRESS...]
//! ```
//!
//! ADDRESS is an IP address and a port, `127.0.0.1:8080` or `[::1]:8080`; without one it is the former. This is the
//! small sister of `serve`: the same ready line, the same `GET /`, the same signals.
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

use complaint::{Complained, complain};
use connection::Connection;
use gracenet::{Endpoint, Launch, ListenOptions, Net, Progress, Restart, Signals, Successor, Unsettled};
use heapless::Vec;
use line::Line;
use rustix::event::{PollFd, PollFlags, poll};
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

/// How many descriptors the loop waits for at most: these, the signals, the timer, and the successor's two.
const POLLED: usize = LISTENERS + CONNECTIONS + 4;

/// How many seconds a successor has to get ready, and connections have to end: all of them when it drains, and one
/// where there is room for no more.
const PATIENCE: i64 = 30;

/// SIGPIPE is one that nothing comes of, instead of the end: whoever reads what is said may leave.
const CONTROL: [Signal; 5] = [Signal::USR2, Signal::HUP, Signal::TERM, Signal::INT, Signal::PIPE];
const CONTROL_AND_ORPHANS: [Signal; 6] =
    [Signal::USR2, Signal::HUP, Signal::TERM, Signal::INT, Signal::PIPE, Signal::CHILD];

/// The program, given the stack that it began with, where arguments and environment are.
fn main(stack: *const usize) -> Result<(), Complained> {
    // Filled and borrowed where they are, here and below: a move would take as much of the stack once more.
    let launch = &mut Launch::empty();
    // SAFETY: it is the stack pointer at the entry, and nothing writes to what it points to.
    unsafe { launch.capture_from_stack(stack) }?;
    let net = &mut Net::new();
    // SAFETY: nothing has been opened yet.
    unsafe { net.inherit(launch) }?;
    let connections = &mut Vec::new();
    let mut server = Server::open(net, connections, launch)?;
    // It can accept, and says so before it reports: the report wakes the predecessor, which has much to do then,
    // perhaps on this very processor. One that was given up in this instant has said so in vain, and ends.
    server.say_ready();
    server.net.ready()?;
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
    net: &'s mut Net<LISTENERS>,
    claimed: usize,
    connections: &'s mut Vec<Connection, CONNECTIONS>,
    phase: Phase,
    terminated: bool,
    /// Whether a connection could not be accepted for want of something: then none is for a moment.
    exhausted: bool,
    /// Whether it serves, and has room for no more connections.
    crowded: bool,
    signals: Signals,
    /// Runs out when the phase has lasted too long. Made when the program is ready: without it none lasts too long,
    /// and that is no reason to end for one whose predecessor has left.
    timer: Option<OwnedFd>,
}

impl<'s> Server<'s> {
    #[inline(never)]
    fn open(
        net: &'s mut Net<LISTENERS>,
        connections: &'s mut Vec<Connection, CONNECTIONS>,
        launch: &Launched,
    ) -> Result<Self, Complained> {
        // From here on signals wait until they are read.
        let signals = Signals::new(if getpid().is_init() { &CONTROL_AND_ORPHANS } else { &CONTROL })?;
        let inherited = net.inherited().count();
        let mut addresses = launch.args().skip(1).filter_map(|address| address.to_str().ok()).peekable();
        if addresses.peek().is_none() {
            listen(net, "127.0.0.1:8080")?;
        }
        addresses.try_for_each(|address| listen(net, address))?;
        Ok(Self {
            claimed: inherited - net.inherited().count(),
            net,
            connections,
            phase: Phase::Serving,
            terminated: false,
            exhausted: false,
            crowded: false,
            signals,
            timer: None,
        })
    }

    fn say_ready(&self) {
        let mut line = Line::new();
        line.text("ready pid=").number(start::pid());
        line.text(" inherited=").number(self.claimed as u64);
        line.text(" listeners=").number(self.net.active().len() as u64).text("\n");
        line.write(&start::stdout());
    }

    #[inline(never)]
    fn run(&mut self, launch: &mut Launched) -> Result<(), Complained> {
        self.timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC).ok();
        loop {
            if self.connections.is_empty() {
                match self.phase {
                    Phase::Draining { exec: false } => return Ok(()),
                    Phase::Draining { exec: true } => self.exec(launch),
                    _ => {}
                }
            }
            self.watch_crowd();
            let shown = &mut Vec::new();
            let listeners = self.wait(shown)?;
            self.exhausted = false;
            // What is shown comes in the order of the descriptors.
            let mut shown = shown.iter().copied();
            let signalled = shown.next() == Some(true);
            self.connections.retain_mut(|connection| shown.next() != Some(true) || !connection.advance());
            for position in 0..listeners {
                if shown.next() == Some(true) {
                    self.accept(position);
                }
            }
            if self.timer.is_some() && shown.next() == Some(true) {
                self.run_out();
            }
            if self.phase == Phase::Restarting && shown.any(|shown| shown) {
                self.look_at_successor();
            }
            // Another one shows again.
            if signalled
                && let Some(signal) = self.signals.take()?
                && self.handle(signal, launch)
            {
                return Ok(());
            }
        }
    }

    /// Sets a time for one connection to end where there is room for no more: clients that say nothing would keep all
    /// others out.
    fn watch_crowd(&mut self) {
        let serves = self.phase == Phase::Serving;
        let crowded = serves && self.connections.is_full();
        if core::mem::replace(&mut self.crowded, crowded) != crowded && serves {
            self.set_timer(if crowded { PATIENCE } else { 0 });
        }
    }

    /// Waits until something happens: in `shown`, whether it did on the signals, each connection, each of so many
    /// listeners, the timer if there is one, and the successor's descriptors. Nothing, if a signal came that nobody
    /// asked for.
    #[inline(never)]
    fn wait(&self, shown: &mut Vec<bool, POLLED>) -> Result<usize, Complained> {
        let mut fds: Vec<_, POLLED> = Vec::new();
        let mut add = |fd| {
            let _full = fds.push(PollFd::from_borrowed_fd(fd, PollFlags::IN));
        };
        add(self.signals.as_fd());
        self.connections.iter().for_each(|connection| add(connection.as_fd()));
        // Accepts while there is room for a connection and this process serves.
        let has_room = !self.connections.is_full() && !self.exhausted;
        let accepts = has_room && !matches!(self.phase, Phase::Draining { .. });
        let listeners = if accepts { self.net.active().len() } else { 0 };
        self.net.active().take(listeners).for_each(|(_, listener)| add(listener.fd()));
        self.timer.iter().for_each(|timer| add(timer.as_fd()));
        if let (Phase::Restarting, Some(successor)) = (self.phase, self.net.successor()) {
            successor.fds().for_each(add);
        }
        let moment = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
        match poll(&mut fds, self.exhausted.then_some(&moment)) {
            Ok(_) => shown.extend(fds.iter().map(|fd| !fd.revents().is_empty())),
            Err(Errno::INTR) => {}
            // More than the limit of open files, which was lowered since.
            Err(Errno::INVAL) => _ = poll(&mut [], Some(&moment)),
            Err(errno) => return Err(errno.into()),
        }
        Ok(listeners)
    }

    /// Does what a signal asks for; whether the program is to end at once.
    #[inline(never)]
    fn handle(&mut self, signal: Signal, launch: &mut Launched) -> bool {
        match (signal, self.phase) {
            (Signal::CHILD, _) => {
                let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
                while let Ok(Some(_)) = waitid(WaitId::All, options) {}
            }
            (Signal::USR2, Phase::Serving | Phase::Restarting) => self.spawn(launch),
            (Signal::HUP, Phase::Serving) => self.drain(true),
            (Signal::TERM | Signal::INT, _) if self.terminated => return true,
            (Signal::TERM | Signal::INT, phase) => {
                self.terminated = true;
                if phase == Phase::Restarting {
                    self.end_successor();
                }
                self.drain(false);
            }
            _ => {}
        }
        false
    }

    #[inline(never)]
    fn spawn(&mut self, launch: &mut Launched) {
        if getpid().is_init() {
            // The kernel ends a container with its PID 1.
            complain("PID 1 has no successor, but restarts in place", 0);
            return;
        }
        match self.net.start_process(launch) {
            // The successor in flight got ready since, and the loop has yet to come to it.
            Ok(successor) if successor.is_ready() => self.drain(false),
            Ok(_) => {
                self.phase = Phase::Restarting;
                self.set_timer(PATIENCE);
            }
            Err(error) => _ = Complained::from(error),
        }
    }

    fn look_at_successor(&mut self) {
        let Some(successor) = self.net.successor_mut() else { return };
        match successor.poll() {
            Ok(Progress::Ready) => self.drain(false),
            // The successor may yet get ready.
            Ok(Progress::Unsettled(Unsettled::Unseen(error))) => _ = Complained::from(error),
            Ok(_) => {}
            Err(failure) => {
                let _said = Complained::from(failure);
                self.phase = Phase::Serving;
                self.set_timer(0);
            }
        }
    }

    /// One that is ready already stays.
    #[cold]
    #[inline(never)]
    fn end_successor(&mut self) {
        if let Some(Err(error)) = self.net.successor_mut().map(Successor::kill) {
            let _said = Complained::from(error);
        }
    }

    /// The phase has lasted too long.
    #[cold]
    #[inline(never)]
    fn run_out(&mut self) {
        // Again, where this does not end it.
        self.set_timer(PATIENCE);
        if self.phase == Phase::Restarting {
            self.end_successor();
            self.look_at_successor();
        } else if self.phase != Phase::Serving || self.connections.is_full() {
            self.connections.clear();
        }
    }

    /// Accepts no more: what comes from now on waits in the queues, for whoever has the listeners next.
    fn drain(&mut self, exec: bool) {
        self.phase = Phase::Draining { exec };
        self.set_timer(PATIENCE);
    }

    /// Executes anew in place; if that fails, serves on.
    #[cold]
    #[inline(never)]
    fn exec(&mut self, launch: &mut Launched) {
        let Err(error) = self.net.exec(launch, &Restart::new());
        let _said = Complained::from(error);
        self.phase = Phase::Serving;
        self.set_timer(0);
    }

    #[inline(never)]
    fn accept(&mut self, position: usize) {
        let listener = self.net.active().nth(position).filter(|_| !self.connections.is_full());
        let Some((_, listener)) = listener else { return };
        match rustix::net::accept_with(listener, SocketFlags::CLOEXEC) {
            Ok(socket) => {
                let _full = self.connections.push(Connection::new(socket));
            }
            Err(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => self.exhausted = true,
            // Another process was faster, or the client left.
            Err(_) => {}
        }
    }

    /// Has the timer run out in so many seconds; never, for 0.
    #[inline(never)]
    fn set_timer(&self, seconds: i64) {
        let time = Itimerspec {
            it_interval: Timespec { tv_sec: 0, tv_nsec: 0 },
            it_value: Timespec { tv_sec: seconds, tv_nsec: 0 },
        };
        if let Some(timer) = &self.timer {
            // There is nothing in it to refuse.
            let _ = timerfd_settime(timer, TimerfdTimerFlags::empty(), &time);
        }
    }
}

/// Claims or opens one socket.
fn listen(net: &mut Net<LISTENERS>, argument: &str) -> Result<(), Complained> {
    let address = argument.parse().map_err(|_| complain("an address cannot be read", 0))?;
    let id = net.listen_at(&Endpoint::tcp(address), &ListenOptions::new().nonblocking(true))?;
    if net.predecessor().is_none() {
        // A service manager hands sockets over blocking. No other process uses them yet.
        rustix::io::ioctl_fionbio(net.fd(id)?, true)?;
    }
    Ok(())
}
