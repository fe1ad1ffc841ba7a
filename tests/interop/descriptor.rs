//! The questions of `gracenet::descriptor`, asked of libsystemd too: the answers agree.
#![allow(clippy::multiple_unsafe_ops_per_block, reason = "tests")]

use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_void};
use std::fs::File;
use std::net::{SocketAddr, SocketAddrV6, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr as UnixAddress, UnixDatagram, UnixListener};
use std::path::Path;

use gracenet::descriptor::{self, SocketQuery, UnixName};
use rustix::fs::{Mode, OFlags};
use rustix::net::{AddressFamily, SocketType};
use socket2::{Domain, SockAddr, Socket, Type};

use crate::Test;
use crate::programs::{Need, Programs};

pub(crate) const TESTS: &[Test] =
    &[Test { name: "libsystemd::descriptor_checks", needs: &[Need::Libsystemd], run: agree }];

/// libsystemd, loaded.
struct Libsystemd(*mut c_void);

impl Libsystemd {
    fn load() -> Self {
        // SAFETY: a library without surprises at its loading.
        let library = unsafe { libc::dlopen(c"libsystemd.so.0".as_ptr(), libc::RTLD_NOW) };
        assert!(!library.is_null());
        Self(library)
    }

    /// A function of this name. `F` is its type.
    unsafe fn function<F>(&self, name: &CStr) -> F {
        // SAFETY: the library stays loaded.
        let address = unsafe { libc::dlsym(self.0, name.as_ptr()) };
        assert!(!address.is_null(), "{name:?}");
        assert_eq!(size_of::<F>(), size_of_val(&address));
        // SAFETY: the caller knows the function's type.
        unsafe { std::mem::transmute_copy(&address) }
    }
}

type WithPath = unsafe extern "C" fn(c_int, *const c_char) -> c_int;

fn agree(_: &Programs) {
    let libsystemd = Libsystemd::load();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let packet = Socket::new(Domain::UNIX, Type::SEQPACKET, None).unwrap();
    packet.bind(&SockAddr::unix(directory.path().join("packet")).unwrap()).unwrap();
    let scoped = Socket::new(Domain::IPV6, Type::DGRAM, None).unwrap();
    scoped.set_freebind_v6(true).unwrap();
    scoped.bind(&SockAddr::from(link_local(1))).unwrap();
    let (queue_name, queue) = Queue::open();
    let queue_link = format!("/proc/self/fd/{}", queue.as_raw_fd());
    let name = format!("gracenet-agree-{}", std::process::id());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let connection = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (pipe, _writer) = rustix::pipe::pipe().unwrap();
    let fds: Vec<OwnedFd> = vec![
        UdpSocket::bind("[::1]:0").unwrap().into(),
        TcpListener::bind("[::]:0").unwrap().into(),
        connection.into(),
        listener.into(),
        UnixListener::bind(&path).unwrap().into(),
        UnixListener::bind_addr(&UnixAddress::from_abstract_name(&name).unwrap()).unwrap().into(),
        UnixDatagram::unbound().unwrap().into(),
        packet.into(),
        scoped.into(),
        opened_as_path(&queue_link),
        queue,
        File::open("/dev/null").unwrap().into(),
        File::open("/etc/passwd").unwrap().into(),
        File::open("/").unwrap().into(),
        opened_as_path(&path),
        opened_as_path("/dev/null"),
        pipe,
    ];
    let path = path.as_os_str().as_bytes();
    for fd in &fds {
        let fd = fd.as_fd();
        files(&libsystemd, fd, &queue_name.0);
        for family in [None, Some(AddressFamily::INET), Some(AddressFamily::INET6), Some(AddressFamily::UNIX)]
        {
            for kind in [None, Some(SocketType::STREAM), Some(SocketType::DGRAM), Some(SocketType::SEQPACKET)]
            {
                for listening in [None, Some(false), Some(true)] {
                    sockets(&libsystemd, fd, family, kind, listening, port);
                }
            }
        }
        for address in [format!("127.0.0.1:{port}"), "127.0.0.1:0".into(), "[::1]:0".into(), "[::]:0".into()]
        {
            address_of(&libsystemd, fd, &address.parse().unwrap());
        }
        for scope in 0..3 {
            address_of(&libsystemd, fd, &link_local(scope));
        }
        for wanted in [
            None,
            Some(UnixName::Unnamed),
            Some(UnixName::Path(path)),
            Some(UnixName::Path(&path[..path.len() - 1])),
            Some(UnixName::Abstract(name.as_bytes())),
            Some(UnixName::Abstract(b"other")),
            Some(UnixName::Abstract(b"")),
        ] {
            name_of(&libsystemd, fd, wanted);
        }
    }
}

/// The name of a queue, removed when dropped.
struct Queue(CString);

impl Queue {
    fn open() -> (Self, OwnedFd) {
        let name = CString::new(format!("/gracenet-agree-{}", std::process::id())).unwrap();
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

fn opened_as_path(path: impl AsRef<Path>) -> OwnedFd {
    rustix::fs::open(path.as_ref(), OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap()
}

/// An address of the interface with this number.
fn link_local(scope: u32) -> SocketAddr {
    SocketAddrV6::new("fe80::1".parse().unwrap(), 0, 0, scope).into()
}

/// Both say the same.
fn compare(question: &str, fd: BorrowedFd<'_>, ours: Result<bool, gracenet::Error>, theirs: c_int) {
    let ours = match ours {
        Ok(answer) => c_int::from(answer),
        Err(error) => -error.errno().unwrap().raw_os_error(),
    };
    let link = std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).unwrap();
    assert_eq!(ours, theirs, "{question} of {}", link.display());
}

fn files(libsystemd: &Libsystemd, fd: BorrowedFd<'_>, queue: &CStr) {
    // SAFETY: the types of sd-daemon.h.
    let (is_fifo, is_special, is_mq): (WithPath, WithPath, WithPath) = unsafe {
        (
            libsystemd.function(c"sd_is_fifo"),
            libsystemd.function(c"sd_is_special"),
            libsystemd.function(c"sd_is_mq"),
        )
    };
    for path in [None, Some(c"/dev/null"), Some(c"/dev/zero"), Some(c"/etc/passwd"), Some(c"/nonexistent")] {
        let raw = path.map_or(std::ptr::null(), CStr::as_ptr);
        // SAFETY: the path is null or a string.
        let (fifo, special) = unsafe { (is_fifo(fd.as_raw_fd(), raw), is_special(fd.as_raw_fd(), raw)) };
        compare("is_fifo", fd, descriptor::is_fifo(fd, path), fifo);
        compare("is_special", fd, descriptor::is_special(fd, path), special);
    }
    for name in [None, Some(queue), Some(c"/nonexistent"), Some(c"no-slash")] {
        // SAFETY: the name is null or a string.
        let theirs = unsafe { is_mq(fd.as_raw_fd(), name.map_or(std::ptr::null(), CStr::as_ptr)) };
        compare(&format!("is_mq {name:?}"), fd, descriptor::is_mq(fd, name), theirs);
    }
}

fn sockets(
    libsystemd: &Libsystemd,
    fd: BorrowedFd<'_>,
    family: Option<AddressFamily>,
    kind: Option<SocketType>,
    listening: Option<bool>,
    port: u16,
) {
    type IsSocket = unsafe extern "C" fn(c_int, c_int, c_int, c_int) -> c_int;
    type IsSocketInet = unsafe extern "C" fn(c_int, c_int, c_int, c_int, u16) -> c_int;
    // SAFETY: the types of sd-daemon.h.
    let (is_socket, is_socket_inet): (IsSocket, IsSocketInet) =
        unsafe { (libsystemd.function(c"sd_is_socket"), libsystemd.function(c"sd_is_socket_inet")) };
    let raw_family = family.map_or(0, |family| family.as_raw().into());
    let raw_kind = kind.map_or(0, |kind| kind.as_raw() as c_int);
    let raw_listening = listening.map_or(-1, c_int::from);
    // SAFETY: numbers.
    let theirs = unsafe { is_socket(fd.as_raw_fd(), raw_family, raw_kind, raw_listening) };
    let question = format!("is_socket {family:?} {kind:?} {listening:?}");
    compare(&question, fd, query(family, kind, listening).matches(fd), theirs);
    if family == Some(AddressFamily::UNIX) {
        return;
    }
    for port in [None, Some(port), Some(1)] {
        // SAFETY: numbers.
        let theirs = unsafe {
            is_socket_inet(fd.as_raw_fd(), raw_family, raw_kind, raw_listening, port.unwrap_or_default())
        };
        let question = format!("is_socket_inet {family:?} {kind:?} {listening:?} {port:?}");
        let query = query(family, kind, listening);
        let query = port.map_or(query.internet(), |port| query.port(port));
        compare(&question, fd, query.matches(fd), theirs);
    }
}

fn address_of(libsystemd: &Libsystemd, fd: BorrowedFd<'_>, address: &SocketAddr) {
    type IsSocketSockaddr = unsafe extern "C" fn(c_int, c_int, *const libc::sockaddr, c_uint, c_int) -> c_int;
    // SAFETY: the type of sd-daemon.h.
    let is_socket_sockaddr: IsSocketSockaddr = unsafe { libsystemd.function(c"sd_is_socket_sockaddr") };
    let raw = SockAddr::from(*address);
    // SAFETY: an address and its length.
    let theirs = unsafe { is_socket_sockaddr(fd.as_raw_fd(), 0, raw.as_ptr().cast(), raw.len(), -1) };
    let ours = SocketQuery::new().address(*address).matches(fd);
    compare(&format!("is_socket_sockaddr {address}"), fd, ours, theirs);
}

fn name_of(libsystemd: &Libsystemd, fd: BorrowedFd<'_>, name: Option<UnixName<'_>>) {
    type IsSocketUnix = unsafe extern "C" fn(c_int, c_int, c_int, *const c_char, usize) -> c_int;
    // SAFETY: the type of sd-daemon.h.
    let is_socket_unix: IsSocketUnix = unsafe { libsystemd.function(c"sd_is_socket_unix") };
    let (string, len) = match name {
        None => (None, 0),
        Some(UnixName::Unnamed) => (Some(CString::default().into_bytes_with_nul()), 0),
        Some(UnixName::Path(path)) => (Some(CString::new(path).unwrap().into_bytes_with_nul()), 0),
        Some(UnixName::Abstract(name)) => (Some([b"\0", name].concat()), 1 + name.len()),
    };
    let raw = string.as_ref().map_or(std::ptr::null(), |string| string.as_ptr().cast());
    // SAFETY: a string, or bytes of that length.
    let theirs = unsafe { is_socket_unix(fd.as_raw_fd(), 0, -1, raw, len) };
    let any = SocketQuery::new().family(AddressFamily::UNIX);
    let ours = name.map_or(any, |name| SocketQuery::new().unix(name)).matches(fd);
    compare(&format!("is_socket_unix {name:?}"), fd, ours, theirs);
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
