//! The examples, run as programs: each serves its page, and does what its page relies on.

#![allow(clippy::unwrap_used, reason = "a test that unwraps fails with a clear message")]

use std::{
    collections::BTreeSet,
    env,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::Once,
};

use serde_json::{Value, json};
use tungstenite::{Message, WebSocket};

mod support;

use support::{DEADLINE, eventually};

/// An example that runs, ended when the test lets go of it.
struct Example {
    child: Child,
    addr: String,
}

impl Example {
    fn start(name: &str, variables: &[(&str, &str)]) -> Example {
        let mut command = Command::new(program(name));
        command.args(["--port", "0"]).envs(variables.iter().copied()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{name}: {error}"));
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = lines.next().unwrap_or_else(|| panic!("{name} has ended")).unwrap();
        let addr = line.split("http://").nth(1).and_then(|rest| rest.split('/').next());
        let addr = addr.unwrap_or_else(|| panic!("no address in {line:?}")).to_owned();
        Example { child, addr }
    }

    /// `GET path`: the head and the body, whole.
    fn get(&self, path: &str) -> (String, String) {
        let mut stream = TcpStream::connect(&self.addr).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        let head = format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.to_owned(), body.to_owned())
    }

    fn connect(&self, path: &str) -> Client {
        let stream = TcpStream::connect(&self.addr).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.set_nodelay(true).unwrap();
        let (socket, _) = tungstenite::client(format!("ws://{}{path}", self.addr), stream).unwrap();
        Client { socket }
    }

    /// The page at `/`, which must be whole, and what it brings along must be there.
    fn check_page(&self) {
        let (head, page) = self.get("/");
        assert!(head.starts_with("HTTP/1.1 200 OK"), "{head}");
        assert!(head.contains("Content-Type: text/html; charset=utf-8"), "{head}");
        assert!(page.trim_end().ends_with("</html>"), "{page}");
        for outside in ["src=\"http", "href=\"http", "url(http", "@import"] {
            assert!(!page.contains(outside), "the page wants something from elsewhere: {outside}");
        }
        let script = page.split("<script type=\"module\">").nth(1).unwrap();
        check_script(script.split("</script>").next().unwrap());
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The program that `cargo run --example` would run. A whole `cargo test` has built it already;
/// when this file is tested alone, it is not there, or not that of today.
fn program(name: &str) -> PathBuf {
    static BUILT: Once = Once::new();
    let test = env::current_exe().unwrap();
    let profile = test.parent().and_then(|deps| deps.parent()).unwrap();
    BUILT.call_once(|| {
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--quiet", "--examples", "--manifest-path"]);
        build.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"));
        build.arg("--target-dir").arg(profile.parent().unwrap());
        let profile = profile.file_name().unwrap().to_str().unwrap();
        build.args(["--profile", if profile == "debug" { "dev" } else { profile }]);
        assert!(build.status().unwrap().success(), "the examples do not build");
    });
    profile.join("examples").join(name).with_extension(env::consts::EXE_EXTENSION)
}

/// Has Node read a module without running it, where there is one.
fn check_script(script: &str) {
    let mut file = tempfile::Builder::new().suffix(".mjs").tempfile().unwrap();
    file.write_all(script.as_bytes()).unwrap();
    match Command::new("node").arg("--check").arg(file.path()).output() {
        Ok(checked) => {
            assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
        }
        Err(error) => println!("the script was not checked, for want of Node: {error}"),
    }
}

struct Client {
    socket: WebSocket<TcpStream>,
}

impl Client {
    fn say(&mut self, command: &Value) {
        self.socket.send(Message::text(command.to_string())).unwrap();
    }

    fn next(&mut self) -> Value {
        loop {
            match self.socket.read().unwrap() {
                Message::Text(text) => return serde_json::from_str(text.as_str()).unwrap(),
                Message::Close(frame) => panic!("closed: {frame:?}"),
                _ => {}
            }
        }
    }

    /// Reads until a frame is as wanted, and returns it.
    fn until(&mut self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        for _ in 0..10_000 {
            let frame = self.next();
            if wanted(&frame) {
                return frame;
            }
        }
        panic!("it never came: {what}");
    }

    fn until_type(&mut self, kind: &str) -> Value {
        self.until(kind, |frame| frame["type"] == kind)
    }

    /// The code that the server closes with.
    fn close_code(&mut self) -> u16 {
        loop {
            if let Message::Close(frame) = self.socket.read().unwrap() {
                return frame.unwrap().code.into();
            }
        }
    }
}

mod game {
    use super::*;

    fn start(grace: &str, scores: &std::path::Path) -> Example {
        let scores = scores.to_str().unwrap();
        Example::start("game", &[("GAME_GRACE", grace), ("GAME_SCORES", scores)])
    }

    fn state_of(client: &mut Client, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        client.until(what, |frame| frame["type"] == "game" && wanted(frame))
    }

    fn sit_down(client: &mut Client, name: &str) -> Value {
        client.say(&json!({ "type": "play", "name": name }));
        client.until_type("seat")
    }

    #[test]
    fn a_whole_game_is_played_watched_and_written_down() {
        let dir = tempfile::tempdir().unwrap();
        let game = start("60", &dir.path().join("scores"));
        game.check_page();

        let (mut anna, mut ben) = (game.connect("/play"), game.connect("/play"));
        let seat = sit_down(&mut anna, " Anna\n");
        assert_eq!(seat["colour"], "red");
        anna.say(&json!({ "type": "drop", "column": 3 }));
        let alone = anna.until_type("error");
        assert_eq!(alone["message"], "there is nobody to play against yet");
        assert_eq!(sit_down(&mut ben, "Ben")["game"], seat["game"], "they are matched");
        let begun =
            state_of(&mut anna, "the second player", |it| it["players"][1]["name"] == "Ben");
        assert_eq!(begun["players"][0]["name"], "Anna");

        let mut eve = game.connect("/play");
        eve.say(&json!({ "type": "games" }));
        assert_eq!(eve.until_type("games")["games"][0]["players"], json!(["Anna", "Ben"]));
        eve.say(&json!({ "type": "watch", "game": seat["game"] }));
        state_of(&mut eve, "what is watched", |it| it["spectators"] == 1);
        eve.say(&json!({ "type": "drop", "column": 0 }));
        assert_eq!(eve.until_type("error")["message"], "you do not play");

        ben.say(&json!({ "type": "drop", "column": 0 }));
        assert_eq!(ben.until_type("error")["message"], "it is not your turn");
        ben.say(&json!({ "type": "drop", "column": 7 }));
        assert_eq!(ben.until_type("error")["message"], "it is not your turn");
        for row in 0..3 {
            anna.say(&json!({ "type": "drop", "column": 0 }));
            let moved = state_of(&mut ben, "a move of Anna's", |it| it["turn"] == "yellow");
            assert_eq!(moved["rows"][row].as_str().unwrap(), "r......", "{moved}");
            ben.say(&json!({ "type": "drop", "column": 7 }));
            assert_eq!(ben.until_type("error")["message"], "there is no such column");
            ben.say(&json!({ "type": "drop", "column": 1 }));
            let is_answered = |it: &Value| it["rows"][row] == "ry.....";
            state_of(&mut anna, "a move of Ben's", is_answered);
        }
        anna.say(&json!({ "type": "drop", "column": 0 }));
        for client in [&mut anna, &mut ben, &mut eve] {
            let over = state_of(client, "the end", |it| !it["over"].is_null());
            assert_eq!(over["over"]["winner"], "red");
            assert_eq!(over["over"]["line"], json!([[0, 0], [1, 0], [2, 0], [3, 0]]));
        }
        ben.say(&json!({ "type": "drop", "column": 1 }));
        assert_eq!(ben.until_type("error")["message"], "the game is over");

        let mut scores = game.connect("/scores");
        eventually("the result is written down", || {
            scores.say(&json!({}));
            match scores.next() {
                table if table["scores"] == json!([["Anna", 1]]) => Ok(()),
                table => Err(table.to_string()),
            }
        });
    }

    #[test]
    fn who_vanishes_may_come_back_and_keeps_the_seat_from_others() {
        let dir = tempfile::tempdir().unwrap();
        let game = start("60", &dir.path().join("scores"));
        let (mut anna, mut ben) = (game.connect("/play"), game.connect("/play"));
        let seat = sit_down(&mut anna, "Anna");
        sit_down(&mut ben, "Ben");
        // Without a word, as when a laptop is shut.
        drop(anna);
        state_of(&mut ben, "Anna is away", |it| it["players"][0]["away"] == true);
        let mut anna = game.connect("/play");
        anna.say(&json!({ "type": "return", "seat": seat["seat"] }));
        assert_eq!(anna.until_type("seat")["colour"], "red");
        state_of(&mut ben, "Anna is back", |it| it["players"][0]["away"] == false);
        let mut elsewhere = game.connect("/play");
        elsewhere.say(&json!({ "type": "return", "seat": seat["seat"] }));
        elsewhere.until_type("seat");
        assert_eq!(anna.close_code(), 4010, "of two windows with one seat the later one has it");
        elsewhere.say(&json!({ "type": "drop", "column": 6 }));
        let moved = state_of(&mut ben, "a move", |it| it["rows"][0] == "......r");
        assert_eq!(moved["players"][0]["away"], false);
        let mut stranger = game.connect("/play");
        stranger.say(&json!({ "type": "return", "seat": "guessed" }));
        stranger.until_type("gone");
    }

    #[test]
    fn who_does_not_come_back_loses() {
        let dir = tempfile::tempdir().unwrap();
        let game = start("0.1", &dir.path().join("scores"));
        let (mut anna, mut ben) = (game.connect("/play"), game.connect("/play"));
        sit_down(&mut anna, "Anna");
        sit_down(&mut ben, "Ben");
        drop(anna);
        let over = state_of(&mut ben, "the end", |it| !it["over"].is_null());
        assert_eq!(over["over"]["winner"], "yellow");
        // And who resigns does so at once.
        sit_down(&mut ben, "Ben");
        let mut carl = game.connect("/play");
        sit_down(&mut carl, "Carl");
        ben.say(&json!({ "type": "leave" }));
        let over = state_of(&mut carl, "the end", |it| !it["over"].is_null());
        assert_eq!(over["over"]["why"], "resigned");
    }
}

mod cursors {
    use super::*;

    /// Reads boards until `name` is at that place, or gone where it is `None`.
    fn until_at(client: &mut Client, name: &str, place: Option<(f64, f64)>) -> Value {
        client.until(&format!("{name} at {place:?}"), |frame| {
            let pointers = frame["pointers"].as_array();
            let found = pointers.and_then(|all| all.iter().find(|it| it["name"] == name));
            let at = found.map(|it| (it["x"].as_f64().unwrap(), it["y"].as_f64().unwrap()));
            frame["type"] == "board" && at == place
        })
    }

    #[test]
    fn pointers_come_move_and_go() {
        let example = Example::start("cursors", &[]);
        example.check_page();
        let (mut anna, mut ben) = (example.connect("/board"), example.connect("/board"));
        anna.say(&json!({ "type": "move", "x": 0, "y": 0 }));
        anna.until_type("error");
        anna.say(&json!({ "type": "enter", "name": "Anna" }));
        let id = anna.until_type("entered")["id"].clone();
        anna.say(&json!({ "type": "move", "x": 0.25, "y": 7 }));
        until_at(&mut anna, "Anna", Some((0.25, 1.0)));
        // Who comes later is shown the board as it is, before anybody moves.
        ben.say(&json!({ "type": "enter", "name": "Ben" }));
        ben.until_type("entered");
        let board = ben.next();
        assert_eq!((&board["type"], &board["pointers"][0]["id"]), (&json!("board"), &id));
        for step in 0..50 {
            ben.say(&json!({ "type": "move", "x": f64::from(step) / 64.0, "y": 0.5 }));
        }
        let board = until_at(&mut anna, "Ben", Some((49.0 / 64.0, 0.5)));
        let pointers = board["pointers"].as_array().unwrap();
        assert_eq!(pointers.len(), 2);
        assert_ne!(pointers[0]["hue"], pointers[1]["hue"], "they can be told apart");
        drop(anna);
        until_at(&mut ben, "Anna", None);
    }
}

/// The page's own JavaScript client, whole.
fn check_client(example: &Example) {
    let mut unread = vec!["/client/index.js".to_owned()];
    let mut read = BTreeSet::new();
    while let Some(path) = unread.pop() {
        if !read.insert(path.clone()) {
            continue;
        }
        let (head, module) = example.get(&path);
        assert!(head.starts_with("HTTP/1.1 200 OK"), "{path}: {head}");
        assert!(head.contains("Content-Type: text/javascript; charset=utf-8"), "{path}: {head}");
        check_script(&module);
        let folder = &path[..=path.rfind('/').unwrap()];
        // Every `from './name.js'` names a module that must be served too.
        for imported in module.split("from './").skip(1) {
            let name = imported.split('\'').next().unwrap();
            unread.push(format!("{folder}{name}"));
        }
    }
    assert!(read.len() > 3, "{read:?}");
}

mod chat {
    use super::*;

    #[test]
    fn rooms_have_names_people_and_history() {
        let example = Example::start("chat", &[]);
        example.check_page();
        check_client(&example);
        let (mut anna, mut ben) = (example.connect("/ws"), example.connect("/ws"));
        let welcome = anna.until_type("welcome");
        assert!(welcome["room"].is_null(), "the page joins its rooms by itself");
        let session = ben.until_type("welcome")["session"].clone();
        for (client, name) in [(&mut anna, "Anna"), (&mut ben, "Ben")] {
            let join = json!({ "type": "join", "room": "tea", "presence": true, "sender": name });
            client.say(&join);
            let joined = client.until_type("ok");
            assert_eq!(joined["count"].as_u64(), Some(if name == "Anna" { 1 } else { 2 }));
        }
        assert_eq!(anna.until_type("joined")["sender"], "Ben");
        let say = json!({
            "type": "publish", "room": "tea", "content": "hi", "sender": "Anna", "echo": true, "ref": 1
        });
        anna.say(&say);
        for client in [&mut anna, &mut ben] {
            let heard = client.until_type("message");
            assert_eq!((&heard["sender"], &heard["content"]), (&json!("Anna"), &json!("hi")));
        }
        ben.say(&json!({ "type": "history", "room": "tea", "limit": 30, "ref": 2 }));
        let page = ben.until("the history", |frame| frame["ref"] == 2);
        assert_eq!(page["messages"][0]["content"], "hi");
        // As after a reload of Ben's page: he is the same, and has missed nothing.
        drop(ben);
        anna.say(&json!({ "type": "publish", "room": "tea", "content": "still there?", "ref": 3 }));
        anna.until("an answer", |frame| frame["ref"] == 3);
        let mut ben = example.connect("/ws");
        let known = json!([{ "room": "tea", "epoch": page["epoch"], "seq": page["seq"] }]);
        ben.say(&json!({ "type": "resume", "session": session, "rooms": known, "ref": 4 }));
        let resumed = ben.until("an answer", |frame| frame["ref"] == 4);
        assert_eq!(resumed["rooms"][0]["messages"][0]["content"], "still there?", "{resumed}");
    }
}

mod ticker {
    use super::*;

    #[test]
    fn the_slow_reader_skips_and_the_others_do_not() {
        let example = Example::start("ticker", &[]);
        example.check_page();
        check_client(&example);
        let mut client = example.connect("/ws");
        client.say(&json!({ "type": "join", "room": "readers" }));
        client.say(&json!({ "type": "join", "room": "prices.gold" }));
        // Every price, in order, or word of those that this busy machine was too slow for.
        let mut last = None;
        for _ in 0..200 {
            let frame = client.until("a price", |frame| frame["room"] == "prices.gold");
            let number = |field: &str| frame[field].as_u64();
            let (first, end) = match frame["type"].as_str() {
                Some("message") => (number("seq"), number("seq")),
                _ => (number("from"), number("to")),
            };
            assert!(
                last.is_none() || first == last.map(|last| last + 1),
                "{frame} behind {last:?}"
            );
            assert!(frame["type"] == "gap" || frame["content"].as_f64().unwrap() > 0.0);
            last = end;
        }
        let report = |name: &'static str| {
            move |frame: &Value| frame["type"] == "message" && frame["content"]["reader"] == name
        };
        let slow = client.until("the slow reader skips", |frame| {
            report("slow")(frame) && frame["content"]["skipped"] != 0
        });
        let fast = client.until("the fast reader", report("fast"));
        let number = |report: &Value, field: &str| report["content"][field].as_u64().unwrap();
        assert!(number(&fast, "skipped") < number(&slow, "skipped"), "{fast} and {slow}");
        assert!(number(&fast, "received") > number(&slow, "received"), "{fast} and {slow}");
    }
}
