//! The sockets of a service: those of a [`Net`], of one capacity or of any.
#![allow(private_interfaces, reason = "the methods of the trait are the service's to call")]

use crate::address::Endpoint;
use crate::debt::Owed;
use crate::error::Error;
use crate::launch::LaunchView;
use crate::listener::ListenOptions;
use crate::net::{Net, Rejected, SocketRef};
use crate::restart::{Restart, Successor};
use crate::table::{Active, SocketId};
use core::convert::Infallible;
use heapless::VecView;
use rustix::fd::{BorrowedFd, OwnedFd};

/// What a service needs of a [`Net`], whatever its capacity. Nobody outside of the crate can name it, and so implement it.
pub trait Sockets: Send {
    fn owed(&self) -> &Owed;
    fn owed_mut(&mut self) -> &mut Owed;
    fn ready(&mut self) -> Result<(), Error>;
    fn spawn(&mut self, launch: LaunchView<'_>, restart: &Restart<'_>) -> Result<&mut Successor, Error>;
    fn exec(
        &mut self,
        launch: LaunchView<'_>,
        restart: &Restart<'_>,
        is_told: bool,
    ) -> Result<Infallible, Error>;
    fn listen_at(&mut self, endpoint: &Endpoint<'_>, options: &ListenOptions<'_>) -> Result<SocketId, Error>;
    fn claim_at(&mut self, endpoint: &Endpoint<'_>, options: &ListenOptions<'_>) -> Result<SocketId, Error>;
    fn claim_name(&mut self, name: &str) -> Result<SocketId, Error>;
    fn add(&mut self, fd: OwnedFd, name: &str) -> Result<SocketId, Rejected>;
    fn close(&mut self, id: SocketId) -> Result<(), Error>;
    fn fd(&self, id: SocketId) -> Result<BorrowedFd<'_>, Error>;
    fn try_clone(&self, id: SocketId) -> Result<OwnedFd, Error>;
    fn store(&self, id: SocketId) -> Result<bool, Error>;
    fn active(&self) -> (&VecView<Active>, &[u8]);
    fn count(&self) -> usize;
    fn inherited(&self, position: usize) -> Option<SocketRef<'_>>;
    fn inherited_count(&self) -> usize;
    fn close_active(&mut self);
    fn close_all(&mut self);
}

impl<const N: usize> Sockets for Net<N> {
    fn owed(&self) -> &Owed {
        &self.owed
    }

    fn owed_mut(&mut self) -> &mut Owed {
        &mut self.owed
    }

    fn ready(&mut self) -> Result<(), Error> {
        self.ready()
    }

    fn spawn(&mut self, launch: LaunchView<'_>, restart: &Restart<'_>) -> Result<&mut Successor, Error> {
        self.spawn_from(launch, restart)
    }

    fn exec(
        &mut self,
        launch: LaunchView<'_>,
        restart: &Restart<'_>,
        is_told: bool,
    ) -> Result<Infallible, Error> {
        self.exec_from(launch, restart, is_told)
    }

    fn listen_at(&mut self, endpoint: &Endpoint<'_>, options: &ListenOptions<'_>) -> Result<SocketId, Error> {
        self.listen_at(endpoint, options)
    }

    fn claim_at(&mut self, endpoint: &Endpoint<'_>, options: &ListenOptions<'_>) -> Result<SocketId, Error> {
        self.claim_at(endpoint, options)
    }

    fn claim_name(&mut self, name: &str) -> Result<SocketId, Error> {
        self.claim_name(name)
    }

    fn add(&mut self, fd: OwnedFd, name: &str) -> Result<SocketId, Rejected> {
        self.add(fd, name)
    }

    fn close(&mut self, id: SocketId) -> Result<(), Error> {
        self.close(id)
    }

    fn fd(&self, id: SocketId) -> Result<BorrowedFd<'_>, Error> {
        self.fd(id)
    }

    fn try_clone(&self, id: SocketId) -> Result<OwnedFd, Error> {
        self.try_clone(id)
    }

    fn store(&self, id: SocketId) -> Result<bool, Error> {
        self.store(id)
    }

    fn active(&self) -> (&VecView<Active>, &[u8]) {
        self.active.view()
    }

    fn count(&self) -> usize {
        self.active.view().0.len()
    }

    fn inherited(&self, position: usize) -> Option<SocketRef<'_>> {
        self.inherited_at(position)
    }

    fn inherited_count(&self) -> usize {
        self.inherited.slots().len()
    }

    fn close_active(&mut self) {
        self.active.clear();
    }

    fn close_all(&mut self) {
        self.active.clear();
        self.inherited.clear();
        self.owed = Owed::new();
    }
}
