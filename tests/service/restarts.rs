//! Restarts: by a successor and in place, and what a successor that fails leaves behind.

use crate::common::strace;
use crate::stage::*;
use rustix::process::Signal;
use std::collections::HashSet;
use std::net::TcpListener;
use std::process::{ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

scenarios! {
    ALL:
        a_successor_takes_over,
        ten_restarts_fail_no_request,
        a_successor_that_fails_changes_nothing,
        one_restart_at_a_time,
        a_successor_with_the_descriptors_of_one_that_failed_is_seen,
        a_successor_that_only_has_to_live_is_seen_in_time,
        a_signal_during_an_exec_is_not_lost,
        a_successor_that_hangs_ends_with_its_predecessor;
    BOTH:
        the_successor_is_the_main_process_once_its_predecessor_has_ended,
        a_restart_in_place_keeps_the_pid,
        a_restart_in_place_that_fails_is_none,
        sighup_means_what_the_policy_says,
        a_successor_restarts_while_its_predecessor_drains,
        a_predecessor_that_is_killed_leaves_a_main_process,
        a_predecessor_that_is_killed_before_the_report_leaves_one_too,
        times_may_be_as_long_as_they_get,
        requests_do_what_signals_do;
    FIRST:
        a_successor_that_cannot_be_watched_is_looked_at if strace,
        pid_1_executes_in_place if pid_namespaces,
        pid_1_reaps_orphans if pid_namespaces,
        pid_1_leaves_children_alone_where_it_is_told_to if pid_namespaces;
}

fn a_successor_takes_over(way: Way) {
    let mut server = Server::start(way, &[]);
    server.answers();
    let (first, inode) = (server.pid, server.inode);
    server.hand_over();
    assert_ne!(server.pid, first);
    assert_eq!(server.inode, inode, "the socket is the same");
    server.answers();
    server.stop();
}

fn ten_restarts_fail_no_request(way: Way) {
    let mut server = Server::start(way, &[]);
    let (mut pids, inode) = (HashSet::from([server.pid]), server.inode);
    let clients = server.clients(4);
    for _ in 0..10 {
        clients.wait(20);
        server.hand_over();
        assert!(pids.insert(server.pid));
        assert_eq!(server.inode, inode);
    }
    clients.wait(20);
    clients.stop(pids);
    server.answers();
    server.stop();
}

/// A successor fails and the next is started in one round of calls. The new one's descriptors have the old one's numbers.
fn a_successor_with_the_descriptors_of_one_that_failed_is_seen(way: Way) {
    let mut server = Server::start(way, &[]);
    let first = server.pid;
    server.set_mood(Some("stop"));
    server.signal(Signal::USR2);
    let failed = server.started(first);
    server.stopped(failed);
    server.signal(Signal::STOP);
    signal_to(failed, Signal::KILL);
    let begin = Instant::now();
    while !status(failed, "State").starts_with('Z') {
        assert!(begin.elapsed() < PATIENCE, "{failed} lives on");
    }
    server.signal(Signal::USR2);
    server.signal(Signal::CONT);
    server.expect(first, "Failed(successor was killed by signal 9 before it was ready)");
    let second = server.started(first);
    server.stopped(second);
    server.quiet(first, Duration::from_millis(50));
    signal_to(second, Signal::CONT);
    server.ready(second);
    server.expect(first, &format!("HandedOver({second})"));
    server.leaves(first, "HandOver");
    server.expect(second, "Main");
    server.set_mood(None);
    server.hand_over();
    server.stop();
}

/// Its time is over before the one that it has to get ready in, though both are as long.
fn a_successor_that_only_has_to_live_is_seen_in_time(way: Way) {
    let mut server = Server::start(way, &["--alive", "200", "--ready", "200", "--retry", "60000"]);
    for _ in 0..2 {
        let predecessor = server.pid;
        server.signal(Signal::USR2);
        let successor = server.started(predecessor);
        server.ready(successor);
        server.expect(predecessor, &format!("HandedOver({successor})"));
        server.leaves(predecessor, "HandOver");
        // It knows of no predecessor, and was the main process from its first moment.
        server.nothing_more();
    }
    server.stop();
}

fn the_successor_is_the_main_process_once_its_predecessor_has_ended(way: Way) {
    let mut server = Server::start(way, &[]);
    let first = server.pid;
    let slow = server.hold();
    server.signal(Signal::USR2);
    let second = server.started(first);
    server.ready(second);
    server.expect(first, &format!("HandedOver({second})"));
    server.expect(first, "Drain(HandOver)");
    for _ in 0..20 {
        server.answers();
    }
    assert_eq!(server.ask("main"), "false");
    assert!(!has_ended(first));
    server.nothing_more();
    slow.finish(first);
    server.expect(first, "Exit(0)");
    assert_eq!(end(first), End::Status(0));
    server.expect(second, "Main");
    assert_eq!(server.ask("main"), "true");
    server.stop();
}

fn a_restart_in_place_keeps_the_pid(way: Way) {
    let mut server = Server::start(way, &["--reload-exec"]);
    let (pid, inode) = (server.pid, server.inode);
    let mut fds = None;
    for _ in 0..3 {
        let slow = server.hold();
        server.signal(Signal::HUP);
        server.expect(pid, "Drain(Exec)");
        // Waits in the queue until somebody accepts again.
        let port = server.port;
        let queued = std::thread::spawn(move || ask(port, "pid"));
        server.quiet(pid, Duration::from_millis(50));
        assert!(!queued.is_finished());
        slow.finish(pid);
        server.ready(pid);
        assert_eq!(queued.join().unwrap().unwrap(), pid.to_string());
        assert_eq!(server.inode, inode);
        server.answers();
        // The first process may have been given more than it knows of.
        let open = server.ask("fds");
        assert_eq!(fds.get_or_insert(open.clone()), &open, "nothing is left open");
    }
    server.stop();
}

fn a_restart_in_place_that_fails_is_none(way: Way) {
    let mut server = Server::start(way, &["--reload-exec"]);
    let pid = server.pid;
    for _ in 0..2 {
        server.set_present(false);
        server.signal(Signal::HUP);
        server.expect(pid, "Drain(Exec)");
        server.expect(pid, "Failed(execve: no such file or directory)");
        server.expect(pid, "Serve");
        server.answers();
        server.set_present(true);
    }
    server.signal(Signal::HUP);
    server.expect(pid, "Drain(Exec)");
    server.ready(pid);
    server.answers();
    // And a successor follows it, as any other.
    server.hand_over();
    server.answers();
    server.stop();
}

/// It comes before the new program has a descriptor that would show it.
fn a_signal_during_an_exec_is_not_lost(way: Way) {
    let mut server = Server::start(way, &["--reload-exec"]);
    let pid = server.pid;
    server.set_mood(Some("stop"));
    server.signal(Signal::HUP);
    server.expect(pid, "Drain(Exec)");
    server.stopped(pid);
    server.signal(Signal::TERM);
    signal_to(pid, Signal::CONT);
    server.ready(pid);
    server.leaves(pid, "Exit");
    assert_nobody_is_left();
    server.nothing_more();
}

fn sighup_means_what_the_policy_says(way: Way) {
    let mut server = Server::start(way, &[]);
    let first = server.pid;
    server.signal(Signal::HUP);
    let second = server.started(first);
    server.ready(second);
    server.expect(first, &format!("HandedOver({second})"));
    server.leaves(first, "HandOver");
    server.expect(second, "Main");
    server.answers();
    server.stop();
}

/// Three generations are there at once.
fn a_successor_restarts_while_its_predecessor_drains(way: Way) {
    let mut server = Server::start(way, &[]);
    let first = server.pid;
    let slow = server.hold();
    server.signal(Signal::USR2);
    let second = server.started(first);
    server.ready(second);
    server.expect(first, &format!("HandedOver({second})"));
    server.expect(first, "Drain(HandOver)");
    server.signal(Signal::USR2);
    let third = server.started(second);
    server.ready(third);
    server.expect(second, &format!("HandedOver({third})"));
    server.expect(second, "Drain(HandOver)");
    server.expect(second, "Exit(0)");
    server.expect(third, "Main");
    // A child of the first process, which has other things to do than to reap it.
    assert!(has_ended(second) || status(second, "State").starts_with('Z'));
    server.answers();
    slow.finish(first);
    server.expect(first, "Exit(0)");
    assert_eq!(end(first), End::Status(0));
    server.stop();
}

fn a_predecessor_that_is_killed_leaves_a_main_process(way: Way) {
    let mut server = Server::start(way, &[]);
    let first = server.pid;
    let slow = server.hold();
    server.signal(Signal::USR2);
    let second = server.started(first);
    server.ready(second);
    server.expect(first, &format!("HandedOver({second})"));
    server.expect(first, "Drain(HandOver)");
    signal_to(first, Signal::KILL);
    assert_eq!(end(first), End::Signal(9));
    server.expect(second, "Main");
    drop(slow);
    server.answers();
    server.stop();
}

fn a_predecessor_that_is_killed_before_the_report_leaves_one_too(way: Way) {
    let mut server = Server::start(way, &[]);
    let first = server.pid;
    server.set_mood(Some("stop"));
    server.signal(Signal::USR2);
    let second = server.started(first);
    server.stopped(second);
    signal_to(first, Signal::KILL);
    assert_eq!(end(first), End::Signal(9));
    server.set_mood(None);
    signal_to(second, Signal::CONT);
    server.ready(second);
    server.expect(second, "Main");
    server.answers();
    server.hand_over();
    server.answers();
    server.stop();
}

/// Each time the instance refuses one more of the two descriptors, or both.
fn a_successor_that_cannot_be_watched_is_looked_at(way: Way) {
    // The timer and the signals are the first two.
    for when in ["3", "4", "3+"] {
        let mut server = Server::begin(way, &["--retry", "100", "--ready", "1000"], |program| {
            let mut strace = Command::new("strace");
            let fault = format!("inject=epoll_ctl:error=ENOSPC:when={when}");
            strace.args(["-qq", "-o", "/dev/null", "-e", "trace=epoll_ctl", "-e", &fault]).arg(program);
            strace
        });
        let strace = server.pid;
        let first = server.anybody();
        server.ready(first);
        server.set_mood(Some("hang"));
        server.signal(Signal::USR2);
        let hanging = server.started(first);
        server.expect(hanging, "hangs");
        let unseen = server.line(first);
        assert!(unseen.starts_with("Unseen(watch by epoll on fd "), "{unseen}");
        server.answers();
        server.expect(first, "Failed(successor was not ready at the deadline)");
        server.set_mood(None);
        server.signal(Signal::USR2);
        let second = server.started(first);
        server.ready(second);
        let mut line = server.line(first);
        if line.starts_with("Unseen(") {
            line = server.line(first);
        }
        assert_eq!(line, format!("HandedOver({second})"));
        server.expect(first, "Drain(HandOver)");
        server.expect(first, "Exit(0)");
        assert_eq!(end(strace), End::Status(0));
        server.expect(second, "Main");
        server.answers();
        server.stop();
    }
}

fn times_may_be_as_long_as_they_get(way: Way) {
    let longest = u64::MAX.to_string();
    let options: Vec<_> =
        ["--ready", "--drain", "--barrier", "--retry"].map(|option| [option, &longest]).concat();
    let mut server = Server::start(way, &options);
    server.hand_over();
    server.answers();
    let slow = server.hold();
    server.signal(Signal::TERM);
    let pid = server.pid;
    server.expect(pid, "Drain(Exit)");
    server.quiet(pid, Duration::from_millis(100));
    slow.finish(pid);
    server.expect(pid, "Exit(0)");
    assert_eq!(end(pid), End::Status(0));
}

fn requests_do_what_signals_do(way: Way) {
    let mut server = Server::start(way, &["--no-signals"]);
    let first = server.pid;
    assert_eq!(server.ask("spawn"), first.to_string());
    let second = server.started(first);
    server.ready(second);
    server.expect(first, &format!("HandedOver({second})"));
    server.leaves(first, "HandOver");
    server.expect(second, "Main");
    server.answers();
    server.ask("exec");
    server.expect(second, "Drain(Exec)");
    server.ready(second);
    server.answers();
    let slow = server.hold();
    server.ask("terminate");
    server.expect(second, "Drain(Exit)");
    slow.finish(second);
    server.expect(second, "Exit(0)");
    assert_eq!(end(second), End::Status(0));
    // A signal does what it does anywhere.
    let mut server = Server::start(way, &["--no-signals"]);
    assert_eq!(u64::from_str_radix(&status(server.pid, "SigBlk"), 16), Ok(0));
    server.signal(Signal::USR2);
    assert_eq!(end(server.pid), End::Signal(libc::SIGUSR2));
    assert_nobody_is_left();
    server.nothing_more();
}

/// Each failure is said with its reason, and leaves a server that answers and restarts.
fn a_successor_that_fails_changes_nothing(way: Way) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = listener.local_addr().unwrap();
    let mut server = Server::start(way, &["--ready", "300"]);
    let pid = server.pid;
    let mut fds = None;
    let (bind, linger) = (format!("bind {taken}"), format!("linger {taken}"));
    for (mood, why) in [
        ("exit", "successor exited with status 3 before it was ready"),
        ("crash", "successor was killed by signal 9 before it was ready"),
        ("hang", "successor was not ready at the deadline"),
        ("return", "successor gave up: code 1"),
        ("limit", "successor gave up: too many open files"),
        (&*bind, "successor gave up: address in use"),
        (&*linger, "successor gave up: address in use"),
    ] {
        server.set_mood(Some(mood));
        let begin = Instant::now();
        server.signal(Signal::USR2);
        let successor = server.started(pid);
        let stays = mood == "hang" || mood == linger;
        if stays {
            server.line(successor);
        }
        server.expect(pid, &format!("Failed({why})"));
        assert!(!stays || begin.elapsed() >= Duration::from_millis(300));
        assert_eq!(left(), [pid], "reaped");
        server.answers();
        // The pidfd of the last one is kept, and no more.
        let open = server.ask("fds");
        assert_eq!(fds.get_or_insert(open.clone()), &open, "after {mood}");
    }
    server.set_mood(None);
    server.set_present(false);
    server.signal(Signal::USR2);
    server.expect(pid, "Failed(execve: no such file or directory)");
    server.answers();
    server.set_present(true);
    // Nothing of it is left that the next one would meet.
    server.hand_over();
    server.answers();
    server.stop();
}

fn one_restart_at_a_time(way: Way) {
    let mut server = Server::start(way, &[]);
    let pid = server.pid;
    server.set_mood(Some("hang"));
    server.signal(Signal::USR2);
    let hanging = server.started(pid);
    server.expect(hanging, "hangs");
    for _ in 0..2 {
        server.signal(Signal::USR2);
        server.expect(pid, "Refused(InFlight)");
        server.answers();
    }
    // A successor that ends is no longer in flight.
    server.set_mood(None);
    signal_to(hanging, Signal::KILL);
    server.expect(pid, "Failed(successor was killed by signal 9 before it was ready)");
    server.hand_over();
    server.answers();
    server.stop();
}

fn a_successor_that_hangs_ends_with_its_predecessor(way: Way) {
    let mut server = Server::start(way, &[]);
    let pid = server.pid;
    server.set_mood(Some("hang"));
    server.signal(Signal::USR2);
    let hanging = server.started(pid);
    server.expect(hanging, "hangs");
    let slow = server.hold();
    server.signal(Signal::TERM);
    server.expect(pid, "Failed(successor was killed before it was ready)");
    server.expect(pid, "Drain(Exit)");
    assert_eq!(left(), [pid]);
    slow.finish(pid);
    server.expect(pid, "Exit(0)");
    assert_eq!(end(pid), End::Status(0));
    assert_nobody_is_left();
    server.nothing_more();
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

/// A server as PID 1; its number outside.
fn init(way: Way, options: &[&str]) -> (Server, i32) {
    let mut server = Server::begin(way, options, |program| {
        let mut command = unshare();
        command.arg(program);
        command
    });
    let outside = server.pid;
    server.ready(1);
    let children = children(outside);
    assert_eq!(children.len(), 1);
    (server, children[0])
}

fn children(pid: i32) -> Vec<i32> {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    children.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

fn pid_1_executes_in_place(_: Way) {
    for way in Way::BOTH {
        for options in [&[][..], &["--reload-exec"]] {
            let (mut server, outside) = init(*way, options);
            let inode = server.inode;
            signal_to(outside, Signal::USR2);
            server.expect(1, "Refused(Init)");
            server.answers();
            for _ in 0..2 {
                signal_to(outside, Signal::HUP);
                server.expect(1, "Drain(Exec)");
                server.ready(1);
                assert_eq!(server.inode, inode);
                server.answers();
            }
            assert_eq!(children(outside), []);
            signal_to(outside, Signal::TERM);
            server.expect(1, "Drain(Exit)");
            server.expect(1, "Exit(0)");
            assert_nobody_is_left();
            server.nothing_more();
        }
    }
}

/// Has PID 1 of `outside`'s namespace get three children whose parent has ended, and who end when what is returned is
/// dropped.
fn make_orphans(outside: i32) -> ChildStdin {
    let mut enter = Command::new("nsenter");
    enter.args(["--target", &outside.to_string(), "--pid"]);
    if !rustix::process::getuid().is_root() {
        enter.args(["--user", "--preserve-credentials"]);
    }
    // Each ends when its stdin does.
    enter.args(["sh", "-c", "exec 3<&0; for _ in 1 2 3; do cat <&3 & done"]);
    let parent = start(enter.stdin(Stdio::piped()).stdout(Stdio::null()));
    assert_eq!(end(parent.pid), End::Status(0));
    assert_eq!(children(outside).len(), 3);
    parent.stdin.unwrap()
}

fn pid_1_reaps_orphans(_: Way) {
    for way in Way::BOTH {
        let (mut server, outside) = init(*way, &[]);
        for _ in 0..2 {
            drop(make_orphans(outside));
            let begin = Instant::now();
            while !children(outside).is_empty() {
                assert!(begin.elapsed() < PATIENCE, "left behind: {:?}", children(outside));
                std::thread::yield_now();
            }
            signal_to(outside, Signal::HUP);
            server.expect(1, "Drain(Exec)");
            server.ready(1);
            server.answers();
        }
    }
}

fn pid_1_leaves_children_alone_where_it_is_told_to(_: Way) {
    for way in Way::BOTH {
        let (mut server, outside) = init(*way, &["--no-orphans"]);
        drop(make_orphans(outside));
        let is_zombie = |pid: &i32| status(*pid, "State").starts_with('Z');
        let begin = Instant::now();
        while !children(outside).iter().all(is_zombie) {
            assert!(begin.elapsed() < PATIENCE);
            std::thread::yield_now();
        }
        signal_to(outside, Signal::HUP);
        server.expect(1, "Drain(Exec)");
        server.ready(1);
        server.answers();
        assert_eq!(children(outside).len(), 3);
    }
}
