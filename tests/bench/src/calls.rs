//! System calls, counted between the marks that contenders leave, and instructions, counted by callgrind.

use crate::contender::{Contender, host};
use crate::process::{Server, Start};
use std::collections::HashSet;
use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;

/// How many system calls it takes to claim one listener, and how many for each more, rounded up.
pub fn claim(bin: &Path, contender: &Contender) -> (usize, usize) {
    let count = |sockets: usize| {
        let log = bin.join("calls.log");
        let mut command = Command::new("strace");
        command.args(["-f", "-o"]).arg(&log).arg(bin.join("launch"));
        command.args(["claim", &host(), &sockets.to_string(), "1"]).arg(&contender.program);
        let status = command.env("BENCH_NAMES", "1").output().unwrap().status;
        assert!(status.success());
        between(&std::fs::read_to_string(log).unwrap(), "claim", "claimed")
    };
    let (one, more) = (count(1), count(65));
    (one, (more - one).div_ceil(64))
}

/// How many system calls the start of a successor with one listener takes in both processes together, and how
/// many for each more, rounded up.
pub fn spawn(bin: &Path, contender: &Contender) -> (usize, usize) {
    let count = |sockets: usize| {
        let log = bin.join("calls.log");
        let under = vec![OsStr::new("strace"), OsStr::new("-f"), OsStr::new("-o"), log.as_os_str()];
        let start = Start { host: host(), count: sockets, under, ..Start::default() };
        let mut server = Server::start(bin, contender, &start);
        // The first restart brings the listeners into the order of the addresses.
        server.restart();
        server.restart();
        drop(server);
        between(&std::fs::read_to_string(log).unwrap(), "start", "started")
    };
    let (one, more) = (count(1), count(65));
    (one, more.saturating_sub(one).div_ceil(64))
}

/// The calls between two marks, the last of their kind, of the process that leaves them and of those that it makes
/// meanwhile, but not those of a program that was executed in between. Others may be on their way to wait for it, or out.
fn between(log: &str, from: &str, to: &str) -> usize {
    let is_mark = |line: &str, mark: &str| line.contains("write(") && line.contains(&format!("\"{mark}\""));
    let lines: Vec<_> = log.lines().map(|line| line.split_once(' ').unwrap()).collect();
    let mark = lines.iter().rposition(|(_, call)| is_mark(call, from)).unwrap();
    let (own, _) = lines[mark];
    let others: HashSet<_> = lines[..mark].iter().map(|(pid, _)| *pid).filter(|pid| *pid != own).collect();
    let mut executed = HashSet::new();
    let mut calls = 0;
    for (pid, call) in lines[mark + 1..].iter().take_while(|(_, call)| !is_mark(call, to)) {
        let call = call.trim_start();
        if call.starts_with("<... execve resumed>") && call.ends_with("= 0") {
            executed.insert(pid);
        }
        // What goes on, a signal, an exit.
        if call.starts_with(['<', '-', '+']) || others.contains(pid) || executed.contains(pid) {
            continue;
        }
        calls += 1;
        if call.starts_with("execve(") && call.ends_with("= 0") {
            executed.insert(pid);
        }
    }
    calls
}

/// Instructions from the program's first to its last, to claim one listener and to claim `sockets`; `None` if the
/// program does not run under valgrind.
pub fn instructions(bin: &Path, contender: &Contender, sockets: usize) -> Option<(u64, u64)> {
    let count = |sockets: usize| {
        let mut command = Command::new("valgrind");
        command.args(["--tool=callgrind", "--trace-children=yes", "--callgrind-out-file=/dev/null"]);
        command.arg(bin.join("launch")).args(["claim", &host(), &sockets.to_string(), "1"]);
        let output = command.arg(&contender.program).env("BENCH_NAMES", "1").output().ok()?;
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        // The program ends before what started it.
        let collected = told.lines().find_map(|line| line.split_once("Collected : "))?.1;
        output.status.success().then(|| collected.trim().parse().ok())?
    };
    Some((count(1)?, count(sockets)?))
}
