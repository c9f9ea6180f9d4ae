//! The little of RFC 6455 that a load driver needs: frames made once, and frames counted.

use std::io::Cursor;

use anyhow::ensure;
use tokio_tungstenite::tungstenite::protocol::frame::FrameHeader;
pub(crate) use tokio_tungstenite::tungstenite::protocol::frame::coding::{Control, Data, OpCode};

/// The mask of all frames. The RFC wants a fresh one each, for the sake of proxies between; here
/// the server's work is the same and the driver's is nothing.
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
const CONTROL_BYTES_MAX: usize = 125;
const HEAD_BYTES_MAX: usize = 14;

/// A masked, final frame, as a client sends it.
pub(crate) fn client_frame(opcode: OpCode, payload: &[u8]) -> Vec<u8> {
    let mut frame = head(opcode, Some(MASK), payload.len());
    frame.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

/// A client's text frame.
pub(crate) fn client_text(text: &str) -> Vec<u8> {
    client_frame(OpCode::Data(Data::Text), text.as_bytes())
}

/// A final frame, as a server that does not fragment sends it.
pub(crate) fn server_frame(opcode: OpCode, payload: &[u8]) -> Vec<u8> {
    let mut frame = head(opcode, None, payload.len());
    frame.extend(payload);
    frame
}

fn head(opcode: OpCode, mask: Option<[u8; 4]>, len: usize) -> Vec<u8> {
    let mut head = Vec::with_capacity(HEAD_BYTES_MAX + len);
    let header = FrameHeader { opcode, mask, ..FrameHeader::default() };
    header.format(len as u64, &mut head).expect("a Vec takes every byte");
    head
}

/// What a reader saw. `start` is the first bytes of a message, kept only by a reader that was asked
/// to.
#[derive(Debug)]
pub(crate) enum Seen<'a> {
    Message { len: u64, start: &'a [u8] },
    Ping(&'a [u8]),
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
        mut on: impl FnMut(Seen<'_>) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        match self {
            Self::WebSocket(reader) => reader.feed(bytes, on),
            Self::Tcp { size, have } => {
                *have += bytes.len() as u64;
                while *have >= *size {
                    *have -= *size;
                    on(Seen::Message { len: *size, start: &[] })?;
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
    /// The first bytes of a frame whose header is not whole.
    head: Vec<u8>,
    /// The frame whose payload is being read, and the bytes of it still to come.
    frame: Option<(FrameHeader, u64)>,
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

    fn feed(
        &mut self,
        mut bytes: &[u8],
        mut on: impl FnMut(Seen<'_>) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        loop {
            let Some((header, remaining)) = &mut self.frame else {
                let before = self.head.len();
                self.head.extend(&bytes[..bytes.len().min(HEAD_BYTES_MAX - before)]);
                let mut head = Cursor::new(&self.head);
                let Some((header, len)) = FrameHeader::parse(&mut head)? else {
                    return Ok(());
                };
                bytes = &bytes[head.position() as usize - before..];
                self.head.clear();
                check(&header, len)?;
                self.frame = Some((header, len));
                continue;
            };
            let (payload, rest) = bytes.split_at(bytes.len().min(*remaining as usize));
            bytes = rest;
            *remaining -= payload.len() as u64;
            let is_whole = *remaining == 0;
            let (opcode, is_last) = (header.opcode, header.is_final);
            if let OpCode::Control(_) = opcode {
                self.control.extend_from_slice(payload);
            } else {
                self.message_len += payload.len() as u64;
                if self.keep_start {
                    let room = CONTROL_BYTES_MAX.saturating_sub(self.start.len());
                    self.start.extend_from_slice(&payload[..payload.len().min(room)]);
                }
            }
            if !is_whole {
                return Ok(());
            }
            self.frame = None;
            match opcode {
                OpCode::Data(_) if is_last => {
                    on(Seen::Message { len: self.message_len, start: &self.start })?;
                    self.message_len = 0;
                    self.start.clear();
                }
                OpCode::Data(_) => {}
                OpCode::Control(control) => {
                    match control {
                        Control::Ping => on(Seen::Ping(&self.control))?,
                        Control::Close => {
                            let code = self.control.first_chunk();
                            on(Seen::Close(code.map(|code| u16::from_be_bytes(*code))))?;
                        }
                        Control::Pong | Control::Reserved(_) => {}
                    }
                    self.control.clear();
                }
            }
        }
    }
}

fn check(header: &FrameHeader, len: u64) -> anyhow::Result<()> {
    let FrameHeader { rsv1, rsv2, rsv3, mask, opcode, .. } = header;
    ensure!(mask.is_none(), "the server masked a frame");
    ensure!(
        !(*rsv1 || *rsv2 || *rsv3),
        "the server set a reserved bit, and no extension was agreed on"
    );
    let is_control = matches!(opcode, OpCode::Control(_));
    ensure!(!is_control || len <= CONTROL_BYTES_MAX as u64, "a control frame of {len} bytes");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: OpCode = OpCode::Data(Data::Text);

    fn seen(bytes: &[u8], chunk: usize) -> anyhow::Result<Vec<String>> {
        let mut reader = FrameReader::new(true);
        let mut all = Vec::new();
        for part in bytes.chunks(chunk) {
            reader.feed(part, |seen| {
                all.push(format!("{seen:?}"));
                Ok(())
            })?;
        }
        Ok(all)
    }

    #[test]
    fn frames_are_the_same_however_they_are_cut() {
        let mut bytes = Vec::new();
        bytes.extend(server_frame(TEXT, b"hi"));
        bytes.extend(server_frame(TEXT, b""));
        bytes.extend(server_frame(OpCode::Data(Data::Binary), &[7; 300]));
        // In two fragments, with a ping between.
        bytes.extend([0x01, 1, b'a']);
        bytes.extend(server_frame(OpCode::Control(Control::Ping), b"ping"));
        bytes.extend([0x80, 1, b'b']);
        bytes.extend(server_frame(TEXT, &[b'x'; 70_000]));
        bytes.extend(server_frame(OpCode::Control(Control::Close), &1001u16.to_be_bytes()));
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
        assert!(seen(&client_text("masked"), 1).is_err());
        assert!(seen(&[0xc1, 0], 1).is_err(), "a reserved bit");
        assert!(seen(&[0x83, 0], 1).is_err(), "an unknown opcode");
        assert!(seen(&[0x89, 126, 1, 0], 1).is_err(), "a ping of 256 bytes");
    }

    #[test]
    fn a_client_frame_unmasks_to_its_payload() {
        let frame = client_text("hello");
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
            let count = |_: Seen<'_>| {
                messages += 1;
                Ok(())
            };
            reader.feed(&[0; 5], count).unwrap();
        }
        assert_eq!(messages, 2);
    }
}
