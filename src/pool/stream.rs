//! A connection's socket: the kernel's, or one of memory.

use std::{
    io::{self, IoSlice, Read, Write},
    net::Shutdown,
};

use mio::net::TcpStream;

use super::memory::MemorySocket;

/// What a connection reads from and writes to, without ever blocking.
pub(super) enum Stream {
    Tcp(TcpStream),
    Memory(MemorySocket),
}

impl Stream {
    /// Ends our direction: the peer reads what was written, and then the end.
    pub(super) fn end(&self) -> io::Result<()> {
        match self {
            Stream::Tcp(stream) => stream.shutdown(Shutdown::Write),
            Stream::Memory(socket) => socket.end(),
        }
    }
}

impl Read for Stream {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.read(into),
            Stream::Memory(socket) => socket.read(into),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.write(bytes),
            Stream::Memory(socket) => socket.write(bytes),
        }
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.write_vectored(slices),
            Stream::Memory(socket) => socket.write_vectored(slices),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
