//! The environment's pointer table, rewritten in place.
//!
//! [`Environ`] works on the table that `execve` will read: slots are replaced, taken out and added at the
//! end, every other slot keeps its string and its order, and [`Environ::undo`] brings back what was there
//! before. It makes no system call, copies no string and builds no second table.

use crate::cstr::CStrPtr;
use crate::error::{Error, Table};
use core::cell::Cell;
use heapless::{Vec, VecView};

/// How many slots one rewriting may touch: the five variables of a restart and what its caller changes.
pub const CHANGES: usize = 64;

/// What one step of a rewriting did to the table, with what it takes to reverse it.
#[derive(Clone, Copy, Debug)]
enum Change {
    Replaced { slot: usize, was: Option<CStrPtr> },
    Removed { slot: usize, was: Option<CStrPtr> },
    Added { slot: usize },
}

/// The steps of one rewriting, in order.
#[derive(Debug, Default)]
pub struct Changes(Vec<Change, CHANGES>);

impl Changes {
    /// No steps.
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
    /// Works on `table`; the `None` that ends it is added if it is not there.
    ///
    /// # Errors
    ///
    /// - [`Error::Capacity`]: the table has no room for the `None`. It is unchanged.
    pub fn new(table: &'t mut VecView<Option<CStrPtr>>) -> Result<Self, Error> {
        if !table.iter().any(Option::is_none) && table.push(None).is_err() {
            return Err(full(table));
        }
        let mut environ = Self { table };
        environ.cut();
        Ok(environ)
    }

    /// The variables, in order.
    pub fn iter(&self) -> impl Iterator<Item = CStrPtr> + '_ {
        self.table.iter().map_while(|slot| *slot)
    }

    /// The value of the first variable called `name`.
    #[must_use]
    pub fn var(&self, name: &[u8]) -> Option<&[u8]> {
        var(self.table, name)
    }

    /// The first variable called `name`.
    pub(crate) fn find(&self, name: &[u8]) -> Option<CStrPtr> {
        find(self.table, name).copied()
    }

    /// The table as `execve` reads it, the `None` that ends it included.
    pub(crate) fn cells(&mut self) -> &[Cell<Option<CStrPtr>>] {
        let len = self.len() + 1;
        let table = self.table.get_mut(..len).unwrap_or(&mut []);
        Cell::from_mut(table).as_slice_of_cells()
    }

    /// Takes every variable called `name` out for good.
    pub fn consume(&mut self, name: &[u8]) {
        self.table.retain(|slot| !slot.is_some_and(|string| string.is_variable(name)));
    }

    /// Puts `variable` into the slot of the first variable called `name`, or behind the last one, and takes
    /// out every other variable of that name.
    ///
    /// # Errors
    ///
    /// - [`Error::Capacity`]: the table or `changes` is full. What was done up to here is in `changes`.
    pub fn set(&mut self, name: &[u8], variable: CStrPtr, changes: &mut Changes) -> Result<(), Error> {
        let Some(slot) = self.position(name, 0) else {
            return self.push(variable, changes);
        };
        let was = self.table.get(slot).copied().flatten();
        record(changes, Change::Replaced { slot, was })?;
        if let Some(entry) = self.table.get_mut(slot) {
            *entry = Some(variable);
        }
        self.remove_from(name, slot + 1, changes)
    }

    /// Takes out every variable called `name`.
    ///
    /// # Errors
    ///
    /// - [`Error::Capacity`]: `changes` is full. What was done up to here is in `changes`.
    pub fn remove(&mut self, name: &[u8], changes: &mut Changes) -> Result<(), Error> {
        self.remove_from(name, 0, changes)
    }

    /// Adds `variable` behind the last one, whatever is in the table.
    ///
    /// # Errors
    ///
    /// - [`Error::Capacity`]: the table or `changes` is full. The table is unchanged.
    pub fn push(&mut self, variable: CStrPtr, changes: &mut Changes) -> Result<(), Error> {
        if self.table.is_full() {
            return Err(full(self.table));
        }
        let slot = self.len();
        record(changes, Change::Added { slot })?;
        insert(self.table, slot, Some(variable));
        Ok(())
    }

    /// Reverses `changes`, last first: the table reads as before the first of them.
    pub fn undo(&mut self, changes: &mut Changes) {
        while let Some(change) = changes.0.pop() {
            match change {
                Change::Replaced { slot, was } => {
                    if let Some(entry) = self.table.get_mut(slot) {
                        *entry = was;
                    }
                }
                Change::Removed { slot, was } => insert(self.table, slot, was),
                Change::Added { slot } => take(self.table, slot),
            }
        }
    }

    /// How many variables there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.iter().count()
    }

    /// Whether there is no variable.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn position(&self, name: &[u8], from: usize) -> Option<usize> {
        self.iter().enumerate().skip(from).find(|(_, string)| string.is_variable(name)).map(|(slot, _)| slot)
    }

    fn remove_from(&mut self, name: &[u8], from: usize, changes: &mut Changes) -> Result<(), Error> {
        while let Some(slot) = self.position(name, from) {
            let was = self.table.get(slot).copied().flatten();
            record(changes, Change::Removed { slot, was })?;
            take(self.table, slot);
        }
        Ok(())
    }

    /// Forgets what stands behind the `None` that ends the table.
    fn cut(&mut self) {
        let len = self.len();
        self.table.truncate(len + 1);
    }
}

/// The value of the first variable called `name` in `table`.
pub(crate) fn var<'t>(table: &'t VecView<Option<CStrPtr>>, name: &[u8]) -> Option<&'t [u8]> {
    find(table, name).and_then(|string| string.to_bytes().get(name.len() + 1..))
}

/// The first variable called `name` in `table`.
pub(crate) fn find<'t>(table: &'t VecView<Option<CStrPtr>>, name: &[u8]) -> Option<&'t CStrPtr> {
    table.iter().map_while(Option::as_ref).find(|string| string.is_variable(name))
}

fn full(table: &VecView<Option<CStrPtr>>) -> Error {
    Error::Capacity { table: Table::Variables, needed: table.len() + 1, capacity: table.capacity() }
}

fn record(changes: &mut Changes, change: Change) -> Result<(), Error> {
    changes.0.push(change).map_err(|_| Error::Capacity {
        table: Table::Changes,
        needed: CHANGES + 1,
        capacity: CHANGES,
    })
}

/// Puts `entry` at `slot`, moving the slots behind it up by one. The caller made sure of the room.
fn insert(table: &mut VecView<Option<CStrPtr>>, slot: usize, entry: Option<CStrPtr>) {
    if table.push(entry).is_ok() {
        if let Some(tail) = table.get_mut(slot..) {
            tail.rotate_right(1);
        }
    }
}

/// Takes `slot` out, moving the slots behind it down by one.
fn take(table: &mut VecView<Option<CStrPtr>>, slot: usize) {
    if let Some(tail) = table.get_mut(slot..) {
        if !tail.is_empty() {
            tail.rotate_left(1);
            table.pop();
        }
    }
}
