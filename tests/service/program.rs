//! The server: a poll loop on `Service` that says each event as one line, with its PID in front.
//!
//! It calls `Service::poll` when the service shows that it should, and never for good measure, so that a server which
//! misses something stands still.

use crate::stage::Way;
use gracenet::service::{Moment, Reload, Watchdog};
use gracenet::{Event, Leave, Policy, Process, Readiness, Request, Restart, Service};
use rustix::event::{PollFd, PollFlags, Timespec, epoll};
use rustix::fd::{AsFd, AsRawFd, OwnedFd};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::ffi::OsString;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

struct Options {
    way: Way,
    directory: PathBuf,
    policy: Policy<'static>,
    /// Whether the program says when it is drained.
    says_drained: bool,
}

impl Options {
    fn parse(args: impl Iterator<Item = OsString>) -> Self {
        let mut args = args.map(|arg| arg.into_string().unwrap());
        let way = args.next().unwrap();
        let way = *Way::ALL.iter().find(|known| known.word() == way).unwrap();
        let directory = args.next().unwrap().into();
        let mut policy = Policy::new().one_descriptor(way != Way::Each);
        let mut says_drained = true;
        while let Some(arg) = args.next() {
            let mut millis = || Duration::from_millis(args.next().unwrap().parse().unwrap());
            policy = match arg.as_str() {
                "--ready" => policy.ready_within(millis()),
                "--drain" => policy.drain_within(millis()),
                "--barrier" => policy.barrier_within(millis()),
                "--retry" => policy.retry_every(millis()),
                "--alive" => policy.restart(Restart::new().readiness(Readiness::Alive(millis()))),
                "--reload-exec" => policy.reload(Reload::Exec),
                "--no-signals" => policy.signals(false),
                "--no-orphans" => policy.orphans(false),
                "--watchdog-alive" => policy.watchdog(Watchdog::Alive),
                "--watchdog-off" => policy.watchdog(Watchdog::Off),
                "--undrained" => {
                    says_drained = false;
                    policy
                }
                other => panic!("no such option: {other}"),
            };
        }
        Self { way, directory, policy, says_drained }
    }

    /// What this process is to do instead of getting ready.
    fn mood(&self) -> String {
        std::fs::read_to_string(self.directory.join("mood")).unwrap_or_default()
    }
}

fn say(words: impl std::fmt::Display) {
    // One write, so that the lines of several processes stay apart.
    let line = format!("{} {words}\n", std::process::id());
    std::io::stdout().write_all(line.as_bytes()).unwrap();
    std::io::stdout().flush().unwrap();
}

fn words(event: Event) -> String {
    match event {
        Event::Failed(why) => format!("Failed({why})"),
        Event::Unheard(error) => format!("Unheard({error})"),
        Event::Unseen(error) => format!("Unseen({error})"),
        Event::Started(pid) => format!("Started({pid})"),
        Event::HandedOver(pid) => format!("HandedOver({pid})"),
        other => format!("{other:?}"),
    }
}

pub(crate) fn run(args: impl Iterator<Item = OsString>) -> ExitCode {
    static PROCESS: Process<16> = Process::new();
    let options = Options::parse(args);
    let mut service = unsafe { PROCESS.begin(options.policy) }.unwrap();
    if let Some(address) = options.mood().strip_prefix("linger ") {
        linger(service, address);
    }
    let http = match open(&mut service, &options) {
        Ok(http) => http,
        // As a program's own `main` would return it: the service is dropped, and tells.
        Err(why) => {
            eprintln!("{why}");
            return ExitCode::FAILURE;
        }
    };
    if let Err(error) = service.ready() {
        say(format!("not ready: {error}"));
        return ExitCode::FAILURE;
    }
    let inode = rustix::fs::fstat(&http).unwrap().st_ino;
    say(format!("ready {} {inode}", http.local_addr().unwrap().port()));
    let outer = (options.way == Way::Edge).then(|| {
        let outer = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
        let flags = epoll::EventFlags::IN | epoll::EventFlags::ET;
        epoll::add(&outer, &service, epoll::EventData::new_u64(0), flags).unwrap();
        outer
    });
    let server = Program {
        service,
        http: Some(http),
        outer,
        clients: Vec::new(),
        drain: None,
        wakes: 0,
        forks_when_started: false,
        options,
    };
    server.run()
}

fn open(service: &mut Service<'_>, options: &Options) -> Result<TcpListener, Box<dyn std::error::Error>> {
    if options.mood() == "limit" {
        // No descriptor is left.
        let next = rustix::io::dup(std::io::stdout())?;
        let limit =
            Rlimit { current: Some(next.as_raw_fd() as u64), maximum: getrlimit(Resource::Nofile).maximum };
        setrlimit(Resource::Nofile, limit)?;
    }
    let http = service.tcp("http", "127.0.0.1:0")?;
    match options.mood().split(' ').collect::<Vec<_>>()[..] {
        ["exit"] => std::process::exit(3),
        ["crash"] => {
            unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
        }
        ["hang"] => {
            say("hangs");
            loop {
                unsafe { libc::pause() };
            }
        }
        ["return"] => return Err("no mind to".into()),
        ["bind", address] => drop(service.tcp("other", address)?),
        // Goes on when it is told to.
        ["stop"] => {
            say("stops");
            unsafe { libc::raise(libc::SIGSTOP) };
        }
        _ => {}
    }
    Ok(http)
}

/// Gives up, and lives on.
fn linger(mut service: Service<'_>, address: &str) -> ! {
    service.tcp("other", address).unwrap_err();
    drop(service);
    say("lingers");
    loop {
        unsafe { libc::pause() };
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Drain {
    Open,
    Told,
}

struct Program {
    service: Service<'static>,
    http: Option<TcpListener>,
    /// An instance that watches the service by its edges.
    outer: Option<OwnedFd>,
    clients: Vec<Client>,
    drain: Option<Drain>,
    wakes: usize,
    forks_when_started: bool,
    options: Options,
}

struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Program {
    fn run(mut self) -> ! {
        loop {
            let is_shown = self.wait();
            self.wakes += 1;
            if is_shown {
                self.obey();
            }
            if self.service.accepts() {
                self.accept();
            }
            self.serve();
            if self.drain == Some(Drain::Open) && self.clients.is_empty() && self.options.says_drained {
                self.drain = Some(Drain::Told);
                self.service.drained();
            }
        }
    }

    /// Waits, and returns whether the service wants to be polled.
    fn wait(&self) -> bool {
        let mut fds = Vec::new();
        match (self.options.way, &self.outer) {
            (Way::Each, _) => fds.extend(self.service.fds()),
            (_, Some(outer)) => fds.push(outer.as_fd()),
            (_, None) => fds.push(self.service.as_fd()),
        }
        let count = fds.len();
        fds.extend(self.http.iter().filter(|_| self.service.accepts()).map(|http| http.as_fd()));
        fds.extend(self.clients.iter().map(|client| client.stream.as_fd()));
        let mut fds: Vec<_> = fds.into_iter().map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)).collect();
        let deadline = self.service.deadline().filter(|_| self.options.way == Way::Each);
        let timeout = deadline.map(|at| {
            let time = at.since(moment());
            Timespec { tv_sec: time.as_secs().try_into().unwrap(), tv_nsec: time.subsec_nanos().into() }
        });
        rustix::event::poll(&mut fds, timeout.as_ref()).unwrap();
        let is_shown = fds[..count].iter().any(|fd| !fd.revents().is_empty());
        if let (Some(outer), true) = (&self.outer, is_shown) {
            let mut events = Vec::with_capacity(4);
            epoll::wait(
                outer,
                rustix::buffer::spare_capacity(&mut events),
                Some(&Timespec { tv_sec: 0, tv_nsec: 0 }),
            )
            .unwrap();
            return !events.is_empty();
        }
        is_shown || deadline.is_some_and(|at| at <= moment())
    }

    fn obey(&mut self) {
        while let Some(event) = self.service.poll() {
            match event {
                Event::Serve => self.drain = None,
                Event::Drain(leave) => {
                    self.drain = Some(Drain::Open);
                    if leave != Leave::Exec {
                        self.accept();
                        self.http = None;
                    }
                }
                _ => {}
            }
            // Said when it is done: from here on this process accepts no more, if it is to drain.
            say(words(event));
            match event {
                Event::Started(_) if std::mem::take(&mut self.forks_when_started) => self.fork(false),
                Event::Exit(status) => std::process::exit(status.into()),
                _ => {}
            }
        }
    }

    fn accept(&mut self) {
        let http = self.http.iter();
        let streams = http.flat_map(|http| std::iter::from_fn(|| http.accept().ok()));
        self.clients.extend(streams.map(|(stream, _)| Client { stream, buffer: Vec::new() }));
    }

    fn serve(&mut self) {
        for mut client in std::mem::take(&mut self.clients) {
            let shows = PollFd::new(&client.stream, PollFlags::IN);
            let now = Timespec { tv_sec: 0, tv_nsec: 0 };
            if rustix::event::poll(&mut [shows], Some(&now)).unwrap() == 0 {
                self.clients.push(client);
                continue;
            }
            let mut bytes = [0; 256];
            let Ok(read @ 1..) = client.stream.read(&mut bytes) else { continue };
            client.buffer.extend_from_slice(&bytes[..read]);
            let Some(line) = client.buffer.strip_suffix(b"\n") else {
                self.clients.push(client);
                continue;
            };
            let line = String::from_utf8(line.to_vec()).unwrap();
            client.buffer.clear();
            self.answer(client, &line);
        }
    }

    fn answer(&mut self, mut client: Client, line: &str) {
        let pid = std::process::id();
        let answer = match line {
            "hold" => "held".to_owned(),
            "ready" => format!("{:?}", self.service.ready()),
            "wakes" => self.wakes.to_string(),
            "vars" => {
                let of_manager = ["LISTEN_", "NOTIFY_", "WATCHDOG_", "FDSTORE", "MAINPID"];
                let names = std::env::vars().map(|(name, _)| name);
                let names = names.filter(|name| of_manager.iter().any(|prefix| name.starts_with(prefix)));
                names.collect::<Vec<_>>().join(" ")
            }
            "flags" => {
                let flags = rustix::fs::fcntl_getfl(self.http.as_ref().unwrap()).unwrap();
                format!("nonblocking {}", flags.contains(rustix::fs::OFlags::NONBLOCK))
            }
            "main" => self.service.is_main().to_string(),
            "fds" => std::fs::read_dir("/proc/self/fd").unwrap().count().to_string(),
            _ => pid.to_string(),
        };
        let _ = writeln!(client.stream, "{answer}");
        match line {
            "hold" | "ready" | "wakes" => self.clients.push(client),
            "alive" => self.service.alive(),
            "spawn" => self.service.request(Request::Spawn),
            "exec" => self.service.request(Request::Exec),
            "terminate" => self.service.request(Request::Terminate),
            "fork" => self.fork(false),
            // With a signal that has come, and that nobody has looked for.
            "fork-signalled" => self.fork(true),
            "fork-started" => self.forks_when_started = true,
            "fork-asleep" => fork_asleep(),
            _ => {}
        }
    }

    /// Forks. The copy does what it should not; this process waits until it has ended.
    fn fork(&mut self, is_signalled: bool) {
        if is_signalled {
            unsafe { libc::kill(libc::getpid(), libc::SIGUSR2) };
        }
        let pid = unsafe { libc::fork() };
        assert_ne!(pid, -1);
        if pid != 0 {
            let mut status = 0;
            assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
            assert_eq!(status, 0);
            return;
        }
        let mut events = Vec::new();
        for request in [None, Some(Request::Spawn), Some(Request::Exec)] {
            if let Some(request) = request {
                self.service.request(request);
            }
            while let Some(event) = self.service.poll() {
                events.push(words(event));
                if events.len() > 20 {
                    break;
                }
            }
        }
        events.push(format!("{:?}", self.service.ready().map_err(|error| error.to_string())));
        // Dropped, as by a copy that leaves its `main`.
        drop(unsafe { std::ptr::read(&raw const self.service) });
        let line = format!("{} forked: {}\n", unsafe { libc::getppid() }, events.join(", "));
        rustix::io::write(std::io::stdout(), line.as_bytes()).unwrap();
        unsafe { libc::_exit(0) };
    }
}

/// Forks. The copy keeps all descriptors and does nothing, until it is killed.
fn fork_asleep() {
    let pid = unsafe { libc::fork() };
    assert_ne!(pid, -1);
    if pid != 0 {
        return say(format!("forked {pid}"));
    }
    loop {
        unsafe { libc::pause() };
    }
}

fn moment() -> Moment {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    Moment::at(Duration::new(now.tv_sec as u64, now.tv_nsec as u32))
}
