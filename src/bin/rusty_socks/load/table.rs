//! The findings as a table, for people.

use std::{fmt::Write, time::Duration};

use super::{
    captain::Findings,
    plan::{Mode, Plan},
    tally::Tally,
    times::Times,
    verdict,
};

/// Width of the first column; longer labels push their own line only.
const LABEL_WIDTH: usize = 36;

/// Lines of the table, appended one by one.
struct Table {
    text: String,
}

/// All that was found. Every connection is in one of the lines that are not indented, "closed by the
/// server" aside: that one tells what happened to served ones afterwards.
pub(super) fn render(plan: &Plan, findings: &Findings) -> String {
    let mut table = Table { text: String::new() };
    table.line(&title(plan, findings));
    table.line("");
    table.line(&format!(
        "{:LABEL_WIDTH$}{:>8}{:>11}{:>11}{:>11}{:>11}",
        "", "count", "p50", "p90", "p99", "max"
    ));
    table.traffic(plan, findings);
    table.connections(plan, &findings.tally);
    table.line("");
    for remark in remarks(plan, findings) {
        table.line(&remark);
    }
    table.server(plan, findings);
    let reasons = verdict::reasons(plan, findings);
    if !reasons.is_empty() {
        table.line("");
        table.line(
            "The client was the bottleneck; these figures tell more of it than of the server:",
        );
        for reason in reasons {
            table.line(&format!("  - {reason}"));
        }
    }
    table.text
}

/// What was done, in one line.
pub(super) fn title(plan: &Plan, findings: &Findings) -> String {
    let tally = &findings.tally;
    let settled = if tally.interrupted > 0 { "interrupted" } else { "all answered" };
    let (target, connections) = (&plan.target, plan.connections);
    match &plan.mode {
        Mode::Storm { .. } | Mode::Idle { .. } => format!(
            "{connections} connections to {target}: {settled} after {}, then held for {}",
            span(tally.settled_after),
            span(tally.held_for)
        ),
        Mode::Echo(echo) => {
            let kind = if echo.binary { "binary" } else { "text" };
            let way = match echo.rate {
                Some(rate) => format!("open loop at {rate}/s"),
                None => format!("closed loop, {} in flight each", echo.depth),
            };
            format!(
                "echo by {target}: {connections} connections, {} B {kind}, {way}, measured for {}",
                echo.size,
                span(findings.measured)
            )
        }
        Mode::Fanout(fanout) => format!(
            "fan-out by {target}: {} to {} in {}, {} B at {}/s, measured for {}",
            counted(fanout.publishers as u64, "publisher"),
            counted(fanout.subscribers as u64, "subscriber"),
            counted(fanout.rooms as u64, "room"),
            fanout.size,
            fanout.rate,
            span(findings.measured)
        ),
    }
}

/// What the counts alone would leave the reader to guess, one sentence or two a line.
pub(super) fn remarks(plan: &Plan, findings: &Findings) -> Vec<String> {
    let (tally, mut lines) = (&findings.tally, Vec::new());
    traffic_remarks(plan, findings, &mut lines);
    lines.push(format!(
        "Open at most {}, held to the end {}, of these closed cleanly {}.",
        tally.open_max, tally.held_to_the_end, tally.closed_cleanly
    ));
    if tally.retries > 0 {
        lines.push(format!("Rejections followed by another try: {}.", tally.retries));
    }
    if !plan.has_traffic()
        && tally.messages_sent + tally.messages_received + tally.messages_held_back > 0
    {
        let held_back = match tally.messages_held_back {
            0 => String::new(),
            count => format!(", {count} not sent since the server did not take the one before"),
        };
        lines.push(format!(
            "Messages: {} sent, {} received{held_back}.",
            tally.messages_sent, tally.messages_received
        ));
    }
    if let Some(server) = &tally.server {
        lines.push(format!("The server, when all were answered: {server}."));
    }
    if !tally.server_tells_who_waited() && tally.after_waiting_total() > 0
        || matches!(plan.mode, Mode::Storm { .. }) && !tally.server_tells_who_waited()
    {
        lines.push(format!(
            "This server does not say who waited: \"after waiting\" means slower than {}.",
            span(plan.opening.waited_after)
        ));
    }
    lines
}

/// What there is to say of the messages.
fn traffic_remarks(plan: &Plan, findings: &Findings, lines: &mut Vec<String>) {
    let traffic = &findings.traffic;
    let seconds = findings.measured.as_secs_f64().max(1e-9);
    let rate = |count: u64| per_second(count as f64 / seconds);
    match &plan.mode {
        Mode::Storm { .. } => {}
        Mode::Idle { ping: None } => {}
        Mode::Idle { ping: Some(_) } => {
            lines.push(format!(
                "Pings: {} sent, {} without an answer.",
                traffic.sent,
                traffic.unanswered()
            ));
        }
        Mode::Echo(echo) => {
            let mebibytes = traffic.arrived_bytes as f64 / seconds / f64::from(1 << 20);
            lines.push(format!(
                "Throughput: {} round trips/s, {mebibytes:.1} MiB/s each way.",
                rate(traffic.arrived)
            ));
            lines.push(format!(
                "Messages: {} sent, {} without an answer.",
                traffic.sent,
                traffic.unanswered()
            ));
            if echo.rate.is_none() {
                lines.push(
                    "A closed loop asks less of a server that stalls, and so hides it: \
                     for honest latencies give a --rate."
                        .to_owned(),
                );
            }
            if traffic.out_of_order > 0 {
                lines.push(format!("Answers out of order: {}.", traffic.out_of_order));
            }
        }
        Mode::Fanout(_) => {
            lines.push(format!(
                "Throughput: {} messages/s published, {} deliveries/s.",
                rate(traffic.sent),
                rate(traffic.arrived)
            ));
            lines.push(format!(
                "Messages: {} published, {} deliveries owed, {} missing; {} more to publishers.",
                traffic.sent,
                traffic.expected,
                traffic.undelivered(),
                traffic.to_publishers
            ));
            for (count, what) in [
                (traffic.holes, "Numbers left out in a room, as its members saw it"),
                (traffic.repeated, "Messages that came twice or out of order"),
                (traffic.not_joined, "Connections that did not get into their room"),
            ] {
                if count > 0 {
                    lines.push(format!("{what}: {count}."));
                }
            }
            for (code, count) in &traffic.errors {
                lines.push(format!("The server answered with the error {code}: {count} times."));
            }
        }
    }
    if traffic.unsent() > 0 {
        lines.push(format!(
            "Due by the timetable and never sent: {}. The percentiles know nothing of them.",
            traffic.unsent()
        ));
    }
    if traffic.held_back > 0 {
        lines.push(
            "The server took messages more slowly than the timetable wanted to send them.".into(),
        );
    }
    if traffic.unexpected > 0 {
        let example = traffic.unexpected_example.as_deref().unwrap_or_default();
        lines.push(format!(
            "Messages that were no answer to ours: {}, the first: {}",
            traffic.unexpected,
            example.escape_debug()
        ));
    }
}

/// One line of figures that the client and the server both have.
pub(super) struct Compared {
    pub(super) what: &'static str,
    pub(super) client: Option<String>,
    pub(super) server: Option<String>,
}

/// What the server counted during the run, beside what the client did. Empty when it tells nothing.
pub(super) fn compared(findings: &Findings) -> Vec<Compared> {
    let last = findings.server_after.as_ref().or(findings.server_samples.last().map(|(_, s)| s));
    let (Some(before), Some(after)) = (&findings.server_before, last) else { return Vec::new() };
    let grown = |name: &str| {
        let grown = after.number(name)? - before.number(name).unwrap_or(0.0);
        Some(format!("{grown:.0}"))
    };
    let tally = &findings.tally;
    let open = after.number("active_connections").map(|open| format!("{open:.0}"));
    let cpu = ["cpu_seconds", "cpu_s", "cpu_seconds_total", "process_cpu_seconds_total"];
    let cpu = cpu.into_iter().find_map(|name| {
        Some(Duration::from_secs_f64((after.number(name)? - before.number(name)?).max(0.0)))
    });
    let quantiles = |name: &str, unit: f64| {
        let of = |share: &str| after.number(&format!("{name}.{share}"));
        let time = |value: f64| span(Duration::from_secs_f64((value * unit).max(0.0)));
        Some(format!("{} / {}", time(of("p50")?), time(of("p99")?)))
    };
    let line = |what, client, server| Compared { what, client, server };
    let count = |count: u64| Some(count.to_string());
    [
        line("connections open", count(tally.held_to_the_end), open),
        line("turned away", count(tally.rejected_total()), grown("rejected_total")),
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
    .collect()
}

impl Table {
    fn line(&mut self, line: &str) {
        writeln!(self.text, "{}", line.trim_end()).expect("writing to a String cannot fail");
    }

    fn count(&mut self, label: &str, count: u64) {
        self.line(&format!("{label:LABEL_WIDTH$}{count:>8}"));
    }

    fn times(&mut self, label: &str, times: &Times) {
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

    fn traffic(&mut self, plan: &Plan, findings: &Findings) {
        let traffic = &findings.traffic;
        match &plan.mode {
            Mode::Storm { .. } | Mode::Idle { ping: None } => {}
            Mode::Idle { ping: Some(_) } => self.times("pings answered", &traffic.latency),
            Mode::Echo(_) => self.times("round trips", &traffic.latency),
            Mode::Fanout(_) => self.times("deliveries", &traffic.latency),
        }
        if plan.is_open_loop() {
            self.times("  of that, sent late by", &traffic.lag);
        }
    }

    fn connections(&mut self, plan: &Plan, tally: &Tally) {
        self.times("served at once", &tally.at_once());
        self.times("served after waiting", &tally.after_waiting());
        if plan.opening.retry > 0 {
            self.times("served after a retry", &tally.after_retry);
        }
        self.count("rejected", tally.rejected_total());
        for (status, rejection) in &tally.rejected {
            let advice = match rejection.retry_after {
                None => "no Retry-After".to_owned(),
                Some((least, most)) if least == most => {
                    format!("Retry-After {} s", least.as_secs())
                }
                Some((least, most)) => {
                    format!("Retry-After {} to {} s", least.as_secs(), most.as_secs())
                }
            };
            self.count(&format!("  {status}, {advice}"), rejection.count);
        }
        self.count("failed", tally.failed_total());
        for (cause, failures) in &tally.failed {
            self.count(&format!("  {}", cause.meaning()), failures.count);
            if failures.example != cause.meaning() {
                self.line(&format!("    first: {}", failures.example));
            }
        }
        if tally.interrupted > 0 {
            self.count("interrupted before an answer", tally.interrupted);
        }
        self.count("closed by the server while held", tally.closed_by_server_total());
        for (ending, count) in &tally.closed_by_server {
            self.count(&format!("  {}", ending.meaning()), *count);
        }
    }

    /// A storm says what it has to of the server in one line; runs with messages set the two counts
    /// side by side.
    fn server(&mut self, plan: &Plan, findings: &Findings) {
        let compared = compared(findings);
        if matches!(plan.mode, Mode::Storm { .. }) || compared.is_empty() {
            return;
        }
        self.line("");
        self.line(&format!("{:LABEL_WIDTH$}{:>19}{:>22}", "", "this client", "the server"));
        for Compared { what, client, server } in compared {
            let (client, server) = (client.unwrap_or_default(), server.unwrap_or_default());
            self.line(&format!("{what:LABEL_WIDTH$}{client:>19}{server:>22}"));
        }
    }
}

fn counted(count: u64, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

/// A rate as a reader takes it in.
pub(super) fn per_second(rate: f64) -> String {
    if rate >= 100.0 { format!("{rate:.0}") } else { format!("{rate:.1}") }
}

/// A span in the unit a reader would choose.
pub(super) fn span(span: Duration) -> String {
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
        let plan = Plan::typed("ws://127.0.0.1:3030/ws -c 10");
        let mut findings = Findings::none();
        let tally = &mut findings.tally;
        let waited_after = plan.opening.waited_after;
        for _ in 0..4 {
            tally.count_served(Duration::from_micros(1250), false, waited_after);
        }
        tally.count_served(Duration::from_millis(2100), true, waited_after);
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
        assert_eq!(render(&plan, &findings), expected);
    }

    #[test]
    fn a_clients_own_limit_is_said_plainly() {
        let plan = Plan::typed("");
        let mut findings = Findings::none();
        findings.tally.count_failed(Failure::new(Cause::ClientOutOfPorts, "address not available"));
        let text = render(&plan, &findings);
        assert!(
            text.contains("The client was the bottleneck") && text.contains("ulimit"),
            "{text}"
        );
        assert!(text.contains("does not say who waited"), "{text}");
    }

    #[test]
    fn an_echo_stands_beside_the_servers_own_count() {
        let plan = Plan::typed("echo ws://h:1/e --rate 50 --size 64");
        let mut findings = Findings::none();
        for _ in 0..100 {
            findings.traffic.latency.record(Duration::from_millis(2));
        }
        (findings.traffic.sent, findings.traffic.due) = (103, 110);
        (findings.traffic.answered, findings.traffic.arrived) = (100, 100);
        findings.tally.messages_sent = 103;
        findings.measured = Duration::from_secs(2);
        let read = |body: &str| ServerFigures::read(body.as_bytes());
        findings.server_before = read(r#"{"active_connections":0,"messages_in":7}"#);
        findings.server_after =
            read(r#"{"active_connections":50,"messages_in":110,"turn_us":{"p50":40,"p99":900}}"#);
        let text = render(&plan, &findings);
        for wanted in [
            "open loop at 50/s, measured for 2.00 s",
            "round trips                              100    2.00 ms",
            "Throughput: 50.0 round trips/s",
            "103 sent, 3 without an answer",
            "never sent: 7.",
            "messages to the server                              103                   103",
            "0.04 ms / 0.90 ms",
        ] {
            assert!(text.contains(wanted), "no {wanted:?} in\n{text}");
        }
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
