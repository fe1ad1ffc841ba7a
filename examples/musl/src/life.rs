//! The life of a server, as C has it: `struct gracenet_policy` in, `struct gracenet_event` out.

use crate::error::{Last, Parts};
use crate::text::Text;
use core::ffi::{c_char, c_int, c_uint};
use core::fmt::Write;
use core::time::Duration;
use gracenet::service::{Refused, Reload, Watchdog};
use gracenet::{Event, Leave, Policy, Request};
use rustix::io::Errno;

/// `struct gracenet_policy`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Terms {
    ready_ms: c_uint,
    drain_ms: c_uint,
    barrier_ms: c_uint,
    retry_ms: c_uint,
    flags: c_uint,
}

type Setter = fn(Policy<'static>, Duration) -> Policy<'static>;

const RELOAD_EXEC: c_uint = 1;
const KEEP_SIGNALS: c_uint = 2;
const KEEP_ORPHANS: c_uint = 4;
const WATCHDOG_ALIVE: c_uint = 8;
const WATCHDOG_OFF: c_uint = 16;
const FLAGS: c_uint = RELOAD_EXEC | KEEP_SIGNALS | KEEP_ORPHANS | WATCHDOG_ALIVE | WATCHDOG_OFF;

impl Terms {
    /// The policy; none where the flags make no sense.
    pub(crate) fn policy(&self) -> Result<Policy<'static>, Last> {
        let has = |flag| self.flags & flag != 0;
        if self.flags & !FLAGS != 0 || has(WATCHDOG_ALIVE) && has(WATCHDOG_OFF) {
            return Err(Last::Argument);
        }
        let mut policy = Policy::new().signals(!has(KEEP_SIGNALS)).orphans(!has(KEEP_ORPHANS));
        if has(RELOAD_EXEC) {
            policy = policy.reload(Reload::Exec);
        }
        if has(WATCHDOG_ALIVE) {
            policy = policy.watchdog(Watchdog::Alive);
        }
        if has(WATCHDOG_OFF) {
            policy = policy.watchdog(Watchdog::Off);
        }
        let times: [(c_uint, Setter); 4] = [
            (self.ready_ms, Policy::ready_within),
            (self.drain_ms, Policy::drain_within),
            (self.barrier_ms, Policy::barrier_within),
            (self.retry_ms, Policy::retry_every),
        ];
        for (milliseconds, set) in times {
            if milliseconds != 0 {
                policy = set(policy, Duration::from_millis(milliseconds.into()));
            }
        }
        Ok(policy)
    }
}

/// `enum gracenet_request`.
pub(crate) const fn request(number: c_uint) -> Result<Request, Last> {
    match number {
        1 => Ok(Request::Spawn),
        2 => Ok(Request::Exec),
        3 => Ok(Request::Terminate),
        _ => Err(Last::Argument),
    }
}

/// `enum gracenet_event_kind`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) enum Kind {
    Other,
    Serve,
    Drain,
    Exit,
    Started,
    HandedOver,
    Failed,
    Refused,
    Unheard,
    Unseen,
    Main,
}

/// `enum gracenet_leave`.
const fn number_of(leave: Leave) -> c_int {
    match leave {
        Leave::HandOver => 1,
        Leave::Exit => 2,
        Leave::Exec => 3,
        _ => 0,
    }
}

/// The errno that comes closest.
const fn errno_of(why: Refused) -> Errno {
    match why {
        Refused::InFlight => Errno::BUSY,
        Refused::Leaving => Errno::ALREADY,
        Refused::Init => Errno::PERM,
        _ => Errno::AGAIN,
    }
}

/// `struct gracenet_event`.
#[repr(C)]
pub struct CEvent {
    kind: Kind,
    leave: c_int,
    status: c_int,
    pid: c_int,
    error: Parts,
    text: [c_char; 256],
}

impl CEvent {
    pub(crate) fn of(event: Event) -> Self {
        let error = Last::None.parts();
        let mut c = Self { kind: Kind::Other, leave: 0, status: 0, pid: 0, error, text: [0; 256] };
        c.kind = match event {
            Event::Serve => Kind::Serve,
            Event::Drain(leave) => {
                c.leave = number_of(leave);
                Kind::Drain
            }
            Event::Exit(status) => {
                c.status = status.into();
                Kind::Exit
            }
            Event::Started(pid) => {
                c.pid = pid.as_raw_nonzero().get();
                Kind::Started
            }
            Event::HandedOver(pid) => {
                c.pid = pid.as_raw_nonzero().get();
                Kind::HandedOver
            }
            Event::Failed(failure) => {
                c.error = Last::from(failure).parts();
                Kind::Failed
            }
            Event::Refused(why) => {
                c.error = Parts::of_state(errno_of(why));
                Kind::Refused
            }
            Event::Unheard(error) => {
                c.error = Last::from(error).parts();
                Kind::Unheard
            }
            Event::Unseen(error) => {
                c.error = Last::from(error).parts();
                Kind::Unseen
            }
            Event::Main => Kind::Main,
            _ => Kind::Other,
        };
        // SAFETY: its own field.
        let mut text = unsafe { Text::new(c.text.as_mut_ptr(), c.text.len()) };
        let _ = write!(text, "{event}");
        text.end();
        c
    }
}
