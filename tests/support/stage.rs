//! Plays the transcripts of the documents, line by line, against a real server:
//!
//! | line | what happens |
//! |---|---|
//! | `(RUSTY_SOCKS_ECHO=true)` | the server is set up like this; before all else |
//! | `anna → {…}` | she sends it; who is not connected connects first |
//! | `anna → (a binary message)` | she sends what cannot be shown; see [`Stage::send_odd`] |
//! | `anna → close 1000` | she sends a Close frame |
//! | `anna ← {…}` | it is the next that she is sent |
//! | `anna ← close 4008 too many errors in a row` | the same for a Close frame and its reason |
//! | `(anna is cut off)` | her connection ends without a Close frame, and the server knows |
//! | `(the session ends)` | nobody's session waits for its client any more |
//! | `(the server shuts down)` | it begins to |
//!
//! In what is received, `,…}` stands for fields that are not shown, `"…"` for any value, and a
//! [`VOLATILE`] text stands for what the server said in its place, there and everywhere else.

use std::{
    collections::BTreeMap,
    io::Write,
    net::{SocketAddr, TcpStream},
};

use rusty_socks::{Config, ServerHandle, chat};
use serde_json::{Map, Value};
use tungstenite::{Message, WebSocket, protocol::CloseFrame};

use crate::support::{DEADLINE, eventually, frame};

/// What differs from run to run. Of these only the kind is compared, and that one that was told
/// once stays the same throughout a transcript.
const VOLATILE: [&str; 11] = [
    "client_id",
    "epoch",
    "id",
    "node",
    "reconnect_after_ms",
    "retry_after_ms",
    "server",
    "session",
    "timestamp",
    "to",
    "token_expires_s",
];

/// An id that the server replaces, though the client gave it.
const NIL: &str = "00000000-0000-0000-0000-000000000000";

/// A server of the shipped kind, and what a transcript has said so far.
pub(crate) struct Stage {
    handle: ServerHandle,
    address: SocketAddr,
    clients: BTreeMap<String, WebSocket<TcpStream>>,
    /// What the document writes, and what the server said in its place.
    actual: BTreeMap<String, String>,
    /// Everything that clients were shown to send.
    sent: String,
}

/// Plays all of a transcript, and makes sure that nobody was sent more than it shows.
pub(crate) fn play(transcript: &str) {
    let is_setting = |line: &&str| line.starts_with("(RUSTY_SOCKS_");
    let settings = transcript.lines().take_while(is_setting);
    let settings: Vec<(&str, &str)> =
        settings.map(|line| line.trim_matches(['(', ')']).split_once('=').unwrap()).collect();
    let mut stage = Stage::new(&settings);
    for line in transcript.lines().skip_while(is_setting) {
        match (line.split_once(" → "), line.split_once(" ← ")) {
            (Some((name, sent)), None) => stage.send(name, sent),
            (None, Some((name, told))) => stage.receive(name, told),
            _ => stage.direct(line),
        }
    }
    for (name, mut client) in std::mem::take(&mut stage.clients) {
        client.send(Message::text(r#"{"type":"ping","ref":"the end"}"#)).unwrap();
        let last = client.read().unwrap();
        assert!(last.to_text().unwrap().starts_with(r#"{"type":"pong""#), "{name} ← {last}");
    }
}

/// The token of a user for so many seconds, by the secret of the documents.
fn token(user: &str, seconds: u64) -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let rooms = serde_json::json!([{"match": "*", "allow": ["join", "publish"]}]);
    let claims = serde_json::json!({"sub": user, "exp": now + seconds, "rooms": rooms});
    rusty_socks::identity::sign(&claims, "for-the-examples-of-docs-protocol-md").unwrap()
}

impl Stage {
    pub(crate) fn new(settings: &[(&str, &str)]) -> Stage {
        let base = [("HOST", "127.0.0.1"), ("PORT", "0"), ("THREAD_POOL_SIZE", "2")];
        let base = base.map(|(name, value)| (format!("RUSTY_SOCKS_{name}"), value.to_owned()));
        let own = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let flags: [(&str, &str); 0] = [];
        let loaded = Config::load_from(None, base.into_iter().chain(own), flags).unwrap();
        let server = chat::server(loaded.config).unwrap();
        let address = server.local_addr();
        let handle = server.spawn().unwrap();
        let (clients, actual, sent) = (BTreeMap::new(), BTreeMap::new(), String::new());
        Stage { handle, address, clients, actual, sent }
    }

    /// The client of that name, who connects when first heard of.
    fn client(&mut self, name: &str) -> &mut WebSocket<TcpStream> {
        let address = self.address;
        self.clients.entry(name.to_owned()).or_insert_with(|| {
            let stream = TcpStream::connect(address).unwrap();
            stream.set_read_timeout(Some(DEADLINE)).unwrap();
            tungstenite::client(format!("ws://{address}/ws"), stream).unwrap().0
        })
    }

    pub(crate) fn send(&mut self, name: &str, shown: &str) {
        let shown = &shown
            .replace("TOKEN_OF_ANNA", &token("anna", 3600))
            .replace("TOKEN_OF_BEN", &token("ben", 3600))
            .replace("TOKEN_THAT_ENDS", &token("anna", 2));
        if let Some(code) = shown.strip_prefix("close ") {
            let code: u16 = code.parse().unwrap();
            let frame = CloseFrame { code: code.into(), reason: "".into() };
            return self.client(name).close(Some(frame)).unwrap();
        }
        if shown.starts_with('(') {
            return self.send_odd(name, shown);
        }
        self.sent.push_str(shown);
        let mut text = shown.to_owned();
        for (shown, actual) in &self.actual {
            text = text.replace(shown, actual);
        }
        self.client(name).send(Message::text(text)).unwrap();
    }

    fn send_odd(&mut self, name: &str, shown: &str) {
        let bytes = match shown {
            "(a binary message)" => frame(0x82, b"anything"),
            "(a text message that is not UTF-8)" => frame(0x81, b"caf\xe9"),
            "(a text message of 65537 bytes)" => frame(0x81, &[b' '; 65537]),
            "(a frame with a reserved bit)" => frame(0xb1, b"{}"),
            "(nothing)" => Vec::new(),
            other => panic!("what is {other}?"),
        };
        self.client(name).get_mut().write_all(&bytes).unwrap();
    }

    /// What happens between frames.
    fn direct(&mut self, line: &str) {
        if let Some(name) = line.strip_suffix(" is cut off)") {
            let connected = |stats: &rusty_socks::Snapshot| {
                (stats.active_connections, stats.sessions - stats.sessions_away)
            };
            let (connections, sessions) = connected(&self.handle.stats());
            self.clients.remove(&name[1..]).unwrap();
            return eventually(line, || match connected(&self.handle.stats()) {
                now if now == (connections - 1, sessions - 1) => Ok(()),
                now => Err(format!("{now:?}")),
            });
        }
        match line {
            "(the session ends)" => eventually(line, || match self.handle.stats().sessions_away {
                0 => Ok(()),
                away => Err(format!("{away} are away")),
            }),
            "(the server shuts down)" => self.handle.shutdown(DEADLINE),
            _ => panic!("what is {line}?"),
        }
    }

    pub(crate) fn receive(&mut self, name: &str, shown: &str) {
        let told = self.client(name).read().unwrap_or_else(|e| panic!("no {shown}: {e}"));
        if let Some(wanted) = shown.strip_prefix("close ") {
            let Message::Close(Some(told)) = told else { panic!("{shown}, not {told}") };
            let told = format!("{} {}", u16::from(told.code), told.reason);
            assert_eq!(wanted, told.trim_end());
            let mut client = self.clients.remove(name).unwrap();
            // The rest of the closing handshake.
            while client.read().is_ok() {}
            return;
        }
        // What is left out is marked by a field that no frame has.
        let json = shown.replace(",…}", ",\"…\":0}");
        let wanted: Value = serde_json::from_str(&json).unwrap_or_else(|e| panic!("{shown}: {e}"));
        let text = told.to_text().unwrap();
        let told: Value = serde_json::from_str(text).unwrap_or_else(|e| panic!("{text}: {e}"));
        self.compare("", &wanted, &told, &format!("shown: {shown}\ntold:  {text}"));
    }

    fn compare(&mut self, key: &str, wanted: &Value, told: &Value, context: &str) {
        match (wanted, told) {
            (Value::String(wanted), _) if wanted == "…" => {}
            (Value::Object(wanted), Value::Object(told)) => {
                self.compare_fields(wanted, told, context);
            }
            (Value::Array(wanted), Value::Array(told)) => {
                assert_eq!(wanted.len(), told.len(), "{context}");
                let told =
                    if key == "members" { self.in_order_of(wanted, told) } else { told.clone() };
                for (wanted, told) in wanted.iter().zip(&told) {
                    self.compare("", wanted, told, context);
                }
            }
            (Value::String(wanted), Value::String(told)) if VOLATILE.contains(&key) => {
                if self.sent.contains(wanted) && !self.actual.contains_key(wanted) {
                    assert_eq!(wanted, told, "what the client gave is kept\n{context}");
                }
                assert_ne!(wanted, NIL, "{context}");
                let known = self.actual.entry(wanted.clone()).or_insert_with(|| told.clone());
                assert_eq!(known, told, "{wanted} stands for two\n{context}");
            }
            (Value::Number(_), Value::Number(_)) if VOLATILE.contains(&key) => {}
            _ => assert_eq!(wanted, told, "{context}"),
        }
    }

    fn compare_fields(
        &mut self,
        wanted: &Map<String, Value>,
        told: &Map<String, Value>,
        context: &str,
    ) {
        let shown: Vec<&String> = wanted.keys().filter(|key| *key != "…").collect();
        let is_whole = shown.len() == wanted.len();
        let keys = told.keys().filter(|key| is_whole || shown.contains(key));
        assert_eq!(shown, keys.collect::<Vec<_>>(), "{context}");
        for key in shown {
            self.compare(key, &wanted[key], &told[key], context);
        }
    }

    /// Members are listed in no order: those of `told` in the order in which `wanted` shows them.
    fn in_order_of(&self, wanted: &[Value], told: &[Value]) -> Vec<Value> {
        let place = |member: &Value| {
            let is_told = |shown: &Value| {
                let actual = shown["client_id"].as_str().and_then(|id| self.actual.get(id));
                actual.map(String::as_str) == member["client_id"].as_str()
            };
            wanted.iter().position(is_told)
        };
        let mut sorted = told.to_vec();
        sorted.sort_by_key(place);
        sorted
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.clients.clear();
        self.handle.shutdown(DEADLINE);
    }
}
