//! The figures in the text format of Prometheus: base units, one prefix, and no label whose values
//! a client can choose.

use std::fmt::Write as _;

use hdrhistogram::Histogram;

use super::{
    FIGURES, Figure, FigureKind, ShardSnapshot, Snapshot, WorkerSnapshot, distribution::Times,
};

/// What every name begins with.
const PREFIX: &str = "rusty_socks_";

/// The upper bounds of the buckets of times, in seconds.
const BUCKETS_S: [f64; 14] =
    [0.00001, 0.0001, 0.0005, 0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 10.0];

/// What the figures of [`Snapshot`] do not have: distributions, and the process.
pub(crate) struct Extra {
    pub(crate) times: Times,
    /// Memory of the process, where the system tells it.
    pub(crate) resident_bytes: Option<usize>,
    /// Open files of the process, and how many it may have, where the system tells.
    pub(crate) open_files: Option<u64>,
    pub(crate) open_files_max: Option<u64>,
    /// When the first of the certificates in use ends, in seconds since 1970.
    pub(crate) certificates_end_s: Option<i64>,
    /// When the process began, in seconds since 1970.
    pub(crate) started_s: f64,
}

/// The content type of [`text`].
pub(crate) const TEXT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The content type of [`open_metrics`].
pub(crate) const OPEN_METRICS_TYPE: &str =
    "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Whether a client that accepts what its header says is to get [`open_metrics`].
pub(crate) fn wants_open_metrics(accept: Option<&str>) -> bool {
    accept
        .is_some_and(|accept| accept.to_ascii_lowercase().contains("application/openmetrics-text"))
}

/// Returns the figures of [`text`] in the format of OpenMetrics 1.0: the name of a counter is that
/// of its sample without `_total`, and an end is told from a cut.
pub(crate) fn open_metrics(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 8);
    for line in text.lines() {
        let _ = match line.splitn(4, ' ').collect::<Vec<_>>()[..] {
            ["#", "TYPE", name, "untyped"] => writeln!(out, "# TYPE {name} unknown"),
            ["#", about, name, rest] => {
                let name = name.strip_suffix("_total").unwrap_or(name);
                writeln!(out, "# {about} {name} {}", rest.replace('"', "\\\""))
            }
            _ => writeln!(out, "{line}"),
        };
    }
    out.push_str("# EOF\n");
    out
}

/// Returns the name of a figure for Prometheus.
pub(crate) fn name(figure: &Figure) -> String {
    let name = figure.name;
    match figure.kind {
        FigureKind::Gauge => format!("{PREFIX}{name}"),
        FigureKind::Counter => {
            format!("{PREFIX}{}_total", name.strip_suffix("_total").unwrap_or(name))
        }
    }
}

/// Writes all figures.
pub(crate) fn text(snapshot: &Snapshot, extra: &Extra) -> String {
    let mut out = String::with_capacity(16 << 10);
    for (figure, (of, value)) in FIGURES.iter().zip(snapshot.values()) {
        debug_assert_eq!(figure.name, of, "figures and values are of one table");
        let kind = match figure.kind {
            FigureKind::Gauge => "gauge",
            FigureKind::Counter => "counter",
        };
        let name = name(figure);
        head(&mut out, &name, kind, figure.help.trim());
        line(&mut out, &name, "", value as f64);
    }
    let draining = f64::from(u8::from(snapshot.draining));
    single(&mut out, "draining", "gauge", "Whether the server is shutting down.", draining);
    let help = "Refusals by reason.";
    let refusals = snapshot.rejected.iter().map(|(reason, count)| (*reason, *count));
    labelled(&mut out, "refused_total", "counter", help, "reason", refusals);
    let help = "WebSocket connections that ended, by close code.";
    let closes = snapshot.closed.iter().map(|(code, count)| (code.as_str(), *count));
    labelled(&mut out, "closes_total", "counter", help, "code", closes);
    of_clients(&mut out, snapshot, extra);
    of_handlers(&mut out, snapshot);
    of_shards(&mut out, snapshot);
    of_workers(&mut out, snapshot);
    let name = format!("{PREFIX}turn_seconds");
    head(&mut out, &name, "histogram", "Duration of a worker's turn, without its sleep.");
    for (worker, turns) in extra.times.turns.iter().enumerate() {
        histogram(&mut out, &name, &format!("worker=\"{worker}\""), turns);
    }
    let (lag, wait) = (&extra.times.fanout_lag, &extra.times.queue_wait);
    for (name, help, times) in [
        (
            "fanout_lag_seconds",
            "Time from a publish to many to a worker's last delivery of it.",
            lag,
        ),
        ("queue_wait_seconds", "Time that admitted upgrades had waited in line.", wait),
    ] {
        let name = format!("{PREFIX}{name}");
        head(&mut out, &name, "histogram", help);
        histogram(&mut out, &name, "", times);
    }
    head(&mut out, "rusty_socks_build_info", "gauge", "The version of the server; always 1.");
    line(&mut out, "rusty_socks_build_info", &format!("version={:?}", snapshot.version), 1.0);
    let process = [
        ("cpu_seconds_total", "counter", "CPU time, user and system.", snapshot.cpu_seconds),
        (
            "resident_memory_bytes",
            "gauge",
            "Memory that is in use.",
            extra.resident_bytes.map(|bytes| bytes as f64),
        ),
        ("open_fds", "gauge", "Files that are open.", extra.open_files.map(|count| count as f64)),
        (
            "max_fds",
            "gauge",
            "Files that may be open.",
            extra.open_files_max.map(|count| count as f64),
        ),
        (
            "start_time_seconds",
            "gauge",
            "When the server was bound, in seconds since 1970.",
            Some(extra.started_s),
        ),
    ];
    for (name, kind, help, value) in process {
        if let Some(value) = value {
            let name = format!("process_{name}");
            head(&mut out, &name, kind, help);
            line(&mut out, &name, "", value);
        }
    }
    out
}

/// Writes what becomes of clients, and how many are in which state.
fn of_clients(out: &mut String, snapshot: &Snapshot, extra: &Extra) {
    let states = [
        ("head", snapshot.pending_heads),
        ("waiting", snapshot.queued),
        ("open", snapshot.active_connections),
        ("lingering", snapshot.lingering),
        ("admin", snapshot.admin_connections),
    ];
    let states = states.map(|(state, count)| (state, count as u64));
    let help = "Connections by what they are at.";
    labelled(out, "connections", "gauge", help, "state", states.into_iter());
    let left = if snapshot.draining { snapshot.active_connections } else { 0 };
    let help = "Connections that a drain has yet to close; 0 if there is none.";
    single(out, "drain_remaining", "gauge", help, left as f64);
    let taken_over = snapshot.sessions_taken_over;
    let resumes = [
        ("resumed", snapshot.sessions_resumed.saturating_sub(taken_over)),
        ("taken_over", taken_over),
        ("refused", snapshot.resumes_refused),
    ];
    let help = "Resumes by what became of them; taken_over ended another connection.";
    labelled(out, "resumes_total", "counter", help, "result", resumes.into_iter());
    let help = "Tokens refused, by reason.";
    let refused = snapshot.tokens_refused.iter().map(|(reason, count)| (*reason, *count));
    labelled(out, "auth_failures_total", "counter", help, "reason", refused);
    let help = "Commands refused for want of a permission.";
    let forbidden = snapshot.forbidden.iter().map(|(permission, count)| (*permission, *count));
    labelled(out, "forbidden_total", "counter", help, "permission", forbidden);
    let name = format!("{PREFIX}tls_handshakes_total");
    head(out, &name, "counter", "TLS handshakes; one that fails may have no version yet.");
    for (version, result, count) in [
        ("1.2", "completed", snapshot.tls_handshakes_tls12),
        ("1.3", "completed", snapshot.tls_handshakes_tls13),
        ("", "failed", snapshot.tls_handshakes_failed),
    ] {
        line(out, &name, &format!("version={version:?},result={result:?}"), count as f64);
    }
    if let Some(ends_s) = extra.certificates_end_s {
        let help = "When the first of the certificates in use ends, in seconds since 1970.";
        single(out, "tls_certificate_expiry_timestamp_seconds", "gauge", help, ends_s as f64);
    }
}

/// Writes the figures of the handlers' own. The server does not know which of them only grow.
fn of_handlers(out: &mut String, snapshot: &Snapshot) {
    if snapshot.handlers.is_empty() {
        return;
    }
    let name = format!("{PREFIX}handler_figure");
    head(out, &name, "untyped", "Figures of a handler's own, by route and name.");
    for (route, figures) in &snapshot.handlers {
        for (figure, value) in figures {
            line(out, &name, &format!("route={route:?},figure={figure:?}"), *value as f64);
        }
    }
}

fn of_shards(out: &mut String, snapshot: &Snapshot) {
    type Value = fn(&ShardSnapshot) -> f64;
    let figures: [(&str, &str, Value); 2] = [
        ("engine_shard_up", "Whether a Redis that servers share is reached.", |shard| {
            f64::from(u8::from(shard.up))
        }),
        ("engine_shard_waiting", "Questions that wait for a Redis that servers share.", |shard| {
            shard.waiting as f64
        }),
    ];
    for (name, help, value) in figures.into_iter().filter(|_| !snapshot.engine_shards.is_empty()) {
        let name = format!("{PREFIX}{name}");
        head(out, &name, "gauge", help);
        for shard in &snapshot.engine_shards {
            let labels = format!("shard=\"{}\",redis={:?}", shard.shard, shard.redis);
            line(out, &name, &labels, value(shard));
        }
    }
}

fn of_workers(out: &mut String, snapshot: &Snapshot) {
    type Value = fn(&WorkerSnapshot) -> u64;
    let figures: [(&str, &str, &str, Value); 4] = [
        ("worker_sockets", "gauge", "Open sockets of a worker.", |worker| worker.sockets as u64),
        ("worker_mailbox_letters", "gauge", "Letters that wait for a worker.", |worker| {
            worker.mailbox as u64
        }),
        (
            "worker_mailbox_refused_total",
            "counter",
            "Letters refused because a worker's mailbox was full.",
            |worker| worker.mailbox_refused as u64,
        ),
        ("worker_turns_total", "counter", "Turns of a worker.", |worker| worker.turns),
    ];
    let names: Vec<String> = (0..snapshot.workers.len()).map(|worker| worker.to_string()).collect();
    for (name, kind, help, value) in figures {
        let values = names.iter().zip(&snapshot.workers);
        let values = values.map(|(name, worker)| (name.as_str(), value(worker)));
        labelled(out, name, kind, help, "worker", values);
    }
}

fn single(out: &mut String, name: &str, kind: &str, help: &str, value: f64) {
    let name = format!("{PREFIX}{name}");
    head(out, &name, kind, help);
    line(out, &name, "", value);
}

fn labelled<'a>(
    out: &mut String,
    name: &str,
    kind: &str,
    help: &str,
    label: &str,
    values: impl Iterator<Item = (&'a str, u64)>,
) {
    let name = format!("{PREFIX}{name}");
    head(out, &name, kind, help);
    for (value, count) in values {
        line(out, &name, &format!("{label}={value:?}"), count as f64);
    }
}

/// A classic histogram, of times that were measured in microseconds to two digits. `labels` may be
/// empty.
fn histogram(out: &mut String, name: &str, labels: &str, times: &Histogram<u64>) {
    let separator = if labels.is_empty() { "" } else { "," };
    let mut recorded = times.iter_recorded().peekable();
    let (mut count, mut sum_us) = (0, 0.0);
    let bucket = format!("{name}_bucket");
    for bound in BUCKETS_S {
        while let Some(next) =
            recorded.next_if(|next| next.value_iterated_to() as f64 <= bound * 1e6)
        {
            count += next.count_since_last_iteration();
            sum_us += next.value_iterated_to() as f64 * next.count_since_last_iteration() as f64;
        }
        line(out, &bucket, &format!("{labels}{separator}le=\"{bound}\""), count as f64);
    }
    for next in recorded {
        count += next.count_since_last_iteration();
        sum_us += next.value_iterated_to() as f64 * next.count_since_last_iteration() as f64;
    }
    line(out, &bucket, &format!("{labels}{separator}le=\"+Inf\""), count as f64);
    line(out, &format!("{name}_sum"), labels, sum_us / 1e6);
    line(out, &format!("{name}_count"), labels, count as f64);
}

// Writing to a String cannot fail.
fn head(out: &mut String, name: &str, kind: &str, help: &str) {
    let help = help.replace('\\', "\\\\").replace('\n', "\\n");
    let _ = write!(out, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
}

fn line(out: &mut String, name: &str, labels: &str, value: f64) {
    let _ = match labels {
        "" => writeln!(out, "{name} {value}"),
        labels => writeln!(out, "{name}{{{labels}}} {value}"),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_counts_up_to_all() {
        let mut times = Histogram::new_with_bounds(1, 3_600_000_000, 2).expect("legal bounds");
        for us in [5, 50, 2_000, 2_000, 20_000_000] {
            times.record(us).expect("in bounds");
        }
        let mut out = String::new();
        histogram(&mut out, "rusty_socks_x_seconds", "", &times);
        let value = |what: &str| {
            let found = out.lines().find_map(|line| line.strip_prefix(what)).map(str::trim);
            found.expect(what).parse::<f64>().expect("a number")
        };
        for (bound, count) in [("0.00001", 1.0), ("0.001", 2.0), ("0.005", 4.0), ("10", 4.0)] {
            assert_eq!(value(&format!("rusty_socks_x_seconds_bucket{{le=\"{bound}\"}}")), count);
        }
        assert_eq!(value("rusty_socks_x_seconds_bucket{le=\"+Inf\"}"), 5.0);
        assert_eq!(value("rusty_socks_x_seconds_count"), 5.0);
        assert!((value("rusty_socks_x_seconds_sum") - 20.0).abs() < 0.3);
    }

    #[test]
    fn a_client_that_asks_for_open_metrics_gets_it() {
        assert!(!wants_open_metrics(None) && !wants_open_metrics(Some("text/plain;version=0.0.4")));
        let accept = "application/OpenMetrics-text;version=1.0.0;q=0.5,text/plain;q=0.3";
        assert!(wants_open_metrics(Some(accept)));
        let text = "# HELP a_total A \"b_total c\".\n# TYPE a_total counter\na_total{x=\"y\"} 1\n\
                    # HELP d Beside b_total e.\n# TYPE d untyped\nd 2\n";
        let open = "# HELP a A \\\"b_total c\\\".\n# TYPE a counter\na_total{x=\"y\"} 1\n\
                    # HELP d Beside b_total e.\n# TYPE d unknown\nd 2\n# EOF\n";
        assert_eq!(open_metrics(text), open);
    }

    #[test]
    fn names_are_as_prometheus_wants_them() {
        for figure in FIGURES {
            let name = name(figure);
            assert_eq!(name.ends_with("_total"), figure.kind == FigureKind::Counter, "{name}");
            assert!(!name.ends_with("_us") && !name.ends_with("_ms"), "{name}: base units");
        }
    }
}
