//! A socket that is all memory, and as bad as a test wants it.

use std::{
    io::{self, IoSlice, Read, Write},
    sync::Arc,
};

use parking_lot::Mutex;

/// The two directions of a connection, as its client sees them.
pub(crate) struct Wire {
    /// What the server will read, at most `read_step` bytes at a time.
    pub(crate) to_server: Vec<u8>,
    pub(crate) read_step: usize,
    /// The last read left something that a real socket would have given.
    pub(crate) cut_short: bool,
    /// The client has ended its direction.
    pub(crate) client_ended: bool,
    /// The next read or write fails with this.
    pub(crate) error: Option<io::ErrorKind>,
    /// What the server has written: `write_room` bytes more, at most `write_step` at a time.
    pub(crate) from_server: Vec<u8>,
    pub(crate) write_room: usize,
    pub(crate) write_step: usize,
    /// The server has ended its direction.
    pub(crate) server_ended: bool,
    /// The slot and the generation of the server's end; `None` once that is gone.
    pub(crate) name: Option<(usize, u32)>,
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
            name: None,
        }
    }
}

/// The server's end of a [`Wire`].
pub(crate) struct MemorySocket(pub(crate) Arc<Mutex<Wire>>);

impl MemorySocket {
    /// Tells the client's end what its server calls the connection.
    pub(super) fn name(&self, slot: usize, generation: u32) {
        self.0.lock().name = Some((slot, generation));
    }

    /// Ends the server's direction.
    pub(super) fn end(&self) -> io::Result<()> {
        let mut wire = self.0.lock();
        wire.server_ended = true;
        wire.error.map_or(Ok(()), |error| Err(error.into()))
    }
}

impl Drop for MemorySocket {
    fn drop(&mut self) {
        let mut wire = self.0.lock();
        wire.server_ended = true;
        wire.name = None;
    }
}

impl Read for MemorySocket {
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

impl Write for MemorySocket {
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
