//! From the signal to the successor's ready line, and how long the predecessor's thread is held up by it.

use crate::contender::{Contender, ECDYSIS, HYGIENE, LIMIT, NOLIBC, host};
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
            let executed = contender.server.then(|| server.exec());
            if round > 0 {
                samples.total.push_nanos(restarted.total);
                samples.start.extend_nanos(restarted.start);
                samples.exec.extend_nanos(executed);
            }
        }
    }
    running.into_iter().map(|(contender, _, samples)| (contender.name, samples)).collect()
}

/// What restarts take from a predecessor that has dirtied its memory, and from one that has not.
#[derive(Default)]
pub struct Heap {
    pub clean: Restarts,
    pub dirty: Restarts,
}

/// How much memory the predecessors that are compared dirty together, at most.
const DIRTY_MIB: usize = 16 * 1024;

/// Restarts two predecessors of each contender in turn, with one listener, of which one has `mib` MiB of dirty
/// memory. Contenders take turns too, as many as have room together: what else the machine does meets all of them.
pub fn measure_heap(
    bin: &Path,
    contenders: &[Contender],
    mib: usize,
    rounds: usize,
) -> Vec<(&'static str, Heap)> {
    let contenders: Vec<_> =
        contenders.iter().filter(|contender| contender.restarts && !contender.server).collect();
    contenders.chunks(DIRTY_MIB / mib).flat_map(|some| measure_heaps(bin, some, mib, rounds)).collect()
}

fn measure_heaps(
    bin: &Path,
    contenders: &[&Contender],
    mib: usize,
    rounds: usize,
) -> Vec<(&'static str, Heap)> {
    let mut heaps: Vec<_> = contenders.iter().map(|contender| (contender.name, Heap::default())).collect();
    let mut running: Vec<_> = contenders
        .iter()
        .enumerate()
        .flat_map(|(position, contender)| [false, true].map(|is_dirty| (position, *contender, is_dirty)))
        .map(|(position, contender, is_dirty)| {
            let start = Start { host: host(), count: 1, heap_mib: mib, ..Start::default() };
            let mut server = Server::start(bin, contender, &start);
            if is_dirty {
                assert!(server.ask().starts_with("heap "));
            }
            (position, server, is_dirty)
        })
        .collect();
    for round in 0..=rounds {
        fastrand::shuffle(&mut running);
        for (position, server, is_dirty) in &mut running {
            let (name, heap) = &mut heaps[*position];
            if *name == ECDYSIS && round > ECDYSIS_ROUNDS / 2 {
                continue;
            }
            let restarted = server.try_restart();
            if round > 0 {
                let samples = if *is_dirty { &mut heap.dirty } else { &mut heap.clean };
                samples.total.push_nanos(restarted.total);
                samples.start.extend_nanos(restarted.start);
            }
        }
    }
    heaps
}

/// What a start costs a predecessor with threads and many descriptors.
pub struct Threaded {
    pub start: Samples,
    /// The size of its descriptor table before and after.
    pub table: (usize, usize),
}

/// Starts from predecessors with 8 more threads and 240 listeners, whose descriptor table has 256 slots; one from
/// each, because it grows but once. Those without libc have no threads.
pub fn measure_threaded(
    bin: &Path,
    contenders: &[Contender],
    rounds: usize,
) -> Vec<(&'static str, Threaded)> {
    let contenders = contenders.iter().filter(|contender| contender.restarts && !contender.server);
    let contenders = contenders.filter(|contender| ![LIMIT, HYGIENE, NOLIBC].contains(&contender.name));
    let mut measured: Vec<_> = contenders
        .map(|contender| (contender, Threaded { start: Samples::default(), table: (0, 0) }))
        .collect();
    for round in 0..rounds {
        for (contender, threaded) in &mut measured {
            if contender.name == ECDYSIS && round > ECDYSIS_ROUNDS {
                continue;
            }
            let start = Start { host: host(), count: 240, threads: 8, ..Start::default() };
            let mut server = Server::start(bin, contender, &start);
            let before = server.status("FDSize");
            threaded.start.extend_nanos(server.try_restart().start);
            threaded.table = (before, server.status("FDSize"));
        }
    }
    measured.into_iter().map(|(contender, threaded)| (contender.name, threaded)).collect()
}
