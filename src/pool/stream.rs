//! A connection's socket; in tests, one that behaves as badly as the test wants.

use std::{
    io::{self, IoSlice, Read, Write},
    net::Shutdown,
};

use mio::net::TcpStream;

use super::platform;

/// What a connection reads from and writes to, without ever blocking.
pub(super) enum Stream {
    Tcp(TcpStream),
    #[cfg(test)]
    Fake(super::harness::FakeSocket),
}

impl Stream {
    /// Leaves what the peer does not take to the outbox rather than to the kernel.
    pub(super) fn limit_unsent(&self) {
        match self {
            Stream::Tcp(stream) => platform::limit_unsent(stream),
            #[cfg(test)]
            Stream::Fake(_) => {}
        }
    }

    /// Ends our direction: the peer reads what was written, and then the end.
    pub(super) fn end(&self) -> io::Result<()> {
        match self {
            Stream::Tcp(stream) => stream.shutdown(Shutdown::Write),
            #[cfg(test)]
            Stream::Fake(fake) => fake.end(),
        }
    }
}

impl Read for Stream {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.read(into),
            #[cfg(test)]
            Stream::Fake(fake) => fake.read(into),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.write(bytes),
            #[cfg(test)]
            Stream::Fake(fake) => fake.write(bytes),
        }
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.write_vectored(slices),
            #[cfg(test)]
            Stream::Fake(fake) => fake.write_vectored(slices),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
