//! The tables, and which inherited socket is claimed: real sockets of every family and type, on each other's
//! ports and names, against the rule as the documentation has it. No socket is claimed for an address, a
//! family or a type that is not its own.
//!
//! A restart that fails between clone and execve leaves all of it as it was.
//!
//! The sockets are made once; each run inherits duplicates of some of them on numbers from [`FIRST`] on.
#![no_main]

use arbitrary::Arbitrary;
use gracenet::address::{Address, Family, Kind};
use gracenet::error::Operation;
use gracenet::{
    Endpoint, Error, Executable, InheritOptions, Launch, ListenOptions, Net, Readiness, Restart, SocketId,
};
use libfuzzer_sys::fuzz_target;
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use rustix::io::{DupFlags, Errno};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketType, bind, getsockname, listen, socket, sockopt};
use std::ffi::CString;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::LazyLock;
use std::{process, ptr};

/// How many the tables hold.
const N: usize = 8;

/// The number of the first inherited descriptor: above those that libFuzzer and this target use.
const FIRST: RawFd = 100;

const NAMES: [&str; 5] = ["unknown", "a", "b", "", "a longer name"];
const NETWORKS: [&str; 9] = ["tcp", "tcp4", "tcp6", "udp", "udp4", "udp6", "unix", "unixpacket", "unixgram"];

#[derive(Arbitrary, Debug)]
struct Input {
    /// Which sockets are inherited, each with its name.
    inherited: Vec<(u8, u8)>,
    /// Whether the names are given; without, each is the first.
    named: bool,
    /// 1 and 2: a restart at the end. Rarely, because it takes as long as very many steps.
    spawn: u8,
    steps: Vec<Step>,
}

#[derive(Arbitrary, Debug)]
enum Step {
    Claim {
        network: u8,
        address: u8,
        name: Option<u8>,
        v6only: Option<bool>,
    },
    ClaimName(u8),
    ClaimPosition(u8),
    Add(u8, u8),
    /// One of the ids that were given out.
    Close(u8),
    Take(u8),
}

/// A socket as it was made.
struct Made {
    fd: OwnedFd,
    /// `None`: no socket at all.
    socket: Option<Truth>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Truth {
    kind: Kind,
    bound: Bound,
    listens: bool,
    v6only: bool,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Bound {
    Inet(SocketAddr),
    Path(Vec<u8>),
    Abstract(Vec<u8>),
}

impl Bound {
    fn family(&self) -> Family {
        match self {
            Self::Inet(SocketAddr::V4(_)) => Family::V4,
            Self::Inet(SocketAddr::V6(_)) => Family::V6,
            Self::Path(_) | Self::Abstract(_) => Family::Unix,
        }
    }

    /// As it is asked for.
    fn text(&self) -> String {
        match self {
            Self::Inet(address) => address.to_string(),
            Self::Path(path) => str::from_utf8(path).expect("ASCII").to_owned(),
            Self::Abstract(name) => format!("@{}", str::from_utf8(name).expect("ASCII")),
        }
    }
}

struct World {
    made: Vec<Made>,
    /// The sockets' own addresses, and others that may mean the same.
    addresses: Vec<String>,
}

static WORLD: LazyLock<World> = LazyLock::new(|| {
    loop {
        match World::make() {
            Ok(world) => break world,
            // A port that was free for one socket was not for another.
            Err(Errno::ADDRINUSE) => {}
            Err(errno) => panic!("{errno}"),
        }
    }
});

impl World {
    fn make() -> Result<Self, Errno> {
        let v4 = IpAddr::from(Ipv4Addr::LOCALHOST);
        let v6 = IpAddr::from(Ipv6Addr::LOCALHOST);
        let any4 = IpAddr::from(Ipv4Addr::UNSPECIFIED);
        let any6 = IpAddr::from(Ipv6Addr::UNSPECIFIED);
        let mut made = Vec::new();
        let mut inet = |ip: IpAddr, port: u16, kind: Kind, v6only: bool, listens: bool| {
            let socket = make_inet(SocketAddr::new(ip, port), kind, v6only, listens)?;
            let address = SocketAddr::try_from(getsockname(&socket)?).expect("an address of the internet");
            let truth = Truth { kind, bound: Bound::Inet(address), listens, v6only };
            made.push(Made { fd: socket, socket: Some(truth) });
            Ok(address.port())
        };
        let own = inet(v4, 0, Kind::Stream, false, true)?;
        inet(v4, own, Kind::Datagram, false, false)?;
        inet(v6, own, Kind::Stream, false, true)?;
        inet(v6, own, Kind::Datagram, false, false)?;
        // A second socket of the same group.
        inet(v4, own, Kind::Stream, false, true)?;
        let apart = inet(any4, 0, Kind::Stream, false, true)?;
        inet(any6, apart, Kind::Stream, true, true)?;
        inet(any4, apart, Kind::Datagram, false, false)?;
        inet(any6, apart, Kind::Datagram, true, false)?;
        let dual = inet(any6, 0, Kind::Stream, false, true)?;
        inet(any6, dual, Kind::Datagram, false, false)?;
        let four = inet(any4, 0, Kind::Stream, false, true)?;
        let mute = inet(v4, 0, Kind::Stream, false, false)?;

        let short = format!("gn{}", process::id());
        let long = format!("gracenet-fuzz-{:040}", process::id());
        for (name, kind, listens) in [
            (short.clone(), Kind::Stream, true),
            (short.clone(), Kind::Datagram, false),
            (short.clone(), Kind::Packet, true),
            // Longer than what is compared at a glance, the same up to the last byte.
            (format!("{long}1"), Kind::Stream, true),
            (format!("{long}2"), Kind::Stream, true),
            (format!("{short}mute"), Kind::Stream, false),
        ] {
            made.push(make_unix(Bound::Abstract(name.into()), kind, listens)?);
        }
        // The same bytes as a path and as an abstract name: in the working directory, and a longer one.
        let path = std::env::temp_dir().join(&long).into_os_string().into_encoded_bytes();
        made.push(make_unix(Bound::Path(short.into()), Kind::Stream, true)?);
        made.push(make_unix(Bound::Path(path.clone()), Kind::Stream, true)?);
        made.push(make_unix(Bound::Abstract(path), Kind::Stream, true)?);
        let (read, _write) = rustix::pipe::pipe()?;
        made.push(Made { fd: read, socket: None });

        let mut addresses: Vec<String> =
            made.iter().filter_map(|made| Some(made.socket.as_ref()?.bound.text())).collect();
        for port in [own, apart, dual, four, mute] {
            addresses.extend(["", "localhost", "0.0.0.0", "[::]"].map(|host| format!("{host}:{port}")));
        }
        addresses.extend(["127.0.0.1:0", ":0", "@nobody", ""].map(str::to_owned));
        Ok(Self { made, addresses })
    }
}

fn make_inet(address: SocketAddr, kind: Kind, v6only: bool, listens: bool) -> Result<OwnedFd, Errno> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let fd = socket(family, socket_type(kind), None)?;
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&fd, v6only)?;
    }
    if address.ip().is_loopback() {
        sockopt::set_socket_reuseport(&fd, true)?;
    }
    bind(&fd, &address)?;
    if listens {
        listen(&fd, 1)?;
    }
    Ok(fd)
}

fn make_unix(bound: Bound, kind: Kind, listens: bool) -> Result<Made, Errno> {
    let fd = socket(AddressFamily::UNIX, socket_type(kind), None)?;
    match &bound {
        Bound::Abstract(name) => bind(&fd, &SocketAddrUnix::new_abstract_name(name)?)?,
        Bound::Path(path) => {
            bind(&fd, &SocketAddrUnix::new(path.as_slice())?)?;
            // The socket keeps its address.
            rustix::fs::unlink(path.as_slice())?;
        }
        Bound::Inet(_) => unreachable!("a Unix address"),
    }
    if listens {
        listen(&fd, 1)?;
    }
    Ok(Made { fd, socket: Some(Truth { kind, bound, listens, v6only: false }) })
}

fn socket_type(kind: Kind) -> SocketType {
    match kind {
        Kind::Stream => SocketType::STREAM,
        Kind::Datagram => SocketType::DGRAM,
        Kind::Packet => SocketType::SEQPACKET,
    }
}

/// What the tables should hold.
struct Model {
    inherited: Vec<Slot>,
    active: Vec<(SocketId, &'static str)>,
    /// Every id that was given out.
    ids: Vec<SocketId>,
}

struct Slot {
    name: &'static str,
    socket: Option<&'static Truth>,
    claimed: bool,
}

impl Model {
    /// The position that `endpoint` claims: by name, by the address itself, by the other family's wildcard.
    fn find(&self, endpoint: &Endpoint<'_>, name: Option<&str>, v6only: Option<bool>) -> Option<usize> {
        let wanted = wanted(endpoint);
        let by_address = |name: Option<&str>| {
            let first = |fits: &dyn Fn(&Truth) -> bool| {
                self.inherited.iter().position(|slot| {
                    name.is_none_or(|name| slot.name == name) && slot.is_of(endpoint).is_some_and(fits)
                })
            };
            let wanted = wanted.as_ref()?;
            first(&|socket| socket.bound == *wanted && agrees(socket, v6only))
                .or_else(|| first(&|socket| is_equivalent(endpoint, wanted, socket, v6only)))
        };
        let by_name = |name| {
            let mut namesakes = (0..).zip(&self.inherited).filter(|(_, slot)| slot.name == name);
            let alone = namesakes.clone().count() == 1;
            // Nothing of IPv6 comes to the wildcard of IPv4, which is for who asks for IPv4 all the same.
            let may_be_v6 = endpoint.network().allows(Family::V6)
                && !matches!(endpoint.address(), Address::Inet(address) if address.is_ipv4());
            let is_too_narrow = |socket: &Truth| {
                let is_v4 =
                    matches!(socket.bound, Bound::Inet(SocketAddr::V4(at)) if at.ip().is_unspecified());
                v6only == Some(true) && is_v4 && may_be_v6
            };
            namesakes.find(|(_, slot)| {
                (alone || wanted.is_none())
                    && slot
                        .is_of(endpoint)
                        .is_some_and(|socket| agrees(socket, v6only) && !is_too_narrow(socket))
            })
        };
        let named = name.and_then(|name| by_address(Some(name)).or_else(|| Some(by_name(name)?.0)));
        named.or_else(|| by_address(None))
    }

    fn claim(&mut self, position: usize, name: Option<&'static str>) -> &'static str {
        let slot = &mut self.inherited[position];
        slot.claimed = true;
        name.unwrap_or(slot.name)
    }
}

impl Slot {
    /// The socket, if it is left, of the network's family and type, and listens where it has to.
    fn is_of(&self, endpoint: &Endpoint<'_>) -> Option<&'static Truth> {
        let network = endpoint.network();
        self.socket.filter(|socket| {
            !self.claimed
                && network.allows(socket.bound.family())
                && network.kind() == socket.kind
                && (socket.listens || socket.kind == Kind::Datagram)
        })
    }
}

/// `IPV6_V6ONLY` is as asked for, where it makes a difference.
fn agrees(socket: &Truth, v6only: Option<bool>) -> bool {
    let wildcard =
        matches!(socket.bound, Bound::Inet(SocketAddr::V6(address)) if address.ip().is_unspecified());
    !wildcard || v6only.is_none_or(|v6only| socket.v6only == v6only)
}

/// The wildcards of both families are one, if the network has both and the IPv6 socket takes both.
fn is_equivalent(endpoint: &Endpoint<'_>, wanted: &Bound, socket: &Truth, v6only: Option<bool>) -> bool {
    let network = endpoint.network();
    let (Bound::Inet(wanted), Bound::Inet(found)) = (wanted, &socket.bound) else {
        return false;
    };
    network.allows(Family::V4)
        && network.allows(Family::V6)
        && wanted.is_ipv4() != found.is_ipv4()
        && wanted.port() == found.port()
        && wanted.ip().is_unspecified()
        && found.ip().is_unspecified()
        && v6only != Some(true)
        && !socket.v6only
}

/// The address of the socket that is looked for; `None` for any port.
fn wanted(endpoint: &Endpoint<'_>) -> Option<Bound> {
    let network = endpoint.network();
    let address = match endpoint.address() {
        Address::Path(path) => return Some(Bound::Path(path.to_vec())),
        Address::Abstract(name) => return Some(Bound::Abstract(name.to_vec())),
        Address::Inet(address) => address,
        Address::Any { port } if network.allows(Family::V6) => {
            SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port)
        }
        Address::Any { port } => SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port),
        Address::Loopback { port } if network.allows(Family::V4) => {
            SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port)
        }
        Address::Loopback { port } => SocketAddr::new(Ipv6Addr::LOCALHOST.into(), port),
        other => panic!("{other:?} is not among the addresses"),
    };
    (address.port() != 0).then_some(Bound::Inet(address))
}

fuzz_target!(|input: Input| {
    let world = &*WORLD;
    let mut model = Model { inherited: Vec::new(), active: Vec::new(), ids: Vec::new() };
    for (fd, (which, name)) in (FIRST..).zip(input.inherited.iter().take(N)) {
        let made = &world.made[usize::from(*which) % world.made.len()];
        let name = if input.named { pick(&NAMES, *name) } else { NAMES[0] };
        model.inherited.push(Slot { name, socket: made.socket.as_ref(), claimed: false });
        duplicate(&made.fd, fd);
    }
    let count = model.inherited.len();
    let names: Vec<&str> = model.inherited.iter().map(|slot| slot.name).collect();
    let mut lines = vec![format!("LISTEN_FDS={count}"), "OTHER=1".to_owned()];
    if input.named {
        lines.push(format!("LISTEN_FDNAMES={}", names.join(":")));
    }
    let lines: Vec<CString> = lines.into_iter().map(|line| CString::new(line).expect("no NUL")).collect();
    let mut table: Vec<_> = lines.iter().map(|line| line.as_ptr()).collect();
    table.push(ptr::null());
    // SAFETY: no arguments, and a table of strings that ends with a null pointer and outlives the launch.
    let launch = unsafe { Launch::<3, 8>::new(0, [ptr::null()].as_ptr(), table.as_ptr()) };
    let mut launch = launch.expect("room for the variables");
    let mut net = Net::<N>::new();
    // SAFETY: the numbers were given to nobody else, and the strings outlive the tables.
    let inherited = unsafe { net.inherit_with(&mut launch, InheritOptions::new().first_fd(FIRST)) };
    assert_eq!(inherited, Ok(count));
    check(&net, &model);
    for step in &input.steps {
        take_step(step, &mut net, &mut model);
        check(&net, &model);
    }
    if let 1 | 2 = input.spawn {
        spawn(input.spawn == 1, &mut launch, &mut net);
        check(&net, &model);
    }
    net.ready().expect("nobody to tell");
    for slot in &mut model.inherited {
        slot.claimed = true;
    }
    check(&net, &model);
    let open = net.active().map(|(_, socket)| socket.as_fd().as_raw_fd());
    let mut open: Vec<RawFd> = open.filter(|fd| (FIRST..FIRST + N as RawFd).contains(fd)).collect();
    open.sort_unstable();
    let found: Vec<RawFd> = (FIRST..FIRST + N as RawFd).filter(|fd| is_open(*fd)).collect();
    assert_eq!(open, found, "what nobody claimed is closed, and nothing else");
    drop(net);
    assert!((FIRST..FIRST + N as RawFd).all(|fd| !is_open(fd)));
});

fn take_step(step: &Step, net: &mut Net<N>, model: &mut Model) {
    let full = model.active.len() == N;
    match *step {
        Step::Claim { network, address, name, v6only } => {
            let name = name.map(|name| pick(&NAMES, name));
            let address = &WORLD.addresses[usize::from(address) % WORLD.addresses.len()];
            let Ok(endpoint) = Endpoint::parse(pick(&NETWORKS, network), address) else {
                return;
            };
            let mut options = ListenOptions::new();
            if let Some(name) = name {
                options = options.name(name);
            }
            if let Some(v6only) = v6only {
                options = options.v6only(v6only);
            }
            let expected = model.find(&endpoint, name, v6only);
            claimed(net.claim_at(&endpoint, &options), expected, name, net, model);
        }
        Step::ClaimName(name) => {
            let name = pick(&NAMES, name);
            let expected = model.inherited.iter().position(|slot| slot.name == name && !slot.claimed);
            claimed(net.claim_name(name), expected, None, net, model);
        }
        Step::ClaimPosition(position) => {
            let position = usize::from(position) % (N + 1);
            let expected = model.inherited.get(position).filter(|slot| !slot.claimed).map(|_| position);
            claimed(net.claim_position(position), expected, None, net, model);
        }
        Step::Add(which, name) => {
            let made = &WORLD.made[usize::from(which) % WORLD.made.len()];
            let name = pick(&NAMES, name);
            let fd = rustix::io::dup(&made.fd).expect("a free number");
            match net.add(fd, name) {
                Ok(id) if !full => given(id, name, model),
                Err(rejected) if full => assert!(matches!(rejected.error, Error::Capacity { .. })),
                other => panic!("{other:?} with {} of {N}", model.active.len()),
            }
        }
        Step::Close(id) | Step::Take(id) => {
            let Some(id) = model.ids.get(usize::from(id) % model.ids.len().max(1)).copied() else {
                return;
            };
            let expected = model.active.iter().position(|(active, _)| *active == id);
            let number = net.fd(id).map(|fd| fd.as_raw_fd());
            let result = if matches!(step, Step::Close(_)) {
                net.close(id)
            } else {
                net.take(id).map(|fd| assert_eq!(Ok(fd.as_raw_fd()), number))
            };
            assert_eq!(result, expected.map(|_| ()).ok_or(Error::StaleId));
            if let Some(position) = expected {
                model.active.remove(position);
                assert!(number.is_ok_and(|number| !is_open(number)));
            }
        }
    }
}

/// A restart of a program that does not exist leaves everything as it was.
fn spawn(reported: bool, launch: &mut Launch<3, 8>, net: &mut Net<N>) {
    let fds =
        |net: &Net<N>| -> Vec<RawFd> { net.active().map(|(_, socket)| socket.as_fd().as_raw_fd()).collect() };
    let before = fds(net);
    let readiness = if reported { Readiness::Reported } else { Readiness::Executed };
    let nothing = Executable::Path(c"/dev/null/nothing");
    let failed =
        net.spawn(launch, &Restart::new().executable(nothing).args(&[c"nothing"]).readiness(readiness));
    let error = Error::Call { operation: Operation::Execve, fd: None, errno: Errno::NOTDIR };
    assert_eq!(failed.map(drop), Err(error));
    assert_eq!(fds(net), before);
    assert!(launch.vars().eq([c"OTHER=1"]));
}

/// Exactly the socket that was expected is claimed, or none.
fn claimed(
    result: Result<SocketId, Error>,
    expected: Option<usize>,
    name: Option<&'static str>,
    net: &Net<N>,
    model: &mut Model,
) {
    let full = model.active.len() == N;
    match (result, expected) {
        (Ok(id), Some(position)) if !full => {
            let number = net.fd(id).expect("it was just claimed").as_raw_fd();
            assert_eq!(number, FIRST + position as RawFd);
            let name = model.claim(position, name);
            given(id, name, model);
        }
        (Err(Error::Capacity { .. }), Some(_)) if full => {}
        (Err(Error::NotInherited), None) => {}
        (result, expected) => panic!("{result:?}, not {expected:?}"),
    }
}

fn given(id: SocketId, name: &'static str, model: &mut Model) {
    assert!(!model.ids.contains(&id), "an id was given out twice");
    model.ids.push(id);
    model.active.push((id, name));
}

fn check(net: &Net<N>, model: &Model) {
    let active = net.active().map(|(id, socket)| (id, socket.name()));
    assert!(active.eq(model.active.iter().copied()));
    let inherited = net.inherited().map(|(position, socket)| (position, socket.name()));
    let expected = model.inherited.iter().enumerate().filter(|(_, slot)| !slot.claimed);
    assert!(inherited.eq(expected.map(|(position, slot)| (position, slot.name))));
}

fn pick(words: &[&'static str], which: u8) -> &'static str {
    words[usize::from(which) % words.len()]
}

/// Puts a duplicate on a number that is free.
fn duplicate(fd: &OwnedFd, onto: RawFd) {
    assert!(!is_open(onto));
    // SAFETY: the number is this target's own, and nothing is on it.
    let mut target = unsafe { OwnedFd::from_raw_fd(onto) };
    rustix::io::dup3(fd, &mut target, DupFlags::empty()).expect("a number below the limit");
    // The tables own it from here on.
    let _number = target.into_raw_fd();
}

fn is_open(fd: RawFd) -> bool {
    // SAFETY: the call changes nothing, and says if it is not open.
    rustix::io::fcntl_getfd(unsafe { BorrowedFd::borrow_raw(fd) }).is_ok()
}
