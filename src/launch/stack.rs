//! The initial stack: where the kernel put the arguments, the environment and the auxiliary vector.
//!
//! This module reads memory and `/proc`, and changes nothing.

use super::{AT_RANDOM, AT_SECURE};
use crate::error::{Error, Operation};
use crate::sys;
use core::ffi::{CStr, c_char};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

/// Returns the address of the initial stack.
///
/// Below the bytes at `random` are the auxiliary vector, the environment, the arguments, and the number of arguments.
/// An entry of the vector holds the address `random` itself. Returns `None` if the stack does not look so, which is
/// not known to happen, and for a program without arguments.
///
/// # Safety
///
/// - `random` is the value of `AT_RANDOM`, or 0.
///
/// # References
///
/// - getauxval(3); `create_elf_tables` in Linux's `fs/binfmt_elf.c`
pub(super) unsafe fn find_stack(random: usize) -> Option<*const usize> {
    /// How far below the bytes the entry is searched for, in words. The entries alone need about as much.
    const NEAR: usize = 48;
    /// No kind of entry has a larger number, and no string has a smaller address.
    const KINDS: usize = 1024;
    let word = size_of::<usize>();
    let top = (random & !(word - 1)).checked_sub(NEAR * word)? + NEAR * word;
    let at = |down: usize| core::ptr::with_exposed_provenance::<usize>(top - down * word);
    // SAFETY: the stack reaches from these bytes down to where the program is now. No read is farther down than the
    // tables are: each table ends where it should, or the search ends.
    let read = |down: usize| unsafe { at(down).read() };
    let mut entry = (2..NEAR).find(|down| read(*down) == AT_RANDOM && read(*down - 1) == random)?;
    while (1..KINDS).contains(&read(entry + 2)) {
        entry += 2;
    }
    // From here on down: a null pointer, the variables from the last to the first, a null pointer, the arguments
    // likewise, and the number of arguments, which is not the address of a string.
    let vars_end = entry + 1;
    let vars = (0..).find(|count| read(vars_end + 1 + count) < KINDS)?;
    let args_end = vars_end + 1 + vars;
    let args = (0..).find(|count| read(args_end + 1 + count) < KINDS.max(count + 1))?;
    let argc = args_end + 1 + args;
    let fits = read(vars_end) == 0 && read(args_end) == 0 && args > 0 && read(argc) == args;
    fits.then(|| at(argc))
}

/// How far the tables and strings of the initial stack reach at most, in bytes: the kernel grants 6 MiB.
const STACK_MAX: usize = 32 << 20;

/// Returns the address of the initial stack, found from libc's `environ`, if `environ` is the table that the
/// auxiliary vector follows.
///
/// For systems where the bytes are not next to the tables, as under gVisor and valgrind.
///
/// # Safety
///
/// - As for [`find_stack`]; `environ` is libc's.
#[cold]
#[inline(never)]
pub(super) unsafe fn find_stack_of(environ: *const *const c_char, random: usize) -> Option<*const usize> {
    let table = environ.cast::<usize>();
    let room = random.checked_sub(table.addr()).filter(|room| *room < STACK_MAX)? / size_of::<usize>();
    // SAFETY: up to the bytes, which are on the same stack, and from the entry that has their address down to where the
    // arguments' number is.
    let read = |at: isize| unsafe { table.wrapping_offset(at).read() };
    (0..room as isize - 1).find(|at| read(*at) == AT_RANDOM && read(*at + 1) == random)?;
    // From here on down: a null pointer, the arguments from the last to the first, and the number of arguments, which
    // is not the address of a string.
    let args = (0..).find(|count| read(-2 - *count) <= *count as usize)?;
    let fits = read(-1) == 0 && args > 0 && read(-2 - args) == args as usize;
    fits.then(|| table.wrapping_offset(-2 - args))
}

/// Returns the address of the initial stack that the kernel reports in `/proc/self/stat`.
///
/// Fails if the bytes at `random` are far from that address. The address is then that of another program, which plays
/// the kernel for this one.
pub(super) fn initial_stack(random: usize) -> Result<*const usize, Error> {
    let error = |errno| Error::call(Operation::ReadStat, errno);
    let mut buffer = [0; 1024];
    let stat = read_file(c"/proc/self/stat", &mut buffer).map_err(error)?;
    let is_own = |stack: &usize| random == 0 || random.checked_sub(*stack).is_some_and(|far| far < STACK_MAX);
    let stack = stack_field(stat).filter(is_own).ok_or(error(Errno::INVAL))?;
    Ok(core::ptr::with_exposed_provenance(stack))
}

/// Returns field 28 of a process's stat line. Field 2 is the program's name, which may hold any byte.
fn stack_field(stat: &[u8]) -> Option<usize> {
    let behind_name = stat.iter().rposition(|byte| *byte == b')')? + 2;
    let field = stat.get(behind_name..)?.split(|byte| *byte == b' ').nth(25)?;
    let address = core::str::from_utf8(field).ok()?.parse().ok()?;
    (address != 0).then_some(address)
}

/// Reads `AT_SECURE` without the initial stack. If it cannot be found, a process whose real and effective IDs differ
/// is privileged.
pub(super) fn read_privileged() -> bool {
    let mut words = [0_usize; 128];
    let mut buffer = [0; 1024];
    let len = match sys::auxv(&mut words) {
        Ok(len) => len / size_of::<usize>(),
        Err(_) => match read_file(c"/proc/self/auxv", &mut buffer) {
            Ok(bytes) => {
                let chunks = bytes.chunks_exact(size_of::<usize>());
                let len = chunks.len();
                for (word, chunk) in words.iter_mut().zip(chunks) {
                    *word = chunk.first_chunk().map_or(0, |bytes| usize::from_ne_bytes(*bytes));
                }
                len
            }
            // The process may not read even its own: it was made undumpable, as a set-user-ID start is.
            Err(Errno::ACCESS | Errno::PERM) => return true,
            Err(_) => 0,
        },
    };
    let vector = words.get(..len).unwrap_or(&words);
    let entry = vector.chunks_exact(2).find_map(|entry| match entry {
        [AT_SECURE, value] => Some(*value != 0),
        _ => None,
    });
    entry.unwrap_or_else(|| {
        use rustix::process::{getegid, geteuid, getgid, getuid};
        getuid() != geteuid() || getgid() != getegid()
    })
}

fn read_file<'b>(path: &CStr, buffer: &'b mut [u8]) -> Result<&'b [u8], Errno> {
    let file = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let mut len = 0;
    while let Some(rest) = buffer.get_mut(len..).filter(|rest| !rest.is_empty()) {
        match rustix::io::read(&file, rest) {
            Ok(0) => break,
            Ok(read) => len += read,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(buffer.get(..len).unwrap_or(&[]))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
    use super::super::tests::stack;
    use super::*;
    use std::vec::Vec as StdVec;

    /// Adds what the kernel puts above the tables: padding, and the bytes that `AT_RANDOM` points to.
    fn with_random(mut stack: StdVec<usize>, padding: usize) -> (StdVec<usize>, usize) {
        stack.extend(core::iter::repeat_n(usize::MAX, padding + 2));
        let random = stack.as_ptr().expose_provenance() + (stack.len() - 2) * size_of::<usize>();
        let entry = stack.iter().rposition(|word| *word == AT_RANDOM);
        if let Some(entry) = entry {
            stack[entry + 1] = random;
        }
        (stack, random)
    }

    /// Words below the stack, in which a wrong search ends.
    const BELOW: [usize; 64] = [0; 64];

    #[test]
    fn finds_the_stack_below_the_random_bytes() {
        let vector = [[6, 4096], [AT_SECURE, 0], [8, 0], [AT_RANDOM, 0], [0, 0]];
        let many = StdVec::from([c"x"; 3000]);
        for args in [&[c"prog"][..], &[c"prog", c"", c"b"], &many] {
            for vars in [&[][..], &[c"A=1"], &[c"A=1", c"B"], &many] {
                for padding in 0..8 {
                    let mut words = StdVec::from(BELOW);
                    words.extend(stack(args, vars, &vector));
                    let (words, random) = with_random(words, padding);
                    // SAFETY: laid out as the kernel does.
                    let found = unsafe { find_stack(random) };
                    assert_eq!(found, Some(&raw const words[BELOW.len()]), "{} {}", args.len(), vars.len());
                }
            }
        }
    }

    #[test]
    fn finds_no_stack_that_looks_otherwise() {
        let entry = [AT_RANDOM, 0];
        let long = [[6, 4096]; 48];
        let mut wrong_count = stack(&[c"prog"], &[c"A=1"], &[entry, [0, 0]]);
        wrong_count[0] = 2;
        let mut no_end = stack(&[c"prog"], &[c"A=1"], &[entry, [0, 0]]);
        no_end[4] = 4096;
        for words in [
            stack(&[c"prog"], &[c"A=1"], &[[6, 4096], [0, 0]]),
            stack(&[c"prog"], &[c"A=1"], &[&[entry][..], &long, &[[0, 0]]].concat()),
            stack(&[], &[c"A=1"], &[entry, [0, 0]]),
            wrong_count,
            no_end,
        ] {
            let (words, random) = with_random([&BELOW[..], &words].concat(), 1);
            // SAFETY: all that is read is in `words`.
            assert_eq!(unsafe { find_stack(random) }, None, "{words:?}");
        }
        // SAFETY: not there at all.
        assert_eq!(unsafe { find_stack(0) }, None);
    }

    #[test]
    fn the_stack_is_where_the_kernel_says() {
        // SAFETY: libc's own.
        let random = unsafe { libc::getauxval(libc::AT_RANDOM) };
        // SAFETY: what libc tells.
        assert_eq!(unsafe { find_stack(random as usize) }, Some(initial_stack(random as usize).unwrap()));
        // Another program's.
        assert!(initial_stack(random as usize / 2).is_err());
        assert!(initial_stack(1).is_err());
    }

    #[test]
    fn finds_the_stack_below_the_environment() {
        let vector = [[6, 4096], [AT_RANDOM, 0], [8, 0], [0, 0]];
        for args in [&[c"prog"][..], &[c"prog", c"", c"b"]] {
            for vars in [&[][..], &[c"A=1"], &[c"A=1", c"B"]] {
                let mut words = StdVec::from(BELOW);
                words.extend(stack(args, vars, &vector));
                let (words, random) = with_random(words, 4000);
                let environ = BELOW.len() + 1 + args.len() + 1;
                let find = |environ: usize| {
                    let environ = (&raw const words[environ]).cast();
                    // SAFETY: all that is read is in `words`.
                    unsafe { find_stack_of(environ, random) }
                };
                assert_eq!(find(environ), Some(&raw const words[BELOW.len()]));
                // Not the whole table, or not on this stack.
                assert_eq!(find(environ + 1), None);
                // SAFETY: nothing is read.
                assert_eq!(unsafe { find_stack_of(core::ptr::null(), random) }, None);
                let elsewhere: *const *const c_char = core::ptr::without_provenance(random + 64);
                // SAFETY: as above.
                assert_eq!(unsafe { find_stack_of(elsewhere, random) }, None);
            }
        }
    }

    #[test]
    fn finds_the_stack_field_whatever_the_program_is_called() {
        let rest = "S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 4711 26";
        for name in ["(prog)", "(a b) c)", "())"] {
            let stat = std::format!("42 {name} {rest}\n");
            assert_eq!(stack_field(stat.as_bytes()), Some(4711), "{name}");
        }
        assert_eq!(stack_field(b"42 (prog) S 1"), None);
        assert_eq!(stack_field(b""), None);
    }
}
