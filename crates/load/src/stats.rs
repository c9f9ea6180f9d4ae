//! What the server says of itself at `GET /stats`, if it does.

use std::{
    fmt,
    net::TcpStream,
    time::{Duration, Instant},
};

use serde_json::Value;

use super::{http_get, plan::Plan};

/// How long the whole exchange may take; a server without `/stats` shall not hold up the run.
const TIMEOUT: Duration = Duration::from_millis(1500);

/// More than this is not the statistics of a server.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;

/// The server's own count, taken when the last connection had its answer.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ServerFigures {
    figures: serde_json::Map<String, Value>,
}

impl ServerFigures {
    /// Asks the server; `None` when it has no such route, or answers anything but a JSON object in
    /// time. Blocks up to [`TIMEOUT`], so it belongs on a thread of its own.
    pub(crate) fn ask(plan: &Plan) -> Option<ServerFigures> {
        let deadline = Instant::now() + TIMEOUT;
        let socket = TcpStream::connect_timeout(&plan.address, TIMEOUT).ok()?;
        let (target, tls) = (&plan.target, plan.tls.as_ref());
        let answer = http_get::get(socket, target, tls, "/stats", ANSWER_BYTES_MAX, deadline);
        let answer = answer.ok()?;
        ServerFigures::read(&answer.body).filter(|_| answer.status == 200)
    }

    /// Reads the body of an answer; `None` when it has nothing in it that is worth showing.
    pub(crate) fn read(body: &[u8]) -> Option<ServerFigures> {
        match serde_json::from_slice(body) {
            Ok(Value::Object(figures)) => {
                Some(ServerFigures { figures }).filter(|figures| !figures.shown().is_empty())
            }
            Ok(_) | Err(_) => None,
        }
    }

    /// A number, by its name or its path (`turn_us.p99`).
    pub(crate) fn number(&self, path: &str) -> Option<f64> {
        let mut names = path.split('.');
        let first = self.figures.get(names.next()?)?;
        names.try_fold(first, |value, name| value.get(name))?.as_f64()
    }

    /// All that is a number or made of numbers, to be kept beside our own figures.
    pub(crate) fn numbers(&self) -> serde_json::Map<String, Value> {
        let of_numbers = |value: &&Value| match value {
            Value::Number(_) => true,
            Value::Object(fields) => fields.values().all(Value::is_number),
            Value::Null | Value::Bool(_) | Value::String(_) | Value::Array(_) => false,
        };
        let kept = self.figures.iter().filter(|(_, value)| of_numbers(value));
        kept.map(|(name, value)| (name.clone(), value.clone())).collect()
    }

    /// Whether this server has a line in which upgrades wait, and so marks those that waited.
    pub(crate) fn tells_who_waited(&self) -> bool {
        self.figures.contains_key("max_queued_tasks")
    }

    /// The figures worth showing beside our own count.
    pub(crate) fn shown(&self) -> serde_json::Map<String, Value> {
        ["active_connections", "queued", "rejected_total"]
            .into_iter()
            .filter_map(|name| Some((name.to_owned(), self.figures.get(name)?.clone())))
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

#[cfg(test)]
mod tests {
    use super::*;

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
