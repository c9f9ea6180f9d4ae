//! One connection to the server under load, from its dial to the last byte.

use std::io::{ErrorKind, Read, Write};
use std::time::Instant;

use anyhow::{Context, bail};
use mio::net::TcpStream;
use rusty_socks_load::{Ending, Failure, Handshake, Incoming, WebSocket, dial};
use rusty_socks_ws::client_handshake::ClientRequest;
use rusty_socks_ws::encode::{Kind, encode_message};
use tokio_tungstenite::tungstenite::protocol::Role;

use crate::target::Target;

/// What is spoken on a link.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Wire {
    /// Starts with a handshake.
    WebSocket,
    /// Bytes alone; `size` of them are a message.
    Tcp { size: usize },
}

pub(crate) enum Link {
    /// Dialed then, and without an answer yet.
    Asking(Box<Handshake>, Instant),
    WebSocket(Box<WebSocket>),
    Tcp(Tcp),
}

/// A connection without a protocol.
pub(crate) struct Tcp {
    stream: TcpStream,
    /// When it was dialed, until it is connected.
    asked_at: Option<Instant>,
    size: usize,
    /// The message that is not whole.
    partial: Vec<u8>,
    /// Bytes that the socket has not taken yet.
    outbox: Vec<u8>,
}

/// What became of a link in one step.
#[derive(Default)]
pub(crate) struct Drained {
    pub(crate) bytes: usize,
    pub(crate) messages: usize,
    /// How the server ended the connection, if it did.
    pub(crate) ended: Option<Ending>,
}

/// A text message as a client sends it.
pub(crate) fn client_text(text: &str) -> Vec<u8> {
    client_frame(Kind::Text, text.as_bytes())
}

/// A message as a client sends it, encoded once: that all copies have one mask does not change the
/// server's work.
pub(crate) fn client_frame(kind: Kind, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    encode_message(&mut frame, kind, payload, Role::Client);
    frame
}

impl Link {
    /// Dials connection number `index` from 0.
    pub(crate) fn dial(
        target: &Target,
        wire: Wire,
        request: &ClientRequest,
        index: usize,
    ) -> Result<Self, Failure> {
        let asked_at = Instant::now();
        let stream =
            dial(target.address, target.source(index)).map_err(|error| Failure::of_dial(&error))?;
        Ok(match wire {
            Wire::WebSocket => Self::Asking(Box::new(Handshake::new(stream, request)), asked_at),
            Wire::Tcp { size } => {
                let asked_at = Some(asked_at);
                Self::Tcp(Tcp { stream, asked_at, size, partial: Vec::new(), outbox: Vec::new() })
            }
        })
    }

    pub(crate) fn stream(&mut self) -> &mut TcpStream {
        match self {
            Self::Asking(handshake, _) => &mut handshake.stream,
            Self::WebSocket(socket) => socket.stream(),
            Self::Tcp(tcp) => &mut tcp.stream,
        }
    }

    pub(crate) fn is_open(&self) -> bool {
        match self {
            Self::Asking(..) => false,
            Self::WebSocket(_) => true,
            Self::Tcp(tcp) => tcp.asked_at.is_none(),
        }
    }

    /// Goes on with the opening; when it was dialed, if it is open now.
    pub(crate) fn opened(self, buffer: &mut [u8]) -> anyhow::Result<(Self, Option<Instant>)> {
        match self {
            Self::Asking(mut handshake, asked_at) => {
                let Some(answer) = handshake.step(buffer)? else {
                    return Ok((Self::Asking(handshake, asked_at), None));
                };
                if answer.status != 101 {
                    let body = String::from_utf8_lossy(&answer.rest);
                    bail!("the upgrade was rejected: {} {body}", answer.status);
                }
                let socket = WebSocket::new(handshake.stream, answer.rest);
                Ok((Self::WebSocket(Box::new(socket)), Some(asked_at)))
            }
            Self::Tcp(mut tcp) => {
                if let Some(error) = tcp.stream.take_error()? {
                    return Err(Failure::of_dial(&error).into());
                }
                let is_connected = tcp.stream.peer_addr().is_ok();
                let asked_at = if is_connected { tcp.asked_at.take() } else { None };
                if is_connected {
                    tcp.stream.set_nodelay(true)?;
                }
                Ok((Self::Tcp(tcp), asked_at))
            }
            Self::WebSocket(_) => Ok((self, None)),
        }
    }

    /// Reads until the socket is empty and sends what waits. Pings are answered here; messages go
    /// to `on_message`. `to_the_end` as in [`WebSocket::step`].
    pub(crate) fn step(
        &mut self,
        buffer: &mut [u8],
        to_the_end: bool,
        mut on_message: impl FnMut(&[u8]) -> anyhow::Result<()>,
    ) -> anyhow::Result<Drained> {
        let mut drained = Drained::default();
        match self {
            Self::Asking(..) => {}
            Self::WebSocket(socket) => {
                let mut result = Ok(());
                drained.bytes = socket.step(buffer, to_the_end, |incoming, _| {
                    if let Incoming::Message(message) = incoming {
                        drained.messages += 1;
                        if result.is_ok() {
                            result = on_message(message.as_bytes());
                        }
                    }
                });
                result?;
                drained.ended = socket.take_ending();
            }
            Self::Tcp(tcp) => tcp.step(buffer, to_the_end, &mut drained, on_message)?,
        }
        Ok(drained)
    }

    /// Sends these frames, as far as the socket takes them; the rest follows in later steps.
    pub(crate) fn send(&mut self, frames: &[u8]) -> anyhow::Result<()> {
        match self {
            Self::Asking(..) => bail!("a message before the connection is open"),
            Self::WebSocket(socket) => {
                socket.send_encoded(frames);
                Ok(())
            }
            Self::Tcp(tcp) => {
                tcp.outbox.extend_from_slice(frames);
                tcp.flush()
            }
        }
    }
}

impl Tcp {
    fn step(
        &mut self,
        buffer: &mut [u8],
        to_the_end: bool,
        drained: &mut Drained,
        mut on_message: impl FnMut(&[u8]) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        loop {
            let n = match self.stream.read(buffer) {
                Ok(n) if n > 0 => n,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) if error.kind() != ErrorKind::ConnectionReset => {
                    return Err(error).context("cannot read from the server");
                }
                // The end of the stream, or a reset.
                Ok(_) | Err(_) => {
                    drained.ended = Some(Ending::NoClose);
                    return Ok(());
                }
            };
            drained.bytes += n;
            cut(&mut self.partial, self.size, &buffer[..n], |message| {
                drained.messages += 1;
                on_message(message)
            })?;
            if n < buffer.len() && !to_the_end {
                break;
            }
        }
        self.flush()
    }

    fn flush(&mut self) -> anyhow::Result<()> {
        let mut sent = 0;
        while sent < self.outbox.len() {
            match self.stream.write(&self.outbox[sent..]) {
                Ok(n) => sent += n,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error).context("cannot write to the server"),
            }
        }
        self.outbox.drain(..sent);
        Ok(())
    }
}

/// Cuts a stream into messages of `size` bytes; what is left over stays in `partial`.
fn cut(
    partial: &mut Vec<u8>,
    size: usize,
    mut bytes: &[u8],
    mut on_message: impl FnMut(&[u8]) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    while !bytes.is_empty() {
        let (part, rest) = bytes.split_at(bytes.len().min(size - partial.len()));
        bytes = rest;
        if part.len() == size {
            on_message(part)?;
            continue;
        }
        partial.extend_from_slice(part);
        if partial.len() == size {
            on_message(partial)?;
            partial.clear();
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_cut_by_size() {
        let (mut partial, mut messages) = (Vec::new(), Vec::new());
        for part in ["abcde", "fghij", "k", "lmnopqrstuvwxyz01234", "5678"] {
            cut(&mut partial, 10, part.as_bytes(), |message| {
                messages.push(String::from_utf8_lossy(message).into_owned());
                Ok(())
            })
            .unwrap();
        }
        assert_eq!(messages, ["abcdefghij", "klmnopqrst", "uvwxyz0123"]);
        assert_eq!(partial, b"45678");
    }
}
