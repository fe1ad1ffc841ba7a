//! A slot for one value: an `Option` that is all zeros while it is empty.
//!
//! `Option` uses -1 for the absence of a descriptor, and other bytes for the absence of other values. With one word
//! like that, a static [`Net`](crate::Net) is in the program's file with all of its tables. Each page of it that is
//! touched is copied from there, which needs three times as long as zeroing it. This module makes no system call.

/// A slot that is full or empty.
#[repr(u8)]
#[derive(Clone, Copy, Debug)]
pub(crate) enum Slot<T> {
    Empty = 0,
    Full(T) = 1,
}

impl<T> Slot<T> {
    pub(crate) const fn as_ref(&self) -> Option<&T> {
        match self {
            Self::Empty => None,
            Self::Full(value) => Some(value),
        }
    }

    pub(crate) const fn as_mut(&mut self) -> Option<&mut T> {
        match self {
            Self::Empty => None,
            Self::Full(value) => Some(value),
        }
    }

    /// Takes the value out and leaves the slot empty.
    pub(crate) fn take(&mut self) -> Option<T> {
        match core::mem::replace(self, Self::Empty) {
            Self::Empty => None,
            Self::Full(value) => Some(value),
        }
    }
}

impl<T> From<Option<T>> for Slot<T> {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Empty, Self::Full)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holds_one_value_and_gives_it_back() {
        let mut slot = Slot::from(Some(7));
        assert_eq!(slot.as_ref(), Some(&7));
        assert_eq!(slot.as_mut(), Some(&mut 7));
        assert_eq!((slot.take(), slot.take()), (Some(7), None));
        assert!(Slot::<u8>::from(None).as_ref().is_none());
    }
}
