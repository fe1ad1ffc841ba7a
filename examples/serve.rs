//! A small HTTP server that restarts without losing a connection.
//!
//! ```text
//! serve [--name NAME]... [--ready-timeout SECONDS] [--drain SECONDS] [--reload exec|spawn]
//!       [--pid-file PATH] [--fd-store] ADDRESS...
//! ```
//!
//! ADDRESS is `[NETWORK=]ADDRESS`; the network is `tcp`, or `unix` if it begins with `/` or `@`. When it can
//! accept, it prints one line on stdout, `ready pid=<pid> inherited=<n> listeners=<n>`; everything else it
//! has to say goes to stderr.
//!
//! | option | meaning |
//! |---|---|
//! | `--name` | the name of all sockets; given once for each address, that of the address in its place |
//! | `--ready-timeout` | how long a successor may take to get ready; 30 s |
//! | `--drain` | how long requests may take to end; 30 s |
//! | `--reload` | what SIGHUP does: `exec` in place, or `spawn` a successor; `exec` |
//! | `--pid-file` | holds the PID of the process that serves; written anew when a restart is over, however it ended |
//! | `--fd-store` | the service manager keeps the sockets opened here, and which generation this is, over a crash |
//!
//! | request | answer |
//! |---|---|
//! | `GET /` | 200, the server's PID and a newline |
//! | `GET /sleep?ms=N` | the same, N milliseconds later |
//! | a datagram | the same, without the HTTP |
//!
//! | signal | effect |
//! |---|---|
//! | SIGUSR2 | starts a successor; when that is ready, stops accepting, drains, exits |
//! | SIGHUP | drains, then executes in place; with `--reload spawn` the same as SIGUSR2 |
//! | SIGTERM, SIGINT | drains, exits; the second one exits at once |
//!
//! As PID 1 of a container it collects the orphans that are given to it, and restarts in place alone: no successor
//! outlives PID 1.
//!
//! Where there is a service manager (`NOTIFY_SOCKET`), it is told of all of this, in a status line too, and
//! hears from the watchdog. `examples/systemd` holds the units.
#![allow(unsafe_code, reason = "adoption")]
#![allow(clippy::std_instead_of_core, reason = "a std program")]

use std::error::Error;
use std::ffi::OsString;
use std::fmt::{Arguments, Display};
use std::fs;
use std::io::{self, ErrorKind, Read, Write};
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use gracenet::Variable;
use gracenet::address::Kind;
use gracenet::notify::{self, Assignment};
use gracenet::{
    Endpoint, Failure, Launch, ListenOptions, Net, Notifier, Progress, Refusal, Restart, Signals, SocketId,
    Successor, Unsettled,
};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, epoll, poll};
use rustix::fs::{MemfdFlags, OFlags};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, SocketAddrAny, SocketFlags};
use rustix::process::{Signal, WaitId, WaitIdOptions, waitid};
use socket2::Socket;

/// A line on stderr.
macro_rules! say {
    ($($argument:tt)*) => {
        print(io::stderr(), format_args!($($argument)*))
    };
}

/// A line for whoever reads it. Nobody has to: a server neither ends because its messages have no reader, nor waits for
/// one.
fn print(mut to: impl Write + AsFd, line: Arguments<'_>) {
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    if poll(&mut [PollFd::new(&to, PollFlags::OUT)], Some(&now)).is_ok_and(|shown| shown > 0) {
        let _ = writeln!(to, "{line}");
    }
}

/// How many addresses it takes, less one.
const CAPACITY: usize = 1024;

/// How long to wait before the service manager is told again what it did not hear.
const RETRY: Duration = Duration::from_secs(1);

#[allow(dead_code, reason = "zero_downtime has this file as a module and calls `run`")]
fn main() -> ExitCode {
    run(std::env::args_os().skip(1))
}

/// The whole program, with the arguments behind its name.
#[allow(unreachable_pub, reason = "for zero_downtime")]
pub fn run(args: impl Iterator<Item = OsString>) -> ExitCode {
    match Config::parse(args).map_err(Into::into).and_then(|config| serve(Box::leak(Box::new(config)))) {
        Ok(code) => code,
        Err(error) => {
            say!("serve: {error}");
            ExitCode::FAILURE
        }
    }
}

struct Config {
    names: Vec<String>,
    ready_timeout: Duration,
    drain: Duration,
    reload: Reload,
    pid_file: Option<PathBuf>,
    fd_store: bool,
    addresses: Vec<String>,
}

/// What SIGHUP does.
#[derive(Clone, Copy)]
enum Reload {
    Exec,
    Spawn,
}

impl Config {
    fn parse(args: impl Iterator<Item = OsString>) -> Result<Self, lexopt::Error> {
        use lexopt::prelude::*;
        let seconds = |value: OsString| -> Result<Duration, lexopt::Error> {
            let time = Duration::try_from_secs_f64(value.parse()?).map_err(|error| error.to_string())?;
            Instant::now().checked_add(time).ok_or("a time that no clock reaches")?;
            Ok(time)
        };
        let mut config = Self {
            names: Vec::new(),
            ready_timeout: Duration::from_secs(30),
            drain: Duration::from_secs(30),
            reload: Reload::Exec,
            pid_file: None,
            fd_store: false,
            addresses: Vec::new(),
        };
        let mut parser = lexopt::Parser::from_args(args);
        while let Some(arg) = parser.next()? {
            match arg {
                Long("name") => config.names.push(parser.value()?.string()?),
                Long("ready-timeout") => config.ready_timeout = seconds(parser.value()?)?,
                Long("drain") => config.drain = seconds(parser.value()?)?,
                Long("reload") => {
                    config.reload = match &*parser.value()?.string()? {
                        "exec" => Reload::Exec,
                        "spawn" => Reload::Spawn,
                        other => return Err(format!("--reload is exec or spawn, not {other}").into()),
                    }
                }
                Long("pid-file") => config.pid_file = Some(parser.value()?.into()),
                Long("fd-store") => config.fd_store = true,
                Value(address) => config.addresses.push(address.string()?),
                other => return Err(other.unexpected()),
            }
        }
        if config.addresses.is_empty() {
            return Err("usage: serve [--name NAME]... [--ready-timeout SECONDS] [--drain SECONDS] \
                 [--reload exec|spawn] [--pid-file PATH] [--fd-store] ADDRESS..."
                .into());
        }
        if config.names.len() > 1 && config.names.len() != config.addresses.len() {
            return Err("--name is given once, or once for each address".into());
        }
        Ok(config)
    }

    /// The name of the address at this position.
    fn name(&self, position: usize) -> Option<&str> {
        self.names.get(position).or(self.names.first()).map(String::as_str)
    }

    /// The network and the address of an argument.
    fn split(argument: &str) -> (&str, &str) {
        if argument.starts_with(['/', '@']) {
            return ("unix", argument);
        }
        argument.split_once('=').unwrap_or(("tcp", argument))
    }
}

/// The launch and the sockets: large, and so in no stack frame, of which every page would be touched. Here it is
/// those that hold something.
static LAUNCH: Mutex<Launch<4096>> = Mutex::new(Launch::empty());
static NET: Mutex<Net<CAPACITY>> = Mutex::new(Net::new());

type Launched = MutexGuard<'static, Launch<4096>>;
type Sockets = MutexGuard<'static, Net<CAPACITY>>;

fn serve(config: &'static Config) -> Result<ExitCode, Box<dyn Error>> {
    let mut launch = LAUNCH.lock()?;
    let mut net = NET.lock()?;
    // SAFETY: this is the first thing the process does with its environment, which it never changes but for
    // the line below; there is one thread.
    unsafe { launch.capture_from_libc() }?;
    // SAFETY: nothing has been opened yet but what this process was started with.
    unsafe { net.inherit(&mut launch) }?;
    net.set_notifier(Notifier::from_launch(&launch)?);
    for variables in [&Variable::ACTIVATION[..], &Variable::NOTIFICATION] {
        // SAFETY: there is one thread.
        unsafe { gracenet::launch::remove_from_libc(variables) };
    }

    let signals = Signals::new(if is_init() { &CONTROL_AND_ORPHANS } else { &CONTROL })?;
    let mut server = match Server::new(config, launch, net, signals) {
        Ok(server) => server,
        Err((mut net, error)) => {
            net.refuse(reason(&*error))?;
            return Err(error);
        }
    };
    server.ready()?;
    server.run()
}

/// What a predecessor is told about an error.
fn reason(error: &(dyn Error + 'static)) -> Refusal {
    let errno = error.downcast_ref::<ListenError>().and_then(|error| error.source.errno());
    errno.map_or(Refusal::Code(1), Refusal::Errno)
}

#[derive(Debug)]
struct ListenError {
    address: String,
    source: gracenet::Error,
}

impl std::fmt::Display for ListenError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.address, self.source)
    }
}

impl Error for ListenError {}

/// What controls the server. Blocked in all threads, and in what this process starts: until the loop reads it, or the
/// successor's, it waits.
const CONTROL: [Signal; 4] = [Signal::USR2, Signal::HUP, Signal::TERM, Signal::INT];
const CONTROL_AND_ORPHANS: [Signal; 5] =
    [Signal::USR2, Signal::HUP, Signal::TERM, Signal::INT, Signal::CHILD];

/// Whether this is PID 1, of a container as a rule.
fn is_init() -> bool {
    std::process::id() == 1
}

/// Collects whatever child has ended: orphans, since an init process starts no successor.
fn collect_orphans() {
    while let Ok(Some(_)) = waitid(WaitId::All, WaitIdOptions::EXITED | WaitIdOptions::NOHANG) {}
}

/// What the loop waits for.
#[derive(Clone, Copy)]
enum Event {
    Signal,
    /// The last connection is done.
    LastConnection,
    /// The predecessor has ended.
    Predecessor,
    Successor,
    /// On the listener at this position.
    Connection(u16),
    /// On some of those that epoll watches.
    Connections,
}

type Events = heapless::Vec<Event, WATCHED>;

/// How many descriptors the loop waits for at most: the listeners, the successor's two, and one of each other kind.
const WATCHED: usize = CAPACITY + 6;

/// An epoll instance for the listeners of a server that has many, from the first on. What poll(2) watches it looks at anew
/// each time, also when it is a signal that comes: 0.5 us for each. What epoll watches it is told of once, which takes more
/// than a microsecond: so not before the server is ready, and a few at a time, between two looks at all of them.
struct Epoll {
    fd: Option<OwnedFd>,
    /// How many listeners it watches.
    watched: usize,
    /// Whether it is to watch more.
    grows: bool,
}

impl Epoll {
    /// Up to so many listeners, nobody sees the difference.
    const FEW: usize = 64;

    const fn new(listeners: usize) -> Self {
        Self { fd: None, watched: 0, grows: listeners > Self::FEW }
    }

    /// Watches some more. Where it may not, those that are left stay with poll(2).
    fn grow(&mut self, listeners: &[Listener], net: &Net<CAPACITY>) {
        self.grows = self.watch_more(listeners, net).unwrap_or(false);
    }

    fn watch_more(&mut self, listeners: &[Listener], net: &Net<CAPACITY>) -> Result<bool, Box<dyn Error>> {
        let fd = match &self.fd {
            Some(fd) => fd,
            None => self.fd.insert(epoll::create(epoll::CreateFlags::CLOEXEC)?),
        };
        for listener in listeners.iter().skip(self.watched).take(Self::FEW) {
            let position = epoll::EventData::new_u64(self.watched as u64);
            epoll::add(fd, net.fd(listener.id)?, position, epoll::EventFlags::IN)?;
            self.watched += 1;
        }
        Ok(self.watched < listeners.len())
    }

    /// The positions of listeners on which somebody waits, as many as are told at once.
    fn ready(&self) -> impl Iterator<Item = usize> + use<> {
        let mut room = [const { MaybeUninit::uninit() }; Self::FEW];
        let mut positions = heapless::Vec::<_, { Self::FEW }>::new();
        if let Some(fd) = &self.fd {
            if let Ok((ready, _)) = epoll::wait(fd, &mut room, Some(&Timespec::default())) {
                positions.extend(ready.iter().map(|event| event.data.u64() as usize));
            }
        }
        positions.into_iter()
    }
}

struct Listener {
    id: SocketId,
    datagram: bool,
    /// Opened here, not inherited.
    fresh: bool,
}

enum Phase {
    Serving,
    /// A successor is in flight. It is looked at when it shows something, if that is watched, and at this moment.
    Restarting {
        ready_by: Instant,
        look_at: Instant,
        watched: bool,
    },
    /// Accepts no more, and leaves when the last connection is done.
    Draining {
        deadline: Instant,
        then: Leave,
    },
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Leave {
    Exit,
    Exec,
}

struct Server {
    config: &'static Config,
    launch: Launched,
    net: Sockets,
    listeners: Vec<Listener>,
    epoll: Epoll,
    claimed: usize,
    generation: Option<Generation>,
    signals: Signals,
    connections: Arc<Connections>,
    phase: Phase,
    terminations: usize,
    /// Whether this is the main process of the service, as far as it knows: not before the predecessor has ended,
    /// and not once a successor has taken over.
    is_main: bool,
    /// Whether a successor has taken over.
    has_handed_over: bool,
    /// When the service manager is told again what it did not hear.
    report_at: Option<Instant>,
    /// Whether a connection could not be accepted for want of something: then none is for a moment.
    exhausted: bool,
    /// Until a successor has taken over. Not by the main process alone: while the predecessor drains, only the
    /// successor can say that the service is alive, and is the main process to the manager.
    watchdog: Option<Watchdog>,
}

/// When the service manager wants to hear from the main process.
struct Watchdog {
    interval: Duration,
    next: Instant,
}

impl Server {
    /// Claims or opens a socket for each address.
    #[allow(clippy::type_complexity, reason = "the net comes back, to refuse with")]
    fn new(
        config: &'static Config,
        launch: Launched,
        mut net: Sockets,
        signals: Signals,
    ) -> Result<Self, (Sockets, Box<dyn Error>)> {
        match Self::open(config, &launch, &mut net) {
            Ok((listeners, generation, watchdog, connections)) => Ok(Self {
                config,
                launch,
                claimed: listeners.iter().filter(|listener| !listener.fresh).count(),
                is_main: net.predecessor().is_none(),
                has_handed_over: false,
                report_at: None,
                exhausted: false,
                net,
                epoll: Epoll::new(listeners.len()),
                listeners,
                generation,
                signals,
                connections: Arc::new(connections),
                phase: Phase::Serving,
                terminations: 0,
                watchdog,
            }),
            Err(error) => Err((net, error)),
        }
    }

    #[allow(clippy::type_complexity, reason = "the parts of a server")]
    fn open(
        config: &'static Config,
        launch: &Launch<4096>,
        net: &mut Net<CAPACITY>,
    ) -> Result<(Vec<Listener>, Option<Generation>, Option<Watchdog>, Connections), Box<dyn Error>> {
        let listeners = (0..config.addresses.len())
            .map(|position| listen(net, config, position))
            .collect::<Result<Vec<_>, _>>()?;
        let generation = if config.fd_store { Some(Generation::claim(net)?) } else { None };
        let watchdog = notify::watchdog(launch)?.map(|time| {
            let interval = time / 2;
            Watchdog { interval, next: Instant::now() + interval }
        });
        Ok((listeners, generation, watchdog, Connections::new()?))
    }

    /// Says that it can accept.
    fn ready(&mut self) -> Result<(), Box<dyn Error>> {
        self.report()?;
        if let Some(generation) = &self.generation {
            // It serves: no reason to end.
            if let Err(error) = generation.begin(&self.net) {
                say!("generation: {error}");
            }
        }
        self.write_pid_file();
        if self.is_main {
            self.become_main();
        }
        if is_init() {
            // Some may have ended while the program was being executed anew.
            collect_orphans();
        }
        let (pid, claimed, listeners) = (std::process::id(), self.claimed, self.listeners.len());
        print(io::stdout(), format_args!("ready pid={pid} inherited={claimed} listeners={listeners}"));
        Ok(())
    }

    /// Says to whom it concerns that this process is ready, and closes what nobody claimed. Where it is the service manager
    /// that did not hear it, nobody else would serve, and it is told again in a moment.
    fn report(&mut self) -> Result<(), Box<dyn Error>> {
        self.report_at = match self.net.ready() {
            Err(error @ gracenet::Error::Call { .. }) if self.is_main => {
                say!("service manager: {error}");
                Some(Instant::now() + RETRY)
            }
            result => result.map(|()| None)?,
        };
        Ok(())
    }

    /// From now on the service manager hears this process.
    fn become_main(&mut self) {
        self.is_main = true;
        self.store_fresh();
        self.tell(&[Assignment::Status(&self.status())]);
    }

    /// Has the service manager keep what was opened here.
    fn store_fresh(&self) {
        if self.config.fd_store {
            let opened = self.listeners.iter().filter(|listener| listener.fresh).map(|listener| listener.id);
            let state = self.generation.iter().filter(|state| state.fresh).map(|state| state.id);
            for id in opened.chain(state) {
                if let Err(error) = self.net.store(id) {
                    say!("file descriptor store: {error}");
                }
            }
        }
    }

    /// A line for `systemctl status`.
    fn status(&self) -> String {
        let listeners = self.listeners.len();
        let plural = if listeners == 1 { "" } else { "s" };
        match &self.generation {
            Some(Generation { number, .. }) => {
                format!("serving {listeners} listener{plural}, generation {number}")
            }
            None => format!("serving {listeners} listener{plural}"),
        }
    }

    /// Tells the service manager, if it listens to this process.
    fn tell(&self, assignments: &[Assignment<'_>]) {
        if self.is_main {
            if let Err(error) = self.net.notifier().send(assignments) {
                say!("service manager: {error}");
            }
        }
    }

    /// Writes the PID file: as a whole or not at all, and anew each time, for whoever waits for it to change.
    fn write_pid_file(&self) {
        let Some(path) = &self.config.pid_file else { return };
        let pid = std::process::id();
        let mut temporary = path.clone().into_os_string();
        temporary.push(format!(".{pid}"));
        let written = fs::write(&temporary, format!("{pid}\n")).and_then(|()| fs::rename(&temporary, path));
        if let Err(error) = written {
            say!("{}: {error}", path.display());
        }
    }

    /// Waits until something shows that there is to wait for in this phase, or until the deadline; `events` is what does.
    ///
    /// As long as epoll is to watch more, it looks and does not wait.
    fn wait(&self, events: &mut Events, deadline: Option<Instant>) -> io::Result<()> {
        events.clear();
        let mut fds = heapless::Vec::<_, WATCHED>::new();
        let mut watch = |fd, event| {
            let _fits = fds.push(PollFd::from_borrowed_fd(fd, PollFlags::IN));
            let _fits = events.push(event);
        };
        watch(self.signals.as_fd(), Event::Signal);
        watch(self.connections.last.as_fd(), Event::LastConnection);
        if let Some(predecessor) = self.net.predecessor() {
            watch(predecessor.as_fd(), Event::Predecessor);
        }
        if let (Phase::Restarting { watched: true, .. }, Some(successor)) =
            (&self.phase, self.net.successor())
        {
            successor.fds().for_each(|fd| watch(fd, Event::Successor));
        }
        if !matches!(self.phase, Phase::Draining { .. }) {
            if let Some(fd) = &self.epoll.fd {
                watch(fd.as_fd(), Event::Connections);
            }
            for (position, listener) in (0..).zip(&self.listeners).skip(self.epoll.watched) {
                if let Ok(fd) = self.net.fd(listener.id) {
                    watch(fd, Event::Connection(position));
                }
            }
        }
        let deadline = if self.epoll_grows() { Some(Instant::now()) } else { deadline };
        let timeout = deadline.map(|deadline| {
            let left = deadline.saturating_duration_since(Instant::now());
            Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() }
        });
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) => {
                let mut fds = fds.iter();
                events.retain(|_| fds.next().is_some_and(|fd| !fd.revents().is_empty()));
            }
            Err(Errno::INTR) => events.clear(),
            // More than the limit of open files, which was lowered. None of them blocks, so each can be tried.
            Err(Errno::INVAL) => thread::sleep(Duration::from_millis(10)),
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    fn run(&mut self) -> Result<ExitCode, Box<dyn Error>> {
        let mut events = Events::new();
        loop {
            if let Phase::Restarting { ready_by, look_at, .. } = self.phase {
                let now = Instant::now();
                if look_at <= now {
                    self.check_successor(|successor| match successor.poll()? {
                        Progress::Waiting if ready_by <= now => successor.wait_ready(Duration::ZERO),
                        found => Ok(found),
                    });
                }
            }
            if let Phase::Draining { deadline, then } = self.phase {
                if self.connections.open.load(Ordering::SeqCst) == 0 || deadline <= Instant::now() {
                    match then {
                        Leave::Exit => return Ok(ExitCode::SUCCESS),
                        Leave::Exec => self.exec(),
                    }
                }
            }
            if self.report_at.is_some_and(|at| at <= Instant::now()) {
                self.report()?;
            }
            self.feed_watchdog();
            let deadline = match self.phase {
                Phase::Serving => None,
                Phase::Restarting { look_at, .. } => Some(look_at),
                Phase::Draining { deadline, .. } => Some(deadline),
            };
            let watchdog = self.watchdog.as_ref().map(|watchdog| watchdog.next);
            let deadline = deadline.into_iter().chain(watchdog).chain(self.report_at).min();
            self.wait(&mut events, deadline)?;
            for event in &events {
                match *event {
                    Event::Signal => {
                        if let Some(code) = self.handle_signals() {
                            return Ok(code);
                        }
                    }
                    Event::Successor => self.check_successor(Successor::poll),
                    Event::Predecessor => self.look_at_predecessor(),
                    Event::LastConnection => self.connections.acknowledge(),
                    Event::Connection(position) => self.accept(position.into()),
                    Event::Connections => self.epoll.ready().for_each(|position| self.accept(position)),
                }
            }
            if self.epoll_grows() {
                self.epoll.grow(&self.listeners, &self.net);
            }
            if std::mem::take(&mut self.exhausted) {
                thread::sleep(Duration::from_millis(10));
            }
        }
    }

    /// Not while there is something more urgent.
    const fn epoll_grows(&self) -> bool {
        self.epoll.grows && matches!(self.phase, Phase::Serving)
    }

    fn look_at_predecessor(&mut self) {
        if self.net.predecessor().is_some_and(|predecessor| predecessor.has_exited() == Ok(true)) {
            drop(self.net.take_predecessor());
            if !self.has_handed_over {
                self.become_main();
            }
        }
    }

    fn handle_signals(&mut self) -> Option<ExitCode> {
        while let Ok(Some(signal)) = self.signals.take() {
            match signal {
                Signal::CHILD => collect_orphans(),
                Signal::USR2 => self.spawn(),
                Signal::HUP if matches!(self.config.reload, Reload::Spawn) && !is_init() => self.spawn(),
                Signal::HUP => match self.phase {
                    Phase::Serving => {
                        self.tell(&[Assignment::Reloading, Assignment::Status("draining, to execute anew")]);
                        self.drain(Leave::Exec);
                    }
                    Phase::Restarting { .. } => say!("restart failed: a successor is in flight"),
                    Phase::Draining { .. } => {}
                },
                _ => {
                    self.terminations += 1;
                    if self.terminations > 1 {
                        return Some(ExitCode::FAILURE);
                    }
                    self.cancel_restart();
                    self.tell(&[Assignment::Stopping, Assignment::Status("draining, to exit")]);
                    self.drain(Leave::Exit);
                }
            }
        }
        None
    }

    /// Starts a successor.
    fn spawn(&mut self) {
        // One that got ready since is one restart, and not the first of two.
        self.check_successor(Successor::poll);
        if let Phase::Draining { then, .. } = self.phase {
            if then == Leave::Exec {
                say!("restart failed: a restart in place has begun");
            }
            return;
        }
        if is_init() {
            self.restart_failed("no successor outlives PID 1; SIGHUP restarts in place");
            return;
        }
        let ready_by = Instant::now() + self.config.ready_timeout;
        match self.net.start_process(&mut self.launch) {
            Ok(successor) => {
                let is_ready = successor.is_ready();
                self.phase = Phase::Restarting { ready_by, look_at: ready_by, watched: true };
                // The successor that was in flight got ready in this moment.
                if is_ready {
                    self.check_successor(Successor::poll);
                }
            }
            // The one that is under way is not over, and may get ready yet, or be.
            Err(error @ gracenet::Error::InFlight) => say!("restart failed: {error}"),
            Err(error) => self.restart_failed(error),
        }
    }

    /// Looks, with `look`, what has become of the successor.
    fn check_successor(&mut self, look: impl FnOnce(&mut Successor) -> Result<Progress, Failure>) {
        let Some(successor) =
            self.net.successor_mut().filter(|_| matches!(self.phase, Phase::Restarting { .. }))
        else {
            return;
        };
        let looked = look(successor);
        let now = Instant::now();
        let is_late = matches!(self.phase, Phase::Restarting { ready_by, .. } if ready_by <= now);
        match looked {
            Ok(Progress::Ready) => {
                self.has_handed_over = true;
                self.is_main = false;
                self.watchdog = None;
                self.drain(Leave::Exit);
            }
            Ok(Progress::Unsettled(why)) if why != Unsettled::Unanswered || is_late => {
                // It could not be looked at, or both serve, and the service manager does not know: to leave now would
                // look like the end of the service. What shows now may show for ever, so it is not waited for.
                say!("restart: {why}");
                if let Phase::Restarting { look_at, watched, .. } = &mut self.phase {
                    *look_at = now + RETRY;
                    *watched = false;
                }
            }
            Ok(_) => {
                if let Phase::Restarting { look_at, .. } = &mut self.phase {
                    if *look_at <= now {
                        *look_at = now + RETRY;
                    }
                }
            }
            Err(failure) => {
                self.phase = Phase::Serving;
                self.restart_failed(failure);
            }
        }
    }

    /// The service manager has been told by the crate.
    fn restart_failed(&self, why: impl Display) {
        say!("restart failed: {why}");
        self.write_pid_file();
    }

    /// Ends a successor that is not ready yet, because this process ends itself.
    fn cancel_restart(&mut self) {
        let Some(successor) =
            self.net.successor_mut().filter(|_| matches!(self.phase, Phase::Restarting { .. }))
        else {
            return;
        };
        match successor.kill() {
            Ok(true) => say!("restart failed: terminated"),
            // It was ready, and serves. The manager may have to be told, or be about to say that it knows.
            Ok(false) => {
                self.check_successor(|successor| successor.wait(RETRY));
                // It is the main process, also where the manager has yet to say that it knows.
                self.has_handed_over |= matches!(self.phase, Phase::Restarting { .. });
                self.is_main &= !self.has_handed_over;
            }
            Err(error) => say!("restart: {error}"),
        }
    }

    fn feed_watchdog(&mut self) {
        let now = Instant::now();
        if let Some(watchdog) = self.watchdog.as_mut().filter(|watchdog| watchdog.next <= now) {
            watchdog.next = now + watchdog.interval;
            if let Err(error) = self.net.notifier().send(&[Assignment::Watchdog]) {
                say!("service manager: {error}");
            }
        }
    }

    /// Stops accepting: what comes from now on waits in the queues, for whoever has the listeners next.
    fn drain(&mut self, then: Leave) {
        let deadline = Instant::now() + self.config.drain;
        if let Phase::Draining { then: planned, .. } = &mut self.phase {
            // Terminated while draining for an exec: leave instead.
            if then == Leave::Exit {
                *planned = then;
            }
            return;
        }
        self.connections.draining.store(true, Ordering::SeqCst);
        self.phase = Phase::Draining { deadline, then };
    }

    /// Executes in place; if that fails, serves on.
    fn exec(&mut self) {
        if !self.is_main {
            // The new image finds all of it inherited, and no predecessor whose end to wait for.
            self.store_fresh();
        }
        let Err(error) = self.net.exec(&mut self.launch, &Restart::new());
        self.restart_failed(error);
        self.connections.draining.store(false, Ordering::SeqCst);
        self.phase = Phase::Serving;
    }

    fn accept(&mut self, position: usize) {
        // An event that came with the signal to drain.
        if let Phase::Draining { .. } = self.phase {
            return;
        }
        let Some(listener) = self.listeners.get(position) else { return };
        let Ok(fd) = self.net.fd(listener.id) else { return };
        if listener.datagram {
            answer_datagram(fd);
            return;
        }
        if self.exhausted {
            return;
        }
        // Another process may have been faster: then there is nothing to accept, and nothing waits, because
        // every listener is non-blocking.
        match rustix::net::accept_with(fd, SocketFlags::CLOEXEC) {
            Ok(connection) => Connections::handle(&self.connections, connection),
            Err(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => self.exhausted = true,
            Err(_) => {}
        }
    }
}

/// Claims or opens the socket of the address at this position.
fn listen(
    net: &mut Net<CAPACITY>,
    config: &'static Config,
    position: usize,
) -> Result<Listener, Box<dyn Error>> {
    let argument = config.addresses.get(position).map_or("", String::as_str);
    let error = |source| ListenError { address: argument.to_owned(), source };
    let (network, address) = Config::split(argument);
    let mut options = ListenOptions::new().nonblocking(true).replace_stale(true);
    if let Some(name) = config.name(position) {
        options = options.name(name);
    }
    let endpoint = Endpoint::parse(network, address).map_err(error)?;
    let (id, fresh) = match net.claim_at(&endpoint, &options) {
        Ok(id) => (id, false),
        Err(gracenet::Error::NotInherited) => (net.listen_at(&endpoint, &options).map_err(error)?, true),
        Err(source) => return Err(error(source).into()),
    };
    let fd = net.fd(id).map_err(error)?;
    if net.predecessor().is_none() {
        // O_NONBLOCK is shared by all who have the socket. A service manager hands sockets over blocking, and
        // never accepts itself: with no predecessor, nobody is there to be surprised. Every later
        // generation finds it set, and leaves it alone.
        let flags = rustix::fs::fcntl_getfl(fd)?;
        if !flags.contains(OFlags::NONBLOCK) {
            rustix::fs::fcntl_setfl(fd, flags | OFlags::NONBLOCK)?;
        }
    }
    Ok(Listener { id, datagram: endpoint.network().kind() == Kind::Datagram, fresh })
}

/// Which start of the server this is, in a file in memory that travels with the sockets, and that the
/// service manager keeps over a crash.
struct Generation {
    id: SocketId,
    number: u64,
    /// The file was made here, not inherited.
    fresh: bool,
}

impl Generation {
    const NAME: &'static str = "state";

    fn claim(net: &mut Net<CAPACITY>) -> Result<Self, Box<dyn Error>> {
        let (id, fresh) = match net.claim_name(Self::NAME) {
            Ok(id) => (id, false),
            Err(gracenet::Error::NotInherited) => {
                let file = rustix::fs::memfd_create(Self::NAME, MemfdFlags::CLOEXEC)?;
                (net.add(file, Self::NAME)?, true)
            }
            Err(error) => return Err(error.into()),
        };
        let mut number = [0; 8];
        rustix::io::pread(net.fd(id)?, &mut number, 0)?;
        Ok(Self { id, number: u64::from_ne_bytes(number) + 1, fresh })
    }

    /// Writes the number down: not before this generation serves, because a start that fails is none.
    fn begin(&self, net: &Net<CAPACITY>) -> Result<(), Box<dyn Error>> {
        rustix::io::pwrite(net.fd(self.id)?, &self.number.to_ne_bytes(), 0)?;
        Ok(())
    }
}

/// The connections that were accepted and are not done: each has a thread.
struct Connections {
    open: AtomicUsize,
    draining: AtomicBool,
    /// Written to when the last one is done while draining, for the loop to see.
    last: OwnedFd,
}

impl Connections {
    fn new() -> io::Result<Self> {
        let last = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { open: AtomicUsize::new(0), draining: AtomicBool::new(false), last })
    }

    fn acknowledge(&self) {
        // Read already, or about to be.
        let _ = rustix::io::read(&self.last, &mut [0; 8]);
    }

    fn handle(this: &Arc<Self>, connection: OwnedFd) {
        this.open.fetch_add(1, Ordering::SeqCst);
        let socket = Arc::new(Socket::from(connection));
        let work = {
            let (this, socket) = (Arc::clone(this), Arc::clone(&socket));
            move || {
                this.finish(&socket);
            }
        };
        if thread::Builder::new().stack_size(128 * 1024).spawn(work).is_err() {
            this.finish(&socket);
        }
    }

    fn finish(&self, socket: &Socket) {
        if let Err(error) = answer(socket) {
            if error.kind() != ErrorKind::WouldBlock {
                say!("connection: {error}");
            }
        }
        // Before the count goes down: the process may end as soon as it is 0.
        let _ = socket.shutdown(Shutdown::Both);
        if self.open.fetch_sub(1, Ordering::SeqCst) == 1 && self.draining.load(Ordering::SeqCst) {
            // The loop may be waiting for this one. A full counter is one that it will see.
            let _ = rustix::io::write(&self.last, &1_u64.to_ne_bytes());
        }
    }
}

/// Reads one request and answers it.
fn answer(mut socket: &Socket) -> io::Result<()> {
    socket.set_read_timeout(Some(Duration::from_secs(5)))?;
    socket.set_write_timeout(Some(Duration::from_secs(5)))?;
    let mut buffer = [0; 4096];
    let mut len = 0;
    let (status, body) = loop {
        let read = match buffer.get_mut(len..) {
            Some(rest) if !rest.is_empty() => read(socket, rest)?,
            _ => break ("400 Bad Request", "too long\n".to_owned()),
        };
        len += read;
        let head = buffer.get(..len).unwrap_or(&[]);
        let mut headers = [httparse::EMPTY_HEADER; 64];
        let mut request = httparse::Request::new(&mut headers);
        match request.parse(head) {
            Ok(httparse::Status::Complete(_)) => break respond(&request),
            Ok(httparse::Status::Partial) if read > 0 => {}
            // Connected and left: a port scan, a health check.
            _ if len == 0 => return Ok(()),
            _ => break ("400 Bad Request", "malformed\n".to_owned()),
        }
    };
    let len = body.len();
    let response = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {len}\r\nConnection: close\r\n\r\n{body}"
    );
    socket.write_all(response.as_bytes())?;
    if status.starts_with("400") {
        // What was not read would turn the close into a reset, and the client might not see the answer.
        socket.shutdown(Shutdown::Write)?;
        socket.set_read_timeout(Some(Duration::from_millis(200)))?;
        let mut rest = 0;
        while let Ok(len @ 1..) = read(socket, &mut buffer) {
            rest += len;
            if rest > 1 << 20 {
                break;
            }
        }
    }
    Ok(())
}

/// Reads, also on: one with a timeout fails with `EINTR` where the process was stopped and goes on, see signal(7).
fn read(mut socket: &Socket, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match socket.read(buffer) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

fn respond(request: &httparse::Request<'_, '_>) -> (&'static str, String) {
    let pid = || format!("{}\n", std::process::id());
    match (request.method, request.path) {
        (Some("GET"), Some("/")) => ("200 OK", pid()),
        (Some("GET"), Some(path)) => match path.strip_prefix("/sleep?ms=").map(decimal) {
            Some(Some(millis)) => {
                thread::sleep(Duration::from_millis(millis));
                ("200 OK", pid())
            }
            Some(None) => ("400 Bad Request", "ms is not a number\n".to_owned()),
            None => ("404 Not Found", "not found\n".to_owned()),
        },
        _ => ("400 Bad Request", "only GET\n".to_owned()),
    }
}

/// A number in digits alone: no sign, no space.
fn decimal(text: &str) -> Option<u64> {
    text.parse().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Answers one datagram, if it says where it came from.
fn answer_datagram(socket: BorrowedFd<'_>) {
    let mut buffer = [0; 2048];
    let received = rustix::net::recvfrom(socket, &mut buffer, RecvFlags::DONTWAIT);
    if let Ok((_, _, Some(sender))) = received {
        let answer = format!("{}\n", std::process::id());
        let sender: SocketAddrAny = sender;
        // Nobody there any more: nobody to answer.
        let _ = rustix::net::sendto(socket, answer.as_bytes(), SendFlags::NOSIGNAL, &sender);
    }
}
