//! What `serve` does with its options, and with signals that come at the worst moment.

use crate::server::{Outcome, Server, ask_slowly, asked, body, free_address, get, has_left, readable, watch};
use libtest_mimic::Trial;
use rustix::fd::AsFd;
use rustix::process::{Pid, Signal, kill_process};
use std::collections::BTreeSet;
use std::io::{PipeWriter, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

pub(crate) fn trials() -> Vec<Trial> {
    let trial = |name: &str, run: fn() -> Outcome| Trial::test(name, run);
    vec![
        trial("serve_keeps_a_successor_that_got_ready_while_it_was_stopped", stopped),
        trial("serve_survives_bursts_of_signals", bursts),
        trial("serve_writes_its_pid_file_when_a_restart_is_over", pid_file),
        trial("serve_reloads_by_spawn", reloads_by_spawn),
        trial("serve_has_a_name_for_each_address", names),
        trial("serve_counts_its_generations", generations),
        trial("serve_is_alive_while_its_predecessor_drains", watchdog),
        trial("serve_does_not_stop_what_its_successor_serves", terminated_while_confirming),
        trial("serve_refuses_options_that_do_not_fit", refused),
        trial("serve_restarts_when_nobody_reads_what_it_says", unread),
    ]
}

/// A predecessor that sleeps through its successor's report, and then has a reason to end it, does not: whoever was
/// connected to the successor gets an answer.
fn stopped() -> Outcome {
    for (timeout, signal) in [("30", Some(Signal::TERM)), ("0.2", None)] {
        // Whether it can be stopped between the clone and the report is a matter of luck.
        assert!((0..50).any(|_| sleep_through_the_report(timeout, signal)), "--ready-timeout {timeout}");
    }
    Ok(())
}

/// Whether the predecessor was stopped when its successor got ready.
fn sleep_through_the_report(timeout: &str, signal: Option<Signal>) -> bool {
    let address = free_address();
    let mut server = Server::start(&["--ready-timeout", timeout, &address]);
    let predecessor = server.pid;
    let pid = predecessor.as_raw_nonzero();
    let left = watch(predecessor);
    server.signal(Signal::USR2);
    // Until there is a child, or it is all over.
    let children = format!("/proc/{pid}/task/{pid}/children");
    while std::fs::read_to_string(&children).unwrap().is_empty() && !readable(left.as_fd(), 0) {}
    server.signal(Signal::STOP);
    server.next_ready();
    let state = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let is_stopped = state.rsplit(')').next().unwrap().starts_with(" T");
    let client = std::thread::spawn({
        let address = address.clone();
        move || get(&address, "/sleep?ms=300")
    });
    // Past the deadline, where there is a short one.
    let past = Instant::now() + Duration::from_millis(250);
    while is_stopped && Instant::now() < past {
        std::thread::yield_now();
    }
    for signal in signal.into_iter().chain([Signal::CONT]) {
        // It is a child that nobody has collected: the number is its own.
        kill_process(predecessor, signal).unwrap();
    }
    assert!(has_left(&left));
    body(&client.join().unwrap());
    assert_eq!(asked(&address), server.pid);
    is_stopped
}

/// However many come and whenever: one server is left, and every request was answered.
fn bursts() -> Outcome {
    for signals in [&[Signal::HUP][..], &[Signal::USR2], &[Signal::USR2, Signal::HUP]] {
        let address = free_address();
        let mut server = Server::start(&[&address]);
        for round in 0..20 {
            for (position, signal) in signals.iter().cycle().take(5).enumerate() {
                // One that has left since is what a burst is about.
                let _ = kill_process(server.pid, *signal);
                if (round + position) % 3 == 0 {
                    body(&get(&address, "/"));
                }
            }
            body(&get(&address, "/"));
            while server.stdout_is_readable(0) {
                server.next_ready();
            }
        }
        // The last of the bursts is over when nobody but the newest answers.
        let begin = Instant::now();
        loop {
            while server.stdout_is_readable(0) {
                server.next_ready();
            }
            let answers: BTreeSet<_> = (0..20).map(|_| asked(&address).as_raw_nonzero()).collect();
            if answers == BTreeSet::from([server.pid.as_raw_nonzero()]) && !server.stdout_is_readable(0) {
                break;
            }
            assert!(
                begin.elapsed() < Duration::from_secs(10),
                "{answers:?} answer, {:?} is the newest",
                server.pid
            );
        }
        assert!(server.hand_over().ends_with("inherited=1 listeners=1"));
        assert_eq!(asked(&address), server.pid);
    }
    Ok(())
}

fn read_pid(path: &Path) -> (i32, u64) {
    let pid = std::fs::read_to_string(path).unwrap().trim_end().parse().unwrap();
    (pid, std::fs::metadata(path).unwrap().ino())
}

fn pid_file() -> Outcome {
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("pid");
    let program = directory.path().join("serve");
    std::os::unix::fs::symlink(std::env::current_exe()?, &program)?;
    let address = free_address();
    let mut server = Server::start_program(
        &program,
        &["--pid-file", file.to_str().unwrap(), "--reload", "exec", &address],
        |_| (),
    );
    let pid_of = |server: &Server| server.pid.as_raw_nonzero().get();
    let mut last = read_pid(&file);
    assert_eq!(last.0, pid_of(&server));
    for signal in [Signal::USR2, Signal::HUP, Signal::USR2] {
        server.restart(signal);
        let now = read_pid(&file);
        assert_eq!(now.0, pid_of(&server));
        assert_ne!(now.1, last.1, "a file of its own, put in the place of the last");
        last = now;
    }
    // After one that failed it is new, too, and has the PID of who serves on.
    for target in ["/bin/false", "/nonexistent"] {
        std::fs::remove_file(&program)?;
        std::os::unix::fs::symlink(target, &program)?;
        server.signal(Signal::USR2);
        let begin = Instant::now();
        while read_pid(&file).1 == last.1 {
            assert!(begin.elapsed() < Duration::from_secs(10), "{target}");
            std::thread::yield_now();
        }
        last = read_pid(&file);
        assert_eq!(last.0, pid_of(&server));
    }
    assert_eq!(asked(&address), server.pid);
    assert_eq!(std::fs::read_dir(directory.path())?.count(), 2, "no temporary file is left");
    Ok(())
}

fn reloads_by_spawn() -> Outcome {
    let address = free_address();
    let mut server = Server::start(&["--reload", "spawn", &address]);
    let predecessor = (server.pid, watch(server.pid));
    assert!(server.restart(Signal::HUP).ends_with("inherited=1 listeners=1"));
    assert_ne!(server.pid, predecessor.0);
    assert!(has_left(&predecessor.1));
    assert_eq!(asked(&address), server.pid);
    Ok(())
}

/// Ports of the kernel's choice are found again by the names, each by its own.
fn names() -> Outcome {
    let args = ["--name", "a", "--name", "b", "127.0.0.1:0", "127.0.0.1:0"];
    let mut server = Server::start(&args);
    let sockets = |server: &Server| {
        let pid = server.pid.as_raw_nonzero();
        let link = |fd: i32| std::fs::read_link(format!("/proc/{pid}/fd/{fd}")).unwrap();
        [link(3), link(4)]
    };
    server.restart(Signal::USR2);
    let before = sockets(&server);
    for _ in 0..3 {
        assert!(server.restart(Signal::USR2).ends_with("inherited=2 listeners=2"));
        assert_eq!(sockets(&server), before);
    }
    Ok(())
}

/// The file in memory travels by spawn and by exec, and is not counted among the sockets.
fn generations() -> Outcome {
    let (_directory, path, manager) = manager()?;
    let address = free_address();
    let mut server = Server::start_with(&["--fd-store", &address], |command| {
        command.env("NOTIFY_SOCKET", &path);
    });
    let mut expected = 1;
    let wait_for_status = |generation: u32| {
        while message(&manager) != format!("STATUS=serving 1 listener, generation {generation}") {}
    };
    wait_for_status(expected);
    for signal in [Signal::USR2, Signal::HUP, Signal::USR2] {
        assert!(server.restart(signal).ends_with("inherited=1 listeners=1"));
        expected += 1;
        wait_for_status(expected);
    }
    Ok(())
}

/// A manager that a server can be started under.
fn manager() -> Result<(tempfile::TempDir, PathBuf, UnixDatagram), std::io::Error> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("notify");
    let manager = UnixDatagram::bind(&path)?;
    manager.set_read_timeout(Some(Duration::from_secs(10)))?;
    Ok((directory, path, manager))
}

/// The next message. Descriptors that came along are closed by not being asked for: a barrier is answered.
fn message(manager: &UnixDatagram) -> String {
    let mut buffer = [0; 4096];
    let len = manager.recv(&mut buffer).unwrap();
    String::from_utf8(buffer[..len].to_vec()).unwrap()
}

/// The watchdog's time is shorter than the drain: somebody has to feed it, and after the hand-over that is the successor.
fn watchdog() -> Outcome {
    let (_directory, path, manager) = manager()?;
    let address = free_address();
    let mut server = Server::start_with(&[&address], |command| {
        command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "400000");
    });
    let slow = ask_slowly(&server, &address, 3000);
    server.restart(Signal::USR2);
    while message(&manager) != "BARRIER=1" {}
    for _ in 0..3 {
        assert_eq!(message(&manager), "WATCHDOG=1");
    }
    assert!(!slow.is_finished());
    body(&slow.join().unwrap());
    Ok(())
}

/// Terminated after it has told the manager of its successor, and before that has said that it knows: the service goes
/// on, and the manager does not hear that it stops.
fn terminated_while_confirming() -> Outcome {
    let (_directory, path, manager) = manager()?;
    let address = free_address();
    let mut server = Server::start_with(&[&address], |command| {
        command.env("NOTIFY_SOCKET", &path);
    });
    while !message(&manager).starts_with("STATUS=serving") {}
    let predecessor = (server.pid, watch(server.pid));
    server.restart(Signal::USR2);
    kill_process(predecessor.0, Signal::TERM)?;
    assert!(has_left(&predecessor.1));
    for begin in ["RELOADING=1\n", "MAINPID=", "BARRIER=1", "STATUS=serving"] {
        let message = message(&manager);
        assert!(message.starts_with(begin), "{message}");
    }
    assert_eq!(asked(&address), server.pid);
    Ok(())
}

/// Neither a ready line nor a complaint that cannot be written ends a server, or keeps it from restarting.
/// Neither where they have left, nor where they are there and read nothing.
fn unread() -> Outcome {
    let gone = || std::io::pipe().unwrap().1;
    unread_on(gone(), gone())?;
    let (full, silent): (Vec<_>, Vec<_>) = (0..2)
        .map(|_| {
            let (reader, mut writer) = std::io::pipe().unwrap();
            let size = rustix::pipe::fcntl_getpipe_size(&writer).unwrap();
            writer.write_all(&vec![b'x'; size]).unwrap();
            (writer, reader)
        })
        .unzip();
    let [stdout, stderr] = <[_; 2]>::try_from(full).unwrap();
    unread_on(stdout, stderr)?;
    drop(silent);
    Ok(())
}

fn unread_on(stdout: PipeWriter, stderr: PipeWriter) -> Outcome {
    let directory = tempfile::tempdir()?;
    let (file, program) = (directory.path().join("pid"), directory.path().join("serve"));
    std::os::unix::fs::symlink(std::env::current_exe()?, &program)?;
    let address = free_address();
    let mut command = Command::new(&program);
    command.args(["role", "serve", "--pid-file", file.to_str().unwrap(), &address]);
    let mut child =
        command.stdin(Stdio::null()).stdout(stdout).stderr(stderr).env("RUST_BACKTRACE", "0").spawn()?;
    drop(command);
    let wait_for_another = |last: u64| {
        let begin = Instant::now();
        while !std::fs::metadata(&file).is_ok_and(|metadata| metadata.ino() != last) {
            assert!(begin.elapsed() < Duration::from_secs(10));
            std::thread::yield_now();
        }
        read_pid(&file)
    };
    let (mut pid, mut inode) = wait_for_another(0);
    for signal in [Signal::USR2, Signal::HUP, Signal::USR2] {
        let predecessor = watch(Pid::from_raw(pid).unwrap());
        kill_process(Pid::from_raw(pid).unwrap(), signal)?;
        let before = pid;
        (pid, inode) = wait_for_another(inode);
        assert!(pid == before || has_left(&predecessor));
        assert_eq!(asked(&address), Pid::from_raw(pid).unwrap());
    }
    std::fs::remove_file(&program)?;
    kill_process(Pid::from_raw(pid).unwrap(), Signal::USR2)?;
    assert_eq!(wait_for_another(inode).0, pid);
    assert_eq!(asked(&address), Pid::from_raw(pid).unwrap());
    kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL)?;
    child.wait()?;
    Ok(())
}

fn refused() -> Outcome {
    for (args, words) in [
        (&[][..], "usage: serve"),
        (&["--reload", "fork", "127.0.0.1:0"], "--reload is exec or spawn, not fork"),
        (&["--name", "a", "--name", "b", "127.0.0.1:0"], "--name is given once, or once for each address"),
        (&["--no-such", "127.0.0.1:0"], "invalid option '--no-such'"),
        (&["tpc=127.0.0.1:0"], "tpc=127.0.0.1:0: unknown network \"tpc\""),
    ] {
        let output = Command::new(std::env::current_exe()?).args(["role", "serve"]).args(args).output()?;
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains(words), "{args:?}: {said}");
        assert!(output.stdout.is_empty());
    }
    Ok(())
}
