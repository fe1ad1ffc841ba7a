//! Listen, sentence by sentence: what a fresh socket is like, which inherited one is claimed for what was
//! asked, and what becomes of a socket in the table. `SO_COOKIE` tells which socket it was that was claimed.
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

use common::{
    bound, cookie, cookie_of, errno, inherit_from, inherited, inherited_as, inode, ipv6, ipv6_freebind,
    launch, local, local_of, on_one_port, place_at, reclaim, reserve,
};
use gracenet::error::{AddressFault, NameFault, Operation, Table};
use gracenet::{
    Endpoint, Error, InheritOptions, Launch, ListenOptions, Net, Network, Refusal, Restart, SocketId,
};
use rustix::fs::OFlags;
use rustix::io::{Errno, FdFlags};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, sockopt};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::cell::Cell;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

common::trials! {
    every_network_opens_a_fresh_socket_of_its_family_and_type,
    every_network_of_ipv6_opens_one_too if ipv6,
    each_form_of_an_ipv4_address_is_bound_as_it_says,
    each_form_of_an_ipv6_address_is_bound_as_it_says if ipv6,
    the_wildcard_is_dual_stack_where_the_network_allows_both_families if ipv6,
    the_typed_doors_open_what_the_texts_do,
    what_cannot_be_read_is_an_error_of_its_own,
    a_zone_is_a_name_or_an_index if ipv6,
    a_zone_of_a_link_local_address_is_its_interface if ipv6_freebind,
    the_same_link_local_address_in_another_zone_is_another_address if ipv6_freebind,
    a_zone_that_is_no_interface_is_an_error,
    each_inherited_socket_is_claimed_by_its_address_in_any_order,
    a_claimed_socket_is_left_exactly_as_it_was,
    the_port_and_the_address_have_to_be_the_same,
    two_wildcard_listeners_never_swap if ipv6,
    the_exact_address_comes_before_the_other_familys_wildcard if ipv6,
    the_wildcards_are_equivalent_only_where_network_and_v6only_allow_it if ipv6,
    the_wildcard_of_ipv4_is_equivalent_only_where_the_network_allows_it,
    v6only_as_an_option_has_to_be_agreed_on if ipv6,
    v6only_as_an_option_is_never_agreed_on_by_ipv4,
    v6only_is_asked_of_the_wildcard_alone if ipv6,
    tcp_and_udp_on_one_port_never_swap,
    mptcp_is_tcp if mptcp,
    udp_lite_is_not_udp if udp_lite,
    one_abstract_name_in_three_types_never_swaps,
    a_path_and_an_abstract_name_of_the_same_bytes_never_swap,
    sockets_that_share_an_address_are_claimed_in_order_each_once,
    a_connection_is_never_claimed_for_the_address_of_its_listener,
    a_bound_socket_that_does_not_listen_is_not_claimed_for_a_stream,
    types_of_unix_sockets_are_not_taken_for_one_another,
    a_descriptor_is_claimed_by_name_or_by_position_whatever_it_is,
    a_name_is_claimed_as_a_whole,
    a_socket_that_listens_late_is_claimed,
    claiming_opens_nothing,
    a_name_that_one_socket_alone_has_decides_whatever_the_address,
    a_name_that_nothing_was_inherited_under_leaves_it_to_the_address,
    a_name_does_not_make_a_socket_fit_that_is_of_another_family_or_type,
    of_several_sockets_of_one_name_the_address_decides,
    a_named_listener_on_port_0_keeps_its_port,
    an_unnamed_listener_on_port_0_is_always_fresh,
    a_name_is_checked_before_anything_is_opened,
    the_backlog_is_as_asked_for_and_large_by_default,
    nonblocking_and_reuse_port_are_set_on_a_fresh_socket,
    v6only_is_set_on_a_fresh_socket if ipv6,
    configure_is_called_for_a_fresh_socket_before_it_is_bound,
    configure_is_not_called_for_an_inherited_socket,
    the_error_of_configure_is_the_calls,
    mode_is_the_paths_mode,
    a_stale_path_is_replaced_when_asked_for,
    a_live_path_is_in_use_and_stays,
    a_live_path_whose_queue_is_full_is_in_use,
    what_is_no_socket_is_never_replaced,
    a_path_may_have_107_bytes,
    a_path_that_fills_the_address_without_a_nul_is_kept_and_claimed_by_position,
    a_socket_that_was_never_bound_is_not_claimed_for_an_address,
    long_paths_that_begin_alike_never_swap,
    a_path_is_compared_as_it_was_bound,
    a_full_table_is_an_error_before_a_socket_is_opened,
    a_full_table_leaves_what_would_have_been_claimed_inherited,
    names_take_room_for_as_long_as_their_sockets_are_active,
    names_that_do_not_fit_together_are_an_error_before_a_socket_is_opened,
    anything_can_travel_under_a_name,
    a_rejected_descriptor_comes_back,
    close_closes_here_and_hands_over_no_longer,
    close_leaves_other_copies_and_the_path_alone,
    take_gives_the_socket_away,
    try_clone_duplicates_for_another_owner,
    a_stale_id_is_an_error_and_never_another_socket,
    close_and_unlink_removes_the_path,
    close_and_unlink_leaves_what_is_not_its_path,
    a_path_is_not_removed_by_a_process_that_has_not_reported_yet,
    a_process_that_is_not_ready_takes_nothing_from_its_predecessor,
    dropping_the_net_removes_no_path,
    both_tables_are_listed_with_name_family_type_and_address,
    a_failed_listen_removes_the_path_that_it_made,
    a_path_in_a_directory_that_is_not_there_is_binds_error,
    an_address_of_another_machine_is_binds_error,
}

const V4: Ipv4Addr = Ipv4Addr::UNSPECIFIED;
const V6: Ipv6Addr = Ipv6Addr::UNSPECIFIED;

fn fresh() -> Net<8> {
    Net::new()
}

/// Asserts that claiming this gets that very socket.
#[track_caller]
fn claims<const N: usize>(net: &mut Net<N>, network: &str, address: &str, expected: impl AsFd) -> SocketId {
    let id = net.claim(network, address).unwrap_or_else(|error| panic!("{network} {address}: {error}"));
    assert_eq!(cookie_of(net, id), cookie(expected), "{network} {address}");
    id
}

#[track_caller]
fn claims_none<const N: usize>(net: &mut Net<N>, network: &str, address: &str) {
    let left = net.inherited().count();
    assert_eq!(net.claim(network, address), Err(Error::NotInherited), "{network} {address}");
    assert_eq!(net.inherited().count(), left);
}

fn tcp(address: impl Into<SocketAddr>, v6only: bool) -> io::Result<Socket> {
    bound(Protocol::TCP, address.into(), v6only)
}

fn udp(address: impl Into<SocketAddr>, v6only: bool) -> io::Result<Socket> {
    bound(Protocol::UDP, address.into(), v6only)
}

struct Dir(TempDir);

impl Dir {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().to_owned()
    }

    /// A path of this many bytes, whose last ones are `end`.
    fn long(&self, bytes: usize, end: &str) -> String {
        let start = self.path("");
        format!("{start}{}{end}", "x".repeat(bytes - start.len() - end.len()))
    }
}

/// An abstract name that no other run uses.
fn abstract_name(name: &str) -> String {
    format!("gracenet-test-{}-{name}", std::process::id())
}

// Fresh sockets.

fn every_network_opens_a_fresh_socket_of_its_family_and_type() {
    let dir = Dir::new();
    let (inet, unix) = (AddressFamily::INET, AddressFamily::UNIX);
    let (stream, datagram, packet) = (SocketType::STREAM, SocketType::DGRAM, SocketType::SEQPACKET);
    let [path, path_packet, path_gram] = ["stream", "packet", "datagram"].map(|name| dir.path(name));
    open_fresh(&[
        ("tcp", "127.0.0.1:0", inet, stream),
        ("tcp4", "127.0.0.1:0", inet, stream),
        ("tcp4", ":0", inet, stream),
        ("udp", "127.0.0.1:0", inet, datagram),
        ("udp4", ":0", inet, datagram),
        ("unix", &path, unix, stream),
        ("unixpacket", &path_packet, unix, packet),
        ("unixgram", &path_gram, unix, datagram),
        ("unix", &format!("@{}", abstract_name("fresh")), unix, stream),
    ]);
}

fn every_network_of_ipv6_opens_one_too() {
    let (stream, datagram) = (SocketType::STREAM, SocketType::DGRAM);
    open_fresh(&[
        ("tcp", "[::1]:0", AddressFamily::INET6, stream),
        ("tcp6", "[::1]:0", AddressFamily::INET6, stream),
        ("tcp6", ":0", AddressFamily::INET6, stream),
        ("udp6", "[::1]:0", AddressFamily::INET6, datagram),
    ]);
}

/// Each of these addresses opens a socket of this family and type.
fn open_fresh(cases: &[(&str, &str, AddressFamily, SocketType)]) {
    for &(network, address, family, kind) in cases {
        let mut net = fresh();
        let id = net.listen(network, address).unwrap_or_else(|error| panic!("{network} {address}: {error}"));
        let (listed, socket) = net.active().next().unwrap();
        let description = socket.describe().unwrap().unwrap();
        assert_eq!(listed, id);
        assert_eq!((description.family, description.kind), (family, kind), "{network} {address}");
        assert_eq!(socket.name(), "unknown");
        assert_eq!(rustix::io::fcntl_getfd(socket), Ok(FdFlags::CLOEXEC));
        assert!(!rustix::fs::fcntl_getfl(socket).unwrap().contains(OFlags::NONBLOCK));
        assert_eq!(sockopt::socket_acceptconn(socket), Ok(kind != SocketType::DGRAM), "{network} {address}");
        assert_eq!(sockopt::socket_reuseaddr(socket), Ok(network.starts_with("tcp")), "{network}");
        if family != AddressFamily::UNIX {
            assert_ne!(local(socket).port(), 0, "port 0 opens a fresh port");
        }
    }
}

fn each_form_of_an_ipv4_address_is_bound_as_it_says() {
    open_on(&[
        ("tcp", "127.0.0.1:0", "127.0.0.1"),
        ("tcp", "127.0.0.7:0", "127.0.0.7"),
        ("tcp", "0.0.0.0:0", "0.0.0.0"),
        ("tcp4", ":0", "0.0.0.0"),
        ("udp4", ":0", "0.0.0.0"),
        ("tcp", "localhost:0", "127.0.0.1"),
        ("tcp4", "localhost:0", "127.0.0.1"),
        ("udp", "localhost:0", "127.0.0.1"),
    ]);
}

fn each_form_of_an_ipv6_address_is_bound_as_it_says() {
    open_on(&[
        ("tcp6", "localhost:0", "::1"),
        ("udp6", "localhost:0", "::1"),
        ("tcp", "[::1]:0", "::1"),
        ("tcp", "[0:0::0:1]:0", "::1"),
        ("tcp", "[::]:0", "::"),
        ("tcp", ":0", "::"),
        ("tcp6", ":0", "::"),
        ("udp", ":0", "::"),
    ]);
}

/// Each of these addresses opens a socket that is bound to this one.
fn open_on(cases: &[(&str, &str, &str)]) {
    for (network, address, expected) in cases {
        let mut net = fresh();
        let id = net.listen(network, address).unwrap();
        assert_eq!(local_of(&net, id).ip().to_string(), *expected, "{network} {address}");
    }
}

fn the_wildcard_is_dual_stack_where_the_network_allows_both_families() {
    for (network, address, v6only) in [
        ("tcp", ":0", false),
        ("tcp", "[::]:0", false),
        ("udp", ":0", false),
        ("tcp6", ":0", true),
        ("tcp6", "[::]:0", true),
        ("udp6", ":0", true),
    ] {
        let mut net = fresh();
        let id = net.listen(network, address).unwrap();
        assert_eq!(sockopt::ipv6_v6only(net.fd(id).unwrap()), Ok(v6only), "{network} {address}");
        if network.starts_with("tcp") {
            let port = local_of(&net, id).port();
            assert_eq!(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok(), !v6only);
            TcpStream::connect((Ipv6Addr::LOCALHOST, port)).unwrap();
        }
    }
}

fn the_typed_doors_open_what_the_texts_do() {
    let dir = Dir::new();
    let mut net = fresh();
    let options = ListenOptions::new();
    let tcp = net.listen_at(&Endpoint::tcp((Ipv4Addr::LOCALHOST, 0).into()), &options).unwrap();
    let udp = net.listen_at(&Endpoint::udp((Ipv4Addr::LOCALHOST, 0).into()), &options).unwrap();
    let path = dir.path("\u{fc} \u{1}");
    let unix = Endpoint::unix_path(Network::Unix, path.as_bytes()).unwrap();
    net.listen_at(&unix, &options).unwrap();
    let name = [abstract_name("typed").as_bytes(), b"\xff\xfe@"].concat();
    let abstract_one = Endpoint::unix_abstract(Network::UnixPacket, &name).unwrap();
    let packet = net.listen_at(&abstract_one, &options).unwrap();

    TcpStream::connect(local_of(&net, tcp)).unwrap();
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.send_to(b"x", local_of(&net, udp)).unwrap();
    UnixStream::connect(&path).unwrap();
    let bound = SocketAddrUnix::try_from(rustix::net::getsockname(net.fd(packet).unwrap()).unwrap()).unwrap();
    assert_eq!(bound.abstract_name(), Some(&*name));

    // A path that begins with '@' has only this door.
    assert_eq!(Endpoint::unix_path(Network::Tcp, b"/x"), Err(Error::Address(AddressFault::Family)));
    assert_eq!(Endpoint::unix_path(Network::Unix, b""), Err(Error::Address(AddressFault::Empty)));
    assert_eq!(Endpoint::unix_path(Network::Unix, b"/a\0b"), Err(Error::Address(AddressFault::Nul)));
    assert_eq!(Endpoint::unix_abstract(Network::Unix, b"a\0b"), Err(Error::Address(AddressFault::Nul)));
}

fn what_cannot_be_read_is_an_error_of_its_own() {
    let long = format!("/{}", "x".repeat(107));
    let cases: &[(&str, &str, AddressFault)] = &[
        ("tcp", "127.0.0.1", AddressFault::MissingPort),
        ("tcp", "127.0.0.1:", AddressFault::MissingPort),
        ("tcp", "[::1]", AddressFault::MissingPort),
        ("tcp", "", AddressFault::MissingPort),
        ("tcp", "127.0.0.1:65536", AddressFault::PortOutOfRange),
        ("tcp", ":99999999999999999999", AddressFault::PortOutOfRange),
        ("tcp", ":+80", AddressFault::PortSign),
        ("tcp", ":-1", AddressFault::PortSign),
        ("tcp", ":http", AddressFault::PortNotANumber),
        ("tcp", ":0x50", AddressFault::PortNotANumber),
        ("tcp", ": 80", AddressFault::Space),
        ("tcp", "127.0.0.1 :80", AddressFault::Space),
        ("tcp", "127.0.0.1:80\n", AddressFault::Space),
        ("tcp", "127.0.0.1:80\0", AddressFault::Nul),
        ("tcp", "256.0.0.1:80", AddressFault::Ipv4),
        ("tcp", "127.1:80", AddressFault::Ipv4),
        ("tcp", "[::g]:80", AddressFault::Ipv6),
        ("tcp", "[127.0.0.1]:80", AddressFault::Ipv6),
        ("tcp", "::1:80", AddressFault::Bracket),
        ("tcp", "[::1:80", AddressFault::Bracket),
        ("tcp", "[::1]80", AddressFault::Bracket),
        ("tcp", "[fe80::1%]:80", AddressFault::Zone),
        ("tcp", "[fe80::1%0]:80", AddressFault::Zone),
        ("tcp", "[fe80::1%sixteen-bytes-xx]:80", AddressFault::Zone),
        ("tcp", "example.org:80", AddressFault::Host),
        ("tcp4", "[::1]:80", AddressFault::Family),
        ("tcp6", "127.0.0.1:80", AddressFault::Family),
        ("udp6", "0.0.0.0:80", AddressFault::Family),
        ("unix", "", AddressFault::Empty),
        ("unix", "@", AddressFault::Empty),
        ("unix", "/a\0b", AddressFault::Nul),
        ("unixgram", "@a\0b", AddressFault::Nul),
        ("unix", &long, AddressFault::PathTooLong { bytes: 108 }),
    ];
    let mut net = fresh();
    for (network, address, fault) in cases {
        assert_eq!(net.listen(network, address), Err(Error::Address(*fault)), "{network} {address:?}");
        assert_eq!(net.claim(network, address), Err(Error::Address(*fault)), "{network} {address:?}");
    }
    let mut messages: Vec<_> = cases.iter().map(|(_, _, fault)| Error::Address(*fault).to_string()).collect();
    messages.sort();
    messages.dedup();
    let mut faults: Vec<_> = cases.iter().map(|(_, _, fault)| format!("{fault:?}")).collect();
    faults.sort();
    faults.dedup();
    assert_eq!(messages.len(), faults.len(), "each fault has words of its own: {messages:?}");
    let host = net.listen("tcp", "example.org:80").unwrap_err().to_string();
    assert!(host.contains("not resolved"), "{host}");
    for network in ["", "TCP", "tcp ", "ip", "unixstream"] {
        let error = net.listen(network, ":0").unwrap_err();
        assert!(matches!(error, Error::UnknownNetwork(word) if word.as_str() == network), "{error}");
    }
    assert_eq!(net.active().count(), 0);
}

// Zones.

const LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 1, 2, 3);

fn index_of(interface: &str) -> u32 {
    let socket = rustix::net::socket(AddressFamily::UNIX, SocketType::DGRAM, None).unwrap();
    rustix::net::netdevice::name_to_index(&socket, interface).unwrap()
}

/// Opens `[ip%zone]:0`, then inherits it and claims it under each zone; returns its scope.
fn zones_open_and_claim(network: &str, ip: Ipv6Addr, zones: [&str; 2]) -> u32 {
    let scopes = zones.map(|zone| {
        let mut net = fresh();
        // No interface has to have the address.
        let freebind = |fd: BorrowedFd<'_>| sockopt::set_ipv6_freebind(fd, true);
        let options =
            if ip == LINK_LOCAL { ListenOptions::new().configure(&freebind) } else { ListenOptions::new() };
        let id = net.listen_with(network, &format!("[{ip}%{zone}]:0"), &options).unwrap();
        let SocketAddr::V6(address) = local_of(&net, id) else { panic!() };
        assert_eq!(*address.ip(), ip);
        for zone in zones {
            let mut successor: Net<8> = inherited(&[&net.fd(id).unwrap()]);
            claims(
                &mut successor,
                network,
                &format!("[{ip}%{zone}]:{}", address.port()),
                net.fd(id).unwrap(),
            );
        }
        address.scope_id()
    });
    assert_eq!(scopes[0], scopes[1]);
    scopes[0]
}

fn a_zone_is_a_name_or_an_index() {
    let index = index_of("lo");
    let zones = ["lo", &index.to_string()];
    for network in ["tcp", "tcp6", "udp", "udp6"] {
        zones_open_and_claim(network, Ipv6Addr::LOCALHOST, zones);
    }
    let multicast = "ff02::1:2:3".parse().unwrap();
    assert_eq!(zones_open_and_claim("udp", multicast, zones), index);
}

fn a_zone_of_a_link_local_address_is_its_interface() {
    let table = std::fs::read_to_string("/proc/net/dev").unwrap();
    // Two lines of headings.
    for name in table.lines().skip(2).map(|line| line.split(':').next().unwrap().trim()) {
        let index = index_of(name);
        for network in ["tcp", "udp6"] {
            let scope = zones_open_and_claim(network, LINK_LOCAL, [name, &index.to_string()]);
            assert_eq!(scope, index, "{name}");
        }
    }
}

fn the_same_link_local_address_in_another_zone_is_another_address() {
    let mut net = fresh();
    let freebind = |fd: BorrowedFd<'_>| sockopt::set_ipv6_freebind(fd, true);
    let options = ListenOptions::new().configure(&freebind);
    let id = net.listen_with("tcp", &format!("[{LINK_LOCAL}%lo]:0"), &options).unwrap();
    let SocketAddr::V6(address) = local_of(&net, id) else { panic!() };
    let (index, port) = (address.scope_id(), address.port());
    let mut successor: Net<8> = inherited(&[&net.fd(id).unwrap()]);
    claims_none(&mut successor, "tcp", &format!("[{LINK_LOCAL}%{}]:{port}", index + 1));
    claims_none(&mut successor, "tcp", &format!("[{LINK_LOCAL}]:{port}"));
    claims(&mut successor, "tcp", &format!("[{LINK_LOCAL}%{index}]:{port}"), net.fd(id).unwrap());
}

fn a_zone_that_is_no_interface_is_an_error() {
    let error = fresh().listen("tcp", "[fe80::1%no-such-if]:0").unwrap_err();
    let Error::Call { operation: Operation::InterfaceIndex, errno: Errno::NODEV, .. } = error else {
        panic!("{error}")
    };
    assert_eq!(error.to_string(), "find the zone's interface: no such device");
}

// Claiming by address.

fn each_inherited_socket_is_claimed_by_its_address_in_any_order() {
    let dir = Dir::new();
    let listeners: Vec<Socket> = (0..3).map(|_| tcp((Ipv4Addr::LOCALHOST, 0), false).unwrap()).collect();
    let unix = UnixListener::bind(dir.path("a")).unwrap();
    let gram = UnixDatagram::bind(dir.path("b")).unwrap();
    let mut net: Net<5> = inherited(&[&gram, &listeners[0], &listeners[1], &unix, &listeners[2]]);
    for socket in [&listeners[2], &listeners[0], &listeners[1]] {
        claims(&mut net, "tcp", &local(socket).to_string(), socket);
    }
    claims(&mut net, "unix", &dir.path("a"), &unix);
    claims(&mut net, "unixgram", &dir.path("b"), &gram);
    assert_eq!(net.inherited().count(), 0);
}

fn a_claimed_socket_is_left_exactly_as_it_was() {
    let socket = tcp((Ipv4Addr::LOCALHOST, 0), false).unwrap();
    socket.set_nonblocking(true).unwrap();
    let flags = rustix::fs::fcntl_getfl(&socket).unwrap();
    let mut net: Net<1> = inherited(&[&socket]);
    let options = ListenOptions::new().nonblocking(false).reuse_port(true).backlog(0);
    net.listen_with("tcp", &local(&socket).to_string(), &options).unwrap();
    assert_eq!(rustix::fs::fcntl_getfl(&socket), Ok(flags));
    assert_eq!(sockopt::socket_reuseport(&socket), Ok(false));
    assert_eq!(sockopt::socket_reuseaddr(&socket), Ok(false));
}

fn the_port_and_the_address_have_to_be_the_same() {
    let socket = tcp((Ipv4Addr::LOCALHOST, 0), false).unwrap();
    let port = local(&socket).port();
    let mut net: Net<1> = inherited(&[&socket]);
    claims_none(&mut net, "tcp", &format!("127.0.0.1:{}", port.wrapping_add(1).max(1)));
    claims_none(&mut net, "tcp", &format!("127.0.0.2:{port}"));
    claims_none(&mut net, "tcp", &format!("0.0.0.0:{port}"));
    claims_none(&mut net, "tcp", &format!(":{port}"));
    claims_none(&mut net, "tcp", &format!("[::1]:{port}"));
    claims_none(&mut net, "tcp", "127.0.0.1:0");
    claims_none(&mut net, "tcp6", &format!("localhost:{port}"));
    claims(&mut net, "tcp4", &format!("localhost:{port}"), &socket);
}

fn two_wildcard_listeners_never_swap() {
    let (v4, v6, port) = on_one_port(|| tcp((V4, 0), false), |port| tcp((V6, port), true));
    let v4_forms = [("tcp4", "0.0.0.0"), ("tcp4", ""), ("tcp", "0.0.0.0")];
    let v6_forms = [("tcp6", "[::]"), ("tcp6", ""), ("tcp", "[::]"), ("tcp", "")];
    for v6_is_first in [false, true] {
        for v6_asked_first in [false, true] {
            for (v4_network, v4_host) in v4_forms {
                for (v6_network, v6_host) in v6_forms {
                    let order: [&dyn AsFd; 2] = if v6_is_first { [&v6, &v4] } else { [&v4, &v6] };
                    let mut net: Net<2> = inherited(&order);
                    let ask_v4 = |net: &mut Net<2>| {
                        claims(net, v4_network, &format!("{v4_host}:{port}"), &v4);
                    };
                    let ask_v6 = |net: &mut Net<2>| {
                        claims(net, v6_network, &format!("{v6_host}:{port}"), &v6);
                    };
                    if v6_asked_first {
                        ask_v6(&mut net);
                        ask_v4(&mut net);
                    } else {
                        ask_v4(&mut net);
                        ask_v6(&mut net);
                    }
                }
            }
        }
    }
}

fn the_exact_address_comes_before_the_other_familys_wildcard() {
    // One port for 0.0.0.0 and a dual-stack [::] takes SO_REUSEPORT.
    let open = |domain, address: SocketAddr| {
        let socket = Socket::new(domain, Type::STREAM, None)?;
        socket.set_reuse_port(true)?;
        if domain == Domain::IPV6 {
            socket.set_only_v6(false)?;
        }
        socket.bind(&SockAddr::from(address))?;
        socket.listen(16)?;
        Ok(socket)
    };
    let (v4, dual, port) =
        on_one_port(|| open(Domain::IPV4, (V4, 0).into()), |port| open(Domain::IPV6, (V6, port).into()));
    for order in [[&v4, &dual], [&dual, &v4]] {
        let order: [&dyn AsFd; 2] = [order[0], order[1]];
        let mut net: Net<2> = inherited(&order);
        claims(&mut net, "tcp", &format!("[::]:{port}"), &dual);
        // The exact one has gone: the equivalent one is next.
        claims(&mut net, "tcp", &format!("[::]:{port}"), &v4);
        let mut net: Net<2> = inherited(&order);
        claims(&mut net, "tcp", &format!("0.0.0.0:{port}"), &v4);
        claims(&mut net, "tcp", &format!("0.0.0.0:{port}"), &dual);
        claims_none(&mut net, "tcp", &format!("0.0.0.0:{port}"));
    }
}

fn the_wildcards_are_equivalent_only_where_network_and_v6only_allow_it() {
    are_claimed(&[
        ("dual", "tcp", "0.0.0.0", true),
        ("dual", "tcp", "[::]", true),
        ("dual", "tcp", "", true),
        ("dual", "tcp6", "[::]", true),
        ("dual", "tcp4", "0.0.0.0", false),
        ("dual", "tcp4", "", false),
        ("only", "tcp", "0.0.0.0", false),
        ("only", "tcp", "[::]", true),
        ("only", "tcp", "", true),
        ("only", "tcp6", "[::]", true),
        ("only", "tcp6", "", true),
        ("only", "tcp4", "0.0.0.0", false),
    ]);
}

fn the_wildcard_of_ipv4_is_equivalent_only_where_the_network_allows_it() {
    are_claimed(&[
        ("v4", "tcp", "[::]", true),
        ("v4", "tcp", "", true),
        ("v4", "tcp", "0.0.0.0", true),
        ("v4", "tcp4", "", true),
        ("v4", "tcp6", "[::]", false),
        ("v4", "tcp6", "", false),
        ("loopback", "tcp", "0.0.0.0", false),
        ("loopback", "tcp", "[::]", false),
    ]);
}

/// What was inherited, what is asked for, whether it is claimed.
fn are_claimed(cases: &[(&str, &str, &str, bool)]) {
    for protocol in [Protocol::TCP, Protocol::UDP] {
        for &(what, network, host, claimed) in cases {
            let address: SocketAddr = match what {
                "v4" => (V4, 0).into(),
                "loopback" => (Ipv4Addr::LOCALHOST, 0).into(),
                _ => (V6, 0).into(),
            };
            let socket = bound(protocol, address, what == "only").unwrap();
            let mut net: Net<1> = inherited(&[&socket]);
            let network =
                if protocol == Protocol::UDP { network.replace("tcp", "udp") } else { network.into() };
            let address = format!("{host}:{}", local(&socket).port());
            assert_eq!(net.claim(&network, &address).is_ok(), claimed, "{what}: {network} {address}");
        }
    }
}

fn v6only_as_an_option_has_to_be_agreed_on() {
    for (inherited_only, address, wanted, claimed) in [
        (true, "[::]", true, true),
        (true, "[::]", false, false),
        (false, "[::]", true, false),
        (false, "[::]", false, true),
        (false, "", true, false),
        (true, "", true, true),
        (false, "0.0.0.0", false, true),
        (false, "0.0.0.0", true, false),
    ] {
        let socket = tcp((V6, 0), inherited_only).unwrap();
        let mut net: Net<1> = inherited(&[&socket]);
        let address = format!("{address}:{}", local(&socket).port());
        let endpoint = Endpoint::parse("tcp", &address).unwrap();
        let result = net.claim_at(&endpoint, &ListenOptions::new().v6only(wanted));
        assert_eq!(result.is_ok(), claimed, "{inherited_only} {address} {wanted}");
    }
}

fn v6only_as_an_option_is_never_agreed_on_by_ipv4() {
    let socket = tcp((V4, 0), false).unwrap();
    let mut net: Net<1> = inherited(&[&socket]);
    let address = format!(":{}", local(&socket).port());
    let endpoint = Endpoint::parse("tcp", &address).unwrap();
    assert_eq!(net.claim_at(&endpoint, &ListenOptions::new().v6only(true)), Err(Error::NotInherited));
    // Nor by a name, which decides whatever the address.
    let named = ListenOptions::new().name("unknown");
    let another = Endpoint::parse("tcp", ":1").unwrap();
    assert_eq!(net.claim_at(&another, &named.v6only(true)), Err(Error::NotInherited));
    net.claim_at(&endpoint, &ListenOptions::new().v6only(false)).unwrap();
    // It says nothing of who asks for IPv4, and keeps its port over a restart.
    for (network, address) in [("tcp4", ":0"), ("tcp", "0.0.0.0:0"), ("tcp4", ":1")] {
        let mut net: Net<1> = inherited(&[&socket]);
        let endpoint = Endpoint::parse(network, address).unwrap();
        net.claim_at(&endpoint, &named.v6only(true)).unwrap();
    }
}

/// What is bound to one IPv6 address has no use for the option, whatever it says.
fn v6only_is_asked_of_the_wildcard_alone() {
    for (inherited_only, wanted) in [(true, false), (false, true)] {
        let socket = tcp((Ipv6Addr::LOCALHOST, 0), inherited_only).unwrap();
        let mut net: Net<1> = inherited(&[&socket]);
        let id = net.claim_at(&Endpoint::tcp(local(&socket)), &ListenOptions::new().v6only(wanted)).unwrap();
        assert_eq!(cookie_of(&net, id), cookie(&socket));
    }
}

fn tcp_and_udp_on_one_port_never_swap() {
    let (stream, datagram, port) =
        on_one_port(|| tcp((Ipv4Addr::LOCALHOST, 0), false), |port| udp((Ipv4Addr::LOCALHOST, port), false));
    let address = format!("127.0.0.1:{port}");
    for order in [[&stream, &datagram], [&datagram, &stream]] {
        for tcp_first in [false, true] {
            let mut net: Net<2> = inherited(&[order[0], order[1]]);
            if tcp_first {
                claims(&mut net, "tcp", &address, &stream);
                claims_none(&mut net, "tcp", &address);
                claims(&mut net, "udp", &address, &datagram);
            } else {
                claims(&mut net, "udp", &address, &datagram);
                claims_none(&mut net, "udp", &address);
                claims(&mut net, "tcp", &address, &stream);
            }
        }
    }
}

/// A socket of another protocol that a service manager opens (`SocketProtocol=`); an older kernel, or one without it, has
/// none.
fn other(kind: Type, protocol: i32) -> Option<Socket> {
    let socket = Socket::new(Domain::IPV4, kind, Some(Protocol::from(protocol)));
    let is_missing = |error: &io::Error| {
        let errno = Errno::from_io_error(error);
        matches!(errno, Some(Errno::PROTONOSUPPORT | Errno::NOPROTOOPT | Errno::INVAL))
    };
    socket.inspect_err(|error| assert!(is_missing(error), "{error}")).ok()
}

fn mptcp_socket() -> Option<Socket> {
    other(Type::STREAM, libc::IPPROTO_MPTCP)
}

fn udp_lite_socket() -> Option<Socket> {
    const UDP_LITE: i32 = 136;
    other(Type::DGRAM, UDP_LITE)
}

fn mptcp() -> bool {
    mptcp_socket().is_some()
}

fn udp_lite() -> bool {
    udp_lite_socket().is_some()
}

fn mptcp_is_tcp() {
    let socket = mptcp_socket().unwrap();
    socket.bind(&SockAddr::from(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))).unwrap();
    socket.listen(1).unwrap();
    let mut net: Net<1> = inherited(&[&socket]);
    claims(&mut net, "tcp", &local(&socket).to_string(), &socket);
}

fn udp_lite_is_not_udp() {
    let socket = udp_lite_socket().unwrap();
    socket.bind(&SockAddr::from(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))).unwrap();
    let mut net: Net<1> = inherited(&[&socket]);
    claims_none(&mut net, "udp", &local(&socket).to_string());
}

fn one_abstract_name_in_three_types_never_swaps() {
    let name = abstract_name("types");
    let address = SocketAddrUnix::new_abstract_name(name.as_bytes()).unwrap();
    let sockets = [SocketType::STREAM, SocketType::DGRAM, SocketType::SEQPACKET].map(|kind| {
        let socket = rustix::net::socket_with(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None).unwrap();
        rustix::net::bind(&socket, &address).unwrap();
        if kind != SocketType::DGRAM {
            rustix::net::listen(&socket, 1).unwrap();
        }
        socket
    });
    let networks = ["unix", "unixgram", "unixpacket"];
    let orders = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
    for order in orders {
        for asked in orders {
            let [a, b, c] = order;
            let mut net: Net<3> = inherited(&[&sockets[a], &sockets[b], &sockets[c]]);
            for kind in asked {
                claims(&mut net, networks[kind], &format!("@{name}"), &sockets[kind]);
                claims_none(&mut net, networks[kind], &format!("@{name}"));
            }
        }
    }
}

fn a_path_and_an_abstract_name_of_the_same_bytes_never_swap() {
    let dir = Dir::new();
    let path = dir.path("socket");
    let on_path = UnixListener::bind(&path).unwrap();
    let mut net = fresh();
    let id = net.listen("unix", &format!("@{path}")).unwrap();
    let mut successor: Net<2> = inherited(&[&net.fd(id).unwrap(), &on_path]);
    claims(&mut successor, "unix", &path, &on_path);
    claims(&mut successor, "unix", &format!("@{path}"), net.fd(id).unwrap());
}

fn sockets_that_share_an_address_are_claimed_in_order_each_once() {
    for network in ["tcp", "udp"] {
        let options = ListenOptions::new().reuse_port(true);
        let mut net = fresh();
        let first = net.listen_with(network, "127.0.0.1:0", &options).unwrap();
        let address = local_of(&net, first).to_string();
        for _ in 0..3 {
            net.listen_with(network, &address, &options).unwrap();
        }
        let group: Vec<_> = net.active().map(|(_, socket)| cookie(socket)).collect();

        let fds: Vec<BorrowedFd<'_>> = net.active().map(|(id, _)| net.fd(id).unwrap()).collect();
        let fds: Vec<&dyn AsFd> = fds.iter().map(|fd| fd as &dyn AsFd).collect();
        let mut successor: Net<8> = inherited(&fds);
        for expected in &group {
            let id = successor.listen(network, &address).unwrap();
            assert_eq!(cookie_of(&successor, id), *expected);
        }
        claims_none(&mut successor, network, &address);
    }
}

fn a_connection_is_never_claimed_for_the_address_of_its_listener() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let _client = TcpStream::connect(local(&listener)).unwrap();
    let (connection, _) = listener.accept().unwrap();
    let address = local(&listener).to_string();
    assert_eq!(local(&connection).to_string(), address);
    let mut net: Net<2> = inherited(&[&connection, &listener]);
    claims(&mut net, "tcp", &address, &listener);
    claims_none(&mut net, "tcp", &address);
    let id = net.claim_position(0).unwrap();
    assert_eq!(cookie_of(&net, id), cookie(&connection));
}

fn a_bound_socket_that_does_not_listen_is_not_claimed_for_a_stream() {
    let dir = Dir::new();
    let tcp = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    tcp.bind(&SockAddr::from(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))).unwrap();
    let unix = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
    unix.bind(&SockAddr::unix(dir.path("unix")).unwrap()).unwrap();
    let packet = Socket::new(Domain::UNIX, Type::SEQPACKET, None).unwrap();
    packet.bind(&SockAddr::unix(dir.path("packet")).unwrap()).unwrap();
    let mut net: Net<3> = inherited_as(&[&tcp, &unix, &packet], Some("a:b:c"));
    let address = local(&tcp).to_string();
    for (network, address, name) in
        [("tcp", &address, "a"), ("unix", &dir.path("unix"), "b"), ("unixpacket", &dir.path("packet"), "c")]
    {
        claims_none(&mut net, network, address);
        let endpoint = Endpoint::parse(network, address).unwrap();
        assert_eq!(net.claim_at(&endpoint, &ListenOptions::new().name(name)), Err(Error::NotInherited));
    }
    assert_eq!(errno(net.listen("unix", &dir.path("unix"))), Errno::ADDRINUSE);
    assert_eq!(net.inherited().count(), 3);
}

fn types_of_unix_sockets_are_not_taken_for_one_another() {
    let dir = Dir::new();
    let stream = UnixListener::bind(dir.path("stream")).unwrap();
    let datagram = UnixDatagram::bind(dir.path("datagram")).unwrap();
    let (unnamed, _) = UnixStream::pair().unwrap();
    let mut net: Net<3> = inherited(&[&unnamed, &stream, &datagram]);
    claims_none(&mut net, "unixpacket", &dir.path("stream"));
    claims_none(&mut net, "unixgram", &dir.path("stream"));
    claims_none(&mut net, "unix", &dir.path("datagram"));
    claims_none(&mut net, "unixpacket", &dir.path("datagram"));
    claims(&mut net, "unix", &dir.path("stream"), &stream);
    claims(&mut net, "unixgram", &dir.path("datagram"), &datagram);
}

// Claiming by name and by position.

fn a_descriptor_is_claimed_by_name_or_by_position_whatever_it_is() {
    let [a, b, c] = [(); 3].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    let mut net: Net<3> = inherited_as(&[&a, &b, &c], Some("x:y:x"));
    for (expected, name) in [(&a, "x"), (&c, "x"), (&b, "y")] {
        let id = net.claim_name(name).unwrap();
        assert_eq!(cookie_of(&net, id), cookie(expected), "of one name, in order");
    }
    assert_eq!(net.claim_name("x"), Err(Error::NotInherited));
    assert_eq!(net.claim_name("z"), Err(Error::NotInherited));

    let mut net: Net<3> = inherited_as(&[&a, &b, &c], Some("x:y:x"));
    for (position, expected) in [(2, &c), (0, &a), (1, &b)] {
        let id = net.claim_position(position).unwrap();
        assert_eq!(cookie_of(&net, id), cookie(expected));
        assert_eq!(net.claim_position(position), Err(Error::NotInherited));
    }
    assert_eq!(net.claim_position(3), Err(Error::NotInherited));
    let names: Vec<_> = net.active().map(|(_, socket)| socket.name()).collect();
    assert_eq!(names, ["x", "x", "y"], "claimed sockets keep their names");
}

/// Names that fall together in the table, as all do in one of a single slot, are not the same for that.
fn a_name_is_claimed_as_a_whole() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut net: Net<1> = inherited_as(&[&listener], Some("web"));
    for name in ["", "we", "webs", "WEB", "admin"] {
        assert_eq!(net.claim_name(name), Err(Error::NotInherited), "{name:?}");
    }
    let id = net.claim_name("web").unwrap();
    assert_eq!(cookie_of(&net, id), cookie(&listener));
}

/// What does not listen when it is adopted may do so when it is claimed.
fn a_socket_that_listens_late_is_claimed() {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let address = local(&socket).to_string();
    let mut net: Net<1> = inherited(&[&socket]);
    claims_none(&mut net, "tcp", &address);
    let mut net: Net<1> = inherited(&[&socket]);
    socket.listen(1).unwrap();
    claims(&mut net, "tcp", &address, &socket);
}

fn claiming_opens_nothing() {
    let dir = Dir::new();
    let mut net = fresh();
    assert_eq!(net.claim("tcp", "127.0.0.1:0"), Err(Error::NotInherited));
    assert_eq!(net.claim("unix", &dir.path("socket")), Err(Error::NotInherited));
    let path = dir.path("socket");
    let endpoint = Endpoint::unix_path(Network::Unix, path.as_bytes()).unwrap();
    let never = |_: BorrowedFd<'_>| -> Result<(), Errno> { panic!("a socket was opened") };
    let options = ListenOptions::new().name("x").replace_stale(true).configure(&never);
    assert_eq!(net.claim_at(&endpoint, &options), Err(Error::NotInherited));
    assert_eq!(net.claim_name("x"), Err(Error::NotInherited));
    assert_eq!(net.claim_position(0), Err(Error::NotInherited));
    assert!(!Path::new(&path).exists());
    assert_eq!(net.active().count(), 0);
}

fn a_name_that_one_socket_alone_has_decides_whatever_the_address() {
    let [a, b] = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    let mut net: Net<4> = inherited_as(&[&a, &b], Some("a:b"));
    // The address is b's, the name is a's.
    let id = net.listen_with("tcp", &local(&b).to_string(), &ListenOptions::new().name("a")).unwrap();
    assert_eq!(cookie_of(&net, id), cookie(&a));
    // That name has been used up: the address is next, and the socket gets the name that was asked for.
    let id = net.listen_with("tcp", &local(&b).to_string(), &ListenOptions::new().name("a")).unwrap();
    assert_eq!(cookie_of(&net, id), cookie(&b));
    assert_eq!(net.active().map(|(_, socket)| socket.name()).collect::<Vec<_>>(), ["a", "a"]);
}

fn a_name_that_nothing_was_inherited_under_leaves_it_to_the_address() {
    let a = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut net: Net<4> = inherited_as(&[&a], Some("a"));
    let id = net.listen_with("tcp", &local(&a).to_string(), &ListenOptions::new().name("other")).unwrap();
    assert_eq!(cookie_of(&net, id), cookie(&a));
    let id = net.listen_with("tcp", "127.0.0.1:0", &ListenOptions::new().name("other")).unwrap();
    assert_ne!(cookie_of(&net, id), cookie(&a));
}

fn a_name_does_not_make_a_socket_fit_that_is_of_another_family_or_type() {
    let dir = Dir::new();
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let unix = UnixListener::bind(dir.path("socket")).unwrap();
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut net: Net<4> = inherited_as(&[&udp, &unix, &tcp], Some("udp:unix:tcp"));
    for name in ["udp", "unix"] {
        let id = net.listen_with("tcp", "127.0.0.1:0", &ListenOptions::new().name(name)).unwrap();
        assert_eq!(net.inherited().count(), 3, "a fresh one");
        net.close(id).unwrap();
    }
    let endpoint = Endpoint::tcp(local(&tcp));
    let id = net.claim_at(&endpoint, &ListenOptions::new().name("udp")).unwrap();
    assert_eq!(cookie_of(&net, id), cookie(&tcp));
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut net: Net<4> = inherited_as(&[&other], Some("a"));
    let endpoint = Endpoint::parse("tcp6", ":1").unwrap();
    assert_eq!(net.claim_at(&endpoint, &ListenOptions::new().name("a")), Err(Error::NotInherited));
}

fn of_several_sockets_of_one_name_the_address_decides() {
    let listeners = [(); 3].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    let [a, b, c] = &listeners;
    let mut net: Net<8> = inherited_as(&[a, b, c], Some("web:web:web"));
    let web = ListenOptions::new().name("web");
    let id = net.listen_with("tcp", &local(c).to_string(), &web).unwrap();
    assert_eq!(cookie_of(&net, id), cookie(c));
    // None of them has this address: a fresh one.
    let id = net.listen_with("tcp", "127.0.0.2:0", &web);
    // With the port left open, the first that is left is taken instead, on whatever address it is.
    assert_eq!(cookie_of(&net, id.unwrap()), cookie(a));
    let other = on_free_port();
    let id = net.listen_with("tcp", &other, &web).unwrap();
    assert_eq!(local_of(&net, id).to_string(), other);
    assert_eq!(net.inherited().count(), 1);
    let id = net.listen_with("tcp", ":0", &web).unwrap();
    assert_eq!(cookie_of(&net, id), cookie(b));
    let id = net.listen_with("tcp", "127.0.0.1:0", &web).unwrap();
    assert!(listeners.iter().all(|listener| cookie(listener) != cookie_of(&net, id)));
}

/// An address that was free a moment ago, on a loopback address that nothing else here uses.
fn on_free_port() -> String {
    TcpListener::bind("127.9.9.9:0").unwrap().local_addr().unwrap().to_string()
}

fn a_named_listener_on_port_0_keeps_its_port() {
    let options = ListenOptions::new().name("web");
    let admin = ListenOptions::new().name("admin");
    let mut net = fresh();
    let web = net.listen_with("tcp", "127.0.0.1:0", &options).unwrap();
    let other = net.listen_with("tcp", "127.0.0.1:0", &admin).unwrap();
    let ports = [web, other].map(|id| local_of(&net, id).port());

    // Three generations, each asking in the other order.
    let mut cookies = [web, other].map(|id| cookie_of(&net, id));
    for _ in 0..3 {
        let fds: Vec<BorrowedFd<'_>> = net.active().map(|(id, _)| net.fd(id).unwrap()).collect();
        let fds: Vec<&dyn AsFd> = fds.iter().map(|fd| fd as &dyn AsFd).collect();
        let names = net.active().map(|(_, socket)| socket.name()).collect::<Vec<_>>().join(":");
        let mut next: Net<8> = inherited_as(&fds, Some(&names));
        let other = next.listen_with("tcp", "127.0.0.1:0", &admin).unwrap();
        let web = next.listen_with("tcp", "127.0.0.1:0", &options).unwrap();
        assert_eq!([web, other].map(|id| local_of(&next, id).port()), ports);
        assert_eq!([web, other].map(|id| cookie_of(&next, id)), cookies);
        cookies = [web, other].map(|id| cookie_of(&next, id));
        net = next;
    }
}

fn an_unnamed_listener_on_port_0_is_always_fresh() {
    let inherited_one = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut net: Net<2> = inherited(&[&inherited_one]);
    let id = net.listen("tcp", "127.0.0.1:0").unwrap();
    assert_ne!(cookie_of(&net, id), cookie(&inherited_one));
    assert_eq!(net.inherited().count(), 1);
}

fn a_name_is_checked_before_anything_is_opened() {
    let dir = Dir::new();
    let path = dir.path("socket");
    let long = "x".repeat(256);
    for (name, fault) in [
        ("a:b", NameFault::Byte(b':')),
        ("a\n", NameFault::Byte(b'\n')),
        ("\u{e9}", NameFault::Byte(0xc3)),
        (&*long, NameFault::TooLong { bytes: 256 }),
    ] {
        let mut net = Net::<8>::new();
        assert_eq!(net.listen_with("unix", &path, &ListenOptions::new().name(name)), Err(Error::Name(fault)));
        assert!(!Path::new(&path).exists());
        let rejected = net.add(tempfile::tempfile().unwrap().into(), name).unwrap_err();
        assert_eq!(rejected.error, Error::Name(fault));
    }
    for name in ["", " ", &long[..255], "~!"] {
        Net::<8>::new().listen_with("tcp", "127.0.0.1:0", &ListenOptions::new().name(name)).unwrap();
    }
}

// Options.

/// How many connections a Unix listener lets wait.
fn queue_length(path: &str) -> usize {
    let address = SocketAddrUnix::new(path).unwrap();
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let mut waiting = Vec::new();
    while waiting.len() < 50 {
        let client = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).unwrap();
        match rustix::net::connect(&client, &address) {
            Ok(()) => waiting.push(client),
            Err(errno) => {
                assert_eq!(errno, Errno::AGAIN);
                break;
            }
        }
    }
    waiting.len()
}

fn the_backlog_is_as_asked_for_and_large_by_default() {
    let dir = Dir::new();
    let mut net = fresh();
    for backlog in [0, 1, 7] {
        let path = dir.path(&backlog.to_string());
        net.listen_with("unix", &path, &ListenOptions::new().backlog(backlog)).unwrap();
        // The kernel lets one more wait than it was told.
        assert_eq!(queue_length(&path), backlog as usize + 1);
    }
    net.listen("unix", &dir.path("default")).unwrap();
    assert_eq!(queue_length(&dir.path("default")), 50);
}

fn nonblocking_and_reuse_port_are_set_on_a_fresh_socket() {
    let mut net = fresh();
    let both = ListenOptions::new().nonblocking(true).reuse_port(true);
    for network in ["tcp", "udp"] {
        let id = net.listen_with(network, "127.0.0.1:0", &both).unwrap();
        assert!(rustix::fs::fcntl_getfl(net.fd(id).unwrap()).unwrap().contains(OFlags::NONBLOCK));
        assert_eq!(sockopt::socket_reuseport(net.fd(id).unwrap()), Ok(true));
        let again = net.listen_with(network, &local_of(&net, id).to_string(), &both).unwrap();
        assert_eq!(local_of(&net, id), local_of(&net, again));

        let id = net.listen(network, "127.0.0.1:0").unwrap();
        assert_eq!(sockopt::socket_reuseport(net.fd(id).unwrap()), Ok(false));
    }
}

fn v6only_is_set_on_a_fresh_socket() {
    for (network, wanted) in [("tcp", true), ("tcp", false), ("tcp6", false), ("udp", true), ("udp6", false)]
    {
        let mut net = fresh();
        let id = net.listen_with(network, ":0", &ListenOptions::new().v6only(wanted)).unwrap();
        assert_eq!(sockopt::ipv6_v6only(net.fd(id).unwrap()), Ok(wanted), "{network}");
    }
}

fn configure_is_called_for_a_fresh_socket_before_it_is_bound() {
    let dir = Dir::new();
    let calls = Cell::new(0);
    let mut net = fresh();
    let configure = |fd: BorrowedFd<'_>| {
        calls.set(calls.get() + 1);
        assert_eq!(sockopt::socket_acceptconn(fd), Ok(false));
        let address = rustix::net::getsockname(fd)?;
        match SocketAddr::try_from(address) {
            Ok(address) => assert_eq!(address.port(), 0),
            Err(_) => assert_eq!(rustix::net::getsockname(fd)?.addr_len(), 2, "it has no address"),
        }
        sockopt::set_socket_keepalive(fd, true)
    };
    let options = ListenOptions::new().configure(&configure);
    let abstract_one = format!("@{}", abstract_name("configure"));
    for (network, address) in [
        ("tcp", "127.0.0.1:0"),
        ("udp", "127.0.0.1:0"),
        ("unix", &dir.path("socket")),
        ("unixpacket", &abstract_one),
    ] {
        calls.set(0);
        let id = net.listen_with(network, address, &options).unwrap();
        assert_eq!(calls.get(), 1, "{network}");
        assert_eq!(sockopt::socket_keepalive(net.fd(id).unwrap()), Ok(true), "{network}");
    }
}

fn configure_is_not_called_for_an_inherited_socket() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut net: Net<2> = inherited_as(&[&listener], Some("a"));
    let never = |_: BorrowedFd<'_>| -> Result<(), Errno> { panic!("called") };
    let options = ListenOptions::new().name("a").configure(&never);
    net.listen_with("tcp", &local(&listener).to_string(), &options).unwrap();
}

fn the_error_of_configure_is_the_calls() {
    let dir = Dir::new();
    let mut net = fresh();
    let refuse = |_: BorrowedFd<'_>| Err(Errno::NOPROTOOPT);
    let options = ListenOptions::new().configure(&refuse);
    for (network, address) in [("tcp", "127.0.0.1:0"), ("unix", &*dir.path("socket")), ("unixgram", "@x")] {
        let error = net.listen_with(network, address, &options).unwrap_err();
        assert!(
            matches!(
                error,
                Error::Call { operation: Operation::Configure, fd: Some(_), errno: Errno::NOPROTOOPT }
            ),
            "{error:?}"
        );
    }
    assert_eq!(net.active().count(), 0);
    assert_eq!(std::fs::read_dir(dir.0.path()).unwrap().count(), 0);
}

fn mode_is_the_paths_mode() {
    // What the umask does to it is in a test of its own, since all threads share one.
    let dir = Dir::new();
    for mode in [0o600, 0o660, 0o666, 0o755, 0o000] {
        let path = dir.path(&format!("{mode:o}"));
        fresh().listen_with("unix", &path, &ListenOptions::new().mode(mode)).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777, u32::from(mode));
    }
}

// Stale paths.

fn stale(dir: &Dir, network: &str) -> String {
    let path = dir.path(&format!("stale-{network}"));
    let mut net = fresh();
    let id = net.listen(network, &path).unwrap();
    net.close(id).unwrap();
    assert!(std::fs::metadata(&path).unwrap().file_type().is_socket());
    path
}

fn a_stale_path_is_replaced_when_asked_for() {
    let dir = Dir::new();
    for network in ["unix", "unixpacket", "unixgram"] {
        let path = stale(&dir, network);
        let before = inode_of(&path);
        let mut net = fresh();
        assert_eq!(errno(net.listen(network, &path)), Errno::ADDRINUSE, "{network}");
        assert_eq!(inode_of(&path), before);
        let id = net.listen_with(network, &path, &ListenOptions::new().replace_stale(true)).unwrap();
        let probe = rustix::net::socket_with(
            AddressFamily::UNIX,
            sockopt::socket_type(net.fd(id).unwrap()).unwrap(),
            SocketFlags::CLOEXEC,
            None,
        )
        .unwrap();
        rustix::net::connect(&probe, &SocketAddrUnix::new(&*path).unwrap()).unwrap();
    }
    // A path that is stale for one type is for the others too.
    let other = Dir::new();
    let path = stale(&other, "unixgram");
    fresh().listen_with("unix", &path, &ListenOptions::new().replace_stale(true)).unwrap();
    // And one that is not there is simply made.
    fresh().listen_with("unix", &dir.path("new"), &ListenOptions::new().replace_stale(true)).unwrap();
}

/// Length and inode of what is at a path.
fn inode_of(path: &str) -> (u64, u64) {
    use std::os::unix::fs::MetadataExt;
    let metadata = std::fs::symlink_metadata(path).unwrap();
    (metadata.len(), metadata.ino())
}

fn a_live_path_is_in_use_and_stays() {
    let dir = Dir::new();
    let path = dir.path("live");
    let replace = ListenOptions::new().replace_stale(true);
    for live in ["unix", "unixpacket", "unixgram"] {
        let mut owner = fresh();
        let id = owner.listen(live, &path).unwrap();
        let before = inode_of(&path);
        for network in ["unix", "unixpacket", "unixgram"] {
            assert_eq!(
                errno(fresh().listen_with(network, &path, &replace)),
                Errno::ADDRINUSE,
                "{live} {network}"
            );
        }
        assert_eq!(inode_of(&path), before);
        owner.close_and_unlink(id).unwrap();
    }
}

fn a_live_path_whose_queue_is_full_is_in_use() {
    let dir = Dir::new();
    let path = dir.path("full");
    let mut owner = fresh();
    let id = owner.listen_with("unix", &path, &ListenOptions::new().backlog(0)).unwrap();
    let _waiting = UnixStream::connect(&path).unwrap();
    let replace = ListenOptions::new().replace_stale(true);
    assert_eq!(errno(fresh().listen_with("unix", &path, &replace)), Errno::ADDRINUSE);
    // The one that waited is still there to be accepted.
    UnixListener::from(owner.take(id).unwrap()).accept().unwrap();
}

fn what_is_no_socket_is_never_replaced() {
    let dir = Dir::new();
    let replace = ListenOptions::new().replace_stale(true);
    let file = dir.path("file");
    std::fs::write(&file, "precious").unwrap();
    let directory = dir.path("directory");
    std::fs::create_dir(&directory).unwrap();
    let link = dir.path("link");
    let target = stale(&dir, "unix");
    std::os::unix::fs::symlink(&target, &link).unwrap();
    for path in [&file, &directory, &link] {
        let before = inode_of(path);
        assert_eq!(errno(fresh().listen_with("unix", path, &replace)), Errno::ADDRINUSE, "{path}");
        assert_eq!(inode_of(path), before);
    }
    assert_eq!(std::fs::read_to_string(file).unwrap(), "precious");
    assert!(Path::new(&target).exists());
}

// Long paths.

fn a_path_may_have_107_bytes() {
    let dir = Dir::new();
    for network in ["unix", "unixpacket", "unixgram"] {
        let path = dir.long(107, network);
        let mut net = fresh();
        let id = net.listen(network, &path).unwrap();
        assert!(Path::new(&path).exists());
        let mut successor: Net<1> = inherited(&[&net.fd(id).unwrap()]);
        claims(&mut successor, network, &path, net.fd(id).unwrap());
        let too_long = dir.long(108, network);
        assert_eq!(
            net.listen(network, &too_long),
            Err(Error::Address(AddressFault::PathTooLong { bytes: 108 }))
        );
    }
    let name = format!("@{}{}", abstract_name("long"), "x".repeat(107));
    let name = &name[..108];
    let mut net = fresh();
    let id = net.listen("unix", name).unwrap();
    let mut successor: Net<1> = inherited(&[&net.fd(id).unwrap()]);
    claims(&mut successor, "unix", name, net.fd(id).unwrap());
    let fault = AddressFault::PathTooLong { bytes: 108 };
    assert_eq!(net.listen("unix", &format!("{name}x")), Err(Error::Address(fault)));
}

/// The address of a path that leaves no room for a NUL, which no safe function makes.
fn without_nul(path: &[u8; 108]) -> SockAddr {
    let mut storage = socket2::SockAddrStorage::zeroed();
    // SAFETY: bytes are valid whatever they are, and there are more than these in any socket address storage.
    let bytes = unsafe { storage.view_as::<[u8; 110]>() };
    bytes[..2].copy_from_slice(&AddressFamily::UNIX.as_raw().to_ne_bytes());
    bytes[2..].copy_from_slice(path);
    // SAFETY: initialised as `sockaddr_un` wants it, all of its 110 bytes.
    unsafe { SockAddr::new(storage, 110) }
}

fn a_path_that_fills_the_address_without_a_nul_is_kept_and_claimed_by_position() {
    // Another program may bind 108 bytes; the kernel then tells a length beyond `sockaddr_un`.
    let dir = Dir::new();
    let path = dir.long(108, "");
    let listener = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
    listener.bind(&without_nul(path.as_bytes().try_into().unwrap())).unwrap();
    listener.listen(1).unwrap();
    let mut net: Net<1> = inherited(&[&listener]);
    let (_, socket) = net.inherited().next().unwrap();
    assert_eq!(socket.describe().unwrap().unwrap().family, AddressFamily::UNIX);
    claims_none(&mut net, "unix", &path[..107]);
    let id = net.claim_position(0).unwrap();
    assert_eq!(cookie_of(&net, id), cookie(&listener));
    assert_eq!(net.close_and_unlink(id), Err(Error::NoPath));
}

fn a_socket_that_was_never_bound_is_not_claimed_for_an_address() {
    let dir = Dir::new();
    let (one, _other) = UnixDatagram::pair().unwrap();
    let mut net: Net<2> = inherited_as(&[&one], Some("log"));
    let id = net.listen_with("unixgram", &dir.path("log"), &ListenOptions::new().name("log")).unwrap();
    assert_ne!(cookie_of(&net, id), cookie(&one));
    let id = net.claim_name("log").unwrap();
    assert_eq!(cookie_of(&net, id), cookie(&one));
}

fn long_paths_that_begin_alike_never_swap() {
    let dir = Dir::new();
    for bytes in [60, 107] {
        let paths = ["a", "b", "ab"].map(|end| dir.long(bytes, end));
        assert!(paths.iter().all(|path| path[..28] == paths[0][..28]));
        let listeners = paths.each_ref().map(|path| UnixListener::bind(path).unwrap());
        for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
            let [a, b, c] = order.map(|position| &listeners[position]);
            let mut net: Net<3> = inherited(&[a, b, c]);
            for position in [1, 0, 2] {
                claims(&mut net, "unix", &paths[position], &listeners[position]);
            }
        }
        let mut net: Net<3> = inherited(&[&listeners[0]]);
        claims_none(&mut net, "unix", &paths[1]);
    }
}

fn a_path_is_compared_as_it_was_bound() {
    let dir = Dir::new();
    let listener = UnixListener::bind(dir.path("socket")).unwrap();
    let mut net: Net<1> = inherited(&[&listener]);
    claims_none(&mut net, "unix", &dir.path("socke"));
    claims_none(&mut net, "unix", &dir.path("socket2"));
    claims_none(&mut net, "unix", &dir.path("./socket"));
    claims(&mut net, "unix", &dir.path("socket"), &listener);
}

// The table.

fn a_full_table_is_an_error_before_a_socket_is_opened() {
    let dir = Dir::new();
    let mut net = Net::<2>::new();
    net.listen("tcp", "127.0.0.1:0").unwrap();
    net.listen("udp", "127.0.0.1:0").unwrap();
    let never = |_: BorrowedFd<'_>| -> Result<(), Errno> { panic!("a socket was opened") };
    let path = dir.path("socket");
    let full = Error::Capacity { table: Table::Active, needed: 3, capacity: 2 };
    for (network, address) in [("tcp", "127.0.0.1:0"), ("unix", &*path), ("unixgram", "@x")] {
        assert_eq!(net.listen_with(network, address, &ListenOptions::new().configure(&never)), Err(full));
    }
    assert_eq!(full.to_string(), "3 active sockets do not fit in 2");
    assert!(!Path::new(&path).exists());

    // A stale path stays where it is.
    let path = stale(&dir, "unix");
    let before = inode_of(&path);
    assert_eq!(net.listen_with("unix", &path, &ListenOptions::new().replace_stale(true)), Err(full));
    assert_eq!(inode_of(&path), before);
}

fn a_full_table_leaves_what_would_have_been_claimed_inherited() {
    let [a, b] = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    let mut net: Net<2> = inherited_as(&[&a, &b], Some("a:b"));
    let filler = net.listen("tcp", "127.0.0.1:0").unwrap();
    net.listen("tcp", &local(&a).to_string()).unwrap();
    let full = Error::Capacity { table: Table::Active, needed: 3, capacity: 2 };
    assert_eq!(net.listen("tcp", &local(&b).to_string()), Err(full));
    assert_eq!(net.claim_name("b"), Err(full));
    assert_eq!(net.claim_position(1), Err(full));
    assert_eq!(net.inherited().count(), 1);
    net.close(filler).unwrap();
    claims(&mut net, "tcp", &local(&b).to_string(), &b);
}

/// What is closed or taken gives back the room that its name took.
fn names_take_room_for_as_long_as_their_sockets_are_active() {
    let long = "n".repeat(200);
    let mut net = Net::<1>::new();
    for round in 0..10 {
        let id = net.listen_with("tcp", "127.0.0.1:0", &ListenOptions::new().name(&long)).unwrap();
        if round % 2 == 0 {
            net.close(id).unwrap();
        } else {
            net.take(id).unwrap();
        }
    }
}

fn names_that_do_not_fit_together_are_an_error_before_a_socket_is_opened() {
    let dir = Dir::new();
    let name = "x".repeat(255);
    let mut net = Net::<64>::new();
    let path = dir.path("socket");
    let mut added = 0;
    let error = loop {
        let file = tempfile::tempfile().unwrap();
        match net.add(file.into(), &name) {
            Ok(_) => added += 1,
            Err(rejected) => break rejected.error,
        }
        assert!(added < 64, "no limit but the capacity");
    };
    let Error::Capacity { table: Table::Names, needed, capacity } = error else { panic!("{error:?}") };
    assert!(needed > capacity);
    assert_eq!(net.listen_with("unix", &path, &ListenOptions::new().name(&name)), Err(error));
    assert!(!Path::new(&path).exists());
    assert_eq!(net.active().count(), added);
}

fn anything_can_travel_under_a_name() {
    let mut state =
        std::fs::File::from(rustix::fs::memfd_create("state", rustix::fs::MemfdFlags::CLOEXEC).unwrap());
    state.write_all(b"42").unwrap();
    let (ours, theirs) = UnixStream::pair().unwrap();
    let (state_inode, pair_cookie) = (inode(&state), cookie(&theirs));
    let mut net = fresh();
    let state_id = net.add(state.into(), "state").unwrap();
    let pair_id = net.add(theirs.into(), "pair").unwrap();
    assert_eq!(net.active().map(|(_, socket)| socket.name()).collect::<Vec<_>>(), ["state", "pair"]);
    assert_eq!(net.active().next().unwrap().1.describe(), Ok(None));

    let fds: [&dyn AsFd; 2] = [&net.fd(state_id).unwrap(), &net.fd(pair_id).unwrap()];
    let mut successor: Net<8> = inherited_as(&fds, Some("state:pair"));
    let pair = successor.claim_name("pair").unwrap();
    let state = successor.claim_name("state").unwrap();
    assert_eq!(inode(successor.fd(state).unwrap()), state_inode);
    assert_eq!(cookie_of(&successor, pair), pair_cookie);
    let mut theirs = UnixStream::from(successor.take(pair).unwrap());
    theirs.write_all(b"x").unwrap();
    (&ours).read_exact(&mut [0]).unwrap();
}

fn a_rejected_descriptor_comes_back() {
    let mut net = Net::<1>::new();
    net.listen("tcp", "127.0.0.1:0").unwrap();
    for (name, error) in [
        ("file", Error::Capacity { table: Table::Active, needed: 2, capacity: 1 }),
        ("a:b", Error::Name(NameFault::Byte(b':'))),
    ] {
        let file = tempfile::tempfile().unwrap();
        let (number, node) = (file.as_raw_fd(), inode(&file));
        let rejected = net.add(file.into(), name).unwrap_err();
        assert_eq!(rejected.error, error);
        assert_eq!(rejected.to_string(), error.to_string());
        assert_eq!((rejected.fd.as_raw_fd(), inode(&rejected.fd)), (number, node));
    }
}

fn close_closes_here_and_hands_over_no_longer() {
    let mut net = fresh();
    let keep = net.listen("tcp", "127.0.0.1:0").unwrap();
    let id = net.listen("tcp", "127.0.0.1:0").unwrap();
    let address = local_of(&net, id);
    net.close(id).unwrap();
    assert_eq!(TcpStream::connect(address).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    assert_eq!(net.active().map(|(id, _)| id).collect::<Vec<_>>(), [keep]);
}

fn close_leaves_other_copies_and_the_path_alone() {
    let dir = Dir::new();
    let path = dir.path("socket");
    let mut net = fresh();
    let id = net.listen("unix", &path).unwrap();
    let copy = UnixListener::from(net.try_clone(id).unwrap());
    net.close(id).unwrap();
    let _client = UnixStream::connect(&path).unwrap();
    copy.accept().unwrap();
}

fn take_gives_the_socket_away() {
    let mut net = fresh();
    let id = net.listen("tcp", "127.0.0.1:0").unwrap();
    let (cookie_before, number) = (cookie_of(&net, id), net.fd(id).unwrap().as_raw_fd());
    let fd = net.take(id).unwrap();
    assert_eq!((cookie(&fd), fd.as_raw_fd()), (cookie_before, number));
    assert_eq!(net.active().count(), 0);
    let listener = TcpListener::from(fd);
    let _client = TcpStream::connect(local(&listener)).unwrap();
    listener.accept().unwrap();
}

fn try_clone_duplicates_for_another_owner() {
    let mut net = fresh();
    let id = net.listen("tcp", "127.0.0.1:0").unwrap();
    let clone = net.try_clone(id).unwrap();
    assert_eq!(cookie(&clone), cookie_of(&net, id));
    assert_ne!(clone.as_raw_fd(), net.fd(id).unwrap().as_raw_fd());
    assert_eq!(rustix::io::fcntl_getfd(&clone), Ok(FdFlags::CLOEXEC));
    let listener = TcpListener::from(clone);
    let _client = TcpStream::connect(local_of(&net, id)).unwrap();
    listener.accept().unwrap();
    drop(listener);
    let _client = TcpStream::connect(local_of(&net, id)).unwrap();
}

fn a_stale_id_is_an_error_and_never_another_socket() {
    let mut net = fresh();
    let closed = net.listen("tcp", "127.0.0.1:0").unwrap();
    let taken = net.listen("tcp", "127.0.0.1:0").unwrap();
    let kept = net.listen("tcp", "127.0.0.1:0").unwrap();
    let address = local_of(&net, kept);
    net.close(closed).unwrap();
    drop(net.take(taken).unwrap());
    let later = net.listen("tcp", "127.0.0.1:0").unwrap();
    assert!(![closed, taken, kept].contains(&later));
    for id in [closed, taken] {
        assert_eq!(net.fd(id).map(drop), Err(Error::StaleId));
        assert_eq!(net.try_clone(id).map(drop), Err(Error::StaleId));
        assert_eq!(net.take(id).map(drop), Err(Error::StaleId));
        assert_eq!(net.close(id), Err(Error::StaleId));
        assert_eq!(net.close_and_unlink(id), Err(Error::StaleId));
    }
    assert_eq!(local_of(&net, kept), address);
    assert_eq!(net.active().map(|(id, _)| id).collect::<Vec<_>>(), [kept, later]);
}

fn close_and_unlink_removes_the_path() {
    let dir = Dir::new();
    for path in [dir.path("socket"), dir.long(107, "")] {
        let mut net = fresh();
        let id = net.listen("unix", &path).unwrap();
        net.close_and_unlink(id).unwrap();
        assert!(!Path::new(&path).exists());
        assert_eq!(net.fd(id).map(drop), Err(Error::StaleId));
        net.listen("unix", &path).unwrap();
    }
}

fn close_and_unlink_leaves_what_is_not_its_path() {
    let dir = Dir::new();
    let mut net = fresh();
    let tcp = net.listen("tcp", "127.0.0.1:0").unwrap();
    let name = format!("@{}", abstract_name("unlink"));
    let abstract_one = net.listen("unix", &name).unwrap();
    let memfd = net.add(tempfile::tempfile().unwrap().into(), "file").unwrap();
    for id in [tcp, abstract_one, memfd] {
        assert_eq!(net.close_and_unlink(id), Err(Error::NoPath));
        net.fd(id).unwrap();
    }

    let path = dir.path("socket");
    let id = net.listen("unix", &path).unwrap();
    std::fs::remove_file(&path).unwrap();
    assert_eq!(errno(net.close_and_unlink(id)), Errno::NOENT);
    std::fs::write(&path, "somebody else's").unwrap();
    assert_eq!(net.close_and_unlink(id), Err(Error::NoPath));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "somebody else's");
    // A link is not the socket that was bound, even if it leads to one.
    let other = UnixListener::bind(dir.path("other")).unwrap();
    std::fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink(dir.path("other"), &path).unwrap();
    assert_eq!(net.close_and_unlink(id), Err(Error::NoPath));
    assert!(std::fs::symlink_metadata(&path).unwrap().is_symlink());
    drop(other);
    net.fd(id).unwrap();
}

/// Started with a listener on this path, by a predecessor that waits for the report or not; and the other end of the
/// readiness socket.
fn started_with(path: &str, reports: bool) -> (Net<2>, Launch, UnixStream) {
    let listener = UnixListener::bind(path).unwrap();
    let (ours, theirs) = UnixStream::pair().unwrap();
    let first = reserve(2);
    place_at(listener.as_fd(), first);
    place_at(theirs.as_fd(), first + 1);
    drop(theirs);
    let pid = format!("LISTEN_PID={}", std::process::id());
    let ready = format!("LISTEN_READY_FD={}", first + 1);
    let vars = ["LISTEN_FDS=1", &pid, &ready];
    let mut launch = launch(if reports { &vars } else { &vars[..1] });
    let mut net = Net::new();
    inherit_from(&mut net, &mut launch, first, InheritOptions::new()).unwrap();
    if !reports {
        reclaim(first + 1, 1);
    }
    (net, launch, ours)
}

fn a_path_is_not_removed_by_a_process_that_has_not_reported_yet() {
    let dir = Dir::new();
    let path = dir.path("socket");
    let (mut net, _, ours) = started_with(&path, true);
    let id = net.claim("unix", &path).unwrap();
    assert_eq!(net.close_and_unlink(id), Err(Error::NoPath));
    assert!(Path::new(&path).exists());
    net.ready().unwrap();
    let mut report = [0; 7];
    (&ours).read_exact(&mut report).unwrap();
    net.close_and_unlink(id).unwrap();
    assert!(!Path::new(&path).exists());
}

/// Until it is ready, the sockets that it was started with are its predecessor's, their paths too, and nobody knows of
/// a successor; also once it has given up, and where nothing waits for its report.
fn a_process_that_is_not_ready_takes_nothing_from_its_predecessor() {
    for reports in [true, false] {
        let dir = Dir::new();
        let path = dir.path("socket");
        let (mut net, mut launch, ours) = started_with(&path, reports);
        let claimed = net.claim("unix", &path).unwrap();
        for refused in [false, true] {
            if refused {
                net.refuse(Refusal::Code(7)).unwrap();
            }
            assert_eq!(net.close_and_unlink(claimed), Err(Error::NoPath));
            assert!(Path::new(&path).exists());
            let fresh = net.listen("unix", &dir.path("fresh")).unwrap();
            net.close_and_unlink(fresh).unwrap();
            assert!(!Path::new(&dir.path("fresh")).exists());
            if reports {
                let spawned = net.spawn(&mut launch, &Restart::new());
                assert_eq!(spawned.map(drop), Err(Error::NotReported));
            }
            if reports && refused {
                let Err(error) = net.exec(&mut launch, &Restart::new());
                assert_eq!(error, Error::NotReported);
            }
        }
        if reports {
            let mut report = [0; 16];
            assert_eq!((&ours).read(&mut report).unwrap(), 6);
            assert_eq!(&report[..6], b"CODE=7");
            assert_eq!(net.ready(), Err(Error::GivenUp));
        } else {
            net.ready().unwrap();
            net.close_and_unlink(claimed).unwrap();
            assert!(!Path::new(&path).exists());
        }
    }
}

fn dropping_the_net_removes_no_path() {
    let dir = Dir::new();
    fresh().listen("unix", &dir.path("socket")).unwrap();
    assert!(Path::new(&dir.path("socket")).exists());
}

fn both_tables_are_listed_with_name_family_type_and_address() {
    let dir = Dir::new();
    let path = dir.path("socket");
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let unix = UnixListener::bind(&path).unwrap();
    let mut net: Net<8> = inherited_as(&[&tcp, &udp, &unix], Some("web:dns:admin"));

    let listed: Vec<_> = net
        .inherited()
        .map(|(position, socket)| (position, socket.name(), socket.describe().unwrap().unwrap()))
        .collect();
    let kinds: Vec<_> = listed.iter().map(|(p, name, d)| (*p, *name, d.family, d.kind)).collect();
    assert_eq!(
        kinds,
        [
            (0, "web", AddressFamily::INET, SocketType::STREAM),
            (1, "dns", AddressFamily::INET, SocketType::DGRAM),
            (2, "admin", AddressFamily::UNIX, SocketType::STREAM),
        ]
    );
    assert_eq!(SocketAddr::try_from(listed[0].2.address.clone()), Ok(local(&tcp)));
    assert_eq!(SocketAddr::try_from(listed[1].2.address.clone()), Ok(local(&udp)));
    let unix_address = SocketAddrUnix::try_from(listed[2].2.address.clone()).unwrap();
    assert_eq!(unix_address.path_bytes(), Some(path.as_bytes()));

    let admin = net.claim_name("admin").unwrap();
    let web = net.listen_with("tcp", &local(&tcp).to_string(), &ListenOptions::new().name("www")).unwrap();
    assert_eq!(
        net.inherited().map(|(position, socket)| (position, socket.name())).collect::<Vec<_>>(),
        [(1, "dns")]
    );
    assert_eq!(net.active().len(), 2);
    let active: Vec<_> = net.active().map(|(id, socket)| (id, socket.name())).collect();
    assert_eq!(active, [(admin, "admin"), (web, "www")]);
    let (_, socket) = net.active().nth(1).unwrap();
    assert_eq!(SocketAddr::try_from(socket.describe().unwrap().unwrap().address), Ok(local(&tcp)));
}

fn a_failed_listen_removes_the_path_that_it_made() {
    let dir = Dir::new();
    let live = UnixListener::bind(dir.path("live")).unwrap();
    let address = SocketAddrUnix::new(PathBuf::from(dir.path("live"))).unwrap();
    // A socket that is connected can be bound, but not listen.
    let connect = |fd: BorrowedFd<'_>| rustix::net::connect(fd, &address);
    let path = dir.path("socket");
    let error = fresh().listen_with("unix", &path, &ListenOptions::new().configure(&connect)).unwrap_err();
    assert!(
        matches!(error, Error::Call { operation: Operation::Listen, errno: Errno::INVAL, .. }),
        "{error:?}"
    );
    assert!(!Path::new(&path).exists());
    drop(live);
}

fn a_path_in_a_directory_that_is_not_there_is_binds_error() {
    let dir = Dir::new();
    let error = fresh().listen("unix", &dir.path("missing/socket")).unwrap_err();
    assert!(
        matches!(error, Error::Call { operation: Operation::Bind, fd: Some(_), errno: Errno::NOENT }),
        "{error:?}"
    );
}

fn an_address_of_another_machine_is_binds_error() {
    // TEST-NET-1: nobody's own.
    assert_eq!(errno(fresh().listen("tcp", "192.0.2.254:0")), Errno::ADDRNOTAVAIL);
}
