//! The bytes after the upgrade: RFC 6455 on the frame layer of `tungstenite`, without any I/O of its own.

pub(crate) mod headers;
pub(crate) mod handshake;
pub(crate) mod extension;
pub(crate) mod endpoint;
pub(crate) mod decoder;
mod message;
mod utf8;
pub(crate) mod deflate;
pub(crate) mod frame;
pub(crate) mod close;

#[cfg(any(test, feature = "replay"))]
pub(crate) use frame::client_frame;
