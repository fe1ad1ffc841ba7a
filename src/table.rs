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

    /// How many bytes `LISTEN_FDNAMES` takes for them, with its NUL.
    pub(crate) const fn names_len(&self) -> usize {
        self.names + 1
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
    /// `SO_TYPE`, or what `SO_PROTOCOL` says of it, once it was asked for; the inner `None` is one not known here.
    pub(crate) kind: Option<Option<Kind>>,
    /// `IPV6_V6ONLY`, once it was asked for.
    pub(crate) v6only: Option<bool>,
}

/// The inherited descriptors in the order of their numbers, found by address and by name in a time that
/// does not grow with their number.
#[derive(Debug)]
pub(crate) struct InheritedTable<'env, const N: usize> {
    slots: Vec<Inherited<'env>, N>,
    by_address: Index<N>,
    by_name: Index<N>,
}

impl<'env, const N: usize> InheritedTable<'env, N> {
    pub(crate) const fn new() -> Self {
        Self { slots: Vec::new(), by_address: Index::new(), by_name: Index::new() }
    }

    /// Adds a descriptor behind the others. The caller checked that there is room.
    pub(crate) fn push(&mut self, slot: Inherited<'env>) -> Result<(), Inherited<'env>> {
        self.slots.push(slot)
    }

    /// Makes what was pushed findable.
    pub(crate) fn index(&mut self) {
        let count = self.slots.len();
        self.by_address.reset(count);
        self.by_name.reset(count);
        // From the last to the first, because each goes to the front of its chain.
        for (position, slot) in self.slots.iter().enumerate().rev() {
            if let Some(key) = &slot.key {
                self.by_address.view_mut().insert(key.hash(), position);
            }
            self.by_name.view_mut().insert(name_hash(slot.name), position);
        }
    }

    /// Drops, and so closes, all of them.
    pub(crate) fn clear(&mut self) {
        self.by_address.reset(0);
        self.by_name.reset(0);
        self.slots.clear();
    }

    pub(crate) fn view(&mut self) -> InheritedView<'_, 'env> {
        InheritedView {
            slots: self.slots.as_mut_view(),
            by_address: self.by_address.view(),
            by_name: self.by_name.view(),
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
    by_address: Chains<&'t [u32]>,
    by_name: Chains<&'t [u32]>,
}

impl<'t> InheritedView<'t, '_> {
    /// The positions whose address may be `key`, in their order: those of one chain, not compared yet.
    pub(crate) fn near(&self, key: &Key) -> impl Iterator<Item = usize> + use<'t> {
        self.by_address.chain(key.hash())
    }

    /// The positions whose name may be `name`, in their order: those of one chain, not compared yet.
    pub(crate) fn named(&self, name: &str) -> impl Iterator<Item = usize> + use<'t> {
        self.by_name.chain(name_hash(name))
    }
}

/// A hash table of positions: as many chains as there are positions, so that of a large table no more memory is
/// touched than what is in it takes.
#[derive(Debug)]
struct Index<const N: usize> {
    /// The first position of each chain.
    first: Vec<u32, N>,
    /// The position behind each.
    next: Vec<u32, N>,
}

/// The end of a chain.
const NONE: u32 = u32::MAX;

impl<const N: usize> Index<N> {
    const fn new() -> Self {
        Self { first: Vec::new(), next: Vec::new() }
    }

    /// Makes it `count` empty chains; the capacity, if that is less.
    fn reset(&mut self, count: usize) {
        for table in [&mut self.first, &mut self.next] {
            table.clear();
            let _full = table.resize(count.min(N), NONE);
        }
    }

    fn view(&self) -> Chains<&[u32]> {
        Chains { first: &self.first, next: &self.next }
    }

    fn view_mut(&mut self) -> Chains<&mut [u32]> {
        Chains { first: &mut self.first, next: &mut self.next }
    }
}

/// An [`Index`] of any capacity.
#[derive(Clone, Copy, Debug)]
struct Chains<S> {
    first: S,
    next: S,
}

impl Chains<&mut [u32]> {
    /// Puts a position in front of its chain.
    fn insert(self, hash: u32, position: usize) {
        let chain = chain_of(hash, self.first.len());
        if let (Some(first), Some(next)) = (self.first.get_mut(chain), self.next.get_mut(position)) {
            *next = core::mem::replace(first, position as u32);
        }
    }
}

impl<'t> Chains<&'t [u32]> {
    fn chain(self, hash: u32) -> impl Iterator<Item = usize> + use<'t> {
        let follow = |from: &[u32], at: usize| from.get(at).copied().filter(|at| *at != NONE);
        let first = follow(self.first, chain_of(hash, self.first.len()));
        core::iter::successors(first, move |at| follow(self.next, *at as usize)).map(|at| at as usize)
    }
}

/// Spreads the hash, whose upper bits say little, over the chains.
fn chain_of(hash: u32, chains: usize) -> usize {
    const GOLDEN: u32 = 0x9e37_79b9;
    ((u64::from(hash.wrapping_mul(GOLDEN)) * chains as u64) >> 32) as usize
}

fn name_hash(name: &str) -> u32 {
    let hash = fnv(name.bytes());
    (hash ^ (hash >> 32)) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chains_hold_every_position_once_and_in_order() {
        const HASHES: [u32; 9] = [7, 0, 7, u32::MAX, 1, 7, 0, 2, 3];
        let mut index = Index::<12>::new();
        assert_eq!(index.view().chain(7).count(), 0);
        index.reset(9);
        for (position, hash) in HASHES.iter().enumerate().rev() {
            index.view_mut().insert(*hash, position);
        }
        for hash in HASHES {
            let found: std::vec::Vec<_> = index.view().chain(hash).collect();
            assert!(found.is_sorted());
            for (position, other) in HASHES.iter().enumerate() {
                let near = chain_of(*other, 9) == chain_of(hash, 9);
                assert_eq!(found.iter().filter(|at| **at == position).count(), usize::from(near));
            }
        }
        assert_eq!(Index::<0>::new().view().chain(7).count(), 0);
    }

    #[test]
    fn neighbouring_ports_are_spread() {
        const SOCKETS: usize = 1000;
        let mut chains = [0_usize; SOCKETS];
        for port in 20_000..20_000 + SOCKETS as u16 {
            let key = Key::inet(core::net::SocketAddr::from(([127, 0, 0, 1], port)));
            if let Some(length) = chains.get_mut(chain_of(key.hash(), SOCKETS)) {
                *length += 1;
            }
        }
        // As long as chance makes it: 1000 balls in 1000 urns.
        assert!(chains.iter().max() < Some(&9), "{:?}", chains.iter().max());
    }
}
