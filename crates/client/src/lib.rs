//! A blocking client, in two layers.
//!
//! [`Client`] is one WebSocket connection to any server: send, receive, close. [`Session`] speaks
//! the chat protocol over connections that come and go: it comes back by itself, resumes, and
//! yields each message once. Both are handles that can be cloned and used from several threads, and
//! neither sees an async runtime: a thread behind each does the waiting.
//!
//! | bound | default | beyond it |
//! |---|---|---|
//! | [`ClientBuilder::incoming_max`] | 1024 messages, 16 MiB | the socket is not read |
//! | [`ClientBuilder::outgoing_bytes_max`] | 1 MiB | [`Client::send`] waits |
//! | [`ClientBuilder::message_bytes_max`] | 16 MiB | the connection ends with 1009 |
//! | [`SessionBuilder::requests_max`] | 1000 | [`ErrorKind::Full`] |
//! | [`SessionBuilder::in_flight_max`] | 8 | the others wait |
//! | [`SessionBuilder::events_max`] | 10,000 | the connection is not read |
//! | [`SessionBuilder::rooms_max`] | 100,000 | the session ends as [`ErrorKind::Misbehaved`] |
//! | messages and gaps held behind a gap, per room | 10,000 | they are fetched like the gap |
//! | a wait that the server asks for | 10 minutes | it is cut to that |

mod target;
mod handshake;
mod received;
mod shared;
mod wire;
mod reactor;
mod socket;
mod frames;
mod event;
mod ask;
mod order;
mod pace;
mod conversation;
mod backoff;
mod queue;
mod session_shared;
mod driver;
mod session;
mod error;

pub use rusty_socks_ws::{close::CloseReason, frame::Message};

pub use ask::{JoinOptions, Pages, PublishOptions, Ticket};
pub use error::{Error, ErrorKind, Refused};
pub use event::{
    Entered, Event, Member, Members, Page, Position, PrivateMessage, Receipt, RoomMessage, Sent,
};
pub use received::Received;
pub use session::{Session, SessionBuilder};
pub use socket::{Client, ClientBuilder, Iter};
pub use target::Target;
