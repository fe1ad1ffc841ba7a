//! The service manager, by `systemctl`, and the services that it runs.

use crate::PATIENCE;
use crate::client::Address;
use rustix::process::{Pid, Signal};
use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Where `tests/systemd/sandbox` has put the units of `examples/systemd`.
const EXAMPLES: &str = "/srv/examples";
/// Where the manager looks for units.
const UNITS: &str = "/srv/units";
/// Where the manager keeps what is gone after a boot: `%t` in units.
const RUNTIME: [&str; 2] = ["/run", "/run/user/1000"];

/// Looks until it finds, or as long as anything may take.
pub(crate) fn wait<T>(what: &str, mut look: impl FnMut() -> Result<Option<T>, String>) -> Result<T, String> {
    let begin = Instant::now();
    loop {
        if let Some(found) = look()? {
            return Ok(found);
        }
        if begin.elapsed() > PATIENCE {
            return Err(format!("{what}: not within {} s", PATIENCE.as_secs()));
        }
        thread::sleep(Duration::from_millis(10));
    }
}

pub(crate) struct Manager {
    pub(crate) is_user: bool,
    pub(crate) version: u32,
}

impl Manager {
    /// Waits until it is up.
    pub(crate) fn start(is_user: bool) -> Result<Self, String> {
        let mut manager = Self { is_user, version: 0 };
        wait("the manager's start", || {
            let state =
                manager.command(&["is-system-running"]).output().map_err(|error| error.to_string())?;
            let state = String::from_utf8_lossy(&state.stdout).into_owned();
            Ok(matches!(state.trim(), "running" | "degraded").then_some(()))
        })?;
        let version = manager.systemctl(&["--version"])?;
        let number = version.split_whitespace().nth(1).and_then(|word| word.split(['.', '~', '-']).next());
        manager.version = number.and_then(|number| number.parse().ok()).ok_or(version)?;
        Ok(manager)
    }

    pub(crate) fn runtime(&self) -> &'static str {
        RUNTIME[usize::from(self.is_user)]
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("timeout");
        command.args(["30", "systemctl", "--no-pager"]).args(self.is_user.then_some("--user")).args(args);
        command
    }

    /// What it prints, or what it complains about.
    pub(crate) fn systemctl(&self, args: &[&str]) -> Result<String, String> {
        let output = self.command(args).output().map_err(|error| error.to_string())?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
        }
        let complaint = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        Err(format!("systemctl {}: {}: {complaint}", args.join(" "), output.status))
    }

    /// Installs a unit of the examples, as it is.
    pub(crate) fn install(&self, unit: &str) -> Result<(), String> {
        fs::copy(format!("{EXAMPLES}/{unit}"), format!("{UNITS}/{unit}"))
            .map_err(|error| error.to_string())?;
        if unit.ends_with(".service") {
            // There is no journal.
            drop_in(
                unit,
                "output",
                "[Service]\nStandardOutput=append:/srv/log/serve\nStandardError=inherit\n",
            )?;
        }
        Ok(())
    }

    /// What systemd has to say about a unit that was installed.
    pub(crate) fn verify(&self, unit: &str) -> Result<(), String> {
        let mode = if self.is_user { "--user" } else { "--system" };
        let output = Command::new("systemd-analyze")
            .args([mode, "--man=no", "verify", &format!("{UNITS}/{unit}")])
            .output()
            .map_err(|error| error.to_string())?;
        // A warning does not make it fail, and one is meant: `serve-reload.service` says why.
        let expected = |line: &&str| self.version < 259 && line.contains("'ExecReloadPost'");
        let complaints = String::from_utf8_lossy(&output.stderr);
        let complaints: Vec<_> = complaints.lines().filter(|line| !expected(line)).collect();
        if output.status.success() && complaints.is_empty() { Ok(()) } else { Err(complaints.join("; ")) }
    }
}

fn drop_in(unit: &str, part: &str, text: &str) -> Result<(), String> {
    let folder = format!("{UNITS}/{unit}.d");
    fs::create_dir_all(&folder)
        .and_then(|()| fs::write(format!("{folder}/{part}.conf"), text))
        .map_err(|error| format!("{folder}: {error}"))
}

pub(crate) struct Service<'m> {
    manager: &'m Manager,
    pub(crate) name: &'static str,
    sockets: &'static [&'static str],
    pub(crate) address: Address,
}

impl<'m> Service<'m> {
    /// Installs it with its sockets.
    pub(crate) fn install(
        manager: &'m Manager,
        name: &'static str,
        sockets: &'static [&'static str],
        port: u16,
    ) -> Result<Self, String> {
        for unit in sockets.iter().chain([&name]) {
            manager.install(unit)?;
        }
        Ok(Self { manager, name, sockets, address: Address::tcp(port) })
    }

    fn units(&self, verb: &'static str) -> Result<(), String> {
        let mut args = vec![verb];
        args.extend(self.sockets);
        args.push(self.name);
        self.manager.systemctl(&args).map(drop)
    }

    pub(crate) fn verify(&self) -> Result<(), String> {
        self.sockets.iter().chain([&self.name]).try_for_each(|unit| self.manager.verify(unit))
    }

    pub(crate) fn start(&self) -> Result<(), String> {
        self.units("start")
    }

    pub(crate) fn stop(&self) -> Result<(), String> {
        self.units("stop")
    }

    pub(crate) fn reload(&self) -> Result<(), String> {
        self.manager.systemctl(&["reload", self.name]).map(drop)
    }

    /// Whether `systemctl reload` learns that a successor has failed.
    pub(crate) fn reports_a_failed_reload(&self) -> bool {
        self.name != "serve-reload.service" || self.manager.version >= 259
    }

    /// Stops it, and adds these settings to its own, instead of the ones that were added last.
    pub(crate) fn configure(&self, settings: &str) -> Result<(), String> {
        self.stop()?;
        drop_in(self.name, "settings", &format!("[Service]\n{settings}\n"))?;
        self.manager.systemctl(&["daemon-reload"])?;
        // As if it had never failed.
        let _ = self.manager.systemctl(&["reset-failed", self.name]);
        Ok(())
    }

    fn properties(&self, names: &str) -> Result<HashMap<String, String>, String> {
        let shown = self.manager.systemctl(&["show", self.name, "-p", names])?;
        let properties = shown.lines().filter_map(|line| line.split_once('='));
        Ok(properties.map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }

    pub(crate) fn property(&self, name: &str) -> Result<String, String> {
        self.properties(name)?.remove(name).ok_or(format!("no property {name}"))
    }

    pub(crate) fn expect(&self, name: &str, value: &str) -> Result<(), String> {
        let found = self.property(name)?;
        if found == value { Ok(()) } else { Err(format!("{name} is {found:?} and not {value:?}")) }
    }

    /// 0 if there is none.
    pub(crate) fn main_pid(&self) -> Result<i32, String> {
        self.property("MainPID")?.parse().map_err(|_| "MainPID is no number".to_owned())
    }

    /// Waits until another process is the main one, and which.
    pub(crate) fn wait_for_another_main(&self, than: i32) -> Result<i32, String> {
        wait("another main process", || Ok(Some(self.main_pid()?).filter(|main| *main != 0 && *main != than)))
    }

    /// Waits for a status line that begins like this.
    pub(crate) fn wait_for_status(&self, begin: &str) -> Result<String, String> {
        let mut status = String::new();
        wait("the status line", || {
            status = self.property("StatusText")?;
            Ok(status.starts_with(begin).then(|| status.clone()))
        })
        .map_err(|error| format!("{error}, it is {:?}", self.property("StatusText")))
    }

    /// Until told to stop, makes sure that the service is active and was never restarted; which processes were the
    /// main one.
    pub(crate) fn watch(&self, stop: &AtomicBool) -> Result<BTreeSet<i32>, String> {
        let mut mains = BTreeSet::new();
        while !stop.load(Ordering::Relaxed) {
            let seen = self.properties("ActiveState,MainPID,NRestarts")?;
            let seen = |name: &str| seen.get(name).map_or("", String::as_str);
            // Reloading is a part of being active.
            if !matches!(seen("ActiveState"), "active" | "reloading") {
                return Err(format!("the service is {}", seen("ActiveState")));
            }
            if seen("NRestarts") != "0" {
                return Err(format!("the service was restarted, NRestarts={}", seen("NRestarts")));
            }
            mains.insert(seen("MainPID").parse().map_err(|_| "MainPID is no number")?);
            thread::sleep(Duration::from_millis(30));
        }
        Ok(mains)
    }
}

pub(crate) fn wait_until_gone(pid: i32) -> Result<(), String> {
    let process = format!("/proc/{pid}");
    wait("the end of a process", || Ok((!Path::new(&process).exists()).then_some(())))
}

pub(crate) fn kill(pid: i32, signal: Signal) -> Result<(), String> {
    // Not 0, which is this process's own group.
    let pid = Pid::from_raw(pid).filter(|pid| !pid.is_init()).ok_or("there is no main process")?;
    rustix::process::kill_process(pid, signal).map_err(|error| error.to_string())
}
