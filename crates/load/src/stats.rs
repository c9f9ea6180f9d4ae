//! What the server, or all of them together, say of themselves at `GET /stats`, if they do.

use std::{
    fmt,
    net::TcpStream,
    thread,
    time::{Duration, Instant},
};

use serde_json::{Map, Number, Value};

use super::{
    http_get,
    plan::{Plan, TestedServer},
};

/// How long the whole exchange may take; a server without `/stats` shall not hold up the run.
const TIMEOUT: Duration = Duration::from_millis(1500);

/// More than this is not the statistics of a server.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;

/// The server's own count, taken when the last connection had its answer.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ServerFigures {
    figures: Map<String, Value>,
}

impl ServerFigures {
    /// Asks all servers at once, and adds up; `None` when one of them has no such route, or answers
    /// anything but a JSON object in time. Blocks up to [`TIMEOUT`], so it belongs on a thread of
    /// its own.
    pub(crate) fn ask(plan: &Plan) -> Option<ServerFigures> {
        let all: Option<Vec<ServerFigures>> = thread::scope(|scope| {
            let asking: Vec<_> = plan
                .servers
                .iter()
                .map(|server| scope.spawn(|| ServerFigures::ask_one(server)))
                .collect();
            asking.into_iter().map(|asking| asking.join().ok()?).collect()
        });
        all?.into_iter().reduce(ServerFigures::add)
    }

    fn ask_one(server: &TestedServer) -> Option<ServerFigures> {
        let deadline = Instant::now() + TIMEOUT;
        let socket = TcpStream::connect_timeout(&server.address, TIMEOUT).ok()?;
        let (target, tls) = (&server.target, server.tls.as_ref());
        let answer = http_get::get(socket, target, tls, "/stats", ANSWER_BYTES_MAX, deadline);
        let answer = answer.ok()?;
        ServerFigures::read(&answer.body).filter(|_| answer.status == 200)
    }

    /// The figures of two servers as if they were one: sums, and of what are shares of a
    /// distribution the larger one, which is the best that can be said of both.
    fn add(self, other: ServerFigures) -> ServerFigures {
        let mut figures = self.figures;
        for (name, theirs) in other.figures {
            let ours = figures.remove(&name);
            let both = match (ours, theirs) {
                (Some(Value::Object(ours)), Value::Object(theirs)) => larger(ours, theirs),
                (Some(Value::Number(ours)), Value::Number(theirs)) => sum(&ours, &theirs),
                // What has no sum, such as a version.
                (ours, theirs) => ours.unwrap_or(theirs),
            };
            figures.insert(name, both);
        }
        ServerFigures { figures }
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
    pub(crate) fn numbers(&self) -> Map<String, Value> {
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
    pub(crate) fn shown(&self) -> Map<String, Value> {
        ["active_connections", "queued", "rejected_total"]
            .into_iter()
            .filter_map(|name| Some((name.to_owned(), self.figures.get(name)?.clone())))
            .collect()
    }
}

/// The sum of two figures, whole if both are.
fn sum(ours: &Number, theirs: &Number) -> Value {
    match (ours.as_u64(), theirs.as_u64()) {
        (Some(ours), Some(theirs)) => Value::from(ours.saturating_add(theirs)),
        _ => Value::from(ours.as_f64().unwrap_or(0.0) + theirs.as_f64().unwrap_or(0.0)),
    }
}

/// The larger of each share of two distributions, and the count of both.
fn larger(ours: Map<String, Value>, theirs: Map<String, Value>) -> Value {
    let mut shares = ours;
    for (name, theirs) in theirs {
        let ours = shares.remove(&name).unwrap_or(Value::Null);
        let both = match (&ours, &theirs) {
            (Value::Number(a), Value::Number(b)) if name == "count" => sum(a, b),
            _ if theirs.as_f64() > ours.as_f64() => theirs,
            _ => ours,
        };
        shares.insert(name, both);
    }
    Value::Object(shares)
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
    fn figures_of_two_servers_are_added() {
        let read = |body: &str| ServerFigures::read(body.as_bytes()).unwrap();
        let one = r#"{"queued":1,"cpu_seconds":0.5,"turn_us":{"count":3,"p99":2},"version":"1"}"#;
        let other = r#"{"queued":4,"cpu_seconds":1.5,"turn_us":{"count":4,"p99":9},"more":7}"#;
        let both = read(one).add(read(other));
        assert_eq!((both.number("queued"), both.number("cpu_seconds")), (Some(5.0), Some(2.0)));
        assert_eq!(
            (both.number("turn_us.count"), both.number("turn_us.p99")),
            (Some(7.0), Some(9.0))
        );
        assert_eq!(both.number("more"), Some(7.0));
        assert_eq!(both.to_string(), "queued 5");
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
