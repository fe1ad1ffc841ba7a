//! How a program begins: what it takes from its environment, and its sockets as std's types.

use crate::stage::*;
use gracenet::{Error, Policy, Process, Service};
use rustix::fd::{AsFd, AsRawFd, OwnedFd};
use rustix::fs::OFlags;
use std::net::TcpListener;
use std::process::Command;

scenarios! {
    BOTH:
        sockets_of_a_manager_are_claimed_and_nonblocking;
    FIRST:
        a_process_begins_once,
        sockets_are_stds_and_nonblocking,
        sockets_are_claimed_as_stds,
        an_error_names_the_address,
        a_service_of_parts_leaves_the_parts,
        variables_that_lie_are_an_error;
}

fn a_process_begins_once(_: Way) {
    static PROCESS: Process<4, 256, 256> = Process::new();
    let policy = Policy::new().signals(false);
    let service = unsafe { PROCESS.begin(policy) }.unwrap();
    assert_eq!(unsafe { PROCESS.begin(policy) }.map(drop), Err(Error::AlreadyBegun));
    drop(service);
    assert_eq!(unsafe { PROCESS.begin(policy) }.map(drop), Err(Error::AlreadyBegun));
    // Another value is another process, as far as it can tell.
    static OTHER: Process<4, 256, 256> = Process::new();
    drop(unsafe { OTHER.begin(policy) }.unwrap());
}

fn is_nonblocking(fd: impl AsFd) -> bool {
    rustix::fs::fcntl_getfl(fd).unwrap().contains(OFlags::NONBLOCK)
}

fn begin() -> Service<'static> {
    let process: &Process = Box::leak(Box::default());
    unsafe { process.begin(Policy::new()) }.unwrap()
}

fn sockets_are_stds_and_nonblocking(_: Way) {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).into_os_string().into_string().unwrap();
    let mut service = begin();
    let tcp = service.tcp("http", "127.0.0.1:0").unwrap();
    let udp = service.udp("dns", "127.0.0.1:0").unwrap();
    let unix = service.unix("control", &path("stream")).unwrap();
    let unixgram = service.unixgram("log", &path("datagram")).unwrap();
    let hidden = service.unix("hidden", &format!("@gracenet-{}", std::process::id())).unwrap();
    for fd in [tcp.as_fd(), udp.as_fd(), unix.as_fd(), unixgram.as_fd(), hidden.as_fd()] {
        assert!(is_nonblocking(fd));
        let flags = rustix::io::fcntl_getfd(fd).unwrap();
        assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
    }
    assert_ne!(tcp.local_addr().unwrap().port(), 0);
    assert_ne!(udp.local_addr().unwrap().port(), 0);
    assert_eq!(unix.local_addr().unwrap().as_pathname().unwrap(), directory.path().join("stream"));
    assert_eq!(unixgram.local_addr().unwrap().as_pathname().unwrap(), directory.path().join("datagram"));
    let names: Vec<_> = service.active().map(|(_, socket)| socket.name().to_owned()).collect();
    assert_eq!(names, ["http", "dns", "control", "log", "hidden"]);
    service.ready().unwrap();
    // A name that is dropped in std is kept by the service.
    let address = tcp.local_addr().unwrap();
    drop(tcp);
    std::net::TcpStream::connect(address).unwrap();
    drop(service);
    assert!(
        std::net::TcpStream::connect(address).is_err(),
        "a service that a process began owns its sockets"
    );
}

/// Puts sockets, blocking, where a manager does: from 3 on.
fn place(fds: Vec<OwnedFd>) {
    for (number, fd) in (3..).zip(fds) {
        assert_eq!(unsafe { libc::dup2(fd.as_raw_fd(), number) }, number);
        drop(fd);
    }
}

fn sockets_are_claimed_as_stds(_: Way) {
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let (address, udp_address) = (tcp.local_addr().unwrap(), udp.local_addr().unwrap());
    place(vec![tcp.into(), udp.into()]);
    unsafe {
        std::env::set_var("LISTEN_FDS", "2");
        std::env::set_var("LISTEN_PID", std::process::id().to_string());
        std::env::set_var("LISTEN_FDNAMES", "http:unknown");
    }
    let mut service = begin();
    assert_eq!(std::env::vars().filter(|(name, _)| name.starts_with("LISTEN_")).count(), 0);
    let udp = service.udp("dns", &udp_address.to_string()).unwrap();
    let tcp = service.tcp("http", &address.to_string()).unwrap();
    assert_eq!((tcp.local_addr().unwrap(), udp.local_addr().unwrap()), (address, udp_address));
    assert!(is_nonblocking(&tcp) && is_nonblocking(&udp));
    service.ready().unwrap();
}

fn sockets_of_a_manager_are_claimed_and_nonblocking(way: Way) {
    let manager = Manager::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let inode = rustix::fs::fstat(&listener).unwrap().st_ino;
    assert!(!is_nonblocking(&listener));
    place(vec![listener.into()]);
    let mut server = Server::start_by(way, &[], |program| {
        let mut command = Command::new(program);
        command.env("NOTIFY_SOCKET", &manager.address).env("LISTEN_FDS", "1").env("LISTEN_FDNAMES", "http");
        command.env("WATCHDOG_USEC", "30000000");
        command
    });
    // The scenario's own copy is closed: nobody else would refuse, or accept.
    drop(rustix::fs::open("/dev/null", OFlags::CLOEXEC, 0.into()).unwrap());
    unsafe { libc::close(3) };
    manager.hears_of(&server);
    assert_eq!((server.port, server.inode), (port, inode));
    assert_eq!(server.ask("flags"), "nonblocking true");
    assert_eq!(server.ask("vars"), "");
    server.answers();
    manager.hand_over(&mut server);
    assert_eq!((server.port, server.inode), (port, inode));
    assert_eq!(server.ask("flags"), "nonblocking true");
    assert_eq!(server.ask("vars"), "");
    manager.stop(&mut server);
}

fn an_error_names_the_address(_: Way) {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let _taken = TcpListener::bind(&taken);
    let mut service = begin();
    let error = service.tcp("http", "127.0.0.1:80x").unwrap_err();
    assert_eq!(error.address(), "127.0.0.1:80x");
    assert_eq!(error.to_string(), format!("127.0.0.1:80x: {}", error.error()));
    println!("{error}");
    let error = service.tcp("http", "192.0.2.1:0").unwrap_err();
    let text = error.to_string();
    let rest = text.strip_prefix("192.0.2.1:0: bind on fd ").unwrap_or_else(|| panic!("{text}"));
    assert!(rest.ends_with(": address not available"), "{text}");
    let io = std::io::Error::from(error);
    assert_eq!((io.kind(), io.to_string()), (std::io::ErrorKind::AddrNotAvailable, text));
    let error = service.udp("dns", "nowhere").unwrap_err();
    assert!(error.to_string().starts_with("nowhere: "), "{error}");
    let error = service.unix("control", "/nonexistent/socket").unwrap_err();
    assert!(error.to_string().starts_with("/nonexistent/socket: bind on fd "), "{error}");
    // One name that nobody can have.
    let error = service.tcp("a:b", "127.0.0.1:0").unwrap_err();
    assert!(error.to_string().starts_with("127.0.0.1:0: "), "{error}");
}

/// Nothing is owned or closed, and the program can say so and end.
fn variables_that_lie_are_an_error(_: Way) {
    for (name, value) in
        [("LISTEN_FDS", "x"), ("LISTEN_FDS", "2000"), ("WATCHDOG_USEC", "x"), ("NOTIFY_SOCKET", "nowhere")]
    {
        unsafe { std::env::set_var(name, value) };
        let process: &Process = Box::leak(Box::default());
        let error = unsafe { process.begin(Policy::new().signals(false)) }.map(drop).unwrap_err();
        assert!(!matches!(error, Error::AlreadyBegun), "{name}={value}: {error}");
        unsafe { std::env::remove_var(name) };
    }
}

/// The parts are whoever made them's, with what is in them.
fn a_service_of_parts_leaves_the_parts(_: Way) {
    let mut launch = unsafe { gracenet::Launch::<256>::from_libc() }.unwrap();
    let mut net = gracenet::Net::<4>::new();
    unsafe { net.inherit(&mut launch) }.unwrap();
    let mut service = Service::new(&mut net, &mut launch, Policy::new()).unwrap();
    let address = service.tcp("http", "127.0.0.1:0").unwrap().local_addr().unwrap();
    service.ready().unwrap();
    assert!(service.accepts() && service.is_main());
    assert_eq!(service.poll(), None);
    drop(service);
    assert_eq!(net.active().count(), 1);
    std::net::TcpStream::connect(address).unwrap();
}
