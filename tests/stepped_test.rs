//! A server whose turns a test makes by hand.

// A helper that panics fails its test with a clear message.
#![allow(clippy::unwrap_used)]

mod support;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use rusty_socks::{
    CloseReason, Config, Context, Handler, MayBlock, Message, RoomName, Server, ServerEvent,
    chat::Chat,
    stepped::{MemoryClient, SteppedServer},
};
use support::{frame, upgrade_head};

fn echo(ctx: &mut Context<'_, ()>, message: Message<'_>) {
    ctx.send(message);
}

#[test]
fn a_handler_is_tested_without_a_port_and_without_a_thread() {
    let mut server = Server::builder().route("/echo", echo).stepped().unwrap();
    let client = server.connect().unwrap();
    client.write(upgrade_head("/echo").as_bytes());
    server.turn();
    assert!(client.read().starts_with(b"HTTP/1.1 101 "));
    client.write(&frame(0x81, b"hello"));
    assert!(client.read().is_empty(), "nothing happens between turns");
    server.turn();
    assert_eq!(client.read(), b"\x81\x05hello");
    // Half of a frame waits for the other half, whatever the number of turns.
    let [one, other] = [&frame(0x81, b"again")[..4], &frame(0x81, b"again")[4..]];
    client.write(one);
    server.settle();
    assert!(client.read().is_empty());
    client.write(other);
    server.settle();
    assert_eq!(client.read(), b"\x81\x05again");
    // Time passes when it is told to.
    let timeout = Config::default().timeout;
    server.advance(timeout / 2);
    server.turn();
    assert_eq!(client.read(), [0x89, 0x00], "a quiet client is pinged");
    server.advance(timeout);
    server.settle();
    assert_eq!(&client.read()[2..4], 4201_u16.to_be_bytes(), "and closed if it stays silent");
    client.reset();
    server.settle();
    assert_eq!((server.connections(), client.is_ended()), (0, true));
}

#[test]
fn a_slow_client_of_memory_takes_what_its_window_lets_through() {
    let mut server = Server::builder().route("/echo", echo).stepped().unwrap();
    let client = server.connect().unwrap();
    client.write(upgrade_head("/echo").as_bytes());
    server.turn();
    client.read();
    client.set_window(3);
    client.write(&frame(0x81, b"hello"));
    server.settle();
    assert_eq!(client.read(), b"\x81\x05h");
    client.set_window(usize::MAX);
    server.settle();
    assert_eq!(client.read(), b"ello");
}

#[test]
fn a_blocking_handler_cannot_be_stepped() {
    let echo = |ctx: &mut Context<'_, (), MayBlock>, message: Message<'_>| {
        ctx.send(message);
    };
    let error = Server::builder().route("/", echo.blocking(1, 1)).stepped().unwrap_err();
    assert!(error.to_string().contains("the handler of '/' is blocking"), "{error}");
}

/// Connects to a chat server of memory, and reads the welcome.
fn enter_chat(server: &mut SteppedServer) -> MemoryClient {
    let client = server.connect().unwrap();
    client.write(upgrade_head("/ws").as_bytes());
    server.settle();
    client.read();
    client
}

fn chat(config: Config) -> SteppedServer {
    Server::builder().route("/ws", Chat::new(&config).unwrap()).config(config).stepped().unwrap()
}

#[test]
fn messages_age_when_time_is_told_to_pass() {
    let config = Config {
        history_age: Duration::from_secs(10),
        default_room: String::new(),
        ..Config::default()
    };
    let mut server = chat(config);
    let room = RoomName::new("tea").unwrap();
    server.handle().open_room(&room).unwrap();
    server.handle().publish("tea", "hello").unwrap();
    server.advance(Duration::from_secs(10));
    server.settle();
    assert_eq!(server.handle().stats().rooms, 1);
    server.advance(Duration::from_secs(2));
    server.settle();
    assert_eq!(server.handle().stats().rooms, 0, "the message is too old, and nobody is there");
}

/// Has clients of a chat, who have read all, sent a message that is 60,000 bytes long, and returns
/// how many bytes they read in all. No turn may write more than `written_max`, and there may be
/// fewer than `turns_max`.
fn send_to_all(
    server: &mut SteppedServer,
    clients: &[MemoryClient],
    (written_max, turns_max): (usize, usize),
) -> usize {
    const BYTES: usize = 60_000;
    let (sender, readers) = clients.split_last().unwrap();
    let content = "x".repeat(BYTES);
    sender.write(&frame(0x81, format!("{{\"content\":\"{content}\"}}").as_bytes()));
    let (mut all, mut turns) = (0, 0);
    while all < readers.len() * BYTES {
        server.turn();
        let written: usize = readers.iter().map(|client| client.read().len()).sum();
        assert!(written <= written_max, "{written} bytes in a turn");
        all += written;
        turns += 1;
        assert!(turns < turns_max, "{all} bytes");
    }
    // Those that were put off have it now, and nobody has it twice.
    server.settle();
    assert!(readers.iter().all(|client| client.unread() == 0));
    assert!(all < readers.len() * (BYTES + 1000), "{all} bytes");
    all
}

#[test]
fn a_turn_writes_so_many_bytes_and_no_more() {
    const BYTES_PER_TURN_MAX: usize = 8 << 20;
    let mut server = chat(Config { thread_pool_size: 1, max_conn: 200, ..Config::default() });
    let clients: Vec<MemoryClient> = (0..200).map(|_| enter_chat(&mut server)).collect();
    let all = send_to_all(&mut server, &clients, (BYTES_PER_TURN_MAX + 120_000, 20));
    assert!(all > BYTES_PER_TURN_MAX, "{all} bytes: one turn had sufficed");
}

#[test]
fn writing_much_looks_at_the_clock_as_often_as_writing_to_many() {
    let mut server = chat(Config { thread_pool_size: 1, max_conn: 200, ..Config::default() });
    let clients: Vec<MemoryClient> = (0..100).map(|_| enter_chat(&mut server)).collect();
    // Its clock is over when it is first looked at: after 16 sockets, or after 128 KiB.
    server.limit_turns(16);
    // Those that wait already have a share of their own.
    send_to_all(&mut server, &clients, (2 * ((128 << 10) + 61_000), 1000));
}

#[test]
fn a_turn_frees_so_much_and_no_more() {
    const FREED_PER_TURN_MAX: usize = 16 << 20;
    let config = Config { thread_pool_size: 1, max_conn: 200, ..Config::default() };
    let mut server = Server::builder().route("/echo", echo).config(config).stepped().unwrap();
    let clients: Vec<MemoryClient> = (0..100).map(|_| server.connect().unwrap()).collect();
    clients.iter().for_each(|client| client.write(upgrade_head("/echo").as_bytes()));
    server.settle();
    for client in &clients {
        client.set_window(0);
        client.write(&frame(0x82, &[0; 60_000]).repeat(20));
    }
    server.settle();
    let unread_bytes = server.largest_outbox_bytes();
    assert!(unread_bytes > 400_000, "{unread_bytes}");
    clients.iter().for_each(MemoryClient::reset);
    let (mut before, mut turns) = (server.connections(), 0);
    let mut newcomers = Vec::new();
    while before > newcomers.len() {
        server.turn();
        let freed = before - server.connections();
        let freed_max = FREED_PER_TURN_MAX / unread_bytes + 1;
        assert!((1..=freed_max).contains(&freed), "{freed} of {before} in turn {turns}");
        // Whoever comes has a slot of those that were freed, and keeps it.
        newcomers.push(server.connect().unwrap());
        before = server.connections();
        turns += 1;
    }
    server.settle();
    assert!(turns > 2, "{turns} turns");
    assert_eq!(server.connections(), newcomers.len());
    assert!(newcomers.iter().all(|client| !client.is_ended()));
}

#[test]
fn a_worker_sleeps_until_it_is_woken() {
    let mut server = chat(Config { thread_pool_size: 2, ..Config::default() });
    let clients = [enter_chat(&mut server), enter_chat(&mut server)];
    let rest = |server: &mut SteppedServer| {
        (0..100).take_while(|_| (0..2).any(|worker| server.turn_of(worker))).count()
    };
    rest(&mut server);
    assert!(!server.turn_of(0) && !server.turn_of(1) && !server.has_overslept());
    clients[0].write(&frame(0x81, b"{\"content\":1}"));
    assert!(!server.turn_of(1), "nothing is there for it yet");
    assert!(server.turn_of(0) && server.turn_of(1), "a letter has woken it");
    assert!(!clients[1].read().is_empty());
    assert!(rest(&mut server) < 100);
    server.advance(Config::default().ping);
    assert!(server.turn_of(0) && server.turn_of(1), "clients are due to be pinged");
}

#[test]
fn every_frame_of_the_chat_protocol_is_counted() {
    let mut server = chat(Config::default());
    let [one, other] = [enter_chat(&mut server), enter_chat(&mut server)];
    one.write(&frame(0x81, b"{\"type\":\"join\",\"room\":\"tea.*\"}"));
    server.settle();
    one.read();
    let before = server.handle().stats().messages_out;
    other.write(&frame(0x81, b"{\"type\":\"join\",\"room\":\"tea.green\"}"));
    server.settle();
    assert!(String::from_utf8_lossy(&one.read()).contains("matched"));
    assert_eq!(server.handle().stats().messages_out - before, 1);
}

/// A handler at whose door clients wait until they say `in`, and who else was told of.
struct Door(Arc<Mutex<Vec<&'static str>>>);

impl Handler for Door {
    type State = ();

    fn resumable(&self) -> bool {
        true
    }

    fn on_open(&self, ctx: &mut Context<'_, ()>) {
        ctx.await_identity();
    }

    fn on_message(&self, ctx: &mut Context<'_, ()>, message: Message<'_>) {
        match message.as_text() {
            Some("in") => ctx.admit(),
            _ => ctx.close(CloseReason::FORBIDDEN),
        }
    }

    fn observe(&self, event: &ServerEvent<'_>) {
        self.0.lock().unwrap().push(match event {
            ServerEvent::Connected { .. } => "connected",
            ServerEvent::Disconnected { .. } => "disconnected",
            _ => "other",
        });
    }
}

#[test]
fn nobody_is_told_of_a_client_that_was_never_let_in() {
    let told = Arc::default();
    let door = Door(Arc::clone(&told));
    let mut server = Server::builder().route("/", door).stepped().unwrap();
    for word in ["out", "in"] {
        let client = server.connect().unwrap();
        client.write(upgrade_head("/").as_bytes());
        server.settle();
        // Long enough for a client that was let in.
        server.advance(Duration::from_secs(5));
        server.settle();
        assert!(told.lock().unwrap().is_empty());
        client.write(&frame(0x81, word.as_bytes()));
        server.settle();
        client.reset();
        server.settle();
    }
    assert_eq!(*told.lock().unwrap(), ["connected", "disconnected"]);
}
