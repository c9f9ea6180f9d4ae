//! A client of the chat protocol that is cut off and comes back, and numbers for random tests.

use std::{
    collections::VecDeque,
    net::{Shutdown, TcpStream},
    time::Duration,
};

use serde_json::{Value, json};
use tungstenite::{Message, WebSocket};

use super::{Client, DEADLINE, Listens, TestServer, try_connect};

/// A client that tells answers from what comes in between.
pub struct Chat {
    pub wire: WebSocket<TcpStream>,
    pub welcome: Value,
    /// Its client id and its session, as they are now.
    pub id: String,
    pub session: String,
    /// What came while an answer was awaited.
    early: VecDeque<Value>,
    refs: u64,
}

/// How a connection is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// With a reset.
    Reset,
    /// The client ends its direction, without a Close.
    Fin,
    /// With a Close 1001.
    GoingAway,
}

impl Chat {
    /// Connects and takes the welcome.
    pub fn new(server: &impl Listens) -> Chat {
        Chat::at(server, "/ws")
    }

    pub fn at(server: &impl Listens, path: &str) -> Chat {
        let mut chat = Chat::silent(server, path);
        let welcome = chat.read();
        assert_eq!(welcome["type"], "welcome", "{welcome}");
        chat.greet(welcome);
        chat
    }

    /// Connects and leaves the default room.
    pub fn outside(server: &impl Listens) -> Chat {
        let mut chat = Chat::new(server);
        chat.ok(json!({"type": "leave", "room": "lobby"}));
        chat
    }

    /// Connects, and reads nothing yet.
    pub fn silent(server: &impl Listens, path: &str) -> Chat {
        let addr = server.addr();
        let client = try_connect(addr, path);
        let Client { socket, .. } = client.unwrap_or_else(|error| panic!("{path}: {error}"));
        Chat {
            wire: socket,
            welcome: Value::Null,
            id: String::new(),
            session: String::new(),
            early: VecDeque::new(),
            refs: 0,
        }
    }

    fn greet(&mut self, welcome: Value) {
        self.id = text(&welcome["client_id"]);
        self.session = text(&welcome["session"]);
        self.welcome = welcome;
    }

    /// Comes back: resumes with the first frame, and forgets what came before the answer.
    pub fn resume(server: &impl Listens, session: &str, rooms: Value) -> (Chat, Value) {
        let frame = json!({"type": "resume", "session": session, "rooms": rooms});
        Chat::first(server, "/ws", frame)
    }

    /// The same, with the number of the last direct message.
    pub fn resume_direct(server: &impl Listens, session: &str, direct: u64) -> (Chat, Value) {
        let frame = json!({"type": "resume", "session": session, "direct": direct});
        Chat::first(server, "/ws", frame)
    }

    /// Connects, says `frame` before it hears anything, and returns the answer.
    pub fn first(server: &impl Listens, path: &str, frame: Value) -> (Chat, Value) {
        let mut chat = Chat::silent(server, path);
        let answer = chat.ask(frame);
        let before: Vec<Value> = chat.early.drain(..).collect();
        let welcome = before.into_iter().find(|frame| frame["type"] == "welcome");
        chat.greet(welcome.expect("the welcome comes first in any case"));
        if answer["type"] == "ok" {
            chat.id = text(&answer["client_id"]);
            chat.session = text(&answer["session"]);
        }
        (chat, answer)
    }

    /// Resumes, which must succeed.
    pub fn back(server: &impl Listens, session: &str, rooms: Value) -> (Chat, Value) {
        let (chat, answer) = Chat::resume(server, session, rooms);
        assert_eq!(answer["type"], "ok", "{answer}");
        assert_eq!(answer["session"], session);
        (chat, answer)
    }

    pub fn say(&mut self, frame: Value) {
        self.raw(&frame.to_string());
    }

    pub fn raw(&mut self, frame: &str) {
        self.wire.send(Message::text(frame)).unwrap();
    }

    fn read(&mut self) -> Value {
        loop {
            match self.wire.read().unwrap() {
                Message::Ping(_) | Message::Pong(_) => {}
                Message::Text(text) => return serde_json::from_str(text.as_str()).unwrap(),
                other => panic!("no text: {other:?}"),
            }
        }
    }

    /// The next frame that is no answer to [`ask`](Chat::ask).
    pub fn next(&mut self) -> Value {
        match self.early.pop_front() {
            Some(frame) => frame,
            None => self.read(),
        }
    }

    /// The next frame of that type; everything else on the way is a mistake.
    pub fn expect(&mut self, kind: &str) -> Value {
        let frame = self.next();
        assert_eq!(frame["type"], kind, "{frame}");
        frame
    }

    /// The next frame of that type, and what came before it stays.
    pub fn await_kind(&mut self, kind: &str) -> Value {
        if let Some(at) = self.early.iter().position(|frame| frame["type"] == kind) {
            return self.early.remove(at).unwrap();
        }
        loop {
            let frame = self.read();
            if frame["type"] == kind {
                return frame;
            }
            self.early.push_back(frame);
        }
    }

    /// Asks, with a `ref`, and returns the answer.
    pub fn ask(&mut self, mut command: Value) -> Value {
        self.refs += 1;
        let reference = json!(format!("r{}", self.refs));
        command["ref"] = reference.clone();
        self.say(command);
        self.answer(&reference)
    }

    /// The answer with that `ref`.
    pub fn answer(&mut self, reference: &Value) -> Value {
        loop {
            let frame = self.read();
            if frame["ref"] == *reference {
                return frame;
            }
            self.early.push_back(frame);
        }
    }

    /// Asks for what must succeed.
    pub fn ok(&mut self, command: Value) -> Value {
        let answer = self.ask(command.clone());
        assert_eq!(answer["type"], "ok", "{command}: {answer}");
        answer
    }

    /// Asks for what must fail, and returns the code.
    pub fn fails(&mut self, command: Value) -> String {
        let answer = self.ask(command.clone());
        assert_eq!(answer["type"], "error", "{command}: {answer}");
        assert!(answer["message"].is_string(), "{answer}");
        text(&answer["code"])
    }

    pub fn join(&mut self, room: &str) -> Value {
        self.ok(json!({"type": "join", "room": room}))
    }

    pub fn leave(&mut self, room: &str) {
        self.ok(json!({"type": "leave", "room": room}));
    }

    /// Publishes and returns the number.
    pub fn publish(&mut self, room: &str, content: impl Into<Value>) -> u64 {
        let content: Value = content.into();
        let answer = self.ok(json!({"type": "publish", "room": room, "content": content}));
        number(&answer["seq"])
    }

    /// Everything that was on its way to this client. What another client was told is done is on
    /// its way: a letter takes one turn of the worker, and each ping takes another.
    pub fn settled(&mut self) -> Vec<Value> {
        for _ in 0..3 {
            let pong = self.ask(json!({"type": "ping"}));
            assert_eq!(pong["type"], "pong", "{pong}");
        }
        self.early.drain(..).collect()
    }

    /// Nothing was on its way.
    pub fn expect_silence(&mut self) {
        let frames = self.settled();
        assert!(frames.is_empty(), "{frames:?}");
    }

    /// The code of the server's Close, which must come; what else comes first is returned with it.
    pub fn closed(&mut self) -> (u16, Vec<Value>) {
        let mut before: Vec<Value> = self.early.drain(..).collect();
        loop {
            match self.wire.read() {
                Ok(Message::Close(frame)) => {
                    return (frame.map_or(1005, |frame| frame.code.into()), before);
                }
                Ok(Message::Text(text)) => {
                    before.push(serde_json::from_str(text.as_str()).unwrap());
                }
                Ok(_) => {}
                Err(error) => panic!("the connection ended without a Close: {error}"),
            }
        }
    }

    /// Ends the connection with a Close of that code, or of none, and waits for the end.
    pub fn close(mut self, code: Option<u16>) {
        let frame = code
            .map(|code| tungstenite::protocol::CloseFrame { code: code.into(), reason: "".into() });
        self.wire.close(frame).unwrap();
        while self.wire.read().is_ok() {}
    }

    /// Loses the connection.
    pub fn lose(self, how: Loss) {
        match how {
            Loss::Reset => {
                let socket = socket2::SockRef::from(self.wire.get_ref());
                socket.set_linger(Some(Duration::ZERO)).unwrap();
            }
            Loss::Fin => {
                let _ = self.wire.get_ref().shutdown(Shutdown::Write);
                // Unread bytes would make a reset of it.
                let mut stream = self.wire.get_ref();
                let mut rest = [0; 4096];
                while matches!(std::io::Read::read(&mut stream, &mut rest), Ok(n) if n > 0) {}
            }
            Loss::GoingAway => self.close(Some(1001)),
        }
    }
}

/// Waits until the server knows that so many sessions are away.
pub fn wait_for_away(server: &TestServer, count: usize) {
    server.wait_for("sessions are away", |stats| stats.sessions_away == count);
}

/// Loses a connection, and waits until the server knows. Nobody else may be away or come back
/// meanwhile.
pub fn lose(server: &TestServer, chat: Chat, how: Loss) -> String {
    let session = chat.session.clone();
    let before = server.stats().sessions_away;
    chat.lose(how);
    wait_for_away(server, before + 1);
    session
}

pub fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}")).to_owned()
}

pub fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("no number: {value}"))
}

pub fn seqs(messages: &Value) -> Vec<u64> {
    messages.as_array().unwrap().iter().map(|message| number(&message["seq"])).collect()
}

/// The part of an answer that is about `room`.
pub fn room_of<'a>(answer: &'a Value, room: &str) -> &'a Value {
    let rooms = answer["rooms"].as_array().unwrap();
    let mut found = rooms.iter().filter(|part| part["room"] == room);
    let part = found.next().unwrap_or_else(|| panic!("no {room} in {answer}"));
    assert!(found.next().is_none(), "{room} twice in {answer}");
    part
}

/// The names of the rooms in an answer, sorted.
pub fn room_names(answer: &Value) -> Vec<String> {
    let rooms = answer["rooms"].as_array().unwrap();
    let mut names: Vec<String> = rooms.iter().map(|room| text(&room["room"])).collect();
    names.sort();
    names
}

/// A position, for `since` and `rooms`.
pub fn place(room: &str, epoch: &Value, seq: u64) -> Value {
    json!({"room": room, "epoch": epoch, "seq": seq})
}

/// A small generator (xorshift64*): the same seed gives the same run, as far as threads allow.
pub struct Numbers(u64);

impl Numbers {
    /// Prints the seed, which is what a failure is played again with.
    pub fn seeded(test: &str) -> Numbers {
        let given = std::env::var("TEST_SEED").ok().and_then(|seed| seed.parse().ok());
        let seed: u64 = given.unwrap_or_else(|| uuid::Uuid::new_v4().as_u64_pair().0);
        println!("{test}: TEST_SEED={seed}");
        Numbers(seed | 1)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % bound
    }

    pub fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    pub fn split(&mut self) -> Numbers {
        Numbers(self.below(u64::MAX >> 1) << 1 | 1)
    }
}

/// How long a read may take at most: a socket's own deadline, set anew.
pub fn set_read_deadline(chat: &Chat, deadline: Option<Duration>) {
    chat.wire.get_ref().set_read_timeout(deadline.or(Some(DEADLINE))).unwrap();
}
