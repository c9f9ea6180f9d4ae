//! What became of the connections: counts and connect times, with no opinion on how they are shown.

use std::{collections::BTreeMap, time::Duration};

use serde::Serialize;

use super::{
    failure::{Cause, Failure},
    stats::ServerFigures,
    times::Times,
    websocket::Ending,
};

/// Everything counted in a run. Every connection ends up in exactly one of: a connect-time
/// histogram (it was served), `refused`, `failed`, `interrupted`.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Served at the first try, sooner than `--waited-after`, and without the server saying that
    /// they waited.
    prompt: Times,
    /// Served at the first try, but slower than `--waited-after`: waited, unless the server is one
    /// that would have said so.
    slow: Times,
    /// Served at the first try, and the server says they waited in its line.
    marked: Times,
    /// Served after a refusal and a wait outside; counted from the first try.
    pub(crate) after_retry: Times,
    /// Connections whose final answer was an HTTP status other than 101, by that status.
    pub(crate) refused: BTreeMap<u16, Refusal>,
    /// Connections that got neither service nor an answer, by cause.
    pub(crate) failed: BTreeMap<Cause, Failures>,
    /// Served ones that ended before we closed them, by how.
    pub(crate) closed_by_server: BTreeMap<Ending, u64>,
    /// Still without an answer when the run was interrupted, or never opened.
    pub(crate) interrupted: u64,
    /// Refusals that were followed by another try.
    pub(crate) retries: u64,
    /// Open now, at most, and when the hold was over.
    pub(crate) open: u64,
    pub(crate) open_max: u64,
    pub(crate) held_to_the_end: u64,
    /// Of those held to the end, who answered our Close with one.
    pub(crate) closed_cleanly: u64,
    pub(crate) messages_sent: u64,
    /// Messages due that were not sent, since the one before had not left yet.
    pub(crate) messages_held_back: u64,
    pub(crate) messages_received: u64,
    /// From the first dial to the last answer.
    pub(crate) settled_after: Duration,
    /// From the last answer to our Close frames.
    pub(crate) held_for: Duration,
    /// The server's own figures, if it has any.
    pub(crate) server: Option<ServerFigures>,
}

/// Connections turned away with one status.
#[derive(Debug, Default)]
pub(crate) struct Refusal {
    pub(crate) count: u64,
    /// The shortest and longest advice that came with it, if any did.
    pub(crate) retry_after: Option<(Duration, Duration)>,
}

/// Connections that failed for one cause.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Failures {
    pub(crate) count: u64,
    /// What the first one of them met with.
    pub(crate) example: String,
}

impl Tally {
    /// Counts a connection served at its first try. `marked`: the server says that it waited.
    pub(crate) fn count_served(&mut self, took: Duration, marked: bool, waited_after: Duration) {
        match (marked, took >= waited_after) {
            (true, _) => self.marked.record(took),
            (false, true) => self.slow.record(took),
            (false, false) => self.prompt.record(took),
        }
        self.count_open();
    }

    /// Counts a connection that was refused before and is served now.
    pub(crate) fn count_served_after_retry(&mut self, took: Duration) {
        self.after_retry.record(took);
        self.count_open();
    }

    /// Counts a connection turned away for good.
    pub(crate) fn count_refused(&mut self, status: u16, retry_after: Option<Duration>) {
        let refusal = self.refused.entry(status).or_default();
        refusal.count += 1;
        if let Some(advice) = retry_after {
            let (least, most) = refusal.retry_after.unwrap_or((advice, advice));
            refusal.retry_after = Some((least.min(advice), most.max(advice)));
        }
    }

    pub(crate) fn count_failed(&mut self, failure: Failure) {
        let failures = self.failed.entry(failure.cause).or_default();
        if failures.count == 0 {
            failures.example = failure.detail;
        }
        failures.count += 1;
    }

    /// Counts a held connection that the server ended.
    pub(crate) fn count_closed_by_server(&mut self, ending: Ending) {
        *self.closed_by_server.entry(ending).or_default() += 1;
        self.open -= 1;
    }

    /// Counts the end of a connection that we have sent a Close.
    pub(crate) fn count_closed_by_us(&mut self, ending: &Ending) {
        self.open -= 1;
        match ending {
            Ending::Code(_) | Ending::NoCode => self.closed_cleanly += 1,
            Ending::NoClose | Ending::Reset | Ending::BrokeProtocol(_) => {}
        }
    }

    /// Whether the server itself tells who waited; else the clock decides.
    pub(crate) fn server_tells_who_waited(&self) -> bool {
        self.marked.count() > 0 || self.server.as_ref().is_some_and(ServerFigures::tells_who_waited)
    }

    /// Those served at once.
    pub(crate) fn at_once(&self) -> Times {
        if self.server_tells_who_waited() {
            self.prompt.with(&self.slow)
        } else {
            self.prompt.clone()
        }
    }

    /// Those served after waiting in the server's line.
    pub(crate) fn after_waiting(&self) -> Times {
        if self.server_tells_who_waited() { self.marked.clone() } else { self.slow.clone() }
    }

    /// All that were served, whenever.
    pub(crate) fn connects(&self) -> Times {
        self.at_once().with(&self.after_waiting()).with(&self.after_retry)
    }

    /// How many of [`at_once`](Self::at_once) there are, without copying their times.
    pub(crate) fn at_once_total(&self) -> u64 {
        let slow = if self.server_tells_who_waited() { self.slow.count() } else { 0 };
        self.prompt.count() + slow
    }

    /// How many of [`after_waiting`](Self::after_waiting) there are.
    pub(crate) fn after_waiting_total(&self) -> u64 {
        if self.server_tells_who_waited() { self.marked.count() } else { self.slow.count() }
    }

    pub(crate) fn served_total(&self) -> u64 {
        self.prompt.count() + self.slow.count() + self.marked.count() + self.after_retry.count()
    }

    pub(crate) fn refused_total(&self) -> u64 {
        self.refused.values().map(|refusal| refusal.count).sum()
    }

    pub(crate) fn failed_total(&self) -> u64 {
        self.failed.values().map(|failures| failures.count).sum()
    }

    pub(crate) fn closed_by_server_total(&self) -> u64 {
        self.closed_by_server.values().sum()
    }

    /// How many connections have got their answer, whatever it was.
    pub(crate) fn settled(&self) -> u64 {
        self.served_total() + self.refused_total() + self.failed_total() + self.interrupted
    }

    /// How many failed because this machine, not the server, had nothing left to give.
    pub(crate) fn client_limited(&self) -> u64 {
        let of = |cause| self.failed.get(&cause).map_or(0, |failures| failures.count);
        of(Cause::ClientOutOfFiles) + of(Cause::ClientOutOfPorts)
    }

    /// Takes in what another thread counted. How many were open at once is not to be had from two
    /// counts; whoever adds them up knows it.
    pub(crate) fn add(&mut self, other: Tally) {
        for (ours, theirs) in [
            (&mut self.prompt, &other.prompt),
            (&mut self.slow, &other.slow),
            (&mut self.marked, &other.marked),
            (&mut self.after_retry, &other.after_retry),
        ] {
            ours.add(theirs);
        }
        for (status, theirs) in other.refused {
            let ours = self.refused.entry(status).or_default();
            ours.count += theirs.count;
            ours.retry_after = match (ours.retry_after, theirs.retry_after) {
                (Some(ours), Some(theirs)) => Some((ours.0.min(theirs.0), ours.1.max(theirs.1))),
                (ours, theirs) => ours.or(theirs),
            };
        }
        for (cause, theirs) in other.failed {
            let ours = self.failed.entry(cause).or_default();
            if ours.count == 0 {
                ours.example = theirs.example;
            }
            ours.count += theirs.count;
        }
        for (ending, count) in other.closed_by_server {
            *self.closed_by_server.entry(ending).or_default() += count;
        }
        for (ours, theirs) in [
            (&mut self.interrupted, other.interrupted),
            (&mut self.retries, other.retries),
            (&mut self.open, other.open),
            (&mut self.open_max, other.open_max),
            (&mut self.held_to_the_end, other.held_to_the_end),
            (&mut self.closed_cleanly, other.closed_cleanly),
            (&mut self.messages_sent, other.messages_sent),
            (&mut self.messages_held_back, other.messages_held_back),
            (&mut self.messages_received, other.messages_received),
        ] {
            *ours += theirs;
        }
    }

    fn count_open(&mut self) {
        self.open += 1;
        self.open_max = self.open_max.max(self.open);
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    const WAITED_AFTER: Duration = Duration::from_millis(250);

    fn millis(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    #[test]
    fn the_clock_decides_who_waited_when_the_server_does_not_say() {
        let mut tally = Tally::default();
        tally.count_served(millis(3), false, WAITED_AFTER);
        tally.count_served(millis(900), false, WAITED_AFTER);
        assert_eq!((tally.at_once().count(), tally.after_waiting().count()), (1, 1));
    }

    #[test]
    fn a_server_that_says_who_waited_is_believed_about_the_others_too() {
        let mut tally = Tally::default();
        tally.count_served(millis(3), false, WAITED_AFTER);
        tally.count_served(millis(900), false, WAITED_AFTER);
        tally.count_served(millis(20), true, WAITED_AFTER);
        assert_eq!((tally.at_once().count(), tally.after_waiting().count()), (2, 1));
        assert_eq!(tally.at_once().quantile(1.0).as_millis(), 900);
        assert_eq!(tally.served_total(), 3);
    }

    #[test]
    fn a_server_with_a_waiting_line_is_believed_when_nobody_waited() {
        let mut tally = Tally::default();
        tally.count_served(millis(900), false, WAITED_AFTER);
        tally.server = ServerFigures::read(br#"{"active_connections":1,"max_queued_tasks":5}"#);
        assert_eq!((tally.at_once().count(), tally.after_waiting().count()), (1, 0));
    }

    #[test]
    fn advice_is_kept_as_a_range() {
        let mut tally = Tally::default();
        for advice in [Some(millis(2000)), None, Some(millis(1000)), Some(millis(3000))] {
            tally.count_refused(503, advice);
        }
        let refusal = &tally.refused[&503];
        assert_eq!((refusal.count, refusal.retry_after), (4, Some((millis(1000), millis(3000)))));
    }

    #[test]
    fn the_client_is_named_when_it_was_the_limit() {
        let mut tally = Tally::default();
        tally.count_failed(Failure::of_dial(&io::ErrorKind::AddrNotAvailable.into()));
        tally.count_failed(Failure::of_dial(&io::ErrorKind::ConnectionRefused.into()));
        #[cfg(unix)]
        tally.count_failed(Failure::of_dial(&io::Error::from_raw_os_error(24)));
        assert_eq!(tally.client_limited(), if cfg!(unix) { 2 } else { 1 });
        assert_eq!(tally.failed[&Cause::ConnectRefused].count, 1);
    }
}
