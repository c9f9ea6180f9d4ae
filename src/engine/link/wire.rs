//! Commands to bytes, and bytes to replies (RESP2).
//!
//! `redis-protocol` decodes. It begins anew with each part of a reply that comes, and goes down as
//! deep as a reply is nested, so a reply is given to it only when all of it is here, and its size
//! and depth are known to be within bounds.

use bytes::{Bytes, BytesMut};
use redis_protocol::resp2::{decode::decode_bytes_mut, encode::extend_encode, types::BytesFrame};

use super::order::{Refused, Value};

/// The largest reply, in bytes.
pub(crate) const REPLY_BYTES_MAX: usize = 64 << 20;

/// The longest line of a reply: a number, a status, or an error.
const LINE_BYTES_MAX: usize = 64 << 10;

/// How deep lists in a reply may be nested.
const DEPTH_MAX: usize = 16;

/// Appends a command, whose name comes first.
pub(super) fn encode(out: &mut BytesMut, parts: impl IntoIterator<Item = Bytes>) {
    let frame = BytesFrame::Array(parts.into_iter().map(BytesFrame::BulkString).collect());
    // The buffer grows as needed, and nothing else can fail.
    let encoded = extend_encode(out, &frame, false);
    debug_assert!(encoded.is_ok(), "{encoded:?}");
}

/// Takes the replies out of what was read.
#[derive(Debug, Default)]
pub(super) struct Replies {
    buffer: BytesMut,
    extent: Extent,
}

impl Replies {
    /// Adds what was read.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Whether nothing waits, not even a part of a reply.
    pub(super) fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    /// Returns the next reply, if all of it is here. After an error nothing further can be told
    /// apart.
    pub(super) fn next(&mut self) -> Result<Option<Result<Value, Refused>>, String> {
        if !self.extent.is_whole(&self.buffer)? {
            return Ok(None);
        }
        match decode_bytes_mut(&mut self.buffer) {
            Ok(Some((frame, _, _))) => Ok(Some(value(frame))),
            Ok(None) => Err("a reply is shorter than it says".to_owned()),
            // Its text may have parts of the reply.
            Err(error) => Err(format!("not a reply of Redis ({:?})", error.kind())),
        }
    }
}

fn value(frame: BytesFrame) -> Result<Value, Refused> {
    match frame {
        BytesFrame::SimpleString(bytes) | BytesFrame::BulkString(bytes) => Ok(Value::Bytes(bytes)),
        BytesFrame::Error(text) => Err(Refused::new(&text)),
        BytesFrame::Integer(int) => Ok(Value::Int(int)),
        BytesFrame::Array(items) => {
            let items: Result<_, _> = items.into_iter().map(value).collect();
            items.map(Value::List)
        }
        BytesFrame::Null => Ok(Value::Nil),
    }
}

/// How far the reply at the front of a buffer has been looked through.
#[derive(Debug, Default)]
struct Extent {
    at: usize,
    /// How many items are still to come in each list that has begun, the outermost first.
    open: Vec<usize>,
}

impl Extent {
    /// Whether all of the first reply is in `buffer`, which has grown at its end since the last
    /// call. After `true`, a new reply begins.
    fn is_whole(&mut self, buffer: &[u8]) -> Result<bool, String> {
        loop {
            let ahead = &buffer[self.at..];
            let Some(line) = line(ahead)? else { return Ok(false) };
            let after = self.at + line.len() + 2;
            let (kind, rest) = line.split_first().ok_or("an empty line instead of a reply")?;
            match kind {
                b'+' | b'-' | b':' => self.at = after,
                b'$' => match length(rest)? {
                    None => self.at = after,
                    Some(bytes) => {
                        let end = Self::within_bound(after, bytes)? + 2;
                        if buffer.len() < end {
                            return Ok(false);
                        }
                        self.at = end;
                    }
                },
                b'*' => {
                    self.at = after;
                    match length(rest)? {
                        None | Some(0) => {}
                        Some(items) => {
                            Self::within_bound(after, items)?;
                            if self.open.len() == DEPTH_MAX {
                                return Err(format!("a reply of more than {DEPTH_MAX} levels"));
                            }
                            self.open.push(items);
                            continue;
                        }
                    }
                }
                _ => return Err("not a reply of Redis".to_owned()),
            }
            Self::within_bound(self.at, 0)?;
            if self.close_item() {
                self.at = 0;
                return Ok(true);
            }
        }
    }

    /// Counts an item that is over; whether that was the end of the reply.
    fn close_item(&mut self) -> bool {
        while let Some(left) = self.open.last_mut() {
            *left -= 1;
            if *left > 0 {
                return false;
            }
            self.open.pop();
        }
        true
    }

    fn within_bound(at: usize, more: usize) -> Result<usize, String> {
        match at.saturating_add(more) {
            end if end <= REPLY_BYTES_MAX => Ok(end),
            _ => Err(format!("a reply of more than {REPLY_BYTES_MAX} bytes")),
        }
    }
}

/// Returns the first line, without its end.
fn line(bytes: &[u8]) -> Result<Option<&[u8]>, String> {
    match bytes.windows(2).take(LINE_BYTES_MAX).position(|two| two == b"\r\n") {
        Some(at) => Ok(Some(&bytes[..at])),
        None if bytes.len() > LINE_BYTES_MAX => {
            Err(format!("a line of more than {LINE_BYTES_MAX} bytes"))
        }
        None => Ok(None),
    }
}

/// Reads a length; `None` stands for no value, `-1`.
fn length(digits: &[u8]) -> Result<Option<usize>, String> {
    let text = std::str::from_utf8(digits).unwrap_or_default();
    match text.parse::<i64>() {
        Ok(-1) => Ok(None),
        Ok(length) => usize::try_from(length).map(Some).map_err(|_| "a negative length".to_owned()),
        Err(_) => Err("a length that is no number".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(replies: &mut Replies) -> Vec<Result<Value, Refused>> {
        std::iter::from_fn(|| replies.next().expect("replies")).collect()
    }

    fn bytes(text: &'static str) -> Value {
        Value::Bytes(Bytes::from_static(text.as_bytes()))
    }

    #[test]
    fn a_command_is_a_list_of_texts() {
        let mut out = BytesMut::from("before");
        encode(&mut out, ["GET", "", "a\r\nb"].map(Bytes::from));
        assert_eq!(out, "before*3\r\n$3\r\nGET\r\n$0\r\n\r\n$4\r\na\r\nb\r\n");
    }

    #[test]
    fn replies_are_the_same_however_they_are_cut() {
        let stream = b"+OK\r\n:-7\r\n$5\r\na\r\nbc\r\n$-1\r\n*-1\r\n*0\r\n-OOM no\r\n\
            *4\r\n:1\r\n*2\r\n$1\r\nx\r\n*1\r\n$0\r\n\r\n$-1\r\n+s\r\n*2\r\n:1\r\n-BUSY x\r\n";
        let nested = Value::List(vec![bytes("x"), Value::List(vec![bytes("")])]);
        let expected = vec![
            Ok(bytes("OK")),
            Ok(Value::Int(-7)),
            Ok(bytes("a\r\nbc")),
            Ok(Value::Nil),
            Ok(Value::Nil),
            Ok(Value::List(vec![])),
            Err(Refused::new("OOM no")),
            Ok(Value::List(vec![Value::Int(1), nested, Value::Nil, bytes("s")])),
            Err(Refused::new("BUSY x")),
        ];
        for size in 1..=stream.len() {
            let mut replies = Replies::default();
            let mut found = Vec::new();
            for part in stream.chunks(size) {
                replies.push(part);
                found.extend(all(&mut replies));
            }
            assert_eq!(found, expected, "in parts of {size}");
        }
    }

    #[test]
    fn what_is_no_reply_or_too_large_is_an_error() {
        let deep = "*1\r\n".repeat(100_000);
        let line = format!("+{}", "x".repeat(LINE_BYTES_MAX));
        for (stream, told) in [
            ("HTTP/1.1 400\r\n", "not a reply"),
            ("\r\n", "an empty line"),
            ("$-2\r\n", "a negative length"),
            ("$x\r\n", "a length that is no number"),
            ("*99999999999\r\n", "a reply of more than 67108864 bytes"),
            ("$99999999\r\n", "a reply of more than 67108864 bytes"),
            ("*2\r\n$40000000\r\n", ""),
            (":x\r\n", "not a reply"),
            ("-\u{ff}\r\n", ""),
            (&deep, "a reply of more than 16 levels"),
            (&line, "a line of more than"),
        ] {
            let mut replies = Replies::default();
            replies.push(stream.as_bytes());
            let told_of = replies.next().err().unwrap_or_default();
            assert!(told_of.contains(told) && told.is_empty() == told_of.is_empty(), "{told_of}");
        }
    }

    #[test]
    fn many_small_parts_of_a_reply_are_bounded_together() {
        let mut replies = Replies::default();
        replies.push(b"*1000000\r\n");
        let part = [b"$65536\r\n".as_slice(), &[b'x'; 65536], b"\r\n"].concat();
        let error = (0..2000).find_map(|_| {
            replies.push(&part);
            replies.next().err()
        });
        assert!(error.expect("a bound").contains("more than"));
        assert!(replies.buffer.len() <= REPLY_BYTES_MAX + 2 * part.len());
    }
}
