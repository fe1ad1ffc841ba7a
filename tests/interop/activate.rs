//! `systemd-socket-activate` starts `serve`, which then restarts.

use std::collections::BTreeSet;
use std::process::Command;

use rustix::fs::OFlags;
use rustix::process::Signal;

use crate::Test;
use crate::client::{Load, Place};
use crate::process::{End, Group};
use crate::programs::{Need, Programs};

const NEEDS: &[Need] = &[Need::SocketActivate];

pub(crate) const TESTS: &[Test] = &[
    Test { name: "activate::one_tcp_socket", needs: NEEDS, run: one_tcp_socket },
    Test { name: "activate::names_in_another_order", needs: NEEDS, run: names_in_another_order },
    Test { name: "activate::one_name_for_two", needs: NEEDS, run: one_name_for_two },
    Test { name: "activate::unix_socket", needs: NEEDS, run: unix_socket },
    Test { name: "activate::unix_packet_socket", needs: NEEDS, run: unix_packet_socket },
    Test { name: "activate::udp_socket", needs: NEEDS, run: udp_socket },
    Test { name: "activate::unix_datagram_socket", needs: NEEDS, run: unix_datagram_socket },
    Test { name: "activate::unclaimed_socket", needs: NEEDS, run: unclaimed_socket },
    Test { name: "activate::restarts_under_load", needs: NEEDS, run: restarts_under_load },
    Test { name: "activate::signals_during_requests", needs: NEEDS, run: signals_during_requests },
    Test { name: "activate::burst_then_silence", needs: NEEDS, run: burst_then_silence },
];

/// Has the manager listen on `places` and start `serve` with `args`, which happens when the first request
/// comes; `options` are the manager's.
fn activate(programs: &Programs, options: &[&str], places: &[&Place], args: &[String]) -> Group {
    let mut command = Command::new("systemd-socket-activate");
    command.args(options);
    for place in places {
        let argument = place.argument();
        command.arg("-l").arg(argument.rsplit('=').next().unwrap());
    }
    let mut group = Group::start(command.arg(programs.serve()).args(args));
    for _ in places {
        group.complaint("Listening on ");
    }
    group
}

fn arguments(places: &[&Place]) -> Vec<String> {
    places.iter().map(|place| place.argument()).collect()
}

/// One socket at `place`: claimed, served, and the same one after both kinds of restart.
fn one_socket(programs: &Programs, options: &[&str], place: &Place) {
    let mut group = activate(programs, options, &[place], &arguments(&[place]));
    let inode = place.inode();
    // The manager executes the server and keeps its PID.
    place.is_served_by(group.leader.number());
    let server = group.claims(1);
    assert_eq!(server.number(), group.leader.number());
    assert_eq!(server.socket(3), Some(inode));

    server.signal(Signal::USR2);
    let successor = group.claims(1);
    assert_ne!(successor.number(), server.number());
    assert_eq!(server.end(), End::Exit(0));
    place.is_served_by(successor.number());
    assert_eq!(successor.socket(3), Some(inode));

    successor.signal(Signal::HUP);
    assert_eq!(group.claims(1).number(), successor.number());
    place.is_served_by(successor.number());
    assert_eq!(successor.socket(3), Some(inode));
    assert_eq!(place.inode(), inode);

    successor.signal(Signal::TERM);
    assert_eq!(successor.end(), End::Exit(0));
}

fn one_tcp_socket(programs: &Programs) {
    one_socket(programs, &[], &Place::tcp());
}

fn unix_socket(programs: &Programs) {
    let directory = tempfile::tempdir().unwrap();
    one_socket(programs, &[], &Place::Unix(directory.path().join("socket")));
}

fn unix_packet_socket(programs: &Programs) {
    let directory = tempfile::tempdir().unwrap();
    one_socket(programs, &["--seqpacket"], &Place::Packet(directory.path().join("socket")));
}

fn udp_socket(programs: &Programs) {
    one_socket(programs, &["--datagram"], &Place::udp());
}

fn unix_datagram_socket(programs: &Programs) {
    let directory = tempfile::tempdir().unwrap();
    one_socket(programs, &["--datagram"], &Place::Gram(directory.path().join("socket")));
}

/// Claimed by address, whatever the order, each with the name it came with, also for the successor.
fn names_in_another_order(programs: &Programs) {
    let directory = tempfile::tempdir().unwrap();
    let [a, b, c] = [Place::tcp(), Place::Unix(directory.path().join("socket")), Place::tcp()];
    let asked = [&c, &a, &b];
    let mut group = activate(programs, &["--fdname=first:second:third"], &[&a, &b, &c], &arguments(&asked));
    let inodes = asked.map(Place::inode);
    a.is_served_by(group.leader.number());
    let mut server = group.claims(3);
    assert_eq!(server.var("LISTEN_FDNAMES").as_deref(), Some("first:second:third"));
    for signal in [Signal::USR2, Signal::HUP, Signal::USR2] {
        server.signal(signal);
        let next = group.claims(3);
        if signal == Signal::USR2 {
            assert_eq!(server.end(), End::Exit(0));
        }
        server = next;
        for (position, place) in asked.iter().enumerate() {
            place.is_served_by(server.number());
            assert_eq!(server.socket(3 + position as i32), Some(inodes[position]));
        }
        assert_eq!(server.var("LISTEN_FDNAMES").as_deref(), Some("third:first:second"));
        assert_eq!(server.var("LISTEN_PID"), Some(server.number().to_string()));
    }
    assert_eq!(asked.map(Place::inode), inodes);
}

/// The manager gives one name to all sockets, and the server asks for that name: the address decides.
fn one_name_for_two(programs: &Programs) {
    let [a, b] = [Place::tcp(), Place::tcp()];
    let args = [vec!["--name".to_owned(), "web".to_owned()], arguments(&[&b, &a])].concat();
    let mut group = activate(programs, &["--fdname=web"], &[&a, &b], &args);
    let inodes = [b.inode(), a.inode()];
    b.is_served_by(group.leader.number());
    let server = group.claims(2);
    assert_eq!(server.var("LISTEN_FDNAMES").as_deref(), Some("web:web"));
    server.signal(Signal::USR2);
    let successor = group.claims(2);
    assert_eq!(server.end(), End::Exit(0));
    assert_eq!([3, 4].map(|fd| successor.socket(fd).unwrap()), inodes);
    assert_eq!(successor.var("LISTEN_FDNAMES").as_deref(), Some("web:web"));
    for place in [a, b] {
        place.is_served_by(successor.number());
    }
}

/// A socket that the server has no use for is closed, and a connection to it refused, not swallowed.
fn unclaimed_socket(programs: &Programs) {
    let [a, b] = [Place::tcp(), Place::tcp()];
    let mut group = activate(programs, &[], &[&a, &b], &arguments(&[&b]));
    let unclaimed = a.inode();
    b.is_served_by(group.leader.number());
    let server = group.claims(1);
    assert!(!server.sockets().contains(&unclaimed));
    assert_eq!(a.ask().unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
    b.is_served_by(server.number());
}

/// Both kinds of restart while clients ask without pause: every request is answered, by the same sockets.
fn restarts_under_load(programs: &Programs) {
    let directory = tempfile::tempdir().unwrap();
    let places = [Place::tcp(), Place::Unix(directory.path().join("socket"))];
    let [a, b] = &places;
    let mut group = activate(programs, &["--fdname=web:admin"], &[a, b], &arguments(&[a, b]));
    let inodes = [a.inode(), b.inode()];
    let load = Load::start(&places);
    let mut server = group.claims(2);
    let mut pids = BTreeSet::from([server.number()]);
    for signal in [Signal::USR2, Signal::HUP].repeat(6) {
        server.signal(signal);
        let next = group.claims(2);
        assert_eq!(next.number() == server.number(), signal == Signal::HUP);
        if signal == Signal::USR2 {
            assert_eq!(server.end(), End::Exit(0));
        }
        // So that each generation has something to do.
        places.iter().for_each(|place| place.is_served_by(next.number()));
        pids.insert(next.number());
        server = next;
    }
    let answered = load.finish();
    assert!(answered.keys().all(|pid| pids.contains(pid)), "{answered:?} by other than {pids:?}");
    assert_eq!([a.inode(), b.inode()], inodes);
    assert_eq!([3, 4].map(|fd| server.socket(fd).unwrap()), inodes);
}

/// A signal may reach any thread, one that reads a request included.
fn signals_during_requests(programs: &Programs) {
    let place = Place::tcp();
    let mut group = activate(programs, &[], &[&place], &arguments(&[&place]));
    place.is_served_by(group.leader.number());
    let server = group.claims(1);
    let begun: Vec<_> = (0..8).map(|_| place.begin().unwrap()).collect();
    // Those before it in the queue are accepted by then.
    place.is_served_by(server.number());
    server.signal(Signal::USR2);
    let successor = group.claims(1);
    // It drains, and does nothing else for a signal.
    server.signal_threads(Signal::USR2);
    for begun in begun {
        assert_eq!(begun.finish().unwrap(), server.number());
    }
    assert_eq!(server.end(), End::Exit(0));
    place.is_served_by(successor.number());
}

/// Predecessor and successor wake up for the same connection, and one of them finds it gone. On a socket that
/// blocks, as the manager hands it over, it would sleep in accept until the next one, and not leave.
fn burst_then_silence(programs: &Programs) {
    const ROUNDS: usize = 40;
    let place = Place::tcp();
    let mut group = activate(programs, &[], &[&place], &arguments(&[&place]));
    place.is_served_by(group.leader.number());
    let mut server = group.claims(1);
    for round in 0..ROUNDS {
        assert!(server.flags(3) & OFlags::NONBLOCK.bits() != 0, "round {round}: the listener blocks");
        // Each client falls silent with the first answer of the successor's: that was the connection the
        // predecessor may have lost, and no other will wake it.
        let (pid, clients) = (server.number(), 1 + round % 4);
        let client = |_| {
            let place = place.clone();
            std::thread::spawn(move || while place.ask().unwrap() == pid {})
        };
        let clients: Vec<_> = (0..clients).map(client).collect();
        server.signal(Signal::USR2);
        clients.into_iter().for_each(|client| client.join().unwrap());
        let successor = group.claims(1);
        assert_eq!(server.end(), End::Exit(0), "round {round}");
        server = successor;
    }
    place.is_served_by(server.number());
}
