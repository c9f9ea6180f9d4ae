//! A static page: the same bytes for everyone, under one path.

use std::{
    fmt::Write as _,
    hash::{DefaultHasher, Hasher},
};

use bytes::Bytes;

use super::{
    head::Request,
    response::{Status, write_head},
};
use crate::ws::headers::trim;

/// Headers of a page's answer that the server writes itself.
const OURS: [&str; 7] = [
    "Cache-Control",
    "Connection",
    "Content-Length",
    "Content-Type",
    "Date",
    "ETag",
    "Transfer-Encoding",
];

/// A page under one path. Immutable; shared by all workers.
pub(crate) struct StaticPage {
    pub(crate) path: String,
    content_type: String,
    /// Names and values of headers that go with the body.
    headers: Vec<(String, String)>,
    body: Bytes,
    /// Identifies the body, quotes included, so that a browser that has it is not sent it again.
    etag: String,
}

impl StaticPage {
    pub(crate) fn new(path: &str, content_type: &str, body: Bytes) -> StaticPage {
        let mut hasher = DefaultHasher::new();
        hasher.write(&body);
        let etag = format!("\"{:016x}\"", hasher.finish());
        let (path, content_type) = (path.to_owned(), content_type.to_owned());
        StaticPage { path, content_type, headers: Vec::new(), body, etag }
    }

    /// Adds headers to the answers that have the body.
    pub(crate) fn with_headers(mut self, headers: &[(&str, &str)]) -> StaticPage {
        let owned = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        self.headers.extend(owned);
        self
    }

    /// Returns the name of a header whose line would be wrong: with a value or a name that cannot
    /// stand there, or one that the server writes itself.
    pub(crate) fn illegal_header(&self) -> Option<&str> {
        let is_text = |byte: u8| byte == b' ' || byte.is_ascii_graphic();
        let is_value = |value: &str| !value.trim().is_empty() && value.bytes().all(is_text);
        if !is_value(&self.content_type) {
            return Some("Content-Type");
        }
        let is_name = |name: &str| {
            !name.is_empty()
                && name.bytes().all(|byte| byte == b'-' || byte.is_ascii_alphanumeric())
        };
        let is_ours = |name: &str| OURS.iter().any(|ours| ours.eq_ignore_ascii_case(name));
        let is_legal = |name: &str, value: &str| is_name(name) && is_value(value) && !is_ours(name);
        let wrong = self.headers.iter().find(|(name, value)| !is_legal(name, value));
        wrong.map(|(name, _)| name.as_str())
    }

    /// Whether the request says that the client has this body (RFC 9110, 13.1.2).
    pub(crate) fn is_known_to(&self, request: &Request<'_>) -> bool {
        let mut tags = request.values("If-None-Match").flat_map(|value| value.split(',')).map(trim);
        tags.any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == self.etag)
    }

    /// Appends the answer's head to `out`: 304 if the client has the body, else 200.
    pub(crate) fn write_head(&self, out: &mut Vec<u8>, date: &str, known: bool, closes: bool) {
        // `no-cache` lets a browser keep the page but makes it ask, so it sees a new version of the
        // program at once.
        let mut lines = format!("Cache-Control: no-cache\r\nETag: {}\r\n", self.etag);
        if !known {
            // Writing to a String cannot fail.
            let _ = write!(
                lines,
                "Content-Type: {}\r\nContent-Length: {}\r\n",
                self.content_type,
                self.body.len()
            );
            for (name, value) in &self.headers {
                let _ = write!(lines, "{name}: {value}\r\n");
            }
        }
        let status = if known { Status::NotModified } else { Status::Ok };
        write_head(out, status, date, &lines, closes);
    }

    /// Returns the body, which follows the head of a 200.
    pub(crate) fn body(&self) -> &Bytes {
        &self.body
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::head::HeaderSpace;

    #[test]
    fn a_body_is_known_by_its_tag() {
        let page = StaticPage::new("/", "text/html", Bytes::from_static(b"<p>"));
        let other = StaticPage::new("/", "text/html", Bytes::from_static(b"<p>!"));
        assert_ne!(page.etag, other.etag);
        let etag = &page.etag;
        for (line, known) in [
            (String::new(), false),
            (format!("If-None-Match: {etag}\r\n"), true),
            (format!("If-None-Match: \"x\" , W/{etag}\r\n"), true),
            (format!("If-None-Match: \"x\"\r\nif-none-match: {etag}\r\n"), true),
            ("If-None-Match: *\r\n".to_owned(), true),
            (format!("If-None-Match: {}\r\n", other.etag), false),
            (format!("If-None-Match: {}\r\n", etag.trim_matches('"')), false),
        ] {
            let head = format!("GET / HTTP/1.1\r\nHost: a\r\n{line}\r\n");
            let mut space = HeaderSpace::default();
            let parsed = Request::parse(head.as_bytes(), &mut space).expect("legal");
            let (request, _) = parsed.expect("whole");
            assert_eq!(page.is_known_to(&request), known, "{line}");
        }
    }

    #[test]
    fn a_header_cannot_end_its_line_or_stand_twice() {
        let illegal = |content_type, headers: &[(&str, &str)]| {
            let page = StaticPage::new("/", content_type, Bytes::new()).with_headers(headers);
            page.illegal_header().map(str::to_owned)
        };
        assert_eq!(illegal("text/html; charset=utf-8", &[("X-A", "b c")]), None);
        for content_type in ["", " ", "text/html\r\nX: y", "text/html\n", "text/h\u{e4}"] {
            assert_eq!(illegal(content_type, &[]).as_deref(), Some("Content-Type"));
        }
        for (name, value) in
            [("X", "a\r\nY: b"), ("X", ""), ("X: y", "z"), ("", "a"), ("etag", "a"), ("date", "a")]
        {
            assert_eq!(illegal("text/html", &[("A", "b"), (name, value)]).as_deref(), Some(name));
        }
    }
}
