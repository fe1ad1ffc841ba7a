//! Placement: the duplications that bring each source descriptor to its target number, in an order that loses none.
//!
//! The sources of a restart may be on any numbers, also on each other's targets. [`Placement`] returns one step at a
//! time. A step frees the number of its source, which makes the next step possible. Only a closed circle needs a
//! spare. n sources need n steps plus the number of circles: each circle needs two more steps, of which one replaces
//! a move. This module makes no system call; its caller executes the steps.

/// The next step.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// `fd` is on its target already: clear its `FD_CLOEXEC`.
    Keep {
        /// The number of the source and of the target.
        fd: i32,
    },
    /// Duplicate `from` onto `to`, without `FD_CLOEXEC`. The descriptor on `to` is not needed.
    Move {
        /// The source.
        from: i32,
        /// The target.
        to: i32,
    },
    /// Duplicate `from` to any free number behind the targets, and remember that number as the spare.
    Park {
        /// The source, which is on a target that is about to be used.
        from: i32,
    },
    /// Duplicate the spare onto `to`, without `FD_CLOEXEC`. The spare is free for the next [`Step::Park`].
    Unpark {
        /// The target.
        to: i32,
    },
}

/// A slot of the scratch table that [`Placement`] works with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Source {
    /// The number of the source.
    fd: i32,
    /// The index of the source that sits on this index's target, or [`NONE`].
    reader: u32,
    done: bool,
}

const NONE: u32 = u32::MAX;

impl Source {
    /// Returns the descriptor `fd`, to be placed.
    #[must_use]
    pub const fn new(fd: i32) -> Self {
        Self { fd, reader: NONE, done: false }
    }
}

/// The steps that bring `sources[i]` to the number `first + i`, for every i.
#[derive(Debug)]
pub struct Placement<'s> {
    sources: &'s mut [Source],
    first: i32,
    /// The position where the search for the next beginning of a chain continues.
    next: usize,
    /// The chain being followed: the index whose target is free now.
    chain: Option<usize>,
    /// In a circle: the index whose target the parked source was on, so its number is now the spare.
    parked: Option<usize>,
    circles: bool,
}

impl<'s> Placement<'s> {
    /// Prepares the steps for `sources`. Their numbers must be distinct and not negative.
    #[must_use]
    pub fn new(sources: &'s mut [Source], first: i32) -> Self {
        for index in 0..sources.len() {
            let sits_on = sources.get(index).and_then(|source| target_index(source.fd, first, sources.len()));
            if let Some(target) = sits_on.and_then(|target| sources.get_mut(target)) {
                target.reader = index as u32;
            }
        }
        Self { sources, first, next: 0, chain: None, parked: None, circles: false }
    }

    /// Returns the number of the target `index`.
    const fn target(&self, index: usize) -> i32 {
        self.first.wrapping_add(index as i32)
    }

    /// Marks `index` as placed, and continues with the target that its source was on, if that target waits for it.
    fn place(&mut self, index: usize) -> Option<Step> {
        let to = self.target(index);
        let len = self.sources.len();
        let source = self.sources.get_mut(index)?;
        source.done = true;
        let from = source.fd;
        let freed = target_index(from, self.first, len);
        if freed.is_some() && freed == self.parked {
            self.chain = None;
            self.parked = None;
            return Some(Step::Unpark { to });
        }
        self.chain = freed.filter(|freed| self.sources.get(*freed).is_some_and(|source| !source.done));
        Some(Step::Move { from, to })
    }

    /// Returns whether an unplaced source is still on the number of target `index`.
    fn is_needed(&self, index: usize) -> bool {
        self.sources
            .get(index)
            .and_then(|target| self.sources.get(target.reader as usize))
            .is_some_and(|reader| !reader.done)
    }
}

impl Iterator for Placement<'_> {
    type Item = Step;

    fn next(&mut self) -> Option<Step> {
        if let Some(index) = self.chain {
            return self.place(index);
        }
        loop {
            let index = self.next;
            let Some(source) = self.sources.get_mut(index) else {
                // Every chain with a free end is placed; the others are circles.
                if self.circles {
                    return None;
                }
                self.circles = true;
                self.next = 0;
                continue;
            };
            self.next += 1;
            if source.done {
                continue;
            }
            if source.fd == self.first.wrapping_add(index as i32) {
                source.done = true;
                return Some(Step::Keep { fd: source.fd });
            }
            if !self.is_needed(index) {
                return self.place(index);
            }
            if self.circles {
                self.parked = Some(index);
                self.chain = Some(index);
                return Some(Step::Park { from: self.target(index) });
            }
        }
    }
}

/// Returns the index of the target with the number `fd`.
fn target_index(fd: i32, first: i32, len: usize) -> Option<usize> {
    usize::try_from(fd.checked_sub(first)?).ok().filter(|index| *index < len)
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
    use std::collections::BTreeMap;
    use std::vec::Vec;

    const FIRST: i32 = 3;

    /// Returns the steps for these numbers.
    fn steps(numbers: &[i32]) -> Vec<Step> {
        let mut sources: Vec<Source> = numbers.iter().map(|fd| Source::new(*fd)).collect();
        let mut placement = Placement::new(&mut sources, FIRST);
        let steps: Vec<Step> = placement.by_ref().collect();
        assert_eq!(placement.next(), None, "goes on behind its end");
        steps
    }

    /// Does the steps on a table that records, for each number, its source and whether it is closed on exec. Checks
    /// that every source ends on its target, and was open somewhere all the time.
    fn check(numbers: &[i32]) {
        let behind = FIRST + numbers.len() as i32;
        let mut fds: BTreeMap<i32, (usize, bool)> =
            numbers.iter().enumerate().map(|(source, fd)| (*fd, (source, true))).collect();
        let mut spare = None;
        let steps = steps(numbers);
        for step in &steps {
            let (from, to) = match *step {
                Step::Keep { fd } => {
                    fds.get_mut(&fd).unwrap().1 = false;
                    continue;
                }
                Step::Move { from, to } => (from, to),
                Step::Park { from } => {
                    assert_eq!(spare, None, "{numbers:?}: the spare is in use");
                    let free = (behind..).find(|fd| !fds.contains_key(fd)).unwrap();
                    spare = Some(free);
                    fds.insert(free, (fds[&from].0, true));
                    continue;
                }
                Step::Unpark { to } => (spare.take().unwrap(), to),
            };
            assert_ne!(from, to, "{numbers:?}");
            assert!((FIRST..behind).contains(&to), "{numbers:?}");
            fds.insert(to, (fds[&from].0, false));
            for source in 0..numbers.len() {
                assert!(
                    fds.values().any(|(held, _)| *held == source),
                    "{numbers:?}: lost {source} at {step:?}"
                );
            }
        }
        for (source, fd) in (FIRST..behind).enumerate() {
            assert_eq!(fds[&fd], (source, false), "{numbers:?}");
        }
        assert_eq!(spare, None, "{numbers:?}");
        let parked = steps.iter().filter(|step| matches!(step, Step::Park { .. })).count();
        assert_eq!(parked, circles(numbers), "{numbers:?}");
        assert_eq!(steps.len(), numbers.len() + parked, "{numbers:?}");
    }

    /// Returns how many circles of two and more there are.
    fn circles(numbers: &[i32]) -> usize {
        let mut seen = Vec::new();
        let mut circles = 0;
        for start in 0..numbers.len() {
            let mut path = Vec::new();
            let mut at = Some(start);
            while let Some(source) = at.filter(|source| !seen.contains(source)) {
                seen.push(source);
                path.push(source);
                at = usize::try_from(numbers[source] - FIRST).ok().filter(|on| *on < numbers.len());
            }
            let is_circle = at.is_some_and(|end| path.first() == Some(&end));
            circles += usize::from(is_circle && path.len() > 1);
        }
        circles
    }

    /// Calls `visit` with every arrangement of `count` of the numbers.
    fn arrangements(
        numbers: &mut Vec<i32>,
        chosen: &mut Vec<i32>,
        count: usize,
        visit: &mut impl FnMut(&[i32]),
    ) {
        if chosen.len() == count {
            return visit(chosen);
        }
        for index in 0..numbers.len() {
            chosen.push(numbers.swap_remove(index));
            arrangements(numbers, chosen, count, visit);
            let back = chosen.pop().unwrap();
            numbers.push(back);
            let last = numbers.len() - 1;
            numbers.swap(index, last);
        }
    }

    #[test]
    fn every_arrangement_of_up_to_six_sources() {
        // On the targets, on two numbers before them, and on as many behind them as keep this quick.
        for (count, elsewhere) in [(0, 2), (1, 3), (2, 4), (3, 4), (4, 3), (5, 2), (6, 1)] {
            let mut numbers: Vec<i32> = (FIRST..).take(count).collect();
            numbers.extend((FIRST + count as i32..).take(elsewhere));
            numbers.extend([0, 2]);
            let mut visited = 0_usize;
            arrangements(&mut numbers.clone(), &mut Vec::new(), count, &mut |numbers| {
                visited += 1;
                check(numbers);
            });
            let all = numbers.len();
            assert_eq!(visited, (all - count + 1..=all).product(), "{count} of {all}");
        }
    }

    #[test]
    fn steps_of_each_shape() {
        use Step::{Keep, Move, Park, Unpark};
        for (numbers, expected) in [
            (&[][..], &[][..]),
            (&[3], &[Keep { fd: 3 }]),
            (&[9], &[Move { from: 9, to: 3 }]),
            (&[0, 7], &[Move { from: 0, to: 3 }, Move { from: 7, to: 4 }]),
            // A chain: the free end first.
            (&[4, 5, 9], &[Move { from: 4, to: 3 }, Move { from: 5, to: 4 }, Move { from: 9, to: 5 }]),
            (&[9, 3, 4], &[Move { from: 4, to: 5 }, Move { from: 3, to: 4 }, Move { from: 9, to: 3 }]),
            // A circle.
            (&[4, 3], &[Park { from: 3 }, Move { from: 4, to: 3 }, Unpark { to: 4 }]),
            // A circle around a source that is in its place.
            (&[5, 4, 3], &[Keep { fd: 4 }, Park { from: 3 }, Move { from: 5, to: 3 }, Unpark { to: 5 }]),
        ] {
            assert_eq!(steps(numbers), expected, "{numbers:?}");
        }
    }

    #[test]
    fn circles_take_turns_with_the_spare() {
        // Thirty-two circles of two.
        let pairs: Vec<i32> = (0..64).map(|index| FIRST + (index ^ 1)).collect();
        check(&pairs);
        assert_eq!(steps(&pairs).len(), 96);
        // One of sixty-four.
        let ring: Vec<i32> = (0..64).map(|index| FIRST + (index + 1) % 64).collect();
        check(&ring);
        assert_eq!(steps(&ring).len(), 65);
    }

    #[test]
    fn many_sources_stay_linear() {
        let reversed: Vec<i32> = (FIRST..FIRST + 1000).rev().collect();
        assert_eq!(steps(&reversed).len(), 1500);
        let behind: Vec<i32> = (FIRST + 1..FIRST + 1001).collect();
        assert_eq!(steps(&behind).len(), 1000);
    }

    #[test]
    fn the_largest_numbers_are_no_targets() {
        check(&[i32::MAX, 3, i32::MAX - 1]);
    }
}
