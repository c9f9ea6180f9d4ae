//! A client without a WebSocket: it reads server-sent events, and posts.

#![allow(clippy::unwrap_used, dead_code, unreachable_pub)]

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
};

use serde_json::{Value, json};

use crate::support::{Answer, DEADLINE, Listens, RawClient};

/// The client's end of an event stream.
pub struct Stream {
    /// Where it posts.
    pub server: SocketAddr,
    path: String,
    socket: BufReader<TcpStream>,
    pub head: String,
    pub key: String,
    pub posts: u64,
    pub padding: usize,
}

/// A request for one, with more header lines.
pub fn request(path: &str, lines: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: test\r\nAccept: text/event-stream\r\n{lines}\r\n")
}

impl Stream {
    pub fn open(server: &impl Listens) -> Stream {
        Stream::open_with(server, &request("/ws", ""))
    }

    /// Opens one that is served.
    pub fn open_with(server: &impl Listens, request: &str) -> Stream {
        let mut stream = Stream::ask(server, request);
        assert!(stream.head.starts_with("HTTP/1.1 200"), "{}", stream.head);
        let (name, data) = stream.event();
        assert_eq!(name, "connection", "{data}");
        stream.key = data["connection"].as_str().unwrap().to_owned();
        stream
    }

    /// Sends a request and reads the head of its answer.
    pub fn ask(server: &impl Listens, request: &str) -> Stream {
        let mut stream = TcpStream::connect(server.addr()).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut socket = BufReader::new(stream);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert_ne!(socket.read_line(&mut head).unwrap(), 0, "{head}");
        }
        let path = request.split(' ').nth(1).unwrap().to_owned();
        Stream {
            server: server.addr(),
            path,
            socket,
            head,
            key: String::new(),
            posts: 0,
            padding: 0,
        }
    }

    /// The next event: its name, and its data as JSON.
    pub fn event(&mut self) -> (String, Value) {
        let (name, data) = self.text();
        (name, serde_json::from_str(&data).unwrap_or_else(|error| panic!("{error}: {data}")))
    }

    pub fn text(&mut self) -> (String, String) {
        let (mut name, mut data) = (String::new(), Vec::new());
        loop {
            let mut line = String::new();
            assert_ne!(self.socket.read_line(&mut line).unwrap(), 0, "the stream ended");
            match line.trim_end_matches('\n') {
                "" if data.is_empty() => {}
                "" => return (name, data.join("\n")),
                comment if comment.starts_with(':') => self.padding += comment.len() - 1,
                line => match line.split_once(": ").unwrap() {
                    ("event", value) => value.clone_into(&mut name),
                    ("data", value) => data.push(value.to_owned()),
                    other => panic!("{other:?}"),
                },
            }
        }
    }

    /// The next message.
    pub fn message(&mut self) -> Value {
        loop {
            match self.event() {
                (name, message) if name.is_empty() => return message,
                (name, data) => assert_eq!(name, "ping", "{data}"),
            }
        }
    }

    /// What is behind the last event.
    pub fn rest(mut self) -> String {
        let mut rest = String::new();
        self.socket.read_to_string(&mut rest).unwrap();
        rest
    }

    pub fn opening(&self, post: u64) -> Value {
        json!({ "connection": self.key, "post": post })
    }

    /// Posts these messages, and expects that they are handled.
    pub fn post(&mut self, messages: &[&str]) {
        self.posts += 1;
        let answer = self.post_as(&self.opening(self.posts), messages);
        assert_eq!((answer.status, answer.body.as_str()), (204, ""), "{answer:?}");
        assert_eq!(answer.header("Content-Length"), None, "{answer:?}");
    }

    pub fn post_as(&self, opening: &Value, messages: &[&str]) -> Answer {
        self.post_body(&format!("{opening}\n{}\n", messages.join("\n")))
    }

    pub fn post_body(&self, body: &str) -> Answer {
        let mut poster = self.poster();
        poster.send(self.request_of(body).as_bytes());
        poster.answer()
    }

    pub fn poster(&self) -> RawClient {
        let stream = TcpStream::connect(self.server).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        RawClient::new(stream)
    }

    pub fn request_of(&self, body: &str) -> String {
        let (path, len) = (&self.path, body.len());
        format!("POST {path} HTTP/1.1\r\nHost: test\r\nContent-Length: {len}\r\n\r\n{body}")
    }

    /// Sends a command and returns its answer.
    pub fn command(&mut self, command: &str) -> Value {
        self.post(&[command]);
        loop {
            let answer = self.message();
            if answer["type"] != "message" {
                return answer;
            }
        }
    }
}
