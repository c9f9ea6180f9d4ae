//! The bounded worker pool, in the order a byte travels.
//!
//! The acceptor hands sockets to workers; each worker owns many connections and drives them in
//! turns: poll, read, letters, timers, flush, reap. A worker blocks in `poll` and nowhere else.

pub(crate) mod acceptor;
pub(crate) mod listener;
#[cfg(unix)]
mod accept_poll;
mod file_reserve;
#[cfg(unix)]
mod socket_file;
pub(crate) mod bound;
pub(crate) mod worker;
pub(crate) mod worker_cx;
mod figures;
mod settings;
pub(crate) mod shared;
pub(crate) mod reload;
pub(crate) mod reload_lock;
mod connection;
mod access;
pub(crate) mod progress;
pub(crate) mod describe;
mod unfinished;
mod conn_io;
mod costs;
mod blocked;
mod pauses;
mod stream;
mod event_stream;
mod socket;
#[cfg(feature = "tls")]
pub(crate) mod tls;
#[cfg(feature = "tls")]
mod records;
#[cfg(not(feature = "tls"))]
mod no_tls;
pub(crate) mod memory;
#[cfg(test)]
mod harness;
mod asked;
mod head;
mod admin;
mod live;
mod proxy_header;
pub(crate) mod admission;
mod transport;
mod upgrade;
mod post;
mod open;
mod dispatch;
mod inline_conn;
mod queued_call;
pub(crate) mod jobs;
pub(crate) mod tasks;
pub(crate) mod outbox;
mod holds;
mod delivery;
mod told;
mod room_lag;
mod closing;
mod members;
mod run;
mod fanouts;
mod timers;
pub(crate) mod platform;

#[cfg(not(feature = "tls"))]
use no_tls as tls;
