//! A C string by its address alone, so that a table of such addresses is what `execve` reads.
//!
//! This module wraps the pointer and reads through it. It makes no system call and owns nothing. The creator of a
//! [`CStrPtr`] promises that the string stays where it is.
#![allow(unsafe_code)]

use core::ffi::{CStr, c_char};
use core::ptr::NonNull;

/// The address of a NUL-terminated string; `Option<CStrPtr>` has the layout of a `char *` that may be null.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(transparent)]
pub struct CStrPtr(NonNull<c_char>);

// SAFETY: a `CStrPtr` reads memory only, and `CStrPtr::new` asks for memory that any thread may read.
unsafe impl Send for CStrPtr {}
// SAFETY: as above.
unsafe impl Sync for CStrPtr {}

impl CStrPtr {
    /// Wraps `ptr`. Returns `None` for a null pointer.
    ///
    /// # Safety
    ///
    /// - `ptr` is null, or points to a NUL-terminated string that stays there, unchanged while it is being
    ///   read, as long as this value or a copy of it is used.
    #[must_use]
    pub const unsafe fn new(ptr: *const c_char) -> Option<Self> {
        match NonNull::new(ptr.cast_mut()) {
            Some(ptr) => Some(Self(ptr)),
            None => None,
        }
    }

    /// Returns the string.
    #[must_use]
    pub const fn as_c_str(&self) -> &CStr {
        // SAFETY: `new` was promised a string that lives as long as this value is used.
        unsafe { CStr::from_ptr(self.0.as_ptr()) }
    }

    /// Returns the string's bytes, without the NUL.
    #[must_use]
    pub const fn to_bytes(&self) -> &[u8] {
        self.as_c_str().to_bytes()
    }

    /// Returns the string's bytes, for as long as the string itself stays.
    ///
    /// # Safety
    ///
    /// - The string stays where it is, unchanged, for `'s`.
    #[must_use]
    pub(crate) const unsafe fn detach<'s>(self) -> &'s [u8] {
        // SAFETY: `new` was promised a string, and the caller promises how long it stays.
        let string = unsafe { CStr::from_ptr(self.0.as_ptr()) };
        string.to_bytes()
    }

    /// Returns the rest of the string behind its first `bytes`; `None` if the string is shorter.
    #[must_use]
    pub(crate) fn behind(&self, bytes: usize) -> Option<Self> {
        if bytes > self.to_bytes().len() {
            return None;
        }
        // SAFETY: at most the length, so on the NUL at the furthest.
        Some(Self(unsafe { self.0.add(bytes) }))
    }

    /// Returns whether this is the variable `name`: the string begins with `name` and `=`. Reads no further than the
    /// first difference.
    #[must_use]
    pub(crate) fn is_variable(&self, name: &[u8]) -> bool {
        let mut at = self.0.as_ptr().cast_const().cast::<u8>();
        for expected in name.iter().chain(b"=") {
            // SAFETY: every byte before this one was equal to a byte that is not NUL, so `at` is within the
            // string or on its NUL.
            let found = unsafe { at.read() };
            if found != *expected || found == 0 {
                return false;
            }
            // SAFETY: the byte at `at` was not the NUL, so the string goes on behind it.
            at = unsafe { at.add(1) };
        }
        true
    }
}

impl From<&'static CStr> for CStrPtr {
    fn from(string: &'static CStr) -> Self {
        Self(NonNull::from(string).cast())
    }
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::std_instead_of_core
)]
mod tests {
    use super::*;
    use core::ptr;
    use std::boxed::Box;
    use std::ffi::CString;
    use std::vec::Vec;

    #[test]
    fn is_a_char_pointer_that_may_be_null() {
        assert_eq!(size_of::<Option<CStrPtr>>(), size_of::<*const c_char>());
        // SAFETY: null.
        assert_eq!(unsafe { CStrPtr::new(ptr::null()) }, None);
        let string = c"A=1";
        // SAFETY: a string of the program's own.
        let wrapped = unsafe { CStrPtr::new(string.as_ptr()) };
        assert_eq!(wrapped, Some(string.into()));
        let table = [wrapped, None];
        // SAFETY: a pointer and an `Option<CStrPtr>` have the same size, as was seen above.
        let words: [*const c_char; 2] = unsafe { core::mem::transmute(table) };
        assert_eq!(words, [string.as_ptr(), ptr::null()]);
    }

    #[test]
    fn reads_through_the_pointer() {
        for string in [c"", c"A", c"A=1", c"\xff\x01"] {
            let wrapped = CStrPtr::from(string);
            assert_eq!(wrapped.as_c_str(), string);
            assert_eq!(wrapped.to_bytes(), string.to_bytes());
            // SAFETY: it is the program's own for ever.
            assert_eq!(unsafe { wrapped.detach() }, string.to_bytes());
        }
    }

    #[test]
    fn equal_means_the_same_string_and_not_the_same_bytes() {
        let [a, b] = [c"A=1", c"A=1"].map(CString::from);
        // SAFETY: both live to the end of the test.
        let wrap = |string: &CString| unsafe { CStrPtr::new(string.as_ptr()) }.unwrap();
        assert_eq!(wrap(&a), wrap(&a));
        assert_ne!(wrap(&a), wrap(&b));
        assert_eq!(wrap(&a).as_c_str(), wrap(&b).as_c_str());
    }

    #[test]
    fn behind_goes_as_far_as_the_nul() {
        let wrapped = CStrPtr::from(c"A=1");
        for (bytes, expected) in
            [(0, Some(c"A=1")), (2, Some(c"1")), (3, Some(c"")), (4, None), (usize::MAX, None)]
        {
            assert_eq!(wrapped.behind(bytes).as_ref().map(CStrPtr::as_c_str), expected, "{bytes}");
        }
    }

    #[test]
    fn a_variable_begins_with_its_name_and_an_equals_sign() {
        for (string, name, expected) in [
            (c"A=1", &b"A"[..], true),
            (c"A=", b"A", true),
            (c"A=B=1", b"A", true),
            (c"A=B=1", b"A=B", true),
            (c"=1", b"", true),
            (c"A", b"A", false),
            (c"", b"A", false),
            (c"", b"", false),
            (c"AB=1", b"A", false),
            (c"A=1", b"AB", false),
            (c"a=1", b"A", false),
            (c"A=1", b"A=", false),
            (c"A", b"A\0", false),
            (c"", b"\0", false),
            (c"A=1", b"A=1\0", false),
            (c"LISTEN_FDNAMES=a", b"LISTEN_FDS", false),
        ] {
            assert_eq!(CStrPtr::from(string).is_variable(name), expected, "{string:?} {name:?}");
        }
    }

    #[test]
    fn is_variable_reads_no_further_than_the_nul() {
        // With the bytes behind the NUL it would be the variable.
        let bytes: Box<[u8]> = Vec::from(*b"A\0=1\0").into();
        // SAFETY: the bytes hold a NUL and live to the end of the test.
        let wrapped = unsafe { CStrPtr::new(bytes.as_ptr().cast()) }.unwrap();
        assert!(!wrapped.is_variable(b"A"));
        assert!(!wrapped.is_variable(b"A\0"));
        assert_eq!(wrapped.to_bytes(), b"A");
    }
}
