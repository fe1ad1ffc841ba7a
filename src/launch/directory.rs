//! The working directory at the launch, in which a successor starts.

use crate::cstr::CStrPtr;
use crate::error::{Error, Operation};
use crate::slot::Slot;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

/// The working directory at the launch.
#[derive(Debug)]
pub(crate) struct Directory {
    /// `$PWD`, if it named the current directory: so a path through a symbolic link is followed anew.
    pub(crate) path: Option<CStrPtr>,
    /// The directory itself, in case the path is gone.
    pub(crate) fd: Slot<OwnedFd>,
}

impl Directory {
    /// Returns the working directory: `$PWD` if that names it, as in Go gracenet, and the directory itself.
    pub(super) fn current(pwd: Option<CStrPtr>) -> Result<Self, Error> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = match rustix::fs::open(c".", flags, Mode::empty()) {
            Ok(fd) => Some(fd),
            Err(errno @ (Errno::MFILE | Errno::NFILE | Errno::NOMEM)) => {
                return Err(Error::call(Operation::OpenDirectory, errno));
            }
            // The directory is not searchable, or its file system is gone. The successor starts in the directory in
            // which this process is when it restarts.
            Err(_) => None,
        };
        let path = pwd.and_then(|pwd| pwd.behind("PWD=".len()));
        let path = path.filter(|path| path.to_bytes().starts_with(b"/") && same(fd.as_ref(), path));
        Ok(Self { path, fd: fd.into() })
    }

    pub(crate) fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.fd.as_ref().map(AsFd::as_fd)
    }
}

/// Returns whether `path` names the open directory.
fn same(directory: Option<&OwnedFd>, path: &CStrPtr) -> bool {
    let here = directory.and_then(|fd| rustix::fs::fstat(fd).ok());
    let there = rustix::fs::stat(path.as_c_str()).ok();
    match (here, there) {
        (Some(here), Some(there)) => (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino),
        _ => false,
    }
}
