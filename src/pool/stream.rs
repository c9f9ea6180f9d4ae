//! A connection's socket, as it is or with TLS on it.

use std::{
    io::{self, IoSlice, Read, Write},
    sync::Arc,
};

use super::{
    costs::BYTES_PER_COST,
    event_stream::EventStream,
    memory::MemorySocket,
    socket::{Received, Socket},
    tls::{TlsCx, TlsStream},
};
use crate::tls::Tls;

/// What a connection reads from and writes to, without ever blocking.
pub(super) enum Stream {
    Plain(Socket),
    Tls(Box<TlsStream>),
    /// Its client has no WebSocket.
    Events(Box<Events>),
}

/// A stream that carries events.
pub(super) struct Events {
    stream: Stream,
    events: EventStream,
}

impl Stream {
    /// A fresh socket, with TLS on it if the server has TLS: at once, or, if there is a preamble,
    /// from [`begin_tls`](Stream::begin_tls) on.
    pub(super) fn new(
        socket: Socket,
        tls: Option<&Arc<Tls>>,
        has_preamble: bool,
    ) -> io::Result<Stream> {
        match tls {
            None => Ok(Stream::Plain(socket)),
            Some(tls) => Ok(Stream::Tls(Box::new(TlsStream::new(socket, tls, has_preamble)?))),
        }
    }

    /// Begins TLS, where there is TLS, with `rest`, which came behind the preamble. Returns how
    /// much of it was taken, or `Err` if it is more than can be the beginning of TLS.
    pub(super) fn begin_tls(&mut self, rest: &[u8]) -> Result<usize, ()> {
        match self {
            Stream::Plain(_) => Ok(0),
            Stream::Tls(stream) => stream.begin(rest).map(|()| rest.len()),
            // Its request came already.
            Stream::Events(_) => Ok(0),
        }
    }

    /// Whether there is TLS on it.
    pub(super) fn is_tls(&self) -> bool {
        match self {
            Stream::Plain(_) => false,
            Stream::Tls(_) => true,
            Stream::Events(of) => of.stream.is_tls(),
        }
    }

    /// Goes on as one that carries events.
    pub(super) fn begin_events(&mut self, events: EventStream) {
        let nowhere = Stream::Plain(Socket::Memory(MemorySocket(Arc::default())));
        let stream = std::mem::replace(self, nowhere);
        *self = Stream::Events(Box::new(Events { stream, events }));
    }

    /// What makes the events, if it carries events.
    pub(super) fn events(&mut self) -> Option<&mut EventStream> {
        match self {
            Stream::Plain(_) | Stream::Tls(_) => None,
            Stream::Events(of) => Some(&mut of.events),
        }
    }

    /// Whether its client has no WebSocket.
    #[inline]
    pub(super) fn is_of_events(&self) -> bool {
        matches!(self, Stream::Events(_))
    }

    /// Reads once. `into` is the worker's buffer; what came is at its front.
    #[inline(always)]
    pub(super) fn read(&mut self, into: &mut [u8], cx: &mut TlsCx) -> io::Result<Received> {
        match self {
            Stream::Plain(socket) => match socket.read(into)? {
                0 => Ok(Received::End),
                bytes => Ok(Received::Bytes { bytes, was_short: bytes < into.len() }),
            },
            Stream::Tls(stream) => stream.read(into, cx),
            Stream::Events(of) => of.read(into, cx),
        }
    }

    /// Writes once.
    pub(super) fn write(&mut self, slices: &[IoSlice<'_>], cx: &mut TlsCx) -> io::Result<usize> {
        match self {
            Stream::Plain(socket) => socket.write_vectored(slices),
            Stream::Tls(stream) => stream.write(slices, cx),
            Stream::Events(of) => of.write(slices, cx),
        }
    }

    /// Ends our direction: the peer reads what was written, and then the end.
    pub(super) fn end(&mut self, cx: &mut TlsCx) -> io::Result<()> {
        match self {
            Stream::Plain(socket) => socket.end(),
            Stream::Tls(stream) => stream.end(cx),
            Stream::Events(of) => of.stream.end(cx),
        }
    }

    /// Says, where TLS can, that what was written is all.
    pub(super) fn close_notify(&mut self, cx: &mut TlsCx) {
        match self {
            Stream::Plain(_) => {}
            Stream::Tls(stream) => stream.close_notify(cx),
            Stream::Events(of) => of.stream.close_notify(cx),
        }
    }

    /// Whether a handshake must come to its end before anything can be said.
    pub(super) fn is_handshaking(&self) -> bool {
        matches!(self, Stream::Tls(stream) if stream.is_handshaking())
    }

    /// Whether the keys of TLS serve for little more than one answer, and cannot be changed.
    pub(super) fn is_worn(&self) -> bool {
        match self {
            Stream::Plain(_) => false,
            Stream::Tls(stream) => stream.is_worn(),
            Stream::Events(of) => of.stream.is_worn(),
        }
    }

    /// Counts a handshake that will not come to its end.
    pub(super) fn count_failed(&mut self, cx: &TlsCx) {
        if let Stream::Tls(stream) = self {
            stream.count_failed(cx);
        }
    }

    /// Whether bytes that were written wait for the kernel here.
    #[inline]
    pub(super) fn has_unsent(&self) -> bool {
        match self {
            Stream::Plain(_) => false,
            Stream::Tls(stream) => stream.has_unsent(),
            Stream::Events(of) => of.has_unsent(),
        }
    }

    /// Bytes that TLS takes, without those that wait for the kernel.
    #[inline]
    pub(super) fn held_bytes(&self) -> usize {
        match self {
            Stream::Plain(_) => 0,
            Stream::Tls(stream) => stream.held_bytes(),
            Stream::Events(of) => of.held_bytes(),
        }
    }

    /// Bytes that take what waits for the kernel here.
    #[inline]
    pub(super) fn unsent_bytes(&self) -> usize {
        match self {
            Stream::Plain(_) => 0,
            Stream::Tls(stream) => stream.unsent_bytes(),
            Stream::Events(of) => of.unsent_bytes(),
        }
    }

    /// Whether the kernel took something since the last call.
    pub(super) fn take_progress(&mut self) -> bool {
        match self {
            Stream::Plain(_) => false,
            Stream::Tls(stream) => stream.take_progress(),
            // Both are asked.
            Stream::Events(of) => of.events.take_progress() | of.stream.take_progress(),
        }
    }

    /// Whether the keys of TLS are worn, and that was not told yet.
    pub(super) fn take_is_worn(&mut self) -> bool {
        match self {
            Stream::Plain(_) => false,
            Stream::Tls(stream) => stream.take_is_worn(),
            Stream::Events(of) => of.stream.take_is_worn(),
        }
    }

    /// Gives the kernel what waits here. `WouldBlock` if it does not take all.
    pub(super) fn flush(&mut self, cx: &mut TlsCx) -> io::Result<()> {
        match self {
            Stream::Plain(_) => Ok(()),
            Stream::Tls(stream) => stream.flush(),
            Stream::Events(of) => of.events.flush(&mut StreamWriter { stream: &mut of.stream, cx }),
        }
    }
}

// Out of the way of WebSockets, and so that the stream below is no part of its own functions.
impl Events {
    /// Reads once. What follows the request on its connection is of no use, but its end is.
    #[cold]
    #[inline(never)]
    fn read(&mut self, into: &mut [u8], cx: &mut TlsCx) -> io::Result<Received> {
        match self.stream.read(into, cx)? {
            Received::Bytes { bytes, was_short } => {
                Ok(Received::Nothing { was_short, cost: 1 + bytes / BYTES_PER_COST })
            }
            other => Ok(other),
        }
    }

    #[cold]
    #[inline(never)]
    fn write(&mut self, slices: &[IoSlice<'_>], cx: &mut TlsCx) -> io::Result<usize> {
        self.events.write(slices, &mut StreamWriter { stream: &mut self.stream, cx })
    }

    #[cold]
    #[inline(never)]
    fn has_unsent(&self) -> bool {
        self.events.has_unsent() || self.stream.has_unsent()
    }

    #[cold]
    #[inline(never)]
    fn held_bytes(&self) -> usize {
        size_of::<Events>() + self.stream.held_bytes()
    }

    #[cold]
    #[inline(never)]
    fn unsent_bytes(&self) -> usize {
        self.events.unsent_bytes() + self.stream.unsent_bytes()
    }
}

/// Writes to a stream, with what its worker lends.
pub(super) struct StreamWriter<'s> {
    pub(super) stream: &'s mut Stream,
    pub(super) cx: &'s mut TlsCx,
}

impl Write for StreamWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.write(&[IoSlice::new(bytes)], self.cx)
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.stream.write(slices, self.cx)
    }

    /// Gives the kernel what waits in the stream. `WouldBlock` if it does not take all.
    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush(self.cx)
    }
}
