//! What a service says of its life, beside what a restart says.

use super::{Assignment, Notifier};
use crate::digits::{DIGITS, decimal};
use crate::error::Error;
use heapless::String;

/// What the service manager is told beside what a restart tells it. Nobody waits for it to be heard.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Message {
    /// `STATUS=` of a process that serves.
    Serving,
    /// `RELOADING=1`, before a drain that ends with an exec.
    Reloading,
    /// `STOPPING=1`.
    Stopping,
    /// `WATCHDOG=1`.
    Alive,
}

pub(super) fn tell(notifier: &Notifier, message: Message, sockets: usize) -> Result<(), Error> {
    match message {
        Message::Serving => {
            let mut line = String::<{ 32 + DIGITS }>::new();
            let mut digits = [0; DIGITS];
            let digits = core::str::from_utf8(decimal(sockets as u64, &mut digits)).unwrap_or("");
            for part in ["serving ", digits, if digits == "1" { " socket" } else { " sockets" }] {
                let _fits = line.push_str(part);
            }
            notifier.send(&[Assignment::Status(&line)])
        }
        Message::Reloading => {
            notifier.send(&[Assignment::Reloading, Assignment::Status("draining, to execute anew")])
        }
        Message::Stopping => notifier.send(&[Assignment::Stopping, Assignment::Status("draining, to exit")]),
        Message::Alive => notifier.send(&[Assignment::Watchdog]),
    }
    .map(drop)
}
