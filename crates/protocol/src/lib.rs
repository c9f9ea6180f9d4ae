//! Types for the frames of the chat protocol `rusty-socks.v1`, for servers and clients. The
//! reference is `docs/protocol.md` of Rusty Socks.
//!
//! Each frame is one JSON object in a WebSocket text message. Values that a program passes on byte
//! for byte (`ref`, `content`, `sender`) are borrowed as [`RawValue`], so parsing a frame copies
//! only strings that need unescaping.
//!
//! - [`Command`] is a client's request. A server parses it as [`CommandFields`], so that it can
//!   name a wrong field.
//! - [`Answer`] is the answer to a command; its bodies are in [`answer`]. A client parses `type`
//!   and `ref` with [`Head`], and then the body that belongs to the command from the same text.
//! - [`Notice`] is sent by the server without a command. [`Message`] is a message that a client
//!   published or sent.
//! - [`ErrorCode`] says why a command failed.
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

/// The beginning of a second subprotocol that a client may offer, whose rest is its token. Never
/// chosen by a server.
pub const TOKEN_SUBPROTOCOL: &str = "rusty-socks.token.";
