//! Placement: which duplications bring each source descriptor to its target number, in an order that loses
//! none.
//!
//! The sources of a restart may sit anywhere, on each other's targets too. [`Placement`] hands out one step
//! at a time: a step frees the number its source sat on, which makes the next step possible; only a closed
//! circle needs a spare. n sources take n steps and two for each circle, of which one replaces a move: n
//! plus the number of circles in all. It makes no system call; whoever executes the steps does.

/// What to do next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// `fd` is where it belongs: clear its `FD_CLOEXEC`.
    Keep {
        /// The number it sits on and belongs on.
        fd: i32,
    },
    /// Duplicate `from` onto `to`, without `FD_CLOEXEC`. Nobody needs what sits on `to`.
    Move {
        /// The source.
        from: i32,
        /// The target.
        to: i32,
    },
    /// Duplicate `from` to any free number behind the targets, and remember that number as the spare.
    Park {
        /// The source; it sits on a target that is about to be used.
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
    /// The number it sits on.
    fd: i32,
    /// The index of the source that sits on this index's target, or [`NONE`].
    reader: u32,
    done: bool,
}

const NONE: u32 = u32::MAX;

impl Source {
    /// The descriptor `fd`, to be placed.
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
    /// Where the search for the next beginning of a chain stands.
    next: usize,
    /// The chain being followed: the index whose target is free now.
    chain: Option<usize>,
    /// In a circle: the index whose target the parked source sat on, hence whose number now is the spare.
    parked: Option<usize>,
    circles: bool,
}

impl<'s> Placement<'s> {
    /// Prepares the steps for `sources`, which are numbers of their own, each once, none negative.
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

    /// The number of the target `index`.
    const fn target(&self, index: usize) -> i32 {
        self.first + index as i32
    }

    /// Marks `index` as placed and goes on to the target that its source sat on, if that one waits for it.
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

    /// Whether the number of target `index` is one that an unplaced source still sits on.
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
                // Every chain with a free end is placed; what is left goes in circles.
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
            if source.fd == self.first + index as i32 {
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

/// The index of the target with the number `fd`.
fn target_index(fd: i32, first: i32, len: usize) -> Option<usize> {
    usize::try_from(fd.checked_sub(first)?).ok().filter(|index| *index < len)
}
