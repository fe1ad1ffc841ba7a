//! One connection: a request is read as it comes, and answered once.

use crate::line::Line;
use crate::start;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, Shutdown};

/// How every request begins that is answered with the PID.
const REQUEST: &[u8] = b"GET / HTTP/1.";

/// How every request ends.
const END: &[u8] = b"\r\n\r\n";

/// The longest request, in bytes.
const LONGEST: u32 = 4096;

pub(crate) struct Connection {
    socket: OwnedFd,
    /// How many bytes came.
    len: u32,
    /// How many of them are as [`REQUEST`] has them, from the first on.
    begun: u16,
    /// How many of the last ones are as [`END`] has them.
    ended: u16,
    answered: bool,
}

impl Connection {
    pub(crate) const fn new(socket: OwnedFd) -> Self {
        Self { socket, len: 0, begun: 0, ended: 0, answered: false }
    }

    /// Reads what is there, and answers when the request is complete; whether that is all.
    pub(crate) fn advance(&mut self) -> bool {
        let mut buffer = [0; 512];
        loop {
            let len = match rustix::net::recv(&self.socket, &mut buffer[..], RecvFlags::DONTWAIT) {
                // Connected and left: a port scan, a health check.
                Ok((0, _)) if self.len == 0 => return true,
                Ok((len, _)) => len,
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => return false,
                Err(_) => return true,
            };
            if len == 0 {
                self.answer();
                return true;
            }
            for byte in buffer.iter().take(len) {
                self.read(*byte);
            }
            if self.is_ended() || self.len > LONGEST {
                self.answer();
                // What was not read would turn the close into a reset, and the client might not see the answer.
                // Where there is more than it may have to say, it will have to bear that.
                if self.is_begun() || self.len > 16 * LONGEST {
                    return true;
                }
            }
        }
    }

    fn read(&mut self, byte: u8) {
        if u32::from(self.begun) == self.len && REQUEST.get(usize::from(self.begun)) == Some(&byte) {
            self.begun += 1;
        }
        self.len += 1;
        self.ended = match END.get(usize::from(self.ended)) {
            Some(expected) if *expected == byte => self.ended + 1,
            Some(_) => u16::from(byte == b'\r'),
            None => self.ended,
        };
    }

    fn is_begun(&self) -> bool {
        usize::from(self.begun) == REQUEST.len()
    }

    fn is_ended(&self) -> bool {
        usize::from(self.ended) == END.len()
    }

    fn answer(&mut self) {
        if core::mem::replace(&mut self.answered, true) {
            return;
        }
        let mut body = Line::new();
        let status = if self.is_begun() && self.is_ended() {
            body.number(start::pid()).text("\n");
            "200 OK"
        } else {
            body.text("malformed\n");
            "400 Bad Request"
        };
        let mut answer = Line::new();
        answer.text("HTTP/1.1 ").text(status);
        answer.text("\r\nContent-Type: text/plain\r\nConnection: close\r\nContent-Length: ");
        answer.number(body.bytes().len() as u64).text("\r\n\r\n");
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        // A fresh connection has room for this. A client that is gone needs no answer.
        let _ = rustix::net::send(&self.socket, answer.bytes(), flags | SendFlags::MORE);
        let _ = rustix::net::send(&self.socket, body.bytes(), flags);
        let _ = rustix::net::shutdown(&self.socket, Shutdown::Write);
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
