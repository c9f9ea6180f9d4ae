//! One connection in use: what waits to be written, and the replies that come.

use std::io::{self, Read, Write};

use bytes::{Buf, Bytes, BytesMut};
use mio::{Registry, Token, event::Event};

use super::{
    order::{Refused, Value},
    stream::{Blocking, Stream, Watched},
    wire::{self, Replies},
};

/// How much is read from one connection in one go, in bytes, before the other has its turn.
const READ_BYTES_MAX: usize = 1 << 20;

/// The largest empty buffer that is kept for later, in bytes.
const KEPT_BYTES_MAX: usize = 1 << 20;

/// One connection in use.
#[derive(Debug)]
pub(super) struct Pipe {
    stream: Stream<Watched>,
    out: BytesMut,
    replies: Replies,
    is_readable: bool,
    is_writable: bool,
    /// Why nothing more comes.
    ended: Option<String>,
}

impl Pipe {
    pub(super) fn new(
        stream: Stream<Blocking>,
        registry: &Registry,
        token: Token,
    ) -> io::Result<Pipe> {
        Ok(Pipe {
            stream: stream.watched(registry, token)?,
            out: BytesMut::new(),
            replies: Replies::default(),
            is_readable: true,
            is_writable: true,
            ended: None,
        })
    }

    /// Queues a command, whose name comes first.
    pub(super) fn push(&mut self, parts: impl IntoIterator<Item = Bytes>) {
        wire::encode(&mut self.out, parts);
    }

    pub(super) fn unsent_bytes(&self) -> usize {
        self.out.len()
    }

    /// Notes what the poll says.
    pub(super) fn on_ready(&mut self, event: &Event) {
        self.is_readable |= event.is_readable() || event.is_read_closed() || event.is_error();
        self.is_writable |= event.is_writable() || event.is_write_closed() || event.is_error();
    }

    /// Whether more can be read at once.
    pub(super) fn is_readable(&self) -> bool {
        self.is_readable
    }

    /// Why nothing more comes. The replies before that are still there.
    pub(super) fn ended(&self) -> Option<&str> {
        self.ended.as_deref()
    }

    /// Writes what waits, as much as the socket takes.
    pub(super) fn flush(&mut self) {
        while self.is_writable && self.ended.is_none() {
            let outcome = match self.out.is_empty() {
                true => return self.flush_tls(),
                false => self.stream.write(&self.out),
            };
            match outcome {
                Ok(taken) => self.out.advance(taken),
                Err(error) => self.on_write_error(&error),
            }
        }
    }

    fn flush_tls(&mut self) {
        if self.out.capacity() > KEPT_BYTES_MAX {
            self.out = BytesMut::new();
        }
        if let Err(error) = self.stream.flush() {
            self.on_write_error(&error);
        }
    }

    fn on_write_error(&mut self, error: &io::Error) {
        match error.kind() {
            io::ErrorKind::WouldBlock => self.is_writable = false,
            io::ErrorKind::Interrupted => {}
            _ => {
                // What was said before that says more.
                self.is_readable = true;
                self.is_writable = false;
                self.ended = Some(error.to_string());
            }
        }
    }

    /// Reads what is there, a bounded part at a time.
    pub(super) fn read(&mut self, scratch: &mut [u8]) {
        let mut read = 0;
        while self.is_readable && read < READ_BYTES_MAX {
            match self.stream.read(scratch) {
                Ok(0) => self.end("it has closed the connection".to_owned()),
                Ok(count) => {
                    self.replies.push(&scratch[..count]);
                    read += count;
                }
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => self.is_readable = false,
                    io::ErrorKind::Interrupted => {}
                    _ => self.end(error.to_string()),
                },
            }
        }
    }

    /// Returns the next reply that was read.
    pub(super) fn reply(&mut self) -> Option<Result<Value, Refused>> {
        match self.replies.next() {
            Ok(reply) => reply,
            Err(why) => {
                self.end(why);
                None
            }
        }
    }

    fn end(&mut self, why: String) {
        self.is_readable = false;
        self.ended.get_or_insert(why);
    }

    pub(super) fn unwatch(&mut self, registry: &Registry) {
        // The socket is closed next, which ends it in any case.
        let _ = self.stream.unwatch(registry);
    }
}
