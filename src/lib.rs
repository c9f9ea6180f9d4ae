//! A WebSocket server without an async runtime.
//!
//! One thread accepts connections and hands each to one of a few worker threads. A worker drives
//! many connections by readiness, and calls handlers, which are plain synchronous code. When the
//! server is full it refuses early, with a reason and a `Retry-After`; open connections are
//! unaffected.
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
//! [`Server`] binds and runs; [`ServerHandle`] controls it from any thread. You write a
//! [`Handler`]; each call gets a [`Context`], and [`Peer`] is a handle to a connection that you
//! can keep. [`Config`] has every limit. [`chat`] is the handler of the chat protocol, and the
//! crate `rusty_socks_client` is its client. `ARCHITECTURE.md` explains the code.
//!
//! # Cargo features
//!
//! - `config-file`: [`Config::load`] reads a TOML file;
//! - `hooks`: [`Config::hook_url`] and [`Config::events_url`];
//! - `identity`: [`Config::identity`], which verifies tokens, and `identity::sign`;
//! - `redis`: [`Config::engine`], many servers that are to their clients as one;
//! - `snapshot`: [`Config::snapshot`], rooms and sessions that outlive a restart;
//! - `tls`: [`Config::tls_cert`], TLS on the listener;
//! - `cli`, the default: the program, with all of these.
//!
//! A setting whose feature is absent is an error that names the feature. `docs/embedding.md` says
//! how many packages each feature brings.
//!
//! # Threads and blocking
//!
//! A plain [`Handler`] runs on the worker that owns its connection. All other connections of that
//! worker wait meanwhile, so it must not block: no database, no file, no DNS lookup, no lock that
//! is held for long. A handler that blocks is a `Handler<MayBlock>`; [`Handler::blocking`] gives
//! it threads of its own, and the compiler refuses to mount it without:
//!
//! ```
//! use rusty_socks::{Context, Handler, MayBlock, Message, Server};
//!
//! let read = |ctx: &mut Context<'_, (), MayBlock>, _: Message<'_>| {
//!     match std::fs::read_to_string("news.txt") {
//!         Ok(news) => ctx.send(&news),
//!         Err(error) => ctx.send(&format!("no news: {error}")),
//!     };
//! };
//! // Eight threads. At most 100 messages wait for them; beyond that, the sockets are not read.
//! Server::builder().route("/news", read.blocking(8, 100));
//! ```
//!
//! A handler that blocks only now and then stays on its worker and [defers](Context::defer) what
//! blocks: its connection waits for the answer, and nobody else.
//!
//! Calls for one connection never overlap, so its [`State`](Handler::State) needs no lock. Calls
//! for different connections do overlap, so what connections share needs one.
//!
//! [`Peer`] and [`ServerHandle`] work from any thread. Apart from [`ServerHandle::join`], they
//! never block.
//!
//! # Replies
//!
//! Calls that concern rooms, sessions or other clients take effect at once and return a [`Reply`].
//! Drop it, handle it in a closure, or, in a handler that may block, wait for it:
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
//! All members of a room see its messages in the order of their sequence numbers, on whichever
//! worker they are. [`Context::join`] returns a [`Position`] and, on request, earlier messages
//! ([`Replay`]); every message after the position is delivered, so none is missed and none comes
//! twice. The messages of one publisher keep their order. Between rooms there is no order, except
//! that [`Context::publish_to_rooms`] numbers a message in all its rooms in one atomic step.
//!
//! ```
//! use rusty_socks::{Context, Handler, Message, Replay, RoomName};
//!
//! /// Everyone who connects joins one room, and gets its last 10 messages first.
//! struct Wall {
//!     room: RoomName,
//! }
//!
//! impl Handler for Wall {
//!     type State = ();
//!
//!     fn on_open(&self, ctx: &mut Context<'_, ()>) {
//!         ctx.join(&self.room, Replay::Latest(10)).then(|ctx, joined| {
//!             for frame in joined.iter().flat_map(|joined| &joined.replay) {
//!                 ctx.send_prepared(frame);
//!             }
//!         });
//!     }
//!
//!     fn on_message(&self, ctx: &mut Context<'_, ()>, message: Message<'_>) {
//!         ctx.publish(self.room.as_str(), message);
//!     }
//! }
//! ```
//!
//! A room exists while it has members or history. [`Epoch`] identifies that life: a room that is
//! made again starts at 1, in a new epoch.
//!
//! # Backpressure
//!
//! Every queue is bounded, and every loss is reported:
//!
//! - [`Context::send`] returns a [`SendStatus`]. The server stops reading from a client that does
//!   not read, and closes it with 4102 if it never does. A handler that only answers can ignore the
//!   status; one that sends by itself pauses at [`SendStatus::Behind`].
//! - A member that is too slow for its room falls under the room's [`Overflow`](config::Overflow)
//!   policy: its connection is closed, or it skips messages and [`Handler::notice`] tells the
//!   client which.
//! - [`Published::behind`] says that a worker is behind. The server stops reading the sockets that
//!   feed it; a publisher on a thread of its own should pause. Beyond the bound, publishing fails
//!   with [`RoomError::Overloaded`], and nothing is stored.
//! - The queue of a blocking handler is bounded. Beyond the bound, its connections are not read.
//!
//! ```
//! use std::{thread, time::Duration};
//! use rusty_socks::{RoomError, ServerHandle};
//!
//! /// Publishes from a thread of the program, no faster than the server delivers.
//! fn publish(server: &ServerHandle, line: &str) -> Result<(), RoomError> {
//!     match server.publish("log", line) {
//!         Ok(published) if published.behind => thread::sleep(Duration::from_millis(10)),
//!         Ok(_) | Err(RoomError::NoSuchRoom) => {} // Nobody listens and nothing is kept.
//!         Err(error) => return Err(error),
//!     }
//!     Ok(())
//! }
//! ```
//!
//! # Errors
//!
//! - [`RoomError`] says why a call did nothing. It closes no connection.
//! - [`Error`] reports a wrong configuration or a failure of the operating system; its
//!   [`ErrorKind`] says whose fault it is.
//! - [`Refusal`] is a handler's refusal of an upgrade, as a plain HTTP answer.
//! - [`CloseReason`] says how a connection ended; [`Handler::on_close`] gets it.
//! - A panic in a handler is logged and counted, and closes only its own connection, with 1011.
//!
//! # Sessions
//!
//! A handler that is [resumable](Handler::resumable) has sessions that outlive their connections
//! for [`Config::resume_window`]. Give the client its [`Context::session_token`]. A later
//! connection that shows the token in its first message takes the session up with
//! [`Context::resume`]: it gets the same client id, the same rooms, and the messages it missed.
//! Until the window is over, presence still shows the client, and [`Context::direct`] messages wait
//! for it.
//!
//! ```
//! use rusty_socks::{Context, Handler, Message, SessionToken};
//!
//! struct Desk;
//!
//! impl Handler for Desk {
//!     type State = ();
//!
//!     fn resumable(&self) -> bool {
//!         true
//!     }
//!
//!     fn on_open(&self, ctx: &mut Context<'_, ()>) {
//!         let token = ctx.session_token().to_string();
//!         ctx.send(&token);
//!     }
//!
//!     fn on_message(&self, ctx: &mut Context<'_, ()>, message: Message<'_>) {
//!         let token = message.as_text().and_then(|text| text.parse::<SessionToken>().ok());
//!         let Some(token) = token else { return };
//!         ctx.resume(&token, &[], None).then(|ctx, resumed| match resumed {
//!             Ok(resumed) => resumed.notices.iter().chain(&resumed.directs).for_each(|frame| {
//!                 ctx.send_prepared(frame);
//!             }),
//!             Err(error) => {
//!                 ctx.send(&error.to_string());
//!             }
//!         });
//!     }
//! }
//! ```
//!
//! After a reconnect a client cannot know whether its last message arrived. Publish it again with
//! the same [`dedup_id`](Publication::dedup_id), and nobody gets it twice.
//!
//! # Testing a handler
//!
//! Run the real server on port 0 of the loopback. It starts in about a millisecond, so each test
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
//! [`ServerHandle::stats`] shows what a client cannot see: connections, messages, panics. For
//! tests without sockets and clocks, [`Builder::stepped`] makes a server whose turns the test makes
//! itself ([`stepped`]).

pub mod chat;
mod server;
mod pool;
mod handler;
mod hub;
mod limits;
mod store;
mod memory;
mod http;
pub mod identity;
mod metrics;
mod tls;
mod snapshot;
pub mod config;
#[cfg(feature = "redis")]
mod engine;
#[cfg(not(feature = "redis"))]
#[path = "engine/absent.rs"]
mod engine;
mod error;
mod clock;

use rusty_socks_ws as ws;

pub use config::Config;
pub use error::{Error, ErrorKind};
pub use handler::{
    AdminAnswer, AdminContext, AdminHandler, AdminStep, Blocking, BodyCall, Context, Handler,
    IntoService, KeyCall, LaterCall, MayBlock, Mode, NodeSummary, OnWorker, Peer, Pending,
    PendingReload, Refusal, Reply, TaskThreads, Waiter,
};
pub use http::{head::Request, response::Status};
pub use hub::{
    error::RoomError,
    event::ServerEvent,
    history::{Joined, Page, Replay},
    identities::ClosedSessions,
    memberships::MatchedRoom,
    names::{RoomName, RoomPattern},
    notice::Notice,
    presence::Watch,
    present::{MembersPage, Presence, Present},
    publish::{Publication, Published, PublishedToRooms},
    publisher::Publisher,
    resume::{Resumed, ResumedRoom},
    send_status::SendStatus,
    session_token::{NotAToken, SessionToken},
    survey::{ClearedHistory, RoomSummary, SessionSummary, SessionsOf, SessionsPage},
    task::{NotDeferred, TaskAnswer},
};
pub use identity::{Identity, Permissions, Revocation, TokenError};
pub use limits::{owner::LimitOf, spending::RateLimited};
pub use metrics::{
    FIGURES, Figure, FigureKind, Quantiles, ShardSnapshot, Snapshot, WorkerSnapshot,
};
pub use pool::listener::{BoundListener, ListenAddr};
pub use server::{Builder, Server, ServerHandle, stepped};
pub use store::{Epoch, Position, Range};
pub use ws::{
    close::CloseReason,
    frame::{Message, PreparedFrame},
};
