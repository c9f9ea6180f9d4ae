//! The engine of a stepped server: the core without a thread, whose link is a test.

use std::sync::Arc;

use crossbeam_channel::Receiver;

use super::{
    core::{Core, CoreSettings},
    link::{
        address::RedisAddress,
        order::{Event, Order},
    },
};
use crate::{
    config::{self, Config},
    error::Error,
    hub::{
        Hub,
        engine::{Engine, ToEngine},
        restore::RestorableRoute,
    },
};

/// An engine that was made and has no core yet.
pub(crate) struct Unstepped {
    received: Receiver<ToEngine>,
    engine: Arc<Engine>,
}

/// The engine of a stepped server.
pub(crate) struct Stepped {
    core: Core,
    received: Receiver<ToEngine>,
}

/// Makes the engine that `config` asks for, if it asks for one, and makes `hub` share its rooms
/// among as many shards as `config` names. Nothing connects to these.
pub(crate) fn prepare(config: &Config, hub: &mut Hub) -> Result<Option<Unstepped>, Error> {
    if config.engine != config::Engine::Redis {
        return Ok(None);
    }
    let places = super::thread::addresses(config)?.iter().map(RedisAddress::shown_place).collect();
    // It is never asleep.
    let (engine, received) = hub.share(places, Box::new(|| {}));
    Ok(Some(Unstepped { received, engine }))
}

impl Unstepped {
    pub(crate) fn start(
        self,
        hub: &Arc<Hub>,
        config: &Config,
        routes: Vec<RestorableRoute>,
        about: Box<dyn Fn() -> String + Send>,
    ) -> Stepped {
        let Unstepped { received, engine } = self;
        let settings = CoreSettings::new(config, about);
        let core = Core::new(Arc::clone(hub), engine, routes, settings);
        Stepped { core, received }
    }
}

impl Stepped {
    /// Takes what happened on the links and what the hub asks, and returns the orders for the
    /// links, each with its shard.
    pub(crate) fn turn(
        &mut self,
        heard: impl IntoIterator<Item = (usize, Event)>,
    ) -> Vec<(usize, Order)> {
        heard.into_iter().for_each(|(shard, event)| self.core.hear(shard, event));
        while let Ok(what) = self.received.try_recv() {
            self.core.take(what);
        }
        self.core.turn();
        // Nothing waits for a mailbox that is behind.
        self.core.take_behind();
        let mut orders = Vec::new();
        self.core.give_orders(|shard, order| orders.push((shard, order)));
        orders
    }

    /// A shard whose link is to be made anew, and why; asked for until there is none.
    pub(crate) fn useless_link(&mut self) -> Option<(usize, String)> {
        self.core.useless_link()
    }

    /// Leaves the sessions of this node to the others, with the orders of the next turn.
    pub(crate) fn leave(&mut self) {
        self.core.leave();
    }

    /// Whether everything was answered.
    pub(crate) fn is_done(&self) -> bool {
        self.core.is_done()
    }
}
