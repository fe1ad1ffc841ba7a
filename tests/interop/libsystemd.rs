//! Programs in C: a successor on libsystemd, and a predecessor without any library.

use std::collections::BTreeMap;
use std::process::Command;

use rustix::process::Signal;

use crate::Test;
use crate::client::Place;
use crate::predecessor::Predecessor;
use crate::process::{End, Group, Process};
use crate::programs::{Need, Programs};

pub(crate) const TESTS: &[Test] = &[
    Test { name: "libsystemd::successor", needs: &[Need::C, Need::Libsystemd], run: successor },
    Test { name: "libsystemd::successor_in_place", needs: &[Need::C, Need::Libsystemd], run: in_place },
    Test { name: "by_hand::predecessor_of_serve", needs: &[Need::C], run: predecessor_of_serve },
    Test { name: "by_hand::another_pid", needs: &[Need::C], run: another_pid },
];

/// What the successor on libsystemd has to say about three sockets, and what the kernel says about it.
fn check(group: &mut Group, successor: &Process, places: &[&Place; 3], names: [&str; 3], fds: &[String; 3]) {
    let inodes = places.map(Place::inode);
    assert_eq!(group.line(), "count 3");
    for (position, (place, name)) in places.iter().zip(names).enumerate() {
        assert_eq!(group.line(), format!("fd {} listening=1 name={name} address={place}", 3 + position));
    }
    assert_eq!(group.line(), "ready");

    assert_eq!(successor.var("LISTEN_PID"), Some(successor.number().to_string()));
    assert_eq!(successor.var("LISTEN_FDS").as_deref(), Some("3"));
    assert_eq!(successor.var("LISTEN_FDNAMES"), Some(names.join(":")));
    assert_eq!(successor.var("LISTEN_READY_FD"), None);
    assert_eq!(successor.var("LISTEN_PIDFDID"), successor.pidfd_id().map(|id| id.to_string()));
    let stdio = (0..).zip(fds.iter().cloned());
    let sockets = (3..).zip(inodes.iter().map(|inode| format!("socket:[{inode}]")));
    assert_eq!(successor.fds(), stdio.chain(sockets).collect::<BTreeMap<_, _>>());

    places[0].is_served_by(successor.number());
    assert!(successor.is_gone());
}

/// Stdin, stdout and stderr of a process.
fn stdio(process: &Process) -> [String; 3] {
    let fds = process.fds();
    [0, 1, 2].map(|fd| fds[&fd].clone())
}

/// Names that a parser might stumble over.
const NAMES: [&str; 3] = ["web", "", "two words, =%"];

fn successor(programs: &Programs) {
    let directory = tempfile::tempdir().unwrap();
    let places = [&Place::tcp(), &Place::Unix(directory.path().join("socket")), &Place::tcp()];
    let listeners: Vec<_> = NAMES.into_iter().zip(places).collect();
    let mut predecessor = Predecessor::start(&listeners);
    let fds = stdio(&predecessor.group.leader);
    // More than one, from a predecessor that serves on.
    for _ in 0..2 {
        let successor = predecessor.spawn("executed", programs.listen_fds(), &[]);
        assert_eq!(predecessor.group.find("outcome "), "ready");
        check(&mut predecessor.group, &successor, &places, NAMES, &fds);
        predecessor.serves();
    }
}

fn in_place(programs: &Programs) {
    let directory = tempfile::tempdir().unwrap();
    let places = [&Place::tcp(), &Place::Unix(directory.path().join("socket")), &Place::tcp()];
    let listeners: Vec<_> = NAMES.into_iter().zip(places).collect();
    let mut predecessor = Predecessor::start(&listeners);
    let fds = stdio(&predecessor.group.leader);
    predecessor.group.tell(&["exec", programs.listen_fds().to_str().unwrap()]);
    let same = Process::of(predecessor.ready.pid);
    check(&mut predecessor.group, &same, &places, NAMES, &fds);
}

/// Has the predecessor by hand listen and execute `serve`.
fn by_hand(programs: &Programs, pid: &str, tcp: &Place, unix: &Place) -> Group {
    let (ip, port) = tcp.argument().split_once(':').map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
    let mut command = Command::new(programs.activate());
    command.args([pid, &ip, &port, &unix.argument()]).arg(programs.serve());
    Group::start(command.args([unix.argument(), tcp.argument()]))
}

fn predecessor_of_serve(programs: &Programs) {
    let directory = tempfile::tempdir().unwrap();
    let places = [&Place::tcp(), &Place::Unix(directory.path().join("socket"))];
    let mut group = by_hand(programs, "self", places[0], places[1]);
    let mut server = group.claims(2);
    assert_eq!(server.number(), group.leader.number());
    let inodes = places.map(Place::inode);
    assert_eq!([3, 4].map(|fd| server.socket(fd).unwrap()), inodes);
    for signal in [Signal::USR2, Signal::HUP] {
        server.signal(signal);
        let next = group.claims(2);
        if signal == Signal::USR2 {
            assert_eq!(server.end(), End::Exit(0));
        }
        server = next;
        places.iter().for_each(|place| place.is_served_by(server.number()));
        assert_eq!(server.var("LISTEN_FDNAMES").as_deref(), Some("admin:web"));
    }
    assert_eq!(places.map(Place::inode), inodes);
}

/// Sockets that are meant for another process are not claimed, although they are there.
fn another_pid(programs: &Programs) {
    let directory = tempfile::tempdir().unwrap();
    let places = [&Place::tcp(), &Place::Unix(directory.path().join("socket"))];
    let mut group = by_hand(programs, "1", places[0], places[1]);
    group.complaint("address in use");
    assert_eq!(group.leader.end(), End::Exit(1));
}
