//! The test cases of the Go original, each by its meaning and under its name: whoever moves from there finds
//! here what holds still.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::std_instead_of_core,
    unsafe_code,
    reason = "tests"
)]

mod common;

use common::{errno, inherit_from, inherited, inode, ipv6, launch, local, local_of, place, reclaim, reserve};
use gracenet::Variable;
use gracenet::error::{AddressFault, Fault};
use gracenet::{Error, InheritOptions, Net};
use rustix::io::Errno;
use std::net::TcpListener;
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use tempfile::TempDir;

common::trials! {
    empty_count_env_variable,
    zero_count_env_variable,
    invalid_count_env_variable,
    invalid_file_inherit,
    inherit_error_on_listen_tcp_with_invalid_count,
    inherit_error_on_listen_unix_with_invalid_count,
    one_tcp_inherit,
    second_tcp_listen,
    second_tcp_listen_inherited,
    invalid_network,
    invalid_network_unix,
    with_tcp_0000,
    with_tcp_ipv6_loal if ipv6,
    one_unix_inherit,
    invalid_tcp_addr,
    two_tcp,
    one_unix_and_one_tcp_inherit,
    second_unix_listen,
    second_unix_listen_inherited,
    port_zero_twice,
}

/// What inherit says to this count, and the net it said it of.
fn counted(value: &str) -> (Result<usize, Error>, Net<4>) {
    let mut net = Net::new();
    let mut launch = launch(&[&format!("LISTEN_FDS={value}")]);
    let result = inherit_from(&mut net, &mut launch, reserve(1), InheritOptions::new());
    (result, net)
}

fn nothing_inherited() -> Net<4> {
    counted("").1
}

/// A directory, and the path of a socket that is not there yet.
fn socket_path() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    (dir, path)
}

/// Asserts that `network` and `address` claim the one inherited socket.
fn claims_one(mut net: Net<4>, network: &str, address: &str) {
    assert_eq!(net.inherited().count(), 1);
    net.listen(network, address).unwrap();
    assert_eq!(net.active().count(), 1);
    assert_eq!(net.inherited().count(), 0);
}

/// An empty `LISTEN_FDS` means none.
fn empty_count_env_variable() {
    assert_eq!(counted("").0, Ok(0));
}

/// A `LISTEN_FDS` of zero means none.
fn zero_count_env_variable() {
    assert_eq!(counted("0").0, Ok(0));
}

/// A `LISTEN_FDS` that is no number is an error, which names the variable and what is wrong with it.
fn invalid_count_env_variable() {
    let (result, _) = counted("a");
    assert_eq!(result, Err(Error::Variable { variable: Variable::Fds, fault: Fault::NotANumber }));
    assert_eq!(result.unwrap_err().to_string(), "LISTEN_FDS is not a number");
}

/// A regular file among the inherited: kept and never claimed for an address, and an error for whoever
/// wants listeners only.
fn invalid_file_inherit() {
    let file = tempfile::tempfile().unwrap();

    let mut net: Net<4> = inherited(&[&file]);
    let id = net.listen("tcp", "127.0.0.1:0").unwrap();
    assert_ne!(local_of(&net, id).port(), 0);
    let (_, kept) = net.inherited().next().unwrap();
    assert_eq!(inode(kept), inode(&file));

    let first = place([file.as_fd()]);
    let mut net = Net::<4>::new();
    let mut launch = launch(&["LISTEN_FDS=1"]);
    let result = inherit_from(&mut net, &mut launch, first, InheritOptions::new().listeners_only(true));
    assert_eq!(result, Err(Error::NotAListener { fd: first }));
    assert_eq!(net.inherited().count(), 0);
    reclaim(first, 1);
}

/// The error of inherit comes out of a later listen on TCP.
fn inherit_error_on_listen_tcp_with_invalid_count() {
    let (result, mut net) = counted("a");
    assert_eq!(net.listen("tcp", ":0").unwrap_err(), result.unwrap_err());
    assert_eq!(net.active().count(), 0);
}

/// The error of inherit comes out of a later listen on a Unix path, which is not made.
fn inherit_error_on_listen_unix_with_invalid_count() {
    let (_dir, path) = socket_path();
    let (result, mut net) = counted("a");
    assert_eq!(net.listen("unix", path.to_str().unwrap()).unwrap_err(), result.unwrap_err());
    assert!(!path.exists());
}

/// An inherited TCP listener is claimed by its address.
fn one_tcp_inherit() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    claims_one(inherited(&[&listener]), "tcp", &local(&listener).to_string());
}

/// A second listen on the address of a fresh socket finds it in use.
fn second_tcp_listen() {
    let mut net = nothing_inherited();
    let id = net.listen("tcp", ":0").unwrap();
    let address = local_of(&net, id).to_string();
    assert_eq!(errno(net.listen("tcp", &address)), Errno::ADDRINUSE);
    assert_eq!(net.active().count(), 1);
}

/// A second listen on the address of a claimed socket finds it in use.
fn second_tcp_listen_inherited() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = local(&listener).to_string();
    let mut net: Net<4> = inherited(&[&listener]);
    net.listen("tcp", &address).unwrap();
    assert_eq!(net.inherited().count(), 0);
    let error = net.listen("tcp", &address).unwrap_err();
    assert_eq!(error.errno(), Some(Errno::ADDRINUSE));
    assert!(error.to_string().starts_with("bind on fd "), "{error}");
    assert!(error.to_string().ends_with(": address in use"), "{error}");
}

/// A network that does not exist is an error that names it.
fn invalid_network() {
    let error = nothing_inherited().listen("foo", "").unwrap_err();
    assert_eq!(error.to_string(), "unknown network \"foo\"");
}

/// So is one whose name only looks like that of a Unix network.
fn invalid_network_unix() {
    let error = nothing_inherited().listen("invalid_unix_net_for_test", "").unwrap_err();
    let Error::UnknownNetwork(word) = error else { panic!("{error}") };
    assert!("invalid_unix_net_for_test".starts_with(word.as_str()) && word.as_str().len() == 15, "{word:?}");
}

/// An inherited TCP listener on 0.0.0.0 is claimed by that address.
fn with_tcp_0000() {
    let listener = TcpListener::bind("0.0.0.0:0").unwrap();
    claims_one(inherited(&[&listener]), "tcp", &local(&listener).to_string());
}

/// An inherited TCP listener on [::] is claimed by that address.
fn with_tcp_ipv6_loal() {
    let listener = TcpListener::bind("[::]:0").unwrap();
    let address = local(&listener).to_string();
    assert!(address.starts_with("[::]:"), "{address}");
    claims_one(inherited(&[&listener]), "tcp", &address);
}

/// An inherited Unix listener is claimed by its path.
fn one_unix_inherit() {
    let (_dir, path) = socket_path();
    let listener = UnixListener::bind(&path).unwrap();
    claims_one(inherited(&[&listener]), "unix", path.to_str().unwrap());
}

/// A TCP address needs a port.
fn invalid_tcp_addr() {
    let error = nothing_inherited().listen("tcp", "abc").unwrap_err();
    assert_eq!(error, Error::Address(AddressFault::MissingPort));
    assert_eq!(error.to_string(), "missing port in address");
}

/// Two inherited TCP listeners are claimed, each by its own address.
fn two_tcp() {
    let listeners = [(); 2].map(|()| TcpListener::bind("0.0.0.0:0").unwrap());
    let mut net: Net<4> = inherited(&[&listeners[0], &listeners[1]]);
    for (claimed, listener) in listeners.iter().enumerate() {
        assert_eq!(net.inherited().next().unwrap().0, claimed);
        let id = net.listen("tcp", &format!(":{}", local(listener).port())).unwrap();
        assert_eq!(local_of(&net, id), local(listener));
        assert_eq!(net.active().count(), claimed + 1);
    }
    assert_eq!(net.inherited().count(), 0);
}

/// A Unix and a TCP listener are claimed in another order than they were inherited in.
fn one_unix_and_one_tcp_inherit() {
    let (_dir, path) = socket_path();
    let unix = UnixListener::bind(&path).unwrap();
    let tcp = TcpListener::bind("0.0.0.0:0").unwrap();
    let mut net: Net<4> = inherited(&[&tcp, &unix]);
    net.listen("unix", path.to_str().unwrap()).unwrap();
    assert_eq!(net.inherited().map(|(position, _)| position).collect::<Vec<_>>(), [0]);
    net.listen("tcp", &format!(":{}", local(&tcp).port())).unwrap();
    assert_eq!(net.inherited().count(), 0);
    assert_eq!(net.active().count(), 2);
}

/// A second listen on the path of a fresh Unix socket finds it in use.
fn second_unix_listen() {
    let (_dir, path) = socket_path();
    let mut net = nothing_inherited();
    net.listen("unix", path.to_str().unwrap()).unwrap();
    assert_eq!(errno(net.listen("unix", path.to_str().unwrap())), Errno::ADDRINUSE);
    assert!(path.exists());
}

/// A second listen on the path of a claimed Unix socket finds it in use.
fn second_unix_listen_inherited() {
    let (_dir, path) = socket_path();
    let listener = UnixListener::bind(&path).unwrap();
    let mut net: Net<4> = inherited(&[&listener]);
    net.listen("unix", path.to_str().unwrap()).unwrap();
    assert_eq!(net.inherited().count(), 0);
    assert_eq!(errno(net.listen("unix", path.to_str().unwrap())), Errno::ADDRINUSE);
    assert!(path.exists());
}

/// Port zero opens a fresh port each time.
fn port_zero_twice() {
    let mut net = nothing_inherited();
    let first = net.listen("tcp", ":0").unwrap();
    let second = net.listen("tcp", ":0").unwrap();
    assert_ne!(local_of(&net, first).port(), local_of(&net, second).port());
}
