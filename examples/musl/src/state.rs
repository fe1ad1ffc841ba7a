//! What a handle stands for, behind [`Door`]: the parts, of some capacity, or a service over them.

use crate::error::Last;
use core::ffi::{c_char, c_int};
use core::mem::ManuallyDrop;
use core::time::Duration;
use gracenet::launch::remove_from_libc;
use gracenet::notify::{self, Assignment};
use gracenet::{
    Endpoint, Error, Launch, ListenOptions, Net, Notifier, Policy, Progress, Refusal, Rejected, Restart,
    Service, SocketId, SocketRef, Unsettled, Variable,
};
use rustix::fd::{AsRawFd, IntoRawFd, OwnedFd};
use rustix::io::Errno;

/// Room for 511 arguments and 1023 variables.
type Launched = Launch<512, 1024>;

/// Within what time the service manager wants to hear from this process.
type FedWithin = Result<Option<Duration>, Error>;

/// What `gracenet_inherit` makes.
pub(crate) struct Parts<const N: usize> {
    launch: Launched,
    net: Net<N>,
    fed_within: FedWithin,
}

/// What `gracenet_begin` makes, over parts that lie in front of it.
struct Begun {
    service: ManuallyDrop<Service<'static>>,
    parts: *mut dyn Held,
    fed_within: FedWithin,
}

/// What is there to be dropped.
trait Held {}

impl<const N: usize> Held for Parts<N> {}

/// A door, if there is one, and how many descriptors were inherited.
pub(crate) type Opened = (Option<*mut dyn Door>, Result<c_int, Error>);

/// Fills the memory at a place that has room for [`Parts::BYTES`].
pub(crate) type Open =
    unsafe fn(*mut u8, c_int, *const *const c_char, Policy<'static>) -> Result<Opened, Error>;

unsafe extern "C" {
    /// libc's.
    static environ: *const *const c_char;
}

impl<const N: usize> Parts<N> {
    /// Where the service lies behind the parts.
    const BEGUN: usize = size_of::<Self>().next_multiple_of(align_of::<Begun>());

    /// How much memory both take.
    pub(crate) const BYTES: usize = Self::BEGUN + size_of::<Begun>();

    /// How they are aligned.
    pub(crate) const ALIGN: usize =
        if align_of::<Self>() > align_of::<Begun>() { align_of::<Self>() } else { align_of::<Begun>() };

    /// Captures the launch, and inherits.
    ///
    /// # Safety
    ///
    /// - `place` has room for [`Parts::BYTES`], is aligned to [`Parts::ALIGN`], and nothing lives there.
    /// - argc and argv are those of `main`, and the strings stay.
    /// - Nobody owns the descriptors that the variables promise, and there is one thread.
    pub(crate) unsafe fn open(
        place: *mut u8,
        argc: c_int,
        argv: *const *const c_char,
        _: Policy<'static>,
    ) -> Result<Opened, Error> {
        // SAFETY: the caller's contract.
        let inherited = unsafe { Self::inherit_at(place, argc, argv) }?;
        Ok((Some(place.cast::<Self>()), inherited))
    }

    /// Captures the launch, inherits, and makes a service. Where that fails, the predecessor is told.
    ///
    /// # Safety
    ///
    /// - As for [`Parts::open`].
    pub(crate) unsafe fn open_begun(
        place: *mut u8,
        argc: c_int,
        argv: *const *const c_char,
        policy: Policy<'static>,
    ) -> Result<Opened, Error> {
        // SAFETY: the caller's contract.
        let inherited = unsafe { Self::inherit_at(place, argc, argv) }?;
        // SAFETY: the parts are there, and reached through the service from here on.
        match inherited.and_then(|count| Ok((unsafe { Self::begin(place, policy) }?, count))) {
            Ok((door, count)) => Ok((Some(door), Ok(count))),
            Err(error) => {
                let parts = place.cast::<Self>();
                // SAFETY: there is no service, and nobody else uses the parts.
                unsafe {
                    // A predecessor that has ended needs no reason.
                    let _ = (*parts).net.refuse(Refusal::Errno(Last::from(error).errno()));
                    parts.drop_in_place();
                }
                Ok((None, Err(error)))
            }
        }
    }

    /// # Safety
    ///
    /// - As for [`Parts::open`].
    unsafe fn inherit_at(
        place: *mut u8,
        argc: c_int,
        argv: *const *const c_char,
    ) -> Result<Result<c_int, Error>, Error> {
        // SAFETY: main's arguments, and libc's table.
        let launch = unsafe { Launch::new(argc, argv, environ) }?;
        let parts = place.cast::<Self>();
        // SAFETY: the caller's contract.
        unsafe {
            parts.write(Self { launch, net: Net::new(), fed_within: Ok(None) });
            Ok((*parts).inherit())
        }
    }

    /// # Safety
    ///
    /// - As for [`Net::inherit`]; nobody else uses the environment.
    unsafe fn inherit(&mut self) -> Result<c_int, Error> {
        // SAFETY: the caller's contract; the strings of the launch stay.
        let count = unsafe { self.net.inherit(&mut self.launch) };
        let notifier = Notifier::from_launch(&self.launch);
        self.fed_within = notify::watchdog(&self.launch);
        for variables in [&Variable::ACTIVATION[..], &Variable::NOTIFICATION] {
            // SAFETY: the caller's contract.
            unsafe { remove_from_libc(variables) };
        }
        self.net.set_notifier(notifier?);
        Ok(count? as c_int)
    }

    /// Makes a service over the parts at `place`.
    ///
    /// # Safety
    ///
    /// - The parts stay, and are reached through what this returns alone.
    unsafe fn begin(place: *mut u8, policy: Policy<'static>) -> Result<*mut dyn Door, Error> {
        let parts = place.cast::<Self>();
        // SAFETY: the caller's contract. The service is dropped before the parts are.
        let Self { launch, net, fed_within } = unsafe { &mut *parts };
        let fed_within = *fed_within;
        let service = ManuallyDrop::new(Service::new(net, launch, policy)?);
        let begun = place.wrapping_add(Self::BEGUN).cast::<Begun>();
        // SAFETY: there is room for it, and nothing lives there.
        unsafe { begun.write(Begun { service, parts, fed_within }) };
        Ok(begun)
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        // SAFETY: once, and the service before what it borrows.
        unsafe {
            ManuallyDrop::drop(&mut self.service);
            self.parts.drop_in_place();
        }
    }
}

/// What the functions do with a handle of either kind, of any capacity.
pub(crate) trait Door {
    fn service(&self) -> Option<&Service<'static>> {
        None
    }
    fn service_mut(&mut self) -> Option<&mut Service<'static>> {
        None
    }
    fn listen(&mut self, network: &str, address: &str, options: &ListenOptions<'_>) -> Result<c_int, Last>;
    fn claim(&mut self, network: &str, address: &str, options: &ListenOptions<'_>) -> Result<c_int, Last>;
    fn claim_name(&mut self, name: &str) -> Result<c_int, Last>;
    fn add(&mut self, fd: OwnedFd, name: &str) -> Result<c_int, Last>;
    fn close(&mut self, fd: c_int) -> Result<c_int, Last>;
    fn active(&self, position: usize) -> Option<c_int>;
    fn predecessor(&self) -> Option<c_int>;
    fn ready(&mut self) -> Result<c_int, Last>;
    fn refuse(&mut self, reason: Errno) -> Result<c_int, Last>;
    fn notify(&mut self, assignments: &[Assignment<'_>]) -> Result<c_int, Last>;
    fn store(&mut self, fd: c_int) -> Result<c_int, Last>;
    fn fed_within(&self) -> FedWithin;

    // What a service does by itself.
    fn restart(&mut self) -> Result<c_int, Last> {
        Err(Last::Begun)
    }
    fn wait(&mut self, _milliseconds: c_int) -> Result<c_int, Last> {
        Err(Last::Begun)
    }
    fn successor_fds(&mut self, _fds: &mut [c_int; 3]) -> Result<c_int, Last> {
        Err(Last::Begun)
    }
    fn cancel(&mut self) -> Result<c_int, Last> {
        Err(Last::Begun)
    }
    fn exec(&mut self) -> Result<c_int, Last> {
        Err(Last::Begun)
    }
}

/// What a `Net` and a `Service` have in common, of the one in this field.
macro_rules! sockets {
    ($sockets:ident, $listen:ident) => {
        fn listen(
            &mut self,
            network: &str,
            address: &str,
            options: &ListenOptions<'_>,
        ) -> Result<c_int, Last> {
            let id = self.$sockets.$listen(network, address, options)?;
            Ok(self.$sockets.fd(id)?.as_raw_fd())
        }

        fn claim(
            &mut self,
            network: &str,
            address: &str,
            options: &ListenOptions<'_>,
        ) -> Result<c_int, Last> {
            let id = self.$sockets.claim_at(&Endpoint::parse(network, address)?, options)?;
            Ok(self.$sockets.fd(id)?.as_raw_fd())
        }

        fn claim_name(&mut self, name: &str) -> Result<c_int, Last> {
            let id = self.$sockets.claim_name(name)?;
            Ok(self.$sockets.fd(id)?.as_raw_fd())
        }

        fn add(&mut self, fd: OwnedFd, name: &str) -> Result<c_int, Last> {
            let is_it = |socket: SocketRef<'_>| socket.as_raw_fd() == fd.as_raw_fd();
            let is_active = self.$sockets.active().any(|(_, socket)| is_it(socket));
            if is_active || self.$sockets.inherited().any(|(_, socket)| is_it(socket)) {
                // Not the caller's to give.
                let _ = fd.into_raw_fd();
                return Err(Last::Argument);
            }
            let id = self.$sockets.add(fd, name).map_err(|Rejected { fd, error }| {
                // The caller's again.
                let _ = fd.into_raw_fd();
                error
            })?;
            Ok(self.$sockets.fd(id)?.as_raw_fd())
        }

        fn close(&mut self, fd: c_int) -> Result<c_int, Last> {
            let id = find(self.$sockets.active(), fd)?;
            Ok(self.$sockets.close(id).map(|()| 0)?)
        }

        fn store(&mut self, fd: c_int) -> Result<c_int, Last> {
            let id = find(self.$sockets.active(), fd)?;
            Ok(self.$sockets.store(id)?.into())
        }

        fn active(&self, position: usize) -> Option<c_int> {
            self.$sockets.active().nth(position).map(|(_, socket)| socket.as_raw_fd())
        }

        fn predecessor(&self) -> Option<c_int> {
            self.$sockets.predecessor().map(AsRawFd::as_raw_fd)
        }

        fn refuse(&mut self, reason: Errno) -> Result<c_int, Last> {
            Ok(self.$sockets.refuse(Refusal::Errno(reason)).map(|()| 0)?)
        }

        fn fed_within(&self) -> FedWithin {
            self.fed_within
        }
    };
}

/// The socket with this descriptor.
fn find<'s>(
    mut sockets: impl Iterator<Item = (SocketId, SocketRef<'s>)>,
    fd: c_int,
) -> Result<SocketId, Error> {
    sockets.find(|(_, socket)| socket.as_raw_fd() == fd).map(|(id, _)| id).ok_or(Error::StaleId)
}

impl<const N: usize> Door for Parts<N> {
    sockets!(net, listen_with);

    fn ready(&mut self) -> Result<c_int, Last> {
        self.net.ready()?;
        self.net.take_predecessor();
        Ok(0)
    }

    fn notify(&mut self, assignments: &[Assignment<'_>]) -> Result<c_int, Last> {
        Ok(self.net.notifier().send(assignments)?.into())
    }

    fn restart(&mut self) -> Result<c_int, Last> {
        let successor = self.net.start_process(&mut self.launch)?;
        if successor.is_ready() {
            // The one before, at which nobody had looked.
            return Err(Error::HandedOver.into());
        }
        Ok(successor.pid().as_raw_nonzero().get())
    }

    fn wait(&mut self, milliseconds: c_int) -> Result<c_int, Last> {
        let successor = self.net.successor_mut().ok_or(Last::NoSuccessor)?;
        let timeout = u64::try_from(milliseconds).map_or(Duration::MAX, Duration::from_millis);
        match successor.wait(timeout)? {
            Progress::Ready => Ok(1),
            Progress::Unsettled(why @ (Unsettled::Untold(_) | Unsettled::Unseen(_))) => {
                Err(Last::Unsettled(why))
            }
            _ => Ok(0),
        }
    }

    fn successor_fds(&mut self, fds: &mut [c_int; 3]) -> Result<c_int, Last> {
        let mut count = 0;
        let shown = self.net.successor().into_iter().flat_map(|successor| successor.fds());
        for (slot, fd) in fds.iter_mut().zip(shown) {
            *slot = fd.as_raw_fd();
            count += 1;
        }
        Ok(count)
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

impl Door for Begun {
    sockets!(service, listen);

    fn service(&self) -> Option<&Service<'static>> {
        Some(&self.service)
    }

    fn service_mut(&mut self) -> Option<&mut Service<'static>> {
        Some(&mut self.service)
    }

    fn ready(&mut self) -> Result<c_int, Last> {
        Ok(self.service.ready().map(|()| 0)?)
    }

    fn notify(&mut self, assignments: &[Assignment<'_>]) -> Result<c_int, Last> {
        if !self.service.is_main() {
            return Ok(0);
        }
        Ok(self.service.notifier().send(assignments)?.into())
    }
}
