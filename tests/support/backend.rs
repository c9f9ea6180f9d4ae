//! A small HTTP server in the place of an operator's backend.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
};

use crossbeam_channel::Receiver;
use serde_json::Value;

use super::DEADLINE;

/// A request that the backend got.
#[derive(Debug, Clone)]
pub struct Asked {
    pub path: String,
    pub signature: Option<String>,
    pub text: String,
    /// `null` where there was none.
    pub body: Value,
}

/// A backend whose answers a closure gives, each on a thread of its own.
pub struct Backend {
    pub addr: SocketAddr,
    asked: Receiver<Asked>,
    count: Arc<AtomicUsize>,
    stopping: Arc<AtomicBool>,
}

impl Backend {
    /// `answer` gives the whole answer, from the status line on; an empty one ends the connection.
    pub fn start(answer: impl Fn(&Asked) -> String + Send + Sync + 'static) -> Backend {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let (sender, asked) = crossbeam_channel::unbounded();
        let count = Arc::new(AtomicUsize::new(0));
        let counting = Arc::clone(&count);
        let stopping = Arc::new(AtomicBool::new(false));
        let (stop, answer) = (Arc::clone(&stopping), Arc::new(answer));
        thread::spawn(move || {
            for stream in listener.incoming() {
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                let (Ok(stream), sender, answer) = (stream, sender.clone(), Arc::clone(&answer))
                else {
                    continue;
                };
                let count = Arc::clone(&counting);
                thread::spawn(move || {
                    let Some(asked) = read(&stream) else { return };
                    count.fetch_add(1, Ordering::SeqCst);
                    let _ = sender.send(asked.clone());
                    let _ = (&stream).write_all(answer(&asked).as_bytes());
                });
            }
        });
        Backend { addr, asked, count, stopping }
    }

    pub fn url(&self) -> String {
        format!("http://{}/hook", self.addr)
    }

    /// The next request.
    pub fn next(&self) -> Asked {
        self.asked.recv_timeout(DEADLINE).expect("the backend is asked")
    }

    /// How many requests came.
    pub fn asked_so_far(&self) -> usize {
        self.count.load(Ordering::SeqCst)
    }

    /// How many requests came that were not looked at.
    pub fn unseen(&self) -> usize {
        self.asked.len()
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.addr);
    }
}

/// An answer with a JSON body.
pub fn json(body: &str) -> String {
    with_status("200 OK", body)
}

/// An answer with a status, such as `500 Internal Server Error`.
pub fn with_status(status: &str, body: &str) -> String {
    let len = body.len();
    format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {len}\r\n\r\n{body}")
}

fn read(stream: &TcpStream) -> Option<Asked> {
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let path = line.split(' ').nth(1)?.to_owned();
    let (mut len, mut signature) = (0, None);
    loop {
        line.clear();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.split_once(':') else { break };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => len = value.trim().parse().ok()?,
            "rusty-socks-signature" => signature = Some(value.trim().to_owned()),
            _ => {}
        }
    }
    let mut body = vec![0; len];
    reader.read_exact(&mut body).ok()?;
    let text = String::from_utf8(body).ok()?;
    let body = match text.as_str() {
        "" => Value::Null,
        text => serde_json::from_str(text).ok()?,
    };
    Some(Asked { path, signature, body, text })
}
