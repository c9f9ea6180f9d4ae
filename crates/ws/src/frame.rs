//! Messages, and frames that are encoded once and shared by all receivers.

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicUsize, Ordering},
};

use bytes::Bytes;

pub use super::encode::Kind;
use super::{
    deflate::{self, Deflaters},
    encode::{HEADER_BYTES_MAX, encode_header, message_header},
};

/// A whole message, borrowed. The UTF-8 of a text is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Message<'a> {
    /// A text message.
    Text(&'a str),
    /// A binary message.
    Binary(&'a [u8]),
}

impl<'a> Message<'a> {
    /// Returns the payload of either kind.
    pub fn as_bytes(&self) -> &'a [u8] {
        match self {
            Message::Text(text) => text.as_bytes(),
            Message::Binary(bytes) => bytes,
        }
    }

    /// Returns the text, or `None` for a binary message.
    pub fn as_text(&self) -> Option<&'a str> {
        match self {
            Message::Text(text) => Some(text),
            Message::Binary(_) => None,
        }
    }

    /// Returns the kind of the message.
    pub fn kind(&self) -> Kind {
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

/// A whole unmasked frame as sent on the wire. Cheap to clone and to share between threads.
///
/// Encode a message once with [`PreparedFrame::new`], then send it to any number of peers.
#[derive(Debug, Clone)]
pub struct PreparedFrame {
    bytes: Bytes,
    header_len: u8,
    /// The compressed forms, each made on first use; `None` for a frame that is never compressed.
    compressed: Option<Arc<Twins>>,
}

/// A compressed form for each window size. Shared by all threads. Each form is made once; other
/// threads that need it meanwhile wait, which takes less time than making it again.
type Twins = [OnceLock<Option<Bytes>>; deflate::WINDOWS];

impl PreparedFrame {
    /// Encodes `message` as one final frame.
    pub fn new(message: Message<'_>) -> PreparedFrame {
        let frame = PreparedFrame::from_parts(message.kind(), &[message.as_bytes()]);
        frame.compressible(deflate::SHARED_BYTES_MIN)
    }

    /// Encodes the concatenation of `parts` as one final frame, in a single allocation.
    pub fn from_parts(kind: Kind, parts: &[&[u8]]) -> PreparedFrame {
        let (bytes, header_len) = encode(kind, parts);
        PreparedFrame { bytes: bytes.into(), header_len, compressed: None }
    }

    /// Encodes as [`from_parts`](PreparedFrame::from_parts) does. `tally` holds what the frame
    /// takes, in bytes, for as long as one of its clones is alive.
    pub fn counted(kind: Kind, parts: &[&[u8]], tally: &Arc<AtomicUsize>) -> PreparedFrame {
        let (bytes, header_len) = encode(kind, parts);
        let bytes = Bytes::from_owner(CountedBytes::new(bytes, tally));
        PreparedFrame { bytes, header_len, compressed: None }
    }

    /// Counts the frame in `tally`, as [`counted`](PreparedFrame::counted) does. Clones that were
    /// made before are not counted.
    pub fn count(mut self, tally: &Arc<AtomicUsize>) -> PreparedFrame {
        self.bytes = Bytes::from_owner(CountedBytes::new(self.bytes, tally));
        self
    }

    /// Returns the payload, without the frame header.
    pub fn payload(&self) -> &[u8] {
        &self.bytes[usize::from(self.header_len)..]
    }

    /// Lets the frame have compressed forms, if the message has at least `bytes_min` bytes.
    pub fn compressible(mut self, bytes_min: usize) -> PreparedFrame {
        if self.payload().len() >= bytes_min {
            self.compressed = Some(Arc::default());
        }
        self
    }

    /// Returns the frame without its compressed forms, for storage.
    pub fn plain(&self) -> PreparedFrame {
        PreparedFrame { bytes: self.bytes.clone(), header_len: self.header_len, compressed: None }
    }

    /// Returns the message.
    pub fn message(&self) -> Message<'_> {
        match self.kind() {
            // The payload was made from a `str`, so this cannot fail.
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

    /// Returns the frame for connections with this window size: compressed, unless that is not
    /// shorter. `None` if the frame has no compressed forms.
    pub fn shared(&self, window_bits: u8, deflaters: &mut Deflaters) -> Option<&Bytes> {
        let twin = self.compressed.as_ref()?.get(deflate::window_index(window_bits))?;
        let compressed = twin.get_or_init(|| {
            let frame = deflate::shared_frame(self.kind(), self.payload(), window_bits, deflaters);
            (frame.len() < self.bytes.len()).then_some(frame)
        });
        Some(compressed.as_ref().unwrap_or(&self.bytes))
    }

    /// Returns the length of header and payload together, in bytes.
    #[allow(clippy::len_without_is_empty, reason = "a frame has a header and is never empty")]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Returns the whole frame: header and payload.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }
}

/// Copies whole frames of a server one behind the other, for a peer that gets all of them. `tally`
/// holds what the copy takes, in bytes, for as long as a part of it is alive.
pub fn join_frames<'f>(
    frames: impl Iterator<Item = &'f Bytes> + Clone,
    tally: &Arc<AtomicUsize>,
) -> Bytes {
    let mut joined = Vec::with_capacity(frames.clone().map(Bytes::len).sum());
    frames.for_each(|frame| joined.extend_from_slice(frame));
    Bytes::from_owner(CountedBytes::new(joined, tally))
}

/// Returns the length of the frame of a server that `bytes` begin with, in bytes: header and
/// payload. Of less than a header nothing is known, and the length is that of `bytes`.
pub fn first_frame_len(bytes: &[u8]) -> usize {
    let after = &bytes[bytes.len().min(2)..];
    let len = match bytes.get(1).map(|second| second & 0x7f) {
        Some(126) => after.first_chunk().map(|len| 4 + usize::from(u16::from_be_bytes(*len))),
        Some(127) => after.first_chunk().map(|len| 10 + u64::from_be_bytes(*len) as usize),
        Some(len) => Some(2 + usize::from(len)),
        None => None,
    };
    len.map_or(bytes.len(), |len| len.min(bytes.len()))
}

/// Encodes the concatenation of `parts` as one final frame. Returns it with the length of its
/// header.
fn encode(kind: Kind, parts: &[&[u8]]) -> (Vec<u8>, u8) {
    let len = parts.iter().map(|part| part.len()).sum();
    let mut bytes = Vec::with_capacity(HEADER_BYTES_MAX + len);
    encode_header(&mut bytes, &message_header(kind, false), len);
    let header_len = bytes.len() as u8;
    for part in parts {
        bytes.extend_from_slice(part);
    }
    (bytes, header_len)
}

/// Estimated bytes of a frame beside its own: the allocations' headers, what counts the clones, and
/// its place in a queue.
const FRAME_BYTES: usize = 192;

/// The bytes of a frame, counted in a tally until the last clone is dropped.
struct CountedBytes<B: AsRef<[u8]>> {
    bytes: B,
    tally: Arc<AtomicUsize>,
}

impl<B: AsRef<[u8]>> CountedBytes<B> {
    fn new(bytes: B, tally: &Arc<AtomicUsize>) -> CountedBytes<B> {
        tally.fetch_add(FRAME_BYTES + bytes.as_ref().len(), Ordering::Relaxed);
        CountedBytes { bytes, tally: Arc::clone(tally) }
    }
}

impl<B: AsRef<[u8]>> AsRef<[u8]> for CountedBytes<B> {
    fn as_ref(&self) -> &[u8] {
        self.bytes.as_ref()
    }
}

impl<B: AsRef<[u8]>> Drop for CountedBytes<B> {
    fn drop(&mut self) {
        self.tally.fetch_sub(FRAME_BYTES + self.bytes.as_ref().len(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_counted_until_its_last_clone_is_gone() {
        let tally = Arc::new(AtomicUsize::new(0));
        let counted = || tally.load(Ordering::Relaxed);
        let frame = PreparedFrame::counted(Kind::Text, &[b"half", b"half"], &tally);
        assert_eq!(
            (frame.payload(), frame.message().as_text()),
            (&b"halfhalf"[..], Some("halfhalf"))
        );
        assert_eq!(counted(), FRAME_BYTES + frame.len());
        let (kept, waiting) = (frame.plain(), frame.bytes().slice(3..));
        drop(frame);
        drop(kept);
        assert!(counted() > 0, "a part of it waits for a client");
        drop(waiting);
        assert_eq!(counted(), 0);
        let late = PreparedFrame::new(Message::Text("x")).count(&tally);
        assert_eq!(counted(), FRAME_BYTES + late.len());
        drop(late);
        assert_eq!(counted(), 0);
    }

    #[test]
    fn frames_that_are_joined_come_apart_where_they_were_joined() {
        let tally = Arc::new(AtomicUsize::new(0));
        let lengths = [0, 1, 125, 126, 127, 65_535, 65_536, 3];
        let frames: Vec<PreparedFrame> =
            lengths.iter().map(|len| PreparedFrame::new(Message::Binary(&vec![7; *len]))).collect();
        let mut joined = join_frames(frames.iter().map(PreparedFrame::bytes), &tally);
        assert_eq!(tally.load(Ordering::Relaxed), FRAME_BYTES + joined.len());
        for frame in &frames {
            let first = joined.split_to(first_frame_len(&joined));
            assert_eq!(first, frame.bytes());
        }
        assert!(joined.is_empty());
        drop(joined);
        assert_eq!(tally.load(Ordering::Relaxed), 0);
        for cut in 0..frames[3].len() {
            let cut = &frames[3].bytes()[..cut];
            assert!(first_frame_len(cut) <= cut.len(), "never more than there is");
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
