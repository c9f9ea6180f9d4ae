//! The tally as one JSON object, for programs.

use std::{collections::BTreeMap, time::Duration};

use chrono::SecondsFormat;
use serde_json::{Map, Value, json};

use super::{
    machine::Machine,
    plan::{Mode, Plan},
    report::Report,
    stats::ServerFigures,
    summary::Summary,
    times::Times,
};

/// Everything that was found. Names are stable; times are milliseconds unless the name says
/// otherwise.
pub fn object(summary: &Summary<'_>) -> Value {
    let Summary { plan, report, outcome, bottleneck, .. } = summary;
    let object = connections(plan, report);
    let machine = Machine::here();
    let further = json!({
        "outcome": {
            "passed": outcome.passed(),
            "exit_code": outcome.exit_code(),
            "headline": outcome.headline(),
            "problems": outcome.problems,
        },
        "mode": plan.mode_name(),
        "began": report.began.to_rfc3339_opts(SecondsFormat::Secs, true),
        "version": env!("CARGO_PKG_VERSION"),
        "machine": {"system": machine.system, "cpu": machine.cpu, "cores": machine.cores},
        "measured_from_ms": millis(report.measured_from),
        "measured_ms": millis(report.measured),
        "parameters": parameters(plan),
        "traffic": traffic(plan, report),
        "client": {
            "bottleneck": !bottleneck.is_empty(),
            "reasons": bottleneck,
            "threads": threads(report),
        },
        "server_before": report.server_before.as_ref().map(ServerFigures::numbers),
        "server_after": report.server_after.as_ref().map(ServerFigures::numbers),
        "over_time": over_time(report),
    });
    both(object, further)
}

/// The fields of two objects as one.
fn both(mut object: Value, further: Value) -> Value {
    if let (Value::Object(object), Value::Object(further)) = (&mut object, further) {
        object.extend(further);
    }
    object
}

/// What was asked for, mode by mode.
fn parameters(plan: &Plan) -> Value {
    let mode = match &plan.mode {
        Mode::Storm { .. } => json!({"retry": plan.retry}),
        Mode::Idle { ping } => json!({"ping_ms": ping.map(millis)}),
        Mode::Echo(echo) => json!({
            "size": echo.size,
            "binary": echo.binary,
            "depth": echo.rate.is_none().then(|| echo.depth()),
            "rate": echo.rate,
            "messages": echo.messages,
        }),
        Mode::Fanout(fanout) => json!({
            "publishers": fanout.publishers,
            "subscribers": fanout.subscribers,
            "rooms": fanout.rooms,
            "size": fanout.size,
            "rate": fanout.rate,
        }),
    };
    let all = json!({
        "threads": plan.threads,
        "sources": plan.common.source.len(),
        "ramp_ms": millis(plan.common.ramp),
        "warmup_ms": millis(plan.warmup),
    });
    both(all, mode)
}

/// The messages of the measured time; null where there are none to measure.
fn traffic(plan: &Plan, report: &Report) -> Value {
    let traffic = &report.traffic;
    if matches!(plan.mode, Mode::Storm { .. } | Mode::Idle { ping: None }) {
        return Value::Null;
    }
    let seconds = report.measured.as_secs_f64().max(1e-9);
    let object = json!({
        "latency": times(&traffic.latency),
        "sent": traffic.sent,
        "answered": traffic.answered,
        "answered_per_s": (traffic.arrived as f64 / seconds * 10.0).round() / 10.0,
        "unexpected": traffic.unexpected,
    });
    let further = match &plan.mode {
        Mode::Storm { .. } => json!({}),
        Mode::Idle { .. } => json!({"unanswered": traffic.unanswered()}),
        Mode::Echo(_) => json!({
            "due": traffic.due,
            "unsent": traffic.unsent(),
            "unanswered": traffic.unanswered(),
            "out_of_order": traffic.out_of_order,
            "sent_late": times(&traffic.lag),
        }),
        Mode::Fanout(_) => json!({
            "due": traffic.due,
            "unsent": traffic.unsent(),
            "expected": traffic.expected,
            "missing": traffic.undelivered(),
            "to_publishers": traffic.to_publishers,
            "holes": traffic.holes,
            "repeated": traffic.repeated,
            "not_joined": traffic.not_joined,
            "errors": traffic.errors,
            "sent_late": times(&traffic.lag),
        }),
    };
    both(object, further)
}

/// The share of its time that each thread was busy, on a CPU, and waiting for one.
fn threads(report: &Report) -> Vec<Value> {
    let share = |share: f64| (share * 1e3).round() / 1e3;
    let loads = report.loads.iter();
    loads
        .map(|load| {
            json!({
                "busy": share(load.busy),
                "cpu": load.cpu.map(share),
                "waited_for_cpu": load.starved.map(share),
            })
        })
        .collect()
}

/// Columns rather than rows: shorter, and what a plot wants.
fn over_time(report: &Report) -> Value {
    let series = &report.series;
    let quantile = |share: f64| -> Vec<Option<f64>> {
        series.intervals().iter().map(|interval| interval.quantile(share).map(millis)).collect()
    };
    let intervals = series.intervals().len();
    let mut outcomes: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for (at, interval) in series.intervals().iter().enumerate() {
        for (outcome, count) in &interval.outcomes {
            outcomes.entry(outcome.label()).or_insert_with(|| vec![0; intervals])[at] += count;
        }
    }
    let of = |count: fn(&super::series::Interval) -> u64| -> Vec<u64> {
        series.intervals().iter().map(count).collect()
    };
    json!({
        "interval_ms": millis(series.width()),
        "sent": of(|interval| interval.sent),
        "received": of(|interval| interval.received),
        "p50_ms": quantile(0.5),
        "p99_ms": quantile(0.99),
        "outcomes": outcomes,
        "server": report.server_samples.iter().map(|(at, figures)| {
            json!({"at_ms": millis(*at), "figures": figures.numbers()})
        }).collect::<Vec<_>>(),
    })
}

/// What became of the connections.
fn connections(plan: &Plan, report: &Report) -> Value {
    let tally = &report.tally;
    let refused: Map<String, Value> = tally
        .refused
        .iter()
        .map(|(status, refusal)| {
            let (least, most) = refusal.retry_after.unzip();
            let figures = json!({
                "count": refusal.count,
                "retry_after_s_min": least.map(|advice| advice.as_secs()),
                "retry_after_s_max": most.map(|advice| advice.as_secs()),
            });
            (status.to_string(), figures)
        })
        .collect();
    // Each broken protocol is an ending of its own in the tally, by its reason; here they are one.
    let mut closed: BTreeMap<String, u64> = BTreeMap::new();
    for (ending, count) in &tally.closed_by_server {
        *closed.entry(ending.key()).or_default() += count;
    }
    json!({
        "url": plan.targets(),
        "connections": plan.connections,
        "held_ms": millis(tally.held_for),
        "settled_after_ms": millis(tally.settled_after),
        "served": {
            "total": tally.served_total(),
            "at_once": times(&tally.at_once()),
            "after_waiting": times(&tally.after_waiting()),
            "after_retry": times(&tally.after_retry),
            "waited_according_to": if tally.server_tells_who_waited() { "server" } else { "clock" },
        },
        "rejected": {"total": tally.refused_total(), "by_status": refused},
        "retries": tally.retries,
        "failed": {
            "total": tally.failed_total(),
            "by_cause": tally.failed,
            "client_limited": tally.client_limited(),
        },
        "interrupted": tally.interrupted,
        "open_max": tally.open_max,
        "held_to_the_end": tally.held_to_the_end,
        "closed_cleanly": tally.closed_cleanly,
        "closed_by_server": {"total": tally.closed_by_server_total(), "by_code": closed},
        "messages": {
            "sent": tally.messages_sent,
            "held_back": tally.messages_held_back,
            "received": tally.messages_received,
        },
        "server": tally.server.as_ref().map(ServerFigures::shown),
    })
}

/// A count with its percentiles; these are null when there is nothing to take them of.
fn times(times: &Times) -> Value {
    let quantile = |share: f64| (times.count() > 0).then(|| millis(times.quantile(share)));
    json!({
        "count": times.count(),
        "p50_ms": quantile(0.5),
        "p90_ms": quantile(0.9),
        "p99_ms": quantile(0.99),
        "p999_ms": quantile(0.999),
        "max_ms": quantile(1.0),
        "mean_ms": (times.count() > 0).then(|| millis(times.mean())),
    })
}

/// Milliseconds, to the microsecond.
fn millis(span: Duration) -> f64 {
    (span.as_secs_f64() * 1e6).round() / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::websocket::Ending;

    #[test]
    fn figures_are_where_a_program_looks_for_them() {
        let plan = Plan::typed("ws://h:1/ws -c 3");
        let mut report = Report::none();
        let (tally, waited_after) = (&mut report.tally, plan.common.waited_after);
        tally.count_served(Duration::from_micros(1500), false, waited_after);
        tally.count_refused(503, Some(Duration::from_secs(2)));
        tally.count_served(Duration::from_secs(1), true, waited_after);
        tally.count_closed_by_server(Ending::BrokeProtocol("a".into()));
        tally.count_closed_by_server(Ending::BrokeProtocol("b".into()));

        let object = object(&Summary::of(&plan, &report));
        assert_eq!(object["outcome"]["exit_code"], json!(5), "the server ended two");
        assert_eq!(object["served"]["at_once"]["max_ms"], json!(1.5));
        assert_eq!(object["served"]["after_waiting"]["count"], json!(1));
        assert_eq!(object["served"]["after_retry"]["p50_ms"], Value::Null);
        assert_eq!(object["rejected"]["by_status"]["503"]["retry_after_s_max"], json!(2));
        assert_eq!(object["closed_by_server"]["by_code"]["broke_protocol"], json!(2));
        assert_eq!(object["server"], Value::Null);
        assert_eq!((&object["mode"], &object["traffic"]), (&json!("storm"), &Value::Null));
        assert_eq!(object["client"]["bottleneck"], json!(false));
    }
}
