//! What a worker lends to the connection that it is working on.

use std::{collections::VecDeque, convert::Infallible, sync::Arc, time::Duration};

use crossbeam_channel::Receiver;
use tungstenite::protocol::Role;

use super::{
    fanouts::Fanouts,
    figures::{Figures, Kept},
    members::Members,
    outbox::{OutboxBounds, Spare},
    progress::Progress,
    shared::Shared,
    timers::{Millis, Timers},
    tls::TlsCx,
};
use crate::{
    config::{Config, Loaded, Reloaded},
    error::Error,
    handler::ServerState,
    http::{proxies::TrustedProxies, response},
    hub::{conn_id::ConnId, room::RoomKey},
    memory::account::{Held, Level},
    metrics::{Snapshot, WorkerMetrics, prometheus},
    ws::{decoder::ProtocolConfig, deflate::Deflaters},
};

/// A worker's context: the server that it shares with the others, and what it has for itself. Used
/// by one thread.
pub(crate) struct WorkerCtx {
    pub(crate) shared: Arc<Shared>,
    /// The settings that hold in this turn.
    config: Arc<Config>,
    /// The generation of these settings.
    generation: u64,
    pub(super) trusted_proxies: TrustedProxies,
    pub(crate) worker: usize,
    metrics: Arc<WorkerMetrics>,
    pub(super) progress: Arc<Progress>,
    /// When this turn began.
    pub(crate) now: Millis,
    /// The time of the hub's clock, once it was asked for in this turn.
    hub_now_ms: Option<u64>,
    /// What the requests of this turn have cost so far. A message is 1, about a microsecond.
    pub(crate) spent: usize,
    pub(crate) members: Members,
    pub(super) fanouts: Fanouts,
    pub(crate) timers: Timers,
    pub(crate) work: WorkLists,
    pub(crate) scratch: Scratch,
    pub(super) tls: TlsCx,
    pub(crate) limits: ConnLimits,
    /// What the connections of this worker hold.
    pub(super) held: Held,
    /// What of that is in the account of memory.
    told: Held,
    date: Date,
}

/// The slots that a worker comes to later in this turn, or in the next: each connection once.
#[derive(Default)]
pub(crate) struct WorkLists {
    /// Slots that may have something to read.
    pub(crate) ready: Vec<usize>,
    /// Likewise, of connections that have asked for much lately.
    pub(crate) heavy: Vec<usize>,
    /// Open connections that are not read because a mailbox is behind.
    pub(crate) parked: Vec<usize>,
    /// Connections in the middle of a message that are not read for want of memory.
    pub(crate) starved: Vec<usize>,
    /// Connections for which bytes wait, and when to see whether they still do, in order of time.
    pub(crate) blocked: VecDeque<(Millis, ConnId)>,
    /// Slots with something to write, or with a close to begin, at the end of the turn.
    pub(crate) dirty: Vec<usize>,
    /// Connections that were dirty in earlier turns and were not come to, in order. Some may be
    /// over.
    pub(crate) unwritten: VecDeque<ConnId>,
    /// Slots whose connection is over, some of them twice. They are freed at the end of this turn
    /// or of one that follows, when nothing refers to them any more.
    pub(crate) gone: Vec<usize>,
    /// A mailbox that this worker feeds is behind: open connections are not read.
    pub(crate) has_backpressure: bool,
}

impl WorkLists {
    /// Whether a slot may have something to read.
    pub(crate) fn has_ready(&self) -> bool {
        !self.ready.is_empty() || !self.heavy.is_empty()
    }

    /// Whether a slot waits to be written to.
    pub(crate) fn has_unwritten(&self) -> bool {
        !self.dirty.is_empty() || !self.unwritten.is_empty()
    }
}

/// Buffers that serve all connections of a worker, one after the other.
pub(crate) struct Scratch {
    pub(crate) spare: Spare,
    /// Control frames that a connection is to send; empty between calls.
    pub(crate) control: Vec<u8>,
    pub(crate) deflaters: Deflaters,
    /// A message between its compression and its frame.
    pub(crate) deflated: Vec<u8>,
}

/// The settings that each message is held against.
pub(crate) struct ConnLimits {
    protocol: ProtocolConfig,
    pub(crate) outbox: OutboxBounds,
    pub(crate) http_outbox: OutboxBounds,
    pub(crate) compression_threshold: usize,
}

impl ConnLimits {
    /// What holds for a client that was told of messages of `told` bytes.
    #[inline]
    pub(super) fn protocol(&self, told: u32) -> ProtocolConfig {
        let message_bytes_max = self.protocol.message_bytes_max.max(told as usize);
        ProtocolConfig { message_bytes_max, ..self.protocol }
    }

    fn new(config: &Config) -> ConnLimits {
        ConnLimits {
            protocol: ProtocolConfig {
                role: Role::Server,
                message_bytes_max: config.max_message_bytes,
            },
            outbox: OutboxBounds { messages_max: config.buffer, bytes_max: config.buffer_bytes },
            http_outbox: OutboxBounds {
                messages_max: config.buffer,
                bytes_max: HTTP_OUTBOX_BYTES_MAX.min(config.buffer_bytes),
            },
            compression_threshold: config.compression_threshold,
        }
    }
}

/// Answers to HTTP requests that may wait for one client. At half of it, further requests wait too:
/// a client that pipelines them must read.
const HTTP_OUTBOX_BYTES_MAX: usize = 64 << 10;

/// Growth of what connections hold that the account of memory hears of at the end of the turn.
const GROWTH_UNTOLD_MAX: usize = 1 << 20;

/// What it costs to make the figures anew, as [`WorkerCtx::spent`] counts it.
const FIGURES_COST: usize = 100;

/// The `Date` header of this second.
struct Date {
    value: String,
    until: Millis,
}

impl WorkerCtx {
    pub(crate) fn new(shared: Arc<Shared>, worker: usize) -> WorkerCtx {
        // Before the settings, so that newer ones are never taken for older ones.
        let generation = shared.settings.generation();
        let config = shared.config();
        WorkerCtx {
            worker,
            generation,
            trusted_proxies: TrustedProxies::new(&config.trusted_proxies),
            metrics: Arc::clone(&shared.metrics.workers[worker]),
            progress: Arc::clone(&shared.progress[worker]),
            now: 0,
            hub_now_ms: None,
            spent: 0,
            members: Members::default(),
            fanouts: Fanouts::default(),
            timers: Timers::default(),
            work: WorkLists::default(),
            scratch: Scratch {
                spare: Spare::default(),
                control: Vec::new(),
                deflaters: Deflaters::new(config.compression_level),
                deflated: Vec::new(),
            },
            tls: TlsCx::new(&shared.metrics.workers[worker], shared.tls.is_some()),
            limits: ConnLimits::new(&config),
            held: Held::default(),
            told: Held::default(),
            date: Date { value: String::new(), until: 0 },
            config,
            shared,
        }
    }

    pub(crate) fn metrics(&self) -> &WorkerMetrics {
        &self.metrics
    }

    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    /// The generation of the settings that hold in this turn.
    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    /// Takes the settings of the last reload, if there was one since the last turn.
    #[inline]
    pub(super) fn follow_settings(&mut self) {
        if self.shared.settings.generation() != self.generation {
            self.take_settings();
        }
    }

    #[cold]
    fn take_settings(&mut self) {
        self.generation = self.shared.settings.generation();
        self.config = self.shared.config();
        self.limits = ConnLimits::new(&self.config);
        self.trusted_proxies = TrustedProxies::new(&self.config.trusted_proxies);
    }

    /// The moment `wait` from the beginning of this turn.
    pub(crate) fn after(&self, wait: Duration) -> Millis {
        let wait = Millis::try_from(wait.as_millis()).unwrap_or(Millis::MAX);
        self.now.saturating_add(wait)
    }

    /// The time of the hub's clock, which is read once a turn at most.
    pub(super) fn hub_now_ms(&mut self) -> u64 {
        *self.hub_now_ms.get_or_insert_with(|| self.shared.hub.now_ms())
    }

    /// Forgets what held for the last turn.
    pub(super) fn begin_turn(&mut self) {
        self.hub_now_ms = None;
        self.spent = 0;
        self.tls.begin_turn();
    }

    /// The value of a `Date` header, formatted once a second.
    pub(crate) fn date(&mut self) -> &str {
        if self.now >= self.date.until {
            self.date = Date { value: response::date_now(), until: self.now + 1000 };
        }
        &self.date.value
    }

    /// The body of an answer to `/stats`, made now or a moment ago.
    pub(crate) fn stats(&mut self) -> serde_json::Result<String> {
        let make = |shared: &Shared| serde_json::to_string(&shared.snapshot());
        self.figures(|figures| &figures.json, make).map(Arc::unwrap_or_clone)
    }

    /// The content type and the body of an answer to `/metrics`, as old at most, for a client that
    /// accepts what its header says.
    pub(crate) fn prometheus(&mut self, accept: Option<&str>) -> (&'static str, String) {
        let text = |shared: &Shared| Ok::<_, Infallible>(shared.prometheus());
        if prometheus::wants_open_metrics(accept) {
            let open = |shared: &Shared| text(shared).map(|text| prometheus::open_metrics(&text));
            let Ok(body) = self.figures(|figures| &figures.open_metrics, open);
            return (prometheus::OPEN_METRICS_TYPE, Arc::unwrap_or_clone(body));
        }
        let Ok(body) = self.figures(|figures| &figures.prometheus, text);
        (prometheus::TEXT_TYPE, Arc::unwrap_or_clone(body))
    }

    /// One form of the figures, which is paid for if it is made anew.
    pub(super) fn figures<T, E>(
        &mut self,
        form: impl FnOnce(&Figures) -> &Kept<T>,
        make: impl FnOnce(&Shared) -> Result<T, E>,
    ) -> Result<Arc<T>, E> {
        let now_ms = self.hub_now_ms();
        form(&self.shared.figures).get(now_ms, || {
            self.spent += FIGURES_COST;
            make(&self.shared)
        })
    }

    /// Adds what the connections of this worker hold to the account of memory.
    pub(super) fn tell_held(&mut self) {
        if self.told != self.held {
            self.told = self.held;
            self.shared.hub.account.set_held(self.worker, &self.held);
        }
    }

    /// Adds it now and not at the end of the turn if it has grown much, because a turn may read and
    /// answer with many large messages.
    pub(super) fn tell_growth(&mut self) {
        let (held, told) = (&self.held, &self.told);
        if held.outboxes + held.inputs > told.outboxes + told.inputs + GROWTH_UNTOLD_MAX {
            self.tell_held();
            // Near the ceiling it is looked at more often than the clock says.
            if self.shared.hub.account.level() != Level::Normal {
                self.shared.compare_memory();
            }
        }
    }

    /// Stops reading from open connections until the mailbox that is behind has caught up.
    pub(crate) fn on_backpressure(&mut self) {
        if !std::mem::replace(&mut self.work.has_backpressure, true) {
            self.metrics().pressure_pauses.add(1);
        }
    }

    /// Delivers nothing more of a room to a connection.
    pub(crate) fn leave(&mut self, slot: usize, room: RoomKey) {
        if let Some(room) = self.members.remove(slot, |other| other.key == room) {
            self.shared.hub.uncount(&room, self.worker);
        }
    }

    /// Delivers nothing more of any room to a connection.
    pub(crate) fn leave_all(&mut self, slot: usize) {
        for room in self.members.remove_all(slot) {
            self.shared.hub.uncount(&room, self.worker);
        }
    }
}

impl ServerState for WorkerCtx {
    fn snapshot(&mut self) -> Arc<Snapshot> {
        let make = |shared: &Shared| Ok::<_, Infallible>(shared.snapshot());
        let Ok(snapshot) = self.figures(|figures| &figures.snapshot, make);
        snapshot
    }

    fn ask_drain(&self) {
        self.shared.ask_drain();
    }

    fn begin_reload(&self) -> Option<Receiver<Result<Reloaded, Error>>> {
        self.shared.begin_reload()
    }

    fn settings(&self) -> (Arc<Config>, Option<Arc<Loaded>>) {
        let loaded = self.shared.source.get().and_then(|source| source.last());
        (Arc::clone(&self.config), loaded)
    }
}
