//! The bounded worker pool, in the order a byte travels.
//!
//! The acceptor hands sockets to workers; each worker owns many connections and drives them in turns:
//! poll, read, letters, timers, flush, reap. A worker blocks in `poll` and nowhere else.

pub(crate) mod acceptor;
pub(crate) mod admission;
pub(crate) mod bound;
pub(crate) mod connection;
pub(crate) mod desk;
pub(crate) mod jobs;
mod link;
mod members;
mod outbox;
pub(crate) mod platform;
mod timers;
mod upgrade;
pub(crate) mod worker;
