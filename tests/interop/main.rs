//! Interoperation: predecessors and successors that are other people's real programs.
//!
//! `systemd-socket-activate`, a server on the Go original, programs in C with and without libsystemd, and
//! shell scripts, each beside `examples/serve.rs` or the role in `predecessor.rs`; and `serve` as an older release
//! has it.
//!
//! A program that is not installed, or a release that the repository lacks, leaves its tests out, visibly: they
//! count as ignored. With `GRACENET_INTEROP=all` that is a failure, which is how CI runs them.
//!
//! `serve` is the example that `cargo test` has built; after a change of it, `cargo test --test interop` alone
//! runs the one that was there before.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::std_instead_of_core,
    unsafe_code,
    reason = "tests"
)]

mod activate;
mod client;
mod descriptor;
mod go;
mod libsystemd;
mod older;
mod predecessor;
mod process;
mod programs;
mod shell;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Failed, Trial};
use programs::{Need, Programs};

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    if args.next().as_deref() == Some(predecessor::ROLE) {
        return predecessor::run(args);
    }
    let arguments = Arguments::from_args();
    // Successors outlive their parents; this process collects them, as init would.
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).unwrap();
    programs::close_on_exec();
    let programs = Programs::new();
    let trials =
        [activate::TESTS, descriptor::TESTS, go::TESTS, libsystemd::TESTS, older::TESTS, shell::TESTS]
            .into_iter()
            .flatten()
            .map(|test| trial(test, programs))
            .collect();
    let conclusion = libtest_mimic::run(&arguments, trials);
    programs.clean();
    conclusion.exit_code()
}

/// One test: its name, what it needs beside the crate, and what it does.
struct Test {
    name: &'static str,
    needs: &'static [Need],
    run: fn(&Programs),
}

fn trial(test: &'static Test, programs: &'static Programs) -> Trial {
    let missing = test.needs.iter().find_map(|need| programs.missing(*need));
    let ignored = missing.is_some() && !programs.all_required();
    if let (Some(missing), true) = (&missing, ignored) {
        eprintln!("{} is left out: {missing}", test.name);
    }
    let run = move || match missing {
        Some(missing) => Err(Failed::from(missing)),
        None => {
            (test.run)(programs);
            Ok(())
        }
    };
    Trial::test(test.name, run).with_ignored_flag(ignored)
}
