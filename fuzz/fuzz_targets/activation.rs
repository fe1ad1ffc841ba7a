//! The `LISTEN_*` variables: the parser against a second reading of the rules, and parse after render.
#![no_main]

use arbitrary::Arbitrary;
use gracenet::error::Fault;
use gracenet::internal::{
    Activation, FIRST_FD, NUMBER_LINE, Names, UNKNOWN, Variables, check_name, render_number,
};
use gracenet::{Error, Variable};
use libfuzzer_sys::fuzz_target;

/// How many names the table holds.
const CAPACITY: usize = 24;

#[derive(Arbitrary, Debug)]
struct Input<'d> {
    /// This process.
    pid: u32,
    /// The number of its pidfd, where the kernel has one.
    pidfd_id: u64,
    has_pidfd_id: bool,
    strict: bool,
    ready_fd: u32,
    /// Which of the names is taken out again, modulo their number.
    room: u16,
    /// Lines, one variable each; also, cut at every colon and newline, the names to render.
    text: &'d [u8],
}

fuzz_target!(|input: Input<'_>| {
    read(&input);
    render_and_read_back(&input);
});

/// Whatever the variables hold, the parser answers what the rules say.
fn read(input: &Input<'_>) {
    let value = |variable: Variable| {
        let lines = input.text.split(|byte| *byte == b'\n');
        lines.into_iter().find_map(|line| line.strip_prefix(variable.name().as_bytes())?.strip_prefix(b"="))
    };
    let variables = Variables {
        pid: value(Variable::Pid),
        pidfd_id: value(Variable::PidfdId),
        fds: value(Variable::Fds),
        names: value(Variable::Names),
        ready_fd: value(Variable::ReadyFd),
    };
    let own = input.has_pidfd_id.then_some(input.pidfd_id);
    let found = Activation::parse(&variables, input.strict, input.pid, || {
        assert!(variables.pidfd_id.is_some(), "asked for a pidfd that no variable is about");
        own
    });
    match (found, expected(&variables, input.strict, input.pid, own)) {
        (Ok(found), Ok(expected)) => {
            assert_eq!(found.count, expected.count);
            assert_eq!(found.ready_fd, expected.ready_fd);
            match expected.names {
                Some(names) => assert!(found.names().eq(names.iter().copied())),
                None => {
                    assert_eq!(found.names().size_hint(), (found.count, Some(found.count)));
                    assert!(found.names().take(8).all(|name| name == UNKNOWN.as_bytes()));
                }
            }
        }
        (Err(found), Err((variable, fault))) => assert_eq!(found, Error::Variable { variable, fault }),
        (found, expected) => panic!("{found:?} is not {expected:?}"),
    }
}

#[derive(Debug, Default)]
struct Granted<'d> {
    count: usize,
    /// `None`: each is unknown.
    names: Option<Vec<&'d [u8]>>,
    ready_fd: Option<i32>,
}

/// What the variables grant, or which of them is the first that cannot be read, and why.
fn expected<'d>(
    variables: &Variables<'d>,
    strict: bool,
    pid: u32,
    pidfd_id: Option<u64>,
) -> Result<Granted<'d>, (Variable, Fault)> {
    let nothing = Granted::default();
    if let Some(value) = variables.pid {
        if decimal(Variable::Pid, value, 1, 0x7fff_ffff)? != u128::from(pid) {
            return Ok(nothing);
        }
    } else if strict {
        return Ok(nothing);
    }
    if let Some(value) = variables.pidfd_id {
        let named = decimal(Variable::PidfdId, value, 0, u64::MAX.into())?;
        if pidfd_id.is_some_and(|own| u128::from(own) != named) {
            return Ok(nothing);
        }
    }
    let count = match variables.fds.unwrap_or(b"") {
        b"" => 0,
        value => decimal(Variable::Fds, value, 0, 0x7fff_fffc)? as usize,
    };
    let names = match variables.names {
        Some(value) if count > 0 => {
            let names: Vec<&[u8]> = value.split(|byte| *byte == b':').collect();
            if names.len() != count {
                return Err((
                    Variable::Names,
                    Fault::NameCount { names: names.len() as u32, fds: count as u32 },
                ));
            }
            if let Some(position) = names.iter().position(|name| !is_name(name)) {
                return Err((Variable::Names, Fault::InvalidName { position: position as u32 }));
            }
            Some(names)
        }
        _ => None,
    };
    let ready_fd = match variables.ready_fd {
        Some(value) if variables.pid.is_some() => {
            Some(decimal(Variable::ReadyFd, value, 0, 0x7fff_ffff)? as i32)
        }
        _ => None,
    };
    Ok(Granted { count, names, ready_fd })
}

/// A number without sign, space or prefix. One with a minus is a number, and too small.
fn decimal(variable: Variable, value: &[u8], least: u128, most: u128) -> Result<u128, (Variable, Fault)> {
    let digits = value.strip_prefix(b"-").unwrap_or(value);
    if digits.is_empty() || digits.iter().any(|byte| !(b'0'..=b'9').contains(byte)) {
        return Err((variable, Fault::NotANumber));
    }
    // What 128 bits do not hold is beyond all limits too.
    let number = str::from_utf8(digits).expect("it is ASCII").parse().unwrap_or(u128::MAX);
    if digits.len() < value.len() || number < least || number > most {
        return Err((variable, Fault::OutOfRange));
    }
    Ok(number)
}

/// What systemd takes for a name.
fn is_name(name: &[u8]) -> bool {
    name.len() <= 255 && name.iter().all(|byte| (b' '..=b'~').contains(byte) && *byte != b':')
}

/// What is rendered reads as it was, to the process that it is meant for and to no other.
fn render_and_read_back(input: &Input<'_>) {
    let Ok(text) = str::from_utf8(input.text) else {
        return;
    };
    for name in text.split('\n') {
        assert_eq!(check_name(name).is_ok(), is_name(name.as_bytes()));
    }
    let names = text.split([':', '\n']).filter(|name| is_name(name.as_bytes()));
    let pid = input.pid & 0x7fff_ffff | 1;
    let ready_fd = input.ready_fd & 0x7fff_ffff;

    let mut table = Names::<CAPACITY>::new();
    let mut pushed = Vec::new();
    for name in names.take(CAPACITY) {
        if table.check_room(name.len()).is_ok() {
            let at = table.push(name.as_bytes());
            assert_eq!(table.get(at), name.as_bytes());
            pushed.push(name.as_bytes());
        }
    }
    if let Some(position) = usize::from(input.room).checked_rem(pushed.len()) {
        table.remove(position);
        pushed.remove(position);
    }
    assert!(table.iter().eq(pushed.iter().copied()));
    let count = pushed.len();
    let line = if count == 0 { b"LISTEN_FDNAMES=\0" } else { table.bytes() };
    let lines = [
        number(Variable::Pid, pid.into()),
        number(Variable::PidfdId, input.pidfd_id),
        number(Variable::Fds, count as u64),
        number(Variable::ReadyFd, ready_fd.into()),
    ];
    let [pid_line, pidfd_id_line, fds_line, ready_fd_line] = &lines;
    let variables = Variables {
        pid: Some(value_of(Variable::Pid, pid_line)),
        pidfd_id: Some(value_of(Variable::PidfdId, pidfd_id_line)),
        fds: Some(value_of(Variable::Fds, fds_line)),
        names: Some(value_of(Variable::Names, line)),
        ready_fd: Some(value_of(Variable::ReadyFd, ready_fd_line)),
    };
    let parse = |variables: &Variables<'_>, pid: u32, pidfd_id: Option<u64>| {
        let found = Activation::parse(variables, input.strict, pid, || pidfd_id).expect("rendered variables");
        (found.count, found.ready_fd, found.names().eq(pushed.iter().copied()))
    };
    let all = (count, Some(ready_fd as i32), true);
    let nothing = (0, None, count == 0);
    let own = Some(input.pidfd_id);
    assert_eq!(parse(&variables, pid, own), all);
    assert_eq!(parse(&variables, pid, None), all);
    assert_eq!(parse(&Variables { pidfd_id: None, ..variables }, pid, own), all);
    assert_eq!(parse(&variables, pid ^ 2, own), nothing);
    assert_eq!(parse(&variables, pid, Some(!input.pidfd_id)), nothing);
    let anyone = Variables { pid: None, ..variables };
    assert_eq!(parse(&anyone, pid, own), if input.strict { nothing } else { (count, None, true) });

    let unnamed =
        Activation::parse(&Variables { names: None, ..variables }, true, pid, || own).expect("as above");
    assert!(unnamed.names().eq(std::iter::repeat_n(UNKNOWN.as_bytes(), count)));
    assert!(i32::try_from(count).is_ok_and(|count| count <= i32::MAX - FIRST_FD));
}

fn number(variable: Variable, value: u64) -> [u8; NUMBER_LINE] {
    let mut line = [0xff; NUMBER_LINE];
    let len = render_number(variable, value, &mut line).expect("a line of this length is never too short");
    assert!(line[len..].iter().all(|byte| *byte == 0xff));
    assert!(render_number(variable, value, &mut [0; NUMBER_LINE][..len - 1]).is_err());
    line
}

/// What stands between the variable's `=` and the NUL.
fn value_of(variable: Variable, line: &[u8]) -> &[u8] {
    let end = line.iter().position(|byte| *byte == 0).expect("a NUL at the end");
    let value = line[..end].strip_prefix(variable.name().as_bytes()).expect("the variable's name");
    value.strip_prefix(b"=").expect("an equals sign")
}
