//! The ceiling of memory: what happens to newcomers, to those inside and to the process.

// A program's memory is told on Linux alone.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]

mod support;
#[path = "support/program.rs"]
mod program;

use std::{
    io::{Read, Write},
    net::TcpStream,
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use program::Program;
use serde_json::Value;
use support::{Client, RawClient, eventually, frame, upgrade_head};

/// The program without rates, which would slow down what these tests are about.
fn start(settings: &[(&str, &str)]) -> Program {
    Program::start(&[], &[&[("RATE_MESSAGES", "0"), ("RATE_BYTES", "0")], settings].concat())
}

/// A client of the chat, which has its welcome.
fn chat(server: &Program) -> Client {
    let url = format!("ws://{}/ws", server.addr);
    let (socket, response) = tungstenite::client(url, server.socket()).unwrap();
    let mut client = Client { socket, response, welcome: Value::Null };
    client.welcome = client.json();
    client
}

/// A chat client that never reads, and whose own kernel keeps little for it.
fn deaf(server: &Program) -> RawClient {
    let stream = server.socket();
    socket2::SockRef::from(&stream).set_recv_buffer_size(4096).unwrap();
    let mut client = RawClient::new(stream);
    client.send(upgrade_head("/ws").as_bytes());
    assert_eq!(client.answer().status, 101);
    client
}

/// One upgrade, and the status and body of its answer.
fn upgrade(server: &Program) -> (u16, String) {
    let mut client = RawClient::new(server.socket());
    client.send(upgrade_head("/ws").as_bytes());
    let answer = client.answer();
    (answer.status, answer.body)
}

/// Sends messages of 256 KiB that never become whole, one from each of `clients`, all at one pace:
/// nobody has long been silent when there is no memory for more. Then a byte now and then, until
/// `told` to stop or gone.
fn send_without_end(clients: &mut [RawClient], told: &Receiver<()>) {
    let message = frame(0x82, &[7; 256 << 10]);
    let (most, rest) = message.split_at(message.len() - 1000);
    // Those that the server has closed cannot.
    let mut each_sends = |bytes: &[u8]| {
        for client in &mut *clients {
            let _ = client.stream.write_all(bytes);
        }
    };
    most.chunks(8 << 10).for_each(&mut each_sends);
    for byte in &rest[..rest.len() - 1] {
        match told.recv_timeout(Duration::from_millis(200)) {
            Err(RecvTimeoutError::Timeout) => each_sends(&[*byte]),
            Ok(()) | Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

fn stat(server: &Program, name: &str) -> u64 {
    server.stats()[name].as_u64().unwrap_or_else(|| panic!("{name} is a number"))
}

/// A publish of 60 KB to `room`, with a `ref`.
fn publish(room: &str) -> String {
    let content = "x".repeat(60_000);
    format!(r#"{{"type":"publish","room":"{room}","content":"{content}","ref":"p","echo":false}}"#)
}

fn join(room: &str) -> String {
    format!(r#"{{"type":"join","room":"{room}","ref":"j"}}"#)
}

const CEILING: usize = 64 << 20;
const CEILING_TEXT: &str = "64MiB";

#[test]
fn histories_that_clients_fill_stay_below_the_ceiling() {
    let server = start(&[("MEMORY_MAX", CEILING_TEXT), ("MAX_ROOMS_PER_CONN", "1000")]);
    let mut inside = chat(&server);
    assert_eq!(stat(&server, "memory_bytes_max"), CEILING as u64);
    // A member of each of its rooms, so that none of them may be removed.
    let mut writer = chat(&server);
    let rooms: Vec<String> = (0..300).map(|room| format!("r{room}")).collect();
    for room in &rooms {
        assert_eq!(writer.ask(&join(room))["type"], "ok");
    }
    // Four times what fits.
    for _ in 0..12 {
        for room in &rooms {
            let answer = writer.ask(&publish(room));
            assert_eq!(answer["type"], "ok", "old messages give way: {answer}");
        }
    }
    let stats = server.stats();
    println!("{stats:#}\npeak {}", server.memory("VmHWM"));
    assert!(stats["history_trimmed"].as_u64().unwrap() > 0, "{stats:#}");
    assert!(server.memory("VmHWM") < CEILING / 10 * 11, "{} bytes", server.memory("VmHWM"));
    assert_eq!(inside.ask(r#"{"type":"ping","ref":1}"#)["type"], "pong");
    eventually("newcomers get in", || match upgrade(&server).0 {
        101 => Ok(()),
        status => Err(format!("{status}: {:#}", server.stats())),
    });
}

#[test]
fn newcomers_wait_and_publishes_are_refused_until_there_is_memory() {
    let server = start(&[
        ("MEMORY_MAX", CEILING_TEXT),
        ("MAX_CONN", "2000"),
        ("MAX_MESSAGE_BYTES", "256KiB"),
        ("QUEUE_TIMEOUT", "0.3"),
    ]);
    let mut inside = chat(&server);
    // A room of its own: those that do not read would be slow with what is published in theirs.
    assert_eq!(inside.ask(&join("own"))["type"], "ok");
    let publish = r#"{"type":"publish","room":"own","content":"x","ref":"p"}"#;
    let mut unfinished: Vec<RawClient> = (0..240).map(|_| deaf(&server)).collect();
    // Those that are silent for a second make space, before the rest below has been seen.
    let (stop, told) = mpsc::channel();
    let sending = thread::spawn(move || {
        send_without_end(&mut unfinished, &told);
        unfinished
    });
    let mut refused = Value::Null;
    eventually("a publish is refused", || {
        refused = inside.ask(publish);
        if refused["type"] == "error" { Ok(()) } else { Err(format!("{:#}", server.stats())) }
    });
    assert_eq!(refused["code"], "overloaded", "{refused}");
    assert!(refused["retry_after_ms"].as_u64().unwrap() > 0, "{refused}");
    assert_eq!(inside.ask(r#"{"type":"ping","ref":1}"#)["type"], "pong");
    // What was refused above may have been so for a moment, before all of it was sent.
    let mut body = String::new();
    eventually("a newcomer waits in vain", || match upgrade(&server) {
        (503, why) => {
            body = why;
            Ok(())
        }
        (status, _) => Err(format!("{status}: {:#}", server.stats())),
    });
    assert!(body.contains(r#""error":"memory""#) && body.contains("retry_after_s"), "{body}");
    stop.send(()).unwrap();
    let _unfinished = sending.join().unwrap();
    eventually("there is memory again", || match inside.ask(publish)["type"] == "ok" {
        true => Ok(()),
        false => Err(format!("{:#}", server.stats())),
    });
    eventually("newcomers get in", || match upgrade(&server).0 {
        101 => Ok(()),
        status => Err(format!("{status}: {:#}", server.stats())),
    });
    let stats = server.stats();
    println!("{stats:#}\npeak {}", server.memory("VmHWM"));
    for figure in ["memory_waits", "memory_refused", "memory_slow_closed"] {
        assert!(stats[figure].as_u64().unwrap() > 0, "{figure}: {stats:#}");
    }
    assert!(stats["rejected"]["memory"].as_u64().unwrap() > 0, "{stats:#}");
    assert!(stats["closed"]["1013"].as_u64().unwrap() > 0, "{stats:#}");
    assert!(server.memory("VmHWM") < CEILING / 10 * 11, "{} bytes", server.memory("VmHWM"));
}

/// Less than all memory is enough to keep newcomers out, but not for long.
#[test]
fn those_that_finish_nothing_do_not_keep_newcomers_out() {
    let server = start(&[
        ("MEMORY_MAX", CEILING_TEXT),
        ("MAX_CONN", "2000"),
        ("MAX_MESSAGE_BYTES", "256KiB"),
    ]);
    let part = frame(0x82, &[7; 256 << 10]);
    let mut idle: Vec<RawClient> = (0..240).map(|_| deaf(&server)).collect();
    let mut unfinished = Vec::new();
    let mut begin = Instant::now();
    // What a byte takes is learnt meanwhile, so that these hold less and less.
    eventually("they hold 86 %, and not less for a second", || {
        let input_bytes = stat(&server, "input_bytes") as usize;
        if input_bytes < unfinished.len() * (part.len() - 100) {
            return Err("not all is read".into());
        }
        if (stat(&server, "memory_bytes") as usize) < CEILING / 100 * 86 {
            let mut client = idle.pop().unwrap();
            client.send(&part[..part.len() - 1]);
            unfinished.push(client);
            begin = Instant::now();
        }
        match begin.elapsed() > Duration::from_secs(1) {
            true => Ok(()),
            false => Err(format!("{:#}", server.stats())),
        }
    });
    let stats = server.stats();
    assert_eq!((&stats["memory_refused"], &stats["memory_slow_closed"]), (&0.into(), &0.into()));
    assert_eq!(upgrade(&server).0, 101, "{:#}", server.stats());
    let stats = server.stats();
    assert!(stats["memory_slow_closed"].as_u64().unwrap() > 0, "{stats:#}");
    assert!(stats["closed"]["1013"].as_u64().unwrap() > 0, "{stats:#}");
}

#[test]
fn those_that_do_not_read_go_before_those_that_do() {
    let server = start(&[
        ("MEMORY_MAX", CEILING_TEXT),
        ("MAX_CONN", "1000"),
        ("BUFFER_BYTES", "4MiB"),
        ("TIMEOUT", "600"),
    ]);
    let mut inside = chat(&server);
    assert_eq!(inside.ask(&join("old"))["type"], "ok");
    for _ in 0..4 {
        assert_eq!(inside.ask(&publish("old"))["type"], "ok");
    }
    // Each asks for 20 pages of 240 KB and reads none: 2 MB wait for it, then it is not read.
    let mut deaf: Vec<RawClient> = (0..60).map(|_| deaf(&server)).collect();
    for client in &mut deaf {
        client.send(&frame(0x81, join("old").as_bytes()));
        let ask = frame(0x81, br#"{"type":"history","room":"old","ref":"h"}"#);
        client.send(&ask.repeat(20));
    }
    eventually("some were closed for memory", || {
        assert_eq!(inside.ask(r#"{"type":"ping","ref":1}"#)["type"], "pong");
        match stat(&server, "memory_slow_closed") {
            0 => Err(format!("{:#}", server.stats())),
            _ => Ok(()),
        }
    });
    eventually("memory is not short any more", || {
        let stats = server.stats();
        let used = stats["memory_bytes"].as_u64().unwrap() as usize;
        if used < CEILING / 100 * 95 { Ok(()) } else { Err(format!("{stats:#}")) }
    });
    let stats = server.stats();
    println!("{stats:#}\npeak {}", server.memory("VmHWM"));
    assert!(stats["closed"]["4102"].as_u64().unwrap() > 0, "{stats:#}");
    assert!(server.memory("VmHWM") < CEILING / 10 * 11, "{} bytes", server.memory("VmHWM"));
    assert_eq!(inside.ask(r#"{"type":"ping","ref":2}"#)["type"], "pong");
}

#[test]
fn buffers_of_the_kernel_count_for_clients_that_do_not_read() {
    let server = start(&[("TIMEOUT", "600")]);
    let mut inside = chat(&server);
    assert_eq!(inside.ask(&join("old"))["type"], "ok");
    for _ in 0..4 {
        assert_eq!(inside.ask(&publish("old"))["type"], "ok");
    }
    // Half of the outbox waits for it, so it is not read.
    let mut reader = RawClient::new(server.socket());
    reader.send(upgrade_head("/ws").as_bytes());
    assert_eq!(reader.answer().status, 101);
    reader.send(&frame(0x81, join("old").as_bytes()));
    reader.send(&frame(0x81, br#"{"type":"history","room":"old","ref":"h"}"#).repeat(20));
    // What the account takes for each socket, the one that asks included, is much less.
    let of_buffers = 256 << 10;
    eventually("they count", || match stat(&server, "socket_bytes") {
        bytes if bytes > of_buffers => Ok(()),
        _ => Err(format!("{:#}", server.stats())),
    });
    reader.stream.set_nonblocking(true).unwrap();
    let mut read = vec![0; 64 << 10];
    eventually("they do not when it has read", || {
        while reader.stream.read(&mut read).is_ok_and(|bytes| bytes > 0) {}
        match stat(&server, "socket_bytes") {
            bytes if bytes < of_buffers / 2 => Ok(()),
            _ => Err(format!("{:#}", server.stats())),
        }
    });
}

#[test]
fn answers_to_http_that_nobody_reads_are_bounded() {
    let server = start(&[("MEMORY_MAX", CEILING_TEXT), ("HANDSHAKE_TIMEOUT", "60")]);
    let before = server.memory("VmRSS");
    let request = b"GET /stats HTTP/1.1\r\nHost: test\r\n\r\n".repeat(1000);
    let sockets: Vec<TcpStream> = (0..100)
        .map(|_| {
            let stream = server.socket();
            socket2::SockRef::from(&stream).set_recv_buffer_size(4096).unwrap();
            stream.set_nonblocking(true).unwrap();
            let _ = (&stream).write(&request);
            stream
        })
        .collect();
    let turns = || stat(&server, "turns");
    eventually("the server has come to rest", || {
        let before = turns();
        thread::park_timeout(Duration::from_millis(200));
        let made = turns() - before;
        // Those of the two requests for `/stats`, and some.
        if made < 50 { Ok(()) } else { Err(format!("{made} turns in 200 ms")) }
    });
    let stats = server.stats();
    println!("{stats:#}");
    let outboxes = stats["outbox_bytes"].as_u64().unwrap();
    assert!(outboxes > 100 << 10, "answers wait: {stats:#}");
    assert!(outboxes < 100 * (160 << 10), "{stats:#}");
    let grown = server.memory("VmHWM") - before;
    assert!(grown < 100 * (400 << 10), "{grown} bytes");
    drop(sockets);
}

#[test]
fn posts_that_do_not_come_to_their_end_go_when_memory_is_short() {
    let server = start(&[
        ("MEMORY_MAX", CEILING_TEXT),
        ("MAX_CONN", "2000"),
        ("MAX_MESSAGE_BYTES", "256KiB"),
        ("HANDSHAKE_TIMEOUT", "60"),
    ]);
    let mut inside = chat(&server);
    // Each says all but the last byte of its body.
    let head = format!("POST /ws HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", 256 << 10);
    let part = [head.as_bytes(), &[b'x'; (256 << 10) - 1]].concat();
    let mut posters: Vec<RawClient> = (0..240).map(|_| RawClient::new(server.socket())).collect();
    for poster in &mut posters {
        poster.send(&part);
    }
    eventually("some are told to come again", || match stat(&server, "posts_refused") {
        0 => Err(format!("{:#}", server.stats())),
        _ => Ok(()),
    });
    eventually("there is memory again", || {
        match &inside.ask(r#"{"type":"publish","content":"x","ref":"p"}"#)["type"] {
            kind if kind == "ok" => Ok(()),
            _ => Err(format!("{:#}", server.stats())),
        }
    });
    assert!(server.memory("VmHWM") < CEILING / 10 * 11, "{} bytes", server.memory("VmHWM"));
    eventually("newcomers get in", || match upgrade(&server).0 {
        101 => Ok(()),
        status => Err(format!("{status}: {:#}", server.stats())),
    });
}
