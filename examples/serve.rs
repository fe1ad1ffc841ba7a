//! A small HTTP server that restarts without losing a connection.
//!
//! ```text
//! serve [--name NAME]... [--ready-timeout SECONDS] [--drain SECONDS] [--reload exec|spawn]
//!       [--pid-file PATH] [--fd-store] ADDRESS...
//! ```
//!
//! ADDRESS is `[NETWORK=]ADDRESS`. The network is `tcp` by default, and `unix` for an address that begins with `/` or `@`.
//! When the server can accept, it prints one line on stdout, `ready pid=<pid> inherited=<n> listeners=<n>`. All other
//! messages go to stderr.
//!
//! | option | meaning |
//! |---|---|
//! | `--name` | the name of all sockets; given once for each address, that of the address in its place |
//! | `--ready-timeout` | how long a successor may take to get ready; 30 s |
//! | `--drain` | how long requests may take to end; 30 s |
//! | `--reload` | what SIGHUP does: `exec` in place, or `spawn` a successor; `exec` |
//! | `--pid-file` | holds the PID of the process that serves; written anew when a restart is over, however it ended |
//! | `--fd-store` | the service manager keeps the sockets opened here, and the number of this generation, over a crash |
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
//! | SIGTERM, SIGINT | closes the listeners, drains, exits; the second one exits at once |
//!
//! [`gracenet::Service`] does all of that. This file says what to do at each of its events, and serves. As PID 1 of a
//! container the service reaps orphans, and restarts in place only. It informs the service manager, if there is one:
//! `examples/systemd` holds the units.
#![allow(unsafe_code, reason = "the begin of a program")]
#![allow(clippy::std_instead_of_core, reason = "a std program")]

use std::error::Error;
use std::ffi::OsString;
use std::fmt::Arguments;
use std::fs;
use std::io::{self, ErrorKind, Read, Write};
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use gracenet::address::Kind;
use gracenet::service::{Moment, Refused, Reload};
use gracenet::{Endpoint, Event, Leave, ListenOptions, Policy, Process, Service, SocketId};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, epoll, eventfd, poll};
use rustix::fs::MemfdFlags;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, SocketAddrAny, SocketFlags};
use socket2::Socket;

/// A line on stderr.
macro_rules! say {
    ($($argument:tt)*) => {
        print(io::stderr(), format_args!($($argument)*))
    };
}

/// Prints a line, unless its reader has left or does not read. A server must neither end nor wait because of its messages.
fn print(mut to: impl Write + AsFd, line: Arguments<'_>) {
    if poll(&mut [PollFd::new(&to, PollFlags::OUT)], Some(&Timespec::default())) == Ok(1) {
        let _ = writeln!(to, "{line}");
    }
}

/// How many sockets the server takes at most. One of them may be the state of `--fd-store`.
const CAPACITY: usize = 1024;

static PROCESS: Process<CAPACITY, 4096> = Process::new();

#[allow(dead_code, reason = "zero_downtime has this file as a module and calls `run`")]
fn main() -> ExitCode {
    run(std::env::args_os().skip(1))
}

/// Runs the whole program, with the arguments after its name.
#[allow(unreachable_pub, reason = "for zero_downtime")]
pub fn run(args: impl Iterator<Item = OsString>) -> ExitCode {
    match Config::parse(args).map_err(Into::into).and_then(serve) {
        Ok(status) => status,
        Err(error) => {
            say!("serve: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(config: Config) -> Result<ExitCode, Box<dyn Error>> {
    // SAFETY: there is one thread, nothing was opened yet, and nobody changes the environment.
    let service = unsafe { PROCESS.begin(config.policy) }?;
    let mut server = Server::new(config, service)?;
    server.ready()?;
    server.run()
}

struct Config {
    names: Vec<String>,
    policy: Policy<'static>,
    pid_file: Option<PathBuf>,
    fd_store: bool,
    addresses: Vec<String>,
}

impl Config {
    fn parse(args: impl Iterator<Item = OsString>) -> Result<Self, lexopt::Error> {
        use lexopt::prelude::*;
        let seconds = |value: OsString| -> Result<Duration, lexopt::Error> {
            Ok(Duration::try_from_secs_f64(value.parse()?).map_err(|error| error.to_string())?)
        };
        let mut config = Self {
            names: Vec::new(),
            policy: Policy::new().reload(Reload::Exec).one_descriptor(false),
            pid_file: None,
            fd_store: false,
            addresses: Vec::new(),
        };
        let mut parser = lexopt::Parser::from_args(args);
        while let Some(arg) = parser.next()? {
            let policy = config.policy;
            match arg {
                Long("name") => config.names.push(parser.value()?.string()?),
                Long("ready-timeout") => config.policy = policy.ready_within(seconds(parser.value()?)?),
                Long("drain") => config.policy = policy.drain_within(seconds(parser.value()?)?),
                Long("reload") => {
                    config.policy = policy.reload(match &*parser.value()?.string()? {
                        "exec" => Reload::Exec,
                        "spawn" => Reload::Spawn,
                        other => return Err(format!("--reload is exec or spawn, not {other}").into()),
                    })
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
}

struct Server {
    config: Config,
    service: Service<'static>,
    listeners: Vec<Listener>,
    /// An epoll instance for the listeners, if they are many: poll(2) takes half a microsecond for each, at every wait.
    clients: OwnedFd,
    /// The positions of the listeners that are not in it yet, or that the kernel does not take. These are polled.
    polled: Vec<usize>,
    generation: Option<Generation>,
    connections: Arc<Connections>,
    /// The loop's own place in the count.
    accepting: Option<Open>,
}

impl Server {
    /// Claims or opens a socket for each address.
    fn new(config: Config, mut service: Service<'static>) -> Result<Self, Box<dyn Error>> {
        let mut listeners = Vec::new();
        for (position, address) in config.addresses.iter().enumerate() {
            let name = config.names.get(position).or(config.names.first()).map(String::as_str);
            let listener = Listener::new(&mut service, name, address);
            listeners.push(listener.map_err(|error| format!("{address}: {error}"))?);
        }
        let generation = if config.fd_store { Some(Generation::claim(&mut service)?) } else { None };
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let connections = Arc::new(Connections { count: AtomicUsize::new(0), wake });
        let accepting = Some(Open::new(&connections));
        let clients = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let polled = (0..listeners.len()).rev().collect();
        Ok(Self { config, service, listeners, clients, polled, generation, connections, accepting })
    }

    /// Reports that this process can accept.
    fn ready(&mut self) -> Result<(), Box<dyn Error>> {
        self.service.ready()?;
        if let Some(state) = &self.generation {
            // A start that fails is no generation, so the number is written after the report.
            let file = self.service.fd(state.id)?;
            if let Err(error) = rustix::io::pwrite(file, &state.number.to_ne_bytes(), 0) {
                say!("generation: {error}");
            }
        }
        self.write_pid_file();
        if self.service.is_main() {
            self.become_main();
        }
        let (pid, listeners) = (std::process::id(), self.listeners.len());
        let inherited = self.listeners.iter().filter(|listener| !listener.is_fresh).count();
        print(io::stdout(), format_args!("ready pid={pid} inherited={inherited} listeners={listeners}"));
        Ok(())
    }

    /// Serves, and does what the service asks for.
    fn run(&mut self) -> Result<ExitCode, Box<dyn Error>> {
        let mut takes_more = self.listeners.len() > FEW;
        loop {
            if self.is_drained() {
                self.service.drained();
            }
            match self.service.poll() {
                Some(Event::Serve) => self.accepting = Some(Open::new(&self.connections)),
                Some(Event::Drain(leave)) => self.drain(leave),
                Some(Event::Exit(status)) => return Ok(status.into()),
                Some(Event::Main) => self.become_main(),
                Some(Event::Started(_) | Event::HandedOver(_)) => {}
                Some(event @ (Event::Failed(_) | Event::Refused(Refused::Init))) => {
                    say!("{event}");
                    self.write_pid_file();
                }
                Some(event) => say!("{event}"),
                None => {
                    // Not before the ready line: a restart would wait for it.
                    takes_more = takes_more && self.watch_more();
                    let until = if takes_more { Some(Duration::ZERO) } else { self.deadline() };
                    self.wait(self.service.accepts(), until);
                }
            }
        }
    }

    fn deadline(&self) -> Option<Duration> {
        self.service.deadline().map(Moment::remaining)
    }

    /// Has the epoll instance take a few more listeners. Returns whether there may be more: a thousand take more than a
    /// millisecond, and a signal is not to wait so long.
    fn watch_more(&mut self) -> bool {
        for _ in 0..FEW {
            let Some(&position) = self.polled.last() else { return false };
            let Some(Ok(fd)) = self.listeners.get(position).map(|listener| self.service.fd(listener.id))
            else {
                return false;
            };
            let data = epoll::EventData::new_u64(position as u64);
            if let Err(error) = epoll::add(&self.clients, fd, data, epoll::EventFlags::IN) {
                say!("{} listeners are polled: {error}", self.polled.len());
                return false;
            }
            self.polled.pop();
        }
        true
    }

    /// Waits for the service, for the end of the last connection, and for clients, if these are wanted. Accepts once from
    /// each listener that shows one, and returns whether there may be more.
    fn wait(&self, wants_clients: bool, timeout: Option<Duration>) -> bool {
        let polled = if wants_clients { &self.polled[..] } else { &[] };
        let listeners =
            polled.iter().filter_map(|position| self.service.fd(self.listeners.get(*position)?.id).ok());
        let clients = wants_clients.then(|| self.clients.as_fd());
        let others = [self.connections.wake.as_fd()].into_iter().chain(self.service.fds()).chain(clients);
        let fds = listeners.chain(others).map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN));
        // On the stack: a server whose memory is used up can restart.
        let mut fds: heapless::Vec<_, { CAPACITY + 8 }> = fds.collect();
        // A time that is too long for the kernel is for ever.
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        if poll(&mut fds, timeout.as_ref()).is_err() {
            // The kernel has no memory, or fewer files are allowed than are open. Nothing here blocks, so all can be tried.
            thread::sleep(PAUSE);
            return wants_clients && self.accept_from_each(0..self.listeners.len());
        }
        let shows = |fd: Option<&PollFd<'_>>| fd.is_some_and(|fd| !fd.revents().is_empty());
        let shown = polled.iter().zip(&fds).filter(|(_, fd)| shows(Some(fd))).map(|(position, _)| *position);
        let mut has_more = self.accept_from_each(shown);
        if shows(fds.get(polled.len())) {
            let _ = rustix::io::read(&self.connections.wake, &mut [0; 8]);
        }
        if wants_clients && shows(fds.last()) {
            let mut room = [const { MaybeUninit::uninit() }; FEW];
            if let Ok((events, _)) = epoll::wait(&self.clients, &mut room, Some(&Timespec::default())) {
                has_more |= self.accept_from_each(events.iter().map(|event| event.data.u64() as usize));
            }
        }
        has_more
    }

    /// Accepts once from each of these. Returns whether there may be more.
    fn accept_from_each(&self, positions: impl Iterator<Item = usize>) -> bool {
        let mut has_more = false;
        for listener in positions.filter_map(|position| self.listeners.get(position)) {
            match self.accept(listener) {
                Err(Errno::AGAIN) => {}
                Err(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => {
                    thread::sleep(PAUSE);
                    return false;
                }
                // A connection that ended while it waited says why, see accept(2). It is out of the queue.
                Ok(()) | Err(_) => has_more = true,
            }
        }
        has_more
    }

    /// Accepts one connection, or answers one datagram.
    fn accept(&self, listener: &Listener) -> Result<(), Errno> {
        let fd = self.service.fd(listener.id).map_err(|_closed| Errno::AGAIN)?;
        if listener.is_datagram {
            return answer_datagram(fd);
        }
        // Every listener is nonblocking. If another process was faster, this call fails with EAGAIN and does not wait.
        let connection = rustix::net::accept_with(fd, SocketFlags::CLOEXEC)?;
        handle(connection, Open::new(&self.connections));
        Ok(())
    }

    /// Accepts no more. A connection that arrives from now on waits for the next process, or is refused if there is none.
    fn drain(&mut self, leave: Leave) {
        if leave != Leave::Exec {
            // The service closes its listeners when it is polled next. If nobody else has them, that resets what waits.
            for _ in 0..QUEUE {
                if !self.wait(true, Some(Duration::ZERO)) {
                    break;
                }
            }
        } else if !self.service.is_main() {
            // The program executed anew finds all sockets inherited, and would store none.
            self.store_fresh();
        }
        self.accepting = None;
    }

    /// Returns whether no connection is open, and none is accepted.
    fn is_drained(&self) -> bool {
        self.connections.count.load(Ordering::SeqCst) == 0
    }

    /// Informs the service manager, which listens to this process from now on.
    fn become_main(&mut self) {
        self.store_fresh();
        let count = self.listeners.len();
        let plural = if count == 1 { "" } else { "s" };
        let generation = self.generation.as_ref().map(|state| format!(", generation {}", state.number));
        let line = format!("serving {count} listener{plural}{}", generation.unwrap_or_default());
        if let Err(error) = self.service.status(&line) {
            say!("service manager: {error}");
        }
    }

    /// Has the service manager keep what was opened here.
    fn store_fresh(&self) {
        let opened = self.listeners.iter().filter(|listener| listener.is_fresh).map(|listener| listener.id);
        let state = self.generation.iter().filter(|state| state.is_fresh).map(|state| state.id);
        for id in opened.chain(state).filter(|_| self.config.fd_store) {
            if let Err(error) = self.service.store(id) {
                say!("file descriptor store: {error}");
            }
        }
    }

    /// Writes the PID file: as a whole or not at all, and a new file each time, for those who wait for it to change.
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
}

/// How long the server waits when a resource is exhausted.
const PAUSE: Duration = Duration::from_millis(10);

/// How many connections the server accepts from one queue, at most, when it begins to drain. By default no queue of Linux
/// is longer, and clients that keep coming do not hold up the drain.
const QUEUE: usize = 4096;

/// How many listeners are few. The epoll instance takes as many between two looks at the service, and shows as many at once.
const FEW: usize = 64;

struct Listener {
    id: SocketId,
    is_datagram: bool,
    /// Whether it was opened here, not inherited.
    is_fresh: bool,
}

impl Listener {
    /// Claims or opens the socket of an address.
    fn new(service: &mut Service<'_>, name: Option<&str>, address: &str) -> Result<Self, gracenet::Error> {
        let (network, address) = match address.split_once('=') {
            _ if address.starts_with(['/', '@']) => ("unix", address),
            Some(parts) => parts,
            None => ("tcp", address),
        };
        let options = ListenOptions::new().nonblocking(true).replace_stale(true);
        let options = name.map_or(options, |name| options.name(name));
        let endpoint = Endpoint::parse(network, address)?;
        let (id, is_fresh) = match service.claim_at(&endpoint, &options) {
            Err(gracenet::Error::NotInherited) => (service.listen_at(&endpoint, &options)?, true),
            claimed => (claimed?, false),
        };
        Ok(Self { id, is_datagram: endpoint.network().kind() == Kind::Datagram, is_fresh })
    }
}

/// The number of this generation, in a file in memory. The file is handed over like a socket, and the service manager keeps
/// it over a crash.
struct Generation {
    id: SocketId,
    number: u64,
    /// Whether the file was made here, not inherited.
    is_fresh: bool,
}

impl Generation {
    fn claim(service: &mut Service<'_>) -> Result<Self, Box<dyn Error>> {
        let (id, is_fresh) = match service.claim_name("state") {
            Err(gracenet::Error::NotInherited) => {
                let file = rustix::fs::memfd_create("state", MemfdFlags::CLOEXEC)?;
                (service.add(file, "state")?, true)
            }
            claimed => (claimed?, false),
        };
        let mut number = [0; 8];
        rustix::io::pread(service.fd(id)?, &mut number, 0)?;
        Ok(Self { id, number: u64::from_ne_bytes(number) + 1, is_fresh })
    }
}

/// Counts who may have work to do: each connection, and the loop while it accepts.
struct Connections {
    count: AtomicUsize,
    /// Written when the count falls to zero, to end the loop's wait.
    wake: OwnedFd,
}

/// One in the count, until it is dropped.
struct Open(Arc<Connections>);

impl Open {
    fn new(connections: &Arc<Connections>) -> Self {
        connections.count.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(connections))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if self.0.count.fetch_sub(1, Ordering::SeqCst) == 1 {
            let _ = rustix::io::write(&self.0.wake, &1_u64.to_ne_bytes());
        }
    }
}

/// Answers in a thread. If there is no thread to be had, the connection is closed: the loop must not wait for a client.
fn handle(connection: OwnedFd, open: Open) {
    let work = move || {
        // This is dropped after the socket is closed: the process may exit as soon as the count is zero.
        let _open = open;
        let error = answer(&Socket::from(connection)).err();
        // A client that sent nothing in time is no news.
        if let Some(error) = error.filter(|error| error.kind() != ErrorKind::WouldBlock) {
            say!("connection: {error}");
        }
    };
    if let Err(error) = thread::Builder::new().stack_size(128 * 1024).spawn(work) {
        say!("connection: no thread: {error}");
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
        // Unread bytes would turn the close into a reset, and the client might not see the answer.
        socket.shutdown(Shutdown::Write)?;
        socket.set_read_timeout(Some(Duration::from_millis(200)))?;
        let _ = io::copy(&mut socket.take(1 << 20), &mut io::sink());
    }
    Ok(())
}

/// Reads. A read with a timeout fails with `EINTR` if the process was stopped and continued, see signal(7); it is repeated.
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
fn answer_datagram(socket: BorrowedFd<'_>) -> Result<(), Errno> {
    let mut buffer = [0; 2048];
    if let (_, _, Some(sender)) = rustix::net::recvfrom(socket, &mut buffer, RecvFlags::DONTWAIT)? {
        let (answer, sender): (_, SocketAddrAny) = (format!("{}\n", std::process::id()), sender);
        // A client that has left needs no answer.
        let _ = rustix::net::sendto(socket, answer.as_bytes(), SendFlags::NOSIGNAL, &sender);
    }
    Ok(())
}
