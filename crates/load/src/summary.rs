//! A run in words and figures: what the table, the page and the JSON are made of, so that they tell
//! the same.

use std::time::Duration;

use super::{
    bottleneck,
    comparison::Comparison,
    outcome::Outcome,
    plan::{Mode, Plan},
    report::Report,
    times::Times,
    words::{counted, per_second, plain, span},
};

/// A run whose measured time is short by less was not cut short.
const CUT_MIN: Duration = Duration::from_millis(50);

/// Everything there is to tell of one run.
#[derive(Debug)]
pub struct Summary<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) report: &'a Report,
    /// What was done, in one line.
    pub(crate) title: String,
    /// How the run is judged.
    pub outcome: Outcome,
    /// Why the client, not the server, was the limit; empty when it was not.
    pub(crate) bottleneck: Vec<String>,
    pub(crate) rows: Vec<Row>,
    /// What the figures alone would leave the reader to guess, a sentence or two each.
    pub(crate) remarks: Vec<String>,
    pub(crate) comparison: Comparison,
}

/// A figure and its label. Every connection is in one of the rows that are no part of another,
/// "closed by the server" aside: that one tells what happened to served ones afterwards.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) label: String,
    /// Whether it is a part of a row above it.
    pub(crate) is_part: bool,
    pub(crate) figure: Figure,
}

#[derive(Debug)]
pub(crate) enum Figure {
    Times(Times),
    Count(u64),
    /// An example of what the row above counts.
    Example(String),
}

impl Summary<'_> {
    /// Judges `report` and puts it into words.
    pub fn of<'a>(plan: &'a Plan, report: &'a Report) -> Summary<'a> {
        Summary {
            plan,
            report,
            title: title(plan, report),
            outcome: Outcome::of(plan, report),
            bottleneck: bottleneck::reasons(plan, report),
            rows: rows(plan, report),
            remarks: remarks(plan, report),
            comparison: Comparison::of(report),
        }
    }
}

/// What was done, in one line.
fn title(plan: &Plan, report: &Report) -> String {
    let tally = &report.tally;
    let settled = if tally.interrupted > 0 { "interrupted" } else { "all answered" };
    let target = plan.targets();
    let connections = counted(u64::from(plan.connections), "connection");
    let is_cut = plan.messages().is_none() && report.measured + CUT_MIN < plan.hold;
    let measured = match is_cut {
        true => format!("{} of {}", span(report.measured), span(plan.hold)),
        false => span(report.measured),
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
                None => format!("closed loop, {} in flight each", echo.depth()),
            };
            format!(
                "echo by {target}: {connections}, {} B {kind}, {way}, measured for {measured}",
                echo.size
            )
        }
        Mode::Fanout(fanout) => format!(
            "fan-out by {target}: {} to {} in {}, {} B at {}/s, measured for {measured}",
            counted(u64::from(fanout.publishers), "publisher"),
            counted(u64::from(fanout.subscribers), "subscriber"),
            counted(u64::from(fanout.rooms), "room"),
            fanout.size,
            fanout.rate
        ),
    }
}

fn rows(plan: &Plan, report: &Report) -> Vec<Row> {
    let (tally, traffic) = (&report.tally, &report.traffic);
    let row = |label: &str, figure| Row { label: label.to_owned(), is_part: false, figure };
    let part = |label: String, figure| Row { label, is_part: true, figure };
    let mut rows = Vec::new();
    let measured = match &plan.mode {
        Mode::Storm { .. } | Mode::Idle { ping: None } => None,
        Mode::Idle { ping: Some(_) } => Some("pings answered"),
        Mode::Echo(_) => Some("round trips"),
        Mode::Fanout(_) => Some("deliveries"),
    };
    rows.extend(measured.map(|label| row(label, Figure::Times(traffic.latency.clone()))));
    if plan.is_open_loop() {
        rows.push(part("of that, sent late by".to_owned(), Figure::Times(traffic.lag.clone())));
    }
    rows.push(row("served at once", Figure::Times(tally.at_once())));
    rows.push(row("served after waiting", Figure::Times(tally.after_waiting())));
    if plan.retry > 0 {
        rows.push(row("served after a retry", Figure::Times(tally.after_retry.clone())));
    }
    rows.push(row("refused", Figure::Count(tally.refused_total())));
    for (status, refusal) in &tally.refused {
        let advice = match refusal.retry_after {
            None => "no Retry-After".to_owned(),
            Some((least, most)) if least == most => format!("Retry-After {} s", least.as_secs()),
            Some((least, most)) => {
                format!("Retry-After {} to {} s", least.as_secs(), most.as_secs())
            }
        };
        rows.push(part(format!("{status}, {advice}"), Figure::Count(refusal.count)));
    }
    rows.push(row("failed", Figure::Count(tally.failed_total())));
    for (cause, failures) in &tally.failed {
        rows.push(part(cause.meaning().to_owned(), Figure::Count(failures.count)));
        if failures.example != cause.meaning() {
            rows.push(part("first".to_owned(), Figure::Example(plain(&failures.example))));
        }
    }
    if tally.interrupted > 0 {
        rows.push(row("interrupted before an answer", Figure::Count(tally.interrupted)));
    }
    let closed = tally.closed_by_server_total();
    rows.push(row("closed by the server while held", Figure::Count(closed)));
    for (ending, count) in &tally.closed_by_server {
        rows.push(part(plain(&ending.meaning()), Figure::Count(*count)));
    }
    rows
}

/// What the counts alone would leave the reader to guess, one sentence or two a line.
fn remarks(plan: &Plan, report: &Report) -> Vec<String> {
    let (tally, mut lines) = (&report.tally, Vec::new());
    traffic_remarks(plan, report, &mut lines);
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
            span(plan.common.waited_after)
        ));
    }
    lines
}

/// What there is to say of the messages.
fn traffic_remarks(plan: &Plan, report: &Report, lines: &mut Vec<String>) {
    let traffic = &report.traffic;
    let seconds = report.measured.as_secs_f64().max(1e-9);
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
