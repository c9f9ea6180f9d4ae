//! The server's answer to an upgrade, read as it trickles in.

use std::time::Duration;

use chrono::{DateTime, Utc};

/// A head longer than this is no answer to a handshake.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// More header lines than this are no answer to a handshake.
const HEAD_LINES_MAX: usize = 64;

/// The header by which Rusty Socks says that an upgrade waited in line, and how long.
const QUEUE_WAIT: &str = "queue-wait-ms";

/// What a server said, reduced to what a load test asks of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// `Upgrade: websocket` and `Connection: upgrade` were both there.
    upgrades: bool,
    accept: Option<String>,
    extensions: bool,
    /// How long the server says the upgrade stood in line; absent when it did not.
    pub(crate) queue_wait: Option<Duration>,
    /// How long the server asks a refused client to stay away.
    pub(crate) retry_after: Option<Duration>,
    /// What came behind the head: after a 101 these are the first frames.
    pub(crate) rest: Vec<u8>,
}

/// Collects an answer from pieces of any size.
#[derive(Default)]
pub(crate) struct AnswerReader {
    bytes: Vec<u8>,
}

impl Answer {
    /// Whether a 101 is the answer to this very request, and if not, why.
    pub(crate) fn check_upgrade(&self, accept: &str) -> Result<(), &'static str> {
        if !self.upgrades {
            return Err("101 without 'Upgrade: websocket' and 'Connection: Upgrade'");
        }
        match self.accept.as_deref() {
            None => Err("101 without Sec-WebSocket-Accept"),
            Some(given) if given != accept => Err("101 with a wrong Sec-WebSocket-Accept"),
            Some(_) if self.extensions => Err("101 with an extension nobody asked for"),
            Some(_) => Ok(()),
        }
    }
}

impl AnswerReader {
    /// Takes the next piece; yields the answer once its head is whole.
    ///
    /// An interim answer (100, 103) only announces another one and is passed over. The error says
    /// what is wrong.
    pub(crate) fn feed(&mut self, piece: &[u8]) -> Result<Option<Answer>, String> {
        self.bytes.extend_from_slice(piece);
        while let Some((head_bytes, mut answer)) = parse(&self.bytes)? {
            let rest = self.bytes.split_off(head_bytes);
            self.bytes = rest;
            if answer.status >= 200 || answer.status == 101 {
                answer.rest = std::mem::take(&mut self.bytes);
                return Ok(Some(answer));
            }
        }
        if self.bytes.len() > HEAD_BYTES_MAX {
            return Err(format!("head of more than {HEAD_BYTES_MAX} bytes"));
        }
        Ok(None)
    }

    /// Whether anything at all has been said.
    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}

/// The head at the start of `bytes` and its length, or `None` while it is not whole.
fn parse(bytes: &[u8]) -> Result<Option<(usize, Answer)>, String> {
    let mut lines = [httparse::EMPTY_HEADER; HEAD_LINES_MAX];
    let mut head = httparse::Response::new(&mut lines);
    let head_bytes = match head.parse(bytes) {
        Ok(httparse::Status::Complete(head_bytes)) => head_bytes,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(error) => return Err(format!("no HTTP answer: {error}")),
    };
    let text = |wanted: &str| {
        let line = head.headers.iter().find(|line| line.name.eq_ignore_ascii_case(wanted))?;
        std::str::from_utf8(line.value).ok().map(str::trim)
    };
    let names = |wanted: &str, token: &str| {
        let mut lines = head.headers.iter().filter(|line| line.name.eq_ignore_ascii_case(wanted));
        lines.any(|line| {
            line.value
                .split(|byte| *byte == b',')
                .any(|item| item.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
        })
    };
    let answer = Answer {
        status: head.code.unwrap_or_default(),
        upgrades: names("upgrade", "websocket") && names("connection", "upgrade"),
        accept: text("sec-websocket-accept").map(str::to_owned),
        extensions: text("sec-websocket-extensions").is_some_and(|value| !value.is_empty()),
        queue_wait: text(QUEUE_WAIT)
            .and_then(|value| value.parse().ok())
            .map(Duration::from_millis),
        retry_after: text("retry-after").and_then(|value| retry_after(value, Utc::now())),
        rest: Vec::new(),
    };
    Ok(Some((head_bytes, answer)))
}

/// Reads `Retry-After` in both its forms: seconds, or a date (in the past it means now).
fn retry_after(value: &str, now: DateTime<Utc>) -> Option<Duration> {
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = DateTime::parse_from_rfc2822(value).ok()?;
    Some(date.signed_duration_since(now).to_std().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

    fn upgrade() -> Vec<u8> {
        format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: WebSocket\r\n\
             Connection: keep-alive, Upgrade\r\n\
             Sec-WebSocket-Accept: {ACCEPT}\r\nQueue-Wait-Ms: 1250\r\n\r\n"
        )
        .into_bytes()
    }

    fn read_whole(bytes: &[u8]) -> Answer {
        AnswerReader::default().feed(bytes).unwrap().expect("the head is whole")
    }

    fn read_by_the_byte(bytes: &[u8]) -> Answer {
        let mut reader = AnswerReader::default();
        let (last, before) = bytes.split_last().unwrap();
        for byte in before {
            assert_eq!(reader.feed(&[*byte]), Ok(None));
        }
        reader.feed(&[*last]).unwrap().expect("the head is whole")
    }

    #[test]
    fn an_upgrade_is_read_the_same_whole_and_by_the_byte() {
        let answer = read_whole(&upgrade());
        assert_eq!(answer, read_by_the_byte(&upgrade()));
        assert_eq!(answer.status, 101);
        assert_eq!(answer.queue_wait, Some(Duration::from_millis(1250)));
        assert_eq!(answer.check_upgrade(ACCEPT), Ok(()));
    }

    #[test]
    fn frames_behind_the_head_are_kept() {
        let answer = read_whole(&[upgrade(), b"\x81\x02hi".to_vec()].concat());
        assert_eq!(answer.rest, b"\x81\x02hi");
    }

    #[test]
    fn a_refusal_carries_its_advice() {
        let answer = read_by_the_byte(
            b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 2\r\nContent-Length: 0\r\n\r\n",
        );
        assert_eq!((answer.status, answer.retry_after), (503, Some(Duration::from_secs(2))));
        assert_eq!(answer.queue_wait, None);
    }

    #[test]
    fn retry_after_may_be_a_date() {
        let now = DateTime::parse_from_rfc3339("1994-11-06T08:49:30Z").unwrap().to_utc();
        assert_eq!(retry_after("Sun, 06 Nov 1994 08:49:37 GMT", now), Some(Duration::from_secs(7)));
        assert_eq!(retry_after("Sun, 06 Nov 1994 08:49:07 GMT", now), Some(Duration::ZERO));
        assert_eq!(retry_after("later", now), None);
    }

    #[test]
    fn interim_answers_are_passed_over() {
        let bytes =
            [b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n".to_vec(), upgrade()].concat();
        assert_eq!(read_whole(&bytes).status, 101);
        let mut reader = AnswerReader::default();
        let answers: Vec<Answer> =
            bytes.iter().filter_map(|byte| reader.feed(&[*byte]).unwrap()).collect();
        assert_eq!(answers, [read_whole(&upgrade())]);
    }

    #[test]
    fn a_101_must_prove_itself() {
        let altered = |from: &str, to: &str| {
            let text = String::from_utf8(upgrade()).unwrap();
            assert!(text.contains(from));
            read_whole(text.replace(from, to).as_bytes()).check_upgrade(ACCEPT)
        };
        assert!(altered(ACCEPT, "AAAAAAAAAAAAAAAAAAAAAAAAAAA=").unwrap_err().contains("wrong"));
        assert!(
            altered("Sec-WebSocket-Accept", "X")
                .unwrap_err()
                .contains("without Sec-WebSocket-Accept")
        );
        assert!(altered("keep-alive, Upgrade", "keep-alive").is_err());
        assert!(altered("WebSocket", "h2c").is_err());
        assert!(
            altered("Queue-Wait-Ms: 1250", "Sec-WebSocket-Extensions: permessage-deflate").is_err()
        );
    }

    #[test]
    fn what_is_not_http_is_refused() {
        assert!(AnswerReader::default().feed(b"SSH-2.0-OpenSSH_9.6\r\n").is_err());
        assert!(AnswerReader::default().feed(b"\x00\x01").is_err());
    }

    #[test]
    fn an_endless_head_is_refused() {
        let mut reader = AnswerReader::default();
        assert_eq!(reader.feed(b"HTTP/1.1 200 OK\r\nX: "), Ok(None));
        let outcome =
            (0..HEAD_BYTES_MAX / 1024 + 1).map(|_| reader.feed(&[b'x'; 1024])).find(Result::is_err);
        assert!(outcome.is_some());
    }
}
