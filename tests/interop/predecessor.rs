//! The role of a predecessor: this test's own binary again, on the crate, told what to do line by line.
//!
//! ```text
//! <test> --role=predecessor NAME=ADDRESS...
//! ```
//!
//! It listens on each address under its name, prints `ready pid=<pid> inherited=<n> listeners=<n>`, and reads
//! commands, whose words are separated by tabs:
//!
//! | command | effect |
//! |---|---|
//! | `spawn READINESS PROGRAM ARGUMENT...` | prints `spawned PID`, then `outcome ready` or `outcome FAILURE` |
//! | `exec PROGRAM ARGUMENT...` | executes in place; prints `outcome ERROR` if that failed |
//! | `answer N` | answers one connection to the N-th listener with its PID, and prints `answered` |
//!
//! READINESS is `reported`, `executed` or `alive`. Without further commands it exits. It holds a descriptor
//! without `FD_CLOEXEC`, as other libraries leave them.

use std::ffi::{CStr, CString};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Duration;

use gracenet::{Executable, Launch, ListenOptions, Net, Progress, Readiness, Restart};
use rustix::fs::{Mode, OFlags};

use crate::client::Place;
use crate::process::{Group, PATIENCE, Process, Ready};

/// The argument that makes this binary a predecessor.
pub(crate) const ROLE: &str = "--role=predecessor";

pub(crate) fn run(args: impl Iterator<Item = String>) -> ExitCode {
    let args: Vec<String> = args.collect();
    // SAFETY: this is the first thing the process does; it has one thread and never changes its environment.
    let mut launch: Launch = unsafe { Launch::from_libc() }.unwrap();
    let mut net = Net::<16>::new();
    // SAFETY: nothing has been opened yet.
    let inherited = unsafe { net.inherit(&mut launch) }.unwrap();
    let mut ids = Vec::new();
    for arg in &args {
        let (name, address) = arg.rsplit_once('=').unwrap();
        let network = if address.starts_with('/') { "unix" } else { "tcp" };
        ids.push(net.listen_with(network, address, &ListenOptions::new().name(name)).unwrap());
    }
    let _left_open = rustix::fs::open("/dev/null", OFlags::RDONLY, Mode::empty()).unwrap();
    net.ready().unwrap();
    println!("ready pid={} inherited={inherited} listeners={}", std::process::id(), ids.len());

    while let Some(line) = read_line() {
        let words: Vec<CString> = line.split('\t').map(|word| CString::new(word).unwrap()).collect();
        let words: Vec<&CStr> = words.iter().map(CString::as_c_str).collect();
        match (words[0].to_bytes(), &words[1..]) {
            (b"spawn", [readiness, args @ ..]) => {
                let readiness = match readiness.to_bytes() {
                    b"reported" => Readiness::Reported,
                    b"executed" => Readiness::Executed,
                    b"alive" => Readiness::Alive(Duration::from_millis(100)),
                    other => panic!("{other:?}"),
                };
                let restart = Restart::new().executable(Executable::Path(args[0])).args(args);
                match net.spawn(&mut launch, &restart.readiness(readiness)) {
                    Ok(successor) => {
                        println!("spawned {}", successor.pid());
                        match successor.wait_ready(PATIENCE / 2) {
                            Ok(Progress::Ready) => println!("outcome ready"),
                            Ok(other) => println!("outcome {other:?}"),
                            Err(failure) => println!("outcome {failure}"),
                        }
                    }
                    Err(error) => println!("outcome {error}"),
                }
            }
            (b"exec", args) => {
                let restart = Restart::new().executable(Executable::Path(args[0])).args(args);
                let Err(error) = net.exec(&mut launch, &restart);
                println!("outcome {error}");
            }
            (b"answer", [position]) => {
                let position: usize = position.to_str().unwrap().parse().unwrap();
                let connection = rustix::net::accept(net.fd(ids[position]).unwrap()).unwrap();
                answer(connection);
                println!("answered");
            }
            _ => panic!("{line:?}"),
        }
    }
    ExitCode::SUCCESS
}

/// One line of stdin and no byte more: what follows may be meant for the next image.
fn read_line() -> Option<String> {
    let mut line = Vec::new();
    let mut byte = [0];
    while rustix::io::read(rustix::stdio::stdin(), &mut byte).unwrap() == 1 {
        match byte {
            [b'\n'] => return Some(String::from_utf8(line).unwrap()),
            [other] => line.push(other),
        }
    }
    None
}

fn answer(connection: OwnedFd) {
    // Unix connections are read and written alike.
    let mut stream = TcpStream::from(connection);
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        let mut bytes = [0; 512];
        let len = stream.read(&mut bytes).unwrap();
        assert_ne!(len, 0, "the client has left");
        request.extend_from_slice(&bytes[..len]);
    }
    let answer = format!("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{}\n", std::process::id());
    stream.write_all(answer.as_bytes()).unwrap();
}

/// A predecessor, seen from the test.
pub(crate) struct Predecessor {
    pub(crate) group: Group,
    pub(crate) ready: Ready,
    places: Vec<Place>,
}

impl Predecessor {
    /// Starts one that listens on each place under its name.
    pub(crate) fn start(listeners: &[(&str, &Place)]) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.arg(ROLE).args(listeners.iter().map(|(name, place)| format!("{name}={place}")));
        let mut group = Group::start(&mut command);
        let ready = group.ready();
        assert_eq!(ready.counts, Some((0, listeners.len())));
        Self { group, ready, places: listeners.iter().map(|(_, place)| (*place).clone()).collect() }
    }

    /// Makes it start a successor that stays.
    #[track_caller]
    pub(crate) fn spawn(&mut self, readiness: &str, program: &Path, args: &[&str]) -> Process {
        let program = std::str::from_utf8(program.as_os_str().as_bytes()).unwrap();
        self.group.tell(&[&["spawn", readiness, program], args].concat());
        Process::of(self.group.find("spawned ").parse().unwrap())
    }

    /// Makes it start one, and returns what came of that.
    #[track_caller]
    pub(crate) fn outcome(&mut self, program: &Path, args: &[&str]) -> String {
        let program = program.to_str().unwrap();
        self.group.tell(&[&["spawn", "reported", program], args].concat());
        self.group.find("spawned ");
        self.group.find("outcome ")
    }

    /// It serves on, on every place.
    #[track_caller]
    pub(crate) fn serves(&mut self) {
        for (position, place) in self.places.iter().enumerate() {
            self.group.tell(&["answer", &position.to_string()]);
            place.is_served_by(self.ready.pid);
            assert_eq!(self.group.line(), "answered");
        }
    }
}
