//! Frames to send, encoded once and shared by everyone who gets them.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use super::deflate::{self, Deflaters};

/// The longest header of an unmasked frame, in bytes (RFC 6455, 5.2).
pub(crate) const HEADER_BYTES_MAX: usize = 10;

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
        write_header(&mut bytes, kind, len);
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

/// Appends a final, unmasked data frame.
#[inline]
pub(crate) fn write_frame(out: &mut Vec<u8>, kind: Kind, payload: &[u8]) {
    out.reserve(HEADER_BYTES_MAX + payload.len());
    write_header(out, kind, payload.len());
    out.extend_from_slice(payload);
}

/// Appends the header of a final, unmasked data frame (RFC 6455, 5.2).
fn write_header(out: &mut Vec<u8>, kind: Kind, len: usize) {
    write(out, kind, len, false);
}

/// The same for a compressed message, which RSV1 marks (RFC 7692, 6).
pub(super) fn write_compressed_header(out: &mut Vec<u8>, kind: Kind, len: usize) {
    write(out, kind, len, true);
}

fn write(out: &mut Vec<u8>, kind: Kind, len: usize, rsv1: bool) {
    let (bytes, used) = header(kind, len, rsv1);
    let end = out.len() + used;
    // All of it, and then cut: a copy whose length the compiler knows is no call.
    out.extend_from_slice(&bytes);
    out.truncate(end);
}

/// A header, and how much of the space it takes.
pub(crate) fn header(kind: Kind, len: usize, rsv1: bool) -> ([u8; HEADER_BYTES_MAX], usize) {
    let opcode = match kind {
        Kind::Text => 0x1,
        Kind::Binary => 0x2,
    };
    let mut bytes = [0; HEADER_BYTES_MAX];
    bytes[0] = 0x80 | if rsv1 { 0x40 } else { 0 } | opcode;
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
            bytes[2..].copy_from_slice(&(len as u64).to_be_bytes());
            HEADER_BYTES_MAX
        }
    };
    (bytes, used)
}

#[cfg(test)]
mod tests {
    use super::*;

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
