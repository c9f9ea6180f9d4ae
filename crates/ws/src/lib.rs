//! WebSocket without any I/O: the opening handshake, frames, compression and close codes
//! (RFC 6455, RFC 7692), for servers and for clients.
//!
//! Bytes go in and come out of memory; whoever uses this crate owns the socket. Headers are parsed
//! and written by the frame layer of `tungstenite`; messages are put together and judged here,
//! once. Nothing here blocks, locks or reads a clock.

pub mod headers;
pub mod handshake;
pub mod client_handshake;
pub mod extension;
pub mod endpoint;
pub mod decoder;
pub mod message;
mod utf8;
pub mod deflate;
pub mod encode;
pub mod frame;
pub mod close;

pub use tungstenite::protocol::{Role, frame::coding::Control};
