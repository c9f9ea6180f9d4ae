//! One connection to the server under load, from its dial until it is open, and what is sent on it.

use std::time::Instant;

use anyhow::{Result, bail};
use mio::net::TcpStream;
use rusty_socks_load::{Failure, Handshake, WebSocket, dial};
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
    /// Dialed then, and not open yet.
    Opening(Box<Handshake>, Instant),
    Open(Box<WebSocket>),
    /// By the server.
    Ended,
}

impl Link {
    /// Dials connection number `index` from 0.
    pub(crate) fn dial(
        target: &Target,
        request: &ClientRequest,
        index: usize,
    ) -> Result<Self, Failure> {
        let dialed_at = Instant::now();
        let stream =
            dial(target.address, target.source(index)).map_err(|error| Failure::of_dial(&error))?;
        Ok(Self::Opening(Box::new(Handshake::new(stream, request)), dialed_at))
    }

    /// The socket, until it is open.
    pub(crate) fn stream(&mut self) -> Option<&mut TcpStream> {
        match self {
            Self::Opening(handshake, _) => Some(handshake.stream.socket_mut()),
            Self::Open(_) | Self::Ended => None,
        }
    }

    /// Goes on with the opening.
    pub(crate) fn advance(self, wire: Wire, buffer: &mut [u8]) -> Result<Self> {
        let Self::Opening(mut handshake, dialed_at) = self else { return Ok(self) };
        Ok(match wire {
            Wire::Tcp { size } if handshake.connect()? => {
                Self::Open(Box::new(WebSocket::raw(handshake.stream, size)))
            }
            Wire::Tcp { .. } => Self::Opening(handshake, dialed_at),
            Wire::WebSocket => match handshake.step(buffer)? {
                None => Self::Opening(handshake, dialed_at),
                Some(answer) if answer.status == 101 => {
                    Self::Open(Box::new(WebSocket::new(handshake.stream, answer.rest)))
                }
                Some(answer) => {
                    let body = String::from_utf8_lossy(&answer.rest);
                    bail!("the upgrade was rejected: {} {body}", answer.status)
                }
            },
        })
    }
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
