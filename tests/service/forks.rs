//! Forks that execute nothing: whatever the copy calls, the server lives on as before.

use crate::stage::*;
use rustix::process::Signal;

scenarios! {
    ALL:
        a_fork_does_nothing_to_its_parent,
        a_fork_does_not_hide_a_signal,
        a_fork_beside_a_successor_does_not_touch_it;
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
