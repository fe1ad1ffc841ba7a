//! Restarts under a service manager, which is the scenario itself here: what it is told, by whom and when, and
//! what comes of it when it does not listen.
//!
//! The process of a scenario runs it in a second process (`enter`), because a sibling needs a parent that
//! collects it.

use crate::common::manager::{Received, open, receive};
use crate::common::strace;
use crate::init::pid_namespaces;
use crate::reporter::find;
use crate::stage::*;
use gracenet::error::{Operation, Word};
use gracenet::notify::Assignment;
use gracenet::{
    Error, Executable, Failure, Launch, ListenOptions, Net, Notifier, Parentage, Progress, Readiness,
    Refusal, Restart, Unsettled,
};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;
use rustix::process::{PidfdFlags, Signal};
use std::ffi::CStr;
use std::io::{BufRead, BufReader, Read};
use std::mem::MaybeUninit;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::time::{Duration, Instant};

scenarios! {
    the_manager_hears_of_each_step,
    hand_over_is_over_when_the_manager_says_so,
    a_manager_that_does_not_answer_keeps_the_predecessor,
    a_hand_over_that_nobody_looked_at_is_one,
    programs_that_report_nothing_are_announced,
    failures_are_told,
    failures_of_children_are_told,
    one_that_never_ran_is_told,
    one_that_ended_before_its_announcement_is_not_announced,
    a_sibling_that_nobody_collects_has_vanished,
    an_old_kernel_has_siblings_and_forgets_them,
    a_sibling_by_default_and_a_child_on_demand,
    init_has_no_siblings if pid_namespaces,
    nothing_begins_that_the_manager_cannot_hear_of,
    an_announcement_waits_for_the_manager,
    a_wait_is_no_longer_for_the_manager,
    a_barrier_waits_for_the_manager,
    a_report_of_the_last_moment_is_announced if strace,
    a_crash_of_the_last_moment_is_a_failure if strace,
    a_manager_behind_a_vsock_has_no_barrier if strace,
    a_failure_is_one_also_where_the_manager_cannot_hear_it,
    the_watchdog_goes_with_the_main_process,
    exec_in_place_is_a_reload,
    a_successor_leaves_the_manager_to_its_predecessor,
    the_store_and_a_restart_are_claimed_alike;
    "without_pipe_for_the_barrier": "pipe2:error=EMFILE:when=2" => without_pipe,
    "announced_without_pidfd_id": "fstatfs,?fstatfs64:error=ENOSYS" => announced_without_pidfd_id,
    "the_barrier_gets_lost": "sendmsg:error=ECONNREFUSED:when=3" => the_barrier_gets_lost,
}

const INSIDE: &str = "TEST_INSIDE";

/// A service manager's socket.
struct Manager {
    socket: OwnedFd,
}

impl Manager {
    /// At the address that `NOTIFY_SOCKET` says.
    fn new() -> Self {
        Self { socket: open(&std::env::var("NOTIFY_SOCKET").unwrap()) }
    }

    /// The next message, if there is one: it is there when the call that sent it is over.
    fn receive(&self) -> Option<Received> {
        receive(&self.socket)
    }

    /// Waits for a message.
    fn wait(&self) -> Received {
        assert!(readable(self.socket.as_fd()), "the manager hears nothing");
        self.receive().unwrap()
    }

    /// The next message of this process's, which carries nothing.
    fn next(&self) -> String {
        let (sender, message, fds) = self.receive().expect("the manager has heard nothing");
        assert_eq!((sender, fds.len()), (std::process::id() as i32, 0), "{message}");
        message
    }

    fn is_silent(&self) -> bool {
        self.receive().is_none()
    }

    fn reload(&self) {
        let message = self.next();
        let time = message.strip_prefix("RELOADING=1\nMONOTONIC_USEC=");
        time.unwrap_or_else(|| panic!("{message}")).parse::<u64>().unwrap();
    }

    fn barrier(&self) -> OwnedFd {
        let (sender, message, mut fds) = self.receive().expect("the manager has heard nothing");
        assert_eq!((sender, &*message, fds.len()), (std::process::id() as i32, "BARRIER=1", 1));
        fds.remove(0)
    }

    fn failure(&self, why: &str) {
        assert_eq!(self.next(), format!("READY=1\nSTATUS=restart failed: {why}"));
        assert!(self.is_silent());
    }

    /// Sends this manager as many messages as it takes without reading.
    fn fill(&self) -> usize {
        let address = std::env::var("NOTIFY_SOCKET").unwrap();
        let filler = Notifier::parse(address.as_bytes()).unwrap().timeout(Duration::ZERO);
        let mut sent = 0;
        while filler.send(&[Assignment::Watchdog]) == Ok(true) {
            sent += 1;
        }
        assert_ne!(sent, 0);
        sent
    }

    fn read_what_fills(&self, count: usize) {
        (0..count).for_each(|_| assert_eq!(self.next(), "WATCHDOG=1"));
    }
}

/// What the manager hears of a successor that is ready.
fn announcement(stage: &mut Stage, report: &str) -> String {
    let pid = stage.net.successor().unwrap().pid().as_raw_nonzero();
    assert_eq!(find(report, "pid"), pid.to_string());
    // By the successor's own account, where the kernel has it.
    let id = report.lines().find_map(|line| line.strip_prefix("env.LISTEN_PIDFDID="));
    let id = id.map(|id| format!("MAINPIDFDID={id}\n")).unwrap_or_default();
    format!("MAINPID={pid}\n{id}READY=1")
}

/// Runs the scenario `name` in a second process, with a manager's address and a parent that collects every child;
/// in that process, returns its manager and its stage.
fn enter(name: &str) -> Option<(Manager, Stage)> {
    enter_by(name, Command::new(std::env::current_exe().unwrap()), true)
}

/// The same, by a command that runs what is added to its arguments, and with a parent that `collects` or not.
fn enter_by(name: &str, mut command: Command, collects: bool) -> Option<(Manager, Stage)> {
    if std::env::var_os(INSIDE).is_some() {
        let manager = Manager::new();
        let mut stage = Stage::new();
        // A manager that does not listen is an error at once.
        stage.net.set_notifier(Notifier::from_launch(&stage.launch).unwrap().timeout(Duration::ZERO));
        return Some((manager, stage));
    }
    let address = format!("@gracenet-test-{name}-{}", std::process::id());
    command.args(["role", "scenario", name]).env("NOTIFY_SOCKET", address).env(INSIDE, "1");
    // What the scenario leaves behind is this process's, to be ended below. (An emulator may not know it.)
    unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1) };
    let pid = command.spawn().unwrap().id() as i32;
    let wanted = if collects { -1 } else { pid };
    let status = loop {
        let mut status = 0;
        let found = unsafe { libc::waitpid(wanted, &raw mut status, 0) };
        assert_ne!(found, -1);
        if found == pid {
            break status;
        }
    };
    let own = std::process::id();
    let left = std::fs::read_to_string(format!("/proc/{own}/task/{own}/children")).unwrap_or_default();
    for pid in left.split_whitespace() {
        unsafe { libc::kill(pid.parse().unwrap(), libc::SIGKILL) };
    }
    assert_eq!(status, 0, "wait status");
    None
}

/// Starts a reporter that stays for as long as this process does, and waits until its report of readiness is there,
/// unread.
fn start_ready(stage: &mut Stage, restart: &Restart<'_>) -> String {
    stage.start(restart, "outlive").unwrap();
    let report = stage.report();
    assert!(readable(stage.net.successor().unwrap().socket().unwrap()));
    report
}

/// Ends a successor, whoever's child it is.
fn end(stage: &mut Stage) {
    let successor = stage.net.successor_mut().unwrap();
    rustix::process::pidfd_send_signal(successor.pidfd(), Signal::KILL).unwrap();
    assert!(readable(successor.pidfd()));
}

/// Waits until a successor has ended and its parent has collected it.
fn collected(stage: &mut Stage) {
    let pid = stage.net.successor().unwrap().pid().as_raw_nonzero();
    let begin = Instant::now();
    while Path::new(&format!("/proc/{pid}")).exists() {
        assert!(begin.elapsed() < PATIENCE);
        std::thread::yield_now();
    }
}

fn hung_up(fd: BorrowedFd<'_>) -> bool {
    let mut polled = [rustix::event::PollFd::from_borrowed_fd(fd, PollFlags::empty())];
    let timeout = rustix::event::Timespec { tv_sec: PATIENCE.as_secs() as i64, tv_nsec: 0 };
    rustix::event::poll(&mut polled, Some(&timeout)).unwrap() > 0
}

/// A field of this process's status: its numbers are those of `/proc`, as in a report.
fn own(field: &str) -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    status.lines().find_map(|line| Some(line.strip_prefix(field)?.strip_prefix(":\t")?.to_owned())).unwrap()
}

/// Whether the kernel keeps the status of a process that somebody else has collected, and can be asked for it, which
/// not every emulator passes on.
pub(crate) fn keeps_statuses() -> bool {
    // `PIDFD_GET_INFO`, of the 64 bytes that it began with.
    let own = rustix::process::pidfd_open(rustix::process::getpid(), PidfdFlags::empty()).unwrap();
    let mut info = [0_u64; 8];
    let answered = unsafe { libc::ioctl(own.as_raw_fd(), 0xc040_ff0b_u32 as _, info.as_mut_ptr()) } == 0;
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(|byte: char| !byte.is_ascii_digit()).map(|part| part.parse().unwrap());
    (numbers.next().unwrap(), numbers.next().unwrap()) >= (6_u32, 15_u32) && answered
}

/// The successor is ready, and the manager has been told and has not come to the barrier.
const UNANSWERED: Result<Progress, Failure> = Ok(Progress::Unsettled(Unsettled::Unanswered));

fn unheard(operation: Operation, errno: Errno) -> Result<Progress, Failure> {
    Ok(Progress::Unsettled(Unsettled::Untold(Error::Call { operation, fd: None, errno })))
}

/// The sequence, message by message, as an event loop has it: RELOADING with a time within the call, and nothing more
/// until somebody has seen the report; then who the main process is with READY, and the barrier; ready once that is
/// closed. Whoever's child the successor is, all of it comes from the predecessor.
fn the_manager_hears_of_each_step() {
    let Some((manager, mut stage)) = enter("the_manager_hears_of_each_step") else { return };
    let now = || {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        now.tv_sec as u64 * 1_000_000 + now.tv_nsec as u64 / 1000
    };
    for parentage in [Parentage::Sibling, Parentage::Child] {
        let before = now();
        let report = start_ready(&mut stage, &Restart::new().parentage(parentage));
        let after = now();
        let message = manager.next();
        let time = message.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap().parse().unwrap();
        assert!((before..=after).contains(&time), "{before} {time} {after}");
        assert!(manager.is_silent(), "nobody has looked");
        let expected = announcement(&mut stage, &report);
        let successor = stage.net.successor_mut().unwrap();
        assert_eq!(successor.fds().count(), 2);
        assert_eq!(successor.poll(), UNANSWERED);
        assert_eq!(manager.next(), expected);
        let barrier = manager.barrier();
        for _ in 0..2 {
            assert_eq!(successor.poll(), UNANSWERED, "the manager has not come to the barrier");
            assert!(successor.is_in_flight() && !successor.is_ready());
        }
        assert!(manager.is_silent(), "nothing is said twice");
        drop(barrier);
        assert!(hung_up(successor.barrier().unwrap()));
        assert_eq!(successor.poll(), Ok(Progress::Ready));
        assert!(!successor.is_in_flight() && successor.is_ready());
        assert_eq!(successor.poll(), Ok(Progress::Ready));
        assert!(manager.is_silent());
        end(&mut stage);
    }
}

/// The predecessor's side in one call: it returns after the manager has come to the barrier, and not before.
fn hand_over_is_over_when_the_manager_says_so() {
    let Some((manager, mut stage)) = enter("hand_over_is_over_when_the_manager_says_so") else { return };
    let (own, writer) = (stage.own.clone(), rustix::io::dup(&stage.writer).unwrap());
    stage.net.add(writer, "report").unwrap();
    let args = [&*own, c"role", c"reporter", c"ready-and-hang"];
    let (begins, is_over) = (AtomicBool::new(false), AtomicBool::new(false));
    let heard = std::thread::scope(|scope| {
        let answering = scope.spawn(|| {
            let heard: Vec<_> = (0..3).map(|_| manager.wait()).collect();
            begins.store(true, Ordering::SeqCst);
            assert!(!is_over.load(Ordering::SeqCst));
            heard.into_iter().map(|(_, message, fds)| (message, fds.len())).collect::<Vec<_>>()
        });
        let result = stage.net.hand_over(&mut stage.launch, &Restart::new().args(&args), PATIENCE);
        is_over.store(true, Ordering::SeqCst);
        assert!(begins.load(Ordering::SeqCst));
        assert_eq!(result, Ok(Progress::Ready));
        answering.join().unwrap()
    });
    let report = stage.report();
    assert!(heard[0].0.starts_with("RELOADING=1\nMONOTONIC_USEC="));
    assert_eq!(heard[1], (announcement(&mut stage, &report), 0));
    assert_eq!(heard[2], ("BARRIER=1".to_owned(), 1));
    assert!(manager.is_silent());
    assert!(stage.net.successor().unwrap().is_ready());
    end(&mut stage);
    // And one that cannot even begin.
    let missing = Restart::new().executable(Executable::Path(c"/nonexistent"));
    let result = stage.net.hand_over(&mut stage.launch, &missing, PATIENCE);
    assert_eq!(result, Err(Failure::NotStarted(execve(Errno::NOENT))));
    manager.reload();
    manager.failure("execve: no such file or directory");
}

/// A successor that is ready is neither killed nor followed by another while the manager takes its time.
fn a_manager_that_does_not_answer_keeps_the_predecessor() {
    let name = "a_manager_that_does_not_answer_keeps_the_predecessor";
    let Some((manager, mut stage)) = enter(name) else { return };
    let report = start_ready(&mut stage, &Restart::new());
    manager.reload();
    for timeout in [Duration::ZERO, Duration::from_millis(20)] {
        assert_eq!(stage.net.successor_mut().unwrap().wait_ready(timeout), UNANSWERED);
    }
    assert_eq!(stage.net.successor_mut().unwrap().wait(Duration::ZERO), UNANSWERED);
    assert_eq!(manager.next(), announcement(&mut stage, &report));
    let barrier = manager.barrier();
    assert_eq!(stage.net.successor_mut().unwrap().kill(), Ok(false));
    assert_eq!(stage.start(&Restart::new(), "ready"), Err(Error::InFlight));
    let Err(error) = stage.net.exec(&mut stage.launch, &Restart::new());
    assert_eq!(error, Error::InFlight);
    assert!(manager.is_silent());
    // From its announcement on, its end is the manager's to see and to mend.
    end(&mut stage);
    assert_eq!(stage.net.successor_mut().unwrap().poll(), UNANSWERED);
    assert!(manager.is_silent());
    // An event loop that polls what it is told to does not spin meanwhile.
    let shown = |stage: &Stage| {
        let fds = stage.net.successor().unwrap().fds();
        let mut fds: Vec<_> = fds.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)).collect();
        rustix::event::poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).unwrap()
    };
    assert_eq!(shown(&stage), 0);
    drop(barrier);
    assert_eq!(shown(&stage), 1);
    assert_eq!(stage.wait_ready(), Ok(Progress::Ready));
    assert!(manager.is_silent());
}

/// The manager has answered, and nobody has asked: no second successor is started beside the main process.
fn a_hand_over_that_nobody_looked_at_is_one() {
    let Some((manager, mut stage)) = enter("a_hand_over_that_nobody_looked_at_is_one") else { return };
    start_ready(&mut stage, &Restart::new());
    assert_eq!(stage.net.successor_mut().unwrap().poll(), UNANSWERED);
    manager.reload();
    manager.next();
    drop(manager.barrier());
    assert_eq!(stage.start(&Restart::new(), "ready"), Ok(()));
    assert!(stage.net.successor().unwrap().is_ready());
    assert!(manager.is_silent());
    end(&mut stage);
    // Called again, it starts another.
    start_ready(&mut stage, &Restart::new());
    manager.reload();
    // To the whole of a restart it is the one that was asked for.
    assert_eq!(stage.net.hand_over(&mut stage.launch, &Restart::new(), Duration::ZERO), UNANSWERED);
    manager.next();
    let barrier = manager.barrier();
    assert_eq!(stage.net.hand_over(&mut stage.launch, &Restart::new(), Duration::ZERO), UNANSWERED);
    drop(barrier);
    assert_eq!(stage.net.hand_over(&mut stage.launch, &Restart::new(), Duration::ZERO), Ok(Progress::Ready));
    assert!(manager.is_silent());
    end(&mut stage);
}

/// What counts as ready makes no difference to what the manager hears, and when.
fn programs_that_report_nothing_are_announced() {
    let Some((manager, mut stage)) = enter("programs_that_report_nothing_are_announced") else { return };
    for readiness in [Readiness::Executed, Readiness::Alive(Duration::from_millis(20))] {
        stage.start(&Restart::new().readiness(readiness), "hang").unwrap();
        let report = stage.report();
        manager.reload();
        assert!(manager.is_silent());
        assert!(stage.net.successor().unwrap().is_in_flight());
        let begin = Instant::now();
        let (_, message, _) = loop {
            let found = stage.net.successor_mut().unwrap().poll();
            assert!(matches!(found, Ok(Progress::Waiting) | UNANSWERED), "{found:?}");
            if let Some(received) = manager.receive() {
                break received;
            }
            assert!(begin.elapsed() < PATIENCE);
        };
        assert_eq!(message, announcement(&mut stage, &report));
        drop(manager.barrier());
        assert_eq!(stage.wait_ready(), Ok(Progress::Ready));
        end(&mut stage);
        // One that fails early.
        stage.start(&Restart::new().readiness(readiness), "refuse-code 1").unwrap();
        stage.report();
        collected(&mut stage);
        let failure = if keeps_statuses() { Failure::Exited(0) } else { Failure::Vanished };
        assert_eq!(stage.wait_ready(), Err(failure));
        manager.reload();
        manager.failure(&failure.to_string());
    }
}

/// What each kind of failure is called in the manager's status line; the status of a sibling is known where the kernel
/// keeps it.
const FAILURES: [(&str, Failure, &str); 9] = [
    ("exit 3", Failure::Exited(3), "successor exited with status 3 before it was ready"),
    ("exit 0", Failure::Exited(0), "successor exited with status 0 before it was ready"),
    ("kill", Failure::Killed(9), "successor was killed by signal 9 before it was ready"),
    ("refuse-code 7", Failure::Refused(Refusal::Code(7)), "successor gave up: code 7"),
    (
        "refuse-errno 98",
        Failure::Refused(Refusal::Errno(Errno::ADDRINUSE)),
        "successor gave up: address in use",
    ),
    ("refuse-and-hang", Failure::Refused(Refusal::Code(1)), "successor gave up: code 1"),
    ("close", Failure::Closed, "successor closed the readiness socket without a report"),
    ("garbage", Failure::Unknown(Word::new("HELLO")), "successor sent an unknown report: \"HELLO\""),
    ("hang", Failure::Deadline, "successor was not ready at the deadline"),
];

const VANISHED: &str = "successor ended before it was ready, its status is unknown";

/// Each failure is READY=1 with a status line, once, and nothing else.
fn all_failures(manager: &Manager, stage: &mut Stage, parentage: Parentage, is_known: bool) {
    let restart = Restart::new().parentage(parentage);
    for (action, failure, why) in FAILURES {
        stage.start(&restart, action).unwrap();
        stage.report();
        let has_ended =
            ["exit", "kill", "refuse-code", "refuse-errno"].contains(&action.split(' ').next().unwrap());
        if has_ended && parentage == Parentage::Sibling && is_known {
            collected(stage);
        }
        let (failure, why) = match failure {
            Failure::Exited(_) | Failure::Killed(_) if !is_known => (Failure::Vanished, VANISHED),
            _ => (failure, why),
        };
        let patience = if failure == Failure::Deadline || action == "refuse-and-hang" {
            // The report, where there is one, is there before the time is over.
            if action == "refuse-and-hang" {
                assert!(readable(stage.net.successor().unwrap().socket().unwrap()));
            }
            Duration::ZERO
        } else {
            PATIENCE
        };
        let successor = stage.net.successor_mut().unwrap();
        assert_eq!(successor.wait_ready(patience), Err(failure), "{action}");
        manager.reload();
        manager.failure(why);
        assert_eq!(successor.poll(), Err(failure), "{action}, asked again");
        assert_eq!(successor.kill(), Ok(false));
        assert!(manager.is_silent());
    }
    stage.start(&restart, "hang").unwrap();
    stage.report();
    assert_eq!(stage.net.successor_mut().unwrap().kill(), Ok(true));
    assert_eq!(stage.wait_ready(), Err(Failure::Cancelled));
    manager.reload();
    manager.failure("successor was killed before it was ready");
    assert_no_children();
    // One that fails unnoticed is told before the next begins.
    stage.start(&restart, "refuse-and-hang").unwrap();
    stage.report();
    let successor = stage.net.successor_mut().unwrap();
    assert!(readable(successor.socket().unwrap()));
    end(stage);
    start_ready(stage, &restart);
    manager.reload();
    assert_eq!(manager.next(), "READY=1\nSTATUS=restart failed: successor gave up: code 1");
    manager.reload();
    assert!(manager.is_silent());
    end(stage);
}

fn failures_are_told() {
    let Some((manager, mut stage)) = enter("failures_are_told") else { return };
    all_failures(&manager, &mut stage, Parentage::Sibling, keeps_statuses());
}

fn failures_of_children_are_told() {
    let Some((manager, mut stage)) = enter("failures_of_children_are_told") else { return };
    all_failures(&manager, &mut stage, Parentage::Child, true);
}

/// A sibling of which nobody knows the status, as its parent does not collect it.
fn a_sibling_that_nobody_collects_has_vanished() {
    let name = "a_sibling_that_nobody_collects_has_vanished";
    let own = Command::new(std::env::current_exe().unwrap());
    let Some((manager, mut stage)) = enter_by(name, own, false) else { return };
    all_failures(&manager, &mut stage, Parentage::Sibling, false);
}

/// Without clone3, and without a pidfd that keeps the status.
fn an_old_kernel_has_siblings_and_forgets_them() {
    let Some((manager, mut stage)) = enter("an_old_kernel_has_siblings_and_forgets_them") else { return };
    // PIDFD_GET_INFO, whatever size the caller says.
    let calls = [(libc::SYS_clone3, 0, 0), (libc::SYS_ioctl, 1, 0xff0b)];
    filter_argument(&calls, libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32);
    stage.start(&Restart::new(), "exit 3").unwrap();
    let report = stage.report();
    assert_eq!(find(&report, "PPid"), own("PPid"));
    collected(&mut stage);
    assert_eq!(stage.wait_ready(), Err(Failure::Vanished));
    manager.reload();
    manager.failure(VANISHED);
}

/// A program that cannot be executed: the manager hears why, and everything is as before.
fn one_that_never_ran_is_told() {
    let Some((manager, mut stage)) = enter("one_that_never_ran_is_told") else { return };
    stage.listen();
    let before = Before::of(&stage);
    for parentage in [Parentage::Sibling, Parentage::Child] {
        for (path, errno, why) in [
            (c"/nonexistent", Errno::NOENT, "execve: no such file or directory"),
            (c"/", Errno::ACCESS, "execve: permission denied"),
        ] {
            let restart = Restart::new().executable(Executable::Path(path)).parentage(parentage);
            assert_eq!(stage.start(&restart, "ready"), Err(execve(errno)));
            manager.reload();
            manager.failure(why);
            assert_eq!(before, Before::of(&stage));
            assert_no_children();
            assert!(stage.net.successor().is_none());
        }
    }
    let args = [c"x"; 300];
    stage.net.spawn(&mut stage.launch, &Restart::new().args(&args)).unwrap_err();
    manager.reload();
    manager.failure("306 arguments do not fit in 256");
    assert_eq!(before, Before::of(&stage));
}

/// A successor that reported and is gone when somebody looks is not made the main process, also if it exited with 0:
/// the predecessor stays.
fn one_that_ended_before_its_announcement_is_not_announced() {
    let name = "one_that_ended_before_its_announcement_is_not_announced";
    let Some((manager, mut stage)) = enter(name) else { return };
    for parentage in [Parentage::Sibling, Parentage::Child] {
        for (action, failure) in [
            ("ready-and-exit 0", Failure::Exited(0)),
            ("ready-and-exit 3", Failure::Exited(3)),
            ("ready-and-abort", Failure::Killed(libc::SIGABRT)),
        ] {
            stage.start(&Restart::new().parentage(parentage), action).unwrap();
            stage.report();
            assert!(readable(stage.net.successor().unwrap().pidfd()));
            if parentage == Parentage::Sibling {
                collected(&mut stage);
            }
            let is_known = parentage == Parentage::Child || keeps_statuses();
            let failure = if is_known { failure } else { Failure::Vanished };
            assert_eq!(stage.wait_ready(), Err(failure), "{parentage:?}, {action}");
            manager.reload();
            manager.failure(&failure.to_string());
            assert_eq!(stage.wait_ready(), Err(failure), "{parentage:?}, {action}, asked again");
            assert!(manager.is_silent());
        }
    }
    // Where there is no manager, one that is done early has done what it should.
    stage.net.set_notifier(Notifier::none());
    for parentage in [Parentage::Sibling, Parentage::Child] {
        stage.start(&Restart::new().parentage(parentage), "ready-and-exit 0").unwrap();
        stage.report();
        assert!(readable(stage.net.successor().unwrap().pidfd()));
        if parentage == Parentage::Sibling {
            collected(&mut stage);
        }
        let is_known = parentage == Parentage::Child || keeps_statuses();
        let verdict = if is_known { Ok(Progress::Ready) } else { Err(Failure::Vanished) };
        assert_eq!(stage.wait_ready(), verdict, "{parentage:?}");
        assert_eq!(stage.net.successor().unwrap().is_ready(), is_known);
    }
    assert!(manager.is_silent());
    assert_no_children();
}

/// The default depends on the manager alone, and the caller has the last word.
fn a_sibling_by_default_and_a_child_on_demand() {
    let Some((manager, mut stage)) = enter("a_sibling_by_default_and_a_child_on_demand") else { return };
    let notifier = stage.net.notifier().clone();
    for (notifier, chosen, expected) in [
        (notifier.clone(), None, Parentage::Sibling),
        (notifier.clone(), Some(Parentage::Sibling), Parentage::Sibling),
        (notifier, Some(Parentage::Child), Parentage::Child),
        (Notifier::none(), None, Parentage::Child),
        (Notifier::none(), Some(Parentage::Child), Parentage::Child),
        (Notifier::none(), Some(Parentage::Sibling), Parentage::Sibling),
    ] {
        let is_present = notifier.is_present();
        stage.net.set_notifier(notifier);
        let restart = chosen.map_or(Restart::new(), |chosen| Restart::new().parentage(chosen));
        let report = start_ready(&mut stage, &restart);
        let parent = if expected == Parentage::Sibling { own("PPid") } else { own("Pid") };
        assert_eq!(find(&report, "PPid"), parent, "{is_present} {chosen:?}");
        let successor = stage.net.successor_mut().unwrap();
        assert_eq!(successor.parentage(), expected);
        assert_eq!(successor.barrier().is_some(), is_present);
        assert_eq!(successor.fds().count(), 2);
        // It is this process that has to collect a child, and this process cannot collect a sibling.
        end(&mut stage);
        assert!(matches!(stage.wait_ready(), Err(Failure::Killed(9) | Failure::Vanished)));
        assert_no_children();
        if is_present {
            manager.reload();
            manager.next();
        }
        assert!(manager.is_silent());
    }
}

/// PID 1 of a PID namespace has no siblings: its successors are its children, and the restart is the same.
fn init_has_no_siblings() {
    let mut unshare = Command::new("unshare");
    if !rustix::process::getuid().is_root() {
        unshare.args(["--user", "--map-root-user"]);
    }
    unshare.args(["--pid", "--fork"]).arg(std::env::current_exe().unwrap());
    let Some((manager, mut stage)) = enter_by("init_has_no_siblings", unshare, true) else { return };
    assert_eq!(std::process::id(), 1);
    for chosen in [None, Some(Parentage::Sibling)] {
        let restart = chosen.map_or(Restart::new(), |chosen| Restart::new().parentage(chosen));
        let report = start_ready(&mut stage, &restart);
        assert_eq!(find(&report, "PPid"), own("Pid"));
        assert_eq!(stage.net.successor().unwrap().parentage(), Parentage::Child);
        assert_eq!(stage.net.successor_mut().unwrap().poll(), UNANSWERED);
        manager.reload();
        let expected = announcement(&mut stage, &report);
        assert_eq!(manager.next(), expected);
        drop(manager.barrier());
        assert_eq!(stage.wait_ready(), Ok(Progress::Ready));
        end(&mut stage);
    }
    // A child's status is known, on every kernel.
    stage.start(&Restart::new(), "exit 3").unwrap();
    stage.report();
    assert_eq!(stage.wait_ready(), Err(Failure::Exited(3)));
    manager.reload();
    manager.failure("successor exited with status 3 before it was ready");
    assert_no_children();
}

/// Where the manager's socket is full, or nobody has it, a restart fails before it begins; it can be tried again.
fn nothing_begins_that_the_manager_cannot_hear_of() {
    let name = "nothing_begins_that_the_manager_cannot_hear_of";
    let Some((mut manager, mut stage)) = enter(name) else { return };
    stage.listen();
    let missing = Restart::new().executable(Executable::Path(c"/nonexistent"));
    let fails = |stage: &mut Stage, operation, errno| {
        let before = Before::of(stage);
        let failed = Error::Call { operation, fd: None, errno };
        assert_eq!(stage.start(&Restart::new(), "ready"), Err(failed));
        let Err(error) = stage.net.exec(&mut stage.launch, &missing);
        assert_eq!(error, failed);
        assert_eq!(before, Before::of(stage));
        assert!(stage.net.successor().is_none());
        assert_no_children();
    };
    let count = manager.fill();
    fails(&mut stage, Operation::Send, Errno::TIMEDOUT);
    manager.read_what_fills(count);
    assert!(manager.is_silent());
    drop(manager);
    fails(&mut stage, Operation::Connect, Errno::CONNREFUSED);
    manager = Manager::new();
    assert!(manager.is_silent());
    start_ready(&mut stage, &Restart::new());
    manager.reload();
    end(&mut stage);
}

/// The restart has failed before the manager was told that one begins, so it hears nothing of it.
fn without_pipe() {
    let Some((manager, mut stage)) = enter("without_pipe_for_the_barrier") else { return };
    let before = Before::of(&stage);
    let failed = Error::Call { operation: Operation::Pipe, fd: None, errno: Errno::MFILE };
    assert_eq!(stage.start(&Restart::new(), "ready"), Err(failed));
    assert_eq!(before, Before::of(&stage));
    assert!(manager.is_silent());
    assert!(stage.net.successor().is_none());
}

/// The manager that cannot be told who is the main process now is told later; meanwhile there are two that serve and
/// neither is killed.
fn an_announcement_waits_for_the_manager() {
    let Some((mut manager, mut stage)) = enter("an_announcement_waits_for_the_manager") else { return };
    let report = start_ready(&mut stage, &Restart::new());
    manager.reload();
    let expected = announcement(&mut stage, &report);
    let count = manager.fill();
    let full = unheard(Operation::Send, Errno::TIMEDOUT);
    let gone = unheard(Operation::Connect, Errno::CONNREFUSED);
    assert_eq!(stage.net.successor_mut().unwrap().poll(), full);
    assert_eq!(stage.net.successor_mut().unwrap().wait_ready(PATIENCE), full);
    assert_eq!(stage.start(&Restart::new(), "ready"), Err(Error::InFlight));
    let Err(error) = stage.net.exec(&mut stage.launch, &Restart::new());
    assert_eq!(error, Error::InFlight);
    manager.read_what_fills(count);
    assert!(manager.is_silent());
    drop(manager);
    assert_eq!(stage.wait_ready(), gone);
    let successor = stage.net.successor_mut().unwrap();
    assert!(successor.is_in_flight() && !successor.is_ready());
    assert_eq!(successor.kill(), Ok(false));
    // It runs on.
    assert_eq!(rustix::process::pidfd_send_signal(successor.pidfd(), Signal::CONT), Ok(()));
    manager = Manager::new();
    assert_eq!(successor.poll(), UNANSWERED);
    assert_eq!(manager.next(), expected);
    drop(manager.barrier());
    assert_eq!(stage.wait_ready(), Ok(Progress::Ready));
    end(&mut stage);
    // One that ends meanwhile was never announced, and will not be.
    start_ready(&mut stage, &Restart::new().parentage(Parentage::Child));
    manager.reload();
    let count = manager.fill();
    assert_eq!(stage.wait_ready(), full);
    end(&mut stage);
    manager.read_what_fills(count);
    assert_eq!(stage.wait_ready(), Err(Failure::Killed(9)));
    manager.failure("successor was killed by signal 9 before it was ready");
    assert_no_children();
}

/// A wait is no longer than it was asked to be, however patient the notifier is.
fn a_wait_is_no_longer_for_the_manager() {
    let Some((manager, mut stage)) = enter("a_wait_is_no_longer_for_the_manager") else { return };
    stage.net.set_notifier(stage.net.notifier().clone().timeout(PATIENCE));
    start_ready(&mut stage, &Restart::new());
    manager.reload();
    manager.fill();
    let full = unheard(Operation::Send, Errno::TIMEDOUT);
    let short = Duration::from_millis(20);
    let begin = Instant::now();
    let successor = stage.net.successor_mut().unwrap();
    assert_eq!(successor.wait(short), full);
    assert_eq!(successor.wait_ready(short), full);
    assert!(begin.elapsed() < PATIENCE / 2);
    end(&mut stage);
}

/// Where there is room for the announcement and none for the barrier, the barrier alone is sent later.
fn a_barrier_waits_for_the_manager() {
    let Some((manager, mut stage)) = enter("a_barrier_waits_for_the_manager") else { return };
    let report = start_ready(&mut stage, &Restart::new());
    manager.reload();
    let count = manager.fill();
    manager.read_what_fills(1);
    let full = unheard(Operation::Send, Errno::TIMEDOUT);
    assert_eq!(stage.wait_ready(), full);
    assert_eq!(stage.wait_ready(), full);
    manager.read_what_fills(count - 1);
    assert_eq!(manager.next(), announcement(&mut stage, &report));
    assert!(manager.is_silent());
    assert_eq!(stage.net.successor_mut().unwrap().poll(), UNANSWERED);
    drop(manager.barrier());
    assert_eq!(stage.wait_ready(), Ok(Progress::Ready));
    assert!(manager.is_silent());
    end(&mut stage);
}

/// The same, for a manager that is executed anew between the two.
fn the_barrier_gets_lost() {
    let Some((manager, mut stage)) = enter("the_barrier_gets_lost") else { return };
    let report = start_ready(&mut stage, &Restart::new());
    manager.reload();
    assert_eq!(stage.wait_ready(), unheard(Operation::Send, Errno::CONNREFUSED));
    assert_eq!(manager.next(), announcement(&mut stage, &report));
    assert!(manager.is_silent());
    assert_eq!(stage.net.successor_mut().unwrap().poll(), UNANSWERED);
    drop(manager.barrier());
    assert_eq!(stage.wait_ready(), Ok(Progress::Ready));
    end(&mut stage);
}

/// A virtual machine's manager outside of it takes no descriptors, and its main process is the machine: it is told, and
/// nobody waits. The calls are answered by strace, in a hypervisor's place.
fn a_manager_behind_a_vsock_has_no_barrier() {
    let log = tempfile::NamedTempFile::new().unwrap();
    let mut strace = Command::new("strace");
    strace
        .args(["-f", "-qq", "-s", "200", "-o"])
        .arg(log.path())
        .args(["-e", "trace=socket,bind,connect,sendmsg"]);
    // The first are the scenario's own socket's.
    for inject in
        ["socket:retval=100:when=2+", "bind:retval=0:when=2+", "connect:retval=0", "sendmsg:retval=4096"]
    {
        strace.arg("-e").arg(format!("inject={inject}"));
    }
    strace.arg(std::env::current_exe().unwrap());
    let name = "a_manager_behind_a_vsock_has_no_barrier";
    let Some((manager, mut stage)) = enter_by(name, strace, true) else {
        let calls = std::fs::read_to_string(log.path()).unwrap();
        let sent: Vec<_> = calls.lines().filter(|line| line.contains("sendmsg(")).collect();
        assert_eq!(sent.len(), 2, "{calls}");
        assert!(sent[0].contains(r#"iov_base="RELOADING=1\nMONOTONIC_USEC="#), "{calls}");
        assert!(sent[1].contains(r#"iov_base="MAINPID="#) && sent[1].contains(r#"\nREADY=1""#), "{calls}");
        assert_eq!(calls.matches("svm_cid=0x5, svm_port=0x4d2").count(), 2, "{calls}");
        return;
    };
    let plug = || std::mem::forget(move_to(fresh_pipe(), 100));
    stage.net.set_notifier(Notifier::parse(b"vsock:5:1234").unwrap());
    plug();
    start_ready(&mut stage, &Restart::new());
    plug();
    assert_eq!(stage.net.successor_mut().unwrap().poll(), Ok(Progress::Ready));
    assert_eq!(stage.net.successor().unwrap().parentage(), Parentage::Sibling);
    assert!(manager.is_silent());
    end(&mut stage);
}

fn fresh_pipe() -> OwnedFd {
    rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap().1
}

/// The report is not there at the first look, and is at the last, when the time is over: that is one like any other.
fn a_report_of_the_last_moment_is_announced() {
    let mut strace = Command::new("strace");
    strace.args(["-qq", "-o", "/dev/null", "-e", "inject=recvfrom,?recv:error=EAGAIN:when=1+2"]);
    strace.arg(std::env::current_exe().unwrap());
    let name = "a_report_of_the_last_moment_is_announced";
    let Some((manager, mut stage)) = enter_by(name, strace, true) else { return };
    let report = start_ready(&mut stage, &Restart::new());
    manager.reload();
    assert_eq!(stage.net.successor_mut().unwrap().wait_ready(Duration::ZERO), UNANSWERED);
    assert_eq!(manager.next(), announcement(&mut stage, &report));
    drop(manager.barrier());
    assert_eq!(stage.wait_ready(), Ok(Progress::Ready));
    end(&mut stage);
    stage.net.set_notifier(Notifier::none());
    start_ready(&mut stage, &Restart::new());
    assert_eq!(stage.net.successor_mut().unwrap().wait_ready(Duration::ZERO), Ok(Progress::Ready));
    end(&mut stage);
}

/// The report is not there at the first look, and at the last one it is there, of a successor that has crashed meanwhile.
/// That successor has failed. It crashes in the handler of a signal that strace sends with the first look. There is no
/// manager here, before whose announcement a look at the pidfd would find the crash all the same.
fn a_crash_of_the_last_moment_is_a_failure() {
    static SUCCESSOR: AtomicI32 = AtomicI32::new(0);
    extern "C" fn crash(_: i32) {
        let pid = SUCCESSOR.load(Ordering::SeqCst);
        // The status is left to the library.
        let options = libc::WEXITED | libc::WNOWAIT;
        let mut info = MaybeUninit::<libc::siginfo_t>::uninit();
        unsafe {
            libc::kill(pid, libc::SIGABRT);
            libc::waitid(libc::P_PID, pid as _, info.as_mut_ptr(), options);
        }
    }
    let mut strace = Command::new("strace");
    strace.args(["-qq", "-o", "/dev/null", "-e"]);
    strace.arg("inject=recvfrom,?recv:error=EAGAIN:signal=SIGUSR1:when=1");
    strace.arg(std::env::current_exe().unwrap());
    let name = "a_crash_of_the_last_moment_is_a_failure";
    let Some((manager, mut stage)) = enter_by(name, strace, true) else { return };
    stage.net.set_notifier(Notifier::none());
    unsafe { libc::signal(libc::SIGUSR1, crash as *const () as usize) };
    start_ready(&mut stage, &Restart::new());
    let successor = stage.net.successor_mut().unwrap();
    SUCCESSOR.store(successor.pid().as_raw_nonzero().get(), Ordering::SeqCst);
    let crashed = Err(Failure::Killed(libc::SIGABRT));
    assert_eq!(successor.wait_ready(Duration::ZERO), crashed);
    assert_eq!(successor.poll(), crashed);
    assert_no_children();
    // A successor that nobody has looked at is given up.
    stage.start(&Restart::new(), "ready-and-abort").unwrap();
    stage.report();
    let successor = stage.net.successor_mut().unwrap();
    assert!(readable(successor.pidfd()));
    assert_eq!(successor.kill(), Ok(true));
    assert_eq!(successor.poll(), crashed);
    assert_no_children();
    assert!(manager.is_silent());
}

/// The caller learns of the failure as it is; what the manager missed is not made up for.
fn a_failure_is_one_also_where_the_manager_cannot_hear_it() {
    let name = "a_failure_is_one_also_where_the_manager_cannot_hear_it";
    let Some((manager, mut stage)) = enter(name) else { return };
    stage.start(&Restart::new(), "refuse-code 7").unwrap();
    stage.report();
    manager.reload();
    let count = manager.fill();
    assert_eq!(stage.wait_ready(), Err(Failure::Refused(Refusal::Code(7))));
    manager.read_what_fills(count);
    assert!(manager.is_silent());
    stage.start(&Restart::new(), "refuse-code 8").unwrap();
    stage.report();
    manager.reload();
    drop(manager);
    assert_eq!(stage.wait_ready(), Err(Failure::Refused(Refusal::Code(8))));
    let manager = Manager::new();
    assert_eq!(stage.wait_ready(), Err(Failure::Refused(Refusal::Code(8))));
    assert!(manager.is_silent());
}

/// Where the kernel has no number for a pidfd, or none to be trusted, the manager is told the PID alone.
fn announced_without_pidfd_id() {
    let Some((manager, mut stage)) = enter("announced_without_pidfd_id") else { return };
    start_ready(&mut stage, &Restart::new());
    manager.reload();
    assert_eq!(stage.net.successor_mut().unwrap().poll(), UNANSWERED);
    let pid = stage.net.successor().unwrap().pid().as_raw_nonzero();
    assert_eq!(manager.next(), format!("MAINPID={pid}\nREADY=1"));
    end(&mut stage);
}

/// `WATCHDOG_PID` names the successor where it named the predecessor, and is let alone where it named another; the
/// time goes with it. A new image in place has the predecessor's PID.
fn the_watchdog_goes_with_the_main_process() {
    let Some((_manager, mut stage)) = enter("the_watchdog_goes_with_the_main_process") else { return };
    let own = std::process::id().to_string();
    for (pid, expected) in [(Some(own.as_str()), "the successor's"), (Some("1"), "1"), (None, "none")] {
        // The one thread of this process.
        unsafe {
            std::env::set_var("WATCHDOG_USEC", "3000000");
            match pid {
                Some(pid) => std::env::set_var("WATCHDOG_PID", pid),
                None => std::env::remove_var("WATCHDOG_PID"),
            }
        }
        stage.launch = unsafe { Launch::from_libc() }.unwrap();
        let vars: Vec<_> = stage.launch.vars().map(CStr::to_owned).collect();
        stage.net.set_notifier(Notifier::none());
        // Readiness::Executed: the reporter is a main process by its own lights.
        for (action, count) in [("ready", 1), ("exec", 2)] {
            stage.start(&Restart::new().readiness(Readiness::Executed), action).unwrap();
            let reports = reports(&stage, count);
            for report in &reports {
                assert_eq!(find(report, "env.WATCHDOG_USEC"), "3000000");
                match expected {
                    "the successor's" => {
                        assert_eq!(find(report, "env.WATCHDOG_PID"), find(report, "pid"));
                        assert_ne!(find(report, "pid"), own);
                    }
                    "none" => assert!(!report.contains("WATCHDOG_PID")),
                    other => assert_eq!(find(report, "env.WATCHDOG_PID"), other),
                }
            }
            assert!(reports.iter().all(|report| find(report, "pid") == find(&reports[0], "pid")));
        }
        // One that gets no descriptor, and so no LISTEN_PID.
        let script = match expected {
            "the successor's" => c"test $WATCHDOG_PID = $$ && exit 7",
            "none" => c"test -z \"$WATCHDOG_PID\" && exit 7",
            _ => c"test $WATCHDOG_PID = 1 && exit 7",
        };
        let args = [c"sh", c"-c", script];
        let shell = Restart::new().executable(Executable::Path(c"/bin/sh")).args(&args);
        let shell = shell.readiness(Readiness::Alive(PATIENCE));
        let ended = stage.net.spawn(&mut stage.launch, &shell).unwrap().wait_ready(PATIENCE);
        assert_eq!(ended, Err(Failure::Exited(7)), "{expected}");
        assert_eq!(vars, stage.launch.vars().map(CStr::to_owned).collect::<Vec<_>>());
    }
}

/// As many reports as this, of processes that follow one another.
fn reports(stage: &Stage, count: usize) -> Vec<String> {
    let mut all = stage.report();
    while all.matches("\nend\n").count() < count {
        all += &stage.report();
    }
    all.split_inclusive("\nend\n").map(str::to_owned).collect()
}

/// A main process says that it reloads; its new image, with its PID, that this is over. If there is no new image, it
/// says so itself, and why.
fn exec_in_place_is_a_reload() {
    let Some((manager, mut stage)) = enter("exec_in_place_is_a_reload") else { return };
    let before = Before::of(&stage);
    let missing = Restart::new().executable(Executable::Path(c"/nonexistent"));
    let Err(error) = stage.net.exec(&mut stage.launch, &missing);
    assert_eq!(error, execve(Errno::NOENT));
    manager.reload();
    manager.failure("execve: no such file or directory");
    assert_eq!(before, Before::of(&stage));
    // Another process, to which nobody is a predecessor.
    stage.net.set_notifier(Notifier::none());
    stage.start(&Restart::new().readiness(Readiness::Executed), "exec").unwrap();
    let reports = reports(&stage, 2);
    let pid = find(&reports[1], "pid").parse().unwrap();
    assert_eq!(find(&reports[0], "pid"), find(&reports[1], "pid"));
    let (sender, begin, fds) = manager.wait();
    assert!(begin.starts_with("RELOADING=1\nMONOTONIC_USEC="), "{begin}");
    assert_eq!((sender, fds.len()), (pid, 0));
    let (sender, end, fds) = manager.wait();
    assert_eq!((sender, &*end, fds.len()), (pid, "READY=1", 0));
    assert!(manager.is_silent());
}

/// A process that owes a predecessor its report is not the main one, and says nothing to the manager: not when it is
/// ready, not when it executes in place before that, and not when that fails.
fn a_successor_leaves_the_manager_to_its_predecessor() {
    let name = "a_successor_leaves_the_manager_to_its_predecessor";
    let Some((manager, mut stage)) = enter(name) else { return };
    // What it does not claim would be dropped from the store by a main process.
    stage.net.add(fresh_listener(), "unclaimed").unwrap();
    for (action, count) in [("ready-and-hang", 1), ("exec-and-hang", 2), ("exec-missing", 1)] {
        stage.start(&Restart::new(), action).unwrap();
        let reports = reports(&stage, count);
        assert!(readable(stage.net.successor().unwrap().socket().unwrap()));
        manager.reload();
        assert!(manager.is_silent(), "{action}");
        assert_eq!(stage.net.successor_mut().unwrap().poll(), UNANSWERED);
        assert_eq!(manager.next(), announcement(&mut stage, &reports[0]));
        drop(manager.barrier());
        assert_eq!(stage.wait_ready(), Ok(Progress::Ready));
        assert!(manager.is_silent(), "{action}");
        end(&mut stage);
    }
}

/// What `role keeper` says of itself.
#[derive(Debug, PartialEq)]
struct Keeper {
    pid: i32,
    /// How many keepers have held its state, this one included.
    generation: u32,
    port: u16,
    /// Of its listener.
    cookie: u64,
}

/// A server with a listener and a state that are to outlive it, whether it crashes or hands over: it does not know how
/// it came by them. It obeys the lines of its stdin.
pub(crate) fn keep() -> ExitCode {
    let mut launch: Launch<256> = unsafe { Launch::from_libc() }.unwrap();
    let mut net = Net::<4>::new();
    let inherited = unsafe { net.inherit(&mut launch) }.unwrap();
    net.set_notifier(Notifier::from_launch(&launch).unwrap());
    let web = net.listen_with("tcp", "127.0.0.1:0", &ListenOptions::new().name("web")).unwrap();
    let state = net.claim_name("state").unwrap_or_else(|_| {
        let file = rustix::fs::memfd_create("state", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        net.add(file, "state").unwrap()
    });
    if inherited == 0 {
        assert_eq!((net.store(web), net.store(state)), (Ok(true), Ok(true)));
    }
    let mut generation = [0; 4];
    rustix::io::pread(net.fd(state).unwrap(), &mut generation, 0).unwrap();
    let generation = u32::from_ne_bytes(generation) + 1;
    rustix::io::pwrite(net.fd(state).unwrap(), &generation.to_ne_bytes(), 0).unwrap();
    net.ready().unwrap();
    let address = std::net::SocketAddr::try_from(rustix::net::getsockname(net.fd(web).unwrap()).unwrap());
    let cookie = rustix::net::sockopt::socket_cookie(net.fd(web).unwrap()).unwrap();
    println!("{} {generation} {} {cookie}", std::process::id(), address.unwrap().port());
    loop {
        let mut order = [0];
        assert_eq!(rustix::io::read(rustix::stdio::stdin(), &mut order), Ok(1));
        match &order {
            b"a" => {
                let connection = rustix::net::accept(net.fd(web).unwrap()).unwrap();
                rustix::io::write(&connection, generation.to_string().as_bytes()).unwrap();
            }
            b"r" => {
                assert_eq!(net.hand_over(&mut launch, &Restart::new(), PATIENCE), Ok(Progress::Ready));
                return ExitCode::SUCCESS;
            }
            other => panic!("{other:?}"),
        }
    }
}

/// A service whose main process is killed, restarted, and killed again: what the manager keeps for it and what a
/// predecessor hands over arrive in one way, under one name, and the listener's queue is the same all the time.
fn the_store_and_a_restart_are_claimed_alike() {
    let name = "the_store_and_a_restart_are_claimed_alike";
    let Some((manager, mut stage)) = enter(name) else { return };
    // This process is the manager, and starts the service as its child, with these on 0 and 1.
    let (orders, answers) = plug_stdio();
    let mut answers = BufReader::new(answers);
    let order = |order: &[u8]| assert_eq!(rustix::io::write(&orders, order), Ok(1));
    let mut start = |kept: &[(&'static str, &OwnedFd)]| {
        let mut net = Net::<4>::new();
        for (name, fd) in kept {
            net.add(fd.try_clone().unwrap(), name).unwrap();
        }
        let args = [&*stage.own, c"role", c"keeper"];
        let restart = Restart::new().args(&args).readiness(Readiness::Executed);
        net.spawn(&mut stage.launch, &restart).unwrap().pid().as_raw_nonzero().get()
    };
    let mut keeper = || {
        let mut line = String::new();
        answers.read_line(&mut line).unwrap();
        let fields: Vec<u64> = line.split_whitespace().map(|field| field.parse().unwrap()).collect();
        let [pid, generation, port, cookie] = fields[..] else { panic!("{line:?}") };
        Keeper { pid: pid as i32, generation: generation as u32, port: port as u16, cookie }
    };
    let heard = |expected: &[(i32, &str, usize)]| -> Vec<OwnedFd> {
        let mut all = Vec::new();
        for (sender, message, count) in expected {
            let (from, text, fds) = manager.wait();
            assert_eq!((from, &*text, fds.len()), (*sender, *message, *count));
            all.extend(fds);
        }
        assert!(manager.is_silent());
        all
    };
    let crash = |pid: i32| {
        let mut status = 0;
        assert_eq!(unsafe { libc::kill(pid, libc::SIGKILL) }, 0);
        // A sibling's successor is this process's child too, or this would fail.
        assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
        assert_eq!(status, libc::SIGKILL);
    };

    let first = start(&[]);
    let begin = keeper();
    assert_eq!((begin.pid, begin.generation), (first, 1));
    let kept = heard(&[
        (first, "FDSTORE=1\nFDNAME=web", 1),
        (first, "FDSTORE=1\nFDNAME=state", 1),
        (first, "READY=1", 0),
    ]);
    let [web, state] = &kept[..] else { unreachable!() };
    assert_eq!(rustix::net::sockopt::socket_cookie(web).unwrap(), begin.cookie);
    crash(first);

    // Nobody serves, and nobody is refused.
    let mut client = std::net::TcpStream::connect(("127.0.0.1", begin.port)).unwrap();
    let stale = fresh_listener();
    let second = start(&[("state", state), ("stale", &stale), ("web", web)]);
    assert_eq!(keeper(), Keeper { pid: second, generation: 2, ..begin });
    heard(&[(second, "FDSTOREREMOVE=1\nFDNAME=stale", 0), (second, "READY=1", 0)]);
    order(b"a");
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "2");

    order(b"r");
    let (sender, message, _) = manager.wait();
    assert!(sender == second && message.starts_with("RELOADING=1\nMONOTONIC_USEC="), "{message}");
    let third = keeper();
    assert_eq!(third, Keeper { pid: third.pid, generation: 3, ..begin });
    let (sender, message, _) = manager.wait();
    let main_pid = format!("MAINPID={}\n", third.pid);
    assert!(
        sender == second && message.starts_with(&main_pid) && message.ends_with("\nREADY=1"),
        "{message}"
    );
    drop(heard(&[(second, "BARRIER=1", 1)]));
    let mut status = -1;
    assert_eq!(unsafe { libc::waitpid(second, &raw mut status, 0) }, second);
    assert_eq!(status, 0);
    crash(third.pid);

    let fourth = start(&[("web", web), ("state", state)]);
    assert_eq!(keeper(), Keeper { pid: fourth, generation: 4, ..begin });
    heard(&[(fourth, "READY=1", 0)]);
    crash(fourth);
}

/// Puts pipes on 0 and 1, and returns the other ends.
fn plug_stdio() -> (OwnedFd, std::fs::File) {
    let pipe = || rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    let ((read, orders), (answers, write)) = (pipe(), pipe());
    rustix::stdio::dup2_stdin(&read).unwrap();
    rustix::stdio::dup2_stdout(&write).unwrap();
    (orders, answers.into())
}
