//! permessage-deflate (RFC 7692): compresses and inflates the payload of one message at a time.
//!
//! A message is inflated once it is complete, so one inflater serves all connections of a thread,
//! and an idle connection keeps nothing.

use bytes::Bytes;
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use super::{
    close::CloseReason,
    encode::{self, Kind},
    extension::Agreement,
};

/// The bytes that a sender removes from the end of each message, and a receiver restores (RFC 7692,
/// 7.2.1).
const TAIL: [u8; 4] = [0x00, 0x00, 0xff, 0xff];

/// The most that compression can add to an incompressible message: five bytes for each block of 64
/// KiB, and some for the end. A compressed message beyond the limit plus this cannot inflate to a
/// legal one.
pub(crate) const OVERHEAD_BYTES_MAX: usize = 1024;

/// Bytes inflated at a time, so that a decompression bomb is detected early.
const STEP_BYTES: usize = 16 << 10;

/// The most final blocks of one message. A final block takes only two bytes, and each costs a reset
/// of the inflater.
const FINAL_BLOCKS_MAX: usize = 16;

/// The largest buffer for inflated data that a thread keeps, so that one large message does not
/// hold memory forever.
const INFLATED_KEPT_BYTES_MAX: usize = 64 << 10;

/// The smallest and largest window for compression, as powers of two.
const WINDOW_BITS_MIN: u8 = 9;
const WINDOW_BITS_MAX: u8 = 15;

/// The number of these window sizes.
pub(crate) const WINDOWS: usize = (WINDOW_BITS_MAX - WINDOW_BITS_MIN + 1) as usize;

/// The smallest prepared frame that gets a compressed form, whatever the threshold.
pub(crate) const SHARED_BYTES_MIN: usize = 64;

/// Returns the index of a window size.
pub(crate) fn window_index(window_bits: u8) -> usize {
    usize::from(window_bits.clamp(WINDOW_BITS_MIN, WINDOW_BITS_MAX) - WINDOW_BITS_MIN)
}

/// Estimated bytes of the context of a connection's compressor, and of its inflater.
const COMPRESS_BYTES: usize = 290 << 10;
const INFLATE_BYTES: usize = 40 << 10;

/// A thread's compressors and inflater, made when first needed. Used by one thread.
pub struct Deflaters {
    level: Compression,
    compress: [Option<Box<Compress>>; WINDOWS],
    inflate: Option<Box<Decompress>>,
    /// The buffer of the last inflated message.
    inflated: Vec<u8>,
}

/// The compression state of one connection.
pub struct Deflate {
    agreement: Agreement,
    /// Kept across messages if the agreement allows context takeover; `None` before the first
    /// message.
    own_compress: Option<Box<Compress>>,
    own_inflate: Option<Box<Decompress>>,
}

impl Deflaters {
    /// Makes compressors of `level`, 0 (store) to 9 (best).
    pub fn new(level: u32) -> Deflaters {
        Deflaters {
            level: Compression::new(level),
            compress: Default::default(),
            inflate: None,
            inflated: Vec::new(),
        }
    }

    /// Compresses one message without context, and appends it to `out`.
    fn compress_alone(&mut self, window_bits: u8, payload: &[u8], out: &mut Vec<u8>) {
        let level = self.level;
        let place = &mut self.compress[window_index(window_bits)];
        let compress = place.get_or_insert_with(|| new_compress(level, window_bits));
        compress.reset();
        compress_into(compress, payload, out);
    }
}

fn new_compress(level: Compression, window_bits: u8) -> Box<Compress> {
    Box::new(Compress::new_with_window_bits(level, false, window_bits))
}

impl Deflate {
    /// Makes the state of one connection, which allocates nothing before the first message.
    pub fn new(agreement: Agreement) -> Deflate {
        Deflate { agreement, own_compress: None, own_inflate: None }
    }

    /// Returns the bytes that the contexts of this connection take, estimated.
    pub fn held_bytes(&self) -> usize {
        let compress = self.own_compress.as_ref().map_or(0, |_| COMPRESS_BYTES);
        compress + self.own_inflate.as_ref().map_or(0, |_| INFLATE_BYTES)
    }

    /// Returns the window size for a shared compressed frame, or `None` if this connection's
    /// messages depend on each other, so that nothing can be shared.
    pub fn shared_window_bits(&self) -> Option<u8> {
        let shares = self.agreement.server_no_context_takeover;
        shares.then_some(self.agreement.server_window_bits)
    }

    /// Appends `payload` as one compressed frame.
    pub fn write_frame(
        &mut self,
        kind: Kind,
        payload: &[u8],
        deflaters: &mut Deflaters,
        scratch: &mut Vec<u8>,
        out: &mut Vec<u8>,
    ) {
        scratch.clear();
        match self.shared_window_bits() {
            Some(bits) => deflaters.compress_alone(bits, payload, scratch),
            None => {
                let (level, bits) = (deflaters.level, self.agreement.server_window_bits);
                let compress = self.own_compress.get_or_insert_with(|| new_compress(level, bits));
                compress_into(compress, payload, scratch);
            }
        }
        encode::encode_frame(out, &encode::message_header(kind, true), scratch);
    }
}

/// The state needed to inflate a connection's messages.
pub struct Inflater<'c> {
    /// The state of the connection.
    pub deflate: &'c mut Deflate,
    /// The state that all connections of a thread share.
    pub deflaters: &'c mut Deflaters,
}

impl Inflater<'_> {
    /// Inflates one message to at most `bytes_max` bytes. An error is the reason to close with.
    pub(crate) fn inflate(
        &mut self,
        compressed: &[u8],
        bytes_max: usize,
    ) -> Result<&[u8], CloseReason> {
        let Deflaters { inflate, inflated, .. } = &mut *self.deflaters;
        let keeps = !self.deflate.agreement.client_no_context_takeover;
        let place = if keeps { &mut self.deflate.own_inflate } else { inflate };
        let inflate = place.get_or_insert_with(|| Box::new(Decompress::new(false)));
        if !keeps {
            inflate.reset(false);
        }
        inflated.clear();
        inflated.shrink_to(INFLATED_KEPT_BYTES_MAX);
        inflate_into(inflate, compressed, inflated, bytes_max)?;
        Ok(inflated)
    }
}

/// Compresses a message into a frame for every connection with this window size.
pub fn shared_frame(
    kind: Kind,
    payload: &[u8],
    window_bits: u8,
    deflaters: &mut Deflaters,
) -> Bytes {
    let mut compressed = Vec::with_capacity(payload.len() / 2 + 16);
    deflaters.compress_alone(window_bits, payload, &mut compressed);
    let mut out = Vec::with_capacity(compressed.len() + encode::HEADER_BYTES_MAX);
    encode::encode_frame(&mut out, &encode::message_header(kind, true), &compressed);
    out.into()
}

/// Compresses one message, and appends it without its tail.
fn compress_into(compress: &mut Compress, payload: &[u8], out: &mut Vec<u8>) {
    let before = compress.total_in();
    loop {
        out.reserve((payload.len() / 2).clamp(64, STEP_BYTES));
        let taken = (compress.total_in() - before) as usize;
        // Compressing into memory fails only on misuse; then nothing is added and the loop ends.
        let status = compress.compress_vec(&payload[taken..], out, FlushCompress::Sync);
        let taken = (compress.total_in() - before) as usize;
        let has_room = out.len() < out.capacity();
        if status.is_err() || (taken == payload.len() && has_room) {
            break;
        }
    }
    if out.ends_with(&TAIL) {
        out.truncate(out.len() - TAIL.len());
    }
    if out.is_empty() {
        // An empty message is one empty block (RFC 7692, 7.2.3.6).
        out.push(0);
    }
}

/// Inflates one message without its tail, and appends at most `bytes_max` bytes.
fn inflate_into(
    inflate: &mut Decompress,
    mut compressed: &[u8],
    plain: &mut Vec<u8>,
    bytes_max: usize,
) -> Result<(), CloseReason> {
    let (start, mut tail) = (plain.len(), &TAIL[..]);
    let mut final_blocks = 0;
    loop {
        if compressed.is_empty() {
            compressed = std::mem::take(&mut tail);
        }
        let room = bytes_max + 1 - (plain.len() - start);
        plain.reserve(room.min(STEP_BYTES));
        let (taken, given) = (inflate.total_in(), plain.len());
        let status = inflate.decompress_vec(compressed, plain, FlushDecompress::Sync);
        compressed = &compressed[(inflate.total_in() - taken) as usize..];
        let is_used_up = compressed.is_empty() && tail.is_empty();
        if plain.len() - start > bytes_max {
            return Err(CloseReason::TOO_BIG);
        }
        match status {
            Err(_) => return Err(CloseReason::INVALID_UTF8.because("invalid compressed data")),
            Ok(Status::StreamEnd) => {
                // After a final block (RFC 7692, 7.2.3.4) a new deflate stream begins.
                inflate.reset(false);
                final_blocks += 1;
                if is_used_up {
                    return Ok(());
                }
                if final_blocks > FINAL_BLOCKS_MAX {
                    return Err(CloseReason::INVALID_UTF8.because("too many final blocks"));
                }
            }
            Ok(Status::Ok | Status::BufError) => {
                let has_room = plain.len() < plain.capacity();
                if is_used_up && has_room {
                    return Ok(());
                }
                if !compressed.is_empty() && has_room && plain.len() == given {
                    return Err(CloseReason::INVALID_UTF8.because("invalid compressed data"));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rusty_socks_testing::frames::client_frame;
    use tungstenite::protocol::Role;

    use super::{
        super::{
            decoder::{Decoder, Event, ProtocolConfig},
            extension,
        },
        *,
    };

    const MESSAGE_BYTES_MAX: usize = 100_000;

    fn agreed(offer: &str, takeover: extension::Takeover) -> Agreement {
        extension::negotiate([offer], takeover).expect("legal").expect("accepted")
    }

    fn shared() -> Deflate {
        Deflate::new(agreed("permessage-deflate", extension::Takeover::Never))
    }

    fn dedicated() -> Deflate {
        Deflate::new(agreed("permessage-deflate", extension::Takeover::Allowed))
    }

    /// Returns the payloads of the messages of a stream, or the code it failed with.
    fn inflate(stream: &[u8], step: usize, deflate: &mut Deflate) -> Result<Vec<Vec<u8>>, u16> {
        let (mut decoder, mut deflaters) = (Decoder::default(), Deflaters::new(6));
        let config = ProtocolConfig { role: Role::Server, message_bytes_max: MESSAGE_BYTES_MAX };
        let (mut stream, mut messages) = (stream.to_vec(), Vec::new());
        for mut chunk in stream.chunks_mut(step) {
            loop {
                let inflater = Inflater { deflate, deflaters: &mut deflaters };
                match decoder.next(&mut chunk, &config, Some(inflater)) {
                    Event::Message(received) => {
                        messages.push(received.message().as_bytes().to_vec());
                    }
                    Event::Ping(payload) => assert_eq!(*payload, *b"between"),
                    Event::NeedMore => break,
                    Event::Failed(reason) => return Err(reason.code()),
                    other => panic!("{other:?}"),
                }
            }
        }
        assert!(decoder.is_resting(), "whole messages leave nothing behind");
        Ok(messages)
    }

    /// Returns a client's compressed message, cut into `parts` frames.
    fn compressed(compress: &mut Compress, payload: &[u8], parts: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        compress_into(compress, payload, &mut bytes);
        let mut stream = Vec::new();
        let size = bytes.len().div_ceil(parts).max(1);
        let count = bytes.chunks(size).count();
        for (index, part) in bytes.chunks(size).enumerate() {
            let first = if index == 0 { 0x41 } else { 0x00 };
            let last = if index + 1 == count { 0x80 } else { 0x00 };
            stream.extend(client_frame(first | last, part));
            if last == 0 {
                stream.extend(client_frame(0x89, b"between"));
            }
        }
        stream
    }

    #[test]
    fn messages_come_out_as_they_went_in_however_they_are_cut() {
        let long: Vec<u8> =
            (0..50_000).flat_map(|n: u32| [b'a' + (n % 7) as u8, b' ']).take(90_000).collect();
        let messages: [&[u8]; 4] = [b"hello hello hello", b"", &long, b"hello again"];
        for takeover in [false, true] {
            for (step, parts) in [(1, 1), (3, 2), (7, 5), (100_000, 1), (1000, 3)] {
                let mut compress = Compress::new(Compression::new(6), false);
                let mut stream = Vec::new();
                for message in messages {
                    if !takeover {
                        compress.reset();
                    }
                    stream.extend(compressed(&mut compress, message, parts));
                    stream.extend(client_frame(0x81, b"plain"));
                }
                let mut deflate = if takeover { dedicated() } else { shared() };
                let inflated = inflate(&stream, step, &mut deflate).expect("legal");
                let mut expected = Vec::new();
                for message in messages {
                    expected.push(message.to_vec());
                    expected.push(b"plain".to_vec());
                }
                assert_eq!(inflated, expected, "steps of {step}, {parts} parts, {takeover}");
            }
        }
    }

    #[test]
    fn the_examples_of_the_rfc_are_read() {
        // RFC 7692, 7.2.3.1 to 7.2.3.6: one block, a shared window, no compression, a final block,
        // two blocks, and an empty message.
        for payload in [
            &[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00][..],
            &[0x00, 0x05, 0x00, 0xfa, 0xff, 0x48, 0x65, 0x6c, 0x6c, 0x6f, 0x00],
            &[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00],
            &[0xf2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xff, 0xff, 0xca, 0xc9, 0xc9, 0x07, 0x00],
        ] {
            for step in [1, 1000] {
                let plain = inflate(&client_frame(0xc1, payload), step, &mut shared());
                assert_eq!(plain, Ok(vec![b"Hello".to_vec()]), "{payload:?}");
            }
        }
        let twice = [
            client_frame(0xc1, &[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00]),
            client_frame(0xc1, &[0xf2, 0x00, 0x11, 0x00, 0x00]),
        ];
        let plain = inflate(&twice.concat(), 1000, &mut dedicated()).expect("legal");
        assert_eq!(plain, [b"Hello".to_vec(), b"Hello".to_vec()]);
        let plain = inflate(&client_frame(0xc1, &[0x00]), 1000, &mut shared()).expect("legal");
        assert_eq!(plain, [Vec::<u8>::new()]);
    }

    #[test]
    fn a_bomb_costs_no_more_than_the_limit() {
        let zeros = vec![0; 100 * MESSAGE_BYTES_MAX];
        let mut compress = Compress::new(Compression::new(9), false);
        let mut bytes = Vec::new();
        compress_into(&mut compress, &zeros, &mut bytes);
        assert!(bytes.len() < MESSAGE_BYTES_MAX / 8, "1000:1");
        let (mut deflate, mut deflaters) = (shared(), Deflaters::new(6));
        let mut inflater = Inflater { deflate: &mut deflate, deflaters: &mut deflaters };
        let failed = inflater.inflate(&bytes, MESSAGE_BYTES_MAX).expect_err("it is too big");
        assert_eq!(failed.code(), 1009);
        let held = deflaters.inflated.capacity();
        assert!(held < MESSAGE_BYTES_MAX + 4 * STEP_BYTES, "{held}");
        let mut inflater = Inflater { deflate: &mut deflate, deflaters: &mut deflaters };
        assert_eq!(inflater.inflate(&[0], MESSAGE_BYTES_MAX), Ok(&b""[..]));
        assert!(deflaters.inflated.capacity() <= INFLATED_KEPT_BYTES_MAX, "it is given back");
    }

    #[test]
    fn what_is_against_the_rules_fails_with_its_code() {
        let hello = [0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00];
        for (stream, code) in [
            ([client_frame(0x41, &hello), client_frame(0x81, b"x")].concat(), 1002),
            ([client_frame(0x41, &hello), client_frame(0xc1, b"x")].concat(), 1002),
            ([client_frame(0x41, &hello), client_frame(0xc0, b"x")].concat(), 1002),
            ([client_frame(0x01, b"x"), client_frame(0xc1, &hello)].concat(), 1002),
            (client_frame(0xe1, &hello), 1002),
            (client_frame(0xc3, &hello), 1002),
            (vec![0xc1, 0x01, 0x00], 1002),
            (client_frame(0xc1, &[0xff; 20]), 1007),
            (client_frame(0xc1, &[0x03, 0x00].repeat(100)), 1007),
            (vec![0xc1, 0xff, 0, 0, 0, 0, 1, 0, 0, 0, 1, 2, 3, 4], 1009),
        ] {
            assert_eq!(inflate(&stream, 1000, &mut shared()), Err(code), "{stream:02x?}");
        }
    }

    #[test]
    fn what_is_sent_is_read_by_a_client_with_that_window() {
        let text: Vec<u8> = (0..5000).flat_map(|n: u32| (n / 3).to_string().into_bytes()).collect();
        for bits in 9..=15 {
            let offer = format!("permessage-deflate; server_max_window_bits={bits}");
            for takeover in [extension::Takeover::Never, extension::Takeover::Allowed] {
                let mut deflate = Deflate::new(agreed(&offer, takeover));
                let (mut deflaters, mut scratch, mut out) =
                    (Deflaters::new(3), Vec::new(), Vec::new());
                let mut client = Decompress::new_with_window_bits(false, bits);
                for _ in 0..2 {
                    out.clear();
                    deflate.write_frame(Kind::Text, &text, &mut deflaters, &mut scratch, &mut out);
                    assert_eq!(out[0], 0xc1);
                    assert!(out.len() < text.len() / 2);
                    if takeover == extension::Takeover::Never {
                        client.reset(false);
                    }
                    let mut plain = Vec::new();
                    inflate_into(&mut client, &out[4..], &mut plain, 1 << 20).expect("legal");
                    assert!(plain == text, "window of {bits} bits");
                }
            }
        }
        let mut deflaters = Deflaters::new(3);
        let alone = shared_frame(Kind::Binary, &text, 15, &mut deflaters);
        assert_eq!(alone, shared_frame(Kind::Binary, &text, 15, &mut deflaters), "nothing is kept");
    }
}
