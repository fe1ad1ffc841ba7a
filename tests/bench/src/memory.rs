//! Sizes: of programs, and of what they take when they run. And the calls of an allocator.

use crate::contender::{Contender, host};
use crate::process::{Server, Start, collect};
use rustix::process::Signal;
use std::net::TcpStream;
use std::path::Path;

pub struct Size {
    pub program: u64,
    /// What is in memory when the second generation is ready, in KiB.
    pub resident: usize,
    /// What of it is the process's own, and in no file.
    pub anonymous: usize,
}

pub fn measure(bin: &Path, contender: &Contender, count: usize) -> Size {
    let start = Start { host: host(), count, ..Start::default() };
    let mut server = Server::start(bin, contender, &start);
    server.restart();
    let program = std::fs::metadata(&contender.program).unwrap().len();
    Size { program, resident: server.status("VmRSS"), anonymous: server.status("RssAnon") }
}

/// How often `serve` calls its allocator from the signal to restart to the end of its accepting.
pub fn allocator_calls(bin: &Path, count: usize) -> usize {
    let contenders = Contender::all(bin, count);
    let serve = contenders.iter().find(|contender| contender.name == crate::contender::SERVE).unwrap();
    let counted = Contender { program: bin.join("serve-counted"), ..serve.clone() };
    let start = Start { host: host(), count, ..Start::default() };
    let mut server = Server::start(bin, &counted, &start);
    // It drains until this has been answered, and can be asked meanwhile.
    let connection = TcpStream::connect(format!("{}:20000", start.host)).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(100));
    let calls = |line: String| line.strip_prefix("allocator ").and_then(|calls| calls.parse::<usize>().ok());
    let before = calls(server.ask()).unwrap();
    let (_, successor) = server.send_and_wait(Signal::USR2);
    std::thread::sleep(std::time::Duration::from_millis(100));
    let after = calls(server.ask()).unwrap();
    drop(connection);
    let predecessor = server.pid();
    drop(server);
    let _ = (rustix::process::kill_process(successor, Signal::TERM), predecessor);
    collect(successor);
    after - before
}
