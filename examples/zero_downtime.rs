//! Restarts a server again and again under load, and counts what was lost.
//!
//! ```text
//! cargo run --release --example zero_downtime -- [--restarts N] [--execs N] [--clients N] [--seconds S]
//!     [--server PROGRAM]
//! ```
//!
//! It starts the server of `serve.rs` (this program in another role), or another PROGRAM that does as that one,
//! on a free loopback port, keeps the clients asking without pause, a fresh connection for each request and
//! every answer checked, restarts the server N times by spawn and N times in place, and ends with a table. The
//! exit status is 1 if one request failed or one descriptor leaked.
#![allow(unsafe_code, reason = "looking at descriptors by number")]
#![allow(clippy::std_instead_of_core, reason = "a std program")]

#[path = "serve.rs"]
mod serve;

use std::collections::BTreeMap;
use std::error::Error;
use std::ffi::{OsStr, OsString};
use std::io::{BufRead, BufReader, IsTerminal};
use std::net::TcpListener;
use std::os::fd::BorrowedFd;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::FdFlags;
use rustix::process::{Pid, Signal, WaitOptions, kill_process};

/// How long anything may take before this is a failure: a restart, the last drain.
const PATIENCE: Duration = Duration::from_secs(15);

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1).peekable();
    if args.next_if(|arg| arg == "server").is_some() {
        return serve::run(args);
    }
    match Config::parse(args).map_err(Into::into).and_then(|config| demonstrate(&config)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("zero_downtime: {error}");
            ExitCode::FAILURE
        }
    }
}

struct Config {
    restarts: usize,
    execs: usize,
    clients: usize,
    seconds: f64,
    server: Option<OsString>,
}

impl Config {
    fn parse(args: impl Iterator<Item = OsString>) -> Result<Self, lexopt::Error> {
        use lexopt::prelude::*;
        let mut config = Self { restarts: 50, execs: 10, clients: 8, seconds: 10.0, server: None };
        let mut parser = lexopt::Parser::from_args(args);
        while let Some(arg) = parser.next()? {
            match arg {
                Long("restarts") => config.restarts = parser.value()?.parse()?,
                Long("execs") => config.execs = parser.value()?.parse()?,
                Long("clients") => config.clients = parser.value()?.parse()?,
                Long("seconds") => config.seconds = parser.value()?.parse()?,
                Long("server") => config.server = Some(parser.value()?),
                other => return Err(other.unexpected()),
            }
        }
        if !(0.0..=3600.0).contains(&config.seconds) {
            return Err("--seconds is a number from 0 to 3600".into());
        }
        Ok(config)
    }
}

/// The two ways to restart, and the signals that ask `serve` for them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Way {
    Spawn,
    Exec,
}

impl Way {
    const fn signal(self) -> Signal {
        match self {
            Self::Spawn => Signal::USR2,
            Self::Exec => Signal::HUP,
        }
    }
}

fn demonstrate(config: &Config) -> Result<bool, Box<dyn Error>> {
    close_on_exec()?;
    // Predecessors that leave are this process's to collect, as they would be init's.
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    let port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
    let mut server = Server::start(config.server.as_deref(), port)?;
    let first = Footprint::of(server.pid)?;
    eprintln!("server {} on 127.0.0.1:{port}, {} clients", server.pid.as_raw_nonzero(), config.clients);

    let load = Load::start(port, config.clients);
    let mut latencies = BTreeMap::<Way, Vec<Duration>>::new();
    let total = config.restarts + config.execs;
    let begin = Instant::now();
    for (count, way) in plan(config.restarts, config.execs).enumerate() {
        let due = Duration::from_secs_f64(config.seconds * (count + 1) as f64 / (total + 1) as f64);
        thread::sleep(due.saturating_sub(begin.elapsed()));
        latencies.entry(way).or_default().push(server.restart(way)?);
        progress(count + 1, total, &load);
    }
    thread::sleep(Duration::from_secs_f64(config.seconds).saturating_sub(begin.elapsed()));
    let elapsed = begin.elapsed();
    let (answered, failures) = load.stop();

    let last = server.settled(&first)?;
    server.stop()?;
    report(&Report { elapsed, answered, failures: &failures, latencies: &latencies, first, last });
    Ok(answered > 0 && failures.is_empty() && last.fds == first.fds)
}

/// Keeps what this process happened to be started with out of the server, so that its descriptors can be
/// counted.
fn close_on_exec() -> Result<(), Box<dyn Error>> {
    for entry in std::fs::read_dir("/proc/self/fd")? {
        let fd: i32 = entry?.file_name().to_string_lossy().parse()?;
        if fd > 2 {
            // SAFETY: it is looked at, not owned; one that is closed by now answers with an error.
            let fd = unsafe { BorrowedFd::borrow_raw(fd) };
            let _ = rustix::io::fcntl_setfd(fd, FdFlags::CLOEXEC);
        }
    }
    Ok(())
}

/// The restarts, those in place spread evenly among the others.
fn plan(restarts: usize, execs: usize) -> impl Iterator<Item = Way> {
    let total = restarts + execs;
    (0..total).map(move |step| {
        let before = step * execs / total;
        let after = (step + 1) * execs / total;
        if after > before { Way::Exec } else { Way::Spawn }
    })
}

fn progress(done: usize, total: usize, load: &Load) {
    let answered = load.answered.load(Ordering::Relaxed);
    let failed = load.failed.load(Ordering::Relaxed);
    let line = format!("{done}/{total} restarts, {answered} requests answered, {failed} failed");
    if std::io::stderr().is_terminal() {
        eprint!("\r{line}");
        if done == total {
            eprintln!();
        }
    } else if done.is_multiple_of(10) || done == total {
        eprintln!("{line}");
    }
}

/// The server's generations, of which the newest is known by its PID.
struct Server {
    pid: Pid,
    first: Child,
    ready: Receiver<(Instant, Pid)>,
}

impl Server {
    fn start(program: Option<&OsStr>, port: u16) -> Result<Self, Box<dyn Error>> {
        let mut command = match program {
            Some(program) => Command::new(program),
            None => Command::new(std::env::current_exe()?),
        };
        let mut first = command
            .args(program.is_none().then_some("server"))
            .arg(format!("127.0.0.1:{port}"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let stdout = first.stdout.take().ok_or("no stdout")?;
        let (sender, ready) = mpsc::channel();
        thread::spawn(move || {
            // Every generation writes to the same pipe; it ends when the last one has.
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let now = Instant::now();
                let pid = line.strip_prefix("ready pid=").and_then(|rest| rest.split(' ').next());
                if let Some(pid) = pid.and_then(|pid| Pid::from_raw(pid.parse().ok()?)) {
                    if sender.send((now, pid)).is_err() {
                        return;
                    }
                }
            }
        });
        let (_, pid) = ready.recv_timeout(PATIENCE).map_err(|_| "the server did not get ready")?;
        Ok(Self { pid, first, ready })
    }

    /// Restarts the newest generation and returns how long it took from the signal to the ready line.
    fn restart(&mut self, way: Way) -> Result<Duration, Box<dyn Error>> {
        let begin = Instant::now();
        kill_process(self.pid, way.signal())?;
        let (end, pid) = self.ready.recv_timeout(PATIENCE).map_err(|_| "a restart did not end")?;
        if (pid == self.pid) != (way == Way::Exec) {
            return Err("a restart did not keep, or did keep, the PID".into());
        }
        self.pid = pid;
        Ok(end - begin)
    }

    /// The newest generation's footprint, once its predecessor has left and been forgotten.
    fn settled(&self, first: &Footprint) -> Result<Footprint, Box<dyn Error>> {
        let begin = Instant::now();
        loop {
            let now = Footprint::of(self.pid)?;
            if now.fds == first.fds || begin.elapsed() > Duration::from_secs(2) {
                return Ok(now);
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Stops the newest generation and collects all of them.
    fn stop(mut self) -> Result<(), Box<dyn Error>> {
        kill_process(self.pid, Signal::TERM)?;
        let begin = Instant::now();
        while begin.elapsed() < PATIENCE {
            match rustix::process::wait(WaitOptions::NOHANG) {
                Ok(None) => thread::sleep(Duration::from_millis(5)),
                Ok(Some(_)) => {}
                Err(rustix::io::Errno::CHILD) => {
                    // Collected above, with the others.
                    let _ = self.first.try_wait();
                    return Ok(());
                }
                Err(error) => return Err(error.into()),
            }
        }
        Err("a generation did not leave".into())
    }
}

impl Drop for Server {
    /// Whatever went wrong, no server is left running.
    fn drop(&mut self) {
        let _ = kill_process(self.pid, Signal::KILL);
        let _ = self.first.kill();
        let _ = self.first.wait();
    }
}

/// What a process holds.
#[derive(Clone, Copy)]
struct Footprint {
    fds: usize,
    resident_kib: usize,
}

impl Footprint {
    fn of(pid: Pid) -> Result<Self, Box<dyn Error>> {
        let process = format!("/proc/{}", pid.as_raw_nonzero());
        let status = std::fs::read_to_string(format!("{process}/status"))?;
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
        Ok(Self {
            fds: std::fs::read_dir(format!("{process}/fd"))?.count(),
            resident_kib: resident.trim().trim_end_matches(" kB").parse()?,
        })
    }
}

type Failures = BTreeMap<String, usize>;

/// Clients that ask without pause.
struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    failed: Arc<AtomicUsize>,
    failures: Arc<Mutex<Failures>>,
    threads: Vec<thread::JoinHandle<()>>,
}

impl Load {
    fn start(port: u16, clients: usize) -> Self {
        let mut load = Self {
            stop: Arc::default(),
            answered: Arc::default(),
            failed: Arc::default(),
            failures: Arc::default(),
            threads: Vec::new(),
        };
        for _ in 0..clients {
            let (stop, answered, failed, failures) = (
                Arc::clone(&load.stop),
                Arc::clone(&load.answered),
                Arc::clone(&load.failed),
                Arc::clone(&load.failures),
            );
            load.threads.push(thread::spawn(move || {
                let url = format!("http://127.0.0.1:{port}/");
                while !stop.load(Ordering::Relaxed) {
                    match request(&url) {
                        Ok(()) => {
                            answered.fetch_add(1, Ordering::Relaxed);
                        }
                        Err(kind) => {
                            failed.fetch_add(1, Ordering::Relaxed);
                            if let Ok(mut failures) = failures.lock() {
                                *failures.entry(kind).or_default() += 1;
                            }
                        }
                    }
                }
            }));
        }
        load
    }

    fn stop(self) -> (usize, Failures) {
        self.stop.store(true, Ordering::Relaxed);
        let mut panicked = 0;
        for thread in self.threads {
            panicked += usize::from(thread.join().is_err());
        }
        let mut failures = self.failures.lock().map(|failures| failures.clone()).unwrap_or_default();
        if panicked > 0 {
            failures.insert("client panicked".to_owned(), panicked);
        }
        (self.answered.load(Ordering::Relaxed), failures)
    }
}

/// One request on a fresh connection; the answer has to be a PID.
fn request(url: &str) -> Result<(), String> {
    let response = minreq::get(url).with_timeout(10).send().map_err(|error| match error {
        minreq::Error::IoError(error) => error.kind().to_string(),
        other => other.to_string(),
    })?;
    let body = response.as_str().map_err(|_| "answer is not text".to_owned())?;
    if response.status_code != 200 {
        // What minreq makes of an answer without a status line is a status, too.
        return Err(format!("{} {}", response.status_code, response.reason_phrase));
    }
    match body.strip_suffix('\n').map(str::parse::<u32>) {
        Some(Ok(_)) => Ok(()),
        _ => Err("answer is not a PID".to_owned()),
    }
}

struct Report<'r> {
    elapsed: Duration,
    answered: usize,
    failures: &'r Failures,
    latencies: &'r BTreeMap<Way, Vec<Duration>>,
    first: Footprint,
    last: Footprint,
}

fn report(report: &Report<'_>) {
    let seconds = report.elapsed.as_secs_f64();
    let failed: usize = report.failures.values().sum();
    println!();
    println!(
        "requests answered  {:>9}   ({:.0} a second)",
        report.answered,
        report.answered as f64 / seconds
    );
    println!("requests failed    {failed:>9}");
    for (kind, count) in report.failures {
        println!("  {kind:<17}{count:>9}");
    }
    println!();
    println!("restart latency, signal to ready line, in ms");
    println!("           restarts      min   median      p99      max");
    for (way, latencies) in report.latencies {
        let mut sorted = latencies.clone();
        sorted.sort_unstable();
        let at = |share: f64| {
            let index = (share * (sorted.len() - 1) as f64).round() as usize;
            sorted.get(index).map_or(0.0, |latency| latency.as_secs_f64() * 1e3)
        };
        let name = match way {
            Way::Spawn => "spawn",
            Way::Exec => "in place",
        };
        println!(
            "{name:<10} {:>8} {:>8.2} {:>8.2} {:>8.2} {:>8.2}",
            sorted.len(),
            at(0.0),
            at(0.5),
            at(0.99),
            at(1.0)
        );
    }
    println!();
    println!("generation    descriptors   resident KiB");
    for (name, footprint) in [("first", report.first), ("last", report.last)] {
        println!("{name:<13} {:>11} {:>14}", footprint.fds, footprint.resident_kib);
    }
}
