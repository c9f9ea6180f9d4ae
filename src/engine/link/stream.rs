//! A connection to a Redis: a socket, with TLS or without. It blocks while it is made, and does not
//! once it is used.

#[cfg(unix)]
use std::os::unix::net::UnixStream;
use std::{
    io::{self, Read, Write},
    net::TcpStream,
    time::Duration,
};

use mio::{Interest, Registry, Token};
use rustls::{ClientConnection, InvalidMessage};

/// A socket that blocks.
#[derive(Debug)]
pub(super) enum Blocking {
    Tcp(TcpStream),
    #[cfg(unix)]
    Unix(UnixStream),
}

/// A socket that a poll watches.
#[derive(Debug)]
pub(super) enum Watched {
    Tcp(mio::net::TcpStream),
    #[cfg(unix)]
    Unix(mio::net::UnixStream),
}

/// Does the same with either kind of socket.
macro_rules! with {
    ($socket:expr, $it:ident => $what:expr) => {
        match $socket {
            Self::Tcp($it) => $what,
            #[cfg(unix)]
            Self::Unix($it) => $what,
        }
    };
}

impl Blocking {
    /// Bounds each later read and write.
    fn set_timeout(&self, timeout: Duration) -> io::Result<()> {
        with!(self, socket => {
            socket.set_read_timeout(Some(timeout))?;
            socket.set_write_timeout(Some(timeout))
        })
    }

    fn watched(self) -> io::Result<Watched> {
        with!(&self, socket => socket.set_nonblocking(true))?;
        Ok(match self {
            Blocking::Tcp(socket) => Watched::Tcp(mio::net::TcpStream::from_std(socket)),
            #[cfg(unix)]
            Blocking::Unix(socket) => Watched::Unix(mio::net::UnixStream::from_std(socket)),
        })
    }
}

impl Read for Blocking {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        with!(self, socket => socket.read(into))
    }
}

impl Write for Blocking {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        with!(self, socket => socket.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for Watched {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        with!(self, socket => socket.read(into))
    }
}

impl Write for Watched {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        with!(self, socket => socket.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A socket, with TLS or without.
#[derive(Debug)]
pub(super) struct Stream<S> {
    socket: S,
    session: Option<Box<ClientConnection>>,
}

impl Stream<Blocking> {
    pub(super) fn new(socket: Blocking, session: Option<Box<ClientConnection>>) -> Self {
        Stream { socket, session }
    }

    pub(super) fn set_timeout(&self, timeout: Duration) -> io::Result<()> {
        self.socket.set_timeout(timeout)
    }

    /// Has `registry` watch the socket, which no longer blocks.
    pub(super) fn watched(self, registry: &Registry, token: Token) -> io::Result<Stream<Watched>> {
        let Stream { socket, session } = self;
        let mut socket = socket.watched()?;
        let interest = Interest::READABLE | Interest::WRITABLE;
        match &mut socket {
            Watched::Tcp(socket) => registry.register(socket, token, interest)?,
            #[cfg(unix)]
            Watched::Unix(socket) => registry.register(socket, token, interest)?,
        }
        Ok(Stream { socket, session })
    }
}

impl Stream<Watched> {
    pub(super) fn unwatch(&mut self, registry: &Registry) -> io::Result<()> {
        match &mut self.socket {
            Watched::Tcp(socket) => registry.deregister(socket),
            #[cfg(unix)]
            Watched::Unix(socket) => registry.deregister(socket),
        }
    }
}

impl<S: Read + Write> Stream<S> {
    pub(super) fn is_handshaking(&self) -> bool {
        self.session.as_ref().is_some_and(|session| session.is_handshaking())
    }

    /// Goes on with the handshake of TLS: says what is to be said, and reads once.
    pub(super) fn shake(&mut self) -> io::Result<()> {
        self.flush()?;
        let Some(session) = &mut self.session else { return Ok(()) };
        if session.read_tls(&mut self.socket)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let outcome = session.process_new_packets();
        // If it failed, this is the alert that says why; the socket may be gone.
        let flushed = self.flush();
        outcome.map_err(explained)?;
        flushed
    }
}

impl<S: Read + Write> Read for Stream<S> {
    /// Reads from the socket once at most. `Interrupted` if that was a part of something.
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let Some(session) = &mut self.session else { return self.socket.read(into) };
        match session.reader().read(into) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            outcome => return outcome,
        }
        if session.read_tls(&mut self.socket)? == 0 {
            return Ok(0);
        }
        if let Err(error) = session.process_new_packets() {
            // The alert that says why; the socket may be gone.
            let _ = session.write_tls(&mut self.socket);
            return Err(explained(error));
        }
        match session.reader().read(into) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                Err(io::ErrorKind::Interrupted.into())
            }
            outcome => outcome,
        }
    }
}

impl<S: Read + Write> Write for Stream<S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.flush()?;
        let Some(session) = &mut self.session else { return self.socket.write(bytes) };
        let taken = session.writer().write(bytes)?;
        match self.flush() {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
            _ => Ok(taken),
        }
    }

    /// Gives the socket what TLS has for it. `WouldBlock` if it does not take all.
    fn flush(&mut self) -> io::Result<()> {
        let Some(session) = &mut self.session else { return Ok(()) };
        while session.wants_write() {
            match session.write_tls(&mut self.socket) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                outcome => _ = outcome?,
            }
        }
        Ok(())
    }
}

fn explained(error: rustls::Error) -> io::Error {
    let text = match error {
        rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
            "it does not speak TLS: an address without TLS begins with redis://".to_owned()
        }
        error => format!("TLS: {error}"),
    };
    io::Error::new(io::ErrorKind::InvalidData, text)
}
