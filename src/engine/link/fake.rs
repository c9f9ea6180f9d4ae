//! A server that speaks the protocol of Redis and says what a test wants, for what a real one does
//! only on bad days.

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use parking_lot::Mutex;

use super::{order::Value, wire::Replies};

/// What is answered to a command: `None` is the usual answer, an empty one is silence.
type Script = dyn Fn(&[String]) -> Option<String> + Send + Sync;

/// How many bytes of an answer are sent at a time.
const PART_BYTES: usize = 5;

/// A server that says what a test wants, until it is dropped.
pub(super) struct Fake {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    script: Box<Script>,
    heard: Mutex<Vec<Vec<String>>>,
    sockets: Mutex<Vec<TcpStream>>,
    has_ended: AtomicBool,
}

impl Fake {
    pub(super) fn start(
        script: impl Fn(&[String]) -> Option<String> + Send + Sync + 'static,
    ) -> Fake {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let shared = Arc::new(Shared {
            script: Box::new(script),
            heard: Mutex::default(),
            sockets: Mutex::default(),
            has_ended: AtomicBool::new(false),
        });
        let of_thread = Arc::clone(&shared);
        thread::spawn(move || {
            for socket in listener.incoming() {
                let (socket, shared) = (socket.expect("a socket"), Arc::clone(&of_thread));
                if shared.has_ended.load(Ordering::Relaxed) {
                    return;
                }
                shared.sockets.lock().push(socket.try_clone().expect("a socket"));
                thread::spawn(move || shared.serve(socket));
            }
        });
        Fake { address, shared }
    }

    pub(super) fn port(&self) -> u16 {
        self.address.port()
    }

    /// Returns what it was told since the last call, on all connections.
    pub(super) fn heard(&self) -> Vec<Vec<String>> {
        std::mem::take(&mut self.shared.heard.lock())
    }

    /// Says something on all connections that nobody asked.
    pub(super) fn say(&self, text: &str) {
        for mut socket in self.shared.sockets.lock().iter() {
            let _ = socket.write_all(text.as_bytes());
        }
    }

    pub(super) fn hang_up(&self) {
        for socket in self.shared.sockets.lock().drain(..) {
            let _ = socket.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.shared.has_ended.store(true, Ordering::Relaxed);
        self.hang_up();
        let _ = TcpStream::connect(self.address);
    }
}

impl Shared {
    fn serve(&self, mut socket: TcpStream) {
        let _ = socket.set_nodelay(true);
        let (mut commands, mut read) = (Replies::default(), [0; 4096]);
        while let Ok(count) = socket.read(&mut read)
            && count > 0
        {
            commands.push(&read[..count]);
            let mut answers = String::new();
            while let Some(command) = commands.next().expect("commands") {
                let Ok(Value::List(parts)) = command else { panic!("{command:?} is no command") };
                let parts: Vec<String> = parts.iter().map(text).collect();
                answers += &(self.script)(&parts).unwrap_or_else(|| usual(&parts));
                self.heard.lock().push(parts);
            }
            for part in answers.as_bytes().chunks(PART_BYTES) {
                if socket.write_all(part).is_err() {
                    return;
                }
            }
        }
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        other => panic!("{other:?} in a command"),
    }
}

/// What a primary answers.
fn usual(command: &[String]) -> String {
    let parts: Vec<&str> = command.iter().map(String::as_str).collect();
    match parts.as_slice() {
        ["INFO", "replication"] => bulk("# Replication\r\nrole:master\r\n"),
        ["INFO", _] => bulk("redis_version:7.0.15\r\nrun_id:abc\r\n"),
        ["SCRIPT", "LOAD", text] => bulk(&format!("hash of {text}")),
        ["SUBSCRIBE", channels @ ..] => {
            let confirmed =
                |channel: &&str| format!("*3\r\n{}{}:1\r\n", bulk("subscribe"), bulk(channel));
            channels.iter().map(confirmed).collect()
        }
        ["ECHO", text] => bulk(text),
        ["CLIENT", "ID"] => ":7\r\n".to_owned(),
        ["TIME"] => format!("*2\r\n{}{}", bulk("1"), bulk("2000")),
        _ => "+OK\r\n".to_owned(),
    }
}

pub(super) fn bulk(text: &str) -> String {
    format!("${}\r\n{text}\r\n", text.len())
}
