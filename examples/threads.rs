//! A whole server with a thread for each connection, that restarts without losing one.
//!
//! `threads [ADDRESS]` answers every request with its PID. SIGUSR2 starts a successor, SIGHUP executes the program anew in
//! place, SIGTERM ends it.

#![allow(unsafe_code, reason = "the begin of a program")]

use std::io::{self, ErrorKind, PipeReader, PipeWriter, Read, Write, pipe};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use gracenet::service::Reload;
use gracenet::{Event, Leave, Policy, Process};
use rustix::event::{PollFd, PollFlags, poll};

static PROCESS: Process<16> = Process::new();

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // SAFETY: first thing in main; no other thread, and nothing was opened yet.
    let mut service = unsafe { PROCESS.begin(Policy::new().reload(Reload::Exec)) }?;
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8080".to_owned());
    let mut http = Some(service.tcp("http", &address)?);
    let mut connections = Connections::new()?;
    service.ready()?;
    println!("ready pid={}", std::process::id());
    loop {
        let mut fds =
            vec![PollFd::new(&service, PollFlags::IN), PollFd::new(&connections.done, PollFlags::IN)];
        fds.extend(http.iter().filter(|_| service.accepts()).map(|http| PollFd::new(http, PollFlags::IN)));
        poll(&mut fds, None)?;
        if fds[1].revents().contains(PollFlags::HUP) {
            service.drained();
        }
        while let Some(event) = service.poll() {
            match event {
                Event::Serve => connections = Connections::new()?,
                Event::Drain(leave) => {
                    http = http.inspect(|http| connections.accept(http)).filter(|_| leave == Leave::Exec);
                    connections.open = None;
                }
                Event::Exit(status) => std::process::exit(status.into()),
                event => eprintln!("{event}"),
            }
        }
        http.iter().filter(|_| service.accepts()).for_each(|http| connections.accept(http));
    }
}

/// Each connection holds a copy of `open`: when the last one is gone, `done` hangs up.
struct Connections {
    done: PipeReader,
    open: Option<Arc<PipeWriter>>,
}

impl Connections {
    fn new() -> io::Result<Self> {
        pipe().map(|(done, open)| Self { done, open: Some(Arc::new(open)) })
    }

    /// Accepts whoever waits.
    fn accept(&self, http: &TcpListener) {
        loop {
            match (http.accept(), self.open.clone()) {
                (Ok((connection, _)), Some(open)) => {
                    drop(thread::Builder::new().spawn(|| (answer(connection), open)))
                }
                (Err(error), _) if error.kind() != ErrorKind::WouldBlock => {
                    break thread::sleep(Duration::from_millis(10));
                }
                _ => break,
            }
        }
    }
}

fn answer(mut connection: TcpStream) -> io::Result<()> {
    let mut request = [0; 4096];
    if connection.read(&mut request)? > 0 {
        let pid = std::process::id().to_string() + "\n";
        write!(
            connection,
            "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{pid}",
            pid.len()
        )?;
    }
    Ok(())
}
