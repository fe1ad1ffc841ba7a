//! What `examples/tiny` takes: bytes of its file, resident memory, system calls and time of a restart; whether a
//! hundred restarts under load lose a request, whether one that fails leaves something to do, and how it is as PID 1.
//! `examples/tiny/prove` builds both and starts this program.
//!
//! ```text
//! tiny PROGRAM [BYTES KIB RATIO]
//! ```
//!
//! Each line says what was measured, and the bar. The exit status is 1 if one is missed. BYTES, KIB and RATIO are
//! other bars for the file, for the memory and for the time.
//!
//! The time is held against that of a bare restart: this program in the role of a launcher, which on SIGUSR2 does
//! nothing but vfork and execve of the same program with the same socket. The two take turns, so what else the
//! machine does meets both.
#![allow(
    unsafe_code,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::std_instead_of_core,
    clippy::unwrap_used,
    clippy::zombie_processes,
    reason = "tests"
)]

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{
    Pid, PidfdFlags, Resource, Rlimit, Signal, WaitOptions, getpid, kill_process, pidfd_open, prlimit, wait,
    waitpid,
};
use std::ffi::{CString, c_char};
use std::fmt::Display;
use std::io::{BufRead, BufReader, Read, Write};
use std::mem::MaybeUninit;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{ChildStdout, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// The bars.
const BYTES: u64 = 56 * 1024;
const KIB: u64 = 68;
const OPERATIONS: usize = 22;
const RATIO: f64 = 1.3;

/// How many restarts there are under load.
const RESTARTS: usize = 100;

const CLIENTS: usize = 4;

/// How many connections the server has room for.
const CONNECTIONS: usize = 64;

/// How many restarts of each kind are timed.
const TURNS: usize = 600;

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    let args: Vec<_> = std::env::args().skip(1).collect();
    let args: Vec<_> = args.iter().map(String::as_str).collect();
    let (program, bytes, kib, ratio) = match args[..] {
        ["launch", program, address] => launch(Path::new(program), address),
        [program] => (Path::new(program), BYTES, KIB, RATIO),
        [program, bytes, kib, ratio] => {
            (Path::new(program), bytes.parse().unwrap(), kib.parse().unwrap(), ratio.parse().unwrap())
        }
        _ => panic!("usage: tiny PROGRAM [BYTES KIB RATIO]"),
    };
    // Whoever starts this may have a service manager, which is none of the servers'.
    // SAFETY: there is one thread.
    unsafe { std::env::remove_var("NOTIFY_SOCKET") };
    // A successor whose predecessor has left is this process's to collect.
    rustix::process::set_child_subreaper(Some(getpid())).unwrap();
    let mut report = Report { failed: false };
    // Takes its time, and nobody else's.
    let crowd = thread::spawn({
        let program = program.to_owned();
        move || crowd(&program)
    });
    report.at_most("bytes of the program", std::fs::metadata(program).unwrap().len(), bytes);
    memory(&mut report, program, kib);
    calls(&mut report, program);
    load(&mut report, program);
    failure(&mut report, program);
    exhaustion(&mut report, program);
    after_the_report(program);
    init(&mut report, program);
    // What collects one server's generations would collect another's.
    let (server, seconds) = crowd.join().unwrap();
    report.at_most("seconds that idle clients keep others out", seconds, 40);
    server.stop();
    latency(&mut report, program, ratio);
    if report.failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

struct Report {
    failed: bool,
}

impl Report {
    fn at_most<T: PartialOrd + Display>(&mut self, what: &str, measured: T, bar: T) {
        let missed = measured > bar;
        println!("{what:<51} {measured:>7}, at most {bar}{}", if missed { ": MISSED" } else { "" });
        self.failed |= missed;
    }
}

fn memory(report: &mut Report, program: &Path, kib: u64) {
    // Arguments and environment are on the server's stack, and how long they are is not its business.
    let mut command = Command::new(program);
    command.env_clear();
    let mut server = Server::start(command);
    report.at_most("peak resident KiB, ready", peak(server.pid), kib);
    for _ in 0..1000 {
        assert_eq!(ask(server.address), Ok(server.pid));
    }
    report.at_most("peak resident KiB, 1000 requests later", peak(server.pid), kib);
    // A connection that has yet to ask keeps the predecessor from leaving.
    let connection = TcpStream::connect(server.address).unwrap();
    assert_eq!(ask(server.address), Ok(server.pid));
    let predecessor = server.pid;
    server.restart();
    report.at_most("peak resident KiB, of a predecessor", peak(predecessor), kib);
    drop(connection);
    for _ in 0..10 {
        server.restart();
        ask(server.address).unwrap();
    }
    report.at_most("peak resident KiB, eleven restarts later", peak(server.pid), kib);
    server.stop();
}

/// The most that a process had resident.
fn peak(pid: Pid) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    peak.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Counts the calls of both processes: the predecessor's from the signal until its loop waits again, the successor's
/// until it is another program. Their names are told.
fn calls(report: &mut Report, program: &Path) {
    let directory = tempfile::tempdir().unwrap();
    let trace = directory.path().join("trace");
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-o"]).arg(&trace).arg(program);
    let mut server = Server::start(command);
    server.restart();
    let successor = server.pid.to_string();
    server.stop();
    let text = std::fs::read_to_string(&trace).unwrap();
    let calls = text.lines().filter_map(|line| {
        let (pid, call) = line.split_once(' ')?;
        let call = call.trim_start();
        call.starts_with(|byte: char| byte.is_ascii_lowercase()).then_some((pid, call))
    });
    // Behind the read of the signal, and before the loop waits.
    let mut executed = false;
    let mut names = [Vec::new(), Vec::new()];
    let restart = calls
        .skip_while(|(_, call)| !call.starts_with("read("))
        .skip(1)
        .take_while(|(pid, call)| *pid == successor || !call.starts_with("ppoll"));
    for (pid, call) in restart {
        let is_successor = pid == successor;
        if !is_successor || !executed {
            names[usize::from(is_successor)].push(call.split('(').next().unwrap());
        }
        executed |= is_successor && call.starts_with("execve(");
    }
    let count = names.iter().map(Vec::len).sum();
    report.at_most("system calls of a restart, of both processes", count, OPERATIONS);
    for (process, names) in ["predecessor", "successor"].into_iter().zip(names) {
        println!("  {process}: {}", names.join(" "));
    }
    assert!(executed, "no restart in {text}");
}

fn load(report: &mut Report, program: &Path) {
    let mut server = Server::start(Command::new(program));
    let stop = Arc::new(AtomicBool::new(false));
    let answered = Arc::new(AtomicUsize::new(0));
    let client = |_| {
        let (stop, answered, address) = (Arc::clone(&stop), Arc::clone(&answered), server.address);
        thread::spawn(move || {
            let mut failures = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                match ask(address) {
                    Ok(_) => _ = answered.fetch_add(1, Ordering::Relaxed),
                    Err(error) => failures.push(error),
                }
            }
            failures
        })
    };
    let clients: Vec<_> = (0..CLIENTS).map(client).collect();
    for _ in 0..RESTARTS {
        let before = answered.load(Ordering::Relaxed);
        server.restart();
        // Each generation has requests to answer.
        let begin = Instant::now();
        while answered.load(Ordering::Relaxed) < before + 2 * CLIENTS {
            assert!(begin.elapsed() < PATIENCE, "nobody is answered");
            thread::yield_now();
        }
    }
    stop.store(true, Ordering::Relaxed);
    let failures: Vec<_> = clients.into_iter().flat_map(|client| client.join().unwrap()).collect();
    server.stop();
    let requests = answered.load(Ordering::Relaxed) + failures.len();
    report.at_most(&format!("requests failed of {requests}, in {RESTARTS} restarts"), failures.len(), 0);
    if let Some(failure) = failures.first() {
        println!("  {failure}");
    }
}

/// A successor that fails costs nothing: the predecessor says how, serves on, and has nothing to do.
fn failure(report: &mut Report, program: &Path) {
    let directory = tempfile::tempdir().unwrap();
    let replaced = directory.path().join("tiny");
    std::fs::copy(program, &replaced).unwrap();
    let (said, stderr) = std::io::pipe().unwrap();
    let mut command = Command::new(&replaced);
    command.stderr(stderr);
    let server = Server::start(command);
    std::fs::remove_file(&replaced).unwrap();
    std::os::unix::fs::symlink("/bin/false", &replaced).unwrap();
    kill_process(server.pid, Signal::USR2).unwrap();
    let mut line = String::new();
    BufReader::new(said).read_line(&mut line).unwrap();
    assert_eq!(line, "tiny: successor exited with status 1\n");
    assert_eq!(ask(server.address), Ok(server.pid));
    let before = ticks(server.pid);
    thread::sleep(Duration::from_millis(500));
    report.at_most("ticks of work in half a second after a failure", ticks(server.pid) - before, 1);
    server.stop();
}

/// What a successor has not got, or loses, once it has reported, does not end it: nobody else has the socket then.
fn after_the_report(program: &Path) {
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-o", "/dev/null", "-e", "inject=clock_gettime:error=EPERM"]).arg(program);
    let mut server = Server::start(command);
    let predecessor = pidfd_open(server.pid, PidfdFlags::empty()).unwrap();
    server.restart();
    // It answers until it has read the report.
    let patience = Timespec { tv_sec: PATIENCE.as_secs() as i64, tv_nsec: 0 };
    let ended = rustix::event::poll(&mut [PollFd::new(&predecessor, PollFlags::IN)], Some(&patience));
    assert_eq!((ended, ask(server.address)), (Ok(1), Ok(server.pid)), "without a clock");
    server.stop();

    // Nobody reads what it says, nor what its predecessor would have to say of one that ends.
    let mut command = Command::new(program);
    let (said, stderr) = std::io::pipe().unwrap();
    command.stderr(stderr);
    let mut server = Server::start(command);
    let predecessor = server.pid;
    let (nobody, _) = std::io::pipe().unwrap();
    server.lines = BufReader::new(ChildStdout::from(std::os::fd::OwnedFd::from(nobody)));
    drop(said);
    kill_process(predecessor, Signal::USR2).unwrap();
    waitpid(Some(predecessor), WaitOptions::empty()).unwrap();
    server.pid = ask(server.address).unwrap();
    assert_ne!(server.pid, predecessor, "without anybody who reads");
    kill_process(server.pid, Signal::TERM).unwrap();
    waitpid(Some(server.pid), WaitOptions::empty()).unwrap();
}

/// Where no descriptor is left for a connection it waits, and has nothing to do until one is.
fn exhaustion(report: &mut Report, program: &Path) {
    let server = Server::start(Command::new(program));
    let fds = || -> Vec<u64> {
        let entries = std::fs::read_dir(format!("/proc/{}/fd", server.pid)).unwrap();
        entries.map(|entry| entry.unwrap().file_name().to_str().unwrap().parse().unwrap()).collect()
    };
    let before = fds().len();
    let held = TcpStream::connect(server.address).unwrap();
    while fds().len() == before {
        thread::yield_now();
    }
    let open = fds();
    let free = (0..).find(|number| !open.contains(number));
    let limit = Rlimit { current: free, maximum: free };
    prlimit(Some(server.pid), Resource::Nofile, limit).unwrap();
    let address = server.address;
    let waiting = thread::spawn(move || ask(address));
    thread::sleep(Duration::from_millis(100));
    let before = ticks(server.pid);
    thread::sleep(Duration::from_millis(500));
    report.at_most("ticks of work in half a second without a descriptor", ticks(server.pid) - before, 1);
    drop(held);
    assert_eq!(waiting.join().unwrap(), Ok(server.pid));
    server.stop();
}

/// Clients that take all there is room for, and say nothing, keep others out for a while only; how many seconds.
/// The server still runs.
fn crowd(program: &Path) -> (Server, u64) {
    let server = Server::start(Command::new(program));
    let begin = Instant::now();
    let _idle: Vec<_> = (0..CONNECTIONS).map(|_| TcpStream::connect(server.address).unwrap()).collect();
    let mut waiting = TcpStream::connect(server.address).unwrap();
    waiting.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    waiting.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    assert!(waiting.read(&mut [0]).is_err(), "there is room for one more");
    waiting.set_read_timeout(Some(Duration::from_secs(100))).unwrap();
    let mut answer = String::new();
    waiting.read_to_string(&mut answer).unwrap();
    let seconds = begin.elapsed().as_secs();
    assert!(answer.ends_with(&format!("\r\n\r\n{}\n", server.pid)), "{answer}");
    (server, seconds)
}

/// As PID 1 of a container: no successor, which would not outlive it; in place, with the same socket and what is in its
/// queue; and no zombies.
fn init(report: &mut Report, program: &Path) {
    let privileges = if rustix::process::getuid().is_root() { "" } else { "--user --map-root-user" };
    let unshare = |program: &Path| {
        let mut command = Command::new("unshare");
        command.args(privileges.split_whitespace()).args(["--pid", "--fork", "--kill-child"]).arg(program);
        command
    };
    if !unshare(Path::new("true")).output().is_ok_and(|output| output.status.success()) {
        println!("not tried as PID 1: this user may make no PID namespace");
        // Where everything is to be there, this is a failure.
        report.failed |= std::env::var("GRACENET_INTEROP").is_ok_and(|required| required == "all");
        return;
    }
    let (said, stderr) = std::io::pipe().unwrap();
    let mut said = BufReader::new(said);
    let mut command = unshare(program);
    command.stderr(stderr);
    let mut server = Server::start(command);
    let outside = server.first;
    let children = |pid: Pid| std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    let pid = Pid::from_raw(children(outside).trim().parse().unwrap()).unwrap();
    // Where a panic's clean-up looks.
    server.first = pid;
    let first = Pid::from_raw(1).unwrap();
    assert_eq!(server.pid, first);

    kill_process(pid, Signal::USR2).unwrap();
    let mut line = String::new();
    said.read_line(&mut line).unwrap();
    assert_eq!(line, "tiny: PID 1 has no successor, but restarts in place\n");

    let mut left = 0;
    for _ in 0..2 {
        assert_eq!(ask(server.address), Ok(first));
        // A connection that has yet to ask holds the drain up, and what comes meanwhile waits in the queue.
        let held = TcpStream::connect(server.address).unwrap();
        assert_eq!(ask(server.address), Ok(first));
        kill_process(pid, Signal::HUP).unwrap();
        let address = server.address;
        let queued = thread::spawn(move || ask(address));
        drop(held);
        assert_eq!(server.ready(), (first, 1));
        assert_eq!(queued.join().unwrap(), Ok(first));

        // Each ends when its stdin does. Their parent has ended by then, and they are the server's.
        let mut orphans = Command::new("nsenter");
        orphans.args(["--target", &pid.to_string(), "--pid"]);
        if !privileges.is_empty() {
            orphans.args(["--user", "--preserve-credentials"]);
        }
        orphans.args(["sh", "-c", "exec 3<&0; for _ in 1 2 3; do cat <&3 & done"]);
        let mut parent = orphans.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let stdin = parent.stdin.take();
        assert!(waitpid(Some(Pid::from_child(&parent)), WaitOptions::empty()).unwrap().unwrap().1.exited());
        assert_eq!(children(pid).split_whitespace().count(), 3);
        drop(stdin);
        let begin = Instant::now();
        while !children(pid).is_empty() && begin.elapsed() < PATIENCE {
            thread::yield_now();
        }
        left += children(pid).split_whitespace().count();
    }
    report.at_most("zombies that PID 1 leaves of 6 orphans", left, 0);
    kill_process(pid, Signal::TERM).unwrap();
    waitpid(Some(outside), WaitOptions::empty()).unwrap();
    drop(server);
}

/// How much time of the processor's a process has had, in hundredths of a second.
fn ticks(pid: Pid) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    // The 14th and the 15th field; the second may hold spaces.
    let fields = stat.rsplit_once(") ").unwrap().1.split(' ').skip(11).take(2);
    fields.map(|ticks| ticks.parse::<u64>().unwrap()).sum()
}

/// One request on a connection of its own; the answer is a PID.
fn ask(address: SocketAddr) -> Result<Pid, String> {
    let response = minreq::get(format!("http://{address}/"))
        .with_timeout(PATIENCE.as_secs())
        .send()
        .map_err(|error| error.to_string())?;
    let body = response.as_str().map_err(|error| error.to_string())?;
    if response.status_code != 200 {
        return Err(format!("{} {}", response.status_code, response.reason_phrase));
    }
    let pid = body.strip_suffix('\n').and_then(|pid| Pid::from_raw(pid.parse().ok()?));
    pid.ok_or_else(|| format!("answer {body:?}"))
}

fn latency(report: &mut Report, program: &Path, ratio: f64) {
    let (restart, bare) = time(program);
    println!("us from SIGUSR2 to ready line, median of {TURNS}          {restart:.0}, bare {bare:.0}");
    report.at_most("times a bare vfork and execve", (restart / bare * 100.0).round() / 100.0, ratio);
}

/// The median microseconds of a restart, and of a bare one.
fn time(program: &Path) -> (f64, f64) {
    let mut server = Server::start(Command::new(program));
    let mut launcher = Command::new(std::env::current_exe().unwrap());
    launcher.arg("launch").arg(program);
    let mut bare = Server::start(launcher);
    let (mut restarts, mut bares) = (Vec::new(), Vec::new());
    for _ in 0..TURNS {
        let predecessor = server.pid;
        restarts.push(server.restart());
        // What comes behind the ready line is not to meet the next turn.
        waitpid(Some(predecessor), WaitOptions::empty()).unwrap();

        let begin = Instant::now();
        kill_process(bare.pid, Signal::USR2).unwrap();
        let (launched, inherited) = bare.ready();
        bares.push(begin.elapsed());
        assert_eq!(inherited, 1);
        // The launcher collects it, and says so.
        kill_process(launched, Signal::KILL).unwrap();
        let mut line = String::new();
        bare.lines.read_line(&mut line).unwrap();
        assert_eq!(line, "collected\n");
    }
    server.stop();
    bare.stop();
    let median = |mut times: Vec<Duration>| {
        times.sort_unstable();
        times[times.len() / 2].as_secs_f64() * 1e6
    };
    (median(restarts), median(bares))
}

/// The generations of a server. They write their ready lines to one pipe.
struct Server {
    first: Pid,
    /// The newest.
    pid: Pid,
    lines: BufReader<ChildStdout>,
    address: SocketAddr,
}

impl Server {
    /// Starts `command` on an address that is free.
    fn start(mut command: Command) -> Self {
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
        let child = command.arg(address.to_string()).stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
        let mut child = child.unwrap_or_else(|error| panic!("{:?}: {error}", command.get_program()));
        let first = Pid::from_child(&child);
        let lines = BufReader::new(child.stdout.take().unwrap());
        let mut server = Self { first, pid: first, lines, address };
        (server.pid, _) = server.ready();
        server
    }

    /// The PID of the next ready line, and how many sockets it inherited.
    fn ready(&mut self) -> (Pid, u32) {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        let mut numbers = line.trim_end().split(' ').filter_map(|word| Some(word.split_once('=')?.1));
        let pid = numbers.next().and_then(|pid| Pid::from_raw(pid.parse().ok()?));
        let inherited = numbers.next().and_then(|inherited| inherited.parse().ok());
        pid.zip(inherited).unwrap_or_else(|| panic!("no ready line: {line:?}"))
    }

    /// Restarts the newest generation; how long it took from the signal to the ready line.
    fn restart(&mut self) -> Duration {
        let begin = Instant::now();
        kill_process(self.pid, Signal::USR2).unwrap();
        let (successor, inherited) = self.ready();
        let elapsed = begin.elapsed();
        assert_ne!(successor, self.pid);
        assert_eq!(inherited, 1);
        self.pid = successor;
        elapsed
    }

    /// Ends the newest generation, and waits for all of them.
    fn stop(mut self) {
        kill_process(self.pid, Signal::TERM).unwrap();
        let mut rest = String::new();
        // To the end: each one holds the pipe.
        self.lines.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "");
        while let Ok(Some(_)) = wait(WaitOptions::NOHANG) {}
    }
}

impl Drop for Server {
    /// Whatever went wrong, none is left running.
    fn drop(&mut self) {
        if thread::panicking() {
            for pid in [self.first, self.pid] {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
    }
}

/// The launcher: holds a listener on descriptor 3. On SIGUSR2 it starts the program with that, by vfork and execve and
/// nothing else, and when the program has ended it says so.
fn launch(program: &Path, address: &str) -> ! {
    let listener = TcpListener::bind(address).unwrap();
    // SAFETY: this process has one thread and began a moment ago: 3 is the listener's or nobody's.
    unsafe { libc::dup2(listener.as_raw_fd(), 3) };
    // SAFETY: changes a flag.
    unsafe { libc::fcntl(3, libc::F_SETFD, 0) };
    std::mem::forget(listener);
    let string = |bytes: &[u8]| CString::new(bytes).unwrap();
    let args = [string(program.as_os_str().as_bytes()), string(address.as_bytes())];
    let vars =
        std::env::vars_os().map(|(name, value)| string(&[name.as_bytes(), b"=", value.as_bytes()].concat()));
    let vars: Vec<_> = vars.chain([c"LISTEN_FDS=1".to_owned()]).collect();
    let table = |strings: &[CString]| -> Vec<*const c_char> {
        strings.iter().map(|string| string.as_ptr()).chain([std::ptr::null()]).collect()
    };
    let (argv, envp) = (table(&args), table(&vars));

    let mut signals = MaybeUninit::uninit();
    // SAFETY: this initialises the set.
    unsafe { libc::sigemptyset(signals.as_mut_ptr()) };
    // SAFETY: initialised.
    let mut signals = unsafe { signals.assume_init() };
    // SAFETY: a set and a signal.
    unsafe { libc::sigaddset(&mut signals, libc::SIGUSR2) };
    // SAFETY: a set; the old one is not asked for.
    unsafe { libc::sigprocmask(libc::SIG_BLOCK, &signals, std::ptr::null_mut()) };
    println!("ready pid={} inherited=0 listeners=1", getpid());
    loop {
        let mut signal = 0;
        // SAFETY: a set, and room for the signal.
        unsafe { libc::sigwait(&signals, &mut signal) };
        // SAFETY: both tables end with a null pointer, and their strings live as long as `args` and `vars`.
        let pid = unsafe { vfork_and_execve(args[0].as_ptr(), argv.as_ptr(), envp.as_ptr()) };
        waitpid(Some(Pid::from_raw(pid).expect("vfork")), WaitOptions::empty()).unwrap();
        println!("collected");
    }
}

/// # Safety
///
/// - `path` is a string, `argv` and `envp` are tables of strings that end with a null pointer.
#[cfg(target_arch = "x86_64")]
unsafe fn vfork_and_execve(
    path: *const c_char,
    argv: *const *const c_char,
    envp: *const *const c_char,
) -> i32 {
    let mut pid = libc::SYS_vfork;
    // SAFETY: the child leaves the block by execve or exit alone, and touches neither the stack nor a register that
    // this process sees.
    unsafe {
        std::arch::asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "mov eax, {execve}",
            "syscall",
            "mov edi, 127",
            "mov eax, {exit}",
            "syscall",
            "2:",
            execve = const libc::SYS_execve,
            exit = const libc::SYS_exit,
            inout("rax") pid,
            in("rdi") path,
            in("rsi") argv,
            in("rdx") envp,
            out("rcx") _,
            out("r11") _,
            options(nostack),
        );
    }
    pid as i32
}
