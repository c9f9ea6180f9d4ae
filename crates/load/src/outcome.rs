//! How a run is judged: what went wrong, the exit code for it, and the headline that says so.

use serde::Serialize;

use super::{
    plan::{Mode, Plan},
    report::Report,
    tally::Refusal,
    words::{counted, per_second, span},
};

/// The statuses by which a server says that it is full (RFC 9110, section 15.6.4; RFC 6585,
/// section 4). In a storm they are what is measured.
const OVERLOAD: [u16; 2] = [503, 429];

/// The judgement of one run.
#[derive(Debug)]
pub struct Outcome {
    /// What went wrong, in the order of the exit codes; empty for a run that passed.
    pub problems: Vec<Problem>,
    /// What passed, for the headline of a run without problems.
    summary: String,
}

/// Something that went wrong in a run.
#[derive(Debug, Serialize)]
pub struct Problem {
    /// Which exit code it asks for.
    pub kind: ProblemKind,
    /// What happened, in words.
    pub text: String,
}

/// Which exit code a problem asks for, in the order in which they are looked at. The names in JSON
/// are stable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ProblemKind {
    /// Connections that got no HTTP answer, or a broken one.
    Failed,
    /// Connections that got another status than 101, or were not let into their room.
    Refused,
    /// Connections that the server ended, messages that were lost, or nothing measured at all.
    Lost,
    /// An expectation of the user that was not met.
    Unmet,
}

impl ProblemKind {
    /// The exit code of a program whose run has this problem first.
    pub fn exit_code(self) -> u8 {
        match self {
            ProblemKind::Failed => 3,
            ProblemKind::Refused => 4,
            ProblemKind::Lost => 5,
            ProblemKind::Unmet => 6,
        }
    }
}

impl Outcome {
    pub(crate) fn of(plan: &Plan, report: &Report) -> Outcome {
        let mut judge = Judge { plan, report, problems: Vec::new() };
        judge.failures();
        judge.refusals();
        judge.endings();
        judge.losses();
        judge.emptiness();
        judge.limits();
        let mut problems = judge.problems;
        problems.sort_by_key(|problem| problem.kind);
        Outcome { problems, summary: summary(plan, report) }
    }

    /// Whether nothing went wrong.
    pub fn passed(&self) -> bool {
        self.problems.is_empty()
    }

    /// The exit code of the first problem; 0 for a run that passed.
    pub fn exit_code(&self) -> u8 {
        self.problems.first().map_or(0, |problem| problem.kind.exit_code())
    }

    pub(crate) fn has(&self, kind: ProblemKind) -> bool {
        self.problems.iter().any(|problem| problem.kind == kind)
    }

    /// The first thing to read of a run, in one line.
    pub fn headline(&self) -> String {
        if self.passed() {
            return format!("Passed: {}.", self.summary);
        }
        let texts: Vec<&str> = self.problems.iter().map(|problem| problem.text.as_str()).collect();
        format!("FAILED (exit code {}): {}.", self.exit_code(), texts.join("; "))
    }
}

/// Looks at one kind of trouble after the other.
struct Judge<'a> {
    plan: &'a Plan,
    report: &'a Report,
    problems: Vec<Problem>,
}

impl Judge<'_> {
    fn blame(&mut self, kind: ProblemKind, text: String) {
        self.problems.push(Problem { kind, text });
    }

    fn failures(&mut self) {
        let tally = &self.report.tally;
        let count = tally.failed_total();
        if count > 0 {
            let causes = tally.failed.iter().map(|(cause, all)| (all.count, cause.meaning()));
            let text = format!(
                "{} to {} failed ({})",
                self.of_all(count),
                self.plan.addresses(),
                listed(causes)
            );
            self.blame(ProblemKind::Failed, text);
        }
    }

    fn refusals(&mut self) {
        let (tally, traffic) = (&self.report.tally, &self.report.traffic);
        let is_storm = matches!(self.plan.mode, Mode::Storm { .. });
        let is_measured =
            |status: &u16| is_storm && tally.served_total() > 0 && OVERLOAD.contains(status);
        let of_all = |all: &mut dyn Iterator<Item = (&u16, &Refusal)>| {
            let all: Vec<_> =
                all.map(|(status, all)| (all.count, format!("with {status}"))).collect();
            let count = all.iter().map(|(count, _)| count).sum();
            let statuses = listed(all.iter().map(|(count, what)| (*count, what.as_str())));
            (count, format!("{} refused ({statuses})", self.of_all_were(count)))
        };
        match &self.plan.common.expect.expect_refused {
            Some(range) => {
                let count = tally.refused_total();
                if !range.contains(count) {
                    let text = format!("{count} connections were refused, expected {range}");
                    self.blame(ProblemKind::Unmet, text);
                }
            }
            None => {
                let (count, text) =
                    of_all(&mut tally.refused.iter().filter(|(status, _)| !is_measured(status)));
                if count > 0 {
                    self.blame(ProblemKind::Refused, text);
                }
            }
        }
        if traffic.not_joined > 0 {
            let codes = traffic.errors.iter().map(|(code, count)| (*count, code.as_str()));
            let codes = match listed(codes) {
                none if none.is_empty() => "no answer".to_owned(),
                codes => codes,
            };
            let text =
                format!("{} not let into a room ({codes})", self.of_all_were(traffic.not_joined));
            self.blame(ProblemKind::Refused, text);
        }
    }

    fn endings(&mut self) {
        let tally = &self.report.tally;
        let count = tally.closed_by_server_total();
        match &self.plan.common.expect.expect_closed {
            Some(range) if range.contains(count) => {}
            Some(range) => {
                let text = format!("the server closed {count} connections, expected {range}");
                self.blame(ProblemKind::Unmet, text);
            }
            None if count == 0 => {}
            None => {
                let endings: Vec<_> = tally
                    .closed_by_server
                    .iter()
                    .map(|(how, count)| (*count, how.meaning()))
                    .collect();
                let endings = listed(endings.iter().map(|(count, how)| (*count, how.as_str())));
                let text = format!("the server closed {} early ({endings})", self.of_all(count));
                self.blame(ProblemKind::Lost, text);
            }
        }
    }

    fn losses(&mut self) {
        let traffic = &self.report.traffic;
        let count = self.report.lost(self.plan);
        match &self.plan.expect_messages.expect_lost {
            Some(range) if range.contains(count) => return,
            Some(range) => {
                let text = format!("{} lost, expected {range}", counted(count, "message"));
                return self.blame(ProblemKind::Unmet, text);
            }
            None => {}
        }
        let kinds: &[(u64, u64, &str)] = match &self.plan.mode {
            Mode::Storm { .. } => &[],
            Mode::Idle { .. } => &[(traffic.unanswered(), traffic.sent, "ping without an answer")],
            Mode::Echo(_) => &[
                (traffic.unanswered(), traffic.sent, "message without an answer"),
                (traffic.unsent(), traffic.due, "message never sent"),
            ],
            Mode::Fanout(_) => &[
                (traffic.undelivered(), traffic.expected, "delivery missing"),
                (traffic.unsent(), traffic.due, "message never sent"),
            ],
        };
        for (count, all, what) in kinds {
            if *count > 0 {
                let (noun, how) = what.split_once(' ').unwrap_or((what, ""));
                let plural = match noun {
                    "delivery" => "deliveries".to_owned(),
                    noun => format!("{noun}s"),
                };
                self.blame(ProblemKind::Lost, format!("{count} of {all} {plural} {how}"));
            }
        }
    }

    /// A run that measured nothing did not pass, whatever the reason.
    fn emptiness(&mut self) {
        let Report { tally, traffic, stopped, .. } = self.report;
        let is_empty = if self.plan.has_traffic() {
            traffic.answered == 0
        } else {
            tally.served_total() + tally.refused_total() == 0
        };
        if is_empty {
            let why = if *stopped { " (it was interrupted)" } else { "" };
            self.blame(ProblemKind::Lost, format!("nothing was measured{why}"));
        }
    }

    fn limits(&mut self) {
        if let Some(limit) = self.plan.common.expect.expect_p99_ms {
            let times = self.report.measured_times(self.plan);
            let p99 = times.quantile(0.99);
            if times.count() == 0 {
                self.blame(ProblemKind::Unmet, format!("no p99, expected at most {}", span(limit)));
            } else if p99 > limit {
                let text = format!("p99 is {}, expected at most {}", span(p99), span(limit));
                self.blame(ProblemKind::Unmet, text);
            }
        }
        if let Some(least) = self.plan.expect_messages.expect_rate {
            let rate = self.report.rate();
            if rate < least as f64 {
                let text = format!("{}/s, expected at least {least}/s", per_second(rate));
                self.blame(ProblemKind::Unmet, text);
            }
        }
    }

    /// "3 of 5 connections".
    fn of_all(&self, count: u64) -> String {
        format!("{count} of {}", counted(u64::from(self.plan.connections), "connection"))
    }

    /// "3 of 5 connections were".
    fn of_all_were(&self, count: u64) -> String {
        format!("{} {}", self.of_all(count), if count == 1 { "was" } else { "were" })
    }
}

/// "3 reset, 2 with 503".
fn listed<'a>(all: impl Iterator<Item = (u64, &'a str)>) -> String {
    all.map(|(count, what)| format!("{count} {what}")).collect::<Vec<_>>().join(", ")
}

fn summary(plan: &Plan, report: &Report) -> String {
    let (tally, traffic) = (&report.tally, &report.traffic);
    let mut parts = vec![format!(
        "{} of {} served",
        tally.served_total(),
        counted(u64::from(plan.connections), "connection")
    )];
    for (count, what) in [
        (tally.refused_total(), "refused"),
        (tally.interrupted, "interrupted"),
        (tally.closed_by_server_total(), "closed by the server"),
    ] {
        if count > 0 {
            parts.push(format!("{count} {what}"));
        }
    }
    match &plan.mode {
        Mode::Storm { .. } | Mode::Idle { ping: None } => {}
        Mode::Idle { .. } => parts.push(format!("{} answered", counted(traffic.answered, "ping"))),
        Mode::Echo(_) => parts.push(counted(traffic.answered, "round trip")),
        Mode::Fanout(_) => match traffic.answered {
            1 => parts.push("1 delivery".to_owned()),
            count => parts.push(format!("{count} deliveries")),
        },
    }
    if plan.has_traffic() {
        parts.push(match report.lost(plan) {
            0 => "nothing lost".to_owned(),
            lost => format!("{lost} lost"),
        });
    }
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        failure::{Cause, Failure},
        websocket::Ending,
    };

    /// The exit code and the headline of a run of `line` that `happen` tells.
    fn judged(line: &str, happen: impl FnOnce(&mut Report)) -> (u8, String) {
        let plan = Plan::typed(line);
        let mut report = Report::none();
        happen(&mut report);
        let outcome = Outcome::of(&plan, &report);
        (outcome.exit_code(), outcome.headline())
    }

    fn serve(report: &mut Report, count: u64) {
        for _ in 0..count {
            let (took, after) = (Duration::from_millis(2), Duration::from_millis(250));
            report.tally.count_served(took, false, after);
        }
    }

    fn refuse(report: &mut Report, count: u64, status: u16) {
        for _ in 0..count {
            report.tally.count_refused(status, None);
        }
    }

    fn answer(report: &mut Report, sent: u64, answered: u64) {
        let traffic = &mut report.traffic;
        (traffic.due, traffic.sent, traffic.answered, traffic.arrived) =
            (sent, sent, answered, answered);
        for _ in 0..answered {
            traffic.latency.record(Duration::from_millis(20));
        }
        report.measured = Duration::from_secs(2);
    }

    #[test]
    fn a_whole_run_passes() {
        let (code, headline) = judged("echo -c 2", |report| {
            serve(report, 2);
            answer(report, 100, 100);
        });
        let wanted = "Passed: 2 of 2 connections served, 100 round trips, nothing lost.";
        assert_eq!((code, headline.as_str()), (0, wanted));
    }

    #[test]
    fn a_storm_takes_a_full_server_for_an_answer_and_nothing_else() {
        let run = |line: &str, served, refused, status| {
            judged(line, |report| {
                serve(report, served);
                refuse(report, refused, status);
            })
        };
        let (code, headline) = run("-c 5", 2, 3, 503);
        assert_eq!((code, headline.as_str()), (0, "Passed: 2 of 5 connections served, 3 refused."));
        assert_eq!(run("-c 5", 2, 3, 429).0, 0);
        let (code, headline) = run("-c 5", 2, 3, 404);
        let wanted = "FAILED (exit code 4): 3 of 5 connections were refused (3 with 404).";
        assert_eq!((code, headline.as_str()), (4, wanted));
        assert_eq!(run("-c 3", 0, 3, 503).0, 4, "nobody was served");
        assert_eq!(run("idle -c 5", 2, 3, 503).0, 4, "an idle run wants all of them");
    }

    #[test]
    fn refusals_that_are_expected_pass_in_their_number() {
        let run = |line: &str| {
            judged(line, |report| {
                serve(report, 2);
                refuse(report, 3, 404);
            })
        };
        assert_eq!(run("-c 5 --expect-refused 3").0, 0);
        assert_eq!(run("idle -c 5 --ping 0 --expect-refused 1..").0, 0);
        let (code, headline) = run("-c 5 --expect-refused ..2");
        let wanted = "FAILED (exit code 6): 3 connections were refused, expected at most 2.";
        assert_eq!((code, headline.as_str()), (6, wanted));
        assert_eq!(judged("-c 2 --expect-refused 1..", |report| serve(report, 2)).0, 6);
    }

    #[test]
    fn the_first_problem_chooses_the_code_and_all_are_told() {
        let (code, headline) = judged("echo -c 9 --expect-p99-ms 5 --expect-rate 100", |report| {
            serve(report, 4);
            refuse(report, 2, 503);
            for cause in [Cause::ConnectRefused, Cause::Reset, Cause::Reset] {
                report.tally.count_failed(Failure::new(cause, "?"));
            }
            report.tally.count_closed_by_server(Ending::Reset);
            answer(report, 10, 9);
            report.traffic.due = 12;
        });
        assert_eq!(code, 3);
        for text in [
            "3 of 9 connections to 0.0.0.0:0 failed (1 connection refused, 2 reset before an",
            "; 2 of 9 connections were refused (2 with 503)",
            "; the server closed 1 of 9 connections early (1 reset)",
            "; 1 of 10 messages without an answer",
            "; 2 of 12 messages never sent",
            "; p99 is 20 ms, expected at most 5.00 ms",
            "; 4.5/s, expected at least 100/s.",
        ] {
            assert!(headline.contains(text), "no {text:?} in {headline}");
        }
    }

    #[test]
    fn losses_and_endings_pass_only_if_expected() {
        let run = |line: &str| {
            judged(line, |report| {
                serve(report, 2);
                report.tally.count_closed_by_server(Ending::Code(4102));
                answer(report, 0, 0);
                let traffic = &mut report.traffic;
                (traffic.expected, traffic.answered) = (10, 8);
            })
        };
        let (code, headline) = run("fanout --subscribers 1");
        assert_eq!(code, 5);
        assert!(headline.contains("2 of 10 deliveries missing"), "{headline}");
        assert_eq!(run("fanout --subscribers 1 --expect-closed 1").0, 5);
        assert_eq!(run("fanout --subscribers 1 --expect-closed 1 --expect-lost ..2").0, 0);
        assert_eq!(run("fanout --subscribers 1 --expect-closed 0 --expect-lost 0").0, 6);
    }

    #[test]
    fn who_is_not_let_into_a_room_was_refused() {
        let (code, headline) = judged("fanout --subscribers 3", |report| {
            serve(report, 4);
            report.traffic.not_joined = 1;
            report.traffic.errors.insert("limit_exceeded".into(), 1);
            report.traffic.answered = 5;
        });
        assert_eq!(code, 4);
        let wanted = "1 of 4 connections was not let into a room (1 limit_exceeded)";
        assert!(headline.contains(wanted), "{headline}");
    }

    #[test]
    fn a_run_that_measured_nothing_did_not_pass() {
        for line in ["", "echo", "fanout", "idle"] {
            let (code, headline) = judged(line, |report| report.stopped = true);
            assert_eq!(code, 5, "{line}");
            assert!(headline.contains("nothing was measured (it was interrupted)"), "{headline}");
        }
        assert_eq!(judged("echo -c 2", |report| serve(report, 2)).0, 5);
        assert_eq!(judged("-c 2", |report| serve(report, 2)).0, 0);
    }
}
