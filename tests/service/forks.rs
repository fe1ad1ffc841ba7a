//! Forks that execute nothing: whatever the copy calls, the server lives on as before.

use crate::stage::*;
use rustix::process::Signal;
use std::time::Duration;

scenarios! {
    ALL:
        a_fork_does_nothing_to_its_parent,
        a_fork_does_not_hide_a_signal,
        a_fork_beside_a_successor_does_not_touch_it,
        a_fork_that_outlives_the_predecessor_keeps_nobody_awake,
        a_fork_that_outlives_a_failed_successor_keeps_nobody_awake;
}

const SAID: &str = "forked: Failed(";

/// What the copy said: that it could not do anything.
#[track_caller]
fn forked(server: &mut Server, pid: i32) {
    let line = server.line(pid);
    assert!(line.starts_with(SAID), "{line}");
    for not in ["Started(", "HandedOver(", "Ok(())"] {
        assert!(!line.contains(not), "{line}");
    }
}

fn a_fork_does_nothing_to_its_parent(way: Way) {
    let mut server = Server::start(way, &[]);
    for _ in 0..2 {
        let pid = server.pid;
        server.ask("fork");
        forked(&mut server, pid);
        server.answers();
        assert_eq!(left(), [pid]);
        server.hand_over();
    }
    server.stop();
}

/// A signal of the parent's is not the copy's: an epoll instance that the copy asks forgets it.
fn a_fork_does_not_hide_a_signal(way: Way) {
    let mut server = Server::start(way, &[]);
    let first = server.pid;
    server.ask("fork-signalled");
    forked(&mut server, first);
    let second = server.started(first);
    server.ready(second);
    server.expect(first, &format!("HandedOver({second})"));
    server.leaves(first, "HandOver");
    server.expect(second, "Main");
    server.stop();
}

/// Forked by a program that was just told of a successor.
fn a_fork_beside_a_successor_does_not_touch_it(way: Way) {
    let mut server = Server::start(way, &[]);
    let first = server.pid;
    server.ask("fork-started");
    server.signal(Signal::USR2);
    let second = server.started(first);
    let line = server.line(first);
    assert!(line.starts_with("forked: "), "{line}");
    assert!(!line.contains("HandedOver(") && !line.contains("Started("), "{line}");
    server.ready(second);
    server.expect(first, &format!("HandedOver({second})"));
    server.leaves(first, "HandOver");
    server.expect(second, "Main");
    server.answers();
    server.stop();
}

/// Has the server fork a copy that sleeps, and returns the copy.
#[track_caller]
fn fork_asleep(server: &mut Server) -> i32 {
    server.ask("fork-asleep");
    let line = server.line(server.pid);
    line.strip_prefix("forked ").unwrap_or_else(|| panic!("{line}")).parse().unwrap()
}

/// Asserts that the server waits, and does not see the same thing for ever. Then ends the copy, which holds it open.
#[track_caller]
fn sleeps(server: &mut Server, copy: i32) {
    let wakes = |server: &Server| server.ask("wakes").parse::<usize>().unwrap();
    std::thread::sleep(Duration::from_millis(50));
    let before = wakes(server);
    std::thread::sleep(Duration::from_millis(200));
    let woken = wakes(server) - before;
    assert!(woken < 20, "{woken}");
    signal_to(copy, Signal::KILL);
}

/// The copy has the successor's pidfd of its predecessor, which shows for ever that it has ended.
fn a_fork_that_outlives_the_predecessor_keeps_nobody_awake(way: Way) {
    let mut server = Server::start(way, &[]);
    let first = server.pid;
    let slow = server.hold();
    server.signal(Signal::USR2);
    let second = server.started(first);
    server.ready(second);
    server.expect(first, &format!("HandedOver({second})"));
    server.expect(first, "Drain(HandOver)");
    let copy = fork_asleep(&mut server);
    slow.finish(first);
    server.expect(first, "Exit(0)");
    server.expect(second, "Main");
    sleeps(&mut server, copy);
    server.hand_over();
    server.stop();
}

/// The copy has the readiness socket and the pidfd of the successor, which show for ever that it has ended.
fn a_fork_that_outlives_a_failed_successor_keeps_nobody_awake(way: Way) {
    let mut server = Server::start(way, &[]);
    let first = server.pid;
    server.set_mood(Some("stop"));
    server.signal(Signal::USR2);
    let second = server.started(first);
    server.stopped(second);
    let copy = fork_asleep(&mut server);
    signal_to(second, Signal::KILL);
    server.expect(first, "Failed(successor was killed by signal 9 before it was ready)");
    sleeps(&mut server, copy);
    server.set_mood(None);
    server.hand_over();
    server.stop();
}
