//! A run as a table, for people.

use std::fmt::Write;

use super::{
    plan::Mode,
    summary::{Figure, Row, Summary},
    words::span,
};

/// Width of the first column; longer labels push their own line only.
const LABEL_WIDTH: usize = 36;

/// The whole table, with a newline behind each line.
pub fn render(summary: &Summary<'_>) -> String {
    let mut lines = vec![summary.title.clone(), summary.outcome.headline(), String::new()];
    lines.push(format!(
        "{:LABEL_WIDTH$}{:>8}{:>11}{:>11}{:>11}{:>11}",
        "", "count", "p50", "p90", "p99", "max"
    ));
    lines.extend(summary.rows.iter().map(line));
    lines.push(String::new());
    lines.extend(summary.remarks.iter().cloned());
    // A storm says what it has to of the server in one of the remarks.
    if !matches!(summary.plan.mode, Mode::Storm { .. }) {
        lines.extend(server(summary));
    }
    if !summary.bottleneck.is_empty() {
        lines.push(String::new());
        lines.push(
            "The client was the bottleneck; these figures tell more of it than of the server:"
                .into(),
        );
        lines.extend(summary.bottleneck.iter().map(|reason| format!("  - {reason}")));
    }
    let mut text = String::new();
    for line in lines {
        writeln!(text, "{}", line.trim_end()).expect("writing to a String cannot fail");
    }
    text
}

fn line(Row { label, is_part, figure }: &Row) -> String {
    let label = format!("{}{label}", if *is_part { "  " } else { "" });
    match figure {
        Figure::Count(count) => format!("{label:LABEL_WIDTH$}{count:>8}"),
        Figure::Example(text) => format!("  {label}: {text}"),
        Figure::Times(times) if times.count() == 0 => format!("{label:LABEL_WIDTH$}{:>8}", 0),
        Figure::Times(times) => {
            let quantile = |share: f64| span(times.quantile(share));
            format!(
                "{label:LABEL_WIDTH$}{:>8}{:>11}{:>11}{:>11}{:>11}",
                times.count(),
                quantile(0.5),
                quantile(0.9),
                quantile(0.99),
                quantile(1.0)
            )
        }
    }
}

/// The two counts side by side.
fn server(summary: &Summary<'_>) -> Vec<String> {
    let comparison = &summary.comparison;
    if comparison.rows.is_empty() {
        return Vec::new();
    }
    let head = comparison.server_head();
    let mut lines =
        vec![String::new(), format!("{:LABEL_WIDTH$}{:>19}{head:>22}", "", "this client")];
    for row in &comparison.rows {
        let (client, server) =
            (row.client.as_deref().unwrap_or_default(), row.server.as_deref().unwrap_or_default());
        lines.push(format!("{:LABEL_WIDTH$}{client:>19}{server:>22}", row.what));
    }
    lines.extend(comparison.remark());
    lines
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        failure::{Cause, Failure},
        plan::Plan,
        report::Report,
        stats::ServerFigures,
        websocket::Ending,
    };

    fn rendered(plan: &Plan, report: &Report) -> String {
        render(&Summary::of(plan, report))
    }

    #[test]
    fn a_whole_run_reads_as_it_should() {
        let plan = Plan::typed("ws://127.0.0.1:3030/ws -c 10");
        let mut report = Report::none();
        let tally = &mut report.tally;
        let waited_after = plan.common.waited_after;
        for _ in 0..4 {
            tally.count_served(Duration::from_micros(1250), false, waited_after);
        }
        tally.count_served(Duration::from_millis(2100), true, waited_after);
        for advice in [1, 3, 2] {
            tally.count_refused(503, Some(Duration::from_secs(advice)));
        }
        tally.count_failed(Failure::new(Cause::BadAnswer, "no HTTP answer: invalid token"));
        tally.count_failed(Failure::new(Cause::AnswerTimeout, Cause::AnswerTimeout.meaning()));
        tally.count_closed_by_server(Ending::Code(1001));
        tally.settled_after = Duration::from_millis(3003);
        tally.held_for = Duration::from_secs(5);
        tally.held_to_the_end = 4;
        tally.closed_cleanly = 4;
        tally.server = ServerFigures::read(
            br#"{"active_connections":5,"queued":0,"rejected_total":3,"max_queued_tasks":1}"#,
        );

        let expected = "\
10 connections to ws://127.0.0.1:3030/ws: all answered after 3.00 s, then held for 5.00 s
FAILED (exit code 3): 2 of 10 connections to 0.0.0.0:0 failed (1 no answer in time, 1 bad answer); \
the server closed 1 of 10 connections early (1 close code 1001).

                                       count        p50        p90        p99        max
served at once                             4    1.25 ms    1.25 ms    1.25 ms    1.25 ms
served after waiting                       1     2.10 s     2.10 s     2.10 s     2.10 s
refused                                    3
  503, Retry-After 1 to 3 s                3
failed                                     2
  no answer in time                        1
  bad answer                               1
    first: no HTTP answer: invalid token
closed by the server while held            1
  close code 1001                          1

Open at most 5, held to the end 4, of these closed cleanly 4.
The server, when all were answered: active_connections 5, queued 0, rejected_total 3.
";
        assert_eq!(rendered(&plan, &report), expected);
    }

    #[test]
    fn a_clients_own_limit_is_said_plainly() {
        let plan = Plan::typed("");
        let mut report = Report::none();
        report.tally.count_failed(Failure::new(Cause::ClientOutOfPorts, "address not available"));
        let text = rendered(&plan, &report);
        assert!(
            text.contains("The client was the bottleneck") && text.contains("ulimit"),
            "{text}"
        );
        assert!(text.contains("does not say who waited"), "{text}");
    }

    #[test]
    fn an_echo_stands_beside_the_servers_own_count() {
        let plan = Plan::typed("echo ws://h:1/e --rate 50 --size 64");
        let mut report = Report::none();
        for _ in 0..100 {
            report.traffic.latency.record(Duration::from_millis(2));
        }
        (report.traffic.sent, report.traffic.due) = (103, 110);
        (report.traffic.answered, report.traffic.arrived) = (100, 100);
        report.tally.messages_sent = 103;
        report.measured = Duration::from_secs(2);
        let read = |body: &str| ServerFigures::read(body.as_bytes());
        report.server_before = read(r#"{"active_connections":0,"messages_in":7}"#);
        report.server_after =
            read(r#"{"active_connections":50,"messages_in":110,"turn_us":{"p50":40,"p99":900}}"#);
        let text = rendered(&plan, &report);
        for wanted in [
            "open loop at 50/s, measured for 2.00 s of 10.0 s",
            "round trips                              100    2.00 ms",
            "Throughput: 50.0 round trips/s",
            "103 sent, 3 without an answer",
            "never sent: 7.",
            "messages to the server                              103                   103",
            "0.04 ms / 0.90 ms",
        ] {
            assert!(text.contains(wanted), "no {wanted:?} in\n{text}");
        }
        assert!(!text.contains("stale"), "fresh figures\n{text}");
    }

    #[test]
    fn one_is_no_plural_and_quotes_are_quotes() {
        let plan = Plan::typed("fanout --subscribers 1");
        let mut report = Report::none();
        report.traffic.errors.insert("overloaded".to_owned(), 1);
        report.traffic.unexpected = 1;
        report.traffic.unexpected_example = Some("{\"type\":\"x\"}\u{1b}[2J".to_owned());
        let text = rendered(&plan, &report);
        for wanted in [
            "1 subscriber in 1 room",
            "overloaded: 1 time.",
            "the first: {\"type\":\"x\"}\u{fffd}[2J",
        ] {
            assert!(text.contains(wanted), "no {wanted:?} in\n{text}");
        }
        assert!(Summary::of(&Plan::typed("-c 1"), &report).title.starts_with("1 connection to"));
    }
}
