//! A whole server with a thread for each connection, that restarts without losing one.
//!
//! `threads [ADDRESS]` answers every request with its PID. SIGUSR2 starts a successor, SIGHUP executes the program anew in
//! place, SIGTERM ends it.
#![allow(unsafe_code, clippy::std_instead_of_core, reason = "a std program; a process begins once")]

use gracenet::service::Reload;
use gracenet::{Event, Leave, Policy, Process};
use rustix::event::{PollFd, PollFlags, poll};
use std::io::{self, ErrorKind, PipeReader, PipeWriter, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::{error::Error, thread, time::Duration};

static PROCESS: Process<16> = Process::new();

fn main() -> Result<(), Box<dyn Error>> {
    // SAFETY: first thing in main; no other thread, and nothing was opened yet.
    let mut service = unsafe { PROCESS.begin(Policy::new().reload(Reload::Exec)) }?;
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8080".to_owned());
    let mut listener = Some(service.tcp("http", &address)?);
    let (mut done, mut open) = connections()?;
    service.ready()?;
    println!("ready pid={}", std::process::id());
    loop {
        let mut fds = vec![PollFd::new(&done, PollFlags::IN), PollFd::new(&service, PollFlags::IN)];
        fds.extend(listener.iter().filter(|_| service.accepts()).map(|fd| PollFd::new(fd, PollFlags::IN)));
        poll(&mut fds, None)?;
        if fds.first().is_some_and(|done| done.revents().contains(PollFlags::HUP)) {
            service.drained();
        }
        while let Some(event) = service.poll() {
            match event {
                Event::Serve => (done, open) = connections()?,
                Event::Drain(leave) => {
                    listener = listener.inspect(|it| accept(it, &open)).filter(|_| leave == Leave::Exec);
                    open = Arc::new(None);
                }
                Event::Exit(status) => std::process::exit(status.into()),
                event => eprintln!("{event}"),
            }
        }
        listener.iter().filter(|_| service.accepts()).for_each(|listener| accept(listener, &open));
    }
}

/// Two ends of a pipe: each connection holds the second, and the first hangs up when the last connection is done.
fn connections() -> io::Result<(PipeReader, Arc<Option<PipeWriter>>)> {
    io::pipe().map(|(done, open)| (done, Arc::new(Some(open))))
}

/// Accepts whoever waits.
fn accept(listener: &TcpListener, open: &Arc<Option<PipeWriter>>) {
    loop {
        match (listener.accept(), Arc::clone(open)) {
            (Ok((connection, _)), open) => drop(thread::Builder::new().spawn(|| (answer(connection), open))),
            (Err(error), _) if error.kind() == ErrorKind::WouldBlock => break,
            (Err(_), _) => break thread::sleep(Duration::from_millis(10)), // no descriptor left
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
