//! `serve` as PID 1 of a PID namespace, as in a container.

use crate::server::{Outcome, body, free_address, get, readable};
use libtest_mimic::Trial;
use rustix::fd::{AsFd, OwnedFd};
use rustix::process::{Pid, Signal, kill_process};
use std::io::{BufRead, BufReader, Read};
use std::net::TcpStream;
use std::process::{Child, ChildStderr, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

pub(crate) fn trials() -> Vec<Trial> {
    let trial = |name: &str, run: fn() -> Outcome| {
        crate::common::trial(name, &[("pid_namespaces", pid_namespaces)], run)
    };
    vec![
        trial("serve_executes_in_place_as_pid_1", executes_in_place),
        trial("serve_collects_orphans_as_pid_1", collects_orphans),
        trial("serve_starts_no_successor_as_pid_1", starts_no_successor),
    ]
}

pub(crate) fn pid_namespaces() -> bool {
    unshare().arg("true").output().is_ok_and(|output| output.status.success())
}

/// A command whose program will be PID 1 of a PID namespace.
fn unshare() -> Command {
    let mut command = Command::new("unshare");
    if !rustix::process::getuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    command.args(["--pid", "--fork", "--kill-child"]);
    command
}

/// `serve` as PID 1, and the process that waits for it outside.
struct Init {
    outside: Child,
    stdout: BufReader<ChildStdout>,
    stderr: BufReader<ChildStderr>,
    /// Its PID outside.
    pid: Pid,
}

impl Init {
    fn start(args: &[&str]) -> Self {
        let mut command = unshare();
        command.arg(std::env::current_exe().unwrap()).args(["role", "serve"]).args(args);
        command.env("RUST_BACKTRACE", "0").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut outside = command.spawn().unwrap();
        let stdout = BufReader::new(outside.stdout.take().unwrap());
        let stderr = BufReader::new(outside.stderr.take().unwrap());
        let mut init = Self { stdout, stderr, pid: Pid::from_child(&outside), outside };
        init.next_ready("ready pid=1 inherited=0 listeners=1");
        let children = children(init.pid);
        init.pid = Pid::from_raw(children.trim().parse().unwrap()).unwrap();
        init
    }

    #[track_caller]
    fn next_ready(&mut self, expected: &str) {
        assert_eq!(line(&mut self.stdout), expected);
    }

    fn signal(&self, signal: Signal) {
        kill_process(self.pid, signal).unwrap();
    }
}

impl Drop for Init {
    fn drop(&mut self) {
        let _ = self.outside.kill();
        let _ = self.outside.wait();
    }
}

/// The next line; nothing of a second one is there yet.
fn line<R: Read + AsFd>(from: &mut BufReader<R>) -> String {
    assert!(!from.buffer().is_empty() || readable(from.get_ref().as_fd(), 15), "nothing is said");
    let mut line = String::new();
    from.read_line(&mut line).unwrap();
    line.trim_end().to_owned()
}

fn children(pid: Pid) -> String {
    let pid = pid.as_raw_nonzero();
    std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap()
}

/// The socket on the server's descriptor 3.
fn socket(init: &Init) -> String {
    let link = std::fs::read_link(format!("/proc/{}/fd/3", init.pid.as_raw_nonzero())).unwrap();
    link.into_os_string().into_string().unwrap()
}

/// The socket is the same one after it, and what came meanwhile waited in its queue.
fn executes_in_place() -> Outcome {
    let address = free_address();
    let mut init = Init::start(&[&address]);
    init.signal(Signal::HUP);
    init.next_ready("ready pid=1 inherited=1 listeners=1");
    let before = socket(&init);
    for _ in 0..5 {
        // Accepted: the drain waits for it.
        let slow = TcpStream::connect(&address)?;
        slow.set_read_timeout(Some(Duration::from_secs(15)))?;
        rustix::io::write(&slow, b"GET /sleep?ms=100 HTTP/1.1\r\n\r\n")?;
        assert_eq!(body(&get(&address, "/")), "1\n");
        init.signal(Signal::HUP);
        let queued: Vec<OwnedFd> = (0..20)
            .map(|_| {
                let stream = TcpStream::connect(&address).unwrap();
                rustix::io::write(&stream, b"GET / HTTP/1.1\r\n\r\n").unwrap();
                stream.into()
            })
            .collect();
        init.next_ready("ready pid=1 inherited=1 listeners=1");
        for stream in queued.into_iter().map(TcpStream::from).chain([slow]) {
            let mut answer = String::new();
            (&stream).read_to_string(&mut answer)?;
            assert_eq!(body(&answer), "1\n");
        }
        assert_eq!(socket(&init), before);
    }
    init.signal(Signal::TERM);
    assert_eq!(init.outside.wait()?.code(), Some(0));
    Ok(())
}

/// Processes of the namespace whose parent has ended become its children; before and after a restart none stays a
/// zombie.
fn collects_orphans() -> Outcome {
    let address = free_address();
    let mut init = Init::start(&[&address]);
    for _ in 0..2 {
        let mut enter = Command::new("nsenter");
        enter.args(["--target", &init.pid.to_string(), "--pid"]);
        if !rustix::process::getuid().is_root() {
            enter.args(["--user", "--preserve-credentials"]);
        }
        // Each ends when its stdin does, which is when this test says so.
        let orphans = enter.args(["sh", "-c", "exec 3<&0; for _ in 1 2 3; do cat <&3 & done"]);
        let mut parent = orphans.stdin(Stdio::piped()).stdout(Stdio::null()).spawn()?;
        let stdin = parent.stdin.take();
        assert!(parent.wait()?.success());
        assert_eq!(children(init.pid).split_whitespace().count(), 3);
        drop(stdin);
        let begin = Instant::now();
        while !children(init.pid).is_empty() {
            assert!(begin.elapsed() < Duration::from_secs(10), "left behind: {}", children(init.pid));
            std::thread::yield_now();
        }
        init.signal(Signal::HUP);
        init.next_ready("ready pid=1 inherited=1 listeners=1");
    }
    Ok(())
}

/// One could not outlive it: the kernel ends a namespace with its PID 1.
fn starts_no_successor() -> Outcome {
    let address = free_address();
    for options in [&[][..], &["--reload", "spawn"]] {
        let mut init = Init::start(&[options, &[&address]].concat());
        init.signal(Signal::USR2);
        assert_eq!(
            line(&mut init.stderr),
            "restart failed: no successor outlives PID 1; a restart in place does"
        );
        assert_eq!(body(&get(&address, "/")), "1\n");
        init.signal(Signal::HUP);
        init.next_ready("ready pid=1 inherited=1 listeners=1");
        assert_eq!(children(init.pid), "");
    }
    Ok(())
}
