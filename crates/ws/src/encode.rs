//! The frame writer (RFC 6455, 5.2): headers, masks, payloads.

use tungstenite::protocol::{
    Role,
    frame::{
        FrameHeader,
        coding::{Control, Data, OpCode},
    },
};

/// The longest header of a frame, in bytes (RFC 6455, 5.2).
pub const HEADER_BYTES_MAX: usize = 14;

/// The kind of a data message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Opcode 1: UTF-8.
    Text,
    /// Opcode 2: any bytes.
    Binary,
}

impl From<Kind> for OpCode {
    fn from(kind: Kind) -> OpCode {
        match kind {
            Kind::Text => OpCode::Data(Data::Text),
            Kind::Binary => OpCode::Data(Data::Binary),
        }
    }
}

/// Returns the header of a message in one unmasked frame.
#[inline]
pub fn message_header(kind: Kind, is_compressed: bool) -> FrameHeader {
    // RSV1 marks a compressed message (RFC 7692, 6).
    FrameHeader { opcode: kind.into(), rsv1: is_compressed, ..FrameHeader::default() }
}

/// Appends one frame (RFC 6455, 5.2). Masks the payload if `header` has a mask.
#[inline(always)]
pub fn encode_frame(out: &mut Vec<u8>, header: &FrameHeader, payload: &[u8]) {
    out.reserve(HEADER_BYTES_MAX + payload.len());
    encode_header(out, header, payload.len());
    let start = out.len();
    out.extend_from_slice(payload);
    if let Some(mask) = header.mask {
        apply_mask(&mut out[start..], mask, 0);
    }
}

/// Appends a message as one frame, masked if `role` is a client. The payload of a text must be
/// UTF-8.
pub fn encode_message(out: &mut Vec<u8>, kind: Kind, payload: &[u8], role: Role) {
    let header = FrameHeader { mask: mask_of(role), ..message_header(kind, false) };
    encode_frame(out, &header, payload);
}

/// Appends a control frame, masked if `role` is a client. The payload must have at most 125 bytes
/// (RFC 6455, 5.5).
pub fn encode_control(out: &mut Vec<u8>, control: Control, payload: &[u8], role: Role) {
    let opcode = OpCode::Control(control);
    let header = FrameHeader { opcode, mask: mask_of(role), ..FrameHeader::default() };
    encode_frame(out, &header, payload);
}

/// Returns the mask of one frame: for a client a new random one each time (RFC 6455, 5.3), for a
/// server none.
fn mask_of(role: Role) -> Option<[u8; 4]> {
    match role {
        Role::Server => None,
        Role::Client => Some(rand::random()),
    }
}

/// Appends the header of a frame whose payload has `len` bytes.
#[inline(always)]
pub fn encode_header(out: &mut Vec<u8>, header: &FrameHeader, len: usize) {
    let (bytes, used) = header_bytes(header, len);
    let end = out.len() + used;
    // Append all bytes and truncate: a copy of constant length is inlined.
    out.extend_from_slice(&bytes);
    out.truncate(end);
}

/// Returns the header's bytes and their number. `FrameHeader::format` writes the same with 200 more
/// instructions, which is as much as the rest of a short answer.
#[inline(always)]
pub fn header_bytes(header: &FrameHeader, len: usize) -> ([u8; HEADER_BYTES_MAX], usize) {
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

/// Masks or unmasks a part of a payload that begins at `offset` (RFC 6455, 5.3).
#[inline(always)]
pub fn apply_mask(part: &mut [u8], mask: [u8; 4], offset: usize) {
    let mut key = mask;
    key.rotate_left(offset % 4);
    let wide = u32::from_ne_bytes(key);
    // The compiler vectorises words of 4 bytes. Words of 16 bytes are slower for large messages,
    // because it splits them again.
    let (words, rest) = part.as_chunks_mut::<4>();
    for word in words {
        *word = (u32::from_ne_bytes(*word) ^ wide).to_ne_bytes();
    }
    rest.iter_mut().zip(&key).for_each(|(byte, key)| *byte ^= key);
}

#[cfg(test)]
mod tests {
    use rusty_socks_testing::frames::header_of;

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
}
