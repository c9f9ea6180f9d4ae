//! Where the frames of a client's stream begin and end, found without copying them.
//!
//! The protocol machine does not tell what it still holds, and sees the text of a frame only when all of
//! it is here. This looks ahead of it: to know when nothing of a connection is left inside, and to
//! refuse text that has gone wrong in the middle of a large or fragmented frame.

use tungstenite::protocol::frame::{
    FrameHeader,
    coding::{Data, OpCode},
};

use super::walker::{Piece, Walker, unmask};

/// Text is unmasked and checked in blocks of this size, on the stack.
const TEXT_BLOCK_BYTES: usize = 512;

/// Follows one client's stream. Used by one thread.
#[derive(Debug, Default)]
pub(super) struct Scanner {
    walker: Walker,
    /// The frame that is passing by.
    current: Current,
    /// The kind of the message that is not whole yet.
    message: Option<Data>,
    text: TextCheck,
    /// Payload bytes announced for the message that is not whole yet, and what they may be at most.
    message_bytes: u64,
    message_bytes_max: u64,
    /// Messages and control frames that have passed by whole.
    whole: u64,
    /// A frame came that RFC 6455 forbids whatever is in it; what follows means nothing.
    is_broken: bool,
}

/// What of the frame that is passing by matters for checking its text.
#[derive(Debug, Default, Clone, Copy)]
struct Current {
    mask: [u8; 4],
    /// Payload bytes that have passed by.
    offset: usize,
    is_text: bool,
    /// A message ends with it; so does a control frame, which is one by itself.
    is_last: bool,
}

impl Scanner {
    /// For a stream whose messages may have `message_bytes_max` bytes.
    pub(super) fn new(message_bytes_max: usize) -> Scanner {
        Scanner { message_bytes_max: message_bytes_max as u64, ..Scanner::default() }
    }

    /// Looks at the next bytes of the stream.
    pub(super) fn skim(&mut self, mut bytes: &[u8]) {
        if self.is_broken {
            return;
        }
        while let Some(piece) = self.walker.next(&mut bytes) {
            match piece {
                Piece::Begins(header, len) if self.forbids(&header, len) => {
                    self.is_broken = true;
                    return;
                }
                Piece::Begins(header, len) => self.begin(&header, len),
                Piece::Payload(payload) => self.check_text(payload),
                // The protocol machine will say so in its own words.
                Piece::Lost => return,
            }
            self.whole += u64::from(self.current.is_last && self.walker.is_payload_over());
        }
    }

    /// How many messages and control frames have passed by whole.
    pub(super) fn whole(&self) -> u64 {
        self.whole
    }

    /// Whether everything looked at so far makes whole frames and whole messages.
    pub(super) fn is_at_rest(&self) -> bool {
        self.message.is_none() && self.walker.is_between_frames() && !self.is_broken
    }

    /// Whether the message that is passing by is text and cannot become valid UTF-8 any more.
    pub(super) fn is_bad_text(&self) -> bool {
        self.text.is_bad
    }

    /// Whether the protocol machine will refuse a frame for its header, or for what came before it. It does so when the frame is
    /// whole, so until then its text is not looked at, and nothing of this connection is over.
    fn forbids(&self, header: &FrameHeader, len: u64) -> bool {
        let is_data = matches!(header.opcode, OpCode::Data(_));
        let is_continuation = header.opcode == OpCode::Data(Data::Continue);
        let is_misplaced = match header.opcode {
            OpCode::Control(_) => !header.is_final || len > 125,
            OpCode::Data(Data::Continue) => self.message.is_none(),
            OpCode::Data(_) => self.message.is_some(),
        };
        let before = if is_continuation { self.message_bytes } else { 0 };
        let is_too_long = is_data && before.saturating_add(len) > self.message_bytes_max;
        is_misplaced
            || is_too_long
            || header.rsv1
            || header.rsv2
            || header.rsv3
            || header.mask.is_none()
    }

    /// A frame begins.
    fn begin(&mut self, header: &FrameHeader, len: u64) {
        let OpCode::Data(opcode) = header.opcode else {
            self.current = Current { is_last: true, ..Current::default() };
            return;
        };
        if opcode != Data::Continue {
            self.text = TextCheck::default();
            self.message = Some(opcode);
            self.message_bytes = 0;
        }
        self.message_bytes += len;
        self.current = Current {
            mask: header.mask.unwrap_or_default(),
            offset: 0,
            is_text: self.message == Some(Data::Text),
            is_last: header.is_final,
        };
        if header.is_final {
            self.message = None;
        }
    }

    /// Checks a part of a payload, where that tells more than the protocol machine will: text that comes
    /// whole is left to it.
    fn check_text(&mut self, payload: &[u8]) {
        let Current { mask, offset, is_text, is_last } = self.current;
        self.current.offset += payload.len();
        let comes_whole = is_last && offset == 0 && self.walker.is_payload_over();
        if !is_text || (comes_whole && !self.text.has_begun) {
            return;
        }
        let mut block = [0; TEXT_BLOCK_BYTES];
        for (index, part) in payload.chunks(TEXT_BLOCK_BYTES).enumerate() {
            let block = &mut block[..part.len()];
            block.copy_from_slice(part);
            unmask(block, mask, offset + index * TEXT_BLOCK_BYTES);
            self.text.check(block);
        }
    }
}

/// UTF-8, checked as it comes.
#[derive(Debug, Default)]
struct TextCheck {
    /// The beginning of a character that is not whole yet.
    tail: [u8; 4],
    tail_len: usize,
    is_bad: bool,
    has_begun: bool,
}

impl TextCheck {
    fn check(&mut self, mut bytes: &[u8]) {
        self.has_begun = true;
        while self.tail_len > 0 && !bytes.is_empty() && !self.is_bad {
            self.tail[self.tail_len] = bytes[0];
            self.tail_len += 1;
            bytes = &bytes[1..];
            match std::str::from_utf8(&self.tail[..self.tail_len]) {
                Ok(_) => self.tail_len = 0,
                Err(error) => self.is_bad = error.error_len().is_some(),
            }
        }
        if self.is_bad || bytes.is_empty() {
            return;
        }
        if let Err(error) = std::str::from_utf8(bytes) {
            let rest = &bytes[error.valid_up_to()..];
            self.is_bad = error.error_len().is_some();
            if !self.is_bad {
                self.tail[..rest.len()].copy_from_slice(rest);
                self.tail_len = rest.len();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::walker::client_frame, *};

    fn rests(stream: &[u8], step: usize) -> (bool, bool) {
        let mut scanner = Scanner::new(1 << 20);
        stream.chunks(step).for_each(|chunk| scanner.skim(chunk));
        (scanner.is_at_rest(), scanner.is_bad_text())
    }

    #[test]
    fn rest_is_where_all_frames_and_messages_are_whole() {
        let mut whole = client_frame(0x81, "grüße".repeat(200).as_bytes());
        whole.extend(client_frame(0x89, b"ping"));
        whole.extend(client_frame(0x01, b"gr\xc3"));
        whole.extend(client_frame(0x8a, b""));
        whole.extend(client_frame(0x80, b"\xbc\xc3\x9fe"));
        whole.extend(client_frame(0x82, &[0xff; 300]));
        for step in [1, 2, 3, 7, 500, 100_000] {
            assert_eq!(rests(&whole, step), (true, false), "in steps of {step}");
            assert_eq!(rests(&whole[..whole.len() - 1], step), (false, false));
        }
        let open = client_frame(0x01, b"open");
        assert_eq!(rests(&open, 100), (false, false));
        assert_eq!(
            rests(&client_frame(0x83, b""), 1),
            (false, false),
            "a reserved opcode is no rest"
        );
    }

    #[test]
    fn text_is_refused_as_soon_as_it_is_wrong() {
        let mut payload = b"ok".to_vec();
        payload.extend_from_slice(b"\xce\xba\xf4\x90\x80\x80");
        payload.resize(100, b'x');
        let bad = client_frame(0x81, &payload);
        for step in [1, 2, 3, 50] {
            let (_, wrong) = rests(&bad[..6 + 6], step);
            assert!(wrong, "F4 90 begins no character, in steps of {step}");
            let (_, wrong) = rests(&bad[..6 + 5], step);
            assert!(!wrong, "F4 may begin one, in steps of {step}");
        }
        let mut fragments = client_frame(0x01, b"\xce");
        fragments.extend(client_frame(0x00, b"x"));
        assert_eq!(rests(&fragments, 1000), (false, true), "across fragments");
        let binary = client_frame(0x82, &payload);
        assert_eq!(rests(&binary[..50], 1000), (false, false), "binary is never wrong");
    }
}
