//! The service manager, by `systemctl`, and the services that it runs.

use crate::PATIENCE;
use crate::client::Address;
use rustix::process::{Pid, Signal};
use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

pub(crate) struct Manager {
    pub(crate) is_user: bool,
    pub(crate) version: u32,
}

impl Manager {
    /// Waits until it is up.
    pub(crate) fn start() -> Self {
        let is_user = std::env::var("LAB_MANAGER").is_ok_and(|manager| manager == "user");
        let manager = Self { is_user, version: 0 };
        let begin = Instant::now();
        loop {
            let output = manager.command(&["is-system-running"]).output().unwrap();
            if matches!(String::from_utf8_lossy(&output.stdout).trim(), "running" | "degraded") {
                break;
            }
            assert!(begin.elapsed() < PATIENCE, "the manager did not come up: {output:?}");
            thread::sleep(Duration::from_millis(20));
        }
        let version = manager.systemctl(&["--version"]).unwrap();
        let version = version.split_whitespace().nth(1).and_then(|word| word.split(['.', '~', '-']).next());
        if is_user {
            // Where the system's units keep their PID files.
            for directory in ["/run/serve", "/run/serve-reload"] {
                fs::create_dir_all(directory).unwrap();
            }
        }
        Self { is_user, version: version.and_then(|version| version.parse().ok()).unwrap() }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("systemctl");
        command.arg("--no-pager").args(self.is_user.then_some("--user")).args(args);
        command
    }

    /// What it prints, or what it complains about.
    pub(crate) fn systemctl(&self, args: &[&str]) -> Result<String, String> {
        let output = self.command(args).output().map_err(|error| error.to_string())?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
        }
        Err(format!("systemctl {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr).trim()))
    }

    /// Installs a unit of the examples under a name. There is nothing for it to be ordered behind here.
    pub(crate) fn install(&self, example: &str, name: &str) {
        fs::copy(format!("/run/lab/examples/{example}"), unit(name)).unwrap();
        drop_in(name, "lab", "[Unit]\nDefaultDependencies=no\nStartLimitIntervalSec=0\n");
        if name.ends_with(".service") {
            drop_in(
                name,
                "output",
                "[Service]\nStandardOutput=append:/run/lab/out/serve\nStandardError=inherit\n",
            );
        }
    }
}

fn unit(name: &str) -> String {
    format!("/run/lab/units/{name}")
}

fn drop_in(name: &str, part: &str, text: &str) {
    fs::create_dir_all(unit(&format!("{name}.d"))).unwrap();
    fs::write(unit(&format!("{name}.d/{part}.conf")), text).unwrap();
}

pub(crate) struct Service<'m> {
    manager: &'m Manager,
    name: &'static str,
    sockets: Vec<&'static str>,
    pub(crate) address: Address,
}

impl<'m> Service<'m> {
    pub(crate) fn new(
        manager: &'m Manager,
        name: &'static str,
        sockets: &[&'static str],
        address: Address,
    ) -> Self {
        Self { manager, name, sockets: sockets.to_vec(), address }
    }

    fn units(&self, verb: &'static str) -> Result<String, String> {
        let mut args = vec![verb];
        args.extend(&self.sockets);
        args.push(self.name);
        self.manager.systemctl(&args)
    }

    pub(crate) fn start(&self) -> Result<(), String> {
        self.units("start").map(drop)
    }

    pub(crate) fn stop(&self) -> Result<(), String> {
        self.units("stop").map(drop)
    }

    pub(crate) fn reload(&self) -> Result<(), String> {
        self.manager.systemctl(&["reload", self.name]).map(drop)
    }

    /// Forgets that it failed, and what it was configured with.
    pub(crate) fn reset(&self) {
        let _ = self.stop();
        let _ = self.manager.systemctl(&["reset-failed", self.name]);
        self.configure("");
    }

    /// Changes the unit, while it is stopped.
    pub(crate) fn configure(&self, text: &str) {
        drop_in(self.name, "test", text);
        self.manager.systemctl(&["daemon-reload"]).unwrap();
    }

    pub(crate) fn is_in_place(&self) -> bool {
        self.name == "serve-container.service"
    }

    pub(crate) fn property(&self, name: &str) -> Result<String, String> {
        let shown = self.manager.systemctl(&["show", self.name, "-p", name])?;
        let properties: HashMap<_, _> = shown.lines().filter_map(|line| line.split_once('=')).collect();
        properties.get(name).map(|value| (*value).to_owned()).ok_or(format!("no property {name}"))
    }

    pub(crate) fn main_pid(&self) -> Result<i32, String> {
        self.property("MainPID")?.parse().map_err(|_| "MainPID is no number".to_owned())
    }

    pub(crate) fn wait_for_main(&self, is_it: impl Fn(i32) -> bool) -> Result<i32, String> {
        self.wait("MainPID", |value| value.parse().ok().filter(|main| is_it(*main)))
    }

    /// Waits for a status line that begins like this.
    pub(crate) fn wait_for_status(&self, begin: &str) -> Result<String, String> {
        self.wait("StatusText", |value| value.starts_with(begin).then(|| value.to_owned()))
    }

    fn wait<T>(&self, property: &str, find: impl Fn(&str) -> Option<T>) -> Result<T, String> {
        let begin = Instant::now();
        loop {
            let value = self.property(property)?;
            if let Some(found) = find(&value) {
                return Ok(found);
            }
            if begin.elapsed() > PATIENCE {
                return Err(format!("{property} stays {value:?}"));
            }
            thread::sleep(Duration::from_millis(10));
        }
    }

    pub(crate) fn wait_until_gone(&self, pid: i32) -> Result<(), String> {
        let begin = Instant::now();
        while Path::new(&format!("/proc/{pid}")).exists() {
            if begin.elapsed() > PATIENCE {
                return Err(format!("{pid} does not leave"));
            }
            thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }
}

pub(crate) fn kill(pid: i32, signal: Signal) {
    // Never 0, which is this process's own group.
    rustix::process::kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
}
