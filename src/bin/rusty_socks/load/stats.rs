//! What the server says of itself at `GET /stats`, if it does.

use std::{
    fmt,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use serde_json::Value;

/// How long the whole exchange may take; a server without `/stats` shall not hold up the run.
const TIMEOUT: Duration = Duration::from_millis(1500);

/// More than this is not the statistics of a server.
const ANSWER_BYTES_MAX: u64 = 1024 * 1024;

/// The server's own count, taken when the last connection had its answer.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ServerFigures {
    figures: serde_json::Map<String, Value>,
}

impl ServerFigures {
    /// Asks the server; `None` when it has no such route, or answers anything but a JSON object in
    /// time. Blocks up to [`TIMEOUT`], so it belongs on a thread of its own.
    pub(super) fn ask(address: SocketAddr, authority: &str) -> Option<ServerFigures> {
        let deadline = Instant::now() + TIMEOUT;
        let mut stream = TcpStream::connect_timeout(&address, TIMEOUT).ok()?;
        stream.set_write_timeout(Some(TIMEOUT)).ok()?;
        let request =
            format!("GET /stats HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).ok()?;
        ServerFigures::read(body(&read_answer(stream, deadline)?)?)
    }

    /// Reads the body of an answer; `None` when it has nothing in it that is worth showing.
    pub(super) fn read(body: &[u8]) -> Option<ServerFigures> {
        match serde_json::from_slice(body) {
            Ok(Value::Object(figures)) => {
                Some(ServerFigures { figures }).filter(|figures| !figures.shown().is_empty())
            }
            Ok(_) | Err(_) => None,
        }
    }

    /// A number, by its name or its path (`turn_us.p99`).
    pub(super) fn number(&self, path: &str) -> Option<f64> {
        let mut names = path.split('.');
        let first = self.figures.get(names.next()?)?;
        names.try_fold(first, |value, name| value.get(name))?.as_f64()
    }

    /// All that is a number or made of numbers, to be kept beside our own figures.
    pub(super) fn numbers(&self) -> serde_json::Map<String, Value> {
        let of_numbers = |value: &&Value| match value {
            Value::Number(_) => true,
            Value::Object(fields) => fields.values().all(Value::is_number),
            Value::Null | Value::Bool(_) | Value::String(_) | Value::Array(_) => false,
        };
        let kept = self.figures.iter().filter(|(_, value)| of_numbers(value));
        kept.map(|(name, value)| (name.clone(), value.clone())).collect()
    }

    /// Whether this server has a line in which upgrades wait, and so marks those that waited.
    pub(super) fn tells_who_waited(&self) -> bool {
        self.figures.contains_key("max_queued_tasks")
    }

    /// The figures worth showing beside our own count, in the order to show them.
    pub(super) fn shown(&self) -> Vec<(&'static str, &Value)> {
        ["active_connections", "queued", "rejected_total"]
            .into_iter()
            .filter_map(|name| self.figures.get(name).map(|value| (name, value)))
            .collect()
    }
}

impl fmt::Display for ServerFigures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let figures: Vec<String> =
            self.shown().iter().map(|(name, value)| format!("{name} {value}")).collect();
        f.write_str(&figures.join(", "))
    }
}

/// Everything the server sends until it closes, or until the body it announced is there.
fn read_answer(mut stream: TcpStream, deadline: Instant) -> Option<Vec<u8>> {
    let mut answer = Vec::new();
    let mut piece = [0; 4096];
    while (answer.len() as u64) < ANSWER_BYTES_MAX && body(&answer).is_none() {
        let left =
            deadline.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())?;
        stream.set_read_timeout(Some(left)).ok()?;
        match stream.read(&mut piece).ok()? {
            0 => break,
            count => answer.extend_from_slice(&piece[..count]),
        }
    }
    Some(answer)
}

/// The body of a whole `200` answer that says how long it is.
fn body(answer: &[u8]) -> Option<&[u8]> {
    let mut lines = [httparse::EMPTY_HEADER; 64];
    let mut head = httparse::Response::new(&mut lines);
    let Ok(httparse::Status::Complete(head_bytes)) = head.parse(answer) else {
        return None;
    };
    if head.code != Some(200) {
        return None;
    }
    let line = head.headers.iter().find(|line| line.name.eq_ignore_ascii_case("content-length"))?;
    let body_bytes: usize = std::str::from_utf8(line.value).ok()?.trim().parse().ok()?;
    answer.get(head_bytes..head_bytes.checked_add(body_bytes)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_there_once_it_is_whole() {
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";
        for end in 0..answer.len() {
            assert_eq!(body(&answer[..end]), None);
        }
        assert_eq!(body(answer), Some(&b"{}"[..]));
        assert_eq!(body(b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\n{}"), None);
        assert_eq!(
            body(b"HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551615\r\n\r\n{}"),
            None
        );
    }

    #[test]
    fn numbers_are_found_by_their_path() {
        let figures = ServerFigures::read(
            br#"{"queued":1,"turn_us":{"p99":2.5},"workers":[{"turns":1}],"version":"1"}"#,
        )
        .unwrap();
        assert_eq!(figures.number("turn_us.p99"), Some(2.5));
        assert_eq!(figures.number("turn_us.p50"), None);
        assert_eq!(figures.number("version"), None);
        assert_eq!(figures.numbers().len(), 2);
    }

    #[test]
    fn only_known_figures_are_shown() {
        let figures =
            ServerFigures::read(br#"{"rejected_total":7,"active_connections":3,"uptime":1}"#)
                .unwrap();
        assert_eq!(figures.to_string(), "active_connections 3, rejected_total 7");
        assert!(!figures.tells_who_waited());
        assert_eq!(ServerFigures::read(b"<html>"), None);
        assert_eq!(ServerFigures::read(br#"{"error":"not found"}"#), None);
    }
}
