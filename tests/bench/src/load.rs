//! What clients see of a restart: the same load with and without one, in turn.

use crate::contender::{Contender, host};
use crate::process::{Server, Start};
use crate::stats::Samples;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const CLIENTS: u32 = 4;

/// How many requests a second, of all clients together.
pub const RATE: u32 = 2000;

/// How long each window is.
pub const WINDOW: Duration = Duration::from_secs(1);

#[derive(Default)]
pub struct Seen {
    /// How long requests took, from connect to the end of the answer.
    pub latency: Samples,
    /// The longest time of each window in which no answer came.
    pub gaps: Samples,
    pub failed: usize,
}

#[derive(Default)]
pub struct Load {
    pub quiet: Seen,
    pub restarting: Seen,
}

/// Windows of the same load; every other one has a restart in its middle.
pub fn measure(bin: &Path, contender: &Contender, windows: usize) -> Load {
    let start = Start { host: host(), count: 1, ..Start::default() };
    let address = format!("{}:20000", start.host);
    let mut server = Server::start(bin, contender, &start);
    let window = AtomicUsize::new(0);
    let answers = Mutex::new(Vec::new());
    // A window before the first warms up.
    let begin = Instant::now();
    let end = begin + WINDOW * (2 * windows as u32 + 1);
    std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            let (address, window, answers) = (&address, &window, &answers);
            scope.spawn(move || {
                // As the server has it: what they see is the server's doing, and not who else runs here.
                crate::process::run_ahead(1);
                let interval = Duration::from_secs(1) * CLIENTS / RATE;
                let mut next = begin + interval * client / CLIENTS;
                let mut own = Vec::new();
                while next < end {
                    std::thread::sleep(next.saturating_duration_since(Instant::now()));
                    let sent = Instant::now();
                    let is_answered = request(address).is_ok();
                    own.push((window.load(Ordering::Relaxed), sent, Instant::now(), is_answered));
                    next += interval;
                }
                answers.lock().unwrap().append(&mut own);
            });
        }
        for number in 1..=2 * windows {
            std::thread::sleep((begin + WINDOW * number as u32).saturating_duration_since(Instant::now()));
            window.store(number, Ordering::Relaxed);
            if number % 2 == 0 {
                std::thread::sleep(WINDOW / 2);
                server.restart();
            }
        }
    });
    let mut answers = answers.into_inner().unwrap();
    answers.sort_by_key(|(_, _, answered, _)| *answered);
    let mut load = Load::default();
    for number in 1..=2 * windows {
        let seen = if number % 2 == 0 { &mut load.restarting } else { &mut load.quiet };
        let own: Vec<_> = answers.iter().filter(|answer| answer.0 == number).collect();
        for (_, sent, answered, is_answered) in &own {
            seen.latency.push_nanos((*answered - *sent).as_nanos());
            seen.failed += usize::from(!is_answered);
        }
        let gap = own.windows(2).map(|pair| (pair[1].2 - pair[0].2).as_nanos()).max();
        seen.gaps.extend_nanos(gap);
    }
    load
}

fn request(address: &str) -> std::io::Result<()> {
    let mut socket = TcpStream::connect(address)?;
    socket.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer)?;
    if answer.starts_with(b"HTTP/1.1 200 ") { Ok(()) } else { Err(std::io::ErrorKind::InvalidData.into()) }
}
