//! The checks of `tests/systemd/run`, which starts this beside a private systemd.
//!
//! Each check prints one line, `pass` or `FAIL` and what it found. The units are those of `examples/systemd`,
//! installed as they are; what a check changes about one is in a drop-in. `serve` is in `/usr/local/bin`, which is
//! in memory, so that it can be replaced by a program that fails.
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
use manager::{Manager, Service};
use rustix::process::Signal;
use std::collections::BTreeSet;
use std::fs;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(10);

type Check = Result<String, String>;

fn main() -> ExitCode {
    let manager = Manager::start();
    println!("systemd {} as {}", manager.version, if manager.is_user { "a user's manager" } else { "PID 1" });
    let mut checks = Checks { failed: false };
    let Units { sockets, storing, container } = Units::install(&manager);

    checks.run("three named sockets, in any order", || any_order(&manager));
    for access in ["main", "exec", "all"] {
        let service = &sockets;
        service.configure(&format!("[Service]\nNotifyAccess={access}\n"));
        checks.run(&format!("NotifyAccess={access}: starts"), || starts(service));
        let reloads = if access == "main" { 10 } else { 3 };
        checks.run(&format!("NotifyAccess={access}: {reloads} reloads under load"), || {
            reloads_under_load(service, reloads)
        });
        checks.run(
            &format!("NotifyAccess={access}: a request in flight is answered by the predecessor"),
            || request_in_flight(service),
        );
        checks.run(&format!("NotifyAccess={access}: a successor that fails"), || {
            failing_successor(service, true)
        });
        checks
            .run(&format!("NotifyAccess={access}: a stop right after a reload waits for the drain"), || {
                stop_waits(service)
            });
    }
    sockets.configure("");

    let by_signal = manager.version >= 253 && !manager.is_user;
    checks.run("with the file descriptor store: starts", || starts(&storing));
    checks.run("with the file descriptor store: 3 reloads under load", || reloads_under_load(&storing, 3));
    checks.run("kill -9: generation, port and queue come back from the store", || crash(&storing));
    checks.run("a successor that fails, with the store", || failing_successor(&storing, !by_signal));
    checks.run("a stop right after a reload, with the store", || stop_waits(&storing));
    checks.run("the store is empty after the stop", || store_is_empty(&storing));
    checks.run("a server that hangs is found by the watchdog", || watchdog(&storing));

    if let Some(container) = &container {
        checks.run("PID 1 of a namespace: starts", || starts(container));
        checks.run("PID 1 of a namespace: 3 reloads in place under load", || reloads_in_place(container, 3));
        checks.run("PID 1 of a namespace: stop waits for the drain", || stop_waits(container));
    }
    if checks.failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

struct Checks {
    failed: bool,
}

impl Checks {
    fn run(&mut self, what: &str, check: impl FnOnce() -> Check) {
        let begin = Instant::now();
        match check() {
            Ok(found) => println!("pass {what}: {found} ({} ms)", begin.elapsed().as_millis()),
            Err(error) => {
                println!("FAIL {what}: {error} ({} ms)", begin.elapsed().as_millis());
                self.failed = true;
            }
        }
    }
}

/// The services under test.
struct Units<'m> {
    sockets: Service<'m>,
    storing: Service<'m>,
    container: Option<Service<'m>>,
}

const SOCKETS: [&str; 3] = ["serve-http.socket", "serve-admin.socket", "serve-local.socket"];

impl<'m> Units<'m> {
    fn install(manager: &'m Manager) -> Self {
        let reload = manager.version >= 253 && !manager.is_user;
        for unit in ["serve.service"].iter().chain(&SOCKETS) {
            manager.install(unit, unit);
        }
        let sockets = Service::new(manager, "serve.service", &SOCKETS, Address::tcp(8080));
        let storing = if reload {
            manager.install("serve-reload.service", "serve-reload.service");
            Service::new(manager, "serve-reload.service", &[], Address::tcp(8090))
        } else {
            // The same with ExecReload= and without a signal of the manager's own.
            manager.install("user/serve.service", "serve-user.service");
            Service::new(manager, "serve-user.service", &[], Address::tcp(8092))
        };
        let container = (manager.version >= 257 && !manager.is_user).then(|| {
            manager.install("serve-container.service", "serve-container.service");
            Service::new(manager, "serve-container.service", &[], Address::tcp(8091))
        });
        manager.systemctl(&["daemon-reload"]).unwrap();
        Self { sockets, storing, container }
    }
}

/// The order of the descriptors follows the order in which the socket units were started; `serve` finds its
/// sockets by name, and every one of them is served.
fn any_order(manager: &Manager) -> Check {
    let addresses = [Address::tcp(8080), Address::tcp(8081), Address::Unix("/run/serve.sock".into())];
    let mut seen = BTreeSet::new();
    for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
        let service = Service::new(manager, "serve.service", &[], addresses[0].clone());
        for socket in order {
            manager.systemctl(&["start", SOCKETS[socket]])?;
        }
        if service.main_pid()? != 0 {
            return Err("the service runs before anybody asked".into());
        }
        let pids: BTreeSet<_> = addresses.iter().map(Address::ask).collect::<Result<_, _>>()?;
        let main = service.main_pid()?;
        if pids != BTreeSet::from([main]) {
            return Err(format!("{pids:?} answer, the main process is {main}"));
        }
        service.wait_for_status("serving 3 listeners")?;
        // As it was started: the variables are gone from the process's own table.
        let names = fs::read(format!("/proc/{main}/environ")).map_err(|error| error.to_string())?;
        let names = String::from_utf8_lossy(&names).into_owned();
        let names = names.split('\0').find_map(|line| line.strip_prefix("LISTEN_FDNAMES=")).unwrap_or("none");
        seen.insert(names.to_owned());
        let mut units = vec!["stop"];
        units.extend(SOCKETS);
        units.push("serve.service");
        manager.systemctl(&units)?;
    }
    Ok(format!("seen as {}", seen.into_iter().collect::<Vec<_>>().join(", ")))
}

fn starts(service: &Service<'_>) -> Check {
    service.start()?;
    let pid = service.address.ask()?;
    let main = service.main_pid()?;
    let expected = if service.is_in_place() { 1 } else { main };
    if pid == expected {
        Ok(format!("main process {main}"))
    } else {
        Err(format!("{pid} answers, the main process is {main}"))
    }
}

/// Nobody notices but by the PID in the answer: the main process is followed, the service never leaves `active`
/// or `reloading`, and was not restarted.
fn reloads_under_load(service: &Service<'_>, reloads: usize) -> Check {
    let load = Load::start(&service.address, 4);
    let mut mains = vec![service.main_pid()?];
    let mut outcome = Ok(());
    for _ in 0..reloads {
        outcome = (|| {
            service.reload()?;
            let before = *mains.last().unwrap_or(&0);
            mains.push(service.wait_for_main(|main| main != 0 && main != before)?);
            let state = service.property("ActiveState")?;
            if !matches!(&*state, "active" | "reloading") {
                return Err(format!("the service is {state}"));
            }
            load.wait_for(mains[mains.len() - 1])
        })();
        if outcome.is_err() {
            break;
        }
    }
    let (answered, failures, pids) = load.stop();
    outcome?;
    if !failures.is_empty() {
        return Err(format!("{} of {} requests failed: {:?}", failures.len(), answered, failures.first()));
    }
    let restarts = service.property("NRestarts")?;
    if restarts != "0" {
        return Err(format!("restarted {restarts} times"));
    }
    if !mains.iter().skip(1).all(|main| pids.contains(main)) {
        return Err(format!("{mains:?} were main processes, {pids:?} answered"));
    }
    Ok(format!("{answered} requests, 0 failed, {} main processes, NRestarts=0", mains.len()))
}

/// The same where the main process stays, and executes the program anew.
fn reloads_in_place(service: &Service<'_>, reloads: usize) -> Check {
    let load = Load::start(&service.address, 4);
    let main = service.main_pid()?;
    let outcome = (0..reloads).try_for_each(|_| {
        let begun = load.answered();
        service.reload()?;
        load.wait_for_more(begun)
    });
    let (answered, failures, pids) = load.stop();
    outcome?;
    if !failures.is_empty() {
        return Err(format!("{} of {} requests failed: {:?}", failures.len(), answered, failures.first()));
    }
    if service.main_pid()? != main || pids != BTreeSet::from([1]) {
        return Err(format!("{main} was the main process, {} is; {pids:?} answered", service.main_pid()?));
    }
    Ok(format!("{answered} requests, 0 failed, by PID 1 of its namespace"))
}

fn request_in_flight(service: &Service<'_>) -> Check {
    let before = service.main_pid()?;
    let request = service.address.begin_slow(1000)?;
    service.reload()?;
    let main = service.wait_for_main(|main| main != 0 && main != before)?;
    let answered_by = request.join().unwrap()?;
    if answered_by != before {
        return Err(format!("answered by {answered_by}, accepted by {before}"));
    }
    service.wait_until_gone(before)?;
    Ok(format!("{before} answered after {main} had taken over, and left"))
}

/// The old main process stays and serves; `systemctl reload` says so where the manager can, the status line in
/// any case.
fn failing_successor(service: &Service<'_>, is_reported: bool) -> Check {
    const PROGRAM: &str = "/usr/local/bin/serve";
    let before = service.main_pid()?;
    let broken = |program: &str| {
        use std::os::unix::fs::PermissionsExt;
        fs::write(format!("{PROGRAM}.broken"), program)?;
        fs::set_permissions(format!("{PROGRAM}.broken"), fs::Permissions::from_mode(0o755))?;
        fs::rename(PROGRAM, format!("{PROGRAM}.good"))?;
        fs::rename(format!("{PROGRAM}.broken"), PROGRAM)
    };
    broken("#!/bin/sh\nexit 7\n").map_err(|error: std::io::Error| error.to_string())?;
    let reload = service.reload();
    fs::rename(format!("{PROGRAM}.good"), PROGRAM).map_err(|error| error.to_string())?;
    if reload.is_ok() == is_reported {
        return Err(format!("systemctl reload: {reload:?}"));
    }
    let status = service.wait_for_status("restart failed: ")?;
    if !status.contains("status 7") {
        return Err(format!("the status line is {status:?}"));
    }
    let (main, answers) = (service.main_pid()?, service.address.ask()?);
    if (main, answers) != (before, before) {
        return Err(format!("{before} was the main process, {main} is, {answers} answers"));
    }
    if service.property("ActiveState")? != "active" {
        return Err(format!("the service is {}", service.property("ActiveState")?));
    }
    // The next one succeeds.
    service.reload()?;
    service.wait_for_main(|main| main != 0 && main != before)?;
    let said = if is_reported { "fails" } else { "does not fail" };
    Ok(format!("systemctl reload {said}, status {status:?}, {before} stays"))
}

/// A service whose main process systemd did not start is stopped as it should be: SIGTERM, and time to drain.
fn stop_waits(service: &Service<'_>) -> Check {
    let before = service.main_pid()?;
    service.reload()?;
    let main = service.wait_for_main(|main| main != 0 && (main != before || service.is_in_place()))?;
    if main != before {
        service.wait_until_gone(before)?;
    }
    let request = service.address.begin_slow(2000)?;
    let begin = Instant::now();
    service.stop()?;
    let took = begin.elapsed();
    request.join().unwrap()?;
    let result = service.property("Result")?;
    if result != "success" || took < Duration::from_millis(1500) {
        return Err(format!("Result={result} after {} ms", took.as_millis()));
    }
    Ok(format!("the request of 2000 ms was answered, Result=success after {} ms", took.as_millis()))
}

/// Connections that come while the service is down wait in the queue of a socket that only the manager's store
/// keeps open, and are answered by the next start, which counts on.
fn crash(service: &Service<'_>) -> Check {
    let before = service.main_pid()?;
    let generation = |status: &str| status.rsplit(' ').next().and_then(|number| number.parse::<u64>().ok());
    let status = service.wait_for_status("serving 1 listener, generation ")?;
    let old = generation(&status).ok_or(format!("the status line is {status:?}"))?;
    if service.property("NFileDescriptorStore")? != "2" {
        return Err(format!("{} descriptors are in the store", service.property("NFileDescriptorStore")?));
    }
    manager::kill(before, Signal::KILL);
    let answered_by = service.address.ask()?;
    let main = service.wait_for_main(|main| main != 0 && main != before)?;
    if answered_by != main {
        return Err(format!("answered by {answered_by}, the main process is {main}"));
    }
    let status = service.wait_for_status(&format!("serving 1 listener, generation {}", old + 1))?;
    let restarts = service.property("NRestarts")?;
    if restarts != "1" {
        return Err(format!("NRestarts={restarts}"));
    }
    Ok(format!("{main} answered what waited in the queue, status {status:?}, NRestarts=1"))
}

fn store_is_empty(service: &Service<'_>) -> Check {
    match &*service.property("NFileDescriptorStore")? {
        "0" => Ok("0 descriptors".into()),
        kept => Err(format!("{kept} descriptors")),
    }
}

fn watchdog(service: &Service<'_>) -> Check {
    service.configure("[Service]\nWatchdogSec=1\nRestart=no\nTimeoutAbortSec=1\n");
    service.start()?;
    // A successor is watched as the first process is, by its own PID.
    let before = service.main_pid()?;
    service.reload()?;
    let main = service.wait_for_main(|main| main != 0 && main != before)?;
    // Longer than the watchdog waits: it is being fed.
    thread::sleep(Duration::from_millis(1500));
    if service.property("ActiveState")? != "active" {
        return Err(format!("a healthy server was taken for dead: {}", service.property("Result")?));
    }
    manager::kill(main, Signal::STOP);
    let begin = Instant::now();
    while service.property("ActiveState")? != "failed" {
        if begin.elapsed() > PATIENCE {
            return Err("not noticed".into());
        }
        thread::sleep(Duration::from_millis(20));
    }
    let result = service.property("Result")?;
    service.reset();
    if result == "watchdog" { Ok("Result=watchdog".into()) } else { Err(format!("Result={result}")) }
}
