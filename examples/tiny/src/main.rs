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
//! | SIGTERM, SIGINT | drains, exits; the second one exits at once, with status 1 |
//!
//! As PID 1 it collects the orphans that are given to it, and restarts in place alone: no successor outlives PID 1.
//!
//! A [`Service`] does all of this. It makes no epoll instance and no timer here: the loop waits by poll(2), for no more
//! descriptors than it would otherwise have to register. It speaks to no service manager, whose messages would be as large
//! as the rest.
//!
//! These are the system calls of a restart, from the signal, which has been read, until the predecessor waits again and
//! the successor is the new program; `prove` counts them, and tells their names:
//!
//! | process | calls |
//! |---|---|
//! | predecessor, 8 | clock_gettime socketpair rt_sigprocmask clone3 rt_sigprocmask waitid close clock_gettime |
//! | successor, 13 | chdir dup3 dup3 fcntl fcntl fcntl close_range getpid pidfd_open fstatfs statx rt_sigprocmask execve |
//!
//! The first look at the clock is for the time by which the successor is to be ready, the second for how long to wait.
//! Where the working directory has no path that leads to it, `fchdir` takes the place of `chdir`.
//!
//! What is called in one place is kept out of line there, by `inline(never)`: inlined, all of it would share one large
//! frame, with longer instructions for each access, and more of the stack in use at any time.
#![no_std]
#![no_main]

mod address;
mod complaint;
mod connection;
mod line;
mod start;

use complaint::{Complained, complain};
use connection::Connection;
use core::net::SocketAddr;
use core::time::Duration;
use gracenet::service::{Moment, Reload, Watchdog};
use gracenet::{Endpoint, Event, Leave, ListenOptions, Net, Policy, Process, Service, Signals, SocketId};
use heapless::Vec;
use line::Line;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::AsFd;
use rustix::io::Errno;
use rustix::net::SocketFlags;
use rustix::process::Signal;

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

/// How many descriptors the loop waits for at most: these, and the service's.
const POLLED: usize = LISTENERS + CONNECTIONS + 4;

/// How long connections that say nothing may take all the room. [`Policy::new`] gives a successor and a drain as much.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long it waits where something is exhausted.
const MOMENT: Duration = Duration::from_millis(100);

/// SIGHUP executes in place, as in `serve`. No descriptor shows everything, and nobody is told of anything but the
/// predecessor: what is not asked for is not linked.
const POLICY: Policy<'static> =
    Policy::new().reload(Reload::Exec).one_descriptor(false).manager(false).watchdog(Watchdog::Off);

/// The sockets, and how this program was started; with room for an argument for each socket and 15 more, and for 255
/// variables. A static of zeros takes no room in the file, and no more of it is resident than what is filled.
static PROCESS: Process<LISTENERS, { LISTENERS + 16 }, 256> = Process::new();

/// The program, given the stack that it began with, where arguments and environment are. Returns its exit status.
fn main(stack: *const usize) -> Result<u8, Complained> {
    // SAFETY: it is the stack pointer at the entry, nothing writes to what it points to, and nothing has been opened yet.
    let mut service = unsafe { PROCESS.begin_from_stack(stack, POLICY) }?;
    // SIGPIPE stays blocked when this is dropped: whoever reads what is said may leave, which is no reason to end.
    drop(Signals::new(&[Signal::PIPE])?);
    let server = &mut Server {
        service: &mut service,
        listeners: Vec::new(),
        connections: Vec::new(),
        crowd: None,
        exhausted: false,
    };
    server.open()?;
    server.service.ready()?;
    server.run()
}

struct Server<'s> {
    service: &'s mut Service<'static, Net<LISTENERS>>,
    listeners: Vec<SocketId, LISTENERS>,
    connections: Vec<Connection, CONNECTIONS>,
    /// When the connections are ended, while it serves and has room for no more: clients that say nothing would keep
    /// all others out.
    crowd: Option<Moment>,
    /// Whether a connection could not be accepted for want of something: then none is for a moment.
    exhausted: bool,
}

impl Server<'_> {
    /// Claims or opens the sockets.
    ///
    /// It can accept then, and says so before it reports: the report wakes the predecessor, which has much to do then,
    /// perhaps on this very processor. One that was given up in this instant has said so in vain, and ends.
    #[inline(never)]
    fn open(&mut self) -> Result<(), Complained> {
        let inherited = self.service.inherited().count();
        let mut addresses: Vec<_, LISTENERS> = Vec::new();
        for argument in self.service.args().skip(1) {
            let address = address::parse(argument.to_bytes());
            let address = address.ok_or_else(|| complain("an address cannot be read", 0))?;
            addresses.push(address).map_err(|_| complain("too many addresses", 0))?;
        }
        if addresses.is_empty() {
            let _fits = addresses.push(([127, 0, 0, 1], 8080).into());
        }
        addresses.into_iter().try_for_each(|address| self.listen(address))?;
        let mut line = Line::new();
        line.text("ready pid=").number(start::pid());
        line.text(" inherited=").number((inherited - self.service.inherited().count()) as u64);
        line.text(" listeners=").number(self.listeners.len() as u64).text("\n");
        line.write(&start::stdout());
        Ok(())
    }

    /// Claims or opens one socket.
    #[inline(never)]
    fn listen(&mut self, address: SocketAddr) -> Result<(), Complained> {
        let id = self.service.listen_at(&Endpoint::tcp(address), &ListenOptions::new().nonblocking(true))?;
        let _fits = self.listeners.push(id);
        Ok(())
    }

    #[inline(never)]
    fn run(&mut self) -> Result<u8, Complained> {
        loop {
            let serves = self.service.accepts();
            let crowds = serves && self.connections.is_full();
            if crowds != self.crowd.is_some() {
                self.crowd = crowds.then(|| Moment::now().later(PATIENCE));
            }
            let until = self.service.deadline().into_iter().chain(self.crowd).min();
            let time = until.map(Moment::remaining);
            let is_due = time == Some(Duration::ZERO);
            let accepts = serves && !crowds && !self.exhausted;
            let pause = self.exhausted.then_some(MOMENT);
            self.exhausted = false;

            let shown = &mut Vec::new();
            let listeners = if accepts { self.listeners.len() } else { 0 };
            self.wait(listeners, time.into_iter().chain(pause).min(), shown)?;
            // What is shown comes in the order of the descriptors.
            let mut shown = shown.iter().copied();
            self.connections.retain_mut(|connection| shown.next() != Some(true) || !connection.advance());
            for position in 0..listeners {
                if shown.next() == Some(true) {
                    self.accept(position);
                }
            }
            if is_due && until == self.crowd {
                self.connections.clear();
            }
            let is_done = !serves && self.connections.is_empty();
            if (is_due || is_done || shown.any(|shown| shown))
                && let Some(status) = self.obey()
            {
                return Ok(status);
            }
        }
    }

    /// Waits until something happens, or for `time`: in `shown`, whether it did on each connection, each of so many
    /// listeners, and the service's descriptors. Nothing, if a signal came that nobody asked for.
    #[inline(never)]
    fn wait(
        &self,
        listeners: usize,
        time: Option<Duration>,
        shown: &mut Vec<bool, POLLED>,
    ) -> Result<(), Complained> {
        let mut fds: Vec<_, POLLED> = Vec::new();
        let mut add = |fd| {
            let _fits = fds.push(PollFd::from_borrowed_fd(fd, PollFlags::IN));
        };
        self.connections.iter().for_each(|connection| add(connection.as_fd()));
        let listeners = self.listeners.iter().take(listeners);
        listeners.filter_map(|id| self.service.fd(*id).ok()).for_each(&mut add);
        self.service.fds().for_each(add);
        let timeout = time.and_then(|time| Timespec::try_from(time).ok());
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) => shown.extend(fds.iter().map(|fd| !fd.revents().is_empty())),
            Err(Errno::INTR) => {}
            // More than the limit of open files, which was lowered since.
            Err(Errno::INVAL) => {
                let moment = Timespec { tv_sec: 0, tv_nsec: MOMENT.subsec_nanos().into() };
                _ = poll(&mut [], Some(&moment));
            }
            Err(errno) => return Err(errno.into()),
        }
        Ok(())
    }

    /// Does what the service says, until that has nothing to say; the status, if the program is to end.
    #[inline(never)]
    fn obey(&mut self) -> Option<u8> {
        let mut drains = !self.service.accepts();
        loop {
            if drains && self.connections.is_empty() {
                self.service.drained();
            }
            match self.service.poll()? {
                Event::Drain(leave) => {
                    // The service closes the listeners when it is asked again: what waits in their queues is served first.
                    let ends = leave != Leave::Exec;
                    (0..self.listeners.len()).for_each(|position| while ends && self.accept(position) {});
                    drains = true;
                }
                Event::Exit(status) => return Some(status),
                Event::Failed(failure) => _ = Complained::from(failure),
                Event::Refused(why) => _ = Complained::from(why),
                Event::Unheard(error) | Event::Unseen(error) => _ = Complained::from(error),
                _ => {}
            }
        }
    }

    /// Accepts a connection, if one waits and there is room; whether it did.
    #[inline(never)]
    fn accept(&mut self, position: usize) -> bool {
        let listener = self.listeners.get(position).and_then(|id| self.service.fd(*id).ok());
        let Some(listener) = listener.filter(|_| !self.connections.is_full()) else { return false };
        match rustix::net::accept_with(listener, SocketFlags::CLOEXEC) {
            Ok(socket) => {
                let _fits = self.connections.push(Connection::new(socket));
                return true;
            }
            Err(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => self.exhausted = true,
            // Another process was faster, or the client left.
            Err(_) => {}
        }
        false
    }
}
