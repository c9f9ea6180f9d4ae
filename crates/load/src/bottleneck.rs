//! Whether the client was the bottleneck: then the figures tell more of it than of the server.

use std::time::Duration;

use super::{
    plan::Plan,
    report::Report,
    words::{counted, span},
};

/// A thread that is busy for more than this share has no time left to be punctual.
const BUSY_MAX: f64 = 0.9;

/// Threads that wait for a CPU for more than this share do not have the machine they need.
const STARVED_MAX: f64 = 0.1;

/// Messages of an open loop that leave later than this are late.
const LAG_MAX: Duration = Duration::from_millis(5);

/// Less than that is late too where it is most of what was measured, from here on: a timer may be
/// so late by itself.
const LAG_OF_NOTE: Duration = Duration::from_millis(2);

/// Why the client, not the server, was the limit; empty when it was not.
pub(crate) fn reasons(plan: &Plan, report: &Report) -> Vec<String> {
    let mut reasons = Vec::new();
    let busiest = report.loads.iter().map(|load| load.busy).fold(0.0, f64::max);
    // A moment's work says little about a thread: a short storm keeps any thread busy throughout.
    let long_enough = plan.has_traffic() || report.tally.settled_after > Duration::from_secs(1);
    if busiest > BUSY_MAX && long_enough {
        let advice = if plan.threads < super::plan::cores() {
            format!("; try --threads {}", plan.threads * 2)
        } else {
            String::new()
        };
        reasons.push(format!("a thread was busy {:.0} % of the time{advice}", busiest * 100.0));
    }
    let starved = report.loads.iter().filter_map(|load| load.starved).fold(0.0, f64::max);
    if starved > STARVED_MAX && long_enough {
        reasons.push(format!(
            "a thread waited for a CPU {:.0} % of the time: this machine is too full",
            starved * 100.0
        ));
    }
    let lag = &report.traffic.lag;
    // What was held back since the server took no more is late through the server.
    let late = lag.quantile(0.99);
    let is_most = late > LAG_OF_NOTE && 2 * late > report.traffic.latency.quantile(0.99);
    if lag.count() > 0 && report.traffic.held_back == 0 && (late > LAG_MAX || is_most) {
        reasons.push(format!(
            "messages left late: 1 in 100 by {} or more, the worst by {}",
            span(late),
            span(lag.quantile(1.0))
        ));
    }
    if report.tally.client_limited() > 0 {
        reasons.push(format!(
            "{} found no file descriptor or port: raise `ulimit -n`, or add --source addresses",
            counted(report.tally.client_limited(), "connection")
        ));
    }
    reasons
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::busy::ThreadLoad;

    fn load(busy: f64, starved: f64) -> ThreadLoad {
        ThreadLoad { busy, cpu: None, starved: Some(starved) }
    }

    #[test]
    fn a_client_with_time_to_spare_is_not_to_blame() {
        let plan = Plan::typed("echo --rate 100");
        let mut report = Report::none();
        report.loads = vec![load(0.4, 0.01), load(0.89, 0.0)];
        report.traffic.lag.record(Duration::from_micros(200));
        assert_eq!(reasons(&plan, &report), Vec::<String>::new());
    }

    #[test]
    fn a_busy_a_starved_and_a_late_client_are_named() {
        let plan = Plan::typed("echo --rate 100 --threads 1");
        let mut report = Report::none();
        report.loads = vec![load(0.2, 0.0), load(0.97, 0.3)];
        report.traffic.lag.record(Duration::from_millis(40));
        let reasons = reasons(&plan, &report);
        assert!(reasons[0].contains("busy 97 %"), "{reasons:?}");
        assert!(reasons[1].contains("waited for a CPU 30 %"), "{reasons:?}");
        assert!(reasons[2].contains("left late"), "{reasons:?}");
    }

    #[test]
    fn lateness_that_is_most_of_the_latency_is_named() {
        let plan = Plan::typed("echo --rate 100");
        let mut report = Report::none();
        report.traffic.lag.record(Duration::from_millis(3));
        report.traffic.latency.record(Duration::from_millis(4));
        assert!(reasons(&plan, &report)[0].contains("left late"));
        for _ in 0..50 {
            report.traffic.latency.record(Duration::from_millis(9));
        }
        assert_eq!(reasons(&plan, &report), Vec::<String>::new(), "here it is the server's");
    }

    #[test]
    fn a_server_that_takes_no_more_is_not_the_clients_fault() {
        let plan = Plan::typed("echo --rate 100");
        let mut report = Report::none();
        report.traffic.lag.record(Duration::from_secs(1));
        report.traffic.held_back = 5;
        assert_eq!(reasons(&plan, &report), Vec::<String>::new());
    }

    #[test]
    fn a_short_storm_may_be_busy() {
        let mut report = Report::none();
        report.loads = vec![load(1.0, 0.5)];
        report.tally.settled_after = Duration::from_millis(300);
        assert_eq!(reasons(&Plan::typed(""), &report), Vec::<String>::new());
    }
}
