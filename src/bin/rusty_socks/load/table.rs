//! The findings as a table, for people.

use std::{fmt::Write, time::Duration};

use super::{
    captain::Findings,
    outcome::Outcome,
    plan::{Mode, Plan},
    tally::Tally,
    times::Times,
    verdict,
    words::{counted, per_second, plain, span},
};

/// Width of the first column; longer labels push their own line only.
const LABEL_WIDTH: usize = 36;

/// A run whose measured time is short by less was not cut short.
const CUT_MIN: Duration = Duration::from_millis(50);

/// Lines of the table, appended one by one.
struct Table {
    text: String,
}

/// All that was found. Every connection is in one of the lines that are not indented, "closed by the
/// server" aside: that one tells what happened to served ones afterwards.
pub(super) fn render(plan: &Plan, findings: &Findings, outcome: &Outcome) -> String {
    let mut table = Table { text: String::new() };
    table.line(&title(plan, findings));
    table.line(&outcome.headline());
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
    let (target, connections) = (&plan.target, counted(u64::from(plan.connections), "connection"));
    let is_cut = plan.messages().is_none() && findings.measured + CUT_MIN < plan.hold;
    let measured = match is_cut {
        true => format!("{} of {}", span(findings.measured), span(plan.hold)),
        false => span(findings.measured),
    };
    match &plan.mode {
        Mode::Storm { .. } | Mode::Idle { .. } => format!(
            "{connections} to {target}: {settled} after {}, then held for {}",
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
                "echo by {target}: {connections}, {} B {kind}, {way}, measured for {measured}",
                echo.size
            )
        }
        Mode::Fanout(fanout) => format!(
            "fan-out by {target}: {} to {} in {}, {} B at {}/s, measured for {measured}",
            counted(fanout.publishers as u64, "publisher"),
            counted(fanout.subscribers as u64, "subscriber"),
            counted(fanout.rooms as u64, "room"),
            fanout.size,
            fanout.rate
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
        lines.push(format!("Refusals followed by another try: {}.", tally.retries));
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
                lines.push(format!(
                    "The server answered with the error {}: {}.",
                    plain(code),
                    counted(*count, "time")
                ));
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
            plain(example)
        ));
    }
}

/// The server's count of the run beside the client's.
pub(super) struct Comparison {
    pub(super) rows: Vec<Compared>,
    /// How long before the end the server gave these figures, where it gave none at the end.
    pub(super) stale: Option<Duration>,
}

/// One line of figures that the client and the server both have.
pub(super) struct Compared {
    pub(super) what: &'static str,
    pub(super) client: Option<String>,
    pub(super) server: Option<String>,
}

/// What the server counted during the run, beside what the client did. Empty when it tells nothing.
pub(super) fn compared(findings: &Findings) -> Comparison {
    let (last, stale) = match (&findings.server_after, findings.server_samples.last()) {
        (Some(after), _) => (Some(after), None),
        (None, Some((at, sample))) => {
            let ended = findings.measured_from + findings.measured;
            (Some(sample), Some(ended.saturating_sub(*at)))
        }
        (None, None) => (None, None),
    };
    let (Some(before), Some(after)) = (&findings.server_before, last) else {
        return Comparison { rows: Vec::new(), stale: None };
    };
    let grown = |name: &str| {
        let after = after.number(name)?;
        match after - before.number(name).unwrap_or(0.0) {
            grown if grown < 0.0 => Some(format!("{after:.0} since a restart")),
            grown => Some(format!("{grown:.0}")),
        }
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

impl Comparison {
    /// The head of the server's column: figures that are not those of the end say so.
    pub(super) fn server_head(&self) -> &'static str {
        if self.stale.is_some() { "the server (stale)" } else { "the server" }
    }

    /// Why they are not, in a sentence.
    pub(super) fn remark(&self) -> Option<String> {
        let ago = span(self.stale?);
        Some(format!(
            "The server did not tell its figures at the end of the run: those shown are of {ago} \
             before it, and not to be compared with the client's."
        ))
    }
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
        self.count("refused", tally.refused_total());
        for (status, refusal) in &tally.refused {
            let advice = match refusal.retry_after {
                None => "no Retry-After".to_owned(),
                Some((least, most)) if least == most => {
                    format!("Retry-After {} s", least.as_secs())
                }
                Some((least, most)) => {
                    format!("Retry-After {} to {} s", least.as_secs(), most.as_secs())
                }
            };
            self.count(&format!("  {status}, {advice}"), refusal.count);
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
        if matches!(plan.mode, Mode::Storm { .. }) || compared.rows.is_empty() {
            return;
        }
        self.line("");
        let head = compared.server_head();
        self.line(&format!("{:LABEL_WIDTH$}{:>19}{head:>22}", "", "this client"));
        let remark = compared.remark();
        for Compared { what, client, server } in compared.rows {
            let (client, server) = (client.unwrap_or_default(), server.unwrap_or_default());
            self.line(&format!("{what:LABEL_WIDTH$}{client:>19}{server:>22}"));
        }
        if let Some(remark) = remark {
            self.line(&remark);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::{
        stats::ServerFigures,
        tally::{Cause, Ending, Failure},
    };

    fn rendered(plan: &Plan, findings: &Findings) -> String {
        render(plan, findings, &Outcome::of(plan, findings))
    }

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
        assert_eq!(rendered(&plan, &findings), expected);
    }

    #[test]
    fn a_clients_own_limit_is_said_plainly() {
        let plan = Plan::typed("");
        let mut findings = Findings::none();
        findings.tally.count_failed(Failure::new(Cause::ClientOutOfPorts, "address not available"));
        let text = rendered(&plan, &findings);
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
        let text = rendered(&plan, &findings);
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
    fn figures_that_are_not_those_of_the_end_are_marked() {
        let plan = Plan::typed("echo ws://h:1/e --rate 50");
        let mut findings = Findings::none();
        findings.measured = Duration::from_secs(8);
        let read = |body: &str| ServerFigures::read(body.as_bytes()).unwrap();
        findings.server_before = Some(read(r#"{"active_connections":0,"messages_in":7}"#));
        let sample = read(r#"{"active_connections":50,"messages_in":5}"#);
        findings.server_samples.push((Duration::from_millis(5500), sample));
        let text = rendered(&plan, &findings);
        for wanted in [
            "the server (stale)",
            "are of 2.50 s before",
            "5 since a restart",
            "not to be compared",
        ] {
            assert!(text.contains(wanted), "no {wanted:?} in\n{text}");
        }
    }

    #[test]
    fn one_is_no_plural_and_quotes_are_quotes() {
        let plan = Plan::typed("fanout --subscribers 1");
        let mut findings = Findings::none();
        findings.traffic.errors.insert("overloaded".to_owned(), 1);
        findings.traffic.unexpected = 1;
        findings.traffic.unexpected_example = Some("{\"type\":\"x\"}\u{1b}[2J".to_owned());
        let text = rendered(&plan, &findings);
        for wanted in [
            "1 subscriber in 1 room",
            "overloaded: 1 time.",
            "the first: {\"type\":\"x\"}\u{fffd}[2J",
        ] {
            assert!(text.contains(wanted), "no {wanted:?} in\n{text}");
        }
        assert!(title(&Plan::typed("-c 1"), &findings).starts_with("1 connection to"));
    }
}
