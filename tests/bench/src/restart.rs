//! From the signal to the successor's ready line.

use crate::contender::{Contender, host};
use crate::process::Server;
use crate::stats::Samples;
use std::path::Path;

#[derive(Default)]
pub struct Restarts {
    pub total: Samples,
    /// The call that starts the successor.
    pub start: Samples,
}

/// Restarts all contenders in turn, `rounds` times.
pub fn measure(
    bin: &Path,
    contenders: &[Contender],
    count: usize,
    rounds: usize,
) -> Vec<(&'static str, Restarts)> {
    let contenders = contenders.iter().filter(|contender| contender.restarts);
    let mut running: Vec<_> = contenders
        .enumerate()
        .map(|(position, contender)| {
            let server = Server::start(bin, contender, &host(1 + position), count, 0);
            (contender, server, Restarts::default())
        })
        .collect();
    for round in 0..=rounds {
        for (contender, server, samples) in &mut running {
            // It takes half a second, whatever happens.
            if contender.name == "ecdysis" && round > 8 {
                continue;
            }
            let restarted = server.restart();
            if round > 0 {
                samples.total.push_nanos(restarted.total);
                restarted.start.into_iter().for_each(|nanos| samples.start.push_nanos(nanos));
            }
        }
    }
    running.into_iter().map(|(contender, _, samples)| (contender.name, samples)).collect()
}
