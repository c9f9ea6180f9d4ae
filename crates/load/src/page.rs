//! The report as one page: tiles, plots and tables, without anything from elsewhere.

use serde_json::Value;

use super::{
    chart::escape,
    comparison::Comparison,
    json,
    machine::{self, Machine},
    outcome::{Outcome, ProblemKind},
    plan::Mode,
    plots::charts,
    summary::{Figure, Row, Summary},
    times::Times,
    words::{counted, grouped, per_second, span},
};

const STYLE: &str = include_str!("page.css");

/// A figure worth a large letter, what it is, and how it is to be taken.
struct Tile {
    value: String,
    label: &'static str,
    mood: &'static str,
}

/// The whole page.
pub fn render(summary: &Summary<'_>) -> String {
    let command = escape(&machine::command_line());
    let mut html = format!(
        "<!doctype html>\n<html lang=en><meta charset=utf-8>\
         <meta name=viewport content=\"width=device-width,initial-scale=1\">\
         <title>{command}</title>\n<style>\n{STYLE}</style>\n<main>\n<h1>{}</h1>\n\
         <code>{command}</code>\n",
        escape(&summary.title)
    );
    html += &outcome_box(&summary.outcome);
    html += &bottleneck_box(&summary.bottleneck);
    html += "<div class=tiles>\n";
    for Tile { value, label, mood } in tiles(summary) {
        html += &format!(
            "<div class=\"tile {mood}\"><b>{}</b><span>{label}</span></div>\n",
            escape(&value)
        );
    }
    html += "</div>\n<div class=plots>\n";
    for chart in charts(summary.plan, summary.report) {
        html += &chart.figure();
    }
    html += "</div>\n";
    html += &figures_table(&summary.rows);
    html += &server_table(&summary.comparison);
    html += "<section><h2>Remarks</h2>";
    for remark in &summary.remarks {
        html += &format!("<p>{}</p>", escape(remark));
    }
    html += "</section>\n";
    html += &footer(summary);
    // A style sheet shows what is in it, so that the figures stand in the page once, for people and
    // programs.
    html += &format!(
        "<section><h2>All figures</h2><script type=\"application/json\" id=figures>{}</script>\
             </section>\n</main>\n</html>\n",
        in_script(&a_line_each(&json::object(summary)))
    );
    html
}

/// JSON with a line for each of its outermost keys.
fn a_line_each(object: &Value) -> String {
    let Value::Object(fields) = object else { return object.to_string() };
    let lines: Vec<String> = fields
        .iter()
        .map(|(name, value)| format!("{}: {value}", Value::from(name.as_str())))
        .collect();
    format!("{{\n{}\n}}", lines.join(",\n"))
}

/// JSON that cannot end the element it stands in.
fn in_script(json: &str) -> String {
    json.replace('<', "\\u003c")
}

/// The headline, above everything else.
fn outcome_box(outcome: &Outcome) -> String {
    if outcome.passed() {
        return format!("<div class=verdict>{}</div>\n", escape(&outcome.headline()));
    }
    let mut html = format!(
        "<div class=\"verdict failed\"><b>Failed, with exit code {}.</b><ul>",
        outcome.exit_code()
    );
    for problem in &outcome.problems {
        html += &format!("<li>{}</li>", escape(&problem.text));
    }
    html + "</ul></div>\n"
}

fn bottleneck_box(reasons: &[String]) -> String {
    if reasons.is_empty() {
        return "<div class=verdict>The client had time to spare: what is shown here is the \
                server and the way to it.</div>\n"
            .to_owned();
    }
    let mut html =
        "<div class=\"verdict bad\"><b>The client was the bottleneck.</b> These figures \
                    tell more of it than of the server:<ul>"
            .to_owned();
    for reason in reasons {
        html += &format!("<li>{}</li>", escape(reason));
    }
    html + "</ul></div>\n"
}

fn tiles(summary: &Summary<'_>) -> Vec<Tile> {
    let Summary { plan, report, outcome, .. } = summary;
    let (tally, traffic) = (&report.tally, &report.traffic);
    let rate = match report.rate() {
        rate if rate >= 1000.0 => grouped(rate.round() as u64),
        rate => per_second(rate),
    };
    let tile = |value: String, label| Tile { value, label, mood: "" };
    let lost = |count: u64, label| Tile {
        value: grouped(count),
        label,
        mood: if count > 0 { "bad" } else { "" },
    };
    let quantiles = |times: &Times, labels: [&'static str; 3]| {
        let quantile =
            |share| if times.count() > 0 { span(times.quantile(share)) } else { "–".into() };
        let values = [quantile(0.5), quantile(0.99), quantile(1.0)];
        values.into_iter().zip(labels).map(move |(value, label)| tile(value, label))
    };
    let mut tiles = Vec::new();
    match &plan.mode {
        Mode::Storm { .. } => {
            tiles.push(tile(grouped(tally.served_total()), "served"));
            let labels = ["median time to connect", "99 % connected within", "slowest"];
            tiles.extend(quantiles(&tally.connects(), labels));
            tiles.push(tile(span(tally.settled_after), "until all were answered"));
        }
        Mode::Idle { ping } => {
            tiles.push(tile(grouped(tally.open_max), "open at most"));
            tiles.push(tile(grouped(tally.held_to_the_end), "held to the end"));
            if ping.is_some() {
                let labels = ["median answer to a ping", "99 % answered within", "slowest"];
                tiles.extend(quantiles(&traffic.latency, labels));
                tiles.push(lost(traffic.unanswered(), "pings without an answer"));
            }
        }
        Mode::Echo(_) => {
            tiles.push(tile(rate, "round trips per second"));
            let labels = ["median round trip", "99 % within", "slowest"];
            tiles.extend(quantiles(&traffic.latency, labels));
            tiles.push(lost(traffic.unanswered() + traffic.unsent(), "messages lost"));
        }
        Mode::Fanout(_) => {
            tiles.push(tile(rate, "deliveries per second"));
            let labels = ["median delivery", "99 % within", "slowest"];
            tiles.extend(quantiles(&traffic.latency, labels));
            tiles.push(lost(traffic.undelivered() + traffic.unsent(), "deliveries missing"));
        }
    }
    let refused = tally.refused_total();
    let mood = match refused {
        0 => "",
        _ if outcome.has(ProblemKind::Refused) || outcome.has(ProblemKind::Unmet) => "bad",
        _ => "warn",
    };
    tiles.push(Tile { value: grouped(refused), label: "connections refused", mood });
    tiles.push(lost(tally.failed_total(), "connections failed"));
    tiles.push(lost(tally.closed_by_server_total(), "closed by the server"));
    if traffic.not_joined > 0 {
        tiles.push(lost(traffic.not_joined, "not let into a room"));
    }
    tiles
}

fn figures_table(rows: &[Row]) -> String {
    let mut html = "<section><h2>Figures</h2><table><tr><th></th>".to_owned();
    for head in ["count", "mean", "p50", "p90", "p99", "p99.9", "max"] {
        html += &format!("<th>{head}</th>");
    }
    html += "</tr>";
    for Row { label, is_part, figure } in rows {
        let class = if *is_part { " class=part" } else { "" };
        html += &format!("<tr{class}><td>{}", escape(label));
        match figure {
            Figure::Example(text) => {
                html += &format!(": {}</td><td colspan=7></td>", escape(text));
            }
            Figure::Count(count) => {
                html += &format!("</td><td>{}</td><td colspan=6></td>", grouped(*count));
            }
            Figure::Times(times) => {
                html += &format!("</td><td>{}</td>", grouped(times.count()));
                if times.count() == 0 {
                    html += "<td colspan=6></td>";
                } else {
                    html += &format!("<td>{}</td>", span(times.mean()));
                    for share in [0.5, 0.9, 0.99, 0.999, 1.0] {
                        html += &format!("<td>{}</td>", span(times.quantile(share)));
                    }
                }
            }
        }
        html += "</tr>";
    }
    html + "</table></section>\n"
}

fn server_table(comparison: &Comparison) -> String {
    if comparison.rows.is_empty() {
        return String::new();
    }
    let mut html = format!(
        "<section><h2>The server's own count</h2><table><tr><th></th><th>this client</th>\
         <th>{}</th></tr>",
        comparison.server_head()
    );
    for row in &comparison.rows {
        let shown = |value: &Option<String>| escape(value.as_deref().unwrap_or_default());
        let (client, server) = (shown(&row.client), shown(&row.server));
        html += &format!("<tr><td>{}</td><td>{client}</td><td>{server}</td></tr>", row.what);
    }
    html += "</table><p class=dim>";
    if let Some(remark) = comparison.remark() {
        html += &format!("<b>{}</b> ", escape(&remark));
    }
    html + "Over the whole run, the opening and the warm-up included; other clients of the server \
            are in its count.</p></section>\n"
}

fn footer(summary: &Summary<'_>) -> String {
    let Summary { plan, report, .. } = summary;
    let machine = Machine::here();
    let mut loads = String::new();
    for load in &report.loads {
        loads += &format!(" {:.0} %", load.busy * 100.0);
    }
    let threads = counted(plan.threads as u64, "thread");
    format!(
        "<footer>{} · rusty_socks {} load · {} · {}, {} · {threads}, busy{loads} · <a \
         href=\"#figures\">all figures as JSON</a></footer>\n",
        report.began.format("%Y-%m-%d %H:%M:%S UTC"),
        env!("CARGO_PKG_VERSION"),
        escape(&machine.system),
        escape(&machine.cpu),
        counted(machine.cores as u64, "core")
    )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        failure::{Cause, Failure},
        plan::Plan,
        report::Report,
    };

    #[test]
    fn a_page_needs_nothing_from_elsewhere_and_obeys_nobody() {
        let plan = Plan::typed("echo ws://127.0.0.1:1/?a=1&b='x' --rate 10");
        let mut report = Report::none();
        let hostile = "</script><script>alert(1)</script>";
        report.tally.count_failed(Failure::new(Cause::BadAnswer, hostile));
        report.traffic.unexpected = 1;
        report.traffic.unexpected_example = Some(hostile.to_owned());
        for millis in 1..2000 {
            report.traffic.latency.record(Duration::from_millis(millis));
        }
        let page = render(&Summary::of(&plan, &report));
        assert!(page.contains("a=1&amp;b=&#39;x&#39;"));
        assert_eq!(page.matches("<script").count(), 1, "the figures alone");
        assert_eq!(page.matches("</script>").count(), 1);
        for foreign in ["src=", "@import", "<link", "url("] {
            assert!(!page.contains(foreign), "{foreign}");
        }
        assert!(page.contains("Round trip: percentiles") && page.contains("99.9 %"));
        let json = page.split("id=figures>").nth(1).unwrap().split("</script>").next().unwrap();
        let figures: Value = serde_json::from_str(json).unwrap();
        let style = page.split("</style>").next().unwrap();
        assert!(style.contains("#figures{display:block"), "a link to what is not shown");
        assert!(page.contains("href=\"#figures\""));
        assert_eq!(figures["failed"]["by_cause"]["bad_answer"]["example"], hostile);
    }
}
