//! permessage-deflate (RFC 7692), as an adaptor below the protocol machine, which does not know it is
//! there: inbound messages are inflated and framed anew, outbound ones leave with RSV1 set.
//!
//! A message is inflated when the last of it has come. Until then its compressed bytes wait, so the one
//! inflater of a worker serves all its connections, and an idle connection keeps nothing.

use bytes::Bytes;
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};
use tungstenite::protocol::frame::{
    FrameHeader,
    coding::{Data, OpCode},
};

use super::{
    close::CloseReason,
    extension::Agreement,
    frame::{self, Kind},
    walker::{Piece, Walker, unmask},
};

/// What a sender takes off the end of each message, and a receiver puts back (RFC 7692, 7.2.1).
const TAIL: [u8; 4] = [0x00, 0x00, 0xff, 0xff];

/// What compression may add to a message that does not compress: five bytes for each block of 64 KiB,
/// and some for the end. A message whose compressed form is longer cannot fit the limit.
const OVERHEAD_BYTES_MAX: usize = 1024;

/// How much is inflated at a time, so that a bomb is noticed before it has gone off.
const STEP_BYTES: usize = 16 << 10;

/// Final blocks that one message may have. Two bytes make one, and each costs a reset of the inflater.
const FINAL_BLOCKS_MAX: usize = 16;

/// The smallest and largest window that is compressed with, as powers of two.
const WINDOW_BITS_MIN: u8 = 9;
const WINDOW_BITS_MAX: u8 = 15;

/// How many windows those are.
pub(super) const WINDOWS: usize = (WINDOW_BITS_MAX - WINDOW_BITS_MIN + 1) as usize;

/// A prepared frame with less is not worth a place for its compressed form, whatever the threshold.
pub(super) const SHARED_BYTES_MIN: usize = 64;

/// The place of a window among all of them.
pub(super) fn window_index(window_bits: u8) -> usize {
    usize::from(window_bits.clamp(WINDOW_BITS_MIN, WINDOW_BITS_MAX) - WINDOW_BITS_MIN)
}

/// A worker's compressors and its inflater, made when they are first needed. Used by one thread.
pub(crate) struct Deflaters {
    level: Compression,
    compress: [Option<Box<Compress>>; WINDOWS],
    inflate: Option<Box<Decompress>>,
}

/// One connection's side of the extension.
pub(crate) struct Deflate {
    agreement: Agreement,
    /// Kept across messages where the agreement allows it; `None` until the first.
    own_compress: Option<Box<Compress>>,
    own_inflate: Option<Box<Decompress>>,
}

impl Deflaters {
    pub(crate) fn new(level: u32) -> Deflaters {
        Deflaters { level: Compression::new(level), compress: Default::default(), inflate: None }
    }

    /// Compresses one message by itself, appending to `out`.
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
    pub(crate) fn new(agreement: Agreement) -> Deflate {
        Deflate { agreement, own_compress: None, own_inflate: None }
    }

    /// The window that a shared compressed form must keep to, or `None` when this connection's messages
    /// depend on each other and nothing can be shared.
    pub(crate) fn shared_window_bits(&self) -> Option<u8> {
        let shares = self.agreement.server_no_context_takeover;
        shares.then_some(self.agreement.server_window_bits)
    }

    /// Appends `payload` as one compressed frame.
    pub(crate) fn write_frame(
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
        frame::write_compressed_header(out, kind, scratch.len());
        out.extend_from_slice(scratch);
    }
}

/// A message as one compressed frame that every connection with that window can be sent.
pub(crate) fn shared_frame(
    kind: Kind,
    payload: &[u8],
    window_bits: u8,
    deflaters: &mut Deflaters,
) -> Bytes {
    let mut compressed = Vec::with_capacity(payload.len() / 2 + 16);
    deflaters.compress_alone(window_bits, payload, &mut compressed);
    let mut out = Vec::with_capacity(compressed.len() + frame::HEADER_BYTES_MAX);
    frame::write_compressed_header(&mut out, kind, compressed.len());
    out.extend_from_slice(&compressed);
    out.into()
}

/// Appends the compressed form of one message, without its tail.
fn compress_into(compress: &mut Compress, payload: &[u8], out: &mut Vec<u8>) {
    let before = compress.total_in();
    loop {
        out.reserve((payload.len() / 2).clamp(64, STEP_BYTES));
        let taken = (compress.total_in() - before) as usize;
        // Compressing into memory fails only on misuse, and then nothing is added and the loop ends.
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

/// Turns a client's compressed stream into the plain one that the protocol machine reads.
#[derive(Default)]
pub(crate) struct Inbound {
    walker: Walker,
    /// The message that is not whole yet.
    open: Option<Open>,
    /// The frame that is passing by.
    current: Current,
    /// The compressed bytes of the open message, unmasked.
    compressed: Vec<u8>,
}

enum Open {
    Plain,
    Compressed(OpCode),
}

#[derive(Default)]
struct Current {
    mask: [u8; 4],
    offset: usize,
    /// Its payload is collected; that of another frame passes through as it is.
    is_compressed: bool,
    is_last: bool,
}

impl Inbound {
    /// Moves one frame, or a part of one, from `input` to the end of `plain`. `Ok(false)` when the input
    /// is used up. An error is the code to fail the connection with.
    pub(crate) fn step(
        &mut self,
        input: &mut &[u8],
        plain: &mut Vec<u8>,
        deflate: &mut Deflate,
        deflaters: &mut Deflaters,
        message_bytes_max: usize,
    ) -> Result<bool, CloseReason> {
        let Some(piece) = self.walker.next(input) else { return Ok(false) };
        match piece {
            Piece::Lost => return Err(protocol("invalid opcode")),
            Piece::Begins(header, len) => self.begin(&header, len, plain, message_bytes_max)?,
            Piece::Payload(payload) if !self.current.is_compressed => {
                plain.extend_from_slice(payload);
                return Ok(true);
            }
            Piece::Payload(payload) => {
                let start = self.compressed.len();
                self.compressed.extend_from_slice(payload);
                unmask(&mut self.compressed[start..], self.current.mask, self.current.offset);
                self.current.offset += payload.len();
            }
        }
        let is_whole = self.current.is_last && self.walker.is_payload_over();
        if self.current.is_compressed && is_whole {
            self.finish(plain, deflate, deflaters, message_bytes_max)?;
        }
        Ok(true)
    }

    /// Whether everything so far makes whole messages.
    pub(crate) fn is_at_rest(&self) -> bool {
        self.open.is_none() && self.walker.is_between_frames()
    }

    fn begin(
        &mut self,
        header: &FrameHeader,
        len: u64,
        plain: &mut Vec<u8>,
        message_bytes_max: usize,
    ) -> Result<(), CloseReason> {
        let is_data = matches!(header.opcode, OpCode::Data(_));
        let is_continuation = header.opcode == OpCode::Data(Data::Continue);
        let begins_compressed = is_data && !is_continuation && header.rsv1;
        let is_compressed = match &self.open {
            Some(_) if begins_compressed => return Err(protocol("a message is open already")),
            Some(Open::Compressed(_)) if is_data && !is_continuation => {
                return Err(protocol("a message is open already"));
            }
            Some(Open::Compressed(_)) => is_continuation,
            Some(Open::Plain) | None => begins_compressed,
        };
        self.current = Current {
            mask: header.mask.unwrap_or_default(),
            offset: 0,
            is_compressed,
            is_last: header.is_final,
        };
        if !is_compressed {
            if is_data {
                self.open = (!header.is_final).then_some(Open::Plain);
            }
            // The protocol machine judges it, reserved bits and all.
            header.format(len, plain).map_err(|error| protocol(&error.to_string()))?;
            return Ok(());
        }
        if header.rsv2 || header.rsv3 || (is_continuation && header.rsv1) {
            return Err(protocol("reserved bits are set"));
        }
        if header.mask.is_none() {
            return Err(protocol("a client's frame must be masked"));
        }
        let collected = self.compressed.len() as u64;
        if collected.saturating_add(len) > (message_bytes_max + OVERHEAD_BYTES_MAX) as u64 {
            return Err(CloseReason::TOO_BIG);
        }
        if begins_compressed {
            self.compressed.clear();
            self.open = Some(Open::Compressed(header.opcode));
        }
        Ok(())
    }

    /// The last of a compressed message has come.
    fn finish(
        &mut self,
        plain: &mut Vec<u8>,
        deflate: &mut Deflate,
        deflaters: &mut Deflaters,
        message_bytes_max: usize,
    ) -> Result<(), CloseReason> {
        let Some(Open::Compressed(opcode)) = self.open.take() else { return Ok(()) };
        self.compressed.extend_from_slice(&TAIL);
        let keeps = !deflate.agreement.client_no_context_takeover;
        let place = if keeps { &mut deflate.own_inflate } else { &mut deflaters.inflate };
        let inflate = place.get_or_insert_with(|| Box::new(Decompress::new(false)));
        if !keeps {
            inflate.reset(false);
        }
        // The header's length is known only afterwards, so its place is kept.
        let start = plain.len();
        plain.resize(start + HEADER_SPACE, 0);
        inflate_into(inflate, &self.compressed, plain, message_bytes_max)?;
        let len = plain.len() - start - HEADER_SPACE;
        let mut head = Vec::with_capacity(HEADER_SPACE);
        // Masked with zeros: a mask that changes nothing satisfies the machine's rule at no cost.
        let header = FrameHeader { opcode, mask: Some([0; 4]), ..FrameHeader::default() };
        header.format(len as u64, &mut head).map_err(|error| protocol(&error.to_string()))?;
        let unused = HEADER_SPACE - head.len();
        plain[start + unused..start + HEADER_SPACE].copy_from_slice(&head);
        plain.drain(start..start + unused);
        self.compressed.clear();
        if self.compressed.capacity() > STEP_BYTES {
            self.compressed = Vec::new();
        }
        Ok(())
    }
}

/// Room for the longest header of a client's frame.
const HEADER_SPACE: usize = 14;

/// Appends the plain form of one message, of at most `message_bytes_max` bytes.
fn inflate_into(
    inflate: &mut Decompress,
    mut compressed: &[u8],
    plain: &mut Vec<u8>,
    message_bytes_max: usize,
) -> Result<(), CloseReason> {
    let start = plain.len();
    let mut final_blocks = 0;
    loop {
        let room = message_bytes_max + 1 - (plain.len() - start);
        plain.reserve(room.min(STEP_BYTES));
        let (taken, given) = (inflate.total_in(), plain.len());
        let status = inflate.decompress_vec(compressed, plain, FlushDecompress::Sync);
        compressed = &compressed[(inflate.total_in() - taken) as usize..];
        if plain.len() - start > message_bytes_max {
            return Err(CloseReason::TOO_BIG);
        }
        match status {
            Err(_) => return Err(CloseReason::INVALID_UTF8.because("invalid compressed data")),
            Ok(Status::StreamEnd) => {
                // A final block (RFC 7692, 7.2.3.4): what follows begins a stream of its own.
                inflate.reset(false);
                final_blocks += 1;
                if compressed.is_empty() {
                    return Ok(());
                }
                if final_blocks > FINAL_BLOCKS_MAX {
                    return Err(CloseReason::INVALID_UTF8.because("too many final blocks"));
                }
            }
            Ok(Status::Ok | Status::BufError) => {
                let is_stuck = plain.len() == given;
                if compressed.is_empty() && plain.len() < plain.capacity() {
                    return Ok(());
                }
                if is_stuck && plain.len() < plain.capacity() {
                    return Err(CloseReason::INVALID_UTF8.because("invalid compressed data"));
                }
            }
        }
    }
}

fn protocol(what: &str) -> CloseReason {
    CloseReason::PROTOCOL.because(what.to_owned())
}

#[cfg(test)]
mod tests {
    use super::{super::extension, super::walker::client_frame, *};

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

    /// What the protocol machine would read, or the code the stream failed with.
    fn inflate(stream: &[u8], step: usize, deflate: &mut Deflate) -> Result<Vec<u8>, u16> {
        let (mut inbound, mut deflaters) = (Inbound::default(), Deflaters::new(6));
        let mut plain = Vec::new();
        for mut chunk in stream.chunks(step) {
            let input = &mut chunk;
            while inbound
                .step(input, &mut plain, deflate, &mut deflaters, MESSAGE_BYTES_MAX)
                .map_err(|reason| reason.code())?
            {}
        }
        assert!(inbound.is_at_rest(), "whole messages leave nothing behind");
        Ok(plain)
    }

    /// A client's compressed message, cut into `parts` frames.
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

    /// The text messages of a plain stream.
    fn texts(stream: &[u8]) -> Vec<Vec<u8>> {
        let (mut walker, mut rest, mut texts) = (Walker::default(), stream, Vec::new());
        let mut is_text = false;
        let mut mask = [0; 4];
        while let Some(piece) = walker.next(&mut rest) {
            match piece {
                Piece::Begins(header, _) => {
                    is_text = header.opcode == OpCode::Data(Data::Text);
                    mask = header.mask.expect("masked");
                    if is_text {
                        assert!(!header.rsv1 && header.is_final);
                        texts.push(Vec::new());
                    }
                }
                Piece::Payload(part) if is_text => {
                    let text = texts.last_mut().expect("it has begun");
                    let offset = text.len();
                    text.extend_from_slice(part);
                    unmask(&mut text[offset..], mask, offset);
                }
                Piece::Payload(_) => {}
                Piece::Lost => panic!("the plain stream is legal"),
            }
        }
        texts
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
                let plain = inflate(&stream, step, &mut deflate).expect("legal");
                let mut expected = Vec::new();
                for message in messages {
                    expected.push(message.to_vec());
                    expected.push(b"plain".to_vec());
                }
                assert_eq!(texts(&plain), expected, "steps of {step}, {parts} parts, {takeover}");
            }
        }
    }

    #[test]
    fn the_examples_of_the_rfc_are_read() {
        // RFC 7692, 7.2.3.1 to 7.2.3.6: one block, a shared window, no compression, a final block, two
        // blocks, and an empty message.
        for payload in [
            &[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00][..],
            &[0x00, 0x05, 0x00, 0xfa, 0xff, 0x48, 0x65, 0x6c, 0x6c, 0x6f, 0x00],
            &[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00],
            &[0xf2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xff, 0xff, 0xca, 0xc9, 0xc9, 0x07, 0x00],
        ] {
            let plain = inflate(&client_frame(0xc1, payload), 1000, &mut shared()).expect("legal");
            assert_eq!(texts(&plain), [b"Hello".to_vec()], "{payload:?}");
        }
        let twice = [
            client_frame(0xc1, &[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00]),
            client_frame(0xc1, &[0xf2, 0x00, 0x11, 0x00, 0x00]),
        ];
        let plain = inflate(&twice.concat(), 1000, &mut dedicated()).expect("legal");
        assert_eq!(texts(&plain), [b"Hello".to_vec(), b"Hello".to_vec()]);
        let plain = inflate(&client_frame(0xc1, &[0x00]), 1000, &mut shared()).expect("legal");
        assert_eq!(texts(&plain), [Vec::<u8>::new()]);
    }

    #[test]
    fn a_bomb_costs_no_more_than_the_limit() {
        let zeros = vec![0; 100 * MESSAGE_BYTES_MAX];
        let mut compress = Compress::new(Compression::new(9), false);
        let mut bytes = Vec::new();
        compress_into(&mut compress, &zeros, &mut bytes);
        assert!(bytes.len() < MESSAGE_BYTES_MAX / 8, "1000:1");
        let (mut inbound, mut deflaters) = (Inbound::default(), Deflaters::new(6));
        let (stream, mut plain, mut deflate) = (client_frame(0xc2, &bytes), Vec::new(), shared());
        let mut rest = &stream[..];
        let failed = loop {
            let step = inbound.step(
                &mut rest,
                &mut plain,
                &mut deflate,
                &mut deflaters,
                MESSAGE_BYTES_MAX,
            );
            if let Err(reason) = step {
                break reason;
            }
        };
        assert_eq!(failed.code(), 1009);
        assert!(plain.capacity() < MESSAGE_BYTES_MAX + 4 * STEP_BYTES, "{}", plain.capacity());
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
                    let mut payload = out[4..].to_vec();
                    payload.extend_from_slice(&TAIL);
                    let mut plain = Vec::new();
                    inflate_into(&mut client, &payload, &mut plain, 1 << 20).expect("legal");
                    assert!(plain == text, "window of {bits} bits");
                }
            }
        }
        let mut deflaters = Deflaters::new(3);
        let alone = shared_frame(Kind::Binary, &text, 15, &mut deflaters);
        assert_eq!(alone, shared_frame(Kind::Binary, &text, 15, &mut deflaters), "nothing is kept");
    }
}
