//! What the documents promise, held against what is built: the table of settings, the TOML example, the
//! Rust code, the names of variables and the transcripts.

#![allow(clippy::unwrap_used, reason = "a test that unwraps fails with a clear message")]

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write,
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use rusty_socks::{Config, Server, ServerHandle, chat, config::Key};
use serde_json::Value;
use tungstenite::{Message, WebSocket};

/// How long a frame of a transcript is waited for.
const DEADLINE: Duration = Duration::from_secs(20);

/// What differs from run to run. Of these only the kind is compared, and that one that was told once
/// stays the same throughout a transcript.
const VOLATILE: [&str; 8] =
    ["client_id", "epoch", "id", "node", "reconnect_after_ms", "server", "session", "timestamp"];

/// An id that the server replaces, though the client gave it.
const NIL: &str = "00000000-0000-0000-0000-000000000000";

fn read(path: &str) -> String {
    let path = format!("{}/{path}", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    // A checkout on Windows may end its lines in two bytes.
    text.replace("\r\n", "\n")
}

/// The code blocks of `text` that are marked with `language`.
fn blocks<'t>(text: &'t str, language: &str) -> Vec<&'t str> {
    let fence = format!("```{language}\n");
    text.split(&fence).skip(1).map(|rest| rest.split("```").next().unwrap()).collect()
}

#[test]
fn the_table_of_settings_is_that_of_the_code() {
    let readme = read("README.md");
    let rows: Vec<Vec<&str>> = readme
        .lines()
        .filter(|line| line.starts_with("| `RUSTY_SOCKS_"))
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
        .collect();
    let wanted = |key: &Key| {
        let unit = match key.unit() {
            "" => String::new(),
            unit => format!(" {unit}"),
        };
        let default = format!("`{}`", key.default());
        [format!("`{}`", key.variable()), default, format!("{}{unit}", key.range())]
    };
    let (shown, wanted): (Vec<String>, Vec<String>) = (
        rows.iter().map(|cells| cells[..3].join(" | ")).collect(),
        Config::keys().iter().map(|key| wanted(key).join(" | ")).collect(),
    );
    for (shown, wanted) in shown.iter().zip(&wanted) {
        assert_eq!(shown, wanted, "a row of README.md (left) is not what the code says (right)");
    }
    assert_eq!(shown.len(), wanted.len(), "README.md has other rows than there are keys");
    assert!(rows.iter().all(|cells| cells.len() == 4 && !cells[3].is_empty()), "no meaning");
}

#[test]
fn every_variable_that_is_named_exists() {
    let mut known: BTreeSet<String> = Config::keys().iter().map(Key::variable).collect();
    // The one that names the file, and the typing error by which the README shows an error.
    known.extend(["RUSTY_SOCKS_CONFIG".to_owned(), "RUSTY_SOCKS_MAX_CON".to_owned()]);
    for path in ["README.md", "CONTRIBUTING.md", "docs/protocol.md", "Dockerfile"] {
        let text = read(path);
        for (at, _) in text.match_indices("RUSTY_SOCKS_") {
            let is_part = |c: char| c.is_ascii_uppercase() || c == '_';
            let name = text[at..].split(|c| !is_part(c)).next().unwrap();
            // The prefix alone stands for all of them.
            assert!(name == "RUSTY_SOCKS_" || known.contains(name), "{path} names {name}");
        }
    }
}

#[test]
fn the_toml_example_is_a_configuration() {
    let readme = read("README.md");
    let examples = blocks(&readme, "toml");
    // One is what to load and one adds rules for rooms; another shows what a dependent crate writes.
    let mut files = examples.iter().filter(|block| !block.contains("[dependencies]"));
    for _ in 0..2 {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(files.next().unwrap().as_bytes()).unwrap();
        let nothing: [(&str, &str); 0] = [];
        let loaded = Config::load_from(Some(file.path()), nothing, nothing).unwrap();
        assert_ne!(loaded.config, Config::default());
    }
}

/// The first block of Rust is the example of `lib.rs`, a doc test; the second stands in this file. So
/// both are compiled.
#[test]
fn the_rust_code_is_compiled() {
    let readme = read("README.md");
    let of_lib: String = read("src/lib.rs")
        .lines()
        .skip_while(|line| !line.starts_with("//! ```"))
        .skip(1)
        .take_while(|line| !line.starts_with("//! ```"))
        .map(|line| format!("{}\n", line.trim_start_matches("//!").trim_start_matches(' ')))
        .collect();
    let of_test = read("tests/readme_test.rs");
    let of_test = of_test.split("// README begins\n").nth(1).unwrap();
    let of_test = of_test.split("    // README ends").next().unwrap();
    let unindent =
        |text: &str| text.lines().map(|line| format!("{}\n", line.trim_start())).collect();
    let shown: Vec<String> = blocks(&readme, "rust").into_iter().map(unindent).collect();
    assert_eq!(shown, [unindent(&of_lib), unindent(of_test)]);
}

mod snippet {
    // README begins
    use rusty_socks::{Config, Context, Error, Handler, Message, Refusal, Request, Server};

    struct Lookup;

    impl Handler for Lookup {
        /// What belongs to one connection. Its calls never overlap, so it needs no lock.
        type State = u32;

        /// Runs before the 101. A refusal is answered in plain HTTP and costs no permit.
        fn on_upgrade(&self, request: &Request<'_>) -> Result<u32, Refusal> {
            match request.header("Authorization") {
                Some(_) => Ok(0),
                None => Err(Refusal::unauthorized("who are you?")),
            }
        }

        fn on_message(&self, ctx: &mut Context<'_, u32>, message: Message<'_>) {
            *ctx.state() += 1;
            // Stands for a database that takes its time: this handler is mounted with threads of its own.
            std::thread::sleep(std::time::Duration::from_millis(20));
            let answer = format!("answer {} to {:?}", ctx.state(), message.as_text());
            let _status = ctx.send(&answer);
        }
    }

    fn server(config: Config) -> Result<Server, Error> {
        // Eight threads; at most 100 messages wait for them, and beyond that their senders' sockets are not read.
        Server::builder().config(config).route("/lookup", Lookup.blocking(8, 100)).bind()
    }
    // README ends

    #[test]
    fn it_binds() {
        let config = Config { host: "127.0.0.1".into(), port: 0, ..Config::default() };
        assert!(server(config).unwrap().local_addr().port() != 0);
    }
}

/// A server of the shipped kind, and what a transcript has said so far.
struct Stage {
    handle: ServerHandle,
    address: SocketAddr,
    clients: BTreeMap<String, WebSocket<TcpStream>>,
    /// What the document writes, and what the server said in its place.
    actual: BTreeMap<String, String>,
    /// Everything that clients were shown to send.
    sent: String,
}

impl Stage {
    fn new() -> Stage {
        let config =
            Config { host: "127.0.0.1".into(), port: 0, thread_pool_size: 2, ..Config::default() };
        let server: Server = chat::server(config).unwrap();
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

    fn send(&mut self, name: &str, shown: &str) {
        self.sent.push_str(shown);
        let mut text = shown.to_owned();
        for (shown, actual) in &self.actual {
            text = text.replace(shown, actual);
        }
        self.client(name).send(Message::text(text)).unwrap();
    }

    fn receive(&mut self, name: &str, shown: &str) {
        let wanted: Value = serde_json::from_str(shown).unwrap_or_else(|e| panic!("{shown}: {e}"));
        let text = self.client(name).read().unwrap_or_else(|e| panic!("no {shown}: {e}"));
        let told: Value = serde_json::from_str(text.to_text().unwrap()).unwrap();
        self.compare("", &wanted, &told, &format!("shown: {shown}\ntold:  {text}"));
    }

    fn compare(&mut self, key: &str, wanted: &Value, told: &Value, context: &str) {
        match (wanted, told) {
            (Value::Object(wanted), Value::Object(told)) => {
                let keys = |object: &serde_json::Map<String, Value>| {
                    object.keys().cloned().collect::<Vec<_>>()
                };
                assert_eq!(keys(wanted), keys(told), "{context}");
                for (key, value) in wanted {
                    self.compare(key, value, &told[key], context);
                }
            }
            (Value::Array(wanted), Value::Array(told)) => {
                assert_eq!(wanted.len(), told.len(), "{context}");
                for (wanted, told) in wanted.iter().zip(told) {
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
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.clients.clear();
        self.handle.shutdown(DEADLINE);
    }
}

#[test]
fn the_transcripts_of_the_protocol_are_true() {
    let document = read("docs/protocol.md");
    let transcripts = blocks(&document, "transcript");
    assert!(transcripts.len() >= 4, "where are they?");
    for transcript in transcripts {
        let mut stage = Stage::new();
        for line in transcript.lines() {
            match (line.split_once(" → "), line.split_once(" ← ")) {
                (Some((name, sent)), None) => stage.send(name, sent),
                (None, Some((name, told))) => stage.receive(name, told),
                _ => panic!("neither sent nor told: {line}"),
            }
        }
    }
}

/// The sessions with `wscat`: each block is one terminal, and they come one after the other.
#[test]
fn the_sessions_of_the_readme_are_true() {
    let readme = read("README.md");
    let mut stage = Stage::new();
    let mut frames = 0;
    for (terminal, session) in blocks(&readme, "console").into_iter().enumerate() {
        let terminal = terminal.to_string();
        for line in session.lines() {
            if let Some(typed) = line.strip_prefix("> ") {
                stage.send(&terminal, typed);
            } else if let Some(told) = line.strip_prefix("< ") {
                stage.receive(&terminal, told);
            } else {
                continue;
            }
            frames += 1;
        }
    }
    assert!(frames >= 6, "where are they?");
}
