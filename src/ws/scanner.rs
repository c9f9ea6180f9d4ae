//! Where the frames of a client's stream begin and end, found without copying them.
//!
//! The protocol machine does not tell what it still holds, and sees the text of a frame only when all of
//! it is here. This looks ahead of it: to know when nothing of a connection is left inside, and to
//! refuse text that has gone wrong in the middle of a large or fragmented frame.

use std::io::Cursor;

use tungstenite::protocol::frame::{
    FrameHeader,
    coding::{Data, OpCode},
};

/// The longest header of a client's frame, in bytes (RFC 6455, 5.2).
const HEADER_BYTES_MAX: usize = 14;

/// Text is unmasked and checked in blocks of this size, on the stack.
const TEXT_BLOCK_BYTES: usize = 512;

/// Follows one client's stream. Used by one thread.
#[derive(Debug, Default)]
pub(crate) struct Scanner {
    /// The beginning of a header that is not whole yet.
    header: [u8; HEADER_BYTES_MAX],
    header_len: usize,
    /// What is left of the payload that is passing by.
    payload_left: u64,
    /// The frame that is passing by, once its header is whole.
    current: Current,
    /// A fragmented message is open.
    message: Option<Data>,
    text: TextCheck,
    /// The stream broke the protocol; the protocol machine will say so in its own words.
    lost: bool,
}

/// What of the frame that is passing by matters for checking its text.
#[derive(Debug, Default, Clone, Copy)]
struct Current {
    mask: [u8; 4],
    /// Payload bytes that have passed by.
    offset: usize,
    is_text: bool,
    is_last_of_text: bool,
}

impl Scanner {
    /// Looks at the next bytes of the stream.
    pub(crate) fn skim(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() && !self.lost {
            if self.payload_left == 0 {
                bytes = self.skim_header(bytes);
                continue;
            }
            let here = usize::try_from(self.payload_left)
                .map_or(bytes.len(), |left| left.min(bytes.len()));
            let (payload, rest) = bytes.split_at(here);
            self.payload_left -= here as u64;
            self.check_text(payload);
            bytes = rest;
        }
    }

    /// Whether everything looked at so far makes whole frames and whole messages.
    pub(crate) fn is_at_rest(&self) -> bool {
        self.header_len == 0 && self.payload_left == 0 && self.message.is_none() && !self.lost
    }

    /// Whether the message that is passing by is text and cannot become valid UTF-8 any more.
    pub(crate) fn is_bad_text(&self) -> bool {
        self.text.is_bad
    }

    fn skim_header<'b>(&mut self, bytes: &'b [u8]) -> &'b [u8] {
        if self.header_len == 0 {
            // The usual case: the header is all here.
            let mut cursor = Cursor::new(bytes);
            if let Some(parsed) = self.parse(&mut cursor) {
                let used = cursor.position() as usize;
                self.begin(&parsed.0, parsed.1);
                return &bytes[used..];
            }
        }
        if self.lost {
            return &[];
        }
        let before = self.header_len;
        let take = bytes.len().min(HEADER_BYTES_MAX - before);
        self.header[before..before + take].copy_from_slice(&bytes[..take]);
        self.header_len += take;
        let header = self.header;
        let mut cursor = Cursor::new(&header[..self.header_len]);
        match self.parse(&mut cursor) {
            Some((parsed, len)) => {
                let used = cursor.position() as usize - before;
                self.header_len = 0;
                self.begin(&parsed, len);
                &bytes[used..]
            }
            None => &bytes[take..],
        }
    }

    fn parse(&mut self, cursor: &mut Cursor<&[u8]>) -> Option<(FrameHeader, u64)> {
        FrameHeader::parse(cursor).unwrap_or_else(|_| {
            self.lost = true;
            None
        })
    }

    /// A frame begins.
    fn begin(&mut self, header: &FrameHeader, len: u64) {
        self.payload_left = len;
        let OpCode::Data(opcode) = header.opcode else {
            self.current = Current::default();
            return;
        };
        let is_text = match opcode {
            Data::Continue => self.message == Some(Data::Text),
            other => other == Data::Text,
        };
        if !matches!(opcode, Data::Continue) {
            self.text = TextCheck::default();
            self.message = Some(opcode);
        }
        if header.is_final {
            self.message = None;
        }
        self.current = Current {
            mask: header.mask.unwrap_or_default(),
            offset: 0,
            is_text,
            is_last_of_text: is_text && header.is_final,
        };
    }

    /// Checks a part of a payload, where that tells more than the protocol machine will: text that comes
    /// whole is left to it.
    fn check_text(&mut self, payload: &[u8]) {
        let Current { mask, offset, is_text, is_last_of_text } = self.current;
        self.current.offset += payload.len();
        let comes_whole = is_last_of_text && offset == 0 && self.payload_left == 0;
        if !is_text || (comes_whole && self.text.is_untouched()) {
            return;
        }
        let mut block = [0; TEXT_BLOCK_BYTES];
        for (index, part) in payload.chunks(TEXT_BLOCK_BYTES).enumerate() {
            let start = offset + index * TEXT_BLOCK_BYTES;
            for (at, (to, from)) in block.iter_mut().zip(part).enumerate() {
                *to = from ^ mask[(start + at) % 4];
            }
            self.text.check(&block[..part.len()]);
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
    touched: bool,
}

impl TextCheck {
    fn is_untouched(&self) -> bool {
        !self.touched
    }

    fn check(&mut self, mut bytes: &[u8]) {
        self.touched = true;
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
    use super::*;

    /// A client's frame, masked so that a mask out of step is noticed.
    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mask = [1, 2, 3, 250];
        let mut frame = vec![first];
        match payload.len() {
            len @ 0..=125 => frame.push(0x80 | len as u8),
            len => {
                frame.push(0x80 | 126);
                frame.extend_from_slice(&(len as u16).to_be_bytes());
            }
        }
        frame.extend_from_slice(&mask);
        frame.extend(payload.iter().enumerate().map(|(at, byte)| byte ^ mask[at % 4]));
        frame
    }

    fn rests(stream: &[u8], step: usize) -> (bool, bool) {
        let mut scanner = Scanner::default();
        stream.chunks(step).for_each(|chunk| scanner.skim(chunk));
        (scanner.is_at_rest(), scanner.is_bad_text())
    }

    #[test]
    fn rest_is_where_all_frames_and_messages_are_whole() {
        let mut whole = frame(0x81, "grüße".repeat(200).as_bytes());
        whole.extend(frame(0x89, b"ping"));
        whole.extend(frame(0x01, b"gr\xc3"));
        whole.extend(frame(0x8a, b""));
        whole.extend(frame(0x80, b"\xbc\xc3\x9fe"));
        whole.extend(frame(0x82, &[0xff; 300]));
        for step in [1, 2, 3, 7, 500, 100_000] {
            assert_eq!(rests(&whole, step), (true, false), "in steps of {step}");
            assert_eq!(rests(&whole[..whole.len() - 1], step), (false, false));
        }
        let open = frame(0x01, b"open");
        assert_eq!(rests(&open, 100), (false, false));
        assert_eq!(rests(&frame(0x83, b""), 1), (false, false), "a reserved opcode is no rest");
    }

    #[test]
    fn text_is_refused_as_soon_as_it_is_wrong() {
        let mut payload = b"ok".to_vec();
        payload.extend_from_slice(b"\xce\xba\xf4\x90\x80\x80");
        payload.resize(100, b'x');
        let bad = frame(0x81, &payload);
        for step in [1, 2, 3, 50] {
            let (_, wrong) = rests(&bad[..6 + 6], step);
            assert!(wrong, "F4 90 begins no character, in steps of {step}");
            let (_, wrong) = rests(&bad[..6 + 5], step);
            assert!(!wrong, "F4 may begin one, in steps of {step}");
        }
        let mut fragments = frame(0x01, b"\xce");
        fragments.extend(frame(0x00, b"x"));
        assert_eq!(rests(&fragments, 1000), (false, true), "across fragments");
        let binary = frame(0x82, &payload);
        assert_eq!(rests(&binary[..50], 1000), (false, false), "binary is never wrong");
    }
}
