//! The debt: what a process owes its predecessor and its successor.
//!
//! A [`Debt`] is pure: four states, of which each allows what is right in it. The descriptors that belong to it stand beside
//! it, in [`Owed`], which a [`Net`](crate::Net) holds. `handover` pays what is owed.
//!
//! | debt | means | `ready` | `refuse` | `spawn` | `exec` |
//! |---|---|---|---|---|---|
//! | none | nobody waits for a report | tells the service manager | nothing | yes | yes |
//! | a report | the predecessor waits for it | reports | reports | no | yes, and the new program owes it |
//! | paid | this process is ready, and has said so | nothing | nothing | yes | yes |
//! | refused | the predecessor serves on | an error | nothing | no | no |

use crate::error::Error;
use crate::inherit::Adopted;
use crate::notify::Notifier;
use crate::predecessor::Predecessor;
use crate::ready::{self, Refusal, Report};
use crate::restart::{Progress, Successor};
use crate::slot::Slot;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};

/// What a process owes its predecessor.
#[repr(u8)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Debt {
    /// Zero, for the reason that [`Slot`] has.
    None = 0,
    Report = 1,
    Paid = 2,
    Refused = 3,
}

impl Debt {
    /// What is owed once something was inherited: a report, where there is a socket for it.
    ///
    /// A process that said that it is ready before it inherited anything spoke to nobody.
    const fn inherited(self, reports: bool, count: usize) -> Self {
        match self {
            _ if reports => Self::Report,
            Self::Paid if count == 0 => Self::Paid,
            _ => Self::None,
        }
    }

    /// Whether a successor of this process's may be started.
    ///
    /// A predecessor that may give this process up knows nothing of a successor, which would serve beside it.
    pub(crate) const fn allows_spawn(self) -> bool {
        matches!(self, Self::None | Self::Paid)
    }

    pub(crate) const fn allows_exec(self) -> bool {
        !matches!(self, Self::Refused)
    }

    /// Whether this process speaks to the service manager: its predecessor does until the report is sent.
    pub(crate) const fn is_main(self) -> bool {
        !matches!(self, Self::Report)
    }
}

/// What a process owes, and the descriptors that belong to it.
#[derive(Debug)]
pub(crate) struct Owed {
    pub(crate) debt: Debt,
    /// Whether a successor before the present one got ready.
    handed_over: bool,
    /// While the debt is a report.
    pub(crate) readiness: Slot<OwnedFd>,
    predecessor: Slot<Predecessor>,
    successor: Slot<Successor>,
    pub(crate) notifier: Notifier,
}

impl Owed {
    /// Nothing. All zeros but the notifier.
    pub(crate) const fn new() -> Self {
        Self {
            debt: Debt::None,
            handed_over: false,
            readiness: Slot::Empty,
            predecessor: Slot::Empty,
            successor: Slot::Empty,
            notifier: Notifier::none(),
        }
    }

    /// What came with `count` descriptors.
    pub(crate) fn begin(&mut self, adopted: Adopted, count: usize) {
        self.debt = self.debt.inherited(adopted.readiness.is_some(), count);
        self.readiness = adopted.readiness.into();
        self.predecessor = adopted.predecessor.into();
    }

    pub(crate) const fn predecessor(&self) -> Option<&Predecessor> {
        self.predecessor.as_ref()
    }

    pub(crate) fn take_predecessor(&mut self) -> Option<Predecessor> {
        self.predecessor.take()
    }

    pub(crate) const fn successor(&self) -> Option<&Successor> {
        self.successor.as_ref()
    }

    pub(crate) const fn successor_mut(&mut self) -> Option<&mut Successor> {
        self.successor.as_mut()
    }

    /// Whether a predecessor may accept beside this process: its report is owed.
    pub(crate) fn is_shared(&self) -> bool {
        self.debt == Debt::Report
    }

    /// Whether this process has said that it is ready.
    pub(crate) fn is_paid(&self) -> bool {
        self.debt == Debt::Paid
    }

    /// Whether nobody else serves, or may be about to: a successor.
    pub(crate) fn check_sole(&self) -> Result<(), Error> {
        if self.successor.as_ref().is_some_and(Successor::is_in_flight) {
            return Err(Error::InFlight);
        }
        if self.has_handed_over() { Err(Error::HandedOver) } else { Ok(()) }
    }

    pub(crate) fn has_handed_over(&self) -> bool {
        self.handed_over || self.successor.as_ref().is_some_and(Successor::is_ready)
    }

    /// Reports to the predecessor.
    pub(crate) fn report(&self, socket: BorrowedFd<'_>) -> Result<(), Error> {
        if ready::send(socket, Report::Ready)? || !self.is_given_up(socket)? {
            Ok(())
        } else {
            Err(Error::GivenUp)
        }
    }

    /// Whether the predecessor, which took no report on `socket`, has given this process up and is still there.
    #[cold]
    #[inline(never)]
    fn is_given_up(&self, socket: BorrowedFd<'_>) -> Result<bool, Error> {
        match self.predecessor.as_ref() {
            Some(predecessor) if predecessor.has_exited()? => Ok(false),
            _ => ready::is_given_up(socket),
        }
    }

    #[cold]
    #[inline(never)]
    pub(crate) fn refuse(&mut self, refusal: Refusal) -> Result<(), Error> {
        if let Some(socket) = self.readiness.as_ref() {
            let socket = socket.as_fd();
            let is_heard = ready::send(socket, Report::Refused(refusal))? || self.is_given_up(socket)?;
            self.debt = if is_heard { Debt::Refused } else { Debt::None };
        }
        self.readiness = Slot::Empty;
        Ok(())
    }

    /// Looks at a successor that is in flight; returns whether it has just been found ready, which nobody had noticed.
    ///
    /// # Errors
    ///
    /// - [`Error::InFlight`]: it is in flight still.
    pub(crate) fn settle_successor(&mut self) -> Result<bool, Error> {
        let Some(successor) = self.successor.as_mut() else { return Ok(false) };
        if !successor.is_in_flight() {
            successor.reap();
            return Ok(false);
        }
        match successor.poll() {
            Ok(Progress::Ready) => Ok(true),
            Ok(Progress::Waiting | Progress::Unsettled(_)) => Err(Error::InFlight),
            // It failed unnoticed, and was reaped.
            Err(_) => Ok(false),
        }
    }

    /// Puts a new successor in the place of the one before.
    pub(crate) fn succeed(&mut self, successor: Successor) {
        if self.successor.as_ref().is_some() {
            self.dismiss();
        }
        self.successor = Slot::Full(successor);
    }

    /// Lets go of a successor that failed, or that serves beside this process.
    #[cold]
    #[inline(never)]
    fn dismiss(&mut self) {
        if let Some(before) = self.successor.take() {
            self.handed_over |= before.is_ready();
            before.reap();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_debt_allows_what_is_right_in_it() {
        for (debt, spawn, exec, is_main) in [
            (Debt::None, true, true, true),
            (Debt::Report, false, true, false),
            (Debt::Paid, true, true, true),
            (Debt::Refused, false, false, true),
        ] {
            assert_eq!(
                (debt.allows_spawn(), debt.allows_exec(), debt.is_main()),
                (spawn, exec, is_main),
                "{debt:?}"
            );
            assert_eq!(debt.inherited(true, 0), Debt::Report, "{debt:?}");
        }
        assert_eq!(Debt::Paid.inherited(false, 0), Debt::Paid);
        assert_eq!(Debt::Paid.inherited(false, 1), Debt::None);
        assert_eq!(Debt::None.inherited(false, 1), Debt::None);
    }
}
