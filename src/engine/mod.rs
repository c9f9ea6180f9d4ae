//! Many machines as one server: what they share is in Redis.
//!
//! `link/` is the way there and back: sockets, replies, reconnects. It knows nothing of rooms.
//! `core/` knows everything of rooms and sessions, and no socket.
//!
//! Needs the cargo feature `redis`.

mod core;
pub(crate) mod link;
mod names;
mod scripts;
pub(crate) mod stepped;
mod thread;

pub(crate) use link::order;
pub(crate) use thread::{Prepared, check, prepare, try_out};
