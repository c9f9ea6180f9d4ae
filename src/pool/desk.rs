//! What a worker's connections work with: the server they share, and the worker's own tools.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use tungstenite::protocol::Role;

use super::{
    admission::Admission,
    bound::{Bound, PerIp},
    jobs::JobPool,
    members::Members,
    outbox::{OutboxBounds, Spare},
    platform,
    timers::{Millis, Timers},
};
use crate::{
    config::Config,
    handler::erased::DynHandler,
    http::{page::StaticPage, response},
    hub::{Hub, room::RoomKey},
    metrics::{Gauges, Health, Metrics, Now, Snapshot, WorkerGauges, WorkerMetrics},
    ws::{decoder::ProtocolConfig, deflate::Deflaters},
};

/// The server, as every thread sees it. Immutable but for what its parts lock themselves.
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) routes: Vec<Route>,
    pub(crate) pages: Vec<StaticPage>,
    pub(crate) hub: Arc<Hub>,
    pub(crate) admission: Arc<Admission>,
    pub(crate) metrics: Metrics,
    /// Sockets in the HTTP phase.
    pub(crate) pending_heads: Arc<Bound>,
    /// Refused sockets that stay for a moment so that the client can read why.
    pub(crate) lingering: Arc<Bound>,
    pub(crate) per_ip: Arc<PerIp>,
    /// Open sockets of each worker; the acceptor gives the next one to the worker with the fewest.
    pub(crate) sockets: Box<[AtomicUsize]>,
    pub(crate) draining: AtomicBool,
    pub(crate) started: Instant,
}

/// A WebSocket route.
pub(crate) struct Route {
    pub(crate) path: String,
    pub(crate) handler: Arc<dyn DynHandler>,
    /// The threads of a handler that blocks.
    pub(crate) jobs: Option<JobPool>,
}

impl Shared {
    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// What `/health` answers now.
    pub(crate) fn health(&self) -> Health {
        let (active_connections, queued) = self.admission.gauges();
        Health {
            status: if self.is_draining() { "draining" } else { "ok" },
            active_connections,
            max_connections: self.config.max_conn,
            queued,
            uptime_s: self.started.elapsed().as_secs_f64(),
        }
    }

    /// Every gauge and counter, now.
    pub(crate) fn snapshot(&self) -> Snapshot {
        let (active_connections, queued) = self.admission.gauges();
        let (sessions, sessions_away) = self.hub.sessions.gauges();
        let bytes = self.hub.bytes();
        let sockets = |worker: usize| self.sockets[worker].load(Ordering::Relaxed);
        let workers = 0..self.sockets.len();
        let gauges = Gauges {
            worker_threads: workers.len(),
            active_connections,
            max_connections: self.config.max_conn,
            queued,
            max_queued_tasks: self.config.max_queued_tasks,
            sockets: workers.clone().map(sockets).sum(),
            pending_heads: self.pending_heads.used(),
            lingering: self.lingering.used(),
            sessions,
            sessions_away,
            rooms: self.hub.rooms.len(),
            history_bytes: bytes.histories,
            inbox_bytes: bytes.inboxes,
            session_bytes: bytes.sessions,
            pattern_bytes: bytes.patterns,
            jobs_queued: self
                .routes
                .iter()
                .filter_map(|route| route.jobs.as_ref())
                .map(JobPool::queued)
                .sum(),
        };
        let workers = workers.map(|worker| WorkerGauges {
            sockets: sockets(worker),
            mailbox: self.hub.mailboxes.waiting(worker),
            mailbox_refused: self.hub.mailboxes.refused(worker),
        });
        let now = Now {
            started: self.started,
            cpu_time: platform::cpu_time(),
            draining: self.is_draining(),
            gauges,
            sessions: &self.hub.sessions.metrics,
            rooms: &self.hub.rooms.metrics,
        };
        self.metrics.snapshot(now, workers.collect())
    }
}

/// A worker's tools and lists. Used by one thread; lent to the connection that is being worked on.
pub(crate) struct Desk {
    pub(crate) shared: Arc<Shared>,
    pub(crate) worker: usize,
    metrics: Arc<WorkerMetrics>,
    /// When this turn began.
    pub(crate) now: Millis,
    pub(crate) members: Members,
    pub(crate) protocol: ProtocolConfig,
    pub(crate) deflaters: Deflaters,
    pub(crate) spare: Spare,
    /// A message between its compression and its frame.
    pub(crate) deflated: Vec<u8>,
    pub(crate) compression_threshold: usize,
    pub(crate) outbox_bounds: OutboxBounds,
    pub(crate) timers: Timers,
    /// Slots that may have something to read.
    pub(crate) ready: Vec<usize>,
    /// Open connections that are not read because a mailbox is behind.
    pub(crate) parked: Vec<usize>,
    /// Slots with something to write, or with a close to begin, at the end of the turn.
    pub(crate) dirty: Vec<usize>,
    /// Slots whose connection is over; freed at the end of the turn, when nobody looks at them.
    pub(crate) gone: Vec<usize>,
    /// A mailbox that this worker feeds is behind: open connections are not read.
    pub(crate) pressured: bool,
    /// Control frames that a connection is to send; empty between calls.
    pub(crate) control: Vec<u8>,
    date: Date,
}

/// The `Date` header of this second.
struct Date {
    value: String,
    until: Millis,
}

impl Desk {
    pub(crate) fn new(shared: Arc<Shared>, worker: usize) -> Desk {
        let config = &shared.config;
        Desk {
            worker,
            metrics: Arc::clone(&shared.metrics.workers[worker]),
            now: 0,
            members: Members::default(),
            protocol: ProtocolConfig {
                role: Role::Server,
                message_bytes_max: config.max_message_bytes,
            },
            deflaters: Deflaters::new(config.compression_level),
            deflated: Vec::new(),
            compression_threshold: config.compression_threshold,
            spare: Spare::default(),
            outbox_bounds: OutboxBounds {
                messages_max: config.buffer,
                bytes_max: config.buffer_bytes,
            },
            timers: Timers::default(),
            ready: Vec::new(),
            parked: Vec::new(),
            dirty: Vec::new(),
            gone: Vec::new(),
            pressured: false,
            control: Vec::new(),
            date: Date { value: String::new(), until: 0 },
            shared,
        }
    }

    pub(crate) fn metrics(&self) -> &WorkerMetrics {
        &self.metrics
    }

    pub(crate) fn config(&self) -> &Config {
        &self.shared.config
    }

    /// The moment `wait` from the beginning of this turn.
    pub(crate) fn after(&self, wait: Duration) -> Millis {
        self.now + wait.as_millis() as Millis
    }

    /// The value of a `Date` header, formatted once a second.
    pub(crate) fn date(&mut self) -> &str {
        if self.now >= self.date.until {
            self.date = Date { value: response::date_now(), until: self.now + 1000 };
        }
        &self.date.value
    }

    /// Stops reading from open connections until the mailbox that is behind has caught up.
    pub(crate) fn on_backpressure(&mut self) {
        if !self.pressured {
            self.pressured = true;
            self.metrics().pressure_pauses.add(1);
        }
    }

    /// Delivers nothing more of a room to a connection.
    pub(crate) fn leave(&mut self, slot: usize, room: RoomKey) {
        if let Some(room) = self.members.remove(slot, |other| other.key == room) {
            self.shared.hub.uncount(&room, self.worker);
        }
    }

    /// The same of all its rooms.
    pub(crate) fn leave_all(&mut self, slot: usize) {
        for room in self.members.remove_all(slot) {
            self.shared.hub.uncount(&room, self.worker);
        }
    }
}
