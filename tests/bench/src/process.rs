//! A contender that serves, through its restarts.

use crate::contender::Contender;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use std::io::Read;
use std::path::Path;
use std::process::{ChildStderr, ChildStdout, Command, Stdio};
use std::time::Instant;

/// How long anything may take, in seconds.
const PATIENCE: i64 = 20;

pub struct Server<'c> {
    contender: &'c Contender,
    pid: Pid,
    stdout: Lines<ChildStdout>,
    stderr: Lines<ChildStderr>,
}

/// How long a restart took, in nanoseconds.
pub struct Restarted {
    /// From the signal to the ready line.
    pub total: u128,
    /// The call that starts the successor, if the contender tells.
    pub start: Option<u128>,
}

impl<'c> Server<'c> {
    /// Starts the first generation.
    pub fn start(bin: &Path, contender: &'c Contender, host: &str, count: usize, heap_mib: usize) -> Self {
        let mut command = Command::new(bin.join("launch"));
        command.args(["serve", host, &count.to_string()]).arg(&contender.program);
        command.envs(contender.env.iter().copied()).env("BENCH_HEAP", heap_mib.to_string());
        if contender.server {
            command.env("BENCH_BARE", "1");
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut stdout = Lines::new(child.stdout.take().unwrap());
        let stderr = Lines::new(child.stderr.take().unwrap());
        let pid = ready(contender, &stdout.next());
        Self { contender, pid, stdout, stderr }
    }

    /// Restarts; the predecessor leaves.
    pub fn restart(&mut self) -> Restarted {
        let (total, successor) = self.send_and_wait(Signal::USR2);
        if !self.contender.server {
            kill_process(self.pid, Signal::TERM).unwrap();
        }
        self.collect(self.pid);
        self.pid = successor;
        Restarted { total, start: self.start_time() }
    }

    /// Restarts, and the successor leaves.
    pub fn try_restart(&mut self) -> Restarted {
        assert!(!self.contender.server);
        let (total, successor) = self.send_and_wait(Signal::USR2);
        let start = self.start_time();
        kill_process(successor, Signal::TERM).unwrap();
        Restarted { total, start }
    }

    /// Executes in place.
    pub fn exec(&mut self) -> u128 {
        let (total, pid) = self.send_and_wait(Signal::HUP);
        assert_eq!(pid, self.pid);
        total
    }

    /// Has the process dirty its memory, and waits until it has.
    pub fn fill_heap(&mut self) {
        kill_process(self.pid, Signal::USR1).unwrap();
        assert!(self.stderr.next().starts_with("heap "));
    }

    pub fn pid(&self) -> Pid {
        self.pid
    }

    fn send_and_wait(&mut self, signal: Signal) -> (u128, Pid) {
        let before = Instant::now();
        kill_process(self.pid, signal).unwrap();
        let line = self.stdout.next();
        let total = before.elapsed().as_nanos();
        (total, ready(self.contender, &line))
    }

    fn start_time(&mut self) -> Option<u128> {
        if self.contender.server {
            return None;
        }
        let line = self.stderr.next();
        let nanos = line.strip_prefix("start ").and_then(|nanos| nanos.parse().ok());
        Some(nanos.unwrap_or_else(|| panic!("{}: {line}", self.contender.name)))
    }

    fn collect(&self, pid: Pid) {
        while let Err(rustix::io::Errno::INTR) = waitpid(Some(pid), WaitOptions::empty()) {}
    }
}

impl Drop for Server<'_> {
    fn drop(&mut self) {
        let _ = kill_process(self.pid, Signal::TERM);
        self.collect(self.pid);
    }
}

fn ready(contender: &Contender, line: &str) -> Pid {
    let pid = line.strip_prefix("ready pid=").and_then(|rest| rest.split(' ').next()?.parse().ok());
    pid.and_then(Pid::from_raw).unwrap_or_else(|| panic!("{}: no ready line: {line:?}", contender.name))
}

/// Lines from a pipe, read as they come.
struct Lines<R> {
    from: R,
    read: Vec<u8>,
}

impl<R: Read + std::os::fd::AsFd> Lines<R> {
    fn new(from: R) -> Self {
        Self { from, read: Vec::new() }
    }

    /// The next line; empty at the end.
    fn next(&mut self) -> String {
        loop {
            if let Some(end) = self.read.iter().position(|byte| *byte == b'\n') {
                let line = self.read.drain(..=end).collect::<Vec<_>>();
                return String::from_utf8_lossy(&line[..end]).into_owned();
            }
            let patience = Timespec { tv_sec: PATIENCE, tv_nsec: 0 };
            let ready = poll(&mut [PollFd::new(&self.from, PollFlags::IN)], Some(&patience)).unwrap();
            assert!(ready > 0, "nothing came for {PATIENCE} s");
            let mut buffer = [0; 4096];
            let len = self.from.read(&mut buffer).unwrap();
            if len == 0 {
                return String::new();
            }
            self.read.extend_from_slice(&buffer[..len]);
        }
    }
}
