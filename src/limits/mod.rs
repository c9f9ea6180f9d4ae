//! What one client, everyone at one address, and all clients of one user may do in a second or a
//! minute.
//!
//! A client's own limits end with its session. Those of an address and of a user are remembered
//! across their connections, so that reconnecting gains nothing. Nothing here knows of sockets or
//! rooms.

pub(crate) mod bucket;
pub(crate) mod rates;
pub(crate) mod owner;
pub(crate) mod owners;
pub(crate) mod spending;
