//! The table of figures, of which counters and snapshot are made.

/// Makes the counters, the snapshot and the list of figures from one table, so that a new figure is
/// one row.
macro_rules! figures {
    (
        gauges { $( $(#[doc = $gauge_doc:literal])+ $gauge:ident: $gauge_type:ty, )* }
        server { $( $(#[doc = $server_doc:literal])+ $server:ident, )* }
        sessions { $( $(#[doc = $session_doc:literal])+ $session:ident, )* }
        rooms { $( $(#[doc = $room_doc:literal])+ $room:ident, )* }
        memory { $( $(#[doc = $memory_doc:literal])+ $memory:ident, )* }
        identity { $( $(#[doc = $identity_doc:literal])+ $identity:ident, )* }
        workers { $( $(#[doc = $worker_doc:literal])+ $worker:ident, )* }
    ) => {
        /// Current values, gathered from their owners.
        pub(crate) struct Gauges { $( pub(crate) $gauge: $gauge_type, )* }

        /// Counters of the whole server, written from any thread.
        #[derive(Default)]
        pub(crate) struct ServerCounters { $( pub(crate) $server: Arc<Counter>, )* }

        /// Counters of sessions, written from any thread.
        #[derive(Default)]
        pub(crate) struct SessionMetrics { $( pub(crate) $session: Counter, )* }

        /// What became of rooms, counted from whichever thread.
        #[derive(Default)]
        pub(crate) struct RoomMetrics { $( pub(crate) $room: Counter, )* }

        /// What was done for want of memory, counted from whichever thread.
        #[derive(Default)]
        pub(crate) struct MemoryMetrics { $( pub(crate) $memory: Counter, )* }
        /// Counters of tokens, written from any thread.
        #[derive(Debug, Default)]
        pub(crate) struct IdentityMetrics { $( pub(crate) $identity: Counter, )* }

        /// The counters of one worker. Written by that worker alone.
        #[derive(Default)]
        pub(crate) struct WorkerCounters { $( pub(crate) $worker: Counter, )* }

        /// Every figure of [`Snapshot`] that is one number, in the order of `/stats`.
        pub const FIGURES: &[Figure] = &[
            $( figure(stringify!($gauge), FigureKind::Gauge, concat!($($gauge_doc),+)), )*
            $( figure(stringify!($server), FigureKind::Counter, concat!($($server_doc),+)), )*
            $( figure(stringify!($session), FigureKind::Counter, concat!($($session_doc),+)), )*
            $( figure(stringify!($room), FigureKind::Counter, concat!($($room_doc),+)), )*
            $( figure(stringify!($memory), FigureKind::Counter, concat!($($memory_doc),+)), )*
            $(
                figure(stringify!($identity), FigureKind::Counter, concat!($($identity_doc),+)),
            )*
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
            /// CPU time of the process since it began, user and system, in seconds. Absent on
            /// Windows.
            #[serde(skip_serializing_if = "Option::is_none")]
            pub cpu_seconds: Option<f64>,
            /// Whether the server is shutting down.
            pub draining: bool,
            $( $(#[doc = $gauge_doc])+ pub $gauge: $gauge_type, )*
            $( $(#[doc = $server_doc])+ pub $server: u64, )*
            $( $(#[doc = $session_doc])+ pub $session: u64, )*
            $( $(#[doc = $room_doc])+ pub $room: u64, )*
            $( $(#[doc = $memory_doc])+ pub $memory: u64, )*
            $( $(#[doc = $identity_doc])+ pub $identity: u64, )*
            $( $(#[doc = $worker_doc])+ pub $worker: u64, )*
            /// Tokens refused, and clients without one that is required, by reason.
            pub tokens_refused: BTreeMap<&'static str, u64>,
            /// Commands refused for want of a permission, by permission.
            pub forbidden: BTreeMap<&'static str, u64>,
            /// Number of refusals, for any reason.
            pub rejected_total: u64,
            /// Number of refusals by reason.
            pub rejected: BTreeMap<&'static str, u64>,
            /// WebSocket connections that ended, by close code; 1006 counts those lost without a
            /// Close.
            pub closed: BTreeMap<String, u64>,
            /// Duration of a worker's turn, in microseconds, without its sleep.
            pub turn_us: Quantiles,
            /// Time from the publish of a message to 64 clients or more to the last delivery that a
            /// worker made of it, in milliseconds; by workers.
            pub fanout_lag_ms: Quantiles,
            /// Time that admitted upgrades had waited in line, in milliseconds.
            pub queue_wait_ms: Quantiles,
            /// The figures of handlers that have [some](crate::Handler::figures), by route.
            #[serde(skip_serializing_if = "BTreeMap::is_empty")]
            pub handlers: BTreeMap<String, BTreeMap<&'static str, u64>>,
            /// The Redises that servers share, if they share any.
            #[serde(skip_serializing_if = "Vec::is_empty")]
            pub engine_shards: Vec<ShardSnapshot>,
            /// The figures of each worker.
            pub workers: Vec<WorkerSnapshot>,
        }

        impl Snapshot {
            /// Returns the names and values of [`FIGURES`], in their order.
            pub(crate) fn values(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [
                    $( (stringify!($gauge), self.$gauge as u64), )*
                    $( (stringify!($server), self.$server), )*
                    $( (stringify!($session), self.$session), )*
                    $( (stringify!($room), self.$room), )*
                    $( (stringify!($memory), self.$memory), )*
                    $( (stringify!($identity), self.$identity), )*
                    $( (stringify!($worker), self.$worker), )*
                ]
                .into_iter()
            }
        }

        impl Metrics {
            /// Makes a snapshot of the counters, and of the gauges in `now` and `workers`.
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
                    $( $memory: now.memory.$memory.value(), )*
                    $( $identity: now.identity.$identity.value(), )*
                    tokens_refused: now.tokens_refused,
                    forbidden: now.forbidden,
                    $( $worker: self.workers.iter().map(|worker| worker.$worker.value()).sum(), )*
                    rejected_total: rejected.values().sum(),
                    rejected,
                    closed,
                    turn_us: Quantiles::of(&turn, 1.0),
                    fanout_lag_ms: Quantiles::of(&self.fanout_lag(), 1000.0),
                    queue_wait_ms: self.queue_wait.quantiles_ms(),
                    handlers: now.handlers,
                    engine_shards: now.engine_shards,
                    workers: self.workers.iter().zip(workers).map(WorkerSnapshot::of).collect(),
                }
            }
        }
    };
}

pub(super) use figures;
