//! Counters and gauges, and the snapshot that `/stats` and [`ServerHandle::stats`] show.
//!
//! [`ServerHandle::stats`]: crate::ServerHandle::stats

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;
use parking_lot::Mutex;
use serde::Serialize;

/// The longest time a histogram tells apart: an hour, in microseconds.
const TIMED_US_MAX: u64 = 3_600_000_000;

/// A count that only grows. Its thread writes it; any may read it.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`. Cheap because each counter has one writing thread, so the sum cannot be lost.
    pub(crate) fn add(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }

    /// Adds one, from whichever thread.
    pub(crate) fn add_shared(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A distribution of durations.
#[derive(Debug)]
pub(crate) struct Timing(Mutex<Histogram<u64>>);

impl Default for Timing {
    fn default() -> Timing {
        let histogram = Histogram::new_with_bounds(1, TIMED_US_MAX, 2);
        Timing(Mutex::new(histogram.expect("the bounds are constants and legal")))
    }
}

impl Timing {
    pub(crate) fn record(&self, took: Duration) {
        self.0.lock().saturating_record(took.as_micros() as u64);
    }

    fn add_to(&self, sum: &mut Histogram<u64>) {
        // Both have the same bounds, so adding cannot fail.
        let _ = sum.add(&*self.0.lock());
    }

    fn quantiles_ms(&self) -> Quantiles {
        Quantiles::of(&self.0.lock(), 1000.0)
    }
}

/// Why something was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// All permits taken and the line full.
    Full,
    /// Waited in line for longer than `queue_timeout`.
    QueueTimeout,
    /// The server is draining.
    Draining,
    /// Too many sockets whose request head has not come.
    PendingHeads,
    /// One address has as many connections as it may.
    PerIp,
    /// The page it came from is not allowed.
    Origin,
    /// The handler refused the upgrade.
    Handler,
    /// Not a proper request or upgrade.
    BadRequest,
    /// The request head did not come in time.
    HeadTimeout,
}

impl Refused {
    const ALL: [Refused; 9] = [
        Refused::Full,
        Refused::QueueTimeout,
        Refused::Draining,
        Refused::PendingHeads,
        Refused::PerIp,
        Refused::Origin,
        Refused::Handler,
        Refused::BadRequest,
        Refused::HeadTimeout,
    ];

    /// The stable name in `/stats` and in the body of the answer.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Refused::Full => "full",
            Refused::QueueTimeout => "queue_timeout",
            Refused::Draining => "draining",
            Refused::PendingHeads => "pending_heads",
            Refused::PerIp => "per_ip",
            Refused::Origin => "origin",
            Refused::Handler => "handler",
            Refused::BadRequest => "bad_request",
            Refused::HeadTimeout => "head_timeout",
        }
    }
}

/// Everything counted for the whole server.
#[derive(Default)]
pub(crate) struct Metrics {
    pub(crate) workers: Box<[Arc<WorkerMetrics>]>,
    refused: [Counter; Refused::ALL.len()],
    /// Upgrades that were answered 101.
    pub(crate) accepted: Counter,
    /// Sockets that the acceptor took from the listener.
    pub(crate) sockets: Counter,
    /// Times the acceptor backed off because the process had no file descriptors left.
    pub(crate) accept_backoffs: Counter,
    /// Panics in handlers, wherever they run.
    pub(crate) handler_panics: Arc<Counter>,
    /// How long those who waited in line and got in had waited.
    pub(crate) queue_wait: Timing,
}

/// What one worker counts. Written by that worker alone.
#[derive(Default)]
pub(crate) struct WorkerMetrics {
    pub(crate) messages_in: Counter,
    pub(crate) messages_out: Counter,
    pub(crate) bytes_in: Counter,
    pub(crate) bytes_out: Counter,
    pub(crate) turns: Counter,
    /// Messages put into outboxes from rooms.
    pub(crate) deliveries: Counter,
    /// Messages thrown away with the outbox of a client that was too slow.
    pub(crate) dropped: Counter,
    /// Messages of rooms that a slow client did not get, whose connection goes on.
    pub(crate) missed: Counter,
    /// Notices that told a slow client what it missed.
    pub(crate) gaps: Counter,
    /// Times a socket was not read because its client was behind.
    pub(crate) read_pauses: Counter,
    /// Times this worker stopped reading because a mailbox was behind.
    pub(crate) pressure_pauses: Counter,
    /// Connections closed because their client was too slow.
    pub(crate) slow_consumers: Counter,
    /// How connections ended, by close code; `None` is every code that only the peer has a name for.
    closed: Mutex<BTreeMap<Option<u16>, u64>>,
    pub(crate) turn: Timing,
}

impl WorkerMetrics {
    /// Counts an ended connection, under its code if that is one of the bounded number we have names for.
    pub(crate) fn count_close(&self, known_code: Option<u16>) {
        *self.closed.lock().entry(known_code).or_default() += 1;
    }
}

impl Metrics {
    pub(crate) fn new(workers: usize) -> Metrics {
        Metrics { workers: (0..workers).map(|_| Arc::default()).collect(), ..Metrics::default() }
    }

    pub(crate) fn refuse(&self, why: Refused) {
        self.refused[why as usize].add_shared();
    }

    /// One line on what was refused or dropped since `last`, or `None` when nothing was; `last` moves on.
    pub(crate) fn refusals_since(&self, last: &mut Refusals) -> Option<String> {
        let now = Refusals {
            refused: std::array::from_fn(|index| self.refused[index].value()),
            slow: self.workers.iter().map(|worker| worker.slow_consumers.value()).sum(),
        };
        let before = std::mem::replace(last, now.clone());
        let parts: Vec<String> = Refused::ALL
            .iter()
            .map(|why| (why.name(), now.refused[*why as usize] - before.refused[*why as usize]))
            .chain([("slow_consumer", now.slow - before.slow)])
            .filter(|(_, count)| *count > 0)
            .map(|(name, count)| format!("{count} {name}"))
            .collect();
        (!parts.is_empty()).then(|| parts.join(", "))
    }

    /// Fills in what is counted here; the gauges are the caller's.
    pub(crate) fn snapshot(&self, gauges: Gauges<'_>, workers: Vec<WorkerGauges>) -> Snapshot {
        let sum = |of: fn(&WorkerMetrics) -> &Counter| {
            self.workers.iter().map(|worker| of(worker).value()).sum()
        };
        let rejected: BTreeMap<_, _> = Refused::ALL
            .iter()
            .map(|why| (why.name(), self.refused[*why as usize].value()))
            .collect();
        let mut turn = Histogram::new_from(&*Timing::default().0.lock());
        let mut closed = BTreeMap::new();
        for worker in &self.workers {
            worker.turn.add_to(&mut turn);
            for (code, count) in worker.closed.lock().iter() {
                let name = code.map_or("other".to_owned(), |code| code.to_string());
                *closed.entry(name).or_default() += count;
            }
        }
        Snapshot {
            version: env!("CARGO_PKG_VERSION"),
            uptime_s: gauges.started.elapsed().as_secs_f64(),
            cpu_seconds: gauges.cpu_time.map(|time| time.as_secs_f64()),
            worker_threads: self.workers.len(),
            active_connections: gauges.active_connections,
            max_connections: gauges.max_connections,
            queued: gauges.queued,
            max_queued_tasks: gauges.max_queued_tasks,
            sockets: gauges.sockets,
            pending_heads: gauges.pending_heads,
            lingering: gauges.lingering,
            sessions: gauges.sessions,
            sessions_away: gauges.sessions_away,
            sessions_resumed: gauges.of_sessions.resumed.value(),
            sessions_taken_over: gauges.of_sessions.taken_over.value(),
            sessions_expired: gauges.of_sessions.expired.value(),
            sessions_evicted: gauges.of_sessions.evicted.value(),
            directs: gauges.of_sessions.directs.value(),
            repeats: gauges.of_sessions.repeats.value(),
            rooms: gauges.rooms,
            history_bytes: gauges.history_bytes,
            jobs_queued: gauges.jobs_queued,
            draining: gauges.draining,
            accepted_total: self.accepted.value(),
            rejected_total: rejected.values().sum(),
            rejected,
            closed,
            sockets_total: self.sockets.value(),
            accept_backoffs_total: self.accept_backoffs.value(),
            messages_in: sum(|worker| &worker.messages_in),
            messages_out: sum(|worker| &worker.messages_out),
            bytes_in: sum(|worker| &worker.bytes_in),
            bytes_out: sum(|worker| &worker.bytes_out),
            deliveries: sum(|worker| &worker.deliveries),
            dropped: sum(|worker| &worker.dropped),
            missed: sum(|worker| &worker.missed),
            gaps: sum(|worker| &worker.gaps),
            read_pauses: sum(|worker| &worker.read_pauses),
            pressure_pauses: sum(|worker| &worker.pressure_pauses),
            handler_panics: self.handler_panics.value(),
            turn_us: Quantiles::of(&turn, 1.0),
            queue_wait_ms: self.queue_wait.quantiles_ms(),
            workers: self
                .workers
                .iter()
                .zip(workers)
                .map(|(worker, gauges)| WorkerSnapshot {
                    sockets: gauges.sockets,
                    mailbox: gauges.mailbox,
                    mailbox_refused: gauges.mailbox_refused,
                    turns: worker.turns.value(),
                    messages_in: worker.messages_in.value(),
                    messages_out: worker.messages_out.value(),
                    bytes_in: worker.bytes_in.value(),
                    bytes_out: worker.bytes_out.value(),
                })
                .collect(),
        }
    }
}

/// What had been refused at some moment.
#[derive(Debug, Clone, Default)]
pub(crate) struct Refusals {
    refused: [u64; Refused::ALL.len()],
    slow: u64,
}

/// What became of sessions, counted from whichever thread.
#[derive(Default)]
pub(crate) struct SessionMetrics {
    /// Taken up again by another connection, living or away.
    pub(crate) resumed: Counter,
    /// Taken up while their earlier connection was there.
    pub(crate) taken_over: Counter,
    /// Ended because nobody came back in time.
    pub(crate) expired: Counter,
    /// Ended early because more were away than may be.
    pub(crate) evicted: Counter,
    /// Direct messages taken.
    pub(crate) directs: Counter,
    /// Publishes with an id that its session had published before.
    pub(crate) repeats: Counter,
}

/// What is true right now, gathered from its owners.
pub(crate) struct Gauges<'a> {
    pub(crate) started: Instant,
    pub(crate) cpu_time: Option<Duration>,
    pub(crate) active_connections: usize,
    pub(crate) max_connections: usize,
    pub(crate) queued: usize,
    pub(crate) max_queued_tasks: usize,
    pub(crate) sockets: usize,
    pub(crate) pending_heads: usize,
    pub(crate) lingering: usize,
    pub(crate) sessions: usize,
    pub(crate) sessions_away: usize,
    /// What the session manager counts.
    pub(crate) of_sessions: &'a SessionMetrics,
    pub(crate) rooms: usize,
    pub(crate) history_bytes: usize,
    pub(crate) jobs_queued: usize,
    pub(crate) draining: bool,
}

/// The same for one worker.
pub(crate) struct WorkerGauges {
    pub(crate) sockets: usize,
    pub(crate) mailbox: usize,
    pub(crate) mailbox_refused: usize,
}

/// The server's state at one moment, as `/stats` answers it. Totals count from the start of the server.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct Snapshot {
    /// The version of this crate.
    pub version: &'static str,
    /// Seconds since the server was bound.
    pub uptime_s: f64,
    /// CPU time of the whole process since it began, user and system, in seconds. Left out where the system
    /// does not tell it (Windows).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_seconds: Option<f64>,
    /// Worker threads (`thread_pool_size`).
    pub worker_threads: usize,
    /// Permits in use: WebSocket connections served now.
    pub active_connections: usize,
    /// Permits there are (`max_conn`).
    pub max_connections: usize,
    /// Upgrades waiting in line.
    pub queued: usize,
    /// The longest the line may be (`max_queued_tasks`).
    pub max_queued_tasks: usize,
    /// Open sockets of every kind.
    pub sockets: usize,
    /// Sockets in the HTTP phase: their head has not come, or they wait for a next request.
    pub pending_heads: usize,
    /// Refused sockets kept open for a moment so that the client can read why.
    pub lingering: usize,
    /// Sessions in the session manager, with those that are away.
    pub sessions: usize,
    /// Sessions whose client lost its connection and may come back.
    pub sessions_away: usize,
    /// Sessions taken up again by another connection.
    pub sessions_resumed: u64,
    /// Those of them whose earlier connection was still there, and was closed.
    pub sessions_taken_over: u64,
    /// Sessions whose client did not come back within `resume_window`.
    pub sessions_expired: u64,
    /// Sessions that ended before that because more than `max_away_sessions` were away.
    pub sessions_evicted: u64,
    /// Direct messages taken.
    pub directs: u64,
    /// Publishes that were a repeat, and not published again.
    pub repeats: u64,
    /// Rooms in the directory.
    pub rooms: usize,
    /// Bytes kept in the histories of all rooms.
    pub history_bytes: usize,
    /// Messages that wait for the threads of blocking handlers.
    pub jobs_queued: usize,
    /// Whether the server is shutting down.
    pub draining: bool,
    /// Upgrades answered with 101.
    pub accepted_total: u64,
    /// Everything refused, for whatever reason.
    pub rejected_total: u64,
    /// The same by reason.
    pub rejected: BTreeMap<&'static str, u64>,
    /// WebSocket connections that ended, by close code; 1006 was lost without one.
    pub closed: BTreeMap<String, u64>,
    /// Sockets taken from the listener.
    pub sockets_total: u64,
    /// Times the acceptor waited because the process had no file descriptors left.
    pub accept_backoffs_total: u64,
    /// Messages received.
    pub messages_in: u64,
    /// Messages put on their way.
    pub messages_out: u64,
    /// Bytes received, of every kind.
    pub bytes_in: u64,
    /// Bytes written to sockets, of every kind.
    pub bytes_out: u64,
    /// Those of `messages_out` that came from a room.
    pub deliveries: u64,
    /// Messages thrown away because their client was closed as too slow.
    pub dropped: u64,
    /// Messages of rooms that clients were too slow for under the policies `gap` and `latest`. The client
    /// is told which, unless it leaves the room or is gone before.
    pub missed: u64,
    /// Notices that told clients what they missed.
    pub gaps: u64,
    /// Times a socket was not read because its client did not read.
    pub read_pauses: u64,
    /// Times a worker stopped reading because a mailbox was behind.
    pub pressure_pauses: u64,
    /// Panics in handlers; each cost one connection.
    pub handler_panics: u64,
    /// How long a worker's turn takes, in microseconds, without its sleep.
    pub turn_us: Quantiles,
    /// How long those who waited in line and got in had waited, in milliseconds.
    pub queue_wait_ms: Quantiles,
    /// Each worker by itself.
    pub workers: Vec<WorkerSnapshot>,
}

/// Whether the server is well and takes work, as `/health` answers it.
#[derive(Debug, Serialize)]
pub(crate) struct Health {
    /// `ok` or `draining`.
    pub(crate) status: &'static str,
    pub(crate) active_connections: usize,
    pub(crate) max_connections: usize,
    pub(crate) queued: usize,
    pub(crate) uptime_s: f64,
}

/// One worker's part of a [`Snapshot`].
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct WorkerSnapshot {
    /// Its open sockets.
    pub sockets: usize,
    /// Messages waiting for it from other threads.
    pub mailbox: usize,
    /// Messages refused because its mailbox was full.
    pub mailbox_refused: usize,
    /// Its turns.
    pub turns: u64,
    /// Messages it received.
    pub messages_in: u64,
    /// Messages it put on their way.
    pub messages_out: u64,
    /// Bytes it received.
    pub bytes_in: u64,
    /// Bytes it wrote.
    pub bytes_out: u64,
}

/// The shape of a distribution, to two significant digits.
#[derive(Debug, Clone, Copy, Serialize)]
#[non_exhaustive]
pub struct Quantiles {
    /// How many were measured.
    pub count: u64,
    /// Half took no longer than this.
    pub p50: f64,
    /// 99 of 100 took no longer than this.
    pub p99: f64,
    /// The longest.
    pub max: f64,
}

impl Quantiles {
    fn of(histogram: &Histogram<u64>, divisor: f64) -> Quantiles {
        Quantiles {
            count: histogram.len(),
            p50: histogram.value_at_quantile(0.5) as f64 / divisor,
            p99: histogram.value_at_quantile(0.99) as f64 / divisor,
            max: histogram.max() as f64 / divisor,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_own_place() {
        for (index, why) in Refused::ALL.iter().enumerate() {
            assert_eq!(*why as usize, index, "{why:?}");
        }
    }

    #[test]
    fn an_unknown_code_is_counted_with_the_others() {
        let metrics = Metrics::new(1);
        metrics.workers[0].count_close(Some(1000));
        metrics.workers[0].count_close(None);
        let gauges = Gauges {
            started: Instant::now(),
            cpu_time: None,
            active_connections: 0,
            max_connections: 0,
            queued: 0,
            max_queued_tasks: 0,
            sockets: 0,
            pending_heads: 0,
            lingering: 0,
            sessions: 0,
            sessions_away: 0,
            of_sessions: &SessionMetrics::default(),
            rooms: 0,
            history_bytes: 0,
            jobs_queued: 0,
            draining: false,
        };
        let snapshot = metrics.snapshot(gauges, Vec::new());
        assert_eq!(snapshot.closed.get("1000"), Some(&1));
        assert_eq!(snapshot.closed.get("other"), Some(&1));
    }
}
