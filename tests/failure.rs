//! What a failed call leaves behind: nothing. The descriptors of the process are counted, so it is one test,
//! alone in its process, and one thread.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::std_instead_of_core,
    unsafe_code,
    reason = "tests"
)]

mod common;

use common::{inherited, local_of};
use gracenet::{Error, ListenOptions, Net};
use rustix::io::Errno;
use rustix::net::SocketAddrUnix;
use std::collections::BTreeMap;
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;

/// Every descriptor of the process, and what it is open on; but for the one that reads the list.
fn descriptors() -> BTreeMap<i32, PathBuf> {
    let entries = std::fs::read_dir("/proc/self/fd").unwrap().map(|entry| entry.unwrap().path());
    let links: Vec<_> = entries.map(|path| (path.clone(), std::fs::read_link(path))).collect();
    let number = |path: PathBuf| path.file_name().unwrap().to_str().unwrap().parse().unwrap();
    let is_list = |target: &PathBuf| target.starts_with("/proc") && target.ends_with("fd");
    links
        .into_iter()
        .filter_map(|(path, target)| Some((number(path), target.ok()?)))
        .filter(|(_, target)| !is_list(target))
        .collect()
}

#[test]
fn a_failed_call_closes_what_it_opened_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let live = UnixListener::bind(path("live")).unwrap();
    std::fs::write(path("file"), "").unwrap();
    let live_address = SocketAddrUnix::new(path("live")).unwrap();
    let refuse = |_: BorrowedFd<'_>| Err(Errno::PERM);
    let connect = |fd: BorrowedFd<'_>| rustix::net::connect(fd, &live_address);
    let plain = ListenOptions::new();
    let replace = ListenOptions::new().replace_stale(true).mode(0o600);

    let mut net: Net<3> = inherited(&[&live]);
    let id = net.listen("tcp", "127.0.0.1:0").unwrap();
    let taken = local_of(&net, id).to_string();
    let mut full = Net::<0>::new();
    let paths = || std::fs::read_dir(dir.path()).unwrap().count();
    let (fds, files) = (descriptors(), paths());
    for (network, address, options, what) in [
        ("foo", "", &plain, "no such network"),
        ("tcp", "example.org:80", &plain, "no such address"),
        ("tcp", &taken, &plain, "in use"),
        ("udp", "192.0.2.254:0", &plain, "not of this machine"),
        ("tcp", "[fe80::1%no-such-if]:0", &plain, "no such zone"),
        ("tcp", "127.0.0.1:0", &ListenOptions::new().configure(&refuse), "configure refuses"),
        ("unix", &path("new"), &ListenOptions::new().configure(&refuse), "configure refuses"),
        ("unix", &path("new"), &ListenOptions::new().mode(0o600).configure(&connect), "listen fails"),
        ("unixpacket", &path("live"), &plain, "in use"),
        ("unixpacket", &path("live"), &replace, "live"),
        ("unix", &path("file"), &replace, "not a socket"),
        ("unix", &path("missing/new"), &replace, "no such directory"),
        ("tcp", "127.0.0.1:0", &ListenOptions::new().name("a:b"), "no such name"),
    ] {
        net.listen_with(network, address, options).unwrap_err();
        assert_eq!(descriptors(), fds, "{what}");
        assert_eq!(paths(), files, "{what}");
        assert_eq!((net.active().count(), net.inherited().count()), (1, 1), "{what}");
        let error = full.listen_with(network, address, options).unwrap_err();
        assert_eq!(descriptors(), fds, "full: {what}");
        assert_eq!(paths(), files, "full: {what}");
        if !matches!(error, Error::UnknownNetwork(_) | Error::Address(_) | Error::Name(_)) {
            assert!(matches!(error, Error::Capacity { needed: 1, capacity: 0, .. }), "{what}: {error:?}");
        }
        net.claim("tcp", address).unwrap_err();
        net.claim_name("other").unwrap_err();
        assert_eq!(descriptors(), fds, "claim: {what}");
    }
    assert!(net.claim("unix", &path("live")).is_ok());
    assert_eq!(descriptors(), fds, "claiming moves, and opens nothing");
    drop(live);
}
