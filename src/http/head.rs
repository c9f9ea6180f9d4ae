//! Request heads (RFC 9112), parsed by `httparse` from bytes that may not all be here yet.

use super::response::Status;

/// Headers a request may have; one more is answered 431.
const HEADERS_MAX: usize = 64;

/// Where a parse puts its headers; lives on the caller's stack.
pub(crate) struct HeaderSpace<'b>([httparse::Header<'b>; HEADERS_MAX]);

impl Default for HeaderSpace<'_> {
    fn default() -> Self {
        HeaderSpace([httparse::EMPTY_HEADER; HEADERS_MAX])
    }
}

/// The head of an HTTP request, borrowed from the bytes it came in.
#[derive(Debug)]
pub struct Request<'b> {
    method: &'b str,
    target: &'b str,
    minor_version: u8,
    headers: &'b [httparse::Header<'b>],
    remote: Option<std::net::SocketAddr>,
}

/// A head that cannot be one, and the answer it gets before the connection is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BadHead {
    pub(crate) status: Status,
    pub(crate) reason: &'static str,
}

impl<'b> Request<'b> {
    /// Parses one head off the front of `bytes`: `None` while it is not whole yet, else the request and
    /// the number of bytes it took.
    pub(crate) fn parse(
        bytes: &'b [u8],
        space: &'b mut HeaderSpace<'b>,
    ) -> Result<Option<(Request<'b>, usize)>, BadHead> {
        let mut parsed = httparse::Request::new(&mut space.0);
        let status = parsed.parse(bytes).map_err(|error| match error {
            httparse::Error::TooManyHeaders => BadHead {
                status: Status::HeadTooLarge,
                reason: "a request may have at most 64 headers",
            },
            httparse::Error::Version => BadHead {
                status: Status::BadRequest,
                reason: "only HTTP/1.0 and HTTP/1.1 are spoken",
            },
            _ => BadHead { status: Status::BadRequest, reason: "the request head is malformed" },
        })?;
        let httparse::Status::Complete(used) = status else { return Ok(None) };
        let (Some(method), Some(target), Some(minor_version)) =
            (parsed.method, parsed.path, parsed.version)
        else {
            return Ok(None);
        };
        let request =
            Request { method, target, minor_version, headers: parsed.headers, remote: None };
        request.check()?;
        Ok(Some((request, used)))
    }

    /// The rules that hold for every request, whatever its route.
    fn check(&self) -> Result<(), BadHead> {
        let bad = |reason| Err(BadHead { status: Status::BadRequest, reason });
        if self.is_http_1_1() && self.sole_header("Host").is_none() {
            return bad("HTTP/1.1 demands one Host header");
        }
        // No route takes a body, and not reading one would make its bytes the next request.
        let has_body = self.header("Transfer-Encoding").is_some()
            || self.values("Content-Length").any(|length| length != "0");
        if has_body {
            return bad("no route here takes a request body");
        }
        Ok(())
    }

    pub(crate) fn with_remote(self, remote: std::net::SocketAddr) -> Request<'b> {
        Request { remote: Some(remote), ..self }
    }

    /// The method, as it was sent: `GET`, `HEAD`, …
    pub fn method(&self) -> &str {
        self.method
    }

    /// The request target without its query.
    pub fn path(&self) -> &str {
        self.target.split(['?', '#']).next().unwrap_or_default()
    }

    /// What stands behind the first `?` of the target; empty if nothing does. Not decoded.
    pub fn query(&self) -> &str {
        self.target.split_once('?').map_or("", |(_, query)| query)
    }

    /// The first header of that name (in any case), trimmed, if it is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.values(name).next()
    }

    /// Where the connection comes from: the peer of the socket, which may be a proxy.
    pub fn remote_addr(&self) -> Option<std::net::SocketAddr> {
        self.remote
    }

    /// The header of that name if it was given exactly once.
    pub(crate) fn sole_header(&self, name: &str) -> Option<&str> {
        let mut values = self.values(name);
        values.next().filter(|_| values.next().is_none())
    }

    /// Every header of that name.
    pub(crate) fn values(&self, name: &str) -> impl Iterator<Item = &'b str> {
        self.headers
            .iter()
            .filter(move |header| header.name.eq_ignore_ascii_case(name))
            .map(|header| std::str::from_utf8(header.value).unwrap_or("").trim())
    }

    /// Whether the comma-separated lists under `name` hold `token` (RFC 9110, 5.6.1), in any case.
    pub(crate) fn has_token(&self, name: &str, token: &str) -> bool {
        self.values(name)
            .flat_map(|value| value.split(','))
            .any(|item| item.trim().eq_ignore_ascii_case(token))
    }

    pub(crate) fn is_http_1_1(&self) -> bool {
        self.minor_version == 1
    }

    /// Whether the client will send another request on this connection (RFC 9112, 9.3).
    pub(crate) fn keeps_alive(&self) -> bool {
        match self.is_http_1_1() {
            true => !self.has_token("Connection", "close"),
            false => self.has_token("Connection", "keep-alive"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse<R>(
        bytes: &[u8],
        look: impl FnOnce(&Request<'_>, usize) -> R,
    ) -> Result<Option<R>, BadHead> {
        let mut space = HeaderSpace::default();
        Ok(Request::parse(bytes, &mut space)?.map(|(request, used)| look(&request, used)))
    }

    #[test]
    fn a_head_is_whole_at_its_last_byte_and_not_before() {
        let head = b"GET /stats?pretty=1 HTTP/1.1\r\nHost: a\r\nconnection: Foo, CLOSE\r\n\r\nGET";
        let whole = head.len() - 3;
        for cut in 0..whole {
            assert_eq!(parse(&head[..cut], |_, _| ()), Ok(None), "at {cut} bytes");
        }
        let checked = parse(head, |request, used| {
            assert_eq!(
                (request.method(), request.path(), request.query()),
                ("GET", "/stats", "pretty=1")
            );
            assert!(!request.keeps_alive());
            used
        });
        assert_eq!(checked, Ok(Some(whole)));
    }

    #[test]
    fn what_is_no_head_is_told_so() {
        let many = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "A: b\r\n".repeat(HEADERS_MAX));
        for (head, status) in [
            ("\x00\x01\r\n\r\n", Status::BadRequest),
            ("GET / HTTP/2.0\r\n\r\n", Status::BadRequest),
            ("GET / HTTP/1.1\r\n\r\n", Status::BadRequest),
            ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", Status::BadRequest),
            ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n", Status::BadRequest),
            ("GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", Status::BadRequest),
            (&many, Status::HeadTooLarge),
        ] {
            let refused = parse(head.as_bytes(), |_, _| ()).expect_err(head);
            assert_eq!(refused.status, status, "{head}");
        }
    }
}
