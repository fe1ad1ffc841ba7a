//! Measures the contenders against each other and writes the report. See `../README.md`.

mod against;
mod bars;
mod calls;
mod claim;
mod contender;
mod load;
mod memory;
mod plot;
mod process;
mod report;
mod restart;
mod stats;

use contender::*;
use lexopt::prelude::*;
use process::ProcessorTime;
use report::{Calls, Measured};
use std::path::PathBuf;
use std::time::Instant;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    const USAGE: &str =
        "usage: gracenet-bench CONTENDERS OUT [--quick] [--quote README] [--against CONTENDERS]";
    let (mut paths, mut quick, mut readme, mut older) = (Vec::new(), false, None, None);
    let mut parser = lexopt::Parser::from_env();
    while let Some(arg) = parser.next()? {
        match arg {
            Long("quick") => quick = true,
            Long("against") => older = Some(PathBuf::from(parser.value()?)),
            Long("quote") => readme = Some(PathBuf::from(parser.value()?)),
            Value(path) => paths.push(PathBuf::from(path)),
            other => return Err(other.unexpected().into()),
        }
    }
    let [bin, out] = <[PathBuf; 2]>::try_from(paths).map_err(|_| USAGE)?;
    let (hook, all) = (std::panic::take_hook(), bin.clone());
    std::panic::set_hook(Box::new(move |what| {
        hook(what);
        process::end_all(&all);
    }));
    let begin = Instant::now();
    let step = |what: &str| eprintln!("{:4} s  {what}", begin.elapsed().as_secs());
    let rounds = |full, few| if quick { few } else { full };

    // What measures does not queue behind what is measured.
    let is_ahead = process::run_ahead(2);
    let load = std::fs::read_to_string("/proc/loadavg")?;
    let load_before = load.split(' ').next().unwrap_or_default().to_owned();
    let time_before = ProcessorTime::now();
    if !is_ahead {
        eprintln!("no real-time priority: whatever else runs here will show in the times");
    }
    // Successors of a predecessor that has ended are this process's to collect.
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;

    if let Some(older) = older {
        against::compare(&bin, &older, quick);
        return Ok(());
    }
    let claims = [1, 64, 1000, 4000].map(|count| {
        step(&format!("claim, {count} sockets"));
        let contenders = match count {
            4000 => Contender::some(&bin, count, &[LIMIT, HYGIENE, LISTENING, NOLIBC]),
            _ => Contender::all(&bin, count),
        };
        (count, claim::measure(&bin, &contenders, count, rounds(41, 1)))
    });
    let restarts = [1, 64, 512, 1000].map(|count| {
        step(&format!("restart, {count} sockets"));
        (count, restart::measure(&bin, &Contender::all(&bin, count), count, rounds(200, 2)))
    });
    let some = [LIMIT, HYGIENE, NOLIBC, STD, POSIX_SPAWN, FORK, GO];
    let heaps = [512, 4096].map(|mib| {
        step(&format!("restart, {mib} MiB of dirty heap"));
        let contenders = match mib {
            512 => Contender::all(&bin, 1),
            _ => Contender::some(&bin, 1, &some),
        };
        // A few samples tell as much of a heap that is left alone as many, and small ones are as good to try it.
        (mib, restart::measure_heap(&bin, &contenders, if quick { 16 } else { mib }, rounds(60, 1)))
    });
    step("start, with threads");
    let threaded = restart::measure_threaded(&bin, &Contender::all(&bin, 240), rounds(31, 2));
    step("system calls and instructions");
    let contenders = Contender::all(&bin, 1000);
    let calls = contenders.iter().filter(|contender| contender.claims).map(|contender| {
        let spawn = contender.restarts.then(|| calls::spawn(&bin, contender));
        let instructions = if quick && contender.name != NOLIBC {
            None
        } else {
            calls::instructions(&bin, contender, Calls::SOCKETS)
        };
        (contender.name, Calls { claim: calls::claim(&bin, contender), spawn, instructions })
    });
    let calls = calls.collect();
    step("memory");
    let contenders = Contender::all(&bin, 64);
    let sizes = contenders.iter().filter(|contender| contender.restarts);
    let sizes = sizes.map(|contender| (contender.name, memory::measure(&bin, contender, 64))).collect();
    let allocator_calls = memory::allocator_calls(&bin, 64);
    step("clients");
    let contenders = Contender::some(&bin, 1, &[TINY, SERVE]);
    let loads =
        contenders.iter().map(|contender| (contender.name, load::measure(&bin, contender, rounds(15, 1))));
    let loads = loads.collect();

    let stolen = ProcessorTime::now().zip(time_before).map(|(now, before)| now.stolen_since(before));

    let (claims, restarts, heaps) = (claims.into(), restarts.into(), heaps.into());
    let measured = Measured {
        is_ahead,
        load_before,
        stolen,
        claims,
        restarts,
        heaps,
        threaded,
        calls,
        sizes,
        loads,
        allocator_calls,
    };
    report::write(&out, &measured)?;
    if let Some(readme) = readme {
        report::quote(&readme, &measured)?;
    }
    print!("{}", report::summary(&measured, quick));
    step("done");
    if bars::all(&measured).iter().any(|bar| bar.is_counted && !bar.is_held) {
        return Err("a bar is missed that does not depend on time".into());
    }
    Ok(())
}
