//! The report: tables of what was measured, each bar with what was reached, and the summary.

use crate::claim::Claim;
use crate::contender::*;
use crate::load::Load;
use crate::memory::Size;
use crate::plot::{self, Line};
use crate::restart::{Heap, Restarts, Threaded};
use crate::stats::Samples;
use std::error::Error;
use std::fmt::Write;
use std::path::Path;
use std::process::Command;

/// What was measured of each contender, in their order.
pub type Row<T> = Vec<(&'static str, T)>;

pub struct Measured {
    /// By number of sockets.
    pub claims: Vec<(usize, Row<Claim>)>,
    pub restarts: Vec<(usize, Row<Restarts>)>,
    /// By MiB.
    pub heaps: Vec<(usize, Row<Heap>)>,
    pub threaded: Row<Threaded>,
    pub calls: Row<Calls>,
    pub sizes: Row<Size>,
    pub loads: Row<Load>,
    pub allocator_calls: usize,
}

/// System calls for one listener and for each more, and instructions for one listener and for
/// [`Calls::SOCKETS`].
pub struct Calls {
    pub claim: (usize, usize),
    pub spawn: Option<(usize, usize)>,
    pub instructions: Option<(u64, u64)>,
}

impl Calls {
    pub const SOCKETS: usize = 1000;
}

fn find<'m, T>(row: &'m Row<T>, name: &str) -> Option<&'m T> {
    row.iter().find(|(other, _)| *other == name).map(|(_, value)| value)
}

fn at<'m, T>(rows: &'m [(usize, Row<T>)], count: usize, name: &str) -> Option<&'m T> {
    rows.iter().find(|(other, _)| *other == count).and_then(|(_, row)| find(row, name))
}

/// Median and the two deciles around it.
fn spread(samples: &Samples) -> String {
    if samples.is_empty() {
        return "–".to_owned();
    }
    let [low, high] = [0.1, 0.9].map(|quantile| samples.quantile(quantile));
    format!("**{:.0}** {low:.0}–{high:.0}", samples.median())
}

struct Text(String);

impl Text {
    fn line(&mut self, line: &str) -> &mut Self {
        self.0.push_str(line);
        self.0.push('\n');
        self
    }

    fn table(&mut self, head: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> &mut Self {
        self.line("")
            .line(&format!("| {} |", head.join(" | ")))
            .line(&format!("|{}", "---|".repeat(head.len())));
        for row in rows {
            self.line(&format!("| {} |", row.join(" | ")));
        }
        self.line("")
    }
}

/// Writes `REPORT.md` and its plots into `out`.
pub fn write(out: &Path, measured: &Measured) -> Result<(), Box<dyn Error>> {
    let mut text = Text(String::new());
    text.line("# How fast")
        .line("")
        .line("Made by `tests/bench/run`; what is compared, and how, is in [README.md](README.md).")
        .line("");
    text.line(&machine());
    bars(&mut text, measured);
    restarts(&mut text, measured);
    claims(&mut text, measured);
    heaps(&mut text, measured);
    counts(&mut text, measured);
    loads(&mut text, measured);
    std::fs::write(out.join("REPORT.md"), &text.0)?;
    plots(out, measured)
}

fn machine() -> String {
    let told = |program: &str, args: &[&str]| {
        let output = Command::new(program).args(args).output().ok();
        let output = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
        output.and_then(|output| output.lines().next().map(str::to_owned)).unwrap_or_else(|| "?".to_owned())
    };
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().to_owned();
        line.trim_start_matches([' ', '\t', ':']).to_owned()
    };
    let memory = field(&read("/proc/meminfo"), "MemTotal");
    let memory: f64 = memory.split(' ').next().and_then(|kib| kib.parse().ok()).unwrap_or_default();
    let pages = read("/sys/kernel/mm/transparent_hugepage/enabled");
    let pages = pages.split(['[', ']']).nth(1).unwrap_or("?").to_owned();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    format!(
        "{}. {} cores of {}, {:.0} GiB, Linux {}, transparent huge pages: {pages}. {}; {}; {}; the Go original {}; \
         libsystemd {}; listenfd 1.0.2; ecdysis 1.1.1. Times are in microseconds: **median**, and the two deciles \
         between which four of five samples are.",
        told("date", &["-u", "+%Y-%m-%d"]),
        cores,
        field(&read("/proc/cpuinfo"), "model name"),
        memory / 1024.0 / 1024.0,
        told("uname", &["-r"]).split('-').next().unwrap_or_default(),
        told("rustc", &["-V"]),
        told("gcc", &["--version"]),
        told("go", &["version"]),
        told("dpkg-query", &["-Wf${Version}", "golang-github-facebookgo-grace-dev"]),
        told("pkg-config", &["--modversion", "libsystemd"]),
    )
}

fn bars(text: &mut Text, measured: &Measured) {
    let mut rows = Vec::new();
    let mut bar = |what: String, bound: String, reached: String, is_met: bool| {
        rows.push(vec![what, bound, reached, (if is_met { "yes" } else { "**no**" }).to_owned()]);
    };
    let claim = |count, name| at(&measured.claims, count, name);
    if let (Some(limit), Some(own), Some(go)) = (claim(1000, LIMIT), claim(1000, NOLIBC), claim(1000, GO)) {
        for (what, select) in [
            ("from execve", (|claim: &Claim| claim.from_exec.median()) as fn(&Claim) -> f64),
            ("from the program's begin", |claim| claim.own.median()),
        ] {
            let ratio = select(own) / select(limit);
            bar(
                format!("claim 1000 sockets, {what}"),
                "≤ 1.5 × limit".into(),
                format!("{ratio:.2} ×"),
                ratio <= 1.5,
            );
        }
        let ratio = go.from_exec.median() / own.from_exec.median();
        bar("the same, Go original".into(), "≥ 150 ×".into(), format!("{ratio:.0} ×"), ratio >= 150.0);
    }
    let cost = |from: usize, to: usize| {
        let time = |count| claim(count, NOLIBC).map(|claim| claim.own.median());
        Some((time(to)? - time(from)?) / (to - from) as f64)
    };
    if let (Some(first), Some(last)) = (cost(64, 1000), cost(1000, 4000)) {
        let told = format!("{first:.2} µs, {last:.2} µs");
        bar(
            "claim, for each socket: 64 to 1000, 1000 to 4000".into(),
            "constant".into(),
            told,
            last <= 1.25 * first,
        );
    }
    for (count, row) in &measured.restarts {
        let median = |name| find(row, name).map(|restarts| restarts.total.median());
        let Some(hygiene) = median(HYGIENE) else { continue };
        let sockets = if *count == 1 { "1 socket".to_owned() } else { format!("{count} sockets") };
        for (name, most) in [(TINY, 1.15), (MUSL, 1.6)] {
            if let Some(ratio) = median(name).map(|median| median / hygiene) {
                let bound = format!("≤ {most} × limit with hygiene");
                bar(format!("restart, {sockets}, {name}"), bound, format!("{ratio:.2} ×"), ratio <= most);
            }
        }
        let Some(serve) = median(SERVE) else { continue };
        let best = PEERS.iter().filter_map(|name| Some((*name, median(name)?)));
        if let Some((name, best)) = best.min_by(|a, b| a.1.total_cmp(&b.1)) {
            let told = format!("{:.2} × as fast as {name}", best / serve);
            bar(format!("restart, {sockets}, serve"), "ahead of every peer".into(), told, serve < best);
        }
        let least = match count {
            1 => 1.7,
            512 => 4.0,
            _ => continue,
        };
        if let Some(ratio) = median(GO).map(|median| median / serve) {
            let told = format!("{ratio:.2} ×");
            bar(format!("the same, Go original, {sockets}"), format!("≥ {least} ×"), told, ratio >= least);
        }
    }
    for (mib, row) in &measured.heaps {
        let start = |name, is_dirty: bool| {
            let heap = find(row, name)?;
            Some(if is_dirty { &heap.dirty } else { &heap.clean }.start.median())
        };
        for is_dirty in [false, true] {
            if let (Some(own), Some(limit)) = (start(NOLIBC, is_dirty), start(LIMIT, is_dirty)) {
                let heap = if is_dirty { format!("{mib} MiB dirty") } else { "no heap".to_owned() };
                let what = format!("start call, {heap}");
                bar(what, "≤ 1.2 × limit".into(), format!("{:.2} ×", own / limit), own <= 1.2 * limit);
            }
        }
        for name in [NOLIBC, STD] {
            if let (Some(clean), Some(dirty)) = (start(name, false), start(name, true)) {
                let change = (dirty / clean - 1.0) * 100.0;
                let what = format!("start call, {mib} MiB of dirty heap, {name}");
                bar(what, "changes it by < 10 %".into(), format!("{change:+.0} %"), change < 10.0);
            }
        }
    }
    if let Some(threaded) = find(&measured.threaded, STD) {
        let (before, after) = threaded.table;
        let told = format!("{before} to {after}");
        bar(
            "descriptor table of a predecessor with threads".into(),
            "does not grow".into(),
            told,
            after <= before,
        );
    }
    for name in [NOLIBC, STD] {
        if let Some(calls) = find(&measured.calls, name) {
            let (one, more) = calls.claim;
            let told = format!("{} and {more} per socket", one - more);
            bar(
                format!("system calls, claim, {name}"),
                "≤ 10 and 2 per socket".into(),
                told,
                one <= 12 && more <= 2,
            );
            if let Some((one, more)) = calls.spawn {
                let told = format!("{} and {more} per socket", one - more);
                let is_met = one <= 21 && more <= 1;
                bar(format!("system calls, start, {name}"), "≤ 20 and 1 per socket".into(), told, is_met);
            }
        }
    }
    for (name, load) in &measured.loads {
        let p999 = |samples: &Samples| samples.quantile(0.999);
        let ratio = p999(&load.restarting.latency) / p999(&load.quiet.latency);
        let what = format!("p99.9 of clients over a restart, {name}");
        bar(what, "≤ 1.2 × without".into(), format!("{ratio:.2} ×"), ratio <= 1.2);
    }
    let calls = measured.allocator_calls;
    bar("allocations in serve's restart path".into(), "0".into(), calls.to_string(), calls == 0);
    text.line("").line("## The bars").table(&["what", "bar", "reached", "met"], rows);
}

fn restarts(text: &mut Text, measured: &Measured) {
    text.line("## Restart").line("").line("From the signal to the successor's ready line.").line("");
    text.line("![restart](restart.svg)");
    let counts: Vec<_> = measured.restarts.iter().map(|(count, _)| *count).collect();
    let mut head = vec!["sockets".to_owned()];
    head.extend(counts.iter().map(usize::to_string));
    let head: Vec<_> = head.iter().map(String::as_str).collect();
    let table = |text: &mut Text, select: fn(&Restarts) -> &Samples| {
        let Some((_, first)) = measured.restarts.first() else { return };
        let rows = first.iter().filter(|(_, restarts)| !select(restarts).is_empty()).map(|(name, _)| {
            let cells = counts.iter().map(|count| match at(&measured.restarts, *count, name) {
                Some(restarts) => spread(select(restarts)),
                None => "–".to_owned(),
            });
            [(*name).to_owned()].into_iter().chain(cells).collect::<Vec<_>>()
        });
        text.table(&head, rows.collect::<Vec<_>>());
    };
    table(text, |restarts| &restarts.total);
    text.line("How long the call that starts the successor holds up its thread:");
    table(text, |restarts| &restarts.start);
    text.line("Restart in place, from the signal to the new image's ready line:");
    table(text, |restarts| &restarts.exec);
}

fn claims(text: &mut Text, measured: &Measured) {
    text.line("## Claim")
        .line("")
        .line("From execve until all sockets are claimed, each by its address, the last one first.");
    text.line("").line("![claim](claim.svg)");
    let mut head = vec!["sockets".to_owned()];
    head.extend(measured.claims.iter().map(|(count, _)| count.to_string()));
    let head: Vec<_> = head.iter().map(String::as_str).collect();
    for (what, select) in [
        ("", (|claim: &Claim| &claim.from_exec) as fn(&Claim) -> &Samples),
        ("The same from the program's own begin, without execve and loader:", |claim| &claim.own),
    ] {
        let Some((_, first)) = measured.claims.first() else { continue };
        let rows = first.iter().map(|(name, _)| {
            let cells = measured.claims.iter().map(|(count, _)| match at(&measured.claims, *count, name) {
                Some(claim) => spread(select(claim)),
                None => "–".to_owned(),
            });
            [(*name).to_owned()].into_iter().chain(cells).collect()
        });
        text.line(what).table(&head, rows.collect::<Vec<_>>());
    }
}

fn heaps(text: &mut Text, measured: &Measured) {
    text.line("## Heap and threads").line("");
    text.line(
        "A predecessor with one listener that has dirtied its memory, and before it did; in small pages.",
    );
    text.line("").line("![heap](heap.svg)");
    for (mib, row) in &measured.heaps {
        let rows = row.iter().map(|(name, heap)| {
            let restarts = [&heap.clean, &heap.dirty];
            let mut cells = vec![(*name).to_owned()];
            cells.extend(restarts.iter().map(|restarts| spread(&restarts.start)));
            cells.extend(restarts.iter().map(|restarts| spread(&restarts.total)));
            cells
        });
        let dirty = format!("{mib} MiB");
        let head = [
            format!("{mib} MiB"),
            "start call, no heap".into(),
            format!("start call, {dirty}"),
            "restart, no heap".into(),
            format!("restart, {dirty}"),
        ];
        text.table(&head.each_ref().map(String::as_str), rows.collect::<Vec<_>>());
    }
    text.line("A predecessor with 8 more threads and 240 listeners, in a descriptor table of 256 slots:");
    let rows = measured.threaded.iter().map(|(name, threaded)| {
        let (before, after) = threaded.table;
        vec![(*name).to_owned(), spread(&threaded.start), format!("{before} to {after}")]
    });
    text.table(&["", "start call", "slots"], rows.collect::<Vec<_>>());
}

fn counts(text: &mut Text, measured: &Measured) {
    text.line("## Counted").line("");
    text.line(
        "System calls by strace: of the claim, and of the start in both processes together, up to execve.",
    );
    text.line(&format!(
        "User instructions by callgrind, from the first to the last: to claim one listener, and {}.",
        Calls::SOCKETS
    ));
    let told = |calls: (usize, usize)| format!("{} + {} per socket", calls.0 - calls.1, calls.1);
    let rows = measured.calls.iter().map(|(name, calls)| {
        let instructions = |count: Option<u64>| count.map_or("–".to_owned(), |count| count.to_string());
        vec![
            (*name).to_owned(),
            told(calls.claim),
            calls.spawn.map_or("–".to_owned(), told),
            instructions(calls.instructions.map(|counts| counts.0)),
            instructions(calls.instructions.map(|counts| counts.1)),
        ]
    });
    let many = format!("instructions, {}", Calls::SOCKETS);
    text.table(&["", "calls, claim", "calls, start", "instructions, 1", &many], rows.collect::<Vec<_>>());
    text.line("The program on disk, stripped; what of it is in memory when it is ready with 64 listeners, and what of that is in no file:");
    let rows = measured.sizes.iter().map(|(name, size)| {
        let kib = |bytes: usize| format!("{bytes} KiB");
        vec![(*name).to_owned(), format!("{} bytes", size.program), kib(size.resident), kib(size.anonymous)]
    });
    text.table(&["", "program", "resident", "anonymous"], rows.collect::<Vec<_>>());
}

fn loads(text: &mut Text, measured: &Measured) {
    text.line("## Clients").line("");
    text.line(&format!(
        "{} requests a second, each with a connection of its own, on the same machine, in windows of {} s; every other \
         one has a restart in its middle. The gap is the longest time of a window without an answer: median, and the worst.",
        crate::load::RATE,
        crate::load::WINDOW.as_secs()
    ));
    let rows = measured.loads.iter().flat_map(|(name, load)| {
        [("without", &load.quiet), ("with a restart", &load.restarting)].map(|(what, seen)| {
            let quantile = |quantile| format!("{:.0}", seen.latency.quantile(quantile));
            vec![
                format!("{name}, {what}"),
                seen.latency.len().to_string(),
                seen.failed.to_string(),
                quantile(0.5),
                quantile(0.99),
                quantile(0.999),
                quantile(1.0),
                format!("{:.0}, {:.0}", seen.gaps.median(), seen.gaps.quantile(1.0)),
            ]
        })
    });
    let head = ["", "requests", "failed", "p50", "p99", "p99.9", "longest", "gap"];
    text.table(&head, rows.collect::<Vec<_>>());
}

fn plots(out: &Path, measured: &Measured) -> Result<(), Box<dyn Error>> {
    fn lines<T>(rows: &[(usize, Row<T>)], median: impl Fn(&T) -> f64) -> Vec<Line> {
        let Some((_, first)) = rows.first() else { return Vec::new() };
        let points = |name| {
            let point = |(count, row): &(usize, Row<T>)| Some((*count as f64, median(find(row, name)?)));
            rows.iter().filter_map(point).collect()
        };
        first.iter().map(|(name, _)| Line { name, points: points(name) }).collect()
    }
    let draw = |name: &str, x: &str, y: &str, lines: &[Line]| plot::draw(&out.join(name), x, y, lines);
    let microseconds = "microseconds, median";
    draw(
        "restart.svg",
        "sockets",
        microseconds,
        &lines(&measured.restarts, |restarts| restarts.total.median()),
    )?;
    draw("claim.svg", "sockets", microseconds, &lines(&measured.claims, |claim| claim.from_exec.median()))?;
    let start = lines(&measured.heaps, |heap| heap.dirty.start.median());
    draw("heap.svg", "MiB of dirty heap", "microseconds of the start call, median", &start)
}

/// The summary.
pub fn summary(measured: &Measured) -> String {
    let mut text = String::from("| | claim 1000 |");
    for (count, _) in &measured.restarts {
        let _ = write!(text, " restart, {count} |");
    }
    let _ = write!(text, "\n|---|---|{}\n", "---|".repeat(measured.restarts.len()));
    for (name, told) in [
        (HYGIENE, "the least that a restart can be, in C without libc"),
        (TINY, "`examples/tiny`, without libc"),
        (MUSL, "`examples/serve`, static musl"),
        (SERVE, "`examples/serve`, std"),
        (POSIX_SPAWN, "listenfd and `Command`"),
        (FORK, "the same with `pre_exec`"),
        (ECDYSIS, "ecdysis"),
        (GO, "the Go original"),
    ] {
        let claim = match name {
            TINY => NOLIBC,
            SERVE => STD,
            other => other,
        };
        let claim = at(&measured.claims, 1000, claim).map(|claim| claim.from_exec.median());
        let number = |number: Option<f64>| number.map_or("–".to_owned(), |number| format!("{number:.0}"));
        let _ = write!(text, "| {told} | {} |", number(claim));
        let mut is_there = false;
        for (count, _) in &measured.restarts {
            let median = at(&measured.restarts, *count, name).map(|restarts| restarts.total.median());
            is_there |= median.is_some();
            let _ = write!(text, " {} |", number(median));
        }
        text.push('\n');
        if !is_there {
            let line = text.trim_end().rfind('\n').map_or(0, |end| end + 1);
            text.truncate(line);
        }
    }
    text
}
