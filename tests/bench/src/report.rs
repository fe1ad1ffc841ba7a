//! The report: each bar with what was reached, tables of what was measured, plots; and what the README quotes of it.

use crate::bars::{self, Bar};
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
    /// Whether the contenders had real-time priority.
    pub is_ahead: bool,
    /// How many processes wanted a processor in the minute before.
    pub load_before: String,
    /// What share of the processors' time other machines had, where that is told.
    pub stolen: Option<f64>,
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

pub fn find<'m, T>(row: &'m Row<T>, name: &str) -> Option<&'m T> {
    row.iter().find(|(other, _)| *other == name).map(|(_, value)| value)
}

pub fn at<'m, T>(rows: &'m [(usize, Row<T>)], count: usize, name: &str) -> Option<&'m T> {
    rows.iter().find(|(other, _)| *other == count).and_then(|(_, row)| find(row, name))
}

/// A ratio, to three digits or so.
pub fn times(ratio: f64) -> String {
    match ratio {
        0.0..10.0 => format!("{ratio:.2} ×"),
        10.0..100.0 => format!("{ratio:.1} ×"),
        _ => format!("{ratio:.0} ×"),
    }
}

/// Median and the two deciles around it.
fn spread(samples: &Samples) -> String {
    if samples.is_empty() {
        return "–".to_owned();
    }
    format!("**{:.0}** {}", samples.median(), deciles(samples))
}

fn deciles(samples: &Samples) -> String {
    let [low, high] = [0.1, 0.9].map(|quantile| samples.quantile(quantile));
    format!("{low:.0}–{high:.0}")
}

struct Text(String);

impl Text {
    fn line(&mut self, line: &str) -> &mut Self {
        self.0.push_str(line);
        self.0.push('\n');
        self
    }

    fn table(&mut self, head: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> &mut Self {
        if !self.0.ends_with("\n\n") {
            self.line("");
        }
        self.line(&format!("| {} |", head.join(" | "))).line(&format!("|{}", "---|".repeat(head.len())));
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
        .line("Made by `tests/bench/run`; who is compared, and how, is in [README.md](README.md).")
        .line("");
    machine(&mut text, measured);
    judge(&mut text, &bars::all(measured));
    restarts(&mut text, measured);
    claims(&mut text, measured);
    heaps(&mut text, measured);
    counts(&mut text, measured);
    loads(&mut text, measured);
    spreads(&mut text, measured);
    std::fs::write(out.join("REPORT.md"), &text.0)?;
    plots(out, measured)
}

fn machine(text: &mut Text, measured: &Measured) {
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
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let package = |name: &str| told("dpkg-query", &["-Wf${Version}", name]);
    let rows = [
        ("date", told("date", &["-u", "+%Y-%m-%d"])),
        (
            "machine",
            format!(
                "{cores} cores of {}, {:.0} GiB",
                field(&read("/proc/cpuinfo"), "model name"),
                memory / 1024.0 / 1024.0
            ),
        ),
        (
            "kernel",
            format!(
                "Linux {}, huge pages: {}",
                told("uname", &["-r"]).split('-').next().unwrap_or_default(),
                pages.split(['[', ']']).nth(1).unwrap_or("?")
            ),
        ),
        (
            "compilers",
            ["rustc", "gcc", "go"]
                .map(|name| {
                    let version = if name == "go" { "version" } else { "--version" };
                    told(name, &[version])
                })
                .join("; "),
        ),
        (
            "peers",
            format!(
                "golang-github-facebookgo-grace-dev {}; listenfd 1.0.2; ecdysis 1.1.1; libsystemd {}",
                package("golang-github-facebookgo-grace-dev"),
                told("pkg-config", &["--modversion", "libsystemd"])
            ),
        ),
        ("load before", measured.load_before.clone()),
        (
            "taken by other machines",
            measured.stolen.map_or("not told".to_owned(), |share| {
                format!(
                    "{:.1} % of the processors' time that was wanted (steal in /proc/stat)",
                    100.0 * share
                )
            }),
        ),
        (
            "contenders run",
            (if measured.is_ahead {
                "at real-time priority"
            } else {
                "as any other process: real-time priority was refused"
            })
            .to_owned(),
        ),
    ];
    text.table(&["", ""], rows.map(|(what, told)| vec![what.to_owned(), told]));
    text.line("Times are in microseconds, medians if nothing else is said.").line("");
}

fn judge(text: &mut Text, bars: &[Bar]) {
    let held = bars.iter().filter(|bar| bar.is_held).count();
    text.line("## The bars").line("").line(&format!("{held} of {} are held.", bars.len()));
    let rows = bars.iter().map(|bar| {
        let verdict = if bar.is_held { "held".to_owned() } else { format!("**{}**", bar.verdict()) };
        vec![bar.what.clone(), bar.bound.clone(), bar.reached.clone(), verdict]
    });
    text.table(&["what", "bar", "reached", ""], rows);
}

/// A table of contenders over numbers of sockets.
fn by_sockets<T>(
    text: &mut Text,
    rows: &[(usize, Row<T>)],
    cell: impl Fn(usize, &str, &T) -> Option<String>,
) {
    let Some((_, first)) = rows.first() else { return };
    let mut head = vec!["sockets".to_owned()];
    head.extend(rows.iter().map(|(count, _)| count.to_string()));
    let head: Vec<_> = head.iter().map(String::as_str).collect();
    let lines = first.iter().filter_map(|(name, _)| {
        let cells =
            rows.iter().map(|(count, row)| find(row, name).and_then(|value| cell(*count, name, value)));
        let cells: Vec<_> = cells.collect();
        cells.iter().any(Option::is_some).then(|| {
            let cells = cells.into_iter().map(|cell| cell.unwrap_or_else(|| "–".to_owned()));
            [(*name).to_owned()].into_iter().chain(cells).collect()
        })
    });
    text.table(&head, lines.collect::<Vec<_>>());
}

/// Medians, each with how many times that of the reference it is.
fn medians<T>(text: &mut Text, rows: &[(usize, Row<T>)], reference: &str, select: fn(&T) -> &Samples) {
    by_sockets(text, rows, |count, _, value| {
        let samples = Some(select(value)).filter(|samples| !samples.is_empty())?;
        let of = at(rows, count, reference).map_or(f64::NAN, |value| select(value).median());
        Some(format!("**{:.0}**, {}", samples.median(), times(samples.median() / of)))
    });
}

/// How many times as long as the reference its peers take.
fn peers<T>(text: &mut Text, rows: &[(usize, Row<T>)], reference: &str, select: fn(&T) -> &Samples) {
    by_sockets(text, rows, |count, name, value| {
        let of = select(at(rows, count, reference)?).median();
        let is_shown = !select(value).is_empty() && (PEERS.contains(&name) || name == LIBSYSTEMD);
        is_shown.then(|| times(select(value).median() / of))
    });
}

fn restarts(text: &mut Text, measured: &Measured) {
    let rows = &measured.restarts;
    text.line("## Restart").line("").line(
        "From the signal to the successor's ready line, and how many times the limit with hygiene that is.",
    );
    text.line("").line("![restart](restart.svg)");
    medians(text, rows, HYGIENE, |restarts| &restarts.total);
    text.line("How many times as long as `serve` the peers take:");
    peers(text, rows, SERVE, |restarts| &restarts.total);
    text.line(
        "How long the call that starts the successor holds up its thread, and how many times the limit:",
    );
    medians(text, rows, LIMIT, |restarts| &restarts.start);
    text.line("Spawn against exec in place, from the signal to the new image's ready line:");
    let in_place = |restarts: &Restarts| {
        (!restarts.exec.is_empty()).then(|| {
            let (spawn, exec) = (restarts.total.median(), restarts.exec.median());
            format!("**{spawn:.0}** against **{exec:.0}**, {}", times(exec / spawn))
        })
    };
    by_sockets(text, rows, |_, _, restarts| in_place(restarts));
}

fn claims(text: &mut Text, measured: &Measured) {
    let rows = &measured.claims;
    text.line("## Claim").line("").line(
        "From execve until all sockets are claimed, each by its address, the last one first, and how many times the \
         limit that is.",
    );
    text.line("").line("![claim](claim.svg)");
    medians(text, rows, LIMIT, |claim| &claim.from_exec);
    text.line("How many times as long as the crate in a std program the peers take:");
    peers(text, rows, STD, |claim| &claim.from_exec);
    text.line("From the program's own begin, without execve and loader:");
    medians(text, rows, LIMIT, |claim| &claim.own);
}

fn spreads(text: &mut Text, measured: &Measured) {
    text.line("## How far they spread")
        .line("")
        .line("The two deciles between which four of five samples are. Of a restart:");
    let told = |samples: &Samples| (!samples.is_empty()).then(|| deciles(samples));
    by_sockets(text, &measured.restarts, |_, _, restarts| told(&restarts.total));
    text.line("Of the call that starts the successor:");
    by_sockets(text, &measured.restarts, |_, _, restarts| told(&restarts.start));
    text.line("Of a claim, from execve:");
    by_sockets(text, &measured.claims, |_, _, claim| told(&claim.from_exec));
}

fn heaps(text: &mut Text, measured: &Measured) {
    text.line("## Heap and threads").line("");
    text.line(
        "Two predecessors with one listener in turn, one of which has dirtied so much memory, in small pages; with \
         the two deciles between which four of five samples are.",
    );
    text.line("").line("![heap](heap.svg)");
    for (mib, row) in &measured.heaps {
        let rows = row.iter().map(|(name, heap)| {
            let [(clean, dirty), (clean_total, dirty_total)] =
                [(&heap.clean.start, &heap.dirty.start), (&heap.clean.total, &heap.dirty.total)];
            let change = times(dirty.median() / clean.median());
            vec![
                (*name).to_owned(),
                spread(clean),
                spread(dirty),
                change,
                spread(clean_total),
                spread(dirty_total),
            ]
        });
        let head = [&format!("{mib} MiB"), "start call without", "with", "", "restart without", "with"];
        text.table(&head, rows.collect::<Vec<_>>());
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

/// The bars and the medians, to print; of a quick run those bars alone that do not depend on time, for which it has
/// too few samples.
pub fn summary(measured: &Measured, quick: bool) -> String {
    let mut text = if quick { String::new() } else { table(measured) + "\n" };
    for bar in bars::all(measured).iter().filter(|bar| bar.is_counted || !quick) {
        let Bar { what, bound, reached, .. } = bar;
        let _ = writeln!(text, "{:6}  {what}: {reached} ({bound})", bar.verdict());
    }
    text
}

/// Puts what there is to say into the README, in the place of what it said before.
pub fn quote(readme: &Path, measured: &Measured) -> Result<(), Box<dyn Error>> {
    const TITLE: &str = "## How fast\n";
    let bars = bars::all(measured);
    let held = bars.iter().filter(|bar| bar.is_held).count();
    let section = format!(
        "{TITLE}
Medians in microseconds, of one run that has all of them in turn on two cores: until 1000 inherited sockets are claimed
by their addresses, from execve; and from the signal to the successor's ready line, with so many listeners.
`tests/bench/run` makes this table and `tests/bench/REPORT.md`, which has the rest, and holds it against what was set as
a bar: {held} of {} are held.

{}
",
        bars.len(),
        table(measured)
    );
    let text = std::fs::read_to_string(readme)?;
    let (before, behind) = text.split_once(TITLE).ok_or("the README has no place for it")?;
    let next = behind.find("\n## ").ok_or("the README ends with it")? + 1;
    std::fs::write(readme, [before, &section, &behind[next..]].concat())?;
    Ok(())
}

/// The medians that say most.
fn table(measured: &Measured) -> String {
    let mut text = String::from("| | claim 1000 |");
    for (count, _) in &measured.restarts {
        let _ = write!(text, " restart, {count} |");
    }
    let _ = writeln!(text, "\n|---|---|{}", "---|".repeat(measured.restarts.len()));
    for (name, told) in [
        (HYGIENE, "the least that it can be, in C without libc"),
        (NOLIBC, "this crate without libc"),
        (STD, "this crate in a std program"),
        (TINY, "`examples/tiny`, a server without libc"),
        (MUSL, "`examples/serve`, static musl"),
        (SERVE, "`examples/serve`, std"),
        (POSIX_SPAWN, "listenfd and `Command`"),
        (FORK, "the same with `pre_exec`"),
        (ECDYSIS, "ecdysis"),
        (GO, "the Go original"),
        (LIBSYSTEMD, "libsystemd's `sd_listen_fds`"),
    ] {
        let claim = at(&measured.claims, 1000, name).map(|claim| claim.from_exec.median());
        let restarts = measured.restarts.iter().map(|(_, row)| Some(find(row, name)?.total.median()));
        let medians: Vec<_> = [claim].into_iter().chain(restarts).collect();
        if medians.iter().any(Option::is_some) {
            let number =
                |median: Option<f64>| median.map_or("–".to_owned(), |median| format!("{median:.0}"));
            let cells: Vec<_> = medians.into_iter().map(number).collect();
            let _ = writeln!(text, "| {told} | {} |", cells.join(" | "));
        }
    }
    text
}
