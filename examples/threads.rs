//! A whole server with a thread for each connection, that restarts without losing one.
//!
//! `threads [ADDRESS]` answers every request with its PID. SIGUSR2 starts a successor, SIGHUP executes the program anew in
//! place, SIGTERM ends it.
#![allow(unsafe_code, clippy::std_instead_of_core, reason = "a std program; a process begins once")]

use gracenet::service::Reload;
use gracenet::{Event, Leave, Policy, Process};
use rustix::event::{PollFd, PollFlags, poll};
use std::io::{self, ErrorKind, PipeWriter, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::{error::Error, sync::Arc, thread, time::Duration};

static PROCESS: Process<16> = Process::new();

fn main() -> Result<(), Box<dyn Error>> {
    // SAFETY: first thing in main; no other thread, and nothing was opened yet.
    let mut service = unsafe { PROCESS.begin(Policy::new().reload(Reload::Exec)) }?;
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8080".to_owned());
    let mut listener = Some(service.tcp("http", &address)?);
    // Each connection holds `open` until its end, and wakes the loop then.
    let (mut ends, wake) = io::pipe().map(|(ends, wake)| (ends, Arc::new(wake)))?;
    let open = Arc::new(());
    service.ready()?;
    println!("ready pid={}", std::process::id());
    loop {
        if !service.accepts() && Arc::strong_count(&open) == 1 {
            service.drained();
        }
        match service.poll() {
            // Before an exec nobody is accepted: who waits is served by the program executed anew.
            Some(Event::Drain(leave)) if leave != Leave::Exec => {
                listener.take().iter().for_each(|listener| accept(listener, &open, &wake));
            }
            Some(Event::Exit(status)) => std::process::exit(status.into()),
            Some(event) => eprintln!("{event}"),
            None => {
                let mut fds = vec![PollFd::new(&ends, PollFlags::IN), PollFd::new(&service, PollFlags::IN)];
                let listener = listener.as_ref().filter(|_| service.accepts());
                fds.extend(listener.map(|listener| PollFd::new(listener, PollFlags::IN)));
                poll(&mut fds, None)?;
                if fds.first().is_some_and(|ends| ends.revents().contains(PollFlags::IN)) {
                    let _ends = ends.read(&mut [0; 512])?;
                }
                listener.iter().for_each(|listener| accept(listener, &open, &wake));
            }
        }
    }
}

/// Accepts whoever waits.
fn accept(listener: &TcpListener, open: &Arc<()>, wake: &Arc<PipeWriter>) {
    loop {
        match (listener.accept(), Arc::clone(open), Arc::clone(wake)) {
            (Ok((connection, _)), open, wake) => drop(
                thread::Builder::new().spawn(move || (answer(connection), drop(open), (&*wake).write(b"."))),
            ),
            (Err(error), ..) if error.kind() == ErrorKind::WouldBlock => break,
            (Err(_), ..) => break thread::sleep(Duration::from_millis(10)),
        }
    }
}

fn answer(mut connection: TcpStream) -> io::Result<()> {
    if connection.read(&mut [0; 4096])? == 0 {
        return Ok(()); // connected and left
    }
    let pid = format!("{}\n", std::process::id());
    write!(connection, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{pid}", pid.len())
}
