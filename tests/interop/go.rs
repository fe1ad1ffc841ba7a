//! The Go original as predecessor and as successor.

use rustix::fs::OFlags;
use rustix::process::Signal;

use crate::Test;
use crate::client::{Load, Place};
use crate::predecessor::Predecessor;
use crate::process::{End, Group, Process};
use crate::programs::{Deployed, Need, Programs};

const NEEDS: &[Need] = &[Need::Go];

pub(crate) const TESTS: &[Test] = &[
    Test { name: "go::predecessor_of_serve", needs: NEEDS, run: predecessor_of_serve },
    Test { name: "go::successor_executed", needs: NEEDS, run: successor_executed },
    Test { name: "go::successor_still_alive", needs: NEEDS, run: successor_still_alive },
    Test { name: "go::successor_in_place_of_serve", needs: NEEDS, run: successor_in_place_of_serve },
    Test {
        name: "go::successor_that_reports_under_load",
        needs: NEEDS,
        run: successor_that_reports_under_load,
    },
    Test { name: "go::successor_that_does_not_report", needs: NEEDS, run: successor_that_does_not_report },
    Test { name: "go::passes_a_stale_pid_on", needs: NEEDS, run: passes_a_stale_pid_on },
    Test { name: "go::there_and_back", needs: NEEDS, run: there_and_back },
];

/// The Go server's answer to SIGUSR2.
#[track_caller]
fn started(group: &mut Group) -> i32 {
    group.find("started pid=").parse().unwrap()
}

/// The Go server says ready with its PID only.
#[track_caller]
fn go_ready(group: &mut Group) -> Process {
    let ready = group.ready();
    assert_eq!(ready.counts, None, "not the Go server");
    Process::of(ready.pid)
}

fn predecessor_of_serve(programs: &Programs) {
    let deployed = Deployed::new(programs.go());
    let places = [&Place::tcp(), &deployed.unix()];
    let mut group = Group::start(&mut deployed.command(&places));
    let go = go_ready(&mut group);
    let inodes = places.map(Place::inode);
    places.iter().for_each(|place| place.is_served_by(go.number()));

    deployed.deploy(&programs.serve());
    go.signal(Signal::USR2);
    // No request between this and the predecessor's end: the original clears O_NONBLOCK while it starts a
    // successor, and would sleep in accept for ever if it then lost a race for a connection.
    let pid = started(&mut group);
    let server = group.claims(2);
    assert_eq!(server.number(), pid);
    assert_eq!(server.var("LISTEN_PID"), None, "the original sets none");
    go.signal(Signal::TERM);
    assert_eq!(go.end(), End::Exit(0));
    for (position, place) in places.iter().enumerate() {
        let fd = 3 + position as i32;
        place.is_served_by(server.number());
        assert_eq!(server.socket(fd), Some(inodes[position]));
        assert!(server.flags(fd) & OFlags::NONBLOCK.bits() != 0, "{place} blocks");
    }
    assert_eq!(places.map(Place::inode), inodes);

    for signal in [Signal::USR2, Signal::HUP] {
        let server = Process::of(places[0].ask().unwrap());
        server.signal(signal);
        let next = group.claims(2);
        if signal == Signal::USR2 {
            assert_eq!(server.end(), End::Exit(0));
        }
        places.iter().for_each(|place| place.is_served_by(next.number()));
    }
    assert_eq!(places.map(Place::inode), inodes);
}

/// From the role, which waits for as much as `readiness` says, to the Go server.
fn successor(programs: &Programs, readiness: &str) {
    let directory = tempfile::tempdir().unwrap();
    let places = [&Place::tcp(), &Place::Unix(directory.path().join("socket"))];
    let mut predecessor = Predecessor::start(&[("web", places[0]), ("admin", places[1])]);
    let inodes = places.map(Place::inode);
    let args = places.map(Place::argument);
    let go = predecessor.spawn(readiness, programs.go(), &[&args[0], &args[1]]);
    assert_eq!(predecessor.group.find("outcome "), "ready");
    assert_eq!(predecessor.group.find("ready pid="), go.number().to_string());
    predecessor.group.hang_up();
    assert_eq!(predecessor.group.leader.end(), End::Exit(0));
    for (place, inode) in places.iter().zip(inodes) {
        place.is_served_by(go.number());
        assert!(go.sockets().contains(&inode));
        assert_eq!(place.inode(), inode);
    }
    go.signal(Signal::TERM);
    assert_eq!(go.end(), End::Exit(0));
}

fn successor_executed(programs: &Programs) {
    successor(programs, "executed");
}

fn successor_still_alive(programs: &Programs) {
    successor(programs, "alive");
}

/// SIGHUP makes `serve` execute what its first argument names by now: the Go server, under the same PID.
fn successor_in_place_of_serve(programs: &Programs) {
    let deployed = Deployed::new(&programs.serve());
    let places = [&Place::tcp(), &deployed.unix()];
    let mut group = Group::start(&mut deployed.command(&places));
    let server = Process::of(group.ready().pid);
    let inodes = places.map(Place::inode);
    deployed.deploy(programs.go());
    server.signal(Signal::HUP);
    let go = go_ready(&mut group);
    assert_eq!(go.number(), server.number());
    places.iter().for_each(|place| place.is_served_by(go.number()));
    assert_eq!(places.map(Place::inode), inodes);
    assert!(inodes.iter().all(|inode| go.sockets().contains(inode)));
}

/// A few lines make a program in any language report; then nothing is lost.
fn successor_that_reports_under_load(programs: &Programs) {
    let deployed = Deployed::new(&programs.serve());
    let places = [Place::tcp(), deployed.unix()];
    let both = [&places[0], &places[1]];
    let mut group = Group::start(deployed.command(&both).env("GRACE_REPORT", "1"));
    let server = Process::of(group.ready().pid);
    let inodes = both.map(Place::inode);
    let load = Load::start(&places);
    deployed.deploy(programs.go());
    server.signal(Signal::USR2);
    let go = go_ready(&mut group);
    assert_eq!(server.end(), End::Exit(0));
    both.iter().for_each(|place| place.is_served_by(go.number()));
    let answered = load.finish();
    let pids = [server.number(), go.number()];
    assert!(answered.keys().all(|pid| pids.contains(pid)), "{answered:?} by other than {pids:?}");
    assert_eq!(both.map(Place::inode), inodes);
}

/// `serve` waits for a report, and the original makes none: it is killed at the deadline, and `serve` goes on.
fn successor_that_does_not_report(programs: &Programs) {
    let deployed = Deployed::new(&programs.serve());
    let place = Place::tcp();
    let mut group = Group::start(deployed.command(&[&place]).arg("--ready-timeout=1"));
    let server = Process::of(group.ready().pid);
    let inode = place.inode();
    deployed.deploy(programs.go());
    server.signal(Signal::USR2);
    let go = go_ready(&mut group);
    group.complaint("restart failed: successor was not ready at the deadline");
    assert!(go.is_gone());
    place.is_served_by(server.number());
    deployed.deploy(&programs.serve());
    server.signal(Signal::USR2);
    let successor = group.claims(1);
    assert_eq!(server.end(), End::Exit(0));
    place.is_served_by(successor.number());
    assert_eq!(place.inode(), inode);
}

/// Started by a manager or by this crate, the original hands the `LISTEN_PID` on that was its own. By the
/// protocol that means no descriptors for the next: `serve` cannot tell, opens its own and is refused; the
/// original serves on.
fn passes_a_stale_pid_on(programs: &Programs) {
    let deployed = Deployed::new(&programs.serve());
    let place = Place::tcp();
    let mut group = Group::start(&mut deployed.command(&[&place]));
    let server = Process::of(group.ready().pid);
    deployed.deploy(programs.go());
    server.signal(Signal::HUP);
    let go = go_ready(&mut group);
    let inode = place.inode();
    deployed.deploy(&programs.serve());
    go.signal(Signal::USR2);
    started(&mut group);
    group.complaint("address in use");
    place.is_served_by(go.number());
    assert_eq!(place.inode(), inode);
}

/// The same with an original that unsets it: from `serve` to Go and back.
fn there_and_back(programs: &Programs) {
    let deployed = Deployed::new(&programs.serve());
    let places = [&Place::tcp(), &deployed.unix()];
    let mut group = Group::start(deployed.command(&places).env("GRACE_REPORT", "1").env("GRACE_UNSET", "1"));
    let mut server = Process::of(group.ready().pid);
    let inodes = places.map(Place::inode);
    for _ in 0..3 {
        deployed.deploy(programs.go());
        server.signal(Signal::USR2);
        let go = go_ready(&mut group);
        assert_eq!(server.end(), End::Exit(0));
        places.iter().for_each(|place| place.is_served_by(go.number()));

        deployed.deploy(&programs.serve());
        go.signal(Signal::USR2);
        started(&mut group);
        server = group.claims(2);
        go.signal(Signal::TERM);
        assert_eq!(go.end(), End::Exit(0));
        places.iter().for_each(|place| place.is_served_by(server.number()));
    }
    assert_eq!(places.map(Place::inode), inodes);
}
