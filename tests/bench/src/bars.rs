//! The bars: what was promised of the crate, and what was reached.

use crate::contender::*;
use crate::report::{Measured, at, find, times};
use crate::stats::Samples;

pub struct Bar {
    pub what: String,
    pub bound: String,
    pub reached: String,
    pub is_held: bool,
    /// Whether it is about what was counted, and so the same on every machine, however busy.
    pub is_counted: bool,
}

impl Bar {
    pub fn verdict(&self) -> &'static str {
        if self.is_held { "held" } else { "missed" }
    }

    fn new(what: impl Into<String>, bound: impl Into<String>, reached: String, is_held: bool) -> Self {
        Self { what: what.into(), bound: bound.into(), reached, is_held, is_counted: false }
    }

    fn counted(what: impl Into<String>, bound: impl Into<String>, reached: String, is_held: bool) -> Self {
        Self { is_counted: true, ..Self::new(what, bound, reached, is_held) }
    }

    /// Takes at most so many times what the other takes.
    fn at_most(what: impl Into<String>, factor: f64, of: &str, ratio: f64) -> Self {
        Self::new(what, format!("≤ {factor} × {of}"), times(ratio), ratio <= factor)
    }

    /// At least so many times as fast as the Go original.
    fn go(what: impl Into<String>, factor: f64, ratio: f64) -> Self {
        let bound = format!("≥ {factor} × as fast as {GO}");
        Self::new(what, bound, times(ratio), ratio >= factor)
    }
}

/// All of them, in the order of the report.
pub fn all(measured: &Measured) -> Vec<Bar> {
    let groups = [claims, restarts, starts, calls, clients];
    groups.iter().flat_map(|group| group(measured)).flatten().collect()
}

type Bars = Vec<Option<Bar>>;

fn claims(measured: &Measured) -> Bars {
    let claim = |count, name| at(&measured.claims, count, name);
    let from_exec = |count, name| claim(count, name).map(|claim| claim.from_exec.median());
    let what = "claim 1000 sockets by address";
    let limit = || Some(from_exec(1000, NOLIBC)? / from_exec(1000, LIMIT)?);
    let go = || Some(from_exec(1000, GO)? / from_exec(1000, NOLIBC)?);
    let cost = |from: usize, to: usize| {
        let time = |count| claim(count, NOLIBC).map(|claim| claim.own.median());
        Some((time(to)? - time(from)?) / (to - from) as f64)
    };
    let constant = || {
        let (first, last) = (cost(64, 1000)?, cost(1000, 4000)?);
        let reached = format!("{first:.2} µs for each of 64 to 1000, {last:.2} µs of 1000 to 4000");
        Some(Bar::new(
            "claim, the cost of a socket",
            "constant from 64 to 4000",
            reached,
            last <= 1.1 * first,
        ))
    };
    vec![
        limit().map(|ratio| Bar::at_most(what, 1.5, LIMIT, ratio)),
        go().map(|ratio| Bar::go(what, 150.0, ratio)),
        constant(),
    ]
}

fn restarts(measured: &Measured) -> Bars {
    let mut bars = Vec::new();
    for (count, row) in &measured.restarts {
        let median = |name| find(row, name).map(|restarts| restarts.total.median());
        let ratio = |name, other| Some(median(name)? / median(other)?);
        let sockets = if *count == 1 { "socket" } else { "sockets" };
        let what = |name: &str| format!("restart with {count} {sockets}, {name}");
        for (name, most) in [(TINY, 1.15), (MUSL, 1.6)] {
            bars.push(ratio(name, HYGIENE).map(|ratio| Bar::at_most(what(name), most, HYGIENE, ratio)));
        }
        let best = PEERS.iter().filter_map(|name| Some((*name, ratio(name, SERVE)?)));
        bars.push(best.min_by(|a, b| a.1.total_cmp(&b.1)).map(|(name, ratio)| {
            let reached = format!("{} as fast as {name}", times(ratio));
            Bar::new(what(SERVE), "ahead of every peer", reached, ratio > 1.0)
        }));
        let least = [(1, 1.7), (512, 4.0)].into_iter().find(|(sockets, _)| sockets == count);
        bars.push(least.and_then(|(_, least)| Some(Bar::go(what(SERVE), least, ratio(GO, SERVE)?))));
    }
    bars
}

fn starts(measured: &Measured) -> Bars {
    let start = |name| at(&measured.restarts, 1, name).map(|restarts| restarts.start.median());
    let ratio = || Some(start(NOLIBC)? / start(LIMIT)?);
    let mut bars = vec![ratio().map(|ratio| Bar::at_most("start call, no heap", 1.2, LIMIT, ratio))];
    for (mib, row) in &measured.heaps {
        let start = |name, is_dirty: bool| {
            let heap = find(row, name)?;
            Some(if is_dirty { &heap.dirty } else { &heap.clean }.start.median())
        };
        let ratio = || Some(start(NOLIBC, true)? / start(LIMIT, true)?);
        let what = format!("start call, {mib} MiB of dirty heap");
        bars.push(ratio().map(|ratio| Bar::at_most(what, 1.2, LIMIT, ratio)));
        for name in [NOLIBC, STD] {
            let change = || Some((start(name, true)? / start(name, false)? - 1.0) * 100.0);
            let what = format!("start call, {mib} MiB of dirty heap, {name}");
            bars.push(change().map(|change| {
                Bar::new(what, "changes it by < 10 %", format!("{change:+.0} %"), change < 10.0)
            }));
        }
    }
    bars.push(find(&measured.threaded, STD).map(|threaded| {
        let (before, after) = threaded.table;
        let what = "descriptor table of a predecessor with threads";
        Bar::counted(what, "does not grow", format!("{before} slots, then {after}"), after <= before)
    }));
    bars
}

fn calls(measured: &Measured) -> Bars {
    let mut bars = Vec::new();
    // What one listener takes, and what each more does.
    let bar = |what, name, (one, more): (usize, usize), fixed: usize, each: usize| {
        let what = format!("system calls of a {what}, {name}");
        let bound = format!("≤ {fixed} and {each} per socket");
        let reached = format!("{} and {more} per socket", one - more);
        Bar::counted(what, bound, reached, one <= fixed + each && more <= each)
    };
    for name in [NOLIBC, STD] {
        let Some(calls) = find(&measured.calls, name) else { continue };
        bars.push(Some(bar("claim", name, calls.claim, 10, 2)));
        bars.push(calls.spawn.map(|spawn| bar("start", name, spawn, 20, 1)));
    }
    let count = measured.allocator_calls;
    bars.push(Some(Bar::counted("allocations in serve's restart path", "0", count.to_string(), count == 0)));
    bars
}

fn clients(measured: &Measured) -> Bars {
    let p999 = |samples: &Samples| samples.quantile(0.999);
    let bar = |(name, load): &(&str, crate::load::Load)| {
        let ratio = p999(&load.restarting.latency) / p999(&load.quiet.latency);
        Some(Bar::at_most(format!("p99.9 of clients over a restart, {name}"), 1.2, "without", ratio))
    };
    measured.loads.iter().map(bar).collect()
}
