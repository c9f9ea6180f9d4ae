//! A client's bytes to messages.

use std::hint::black_box;

use tungstenite::protocol::Role;

use super::{BINARY, COMMAND, Path, Round, TEXT, client_frame};
use crate::ws::{
    decoder::{Event, ProtocolConfig},
    endpoint::Endpoint,
};

pub(super) const SMALL_TEXT: Path = Path {
    name: "codec.small_text",
    unit: "message of 190 bytes",
    units: SMALL,
    open: || many(TEXT),
};

pub(super) const SMALL_BINARY: Path = Path {
    name: "codec.small_binary",
    unit: "message of 190 bytes",
    units: SMALL,
    open: || many(BINARY),
};

pub(super) const LARGE_TEXT: Path = Path {
    name: "codec.large_text",
    unit: "message of 48 KiB",
    units: LARGE,
    open: || Box::new(Stream::new(&large(TEXT).repeat(LARGE as usize), usize::MAX)),
};

pub(super) const LARGE_BINARY: Path = Path {
    name: "codec.large_binary",
    unit: "message of 48 KiB",
    units: LARGE,
    open: || Box::new(Stream::new(&large(BINARY).repeat(LARGE as usize), usize::MAX)),
};

/// As a slow network brings it.
pub(super) const PIECES: Path = Path {
    name: "codec.pieces",
    unit: "message of 48 KiB in packets",
    units: 1,
    open: || Box::new(Stream::new(&large(TEXT), PACKET_BYTES)),
};

/// As many messages as one read of the worker's buffer brings.
const SMALL: u64 = 256;
const LARGE: u64 = 2;

const LARGE_BYTES: usize = 48 << 10;

/// What one packet of Ethernet carries of a TCP stream.
const PACKET_BYTES: usize = 1448;

fn many(first: u8) -> Box<dyn Round> {
    let frame = client_frame(first, COMMAND.as_bytes());
    Box::new(Stream::new(&frame.repeat(SMALL as usize), usize::MAX))
}

/// Mostly ASCII, as people write, and a letter now and then that is not.
fn large(first: u8) -> Vec<u8> {
    let text = "It was a dark and stormy night; the rain fell in torrents in Gr\u{fc}nau. ";
    let mut payload = text.repeat(LARGE_BYTES / text.len()).into_bytes();
    payload.resize(LARGE_BYTES, b'.');
    client_frame(first, &payload)
}

struct Stream {
    sent: Vec<u8>,
    /// The same as it was read; the decoder writes over it.
    read: Vec<u8>,
    /// How many of them come at a time.
    step: usize,
    endpoint: Endpoint,
    config: ProtocolConfig,
    out: Vec<u8>,
    messages: u64,
}

impl Stream {
    fn new(bytes: &[u8], step: usize) -> Stream {
        let config = ProtocolConfig { role: Role::Server, message_bytes_max: 64 << 10 };
        let (endpoint, out) = (Endpoint::default(), Vec::new());
        Stream { sent: bytes.to_vec(), read: Vec::new(), step, endpoint, config, out, messages: 0 }
    }
}

impl Round for Stream {
    fn lay_out(&mut self) {
        self.read.clone_from(&self.sent);
    }

    fn play(&mut self) {
        let Stream { read, step, endpoint, config, out, messages, .. } = self;
        for mut piece in read.chunks_mut(*step) {
            loop {
                match endpoint.next(&mut piece, out, config, None) {
                    Event::Message(message) => {
                        black_box(message.message());
                        *messages += 1;
                    }
                    Event::NeedMore => break,
                    Event::Ping(_) | Event::Pong | Event::Close(_) | Event::Failed(_) => return,
                }
            }
        }
    }

    fn done(&mut self) -> u64 {
        std::mem::take(&mut self.messages)
    }
}
