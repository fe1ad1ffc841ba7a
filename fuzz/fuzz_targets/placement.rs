//! Placement: the steps, taken on a model of a descriptor table, lose no source and end as promised.
#![no_main]

use arbitrary::Arbitrary;
use gracenet::internal::{Placement, Source, Step};
use libfuzzer_sys::fuzz_target;

const MOST: usize = 64;

#[derive(Arbitrary, Debug)]
struct Input<'d> {
    first: u8,
    layout: Layout,
    picks: &'d [u8],
}

#[derive(Arbitrary, Debug)]
enum Layout {
    /// Each pick is a number, those seen before left out.
    Anywhere,
    /// The same, no further than this behind the first target.
    Clustered(u8),
    /// All targets in an order that the picks choose, this many of them replaced by numbers behind.
    Shuffled(u8),
    /// Also what nobody may ask for: numbers twice, and negative ones.
    Misused,
}

fuzz_target!(|input: Input<'_>| {
    let first = i32::from(input.first % 16);
    let picks = &input.picks[..input.picks.len().min(MOST)];
    let numbers: Vec<i32> = match input.layout {
        Layout::Anywhere => distinct(picks.iter().map(|pick| i32::from(*pick))),
        Layout::Clustered(span) => {
            let span = first + i32::from(span).max(1);
            distinct(picks.iter().map(|pick| i32::from(*pick) % span))
        }
        Layout::Shuffled(replaced) => shuffled(first, picks, replaced.into()),
        Layout::Misused => {
            let mut sources: Vec<Source> =
                picks.iter().map(|pick| Source::new(i32::from(pick.cast_signed()))).collect();
            let steps = Placement::new(&mut sources, first).take(3 * MOST).count();
            assert!(steps <= 2 * picks.len(), "goes on for ever");
            return;
        }
    };
    if !numbers.is_empty() {
        check(&numbers, first);
    }
});

fn distinct(numbers: impl Iterator<Item = i32>) -> Vec<i32> {
    let mut seen = [false; 256];
    numbers.filter(|number| !std::mem::replace(&mut seen[*number as usize], true)).collect()
}

fn shuffled(first: i32, picks: &[u8], replaced: usize) -> Vec<i32> {
    let mut numbers: Vec<i32> = (first..).take(picks.len()).collect();
    for (slot, pick) in picks.iter().enumerate() {
        numbers.swap(slot, usize::from(*pick) % picks.len());
    }
    for (slot, number) in numbers.iter_mut().enumerate().take(replaced) {
        *number = first + (picks.len() + slot) as i32;
    }
    numbers
}

#[derive(Clone, Copy, Debug)]
struct Open {
    /// Which source it is a duplicate of.
    source: usize,
    cloexec: bool,
}

/// A process's descriptors by number.
struct Fds {
    open: [Option<Open>; 512],
    /// How many duplicates of each source are open.
    copies: [usize; MOST],
}

impl Fds {
    fn new(numbers: &[i32]) -> Self {
        let mut fds = Self { open: [None; 512], copies: [0; MOST] };
        for (source, fd) in numbers.iter().enumerate() {
            fds.put(*fd, Open { source, cloexec: true });
        }
        fds
    }

    fn at(&self, fd: i32) -> Open {
        self.open[fd as usize].expect("a number that is open")
    }

    fn put(&mut self, fd: i32, open: Open) {
        self.copies[open.source] += 1;
        if let Some(replaced) = self.open[fd as usize].replace(open) {
            self.copies[replaced.source] -= 1;
            assert!(self.copies[replaced.source] > 0, "source {} is lost", replaced.source);
        }
    }
}

fn check(numbers: &[i32], first: i32) {
    let mut fds = Fds::new(numbers);
    let behind = first + numbers.len() as i32;
    let source_for = |fd: i32| {
        assert!((first..behind).contains(&fd), "{fd} is no target");
        (fd - first) as usize
    };
    let mut spare = None;
    let mut placed = [false; MOST];
    let mut place =
        |fd: i32| assert!(!std::mem::replace(&mut placed[source_for(fd)], true), "{fd} placed twice");
    let mut steps = 0;
    let mut scratch: Vec<Source> = numbers.iter().map(|fd| Source::new(*fd)).collect();
    let mut placement = Placement::new(&mut scratch, first);
    for step in &mut placement {
        steps += 1;
        match step {
            Step::Keep { fd } => {
                assert_eq!(fds.at(fd).source, source_for(fd));
                fds.open[fd as usize] = Some(Open { cloexec: false, ..fds.at(fd) });
                place(fd);
            }
            Step::Move { from, to } => {
                assert_ne!(from, to, "dup3 refuses that");
                assert_eq!(fds.at(from).source, source_for(to));
                fds.put(to, Open { cloexec: false, ..fds.at(from) });
                place(to);
            }
            Step::Park { from } => {
                assert!(spare.is_none(), "the spare is in use");
                source_for(from);
                let free = (behind..).find(|fd| fds.open[*fd as usize].is_none()).expect("a free number");
                fds.put(free, Open { cloexec: true, ..fds.at(from) });
                spare = Some(free);
            }
            Step::Unpark { to } => {
                let from = spare.take().expect("a parked source");
                assert_eq!(fds.at(from).source, source_for(to));
                fds.put(to, Open { cloexec: false, ..fds.at(from) });
                place(to);
            }
        }
    }
    assert_eq!(placement.next(), None);
    for (source, fd) in (first..behind).enumerate() {
        let open = fds.at(fd);
        assert_eq!((open.source, open.cloexec), (source, false), "target {fd}");
    }
    let outside = fds.open.iter().enumerate().filter(|(fd, _)| !(first..behind).contains(&(*fd as i32)));
    assert!(outside.flat_map(|(_, open)| open).all(|open| open.cloexec), "handed over by accident");
    assert_eq!(steps, numbers.len() + circles(numbers, first));
}

/// How many circles of two or more sources sit on each other's targets.
fn circles(numbers: &[i32], first: i32) -> usize {
    let next = |source: usize| usize::try_from(numbers[source] - first).ok().filter(|on| *on < numbers.len());
    let on_circle = |start: usize| {
        let mut smallest = start;
        let mut at = start;
        for len in 1..=numbers.len() {
            at = next(at)?;
            smallest = smallest.min(at);
            if at == start {
                return (len > 1).then_some(smallest);
            }
        }
        None
    };
    // Each circle is counted at its smallest source.
    (0..numbers.len()).filter(|start| on_circle(*start) == Some(*start)).count()
}
