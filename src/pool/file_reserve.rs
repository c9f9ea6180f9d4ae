//! The open files that the acceptor of the public listener leaves to the rest of the process.

#[cfg(unix)]
use std::os::fd::AsRawFd;
use std::{io, net::SocketAddr};

use super::{listener::Listener, platform, socket::Accepted};

/// Files that no client of the public listener gets, where the system bounds the files of a process
/// and takes the lowest free number for each: the admin listener, a reload, a snapshot and the
/// questions of hooks must be possible while clients wait for a place. At most a quarter of all.
const FILES_RESERVED: u64 = 32;

/// Accepts for a listener that must leave files to others.
pub(super) struct FileReserve {
    /// The first number that is not for clients. `None` if all are for clients.
    first: Option<u64>,
    /// A connection that got a reserved number. It waits for one that is not.
    waiting: Option<(Accepted, SocketAddr)>,
}

impl FileReserve {
    /// The number of files that the process may have open now counts for good.
    pub(super) fn new() -> FileReserve {
        let first = platform::open_files_max().map(|max| max - FILES_RESERVED.min(max / 4));
        FileReserve { first, waiting: None }
    }

    /// Leaves nothing to others.
    pub(super) fn none() -> FileReserve {
        FileReserve { first: None, waiting: None }
    }

    /// Accepts the next connection. Fails as the system does without a file left if only those that
    /// are reserved are.
    pub(super) fn accept(&mut self, listener: &mut Listener) -> io::Result<(Accepted, SocketAddr)> {
        let (stream, remote) = match &self.waiting {
            // The copy gets the lowest number that is free by now.
            Some((waiting, remote)) => (waiting.try_clone()?, *remote),
            None => listener.accept()?,
        };
        if self.is_reserved(&stream) {
            // One connection waits here; the others stay in the kernel's queue.
            self.waiting.get_or_insert((stream, remote));
            return Err(out_of_files());
        }
        self.waiting = None;
        Ok((stream, remote))
    }

    #[cfg(unix)]
    fn is_reserved(&self, stream: &Accepted) -> bool {
        self.first.is_some_and(|first| stream.as_raw_fd() as u64 >= first)
    }

    #[cfg(not(unix))]
    fn is_reserved(&self, _: &Accepted) -> bool {
        false
    }
}

#[cfg(unix)]
fn out_of_files() -> io::Error {
    rustix::io::Errno::MFILE.into()
}

#[cfg(not(unix))]
fn out_of_files() -> io::Error {
    io::ErrorKind::Other.into()
}
