//! Messages to a service manager, which is a socket of the test's own here: byte for byte, with the descriptors
//! that go with them, and what happens when nobody reads them.
#![allow(
    unsafe_code,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::std_instead_of_core,
    clippy::unwrap_used,
    reason = "tests"
)]

mod common;

use common::{in_role, is_role, launch, namespaces, passes, strace, unshared};
use gracenet::Variable;
use gracenet::error::{Fault, MessageFault, NameFault, Operation};
use gracenet::notify::{self, Access, Assignment, FDS_MAX};
use gracenet::{Error, Net, Notifier};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::MemfdFlags;
use rustix::io::Errno;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};
use rustix::process::Pid;
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

common::trials! {
    each_key_arrives_byte_for_byte,
    a_reload_carries_the_time_at_which_it_began,
    what_is_refused_is_not_sent_and_opens_no_socket if strace,
    without_a_manager_nothing_is_sent_and_that_is_no_error,
    the_launch_says_where_the_manager_is_and_keeps_the_variable,
    descriptors_arrive_in_their_order_and_more_than_fit_go_in_batches,
    an_active_socket_is_stored_under_its_name,
    a_full_socket_is_waited_for_no_longer_than_the_caller_allows,
    a_call_of_several_messages_has_one_timeout,
    a_manager_that_is_gone_is_an_error_at_once,
    a_manager_that_goes_is_not_waited_for,
    a_main_process_has_the_manager_drop_what_nobody_claimed,
    a_main_process_that_is_not_heard_is_not_ready,
    the_barrier_is_passed_when_the_manager_comes_to_it,
    the_watchdog_watches_the_process_that_it_names,
    the_watchdog_is_read_from_the_environment,
    a_pidfd_has_the_inode_that_the_kernel_shows,
    systemd_has_booted_where_its_directory_is if namespaces,
    remove_from_libc_hides_the_manager_from_every_later_child,
}

/// A manager's socket, and what `NOTIFY_SOCKET` would say.
struct Manager {
    socket: UnixDatagram,
    address: String,
    _directory: tempfile::TempDir,
}

impl Manager {
    fn at_path() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        Self::new(socket, path.to_str().unwrap().to_owned(), directory)
    }

    fn hidden() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let name = format!("gracenet-notify{}", directory.path().display());
        let socket = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        Self::new(socket, format!("@{name}"), directory)
    }

    fn new(socket: UnixDatagram, address: String, directory: tempfile::TempDir) -> Self {
        // A message is there when the call that sent it is over, or it never comes.
        socket.set_nonblocking(true).unwrap();
        Self { socket, address, _directory: directory }
    }

    fn notifier(&self) -> Notifier {
        Notifier::parse(self.address.as_bytes()).unwrap().timeout(Duration::ZERO)
    }

    /// The next message and its descriptors; `None` if there is none.
    fn receive(&self) -> Option<(String, Vec<OwnedFd>)> {
        let mut bytes = [0; 8192];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut slices = [IoSliceMut::new(&mut bytes)];
        let flags = RecvFlags::CMSG_CLOEXEC;
        let len = match rustix::net::recvmsg(&self.socket, &mut slices, &mut control, flags) {
            Ok(message) => message.bytes,
            Err(Errno::AGAIN) => return None,
            Err(errno) => panic!("{errno}"),
        };
        let fds = control.drain().flat_map(|message| match message {
            RecvAncillaryMessage::ScmRights(fds) => fds.collect::<Vec<_>>(),
            _ => Vec::new(),
        });
        let fds = fds.collect();
        Some((String::from_utf8(bytes[..len].to_vec()).unwrap(), fds))
    }

    fn message(&self) -> String {
        self.receive().unwrap().0
    }

    fn has_none(&self) -> bool {
        self.receive().is_none()
    }
}

/// Memory files, each of which holds its number.
fn files(count: usize) -> Vec<OwnedFd> {
    let file = |number: usize| {
        let file = rustix::fs::memfd_create(c"test", MemfdFlags::CLOEXEC).unwrap();
        rustix::io::pwrite(&file, &number.to_ne_bytes(), 0).unwrap();
        file
    };
    (0..count).map(file).collect()
}

fn number_in(file: &OwnedFd) -> usize {
    let mut bytes = [0; size_of::<usize>()];
    rustix::io::pread(file, &mut bytes, 0).unwrap();
    usize::from_ne_bytes(bytes)
}

fn failed<T>(operation: Operation, errno: Errno) -> Result<T, Error> {
    Err(Error::Call { operation, fd: None, errno })
}

fn each_key_arrives_byte_for_byte() {
    let own = Pid::from_raw(std::process::id() as i32).unwrap();
    let pid = format!("MAINPID={}", std::process::id());
    let pidfd = rustix::process::pidfd_open(own, rustix::process::PidfdFlags::empty()).unwrap();
    for manager in [Manager::at_path(), Manager::hidden()] {
        let notifier = manager.notifier();
        for (message, expected) in [
            (&[Assignment::Ready][..], "READY=1"),
            (&[Assignment::Stopping], "STOPPING=1"),
            (&[Assignment::Status("two words, ü")], "STATUS=two words, ü"),
            (&[Assignment::Errno(Errno::ADDRINUSE)], "ERRNO=98"),
            (&[Assignment::BusError("org.freedesktop.Error")], "BUSERROR=org.freedesktop.Error"),
            (&[Assignment::VarlinkError("io.error")], "VARLINKERROR=io.error"),
            (&[Assignment::ExitStatus(3)], "EXIT_STATUS=3"),
            (&[Assignment::MainPid(own)], &pid),
            (&[Assignment::MainPidfdId(7)], "MAINPIDFDID=7"),
            (&[Assignment::NotifyAccess(Access::All)], "NOTIFYACCESS=all"),
            (&[Assignment::Watchdog], "WATCHDOG=1"),
            (&[Assignment::WatchdogTrigger], "WATCHDOG=trigger"),
            (&[Assignment::WatchdogTimeout(Duration::from_secs(2))], "WATCHDOG_USEC=2000000"),
            (&[Assignment::ExtendTimeout(Duration::from_millis(5))], "EXTEND_TIMEOUT_USEC=5000"),
            (&[Assignment::RestartReset], "RESTART_RESET=1"),
            (&[Assignment::FdStoreRemove, Assignment::FdName("a")], "FDSTOREREMOVE=1\nFDNAME=a"),
            (&[Assignment::Private { key: "X_B_1", value: "c=d" }], "X_B_1=c=d"),
            (
                &[Assignment::Status("b"), Assignment::Ready, Assignment::Status("a")],
                "STATUS=b\nREADY=1\nSTATUS=a",
            ),
        ] {
            assert_eq!(notifier.send(message), Ok(true));
            let (text, fds) = manager.receive().unwrap();
            assert_eq!((&*text, fds.len()), (expected, 0));
        }
        let file = files(1);
        for (message, fd, expected) in [
            (&[Assignment::MainPidfd][..], pidfd.as_fd(), "MAINPIDFD=1"),
            (&[Assignment::FdStore, Assignment::FdName("a")], file[0].as_fd(), "FDSTORE=1\nFDNAME=a"),
            (
                &[Assignment::FdStore, Assignment::FdName("a"), Assignment::NoFdPoll],
                file[0].as_fd(),
                "FDSTORE=1\nFDNAME=a\nFDPOLL=0",
            ),
            (&[Assignment::Barrier], file[0].as_fd(), "BARRIER=1"),
        ] {
            assert_eq!(notifier.send_with_fds(message, &[fd]), Ok(true));
            let (text, fds) = manager.receive().unwrap();
            assert_eq!((&*text, fds.len()), (expected, 1));
            assert_eq!(common::inode(&fds[0]), common::inode(fd));
        }
        assert!(manager.has_none());
    }
}

fn a_reload_carries_the_time_at_which_it_began() {
    let manager = Manager::at_path();
    let now = || {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        now.tv_sec as u64 * 1_000_000 + now.tv_nsec as u64 / 1000
    };
    let before = now();
    assert_eq!(manager.notifier().send(&[Assignment::Reloading]), Ok(true));
    let after = now();
    let message = manager.message();
    let time = message.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap().parse().unwrap();
    assert!((before..=after).contains(&time), "{before} {time} {after}");
}

/// Each input that is refused, seen from outside: nothing arrives, and the one socket that is made is the manager's.
fn what_is_refused_is_not_sent_and_opens_no_socket() {
    const NAME: &str = "what_is_refused_is_not_sent_and_opens_no_socket";
    if !is_role(NAME) {
        let log = tempfile::NamedTempFile::new().unwrap();
        let mut strace = Command::new("strace");
        strace.args(["-f", "-qq", "-o"]).arg(log.path()).args(["-e", "trace=socket,sendmsg,sendto"]);
        passes(in_role(strace.arg(std::env::current_exe().unwrap()), NAME));
        let calls = std::fs::read_to_string(log.path()).unwrap();
        assert_eq!(calls.lines().count(), 1, "{calls}");
        assert!(calls.contains("socket(AF_UNIX, SOCK_DGRAM"), "{calls}");
        return;
    }
    let manager = Manager::at_path();
    let long = "s".repeat(4090);
    let file = files(1);
    let many: Vec<BorrowedFd<'_>> = std::iter::repeat_n(file[0].as_fd(), FDS_MAX + 1).collect();
    for (message, fds, fault) in [
        (&[][..], 0, MessageFault::Empty),
        (&[Assignment::Status("a\nREADY=1")], 0, MessageFault::Byte(b'\n')),
        (&[Assignment::Status("a\0b")], 0, MessageFault::Byte(0)),
        (&[Assignment::BusError("\n")], 0, MessageFault::Byte(b'\n')),
        (&[Assignment::Private { key: "Y_A", value: "" }], 0, MessageFault::Key),
        (&[Assignment::Status(&long)], 0, MessageFault::TooLong),
        (&[Assignment::WatchdogTimeout(Duration::MAX)], 0, MessageFault::OutOfRange),
        (&[Assignment::FdName("a:b")], 0, MessageFault::Name(NameFault::Byte(b':'))),
        (&[Assignment::FdStore], FDS_MAX + 1, MessageFault::TooManyFds { fds: FDS_MAX as u32 + 1 }),
        (&[Assignment::FdStore], 0, MessageFault::Fds { fds: 0 }),
        (&[Assignment::Ready], 1, MessageFault::Fds { fds: 1 }),
        (&[Assignment::FdStoreRemove], 0, MessageFault::NoName),
        (&[Assignment::VarlinkError("\n")], 0, MessageFault::Byte(b'\n')),
        (&[Assignment::Private { key: "X_A", value: "\n" }], 0, MessageFault::Byte(b'\n')),
        (&[Assignment::ExtendTimeout(Duration::MAX)], 0, MessageFault::OutOfRange),
        (&[Assignment::FdStoreRemove, Assignment::FdName("a")], 1, MessageFault::Fds { fds: 1 }),
        (&[Assignment::Barrier], 0, MessageFault::Fds { fds: 0 }),
        (&[Assignment::Barrier], 2, MessageFault::Fds { fds: 2 }),
        (&[Assignment::Barrier, Assignment::Ready], 1, MessageFault::NotTogether),
        (&[Assignment::MainPidfd], 0, MessageFault::Fds { fds: 0 }),
    ] {
        let refused = Err(Error::Message { position: 0, fault });
        assert_eq!(manager.notifier().send_with_fds(message, &many[..fds]), refused);
        // Where a socket would fail to be connected, it is not tried.
        let nowhere = Notifier::parse(b"/nonexistent/notify").unwrap();
        assert_eq!(nowhere.send_with_fds(message, &many[..fds]), refused);
    }
    for (message, fds, fault) in [
        (&[Assignment::Ready, Assignment::Status("\n")][..], 0, MessageFault::Byte(b'\n')),
        (&[Assignment::Ready, Assignment::Barrier], 1, MessageFault::NotTogether),
        (&[Assignment::MainPidfd, Assignment::FdStore], 1, MessageFault::NotTogether),
        (&[Assignment::FdName("a"), Assignment::FdName("a")], 0, MessageFault::Repeated),
        (
            &[Assignment::FdStoreRemove, Assignment::FdName("\u{e9}")],
            0,
            MessageFault::Name(NameFault::Byte(0xc3)),
        ),
    ] {
        let refused = Err(Error::Message { position: 1, fault });
        assert_eq!(manager.notifier().send_with_fds(message, &many[..fds]), refused);
    }
    let vsock = Notifier::parse(b"vsock:5:1234").unwrap();
    let no_fds = Err(Error::Message { position: 0, fault: MessageFault::Vsock });
    assert_eq!(vsock.send_with_fds(&[Assignment::FdStore], &many[..1]), no_fds);
    assert_eq!(vsock.barrier(), no_fds);
    assert_eq!(manager.notifier().store("a", &[], true).unwrap_err().errno(), None);
    assert_eq!(manager.notifier().store("a:b", &many[..1], true).unwrap_err().errno(), None);
    assert_eq!(manager.notifier().unstore("\n").unwrap_err().errno(), None);
    assert!(manager.has_none());
}

fn without_a_manager_nothing_is_sent_and_that_is_no_error() {
    let notifier = Notifier::none();
    assert!(!notifier.is_present());
    assert_eq!(notifier.send(&[Assignment::Ready]), Ok(false));
    assert_eq!(notifier.barrier(), Ok(false));
    assert_eq!(notifier.store("a", &[files(1)[0].as_fd()], true), Ok(false));
    assert_eq!(notifier.unstore("a"), Ok(false));
    assert!(!Notifier::from_launch(&launch(&[])).unwrap().is_present());
}

fn the_launch_says_where_the_manager_is_and_keeps_the_variable() {
    let manager = Manager::at_path();
    let variable = format!("NOTIFY_SOCKET={}", manager.address);
    let mut launch = launch(&[&variable, "LISTEN_FDS=0"]);
    let mut net = Net::<1>::new();
    // SAFETY: there is nothing to adopt.
    unsafe { net.inherit(&mut launch) }.unwrap();
    net.set_notifier(Notifier::from_launch(&launch).unwrap());
    assert_eq!(net.notifier().send(&[Assignment::Ready]), Ok(true));
    assert_eq!(manager.message(), "READY=1");
    assert_eq!(common::vars(&launch), [variable]);
    for (value, fault) in [
        ("", Fault::NotAnAddress),
        ("notify", Fault::NotAnAddress),
        ("vsock:-1:5", Fault::OutOfRange),
        ("vsock:a:5", Fault::NotANumber),
    ] {
        let launch = common::launch(&[&format!("NOTIFY_SOCKET={value}")]);
        let refused = Error::Variable { variable: Variable::NotifySocket, fault };
        assert_eq!(Notifier::from_launch(&launch).unwrap_err(), refused, "{value:?}");
    }
}

fn descriptors_arrive_in_their_order_and_more_than_fit_go_in_batches() {
    let manager = Manager::at_path();
    // Two full messages and one more: each of the 507 is a duplicate of one of three files.
    let files = files(3);
    let fds: Vec<_> = (0..2 * FDS_MAX + 1).map(|number| files[number % 3].as_fd()).collect();
    assert_eq!(manager.notifier().store("web", &fds, false), Ok(true));
    let mut numbers = Vec::new();
    for expected in [FDS_MAX, FDS_MAX, 1] {
        let (text, fds) = manager.receive().unwrap();
        assert_eq!(text, "FDSTORE=1\nFDNAME=web\nFDPOLL=0");
        assert_eq!(fds.len(), expected);
        numbers.extend(fds.iter().map(number_in));
    }
    assert!(manager.has_none());
    assert_eq!(numbers, (0..fds.len()).map(|number| number % 3).collect::<Vec<_>>());
    assert_eq!(manager.notifier().unstore("web"), Ok(true));
    assert_eq!(manager.message(), "FDSTOREREMOVE=1\nFDNAME=web");
}

fn an_active_socket_is_stored_under_its_name() {
    let manager = Manager::hidden();
    let mut net = Net::<2>::new();
    let file = files(1).remove(0);
    let inode = common::inode(&file);
    let id = net.add(file, "state").unwrap();
    assert_eq!(net.store(id), Ok(false));
    net.set_notifier(manager.notifier());
    assert_eq!(net.store(id), Ok(true));
    let (text, fds) = manager.receive().unwrap();
    assert_eq!(text, "FDSTORE=1\nFDNAME=state");
    assert_eq!(fds.iter().map(common::inode).collect::<Vec<_>>(), [inode]);
    net.close(id).unwrap();
    assert_eq!(net.store(id), Err(Error::StaleId));
    assert!(manager.has_none());
}

fn a_full_socket_is_waited_for_no_longer_than_the_caller_allows() {
    let manager = Manager::at_path();
    let notifier = manager.notifier();
    let mut sent = 0;
    let error = loop {
        match notifier.send(&[Assignment::Watchdog]) {
            Ok(_) => sent += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(Err(error), failed::<()>(Operation::Send, Errno::TIMEDOUT));
    assert!(sent > 0);
    let begin = Instant::now();
    let patience = Duration::from_millis(50);
    assert_eq!(
        notifier.clone().timeout(patience).send(&[Assignment::Ready]),
        failed(Operation::Send, Errno::TIMEDOUT)
    );
    assert!(begin.elapsed() >= patience);
    assert_eq!(notifier.barrier(), failed(Operation::Send, Errno::TIMEDOUT));
    // One that reads again, in another thread, is waited for.
    std::thread::scope(|scope| {
        let patient =
            scope.spawn(|| notifier.clone().timeout(Duration::from_secs(20)).send(&[Assignment::Ready]));
        for _ in 0..sent {
            assert_eq!(manager.message(), "WATCHDOG=1");
        }
        assert_eq!(patient.join().unwrap(), Ok(true));
    });
    assert_eq!(manager.message(), "READY=1");
    assert!(manager.has_none());
}

/// However many messages it sends, and however short each of them had to wait.
fn a_call_of_several_messages_has_one_timeout() {
    const MESSAGES: usize = 10;
    let manager = Manager::at_path();
    while manager.notifier().send(&[Assignment::Watchdog]) == Ok(true) {}
    let files = files(1);
    let fds = vec![files[0].as_fd(); MESSAGES * FDS_MAX];
    let is_over = AtomicBool::new(false);
    let answer = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(150));
                manager.receive().unwrap();
            }
        });
        let answer = manager.notifier().timeout(Duration::from_millis(400)).store("a", &fds, true);
        is_over.store(true, Ordering::Relaxed);
        answer
    });
    assert_eq!(answer, failed(Operation::Send, Errno::TIMEDOUT));
}

fn a_manager_that_is_gone_is_an_error_at_once() {
    let Manager { socket, address, _directory } = Manager::at_path();
    let notifier = Notifier::parse(address.as_bytes()).unwrap().timeout(Duration::MAX);
    drop(socket);
    assert_eq!(notifier.send(&[Assignment::Ready]), failed(Operation::Connect, Errno::CONNREFUSED));
    assert_eq!(notifier.barrier(), failed(Operation::Connect, Errno::CONNREFUSED));
    std::fs::remove_file(&address).unwrap();
    assert_eq!(notifier.send(&[Assignment::Ready]), failed(Operation::Connect, Errno::NOENT));
}

/// A manager that goes away while a message waits for room ends the wait, whenever that is.
fn a_manager_that_goes_is_not_waited_for() {
    let manager = Manager::at_path();
    while manager.notifier().send(&[Assignment::Watchdog]) == Ok(true) {}
    let notifier = manager.notifier().timeout(Duration::MAX);
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| notifier.send(&[Assignment::Ready]).unwrap_err());
        drop(manager.socket);
        let error = waiting.join().unwrap();
        // It may have begun later than that.
        let calls = [Operation::Connect, Operation::Send].map(|call| failed::<()>(call, Errno::CONNREFUSED));
        assert!(calls.contains(&Err(error)), "{error:?}");
    });
}

/// What the main process of a service has the manager keep, and does not claim when it comes back, is dropped from the
/// store when it is ready, once for each name; a name that something claimed or active has is not.
fn a_main_process_has_the_manager_drop_what_nobody_claimed() {
    let manager = Manager::at_path();
    let listeners: Vec<_> = (0..2).map(|_| std::net::TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let file = files(1);
    let all: [&dyn AsFd; 9] =
        [&file[0], &file[0], &file[0], &file[0], &file[0], &file[0], &listeners[0], &listeners[1], &file[0]];
    for renamed in [0, 1] {
        let mut net: Net<9> = common::inherited_as(&all, Some("c:a:b:a:c:c:web:web:fresh"));
        net.set_notifier(manager.notifier());
        net.claim_name("b").unwrap();
        // The third of these names, and the other two are left.
        net.claim_position(5).unwrap();
        // Of these two one is claimed, and has another name now, whichever it is.
        let address = listeners[renamed].local_addr().unwrap();
        let endpoint = gracenet::Endpoint::tcp(address);
        let web = net.claim_at(&endpoint, &gracenet::ListenOptions::new().name("new")).unwrap();
        assert_eq!(common::local_of(&net, web), address);
        net.add(files(1).remove(0), "fresh").unwrap();
        assert!(manager.has_none());
        assert_eq!(net.ready(), Ok(()));
        assert_eq!(manager.message(), "FDSTOREREMOVE=1\nFDNAME=a");
        assert_eq!(manager.message(), "READY=1");
        assert!(manager.has_none());
        assert_eq!(net.inherited().count(), 0);
        assert_eq!(net.ready(), Ok(()));
        assert!(manager.has_none(), "the second call does nothing");
    }
}

/// A main process that could not say that it is ready is not: what nobody claimed is there still, and the next call
/// says everything.
fn a_main_process_that_is_not_heard_is_not_ready() {
    let manager = Manager::at_path();
    let file = files(1);
    let mut net: Net<2> = common::inherited_as(&[&file[0]], Some("a"));
    net.set_notifier(manager.notifier());
    let mut sent = 0;
    while manager.notifier().send(&[Assignment::Watchdog]) == Ok(true) {
        sent += 1;
    }
    assert_eq!(net.ready(), failed(Operation::Send, Errno::TIMEDOUT));
    assert_eq!(net.inherited().count(), 1);
    // Room for one of the two.
    assert_eq!(manager.message(), "WATCHDOG=1");
    assert_eq!(net.ready(), failed(Operation::Send, Errno::TIMEDOUT));
    assert_eq!(net.inherited().count(), 1);
    (1..sent).for_each(|_| assert_eq!(manager.message(), "WATCHDOG=1"));
    assert_eq!(manager.message(), "FDSTOREREMOVE=1\nFDNAME=a");
    assert!(manager.has_none());
    assert_eq!(net.ready(), Ok(()));
    assert_eq!(manager.message(), "FDSTOREREMOVE=1\nFDNAME=a");
    assert_eq!(manager.message(), "READY=1");
    assert_eq!(net.inherited().count(), 0);
}

fn the_barrier_is_passed_when_the_manager_comes_to_it() {
    let manager = Manager::at_path();
    assert_eq!(manager.notifier().barrier(), failed(Operation::Barrier, Errno::TIMEDOUT));
    let (text, fds) = manager.receive().unwrap();
    assert_eq!((&*text, fds.len()), ("BARRIER=1", 1));
    manager.socket.set_nonblocking(false).unwrap();
    std::thread::scope(|scope| {
        let notifier = manager.notifier().timeout(Duration::from_secs(20));
        let waiting = scope.spawn(move || notifier.barrier());
        let (text, fds) = manager.receive().unwrap();
        assert_eq!((&*text, fds.len()), ("BARRIER=1", 1));
        assert!(!waiting.is_finished());
        drop(fds);
        assert_eq!(waiting.join().unwrap(), Ok(true));
    });
}

fn the_watchdog_watches_the_process_that_it_names() {
    let own = format!("WATCHDOG_PID={}", std::process::id());
    let time = Some(Duration::from_secs(30));
    for (variables, expected) in [
        (&[][..], Ok(None)),
        (&["WATCHDOG_USEC=30000000"], Ok(time)),
        (&["WATCHDOG_USEC=30000000", &own], Ok(time)),
        (&["WATCHDOG_USEC=30000000", "WATCHDOG_PID=1"], Ok(None)),
        (&[&own], Ok(None)),
        (&["WATCHDOG_USEC=30s"], Err((Variable::WatchdogUsec, Fault::NotANumber))),
        (&["WATCHDOG_USEC=0", "WATCHDOG_PID=1"], Err((Variable::WatchdogUsec, Fault::OutOfRange))),
        (&["WATCHDOG_USEC=1", "WATCHDOG_PID=x"], Err((Variable::WatchdogPid, Fault::NotANumber))),
    ] {
        let expected = expected.map_err(|(variable, fault)| Error::Variable { variable, fault });
        assert_eq!(notify::watchdog(&launch(variables)), expected, "{variables:?}");
    }
}

/// The same in processes that a shell starts, with a `WATCHDOG_PID` that only it can know.
fn the_watchdog_is_read_from_the_environment() {
    const NAME: &str = "the_watchdog_is_read_from_the_environment";
    const EXPECTED: &str = "GRACENET_TEST_EXPECTED";
    if is_role(NAME) {
        // SAFETY: this child has one thread.
        let launch: gracenet::Launch = unsafe { gracenet::Launch::from_libc() }.unwrap();
        assert_eq!(format!("{:?}", notify::watchdog(&launch)), std::env::var(EXPECTED).unwrap());
        return;
    }
    let pid = |fault| Err(Error::Variable { variable: Variable::WatchdogPid, fault });
    for (variables, expected) in [
        ("WATCHDOG_USEC=3000000 WATCHDOG_PID=$$", Ok(Some(Duration::from_secs(3)))),
        ("WATCHDOG_USEC=3000000 WATCHDOG_PID=$PPID", Ok(None)),
        ("WATCHDOG_USEC=3000000", Ok(Some(Duration::from_secs(3)))),
        ("WATCHDOG_PID=$$", Ok(None)),
        ("WATCHDOG_USEC=3000000 WATCHDOG_PID=-$$", pid(Fault::OutOfRange)),
        ("WATCHDOG_USEC=3000000 WATCHDOG_PID=", pid(Fault::NotANumber)),
    ] {
        let mut shell = Command::new("/bin/sh");
        let script = format!("unset WATCHDOG_USEC WATCHDOG_PID; {variables} exec \"$0\" \"$@\"");
        shell.args(["-c", &script]).arg(std::env::current_exe().unwrap());
        passes(in_role(&mut shell, NAME).env(EXPECTED, format!("{expected:?}")));
    }
}

fn a_pidfd_has_the_inode_that_the_kernel_shows() {
    let own = rustix::process::getpid();
    let pidfd = rustix::process::pidfd_open(own, rustix::process::PidfdFlags::empty()).unwrap();
    let is_pidfs = rustix::fs::fstatfs(&pidfd).unwrap().f_type as u64 == 0x5049_4446;
    let expected = (is_pidfs && cfg!(target_pointer_width = "64"))
        .then(|| rustix::fs::fstat(&pidfd).unwrap().st_ino as u64);
    assert_eq!(notify::pidfd_id(pidfd.as_fd()), expected);
    assert_eq!(notify::pidfd_id(files(1)[0].as_fd()), None);
}

/// In a mount namespace, where `/run` is the test's own.
fn systemd_has_booted_where_its_directory_is() {
    const NAME: &str = "systemd_has_booted_where_its_directory_is";
    const EXPECTED: &str = "GRACENET_TEST_EXPECTED";
    if is_role(NAME) {
        assert_eq!(notify::is_booted().to_string(), std::env::var(EXPECTED).unwrap());
        return;
    }
    for (script, expected) in [
        ("mkdir -p /run/systemd/system", "true"),
        ("mkdir -p /run/systemd", "false"),
        ("mkdir /run/systemd; touch /run/systemd/system", "false"),
        ("mkdir /run/systemd; ln -s /run/nowhere /run/systemd/system", "false"),
    ] {
        let mut command = unshared(&format!("mount -t tmpfs none /run; {script}"));
        passes(in_role(command.arg(std::env::current_exe().unwrap()), NAME).env(EXPECTED, expected));
    }
}

fn remove_from_libc_hides_the_manager_from_every_later_child() {
    const NAME: &str = "remove_from_libc_hides_the_manager_from_every_later_child";
    if !is_role(NAME) {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.env("NOTIFY_SOCKET", "@none").env("WATCHDOG_USEC", "1000000").env("WATCHDOG_PID", "1");
        return passes(in_role(&mut command, NAME));
    }
    // SAFETY: this child has one thread.
    let launch: gracenet::Launch = unsafe { gracenet::Launch::from_libc() }.unwrap();
    // SAFETY: as above.
    unsafe { gracenet::launch::remove_from_libc(&Variable::NOTIFICATION) };
    assert!(Variable::NOTIFICATION.iter().all(|variable| std::env::var_os(variable.name()).is_none()));
    let output = Command::new("/bin/sh").args(["-c", "cat /proc/$$/environ"]).output().unwrap();
    let seen = String::from_utf8_lossy(&output.stdout);
    assert!(!seen.contains("NOTIFY_SOCKET") && !seen.contains("WATCHDOG"), "{seen}");
    assert!(Notifier::from_launch(&launch).unwrap().is_present());
}
