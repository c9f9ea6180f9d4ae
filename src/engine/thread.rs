//! The engine's thread: takes what the hub asks and what Redis says, and has the core make orders
//! of it.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, Sender};
use uuid::Uuid;

use super::{
    core::{Core, CoreSettings, LEASE_MS},
    link::{
        Link,
        address::RedisAddress,
        links::Links,
        settings::{LinkSettings, Mark},
    },
    names::Names,
    scripts,
};
use crate::{
    config::{self, Config},
    error::{Error, ErrorKind},
    hub::{
        Hub,
        engine::{Engine, ToEngine},
        restore::RestorableRoute,
    },
};

/// What is taken from the hub in one turn, before the link is looked at.
const TAKEN_PER_TURN_MAX: usize = 4096;

/// How often the thread looks for what is due.
const TICK: Duration = Duration::from_millis(250);

/// Bytes that may wait to be written to Redis. Beyond it nothing more is taken from the hub.
const UNSENT_BYTES_MAX: usize = 64 << 20;

/// How long the thread pauses when a worker is behind, so that what comes waits in the socket.
const BEHIND_PAUSE: Duration = Duration::from_millis(1);

/// How long the thread waits for Redis when the server stops.
const STOP_WAIT_MAX: Duration = Duration::from_secs(3);

/// An engine that was made and not started.
pub(crate) struct Prepared {
    links: Links,
    marks: Vec<Mark>,
    received: Receiver<ToEngine>,
    engine: Arc<Engine>,
}

/// An engine at work.
pub(crate) struct Running {
    engine: Arc<Engine>,
    thread: thread::JoinHandle<()>,
}

/// Checks what `config` says of the engine.
pub(crate) fn check(config: &Config) -> Result<(), Error> {
    match config.engine {
        config::Engine::Memory => Ok(()),
        config::Engine::Redis => addresses(config).map(drop),
    }
}

pub(super) fn addresses(config: &Config) -> Result<Vec<RedisAddress>, Error> {
    RedisAddress::parse_list(config.redis_url.reveal())
        .map_err(|why| Error::config(format!("redis_url: {why}")))
}

/// What the links are given, one to each shard, for a node of this id.
fn link_settings(config: &Config, node: Uuid) -> Result<Vec<LinkSettings>, Error> {
    let addresses = addresses(config)?;
    let key = Names::new(&config.redis_prefix).list();
    let count = addresses.len();
    let settings = |(index, address)| LinkSettings {
        address,
        ca: config.redis_ca.clone(),
        node: node.to_string(),
        scripts: scripts::ALL,
        mark: Some(Mark::new(key.clone(), index, count, LEASE_MS)),
    };
    Ok(addresses.into_iter().enumerate().map(settings).collect())
}

/// Connects to what `config` says, if it asks for an engine, and returns what that is.
pub(crate) fn try_out(config: &Config) -> Result<Option<String>, Error> {
    if config.engine != config::Engine::Redis {
        return Ok(None);
    }
    let all = link_settings(config, Uuid::new_v4())?;
    let count = all.len();
    let mut found = Vec::new();
    let mut problems = Vec::new();
    for (index, settings) in all.into_iter().enumerate() {
        let shard = if count == 1 { String::new() } else { format!("shard {}: ", index + 1) };
        match Link::try_out(settings) {
            Ok(facts) => found.push(format!("Redis {} at {}", facts.version, facts.address)),
            Err(why) => problems.push(format!("redis_url: {shard}{why}")),
        }
    }
    match problems.is_empty() {
        true => Ok(Some(found.join(", "))),
        false => Err(Error::config(problems.join("\n"))),
    }
}

/// Makes the engine that `config` asks for, if it asks for one, and makes `hub` share its rooms.
pub(crate) fn prepare(config: &Config, hub: &mut Hub) -> Result<Option<Prepared>, Error> {
    if config.engine != config::Engine::Redis {
        return Ok(None);
    }
    let settings = link_settings(config, hub.node)?;
    let marks = settings.iter().filter_map(|of| of.mark.clone()).collect();
    let places = settings.iter().map(|of| of.address.shown_place()).collect();
    let links = Links::new(settings).map_err(|error| Error::io("engine", error))?;
    let waker = links.waker();
    let wake = move || {
        if let Err(error) = waker.wake() {
            // It looks by itself at its next tick.
            log::error!("cannot wake the engine's thread: {error}");
        }
    };
    let (engine, received) = hub.share(places, Box::new(wake));
    Ok(Some(Prepared { links, marks, received, engine }))
}

impl Prepared {
    /// Starts the thread. If it panics, it says so to `report`: a server whose engine is gone
    /// would hear nothing and answer nothing.
    pub(crate) fn start(
        self,
        hub: &Arc<Hub>,
        config: &Config,
        routes: Vec<RestorableRoute>,
        about: Box<dyn Fn() -> String + Send>,
        report: Sender<Error>,
    ) -> Result<Running, Error> {
        let Prepared { links, marks, received, engine } = self;
        let settings = CoreSettings { marks, ..CoreSettings::new(config, about) };
        let core = Core::new(Arc::clone(hub), Arc::clone(&engine), routes, settings);
        let shown = Arc::clone(&engine);
        let run = move || {
            let fail = |why: String| {
                let failure = Error::config(why);
                log::error!("{failure}; shutting down");
                let _ = report.send(failure);
            };
            let run = AssertUnwindSafe(|| run(links, core, &received, &engine, &fail));
            if catch_unwind(run).is_err() {
                let failure = Error::new(ErrorKind::System, "the engine panicked".to_owned());
                log::error!("{failure}; shutting down");
                let _ = report.send(failure);
            }
        };
        let thread = thread::Builder::new()
            .name("rusty-socks-engine".to_owned())
            .spawn(run)
            .map_err(|error| Error::io("cannot start the engine's thread", error))?;
        Ok(Running { engine: shown, thread })
    }
}

impl Running {
    /// Leaves the sessions to the other nodes, and ends the thread.
    pub(crate) fn stop(self) {
        let done = self.engine.stop();
        if done.recv_timeout(STOP_WAIT_MAX * 2).is_ok() {
            let _ = self.thread.join();
        }
    }
}

fn run(
    mut links: Links,
    mut core: Core,
    received: &Receiver<ToEngine>,
    engine: &Engine,
    fail: &dyn Fn(String),
) {
    let mut events = Vec::new();
    let mut stopping: Option<(Sender<()>, Instant)> = None;
    loop {
        for _ in 0..TAKEN_PER_TURN_MAX {
            if links.unsent_bytes() > UNSENT_BYTES_MAX {
                break;
            }
            match received.try_recv() {
                Ok(ToEngine::Stop(done)) => {
                    core.leave();
                    stopping = Some((done, Instant::now() + STOP_WAIT_MAX));
                }
                Ok(what) => core.take(what),
                Err(_) => break,
            }
        }
        core.turn();
        core.give_orders(|shard, order| links.order(shard, order));
        while let Some((shard, why)) = core.useless_link() {
            links.reconnect(shard, &why);
        }
        if let Some(why) = core.take_failure() {
            fail(why);
        }
        if let Some((done, until)) = &stopping
            && (core.is_done() || Instant::now() >= *until)
        {
            let _ = done.send(());
            return;
        }
        let is_idle = || received.is_empty() && !core.has_changes();
        let timeout = if engine.may_sleep(is_idle) { TICK } else { Duration::ZERO };
        links.poll(Some(timeout), &mut events);
        engine.woke();
        for (shard, event) in events.drain(..) {
            core.hear(shard, event);
        }
        if core.take_behind() {
            // Nothing is sent through it; it is a timer.
            let _ = crossbeam_channel::after(BEHIND_PAUSE).recv();
        }
    }
}
