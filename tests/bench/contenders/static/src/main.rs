//! The crate in a program without libc that does no more than the limit does: it claims, says so, and restarts
//! on SIGUSR2. What it prints is what all contenders print, see `../../../README.md`.
#![no_std]
#![no_main]

mod start;

use core::cell::UnsafeCell;
use core::time::Duration;
use gracenet::internal::{DIGITS, decimal};
use gracenet::{Endpoint, Launch, ListenOptions, Net, Network, Progress, Signals};
use heapless::Vec;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{Signal, getpid};
use start::{now, write};

/// How many sockets it takes.
const CAPACITY: usize = match usize::from_str_radix(env!("TINY_LISTENERS"), 10) {
    Ok(number) => number,
    Err(_) => panic!("TINY_LISTENERS is not a number"),
};

type Start = Launch<{ CAPACITY + 16 }, 512>;

/// In no stack frame, of which every page would be touched.
struct Place(UnsafeCell<(Start, Net<CAPACITY>)>);

// SAFETY: there is one thread.
unsafe impl Sync for Place {}

static PLACE: Place = Place(UnsafeCell::new((Launch::empty(), Net::new())));

/// A mark in the log of system calls: a write that fails.
fn mark(what: &str) {
    write(i32::MAX, what.as_bytes());
}

/// One line of words, each with a number behind it.
fn say<const WORDS: usize>(to: i32, words: [(&str, u64); WORDS]) {
    let mut line = Vec::<u8, 128>::new();
    for (word, number) in words {
        let _ = line.extend_from_slice(word.as_bytes());
        let _ = line.extend_from_slice(decimal(number, &mut [0; DIGITS]));
    }
    let _ = line.push(b'\n');
    write(to, &line);
}

fn errno(error: gracenet::Error) -> Errno {
    error.errno().unwrap_or(Errno::INVAL)
}

fn main(stack: *const usize) -> Result<(), Errno> {
    let entry = now();
    // SAFETY: nobody else has it: this is called once.
    let (launch, net) = unsafe { &mut *PLACE.0.get() };
    // SAFETY: it is the stack pointer at the entry, and nothing writes to what it points to.
    unsafe { launch.capture_from_stack(stack) }.map_err(errno)?;
    mark("claim");
    // SAFETY: nothing has been opened yet.
    unsafe { net.inherit(launch) }.map_err(errno)?;
    for address in launch.args().skip(2) {
        let endpoint = Endpoint::parse_in(Network::Tcp, address.to_bytes()).map_err(errno)?;
        net.claim_at(&endpoint, &ListenOptions::new()).map_err(errno)?;
    }
    mark("claimed");
    if launch.args().nth(1) == Some(c"claim") {
        say(1, [("claimed ", entry), (" ", now())]);
        return Ok(());
    }
    net.ready().map_err(errno)?;
    serve(net, launch)
}

fn serve(net: &mut Net<CAPACITY>, launch: &mut Start) -> Result<(), Errno> {
    let signals = Signals::new(&[Signal::USR1, Signal::USR2, Signal::TERM]).map_err(errno)?;
    say(1, [("ready pid=", getpid().as_raw_nonzero().get() as u64)]);
    loop {
        let _ = poll(&mut [PollFd::new(&signals, PollFlags::IN)], None);
        match signals.take().map_err(errno)? {
            Some(Signal::USR1) => fill_heap(launch),
            Some(Signal::USR2) => {
                let before = now();
                mark("start");
                let started = net.start_process(launch);
                mark("started");
                let time = now() - before;
                say(2, [("start ", time)]);
                let ready = started.map_err(errno)?.wait_ready(Duration::from_secs(30));
                if ready != Ok(Progress::Ready) {
                    return Err(Errno::CHILD);
                }
            }
            Some(_) => return Ok(()),
            None => {}
        }
    }
}

/// Takes `BENCH_HEAP` MiB of memory and writes to all of it.
fn fill_heap(launch: &Start) {
    use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};
    let digits = launch.var(b"BENCH_HEAP").unwrap_or(b"0").iter();
    let bytes = digits.fold(0, |value, digit| value * 10 + usize::from(digit - b'0')) << 20;
    let flags = MapFlags::PRIVATE | MapFlags::POPULATE;
    // SAFETY: a new mapping, which nobody else has.
    let _ =
        unsafe { mmap_anonymous(core::ptr::null_mut(), bytes, ProtFlags::READ | ProtFlags::WRITE, flags) };
    say(2, [("heap ", bytes as u64)]);
}
