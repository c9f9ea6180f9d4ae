//! A server whose turns a test makes by hand.

// A helper that panics fails its test with a clear message.
#![allow(clippy::unwrap_used)]

mod support;

use rusty_socks::{Config, Context, Handler, MayBlock, Message, Server};
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
