//! Many rooms at once: patterns, messages to several rooms, and messages to everyone.

// A helper that panics fails its test with a clear message.
#![allow(clippy::unwrap_used)]

mod support;

use std::{collections::BTreeMap, sync::Arc, thread, time::Duration};

use rusty_socks::{Config, RoomName};
use serde_json::{Value, json};
use support::{
    Client, TestServer, config,
    sessions::{Chat, Loss, Numbers, lose, number, place, room_names, room_of, seqs, text},
};

/// A server whose sessions last as long as any test.
fn lasting() -> Config {
    Config { resume_window: Duration::from_secs(60), max_errors: 0, replay: 0, ..config() }
}

fn publish_to(rooms: &[&str], content: impl Into<Value>) -> Value {
    json!({"type": "publish", "rooms": rooms, "content": content.into()})
}

/// The rooms that a client is in, among those named.
fn is_in(chat: &mut Chat, room: &str) -> bool {
    let answer = chat.ask(json!({"type": "presence", "room": room}));
    match answer["type"].as_str() {
        Some("ok") => true,
        _ => {
            assert_eq!(answer["code"], "not_member", "{answer}");
            false
        }
    }
}

fn expect_matched(chat: &mut Chat, pattern: &str, room: &str) -> Value {
    let matched = chat.expect("matched");
    assert_eq!((&matched["pattern"], &matched["room"]), (&json!(pattern), &json!(room)));
    matched
}

// ---- patterns
// --------------------------------------------------------------------------------------

#[test]
fn a_pattern_joins_the_rooms_that_there_are() {
    let server = TestServer::start(lasting());
    let (mut anna, mut ben) = (Chat::outside(&server), Chat::outside(&server));
    let mut positions = BTreeMap::new();
    for room in ["p.a", "p.b", "p.b.c", "p", "p.", "px", "q.a", "P.a"] {
        positions.insert(room, ben.join(room)["epoch"].clone());
    }
    ben.publish("p.a", 1);
    let answer = anna.join("p.*");
    assert_eq!(
        (&answer["room"], room_names(&answer)),
        (&json!("p.*"), ["p.a", "p.b", "p.b.c"].map(String::from).to_vec())
    );
    for (room, seq) in [("p.a", 1), ("p.b", 0), ("p.b.c", 0)] {
        let expected =
            json!({"room": room, "epoch": positions[room], "seq": seq, "overflow": "close"});
        assert_eq!(room_of(&answer, room), &expected);
        let next = ben.publish(room, "live");
        let message = anna.expect("message");
        assert_eq!((&message["room"], &message["seq"]), (&json!(room), &json!(next)));
    }
    for room in ["p", "p.", "px", "q.a", "P.a"] {
        assert!(!is_in(&mut anna, room));
        ben.publish(room, "live");
    }
    anna.expect_silence();
    // It may say something there as well.
    anna.publish("p.b.c", "hello");
    assert_eq!(ben.settled().len(), 1);
}

#[test]
fn a_pattern_without_rooms_is_joined_and_answered() {
    let server = TestServer::start(lasting());
    let mut anna = Chat::outside(&server);
    assert_eq!(anna.join("p.*")["rooms"], json!([]));
    assert_eq!(anna.fails(json!({"type": "join", "room": "p.*"})), "already_member");
    assert_eq!(anna.fails(json!({"type": "leave", "room": "q.*"})), "not_member");
    // It says which rooms there are, so it is answered without a ref.
    anna.say(json!({"type": "join", "room": "q.*"}));
    assert_eq!(anna.expect("ok")["room"], "q.*");
    anna.leave("p.*");
    assert_eq!(anna.fails(json!({"type": "leave", "room": "p.*"})), "not_member");
    // A pattern is no room.
    for command in ["publish", "history", "presence"] {
        let frame = json!({"type": command, "room": "q.*", "content": 1});
        let code = anna.fails(frame);
        assert!(["not_member", "bad_request"].contains(&code.as_str()), "{command}: {code}");
    }
}

#[test]
fn a_pattern_joins_later_rooms_from_their_first_message_on() {
    let server = TestServer::start(lasting());
    let (mut anna, mut ben) = (Chat::outside(&server), Chat::outside(&server));
    anna.join("p.*");
    for room in ["p.a", "p.b.c"] {
        let joined = ben.join(room);
        for n in 1..=3 {
            ben.publish(room, n);
        }
        let matched = expect_matched(&mut anna, "p.*", room);
        let expected = json!({
            "type": "matched", "pattern": "p.*", "room": room, "epoch": joined["epoch"], "seq": 0,
            "overflow": "close",
        });
        assert_eq!(matched, expected);
        for n in 1..=3 {
            assert_eq!(number(&anna.expect("message")["seq"]), n);
        }
    }
    for room in ["p", "p.", "px.a"] {
        ben.join(room);
    }
    anna.expect_silence();
    // The operator makes rooms, too.
    server.handle.open_room(&RoomName::new("p.z").unwrap()).unwrap();
    expect_matched(&mut anna, "p.*", "p.z");
    server.handle.publish("p.z", r#"{"type":"message","room":"p.z","seq":1}"#).unwrap();
    anna.expect("message");
    anna.leave("p.*");
    ben.join("p.later");
    anna.expect_silence();
}

#[test]
fn what_is_said_in_the_first_moment_of_a_room_reaches_who_waits_for_it() {
    const ROOMS: u64 = 60;
    let mut random =
        Numbers::seeded("what_is_said_in_the_first_moment_of_a_room_reaches_who_waits_for_it");
    let config =
        Config { thread_pool_size: 4, max_rooms_per_conn: 1000, buffer: 10_000, ..lasting() };
    let server = Arc::new(TestServer::start(config));
    let mut watchers: Vec<Chat> = (0..4).map(|_| Chat::outside(&server)).collect();
    watchers.iter_mut().for_each(|watcher| drop(watcher.join("p.*")));
    let makers: Vec<_> = (0..3)
        .map(|maker| {
            let (server, mut random) = (Arc::clone(&server), random.split());
            thread::spawn(move || {
                let mut chat = Chat::outside(&server);
                let mut said = 0;
                for n in 0..ROOMS {
                    // Several makers make the same rooms at the same time.
                    let room = format!("p.{}", n + random.below(3));
                    if chat.ask(json!({"type": "join", "room": room}))["type"] == "ok" {
                        chat.say(json!({"room": room, "content": {"maker": maker, "n": n}}));
                        said += 1;
                    }
                }
                chat.settled();
                (chat, said)
            })
        })
        .collect();
    let makers: Vec<(Chat, u64)> = makers.into_iter().map(|maker| maker.join().unwrap()).collect();
    let said: u64 = makers.iter().map(|(_, said)| said).sum();
    for mut watcher in watchers {
        let mut next: BTreeMap<String, u64> = BTreeMap::new();
        let mut got = 0;
        while got < said {
            let frame = watcher.next();
            let room = text(&frame["room"]);
            if frame["type"] == "matched" {
                assert_eq!(next.insert(room, 1), None, "matched once");
            } else {
                let seq = next.get_mut(&room).expect("told of before its first message");
                assert_eq!(number(&frame["seq"]), *seq, "{frame}");
                *seq += 1;
                got += 1;
            }
        }
        watcher.expect_silence();
    }
}

#[test]
fn a_room_that_comes_back_is_matched_again() {
    let server = TestServer::start(lasting());
    let (mut anna, mut ben) = (Chat::outside(&server), Chat::outside(&server));
    anna.join("p.*");
    ben.join("p.a");
    let first = expect_matched(&mut anna, "p.*", "p.a");
    // One room may be left while the pattern stays.
    anna.leave("p.a");
    ben.publish("p.a", "unheard");
    anna.expect_silence();
    assert_eq!(anna.fails(json!({"type": "leave", "room": "p.a"})), "not_member");
    ben.join("p.b");
    expect_matched(&mut anna, "p.*", "p.b");
    ben.leave("p.b");
    anna.leave("p.b");
    server.wait_for("the empty room is gone", |stats| stats.rooms == 2);
    let again = ben.join("p.b");
    let matched = expect_matched(&mut anna, "p.*", "p.b");
    assert_eq!(matched["epoch"], again["epoch"]);
    assert_ne!(matched["epoch"], first["epoch"]);
}

#[test]
fn leaving_a_pattern_leaves_what_it_brought_and_nothing_else() {
    let server = TestServer::start(lasting());
    let (mut anna, mut ben) = (Chat::outside(&server), Chat::outside(&server));
    for room in ["p.own", "p.brought", "q.x"] {
        ben.join(room);
    }
    anna.join("p.own");
    anna.join("q.x");
    let answer = anna.join("p.*");
    assert!(room_names(&answer).contains(&"p.brought".to_owned()), "{answer}");
    ben.join("p.later");
    expect_matched(&mut anna, "p.*", "p.later");
    anna.ok(json!({"type": "presence", "room": "p.later", "watch": true}));
    anna.leave("p.*");
    for (room, stays) in [("p.own", true), ("q.x", true), ("p.brought", false), ("p.later", false)]
    {
        assert_eq!(is_in(&mut anna, room), stays, "{room}");
        ben.publish(room, 1);
    }
    assert_eq!(anna.settled().len(), 2);
    ben.leave("p.later");
    anna.expect_silence();
}

#[test]
fn who_makes_a_room_that_it_waits_for_is_in_it_once() {
    let server = TestServer::start(lasting());
    let (mut anna, mut ben) = (Chat::outside(&server), Chat::outside(&server));
    anna.join("p.*");
    anna.join("p.a");
    ben.join("p.a");
    ben.publish("p.a", 1);
    let frames = anna.settled();
    let messages: Vec<_> = frames.iter().filter(|frame| frame["type"] == "message").collect();
    assert_eq!(messages.len(), 1, "{frames:?}");
    // It asked for the room by its name, so it keeps it.
    anna.leave("p.*");
    assert!(is_in(&mut anna, "p.a"));
    anna.leave("p.a");
    ben.publish("p.a", 2);
    anna.expect_silence();
}

#[test]
fn patterns_that_overlap_bring_a_room_once() {
    let server = TestServer::start(lasting());
    let (mut anna, mut ben) = (Chat::outside(&server), Chat::outside(&server));
    ben.join("p.q.old");
    anna.join("p.*");
    assert_eq!(anna.join("p.q.*")["room"], "p.q.*");
    ben.join("p.q.new");
    let frames = anna.settled();
    assert_eq!(frames.len(), 1, "matched once: {frames:?}");
    for room in ["p.q.old", "p.q.new"] {
        ben.publish(room, 1);
        assert_eq!(anna.expect("message")["room"], room);
    }
    anna.expect_silence();
    // Whichever is left first, the other one keeps what matches it.
    ben.join("p.only");
    expect_matched(&mut anna, "p.*", "p.only");
    anna.leave("p.*");
    assert!(is_in(&mut anna, "p.q.old") && is_in(&mut anna, "p.q.new"));
    assert!(!is_in(&mut anna, "p.only"));
    anna.join("p.*");
    assert!(is_in(&mut anna, "p.only"));
    anna.leave("p.q.*");
    assert!(is_in(&mut anna, "p.q.old") && is_in(&mut anna, "p.q.new"));
    anna.leave("p.*");
    for room in ["p.q.old", "p.q.new", "p.only"] {
        assert!(!is_in(&mut anna, room), "{room}");
    }
}

#[test]
fn a_pattern_that_matches_too_much_is_refused_whole() {
    let server = TestServer::start(Config { max_rooms_per_conn: 3, ..lasting() });
    let (mut anna, mut ben, mut carl) =
        (Chat::outside(&server), Chat::outside(&server), Chat::outside(&server));
    anna.join("p.own");
    for room in ["p.a", "p.b"] {
        ben.join(room);
    }
    carl.join("p.c");
    assert_eq!(anna.fails(json!({"type": "join", "room": "p.*"})), "limit_exceeded");
    assert!(is_in(&mut anna, "p.own") && !is_in(&mut anna, "p.a"));
    carl.join("p.later");
    anna.expect_silence();
    assert_eq!(anna.fails(json!({"type": "leave", "room": "p.*"})), "not_member");
    // Its own room takes no second place, so with one fewer they all fit.
    carl.leave("p.c");
    carl.leave("p.later");
    server.wait_for("empty rooms are gone", |stats| stats.rooms == 4);
    let answer = anna.join("p.*");
    assert_eq!(
        answer["rooms"].as_array().unwrap().iter().filter(|room| room["room"] != "p.own").count(),
        2
    );
}

#[test]
fn a_later_room_beyond_the_bound_is_told() {
    let server = TestServer::start(Config { max_rooms_per_conn: 2, ..lasting() });
    let (mut anna, mut ben, mut carl) =
        (Chat::outside(&server), Chat::outside(&server), Chat::outside(&server));
    anna.join("p.*");
    ben.join("p.a");
    expect_matched(&mut anna, "p.*", "p.a");
    ben.join("p.b");
    expect_matched(&mut anna, "p.*", "p.b");
    carl.join("p.c");
    assert_eq!(anna.settled(), [json!({"type": "unmatched", "pattern": "p.*", "room": "p.c"})]);
    assert!(!is_in(&mut anna, "p.c"));
    carl.publish("p.c", "unheard");
    anna.expect_silence();
    anna.leave("p.a");
    anna.join("p.c");
    carl.publish("p.c", "heard");
    assert_eq!(anna.expect("message")["seq"], 2);
}

#[test]
fn patterns_are_bounded_too() {
    let server = TestServer::start(Config { max_rooms_per_conn: 3, ..lasting() });
    let mut anna = Chat::outside(&server);
    for n in 0..3 {
        anna.join(&format!("p{n}.*"));
    }
    assert_eq!(anna.fails(json!({"type": "join", "room": "p3.*"})), "limit_exceeded");
    anna.leave("p0.*");
    anna.join("p3.*");
}

#[test]
fn a_pattern_is_joined_without_since_and_presence() {
    let server = TestServer::start(lasting());
    let mut anna = Chat::outside(&server);
    for more in [
        json!({"since": {"epoch": "1", "seq": 0}}),
        json!({"presence": true}),
        json!({"since": {"epoch": "1", "seq": 0}, "presence": true}),
    ] {
        let mut frame = json!({"type": "join", "room": "p.*"});
        frame.as_object_mut().unwrap().append(&mut more.as_object().unwrap().clone());
        assert_eq!(anna.fails(frame), "bad_request", "{more}");
    }
    assert_eq!(anna.fails(json!({"type": "leave", "room": "p.*"})), "not_member");
    for bad in
        ["*", ".*", "p*", "p.*.*", "*.p", "p.*.q", "a\n.*", &format!("{}.*", "x".repeat(127))]
    {
        for kind in ["join", "leave"] {
            assert_eq!(anna.fails(json!({"type": kind, "room": bad})), "bad_request", "{bad:?}");
        }
    }
    anna.join(&format!("{}.*", "x".repeat(126)));
    anna.ok(json!({"type": "join", "room": "p.*", "presence": false}));
}

#[test]
fn a_resume_brings_the_rooms_that_were_made_meanwhile() {
    let server = TestServer::start(lasting());
    let (mut anna, mut ben) = (Chat::outside(&server), Chat::outside(&server));
    ben.join("p.old");
    let old = room_of(&anna.join("p.*"), "p.old").clone();
    anna.join("q.*");
    anna.join("other");
    for round in 0..2 {
        let mut kept = None;
        let session = anna.session.clone();
        if round == 0 {
            lose(&server, anna, Loss::Reset);
        } else {
            kept = Some(anna);
        }
        let new = format!("p.new {round}");
        ben.join(&new);
        for n in 0..3 {
            ben.publish(&new, n);
            ben.publish("p.old", n);
        }
        let places = json!([place("p.old", &old["epoch"], round * 4)]);
        let (back, answer) = Chat::back(&server, &session, places);
        anna = back;
        let mut patterns: Vec<String> =
            answer["patterns"].as_array().unwrap().iter().map(text).collect();
        patterns.sort();
        assert_eq!(patterns, ["p.*", "q.*"]);
        let part = room_of(&answer, "p.old");
        assert_eq!((&part["recovered"], seqs(&part["messages"]).len()), (&json!(true), 3));
        let part = room_of(&answer, &new);
        if round == 0 {
            assert_eq!(
                (&part["recovered"], seqs(&part["messages"])),
                (&json!(true), vec![1, 2, 3]),
                "all of it was missed"
            );
        } else {
            // It was there to be matched before the takeover; no position was given.
            assert_eq!((&part["recovered"], &part["seq"]), (&json!(false), &json!(3)));
        }
        assert!(is_in(&mut anna, "other"));
        // And what is made from now on is matched on this connection.
        ben.join(&format!("p.live {round}"));
        expect_matched(&mut anna, "p.*", &format!("p.live {round}"));
        for room in ["p.old", &new] {
            ben.publish(room, "live");
            assert_eq!(anna.expect("message")["room"], room);
        }
        drop(kept);
    }
    anna.expect_silence();
    anna.leave("p.*");
    assert!(!is_in(&mut anna, "p.new 0") && !is_in(&mut anna, "p.old"));
}

#[test]
fn a_room_that_was_left_stays_left_over_a_resume() {
    let server = TestServer::start(lasting());
    let (mut anna, mut ben) = (Chat::outside(&server), Chat::outside(&server));
    ben.join("p.kept");
    ben.join("p.left");
    anna.join("p.*");
    anna.leave("p.left");
    let session = lose(&server, anna, Loss::Reset);
    ben.publish("p.left", "unheard");
    let (mut anna, answer) = Chat::back(&server, &session, json!([]));
    assert_eq!(room_names(&answer), ["p.kept"], "it was left, and is no newly matched room");
    assert!(!is_in(&mut anna, "p.left"));
}

#[test]
fn a_resume_beyond_the_bound_says_what_has_no_place() {
    let server = TestServer::start(Config { max_rooms_per_conn: 2, ..lasting() });
    let (mut anna, mut ben, mut carl) =
        (Chat::outside(&server), Chat::outside(&server), Chat::outside(&server));
    anna.join("own");
    anna.join("p.*");
    let session = lose(&server, anna, Loss::Reset);
    ben.join("p.a");
    ben.join("p.b");
    carl.join("p.c");
    let (mut anna, answer) = Chat::back(&server, &session, json!([]));
    assert_eq!(room_names(&answer), ["own", "p.a"]);
    // One notice for each pattern, about the first: as many as there are rooms would be a flood.
    assert_eq!(text(&anna.expect("unmatched")["room"]), "p.b");
    anna.expect_silence();
    anna.expect_silence();
}

#[test]
fn a_new_room_with_more_than_its_history_is_not_recovered() {
    let server = TestServer::start(Config { history: 2, ..lasting() });
    let (mut anna, mut ben) = (Chat::outside(&server), Chat::outside(&server));
    anna.join("p.*");
    let session = lose(&server, anna, Loss::Reset);
    ben.join("p.a");
    for n in 0..3 {
        ben.publish("p.a", n);
    }
    let (_, answer) = Chat::back(&server, &session, json!([]));
    let part = room_of(&answer, "p.a");
    assert_eq!((&part["recovered"], &part["seq"]), (&json!(false), &json!(3)));
    assert_eq!(part["messages"], json!([]));
}

#[test]
fn those_who_wait_for_rooms_and_are_gone_cost_nothing() {
    let server = TestServer::start(lasting());
    let mut ben = Chat::outside(&server);
    for how in [None, Some(Loss::Reset)] {
        let mut anna = Chat::outside(&server);
        anna.join("p.*");
        match how {
            None => anna.close(None),
            Some(how) => drop(lose(&server, anna, how)),
        }
        ben.join("p.a");
        ben.leave("p.a");
        server.wait_for("nobody keeps the room", |stats| stats.rooms == 1);
    }
}

// ---- several rooms at once
// -------------------------------------------------------------------------

#[test]
fn one_message_to_several_rooms_is_numbered_in_each_and_comes_once() {
    let server = TestServer::start(lasting());
    let mut chats: Vec<Chat> = (0..4).map(|_| Chat::outside(&server)).collect();
    // The publisher is in all three; the others are in one, two and three of them.
    for (chat, rooms) in
        chats.iter_mut().zip([&["a", "b", "c"][..], &["a"], &["c", "b"], &["b", "c", "a"]])
    {
        rooms.iter().for_each(|room| drop(chat.join(room)));
    }
    let [anna, one, two, three] = &mut chats[..] else { panic!("four") };
    one.publish("a", 1);
    three.publish("c", 1);
    three.publish("c", 2);
    anna.settled();
    for chat in [&mut *one, &mut *two, &mut *three] {
        chat.settled();
    }
    let id = "67e55044-10b1-426f-9247-bb680e5fe0c8";
    let command = json!({
        "type": "publish", "rooms": ["c", "a", "b"], "content": {"x": 1}, "id": id,
        "sender": "anna", "timestamp": "2025-03-15T12:00:00Z",
    });
    let answer = anna.ok(command);
    let rooms = json!([{"room": "c", "seq": 3}, {"room": "a", "seq": 2}, {"room": "b", "seq": 1}]);
    assert_eq!((&answer["rooms"], &answer["id"]), (&rooms, &json!(id)));
    assert!(answer.get("room").is_none() && answer.get("repeated").is_none(), "{answer}");
    let expected = json!({
        "type": "message", "room": "c", "seq": 3, "rooms": rooms, "id": id, "sender": "anna",
        "content": {"x": 1}, "timestamp": "2025-03-15T12:00:00Z", "client_id": anna.id,
    });
    for chat in [one, two, three] {
        assert_eq!(chat.settled(), std::slice::from_ref(&expected));
    }
    anna.expect_silence();
    // It is kept in each of them.
    for (room, seq) in [("c", 3), ("a", 2), ("b", 1)] {
        let history = anna.ok(json!({"type": "history", "room": room, "limit": 1}));
        assert_eq!((&history["messages"], &history["seq"]), (&json!([expected]), &json!(seq)));
        assert_eq!(anna.publish(room, "next"), seq + 1);
    }
}

#[test]
fn the_fields_of_such_a_message_have_their_order() {
    let server = TestServer::start(lasting());
    let mut anna = Chat::outside(&server);
    anna.join("a");
    anna.join("\"b\"");
    anna.raw(
        r#"{"type":"publish","rooms":["a","\"b\""],"content":[1, 2],"id":"67e55044-10b1-426f-9247-bb680e5fe0c8","timestamp":"2025-03-15T12:00:00Z","echo":true}"#,
    );
    let text = anna.wire.read().unwrap().into_text().unwrap();
    let expected = format!(
        r#"{{"type":"message","room":"a","seq":1,"rooms":[{{"room":"a","seq":1}},{{"room":"\"b\"","seq":1}}],"id":"67e55044-10b1-426f-9247-bb680e5fe0c8","content":[1, 2],"timestamp":"2025-03-15T12:00:00Z","client_id":"{}"}}"#,
        anna.id
    );
    assert_eq!(text.as_str(), expected);
}

#[test]
fn echo_and_one_room_alone_work_as_ever() {
    let server = TestServer::start(lasting());
    let (mut anna, mut ben) = (Chat::outside(&server), Chat::outside(&server));
    for chat in [&mut anna, &mut ben] {
        chat.join("a");
        chat.join("b");
    }
    anna.say(json!({"rooms": ["a", "b"], "content": 1, "echo": true}));
    let echoed = anna.expect("message");
    assert_eq!(ben.expect("message"), echoed);
    let answer = anna.ok(publish_to(&["b"], 1));
    assert_eq!(answer["rooms"], json!([{"room": "b", "seq": 2}]));
    let message = ben.expect("message");
    assert_eq!((&message["room"], &message["seq"]), (&json!("b"), &json!(2)));
    anna.expect_silence();
}

#[test]
fn who_is_not_in_all_of_them_publishes_to_none() {
    let server = TestServer::start(lasting());
    let (mut anna, mut ben) = (Chat::outside(&server), Chat::outside(&server));
    for room in ["a", "b", "c"] {
        ben.join(room);
    }
    anna.join("a");
    anna.join("b");
    for rooms in [&["a", "c"][..], &["c", "a"], &["a", "b", "c"], &["nowhere"], &["a", "p.*"]] {
        assert_eq!(anna.fails(publish_to(rooms, 1)), "not_member", "{rooms:?}");
    }
    assert_eq!(anna.fails(publish_to(&["a", "a"], 1)), "bad_request");
    assert_eq!(anna.fails(publish_to(&["a", "b", "a"], 1)), "bad_request");
    assert_eq!(anna.fails(publish_to(&[], 1)), "bad_request");
    let both = json!({"room": "a", "rooms": ["b"], "content": 1});
    assert_eq!(anna.fails(both), "bad_request");
    ben.expect_silence();
    assert_eq!((anna.publish("a", 1), anna.publish("b", 1)), (1, 1), "nothing was numbered");
}

#[test]
fn at_most_32_rooms_get_one_message() {
    let server = TestServer::start(lasting());
    let mut anna = Chat::outside(&server);
    let names: Vec<String> = (0..33).map(|n| format!("room {n}")).collect();
    names.iter().for_each(|name| drop(anna.join(name)));
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    assert_eq!(anna.fails(publish_to(&names, 1)), "bad_request");
    let answer = anna.ok(publish_to(&names[..32], 1));
    assert_eq!(answer["rooms"].as_array().unwrap().len(), 32);
    assert_eq!(anna.publish(names[32], 1), 1);
}

#[test]
fn a_message_of_several_rooms_is_recovered_in_each() {
    let server = TestServer::start(lasting());
    let (mut anna, mut ben) = (Chat::outside(&server), Chat::outside(&server));
    let (a, b) = (anna.join("a"), anna.join("b"));
    for room in ["a", "b", "c"] {
        ben.join(room);
    }
    let session = lose(&server, anna, Loss::Reset);
    ben.ok(publish_to(&["a", "c", "b"], "both"));
    ben.ok(publish_to(&["c", "b"], "one"));
    let places = json!([place("a", &a["epoch"], 0), place("b", &b["epoch"], 0)]);
    let (_, answer) = Chat::back(&server, &session, places);
    let (a, b) = (room_of(&answer, "a"), room_of(&answer, "b"));
    assert_eq!(a["messages"].as_array().unwrap().len(), 1);
    assert_eq!(a["messages"][0], b["messages"][0]);
    let rooms = &b["messages"][1]["rooms"];
    assert_eq!(rooms, &json!([{"room": "c", "seq": 2}, {"room": "b", "seq": 2}]));
}

/// Which rooms a member of the test below is in, by its number.
fn rooms_of_member(member: usize) -> Vec<&'static str> {
    let rooms = ["a", "b", "c"];
    (0..3).filter(|room| member & (1 << room) != 0).map(|room| rooms[room]).collect()
}

#[test]
fn all_orders_agree_however_single_and_joint_publishes_mix() {
    const EACH: u64 = 80;
    let mut random = Numbers::seeded("all_orders_agree_however_single_and_joint_publishes_mix");
    let config = Config {
        thread_pool_size: 4,
        buffer: 100_000,
        history: 100_000,
        history_bytes: 64 << 20,
        ..lasting()
    };
    let server = Arc::new(TestServer::start(config));
    let mut members: Vec<(Vec<&str>, Chat)> = (1..8)
        .map(|member| {
            let mut chat = Chat::outside(&server);
            let rooms = rooms_of_member(member);
            rooms.iter().for_each(|room| drop(chat.join(room)));
            (rooms, chat)
        })
        .collect();
    let publishers: Vec<_> = (0..4)
        .map(|publisher| {
            let (server, mut random) = (Arc::clone(&server), random.split());
            thread::spawn(move || {
                let mut chat = Chat::outside(&server);
                rooms_of_member(7).iter().for_each(|room| drop(chat.join(room)));
                for n in 0..EACH {
                    let content = json!([publisher, n]);
                    let mut rooms = rooms_of_member(1 + random.below(7) as usize);
                    // In any order, so that locks are asked for in any order.
                    let turn = random.below(3) as usize % rooms.len();
                    rooms.rotate_left(turn);
                    match rooms[..] {
                        [room] if random.chance(50) => drop(chat.publish(room, content)),
                        _ => drop(chat.ok(publish_to(&rooms, content))),
                    }
                }
            })
        })
        .collect();
    publishers.into_iter().for_each(|publisher| publisher.join().unwrap());
    // What each room says for itself.
    let mut asker = Chat::outside(&server);
    let mut truth: BTreeMap<&str, Vec<Value>> = BTreeMap::new();
    for room in rooms_of_member(7) {
        asker.join(room);
        let history = asker.ok(json!({"type": "history", "room": room}));
        let messages = history["messages"].as_array().unwrap().clone();
        assert_eq!(messages.len() as u64, number(&history["seq"]));
        truth.insert(room, messages);
    }
    for (rooms, chat) in &mut members {
        let got = chat.settled();
        let mut contents = std::collections::BTreeSet::new();
        for message in &got {
            assert!(contents.insert(message["content"].to_string()), "twice: {message}");
        }
        for room in rooms.iter() {
            let of_room: Vec<(u64, &Value)> =
                got.iter()
                    .filter_map(|message| {
                        let own = |part: &&Value| part["room"] == *room;
                        match message.get("rooms") {
                            Some(rooms) => {
                                let part = rooms.as_array().unwrap().iter().find(own)?;
                                Some((number(&part["seq"]), message))
                            }
                            None => (message["room"] == *room)
                                .then(|| (number(&message["seq"]), message)),
                        }
                    })
                    .collect();
            let expected: Vec<(u64, &Value)> = (1..).zip(&truth[room]).collect();
            assert_eq!(of_room, expected, "{rooms:?} in {room}");
        }
    }
    // What two rooms share stands in the same order in both.
    for (one, other) in [("a", "b"), ("a", "c"), ("b", "c")] {
        let shared = |room: &str, with: &str| -> Vec<Value> {
            let is_shared = |message: &&Value| {
                let rooms = message["rooms"].as_array();
                rooms.is_some_and(|rooms| rooms.iter().any(|part| part["room"] == with))
            };
            truth[room].iter().filter(is_shared).map(|message| message["content"].clone()).collect()
        };
        assert_eq!(shared(one, other), shared(other, one));
    }
}

#[test]
fn what_is_refused_in_one_room_is_in_none() {
    // So few letters fit that publishers without a pause are refused again and again.
    let config = Config {
        mailbox: 2,
        thread_pool_size: 3,
        buffer: 100_000,
        history: 100_000,
        history_bytes: 64 << 20,
        ..lasting()
    };
    let server = Arc::new(TestServer::start(config));
    let mut member = Chat::outside(&server);
    for room in ["a", "b"] {
        member.join(room);
    }
    let publishers: Vec<_> = (0..3)
        .map(|publisher| {
            let server = Arc::clone(&server);
            thread::spawn(move || {
                let mut chat = Chat::outside(&server);
                for room in ["a", "b"] {
                    chat.join(room);
                }
                let commands = 150;
                for n in 0..commands {
                    let mut frame = publish_to(&["a", "b"], json!([publisher, n]));
                    frame["ref"] = json!(n);
                    chat.say(frame);
                }
                let mut done = Vec::new();
                let mut answers = 0;
                while answers < commands {
                    let frame = chat.next();
                    match frame["type"].as_str().unwrap() {
                        "ok" => done.push(frame["rooms"].clone()),
                        "error" => assert_eq!(frame["code"], "overloaded", "{frame}"),
                        _ => continue,
                    }
                    answers += 1;
                }
                done
            })
        })
        .collect();
    let mut done: Vec<Value> =
        publishers.into_iter().flat_map(|publisher| publisher.join().unwrap()).collect();
    done.sort_by_key(|rooms| number(&rooms[0]["seq"]));
    for (rooms, seq) in done.iter().zip(1..) {
        assert_eq!(rooms, &json!([{"room": "a", "seq": seq}, {"room": "b", "seq": seq}]));
    }
    for seq in 1..=done.len() as u64 {
        assert_eq!(number(&member.expect("message")["seq"]), seq);
    }
    member.expect_silence();
}

// ---- everyone
// --------------------------------------------------------------------------------------

#[test]
fn a_broadcast_is_forbidden_unless_the_operator_allows_it() {
    let server = TestServer::start(lasting());
    let (mut anna, mut ben) = (Chat::new(&server), Chat::new(&server));
    assert_eq!(anna.fails(json!({"type": "broadcast", "content": 1})), "forbidden");
    anna.say(json!({"type": "broadcast", "content": 1}));
    assert_eq!(anna.expect("error")["code"], "forbidden");
    ben.expect_silence();
}

#[test]
fn a_broadcast_reaches_everyone_on_the_route_but_its_sender() {
    let server = TestServer::start(Config { broadcast: true, thread_pool_size: 3, ..lasting() });
    let mut anna = Chat::new(&server);
    let mut others: Vec<Chat> = (0..5)
        .map(|n| if n % 2 == 0 { Chat::new(&server) } else { Chat::outside(&server) })
        .collect();
    let mut echo = server.connect("/echo");
    let id = "67e55044-10b1-426f-9247-bb680e5fe0c8";
    let command = json!({
        "type": "broadcast", "content": {"a": [1]}, "id": id, "sender": "anna",
        "timestamp": "2025-03-15T12:00:00Z",
    });
    let answer = anna.ok(command.clone());
    assert_eq!(answer.as_object().unwrap().len(), 3, "type, ref and id: {answer}");
    assert_eq!(answer["id"], id);
    let expected = json!({
        "type": "broadcast", "id": id, "sender": "anna", "content": {"a": [1]},
        "timestamp": "2025-03-15T12:00:00Z", "client_id": anna.id,
    });
    for other in &mut others {
        assert_eq!(other.settled(), std::slice::from_ref(&expected));
    }
    anna.expect_silence();
    for n in 0..3 {
        echo.send(n.to_string());
        assert_eq!(echo.next().to_text().unwrap(), n.to_string(), "nothing else comes here");
    }
    anna.say(json!({"type": "broadcast", "content": 1}));
    assert_eq!(others[0].expect("broadcast")["content"], 1);
    anna.expect_silence();
    let mut late = Chat::new(&server);
    late.expect_silence();
}

#[test]
fn a_broadcast_is_not_kept_for_those_who_are_away() {
    let server = TestServer::start(Config { broadcast: true, ..lasting() });
    let (mut anna, ben) = (Chat::new(&server), Chat::new(&server));
    let session = lose(&server, ben, Loss::Reset);
    anna.ok(json!({"type": "broadcast", "content": "missed"}));
    let (mut ben, answer) = Chat::back(&server, &session, json!([]));
    assert_eq!(answer["direct"]["seq"], 0);
    ben.expect_silence();
    anna.ok(json!({"type": "broadcast", "content": "live"}));
    assert_eq!(ben.expect("broadcast")["content"], "live");
}

#[test]
fn broadcasts_of_one_client_come_in_its_order() {
    let server = TestServer::start(Config {
        broadcast: true,
        thread_pool_size: 3,
        buffer: 10_000,
        ..lasting()
    });
    let mut members: Vec<Chat> = (0..4).map(|_| Chat::new(&server)).collect();
    let mut anna = Chat::new(&server);
    for n in 0..100 {
        anna.ok(json!({"type": "broadcast", "content": n}));
    }
    for member in &mut members {
        for n in 0..100 {
            assert_eq!(member.expect("broadcast")["content"], n);
        }
    }
}

// ---- rooms that nobody is in
// ------------------------------------------------------------------------

#[test]
fn who_fills_all_rooms_and_leaves_is_in_nobodys_way() {
    let server = TestServer::start(Config { max_rooms: 5, max_rooms_per_conn: 9, ..lasting() });
    let mut mallory = Chat::outside(&server);
    for n in 0..5 {
        let room = format!("full{n}");
        mallory.join(&room);
        mallory.publish(&room, "kept");
    }
    let mut anna = Chat::new(&server);
    assert_eq!(anna.welcome["room"], "lobby", "the default room takes no place");
    assert_eq!(anna.fails(json!({"type": "join", "room": "tea"})), "limit_exceeded");
    mallory.leave("full3");
    anna.join("tea");
    assert_eq!(anna.fails(json!({"type": "join", "room": "cake"})), "limit_exceeded");
    mallory.close(None);
    // Those that are left go one by one, and what is in use stays.
    support::eventually("the rooms are left", || {
        let answer = anna.ask(json!({"type": "join", "room": "cake"}));
        (answer["type"] == "ok").then_some(()).ok_or_else(|| answer.to_string())
    });
    ["milk", "sugar", "lemon"].iter().for_each(|room| drop(anna.join(room)));
    assert_eq!(anna.publish("tea", "hot"), 1);
    let stats = server.stats();
    assert_eq!((stats.rooms, stats.rooms_evicted), (6, 5));
}

#[test]
fn a_room_made_anew_has_larger_numbers_than_messages_that_may_be_on_their_way() {
    let config = Config { max_rooms: 2, default_room: String::new(), ..config() };
    let server = TestServer::start(config);
    let (mut anna, mut ben) = (server.chat(), server.chat());
    let join = |client: &mut Client, room: &str| {
        client.ask(&json!({"type": "join", "room": room, "ref": "j"}).to_string())
    };
    let publish = json!({
        "rooms": ["tea", "cake"], "content": 1, "id": "0193a5b0-0000-7000-8000-000000000001",
        "ref": "p",
    });
    for room in ["tea", "cake"] {
        join(&mut anna, room);
    }
    join(&mut ben, "tea");
    for _ in 0..2 {
        anna.ask(r#"{"rooms":["tea","cake"],"content":0,"ref":1}"#);
        ben.json();
    }
    let first = anna.ask(&publish.to_string());
    assert_eq!(first["rooms"][1], json!({"room": "cake", "seq": 3}));
    ben.json();
    // The room ends because its place is needed, and is made anew.
    anna.ask(r#"{"type":"leave","room":"cake","ref":2}"#);
    join(&mut ben, "milk");
    ben.ask(r#"{"type":"leave","room":"milk","ref":3}"#);
    let anew = join(&mut anna, "cake");
    assert!(anew["seq"].as_u64().unwrap() >= 3, "{anew}");
    // The other room has had the message.
    let again = anna.ask(&publish.to_string());
    assert_eq!((&again["repeated"], &again["rooms"]), (&json!(true), &first["rooms"]));
    anna.send(r#"{"room":"tea","content":"last"}"#);
    assert_eq!(ben.json()["content"], "last");
}
