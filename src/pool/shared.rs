//! The server, as every thread sees it.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use crossbeam_channel::Sender;

use super::{
    admission::Admission, bound::Bound, figures::Figures, jobs::JobPool, platform,
    progress::Progress, reload_lock::ReloadLock, settings::Settings, tasks::TaskPool,
};
use crate::{
    config::{Config, ConfigSource},
    error::Error,
    handler::{admin::AdminHandler, erased::DynHandler},
    http::page::StaticPage,
    hub::{Hub, mailbox::Mailboxes},
    memory::resident,
    metrics::{
        Gauges, Health, Metrics, Now, Readiness, Snapshot, WorkerGauges,
        prometheus::{self, Extra},
    },
    tls::Tls,
};

/// The server, as every thread sees it. Immutable but for what its parts lock themselves.
pub(crate) struct Shared {
    pub(crate) settings: Settings,
    pub(crate) routes: Vec<Route>,
    pub(crate) pages: Vec<StaticPage>,
    pub(crate) hub: Arc<Hub>,
    pub(crate) admission: Arc<Admission>,
    pub(crate) metrics: Metrics,
    /// What new connections need for TLS, if the server has it.
    pub(crate) tls: Option<Arc<Tls>>,
    /// Sockets in the HTTP phase.
    pub(crate) pending_heads: Arc<Bound>,
    /// Connections of the admin listener.
    pub(crate) admin_conns: Arc<Bound>,
    /// Bodies of requests that are being read.
    pub(crate) api_bodies: Arc<Bound>,
    /// Connections of the admin listener that are shown the figures.
    pub(crate) live_viewers: Arc<Bound>,
    pub(crate) admin: AdminSite,
    /// Asks for a drain, of a server that runs.
    pub(crate) drain: OnceLock<Sender<Duration>>,
    /// Refused sockets that stay for a moment so that the client can read why.
    pub(crate) lingering: Arc<Bound>,
    /// Open sockets of each worker; the acceptor gives the next one to the worker with the fewest.
    pub(crate) sockets: Box<[AtomicUsize]>,
    pub(super) figures: Figures,
    /// What each worker is doing.
    pub(crate) progress: Box<[Arc<Progress>]>,
    pub(crate) draining: AtomicBool,
    /// Where the settings came from, if the server is to read them anew.
    pub(crate) source: OnceLock<Box<dyn ConfigSource>>,
    pub(crate) reloading: ReloadLock,
    /// Whether a thread reads the settings anew because the admin listener was asked to.
    pub(super) is_reloading: AtomicBool,
    pub(crate) started: Instant,
    /// When the server started by the clock, read once: a time that is computed anew differs in its
    /// last digits, and Prometheus takes that for another start.
    started_at: SystemTime,
}

/// What the admin listener has beside what every server answers there.
#[derive(Default)]
pub(crate) struct AdminSite {
    pub(crate) pages: Vec<StaticPage>,
    /// What answers all other requests.
    pub(crate) handler: Option<Box<dyn AdminHandler>>,
}

/// A WebSocket route.
pub(crate) struct Route {
    pub(crate) path: String,
    pub(crate) handler: Arc<dyn DynHandler>,
    /// Whether clients may come without a WebSocket.
    pub(crate) takes_event_streams: bool,
    /// The threads of a handler that blocks.
    pub(crate) jobs: Option<JobPool>,
    /// The threads for what a handler on workers defers.
    pub(crate) tasks: Option<TaskPool>,
}

impl Route {
    /// Returns the handler's own figures under the path, if there are any.
    fn figures(&self) -> Option<(String, BTreeMap<&'static str, u64>)> {
        let figures = self.handler.figures();
        (!figures.is_empty()).then(|| (self.path.clone(), figures.into_iter().collect()))
    }
}

impl Shared {
    /// A server without connections, with the workers that `mailboxes` are for.
    pub(crate) fn new(
        config: Config,
        routes: Vec<Route>,
        pages: Vec<StaticPage>,
        admin: AdminSite,
        hub: Hub,
        mailboxes: Mailboxes,
        tls: Option<Arc<Tls>>,
    ) -> Shared {
        let hub = Arc::new(hub);
        let mut metrics = Metrics::new(config.thread_pool_size);
        metrics.server.owners_evicted = Arc::clone(&hub.owners.evicted);
        Shared {
            routes,
            pages,
            hub,
            admission: Admission::new(config.max_conn, config.max_queued_tasks, mailboxes),
            metrics,
            tls,
            pending_heads: Bound::new(config.max_pending_heads),
            admin_conns: Bound::new(config.max_admin_conn),
            api_bodies: Bound::new(config.max_api_bodies),
            live_viewers: Bound::new(config.max_live_viewers),
            admin,
            drain: OnceLock::new(),
            lingering: Bound::new(config.max_lingering),
            sockets: (0..config.thread_pool_size).map(|_| AtomicUsize::new(0)).collect(),
            figures: Figures::default(),
            progress: (0..config.thread_pool_size).map(|_| Arc::default()).collect(),
            draining: AtomicBool::new(false),
            source: OnceLock::new(),
            reloading: ReloadLock::default(),
            is_reloading: AtomicBool::new(false),
            started: Instant::now(),
            started_at: SystemTime::now(),
            settings: Settings::new(config),
        }
    }

    /// The settings that hold now.
    pub(crate) fn config(&self) -> Arc<Config> {
        self.settings.get()
    }

    /// Starts the threads of the handlers that have some. Each holds `alive` until it ends.
    pub(crate) fn start_handler_threads(&self, alive: &Sender<()>) -> Result<(), Error> {
        for route in &self.routes {
            route.jobs.iter().try_for_each(|pool| pool.start(alive))?;
            route.tasks.iter().try_for_each(|pool| pool.start(alive))?;
        }
        Ok(())
    }

    /// Ends these threads once what waits for them is done.
    pub(crate) fn stop_handler_threads(&self) {
        for route in &self.routes {
            route.jobs.iter().for_each(JobPool::stop);
            route.tasks.iter().for_each(TaskPool::stop);
        }
    }

    /// Compares the account of memory with what the system says. Called once a second by one
    /// worker, and more often near the ceiling.
    pub(crate) fn compare_memory(&self) {
        if self.hub.clock.is_machine()
            && let Some(resident) = resident::bytes()
        {
            self.hub.account.compare(resident, self.hub.now_ms());
        }
        self.hub.account.weigh();
    }

    /// Says from now on that the server drains.
    pub(crate) fn announce_drain(&self) {
        self.draining.store(true, Ordering::SeqCst);
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Returns the milliseconds since the server was bound.
    pub(crate) fn uptime_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }

    /// What `/health` answers now.
    pub(crate) fn health(&self) -> Health {
        let (active_connections, queued) = self.admission.gauges();
        Health {
            status: if self.is_draining() { "draining" } else { "ok" },
            active_connections,
            max_connections: self.config().max_conn,
            queued,
            uptime_s: self.started.elapsed().as_secs_f64(),
        }
    }

    /// What `/ready` answers now: whether new clients should be sent here.
    pub(crate) fn readiness(&self) -> Readiness {
        let (active, queued) = self.admission.gauges();
        let config = self.config();
        let is_full = active >= config.max_conn && queued >= config.max_queued_tasks;
        let engine = self.hub.engine.as_ref().and_then(|engine| engine.outage());
        let is_cut_off = self.hub.engine.as_ref().is_some_and(|engine| engine.is_cut_off());
        let reasons = [(self.is_draining(), "draining"), (is_full, "full"), (is_cut_off, "engine")];
        let reasons: Vec<_> =
            reasons.into_iter().filter_map(|(holds, why)| holds.then_some(why)).collect();
        let now_ms = self.uptime_ms();
        let is_late = self.progress.iter().any(|progress| progress.is_late(now_ms));
        let degraded = [(is_late, "late_turns"), (engine.is_some() && !is_cut_off, "engine")];
        let degraded =
            degraded.into_iter().filter_map(|(holds, what)| holds.then_some(what)).collect();
        Readiness { ready: reasons.is_empty(), reasons, degraded, engine }
    }

    /// When the first of the certificates in use ends, in seconds since 1970.
    pub(crate) fn certificates_end_s(&self) -> Option<i64> {
        self.tls.as_ref().and_then(|tls| tls.expires_at())
    }

    /// Every figure for Prometheus, now.
    pub(crate) fn prometheus(&self) -> String {
        let snapshot = self.snapshot();
        let since_1970 = self.started_at.duration_since(UNIX_EPOCH).unwrap_or_default();
        let extra = Extra {
            times: self.metrics.times(),
            resident_bytes: resident::bytes(),
            open_files: platform::open_files(),
            open_files_max: platform::open_files_max(),
            certificates_end_s: self.certificates_end_s(),
            started_s: since_1970.as_secs_f64(),
        };
        prometheus::text(&snapshot, &extra)
    }

    /// Every gauge and counter, now.
    pub(crate) fn snapshot(&self) -> Snapshot {
        let (active_connections, queued) = self.admission.gauges();
        let (sessions, sessions_away) = self.hub.sessions.gauges();
        let sockets = |worker: usize| self.sockets[worker].load(Ordering::Relaxed);
        let workers = 0..self.sockets.len();
        let balance = self.hub.account.balance();
        let config = self.config();
        let gauges = Gauges {
            worker_threads: workers.len(),
            active_connections,
            max_connections: config.max_conn,
            queued,
            max_queued_tasks: config.max_queued_tasks,
            sockets: workers.clone().map(sockets).sum(),
            pending_heads: self.pending_heads.used(),
            admin_connections: self.admin_conns.used(),
            api_bodies: self.api_bodies.used(),
            live_viewers: self.live_viewers.used(),
            lingering: self.lingering.used(),
            sessions,
            sessions_away,
            rooms: self.hub.rooms.len(),
            engine_waiting: self.hub.engine.as_ref().map_or(0, |engine| engine.waiting()),
            memory_bytes_max: balance.used_max,
            memory_bytes: balance.used,
            resident_bytes: balance.resident,
            frame_bytes: balance.frames,
            history_bytes: balance.histories,
            inbox_bytes: balance.inboxes,
            outbox_bytes: balance.outboxes,
            input_bytes: balance.inputs,
            session_bytes: balance.sessions,
            pattern_bytes: balance.patterns,
            room_bytes: balance.rooms,
            job_bytes: balance.calls,
            socket_bytes: balance.sockets,
            owners: self.hub.owners.len(),
            jobs_queued: self
                .routes
                .iter()
                .filter_map(|route| route.jobs.as_ref())
                .map(JobPool::queued)
                .sum(),
            tasks_queued: self
                .routes
                .iter()
                .filter_map(|route| route.tasks.as_ref())
                .map(TaskPool::waiting)
                .sum(),
            revocations: self.hub.authenticator.revocations(),
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
            handlers: self.routes.iter().filter_map(Route::figures).collect(),
            engine_shards: self
                .hub
                .engine
                .as_ref()
                .map_or_else(Vec::new, |of| of.shard_snapshots()),
            memory: &self.hub.account.metrics,
            identity: self.hub.authenticator.metrics(),
            tokens_refused: self.hub.authenticator.refused(),
            forbidden: self.hub.forbidden(),
        };
        self.metrics.snapshot(now, workers.collect())
    }
}

impl Shared {
    /// Begins to drain, for at most `drain_timeout`.
    pub(crate) fn ask_drain(&self) {
        let drain_timeout = self.config().drain_timeout;
        let is_first = !self.is_draining();
        let is_asked = self.drain.get().is_some_and(|drain| drain.try_send(drain_timeout).is_ok());
        if is_first && is_asked {
            let drain_s = drain_timeout.as_secs_f64();
            log::info!("asked by the admin listener: draining for up to {drain_s} s");
        }
    }
}
