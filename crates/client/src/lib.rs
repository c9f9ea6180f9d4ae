//! A blocking client, in layers.
//!
//! [`Client`] is one WebSocket connection to any server: send, receive, close. [`Session`] speaks
//! the chat protocol over connections that come and go: it comes back by itself, resumes, and
//! yields each message once. A [`Room`] is a part of a session, for a part of a program, and a
//! [`Pool`] several sessions, for a program that publishes much. None needs an async runtime.
//!
//! # Threads and blocking
//!
//! A [`Client`] and a [`Session`] are handles: `Clone`, `Send` and `Sync`. All clones stand for the
//! same connection or session, and work from several threads at once; each message is received by
//! one of them. A thread behind a client, two behind a session, and one behind a pool, do the
//! waiting: they answer pings, keep the timeouts and reconnect, whether or not anybody receives.
//! When the last handle goes, they close and end.
//!
//! Each call that blocks has a limit: connecting [`ClientBuilder::connect_timeout`] (and the time
//! of the system's resolver), sending [`ClientBuilder::write_timeout`], a request
//! [`SessionBuilder::request_timeout`]. Only `recv` waits for as long as it takes. One thread can
//! send while another receives:
//!
//! ```no_run
//! # fn main() -> Result<(), rusty_socks_client::Error> {
//! use rusty_socks_client::{Client, CloseReason};
//!
//! let client = Client::connect("ws://127.0.0.1:3030/echo")?;
//! let receiver = client.clone();
//! let receiving = std::thread::spawn(move || receiver.iter().filter_map(Result::ok).count());
//! client.send("one")?;
//! client.send(&b"two"[..])?;
//! client.close(CloseReason::NORMAL)?;
//! println!("{:?} came back", receiving.join());
//! # Ok(())
//! # }
//! ```
//!
//! # Backpressure
//!
//! Whoever is too slow is waited for, and nothing grows without end. What nobody receives fills the
//! queue of received messages; then the socket is not read, and TCP slows the server down. What the
//! server does not take fills the queue of what is to be sent; then [`Client::send`] waits, and
//! fails with [`ErrorKind::Timeout`] and the message not taken. A session refuses one more request
//! as [`ErrorKind::Full`], and keeps to the rates that the server tells.
//!
//! | bound | default | beyond it |
//! |---|---|---|
//! | [`ClientBuilder::incoming_max`] | 1024 messages, 16 MiB | the socket is not read |
//! | [`ClientBuilder::outgoing_bytes_max`] | 1 MiB | [`Client::send`] waits |
//! | [`ClientBuilder::message_bytes_max`] | 16 MiB | the connection ends with 1009 |
//! | [`SessionBuilder::requests_max`] | 1000 | [`ErrorKind::Full`] |
//! | [`SessionBuilder::in_flight_max`] | 8 | the others wait |
//! | [`SessionBuilder::events_max`] | 10,000 | the connection is not read |
//! | [`SessionBuilder::subscription_events_max`] | 1024 | the oldest go: [`RoomEvent::Missed`] |
//! | [`SessionBuilder::rooms_max`] | 100,000 | the session ends as [`ErrorKind::Misbehaved`] |
//! | [`PoolBuilder::unanswered_max`] | 10,000, 64 MiB | it waits, then [`ErrorKind::Full`] |
//! | [`PoolBuilder::rooms_max`] | 99 a session | the room not used for longest is left |
//! | pongs that wait for a server that does not read | 16 KiB | the socket is not read |
//! | messages and gaps held behind a gap, per room | 10,000 | they are fetched like the gap |
//! | a wait that the server asks for | 10 minutes | it is cut to that |
//!
//! # Errors
//!
//! There is one [`Error`], which says in a sentence what went wrong and why. Its
//! [`kind`](Error::kind) says whose fault it is, and so what to do:
//!
//! ```no_run
//! use rusty_socks_client::{Client, ErrorKind};
//!
//! match Client::connect("ws://127.0.0.1:3030/ws") {
//!     Ok(_) => println!("connected"),
//!     Err(error) => match (error.kind(), error.refused()) {
//!         (_, Some(refused)) if refused.is_temporary() => {
//!             println!("busy; come back in {:?}", refused.retry_after);
//!         }
//!         (ErrorKind::Unreachable | ErrorKind::Timeout, _) => println!("nobody there: {error}"),
//!         _ => println!("{error}"),
//!     },
//! }
//! ```
//!
//! A connection that was closed with a Close frame is no error for who receives:
//! [`Client::recv`] gives `None`, and [`Client::close_reason`] tells the code.
//!
//! # Reconnecting and order
//!
//! A session that loses its connection tries again, with exponential backoff and jitter, or when
//! the server asks it to. It stops where coming back will not help: a status or a close code that
//! stays the same, such as 401 or 4001. Requests wait meanwhile. A publish has an id, by which a
//! server knows it again, so it is published once however often it is sent; a broadcast whose
//! answer was lost is the one request that is not repeated. A server knows ids for as long as the
//! session lives: what may not come twice even when a session is lost wants
//! [`SessionBuilder::never_twice`], which every pool has.
//!
//! Messages of one room are yielded in their order, each once, over all connections. What was
//! missed is fetched, and what cannot be had is told as [`Event::Lost`]. A message in several rooms
//! comes when its turn has come in all of them.
//!
//! ```no_run
//! # fn main() -> Result<(), rusty_socks_client::Error> {
//! use rusty_socks_client::{Event, Session};
//!
//! let session = Session::builder().patient().connect("ws://127.0.0.1:3030/ws")?;
//! session.join("tea")?;
//! while let Some(event) = session.recv()? {
//!     match event {
//!         Event::Message(message) => println!("{} {}", message.seq, message.content),
//!         Event::Lost { room, range } => println!("{range:?} of {room} cannot be had any more"),
//!         Event::Disconnected { reason, retry_in } => println!("{reason}; back in {retry_in:?}"),
//!         Event::SessionLost { client_id } => println!("a new session, as {client_id}"),
//!         _ => {}
//!     }
//! }
//! # Ok(())
//! # }
//! ```

//! # Rooms
//!
//! [`Session::room`] gives a handle to one room, and [`Room::subscribe`] what one part of a program
//! hears of it. The room is joined for the first subscription and left after the last.
//!
//! - Where the session is **for subscriptions alone**, [`Session::recv`] yields nothing of it.
//! - Where it is **by other means** too ([`Session::join`], the default room, a pattern), both
//!   yield each message. The room is not left after the last subscription, and [`Session::leave`]
//!   ends them all.
//!
//! What is about the session as a whole, such as [`Event::Disconnected`] and [`Event::Direct`], is
//! for [`Session::recv`] alone. Where nobody calls it, make the session
//! [`without_events`](SessionBuilder::without_events): else its queue would be full one day, and
//! hold up everything.

mod target;
mod token;
mod stream;
#[cfg(feature = "tls")]
mod tls;
mod handshake;
mod received;
mod shared;
mod wire;
mod reactor;
mod socket;
mod frames;
mod event;
mod fate;
mod room_state;
mod room_queue;
mod ask;
mod order;
mod pace;
mod conversation;
mod backoff;
mod queue;
mod session_shared;
mod driver;
mod session;
mod session_builder;
mod room;
mod pool;
mod error;

pub use rusty_socks_ws::{close::CloseReason, frame::Message};

pub use ask::{JoinOptions, Pages, PublishOptions, Ticket};
pub use error::{Error, ErrorKind, Refused};
pub use event::{
    Entered, Event, Member, Members, Page, Position, PrivateMessage, Receipt, RoomEvent,
    RoomMessage, Sent,
};
pub use pool::{Pool, PoolBuilder, PoolStats, SessionHealth, SessionStats};
pub use received::Received;
pub use room::{Room, Subscription};
pub use room_state::RoomState;
pub use session::Session;
pub use session_builder::SessionBuilder;
pub use socket::{Client, ClientBuilder, Iter};
pub use stream::Stream;
pub use target::Target;
#[cfg(feature = "tls")]
pub use tls::{TlsConnector, TlsOptions, TlsStream};
