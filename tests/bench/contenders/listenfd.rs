//! listenfd for what is inherited, and `std::process::Command` to start the successor. As there is no protocol for
//! it, nobody waits until the successor is ready.
//!
//! With `BENCH_FORK=1` the descriptors are made inheritable in the child, which is what keeps them from every other
//! child of the program: `pre_exec`, for which std forks. Without, they are for a moment inheritable in the
//! predecessor, and std does posix_spawn.

mod common;

use listenfd::ListenFd;
use std::collections::HashMap;
use std::net::TcpListener;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

fn set_cloexec(fd: RawFd, flag: i32) {
    // SAFETY: changes one flag of a descriptor of ours.
    unsafe { libc::fcntl(fd, libc::F_SETFD, flag) };
}

#[allow(clippy::zombie_processes, reason = "whoever starts the contenders collects what they leave")]
fn main() {
    let entry = common::now();
    let args = common::Args::parse();
    common::mark("claim");
    let mut inherited = ListenFd::from_env();
    let mut by_address = HashMap::new();
    for position in 0..inherited.len() {
        let listener = inherited.take_tcp_listener(position).unwrap().unwrap();
        by_address.insert(listener.local_addr().unwrap(), listener);
    }
    let listeners: Vec<TcpListener> =
        args.addresses.iter().map(|address| by_address.remove(address).unwrap()).collect();
    common::mark("claimed");
    if args.only_claims {
        common::claimed(entry);
    }
    let forks = std::env::var_os("BENCH_FORK").is_some();
    // The numbers are 3 and on, as inherited.
    let fds: Vec<RawFd> = listeners.iter().map(AsRawFd::as_raw_fd).collect();
    common::serve(|| {
        common::timed(|| {
            let mut args = std::env::args_os();
            let mut command = Command::new(args.next().unwrap());
            command.args(args).env("LISTEN_FDS", fds.len().to_string());
            if forks {
                let fds = fds.clone();
                // SAFETY: fcntl is async-signal-safe.
                unsafe {
                    command.pre_exec(move || {
                        fds.iter().for_each(|fd| set_cloexec(*fd, 0));
                        Ok(())
                    })
                };
                command.spawn().unwrap();
            } else {
                fds.iter().for_each(|fd| set_cloexec(*fd, 0));
                command.spawn().unwrap();
                fds.iter().for_each(|fd| set_cloexec(*fd, libc::FD_CLOEXEC));
            }
        });
    });
}
