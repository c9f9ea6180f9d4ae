//! Which plots a run has, and what is in them.

use std::time::Duration;

use super::{
    chart::{Axis, Chart, Hint, Layer, Line, Marks, nines},
    plan::{Mode, Plan},
    report::Report,
    series::{Interval, Outcome},
    stats::ServerFigures,
    times::Times,
    words::{grouped, per_second, span},
};

/// All plots of the page, in the order of their weight.
pub(crate) fn charts(plan: &Plan, report: &Report) -> Vec<Chart> {
    let percentiles = percentiles(plan, report);
    let over_time = latency_over_time(plan, report);
    let has_messages = report.tally.messages_sent + report.tally.messages_received > 0;
    let throughput = has_messages.then(|| throughput(plan, report));
    let server = server_over_time(plan, report);
    percentiles
        .into_iter()
        .chain(over_time)
        .chain(throughput)
        .chain([outcomes(plan, report)])
        .chain(server)
        .collect()
}

/// What a storm measures is the way in; the others, messages.
fn latency_name(plan: &Plan) -> &'static str {
    match &plan.mode {
        Mode::Storm { .. } | Mode::Idle { ping: None } => "Time to connect",
        Mode::Idle { ping: Some(_) } => "Answer to a ping",
        Mode::Echo(_) => "Round trip",
        Mode::Fanout(_) => "Delivery",
    }
}

fn percentiles(plan: &Plan, report: &Report) -> Option<Chart> {
    let traffic = &report.traffic;
    let times = report.measured_times(plan);
    let line = |label: &str, colour, times: &Times| Line {
        label: label.to_owned(),
        colour,
        points: times
            .curve()
            .into_iter()
            .map(|(share, time)| Some((nines(share), time.as_secs_f64())))
            .collect(),
    };
    let mut lines = vec![line(latency_name(plan), "c1", &times)];
    let mut note =
        "The share of all that took no longer. Each further nine has the same room.".to_owned();
    if plan.is_open_loop() && traffic.lag.count() > 0 {
        lines.push(line("of that, sent late", "c4", &traffic.lag));
        note += " Counted from when a message was meant to leave, so nothing is left out.";
    }
    if times.count() == 0 {
        return None;
    }
    let all = || lines.iter().flat_map(|line| line.points.iter().flatten());
    let widest = all().map(|(x, _)| *x).fold(0.0, f64::max);
    let y = time_axis(all().map(|(_, time)| *time));
    let curve = times.curve();
    let hints = curve.windows(2).map(|pair| Hint {
        from: nines(pair[0].0),
        to: nines(pair[1].0),
        text: format!("{:.4} % within {}", pair[1].0 * 100.0, span(pair[1].1)),
    });
    Some(Chart {
        title: format!("{}: percentiles", latency_name(plan)),
        note,
        x: Axis::nines(widest),
        y,
        hints: hints.collect(),
        marks: Marks::Lines(lines),
        measured: None,
    })
}

/// Logarithmic where times differ much, else from 0.
fn time_axis(times: impl Iterator<Item = f64> + Clone) -> Axis {
    let high = times.clone().fold(0.0, f64::max);
    let low = times.filter(|time| *time > 0.0).fold(high, f64::min);
    if low > 0.0 && high / low > 30.0 {
        Axis::logarithmic(low, high, tick_time)
    } else {
        Axis::linear(high, tick_time)
    }
}

fn tick_time(seconds: f64) -> String {
    match seconds {
        0.0 => "0".to_owned(),
        s if s >= 1.0 => format!("{} s", trimmed(s)),
        s if s >= 1e-3 => format!("{} ms", trimmed(s * 1e3)),
        s => format!("{} µs", trimmed(s * 1e6)),
    }
}

fn trimmed(value: f64) -> String {
    let text = format!("{value:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn tick_count(count: f64) -> String {
    match count {
        c if c >= 1e6 => format!("{}M", trimmed(c / 1e6)),
        c if c >= 1e4 => format!("{}k", trimmed(c / 1e3)),
        c => trimmed(c),
    }
}

/// The whole run along the x axis.
struct Timeline {
    width: f64,
    intervals: usize,
    measured: Option<(f64, f64)>,
}

impl Timeline {
    fn of(plan: &Plan, report: &Report) -> Timeline {
        let from = report.measured_from.as_secs_f64();
        let until = from + report.measured.as_secs_f64();
        let measured = (plan.has_traffic() && until > from).then_some((from, until));
        Timeline {
            width: report.series.width().as_secs_f64(),
            intervals: report.series.intervals().len(),
            measured,
        }
    }

    fn axis(&self) -> Axis {
        Axis::until(self.width * self.intervals as f64, |at| format!("{} s", trimmed(at)))
    }

    fn middle(&self, at: usize) -> f64 {
        (at as f64 + 0.5) * self.width
    }

    fn hints(&self, text: impl Fn(usize) -> Option<String>) -> Vec<Hint> {
        let hint = |at| {
            let from = at as f64 * self.width;
            let text = format!("{} s: {}", trimmed(from), text(at)?);
            Some(Hint { from, to: from + self.width, text })
        };
        (0..self.intervals).filter_map(hint).collect()
    }

    fn note(&self, text: &str) -> String {
        let shaded = if self.measured.is_some() { " What is shaded is not measured." } else { "" };
        format!("{text} Intervals of {}.{shaded}", span(Duration::from_secs_f64(self.width)))
    }
}

fn latency_over_time(plan: &Plan, report: &Report) -> Option<Chart> {
    let (timeline, intervals) = (Timeline::of(plan, report), report.series.intervals());
    let points = |share: f64| -> Vec<Option<(f64, f64)>> {
        let of = |(at, interval): (usize, &Interval)| {
            Some((timeline.middle(at), interval.quantile(share)?.as_secs_f64()))
        };
        intervals.iter().enumerate().map(of).collect()
    };
    let line =
        |label: &str, colour, share| Line { label: label.into(), colour, points: points(share) };
    let lines = vec![
        line("50 % within", "c1", 0.5),
        line("99 % within", "c2", 0.99),
        line("slowest", "c4", 1.0),
    ];
    let times: Vec<f64> =
        lines.iter().flat_map(|line| line.points.iter().flatten().map(|(_, time)| *time)).collect();
    if times.is_empty() {
        return None;
    }
    let hints = timeline.hints(|at| {
        let quantile = |share| intervals[at].quantile(share).map(span);
        Some(format!("p50 {}, p99 {}, max {}", quantile(0.5)?, quantile(0.99)?, quantile(1.0)?))
    });
    Some(Chart {
        title: format!("{} over time", latency_name(plan)),
        note: timeline.note("By when the answer came."),
        x: timeline.axis(),
        y: time_axis(times.into_iter()),
        marks: Marks::Lines(lines),
        measured: timeline.measured,
        hints,
    })
}

fn throughput(plan: &Plan, report: &Report) -> Chart {
    let (timeline, intervals) = (Timeline::of(plan, report), report.series.intervals());
    let rate = |count: u64| count as f64 / timeline.width;
    let points = |of: fn(&Interval) -> u64| {
        let point = |(at, interval)| Some((timeline.middle(at), rate(of(interval))));
        // The last interval is cut short by the end of the run, and would look like a slump.
        let whole = intervals.len().saturating_sub(1).max(1);
        intervals.iter().enumerate().take(whole).map(point).collect::<Vec<_>>()
    };
    let lines = vec![
        Line { label: "sent".into(), colour: "c1 under", points: points(|interval| interval.sent) },
        Line {
            label: "received".into(),
            colour: "c2",
            points: points(|interval| interval.received),
        },
    ];
    let high = lines.iter().flat_map(|line| line.points.iter().flatten()).map(|(_, y)| *y);
    Chart {
        title: "Messages per second".into(),
        note: timeline.note("As the client counts them."),
        x: timeline.axis(),
        y: Axis::linear(high.fold(0.0, f64::max), tick_count),
        measured: timeline.measured,
        hints: timeline.hints(|at| {
            let (sent, received) = (rate(intervals[at].sent), rate(intervals[at].received));
            Some(format!("{}/s sent, {}/s received", per_second(sent), per_second(received)))
        }),
        marks: Marks::Lines(lines),
    }
}

fn outcomes(plan: &Plan, report: &Report) -> Chart {
    let (timeline, intervals) = (Timeline::of(plan, report), report.series.intervals());
    let mut layers: Vec<Layer> = Vec::new();
    for (at, interval) in intervals.iter().enumerate() {
        for (outcome, count) in &interval.outcomes {
            let (label, colour) = (outcome.label(), colour_of(outcome));
            let known = layers.iter().position(|layer| layer.label == label);
            let place = known.unwrap_or_else(|| {
                layers.push(Layer { label, colour, counts: vec![0; intervals.len()] });
                layers.len() - 1
            });
            layers[place].counts[at] += count;
        }
    }
    let highest = (0..intervals.len())
        .map(|at| layers.iter().map(|layer| layer.counts[at]).sum::<u64>())
        .max()
        .unwrap_or_default();
    let hints = timeline.hints(|at| {
        let here = layers.iter().filter(|layer| layer.counts[at] > 0);
        let parts: Vec<String> =
            here.map(|layer| format!("{} {}", layer.counts[at], layer.label)).collect();
        (!parts.is_empty()).then(|| parts.join(", "))
    });
    for layer in &mut layers {
        let total: u64 = layer.counts.iter().sum();
        layer.label = format!("{} {}", grouped(total), layer.label);
    }
    Chart {
        title: "What became of connections".into(),
        note: timeline
            .note("Each at the moment it was opened, refused, failed, or closed by the server."),
        x: timeline.axis(),
        y: Axis::linear(highest as f64, tick_count),
        marks: Marks::Bars { width: timeline.width, layers },
        measured: timeline.measured,
        hints,
    }
}

fn colour_of(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Opened => "good",
        Outcome::Refused(_) => "warn",
        Outcome::Failed(_) => "bad",
        Outcome::Closed(_) => "gone",
    }
}

/// Messages per second as the server counts them, between one look at it and the next.
fn server_over_time(plan: &Plan, report: &Report) -> Option<Chart> {
    let timeline = Timeline::of(plan, report);
    let samples = &report.server_samples;
    let points = |name: &str| -> Vec<Option<(f64, f64)>> {
        let rate = |pair: &[(Duration, ServerFigures)]| {
            let seconds = (pair[1].0.saturating_sub(pair[0].0)).as_secs_f64();
            // Looks that follow at once tell of chance, not of a rate.
            let grown = pair[1].1.number(name)? - pair[0].1.number(name)?;
            (seconds > 0.2).then(|| (pair[1].0.as_secs_f64(), grown.max(0.0) / seconds))
        };
        samples.windows(2).map(rate).filter(Option::is_some).collect()
    };
    let line =
        |label: &str, colour, name| Line { label: label.into(), colour, points: points(name) };
    let lines: Vec<Line> =
        [line("taken in", "c1 under", "messages_in"), line("sent out", "c2", "messages_out")]
            .into_iter()
            .filter(|line| line.points.len() > 1)
            .collect();
    let high = lines.iter().flat_map(|line| line.points.iter().flatten()).map(|(_, y)| *y);
    let high = high.fold(0.0, f64::max);
    (high > 0.0).then(|| Chart {
        title: "Messages per second, as the server counts them".into(),
        note: "From its /stats, asked once a second.".into(),
        x: timeline.axis(),
        y: Axis::linear(high, tick_count),
        marks: Marks::Lines(lines),
        measured: timeline.measured,
        hints: Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_written_for_people() {
        assert_eq!([tick_time(0.25), tick_time(2e-5), tick_time(3.0)], ["250 ms", "20 µs", "3 s"]);
        assert_eq!([tick_count(900.0), tick_count(25_000.0)], ["900", "25k"]);
    }
}
