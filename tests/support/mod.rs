//! A server on a free port, and a blocking client of somebody else's making to talk to it.

// A helper that panics fails its test with a clear message, and not every test file uses every
// helper.
#![allow(clippy::unwrap_used, dead_code, unreachable_pub)]

pub mod backend;
pub mod sessions;

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
        // Tests say as much as they like, unless they are of limits.
        rate_messages: 0,
        rate_bytes: 0,
        rate_rooms: 0,
        // Short, so that what a test leaves behind is gone soon.
        resume_window: Duration::from_millis(200),
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
        try_connect(self.addr, path)
    }

    /// A plain socket to the server, with a deadline on reads.
    pub fn socket(&self) -> TcpStream {
        socket(self.addr)
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

/// What clients can connect to.
pub trait Listens {
    fn addr(&self) -> SocketAddr;
}

impl Listens for TestServer {
    fn addr(&self) -> SocketAddr {
        self.addr
    }
}

impl<L: Listens> Listens for std::sync::Arc<L> {
    fn addr(&self) -> SocketAddr {
        L::addr(self)
    }
}

fn socket(addr: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// Opens a WebSocket to a server.
pub fn try_connect(addr: SocketAddr, path: &str) -> Result<Client, Box<tungstenite::Error>> {
    let stream = socket(addr);
    let url = format!("ws://{addr}{path}");
    match tungstenite::client(url, stream) {
        Ok((socket, response)) => Ok(Client { socket, response, welcome: Value::Null }),
        Err(tungstenite::HandshakeError::Failure(error)) => Err(Box::new(error)),
        Err(tungstenite::HandshakeError::Interrupted(_)) => panic!("no answer in time"),
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
            match self.socket.read() {
                Ok(Message::Ping(_) | Message::Pong(_)) => {}
                // A read with a deadline is not begun again by the system when a signal has come.
                Err(tungstenite::Error::Io(error))
                    if error.kind() == std::io::ErrorKind::Interrupted => {}
                message => return message.unwrap(),
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

/// The head of a proper upgrade request.
pub fn upgrade_head(path: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
}

/// A client's frame with any first byte, legal or not, masked as a client must.
pub fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [0x12, 0x34, 0x56, 0x78];
    let mut frame = vec![first];
    match payload.len() {
        len @ 0..=125 => frame.push(0x80 | len as u8),
        len @ 126..=65_535 => {
            frame.push(0x80 | 126);
            frame.extend_from_slice(&(len as u16).to_be_bytes());
        }
        len => {
            frame.push(0x80 | 127);
            frame.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(&MASK);
    frame.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

/// A client's Close frame.
pub fn close_frame(code: u16) -> Vec<u8> {
    frame(0x88, &code.to_be_bytes())
}

/// A client that says what it likes, byte by byte, and looks at the bytes that come back.
pub struct RawClient {
    pub stream: TcpStream,
    unread: Vec<u8>,
}

/// An HTTP answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Answer {
    /// The value of a header, by its name in any case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (other, value) = line.split_once(':')?;
            other.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    /// The body, which is JSON in every answer of this server.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

impl TestServer {
    /// A socket with nothing said yet.
    pub fn raw_client(&self) -> RawClient {
        RawClient::new(self.socket())
    }

    /// A raw client that has been served.
    pub fn upgrade(&self, path: &str) -> RawClient {
        let mut client = self.raw_client();
        client.send(upgrade_head(path).as_bytes());
        let answer = client.answer();
        assert_eq!(answer.status, 101, "{answer:?}");
        client
    }

    /// Waits until `check` holds of the server's figures.
    pub fn wait_for(&self, what: &str, mut check: impl FnMut(&Snapshot) -> bool) {
        eventually(what, || {
            let stats = self.stats();
            if check(&stats) { Ok(()) } else { Err(format!("{stats:?}")) }
        });
    }

    /// How many WebSocket connections ended with `code`.
    pub fn closed_with(&self, code: u16) -> u64 {
        self.stats().closed.get(&code.to_string()).copied().unwrap_or(0)
    }
}

impl RawClient {
    pub fn new(stream: TcpStream) -> RawClient {
        RawClient { stream, unread: Vec::new() }
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// Reads once more; `false` at the end. A reset fails the test: it may have destroyed an
    /// answer.
    fn more(&mut self) -> bool {
        let mut buffer = [0; 16 << 10];
        match self.stream.read(&mut buffer) {
            Ok(n) => {
                self.unread.extend_from_slice(&buffer[..n]);
                n > 0
            }
            Err(error) => panic!("{error}; unread: {:?}", String::from_utf8_lossy(&self.unread)),
        }
    }

    /// Exactly the next `n` bytes.
    pub fn take(&mut self, n: usize) -> Vec<u8> {
        while self.unread.len() < n {
            assert!(self.more(), "the end came inside of something: {:?}", self.unread);
        }
        self.unread.drain(..n).collect()
    }

    /// The next answer's head, with nothing behind it.
    pub fn answer_head(&mut self) -> Answer {
        let end = loop {
            let found = self.unread.windows(4).position(|four| four == b"\r\n\r\n");
            match found {
                Some(at) => break at + 4,
                None => assert!(self.more(), "the end came instead of an answer"),
            }
        };
        let head = String::from_utf8(self.take(end)).unwrap();
        let status = head.get(9..12).and_then(|status| status.parse().ok());
        Answer { status: status.unwrap_or_else(|| panic!("{head}")), head, body: String::new() }
    }

    /// The next answer, with as much of a body as it says.
    pub fn answer(&mut self) -> Answer {
        let mut answer = self.answer_head();
        self.read_body(&mut answer);
        answer
    }

    /// Reads as much of a body as the head says.
    pub fn read_body(&mut self, answer: &mut Answer) {
        let length = answer.header("Content-Length").map_or(0, |length| length.parse().unwrap());
        answer.body = String::from_utf8(self.take(length)).unwrap();
    }

    /// The next frame: its first byte and its payload. `None` when the server has ended the
    /// connection.
    pub fn frame(&mut self) -> Option<(u8, Vec<u8>)> {
        while self.unread.is_empty() {
            if !self.more() {
                return None;
            }
        }
        let head = self.take(2);
        let length = match head[1] {
            126 => {
                let length = self.take(2);
                usize::from(u16::from_be_bytes([length[0], length[1]]))
            }
            127 => {
                let length: [u8; 8] = self.take(8).try_into().unwrap();
                u64::from_be_bytes(length) as usize
            }
            length => usize::from(length),
        };
        Some((head[0], self.take(length)))
    }

    /// The next text frame's text.
    pub fn text(&mut self) -> String {
        match self.frame() {
            Some((0x81, payload)) => String::from_utf8(payload).unwrap(),
            other => panic!("no text: {other:?}"),
        }
    }

    /// Passes over frames until the Close, and returns its code; 1005 if it has none.
    pub fn close_code(&mut self) -> u16 {
        loop {
            match self.frame() {
                Some((0x88, payload)) if payload.is_empty() => return 1005,
                Some((0x88, payload)) => return u16::from_be_bytes([payload[0], payload[1]]),
                Some(_) => {}
                None => panic!("the connection ended without a Close"),
            }
        }
    }

    /// Expects the server to end the connection in order, with nothing more to say.
    pub fn expect_end(&mut self) {
        while self.more() {}
        assert!(self.unread.is_empty(), "{:?}", String::from_utf8_lossy(&self.unread));
    }

    /// Ends the connection with a reset.
    pub fn reset(self) {
        socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO)).unwrap();
    }
}

/// A small generator of numbers for random tests. Its seed is printed, and a failing test shows it.
pub struct Random(u64);

impl Random {
    pub fn seeded() -> Random {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        Random::from_seed(since.as_nanos() as u64)
    }

    pub fn from_seed(seed: u64) -> Random {
        println!("seed {seed}");
        Random(seed | 1)
    }

    /// A number below `end` (xorshift64).
    pub fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % end as u64) as usize
    }
}

/// A server with one worker that can be kept busy, with `/echo` beside: whatever clients do
/// meanwhile, it learns of all at once.
pub struct BusyServer {
    server: TestServer,
    begun: std::sync::Mutex<std::sync::mpsc::Receiver<std::sync::mpsc::Sender<()>>>,
}

/// Keeps the worker busy until [`release`](Occupied::release).
pub struct Occupied {
    client: Client,
    release: std::sync::mpsc::Sender<()>,
}

impl BusyServer {
    pub fn start(config: Config) -> BusyServer {
        use rusty_socks::{Context, Message as Incoming};
        use std::sync::{Mutex, mpsc};

        let (begin, begun) = mpsc::channel();
        let begin = Mutex::new(begin);
        let busy = move |_: &mut Context<'_, ()>, _: Incoming<'_>| {
            let (release, released) = mpsc::channel();
            begin.lock().unwrap().send(release).unwrap();
            let _ = released.recv();
        };
        let echo = |ctx: &mut Context<'_, ()>, message: Incoming<'_>| {
            ctx.send(message);
        };
        let config = Config { thread_pool_size: 1, ..config };
        let builder = Server::builder().config(config).route("/busy", busy).route("/echo", echo);
        let server = TestServer::run(builder.bind().unwrap());
        BusyServer { server, begun: Mutex::new(begun) }
    }

    /// Connects a client that will occupy the worker; it takes a permit.
    pub fn blocker(&self) -> Client {
        self.connect("/busy")
    }

    /// Returns once the worker is busy with a message of `client`.
    pub fn occupy(&self, mut client: Client) -> Occupied {
        client.send("now");
        self.until_occupied(client)
    }

    /// The same when the message was sent before.
    pub fn until_occupied(&self, client: Client) -> Occupied {
        let release = self.begun.lock().unwrap().recv_timeout(DEADLINE).unwrap();
        Occupied { client, release }
    }
}

impl Occupied {
    pub fn release(self) -> Client {
        drop(self.release);
        self.client
    }
}

impl std::ops::Deref for BusyServer {
    type Target = TestServer;

    fn deref(&self) -> &TestServer {
        &self.server
    }
}
