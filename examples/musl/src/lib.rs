//! The C interface. `include/gracenet.h` says what each function does; here it becomes a call of the crate.
//!
//! A [`Handle`] is the first thing in the caller's memory. What it stands for lies behind it: the parts, of the largest
//! capacity that fits, and behind these a service, if it has one. The functions reach all of it through the trait
//! [`Door`].
//!
//! | module | holds |
//! |---|---|
//! | this one | the functions |
//! | `state` | what is behind a handle |
//! | `life` | policy and events as C has them |
//! | `message` | a message to the service manager, from text |
//! | `error` | the last error, in numbers and in words |
//! | `text` | text for a buffer of the caller's |
#![no_std]

mod error;
mod life;
mod message;
mod state;
mod text;

use core::ffi::{CStr, c_char, c_int, c_uint};
use core::fmt::Write;
use error::Last;
use gracenet::{ListenOptions, Policy, Service};
use life::{CEvent, Terms};
use rustix::fd::{AsRawFd, FromRawFd, OwnedFd};
use rustix::io::Errno;
use state::{Door, Open, Parts};
use text::Text;

/// `struct gracenet`.
pub struct Handle {
    /// None where `gracenet_begin` has failed: the last error is the answer to everything.
    door: Option<*mut dyn Door>,
    last: Last,
}

/// Where the state begins.
const STATE: usize = size_of::<Handle>().next_multiple_of(ALIGN);

/// `GRACENET_ALIGN`.
const ALIGN: usize = 16;

/// How much memory a handle takes.
const fn bytes<const N: usize>() -> usize {
    STATE + Parts::<N>::BYTES
}

/// `GRACENET_SIZE_16` and its like have to be as large as that.
const _: () = {
    assert!(bytes::<16>() <= 17_408);
    assert!(bytes::<128>() <= 34_816);
    assert!(bytes::<1024>() <= 172_032);
    assert!(align_of::<Handle>() <= ALIGN && Parts::<16>::ALIGN <= ALIGN);
};

/// # Safety
///
/// - `net` is null or a variable of the caller's, `memory` null or `size` bytes of the caller's, which it leaves alone.
/// - argc and argv are those of `main`, and the strings stay.
/// - There is one thread, and nobody owns the descriptors that the variables promise.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gracenet_inherit(
    net: *mut *mut Handle,
    memory: *mut u8,
    size: usize,
    argc: c_int,
    argv: *const *const c_char,
) -> c_int {
    const OPEN: [Open; 3] = [Parts::<16>::open, Parts::<128>::open, Parts::<1024>::open];
    // SAFETY: the caller's contract.
    unsafe { open(net, memory, size, argc, argv, OPEN, Ok(Policy::new())) }
}

/// # Safety
///
/// - As for `gracenet_inherit`; `terms` is null or a policy.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gracenet_begin(
    net: *mut *mut Handle,
    memory: *mut u8,
    size: usize,
    argc: c_int,
    argv: *const *const c_char,
    terms: *const Terms,
) -> c_int {
    const OPEN: [Open; 3] = [Parts::<16>::open_begun, Parts::<128>::open_begun, Parts::<1024>::open_begun];
    // SAFETY: the caller's contract.
    let policy = unsafe { terms.as_ref() }.map_or(Ok(Policy::new()), Terms::policy);
    // SAFETY: the caller's contract.
    unsafe { open(net, memory, size, argc, argv, OPEN, policy) }
}

/// Makes a handle by the first of these for which the memory is large enough, from the last on.
///
/// # Safety
///
/// - As for `gracenet_inherit`.
unsafe fn open(
    net: *mut *mut Handle,
    memory: *mut u8,
    size: usize,
    argc: c_int,
    argv: *const *const c_char,
    [open_16, open_128, open_1024]: [Open; 3],
    policy: Result<Policy<'static>, Last>,
) -> c_int {
    if net.is_null() {
        return Last::Argument.code();
    }
    // SAFETY: the caller's variable.
    unsafe { net.write(core::ptr::null_mut()) };
    let policy = match policy {
        Ok(policy) if !memory.is_null() && !argv.is_null() && memory.addr().is_multiple_of(ALIGN) => policy,
        _ => return Last::Argument.code(),
    };
    let open = if size >= bytes::<1024>() {
        open_1024
    } else if size >= bytes::<128>() {
        open_128
    } else if size >= bytes::<16>() {
        open_16
    } else {
        return -Errno::NOSPC.raw_os_error();
    };
    // SAFETY: the memory is as large and as aligned as that; the rest is the caller's contract.
    let (door, inherited) = match unsafe { open(memory.wrapping_add(STATE), argc, argv, policy) } {
        Ok(opened) => opened,
        Err(error) => return Last::from(error).code(),
    };
    let last = inherited.err().map_or(Last::None, Last::from);
    let handle = memory.cast::<Handle>();
    // SAFETY: in front of the parts there is room for it; the variable is the caller's.
    unsafe {
        handle.write(Handle { door, last });
        net.write(handle);
    }
    inherited.unwrap_or(last.code())
}

/// # Safety
///
/// - `net` is null or a handle; the strings are null or strings.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gracenet_listen(
    net: *mut Handle,
    network: *const c_char,
    address: *const c_char,
    name: *const c_char,
    flags: c_uint,
) -> c_int {
    const NONBLOCK: c_uint = 1;
    const REUSEPORT: c_uint = 2;
    const REPLACE_STALE: c_uint = 4;
    let listen = |door: &mut dyn Door| {
        if flags & !(NONBLOCK | REUSEPORT | REPLACE_STALE) != 0 {
            return Err(Last::Argument);
        }
        // SAFETY: the caller's contract, for each.
        let (network, address, name) = unsafe { (string(network)?, string(address)?, string(name)?) };
        let mut options = ListenOptions::new()
            .nonblocking(flags & NONBLOCK != 0)
            .reuse_port(flags & REUSEPORT != 0)
            .replace_stale(flags & REPLACE_STALE != 0);
        if let Some(name) = name {
            options = options.name(name);
        }
        door.listen(network.ok_or(Last::Argument)?, address.ok_or(Last::Argument)?, &options)
    };
    // SAFETY: the caller's contract.
    unsafe { call(net, listen) }
}

/// # Safety
///
/// - As for `gracenet_listen`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gracenet_claim(
    net: *mut Handle,
    network: *const c_char,
    address: *const c_char,
    name: *const c_char,
) -> c_int {
    let claim = |door: &mut dyn Door| {
        // SAFETY: the caller's contract, for each.
        let strings = unsafe { (string(network)?, string(address)?, string(name)?) };
        match strings {
            (Some(network), Some(address), Some(name)) => {
                door.claim(network, address, &ListenOptions::new().name(name))
            }
            (Some(network), Some(address), None) => door.claim(network, address, &ListenOptions::new()),
            (None, None, Some(name)) => door.claim_name(name),
            _ => Err(Last::Argument),
        }
    };
    // SAFETY: the caller's contract.
    unsafe { call(net, claim) }
}

/// # Safety
///
/// - `net` is null or a handle; `fd` is the caller's, who gives it up; `name` is null or a string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gracenet_add(net: *mut Handle, fd: c_int, name: *const c_char) -> c_int {
    let add = |door: &mut dyn Door| {
        // SAFETY: the caller's contract.
        let name = unsafe { string(name) }?.unwrap_or(UNKNOWN);
        if fd < 0 {
            return Err(Last::Argument);
        }
        // SAFETY: the caller gives it up. If it is not taken, nothing closes it.
        door.add(unsafe { OwnedFd::from_raw_fd(fd) }, name)
    };
    // SAFETY: the caller's contract.
    unsafe { call(net, add) }
}

/// # Safety
///
/// - `net` is null or a handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gracenet_close(net: *mut Handle, fd: c_int) -> c_int {
    // SAFETY: the caller's contract.
    unsafe { call(net, |door| door.close(fd)) }
}

/// # Safety
///
/// - `net` is null or a handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gracenet_active(net: *const Handle, position: usize) -> c_int {
    // SAFETY: the caller's contract.
    unsafe { ask(net, Errno::NOENT, |door| door.active(position)) }
}

/// # Safety
///
/// - `net` is null or a handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gracenet_predecessor(net: *const Handle) -> c_int {
    // SAFETY: the caller's contract.
    unsafe { ask(net, Errno::SRCH, |door| door.predecessor()) }
}

/// # Safety
///
/// - `net` is null or a handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gracenet_ready(net: *mut Handle) -> c_int {
    // SAFETY: the caller's contract.
    unsafe { call(net, |door| door.ready()) }
}

/// # Safety
///
/// - `net` is null or a handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gracenet_refuse(net: *mut Handle, reason: c_int) -> c_int {
    let refuse = |door: &mut dyn Door| match reason {
        1..4096 => door.refuse(Errno::from_raw_os_error(reason)),
        _ => Err(Last::Argument),
    };
    // SAFETY: the caller's contract.
    unsafe { call(net, refuse) }
}

/// # Safety
///
/// - `net` is null or a handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gracenet_restart(net: *mut Handle) -> c_int {
    // SAFETY: the caller's contract.
    unsafe { call(net, |door| door.restart()) }
}

/// # Safety
///
/// - `net` is null or a handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gracenet_wait(net: *mut Handle, milliseconds: c_int) -> c_int {
    // SAFETY: the caller's contract.
    unsafe { call(net, |door| door.wait(milliseconds)) }
}

/// # Safety
///
/// - `net` is null or a handle; `fds` is null or has room for three.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gracenet_successor_fds(net: *mut Handle, fds: *mut [c_int; 3]) -> c_int {
    // SAFETY: the caller's contract.
    let fds = unsafe { fds.as_mut() };
    // SAFETY: the caller's contract.
    unsafe { call(net, |door| door.successor_fds(fds.ok_or(Last::Argument)?)) }
}

/// # Safety
///
/// - `net` is null or a handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gracenet_cancel(net: *mut Handle) -> c_int {
    // SAFETY: the caller's contract.
    unsafe { call(net, |door| door.cancel()) }
}

/// # Safety
///
/// - `net` is null or a handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gracenet_exec(net: *mut Handle) -> c_int {
    // SAFETY: the caller's contract.
    unsafe { call(net, |door| door.exec()) }
}

/// # Safety
///
/// - `net` is null or a handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gracenet_fd(net: *const Handle) -> c_int {
    // SAFETY: the caller's contract.
    unsafe { ask(net, Errno::INVAL, |door| door.service().map(AsRawFd::as_raw_fd)) }
}

/// # Safety
///
/// - `net` is null or a handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gracenet_accepts(net: *const Handle) -> c_int {
    // SAFETY: the caller's contract.
    unsafe { ask(net, Errno::INVAL, |door| door.service().map(|service| service.accepts().into())) }
}

/// # Safety
///
/// - `net` is null or a handle; `event` is null or a variable of the caller's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gracenet_poll(net: *mut Handle, event: *mut CEvent) -> c_int {
    let poll = |service: &mut Service<'static>| {
        if event.is_null() {
            return Err(Last::Argument);
        }
        match service.poll() {
            Some(found) => {
                // SAFETY: the caller's variable.
                unsafe { event.write(CEvent::of(found)) };
                Ok(1)
            }
            None => Ok(0),
        }
    };
    // SAFETY: the caller's contract.
    unsafe { serve(net, poll) }
}

/// # Safety
///
/// - `net` is null or a handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gracenet_request(net: *mut Handle, request: c_uint) -> c_int {
    // SAFETY: the caller's contract.
    unsafe {
        serve(net, |service| {
            service.request(life::request(request)?);
            Ok(0)
        })
    }
}

/// # Safety
///
/// - `net` is null or a handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gracenet_drained(net: *mut Handle) -> c_int {
    // SAFETY: the caller's contract.
    unsafe {
        serve(net, |service| {
            service.drained();
            Ok(0)
        })
    }
}

/// # Safety
///
/// - `net` is null or a handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gracenet_alive(net: *mut Handle) -> c_int {
    // SAFETY: the caller's contract.
    unsafe {
        serve(net, |service| {
            service.alive();
            Ok(0)
        })
    }
}

/// # Safety
///
/// - `net` is null or a handle; `text` is null or a string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gracenet_notify(net: *mut Handle, text: *const c_char) -> c_int {
    let notify = |door: &mut dyn Door| {
        // SAFETY: the caller's contract.
        let text = unsafe { string(text) }?.ok_or(Last::Argument)?;
        message::read(text, |assignments| door.notify(assignments))
    };
    // SAFETY: the caller's contract.
    unsafe { call(net, notify) }
}

/// # Safety
///
/// - `net` is null or a handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gracenet_store(net: *mut Handle, fd: c_int) -> c_int {
    // SAFETY: the caller's contract.
    unsafe { call(net, |door| door.store(fd)) }
}

/// # Safety
///
/// - `net` is null or a handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gracenet_watchdog(net: *mut Handle) -> i64 {
    let mut microseconds = 0;
    let watchdog = |door: &mut dyn Door| {
        let time = door.fed_within()?.map_or(0, |time| time.as_micros());
        microseconds = time.try_into().unwrap_or(i64::MAX);
        Ok(0)
    };
    // SAFETY: the caller's contract.
    let code = unsafe { call(net, watchdog) };
    if code < 0 { code.into() } else { microseconds }
}

/// # Safety
///
/// - `net` is null or a handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gracenet_error(net: *const Handle) -> error::Parts {
    // SAFETY: the caller's contract.
    unsafe { last(net) }.parts()
}

/// # Safety
///
/// - `net` is null or a handle; `text` is null or has room for `size` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gracenet_describe(net: *const Handle, text: *mut c_char, size: usize) -> usize {
    // SAFETY: the caller's contract.
    let mut text = unsafe { Text::new(text, size) };
    // SAFETY: the caller's contract.
    let _ = write!(text, "{}", unsafe { last(net) });
    text.end()
}

/// # Safety
///
/// - `net` is null or a handle, which is none from here on.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gracenet_end(net: *mut Handle) {
    // SAFETY: the caller's contract.
    if let Some(door) = unsafe { net.as_mut() }.and_then(|handle| handle.door.take()) {
        // SAFETY: written when the handle was made, and used no more.
        unsafe { door.drop_in_place() };
    }
}

/// The name of what has none.
const UNKNOWN: &str = "unknown";

/// Makes a call, and remembers how it failed.
///
/// # Safety
///
/// - `net` is null or a handle, and no other call uses it.
unsafe fn call(net: *mut Handle, call: impl FnOnce(&mut dyn Door) -> Result<c_int, Last>) -> c_int {
    // SAFETY: the caller's contract.
    let Some(handle) = (unsafe { net.as_mut() }) else { return Last::Argument.code() };
    let Some(door) = handle.door else { return handle.last.code() };
    // SAFETY: what is behind the handle lives as long, and is reached through it alone.
    call(unsafe { &mut *door }).unwrap_or_else(|error| {
        handle.last = error;
        error.code()
    })
}

/// Makes a call of the service's.
///
/// # Safety
///
/// - As for [`call`].
unsafe fn serve(net: *mut Handle, serve: impl FnOnce(&mut Service<'static>) -> Result<c_int, Last>) -> c_int {
    // SAFETY: the caller's contract.
    unsafe { call(net, |door| serve(door.service_mut().ok_or(Last::NotBegun)?)) }
}

/// Asks for a number, such as a descriptor; that there is none is no error to remember.
///
/// # Safety
///
/// - As for [`call`].
unsafe fn ask(net: *const Handle, none: Errno, ask: impl FnOnce(&dyn Door) -> Option<c_int>) -> c_int {
    // SAFETY: the caller's contract.
    let Some(handle) = (unsafe { net.as_ref() }) else { return Last::Argument.code() };
    let Some(door) = handle.door else { return handle.last.code() };
    // SAFETY: as in `call`.
    ask(unsafe { &*door }).unwrap_or(-none.raw_os_error())
}

/// # Safety
///
/// - As for [`call`].
unsafe fn last(net: *const Handle) -> Last {
    // SAFETY: the caller's contract.
    unsafe { net.as_ref() }.map_or(Last::Argument, |handle| handle.last)
}

/// The string, if it is not null. It lives as long as the caller lets it, which the header says.
///
/// # Safety
///
/// - `string` is null or a string.
unsafe fn string<'s>(string: *const c_char) -> Result<Option<&'s str>, Last> {
    if string.is_null() {
        return Ok(None);
    }
    // SAFETY: the caller's contract.
    let string = unsafe { CStr::from_ptr(string) };
    string.to_str().map(Some).map_err(|_| Last::Argument)
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    unsafe extern "C" {
        safe fn abort() -> !;
    }
    abort()
}
