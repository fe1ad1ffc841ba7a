//! `examples/threads.rs` where `zero_downtime` does not take it: a termination while it drains to execute in place.
#![allow(clippy::std_instead_of_core, clippy::unwrap_used, clippy::panic, reason = "tests")]

use rustix::process::{Pid, Signal, kill_process};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A server that is ended with its test.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Server {
    fn start(address: &str) -> Self {
        // Examples are built beside the tests.
        let test = std::env::current_exe().unwrap();
        let program = test.ancestors().nth(2).unwrap().join("examples/threads");
        assert!(program.exists(), "{} is not built: cargo build --example threads", program.display());
        let mut command = Command::new(program);
        let mut child = command.arg(address).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, format!("ready pid={}\n", child.id()));
        Self(child)
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).unwrap();
    }

    fn fds(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.0.id())).unwrap().count()
    }

    fn connect(&self, address: &str) -> TcpStream {
        let client = TcpStream::connect(address).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(15))).unwrap();
        client
    }
}

#[track_caller]
fn is_answered(mut client: TcpStream) {
    client.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer:?}");
}

/// Nobody who waits is reset, and the exit waits for all who were accepted, also for those accepted last.
#[test]
fn a_termination_that_overtakes_an_exec_loses_nobody() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let mut server = Server::start(&free);
    let before = server.fds();
    let slow = server.connect(&free);
    while server.fds() == before {
        std::thread::yield_now();
    }
    server.signal(Signal::HUP);
    std::thread::sleep(Duration::from_millis(100));
    let waiting = server.connect(&free);
    server.signal(Signal::TERM);
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(server.0.try_wait().unwrap(), None);
    is_answered(slow);
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(server.0.try_wait().unwrap(), None, "one is open still");
    is_answered(waiting);
    assert_eq!(server.0.wait().unwrap().code(), Some(0));
}
