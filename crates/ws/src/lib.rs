//! WebSocket without any I/O: the opening handshake, frames, compression and close codes
//! (RFC 6455, RFC 7692), for servers and for clients.
//!
//! The caller owns the socket; this crate reads from and writes to memory. The frame layer of
//! `tungstenite` parses and writes frame headers; this crate validates frames and assembles
//! messages. Nothing here blocks, locks or reads a clock.

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
pub mod causes;

pub use tungstenite::protocol::{Role, frame::coding::Control};
