//! What the contenders that are std programs have in common: their command line, what they print, and the
//! signals they wait for. See `../README.md`.

use signal_hook::consts::{SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::Signals;
use std::io::Write;
use std::net::SocketAddr;
use std::time::Duration;

/// The monotonic clock, which all processes share, in nanoseconds.
pub fn now() -> u128 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: it writes to a structure of this frame. (rustix finds no clock under valgrind.)
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32).as_nanos()
}

/// A mark in the log of system calls: a write that fails.
pub fn mark(what: &str) {
    // SAFETY: no memory is written to, and there is no such descriptor.
    unsafe { libc::write(-1, what.as_ptr().cast(), what.len()) };
}

pub struct Args {
    pub only_claims: bool,
    pub addresses: Vec<SocketAddr>,
}

impl Args {
    pub fn parse() -> Self {
        let mut args = std::env::args().skip(1);
        let only_claims = args.next().as_deref() == Some("claim");
        Self { only_claims, addresses: args.map(|address| address.parse().unwrap()).collect() }
    }
}

/// Says when the process began and that it has claimed everything, and ends it.
pub fn claimed(entry: u128) -> ! {
    println!("claimed {entry} {}", now());
    std::process::exit(0)
}

/// Runs `start` and says how long it took.
pub fn timed<R>(start: impl FnOnce() -> R) -> R {
    let before = now();
    mark("start");
    let result = start();
    mark("started");
    let time = now() - before;
    eprintln!("start {time}");
    result
}

/// Waits for the signals, prints the ready line and restarts with `restart` on SIGUSR2, until SIGTERM comes.
pub fn serve(mut restart: impl FnMut()) {
    let mut signals = Signals::new([SIGUSR1, SIGUSR2, SIGTERM]).unwrap();
    // As many threads that do nothing.
    let threads = std::env::var("BENCH_THREADS").map_or(0, |threads| threads.parse().unwrap());
    for _ in 0..threads {
        std::thread::spawn(|| {
            loop {
                std::thread::park()
            }
        });
    }
    println!("ready pid={}", std::process::id());
    for signal in signals.forever() {
        match signal {
            SIGUSR1 => fill_heap(),
            SIGUSR2 => restart(),
            _ => return,
        }
    }
}

/// Takes `BENCH_HEAP` MiB of memory and writes to all of it.
pub fn fill_heap() {
    use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};
    let bytes = std::env::var("BENCH_HEAP").map_or(0, |mib| mib.parse::<usize>().unwrap() << 20);
    let flags = MapFlags::PRIVATE | MapFlags::POPULATE;
    // SAFETY: a new mapping, which nobody else has.
    unsafe { mmap_anonymous(std::ptr::null_mut(), bytes, ProtFlags::READ | ProtFlags::WRITE, flags) }
        .unwrap();
    let _ = writeln!(std::io::stderr(), "heap {bytes}");
}
