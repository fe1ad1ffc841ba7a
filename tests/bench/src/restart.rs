//! From the signal to the successor's ready line, and how long the predecessor's thread is held up by it.

use crate::contender::{Contender, ECDYSIS, SERVE, TINY, host};
use crate::process::{Server, Start};
use crate::stats::Samples;
use std::path::Path;

#[derive(Default)]
pub struct Restarts {
    pub total: Samples,
    /// The call that starts the successor.
    pub start: Samples,
    /// The same restart in place.
    pub exec: Samples,
}

/// ecdysis takes half a second for each, so it takes part in the first ones only.
const ECDYSIS_ROUNDS: usize = 12;

/// Restarts all contenders `rounds` times, each round in an order of its own.
pub fn measure(
    bin: &Path,
    contenders: &[Contender],
    count: usize,
    rounds: usize,
) -> Vec<(&'static str, Restarts)> {
    let contenders = contenders.iter().filter(|contender| contender.restarts);
    let mut running: Vec<_> = contenders
        .map(|contender| {
            let start = Start { host: host(), count, ..Start::default() };
            (contender, Server::start(bin, contender, &start), Restarts::default())
        })
        .collect();
    let mut order: Vec<usize> = (0..running.len()).collect();
    // The first one brings the program into memory.
    for round in 0..=rounds {
        // Or one would always find in the caches what its forerunner left there.
        fastrand::shuffle(&mut order);
        for position in &order {
            let (contender, server, samples) = &mut running[*position];
            if contender.name == ECDYSIS && round > ECDYSIS_ROUNDS {
                continue;
            }
            let restarted = server.restart();
            let executed = [SERVE, TINY].contains(&contender.name).then(|| server.exec());
            if round > 0 {
                samples.total.push_nanos(restarted.total);
                samples.start.extend_nanos(restarted.start);
                samples.exec.extend_nanos(executed);
            }
        }
    }
    running.into_iter().map(|(contender, _, samples)| (contender.name, samples)).collect()
}

/// What restarts from the same predecessor take, before and after it has dirtied its memory.
#[derive(Default)]
pub struct Heap {
    pub clean: Restarts,
    pub dirty: Restarts,
}

/// Restarts each contender with one listener and `mib` MiB of dirty memory; twice over, so that what changes with
/// time changes both.
pub fn measure_heap(
    bin: &Path,
    contenders: &[Contender],
    mib: usize,
    rounds: usize,
) -> Vec<(&'static str, Heap)> {
    let contenders = contenders.iter().filter(|contender| contender.restarts && !contender.server);
    let mut measured: Vec<_> = contenders.map(|contender| (contender, Heap::default())).collect();
    for _ in 0..2 {
        for (contender, heap) in &mut measured {
            let host = host();
            let start = Start { host, count: 1, heap_mib: mib, ..Start::default() };
            let mut server = Server::start(bin, contender, &start);
            let rounds = if contender.name == ECDYSIS { rounds.min(3) } else { rounds };
            for (is_dirty, samples) in [(false, &mut heap.clean), (true, &mut heap.dirty)] {
                if is_dirty {
                    assert!(server.ask().starts_with("heap "));
                }
                for round in 0..=rounds {
                    let restarted = server.try_restart();
                    if round > 0 {
                        samples.total.push_nanos(restarted.total);
                        samples.start.extend_nanos(restarted.start);
                    }
                }
            }
        }
    }
    measured.into_iter().map(|(contender, heap)| (contender.name, heap)).collect()
}

/// What a start costs a predecessor with threads and many descriptors.
pub struct Threaded {
    pub start: Samples,
    /// The size of its descriptor table before and after.
    pub table: (usize, usize),
}

/// One start each from a predecessor with 8 more threads and 240 listeners; its descriptor table has 256 slots.
pub fn measure_threaded(
    bin: &Path,
    contenders: &[Contender],
    rounds: usize,
) -> Vec<(&'static str, Threaded)> {
    let contenders = contenders.iter().filter(|contender| contender.restarts && !contender.server);
    contenders
        .map(|contender| {
            let host = host();
            let mut start_call = Samples::default();
            let mut table = (0, 0);
            for _ in 0..rounds {
                let start = Start { host: host.clone(), count: 240, threads: 8, ..Start::default() };
                let mut server = Server::start(bin, contender, &start);
                let before = server.status("FDSize");
                start_call.extend_nanos(server.try_restart().start);
                table = (before, server.status("FDSize"));
            }
            (contender.name, Threaded { start: start_call, table })
        })
        .collect()
}
