//! Processes: started, waited for, looked at, and gone when the test is.
//!
//! Nothing here sleeps: what a process says comes through a pipe, that it has ended through its pidfd, and
//! every wait has a deadline.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions};

/// How long anything may take: far longer than it does, for a machine that is busy.
pub(crate) const PATIENCE: Duration = Duration::from_secs(15);

/// Waits until there is something to read, for [`PATIENCE`] at most; tells whether there is.
pub(crate) fn readable(fd: impl AsFd) -> bool {
    let deadline = Instant::now() + PATIENCE;
    let mut fds = [PollFd::from_borrowed_fd(fd.as_fd(), PollFlags::IN)];
    loop {
        let left = Timespec::try_from(deadline.saturating_duration_since(Instant::now())).unwrap();
        match rustix::event::poll(&mut fds, Some(&left)) {
            Ok(found) => return found > 0,
            Err(Errno::INTR) => {}
            Err(errno) => panic!("poll: {errno}"),
        }
    }
}

/// The lines that come through a pipe.
struct Lines {
    pipe: Box<dyn Pipe>,
    buffer: Vec<u8>,
}

trait Pipe: Read + AsFd + Send {}

impl<T: Read + AsFd + Send> Pipe for T {}

impl Lines {
    fn new(pipe: impl Pipe + 'static) -> Self {
        Self { pipe: Box::new(pipe), buffer: Vec::new() }
    }

    /// The next line; the reason if there is none.
    fn next(&mut self) -> Result<String, &'static str> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                return Ok(String::from_utf8_lossy(&line[..end]).into_owned());
            }
            if !readable(self.pipe.as_fd()) {
                return Err("silence until the deadline");
            }
            let mut bytes = [0; 4096];
            match self.pipe.read(&mut bytes).unwrap() {
                0 => return Err("end of file"),
                len => self.buffer.extend_from_slice(&bytes[..len]),
            }
        }
    }
}

/// What a server says when it can accept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Ready {
    pub(crate) pid: i32,
    /// How many sockets it has claimed, and how many it listens on, if it says so.
    pub(crate) counts: Option<(usize, usize)>,
}

impl Ready {
    fn parse(line: &str) -> Option<Self> {
        let mut fields = line.strip_prefix("ready pid=")?.split(' ');
        let pid = fields.next()?.parse().ok()?;
        let counts = match fields.next() {
            None => None,
            Some(inherited) => Some((
                inherited.strip_prefix("inherited=")?.parse().ok()?,
                fields.next()?.strip_prefix("listeners=")?.parse().ok()?,
            )),
        };
        fields.next().is_none().then_some(Self { pid, counts })
    }
}

/// A program that was started, and all the generations it starts: they share its pipes and its process group.
pub(crate) struct Group {
    pub(crate) leader: Process,
    stdin: Option<ChildStdin>,
    stdout: Lines,
    /// Lines on stdout that were passed over.
    kept: VecDeque<String>,
    stderr: Lines,
}

impl Group {
    #[allow(clippy::zombie_processes, reason = "the whole group is collected on drop")]
    pub(crate) fn start(command: &mut Command) -> Self {
        for name in ["PID", "PIDFDID", "FDS", "FDNAMES", "READY_FD"] {
            command.env_remove(format!("LISTEN_{name}"));
        }
        // In a group of its own everything that comes of it can be found, whoever its parent is by then.
        command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        Self {
            leader: Process::of(child.id() as i32),
            stdin: child.stdin.take(),
            stdout: Lines::new(child.stdout.take().unwrap()),
            kept: VecDeque::new(),
            stderr: Lines::new(child.stderr.take().unwrap()),
        }
    }

    /// The next line on stdout.
    #[track_caller]
    pub(crate) fn line(&mut self) -> String {
        let line = self.kept.pop_front().map_or_else(|| self.stdout.next(), Ok);
        line.unwrap_or_else(|why| panic!("stdout: {why}"))
    }

    /// What follows `prefix` in the first line on stdout that begins with it; those before it are kept. For
    /// lines of two processes, whose order is open.
    #[track_caller]
    pub(crate) fn find(&mut self, prefix: &str) -> String {
        if let Some(position) = self.kept.iter().position(|line| line.starts_with(prefix)) {
            return self.kept.remove(position).unwrap()[prefix.len()..].to_owned();
        }
        loop {
            match self.stdout.next() {
                Ok(line) if line.starts_with(prefix) => return line[prefix.len()..].to_owned(),
                Ok(line) => self.kept.push_back(line),
                Err(why) => panic!("stdout, waiting for {prefix:?} after {:?}: {why}", self.kept),
            }
        }
    }

    /// The next line on stderr that holds `text`; those before it are passed over.
    #[track_caller]
    pub(crate) fn complaint(&mut self, text: &str) -> String {
        loop {
            match self.stderr.next() {
                Ok(line) if line.contains(text) => return line,
                Ok(_) => {}
                Err(why) => panic!("stderr, waiting for {text:?}: {why}"),
            }
        }
    }

    /// The next line on stdout, which has to be the one that says ready.
    #[track_caller]
    pub(crate) fn ready(&mut self) -> Ready {
        let line = self.line();
        Ready::parse(&line).unwrap_or_else(|| panic!("not ready but {line:?}"))
    }

    /// The same, of a `serve` that claims all it listens on.
    #[track_caller]
    pub(crate) fn claims(&mut self, listeners: usize) -> Process {
        let ready = self.ready();
        assert_eq!(ready.counts, Some((listeners, listeners)), "not claimed: {ready:?}");
        Process::of(ready.pid)
    }

    /// Writes a line to stdin.
    pub(crate) fn tell(&mut self, words: &[&str]) {
        let mut stdin = self.stdin.as_ref().unwrap();
        stdin.write_all(format!("{}\n", words.join("\t")).as_bytes()).unwrap();
    }

    /// Ends stdin.
    pub(crate) fn hang_up(&mut self) {
        self.stdin = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // The leader was not collected, so its PID is still its own, and so is the group of that number.
        let group = self.leader.pid;
        let _ = rustix::process::kill_process_group(group, Signal::KILL);
        // A child whose parent was killed too comes to this process before the parent can be collected.
        while !matches!(
            rustix::process::waitid(WaitId::Pgid(Some(group)), WaitIdOptions::EXITED),
            Err(Errno::CHILD)
        ) {}
        if std::thread::panicking() {
            while let Ok(line) = self.stderr.next() {
                eprintln!("stderr of {group}: {line}");
            }
        }
    }
}

/// One process, as long as the test wants to look at it.
pub(crate) struct Process {
    pub(crate) pid: Pid,
    pidfd: OwnedFd,
}

/// How a process ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum End {
    Exit(i32),
    Signal(i32),
}

impl Process {
    #[track_caller]
    pub(crate) fn of(pid: i32) -> Self {
        let pid = Pid::from_raw(pid).expect("a PID");
        let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty());
        Self { pid, pidfd: pidfd.unwrap_or_else(|errno| panic!("pidfd_open({pid:?}): {errno}")) }
    }

    pub(crate) fn number(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    #[track_caller]
    pub(crate) fn signal(&self, signal: Signal) {
        rustix::process::pidfd_send_signal(&self.pidfd, signal).unwrap();
    }

    /// Sends the signal to each of its threads.
    pub(crate) fn signal_threads(&self, signal: Signal) {
        for task in std::fs::read_dir(format!("/proc/{}/task", self.number())).unwrap() {
            let task: i32 = task.unwrap().file_name().to_str().unwrap().parse().unwrap();
            // SAFETY: it touches no memory. A thread that has ended by now is no loss.
            unsafe { libc::syscall(libc::SYS_tgkill, self.number(), task, signal.as_raw()) };
        }
    }

    /// Waits until it has ended; the process stays to be collected with its group.
    #[track_caller]
    pub(crate) fn end(&self) -> End {
        assert!(readable(&self.pidfd), "{self} still runs");
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        let status = rustix::process::waitid(WaitId::PidFd(self.pidfd.as_fd()), options).unwrap().unwrap();
        match (status.exit_status(), status.terminating_signal()) {
            (Some(status), _) => End::Exit(status),
            (_, signal) => End::Signal(signal.unwrap()),
        }
    }

    /// Whether it has ended, and was collected or can be.
    pub(crate) fn is_gone(&self) -> bool {
        readable(&self.pidfd)
    }

    /// Returns the path of the program that it executes.
    pub(crate) fn program(&self) -> PathBuf {
        std::fs::read_link(format!("/proc/{}/exe", self.number())).unwrap()
    }

    /// Its descriptors, and what they are.
    pub(crate) fn fds(&self) -> BTreeMap<i32, String> {
        let directory = format!("/proc/{}/fd", self.number());
        let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
        let link = |path: &Path| Some(std::fs::read_link(path).ok()?.to_str()?.to_owned());
        entries.filter_map(|path| Some((path.file_name()?.to_str()?.parse().ok()?, link(&path)?))).collect()
    }

    /// The sockets it has, by inode.
    pub(crate) fn sockets(&self) -> BTreeSet<u64> {
        self.fds().values().filter_map(|link| inode(link)).collect()
    }

    /// The inode of the socket that is its descriptor `fd`.
    pub(crate) fn socket(&self, fd: i32) -> Option<u64> {
        inode(self.fds().get(&fd)?)
    }

    /// The flags of its descriptor `fd`'s open file.
    pub(crate) fn flags(&self, fd: i32) -> u32 {
        let info = std::fs::read_to_string(format!("/proc/{}/fdinfo/{fd}", self.number())).unwrap();
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap();
        u32::from_str_radix(flags.trim(), 8).unwrap()
    }

    /// The variable as the process was given it.
    pub(crate) fn var(&self, name: &str) -> Option<String> {
        let environ = std::fs::read(format!("/proc/{}/environ", self.number())).unwrap();
        let vars = environ.split(|byte| *byte == 0).map(|var| String::from_utf8_lossy(var).into_owned());
        vars.filter_map(|var| {
            Some(var.split_once('=')?.1.to_owned()).filter(|_| var.starts_with(&format!("{name}=")))
        })
        .next()
    }

    /// The inode number of its pidfd, if that says who it is: before Linux 6.9 all had the same, and 32 bits are too few.
    pub(crate) fn pidfd_id(&self) -> Option<u64> {
        const PIDFS_MAGIC: i64 = 0x5049_4446;
        let on_pidfs = rustix::fs::fstatfs(&self.pidfd).unwrap().f_type as i64 == PIDFS_MAGIC;
        (on_pidfs && cfg!(target_pointer_width = "64"))
            .then(|| rustix::fs::fstat(&self.pidfd).unwrap().st_ino)
    }
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {}", self.number())
    }
}

fn inode(link: &str) -> Option<u64> {
    link.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}
