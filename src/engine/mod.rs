//! Many machines as one server: what they share is in Redis.
//!
//! `link/` is the way there and back: sockets, replies, reconnects. It knows nothing of rooms.
//!
//! Needs the cargo feature `redis`.
#![cfg_attr(not(test), expect(dead_code, reason = "nothing gives orders to the link yet"))]

pub(crate) mod link;
