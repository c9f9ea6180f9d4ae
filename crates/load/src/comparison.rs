//! The server's count of a run beside the client's.

use std::time::Duration;

use super::{report::Report, words::span};

/// The server's count of the run beside the client's.
#[derive(Debug)]
pub(crate) struct Comparison {
    pub(crate) rows: Vec<Compared>,
    /// How long before the end the server gave these figures, where it gave none at the end.
    pub(crate) stale: Option<Duration>,
}

/// One line of figures that the client and the server both have.
#[derive(Debug)]
pub(crate) struct Compared {
    pub(crate) what: &'static str,
    pub(crate) client: Option<String>,
    pub(crate) server: Option<String>,
}

impl Comparison {
    /// What the server counted during the run, beside what the client did. Empty when it tells
    /// nothing.
    pub(crate) fn of(report: &Report) -> Comparison {
        let (last, stale) = match (&report.server_after, report.server_samples.last()) {
            (Some(after), _) => (Some(after), None),
            (None, Some((at, sample))) => {
                let ended = report.measured_from + report.measured;
                (Some(sample), Some(ended.saturating_sub(*at)))
            }
            (None, None) => (None, None),
        };
        let (Some(before), Some(after)) = (&report.server_before, last) else {
            return Comparison { rows: Vec::new(), stale: None };
        };
        let grown = |name: &str| {
            let after = after.number(name)?;
            match after - before.number(name).unwrap_or(0.0) {
                grown if grown < 0.0 => Some(format!("{after:.0} since a restart")),
                grown => Some(format!("{grown:.0}")),
            }
        };
        let tally = &report.tally;
        let open = after.number("active_connections").map(|open| format!("{open:.0}"));
        let cpu = ["cpu_seconds", "cpu_s", "cpu_seconds_total", "process_cpu_seconds_total"];
        let cpu =
            cpu.into_iter().find_map(|name| seconds(after.number(name)? - before.number(name)?));
        let quantiles = |name: &str, unit: f64| {
            let of = |share: &str| after.number(&format!("{name}.{share}"));
            let time = |share: &str| Some(span(seconds(of(share)? * unit)?));
            Some(format!("{} / {}", time("p50")?, time("p99")?))
        };
        let line = |what, client, server| Compared { what, client, server };
        let count = |count: u64| Some(count.to_string());
        let rows = [
            line("connections open", count(tally.held_to_the_end), open),
            line("refused", count(tally.refused_total()), grown("rejected_total")),
            line("messages to the server", count(tally.messages_sent), grown("messages_in")),
            line("messages from the server", count(tally.messages_received), grown("messages_out")),
            line("deliveries", None, grown("deliveries")),
            line("dropped with slow clients", None, grown("dropped")),
            line("missed by slow clients", None, grown("missed")),
            line("CPU used", None, cpu.map(span)),
            line("a worker's turn, p50 / p99", None, quantiles("turn_us", 1e-6)),
        ]
        .into_iter()
        .filter(|line| line.server.is_some())
        .collect();
        Comparison { rows, stale }
    }

    /// The head of the server's column: figures that are not those of the end say so.
    pub(crate) fn server_head(&self) -> &'static str {
        if self.stale.is_some() { "the server (stale)" } else { "the server" }
    }

    /// Why they are not, in a sentence.
    pub(crate) fn remark(&self) -> Option<String> {
        let ago = span(self.stale?);
        Some(format!(
            "The server did not tell its figures at the end of the run: those shown are of {ago} \
             before it, and not to be compared with the client's."
        ))
    }
}

/// The time that a stranger's number stands for, if it can stand for one.
fn seconds(number: f64) -> Option<Duration> {
    Duration::try_from_secs_f64(number.max(0.0)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::ServerFigures;

    fn compared(before: &str, after: Option<&str>, sample: Option<&str>) -> Comparison {
        let read = |body: &str| ServerFigures::read(body.as_bytes()).unwrap();
        let mut report = Report::none();
        report.measured = Duration::from_secs(8);
        report.server_before = Some(read(before));
        report.server_after = after.map(read);
        let sample = sample.map(|body| (Duration::from_millis(5500), read(body)));
        report.server_samples.extend(sample);
        Comparison::of(&report)
    }

    fn server(comparison: &Comparison, what: &str) -> Option<String> {
        comparison.rows.iter().find(|row| row.what == what)?.server.clone()
    }

    const BEFORE: &str = r#"{"active_connections":0,"messages_in":7,"cpu_seconds":1}"#;

    #[test]
    fn figures_that_are_not_those_of_the_end_are_marked() {
        let sample = r#"{"active_connections":50,"messages_in":9}"#;
        let fresh = compared(BEFORE, Some(sample), Some(sample));
        assert_eq!((fresh.server_head(), fresh.remark()), ("the server", None));
        let stale = compared(BEFORE, None, Some(sample));
        assert_eq!(stale.server_head(), "the server (stale)");
        assert!(stale.remark().unwrap().contains("are of 2.50 s before"));
        assert_eq!(server(&stale, "messages to the server"), Some("2".to_owned()));
        assert!(compared(BEFORE, None, None).rows.is_empty());
    }

    #[test]
    fn a_server_that_began_anew_counts_nothing_below_zero() {
        let after = r#"{"active_connections":50,"messages_in":5}"#;
        let anew = compared(BEFORE, Some(after), None);
        assert_eq!(server(&anew, "messages to the server"), Some("5 since a restart".to_owned()));
    }

    #[test]
    fn a_number_that_is_no_time_is_left_out() {
        let after =
            r#"{"active_connections":1,"cpu_seconds":1e300,"turn_us":{"p50":1,"p99":1e300}}"#;
        let odd = compared(BEFORE, Some(after), None);
        assert_eq!(server(&odd, "connections open"), Some("1".to_owned()));
        assert_eq!(server(&odd, "CPU used"), None);
        assert_eq!(server(&odd, "a worker's turn, p50 / p99"), None);
    }
}
