//! The environment's pointer table, rewritten in place.
//!
//! [`Environ`] works on the table that `execve` reads. Slots are replaced, removed, and added at the end. Every other
//! slot keeps its string and its order, and [`Environ::undo`] restores the table. This module makes no system call,
//! copies no string and builds no second table.

use crate::cstr::CStrPtr;
use crate::error::{Error, Table, counted};
use core::cell::Cell;
use core::mem::swap;
use heapless::{Vec, VecView};

/// How many slots one rewriting may touch: the six variables of a restart, and the changes of its caller.
pub const CHANGES: usize = 64;

/// The effect of one step of a rewriting on a slot of the table, with the data to reverse it.
///
/// A slot index is 32 bits here, because all steps of a restart are on its stack, and no table is longer.
#[derive(Clone, Copy, Debug)]
enum Entry {
    Replaced { slot: u32, was: Option<CStrPtr> },
    Removed { slot: u32, was: Option<CStrPtr> },
    Added { slot: u32 },
}

/// The steps of one rewriting, in order.
#[derive(Debug, Default)]
pub struct Journal(Vec<Entry, CHANGES>);

impl Journal {
    /// Returns a journal without steps.
    #[must_use]
    pub const fn new() -> Self {
        Self(Vec::new())
    }
}

/// A table of `NAME=value` strings that ends with its first `None`.
#[derive(Debug)]
pub struct Environ<'t> {
    table: &'t mut VecView<Option<CStrPtr>>,
}

impl<'t> Environ<'t> {
    /// Works on `table`. The `None` that ends the table is added if it is missing.
    ///
    /// # Errors
    ///
    /// - [`Error::Capacity`]: the table is too full for the `None`. The table is unchanged.
    pub fn new(table: &'t mut VecView<Option<CStrPtr>>) -> Result<Self, Error> {
        if !table.iter().any(Option::is_none) && table.push(None).is_err() {
            return Err(full(table));
        }
        let mut environ = Self { table };
        environ.cut();
        Ok(environ)
    }

    /// Iterates over the variables, in order.
    pub fn iter(&self) -> impl Iterator<Item = CStrPtr> + '_ {
        self.table.iter().map_while(|slot| *slot)
    }

    /// Returns the value of the first variable called `name`.
    #[must_use]
    pub fn var(&self, name: &[u8]) -> Option<&[u8]> {
        var(self.table, name)
    }

    /// Returns the first variable called `name`.
    pub(crate) fn find(&self, name: &[u8]) -> Option<CStrPtr> {
        find(self.table, name).copied()
    }

    /// Returns the table as `execve` reads it, with the `None` that ends it.
    pub(crate) fn cells(&mut self) -> &[Cell<Option<CStrPtr>>] {
        let len = self.len() + 1;
        let table = self.table.get_mut(..len).unwrap_or(&mut []);
        Cell::from_mut(table).as_slice_of_cells()
    }

    /// Removes every variable called `name` for good. Do not call it between a step and its undoing, which would not
    /// find the slots where they were.
    pub fn consume(&mut self, name: &[u8]) {
        self.table.retain(|slot| !slot.is_some_and(|string| string.is_variable(name)));
    }

    /// Puts `variable` into the slot of the first variable called `name`, or behind the last variable. Removes every
    /// other variable of that name.
    ///
    /// # Errors
    ///
    /// - [`Error::Capacity`]: the table or `journal` is full. The steps up to here are in `journal`.
    pub fn set(&mut self, name: &[u8], variable: CStrPtr, journal: &mut Journal) -> Result<(), Error> {
        let Some(slot) = self.position(name, 0) else {
            return self.push(variable, journal);
        };
        let was = self.table.get(slot).copied().flatten();
        record(journal, Entry::Replaced { slot: slot as u32, was })?;
        if let Some(entry) = self.table.get_mut(slot) {
            *entry = Some(variable);
        }
        self.remove_from(name, slot + 1, journal)
    }

    /// Removes every variable called `name`.
    ///
    /// # Errors
    ///
    /// - [`Error::Capacity`]: `journal` is full. The steps up to here are in `journal`.
    pub fn remove(&mut self, name: &[u8], journal: &mut Journal) -> Result<(), Error> {
        self.remove_from(name, 0, journal)
    }

    /// Adds `variable` behind the last variable, whatever is in the table.
    ///
    /// # Errors
    ///
    /// - [`Error::Capacity`]: the table or `journal` is full. The table is unchanged.
    pub fn push(&mut self, variable: CStrPtr, journal: &mut Journal) -> Result<(), Error> {
        if self.table.is_full() {
            return Err(full(self.table));
        }
        let slot = self.len();
        record(journal, Entry::Added { slot: slot as u32 })?;
        insert(self.table, slot, Some(variable));
        Ok(())
    }

    /// Reverses the steps in `journal`, last first, so that the table reads as before them.
    pub fn undo(&mut self, journal: &mut Journal) {
        while let Some(entry) = journal.0.pop() {
            match entry {
                Entry::Replaced { slot, was } => {
                    if let Some(place) = self.table.get_mut(slot as usize) {
                        *place = was;
                    }
                }
                Entry::Removed { slot, was } => insert(self.table, slot as usize, was),
                Entry::Added { slot } => take(self.table, slot as usize),
            }
        }
    }

    /// Returns how many variables there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.iter().count()
    }

    /// Returns whether there is no variable.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn position(&self, name: &[u8], from: usize) -> Option<usize> {
        self.iter().enumerate().skip(from).find(|(_, string)| string.is_variable(name)).map(|(slot, _)| slot)
    }

    fn remove_from(&mut self, name: &[u8], from: usize, journal: &mut Journal) -> Result<(), Error> {
        while let Some(slot) = self.position(name, from) {
            let was = self.table.get(slot).copied().flatten();
            record(journal, Entry::Removed { slot: slot as u32, was })?;
            take(self.table, slot);
        }
        Ok(())
    }

    /// Removes everything behind the `None` that ends the table.
    fn cut(&mut self) {
        let len = self.len();
        self.table.truncate(len + 1);
    }
}

/// Returns the value of the first variable called `name` in `table`.
pub(crate) fn var<'t>(table: &'t VecView<Option<CStrPtr>>, name: &[u8]) -> Option<&'t [u8]> {
    find(table, name).and_then(|string| string.to_bytes().get(name.len() + 1..))
}

/// Returns the first variable called `name` in `table`.
pub(crate) fn find<'t>(table: &'t VecView<Option<CStrPtr>>, name: &[u8]) -> Option<&'t CStrPtr> {
    table.iter().map_while(Option::as_ref).find(|string| string.is_variable(name))
}

fn full(table: &VecView<Option<CStrPtr>>) -> Error {
    Error::Capacity {
        table: Table::Variables,
        needed: counted(table.len() + 1),
        capacity: counted(table.capacity()),
    }
}

fn record(journal: &mut Journal, entry: Entry) -> Result<(), Error> {
    journal.0.push(entry).map_err(|_| Error::Capacity {
        table: Table::Changes,
        needed: counted(CHANGES + 1),
        capacity: counted(CHANGES),
    })
}

/// Puts `entry` at `slot`, and moves the slots behind it up by one. The caller checked the capacity.
fn insert(table: &mut VecView<Option<CStrPtr>>, slot: usize, entry: Option<CStrPtr>) {
    if table.push(None).is_ok() {
        let mut carried = entry;
        for place in table.iter_mut().skip(slot) {
            swap(place, &mut carried);
        }
    }
}

/// Removes `slot`, and moves the slots behind it down by one.
fn take(table: &mut VecView<Option<CStrPtr>>, slot: usize) {
    let Some(tail) = table.get_mut(slot..).filter(|tail| !tail.is_empty()) else { return };
    let mut carried = None;
    for place in tail.iter_mut().rev() {
        swap(place, &mut carried);
    }
    table.pop();
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
    use core::ffi::CStr;
    use std::vec::Vec as Unbounded;

    type Variables<const N: usize> = Vec<Option<CStrPtr>, N>;

    fn table<const N: usize>(strings: &[&'static CStr]) -> Variables<N> {
        strings.iter().map(|string| Some(CStrPtr::from(*string))).collect()
    }

    fn read(environ: &Environ<'_>) -> Unbounded<Unbounded<u8>> {
        environ.iter().map(|string| string.to_bytes().to_vec()).collect()
    }

    /// Applies `change` to a table of these strings, compares, undoes it and compares again.
    #[track_caller]
    fn check(
        before: &[&'static CStr],
        change: impl FnOnce(&mut Environ<'_>, &mut Journal) -> Result<(), Error>,
        outcome: Result<(), Error>,
        after: &[&CStr],
    ) {
        let mut table = table::<6>(before);
        let mut environ = Environ::new(table.as_mut_view()).unwrap();
        let pointers: Unbounded<CStrPtr> = environ.iter().collect();
        let mut journal = Journal::new();
        assert_eq!(change(&mut environ, &mut journal), outcome);
        let after: Unbounded<&[u8]> = after.iter().map(|string| string.to_bytes()).collect();
        assert_eq!(read(&environ), after);
        environ.undo(&mut journal);
        assert!(environ.iter().eq(pointers), "not the same pointers, or not in the same order");
        assert_eq!(table.last(), Some(&None));
        assert_eq!(table.len(), before.len() + 1);
    }

    #[test]
    fn the_table_ends_with_its_first_none() {
        let a = Some(CStrPtr::from(c"A=1"));
        let b = Some(CStrPtr::from(c"B=2"));
        for (given, kept) in [
            (&[][..], &[None][..]),
            (&[None], &[None]),
            (&[a], &[a, None]),
            (&[a, b], &[a, b, None]),
            (&[a, None, b], &[a, None]),
            (&[a, None, None], &[a, None]),
            (&[None, a, b], &[None]),
        ] {
            let mut table = Variables::<3>::from_slice(given).unwrap();
            let environ = Environ::new(table.as_mut_view()).unwrap();
            assert_eq!(environ.len(), kept.len() - 1);
            assert_eq!(environ.is_empty(), kept.len() == 1);
            assert_eq!(table, kept);
        }
    }

    #[test]
    fn a_table_without_room_for_its_end_is_refused_unchanged() {
        let before = table::<2>(&[c"A=1", c"B=2"]);
        let mut table = before.clone();
        let refused = Environ::new(table.as_mut_view()).unwrap_err();
        assert_eq!(refused, Error::Capacity { table: Table::Variables, needed: 3, capacity: 2 });
        assert_eq!(table, before);
    }

    #[test]
    fn var_is_the_first_of_its_name() {
        let mut table = table::<12>(&[
            c"A=1", c"AB=2", c"A=3", c"EMPTY=", c"NONE", c"", c"=C:=x", c"E=a=b", c"é=ü", c"B", c"B=4",
        ]);
        let environ = Environ::new(table.as_mut_view()).unwrap();
        for (name, value) in [
            (&b"A"[..], Some(&b"1"[..])),
            (b"AB", Some(b"2")),
            (b"EMPTY", Some(b"")),
            (b"NONE", None),
            (b"a", None),
            (b"ABC", None),
            (b"", Some(b"C:=x")),
            (b"E", Some(b"a=b")),
            (b"E=a", Some(b"b")),
            ("é".as_bytes(), Some("ü".as_bytes())),
            (b"B", Some(b"4")),
            (b"A\0", None),
        ] {
            assert_eq!(environ.var(name), value, "{name:?}");
            assert_eq!(environ.find(name).is_some(), value.is_some(), "{name:?}");
        }
    }

    #[test]
    fn set() {
        let new = CStrPtr::from(c"A=new");
        for (before, after) in [
            (&[][..], &[c"A=new"][..]),
            (&[c"B=1"], &[c"B=1", c"A=new"]),
            (&[c"A=1"], &[c"A=new"]),
            (&[c"B=1", c"A=1", c"C=1"], &[c"B=1", c"A=new", c"C=1"]),
            // Other variables of that name are removed; strings that only look like it stay.
            (&[c"A=1", c"A=2", c"A=3"], &[c"A=new"]),
            (&[c"A", c"A=1", c"AB=1", c"A=2", c""], &[c"A", c"A=new", c"AB=1", c""]),
            (&[c"a=1", c"=A=1"], &[c"a=1", c"=A=1", c"A=new"]),
        ] {
            check(before, |environ, journal| environ.set(b"A", new, journal), Ok(()), after);
        }
    }

    #[test]
    fn remove() {
        for (before, after) in [
            (&[][..], &[][..]),
            (&[c"A=1"], &[]),
            (&[c"A=1", c"B=1", c"A=2"], &[c"B=1"]),
            (&[c"B=1", c"A=", c"C=1"], &[c"B=1", c"C=1"]),
            (&[c"A", c"AB=1", c"", c"=A"], &[c"A", c"AB=1", c"", c"=A"]),
        ] {
            check(before, |environ, journal| environ.remove(b"A", journal), Ok(()), after);
        }
    }

    #[test]
    fn push_takes_any_string() {
        for string in [c"A=2", c"B", c""] {
            let push =
                |environ: &mut Environ<'_>, journal: &mut Journal| environ.push(string.into(), journal);
            check(&[c"A=1"], push, Ok(()), &[c"A=1", string]);
        }
    }

    #[test]
    fn changes_are_undone_last_first() {
        let new = CStrPtr::from(c"A=new");
        let rewrite = |environ: &mut Environ<'_>, journal: &mut Journal| {
            environ.remove(b"B", journal)?;
            environ.set(b"A", new, journal)?;
            environ.push(c"B=late".into(), journal)?;
            environ.set(b"C", c"C=new".into(), journal)?;
            environ.remove(b"A", journal)?;
            environ.set(b"A", new, journal)
        };
        let before = [c"A=1", c"B=1", c"A=2", c"B=2", c"D=1"];
        check(&before, rewrite, Ok(()), &[c"D=1", c"B=late", c"C=new", c"A=new"]);
    }

    #[test]
    fn a_full_table_takes_no_more() {
        let full = Err(Error::Capacity { table: Table::Variables, needed: 7, capacity: 6 });
        let before = [c"A=1", c"B=1", c"C=1", c"D=1", c"E=1"];
        let new = CStrPtr::from(c"F=1");
        check(&before, |environ, journal| environ.push(new, journal), full, &before);
        check(&before, |environ, journal| environ.set(b"F", new, journal), full, &before);
        // The earlier steps stay, until they are undone.
        let remove_then_push_twice = |environ: &mut Environ<'_>, journal: &mut Journal| {
            environ.remove(b"A", journal)?;
            environ.push(new, journal)?;
            environ.push(new, journal)
        };
        check(&before, remove_then_push_twice, full, &[c"B=1", c"C=1", c"D=1", c"E=1", c"F=1"]);
        // Replacing needs no free slot.
        let replace = |environ: &mut Environ<'_>, journal: &mut Journal| environ.set(b"E", new, journal);
        check(&before, replace, Ok(()), &[c"A=1", c"B=1", c"C=1", c"D=1", c"F=1"]);
    }

    #[test]
    fn a_full_journal_takes_no_more() {
        let full = Err(Error::Capacity {
            table: Table::Changes,
            needed: counted(CHANGES + 1),
            capacity: counted(CHANGES),
        });
        let before = [c"A=1", c"B=1", c"A=2", c"A=3"];
        let new = CStrPtr::from(c"B=new");
        let fill = |left: usize, environ: &mut Environ<'_>, journal: &mut Journal| {
            for _ in left..CHANGES {
                environ.set(b"B", new, journal).unwrap();
            }
        };
        let set_a =
            |environ: &mut Environ<'_>, journal: &mut Journal| environ.set(b"A", c"A=new".into(), journal);
        for (left, outcome, after) in [
            (0, full, &[c"A=1", c"B=new", c"A=2", c"A=3"][..]),
            (1, full, &[c"A=new", c"B=new", c"A=2", c"A=3"]),
            (2, full, &[c"A=new", c"B=new", c"A=3"]),
            (3, Ok(()), &[c"A=new", c"B=new"]),
        ] {
            let change = |environ: &mut Environ<'_>, journal: &mut Journal| {
                fill(left, environ, journal);
                set_a(environ, journal)
            };
            check(&before, change, outcome, after);
        }
        let remove = |environ: &mut Environ<'_>, journal: &mut Journal| {
            fill(2, environ, journal);
            environ.remove(b"A", journal)
        };
        check(&before, remove, full, &[c"B=new", c"A=3"]);
        let push = |environ: &mut Environ<'_>, journal: &mut Journal| {
            fill(0, environ, journal);
            environ.push(new, journal)
        };
        check(&before, push, full, &[c"A=1", c"B=new", c"A=2", c"A=3"]);
    }

    #[test]
    fn changes_serve_again_once_undone() {
        let mut table = table::<3>(&[c"A=1"]);
        let mut environ = Environ::new(table.as_mut_view()).unwrap();
        let mut journal = Journal::default();
        for _ in 0..=CHANGES {
            environ.set(b"A", c"A=2".into(), &mut journal).unwrap();
            environ.push(c"B=1".into(), &mut journal).unwrap();
            environ.undo(&mut journal);
            assert_eq!(read(&environ), [b"A=1"]);
        }
        environ.undo(&mut journal);
        assert_eq!(read(&environ), [b"A=1"]);
    }

    #[test]
    fn consume_takes_every_one_for_good() {
        let mut table = table::<8>(&[c"A=1", c"B=1", c"A=2", c"AB=1", c"A", c"A="]);
        let mut environ = Environ::new(table.as_mut_view()).unwrap();
        environ.consume(b"A");
        assert_eq!(read(&environ), [&b"B=1"[..], b"AB=1", b"A"]);
        environ.consume(b"A");
        environ.undo(&mut Journal::new());
        assert_eq!(read(&environ), [&b"B=1"[..], b"AB=1", b"A"]);
        assert_eq!(table.len(), 4);
        assert_eq!(table.last(), Some(&None));
    }

    #[test]
    fn cells_end_with_none() {
        let mut table = table::<4>(&[c"A=1", c"B=1"]);
        let mut environ = Environ::new(table.as_mut_view()).unwrap();
        environ.push(c"C=1".into(), &mut Journal::new()).unwrap();
        let cells: Unbounded<Option<CStrPtr>> = environ.cells().iter().map(Cell::get).collect();
        let read: Unbounded<Option<&[u8]>> =
            cells.iter().map(|cell| cell.as_ref().map(CStrPtr::to_bytes)).collect();
        assert_eq!(read, [Some(&b"A=1"[..]), Some(b"B=1"), Some(b"C=1"), None]);
    }
}
