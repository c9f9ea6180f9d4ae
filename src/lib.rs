//! A WebSocket server without an async runtime.
//!
//! A blocking listener hands sockets to a bounded pool of worker threads; each worker owns many
//! connections and drives them by readiness, on the frame layer of `tungstenite`. Handlers are
//! plain synchronous code. When the server is full it says so, early and politely, and everyone already
//! inside is unaffected.
//!
//! ```no_run
//! use rusty_socks::{Config, Context, Message, Server};
//!
//! fn main() -> Result<(), rusty_socks::Error> {
//!     let echo = |ctx: &mut Context<'_, ()>, message: Message<'_>| {
//!         let _status = ctx.send(message);
//!     };
//!     let config = Config { host: "127.0.0.1".into(), port: 3030, ..Config::default() };
//!     Server::builder().config(config).route("/echo", echo).bind()?.run()
//! }
//! ```
//!
//! # The road a byte travels
//!
//! The acceptor thread takes a socket and gives it to the worker with the fewest. The worker reads the
//! request head; an upgrade asks for a permit and is served, waits in a bounded line, or is refused with
//! a 503. From then on bytes become messages, messages go to the [`Handler`], and what it sends or
//! publishes goes to outboxes, each written once a turn. `ARCHITECTURE.md` walks the files in that order.
//!
//! # Where to look
//!
//! [`Server`] binds and runs; [`ServerHandle`] controls it from anywhere. [`Handler`] is what you write,
//! [`Context`] what it is given, [`Peer`] what can be kept. [`chat`] is the shipped handler, [`client`]
//! the other side of it. [`Config`] has every limit.

pub mod client;
pub mod chat;
mod server;
mod pool;
mod handler;
mod hub;
mod store;
mod http;
mod metrics;
pub mod config;
mod error;

use rusty_socks_ws as ws;

pub use config::Config;
pub use error::{Error, ErrorKind};
pub use handler::{Blocking, Context, Handler, IntoService, Peer, Refusal, Request, SendStatus};
pub use hub::{
    HubError, Joined, Page, Replay,
    notice::Notice,
    presence::{Presence, Present},
    publish::{Publication, Published, PublishedTo},
    resume::{Resumed, ResumedRoom},
    rooms::{RoomName, RoomPattern},
    seats::Found,
    sessions::{NotAToken, SessionToken},
};
pub use metrics::{FIGURES, Figure, FigureKind, Quantiles, Snapshot, WorkerSnapshot};
pub use server::{Builder, Server, ServerHandle, stepped};
pub use store::{Epoch, Position, Range};
pub use ws::{
    close::CloseReason,
    frame::{Message, PreparedFrame},
};
