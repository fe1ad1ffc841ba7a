//! A C string known by its address alone, so that a table of them is what `execve` reads.
//!
//! This room wraps the pointer and reads through it. It makes no system call and owns nothing; who creates
//! a [`CStrPtr`] answers for the string staying where it is.
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
    /// Wraps `ptr`; `None` for a null pointer.
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

    /// The string.
    #[must_use]
    pub const fn as_c_str(&self) -> &CStr {
        // SAFETY: `new` was promised a string that lives as long as this value is used.
        unsafe { CStr::from_ptr(self.0.as_ptr()) }
    }

    /// The string's bytes, without the NUL.
    #[must_use]
    pub const fn to_bytes(&self) -> &[u8] {
        self.as_c_str().to_bytes()
    }

    /// The string's bytes, for as long as the string itself stays.
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

    /// What follows the first `bytes` of the string; `None` if it is shorter.
    #[must_use]
    pub(crate) fn behind(&self, bytes: usize) -> Option<Self> {
        if bytes > self.to_bytes().len() {
            return None;
        }
        // SAFETY: at most the length, so on the NUL at the furthest.
        Some(Self(unsafe { self.0.add(bytes) }))
    }

    /// Whether this is the variable `name`: the string begins with `name` and `=`. Reads no further than
    /// the first difference.
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
