//! The server as a whole: bind, run, drain.

mod accepting;
mod drain;
mod handle;
mod pages;
mod paths;
mod staff;
mod restart;
mod tls_watch;
mod turn_watch;
pub mod stepped;

use std::{
    net::SocketAddr,
    sync::Arc,
    thread,
    time::{Duration, Instant, SystemTime},
};

use crossbeam_channel::{Receiver, Sender};
use mio::{Poll, Waker};

use crate::{
    clock::Clock,
    config::{ADMIN_NEEDS_KEY, Config, ConfigSource},
    engine,
    error::{Error, ErrorKind},
    handler::{AdminHandler, IntoService, NodeSummary},
    http::page::StaticPage,
    hub::{
        Hub,
        mailbox::{Letter, MailboxBounds, Mailboxes},
    },
    identity::Authenticator,
    pool::{
        acceptor::Door,
        jobs::JobPool,
        listener::{BoundListener, ListenAddr, Listener},
        shared::{AdminSite, Route, Shared},
        tasks::TaskPool,
        worker::{Arrival, WAKER, Worker},
    },
    snapshot::{self, disk::ClaimedFile},
    tls::Tls,
};
use accepting::Accepting;
pub use handle::ServerHandle;
use paths::{check_admin_paths, check_paths};
use staff::{staff, start_worker};
use stepped::SteppedServer;

/// The configuration, routes and pages of a server that is not bound yet.
#[derive(Default)]
pub struct Builder {
    config: Config,
    routes: Vec<Route>,
    pages: Vec<StaticPage>,
    admin: AdminSite,
    listener: Option<BoundListener>,
    admin_listener: Option<BoundListener>,
    source: Option<Box<dyn ConfigSource>>,
}

/// A server that is bound and does not serve yet. Clients can connect, and are served once
/// [`run`](Server::run) or [`spawn`](Server::spawn) is called.
pub struct Server {
    listener: Listener,
    admin: Option<Listener>,
    workers: Vec<Worker>,
    arrivals: Vec<Sender<Arrival>>,
    handle: ServerHandle,
    asked: Receiver<Duration>,
    /// Dropped when the drain begins, which ends [`ServerHandle::await_drain`].
    serving: Sender<()>,
    /// Dropped when the server has stopped, which ends [`ServerHandle::join`].
    running: Sender<()>,
    /// The snapshot that was taken up. It stays for the next start unless this server runs.
    claimed: Option<ClaimedFile>,
    engine: Option<engine::Prepared>,
}

impl Builder {
    /// Sets the configuration. Default: [`Config::default`].
    pub fn config(mut self, config: Config) -> Builder {
        self.config = config;
        self
    }

    /// Mounts a handler on the WebSocket route `path`, such as `/ws`.
    ///
    /// If two handlers share a path, the first one serves it. `/health`, `/stats` and `/metrics`
    /// are reserved.
    pub fn route(mut self, path: &str, handler: impl IntoService) -> Builder {
        let service = handler.into_service();
        let jobs = service.jobs.map(|(threads, queue_max)| JobPool::new(threads, queue_max));
        let tasks = service.tasks.map(TaskPool::new);
        let (handler, takes_event_streams) = (service.handler, service.takes_event_streams);
        let path = path.to_owned();
        self.routes.push(Route { path, handler, takes_event_streams, jobs, tasks });
        self
    }

    /// Lets `handler` answer the requests of the admin listener, which
    /// [`admin_port`](Config::admin_port) opens. The server answers `/health`, `/ready`, `/stats`
    /// and `/metrics` there by itself, with and without a handler.
    pub fn admin(mut self, handler: impl AdminHandler) -> Builder {
        self.admin.handler = Some(Box::new(handler));
        self
    }

    /// Says where the settings come from, so that the server can read them anew: when
    /// [`ServerHandle::reload_from_source`] is called, or `POST /v1/reload` of the server API.
    pub fn source(mut self, source: impl ConfigSource) -> Builder {
        self.source = Some(Box::new(source));
        self
    }

    /// Accepts from `listener` instead of [`host`](Config::host) and [`port`](Config::port). It is
    /// closed when the server stops accepting, and stays open in other processes that have it.
    ///
    /// On Unix the socket no longer blocks, in those processes neither: one that waits in `accept`
    /// gets [`WouldBlock`](std::io::ErrorKind::WouldBlock), and must poll instead.
    pub fn listener(mut self, listener: impl Into<BoundListener>) -> Builder {
        self.listener = Some(listener.into());
        self
    }

    /// Accepts from `listener` for the admin listener, instead of
    /// [`admin_host`](Config::admin_host) and [`admin_port`](Config::admin_port). Holds for it what
    /// [`Builder::listener`] says.
    pub fn admin_listener(mut self, listener: impl Into<BoundListener>) -> Builder {
        self.admin_listener = Some(listener.into());
        self
    }

    /// Checks the configuration, routes and pages, and listens. Port 0 picks a free port;
    /// [`Server::local_addr`] returns it.
    ///
    /// Takes up the [`snapshot`](Config::snapshot) of an earlier server, if there is one: its file
    /// is removed once the server runs. If the server is dropped before, the file is put back for
    /// the next one.
    ///
    /// # Errors
    /// [`ErrorKind::Config`]: a setting is out of range, a certificate or key cannot be used, or
    /// the snapshot cannot be written or is a file of something else.
    /// [`ErrorKind::InvalidInput`]: a path is not legal, or taken twice by pages.
    /// [`ErrorKind::AddressInUse`] or [`ErrorKind::System`]: the server cannot listen on the
    /// address.
    pub fn bind(mut self) -> Result<Server, Error> {
        self.check_settings()?;
        let listener = match self.listener.take() {
            Some(bound) => Listener::take_over(bound)?,
            None => Listener::bind(&self.config.host, self.config.port)?,
        };
        let admin = match (self.admin_listener.take(), self.config.admin_listener()) {
            (Some(bound), _) => Some(Listener::take_over(bound)?),
            (None, Some((host, port))) => {
                let listener = Listener::bind(host, port);
                Some(listener.map_err(|error| error.of("the admin listener "))?)
            }
            (None, None) => None,
        };
        if let Some(ListenAddr::Tcp(addr)) = admin.as_ref().map(Listener::addr)
            && !addr.ip().is_loopback()
            && !self.config.has_api_key()
        {
            return Err(Error::config(format!("the admin listener on {addr} {ADMIN_NEEDS_KEY}")));
        }
        // Before anything is taken up, which happens once.
        restart::check(&self.config)?;
        let Parts { shared, workers, arrivals, claimed, engine } =
            self.assemble(Clock::machine(), engine::prepare)?;
        let (ask, asked) = crossbeam_channel::bounded(1);
        let (serving, draining) = crossbeam_channel::bounded(0);
        let (running, stopped) = crossbeam_channel::bounded(0);
        let _ = shared.drain.set(ask.clone());
        let listen_addr = listener.addr().clone();
        let admin_addr = admin.as_ref().map(|admin| admin.addr().clone());
        let handle = ServerHandle { shared, listen_addr, admin_addr, ask, draining, stopped };
        Ok(Server {
            listener,
            admin,
            workers,
            arrivals,
            handle,
            asked,
            serving,
            running,
            claimed,
            engine,
        })
    }

    /// Makes a server for tests of a handler: it listens nowhere, and the test makes its turns. See
    /// [`stepped`].
    ///
    /// # Errors
    /// [`ErrorKind::Config`]: a setting is out of range. [`ErrorKind::InvalidInput`]: a path is not
    /// legal or taken twice, or a handler is blocking.
    pub fn stepped(self) -> Result<SteppedServer, Error> {
        self.stepped_on(Clock::stepped())
    }

    /// Makes a server for tests whose clock stands at `time`, such as one that takes up what a
    /// stepped server before it has left. Of two such servers the later one repeats no client id.
    ///
    /// # Errors
    /// As [`Builder::stepped`].
    pub fn stepped_at(self, time: SystemTime) -> Result<SteppedServer, Error> {
        self.stepped_on(Clock::stepped_at(time))
    }

    fn stepped_on(mut self, clock: Clock) -> Result<SteppedServer, Error> {
        self.check_settings()?;
        for route in self.routes.iter_mut().filter(|route| route.tasks.is_some()) {
            route.tasks = Some(TaskPool::inline());
        }
        if let Some(route) = self.routes.iter().find(|route| route.jobs.is_some()) {
            let why = "is blocking; a stepped server has no threads for it";
            let message = format!("the handler of '{}' {why}", route.path);
            return Err(Error::new(ErrorKind::InvalidInput, message));
        }
        let Parts { shared, workers, claimed, engine, .. } =
            self.assemble(clock, engine::stepped::prepare)?;
        restart::forget(claimed);
        let engine = engine.map(|of| {
            of.start(&shared.hub, &shared.config(), restart::routes(&shared), about(&shared))
        });
        let (ask, _) = crossbeam_channel::bounded(1);
        let ((_, draining), (_, stopped)) =
            (crossbeam_channel::bounded(0), crossbeam_channel::bounded(0));
        let listen_addr = ListenAddr::Tcp(SocketAddr::from(([127, 0, 0, 1], 0)));
        let of = Arc::clone(&shared);
        let handle =
            ServerHandle { shared: of, listen_addr, admin_addr: None, ask, draining, stopped };
        Ok(SteppedServer::new(workers, shared, handle, engine))
    }

    /// Checks the configuration, the files that it names, routes and pages, without listening.
    ///
    /// # Errors
    /// As [`Builder::bind`], but for the address.
    pub fn check(&self) -> Result<(), Error> {
        self.check_settings()?;
        Tls::load(&self.config).map(drop)
    }

    /// Connects to the Redis that servers share, as this server would, and disconnects: its
    /// address, password, role and version are then known to be good, and its scripts are loaded.
    /// Returns what was reached, for people; `None` if the server shares nothing. Blocks for some
    /// seconds at most, apart from looking up names.
    ///
    /// # Errors
    /// The configuration is bad, or the Redis cannot be reached or used.
    pub fn try_engine(&self) -> Result<Option<String>, Error> {
        self.config.validate()?;
        engine::try_out(&self.config)
    }

    fn check_settings(&self) -> Result<(), Error> {
        self.config.validate()?;
        snapshot::check(&self.config)?;
        engine::check(&self.config)?;
        check_paths(&self.routes, &self.pages)?;
        check_admin_paths(&self.admin.pages)
    }

    /// Makes everything but the listener, and the engine by `prepare`.
    fn assemble<E>(
        self,
        clock: Clock,
        prepare: impl FnOnce(&Config, &mut Hub) -> Result<Option<E>, Error>,
    ) -> Result<Parts<E>, Error> {
        let Builder { config, routes, pages, admin, source, .. } = self;
        let cannot_poll = |error| Error::io("cannot make a poll for a worker", error);
        let mut polls = Vec::new();
        let mut wakers = Vec::new();
        for _ in 0..config.thread_pool_size {
            let poll = Poll::new().map_err(cannot_poll)?;
            wakers.push(Waker::new(poll.registry(), WAKER).map_err(cannot_poll)?);
            polls.push(poll);
        }
        let bounds = MailboxBounds { letters_max: config.mailbox, bytes_max: config.mailbox_bytes };
        let (mailboxes, inboxes) = Mailboxes::new(wakers, bounds);
        let clock = if config.leaves_snapshot() { clock.with_past() } else { clock };
        let clock = Arc::new(clock);
        let authenticator = Authenticator::new(&config, Arc::clone(&clock))?;
        let tls = Tls::load(&config)?.map(Arc::new);
        let mut hub = Hub::new(&config, authenticator, mailboxes.clone(), clock);
        let engine = prepare(&config, &mut hub)?;
        let shared = Arc::new(Shared::new(config, routes, pages, admin, hub, mailboxes, tls));
        let claimed = restart::take_up(&shared)?;
        if let Some(source) = source {
            let _ = shared.source.set(source);
        }
        let (arrivals, workers) = staff(&shared, polls, inboxes);
        Ok(Parts { shared, workers, arrivals, claimed, engine })
    }
}

/// The parts of a server besides its listener.
struct Parts<E> {
    shared: Arc<Shared>,
    workers: Vec<Worker>,
    arrivals: Vec<Sender<Arrival>>,
    claimed: Option<ClaimedFile>,
    engine: Option<E>,
}

impl Server {
    /// Returns a builder with the default configuration and no routes.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Returns the address the server listens on, with the actual port if port 0 was configured.
    /// It is `0.0.0.0:0` if that is a Unix socket; [`listen_addr`](Server::listen_addr) has its
    /// path.
    pub fn local_addr(&self) -> SocketAddr {
        self.handle.local_addr()
    }

    /// Returns where the server listens.
    pub fn listen_addr(&self) -> &ListenAddr {
        self.handle.listen_addr()
    }

    /// Returns the address of the admin listener, if there is one; `0.0.0.0:0` if that is a Unix
    /// socket.
    pub fn admin_addr(&self) -> Option<SocketAddr> {
        self.handle.admin_addr()
    }

    /// Returns where the admin listener is, if there is one.
    pub fn admin_listen_addr(&self) -> Option<&ListenAddr> {
        self.handle.admin_listen_addr()
    }

    /// Returns a handle that controls the server from any thread.
    pub fn handle(&self) -> ServerHandle {
        self.handle.clone()
    }

    /// Serves on threads of the server's own, and returns at once.
    ///
    /// # Errors
    /// [`ErrorKind::System`]: the operating system refused a thread.
    pub fn spawn(self) -> Result<ServerHandle, Error> {
        let handle = self.handle();
        let run = move || {
            if let Err(error) = self.run() {
                log::error!("{error}");
            }
        };
        let spawned = thread::Builder::new().name("rusty-socks".to_owned()).spawn(run);
        spawned.map_err(|error| Error::io("cannot start the server's thread", error))?;
        Ok(handle)
    }

    /// Serves until [`ServerHandle::shutdown`] is called and the connections are drained.
    ///
    /// # Errors
    /// [`ErrorKind::System`]: the operating system refused a thread, or a worker failed. The server
    /// has stopped then.
    pub fn run(self) -> Result<(), Error> {
        let Server {
            listener,
            admin,
            workers,
            arrivals,
            handle,
            asked,
            serving,
            running,
            claimed,
            engine,
        } = self;
        let shared = handle.shared;
        let leaves_snapshot = shared.config().leaves_snapshot();
        let (job_alive, jobs_done) = crossbeam_channel::bounded(0);
        shared.start_handler_threads(&job_alive)?;
        let (report, reports) = crossbeam_channel::unbounded();
        let worker_count = workers.len();
        let mut threads = Vec::new();
        let stop_all = || {
            (0..worker_count)
                .for_each(|worker| shared.hub.mailboxes.send_control(worker, Letter::Stop));
        };
        let (drained, drains) = crossbeam_channel::bounded(worker_count);
        for (index, worker) in workers.into_iter().enumerate() {
            let thread = start_worker(index, worker, drained.clone(), report.clone());
            threads.push(thread.inspect_err(|_| stop_all())?);
        }
        let engine = engine
            .map(|engine| {
                let (config, routes) = (shared.config(), restart::routes(&shared));
                engine.start(&shared.hub, &config, routes, about(&shared), report.clone())
            })
            .transpose()
            .inspect_err(|_| stop_all())?;
        let tls_watch = tls_watch::start(&shared).inspect_err(|_| stop_all())?;
        let turn_watch = turn_watch::start(&shared).inspect_err(|_| stop_all())?;
        let start = |listener, door| {
            let accepting = Accepting::start(listener, door, &shared, &arrivals);
            accepting.inspect_err(|_| stop_all())
        };
        // The public one last: once a client was let in nothing may fail any more, because the next
        // start would take up the snapshot again.
        let admin = admin.map(|listener| start(listener, Door::Admin)).transpose()?;
        let accepting = start(listener, Door::Public)?;
        restart::forget(claimed);

        let mut failure = None;
        let grace = crossbeam_channel::select! {
            recv(asked) -> grace => grace.unwrap_or_default(),
            recv(reports) -> failed => {
                failure = failed.ok();
                shared.config().drain_timeout
            }
        };

        // The order matters: first whoever balances the load hears of it, then no new connection is
        // accepted, then the open ones drain.
        shared.announce_drain();
        drop(serving);
        if failure.is_none() {
            failure = reports.recv_timeout(shared.config().drain_delay).ok();
        }
        let deadline = Instant::now() + grace;
        shared.admission.close();
        accepting.stop();
        drop(tls_watch);
        drain::begin(&shared, grace);
        let mut to_drain = worker_count - usize::from(failure.is_some());
        while to_drain > 0 {
            crossbeam_channel::select! {
                recv(drains) -> _ => to_drain -= 1,
                recv(reports) -> failed => {
                    failure = failed.ok();
                    to_drain -= 1;
                }
                recv(crossbeam_channel::at(deadline)) -> _ => {
                    let left = shared.admission.gauges().0;
                    log::warn!("{left} connections are cut off: they did not close within the drain timeout");
                    break;
                }
            }
        }
        // Last, so that a drain can be watched.
        if let Some(admin) = admin {
            admin.stop();
        }
        stop_all();
        for thread in threads {
            let _ = thread.join();
        }
        drop(turn_watch);
        shared.stop_handler_threads();
        drop(job_alive);
        // Jobs that outlive the grace are abandoned: the process need not wait for a handler's
        // threads.
        let _ = jobs_done.recv_deadline(deadline);
        if let Some(engine) = engine {
            engine.stop();
        }
        // What the snapshot takes is not taken from the handlers' last words.
        let grace_left = deadline.saturating_duration_since(Instant::now());
        let left = match &failure {
            None => restart::leave(&shared),
            Some(_) if !leaves_snapshot => Ok(()),
            Some(_) => {
                log::warn!("snapshot: none is written after a failure");
                Ok(())
            }
        };
        for route in &shared.routes {
            route.handler.stop(grace_left);
        }
        drop(running);
        failure.map_or(left, Err)
    }
}

/// What says what other nodes are told of this one.
fn about(shared: &Arc<Shared>) -> Box<dyn Fn() -> String + Send> {
    let shared = Arc::clone(shared);
    Box::new(move || {
        let node = NodeSummary::new(shared.hub.node, &shared.snapshot());
        serde_json::to_string(&node).unwrap_or_default()
    })
}
