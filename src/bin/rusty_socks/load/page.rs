//! The findings as one page: tiles, plots and tables, without anything from elsewhere.

use super::{
    captain::Findings,
    chart::{escape, push},
    json,
    machine::{self, Machine},
    plan::{Mode, Plan},
    plots::{charts, latency_name},
    table::{self, Compared, per_second, span},
    times::Times,
    verdict,
};

const STYLE: &str = include_str!("page.css");

/// A figure worth a large letter, what it is, and how it is to be taken.
struct Tile {
    value: String,
    label: &'static str,
    mood: &'static str,
}

/// The whole page.
pub(super) fn render(plan: &Plan, findings: &Findings) -> String {
    let command = machine::command_line();
    let title = table::title(plan, findings);
    let mut html = format!(
        "<!doctype html>\n<html lang=en><meta charset=utf-8>\
         <meta name=viewport content=\"width=device-width,initial-scale=1\">\
         <title>{}</title>\n<style>\n{STYLE}</style>\n<main>\n<h1>{}</h1>\n<code>{}</code>\n",
        escape(&command),
        escape(&title),
        escape(&command)
    );
    html += &verdict_box(plan, findings);
    html += "<div class=tiles>\n";
    for Tile { value, label, mood } in tiles(plan, findings) {
        push(
            &mut html,
            format_args!(
                "<div class=\"tile {mood}\"><b>{}</b><span>{label}</span></div>\n",
                escape(&value)
            ),
        );
    }
    html += "</div>\n<div class=plots>\n";
    for chart in charts(plan, findings) {
        html += &chart.figure();
    }
    html += "</div>\n";
    html += &times_table(plan, findings);
    html += &server_table(findings);
    html += "<section><h2>Remarks</h2>";
    for remark in table::remarks(plan, findings) {
        push(&mut html, format_args!("<p>{}</p>", escape(&remark)));
    }
    html += "</section>\n";
    html += &footer(plan, findings);
    push(
        &mut html,
        format_args!(
            "<script type=\"application/json\" id=figures>{}</script>\n</main>\n</html>\n",
            in_script(&json::object(plan, findings).to_string())
        ),
    );
    html
}

/// JSON that cannot end the element it stands in.
fn in_script(json: &str) -> String {
    json.replace('<', "\\u003c")
}

fn verdict_box(plan: &Plan, findings: &Findings) -> String {
    let reasons = verdict::reasons(plan, findings);
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
        push(&mut html, format_args!("<li>{}</li>", escape(&reason)));
    }
    html + "</ul></div>\n"
}

fn tiles(plan: &Plan, findings: &Findings) -> Vec<Tile> {
    let (tally, traffic) = (&findings.tally, &findings.traffic);
    let seconds = findings.measured.as_secs_f64().max(1e-9);
    let rate = match traffic.arrived as f64 / seconds {
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
            let turned_away = tally.rejected_total();
            let mood = if turned_away > 0 { "warn" } else { "" };
            tiles.push(Tile { value: grouped(turned_away), label: "rejected", mood });
            let labels = ["median time to connect", "99 % connected within", "slowest"];
            tiles.extend(quantiles(&connects(findings), labels));
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
            tiles.push(lost(traffic.unanswered() + traffic.unsent(), "without an answer"));
        }
        Mode::Fanout(_) => {
            tiles.push(tile(rate, "deliveries per second"));
            let labels = ["median delivery", "99 % within", "slowest"];
            tiles.extend(quantiles(&traffic.latency, labels));
            tiles.push(lost(traffic.undelivered() + traffic.unsent(), "deliveries missing"));
        }
    }
    tiles.push(lost(tally.failed_total(), "connections failed"));
    tiles.push(lost(tally.closed_by_server_total(), "closed by the server"));
    tiles
}

/// How long all that were served took to connect.
pub(super) fn connects(findings: &Findings) -> Times {
    let tally = &findings.tally;
    tally.at_once().with(&tally.after_waiting()).with(&tally.after_retry)
}

fn times_table(plan: &Plan, findings: &Findings) -> String {
    let (tally, traffic) = (&findings.tally, &findings.traffic);
    let mut rows: Vec<(&str, Times)> = vec![
        (latency_name(plan), traffic.latency.clone()),
        ("Sent late by", traffic.lag.clone()),
        ("Served at once", tally.at_once()),
        ("Served after waiting", tally.after_waiting()),
        ("Served after a retry", tally.after_retry.clone()),
    ];
    rows.retain(|(_, times)| times.count() > 0);
    let mut html = "<section><h2>Times</h2><table><tr><th></th>".to_owned();
    for head in ["count", "mean", "p50", "p90", "p99", "p99.9", "max"] {
        push(&mut html, format_args!("<th>{head}</th>"));
    }
    html += "</tr>";
    for (name, times) in rows {
        push(&mut html, format_args!("<tr><td>{name}</td><td>{}</td>", grouped(times.count())));
        push(&mut html, format_args!("<td>{}</td>", span(times.mean())));
        for share in [0.5, 0.9, 0.99, 0.999, 1.0] {
            push(&mut html, format_args!("<td>{}</td>", span(times.quantile(share))));
        }
        html += "</tr>";
    }
    html + "</table></section>\n"
}

fn server_table(findings: &Findings) -> String {
    let compared = table::compared(findings);
    if compared.is_empty() {
        return String::new();
    }
    let mut html = "<section><h2>The server's own count</h2><table><tr><th></th><th>this client\
                    </th><th>the server</th></tr>"
        .to_owned();
    for Compared { what, client, server } in compared {
        let (client, server) = (client.unwrap_or_default(), server.unwrap_or_default());
        push(
            &mut html,
            format_args!(
                "<tr><td>{what}</td><td>{}</td><td>{}</td></tr>",
                escape(&client),
                escape(&server)
            ),
        );
    }
    html + "</table><p class=dim>Over the whole run, the opening and the warm-up included; other \
            clients of the server are in its count.</p></section>\n"
}

fn footer(plan: &Plan, findings: &Findings) -> String {
    let machine = Machine::here();
    let mut loads = String::new();
    for load in &findings.loads {
        push(&mut loads, format_args!(" {:.0} %", load.busy * 100.0));
    }
    let threads = match plan.threads {
        1 => "1 thread".to_owned(),
        threads => format!("{threads} threads"),
    };
    format!(
        "<footer>{} · rusty_socks {} load · {} · {}, {} cores · {threads}, busy{loads} · the figures \
         are in this page as JSON (<a href=\"#figures\">#figures</a>)</footer>\n",
        findings.began.format("%Y-%m-%d %H:%M:%S UTC"),
        env!("CARGO_PKG_VERSION"),
        escape(&machine.system),
        escape(&machine.cpu),
        machine.cores
    )
}

/// A count with its thousands apart.
pub(super) fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::load::tally::{Cause, Failure};

    #[test]
    fn a_page_needs_nothing_from_elsewhere_and_obeys_nobody() {
        let plan = Plan::typed("echo ws://127.0.0.1:1/?a=1&b='x' --rate 10");
        let mut findings = Findings::none();
        let hostile = "</script><script>alert(1)</script>";
        findings.tally.count_failed(Failure::new(Cause::BadAnswer, hostile));
        findings.traffic.unexpected = 1;
        findings.traffic.unexpected_example = Some(hostile.to_owned());
        for millis in 1..2000 {
            findings.traffic.latency.record(Duration::from_millis(millis));
        }
        let page = render(&plan, &findings);
        assert!(page.contains("a=1&amp;b=&#39;x&#39;"));
        assert_eq!(page.matches("<script").count(), 1, "the figures alone");
        assert_eq!(page.matches("</script>").count(), 1);
        for foreign in ["src=", "@import", "<link", "url("] {
            assert!(!page.contains(foreign), "{foreign}");
        }
        assert!(page.contains("Round trip: percentiles") && page.contains("99.9 %"));
        let json = page.split("id=figures>").nth(1).unwrap().split("</script>").next().unwrap();
        let figures: serde_json::Value = serde_json::from_str(json).unwrap();
        assert_eq!(figures["failed"]["by_cause"]["bad_answer"]["example"], hostile);
    }

    #[test]
    fn numbers_are_written_for_people() {
        assert_eq!([grouped(7), grouped(1234), grouped(1_000_000)], ["7", "1,234", "1,000,000"]);
    }
}
