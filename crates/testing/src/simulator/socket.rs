//! A client's end of a connection: bytes that are held back, windows that are small, frames that
//! come out.

use std::collections::VecDeque;

use rusty_socks::stepped::MemoryClient;
use rusty_socks_ws::{
    decoder::{Event, ProtocolConfig},
    encode::{Kind, encode_message},
    endpoint::Endpoint,
};
use tungstenite::protocol::Role;

use crate::frames::{CLOSE, client_frame, upgrade};

/// The longest answer that a client takes, in bytes.
const MESSAGE_BYTES_MAX: usize = 16 << 20;

const CLIENT: ProtocolConfig =
    ProtocolConfig { role: Role::Client, message_bytes_max: MESSAGE_BYTES_MAX };

/// What came.
#[derive(Debug, PartialEq, Eq)]
pub enum Heard {
    /// The head of the answer to the upgrade: its status.
    Status(u16),
    /// A text message.
    Text(String),
    /// The server's Close: its code.
    Close(u16),
    /// The server broke the protocol.
    Broken(String),
    /// The connection is over.
    End,
}

/// A connection as its client sees it.
pub struct Socket {
    wire: MemoryClient,
    phase: Phase,
    /// Written by the client, and not yet on its way.
    held: VecDeque<u8>,
    /// What the network holds of the server's bytes; without it there is no bound.
    window: Option<usize>,
    /// Messages whose last byte was given to the server.
    pub messages_sent: u64,
    /// Where in the stream each message that is held back ends.
    ends: VecDeque<u64>,
    written: u64,
    queued: u64,
}

enum Phase {
    Head(Vec<u8>),
    Open(Box<Endpoint>),
    Over,
}

impl Socket {
    /// A connection on which the client has said nothing yet.
    pub fn new(wire: MemoryClient) -> Socket {
        Socket {
            wire,
            phase: Phase::Head(Vec::new()),
            held: VecDeque::new(),
            window: None,
            messages_sent: 0,
            ends: VecDeque::new(),
            written: 0,
            queued: 0,
        }
    }

    /// Queues an upgrade to the chat protocol, from a page of an `origin` and with a token, if any.
    pub fn upgrade(&mut self, origin: Option<&str>, token: Option<&str>) {
        let mut lines = "Sec-WebSocket-Protocol: rusty-socks.v1\r\n".to_owned();
        if let Some(origin) = origin {
            lines.push_str(&format!("Origin: {origin}\r\n"));
        }
        if let Some(token) = token {
            lines.push_str(&format!("Authorization: Bearer {token}\r\n"));
        }
        self.write(upgrade("/ws", &lines).as_bytes());
    }

    /// Queues a text message.
    pub fn send(&mut self, text: &str) {
        let mut frame = Vec::new();
        encode_message(&mut frame, Kind::Text, text.as_bytes(), Role::Client);
        self.write(&frame);
        self.ends.push_back(self.queued);
    }

    /// Queues a Close.
    pub fn close(&mut self, code: u16) {
        self.write(&client_frame(CLOSE, &code.to_be_bytes()));
    }

    fn write(&mut self, bytes: &[u8]) {
        self.held.extend(bytes);
        self.queued += bytes.len() as u64;
    }

    /// Gives the server at most `max` of the bytes that are held back.
    pub fn flush(&mut self, max: usize) {
        if self.held.is_empty() {
            return;
        }
        let n = max.min(self.held.len());
        let bytes: Vec<u8> = self.held.drain(..n).collect();
        self.wire.write(&bytes);
        self.written += n as u64;
        while self.ends.front().is_some_and(|end| *end <= self.written) {
            self.ends.pop_front();
            self.messages_sent += 1;
        }
    }

    /// Whether the client has bytes that the server was not given.
    pub fn holds_back(&self) -> bool {
        !self.held.is_empty()
    }

    /// Lets the network hold at most so many bytes for the client, or any number.
    pub fn set_window(&mut self, window: Option<usize>) {
        self.window = window;
        self.wire.set_window(window.unwrap_or(usize::MAX));
    }

    /// Whether the network holds little for the client.
    pub fn is_slow(&self) -> bool {
        self.window.is_some()
    }

    /// Whether the upgrade is not answered yet.
    pub fn is_in_head(&self) -> bool {
        matches!(self.phase, Phase::Head(_))
    }

    /// Whether messages can be sent.
    pub fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Open(_)) && !self.wire.is_ended()
    }

    /// Whether the server has ended the connection, read or not.
    pub fn is_ended(&self) -> bool {
        self.wire.is_ended()
    }

    /// Cuts the connection.
    pub fn reset(&mut self) {
        self.wire.reset();
        self.phase = Phase::Over;
    }

    /// Reads what has come.
    pub fn read(&mut self) -> Vec<Heard> {
        let mut heard = Vec::new();
        let was_ended = self.wire.is_ended();
        let mut bytes = self.wire.read();
        if let Some(window) = self.window
            && !bytes.is_empty()
        {
            self.wire.set_window(window);
        }
        if let Phase::Head(head) = &mut self.phase {
            head.append(&mut bytes);
            if let Some(end) = head.windows(4).position(|four| four == b"\r\n\r\n") {
                bytes = head.split_off(end + 4);
                let digits = head.get(9..12).and_then(|digits| std::str::from_utf8(digits).ok());
                let status = digits.and_then(|digits| digits.parse().ok()).unwrap_or(0);
                heard.push(Heard::Status(status));
                self.phase = match status {
                    101 => Phase::Open(Box::default()),
                    _ => Phase::Over,
                };
            }
        }
        if let Phase::Open(endpoint) = &mut self.phase {
            let (mut rest, mut out) = (&mut bytes[..], Vec::new());
            loop {
                match endpoint.next(&mut rest, &mut out, &CLIENT, None) {
                    Event::Message(message) => match message.message().as_text() {
                        Some(text) => heard.push(Heard::Text(text.to_owned())),
                        None => heard.push(Heard::Broken("a binary message".to_owned())),
                    },
                    Event::Ping(_) | Event::Pong(_) => {}
                    Event::Close(reason) => heard.push(Heard::Close(reason.code())),
                    Event::Failed(reason) => {
                        heard.push(Heard::Broken(format!("broken frames: {reason:?}")));
                    }
                    Event::NeedMore => break,
                }
            }
            if !out.is_empty() {
                self.write(&out);
                self.flush(usize::MAX);
            }
        }
        if was_ended && !matches!(self.phase, Phase::Over) {
            self.phase = Phase::Over;
            heard.push(Heard::End);
        }
        heard
    }
}
