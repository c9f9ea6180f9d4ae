//! What a client says, and how it reads what it is answered.

pub(in crate::pool) use rusty_socks_testing::frames::client_frame as frame;

/// An HTTP answer.
#[derive(Debug)]
pub(in crate::pool) struct Answer {
    pub(in crate::pool) status: u16,
    pub(in crate::pool) head: String,
    pub(in crate::pool) body: String,
}

impl Answer {
    /// Takes one answer off the front of `bytes`; one to a HEAD has no body.
    pub(in crate::pool) fn parse(bytes: &[u8], head_only: bool) -> (Answer, &[u8]) {
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").expect("a whole head") + 4;
        let head = String::from_utf8(bytes[..end].to_vec()).expect("text");
        let status = head[9..12].parse().expect("a status");
        let mut answer = Answer { status, head, body: String::new() };
        let len = match (answer.header("Content-Length"), status) {
            (None, 101) => 0,
            (length, _) => length.expect("a length").parse().expect("a number"),
        };
        let end = if head_only { end } else { end + len };
        answer.body =
            String::from_utf8(bytes[answer.head.len()..end].to_vec()).expect("a whole body");
        (answer, &bytes[end..])
    }

    /// The value of a header, by its name in any case.
    pub(in crate::pool) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (other, value) = line.split_once(": ")?;
            other.eq_ignore_ascii_case(name).then_some(value)
        })
    }
}

/// A proper upgrade of `/ws`, with `more` header lines.
pub(in crate::pool) fn upgrade(more: &str) -> String {
    format!(
        "GET /ws HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{more}\r\n"
    )
}

/// A client's Close frame.
pub(in crate::pool) fn close(code: u16, reason: &str) -> Vec<u8> {
    frame(0x88, &[&code.to_be_bytes(), reason.as_bytes()].concat())
}
