//! A contender that serves, through its restarts.

use crate::contender::Contender;
use nix::sys::socket::sockopt::ReceiveTimestampns;
use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg, setsockopt, socketpair,
};
use nix::sys::time::TimeSpec;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions, kill_process, pidfd_open, waitpid};
use std::ffi::OsStr;
use std::io::{IoSliceMut, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::process::{ChildStderr, Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How long anything may take, in seconds. Most takes none at all; 4 GiB of memory can be slow to come by.
const PATIENCE: i64 = 60;

/// Gives this thread a real-time priority, which is not handed on; whether that was granted. `launch` gives the
/// contenders the lowest.
pub fn run_ahead(priority: i32) -> bool {
    let priority = libc::sched_param { sched_priority: priority };
    // SAFETY: it reads a structure of this frame.
    unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK, &priority) == 0 }
}

/// Ends whatever is left of the contenders in `bin`, of all generations.
pub fn end_all(bin: &Path) {
    let Ok(processes) = std::fs::read_dir("/proc") else { return };
    for process in processes.flatten() {
        let is_contender =
            std::fs::read_link(process.path().join("exe")).is_ok_and(|exe| exe.starts_with(bin));
        let pid = process.file_name().to_str().and_then(|pid| Pid::from_raw(pid.parse().ok()?));
        if let Some(pid) = pid.filter(|_| is_contender) {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

/// The processors' time since the machine began, in ticks: what it wanted of it, and what other machines on the same
/// hardware had instead.
#[derive(Clone, Copy)]
pub struct ProcessorTime {
    wanted: u64,
    stolen: u64,
}

impl ProcessorTime {
    /// From `/proc/stat`, see proc_stat(5).
    pub fn now() -> Option<Self> {
        let stat = std::fs::read_to_string("/proc/stat").ok()?;
        let line = stat.lines().next()?.strip_prefix("cpu ")?;
        let ticks: Result<Vec<u64>, _> = line.split_whitespace().map(str::parse).collect();
        let [user, nice, system, _idle, _iowait, irq, softirq, stolen, ..] = ticks.ok()?[..] else {
            return None;
        };
        Some(Self { wanted: user + nice + system + irq + softirq + stolen, stolen })
    }

    /// What share of the time that was wanted since then others had.
    pub fn stolen_since(self, before: Self) -> f64 {
        (self.stolen - before.stolen) as f64 / (self.wanted - before.wanted).max(1) as f64
    }
}

/// How a contender is started.
#[derive(Default)]
pub struct Start<'s> {
    /// Its loopback address.
    pub host: String,
    /// How many listeners it has.
    pub count: usize,
    /// How much memory it dirties when it is asked to.
    pub heap_mib: usize,
    /// How many threads it has that do nothing.
    pub threads: usize,
    /// A program to start it with, and its arguments.
    pub under: Vec<&'s OsStr>,
}

pub struct Server<'c> {
    contender: &'c Contender,
    pid: Pid,
    stdout: Stamped,
    stderr: Lines<ChildStderr>,
    /// What it was started with, which ends when all generations have.
    under: Option<Pid>,
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
    #[allow(clippy::zombie_processes, reason = "collected by its PID, as all generations are")]
    pub fn start(bin: &Path, contender: &'c Contender, start: &Start<'_>) -> Self {
        let launch = bin.join("launch");
        let mut words = start.under.iter().copied().chain([launch.as_os_str()]);
        let mut command = Command::new(words.next().unwrap());
        command.args(words).args(["serve", &start.host, &start.count.to_string()]).arg(&contender.program);
        command.envs(contender.env.iter().copied());
        command.env("BENCH_HEAP", start.heap_mib.to_string()).env("BENCH_THREADS", start.threads.to_string());
        if contender.server {
            command.env("BENCH_BARE", "1");
        }
        let (mut stdout, theirs) = Stamped::pair();
        command.stdin(Stdio::null()).stdout(theirs).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let under = (!start.under.is_empty()).then(|| Pid::from_child(&child));
        // Its copy of the other end of stdout.
        drop(command);
        let stderr = Lines::new(child.stderr.take().unwrap());
        let pid = ready(contender, &stdout.next().0);
        Self { contender, pid, stdout, stderr, under }
    }

    /// Restarts; the predecessor leaves.
    pub fn restart(&mut self) -> Restarted {
        let (total, successor) = self.send_and_wait(Signal::USR2);
        let predecessor = std::mem::replace(&mut self.pid, successor);
        if !self.contender.server {
            kill_process(predecessor, Signal::TERM).unwrap();
        }
        if self.under.is_none() {
            collect(predecessor);
        }
        Restarted { total, start: self.start_time() }
    }

    /// Restarts; the successor leaves, and the predecessor keeps what it has.
    pub fn try_restart(&mut self) -> Restarted {
        assert!(!self.contender.server);
        let (total, successor) = self.send_and_wait(Signal::USR2);
        let start = self.start_time();
        // Its end is not to fall into the next one's time.
        let pidfd = pidfd_open(successor, PidfdFlags::empty()).unwrap();
        kill_process(successor, Signal::TERM).unwrap();
        wait(&pidfd);
        Restarted { total, start }
    }

    /// Executes in place; how long that took, in nanoseconds.
    pub fn exec(&mut self) -> u128 {
        let (total, pid) = self.send_and_wait(Signal::HUP);
        assert_eq!(pid, self.pid);
        total
    }

    /// Sends SIGUSR1 and returns what the process says to it.
    pub fn ask(&mut self) -> String {
        kill_process(self.pid, Signal::USR1).unwrap();
        self.stderr.next()
    }

    /// Sends SIGUSR2 and waits for the successor, which another server value may go on with.
    pub fn send_and_wait(&mut self, signal: Signal) -> (u128, Pid) {
        let before = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        kill_process(self.pid, signal).unwrap();
        let (line, written) = self.stdout.next();
        let total = (written - before).as_nanos();
        (total, ready(self.contender, &line))
    }

    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// A number in the process's status, as `proc_pid_status(5)` has it.
    pub fn status(&self, name: &str) -> usize {
        let pid = self.pid.as_raw_nonzero();
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap()
    }

    fn start_time(&mut self) -> Option<u128> {
        if self.contender.server {
            return None;
        }
        let line = self.stderr.next();
        let nanos = line.strip_prefix("start ").and_then(|nanos| nanos.parse().ok());
        Some(nanos.unwrap_or_else(|| panic!("{}: {line}", self.contender.name)))
    }
}

impl Drop for Server<'_> {
    fn drop(&mut self) {
        let _ = kill_process(self.pid, Signal::TERM);
        collect(self.under.unwrap_or(self.pid));
    }
}

pub fn collect(pid: Pid) {
    while let Err(Errno::INTR) = waitpid(Some(pid), WaitOptions::empty()) {}
}

fn ready(contender: &Contender, line: &str) -> Pid {
    let pid = line.strip_prefix("ready pid=").and_then(|rest| rest.split(' ').next()?.parse().ok());
    pid.and_then(Pid::from_raw).unwrap_or_else(|| panic!("{}: no ready line: {line:?}", contender.name))
}

/// Lines from a socket, each with the time when it was written: whoever reads them may be kept from it.
struct Stamped(OwnedFd);

impl Stamped {
    /// This end, and the one to write to.
    fn pair() -> (Self, OwnedFd) {
        let (kind, flags) = (SockType::SeqPacket, SockFlag::SOCK_CLOEXEC);
        let (ours, theirs) = socketpair(AddressFamily::Unix, kind, None, flags).unwrap();
        setsockopt(&ours, ReceiveTimestampns, &true).unwrap();
        (Self(ours), theirs)
    }

    /// The next line; empty at the end. The time is that of [`SystemTime`].
    fn next(&mut self) -> (String, Duration) {
        wait(&self.0);
        let mut buffer = [0; 4096];
        let mut slices = [IoSliceMut::new(&mut buffer)];
        let mut space = nix::cmsg_space!(TimeSpec);
        let message =
            recvmsg::<()>(self.0.as_raw_fd(), &mut slices, Some(&mut space), MsgFlags::empty()).unwrap();
        let time = message.cmsgs().unwrap().find_map(|control| match control {
            ControlMessageOwned::ScmTimestampns(time) => Some(time.into()),
            _ => None,
        });
        let len = message.bytes;
        (String::from_utf8_lossy(&buffer[..len]).trim_end().to_owned(), time.unwrap_or_default())
    }
}

fn wait(from: impl AsFd) {
    let patience = Timespec { tv_sec: PATIENCE, tv_nsec: 0 };
    let ready = poll(&mut [PollFd::new(&from, PollFlags::IN)], Some(&patience)).unwrap();
    assert!(ready > 0, "nothing came for {PATIENCE} s");
}

/// Lines from a pipe, read as they come.
struct Lines<R> {
    from: R,
    read: Vec<u8>,
}

impl<R: Read + AsFd> Lines<R> {
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
            wait(&self.from);
            let mut buffer = [0; 4096];
            let len = self.from.read(&mut buffer).unwrap();
            if len == 0 {
                return String::new();
            }
            self.read.extend_from_slice(&buffer[..len]);
        }
    }
}
