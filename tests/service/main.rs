//! `Service` under real signals, with real processes and sockets.
//!
//! This binary runs itself in roles. A trial starts a process of its own for a scenario (`restarts.rs`, `endings.rs`,
//! `manager.rs`, `begins.rs`, `forks.rs`; `stage.rs` holds what they are made of). That process starts a server
//! (`program.rs`), follows it line by line, asks it over its socket, and asserts. Its exit status is the result. Most
//! scenarios run once for each way in which a program can wait for its service.
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

mod begins;
#[path = "../common/mod.rs"]
mod common;
mod endings;
mod forks;
mod manager;
mod program;
mod restarts;
mod stage;

use gracenet::Service;
use libtest_mimic::{Arguments, Failed, Trial};
use stage::{Scenario, Way};
use std::ffi::OsString;
use std::process::{Command, ExitCode};
use std::time::Duration;

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    if args.next().is_some_and(|arg| arg == "role") {
        let role = args.next().unwrap().into_string().unwrap();
        return match role.as_str() {
            "server" => program::run(args),
            "scenario" => play(args),
            other => panic!("no such role: {other}"),
        };
    }
    // Whoever runs the tests may have a service manager, which is none of theirs.
    for variable in ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_FDNAMES"] {
        unsafe { std::env::remove_var(variable) };
    }
    let mut trials: Vec<_> = scenarios()
        .flat_map(|scenario| scenario.ways.iter().map(move |way| (scenario, *way)))
        .map(|(scenario, way)| {
            let name = match scenario.ways {
                [_] => scenario.name.to_owned(),
                _ => format!("{}_{}", scenario.name, way.word()),
            };
            common::trial(&name, scenario.needs, move || run(scenario, way))
        })
        .collect();
    trials.push(Trial::test("a_service_is_small_and_may_be_sent", is_small));
    // They wait for one another's processes more than they compute.
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(6);
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn scenarios() -> impl Iterator<Item = &'static Scenario> {
    [restarts::ALL, endings::ALL, manager::ALL, begins::ALL, forks::ALL].into_iter().flatten()
}

/// The process of one scenario.
fn play(mut args: impl Iterator<Item = OsString>) -> ExitCode {
    let (name, way) = (args.next().unwrap(), args.next().unwrap());
    let scenario = scenarios().find(|scenario| name == scenario.name).expect("no such scenario");
    let way = scenario.ways.iter().find(|known| way == known.word()).expect("no such way");
    stage::set();
    (scenario.run)(*way);
    ExitCode::SUCCESS
}

/// How long a scenario may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs a scenario in a process of its own. Whatever it leaves behind is ended.
fn run(scenario: &Scenario, way: Way) -> Result<(), Failed> {
    let mut command = Command::new(std::env::current_exe()?);
    common::play(command.args(["role", "scenario", scenario.name, way.word()]), PATIENCE)
}

const fn assert_send<T: Send>() {}
const _: () = assert_send::<Service<'static>>();

fn is_small() -> Result<(), Failed> {
    let size = size_of::<Service<'static>>();
    println!("size_of::<Service>() = {size}");
    assert!(size <= 1024, "{size}");
    Ok(())
}
