//! Counters and gauges, and the snapshot that `/stats` and [`ServerHandle::stats`] show.
//!
//! [`ServerHandle::stats`]: crate::ServerHandle::stats

mod answers;
mod counter;
mod distribution;
mod figure;
mod names;
pub(crate) mod prometheus;
mod refused;
mod table;

use std::{
    collections::BTreeMap,
    ops::Deref,
    sync::Arc,
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;
use parking_lot::Mutex;
use serde::Serialize;

pub(crate) use answers::{Health, Readiness};
pub use answers::{ShardSnapshot, WorkerSnapshot};
pub(crate) use counter::Counter;
pub use distribution::Quantiles;
pub(crate) use distribution::{Times, Timing};
use figure::figure;
pub use figure::{Figure, FigureKind};
pub(crate) use names::names;
pub(crate) use refused::{Refusals, Refused};
use table::figures;

figures! {
    gauges {
        /// Worker threads (`thread_pool_size`).
        worker_threads: usize,
        /// Permits in use: WebSocket connections served now.
        active_connections: usize,
        /// Permits in total (`max_conn`).
        max_connections: usize,
        /// Upgrades waiting in line.
        queued: usize,
        /// Upgrades that may wait in line (`max_queued_tasks`).
        max_queued_tasks: usize,
        /// Open sockets of every kind.
        sockets: usize,
        /// Sockets in the HTTP phase: the request head has not arrived, or another request may
        /// follow.
        pending_heads: usize,
        /// Connections to the admin listener.
        admin_connections: usize,
        /// Bodies of requests to the server API that are being read.
        api_bodies: usize,
        /// Viewers on the admin listener that are shown these figures once a second.
        live_viewers: usize,
        /// Refused sockets that are kept open briefly so that the client can read the answer.
        lingering: usize,
        /// Sessions, including those that are away.
        sessions: usize,
        /// Sessions without a connection that can still be resumed.
        sessions_away: usize,
        /// Rooms that exist.
        rooms: usize,
        /// Questions that wait for the engine.
        engine_waiting: usize,
        /// Bytes that the server may use (`memory_max`); 0 if there is no ceiling.
        memory_bytes_max: usize,
        /// Bytes that are held against it: all of the following, what they take beyond that, and
        /// what the process had at the start.
        memory_bytes: usize,
        /// Bytes of the process in memory, as the system counts them once a second; 0 where it does
        /// not say.
        resident_bytes: usize,
        /// Estimated bytes of messages for several readers, wherever they wait.
        frame_bytes: usize,
        /// Of these, bytes kept in the histories of all rooms.
        history_bytes: usize,
        /// Of these, bytes of direct messages that are kept.
        inbox_bytes: usize,
        /// Bytes that wait for one client each, HTTP included.
        outbox_bytes: usize,
        /// Bytes that came and cannot be handled yet, and what TLS and compression keep.
        input_bytes: usize,
        /// Estimated bytes of sessions, their memberships and the ids that they remember.
        session_bytes: usize,
        /// Estimated bytes of the patterns of sessions.
        pattern_bytes: usize,
        /// Estimated bytes of rooms, without their messages.
        room_bytes: usize,
        /// Bytes of messages and tasks that wait for the threads of handlers, or are handled there.
        job_bytes: usize,
        /// Estimated bytes of open sockets, in the process and in the kernel.
        socket_bytes: usize,
        /// Messages that wait for threads of blocking handlers.
        jobs_queued: usize,
        /// Tasks that handlers deferred, such as the hooks of the chat protocol, and that no thread
        /// has begun.
        tasks_queued: usize,
        /// Revocations of tokens that are kept.
        revocations: usize,
        /// Addresses and users whose connections and rates are remembered.
        owners: usize,
    }
    server {
        /// Upgrades answered with 101, and event streams begun.
        accepted_total,
        /// Part of `accepted_total` without a WebSocket: event streams.
        event_streams_total,
        /// Posts to event streams that were answered, whatever the answer.
        posts_total,
        /// Part of `posts_total` that was answered with an error.
        posts_refused,
        /// Sockets accepted from the listener.
        sockets_total,
        /// Times the acceptor paused because the process had no file descriptors left.
        accept_backoffs_total,
        /// Requests to the admin listener that were answered, whatever the answer.
        admin_requests_total,
        /// Times a viewer of live figures was not shown them because it had not read those before.
        live_skipped_total,
        /// Panics in handlers; each closed one connection.
        handler_panics,
        /// Addresses and users that were forgotten though they had spent something of their rates,
        /// because 65,536 without a connection are remembered at most.
        owners_evicted,
        /// Times new certificates or keys were read and taken into use.
        tls_reloads,
        /// Times new certificates or keys could not be used: the log says why, and the old ones
        /// stay in use.
        tls_reloads_failed,
        /// Times the settings were read anew and taken into use, whether any had changed or not.
        config_reloads,
        /// Times a reload failed: the log says why, and everything stayed as it was.
        config_reloads_failed,
    }
    sessions {
        /// Sessions resumed by another connection.
        sessions_resumed,
        /// Resumed sessions whose earlier connection was still open, and was closed.
        sessions_taken_over,
        /// Resumes refused, most often because the session had ended.
        resumes_refused,
        /// Sessions that ended because they were not resumed within `resume_window`.
        sessions_expired,
        /// Sessions that ended early because more than `max_away_sessions` were away.
        sessions_evicted,
        /// Sessions that ended early because those of their address had reached half of
        /// `max_away_sessions`.
        sessions_evicted_per_ip,
        /// Evicted sessions that were seconds old and whose client had joined no room and published
        /// nothing with an id.
        sessions_evicted_trivial,
        /// Direct messages accepted.
        directs,
        /// Direct messages refused because their receiver reads and was behind.
        directs_refused,
        /// Messages refused because their client sends more than `rate_messages` or `rate_bytes`.
        rate_limited,
        /// Messages refused because all clients at their address send more than
        /// `rate_messages_per_ip` or `rate_bytes_per_ip`.
        rate_limited_per_ip,
        /// Messages refused because all clients of their user send more than
        /// `rate_messages_per_user` or `rate_bytes_per_user`.
        rate_limited_per_user,
        /// Joins refused because their client makes more rooms than `rate_rooms`.
        rooms_rate_limited,
        /// Joins refused because all clients at their address make more rooms than
        /// `rate_rooms_per_ip`.
        rooms_rate_limited_per_ip,
        /// Joins refused because all clients of their user make more rooms than
        /// `rate_rooms_per_user`.
        rooms_rate_limited_per_user,
        /// Connections refused because their user has `max_conn_per_user` connections.
        connections_refused_per_user,
        /// Messages with a known id, which were not published again.
        repeats,
        /// Presence notices with several changes at once.
        presence_batches,
    }
    rooms {
        /// Rooms without members that were removed before their messages were too old: for a new
        /// room, for other histories, or because their client had left too many behind.
        rooms_evicted,
        /// Messages of rooms with members, dropped for `history_total_bytes` or want of memory.
        history_trimmed,
        /// Messages that the engine had lost before they came to this server. Members were told.
        engine_lost,
        /// Times messages of a room were missing, and were asked for again.
        engine_repairs,
        /// Times the engine could not be reached any more.
        engine_outages,
        /// Questions to the engine that were asked again because the connection to it was lost.
        engine_retries,
        /// Commands that were refused because the engine could not be reached, or too many waited
        /// for it.
        engine_refused,
    }
    memory {
        /// Upgrades that waited in line for memory, though there were permits.
        memory_waits,
        /// Commands and publishes answered `overloaded` for want of memory.
        memory_refused,
        /// HTTP connections, upgrades in line and posts on their way that were ended for want of
        /// memory.
        memory_http_closed,
        /// Clients that did not read or finish what they sent, closed for want of memory.
        memory_slow_closed,
        /// Rooms without members that were removed for want of memory.
        memory_rooms_evicted,
        /// Sessions that were away and ended for want of memory.
        memory_sessions_evicted,
    }
    identity {
        /// Tokens that were verified and found good.
        tokens_verified,
        /// Revocations that were forgotten early because there were too many.
        revocations_evicted,
        /// Times the keys of `token_jwks_url` were fetched.
        jwks_fetches,
        /// Part of `jwks_fetches` that failed; the keys from before stay in use.
        jwks_failures,
    }
    workers {
        /// Messages received.
        messages_in,
        /// Messages queued for clients.
        messages_out,
        /// Bytes received, HTTP included.
        bytes_in,
        /// Bytes written to sockets, HTTP included.
        bytes_out,
        /// Turns of all workers.
        turns,
        /// Part of `messages_out` that came from rooms.
        deliveries,
        /// Messages dropped because their client was closed as too slow.
        dropped,
        /// Messages of rooms that slow clients skipped under the policies `gap` and `latest`. The
        /// client gets a notice, unless it leaves the room or disconnects first.
        missed,
        /// Notices to clients about skipped messages.
        gaps,
        /// Times the server stopped reading a socket because its client did not read.
        read_pauses,
        /// Times a worker ran 100 ms later than it meant to, or took that long for one turn. The
        /// deadlines of its clients move by that time.
        stalls,
        /// Turns that took 100 ms or longer; the log says what they were doing.
        late_turns,
        /// Times the server stopped reading a socket until what its client had sent was delivered.
        publish_pauses,
        /// Times a sender was held, because a client that reads was behind with what the sender had
        /// sent.
        sender_holds,
        /// Times a worker stopped reading its sockets because a mailbox was behind.
        pressure_pauses,
        /// Connections closed because their client was too slow.
        slow_consumers,
        /// TLS handshakes that came to an end with TLS 1.2.
        tls_handshakes_tls12,
        /// TLS handshakes that came to an end with TLS 1.3.
        tls_handshakes_tls13,
        /// Part of these two that resumed an earlier session.
        tls_handshakes_resumed,
        /// TLS handshakes that failed; the log says why at `debug`.
        tls_handshakes_failed,
        /// Times a TLS handshake waited for a later turn because its worker had had enough of them.
        tls_handshake_waits,
        /// TLS connections whose client went away without a `close_notify`.
        tls_truncated,
    }
}

/// The counters of the whole server and of its workers.
#[derive(Default)]
pub(crate) struct Metrics {
    pub(crate) workers: Box<[Arc<WorkerMetrics>]>,
    pub(crate) server: ServerCounters,
    refused: [Counter; Refused::ALL.len()],
    /// Time that admitted upgrades had waited in line.
    pub(crate) queue_wait: Timing,
}

/// The counters of one worker.
#[derive(Default)]
pub(crate) struct WorkerMetrics {
    counters: WorkerCounters,
    /// Ended connections by close code; `None` stands for all codes without a name here.
    closed: Mutex<BTreeMap<Option<u16>, u64>>,
    pub(crate) turn: Timing,
    /// From the publish of a message of many to the end of its deliveries on this worker.
    pub(crate) fanout_lag: Timing,
}

impl Deref for WorkerMetrics {
    type Target = WorkerCounters;

    fn deref(&self) -> &WorkerCounters {
        &self.counters
    }
}

/// Current values of the server.
pub(crate) struct Now<'a> {
    pub(crate) started: Instant,
    pub(crate) cpu_time: Option<Duration>,
    pub(crate) draining: bool,
    pub(crate) gauges: Gauges,
    pub(crate) sessions: &'a SessionMetrics,
    pub(crate) rooms: &'a RoomMetrics,
    /// The figures of handlers, by route.
    pub(crate) handlers: BTreeMap<String, BTreeMap<&'static str, u64>>,
    /// The Redises that servers share.
    pub(crate) engine_shards: Vec<ShardSnapshot>,
    pub(crate) memory: &'a MemoryMetrics,
    pub(crate) identity: &'a IdentityMetrics,
    pub(crate) tokens_refused: BTreeMap<&'static str, u64>,
    pub(crate) forbidden: BTreeMap<&'static str, u64>,
}

/// Current values of one worker.
pub(crate) struct WorkerGauges {
    pub(crate) sockets: usize,
    pub(crate) mailbox: usize,
    pub(crate) mailbox_refused: usize,
}

impl WorkerMetrics {
    /// Counts an ended connection, under its code if the code has a name here, so that the table
    /// stays bounded.
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

    /// Describes in one line what was refused or dropped since `last`, and updates `last`. Returns
    /// `None` if there was nothing.
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

    /// Returns a copy of every distribution of times.
    pub(crate) fn times(&self) -> Times {
        let turns = self.workers.iter().map(|worker| worker.turn.histogram()).collect();
        Times { turns, fanout_lag: self.fanout_lag(), queue_wait: self.queue_wait.histogram() }
    }

    fn fanout_lag(&self) -> Histogram<u64> {
        let mut sum = Timing::empty_sum();
        self.workers.iter().for_each(|worker| worker.fanout_lag.add_to(&mut sum));
        sum
    }

    /// Sums up ended connections by close code and durations of turns, over all workers.
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
