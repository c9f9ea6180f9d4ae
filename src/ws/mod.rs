//! The bytes after the upgrade: RFC 6455, spoken by `tungstenite` without any I/O of its own.

pub(crate) mod handshake;
pub(crate) mod codec;
mod scanner;
pub(crate) mod frame;
pub(crate) mod close;
