//! Clients: an address, asked once or without pause, and the sockets that the kernel has on it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;

use socket2::{Domain, SockAddr, Socket, Type};

use crate::process::PATIENCE;

/// Where a server listens.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Place {
    Tcp(SocketAddrV4),
    Udp(SocketAddrV4),
    Unix(PathBuf),
    Packet(PathBuf),
    Gram(PathBuf),
}

impl Place {
    /// A TCP address that nobody listens on, on a loopback address that no other test has.
    pub(crate) fn tcp() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        // Several runs of this test may share a machine: the PID keeps them apart.
        let [_, _, high, low] = std::process::id().to_be_bytes();
        let ip = Ipv4Addr::new(127, 64 | high & 63, low, NEXT.fetch_add(1, Ordering::Relaxed) as u8);
        let port = TcpListener::bind((ip, 0)).unwrap().local_addr().unwrap().port();
        Self::Tcp(SocketAddrV4::new(ip, port))
    }

    /// A UDP address, likewise.
    pub(crate) fn udp() -> Self {
        match Self::tcp() {
            Self::Tcp(address) => Self::Udp(address),
            other => other,
        }
    }

    /// What `serve` calls it.
    pub(crate) fn argument(&self) -> String {
        match self {
            Self::Tcp(address) => address.to_string(),
            Self::Udp(address) => format!("udp={address}"),
            Self::Unix(path) => path.display().to_string(),
            Self::Packet(path) => format!("unixpacket={}", path.display()),
            Self::Gram(path) => format!("unixgram={}", path.display()),
        }
    }

    /// Asks for the PID of whoever serves here.
    pub(crate) fn ask(&self) -> io::Result<i32> {
        match self {
            Self::Tcp(address) => {
                let stream = TcpStream::connect_timeout(&(*address).into(), PATIENCE)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                converse(stream)
            }
            Self::Unix(path) => {
                let stream = UnixStream::connect(path)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                converse(stream)
            }
            Self::Packet(path) => {
                let socket = Socket::new(Domain::UNIX, Type::SEQPACKET, None)?;
                socket.set_read_timeout(Some(PATIENCE))?;
                socket.connect(&SockAddr::unix(path)?)?;
                converse(socket)
            }
            Self::Udp(address) => {
                let socket = UdpSocket::bind((*address.ip(), 0))?;
                socket.set_read_timeout(Some(PATIENCE))?;
                socket.connect(address)?;
                socket.send(b"who?")?;
                let mut answer = [0; 64];
                let len = socket.recv(&mut answer)?;
                pid(&answer[..len])
            }
            Self::Gram(path) => {
                let directory = tempfile::tempdir()?;
                let socket = UnixDatagram::bind(directory.path().join("client"))?;
                socket.set_read_timeout(Some(PATIENCE))?;
                socket.send_to(b"who?", path)?;
                let mut answer = [0; 64];
                let len = socket.recv(&mut answer)?;
                pid(&answer[..len])
            }
        }
    }

    /// Sends half a request.
    pub(crate) fn begin(&self) -> io::Result<Begun> {
        let Self::Tcp(address) = self else { panic!("{self} is not TCP") };
        let mut stream = TcpStream::connect_timeout(&(*address).into(), PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(REQUEST.0)?;
        Ok(Begun(stream))
    }

    /// Asks, and is answered by this process.
    #[track_caller]
    pub(crate) fn is_served_by(&self, pid: i32) {
        match self.ask() {
            Ok(answer) => assert_eq!(answer, pid, "{self} is served by another process"),
            Err(error) => panic!("{self}: {error}"),
        }
    }

    /// The inode of the one socket that listens here, or is bound here.
    ///
    /// The kernel lists sockets a page at a time, and what other tests open and close meanwhile may shift a row from
    /// one page into the next: it is seen twice, or not at all.
    #[track_caller]
    pub(crate) fn inode(&self) -> u64 {
        let look = || match self {
            Self::Tcp(address) => inet("/proc/net/tcp", address, "0A"),
            Self::Udp(address) => inet("/proc/net/udp", address, "07"),
            Self::Unix(path) => unix(path, "00010000", "0001"),
            Self::Packet(path) => unix(path, "00010000", "0005"),
            Self::Gram(path) => unix(path, "00000000", "0002"),
        };
        let mut found = BTreeSet::new();
        for looks in 1..=100 {
            found.extend(look());
            if looks >= 4 && !found.is_empty() {
                break;
            }
        }
        assert_eq!(found.len(), 1, "sockets at {self}: {found:?}");
        found.into_iter().next().unwrap()
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.argument())
    }
}

/// The sockets of the kernel's table at this address, in this state.
fn inet(table: &str, address: &SocketAddrV4, state: &str) -> BTreeSet<u64> {
    let ip = u32::from_ne_bytes(address.ip().octets());
    let local = format!("{ip:08X}:{:04X}", address.port());
    let table = std::fs::read_to_string(table).unwrap();
    let rows = table.lines().map(|row| row.split_ascii_whitespace().collect::<Vec<_>>());
    rows.filter(|row| row[1] == local && row[3] == state).map(|row| row[9].parse().unwrap()).collect()
}

/// The Unix sockets at this path, of these flags and this type.
fn unix(path: &Path, flags: &str, kind: &str) -> BTreeSet<u64> {
    let table = std::fs::read_to_string("/proc/net/unix").unwrap();
    let rows = table.lines().map(|row| row.split_ascii_whitespace().collect::<Vec<_>>());
    rows.filter(|row| row.get(7) == path.to_str().as_ref() && row[3] == flags && row[4] == kind)
        .map(|row| row[6].parse().unwrap())
        .collect()
}

/// A request, of which half was sent.
pub(crate) struct Begun(TcpStream);

impl Begun {
    /// Sends the rest and reads the answer.
    pub(crate) fn finish(mut self) -> io::Result<i32> {
        self.0.write_all(REQUEST.1)?;
        hear(self.0)
    }
}

const REQUEST: (&[u8], &[u8]) = (b"GET / HTTP/1.1\r\nHost: inter", b"op\r\nConnection: close\r\n\r\n");

/// One request, answered with the connection's end.
fn converse(mut stream: impl Read + Write) -> io::Result<i32> {
    stream.write_all(&[REQUEST.0, REQUEST.1].concat())?;
    hear(stream)
}

fn hear(mut stream: impl Read) -> io::Result<i32> {
    let mut answer = Vec::new();
    loop {
        // Large enough for all of a packet.
        let mut bytes = [0; 4096];
        match stream.read(&mut bytes)? {
            0 => break,
            len => answer.extend_from_slice(&bytes[..len]),
        }
    }
    let text = String::from_utf8_lossy(&answer);
    match text.split_once("\r\n\r\n") {
        Some((head, body)) if head.starts_with("HTTP/1.1 200 ") => pid(body.as_bytes()),
        _ => Err(io::Error::other(format!("not an answer: {text:?}"))),
    }
}

fn pid(body: &[u8]) -> io::Result<i32> {
    let text = String::from_utf8_lossy(body);
    let pid = text.strip_suffix('\n').and_then(|pid| pid.parse().ok());
    pid.ok_or_else(|| io::Error::other(format!("not a PID: {text:?}")))
}

/// Clients that ask without pause.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    progress: Arc<Progress>,
    threads: Vec<JoinHandle<BTreeMap<i32, usize>>>,
}

/// The results of the requests so far.
#[derive(Default)]
struct Progress {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    failures: Vec<String>,
    /// How many answers each client has.
    answers: Vec<usize>,
}

impl Load {
    /// Two clients for each place.
    pub(crate) fn start(places: &[Place]) -> Self {
        let (stop, progress) = <(Arc<AtomicBool>, Arc<Progress>)>::default();
        progress.state.lock().unwrap().answers = vec![0; 2 * places.len()];
        let client = |(number, place): (usize, &Place)| {
            let (stop, progress, place) = (Arc::clone(&stop), Arc::clone(&progress), place.clone());
            std::thread::spawn(move || {
                let mut answers = BTreeMap::new();
                while !stop.load(Ordering::Relaxed) {
                    let result = place.ask();
                    let mut state = progress.state.lock().unwrap();
                    match result {
                        Ok(pid) => {
                            state.answers[number] += 1;
                            *answers.entry(pid).or_default() += 1;
                        }
                        Err(error) => state.failures.push(format!("{place}: {error}")),
                    }
                    progress.changed.notify_all();
                }
                answers
            })
        };
        let threads = places.iter().chain(places).enumerate().map(client).collect();
        Self { stop, progress, threads }
    }

    /// Waits until each client has had some more answers, to requests that it has sent after this call.
    #[track_caller]
    pub(crate) fn goes_on(&self) {
        /// Counts one answer more, because the first one may belong to an earlier request.
        const MORE: usize = 4;
        let state = self.progress.state.lock().unwrap();
        let before = state.answers.clone();
        let waits = |state: &mut State| {
            let mut pairs = state.answers.iter().zip(&before);
            state.failures.is_empty() && pairs.any(|(now, before)| *now < before + MORE)
        };
        let (state, wait) = self.progress.changed.wait_timeout_while(state, PATIENCE, waits).unwrap();
        let (failures, timed_out) = (state.failures.clone(), wait.timed_out());
        // A panic with the lock held would poison it for the clients.
        drop(state);
        assert!(failures.is_empty(), "{} requests failed: {:?}", failures.len(), failures.first());
        assert!(!timed_out, "a client has no answer");
    }

    /// Ends it; not one request may have failed. How many each process has answered.
    #[track_caller]
    pub(crate) fn finish(mut self) -> BTreeMap<i32, usize> {
        let mut sum = BTreeMap::new();
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            for (pid, count) in thread.join().unwrap() {
                *sum.entry(pid).or_default() += count;
            }
        }
        let failures = &self.progress.state.lock().unwrap().failures;
        assert!(failures.is_empty(), "{} of {sum:?} requests failed: {:?}", failures.len(), failures.first());
        sum
    }
}

impl Drop for Load {
    /// A test that fails ends its load before the servers go.
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}
