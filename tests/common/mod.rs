//! What the integration tests share: trials and what they need, launches made of strings, descriptors on reserved
//! numbers, children.
#![allow(dead_code, unused_imports, unused_macros, reason = "each test file uses its part")]

pub(crate) mod manager;

use std::ffi::{CString, c_char};
use std::io::{Read, Seek};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, Stdio};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use gracenet::{InheritOptions, Launch, Net, SocketId};
use libtest_mimic::{Arguments, Completion, Failed, Trial};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

/// A test program of these functions, each a trial under its own name. One that has a need, behind `if`, is shown as
/// ignored where that is not met, which rustc's own harness cannot do: it knows when it compiles what is ignored.
macro_rules! trials {
    ($($function:ident $(if $need:ident)?),* $(,)?) => {
        fn main() -> std::process::ExitCode {
            $crate::common::run(vec![
                $($crate::common::trial(stringify!($function), &[$((stringify!($need), $need))?], || {
                    $function();
                    Ok(())
                }),)*
            ])
        }
    };
}
pub(crate) use trials;

/// What a test takes beside this crate: its name, and whether it is here.
pub(crate) type Need = (&'static str, fn() -> bool);

pub(crate) fn trial(
    name: &str,
    needs: &'static [Need],
    run: impl FnOnce() -> Result<(), Failed> + Send + 'static,
) -> Trial {
    Trial::ignorable_test(name, move || {
        // A child is there because the needs are met; its role may be to have lost them.
        let is_child = std::env::var_os(ROLE).is_some();
        if let Some((need, _)) = needs.iter().find(|(_, is_met)| !is_child && !is_met()) {
            return Ok(Completion::ignored_with(format!("no {need}")));
        }
        run().map(|()| Completion::Completed)
    })
}

pub(crate) fn run(trials: Vec<Trial>) -> ExitCode {
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

/// Runs a command that plays a scenario, in a process group of its own. What it leaves behind is ended, and not waited for.
pub(crate) fn play(command: &mut Command, patience: Duration) -> Result<(), Failed> {
    let mut said = tempfile::tempfile()?;
    let mut child = command
        .env("RUST_BACKTRACE", "0")
        .stdin(Stdio::null())
        .stdout(said.try_clone()?)
        .stderr(said.try_clone()?)
        .process_group(0)
        .spawn()
        .map_err(|error| format!("{:?}: {error}", command.get_program()))?;
    let pid = Pid::from_child(&child);
    let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
    let patience = Timespec::try_from(patience)?;
    let ended = rustix::event::poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&patience))?;
    // Its number is its group's until it is reaped.
    let _ = kill_process_group(pid, Signal::KILL);
    let status = child.wait()?;
    if ended > 0 && status.success() {
        return Ok(());
    }
    let mut text = String::new();
    said.rewind()?;
    said.read_to_string(&mut text)?;
    let status = if ended > 0 { status.to_string() } else { "it did not end".to_owned() };
    Err(format!("{status}\n{text}").into())
}

/// The need for IPv6.
pub(crate) fn ipv6() -> bool {
    match TcpListener::bind("[::1]:0") {
        Err(error) => {
            let errno = Errno::from_io_error(&error);
            assert!(matches!(errno, Some(Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL)), "bind [::1]:0: {error}");
            false
        }
        Ok(_) => true,
    }
}

/// The need for IPv6 addresses that no interface has to have, so that one that is local to a link is always there.
pub(crate) fn ipv6_freebind() -> bool {
    ipv6() && Socket::new(Domain::IPV6, Type::DGRAM, None).unwrap().set_freebind_v6(true).is_ok()
}

/// The need for strace: where everything is to be there, a test without it fails.
pub(crate) fn strace() -> bool {
    static IS_THERE: LazyLock<bool> = LazyLock::new(|| {
        std::env::var("GRACENET_INTEROP").is_ok_and(|required| required == "all")
            || Command::new("strace").arg("-V").output().is_ok()
    });
    *IS_THERE
}

/// The need for namespaces of one's own, as [`unshared`] makes them.
pub(crate) fn namespaces() -> bool {
    let output = unshared("mount -t tmpfs none /run").arg("true").output();
    output.is_ok_and(|output| output.status.success())
}

/// A command that runs what is added to its arguments where mounts and queues are the test's own, and `script` has been
/// run.
pub(crate) fn unshared(script: &str) -> Command {
    let mut unshare = Command::new("unshare");
    if !rustix::process::getuid().is_root() {
        unshare.args(["--user", "--map-root-user"]);
    }
    unshare.args(["--mount", "--ipc", "/bin/sh", "-ec"]).arg(format!("{script}; exec \"$0\" \"$@\""));
    unshare
}

/// A launch with these variables and one argument.
pub(crate) fn launch(vars: &[&str]) -> Launch {
    launch_of(&[b"test"], &vars.iter().map(|var| var.as_bytes()).collect::<Vec<_>>()).unwrap()
}

/// A launch of any capacity, with strings that are leaked.
pub(crate) fn launch_of<const ARGS: usize, const VARS: usize>(
    args: &[&[u8]],
    vars: &[&[u8]],
) -> Result<Launch<ARGS, VARS>, gracenet::Error> {
    // SAFETY: the tables end with a null pointer, and neither they nor the strings are ever freed.
    unsafe { Launch::new(args.len() as i32, table(args), table(vars)) }
}

/// A leaked table of leaked strings, with the null pointer that ends it.
pub(crate) fn table(strings: &[&[u8]]) -> *const *const c_char {
    let pointer = |string: &&[u8]| CString::new(*string).unwrap().into_raw().cast_const();
    let pointers = strings.iter().map(pointer).chain([std::ptr::null()]);
    pointers.collect::<Vec<_>>().leak().as_ptr()
}

/// An initial stack, as the kernel makes it: argc, argv, envp, the auxiliary vector. It is leaked.
pub(crate) fn stack(args: &[&[u8]], vars: &[&[u8]], auxv: &[[usize; 2]]) -> *const usize {
    let pointers = |strings: &[&[u8]]| {
        let table = table(strings).cast::<usize>();
        // SAFETY: the table has one more entry than there are strings.
        unsafe { std::slice::from_raw_parts(table, strings.len() + 1) }.to_vec()
    };
    let mut words = vec![args.len()];
    words.extend(pointers(args));
    words.extend(pointers(vars));
    words.extend(auxv.iter().flatten());
    words.leak().as_ptr()
}

/// The environment that `launch` holds now.
pub(crate) fn vars<const ARGS: usize, const VARS: usize>(launch: &Launch<ARGS, VARS>) -> Vec<String> {
    launch.vars().map(|var| var.to_str().unwrap().to_owned()).collect()
}

/// Sets aside `count` descriptor numbers, which nothing is open on and no other test uses. Whoever started
/// the tests may have left something open: a range that holds such a number is passed over.
pub(crate) fn reserve(count: usize) -> RawFd {
    static NEXT: AtomicI32 = AtomicI32::new(200);
    loop {
        let first = NEXT.fetch_add(count as i32, Ordering::Relaxed);
        let mut range = first..first + count as i32;
        assert!(range.end < 1024, "out of numbers");
        if !range.any(is_open) {
            return first;
        }
    }
}

/// Duplicates `fds` onto numbers in a row, which nobody owns then, and returns the first. `FD_CLOEXEC` is
/// set, so that no child of another test keeps them: a test about that flag clears it.
pub(crate) fn place<'f>(fds: impl IntoIterator<Item = BorrowedFd<'f>, IntoIter: ExactSizeIterator>) -> RawFd {
    let fds = fds.into_iter();
    let first = reserve(fds.len());
    for (number, fd) in (first..).zip(fds) {
        place_at(fd, number);
    }
    first
}

/// The same, onto one number.
pub(crate) fn place_at(fd: BorrowedFd<'_>, number: RawFd) {
    let placed = rustix::io::fcntl_dupfd_cloexec(fd, number).unwrap();
    assert_eq!(placed.into_raw_fd(), number, "number was in use");
}

/// Owns what [`place`] placed and a failed inherit left alone.
pub(crate) fn reclaim(first: RawFd, count: usize) -> Vec<OwnedFd> {
    // SAFETY: the test placed them, and whatever it tried has not adopted them.
    let own = |number| unsafe { OwnedFd::from_raw_fd(number) };
    (first..).take(count).map(own).inspect(|fd| assert!(is_open(fd.as_raw_fd()))).collect()
}

/// Inherits `count` descriptors from `first` on, with these variables.
pub(crate) fn inherit_from<const N: usize>(
    net: &mut Net<N>,
    launch: &mut Launch,
    first: RawFd,
    options: InheritOptions,
) -> Result<usize, gracenet::Error> {
    // SAFETY: the numbers are the test's own, and it gives them up; the launch's strings are leaked.
    unsafe { net.inherit_with(launch, options.first_fd(first)) }
}

/// Whether something is open on this number.
pub(crate) fn is_open(number: RawFd) -> bool {
    std::fs::symlink_metadata(format!("/proc/self/fd/{number}")).is_ok()
}

/// Which file a descriptor is open on.
pub(crate) fn inode(fd: impl AsFd) -> (u64, u64) {
    let stat = rustix::fs::fstat(fd).unwrap();
    (stat.st_dev, stat.st_ino)
}

/// A net that has inherited duplicates of `fds`, without names.
pub(crate) fn inherited<const N: usize>(fds: &[&dyn AsFd]) -> Net<N> {
    inherited_as(fds, None)
}

/// The same, with `LISTEN_FDNAMES`.
pub(crate) fn inherited_as<const N: usize>(fds: &[&dyn AsFd], names: Option<&str>) -> Net<N> {
    let first = place(fds.iter().map(|fd| fd.as_fd()));
    let count = format!("LISTEN_FDS={}", fds.len());
    let names = names.map(|names| format!("LISTEN_FDNAMES={names}"));
    let mut launch = launch(&[&count].into_iter().chain(&names).map(String::as_str).collect::<Vec<_>>());
    let mut net = Net::new();
    assert_eq!(inherit_from(&mut net, &mut launch, first, InheritOptions::new()), Ok(fds.len()));
    net
}

/// Tells whether two descriptors are one socket, as only `SO_COOKIE` can.
pub(crate) fn cookie(fd: impl AsFd) -> u64 {
    rustix::net::sockopt::socket_cookie(fd).unwrap()
}

/// The cookie of an active socket.
pub(crate) fn cookie_of<const N: usize>(net: &Net<N>, id: SocketId) -> u64 {
    cookie(net.fd(id).unwrap())
}

/// The IP address a socket is bound to.
pub(crate) fn local(fd: impl AsFd) -> SocketAddr {
    rustix::net::getsockname(fd).unwrap().try_into().unwrap()
}

/// The IP address an active socket is bound to.
pub(crate) fn local_of<const N: usize>(net: &Net<N>, id: SocketId) -> SocketAddr {
    local(net.fd(id).unwrap())
}

/// The errno of a failed system call.
pub(crate) fn errno<T>(result: Result<T, gracenet::Error>) -> Errno {
    match result.map(drop) {
        Err(gracenet::Error::Call { errno, .. }) => errno,
        other => panic!("not a failed call: {other:?}"),
    }
}

/// A bound IP socket, listening if it is TCP's.
pub(crate) fn bound(protocol: Protocol, address: SocketAddr, v6only: bool) -> std::io::Result<Socket> {
    let kind = if protocol == Protocol::TCP { Type::STREAM } else { Type::DGRAM };
    let socket = Socket::new(Domain::for_address(address), kind, Some(protocol))?;
    if address.is_ipv6() {
        socket.set_only_v6(v6only)?;
    }
    socket.bind(&SockAddr::from(address))?;
    if protocol == Protocol::TCP {
        socket.listen(16)?;
    }
    Ok(socket)
}

/// Two sockets on one port, which `second` is made for; tried again with another port if that one is taken.
pub(crate) fn on_one_port(
    first: impl Fn() -> std::io::Result<Socket>,
    second: impl Fn(u16) -> std::io::Result<Socket>,
) -> (Socket, Socket, u16) {
    for _ in 0..100 {
        let first = first().unwrap();
        let port = local(&first).port();
        match second(port) {
            Ok(second) => return (first, second, port),
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse),
        }
    }
    panic!("no port is free for both");
}

const ROLE: &str = "GRACENET_TEST_ROLE";

/// Whether this process was started to play the child in the test called `name`.
pub(crate) fn is_role(name: &str) -> bool {
    std::env::var_os(ROLE).is_some_and(|role| role == name)
}

/// Makes `command`, which runs this program with what was added to its arguments so far, run the test called
/// `name` and nothing else, in the role of the child.
pub(crate) fn in_role<'c>(command: &'c mut Command, name: &str) -> &'c mut Command {
    command.args(["--exact", name, "--nocapture", "--test-threads=1"]).env(ROLE, name)
}

/// Runs `command`, which [`in_role`] made, and wants that test to pass.
pub(crate) fn passes(command: &mut Command) {
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{}\n{text}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Runs the test called `name` once more, in a process of its own that `configure` may change, and wants it
/// to pass there; returns true in that process, which does the work.
pub(crate) fn in_child(name: &str, configure: impl FnOnce(&mut Command)) -> bool {
    if is_role(name) {
        return true;
    }
    let mut command = Command::new(std::env::current_exe().unwrap());
    configure(in_role(&mut command, name));
    passes(&mut command);
    false
}
