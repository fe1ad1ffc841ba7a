//! The claim rule: which inherited socket belongs to an endpoint.
//!
//! A fact about a socket is asked from the kernel once, when the fact decides, and is kept in the socket's slot. This
//! module changes no socket.

use super::ListenOptions;
use crate::address::{Address, Endpoint, Equivalent, Family, Key, Keys, Kind};
use crate::error::{Error, Operation};
use crate::sys::SocketName;
use crate::table::{Inherited, InheritedView};
use rustix::fd::{AsFd, AsRawFd};
use rustix::net::{SocketType, ipproto, sockopt};

/// The conditions under which an inherited socket is claimed for an endpoint.
pub(crate) struct Wanted<'a> {
    endpoint: &'a Endpoint<'a>,
    name: Option<&'a str>,
    v6only: Option<bool>,
    keys: Keys,
}

impl<'a> Wanted<'a> {
    /// Returns the conditions for `endpoint`. `scope` is the index of the endpoint's zone, as [`scope`](super::scope)
    /// finds it.
    pub(crate) fn new(endpoint: &'a Endpoint<'a>, scope: u32, options: &ListenOptions<'a>) -> Self {
        Self { endpoint, name: options.name, v6only: options.v6only, keys: endpoint.keys(scope) }
    }

    /// Returns the position of the inherited socket to claim: by name first, then by the exact address, then by the
    /// other family's wildcard.
    ///
    /// If only one socket was inherited under the name, the name decides, whatever the address. If several sockets
    /// have the name, the address decides. If the address leaves the port open, the first unclaimed one is claimed.
    pub(crate) fn find(&self, inherited: &mut InheritedView<'_>) -> Result<Option<usize>, Error> {
        if let Some(name) = self.name {
            if let Some(position) = self.find_address(inherited, Some(name))? {
                return Ok(Some(position));
            }
            let decides = self.keys.exact.is_none()
                || inherited
                    .named(name)
                    .filter(|position| inherited.is_named(*position, name))
                    .nth(1)
                    .is_none();
            for position in inherited.named(name).filter(|_| decides) {
                let is_namesake = inherited.is_named(position, name);
                if let Some(slot) = inherited.slots.get_mut(position) {
                    // No IPv6 traffic reaches the wildcard of IPv4.
                    let is_v4 = matches!(slot.key, Some(Key::V4 { ip: [0, 0, 0, 0], .. }));
                    let agrees = !is_v4 || self.v6only != Some(true) || !self.may_be_v6();
                    if is_namesake && agrees && self.fits(slot, self.v6only)? {
                        return Ok(Some(position));
                    }
                }
            }
        }
        self.find_address(inherited, None)
    }

    /// Returns whether a fresh socket could be an IPv6 socket.
    const fn may_be_v6(&self) -> bool {
        match self.endpoint.address {
            Address::Inet(address) => address.is_ipv6(),
            _ => self.endpoint.network.allows(Family::V6),
        }
    }

    /// Returns the position of a socket with the wanted address, among the sockets named `name` or among all.
    fn find_address(
        &self,
        inherited: &mut InheritedView<'_>,
        name: Option<&str>,
    ) -> Result<Option<usize>, Error> {
        let exact = self.keys.exact.as_ref().map(|key| (key, self.v6only));
        let equivalent = match &self.keys.equivalent {
            _ if self.v6only == Some(true) => None,
            Some(Equivalent::DualStack(key)) => Some((key, Some(false))),
            Some(Equivalent::V4(key)) => Some((key, None)),
            None => None,
        };
        for (key, v6only) in exact.into_iter().chain(equivalent) {
            for position in inherited.near(key) {
                let is_namesake = name.is_none_or(|name| inherited.is_named(position, name));
                let Some(slot) = inherited.slots.get_mut(position) else {
                    continue;
                };
                if slot.key.as_ref() == Some(key)
                    && is_namesake
                    && self.fits(slot, v6only)?
                    && (key.is_exact() || self.is_address(slot)?)
                {
                    return Ok(Some(position));
                }
            }
        }
        Ok(None)
    }

    /// Returns whether the slot's socket can be claimed, whatever its address.
    fn fits(&self, slot: &mut Inherited, v6only: Option<bool>) -> Result<bool, Error> {
        Ok(self.is_kind(slot)? && agrees_on_v6only(slot, v6only)?)
    }

    /// Returns whether the slot's socket has the wanted family and type, and listens if it is a stream.
    ///
    /// A listener of an internet family is taken to be TCP or MPTCP. No other protocol that this crate opens listens
    /// there, and asking for the protocol would cost one more call for each. A manager may hand over an SCTP socket
    /// if `SocketProtocol=` is set: claim that one by its name.
    fn is_kind(&self, slot: &mut Inherited) -> Result<bool, Error> {
        let (Some(fd), Some(key)) = (&slot.fd, &slot.key) else {
            return Ok(false);
        };
        let error = |errno| Error::call_on(Operation::Getsockopt, fd.as_raw_fd(), errno);
        let network = self.endpoint.network;
        if !network.allows(key.family()) {
            return Ok(false);
        }
        if network.kind() != Kind::Datagram {
            let listening = match slot.listening {
                Some(listening) => listening,
                None => *slot.listening.insert(sockopt::socket_acceptconn(fd).map_err(error)?),
            };
            if !listening || key.family() != Family::Unix {
                return Ok(listening);
            }
        }
        let kind = match slot.kind {
            Some(kind) => kind,
            // UDP-Lite is a datagram protocol too, but `udp` does not mean it.
            None if key.family() != Family::Unix => {
                let protocol = sockopt::socket_protocol(fd).map_err(error)?;
                *slot.kind.insert((protocol == Some(ipproto::UDP)).then_some(Kind::Datagram))
            }
            None => *slot.kind.insert(kind(sockopt::socket_type(fd).map_err(error)?)),
        };
        Ok(kind == Some(network.kind()))
    }

    /// Returns whether the slot's address is the wanted one, where the slot's key holds only part of it.
    #[cold]
    #[inline(never)]
    fn is_address(&self, slot: &Inherited) -> Result<bool, Error> {
        let Some(fd) = &slot.fd else {
            return Ok(false);
        };
        let mut name = SocketName::new();
        let name = name
            .ask(fd.as_fd())
            .map_err(|errno| Error::call_on(Operation::Getsockname, fd.as_raw_fd(), errno))?;
        Ok(Address::from_sockaddr(name) == Some(self.endpoint.address))
    }
}

/// Returns whether `IPV6_V6ONLY` of an IPv6 socket on the wildcard address is as wanted.
fn agrees_on_v6only(slot: &mut Inherited, wanted: Option<bool>) -> Result<bool, Error> {
    let (Some(fd), Some(Key::V6 { ip, .. }), Some(wanted)) = (&slot.fd, &slot.key, wanted) else {
        return Ok(true);
    };
    if *ip != [0; 16] {
        return Ok(true);
    }
    let found = match slot.v6only {
        Some(found) => found,
        None => *slot.v6only.insert(
            sockopt::ipv6_v6only(fd)
                .map_err(|errno| Error::call_on(Operation::Getsockopt, fd.as_raw_fd(), errno))?,
        ),
    };
    Ok(found == wanted)
}

const fn kind(found: SocketType) -> Option<Kind> {
    match found {
        SocketType::STREAM => Some(Kind::Stream),
        SocketType::DGRAM => Some(Kind::Datagram),
        SocketType::SEQPACKET => Some(Kind::Packet),
        _ => None,
    }
}
