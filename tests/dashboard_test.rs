//! The dashboard of the program, and what it stands on: live figures, settings, and what a key may
//! be used for.

#![allow(clippy::unwrap_used, reason = "a test that unwraps fails with a clear message")]

mod support;
#[path = "support/http.rs"]
mod http;
#[path = "support/program.rs"]
mod program;

use std::{
    net::{SocketAddr, TcpStream},
    process::Command,
    time::{Duration, Instant},
};

use http::{Api, KEY};
use program::Program;
use rusty_socks::{
    Config, Error, ErrorKind, Server,
    config::{ApiKey, ApiScope, ConfigSource, Secret},
};
use serde_json::{Value, json};
use support::{
    Answer, Client, DEADLINE, RawClient, TestServer, eventually, frame, try_connect, upgrade_head,
};
use tungstenite::Message;

const READER: &str = "a-key-of-the-test-for-reading";
const SHOP: &str = "a-key-of-the-test-for-some-rooms";
const PAGES: [&str; 3] = ["/dashboard", "/dashboard.css", "/dashboard.js"];

/// A server with a key for reading, and one for some rooms.
fn start(config: Config) -> (TestServer, Api) {
    let key = |name: &str, key: &str, rooms: &str| ApiKey {
        name: name.into(),
        key: Secret::new(key),
        scopes: vec![ApiScope::Read],
        rooms: vec![rooms.into()],
    };
    let api_keys = vec![key("reader", READER, "*"), key("shop", SHOP, "shop.*")];
    let server = TestServer::start(Config { api_keys, ..config });
    let api = Api::of(&server);
    (server, api)
}

fn first(key: &str) -> String {
    json!({"type": "auth", "key": key}).to_string()
}

/// A viewer that has sent its key.
fn view(api: &Api, key: &str) -> Client {
    let mut viewer = try_connect(api.addr, "/v1/live").unwrap();
    viewer.send(first(key));
    viewer
}

/// Reads figures until there are some for which `check` holds.
fn shown(viewer: &mut Client, mut check: impl FnMut(&Value) -> bool) -> Value {
    let end = Instant::now() + DEADLINE;
    while Instant::now() < end {
        let figures = viewer.json();
        if check(&figures) {
            return figures;
        }
    }
    panic!("no such figures in time");
}

/// The code with which a viewer is closed. It may be shown figures before.
fn code(mut viewer: Client) -> u16 {
    let end = Instant::now() + DEADLINE;
    while Instant::now() < end {
        if let Message::Close(close) = viewer.next() {
            return close.unwrap().code.into();
        }
    }
    panic!("a viewer is shown figures, and not closed");
}

/// The address of the admin listener, from the log of the program.
fn admin_of(program: &Program) -> SocketAddr {
    let line = program.log_line("the admin listener is on ");
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

fn get(addr: SocketAddr, path: &str, lines: &str) -> Answer {
    let stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut client = RawClient::new(stream);
    client.send(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n").as_bytes());
    let mut answer = client.answer_head();
    if answer.status != 304 {
        client.read_body(&mut answer);
    }
    answer
}

#[test]
fn the_dashboard_is_for_everybody_on_the_admin_listener_and_knows_nothing() {
    let secret = "a-key-that-nobody-may-see";
    let settings = [("ADMIN_PORT", "0"), ("API_KEY", secret), ("DEFAULT_ROOM", "hidden-room")];
    let (program, bare) = (Program::start(&[], &settings), Program::start(&[], &settings[..1]));
    let (admin, bare) = (admin_of(&program), admin_of(&bare));
    for path in PAGES {
        let answer = get(admin, path, "");
        assert_eq!(answer.status, 200, "{path}");
        assert_eq!(answer.body, get(bare, path, "").body, "the same for everybody");
        let policy = answer.header("Content-Security-Policy").unwrap();
        for part in [
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "connect-src 'self'",
            "form-action 'none'",
            "frame-ancestors 'none'",
            "require-trusted-types-for 'script'",
        ] {
            assert!(policy.contains(part), "{policy}");
        }
        assert!(!policy.contains("unsafe"), "{policy}");
        assert_eq!(answer.header("Referrer-Policy"), Some("no-referrer"));
        assert_eq!(answer.header("X-Content-Type-Options"), Some("nosniff"));
        let known = format!("If-None-Match: {}\r\n", answer.header("ETag").unwrap());
        assert_eq!(get(admin, path, &known).status, 304);
        assert_eq!(get(program.addr, path, "").status, 404, "not on the main port");
    }
    let page = get(admin, "/dashboard", "").body;
    // The policy forbids scripts and styles in the page.
    assert!(!page.contains("<script>") && !page.contains("style=") && !page.contains(" onclick"));
    assert_eq!(get(admin, "/v1/key", "").status, 401, "what it asks for needs a key");
}

#[test]
fn a_page_of_the_admin_listener_has_get_and_head_and_no_path_of_the_server() {
    let builder = || Server::builder().config(http::config());
    let page = |path: &str| builder().admin_page_with(path, "text/plain", &[], "a page").bind();
    let server = TestServer::run(page("/about").unwrap());
    let api = Api::of(&server);
    assert_eq!(api.get("/about").body, "a page");
    let mut client = api.raw();
    client.send(api.head("HEAD", "/about", "").as_bytes());
    assert_eq!(client.answer_head().header("Content-Length"), Some("6"));
    let posted = api.request("POST", "/about", "", "");
    assert_eq!((posted.status, posted.header("Allow")), (405, Some("GET, HEAD")));
    for path in ["about", "/ready", "/metrics", "/a b"] {
        assert_eq!(page(path).err().unwrap().kind(), ErrorKind::InvalidInput, "{path}");
    }
}

/// Without a browser, but with Node where there is one.
#[test]
fn the_script_gives_a_silent_server_up_and_moves_no_row_that_stays() {
    const TEST: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/dashboard.mjs");
    const SCRIPT: &str =
        concat!(env!("CARGO_MANIFEST_DIR"), "/src/bin/rusty_socks/dashboard/dashboard.js");
    match Command::new("node").args([TEST, SCRIPT]).output() {
        Ok(run) => assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr)),
        Err(error) => println!("the script was not tried, for want of Node: {error}"),
    }
}

#[test]
fn the_dashboard_can_be_off() {
    let settings = [("ADMIN_PORT", "0"), ("API_KEY", KEY), ("DASHBOARD", "off")];
    let program = Program::start(&[], &settings);
    let admin = admin_of(&program);
    for path in PAGES {
        assert_eq!(get(admin, path, "").status, 404, "{path}");
    }
    assert_eq!(get(admin, "/health", "").status, 200);
}

#[test]
fn a_key_is_told_what_it_may_be_used_for() {
    let (_server, api) = start(http::config());
    let all = json!({"name": "api", "scopes": ["publish", "read", "admin"], "rooms": ["*"]});
    assert_eq!(api.get("/v1/key").json(), all);
    let some = json!({"name": "shop", "scopes": ["read"], "rooms": ["shop.*"]});
    assert_eq!(api.with_key(SHOP).get("/v1/key").json(), some);
    assert_eq!(api.with_key("no-such-key-of-the-test").get("/v1/key").status, 401);
}

#[test]
fn settings_are_shown_to_the_operator_with_their_sources_and_without_secrets() {
    let secret = "a-secret-of-the-test-that-has-32-bytes";
    let settings = [
        ("ADMIN_PORT", "0"),
        ("API_KEY", KEY),
        ("MAX_CONN", "77"),
        ("HOOK_SECRET", secret),
        ("TOKEN_HMAC_SECRET", secret),
        ("IDENTITY", "optional"),
        ("HOOK_URL", "http://127.0.0.1:9/hook?token=hush-hush"),
    ];
    let program = Program::start(&["--ping", "7"], &settings);
    let admin = admin_of(&program);
    let answer = get(admin, "/v1/settings", &format!("Authorization: Bearer {KEY}\r\n"));
    assert_eq!(answer.status, 200, "{answer:?}");
    for hidden in [secret, KEY, "hush"] {
        assert!(!answer.body.contains(hidden), "{hidden} in {}", answer.body);
    }
    let shown = answer.json();
    let shown = shown["settings"].as_array().unwrap();
    let find = |key: &str| shown.iter().find(|setting| setting["key"] == key).unwrap();
    for (key, value, from) in [
        ("max_conn", "77", "RUSTY_SOCKS_MAX_CONN"),
        ("ping", "7", "--ping"),
        ("buffer", "1024", "default"),
        ("hook_secret", "(set)", "RUSTY_SOCKS_HOOK_SECRET"),
        ("api_key", "(set)", "RUSTY_SOCKS_API_KEY"),
    ] {
        let setting = find(key);
        assert_eq!((&setting["value"], &setting["from"]), (&json!(value), &json!(from)), "{key}");
    }
    assert!(shown.len() >= Config::keys().len());
}

#[test]
fn settings_need_a_key_that_may_do_everything() {
    let (_server, api) = start(http::config());
    assert_eq!(api.get("/v1/settings").status, 200);
    for key in [READER, SHOP] {
        assert_eq!(api.with_key(key).get("/v1/settings").status, 403);
    }
    let settings = api.get("/v1/settings").json();
    assert_eq!(settings["settings"][0]["key"], "host");
    assert_eq!(settings["settings"][0]["from"], Value::Null, "nobody has said");
}

#[test]
fn a_viewer_is_shown_the_figures_again_and_again() {
    let (server, api) = start(http::config());
    let mut viewer = view(&api, READER);
    let figures = viewer.json();
    assert_eq!((&figures["type"], &figures["ready"]["ready"]), (&json!("figures"), &json!(true)));
    assert_eq!(figures["stats"]["active_connections"], 0);
    let at = |figures: &Value| figures["stats"]["uptime_s"].as_f64().unwrap();
    let _client = server.chat();
    let mut last = at(&figures);
    let figures = shown(&mut viewer, |figures| {
        assert!(at(figures) >= last, "no figures of the past");
        last = at(figures);
        figures["stats"]["active_connections"] == 1
    });
    assert_eq!(figures["stats"]["live_viewers"], 1);
    viewer.close();
    server.wait_for("the viewer has gone", |stats| stats.live_viewers == 0);
}

#[test]
fn a_program_shows_its_key_in_the_upgrade() {
    let (_server, api) = start(http::config());
    let upgrade = |api: &Api| {
        let mut client = api.raw();
        let head = upgrade_head("/v1/live");
        let line = format!("Authorization: Bearer {}\r\n\r\n", api.key);
        client.send((head.trim_end().to_owned() + "\r\n" + &line).as_bytes());
        (client.answer().status, client)
    };
    let (status, mut client) = upgrade(&api.with_key(READER));
    assert_eq!(status, 101);
    assert!(client.text().contains("\"figures\""));
    assert_eq!(upgrade(&api.with_key("no-such-key-of-the-test")).0, 401);
    assert_eq!(upgrade(&api.with_key(SHOP)).0, 403);
    assert_eq!(api.get("/v1/live").status, 426, "it is no page");
    assert_eq!(api.post("/v1/live", "").status, 405);
    assert_eq!(api.get(&format!("/v1/live?key={READER}")).status, 400, "no key in an address");
}

#[test]
fn who_shows_no_good_key_sees_nothing() {
    let (server, api) = start(http::config());
    assert_eq!(code(view(&api, "no-such-key-of-the-test")), 4001);
    assert_eq!(code(view(&api, SHOP)), 4003, "figures of the whole server");
    for words in ["", "{}", READER, r#"{"type":"auth"}"#] {
        let mut viewer = try_connect(api.addr, "/v1/live").unwrap();
        viewer.send(words);
        assert_eq!(code(viewer), 4001, "{words:?}");
    }
    let mut large = try_connect(api.addr, "/v1/live").unwrap();
    large.send(first(&"k".repeat(2000)));
    assert_eq!(code(large), 1009);
    let stats = server.stats();
    assert_eq!((stats.live_viewers, stats.rejected["api_unauthorized"]), (0, 6));
}

#[test]
fn a_viewer_that_shows_no_key_in_time_is_closed() {
    let wait = Duration::from_millis(100);
    let (server, api) = start(Config { handshake_timeout: wait, ..http::config() });
    assert_eq!(code(try_connect(api.addr, "/v1/live").unwrap()), 4001);
    assert_eq!(server.stats().rejected["api_unauthorized"], 1);
}

#[test]
fn a_viewer_says_nothing_after_its_key() {
    let (_server, api) = start(http::config());
    let mut viewer = view(&api, READER);
    viewer.json();
    viewer.socket.send(Message::Ping("are you there".into())).unwrap();
    viewer.json();
    viewer.send(first(READER));
    assert_eq!(code(viewer), 1003);
}

#[test]
fn there_are_no_more_viewers_than_allowed() {
    let (server, api) = start(Config { max_live_viewers: 2, ..http::config() });
    let mut viewers = [view(&api, READER), view(&api, READER)];
    viewers.iter_mut().for_each(|viewer| assert_eq!(viewer.json()["type"], "figures"));
    assert_eq!(code(view(&api, READER)), 1013);
    assert_eq!(server.stats().rejected["live_viewers"], 1);
    let [gone, mut stays] = viewers;
    gone.close();
    server.wait_for("one has gone", |stats| stats.live_viewers == 1);
    assert_eq!(view(&api, READER).json()["type"], "figures");
    assert_eq!(stays.json()["type"], "figures");
}

#[test]
fn viewers_leave_connections_to_other_requests() {
    let (server, api) = start(Config { max_admin_conn: 4, ..http::config() });
    let mut viewers = [view(&api, READER), view(&api, READER)];
    viewers.iter_mut().for_each(|viewer| assert_eq!(viewer.json()["type"], "figures"));
    assert_eq!(code(view(&api, READER)), 1013, "the third of four");
    assert_eq!(server.stats().live_viewers, 2);
    server.wait_for("it has gone", |stats| stats.admin_connections == 2);
    assert_eq!(api.get("/health").status, 200);
}

#[test]
fn a_viewer_that_does_not_read_costs_no_more_than_one_showing_and_goes() {
    let config = Config { timeout: Duration::from_secs(2), thread_pool_size: 1, ..http::config() };
    let (server, api) = start(config);
    let mut client = api.raw();
    client.send(upgrade_head("/v1/live").as_bytes());
    assert_eq!(client.answer().status, 101);
    // Pings, so that what the kernel takes for a client is used up by their pongs and not, in an
    // hour, by figures.
    client.send(&frame(0x81, first(READER).as_bytes()));
    let pings = frame(0x89, &[b'p'; 125]).repeat(1000);
    let stream = client.stream.try_clone().unwrap();
    stream.set_write_timeout(Some(Duration::from_millis(100))).unwrap();
    eventually("the viewer is behind", || {
        let _ = std::io::Write::write(&mut &stream, &pings);
        let skipped = server.stats().live_skipped_total;
        if skipped > 0 { Ok(()) } else { Err("nothing was skipped".into()) }
    });
    server.wait_for("the viewer has gone", |stats| stats.live_viewers == 0);
}

/// The source of a server that is reloaded once.
struct Reloaded(Config);

impl ConfigSource for Reloaded {
    fn load(&self) -> Result<Config, Error> {
        Ok(self.0.clone())
    }
}

#[test]
fn a_key_that_a_reload_has_taken_away_sees_nothing_more() {
    let key = |key: &str| Config { api_key: Secret::new(key), ..http::config() };
    let other = "another-key-of-the-test-by-a-reload";
    let builder = rusty_socks::chat::builder(key(KEY)).unwrap().source(Reloaded(key(other)));
    let server = TestServer::run(builder.bind().unwrap());
    let api = Api::of(&server);
    let mut viewer = view(&api, KEY);
    viewer.json();
    assert_eq!(api.post("/v1/reload", "").status, 200);
    assert_eq!(code(viewer), 1012);
    assert_eq!(code(view(&api, KEY)), 4001);
    assert_eq!(view(&api, other).json()["type"], "figures");
}

#[test]
fn a_drain_is_seen_and_not_held_up() {
    // Longer than from one showing to the next.
    let drain_delay = Duration::from_millis(2500);
    let drain_timeout = DEADLINE * 2;
    let (server, api) = start(Config { drain_delay, drain_timeout, ..http::config() });
    let mut viewer = view(&api, READER);
    viewer.json();
    assert_eq!(api.post("/v1/drain", "").status, 200);
    shown(&mut viewer, |figures| figures["ready"]["reasons"] == json!(["draining"]));
    let seen = Instant::now();
    server.handle.join();
    assert!(seen.elapsed() < DEADLINE, "it waited for the viewer");
}
