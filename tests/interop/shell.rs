//! Shell scripts as successors: the report is a line of text, so any language can make it.

use rustix::process::Signal;

use crate::Test;
use crate::client::Place;
use crate::predecessor::Predecessor;
use crate::process::{End, Group, Process};
use crate::programs::{Deployed, Need, Programs, source};

pub(crate) const TESTS: &[Test] = &[
    Test { name: "shell::reports_ready", needs: &[], run: reports_ready },
    Test { name: "shell::reports_ready_on_a_high_fd", needs: &[Need::Bash], run: reports_ready_on_a_high_fd },
    Test { name: "shell::refuses", needs: &[], run: refuses },
    Test { name: "shell::wraps_serve", needs: &[], run: wraps_serve },
];

fn reports_ready(_: &Programs) {
    let place = Place::tcp();
    let mut predecessor = Predecessor::start(&[("web", &place)]);
    let script = source("sh/report.sh");
    // One that has reported and ended well was ready, whenever that is seen.
    for _ in 0..2 {
        assert_eq!(predecessor.outcome(&script, &["READY=1", "0"]), "ready");
    }
    predecessor.serves();
}

fn reports_ready_on_a_high_fd(_: &Programs) {
    let places: Vec<Place> = (0..8).map(|_| Place::tcp()).collect();
    let listeners: Vec<_> = places.iter().map(|place| ("web", place)).collect();
    let mut predecessor = Predecessor::start(&listeners);
    assert_eq!(predecessor.outcome(&source("sh/high.sh"), &[]), "ready");
    predecessor.serves();
}

/// Each failure is told apart, and costs the predecessor nothing.
fn refuses(_: &Programs) {
    let place = Place::tcp();
    let mut predecessor = Predecessor::start(&[("web", &place)]);
    let (script, inode) = (source("sh/report.sh"), place.inode());
    let mut fds = None;
    for (report, status, failure) in [
        ("ERRNO=13", "1", "gave up: permission denied"),
        ("CODE=7", "1", "gave up: code 7"),
        ("CODE=8", "0", "gave up: code 8"),
        ("READY=2", "stay", "sent an unknown report: \"READY=2\""),
        ("CODE=-1", "stay", "sent an unknown report: \"CODE=-1\""),
        ("close", "stay", "closed the readiness socket without a report"),
        ("", "3", "exited with status 3 before it was ready"),
        ("", "0", "exited with status 0 before it was ready"),
    ] {
        let outcome = predecessor.outcome(&script, &[report, status]);
        assert_eq!(outcome, format!("successor {failure}"), "after {report:?}, {status}");
        predecessor.serves();
        // The last successor's pidfd stays until the next is there.
        let mut now: Vec<_> = predecessor.group.leader.fds().into_values().collect();
        now.sort();
        assert_eq!(*fds.get_or_insert_with(|| now.clone()), now);
    }
    assert_eq!(predecessor.outcome(&script, &["READY=1", "0"]), "ready");
    assert_eq!(place.inode(), inode);
}

/// A script between predecessor and program: the successor is the process that the script was.
fn wraps_serve(programs: &Programs) {
    let place = Place::tcp();
    let deployed = Deployed::new(&programs.serve());
    let mut group = Group::start(deployed.command(&[&place]).env("SERVE", programs.serve()));
    let server = Process::of(group.ready().pid);
    let inode = place.inode();
    deployed.deploy(&source("sh/wrapper.sh"));
    server.signal(Signal::USR2);
    let successor = group.claims(1);
    assert_eq!(server.end(), End::Exit(0));
    place.is_served_by(successor.number());
    assert_eq!(successor.socket(3), Some(inode));
}
