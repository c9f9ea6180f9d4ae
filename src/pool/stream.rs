//! A connection's socket; in tests and for `replay`, one that is all memory.

use std::{
    io::{self, IoSlice, Read, Write},
    net::Shutdown,
};

use mio::net::TcpStream;

/// What a connection reads from and writes to, without ever blocking.
pub(super) enum Stream {
    Tcp(TcpStream),
    #[cfg(any(test, feature = "replay"))]
    Fake(super::wire::FakeSocket),
}

impl Stream {
    /// Ends our direction: the peer reads what was written, and then the end.
    pub(super) fn end(&self) -> io::Result<()> {
        match self {
            Stream::Tcp(stream) => stream.shutdown(Shutdown::Write),
            #[cfg(any(test, feature = "replay"))]
            Stream::Fake(fake) => fake.end(),
        }
    }
}

impl Read for Stream {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.read(into),
            #[cfg(any(test, feature = "replay"))]
            Stream::Fake(fake) => fake.read(into),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.write(bytes),
            #[cfg(any(test, feature = "replay"))]
            Stream::Fake(fake) => fake.write(bytes),
        }
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.write_vectored(slices),
            #[cfg(any(test, feature = "replay"))]
            Stream::Fake(fake) => fake.write_vectored(slices),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
