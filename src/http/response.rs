//! HTTP answers. Each has a length, so that a client never has to guess where one ends, and a date.

use std::{fmt::Write as _, time::Duration};

use crate::ws::handshake::UpgradeFault;

/// The statuses that this server answers with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
#[allow(missing_docs, reason = "named as in RFC 9110 and RFC 6585")]
pub enum Status {
    Ok,
    NoContent,
    NotModified,
    BadRequest,
    Unauthorized,
    Forbidden,
    NotFound,
    MethodNotAllowed,
    RequestTimeout,
    Conflict,
    ContentTooLarge,
    ExpectationFailed,
    UpgradeRequired,
    TooManyRequests,
    HeadTooLarge,
    InternalError,
    Unavailable,
}

impl Status {
    fn line(self) -> &'static str {
        match self {
            Status::Ok => "200 OK",
            Status::NoContent => "204 No Content",
            Status::NotModified => "304 Not Modified",
            Status::BadRequest => "400 Bad Request",
            Status::Unauthorized => "401 Unauthorized",
            Status::Forbidden => "403 Forbidden",
            Status::NotFound => "404 Not Found",
            Status::MethodNotAllowed => "405 Method Not Allowed",
            Status::RequestTimeout => "408 Request Timeout",
            Status::Conflict => "409 Conflict",
            Status::ContentTooLarge => "413 Content Too Large",
            Status::ExpectationFailed => "417 Expectation Failed",
            Status::UpgradeRequired => "426 Upgrade Required",
            Status::TooManyRequests => "429 Too Many Requests",
            Status::HeadTooLarge => "431 Request Header Fields Too Large",
            Status::InternalError => "500 Internal Server Error",
            Status::Unavailable => "503 Service Unavailable",
        }
    }

    /// Returns the status for a request that is not a valid upgrade.
    pub(crate) fn of_fault(fault: UpgradeFault) -> Status {
        match fault {
            UpgradeFault::MethodNotAllowed => Status::MethodNotAllowed,
            UpgradeFault::UpgradeRequired => Status::UpgradeRequired,
            UpgradeFault::Malformed => Status::BadRequest,
        }
    }

    /// Returns the numeric status code.
    pub fn code(self) -> u16 {
        self.line()[..3].parse().unwrap_or(500)
    }
}

/// The content type of almost every answer.
pub(crate) const JSON: &str = "application/json";

/// An answer to be written.
pub(crate) struct Response<'a> {
    pub(crate) status: Status,
    /// JSON.
    pub(crate) body: &'a str,
    /// Additional header lines, each without its line end. Empty ones are left out.
    pub(crate) headers: &'a [&'a str],
    /// Whether the connection closes after this answer.
    pub(crate) closes: bool,
    /// Whether the answer is to a HEAD request, which gets the head alone (RFC 9110, 9.3.2).
    pub(crate) head_only: bool,
}

impl Response<'_> {
    /// Appends the answer to `out`. `date` is the value of the `Date` header.
    pub(crate) fn write(&self, out: &mut Vec<u8>, date: &str) {
        self.write_as(JSON, out, date);
    }

    /// Appends the answer, whose body is of `content_type`, to `out`.
    pub(crate) fn write_as(&self, content_type: &str, out: &mut Vec<u8>, date: &str) {
        let mut lines = format!(
            "Content-Type: {content_type}\r\nCache-Control: no-store\r\nContent-Length: {}\r\n",
            self.body.len(),
        );
        for line in self.headers.iter().filter(|line| !line.is_empty()) {
            // Writing to a String cannot fail.
            let _ = write!(lines, "{line}\r\n");
        }
        write_head(out, self.status, date, &lines, self.closes);
        if !self.head_only {
            out.extend_from_slice(self.body.as_bytes());
        }
    }
}

/// Appends the head of an answer to `out`. `lines` are additional headers, each with its line end.
pub(crate) fn write_head(out: &mut Vec<u8>, status: Status, date: &str, lines: &str, closes: bool) {
    let connection = match (closes, status) {
        // A 426 must name the protocol to upgrade to (RFC 9110, 7.8).
        (true, Status::UpgradeRequired) => "close, Upgrade",
        (true, _) => "close",
        (false, _) => "keep-alive",
    };
    for part in ["HTTP/1.1 ", status.line(), "\r\nDate: ", date, "\r\n", lines, "Connection: "] {
        out.extend_from_slice(part.as_bytes());
    }
    out.extend_from_slice(connection.as_bytes());
    out.extend_from_slice(b"\r\n\r\n");
}

/// Returns the body of an error: `{"error":"…","message":"…"}`, and how long to wait if retrying
/// helps.
pub(crate) fn error_body(error: &str, message: &str, retry_after_s: Option<u64>) -> String {
    let mut body = serde_json::json!({ "error": error, "message": message });
    if let Some(seconds) = retry_after_s {
        body["retry_after_s"] = seconds.into();
    }
    body.to_string()
}

/// Returns the current time in the format of a `Date` header (RFC 9110, 5.6.7).
pub(crate) fn date_now() -> String {
    chrono::Utc::now().format("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

/// Rounds a pause up to whole seconds for `Retry-After`: at least 1.
pub(crate) fn retry_after_s(wait: Duration) -> u64 {
    wait.as_secs_f64().ceil().max(1.0) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn head_only_keeps_the_length_and_drops_the_body() {
        let mut out = Vec::new();
        let response = Response {
            status: Status::Unavailable,
            body: "{}",
            headers: &["Retry-After: 1", ""],
            closes: true,
            head_only: true,
        };
        response.write(&mut out, &date_now());
        let text = String::from_utf8(out).expect("ASCII");
        assert!(text.starts_with("HTTP/1.1 503 Service Unavailable\r\nDate: "), "{text}");
        assert!(
            text.contains("Content-Length: 2\r\nRetry-After: 1\r\nConnection: close\r\n"),
            "{text}"
        );
        assert!(text.ends_with("\r\n\r\n"), "{text}");
        assert_eq!(Status::Unavailable.code(), 503);
    }

    #[test]
    fn bodies_are_json_whatever_the_message() {
        let body = error_body("bad", "a \"quote\"", Some(2));
        let value: serde_json::Value = serde_json::from_str(&body).expect("JSON");
        assert_eq!(value["message"], "a \"quote\"");
        assert_eq!(value["retry_after_s"], 2);
    }
}
