//! The C interface. `include/gracenet.h` says what each function does; here it becomes a call of the crate.
//!
//! A [`Handle`] is the first thing in the caller's memory. What it stands for lies behind it: a [`State`] of the largest
//! capacity that fits, which the functions reach through the trait [`Door`], whatever its capacity.
#![no_std]

mod error;
mod state;

use core::ffi::{CStr, c_char, c_int, c_uint};
use core::fmt::{self, Write};
use error::{Last, Parts};
use gracenet::ListenOptions;
use rustix::fd::{FromRawFd, OwnedFd};
use rustix::io::Errno;
use state::{Door, State};

/// `struct gracenet`.
pub struct Handle {
    door: *mut dyn Door,
    last: Last,
}

/// Where the state begins.
const STATE: usize = size_of::<Handle>().next_multiple_of(ALIGN);

/// `GRACENET_ALIGN`.
const ALIGN: usize = 16;

/// How much memory a handle takes.
const fn bytes<const N: usize>() -> usize {
    STATE + size_of::<State<N>>()
}

/// `GRACENET_SIZE_16` and its like have to be as large as that.
const _: () = {
    assert!(bytes::<16>() <= 16_384);
    assert!(bytes::<128>() <= 32_768);
    assert!(bytes::<1024>() <= 166_400);
    assert!(align_of::<Handle>() <= ALIGN && align_of::<State<16>>() <= ALIGN);
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
    if net.is_null() {
        return Last::Argument.code();
    }
    // SAFETY: the caller's variable.
    unsafe { net.write(core::ptr::null_mut()) };
    if memory.is_null() || argv.is_null() || !memory.addr().is_multiple_of(ALIGN) {
        return Last::Argument.code();
    }
    let begin = if size >= bytes::<1024>() {
        State::<1024>::begin
    } else if size >= bytes::<128>() {
        State::<128>::begin
    } else if size >= bytes::<16>() {
        State::<16>::begin
    } else {
        return -Errno::NOSPC.raw_os_error();
    };
    // SAFETY: the memory is as large and as aligned as that; argc and argv are the caller's contract.
    let door = match unsafe { begin(memory.wrapping_add(STATE), argc, argv) } {
        Ok(door) => door,
        Err(error) => return Last::from(error).code(),
    };
    let handle = memory.cast::<Handle>();
    // SAFETY: in front of the state there is room for it.
    unsafe { handle.write(Handle { door, last: Last::None }) };
    // SAFETY: the caller's variable.
    unsafe { net.write(handle) };
    // SAFETY: a handle; descriptors and environment are the caller's contract.
    unsafe { call(handle, |door| door.inherit()) }
}

/// # Safety
///
/// - `net` is null or a handle; the strings are null or strings; the name stays.
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
/// - `net` is null or a handle; `fd` is the caller's, who gives it up; `name` is null or a string, and stays.
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
    unsafe { call(net, |door| Ok(door.successor_fds(fds.ok_or(Last::Argument)?))) }
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
pub unsafe extern "C" fn gracenet_error(net: *const Handle) -> Parts {
    // SAFETY: the caller's contract.
    unsafe { last(net) }.parts()
}

/// # Safety
///
/// - `net` is null or a handle; `text` is null or has room for `size` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gracenet_describe(net: *const Handle, text: *mut c_char, size: usize) -> usize {
    let mut counted = Text { to: text.cast(), room: if text.is_null() { 0 } else { size }, len: 0 };
    // SAFETY: the caller's contract.
    let _ = write!(counted, "{}", unsafe { last(net) });
    if let Some(longest) = counted.room.checked_sub(1) {
        // SAFETY: within the room.
        unsafe { counted.to.add(counted.len.min(longest)).write(0) };
    }
    counted.len
}

/// # Safety
///
/// - `net` is null or a handle, which is none from here on.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gracenet_end(net: *mut Handle) {
    // SAFETY: the caller's contract.
    if let Some(handle) = unsafe { net.as_mut() } {
        // SAFETY: written when the handle was made, and used no more.
        unsafe { handle.door.drop_in_place() };
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
    // SAFETY: the state behind the handle lives as long, and is reached through it alone.
    let door = unsafe { &mut *handle.door };
    call(door).unwrap_or_else(|error| {
        handle.last = error;
        error.code()
    })
}

/// Asks for a descriptor; that there is none is no error to remember.
///
/// # Safety
///
/// - As for [`call`].
unsafe fn ask(net: *const Handle, none: Errno, ask: impl FnOnce(&dyn Door) -> Option<c_int>) -> c_int {
    // SAFETY: the caller's contract.
    let Some(handle) = (unsafe { net.as_ref() }) else { return Last::Argument.code() };
    // SAFETY: as in `call`.
    ask(unsafe { &*handle.door }).unwrap_or(-none.raw_os_error())
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

/// Text for a buffer of the caller's: what fits goes there, and all is counted.
struct Text {
    to: *mut u8,
    room: usize,
    len: usize,
}

impl fmt::Write for Text {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            if self.len < self.room {
                // SAFETY: within the room.
                unsafe { self.to.add(self.len).write(byte) };
            }
            self.len += 1;
        }
        Ok(())
    }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    unsafe extern "C" {
        safe fn abort() -> !;
    }
    abort()
}
