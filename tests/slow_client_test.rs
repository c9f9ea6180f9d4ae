//! Clients that do not read: they cost a bounded amount of memory, and nobody else any time.

#![allow(clippy::unwrap_used, reason = "a test that unwraps fails with a clear message")]

mod support;
#[cfg(target_os = "linux")]
#[path = "support/program.rs"]
mod program;

use std::{
    io::{self, ErrorKind, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use rusty_socks::{Config, RoomName};
use socket2::{Domain, Socket, Type};
use support::{DEADLINE, RawClient, TestServer, close_frame, config, frame, upgrade_head};

/// Never reached by a test that passes.
const LONG: Duration = Duration::from_secs(60);

/// Together with what a stalled client's sockets hold (some 3 MiB here, and 4 MiB by the usual
/// limit of the kernel) its outbox overflows long before the last of these.
const MESSAGES: usize = 3000;
const CONTENT_BYTES: usize = 8 << 10;

/// Small outboxes, and no hurry for a client that is to be closed.
fn small_outboxes() -> Config {
    Config {
        buffer: 64,
        buffer_bytes: 512 << 10,
        max_message_bytes: 64 << 10,
        close_timeout: LONG,
        // One client sends as fast as the others read.
        rate_messages: 0,
        rate_bytes: 0,
        ..config()
    }
}

/// A socket that takes little from its peer before it is read.
fn narrow_socket(address: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
    // Must be set before connecting, or the window is wide already.
    socket.set_recv_buffer_size(4096).unwrap();
    socket.connect(&address.into()).unwrap();
    let stream: TcpStream = socket.into();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream
}

/// A chat client on a narrow socket that has read its welcome and will read no more for now.
fn stalled(address: SocketAddr) -> RawClient {
    let mut client = RawClient::new(narrow_socket(address));
    client.send(upgrade_head("/ws").as_bytes());
    assert_eq!(client.answer().status, 101);
    assert!(client.text().contains("welcome"));
    client
}

/// The sequence number in a message frame. Parsing all of it would take the time of the test.
fn seq(text: &str) -> usize {
    let (_, behind) = text.split_once("\"seq\":").unwrap_or_else(|| panic!("{text}"));
    let digits = behind.bytes().take_while(u8::is_ascii_digit).count();
    behind[..digits].parse().unwrap()
}

fn publish_frame(number: usize) -> Vec<u8> {
    let content = format!("{number} {}", "x".repeat(CONTENT_BYTES));
    frame(0x81, format!("{{\"content\":\"{content}\"}}").as_bytes())
}

/// Publishes all messages to `readers`, who each must get all of them in order with no gap. The
/// publisher goes no further ahead than half an outbox, so that a reader who is closed was closed
/// wrongly.
fn publish_to(writer: &mut RawClient, readers: Vec<RawClient>) {
    let read: Vec<AtomicUsize> = readers.iter().map(|_| AtomicUsize::new(0)).collect();
    thread::scope(|scope| {
        for (mut reader, read) in readers.into_iter().zip(&read) {
            scope.spawn(move || {
                for number in 1..=MESSAGES {
                    assert_eq!(seq(&reader.text()), number);
                    read.store(number, Ordering::Release);
                }
            });
        }
        let end = Instant::now() + DEADLINE;
        for number in 0..MESSAGES {
            let last = || read.iter().map(|read| read.load(Ordering::Acquire)).min().unwrap();
            while number > last() + 32 {
                assert!(Instant::now() < end, "a reader stands still at {}", last());
                thread::park_timeout(Duration::from_micros(200));
            }
            writer.send(&publish_frame(number));
        }
    });
}

fn readers(server: &TestServer) -> Vec<RawClient> {
    (0..3)
        .map(|_| {
            let mut reader = server.upgrade("/ws");
            assert!(reader.text().contains("welcome"));
            reader
        })
        .collect()
}

#[test]
fn a_client_that_stops_reading_is_closed_with_4102_and_delays_nobody() {
    let server = TestServer::start(small_outboxes());
    let mut stalled = stalled(server.addr);
    let mut writer = server.upgrade("/ws");
    publish_to(&mut writer, readers(&server));
    // The others have everything, and the stalled one has not read a byte of it.
    let stats = server.stats();
    assert_eq!(stats.closed.get("4102"), Some(&1), "{stats:?}");
    assert!(stats.dropped > 0, "what was thrown away is counted");
    // When it reads again it finds messages without a gap, and then the reason why there are no
    // more.
    let mut read = 0;
    let code = loop {
        match stalled.frame() {
            Some((0x81, text)) => {
                read += 1;
                assert_eq!(seq(&String::from_utf8(text).unwrap()), read);
            }
            Some((0x88, payload)) => break u16::from_be_bytes([payload[0], payload[1]]),
            other => panic!("neither a message nor a Close: {other:?}"),
        }
    };
    assert_eq!(code, 4102);
    assert!(read < MESSAGES);
    stalled.send(&close_frame(4102));
    stalled.expect_end();
}

#[test]
fn a_closed_slow_client_comes_back_to_what_it_missed() {
    let server = TestServer::start(small_outboxes());
    let mut slow = stalled(server.addr);
    let big = "x".repeat(60 << 10);
    let room = "lobby";
    server.wait_for("it is too slow", |stats| {
        if stats.workers.iter().all(|worker| worker.mailbox == 0) {
            let content = format!("{{\"type\":\"message\",\"seq\":0,\"content\":\"{big}\"}}");
            server.handle.publish(room, content.as_str()).unwrap();
        }
        stats.closed.contains_key("4102")
    });
    assert_eq!(slow.close_code(), 4102);
    slow.send(&close_frame(4102));
    slow.expect_end();
    // Its permit and its place in the room are free: it is served as if nothing had been.
    let again = server.chat();
    again.close();
    server.wait_until_empty();
}

#[test]
fn one_stalled_client_does_not_hold_up_those_of_its_own_worker() {
    let server = TestServer::start(Config { thread_pool_size: 1, ..small_outboxes() });
    let _stalled: Vec<RawClient> = (0..3).map(|_| stalled(server.addr)).collect();
    let mut writer = server.upgrade("/ws");
    publish_to(&mut writer, readers(&server));
    assert_eq!(server.stats().closed.get("4102"), Some(&3));
}

/// A server whose outboxes overflow only by bytes, and whose timeouts are long.
fn patient() -> Config {
    Config { timeout: LONG, ping: Duration::ZERO, buffer: 1_000_000, ..config() }
}

/// Sends the same frame again and again without reading, until the server takes no more. Returns
/// how many are sent, the last one whole.
fn flood(client: &mut RawClient, frame: &[u8]) -> (usize, thread::JoinHandle<io::Result<()>>) {
    // Thrice what the kernel can hold on both ways by its usual limits, which are 6 and 4 MiB.
    const ENOUGH_BYTES: usize = 64 << 20;
    // Long enough for a busy machine to move, and if it was not, less was sent and no more.
    client.stream.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
    let (mut sent, mut bytes) = (0, 0);
    loop {
        let mut rest = frame;
        while !rest.is_empty() {
            match client.stream.write(rest) {
                Ok(n) => rest = &rest[n..],
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) =>
                {
                    // The rest of the frame goes as soon as there is room, which only reading
                    // makes.
                    let (mut writer, rest) = (client.stream.try_clone().unwrap(), rest.to_vec());
                    writer.set_write_timeout(Some(DEADLINE)).unwrap();
                    let finish = thread::spawn(move || writer.write_all(&rest));
                    return (sent + 1, finish);
                }
                Err(error) => panic!("after {sent} frames: {error}"),
            }
        }
        sent += 1;
        bytes += frame.len();
        assert!(
            bytes < ENOUGH_BYTES,
            "the server takes everything, though nobody reads its answers"
        );
    }
}

#[test]
fn an_echo_client_that_floods_is_held_back_and_loses_nothing() {
    let server = TestServer::start(patient());
    let mut client = server.upgrade("/echo");
    let blob = vec![7; 64 << 10];
    let (sent, finish) = flood(&mut client, &frame(0x82, &blob));
    assert!(server.stats().read_pauses > 0);
    for number in 0..sent {
        assert!(client.frame() == Some((0x82, blob.clone())), "echo {number} of {sent}");
    }
    finish.join().unwrap().unwrap();
    client.send(&close_frame(1000));
    assert_eq!(client.close_code(), 1000);
    assert_eq!(server.stats().dropped, 0);
}

#[test]
fn a_flood_of_small_messages_is_held_back_by_their_number() {
    // One read brings more than a hundred of them, several times what an outbox takes.
    let server = TestServer::start(Config { buffer: 16, ..patient() });
    let mut client = server.upgrade("/echo");
    let small = vec![7; 1000];
    let messages = frame(0x82, &small).repeat(100);
    let (sent, finish) = flood(&mut client, &messages);
    for number in 0..sent * 100 {
        assert!(client.frame() == Some((0x82, small.clone())), "echo {number}");
    }
    finish.join().unwrap().unwrap();
    assert_eq!(server.stats().dropped, 0);
}

#[test]
fn a_flood_of_pings_is_held_back_too() {
    // Pongs know no overflow, so nothing but the pause bounds them.
    let server = TestServer::start(patient());
    let mut client = server.upgrade("/echo");
    let pings = frame(0x89, &[7; 125]).repeat(500);
    let (sent, finish) = flood(&mut client, &pings);
    for number in 0..sent * 500 {
        assert!(client.frame() == Some((0x8a, vec![7; 125])), "pong {number}");
    }
    finish.join().unwrap().unwrap();
    client.send(&close_frame(1000));
    assert_eq!(client.close_code(), 1000);
}

#[test]
fn a_client_that_never_reads_its_echoes_is_closed_with_4102() {
    let (timeout, ping) = (Duration::from_secs(1), Duration::from_millis(200));
    let server = TestServer::start(Config { timeout, ping, close_timeout: LONG, ..config() });
    let mut client = server.upgrade("/echo");
    let mut writer = client.stream.try_clone().unwrap();
    let writing = thread::spawn(move || {
        let blob = frame(0x82, &[7; 64 << 10]);
        // Ends when the server has closed.
        while writer.write_all(&blob).is_ok() {}
    });
    server.wait_for("it is closed", |stats| !stats.closed.is_empty());
    // Not "no pong": its pongs could not have been read either.
    assert_eq!(server.closed_with(4102), 1, "{:?}", server.stats().closed);
    // Unread megabytes come first, and its own flood is discarded meanwhile.
    assert_eq!(client.close_code(), 4102);
    client.stream.shutdown(Shutdown::Both).unwrap();
    writing.join().unwrap();
    server.wait_until_empty();
}

#[test]
fn a_reader_that_is_slow_but_reads_gets_everything() {
    // The outbox holds it all, the sockets do not: it is behind, and never too far.
    let server = TestServer::start(Config { buffer: 1000, buffer_bytes: 64 << 20, ..config() });
    server.handle.open_room(&RoomName::new("lobby").unwrap()).unwrap();
    let mut client = stalled(server.addr);
    let message = "x".repeat(60 << 10);
    for _ in 0..500 {
        server.handle.publish("lobby", message.as_str()).unwrap();
    }
    server.wait_for("all of it is on its way", |stats| stats.deliveries == 500);
    for number in 0..500 {
        assert_eq!(client.text().len(), message.len(), "message {number}");
    }
    assert_eq!(server.stats().dropped, 0);
}

/// A client that takes all it is sent, at `bytes_per_second`, and answers each ping as it reads it.
/// Returns how many messages it read before the end, or before `enough`.
fn read_steadily(client: &mut RawClient, bytes_per_second: f64, enough: usize) -> usize {
    let (start, mut bytes, mut messages) = (Instant::now(), 0, 0);
    while messages < enough {
        let Some((first, payload)) = client.frame() else { break };
        bytes += payload.len();
        match first {
            0x81 => messages += 1,
            0x89 => client.send(&frame(0x8A, &payload)),
            0x88 => break,
            other => panic!("a frame that begins with {other:#x}"),
        }
        let due = start + Duration::from_secs_f64(bytes as f64 / bytes_per_second);
        while let Some(ahead) = due.checked_duration_since(Instant::now()) {
            thread::park_timeout(ahead);
        }
    }
    messages
}

// Elsewhere than on Linux nothing limits what the kernel holds before a ping.
#[cfg(target_os = "linux")]
#[test]
fn a_client_that_reads_steadily_is_alive_however_much_is_before_the_ping() {
    // 30 messages at this rate take three times the timeout, which the kernel would swallow at
    // once.
    let (messages, content) = (30, "x".repeat(60 << 10));
    let server = TestServer::start(Config {
        buffer_bytes: 8 << 20,
        timeout: Duration::from_millis(1500),
        ping: Duration::from_millis(400),
        ..config()
    });
    let mut client = server.upgrade("/ws");
    assert!(client.text().contains("welcome"));
    for _ in 0..messages {
        server.handle.publish("lobby", content.as_str()).unwrap();
    }
    assert_eq!(read_steadily(&mut client, f64::from(400 << 10), messages), messages);
    assert_eq!(server.closed_with(4201), 0);
}

/// Memory is measured in a process of its own.
#[cfg(target_os = "linux")]
mod memory {
    use super::*;
    use crate::program::Program;

    #[test]
    fn stalled_clients_cost_no_more_memory_than_their_outboxes() {
        let server = Program::start(
            &[
                "--buffer",
                "64",
                "--buffer-bytes",
                "512KiB",
                "--rate-messages",
                "0",
                "--rate-bytes",
                "0",
            ],
            &[],
        );
        let stalled: Vec<RawClient> = (0..20).map(|_| stalled(server.addr)).collect();
        let mut writer = server.upgrade("/ws");
        let mut reader = server.upgrade("/ws");
        assert!(reader.text().contains("welcome"));
        let before = server.memory("VmRSS");
        publish_to(&mut writer, vec![reader]);
        let grown = (server.memory("VmHWM") - before) >> 10;
        println!("{grown} KiB more at the peak");
        // All messages are 24 MiB. What may stay is a history of 1 MiB, 64 messages in 20 outboxes
        // that share them, and buffers that are kept for their next use.
        assert!(grown < 12 << 10, "{grown} KiB more than before");
        let stats = server.stats();
        assert_eq!(stats["closed"]["4102"], 20, "{stats:#}");
        assert!(stats["dropped"].as_u64().unwrap() > 0);
        drop(stalled);
    }

    #[test]
    fn a_flood_that_nobody_reads_costs_no_more_memory_than_an_outbox() {
        let server = Program::start(&["--echo", "--log", "info"], &[]);
        let mut clients: Vec<RawClient> = (0..4).map(|_| server.upgrade("/echo")).collect();
        let before = server.memory("VmRSS");
        let blob = frame(0x82, &[7; 64 << 10]);
        let floods: Vec<_> = clients.iter_mut().map(|client| flood(client, &blob)).collect();
        let grown = (server.memory("VmHWM") - before) >> 10;
        println!("{grown} KiB more at the peak");
        // Each was held back after some ten MiB, of which 1 MiB may wait here.
        assert!(grown < 12 << 10, "{grown} KiB more than before");
        drop(server);
        for (_, finish) in floods {
            // The server is gone, and with it the room for the rest.
            let _ = finish.join();
        }
    }
}
