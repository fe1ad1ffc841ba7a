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
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).unwrap();
    let contenders = Contender::all(&bin);
    for count in [1, 64, 1000] {
        for (name, sample) in claim::measure(&bin, &contenders, count, if quick { 2 } else { 30 }) {
            println!("claim {count:5} {name:20} exec {} own {}", sample.from_exec.summary(), sample.own.summary());
        }
    }
    for count in [1, 64, 512, 1000] {
        for (name, sample) in restart::measure(&bin, &contenders, count, if quick { 2 } else { 40 }) {
            println!("restart {count:5} {name:20} total {} start {}", sample.total.summary(), sample.start.summary());
        }
    }
}
