//! Clients of `serve`.

use crate::PATIENCE;
use std::collections::BTreeSet;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

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
        self.get("/")
    }

    /// Begins a request that takes this long, and returns when it was accepted.
    pub(crate) fn begin_slow(&self, millis: u32) -> Result<JoinHandle<Result<i32, String>>, String> {
        let mut stream = self.connect().map_err(|error| error.to_string())?;
        stream.send(&format!("/sleep?ms={millis}")).map_err(|error| error.to_string())?;
        // Whoever accepts has read the request when another one, sent behind it, is answered.
        self.ask()?;
        Ok(thread::spawn(move || stream.receive()))
    }

    fn get(&self, path: &str) -> Result<i32, String> {
        let mut stream = self.connect().map_err(|error| format!("connect: {error}"))?;
        stream.send(path).map_err(|error| format!("send: {error}"))?;
        stream.receive()
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

/// Clients that ask without pause.
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
                }
                failures
            })
        };
        let clients = (0..clients).map(client).collect();
        Self { stop, answered, pids, clients }
    }

    /// Waits until this process has answered.
    pub(crate) fn wait_for(&self, pid: i32) -> Result<(), String> {
        let begin = Instant::now();
        while !self.pids.lock().unwrap().contains(&pid) {
            if begin.elapsed() > PATIENCE {
                return Err(format!("{pid} does not answer"));
            }
            thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    pub(crate) fn answered(&self) -> usize {
        self.answered.load(Ordering::Relaxed)
    }

    /// Waits until more were answered than this.
    pub(crate) fn wait_for_more(&self, than: usize) -> Result<(), String> {
        let begin = Instant::now();
        while self.answered() <= than {
            if begin.elapsed() > PATIENCE {
                return Err("nobody answers".into());
            }
            thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// How many were answered, what failed, and who answered.
    pub(crate) fn stop(self) -> (usize, Vec<String>, BTreeSet<i32>) {
        self.stop.store(true, Ordering::Relaxed);
        let failures = self.clients.into_iter().flat_map(|client| client.join().unwrap()).collect();
        let pids = self.pids.lock().unwrap().clone();
        (self.answered.load(Ordering::Relaxed), failures, pids)
    }
}
