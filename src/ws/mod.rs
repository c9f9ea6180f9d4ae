//! The bytes after the upgrade: RFC 6455, spoken by `tungstenite` without any I/O of its own.

pub(crate) mod handshake;
pub(crate) mod codec;
pub(crate) mod deflate;
pub(crate) mod extension;
mod scanner;
mod walker;
pub(crate) mod frame;
pub(crate) mod close;

#[cfg(test)]
pub(crate) use walker::client_frame;
