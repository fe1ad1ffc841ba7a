//! The environment's pointer table against a plain vector: same strings, same order, and undo brings back
//! the very same pointers.
#![no_main]

use arbitrary::Arbitrary;
use gracenet::Error;
use gracenet::error::Table;
use gracenet::internal::{CHANGES, CStrPtr, Environ, Journal};
use heapless::Vec as Fixed;
use libfuzzer_sys::fuzz_target;
use std::ffi::CString;
use std::ptr;

/// Small, so that it is full often.
const CAPACITY: usize = 12;

#[derive(Arbitrary, Debug)]
struct Input {
    table: Vec<Slot>,
    steps: Vec<Step>,
    /// A name to misuse the table with, once all is checked.
    misused: Name,
}

#[derive(Arbitrary, Debug)]
enum Slot {
    String(Text),
    /// What ends the table; there may be strings behind it.
    End,
}

#[derive(Arbitrary, Debug)]
enum Text {
    /// A name, `=`, and a value of up to three bytes.
    Variable(Name, u8),
    /// As far as the first NUL; may be empty, may be without `=`.
    Raw([u8; 3]),
}

#[derive(Arbitrary, Debug)]
enum Name {
    Known(u8),
    /// Any bytes, a NUL too.
    Raw([u8; 2]),
}

#[derive(Arbitrary, Debug)]
enum Step {
    /// The string need not be a variable of that name.
    Set(Name, Text),
    /// Often enough to fill the journal.
    SetOften(Name, Text, u8),
    Remove(Name),
    Push(Text),
    Consume(Name),
    Undo,
}

impl Name {
    fn bytes(&self) -> &[u8] {
        const KNOWN: [&[u8]; 8] = [b"A", b"B", b"AB", b"", b"A=", b"LISTEN_FDS", b"LISTEN_FDNAMES", b"a"];
        match self {
            Self::Known(which) => KNOWN[usize::from(*which) % KNOWN.len()],
            Self::Raw(bytes) => bytes,
        }
    }
}

/// Keeps every string where it is until the run is over.
#[derive(Default)]
struct Strings(Vec<CString>);

impl Strings {
    fn add(&mut self, text: &Text) -> CStrPtr {
        let mut bytes = match text {
            Text::Variable(name, value) => {
                let mut bytes = name.bytes().to_vec();
                bytes.push(b'=');
                bytes.extend(std::iter::repeat_n(*value, usize::from(value % 4)));
                bytes
            }
            Text::Raw(bytes) => bytes.to_vec(),
        };
        bytes.retain(|byte| *byte != 0);
        let string = CString::new(bytes).expect("no NUL is left");
        // SAFETY: the string stays in the vector, which outlives every table of the run.
        let ptr = unsafe { CStrPtr::new(string.as_ptr()) }.expect("not null");
        self.0.push(string);
        ptr
    }
}

/// What the table should read, and what it would read undone.
struct Model {
    vars: Vec<CStrPtr>,
    undone: Vec<CStrPtr>,
    steps: usize,
}

/// Which table was too small.
type Outcome = Result<(), Table>;

impl Model {
    fn find(&self, name: &[u8], from: usize) -> Option<usize> {
        (from..self.vars.len()).find(|slot| is_variable(&self.vars[*slot], name))
    }

    fn change(&mut self) -> Outcome {
        if self.steps == CHANGES {
            return Err(Table::Changes);
        }
        self.steps += 1;
        Ok(())
    }

    fn set(&mut self, name: &[u8], string: CStrPtr) -> Outcome {
        let Some(slot) = self.find(name, 0) else {
            return self.push(string);
        };
        self.change()?;
        self.vars[slot] = string;
        self.remove(name, slot + 1)
    }

    fn remove(&mut self, name: &[u8], from: usize) -> Outcome {
        while let Some(slot) = self.find(name, from) {
            self.change()?;
            self.vars.remove(slot);
        }
        Ok(())
    }

    fn push(&mut self, string: CStrPtr) -> Outcome {
        if self.vars.len() + 1 == CAPACITY {
            return Err(Table::Variables);
        }
        self.change()?;
        self.vars.push(string);
        Ok(())
    }

    fn undo(&mut self) {
        self.vars.clone_from(&self.undone);
        self.steps = 0;
    }
}

fn is_variable(string: &CStrPtr, name: &[u8]) -> bool {
    string.to_bytes().strip_prefix(name).is_some_and(|rest| rest.starts_with(b"="))
}

fn outcome(result: Result<(), Error>) -> Outcome {
    result.map_err(|error| match error {
        Error::Capacity { table, needed, capacity } => {
            assert!(needed > capacity);
            table
        }
        other => panic!("{other:?}"),
    })
}

fuzz_target!(|input: Input| {
    let mut strings = Strings::default();
    let mut table = Fixed::<Option<CStrPtr>, CAPACITY>::new();
    for slot in input.table.iter().take(CAPACITY) {
        let slot = match slot {
            Slot::String(text) => Some(strings.add(text)),
            // SAFETY: null.
            Slot::End => unsafe { CStrPtr::new(ptr::null()) },
        };
        table.push(slot).expect("no more than its capacity");
    }
    let vars: Vec<CStrPtr> = table.iter().map_while(|slot| *slot).collect();
    let before = table.clone();
    let mut environ = match Environ::new(table.as_mut_view()) {
        Ok(environ) => environ,
        Err(error) => {
            assert_eq!(
                error,
                Error::Capacity {
                    table: Table::Variables,
                    needed: CAPACITY as u32 + 1,
                    capacity: CAPACITY as u32
                }
            );
            assert_eq!(vars.len(), CAPACITY);
            assert_eq!(table, before);
            return;
        }
    };
    let mut model = Model { undone: vars.clone(), vars, steps: 0 };
    let mut journal = Journal::new();
    check(&environ, &model, &input.misused);
    for step in &input.steps {
        take_step(step, &mut strings, &mut environ, &mut model, &mut journal);
        check(&environ, &model, &input.misused);
    }
    environ.undo(&mut journal);
    model.undo();
    check(&environ, &model, &input.misused);
    let is_same = |table: &[Option<CStrPtr>]| {
        let (end, vars) = table.split_last().expect("the end");
        end.is_none() && vars.iter().copied().eq(model.vars.iter().map(|string| Some(*string)))
    };
    assert!(is_same(&table));
    // Consuming between a change and its undoing leaves no promise but to stay within bounds.
    let string = CStrPtr::from(c"A=1");
    let mut environ = Environ::new(table.as_mut_view()).expect("it has its end");
    let _full = environ.set(input.misused.bytes(), string, &mut journal);
    let _full = environ.push(string, &mut journal);
    environ.consume(input.misused.bytes());
    environ.undo(&mut journal);
    let _len = environ.iter().map(|string| string.to_bytes().len()).sum::<usize>();
});

fn take_step(
    step: &Step,
    strings: &mut Strings,
    environ: &mut Environ<'_>,
    model: &mut Model,
    journal: &mut Journal,
) {
    match step {
        Step::Set(name, text) => {
            let (name, string) = (name.bytes(), strings.add(text));
            assert_eq!(outcome(environ.set(name, string, journal)), model.set(name, string));
        }
        Step::SetOften(name, text, times) => {
            let (name, string) = (name.bytes(), strings.add(text));
            for _ in 0..times % 80 {
                assert_eq!(outcome(environ.set(name, string, journal)), model.set(name, string));
            }
        }
        Step::Remove(name) => {
            assert_eq!(outcome(environ.remove(name.bytes(), journal)), model.remove(name.bytes(), 0));
        }
        Step::Push(text) => {
            let string = strings.add(text);
            assert_eq!(outcome(environ.push(string, journal)), model.push(string));
        }
        Step::Consume(name) => {
            environ.undo(journal);
            environ.consume(name.bytes());
            model.undo();
            model.vars.retain(|string| !is_variable(string, name.bytes()));
            model.undone.clone_from(&model.vars);
        }
        Step::Undo => {
            environ.undo(journal);
            model.undo();
        }
    }
}

fn check(environ: &Environ<'_>, model: &Model, name: &Name) {
    assert!(environ.iter().eq(model.vars.iter().copied()));
    assert_eq!((environ.len(), environ.is_empty()), (model.vars.len(), model.vars.is_empty()));
    let name = name.bytes();
    let value = model.find(name, 0).map(|slot| &model.vars[slot].to_bytes()[name.len() + 1..]);
    assert_eq!(environ.var(name), value);
}
