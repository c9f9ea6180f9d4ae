//! Counters and gauges, and the snapshot that `/stats` and [`ServerHandle::stats`] show.
//!
//! [`ServerHandle::stats`]: crate::ServerHandle::stats

mod distribution;

use std::{
    collections::BTreeMap,
    ops::Deref,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;
use parking_lot::Mutex;
use serde::Serialize;

pub use distribution::Quantiles;
pub(crate) use distribution::Timing;

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
        self.add_many_shared(1);
    }

    /// Adds `n`, from whichever thread.
    pub(crate) fn add_many_shared(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    pub(crate) fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
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

/// One figure of `/stats`, told to who reads it and to what makes pages of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Figure {
    /// Its name in `/stats` and its field in [`Snapshot`].
    pub name: &'static str,
    /// Whether it counts or measures.
    pub kind: FigureKind,
    /// What it says, in a sentence or two of Markdown.
    pub help: &'static str,
}

/// Whether a [`Figure`] only grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FigureKind {
    /// What is true right now.
    Gauge,
    /// A count from the start of the server on.
    Counter,
}

/// Makes the counters, the snapshot and the list of figures from one table, so that a new figure is
/// one row.
macro_rules! figures {
    (
        gauges { $( $(#[doc = $gauge_doc:literal])+ $gauge:ident: $gauge_type:ty, )* }
        server { $( $(#[doc = $server_doc:literal])+ $server:ident, )* }
        sessions { $( $(#[doc = $session_doc:literal])+ $session:ident, )* }
        rooms { $( $(#[doc = $room_doc:literal])+ $room:ident, )* }
        workers { $( $(#[doc = $worker_doc:literal])+ $worker:ident, )* }
    ) => {
        /// What is true right now, gathered from its owners.
        pub(crate) struct Gauges { $( pub(crate) $gauge: $gauge_type, )* }

        /// Counters of the whole server, written from whichever thread.
        #[derive(Default)]
        pub(crate) struct ServerCounters { $( pub(crate) $server: Arc<Counter>, )* }

        /// What became of sessions, counted from whichever thread.
        #[derive(Default)]
        pub(crate) struct SessionMetrics { $( pub(crate) $session: Counter, )* }

        /// What became of rooms, counted from whichever thread.
        #[derive(Default)]
        pub(crate) struct RoomMetrics { $( pub(crate) $room: Counter, )* }

        /// The counters of one worker. Written by that worker alone.
        #[derive(Default)]
        pub(crate) struct WorkerCounters { $( pub(crate) $worker: Counter, )* }

        /// Every figure of [`Snapshot`] that is one number, in the order of `/stats`.
        pub const FIGURES: &[Figure] = &[
            $( figure(stringify!($gauge), FigureKind::Gauge, concat!($($gauge_doc),+)), )*
            $( figure(stringify!($server), FigureKind::Counter, concat!($($server_doc),+)), )*
            $( figure(stringify!($session), FigureKind::Counter, concat!($($session_doc),+)), )*
            $( figure(stringify!($room), FigureKind::Counter, concat!($($room_doc),+)), )*
            $( figure(stringify!($worker), FigureKind::Counter, concat!($($worker_doc),+)), )*
        ];

        /// The server's state at one moment, as `/stats` answers it. Totals count from the start of
        /// the server.
        #[derive(Debug, Clone, Serialize)]
        #[non_exhaustive]
        pub struct Snapshot {
            /// The version of this crate.
            pub version: &'static str,
            /// Seconds since the server was bound.
            pub uptime_s: f64,
            /// CPU time of the whole process since it began, user and system, in seconds. Left out
            /// where the system does not tell it (Windows).
            #[serde(skip_serializing_if = "Option::is_none")]
            pub cpu_seconds: Option<f64>,
            /// Whether the server is shutting down.
            pub draining: bool,
            $( $(#[doc = $gauge_doc])+ pub $gauge: $gauge_type, )*
            $( $(#[doc = $server_doc])+ pub $server: u64, )*
            $( $(#[doc = $session_doc])+ pub $session: u64, )*
            $( $(#[doc = $room_doc])+ pub $room: u64, )*
            $( $(#[doc = $worker_doc])+ pub $worker: u64, )*
            /// Everything refused, for whatever reason.
            pub rejected_total: u64,
            /// The same by reason.
            pub rejected: BTreeMap<&'static str, u64>,
            /// WebSocket connections that ended, by close code; 1006 was lost without one.
            pub closed: BTreeMap<String, u64>,
            /// How long a worker's turn takes, in microseconds, without its sleep.
            pub turn_us: Quantiles,
            /// How long those who waited in line and got in had waited, in milliseconds.
            pub queue_wait_ms: Quantiles,
            /// Each worker by itself.
            pub workers: Vec<WorkerSnapshot>,
        }

        impl Metrics {
            /// Fills in what is counted here; the gauges are the caller's.
            pub(crate) fn snapshot(&self, now: Now<'_>, workers: Vec<WorkerGauges>) -> Snapshot {
                let rejected: BTreeMap<_, _> = Refused::ALL
                    .iter()
                    .map(|why| (why.name(), self.refused[*why as usize].value()))
                    .collect();
                let (closed, turn) = self.closed_and_turns();
                Snapshot {
                    version: env!("CARGO_PKG_VERSION"),
                    uptime_s: now.started.elapsed().as_secs_f64(),
                    cpu_seconds: now.cpu_time.map(|time| time.as_secs_f64()),
                    draining: now.draining,
                    $( $gauge: now.gauges.$gauge, )*
                    $( $server: self.server.$server.value(), )*
                    $( $session: now.sessions.$session.value(), )*
                    $( $room: now.rooms.$room.value(), )*
                    $( $worker: self.workers.iter().map(|worker| worker.$worker.value()).sum(), )*
                    rejected_total: rejected.values().sum(),
                    rejected,
                    closed,
                    turn_us: Quantiles::of(&turn, 1.0),
                    queue_wait_ms: self.queue_wait.quantiles_ms(),
                    workers: self.workers.iter().zip(workers).map(WorkerSnapshot::of).collect(),
                }
            }
        }
    };
}

const fn figure(name: &'static str, kind: FigureKind, help: &'static str) -> Figure {
    Figure { name, kind, help }
}

figures! {
    gauges {
        /// Worker threads (`thread_pool_size`).
        worker_threads: usize,
        /// Permits in use: WebSocket connections served now.
        active_connections: usize,
        /// Permits there are (`max_conn`).
        max_connections: usize,
        /// Upgrades waiting in line.
        queued: usize,
        /// The longest the line may be (`max_queued_tasks`).
        max_queued_tasks: usize,
        /// Open sockets of every kind.
        sockets: usize,
        /// Sockets in the HTTP phase: their head has not come, or they wait for a next request.
        pending_heads: usize,
        /// Refused sockets kept open for a moment so that the client can read why.
        lingering: usize,
        /// Sessions in the session manager, with those that are away.
        sessions: usize,
        /// Sessions whose client lost its connection and may come back.
        sessions_away: usize,
        /// Rooms in the directory.
        rooms: usize,
        /// Bytes kept in the histories of all rooms.
        history_bytes: usize,
        /// Bytes of the direct messages that are kept.
        inbox_bytes: usize,
        /// Bytes of sessions, their memberships and the ids that they remember, as estimated.
        session_bytes: usize,
        /// Bytes of the patterns of sessions, as estimated.
        pattern_bytes: usize,
        /// Messages that wait for the threads of blocking handlers.
        jobs_queued: usize,
    }
    server {
        /// Upgrades answered with 101.
        accepted_total,
        /// Sockets taken from the listener.
        sockets_total,
        /// Times the acceptor waited because the process had no file descriptors left.
        accept_backoffs_total,
        /// Panics in handlers; each cost one connection.
        handler_panics,
    }
    sessions {
        /// Sessions taken up again by another connection.
        sessions_resumed,
        /// Those of them whose earlier connection was still there, and was closed.
        sessions_taken_over,
        /// Sessions whose client did not come back within `resume_window`.
        sessions_expired,
        /// Sessions that ended before that because more than `max_away_sessions` were away.
        sessions_evicted,
        /// Those of them that were seconds old, and of clients that had joined no room and
        /// published nothing with an id.
        sessions_evicted_trivial,
        /// Direct messages taken.
        directs,
        /// Publishes that were a repeat, and not published again.
        repeats,
        /// Notices of presence that told several changes at once.
        presence_batches,
    }
    rooms {
        /// Rooms that nobody was in and that went before their messages were too old: for a new
        /// room, for other histories, or because their client had left too many behind.
        rooms_evicted,
        /// Messages of rooms with members that were forgotten for want of `history_total_bytes`.
        history_trimmed,
    }
    workers {
        /// Messages received.
        messages_in,
        /// Messages put on their way.
        messages_out,
        /// Bytes received, of every kind.
        bytes_in,
        /// Bytes written to sockets, of every kind.
        bytes_out,
        /// Turns of all workers.
        turns,
        /// Those of `messages_out` that came from a room.
        deliveries,
        /// Messages thrown away because their client was closed as too slow.
        dropped,
        /// Messages of rooms that clients were too slow for under the policies `gap` and `latest`.
        /// The client is told which, unless it leaves the room or is gone before.
        missed,
        /// Notices that told clients what they missed.
        gaps,
        /// Times a socket was not read because its client did not read.
        read_pauses,
        /// Times a worker stopped reading because a mailbox was behind.
        pressure_pauses,
        /// Connections closed because their client was too slow.
        slow_consumers,
    }
}

/// Everything counted for the whole server.
#[derive(Default)]
pub(crate) struct Metrics {
    pub(crate) workers: Box<[Arc<WorkerMetrics>]>,
    pub(crate) server: ServerCounters,
    refused: [Counter; Refused::ALL.len()],
    /// How long those who waited in line and got in had waited.
    pub(crate) queue_wait: Timing,
}

/// What one worker counts.
#[derive(Default)]
pub(crate) struct WorkerMetrics {
    counters: WorkerCounters,
    /// How connections ended, by close code; `None` is every code that only the peer has a name
    /// for.
    closed: Mutex<BTreeMap<Option<u16>, u64>>,
    pub(crate) turn: Timing,
}

impl Deref for WorkerMetrics {
    type Target = WorkerCounters;

    fn deref(&self) -> &WorkerCounters {
        &self.counters
    }
}

/// What is true of a server right now, beside what it counts.
pub(crate) struct Now<'a> {
    pub(crate) started: Instant,
    pub(crate) cpu_time: Option<Duration>,
    pub(crate) draining: bool,
    pub(crate) gauges: Gauges,
    pub(crate) sessions: &'a SessionMetrics,
    pub(crate) rooms: &'a RoomMetrics,
}

/// What is true of one worker right now.
pub(crate) struct WorkerGauges {
    pub(crate) sockets: usize,
    pub(crate) mailbox: usize,
    pub(crate) mailbox_refused: usize,
}

impl WorkerMetrics {
    /// Counts an ended connection, under its code if that is one of the bounded number we have
    /// names for.
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

    /// One line on what was refused or dropped since `last`, or `None` when nothing was; `last`
    /// moves on.
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

    /// How connections ended, by close code, and how long turns took, over all workers.
    fn closed_and_turns(&self) -> (BTreeMap<String, u64>, Histogram<u64>) {
        let mut turn = Timing::empty_sum();
        let mut closed = BTreeMap::new();
        for worker in &self.workers {
            worker.turn.add_to(&mut turn);
            for (code, count) in worker.closed.lock().iter() {
                let name = code.map_or("other".to_owned(), |code| code.to_string());
                *closed.entry(name).or_default() += count;
            }
        }
        (closed, turn)
    }
}

/// What had been refused at some moment.
#[derive(Debug, Clone, Default)]
pub(crate) struct Refusals {
    refused: [u64; Refused::ALL.len()],
    slow: u64,
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

impl WorkerSnapshot {
    fn of((worker, gauges): (&Arc<WorkerMetrics>, WorkerGauges)) -> WorkerSnapshot {
        WorkerSnapshot {
            sockets: gauges.sockets,
            mailbox: gauges.mailbox,
            mailbox_refused: gauges.mailbox_refused,
            turns: worker.turns.value(),
            messages_in: worker.messages_in.value(),
            messages_out: worker.messages_out.value(),
            bytes_in: worker.bytes_in.value(),
            bytes_out: worker.bytes_out.value(),
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
        let (closed, _) = metrics.closed_and_turns();
        assert_eq!(closed.get("1000"), Some(&1));
        assert_eq!(closed.get("other"), Some(&1));
    }

    #[test]
    fn every_figure_has_its_row_in_the_documents() {
        let text = include_str!("../docs/stats.md").replace("\r\n", "\n");
        let is_row = |line: &&str| line.contains("| gauge |") || line.contains("| counter |");
        let shown: Vec<&str> = text.lines().filter(is_row).collect();
        let row = |figure: &Figure| {
            let kind = match figure.kind {
                FigureKind::Gauge => "gauge",
                FigureKind::Counter => "counter",
            };
            format!("| `{}` | {kind} | {} |", figure.name, figure.help.trim())
        };
        let rows: Vec<String> = FIGURES.iter().map(row).collect();
        assert_eq!(
            shown,
            rows,
            "docs/stats.md should have the rows on the right:\n{}",
            rows.join("\n")
        );
    }
}
