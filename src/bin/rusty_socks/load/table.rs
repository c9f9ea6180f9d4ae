//! The tally as a table, for people.

use std::{fmt::Write, time::Duration};

use super::{
    LoadArgs,
    tally::{ConnectTimes, Tally},
};

/// Width of the first column; longer labels push their own line only.
const LABEL_WIDTH: usize = 36;

/// Lines of the table, appended one by one.
struct Table {
    text: String,
}

/// The whole tally. Every connection is in one of the lines that are not indented, "closed by the
/// server" aside: that one tells what happened to served ones afterwards.
pub(super) fn render(args: &LoadArgs, tally: &Tally) -> String {
    let mut table = Table { text: String::new() };
    let settled = if tally.interrupted > 0 { "interrupted" } else { "all answered" };
    table.line(&format!(
        "{} connections to {}: {settled} after {}, then held for {}",
        args.connections,
        args.target,
        span(tally.settled_after),
        span(tally.held_for)
    ));
    table.line("");
    table.line(&format!(
        "{:LABEL_WIDTH$}{:>8}{:>11}{:>11}{:>11}{:>11}",
        "", "count", "p50", "p90", "p99", "max"
    ));
    table.times("served at once", &tally.at_once());
    table.times("served after waiting", &tally.after_waiting());
    if args.retry > 0 {
        table.times("served after a retry", &tally.after_retry);
    }
    table.count("rejected", tally.rejected_total());
    for (status, rejection) in &tally.rejected {
        let advice = match rejection.retry_after {
            None => "no Retry-After".to_owned(),
            Some((least, most)) if least == most => format!("Retry-After {} s", least.as_secs()),
            Some((least, most)) => {
                format!("Retry-After {} to {} s", least.as_secs(), most.as_secs())
            }
        };
        table.count(&format!("  {status}, {advice}"), rejection.count);
    }
    table.count("failed", tally.failed_total());
    for (cause, failures) in &tally.failed {
        table.count(&format!("  {}", cause.meaning()), failures.count);
        if failures.example != cause.meaning() {
            table.line(&format!("    first: {}", failures.example));
        }
    }
    if tally.interrupted > 0 {
        table.count("interrupted before an answer", tally.interrupted);
    }
    table.count("closed by the server while held", tally.closed_by_server_total());
    for (ending, count) in &tally.closed_by_server {
        table.count(&format!("  {}", ending.meaning()), *count);
    }
    table.line("");
    table.remarks(args, tally);
    table.text
}

impl Table {
    fn line(&mut self, line: &str) {
        writeln!(self.text, "{}", line.trim_end()).expect("writing to a String cannot fail");
    }

    fn count(&mut self, label: &str, count: u64) {
        self.line(&format!("{label:LABEL_WIDTH$}{count:>8}"));
    }

    fn times(&mut self, label: &str, times: &ConnectTimes) {
        if times.count() == 0 {
            return self.count(label, 0);
        }
        let quantile = |share: f64| span(times.quantile(share));
        self.line(&format!(
            "{label:LABEL_WIDTH$}{:>8}{:>11}{:>11}{:>11}{:>11}",
            times.count(),
            quantile(0.5),
            quantile(0.9),
            quantile(0.99),
            quantile(1.0)
        ));
    }

    /// What the counts alone would leave the reader to guess.
    fn remarks(&mut self, args: &LoadArgs, tally: &Tally) {
        self.line(&format!(
            "Open at most {}, held to the end {}, of these closed cleanly {}.",
            tally.open_max, tally.held_to_the_end, tally.closed_cleanly
        ));
        if tally.retries > 0 {
            self.line(&format!("Rejections followed by another try: {}.", tally.retries));
        }
        if tally.messages_sent + tally.messages_received + tally.messages_held_back > 0 {
            let held_back = match tally.messages_held_back {
                0 => String::new(),
                count => format!(", {count} not sent since the server did not take the one before"),
            };
            self.line(&format!(
                "Messages: {} sent, {} received{held_back}.",
                tally.messages_sent, tally.messages_received
            ));
        }
        if let Some(server) = &tally.server {
            self.line(&format!("The server, when all were answered: {server}."));
        }
        if !tally.server_tells_who_waited() {
            self.line(&format!(
                "This server does not say who waited: \"after waiting\" means slower than {}.",
                span(args.waited_after)
            ));
        }
        if tally.client_limited() > 0 {
            self.line(&format!(
                "This client, not the server, was the limit for {} connections: \
                 raise `ulimit -n`, or add --source addresses for ports.",
                tally.client_limited()
            ));
        }
    }
}

/// A span in the unit a reader would choose.
fn span(span: Duration) -> String {
    let seconds = span.as_secs_f64();
    if seconds >= 9.9995 {
        format!("{seconds:.1} s")
    } else if seconds >= 0.9995 {
        format!("{seconds:.2} s")
    } else if seconds >= 0.009_995 {
        format!("{:.0} ms", seconds * 1e3)
    } else {
        format!("{:.2} ms", seconds * 1e3)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::{
        stats::ServerFigures,
        tally::{Cause, Ending, Failure},
    };

    #[test]
    fn a_whole_run_reads_as_it_should() {
        let args = LoadArgs::typed("ws://127.0.0.1:3030/ws -c 10").unwrap();
        let mut tally = Tally::new();
        for _ in 0..4 {
            tally.count_served(Duration::from_micros(1250), false, args.waited_after);
        }
        tally.count_served(Duration::from_millis(2100), true, args.waited_after);
        for advice in [1, 3, 2] {
            tally.count_rejected(503, Some(Duration::from_secs(advice)));
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

                                       count        p50        p90        p99        max
served at once                             4    1.25 ms    1.25 ms    1.25 ms    1.25 ms
served after waiting                       1     2.10 s     2.10 s     2.10 s     2.10 s
rejected                                   3
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
        assert_eq!(render(&args, &tally), expected);
    }

    #[test]
    fn a_clients_own_limit_is_said_plainly() {
        let args = LoadArgs::typed("").unwrap();
        let mut tally = Tally::new();
        tally.count_failed(Failure::new(Cause::ClientOutOfPorts, "address not available"));
        let text = render(&args, &tally);
        assert!(
            text.contains("This client, not the server, was the limit for 1 connections"),
            "{text}"
        );
        assert!(text.contains("does not say who waited"), "{text}");
    }

    #[test]
    fn spans_come_in_a_fitting_unit() {
        let shown = |micros: u64| span(Duration::from_micros(micros));
        assert_eq!([shown(40), shown(9_994), shown(12_345)], ["0.04 ms", "9.99 ms", "12 ms"]);
        assert_eq!(
            [shown(999_400), shown(1_500_000), shown(61_000_000)],
            ["999 ms", "1.50 s", "61.0 s"]
        );
    }
}
