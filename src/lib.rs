//! A WebSocket server without an async runtime.
//!
//! A blocking listener hands sockets to a bounded pool of worker threads; each worker owns many
//! connections and drives them by readiness, on the frame layer of `tungstenite`. Handlers
//! are plain synchronous code. When the server is full it says so, early and politely, and everyone
//! already inside is unaffected.
//!
//! ```no_run
//! use rusty_socks::{Config, Context, Message, Server};
//!
//! fn main() -> Result<(), rusty_socks::Error> {
//!     let echo = |ctx: &mut Context<'_, ()>, message: Message<'_>| {
//!         ctx.send(message);
//!     };
//!     let config = Config { host: "127.0.0.1".into(), port: 3030, ..Config::default() };
//!     Server::builder().config(config).route("/echo", echo).bind()?.run()
//! }
//! ```
//!
//! # Threads and blocking
//!
//! A plain [`Handler`] runs on the worker that owns its connection. Everything else on that worker
//! waits for it, so it must be quick and must not block: no database, no file, no name look-up, no
//! lock that is held for long. A handler that needs to block is a `Handler<MayBlock>`;
//! [`Handler::blocking`] mounts it on threads of its own, and the compiler refuses to mount it
//! anywhere else. Calls for one connection never overlap in either kind. Calls for different
//! connections do, so what connections share needs a lock of yours.
//!
//! [`Peer`] and [`ServerHandle`] work from any thread. Neither ever blocks.
//!
//! # Replies
//!
//! Verbs that concern rooms, sessions or other clients take effect at once and return a [`Reply`],
//! which can be dropped, gone on with, or, where the handler may block, waited for:
//!
//! ```
//! # use rusty_socks::{CloseReason, Context, MayBlock, RoomError};
//! # fn on_worker(ctx: &mut Context<'_, ()>) {
//! ctx.publish("tea", "the kettle is on");
//! ctx.publish("tea", "who wants some?").then(|ctx, published| match published {
//!     Ok(published) => log::info!("message {} of {}", published.seq, ctx.client_id()),
//!     Err(error) => ctx.close(CloseReason::new(4000, error.to_string())),
//! });
//! # }
//! # fn on_threads(ctx: &mut Context<'_, (), MayBlock>) -> Result<(), RoomError> {
//! // In a handler that may block:
//! let published = ctx.publish("tea", "last call").wait()?;
//! # Ok(()) }
//! ```
//!
//! # Rooms and order
//!
//! Every member of a room sees its messages in one order, that of their sequence numbers, whichever
//! worker the member is on. [`Context::join`] says from which [`Position`] on messages come and
//! hands out earlier ones with [`Replay`]; between the two nothing is missing and nothing comes
//! twice. What one connection publishes keeps its order. Nothing is promised between the messages
//! of different rooms, except that [`Context::publish_to_rooms`] numbers a message in all of them
//! at one instant.
//!
//! A room exists while it has members or history. Its life is its [`Epoch`]; a room that is made
//! anew begins again at 1, in another epoch.
//!
//! # Backpressure
//!
//! Nothing waits without a bound, and nothing is dropped unseen:
//!
//! - [`Context::send`] returns a [`SendStatus`]. A client that does not read what it is sent is not
//!   read from either, and is closed with 4102 if it never does. A handler that only answers can
//!   ignore the status; one that sends by itself pauses at [`SendStatus::Behind`].
//! - A room's message that a member is too slow for follows the room's
//!   [`Overflow`](config::Overflow) policy. [`Handler::notice`] tells the client what it missed.
//! - [`Published::behind`] says that a worker is behind. The server stops reading the sockets that
//!   feed it; a publisher with a thread of its own should pause. Beyond that, publishing fails with
//!   [`RoomError::Overloaded`], and nothing was stored.
//! - A blocking handler's queue is bounded. Beyond the bound, its connections are not read.
//!
//! # Errors
//!
//! [`RoomError`] says why a verb did nothing; it is the answer to one call and closes no
//! connection. [`Error`] says what is wrong with a configuration or with the machine; its
//! [`ErrorKind`] says whose fault it is. [`Refusal`] is the handler's own no to an upgrade, as
//! plain HTTP. A panic in a handler closes that one connection with 1011, is logged and counted,
//! and costs nobody else anything.
//!
//! # Sessions
//!
//! A handler that is [resumable](Handler::resumable) has sessions that outlive their connections
//! for [`Config::resume_window`]. Give the client its [`Context::session_token`]; a later
//! connection that shows it with its first message ([`Context::resume`]) is the same client in the
//! same rooms, and is given what it missed. Until the window is over, others do not see the client
//! leave, and what is sent to it with [`Context::direct`] waits. A message with a
//! [`dedup_id`](Publication::dedup_id) can be published again after a reconnect without anyone
//! getting it twice.
//!
//! # Testing a handler
//!
//! Run the real server on port 0 of the loopback; it starts in about a millisecond and each test
//! can have its own:
//!
//! ```
//! use std::time::Duration;
//! use rusty_socks::{Config, Context, Message, Server};
//! use rusty_socks_client::Client;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let shout = |ctx: &mut Context<'_, ()>, message: Message<'_>| {
//!     let text = message.as_text().unwrap_or_default().to_uppercase();
//!     ctx.send(&text);
//! };
//! let config = Config { host: "127.0.0.1".into(), port: 0, ..Config::default() };
//! let server = Server::builder().config(config).route("/shout", shout).bind()?.spawn()?;
//!
//! let client = Client::connect(&format!("ws://{}/shout", server.local_addr()))?;
//! client.send("hello")?;
//! let answer = client.recv_timeout(Duration::from_secs(10))?.expect("an answer, and no close");
//! assert_eq!(answer.as_text(), Some("HELLO"));
//! server.shutdown(Duration::from_secs(1));
//! server.join();
//! # Ok(()) }
//! ```
//!
//! [`ServerHandle::stats`] tells a test what it cannot see from the outside: connections, messages,
//! panics.
//!
//! # Where to look
//!
//! [`Server`] binds and runs; [`ServerHandle`] controls it from anywhere. [`Handler`] is what you
//! write, [`Context`] what it is given, [`Peer`] what can be kept. [`chat`] is the shipped handler,
//! the crate `rusty_socks_client`
//! the other side of it. [`Config`] has every limit. `ARCHITECTURE.md` follows a byte
//! through the code.

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
pub use handler::{
    Blocking, Context, Handler, IntoService, MayBlock, Mode, OnWorker, Peer, Refusal, Reply,
};
pub use http::head::Request;
pub use hub::{
    error::RoomError,
    history::{Joined, Page, Replay},
    memberships::MatchedRoom,
    names::{RoomName, RoomPattern},
    notice::Notice,
    presence::Watch,
    present::{MembersPage, Presence, Present},
    publish::{Publication, Published, PublishedToRooms},
    resume::{Resumed, ResumedRoom},
    send_status::SendStatus,
    session_token::{NotAToken, SessionToken},
};
pub use metrics::{FIGURES, Figure, FigureKind, Quantiles, Snapshot, WorkerSnapshot};
pub use server::{Builder, Server, ServerHandle, stepped};
pub use store::{Epoch, Position, Range};
pub use ws::{
    close::CloseReason,
    frame::{Message, PreparedFrame},
};
