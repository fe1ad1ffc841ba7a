//! The permissions of a Unix socket's path: the mode asked for, whatever the umask. The umask is the
//! process's, so the tests are alone in theirs, in one function.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::std_instead_of_core,
    unsafe_code,
    reason = "tests"
)]

use gracenet::{ListenOptions, Net};
use rustix::fd::BorrowedFd;
use rustix::fs::{Mode, fstat};
use rustix::process::umask;
use std::os::unix::fs::PermissionsExt;

#[test]
fn mode_is_what_was_asked_for_under_a_tight_and_a_loose_umask() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    let open = |network: &str, options: &ListenOptions<'_>| {
        let mut net = Net::<1>::new();
        let id = net.listen_with(network, path.to_str().unwrap(), options).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777;
        net.close_and_unlink(id).unwrap();
        mode
    };
    for mask in [0o777, 0o077, 0o022, 0o000] {
        let before = umask(Mode::from_raw_mode(mask));
        for network in ["unix", "unixpacket", "unixgram"] {
            for mode in [0o000, 0o600, 0o660, 0o666, 0o777] {
                assert_eq!(
                    open(network, &ListenOptions::new().mode(mode)),
                    u32::from(mode),
                    "umask {mask:o}"
                );
            }
            // Before there is a path it has no more than that, so the path is never wider on the way.
            let is_narrow = |fd: BorrowedFd<'_>| {
                assert_eq!(fstat(fd).unwrap().st_mode & 0o7777, 0o640);
                Ok(())
            };
            open(network, &ListenOptions::new().mode(0o640).configure(&is_narrow));
            // The kernel's own rule, where nothing was asked for.
            assert_eq!(open(network, &ListenOptions::new()), 0o777 & !mask);
        }
        assert_eq!(umask(before), Mode::from_raw_mode(mask), "the umask is left alone");
    }
}
