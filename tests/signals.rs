//! Signals as a descriptor: which come, in whose order, and that nobody waits for them in a call.
#![allow(clippy::unwrap_used, clippy::std_instead_of_core, unsafe_code, reason = "tests")]

use gracenet::Signals;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::OFlags;
use rustix::io::FdFlags;
use rustix::process::Signal;

fn is_readable(signals: &Signals) -> bool {
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    rustix::event::poll(&mut [PollFd::new(signals, PollFlags::IN)], Some(&now)).unwrap() > 0
}

/// To this thread alone, which blocks it.
fn raise(signal: Signal) {
    // SAFETY: the signal is blocked here, and changes nothing.
    assert_eq!(unsafe { libc::raise(signal.as_raw()) }, 0);
}

#[test]
fn a_signal_is_shown_once_and_never_waited_for() {
    // How containers are asked to end.
    // SAFETY: a real-time signal that neither libc keeps for itself.
    let real_time = unsafe { Signal::from_raw_unchecked(libc::SIGRTMIN() + 3) };
    let signals = Signals::new(&[Signal::USR1, Signal::USR2, real_time]).unwrap();
    assert_eq!(rustix::io::fcntl_getfd(&signals), Ok(FdFlags::CLOEXEC));
    assert!(rustix::fs::fcntl_getfl(&signals).unwrap().contains(OFlags::NONBLOCK));
    assert!(!is_readable(&signals));
    assert_eq!(signals.take(), Ok(None));
    for signal in [Signal::USR2, Signal::USR1, real_time] {
        raise(signal);
        assert!(is_readable(&signals));
        assert_eq!(signals.take(), Ok(Some(signal)));
        assert_eq!(signals.take(), Ok(None));
    }
}

#[test]
fn what_came_since_a_signal_was_blocked_is_there_for_the_next() {
    drop(Signals::new(&[Signal::USR1]).unwrap());
    raise(Signal::USR1);
    let signals = Signals::new(&[Signal::USR1]).unwrap();
    assert_eq!(signals.take(), Ok(Some(Signal::USR1)));
}
