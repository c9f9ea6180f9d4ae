//! What the programs here share: the command line of the peers, the rooms that those on tokio keep,
//! and the sockets of those that speak no protocol.

pub mod peer;
pub mod rooms;
