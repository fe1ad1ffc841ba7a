//! Restarts of real processes.
//!
//! This binary runs itself in roles. A trial starts a process of its own for a scenario (`scenarios.rs`,
//! `verdicts.rs`, `manager.rs`; what they are made of is in `stage.rs`):
//! that process is the predecessor, with a table of descriptors that nobody else uses, and asserts for
//! itself; its exit status is the result. Its successors are this binary again, in the role of a reporter
//! (`reporter.rs`), which tells what it was given. The trials of `server.rs`, `options.rs` and `init.rs` restart the
//! `serve` example.
#![allow(
    unsafe_code,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::multiple_unsafe_ops_per_block,
    clippy::panic,
    clippy::std_instead_of_core,
    clippy::undocumented_unsafe_blocks,
    clippy::unwrap_used,
    reason = "tests"
)]

#[path = "../common/mod.rs"]
mod common;
mod init;
mod manager;
mod options;
mod reporter;
mod scenarios;
#[path = "../../examples/serve.rs"]
mod serve;
mod server;
mod stage;
mod verdicts;

use libtest_mimic::Failed;
use stage::Scenario;
use std::ffi::OsString;
use std::process::{Command, ExitCode};
use std::time::Duration;

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    if args.next().is_some_and(|arg| arg == "role") {
        let role = args.next().unwrap().into_string().unwrap();
        return match role.as_str() {
            "serve" => serve::run(args),
            "reporter" => reporter::run(args),
            "scenario" => play(args),
            "keeper" => manager::keep(),
            other => panic!("no such role: {other}"),
        };
    }
    // Whoever runs the tests may have a service manager, which is none of theirs.
    unsafe { std::env::remove_var("NOTIFY_SOCKET") };
    let mut trials: Vec<_> =
        scenarios().map(|scenario| common::trial(scenario.name, scenario.needs, || run(scenario))).collect();
    trials.extend(server::trials());
    trials.extend(options::trials());
    trials.extend(init::trials());
    common::run(trials)
}

fn scenarios() -> impl Iterator<Item = &'static Scenario> {
    [scenarios::ALL, verdicts::ALL, manager::ALL].into_iter().flatten()
}

/// The process of one scenario.
fn play(mut args: impl Iterator<Item = OsString>) -> ExitCode {
    let name = args.next().unwrap();
    let scenario = scenarios().find(|scenario| name == scenario.name).expect("no such scenario");
    (scenario.run)();
    ExitCode::SUCCESS
}

/// How long a scenario may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// Runs a scenario in a process of its own, under strace where it asks for a fault. What it leaves behind when it fails
/// is ended, and not waited for.
fn run(scenario: &Scenario) -> Result<(), Failed> {
    let own = std::env::current_exe()?;
    let mut command = match scenario.inject {
        None => Command::new(own),
        Some(fault) => {
            let mut strace = Command::new("strace");
            strace.args(["-f", "-qq", "-o", "/dev/null", "-e"]).arg(format!("inject={fault}")).arg(own);
            strace
        }
    };
    common::play(command.args(["role", "scenario", scenario.name]), PATIENCE)
}
