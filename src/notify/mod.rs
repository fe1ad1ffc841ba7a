//! Notification: messages to the service manager.
//!
//! A [`Notifier`] knows where the manager listens. Each message goes out as one datagram on a socket of its
//! own, which is closed again, as libsystemd does it: nothing is kept open, and a manager that was executed
//! anew finds its messages. A message is checked before a socket is opened for it; no wait is longer than
//! the notifier's timeout. Two things libsystemd does are left out on purpose. A message of 4096 bytes and
//! 253 descriptors fits the kernel's smallest send buffer, so none is enlarged; and the sender's credentials
//! are attached by the kernel, for this process, which is the only one that this module speaks for.
//!
//! | module | holds |
//! |---|---|
//! | `life` | what a service says of its life |
//! | `main_pid` | what a predecessor says of a restart |
//! | `message` | assignments, and the bytes they make |
//! | `target` | what `NOTIFY_SOCKET` says |
//! | `watchdog` | what `WATCHDOG_USEC` and `WATCHDOG_PID` say |
//!
//! Given one with [`Net::set_notifier`](crate::Net::set_notifier), a [`Net`](crate::Net) speaks to the manager
//! at the right moments: see [`Net::ready`](crate::Net::ready) and [`Net::spawn`](crate::Net::spawn). What else a
//! service has to say, it says through [`Net::notifier`](crate::Net::notifier).

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
use crate::error::{Error, Fault, MessageFault, Operation};
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

/// Where the service manager listens, and how long to wait for it.
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
/// One without an address is of use too: whatever it is told to send, it answers that nothing was sent, so a
/// service needs no second code path for a life without a manager. It takes less than 200 bytes.
#[derive(Clone, Debug)]
#[doc(alias = "NOTIFY_SOCKET")]
pub struct Notifier {
    /// The value of `NOTIFY_SOCKET`, and what is done with it: nothing without it.
    manager: Option<(Value, &'static Verbs)>,
    timeout: Slot<Duration>,
}

/// A value that was parsed once.
type Value = Vec<u8, { UNIX_MAX + 1 }>;

/// What a notifier with an address can do. Reached through pointers that [`Notifier::parse`] alone hands out, so
/// that a program which never calls it does not carry the code. The failure is a value for the same reason: a
/// `&dyn Display` would make every caller carry its words, 15 KiB with those of `core::fmt`.
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
    /// How long a call waits for a manager whose socket is full, where nothing else was said.
    pub const TIMEOUT: Duration = Duration::from_secs(5);

    /// No manager: nothing is ever sent.
    #[must_use]
    pub const fn none() -> Self {
        Self { manager: None, timeout: Slot::Empty }
    }

    /// The manager that this process was started by, or none: as `NOTIFY_SOCKET` says, which stays in the
    /// launch's table for the successor. A privileged start has none, but for who takes [`Launch::var`] at its word, with
    /// [`Notifier::parse`].
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

    /// The manager at the address that `NOTIFY_SOCKET` has as its value: `/path`, `@abstract`,
    /// `vsock:CID:PORT`, and the same with `vsock-stream`, `vsock-dgram` and `vsock-seqpacket`.
    ///
    /// # Errors
    ///
    /// - [`Error::Variable`]: it is none of these.
    pub fn parse(value: &[u8]) -> Result<Self, Error> {
        Target::parse(value)?;
        let value = Value::from_slice(value)
            .map_err(|_| Variable::NotifySocket.fault(Fault::TooLong { bytes: value.len() }))?;
        Ok(Self { manager: Some((value, &VERBS)), timeout: Slot::Empty })
    }

    /// Lets no call wait longer than `timeout`, however many messages it sends. With 0, a manager whose socket is
    /// full is an error at once.
    #[must_use]
    pub const fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Slot::Full(timeout);
        self
    }

    /// Whether there is a manager to send to.
    #[must_use]
    pub const fn is_present(&self) -> bool {
        self.manager.is_some()
    }

    /// Sends one message, and tells whether there was somebody to send it to.
    ///
    /// # Errors
    ///
    /// Nothing was sent.
    ///
    /// - [`Error::Message`]: the message is not one that the manager would take at its word.
    /// - [`Error::Call`]: a system call failed: `connect` with `ECONNREFUSED` or `ENOENT` where the manager is
    ///   gone, `send` with `ETIMEDOUT` where its socket stayed full.
    ///
    /// # References
    ///
    /// - `sd_notify(3)`
    #[doc(alias = "sd_notify")]
    pub fn send(&self, assignments: &[Assignment<'_>]) -> Result<bool, Error> {
        self.send_with_fds(assignments, &[])
    }

    /// The same, with descriptors, of which the manager gets duplicates.
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

    /// Until when a call that begins now may wait.
    pub(crate) fn deadline(&self) -> Deadline {
        Deadline::after(self.timeout.as_ref().copied().unwrap_or(Self::TIMEOUT))
    }

    /// Sends one of a call's messages.
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

    /// Waits until the manager has processed everything that this process has sent, and tells whether there
    /// was a manager. A service that sends something and exits needs it: a message from a process that is
    /// gone is nobody's.
    ///
    /// # Errors
    ///
    /// - [`Error::Call`]: a system call failed; `barrier` with `ETIMEDOUT`: the manager did not answer in time.
    /// - [`Error::Message`]: the manager is behind a vsock, which takes no descriptors.
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

    /// Has the manager keep duplicates of `fds` under `name`, over a crash, a restart and, where the unit says
    /// so, a stop; tells whether there was a manager. The next start finds them among the inherited, behind
    /// the sockets, in any order. More than 253 go in several messages. One that is kept already is not kept
    /// twice.
    ///
    /// The manager does not say when its store is full (`FileDescriptorStoreMax=`): what does not fit it drops.
    /// It also drops what hangs up, such as a connection that its client closes, unless `poll` is false.
    ///
    /// # Errors
    ///
    /// - As for [`Notifier::send`]; of several messages the first ones may have been sent.
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
        // Not one descriptor: an error of the message's.
        self.send_by(assignments, batches.next().unwrap_or(&[]), &mut deadline)?;
        for batch in batches {
            self.send_by(assignments, batch, &mut deadline)?;
        }
        Ok(self.is_present())
    }

    /// Has the manager drop everything it keeps under `name`; tells whether there was a manager.
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

    /// Whether the manager takes descriptors: not one behind a vsock.
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

    /// Tells the manager that a restart has failed, and that all is as it was.
    pub(crate) fn report_failure(&self, why: Failure) {
        if let Some((_, verbs)) = &self.manager {
            (verbs.report_failure)(self, why);
        }
    }
}

fn report_failure(notifier: &Notifier, why: Failure) {
    let mut status = Status(String::new());
    // What does not fit is cut.
    let _ = write!(status, "restart failed: {why}");
    // A manager that does not hear this waits for the reload until its own timeout: nobody else can tell it.
    let _ = notifier.send(&[Assignment::Ready, Assignment::Status(&status.0)]);
}

/// A line that takes as much as fits.
struct Status(String<256>);

impl Write for Status {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.chars().try_for_each(|character| self.0.push(character)).map_err(|_| fmt::Error)
    }
}

/// How often the manager wants to hear `WATCHDOG=1` from this process: within the time returned; send at half
/// of it. `None` if the watchdog is off, or watches another process.
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

/// The inode number of a process's pidfd, for [`Assignment::MainPidfdId`]; `None` before Linux 6.9, and on 32 bits.
#[must_use]
pub fn pidfd_id(pidfd: BorrowedFd<'_>) -> Option<u64> {
    pidfd::id(pidfd)
}

/// Whether systemd runs this machine or container.
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

/// A pipe whose first end hangs up once the manager has come to the message that carried the second.
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
    // Connected, so that poll waits for room at the manager's end; it would not otherwise.
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

/// What sockets of a type that neither this kernel nor the hypervisor has fail with.
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
    // The other end may want to see that a privileged process speaks: the highest free port below 1024, for
    // whoever may have it. The others go on with any.
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

/// Sends one datagram, or a stream's every byte.
fn send_all(
    socket: &OwnedFd,
    message: &[u8],
    fds: &[BorrowedFd<'_>],
    deadline: &mut Deadline,
) -> Result<(), Error> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(MessageFault::TooManyFds { fds: fds.len() }.at(0));
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

/// Says that nothing follows, and waits until the other end has taken everything and closed.
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

/// Waits for the socket, or fails as `call` would have, with `ETIMEDOUT`.
fn wait(
    socket: &OwnedFd,
    flags: PollFlags,
    operation: Operation,
    deadline: &mut Deadline,
) -> Result<(), Error> {
    let [found] = poll_until([(socket.as_fd(), flags)], deadline)?;
    if found.is_empty() { Err(Error::call(operation, Errno::TIMEDOUT)) } else { Ok(()) }
}
