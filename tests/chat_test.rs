//! The chat protocol `rusty-socks.v1`, as a client meets it.

// A helper that panics fails its test with a clear message.
#![allow(clippy::unwrap_used)]

mod support;

use std::{collections::HashSet, sync::Arc, time::Duration};

use rusty_socks::{Config, Context, Message as Sent, Publication, RoomError, Server, chat::Chat};
use serde_json::{Value, json};
use support::{Client, DEADLINE, TestServer, config, eventually};
use tungstenite::Message;

/// The message that must work as it stands.
const SEED: &str = r#"{"id":"00000000-0000-0000-0000-000000000000","sender":"test_user","content":"Hello from wscat!","timestamp":"2025-03-15T12:00:00Z"}"#;

/// Publishes `content` to the default room and returns its `seq`.
fn publish(client: &mut Client, content: &str) -> u64 {
    let answer = client.ask(&format!(r#"{{"type":"publish","content":{content},"ref":"p"}}"#));
    assert_eq!(answer["type"], "ok", "{answer}");
    answer["seq"].as_u64().unwrap()
}

/// Publishes the numbers of `range` to the default room.
fn publish_all(client: &mut Client, range: std::ops::RangeInclusive<u64>) {
    for number in range {
        publish(client, &number.to_string());
    }
}

fn join(client: &mut Client, room: &str) -> Value {
    let answer = client.ask(&json!({"type": "join", "room": room, "ref": "j"}).to_string());
    assert_eq!(answer["type"], "ok", "{answer}");
    answer
}

/// Sends a `ping` and expects its `pong` next, so that nothing was under way before it.
fn expect_silence(client: &mut Client) {
    client.send(r#"{"type":"ping","ref":"silence"}"#);
    assert_eq!(client.json(), json!({"type": "pong", "ref": "silence"}));
}

/// Sends a faulty frame and expects an error with that code.
fn expect_error(client: &mut Client, frame: &str, code: &str) -> Value {
    let answer = client.ask(frame);
    assert_eq!((&answer["type"], &answer["code"]), (&json!("error"), &json!(code)), "{frame}");
    assert!(answer["message"].is_string(), "{answer}");
    answer
}

fn seqs(messages: &Value) -> Vec<u64> {
    let messages = messages.as_array().unwrap();
    messages.iter().map(|message| message["seq"].as_u64().unwrap()).collect()
}

fn is_uuid(value: &Value) -> bool {
    value.as_str().is_some_and(|text| uuid::Uuid::parse_str(text).is_ok())
}

// ---- welcome
// ---------------------------------------------------------------------------------

#[test]
fn the_first_frame_says_who_and_where_one_is() {
    let server = TestServer::start(Config { ping: Duration::from_millis(1500), ..config() });
    let client = server.chat();
    let welcome = &client.welcome;
    assert!(is_uuid(&welcome["client_id"]) && is_uuid(&welcome["node"]), "{welcome}");
    assert_eq!(welcome["server"], concat!("rusty_socks/", env!("CARGO_PKG_VERSION")));
    assert_eq!((&welcome["room"], &welcome["seq"]), (&json!("lobby"), &json!(0)));
    assert_eq!(welcome["epoch"].as_str().unwrap().len(), 16, "{welcome}");
    assert_eq!(welcome["ping_s"], 1.5);
    assert_eq!(welcome["max_message_bytes"], 64 << 10);
    assert_eq!(welcome["limits"], json!({"max_rooms": 100}), "what is off is left out");
}

#[test]
fn welcome_tells_the_limits_of_a_client() {
    let limited = Config { rate_messages: 20, rate_bytes: 9000, max_rooms_per_conn: 7, ..config() };
    let server = TestServer::start(limited);
    let limits = &server.chat().welcome["limits"];
    assert_eq!(*limits, json!({"rate_messages": 20, "rate_bytes": 9000, "max_rooms": 7}));
}

#[test]
fn no_two_clients_have_one_id() {
    let server = TestServer::start(config());
    let open: Vec<Client> = (0..20).map(|_| server.chat()).collect();
    let mut ids: HashSet<String> =
        open.iter().map(|client| client.welcome["client_id"].to_string()).collect();
    drop(open);
    for _ in 0..20 {
        ids.insert(server.chat().welcome["client_id"].to_string());
    }
    assert_eq!(ids.len(), 40);
}

#[test]
fn without_a_default_room_the_welcome_names_none() {
    let server = TestServer::start(Config { default_room: String::new(), ..config() });
    let mut client = server.chat();
    for absent in ["room", "epoch", "seq"] {
        assert!(client.welcome.get(absent).is_none(), "{}", client.welcome);
    }
    expect_error(&mut client, SEED, "bad_request");
    join(&mut client, "a");
    let answer = client.ask(r#"{"type":"publish","room":"a","content":1,"ref":1}"#);
    assert_eq!((&answer["room"], &answer["seq"]), (&json!("a"), &json!(1)));
    assert_eq!(server.stats().rooms, 1);
}

#[test]
fn the_default_room_takes_nobodys_place_and_has_always_one() {
    let server = TestServer::start(Config { max_rooms: 1, ..config() });
    server.wait_for("it is there", |stats| stats.rooms == 1);
    let (mut client, mut other) = (server.chat(), server.chat());
    join(&mut client, "a");
    expect_error(&mut other, r#"{"type":"join","room":"b"}"#, "limit_exceeded");
    assert_eq!(server.chat().welcome["room"], "lobby");
    assert_eq!(server.stats().rooms, 2);
}

// ---- publish
// ---------------------------------------------------------------------------------

#[test]
fn the_seed_message_reaches_the_others_as_it_stands() {
    let server = TestServer::start(config());
    let (mut sender, mut other) = (server.chat(), server.chat());
    sender.send(SEED);
    let message = other.json();
    assert!(is_uuid(&message["id"]), "{message}");
    assert_ne!(message["id"], "00000000-0000-0000-0000-000000000000", "a nil id is replaced");
    let expected = json!({
        "type": "message", "room": "lobby", "seq": 1, "id": message["id"], "sender": "test_user",
        "content": "Hello from wscat!", "timestamp": "2025-03-15T12:00:00Z",
        "client_id": sender.welcome["client_id"],
    });
    assert_eq!(message, expected);
}

#[test]
fn a_sender_does_not_get_its_own_message() {
    let server = TestServer::start(config());
    let (mut sender, mut other) = (server.chat(), server.chat());
    sender.send(SEED);
    assert_eq!(other.json()["seq"], 1);
    publish(&mut other, "2");
    // A room's messages come in order, so the first would have come before this.
    assert_eq!(sender.json()["seq"], 2);
}

#[test]
fn a_sender_gets_its_own_message_if_it_says_so() {
    let server = TestServer::start(config());
    let (mut sender, mut other) = (server.chat(), server.chat());
    sender.send(r#"{"content":"hi","echo":true}"#);
    let echoed = sender.json();
    assert_eq!((&echoed["type"], &echoed["content"]), (&json!("message"), &json!("hi")));
    assert_eq!(other.json(), echoed, "everyone gets one frame");
}

#[test]
fn a_message_has_only_what_its_sender_gave_and_what_the_server_adds() {
    let server = TestServer::start(config());
    let (mut sender, mut other) = (server.chat(), server.chat());
    sender.send(r#"{"content":"hi","mood":"sunny"}"#);
    let message = other.json();
    let mut fields: Vec<&str> = message.as_object().unwrap().keys().map(String::as_str).collect();
    fields.sort_unstable();
    assert_eq!(fields, ["client_id", "content", "id", "room", "seq", "timestamp", "type"]);
    let timestamp = message["timestamp"].as_str().unwrap();
    assert!(chrono::DateTime::parse_from_rfc3339(timestamp).is_ok(), "{timestamp}");
}

#[test]
fn a_clients_own_id_and_time_are_kept_if_they_are_proper_ones() {
    let server = TestServer::start(config());
    let (mut sender, mut other) = (server.chat(), server.chat());
    let id = "67e55044-10b1-426f-9247-bb680e5fe0c8";
    let upper = id.to_uppercase();
    sender.send(format!(
        r#"{{"content":1,"id":"{upper}","timestamp":"1999-12-31T23:59:59.5+14:00"}}"#
    ));
    let message = other.json();
    assert_eq!(message["id"], id);
    assert_eq!(message["timestamp"], "1999-12-31T23:59:59.5+14:00");

    sender.send(r#"{"content":1,"id":"me","timestamp":"yesterday"}"#);
    let message = other.json();
    assert!(is_uuid(&message["id"]), "{message}");
    assert_ne!(message["timestamp"], "yesterday");
}

#[test]
fn content_is_passed_on_byte_for_byte() {
    let server = TestServer::start(config());
    let (mut sender, mut other) = (server.chat(), server.chat());
    let deep = format!("{}{}", "[".repeat(120), "]".repeat(120));
    let long = format!("\"{}\"", "x".repeat(60_000));
    for content in [
        "null",
        "\"\"",
        "false",
        "-0.0",
        "1.7976931348623157e308",
        "123456789012345678901234567890",
        "{\"b\":1,  \"a\" :\t[ ],\r\n \"b\":2}",
        "\"\\u00e9 é \\/ \\ud83d\\ude00 😀 \u{2028} \\u0000\"",
        "\"\\\"},\\\"seq\\\":7\"",
        "\"العربية עברית 日本語 e\u{301}\"",
        &deep,
        &long,
    ] {
        sender.send(format!("{{\"content\": {content} }}"));
        let message = other.next();
        let text = message.to_text().unwrap();
        let after = text.split_once(",\"content\":").unwrap().1;
        let passed_on = after.split_once(",\"timestamp\":\"").unwrap().0;
        assert_eq!(passed_on, content);
    }
}

#[test]
fn a_sender_is_passed_on_byte_for_byte() {
    let server = TestServer::start(config());
    let (mut sender, mut other) = (server.chat(), server.chat());
    sender.send(r#"{"content":1,"sender":"a \"b\" \u00e9 é"}"#);
    assert!(other.next().to_text().unwrap().contains(r#","sender":"a \"b\" \u00e9 é","#));
}

#[test]
fn only_members_of_its_room_get_a_message() {
    let server = TestServer::start(config());
    let (mut sender, mut member, mut stranger) = (server.chat(), server.chat(), server.chat());
    join(&mut sender, "a");
    join(&mut member, "a");
    sender.send(r#"{"type":"publish","room":"a","content":"for a"}"#);
    assert_eq!(member.json()["content"], "for a");
    publish(&mut sender, "\"for the lobby\"");
    assert_eq!(stranger.json()["content"], "for the lobby");
}

#[test]
fn who_left_gets_no_more() {
    let server = TestServer::start(config());
    let (mut sender, mut member) = (server.chat(), server.chat());
    assert_eq!(member.ask(r#"{"type":"leave","room":"lobby","ref":1}"#)["type"], "ok");
    publish(&mut sender, "1");
    join(&mut member, "lobby");
    publish(&mut sender, "2");
    assert_eq!(member.json()["seq"], 2);
}

// ---- answers
// ---------------------------------------------------------------------------------

#[test]
fn a_command_with_a_ref_is_answered_with_it() {
    let server = TestServer::start(config());
    let mut client = server.chat();
    let answer = client.ask(r#"{"type":"publish","content":1,"ref":"a \"b\" é"}"#);
    let expected =
        json!({"type": "ok", "ref": "a \"b\" é", "room": "lobby", "seq": 1, "id": answer["id"]});
    assert_eq!(answer, expected);
    assert!(is_uuid(&answer["id"]), "{answer}");

    let answer = client.ask(r#"{"type":"join","room":"a","ref":-7}"#);
    let expected = json!({
        "type": "ok", "ref": -7, "room": "a", "epoch": answer["epoch"], "seq": 0,
        "recovered": false, "overflow": "close", "messages": [],
    });
    assert_eq!(answer, expected);

    let answer = client.ask(r#"{"type":"leave","room":"a","ref":0}"#);
    assert_eq!(answer, json!({"type": "ok", "ref": 0, "room": "a"}));
    assert_eq!(client.ask(r#"{"type":"ping","ref":""}"#), json!({"type": "pong", "ref": ""}));
}

#[test]
fn a_message_without_a_type_is_answered_if_it_has_a_ref() {
    let server = TestServer::start(config());
    let answer = server.chat().ask(r#"{"content":"hi","ref":"r"}"#);
    assert_eq!((&answer["type"], &answer["seq"]), (&json!("ok"), &json!(1)));
}

#[test]
fn a_ref_comes_back_byte_for_byte() {
    let server = TestServer::start(config());
    let mut client = server.chat();
    for reference in ["1.50", "1e2", "-0", "\"\\u0041\"", "12345678901234567890123"] {
        client.send(format!(r#"{{"type":"ping","ref":{reference}}}"#));
        let answer = client.next();
        assert_eq!(answer.to_text().unwrap(), format!(r#"{{"type":"pong","ref":{reference}}}"#));
    }
}

#[test]
fn a_command_without_a_ref_is_answered_only_if_it_fails() {
    let server = TestServer::start(config());
    let mut client = server.chat();
    client.send(r#"{"type":"join","room":"a"}"#);
    client.send(r#"{"type":"publish","room":"a","content":1}"#);
    client.send(r#"{"type":"leave","room":"a"}"#);
    expect_silence(&mut client);
    client.send(r#"{"type":"leave","room":"a"}"#);
    let error = client.json();
    assert_eq!((&error["type"], error.get("ref")), (&json!("error"), None));
    client.send(r#"{"type":"ping"}"#);
    assert_eq!(client.json(), json!({"type": "pong"}));
}

// ---- replay, recovery, history
// ---------------------------------------------------------------

#[test]
fn the_last_messages_come_after_the_welcome_and_before_live_ones() {
    let server = TestServer::start(Config { replay: 4, ..config() });
    let mut sender = server.chat();
    publish_all(&mut sender, 1..=7);
    let mut late = server.chat();
    assert_eq!(late.welcome["seq"], 7);
    publish(&mut sender, "8");
    let got: Vec<Value> = (0..5).map(|_| late.json()).collect();
    assert_eq!(seqs(&got.into()), [4, 5, 6, 7, 8]);
}

#[test]
fn a_replay_has_no_more_than_there_is() {
    let server = TestServer::start(config());
    let mut sender = server.chat();
    publish_all(&mut sender, 1..=2);
    let mut late = server.chat();
    assert_eq!((&late.json()["seq"], &late.json()["seq"]), (&json!(1), &json!(2)));
    expect_silence(&mut late);
}

/// Leaves the lobby and comes back as one who was there up to `seq` of `epoch`.
fn come_back(client: &mut Client, epoch: &str, seq: u64) -> Value {
    client.send(r#"{"type":"leave","room":"lobby"}"#);
    let since = json!({"epoch": epoch, "seq": seq});
    client.ask(&json!({"type": "join", "room": "lobby", "since": since, "ref": 1}).to_string())
}

#[test]
fn who_comes_back_gets_all_that_was_missed() {
    let server = TestServer::start(config());
    let mut client = server.chat();
    publish_all(&mut client, 1..=6);
    let epoch = client.welcome["epoch"].as_str().unwrap().to_owned();
    for seen in 0..=6 {
        let answer = come_back(&mut client, &epoch, seen);
        assert_eq!((&answer["recovered"], &answer["seq"]), (&json!(true), &json!(6)));
        assert_eq!(seqs(&answer["messages"]), (seen + 1..=6).collect::<Vec<_>>());
    }
}

#[test]
fn what_is_recovered_reads_as_it_was_first_sent() {
    let server = TestServer::start(config());
    let (mut sender, mut other) = (server.chat(), server.chat());
    sender.send(SEED);
    let message = other.json();
    let epoch = other.welcome["epoch"].as_str().unwrap().to_owned();
    assert_eq!(come_back(&mut other, &epoch, 0)["messages"], json!([message]));
}

#[test]
fn what_cannot_be_recovered_whole_is_not_recovered_at_all() {
    let server = TestServer::start(Config { history: 3, replay: 3, ..config() });
    let mut client = server.chat();
    publish_all(&mut client, 1..=6);
    let epoch = client.welcome["epoch"].as_str().unwrap().to_owned();
    let stale = "00000000000000ff";
    for (what, epoch, seq) in [
        ("aged out", epoch.as_str(), 2),
        ("from the future", epoch.as_str(), 7),
        ("far in the future", epoch.as_str(), u64::MAX),
        ("of another life", stale, 6),
        ("of no life", "", 6),
        ("no epoch at all", "?", 0),
    ] {
        let answer = come_back(&mut client, epoch, seq);
        assert_eq!(
            (&answer["type"], &answer["recovered"]),
            (&json!("ok"), &json!(false)),
            "{what}"
        );
        assert_eq!(answer["messages"], json!([]), "{what}");
        assert_eq!(answer["seq"], 6, "{what}: where one is now is told all the same");
    }
    assert_eq!(seqs(&come_back(&mut client, &epoch, 3)["messages"]), [4, 5, 6]);
}

#[test]
fn more_than_an_outbox_takes_is_not_recovered() {
    // Half of buffer_bytes, 4096, is what one answer may hold: four of these messages and not five.
    let server =
        TestServer::start(Config { max_message_bytes: 4096, buffer_bytes: 8192, ..config() });
    let mut client = server.chat();
    let content = format!("\"{}\"", "x".repeat(750));
    for _ in 0..5 {
        publish(&mut client, &content);
    }
    let epoch = client.welcome["epoch"].as_str().unwrap().to_owned();
    assert_eq!(come_back(&mut client, &epoch, 0)["recovered"], false);
    assert_eq!(seqs(&come_back(&mut client, &epoch, 1)["messages"]), [2, 3, 4, 5]);
}

#[test]
fn a_join_that_asks_what_was_missed_is_answered_without_a_ref() {
    let server = TestServer::start(config());
    let mut client = server.chat();
    client.send(r#"{"type":"join","room":"a","since":{"epoch":"1","seq":0}}"#);
    let answer = client.json();
    assert_eq!((&answer["type"], &answer["recovered"]), (&json!("ok"), &json!(false)));
}

#[test]
fn history_is_paged_both_ways() {
    let server = TestServer::start(config());
    let mut client = server.chat();
    publish_all(&mut client, 1..=9);
    for (range, expected) in [
        ("", (1..=9).collect::<Vec<_>>()),
        (r#","limit":3"#, vec![7, 8, 9]),
        (r#","limit":0"#, vec![]),
        (r#","limit":18446744073709551615"#, (1..=9).collect()),
        (r#","before":7,"limit":3"#, vec![4, 5, 6]),
        (r#","before":2,"limit":3"#, vec![1]),
        (r#","before":1"#, vec![]),
        (r#","before":0"#, vec![]),
        (r#","before":100,"limit":1"#, vec![9]),
        (r#","after":0,"limit":2"#, vec![1, 2]),
        (r#","after":7,"limit":9"#, vec![8, 9]),
        (r#","after":9"#, vec![]),
        (r#","after":18446744073709551615"#, vec![]),
    ] {
        let command = format!(r#"{{"type":"history","room":"lobby","ref":1{range}}}"#);
        let page = client.ask(&command);
        assert_eq!((&page["type"], &page["seq"]), (&json!("ok"), &json!(9)), "{command}");
        assert_eq!(page["epoch"], client.welcome["epoch"]);
        assert_eq!(seqs(&page["messages"]), expected, "{command}");
    }
}

#[test]
fn a_page_ends_where_it_would_fill_the_outbox() {
    let server =
        TestServer::start(Config { max_message_bytes: 4096, buffer_bytes: 8192, ..config() });
    let mut client = server.chat();
    let content = format!("\"{}\"", "x".repeat(750));
    for _ in 0..6 {
        publish(&mut client, &content);
    }
    let page = client.ask(r#"{"type":"history","room":"lobby","ref":1}"#);
    assert_eq!(seqs(&page["messages"]), [3, 4, 5, 6]);
    let page = client.ask(r#"{"type":"history","room":"lobby","after":0,"ref":1}"#);
    assert_eq!(seqs(&page["messages"]), [1, 2, 3, 4]);
}

#[test]
fn a_history_keeps_a_number_of_messages() {
    let server = TestServer::start(Config { history: 3, replay: 3, ..config() });
    let mut client = server.chat();
    publish_all(&mut client, 1..=8);
    let page = client.ask(r#"{"type":"history","room":"lobby","ref":1}"#);
    assert_eq!(seqs(&page["messages"]), [6, 7, 8]);
}

#[test]
fn a_history_keeps_a_number_of_bytes() {
    let server = TestServer::start(Config { history_bytes: 4000, ..config() });
    let mut client = server.chat();
    let content = format!("\"{}\"", "x".repeat(750));
    for _ in 0..8 {
        publish(&mut client, &content);
    }
    let page = client.ask(r#"{"type":"history","room":"lobby","ref":1}"#);
    assert_eq!(seqs(&page["messages"]), [5, 6, 7, 8]);
}

#[test]
fn without_history_messages_are_delivered_and_not_kept() {
    let server = TestServer::start(Config { history: 0, replay: 0, ..config() });
    let (mut sender, mut other) = (server.chat(), server.chat());
    publish_all(&mut sender, 1..=2);
    assert_eq!((&other.json()["seq"], &other.json()["seq"]), (&json!(1), &json!(2)));
    let page = other.ask(r#"{"type":"history","room":"lobby","ref":1}"#);
    assert_eq!((&page["messages"], &page["seq"]), (&json!([]), &json!(2)));
}

#[test]
fn old_messages_are_forgotten_and_numbers_go_on() {
    let server = TestServer::start(Config { history_age: Duration::from_millis(30), ..config() });
    let mut client = server.chat();
    publish_all(&mut client, 1..=3);
    eventually("the history has aged out", || {
        let page = client.ask(r#"{"type":"history","room":"lobby","ref":1}"#);
        assert_eq!(page["seq"], 3);
        let left = seqs(&page["messages"]);
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    });
    assert_eq!(publish(&mut client, "4"), 4);
}

// ---- rooms
// -----------------------------------------------------------------------------------

fn wait_for_rooms(server: &TestServer, expected: usize) {
    eventually("empty rooms are let go", || {
        let rooms = server.stats().rooms;
        if rooms == expected { Ok(()) } else { Err(format!("{rooms} rooms")) }
    });
}

#[test]
fn an_empty_room_goes_and_one_with_members_or_history_stays() {
    let server = TestServer::start(config());
    let (mut client, mut member) = (server.chat(), server.chat());
    for room in ["empty", "kept", "peopled"] {
        join(&mut client, room);
    }
    join(&mut member, "peopled");
    client.ask(r#"{"type":"publish","room":"kept","content":1,"ref":1}"#);
    for room in ["empty", "kept", "peopled"] {
        client.ask(&json!({"type": "leave", "room": room, "ref": 1}).to_string());
    }
    wait_for_rooms(&server, 3);
    assert_eq!(join(&mut client, "kept")["seq"], 1);
    client.ask(r#"{"type":"publish","room":"kept","content":2,"ref":1}"#);
}

#[test]
fn a_room_goes_once_its_history_has_aged_out_and_comes_back_another() {
    let server = TestServer::start(Config { history_age: Duration::from_millis(30), ..config() });
    let mut client = server.chat();
    let first = join(&mut client, "a");
    client.ask(r#"{"type":"publish","room":"a","content":1,"ref":1}"#);
    client.ask(r#"{"type":"leave","room":"a","ref":1}"#);
    wait_for_rooms(&server, 1);
    let since = json!({"epoch": first["epoch"], "seq": 0});
    let again =
        client.ask(&json!({"type": "join", "room": "a", "since": since, "ref": 1}).to_string());
    assert_ne!(again["epoch"], first["epoch"]);
    assert_eq!((&again["seq"], &again["recovered"]), (&json!(0), &json!(false)));
}

#[test]
fn rooms_of_those_who_are_gone_go_too() {
    let server = TestServer::start(config());
    let mut client = server.chat();
    for room in 0..10 {
        join(&mut client, &format!("room {room}"));
    }
    assert_eq!(server.stats().rooms, 11);
    drop(client);
    server.wait_until_empty();
    // The default room stays.
    wait_for_rooms(&server, 1);
}

#[test]
fn a_room_may_have_an_odd_name() {
    let server = TestServer::start(config());
    let (mut sender, mut other) = (server.chat(), server.chat());
    let longest = "é".repeat(64);
    for room in [" ", "a/b?c#d", "\"quoted\\\"", "😀", "\u{202e}rtl", "..", "0", &longest] {
        let answer = join(&mut sender, room);
        assert_eq!(answer["room"], room);
        join(&mut other, room);
        sender.send(json!({"room": room, "content": 1}).to_string());
        assert_eq!(other.json()["room"], room);
    }
}

#[test]
fn one_room_has_one_name_however_it_is_written() {
    let server = TestServer::start(config());
    let mut client = server.chat();
    client.ask(r#"{"type":"join","room":"caf\u00e9","ref":1}"#);
    expect_error(&mut client, r#"{"type":"join","room":"café"}"#, "already_member");
    let answer = client.ask(r#"{"type":"publish","room":"c\u0061f\u00e9","content":1,"ref":1}"#);
    assert_eq!(answer["room"], "café");
}

#[test]
fn a_room_may_not_have_an_illegal_name() {
    let server = TestServer::start(Config { max_errors: 0, ..config() });
    let mut client = server.chat();
    for room in ["", "*", "news*", ".*", "a\nb", "\0", "\u{7f}", "\u{85}", &"x".repeat(129)] {
        let command = json!({"type": "join", "room": room}).to_string();
        expect_error(&mut client, &command, "bad_request");
    }
    assert_eq!(server.stats().rooms, 1);
}

// ---- errors
// ----------------------------------------------------------------------------------

#[test]
fn a_faulty_frame_is_told_by_its_code_and_costs_no_connection() {
    let server = TestServer::start(Config { max_errors: 0, ..config() });
    let mut client = server.chat();
    for (frame, code) in [
        ("", "invalid_json"),
        ("hello", "invalid_json"),
        ("{\"content\":\"a\nb\"}", "invalid_json"),
        ("{\"content\":1", "invalid_json"),
        ("{\"content\":1}{\"content\":2}", "invalid_json"),
        ("[]", "bad_request"),
        ("null", "bad_request"),
        ("{}", "bad_request"),
        (r#"{"content":1,"content":2}"#, "bad_request"),
        (r#"{"type":"publish"}"#, "bad_request"),
        (r#"{"type":"publish","content":1,"echo":1}"#, "bad_request"),
        (r#"{"content":1,"sender":["me"]}"#, "bad_request"),
        (r#"{"type":null}"#, "bad_request"),
        (r#"{"type":"join"}"#, "bad_request"),
        (r#"{"type":"join","room":"a","since":{"epoch":"1"}}"#, "bad_request"),
        (r#"{"type":"join","room":"a","since":{"epoch":"1","seq":-1}}"#, "bad_request"),
        (r#"{"type":"leave"}"#, "bad_request"),
        (r#"{"type":"history"}"#, "bad_request"),
        (r#"{"type":"history","room":"lobby","limit":1.5}"#, "bad_request"),
        (r#"{"type":"history","room":"lobby","before":1,"after":1}"#, "bad_request"),
        (r#"{"type":"ping","ref":{}}"#, "bad_request"),
        (r#"{"type":"dance"}"#, "unknown_type"),
        (r#"{"type":"Publish","content":1}"#, "unknown_type"),
        (r#"{"type":""}"#, "unknown_type"),
    ] {
        expect_error(&mut client, frame, code);
    }
    expect_silence(&mut client);
}

#[test]
fn a_field_that_is_null_is_as_good_as_missing() {
    let server = TestServer::start(config());
    let (mut client, mut other) = (server.chat(), server.chat());
    client.send(
        r#"{"type":null,"ref":null,"room":null,"content":null,"id":null,"sender":null,"timestamp":null,"echo":null}"#,
    );
    let message = other.json();
    assert_eq!(message.get("content"), Some(&Value::Null), "but content may be null");
    assert_eq!((&message["room"], message.get("sender")), (&json!("lobby"), None));
    expect_silence(&mut client);
}

#[test]
fn an_error_bears_the_ref_of_its_command() {
    let server = TestServer::start(config());
    let mut client = server.chat();
    for (frame, code) in [
        (r#"{"type":"dance","ref":"r"}"#, "unknown_type"),
        (r#"{"type":"join","ref":"r"}"#, "bad_request"),
        (r#"{"type":"leave","room":"nowhere","ref":"r"}"#, "not_member"),
        (r#"{"type":"publish","room":"nowhere","content":1,"ref":"r"}"#, "not_member"),
        (r#"{"type":"history","room":"nowhere","ref":"r"}"#, "not_member"),
        (r#"{"type":"join","room":"lobby","ref":"r"}"#, "already_member"),
    ] {
        assert_eq!(expect_error(&mut client, frame, code)["ref"], "r", "{frame}");
    }
}

#[test]
fn who_is_no_member_may_not_publish_or_look() {
    let server = TestServer::start(config());
    let (mut insider, mut outsider) = (server.chat(), server.chat());
    join(&mut insider, "a");
    let publish = r#"{"type":"publish","room":"a","content":1}"#;
    expect_error(&mut outsider, publish, "not_member");
    expect_error(&mut outsider, r#"{"type":"history","room":"a"}"#, "not_member");
    expect_error(&mut outsider, r#"{"type":"leave","room":"a"}"#, "not_member");
    let answer = insider.ask(r#"{"type":"publish","room":"a","content":1,"ref":1}"#);
    assert_eq!(answer["seq"], 1, "nothing was stored before");
}

#[test]
fn names_are_bounded() {
    let server = TestServer::start(config());
    let mut client = server.chat();
    let sender = |bytes| json!({"content": 1, "sender": "x".repeat(bytes)}).to_string();
    expect_error(&mut client, &sender(255), "too_large");
    let reference = json!({"type": "ping", "ref": "x".repeat(127)}).to_string();
    expect_error(&mut client, &reference, "too_large");
    client.send(sender(254));
    expect_silence(&mut client);
}

#[test]
fn the_rooms_of_a_server_are_bounded() {
    // Beside the default room.
    let server = TestServer::start(Config { max_rooms: 2, ..config() });
    let (mut client, mut other) = (server.chat(), server.chat());
    join(&mut client, "a");
    join(&mut client, "b");
    expect_error(&mut client, r#"{"type":"join","room":"c"}"#, "limit_exceeded");
    join(&mut other, "a");
    client.ask(r#"{"type":"leave","room":"b","ref":1}"#);
    wait_for_rooms(&server, 2);
    join(&mut other, "c");
}

#[test]
fn the_rooms_of_a_connection_are_bounded() {
    let server = TestServer::start(Config { max_rooms_per_conn: 2, ..config() });
    let (mut client, mut other) = (server.chat(), server.chat());
    join(&mut client, "a");
    expect_error(&mut client, r#"{"type":"join","room":"b"}"#, "limit_exceeded");
    join(&mut other, "b");
    client.ask(r#"{"type":"leave","room":"lobby","ref":1}"#);
    join(&mut client, "b");
}

#[test]
fn a_binary_message_is_told_that_the_protocol_is_text() {
    let server = TestServer::start(config());
    let mut client = server.chat();
    for bytes in [&b""[..], b"\x00\xff", SEED.as_bytes()] {
        client.socket.send(Message::binary(bytes.to_vec())).unwrap();
        assert_eq!(client.json()["code"], "bad_request");
    }
    expect_silence(&mut client);
}

#[test]
fn too_many_errors_in_a_row_close_the_connection() {
    let server = TestServer::start(Config { max_errors: 3, ..config() });
    let mut client = server.chat();
    for _ in 0..3 {
        client.send("?");
        assert_eq!(client.json()["code"], "invalid_json");
    }
    assert_eq!(u16::from(client.closed().unwrap().code), 4008);
}

#[test]
fn a_success_forgives_the_errors_before_it() {
    let server = TestServer::start(Config { max_errors: 2, ..config() });
    let mut client = server.chat();
    for success in [
        r#"{"type":"ping","ref":1}"#,
        r#"{"content":1,"ref":1}"#,
        r#"{"type":"join","room":"a","ref":1}"#,
        r#"{"type":"leave","room":"a","ref":1}"#,
        r#"{"type":"history","room":"lobby","ref":1}"#,
    ] {
        expect_error(&mut client, "?", "invalid_json");
        assert_eq!(client.ask(success)["ref"], 1, "{success}");
    }
    expect_error(&mut client, "?", "invalid_json");
    client.send(r#"{"content":"a success without an answer is one too"}"#);
    expect_error(&mut client, "?", "invalid_json");
    // Had the error before the last success counted, this would be the end.
    expect_silence(&mut client);
}

// ---- rate ---------------------------------------------------------------------------------------

/// A rate so low that no second message passes while a test runs.
fn rate_limited() -> Config {
    Config { rate_bytes: 1, max_errors: 3, ..config() }
}

#[test]
fn more_than_the_rate_allows_is_refused_with_a_time_to_wait() {
    let server = TestServer::start(rate_limited());
    let mut client = server.chat();
    client.send(r#"{"content":"the first passes"}"#);
    let answer = client.ask(r#"{"content":"the second does not"}"#);
    assert_eq!(answer["code"], "rate_limited");
    assert!(answer["retry_after_ms"].as_u64().is_some_and(|wait| wait > 0), "{answer}");
}

#[test]
fn a_refusal_for_its_rate_bears_the_ref_of_its_command() {
    let server = TestServer::start(rate_limited());
    let mut client = server.chat();
    client.send(r#"{"type":"ping"}"#);
    assert_eq!(client.json()["type"], "pong");
    let answer = client.ask(r#"{"type":"ping","ref":"r"}"#);
    assert_eq!((&answer["code"], &answer["ref"]), (&json!("rate_limited"), &json!("r")));
}

#[test]
fn who_goes_on_above_the_rate_is_closed() {
    let server = TestServer::start(rate_limited());
    let mut client = server.chat();
    for _ in 0..4 {
        client.send(r#"{"type":"ping"}"#);
    }
    assert_eq!(u16::from(client.closed().unwrap().code), 4101);
}

#[test]
fn a_rate_is_for_each_connection_by_itself() {
    let server = TestServer::start(Config { rate_messages: 1, ..config() });
    let (mut greedy, mut modest) = (server.chat(), server.chat());
    greedy.send(r#"{"type":"ping"}"#);
    greedy.send(r#"{"type":"ping"}"#);
    assert_eq!(greedy.json()["type"], "pong");
    assert_eq!(modest.ask(r#"{"type":"ping"}"#)["type"], "pong");
}

// ---- overload and drain
// ----------------------------------------------------------------------

#[test]
fn a_publish_that_finds_a_full_mailbox_is_refused_and_not_stored() {
    // The connection on `/stall` stops its worker for as long as this test holds the gate.
    let (gate, closed) = crossbeam_channel::bounded::<()>(0);
    let (stalled, is_stalled) = crossbeam_channel::bounded(1);
    let stall = move |_: &mut Context<'_, ()>, _: Sent<'_>| {
        stalled.send(()).unwrap();
        let _ = closed.recv_timeout(DEADLINE);
    };
    let config = Config { mailbox: 2, thread_pool_size: 2, ..config() };
    let chat = Chat::new(&config).unwrap();
    let server = Server::builder().config(config).route("/ws", chat).route("/stall", stall);
    let server = TestServer::run(server.bind().unwrap());

    // The worker with the fewest sockets gets the next: the first and the third share one.
    let (mut member, mut publisher) = (server.chat(), server.chat());
    let mut blocker = server.connect("/stall");
    blocker.send("stop");
    is_stalled.recv_timeout(DEADLINE).unwrap();
    let text = |n: u32| format!("{{\"type\":\"message\",\"content\":{n},\"seq\":");
    for n in 1..=2 {
        let before = text(n);
        let publication = Publication::around_seq(&before, "}");
        assert_eq!(server.handle.publish("lobby", publication).unwrap().seq, u64::from(n));
    }
    let refused = server.handle.publish("lobby", "one too many");
    assert_eq!(refused, Err(RoomError::Overloaded));

    let command = r#"{"type":"publish","content":3,"ref":1}"#;
    let answer = expect_error(&mut publisher, command, "overloaded");
    assert!(answer["retry_after_ms"].is_u64() && answer["ref"] == 1, "{answer}");

    drop(gate);
    assert_eq!((&member.json()["seq"], &member.json()["seq"]), (&json!(1), &json!(2)));
    assert_eq!(publish(&mut publisher, "3"), 3, "what was refused has no number");
    assert_eq!(member.json()["content"], 3);
}

#[test]
fn a_drain_says_when_to_come_back_before_it_closes() {
    let server = TestServer::start(config());
    let mut clients: Vec<Client> = (0..5).map(|_| server.chat()).collect();
    server.handle.shutdown(DEADLINE);
    let mut delays = HashSet::new();
    for client in &mut clients {
        let closing = client.json();
        assert_eq!((&closing["type"], &closing["reason"]), (&json!("closing"), &json!("drain")));
        delays.insert(closing["reconnect_after_ms"].as_u64().unwrap());
        assert_eq!(u16::from(client.closed().unwrap().code), 1001);
    }
    // By chance two of five may share one of 5000 delays; that all do is no chance.
    assert!(delays.len() > 1, "{delays:?}");
}

#[test]
fn what_the_operator_publishes_reaches_all_members() {
    let server = TestServer::start(config());
    let mut clients: Vec<Client> = (0..4).map(|_| server.chat()).collect();
    let frame = Arc::new(r#"{"type":"message","content":"from above"}"#.to_owned());
    server.handle.publish("lobby", frame.as_str()).unwrap();
    for client in &mut clients {
        assert_eq!(client.json()["content"], "from above");
    }
    assert_eq!(server.handle.publish("nowhere", "x"), Err(RoomError::NoSuchRoom));
}

#[test]
fn a_published_text_that_is_no_json_leaves_answers_whole() {
    let server = TestServer::start(config());
    let mut client = server.chat();
    server.handle.publish("lobby", "it's \"raw\"").unwrap();
    assert_eq!(client.next(), Message::text("it's \"raw\""));
    server.handle.publish("lobby", &b"\xff"[..]).unwrap();
    client.next();
    client.send(r#"{"type":"history","room":"lobby"}"#);
    let messages = &client.json()["messages"];
    assert_eq!(messages, &json!(["it's \"raw\"", "\u{fffd}"]));
}

#[test]
fn the_protocol_may_be_mounted_beside_other_handlers() {
    let config = config();
    let chat = Chat::new(&config).unwrap();
    let shout = |ctx: &mut Context<'_, ()>, message: Sent<'_>| {
        let text = message.as_text().unwrap_or_default().to_uppercase();
        ctx.send(&text);
    };
    let builder = Server::builder().config(config).route("/chat", chat).route("/shout", shout);
    let server = TestServer::run(builder.bind().unwrap());
    assert_eq!(server.connect("/chat").json()["type"], "welcome");
    let mut client = server.connect("/shout");
    client.send("hi");
    assert_eq!(client.next(), Message::text("HI"));
}
