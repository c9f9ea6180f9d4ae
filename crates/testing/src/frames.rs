//! A client's bytes, written by hand, and a look at what comes back.

/// The first byte of a whole text message (RFC 6455, 5.2).
pub const TEXT: u8 = 0x81;
/// The first byte of a whole binary message.
pub const BINARY: u8 = 0x82;
/// The first byte of a Close frame.
pub const CLOSE: u8 = 0x88;

/// What the payload is masked with.
const MASK: [u8; 4] = [0x12, 0x34, 0x56, 0x78];

/// A client's frame with any first byte, legal or not, masked as a client must.
pub fn client_frame(first: u8, payload: &[u8]) -> Vec<u8> {
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

/// The server's frames in `bytes`: the first byte and the payload of each.
///
/// # Panics
/// The bytes end inside of a frame.
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

/// The frames behind the head of a 101, as bytes.
///
/// # Panics
/// `bytes` do not begin with the whole head of a 101.
pub fn behind_101(bytes: &[u8]) -> &[u8] {
    assert!(bytes.starts_with(b"HTTP/1.1 101 "), "refused: {}", String::from_utf8_lossy(bytes));
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").expect("a whole head") + 4;
    &bytes[end..]
}
