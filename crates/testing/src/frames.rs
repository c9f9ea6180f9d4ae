//! Client frames written by hand, and a parser for server frames.

use rusty_socks_ws::encode::encode_frame;
use tungstenite::protocol::frame::{FrameHeader, coding::OpCode};

/// The first byte of a whole text message (RFC 6455, 5.2).
pub const TEXT: u8 = 0x81;
/// The first byte of a whole binary message.
pub const BINARY: u8 = 0x82;
/// The first byte of a Close frame.
pub const CLOSE: u8 = 0x88;

/// The mask of the payload.
const MASK: [u8; 4] = [0x12, 0x34, 0x56, 0x78];

/// Returns the head of an upgrade at `path`, with further header lines that each end as one.
pub fn upgrade(path: &str, lines: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{lines}\r\n"
    )
}

/// Returns a masked client frame with any first byte, legal or not.
pub fn client_frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    encode_frame(&mut frame, &header_of(first, Some(MASK)), payload);
    frame
}

/// Returns a header with any first byte.
pub fn header_of(first: u8, mask: Option<[u8; 4]>) -> FrameHeader {
    FrameHeader {
        is_final: first & 0x80 != 0,
        rsv1: first & 0x40 != 0,
        rsv2: first & 0x20 != 0,
        rsv3: first & 0x10 != 0,
        opcode: OpCode::from(first & 0x0f),
        mask,
    }
}

/// Returns the server's frames in `bytes`: the first byte and the payload of each.
///
/// # Panics
/// If the bytes end inside a frame.
pub fn server_frames(bytes: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    let mut bytes = bytes;
    std::iter::from_fn(move || {
        let [first, len, behind @ ..] = bytes else {
            assert!(bytes.is_empty(), "half a frame");
            return None;
        };
        let (len, behind) = match (len, behind) {
            (126, [a, b, behind @ ..]) => (usize::from(u16::from_be_bytes([*a, *b])), behind),
            (127, [a, b, c, d, e, f, g, h, behind @ ..]) => {
                (u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h]) as usize, behind)
            }
            (len, behind) => (usize::from(*len), behind),
        };
        let (payload, rest) = behind.split_at_checked(len).expect("a whole frame");
        bytes = rest;
        Some((*first, payload))
    })
}

/// Returns the bytes after the head of a 101.
///
/// # Panics
/// If `bytes` do not begin with a whole head.
pub fn behind_101(bytes: &[u8]) -> &[u8] {
    assert!(bytes.starts_with(b"HTTP/1.1 101 "), "refused: {}", String::from_utf8_lossy(bytes));
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").expect("a whole head") + 4;
    &bytes[end..]
}
