//! Measures the contenders against each other and writes the report. See `../README.md`.

mod claim;
mod contender;
mod process;
mod restart;
mod stats;

use contender::Contender;
use std::path::PathBuf;

fn main() {
    let mut args = std::env::args_os().skip(1);
    let bin = PathBuf::from(args.next().expect("usage: gracenet-bench BIN OUT [--quick]"));
    let _out = args.next();
    let quick = args.any(|arg| arg == "--quick");
    // What measures does not queue behind what is measured.
    let param = libc::sched_param { sched_priority: 1 };
    // SAFETY: reads a structure of this frame. Where it is not allowed, the times have a tail.
    unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK, &param) };
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).unwrap();
    let contenders = |n| Contender::all(&bin, n).into_iter().filter(|c| std::env::var("ONLY").map_or(true, |o| o.split(';').any(|o| c.name == o))).collect::<Vec<_>>();
    for count in if std::env::var_os("NOCLAIM").is_some() { vec![] } else { vec![1, 64, 1000] } {
        for (name, sample) in claim::measure(&bin, &contenders(count), count, if quick { 2 } else { 30 }) {
            println!("claim {count:5} {name:20} exec {} own {}", sample.from_exec.summary(), sample.own.summary());
        }
    }
    for count in std::env::var("N").map_or(vec![1, 64, 512, 1000], |n| vec![n.parse().unwrap()]) {
        for (name, sample) in restart::measure(&bin, &contenders(count), count, std::env::var("ROUNDS").map_or(40, |r| r.parse().unwrap())) {
            println!("restart {count:5} {name:20} total {} start {}", sample.total.summary(), sample.start.summary());
        }
    }
}
