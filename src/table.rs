//! The two tables: what was inherited and waits to be claimed, and what is active.
//!
//! Both hold `OwnedFd`s in slots of fixed number. An active socket is known by an id that is never given
//! out twice, so a stale one is never another socket's. This room makes no system call; dropping a slot
//! closes its descriptor.

use crate::activation::NAMES_PREFIX;
use crate::address::{Key, Kind, fnv};
use crate::error::{Error, Table};
use core::num::NonZeroU32;
use heapless::{Vec, VecView};
use rustix::fd::OwnedFd;

/// Room for the variable's name and for a longest name.
pub(crate) const NAMES_HEAD: usize = 288;

/// Room for the name of each active socket.
pub(crate) const NAMES_ROW: usize = 32;

/// How many bytes `LISTEN_FDNAMES` may take for up to `sockets` active ones.
pub(crate) const fn names_capacity(sockets: usize) -> usize {
    NAMES_HEAD + NAMES_ROW * sockets
}

/// Names an active socket of one [`Net`](crate::Net).
///
/// An id stays good until the socket is closed or taken; from then on it is stale for ever. It means nothing
/// to another `Net`, which numbers its own.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Id(NonZeroU32);

/// A slot of the active table.
#[derive(Debug)]
pub(crate) struct Active<'env> {
    pub(crate) id: Id,
    pub(crate) fd: OwnedFd,
    pub(crate) name: &'env str,
}

/// The active sockets, in the order in which they became active, which is the order of the ids too.
#[derive(Debug)]
pub(crate) struct ActiveTable<'env, const N: usize> {
    slots: Vec<Active<'env>, N>,
    last: u32,
    /// How many bytes `LISTEN_FDNAMES` takes for them.
    names: usize,
}

impl<'env, const N: usize> ActiveTable<'env, N> {
    pub(crate) const fn new() -> Self {
        Self { slots: Vec::new(), last: 0, names: NAMES_PREFIX }
    }

    /// Whether a socket called `name` would find room. Asked before anything is opened for it.
    pub(crate) fn check_room(&self, name: &str) -> Result<(), Error> {
        if self.slots.is_full() {
            return Err(Error::Capacity { table: Table::Active, needed: N + 1, capacity: N });
        }
        let needed = self.names + name.len() + 1;
        if needed > names_capacity(N) {
            return Err(Error::Capacity { table: Table::Names, needed, capacity: names_capacity(N) });
        }
        Ok(())
    }

    /// Makes `fd` active; gives it back if there is no room.
    pub(crate) fn push(&mut self, fd: OwnedFd, name: &'env str) -> Result<Id, (OwnedFd, Error)> {
        if let Err(error) = self.check_room(name) {
            return Err((fd, error));
        }
        let full = Error::Capacity { table: Table::Active, needed: N + 1, capacity: N };
        let Some(id) = self.last.checked_add(1).and_then(NonZeroU32::new).map(Id) else {
            return Err((fd, full));
        };
        if let Err(slot) = self.slots.push(Active { id, fd, name }) {
            return Err((slot.fd, full));
        }
        self.last = id.0.get();
        self.names += name.len() + 1;
        Ok(id)
    }

    pub(crate) fn find(&self, id: Id) -> Result<&Active<'env>, Error> {
        self.slots.get(position(self.slots.as_view(), id)?).ok_or(Error::StaleId)
    }

    /// Takes the socket out of the table.
    pub(crate) fn remove(&mut self, id: Id) -> Result<Active<'env>, Error> {
        let position = position(self.slots.as_view(), id)?;
        if let Some(tail) = self.slots.get_mut(position..) {
            tail.rotate_left(1);
        }
        let slot = self.slots.pop().ok_or(Error::StaleId)?;
        self.names -= slot.name.len() + 1;
        Ok(slot)
    }

    pub(crate) fn slots(&self) -> &VecView<Active<'env>> {
        self.slots.as_view()
    }
}

fn position(slots: &VecView<Active<'_>>, id: Id) -> Result<usize, Error> {
    slots.binary_search_by_key(&id.0, |slot| slot.id.0).map_err(|_| Error::StaleId)
}

/// A slot of the inherited table. Its position never changes; claiming it leaves it empty.
#[derive(Debug)]
pub(crate) struct Inherited<'env> {
    pub(crate) fd: Option<OwnedFd>,
    pub(crate) name: &'env str,
    /// Its own address, if it is a socket that has one of a family known here.
    pub(crate) key: Option<Key>,
    /// `SO_ACCEPTCONN`, once it was asked for.
    pub(crate) listening: Option<bool>,
    /// `SO_TYPE`, once it was asked for; the inner `None` is a type not known here.
    pub(crate) kind: Option<Option<Kind>>,
}

/// The inherited descriptors in the order of their numbers, found by address and by name in a time that
/// does not grow with their number.
#[derive(Debug)]
pub(crate) struct InheritedTable<'env, const N: usize> {
    slots: Vec<Inherited<'env>, N>,
    by_address: Vec<Entry, N>,
    by_name: Vec<Entry, N>,
}

/// A hash in the upper half and a position in the lower: sorted, equal hashes stand in the order of the
/// positions.
type Entry = u64;

impl<'env, const N: usize> InheritedTable<'env, N> {
    pub(crate) const fn new() -> Self {
        Self { slots: Vec::new(), by_address: Vec::new(), by_name: Vec::new() }
    }

    /// Adds a descriptor behind the others. The caller checked that there is room.
    pub(crate) fn push(&mut self, slot: Inherited<'env>) -> Result<(), Inherited<'env>> {
        self.slots.push(slot)
    }

    /// Makes what was pushed findable.
    pub(crate) fn index(&mut self) {
        fill(self.by_address.as_mut_view(), self.slots.as_view(), |slot| slot.key.as_ref().map(Key::hash));
        fill(self.by_name.as_mut_view(), self.slots.as_view(), |slot| Some(name_hash(slot.name)));
    }

    /// Drops, and so closes, all of them.
    pub(crate) fn clear(&mut self) {
        self.by_address.clear();
        self.by_name.clear();
        self.slots.clear();
    }

    pub(crate) fn view(&mut self) -> InheritedView<'_, 'env> {
        InheritedView {
            slots: self.slots.as_mut_view(),
            by_address: self.by_address.as_view(),
            by_name: self.by_name.as_view(),
        }
    }

    pub(crate) fn slots(&self) -> &VecView<Inherited<'env>> {
        self.slots.as_view()
    }
}

/// An [`InheritedTable`] of any capacity.
#[derive(Debug)]
pub(crate) struct InheritedView<'t, 'env> {
    pub(crate) slots: &'t mut VecView<Inherited<'env>>,
    by_address: &'t VecView<Entry>,
    by_name: &'t VecView<Entry>,
}

impl<'t> InheritedView<'t, '_> {
    /// The positions whose address may be `key`, in their order; the hash is all that was compared.
    pub(crate) fn near(&self, key: &Key) -> impl Iterator<Item = usize> + use<'t> {
        run(self.by_address, key.hash())
    }

    /// The positions whose name may be `name`, in their order; the hash is all that was compared.
    pub(crate) fn named(&self, name: &str) -> impl Iterator<Item = usize> + use<'t> {
        run(self.by_name, name_hash(name))
    }
}

fn fill<'env>(
    index: &mut VecView<Entry>,
    slots: &VecView<Inherited<'env>>,
    hash: impl Fn(&Inherited<'env>) -> Option<u32>,
) {
    index.clear();
    for (position, slot) in slots.iter().enumerate() {
        if let Some(hash) = hash(slot) {
            // An index has as many slots as the table.
            let _full = index.push(u64::from(hash) << 32 | position as u64);
        }
    }
    index.sort_unstable();
}

/// The positions behind the entries with this hash.
fn run(index: &VecView<Entry>, hash: u32) -> impl Iterator<Item = usize> + use<'_> {
    let first = index.partition_point(|entry| (entry >> 32) < u64::from(hash));
    index
        .iter()
        .skip(first)
        .take_while(move |entry| **entry >> 32 == u64::from(hash))
        .map(|entry| *entry as u32 as usize)
}

fn name_hash(name: &str) -> u32 {
    let hash = fnv(name.bytes());
    (hash ^ (hash >> 32)) as u32
}
