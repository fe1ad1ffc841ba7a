//! Inherit, sentence by sentence: whom the variables are meant for, what they may hold, what is left behind
//! when they cannot be believed. The numbers inherited from are reserved ones, far from 3.
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

use common::{
    cookie, cookie_of, inherit_from, inherited, inherited_as, inode, is_open, launch, launch_of, local,
    place, place_at, reclaim, reserve, stack, vars,
};
use gracenet::Variable;
use gracenet::error::{Fault, Table};
use gracenet::{Error, InheritOptions, Launch, Net};
use rustix::fs::{MemfdFlags, Mode, OFlags};
use rustix::io::FdFlags;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::process::{PidfdFlags, getpid, pidfd_open};
use std::io::{Read, Seek, Write};
use std::net::{TcpListener, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::UnixListener;

/// One listener on a reserved number, without `FD_CLOEXEC`, as a service manager hands it over.
struct Passed {
    listener: TcpListener,
    first: RawFd,
}

impl Passed {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let first = place([listener.as_fd()]);
        rustix::io::fcntl_setfd(borrow(first), FdFlags::empty()).unwrap();
        Self { listener, first }
    }

    /// Nothing has touched the number: it can be had, and still has no flag.
    fn assert_untouched(&self) {
        assert_eq!(flags(self.first), FdFlags::empty());
        let fds = reclaim(self.first, 1);
        assert_eq!(cookie(&fds[0]), cookie(&self.listener));
    }
}

fn borrow(number: RawFd) -> BorrowedFd<'static> {
    // SAFETY: the test placed it and has not closed it.
    unsafe { BorrowedFd::borrow_raw(number) }
}

fn flags(number: RawFd) -> FdFlags {
    rustix::io::fcntl_getfd(borrow(number)).unwrap()
}

/// Inherits what was passed, with these variables and options; returns the result, and the launch after it.
fn attempt(passed: &Passed, vars: &[&str], options: InheritOptions) -> (Result<usize, Error>, Launch) {
    let mut launch = launch(vars);
    let mut net = Net::<4>::new();
    let result = inherit_from(&mut net, &mut launch, passed.first, options);
    if result == Ok(1) {
        let (_, socket) = net.inherited().next().unwrap();
        assert_eq!(cookie(socket), cookie(&passed.listener));
        assert_eq!(flags(passed.first), FdFlags::CLOEXEC);
    }
    (result, launch)
}

fn accepted(vars: &[&str], options: InheritOptions) {
    assert_eq!(attempt(&Passed::new(), vars, options).0, Ok(1), "{vars:?}");
}

fn none(vars: &[&str], options: InheritOptions) {
    let passed = Passed::new();
    assert_eq!(attempt(&passed, vars, options).0, Ok(0), "{vars:?}");
    passed.assert_untouched();
}

fn refused(vars: &[&str], variable: Variable, fault: Fault) {
    let passed = Passed::new();
    let (result, launch) = attempt(&passed, vars, InheritOptions::new());
    assert_eq!(result, Err(Error::Variable { variable, fault }), "{vars:?}");
    assert!(result.unwrap_err().to_string().starts_with(variable.name()));
    assert_eq!(common::vars(&launch), [""; 0], "{vars:?}");
    passed.assert_untouched();
}

fn own_pid() -> String {
    format!("LISTEN_PID={}", getpid())
}

fn other_pid() -> String {
    format!("LISTEN_PID={}", getpid().as_raw_nonzero().get() + 1)
}

#[test]
fn absent_variables_mean_none() {
    none(&[], InheritOptions::new());
    none(&["HOME=/"], InheritOptions::new());
    none(&["LISTEN_PID=1", "LISTEN_FDNAMES=a"], InheritOptions::new());
}

#[test]
fn an_absent_pid_is_accepted() {
    accepted(&["LISTEN_FDS=1"], InheritOptions::new());
}

#[test]
fn an_absent_pid_means_none_where_the_caller_is_strict() {
    none(&["LISTEN_FDS=1"], InheritOptions::new().strict(true));
    accepted(&["LISTEN_FDS=1", &own_pid()], InheritOptions::new().strict(true));
}

#[test]
fn the_own_pid_is_accepted() {
    accepted(&[&own_pid(), "LISTEN_FDS=1"], InheritOptions::new());
}

#[test]
fn another_pid_means_none_and_is_no_error_whatever_else_there_is() {
    none(&[&other_pid(), "LISTEN_FDS=1"], InheritOptions::new());
    none(&[&other_pid(), "LISTEN_FDS=a", "LISTEN_FDNAMES=a:b:c"], InheritOptions::new());
    none(&["LISTEN_PID=1", "LISTEN_FDS=1"], InheritOptions::new().strict(true));
}

#[test]
fn a_net_for_which_nothing_was_meant_listens_all_the_same() {
    let passed = Passed::new();
    let mut net = Net::<4>::new();
    let mut launch = launch(&[&other_pid(), "LISTEN_FDS=1"]);
    assert_eq!(inherit_from(&mut net, &mut launch, passed.first, InheritOptions::new()), Ok(0));
    net.listen("tcp", "127.0.0.1:0").unwrap();
    passed.assert_untouched();
}

#[test]
fn a_pid_that_cannot_be_read_is_an_error() {
    for (value, fault) in [
        ("", Fault::NotANumber),
        ("a", Fault::NotANumber),
        ("1a", Fault::NotANumber),
        (" 1", Fault::NotANumber),
        ("1 ", Fault::NotANumber),
        ("+1", Fault::NotANumber),
        ("0x1", Fault::NotANumber),
        ("-", Fault::NotANumber),
        ("-1", Fault::OutOfRange),
        ("0", Fault::OutOfRange),
        ("2147483648", Fault::OutOfRange),
        ("99999999999999999999999", Fault::OutOfRange),
    ] {
        refused(&[&format!("LISTEN_PID={value}"), "LISTEN_FDS=1"], Variable::Pid, fault);
    }
}

/// The inode of this process's pidfd; `None` where the kernel has no pidfs, or the number no room.
fn own_pidfd_id() -> Option<u64> {
    let pidfd = pidfd_open(getpid(), PidfdFlags::empty()).ok()?;
    let is_pidfs = rustix::fs::fstatfs(&pidfd).unwrap().f_type as u64 == 0x5049_4446;
    (is_pidfs && cfg!(target_pointer_width = "64")).then(|| rustix::fs::fstat(&pidfd).unwrap().st_ino)
}

#[test]
fn the_right_pidfd_id_is_accepted() {
    let id = format!("LISTEN_PIDFDID={}", own_pidfd_id().unwrap_or(42));
    accepted(&["LISTEN_FDS=1", &own_pid(), &id], InheritOptions::new());
    accepted(&["LISTEN_FDS=1", &own_pid(), &id], InheritOptions::new().strict(true));
}

#[test]
fn another_pidfd_id_means_none() {
    let Some(id) = own_pidfd_id() else {
        eprintln!("this kernel has no pidfs: nothing to compare with, so any id is accepted");
        accepted(&["LISTEN_FDS=1", &own_pid(), "LISTEN_PIDFDID=42"], InheritOptions::new());
        return;
    };
    let other = format!("LISTEN_PIDFDID={}", id + 1);
    none(&["LISTEN_FDS=1", &own_pid(), &other], InheritOptions::new());
    none(&["LISTEN_FDS=a", &own_pid(), &other], InheritOptions::new());
}

#[test]
fn a_pidfd_id_that_cannot_be_read_is_an_error() {
    refused(&["LISTEN_FDS=1", &own_pid(), "LISTEN_PIDFDID=x"], Variable::PidfdId, Fault::NotANumber);
    let large = "LISTEN_PIDFDID=18446744073709551616";
    refused(&["LISTEN_FDS=1", &own_pid(), large], Variable::PidfdId, Fault::OutOfRange);
}

#[test]
fn the_count_is_decimal_and_nothing_else() {
    none(&["LISTEN_FDS="], InheritOptions::new());
    none(&["LISTEN_FDS=0"], InheritOptions::new());
    accepted(&["LISTEN_FDS=1"], InheritOptions::new());
    for value in ["a", "1a", "+1", " 1", "1 ", "1\n", "0x1", "1.0", "-", "-a", "\u{661}"] {
        refused(&[&format!("LISTEN_FDS={value}")], Variable::Fds, Fault::NotANumber);
    }
    for value in ["-1", "-0", "2147483645", "2147483648", "18446744073709551617"] {
        refused(&[&format!("LISTEN_FDS={value}")], Variable::Fds, Fault::OutOfRange);
    }
}

#[test]
fn the_largest_count_is_measured_against_the_capacity() {
    let passed = Passed::new();
    let (result, _) = attempt(&passed, &["LISTEN_FDS=2147483644"], InheritOptions::new());
    assert_eq!(result, Err(Error::Capacity { table: Table::Inherited, needed: 2_147_483_644, capacity: 4 }));
    passed.assert_untouched();
}

/// The names that three inherited sockets get from this value.
fn names(value: Option<&str>) -> Vec<String> {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let net: Net<3> = inherited_as(&[&listener, &listener, &listener], value);
    net.inherited().map(|(_, socket)| socket.name().to_owned()).collect()
}

#[test]
fn names_are_split_at_colons_and_empty_ones_are_kept() {
    assert_eq!(names(Some("http:https:admin")), ["http", "https", "admin"]);
    assert_eq!(names(Some("::")), ["", "", ""]);
    assert_eq!(names(Some(":a:")), ["", "a", ""]);
}

#[test]
fn names_need_not_be_unique_and_may_be_the_managers_own() {
    assert_eq!(names(Some("a:a:a")), ["a", "a", "a"]);
    assert_eq!(names(Some("unknown:stored:connection")), ["unknown", "stored", "connection"]);
}

#[test]
fn absent_names_are_unknown() {
    assert_eq!(names(None), ["unknown"; 3]);
}

#[test]
fn names_are_printable_ascii_of_255_bytes_at_most() {
    let long = "~".repeat(255);
    assert_eq!(names(Some(&format!("{long}: !:a"))), [long.clone(), " !".to_owned(), "a".to_owned()]);
    for wrong in ["\t", "\u{7f}", "\u{1}", "é", &"x".repeat(256)] {
        refused(
            &["LISTEN_FDS=2", &format!("LISTEN_FDNAMES=a:{wrong}")],
            Variable::Names,
            Fault::InvalidName { position: 1 },
        );
    }
}

/// Whatever is inherited can be claimed, and handed on: names that a successor could not be told are an error before
/// anything is owned.
#[test]
fn more_bytes_of_names_than_fit_are_an_error_and_so_is_a_number_that_is_none() {
    let passed = Passed::new();
    let long = "n".repeat(255);
    // More than the 288 + 4 * 32 bytes that a table of 4 has for them.
    let line = format!("LISTEN_FDNAMES={long}:{long}");
    let (refused, _) = attempt(&passed, &["LISTEN_FDS=2", &line], InheritOptions::new());
    assert!(matches!(refused, Err(Error::Capacity { table: Table::Names, .. })), "{refused:?}");
    passed.assert_untouched();
    for first in [-1, i32::MIN, i32::MAX] {
        let result =
            inherit_from(&mut Net::<4>::new(), &mut launch(&["LISTEN_FDS=2"]), first, InheritOptions::new());
        assert_eq!(result, Err(Error::NotOpen { fd: first }));
    }
}

#[test]
fn there_is_one_name_for_each_descriptor() {
    for (value, names) in [("a:b", 2), ("a:", 2), ("::", 3)] {
        let line = format!("LISTEN_FDNAMES={value}");
        refused(&["LISTEN_FDS=1", &line], Variable::Names, Fault::NameCount { names, fds: 1 });
    }
    refused(&["LISTEN_FDS=2", "LISTEN_FDNAMES="], Variable::Names, Fault::NameCount { names: 1, fds: 2 });
    assert_eq!(
        attempt(&Passed::new(), &["LISTEN_FDS=1", "LISTEN_FDNAMES="], InheritOptions::new()).0,
        Ok(1),
        "one empty name"
    );
}

const REST: [&str; 3] = ["A=1", "LISTEN_FDS_NOT=2", "LISTEN=3"];

#[test]
fn consuming_takes_the_variables_out_and_leaves_the_others_in_order() {
    let pid = own_pid();
    let all = [
        REST[0],
        "LISTEN_FDS=1",
        &pid,
        REST[1],
        "LISTEN_FDNAMES=a",
        "LISTEN_READY_FD_NOT=",
        REST[2],
        "LISTEN_PIDFDID=1",
    ];
    let (_, launch) = attempt(&Passed::new(), &all, InheritOptions::new());
    assert_eq!(vars(&launch), [REST[0], REST[1], "LISTEN_READY_FD_NOT=", REST[2]]);
    assert_eq!(launch.var(b"LISTEN_FDS"), None);
    assert_eq!(launch.var(b"A"), Some(&b"1"[..]));
}

#[test]
fn consuming_happens_on_errors_and_for_other_processes_too() {
    let other = other_pid();
    for wrong in ["LISTEN_FDS=a", "LISTEN_FDS=99", "LISTEN_FDNAMES=\t", &other, "LISTEN_PID=a"] {
        let passed = Passed::new();
        let all =
            [wrong, REST[0], "LISTEN_FDS=1", "LISTEN_FDNAMES=a:b", REST[1], "LISTEN_PIDFDID=1", REST[2]];
        let (result, launch) = attempt(&passed, &all, InheritOptions::new());
        assert_ne!(result, Ok(1), "{wrong}");
        assert_eq!(vars(&launch), REST, "{wrong}");
        passed.assert_untouched();
    }
}

#[test]
fn the_variables_can_be_kept() {
    let pid = own_pid();
    let all = [REST[0], "LISTEN_FDS=1", &pid, "LISTEN_FDNAMES=a", REST[1]];
    let passed = Passed::new();
    let (result, launch) = attempt(&passed, &all, InheritOptions::new().keep(true));
    assert_eq!(result, Ok(1));
    assert_eq!(vars(&launch), all);

    let wrong = ["LISTEN_FDS=a", REST[0]];
    let passed = Passed::new();
    let (result, launch) = attempt(&passed, &wrong, InheritOptions::new().keep(true));
    assert!(result.is_err());
    assert_eq!(vars(&launch), wrong);
    passed.assert_untouched();
}

#[test]
fn of_a_variable_that_is_there_twice_the_first_counts_and_both_are_consumed() {
    let all = ["LISTEN_FDS=1", "A=1", "LISTEN_FDS=a", "A=2"];
    let passed = Passed::new();
    let (result, launch) = attempt(&passed, &all, InheritOptions::new());
    assert_eq!(result, Ok(1));
    assert_eq!(vars(&launch), ["A=1", "A=2"]);
    refused(&["LISTEN_FDS=a", "LISTEN_FDS=1"], Variable::Fds, Fault::NotANumber);
}

/// `count` descriptors without `FD_CLOEXEC`, in a row.
fn without_cloexec(count: usize) -> RawFd {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let first = place(vec![listener.as_fd(); count]);
    for number in (first..).take(count) {
        rustix::io::fcntl_setfd(borrow(number), FdFlags::empty()).unwrap();
    }
    first
}

#[test]
fn cloexec_is_set_on_all_of_them_and_on_no_other() {
    let first = without_cloexec(7);
    let mut net = Net::<5>::new();
    let mut launch = launch(&["LISTEN_FDS=5"]);
    assert_eq!(inherit_from(&mut net, &mut launch, first + 1, InheritOptions::new()), Ok(5));
    let set: Vec<bool> = (first..).take(7).map(|number| flags(number) == FdFlags::CLOEXEC).collect();
    assert_eq!(set, [false, true, true, true, true, true, false]);
    assert!(
        net.inherited().all(|(position, socket)| socket.as_fd().as_raw_fd() == first + 1 + position as i32)
    );
    reclaim(first, 1);
    reclaim(first + 6, 1);
}

#[test]
fn more_than_fit_are_all_left_as_they_were() {
    let first = without_cloexec(5);
    // Mixed, so that a flag that was set for a moment and taken back would show too.
    rustix::io::fcntl_setfd(borrow(first + 2), FdFlags::CLOEXEC).unwrap();
    let before: Vec<_> = (first..).take(5).map(flags).collect();
    let mut net = Net::<4>::new();
    let mut launch = launch(&["LISTEN_FDS=5"]);
    let result = inherit_from(&mut net, &mut launch, first, InheritOptions::new());
    assert_eq!(result, Err(Error::Capacity { table: Table::Inherited, needed: 5, capacity: 4 }));
    assert_eq!(result.unwrap_err().to_string(), "5 inherited descriptors do not fit in 4");
    drop(net);
    assert_eq!((first..).take(5).map(flags).collect::<Vec<_>>(), before);
    reclaim(first, 5);
}

#[test]
fn one_that_is_not_open_is_named_and_the_others_stay_as_they_were() {
    for missing in 0..3 {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let first = reserve(3);
        let open: Vec<_> = (first..).take(3).filter(|number| *number != first + missing).collect();
        for number in &open {
            place_at(listener.as_fd(), *number);
            rustix::io::fcntl_setfd(borrow(*number), FdFlags::empty()).unwrap();
        }
        let mut net = Net::<4>::new();
        let mut launch = launch(&["LISTEN_FDS=3"]);
        let result = inherit_from(&mut net, &mut launch, first, InheritOptions::new());
        assert_eq!(result, Err(Error::NotOpen { fd: first + missing }));
        assert_eq!(result.unwrap_err().to_string(), format!("inherited fd {} is not open", first + missing));
        assert_eq!(net.inherited().count(), 0);
        drop(net);
        for number in open {
            assert_eq!(flags(number), FdFlags::empty());
            assert_eq!(cookie(&reclaim(number, 1)[0]), cookie(&listener));
        }
        assert!(!is_open(first + missing));
    }
}

#[test]
fn whatever_is_no_socket_is_kept_by_name_and_position_and_has_no_address() {
    let dir = tempfile::tempdir().unwrap();
    let fifo = dir.path().join("fifo");
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, Mode::RWXU, 0).unwrap();
    let fifo = rustix::fs::open(&fifo, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).unwrap();
    let path = rustix::fs::open(dir.path(), OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap();
    let mut memfd = std::fs::File::from(rustix::fs::memfd_create("state", MemfdFlags::CLOEXEC).unwrap());
    memfd.write_all(b"what the predecessor knew").unwrap();
    let file = tempfile::tempfile().unwrap();
    let (pipe, _writer) = std::io::pipe().unwrap();
    let all: [&dyn AsFd; 5] = [&fifo, &path, &memfd, &file, &pipe];
    let mut net: Net<8> = inherited_as(&all, Some("fifo:path:memfd:file:pipe"));
    for (position, socket) in net.inherited() {
        assert_eq!(socket.describe(), Ok(None), "{}", socket.name());
        assert_eq!(inode(socket), inode(all[position]));
        assert_eq!(rustix::io::fcntl_getfd(socket), Ok(FdFlags::CLOEXEC));
    }

    assert_eq!(net.claim("tcp", "127.0.0.1:1"), Err(Error::NotInherited));
    assert_eq!(net.claim("unix", "/"), Err(Error::NotInherited));
    let fresh = net.listen_with("tcp", "127.0.0.1:0", &gracenet::ListenOptions::new().name("file")).unwrap();
    assert_eq!(local(net.fd(fresh).unwrap()).ip().to_string(), "127.0.0.1");
    assert_eq!(net.inherited().count(), 5);

    let id = net.claim_name("memfd").unwrap();
    let mut state = std::fs::File::from(net.take(id).unwrap());
    state.rewind().unwrap();
    let mut text = String::new();
    state.read_to_string(&mut text).unwrap();
    assert_eq!(text, "what the predecessor knew");

    for (position, original) in [(4, all[4]), (1, all[1]), (0, all[0]), (3, all[3])] {
        let id = net.claim_position(position).unwrap();
        assert_eq!(inode(net.fd(id).unwrap()), inode(original));
    }
    assert_eq!(net.claim_position(2), Err(Error::NotInherited));
    assert_eq!(net.claim_position(5), Err(Error::NotInherited));
}

#[test]
fn only_listeners_may_be_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let unix = UnixListener::bind(dir.path().join("socket")).unwrap();
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let path = rustix::fs::open(dir.path(), OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap();
    let only = InheritOptions::new().listeners_only(true);

    let first = place([tcp.as_fd(), unix.as_fd()]);
    let mut net = Net::<4>::new();
    assert_eq!(inherit_from(&mut net, &mut launch(&["LISTEN_FDS=2"]), first, only), Ok(2));

    for other in [udp.as_fd(), path.as_fd()] {
        let first = place([tcp.as_fd(), other]);
        let mut net = Net::<4>::new();
        let result = inherit_from(&mut net, &mut launch(&["LISTEN_FDS=2"]), first, only);
        assert_eq!(result, Err(Error::NotAListener { fd: first + 1 }));
        drop(net);
        reclaim(first, 2);
    }
}

#[test]
fn a_datagram_socket_among_listeners_is_kept_and_claimed_for_what_it_is() {
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut net: Net<4> = inherited(&[&udp, &tcp]);
    let tcp_id = net.claim("tcp", &local(&tcp).to_string()).unwrap();
    let udp_id = net.claim("udp", &local(&udp).to_string()).unwrap();
    assert_eq!((cookie_of(&net, tcp_id), cookie_of(&net, udp_id)), (cookie(&tcp), cookie(&udp)));
}

#[test]
fn an_inherit_error_stays() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    let path = path.to_str().unwrap();
    let mut net = Net::<4>::new();
    let error = inherit_from(&mut net, &mut launch(&["LISTEN_FDS=a"]), reserve(1), InheritOptions::new())
        .unwrap_err();
    for _ in 0..2 {
        assert_eq!(net.listen("tcp", "127.0.0.1:0"), Err(error));
        assert_eq!(net.listen("unix", path), Err(error));
        // Said before the network or the address is looked at.
        assert_eq!(net.listen("foo", ""), Err(error));
        let endpoint = gracenet::Endpoint::tcp("127.0.0.1:0".parse().unwrap());
        assert_eq!(net.listen_at(&endpoint, &gracenet::ListenOptions::new()), Err(error));
        assert_eq!(net.claim_at(&endpoint, &gracenet::ListenOptions::new()), Err(error));
        assert_eq!(net.claim("tcp", "127.0.0.1:1"), Err(error));
        assert_eq!(net.claim_name("unknown"), Err(error));
        assert_eq!(net.claim_position(0), Err(error));
        assert_eq!(net.ready(), Err(error));
        assert_eq!(net.start_process(&mut launch(&[])).map(drop), Err(error));
        let rejected = net.add(tempfile::tempfile().unwrap().into(), "file").unwrap_err();
        assert_eq!(rejected.error, error);
    }
    assert_eq!(net.active().count(), 0);
    assert!(!std::path::Path::new(path).exists());
}

#[test]
fn a_claim_before_inherit_finds_nothing_and_spoils_nothing() {
    let passed = Passed::new();
    let mut net = Net::<1>::new();
    assert_eq!(net.claim_name("web"), Err(Error::NotInherited));
    let mut launch = launch(&["LISTEN_FDS=1", "LISTEN_FDNAMES=web"]);
    assert_eq!(inherit_from(&mut net, &mut launch, passed.first, InheritOptions::new()), Ok(1));
    let id = net.claim_name("web").unwrap();
    assert_eq!(cookie_of(&net, id), cookie(&passed.listener));
}

#[test]
fn a_second_inherit_is_an_error_and_the_first_result_stands() {
    let first = Passed::new();
    let second = Passed::new();
    let mut net = Net::<4>::new();
    let mut both = launch(&["LISTEN_FDS=1"]);
    assert_eq!(inherit_from(&mut net, &mut both, first.first, InheritOptions::new()), Ok(1));
    let again = inherit_from(&mut net, &mut launch(&["LISTEN_FDS=1"]), second.first, InheritOptions::new());
    assert_eq!(again, Err(Error::AlreadyInherited));
    second.assert_untouched();
    let id = net.claim("tcp", &local(&first.listener).to_string()).unwrap();
    assert_eq!(cookie_of(&net, id), cookie(&first.listener));

    let mut net = Net::<4>::new();
    let error = inherit_from(&mut net, &mut launch(&["LISTEN_FDS=a"]), reserve(1), InheritOptions::new())
        .unwrap_err();
    let third = Passed::new();
    let again = inherit_from(&mut net, &mut launch(&["LISTEN_FDS=1"]), third.first, InheritOptions::new());
    assert_eq!(again, Err(Error::AlreadyInherited));
    third.assert_untouched();
    assert_eq!(net.listen("tcp", ":0"), Err(error));
}

#[test]
fn a_second_inherit_through_a_consumed_launch_finds_nothing() {
    let passed = Passed::new();
    let mut both = launch(&["LISTEN_FDS=1"]);
    let mut net = Net::<4>::new();
    assert_eq!(inherit_from(&mut net, &mut both, passed.first, InheritOptions::new()), Ok(1));
    let mut other = Net::<4>::new();
    assert_eq!(inherit_from(&mut other, &mut both, passed.first, InheritOptions::new()), Ok(0));
}

#[test]
fn a_privileged_start_ignores_the_variables_unless_told_otherwise() {
    const AT_NULL: usize = 0;
    const AT_PAGESZ: usize = 6;
    const AT_SECURE: usize = 23;
    for (privileged, options, count) in [
        (0, InheritOptions::new(), 1),
        (1, InheritOptions::new(), 0),
        (1, InheritOptions::new().trust_privileged_start(true), 1),
    ] {
        let auxv = [[AT_PAGESZ, 4096], [AT_SECURE, privileged], [AT_NULL, 0]];
        // SAFETY: laid out as a stack is, and leaked.
        let mut launch: Launch =
            unsafe { Launch::from_stack(stack(&[b"test"], &[b"A=1", b"LISTEN_FDS=1"], &auxv)) }.unwrap();
        assert_eq!(launch.args().collect::<Vec<_>>(), [c"test"]);
        assert_eq!(launch.is_privileged(), privileged == 1);
        let passed = Passed::new();
        let mut net = Net::<4>::new();
        assert_eq!(inherit_from(&mut net, &mut launch, passed.first, options), Ok(count));
        assert_eq!(vars(&launch), ["A=1"]);
        if count == 0 {
            passed.assert_untouched();
        }
    }
}

#[test]
fn the_readiness_socket_is_validated_before_anything_is_owned() {
    let flags_of = SocketFlags::CLOEXEC;
    let pair =
        || rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags_of, None).unwrap();
    let file = OwnedFd::from(tempfile::tempfile().unwrap());
    let pid = own_pid();
    let attempt = |fds: &str, number: RawFd, first: RawFd| {
        let mut net = Net::<4>::new();
        // Too early, and so to nobody.
        net.ready().unwrap();
        let line = format!("LISTEN_READY_FD={number}");
        let mut launch = launch(&[fds, &pid, &line]);
        let result = inherit_from(&mut net, &mut launch, first, InheritOptions::new());
        assert!(vars(&launch).is_empty());
        (result, net)
    };

    // Not a socket, not open, one of the sockets, one of stdio: nothing was owned, flags are as they were.
    let passed = Passed::new();
    let number = place([file.as_fd()]);
    let fault = |fault| Err(Error::Variable { variable: Variable::ReadyFd, fault });
    assert_eq!(attempt("LISTEN_FDS=1", number, passed.first).0, fault(Fault::NotASocket));
    let closed = reserve(1);
    assert_eq!(attempt("LISTEN_FDS=1", closed, passed.first).0, Err(Error::NotOpen { fd: closed }));
    assert_eq!(attempt("LISTEN_FDS=1", passed.first, passed.first).0, fault(Fault::OutOfRange));
    assert_eq!(attempt("LISTEN_FDS=1", 2, passed.first).0, fault(Fault::OutOfRange));
    passed.assert_untouched();
    reclaim(number, 1);

    // A right one gets FD_CLOEXEC too, wherever it is, and `ready` reports on it and closes it.
    for gap in [0, 3] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (ours, theirs) = pair();
        let first = reserve(2 + gap);
        let number = first + 1 + gap as RawFd;
        place_at(listener.as_fd(), first);
        place_at(theirs.as_fd(), number);
        rustix::io::fcntl_setfd(borrow(number), FdFlags::empty()).unwrap();
        drop(theirs);
        let (result, mut net) = attempt("LISTEN_FDS=1", number, first);
        assert_eq!(result, Ok(1));
        assert_eq!(flags(number), FdFlags::CLOEXEC);
        assert!(net.predecessor().is_some());
        net.ready().unwrap();
        assert!(!is_open(number));
        let mut packet = [0; 16];
        let (len, _) = rustix::net::recv(&ours, &mut packet, rustix::net::RecvFlags::DONTWAIT).unwrap();
        assert_eq!(&packet[..len], b"READY=1");
    }
}

#[test]
fn the_readiness_socket_is_not_believed_without_a_pid() {
    let passed = Passed::new();
    let (result, launch) = attempt(&passed, &["LISTEN_FDS=1", "LISTEN_READY_FD=1"], InheritOptions::new());
    assert_eq!(result, Ok(1));
    assert_eq!(vars(&launch), [""; 0]);
}

#[test]
fn the_table_of_variables_may_be_full() {
    let passed = Passed::new();
    let mut launch: Launch<2, 3> = launch_of(&[b"test"], &[b"LISTEN_FDS=1", b"A=1"]).unwrap();
    let mut net = Net::<1>::new();
    // SAFETY: the number is the test's own; the strings are leaked.
    let result = unsafe { net.inherit_with(&mut launch, InheritOptions::new().first_fd(passed.first)) };
    assert_eq!(result, Ok(1));
    assert_eq!(vars(&launch), ["A=1"]);
}

#[test]
fn dropping_the_net_closes_what_it_inherited() {
    let passed = Passed::new();
    let mut net = Net::<1>::new();
    inherit_from(&mut net, &mut launch(&["LISTEN_FDS=1"]), passed.first, InheritOptions::new()).unwrap();
    assert!(is_open(passed.first));
    drop(net);
    assert!(!is_open(passed.first));
}

#[test]
fn ready_closes_what_nobody_claimed() {
    let listeners = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    let first = place(listeners.iter().map(AsFd::as_fd));
    let mut net = Net::<2>::new();
    inherit_from(&mut net, &mut launch(&["LISTEN_FDS=2"]), first, InheritOptions::new()).unwrap();
    net.listen("tcp", &local(&listeners[1]).to_string()).unwrap();
    net.ready().unwrap();
    assert_eq!(net.inherited().count(), 0);
    assert!(!is_open(first));
    assert!(is_open(first + 1));
}
