//! The checks of `tests/systemd/run`: the units of `examples/systemd` under the systemd that runs beside this program.
//!
//! ```text
//! driver NAME system|user
//! ```
//!
//! Each check prints one line, `pass` or `FAIL`, NAME, and what was found. The units are installed as they are; what a
//! check changes about one is in a drop-in. `serve` is in `/usr/local/bin`, which is in memory, so that it can be
//! replaced by a program that fails. `tests/systemd/sandbox` says where the rest is.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::std_instead_of_core,
    clippy::unwrap_used,
    reason = "tests"
)]

mod client;
mod manager;

use client::{Address, Load};
use manager::{Manager, Service, kill, wait, wait_until_gone};
use rustix::process::Signal;
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// What was found, or what is wrong.
type Check = Result<String, String>;

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let mut report = Report { name: args.next().unwrap(), failed: false };
    let is_user = args.next().unwrap() == "user";
    if let Err(error) = checks(&mut report, is_user) {
        report.run("all the rest", || Err(error));
    }
    if report.failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// An error is one that no later check can do without.
fn checks(report: &mut Report, is_user: bool) -> Result<(), String> {
    let manager = &Manager::start(is_user)?;
    let has_notify_reload = manager.version >= 253;
    let has_private_pids = manager.version >= 257 && !is_user;

    const SOCKETS: &[&str] = &["serve-http.socket", "serve-admin.socket", "serve-local.socket"];
    let activated = Service::install(manager, "serve.service", SOCKETS, 8080)?;
    let reload = Service::install(manager, "serve-reload.service", &[], 8090)?;
    let user = Service::install(manager, "serve-user.service", &[], 8092)?;
    let container = Service::install(manager, "serve-container.service", &[], 8091)?;
    manager.systemctl(&["daemon-reload"])?;

    let mut spawning = vec![&activated];
    spawning.extend(has_notify_reload.then_some(&reload));
    let storing = if is_user || !has_notify_reload { &user } else { &reload };
    let in_place = has_private_pids.then_some(&container);

    report.run("the units are free of mistakes", || {
        let mut verified = BTreeSet::new();
        for service in spawning.iter().copied().chain([storing]).chain(in_place) {
            service.verify()?;
            verified.insert(service.name);
        }
        Ok(Vec::from_iter(verified).join(", "))
    });
    report.run("three named sockets, in any order", || any_order(manager, &activated));
    for service in spawning {
        for access in ["main", "exec", "all"] {
            service.configure(&format!("NotifyAccess={access}"))?;
            let of = format!("{}, NotifyAccess={access}", service.name);
            report.run_each(&of, service, SPAWNING);
        }
    }
    report.run_each(storing.name, storing, STORING);
    if let Some(service) = in_place {
        report.run_each(service.name, service, IN_PLACE);
    }
    Ok(())
}

type Checks = &'static [(&'static str, fn(&Service<'_>) -> Check)];

const SPAWNING: Checks = &[
    ("starts", starts),
    ("10 reloads under load", reloads_under_load),
    ("the predecessor answers what it accepted", request_in_flight),
    ("a successor that fails", failing_successor),
    ("stop after a reload waits for a request", stop_waits),
];

const STORING: Checks = &[
    ("killed, the next one has its generation, port and queue", crash),
    ("a stop empties the store", store_is_emptied),
    ("the watchdog sees that a successor hangs", watchdog),
];

const IN_PLACE: Checks = &[
    ("10 reloads in place under load", reloads_in_place),
    ("a program that is not there", failing_exec),
    ("5 stops wait for a request", stops_of_pid_1),
];

struct Report {
    name: String,
    failed: bool,
}

impl Report {
    fn run_each(&mut self, of: &str, service: &Service<'_>, checks: Checks) {
        for (what, check) in checks {
            self.run(&format!("{of}: {what}"), || check(service));
        }
    }

    fn run(&mut self, what: &str, check: impl FnOnce() -> Check) {
        let begin = Instant::now();
        let (verdict, found) = match check() {
            Ok(found) => ("pass", found),
            Err(error) => ("FAIL", error),
        };
        self.failed |= verdict == "FAIL";
        println!("{verdict} {}: {what}: {found} ({} ms)", self.name, begin.elapsed().as_millis());
    }
}

/// The order of the descriptors follows the order in which the socket units were started; `serve` finds its sockets by
/// name, and serves each of them.
fn any_order(manager: &Manager, service: &Service<'_>) -> Check {
    let addresses = [
        ("serve-http.socket", Address::tcp(8080)),
        ("serve-admin.socket", Address::tcp(8081)),
        ("serve-local.socket", Address::Unix(format!("{}/serve.sock", manager.runtime()).into())),
    ];
    let mut orders = BTreeSet::new();
    for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
        for position in order {
            manager.systemctl(&["start", addresses[position].0])?;
        }
        // Nobody has asked yet.
        service.expect("MainPID", "0")?;
        let answers: BTreeSet<_> =
            addresses.iter().map(|(_, address)| address.ask()).collect::<Result<_, _>>()?;
        let main = service.main_pid()?;
        if answers != BTreeSet::from([main]) {
            return Err(format!("{answers:?} answer, the main process is {main}"));
        }
        service.wait_for_status("serving 3 listeners, generation 1")?;
        // As it was started: what serve takes out of its environment is still in the strings that it was given.
        let environment = fs::read(format!("/proc/{main}/environ")).map_err(|error| error.to_string())?;
        let environment = String::from_utf8_lossy(&environment).into_owned();
        let names = environment.split('\0').find_map(|line| line.strip_prefix("LISTEN_FDNAMES="));
        orders.insert(names.unwrap_or("none").to_owned());
        service.stop()?;
    }
    Ok(format!("they came as {}", Vec::from_iter(orders).join(", ")))
}

fn starts(service: &Service<'_>) -> Check {
    service.start()?;
    let (answers, main) = (service.address.ask()?, service.main_pid()?);
    if answers == main {
        Ok(format!("{main}"))
    } else {
        Err(format!("{answers} answers, {main} is the main process"))
    }
}

/// Nobody notices but by the PID in the answer; the manager follows.
fn reloads_under_load(service: &Service<'_>) -> Check {
    let load = Load::start(&service.address, 4);
    let stop = AtomicBool::new(false);
    let mut mains = vec![service.main_pid()?];
    let (outcome, watched) = thread::scope(|scope| {
        let watcher = scope.spawn(|| service.watch(&stop));
        // The first one may otherwise have handed over before a client asks.
        let outcome = load.wait_for(mains[0]).and_then(|()| {
            (0..10).try_for_each(|_| {
                let before = mains[mains.len() - 1];
                service.reload()?;
                let main = service.wait_for_another_main(before)?;
                mains.push(main);
                load.wait_for(main)
            })
        });
        stop.store(true, Ordering::Relaxed);
        (outcome, watcher.join().unwrap())
    });
    let answers = load.stop();
    outcome?;
    let (answered, pids) = answers?;
    if !watched?.iter().all(|main| mains.contains(main)) || !mains.iter().all(|main| pids.contains(main)) {
        return Err(format!("{mains:?} were main processes, {pids:?} answered"));
    }
    Ok(format!(
        "{answered} requests, 0 failed; {} main processes, active all the time, NRestarts=0",
        mains.len()
    ))
}

fn request_in_flight(service: &Service<'_>) -> Check {
    let before = service.main_pid()?;
    let request = service.address.begin_slow(700)?;
    service.reload()?;
    let main = service.wait_for_another_main(before)?;
    if request.is_finished() {
        return Err("it was answered before the successor took over".into());
    }
    let answered_by = request.join().unwrap()?;
    if answered_by != before {
        return Err(format!("accepted by {before}, answered by {answered_by}"));
    }
    wait_until_gone(before)?;
    Ok(format!("{before} answered after {main} had taken over, and left"))
}

const PROGRAM: &str = "/usr/local/bin/serve";

/// Does something while `serve` is another program, or none.
fn with_program<T>(program: Option<&str>, act: impl FnOnce() -> T) -> Result<T, String> {
    let error = |error: std::io::Error| format!("{PROGRAM}: {error}");
    let aside = format!("{PROGRAM}.aside");
    fs::rename(PROGRAM, &aside).map_err(error)?;
    if let Some(program) = program {
        fs::write(PROGRAM, program).map_err(error)?;
        fs::set_permissions(PROGRAM, fs::Permissions::from_mode(0o755)).map_err(error)?;
    }
    let done = act();
    fs::rename(aside, PROGRAM).map_err(error)?;
    Ok(done)
}

/// The old main process stays and serves, the status line says why, and `systemctl reload` fails where it can.
fn failing_successor(service: &Service<'_>) -> Check {
    let before = service.main_pid()?;
    let reload = with_program(Some("#!/bin/sh\nexit 7\n"), || service.reload())?;
    if reload.is_err() != service.reports_a_failed_reload() {
        return Err(format!("systemctl reload: {reload:?}"));
    }
    let status = service.wait_for_status("restart failed: ")?;
    if !status.contains("status 7") {
        return Err(format!("the status line is {status:?}"));
    }
    service.expect("ActiveState", "active")?;
    let (main, answers) = (service.main_pid()?, service.address.ask()?);
    if (main, answers) != (before, before) {
        return Err(format!("{before} was the main process, {main} is, {answers} answers"));
    }
    // The next one succeeds, and says so.
    service.reload()?;
    service.wait_for_another_main(before)?;
    service.wait_for_status("serving ")?;
    let reload = if reload.is_err() { "fails" } else { "does not fail" };
    Ok(format!("{before} stays, systemctl reload {reload}, status {status:?}"))
}

/// A main process that systemd did not start itself is stopped like one that it did: by SIGTERM, and with time to end
/// what it has accepted. It is alone: a predecessor in the cgroup would hide it if systemd did not wait.
fn stop_waits(service: &Service<'_>) -> Check {
    let before = service.main_pid()?;
    service.reload()?;
    let main = service.wait_for_another_main(before)?;
    wait_until_gone(before)?;
    let (answered_by, took) = stop_during_a_request(service, 2000)?;
    if answered_by != main {
        return Err(format!("{answered_by} answered, {main} was the main process"));
    }
    Ok(format!("{main} answered a request of 2000 ms, Result=success after {} ms", took.as_millis()))
}

/// Who answered, and how long it took to stop.
fn stop_during_a_request(service: &Service<'_>, millis: u32) -> Result<(i32, Duration), String> {
    let request = service.address.begin_slow(millis)?;
    let begin = Instant::now();
    service.stop()?;
    let took = begin.elapsed();
    let answered_by = request.join().unwrap().map_err(|error| format!("the request in flight: {error}"))?;
    service.expect("Result", "success")?;
    Ok((answered_by, took))
}

/// Connections that come while the service is down wait in the queue of a socket that only the manager's store keeps
/// open, and are answered by the next start, which counts on.
fn crash(service: &Service<'_>) -> Check {
    service.configure("RestartSec=2s")?;
    service.start()?;
    let listener = service.address.listener()?;
    service.wait_for_status("serving 1 listener, generation 1")?;
    service.expect("NFileDescriptorStore", "2")?;
    // Of a successor, which systemd did not start itself, it has to notice the end all the same.
    let first = service.main_pid()?;
    service.reload()?;
    let killed = service.wait_for_another_main(first)?;
    service.wait_for_status("serving 1 listener, generation 2")?;
    kill(killed, Signal::KILL)?;
    wait_until_gone(killed)?;
    let request = service.address.begin("/")?;
    service.expect("MainPID", "0")?;
    let answered_by = request.join().unwrap()?;
    let main = service.wait_for_another_main(killed)?;
    if answered_by != main {
        return Err(format!("answered by {answered_by}, the main process is {main}"));
    }
    let status = service.wait_for_status("serving 1 listener, generation 3")?;
    service.expect("NRestarts", "1")?;
    if service.address.listener()? != listener {
        return Err("it listens on another socket".into());
    }
    Ok(format!("{main} answered what had waited, on the same socket, status {status:?}, NRestarts=1"))
}

fn store_is_emptied(service: &Service<'_>) -> Check {
    service.expect("NFileDescriptorStore", "2")?;
    service.stop()?;
    service.expect("NFileDescriptorStore", "0")?;
    service.start()?;
    let status = service.wait_for_status("serving 1 listener, generation 1")?;
    Ok(format!("2 descriptors before, 0 after, and the next start is {status:?}"))
}

/// Fed by the successor from the start, also while the predecessor drains for longer than the watchdog waits.
fn watchdog(service: &Service<'_>) -> Check {
    service.configure("WatchdogSec=1\nTimeoutAbortSec=1\nRestart=no")?;
    service.start()?;
    let before = service.main_pid()?;
    let request = service.address.begin_slow(2000)?;
    service.reload()?;
    let main = service.wait_for_another_main(before)?;
    let answered_by = request.join().unwrap()?;
    if answered_by != before {
        return Err(format!("{answered_by} answered, {before} had accepted"));
    }
    service.expect("ActiveState", "active")?;
    service.expect("MainPID", &main.to_string())?;
    kill(main, Signal::STOP)?;
    wait("a failed service", || Ok((service.property("ActiveState")? == "failed").then_some(())))?;
    service.expect("Result", "watchdog")?;
    service.configure("")?;
    Ok("fed for 2000 ms, while the predecessor drained; then stopped: Result=watchdog".into())
}

/// The main process stays, and executes the program anew.
fn reloads_in_place(service: &Service<'_>) -> Check {
    service.start()?;
    let main = service.main_pid()?;
    let load = Load::start(&service.address, 4);
    let stop = AtomicBool::new(false);
    let (outcome, watched) = thread::scope(|scope| {
        let watcher = scope.spawn(|| service.watch(&stop));
        let outcome = (0..10).try_for_each(|_| {
            service.reload()?;
            // And not that the exec has failed, which ends a reload as well.
            service.wait_for_status("serving 1 listener")?;
            load.wait_for_more()
        });
        stop.store(true, Ordering::Relaxed);
        (outcome, watcher.join().unwrap())
    });
    let answers = load.stop();
    outcome?;
    let (answered, pids) = answers?;
    if watched? != BTreeSet::from([main]) || pids != BTreeSet::from([1]) {
        return Err(format!("{main} was the main process, {pids:?} answered"));
    }
    Ok(format!(
        "{answered} requests, 0 failed, all by PID 1 of the namespace; active all the time, NRestarts=0"
    ))
}

fn failing_exec(service: &Service<'_>) -> Check {
    let main = service.main_pid()?;
    with_program(None, || service.reload())??;
    let status = service.wait_for_status("restart failed: ")?;
    let answered_by = service.address.ask()?;
    if (service.main_pid()?, answered_by) != (main, 1) {
        return Err(format!(
            "{main} was the main process, {} is, {answered_by} answers",
            service.main_pid()?
        ));
    }
    service.reload()?;
    service.wait_for_status("serving ")?;
    Ok(format!("the old program serves on, status {status:?}"))
}

fn stops_of_pid_1(service: &Service<'_>) -> Check {
    let mut fastest = PATIENCE;
    for _ in 0..5 {
        service.start()?;
        let (_, took) = stop_during_a_request(service, 300)?;
        fastest = fastest.min(took);
    }
    Ok(format!("each answered a request of 300 ms, Result=success after {} ms at least", fastest.as_millis()))
}
