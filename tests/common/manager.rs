//! What a service manager's socket takes, for tests that play the manager.

use gracenet::notify;
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketAddrUnix, SocketFlags,
    SocketType,
};
use std::io::IoSliceMut;
use std::mem::MaybeUninit;

/// What came in: from whom, the message, and its descriptors.
pub(crate) type Received = (i32, String, Vec<OwnedFd>);

/// Opens a manager's socket at an address `@name`.
pub(crate) fn open(address: &str) -> OwnedFd {
    let name = SocketAddrUnix::new_abstract_name(address.strip_prefix('@').unwrap().as_bytes()).unwrap();
    // As the library makes its own, which on x86 is by socketcall: strace counts the two ways apart.
    let (family, flags) = (AddressFamily::UNIX, SocketFlags::CLOEXEC);
    let socket = rustix::net::socket_with(family, SocketType::DGRAM, flags, None).unwrap();
    rustix::net::bind(&socket, &name).unwrap();
    rustix::net::sockopt::set_socket_passcred(&socket, true).unwrap();
    socket
}

/// The next message, if there is one.
pub(crate) fn receive(socket: &OwnedFd) -> Option<Received> {
    let mut bytes = [0; 8192];
    let mut space =
        [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(notify::FDS_MAX), ScmCredentials(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut slices = [IoSliceMut::new(&mut bytes)];
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let len = match rustix::net::recvmsg(socket, &mut slices, &mut control, flags) {
        Ok(message) => message.bytes,
        Err(Errno::AGAIN) => return None,
        Err(errno) => panic!("{errno}"),
    };
    let (mut sender, mut fds) = (0, Vec::new());
    for message in control.drain() {
        match message {
            RecvAncillaryMessage::ScmRights(rights) => fds.extend(rights),
            RecvAncillaryMessage::ScmCredentials(who) => sender = who.pid.as_raw_nonzero().get(),
            _ => {}
        }
    }
    Some((sender, String::from_utf8(bytes[..len].to_vec()).unwrap(), fds))
}
