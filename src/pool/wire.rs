//! A socket that is all memory, and as bad as the test wants it. In tests and for `replay` only.

use std::{
    io::{self, IoSlice, Read, Write},
    sync::Arc,
};

use parking_lot::Mutex;

/// The two directions of a socket, as their other end sees them.
pub(super) struct Wire {
    /// What the server will read, at most `read_step` bytes at a time.
    pub(super) to_server: Vec<u8>,
    pub(super) read_step: usize,
    /// The last read left something that a real socket would have given.
    pub(super) cut_short: bool,
    /// The client has ended its direction.
    pub(super) client_ended: bool,
    /// The next read or write fails with this.
    pub(super) error: Option<io::ErrorKind>,
    /// What the server has written: `write_room` bytes more, at most `write_step` at a time.
    pub(super) from_server: Vec<u8>,
    pub(super) write_room: usize,
    pub(super) write_step: usize,
    /// The server has ended its direction.
    pub(super) server_ended: bool,
}

impl Default for Wire {
    /// A good one: everything goes through at once.
    fn default() -> Wire {
        Wire {
            to_server: Vec::new(),
            read_step: usize::MAX,
            cut_short: false,
            client_ended: false,
            error: None,
            from_server: Vec::new(),
            write_room: usize::MAX,
            write_step: usize::MAX,
            server_ended: false,
        }
    }
}

/// The server's end of a [`Wire`].
#[derive(Clone)]
pub(super) struct FakeSocket(pub(super) Arc<Mutex<Wire>>);

impl FakeSocket {
    pub(super) fn end(&self) -> io::Result<()> {
        let mut wire = self.0.lock();
        wire.server_ended = true;
        wire.error.map_or(Ok(()), |error| Err(error.into()))
    }
}

impl Read for FakeSocket {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let mut wire = self.0.lock();
        if let Some(error) = wire.error {
            return Err(error.into());
        }
        if wire.to_server.is_empty() {
            return if wire.client_ended { Ok(0) } else { Err(io::ErrorKind::WouldBlock.into()) };
        }
        let n = into.len().min(wire.read_step).min(wire.to_server.len());
        into[..n].copy_from_slice(&wire.to_server[..n]);
        wire.to_server.drain(..n);
        wire.cut_short = n < into.len() && (!wire.to_server.is_empty() || wire.client_ended);
        Ok(n)
    }
}

impl Write for FakeSocket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(bytes)])
    }

    /// Gathers, as a kernel does.
    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut wire = self.0.lock();
        if let Some(error) = wire.error {
            return Err(error.into());
        }
        let room = wire.write_room.min(wire.write_step);
        let mut n = 0;
        for slice in slices {
            let part = &slice[..slice.len().min(room - n)];
            wire.from_server.extend_from_slice(part);
            n += part.len();
        }
        if n == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        wire.write_room -= n;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
