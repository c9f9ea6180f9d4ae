//! New settings for a server that runs: by a signal, by the server API, and by an embedder.

#![allow(clippy::unwrap_used, reason = "a test that unwraps fails with a clear message")]

mod support;
#[path = "support/http.rs"]
mod http;
#[cfg(unix)]
#[path = "support/program.rs"]
mod program;
#[path = "support/tokens.rs"]
mod tokens;

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
};

use http::Api;
use rusty_socks::{
    AdminContext, AdminHandler, AdminStep, Config, Context, ErrorKind, Handler, MayBlock, Message,
    Permissions, Request, RoomName, Server, ServerHandle,
    chat::Chat,
    config::{Access, ConfigSource, IdentityMode, Reloaded, RoomRule, Secret},
    stepped::MemoryClient,
};
use rusty_socks_client::{Event, Session};
use serde_json::json;
use support::{DEADLINE, TestServer, config, frame, upgrade_head};
use tokens::SECRET;

#[test]
fn who_is_connected_has_the_new_limits_and_keeps_its_place() {
    let server = TestServer::start(config());
    let (mut anna, mut ben) = (server.chat(), server.chat());
    for _ in 0..50 {
        assert_eq!(anna.ask(r#"{"type":"ping","ref":1}"#)["type"], "pong");
    }
    let tight = Config { rate_messages: 2, max_conn: 1, max_queued_tasks: 0, ..config() };
    let told = server.handle.reload(&tight).unwrap();
    assert_eq!(told.changed, ["max_conn", "max_queued_tasks", "rate_messages"]);
    assert!(told.needs_restart.is_empty());
    for expected in ["pong", "pong", "error"] {
        assert_eq!(anna.ask(r#"{"type":"ping","ref":1}"#)["type"], expected);
    }
    assert_eq!(ben.ask(r#"{"type":"ping","ref":1}"#)["type"], "pong", "nobody is closed");
    assert!(server.try_connect("/ws").is_err(), "two are more than one");
    server.handle.reload(&config()).unwrap();
    assert_eq!(anna.ask(r#"{"type":"ping","ref":1}"#)["type"], "pong");
    server.chat();
    assert_eq!(server.stats().config_reloads, 2);
}

fn optional() -> Config {
    Config { identity: IdentityMode::Optional, token_hmac_secret: Secret::new(SECRET), ..config() }
}

#[test]
fn who_was_told_of_larger_messages_may_go_on_sending_them() {
    let server = TestServer::start(config());
    let mut anna = server.chat();
    let session = Session::connect(&format!("ws://{}/ws", server.addr)).unwrap();
    session.join("tea").unwrap();
    server.handle.reload(&Config { max_message_bytes: 1000, ..config() }).unwrap();
    let large = "x".repeat(3000);
    let publish = json!({"type": "publish", "content": large, "ref": 1}).to_string();
    assert_eq!(anna.ask(&publish)["type"], "ok");
    session.publish("tea", &large).unwrap();
    // Who comes from now on is told of the new one.
    let mut ben = server.connect("/ws");
    assert_eq!(ben.json()["max_message_bytes"], 1000);
    ben.send(publish.clone());
    assert_eq!(ben.closed().map(|close| u16::from(close.code)), Some(1009));
    let mut cleo = server.connect("/ws");
    cleo.json();
    server.handle.reload(&Config { max_message_bytes: 4000, ..config() }).unwrap();
    for client in [&mut anna, &mut cleo] {
        assert_eq!(client.ask(&publish)["type"], "ok", "a higher one is for everybody");
    }
    // Nobody was told of that one.
    server.handle.reload(&Config { max_message_bytes: 1000, ..config() }).unwrap();
    cleo.send(publish.clone());
    assert_eq!(cleo.closed().map(|close| u16::from(close.code)), Some(1009));
    assert_eq!(anna.ask(&publish)["type"], "ok");
}

#[test]
fn a_client_of_ours_knows_that_it_may_not_be_in_a_room_any_more() {
    let optional = optional();
    let server = TestServer::start(optional.clone());
    let session = Session::connect(&format!("ws://{}/ws", server.addr)).unwrap();
    session.join("tea").unwrap();
    let rule = RoomRule { join: Some(Access::Users), ..RoomRule::new("tea") };
    server.handle.reload(&Config { rooms: vec![rule], ..optional }).unwrap();
    let event = loop {
        match session.recv_timeout(DEADLINE).unwrap().expect("an event in time") {
            Event::Connected { .. } => {}
            event => break event,
        }
    };
    assert!(
        matches!(&event, Event::Excluded { room, code } if room == "tea" && code == "forbidden")
    );
    assert_eq!(session.publish("tea", &1).unwrap_err().code(), Some("not_member"));
}

/// A turn looks at 4,096 clients, or at as many as are in 256 rooms together.
#[test]
fn clients_are_judged_some_in_each_turn_and_each_once() {
    const CLIENTS: usize = 5000;
    let settings = Config {
        max_conn: CLIENTS,
        thread_pool_size: 1,
        default_room: String::new(),
        ..optional()
    };
    let chat = Chat::new(&settings).unwrap();
    let builder = Server::builder().route("/ws", chat).config(settings.clone());
    let mut server = builder.stepped().unwrap();
    let mut connect = |number: usize| {
        let client = server.connect().unwrap();
        client.write(upgrade_head("/ws").as_bytes());
        if !(600..CLIENTS - 100).contains(&number) {
            client.write(&frame(0x81, br#"{"type":"join","room":"tea","ref":1}"#));
        }
        server.settle();
        client.read();
        client
    };
    let clients: Vec<_> = (0..CLIENTS).map(&mut connect).collect();
    let rule = RoomRule { join: Some(Access::Users), ..RoomRule::new("tea") };
    server.handle().reload(&Config { rooms: vec![rule], ..settings }).unwrap();
    let told = |client: &MemoryClient| {
        let text = String::from_utf8_lossy(&client.read()).into_owned();
        text.matches(r#"{"type":"left","room":"tea""#).count()
    };
    let mut turn = || {
        server.turn();
        clients.iter().map(told).sum::<usize>()
    };
    assert_eq!([turn(), turn(), turn(), turn()], [256, 256, 88, 100]);
    server.settle();
    assert_eq!(clients.iter().map(told).sum::<usize>(), 0, "each is told once");
}

#[test]
fn histories_that_are_there_get_the_new_bounds() {
    let server = TestServer::start(http::config());
    let api = Api::of(&server);
    let publish = |n: usize| {
        let said = format!(r#"{{"room":"tea","content":{n}}}"#);
        assert_eq!(api.post("/v1/publish", &said).status, 200);
    };
    let kept = || api.get("/v1/rooms/tea/history").json()["messages"].as_array().unwrap().len();
    (0..30).for_each(publish);
    assert_eq!(kept(), 30);
    let rule = RoomRule { history: Some(20), ..RoomRule::new("tea") };
    server.handle.reload(&Config { rooms: vec![rule], ..http::config() }).unwrap();
    assert_eq!(kept(), 20);
    publish(30);
    assert_eq!(kept(), 20);
    server.handle.reload(&http::config()).unwrap();
    publish(31);
    assert_eq!(kept(), 21);
}

#[test]
fn nothing_changes_when_something_is_bad() {
    let server = TestServer::start(config());
    for bad in [
        Config { rate_messages: 1, max_conn: 0, ..config() },
        // Agrees with itself, and not with what stays.
        Config {
            rate_messages: 1,
            history: 5,
            replay: 5,
            max_message_bytes: 60 << 20,
            buffer_bytes: 120 << 20,
            mailbox_bytes: 120 << 20,
            ..config()
        },
    ] {
        let error = server.handle.reload(&bad).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    }
    assert_eq!(*server.handle.config(), config());
    assert_eq!((server.stats().config_reloads, server.stats().config_reloads_failed), (0, 2));
    let error = server.handle.reload_from_source().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
}

#[test]
fn a_key_that_cannot_be_used_changes_nothing() {
    let of = |secret: &str, key: &str| Config {
        identity: IdentityMode::Required,
        token_hmac_secret: Secret::new(secret.repeat(32)),
        token_public_key: Secret::new(key),
        ..config()
    };
    let server = TestServer::start(of("a", ""));
    let token = |secret: &str| {
        let claims = json!({"sub": "anna", "exp": 1_u64 << 40});
        rusty_socks::identity::sign(&claims, &secret.repeat(32)).unwrap()
    };
    let is_good = |secret: &str| {
        let mut client = server.connect("/ws");
        client.send(json!({"type": "auth", "token": token(secret)}).to_string());
        client.json()["type"] == "welcome"
    };
    let pem = "-----BEGIN PUBLIC KEY-----\nbm9uc2Vuc2U=\n-----END PUBLIC KEY-----\n";
    let refused = server.handle.reload(&of("b", pem)).unwrap_err();
    assert!(refused.to_string().starts_with("token_public_key"), "{refused}");
    assert!(is_good("a") && !is_good("b"));
    server.handle.reload(&of("b", "")).unwrap();
    assert!(is_good("b") && !is_good("a"));
}

/// A handler that blocks, and lets clients into rooms until it is told of new settings.
#[derive(Default)]
struct Bouncer {
    reloads: Arc<AtomicUsize>,
}

impl Handler<MayBlock> for Bouncer {
    type State = ();

    fn on_open(&self, ctx: &mut Context<'_, (), MayBlock>) {
        ctx.join(&RoomName::new("bar").unwrap(), rusty_socks::Replay::Nothing).then(
            |ctx, joined| {
                ctx.send(if joined.is_ok() { "in" } else { "out" });
            },
        );
    }

    fn on_message(&self, ctx: &mut Context<'_, (), MayBlock>, _: Message<'_>) {
        ctx.send(if ctx.is_member("bar") { "in" } else { "out" });
    }

    fn permissions(&self, _: Option<&rusty_socks::Identity>, _: Option<&RoomName>) -> Permissions {
        match self.reloads.load(Ordering::SeqCst) {
            0 => Permissions::all(),
            _ => Permissions::empty(),
        }
    }

    fn on_reload(&self, config: &Config) -> bool {
        assert_eq!(config.max_conn, 7);
        self.reloads.fetch_add(1, Ordering::SeqCst);
        true
    }
}

/// Settings in memory, and what became of them.
struct Given(Config, Arc<AtomicUsize>);

impl ConfigSource for Given {
    fn load(&self) -> Result<Config, rusty_socks::Error> {
        Ok(self.0.clone())
    }

    fn loaded(&self, outcome: Result<&Reloaded, &rusty_socks::Error>) {
        self.1.fetch_add(outcome.unwrap().changed.len(), Ordering::SeqCst);
    }
}

#[test]
fn an_embedder_reloads_from_a_source_of_its_own_and_a_handler_judges_anew() {
    let (handler, told) = (Bouncer::default(), Arc::default());
    let reloads = Arc::clone(&handler.reloads);
    let new = Config { max_conn: 7, port: 9, ..config() };
    let server = Server::builder()
        .config(config())
        .source(Given(new, Arc::clone(&told)))
        .route("/bar", handler.blocking(1, 10));
    let server = TestServer::run(server.bind().unwrap());
    let mut clients: Vec<_> = (0..20).map(|_| server.connect("/bar")).collect();
    for client in &mut clients {
        assert_eq!(client.next().into_text().unwrap(), "in");
    }
    let outcome = server.handle.reload_from_source().unwrap();
    assert_eq!((outcome.changed, outcome.needs_restart), (vec!["max_conn"], vec!["port"]));
    assert_eq!((reloads.load(Ordering::SeqCst), told.load(Ordering::SeqCst)), (1, 1));
    for client in &mut clients {
        support::eventually("it is out", || {
            client.send("where am I?");
            match client.next().into_text().unwrap().as_str() {
                "out" => Ok(()),
                other => Err(other.to_owned()),
            }
        });
    }
    server.handle.reload_from_source().unwrap();
    assert_eq!(reloads.load(Ordering::SeqCst), 1, "nothing has changed");
}

/// What asks for a reload from inside one, or panics there.
#[derive(Clone, Default)]
struct Rash {
    handle: Arc<OnceLock<ServerHandle>>,
    refused: Arc<AtomicUsize>,
}

impl Rash {
    fn ask(&self) {
        let handle = self.handle.get().unwrap();
        for outcome in [handle.reload(&config()), handle.reload_from_source()] {
            assert_eq!(outcome.unwrap_err().kind(), ErrorKind::InvalidInput);
            self.refused.fetch_add(1, Ordering::SeqCst);
        }
    }
}

impl Handler for Rash {
    type State = ();

    fn on_message(&self, ctx: &mut Context<'_, ()>, _: Message<'_>) {
        ctx.send("heard");
    }

    fn on_reload(&self, _: &Config) -> bool {
        self.ask();
        false
    }
}

impl AdminHandler for Rash {
    fn on_request(&self, _: &mut AdminContext<'_>, _: &Request<'_>) -> AdminStep {
        unreachable!("nobody asks")
    }

    fn may_read_figures(&self, _: &Request<'_>) -> bool {
        false
    }

    fn on_reload(&self, _: &Config) {
        self.ask();
        panic!("a handler of the admin listener that panics");
    }
}

impl ConfigSource for Rash {
    fn load(&self) -> Result<Config, rusty_socks::Error> {
        self.ask();
        match self.handle.get().unwrap().config().max_conn {
            7 => panic!("a source that panics when it reads"),
            _ => Ok(Config { max_conn: 7, ..config() }),
        }
    }

    fn loaded(&self, _: Result<&Reloaded, &rusty_socks::Error>) {
        self.ask();
        panic!("a source that panics when it is told");
    }
}

#[test]
fn what_a_reload_calls_may_panic_and_ask_for_a_reload() {
    let rash = Rash::default();
    let server = Server::builder()
        .config(config())
        .source(rash.clone())
        .admin(rash.clone())
        .route("/rash", rash.clone());
    let server = TestServer::run(server.bind().unwrap());
    rash.handle.set(server.handle.clone()).unwrap();
    let (told, tell) = mpsc::channel();
    let handle = server.handle.clone();
    thread::spawn(move || {
        for _ in 0..2 {
            told.send(handle.reload_from_source()).unwrap();
        }
    });
    let taken = tell.recv_timeout(DEADLINE).unwrap().unwrap();
    assert_eq!(taken.changed, ["max_conn"]);
    let error = tell.recv_timeout(DEADLINE).unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::System, "{error}");
    // Twice by the source that reads, both handlers and the source that is told; then by the
    // source.
    assert_eq!(rash.refused.load(Ordering::SeqCst), 2 * 4 + 2 * 2);
    assert_eq!((server.stats().config_reloads, server.stats().config_reloads_failed), (1, 1));
    server.handle.reload(&config()).unwrap();
    assert_eq!(server.handle.config().max_conn, config().max_conn);
}

/// The program, with a file of settings that may change.
#[cfg(unix)]
mod with_file {
    use std::{fs, ops::Deref};

    use serde_json::{Value, json};
    use tempfile::TempDir;

    use super::{
        http::{Api, KEY},
        program::{PROGRAM, Process, Program, command},
        support::{RawClient, eventually, frame, upgrade_head},
    };

    const SECRETS: [&str; 2] =
        ["0123456789abcdef0123456789abcdef", "fedcba9876543210fedcba9876543210"];

    struct Configured {
        program: Program,
        dir: TempDir,
        api: Api,
    }

    impl Configured {
        fn start(settings: &str) -> Configured {
            let dir = TempDir::new().unwrap();
            let file = dir.path().join("server.toml");
            fs::write(&file, with_common(settings)).unwrap();
            let mut command = command(PROGRAM);
            // What flags and variables say goes on to count more than the file.
            command.arg("--config").arg(file).args(["--thread-pool-size", "2"]);
            command.env("RUSTY_SOCKS_MAX_ROOMS", "77");
            let program = Program::run(&mut command);
            let line = program.log_line("the admin listener is on ");
            let addr = line.split_once("the admin listener is on ").unwrap().1.parse().unwrap();
            let api = Api { addr, key: KEY.to_owned() };
            Configured { program, dir, api }
        }

        fn write(&self, settings: &str) {
            fs::write(self.dir.path().join("server.toml"), with_common(settings)).unwrap();
        }

        fn hang_up(&self) {
            self.program.signal("-HUP");
        }

        /// The answer to an upgrade with these lines, and the client.
        fn upgrade(&self, target: &str, lines: &str) -> (u16, RawClient) {
            let mut client = self.begin(target, lines);
            (client.answer_head().status, client)
        }

        /// A client that has asked for an upgrade.
        fn begin(&self, target: &str, lines: &str) -> RawClient {
            let mut client = RawClient::new(self.program.socket());
            let head = upgrade_head(target).replacen("\r\n", &format!("\r\n{lines}"), 1);
            client.send(head.as_bytes());
            client
        }

        fn figure(&self, name: &str) -> Value {
            self.api.get("/stats").json()[name].clone()
        }
    }

    impl Deref for Configured {
        type Target = Process;

        fn deref(&self) -> &Process {
            &self.program
        }
    }

    fn with_common(settings: &str) -> String {
        let port = if settings.contains("port = ") { "" } else { "port = 0\n" };
        format!("host = '127.0.0.1'\nadmin_port = 0\n{port}{settings}")
    }

    fn say(client: &mut RawClient, command: &Value) {
        client.send(&frame(0x81, command.to_string().as_bytes()));
    }

    fn hear(client: &mut RawClient) -> Value {
        serde_json::from_str(&client.text()).unwrap()
    }

    #[test]
    fn a_hang_up_takes_what_has_changed_into_use() {
        let settings = |secret: &str, key: &str, rest: &str| {
            format!(
                "identity = 'optional'\ntoken_hmac_secret = '{secret}'\napi_key = '{key}'\n{rest}"
            )
        };
        let program = Configured::start(&settings(
            SECRETS[0],
            KEY,
            "allowed_origins = ['https://a.example']\nrate_messages = 0\n",
        ));
        let token = |secret: &str| {
            let claims = json!({"sub": "anna", "exp": 1_u64 << 40});
            let token = rusty_socks::identity::sign(&claims, secret).unwrap();
            format!("Authorization: Bearer {token}\r\n")
        };
        let (status, mut client) = program.upgrade("/ws", "");
        assert_eq!(status, 101);
        let welcome = hear(&mut client);
        say(&mut client, &json!({"type": "join", "room": "tea", "ref": 1}));
        assert_eq!(hear(&mut client)["type"], "ok");
        for _ in 0..10 {
            say(&mut client, &json!({"type": "ping", "ref": 2}));
            assert_eq!(hear(&mut client)["type"], "pong");
        }
        assert_eq!(program.upgrade("/ws", "Origin: https://a.example\r\n").0, 101);
        assert_eq!(program.upgrade("/ws", &token(SECRETS[0])).0, 101);

        program.write(&settings(
            SECRETS[1],
            "another-key-of-the-api",
            "allowed_origins = ['https://b.example']\nrate_messages = 1\nlog = 'debug'\n\
             port = 1\nthread_pool_size = 7\nmax_rooms = 5\n[rooms.tea]\njoin = 'users'\n",
        ));
        program.hang_up();
        let line = program.log_line("reloaded: ");
        assert!(
            line.ends_with(
                "reloaded: allowed_origins, rate_messages, api_key, token_hmac_secret, log, rooms \
                 changed"
            ),
            "{line}"
        );
        assert!(program.log_line("only after a restart: ").ends_with("restart: port"));

        let left = hear(&mut client);
        assert_eq!((&left["type"], &left["room"]), (&json!("left"), &json!("tea")));
        assert_eq!(left["client_id"], welcome["client_id"]);
        let answers = ["pong", "error"].map(|_| {
            say(&mut client, &json!({"type": "ping", "ref": 3}));
            hear(&mut client)["type"].clone()
        });
        assert_eq!(answers, ["pong", "error"], "one message a second");
        assert_eq!(program.upgrade("/ws", "Origin: https://b.example\r\n").0, 101);
        assert_eq!(program.upgrade("/ws", "Origin: https://a.example\r\n").0, 403);
        assert!(program.log_line(" 403 ").contains(" DEBUG "), "the filter has changed");
        assert_eq!(program.upgrade("/ws", &token(SECRETS[1])).0, 101);
        assert_eq!(program.upgrade("/ws", &token(SECRETS[0])).0, 401);
        assert_eq!(program.api.get("/v1/rooms").status, 401);
        let api = program.api.with_key("another-key-of-the-api");
        assert_eq!(api.get("/v1/rooms").status, 200);
        assert_eq!(api.get("/stats").json()["config_reloads"], 1);
    }

    #[test]
    fn a_bad_file_changes_nothing_and_says_why() {
        let good = format!("api_key = '{KEY}'\n");
        let program = Configured::start(&good);
        program.write(&format!("{good}max_conn = 0\nrate_mesages = 5\nmax_errors = 1\n"));
        let answer = program.api.post("/v1/reload", "");
        assert_eq!((answer.status, &answer.json()["error"]), (400, &json!("bad_config")));
        let told = answer.json()["message"].as_str().unwrap().to_owned();
        let lines: Vec<&str> = told.lines().collect();
        assert_eq!(lines.len(), 2, "{told}");
        assert!(lines[0].starts_with("max_conn = 0 from ") && lines[1].contains("rate_messages?"));
        program.log_line("not reloaded, everything stays as it is: max_conn = 0");
        program.log_line("not reloaded, everything stays as it is: unknown key");
        program.write("this is no TOML");
        program.hang_up();
        program.log_line("not reloaded, everything stays as it is: ");
        eventually("it is counted", || match program.figure("config_reloads_failed") == 2 {
            true => Ok(()),
            false => Err("not yet".into()),
        });
        assert_eq!(program.figure("config_reloads"), 0);
        assert_eq!(program.figure("max_connections"), 100);
        assert_eq!(program.upgrade("/ws", "").0, 101);
    }

    #[test]
    fn the_api_says_what_has_changed_and_what_needs_a_restart() {
        let good = format!("api_key = '{KEY}'\nmax_conn = 1\n");
        let program = Configured::start(&good);
        let (status, client) = program.upgrade("/ws", "");
        assert_eq!(status, 101);
        let mut waiting = program.begin("/ws", "");
        eventually("it waits", || match program.figure("queued") == 1 {
            true => Ok(()),
            false => Err("not yet".into()),
        });
        program.write(&format!("api_key = '{KEY}'\nmax_conn = 2\nport = 1\n"));
        let answer = program.api.post("/v1/reload", "");
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.json(), json!({"changed": ["max_conn"], "needs_restart": ["port"]}));
        assert_eq!(waiting.answer_head().status, 101, "there is a place for it now");
        let answer = program.api.post("/v1/reload", "");
        assert_eq!(answer.json(), json!({"changed": [], "needs_restart": ["port"]}));
        drop((client, waiting));

        let reader =
            "[[api_keys]]\nname = 'reader'\nkey = 'reads-and-no-more'\nscopes = ['read']\n";
        program.write(&format!("{good}{reader}"));
        let answer = program.api.post("/v1/reload", "").json();
        assert_eq!(answer["changed"], json!(["max_conn", "api_keys"]));
        let reader = program.api.with_key("reads-and-no-more");
        assert_eq!(reader.get("/v1/rooms").status, 200);
        assert_eq!(reader.post("/v1/reload", "").status, 403);
    }

    #[test]
    fn a_file_that_is_a_pipe_now_is_not_read() {
        let settings = format!("api_key = '{KEY}'\n");
        let program = Configured::start(&settings);
        let file = program.dir.path().join("server.toml");
        fs::remove_file(&file).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(&file).status().unwrap().success());
        program.hang_up();
        let line = program.log_line("not reloaded, everything stays as it is: ");
        assert!(line.ends_with("it is no regular file, so it cannot be read again"), "{line}");
        fs::remove_file(&file).unwrap();
        program.write(&format!("{settings}max_conn = 7\n"));
        program.hang_up();
        program.log_line("reloaded: max_conn changed");
    }
}
