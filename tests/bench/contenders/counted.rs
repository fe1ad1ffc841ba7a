//! `examples/serve.rs`, whole, with an allocator that counts. SIGUSR1 tells how often it was called.

#[path = "../../../examples/serve.rs"]
mod serve;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

struct Counting;

static OPERATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: it is the system's, and counts.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        OPERATIONS.fetch_add(1, Ordering::SeqCst);
        // SAFETY: the caller's contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        OPERATIONS.fetch_add(1, Ordering::SeqCst);
        // SAFETY: the caller's contract.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Writes a fixed number of digits: a handler may not allocate.
fn tell() {
    let mut line = *b"allocator 0000000000\n";
    let mut calls = OPERATIONS.load(Ordering::SeqCst);
    for digit in line[10..20].iter_mut().rev() {
        *digit = b'0' + (calls % 10) as u8;
        calls /= 10;
    }
    // SAFETY: the line is that long.
    unsafe { libc::write(2, line.as_ptr().cast(), line.len()) };
}

fn main() -> std::process::ExitCode {
    // SAFETY: what the handler does, handlers may do.
    unsafe { signal_hook::low_level::register(signal_hook::consts::SIGUSR1, tell) }.unwrap();
    serve::run(std::env::args_os().skip(1))
}
