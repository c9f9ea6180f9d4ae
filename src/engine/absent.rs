//! No engine: without the cargo feature `redis` a server shares nothing.

#[path = "link/order.rs"]
pub(crate) mod order;

use std::sync::Arc;

use crossbeam_channel::Sender;

use crate::{
    config::Config,
    error::Error,
    hub::{Hub, restore::RestorableRoute},
};

/// There is none.
pub(crate) enum Prepared {}

/// There is none.
pub(crate) enum Running {}

/// Checks nothing: the configuration was refused if it asks for one.
pub(crate) fn check(_: &Config) -> Result<(), Error> {
    Ok(())
}

/// There is nothing to connect to.
pub(crate) fn try_out(config: &Config) -> Result<Option<String>, Error> {
    check(config).map(|()| None)
}

/// Makes none.
pub(crate) fn prepare(_: &Config, _: &mut Hub) -> Result<Option<Prepared>, Error> {
    Ok(None)
}

impl Prepared {
    pub(crate) fn start(
        self,
        _: &Arc<Hub>,
        _: &Config,
        _: Vec<RestorableRoute>,
        _: Box<dyn Fn() -> String + Send>,
        _: Sender<Error>,
    ) -> Result<Running, Error> {
        match self {}
    }
}

impl Running {
    pub(crate) fn stop(self) {
        match self {}
    }
}

/// The engine of a stepped server: there is none.
pub(crate) mod stepped {
    use std::sync::Arc;

    use super::order::{Event, Order};
    use crate::{
        config::Config,
        error::Error,
        hub::{Hub, restore::RestorableRoute},
    };

    /// There is none.
    pub(crate) enum Unstepped {}

    /// There is none.
    pub(crate) enum Stepped {}

    /// Makes none.
    pub(crate) fn prepare(_: &Config, _: &mut Hub) -> Result<Option<Unstepped>, Error> {
        Ok(None)
    }

    impl Unstepped {
        pub(crate) fn start(
            self,
            _: &Arc<Hub>,
            _: &Config,
            _: Vec<RestorableRoute>,
            _: Box<dyn Fn() -> String + Send>,
        ) -> Stepped {
            match self {}
        }
    }

    impl Stepped {
        pub(crate) fn turn(
            &mut self,
            _: impl IntoIterator<Item = (usize, Event)>,
        ) -> Vec<(usize, Order)> {
            match *self {}
        }

        pub(crate) fn useless_link(&mut self) -> Option<(usize, String)> {
            match *self {}
        }

        pub(crate) fn leave(&mut self) {
            match *self {}
        }

        pub(crate) fn is_done(&self) -> bool {
            match *self {}
        }
    }
}
