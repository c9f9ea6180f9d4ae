//! What a link is given: where the Redis is, and who speaks to it.

use std::path::PathBuf;

use super::{address::RedisAddress, order::Script};

/// What a link is given.
#[derive(Debug)]
pub(crate) struct LinkSettings {
    pub(crate) address: RedisAddress,
    /// The PEM file of the authorities that `rediss://` trusts, and no others. Without it those
    /// that browsers trust, as Mozilla lists them.
    pub(crate) ca: Option<PathBuf>,
    /// The id of this node, which `CLIENT LIST` shows.
    pub(crate) node: String,
    /// Loaded whenever a connection is made.
    pub(crate) scripts: &'static [&'static Script],
}
