//! A socket as it is, or with TLS on it.

use std::io::{self, Read, Write};

#[cfg(feature = "tls")]
use crate::tls::TlsStream;

/// A socket as it is, or with TLS on it. Reads from the socket once at most a call: with TLS a read
/// may be `Interrupted` by a part of something, and one that gives less than there was room for
/// says nothing about what else there is.
#[derive(Debug)]
pub enum Stream<S> {
    /// Without TLS.
    Plain(S),
    /// With TLS.
    #[cfg(feature = "tls")]
    Tls(Box<TlsStream<S>>),
}

impl<S: Read + Write> Stream<S> {
    /// Returns the socket.
    pub fn socket_mut(&mut self) -> &mut S {
        match self {
            Stream::Plain(socket) => socket,
            #[cfg(feature = "tls")]
            Stream::Tls(stream) => stream.socket_mut(),
        }
    }

    /// Returns the socket.
    pub fn socket(&self) -> &S {
        match self {
            Stream::Plain(socket) => socket,
            #[cfg(feature = "tls")]
            Stream::Tls(stream) => stream.socket(),
        }
    }

    /// Whether there is TLS on it.
    pub fn is_tls(&self) -> bool {
        !matches!(self, Stream::Plain(_))
    }

    /// Whether bytes that were written wait for the socket: [`flush`](Write::flush) gives it what
    /// it takes.
    pub fn has_unsent(&self) -> bool {
        match self {
            Stream::Plain(_) => false,
            #[cfg(feature = "tls")]
            Stream::Tls(stream) => stream.has_unsent(),
        }
    }

    pub(crate) fn into_other<O: Read + Write>(self, other: impl FnOnce(S) -> O) -> Stream<O> {
        match self {
            Stream::Plain(socket) => Stream::Plain(other(socket)),
            #[cfg(feature = "tls")]
            Stream::Tls(stream) => Stream::Tls(Box::new(stream.into_other(other))),
        }
    }

    /// Whether the socket took something of what TLS gave it since the last call. Without TLS each
    /// write says what it took.
    pub(crate) fn take_progress(&mut self) -> bool {
        match self {
            Stream::Plain(_) => false,
            #[cfg(feature = "tls")]
            Stream::Tls(stream) => stream.take_progress(),
        }
    }

    /// Says, where TLS can, that nothing more comes.
    pub(crate) fn send_close_notify(&mut self) {
        match self {
            Stream::Plain(_) => {}
            #[cfg(feature = "tls")]
            Stream::Tls(stream) => stream.send_close_notify(),
        }
    }
}

impl<S: Read + Write> Read for Stream<S> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Plain(socket) => socket.read(into),
            #[cfg(feature = "tls")]
            Stream::Tls(stream) => stream.read(into),
        }
    }
}

impl<S: Read + Write> Write for Stream<S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Plain(socket) => socket.write(bytes),
            #[cfg(feature = "tls")]
            Stream::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Stream::Plain(socket) => socket.flush(),
            #[cfg(feature = "tls")]
            Stream::Tls(stream) => stream.flush(),
        }
    }
}

impl From<mio::net::TcpStream> for Stream<mio::net::TcpStream> {
    fn from(socket: mio::net::TcpStream) -> Self {
        Stream::Plain(socket)
    }
}
