//! Frames to send, encoded once and shared by everyone who gets them.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use tungstenite::protocol::frame::{
    FrameHeader,
    coding::{Data, OpCode},
};

use super::deflate::{self, Deflaters};

/// The longest header of a frame, in bytes (RFC 6455, 5.2).
pub(crate) const HEADER_BYTES_MAX: usize = 14;

/// A message as a handler gets and gives it: borrowed, whole, its UTF-8 already checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Message<'a> {
    /// A text message.
    Text(&'a str),
    /// A binary message.
    Binary(&'a [u8]),
}

impl<'a> Message<'a> {
    /// The payload, whatever its kind.
    pub fn as_bytes(&self) -> &'a [u8] {
        match self {
            Message::Text(text) => text.as_bytes(),
            Message::Binary(bytes) => bytes,
        }
    }

    /// The text, or `None` for a binary message.
    pub fn as_text(&self) -> Option<&'a str> {
        match self {
            Message::Text(text) => Some(text),
            Message::Binary(_) => None,
        }
    }

    pub(crate) fn kind(&self) -> Kind {
        match self {
            Message::Text(_) => Kind::Text,
            Message::Binary(_) => Kind::Binary,
        }
    }
}

impl<'a> From<&'a str> for Message<'a> {
    fn from(text: &'a str) -> Self {
        Message::Text(text)
    }
}

impl<'a> From<&'a String> for Message<'a> {
    fn from(text: &'a String) -> Self {
        Message::Text(text)
    }
}

impl<'a> From<&'a [u8]> for Message<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Message::Binary(bytes)
    }
}

/// Which of the two data opcodes a message travels under.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Text,
    Binary,
}

/// A whole unmasked frame as it goes on the wire, cheap to clone and to share between threads.
///
/// Encode a message once with [`PreparedFrame::new`], then send it to any number of peers.
#[derive(Debug, Clone)]
pub struct PreparedFrame {
    bytes: Bytes,
    header_len: u8,
    /// The same message compressed, made by whoever first needs it; `None` where nobody will.
    compressed: Option<Arc<Twins>>,
}

/// A compressed form for each window a client may have asked for. Shared by all threads; each is made
/// once, and who comes while it is being made waits for that, which is shorter than making it again.
type Twins = [OnceLock<Option<Bytes>>; deflate::WINDOWS];

impl PreparedFrame {
    /// Encodes `message` as one final frame.
    pub fn new(message: Message<'_>) -> PreparedFrame {
        let frame = PreparedFrame::from_parts(message.kind(), &[message.as_bytes()]);
        frame.compressible(deflate::SHARED_BYTES_MIN)
    }

    /// Encodes the concatenation of `parts` as one final frame, in a single allocation.
    pub(crate) fn from_parts(kind: Kind, parts: &[&[u8]]) -> PreparedFrame {
        let len = parts.iter().map(|part| part.len()).sum();
        let mut bytes = Vec::with_capacity(HEADER_BYTES_MAX + len);
        encode_header(&mut bytes, &message_header(kind, false), len);
        let header_len = bytes.len() as u8;
        for part in parts {
            bytes.extend_from_slice(part);
        }
        PreparedFrame { bytes: bytes.into(), header_len, compressed: None }
    }

    /// The payload without the frame header.
    pub fn payload(&self) -> &[u8] {
        &self.bytes[usize::from(self.header_len)..]
    }

    /// Makes place for compressed forms, if the message has at least `bytes_min`.
    pub(crate) fn compressible(mut self, bytes_min: usize) -> PreparedFrame {
        if self.payload().len() >= bytes_min {
            self.compressed = Some(Arc::default());
        }
        self
    }

    /// The same frame without its compressed forms, for keeping.
    pub(crate) fn plain(&self) -> PreparedFrame {
        PreparedFrame { bytes: self.bytes.clone(), header_len: self.header_len, compressed: None }
    }

    /// The message it was made from.
    pub(crate) fn message(&self) -> Message<'_> {
        match self.kind() {
            // It came from a `str`, so this cannot fail.
            Kind::Text => Message::Text(std::str::from_utf8(self.payload()).unwrap_or_default()),
            Kind::Binary => Message::Binary(self.payload()),
        }
    }

    fn kind(&self) -> Kind {
        match self.bytes.first() {
            Some(0x81) => Kind::Text,
            _ => Kind::Binary,
        }
    }

    /// The frame to send to those with that window: compressed, unless that would not be shorter. `None`
    /// when nothing is shared for this message.
    pub(crate) fn shared(&self, window_bits: u8, deflaters: &mut Deflaters) -> Option<&Bytes> {
        let twin = self.compressed.as_ref()?.get(deflate::window_index(window_bits))?;
        let compressed = twin.get_or_init(|| {
            let frame = deflate::shared_frame(self.kind(), self.payload(), window_bits, deflaters);
            (frame.len() < self.bytes.len()).then_some(frame)
        });
        Some(compressed.as_ref().unwrap_or(&self.bytes))
    }

    /// Header and payload together, in bytes.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn bytes(&self) -> &Bytes {
        &self.bytes
    }
}

impl From<Kind> for OpCode {
    fn from(kind: Kind) -> OpCode {
        match kind {
            Kind::Text => OpCode::Data(Data::Text),
            Kind::Binary => OpCode::Data(Data::Binary),
        }
    }
}

/// The header of a message in one frame that is not masked.
#[inline]
pub(crate) fn message_header(kind: Kind, is_compressed: bool) -> FrameHeader {
    // RSV1 marks a compressed message (RFC 7692, 6).
    FrameHeader { opcode: kind.into(), rsv1: is_compressed, ..FrameHeader::default() }
}

/// Appends one frame (RFC 6455, 5.2), its payload under the mask of `header`, if it has one.
#[inline(always)]
pub(crate) fn encode_frame(out: &mut Vec<u8>, header: &FrameHeader, payload: &[u8]) {
    out.reserve(HEADER_BYTES_MAX + payload.len());
    encode_header(out, header, payload.len());
    let start = out.len();
    out.extend_from_slice(payload);
    if let Some(mask) = header.mask {
        apply_mask(&mut out[start..], mask, 0);
    }
}

/// Appends the header of a frame whose payload has `len` bytes.
#[inline(always)]
pub(crate) fn encode_header(out: &mut Vec<u8>, header: &FrameHeader, len: usize) {
    let (bytes, used) = header_bytes(header, len);
    let end = out.len() + used;
    // All of it, and then cut: a copy whose length the compiler knows is no call.
    out.extend_from_slice(&bytes);
    out.truncate(end);
}

/// That header, and how much of the space it takes. `FrameHeader::format` writes the same in 200
/// instructions more, which is as much as all the rest of a short answer.
#[inline(always)]
pub(crate) fn header_bytes(header: &FrameHeader, len: usize) -> ([u8; HEADER_BYTES_MAX], usize) {
    let mut bytes = [0; HEADER_BYTES_MAX];
    let bits =
        [(header.is_final, 0x80), (header.rsv1, 0x40), (header.rsv2, 0x20), (header.rsv3, 0x10)];
    let set = bits.into_iter().filter(|(is_set, _)| *is_set).map(|(_, bit)| bit);
    bytes[0] = set.fold(u8::from(header.opcode), |first, bit| first | bit);
    let used = match len {
        0..=125 => {
            bytes[1] = len as u8;
            2
        }
        126..=0xffff => {
            bytes[1] = 126;
            bytes[2..4].copy_from_slice(&(len as u16).to_be_bytes());
            4
        }
        _ => {
            bytes[1] = 127;
            bytes[2..10].copy_from_slice(&(len as u64).to_be_bytes());
            10
        }
    };
    let Some(mask) = header.mask else { return (bytes, used) };
    bytes[1] |= 0x80;
    bytes[used..used + 4].copy_from_slice(&mask);
    (bytes, used + 4)
}

/// Masks a part of a payload that begins at `offset` of it, or removes its mask (RFC 6455, 5.3).
#[inline(always)]
pub(crate) fn apply_mask(part: &mut [u8], mask: [u8; 4], offset: usize) {
    let mut key = mask;
    key.rotate_left(offset % 4);
    let wide = u32::from_ne_bytes(key);
    // A word at a time, and the compiler takes as many as the processor's vectors hold. Words of 16 bytes it would
    // take apart again, which large messages are slower for.
    let (words, rest) = part.as_chunks_mut::<4>();
    for word in words {
        *word = (u32::from_ne_bytes(*word) ^ wide).to_ne_bytes();
    }
    rest.iter_mut().zip(&key).for_each(|(byte, key)| *byte ^= key);
}

/// A client's frame with any first byte, legal or not, masked so that a mask out of step is noticed.
#[cfg(test)]
pub(crate) fn client_frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    encode_frame(&mut frame, &header_of(first, Some([0x12, 0x34, 0x56, 0x78])), payload);
    frame
}

/// A header with any first byte.
#[cfg(test)]
pub(crate) fn header_of(first: u8, mask: Option<[u8; 4]>) -> FrameHeader {
    FrameHeader {
        is_final: first & 0x80 != 0,
        rsv1: first & 0x40 != 0,
        rsv2: first & 0x20 != 0,
        rsv3: first & 0x10 != 0,
        opcode: OpCode::from(first & 0x0f),
        mask,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_those_of_tungstenite() {
        for len in [0, 1, 125, 126, 127, 0xffff, 0x1_0000, 1 << 40] {
            for first in (0..=255).filter(|first| matches!(first & 0x0f, 0..=2 | 8..=10)) {
                for mask in [None, Some([0xa1, 0xb2, 0xc3, 0xd4])] {
                    let header = header_of(first, mask);
                    let mut theirs = Vec::new();
                    header.format(len as u64, &mut theirs).expect("memory takes all");
                    let (ours, used) = header_bytes(&header, len);
                    assert_eq!(ours[..used], theirs, "{header:?} of {len} bytes");
                }
            }
        }
    }

    #[test]
    fn a_payload_is_masked_byte_by_byte() {
        for len in [0, 1, 3, 4, 5, 17, 125, 126, 300, 70_000] {
            let payload: Vec<u8> = (0..len).map(|n| n as u8).collect();
            let mask = [0xa1, 0xb2, 0xc3, 0xd4];
            let mut frame = Vec::new();
            encode_frame(&mut frame, &header_of(0x82, Some(mask)), &payload);
            let masked = &frame[frame.len() - len..];
            assert_eq!(frame[frame.len() - len - 4..][..4], mask);
            let naive = payload.iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key);
            assert!(masked.iter().copied().eq(naive), "{len} bytes");
            let (mut first, second) = masked.split_at(len / 3);
            let mut parts = first.to_vec();
            apply_mask(&mut parts, mask, 0);
            parts.extend_from_slice(second);
            first = &payload[..len / 3];
            apply_mask(&mut parts[len / 3..], mask, len / 3);
            assert_eq!((parts.as_slice(), first), (payload.as_slice(), first), "in two parts");
        }
    }

    #[test]
    fn every_length_form_is_encoded() {
        for (len, header) in [(0, 2), (125, 2), (126, 4), (65_535, 4), (65_536, 10)] {
            let frame = PreparedFrame::new(Message::Binary(&vec![7; len]));
            assert_eq!(frame.len(), header + len, "payload of {len} bytes");
            assert_eq!(frame.payload().len(), len);
            assert_eq!(frame.bytes()[0], 0x82);
        }
    }
}
