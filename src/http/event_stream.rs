//! Server-sent events (WHATWG HTML, 9.2): the frames of a WebSocket server put into events.

use std::io::{Cursor, Write as _};

use tungstenite::protocol::frame::{
    FrameHeader,
    coding::{Control, Data, OpCode},
};

use crate::ws::encode::HEADER_BYTES_MAX;

/// The content type of a stream of events.
pub(crate) const EVENT_STREAM: &str = "text/event-stream";

/// The longest payload of a control frame, in bytes (RFC 6455, 5.5).
const CONTROL_BYTES_MAX: usize = 125;

/// Puts unmasked frames, whole or in pieces, into events: a text message into one without a name, a
/// ping into `ping`, a Close into `closed`. A line break within a text begins another line of data,
/// and reaches the client as a line feed.
#[derive(Debug, Default)]
pub(crate) struct EventEncoder {
    state: State,
    /// A binary message was left out.
    has_left_out: bool,
}

#[derive(Debug, Default)]
enum State {
    /// A frame begins; a part of its header may be there.
    #[default]
    Between,
    Header(Vec<u8>),
    /// So many bytes of a text are due; `after_cr` if the last one was a carriage return.
    Text {
        due: usize,
        after_cr: bool,
    },
    /// So many bytes of a control frame are due.
    Control {
        control: Control,
        due: usize,
        payload: Vec<u8>,
    },
    /// So many bytes are left out.
    LeftOut {
        due: usize,
    },
}

impl EventEncoder {
    /// Appends the event that comes first: the name under which the client posts.
    pub(crate) fn begin(key: &str, out: &mut Vec<u8>) {
        append(out, "connection", &serde_json::json!({ "connection": key }));
    }

    /// Appends what these bytes of frames come to.
    pub(crate) fn encode(&mut self, mut frames: &[u8], out: &mut Vec<u8>) {
        while !frames.is_empty() {
            frames = self.step(frames, out);
        }
    }

    /// Whether all frames that it was given were whole.
    pub(crate) fn is_between(&self) -> bool {
        matches!(self.state, State::Between)
    }

    /// Whether a binary message was left out, which no event can carry.
    pub(crate) fn has_left_out(&self) -> bool {
        self.has_left_out
    }

    /// Uses a part of `frames`. Returns the rest.
    fn step<'f>(&mut self, frames: &'f [u8], out: &mut Vec<u8>) -> &'f [u8] {
        match &mut self.state {
            State::Between => match header(frames) {
                Some((opcode, len, used)) => {
                    self.begin_frame(opcode, len, out);
                    &frames[used..]
                }
                None => {
                    self.state = State::Header(frames.to_vec());
                    &[]
                }
            },
            State::Header(begun) => {
                let before = begun.len();
                let taken = frames.len().min(HEADER_BYTES_MAX - before);
                begun.extend_from_slice(&frames[..taken]);
                match header(begun) {
                    Some((opcode, len, used)) => {
                        self.begin_frame(opcode, len, out);
                        &frames[used - before..]
                    }
                    None => &frames[taken..],
                }
            }
            State::Text { due, after_cr } => {
                let (now, rest) = frames.split_at(frames.len().min(*due));
                *due -= now.len();
                append_data(now, after_cr, out);
                if *due == 0 {
                    out.extend_from_slice(b"\n\n");
                    self.state = State::Between;
                }
                rest
            }
            State::Control { control, due, payload } => {
                let (now, rest) = frames.split_at(frames.len().min(*due));
                *due -= now.len();
                payload.extend_from_slice(now);
                if *due == 0 {
                    append_control(*control, payload, out);
                    self.state = State::Between;
                }
                rest
            }
            State::LeftOut { due } => {
                let (now, rest) = frames.split_at(frames.len().min(*due));
                *due -= now.len();
                if *due == 0 {
                    self.state = State::Between;
                }
                rest
            }
        }
    }

    fn begin_frame(&mut self, opcode: OpCode, len: usize, out: &mut Vec<u8>) {
        self.state = match opcode {
            OpCode::Data(Data::Text) => {
                out.extend_from_slice(b"data: ");
                State::Text { due: len, after_cr: false }
            }
            OpCode::Control(control) => {
                let payload = Vec::with_capacity(len.min(CONTROL_BYTES_MAX));
                State::Control { control, due: len, payload }
            }
            OpCode::Data(_) => {
                self.has_left_out = true;
                State::LeftOut { due: len }
            }
        };
        if len == 0 {
            match std::mem::take(&mut self.state) {
                State::Text { .. } => out.extend_from_slice(b"\n\n"),
                State::Control { control, payload, .. } => append_control(control, &payload, out),
                State::Between | State::Header(_) | State::LeftOut { .. } => {}
            }
        }
    }
}

/// Reads the header of a frame: its opcode, the length of its payload, and its own. `None` while it
/// is not all there.
fn header(bytes: &[u8]) -> Option<(OpCode, usize, usize)> {
    let mut cursor = Cursor::new(bytes);
    // The server's own frames are legal.
    let (header, len) = FrameHeader::parse(&mut cursor).ok()??;
    Some((header.opcode, usize::try_from(len).ok()?, cursor.position() as usize))
}

/// Appends a part of a text. Each of LF, CR and CR LF ends a line.
fn append_data(text: &[u8], after_cr: &mut bool, out: &mut Vec<u8>) {
    let mut rest = text;
    while let Some(first) = rest.first() {
        if *first == b'\n' && std::mem::take(after_cr) {
            rest = &rest[1..];
            continue;
        }
        *after_cr = false;
        let is_break = |byte: &u8| matches!(byte, b'\n' | b'\r');
        let Some(at) = rest.iter().position(is_break) else {
            return out.extend_from_slice(rest);
        };
        out.extend_from_slice(&rest[..at]);
        out.extend_from_slice(b"\ndata: ");
        *after_cr = rest[at] == b'\r';
        rest = &rest[at + 1..];
    }
}

fn append_control(control: Control, payload: &[u8], out: &mut Vec<u8>) {
    match control {
        Control::Ping => append(out, "ping", &serde_json::json!({})),
        Control::Close => {
            let code = payload.first_chunk().map_or(1005, |code| u16::from_be_bytes(*code));
            let reason = String::from_utf8_lossy(payload.get(2..).unwrap_or_default());
            append(out, "closed", &serde_json::json!({ "code": code, "reason": reason }));
        }
        // A pong answers a ping that no client of this kind can send.
        Control::Pong | Control::Reserved(_) => {}
    }
}

fn append(out: &mut Vec<u8>, name: &str, data: &serde_json::Value) {
    // Writing to a Vec cannot fail.
    let _ = write!(out, "event: {name}\ndata: {data}\n\n");
}

#[cfg(test)]
mod tests {
    use tungstenite::protocol::Role;

    use super::*;
    use crate::ws::encode::{Kind, encode_control, encode_message};

    fn encoded(frames: &[u8], piece: usize) -> String {
        let (mut encoder, mut out) = (EventEncoder::default(), Vec::new());
        frames.chunks(piece).for_each(|piece| encoder.encode(piece, &mut out));
        String::from_utf8(out).expect("UTF-8")
    }

    #[test]
    fn frames_become_events_however_they_are_cut() {
        let mut frames = Vec::new();
        let long = "x".repeat(70_000);
        for text in ["{}", "", "a\nb\r\nc\rd\n", "\r\n\r\n", &"y".repeat(200), &long] {
            encode_message(&mut frames, Kind::Text, text.as_bytes(), Role::Server);
        }
        encode_control(&mut frames, Control::Ping, b"", Role::Server);
        encode_control(&mut frames, Control::Pong, b"what was pinged", Role::Server);
        let close = [&4102_u16.to_be_bytes()[..], "a \"slow\" client".as_bytes()].concat();
        encode_control(&mut frames, Control::Close, &close, Role::Server);
        encode_control(&mut frames, Control::Close, b"", Role::Server);
        let expected = format!(
            "data: {{}}\n\ndata: \n\ndata: a\ndata: b\ndata: c\ndata: d\ndata: \n\n\
             data: \ndata: \ndata: \n\ndata: {}\n\ndata: {long}\n\n\
             event: ping\ndata: {{}}\n\n\
             event: closed\ndata: {{\"code\":4102,\"reason\":\"a \\\"slow\\\" client\"}}\n\n\
             event: closed\ndata: {{\"code\":1005,\"reason\":\"\"}}\n\n",
            "y".repeat(200),
        );
        for piece in [1, 2, 3, 7, 1000, frames.len()] {
            assert_eq!(encoded(&frames, piece), expected, "in pieces of {piece}");
        }
    }

    #[test]
    fn a_binary_message_is_left_out_and_noticed() {
        let (mut encoder, mut out, mut frames) = (EventEncoder::default(), Vec::new(), Vec::new());
        encode_message(&mut frames, Kind::Text, b"before", Role::Server);
        encoder.encode(&frames, &mut out);
        assert!(!encoder.has_left_out());
        frames.clear();
        encode_message(&mut frames, Kind::Binary, &[0; 300], Role::Server);
        encode_message(&mut frames, Kind::Text, b"after", Role::Server);
        encoder.encode(&frames, &mut out);
        assert!(encoder.has_left_out());
        assert_eq!(out, b"data: before\n\ndata: after\n\n");
    }
}
