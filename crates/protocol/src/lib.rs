//! The frames of the chat protocol `rusty-socks.v1`, as types that a server writes and a client
//! reads, or the other way round. `docs/protocol.md` of Rusty Socks is their reference.
//!
//! Each frame is one JSON object in a WebSocket text message. What a program passes on byte for
//! byte (a `ref`, a `content`, a `sender`) is borrowed as [`RawValue`], so reading a frame copies
//! nothing that needs no unescaping.
//!
//! - [`Command`] is what a client says. A server reads it as [`CommandFields`], so that it can say
//!   which field is wrong.
//! - [`Answer`] is what a command is answered with; its bodies are in [`answer`]. Its `type` and
//!   `ref` are read with [`Head`], and then the body that belongs to the command, from the same
//!   text.
//! - [`Notice`] is what the server says of its own accord, and [`Message`] a message that somebody
//!   published or sent.
//! - [`ErrorCode`] says why a command was not carried out.
//!
//! ```
//! use rusty_socks_protocol::{Answer, Head, answer::Left};
//!
//! let text = serde_json::to_string(&Answer::ok(None, Left { room: "tea".into() }))?;
//! assert_eq!(text, r#"{"type":"ok","room":"tea"}"#);
//!
//! let head: Head<'_> = serde_json::from_str(&text)?;
//! assert_eq!(head.kind, "ok");
//! let left: Left<'_> = serde_json::from_str(&text)?;
//! assert_eq!(left.room, "tea");
//! # Ok::<(), serde_json::Error>(())
//! ```
//!
//! [`RawValue`]: serde_json::value::RawValue

mod lenient;
mod error_code;
mod overflow;
mod seconds;
mod command;
mod message;
mod notice;
pub mod answer;

pub use answer::{Answer, Head};
pub use command::{Command, CommandFields, Content, Position, Request, RoomPosition};
pub use error_code::ErrorCode;
pub use lenient::SEQ_MAX;
pub use message::{Message, RoomSeq};
pub use notice::Notice;
pub use overflow::Overflow;
pub use seconds::Seconds;

/// The name of the protocol in `Sec-WebSocket-Protocol` (RFC 6455, 1.9).
pub const SUBPROTOCOL: &str = "rusty-socks.v1";
