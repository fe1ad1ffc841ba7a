//! The `serve` example, restarted by signals and asked over its sockets.

use crate::common;
use libtest_mimic::{Failed, Trial};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::process::{
    Pid, PidfdFlags, Resource, Rlimit, Signal, getrlimit, kill_process, kill_process_group, pidfd_open,
    prlimit,
};
use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering::Relaxed};
use std::time::{Duration, Instant};

pub(crate) type Outcome = Result<(), Failed>;

pub(crate) fn trials() -> Vec<Trial> {
    let trial = |name: &str, run: fn() -> Outcome| Trial::test(name, run);
    vec![
        trial("serve_answers", answers),
        trial("serve_restarts_200_times", restarts_200_times),
        trial("serve_execs_and_keeps_queue_and_pid", execs),
        trial("serve_terminated_before_an_exec_serves_the_queue", terminates_before_an_exec),
        trial("serve_predecessor_finishes_what_it_accepted", finishes),
        trial("serve_restarts_while_predecessor_drains", restarts_while_draining),
        trial("serve_survives_a_failing_successor", survives),
        common::trial("serve_tries_again_to_end_a_successor", &[("strace", common::strace)], tries_again),
        trial("serve_serves_on_where_the_limit_of_open_files_was_lowered", lowered_limit),
        trial("serve_terminates", terminates),
        trial("serve_drains_for_no_longer_than_it_is_told", drains),
        trial("serve_unix_and_abstract", unix_and_abstract),
        trial("serve_port_zero_keeps_its_port_by_name", port_zero),
        trial("serve_1000_addresses", thousand),
        common::trial("serve_serves_on_where_poll_refuses", &[("strace", common::strace)], poll_refused),
        common::trial("serve_polls_what_epoll_refuses", &[("strace", common::strace)], epoll_refused),
        trial("serve_none_stuck_in_accept", none_stuck),
    ]
}

/// A running `serve` of any generation, known by the newest PID.
pub(crate) struct Server {
    child: Child,
    stdout: OwnedFd,
    buffer: Vec<u8>,
    pub(crate) pid: Pid,
    line: String,
}

impl Server {
    pub(crate) fn start(args: &[&str]) -> Self {
        Self::start_with(args, |_| ())
    }

    pub(crate) fn start_with(args: &[&str], prepare: impl FnOnce(&mut Command)) -> Self {
        Self::start_program(&std::env::current_exe().unwrap(), args, prepare)
    }

    pub(crate) fn start_program(program: &Path, args: &[&str], prepare: impl FnOnce(&mut Command)) -> Self {
        let mut command = Command::new(program);
        command.args(["role", "serve"]).args(args).stdin(Stdio::null()).stdout(Stdio::piped());
        command.env("RUST_BACKTRACE", "0").process_group(0);
        prepare(&mut command);
        let mut child = command.spawn().unwrap();
        let stdout = child.stdout.take().unwrap().into();
        let pid = Pid::from_child(&child);
        let mut server = Self { child, stdout, buffer: Vec::new(), pid, line: String::new() };
        server.next_ready();
        server
    }

    /// Waits for the next ready line, of whichever generation.
    pub(crate) fn next_ready(&mut self) -> &str {
        self.line = loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                break String::from_utf8(line).unwrap().trim_end().to_owned();
            }
            assert!(readable(self.stdout.as_fd(), 15), "no ready line");
            let mut buffer = [0; 4096];
            let read = rustix::io::read(&self.stdout, &mut buffer).unwrap();
            assert_ne!(read, 0, "no generation is left");
            self.buffer.extend_from_slice(&buffer[..read]);
        };
        let pid = self.line.strip_prefix("ready pid=").unwrap().split(' ').next().unwrap();
        self.pid = Pid::from_raw(pid.parse().unwrap()).unwrap();
        &self.line
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid, signal).unwrap();
    }

    pub(crate) fn restart(&mut self, signal: Signal) -> &str {
        self.signal(signal);
        self.next_ready()
    }

    /// Restarts by spawn and returns the ready line once the predecessor has left: before that, either may answer.
    pub(crate) fn hand_over(&mut self) -> &str {
        let predecessor = watch(self.pid);
        self.restart(Signal::USR2);
        assert!(has_left(&predecessor));
        &self.line
    }

    /// Whether there is a line to read, within so many seconds.
    pub(crate) fn stdout_is_readable(&self, seconds: i64) -> bool {
        self.buffer.contains(&b'\n') || readable(self.stdout.as_fd(), seconds)
    }

    fn fds(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.pid.as_raw_nonzero())).unwrap().count()
    }

    /// The number of descriptors once it is this, or whatever it is in the end.
    fn fds_settled_at(&self, expected: usize) -> usize {
        let begin = Instant::now();
        while self.fds() != expected && begin.elapsed() < Duration::from_secs(5) {
            std::thread::yield_now();
        }
        self.fds()
    }
}

impl Drop for Server {
    /// Every generation, also one that nobody has heard of yet: the group is that of the first.
    fn drop(&mut self) {
        let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
        let _ = self.child.wait();
    }
}

pub(crate) fn readable(fd: BorrowedFd<'_>, seconds: i64) -> bool {
    let timeout = Timespec { tv_sec: seconds, tv_nsec: 0 };
    rustix::event::poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&timeout)).unwrap() > 0
}

pub(crate) fn has_left(pidfd: &OwnedFd) -> bool {
    readable(pidfd.as_fd(), 15)
}

pub(crate) fn watch(pid: Pid) -> OwnedFd {
    pidfd_open(pid, PidfdFlags::empty()).unwrap()
}

/// An address that no other trial gets, and no client: it is below the ports that the kernel gives out.
pub(crate) fn free_address() -> String {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    loop {
        let port = 10_000 + (std::process::id() as u16 % 200 * 100 + NEXT.fetch_add(1, Relaxed)) % 20_000;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return format!("127.0.0.1:{port}");
        }
    }
}

/// Sends these bytes on a fresh connection and returns all that comes back.
fn exchange(stream: impl Read + Write, request: &str) -> String {
    let mut stream = stream;
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

pub(crate) fn get(address: &str, path: &str) -> String {
    let stream = TcpStream::connect(address).unwrap();
    exchange(stream, &format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n"))
}

pub(crate) fn body(answer: &str) -> &str {
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer:?}");
    answer.split_once("\r\n\r\n").unwrap().1
}

/// The PID that answers.
pub(crate) fn asked(address: &str) -> Pid {
    Pid::from_raw(body(&get(address, "/")).trim_end().parse().unwrap()).unwrap()
}

fn answers() -> Outcome {
    let address = free_address();
    let server = Server::start(&[&address]);
    let pid = server.pid.as_raw_nonzero();
    assert_eq!(server.line, format!("ready pid={pid} inherited=0 listeners=1"));
    assert_eq!(body(&get(&address, "/")), format!("{pid}\n"));
    let begin = Instant::now();
    assert_eq!(body(&get(&address, "/sleep?ms=30")), format!("{pid}\n"));
    assert!(begin.elapsed() >= Duration::from_millis(30));
    let long = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(10_000));
    for malformed in [
        "x\r\n\r\n",
        "GET /sleep?ms=x HTTP/1.1\r\n\r\n",
        "GET /sleep?ms=+5 HTTP/1.1\r\n\r\n",
        "POST / HTTP/1.1\r\n\r\n",
        &long,
    ] {
        let answer = exchange(TcpStream::connect(&address)?, malformed);
        assert!(answer.starts_with("HTTP/1.1 400 "), "{answer:?}");
        assert!(answer.contains("\r\nConnection: close\r\n"));
    }
    Ok(())
}

fn restarts_200_times() -> Outcome {
    let address = free_address();
    let mut server = Server::start(&[&address]);
    server.restart(Signal::USR2);
    // The standard three, the listener, the launch directory, the service's three and the poller's three: less by
    // one than while the predecessor is still watched.
    let second = server.fds_settled_at(11);
    for _ in 0..198 {
        assert!(server.restart(Signal::USR2).ends_with("inherited=1 listeners=1"));
    }
    assert!(server.hand_over().ends_with("inherited=1 listeners=1"));
    assert_eq!(asked(&address), server.pid);
    assert_eq!(server.fds_settled_at(second), second);
    Ok(())
}

fn execs() -> Outcome {
    let address = free_address();
    let mut server = Server::start(&[&address]);
    let pid = server.pid;
    server.restart(Signal::HUP);
    let before = server.fds();
    // Holds the drain up, so that what follows has to wait in the queue.
    let slow = std::thread::spawn({
        let address = address.clone();
        move || get(&address, "/sleep?ms=300")
    });
    while server.fds() == before {
        std::thread::yield_now();
    }
    server.signal(Signal::HUP);
    let queued: Vec<_> = (0..20)
        .map(|_| {
            let address = address.clone();
            std::thread::spawn(move || get(&address, "/"))
        })
        .collect();
    assert!(server.next_ready().ends_with("inherited=1 listeners=1"));
    assert_eq!(server.pid, pid);
    assert_eq!(body(&slow.join().unwrap()), format!("{}\n", pid.as_raw_nonzero()));
    for answer in queued {
        assert_eq!(body(&answer.join().unwrap()), format!("{}\n", pid.as_raw_nonzero()));
    }
    for _ in 0..20 {
        server.restart(Signal::HUP);
    }
    assert_eq!(server.fds_settled_at(before), before);
    Ok(())
}

/// Asks for a slow answer and returns once the server has accepted.
pub(crate) fn ask_slowly(server: &Server, address: &str, millis: u32) -> std::thread::JoinHandle<String> {
    let before = server.fds();
    let address = address.to_owned();
    let slow = std::thread::spawn(move || get(&address, &format!("/sleep?ms={millis}")));
    while server.fds() == before {
        std::thread::yield_now();
    }
    slow
}

fn finishes() -> Outcome {
    let address = free_address();
    let mut server = Server::start(&[&address]);
    let first = server.pid;
    let pidfd = watch(first);
    let slow = ask_slowly(&server, &address, 500);
    server.restart(Signal::USR2);
    assert_ne!(server.pid, first);
    assert_eq!(body(&slow.join().unwrap()), format!("{}\n", first.as_raw_nonzero()));
    assert!(has_left(&pidfd));
    assert_eq!(server.child.wait()?.code(), Some(0));
    assert_eq!(asked(&address), server.pid);
    Ok(())
}

fn restarts_while_draining() -> Outcome {
    let address = free_address();
    let mut server = Server::start(&[&address]);
    let first = server.pid;
    let slow = ask_slowly(&server, &address, 1500);
    server.restart(Signal::USR2);
    server.hand_over();
    let third = server.pid;
    assert_eq!(asked(&address), third);
    assert!(!slow.is_finished());
    assert_eq!(body(&slow.join().unwrap()), format!("{}\n", first.as_raw_nonzero()));
    Ok(())
}

fn survives() -> Outcome {
    let directory = tempfile::tempdir()?;
    let program = directory.path().join("serve");
    std::os::unix::fs::symlink(std::env::current_exe()?, &program)?;
    let address = free_address();
    let (mut server, stderr) = start_heard(Command::new(&program), &["--ready-timeout", "10", &address]);
    let replace = |target: &str| {
        let staged = directory.path().join("staged");
        std::os::unix::fs::symlink(target, &staged).unwrap();
        std::fs::rename(&staged, &program).unwrap();
    };
    for (target, words) in [
        ("/nonexistent", "no such file or directory"),
        ("/bin/false", "exited with status 1"),
        ("/bin/true", "exited with status 0"),
    ] {
        replace(target);
        for signal in [Signal::USR2, Signal::HUP] {
            // What starts executes, in place too: only a failing execve can be survived.
            if signal == Signal::HUP && target != "/nonexistent" {
                continue;
            }
            server.signal(signal);
            let said = next_line(&stderr);
            assert!(said.starts_with("restart failed:") && said.contains(words), "{said}");
            assert_eq!(asked(&address), server.pid);
        }
    }
    replace(std::env::current_exe()?.to_str().unwrap());
    assert!(server.restart(Signal::USR2).ends_with("inherited=1 listeners=1"));
    Ok(())
}

/// Starts it with a line of its own for each complaint.
fn start_heard(mut command: Command, args: &[&str]) -> (Server, OwnedFd) {
    command.args(["role", "serve"]).args(args).process_group(0);
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let (stdout, stderr) = (child.stdout.take().unwrap().into(), child.stderr.take().unwrap().into());
    let pid = Pid::from_child(&child);
    let mut server = Server { child, stdout, buffer: Vec::new(), pid, line: String::new() };
    server.next_ready();
    (server, stderr)
}

fn next_line(from: &OwnedFd) -> String {
    let mut heard = Vec::new();
    while !heard.ends_with(b"\n") {
        assert!(readable(from.as_fd(), 15), "nothing is said");
        let mut byte = [0];
        assert_eq!(rustix::io::read(from, &mut byte).unwrap(), 1);
        heard.extend(byte);
    }
    String::from_utf8(heard).unwrap()
}

/// A successor that could not be ended is not forgotten: until it is, there is no other.
fn tries_again() -> Outcome {
    let directory = tempfile::tempdir()?;
    let program = directory.path().join("serve");
    std::os::unix::fs::symlink(std::env::current_exe()?, &program)?;
    let address = free_address();
    let mut strace = Command::new("strace");
    strace
        .args(["-f", "-qq", "-o", "/dev/null", "-e", "inject=pidfd_send_signal:error=EIO:when=1"])
        .arg(&program);
    let (server, stderr) = start_heard(strace, &["--ready-timeout", "0.1", &address]);
    let hangs = directory.path().join("hangs");
    std::fs::write(&hangs, "#!/bin/sh\nexec sleep 60\n")?;
    std::fs::set_permissions(&hangs, std::fs::Permissions::from_mode(0o755))?;
    std::fs::rename(&hangs, &program)?;
    server.signal(Signal::USR2);
    let said = next_line(&stderr);
    assert!(said.starts_with("restart: watching the successor: pidfd_send_signal"), "{said}");
    let said = next_line(&stderr);
    assert!(said.starts_with("restart failed: successor"), "{said}");
    assert_eq!(asked(&address), server.pid);
    Ok(())
}

/// To fewer than the loop waits for, which poll refuses then.
fn lowered_limit() -> Outcome {
    let address = free_address();
    let (server, stderr) = start_heard(Command::new(std::env::current_exe()?), &[&address]);
    let set = |limit| prlimit(Some(server.pid), Resource::Nofile, limit).unwrap();
    let before = set(Rlimit { current: Some(2), maximum: getrlimit(Resource::Nofile).maximum });
    for _ in 0..2 {
        server.signal(Signal::USR2);
        let said = next_line(&stderr);
        assert!(said.starts_with("restart failed: socketpair: "), "{said}");
    }
    set(before);
    assert_eq!(asked(&address), server.pid);
    Ok(())
}

fn terminates() -> Outcome {
    for (signals, code) in [(&[Signal::TERM][..], 0), (&[Signal::INT], 0), (&[Signal::TERM, Signal::INT], 1)]
    {
        let address = free_address();
        let mut server = Server::start(&[&address]);
        let slow = ask_slowly(&server, &address, if signals.len() == 1 { 200 } else { 20_000 });
        for signal in signals {
            server.signal(*signal);
            // The second must not overtake the first, after which a server refuses clients.
            while signals.len() == 2 && *signal == Signal::TERM && TcpStream::connect(&address).is_ok() {}
        }
        assert_eq!(server.child.wait()?.code(), Some(code), "{signals:?}");
        if code == 0 {
            body(&slow.join().unwrap());
        }
    }
    Ok(())
}

/// What waits because the server drains to execute is served when it is to exit instead. It exits as soon as it can.
fn terminates_before_an_exec() -> Outcome {
    let address = free_address();
    let mut server = Server::start(&["--drain", "60", &address]);
    let slow = ask_slowly(&server, &address, 400);
    server.signal(Signal::HUP);
    std::thread::sleep(Duration::from_millis(100));
    let mut queued = TcpStream::connect(&address)?;
    queued.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    std::thread::sleep(Duration::from_millis(50));
    server.signal(Signal::TERM);
    let mut answer = String::new();
    queued.read_to_string(&mut answer)?;
    assert_eq!(body(&answer), format!("{}\n", server.pid.as_raw_nonzero()));
    let begin = Instant::now();
    assert_eq!(server.child.wait()?.code(), Some(0));
    assert!(begin.elapsed() < Duration::from_secs(20));
    body(&slow.join().unwrap());
    Ok(())
}

/// Whatever it drains for: a request that takes longer is left alone.
fn drains() -> Outcome {
    for signal in [Signal::TERM, Signal::USR2, Signal::HUP] {
        let address = free_address();
        let mut server = Server::start(&["--drain", "0.2", &address]);
        let first = (server.pid, watch(server.pid));
        let slow = ask_slowly(&server, &address, 60_000);
        let begin = Instant::now();
        server.signal(signal);
        if signal != Signal::TERM {
            server.next_ready();
        }
        if signal == Signal::HUP {
            assert_eq!(server.pid, first.0);
        } else {
            assert!(has_left(&first.1), "{signal:?}");
            assert_eq!(server.child.wait()?.code(), Some(0));
        }
        assert!(begin.elapsed() >= Duration::from_millis(200), "{signal:?}");
        assert_eq!(slow.join().unwrap(), "", "{signal:?}");
    }
    Ok(())
}

fn unix_and_abstract() -> Outcome {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixStream};
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("socket");
    let name = format!("gracenet-test-{}", std::process::id());
    let packet = format!("unixpacket=@{name}-packet");
    let mut server = Server::start(&[path.to_str().unwrap(), &format!("@{name}"), &packet]);
    for _ in 0..3 {
        let pid = format!("{}\n", server.pid.as_raw_nonzero());
        let request = "GET / HTTP/1.1\r\n\r\n";
        assert_eq!(body(&exchange(UnixStream::connect(&path)?, request)), pid);
        let address = SocketAddr::from_abstract_name(&name)?;
        assert_eq!(body(&exchange(UnixStream::connect_addr(&address)?, request)), pid);
        assert!(server.hand_over().ends_with("inherited=3 listeners=3"));
    }
    Ok(())
}

/// The address of the server's only listener, which is on descriptor 3 of a successor.
fn address_of(server: &Server) -> SocketAddr {
    let pid = server.pid.as_raw_nonzero();
    let link = std::fs::read_link(format!("/proc/{pid}/fd/3")).unwrap();
    let inode = link.to_str().unwrap().trim_start_matches("socket:[").trim_end_matches(']').to_owned();
    let table = std::fs::read_to_string(format!("/proc/{pid}/net/tcp")).unwrap();
    let ports: HashMap<_, _> = table
        .lines()
        .skip(1)
        .map(|line| {
            let fields: Vec<_> = line.split_whitespace().collect();
            (fields[9].to_owned(), u16::from_str_radix(fields[1].split_once(':').unwrap().1, 16).unwrap())
        })
        .collect();
    SocketAddr::from(([127, 0, 0, 1], ports[&inode]))
}

fn port_zero() -> Outcome {
    let mut server = Server::start(&["--name", "web", "127.0.0.1:0"]);
    server.restart(Signal::USR2);
    let address = address_of(&server);
    for _ in 0..3 {
        assert!(server.hand_over().ends_with("inherited=1 listeners=1"));
        assert_eq!(address_of(&server), address);
        assert_eq!(asked(&address.to_string()), server.pid);
    }
    Ok(())
}

fn thousand() -> Outcome {
    // Each listener is a descriptor: as many as the machine allows, up to 1000.
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    assert_eq!(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) }, 0);
    limit.rlim_cur = limit.rlim_max.min(4096);
    let count = usize::try_from(limit.rlim_cur)?.saturating_sub(50).min(1000);
    let names = names("thousand", count);
    let addresses: Vec<_> = names.iter().map(String::as_str).collect();
    let mut server = Server::start_with(&addresses, |command| {
        unsafe {
            command.pre_exec(move || match libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            })
        };
    });
    assert!(server.line.ends_with(&format!("inherited=0 listeners={count}")));
    for signal in [Signal::USR2, Signal::HUP] {
        let predecessor = watch(server.pid);
        assert!(server.restart(signal).ends_with(&format!("inherited={count} listeners={count}")));
        // Some of them while the server is about to watch them by epoll, and all once it does.
        assert!(signal == Signal::HUP || has_left(&predecessor));
        names.iter().step_by(50).for_each(|name| assert_answers(&server, name));
        assert_eq!(watched_by_epoll(&server, count), count);
        names.iter().for_each(|name| assert_answers(&server, name));
    }
    Ok(())
}

/// The kernel refuses to wait, sixty times in each generation. The server answers, and hands over, all the same.
fn poll_refused() -> Outcome {
    serves_despite("inject=poll,ppoll:error=ENOMEM:when=10..69", 100)
}

/// The kernel refuses to watch the thirtieth listener. The server polls what is not watched.
fn epoll_refused() -> Outcome {
    serves_despite("inject=epoll_ctl:error=ENOSPC:when=30", 29)
}

fn serves_despite(fault: &str, watched: usize) -> Outcome {
    let names = names(&format!("refused-{watched}"), 100);
    let mut strace = Command::new("strace");
    strace.args(["-f", "-qq", "-o", "/dev/null", "-e", fault]);
    strace.arg(std::env::current_exe()?);
    let (mut server, _stderr) = start_heard(strace, &names.iter().map(String::as_str).collect::<Vec<_>>());
    for _ in 0..2 {
        assert_eq!(watched_by_epoll(&server, watched), watched);
        names.iter().for_each(|name| assert_answers(&server, name));
        server.hand_over();
    }
    Ok(())
}

/// Addresses of abstract Unix sockets.
fn names(of: &str, count: usize) -> Vec<String> {
    (0..count).map(|number| format!("@gracenet-{of}-{}-{number}", std::process::id())).collect()
}

fn assert_answers(server: &Server, name: &str) {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixStream};
    let address = SocketAddr::from_abstract_name(name.trim_start_matches('@')).unwrap();
    let stream = UnixStream::connect_addr(&address).unwrap();
    let answer = exchange(stream, "GET / HTTP/1.1\r\n\r\n");
    assert_eq!(body(&answer), format!("{}\n", server.pid.as_raw_nonzero()), "{name}");
}

/// How many listeners the server's epoll instance watches, once they are so many, or in the end.
fn watched_by_epoll(server: &Server, expected: usize) -> usize {
    let now = || {
        let infos = std::fs::read_dir(format!("/proc/{}/fdinfo", server.pid.as_raw_nonzero())).unwrap();
        let infos = infos.filter_map(|info| std::fs::read_to_string(info.ok()?.path()).ok());
        infos.map(|info| info.lines().filter(|line| line.starts_with("tfd:")).count()).sum()
    };
    let begin = Instant::now();
    while now() != expected && begin.elapsed() < Duration::from_secs(10) {
        std::thread::sleep(Duration::from_millis(10));
    }
    now()
}

/// A burst during a restart and silence after it: the predecessor leaves although nobody wakes it.
fn none_stuck() -> Outcome {
    let address = free_address();
    let mut server = Server::start(&[&address]);
    for round in 0..40 {
        let predecessor = watch(server.pid);
        let clients: Vec<_> = (0..4)
            .map(|_| {
                let address = address.clone();
                std::thread::spawn(move || (0..25).for_each(|_| drop(body(&get(&address, "/")).to_owned())))
            })
            .collect();
        server.restart(Signal::USR2);
        for client in clients {
            client.join().unwrap();
        }
        assert!(has_left(&predecessor), "stuck in round {round}");
    }
    Ok(())
}
