//! What a handle stands for, of some capacity, and behind [`Door`] of any.

use crate::error::Last;
use core::ffi::{c_char, c_int};
use core::time::Duration;
use gracenet::Variable;
use gracenet::launch::remove_from_libc;
use gracenet::{
    Error, Launch, ListenOptions, Net, Notifier, Progress, Refusal, Rejected, Restart, SocketRef, Unsettled,
};
use rustix::fd::{AsFd, AsRawFd, IntoRawFd, OwnedFd};
use rustix::io::Errno;

/// Room for 511 arguments and 1023 variables.
type Launched = Launch<512, 1024>;

pub(crate) struct State<const N: usize> {
    launch: Launched,
    net: Net<N>,
}

unsafe extern "C" {
    /// libc's.
    static environ: *const *const c_char;
}

impl<const N: usize> State<N> {
    /// Captures the launch, and puts the state at `place`.
    ///
    /// # Safety
    ///
    /// - `place` has room for it, is aligned, and nothing lives there.
    /// - argc and argv are those of `main`, and the strings stay.
    pub(crate) unsafe fn begin(
        place: *mut u8,
        argc: c_int,
        argv: *const *const c_char,
    ) -> Result<*mut dyn Door, Error> {
        // SAFETY: libc's variable; there is one thread.
        let envp = unsafe { environ };
        // SAFETY: main's arguments, libc's table.
        let launch = unsafe { Launch::new(argc, argv, envp) }?;
        let state = place.cast::<Self>();
        // SAFETY: the caller's contract.
        unsafe { state.write(Self { launch, net: Net::new() }) };
        Ok(state)
    }

    /// The descriptor behind an id that was just given out.
    fn number(&self, id: Result<gracenet::SocketId, Error>) -> Result<c_int, Last> {
        Ok(self.net.fd(id?)?.as_raw_fd())
    }
}

/// A state of any capacity.
pub(crate) trait Door {
    /// # Safety
    ///
    /// - Nobody owns the descriptors, and nobody else uses the environment.
    unsafe fn inherit(&mut self) -> Result<c_int, Last>;
    fn listen(
        &mut self,
        network: &str,
        address: &str,
        options: &ListenOptions<'_>,
    ) -> Result<c_int, Last>;
    fn claim(
        &mut self,
        network: &str,
        address: &str,
        options: &ListenOptions<'_>,
    ) -> Result<c_int, Last>;
    fn claim_name(&mut self, name: &str) -> Result<c_int, Last>;
    fn add(&mut self, fd: OwnedFd, name: &'static str) -> Result<c_int, Last>;
    fn close(&mut self, fd: c_int) -> Result<c_int, Last>;
    fn active(&self, position: usize) -> Option<c_int>;
    fn predecessor(&self) -> Option<c_int>;
    fn ready(&mut self) -> Result<c_int, Last>;
    fn refuse(&mut self, reason: Errno) -> Result<c_int, Last>;
    fn restart(&mut self) -> Result<c_int, Last>;
    fn wait(&mut self, milliseconds: c_int) -> Result<c_int, Last>;
    fn successor_fds(&mut self, fds: &mut [c_int; 3]) -> c_int;
    fn cancel(&mut self) -> Result<c_int, Last>;
    fn exec(&mut self) -> Result<c_int, Last>;
}

impl<const N: usize> Door for State<N> {
    unsafe fn inherit(&mut self) -> Result<c_int, Last> {
        // SAFETY: the caller's contract; the strings of the launch stay.
        let count = unsafe { self.net.inherit(&mut self.launch) };
        let notifier = Notifier::from_launch(&self.launch);
        for variables in [&Variable::ACTIVATION[..], &Variable::NOTIFICATION] {
            // SAFETY: the caller's contract.
            unsafe { remove_from_libc(variables) };
        }
        self.net.set_notifier(notifier?);
        Ok(count? as c_int)
    }

    fn listen(
        &mut self,
        network: &str,
        address: &str,
        options: &ListenOptions<'_>,
    ) -> Result<c_int, Last> {
        let id = self.net.listen_with(network, address, options);
        self.number(id)
    }

    fn claim(
        &mut self,
        network: &str,
        address: &str,
        options: &ListenOptions<'_>,
    ) -> Result<c_int, Last> {
        let endpoint = gracenet::Endpoint::parse(network, address)?;
        let id = self.net.claim_at(&endpoint, options);
        self.number(id)
    }

    fn claim_name(&mut self, name: &str) -> Result<c_int, Last> {
        let id = self.net.claim_name(name);
        self.number(id)
    }

    fn add(&mut self, fd: OwnedFd, name: &'static str) -> Result<c_int, Last> {
        let is_it = |socket: SocketRef<'_>| socket.as_fd().as_raw_fd() == fd.as_raw_fd();
        let is_active = self.net.active().any(|(_, socket)| is_it(socket));
        if is_active || self.net.inherited().any(|(_, socket)| is_it(socket)) {
            // Not the caller's to give.
            let _ = fd.into_raw_fd();
            return Err(Last::Argument);
        }
        let id = self.net.add(fd, name).map_err(|Rejected { fd, error }| {
            // The caller's again.
            let _ = fd.into_raw_fd();
            error
        });
        self.number(id)
    }

    fn close(&mut self, fd: c_int) -> Result<c_int, Last> {
        let found = self.net.active().find(|(_, socket)| socket.as_fd().as_raw_fd() == fd);
        let id = found.map(|(id, _)| id).ok_or(Error::StaleId)?;
        Ok(self.net.close(id).map(|()| 0)?)
    }

    fn active(&self, position: usize) -> Option<c_int> {
        self.net.active().nth(position).map(|(_, socket)| socket.as_fd().as_raw_fd())
    }

    fn predecessor(&self) -> Option<c_int> {
        self.net.predecessor().map(|predecessor| predecessor.as_fd().as_raw_fd())
    }

    fn ready(&mut self) -> Result<c_int, Last> {
        self.net.ready()?;
        self.net.take_predecessor();
        Ok(0)
    }

    fn refuse(&mut self, reason: Errno) -> Result<c_int, Last> {
        Ok(self.net.refuse(Refusal::Errno(reason)).map(|()| 0)?)
    }

    fn restart(&mut self) -> Result<c_int, Last> {
        let successor = self.net.start_process(&mut self.launch)?;
        // The successor that was in flight got ready, and no other was started.
        if successor.is_ready() {
            return Err(Error::HandedOver.into());
        }
        Ok(successor.pid().as_raw_nonzero().get())
    }

    fn wait(&mut self, milliseconds: c_int) -> Result<c_int, Last> {
        let successor = self.net.successor_mut().ok_or(Last::NoSuccessor)?;
        let timeout = u64::try_from(milliseconds).map_or(Duration::MAX, Duration::from_millis);
        match successor.wait(timeout)? {
            Progress::Ready => Ok(1),
            Progress::Unsettled(Unsettled::Untold(error)) => Err(Last::Manager(error)),
            Progress::Unsettled(Unsettled::Unseen(error)) => Err(error.into()),
            _ => Ok(0),
        }
    }

    fn successor_fds(&mut self, fds: &mut [c_int; 3]) -> c_int {
        let successor = self.net.successor_mut().filter(|successor| successor.is_in_flight());
        let mut count = 0;
        for (slot, fd) in fds.iter_mut().zip(successor.iter().flat_map(|successor| successor.fds())) {
            *slot = fd.as_raw_fd();
            count += 1;
        }
        count
    }

    fn cancel(&mut self) -> Result<c_int, Last> {
        match self.net.successor_mut() {
            Some(successor) => Ok(successor.kill()?.into()),
            None => Ok(0),
        }
    }

    fn exec(&mut self) -> Result<c_int, Last> {
        let Err(error) = self.net.exec(&mut self.launch, &Restart::new());
        Err(error.into())
    }
}
