//! Sockets as std's types, for the programs that want no other.
#![allow(
    clippy::result_large_err,
    reason = "an error that names the address holds it: there is no allocator"
)]

use super::sockets::Sockets;
use super::{Service, refusal};
use crate::error::Error;
use crate::listener::ListenOptions;
use crate::table::SocketId;
use core::fmt;
use heapless::String;
use std::net::{TcpListener, UdpSocket};
use std::os::unix::net::{UnixDatagram, UnixListener};

/// An address that a [`Service`] could not listen on, and why.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ListenError {
    address: String<128>,
    error: Error,
}

impl ListenError {
    fn new(address: &str, error: Error) -> Self {
        let mut text = String::new();
        // Longer than any address: what fits.
        let _cut = address.chars().try_for_each(|character| text.push(character));
        Self { address: text, error }
    }

    /// The address as it was asked for.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Why the service could not listen on it.
    #[must_use]
    pub const fn error(&self) -> Error {
        self.error
    }
}

impl fmt::Display for ListenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.address, self.error)
    }
}

impl core::error::Error for ListenError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        Some(&self.error)
    }
}

impl From<ListenError> for std::io::Error {
    /// Keeps the kind; the error itself becomes the inner error.
    fn from(error: ListenError) -> Self {
        Self::new(Self::from(error.error).kind(), error)
    }
}

impl<S: Sockets + ?Sized> Service<'_, S> {
    /// Claims or opens a TCP listener, nonblocking, under `name`. The service hands the socket over, and keeps it open until
    /// this process drains.
    ///
    /// An inherited socket of this name is claimed whatever its address. To listen elsewhere after a restart, give another
    /// name too.
    ///
    /// # Errors
    ///
    /// - [`ListenError`]: the address, and why: see [`Service::listen`] and [`Service::try_clone`].
    pub fn tcp(&mut self, name: &str, address: &str) -> Result<TcpListener, ListenError> {
        self.std_socket("tcp", name, address)
    }

    /// Claims or binds a UDP socket, nonblocking, under `name`: see [`Service::tcp`].
    ///
    /// # Errors
    ///
    /// - As for [`Service::tcp`].
    pub fn udp(&mut self, name: &str, address: &str) -> Result<UdpSocket, ListenError> {
        self.std_socket("udp", name, address)
    }

    /// Claims or opens a Unix listener, nonblocking, under `name`: see [`Service::tcp`]. The address is a path, or `@` and an
    /// abstract name. A path that nobody listens on is replaced.
    ///
    /// # Errors
    ///
    /// - As for [`Service::tcp`].
    pub fn unix(&mut self, name: &str, address: &str) -> Result<UnixListener, ListenError> {
        self.std_socket("unix", name, address)
    }

    /// Claims or binds a Unix datagram socket, nonblocking, under `name`: see [`Service::unix`].
    ///
    /// # Errors
    ///
    /// - As for [`Service::tcp`].
    pub fn unixgram(&mut self, name: &str, address: &str) -> Result<UnixDatagram, ListenError> {
        self.std_socket("unixgram", name, address)
    }

    fn std_socket<T: From<rustix::fd::OwnedFd>>(
        &mut self,
        network: &str,
        name: &str,
        address: &str,
    ) -> Result<T, ListenError> {
        let options = ListenOptions::new().name(name).nonblocking(true).replace_stale(true);
        let duplicate = |service: &mut Self, id: SocketId| {
            service.try_clone(id).inspect_err(|error| service.refusal = refusal(error))
        };
        let listened = self.listen(network, address, &options).and_then(|id| duplicate(self, id));
        listened.map(T::from).map_err(|error| ListenError::new(address, error))
    }
}
