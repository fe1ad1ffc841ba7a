//! A line of text, put together without `core::fmt`, which alone would be as large as the rest.

use heapless::Vec;
use rustix::fd::BorrowedFd;

pub(crate) struct Line(Vec<u8, 192>);

impl Line {
    pub(crate) const fn new() -> Self {
        Self(Vec::new())
    }

    /// Adds what fits.
    pub(crate) fn text(&mut self, text: &str) -> &mut Self {
        let _ = self.0.extend_from_slice(text.as_bytes());
        self
    }

    pub(crate) fn number(&mut self, number: u64) -> &mut Self {
        if number >= 10 {
            self.number(number / 10);
        }
        let _ = self.0.push(b'0' + (number % 10) as u8);
        self
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whoever closed the other end does not want to read it.
    pub(crate) fn write(&self, to: &BorrowedFd<'_>) {
        let _ = rustix::io::write(to, &self.0);
    }
}
