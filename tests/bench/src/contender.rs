//! Who is compared.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

#[derive(Clone)]
pub struct Contender {
    pub name: &'static str,
    pub program: PathBuf,
    pub env: &'static [(&'static str, &'static str)],
    /// A whole server: takes addresses alone, tells no times, and leaves by itself when its successor is ready.
    pub server: bool,
    /// Whether its restarts are measured.
    pub restarts: bool,
    /// Whether it claims and ends when it is asked to.
    pub claims: bool,
}

pub const LIMIT: &str = "limit";
pub const HYGIENE: &str = "limit with hygiene";
pub const LISTENING: &str = "limit that asks who listens";
pub const NOLIBC: &str = "gracenet, no libc";
pub const TINY: &str = "tiny";
pub const STD: &str = "gracenet, std";
pub const SERVE: &str = "serve";
pub const MUSL: &str = "serve, static musl";
pub const POSIX_SPAWN: &str = "listenfd, posix_spawn";
pub const FORK: &str = "listenfd, pre_exec";
pub const ECDYSIS: &str = "ecdysis";
pub const GO: &str = "Go gracenet";
pub const LIBSYSTEMD: &str = "sd_listen_fds";

/// Those that somebody else wrote.
pub const PEERS: [&str; 4] = [POSIX_SPAWN, FORK, ECDYSIS, GO];

impl Contender {
    /// All for so many sockets. Static musl is among them if it was built.
    pub fn all(bin: &Path, count: usize) -> Vec<Self> {
        let sized = |program: &str| {
            let sizes = [1, 64, 512, 1000, 4000].into_iter().filter(|size| *size >= count);
            sizes.map(|size| bin.join(format!("{program}-{size}"))).find(|path| path.exists())
        };
        let new = |name, program: &str, env| Self {
            name,
            program: sized(program).unwrap_or(bin.join(program)),
            env,
            server: false,
            restarts: true,
            claims: true,
        };
        let server = |name, program: &str| Self { server: true, claims: false, ..new(name, program, &[]) };
        let mut all = vec![
            new(LIMIT, "limit", &[]),
            new(HYGIENE, "limit-hygiene", &[]),
            Self { restarts: false, ..new(LISTENING, "limit-listening", &[]) },
            new(NOLIBC, "gracenet-nolibc", &[]),
            server(TINY, "tiny"),
            new(STD, "gracenet", &[]),
            server(SERVE, "serve"),
            server(MUSL, "serve-musl"),
            new(POSIX_SPAWN, "listenfd", &[]),
            Self { claims: false, ..new(FORK, "listenfd", &[("BENCH_FORK", "1")]) },
            new(ECDYSIS, "ecdysis", &[("BENCH_OPENS", "1")]),
            new(GO, "go", &[]),
            Self { restarts: false, ..new(LIBSYSTEMD, "sd_listen", &[]) },
        ];
        all.retain(|contender| contender.name != MUSL || contender.program.exists());
        all
    }

    /// Those of these names.
    pub fn some(bin: &Path, count: usize, names: &[&str]) -> Vec<Self> {
        let mut all = Self::all(bin, count);
        all.retain(|contender| names.contains(&contender.name));
        all
    }
}

/// A loopback address that nothing has been started on: what a successor that nobody waited for still holds is in no
/// other's way.
pub fn host() -> String {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let pid = std::process::id();
    let position = NEXT.fetch_add(1, Ordering::Relaxed) % 250;
    format!("127.{}.{}.{}", 1 + pid / 250 % 250, 1 + pid % 250, 1 + position)
}
