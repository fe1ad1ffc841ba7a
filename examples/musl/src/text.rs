//! Text for a buffer of the caller's.

use core::ffi::c_char;
use core::fmt;

/// What fits goes into the buffer, and all is counted.
pub(crate) struct Text {
    to: *mut u8,
    room: usize,
    len: usize,
}

impl Text {
    /// # Safety
    ///
    /// - `to` is null, or has room for `room` bytes until [`Text::end`].
    pub(crate) const unsafe fn new(to: *mut c_char, room: usize) -> Self {
        Self { to: to.cast(), room: if to.is_null() { 0 } else { room }, len: 0 }
    }

    /// Ends the text with a NUL, and returns how long it is.
    pub(crate) fn end(self) -> usize {
        if let Some(longest) = self.room.checked_sub(1) {
            // SAFETY: within the room.
            unsafe { self.to.add(self.len.min(longest)).write(0) };
        }
        self.len
    }
}

impl fmt::Write for Text {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            if self.len < self.room {
                // SAFETY: within the room.
                unsafe { self.to.add(self.len).write(byte) };
            }
            self.len += 1;
        }
        Ok(())
    }
}
