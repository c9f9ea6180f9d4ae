//! Presence: who is in a room, and who comes and goes, whatever becomes of connections.

// A helper that panics fails its test with a clear message.
#![allow(clippy::unwrap_used)]

mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Barrier, Mutex},
    thread,
    time::{Duration, Instant},
};

use rusty_socks::{CloseReason, Config};
use serde_json::{Value, json};
use support::{
    DEADLINE, TestServer, config,
    sessions::{Chat, Loss, Numbers, lose, number, place, room_of, text, wait_for_away},
};

/// A server whose sessions last as long as any test.
fn lasting() -> Config {
    Config { resume_window: Duration::from_secs(60), max_errors: 0, replay: 0, ..config() }
}

/// Joins and watches; returns the answer.
fn watch(chat: &mut Chat, room: &str) -> Value {
    let answer = chat.ok(json!({"type": "join", "room": room, "presence": true}));
    assert!(answer["members"].is_array() && answer["count"].is_u64(), "{answer}");
    answer
}

fn presence(chat: &mut Chat, room: &str) -> Value {
    chat.ok(json!({"type": "presence", "room": room}))
}

/// The ids in a list of members, each once.
fn ids(answer: &Value) -> BTreeSet<String> {
    let members = answer["members"].as_array().unwrap();
    let ids: BTreeSet<String> = members.iter().map(|member| text(&member["client_id"])).collect();
    assert_eq!(ids.len(), members.len(), "{answer}");
    ids
}

fn set<const N: usize>(chats: [&Chat; N]) -> BTreeSet<String> {
    chats.iter().map(|chat| chat.id.clone()).collect()
}

/// Expects one notice of that kind about that client.
fn expect_notice(chat: &mut Chat, kind: &str, room: &str, id: &str) -> Value {
    let notice = chat.expect(kind);
    assert_eq!((&notice["room"], &notice["client_id"]), (&json!(room), &json!(id)), "{notice}");
    notice
}

// ---- who is there
// ----------------------------------------------------------------------------------

#[test]
fn presence_says_who_is_there() {
    let server = TestServer::start(lasting());
    let (mut anna, mut ben, mut carl) =
        (Chat::new(&server), Chat::new(&server), Chat::outside(&server));
    anna.join("a");
    ben.join("a");
    let answer = presence(&mut anna, "a");
    assert_eq!((ids(&answer), &answer["count"]), (set([&anna, &ben]), &json!(2)));
    assert_eq!(answer["room"], "a");
    let answer = presence(&mut anna, "lobby");
    assert_eq!((ids(&answer), &answer["count"]), (set([&anna, &ben]), &json!(2)));
    assert_eq!(carl.fails(json!({"type": "presence", "room": "a"})), "not_member");
    assert_eq!(carl.fails(json!({"type": "presence", "room": "nowhere"})), "not_member");
    // It is a question, so it is answered without a ref.
    anna.say(json!({"type": "presence", "room": "a"}));
    let answer = anna.expect("ok");
    assert!(answer.get("ref").is_none() && answer["count"] == 2, "{answer}");
    ben.leave("a");
    assert_eq!(ids(&presence(&mut anna, "a")), set([&anna]));
}

#[test]
fn who_does_not_watch_is_told_nothing() {
    let server = TestServer::start(lasting());
    let (mut anna, mut ben) = (Chat::new(&server), Chat::new(&server));
    anna.join("a");
    presence(&mut anna, "a");
    ben.join("a");
    ben.leave("a");
    anna.expect_silence();
}

#[test]
fn who_watches_is_told_of_others_who_come_and_go() {
    let server = TestServer::start(lasting());
    let (mut anna, mut ben, mut carl) =
        (Chat::outside(&server), Chat::outside(&server), Chat::outside(&server));
    let answer = watch(&mut anna, "a");
    assert_eq!((ids(&answer), &answer["count"]), (set([&anna]), &json!(1)));
    let answer = watch(&mut ben, "a");
    assert_eq!((ids(&answer), &answer["count"]), (set([&anna, &ben]), &json!(2)));
    let joined = expect_notice(&mut anna, "joined", "a", &ben.id);
    assert_eq!(joined.as_object().unwrap().len(), 3, "no sender, no ref: {joined}");
    carl.join("a");
    for chat in [&mut anna, &mut ben] {
        expect_notice(chat, "joined", "a", &carl.id);
    }
    carl.leave("a");
    for chat in [&mut anna, &mut ben] {
        expect_notice(chat, "left", "a", &carl.id);
    }
    // Other rooms are other rooms.
    carl.join("b");
    carl.leave("b");
    ben.leave("a");
    expect_notice(&mut anna, "left", "a", &ben.id);
    carl.join("a");
    expect_notice(&mut anna, "joined", "a", &carl.id);
    let id = carl.id.clone();
    carl.close(None);
    expect_notice(&mut anna, "left", "a", &id);
    anna.expect_silence();
    ben.expect_silence();
}

#[test]
fn watching_begins_and_ends_when_it_is_said() {
    let server = TestServer::start(lasting());
    let (mut anna, mut ben) = (Chat::outside(&server), Chat::outside(&server));
    let begin = json!({"type": "presence", "room": "a", "watch": true});
    let end = json!({"type": "presence", "room": "a", "watch": false});
    anna.join("a");
    for _ in 0..3 {
        ben.join("a");
        ben.leave("a");
        assert_eq!(anna.ok(begin.clone())["count"], 1);
        // To say so again changes nothing, nor does a question.
        anna.ok(begin.clone());
        presence(&mut anna, "a");
        ben.join("a");
        expect_notice(&mut anna, "joined", "a", &ben.id);
        ben.leave("a");
        expect_notice(&mut anna, "left", "a", &ben.id);
        assert_eq!(anna.ok(end.clone())["count"], 1);
        anna.ok(end.clone());
        ben.join("a");
        ben.leave("a");
        anna.expect_silence();
    }
    assert_eq!(ben.fails(begin), "not_member");
}

#[test]
fn leaving_ends_watching() {
    let server = TestServer::start(lasting());
    let (mut anna, mut ben) = (Chat::outside(&server), Chat::outside(&server));
    watch(&mut anna, "a");
    anna.leave("a");
    ben.join("a");
    anna.join("a");
    ben.leave("a");
    ben.join("a");
    anna.expect_silence();
}

#[test]
fn a_room_that_nobody_watches_costs_no_notices() {
    let server = TestServer::start(lasting());
    let mut anna = Chat::outside(&server);
    anna.join("a");
    let come_and_go = |times: usize| {
        let mut ben = Chat::outside(&server);
        for _ in 0..times {
            ben.join("a");
            ben.leave("a");
        }
        ben.close(None);
    };
    let before = server.stats().deliveries;
    come_and_go(5);
    anna.settled();
    assert_eq!(server.stats().deliveries, before);
    anna.ok(json!({"type": "presence", "room": "a", "watch": true}));
    come_and_go(5);
    assert_eq!(anna.settled().len(), 10);
    assert_eq!(server.stats().deliveries, before + 10);
    anna.ok(json!({"type": "presence", "room": "a", "watch": false}));
    come_and_go(5);
    anna.settled();
    assert_eq!(server.stats().deliveries, before + 10);
}

#[test]
fn a_thousand_are_listed_and_all_are_counted() {
    const CLIENTS: usize = 1005;
    let server = TestServer::start(Config { max_conn: 2000, ..lasting() });
    let chats: Vec<Chat> = (0..CLIENTS).map(|_| Chat::new(&server)).collect();
    let mut asker = Chat::new(&server);
    let answer = presence(&mut asker, "lobby");
    assert_eq!(number(&answer["count"]), CLIENTS as u64 + 1);
    let listed = ids(&answer);
    assert_eq!(listed.len(), 1000);
    let mut everyone: BTreeSet<String> = chats.iter().map(|chat| chat.id.clone()).collect();
    everyone.insert(asker.id.clone());
    assert!(listed.is_subset(&everyone));
    for chat in chats.into_iter().skip(10) {
        chat.close(None);
    }
    let answer = presence(&mut asker, "lobby");
    assert_eq!((ids(&answer).len(), &answer["count"]), (11, &json!(11)));
}

// ---- names
// -----------------------------------------------------------------------------------------

/// The name of a client in the list.
fn name_of(answer: &Value, id: &str) -> Value {
    let members = answer["members"].as_array().unwrap();
    let member = members.iter().find(|member| member["client_id"] == id).unwrap();
    member.get("sender").cloned().unwrap_or_default()
}

#[test]
fn a_name_comes_from_the_join() {
    let server = TestServer::start(lasting());
    let (mut anna, mut ben) = (Chat::outside(&server), Chat::outside(&server));
    watch(&mut anna, "a");
    ben.ok(json!({"type": "join", "room": "a", "sender": "ben \"b\" \u{e9}"}));
    let notice = expect_notice(&mut anna, "joined", "a", &ben.id);
    assert_eq!(notice["sender"], "ben \"b\" \u{e9}");
    assert_eq!(name_of(&presence(&mut anna, "a"), &ben.id), notice["sender"]);
    assert_eq!(name_of(&presence(&mut anna, "a"), &anna.id), Value::Null);
    // What it says in a message is what that message says.
    ben.ok(json!({"room": "a", "content": 1, "sender": "benny"}));
    assert_eq!(anna.expect("message")["sender"], "benny");
    assert_eq!(name_of(&presence(&mut anna, "a"), &ben.id), notice["sender"]);
    // Another join may say another one.
    ben.ok(json!({"type": "join", "room": "b", "sender": "benjamin"}));
    assert_eq!(name_of(&presence(&mut anna, "a"), &ben.id), "benjamin");
    ben.leave("a");
    assert_eq!(expect_notice(&mut anna, "left", "a", &ben.id)["sender"], "benjamin");
}

#[test]
fn a_name_comes_from_the_first_message_that_has_one() {
    let server = TestServer::start(lasting());
    let (mut anna, mut ben) = (Chat::new(&server), Chat::new(&server));
    ben.ok(json!({"content": 1}));
    assert_eq!(name_of(&presence(&mut anna, "lobby"), &ben.id), Value::Null);
    ben.ok(json!({"content": 1, "sender": "ben"}));
    assert_eq!(name_of(&presence(&mut anna, "lobby"), &ben.id), "ben");
    ben.ok(json!({"content": 1, "sender": "somebody else"}));
    assert_eq!(name_of(&presence(&mut anna, "lobby"), &ben.id), "ben");
    // Whoever comes into another room has it there, too.
    watch(&mut anna, "a");
    ben.join("a");
    assert!(
        anna.settled().iter().any(|frame| frame["type"] == "joined" && frame["sender"] == "ben")
    );
}

#[test]
fn a_name_survives_a_resume() {
    let server = TestServer::start(lasting());
    let (mut anna, mut ben) = (Chat::new(&server), Chat::new(&server));
    ben.ok(json!({"type": "join", "room": "a", "sender": "ben"}));
    let id = ben.id.clone();
    let session = lose(&server, ben, Loss::Reset);
    assert_eq!(name_of(&presence(&mut anna, "lobby"), &id), "ben", "while it is away");
    let (mut ben, _) = Chat::back(&server, &session, json!([]));
    assert_eq!(name_of(&presence(&mut anna, "lobby"), &id), "ben");
    ben.ok(json!({"content": 1, "sender": "somebody else"}));
    assert_eq!(name_of(&presence(&mut anna, "lobby"), &id), "ben", "it has a name already");
}

// ---- many who come and go
// --------------------------------------------------------------------------

#[test]
fn one_who_joins_and_leaves_without_end_is_told_of_now_and_then() {
    const WATCHERS: usize = 40;
    const TIMES: usize = 1000;
    let server = TestServer::start(lasting());
    let mut watchers: Vec<Chat> = (0..WATCHERS).map(|_| Chat::outside(&server)).collect();
    watchers.iter_mut().for_each(|watcher| drop(watch(watcher, "a")));
    // Those who came first were told of those who came later.
    watchers.iter_mut().for_each(|watcher| drop(watcher.settled()));
    let mut ben = Chat::outside(&server);
    let began = Instant::now();
    for _ in 0..TIMES {
        ben.say(json!({"type": "join", "room": "a"}));
        ben.say(json!({"type": "leave", "room": "a"}));
    }
    ben.join("a");
    let seen = |chat: &mut Chat| {
        let mut is_there = false;
        let mut notices = 0;
        while !is_there
            || !chat.ok(json!({"type": "presence", "room": "a"}))["members"]
                .as_array()
                .unwrap()
                .iter()
                .any(|member| member["client_id"] == json!(ben.id))
        {
            let notice = chat.next();
            notices += 1;
            is_there = match text(&notice["type"]).as_str() {
                "joined" => true,
                "left" => false,
                "presence" => notice["joined"] != json!([]),
                other => panic!("{other}"),
            };
        }
        notices + chat.settled().len()
    };
    let counts: Vec<usize> = watchers.iter_mut().map(seen).collect();
    // 25 deliveries to 40 watchers in each moment, and one together.
    let moments = began.elapsed().as_millis() as usize / 100 + 2;
    for count in counts {
        assert!(count <= 27 * moments, "{count} of {} in {moments} moments", 2 * TIMES + 1);
    }
}

#[test]
fn many_who_come_at_once_are_told_together() {
    let server = TestServer::start(lasting());
    // 1,024 deliveries are 25 notices to 40; what 60 do within 100 ms is more.
    let mut watchers: Vec<Chat> = (0..40).map(|_| Chat::outside(&server)).collect();
    watchers.iter_mut().for_each(|watcher| drop(watch(watcher, "a")));
    watchers.iter_mut().for_each(|watcher| drop(watcher.settled()));
    let mut crowd: Vec<Chat> = (0..60).map(|_| Chat::outside(&server)).collect();
    let everyone: BTreeSet<String> = crowd.iter().map(|one| one.id.clone()).collect();
    let end = Instant::now() + DEADLINE;
    let mut together = 0;
    // On a machine that is busy with other things they may be slower once or twice.
    while together == 0 {
        assert!(Instant::now() < end, "nothing was told together");
        for (kind, single) in [("join", "joined"), ("leave", "left")] {
            crowd.iter_mut().for_each(|one| one.say(json!({"type": kind, "room": "a"})));
            crowd.iter_mut().for_each(|one| drop(one.settled()));
            for watcher in &mut watchers {
                let mut told = BTreeSet::new();
                while told.len() < crowd.len() {
                    let notice = watcher.next();
                    let members = match notice["type"] == "presence" {
                        true => notice[single].as_array().unwrap().clone(),
                        false => vec![notice.clone()],
                    };
                    let ids = members.iter().map(|member| text(&member["client_id"]));
                    // The watchers came one after the other, and may be told of last.
                    let of_crowd: Vec<String> = ids.filter(|id| everyone.contains(id)).collect();
                    together += usize::from(of_crowd.len() > 1);
                    for id in of_crowd {
                        assert!(notice["type"] == single || notice["type"] == "presence");
                        assert!(told.insert(id), "{notice}: once");
                    }
                }
                assert_eq!(told, everyone);
            }
        }
    }
    assert!(server.stats().presence_batches > 0);
}

// ---- newcomers
// -------------------------------------------------------------------------------------

#[test]
fn a_silent_newcomer_is_shown_within_a_second() {
    let server = TestServer::start(lasting());
    let mut anna = Chat::new(&server);
    anna.ok(json!({"type": "presence", "room": "lobby", "watch": true}));
    for _ in 0..3 {
        let began = Instant::now();
        let ben = Chat::new(&server);
        expect_notice(&mut anna, "joined", "lobby", &ben.id);
        let late = began.elapsed();
        assert!(late < Duration::from_millis(1500), "{late:?}");
        let id = ben.id.clone();
        ben.close(None);
        expect_notice(&mut anna, "left", "lobby", &id);
    }
}

#[test]
fn a_newcomer_that_speaks_is_shown_at_once() {
    let server = TestServer::start(lasting());
    let mut anna = Chat::new(&server);
    anna.ok(json!({"type": "presence", "room": "lobby", "watch": true}));
    let mut ben = Chat::new(&server);
    ben.ask(json!({"type": "ping"}));
    let frames = anna.settled();
    assert_eq!(frames, [json!({"type": "joined", "room": "lobby", "client_id": ben.id})]);
    // With the name that it says in that very message.
    let mut carl = Chat::new(&server);
    carl.ok(json!({"content": 1, "sender": "carl"}));
    let frames = anna.settled();
    let joined = frames.iter().find(|frame| frame["type"] == "joined").unwrap();
    assert_eq!(joined["sender"], "carl");
    // And once: neither speaking again nor its first second shows it anew.
    let end = Instant::now() + Duration::from_millis(1200);
    while Instant::now() < end {
        ben.ask(json!({"type": "ping"}));
        carl.ask(json!({"type": "ping"}));
        anna.expect_silence();
    }
}

#[test]
fn a_newcomer_that_goes_at_once_is_never_shown() {
    let server = TestServer::start(lasting());
    let mut anna = Chat::new(&server);
    anna.ok(json!({"type": "presence", "room": "lobby", "watch": true}));
    let ben = Chat::new(&server);
    ben.close(None);
    let session = lose(&server, Chat::new(&server), Loss::Reset);
    server.wait_for("they are gone", |stats| stats.active_connections == 1);
    anna.expect_silence();
    // Who was lost before anyone was told of it, and comes back, is told of then.
    let (carl, _) = Chat::back(&server, &session, json!([]));
    assert_eq!(anna.settled(), [json!({"type": "joined", "room": "lobby", "client_id": carl.id})]);
}

// ---- resume, takeover, expiry
// ----------------------------------------------------------------------

#[test]
fn a_resume_within_the_window_shows_nothing() {
    let server = TestServer::start(lasting());
    let mut anna = Chat::new(&server);
    anna.ok(json!({"type": "presence", "room": "lobby", "watch": true}));
    watch(&mut anna, "a");
    let mut ben = Chat::new(&server);
    ben.join("a");
    assert_eq!(anna.settled().len(), 2);
    let session = ben.session.clone();
    for round in 0..6 {
        // Cut off, and taken over.
        let mut kept = Vec::new();
        match round % 3 {
            0 => drop(lose(&server, ben, Loss::Reset)),
            1 => drop(lose(&server, ben, Loss::Fin)),
            _ => kept.push(ben),
        }
        let everyone: BTreeSet<String> = ids(&presence(&mut anna, "a"));
        assert_eq!(everyone.len(), 2, "who is away is there");
        ben = Chat::back(&server, &session, json!([])).0;
        assert_eq!(ids(&presence(&mut anna, "a")), everyone);
        assert_eq!(ids(&presence(&mut anna, "lobby")), everyone, "and nobody else");
        drop(kept);
    }
    // Nor does the moment show it at which a newcomer would be shown.
    let end = Instant::now() + Duration::from_millis(1200);
    while Instant::now() < end {
        anna.expect_silence();
    }
}

#[test]
fn who_does_not_come_back_is_shown_to_have_left() {
    let config = Config { resume_window: Duration::from_millis(400), ..lasting() };
    let server = TestServer::start(config);
    let mut anna = Chat::outside(&server);
    watch(&mut anna, "a");
    watch(&mut anna, "b");
    let mut ben = Chat::outside(&server);
    ben.join("a");
    ben.join("b");
    assert_eq!(anna.settled().len(), 2);
    let id = ben.id.clone();
    let began = Instant::now();
    ben.lose(Loss::Reset);
    let mut rooms: Vec<String> =
        [(); 2].map(|()| text(&anna.expect("left")["room"])).into_iter().collect();
    rooms.sort();
    assert_eq!(rooms, ["a", "b"]);
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(390), "{took:?}");
    assert!(took < Duration::from_secs(4), "{took:?}");
    assert!(!ids(&presence(&mut anna, "a")).contains(&id));
    anna.expect_silence();
}

#[test]
fn an_end_for_good_shows_at_once() {
    let server = TestServer::start(lasting());
    let mut anna = Chat::outside(&server);
    watch(&mut anna, "a");
    for code in [None, Some(1000), Some(4000)] {
        let mut ben = Chat::outside(&server);
        ben.join("a");
        expect_notice(&mut anna, "joined", "a", &ben.id);
        let id = ben.id.clone();
        ben.close(code);
        assert_eq!(anna.settled(), [json!({"type": "left", "room": "a", "client_id": id})]);
    }
    let mut ben = Chat::outside(&server);
    ben.join("a");
    expect_notice(&mut anna, "joined", "a", &ben.id);
    server.handle.close(&ben.id.parse().unwrap(), CloseReason::KICKED).unwrap();
    ben.closed();
    assert_eq!(anna.settled(), [json!({"type": "left", "room": "a", "client_id": ben.id})]);
}

#[test]
fn eviction_shows_at_once() {
    let server = TestServer::start(Config { max_away_sessions: 1, ..lasting() });
    let mut anna = Chat::outside(&server);
    watch(&mut anna, "a");
    let mut gone = Vec::new();
    for n in 1..=2 {
        let mut ben = Chat::outside(&server);
        ben.join("a");
        expect_notice(&mut anna, "joined", "a", &ben.id);
        gone.push(ben.id.clone());
        ben.lose(Loss::Reset);
        server.wait_for("it is away", |stats| {
            stats.active_connections == 1
                && stats.sessions_away == 1
                && stats.sessions_evicted == n - 1
        });
    }
    // In one millisecond neither is longer away than the other.
    let left = text(&anna.expect("left")["client_id"]);
    assert!(gone.contains(&left));
    anna.expect_silence();
    assert_eq!(presence(&mut anna, "a")["count"], 2);
}

#[test]
fn a_watcher_that_comes_back_gets_the_list_and_goes_on() {
    let server = TestServer::start(lasting());
    let (mut anna, mut ben, mut carl) =
        (Chat::outside(&server), Chat::outside(&server), Chat::outside(&server));
    watch(&mut anna, "a");
    anna.join("b");
    carl.join("a");
    expect_notice(&mut anna, "joined", "a", &carl.id);
    let session = lose(&server, anna, Loss::Reset);
    // What happens meanwhile is in the list, and in no notice.
    ben.join("a");
    carl.leave("a");
    ben.join("b");
    for round in 0..3 {
        let (mut anna, answer) = Chat::back(&server, &session, json!([]));
        let part = room_of(&answer, "a");
        assert_eq!((ids(part), &part["count"]), (set([&anna, &ben]), &json!(2)), "{round}");
        let part = room_of(&answer, "b");
        assert!(part.get("members").is_none() && part.get("count").is_none(), "it is not watched");
        carl.join("a");
        expect_notice(&mut anna, "joined", "a", &carl.id);
        carl.leave("a");
        expect_notice(&mut anna, "left", "a", &carl.id);
        anna.expect_silence();
        if round == 1 {
            // The next one takes it over.
            let _kept = anna;
        } else {
            lose(&server, anna, Loss::Reset);
        }
    }
}

#[test]
fn watchers_that_are_away_do_not_keep_others_from_being_told() {
    let server = TestServer::start(lasting());
    let (mut anna, mut ben, mut carl) =
        (Chat::outside(&server), Chat::outside(&server), Chat::outside(&server));
    watch(&mut anna, "a");
    let session = lose(&server, anna, Loss::Reset);
    // With nobody there to watch, the carrier of notices goes; the next one begins anew.
    carl.join("a");
    carl.leave("a");
    watch(&mut ben, "a");
    let (mut anna, _) = Chat::back(&server, &session, json!([]));
    carl.join("a");
    for chat in [&mut anna, &mut ben] {
        expect_notice(chat, "joined", "a", &carl.id);
    }
    ben.ok(json!({"type": "presence", "room": "a", "watch": false}));
    carl.leave("a");
    expect_notice(&mut anna, "left", "a", &carl.id);
    anna.expect_silence();
    ben.expect_silence();
}

#[test]
fn who_comes_through_a_pattern_is_shown() {
    let server = TestServer::start(lasting());
    let (mut anna, mut ben) = (Chat::outside(&server), Chat::outside(&server));
    watch(&mut anna, "p.a");
    ben.ok(json!({"type": "join", "room": "p.*", "sender": "ben"}));
    let notice = expect_notice(&mut anna, "joined", "p.a", &ben.id);
    assert_eq!(notice["sender"], "ben");
    ben.ok(json!({"type": "leave", "room": "p.*"}));
    expect_notice(&mut anna, "left", "p.a", &ben.id);
    ben.ok(json!({"type": "join", "room": "p.*"}));
    expect_notice(&mut anna, "joined", "p.a", &ben.id);
    // A room that is made brings both, and ben may be quicker than the watch.
    let watched = watch(&mut anna, "p.new");
    ben.await_kind("matched");
    if !ids(&watched).contains(&ben.id) {
        expect_notice(&mut anna, "joined", "p.new", &ben.id);
    }
    assert_eq!(ids(&presence(&mut anna, "p.new")), set([&anna, &ben]));
    anna.expect_silence();
}

// ---- under churn
// -----------------------------------------------------------------------------------

const ROOMS: [&str; 2] = ["a", "b"];

/// What a watcher knows: whom it takes to be in each room.
struct Watcher {
    chat: Chat,
    rooms: BTreeMap<String, BTreeSet<String>>,
    notices: u64,
}

impl Watcher {
    fn new(server: &TestServer) -> Watcher {
        let mut chat = Chat::outside(server);
        let rooms = ROOMS.map(|room| (room.to_owned(), ids(&watch(&mut chat, room))));
        Watcher { chat, rooms: rooms.into(), notices: 0 }
    }

    /// Applies a notice. Whoever comes is not there yet, and whoever goes is.
    fn apply(&mut self, notice: &Value) {
        let room = self.rooms.get_mut(notice["room"].as_str().unwrap()).unwrap();
        let id = text(&notice["client_id"]);
        self.notices += 1;
        let is_new = match notice["type"].as_str().unwrap() {
            "joined" => room.insert(id),
            "left" => room.remove(&id),
            _ => panic!("{notice}"),
        };
        assert!(is_new, "told of what it knew: {notice}");
    }

    /// Applies everything that was under way, and compares with what the server says when asked.
    fn check(&mut self, expected: Option<&BTreeMap<String, BTreeSet<String>>>) {
        for notice in self.chat.settled() {
            self.apply(&notice);
        }
        for room in ROOMS {
            let answer = presence(&mut self.chat, room);
            assert_eq!(number(&answer["count"]), self.rooms[room].len() as u64);
            assert_eq!(ids(&answer), self.rooms[room], "{room}");
            if let Some(expected) = expected {
                let others = self.rooms[room].intersection(&expected[""]).cloned();
                assert_eq!(others.collect::<BTreeSet<String>>(), expected[room], "{room}");
            }
        }
        self.chat.expect_silence();
    }
}

/// One client that comes and goes, and where it knows that it is.
struct Visitor {
    chat: Option<Chat>,
    id: String,
    session: String,
    rooms: BTreeSet<&'static str>,
    changes: u64,
}

impl Visitor {
    fn new(server: &TestServer) -> Visitor {
        let chat = Chat::outside(server);
        let (id, session) = (chat.id.clone(), chat.session.clone());
        Visitor { chat: Some(chat), id, session, rooms: BTreeSet::new(), changes: 0 }
    }

    fn step(&mut self, server: &TestServer, random: &mut Numbers) {
        let room = ROOMS[random.below(2) as usize];
        match random.below(10) {
            0..=5 => {
                let chat = self.chat.as_mut().unwrap();
                if self.rooms.remove(room) {
                    chat.leave(room);
                } else {
                    chat.join(room);
                    self.rooms.insert(room);
                }
                self.changes += 1;
            }
            6 | 7 => {
                // Lost and back, or taken over: nobody is to see it.
                let old = self.chat.take().unwrap();
                let kept = match random.below(3) {
                    0 => {
                        old.lose(Loss::Reset);
                        None
                    }
                    1 => {
                        old.lose(Loss::Fin);
                        None
                    }
                    _ => Some(old),
                };
                let (chat, answer) = Chat::back(server, &self.session, json!([]));
                let names: BTreeSet<String> =
                    support::sessions::room_names(&answer).into_iter().collect();
                assert_eq!(names, self.rooms.iter().map(ToString::to_string).collect());
                self.chat = Some(chat);
                drop(kept);
            }
            8 => {
                // Gone for good; somebody else comes.
                self.chat.take().unwrap().close(Some(1000));
                let changes = self.changes + self.rooms.len() as u64;
                *self = Visitor { changes, ..Visitor::new(server) };
            }
            _ => {
                let chat = self.chat.as_mut().unwrap();
                chat.settled();
            }
        }
    }
}

#[test]
fn under_churn_every_list_is_exact() {
    const VISITORS: usize = 6;
    const ROUNDS: usize = 6;
    const STEPS: usize = 20;
    let mut random = Numbers::seeded("under_churn_every_list_is_exact");
    let server = Arc::new(TestServer::start(Config { thread_pool_size: 4, ..lasting() }));
    let mut watchers: Vec<Watcher> = (0..3).map(|_| Watcher::new(&server)).collect();
    for watcher in &mut watchers {
        watcher.check(None);
        // Those of each other do not count.
        watcher.notices = 0;
    }
    let barrier = Arc::new(Barrier::new(VISITORS + 1));
    let truth = Arc::new(Mutex::new(BTreeMap::<usize, (String, BTreeSet<&str>, u64)>::new()));
    let visitors: Vec<_> = (0..VISITORS)
        .map(|index| {
            let (server, barrier, truth) =
                (Arc::clone(&server), Arc::clone(&barrier), Arc::clone(&truth));
            let mut random = random.split();
            thread::spawn(move || {
                let mut visitor = Visitor::new(&server);
                for _ in 0..ROUNDS {
                    barrier.wait();
                    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                        (0..STEPS).for_each(|_| visitor.step(&server, &mut random));
                    }));
                    let now = (visitor.id.clone(), visitor.rooms.clone(), visitor.changes);
                    truth.lock().unwrap().insert(index, now);
                    barrier.wait();
                    outcome.unwrap();
                    barrier.wait();
                }
            })
        })
        .collect();
    for round in 0..ROUNDS {
        barrier.wait();
        // While the visitors are about, one watcher may be lost and come back.
        let index = random.below(3) as usize;
        let notices_before = watchers[index].notices;
        let session = watchers[index].chat.session.clone();
        if round % 2 == 1 {
            let (chat, answer) = Chat::back(&server, &session, json!([]));
            for room in ROOMS {
                watchers[index].rooms.insert(room.into(), ids(room_of(&answer, room)));
            }
            watchers[index].chat = chat;
        }
        barrier.wait();
        let mut expected: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        let mut changes = 0;
        for (id, rooms, made) in truth.lock().unwrap().values() {
            expected.entry(String::new()).or_default().insert(id.clone());
            for room in ROOMS {
                let there = expected.entry(room.to_owned()).or_default();
                if rooms.contains(room) {
                    there.insert(id.clone());
                }
            }
            changes += made;
        }
        for (at, watcher) in watchers.iter_mut().enumerate() {
            watcher.check(Some(&expected));
            if round % 2 == 1 && at == index {
                // What it was not told of was in its list.
                assert!(watcher.notices - notices_before <= changes);
                watcher.notices = changes;
            }
            assert_eq!(watcher.notices, changes, "each change is told once");
            let strangers: Vec<_> = watcher.rooms["a"].difference(&expected[""]).collect();
            assert_eq!(strangers.len(), 3, "only the watchers are there besides: {strangers:?}");
        }
        barrier.wait();
    }
    visitors.into_iter().for_each(|visitor| visitor.join().unwrap());
}

#[test]
fn a_crowd_that_is_cut_off_and_comes_back_is_not_seen_to_move() {
    const CROWD: usize = 60;
    let server = TestServer::start(Config { thread_pool_size: 3, ..lasting() });
    let mut anna = Chat::outside(&server);
    watch(&mut anna, "a");
    let crowd: Vec<Chat> = (0..CROWD)
        .map(|_| {
            let mut chat = Chat::outside(&server);
            chat.join("a");
            chat
        })
        .collect();
    assert_eq!(anna.settled().len(), CROWD);
    let sessions: Vec<String> = crowd.iter().map(|chat| chat.session.clone()).collect();
    crowd.into_iter().for_each(|chat| chat.lose(Loss::Reset));
    wait_for_away(&server, CROWD);
    let back: Vec<Chat> = sessions
        .iter()
        .map(|session| Chat::back(&server, session, json!([place("a", &json!("1"), 0)])).0)
        .collect();
    let answer = presence(&mut anna, "a");
    assert_eq!(number(&answer["count"]), CROWD as u64 + 1);
    anna.expect_silence();
    drop(back);
}
