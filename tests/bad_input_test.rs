//! What a client may get wrong: every field of every command with every wrong kind of value, and
//! worse. Each is told by its documented code, costs no connection, and is none of anybody else's
//! business.

// A helper that panics fails its test with a clear message.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use rusty_socks::Config;
use serde_json::{Value, json};
use support::{
    TestServer, config,
    sessions::{Chat, Loss, lose, number},
};

fn patient() -> Config {
    Config {
        resume_window: Duration::from_secs(60),
        max_errors: 0,
        replay: 0,
        broadcast: true,
        ..config()
    }
}

/// A server, a client that says bad things, and one beside it that must not notice.
struct Scene {
    server: TestServer,
    bad: Chat,
    good: Chat,
    published: u64,
}

impl Scene {
    fn new(config: Config) -> Scene {
        let server = TestServer::start(config);
        let (bad, good) = (Chat::new(&server), Chat::new(&server));
        Scene { server, bad, good, published: 0 }
    }

    /// Sends `frame` and expects an error of that code, and nothing else.
    fn refused(&mut self, frame: &str, code: &str) {
        self.bad.raw(frame);
        let shown: String = frame.chars().take(200).collect();
        let answer = self.bad.next();
        assert_eq!((&answer["type"], &answer["code"]), (&json!("error"), &json!(code)), "{shown}");
        assert!(answer["message"].as_str().is_some_and(|text| text.len() < 500), "{answer}");
    }

    /// Both still work, and nothing that was refused has left a trace.
    fn still_works(&mut self) {
        self.published += 1;
        assert_eq!(self.good.publish("lobby", "still there?"), self.published);
        assert_eq!(number(&self.bad.expect("message")["seq"]), self.published);
        self.published += 1;
        assert_eq!(self.bad.publish("lobby", "yes"), self.published);
        assert_eq!(number(&self.good.expect("message")["seq"]), self.published);
        self.good.expect_silence();
        self.bad.expect_silence();
    }
}

/// One value of each kind, and those at the edges of kinds, as JSON text.
const VALUES: &[(&str, &str)] = &[
    ("null", "null"),
    ("true", "bool"),
    ("false", "bool"),
    ("0", "whole"),
    ("7", "whole"),
    ("18446744073709551615", "whole"),
    ("18446744073709551616", "number"),
    ("99999999999999999999999999999999999999", "number"),
    ("-1", "number"),
    ("-0", "number"),
    ("1.5", "number"),
    ("1.0", "number"),
    ("1e2", "number"),
    ("1e400", "number"),
    ("-1e400", "number"),
    ("\"\"", "text"),
    ("\"text\"", "text"),
    ("\"7\"", "text"),
    ("\"\\ud800\"", "half a text"),
    ("\"a\\u0000b\"", "text"),
    ("[]", "list"),
    ("[1]", "list"),
    ("[[\"a\"]]", "list"),
    ("{}", "object"),
    ("{\"room\":\"a\"}", "object"),
];

/// The commands as they should be, each with a session that may say it: all but the field in
/// question.
const COMMANDS: &[(&str, &[(&str, &str)])] = &[
    ("publish", &[("room", "\"lobby\""), ("content", "1")]),
    ("direct", &[("to", "\"67e55044-10b1-426f-9247-bb680e5fe0c8\""), ("content", "1")]),
    ("broadcast", &[("content", "1")]),
    ("join", &[("room", "\"a\"")]),
    ("leave", &[("room", "\"a\"")]),
    ("history", &[("room", "\"lobby\"")]),
    ("presence", &[("room", "\"lobby\"")]),
    ("resume", &[("session", "\"x\"")]),
    ("ping", &[]),
];

/// What a field takes, and what is said of anything else. `null` is as good as missing everywhere
/// but in `content`; whether that is a mistake is for the command to say.
const FIELDS: &[(&str, &str, &[&str])] = &[
    (
        "ref",
        "text, number",
        &[
            "publish",
            "direct",
            "broadcast",
            "join",
            "leave",
            "history",
            "presence",
            "resume",
            "ping",
        ],
    ),
    ("room", "text", &["publish", "join", "leave", "history", "presence"]),
    ("rooms", "list", &["publish", "resume"]),
    ("sender", "text", &["publish", "direct", "broadcast", "join"]),
    ("echo", "bool", &["publish"]),
    ("since", "object", &["join"]),
    ("presence", "bool", &["join"]),
    ("before", "whole", &["history"]),
    ("after", "whole", &["history"]),
    ("limit", "whole", &["history"]),
    ("watch", "bool", &["presence"]),
    ("to", "text", &["direct"]),
    ("session", "text", &["resume"]),
    ("direct", "whole", &["resume"]),
];

fn command(kind: &str, fields: &[(&str, &str)], field: &str, value: &str) -> String {
    let mut text = format!("{{\"type\":\"{kind}\"");
    for (name, as_it_should_be) in fields.iter().filter(|(name, _)| *name != field) {
        // A publish names one room or several.
        if !(field == "rooms" && *name == "room") {
            text.push_str(&format!(",\"{name}\":{as_it_should_be}"));
        }
    }
    text.push_str(&format!(",\"{field}\":{value}}}"));
    text
}

#[test]
fn every_field_with_every_wrong_kind_of_value_is_a_bad_request() {
    let mut scene = Scene::new(patient());
    let mut tried = 0;
    for (field, kinds, of) in FIELDS {
        for (kind, fields) in COMMANDS.iter().filter(|(kind, _)| of.contains(kind)) {
            for (value, is) in VALUES {
                let is_right = match (*field, *is) {
                    (_, "null") => true,
                    // Given back as it stands, to nobody else.
                    ("ref", "half a text" | "whole") => true,
                    _ => kinds.split(", ").any(|kind| kind == *is),
                };
                if !is_right {
                    scene.refused(&command(kind, fields, field, value), "bad_request");
                    tried += 1;
                }
            }
        }
        scene.still_works();
    }
    assert!(tried > 300, "{tried}");
}

#[test]
fn every_value_that_has_the_right_kind_and_no_sense_is_a_bad_request() {
    let mut scene = Scene::new(patient());
    for frame in [
        // Lists and objects of the wrong things.
        r#"{"content":1,"rooms":[]}"#,
        r#"{"content":1,"rooms":[1]}"#,
        r#"{"content":1,"rooms":["lobby",null]}"#,
        r#"{"content":1,"rooms":[["lobby"]]}"#,
        r#"{"content":1,"rooms":{"0":"lobby"}}"#,
        r#"{"content":1,"rooms":["lobby","lobby"]}"#,
        r#"{"content":1,"rooms":["lobby"],"room":"lobby"}"#,
        r#"{"content":1,"rooms":["lobby","\ud800"]}"#,
        r#"{"type":"join","room":"a","since":{}}"#,
        r#"{"type":"join","room":"a","since":{"epoch":"1"}}"#,
        r#"{"type":"join","room":"a","since":{"seq":1}}"#,
        r#"{"type":"join","room":"a","since":{"epoch":1,"seq":1}}"#,
        r#"{"type":"join","room":"a","since":{"epoch":"1","seq":"1"}}"#,
        r#"{"type":"join","room":"a","since":{"epoch":"1","seq":1e400}}"#,
        r#"{"type":"join","room":"a","since":{"epoch":"1","seq":18446744073709551616}}"#,
        r#"{"type":"join","room":"a","since":{"epoch":"1","seq":-1}}"#,
        r#"{"type":"join","room":"a","since":{"epoch":"1","seq":1.5}}"#,
        r#"{"type":"join","room":"a","since":{"epoch":"1","seq":null}}"#,
        r#"{"type":"join","room":"a","since":{"epoch":null,"seq":1}}"#,
        r#"{"type":"join","room":"a","since":{"epoch":"1","seq":1,"seq":2}}"#,
        r#"{"type":"join","room":"a","since":{"epoch":"\ud800","seq":1}}"#,
        r#"{"type":"resume","session":"x","rooms":[1]}"#,
        r#"{"type":"resume","session":"x","rooms":["lobby"]}"#,
        r#"{"type":"resume","session":"x","rooms":[{"room":"a","epoch":"1"}]}"#,
        r#"{"type":"resume","session":"x","rooms":[{"room":"a","epoch":"1","seq":1e400}]}"#,
        r#"{"type":"resume","session":"x","rooms":[{"room":"","epoch":"1","seq":1}]}"#,
        r#"{"type":"resume","session":"x","rooms":[{"room":"a\u0000","epoch":"1","seq":1}]}"#,
        r#"{"type":"resume","session":"x","rooms":[{"room":"a*","epoch":"1","seq":1}]}"#,
        r#"{"type":"resume","session":"\ud800"}"#,
        // Missing.
        r#"{}"#,
        r#"{"type":"publish"}"#,
        r#"{"type":"publish","room":"lobby"}"#,
        r#"{"type":"direct"}"#,
        r#"{"type":"direct","content":1}"#,
        r#"{"type":"direct","to":"67e55044-10b1-426f-9247-bb680e5fe0c8"}"#,
        r#"{"type":"broadcast"}"#,
        r#"{"type":"join"}"#,
        r#"{"type":"leave"}"#,
        r#"{"type":"history"}"#,
        r#"{"type":"presence"}"#,
        r#"{"type":"resume"}"#,
        r#"{"type":"resume","rooms":[]}"#,
        // No id of anybody.
        r#"{"type":"direct","to":"anna","content":1}"#,
        r#"{"type":"direct","to":"","content":1}"#,
        r#"{"type":"direct","to":"67e55044-10b1-426f-9247-bb680e5fe0c","content":1}"#,
        // Twice.
        r#"{"type":"ping","type":"ping"}"#,
        r#"{"content":1,"content":1}"#,
        r#"{"content":1,"room":"lobby","room":"lobby"}"#,
        r#"{"type":"resume","session":"x","session":"x"}"#,
        r#"{"type":"history","room":"lobby","before":1,"after":1}"#,
        r#"{"content":1,"\u0063ontent":2}"#,
        // A type of no kind.
        r#"{"type":7}"#,
        r#"{"type":["ping"]}"#,
        r#"{"type":{"type":"ping"}}"#,
        r#"{"type":true}"#,
        r#"{"type":"\ud800"}"#,
        // No object.
        "null",
        "7",
        "\"ping\"",
        "[]",
        "[[]]",
        r#"[{"type":"ping"}]"#,
    ] {
        scene.refused(frame, "bad_request");
    }
    scene.still_works();
}

#[test]
fn a_list_is_no_command_whatever_is_in_it() {
    let mut scene = Scene::new(patient());
    for frame in [
        r#"["ping"]"#,
        r#"["join",null,"a"]"#,
        r#"["publish",1,"lobby","from a list"]"#,
        r#"[null,null,"lobby","from a list"]"#,
        r#"[null,null,null,null,null,null,null,null,null,null,null,null,null,null,null,null,null,null]"#,
    ] {
        scene.refused(frame, "bad_request");
    }
    scene.still_works();
}

#[test]
fn a_list_is_no_position() {
    let mut scene = Scene::new(patient());
    scene.refused(r#"{"type":"join","room":"a","since":["1",1]}"#, "bad_request");
    scene.refused(r#"{"type":"resume","session":"x","rooms":[["a","1",1]]}"#, "bad_request");
    scene.still_works();
}

#[test]
fn what_is_no_json_is_told_so() {
    let mut scene = Scene::new(patient());
    for frame in [
        "",
        " ",
        "hello",
        "{",
        "}",
        "{\"content\":",
        "{\"content\":1",
        "{\"content\":1}}",
        "{\"content\":1} {}",
        "{\"content\":01}",
        "{\"content\":+1}",
        "{\"content\":.5}",
        "{\"content\":1.}",
        "{\"content\":1e}",
        "{\"content\":0x10}",
        "{\"content\":NaN}",
        "{\"content\":Infinity}",
        "{\"content\":undefined}",
        "{\"content\":'a'}",
        "{content:1}",
        "{\"content\":1,}",
        "{\"content\":[1,]}",
        "{\"content\":/* no */1}",
        "{\"content\":\"\\u00\"}",
        "{\"content\":\"\\u00g0\"}",
        "{\"content\":\"\\x41\"}",
        "{\"content\":\"\\\"}",
        "{\"content\":\"a\nb\"}",
        "{\"content\":\"a\tb\"}",
        "{\"content\":\"\0\"}",
        "{\"type\":\"\\u00\"}",
        "{\"type\":\"join\",\"room\":\"\\u00\"}",
        "{\"type\":\"resume\",\"session\":\"\\u00\"}",
        "\u{feff}{\"content\":1}",
        "{\"content\":tru}",
        "{\"content\":\"unended}",
    ] {
        scene.refused(frame, "invalid_json");
    }
    scene.still_works();
}

#[test]
fn a_type_that_nobody_knows_is_told_so() {
    let mut scene = Scene::new(patient());
    for kind in ["", "Ping", "ping ", "PUBLISH", "welcome", "ok", "message", "gap", "\u{0}", "💥"]
    {
        scene.refused(
            &json!({"type": kind, "room": "lobby", "content": 1}).to_string(),
            "unknown_type",
        );
    }
    scene.still_works();
}

#[test]
fn names_that_are_none_are_bad_requests() {
    let mut scene = Scene::new(patient());
    let too_long = "x".repeat(129);
    let too_long_in_bytes = "é".repeat(65);
    for name in [
        "",
        "a\0",
        "\u{1}",
        "a\nb",
        "\u{7f}",
        "\u{85}",
        "*",
        "a*",
        "*.a",
        ".*",
        "a.*.*",
        &too_long,
        &too_long_in_bytes,
    ] {
        let frame = json!({"type": "join", "room": name}).to_string();
        scene.refused(&frame, "bad_request");
        let place = json!({"room": name, "epoch": "1", "seq": 1});
        let frame = json!({"type": "resume", "session": "x", "rooms": [place]}).to_string();
        scene.refused(&frame, "bad_request");
        for kind in ["history", "presence"] {
            let frame = json!({"type": kind, "room": name}).to_string();
            scene.refused(&frame, "not_member");
        }
        let frame = json!({"content": 1, "rooms": ["lobby", name]}).to_string();
        scene.refused(&frame, "not_member");
    }
    assert_eq!(scene.server.stats().rooms, 1);
    scene.still_works();
}

#[test]
fn what_is_too_long_is_told_so() {
    let mut scene = Scene::new(patient());
    let name = "x".repeat(255);
    for kind in ["publish", "direct", "broadcast", "join"] {
        let mut frame = json!({"type": kind, "room": "lobby", "content": 1, "sender": name});
        frame["to"] = json!("67e55044-10b1-426f-9247-bb680e5fe0c8");
        scene.refused(&frame.to_string(), "too_large");
    }
    for kind in COMMANDS.iter().map(|(kind, _)| kind) {
        let frame = json!({"type": kind, "ref": "x".repeat(127)}).to_string();
        scene.refused(&frame, "too_large");
        let frame = format!("{{\"type\":\"{kind}\",\"ref\":{}}}", "1".repeat(129));
        scene.refused(&frame, "too_large");
    }
    scene.still_works();
}

#[test]
fn a_hundred_thousand_brackets_are_no_trouble() {
    const DEEP: usize = 100_000;
    let mut scene =
        Scene::new(Config { max_message_bytes: 1 << 20, buffer_bytes: 16 << 20, ..patient() });
    let lists = format!("{}{}", "[".repeat(DEEP), "]".repeat(DEEP));
    let objects = format!("{}1{}", "{\"a\":".repeat(DEEP), "}".repeat(DEEP));
    for content in [&lists, &objects] {
        scene.refused(&format!("{{\"content\":{content}}}"), "bad_request");
        // What is not known is not passed on, and may be as deep as it likes.
        scene.bad.raw(&format!("{{\"type\":\"ping\",\"mood\":{content},\"ref\":1}}"));
        assert_eq!(scene.bad.expect("pong")["ref"], 1);
        for (field, _, of) in FIELDS {
            for (kind, fields) in COMMANDS.iter().filter(|(kind, _)| of.contains(kind)) {
                scene.refused(&command(kind, fields, field, content), "bad_request");
            }
        }
        let frame = format!("{{\"type\":{content}}}");
        scene.refused(&frame, "bad_request");
        for inside in [
            format!(r#"{{"type":"join","room":"a","since":{{"epoch":{content},"seq":1}}}}"#),
            format!(r#"{{"type":"join","room":"a","since":{{"epoch":"1","seq":{content}}}}}"#),
            format!(r#"{{"type":"resume","session":"x","rooms":[{content}]}}"#),
            format!(r#"{{"content":1,"rooms":["lobby",{content}]}}"#),
        ] {
            scene.refused(&inside, "bad_request");
        }
    }
    scene.refused(&lists, "bad_request");
    scene.refused(&"[".repeat(DEEP), "invalid_json");
    scene.refused(&"{\"a\":".repeat(DEEP), "invalid_json");
    scene.refused(&format!("{{\"content\":{}", "[".repeat(DEEP)), "invalid_json");
    scene.refused(&format!("{{\"content\":{}1}}", "[".repeat(DEEP)), "invalid_json");
    // Something unknown in a place is passed over, however deep it is.
    let deep_place = format!(r#"{{"room":"a","epoch":"1","seq":1,"mood":{lists}}}"#);
    scene.refused(
        &format!(r#"{{"type":"resume","session":"x","rooms":[{deep_place}]}}"#),
        "unrecoverable",
    );
    scene.still_works();
}

#[test]
fn a_hundred_thousand_things_beside_each_other_are_no_trouble() {
    let mut scene =
        Scene::new(Config { max_message_bytes: 1 << 20, buffer_bytes: 16 << 20, ..patient() });
    let fields: String = (0..50_000).map(|n| format!(",\"f{n}\":{n}")).collect();
    scene.bad.raw(&format!("{{\"type\":\"ping\"{fields}}}"));
    scene.bad.expect("pong");
    let names: Vec<String> = (0..50_000).map(|n| format!("r{n}")).collect();
    scene.refused(&json!({"content": 1, "rooms": names}).to_string(), "bad_request");
    let escapes = "\\u0041".repeat(100_000);
    scene.refused(&format!("{{\"type\":\"{escapes}\"}}"), "unknown_type");
    scene.refused(&format!("{{\"type\":\"join\",\"room\":\"{escapes}\"}}"), "bad_request");
    scene.refused(
        &format!("{{\"type\":\"direct\",\"content\":1,\"to\":\"{escapes}\"}}"),
        "bad_request",
    );
    scene.still_works();
}

#[test]
fn many_places_in_a_resume_are_bounded() {
    let mut scene =
        Scene::new(Config { max_message_bytes: 1 << 20, buffer_bytes: 16 << 20, ..patient() });
    let place = |n: usize| json!({"room": format!("r{n}"), "epoch": "1", "seq": 0});
    let places: Vec<Value> = (0..10_000).map(place).collect();
    let frame = json!({"type": "resume", "session": "x", "rooms": places}).to_string();
    scene.refused(&frame, "unrecoverable");
    // It is in the lobby, and may be in 100 rooms.
    for (places, code) in
        [(10_000, "limit_exceeded"), (102, "limit_exceeded"), (101, "bad_request")]
    {
        let places: Vec<Value> = (0..places).map(place).collect();
        let frame = json!({"type": "resume", "session": scene.bad.session, "rooms": places});
        scene.refused(&frame.to_string(), code);
    }
    scene.still_works();
}

#[test]
fn fields_that_nobody_knows_are_passed_over() {
    let mut scene = Scene::new(patient());
    let more = r#""mood":"sunny","":[{}],"Type":5,"typ":null,"é":1e400,"client_id":"me","seq":99,"epoch":"x""#;
    for (kind, fields) in COMMANDS.iter().filter(|(kind, _)| !["direct", "resume"].contains(kind)) {
        let fields: String =
            fields.iter().map(|(name, value)| format!(",\"{name}\":{value}")).collect();
        scene.bad.raw(&format!("{{\"type\":\"{kind}\"{fields},\"ref\":1,{more}}}"));
        let answer = scene.bad.next();
        assert_eq!((&answer["ref"], answer["type"] != "error"), (&json!(1), true), "{answer}");
    }
    scene.published += 1;
    let mut got = scene.good.settled();
    got.sort_by_key(|frame| frame["type"].to_string());
    assert_eq!((got.len(), &got[0]["type"], &got[1]["seq"]), (2, &json!("broadcast"), &json!(1)));
    let mut fields: Vec<&String> = got[1].as_object().unwrap().keys().collect();
    fields.sort();
    assert_eq!(fields, ["client_id", "content", "id", "room", "seq", "timestamp", "type"]);
    scene.still_works();
    // Fields of other commands are such fields, too: they are not looked at.
    scene.bad.raw(r#"{"type":"ping","room":5,"since":"x","watch":7,"to":[],"limit":"x","echo":9}"#);
    scene.bad.expect("pong");
    scene.still_works();
}

#[test]
fn half_a_surrogate_pair_is_passed_on_to_nobody() {
    let mut scene = Scene::new(patient());
    // A `ref` goes back to where it came from, byte for byte.
    scene.bad.raw(r#"{"type":"ping","ref":"\ud800"}"#);
    let answer = scene.bad.wire.read().unwrap().into_text().unwrap();
    assert_eq!(answer.as_str(), r#"{"type":"pong","ref":"\ud800"}"#);
    for frame in [
        r#"{"content":"\ud800"}"#,
        r#"{"content":[{"a\udfff":1}]}"#,
        r#"{"content":1,"sender":"\udfff"}"#,
        r#"{"type":"direct","to":"67e55044-10b1-426f-9247-bb680e5fe0c8","content":"\ud83d"}"#,
        r#"{"type":"broadcast","content":"\ud83d \ude00"}"#,
        r#"{"type":"join","room":"a","sender":"\ud83d"}"#,
        r#"{"content":1,"room":"\ud800"}"#,
        r#"{"type":"join","room":"\udc00\ud800"}"#,
        r#"{"type":"leave","room":"\ud800"}"#,
        r#"{"type":"history","room":"\ud800"}"#,
        r#"{"type":"presence","room":"\ud800"}"#,
        r#"{"type":"direct","to":"\ud800","content":1}"#,
    ] {
        scene.refused(frame, "bad_request");
    }
    scene.still_works();
}

#[test]
fn a_number_that_no_double_holds_is_passed_on_to_nobody() {
    let mut scene = Scene::new(patient());
    let long = "9".repeat(5000);
    for number in ["1e309", "-1E+400", long.as_str()] {
        for content in [number.to_owned(), format!("[{{\"a\":{number}}}]")] {
            scene.refused(&format!("{{\"content\":{content}}}"), "bad_request");
        }
    }
    scene.still_works();
}

#[test]
fn forged_sessions_are_unrecoverable_and_cost_nothing() {
    let server = TestServer::start(patient());
    let anna = Chat::new(&server);
    let id = anna.id.replace('-', "");
    let session = lose(&server, anna, Loss::Reset);
    let mut tokens: Vec<String> =
        ["", "x", "null", "0", &"0".repeat(96), &"f".repeat(96)].map(String::from).into();
    tokens.extend([format!("{id}{}", "0".repeat(64)), id.clone(), session.to_uppercase() + "0"]);
    tokens.extend([format!("{session}\0"), format!("\u{feff}{session}"), "é".repeat(48)]);
    tokens.extend(["x".repeat(50_000), "-1".repeat(48), format!("+{}", &session[1..])]);
    for token in tokens {
        let frame = json!({"type": "resume", "session": token});
        let (mut chat, answer) = Chat::first(&server, "/ws", frame);
        assert_eq!(answer["code"], "unrecoverable", "{token:?}");
        chat.publish("lobby", 1);
        chat.close(None);
    }
    // No mistake has told anything, or ended what is there.
    let (_, answer) = Chat::back(&server, &session, json!([]));
    assert_eq!(answer["type"], "ok");
}

#[test]
fn bad_input_in_a_row_does_not_disturb_a_stream() {
    let server = TestServer::start(patient());
    let (mut bad, mut good, mut reader) =
        (Chat::new(&server), Chat::new(&server), Chat::new(&server));
    let frames = [
        "",
        "{",
        "[]",
        "{}",
        r#"{"type":"dance"}"#,
        r#"{"type":"join","room":""}"#,
        r#"{"type":"resume","session":"x"}"#,
        r#"{"content":1,"rooms":["nowhere"]}"#,
        r#"{"type":"direct","to":"67e55044-10b1-426f-9247-bb680e5fe0c8","content":1}"#,
    ];
    for n in 1..=40 {
        frames.iter().for_each(|frame| bad.raw(frame));
        assert_eq!(good.publish("lobby", n), n);
    }
    for n in 1..=40 {
        assert_eq!(number(&reader.expect("message")["seq"]), n);
    }
    let frames: Vec<Value> = bad.settled();
    let errors = frames.iter().filter(|frame| frame["type"] == "error").count();
    assert_eq!((errors, frames.len() - errors), (40 * 9, 40));
}

#[test]
fn as_many_errors_in_a_row_as_are_allowed_end_the_session() {
    let server = TestServer::start(Config { max_errors: 5, ..patient() });
    let mut bad = Chat::new(&server);
    for _ in 0..5 {
        bad.say(json!({"type": "presence", "room": "nowhere"}));
    }
    let (code, before) = bad.closed();
    assert_eq!((code, before.len()), (4008, 5));
    server.wait_for("it is no session any more", |stats| stats.sessions == 0);
}
