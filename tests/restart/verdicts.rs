//! Whether a successor serves: there is one verdict, which predecessor and successor share, whenever the report comes
//! and whoever dies.

use crate::reporter::{descriptors, find};
use crate::stage::*;
use gracenet::error::Operation;
use gracenet::{Error, Executable, Failure, Net, Progress, Readiness, Restart, Unsettled};
use rustix::event::{PollFd, PollFlags, epoll};
use rustix::fd::AsFd;
use rustix::io::{Errno, FdFlags};
use std::time::Duration;

scenarios! {
    a_report_that_nobody_read_is_one,
    a_second_successor_is_not_started_beside_one_that_is_ready,
    one_that_crashed_after_its_report_has_failed,
    one_that_left_a_child_behind_has_failed,
    one_that_refused_is_watched_by_its_pidfd_alone,
    a_clone_that_was_killed_is_told_and_collected,
    what_closes_on_exec_is_no_stdin,
    added_descriptors_close_on_exec,
    one_whose_predecessor_has_ended_is_ready_all_the_same,
    one_that_was_let_go_serves,
    one_that_was_ready_and_ends_is_collected;
    "a_report_that_came_too_late_is_not_taken": "pidfd_send_signal,kill:error=EPERM" => too_late,
    "without_pidfd_send_signal": "pidfd_send_signal:error=ENOSYS" => without_pidfd_send_signal,
}

/// Starts a reporter, and waits until its report of readiness is there, unread.
fn start_ready(stage: &mut Stage) {
    stage.start(&Restart::new(), "ready-and-hang").unwrap();
    stage.report();
    assert!(readable(stage.net.successor().unwrap().socket().unwrap()));
}

fn end(stage: &mut Stage) {
    let successor = stage.net.successor_mut().unwrap();
    rustix::process::pidfd_send_signal(successor.pidfd(), rustix::process::Signal::KILL).unwrap();
    assert!(readable(successor.pidfd()));
}

fn a_report_that_nobody_read_is_one() {
    let mut stage = Stage::new();
    start_ready(&mut stage);
    let successor = stage.net.successor_mut().unwrap();
    assert!(successor.is_in_flight());
    assert_eq!(successor.kill(), Ok(false));
    assert_eq!(successor.poll(), Ok(Progress::Ready));
    end(&mut stage);
    start_ready(&mut stage);
    assert_eq!(stage.net.successor_mut().unwrap().wait_ready(Duration::ZERO), Ok(Progress::Ready));
    assert_eq!(stage.net.successor_mut().unwrap().kill(), Ok(false));
    end(&mut stage);
}

/// The predecessor gives up a successor that it cannot even kill, and that one knows.
fn too_late() {
    let mut stage = Stage::new();
    stage.start(&Restart::new(), "late").unwrap();
    stage.report();
    let successor = stage.net.successor_mut().unwrap();
    let pid = successor.pid().as_raw_nonzero().get();
    let failed = Ok(Progress::Unsettled(Unsettled::Unseen(Error::Call {
        operation: Operation::Kill,
        fd: Some(std::os::fd::AsRawFd::as_raw_fd(&successor.pidfd())),
        errno: Errno::PERM,
    })));
    assert_eq!(successor.wait_ready(Duration::ZERO), failed);
    assert!(successor.is_in_flight());
    assert_eq!(find(&report_when_continued(&stage, pid), "ready"), "Err(GivenUp)");
    assert_eq!(stage.wait_ready(), Err(Failure::Exited(0)));
    assert_no_children();
}

/// Continues a reporter that stops itself, and returns what it has to say then.
fn report_when_continued(stage: &Stage, pid: i32) -> String {
    let begin = std::time::Instant::now();
    let look = rustix::event::Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
    let mut report = [PollFd::new(&stage.report, PollFlags::IN)];
    // It may not have stopped yet. And `kill` may be forbidden here.
    while rustix::event::poll(&mut report, Some(&look)).unwrap() == 0 {
        assert!(begin.elapsed() < PATIENCE);
        unsafe { libc::syscall(libc::SYS_tgkill, pid, pid, libc::SIGCONT) };
    }
    stage.report()
}

/// A predecessor that ends closes its end a moment before its pidfd shows that; one that drops its `Net` closes it too.
/// Neither says that it serves on, so the successor does.
fn one_that_was_let_go_serves() {
    let mut stage = Stage::new();
    stage.start(&Restart::new(), "late").unwrap();
    stage.report();
    let pid = stage.net.successor().unwrap().pid();
    stage.net = gracenet::Net::new();
    assert_eq!(find(&report_when_continued(&stage, pid.as_raw_nonzero().get()), "ready"), "Ok(())");
    rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty()).unwrap();
    assert_no_children();
}

fn a_second_successor_is_not_started_beside_one_that_is_ready() {
    let mut stage = Stage::new();
    start_ready(&mut stage);
    let first = stage.net.successor().unwrap().pid();
    assert_eq!(stage.start(&Restart::new(), "hang"), Ok(()));
    assert_eq!(stage.net.successor().unwrap().pid(), first);
    assert!(stage.net.successor().unwrap().is_ready());
    end(&mut stage);
    // Now that it is known, the caller may want another.
    stage.succeed();
    // Not this process once more: the new image would serve beside its successor, and take its paths away.
    start_ready(&mut stage);
    for _ in 0..2 {
        let Err(error) = stage.net.exec(&mut stage.launch, &Restart::new());
        assert_eq!(error, Error::HandedOver);
    }
    end(&mut stage);
}

fn one_that_crashed_after_its_report_has_failed() {
    let mut stage = Stage::new();
    for (action, verdict) in [
        ("ready-and-abort", Err(Failure::Killed(libc::SIGABRT))),
        ("ready-and-exit 3", Err(Failure::Exited(3))),
        ("ready-and-exit 0", Ok(Progress::Ready)),
    ] {
        stage.start(&Restart::new(), action).unwrap();
        stage.report();
        assert!(readable(stage.net.successor().unwrap().pidfd()));
        assert_eq!(stage.wait_ready(), verdict, "{action}");
        assert_eq!(stage.wait_ready(), verdict, "{action}, asked again");
        assert_no_children();
    }
}

fn one_that_left_a_child_behind_has_failed() {
    let mut stage = Stage::new();
    stage.start(&Restart::new(), "daemonize").unwrap();
    stage.report();
    assert_eq!(stage.wait_ready(), Err(Failure::Exited(0)));
    assert_eq!(find(&stage.report(), "ready"), "Err(GivenUp)");
}

/// An event loop that polls what it is told to does not spin while the successor takes its time to end.
fn one_that_refused_is_watched_by_its_pidfd_alone() {
    let mut stage = Stage::new();
    stage.start(&Restart::new(), "refuse-and-hang").unwrap();
    stage.report();
    let successor = stage.net.successor_mut().unwrap();
    let watch = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
    for fd in successor.fds() {
        epoll::add(&watch, fd, epoll::EventData::new_u64(0), epoll::EventFlags::IN).unwrap();
    }
    assert!(readable(watch.as_fd()));
    assert_eq!(successor.poll(), Ok(Progress::Waiting));
    assert!(successor.socket().is_none());
    assert_eq!(successor.fds().count(), 1);
    let mut events = [std::mem::MaybeUninit::uninit(); 4];
    let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
    assert_eq!(epoll::wait(&watch, &mut events, Some(&now)).unwrap().0.len(), 0);
    assert_eq!(successor.kill(), Ok(true));
    assert!(matches!(successor.poll(), Err(Failure::Refused(_))));
    assert_no_children();
}

/// A filter kills whoever calls execve: that is no successor, also where to be executed is all that is asked.
fn a_clone_that_was_killed_is_told_and_collected() {
    let mut stage = Stage::new();
    let before = Before::of(&stage);
    filter_by(&[(libc::SYS_execve, 0)], libc::SECCOMP_RET_KILL_PROCESS);
    for readiness in [Readiness::Reported, Readiness::Executed, Readiness::Alive(Duration::ZERO)] {
        let restart = Restart::new().readiness(readiness);
        assert_eq!(
            stage.start(&restart, "ready"),
            Err(Error::Killed { signal: libc::SIGSYS }),
            "{readiness:?}"
        );
        assert_no_children();
        assert!(stage.net.successor().is_none());
    }
    assert_eq!(before, Before::of(&stage));
}

fn what_closes_on_exec_is_no_stdin() {
    let mut stage = Stage::new();
    // A program that was started without stdin, and whose next descriptor came to sit there.
    drop(unsafe { <rustix::fd::OwnedFd as rustix::fd::FromRawFd>::from_raw_fd(0) });
    let connection = move_to(fresh_listener(), 0);
    let stdout = target(unsafe { rustix::fd::BorrowedFd::borrow_raw(1) });
    let report = stage.succeed();
    let fds = reported_fds(&report);
    assert_eq!((&*fds[&0], &fds[&1]), ("/dev/null", &stdout));
    // It is this process's still, and was not touched.
    assert_eq!(rustix::io::fcntl_getfd(&connection).unwrap(), FdFlags::CLOEXEC);
    rustix::io::fcntl_setfd(&connection, FdFlags::empty()).unwrap();
    let own = target(connection.as_fd());
    let report = stage.succeed();
    assert_eq!(reported_fds(&report)[&0], own, "one that is left open across execve is meant to be");
}

fn added_descriptors_close_on_exec() {
    let mut net = Net::<1>::new();
    let (read, write) = rustix::pipe::pipe().unwrap();
    assert_eq!(rustix::io::fcntl_getfd(&read).unwrap(), FdFlags::empty());
    let id = net.add(read, "pipe").unwrap();
    assert_eq!(rustix::io::fcntl_getfd(net.fd(id).unwrap()).unwrap(), FdFlags::CLOEXEC);
    let rejected = net.add(write, "pipe").unwrap_err();
    assert_eq!(rustix::io::fcntl_getfd(&rejected.fd).unwrap(), FdFlags::empty(), "it comes back as it was");
}

/// Where a filter takes the call for a crime, a child is killed by its number, which is its own until it is collected.
fn without_pidfd_send_signal() {
    let mut stage = Stage::new();
    stage.start(&Restart::new(), "exit 3").unwrap();
    stage.report();
    assert_eq!(stage.wait_ready(), Err(Failure::Exited(3)));
    stage.start(&Restart::new(), "hang").unwrap();
    stage.report();
    assert_eq!(stage.net.successor_mut().unwrap().wait_ready(Duration::ZERO), Err(Failure::Deadline));
    assert_no_children();
    let restart = Restart::new().executable(Executable::Path(c"/nonexistent"));
    assert_eq!(stage.start(&restart, "ready"), Err(execve(Errno::NOENT)));
    stage.succeed();
    assert!(!descriptors().is_empty());
}

/// A predecessor that is no more has not given anybody up.
fn one_whose_predecessor_has_ended_is_ready_all_the_same() {
    let mut stage = Stage::new();
    match unsafe { libc::fork() } {
        0 => {
            stage.start(&Restart::new(), "survive").unwrap();
            stage.report();
            std::process::exit(0);
        }
        child => {
            let mut status = 0;
            assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
            assert_eq!(status, 0);
        }
    }
    assert_eq!(find(&stage.report(), "ready"), "Ok(())");
}

/// By whatever looks at it next: the same question again, or another restart.
fn one_that_was_ready_and_ends_is_collected() {
    let mut stage = Stage::new();
    start_ready(&mut stage);
    assert_eq!(stage.net.successor_mut().unwrap().poll(), Ok(Progress::Ready));
    end(&mut stage);
    assert_eq!(stage.net.successor_mut().unwrap().poll(), Ok(Progress::Ready));
    assert_no_children();
    start_ready(&mut stage);
    assert_eq!(stage.net.successor_mut().unwrap().poll(), Ok(Progress::Ready));
    end(&mut stage);
    let missing = Restart::new().executable(Executable::Path(c"/nonexistent"));
    assert_eq!(stage.start(&missing, "ready"), Err(execve(Errno::NOENT)));
    assert_no_children();
}
