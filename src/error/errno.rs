//! The words for errnos. This module makes no system call.

use core::fmt;
use rustix::io::Errno;

/// Writes an errno that a server meets in words, and any other by its number.
pub(crate) fn describe(errno: Errno, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let words = match errno {
        Errno::ACCESS => "permission denied",
        Errno::ADDRINUSE => "address in use",
        Errno::ADDRNOTAVAIL => "address not available",
        Errno::AFNOSUPPORT => "address family not supported",
        Errno::AGAIN => "resource temporarily unavailable",
        Errno::BADF => "bad file descriptor",
        Errno::CONNREFUSED => "connection refused",
        Errno::EXIST => "file exists",
        Errno::INTR => "interrupted by a signal",
        Errno::INVAL => "invalid argument",
        Errno::LOOP => "too many symbolic links",
        Errno::MFILE => "too many open files",
        Errno::NAMETOOLONG => "name too long",
        Errno::NFILE => "too many open files in the system",
        Errno::NODEV => "no such device",
        Errno::NOENT => "no such file or directory",
        Errno::NOEXEC => "exec format error",
        Errno::NOMEM => "out of memory",
        Errno::NOSYS => "not implemented by this kernel",
        Errno::NOTDIR => "not a directory",
        Errno::NOTSOCK => "not a socket",
        Errno::PERM => "operation not permitted",
        Errno::PIPE => "broken pipe",
        Errno::ROFS => "read-only file system",
        Errno::TIMEDOUT => "timed out",
        Errno::TOOBIG => "argument list too long",
        Errno::TXTBSY => "text file busy",
        other => return write!(f, "errno {}", other.raw_os_error()),
    };
    f.write_str(words)
}
