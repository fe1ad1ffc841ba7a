//! Tests version skew: `serve` of an older release is predecessor and successor of the current `serve`, under load.
//!
//! The older `serve` is built from its commit. The tests use only the parts of `serve` that every later version keeps:
//! the arguments, the signals, the requests, the line that says ready, and the messages to a service manager.

use std::collections::BTreeSet;
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use rustix::io::Errno;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};
use rustix::process::Signal;
use tempfile::TempDir;

use crate::Test;
use crate::client::{Load, Place};
use crate::process::{End, Group, Process, readable};
use crate::programs::{Deployed, Need, Programs};

const NEEDS: &[Need] = &[Need::Older];

pub(crate) const TESTS: &[Test] = &[
    Test { name: "older::predecessor_by_spawn", needs: NEEDS, run: predecessor_by_spawn },
    Test { name: "older::successor_by_spawn", needs: NEEDS, run: successor_by_spawn },
    Test { name: "older::predecessor_by_exec", needs: NEEDS, run: predecessor_by_exec },
    Test { name: "older::successor_by_exec", needs: NEEDS, run: successor_by_exec },
    Test { name: "older::there_and_back", needs: NEEDS, run: there_and_back },
    Test { name: "older::predecessor_under_a_manager", needs: NEEDS, run: predecessor_under_a_manager },
    Test { name: "older::successor_under_a_manager", needs: NEEDS, run: successor_under_a_manager },
];

fn predecessor_by_spawn(programs: &Programs) {
    replace(Way::Spawn, programs.serve_of_older(), &programs.serve());
}

fn successor_by_spawn(programs: &Programs) {
    replace(Way::Spawn, &programs.serve(), programs.serve_of_older());
}

fn predecessor_by_exec(programs: &Programs) {
    replace(Way::Exec, programs.serve_of_older(), &programs.serve());
}

fn successor_by_exec(programs: &Programs) {
    replace(Way::Exec, &programs.serve(), programs.serve_of_older());
}

fn predecessor_under_a_manager(programs: &Programs) {
    replace_under_a_manager(programs.serve_of_older(), &programs.serve());
}

fn successor_under_a_manager(programs: &Programs) {
    replace_under_a_manager(&programs.serve(), programs.serve_of_older());
}

/// Alternates the two programs by spawn and by exec, 12 restarts in all.
fn there_and_back(programs: &Programs) {
    let (older, newer) = (programs.serve_of_older(), programs.serve());
    let mut service = Service::start(older, None);
    for _ in 0..3 {
        for way in [Way::Spawn, Way::Exec] {
            service.restart(way, &newer);
            service.restart(way, older);
        }
    }
    service.finish();
}

/// Replaces the first program by the second, and the second by itself. The second restart hands on what the first one
/// has handed over.
fn replace(way: Way, first: &Path, second: &Path) {
    let mut service = Service::start(first, None);
    service.restart(way, second);
    service.restart(way, second);
    service.finish();
}

/// Replaces as [`replace`] does, by spawn and under a service manager. Checks that the manager receives each message
/// once, and from the right process.
fn replace_under_a_manager(first: &Path, second: &Path) {
    let mut service = Service::start(first, Some(Manager::new()));
    service.restart(Way::Spawn, second);
    service.restart(Way::Spawn, second);
    service.finish();
}

/// How `serve` is restarted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Way {
    Spawn,
    Exec,
}

/// A `serve` on three sockets, and its clients.
struct Service {
    /// Is the first field, so that a test that fails ends the load before the servers.
    load: Load,
    group: Group,
    server: Process,
    deployed: Deployed,
    places: [Place; 3],
    inodes: [u64; 3],
    pids: BTreeSet<i32>,
    manager: Option<Manager>,
}

impl Service {
    #[track_caller]
    fn start(program: &Path, manager: Option<Manager>) -> Self {
        let deployed = Deployed::new(program);
        let places = [Place::tcp(), deployed.unix(), Place::udp()];
        let [web, admin, names] = &places;
        let mut command = deployed.command(&[web, admin, names]);
        command.args(["--name=web", "--name=admin", "--name=names"]);
        match &manager {
            // `--fd-store` adds a descriptor that the successor finds by its name alone.
            Some(manager) => {
                command.arg("--fd-store").env("NOTIFY_SOCKET", manager.directory.path().join("notify"))
            }
            None => command.env_remove("NOTIFY_SOCKET"),
        };
        let mut group = Group::start(&mut command);
        let ready = group.ready();
        assert_eq!(ready.counts, Some((0, places.len())));
        let server = Process::of(ready.pid);
        runs(&server, program);
        let (inodes, pids) = (places.each_ref().map(Place::inode), BTreeSet::from([ready.pid]));
        let load = Load::start(&places);
        load.goes_on();
        let service = Self { load, group, server, deployed, places, inodes, pids, manager };
        if let Some(manager) = &service.manager {
            manager.begin(ready.pid);
        }
        service
    }

    /// Deploys the program, restarts the running server, and checks the one that serves after that.
    #[track_caller]
    fn restart(&mut self, way: Way, program: &Path) {
        self.deployed.deploy(program);
        let begun = self.places[0].begin().unwrap();
        // The server accepts `begun` before this request, in the order of the queue.
        self.places[0].is_served_by(self.server.number());
        let pid = self.server.number();
        match way {
            Way::Spawn => {
                self.server.signal(Signal::USR2);
                let successor = self.group.claims(self.places.len());
                assert_ne!(successor.number(), pid, "the successor is the predecessor");
                assert!(self.pids.insert(successor.number()));
                if let Some(manager) = &self.manager {
                    manager.hand_over(pid, &successor);
                }
                // The predecessor answers the request that it has accepted, and exits after that.
                assert_eq!(begun.finish().unwrap(), pid);
                assert_eq!(self.server.end(), End::Exit(0));
                self.server = successor;
            }
            Way::Exec => {
                self.server.signal(Signal::HUP);
                assert_eq!(begun.finish().unwrap(), pid);
                assert_eq!(self.group.claims(self.places.len()).number(), pid, "another process");
            }
        }
        runs(&self.server, program);
        let sockets = self.server.sockets();
        assert!(self.inodes.iter().all(|inode| sockets.contains(inode)), "{:?} of {sockets:?}", self.inodes);
        let names = self.server.var("LISTEN_FDNAMES").unwrap_or_default();
        let missing = ["web", "admin", "names"].iter().find(|name| !names.split(':').any(|n| n == **name));
        assert_eq!(missing, None, "not in {names:?}");
        self.load.goes_on();
        self.places.iter().for_each(|place| place.is_served_by(self.server.number()));
    }

    /// Checks that no request has failed, and that the last server exits with 0.
    #[track_caller]
    fn finish(self) {
        let answered = self.load.finish();
        let answering = answered.keys().copied().collect();
        assert_eq!(self.pids, answering, "each generation, and nobody else, is to answer: {answered:?}");
        // This check reads all rows of the kernel's table, and recent connections have one each: it is slow under load.
        assert_eq!(self.places.each_ref().map(Place::inode), self.inodes, "not the first one's sockets");
        self.server.signal(Signal::TERM);
        assert_eq!(self.server.end(), End::Exit(0));
        if let Some(manager) = self.manager {
            manager.expect(self.server.number(), "STOPPING=1");
            // All senders have ended, so nothing more can arrive.
            assert_eq!(manager.receive(), None);
        }
    }
}

/// Checks which program the process executes.
#[track_caller]
fn runs(process: &Process, program: &Path) {
    assert_eq!(process.program(), program.canonicalize().unwrap(), "{process} runs another program");
}

/// A stand-in for a service manager.
struct Manager {
    directory: TempDir,
    socket: UnixDatagram,
}

/// A message: its sender, its text without status lines, and the number of its descriptors, which are closed.
type Received = (i32, String, usize);

impl Manager {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let socket = UnixDatagram::bind(directory.path().join("notify")).unwrap();
        rustix::net::sockopt::set_socket_passcred(&socket, true).unwrap();
        Self { directory, socket }
    }

    /// Returns the next message, if there is one. Passes over a message that is a status line alone, unless the line
    /// reports a failure.
    fn receive(&self) -> Option<Received> {
        loop {
            let mut bytes = [0; 8192];
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8), ScmCredentials(1))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let mut slices = [IoSliceMut::new(&mut bytes)];
            let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
            let len = match rustix::net::recvmsg(&self.socket, &mut slices, &mut control, flags) {
                Ok(message) => message.bytes,
                Err(Errno::AGAIN) => return None,
                Err(errno) => panic!("{errno}"),
            };
            let (mut sender, mut fds) = (0, Vec::<OwnedFd>::new());
            for message in control.drain() {
                match message {
                    RecvAncillaryMessage::ScmRights(rights) => fds.extend(rights),
                    RecvAncillaryMessage::ScmCredentials(who) => sender = who.pid.as_raw_nonzero().get(),
                    _ => {}
                }
            }
            let text = std::str::from_utf8(&bytes[..len]).unwrap();
            assert!(!text.contains("STATUS=restart failed"), "{sender}: {text}");
            let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with("STATUS=")).collect();
            if !lines.is_empty() || !fds.is_empty() {
                return Some((sender, lines.join("\n"), fds.len()));
            }
        }
    }

    /// Waits for the next message and returns it.
    #[track_caller]
    fn wait(&self) -> Received {
        loop {
            assert!(readable(&self.socket), "the manager hears nothing");
            if let Some(received) = self.receive() {
                return received;
            }
        }
    }

    /// Checks the messages of the first server: it is ready, and stores every descriptor that it has opened. A successor
    /// inherits all of them and stores nothing.
    #[track_caller]
    fn begin(&self, pid: i32) {
        let stored =
            ["web", "admin", "names", "state"].map(|name| (pid, format!("FDSTORE=1\nFDNAME={name}"), 1));
        let expected: BTreeSet<_> = stored.into_iter().chain([(pid, "READY=1".to_owned(), 0)]).collect();
        let received: Vec<_> = expected.iter().map(|_| self.wait()).collect();
        assert_eq!(received.into_iter().collect::<BTreeSet<_>>(), expected);
    }

    /// Checks that the next message is this one, without descriptors.
    #[track_caller]
    fn expect(&self, sender: i32, message: &str) {
        assert_eq!(self.wait(), (sender, message.to_owned(), 0));
    }

    /// Checks the messages of a predecessor: it reloads, names the new main process, and waits at the barrier. Closes
    /// the descriptor of the barrier, which is the answer.
    #[track_caller]
    fn hand_over(&self, predecessor: i32, successor: &Process) {
        let pid = successor.number();
        let (sender, reload, fds) = self.wait();
        let time = reload.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").map(str::parse::<u64>);
        assert!(matches!((sender == predecessor, time, fds), (true, Some(Ok(_)), 0)), "{sender}: {reload}");
        let (sender, announcement, fds) = self.wait();
        let (id, rest): (Vec<_>, Vec<_>) =
            announcement.lines().partition(|line| line.starts_with("MAINPIDFDID="));
        assert_eq!((sender, rest.join("\n"), fds), (predecessor, format!("MAINPID={pid}\nREADY=1"), 0));
        // Where this test has no number to compare with, a `serve` of 64 bits may have one.
        if let Some(number) = successor.pidfd_id() {
            assert_eq!(id, [format!("MAINPIDFDID={number}")]);
        }
        assert_eq!(self.wait(), (predecessor, "BARRIER=1".to_owned(), 1));
    }
}
