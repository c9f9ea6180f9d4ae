//! A server on a free port, and a blocking client of somebody else's making to talk to it.

// A helper that panics fails its test with a clear message, and not every test file uses every helper.
#![allow(clippy::unwrap_used, dead_code, unreachable_pub)]

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use rusty_socks::{Config, Server, ServerHandle, Snapshot};
use serde_json::Value;
use tungstenite::{Message, WebSocket, protocol::CloseFrame};

/// How long anything may take before a test calls it broken. Generous, because machines are busy.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// A configuration for tests: loopback, a free port, a few threads.
pub fn config() -> Config {
    Config {
        host: "127.0.0.1".into(),
        port: 0,
        thread_pool_size: 2,
        echo: true,
        ..Config::default()
    }
}

/// A running server, stopped when the test lets go of it.
pub struct TestServer {
    pub addr: SocketAddr,
    pub handle: ServerHandle,
}

impl TestServer {
    /// The shipped server: `/ws` and `/echo`.
    pub fn start(config: Config) -> TestServer {
        TestServer::run(rusty_socks::chat::server(config).unwrap())
    }

    /// Any server.
    pub fn run(server: Server) -> TestServer {
        let addr = server.local_addr();
        TestServer { addr, handle: server.spawn().unwrap() }
    }

    pub fn stats(&self) -> Snapshot {
        self.handle.stats()
    }

    /// Connects to `path` and expects to be served.
    pub fn connect(&self, path: &str) -> Client {
        self.try_connect(path).unwrap_or_else(|error| panic!("{path} was refused: {error}"))
    }

    /// Connects to the chat route and takes the welcome.
    pub fn chat(&self) -> Client {
        let mut client = self.connect("/ws");
        let welcome = client.json();
        assert_eq!(welcome["type"], "welcome", "{welcome}");
        client.welcome = welcome;
        client
    }

    pub fn try_connect(&self, path: &str) -> Result<Client, Box<tungstenite::Error>> {
        let stream = self.socket();
        let url = format!("ws://{}{path}", self.addr);
        match tungstenite::client(url, stream) {
            Ok((socket, response)) => Ok(Client { socket, response, welcome: Value::Null }),
            Err(tungstenite::HandshakeError::Failure(error)) => Err(Box::new(error)),
            Err(tungstenite::HandshakeError::Interrupted(_)) => panic!("no answer in time"),
        }
    }

    /// A plain socket to the server, with a deadline on reads.
    pub fn socket(&self) -> TcpStream {
        let stream = TcpStream::connect(self.addr).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.set_nodelay(true).unwrap();
        stream
    }

    /// Sends `request` and reads until the server ends the connection.
    pub fn raw(&self, request: &[u8]) -> String {
        let mut stream = self.socket();
        stream.write_all(request).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// `GET path`, and the status and body of the answer.
    pub fn get(&self, path: &str) -> (u16, String) {
        let head = format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
        let answer = self.raw(head.as_bytes());
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head[9..12].parse().unwrap(), body.to_owned())
    }

    /// Waits until nothing is left of any connection: every gauge at zero.
    pub fn wait_until_empty(&self) {
        eventually("every gauge is back at zero", || {
            let stats = self.stats();
            let left = stats.active_connections
                + stats.queued
                + stats.sockets
                + stats.pending_heads
                + stats.lingering
                + stats.sessions;
            if left == 0 { Ok(()) } else { Err(format!("{stats:?}")) }
        });
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.handle.shutdown(Duration::from_secs(1));
        self.handle.join();
    }
}

/// A WebSocket client.
pub struct Client {
    pub socket: WebSocket<TcpStream>,
    pub response: tungstenite::handshake::client::Response,
    pub welcome: Value,
}

impl Client {
    pub fn send(&mut self, text: impl Into<String>) {
        self.socket.send(Message::text(text.into())).unwrap();
    }

    /// The next message that is not a ping or pong.
    pub fn next(&mut self) -> Message {
        loop {
            match self.socket.read().unwrap() {
                Message::Ping(_) | Message::Pong(_) => {}
                message => return message,
            }
        }
    }

    /// The next message, as JSON.
    pub fn json(&mut self) -> Value {
        let message = self.next();
        serde_json::from_str(message.to_text().unwrap()).unwrap()
    }

    /// Sends a command with a `ref` and returns its answer, passing over room messages on the way.
    pub fn ask(&mut self, command: &str) -> Value {
        self.send(command);
        loop {
            let answer = self.json();
            if answer["type"] != "message" {
                return answer;
            }
        }
    }

    /// Reads until the server's Close, and returns it.
    pub fn closed(&mut self) -> Option<CloseFrame> {
        loop {
            match self.socket.read() {
                Ok(Message::Close(frame)) => return frame,
                Ok(_) => {}
                Err(error) => panic!("the connection ended without a Close: {error}"),
            }
        }
    }

    /// Closes politely and waits for the end.
    pub fn close(mut self) {
        self.socket.close(None).unwrap();
        while self.socket.read().is_ok() {}
    }
}

/// Waits until `check` holds, and fails with its last complaint when the deadline has passed.
pub fn eventually(what: &str, mut check: impl FnMut() -> Result<(), String>) {
    let end = Instant::now() + DEADLINE;
    loop {
        match check() {
            Ok(()) => return,
            Err(complaint) if Instant::now() > end => panic!("not in time: {what}: {complaint}"),
            Err(_) => std::thread::park_timeout(Duration::from_millis(2)),
        }
    }
}
