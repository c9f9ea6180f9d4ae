//! The little of RFC 6455 that a load driver needs: frames made once, and frames counted.

use anyhow::{bail, ensure};

/// All frames wear the same mask. The RFC wants a fresh one each, for the sake of proxies between; here
/// the server's work is the same and the driver's is nothing.
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
const CONTROL_BYTES_MAX: usize = 125;

pub(crate) const TEXT: u8 = 0x1;
pub(crate) const BINARY: u8 = 0x2;
pub(crate) const PONG: u8 = 0xa;

/// A masked, final frame, as a client sends it.
pub(crate) fn client_frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = header(opcode, payload.len(), 0x80);
    frame.extend(MASK);
    frame.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

/// A final frame, as a server that does not fragment sends it.
pub(crate) fn server_frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = header(opcode, payload.len(), 0);
    frame.extend(payload);
    frame
}

fn header(opcode: u8, len: usize, mask_bit: u8) -> Vec<u8> {
    let mut head = vec![0x80 | opcode];
    match len {
        0..=125 => head.push(mask_bit | len as u8),
        126..=0xffff => {
            head.push(mask_bit | 126);
            head.extend((len as u16).to_be_bytes());
        }
        _ => {
            head.push(mask_bit | 127);
            head.extend((len as u64).to_be_bytes());
        }
    }
    head
}

/// What a reader saw. `start` is the first bytes of a message, kept only by a reader that was asked to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Seen<'a> {
    Message { len: u64, start: &'a [u8] },
    Ping(&'a [u8]),
    Pong,
    Close(Option<u16>),
}

/// Cuts what arrives into messages, without looking at more of them than it must.
pub(crate) enum Reader {
    /// Frames of a WebSocket server.
    WebSocket(FrameReader),
    /// A TCP echo has no frames: every `size` bytes are a message.
    Tcp { size: u64, have: u64 },
}

impl Reader {
    pub(crate) fn feed(
        &mut self,
        bytes: &[u8],
        mut on: impl FnMut(Seen<'_>),
    ) -> anyhow::Result<()> {
        match self {
            Self::WebSocket(reader) => reader.feed(bytes, on),
            Self::Tcp { size, have } => {
                *have += bytes.len() as u64;
                while *have >= *size {
                    *have -= *size;
                    on(Seen::Message { len: *size, start: &[] });
                }
                Ok(())
            }
        }
    }
}

/// Reads server frames by their lengths, from chunks cut anywhere.
#[derive(Default)]
pub(crate) struct FrameReader {
    /// Whether the start of data messages is kept for the caller to look at.
    keep_start: bool,
    head: [u8; 10],
    head_len: usize,
    in_payload: bool,
    /// Payload bytes of this frame still to come.
    remaining: u64,
    /// Bytes of this message so far, over all its fragments.
    message_len: u64,
    start: Vec<u8>,
    /// A control frame may come between fragments, so it has a place of its own.
    control: Vec<u8>,
}

impl FrameReader {
    pub(crate) fn new(keep_start: bool) -> Self {
        Self { keep_start, ..Self::default() }
    }

    pub(crate) fn feed(
        &mut self,
        mut bytes: &[u8],
        mut on: impl FnMut(Seen<'_>),
    ) -> anyhow::Result<()> {
        loop {
            if !self.in_payload {
                let Some((&byte, rest)) = bytes.split_first() else {
                    return Ok(());
                };
                bytes = rest;
                self.head[self.head_len] = byte;
                self.head_len += 1;
                if !self.head_is_whole()? {
                    continue;
                }
            }
            let here = self.remaining.min(bytes.len() as u64) as usize;
            let (payload, rest) = bytes.split_at(here);
            bytes = rest;
            self.take(payload);
            if self.remaining > 0 {
                return Ok(());
            }
            self.end_frame(&mut on)?;
        }
    }

    /// Whether the head has all its bytes; if so, the payload is next.
    fn head_is_whole(&mut self) -> anyhow::Result<bool> {
        if self.head_len < 2 {
            return Ok(false);
        }
        let [first, second, ..] = self.head;
        ensure!(second & 0x80 == 0, "the server masked a frame");
        ensure!(first & 0x70 == 0, "the server set a reserved bit, and no extension was agreed on");
        let len = u64::from(second & 0x7f);
        let (need, len) = match len {
            126 => (4, u64::from(u16::from_be_bytes([self.head[2], self.head[3]]))),
            127 => {
                let [_, _, len @ ..] = self.head;
                (10, u64::from_be_bytes(len))
            }
            _ => (2, len),
        };
        if self.head_len < need {
            return Ok(false);
        }
        if self.is_control() {
            ensure!(len <= CONTROL_BYTES_MAX as u64, "a control frame of {len} bytes");
        }
        self.remaining = len;
        self.in_payload = true;
        Ok(true)
    }

    fn is_control(&self) -> bool {
        self.head[0] & 0x8 != 0
    }

    fn take(&mut self, payload: &[u8]) {
        self.remaining -= payload.len() as u64;
        if self.is_control() {
            self.control.extend_from_slice(payload);
            return;
        }
        self.message_len += payload.len() as u64;
        if self.keep_start && self.start.len() < CONTROL_BYTES_MAX {
            let room = CONTROL_BYTES_MAX - self.start.len();
            self.start.extend_from_slice(&payload[..payload.len().min(room)]);
        }
    }

    fn end_frame(&mut self, on: &mut impl FnMut(Seen<'_>)) -> anyhow::Result<()> {
        let [first, ..] = self.head;
        self.head = [0; 10];
        self.head_len = 0;
        self.in_payload = false;
        match first & 0x0f {
            0x0..=0x2 => {
                if first & 0x80 != 0 {
                    on(Seen::Message { len: self.message_len, start: &self.start });
                    self.message_len = 0;
                    self.start.clear();
                }
            }
            0x8 => {
                let code = self.control.first_chunk().map(|code| u16::from_be_bytes(*code));
                on(Seen::Close(code));
                self.control.clear();
            }
            0x9 => {
                on(Seen::Ping(&self.control));
                self.control.clear();
            }
            0xa => {
                on(Seen::Pong);
                self.control.clear();
            }
            opcode => bail!("a frame with the unknown opcode {opcode:#x}"),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Everything a reader can see, as chunks of `chunk` bytes show it.
    fn seen(bytes: &[u8], chunk: usize) -> anyhow::Result<Vec<String>> {
        let mut reader = FrameReader::new(true);
        let mut all = Vec::new();
        for chunk in bytes.chunks(chunk) {
            reader.feed(chunk, |seen| all.push(format!("{seen:?}")))?;
        }
        Ok(all)
    }

    #[test]
    fn frames_are_found_wherever_the_chunks_are_cut() {
        let mut bytes = server_frame(TEXT, b"hi");
        bytes.extend(server_frame(BINARY, &[]));
        bytes.extend(server_frame(BINARY, &[7; 126]));
        // A ping between the two halves of a message.
        bytes.extend([0x01, 1, b'a']);
        bytes.extend(server_frame(0x9, b"ping"));
        bytes.extend([0x80, 1, b'b']);
        bytes.extend(server_frame(TEXT, &[b'x'; 70_000]));
        bytes.extend(server_frame(0x8, &1001u16.to_be_bytes()));
        let whole = seen(&bytes, bytes.len()).unwrap();
        assert_eq!(whole.len(), 7);
        assert_eq!(whole[0], format!("{:?}", Seen::Message { len: 2, start: b"hi" }));
        assert_eq!(whole[3], format!("{:?}", Seen::Ping(b"ping")));
        assert_eq!(whole[4], format!("{:?}", Seen::Message { len: 2, start: b"ab" }));
        assert_eq!(whole[6], format!("{:?}", Seen::Close(Some(1001))));
        for chunk in [1, 2, 3, 127] {
            assert_eq!(seen(&bytes, chunk).unwrap(), whole, "in chunks of {chunk}");
        }
    }

    #[test]
    fn what_no_server_may_send_is_an_error() {
        assert!(seen(&client_frame(TEXT, b"masked"), 1).is_err());
        assert!(seen(&[0xc1, 0], 1).is_err(), "a reserved bit");
        assert!(seen(&[0x83, 0], 1).is_err(), "an unknown opcode");
        assert!(seen(&[0x89, 126, 1, 0], 1).is_err(), "a ping of 256 bytes");
    }

    #[test]
    fn a_client_frame_unmasks_to_its_payload() {
        let frame = client_frame(TEXT, b"hello");
        assert_eq!(frame[..2], [0x81, 0x85]);
        let payload: Vec<u8> =
            frame[6..].iter().zip(MASK.iter().cycle()).map(|(b, m)| b ^ m).collect();
        assert_eq!(payload, b"hello");
    }

    #[test]
    fn a_tcp_reader_counts_by_size() {
        let mut reader = Reader::Tcp { size: 10, have: 0 };
        let mut messages = 0;
        for _ in 0..5 {
            reader.feed(&[0; 5], |_| messages += 1).unwrap();
        }
        assert_eq!(messages, 2);
    }
}
