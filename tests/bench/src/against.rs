//! Today's contenders against those of an older commit, in one run: each round has both, in an order of its own.

use crate::contender::{Contender, NOLIBC, SERVE, STD, TINY};
use crate::{calls, claim, memory, restart};
use std::path::Path;

/// Ours, by the names that they have and that the older ones get.
const PAIRS: [(&str, &str); 4] =
    [(NOLIBC, "nolibc before"), (STD, "std before"), (TINY, "tiny before"), (SERVE, "serve before")];

/// Both of each, for so many sockets.
fn both(bin: &Path, older: &Path, count: usize) -> Vec<Contender> {
    PAIRS
        .into_iter()
        .flat_map(|(name, before)| {
            let now = Contender::some(bin, count, &[name]);
            let then = Contender::some(older, count, &[name]).into_iter();
            now.into_iter().chain(then.map(move |contender| Contender { name: before, ..contender }))
        })
        .collect()
}

/// Prints, for each figure, the median before, the median now, and their ratio.
pub fn compare(bin: &Path, older: &Path, quick: bool) {
    let rounds = |full, few| if quick { few } else { full };
    println!("{:<46} {:>10} {:>10} {:>7}", "", "before", "now", "ratio");
    let line = |what: String, before: f64, now: f64| {
        println!("{what:<46} {before:>10.1} {now:>10.1} {:>7.3}", now / before);
    };
    for count in [1, 64, 1000] {
        let measured = claim::measure(bin, &both(bin, older, count), count, rounds(101, 1));
        for (name, before) in PAIRS {
            let median = |wanted: &str| {
                measured.iter().find(|(name, _)| *name == wanted).map(|(_, claim)| claim.from_exec.median())
            };
            if let (Some(now), Some(before)) = (median(name), median(before)) {
                line(format!("{name}, claim {count}, us from execve"), before, now);
            }
        }
    }
    for count in [1, 64, 512, 1000] {
        let measured = restart::measure(bin, &both(bin, older, count), count, rounds(300, 2));
        let of = |wanted: &str| measured.iter().find(|(name, _)| *name == wanted).map(|(_, samples)| samples);
        for (name, before) in PAIRS {
            let (Some(now), Some(before)) = (of(name), of(before)) else { continue };
            line(format!("{name}, restart {count}, us"), before.total.median(), now.total.median());
            if !now.exec.is_empty() {
                line(format!("{name}, exec {count}, us"), before.exec.median(), now.exec.median());
            }
        }
    }
    for (name, _) in PAIRS {
        let some = |count| [bin, older].map(|bin| Contender::some(bin, count, &[name]).pop());
        let [Some(now), Some(then)] = some(64) else { continue };
        let sizes = [(older, &then), (bin, &now)].map(|(bin, contender)| memory::measure(bin, contender, 64));
        let [before, after] = &sizes;
        line(format!("{name}, bytes of the program"), before.program as f64, after.program as f64);
        line(format!("{name}, resident KiB, 64 sockets"), before.resident as f64, after.resident as f64);
        line(format!("{name}, of it anonymous"), before.anonymous as f64, after.anonymous as f64);
        // The calls are counted with 65 sockets too.
        if let ([Some(now), Some(then)], true) = (some(1000), now.claims) {
            let (before, after) = (calls::claim(older, &then), calls::claim(bin, &now));
            line(format!("{name}, system calls of a claim"), before.0 as f64, after.0 as f64);
            line(format!("{name}, and of each more"), before.1 as f64, after.1 as f64);
            let (before, after) = (calls::spawn(older, &then), calls::spawn(bin, &now));
            line(format!("{name}, system calls of a start"), before.0 as f64, after.0 as f64);
        }
    }
}
