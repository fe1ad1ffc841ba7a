//! The two tables: the inherited descriptors that wait to be claimed, and the active ones.
//!
//! Both hold `OwnedFd`s in slots of fixed number. An active socket has an id that is never given out twice, so a
//! stale id never means another socket. This module makes no system call; dropping a slot closes its descriptor.

use crate::activation::UNKNOWN;
use crate::address::{Key, Kind};
use crate::error::{Error, Table, counted};
use crate::hash::fnv;
use crate::names::{Name, Names, text};
use core::num::NonZeroU32;
use heapless::{Vec, VecView};
use rustix::fd::OwnedFd;

/// The id of an active socket in one [`Net`](crate::Net).
///
/// An id is valid until the socket is closed or taken, and stale for ever after that. It means nothing to another
/// `Net`, which numbers its own sockets.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct SocketId(NonZeroU32);

/// A slot of the active table. Its name is the entry at its position in the table's [`Names`].
#[derive(Debug)]
pub(crate) struct Active {
    pub(crate) id: SocketId,
    pub(crate) fd: OwnedFd,
}

/// The active sockets, in the order in which they became active, which is the order of the ids too.
#[derive(Debug)]
pub(crate) struct ActiveTable<const N: usize> {
    slots: Vec<Active, N>,
    names: Names<N>,
    last: u32,
}

impl<const N: usize> ActiveTable<N> {
    pub(crate) const fn new() -> Self {
        Self { slots: Vec::new(), names: Names::new(), last: 0 }
    }

    /// Checks that a socket called `name` would fit. Called before anything is opened for the socket.
    pub(crate) fn check_room(&self, name: &str) -> Result<(), Error> {
        if self.slots.is_full() {
            return Err(Error::Capacity {
                table: Table::Active,
                needed: counted(N + 1),
                capacity: counted(N),
            });
        }
        self.names.check_room(name.len())
    }

    /// Makes `fd` active. Gives `fd` back if the table is full.
    pub(crate) fn push(&mut self, fd: OwnedFd, name: &str) -> Result<SocketId, (OwnedFd, Error)> {
        if let Err(error) = self.check_room(name) {
            return Err((fd, error));
        }
        let full = Error::Capacity { table: Table::Active, needed: counted(N + 1), capacity: counted(N) };
        let Some(id) = self.last.checked_add(1).and_then(NonZeroU32::new).map(SocketId) else {
            return Err((fd, full));
        };
        if let Err(slot) = self.slots.push(Active { id, fd }) {
            return Err((slot.fd, full));
        }
        self.last = id.0.get();
        self.names.push(name.as_bytes());
        Ok(id)
    }

    pub(crate) fn find(&self, id: SocketId) -> Result<&Active, Error> {
        self.slots.get(position(self.slots.as_view(), id)?).ok_or(Error::StaleId)
    }

    /// Removes the socket from the table.
    pub(crate) fn remove(&mut self, id: SocketId) -> Result<OwnedFd, Error> {
        let position = position(self.slots.as_view(), id)?;
        if let Some(tail) = self.slots.get_mut(position..) {
            tail.rotate_left(1);
        }
        let slot = self.slots.pop().ok_or(Error::StaleId)?;
        self.names.remove(position);
        Ok(slot.fd)
    }

    /// Drops, and so closes, all sockets.
    pub(crate) fn clear(&mut self) {
        self.slots.clear();
        self.names.clear();
    }

    /// Returns the slots, and the line of their names: see [`names::split`](crate::names::split).
    pub(crate) fn view(&self) -> (&VecView<Active>, &[u8]) {
        (self.slots.as_view(), self.names.bytes())
    }

    /// Returns the slots, and `LISTEN_FDNAMES=` with their names and a NUL. The latter is empty if each name is
    /// [`UNKNOWN`].
    pub(crate) fn parts(&mut self) -> (&VecView<Active>, &mut [u8]) {
        let is_named = self.names.iter().any(|name| name != UNKNOWN.as_bytes());
        let line = if is_named { self.names.bytes_mut() } else { &mut [] };
        (self.slots.as_view(), line)
    }
}

fn position(slots: &VecView<Active>, id: SocketId) -> Result<usize, Error> {
    slots.binary_search_by_key(&id.0, |slot| slot.id.0).map_err(|_| Error::StaleId)
}

/// A slot of the inherited table. Its position never changes; claiming the slot leaves it empty.
#[derive(Debug)]
pub(crate) struct Inherited {
    pub(crate) fd: Option<OwnedFd>,
    /// The name, in the table's [`Names`].
    pub(crate) name: Name,
    /// The socket's own address, if the descriptor is a socket with an address of a family that this crate supports.
    pub(crate) key: Option<Key>,
    /// `SO_ACCEPTCONN`, once it was queried, which may be while the socket is adopted.
    pub(crate) listening: Option<bool>,
    /// `SO_TYPE`, or its equivalent by `SO_PROTOCOL`, once it was queried. The inner `None` is a type that this crate
    /// does not support.
    pub(crate) kind: Option<Option<Kind>>,
    /// `IPV6_V6ONLY`, once it was queried.
    pub(crate) v6only: Option<bool>,
}

/// The inherited descriptors in the order of their numbers. They are found by address and by name in a time that does
/// not grow with their number.
#[derive(Debug)]
pub(crate) struct InheritedTable<const N: usize> {
    slots: Vec<Inherited, N>,
    names: Names<N>,
    by_address: [Link; N],
    by_name: [Link; N],
    /// Whether the descriptors are in `by_name`. They are from the first query for a name on.
    named: bool,
}

impl<const N: usize> InheritedTable<N> {
    pub(crate) const fn new() -> Self {
        Self {
            slots: Vec::new(),
            names: Names::new(),
            by_address: [Link::EMPTY; N],
            by_name: [Link::EMPTY; N],
            named: false,
        }
    }

    /// Adds a descriptor behind the others, under `name`, or [`UNKNOWN`] if all have that name. The caller checked
    /// the capacity.
    pub(crate) fn push(&mut self, mut slot: Inherited, name: Option<&[u8]>) -> Result<(), Inherited> {
        slot.name = name.map_or(Name::UNKNOWN, |name| self.names.push(name));
        self.slots.push(slot)
    }

    /// Makes the pushed descriptors findable. Call it once.
    pub(crate) fn index(&mut self) {
        // A name may have been queried while the table was empty.
        self.named = false;
        fill(&mut self.by_address, &self.slots, |slot| slot.key.as_ref().map(Key::hash));
    }

    /// Drops, and so closes, all descriptors.
    pub(crate) fn clear(&mut self) {
        self.slots.clear();
        self.names.clear();
    }

    /// Returns the name of the descriptor at this position.
    pub(crate) fn name(&self, position: usize) -> &str {
        self.slots.get(position).map_or(UNKNOWN, |slot| text(self.names.get(slot.name)))
    }

    /// Takes the descriptor at this position out, if it is still there.
    pub(crate) fn take(&mut self, position: usize) -> Option<OwnedFd> {
        self.slots.get_mut(position)?.fd.take()
    }

    /// Puts a descriptor back that was taken out.
    pub(crate) fn put_back(&mut self, position: usize, fd: OwnedFd) {
        if let Some(slot) = self.slots.get_mut(position) {
            slot.fd = Some(fd);
        }
    }

    /// Returns the view that finds descriptors by address.
    pub(crate) fn view(&mut self) -> InheritedView<'_> {
        let len = self.slots.len();
        InheritedView {
            slots: self.slots.as_mut_view(),
            names: self.names.bytes(),
            by_address: self.by_address.get(..len).unwrap_or_default(),
            by_name: self.by_name.get(..len).unwrap_or_default(),
        }
    }

    /// Returns the view that finds descriptors by name too.
    pub(crate) fn view_with_names(&mut self) -> InheritedView<'_> {
        if !self.named {
            let names = self.names.bytes();
            fill(&mut self.by_name, &self.slots, |slot| Some(name_hash(slot.name.of(names))));
            self.named = true;
        }
        self.view()
    }

    pub(crate) fn slots(&self) -> &VecView<Inherited> {
        self.slots.as_view()
    }
}

/// An [`InheritedTable`] of any capacity.
#[derive(Debug)]
pub(crate) struct InheritedView<'t> {
    pub(crate) slots: &'t mut VecView<Inherited>,
    names: &'t [u8],
    by_address: &'t [Link],
    by_name: &'t [Link],
}

impl<'t> InheritedView<'t> {
    /// Returns whether the slot at this position was inherited under this name.
    pub(crate) fn is_named(&self, position: usize, name: &str) -> bool {
        self.slots.get(position).is_some_and(|slot| slot.name.of(self.names) == name.as_bytes())
    }

    /// Iterates over the positions whose address may be `key`, in order. They are the positions of one chain, not
    /// compared yet.
    pub(crate) fn near(&self, key: &Key) -> impl Iterator<Item = usize> + use<'t> {
        chain(self.by_address, key.hash())
    }

    /// Iterates over the positions whose name may be `name`, in order. They are the positions of one chain, not
    /// compared yet.
    pub(crate) fn named(&self, name: &str) -> impl Iterator<Item = usize> + use<'t> {
        chain(self.by_name, name_hash(name.as_bytes()))
    }
}

/// A row of a hash table of positions. Row number `n` belongs to chain `n`, and to position `n`.
///
/// The table has as many chains as positions, so only the memory of its entries is touched.
#[derive(Clone, Copy, Debug)]
struct Link {
    /// The first position of the chain, counted from 1, or 0 if there is none.
    first: u32,
    /// The position behind this one, likewise.
    next: u32,
}

impl Link {
    const EMPTY: Self = Self { first: 0, next: 0 };
}

/// Puts the positions of `slots` into an empty hash table by their hashes. A position without a hash is never found.
fn fill<T>(links: &mut [Link], slots: &[T], hash: impl Fn(&T) -> Option<u32>) {
    // From the last to the first, because each position goes to the front of its chain.
    for (position, slot) in slots.iter().enumerate().rev() {
        let first = hash(slot).and_then(|hash| links.get_mut(chain_of(hash, slots.len())));
        let Some(first) = first else { continue };
        let behind = core::mem::replace(&mut first.first, position as u32 + 1);
        if let Some(link) = links.get_mut(position) {
            link.next = behind;
        }
    }
}

/// Iterates over the positions in the chain of this hash, in order.
fn chain(links: &[Link], hash: u32) -> impl Iterator<Item = usize> + use<'_> {
    let position = |counted: u32| (counted as usize).checked_sub(1);
    let first = links.get(chain_of(hash, links.len())).and_then(move |link| position(link.first));
    core::iter::successors(first, move |at| links.get(*at).and_then(|link| position(link.next)))
}

/// Spreads the hash, whose upper bits vary little, over the chains.
fn chain_of(hash: u32, chains: usize) -> usize {
    const GOLDEN: u32 = 0x9e37_79b9;
    ((u64::from(hash.wrapping_mul(GOLDEN)) * chains as u64) >> 32) as usize
}

fn name_hash(name: &[u8]) -> u32 {
    let hash = fnv(name.iter().copied());
    (hash ^ (hash >> 32)) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

    #[test]
    fn chains_hold_every_position_once_and_in_order() {
        const HASHES: [u32; 9] = [7, 0, 7, u32::MAX, 1, 7, 0, 2, 3];
        let mut links = [Link::EMPTY; HASHES.len() + 1];
        assert_eq!(chain(&links, 7).count(), 0);
        let slots: std::vec::Vec<_> = [None].into_iter().chain(HASHES.map(Some)).collect();
        fill(&mut links, &slots, |hash| *hash);
        for hash in HASHES {
            let found: std::vec::Vec<_> = chain(&links, hash).collect();
            assert!(found.is_sorted());
            assert!(!found.contains(&0));
            for (position, other) in HASHES.iter().enumerate() {
                let near = chain_of(*other, links.len()) == chain_of(hash, links.len());
                assert_eq!(found.iter().filter(|at| **at == position + 1).count(), usize::from(near));
            }
        }
        assert_eq!(chain(&[], 7).count(), 0);
    }

    #[test]
    fn neighbours_are_spread() {
        const SOCKETS: u8 = 250;
        let by_port = |ip: IpAddr| (0..SOCKETS).map(move |at| SocketAddr::new(ip, 20_000 + u16::from(at)));
        let v4 = (0..SOCKETS).map(|at| SocketAddr::from(([10, 0, 0, at], 80)));
        let v6 = (0..SOCKETS).map(|at| SocketAddr::from(([0xfd00, 0, 0, 0, 0, 0, 0, at.into()], 80)));
        assert_spread(by_port(Ipv4Addr::LOCALHOST.into()));
        assert_spread(by_port(Ipv6Addr::LOCALHOST.into()));
        assert_spread(v4);
        assert_spread(v6);
    }

    /// Asserts that no chain is longer than chance makes it: so many balls in as many urns.
    fn assert_spread(addresses: impl ExactSizeIterator<Item = SocketAddr>) {
        let mut chains = std::vec![0; addresses.len()];
        for address in addresses {
            let chain = chain_of(Key::inet(address).hash(), chains.len());
            chains.get_mut(chain).into_iter().for_each(|length| *length += 1);
        }
        assert!(chains.iter().max() < Some(&8), "{chains:?}");
    }
}
