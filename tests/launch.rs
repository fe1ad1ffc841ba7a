//! The launch: what is captured, what does not fit, and that a restart repeats it. The successors are shells
//! that write what they see to fd 3; what changes a whole process happens in a child.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::std_instead_of_core,
    unsafe_code,
    reason = "tests"
)]

mod common;

use common::{errno, in_child, is_role, launch, launch_of, table, vars};
use gracenet::Variable;
use gracenet::error::{Operation, Table};
use gracenet::{Change, Error, Executable, Launch, Net, Progress, Readiness, Restart};
use rustix::fs::StatVfsMountFlags;
use rustix::io::Errno;
use std::ffi::{CStr, CString, OsStr, OsString, c_char};
use std::fs::{File, Permissions};
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

common::trials! {
    more_arguments_or_variables_than_fit_are_an_error_that_says_which_and_how_many,
    the_default_capacities_hold_a_large_environment,
    strings_are_pointed_to_and_never_copied,
    nothing_at_all_is_a_launch_too,
    a_variable_is_found_by_its_whole_name,
    arguments_that_are_empty_or_not_utf_8_survive_a_restart,
    the_environment_survives_a_restart_in_order_but_for_the_activation_variables,
    variables_of_an_earlier_activation_are_rewritten_in_their_places,
    arguments_and_variables_can_be_replaced_added_and_removed,
    the_program_is_looked_up_in_path_when_the_restart_happens,
    empty_and_relative_elements_of_path_are_refused,
    a_program_in_path_that_may_not_be_executed_is_passed_over_and_told,
    a_program_with_a_slash_is_relative_to_the_launch_directory,
    the_program_can_be_a_given_path_or_an_open_file,
    the_program_can_be_the_same_image,
    the_working_directory_is_pwd_if_that_names_it_and_the_directory_itself_if_not,
    from_libc_sees_what_std_sees,
    a_set_user_id_start_is_seen_through_every_door if set_user_id,
    a_set_user_id_start_says_neither_program_nor_directory_nor_manager,
    remove_from_libc_hides_the_variables_from_every_later_child,
    remove_from_libc_takes_out_every_one_of_a_name,
    what_is_opened_gets_no_number_of_stdio,
    a_path_that_a_successor_serves_is_never_removed,
    a_failed_successor_leaves_the_path_to_this_process,
}

/// Longer than any of these successors lives.
const LONG: Duration = Duration::from_secs(60);

/// Starts a successor with nothing but a pipe on fd 3, and returns what it wrote there.
fn output<const ARGS: usize, const VARS: usize>(
    launch: &mut Launch<ARGS, VARS>,
    restart: &Restart<'_>,
) -> Result<Vec<u8>, Error> {
    let (mut reader, writer) = std::io::pipe().unwrap();
    let mut net = Net::<1>::new();
    let id = net.add(writer.into(), "out").unwrap();
    let before: Vec<CString> = launch.vars().map(CStr::to_owned).collect();
    let started = net.spawn(launch, &restart.readiness(Readiness::Executed)).map(drop);
    assert_eq!(launch.vars().map(CStr::to_owned).collect::<Vec<_>>(), before, "the launch reads as before");
    started?;
    net.close(id).unwrap();
    let mut output = Vec::new();
    reader.read_to_end(&mut output).unwrap();
    assert_eq!(net.successor_mut().unwrap().wait(LONG), Ok(Progress::Ready));
    Ok(output)
}

/// The launch of a shell that runs `script`, with these variables.
fn shell(script: &str, vars: &[&[u8]]) -> Launch {
    launch_of(&[b"/bin/sh", b"-c", script.as_bytes()], vars).unwrap()
}

fn text(output: Vec<u8>) -> String {
    String::from_utf8(output).unwrap()
}

fn more_arguments_or_variables_than_fit_are_an_error_that_says_which_and_how_many() {
    let args: [&[u8]; 3] = [b"a", b"b", b"c"];
    let vars: [&[u8]; 4] = [b"A=", b"B=", b"C=", b"D="];
    let full = |table, needed, capacity| Error::Capacity { table, needed, capacity };
    // The null pointer that ends a table counts.
    let error = launch_of::<3, 5>(&args, &vars).unwrap_err();
    assert_eq!(error, full(Table::Arguments, 4, 3));
    assert_eq!(error.to_string(), "4 arguments do not fit in 3");
    let error = launch_of::<4, 4>(&args, &vars).unwrap_err();
    assert_eq!(error, full(Table::Variables, 5, 4));
    assert_eq!(error.to_string(), "5 environment variables do not fit in 4");
    assert_eq!(launch_of::<4, 1>(&args, &vars).unwrap_err(), full(Table::Variables, 5, 1));
    let launch = launch_of::<4, 5>(&args, &vars).unwrap();
    assert_eq!((launch.args().count(), launch.vars().count()), (3, 4));
}

fn the_default_capacities_hold_a_large_environment() {
    let strings: Vec<String> = (0..2040).map(|number| format!("VARIABLE_{number}=")).collect();
    let strings: Vec<&[u8]> = strings.iter().map(String::as_bytes).collect();
    let launch: Launch = launch_of(&strings[..1000], &strings).unwrap();
    assert_eq!((launch.args().count(), launch.vars().count()), (1000, 2040));
    assert_eq!(launch.var(b"VARIABLE_2039"), Some(&b""[..]));
    let error = launch_of::<1024, 2048>(&[b"x".as_slice(); 1024], &[]).unwrap_err();
    assert_eq!(error, Error::Capacity { table: Table::Arguments, needed: 1025, capacity: 1024 });
}

fn strings_are_pointed_to_and_never_copied() {
    let (argv, envp) = (table(&[b"test", b"x"]), table(&[b"A=1", b"B=2"]));
    // SAFETY: both tables and their strings are leaked.
    let launch: Launch = unsafe { Launch::new(2, argv, envp) }.unwrap();
    // SAFETY: each table holds two strings.
    let pointers = |table: *const *const c_char| unsafe { std::slice::from_raw_parts(table, 2) };
    assert_eq!(launch.args().map(CStr::as_ptr).collect::<Vec<_>>(), pointers(argv));
    assert_eq!(launch.vars().map(CStr::as_ptr).collect::<Vec<_>>(), pointers(envp));
}

fn nothing_at_all_is_a_launch_too() {
    // SAFETY: a table of no strings, and none.
    let launch: Launch<1, 1> = unsafe { Launch::new(0, table(&[]), std::ptr::null()) }.unwrap();
    assert_eq!((launch.args().count(), launch.vars().count()), (0, 0));
    assert_eq!(launch.var(b"PATH"), None);
    let mut launch = launch_of::<1, 8>(&[], &[]).unwrap();
    assert_eq!(output(&mut launch, &Restart::new()), Err(Error::NoArguments));
    // Nor is a program started without arguments that another way names: not even a null pointer is in an empty table.
    for launch in [&mut launch_of::<4, 8>(&[], &[]).unwrap(), &mut Launch::<4, 8>::empty()] {
        let told = Restart::new().executable(Executable::Path(c"/bin/true"));
        assert_eq!(output(launch, &told), Err(Error::NoArguments));
        assert_eq!(output(launch, &told.args(&[])), Err(Error::NoArguments));
    }
}

#[test]
fn a_capture_that_fails_leaves_an_empty_launch() {
    let mut launch = launch_of::<8, 8>(&[b"/bin/true"], &[b"A=1"]).unwrap();
    // The stack of a program with more variables than there is room for: argc, argv, envp, the auxiliary vector.
    let string = c"A=1".as_ptr() as usize;
    let mut stack = vec![1, string, 0];
    stack.extend([string; 8]);
    stack.extend([0, 0, 0]);
    // SAFETY: it looks like a stack, and is leaked.
    let result = unsafe { launch.capture_from_stack(stack.leak().as_ptr()) };
    assert_eq!(result, Err(Error::Capacity { table: Table::Variables, needed: 9, capacity: 8 }));
    assert_eq!((launch.args().count(), launch.vars().count()), (0, 0));
    let told = Restart::new().executable(Executable::Path(c"/bin/true"));
    assert_eq!(output(&mut launch, &told), Err(Error::NoArguments));
}

fn a_variable_is_found_by_its_whole_name() {
    let launch = launch(&["PATHS=x", "=", "PATH", "PATH=first", "PATH=second", "EMPTY=", "EQ=a=b"]);
    assert_eq!(launch.var(b"PATH"), Some(&b"first"[..]));
    assert_eq!(launch.var(b"EMPTY"), Some(&b""[..]));
    assert_eq!(launch.var(b"EQ"), Some(&b"a=b"[..]));
    assert_eq!(launch.var(b"PAT"), None);
}

fn arguments_that_are_empty_or_not_utf_8_survive_a_restart() {
    let odd: [&[u8]; 6] = [b"", b"\xff\xfe", b"a b\n\"'", b"", b"--", b"\x01"];
    let script = b"for arg; do printf '%s|' \"$arg\"; done >&3";
    let args = [&[b"/bin/sh".as_slice(), b"-c", script, b"sh"], &odd[..]].concat();
    let mut launch: Launch = launch_of(&args, &[]).unwrap();
    assert!(launch.args().map(CStr::to_bytes).eq(args.iter().copied()));
    let expected = odd.map(|arg| [arg, b"|"].concat()).concat();
    assert_eq!(output(&mut launch, &Restart::new()).unwrap(), expected);
    // Once more: nothing was used up.
    assert_eq!(output(&mut launch, &Restart::new()).unwrap(), expected);
}

/// What the successor's environment is, string by string.
fn environment(launch: &mut Launch, restart: &Restart<'_>) -> Vec<Vec<u8>> {
    let output = output(launch, restart).unwrap();
    output.strip_suffix(b"\0").unwrap().split(|byte| *byte == 0).map(<[u8]>::to_vec).collect()
}

const ENVIRONMENT: &str = "cat /proc/$$/environ >&3";

fn the_environment_survives_a_restart_in_order_but_for_the_activation_variables() {
    let odd: [&[u8]; 6] =
        [b"PATH=/usr/bin:/bin", b"A=\xff", b"no equals sign", b"", b"A=again", b"LISTENER=x"];
    let mut launch = shell(ENVIRONMENT, &odd);
    let found = environment(&mut launch, &Restart::new());
    assert_eq!(found[..odd.len()], odd);
    let mut added: Vec<_> = found[odd.len()..].iter().map(|var| String::from_utf8_lossy(var)).collect();
    added.retain(|var| !var.starts_with("LISTEN_PIDFDID="));
    assert_eq!(added.len(), 3, "{added:?}");
    assert!(added.contains(&"LISTEN_FDS=1".into()), "{added:?}");
    assert!(added.contains(&"LISTEN_FDNAMES=out".into()), "{added:?}");
    assert!(added.iter().any(|var| var.starts_with("LISTEN_PID=")), "{added:?}");
}

fn variables_of_an_earlier_activation_are_rewritten_in_their_places() {
    let mut launch = shell(
        ENVIRONMENT,
        &[b"LISTEN_FDS=7", b"PATH=/usr/bin:/bin", b"LISTEN_FDNAMES=old", b"LISTEN_FDS=8", b"B=2"],
    );
    let found = environment(&mut launch, &Restart::new());
    assert_eq!(
        found[..4],
        [b"LISTEN_FDS=1".as_slice(), b"PATH=/usr/bin:/bin", b"LISTEN_FDNAMES=out", b"B=2"]
    );
    assert_eq!(vars(&launch).len(), 5);
}

fn arguments_and_variables_can_be_replaced_added_and_removed() {
    let mut launch = shell("exit 1", &[b"PATH=/usr/bin:/bin", b"A=1", b"B=2", b"A=3"]);
    let script = CString::new(ENVIRONMENT).unwrap();
    let args = [c"/bin/sh", c"-c", script.as_c_str()];
    let changes = [Change::Set(c"A=new"), Change::Remove(c"B"), Change::Set(c"C=added")];
    let restart = Restart::new().args(&args).changes(&changes);
    let found = environment(&mut launch, &restart);
    assert_eq!(found[..3], [b"PATH=/usr/bin:/bin".as_slice(), b"A=new", b"C=added"]);

    for wrong in [c"no equals sign", c"=x", c"LISTEN_FDS=1", c"LISTEN_READY_FD=3"] {
        let changes = [Change::Set(c"A=new"), Change::Set(wrong)];
        let result = output(&mut launch, &Restart::new().changes(&changes));
        assert_eq!(result, Err(Error::InvalidChange { position: 1 }), "{wrong:?}");
    }
}

/// Writes a script that says `word`.
fn script(path: &Path, word: &str) {
    std::fs::write(path, format!("#!/bin/sh\nprintf %s {word} >&3\n")).unwrap();
    std::fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
}

/// The program as it is, replaced by a rename, so that no write to it is still open when it is executed.
fn replace(path: &Path, word: &str) {
    let other = path.with_extension("new");
    script(&other, word);
    std::fs::rename(other, path).unwrap();
}

fn the_program_is_looked_up_in_path_when_the_restart_happens() {
    const NAME: &str = "the_program_is_looked_up_in_path_when_the_restart_happens";
    if !in_child(NAME, |_| ()) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = format!("PATH=/nonexistent:{}", dir.path().display());
    let mut launch: Launch = launch_of(&[b"gracenet-prog"], &[path.as_bytes()]).unwrap();
    assert_eq!(errno(output(&mut launch, &Restart::new())), Errno::NOENT);
    let program = dir.path().join("gracenet-prog");
    script(&program, "one");
    assert_eq!(text(output(&mut launch, &Restart::new()).unwrap()), "one");
    replace(&program, "two");
    assert_eq!(text(output(&mut launch, &Restart::new()).unwrap()), "two");
    std::fs::remove_file(&program).unwrap();
    let error = output(&mut launch, &Restart::new()).unwrap_err();
    assert!(
        matches!(error, Error::Call { operation: Operation::Execve, errno: Errno::NOENT, .. }),
        "{error:?}"
    );
}

fn empty_and_relative_elements_of_path_are_refused() {
    const NAME: &str = "empty_and_relative_elements_of_path_are_refused";
    if !in_child(NAME, |_| ()) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    script(&dir.path().join("gracenet-prog"), "found");
    std::env::set_current_dir(dir.path()).unwrap();
    for path in ["PATH=.", "PATH=:", "PATH=/nonexistent:", "PATH=:/nonexistent", "PATH=./"] {
        let mut launch: Launch = launch_of(&[b"gracenet-prog"], &[path.as_bytes()]).unwrap();
        assert_eq!(output(&mut launch, &Restart::new()), Err(Error::RelativePath), "{path}");
    }
    // An empty PATH has no element at all.
    let mut launch: Launch = launch_of(&[b"gracenet-prog"], &[b"PATH="]).unwrap();
    assert_eq!(errno(output(&mut launch, &Restart::new())), Errno::NOENT);
    // A whole one before or behind it is taken.
    for path in [format!("PATH={}:.", dir.path().display()), format!("PATH=/x:{}", dir.path().display())] {
        let mut launch: Launch = launch_of(&[b"gracenet-prog"], &[path.as_bytes()]).unwrap();
        assert_eq!(text(output(&mut launch, &Restart::new()).unwrap()), "found");
    }
}

/// As a shell has it: what may not be executed is passed over, and told if nothing else is found, also where an element
/// was refused.
fn a_program_in_path_that_may_not_be_executed_is_passed_over_and_told() {
    const NAME: &str = "a_program_in_path_that_may_not_be_executed_is_passed_over_and_told";
    if !in_child(NAME, |_| ()) {
        return;
    }
    let [plain, right] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    std::fs::write(plain.path().join("gracenet-prog"), "no program").unwrap();
    script(&right.path().join("gracenet-prog"), "found");
    let (plain, right) = (plain.path().display(), right.path().display());
    for path in [format!("PATH={plain}:/nonexistent"), format!("PATH={plain}:.")] {
        let mut launch: Launch = launch_of(&[b"gracenet-prog"], &[path.as_bytes()]).unwrap();
        assert_eq!(errno(output(&mut launch, &Restart::new())), Errno::ACCESS, "{path}");
    }
    // So is a link that leads nowhere.
    let around = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink("gracenet-prog", around.path().join("gracenet-prog")).unwrap();
    let path = format!("PATH={}:{plain}:{right}", around.path().display());
    let mut launch: Launch = launch_of(&[b"gracenet-prog"], &[path.as_bytes()]).unwrap();
    assert_eq!(text(output(&mut launch, &Restart::new()).unwrap()), "found");
}

fn a_program_with_a_slash_is_relative_to_the_launch_directory() {
    const NAME: &str = "a_program_with_a_slash_is_relative_to_the_launch_directory";
    if !in_child(NAME, |_| ()) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    script(&dir.path().join("prog"), "here");
    std::env::set_current_dir(dir.path()).unwrap();
    let mut launch: Launch = launch_of(&[b"./prog"], &[]).unwrap();
    std::env::set_current_dir("/").unwrap();
    assert_eq!(text(output(&mut launch, &Restart::new()).unwrap()), "here");
    assert_eq!(std::env::current_dir().unwrap(), Path::new("/"), "this process stays where it is");
    script(&dir.path().join("other"), "other");
    let restart = Restart::new().executable(Executable::Path(c"./other"));
    assert_eq!(text(output(&mut launch, &restart).unwrap()), "other");
}

fn the_program_can_be_a_given_path_or_an_open_file() {
    let args: [&[u8]; 3] = [b"no-such-program", b"-c", b"printf %s \"$0\" >&3"];
    let mut launch: Launch = launch_of(&args, &[]).unwrap();
    let restart = Restart::new().executable(Executable::Path(c"/bin/sh"));
    assert_eq!(text(output(&mut launch, &restart).unwrap()), "no-such-program");
    let file = File::open("/bin/sh").unwrap();
    let restart = Restart::new().executable(Executable::Fd(file.as_fd()));
    assert_eq!(text(output(&mut launch, &restart).unwrap()), "no-such-program");
    let restart = Restart::new().executable(Executable::Path(c"/nonexistent/program"));
    assert_eq!(errno(output(&mut launch, &restart)), Errno::NOENT);
    let restart = Restart::new().executable(Executable::Path(c"/etc"));
    assert_eq!(errno(output(&mut launch, &restart)), Errno::ACCESS);
}

fn the_program_can_be_the_same_image() {
    const NAME: &str = "the_program_can_be_the_same_image";
    if is_role(NAME) {
        // SAFETY: the predecessor put the pipe there, and nothing else owns it.
        let mut out = File::from(unsafe { OwnedFd::from_raw_fd(3) });
        out.write_all(std::env::args_os().next().unwrap().as_bytes()).unwrap();
        return;
    }
    let mut role = Command::new("gone");
    common::in_role(&mut role, NAME);
    let args: Vec<&[u8]> =
        [OsStr::new("gone")].into_iter().chain(role.get_args()).map(OsStr::as_bytes).collect();
    let var =
        role.get_envs().map(|(name, value)| [name.as_bytes(), b"=", value.unwrap().as_bytes()].concat());
    let var: Vec<Vec<u8>> = var.collect();
    let mut launch: Launch = launch_of(&args, &[&var[0]]).unwrap();
    let restart = Restart::new().executable(Executable::SameImage);
    assert_eq!(text(output(&mut launch, &restart).unwrap()), "gone");
    assert_eq!(errno(output(&mut launch, &Restart::new())), Errno::NOENT);
}

/// Where the successor of this launch begins.
fn directory(launch: &mut Launch) -> PathBuf {
    PathBuf::from(text(output(launch, &Restart::new()).unwrap()))
}

/// A launch now, whose successor tells its directory, with this `PWD`.
fn located(pwd: Option<&str>) -> Launch {
    let pwd = pwd.map(|pwd| format!("PWD={pwd}"));
    let vars: Vec<&[u8]> = pwd.iter().map(String::as_bytes).collect();
    shell("printf %s \"$(/bin/pwd -P)\" >&3", &vars)
}

fn the_working_directory_is_pwd_if_that_names_it_and_the_directory_itself_if_not() {
    const NAME: &str = "the_working_directory_is_pwd_if_that_names_it_and_the_directory_itself_if_not";
    if !in_child(NAME, |_| ()) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().canonicalize().unwrap();
    let [one, two, current] = ["one", "two", "current"].map(|name| root.join(name));
    std::fs::create_dir(&one).unwrap();
    std::fs::create_dir(&two).unwrap();
    symlink(&one, &current).unwrap();
    std::env::set_current_dir(&current).unwrap();
    let pwd = current.to_str().unwrap();

    let mut by_path = located(Some(pwd));
    let mut others = [
        located(None),
        located(Some("")),
        located(Some(".")),
        located(Some("../current")),
        located(Some("/nonexistent")),
        located(Some(two.to_str().unwrap())),
    ];
    assert_eq!(directory(&mut by_path), one);

    // The release behind the link is replaced: the successor of whoever came by the link follows it.
    std::fs::remove_file(&current).unwrap();
    symlink(&two, &current).unwrap();
    assert_eq!(directory(&mut by_path), two);
    for other in &mut others {
        assert_eq!(directory(other), one);
    }

    // The path goes: the directory itself is there still.
    std::fs::remove_file(&current).unwrap();
    assert_eq!(directory(&mut by_path), one);

    // It moves.
    let moved = root.join("moved");
    std::fs::rename(&one, &moved).unwrap();
    assert_eq!(directory(&mut by_path), moved);
    assert_eq!(directory(&mut others[0]), moved);

    // It is deleted, which stops no restart.
    let mut anywhere = shell("printf %s started >&3", &[]);
    std::fs::remove_dir(&moved).unwrap();
    assert_eq!(text(output(&mut anywhere, &Restart::new()).unwrap()), "started");
    // Nor does being launched in one.
    let mut nowhere = shell("printf %s started >&3", &[b"PWD=/nonexistent"]);
    assert_eq!(text(output(&mut nowhere, &Restart::new()).unwrap()), "started");
}

/// Where whoever started this left one closed: what somebody prints would go there.
fn what_is_opened_gets_no_number_of_stdio() {
    const NAME: &str = "what_is_opened_gets_no_number_of_stdio";
    if !in_child(NAME, |_| ()) {
        return;
    }
    let mut launch = shell("printf %s \"$LISTEN_READY_FD $(readlink /proc/self/fd/0)\" >&3", &[]);
    // SAFETY: nothing in this process reads stdin.
    assert_eq!(unsafe { libc::close(0) }, 0);
    let mut net = Net::<2>::new();
    for (network, address) in [("tcp", "127.0.0.1:0"), ("udp", "127.0.0.1:0")] {
        let id = net.listen(network, address).unwrap();
        assert!(net.fd(id).unwrap().as_raw_fd() > 2);
        net.close(id).unwrap();
    }
    let (mut said, theirs) = std::io::pipe().unwrap();
    net.add(theirs.into(), "pipe").unwrap();
    let successor = net.spawn(&mut launch, &Restart::new()).unwrap();
    assert!(successor.socket().unwrap().as_raw_fd() > 2);
    let mut text = String::new();
    drop(net);
    said.read_to_string(&mut text).unwrap();
    assert_eq!(text, "4 /dev/null");
}

fn from_libc_sees_what_std_sees() {
    const NAME: &str = "from_libc_sees_what_std_sees";
    let odd = OsString::from_vec(b"\xff=\xfe".to_vec());
    if !in_child(NAME, |command| {
        command.args(["--skip", "", "--skip", " "]).env("GRACENET_TEST_ODD", &odd).env("EMPTY", "");
    }) {
        return;
    }
    // SAFETY: nobody changes the environment.
    let launch: Launch = unsafe { Launch::from_libc() }.unwrap();
    let args: Vec<OsString> = std::env::args_os().collect();
    assert!(args.contains(&OsString::new()));
    assert!(launch.args().map(|arg| OsStr::from_bytes(arg.to_bytes())).eq(args.iter()));
    let joined = |(name, value): (OsString, OsString)| [name.as_bytes(), b"=", value.as_bytes()].concat();
    let expected: Vec<Vec<u8>> = std::env::vars_os().map(joined).collect();
    assert!(launch.vars().map(CStr::to_bytes).eq(expected));
    assert_eq!(launch.var(b"GRACENET_TEST_ODD"), Some(odd.as_bytes()));
    assert!(!launch.is_privileged());

    // SAFETY: as above.
    let small = unsafe { Launch::<2, 2048>::from_libc() }.map(drop);
    let needed = args.len() as u32 + 1;
    assert_eq!(small, Err(Error::Capacity { table: Table::Arguments, needed, capacity: 2 }));
}

const NOBODY: u32 = 65534;

/// The need for programs that are started as the user they belong to, which takes root to arrange.
fn set_user_id() -> bool {
    let file = tempfile::NamedTempFile::new().unwrap();
    // SAFETY: it tells this thread's attribute, by number.
    let may_gain = unsafe { libc::prctl(libc::PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) } == 0;
    may_gain
        && rustix::process::geteuid().is_root()
        && !rustix::fs::fstatvfs(&file).unwrap().f_flag.contains(StatVfsMountFlags::NOSUID)
        && std::os::unix::fs::fchown(&file, Some(NOBODY), None).is_ok()
}

/// A set-user-ID start for real; what the auxiliary vector's word does is tested beside inherit for everybody.
fn a_set_user_id_start_is_seen_through_every_door() {
    const NAME: &str = "a_set_user_id_start_is_seen_through_every_door";
    if is_role(NAME) {
        assert_ne!(rustix::process::geteuid(), rustix::process::getuid());
        // SAFETY: nobody changes the environment.
        let mut launch: Launch = unsafe { Launch::from_libc() }.unwrap();
        assert!(launch.is_privileged());
        assert!(common::launch(&[]).is_privileged());
        assert_eq!(launch.var(b"LISTEN_FDS"), Some(&b"1"[..]));
        let mut net = Net::<1>::new();
        let number = common::reserve(1);
        assert_eq!(
            common::inherit_from(&mut net, &mut launch, number, gracenet::InheritOptions::new()),
            Ok(0)
        );
        assert_eq!(launch.var(b"LISTEN_FDS"), None);
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("program");
    // By another process: a child of another test could still have it open for writing when it is executed.
    let exe = std::env::current_exe().unwrap();
    assert!(Command::new("cp").arg(exe).arg(&program).status().unwrap().success());
    std::os::unix::fs::chown(&program, Some(NOBODY), None).unwrap();
    std::fs::set_permissions(&program, Permissions::from_mode(0o4755)).unwrap();
    let mut command = Command::new(&program);
    common::passes(common::in_role(&mut command, NAME).env("LISTEN_FDS", "1"));
}

/// Whoever made such a start is believed in nothing: neither about the program and the directory, nor about the manager
/// and its watchdog. The caller has to say which program to run.
fn a_set_user_id_start_says_neither_program_nor_directory_nor_manager() {
    const NAME: &str = "a_set_user_id_start_says_neither_program_nor_directory_nor_manager";
    const AT_SECURE: usize = 23;
    if !in_child(NAME, |_| ()) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().canonicalize().unwrap();
    let [one, two, current] = ["one", "two", "current"].map(|name| root.join(name));
    for directory in [&one, &two] {
        std::fs::create_dir(directory).unwrap();
        script(&directory.join("prog"), directory.file_name().unwrap().to_str().unwrap());
    }
    symlink(&one, &current).unwrap();
    std::env::set_current_dir(&current).unwrap();
    let pwd = format!("PWD={}", current.display());
    let vars: [&[u8]; 4] =
        [pwd.as_bytes(), b"PATH=/usr/bin:/bin", b"NOTIFY_SOCKET=@manager", b"WATCHDOG_USEC=1000000"];
    let args: [&[u8]; 3] = [b"/bin/sh", b"-c", b"printf %s \"$(/bin/pwd -P)\" >&3"];
    let start = |privileged| -> Launch {
        let stack = common::stack(&args, &vars, &[[AT_SECURE, privileged], [0, 0]]);
        // SAFETY: laid out as a stack is, and leaked.
        unsafe { Launch::from_stack(stack) }.unwrap()
    };
    let (mut plain, mut privileged) = (start(0), start(1));
    std::fs::remove_file(&current).unwrap();
    symlink(&two, &current).unwrap();

    let [believed, not_believed] = [&plain, &privileged].map(|launch| {
        (gracenet::Notifier::from_launch(launch).unwrap().is_present(), gracenet::notify::watchdog(launch))
    });
    assert_eq!(believed, (true, Ok(Some(Duration::from_secs(1)))));
    assert_eq!(not_believed, (false, Ok(None)));

    assert_eq!(directory(&mut plain), two);
    assert_eq!(output(&mut privileged, &Restart::new()), Err(Error::Untrusted));
    let relative = Restart::new().executable(Executable::Path(c"./prog"));
    assert_eq!(text(output(&mut plain, &relative).unwrap()), "two");
    assert_eq!(output(&mut privileged, &relative), Err(Error::Untrusted));
    let Err(error) = Net::<1>::new().exec(&mut privileged, &Restart::new());
    assert_eq!(error, Error::Untrusted);

    let shell = File::open("/bin/sh").unwrap();
    for told in [Executable::Path(c"/bin/sh"), Executable::Fd(shell.as_fd())] {
        let place = output(&mut privileged, &Restart::new().executable(told)).unwrap();
        assert_eq!(PathBuf::from(text(place)), one);
    }
}

const ALL: [(&str, &str); 5] = [
    ("LISTEN_FDS", "0"),
    ("LISTEN_PID", "1"),
    ("LISTEN_PIDFDID", "2"),
    ("LISTEN_FDNAMES", ""),
    ("LISTEN_READY_FD", "9"),
];

fn remove_from_libc_hides_the_variables_from_every_later_child() {
    const NAME: &str = "remove_from_libc_hides_the_variables_from_every_later_child";
    if !in_child(NAME, |command| {
        command.envs(ALL).env("LISTEN_FDS_NOT", "kept");
    }) {
        return;
    }
    let before: Vec<_> = std::env::vars_os().collect();
    assert!(ALL.iter().all(|(name, value)| std::env::var_os(name).unwrap() == OsStr::new(value)));
    // SAFETY: this child has one thread.
    let launch: Launch = unsafe { Launch::from_libc() }.unwrap();
    // SAFETY: as above.
    unsafe { gracenet::launch::remove_from_libc(&Variable::ACTIVATION) };
    let is_ours = |name: &OsString| ALL.iter().any(|(ours, _)| name == ours);
    let expected: Vec<_> = before.into_iter().filter(|(name, _)| !is_ours(name)).collect();
    assert_eq!(std::env::vars_os().collect::<Vec<_>>(), expected, "the others, in order");
    let output = Command::new("/bin/sh").args(["-c", "cat /proc/$$/environ"]).output().unwrap();
    let seen = String::from_utf8_lossy(&output.stdout);
    assert!(seen.contains("LISTEN_FDS_NOT=kept"), "{seen}");
    assert!(ALL.iter().all(|(name, _)| !seen.contains(&format!("{name}="))), "{seen}");
    // The launch has a table of its own, and the strings are where they were.
    assert_eq!(launch.var(b"LISTEN_READY_FD"), Some(&b"9"[..]));
}

fn remove_from_libc_takes_out_every_one_of_a_name() {
    const NAME: &str = "remove_from_libc_takes_out_every_one_of_a_name";
    unsafe extern "C" {
        static mut environ: *const *const c_char;
    }
    if !in_child(NAME, |_| ()) {
        return;
    }
    let doubled = table(&[b"LISTEN_FDS=1", b"A=1", b"LISTEN_FDS=2", b"LISTEN_FDS", b"LISTEN_PID=", b"B=2"]);
    for (vector, left) in [(doubled, 3), (table(&[]), 0), (std::ptr::null(), 0)] {
        // SAFETY: this child has one thread that looks at its environment; the table is leaked.
        unsafe { environ = vector };
        // SAFETY: as above.
        unsafe { gracenet::launch::remove_from_libc(&Variable::ACTIVATION) };
        // SAFETY: as above.
        let launch: Launch = unsafe { Launch::from_libc() }.unwrap();
        let expected = ["A=1", "LISTEN_FDS", "B=2"];
        assert_eq!(vars(&launch), expected[..left]);
    }
}

fn a_path_that_a_successor_serves_is_never_removed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    let mut net = Net::<1>::new();
    let id = net.listen("unix", path.to_str().unwrap()).unwrap();
    // It reads from the readiness socket, on which nothing comes until this process closes its end.
    let mut launch = shell("exec cat <&$LISTEN_READY_FD", &[b"PATH=/usr/bin:/bin"]);
    net.spawn(&mut launch, &Restart::new()).unwrap();
    assert_eq!(net.close_and_unlink(id), Err(Error::InFlight));
    net.successor_mut().unwrap().kill().unwrap();

    let mut ready = shell("printf READY=1 >&$LISTEN_READY_FD", &[]);
    assert_eq!(net.spawn(&mut ready, &Restart::new()).unwrap().wait_ready(LONG), Ok(Progress::Ready));
    assert_eq!(net.close_and_unlink(id), Err(Error::HandedOver));
    // Neither after a later successor that failed.
    net.spawn(&mut shell("exit 1", &[]), &Restart::new()).unwrap().wait_ready(LONG).unwrap_err();
    assert_eq!(net.close_and_unlink(id), Err(Error::HandedOver));
    assert!(path.exists());
    net.close(id).unwrap();
    assert!(path.exists());
}

fn a_failed_successor_leaves_the_path_to_this_process() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    let mut net = Net::<1>::new();
    let id = net.listen("unix", path.to_str().unwrap()).unwrap();
    net.spawn(&mut shell("exit 1", &[]), &Restart::new()).unwrap().wait_ready(LONG).unwrap_err();
    net.close_and_unlink(id).unwrap();
    assert!(!path.exists());
}
