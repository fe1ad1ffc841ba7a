//! Clients of `serve`.

use crate::PATIENCE;
use crate::manager::wait;
use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

#[derive(Clone)]
pub(crate) enum Address {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl Address {
    pub(crate) fn tcp(port: u16) -> Self {
        Self::Tcp((Ipv4Addr::LOCALHOST, port).into())
    }

    /// The PID of whoever answers.
    pub(crate) fn ask(&self) -> Result<i32, String> {
        let mut stream = self.connect().map_err(|error| format!("connect: {error}"))?;
        stream.send("/").map_err(|error| format!("send: {error}"))?;
        stream.receive()
    }

    /// Begins a request, and returns when the kernel has it.
    pub(crate) fn begin(&self, path: &str) -> Result<JoinHandle<Result<i32, String>>, String> {
        let mut stream = self.connect().map_err(|error| format!("connect: {error}"))?;
        stream.send(path).map_err(|error| format!("send: {error}"))?;
        Ok(thread::spawn(move || stream.receive()))
    }

    /// Begins a request that takes this long, and returns when it was accepted.
    pub(crate) fn begin_slow(&self, millis: u32) -> Result<JoinHandle<Result<i32, String>>, String> {
        let request = self.begin(&format!("/sleep?ms={millis}"))?;
        // The queue keeps its order.
        self.ask()?;
        Ok(request)
    }

    /// The kernel's number of the TCP listener that has this port, whoever holds it.
    pub(crate) fn listener(&self) -> Result<u64, String> {
        let Self::Tcp(address) = self else { return Err("not TCP".into()) };
        let table = fs::read_to_string("/proc/net/tcp").map_err(|error| error.to_string())?;
        let mut rows = table.lines().map(|row| row.split_whitespace().collect::<Vec<_>>());
        let port = format!(":{:04X}", address.port());
        // The local address is in the second column, the state in the fourth, the inode in the tenth.
        let row = rows.find(|row| row.len() > 9 && row[1].ends_with(&port) && row[3] == "0A");
        row.and_then(|row| row[9].parse().ok()).ok_or(format!("nobody listens on port {}", address.port()))
    }

    fn connect(&self) -> io::Result<Stream> {
        let stream: Box<dyn ReadWrite> = match self {
            Self::Tcp(address) => {
                let stream = TcpStream::connect_timeout(address, PATIENCE)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                Box::new(stream)
            }
            Self::Unix(path) => {
                let stream = UnixStream::connect(path)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                Box::new(stream)
            }
        };
        Ok(Stream(stream))
    }
}

trait ReadWrite: Read + Write + Send {}

impl<S: Read + Write + Send> ReadWrite for S {}

struct Stream(Box<dyn ReadWrite>);

impl Stream {
    fn send(&mut self, path: &str) -> io::Result<()> {
        self.0.write_all(format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n").as_bytes())
    }

    /// The PID in the answer.
    fn receive(&mut self) -> Result<i32, String> {
        let mut answer = String::new();
        self.0.read_to_string(&mut answer).map_err(|error| format!("receive: {error}"))?;
        let body = answer.strip_prefix("HTTP/1.1 200 OK\r\n").and_then(|rest| rest.split_once("\r\n\r\n"));
        body.and_then(|(_, body)| body.trim_end().parse().ok()).ok_or(format!("answer {answer:?}"))
    }
}

/// Clients that ask one request after the other.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    pids: Arc<Mutex<BTreeSet<i32>>>,
    clients: Vec<JoinHandle<Vec<String>>>,
}

impl Load {
    pub(crate) fn start(address: &Address, clients: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let answered = Arc::new(AtomicUsize::new(0));
        let pids = Arc::new(Mutex::new(BTreeSet::new()));
        let client = |_| {
            let (stop, answered) = (Arc::clone(&stop), Arc::clone(&answered));
            let (pids, address) = (Arc::clone(&pids), address.clone());
            thread::spawn(move || {
                let mut failures = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    match address.ask() {
                        Ok(pid) => {
                            answered.fetch_add(1, Ordering::Relaxed);
                            pids.lock().unwrap().insert(pid);
                        }
                        Err(error) => failures.push(error),
                    }
                    // The machine is there for others too.
                    thread::sleep(Duration::from_micros(200));
                }
                failures
            })
        };
        let clients = (0..clients).map(client).collect();
        Self { stop, answered, pids, clients }
    }

    /// Waits until this process has answered.
    pub(crate) fn wait_for(&self, pid: i32) -> Result<(), String> {
        wait("an answer of the main process", || Ok(self.pids.lock().unwrap().contains(&pid).then_some(())))
    }

    fn answered(&self) -> usize {
        self.answered.load(Ordering::Relaxed)
    }

    /// Waits until somebody has answered since now.
    pub(crate) fn wait_for_more(&self) -> Result<(), String> {
        let before = self.answered();
        wait("an answer", || Ok((self.answered() > before).then_some(())))
    }

    /// How many were answered and by whom, if all were.
    pub(crate) fn stop(self) -> Result<(usize, BTreeSet<i32>), String> {
        self.stop.store(true, Ordering::Relaxed);
        let failures: Vec<_> = self.clients.into_iter().flat_map(|client| client.join().unwrap()).collect();
        let answered = self.answered.load(Ordering::Relaxed);
        match failures.first() {
            None => Ok((answered, self.pids.lock().unwrap().clone())),
            Some(first) => Err(format!("{} requests failed, {answered} did not: {first}", failures.len())),
        }
    }
}
