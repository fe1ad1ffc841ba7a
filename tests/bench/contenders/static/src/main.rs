//! The crate in a program without libc that does no more than the limit does: it claims, says so, and restarts
//! on SIGUSR2. What it prints is what all contenders print, see `../../../README.md`.
#![no_std]
#![no_main]

#[path = "../../../../../examples/tiny/src/complaint.rs"]
#[allow(dead_code, reason = "tiny's")]
mod complaint;
#[path = "../../../../../examples/tiny/src/line.rs"]
#[allow(dead_code, reason = "tiny's")]
mod line;
#[path = "../../../../../examples/tiny/src/start.rs"]
mod start;

use complaint::Complaint;
use core::time::Duration;
use gracenet::{Launch, Net, Signals};
use line::Line;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fd::BorrowedFd;
use rustix::process::Signal;

/// How many sockets it takes, as `tiny` has it.
const CAPACITY: usize = match usize::from_str_radix(env!("TINY_LISTENERS"), 10) {
    Ok(number) => number,
    Err(_) => panic!("TINY_LISTENERS is not a number"),
};

type Start = Launch<{ CAPACITY + 16 }, 512>;

/// The monotonic clock, which all processes share, in nanoseconds; by a system call, as the limit has it.
fn now() -> u64 {
    let mut time = [0_u64; 2];
    // SAFETY: clock_gettime(2) writes two words.
    unsafe {
        core::arch::asm!(
            "syscall",
            inout("rax") 228_usize => _,
            in("rdi") 1, in("rsi") &raw mut time,
            out("rcx") _, out("r11") _,
            options(nostack),
        );
    }
    time[0] * 1_000_000_000 + time[1]
}

/// A mark in the log of system calls: a write that fails.
fn mark(what: &str) {
    // SAFETY: never used but as a number, which the kernel refuses.
    let nothing = unsafe { BorrowedFd::borrow_raw(i32::MAX) };
    let _ = rustix::io::write(nothing, what.as_bytes());
}

fn main(stack: *const usize) -> Result<(), Complaint> {
    let entry = now();
    // SAFETY: it is the stack pointer at the entry, and nothing writes to what it points to.
    let mut launch: Start = unsafe { Launch::from_stack(stack) }?;
    mark("claim");
    let mut net = Net::<CAPACITY>::new();
    // SAFETY: nothing has been opened yet.
    unsafe { net.inherit(&mut launch) }?;
    let addresses = launch.args().skip(2).filter_map(|address| address.to_str().ok());
    for address in addresses {
        net.claim("tcp", address)?;
    }
    mark("claimed");
    if launch.args().nth(1) == Some(c"claim") {
        let mut line = Line::new();
        line.text("claimed ").number(entry).text(" ").number(now()).text("\n").write(&start::stdout());
        return Ok(());
    }
    net.ready()?;
    serve(&mut net, &mut launch)
}

fn serve(net: &mut Net<'_, CAPACITY>, launch: &mut Start) -> Result<(), Complaint> {
    let signals = Signals::new(&[Signal::USR1, Signal::USR2, Signal::TERM])?;
    let mut line = Line::new();
    line.text("ready pid=").number(start::pid()).text("\n").write(&start::stdout());
    loop {
        let _ = poll(&mut [PollFd::new(&signals, PollFlags::IN)], None);
        match signals.take()? {
            Some(Signal::USR1) => fill_heap(launch),
            Some(Signal::USR2) => {
                let before = now();
                mark("start");
                let started = net.start_process(launch);
                mark("started");
                let time = now() - before;
                let mut line = Line::new();
                line.text("start ").number(time).text("\n").write(&start::stderr());
                started?.wait_ready(Duration::from_secs(30))?;
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
    let mut line = Line::new();
    line.text("heap ").number(bytes as u64).text("\n").write(&start::stderr());
}
