//! Frame streams through an endpoint, with and without compression.

use std::io::Cursor;

use tungstenite::protocol::{
    Role,
    frame::{
        FrameHeader,
        coding::{Control, Data, OpCode},
    },
};

use rusty_socks_ws::{
    close::CloseReason,
    decoder::{Event, ProtocolConfig},
    deflate::{Deflate, Deflaters, Inflater},
    encode::{Kind, apply_mask, encode_frame},
    endpoint::Endpoint,
    extension::{Agreement, Takeover, negotiate},
};

/// The longest message in these streams, in bytes; small, so that streams reach the limit.
pub const MESSAGE_BYTES_MAX: usize = 1000;

/// Fuzzes a frame stream through an endpoint, with and without compression: the output depends
/// neither on how the stream is cut, nor on other users of the inflater.
///
/// The first byte selects the role and the compression, the next two how the stream is cut; the
/// rest is the stream.
pub fn frames(data: &[u8]) {
    let Some(([mode, small, large], stream)) = data.split_first_chunk::<3>() else { return };
    let agreement = agreement(*mode);
    let role = role(*mode);
    let mut worker = Worker::new(role);
    let mut whole = Receiver::new(agreement);
    whole.feed(stream, &mut worker);
    whole.check(stream.len());

    // Two connections at once, to detect state that leaks from one to the other.
    let mut pair = [Receiver::new(agreement), Receiver::new(agreement)];
    let (mut rest, mut turn) = (stream, 0_usize);
    while !rest.is_empty() {
        let size = if turn % 3 == 0 { usize::from(*large) * 8 } else { usize::from(*small) % 16 };
        let (chunk, after) = rest.split_at((size + 1).min(rest.len()));
        pair.iter_mut().for_each(|receiver| receiver.feed(chunk, &mut worker));
        (rest, turn) = (after, turn + 1);
    }
    let [one, other] = pair;
    assert_eq!(one.outcome, other.outcome);
    assert_eq!(one.outcome, whole.outcome);

    if let Some(agreement) = agreement {
        returns(agreement, &whole.outcome.messages, &mut Worker::new(Role::Server));
    }
}

/// The state that the receivers of one thread share.
pub struct Worker {
    config: ProtocolConfig,
    deflaters: Deflaters,
}

impl Worker {
    /// Makes a worker for connections of this side.
    pub fn new(role: Role) -> Worker {
        let config = ProtocolConfig { role, message_bytes_max: MESSAGE_BYTES_MAX };
        Worker { config, deflaters: Deflaters::new(1) }
    }
}

/// Returns the role of a mode.
pub fn role(mode: u8) -> Role {
    if mode & 4 == 0 { Role::Server } else { Role::Client }
}

/// Returns the compression of a mode, if any.
pub fn agreement(mode: u8) -> Option<Agreement> {
    let bits = 9 + mode / 8 % 7;
    let offer = match mode / 64 {
        0 => "permessage-deflate".to_owned(),
        1 => "permessage-deflate; client_no_context_takeover".to_owned(),
        2 => format!("permessage-deflate; server_max_window_bits={bits}"),
        _ => {
            format!("permessage-deflate; server_no_context_takeover; server_max_window_bits={bits}")
        }
    };
    let takeover = match mode % 4 {
        0 | 1 => return None,
        2 => Takeover::Never,
        _ => Takeover::Allowed,
    };
    Some(negotiate([offer.as_str()], takeover).expect("legal").expect("acceptable"))
}

/// One connection's end of a stream.
pub struct Receiver {
    endpoint: Endpoint,
    deflate: Option<Deflate>,
    /// The result of the stream so far.
    pub outcome: Outcome,
}

/// The result of a stream.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Whether each was text, and its payload.
    pub messages: Vec<(bool, Vec<u8>)>,
    /// Whether the peer ended the stream, and the reason.
    pub end: Option<(bool, CloseReason)>,
    /// The output, without masks.
    pub out: Vec<u8>,
}

impl Receiver {
    /// Makes a receiver that has read nothing.
    pub fn new(agreement: Option<Agreement>) -> Receiver {
        let deflate = agreement.map(Deflate::new);
        Receiver { endpoint: Endpoint::default(), deflate, outcome: Outcome::default() }
    }

    /// Reads a part of the stream.
    pub fn feed(&mut self, chunk: &[u8], worker: &mut Worker) {
        let Outcome { messages, end, out } = &mut self.outcome;
        let mut chunk = chunk.to_vec();
        let mut chunk = &mut chunk[..];
        while end.is_none() {
            let Worker { config, deflaters } = worker;
            let deflate = self.deflate.as_mut();
            let inflater = deflate.map(|deflate| Inflater { deflate, deflaters });
            let mut answer = Vec::new();
            let event = self.endpoint.next(&mut chunk, &mut answer, config, inflater);
            out.extend(without_masks(&answer, config.role));
            match event {
                Event::Message(received) => {
                    let message = received.message();
                    messages.push((message.as_text().is_some(), message.as_bytes().to_vec()));
                }
                Event::Ping(payload) | Event::Pong(payload) => assert!(payload.len() <= 125),
                Event::Close(reason) => *end = Some((true, reason)),
                Event::Failed(reason) => *end = Some((false, reason)),
                Event::NeedMore => {
                    assert!(chunk.is_empty(), "it asked for more and left some");
                    return;
                }
            }
        }
    }

    /// Checks the properties of any stream of `len` bytes.
    fn check(&self, len: usize) {
        let Outcome { messages, end, out } = &self.outcome;
        for (is_text, bytes) in messages {
            assert!(bytes.len() <= MESSAGE_BYTES_MAX);
            assert!(!is_text || std::str::from_utf8(bytes).is_ok());
        }
        assert!(
            out.len() <= len + 127,
            "answers are pongs, none longer than its ping, and one Close"
        );
        let mut close = None;
        for (header, payload) in frames_of(out) {
            assert!(header.is_final && header.mask.is_none() && payload.len() <= 125);
            assert!(!(header.rsv1 || header.rsv2 || header.rsv3) && close.is_none());
            match header.opcode {
                OpCode::Control(Control::Pong) => {}
                OpCode::Control(Control::Close) => close = Some(payload),
                other => panic!("answered with {other:?}"),
            }
        }
        match (end, close) {
            (None, None) => {}
            (Some((true, reason)), Some([])) => assert_eq!(reason.code(), 1005),
            (Some((_, reason)), Some([high, low, text @ ..])) => {
                assert_eq!(reason.code(), u16::from_be_bytes([*high, *low]));
                assert!(std::str::from_utf8(text).is_ok());
                assert!(matches!(reason.code(), 1000..=1003 | 1007..=1014 | 3000..=4999));
            }
            other => panic!("the end and the Close do not fit: {other:?}"),
        }
        if let Some((false, reason)) = end {
            assert!(matches!(reason.code(), 1002 | 1007 | 1009), "{reason}");
        }
    }
}

/// Parses the frames of our own output, which must be whole.
fn frames_of(mut bytes: &[u8]) -> Vec<(FrameHeader, &[u8])> {
    let mut frames = Vec::new();
    while !bytes.is_empty() {
        let mut cursor = Cursor::new(bytes);
        let parsed = FrameHeader::parse(&mut cursor).expect("a legal header");
        let (header, len) = parsed.expect("a whole header");
        let (payload, rest) = bytes[cursor.position() as usize..].split_at(len as usize);
        frames.push((header, payload));
        bytes = rest;
    }
    frames
}

/// Removes the masks from frames of `role`, after checking that they are masked as RFC 6455, 5.1
/// demands.
pub fn without_masks(frames: &[u8], role: Role) -> Vec<u8> {
    let mut plain = Vec::new();
    for (header, payload) in frames_of(frames) {
        assert_eq!(header.mask.is_some(), role == Role::Client);
        let mut payload = payload.to_vec();
        apply_mask(&mut payload, header.mask.unwrap_or_default(), 0);
        encode_frame(&mut plain, &FrameHeader { mask: None, ..header }, &payload);
    }
    plain
}

/// Checks that compressed messages are received unchanged.
fn returns(agreement: Agreement, messages: &[(bool, Vec<u8>)], worker: &mut Worker) {
    let (mut sender, mut sent) = (Deflate::new(agreement), Vec::new());
    for (is_text, message) in messages {
        let kind = if *is_text { Kind::Text } else { Kind::Binary };
        sender.write_frame(kind, message, &mut worker.deflaters, &mut Vec::new(), &mut sent);
    }
    // Without context takeover, each message must be compressed by itself.
    let takes_alone = agreement.client_no_context_takeover;
    if takes_alone && !agreement.server_no_context_takeover {
        return;
    }
    let mut stream = Vec::new();
    for (header, payload) in frames_of(&sent) {
        assert!(header.rsv1 && header.is_final && matches!(header.opcode, OpCode::Data(_)));
        assert!(header.opcode != OpCode::Data(Data::Continue));
        let header = FrameHeader { mask: Some([0; 4]), ..header };
        encode_frame(&mut stream, &header, payload);
    }
    let mut receiver = Receiver::new(Some(agreement));
    receiver.feed(&stream, worker);
    assert_eq!(receiver.outcome.messages, messages);
    assert_eq!(receiver.outcome.end, None);
}
