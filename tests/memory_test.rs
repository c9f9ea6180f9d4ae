//! The ceiling of memory: what happens to newcomers, to those inside and to the process.

// A program's memory is told on Linux alone.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]

mod support;

use std::{
    env, fs,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use serde_json::Value;
use support::{Client, DEADLINE, RawClient, eventually, frame, upgrade_head};

/// The program, whose memory is its own.
struct Program {
    child: Child,
    address: SocketAddr,
}

impl Program {
    fn start(settings: &[(&str, &str)]) -> Program {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rusty_socks"));
        for (name, _) in env::vars_os() {
            if name.to_string_lossy().starts_with("RUSTY_SOCKS_") || name == "RUST_LOG" {
                command.env_remove(name);
            }
        }
        // Rates would slow down what these tests are about.
        for (name, value) in [("RATE_MESSAGES", "0"), ("RATE_BYTES", "0")].iter().chain(settings) {
            command.env(format!("RUSTY_SOCKS_{name}"), value);
        }
        command.args(["--host", "127.0.0.1", "--port", "0"]);
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let address = loop {
            let line = lines.next().expect("it says where it listens").unwrap();
            if let Some((_, rest)) = line.split_once("listens on ") {
                break rest.split_once(": ").unwrap().0.parse().unwrap();
            }
        };
        thread::spawn(move || lines.for_each(drop));
        Program { child, address }
    }

    fn socket(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream
    }

    /// A client of the chat, which has its welcome.
    fn chat(&self) -> Client {
        let url = format!("ws://{}/ws", self.address);
        let (socket, response) = tungstenite::client(url, self.socket()).unwrap();
        let mut client = Client { socket, response, welcome: Value::Null };
        client.welcome = client.json();
        client
    }

    /// A chat client that never reads, and whose own kernel keeps little for it.
    fn deaf(&self) -> RawClient {
        let stream = self.socket();
        socket2::SockRef::from(&stream).set_recv_buffer_size(4096).unwrap();
        let mut client = RawClient::new(stream);
        client.send(upgrade_head("/ws").as_bytes());
        assert_eq!(client.answer().status, 101);
        client
    }

    /// One upgrade, and the status and body of its answer.
    fn upgrade(&self) -> (u16, String) {
        let mut client = RawClient::new(self.socket());
        client.send(upgrade_head("/ws").as_bytes());
        let answer = client.answer();
        (answer.status, answer.body)
    }

    fn stats(&self) -> Value {
        let mut stream = self.socket();
        let request = b"GET /stats HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n";
        stream.write_all(request).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap()
    }

    fn stat(&self, name: &str) -> u64 {
        self.stats()[name].as_u64().unwrap_or_else(|| panic!("{name} is a number"))
    }

    /// Resident memory in bytes: `VmRSS` as it is now, `VmHWM` at its peak.
    fn memory(&self, which: &str) -> usize {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with(which)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() << 10
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
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
    let server = Program::start(&[("MEMORY_MAX", CEILING_TEXT), ("MAX_ROOMS_PER_CONN", "1000")]);
    let mut inside = server.chat();
    assert_eq!(server.stat("memory_bytes_max"), CEILING as u64);
    // A member of each of its rooms, so that none of them may be removed.
    let mut writer = server.chat();
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
    eventually("newcomers get in", || match server.upgrade().0 {
        101 => Ok(()),
        status => Err(format!("{status}: {:#}", server.stats())),
    });
}

#[test]
fn newcomers_wait_and_publishes_are_refused_until_there_is_memory() {
    let server = Program::start(&[
        ("MEMORY_MAX", CEILING_TEXT),
        ("MAX_CONN", "2000"),
        ("MAX_MESSAGE_BYTES", "256KiB"),
        ("QUEUE_TIMEOUT", "0.3"),
    ]);
    let mut inside = server.chat();
    // Each sends all but the last byte of a message.
    let part = frame(0x82, &[7; 256 << 10]);
    let mut unfinished: Vec<RawClient> = (0..240).map(|_| server.deaf()).collect();
    for client in &mut unfinished {
        client.send(&part[..part.len() - 1]);
    }
    let mut refused = Value::Null;
    eventually("a publish is refused", || {
        refused = inside.ask(r#"{"type":"publish","content":"x","ref":"p"}"#);
        if refused["type"] == "error" { Ok(()) } else { Err(format!("{:#}", server.stats())) }
    });
    assert_eq!(refused["code"], "overloaded", "{refused}");
    assert!(refused["retry_after_ms"].as_u64().unwrap() > 0, "{refused}");
    assert_eq!(inside.ask(r#"{"type":"ping","ref":1}"#)["type"], "pong");
    let (status, body) = server.upgrade();
    assert_eq!(status, 503, "{:#}", server.stats());
    assert!(body.contains(r#""error":"memory""#) && body.contains("retry_after_s"), "{body}");
    eventually("there is memory again", || {
        match inside.ask(r#"{"type":"publish","content":"x","ref":"p"}"#)["type"] == "ok" {
            true => Ok(()),
            false => Err(format!("{:#}", server.stats())),
        }
    });
    eventually("newcomers get in", || match server.upgrade().0 {
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

#[test]
fn those_that_do_not_read_go_before_those_that_do() {
    let server = Program::start(&[
        ("MEMORY_MAX", CEILING_TEXT),
        ("MAX_CONN", "1000"),
        ("BUFFER_BYTES", "4MiB"),
        ("TIMEOUT", "600"),
    ]);
    let mut inside = server.chat();
    assert_eq!(inside.ask(&join("old"))["type"], "ok");
    for _ in 0..4 {
        assert_eq!(inside.ask(&publish("old"))["type"], "ok");
    }
    // Each asks for 20 pages of 240 KB and reads none: 2 MB wait for it, then it is not read.
    let mut deaf: Vec<RawClient> = (0..60).map(|_| server.deaf()).collect();
    for client in &mut deaf {
        client.send(&frame(0x81, join("old").as_bytes()));
        let ask = frame(0x81, br#"{"type":"history","room":"old","ref":"h"}"#);
        client.send(&ask.repeat(20));
    }
    eventually("some were closed for memory", || {
        assert_eq!(inside.ask(r#"{"type":"ping","ref":1}"#)["type"], "pong");
        match server.stat("memory_slow_closed") {
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
    let server = Program::start(&[("TIMEOUT", "600")]);
    let mut inside = server.chat();
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
    eventually("they count", || match server.stat("socket_bytes") {
        bytes if bytes > of_buffers => Ok(()),
        _ => Err(format!("{:#}", server.stats())),
    });
    reader.stream.set_nonblocking(true).unwrap();
    let mut read = vec![0; 64 << 10];
    eventually("they do not when it has read", || {
        while reader.stream.read(&mut read).is_ok_and(|bytes| bytes > 0) {}
        match server.stat("socket_bytes") {
            bytes if bytes < of_buffers / 2 => Ok(()),
            _ => Err(format!("{:#}", server.stats())),
        }
    });
}

#[test]
fn answers_to_http_that_nobody_reads_are_bounded() {
    let server = Program::start(&[("MEMORY_MAX", CEILING_TEXT), ("HANDSHAKE_TIMEOUT", "60")]);
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
    let turns = || server.stat("turns");
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
