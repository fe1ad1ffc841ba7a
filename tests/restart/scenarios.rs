//! The predecessors: each scenario is a process of its own, which restarts and asserts what came of it.

use crate::manager::keeps_statuses;
use crate::reporter::find;
use crate::stage::*;
use gracenet::error::{Operation, Table, Word};
use gracenet::{
    Change, Error, Executable, Failure, Launch, ListenOptions, Net, Notifier, Parentage, Progress, Readiness,
    Refusal, Restart, Unsettled,
};
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketType};
use rustix::process::Signal;
use std::collections::BTreeMap;
use std::ffi::{CStr, CString};
use std::io::Read;
use std::net::TcpStream;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

scenarios! {
    every_permutation_of_sources,
    sources_anywhere,
    closed_stdio_becomes_null,
    sockets_on_stdio,
    nothing_leaks,
    nothing_to_hand_over,
    no_more_stack_than_is_stated,
    a_clone_without_stack_costs_nothing,
    capacity_and_one_more,
    names_budget,
    environment_of_the_successor,
    arguments_survive,
    too_many_arguments,
    failures_are_told_apart,
    failures_cost_nothing,
    one_in_flight,
    unreaped_by_others,
    deadline_or_patience,
    a_wait_is_as_long_as_asked_for,
    a_wait_ends_without_a_clock,
    a_wait_is_not_ended_by_signals,
    programs_that_report_nothing,
    queue_survives_spawn,
    predecessor_is_known,
    exec_passes_the_debt_on,
    exec_failure_changes_nothing,
    exec_failure_leaves_no_copy,
    exec_failure_leaves_no_copy_on_an_old_kernel,
    exec_undoes_no_semaphore,
    trapped_calls_are_answered,
    killed_on_the_way,
    signal_mask_is_the_callers,
    handlers_do_not_run_in_the_clone,
    missing_programs,
    open_file_as_program,
    program_in_the_way,
    deleted_binary,
    replaced_binary,
    looked_up_in_path,
    large_program_and_large_file,
    launch_directory,
    renamed_and_deleted_directory,
    directory_is_not_inherited,
    old_kernel,
    kernel_before_clear_sighand,
    predecessors_that_are_gone,
    predecessor_behind_a_filter,
    nothing_leaks_without_close_range_and_proc,
    filtering_container,
    refusing_emulator,
    no_pidfd_to_be_had,
    unix_path_of_a_successor;
    "fault_in_socketpair": "socketpair:error=EMFILE:when=1" => || fault(Operation::Socketpair, Errno::MFILE),
    "fault_in_clone": "clone3:error=EAGAIN:when=1" => || fault(Operation::Clone, Errno::AGAIN),
    "fault_in_fchdir": "chdir,fchdir:error=EIO" => || fault(Operation::Chdir, Errno::IO),
    "fault_in_dup": "dup3:error=EBUSY:when=1" => || fault(Operation::Dup, Errno::BUSY),
    "fault_in_close_range": "close_range:error=ENOMEM:when=1" => || fault(Operation::CloseRange, Errno::NOMEM),
    "signal_during_exec": "close_range:delay_exit=100000" => signal_during_exec,
    "signal_without_handler_during_exec": "close_range:delay_exit=100000" => signal_without_handler_during_exec,
    "signal_after_a_failed_exec": "close_range:delay_enter=500000:when=2" => signal_after_a_failed_exec,
    // No clone opens one on 32 bits, and before Linux 6.5 the successor does, to find its predecessor.
    #[cfg(target_pointer_width = "64")]
    "pidfd_open_fails": "pidfd_open:error=EMFILE:when=1" => without_pidfd_id,
    "statx_fails": "fstatfs,?fstatfs64:error=ENOSYS" => without_pidfd_id,
    "kill_ends_nobody": "pidfd_send_signal:retval=0" => kill_ends_nobody,
    "kill_fails": "pidfd_send_signal:error=EIO:when=1" => kill_fails,
}

fn permutations(items: &[i32]) -> Vec<Vec<i32>> {
    let [_, _, ..] = items else { return vec![items.to_vec()] };
    let mut all = Vec::new();
    for (position, first) in items.iter().enumerate() {
        let mut rest = items.to_vec();
        rest.remove(position);
        all.extend(permutations(&rest).into_iter().map(|mut tail| {
            tail.insert(0, *first);
            tail
        }));
    }
    all
}

/// Hands over listeners that sit on these numbers; each has to arrive on its own.
fn hand_over_from(stage: &mut Stage, numbers: &[i32]) {
    let mut expected = BTreeMap::new();
    // The last successor's descriptors give up their numbers.
    stage.net = Net::new();
    for (position, number) in numbers.iter().enumerate() {
        let listener = move_to(fresh_listener(), *number);
        expected.insert(3 + position as i32, target(listener.as_fd()));
        stage.net.add(listener, "listener").unwrap();
    }
    let report = stage.succeed();
    let mut found = reported_fds(&report);
    for stdio in 0..3 {
        found.remove(&stdio).unwrap();
    }
    let report_fd = 3 + numbers.len() as i32;
    assert!(found.remove(&report_fd).unwrap().starts_with("pipe:"));
    assert!(found.remove(&(report_fd + 1)).unwrap().starts_with("socket:"));
    assert_eq!(found, expected, "from {numbers:?}");
    assert_eq!(find(&report, "env.LISTEN_FDS"), (numbers.len() + 1).to_string());
    assert_eq!(find(&report, "inherited"), format!("Ok({})", numbers.len() + 1));
}

fn every_permutation_of_sources() {
    let mut stage = Stage::new();
    for permutation in permutations(&[3, 4, 5, 6]) {
        hand_over_from(&mut stage, &permutation);
    }
}

fn sources_anywhere() {
    let mut stage = Stage::new();
    // Chains that end outside of the targets, two circles, the readiness socket's target taken.
    for numbers in [
        &[4, 5, 6, 7][..],
        &[7, 3, 4, 5],
        &[4, 3, 6, 5],
        &[20, 3, 25, 4],
        &[8, 7, 6, 5, 4, 3],
        &[5, 6, 7, 8, 3, 4],
        &[7],
    ] {
        hand_over_from(&mut stage, numbers);
    }
}

fn closed_stdio_becomes_null() {
    let mut stage = Stage::new();
    let saved: Vec<_> = (0..3)
        .map(|fd| rustix::io::fcntl_dupfd_cloexec(unsafe { BorrowedFd::borrow_raw(fd) }, FREE).unwrap())
        .collect();
    for closed in 0..8 {
        stage.net = Net::new();
        stage.net.add(fresh_listener(), "listener").unwrap();
        for fd in (0..3).filter(|fd| closed & (1 << fd) != 0) {
            unsafe { libc::close(fd) };
        }
        // The readiness socket takes the numbers that are free.
        let started = stage.start(&Restart::new(), "ready").map(|()| stage.report());
        let ready = started.is_ok().then(|| stage.wait_ready());
        stage.net = Net::new();
        for (fd, saved) in saved.iter().enumerate() {
            assert_eq!(unsafe { libc::dup2(saved.as_raw_fd(), fd as i32) }, fd as i32);
        }
        let report = started.unwrap();
        assert_eq!(ready, Some(Ok(Progress::Ready)));
        let found = reported_fds(&report);
        for fd in 0..3_i32 {
            let open = target(saved[fd as usize].as_fd());
            let expected = if closed & (1 << fd) == 0 { open.as_str() } else { "/dev/null" };
            assert_eq!(found[&fd], expected);
        }
        // stdio, the listener, the report, the readiness socket.
        assert_eq!(found.len(), 6, "{report}");
    }
}

fn sockets_on_stdio() {
    let mut stage = Stage::new();
    let saved = rustix::io::fcntl_dupfd_cloexec(std::io::stderr(), FREE).unwrap();
    let mut expected = Vec::new();
    for number in 0..3 {
        let listener = move_to(fresh_listener(), number);
        expected.push(target(listener.as_fd()));
        stage.net.add(listener, "listener").unwrap();
    }
    let report = stage.succeed();
    unsafe { libc::dup2(saved.as_raw_fd(), 2) };
    let found = reported_fds(&report);
    for number in 0..3 {
        assert_eq!(found[&number], "/dev/null");
        assert_eq!(found[&(3 + number)], expected[number as usize]);
    }
    assert_eq!(found.len(), 8);
    std::process::exit(0);
}

fn nothing_leaks() {
    let mut stage = Stage::new();
    stage.listen();
    for number in [4, 5, 9, 100, 500] {
        let leaked = rustix::fs::open("/dev/zero", rustix::fs::OFlags::empty(), 0.into()).unwrap();
        assert!(unsafe { libc::dup2(leaked.into_raw_fd(), number) } == number);
    }
    let report = stage.succeed();
    assert_eq!(reported_fds(&report).into_keys().collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5]);
    assert!(!report.contains("/dev/zero"));
    assert_eq!(find(&report, "grandchild"), "0");
}

fn nothing_to_hand_over() {
    let mut launch: Launch<256> = unsafe { Launch::from_libc() }.unwrap();
    let mut net = Net::<4>::new();
    let script =
        c"test -z \"$LISTEN_FDS$LISTEN_FDNAMES\" && test $LISTEN_PID = $$ && test $LISTEN_READY_FD = 3";
    let args = [c"sh", c"-c", script];
    let restart = Restart::new().executable(Executable::Path(c"/bin/sh")).args(&args);
    let failure = net.spawn(&mut launch, &restart).unwrap().wait_ready(PATIENCE);
    assert_eq!(failure, Err(Failure::Exited(0)));
    let script = c"! env | grep LISTEN_";
    let args = [c"sh", c"-c", script];
    let restart = restart.args(&args).readiness(Readiness::Alive(PATIENCE));
    let failure = net.spawn(&mut launch, &restart).unwrap().wait_ready(PATIENCE);
    assert_eq!(failure, Err(Failure::Exited(0)));
}

/// Runs `job` in a thread with this stack, and returns where its frames begin.
fn on_stack(stack: *mut u8, size: usize, mut job: impl FnMut()) -> usize {
    struct Thread<'j> {
        job: &'j mut dyn FnMut(),
        top: usize,
    }
    extern "C" fn run(thread: *mut libc::c_void) -> *mut libc::c_void {
        let thread = unsafe { &mut *thread.cast::<Thread<'_>>() };
        let local = 0_u8;
        thread.top = (&raw const local).addr();
        (thread.job)();
        std::ptr::null_mut()
    }
    let mut thread = Thread { job: &mut job, top: 0 };
    let mut id = std::mem::MaybeUninit::uninit();
    let mut attributes = std::mem::MaybeUninit::uninit();
    unsafe {
        assert_eq!(libc::pthread_attr_init(attributes.as_mut_ptr()), 0);
        assert_eq!(libc::pthread_attr_setstack(attributes.as_mut_ptr(), stack.cast(), size), 0);
        let argument = (&raw mut thread).cast();
        assert_eq!(libc::pthread_create(id.as_mut_ptr(), attributes.as_ptr(), run, argument), 0);
        assert_eq!(libc::pthread_join(id.assume_init(), std::ptr::null_mut()), 0);
    }
    thread.top
}

const PAINT: u8 = 0xa5;

/// The lowest address of a stack that was painted before and is not any more.
fn lowest_touched(stack: *const u8, size: usize) -> usize {
    let painted = unsafe { std::slice::from_raw_parts(stack, size) };
    stack.addr() + painted.iter().position(|byte| *byte != PAINT).unwrap()
}

/// A launch of a program that is nowhere in `PATH`.
fn launch_of_nothing() -> Launch<2, 16> {
    let argv = [c"nonexistent".as_ptr(), std::ptr::null()];
    let envp = [c"PATH=/usr/bin:/nonexistent".as_ptr(), std::ptr::null()];
    unsafe { Launch::new(1, argv.as_ptr(), envp.as_ptr()) }.unwrap()
}

/// The same for a table of any capacity: both ways, on the stack of a thread that was painted before.
fn no_more_stack_than_is_stated() {
    const SIZE: usize = 512 * 1024;
    let stated = if cfg!(debug_assertions) { 26 * 1024 } else { 10 * 1024 };
    // All that a restart does, the search in `PATH` too, but for its last step, so that both ways come back.
    let ways: [fn(&mut Net<1000>, &mut Launch<2, 16>); 2] = [
        |net, launch| assert!(net.spawn(launch, &Restart::new()).is_err()),
        |net, launch| {
            let Err(_) = net.exec(launch, &Restart::new());
        },
    ];
    // A manager that hears what it is told.
    let manager = rustix::net::socket(AddressFamily::UNIX, SocketType::DGRAM, None).unwrap();
    let name = format!("gracenet-stack-{}", std::process::id());
    rustix::net::bind(&manager, &SocketAddrUnix::new_abstract_name(name.as_bytes()).unwrap()).unwrap();
    let notifier = Notifier::parse(format!("@{name}").as_bytes()).unwrap();
    for (way, notifier) in ways.into_iter().flat_map(|way| [(way, Notifier::none()), (way, notifier.clone())])
    {
        let mut net = Box::new(Net::new());
        net.set_notifier(notifier);
        for number in 0..20 {
            net.add(fresh_listener(), if number % 2 == 0 { "one" } else { "another" }).unwrap();
        }
        let mut launch = launch_of_nothing();
        let layout = std::alloc::Layout::from_size_align(SIZE, 4096).unwrap();
        let stack = unsafe { std::alloc::alloc(layout) };
        unsafe { stack.write_bytes(PAINT, SIZE) };
        let top = on_stack(stack, SIZE, || way(&mut net, &mut launch));
        let taken = top - lowest_touched(stack, SIZE);
        eprintln!("{taken} bytes of stack");
        assert!(taken <= stated, "{taken} bytes");
        unsafe { std::alloc::dealloc(stack, layout) };
    }
}

/// On a stack that is enough for the predecessor's own part, and not for the clone's below it.
fn a_clone_without_stack_costs_nothing() {
    const SIZE: usize = 256 * 1024;
    /// What a stack may be moved by, and is still aligned.
    const STEP: usize = 256;
    let page = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap();
    let len = SIZE + page + STEP;
    let mut stage = Stage::new();
    stage.listen();
    let mut launch = launch_of_nothing();
    let named = Restart::new().executable(Executable::Path(c"/nonexistent"));
    // The search takes room for a path, which is the clone's.
    let searched = Restart::new();
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    let memory = unsafe { libc::mmap(std::ptr::null_mut(), len, protection, flags, -1, 0) };
    assert_ne!(memory, libc::MAP_FAILED);
    let memory: *mut u8 = memory.cast();
    let mut attempt = |restart: &Restart<'_>, offset| {
        let mut error = None;
        on_stack(unsafe { memory.add(offset) }, SIZE, || {
            error = stage.net.spawn(&mut launch, restart).err();
        });
        error
    };
    let mut lowest = |restart| {
        unsafe { memory.write_bytes(PAINT, len) };
        assert_eq!(attempt(restart, 0), Some(execve(Errno::NOENT)));
        lowest_touched(memory, len)
    };
    let (enough, too_low) = (lowest(&named), lowest(&searched));
    assert!(enough - too_low > STEP, "{enough:#x} {too_low:#x}");
    // Moved until what is enough begins with a page, and the pages below are taken away.
    let offset = (enough.next_multiple_of(page) - enough).next_multiple_of(STEP);
    let end = (enough + offset) / page * page;
    assert_eq!(unsafe { libc::mprotect(memory.cast(), end - memory.addr(), libc::PROT_NONE) }, 0);
    let limits = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_CORE, &raw const limits) }, 0);
    assert_eq!(attempt(&named, offset), Some(execve(Errno::NOENT)));
    assert_eq!(attempt(&searched, offset), Some(Error::Killed { signal: libc::SIGSEGV }));
    assert_eq!(attempt(&named, offset), Some(execve(Errno::NOENT)));
    assert_no_children();
    stage.succeed();
}

fn capacity_and_one_more() {
    let mut stage = Stage::new();
    let ids: Vec<_> = (0..63).map(|_| stage.listen()).collect();
    let report = stage.succeed();
    assert_eq!(find(&report, "inherited"), "Ok(64)");
    assert_eq!(reported_fds(&report).len(), 3 + 64 + 1);
    stage.listen();
    let before = Before::of(&stage);
    let full = Error::Capacity { table: Table::Active, needed: 65, capacity: 64 };
    assert_eq!(stage.net.listen("tcp", "127.0.0.1:0"), Err(full));
    assert_eq!(before, Before::of(&stage));
    stage.net.close(ids[5]).unwrap();
    stage.listen();
    assert_eq!(stage.net.fd(ids[5]).unwrap_err(), Error::StaleId);
}

fn names_budget() {
    let mut stage = Stage::new();
    let long: &'static str = Box::leak("n".repeat(255).into_boxed_str());
    let mut count = 0;
    let full = loop {
        match stage.net.listen_with("tcp", "127.0.0.1:0", &ListenOptions::new().name(long)) {
            Ok(_) => count += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(full, Error::Capacity { table: Table::Names, capacity: 2336, .. }), "{full:?}");
    assert_eq!(count, 9);
    let report = stage.succeed();
    assert_eq!(find(&report, "name.0"), long);
    assert_eq!(find(&report, "name.9"), "report");
    assert_eq!(find(&report, "env.LISTEN_FDNAMES"), format!("{}:report", [long; 9].join(":")));
}

fn environment_of_the_successor() {
    let mut stage = Stage::new();
    let vars: Vec<_> = stage.launch.vars().map(CStr::to_owned).collect();
    let changes = [
        Change::Set(c"TEST_ADDED=1"),
        Change::Set(c"TEST_EMPTY="),
        Change::Set(c"PATH=/nowhere"),
        Change::Remove(c"HOME"),
    ];
    stage.start(&Restart::new().changes(&changes), "ready").unwrap();
    let report = stage.report();
    assert_eq!(stage.wait_ready(), Ok(Progress::Ready));
    assert_eq!(find(&report, "env.TEST_ADDED"), "1");
    assert_eq!(find(&report, "env.TEST_EMPTY"), "");
    assert_eq!(find(&report, "env.LISTEN_PID"), find(&report, "pid"));
    assert_eq!(find(&report, "env.LISTEN_READY_FD"), "4");
    assert_eq!(find(&report, "env.LISTEN_FDNAMES"), "report");
    assert_eq!(vars, stage.launch.vars().map(CStr::to_owned).collect::<Vec<_>>());
    for wrong in
        [Change::Set(c"NOVALUE"), Change::Set(c"=x"), Change::Set(c"LISTEN_FDS=9"), Change::Remove(c"A=B")]
    {
        let changes = [Change::Set(c"TEST_FINE=1"), wrong];
        let result = stage.start(&Restart::new().changes(&changes), "ready");
        assert_eq!(result, Err(Error::InvalidChange { position: 1 }));
        assert_eq!(vars, stage.launch.vars().map(CStr::to_owned).collect::<Vec<_>>());
    }
    // Every other variable, in order and to the letter.
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    stage.net.add(write, "output").unwrap();
    let args = [c"sh", c"-c", c"cat /proc/$$/environ >&3"];
    let restart = Restart::new()
        .executable(Executable::Path(c"/bin/sh"))
        .args(&args)
        .readiness(Readiness::Alive(PATIENCE));
    let result = stage.net.spawn(&mut stage.launch, &restart).unwrap().wait_ready(PATIENCE);
    assert_eq!(result, Err(Failure::Exited(0)));
    let mut buffer = vec![0; 1 << 16];
    let read = rustix::io::read(&read, &mut buffer).unwrap();
    let seen: Vec<_> =
        buffer[..read].split(|byte| *byte == 0).filter(|var| !var.starts_with(b"LISTEN_")).collect();
    let expected: Vec<_> = vars.iter().map(|var| var.to_bytes()).chain([&b""[..]]).collect();
    assert_eq!(seen, expected);
}

fn arguments_survive() {
    let mut stage = Stage::new();
    let odd = CString::new(b"\xff\xfe".to_vec()).unwrap();
    let writer = rustix::io::fcntl_dupfd_cloexec(&stage.writer, FREE).unwrap();
    stage.net.add(writer, "report").unwrap();
    let args =
        [stage.own.clone(), c"role".into(), c"reporter".into(), c"ready".into(), c"".into(), odd, c"".into()];
    let args: Vec<_> = args.iter().map(CString::as_c_str).collect();
    let restart = Restart::new().args(&args);
    assert_eq!(
        stage.net.spawn(&mut stage.launch, &restart).unwrap().wait_ready(PATIENCE),
        Ok(Progress::Ready)
    );
    let report = stage.report();
    assert_eq!(find(&report, "arg.4"), "[]");
    assert_eq!(find(&report, "arg.5"), "[255, 254]");
    assert_eq!(find(&report, "arg.6"), "[]");
    assert!(!report.contains("arg.7"));
    assert_eq!(stage.launch.args().count(), 4);
}

fn too_many_arguments() {
    let mut stage = Stage::new();
    let args = [c"x"; 300];
    let before = Before::of(&stage);
    let error = stage.net.spawn(&mut stage.launch, &Restart::new().args(&args)).unwrap_err();
    assert_eq!(error, Error::Capacity { table: Table::Arguments, needed: 306, capacity: 256 });
    assert_eq!(before, Before::of(&stage));
    assert_eq!(stage.launch.args().count(), 4);
}

fn failures_are_told_apart() {
    let mut stage = Stage::new();
    stage.listen();
    for (action, failure) in [
        ("exit 0", Failure::Exited(0)),
        ("exit 1", Failure::Exited(1)),
        ("exit 77", Failure::Exited(77)),
        ("kill", Failure::Killed(9)),
        ("close", Failure::Closed),
        ("garbage", Failure::Unknown(Word::new("HELLO"))),
        ("refuse-errno 98", Failure::Refused(Refusal::Errno(Errno::ADDRINUSE))),
        ("refuse-code 7", Failure::Refused(Refusal::Code(7))),
    ] {
        stage.start(&Restart::new(), action).unwrap();
        stage.report();
        assert_eq!(stage.wait_ready(), Err(failure), "{action}");
        // It stays told.
        assert_eq!(stage.net.successor_mut().unwrap().poll(), Err(failure));
        assert_no_children();
    }
    let short = Duration::from_millis(150);
    for (action, failure) in [
        ("hang", Failure::Deadline),
        ("stop", Failure::Deadline),
        ("refuse-and-hang", Failure::Refused(Refusal::Code(1))),
    ] {
        stage.start(&Restart::new(), action).unwrap();
        stage.report();
        assert_eq!(stage.net.successor_mut().unwrap().wait_ready(short), Err(failure), "{action}");
        assert_no_children();
    }
}

fn failures_cost_nothing() {
    let mut stage = Stage::new();
    let listener = stage.listen();
    let before = Before::of(&stage);
    for action in ["exit 1", "kill", "close", "refuse-code 7"] {
        stage.start(&Restart::new(), action).unwrap();
        stage.report();
        stage.wait_ready().unwrap_err();
        // The pidfd is kept until the next start, so that the failure can be asked for again.
        let after = Before::of(&stage);
        assert_eq!((&before.vars, &before.cwd, &before.masks), (&after.vars, &after.cwd, &after.masks));
        assert_eq!(after.fds.iter().filter(|fd| !before.fds.contains(fd)).count(), 1);
    }
    let address = rustix::net::getsockname(stage.net.fd(listener).unwrap()).unwrap();
    let address = std::net::SocketAddr::try_from(address).unwrap();
    TcpStream::connect(address).unwrap();
    stage.succeed();
}

fn one_in_flight() {
    let mut stage = Stage::new();
    stage.start(&Restart::new(), "hang").unwrap();
    stage.report();
    assert!(stage.net.successor().unwrap().is_in_flight());
    assert_eq!(stage.start(&Restart::new(), "ready"), Err(Error::InFlight));
    let Err(error) = stage.net.exec(&mut stage.launch, &Restart::new());
    assert_eq!(error, Error::InFlight);
    stage.net.successor_mut().unwrap().kill().unwrap();
    assert_eq!(stage.wait_ready(), Err(Failure::Cancelled));
    assert_no_children();
    // One that ended by itself was not killed.
    stage.start(&Restart::new(), "exit 7").unwrap();
    stage.report();
    assert!(readable(stage.net.successor().unwrap().pidfd()));
    assert_eq!(stage.net.successor_mut().unwrap().kill(), Ok(true));
    assert_eq!(stage.wait_ready(), Err(Failure::Exited(7)));
    assert_no_children();
    // One that died unnoticed is not in flight.
    stage.start(&Restart::new(), "exit 3").unwrap();
    stage.report();
    assert!(readable(stage.net.successor().unwrap().pidfd()));
    stage.succeed();
    // Nor is one that is ready.
    stage.succeed();
}

fn unreaped_by_others() {
    let mut stage = Stage::new();
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
    stage.start(&Restart::new(), "exit 3").unwrap();
    stage.report();
    let known = if keeps_statuses() { Failure::Exited(3) } else { Failure::Vanished };
    assert_eq!(stage.wait_ready(), Err(known));
    // A failing execve is told all the same.
    let restart = Restart::new().executable(Executable::Path(c"/nonexistent"));
    assert_eq!(stage.start(&restart, "ready"), Err(execve(Errno::NOENT)));
    assert_no_children();
}

fn deadline_or_patience() {
    let mut stage = Stage::new();
    stage.start(&Restart::new(), "hang").unwrap();
    stage.report();
    let successor = stage.net.successor_mut().unwrap();
    assert_eq!(successor.poll(), Ok(Progress::Waiting));
    assert_eq!(successor.wait(Duration::from_millis(50)), Ok(Progress::Waiting));
    assert!(successor.is_in_flight());
    assert_eq!(successor.wait_ready(Duration::from_millis(50)), Err(Failure::Deadline));
    // An event loop: the descriptors say when to look.
    stage.start(&Restart::new(), "ready").unwrap();
    stage.report();
    let successor = stage.net.successor_mut().unwrap();
    assert!(readable(successor.socket().unwrap()));
    assert_eq!(successor.poll(), Ok(Progress::Ready));
    assert!(successor.is_ready());
}

/// Also where its seconds do not fit into 32 bits, or are 0 in them.
fn a_wait_is_as_long_as_asked_for() {
    let mut stage = Stage::new();
    for timeout in [Duration::from_secs(1 << 31), Duration::from_secs(1 << 32), Duration::MAX] {
        // Before it reports.
        stage.start(&Restart::new(), "ready").unwrap();
        assert_eq!(stage.net.successor_mut().unwrap().wait(timeout), Ok(Progress::Ready), "{timeout:?}");
        stage.report();
        stage.start(&Restart::new(), "ready").unwrap();
        assert_eq!(
            stage.net.successor_mut().unwrap().wait_ready(timeout),
            Ok(Progress::Ready),
            "{timeout:?}"
        );
        stage.report();
    }
}

/// A filter may refuse the clock, which libc finds in memory.
fn a_wait_ends_without_a_clock() {
    // On 32 bits the second one is that of 64-bit time, which libc has a name for on some.
    const CLOCKS: [libc::c_long; 2] = [libc::SYS_clock_gettime, 403];
    let mut stage = Stage::new();
    let clocks = CLOCKS.map(|call| (call, 0));
    filter(if cfg!(target_pointer_width = "32") { &clocks } else { &clocks[..1] }, Errno::PERM);
    let short = Duration::from_millis(50);
    stage.start(&Restart::new(), "hang").unwrap();
    let successor = stage.net.successor_mut().unwrap();
    assert_eq!(successor.wait(short), Ok(Progress::Waiting));
    assert_eq!(successor.wait_ready(short), Err(Failure::Deadline));
    let lives = Restart::new().readiness(Readiness::Alive(short));
    stage.start(&lives, "hang").unwrap();
    assert_eq!(stage.wait_ready(), Ok(Progress::Ready));
    stage.start(&lives, "hang").unwrap();
    let successor = stage.net.successor_mut().unwrap();
    assert_eq!(successor.wait(Duration::from_millis(1)), Ok(Progress::Waiting));
    assert_eq!(successor.wait(PATIENCE), Ok(Progress::Ready));
    rustix::process::pidfd_send_signal(successor.pidfd(), Signal::KILL).unwrap();
}

/// A process that no signal ends now, because the kernel waits for something on its behalf, is waited for no longer than
/// a moment; what happens to be done by then is what would be done later.
fn kill_ends_nobody() {
    let mut stage = Stage::new();
    stage.listen();
    stage.start(&Restart::new(), "hang").unwrap();
    stage.report();
    let successor = stage.net.successor_mut().unwrap();
    let (pid, pidfd) = (successor.pid(), rustix::io::dup(successor.pidfd()).unwrap());
    let begin = Instant::now();
    assert_eq!(successor.wait_ready(Duration::from_millis(50)), Err(Failure::Deadline));
    assert!(begin.elapsed() < PATIENCE / 2);
    assert!(!successor.is_in_flight());
    assert_eq!(successor.poll(), Err(Failure::Deadline));
    let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
    let mut ended = [rustix::event::PollFd::new(&pidfd, rustix::event::PollFlags::IN)];
    assert_eq!(rustix::event::poll(&mut ended, Some(&now)), Ok(0), "it runs on");
    // When it has ended, whoever looks collects it.
    rustix::process::kill_process(pid, Signal::KILL).unwrap();
    assert!(readable(pidfd.as_fd()));
    assert_eq!(successor.poll(), Err(Failure::Deadline));
    assert_no_children();
    // Or whoever starts the next.
    stage.start(&Restart::new(), "hang").unwrap();
    stage.report();
    let successor = stage.net.successor_mut().unwrap();
    let (pid, pidfd) = (successor.pid(), rustix::io::dup(successor.pidfd()).unwrap());
    assert_eq!(successor.kill(), Ok(true));
    rustix::process::kill_process(pid, Signal::KILL).unwrap();
    assert!(readable(pidfd.as_fd()));
    stage.succeed();
    let collected = rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::NOHANG);
    assert!(matches!(collected, Err(Errno::CHILD)), "{collected:?}");
}

/// A successor that could not be ended is in flight, and no other is started.
fn kill_fails() {
    let mut stage = Stage::new();
    stage.start(&Restart::new(), "hang").unwrap();
    stage.report();
    let successor = stage.net.successor_mut().unwrap();
    let result = successor.wait_ready(Duration::from_millis(50));
    let failed = |error| matches!(error, Error::Call { operation: Operation::Kill, errno: Errno::IO, .. });
    assert!(
        matches!(result, Ok(Progress::Unsettled(Unsettled::Unseen(error))) if failed(error)),
        "{result:?}"
    );
    assert!(successor.is_in_flight());
    assert_eq!(successor.kill(), Ok(true));
    assert!(!successor.is_in_flight());
    assert_no_children();
}

/// A signal with a handler interrupts the call, and the wait goes on.
fn a_wait_is_not_ended_by_signals() {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    static HANDLED: AtomicUsize = AtomicUsize::new(0);
    extern "C" fn handler(_: i32) {
        HANDLED.fetch_add(1, Ordering::SeqCst);
    }
    unsafe { libc::signal(libc::SIGUSR1, handler as *const () as usize) };
    let mut stage = Stage::new();
    stage.start(&Restart::new(), "hang").unwrap();
    stage.report();
    let (own, stop) = (unsafe { libc::gettid() }, AtomicBool::new(false));
    let waited = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::SeqCst) {
                unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), own, libc::SIGUSR1) };
                std::thread::yield_now();
            }
        });
        let waited = stage.net.successor_mut().unwrap().wait(Duration::from_millis(100));
        stop.store(true, Ordering::SeqCst);
        waited
    });
    assert_eq!(stage.net.successor_mut().unwrap().kill(), Ok(true));
    assert_eq!(waited, Ok(Progress::Waiting));
    assert!(HANDLED.load(Ordering::SeqCst) > 0);
}

fn programs_that_report_nothing() {
    let mut stage = Stage::new();
    stage.start(&Restart::new().readiness(Readiness::Executed), "exit 0").unwrap();
    let report = stage.report();
    // stdio and the report: no readiness socket.
    assert_eq!(reported_fds(&report).len(), 4);
    assert!(!report.contains("LISTEN_READY_FD"));
    assert_eq!(find(&report, "predecessor"), "none");
    assert!(stage.net.successor().unwrap().is_ready());
    let early = Restart::new().readiness(Readiness::Alive(PATIENCE));
    stage.start(&early, "exit 5").unwrap();
    stage.report();
    assert_eq!(stage.wait_ready(), Err(Failure::Exited(5)));
    let late = Restart::new().readiness(Readiness::Alive(Duration::from_millis(100)));
    stage.start(&late, "hang").unwrap();
    stage.report();
    // As soon as it is, and not at the end of the caller's patience.
    let begin = Instant::now();
    assert_eq!(stage.wait_ready(), Ok(Progress::Ready));
    let took = begin.elapsed();
    let pidfd = stage.net.successor().unwrap().pidfd();
    rustix::process::pidfd_send_signal(pidfd, rustix::process::Signal::KILL).unwrap();
    assert!(took < PATIENCE / 2, "{took:?}");
}

fn queue_survives_spawn() {
    let mut stage = Stage::new();
    let listener = stage.listen();
    let address = rustix::net::getsockname(stage.net.fd(listener).unwrap()).unwrap();
    let address = std::net::SocketAddr::try_from(address).unwrap();
    let mut clients: Vec<_> = (0..5).map(|_| TcpStream::connect(address).unwrap()).collect();
    stage.start(&Restart::new(), "answer 10").unwrap();
    stage.report();
    assert_eq!(stage.wait_ready(), Ok(Progress::Ready));
    let successor = stage.net.successor().unwrap().pid().as_raw_nonzero().to_string();
    clients.extend((0..5).map(|_| TcpStream::connect(address).unwrap()));
    stage.net.close(listener).unwrap();
    for client in &mut clients {
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, successor);
    }
}

fn predecessor_is_known() {
    let mut stage = Stage::new();
    let report = stage.succeed();
    assert_eq!(find(&report, "predecessor"), "alive");
    // A predecessor in the middle, which leaves.
    match unsafe { libc::fork() } {
        0 => {
            stage.start(&Restart::new(), "outlive").unwrap();
            assert_eq!(find(&stage.report(), "predecessor"), "alive");
            assert_eq!(stage.wait_ready(), Ok(Progress::Ready));
            std::process::exit(0);
        }
        child => {
            let mut status = 0;
            assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
            assert_eq!(status, 0);
        }
    }
    assert_eq!(find(&stage.report(), "predecessor"), "exited");
}

fn exec_passes_the_debt_on() {
    let mut stage = Stage::new();
    stage.start(&Restart::new(), "exec").unwrap();
    let (first, second) = {
        let both = stage.report();
        let both = if both.matches("end\n").count() == 2 { both } else { both + &stage.report() };
        let (first, second) = both.split_once("end\n").unwrap();
        (first.to_owned(), second.to_owned())
    };
    assert_eq!(stage.wait_ready(), Ok(Progress::Ready));
    assert_eq!(find(&first, "pid"), find(&second, "pid"));
    assert_eq!(find(&second, "predecessor"), "alive");
    // Not every kernel has it; the same process, the same number.
    let pidfd_id =
        |report: &str| report.lines().find(|line| line.starts_with("env.LISTEN_PIDFDID=")).map(str::to_owned);
    assert_eq!(pidfd_id(&first), pidfd_id(&second));
    assert_eq!(find(&second, "inherited"), "Ok(1)");
    // What was blocked has not been lost, and what a parent's death does is as it was.
    assert_eq!(find(&second, "ShdPnd"), "0000000000000200");
    assert_eq!((find(&first, "parent_death_signal"), find(&second, "parent_death_signal")), ("0", "12"));
}

fn exec_failure_changes_nothing() {
    let mut stage = Stage::new();
    // Everything in the way: two sockets that swap, somebody else's file on a target, a closed stdin.
    let a = move_to(fresh_listener(), 4);
    let b = move_to(fresh_listener(), 3);
    stage.net.add(a, "a").unwrap();
    stage.net.add(b, "b").unwrap();
    let other = rustix::fs::open("/dev/zero", rustix::fs::OFlags::empty(), 0.into()).unwrap();
    let other = other.into_raw_fd();
    assert_eq!(other, 5);
    unsafe { libc::close(0) };
    std::env::set_current_dir("/").unwrap();
    // The first thread makes libc install handlers of its own.
    std::thread::spawn(|| ()).join().unwrap();
    let before = Before::of(&stage);
    // Another thread never sees a wrong descriptor.
    let watched = target(unsafe { BorrowedFd::borrow_raw(4) });
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let mut looked = 0;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                assert_eq!(target(unsafe { BorrowedFd::borrow_raw(4) }), watched);
                looked += 1;
            }
            looked
        });
        for _ in 0..100 {
            let restart = Restart::new().executable(Executable::Path(c"/nonexistent"));
            let Err(error) = stage.net.exec(&mut stage.launch, &restart);
            assert_eq!(error, execve(Errno::NOENT));
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(watcher.join().unwrap() > 0);
    });
    assert_eq!(before, Before::of(&stage));
    assert_no_children();
    // The last of the threads may still be on its way out.
    let begin = std::time::Instant::now();
    while tasks() > 1 {
        assert!(begin.elapsed() < PATIENCE);
    }
}

fn tasks() -> usize {
    std::fs::read_dir("/proc/self/task").unwrap().count()
}

/// What is closed after a failed exec is closed: no clone on its way out keeps it open.
fn exec_failure_leaves_no_copy() {
    fail_to_exec_and_close(&mut Stage::new());
}

/// The same where each has to be closed by itself.
fn exec_failure_leaves_no_copy_on_an_old_kernel() {
    let mut stage = Stage::new();
    filter(&[(libc::SYS_close_range, 0)], Errno::NOSYS);
    fail_to_exec_and_close(&mut stage);
}

fn fail_to_exec_and_close(stage: &mut Stage) {
    stage.listen();
    let restart = Restart::new().executable(Executable::Path(c"/nonexistent"));
    for _ in 0..1000 {
        let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::NONBLOCK).unwrap();
        let Err(error) = stage.net.exec(&mut stage.launch, &restart);
        assert_eq!(error, execve(Errno::NOENT));
        drop(write);
        assert_eq!(rustix::io::read(&read, &mut [0; 1]), Ok(0));
    }
}

/// A signal that comes while an exec is being prepared is handled in the thread that called, with its own
/// descriptors, and that thread learns of it before the image could go.
fn signal_during_exec() {
    use std::sync::atomic::{AtomicI32, Ordering};
    static HANDLED_BY: AtomicI32 = AtomicI32::new(0);
    extern "C" fn handler(_: i32) {
        HANDLED_BY.store(unsafe { libc::gettid() }, Ordering::SeqCst);
    }
    unsafe { libc::signal(libc::SIGUSR1, handler as *const () as usize) };
    assert_eq!(exec_signalled_with(libc::SIGUSR1), execve(Errno::INTR));
    assert_eq!(HANDLED_BY.load(Ordering::SeqCst), unsafe { libc::gettid() });
}

/// One that comes when execve has failed, and the thread that called it has still to go, is not handled there: in
/// its table other descriptors are on the handler's numbers.
fn signal_after_a_failed_exec() {
    use std::sync::atomic::{AtomicI32, Ordering};
    static HANDLED_BY: AtomicI32 = AtomicI32::new(0);
    extern "C" fn handler(_: i32) {
        HANDLED_BY.store(unsafe { libc::gettid() }, Ordering::SeqCst);
    }
    unsafe { libc::signal(libc::SIGUSR1, handler as *const () as usize) };
    // What closes everything begins at 0, unlike what sets the flags before.
    let closing = format!("{} 0x0 ", libc::SYS_close_range);
    assert_eq!(exec_signalled_when(libc::SIGUSR1, move || calls(&closing)), execve(Errno::NOENT));
    assert_eq!(HANDLED_BY.load(Ordering::SeqCst), unsafe { libc::gettid() });
}

/// Whether a thread of this process is in the system call that begins like this.
fn calls(call: &str) -> bool {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    tasks
        .filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("syscall")).ok())
        .any(|found| found.starts_with(call))
}

/// There is nobody to give way to. systemd sends SIGCONT right behind the signal that asks for a reload.
fn signal_without_handler_during_exec() {
    assert_eq!(exec_signalled_with(libc::SIGCONT), execve(Errno::NOENT));
}

/// Why an exec fails that gets a signal on its way.
fn exec_signalled_with(signal: i32) -> Error {
    exec_signalled_when(signal, || tasks() >= 3)
}

/// The same, with the moment at which it comes.
fn exec_signalled_when(signal: i32, mut is_now: impl FnMut() -> bool + Send + 'static) -> Error {
    let mut stage = Stage::new();
    let sender = std::thread::spawn(move || unsafe {
        let mut all = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        libc::pthread_sigmask(libc::SIG_BLOCK, &raw const all, std::ptr::null_mut());
        while !is_now() {}
        libc::kill(libc::getpid(), signal);
    });
    let restart = Restart::new().executable(Executable::Path(c"/nonexistent"));
    let Err(error) = stage.net.exec(&mut stage.launch, &restart);
    sender.join().unwrap();
    error
}

/// A semaphore that is given back at the end of the process is not given back by an exec in place.
fn exec_undoes_no_semaphore() {
    let mut stage = Stage::new();
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    let semaphore = unsafe { libc::semget(libc::IPC_PRIVATE, 1, 0o600) };
    let value = || unsafe { libc::semctl(semaphore, 0, libc::GETVAL) };
    assert_eq!(unsafe { libc::semctl(semaphore, 0, libc::SETVAL, 1) }, 0);
    let child = unsafe { libc::fork() };
    if child == 0 {
        let mut take = libc::sembuf { sem_num: 0, sem_op: -1, sem_flg: libc::SEM_UNDO as i16 };
        unsafe { libc::semop(semaphore, &raw mut take, 1) };
        let args = [c"sleep", c"60"];
        let restart = Restart::new().executable(Executable::Path(c"/bin/sleep")).args(&args);
        let Err(error) = stage.net.exec(&mut stage.launch, &restart);
        panic!("{error}");
    }
    drop(write);
    assert_eq!(rustix::io::read(&read, &mut [0; 1]), Ok(0));
    let taken = value();
    unsafe { libc::kill(child, libc::SIGKILL) };
    assert_eq!(unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) }, child);
    let given_back = value();
    unsafe { libc::semctl(semaphore, 0, libc::IPC_RMID) };
    assert_eq!((taken, given_back), (0, 1));
}

/// A sandbox whose handler of SIGSYS answers some calls goes on doing so.
fn trapped_calls_are_answered() {
    use std::sync::atomic::{AtomicUsize, Ordering};
    static TRAPPED: AtomicUsize = AtomicUsize::new(0);
    extern "C" fn handler(_: i32) {
        TRAPPED.fetch_add(1, Ordering::Relaxed);
    }
    let mut stage = Stage::new();
    stage.listen();
    unsafe { libc::signal(libc::SIGSYS, handler as *const () as usize) };
    let before = Before::of(&stage);
    // Whatever is answered here, no signal is told.
    filter_by(&[(libc::SYS_rt_sigpending, 0)], libc::SECCOMP_RET_TRAP);
    let restart = Restart::new().executable(Executable::Path(c"/nonexistent"));
    let Err(error) = stage.net.exec(&mut stage.launch, &restart);
    assert_eq!(error, execve(Errno::NOENT));
    assert_eq!(TRAPPED.load(Ordering::Relaxed), 1);
    assert_eq!(before, Before::of(&stage));
}

/// A filter that kills whoever makes a call that only the clone makes.
fn killed_on_the_way() {
    let mut stage = Stage::new();
    stage.listen();
    let before = Before::of(&stage);
    filter_by(&[(libc::SYS_close_range, 0)], libc::SECCOMP_RET_KILL_THREAD);
    let killed = Error::Killed { signal: libc::SIGSYS };
    let restart = Restart::new().executable(Executable::Path(c"/nonexistent"));
    let Err(error) = stage.net.exec(&mut stage.launch, &restart);
    assert_eq!(error, killed);
    assert_eq!(stage.start(&restart, "ready"), Err(killed));
    // Its parent collects it, or does not.
    let sibling = Restart::new().parentage(Parentage::Sibling).readiness(Readiness::Executed);
    let told = stage.start(&sibling, "ready");
    assert!(matches!(told, Err(Error::Killed { signal: 0 | libc::SIGSYS })), "{told:?}");
    assert_eq!(before, Before::of(&stage));
    assert_no_children();
}

fn signal_mask_is_the_callers() {
    let mut stage = Stage::new();
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGUSR1);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const set, std::ptr::null_mut());
        libc::signal(libc::SIGUSR2, libc::SIG_IGN);
    }
    let before = Before::of(&stage);
    let report = stage.succeed();
    assert_eq!(find(&report, "SigBlk"), "0000000000000200");
    let ignored = u64::from_str_radix(find(&report, "SigIgn"), 16).unwrap();
    assert_ne!(ignored & (1 << (libc::SIGUSR2 - 1)), 0);
    assert_eq!(before.masks, Before::of(&stage).masks);
    let restart = Restart::new().executable(Executable::Path(c"/nonexistent"));
    assert_eq!(stage.start(&restart, "ready"), Err(execve(Errno::NOENT)));
    assert_eq!(before.masks, Before::of(&stage).masks);
}

/// Signals to the whole group, all the time, with a handler that would show in the predecessor's memory if
/// it ran in a clone.
fn handlers_do_not_run_in_the_clone() {
    use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};
    static OWN: AtomicI32 = AtomicI32::new(0);
    static WRONG: AtomicUsize = AtomicUsize::new(0);
    static RIGHT: AtomicUsize = AtomicUsize::new(0);
    extern "C" fn handler(_: i32) {
        let counter = if unsafe { libc::getpid() } == OWN.load(Ordering::Relaxed) { &RIGHT } else { &WRONG };
        counter.fetch_add(1, Ordering::Relaxed);
    }
    let mut stage = Stage::new();
    OWN.store(unsafe { libc::getpid() }, Ordering::Relaxed);
    unsafe {
        libc::setpgid(0, 0);
        libc::signal(libc::SIGWINCH, handler as *const () as usize);
    }
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                unsafe { libc::kill(0, libc::SIGWINCH) };
            }
        });
        for _ in 0..300 {
            let restart = Restart::new().executable(Executable::Path(c"/nonexistent"));
            assert_eq!(stage.start(&restart, "ready"), Err(execve(Errno::NOENT)));
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert!(RIGHT.load(Ordering::Relaxed) > 0);
    assert_eq!(WRONG.load(Ordering::Relaxed), 0);
}

fn missing_programs() {
    let mut stage = Stage::new();
    stage.listen();
    let directory = tempfile::tempdir().unwrap();
    let plain = directory.path().join("plain");
    std::fs::write(&plain, "not a program").unwrap();
    let plain = CString::new(plain.as_os_str().as_bytes()).unwrap();
    let before = Before::of(&stage);
    for (path, errno) in [
        (c"/nonexistent", Errno::NOENT),
        (c"/", Errno::ACCESS),
        (c"/dev/null/x", Errno::NOTDIR),
        (plain.as_c_str(), Errno::ACCESS),
    ] {
        let restart = Restart::new().executable(Executable::Path(path));
        assert_eq!(stage.start(&restart, "ready"), Err(execve(errno)), "{path:?}");
        assert_no_children();
        assert_eq!(before, Before::of(&stage));
    }
    stage.succeed();
}

fn open_file_as_program() {
    let mut stage = Stage::new();
    let program = std::fs::File::open(std::env::current_exe().unwrap()).unwrap();
    stage.start(&Restart::new().executable(Executable::Fd(program.as_fd())), "ready").unwrap();
    let report = stage.report();
    assert_eq!(stage.wait_ready(), Ok(Progress::Ready));
    assert_eq!(reported_fds(&report).into_keys().collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
    assert_eq!(find(&report, "exe"), std::env::current_exe().unwrap().to_str().unwrap());
}

fn program_in_the_way() {
    let mut stage = Stage::new();
    for number in [3, 4, 5, 6, 0] {
        stage.net = Net::new();
        stage.net.add(fresh_listener(), "listener").unwrap();
        let low = std::fs::File::open(std::env::current_exe().unwrap()).unwrap();
        let high = rustix::io::fcntl_dupfd_cloexec(&low, FREE).unwrap();
        drop(low);
        let program = move_to(high, number);
        stage.start(&Restart::new().executable(Executable::Fd(program.as_fd())), "ready").unwrap();
        let report = stage.report();
        assert_eq!(stage.wait_ready(), Ok(Progress::Ready));
        assert!(find(&report, "fd.3").starts_with("socket:"), "{report}");
        assert!(find(&report, "fd.4").starts_with("pipe:"), "{report}");
        assert!(find(&report, "fd.5").starts_with("socket:"), "{report}");
        assert!(!report.contains("fd.6="), "{report}");
    }
}

/// Runs a copy of this program as a predecessor of its own, and checks that it is content.
fn run_copy(program: &Path, scenario: &str, prepare: impl FnOnce(&mut Command)) {
    let mut command = Command::new(program);
    command.args(["role", "scenario", scenario]);
    prepare(&mut command);
    let status = command.status().unwrap();
    assert!(status.success(), "{status}");
}

fn copy_into(directory: &Path) -> PathBuf {
    let copy = directory.join("program");
    std::fs::copy(std::env::current_exe().unwrap(), &copy).unwrap();
    copy
}

/// Starts the launch's own program, with the reporter's arguments.
fn start_launched(stage: &mut Stage) -> Result<(), Error> {
    let writer = rustix::io::fcntl_dupfd_cloexec(&stage.writer, FREE).unwrap();
    let report = stage.net.add(writer, "report").unwrap();
    let args = [c"program", c"role", c"reporter", c"ready"];
    let result = stage.net.spawn(&mut stage.launch, &Restart::new().args(&args)).map(drop);
    stage.net.close(report).unwrap();
    result
}

fn in_copy(of: &str) -> bool {
    std::env::var("TEST_COPY").is_ok_and(|copy| copy == of)
}

fn deleted_binary() {
    if in_copy("deleted") {
        let mut stage = Stage::new();
        stage.listen();
        std::fs::remove_file(std::env::args_os().next().unwrap()).unwrap();
        let before = Before::of(&stage);
        assert_eq!(start_launched(&mut stage), Err(execve(Errno::NOENT)));
        let Err(error) = stage.net.exec(&mut stage.launch, &Restart::new());
        assert_eq!(error, execve(Errno::NOENT));
        assert_eq!(before, Before::of(&stage));
        stage.start(&Restart::new().executable(Executable::SameImage), "ready").unwrap();
        let report = stage.report();
        assert_eq!(stage.wait_ready(), Ok(Progress::Ready));
        assert!(find(&report, "exe").ends_with("(deleted)"));
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let copy = copy_into(directory.path());
    run_copy(&copy, "deleted_binary", |command| {
        command.env("TEST_COPY", "deleted");
    });
}

fn replaced_binary() {
    if in_copy("replaced") {
        let mut stage = Stage::new();
        let link = PathBuf::from(std::env::args_os().next().unwrap());
        let new = link.with_file_name("new");
        std::fs::copy(std::env::current_exe().unwrap(), &new).unwrap();
        let staged = link.with_file_name("staged");
        std::os::unix::fs::symlink(&new, &staged).unwrap();
        std::fs::rename(&staged, &link).unwrap();
        start_launched(&mut stage).unwrap();
        let report = stage.report();
        assert_eq!(stage.wait_ready(), Ok(Progress::Ready));
        assert_eq!(find(&report, "exe"), new.to_str().unwrap());
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let copy = copy_into(directory.path());
    let link = directory.path().join("current");
    std::os::unix::fs::symlink(&copy, &link).unwrap();
    run_copy(&link, "replaced_binary", |command| {
        command.env("TEST_COPY", "replaced");
    });
}

fn looked_up_in_path() {
    if in_copy("path") {
        let mut stage = Stage::new();
        let found = start_launched(&mut stage);
        if std::env::var_os("TEST_EXPECT_REFUSED").is_some() {
            assert_eq!(found, Err(Error::RelativePath));
        } else if std::env::var_os("TEST_EXPECT_MISSING").is_some() {
            assert_eq!(found, Err(execve(Errno::NOENT)));
        } else {
            found.unwrap();
            let report = stage.report();
            assert_eq!(stage.wait_ready(), Ok(Progress::Ready));
            assert_eq!(find(&report, "exe"), std::env::current_exe().unwrap().to_str().unwrap());
        }
        return;
    }
    use std::os::unix::process::CommandExt;
    let directory = tempfile::tempdir().unwrap();
    let copy = copy_into(directory.path());
    let here = directory.path().display();
    for (path, expectation) in [
        (format!("/nonexistent:/dev/null:{here}"), ""),
        (format!("relative::{here}"), ""),
        (".:/nonexistent".to_owned(), "TEST_EXPECT_REFUSED"),
        ("/nonexistent::".to_owned(), "TEST_EXPECT_REFUSED"),
        ("/nonexistent".to_owned(), "TEST_EXPECT_MISSING"),
    ] {
        run_copy(&copy, "looked_up_in_path", |command| {
            command.arg0("program").env("PATH", path).env("TEST_COPY", "path");
            command.current_dir(directory.path());
            if !expectation.is_empty() {
                command.env(expectation, "1");
            }
        });
    }
}

/// A program of more than 2 GiB starts itself anew, both ways, and hands over a file of that size.
fn large_program_and_large_file() {
    const SIZE: u64 = 5 << 30;
    if in_copy("large") {
        let mut stage = Stage::new();
        let path = std::env::current_exe().unwrap().to_str().unwrap().to_owned();
        let file = std::fs::File::open(&path).unwrap();
        assert_eq!(file.metadata().unwrap().len(), SIZE);
        stage.net.add(file.into(), "file").unwrap();
        // The reporter executes itself in place.
        stage.start(&Restart::new(), "exec").unwrap();
        let both = stage.report();
        let both = if both.matches("end\n").count() == 2 { both } else { both + &stage.report() };
        assert_eq!(stage.wait_ready(), Ok(Progress::Ready));
        let (first, second) = both.split_once("end\n").unwrap();
        assert_eq!([find(first, "fd.3"), find(first, "exe"), find(second, "exe")], [&*path; 3]);
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let copy = copy_into(directory.path());
    std::fs::File::options().write(true).open(&copy).unwrap().set_len(SIZE).unwrap();
    run_copy(&copy, "large_program_and_large_file", |command| {
        command.env("TEST_COPY", "large");
    });
}

fn launch_directory() {
    if in_copy("directory") {
        let mut stage = Stage::new();
        std::env::set_current_dir("/").unwrap();
        start_launched(&mut stage).unwrap();
        let report = stage.report();
        assert_eq!(stage.wait_ready(), Ok(Progress::Ready));
        assert_eq!(find(&report, "cwd"), std::env::var("TEST_EXPECTED").unwrap());
        assert_eq!(std::env::current_dir().unwrap(), Path::new("/"));
        return;
    }
    // A relative name, launched from a directory that the program has left since.
    let directory = tempfile::tempdir().unwrap();
    let here = directory.path().canonicalize().unwrap();
    copy_into(&here);
    for pwd in ["", "/", "relative", here.to_str().unwrap()] {
        run_copy(Path::new("./program"), "launch_directory", |command| {
            command.current_dir(&here).env("PWD", pwd);
            command.env("TEST_COPY", "directory").env("TEST_EXPECTED", &here);
        });
    }
}

fn renamed_and_deleted_directory() {
    if in_copy("renamed") {
        let mut stage = Stage::new();
        let change = std::env::var("TEST_CHANGE").unwrap();
        let (from, to) = (std::env::var("TEST_FROM").unwrap(), std::env::var("TEST_TO").unwrap());
        match change.as_str() {
            "rename" => std::fs::rename(from, to).unwrap(),
            "delete" => std::fs::remove_dir(from).unwrap(),
            _ => {
                let staged = PathBuf::from(&from).with_extension("staged");
                std::os::unix::fs::symlink(&to, &staged).unwrap();
                std::fs::rename(staged, from).unwrap();
            }
        }
        let report = stage.succeed();
        assert_eq!(find(&report, "cwd"), std::env::var("TEST_EXPECTED").unwrap());
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let here = directory.path().canonicalize().unwrap();
    let own = std::env::current_exe().unwrap();
    let run = |change: &str, from: &str, to: &str, expected: String| {
        let from = here.join(from);
        run_copy(&own, "renamed_and_deleted_directory", |command| {
            command.current_dir(&from).env("PWD", &from).env("TEST_COPY", "renamed");
            command.env("TEST_FROM", &from).env("TEST_TO", here.join(to));
            command.env("TEST_CHANGE", change).env("TEST_EXPECTED", expected);
        });
    };
    std::fs::create_dir(here.join("a")).unwrap();
    run("rename", "a", "b", here.join("b").display().to_string());
    run("delete", "b", "", "gone".to_owned());
    // A release directory behind a symbolic link: the successor follows the link anew.
    std::fs::create_dir(here.join("release1")).unwrap();
    std::fs::create_dir(here.join("release2")).unwrap();
    std::os::unix::fs::symlink(here.join("release1"), here.join("current")).unwrap();
    run("relink", "current", "release2", here.join("release2").display().to_string());
}

/// A number that is promised and closed stays so when the launch opens the directory on it.
fn directory_is_not_inherited() {
    if in_copy("promised") {
        unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, 0) };
        let mut launch: Launch<256> = unsafe { Launch::from_libc() }.unwrap();
        let here = std::env::current_dir().unwrap();
        assert_eq!(target(unsafe { BorrowedFd::borrow_raw(3) }), here.to_str().unwrap());
        let mut net = Net::<4>::new();
        assert_eq!(unsafe { net.inherit(&mut launch) }, Err(Error::NotOpen { fd: 3 }));
        return;
    }
    run_copy(&std::env::current_exe().unwrap(), "directory_is_not_inherited", |command| {
        command.env("TEST_COPY", "promised").env("LISTEN_FDS", "1");
    });
}

/// Leaked descriptors stay out, the handlers are reset, the predecessor is known: without the calls that
/// make it easy.
fn restart_by_other_means(stage: &mut Stage) {
    extern "C" fn handler(_: i32) {}
    unsafe { libc::signal(libc::SIGUSR1, handler as *const () as usize) };
    stage.listen();
    let leaked = rustix::fs::open("/dev/zero", rustix::fs::OFlags::empty(), 0.into()).unwrap();
    for number in [7, 40, 700] {
        assert!(unsafe { libc::dup2(leaked.as_raw_fd(), number) } == number);
    }
    let before = Before::of(stage);
    let restart = Restart::new().executable(Executable::Path(c"/nonexistent"));
    assert_eq!(stage.start(&restart, "ready"), Err(execve(Errno::NOENT)));
    let Err(error) = stage.net.exec(&mut stage.launch, &restart);
    assert_eq!(error, execve(Errno::NOENT));
    let report = stage.succeed();
    assert_eq!(reported_fds(&report).into_keys().collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5]);
    assert_eq!(find(&report, "inherited"), "Ok(2)");
    assert_eq!(find(&report, "predecessor"), "alive");
    assert_eq!(before.masks, Before::of(stage).masks);
}

fn old_kernel() {
    let mut stage = Stage::new();
    filter(&[(libc::SYS_clone3, 0), (libc::SYS_close_range, 0), (libc::SYS_statx, 0)], Errno::NOSYS);
    // SO_PEERPIDFD: the predecessor is found by its PID.
    let calls = [(libc::SYS_getsockopt, 2, 77)];
    filter_argument(&calls, libc::SECCOMP_RET_ERRNO | libc::ENOPROTOOPT as u32);
    restart_by_other_means(&mut stage);
}

/// `clone3` is there, and does not know that the handlers are to be reset. That is no emulator, whose clone that fails
/// is a child like any other.
fn kernel_before_clear_sighand() {
    use std::sync::atomic::{AtomicUsize, Ordering};
    static HANDLED: AtomicUsize = AtomicUsize::new(0);
    extern "C" fn handler(_: i32) {
        HANDLED.fetch_add(1, Ordering::SeqCst);
    }
    let mut stage = Stage::new();
    filter(&[(libc::SYS_clone3, 0)], Errno::INVAL);
    unsafe { libc::signal(libc::SIGCHLD, handler as *const () as usize) };
    let restart = Restart::new().executable(Executable::Path(c"/nonexistent"));
    assert_eq!(stage.start(&restart, "ready"), Err(execve(Errno::NOENT)));
    assert_eq!(HANDLED.load(Ordering::SeqCst), 0);
    // The end of the next successor would interrupt the exec in place, as it should.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
    restart_by_other_means(&mut stage);
}

/// Where nobody may open a pidfd, and the kernel is too old to give one with the socket, a successor does not know its
/// predecessor. All else is as ever.
fn predecessor_behind_a_filter() {
    let mut stage = Stage::new();
    stage.listen();
    let calls = [(libc::SYS_getsockopt, 2, 77)];
    filter_argument(&calls, libc::SECCOMP_RET_ERRNO | libc::ENOPROTOOPT as u32);
    filter(&[(libc::SYS_pidfd_open, 0)], Errno::PERM);
    let report = stage.succeed();
    assert_eq!(find(&report, "inherited"), "Ok(2)");
    assert_eq!(find(&report, "predecessor"), "none");
    stage.start(&Restart::new(), "hang").unwrap();
    stage.report();
    assert_eq!(stage.net.successor_mut().unwrap().kill(), Ok(true));
}

/// An older kernel does not tell who made a socket whose maker has closed its end, or names somebody who may be another
/// process by now: there is no predecessor, and that is no error.
fn predecessors_that_are_gone() {
    for errno in [libc::ENOPROTOOPT, libc::EINVAL] {
        match unsafe { libc::fork() } {
            0 => {
                filter_argument(&[(libc::SYS_getsockopt, 2, 77)], libc::SECCOMP_RET_ERRNO | errno as u32);
                let kind = rustix::net::SocketType::SEQPACKET;
                let family = rustix::net::AddressFamily::UNIX;
                let flags = rustix::net::SocketFlags::CLOEXEC;
                let (ours, theirs) = rustix::net::socketpair(family, kind, flags, None).unwrap();
                let vars = [
                    format!("LISTEN_PID={}", std::process::id()),
                    format!("LISTEN_READY_FD={}", theirs.into_raw_fd()),
                ];
                let vars = vars.map(|var| CString::new(var).unwrap());
                let envp = [vars[0].as_ptr(), vars[1].as_ptr(), std::ptr::null()];
                let argv = [c"test".as_ptr(), std::ptr::null()];
                drop(ours);
                let mut launch: Launch<4, 8> =
                    unsafe { Launch::new(1, argv.as_ptr(), envp.as_ptr()) }.unwrap();
                let mut net = Net::<1>::new();
                assert_eq!(unsafe { net.inherit(&mut launch) }, Ok(0));
                assert!(net.predecessor().is_none());
                assert_eq!(net.ready(), Ok(()));
                std::process::exit(0);
            }
            child => {
                let mut status = 0;
                assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
                assert_eq!(status, 0, "errno {errno}");
            }
        }
    }
}

/// Without the list in `/proc` too, every number is tried, whatever the limit: one that was lowered leaves what is open
/// above it.
fn nothing_leaks_without_close_range_and_proc() {
    let mut stage = Stage::new();
    stage.listen();
    let leaked = rustix::fs::open("/dev/zero", rustix::fs::OFlags::empty(), 0.into()).unwrap();
    assert_eq!(unsafe { libc::dup2(leaked.as_raw_fd(), 7) }, 7);
    let limit = libc::rlimit { rlim_cur: 7, rlim_max: 7 };
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) }, 0);
    filter(&[(libc::SYS_close_range, 0), (libc::SYS_getdents64, 0)], Errno::NOSYS);
    let args = [c"sh", c"-c", c"(exec 5<&3) || exit 8; (exec 5<&7) && exit 9; exit 5"];
    let restart = Restart::new()
        .executable(Executable::Path(c"/bin/sh"))
        .args(&args)
        .readiness(Readiness::Alive(PATIENCE));
    let result = stage.net.spawn(&mut stage.launch, &restart).unwrap().wait_ready(PATIENCE);
    assert_eq!(result, Err(Failure::Exited(5)));
}

fn filtering_container() {
    let mut stage = Stage::new();
    filter(&[(libc::SYS_clone3, 0), (libc::SYS_close_range, 0)], Errno::PERM);
    restart_by_other_means(&mut stage);
}

/// What a user-mode emulator says to the clones, on a kernel that shares memory all the same.
fn refusing_emulator() {
    let mut stage = Stage::new();
    filter(&[(libc::SYS_clone3, 0)], Errno::NOSYS);
    let thread = libc::CLONE_THREAD | libc::CLONE_VFORK;
    filter(&[(libc::SYS_clone, libc::CLONE_PIDFD), (libc::SYS_clone, thread)], Errno::INVAL);
    restart_by_other_means(&mut stage);
    hand_over_from(&mut stage, &[4, 3, 6, 5]);
    // The reporter executes itself in place.
    stage.start(&Restart::new(), "exec").unwrap();
    let both = stage.report();
    let both = if both.matches("end\n").count() == 2 { both } else { both + &stage.report() };
    assert_eq!(stage.wait_ready(), Ok(Progress::Ready));
    let (first, second) = both.split_once("end\n").unwrap();
    assert_eq!(find(first, "pid"), find(second, "pid"));
}

/// A successor that nobody could tell from another process is none: it is ended, and the start has failed.
fn no_pidfd_to_be_had() {
    let mut stage = Stage::new();
    let (reader, _writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    stage.net.add(reader, "pipe").unwrap();
    filter(&[(libc::SYS_clone3, 0)], Errno::NOSYS);
    filter(&[(libc::SYS_clone, libc::CLONE_PIDFD)], Errno::INVAL);
    filter(&[(libc::SYS_pidfd_open, 0)], Errno::MFILE);
    let before = Before::of(&stage);
    // It ends when this process does: one that is left alone would be waited for for ever.
    unsafe { libc::alarm(10) };
    let args = [c"sh", c"-c", c"read line <&3"];
    let restart = Restart::new().executable(Executable::Path(c"/bin/sh")).args(&args);
    let failed = Error::Call { operation: Operation::PidfdOpen, fd: None, errno: Errno::MFILE };
    assert_eq!(stage.net.spawn(&mut stage.launch, &restart).map(drop), Err(failed));
    assert_no_children();
    assert_eq!(before, Before::of(&stage));
}

fn unix_path_of_a_successor() {
    let mut stage = Stage::new();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let id = stage.net.listen("unix", path.to_str().unwrap()).unwrap();
    stage.start(&Restart::new(), "hang").unwrap();
    stage.report();
    assert_eq!(stage.net.close_and_unlink(id), Err(Error::InFlight));
    stage.net.successor_mut().unwrap().kill().unwrap();
    stage.succeed();
    assert_eq!(stage.net.close_and_unlink(id), Err(Error::HandedOver));
    stage.start(&Restart::new(), "exit 1").unwrap();
    stage.report();
    stage.wait_ready().unwrap_err();
    assert_eq!(stage.net.close_and_unlink(id), Err(Error::HandedOver));
    assert!(path.exists());
    stage.net.close(id).unwrap();
    assert!(path.exists());
}

/// A call fails on the way to the successor: the error names it, and everything is as before.
fn fault(operation: Operation, errno: Errno) {
    let mut stage = Stage::new();
    let listener = stage.listen();
    let before = Before::of(&stage);
    match stage.start(&Restart::new(), "ready") {
        Err(Error::Call { operation: found, errno: why, .. }) => assert_eq!((found, why), (operation, errno)),
        other => panic!("{other:?}"),
    }
    assert_eq!(before, Before::of(&stage));
    assert_no_children();
    assert!(stage.net.successor().is_none());
    rustix::net::getsockname(stage.net.fd(listener).unwrap()).unwrap();
}

/// Without the inode number of its pidfd, the successor is told its PID alone.
fn without_pidfd_id() {
    let mut stage = Stage::new();
    let report = stage.succeed();
    assert!(!report.contains("LISTEN_PIDFDID"));
    assert_eq!(find(&report, "env.LISTEN_PID"), find(&report, "pid"));
    assert_eq!(find(&report, "inherited"), "Ok(1)");
}
