//! The tally as one JSON object, for programs.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::{
    LoadArgs,
    tally::{ConnectTimes, Tally},
};

/// The whole tally. Names are stable; times are milliseconds unless the name says otherwise.
pub(super) fn object(args: &LoadArgs, tally: &Tally) -> Value {
    let rejected: Map<String, Value> = tally
        .rejected
        .iter()
        .map(|(status, rejection)| {
            let (least, most) = rejection.retry_after.unzip();
            let figures = json!({
                "count": rejection.count,
                "retry_after_s_min": least.map(|advice| advice.as_secs()),
                "retry_after_s_max": most.map(|advice| advice.as_secs()),
            });
            (status.to_string(), figures)
        })
        .collect();
    let failed: Map<String, Value> = tally
        .failed
        .iter()
        .map(|(cause, failures)| {
            (cause.key().to_owned(), json!({"count": failures.count, "example": failures.example}))
        })
        .collect();
    // Each broken protocol is an ending of its own in the tally, by its reason; here they are one.
    let mut closed: Map<String, Value> = Map::new();
    for (ending, count) in &tally.closed_by_server {
        let entry = closed.entry(ending.key()).or_insert(json!(0));
        *entry = json!(entry.as_u64().unwrap_or_default() + count);
    }
    let server = tally.server.as_ref().map(|server| {
        server
            .shown()
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value.clone()))
            .collect::<Map<String, Value>>()
    });
    json!({
        "url": args.target.to_string(),
        "connections": args.connections,
        "held_ms": millis(tally.held_for),
        "settled_after_ms": millis(tally.settled_after),
        "served": {
            "total": tally.served_total(),
            "at_once": times(&tally.at_once()),
            "after_waiting": times(&tally.after_waiting()),
            "after_retry": times(&tally.after_retry),
            "waited_according_to": if tally.server_tells_who_waited() { "server" } else { "clock" },
        },
        "rejected": {"total": tally.rejected_total(), "by_status": rejected},
        "retries": tally.retries,
        "failed": {
            "total": tally.failed_total(),
            "by_cause": failed,
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
        "server": server,
    })
}

/// A count with its percentiles; these are null when there is nothing to take them of.
fn times(times: &ConnectTimes) -> Value {
    let quantile = |share: f64| (times.count() > 0).then(|| millis(times.quantile(share)));
    json!({
        "count": times.count(),
        "p50_ms": quantile(0.5),
        "p90_ms": quantile(0.9),
        "p99_ms": quantile(0.99),
        "max_ms": quantile(1.0),
    })
}

/// Milliseconds, to the microsecond.
fn millis(span: Duration) -> f64 {
    (span.as_secs_f64() * 1e6).round() / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::tally::Ending;

    #[test]
    fn figures_are_where_a_program_looks_for_them() {
        let args = LoadArgs::typed("ws://h:1/ws -c 3").unwrap();
        let mut tally = Tally::new();
        tally.count_served(Duration::from_micros(1500), false, args.waited_after);
        tally.count_rejected(503, Some(Duration::from_secs(2)));
        tally.count_served(Duration::from_secs(1), true, args.waited_after);
        tally.count_closed_by_server(Ending::BrokeProtocol("a".into()));
        tally.count_closed_by_server(Ending::BrokeProtocol("b".into()));

        let object = object(&args, &tally);
        assert_eq!(object["served"]["at_once"]["max_ms"], json!(1.5));
        assert_eq!(object["served"]["after_waiting"]["count"], json!(1));
        assert_eq!(object["served"]["after_retry"]["p50_ms"], Value::Null);
        assert_eq!(object["rejected"]["by_status"]["503"]["retry_after_s_max"], json!(2));
        assert_eq!(object["closed_by_server"]["by_code"]["broke_protocol"], json!(2));
        assert_eq!(object["server"], Value::Null);
    }
}
