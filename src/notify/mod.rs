//! Notification: messages to the service manager.
//!
//! A [`Notifier`] holds the address at which the manager listens. Each message is sent as one datagram on a socket of
//! its own, which is closed again. Libsystemd does the same. So no socket stays open, and a manager that was executed
//! anew gets the messages. A message is checked before a socket is opened for it. No wait is longer than the
//! notifier's timeout.
//!
//! This module leaves out two things that libsystemd does. It enlarges no send buffer, because a message of 4096
//! bytes and 253 descriptors fits the kernel's smallest one. It attaches no credentials: the kernel attaches those of
//! this process, and this module speaks for no other.
//!
//! | module | holds |
//! |---|---|
//! | `life` | what a service says of its life |
//! | `main_pid` | what a predecessor says of a restart |
//! | `message` | assignments, and the bytes of a message |
//! | `target` | reads `NOTIFY_SOCKET` |
//! | `watchdog` | reads `WATCHDOG_USEC` and `WATCHDOG_PID` |
//!
//! With a notifier from [`Net::set_notifier`](crate::Net::set_notifier), a [`Net`](crate::Net) speaks to the manager
//! at the right moments: see [`Net::ready`](crate::Net::ready) and [`Net::spawn`](crate::Net::spawn). A service sends
//! any other message through [`Net::notifier`](crate::Net::notifier).

mod life;
mod main_pid;
mod message;
mod target;
mod watchdog;

pub(crate) use life::Message;
pub(crate) use main_pid::MainPid;
pub use message::{Access, Assignment, FDS_MAX, MESSAGE_MAX};

use crate::address::{Kind, UNIX_MAX};
use crate::deadline::{Deadline, now, poll_until};
use crate::error::{Error, Fault, MessageFault, Operation, counted};
use crate::failure::Failure;
use crate::launch::Launch;
use crate::pidfd;
use crate::slot::Slot;
use crate::sys::VsockAddress;
use crate::variable::Variable;
use core::fmt::{self, Write};
use core::mem::MaybeUninit;
use core::time::Duration;
use heapless::{String, Vec};
use rustix::event::PollFlags;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::{Errno, IoSlice};
use rustix::net::addr::SocketAddrArg;
use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, Shutdown, SocketAddrUnix,
    SocketFlags, SocketType, sockopt,
};
use rustix::pipe::PipeFlags;
use rustix::process::getpid;
use target::Target;

/// The address of the service manager, and how long to wait for it.
///
/// ```no_run
/// use gracenet::Notifier;
/// use gracenet::notify::Assignment;
///
/// # fn main() -> Result<(), gracenet::Error> {
/// # let launch: gracenet::Launch = unsafe { gracenet::Launch::from_libc() }?;
/// let notifier = Notifier::from_launch(&launch)?;
/// let is_heard = notifier.send(&[Assignment::Status("12 clients")])?; // false without a manager
/// # Ok(())
/// # }
/// ```
///
/// A notifier without an address sends nothing and returns `false` from every call. So a service needs no second code
/// path without a manager. A notifier is less than 200 bytes large.
#[derive(Clone, Debug)]
#[doc(alias = "NOTIFY_SOCKET")]
pub struct Notifier {
    /// The value of `NOTIFY_SOCKET`, and the functions that use it. `None` sends nothing.
    manager: Option<(Value, &'static Verbs)>,
    timeout: Slot<Duration>,
}

/// A value of `NOTIFY_SOCKET` that was parsed once.
type Value = Vec<u8, { UNIX_MAX + 1 }>;

/// What a notifier with an address can do.
///
/// Only [`Notifier::parse`] hands out pointers to these functions, so a program that never calls it does not contain
/// the code. The failure is a value for the same reason: with a `&dyn Display` every caller would contain its words,
/// 15 KiB with those of `core::fmt`.
#[derive(Debug)]
struct Verbs {
    send: Send,
    tell: fn(&Notifier, Message, usize) -> Result<(), Error>,
    begin_restart: fn(&Notifier) -> Result<MainPid, Error>,
    report_failure: fn(&Notifier, Failure),
}

type Send = fn(&[u8], &[Assignment<'_>], &[BorrowedFd<'_>], &mut Deadline) -> Result<(), Error>;

static VERBS: Verbs = Verbs { send, tell: life::tell, begin_restart: main_pid::begin, report_failure };

impl Default for Notifier {
    fn default() -> Self {
        Self::none()
    }
}

impl Notifier {
    /// How long a call waits for a manager whose socket is full, unless [`Notifier::timeout`] was called.
    pub const TIMEOUT: Duration = Duration::from_secs(5);

    /// Returns a notifier without a manager, which never sends anything.
    #[must_use]
    pub const fn none() -> Self {
        Self { manager: None, timeout: Slot::Empty }
    }

    /// Returns a notifier for the manager that started this process, as `NOTIFY_SOCKET` says, or one without a
    /// manager.
    ///
    /// The variable stays in the launch's table for the successor. A privileged start gets no manager. To trust the
    /// variable nevertheless, pass [`Launch::var`] to [`Notifier::parse`].
    ///
    /// # Errors
    ///
    /// - As for [`Notifier::parse`].
    pub fn from_launch<const ARGS: usize, const VARS: usize>(
        launch: &Launch<ARGS, VARS>,
    ) -> Result<Self, Error> {
        match launch.var(Variable::NotifySocket.name().as_bytes()) {
            Some(value) if !launch.is_privileged() => Self::parse(value),
            _ => Ok(Self::none()),
        }
    }

    /// Returns a notifier for the manager at `value`, the value of `NOTIFY_SOCKET`.
    ///
    /// The forms are `/path`, `@abstract` and `vsock:CID:PORT`. The prefix may also be `vsock-stream`, `vsock-dgram`
    /// or `vsock-seqpacket`.
    ///
    /// # Errors
    ///
    /// - [`Error::Variable`]: the value has none of these forms.
    pub fn parse(value: &[u8]) -> Result<Self, Error> {
        Target::parse(value)?;
        let value = Value::from_slice(value)
            .map_err(|_| Variable::NotifySocket.fault(Fault::TooLong { bytes: counted(value.len()) }))?;
        Ok(Self { manager: Some((value, &VERBS)), timeout: Slot::Empty })
    }

    /// Sets how long a call waits at most, however many messages it sends. With 0, a full socket of the manager is an
    /// error at once.
    #[must_use]
    pub const fn timeout(mut self, timeout: Duration) -> Self {
        self.set_timeout(timeout);
        self
    }

    pub(crate) const fn set_timeout(&mut self, timeout: Duration) {
        self.timeout = Slot::Full(timeout);
    }

    /// Returns whether there is a manager to send to.
    #[must_use]
    pub const fn is_present(&self) -> bool {
        self.manager.is_some()
    }

    /// Sends one message. Returns `false` if there is no manager.
    ///
    /// # Errors
    ///
    /// Nothing was sent.
    ///
    /// - [`Error::Message`]: the manager would refuse, ignore or misread the message.
    /// - [`Error::Call`]: a system call failed. `connect` fails with `ECONNREFUSED` or `ENOENT` if the manager is
    ///   gone, `send` with `ETIMEDOUT` if its socket stayed full.
    ///
    /// # References
    ///
    /// - `sd_notify(3)`
    #[doc(alias = "sd_notify")]
    pub fn send(&self, assignments: &[Assignment<'_>]) -> Result<bool, Error> {
        self.send_with_fds(assignments, &[])
    }

    /// Sends one message with descriptors, of which the manager gets duplicates. Returns `false` if there is no
    /// manager.
    ///
    /// # Errors
    ///
    /// - As for [`Notifier::send`].
    ///
    /// # References
    ///
    /// - `sd_pid_notify_with_fds(3)`
    #[doc(alias = "sd_pid_notify_with_fds")]
    pub fn send_with_fds(
        &self,
        assignments: &[Assignment<'_>],
        fds: &[BorrowedFd<'_>],
    ) -> Result<bool, Error> {
        self.send_by(assignments, fds, &mut self.deadline())
    }

    /// Returns the deadline of a call that begins now.
    pub(crate) fn deadline(&self) -> Deadline {
        Deadline::after(self.timeout.as_ref().copied().unwrap_or(Self::TIMEOUT))
    }

    /// Sends one of a call's messages, and waits until `deadline` at most.
    pub(crate) fn send_by(
        &self,
        assignments: &[Assignment<'_>],
        fds: &[BorrowedFd<'_>],
        deadline: &mut Deadline,
    ) -> Result<bool, Error> {
        match &self.manager {
            None => Ok(false),
            Some((value, verbs)) => (verbs.send)(value, assignments, fds, deadline).map(|()| true),
        }
    }

    /// Waits until the manager has processed every message from this process. Returns `false` if there is no manager.
    ///
    /// Call this before the process exits after a message. The manager cannot attribute a message from a process that
    /// is gone.
    ///
    /// # Errors
    ///
    /// - [`Error::Call`]: a system call failed. `barrier` with `ETIMEDOUT` means that the manager did not answer in
    ///   time.
    /// - [`Error::Message`]: the manager is behind a vsock, over which descriptors cannot be sent.
    ///
    /// # References
    ///
    /// - `sd_notify_barrier(3)`
    #[doc(alias = "sd_notify_barrier")]
    pub fn barrier(&self) -> Result<bool, Error> {
        if !self.is_present() {
            return Ok(false);
        }
        let mut deadline = self.deadline();
        let (ours, theirs) = barrier_pipe()?;
        self.send_by(&[Assignment::Barrier], &[theirs.as_fd()], &mut deadline)?;
        drop(theirs);
        let [found] = poll_until([(ours.as_fd(), PollFlags::empty())], &mut deadline)?;
        if found.is_empty() { Err(Error::call(Operation::Barrier, Errno::TIMEDOUT)) } else { Ok(true) }
    }

    /// Stores duplicates of `fds` in the service manager, under `name`. Returns `false` if there is no manager.
    ///
    /// The manager keeps the duplicates over a crash, a restart and, if the unit says so, a stop. The next start
    /// finds them among the inherited descriptors, behind the sockets, in any order. A descriptor that is kept
    /// already is not kept twice. More than 253 descriptors are sent in several messages.
    ///
    /// The manager silently drops what does not fit its store (`FileDescriptorStoreMax=`). It also drops a descriptor
    /// that becomes readable with `POLLHUP`, such as a connection that its client closes, unless `poll` is false.
    ///
    /// # Errors
    ///
    /// - As for [`Notifier::send`]. If there are several messages, the first ones may have been sent.
    ///
    /// # References
    ///
    /// - "File Descriptor Store" of systemd's documentation, `FDSTORE=1` in `sd_notify(3)`
    #[doc(alias = "FDSTORE")]
    pub fn store(&self, name: &str, fds: &[BorrowedFd<'_>], poll: bool) -> Result<bool, Error> {
        let assignments = [Assignment::FdStore, Assignment::FdName(name), Assignment::NoFdPoll];
        let assignments = if poll { assignments.get(..2) } else { Some(&assignments[..]) }.unwrap_or(&[]);
        let mut deadline = self.deadline();
        let mut batches = fds.chunks(FDS_MAX);
        // No descriptors at all are an error of the message's.
        self.send_by(assignments, batches.next().unwrap_or(&[]), &mut deadline)?;
        for batch in batches {
            self.send_by(assignments, batch, &mut deadline)?;
        }
        Ok(self.is_present())
    }

    /// Removes everything that the manager keeps under `name`. Returns `false` if there is no manager.
    ///
    /// # Errors
    ///
    /// - As for [`Notifier::send`].
    ///
    /// # References
    ///
    /// - `FDSTOREREMOVE=1` in `sd_notify(3)`
    #[doc(alias = "FDSTOREREMOVE")]
    pub fn unstore(&self, name: &str) -> Result<bool, Error> {
        self.send(&[Assignment::FdStoreRemove, Assignment::FdName(name)])
    }

    /// Returns whether the manager accepts descriptors. A manager behind a vsock does not.
    pub(crate) fn takes_fds(&self) -> bool {
        self.manager.as_ref().is_some_and(|(value, _)| matches!(value.first(), Some(b'/' | b'@')))
    }

    /// Tells the manager how it is with this service, which has so many sockets.
    pub(crate) fn tell(&self, message: Message, sockets: usize) -> Result<(), Error> {
        match &self.manager {
            None => Ok(()),
            Some((_, verbs)) => (verbs.tell)(self, message, sockets),
        }
    }

    /// Tells the manager that a restart begins; `None` if there is no manager.
    pub(crate) fn begin_restart(&self) -> Result<Option<MainPid>, Error> {
        match &self.manager {
            None => Ok(None),
            Some((_, verbs)) => (verbs.begin_restart)(self).map(Some),
        }
    }

    /// Reports to the manager that a restart has failed, and that the service goes on as before.
    pub(crate) fn report_failure(&self, why: Failure) {
        if let Some((_, verbs)) = &self.manager {
            (verbs.report_failure)(self, why);
        }
    }
}

fn report_failure(notifier: &Notifier, why: Failure) {
    let mut status = Status(String::new());
    // The text is cut where it does not fit.
    let _ = write!(status, "restart failed: {why}");
    // Without this message the manager waits for the reload until its own timeout. No other process can send it.
    let _ = notifier.send(&[Assignment::Ready, Assignment::Status(&status.0)]);
}

/// A line that holds as much text as fits.
struct Status(String<256>);

impl Write for Status {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.chars().try_for_each(|character| self.0.push(character)).map_err(|_| fmt::Error)
    }
}

/// Returns the time within which the manager expects `WATCHDOG=1` from this process. Send at half of it.
///
/// Returns `None` if the watchdog is off, or watches another process, or after a privileged start.
///
/// # Errors
///
/// - [`Error::Variable`]: `WATCHDOG_USEC` or `WATCHDOG_PID` cannot be read.
///
/// # References
///
/// - `sd_watchdog_enabled(3)`
#[doc(alias = "sd_watchdog_enabled")]
#[doc(alias = "WATCHDOG_USEC")]
pub fn watchdog<const ARGS: usize, const VARS: usize>(
    launch: &Launch<ARGS, VARS>,
) -> Result<Option<Duration>, Error> {
    if launch.is_privileged() {
        return Ok(None);
    }
    let own = getpid().as_raw_nonzero().get().unsigned_abs();
    watchdog::parse(launch.var(b"WATCHDOG_USEC"), launch.var(b"WATCHDOG_PID"), own)
}

/// Returns the inode number of a process's pidfd, for [`Assignment::MainPidfdId`]; `None` before Linux 6.9, and on 32
/// bits.
#[must_use]
pub fn pidfd_id(pidfd: BorrowedFd<'_>) -> Option<u64> {
    pidfd::id(pidfd)
}

/// Returns whether systemd runs this machine or container.
///
/// # References
///
/// - `sd_booted(3)`
#[doc(alias = "sd_booted")]
#[must_use]
pub fn is_booted() -> bool {
    rustix::fs::lstat(c"/run/systemd/system/")
        .is_ok_and(|stat| rustix::fs::FileType::from_raw_mode(stat.st_mode).is_dir())
}

/// Makes a pipe whose first end becomes readable with `POLLHUP` once the manager has processed the message that
/// carried the second.
pub(crate) fn barrier_pipe() -> Result<(OwnedFd, OwnedFd), Error> {
    rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(|errno| Error::call(Operation::Pipe, errno))
}

fn send(
    value: &[u8],
    assignments: &[Assignment<'_>],
    fds: &[BorrowedFd<'_>],
    deadline: &mut Deadline,
) -> Result<(), Error> {
    let mut message = message::Bytes::new();
    message::render(assignments, fds.len(), now(), &mut message)?;
    let invalid = |errno| Error::call(Operation::Connect, errno);
    match Target::parse(value)? {
        Target::Path(path) => {
            send_datagram(&SocketAddrUnix::new(path).map_err(invalid)?, &message, fds, deadline)
        }
        Target::Abstract(name) => {
            let address = SocketAddrUnix::new_abstract_name(name).map_err(invalid)?;
            send_datagram(&address, &message, fds, deadline)
        }
        Target::Vsock { .. } if !fds.is_empty() => Err(MessageFault::Vsock.at(0)),
        Target::Vsock { kind, cid, port } => {
            send_vsock(kind, VsockAddress::new(cid, port), &message, deadline)
        }
    }
}

fn send_datagram(
    address: &SocketAddrUnix,
    message: &[u8],
    fds: &[BorrowedFd<'_>],
    deadline: &mut Deadline,
) -> Result<(), Error> {
    let socket = socket(AddressFamily::UNIX, SocketType::DGRAM)?;
    // Connected, because otherwise poll would not wait for space in the manager's queue.
    connect(&socket, address, deadline)?;
    send_all(&socket, message, fds, deadline)
}

fn send_vsock(
    kind: Option<Kind>,
    address: VsockAddress,
    message: &[u8],
    deadline: &mut Deadline,
) -> Result<(), Error> {
    const ANY: [Kind; 3] = [Kind::Datagram, Kind::Packet, Kind::Stream];
    let mut refused = Error::call(Operation::Socket, Errno::SOCKTNOSUPPORT);
    for candidate in kind.as_ref().map_or(&ANY[..], core::slice::from_ref) {
        match open_vsock(*candidate, &address, deadline) {
            Ok(socket) => {
                send_all(&socket, message, &[], deadline)?;
                return match candidate {
                    Kind::Datagram => Ok(()),
                    Kind::Packet | Kind::Stream => finish(&socket, deadline),
                };
            }
            Err(error) if error.errno().is_some_and(is_unsupported) => refused = error,
            Err(error) => return Err(error),
        }
    }
    Err(refused)
}

/// Returns whether `errno` means that the kernel or the hypervisor lacks this type of socket.
const fn is_unsupported(errno: Errno) -> bool {
    matches!(
        errno,
        Errno::AFNOSUPPORT | Errno::NODEV | Errno::OPNOTSUPP | Errno::PROTONOSUPPORT | Errno::SOCKTNOSUPPORT
    )
}

fn open_vsock(kind: Kind, address: &VsockAddress, deadline: &mut Deadline) -> Result<OwnedFd, Error> {
    let kind = match kind {
        Kind::Datagram => SocketType::DGRAM,
        Kind::Packet => SocketType::SEQPACKET,
        Kind::Stream => SocketType::STREAM,
    };
    let socket = socket(AddressFamily::VSOCK, kind)?;
    // The other end may want to see that a privileged process speaks. So bind the highest free port below 1024, if
    // this process may. Otherwise go on with any port.
    for port in (1..1024).rev() {
        match rustix::net::bind(&socket, &VsockAddress::any(port)) {
            Err(Errno::ADDRINUSE) => {}
            _ => break,
        }
    }
    connect(&socket, address, deadline)?;
    Ok(socket)
}

fn socket(family: AddressFamily, kind: SocketType) -> Result<OwnedFd, Error> {
    rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)
        .map_err(|errno| Error::call(Operation::Socket, errno))
}

fn connect(socket: &OwnedFd, address: &impl SocketAddrArg, deadline: &mut Deadline) -> Result<(), Error> {
    let connected = match rustix::net::connect(socket, address) {
        Err(Errno::INPROGRESS | Errno::INTR) => {
            wait(socket, PollFlags::OUT, Operation::Connect, deadline)?;
            sockopt::socket_error(socket).and_then(|result| result)
        }
        other => other,
    };
    connected.map_err(|errno| Error::call(Operation::Connect, errno))
}

/// Sends one datagram, or every byte to a stream.
fn send_all(
    socket: &OwnedFd,
    message: &[u8],
    fds: &[BorrowedFd<'_>],
    deadline: &mut Deadline,
) -> Result<(), Error> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(MessageFault::TooManyFds { fds: counted(fds.len()) }.at(0));
    }
    let mut rest = message;
    while !rest.is_empty() {
        match rustix::net::sendmsg(socket, &[IoSlice::new(rest)], &mut control, SendFlags::NOSIGNAL) {
            Ok(sent) => rest = rest.get(sent..).unwrap_or(&[]),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => wait(socket, PollFlags::OUT, Operation::Send, deadline)?,
            Err(errno) => return Err(Error::call(Operation::Send, errno)),
        }
    }
    Ok(())
}

/// Shuts the sending side down, and waits until the other end has read everything and closed.
fn finish(socket: &OwnedFd, deadline: &mut Deadline) -> Result<(), Error> {
    rustix::net::shutdown(socket, Shutdown::Write)
        .map_err(|errno| Error::call(Operation::Shutdown, errno))?;
    loop {
        match rustix::net::recv(socket, &mut [0_u8; 64], RecvFlags::empty()) {
            Ok((0, _)) => return Ok(()),
            Ok(_) | Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => wait(socket, PollFlags::IN, Operation::Recv, deadline)?,
            Err(errno) => return Err(Error::call(Operation::Recv, errno)),
        }
    }
}

/// Waits for the socket. Fails with `ETIMEDOUT` from `operation` if the deadline passes.
fn wait(
    socket: &OwnedFd,
    flags: PollFlags,
    operation: Operation,
    deadline: &mut Deadline,
) -> Result<(), Error> {
    let [found] = poll_until([(socket.as_fd(), flags)], deadline)?;
    if found.is_empty() { Err(Error::call(operation, Errno::TIMEDOUT)) } else { Ok(()) }
}
