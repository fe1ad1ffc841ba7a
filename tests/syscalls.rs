//! What inheriting, claiming and restarting cost in system calls, counted by strace, and what happens where a
//! kernel lacks one, which strace plays.
//!
//! Without strace they are shown as ignored, but where `GRACENET_INTEROP=all` says that everything is to be there.
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

use common::{in_role, inherit_from, is_open, is_role, launch, passes, place_at, reclaim, strace};
use gracenet::error::{MessageFault, Operation};
use gracenet::notify::Assignment;
use gracenet::{Error, InheritOptions, ListenOptions, Net, Notifier};
use rustix::fs::Access;
use rustix::io::{Errno, FdFlags};
use rustix::net::{AddressFamily, SocketType};
use rustix::process::{Pid, Resource, Rlimit, Signal, getpid, getrlimit, kill_process, setrlimit};
use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, IntoRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;

common::trials! {
    claiming_a_thousand_tcp_listeners_costs_two_calls_for_each if strace,
    claiming_a_thousand_udp_sockets_costs_two_calls_for_each if strace,
    reading_the_addresses_of_a_thousand_unix_listeners_costs_two_calls_for_each if strace,
    a_restart_costs_twenty_calls_at_most if strace,
    cloexec_is_set_one_by_one_where_there_is_no_close_range if strace,
    a_pidfd_id_is_not_compared_where_there_is_no_pidfd if strace,
    a_directory_that_is_gone_stops_no_start if strace,
    the_wildcard_is_ipv4s_where_there_is_no_ipv6 if strace,
    a_vsock_is_spoken_to_in_its_four_forms if strace,
    a_vsock_stream_is_over_when_the_other_end_closes if strace,
}

/// Where strace writes what it saw.
struct Trace(TempDir);

impl Trace {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// A strace of `program`, to which arguments can be added.
    fn command(&self, options: &[&str], program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("strace");
        command.args(["-f", "-qq", "-s", "64", "-o"]).arg(self.0.path().join("trace"));
        command.args(options).arg(program);
        command
    }

    /// Runs the test called `name` as a child under strace.
    fn run_role(&self, options: &[&str], name: &str) {
        passes(in_role(&mut self.command(options, std::env::current_exe().unwrap()), name));
    }

    /// The system calls in the order of their beginnings: who called, and the line.
    fn calls(&self) -> Vec<(i32, String)> {
        let text = std::fs::read_to_string(self.0.path().join("trace")).unwrap();
        let call = |line: &str| {
            let (pid, call) = line.split_once(' ')?;
            let call = call.trim_start();
            let is_call = !["<...", "---", "+++"].iter().any(|other| call.starts_with(other));
            is_call.then(|| (pid.parse().unwrap(), call.to_owned()))
        };
        text.lines().filter_map(call).collect()
    }

    /// The calls that one thread made between its two marks.
    fn between_marks(&self) -> Vec<String> {
        let calls = self.calls();
        let mark = |name| calls.iter().position(|(_, call)| call.contains(name)).unwrap();
        let (begin, end) = (mark(BEGIN), mark(END));
        let thread = calls[begin].0;
        assert_eq!(calls[end].0, thread);
        calls[begin + 1..end].iter().filter(|call| call.0 == thread).map(|call| call.1.clone()).collect()
    }
}

const BEGIN: &str = "/gracenet-begin";
const END: &str = "/gracenet-end";

/// A call that does nothing but show up in the trace.
fn mark(name: &str) {
    rustix::fs::access(name, Access::EXISTS).unwrap_err();
}

/// How often each call was made.
fn summary(calls: &[String]) -> String {
    let mut names: Vec<_> = calls.iter().map(|call| call.split('(').next().unwrap()).collect();
    names.sort_unstable();
    let runs = names.chunk_by(|one, other| one == other);
    runs.map(|run| format!("{} {}", run.len(), run[0])).collect::<Vec<_>>().join(", ")
}

/// As many descriptors as the limit allows, up to 1000: the number to begin at, and how many.
fn room() -> (RawFd, usize) {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }).unwrap();
    let most = limit.maximum.unwrap_or(u64::MAX).min(1 << 16) as RawFd;
    // Whoever started the tests may have left something open among the first few hundred.
    let count = (most - 300).min(1000);
    let free = |first: &RawFd| !(*first..first + count).any(is_open);
    ((10..=most - count).find(free).expect("no numbers in a row"), count as usize)
}

/// Inherits from `first` on what was placed there, and listens on all of it, last address first.
fn claim_all(first: RawFd, network: &str, addresses: &[String]) {
    let count = addresses.len();
    let mut launch = launch(&[&format!("LISTEN_FDS={count}"), &format!("LISTEN_PID={}", getpid())]);
    let mut net = Box::new(Net::<1000>::new());
    mark(BEGIN);
    assert_eq!(inherit_from(&mut net, &mut launch, first, InheritOptions::new()), Ok(count));
    for address in addresses.iter().rev() {
        net.listen(network, address).unwrap();
    }
    mark(END);
    assert_eq!(net.active().len(), count);
    assert_eq!(net.inherited().count(), 0);
}

fn claiming_a_thousand_tcp_listeners_costs_two_calls_for_each() {
    claiming_costs_two_calls_for_each(
        "claiming_a_thousand_tcp_listeners_costs_two_calls_for_each",
        "tcp",
        || {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            (listener.local_addr().unwrap(), listener.into())
        },
    );
}

fn claiming_a_thousand_udp_sockets_costs_two_calls_for_each() {
    claiming_costs_two_calls_for_each(
        "claiming_a_thousand_udp_sockets_costs_two_calls_for_each",
        "udp",
        || {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            (socket.local_addr().unwrap(), socket.into())
        },
    );
}

fn claiming_costs_two_calls_for_each(name: &str, network: &str, bind: impl Fn() -> (SocketAddr, OwnedFd)) {
    if is_role(name) {
        let (first, count) = room();
        let bind = |number| {
            let (address, socket) = bind();
            place_at(socket.as_fd(), number);
            address.to_string()
        };
        let addresses: Vec<_> = (first..).take(count).map(bind).collect();
        return claim_all(first, network, &addresses);
    }
    let trace = Trace::new();
    trace.run_role(&[], name);
    let calls = trace.between_marks();
    let sockets = calls.iter().filter(|call| call.starts_with("getsockname(")).count();
    assert!(sockets >= 100, "{}", summary(&calls));
    assert!(calls.len() <= 2 * sockets + 20, "{}", summary(&calls));
    assert!(!calls.iter().any(|call| call.starts_with("socket(")), "{}", summary(&calls));
}

fn reading_the_addresses_of_a_thousand_unix_listeners_costs_two_calls_for_each() {
    const NAME: &str = "reading_the_addresses_of_a_thousand_unix_listeners_costs_two_calls_for_each";
    if is_role(NAME) {
        let dir = tempfile::tempdir().unwrap();
        let (first, count) = room();
        // So long that only part of it is kept.
        let bind = |number| {
            let path = dir.path().join(format!("{:060}", number));
            place_at(UnixListener::bind(&path).unwrap().as_fd(), number);
            path.to_str().unwrap().to_owned()
        };
        let addresses: Vec<_> = (first..).take(count).map(bind).collect();
        return claim_all(first, "unix", &addresses);
    }
    let trace = Trace::new();
    trace.run_role(&[], NAME);
    let calls = trace.between_marks();
    let (addresses, rest): (Vec<_>, Vec<_>) =
        calls.iter().cloned().partition(|call| call.starts_with("getsockname("));
    let sockets = addresses.len() / 2;
    assert!(sockets >= 100, "{}", summary(&calls));
    // Beside its address, whether it listens, and its type.
    assert!(rest.len() <= 2 * sockets + 20, "{}", summary(&calls));
}

fn a_restart_costs_twenty_calls_at_most() {
    let trace = Trace::new();
    // Examples are built beside the tests.
    let exe = std::env::current_exe().unwrap();
    let serve = exe.ancestors().nth(2).unwrap().join("examples/serve");
    assert!(Path::new(&serve).exists(), "{} is not built: cargo build --example serve", serve.display());

    let mut command = trace.command(&[], &serve);
    let mut child = command.args(["--name", "web", "127.0.0.1:0"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut ready = || -> (Pid, String) {
        let line = lines.next().expect("serve ended").unwrap();
        let pid = line.strip_prefix("ready pid=").unwrap().split(' ').next().unwrap().parse().unwrap();
        (Pid::from_raw(pid).unwrap(), line)
    };
    let (predecessor, _) = ready();
    kill_process(predecessor, Signal::USR2).unwrap();
    let (successor, line) = ready();
    assert!(line.ends_with(" inherited=1 listeners=1"), "{line}");
    kill_process(successor, Signal::TERM).unwrap();
    // Both close their end of the pipe when they end.
    assert!(lines.next().is_none());
    assert!(child.wait().unwrap().success());

    let (old, new) = (predecessor.as_raw_nonzero().get(), successor.as_raw_nonzero().get());
    let calls = trace.calls();
    let pair = |call: &str| call.starts_with("socketpair(") && call.contains("SOCK_SEQPACKET");
    let begin = calls.iter().position(|(pid, call)| *pid == old && pair(call)).unwrap();
    let end = calls.iter().position(|(pid, call)| *pid == new && call.starts_with("execve")).unwrap();
    let counted: Vec<_> = calls[begin..=end]
        .iter()
        .filter(|(pid, call)| [old, new].contains(pid) && !call.contains("poll("))
        .map(|(_, call)| call.clone())
        .collect();
    eprintln!("{} calls: {}", counted.len(), summary(&counted));
    assert!(counted.len() <= 20, "{}", counted.join("\n"));
}

/// Listeners on numbers of the child's own, without `FD_CLOEXEC`.
fn passed(count: usize) -> RawFd {
    let first = common::reserve(count);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    for number in (first..).take(count) {
        place_at(listener.as_fd(), number);
    }
    for fd in reclaim(first, count) {
        rustix::io::fcntl_setfd(&fd, FdFlags::empty()).unwrap();
        let _ = fd.into_raw_fd();
    }
    first
}

fn cloexec_is_set_one_by_one_where_there_is_no_close_range() {
    const NAME: &str = "cloexec_is_set_one_by_one_where_there_is_no_close_range";
    if is_role(NAME) {
        let first = passed(5);
        let mut net = Net::<5>::new();
        let result = inherit_from(&mut net, &mut launch(&["LISTEN_FDS=5"]), first, InheritOptions::new());
        assert_eq!(result, Ok(5));
        for (_, socket) in net.inherited() {
            assert_eq!(rustix::io::fcntl_getfd(socket), Ok(FdFlags::CLOEXEC));
        }
        return;
    }
    let trace = Trace::new();
    for error in ["ENOSYS", "EINVAL", "EPERM"] {
        trace.run_role(&["-e", &format!("inject=close_range:error={error}")], NAME);
        assert!(trace.calls().iter().any(|(_, call)| call.contains("(INJECTED)")), "{error}");
    }
    trace.run_role(&[], NAME);
    let ranges = trace.calls().iter().filter(|(_, call)| call.contains("CLOSE_RANGE_CLOEXEC")).count();
    // Of the numbers that were passed; musl sets the flag of whatever it opens.
    let passed = |call: &str| call.split_once("(2").is_some_and(|(_, rest)| rest.as_bytes()[2] == b',');
    let flags = trace.calls();
    let flags = flags.iter().filter(|(_, call)| call.contains("F_SETFD, FD_CLOEXEC") && passed(call)).count();
    assert!((ranges, flags) == (1, 0) || ranges == 0, "{ranges} close_range, {flags} fcntl");
}

fn a_pidfd_id_is_not_compared_where_there_is_no_pidfd() {
    const NAME: &str = "a_pidfd_id_is_not_compared_where_there_is_no_pidfd";
    if is_role(NAME) {
        let first = passed(1);
        let pid = format!("LISTEN_PID={}", getpid());
        let mut launch = launch(&["LISTEN_FDS=1", &pid, "LISTEN_PIDFDID=1"]);
        let mut net = Net::<1>::new();
        assert_eq!(inherit_from(&mut net, &mut launch, first, InheritOptions::new()), Ok(1));
        return;
    }
    let trace = Trace::new();
    trace.run_role(&["-e", "inject=pidfd_open:error=ENOSYS"], NAME);
    // On 32 bits it is never asked for.
    let injected = trace.calls().iter().any(|(_, call)| call.contains("(INJECTED)"));
    assert_eq!(injected, cfg!(target_pointer_width = "64"));
}

/// As where it is on a file system that is not there any more. What it does not open for want of room is an error.
fn a_directory_that_is_gone_stops_no_start() {
    const NAME: &str = "a_directory_that_is_gone_stops_no_start";
    const EXPECTED: &str = "GRACENET_TEST_EXPECTED";
    if is_role(NAME) {
        // SAFETY: nobody changes the environment.
        let launch = unsafe { gracenet::Launch::<64>::from_libc() };
        assert_eq!(format!("{:?}", launch.map(drop)), std::env::var(EXPECTED).unwrap());
        return;
    }
    let trace = Trace::new();
    let full = Error::Call { operation: Operation::OpenDirectory, fd: None, errno: Errno::MFILE };
    for (error, expected) in [("ESTALE", Ok(())), ("ENOTCONN", Ok(())), ("EMFILE", Err(full))] {
        let expected = format!("-E{EXPECTED}={expected:?}");
        trace.run_role(&[&expected, "-P", ".", "-e", &format!("inject=?open,openat:error={error}")], NAME);
        assert!(trace.calls().iter().any(|(_, call)| call.contains("(INJECTED)")), "{error}");
    }
}

fn the_wildcard_is_ipv4s_where_there_is_no_ipv6() {
    const NAME: &str = "the_wildcard_is_ipv4s_where_there_is_no_ipv6";
    if is_role(NAME) {
        // Every other call of socket fails; the one behind it is for IPv4.
        for network in ["tcp", "udp"] {
            let mut net = Net::<1>::new();
            let id = net.listen(network, ":0").unwrap();
            let address = common::local_of(&net, id);
            assert_eq!(address.ip(), Ipv4Addr::UNSPECIFIED);
            let mut successor: Net<1> = common::inherited(&[&net.fd(id).unwrap()]);
            successor.claim(network, &format!(":{}", address.port())).unwrap();
        }
        for (network, options) in [("tcp", ListenOptions::new().v6only(true)), ("tcp6", ListenOptions::new())]
        {
            let error = Net::<1>::new().listen_with(network, ":0", &options).unwrap_err();
            assert_eq!(error.errno(), Some(Errno::AFNOSUPPORT), "{network}");
            // The call that does not fail; made as the library makes its own, which on x86 is by socketcall.
            rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
        }
        return;
    }
    let trace = Trace::new();
    trace.run_role(&["-e", "inject=socket:error=EAFNOSUPPORT:when=1+2"], NAME);
    let injected = trace.calls().iter().filter(|(_, call)| call.contains("(INJECTED)")).count();
    assert_eq!(injected, 4);
}

/// The calls that one message to `address` makes: by strace, which answers them in a hypervisor's place.
fn vsock_calls(address: &str, inject: &[&str]) -> (String, Vec<String>) {
    const ROLE: &str = "a_vsock_is_spoken_to_in_its_four_forms";
    let log = tempfile::NamedTempFile::new().unwrap();
    let mut strace = Command::new("strace");
    strace.args(["-f", "-qq", "-o"]).arg(log.path());
    strace.args(["-e", "trace=socket,bind,connect,sendmsg,shutdown,recvfrom,?recv"]);
    for inject in inject {
        strace.args(["-e", &format!("inject={inject}")]);
    }
    strace.arg(std::env::current_exe().unwrap()).env("GRACENET_TEST_VSOCK", address);
    let output = in_role(&mut strace, ROLE).output().expect("strace (Debian: strace)");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let said = said.split("vsock: ").nth(1).unwrap_or_else(|| panic!("{output:?}"));
    let calls = std::fs::read_to_string(log.path()).unwrap();
    let is_vsock = |line: &&str| line.contains("AF_VSOCK") || line.contains("(100, ");
    let calls =
        calls.lines().filter(is_vsock).map(|line| line.split_once(' ').unwrap().1.trim_start().to_owned());
    (said.lines().next().unwrap().to_owned(), calls.collect())
}

fn a_vsock_is_spoken_to_in_its_four_forms() {
    const FAKE: &str = "socket:retval=100";
    const ANSWERS: [&str; 6] = [
        FAKE,
        "bind:retval=0",
        "connect:retval=0",
        "sendmsg:retval=7",
        "shutdown:retval=0",
        "recvfrom,?recv:retval=0",
    ];
    if is_role("a_vsock_is_spoken_to_in_its_four_forms") {
        let address = std::env::var("GRACENET_TEST_VSOCK").unwrap();
        let file = std::fs::File::open("/dev/null").unwrap();
        // Where strace puts the socket, so that it can be closed.
        place_at(file.as_fd(), 100);
        let notifier = Notifier::parse(address.as_bytes()).unwrap();
        let result = notifier.send(&[Assignment::Ready]);
        let with_fd = notifier.send_with_fds(&[Assignment::Barrier], &[file.as_fd()]);
        assert_eq!(with_fd, Err(Error::Message { position: 0, fault: MessageFault::Vsock }));
        println!("vsock: {result:?}");
        return;
    }
    for (address, kind, is_stream) in [
        ("vsock:5:1234", "SOCK_DGRAM", false),
        ("vsock-dgram:5:1234", "SOCK_DGRAM", false),
        ("vsock-seqpacket:5:1234", "SOCK_SEQPACKET", true),
        ("vsock-stream:5:1234", "SOCK_STREAM", true),
    ] {
        let (said, calls) = vsock_calls(address, &ANSWERS);
        assert_eq!(said, "Ok(true)");
        let calls: Vec<&str> = calls.iter().map(String::as_str).collect();
        let rest = if is_stream { 6 } else { 4 };
        assert_eq!(calls.len(), rest, "{calls:#?}");
        assert!(
            calls[0].starts_with(&format!("socket(AF_VSOCK, {kind}|SOCK_CLOEXEC|SOCK_NONBLOCK")),
            "{calls:#?}"
        );
        let any = "bind(100, {sa_family=AF_VSOCK, svm_cid=VMADDR_CID_ANY, svm_port=0x3ff, svm_flags=0}, 16)";
        let there = "connect(100, {sa_family=AF_VSOCK, svm_cid=0x5, svm_port=0x4d2, svm_flags=0}, 16)";
        assert!(calls[1].starts_with(any) && calls[2].starts_with(there), "{calls:#?}");
        assert!(
            calls[3].contains(r#"iov_base="READY=1""#) && calls[3].contains("MSG_NOSIGNAL"),
            "{calls:#?}"
        );
        if is_stream {
            assert!(calls[4].starts_with("shutdown(100, SHUT_WR)"), "{calls:#?}");
            assert!(
                ["recvfrom(100, ", "recv(100, "].iter().any(|call| calls[5].starts_with(call)),
                "{calls:#?}"
            );
        }
    }
    // A type that the machine has not is followed by the next.
    let (said, calls) = vsock_calls("vsock:5:1234", &["socket:error=ESOCKTNOSUPPORT"]);
    assert_eq!(
        said,
        format!(
            "{:?}",
            Err::<bool, _>(Error::Call {
                operation: Operation::Socket,
                fd: None,
                errno: Errno::SOCKTNOSUPPORT
            })
        )
    );
    let kinds: Vec<_> = calls.iter().map(|call| call.split([' ', '|']).nth(1).unwrap()).collect();
    assert_eq!(kinds, ["SOCK_DGRAM", "SOCK_SEQPACKET", "SOCK_STREAM"]);
    // One that was asked for is not; and neither is another error.
    for (address, error) in [("vsock-stream:5:1234", "ESOCKTNOSUPPORT"), ("vsock:5:1234", "EMFILE")] {
        let (_, calls) = vsock_calls(address, &[&format!("socket:error={error}")]);
        assert_eq!(calls.len(), 1, "{calls:#?}");
    }
    let refused =
        ANSWERS.map(|answer| if answer.starts_with("connect") { "connect:error=ECONNRESET" } else { answer });
    let (said, _) = vsock_calls("vsock-stream:5:1234", &refused);
    assert_eq!(
        said,
        format!(
            "{:?}",
            Err::<bool, _>(Error::Call { operation: Operation::Connect, fd: None, errno: Errno::CONNRESET })
        )
    );
}

/// The message counts when the other end of a stream has closed, which is when it has read everything; and no byte is
/// lost or doubled where the kernel takes a part. The stream is a socket pair's, which strace puts in the place of a
/// vsock.
fn a_vsock_stream_is_over_when_the_other_end_closes() {
    const NAME: &str = "a_vsock_stream_is_over_when_the_other_end_closes";
    const KIND: &str = "GRACENET_TEST_VSOCK";
    if !is_role(NAME) {
        for (kind, send, expected) in [
            ("seqpacket", "sendmsg:error=EINTR:when=1", "READY=1"),
            ("stream", "sendmsg:error=EINTR:when=1", "READY=1"),
            ("stream", "sendmsg:retval=3:when=1", "DY=1"),
        ] {
            let mut strace = Command::new("strace");
            strace.args(["-f", "-qq", "-o", "/dev/null"]);
            for inject in ["socket:retval=100", "bind:retval=0", "connect:retval=0", send] {
                strace.arg("-e").arg(format!("inject={inject}"));
            }
            strace
                .arg(std::env::current_exe().unwrap())
                .env(KIND, kind)
                .env("GRACENET_TEST_EXPECTED", expected);
            passes(in_role(&mut strace, NAME));
        }
        return;
    }
    let kind = std::env::var(KIND).unwrap();
    let socket_type = match &*kind {
        "stream" => rustix::net::SocketType::STREAM,
        _ => rustix::net::SocketType::SEQPACKET,
    };
    let pair = || {
        let flags = rustix::net::SocketFlags::CLOEXEC | rustix::net::SocketFlags::NONBLOCK;
        let family = rustix::net::AddressFamily::UNIX;
        let (ours, theirs) = rustix::net::socketpair(family, socket_type, flags, None).unwrap();
        place_at(ours.as_fd(), 100);
        theirs
    };
    let notifier = Notifier::parse(format!("vsock-{kind}:5:1234").as_bytes()).unwrap();
    let readable = |socket: &OwnedFd| {
        let mut polled = [rustix::event::PollFd::new(socket, rustix::event::PollFlags::IN)];
        assert_eq!(rustix::event::poll(&mut polled, None), Ok(1));
    };
    let read = |socket: &OwnedFd| {
        readable(socket);
        let mut bytes = [0; 64];
        let read = rustix::io::read(socket, &mut bytes).unwrap();
        String::from_utf8(bytes[..read].to_vec()).unwrap()
    };
    let expected = std::env::var("GRACENET_TEST_EXPECTED").unwrap();
    let theirs = pair();
    std::thread::scope(|scope| {
        let sending = scope.spawn(|| notifier.clone().timeout(Duration::MAX).send(&[Assignment::Ready]));
        assert_eq!(read(&theirs), expected);
        assert_eq!(read(&theirs), "", "nothing follows");
        // What the other end has to say is nothing to this one.
        rustix::io::write(&theirs, b"noted").unwrap();
        assert!(!sending.is_finished());
        drop(theirs);
        assert_eq!(sending.join().unwrap(), Ok(true));
    });
    assert!(!is_open(100));
    let theirs = pair();
    rustix::io::write(&theirs, b"not the end").unwrap();
    let late = notifier.timeout(Duration::ZERO).send(&[Assignment::Ready]);
    assert_eq!(late, Err(Error::Call { operation: Operation::Recv, fd: None, errno: Errno::TIMEDOUT }));
    assert!(!is_open(100));
    // The first call of this thread, too.
    assert_eq!(read(&theirs), expected);
}
