//! What descriptors are: the meaning of `sd_is_*`, question by question. `tests/interop` asks libsystemd the same.
#![allow(
    unsafe_code,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::std_instead_of_core,
    clippy::unwrap_used,
    reason = "tests"
)]

mod common;

use common::{in_role, ipv6, ipv6_freebind, is_role, namespaces, passes, unshared};
use gracenet::Error;
use gracenet::descriptor::{SocketQuery, UnixName, is_fifo, is_mq, is_special};
use gracenet::error::Operation;
use rustix::fs::{CWD, FileType, Mode, OFlags, Timespec, Timestamps};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketType};
use std::ffi::CString;
use std::fs::File;
use std::net::{SocketAddr, SocketAddrV6, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr as UnixAddress, UnixDatagram, UnixListener, UnixStream};
use std::path::Path;
use std::time::{Duration, Instant};

common::trials! {
    a_fifo_is_known_by_its_file,
    what_is_not_open_is_an_error_that_names_it,
    a_socket_opened_as_a_path_answers_nothing_of_a_socket,
    a_path_that_cannot_be_looked_at_is_an_error,
    a_device_is_known_by_its_number_and_a_file_by_its_inode,
    a_file_is_known_however_large_and_whenever_written,
    a_socket_is_known_by_family_type_and_whether_it_listens,
    so_is_one_of_ipv6 if ipv6,
    an_address_is_exact_but_for_what_is_zero,
    so_is_one_of_ipv6_but_for_what_is_zero if ipv6,
    a_scope_of_zero_is_any if ipv6_freebind,
    a_unix_name_is_exact,
    a_unix_socket_is_known_by_its_type,
    a_unix_name_may_have_any_length,
    a_queue_is_known_by_its_kind,
    a_queue_is_known_by_its_name_where_names_show if namespaces,
}

/// The query of `sd_is_socket`, with `None` for what may be any.
fn query<'a>(
    family: Option<AddressFamily>,
    kind: Option<SocketType>,
    listening: Option<bool>,
) -> SocketQuery<'a> {
    let query = family.map_or(SocketQuery::new(), |family| SocketQuery::new().family(family));
    let query = kind.map_or(query, |kind| query.kind(kind));
    listening.map_or(query, |listening| query.listening(listening))
}

fn is_socket(
    fd: impl AsFd,
    family: Option<AddressFamily>,
    kind: Option<SocketType>,
    listening: Option<bool>,
) -> Result<bool, Error> {
    query(family, kind, listening).matches(fd)
}

fn is_socket_inet(
    fd: impl AsFd,
    family: Option<AddressFamily>,
    kind: Option<SocketType>,
    listening: Option<bool>,
    port: Option<u16>,
) -> Result<bool, Error> {
    let query = query(family, kind, listening);
    port.map_or(query.internet(), |port| query.port(port)).matches(fd)
}

fn is_socket_sockaddr(
    fd: impl AsFd,
    kind: Option<SocketType>,
    address: &SocketAddr,
    listening: Option<bool>,
) -> Result<bool, Error> {
    query(None, kind, listening).address(*address).matches(fd)
}

fn is_socket_unix(
    fd: impl AsFd,
    kind: Option<SocketType>,
    listening: Option<bool>,
    name: Option<UnixName<'_>>,
) -> Result<bool, Error> {
    match name {
        Some(name) => query(None, kind, listening).unix(name).matches(fd),
        None => query(Some(AddressFamily::UNIX), kind, listening).matches(fd),
    }
}

fn open_path(path: &Path) -> OwnedFd {
    rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap()
}

fn c_path(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).unwrap()
}

fn a_fifo_is_known_by_its_file() {
    let directory = tempfile::tempdir().unwrap();
    let [one, other] = ["one", "other"].map(|name| c_path(&directory.path().join(name)));
    for path in [&one, &other] {
        rustix::fs::mknodat(CWD, path.as_c_str(), FileType::Fifo, Mode::RWXU, 0).unwrap();
    }
    let fifo = rustix::fs::open(one.as_c_str(), OFlags::RDWR, Mode::empty()).unwrap();
    assert_eq!(is_fifo(&fifo, None), Ok(true));
    assert_eq!(is_fifo(&fifo, Some(&one)), Ok(true));
    assert_eq!(is_fifo(&fifo, Some(&other)), Ok(false));
    assert_eq!(is_fifo(&fifo, Some(c"/nonexistent")), Ok(false));
    assert_eq!(is_fifo(&fifo, Some(c"/dev/null/below")), Ok(false));
    assert_eq!(is_special(&fifo, None), Ok(false));
    assert_eq!(is_socket(&fifo, None, None, None), Ok(false));
    let (pipe, _writer) = rustix::pipe::pipe().unwrap();
    assert_eq!(is_fifo(&pipe, None), Ok(true));
    assert_eq!(is_fifo(&pipe, Some(&one)), Ok(false));
    let file = File::open("/dev/null").unwrap();
    assert_eq!(is_fifo(&file, Some(c"/dev/null")), Ok(false));
}

fn what_is_not_open_is_an_error_that_names_it() {
    // SAFETY: a number that no descriptor has, which every call refuses.
    let closed = unsafe { BorrowedFd::borrow_raw(i32::MAX) };
    let error = Err(Error::Call { operation: Operation::Fstat, fd: Some(i32::MAX), errno: Errno::BADF });
    assert_eq!(is_fifo(closed, None), error);
    assert_eq!(is_special(closed, None), error);
    assert_eq!(is_socket(closed, None, None, None), error);
    assert_eq!(is_socket_inet(closed, None, None, None, None), error);
    assert_eq!(is_socket_sockaddr(closed, None, &"[::]:0".parse().unwrap(), None), error);
    assert_eq!(is_socket_unix(closed, None, None, None), error);
    assert_eq!(is_mq(closed, None), error);
}

fn a_socket_opened_as_a_path_answers_nothing_of_a_socket() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let _listener = UnixListener::bind(&path).unwrap();
    let fd = open_path(&path);
    let error = |operation| Err(Error::Call { operation, fd: Some(fd.as_raw_fd()), errno: Errno::BADF });
    assert_eq!(is_socket(&fd, None, None, None), Ok(true));
    assert_eq!(is_socket(&fd, None, Some(SocketType::STREAM), None), error(Operation::Getsockopt));
    assert_eq!(is_socket(&fd, None, None, Some(true)), error(Operation::Getsockopt));
    assert_eq!(is_socket(&fd, Some(AddressFamily::UNIX), None, None), error(Operation::Getsockname));
    assert_eq!(is_socket_inet(&fd, None, None, None, None), error(Operation::Getsockname));
    assert_eq!(
        is_socket_sockaddr(&fd, None, &"[::]:0".parse().unwrap(), None),
        error(Operation::Getsockname)
    );
    assert_eq!(is_socket_unix(&fd, None, None, None), error(Operation::Getsockname));
}

fn a_path_that_cannot_be_looked_at_is_an_error() {
    let (pipe, _writer) = rustix::pipe::pipe().unwrap();
    let long = CString::new("x".repeat(5000)).unwrap();
    let error = Error::Call { operation: Operation::Stat, fd: None, errno: Errno::NAMETOOLONG };
    assert_eq!(is_fifo(&pipe, Some(&long)), Err(error));
    assert_eq!(is_special(File::open("/dev/null").unwrap(), Some(&long)), Err(error));
}

fn a_device_is_known_by_its_number_and_a_file_by_its_inode() {
    let directory = tempfile::tempdir().unwrap();
    let [one, copy] = ["one", "copy"].map(|name| directory.path().join(name));
    std::fs::write(&one, "").unwrap();
    std::fs::write(&copy, "").unwrap();
    let null = File::open("/dev/null").unwrap();
    let file = File::open(&one).unwrap();
    assert_eq!(is_special(&null, None), Ok(true));
    assert_eq!(is_special(&null, Some(c"/dev/null")), Ok(true));
    assert_eq!(is_special(&null, Some(c"/dev/zero")), Ok(false));
    assert_eq!(is_special(&null, Some(&c_path(&one))), Ok(false));
    assert_eq!(is_special(&null, Some(c"/nonexistent")), Ok(false));
    assert_eq!(is_special(&file, None), Ok(true));
    assert_eq!(is_special(&file, Some(&c_path(&one))), Ok(true));
    assert_eq!(is_special(&file, Some(&c_path(&copy))), Ok(false));
    assert_eq!(is_special(&file, Some(c"/dev/null")), Ok(false));
    assert_eq!(is_special(File::open(directory.path()).unwrap(), None), Ok(false));
}

/// Neither its size nor its time fits into 32 bits.
fn a_file_is_known_however_large_and_whenever_written() {
    let directory = tempfile::tempdir().unwrap();
    let late = Timespec { tv_sec: 1 << 32, tv_nsec: 0 };
    let [one, copy] = ["one", "copy"].map(|name| {
        let path = directory.path().join(name);
        let file = File::create(&path).unwrap();
        file.set_len(5 << 30).unwrap();
        rustix::fs::futimens(&file, &Timestamps { last_access: late, last_modification: late }).unwrap();
        path
    });
    let file = File::open(&one).unwrap();
    let found = rustix::fs::fstat(&file).unwrap();
    assert_eq!((found.st_size, found.st_mtime), (5 << 30, late.tv_sec));
    assert_eq!(is_special(&file, Some(&c_path(&one))), Ok(true));
    assert_eq!(is_special(&file, Some(&c_path(&copy))), Ok(false));
    assert_eq!(is_mq(&file, None), Ok(false));
}

const INET: AddressFamily = AddressFamily::INET;
const INET6: AddressFamily = AddressFamily::INET6;

/// Asserts what is said of a listener, a connection and a datagram socket, of which some are there.
fn are_known(sockets: [Option<&dyn AsFd>; 3]) {
    let (stream, dgram) = (SocketType::STREAM, SocketType::DGRAM);
    for (family, kind, listening, expected) in [
        (None, None, None, [true; 3]),
        (Some(INET), None, None, [true, true, false]),
        (Some(INET6), None, None, [false, false, true]),
        (Some(AddressFamily::UNIX), None, None, [false; 3]),
        (None, Some(stream), None, [true, true, false]),
        (None, Some(dgram), None, [false, false, true]),
        (None, None, Some(true), [true, false, false]),
        (None, None, Some(false), [false, true, true]),
        (Some(INET), Some(stream), Some(true), [true, false, false]),
    ] {
        for (socket, expected) in sockets.iter().zip(expected) {
            let Some(socket) = socket else { continue };
            let found = is_socket(socket, family, kind, listening);
            assert_eq!(found, Ok(expected), "{family:?} {kind:?} {listening:?}");
            let found = is_socket_inet(socket, family, kind, listening, None);
            assert_eq!(found, Ok(expected), "inet: {family:?} {kind:?} {listening:?}");
        }
    }
}

fn a_socket_is_known_by_family_type_and_whether_it_listens() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let connection = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    are_known([Some(&listener), Some(&connection), None]);
    let port = listener.local_addr().unwrap().port();
    assert_eq!(is_socket_inet(&listener, None, None, None, Some(port)), Ok(true));
    assert_eq!(is_socket_inet(&listener, None, None, None, Some(port ^ 1)), Ok(false));
    assert_eq!(is_socket_inet(&listener, Some(INET6), None, None, Some(port)), Ok(false));
    assert_eq!(is_socket_inet(&listener, None, None, None, Some(0)), Ok(false));
    assert_eq!(is_socket_inet(UnixDatagram::unbound().unwrap(), None, None, None, None), Ok(false));
    assert_eq!(is_socket_inet(File::open("/dev/null").unwrap(), None, None, None, None), Ok(false));
}

fn so_is_one_of_ipv6() {
    are_known([None, None, Some(&UdpSocket::bind("[::1]:0").unwrap())]);
    let dgram = SocketType::DGRAM;
    let fresh = rustix::net::socket(INET6, dgram, None).unwrap();
    assert_eq!(is_socket_inet(&fresh, Some(INET6), Some(dgram), Some(false), Some(0)), Ok(true));
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// Asserts which addresses are this listener's.
fn is_at(listener: &TcpListener) {
    let own = listener.local_addr().unwrap();
    let v6_with = |flow, scope| SocketAddrV6::new("::1".parse().unwrap(), own.port(), flow, scope).into();
    let with_port = |text: &str, port| SocketAddr::new(text.parse().unwrap(), port);
    for (wanted, [by_v4, by_v6]) in [
        (with_port("127.0.0.1", own.port()), [true, false]),
        (address("127.0.0.1:0"), [true, false]),
        (with_port("127.0.0.1", own.port() ^ 1), [false, false]),
        (with_port("127.0.0.2", own.port()), [false, false]),
        (address("0.0.0.0:0"), [false, false]),
        (with_port("::1", own.port()), [false, true]),
        (address("[::1]:0"), [false, true]),
        (address("[::]:0"), [false, false]),
        (v6_with(1, 0), [false, false]),
        (v6_with(0, 1), [false, false]),
    ] {
        let expected = if own.is_ipv4() { by_v4 } else { by_v6 };
        assert_eq!(is_socket_sockaddr(listener, None, &wanted, None), Ok(expected), "{wanted}");
    }
}

fn an_address_is_exact_but_for_what_is_zero() {
    let v4 = TcpListener::bind("127.0.0.1:0").unwrap();
    is_at(&v4);
    let wanted = address("127.0.0.1:0");
    assert_eq!(is_socket_sockaddr(&v4, Some(SocketType::STREAM), &wanted, Some(true)), Ok(true));
    assert_eq!(is_socket_sockaddr(&v4, Some(SocketType::DGRAM), &wanted, None), Ok(false));
    assert_eq!(is_socket_sockaddr(&v4, None, &wanted, Some(false)), Ok(false));
    assert_eq!(is_socket_sockaddr(UnixDatagram::unbound().unwrap(), None, &wanted, None), Ok(false));
}

fn so_is_one_of_ipv6_but_for_what_is_zero() {
    is_at(&TcpListener::bind("[::1]:0").unwrap());
}

fn a_scope_of_zero_is_any() {
    let socket = socket2::Socket::new(socket2::Domain::IPV6, socket2::Type::DGRAM, None).unwrap();
    // The address need not be the loopback interface's, which is the first of every network namespace.
    socket.set_freebind_v6(true).unwrap();
    let with = |flow, scope| SocketAddr::from(SocketAddrV6::new("fe80::1".parse().unwrap(), 0, flow, scope));
    socket.bind(&with(0, 1).into()).unwrap();
    for (flow, scope, expected) in [(0, 0, true), (0, 1, true), (0, 2, false), (1, 1, false)] {
        let found = is_socket_sockaddr(&socket, None, &with(flow, scope), None);
        assert_eq!(found, Ok(expected), "{flow} {scope}");
    }
}

fn a_unix_name_is_exact() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let bound = UnixListener::bind(&path).unwrap();
    let name = format!("gracenet-descriptor-{}", std::process::id());
    let hidden = UnixListener::bind_addr(&UnixAddress::from_abstract_name(&name).unwrap()).unwrap();
    let unnamed = UnixDatagram::unbound().unwrap();
    let path = path.as_os_str().as_bytes();
    for (wanted, expected) in [
        (None, [true; 3]),
        (Some(UnixName::Unnamed), [false, false, true]),
        (Some(UnixName::Path(path)), [true, false, false]),
        (Some(UnixName::Path(&path[..path.len() - 1])), [false; 3]),
        (Some(UnixName::Path(b"")), [false; 3]),
        (Some(UnixName::Abstract(name.as_bytes())), [false, true, false]),
        (Some(UnixName::Abstract(&name.as_bytes()[1..])), [false; 3]),
        (Some(UnixName::Path(name.as_bytes())), [false; 3]),
        (Some(UnixName::Abstract(path)), [false; 3]),
    ] {
        let found = [
            is_socket_unix(&bound, None, None, wanted),
            is_socket_unix(&hidden, None, None, wanted),
            is_socket_unix(&unnamed, None, None, wanted),
        ];
        assert_eq!(found, expected.map(Ok), "{wanted:?}");
    }
    let wanted = Some(UnixName::Path(path));
    assert_eq!(is_socket_unix(&bound, Some(SocketType::STREAM), Some(true), wanted), Ok(true));
    assert_eq!(is_socket_unix(&bound, Some(SocketType::SEQPACKET), None, wanted), Ok(false));
    assert_eq!(is_socket_unix(&bound, None, Some(false), wanted), Ok(false));
    assert_eq!(is_socket_unix(TcpListener::bind("127.0.0.1:0").unwrap(), None, None, None), Ok(false));
}

fn a_unix_socket_is_known_by_its_type() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let packet = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::SEQPACKET, None).unwrap();
    packet.bind(&socket2::SockAddr::unix(&path).unwrap()).unwrap();
    let datagram = UnixDatagram::bind(directory.path().join("datagram")).unwrap();
    let name = Some(UnixName::Path(path.as_os_str().as_bytes()));
    let (packets, datagrams) = (Some(SocketType::SEQPACKET), Some(SocketType::DGRAM));
    assert_eq!(is_socket_unix(&packet, packets, Some(false), name), Ok(true));
    packet.listen(1).unwrap();
    assert_eq!(is_socket_unix(&packet, packets, Some(true), name), Ok(true));
    assert_eq!(is_socket_unix(&packet, datagrams, None, name), Ok(false));
    assert_eq!(is_socket_unix(&datagram, datagrams, Some(false), None), Ok(true));
    assert_eq!(is_socket_unix(&datagram, datagrams, None, name), Ok(false));
    let (one, _other) = UnixStream::pair().unwrap();
    assert_eq!(is_socket_unix(&one, None, None, Some(UnixName::Unnamed)), Ok(true));
    assert_eq!(is_socket_unix(File::open("/dev/null").unwrap(), None, None, None), Ok(false));
}

fn a_unix_name_may_have_any_length() {
    let own = format!("gracenet-descriptor-{}-", std::process::id());
    for name in ["", &format!("\0{own}\0"), &format!("{own:x<107}")].map(str::as_bytes) {
        let address = UnixAddress::from_abstract_name(name).unwrap();
        // The empty name is everybody's, and another run may have it for a moment.
        let begin = Instant::now();
        let socket = loop {
            match UnixDatagram::bind_addr(&address) {
                Ok(socket) => break socket,
                Err(error) => {
                    assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse);
                    assert!(begin.elapsed() < Duration::from_secs(10), "{error}");
                }
            }
        };
        let longer = [name, b"\0"].concat();
        let wanted = |name| is_socket_unix(&socket, None, None, Some(name));
        assert_eq!(wanted(UnixName::Abstract(name)), Ok(true), "{}", name.escape_ascii());
        assert_eq!(wanted(UnixName::Abstract(&longer)), Ok(false));
        assert_eq!(wanted(UnixName::Unnamed), Ok(false));
        assert_eq!(wanted(UnixName::Path(name)), Ok(false));
    }
    let directory = tempfile::tempdir().unwrap();
    let base = directory.path().join("s").into_os_string().into_string().unwrap();
    for (len, is_recognised) in [(107, true), (108, false)] {
        let path = format!("{base:s<len$}");
        let socket = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None).unwrap();
        rustix::net::bind(&socket, &SocketAddrUnix::new(&*path).unwrap()).unwrap();
        let wanted = |name| is_socket_unix(&socket, None, None, name);
        assert_eq!(wanted(Some(UnixName::Path(path.as_bytes()))), Ok(is_recognised), "{len}");
        assert_eq!(wanted(Some(UnixName::Path(&path.as_bytes()[..len - 1]))), Ok(false));
        assert_eq!(wanted(Some(UnixName::Unnamed)), Ok(false));
        assert_eq!(wanted(None), Ok(true));
    }
}

/// A queue of POSIX, removed when dropped.
struct Queue(CString);

impl Queue {
    fn open(name: &str) -> (Self, OwnedFd) {
        let name = CString::new(name).unwrap();
        let flags = libc::O_CREAT | libc::O_RDWR | libc::O_CLOEXEC;
        // SAFETY: a name that ends with a NUL, and default attributes.
        let fd = unsafe { libc::mq_open(name.as_ptr(), flags, 0o600, std::ptr::null_mut::<libc::mq_attr>()) };
        assert!(fd >= 0, "{}", std::io::Error::last_os_error());
        // SAFETY: just opened; on Linux a queue's descriptor is a file's.
        (Self(name), unsafe { OwnedFd::from_raw_fd(fd) })
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        // SAFETY: a name that ends with a NUL.
        unsafe { libc::mq_unlink(self.0.as_ptr()) };
    }
}

fn a_queue_is_known_by_its_kind() {
    let (queue, fd) = Queue::open(&format!("/gracenet-{}", std::process::id()));
    assert_eq!(is_mq(&fd, None), Ok(true));
    assert_eq!(is_special(&fd, None), Ok(true));
    let link = format!("/proc/self/fd/{}", fd.as_raw_fd());
    assert_eq!(is_mq(File::open(&link).unwrap(), None), Ok(true));
    assert_eq!(is_mq(open_path(Path::new(&link)), None), Ok(false));
    for nothing in ["/dev/null", "/etc/passwd", "/proc/self/stat"] {
        assert_eq!(is_mq(File::open(nothing).unwrap(), None), Ok(false), "{nothing}");
    }
    assert_eq!(is_mq(UnixDatagram::unbound().unwrap(), Some(&queue.0)), Ok(false));
    let stat_failed = |errno| Err(Error::Call { operation: Operation::Stat, fd: None, errno });
    assert_eq!(is_mq(&fd, Some(c"no-slash")), stat_failed(Errno::INVAL));
    assert_eq!(is_mq(&fd, Some(c"")), stat_failed(Errno::INVAL));
    let longest = format!("/{}", "x".repeat(255));
    assert_eq!(is_mq(&fd, Some(&CString::new(&*longest).unwrap())), stat_failed(Errno::NOENT));
    assert_eq!(is_mq(&fd, Some(&CString::new(longest + "x").unwrap())), stat_failed(Errno::NAMETOOLONG));
    assert_eq!(is_mq(&fd, Some(c"/gracenet-none")), stat_failed(Errno::NOENT));
}

/// The names show where the file system of queues is mounted, and nowhere else.
fn a_queue_is_known_by_its_name_where_names_show() {
    const NAME: &str = "a_queue_is_known_by_its_name_where_names_show";
    if is_role(NAME) {
        let (queue, fd) = Queue::open("/a");
        let (other, _) = Queue::open("/b");
        let expected = if Path::new("/dev/mqueue").exists() {
            [Ok(true), Ok(false)]
        } else {
            [Err(Error::Call { operation: Operation::Stat, fd: None, errno: Errno::NOENT }); 2]
        };
        assert_eq!([&queue, &other].map(|queue| is_mq(&fd, Some(&queue.0))), expected);
        return;
    }
    let nowhere = "mount -t tmpfs none /dev";
    let mounted = format!("{nowhere}; mkdir /dev/mqueue; mount -t mqueue none /dev/mqueue");
    for script in [nowhere, &mounted] {
        passes(in_role(unshared(script).arg(std::env::current_exe().unwrap()), NAME));
    }
}
