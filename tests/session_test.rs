//! Sessions that outlive their connections: resume, takeover, direct messages, and publishes that
//! are repeated to be sure.

// A helper that panics fails its test with a clear message.
#![allow(clippy::unwrap_used)]

mod support;

use std::{
    sync::{
        Arc, Barrier, Mutex,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use rusty_socks::{
    CloseReason, Config, Context, Handler, IntoService, MayBlock, Message as Incoming, Mode,
    Position, Publication, Replay, RoomName, Server, SessionToken, Snapshot,
    chat::Chat as ChatHandler,
};
use serde_json::{Value, json};
use support::{
    DEADLINE, TestServer, close_frame, config, frame,
    sessions::{
        Chat, Loss, Numbers, lose, number, place, room_names, room_of, seqs, text, wait_for_away,
    },
};
use tungstenite::Message;
use uuid::Uuid;

/// A server whose sessions last as long as any test.
fn lasting() -> Config {
    Config { resume_window: Duration::from_secs(60), max_errors: 0, replay: 0, ..config() }
}

const LOSSES: [Loss; 3] = [Loss::Reset, Loss::Fin, Loss::GoingAway];

fn epoch(joined: &Value) -> Value {
    joined["epoch"].clone()
}

/// An id that a client gives its message.
fn fresh_id() -> String {
    Uuid::new_v4().to_string()
}

/// Expects that nobody can take up `session`.
fn expect_unrecoverable(server: &TestServer, session: &str) {
    let (chat, answer) = Chat::resume(server, session, json!([]));
    assert_eq!((&answer["type"], &answer["code"]), (&json!("error"), &json!("unrecoverable")));
    // So that it is not away itself.
    chat.close(None);
}

// ---- resume
// ----------------------------------------------------------------------------------------

#[test]
fn who_comes_back_has_its_id_its_rooms_and_all_it_missed() {
    let server = TestServer::start(lasting());
    for how in LOSSES {
        let (mut anna, mut ben) = (Chat::new(&server), Chat::new(&server));
        let (id, session) = (anna.id.clone(), anna.session.clone());
        let a = anna.join("a");
        let b = anna.join("b");
        let (lobby_epoch, lobby_seq) =
            (anna.welcome["epoch"].clone(), number(&anna.welcome["seq"]));
        let (a_seq, b_seq) = (number(&a["seq"]), number(&b["seq"]));
        ben.join("a");
        ben.join("b");
        let mut watcher = Chat::outside(&server);
        watcher.join("a");
        ben.publish("a", "seen");
        assert_eq!(anna.expect("message")["content"], "seen");
        watcher.expect("message");
        lose(&server, anna, how);
        for n in 0..5 {
            ben.publish("a", n);
            ben.publish("b", n);
            ben.publish("lobby", n);
        }
        let missed: Vec<Value> = (0..5).map(|_| watcher.expect("message")).collect();
        let places = json!([
            place("a", &epoch(&a), a_seq + 1),
            place("b", &epoch(&b), b_seq),
            place("lobby", &lobby_epoch, lobby_seq),
        ]);
        let (mut anna, answer) = Chat::back(&server, &session, places);
        assert_eq!((&answer["client_id"], &answer["session"]), (&json!(id), &json!(session)));
        assert_eq!(room_names(&answer), ["a", "b", "lobby"], "{how:?}");
        assert_eq!(answer["patterns"], json!([]));
        assert_eq!(answer["direct"], json!({"seq": 0, "recovered": true}));
        for (room, epoch, seq) in [
            ("a", epoch(&a), a_seq + 1),
            ("b", epoch(&b), b_seq),
            ("lobby", lobby_epoch, lobby_seq),
        ] {
            let part = room_of(&answer, room);
            assert_eq!((&part["recovered"], &part["epoch"]), (&json!(true), &epoch), "{how:?}");
            assert_eq!(number(&part["seq"]), seq + 5);
            assert_eq!(seqs(&part["messages"]), (seq + 1..=seq + 5).collect::<Vec<_>>());
            assert_eq!(part["overflow"], "close");
            assert!(part.get("members").is_none() && part.get("count").is_none());
        }
        assert_eq!(room_of(&answer, "a")["messages"], json!(missed), "as they were first sent");
        // Live from here on, and nothing of it again.
        let live = ben.publish("a", "live");
        let message = anna.expect("message");
        assert_eq!((&message["content"], &message["seq"]), (&json!("live"), &json!(live)));
        // And it is the one it was, for others as well.
        anna.publish("a", "I am back");
        assert_eq!(ben.expect("message")["client_id"], id.as_str());
        anna.expect_silence();
        for chat in [anna, ben, watcher] {
            chat.close(None);
        }
        server.wait_for("nobody is left", |stats| stats.sessions == 0);
    }
}

#[test]
fn the_order_of_fields_and_what_a_resume_looks_like() {
    let server = TestServer::start(lasting());
    let anna = Chat::new(&server);
    let (id, lobby) = (anna.id.clone(), anna.welcome["epoch"].clone());
    let session = lose(&server, anna, Loss::Fin);
    let mut chat = Chat::silent(&server, "/ws");
    chat.raw(&json!({"type": "resume", "session": session, "rooms": []}).to_string());
    let texts: Vec<String> = (0..2)
        .map(|_| match chat.wire.read().unwrap() {
            Message::Text(text) => text.as_str().to_owned(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert!(texts[0].starts_with(r#"{"type":"welcome","client_id":"#), "{}", texts[0]);
    let lobby = lobby.as_str().unwrap();
    assert_eq!(
        texts[1],
        format!(
            r#"{{"type":"ok","client_id":"{id}","session":"{session}","patterns":[],"rooms":[{{"room":"lobby","epoch":"{lobby}","seq":0,"recovered":false,"overflow":"close","messages":[]}}],"direct":{{"seq":0,"recovered":true}}}}"#
        ),
        "answered without a ref, too"
    );
}

#[test]
fn one_may_be_lost_and_come_back_many_times() {
    let server = TestServer::start(lasting());
    let mut ben = Chat::new(&server);
    let anna = Chat::new(&server);
    let (session, lobby) = (anna.session.clone(), anna.welcome["epoch"].clone());
    let mut seen = 0;
    let mut anna = Some(anna);
    for round in 0..12 {
        lose(&server, anna.take().unwrap(), LOSSES[round % 3]);
        ben.publish("lobby", round);
        let (mut back, answer) =
            Chat::back(&server, &session, json!([place("lobby", &lobby, seen)]));
        assert_eq!(seqs(&room_of(&answer, "lobby")["messages"]), [seen + 1]);
        ben.publish("lobby", "live");
        assert_eq!(number(&back.expect("message")["seq"]), seen + 2);
        seen += 2;
        anna = Some(back);
    }
    assert_eq!(server.stats().sessions_resumed, 12);
}

#[test]
fn own_messages_are_in_what_is_recovered() {
    let server = TestServer::start(lasting());
    let mut anna = Chat::new(&server);
    let (id, lobby) = (anna.id.clone(), anna.welcome["epoch"].clone());
    anna.publish("lobby", "mine");
    let session = lose(&server, anna, Loss::Reset);
    let (_, answer) = Chat::back(&server, &session, json!([place("lobby", &lobby, 0)]));
    let part = room_of(&answer, "lobby");
    assert_eq!(part["messages"][0]["client_id"], id.as_str());
}

#[test]
fn what_the_history_does_not_reach_is_not_recovered() {
    let server = TestServer::start(Config { history: 5, ..lasting() });
    let (anna, mut ben) = (Chat::new(&server), Chat::new(&server));
    let lobby = anna.welcome["epoch"].clone();
    let session = lose(&server, anna, Loss::Reset);
    for n in 0..6 {
        ben.publish("lobby", n);
    }
    let (anna, answer) = Chat::back(&server, &session, json!([place("lobby", &lobby, 0)]));
    let part = room_of(&answer, "lobby");
    let expected = json!({
        "room": "lobby", "epoch": lobby, "seq": 6, "recovered": false, "overflow": "close",
        "messages": [],
    });
    assert_eq!(part, &expected);
    lose(&server, anna, Loss::Reset);
    let (_, answer) = Chat::back(&server, &session, json!([place("lobby", &lobby, 1)]));
    assert_eq!(seqs(&room_of(&answer, "lobby")["messages"]), [2, 3, 4, 5, 6], "but all five are");
}

#[test]
fn what_is_of_another_epoch_is_not_recovered() {
    let server = TestServer::start(lasting());
    let (anna, mut ben) = (Chat::new(&server), Chat::new(&server));
    let lobby = anna.welcome["epoch"].clone();
    let mut session = lose(&server, anna, Loss::Reset);
    ben.publish("lobby", 1);
    for (epoch, seq) in [("00000000000000ff", 0), ("", 0), ("nonsense", 1), ("0", 0)] {
        let places = json!([place("lobby", &json!(epoch), seq)]);
        let (anna, answer) = Chat::back(&server, &session, places);
        let part = room_of(&answer, "lobby");
        assert_eq!((&part["recovered"], &part["messages"]), (&json!(false), &json!([])));
        assert_eq!((&part["epoch"], &part["seq"]), (&lobby, &json!(1)), "where one is now");
        session = lose(&server, anna, Loss::Reset);
    }
    // A position that was never reached is none of this epoch either.
    let (_, answer) = Chat::back(&server, &session, json!([place("lobby", &lobby, 2)]));
    assert_eq!(room_of(&answer, "lobby")["recovered"], false);
}

#[test]
fn a_room_lives_as_long_as_somebody_who_is_away() {
    let config = Config { history_age: Duration::from_millis(20), ..lasting() };
    let server = TestServer::start(config);
    let mut anna = Chat::new(&server);
    let joined = anna.join("a");
    anna.publish("a", "soon forgotten");
    let session = lose(&server, anna, Loss::Reset);
    server.wait_for("the history has aged out", |stats| stats.history_bytes == 0);
    // Another sweep, at least a second later, would let an empty room go.
    let mut other = Chat::new(&server);
    let end = Instant::now() + Duration::from_millis(1500);
    while Instant::now() < end {
        other.expect_silence();
        assert_eq!(server.stats().rooms, 2);
    }
    let (_, answer) = Chat::back(&server, &session, json!([place("a", &epoch(&joined), 1)]));
    let part = room_of(&answer, "a");
    assert_eq!((&part["recovered"], &part["epoch"]), (&json!(true), &epoch(&joined)));
}

#[test]
fn a_room_without_a_position_is_there_and_not_recovered() {
    let server = TestServer::start(lasting());
    let (mut anna, mut ben) = (Chat::new(&server), Chat::new(&server));
    let a = anna.join("a");
    ben.join("a");
    let session = lose(&server, anna, Loss::Reset);
    ben.publish("a", 1);
    ben.publish("lobby", 1);
    let (mut anna, answer) = Chat::back(&server, &session, json!([place("a", &epoch(&a), 0)]));
    assert_eq!(room_names(&answer), ["a", "lobby"]);
    let part = room_of(&answer, "lobby");
    assert_eq!(
        (&part["recovered"], &part["messages"], &part["seq"]),
        (&json!(false), &json!([]), &json!(1))
    );
    assert_eq!(seqs(&room_of(&answer, "a")["messages"]), [1]);
    ben.publish("lobby", 2);
    assert_eq!(anna.expect("message")["seq"], 2, "but it is a member all the same");
}

#[test]
fn rooms_may_be_left_out_of_a_resume_altogether() {
    let server = TestServer::start(lasting());
    let session = lose(&server, Chat::new(&server), Loss::Reset);
    let frame = json!({"type": "resume", "session": session});
    let (_, answer) = Chat::first(&server, "/ws", frame);
    assert_eq!((&answer["type"], room_names(&answer)), (&json!("ok"), vec!["lobby".to_owned()]));
}

#[test]
fn a_session_with_more_rooms_than_a_reload_allows_is_resumed_with_all_of_them() {
    let server = TestServer::start(lasting());
    let mut anna = Chat::new(&server);
    let mut places = vec![json!({"room": "lobby", "epoch": anna.welcome["epoch"], "seq": 0})];
    for room in ["a", "b", "c"] {
        let joined = anna.join(room);
        places.push(place(room, &epoch(&joined), 0));
    }
    server.handle.reload(&Config { max_rooms_per_conn: 2, ..lasting() }).unwrap();
    let mut session = lose(&server, anna, Loss::Reset);
    // The client may not know of two rooms that it has left.
    places.extend(["d", "e"].map(|room| place(room, &json!("1"), 0)));
    for places in [&places[..4], &places[..]] {
        let (chat, answer) = Chat::resume(&server, &session, json!(places));
        assert_eq!(answer["type"], "ok", "{answer}");
        for room in ["lobby", "a", "b", "c"] {
            assert_eq!(room_of(&answer, room)["recovered"], true, "{answer}");
        }
        for room in &places[4..] {
            let left = room_of(&answer, room["room"].as_str().unwrap());
            assert_eq!(left["error"], "limit_exceeded", "{answer}");
        }
        session = lose(&server, chat, Loss::Reset);
    }
    places.push(place("f", &json!("1"), 0));
    let (_, answer) = Chat::resume(&server, &session, json!(places));
    assert_eq!((&answer["type"], &answer["code"]), (&json!("error"), &json!("limit_exceeded")));
    // As after a restart that has lost it: the client begins a new one.
    let lost = format!("{}{}", &session[..64], "0".repeat(session.len() - 64));
    let (_, answer) = Chat::resume(&server, &lost, json!(places));
    assert_eq!((&answer["type"], &answer["code"]), (&json!("error"), &json!("unrecoverable")));
}

#[test]
fn a_room_that_was_not_the_sessions_is_joined() {
    let server = TestServer::start(Config { max_rooms_per_conn: 3, ..lasting() });
    let (mut anna, mut ben) = (Chat::new(&server), Chat::outside(&server));
    let left = anna.join("left");
    let other = ben.join("other");
    ben.join("left");
    anna.leave("left");
    ben.publish("left", 1);
    ben.publish("other", 1);
    let session = lose(&server, anna, Loss::Reset);
    ben.publish("left", 2);
    let places = json!([
        place("left", &epoch(&left), 0),
        place("other", &epoch(&other), 5),
        place("z one too many", &json!("1"), 0),
    ]);
    let (mut anna, answer) = Chat::back(&server, &session, places);
    assert_eq!(room_names(&answer), ["left", "lobby", "other", "z one too many"]);
    let part = room_of(&answer, "left");
    assert_eq!((&part["recovered"], seqs(&part["messages"])), (&json!(true), vec![1, 2]));
    assert_eq!(room_of(&answer, "other")["recovered"], false);
    assert_eq!(
        room_of(&answer, "z one too many"),
        &json!({"room": "z one too many", "error": "limit_exceeded"})
    );
    ben.publish("left", 3);
    assert_eq!(anna.expect("message")["seq"], 3);
    assert_eq!(anna.fails(json!({"type": "leave", "room": "z one too many"})), "not_member");
    anna.leave("other");
}

#[test]
fn a_room_that_the_server_has_no_place_for_is_told_by_its_code() {
    let server = TestServer::start(Config { max_rooms: 1, ..lasting() });
    let session = lose(&server, Chat::new(&server), Loss::Reset);
    let mut other = Chat::new(&server);
    other.join("other");
    let (_, answer) = Chat::back(&server, &session, json!([place("new", &json!("1"), 0)]));
    assert_eq!(room_of(&answer, "new"), &json!({"room": "new", "error": "limit_exceeded"}));
    assert_eq!(room_of(&answer, "lobby")["seq"], 0);
}

#[test]
fn the_rooms_of_a_resume_share_one_budget_of_bytes() {
    const ROOMS: usize = 8;
    // Half of this, 8 KiB, is what all that is recovered may come to: each room has about 3 KiB.
    let config = Config { max_message_bytes: 4096, buffer_bytes: 16_384, ..lasting() };
    let server = TestServer::start(config);
    let (mut anna, mut ben) = (Chat::outside(&server), Chat::outside(&server));
    let names: Vec<String> = (0..ROOMS).map(|n| format!("room {n}")).collect();
    let mut places = Vec::new();
    for name in &names {
        let joined = anna.join(name);
        places.push(place(name, &epoch(&joined), 0));
        ben.join(name);
    }
    let session = lose(&server, anna, Loss::Reset);
    for name in &names {
        for _ in 0..3 {
            ben.publish(name, "x".repeat(800));
        }
    }
    let (mut anna, answer) = Chat::back(&server, &session, json!(places));
    let mut recovered = 0;
    let mut bytes = 0;
    for name in &names {
        let part = room_of(&answer, name);
        assert_eq!(part["seq"], 3);
        if part["recovered"] == true {
            assert_eq!(seqs(&part["messages"]), [1, 2, 3], "all of a room or nothing");
            recovered += 1;
            bytes += part["messages"].to_string().len();
        } else {
            assert_eq!(part["messages"], json!([]));
        }
    }
    assert_eq!(recovered, 2, "as many as there is space for");
    assert!(bytes <= 8192, "{bytes} bytes");
    // The rest is had in pages.
    for name in &names {
        let history = anna.ok(json!({"type": "history", "room": name, "after": 0}));
        assert_eq!(seqs(&history["messages"]), [1, 2, 3]);
    }
}

#[test]
fn everything_a_client_may_have_missed_at_once_does_not_make_it_a_slow_one() {
    // The most that may wait of everything: a full inbox, and rooms up to the budget.
    let config =
        Config { max_message_bytes: 4096, buffer_bytes: 32_768, inbox_bytes: 32_768, ..lasting() };
    let server = TestServer::start(config);
    let (mut anna, mut ben) = (Chat::new(&server), Chat::new(&server));
    let lobby = anna.welcome["epoch"].clone();
    let id = anna.id.clone();
    for n in 0..60 {
        anna.join(&format!("{n} {}", "a long name ".repeat(5)));
    }
    let session = lose(&server, anna, Loss::Reset);
    while ben.ask(json!({"type": "direct", "to": id, "content": "x".repeat(700)}))["type"] == "ok" {
    }
    for _ in 0..18 {
        ben.publish("lobby", "x".repeat(700));
    }
    let (mut anna, answer) = Chat::back(&server, &session, json!([place("lobby", &lobby, 0)]));
    let last = number(&answer["direct"]["seq"]);
    for seq in 1..=last {
        assert_eq!(number(&anna.expect("direct")["seq"]), seq);
    }
    anna.expect_silence();
}

#[test]
fn watched_rooms_do_not_make_a_returning_client_a_slow_one() {
    // 12 rooms with 30 members each: their lists alone are more than may wait for one client.
    let config = Config { max_message_bytes: 4096, buffer_bytes: 8192, ..lasting() };
    let server = TestServer::start(config);
    let mut anna = Chat::outside(&server);
    let rooms: Vec<String> = (0..12).map(|n| format!("room {n}")).collect();
    for room in &rooms {
        anna.ok(json!({"type": "join", "room": room, "presence": true}));
    }
    let session = anna.session.clone();
    lose(&server, anna, Loss::Reset);
    let members: Vec<Chat> = (0..30)
        .map(|_| {
            let mut member = Chat::outside(&server);
            rooms.iter().for_each(|room| drop(member.join(room)));
            member
        })
        .collect();
    let (mut anna, answer) = Chat::back(&server, &session, json!([]));
    for room in &rooms {
        assert_eq!(room_of(&answer, room)["count"], 31);
    }
    anna.settled();
    drop(members);
}

// ---- what is refused
// -------------------------------------------------------------------------------

#[test]
fn only_the_sessions_own_token_resumes_it() {
    let server = TestServer::start(lasting());
    let anna = Chat::new(&server);
    let session = lose(&server, anna, Loss::Reset);
    let other = Chat::new(&server);
    let flip = |at: usize| {
        let digit = if &session[at..=at] == "0" { "1" } else { "0" };
        format!("{}{digit}{}", &session[..at], &session[at + 1..])
    };
    let mixed = format!("{}{}", &session[..32], &other.session[32..]);
    let id_only = format!("{}{}", &session[..32], "0".repeat(64));
    let mut forged: Vec<String> = [0, 31, 32, 63, 64, 95].map(flip).to_vec();
    forged.extend([mixed, id_only, String::new(), "x".into(), session[1..].to_owned()]);
    forged.extend([format!("{session}0"), format!(" {session}"), "ü".repeat(48)]);
    forged.extend(["0".repeat(96), format!("+{}", &session[1..]), "\0".repeat(96)]);
    for token in &forged {
        let (mut chat, answer) = Chat::resume(&server, token, json!([]));
        assert_eq!(answer["code"], "unrecoverable", "{token:?}: {answer}");
        // It goes on with the identity of its welcome.
        assert_eq!(chat.publish("lobby", 1), chat.publish("lobby", 2) - 1);
        assert_ne!(chat.id, other.id);
        chat.close(None);
    }
    Chat::back(&server, &session, json!([]));
}

#[test]
fn a_session_is_not_resumed_on_another_route() {
    let config = lasting();
    let other = ChatHandler::new(&config).unwrap();
    let chat = ChatHandler::new(&config).unwrap();
    let builder = Server::builder().config(config).route("/ws", chat).route("/other", other);
    let server = TestServer::run(builder.bind().unwrap());
    let session = lose(&server, Chat::new(&server), Loss::Reset);
    let frame = json!({"type": "resume", "session": session});
    let (_, answer) = Chat::first(&server, "/other", frame);
    assert_eq!(answer["code"], "unrecoverable");
    Chat::back(&server, &session, json!([]));
}

#[test]
fn nobody_resumes_itself_or_twice() {
    let server = TestServer::start(lasting());
    let session = lose(&server, Chat::new(&server), Loss::Reset);
    let mut chat = Chat::new(&server);
    let own = json!({"type": "resume", "session": chat.session});
    assert_eq!(chat.fails(own.clone()), "unrecoverable");
    assert_eq!(chat.fails(own), "bad_request", "that was the first frame");
    let resume = json!({"type": "resume", "session": session});
    assert_eq!(chat.fails(resume.clone()), "bad_request");
    let (mut anna, _) = Chat::back(&server, &session, json!([]));
    assert_eq!(anna.fails(resume), "bad_request");
    let void = json!({"type": "resume", "session": text(&anna.welcome["session"])});
    assert_eq!(anna.fails(void), "bad_request");
    anna.publish("lobby", "and it is still there");
}

#[test]
fn the_identity_that_a_resume_made_void_is_gone() {
    let server = TestServer::start(lasting());
    let session = lose(&server, Chat::new(&server), Loss::Reset);
    let (anna, _) = Chat::back(&server, &session, json!([]));
    expect_unrecoverable(&server, &text(&anna.welcome["session"]));
    let mut ben = Chat::new(&server);
    let to = anna.welcome["client_id"].clone();
    assert_eq!(ben.fails(json!({"type": "direct", "to": to, "content": 1})), "not_found");
}

#[test]
fn a_resume_comes_first_or_not_at_all() {
    let server = TestServer::start(lasting());
    let session = lose(&server, Chat::new(&server), Loss::Reset);
    let resume = json!({"type": "resume", "session": session});
    for first in [
        Message::text(r#"{"type":"ping"}"#),
        Message::text(r#"{"content":1}"#),
        Message::text(r#"{"type":"join","room":"a"}"#),
        Message::text("not even JSON"),
        Message::text(r#"{"type":"resume"}"#),
        Message::binary(vec![1]),
    ] {
        let mut chat = Chat::new(&server);
        chat.wire.send(first.clone()).unwrap();
        assert_eq!(chat.fails(resume.clone()), "bad_request", "{first:?}");
        chat.close(None);
    }
    // A ping frame is no message. Nor is it late after the welcome and a while.
    let mut chat = Chat::new(&server);
    chat.wire.send(Message::Ping("hello".into())).unwrap();
    chat.ok(resume);
}

#[test]
fn a_resume_of_the_wrong_shape_is_refused_and_harms_nothing() {
    let server = TestServer::start(lasting());
    let session = lose(&server, Chat::new(&server), Loss::Reset);
    for bad in [
        json!({}),
        json!({"session": 5}),
        json!({"session": null}),
        json!({"session": session, "rooms": "lobby"}),
        json!({"session": session, "rooms": {"lobby": 1}}),
        json!({"session": session, "rooms": ["lobby"]}),
        json!({"session": session, "rooms": [{"room": "lobby", "seq": 1}]}),
        json!({"session": session, "rooms": [{"room": "lobby", "epoch": "1"}]}),
        json!({"session": session, "rooms": [{"room": "lobby", "epoch": "1", "seq": -1}]}),
        json!({"session": session, "rooms": [{"room": "", "epoch": "1", "seq": 1}]}),
        json!({"session": session, "rooms": [{"room": "a.*", "epoch": "1", "seq": 1}]}),
        json!({"session": session, "rooms": [place("a", &json!("1"), 1), place("a", &json!("1"), 1)]}),
        json!({"session": session, "direct": "1"}),
        json!({"session": session, "direct": -1}),
        json!({"session": session, "direct": 1.5}),
    ] {
        let mut frame = bad.clone();
        frame["type"] = json!("resume");
        let (mut chat, answer) = Chat::first(&server, "/ws", frame);
        assert_eq!(answer["code"], "bad_request", "{bad}");
        chat.publish("lobby", 1);
        chat.close(None);
    }
    Chat::back(&server, &session, json!([]));
}

#[test]
fn a_session_ends_when_its_time_is_over() {
    let config = Config { resume_window: Duration::from_millis(300), ..lasting() };
    let server = TestServer::start(config);
    let chat = Chat::new(&server);
    assert_eq!(chat.welcome["resume_window_s"], 0.3);
    let session = lose(&server, chat, Loss::Reset);
    let (chat, _) = Chat::back(&server, &session, json!([]));
    lose(&server, chat, Loss::Reset);
    server.wait_for("its time is over", |stats| stats.sessions_expired == 1);
    expect_unrecoverable(&server, &session);
    server.wait_for("nothing is left", |stats| stats.sessions_away == 0);
}

#[test]
fn without_a_window_nothing_survives() {
    let server = TestServer::start(Config { resume_window: Duration::ZERO, ..lasting() });
    let mut watcher = Chat::new(&server);
    watcher.ok(json!({"type": "presence", "room": "lobby", "watch": true}));
    let mut anna = Chat::new(&server);
    assert_eq!(anna.welcome["resume_window_s"], 0);
    anna.ask(json!({"type": "ping"}));
    watcher.expect("joined");
    let session = anna.session.clone();
    anna.lose(Loss::Reset);
    watcher.expect("left");
    // It was never away, and so did not run out.
    assert_eq!((server.stats().sessions_away, server.stats().sessions_expired), (0, 0));
    expect_unrecoverable(&server, &session);
}

#[test]
fn who_is_longest_away_goes_first() {
    let server = TestServer::start(Config { max_away_sessions: 2, ..lasting() });
    let chats: Vec<Chat> = (0..4).map(|_| Chat::new(&server)).collect();
    let mut sessions = Vec::new();
    for (n, chat) in chats.into_iter().enumerate() {
        sessions.push(chat.session.clone());
        chat.lose(Loss::Reset);
        let evicted = n.saturating_sub(1) as u64;
        server.wait_for("it is away", |stats| {
            stats.sessions_away == (n + 1).min(2) && stats.sessions_evicted == evicted
        });
        // Those of one millisecond have no order.
        let mut other = Chat::new(&server);
        let now = Instant::now();
        while now.elapsed() < Duration::from_millis(3) {
            other.expect_silence();
        }
        other.close(None);
    }
    expect_unrecoverable(&server, &sessions[0]);
    expect_unrecoverable(&server, &sessions[1]);
    // Those who were refused are no longer there, and were never away.
    Chat::back(&server, &sessions[3], json!([]));
    Chat::back(&server, &sessions[2], json!([]));
}

#[test]
fn nobody_is_away_where_nobody_may_be() {
    let server = TestServer::start(Config { max_away_sessions: 0, ..lasting() });
    let chat = Chat::new(&server);
    let session = chat.session.clone();
    chat.lose(Loss::Reset);
    server.wait_for("it is gone", |stats| stats.sessions == 0 && stats.sessions_evicted == 1);
    expect_unrecoverable(&server, &session);
}

// ---- which ends are the end
// ------------------------------------------------------------------------

#[test]
fn a_session_survives_what_passes_and_ends_with_what_does_not() {
    let server = TestServer::start(lasting());
    let survives = |code: u16| matches!(code, 1001 | 1006 | 1011 | 1012 | 1013 | 4100..=4299);
    // What the client says.
    for code in
        [1000, 1001, 1003, 1008, 1011, 1012, 1013, 3000, 4000, 4010, 4099, 4100, 4201, 4299, 4300]
    {
        let chat = Chat::new(&server);
        let session = chat.session.clone();
        chat.close(Some(code));
        check(&server, &session, survives(code), &format!("the client closed with {code}"));
    }
    let chat = Chat::new(&server);
    let session = chat.session.clone();
    chat.close(None);
    check(&server, &session, false, "the client closed without a code");
    // What the server says.
    for reason in [
        CloseReason::NORMAL,
        CloseReason::UNAUTHORIZED,
        CloseReason::FORBIDDEN,
        CloseReason::TOO_MANY_ERRORS,
        CloseReason::KICKED,
        CloseReason::new(4010, ""),
        CloseReason::RATE_LIMITED,
        CloseReason::SLOW_CONSUMER,
        CloseReason::NO_PONG,
        CloseReason::IDLE,
        CloseReason::TOKEN_EXPIRED,
        CloseReason::INTERNAL,
        CloseReason::RESTART,
        CloseReason::TRY_AGAIN,
        CloseReason::POLICY,
    ] {
        let mut chat = Chat::new(&server);
        let session = chat.session.clone();
        server.handle.close(&chat.id.parse().unwrap(), reason.clone()).unwrap();
        assert_eq!(chat.closed().0, reason.code());
        check(&server, &session, survives(reason.code()), &format!("the server closed: {reason}"));
    }
    // What breaks the rules.
    for (bytes, code) in [
        (frame(0x83, b""), 1002),
        (frame(0x81, b"\xff"), 1007),
        (frame(0x81, &vec![b'x'; 70_000]), 1009),
    ] {
        let mut raw = server.upgrade("/ws");
        let welcome: Value = serde_json::from_str(&raw.text()).unwrap();
        raw.send(&bytes);
        assert_eq!(raw.close_code(), code);
        check(&server, &text(&welcome["session"]), false, &format!("{code}"));
    }
}

/// Expects that a session whose connection has ended is there or not.
fn check(server: &TestServer, session: &str, survives: bool, how: &str) {
    let expected = usize::from(survives);
    server.wait_for(how, |stats| stats.sessions_away == expected && stats.sessions == expected);
    let (chat, answer) = Chat::resume(server, session, json!([]));
    let kind = if survives { "ok" } else { "error" };
    assert_eq!(answer["type"], kind, "{how}: {answer}");
    chat.close(None);
    server.wait_for("nobody is left", |stats| stats.sessions == 0);
}

#[test]
fn a_client_that_falls_silent_comes_back() {
    for (ping, code) in [(Duration::from_millis(50), 4201), (Duration::ZERO, 4202)] {
        let config = Config { timeout: Duration::from_millis(300), ping, ..lasting() };
        let server = TestServer::start(config);
        let mut silent = server.upgrade("/ws");
        let welcome: Value = serde_json::from_str(&silent.text()).unwrap();
        // It answers nothing at all, not even its pings.
        assert_eq!(silent.close_code(), code);
        wait_for_away(&server, 1);
        let (_, answer) = Chat::back(&server, &text(&welcome["session"]), json!([]));
        assert_eq!(answer["client_id"], welcome["client_id"]);
    }
}

#[test]
fn a_client_that_was_too_slow_comes_back_and_has_missed_nothing() {
    let config = Config { buffer: 8, history: 10_000, ..lasting() };
    let server = TestServer::start(config);
    let (slow, mut ben) = (Chat::new(&server), Chat::new(&server));
    let (session, lobby) = (slow.session.clone(), slow.welcome["epoch"].clone());
    let mut published = 0;
    while server.stats().sessions_away == 0 {
        published = ben.publish("lobby", "x".repeat(30_000));
        assert!(published < 5000, "nobody reads, and nobody minds");
    }
    assert_eq!(server.closed_with(4102), 1);
    drop(slow);
    let (mut back, answer) = Chat::back(&server, &session, json!([place("lobby", &lobby, 0)]));
    let part = room_of(&answer, "lobby");
    assert_eq!((number(&part["seq"]), part["recovered"] == true), (published, false), "too many");
    let mut seen = 0;
    while seen < published {
        let page = back.ok(json!({"type": "history", "room": "lobby", "after": seen}));
        let page = seqs(&page["messages"]);
        if seen == 0 {
            seen = page[0] - 1; // what the bound of bytes let go
        }
        assert_eq!(page.first(), Some(&(seen + 1)));
        seen = *page.last().unwrap();
    }
}

// ---- takeover
// --------------------------------------------------------------------------------------

#[test]
fn who_resumes_a_living_session_takes_it_over() {
    let server = TestServer::start(lasting());
    let (mut old, mut ben) = (Chat::new(&server), Chat::new(&server));
    let (session, id, lobby) = (old.session.clone(), old.id.clone(), old.welcome["epoch"].clone());
    ben.publish("lobby", 1);
    assert_eq!(old.expect("message")["seq"], 1);
    let (mut new, answer) = Chat::back(&server, &session, json!([place("lobby", &lobby, 1)]));
    assert_eq!(answer["client_id"], id.as_str());
    assert_eq!(room_of(&answer, "lobby")["messages"], json!([]));
    let (code, rest) = old.closed();
    assert_eq!((code, rest), (4010, vec![]));
    ben.publish("lobby", 2);
    assert_eq!(new.expect("message")["seq"], 2);
    let stats = server.stats();
    assert_eq!((stats.sessions_taken_over, stats.sessions_resumed), (1, 1));
    // The end of the old connection is not the end of the session.
    drop(old);
    server.wait_for("the old one is gone", |stats| stats.sockets == 2);
    assert_eq!((server.stats().sessions, server.stats().sessions_away), (2, 0));
    ben.publish("lobby", 3);
    assert_eq!(new.expect("message")["seq"], 3);
}

#[test]
fn a_half_open_connection_is_taken_over() {
    let server = TestServer::start(lasting());
    let mut ben = Chat::new(&server);
    let vanished = Chat::new(&server);
    let (session, lobby) = (vanished.session.clone(), vanished.welcome["epoch"].clone());
    for n in 0..20 {
        ben.publish("lobby", n);
    }
    // It is never read again, and its Close is never answered.
    let (mut back, answer) = Chat::back(&server, &session, json!([place("lobby", &lobby, 3)]));
    assert_eq!(seqs(&room_of(&answer, "lobby")["messages"]), (4..=20).collect::<Vec<_>>());
    ben.publish("lobby", "live");
    assert_eq!(back.expect("message")["seq"], 21);
    server.wait_for("the Close was not answered", |stats| stats.sockets == 2);
    assert_eq!(server.closed_with(4010), 1);
    drop(vanished);
}

#[test]
fn of_many_who_take_over_one_session_the_newest_has_it() {
    const RIVALS: usize = 8;
    let server = TestServer::start(Config { thread_pool_size: 4, ..lasting() });
    let first = Chat::new(&server);
    let session = first.session.clone();
    let start = Arc::new(Barrier::new(RIVALS));
    let rivals: Vec<_> = (0..RIVALS)
        .map(|_| {
            let mut chat = Chat::new(&server);
            let (start, session) = (Arc::clone(&start), session.clone());
            thread::spawn(move || {
                start.wait();
                chat.say(json!({"type": "resume", "session": session}));
                chat
            })
        })
        .collect();
    let rivals: Vec<Chat> = rivals.into_iter().map(|rival| rival.join().unwrap()).collect();
    // Those who had it are told of the next one, those who come too late are to try again.
    let told = |stats: &Snapshot, code| stats.closed.get(code).copied().unwrap_or_default();
    server.wait_for("all but one are told to go", |stats| {
        let closed = told(stats, "4010") + told(stats, "1013");
        let one = stats.sessions - stats.sessions_away == 1;
        closed == RIVALS as u64 && one
    });
    let mut ben = Chat::new(&server);
    ben.publish("lobby", "to the last one");
    let mut codes = Vec::new();
    for mut rival in rivals {
        loop {
            match rival.wire.read() {
                Ok(Message::Text(text)) if text.as_str().contains("to the last one") => {
                    codes.push(0);
                    break;
                }
                Ok(Message::Close(Some(frame))) => {
                    codes.push(u16::from(frame.code));
                    break;
                }
                Ok(_) => {}
                Err(error) => panic!("{error}"),
            }
        }
    }
    let (newest, others) = codes.split_last().unwrap();
    assert_eq!(*newest, 0, "{codes:?}");
    assert!(others.iter().all(|code| [4010, 1013].contains(code)), "{codes:?}");
}

#[test]
fn a_resume_that_is_read_late_takes_nothing_from_a_newer_connection() {
    let server = TestServer::start(lasting());
    let session = lose(&server, Chat::new(&server), Loss::Reset);
    // Its client gives it up, and its resume is still on its way.
    let mut given_up = Chat::new(&server);
    let (mut back, _) = Chat::back(&server, &session, json!([]));
    given_up.say(json!({"type": "resume", "session": session, "ref": 1}));
    assert_eq!(given_up.closed(), (1013, vec![]), "no error, which would end the session");
    assert_eq!(back.ask(json!({"type": "ping"}))["type"], "pong");
    assert_eq!(server.stats().sessions_taken_over, 0);
    // Whoever it is comes again.
    Chat::back(&server, &session, json!([]));
    assert_eq!(back.closed(), (4010, vec![]));
}

#[test]
fn at_the_seam_of_a_takeover_nothing_is_lost_or_doubled() {
    const CLIENTS: u64 = 4;
    let mut random = Numbers::seeded("at_the_seam_of_a_takeover_nothing_is_lost_or_doubled");
    let config = Config {
        thread_pool_size: 3,
        history: 100_000,
        history_bytes: 64 << 20,
        buffer: 100_000,
        buffer_bytes: 64 << 20,
        ..lasting()
    };
    let server = Arc::new(TestServer::start(config));
    let done = Arc::new(AtomicBool::new(false));
    let publishers: Vec<_> = (0..2)
        .map(|_| {
            let (mut chat, done) = (Chat::new(&server), Arc::clone(&done));
            thread::spawn(move || {
                while !done.load(Ordering::Relaxed) {
                    chat.publish("lobby", "x");
                }
            })
        })
        .collect();
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let (server, mut random) = (Arc::clone(&server), random.split());
            thread::spawn(move || {
                let mut chat = Chat::new(&server);
                let (session, lobby) = (chat.session.clone(), chat.welcome["epoch"].clone());
                let mut seen = number(&chat.welcome["seq"]);
                let mut left_behind = Vec::new();
                for _ in 0..15 {
                    for _ in 0..random.below(40) {
                        assert_eq!(number(&chat.expect("message")["seq"]), seen + 1);
                        seen += 1;
                    }
                    // The old one is not closed, and may get more meanwhile; nobody reads that.
                    let (new, answer) =
                        Chat::back(&server, &session, json!([place("lobby", &lobby, seen)]));
                    left_behind.push(std::mem::replace(&mut chat, new));
                    let part = room_of(&answer, "lobby");
                    assert_eq!(part["recovered"], true);
                    for seq in seqs(&part["messages"]) {
                        assert_eq!(seq, seen + 1);
                        seen += 1;
                    }
                    assert_eq!(number(&part["seq"]), seen);
                }
                for old in &mut left_behind {
                    assert_eq!(old.closed().0, 4010);
                }
            })
        })
        .collect();
    let outcomes: Vec<_> = clients.into_iter().map(thread::JoinHandle::join).collect();
    done.store(true, Ordering::Relaxed);
    publishers.into_iter().for_each(|publisher| publisher.join().unwrap());
    outcomes.into_iter().for_each(|outcome| outcome.unwrap());
}

/// A chat server of two workers, the first of which can be held up by `/busy`.
struct HeldUp {
    server: TestServer,
    begun: Mutex<mpsc::Receiver<mpsc::Sender<()>>>,
}

impl HeldUp {
    fn start() -> HeldUp {
        let (begin, begun) = mpsc::channel();
        let begin = Mutex::new(begin);
        let busy = move |_: &mut Context<'_, ()>, _: Incoming<'_>| {
            let (release, released) = mpsc::channel();
            begin.lock().unwrap().send(release).unwrap();
            let _ = released.recv_timeout(DEADLINE);
        };
        let config = lasting();
        let chat = ChatHandler::new(&config).unwrap();
        let builder = Server::builder().config(config).route("/ws", chat).route("/busy", busy);
        HeldUp { server: TestServer::run(builder.bind().unwrap()), begun: Mutex::new(begun) }
    }

    fn wait(&self) -> mpsc::Sender<()> {
        self.begun.lock().unwrap().recv_timeout(DEADLINE).unwrap()
    }
}

/// Has a connection say `frames` in the very turn in which another one has taken its session over.
/// Returns the server, the old connection, the new one and somebody else who is in the lobby.
fn say_after_takeover(frames: &[Value]) -> (HeldUp, Chat, Chat, Chat) {
    let held = HeldUp::start();
    let server = &held.server;
    // The worker with the fewest sockets gets the next one, so they take turns: 0, 1, 0, 1, 0.
    let mut old = Chat::new(server);
    let mut ben = Chat::new(server);
    let mut blocker = server.connect("/busy");
    let mut new = Chat::new(server);
    let mut second = server.connect("/busy");
    ben.expect_silence();
    let session = old.session.clone();
    blocker.send("wait");
    let release = held.wait();
    // Both come while the worker is held up, so it reads them in one turn, in this order; and
    // in that turn it is held up again in between.
    second.send("wait again");
    frames.iter().for_each(|frame| old.say(frame.clone()));
    drop(release);
    let release = held.wait();
    let answer = new.ask(json!({"type": "resume", "session": session}));
    assert_eq!(answer["type"], "ok", "{answer}");
    new.id.clone_from(&old.id);
    drop(release);
    assert_eq!(u64::from(old.closed().0), 4010);
    drop((blocker, second));
    (held, old, new, ben)
}

#[test]
fn a_connection_that_was_taken_over_joins_and_leaves_nothing() {
    let frames = [
        json!({"type": "join", "room": "a"}),
        json!({"type": "leave", "room": "lobby"}),
        json!({"type": "join", "room": "b.*"}),
        json!({"type": "presence", "room": "lobby", "watch": true}),
    ];
    let (held, _old, mut new, mut ben) = say_after_takeover(&frames);
    ben.publish("lobby", "still there?");
    assert_eq!(new.expect("message")["content"], "still there?");
    assert_eq!(new.fails(json!({"type": "leave", "room": "a"})), "not_member");
    assert_eq!(new.fails(json!({"type": "leave", "room": "b.*"})), "not_member");
    let mut other = Chat::new(&held.server);
    other.ask(json!({"type": "ping"}));
    new.expect_silence();
}

#[test]
fn a_connection_that_was_taken_over_says_nothing_any_more() {
    let frames = [json!({"type": "publish", "room": "lobby", "content": "from the grave"})];
    let (_held, _old, mut new, mut ben) = say_after_takeover(&frames);
    assert_eq!(new.settled(), [] as [Value; 0], "the client's own words, as if somebody else's");
    assert_eq!(ben.settled(), [] as [Value; 0]);
}

#[test]
fn a_connection_that_was_taken_over_sends_nothing_direct_any_more() {
    let mut probe = json!({"type": "direct", "content": "from the grave"});
    // Its own id is the one it can know in any run: a direct message to oneself.
    let held = HeldUp::start();
    let server = &held.server;
    let mut old = Chat::new(server);
    let mut ben = Chat::new(server);
    let mut blocker = server.connect("/busy");
    let mut new = Chat::new(server);
    let mut second = server.connect("/busy");
    probe["to"] = json!(ben.id);
    let session = old.session.clone();
    blocker.send("wait");
    let release = held.wait();
    second.send("wait again");
    old.say(probe);
    drop(release);
    let release = held.wait();
    assert_eq!(new.ask(json!({"type": "resume", "session": session}))["type"], "ok");
    drop(release);
    assert_eq!(old.closed().0, 4010);
    assert_eq!(ben.settled(), [] as [Value; 0]);
}

// ---- direct messages
// -------------------------------------------------------------------------------

fn direct(to: &str, content: impl Into<Value>) -> Value {
    json!({"type": "direct", "to": to, "content": content.into()})
}

#[test]
fn a_direct_message_reaches_its_receiver_alone_and_is_numbered() {
    let server = TestServer::start(lasting());
    let (mut anna, mut ben, mut carl) =
        (Chat::new(&server), Chat::new(&server), Chat::new(&server));
    let id = fresh_id();
    let command = json!({
        "type": "direct", "to": ben.id, "content": {"a": 1}, "sender": "anna", "id": id,
        "timestamp": "2025-03-15T12:00:00Z",
    });
    let answer = anna.ok(command);
    assert_eq!((&answer["to"], &answer["id"]), (&json!(ben.id), &json!(id)));
    assert!(answer.get("repeated").is_none() && answer.get("seq").is_none(), "{answer}");
    let expected = json!({
        "type": "direct", "seq": 1, "id": id, "sender": "anna", "content": {"a": 1},
        "timestamp": "2025-03-15T12:00:00Z", "client_id": anna.id,
    });
    assert_eq!(ben.expect("direct"), expected);
    // The numbers are the receiver's, whoever sends.
    carl.ok(direct(&ben.id, "two"));
    anna.ok(direct(&ben.id, "three"));
    ben.ok(direct(&anna.id, "one of anna's"));
    assert_eq!(ben.expect("direct")["seq"], 2);
    assert_eq!(ben.expect("direct")["seq"], 3);
    assert_eq!(anna.expect("direct")["seq"], 1);
    // To oneself is to somebody as well.
    let own = carl.id.clone();
    carl.ok(direct(&own, "note to self"));
    let note = carl.expect("direct");
    assert_eq!((&note["client_id"], &note["seq"]), (&json!(own), &json!(1)));
    for chat in [&mut anna, &mut ben, &mut carl] {
        chat.expect_silence();
    }
    assert_eq!(server.stats().directs, 5);
}

#[test]
fn a_direct_message_without_a_ref_is_answered_only_if_it_fails() {
    let server = TestServer::start(lasting());
    let (mut anna, mut ben) = (Chat::new(&server), Chat::new(&server));
    anna.say(direct(&ben.id, 1));
    ben.expect("direct");
    anna.expect_silence();
    anna.say(direct(&fresh_id(), 1));
    assert_eq!(anna.expect("error")["code"], "not_found");
}

#[test]
fn who_is_gone_for_good_is_not_found() {
    let server = TestServer::start(lasting());
    let (mut anna, ben) = (Chat::new(&server), Chat::new(&server));
    let to = ben.id.clone();
    ben.close(None);
    server.wait_for("ben is gone", |stats| stats.sessions == 1);
    assert_eq!(anna.fails(direct(&to, 1)), "not_found");
    assert_eq!(anna.fails(direct(&Uuid::nil().to_string(), 1)), "not_found");
}

#[test]
fn direct_messages_wait_for_who_is_away() {
    let server = TestServer::start(lasting());
    let (mut anna, mut ben) = (Chat::new(&server), Chat::new(&server));
    anna.ok(direct(&ben.id, "seen"));
    ben.expect("direct");
    let to = ben.id.clone();
    let session = lose(&server, ben, Loss::Reset);
    for n in 0..5 {
        anna.ok(direct(&to, n));
    }
    let (mut ben, answer) = Chat::back(&server, &session, json!([]));
    assert_eq!(answer["direct"], json!({"seq": 6, "recovered": true}));
    for n in 0..5 {
        let message = ben.expect("direct");
        assert_eq!((&message["content"], &message["seq"]), (&json!(n), &json!(n + 2)));
    }
    anna.ok(direct(&to, "live"));
    assert_eq!(ben.expect("direct")["seq"], 7);
    // Those were sent, so they do not come again.
    lose(&server, ben, Loss::Reset);
    let (mut ben, answer) = Chat::back(&server, &session, json!([]));
    assert_eq!(answer["direct"], json!({"seq": 7, "recovered": true}));
    ben.expect_silence();
}

#[test]
fn direct_messages_that_were_lost_on_the_way_are_had_by_their_number() {
    let server = TestServer::start(Config { inbox: 6, ..lasting() });
    let (mut anna, ben) = (Chat::new(&server), Chat::new(&server));
    let (to, mut session) = (ben.id.clone(), ben.session.clone());
    // All were sent to a connection; how many of them ben has seen is what ben says.
    for n in 1..=10 {
        anna.ok(direct(&to, n));
    }
    lose(&server, ben, Loss::Reset);
    for (seen, expected, recovered) in [
        (10, vec![], true),
        (7, vec![8, 9, 10], true),
        (4, vec![5, 6, 7, 8, 9, 10], true),
        (3, vec![5, 6, 7, 8, 9, 10], false),
        (0, vec![5, 6, 7, 8, 9, 10], false),
        (11, vec![], false),
        (u64::MAX, vec![], false),
    ] {
        let (mut ben, answer) = Chat::resume_direct(&server, &session, seen);
        assert_eq!(answer["direct"], json!({"seq": 10, "recovered": recovered}), "since {seen}");
        for n in expected {
            assert_eq!(ben.expect("direct")["seq"], n, "since {seen}");
        }
        ben.expect_silence();
        session = lose(&server, ben, Loss::Reset);
    }
}

#[test]
fn an_inbox_has_a_bound_of_messages_and_refuses_more() {
    let server = TestServer::start(Config { inbox: 3, ..lasting() });
    let (mut anna, ben) = (Chat::new(&server), Chat::new(&server));
    let to = ben.id.clone();
    let mut session = lose(&server, ben, Loss::Reset);
    for round in 0..3 {
        for n in 0..3 {
            anna.ok(direct(&to, n));
        }
        assert_eq!(anna.fails(direct(&to, "one too many")), "limit_exceeded");
        assert_eq!(anna.fails(direct(&to, "one too many")), "limit_exceeded");
        let (mut ben, answer) = Chat::back(&server, &session, json!([]));
        assert_eq!(answer["direct"], json!({"seq": (round + 1) * 3, "recovered": true}));
        for n in 0..3 {
            assert_eq!(ben.expect("direct")["content"], n, "what was refused has no number");
        }
        session = lose(&server, ben, Loss::Reset);
    }
}

#[test]
fn an_inbox_has_a_bound_of_bytes() {
    let server = TestServer::start(Config { inbox_bytes: 3000, ..lasting() });
    let (mut anna, ben) = (Chat::new(&server), Chat::new(&server));
    let to = ben.id.clone();
    let session = lose(&server, ben, Loss::Reset);
    anna.ok(direct(&to, "x".repeat(1000)));
    anna.ok(direct(&to, "y".repeat(1000)));
    assert_eq!(anna.fails(direct(&to, "z".repeat(1000))), "limit_exceeded");
    anna.ok(direct(&to, "a short one fits"));
    let (mut ben, _) = Chat::back(&server, &session, json!([]));
    assert_eq!(ben.expect("direct")["seq"], 1);
    assert_eq!(ben.expect("direct")["seq"], 2);
    assert_eq!(ben.expect("direct")["content"], "a short one fits");
}

#[test]
fn without_an_inbox_only_those_who_are_there_are_reached() {
    let server = TestServer::start(Config { inbox: 0, ..lasting() });
    let (mut anna, mut ben) = (Chat::new(&server), Chat::new(&server));
    let to = ben.id.clone();
    anna.ok(direct(&to, 1));
    assert_eq!(ben.expect("direct")["seq"], 1);
    let session = lose(&server, ben, Loss::Reset);
    assert_eq!(anna.fails(direct(&to, 2)), "limit_exceeded");
    let (mut ben, answer) = Chat::back(&server, &session, json!([]));
    assert_eq!(answer["direct"], json!({"seq": 1, "recovered": true}));
    anna.ok(direct(&to, 3));
    assert_eq!(ben.expect("direct")["seq"], 2);
}

#[test]
fn direct_messages_of_many_senders_come_in_the_order_of_their_numbers() {
    const SENDERS: usize = 4;
    const EACH: u64 = 60;
    let mut random =
        Numbers::seeded("direct_messages_of_many_senders_come_in_the_order_of_their_numbers");
    let server = Arc::new(TestServer::start(Config {
        thread_pool_size: 3,
        inbox: 1000,
        inbox_bytes: 1 << 20,
        buffer: 4096,
        ..lasting()
    }));
    let ben = Chat::new(&server);
    let (to, session) = (ben.id.clone(), ben.session.clone());
    let senders: Vec<_> = (0..SENDERS)
        .map(|sender| {
            let (mut chat, to) = (Chat::new(&server), to.clone());
            thread::spawn(move || {
                for n in 0..EACH {
                    chat.ok(direct(&to, json!([sender, n])));
                }
            })
        })
        .collect();
    let total = SENDERS as u64 * EACH;
    let mut next = [0; SENDERS];
    let mut ben = Some(ben);
    let mut seen = 0;
    while seen < total {
        let chat = ben.as_mut().unwrap();
        for _ in 0..random.below(30).min(total - seen) {
            let message = chat.expect("direct");
            seen += 1;
            assert_eq!(number(&message["seq"]), seen);
            let sender = number(&message["content"][0]) as usize;
            assert_eq!(number(&message["content"][1]), next[sender], "each in its own order");
            next[sender] += 1;
        }
        let chat = ben.take().unwrap();
        if random.chance(50) {
            chat.lose(LOSSES[random.below(2) as usize]);
        }
        let (chat, answer) = Chat::resume_direct(&server, &session, seen);
        assert_eq!(answer["direct"]["recovered"], true, "{answer}");
        ben = Some(chat);
    }
    senders.into_iter().for_each(|sender| sender.join().unwrap());
    ben.unwrap().expect_silence();
}

// ---- publishes that are repeated to be sure
// --------------------------------------------------------

fn publish(room: &str, id: &str) -> Value {
    json!({"type": "publish", "room": room, "content": "once", "id": id})
}

fn publish_to(rooms: &[&str], id: &str) -> Value {
    json!({"type": "publish", "rooms": rooms, "content": "once", "id": id})
}

/// The answer without its `ref`.
fn bare(mut answer: Value) -> Value {
    answer.as_object_mut().unwrap().remove("ref");
    answer
}

/// The answer that a repeat of the command is given.
fn repeated(answer: &Value) -> Value {
    let mut answer = bare(answer.clone());
    answer["repeated"] = json!(true);
    answer
}

#[test]
fn a_repeated_id_is_published_once() {
    let server = TestServer::start(lasting());
    let (mut anna, mut ben) = (Chat::new(&server), Chat::new(&server));
    let id = fresh_id();
    let first = anna.ok(publish("lobby", &id));
    assert!(first.get("repeated").is_none());
    anna.publish("lobby", "another");
    for _ in 0..2 {
        assert_eq!(bare(anna.ok(publish("lobby", &id))), repeated(&first));
    }
    // Without a ref it is silent, and with other words still a repeat.
    anna.say(publish("lobby", &id));
    let other = json!({"content": "other words", "id": id.to_uppercase(), "echo": true});
    assert_eq!(bare(anna.ok(other)), repeated(&first));
    let got: Vec<Value> = ben.settled();
    assert_eq!(seqs(&json!(got)), [1, 2]);
    assert_eq!(server.stats().repeats, 4);
    anna.expect_silence();
}

#[test]
fn ids_that_the_server_gave_are_no_repeats() {
    let server = TestServer::start(lasting());
    let mut anna = Chat::new(&server);
    for n in 1..=3 {
        let nil = json!({"content": 1, "id": Uuid::nil().to_string()});
        assert_eq!(anna.ok(nil)["seq"], 2 * n - 1);
        assert_eq!(anna.ok(json!({"content": 1, "id": "mine"}))["seq"], 2 * n);
    }
}

#[test]
fn one_id_in_two_rooms_is_two_messages() {
    let server = TestServer::start(lasting());
    let mut anna = Chat::new(&server);
    anna.join("a");
    let id = fresh_id();
    for room in ["lobby", "a"] {
        let first = anna.ok(publish(room, &id));
        assert_eq!(first["seq"], 1);
        assert_eq!(bare(anna.ok(publish(room, &id))), repeated(&first));
    }
}

#[test]
fn one_id_of_two_sessions_is_two_messages() {
    let server = TestServer::start(lasting());
    let (mut anna, mut ben) = (Chat::new(&server), Chat::new(&server));
    let id = fresh_id();
    assert_eq!(anna.ok(publish("lobby", &id))["seq"], 1);
    let second = ben.ok(publish("lobby", &id));
    assert_eq!((&second["seq"], second.get("repeated")), (&json!(2), None));
}

#[test]
fn a_repeat_into_several_rooms_is_known() {
    let server = TestServer::start(lasting());
    let (mut anna, mut ben) = (Chat::outside(&server), Chat::outside(&server));
    for room in ["a", "b", "c"] {
        anna.join(room);
        ben.join(room);
    }
    anna.publish("b", "so that the numbers differ");
    let id = fresh_id();
    let first = anna.ok(publish_to(&["a", "b"], &id));
    assert_eq!(first["rooms"], json!([{"room": "a", "seq": 1}, {"room": "b", "seq": 2}]));
    assert_eq!(bare(anna.ok(publish_to(&["a", "b"], &id))), repeated(&first));
    assert_eq!(ben.settled().len(), 2);
}

#[test]
fn one_id_into_other_rooms_is_another_message() {
    let server = TestServer::start(lasting());
    let mut anna = Chat::outside(&server);
    for room in ["a", "b", "c"] {
        anna.join(room);
    }
    anna.publish("b", "so that the numbers differ");
    let id = fresh_id();
    anna.ok(publish_to(&["a", "b"], &id));
    let second = anna.ok(publish_to(&["a", "c"], &id));
    assert_eq!(second.get("repeated"), None, "{second}");
    assert_eq!(second["rooms"], json!([{"room": "a", "seq": 2}, {"room": "c", "seq": 1}]));
}

#[test]
fn one_id_into_one_room_and_into_several_is_two_messages() {
    let server = TestServer::start(lasting());
    let mut anna = Chat::outside(&server);
    anna.join("a");
    anna.join("b");
    let (one, other) = (fresh_id(), fresh_id());
    anna.ok(publish("a", &one));
    let second = anna.ok(publish_to(&["a", "b"], &one));
    assert_eq!(second.get("repeated"), None, "{second}");
    assert_eq!(second["rooms"], json!([{"room": "a", "seq": 2}, {"room": "b", "seq": 1}]));
    anna.ok(publish_to(&["a", "b"], &other));
    let second = anna.ok(publish("a", &other));
    assert_eq!((&second["seq"], second.get("repeated")), (&json!(4), None));
}

#[test]
fn the_same_rooms_in_another_order_are_the_same_rooms() {
    let server = TestServer::start(lasting());
    let mut anna = Chat::outside(&server);
    anna.join("a");
    anna.join("b");
    anna.publish("b", "so that the numbers differ");
    let id = fresh_id();
    anna.ok(publish_to(&["a", "b"], &id));
    let second = anna.ok(publish_to(&["b", "a"], &id));
    assert_eq!(second["repeated"], true, "{second}");
    assert_eq!(second["rooms"], json!([{"room": "b", "seq": 2}, {"room": "a", "seq": 1}]));
}

#[test]
fn a_repeated_direct_message_is_delivered_once() {
    let server = TestServer::start(lasting());
    let (mut anna, mut ben) = (Chat::new(&server), Chat::new(&server));
    let id = fresh_id();
    let command = json!({"type": "direct", "to": ben.id, "content": 1, "id": id});
    let first = anna.ok(command.clone());
    assert_eq!(bare(anna.ok(command.clone())), repeated(&first));
    assert_eq!(ben.settled().len(), 1);
    // A repeat is answered even when the receiver is gone: it was delivered.
    ben.close(None);
    server.wait_for("ben is gone", |stats| stats.sessions == 1);
    assert_eq!(bare(anna.ok(command)), repeated(&first));
}

#[test]
fn one_id_to_two_receivers_is_two_direct_messages() {
    let server = TestServer::start(lasting());
    let (mut anna, mut ben, mut carl) =
        (Chat::new(&server), Chat::new(&server), Chat::new(&server));
    let id = fresh_id();
    for to in [&ben.id, &carl.id] {
        let answer = anna.ok(json!({"type": "direct", "to": to, "content": 1, "id": id}));
        assert_eq!(answer.get("repeated"), None, "{answer}");
    }
    assert_eq!(ben.settled().len(), 1);
    assert_eq!(carl.settled().len(), 1, "carl gets one, too");
}

#[test]
fn one_id_in_a_room_and_direct_is_two_messages() {
    let server = TestServer::start(lasting());
    let (mut anna, mut ben) = (Chat::new(&server), Chat::new(&server));
    let id = fresh_id();
    anna.ok(publish("lobby", &id));
    anna.ok(json!({"type": "direct", "to": ben.id, "content": 1, "id": id}));
    assert_eq!(ben.settled().len(), 2);
}

#[test]
fn the_last_128_ids_are_remembered() {
    let config = Config { history: 1000, ..lasting() };
    let server = TestServer::start(config);
    let mut anna = Chat::new(&server);
    let ids: Vec<String> = (0..129).map(|_| fresh_id()).collect();
    for id in &ids[..128] {
        anna.ok(publish("lobby", id));
    }
    assert_eq!(anna.ok(publish("lobby", &ids[0]))["repeated"], true, "a repeat takes no place");
    // Those without an id of their own take none either.
    for _ in 0..10 {
        anna.publish("lobby", "anonymous");
    }
    assert_eq!(anna.ok(publish("lobby", &ids[0]))["repeated"], true);
    anna.ok(publish("lobby", &ids[128]));
    let again = anna.ok(publish("lobby", &ids[0]));
    assert_eq!((again.get("repeated"), &again["seq"]), (None, &json!(140)), "the oldest is gone");
    assert_eq!(anna.ok(publish("lobby", &ids[2]))["repeated"], true, "and the third is not");
}

#[test]
fn ids_are_remembered_over_a_resume() {
    let server = TestServer::start(lasting());
    let (mut anna, mut ben) = (Chat::new(&server), Chat::new(&server));
    anna.join("a");
    let (one, several, private) = (fresh_id(), fresh_id(), fresh_id());
    let direct = json!({"type": "direct", "to": ben.id, "content": 1, "id": private});
    let commands = [publish("lobby", &one), publish_to(&["lobby", "a"], &several), direct];
    let firsts: Vec<Value> = commands.iter().map(|command| anna.ok(command.clone())).collect();
    assert_eq!(ben.settled().len(), 3);
    let session = anna.session.clone();
    for round in 0..3 {
        // Lost once, and taken over twice.
        let mut kept = None;
        if round == 0 {
            lose(&server, std::mem::replace(&mut anna, Chat::outside(&server)), Loss::Reset);
        } else {
            kept = Some(std::mem::replace(&mut anna, Chat::outside(&server)));
        }
        let (back, _) = Chat::back(&server, &session, json!([]));
        std::mem::replace(&mut anna, back).close(None);
        for (command, first) in commands.iter().zip(&firsts) {
            assert_eq!(bare(anna.ok(command.clone())), repeated(first));
        }
        drop(kept);
    }
    assert_eq!(ben.settled(), [] as [Value; 0]);
}

#[test]
fn a_repeat_is_published_if_the_first_was_refused() {
    let server = TestServer::start(lasting());
    let mut anna = Chat::outside(&server);
    let id = fresh_id();
    assert_eq!(anna.fails(publish("a", &id)), "not_member");
    anna.join("a");
    let first = anna.ok(publish("a", &id));
    assert_eq!(first.get("repeated"), None);
    anna.leave("a");
    assert_eq!(anna.fails(publish("a", &id)), "not_member", "one must be there, repeat or not");
}

// ---- the same through the library
// ------------------------------------------------------------------

/// A small protocol of its own, so that sessions are tried on the face that embedders have:
/// `join ROOM`, `leave ROOM`, `say ROOM TEXT`, `once ROOM ID TEXT`, `direct ID TEXT`,
/// `resume TOKEN DIRECT ROOM EPOCH SEQ`, and `who` for the token.
#[derive(Clone)]
struct Plain;

type Ctx<'a, M> = Context<'a, (), M>;

fn tell<M: Mode>(ctx: &mut Ctx<'_, M>, text: &str) {
    ctx.send(text);
}

impl<M: Mode> Handler<M> for Plain {
    type State = ();

    fn resumable(&self) -> bool {
        true
    }

    fn on_message(&self, ctx: &mut Ctx<'_, M>, message: Incoming<'_>) {
        let words: Vec<&str> = message.as_text().unwrap_or_default().split(' ').collect();
        match words[..] {
            ["who"] => {
                let text = format!("you {} {}", ctx.client_id(), ctx.session_token());
                tell(ctx, &text);
            }
            ["join", room] => {
                let name = RoomName::new(room).unwrap();
                ctx.join(&name, Replay::Nothing).then(|ctx, joined| {
                    let Position { epoch, seq } = joined.unwrap().position;
                    tell(ctx, &format!("at {epoch} {seq}"));
                });
            }
            ["leave", room] => {
                ctx.leave(room).then(|ctx, left| tell(ctx, &format!("left {left:?}")));
            }
            ["say", room, text] => {
                let before = format!("{room} ");
                let after = format!(" {text}");
                let publication = Publication::around_seq(&before, &after);
                ctx.publish_to_others(room, publication).then(|ctx, said| {
                    tell(ctx, &format!("said {:?}", said.map(|said| said.seq)));
                });
            }
            ["once", room, id, text] => {
                let before = format!("{room} ");
                let after = format!(" {text}");
                let publication =
                    Publication::around_seq(&before, &after).dedup_id(id.parse().unwrap());
                ctx.publish_to_others(room, publication).then(|ctx, said| {
                    let said = said.unwrap();
                    tell(ctx, &format!("said {} {}", said.seq, said.repeated));
                });
            }
            ["direct", to, text] => {
                let after = format!(" {text}");
                let publication = Publication::around_seq("direct ", &after);
                ctx.direct(&to.parse().unwrap(), publication).then(|ctx, sent| {
                    tell(ctx, &format!("sent {:?}", sent.map(|sent| sent.seq)));
                });
            }
            ["resume", token, direct, ref places @ ..] => {
                let token: SessionToken = token.parse().unwrap();
                let places: Vec<(RoomName, Position)> = places
                    .chunks(3)
                    .map(|part| {
                        let position = Position {
                            epoch: part[1].parse().unwrap(),
                            seq: part[2].parse().unwrap(),
                        };
                        (RoomName::new(part[0]).unwrap(), position)
                    })
                    .collect();
                ctx.resume(&token, &places, direct.parse().ok()).then(|ctx, resumed| {
                    let resumed = match resumed {
                        Ok(resumed) => resumed,
                        Err(error) => return tell(ctx, &format!("refused {error:?}")),
                    };
                    assert_eq!(resumed.client_id, ctx.client_id());
                    let mut text = format!(
                        "resumed {} {} {}",
                        resumed.client_id, resumed.direct_seq, resumed.directs_recovered
                    );
                    for room in &resumed.rooms {
                        let joined = room.joined.as_ref().unwrap();
                        text.push_str(&format!(
                            " [{} {} {}",
                            room.room, joined.position.seq, joined.recovered
                        ));
                        for frame in &joined.replay {
                            let message = String::from_utf8_lossy(frame.payload());
                            text.push_str(&format!(" <{message}>"));
                        }
                        text.push(']');
                    }
                    tell(ctx, &text);
                    for direct in &resumed.directs {
                        ctx.send_prepared(direct);
                    }
                });
            }
            _ => panic!("{words:?}"),
        }
    }
}

struct PlainClient(support::Client);

impl PlainClient {
    fn new(server: &TestServer) -> PlainClient {
        PlainClient(server.connect("/"))
    }

    fn hear(&mut self) -> String {
        self.0.next().to_text().unwrap().to_owned()
    }

    /// Asks and returns the answer, which comes next.
    fn ask(&mut self, text: &str) -> String {
        self.0.send(text);
        self.hear()
    }

    /// Its id and its token.
    fn who(&mut self) -> (String, String) {
        let answer = self.ask("who");
        let mut words = answer.split(' ').skip(1).map(str::to_owned);
        (words.next().unwrap(), words.next().unwrap())
    }

    fn join(&mut self, room: &str) -> String {
        let answer = self.ask(&format!("join {room}"));
        answer.split(' ').nth(1).unwrap().to_owned()
    }

    fn lose(self, server: &TestServer) {
        let before = server.stats().sessions_away;
        let socket = socket2::SockRef::from(self.0.socket.get_ref());
        socket.set_linger(Some(Duration::ZERO)).unwrap();
        drop(self);
        wait_for_away(server, before + 1);
    }
}

/// Runs `test` on a server whose handler runs on the worker, and on one whose handler may block.
fn on_both(mut test: impl FnMut(&TestServer)) {
    let serve = |service: fn() -> rusty_socks::Builder| {
        let config = Config {
            history: 100_000,
            history_bytes: 64 << 20,
            buffer: 100_000,
            buffer_bytes: 64 << 20,
            ..lasting()
        };
        TestServer::run(service().config(config).bind().unwrap())
    };
    fn mounted(handler: impl IntoService) -> rusty_socks::Builder {
        Server::builder().route("/", handler)
    }
    test(&serve(|| mounted(Plain)));
    test(&serve(|| mounted(Handler::<MayBlock>::blocking(Plain, 3, 100))));
}

#[test]
fn an_embedders_sessions_are_resumed() {
    on_both(|server| {
        let (mut anna, mut ben) = (PlainClient::new(server), PlainClient::new(server));
        let (id, token) = anna.who();
        let a = anna.join("a");
        anna.join("b");
        ben.join("a");
        ben.join("b");
        assert_eq!(ben.ask("say a hello"), "said Ok(1)");
        assert_eq!(anna.hear(), "a 1 hello");
        anna.lose(server);
        assert_eq!(ben.ask("say a missed"), "said Ok(2)");
        assert_eq!(ben.ask("say b missed"), "said Ok(1)");
        assert_eq!(ben.ask(&format!("direct {id} first")), "sent Ok(1)");
        assert_eq!(ben.ask(&format!("direct {id} second")), "sent Ok(2)");
        let mut anna = PlainClient::new(server);
        let answer = anna.ask(&format!("resume {token} - a {a} 1"));
        assert_eq!(answer, format!("resumed {id} 2 true [a 2 true <a 2 missed>] [b 1 false]"));
        assert_eq!((anna.hear(), anna.hear()), ("direct 1 first".into(), "direct 2 second".into()));
        assert_eq!(anna.who(), (id.clone(), token.clone()));
        ben.ask("say a live");
        assert_eq!(anna.hear(), "a 3 live");
        assert_eq!(anna.ask("say b back"), "said Ok(2)");
        assert_eq!(ben.hear(), "b 2 back");
        assert_eq!(anna.ask("leave b"), "left Ok(())");
        assert_eq!(anna.ask(&format!("resume {token} -")), "refused NotFresh");
        let mut other = PlainClient::new(server);
        let forged = format!("{}{}", &token[..95], if token.ends_with('0') { "1" } else { "0" });
        assert_eq!(other.ask(&format!("resume {forged} -")), "refused NoSuchSession");
    });
}

#[test]
fn an_embedders_session_is_taken_over() {
    on_both(|server| {
        let (mut old, mut ben) = (PlainClient::new(server), PlainClient::new(server));
        let (id, token) = old.who();
        let a = old.join("a");
        ben.join("a");
        ben.ask("say a one");
        let mut new = PlainClient::new(server);
        let answer = new.ask(&format!("resume {token} 0 a {a} 0"));
        assert_eq!(answer, format!("resumed {id} 0 true [a 1 true <a 1 one>]"));
        assert_eq!(u16::from(old.0.closed().unwrap().code), 4010);
        ben.ask("say a two");
        assert_eq!(new.hear(), "a 2 two");
        server.wait_for("the old one is gone", |stats| stats.active_connections == 2);
        assert_eq!((server.stats().sessions, server.stats().sessions_away), (2, 0));
        ben.ask("say a three");
        assert_eq!(new.hear(), "a 3 three");
    });
}

#[test]
fn an_embedders_repeats_are_known() {
    on_both(|server| {
        let (mut anna, mut ben) = (PlainClient::new(server), PlainClient::new(server));
        let (_, token) = anna.who();
        anna.join("a");
        ben.join("a");
        let once = format!("once a {} text", fresh_id());
        assert_eq!(anna.ask(&once), "said 1 false");
        assert_eq!(anna.ask(&once), "said 1 true");
        anna.lose(server);
        let mut anna = PlainClient::new(server);
        assert!(anna.ask(&format!("resume {token} -")).starts_with("resumed"));
        assert_eq!(anna.ask(&once), "said 1 true");
        assert_eq!(anna.ask("say a next"), "said Ok(2)");
        assert_eq!((ben.hear(), ben.hear()), ("a 1 text".into(), "a 2 next".into()));
    });
}

#[test]
fn an_embedders_session_is_not_kept_unless_it_says_so() {
    let plain = |ctx: &mut Context<'_, ()>, message: Incoming<'_>| match message.as_text() {
        Some("who") => {
            let text = format!("you {} {}", ctx.client_id(), ctx.session_token());
            tell(ctx, &text);
        }
        text => {
            let token: SessionToken = text.unwrap_or_default().parse().unwrap();
            ctx.resume(&token, &[], None).then(|ctx, resumed| {
                tell(ctx, &format!("{:?}", resumed.map(|_| ())));
            });
        }
    };
    let builder = Server::builder().config(lasting()).route("/", plain);
    let server = TestServer::run(builder.bind().unwrap());
    let mut anna = PlainClient::new(&server);
    let (_, token) = anna.who();
    drop(anna);
    server.wait_for("it is gone", |stats| stats.sessions == 0);
    assert_eq!(PlainClient::new(&server).ask(&token), "Err(NoSuchSession)");
}

#[test]
fn a_blocking_handlers_messages_after_a_takeover_say_nothing_any_more() {
    // The handler is held up at a message, while the next one waits in the lane.
    let (gate, closed) = crossbeam_channel::bounded::<()>(0);
    let (stalled, is_stalled) = crossbeam_channel::bounded(1);
    struct Held(crossbeam_channel::Receiver<()>, crossbeam_channel::Sender<()>);
    impl Handler<MayBlock> for Held {
        type State = ();
        fn resumable(&self) -> bool {
            true
        }
        fn on_message(&self, ctx: &mut Ctx<'_, MayBlock>, message: Incoming<'_>) {
            if message.as_text() == Some("wait") {
                self.1.send(()).unwrap();
                let _ = self.0.recv_timeout(DEADLINE);
            } else {
                Plain.on_message(ctx, message);
            }
        }
    }
    let handler = Held(closed, stalled).blocking(2, 100);
    let builder = Server::builder().config(lasting()).route("/", handler);
    let server = TestServer::run(builder.bind().unwrap());
    let (mut old, mut ben) = (PlainClient::new(&server), PlainClient::new(&server));
    let (_, token) = old.who();
    old.join("a");
    ben.join("a");
    old.0.send("wait");
    is_stalled.recv_timeout(DEADLINE).unwrap();
    old.0.send("say a from-the-grave");
    server.wait_for("it waits in the lane", |stats| stats.jobs_queued == 2);
    let mut new = PlainClient::new(&server);
    assert!(new.ask(&format!("resume {token} -")).starts_with("resumed"));
    drop(gate);
    assert_eq!(u16::from(old.0.closed().unwrap().code), 4010);
    assert_eq!(ben.ask("say a next"), "said Ok(1)", "what came too late is not published");
    assert_eq!(new.hear(), "a 1 next");
}

#[test]
fn a_blocking_handlers_seam_loses_and_doubles_nothing() {
    let mut random = Numbers::seeded("a_blocking_handlers_seam_loses_and_doubles_nothing");
    on_both(|server| {
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            let mut ben = PlainClient::new(server);
            ben.join("a");
            scope.spawn(|| {
                let mut ben = ben;
                while !done.load(Ordering::Relaxed) {
                    assert!(ben.ask("say a x").starts_with("said Ok"));
                }
            });
            // Its failure ends the publisher, too.
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                let mut chat = PlainClient::new(server);
                let (_, token) = chat.who();
                chat.0.send("join a");
                // Where the handler blocks, live messages may come before an answer.
                let mut live = Vec::new();
                let (epoch, mut seen) = loop {
                    let text = chat.hear();
                    match text.split(' ').collect::<Vec<_>>()[..] {
                        ["at", epoch, seq] => {
                            break (epoch.to_owned(), seq.parse::<u64>().unwrap());
                        }
                        _ => live.push(text),
                    }
                };
                for text in live {
                    let seq: u64 = text.split(' ').nth(1).unwrap().parse().unwrap();
                    assert_eq!(seq, seen + 1, "{text}");
                    seen = seq;
                }
                for _ in 0..12 {
                    for _ in 0..random.below(20) {
                        let text = chat.hear();
                        let seq: u64 = text.split(' ').nth(1).unwrap().parse().unwrap();
                        assert_eq!(seq, seen + 1, "{text}");
                        seen = seq;
                    }
                    if random.chance(50) {
                        drop(chat);
                    }
                    let mut new = PlainClient::new(server);
                    new.0.send(format!("resume {token} - a {epoch} {seen}"));
                    let mut live = Vec::new();
                    let answer = loop {
                        let text = new.hear();
                        if text.starts_with("resumed") {
                            break text;
                        }
                        live.push(text);
                    };
                    let messages = answer.match_indices("<a ").map(|(at, _)| &answer[at + 1..]);
                    for text in messages.chain(live.iter().map(String::as_str)) {
                        let seq: u64 = text.split(' ').nth(1).unwrap().parse().unwrap();
                        assert_eq!(seq, seen + 1, "{text}");
                        seen = seq;
                    }
                    chat = new;
                }
            }));
            done.store(true, Ordering::Relaxed);
            outcome.unwrap();
        });
    });
}

#[test]
fn a_drain_keeps_nobody_from_ending() {
    let server = TestServer::start(lasting());
    let mut chats: Vec<Chat> = (0..4).map(|_| Chat::new(&server)).collect();
    lose(&server, chats.pop().unwrap(), Loss::Reset);
    server.handle.shutdown(DEADLINE);
    for chat in &mut chats {
        let (code, before) = chat.closed();
        assert_eq!((code, &before[0]["type"]), (1001, &json!("closing")));
    }
    server.handle.join();
}

#[test]
fn a_close_frame_with_nothing_in_it_ends_a_session() {
    let server = TestServer::start(lasting());
    for (bytes, survives) in [(frame(0x88, b""), 0), (close_frame(1001), 1)] {
        let mut raw = server.upgrade("/ws");
        raw.text();
        raw.send(&bytes);
        server.wait_for("it is over", |stats| stats.active_connections == 0);
        assert_eq!(server.stats().sessions, survives);
    }
}
