//! The decoder: turns a peer's bytes into messages and control frames (RFC 6455, 5; RFC 7692, 6.2).
//!
//! The decoder does no I/O. It checks each rule once and as early as possible: the rules for a
//! frame's header before its payload arrives, and UTF-8 as the payload arrives. `tungstenite`
//! parses headers, except those of short plain messages, which are the most frequent.
//!
//! The payload of a complete frame is borrowed from the input. Between messages a decoder holds no
//! memory.

use std::{borrow::Cow, io::Cursor, ops::Range};

use tungstenite::{
    Error,
    error::ProtocolError,
    protocol::{
        Role,
        frame::{
            FrameHeader,
            coding::{Control, Data, OpCode},
        },
    },
};

use super::{
    close::CloseReason,
    deflate::{self, Inflater},
    encode::{HEADER_BYTES_MAX, Kind, apply_mask},
    message::{PartialMessage, Received},
};

/// The longest payload of a control frame, in bytes (RFC 6455, 5.5).
const CONTROL_BYTES_MAX: u64 = 125;

/// The configuration that all connections of one side share.
#[derive(Debug, Clone, Copy)]
pub struct ProtocolConfig {
    /// The side of the connection. A server accepts only masked frames, a client only unmasked
    /// ones.
    pub role: Role,
    /// The longest message that is accepted, in bytes, before and after decompression.
    pub message_bytes_max: usize,
}

/// The next event of a stream.
#[derive(Debug)]
pub enum Event<'i> {
    /// A whole data message. The UTF-8 of a text is checked.
    Message(Received<'i>),
    /// A ping and its payload, which the pong must repeat (RFC 6455, 5.5.2).
    Ping(Cow<'i, [u8]>),
    /// A pong and its payload.
    Pong(Cow<'i, [u8]>),
    /// The peer's Close. The stream has ended.
    Close(CloseReason),
    /// The peer violated the protocol. Close the connection with this reason. The stream has ended.
    Failed(CloseReason),
    /// The input is used up; feed more bytes.
    NeedMore,
}

/// The decoder of one connection. Used by one thread.
#[derive(Debug, Default)]
pub struct Decoder {
    /// The incomplete frame and message; `None` between messages.
    unfinished: Option<Box<Unfinished>>,
}

/// The received parts of an incomplete frame and message.
#[derive(Debug, Default)]
struct Unfinished {
    /// The beginning of an incomplete header.
    header: [u8; HEADER_BYTES_MAX],
    header_len: usize,
    /// The frame whose payload is being received.
    frame: Option<Frame>,
    /// The received payload of an incomplete control frame.
    control: Vec<u8>,
    message: Option<PartialMessage>,
    /// Whether a Close or a failure has ended the stream. Later bytes are ignored.
    has_ended: bool,
    /// Belongs to the endpoint; kept here so that an idle connection needs no space for it.
    close_sent: bool,
}

/// A frame whose header was accepted.
#[derive(Debug)]
struct Frame {
    opcode: OpCode,
    is_final: bool,
    is_compressed: bool,
    mask: Option<[u8; 4]>,
    /// Bytes of the payload, and how many of them have arrived.
    len: usize,
    taken: usize,
}

impl Frame {
    /// Returns the kind of the message that begins with this frame.
    fn kind(&self) -> Option<Kind> {
        match self.opcode {
            OpCode::Data(Data::Text) => Some(Kind::Text),
            OpCode::Data(Data::Binary) => Some(Kind::Binary),
            OpCode::Data(_) | OpCode::Control(_) => None,
        }
    }
}

impl Decoder {
    /// Decodes at most one message or control frame. Removes the used bytes from the front of
    /// `input`, and overwrites them. Returns [`Event::NeedMore`] only when all input is used.
    ///
    /// Pass `inflater` if the connection has negotiated compression.
    // Inlined for short plain messages, for which a call costs as much as decoding.
    #[inline(always)]
    pub fn next<'i>(
        &mut self,
        input: &mut &'i mut [u8],
        config: &ProtocolConfig,
        inflater: Option<Inflater<'_>>,
    ) -> Event<'i> {
        if self.unfinished.is_none() {
            if input.is_empty() {
                return Event::NeedMore;
            }
            let message = match config.role {
                Role::Server => take_plain_message::<true>(input, config.message_bytes_max),
                Role::Client => take_plain_message::<false>(input, config.message_bytes_max),
            };
            match message {
                Some(Some(message)) => return Event::Message(message),
                Some(None) => return self.fail(CloseReason::INVALID_UTF8),
                None => {}
            }
        }
        self.step(input, config, inflater)
    }

    /// Decodes any input.
    #[inline(never)]
    fn step<'i>(
        &mut self,
        input: &mut &'i mut [u8],
        config: &ProtocolConfig,
        mut inflater: Option<Inflater<'_>>,
    ) -> Event<'i> {
        if self.unfinished.as_ref().is_some_and(|unfinished| unfinished.has_ended) {
            *input = &mut [];
            return Event::NeedMore;
        }
        loop {
            let event = self.advance(input, config, inflater.as_mut());
            match event {
                Ok(Some(Event::Close(reason))) => {
                    self.end();
                    return Event::Close(reason);
                }
                Ok(Some(event)) => return event,
                Ok(None) if input.is_empty() => return Event::NeedMore,
                Ok(None) => {}
                Err(reason) => return self.fail(reason),
            }
        }
    }

    #[cold]
    fn fail(&mut self, reason: CloseReason) -> Event<'static> {
        self.end();
        Event::Failed(reason)
    }

    fn end(&mut self) {
        let close_sent = self.close_sent();
        let end = Unfinished { has_ended: true, close_sent, ..Unfinished::default() };
        self.unfinished = Some(Box::new(end));
    }

    /// Decodes one frame, or the part of it that has arrived.
    fn advance<'i>(
        &mut self,
        input: &mut &'i mut [u8],
        config: &ProtocolConfig,
        inflater: Option<&mut Inflater<'_>>,
    ) -> Result<Option<Event<'i>>, CloseReason> {
        let begun = self.unfinished.as_mut().and_then(|unfinished| unfinished.frame.take());
        let mut frame = match begun {
            Some(frame) => frame,
            None => match self.header(input)? {
                Some((header, len)) => self.judge(&header, len, config, inflater.is_some())?,
                None => return Ok(None),
            },
        };
        let here = input.len().min(frame.len - frame.taken);
        let (part, rest) = std::mem::take(input).split_at_mut(here);
        *input = rest;
        if let Some(mask) = frame.mask {
            apply_mask(part, mask, frame.taken);
        }
        // A complete frame is borrowed from the input, unless it is a fragment.
        let is_whole = part.len() == frame.len;
        match (frame.opcode, frame.kind()) {
            (OpCode::Control(control), _) if is_whole => {
                self.rest();
                return control_event(control, Cow::Borrowed(part)).map(Some);
            }
            (_, Some(kind)) if is_whole && frame.is_final => {
                self.rest();
                let inflater = inflater.filter(|_| frame.is_compressed);
                let message = Received::whole(kind, part, inflater, config.message_bytes_max)?;
                return Ok(Some(Event::Message(message)));
            }
            _ => {}
        }
        frame.taken += part.len();
        let unfinished = self.unfinished.get_or_insert_default();
        let Some(whole) = unfinished.collect(frame, part)? else { return Ok(None) };
        let event = match whole {
            Whole::Control(control, payload) => control_event(control, Cow::Owned(payload))?,
            Whole::Message(message) => {
                Event::Message(message.finish(inflater, config.message_bytes_max)?)
            }
        };
        self.rest();
        Ok(Some(event))
    }

    /// Removes a header from the front of `input`, and returns it with the length of the payload.
    /// Keeps a partial header.
    fn header(&mut self, input: &mut &mut [u8]) -> Result<Option<(FrameHeader, u64)>, CloseReason> {
        let (before, mut bytes) = match &self.unfinished {
            Some(unfinished) => (unfinished.header_len, unfinished.header),
            None => (0, [0; HEADER_BYTES_MAX]),
        };
        let take = input.len().min(HEADER_BYTES_MAX - before);
        bytes[before..before + take].copy_from_slice(&input[..take]);
        let mut cursor = Cursor::new(&bytes[..before + take]);
        let parsed = FrameHeader::parse(&mut cursor).map_err(|error| protocol(&error))?;
        let used = match parsed {
            Some(_) => cursor.position() as usize - before,
            None => take,
        };
        *input = &mut std::mem::take(input)[used..];
        match (&parsed, &mut self.unfinished) {
            (Some(_), None) => {}
            (Some(_), Some(unfinished)) => unfinished.header_len = 0,
            (None, unfinished) => {
                let unfinished = unfinished.get_or_insert_default();
                (unfinished.header, unfinished.header_len) = (bytes, before + take);
            }
        }
        Ok(parsed)
    }

    /// Checks a frame by its header and the frames before it. `may_compress` says whether
    /// compression was negotiated.
    fn judge(
        &self,
        header: &FrameHeader,
        len: u64,
        config: &ProtocolConfig,
        may_compress: bool,
    ) -> Result<Frame, CloseReason> {
        let &FrameHeader { is_final, rsv1, rsv2, rsv3, opcode, mask } = header;
        let begun = self.unfinished.as_ref().and_then(|unfinished| unfinished.message.as_ref());
        let is_compressed = match (opcode, begun) {
            (OpCode::Control(_), _) => false,
            (OpCode::Data(Data::Continue), begun) => {
                begun.is_some_and(PartialMessage::is_compressed)
            }
            (OpCode::Data(_), _) => rsv1 && may_compress,
        };
        let overhead = if is_compressed { deflate::OVERHEAD_BYTES_MAX } else { 0 };
        let bytes_max = config.message_bytes_max.saturating_add(overhead);
        let Some(len) = usize::try_from(len).ok().filter(|len| *len <= bytes_max) else {
            return Err(CloseReason::TOO_BIG);
        };
        let is_marked = is_compressed && opcode != OpCode::Data(Data::Continue);
        let wrong = match (opcode, config.role, mask) {
            (_, Role::Server, None) => Some(ProtocolError::UnmaskedFrameFromClient),
            (_, Role::Client, Some(_)) => Some(ProtocolError::MaskedFrameFromServer),
            _ if rsv1 && !is_marked || rsv2 || rsv3 => Some(ProtocolError::NonZeroReservedBits),
            (OpCode::Control(_), ..) if !is_final => Some(ProtocolError::FragmentedControlFrame),
            (OpCode::Control(_), ..) if len as u64 > CONTROL_BYTES_MAX => {
                Some(ProtocolError::ControlFrameTooBig)
            }
            (OpCode::Data(Data::Continue), ..) if begun.is_none() => {
                Some(ProtocolError::UnexpectedContinueFrame)
            }
            (OpCode::Data(data @ (Data::Text | Data::Binary)), ..) if begun.is_some() => {
                Some(ProtocolError::ExpectedFragment(data))
            }
            _ => None,
        };
        if let Some(wrong) = wrong {
            return Err(protocol(&Error::Protocol(wrong)));
        }
        let before = match opcode {
            OpCode::Data(Data::Continue) => begun.map_or(0, PartialMessage::len),
            _ => 0,
        };
        if len > bytes_max.saturating_sub(before) {
            return Err(CloseReason::TOO_BIG);
        }
        Ok(Frame { opcode, is_final, is_compressed, mask, len, taken: 0 })
    }

    /// Returns the bytes that an incomplete frame and message take; 0 between messages.
    #[inline]
    pub(super) fn held_bytes(&self) -> usize {
        self.unfinished.as_ref().map_or(0, |unfinished| unfinished.held_bytes())
    }

    /// Whether this side has sent its Close.
    pub(super) fn close_sent(&self) -> bool {
        self.unfinished.as_ref().is_some_and(|unfinished| unfinished.close_sent)
    }

    /// Notes that this side has sent its Close.
    pub(super) fn set_close_sent(&mut self) {
        self.unfinished.get_or_insert_default().close_sent = true;
    }

    /// Frees all memory between two messages.
    fn rest(&mut self) {
        if self.unfinished.as_ref().is_some_and(|unfinished| unfinished.is_empty()) {
            self.unfinished = None;
        }
    }

    /// Whether no message or frame is incomplete.
    #[cfg(test)]
    pub(crate) fn is_resting(&self) -> bool {
        self.unfinished.is_none()
    }
}

/// The frame or message that the last part has completed.
enum Whole {
    Control(Control, Vec<u8>),
    Message(PartialMessage),
}

impl Unfinished {
    /// Adds a part of `frame`, and keeps the frame if more of it is to come.
    fn collect(&mut self, frame: Frame, part: &[u8]) -> Result<Option<Whole>, CloseReason> {
        if frame.taken == 0 && frame.len > 0 {
            // The rest may arrive at once, and then needs no buffer.
            self.frame = Some(frame);
            return Ok(None);
        }
        if let OpCode::Control(control) = frame.opcode {
            self.control.extend_from_slice(part);
            if frame.taken == frame.len {
                return Ok(Some(Whole::Control(control, std::mem::take(&mut self.control))));
            }
            self.frame = Some(frame);
            return Ok(None);
        }
        // A continuation is added to the message that has begun.
        let message = self.message.get_or_insert_with(|| {
            PartialMessage::new(frame.kind().unwrap_or(Kind::Binary), frame.is_compressed)
        });
        message.push(part, frame.len - frame.taken)?;
        if frame.taken < frame.len {
            self.frame = Some(frame);
            return Ok(None);
        }
        let message = if frame.is_final { self.message.take() } else { None };
        Ok(message.map(Whole::Message))
    }

    fn held_bytes(&self) -> usize {
        let message = self.message.as_ref().map_or(0, PartialMessage::held_bytes);
        size_of::<Unfinished>() + self.control.capacity() + message
    }

    fn is_empty(&self) -> bool {
        let has_begun = self.header_len > 0 || self.frame.is_some() || self.message.is_some();
        !has_begun && !self.has_ended && !self.close_sent
    }
}

/// Removes a complete data message in one short plain frame from the front of `input`. Returns
/// `Some(None)` for a text that is not UTF-8, and `None`, without any check, if `input` begins with
/// something else.
// One instance for each side, so that the role is checked once a message.
#[inline(always)]
fn take_plain_message<'i, const IS_MASKED: bool>(
    input: &mut &'i mut [u8],
    bytes_max: usize,
) -> Option<Option<Received<'i>>> {
    let (kind, at, mask) = plain_message::<IS_MASKED>(input, bytes_max)?;
    let (frame, rest) = std::mem::take(input).split_at_mut(at.end);
    *input = rest;
    let payload = &mut frame[at.start..];
    if IS_MASKED {
        apply_mask(payload, mask, 0);
    }
    Some(Received::in_place(kind, payload))
}

/// Returns the kind of such a message, the range of its payload, and its mask.
#[inline(always)]
fn plain_message<const IS_MASKED: bool>(
    bytes: &[u8],
    bytes_max: usize,
) -> Option<(Kind, Range<usize>, [u8; 4])> {
    let kind = match bytes.first()? {
        // FIN, no reserved bits, and one of the two data opcodes.
        0x81 => Kind::Text,
        0x82 => Kind::Binary,
        _ => return None,
    };
    let [_, second, rest @ ..] = bytes else { return None };
    let (len, rest) = match second.checked_sub(if IS_MASKED { 0x80 } else { 0 })? {
        126 => {
            let (len, rest) = rest.split_first_chunk()?;
            (u64::from(u16::from_be_bytes(*len)), rest)
        }
        127 => {
            let (len, rest) = rest.split_first_chunk()?;
            (u64::from_be_bytes(*len), rest)
        }
        len @ 0..126 => (u64::from(len), rest),
        // A server must not mask its frames.
        128.. => return None,
    };
    let (mask, rest) = match IS_MASKED {
        true => rest.split_first_chunk().map(|(mask, rest)| (*mask, rest))?,
        false => ([0; 4], rest),
    };
    let start = bytes.len() - rest.len();
    let len = usize::try_from(len).ok().filter(|len| *len <= bytes_max)?;
    (len <= rest.len()).then_some((kind, start..start + len, mask))
}

fn control_event(control: Control, payload: Cow<'_, [u8]>) -> Result<Event<'_>, CloseReason> {
    match control {
        Control::Ping => Ok(Event::Ping(payload)),
        Control::Pong => Ok(Event::Pong(payload)),
        Control::Close => CloseReason::parse(&payload).map(Event::Close),
        Control::Reserved(opcode) => {
            Err(protocol(&Error::Protocol(ProtocolError::InvalidOpcode(opcode))))
        }
    }
}

/// Makes the close reason for a protocol error, with the text of `tungstenite`.
fn protocol(error: &Error) -> CloseReason {
    CloseReason::PROTOCOL.because(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rusty_socks_testing::frames::client_frame;

    const CONFIG: ProtocolConfig = ProtocolConfig { role: Role::Server, message_bytes_max: 1000 };

    /// Feeds a stream in chunks of `step` bytes, until it fails or ends.
    fn decode(decoder: &mut Decoder, stream: &[u8], step: usize) -> (Vec<Vec<u8>>, Option<u16>) {
        let (mut stream, mut payloads) = (stream.to_vec(), Vec::new());
        for mut chunk in stream.chunks_mut(step) {
            loop {
                match decoder.next(&mut chunk, &CONFIG, None) {
                    Event::Message(message) => payloads.push(message.message().as_bytes().to_vec()),
                    Event::Ping(payload) | Event::Pong(payload) => payloads.push(payload.into()),
                    Event::Close(reason) | Event::Failed(reason) => {
                        return (payloads, Some(reason.code()));
                    }
                    Event::NeedMore => break,
                }
            }
        }
        (payloads, None)
    }

    #[test]
    fn a_connection_at_rest_holds_nothing() {
        let mut decoder = Decoder::default();
        let whole = [
            client_frame(0x81, "gr\u{fc}\u{df}e".repeat(20).as_bytes()),
            client_frame(0x89, b"ping"),
            client_frame(0x01, b"gr\xc3"),
            client_frame(0x8a, b""),
            client_frame(0x00, b""),
            client_frame(0x80, b"\xbc\xc3\x9fe"),
            client_frame(0x82, &[0xff; 300]),
        ];
        for step in [1, 2, 3, 7, 500, 100_000] {
            let stream = whole.concat();
            let (payloads, end) = decode(&mut decoder, &stream, step);
            assert_eq!((payloads.len(), end), (5, None), "in steps of {step}");
            assert_eq!(payloads[3], "gr\u{fc}\u{df}e".as_bytes());
            assert!(decoder.is_resting(), "in steps of {step}");
            let mut open = Decoder::default();
            decode(&mut open, &stream[..stream.len() - 1], step);
            assert!(!open.is_resting(), "part of a frame belongs to its connection");
        }
        assert_eq!(size_of::<Decoder>(), size_of::<usize>());
    }

    #[test]
    fn what_has_begun_belongs_to_its_connection() {
        let mut decoder = Decoder::default();
        let frame = client_frame(0x81, b"hello");
        for (bytes, rests) in [
            (&frame[..3], false),
            (&frame[3..], true),
            (&client_frame(0x01, b"open"), false),
            (&client_frame(0x80, b"end"), true),
            (&client_frame(0x89, b"ping")[..7], false),
            (&client_frame(0x89, b"ping")[7..], true),
        ] {
            decode(&mut decoder, bytes, 1000);
            assert_eq!(decoder.is_resting(), rests, "behind {bytes:02x?}");
        }
    }

    #[test]
    fn a_whole_frame_stays_where_it_was_read() {
        let mut decoder = Decoder::default();
        let mut stream = [client_frame(0x82, &[7; 900]), client_frame(0x89, b"ping")].concat();
        let range = stream.as_ptr_range();
        let mut rest = &mut stream[..];
        let event = decoder.next(&mut rest, &CONFIG, None);
        let Event::Message(Received::Binary(Cow::Borrowed(bytes))) = event else { panic!() };
        assert!(range.contains(&bytes.as_ptr()));
        let Event::Ping(Cow::Borrowed(_)) = decoder.next(&mut rest, &CONFIG, None) else {
            panic!("a ping is not copied either")
        };
    }

    #[test]
    fn text_fails_before_its_frame_is_whole() {
        let mut payload = b"ok\xce\xba\xf4\x90\x80\x80".to_vec();
        payload.resize(100, b'x');
        let bad = client_frame(0x81, &payload);
        for step in [1, 2, 3, 50] {
            let end = |len: usize| decode(&mut Decoder::default(), &bad[..len], step).1;
            assert_eq!(end(6 + 6), Some(1007), "F4 90 begins no character, in steps of {step}");
            assert_eq!(end(6 + 5), None, "F4 may begin one, in steps of {step}");
        }
        let fragments = [client_frame(0x01, b"\xce"), client_frame(0x00, b"x")].concat();
        assert_eq!(decode(&mut Decoder::default(), &fragments, 1000).1, Some(1007));
        let half = client_frame(0x81, b"\xce");
        assert_eq!(decode(&mut Decoder::default(), &half, 1).1, Some(1007), "half a character");
        let binary = client_frame(0x82, &payload);
        assert_eq!(decode(&mut Decoder::default(), &binary[..50], 1000).1, None);
    }

    /// The header is enough: no payload has to arrive, and no memory is allocated for it.
    #[test]
    fn a_frame_is_judged_by_its_header() {
        let open = client_frame(0x02, &[0; 600]);
        let fragment = |first| [&open[..], &[first, 0xfe, 0x01, 0x91, 0, 0, 0, 0]].concat();
        for (stream, code) in [
            (vec![0x82, 0xfe, 0x03, 0xe9, 0, 0, 0, 0], 1009),
            (vec![0x82, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], 1009),
            (fragment(0x80), 1009),
            (fragment(0x82), 1002),
            (vec![0x82, 0x05], 1002),
            (vec![0x92, 0x85, 0, 0, 0, 0], 1002),
            (vec![0xc1, 0x85, 0, 0, 0, 0], 1002),
            (vec![0x80, 0x85, 0, 0, 0, 0], 1002),
            (vec![0x09, 0x85, 0, 0, 0, 0], 1002),
            (vec![0x89, 0xfe, 0, 0x7e, 0, 0, 0, 0], 1002),
            (vec![0x83, 0x85, 0, 0, 0, 0], 1002),
        ] {
            for step in [1, 3, 1000] {
                let (payloads, end) = decode(&mut Decoder::default(), &stream, step);
                assert_eq!((payloads.len(), end), (0, Some(code)), "{stream:02x?}");
            }
        }
        let longest = [client_frame(0x02, &[0; 600]), client_frame(0x80, &[0; 400])].concat();
        assert_eq!(decode(&mut Decoder::default(), &longest, 50).1, None, "1000 bytes may be");
    }
}
