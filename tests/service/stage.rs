//! What the scenarios are made of: a server that is followed line by line, clients, a service manager, and the end of
//! every process.

use crate::common::Need;
use crate::common::manager::{Received, open, receive};
use gracenet::Notifier;
use gracenet::notify::Assignment;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::process::{Pid, Signal, kill_process};
use std::collections::{HashMap, HashSet, VecDeque};
use std::io::{self, BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tempfile::TempDir;

pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) run: fn(Way),
    pub(crate) ways: &'static [Way],
    pub(crate) needs: &'static [Need],
}

/// How the server waits for its service.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Way {
    /// For the one descriptor.
    One,
    /// For the one descriptor, by its edges, as an async runtime does.
    Edge,
    /// For each descriptor, until the deadline.
    Each,
}

impl Way {
    pub(crate) const ALL: &'static [Self] = &[Self::One, Self::Edge, Self::Each];
    pub(crate) const BOTH: &'static [Self] = &[Self::One, Self::Each];
    pub(crate) const FIRST: &'static [Self] = &[Self::One];

    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::One => "one",
            Self::Edge => "edge",
            Self::Each => "each",
        }
    }
}

macro_rules! scenarios {
    ($($ways:ident: $($function:ident $(if $need:ident)?),* $(,)?);* $(;)?) => {
        pub(crate) const ALL: &[$crate::stage::Scenario] = &[$($(
            $crate::stage::Scenario {
                name: stringify!($function),
                run: $function,
                ways: $crate::stage::Way::$ways,
                needs: &[$((stringify!($need), $need))?],
            },
        )*)*];
    };
}
pub(crate) use scenarios;

pub(crate) const PATIENCE: Duration = Duration::from_secs(15);

/// Prepares the process of a scenario: 3 and 4 are set aside, and it reaps whatever its servers leave behind.
pub(crate) fn set() {
    for number in [3, 4] {
        let null = rustix::fs::open("/dev/null", rustix::fs::OFlags::CLOEXEC, 0.into()).unwrap();
        assert_eq!(std::os::fd::IntoRawFd::into_raw_fd(null), number);
    }
    unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1) };
}

pub(crate) fn readable_within(fd: BorrowedFd<'_>, time: Duration) -> bool {
    let timeout =
        Timespec { tv_sec: time.as_secs().try_into().unwrap(), tv_nsec: time.subsec_nanos().into() };
    rustix::event::poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&timeout)).unwrap() > 0
}

/// How the processes have ended that a scenario started, or that were left to it.
static ENDS: Mutex<Ends> = Mutex::new(Ends { statuses: Vec::new(), started: 0, is_reaping: false });
static CHANGED: Condvar = Condvar::new();

struct Ends {
    statuses: Vec<(i32, i32)>,
    started: usize,
    is_reaping: bool,
}

/// Starts a child of the scenario. A thread reaps it, and whatever else becomes a child: a sibling has to be reaped at
/// once, for its sibling to learn how it ended.
#[allow(clippy::zombie_processes, reason = "the thread reaps it")]
pub(crate) fn start(command: &mut Command) -> Started {
    let mut child = command.spawn().unwrap();
    let mut ends = ENDS.lock().unwrap();
    ends.started += 1;
    CHANGED.notify_all();
    if !std::mem::replace(&mut ends.is_reaping, true) {
        std::thread::spawn(reap);
    }
    Started { pid: child.id() as i32, stdin: child.stdin.take(), stdout: child.stdout.take() }
}

/// A child that the thread reaps.
pub(crate) struct Started {
    pub(crate) pid: i32,
    pub(crate) stdin: Option<ChildStdin>,
    stdout: Option<ChildStdout>,
}

fn reap() {
    let mut seen = 0;
    loop {
        let mut status = 0;
        let pid = unsafe { libc::waitpid(-1, &raw mut status, 0) };
        let mut ends = ENDS.lock().unwrap();
        if pid > 0 {
            ends.statuses.push((pid, status));
            CHANGED.notify_all();
        } else {
            while ends.started == seen {
                ends = CHANGED.wait(ends).unwrap();
            }
            seen = ends.started;
        }
    }
}

/// How a process has ended, once it has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum End {
    Status(i32),
    Signal(i32),
}

#[track_caller]
pub(crate) fn end(pid: i32) -> End {
    let ends = ENDS.lock().unwrap();
    let find = |ends: &Ends| ends.statuses.iter().find(|(ended, _)| *ended == pid).map(|(_, status)| *status);
    let (ends, _) = CHANGED.wait_timeout_while(ends, PATIENCE, |ends| find(ends).is_none()).unwrap();
    let status = find(&ends).unwrap_or_else(|| panic!("{pid} has not ended"));
    if libc::WIFEXITED(status) {
        End::Status(libc::WEXITSTATUS(status))
    } else {
        End::Signal(libc::WTERMSIG(status))
    }
}

pub(crate) fn has_ended(pid: i32) -> bool {
    ENDS.lock().unwrap().statuses.iter().any(|(ended, _)| *ended == pid)
}

/// The processes of the scenario's group, except itself.
pub(crate) fn left() -> Vec<i32> {
    let own = std::process::id() as i32;
    let processes = std::fs::read_dir("/proc").unwrap();
    let pids = processes.filter_map(|entry| entry.unwrap().file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| *pid != own && unsafe { libc::getpgid(*pid) } == own).collect()
}

/// Waits until no process of the scenario's is left.
#[track_caller]
pub(crate) fn assert_nobody_is_left() {
    let begin = Instant::now();
    while !left().is_empty() {
        assert!(begin.elapsed() < PATIENCE, "left behind: {:?}", left());
        std::thread::yield_now();
    }
}

/// A field of a process's status.
pub(crate) fn status(pid: i32, field: &str) -> String {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    status.lines().find_map(|line| Some(line.strip_prefix(field)?.strip_prefix(":\t")?.to_owned())).unwrap()
}

/// A running server of any generation, and everything that all of them have said.
pub(crate) struct Server {
    directory: TempDir,
    stdout: OwnedFd,
    buffer: Vec<u8>,
    lines: HashMap<i32, VecDeque<String>>,
    history: Vec<String>,
    /// The process that serves.
    pub(crate) pid: i32,
    pub(crate) port: u16,
    /// The inode of its listener.
    pub(crate) inode: u64,
}

impl Server {
    pub(crate) fn start(way: Way, options: &[&str]) -> Self {
        Self::start_by(way, options, |program| Command::new(program))
    }

    /// Starts it with this service manager.
    pub(crate) fn start_under(manager: &Manager, way: Way, options: &[&str]) -> Self {
        Self::start_by(way, options, |program| {
            let mut command = Command::new(program);
            command.env("NOTIFY_SOCKET", &manager.address);
            command
        })
    }

    /// Starts it by a command that the program's path leads to, and waits until it is ready.
    pub(crate) fn start_by(way: Way, options: &[&str], command: impl FnOnce(&Path) -> Command) -> Self {
        let mut server = Self::begin(way, options, command);
        server.ready(server.pid);
        server
    }

    /// Starts it, and waits for nothing.
    pub(crate) fn begin(way: Way, options: &[&str], command: impl FnOnce(&Path) -> Command) -> Self {
        let directory = TempDir::new().unwrap();
        let program = directory.path().join("server");
        std::os::unix::fs::symlink(std::env::current_exe().unwrap(), &program).unwrap();
        let mut command = command(&program);
        command.args(["role", "server", way.word()]).arg(directory.path()).args(options);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).env("RUST_BACKTRACE", "0");
        let child = start(&mut command);
        Self {
            directory,
            stdout: child.stdout.unwrap().into(),
            buffer: Vec::new(),
            lines: HashMap::new(),
            history: Vec::new(),
            pid: child.pid,
            port: 0,
            inode: 0,
        }
    }

    pub(crate) fn program(&self) -> PathBuf {
        self.directory.path().join("server")
    }

    /// Sets what the next server to begin does instead of getting ready.
    pub(crate) fn set_mood(&self, mood: Option<&str>) {
        let path = self.directory.path().join("mood");
        match mood {
            Some(mood) => std::fs::write(path, mood).unwrap(),
            None => std::fs::remove_file(path).unwrap(),
        }
    }

    /// Takes the program away, or puts it back.
    pub(crate) fn set_present(&self, is_present: bool) {
        if is_present {
            std::os::unix::fs::symlink(std::env::current_exe().unwrap(), self.program()).unwrap();
        } else {
            std::fs::remove_file(self.program()).unwrap();
        }
    }

    /// Reads what is there within this time; false if nothing is.
    fn read(&mut self, time: Duration) -> bool {
        if !readable_within(self.stdout.as_fd(), time) {
            return false;
        }
        let mut buffer = [0; 4096];
        let read = rustix::io::read(&self.stdout, &mut buffer).unwrap();
        self.buffer.extend_from_slice(&buffer[..read]);
        while let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.buffer.drain(..=end).collect();
            let line = String::from_utf8(line).unwrap();
            self.history.push(line.trim_end().to_owned());
            let (pid, words) = line.trim_end().split_once(' ').unwrap();
            self.lines.entry(pid.parse().unwrap()).or_default().push_back(words.to_owned());
        }
        read > 0
    }

    /// The next line of this process.
    #[track_caller]
    pub(crate) fn line(&mut self, pid: i32) -> String {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(line) = self.lines.get_mut(&pid).and_then(VecDeque::pop_front) {
                return line;
            }
            let rest = until.saturating_duration_since(Instant::now());
            assert!(self.read(rest), "{pid} says nothing more; {:#?}", self.history);
        }
    }

    /// Whoever says something first.
    #[track_caller]
    pub(crate) fn anybody(&mut self) -> i32 {
        assert!(!self.lines.is_empty() || self.read(PATIENCE), "nothing is said");
        *self.lines.keys().next().unwrap()
    }

    #[track_caller]
    pub(crate) fn expect(&mut self, pid: i32, line: &str) {
        let found = self.line(pid);
        assert_eq!(found, line, "of {pid}; {:#?}", self.history);
    }

    /// Asserts that this process says nothing for this time.
    #[track_caller]
    pub(crate) fn quiet(&mut self, pid: i32, time: Duration) {
        let until = Instant::now() + time;
        while self.read(until.saturating_duration_since(Instant::now())) {}
        assert!(self.lines.get(&pid).is_none_or(VecDeque::is_empty), "{:#?}", self.history);
    }

    /// Asserts that nobody has said anything that no scenario has looked at.
    #[track_caller]
    pub(crate) fn nothing_more(&mut self) {
        while self.read(Duration::ZERO) {}
        assert!(self.lines.values().all(VecDeque::is_empty), "{:?}; {:#?}", self.lines, self.history);
    }

    /// Waits until this process is ready.
    #[track_caller]
    pub(crate) fn ready(&mut self, pid: i32) {
        let line = self.line(pid);
        let mut words = line.strip_prefix("ready ").unwrap_or_else(|| panic!("not ready: {line}")).split(' ');
        self.pid = pid;
        self.port = words.next().unwrap().parse().unwrap();
        self.inode = words.next().unwrap().parse().unwrap();
    }

    #[track_caller]
    pub(crate) fn started(&mut self, by: i32) -> i32 {
        let line = self.line(by);
        let pid = line.strip_prefix("Started(").and_then(|rest| rest.strip_suffix(')'));
        pid.unwrap_or_else(|| panic!("{line}; {:#?}", self.history)).parse().unwrap()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        signal_to(self.pid, signal);
    }

    /// Waits until this process, in the mood to, has stopped.
    #[track_caller]
    pub(crate) fn stopped(&mut self, pid: i32) {
        self.expect(pid, "stops");
        let begin = Instant::now();
        while !status(pid, "State").starts_with('T') {
            assert!(begin.elapsed() < PATIENCE, "{pid} goes on");
            std::thread::yield_now();
        }
    }

    /// What the process that serves does and says when it hands over to a successor, with nothing open.
    #[track_caller]
    pub(crate) fn hand_over(&mut self) {
        self.signal(Signal::USR2);
        let predecessor = self.pid;
        let successor = self.started(predecessor);
        self.ready(successor);
        self.expect(predecessor, &format!("HandedOver({successor})"));
        self.leaves(predecessor, "HandOver");
        self.expect(successor, "Main");
    }

    #[track_caller]
    pub(crate) fn leaves(&mut self, pid: i32, leave: &str) {
        self.expect(pid, &format!("Drain({leave})"));
        self.expect(pid, "Exit(0)");
        assert_eq!(end(pid), End::Status(0));
    }

    /// Ends the server, and asserts that it was alone and had nothing more to say.
    #[track_caller]
    pub(crate) fn stop(&mut self) {
        self.signal(Signal::TERM);
        let pid = self.pid;
        self.leaves(pid, "Exit");
        assert_nobody_is_left();
        self.nothing_more();
    }

    /// Sends a request and returns the answer.
    #[track_caller]
    pub(crate) fn ask(&self, request: &str) -> String {
        ask(self.port, request).unwrap()
    }

    /// Asserts that this process answers.
    #[track_caller]
    pub(crate) fn answers(&self) {
        assert_eq!(self.ask("pid"), self.pid.to_string());
    }

    /// Asks until this process answers, where another one accepts beside it.
    #[track_caller]
    pub(crate) fn answers_still(&self, pid: i32) {
        let begin = Instant::now();
        while self.ask("pid") != pid.to_string() {
            assert!(begin.elapsed() < PATIENCE, "{pid} does not answer");
        }
    }

    /// Begins a request that ends when the scenario says so.
    #[track_caller]
    pub(crate) fn hold(&self) -> Held {
        let mut held = Held(BufReader::new(connect(self.port).unwrap()));
        assert_eq!(held.exchange("hold").unwrap(), "held");
        held
    }

    pub(crate) fn clients(&self, count: usize) -> Clients {
        let port = self.port;
        let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let threads = (0..count).map(|_| {
            let (stop, answered) = (stop.clone(), answered.clone());
            std::thread::spawn(move || {
                let mut answers = HashSet::new();
                while !stop.load(Ordering::Relaxed) {
                    answers.insert(ask(port, "pid").unwrap_or_else(|error| error.to_string()));
                    answered.fetch_add(1, Ordering::Relaxed);
                }
                answers
            })
        });
        Clients { threads: threads.collect(), stop, answered }
    }
}

pub(crate) fn signal_to(pid: i32, signal: Signal) {
    kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
}

fn connect(port: u16) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

pub(crate) fn ask(port: u16, request: &str) -> io::Result<String> {
    Held(BufReader::new(connect(port)?)).exchange(request)
}

/// A request that is under way.
pub(crate) struct Held(BufReader<TcpStream>);

impl Held {
    pub(crate) fn exchange(&mut self, request: &str) -> io::Result<String> {
        writeln!(self.0.get_mut(), "{request}")?;
        let mut answer = String::new();
        self.0.read_line(&mut answer)?;
        let line = answer.strip_suffix('\n').ok_or(io::ErrorKind::UnexpectedEof)?;
        Ok(line.to_owned())
    }

    /// Ends it: the server answers now.
    #[track_caller]
    pub(crate) fn finish(mut self, pid: i32) {
        assert_eq!(self.exchange("pid").unwrap(), pid.to_string());
    }
}

/// Clients that ask without a pause.
pub(crate) struct Clients {
    threads: Vec<JoinHandle<HashSet<String>>>,
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
}

impl Clients {
    /// Waits until so many more requests were answered.
    #[track_caller]
    pub(crate) fn wait(&self, count: usize) {
        let (begin, before) = (Instant::now(), self.answered.load(Ordering::Relaxed));
        while self.answered.load(Ordering::Relaxed) < before + count {
            assert!(begin.elapsed() < PATIENCE, "no answers");
            std::thread::yield_now();
        }
    }

    /// Asserts that every request was answered, by one of these processes.
    #[track_caller]
    pub(crate) fn stop(self, pids: impl IntoIterator<Item = i32>) {
        self.stop.store(true, Ordering::Relaxed);
        let pids: HashSet<_> = pids.into_iter().map(|pid| pid.to_string()).collect();
        for thread in self.threads {
            let answers = thread.join().unwrap();
            assert!(answers.is_subset(&pids), "{:?}", answers.difference(&pids));
        }
    }
}

/// A service manager's socket.
pub(crate) struct Manager {
    socket: OwnedFd,
    pub(crate) address: String,
}

impl Manager {
    pub(crate) fn new() -> Self {
        let address = format!("@gracenet-service-{}", std::process::id());
        let socket = open(&address);
        Self { socket, address }
    }

    /// The next message, if there is one within this time.
    pub(crate) fn receive(&self, time: Duration) -> Option<Received> {
        if !readable_within(self.socket.as_fd(), time) {
            return None;
        }
        receive(&self.socket)
    }

    /// The next message, of this process's, which carries nothing.
    #[track_caller]
    pub(crate) fn next(&self, from: i32) -> String {
        let (sender, message, fds) = self.receive(PATIENCE).expect("the manager hears nothing");
        assert_eq!((sender, fds.len()), (from, 0), "{message}");
        message
    }

    #[track_caller]
    pub(crate) fn expect(&self, from: i32, message: &str) {
        assert_eq!(self.next(from), message);
    }

    #[track_caller]
    pub(crate) fn quiet(&self, time: Duration) {
        let received = self.receive(time);
        assert!(received.is_none(), "{received:?}");
    }

    /// What it hears first of a server with one socket.
    #[track_caller]
    pub(crate) fn hears_of(&self, server: &Server) {
        self.expect(server.pid, "READY=1");
        self.expect(server.pid, "STATUS=serving 1 socket");
    }

    #[track_caller]
    pub(crate) fn reloading(&self, from: i32) {
        let message = self.next(from);
        let time = message.strip_prefix("RELOADING=1\nMONOTONIC_USEC=");
        let time = time.unwrap_or_else(|| panic!("{message}")).split('\n').next().unwrap();
        time.parse::<u64>().unwrap();
    }

    /// Who the main process is now, and the barrier, which is returned.
    #[track_caller]
    pub(crate) fn main_pid(&self, from: i32, successor: i32) -> OwnedFd {
        let message = self.next(from);
        assert!(message.starts_with(&format!("MAINPID={successor}\n")), "{message}");
        assert!(message.ends_with("\nREADY=1"), "{message}");
        let (sender, message, mut fds) = self.receive(PATIENCE).expect("no barrier");
        assert_eq!((sender, &*message, fds.len()), (from, "BARRIER=1", 1));
        fds.remove(0)
    }

    /// Follows a hand-over with nothing open to its end.
    #[track_caller]
    pub(crate) fn hand_over(&self, server: &mut Server) {
        server.signal(Signal::USR2);
        let predecessor = server.pid;
        self.reloading(predecessor);
        let successor = server.started(predecessor);
        server.ready(successor);
        drop(self.main_pid(predecessor, successor));
        server.expect(predecessor, &format!("HandedOver({successor})"));
        server.leaves(predecessor, "HandOver");
        server.expect(successor, "Main");
        self.expect(successor, "STATUS=serving 1 socket");
    }

    /// Sends this manager as many messages as it takes without reading.
    pub(crate) fn fill(&self) -> usize {
        let filler = Notifier::parse(self.address.as_bytes()).unwrap().timeout(Duration::ZERO);
        let mut sent = 0;
        while filler.send(&[Assignment::Status("filled")]) == Ok(true) {
            sent += 1;
        }
        assert_ne!(sent, 0);
        sent
    }

    #[track_caller]
    pub(crate) fn read_what_fills(&self, count: usize) {
        (0..count).for_each(|_| self.expect(std::process::id() as i32, "STATUS=filled"));
    }

    #[track_caller]
    pub(crate) fn stop(&self, server: &mut Server) {
        server.signal(Signal::TERM);
        self.expect(server.pid, "STOPPING=1\nSTATUS=draining, to exit");
        let pid = server.pid;
        server.leaves(pid, "Exit");
        assert_nobody_is_left();
        server.nothing_more();
        self.quiet(Duration::ZERO);
    }
}
