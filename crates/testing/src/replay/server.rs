//! The server of the hot paths, and its clients.

use rusty_socks::{
    Config, Context, Message, Publication, RoomName, Server,
    chat::Chat,
    stepped::{MemoryClient, SteppedServer},
};

use super::path::{AFTER_SEQ, BEFORE_SEQ};
use crate::frames::{behind_101, server_frames};

/// More messages than a history holds.
const HISTORY_FILLS: usize = 128;

pub(super) fn chat(config: Config) -> SteppedServer {
    // The clock stands still, so what is spent of a rate would never come back.
    chat_within(Config { rate_messages: 0, rate_bytes: 0, rate_rooms: 0, ..config })
}

pub(super) fn chat_within(limits: Config) -> SteppedServer {
    let config = Config { thread_pool_size: 1, ..limits };
    let chat = Chat::new(&config).expect("the defaults are legal");
    let echo = |ctx: &mut Context<'_, ()>, message: Message<'_>| {
        ctx.send(message);
    };
    let builder = Server::builder().route("/ws", chat).route("/echo", echo).config(config);
    let server = builder.stepped().expect("a server");
    let lobby = RoomName::new("lobby").expect("a legal name");
    server.handle().open_room(&lobby).expect("room for it");
    (0..HISTORY_FILLS).for_each(|_| say(&server));
    server
}

/// Publishes to the default room from outside, as a handle of the server does.
pub(super) fn say(server: &SteppedServer) {
    say_in(server, "lobby");
}

/// Publishes to a room from outside, and returns the number of the message there.
pub(super) fn say_in(server: &SteppedServer, room: &str) -> u64 {
    let message = Publication::around_seq(BEFORE_SEQ, AFTER_SEQ);
    server.handle().publish(room, message).expect("there is a place").seq
}

pub(super) fn upgrade(path: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: localhost:3030\r\nUser-Agent: replay\r\nConnection: Upgrade\r\n\
         Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\r\n"
    )
}

pub(super) fn enter(server: &mut SteppedServer, path: &str) -> MemoryClient {
    let client = server.connect().expect("a place");
    client.write(upgrade(path).as_bytes());
    server.turn();
    client.read_with(|written| assert!(behind_101(written).len() < written.len()));
    client
}

/// How many frames a client was sent since this was asked last. All it said has been read.
pub(super) fn heard(client: &MemoryClient) -> u64 {
    assert_eq!(client.unread(), 0, "a turn reads all there is");
    client.read_with(|written| server_frames(written).count() as u64)
}
