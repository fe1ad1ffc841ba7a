//! Names of sockets, in memory of their table's own.
//!
//! The bytes are `LISTEN_FDNAMES=`, the names joined by `:`, and a NUL: the line that a successor's environment holds, so
//! that nothing has to be put together for a restart. Names are copied, so whoever gives one need not keep it. This module
//! makes no system call.
//!
//! Const generics cannot add up a size yet, so the line is two fields behind each other. Seeing them as one slice is the
//! one thing here that takes `unsafe`.
#![allow(unsafe_code)]

use crate::activation::{NAMES_PREFIX, UNKNOWN};
use crate::error::{Error, Table, counted};
use core::fmt;
use core::mem::MaybeUninit;

/// Room for the variable's name and for a longest name.
const HEAD: usize = 288;

/// Room for the name of each socket.
const ROW: usize = 32;

/// A name as text. Each name is ASCII: it was checked before it was pushed.
pub(crate) fn text(name: &[u8]) -> &str {
    core::str::from_utf8(name).unwrap_or("")
}

/// The names in a line, in their order.
pub(crate) fn split(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    let names = line.get(NAMES_PREFIX..).unwrap_or(&[]);
    let names = names.split_last().map(|(_nul, names)| names);
    names.into_iter().flat_map(|names| names.split(|byte| *byte == b':'))
}

/// How many bytes the line may take for up to `sockets` names.
pub(crate) const fn capacity(sockets: usize) -> usize {
    HEAD + ROW * sockets
}

/// The names of up to `N` sockets, joined.
pub struct Names<const N: usize> {
    line: MaybeUninit<Line<N>>,
    /// How many bytes of the line were written, the NUL included; 0 while there is no name.
    len: u32,
}

#[repr(C)]
struct Line<const N: usize> {
    head: [u8; HEAD],
    rows: [[u8; ROW]; N],
}

/// Where a name begins in its line, and how long it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Name {
    at: u32,
    len: u8,
}

impl Name {
    /// The name of a descriptor that was given none. Every other name begins behind the variable's.
    pub const UNKNOWN: Self = Self { at: 0, len: 0 };

    /// The name in the line that it was pushed to.
    #[must_use]
    pub fn of(self, line: &[u8]) -> &[u8] {
        if self == Self::UNKNOWN {
            return UNKNOWN.as_bytes();
        }
        let (at, len) = (self.at as usize, usize::from(self.len));
        line.get(at..at + len).unwrap_or(&[])
    }
}

impl<const N: usize> Names<N> {
    /// No name. All zeros, of which nothing is read before it was written.
    #[must_use]
    pub const fn new() -> Self {
        Self { line: MaybeUninit::uninit(), len: 0 }
    }

    /// Returns whether a further name of `len` bytes finds room.
    ///
    /// # Errors
    ///
    /// - [`Error::Capacity`]: it does not.
    pub const fn check_room(&self, len: usize) -> Result<(), Error> {
        let used = if self.len == 0 { NAMES_PREFIX } else { self.len as usize };
        let needed = used + len + 1;
        let capacity = capacity(N);
        if needed > capacity {
            return Err(Error::Capacity {
                table: Table::Names,
                needed: counted(needed),
                capacity: counted(capacity),
            });
        }
        Ok(())
    }

    /// Adds a name behind the others. The caller has checked that there is room.
    pub fn push(&mut self, name: &[u8]) -> Name {
        if self.len == 0 {
            self.append(b"LISTEN_FDNAMES=");
        } else if let Some(end) = self.bytes_mut().last_mut() {
            *end = b':';
        }
        let at = self.len;
        self.append(name);
        self.append(b"\0");
        Name { at, len: name.len() as u8 }
    }

    /// Takes the name at this position out.
    pub fn remove(&mut self, position: usize) {
        let Some(name) = self.iter().nth(position) else { return };
        let len = name.len() + 1;
        let before: usize = self.iter().take(position).map(|name| name.len() + 1).sum();
        let at = NAMES_PREFIX + before;
        let bytes = self.bytes_mut();
        bytes.copy_within(at + len.., at);
        let left = bytes.len() - len;
        if let Some(end) = bytes.get_mut(left - 1) {
            *end = 0;
        }
        self.len = if left == NAMES_PREFIX { 0 } else { left as u32 };
    }

    /// Takes all names out.
    pub const fn clear(&mut self) {
        self.len = 0;
    }

    /// The names, in their order.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        split(self.bytes())
    }

    /// A name that was pushed here.
    #[must_use]
    pub fn get(&self, name: Name) -> &[u8] {
        name.of(self.bytes())
    }

    /// The whole line with its NUL.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: that many bytes of the line were written, one field behind the other without a gap.
        unsafe { core::slice::from_raw_parts_mut(self.line.as_mut_ptr().cast(), self.len as usize) }
    }

    /// The whole line with its NUL, for [`Name::of`]; empty if there is no name.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: as above.
        unsafe { core::slice::from_raw_parts(self.line.as_ptr().cast(), self.len as usize) }
    }

    fn append(&mut self, bytes: &[u8]) {
        let start = self.line.as_mut_ptr().cast::<MaybeUninit<u8>>();
        // SAFETY: the line is that long, nothing but bytes, and may be uninitialised as far as this type says.
        let line = unsafe { core::slice::from_raw_parts_mut(start, capacity(N)) };
        let room = line.get_mut(self.len as usize..).unwrap_or(&mut []);
        for (to, from) in room.iter_mut().zip(bytes) {
            to.write(*from);
            self.len += 1;
        }
    }
}

impl<const N: usize> Default for Names<N> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const N: usize> fmt::Debug for Names<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter().map(text)).finish()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::std_instead_of_core, reason = "tests")]
    use super::*;
    use std::string::String;
    use std::vec::Vec;

    /// Whatever is pushed and removed, the line is that of the names that are left.
    #[test]
    fn the_line_is_what_the_names_make() {
        const SOME: [&str; 5] = ["", "a", "web", "unknown", "a name of some length"];
        for first in 0..SOME.len().pow(3) {
            for removed in 0..4 {
                let mut names = Names::<4>::new();
                let mut expected: Vec<&str> = Vec::new();
                let mut which = first;
                for _ in 0..3 {
                    let name = SOME.get(which % SOME.len()).copied().unwrap();
                    which /= SOME.len();
                    assert_eq!(names.check_room(name.len()), Ok(()));
                    let at = names.push(name.as_bytes());
                    assert_eq!(text(names.get(at)), name);
                    expected.push(name);
                }
                if removed < expected.len() {
                    expected.remove(removed);
                }
                names.remove(removed);
                assert_eq!(names.iter().map(text).collect::<Vec<_>>(), expected);
                let mut line = String::from("LISTEN_FDNAMES=") + &expected.join(":");
                line.push('\0');
                assert_eq!(names.bytes_mut(), line.as_bytes());
            }
        }
    }

    #[test]
    fn is_empty_again_and_full_in_time() {
        let mut names = Names::<1>::new();
        assert_eq!(names.bytes_mut(), b"");
        assert_eq!(names.iter().count(), 0);
        assert_eq!(text(names.get(Name::UNKNOWN)), UNKNOWN);
        names.push(b"x");
        names.remove(0);
        assert_eq!(names.bytes_mut(), b"");
        let longest = [b'x'; 255];
        assert_eq!(names.check_room(longest.len()), Ok(()));
        names.push(&longest);
        let room = capacity(1) - NAMES_PREFIX - 256;
        assert_eq!(names.check_room(room - 1), Ok(()));
        let full = Error::Capacity {
            table: Table::Names,
            needed: counted(capacity(1) + 1),
            capacity: counted(capacity(1)),
        };
        assert_eq!(names.check_room(room), Err(full));
        names.push(longest.get(..room - 1).unwrap());
        assert_eq!(names.iter().map(<[u8]>::len).collect::<Vec<_>>(), [255, room - 1]);
        names.clear();
        assert_eq!(names.iter().count(), 0);
    }
}
