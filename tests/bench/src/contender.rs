//! Who is compared.

use std::path::{Path, PathBuf};

#[derive(Clone)]
pub struct Contender {
    pub name: &'static str,
    pub program: PathBuf,
    pub env: &'static [(&'static str, &'static str)],
    /// Takes addresses alone, and leaves by itself when its successor is ready.
    pub server: bool,
    pub restarts: bool,
    pub claims: bool,
}

impl Contender {
    /// Those that were built, for so many sockets.
    pub fn all(bin: &Path, count: usize) -> Vec<Self> {
        let sized = |program: &str| Some(bin.join(format!("{program}-{count}"))).filter(|path| path.exists());
        let new = |name, program: &str, env| Self {
            name,
            program: sized(program).unwrap_or(bin.join(program)),
            env,
            server: false,
            restarts: true,
            claims: true,
        };
        let server = |name, program: &str| Self { server: true, claims: false, ..new(name, program, &[]) };
        [
            new("limit", "limit", &[]),
            new("limit with hygiene", "limit-hygiene", &[]),
            new("gracenet, no libc", "gracenet-nolibc", &[]),
            server("tiny", "tiny"),
            new("gracenet, std", "gracenet", &[]),
            server("serve", "serve"),
            server("serve, static musl", "serve-musl"),
            new("listenfd, posix_spawn", "listenfd", &[]),
            Self { claims: false, ..new("listenfd, pre_exec", "listenfd", &[("BENCH_FORK", "1")]) },
            new("ecdysis", "ecdysis", &[("BENCH_OPENS", "1")]),
            new("Go gracenet", "go", &[]),
            Self { restarts: false, ..new("sd_listen_fds", "sd_listen", &[]) },
        ]
        .into_iter()
        .filter(|contender| contender.program.exists())
        .collect()
    }
}

/// A loopback address of this run's own, for the contender at this position.
pub fn host(position: usize) -> String {
    let pid = std::process::id();
    format!("127.{}.{}.{}", 1 + pid / 250 % 250, 1 + pid % 250, 1 + position)
}
