//! Under a service manager, which is the scenario itself here.

use crate::stage::*;
use rustix::process::Signal;
use std::process::Command;
use std::time::{Duration, Instant};

scenarios! {
    ALL:
        the_manager_hears_each_step,
        a_manager_that_does_not_answer_is_left;
    BOTH:
        a_manager_that_is_full_blocks_nothing,
        an_announcement_waits_for_room,
        an_announcement_that_nobody_hears_is_left,
        a_retry_at_once_blocks_nothing,
        an_exec_that_the_manager_cannot_hear_of_fails,
        termination_waits_for_the_barrier,
        a_manager_that_is_gone_is_told_of_once,
        readiness_is_told_again_once,
        termination_is_told_once_and_by_the_main_process,
        a_failure_is_told,
        a_restart_in_place_is_a_reload,
        the_watchdog_is_fed_by_the_loop,
        the_watchdog_is_fed_by_the_living,
        the_watchdog_is_fed_by_nobody,
        the_watchdog_goes_to_the_successor;
}

const MOMENT: Duration = Duration::from_millis(100);

fn the_manager_hears_each_step(way: Way) {
    let manager = Manager::new();
    let mut server = Server::start_under(&manager, way, &[]);
    manager.hears_of(&server);
    let first = server.pid;
    server.signal(Signal::USR2);
    manager.reloading(first);
    let second = server.started(first);
    server.ready(second);
    let barrier = manager.main_pid(first, second);
    // It leaves when the manager has come to the barrier, and serves until then.
    server.answers_still(first);
    server.answers_still(second);
    server.nothing_more();
    manager.quiet(MOMENT);
    drop(barrier);
    server.expect(first, &format!("HandedOver({second})"));
    server.leaves(first, "HandOver");
    server.expect(second, "Main");
    manager.expect(second, "STATUS=serving 1 socket");
    // The next in the row is told of by the main process of now.
    manager.hand_over(&mut server);
    server.answers();
    manager.stop(&mut server);
}

fn a_manager_that_does_not_answer_is_left(way: Way) {
    let manager = Manager::new();
    let mut server = Server::start_under(&manager, way, &["--barrier", "300"]);
    manager.hears_of(&server);
    let first = server.pid;
    let clients = server.clients(2);
    clients.wait(5);
    server.signal(Signal::USR2);
    manager.reloading(first);
    let second = server.started(first);
    server.ready(second);
    let barrier = manager.main_pid(first, second);
    let begin = Instant::now();
    server.expect(first, "Unheard(wait for the service manager: timed out)");
    assert!(begin.elapsed() >= Duration::from_millis(200));
    server.expect(first, &format!("HandedOver({second})"));
    server.leaves(first, "HandOver");
    server.expect(second, "Main");
    clients.wait(5);
    clients.stop([first, second]);
    drop(barrier);
    manager.expect(second, "STATUS=serving 1 socket");
    manager.stop(&mut server);
}

/// The watchdog's time passes, a restart is asked for, and each request is answered soon.
fn a_manager_that_is_full_blocks_nothing(way: Way) {
    let manager = Manager::new();
    let mut server = Server::start_by(way, &["--retry", "100"], |program| {
        let mut command = Command::new(program);
        command.env("NOTIFY_SOCKET", &manager.address).env("WATCHDOG_USEC", "2000000");
        command
    });
    manager.hears_of(&server);
    let filled = manager.fill();
    let pid = server.pid;
    let ask = |server: &Server| {
        let begin = Instant::now();
        server.answers();
        assert!(begin.elapsed() < Duration::from_secs(1), "{:?}", begin.elapsed());
    };
    server.signal(Signal::USR2);
    server.expect(pid, "Failed(send: timed out)");
    ask(&server);
    server.expect(pid, "Unheard(send: timed out)");
    ask(&server);
    server.signal(Signal::USR2);
    server.expect(pid, "Failed(send: timed out)");
    assert_eq!(left(), [pid]);
    ask(&server);
    manager.read_what_fills(filled);
    manager.quiet(Duration::ZERO);
    server.signal(Signal::USR2);
    let heard = loop {
        let message = manager.next(pid);
        if message != "WATCHDOG=1" {
            break message;
        }
    };
    assert!(heard.starts_with("RELOADING=1\n"), "{heard}");
    let second = server.started(pid);
    server.ready(second);
    drop(manager.main_pid(pid, second));
    server.expect(pid, &format!("HandedOver({second})"));
    server.leaves(pid, "HandOver");
    server.expect(second, "Main");
    server.answers();
    server.stop();
}

/// A successor that is ready while the manager's queue is full.
fn announced_to_nobody(manager: &Manager, way: Way, options: &[&str]) -> (Server, i32, i32, usize) {
    let mut server = Server::start_under(manager, way, options);
    manager.hears_of(&server);
    let first = server.pid;
    server.set_mood(Some("stop"));
    server.signal(Signal::USR2);
    manager.reloading(first);
    let second = server.started(first);
    server.stopped(second);
    let filled = manager.fill();
    server.set_mood(None);
    signal_to(second, Signal::CONT);
    server.ready(second);
    server.expect(first, "Unheard(send: timed out)");
    (server, first, second, filled)
}

fn an_announcement_waits_for_room(way: Way) {
    let manager = Manager::new();
    let (mut server, first, second, filled) = announced_to_nobody(&manager, way, &["--retry", "100"]);
    // One restart at a time.
    signal_to(first, Signal::USR2);
    server.expect(first, "Refused(InFlight)");
    server.quiet(first, Duration::from_millis(250));
    server.answers_still(first);
    manager.read_what_fills(filled);
    drop(manager.main_pid(first, second));
    server.expect(first, &format!("HandedOver({second})"));
    server.leaves(first, "HandOver");
    server.expect(second, "Main");
    manager.expect(second, "STATUS=serving 1 socket");
    manager.stop(&mut server);
}

fn an_announcement_that_nobody_hears_is_left(way: Way) {
    let manager = Manager::new();
    let options = ["--retry", "100", "--barrier", "300"];
    let (mut server, first, second, filled) = announced_to_nobody(&manager, way, &options);
    server.expect(first, "Unheard(send: timed out)");
    server.expect(first, &format!("HandedOver({second})"));
    server.leaves(first, "HandOver");
    server.expect(second, "Main");
    server.answers();
    server.expect(second, "Unheard(send: timed out)");
    manager.read_what_fills(filled);
    server.answers();
    manager.stop(&mut server);
}

fn a_retry_at_once_blocks_nothing(way: Way) {
    let manager = Manager::new();
    let filled = manager.fill();
    let mut server = Server::start_under(&manager, way, &["--retry", "0"]);
    let pid = server.pid;
    server.expect(pid, "Unheard(send: timed out)");
    server.answers();
    manager.read_what_fills(filled);
    manager.expect(pid, "READY=1");
    server.answers();
    server.nothing_more();
}

fn an_exec_that_the_manager_cannot_hear_of_fails(way: Way) {
    let manager = Manager::new();
    let mut server = Server::start_under(&manager, way, &["--reload-exec"]);
    manager.hears_of(&server);
    let pid = server.pid;
    let filled = manager.fill();
    server.signal(Signal::HUP);
    server.expect(pid, "Drain(Exec)");
    server.expect(pid, "Unheard(send: timed out)");
    server.expect(pid, "Failed(send: timed out)");
    server.expect(pid, "Serve");
    server.answers();
    manager.read_what_fills(filled);
    server.signal(Signal::HUP);
    server.expect(pid, "Drain(Exec)");
    server.ready(pid);
    manager.reloading(pid);
    manager.hears_of(&server);
    server.answers();
    manager.stop(&mut server);
}

/// To leave before would look like the end of the service.
fn termination_waits_for_the_barrier(way: Way) {
    let manager = Manager::new();
    let mut server = Server::start_under(&manager, way, &["--barrier", "15000"]);
    manager.hears_of(&server);
    let first = server.pid;
    server.signal(Signal::USR2);
    manager.reloading(first);
    let second = server.started(first);
    server.ready(second);
    let barrier = manager.main_pid(first, second);
    signal_to(first, Signal::TERM);
    server.expect(first, "Drain(HandOver)");
    for _ in 0..10 {
        server.answers();
    }
    server.quiet(first, MOMENT);
    manager.quiet(MOMENT);
    drop(barrier);
    server.expect(first, &format!("HandedOver({second})"));
    server.expect(first, "Exit(0)");
    assert_eq!(end(first), End::Status(0));
    server.expect(second, "Main");
    manager.expect(second, "STATUS=serving 1 socket");
    manager.stop(&mut server);
}

fn a_manager_that_is_gone_is_told_of_once(way: Way) {
    for address in ["@gracenet-nobody", "/nonexistent/notify"] {
        let mut server = Server::start_by(way, &["--retry", "100"], |program| {
            let mut command = Command::new(program);
            command.env("NOTIFY_SOCKET", address);
            command
        });
        let pid = server.pid;
        let line = server.line(pid);
        assert!(line.starts_with("Unheard(connect: "), "{line}");
        server.answers();
        server.quiet(pid, Duration::from_millis(if address.starts_with('@') { 2500 } else { 300 }));
        server.answers();
        // A life without a manager.
        server.signal(Signal::USR2);
        let second = server.started(pid);
        server.ready(second);
        server.expect(pid, &format!("HandedOver({second})"));
        server.leaves(pid, "HandOver");
        server.expect(second, "Main");
        server.answers();
        server.signal(Signal::TERM);
        let line = server.line(second);
        if line.starts_with("Unheard(") {
            server.expect(second, "Drain(Exit)");
        } else {
            assert_eq!(line, "Drain(Exit)");
        }
        server.expect(second, "Exit(0)");
        assert_eq!(end(second), End::Status(0));
        assert_nobody_is_left();
        server.nothing_more();
    }
}

fn readiness_is_told_again_once(way: Way) {
    let manager = Manager::new();
    let filled = manager.fill();
    let mut server = Server::start_under(&manager, way, &["--retry", "100"]);
    let pid = server.pid;
    server.expect(pid, "Unheard(send: timed out)");
    server.answers();
    server.quiet(pid, Duration::from_millis(300));
    manager.read_what_fills(filled);
    let begin = Instant::now();
    manager.expect(pid, "READY=1");
    assert!(begin.elapsed() < Duration::from_secs(2));
    while let Some((_, message, _)) = manager.receive(Duration::from_millis(350)) {
        assert!(message.starts_with("STATUS="), "told again: {message}");
    }
    server.nothing_more();
    manager.hand_over(&mut server);
    manager.stop(&mut server);
}

fn termination_is_told_once_and_by_the_main_process(way: Way) {
    let manager = Manager::new();
    let mut server = Server::start_under(&manager, way, &[]);
    manager.hears_of(&server);
    let first = server.pid;
    let slow = server.hold();
    server.signal(Signal::USR2);
    manager.reloading(first);
    let second = server.started(first);
    server.ready(second);
    drop(manager.main_pid(first, second));
    server.expect(first, &format!("HandedOver({second})"));
    server.expect(first, "Drain(HandOver)");
    let other = server.hold();
    // As a manager stops both.
    signal_to(first, Signal::TERM);
    signal_to(second, Signal::TERM);
    server.expect(second, "Drain(Exit)");
    manager.quiet(MOMENT);
    slow.finish(first);
    server.expect(first, "Exit(0)");
    assert_eq!(end(first), End::Status(0));
    server.expect(second, "Main");
    let said = manager.next(second);
    assert!(said.starts_with("STOPPING=1"), "{said}");
    other.finish(second);
    server.expect(second, "Exit(0)");
    assert_eq!(end(second), End::Status(0));
    assert_nobody_is_left();
    server.nothing_more();
    manager.quiet(Duration::ZERO);
}

/// The sibling's status is known where its parent reaps it and the kernel keeps it.
fn a_failure_is_told(way: Way) {
    let manager = Manager::new();
    let mut server = Server::start_under(&manager, way, &["--ready", "300"]);
    manager.hears_of(&server);
    let pid = server.pid;
    for mood in ["exit", "hang", "return"] {
        server.set_mood(Some(mood));
        server.signal(Signal::USR2);
        manager.reloading(pid);
        let successor = server.started(pid);
        if mood == "hang" {
            server.expect(successor, "hangs");
        }
        let failed = server.line(pid);
        let why = failed.strip_prefix("Failed(").and_then(|rest| rest.strip_suffix(')'));
        let why = why.unwrap_or_else(|| panic!("{failed}"));
        manager.expect(pid, &format!("READY=1\nSTATUS=restart failed: {why}"));
        server.answers();
    }
    // Stopped meanwhile.
    server.set_mood(Some("hang"));
    server.signal(Signal::USR2);
    manager.reloading(pid);
    let successor = server.started(pid);
    server.expect(successor, "hangs");
    server.signal(Signal::TERM);
    server.expect(pid, "Failed(successor was killed before it was ready)");
    manager.expect(pid, "READY=1\nSTATUS=restart failed: successor was killed before it was ready");
    manager.expect(pid, "STOPPING=1\nSTATUS=draining, to exit");
    server.leaves(pid, "Exit");
    assert_nobody_is_left();
    server.nothing_more();
    manager.quiet(Duration::ZERO);
}

fn a_restart_in_place_is_a_reload(way: Way) {
    let manager = Manager::new();
    let mut server = Server::start_under(&manager, way, &["--reload-exec"]);
    manager.hears_of(&server);
    let pid = server.pid;
    let slow = server.hold();
    server.signal(Signal::HUP);
    server.expect(pid, "Drain(Exec)");
    manager.reloading(pid);
    manager.quiet(MOMENT);
    slow.finish(pid);
    server.ready(pid);
    manager.hears_of(&server);
    server.answers();
    server.set_present(false);
    server.signal(Signal::HUP);
    server.expect(pid, "Drain(Exec)");
    server.expect(pid, "Failed(execve: no such file or directory)");
    server.expect(pid, "Serve");
    manager.reloading(pid);
    manager.expect(pid, "READY=1\nSTATUS=restart failed: execve: no such file or directory");
    server.answers();
    manager.stop(&mut server);
}

fn watched(manager: &Manager, way: Way, options: &[&str]) -> Server {
    let server = Server::start_by(way, options, |program| {
        let mut command = Command::new(program);
        command.env("NOTIFY_SOCKET", &manager.address).env("WATCHDOG_USEC", "400000");
        command
    });
    manager.hears_of(&server);
    server
}

/// At half the time: not much more often either.
fn the_watchdog_is_fed_by_the_loop(way: Way) {
    let manager = Manager::new();
    let mut server = watched(&manager, way, &[]);
    let begin = Instant::now();
    for _ in 0..5 {
        manager.expect(server.pid, "WATCHDOG=1");
    }
    assert!((Duration::from_millis(900)..Duration::from_secs(5)).contains(&begin.elapsed()));
    let pid = server.pid;
    server.quiet(pid, Duration::ZERO);
    server.answers();
}

/// Once for its beginning at most, and then whenever the program has said that it lives.
fn the_watchdog_is_fed_by_the_living(way: Way) {
    let manager = Manager::new();
    let server = watched(&manager, way, &["--watchdog-alive"]);
    let begun = manager.receive(Duration::from_millis(700));
    assert!(begun.is_none_or(|(pid, message, _)| (pid, &*message) == (server.pid, "WATCHDOG=1")));
    manager.quiet(Duration::from_millis(500));
    for _ in 0..2 {
        server.ask("alive");
        server.ask("alive");
        manager.expect(server.pid, "WATCHDOG=1");
        manager.quiet(Duration::from_millis(500));
    }
}

fn the_watchdog_is_fed_by_nobody(way: Way) {
    let manager = Manager::new();
    let mut server = watched(&manager, way, &["--watchdog-off"]);
    manager.quiet(Duration::from_millis(700));
    manager.hand_over(&mut server);
    manager.quiet(Duration::from_millis(500));
    manager.stop(&mut server);
}

fn the_watchdog_goes_to_the_successor(way: Way) {
    let manager = Manager::new();
    let mut server = watched(&manager, way, &[]);
    let first = server.pid;
    let slow = server.hold();
    server.signal(Signal::USR2);
    let mut barrier = None;
    let next = || manager.receive(PATIENCE).expect("the manager hears nothing");
    while barrier.is_none() {
        let (pid, message, mut fds) = next();
        assert!(pid == first || message == "WATCHDOG=1", "{pid}: {message}");
        barrier = fds.pop();
    }
    let second = server.started(first);
    server.ready(second);
    // The manager has not answered, so the main process to it is this one.
    while next().0 != first {}
    drop(barrier);
    server.expect(first, &format!("HandedOver({second})"));
    server.expect(first, "Drain(HandOver)");
    while let Some((pid, _, _)) = manager.receive(Duration::ZERO) {
        assert!(pid == first || pid == second);
    }
    for _ in 0..5 {
        manager.expect(second, "WATCHDOG=1");
    }
    slow.finish(first);
    server.expect(first, "Exit(0)");
    server.expect(second, "Main");
}
