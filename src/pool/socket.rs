//! The socket below a connection: the kernel's, or one of memory.

use std::{
    fmt,
    io::{self, IoSlice, Read, Write},
    net::Shutdown,
};

#[cfg(unix)]
use mio::net::UnixStream;
use mio::{Interest, Registry, Token, net::TcpStream};

use super::{memory::MemorySocket, platform};

/// A socket that no worker has yet.
pub(crate) enum Accepted {
    Tcp(std::net::TcpStream),
    #[cfg(unix)]
    Unix(std::os::unix::net::UnixStream),
}

#[cfg(unix)]
impl std::os::fd::AsRawFd for Accepted {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        match self {
            Accepted::Tcp(stream) => stream.as_raw_fd(),
            Accepted::Unix(stream) => stream.as_raw_fd(),
        }
    }
}

impl Accepted {
    /// Makes another descriptor of the socket.
    pub(super) fn try_clone(&self) -> io::Result<Accepted> {
        match self {
            Accepted::Tcp(stream) => stream.try_clone().map(Accepted::Tcp),
            #[cfg(unix)]
            Accepted::Unix(stream) => stream.try_clone().map(Accepted::Unix),
        }
    }

    /// Sets what every socket of a server has: it never blocks, and never waits to fill a packet.
    pub(super) fn set_up(&self) -> io::Result<()> {
        if platform::ACCEPTED_ARE_SET_UP {
            return Ok(());
        }
        match self {
            Accepted::Tcp(stream) => {
                stream.set_nonblocking(true)?;
                stream.set_nodelay(true)
            }
            #[cfg(unix)]
            Accepted::Unix(stream) => stream.set_nonblocking(true),
        }
    }

    /// Writes all of `bytes`, or fails where that would block.
    pub(super) fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Accepted::Tcp(stream) => stream.write_all(bytes),
            #[cfg(unix)]
            Accepted::Unix(stream) => stream.write_all(bytes),
        }
    }
}

/// What bytes are read from and written to, without ever blocking.
pub(super) enum Socket {
    Tcp(TcpStream),
    #[cfg(unix)]
    Unix(UnixStream),
    Memory(MemorySocket),
}

/// What a read came to. Failures are boxed, because each read returns one of these.
#[derive(Debug)]
pub(super) enum Received {
    /// So many bytes, at least one. `was_short` if the socket gave less than there was room for.
    Bytes { bytes: usize, was_short: bool },
    /// The peer has ended its direction.
    End,
    /// Something came, but nothing for the connection: a part of a handshake or of a record, or
    /// what is of no use. `cost` is what that counts, as [`WorkerCtx::spent`] does.
    ///
    /// [`WorkerCtx::spent`]: super::worker_cx::WorkerCtx::spent
    Nothing { was_short: bool, cost: usize },
    /// The worker has done enough of this in its turn.
    #[cfg_attr(not(feature = "tls"), expect(dead_code))]
    Later,
    /// The handshake failed. An alert is on its way, and what is written next goes out as it is.
    #[cfg_attr(not(feature = "tls"), expect(dead_code))]
    NoSession(Box<Failure>),
    /// The peer broke TLS within a session. Nothing can be said to it any more.
    #[cfg_attr(not(feature = "tls"), expect(dead_code))]
    Broken(Box<Failure>),
}

/// Why a peer cannot be understood.
#[derive(Debug)]
#[cfg_attr(not(feature = "tls"), expect(dead_code))]
pub(super) enum Failure {
    /// It speaks HTTP where TLS is spoken.
    PlainHttp,
    /// What `rustls` says.
    Tls(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::PlainHttp => f.write_str("the client speaks HTTP"),
            Failure::Tls(reason) => f.write_str(reason),
        }
    }
}

impl Socket {
    /// Has `registry` watch a socket for the worker that takes it.
    pub(super) fn watched(
        accepted: Accepted,
        registry: &Registry,
        token: Token,
    ) -> io::Result<Socket> {
        let interest = Interest::READABLE | Interest::WRITABLE;
        match accepted {
            Accepted::Tcp(stream) => {
                let mut stream = TcpStream::from_std(stream);
                registry.register(&mut stream, token, interest)?;
                Ok(Socket::Tcp(stream))
            }
            #[cfg(unix)]
            Accepted::Unix(stream) => {
                let mut stream = UnixStream::from_std(stream);
                registry.register(&mut stream, token, interest)?;
                Ok(Socket::Unix(stream))
            }
        }
    }

    /// Ends our direction: the peer reads what was written, and then the end.
    pub(super) fn end(&self) -> io::Result<()> {
        match self {
            Socket::Tcp(stream) => stream.shutdown(Shutdown::Write),
            #[cfg(unix)]
            Socket::Unix(stream) => stream.shutdown(Shutdown::Write),
            Socket::Memory(socket) => socket.end(),
        }
    }
}

impl Read for Socket {
    #[inline]
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Socket::Tcp(stream) => stream.read(into),
            #[cfg(unix)]
            Socket::Unix(stream) => stream.read(into),
            Socket::Memory(socket) => socket.read(into),
        }
    }
}

impl Write for Socket {
    #[inline]
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Socket::Tcp(stream) => stream.write(bytes),
            #[cfg(unix)]
            Socket::Unix(stream) => stream.write(bytes),
            Socket::Memory(socket) => socket.write(bytes),
        }
    }

    #[inline]
    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Socket::Tcp(stream) => stream.write_vectored(slices),
            #[cfg(unix)]
            Socket::Unix(stream) => stream.write_vectored(slices),
            Socket::Memory(socket) => socket.write_vectored(slices),
        }
    }

    #[inline]
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
