//! The chat protocol without the feature `hooks`.

use std::time::Duration;

use super::failure::Failure;
use crate::{Error, config::Secret};

/// No chat has a backend.
pub(super) enum Backend {}

impl Backend {
    /// Refuses a configuration with a backend.
    pub(super) fn new(_: &str, _: &Secret, _: usize) -> Result<Backend, Error> {
        Err(Error::config(
            "hook_url, events_url: this server was built without the cargo feature `hooks`",
        ))
    }

    pub(super) fn post(&self, _: &str, _: Duration) -> Result<Vec<u8>, Failure> {
        match *self {}
    }
}
