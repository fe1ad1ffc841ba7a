//! From exec to all sockets claimed.

use crate::contender::Contender;
use crate::stats::Samples;
use std::path::Path;
use std::process::Command;

#[derive(Default)]
pub struct Claim {
    /// From execve.
    pub from_exec: Samples,
    /// From the first thing that main does.
    pub own: Samples,
}

/// Starts all contenders, each round in an order of its own, with `count` inherited listeners, `rounds` times.
pub fn measure(
    bin: &Path,
    contenders: &[Contender],
    count: usize,
    rounds: usize,
) -> Vec<(&'static str, Claim)> {
    let contenders: Vec<_> = contenders.iter().filter(|contender| contender.claims).collect();
    let mut command = Command::new(bin.join("launch"));
    command.args(["claim", &crate::contender::host(), &count.to_string(), &(rounds + 1).to_string()]);
    command.args(contenders.iter().map(|contender| &contender.program)).env("BENCH_NAMES", "1");
    let output = command.output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}");
    let output = String::from_utf8(output.stdout).unwrap();
    let numbers = output
        .lines()
        .map(|line| line.split(' ').skip(1).map(|word| word.parse::<u128>().unwrap()).collect::<Vec<_>>());
    let mut measured: Vec<_> =
        contenders.iter().map(|contender| (contender.name, Claim::default())).collect();
    // `claimed`, by the program, then `exec`, by what started it.
    for (position, pair) in numbers.collect::<Vec<_>>().chunks_exact(2).enumerate() {
        let [entry, claimed, exec, program] = pair.concat()[..] else { panic!("{output}") };
        // The first one brings the program into memory.
        if position >= contenders.len() {
            let claim = &mut measured[program as usize].1;
            claim.from_exec.push_nanos(claimed - exec);
            claim.own.push_nanos(claimed - entry);
        }
    }
    measured
}
