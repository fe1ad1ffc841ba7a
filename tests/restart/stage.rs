//! What scenarios are made of: a predecessor with a table of descriptors of its own, the reporters that it starts,
//! and everything that a restart must leave alone.

use crate::common::Need;
use crate::reporter::descriptors;
use gracenet::error::Operation;
use gracenet::{Error, Failure, Launch, Net, Progress, Restart, SocketId};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use rustix::io::{Errno, FdFlags};
use std::collections::BTreeMap;
use std::ffi::{CStr, CString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::Duration;

pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) run: fn(),
    pub(crate) needs: &'static [Need],
    /// A fault that strace injects.
    pub(crate) inject: Option<&'static str>,
}

macro_rules! scenarios {
    (
        $($function:ident $(if $need:ident)?),*
        $(; $($(#[$where:meta])? $name:literal: $fault:literal => $faulty:expr),* $(,)?)?
    ) => {
        pub(crate) const ALL: &[$crate::stage::Scenario] = &[
            $($crate::stage::Scenario {
                name: stringify!($function),
                run: $function,
                needs: &[$((stringify!($need), $need))?],
                inject: None,
            },)*
            $($($(#[$where])? $crate::stage::Scenario {
                name: $name,
                run: $faulty,
                needs: &[("strace", $crate::common::strace)],
                inject: Some($fault),
            },)*)?
        ];
    };
}
pub(crate) use scenarios;

/// The numbers below this are free in a scenario, but for 0, 1 and 2.
pub(crate) const FREE: i32 = 30;

pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A predecessor and the pipe that its successors report on.
pub(crate) struct Stage {
    pub(crate) launch: Launch<256>,
    pub(crate) net: Net<64>,
    pub(crate) report: OwnedFd,
    pub(crate) writer: OwnedFd,
    pub(crate) own: CString,
}

impl Stage {
    pub(crate) fn new() -> Self {
        let own = std::env::current_exe().unwrap();
        let mut taken = Vec::new();
        while let Ok(fd) = rustix::fs::open("/dev/null", rustix::fs::OFlags::CLOEXEC, 0.into()) {
            if fd.as_raw_fd() >= FREE {
                break;
            }
            taken.push(fd);
        }
        let launch = unsafe { Launch::from_libc() }.unwrap();
        let (report, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        Self {
            launch,
            net: Net::new(),
            report,
            writer,
            own: CString::new(own.as_os_str().as_bytes()).unwrap(),
        }
    }

    pub(crate) fn listen(&mut self) -> SocketId {
        self.net.listen("tcp", "127.0.0.1:0").unwrap()
    }

    /// Starts a reporter. The pipe for the report is the last of the sockets.
    pub(crate) fn start(&mut self, restart: &Restart<'_>, action: &str) -> Result<(), Error> {
        let mut args = vec![self.own.clone(), c"role".into(), c"reporter".into()];
        args.extend(action.split(' ').map(|word| CString::new(word).unwrap()));
        let args: Vec<&CStr> = args.iter().map(CString::as_c_str).collect();
        let writer = rustix::io::fcntl_dupfd_cloexec(&self.writer, FREE).unwrap();
        let report = self.net.add(writer, "report").unwrap();
        let result = self.net.spawn(&mut self.launch, &restart.args(&args)).map(drop);
        self.net.close(report).unwrap();
        result
    }

    pub(crate) fn report(&self) -> String {
        let mut report = Vec::new();
        while !report.ends_with(b"end\n") {
            assert!(readable(self.report.as_fd()), "no report: {}", String::from_utf8_lossy(&report));
            let mut buffer = [0; 4096];
            let read = rustix::io::read(&self.report, &mut buffer).unwrap();
            assert_ne!(read, 0);
            report.extend_from_slice(&buffer[..read]);
        }
        String::from_utf8(report).unwrap()
    }

    pub(crate) fn wait_ready(&mut self) -> Result<Progress, Failure> {
        self.net.successor_mut().unwrap().wait_ready(PATIENCE)
    }

    /// Starts a reporter that gets ready, and returns its report.
    pub(crate) fn succeed(&mut self) -> String {
        self.start(&Restart::new(), "ready").unwrap();
        let report = self.report();
        assert_eq!(self.wait_ready(), Ok(Progress::Ready));
        report
    }
}

pub(crate) fn readable(fd: BorrowedFd<'_>) -> bool {
    let timeout = Timespec { tv_sec: 20, tv_nsec: 0 };
    rustix::event::poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&timeout)).unwrap() > 0
}

/// What a descriptor leads to, as `/proc` has it.
pub(crate) fn target(fd: BorrowedFd<'_>) -> String {
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    std::fs::read_link(path).unwrap().to_string_lossy().into_owned()
}

/// The descriptors in a report.
pub(crate) fn reported_fds(report: &str) -> BTreeMap<i32, String> {
    report
        .lines()
        .filter_map(|line| {
            let (fd, target) = line.strip_prefix("fd.")?.split_once('=')?;
            Some((fd.parse().unwrap(), target.to_owned()))
        })
        .collect()
}

/// Puts a descriptor on a number.
pub(crate) fn move_to(fd: OwnedFd, number: i32) -> OwnedFd {
    let raw = unsafe { libc::dup3(fd.as_raw_fd(), number, libc::O_CLOEXEC) };
    assert_eq!(raw, number);
    unsafe { OwnedFd::from_raw_fd(raw) }
}

pub(crate) fn fresh_listener() -> OwnedFd {
    let listener: OwnedFd = std::net::TcpListener::bind("127.0.0.1:0").unwrap().into();
    let high = rustix::io::fcntl_dupfd_cloexec(&listener, FREE).unwrap();
    drop(listener);
    high
}

/// Everything that a restart must leave alone.
#[derive(PartialEq, Debug)]
pub(crate) struct Before {
    pub(crate) fds: Vec<(i32, String, FdFlags)>,
    pub(crate) vars: Vec<CString>,
    pub(crate) cwd: PathBuf,
    pub(crate) masks: String,
}

impl Before {
    pub(crate) fn of(stage: &Stage) -> Self {
        let fds = descriptors().into_iter().map(|(fd, target)| {
            let flags = rustix::io::fcntl_getfd(unsafe { BorrowedFd::borrow_raw(fd) }).unwrap();
            (fd, target, flags)
        });
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        Self {
            fds: fds.collect(),
            vars: stage.launch.vars().map(CStr::to_owned).collect(),
            cwd: std::env::current_dir().unwrap_or_default(),
            masks: ["SigBlk", "SigIgn", "SigCgt"]
                .iter()
                .map(|field| status.lines().find(|line| line.starts_with(field)).unwrap())
                .collect(),
        }
    }
}

/// No child is left, dead or alive.
pub(crate) fn assert_no_children() {
    let found = rustix::process::wait(rustix::process::WaitOptions::NOHANG);
    assert!(matches!(found, Err(Errno::CHILD)), "{found:?}");
}

pub(crate) fn execve(errno: Errno) -> Error {
    Error::Call { operation: Operation::Execve, fd: None, errno }
}

/// Answers these calls with an error, for this process and its successors, where all of these bits are set in
/// their first argument.
pub(crate) fn filter(calls: &[(libc::c_long, i32)], errno: Errno) {
    filter_by(calls, libc::SECCOMP_RET_ERRNO | errno.raw_os_error() as u32);
}

/// Does this where somebody makes one of these calls.
pub(crate) fn filter_by(calls: &[(libc::c_long, i32)], action: u32) {
    let calls: Vec<_> = calls.iter().map(|(call, flags)| (*call, 0, *flags)).collect();
    filter_argument(&calls, action);
}

/// The same, with the argument, from 0, that is to have the flags.
pub(crate) fn filter_argument(calls: &[(libc::c_long, u32, i32)], action: u32) {
    const NUMBER: u32 = 0;
    const FIRST_ARGUMENT: u32 = 16;
    let statement = |code: u32, k: u32, jf: u8| libc::sock_filter { code: code as u16, jt: 0, jf, k };
    let load = |offset| statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset, 0);
    let unless = |k, skip| statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, k, skip);
    let answer = |k| statement(libc::BPF_RET | libc::BPF_K, k, 0);
    let mut program = Vec::new();
    for (call, argument, flags) in calls {
        program.extend([
            load(NUMBER),
            unless(*call as u32, 4),
            load(FIRST_ARGUMENT + 8 * argument),
            statement(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, *flags as u32, 0),
            unless(*flags as u32, 1),
            answer(action),
        ]);
    }
    program.push(answer(libc::SECCOMP_RET_ALLOW));
    let program = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        assert_eq!(libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program), 0);
    }
}
