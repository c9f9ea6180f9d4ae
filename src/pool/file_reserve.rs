//! The open files that the acceptor of the public listener leaves to the rest of the process.

#[cfg(unix)]
use std::os::fd::AsRawFd;
use std::{io, net::SocketAddr};

use super::{listener::Listener, platform, socket::Accepted};

/// Files that no client of the public listener gets, where the system bounds the files of a process
/// and takes the lowest free number for each: the admin listener, a reload, a snapshot and the
/// questions of hooks must be possible while clients wait for a place. At most a quarter of all.
const FILES_RESERVED: u64 = 32;

/// Whether a listener has come to the files that it must leave.
pub(super) struct FileReserve {
    /// The first number that is not for clients. `None` if nothing is left.
    first: Option<u64>,
    /// The last socket came close to it.
    is_near: bool,
}

impl FileReserve {
    /// What the process may have open now counts for good.
    pub(super) fn new() -> FileReserve {
        let first = platform::open_files_max().map(|max| max - FILES_RESERVED.min(max / 4));
        FileReserve { first, is_near: false }
    }

    /// Leaves nothing.
    pub(super) fn none() -> FileReserve {
        FileReserve { first: None, is_near: false }
    }

    /// Accepts the next connection. Fails as the system does without a file left if only those that
    /// are reserved are.
    pub(super) fn accept(&mut self, listener: &mut Listener) -> io::Result<(Accepted, SocketAddr)> {
        #[cfg(unix)]
        if self.is_near {
            // The number of this copy is the one that the next socket would get.
            let next = number(&listener.try_clone()?);
            if self.first.is_some_and(|first| next >= first) {
                return Err(rustix::io::Errno::MFILE.into());
            }
        }
        let accepted = listener.accept()?;
        #[cfg(unix)]
        {
            let number = number(&accepted.0);
            self.is_near = self.first.is_some_and(|first| number + 1 >= first);
        }
        Ok(accepted)
    }
}

#[cfg(unix)]
fn number(file: &impl AsRawFd) -> u64 {
    file.as_raw_fd() as u64
}
