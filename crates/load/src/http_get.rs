//! One `GET` with a deadline: what `health` and `load` ask of a server beside WebSockets.

use std::{
    io::{self, Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

use rusty_socks_client::{Stream, Target, TlsConnector};

/// Header lines in an answer.
const HEADERS_MAX: usize = 64;

/// The answer to a `GET`, whole.
#[derive(Debug, PartialEq, Eq)]
pub struct HttpAnswer {
    /// The status code.
    pub status: u16,
    /// The body, as far as its length says.
    pub body: Vec<u8>,
}

/// Asks `target` for `path` over `socket`, with TLS where there is a `tls`, and reads the whole
/// answer, of at most `bytes_max`. Blocks until `deadline` at most; being too late is
/// [`io::ErrorKind::TimedOut`].
pub fn get(
    socket: TcpStream,
    target: &Target,
    tls: Option<&TlsConnector>,
    path: &str,
    bytes_max: usize,
    deadline: Instant,
) -> io::Result<HttpAnswer> {
    let version = env!("CARGO_PKG_VERSION");
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {}\r\nUser-Agent: rusty_socks/{version}\r\n\
         Connection: close\r\n\r\n",
        target.authority()
    );
    let mut stream = match tls {
        None => Stream::Plain(socket),
        Some(tls) => match tls.connect(socket, target, deadline) {
            Ok(stream) => Stream::Tls(Box::new(stream)),
            Err(error) if error.is_timeout() => return Err(too_late()),
            Err(error) => return Err(io::Error::other(error)),
        },
    };
    stream.socket().set_write_timeout(Some(left(deadline)?))?;
    stream.write_all(request.as_bytes())?;

    // The server closes after the answer, as asked; a length that is reached ends the wait earlier.
    let mut bytes = Vec::new();
    let mut piece = [0; 4096];
    loop {
        if let Some(answer) = parse(&bytes, false)? {
            return Ok(answer);
        }
        if bytes.len() > bytes_max {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the answer is too long"));
        }
        stream.socket().set_read_timeout(Some(left(deadline)?))?;
        match stream.read(&mut piece) {
            Ok(0) => break,
            Ok(count) => bytes.extend_from_slice(&piece[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(too_late()),
            Err(error) => return Err(error),
        }
    }
    parse(&bytes, true)?.ok_or_else(|| {
        io::Error::new(io::ErrorKind::UnexpectedEof, "the connection closed before the answer")
    })
}

/// The time that is left, which is never zero, for a zero timeout would mean none.
fn left(deadline: Instant) -> io::Result<Duration> {
    match deadline.saturating_duration_since(Instant::now()) {
        Duration::ZERO => Err(too_late()),
        left => Ok(left),
    }
}

fn too_late() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "no answer in time")
}

/// The answer in `bytes`, once it is whole. What is whole without a length only the end can tell.
fn parse(bytes: &[u8], ended: bool) -> io::Result<Option<HttpAnswer>> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut head = httparse::Response::new(&mut headers);
    let head_bytes = match head.parse(bytes) {
        Ok(httparse::Status::Complete(head_bytes)) => head_bytes,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(error) => {
            let text = format!("this is no HTTP answer: {error}");
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
    };
    let length = head
        .headers
        .iter()
        .find(|header| header.name.eq_ignore_ascii_case("content-length"))
        .and_then(|header| std::str::from_utf8(header.value).ok()?.trim().parse::<usize>().ok());
    let body = &bytes[head_bytes..];
    let is_whole = length.map_or(ended, |length| body.len() >= length);
    let body = &body[..length.unwrap_or(body.len()).min(body.len())];
    let answer = HttpAnswer { status: head.code.unwrap_or_default(), body: body.to_vec() };
    Ok(is_whole.then_some(answer))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, body: &[u8]) -> HttpAnswer {
        HttpAnswer { status, body: body.to_vec() }
    }

    #[test]
    fn an_answer_is_known_to_be_whole_byte_by_byte() {
        let text = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
        for end in 0..text.len() {
            assert_eq!(parse(&text[..end], false).unwrap(), None, "{end}");
        }
        assert_eq!(parse(text, false).unwrap(), Some(answer(200, b"ok")));
        assert_eq!(parse(&text[..text.len() - 1], true).unwrap(), None, "it was cut short");
        let endless = b"HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551615\r\n\r\n{}";
        assert_eq!(parse(endless, false).unwrap(), None);
    }

    #[test]
    fn an_answer_without_a_length_ends_with_the_connection() {
        let text = b"HTTP/1.1 503 Busy\r\n\r\nwait";
        assert_eq!(parse(text, false).unwrap(), None);
        assert_eq!(parse(text, true).unwrap(), Some(answer(503, b"wait")));
        assert!(parse(b"SSH-2.0-x\r\n", true).is_err());
    }
}
