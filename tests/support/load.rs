//! Runs of `rusty_socks load`, and the small scripted servers that they are made against.
//!
//! The servers speak no Rusty Socks code, so that the load test is tried as what it claims to be: a
//! client of any server.

#![allow(clippy::unwrap_used, dead_code, unreachable_pub)]

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use serde_json::Value;
use tungstenite::{Message, WebSocket, handshake::derive_accept_key, protocol::Role};

/// No run takes more than a few seconds; one that takes this long hangs.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// An upgrade request that has arrived, and what a script may do about it.
pub struct Upgrade {
    pub stream: TcpStream,
    /// The whole request head.
    pub head: String,
}

impl Upgrade {
    fn read(mut stream: TcpStream) -> Option<Upgrade> {
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") {
            stream.read_exact(&mut byte).ok()?;
            head.push(byte[0]);
        }
        Some(Upgrade { stream, head: String::from_utf8(head).unwrap() })
    }

    pub fn header(&self, wanted: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, value)| value)
    }

    /// Says what is given, word for word.
    pub fn answer(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).unwrap();
    }

    /// Upgrades, with `extra` header lines.
    pub fn accept(mut self, extra: &str) -> WebSocket<TcpStream> {
        let key = self.header("Sec-WebSocket-Key").expect("an upgrade has a key").to_owned();
        self.answer(&format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {}\r\n{extra}\r\n",
            derive_accept_key(key.as_bytes())
        ));
        self.stream.set_nodelay(true).unwrap();
        WebSocket::from_raw_socket(self.stream, Role::Server, None)
    }

    pub fn reject(mut self, status: &str, extra: &str) {
        self.answer(&format!("HTTP/1.1 {status}\r\n{extra}Content-Length: 0\r\n\r\n"));
    }
}

/// A server that does with the n-th upgrade (from 0) what the script says, each on its own thread.
/// `stats` is its body for `/stats`, or it has none.
pub fn serve(
    stats: Option<&'static str>,
    script: impl Fn(usize, Upgrade) + Send + Sync + 'static,
) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let script = Arc::new(script);
    let upgrades = Arc::new(AtomicUsize::new(0));
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let (script, upgrades) = (Arc::clone(&script), Arc::clone(&upgrades));
            thread::spawn(move || {
                let Some(mut upgrade) = Upgrade::read(stream) else { return };
                if upgrade.head.starts_with("GET /stats ") {
                    match stats {
                        None => upgrade.reject("404 Not Found", ""),
                        Some(body) => upgrade.answer(&format!(
                            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}",
                            body.len()
                        )),
                    }
                } else {
                    script(upgrades.fetch_add(1, Ordering::SeqCst), upgrade);
                }
            });
        }
    });
    address
}

/// Echoes until the client is gone, with `before` called ahead of each answer; tungstenite answers
/// the Close by itself.
pub fn echo_after(mut socket: WebSocket<TcpStream>, before: impl Fn(u64)) {
    let mut count = 0;
    while let Ok(message) = socket.read() {
        if matches!(message, Message::Text(_) | Message::Binary(_)) {
            before(count);
            count += 1;
            if socket.send(message).is_err() {
                return;
            }
        }
    }
}

pub fn echo(socket: WebSocket<TcpStream>) {
    echo_after(socket, |_| {});
}

/// What a run came to.
pub struct Outcome {
    pub code: Option<i32>,
    pub figures: Value,
    pub stderr: String,
}

impl Outcome {
    /// A figure, by its path in the JSON.
    pub fn at(&self, path: &str) -> &Value {
        self.figures
            .pointer(path)
            .unwrap_or_else(|| panic!("no {path} in {:#}; it said: {}", self.figures, self.stderr))
    }

    pub fn count(&self, path: &str) -> u64 {
        self.at(path).as_u64().unwrap_or_else(|| panic!("{path}: {}", self.at(path)))
    }

    pub fn number(&self, path: &str) -> f64 {
        self.at(path).as_f64().unwrap_or_else(|| panic!("{path}: {}", self.at(path)))
    }
}

/// Starts the real binary; `line` is what stands behind `load`.
pub fn start(line: &str) -> Child {
    Command::new(env!("CARGO_BIN_EXE_rusty_socks"))
        .arg("load")
        .args(line.split_whitespace())
        .arg("--json")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Waits for the end, which must come before the deadline.
pub fn outcome_of(mut child: Child) -> Outcome {
    let stderr = in_background(child.stderr.take().unwrap());
    let stdout = in_background(child.stdout.take().unwrap());
    let Ok(stdout) = stdout.recv_timeout(DEADLINE) else {
        child.kill().unwrap();
        panic!("no end within {DEADLINE:?}; it said: {}", stderr.recv().unwrap());
    };
    Outcome {
        code: child.wait().unwrap().code(),
        figures: serde_json::from_str(&stdout).unwrap_or_default(),
        stderr: stderr.recv_timeout(DEADLINE).unwrap(),
    }
}

/// Everything a pipe will say, once it is closed.
fn in_background(mut pipe: impl Read + Send + 'static) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut text = String::new();
        pipe.read_to_string(&mut text).unwrap();
        sender.send(text)
    });
    receiver
}
