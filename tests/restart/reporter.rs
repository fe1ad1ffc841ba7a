//! A successor that tells what it was given, over a pipe that it inherits under the name `report`.
//!
//! ```text
//! role reporter ACTION...
//! ```
//!
//! It writes one `key=value` a line, the last being `end`, and then does what the action says.

use gracenet::Variable;
use gracenet::{Launch, Net, Notifier, Refusal};
use rustix::fd::{AsFd, AsRawFd, BorrowedFd};
use std::ffi::OsString;
use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

/// Every descriptor of this process and what it leads to, but for the one that lists them.
pub(crate) fn descriptors() -> Vec<(i32, String)> {
    let own = format!("/proc/{}/fd", std::process::id());
    let mut found: Vec<_> = std::fs::read_dir("/proc/self/fd")
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter_map(|path| {
            let target = std::fs::read_link(&path).ok()?.to_string_lossy().into_owned();
            Some((path.file_name()?.to_str()?.parse().ok()?, target))
        })
        .filter(|(_, target)| *target != own)
        .collect();
    found.sort_unstable();
    found
}

pub(crate) fn run(mut args: impl Iterator<Item = OsString>) -> ExitCode {
    // It may have been ignored, and grandchildren are waited for here.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
    let mut report = String::new();
    for (fd, target) in descriptors() {
        writeln!(report, "fd.{fd}={target}").unwrap();
    }
    for (name, value) in std::env::vars_os() {
        if [&b"LISTEN_"[..], b"TEST_", b"WATCHDOG_"].iter().any(|begin| name.as_bytes().starts_with(begin)) {
            writeln!(report, "env.{}={}", name.to_string_lossy(), value.to_string_lossy()).unwrap();
        }
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    for field in ["SigBlk", "SigIgn", "SigCgt", "ShdPnd", "PPid"] {
        let value = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
        writeln!(report, "{field}={}", value.trim_start_matches(':').trim()).unwrap();
    }
    writeln!(report, "pid={}", std::process::id()).unwrap();
    let mut signal = 0;
    unsafe { libc::prctl(libc::PR_GET_PDEATHSIG, &raw mut signal) };
    writeln!(report, "parent_death_signal={signal}").unwrap();
    writeln!(
        report,
        "cwd={}",
        std::env::current_dir().map_or_else(|_| "gone".into(), |cwd| cwd.display().to_string())
    )
    .unwrap();
    writeln!(report, "exe={}", std::fs::read_link("/proc/self/exe").unwrap().display()).unwrap();
    for (position, arg) in std::env::args_os().enumerate() {
        writeln!(report, "arg.{position}={:?}", arg.as_bytes()).unwrap();
    }

    let mut launch: Launch<256> = unsafe { Launch::from_libc() }.unwrap();
    let mut net = Net::<64>::new();
    let inherited = unsafe { net.inherit(&mut launch) };
    unsafe { gracenet::launch::remove_from_libc(&Variable::ACTIVATION) };
    net.set_notifier(Notifier::from_launch(&launch).unwrap());
    writeln!(report, "inherited={inherited:?}").unwrap();
    for (position, socket) in net.inherited() {
        writeln!(report, "name.{position}={}", socket.name()).unwrap();
    }
    let predecessor = match net.predecessor() {
        None => "none",
        Some(predecessor) if predecessor.has_exited().unwrap() => "exited",
        Some(_) => "alive",
    };
    writeln!(report, "predecessor={predecessor}").unwrap();
    let mut grandchild = Command::new("/usr/bin/env");
    // Forked, because posix_spawn does not get past a filter that forbids clone3.
    let grandchild = unsafe { grandchild.pre_exec(|| Ok(())) }.output().unwrap();
    let seen = String::from_utf8_lossy(&grandchild.stdout);
    let seen = seen.lines().filter(|line| line.starts_with("LISTEN_")).count();
    writeln!(report, "grandchild={seen}").unwrap();
    report.push_str("end\n");

    let pipe = net.claim_name("report").unwrap();
    rustix::io::write(net.fd(pipe).unwrap(), report.as_bytes()).unwrap();

    let action = args.next().unwrap_or_default().into_string().unwrap();
    let mut number = || -> i32 { args.next().unwrap().into_string().unwrap().parse().unwrap() };
    match action.as_str() {
        "ready" => net.ready().unwrap(),
        "exit" => return ExitCode::from(number() as u8),
        "kill" => {
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL).unwrap()
        }
        "stop" => {
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::STOP).unwrap()
        }
        "hang" => wait_forever(),
        "close" => {
            // The readiness socket goes with the table; the process stays.
            drop(net);
            wait_forever();
        }
        "refuse-errno" => net.refuse(Refusal::Errno(rustix::io::Errno::from_raw_os_error(number()))).unwrap(),
        "refuse-code" => net.refuse(Refusal::Code(number() as u32)).unwrap(),
        "refuse-and-hang" => {
            net.refuse(Refusal::Code(1)).unwrap();
            wait_forever();
        }
        "garbage" => {
            let number: i32 = find(&report, "env.LISTEN_READY_FD").parse().unwrap();
            let socket = unsafe { BorrowedFd::borrow_raw(number) };
            rustix::io::write(socket, b"HELLO").unwrap();
            wait_forever();
        }
        // Answers as many connections as are in the queue of the first listener.
        "answer" => {
            let listener = net.claim_position(0).unwrap();
            net.ready().unwrap();
            for _ in 0..number() {
                let connection = rustix::net::accept(net.fd(listener).unwrap()).unwrap();
                rustix::io::write(&connection, std::process::id().to_string().as_bytes()).unwrap();
            }
        }
        // Ready, and gone when the predecessor is.
        "outlive" => {
            net.ready().unwrap();
            let predecessor = net.take_predecessor().unwrap();
            assert!(predecessor.wait(std::time::Duration::from_secs(20)).unwrap());
            rustix::io::write(net.fd(pipe).unwrap(), b"predecessor=exited\nend\n").unwrap();
        }
        // Gets ready once the predecessor has ended.
        "survive" => {
            assert!(net.predecessor().unwrap().wait(std::time::Duration::from_secs(20)).unwrap());
            let told = format!("ready={:?}\nend\n", net.ready());
            rustix::io::write(net.fd(pipe).unwrap(), told.as_bytes()).unwrap();
        }
        "ready-and-hang" => {
            net.ready().unwrap();
            wait_forever();
        }
        "ready-and-abort" => {
            net.ready().unwrap();
            std::process::abort();
        }
        "ready-and-exit" => {
            net.ready().unwrap();
            return ExitCode::from(number() as u8);
        }
        // Gets ready when it is continued, and tells what its predecessor made of it.
        "late" => {
            // Not by kill, which may be forbidden here.
            unsafe { libc::raise(libc::SIGSTOP) };
            let told = format!("ready={:?}\nend\n", net.ready());
            rustix::io::write(net.fd(pipe).unwrap(), told.as_bytes()).unwrap();
        }
        // Leaves, and lets a child get ready once the predecessor has closed its end.
        "daemonize" => {
            let number: i32 = find(&report, "env.LISTEN_READY_FD").parse().unwrap();
            if unsafe { libc::fork() } == 0 {
                let socket = unsafe { BorrowedFd::borrow_raw(number) };
                let mut polled =
                    [rustix::event::PollFd::from_borrowed_fd(socket, rustix::event::PollFlags::empty())];
                rustix::event::poll(&mut polled, None).unwrap();
                let told = format!("ready={:?}\nend\n", net.ready());
                rustix::io::write(net.fd(pipe).unwrap(), told.as_bytes()).unwrap();
            }
        }
        // Fails to become another program in place, still owing its predecessor the report.
        "exec-missing" => {
            let missing = gracenet::Executable::Path(c"/nonexistent");
            let Err(error) = net.exec(&mut launch, &gracenet::Restart::new().executable(missing));
            assert_eq!(error.errno(), Some(rustix::io::Errno::NOENT));
            net.ready().unwrap();
            wait_forever();
        }
        // Becomes another reporter in place, still owing its predecessor the report. A signal is pending, and
        // there is one for the death of its parent.
        "exec" | "exec-and-hang" => {
            unsafe {
                let mut set = std::mem::zeroed();
                libc::sigemptyset(&raw mut set);
                libc::sigaddset(&raw mut set, libc::SIGUSR1);
                libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
                libc::kill(libc::getpid(), libc::SIGUSR1);
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGUSR2);
            }
            let own = std::ffi::CString::new(std::env::args_os().next().unwrap().as_bytes()).unwrap();
            let next = if action == "exec" { c"ready" } else { c"ready-and-hang" };
            let args = [own.as_c_str(), c"role", c"reporter", next];
            let Err(error) = net.exec(&mut launch, &gracenet::Restart::new().args(&args));
            panic!("{error}");
        }
        other => panic!("no such action: {other}"),
    }
    ExitCode::SUCCESS
}

/// The value of a key of a report.
pub(crate) fn find<'r>(report: &'r str, key: &str) -> &'r str {
    let line = report.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    line.unwrap_or_else(|| panic!("no {key} in\n{report}"))
}

/// Until killed; a pipe that nobody writes to.
fn wait_forever() -> ! {
    let (read, _write) = rustix::pipe::pipe().unwrap();
    loop {
        let _ = read.as_fd().as_raw_fd();
        let _ = rustix::io::read(&read, &mut [0; 1]);
    }
}
