//! Endings, and what a server does while nothing happens.

use crate::stage::*;
use rustix::process::Signal;
use std::io::ErrorKind;
use std::time::{Duration, Instant};

scenarios! {
    ALL:
        a_request_that_is_under_way_is_finished,
        the_deadline_ends_the_drain,
        asked_twice_it_leaves_at_once;
    BOTH:
        termination_ends_the_drain_before_an_exec,
        a_drain_for_an_exec_ends_at_the_deadline,
        ready_while_draining_changes_nothing,
        it_takes_every_signal_that_came_at_once;
    ALL:
        idle_after_everything_that_can_end,
        idle_while_nothing_happens;
}

fn is_refused(port: u16) -> bool {
    match ask(port, "pid") {
        Ok(answer) => panic!("{answer}"),
        // The listener is closed; or it was, while the connection waited for it.
        Err(error) => matches!(error.kind(), ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset),
    }
}

fn a_request_that_is_under_way_is_finished(way: Way) {
    for signal in [Signal::TERM, Signal::INT] {
        let mut server = Server::start(way, &[]);
        let pid = server.pid;
        let slow = server.hold();
        server.signal(signal);
        server.expect(pid, "Drain(Exit)");
        let begin = Instant::now();
        // The line is said before the service has closed its own.
        while std::net::TcpStream::connect(("127.0.0.1", server.port)).is_ok() {
            assert!(begin.elapsed() < PATIENCE, "the listener is open still");
        }
        assert!(is_refused(server.port));
        slow.finish(pid);
        server.expect(pid, "Exit(0)");
        assert_eq!(end(pid), End::Status(0));
        server.nothing_more();
    }
}

/// Not before, and not much later.
fn the_deadline_ends_the_drain(way: Way) {
    let drain = Duration::from_millis(300);
    // With a connection that never ends; and without one, by a program that does not say that it is drained.
    for (options, holds) in [(&["--drain", "300"][..], true), (&["--drain", "300", "--undrained"], false)] {
        let mut server = Server::start(way, options);
        let pid = server.pid;
        let slow = holds.then(|| server.hold());
        let begin = Instant::now();
        server.signal(Signal::TERM);
        server.expect(pid, "Drain(Exit)");
        server.expect(pid, "Exit(0)");
        assert!((drain..PATIENCE).contains(&begin.elapsed()));
        assert_eq!(end(pid), End::Status(0));
        server.nothing_more();
        drop(slow);
    }
    // After a hand-over likewise.
    let mut server = Server::start(way, &["--drain", "300"]);
    let first = server.pid;
    let slow = server.hold();
    let begin = Instant::now();
    server.signal(Signal::USR2);
    let second = server.started(first);
    server.ready(second);
    server.expect(first, &format!("HandedOver({second})"));
    server.leaves(first, "HandOver");
    assert!(begin.elapsed() >= drain);
    server.expect(second, "Main");
    drop(slow);
    server.stop();
}

fn asked_twice_it_leaves_at_once(way: Way) {
    let mut server = Server::start(way, &[]);
    let pid = server.pid;
    let slow = server.hold();
    server.signal(Signal::TERM);
    server.expect(pid, "Drain(Exit)");
    server.signal(Signal::INT);
    server.expect(pid, "Exit(1)");
    assert_eq!(end(pid), End::Status(1));
    drop(slow);
    assert_nobody_is_left();
    server.nothing_more();
}

fn termination_ends_the_drain_before_an_exec(way: Way) {
    let mut server = Server::start(way, &["--reload-exec"]);
    let pid = server.pid;
    let slow = server.hold();
    server.signal(Signal::HUP);
    server.expect(pid, "Drain(Exec)");
    server.signal(Signal::USR2);
    server.expect(pid, "Refused(Leaving)");
    server.signal(Signal::TERM);
    server.expect(pid, "Drain(Exit)");
    slow.finish(pid);
    server.expect(pid, "Exit(0)");
    assert_eq!(end(pid), End::Status(0));
    assert_nobody_is_left();
    server.nothing_more();
}

fn a_drain_for_an_exec_ends_at_the_deadline(way: Way) {
    let mut server = Server::start(way, &["--reload-exec", "--drain", "300"]);
    let pid = server.pid;
    let _slow = server.hold();
    let begin = Instant::now();
    server.signal(Signal::HUP);
    server.expect(pid, "Drain(Exec)");
    server.ready(pid);
    assert!(begin.elapsed() >= Duration::from_millis(300));
    server.answers();
    server.stop();
}

/// A program that says twice that it is ready does not serve on.
fn ready_while_draining_changes_nothing(way: Way) {
    let mut server = Server::start(way, &["--drain", "1000"]);
    let pid = server.pid;
    let mut slow = server.hold();
    assert_eq!(slow.exchange("ready").unwrap(), "Ok(())");
    server.signal(Signal::TERM);
    server.expect(pid, "Drain(Exit)");
    assert_eq!(slow.exchange("ready").unwrap(), "Ok(())");
    slow.finish(pid);
    server.expect(pid, "Exit(0)");
    assert_eq!(end(pid), End::Status(0));
    server.nothing_more();
}

/// Of signals that came while nobody looked, each is obeyed.
fn it_takes_every_signal_that_came_at_once(way: Way) {
    let mut server = Server::start(way, &["--reload-exec"]);
    let pid = server.pid;
    let slow = server.hold();
    signal_to(pid, Signal::STOP);
    for signal in [Signal::USR2, Signal::HUP, Signal::USR2, Signal::TERM] {
        signal_to(pid, signal);
    }
    signal_to(pid, Signal::CONT);
    // Each kind once, in the order of their numbers.
    server.expect(pid, "Drain(Exec)");
    server.expect(pid, "Refused(Leaving)");
    server.expect(pid, "Drain(Exit)");
    slow.finish(pid);
    server.expect(pid, "Exit(0)");
    assert_eq!(end(pid), End::Status(0));
    assert_nobody_is_left();
    server.nothing_more();
}

/// Asserts that the server which holds this request hardly wakes up by itself within a second.
#[track_caller]
fn assert_idle(held: &mut Held, when: &str) {
    let mut wakes = || held.exchange("wakes").unwrap().parse::<usize>().unwrap();
    let before = wakes();
    let until = Instant::now() + Duration::from_secs(1);
    // Nothing shows that nothing happens.
    std::thread::sleep(until - Instant::now());
    // The question is one.
    let found = wakes() - before;
    assert!(found <= 3, "{found} {when}");
}

/// A predecessor that has ended, a successor that has failed, a deadline that has passed, an exec that has failed.
fn idle_after_everything_that_can_end(way: Way) {
    let mut server = Server::start(way, &["--ready", "200"]);
    server.hand_over();
    let mut held = server.hold();
    for mood in ["exit", "hang"] {
        server.set_mood(Some(mood));
        server.signal(Signal::USR2);
        let pid = server.pid;
        let successor = server.started(pid);
        if mood == "hang" {
            server.expect(successor, "hangs");
        }
        assert!(server.line(pid).starts_with("Failed("));
    }
    assert_idle(&mut held, "after failures");
    drop(held);
    server.set_present(false);
    server.ask("exec");
    let pid = server.pid;
    server.expect(pid, "Drain(Exec)");
    assert!(server.line(pid).starts_with("Failed("));
    server.expect(pid, "Serve");
    let mut held = server.hold();
    assert_idle(&mut held, "after an exec");
    drop(held);
    server.stop();
}

/// A successor that hangs, or has said why it gives up; a manager that does not come to the barrier; a drain after it
/// has.
fn idle_while_nothing_happens(way: Way) {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let manager = Manager::new();
    let mut server = Server::start_under(&manager, way, &["--barrier", "15000"]);
    manager.hears_of(&server);
    let first = server.pid;
    let mut held = server.hold();
    for mood in ["hang".to_owned(), format!("linger {}", taken.local_addr().unwrap())] {
        server.set_mood(Some(&mood));
        server.signal(Signal::USR2);
        let successor = server.started(first);
        server.line(successor);
        assert_idle(&mut held, &mood);
        signal_to(successor, Signal::KILL);
        assert!(server.line(first).starts_with("Failed("));
        manager.reloading(first);
        assert!(manager.next(first).starts_with("READY=1\nSTATUS=restart failed: "));
    }
    server.set_mood(None);
    server.signal(Signal::USR2);
    manager.reloading(first);
    let second = server.started(first);
    server.ready(second);
    let barrier = manager.main_pid(first, second);
    assert_idle(&mut held, "before the barrier");
    drop(barrier);
    server.expect(first, &format!("HandedOver({second})"));
    server.expect(first, "Drain(HandOver)");
    assert_idle(&mut held, "while it drains");
    held.finish(first);
    server.expect(first, "Exit(0)");
    server.expect(second, "Main");
    manager.expect(second, "STATUS=serving 1 socket");
    manager.stop(&mut server);
}
