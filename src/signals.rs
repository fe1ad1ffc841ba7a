//! Signals as a descriptor to poll, for event loops, and for programs without a libc to install handlers with.
//!
//! [`Signals`] blocks the signals that it reads, and a restart hands the mask on. A signal that arrives while the
//! program is being replaced is not lost: the new program's [`Signals`] reads it. No handler is installed.

use crate::error::{Error, Operation};
use crate::sys::{self, Mask};
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use rustix::io::Errno;
use rustix::process::Signal;

/// Blocked signals that are read from a descriptor.
///
/// ```no_run
/// use gracenet::Signals;
/// use gracenet::rustix::process::Signal;
///
/// # fn main() -> Result<(), gracenet::Error> {
/// let signals = Signals::new(&[Signal::TERM])?; // before a second thread exists
/// // Poll it for reading, then:
/// while let Some(signal) = signals.take()? {
///     println!("{signal:?}");
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[doc(alias = "signalfd")]
pub struct Signals {
    fd: OwnedFd,
}

impl Signals {
    /// Blocks `signals` in the calling thread, and makes them readable. A signal that arrived since it was blocked is
    /// readable too.
    ///
    /// Call this before a second thread exists, because that thread would not block the signals. They stay blocked
    /// when the value is dropped, and in every process that this one starts. A successor that is another program and
    /// does not expect this would not be ended by a SIGTERM.
    ///
    /// # Errors
    ///
    /// - [`Error::Call`]: a system call failed. The signals may be blocked.
    ///
    /// # References
    ///
    /// - signalfd(2)
    pub fn new(signals: &[Signal]) -> Result<Self, Error> {
        let mask = Mask::of(signals);
        sys::block(mask).map_err(|errno| Error::call(Operation::Sigprocmask, errno))?;
        let fd = sys::signalfd(mask).map_err(|errno| Error::call(Operation::Signalfd, errno))?;
        Ok(Self { fd })
    }

    /// Returns the next signal, without waiting; `None` if there is none.
    ///
    /// # Errors
    ///
    /// - [`Error::Call`]: read(2) failed.
    pub fn take(&self) -> Result<Option<Signal>, Error> {
        // `struct signalfd_siginfo`: 128 bytes, the number first.
        let mut info = [0_u8; 128];
        loop {
            match rustix::io::read(&self.fd, &mut info) {
                Ok(_) => {
                    let number = info.first_chunk().map_or(0, |bytes| i32::from_ne_bytes(*bytes));
                    return Ok(sys::signal(number));
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(None),
                Err(errno) => {
                    return Err(Error::call_on(Operation::ReadSignal, self.fd.as_raw_fd(), errno));
                }
            }
        }
    }
}

impl AsFd for Signals {
    /// Returns the descriptor, which is readable when there is a signal.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRawFd for Signals {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}
