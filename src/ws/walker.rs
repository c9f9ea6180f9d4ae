//! A client's stream, cut where frames begin and end, without copying a payload.

use std::ops::Range;

use tungstenite::protocol::frame::{
    FrameHeader,
    coding::{Control, Data, OpCode},
};

use super::frame::Kind;

/// The longest header of a client's frame, in bytes (RFC 6455, 5.2).
const HEADER_BYTES_MAX: usize = 14;

/// Follows one stream of frames. Used by one thread.
#[derive(Debug, Default)]
pub(super) struct Walker {
    /// The beginning of a header that is not whole yet.
    header: [u8; HEADER_BYTES_MAX],
    header_len: usize,
    /// What is left of the payload that is passing by.
    payload_left: u64,
    lost: bool,
}

/// What comes next in a stream.
#[derive(Debug)]
pub(super) enum Piece<'b> {
    /// A frame, and the length of its payload.
    Begins(FrameHeader, u64),
    /// A part of its payload, still masked; never empty.
    Payload(&'b [u8]),
    /// A header that cannot be one. Nothing can be told about what follows.
    Lost,
}

impl Walker {
    /// Takes the next piece off the front of `bytes`. `None` when they are used up.
    pub(super) fn next<'b>(&mut self, bytes: &mut &'b [u8]) -> Option<Piece<'b>> {
        if self.lost {
            *bytes = &[];
            return None;
        }
        if self.payload_left > 0 && !bytes.is_empty() {
            let left = usize::try_from(self.payload_left).unwrap_or(usize::MAX);
            let (payload, rest) = bytes.split_at(left.min(bytes.len()));
            self.payload_left -= payload.len() as u64;
            *bytes = rest;
            return Some(Piece::Payload(payload));
        }
        while !bytes.is_empty() {
            match self.header(bytes) {
                Ok(Some((header, len))) => {
                    self.payload_left = len;
                    return Some(Piece::Begins(header, len));
                }
                Ok(None) => {}
                Err(ReservedOpcode) => {
                    self.lost = true;
                    *bytes = &[];
                    return Some(Piece::Lost);
                }
            }
        }
        None
    }

    /// Whether the payload that is passing by ends here.
    pub(super) fn is_payload_over(&self) -> bool {
        self.payload_left == 0
    }

    /// Whether everything so far makes whole frames.
    pub(super) fn is_between_frames(&self) -> bool {
        self.header_len == 0 && self.payload_left == 0 && !self.lost
    }

    /// Takes a header, or as much of it as there is, off the front of `bytes`.
    fn header(&mut self, bytes: &mut &[u8]) -> Result<Option<(FrameHeader, u64)>, ReservedOpcode> {
        if self.header_len == 0 {
            // The usual case: it is all here.
            if let Some((header, len, used)) = parse(bytes)? {
                *bytes = &bytes[used..];
                return Ok(Some((header, len)));
            }
        }
        let before = self.header_len;
        let take = bytes.len().min(HEADER_BYTES_MAX - before);
        self.header[before..before + take].copy_from_slice(&bytes[..take]);
        self.header_len += take;
        match parse(&self.header[..self.header_len])? {
            Some((header, len, used)) => {
                self.header_len = 0;
                *bytes = &bytes[used - before..];
                Ok(Some((header, len)))
            }
            None => {
                *bytes = &bytes[take..];
                Ok(None)
            }
        }
    }
}

struct ReservedOpcode;

/// The header at the front of `bytes`, the length of its payload and its own (RFC 6455, 5.2). The
/// machine's own parser reads through a cursor, which costs more than all the rest of a look ahead.
fn parse(bytes: &[u8]) -> Result<Option<(FrameHeader, u64, usize)>, ReservedOpcode> {
    let [first, second, rest @ ..] = bytes else { return Ok(None) };
    let opcode = OpCode::from(first & 0x0f);
    if matches!(opcode, OpCode::Data(Data::Reserved(_)) | OpCode::Control(Control::Reserved(_))) {
        return Err(ReservedOpcode);
    }
    let (len, rest) = match second & 0x7f {
        126 => match rest.split_first_chunk() {
            Some((len, rest)) => (u64::from(u16::from_be_bytes(*len)), rest),
            None => return Ok(None),
        },
        127 => match rest.split_first_chunk() {
            Some((len, rest)) => (u64::from_be_bytes(*len), rest),
            None => return Ok(None),
        },
        len => (u64::from(len), rest),
    };
    let (mask, rest) = match (second & 0x80, rest.split_first_chunk()) {
        (0, _) => (None, rest),
        (_, Some((mask, rest))) => (Some(*mask), rest),
        (_, None) => return Ok(None),
    };
    let header = FrameHeader {
        is_final: first & 0x80 != 0,
        rsv1: first & 0x40 != 0,
        rsv2: first & 0x20 != 0,
        rsv3: first & 0x10 != 0,
        opcode,
        mask,
    };
    Ok(Some((header, len, bytes.len() - rest.len())))
}

/// A data message that is one frame and all here, if that is what `bytes` begin with: its kind, where its
/// payload is, and its mask. Whatever else they begin with, or a payload above `bytes_max`, is `None`.
pub(super) fn whole_message(
    bytes: &[u8],
    bytes_max: usize,
) -> Option<(Kind, Range<usize>, [u8; 4])> {
    let kind = match bytes.first()? {
        // FIN, no reserved bits, and one of the two opcodes of data.
        0x81 => Kind::Text,
        0x82 => Kind::Binary,
        _ => return None,
    };
    let (header, len, start) = parse(bytes).ok()??;
    let end = start + usize::try_from(len).ok().filter(|len| *len <= bytes_max)?;
    (end <= bytes.len()).then_some((kind, start..end, header.mask?))
}

/// Removes a client's mask (RFC 6455, 5.3) from a part of a payload that begins at `offset` of it.
pub(super) fn unmask(part: &mut [u8], mask: [u8; 4], offset: usize) {
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

/// A client's frame with any first byte, legal or not, masked so that a mask out of step is noticed. It does not
/// trust `unmask`.
#[cfg(test)]
pub(crate) fn client_frame(first: u8, payload: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [0x12, 0x34, 0x56, 0x78];
    let mut frame = vec![first];
    match payload.len() {
        len @ 0..=125 => frame.push(0x80 | len as u8),
        len @ 126..=65_535 => {
            frame.push(0x80 | 126);
            frame.extend_from_slice(&(len as u16).to_be_bytes());
        }
        len => {
            frame.push(0x80 | 127);
            frame.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(&MASK);
    frame.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_the_same_however_the_stream_is_cut() {
        let payload = vec![b'x'; 300];
        let mut stream = client_frame(0x82, &payload);
        stream.extend(client_frame(0x89, b""));
        stream.extend(client_frame(0x81, b"text"));
        for step in [1, 2, 3, 5, 17, 1000] {
            let (mut walker, mut frames, mut bytes) = (Walker::default(), Vec::new(), 0);
            for mut chunk in stream.chunks(step) {
                while let Some(piece) = walker.next(&mut chunk) {
                    match piece {
                        Piece::Begins(_, len) => frames.push(len),
                        Piece::Payload(part) => bytes += part.len(),
                        Piece::Lost => panic!("lost in steps of {step}"),
                    }
                }
            }
            assert_eq!((frames.as_slice(), bytes), ([300, 0, 4].as_slice(), 304));
            assert!(walker.is_between_frames());
        }
    }

    #[test]
    fn a_reserved_opcode_is_the_end() {
        let mut walker = Walker::default();
        let mut bytes: &[u8] = &[0x83, 0x80, 0, 0, 0, 0, 0x81];
        assert!(matches!(walker.next(&mut bytes), Some(Piece::Lost)));
        assert!(walker.next(&mut bytes).is_none() && !walker.is_between_frames());
    }
}
