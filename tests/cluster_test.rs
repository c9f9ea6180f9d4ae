//! Several servers that share a Redis are to their clients as one, also while one of them, or
//! Redis itself, is gone.

#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test that unwraps fails with a clear message")]

mod support;
#[path = "support/program.rs"]
mod program;
#[path = "support/proxy.rs"]
mod proxy;
#[path = "support/tokens.rs"]
mod tokens;
#[path = "support/redis.rs"]
mod redis;
#[path = "support/cluster.rs"]
mod cluster;
#[path = "support/event_stream.rs"]
mod event_stream;

use std::{
    collections::BTreeSet,
    fs,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use cluster::Cluster;
use event_stream::Stream;
use proxy::Proxy;
use redis::{Keeps, Redis};
use rusty_socks_client::{Pool, PublishOptions, RoomEvent, Session, SessionHealth, SessionStats};
use serde_json::{Value, json};
use support::Listens as _;
use support::{
    DEADLINE, eventually,
    sessions::{Chat, Loss, Numbers, number, place, room_of, seqs, text},
};
use tempfile::TempDir;
use uuid::Uuid;

/// Servers in most tests.
const NODES: usize = 2;

/// Messages of the tests that are about order.
const MESSAGES: u64 = 100;

/// How long Redis is silent until Sentinel fails over.
const SILENCE: Duration = Duration::from_secs(1);

/// What [`add_untold`] has Redis run.
const ADD_UNTOLD: &str = "
    local fields = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)[1][2]
    local seq = redis.call('HGET', KEYS[1], 's') + 1
    for at = 1, #fields, 2 do
        if fields[at] == 'n' then
            fields[at + 1] = string.gsub(fields[at + 1], ':%d+$', ':' .. seq)
        end
    end
    redis.call('XADD', KEYS[2], seq .. '-0', unpack(fields))
    redis.call('HSET', KEYS[1], 's', seq)
    return seq";

/// What [`tell_elsewhere`] has Redis run.
const TELL_ELSEWHERE: &str = "
    local kind, client, channel = ARGV[1], ARGV[2], ARGV[3]
    redis.call('HINCRBY', KEYS[1], 'v', 1)
    local version = redis.call('HGET', KEYS[1], 'v')
    local said = kind .. version .. ' ' .. client .. ' 2 elsewhere\\n'
    if kind == 'P' then
        redis.call('HSET', KEYS[2], client, '2 elsewhere [null,null]')
        said = said .. '[null,null]'
    else
        redis.call('HDEL', KEYS[2], client)
    end
    return redis.call('PUBLISH', channel, said)";

/// A cluster with a Redis of its own, or `None` if there is no Redis here.
fn start(settings: &[(&str, &str)]) -> Option<(Redis, Cluster)> {
    let redis = Redis::start()?;
    let cluster = Cluster::at(&redis.url(), NODES, settings);
    Some((redis, cluster))
}

/// A client of each node, in no room.
fn chats(cluster: &Cluster) -> Vec<Chat> {
    cluster.nodes.iter().map(outside).collect()
}

/// A client of each node, in these rooms.
fn chats_in(cluster: &Cluster, rooms: &[&str]) -> Vec<Chat> {
    let mut chats = chats(cluster);
    for chat in &mut chats {
        rooms.iter().for_each(|room| _ = chat.join(room));
    }
    chats
}

fn outside(node: &cluster::Node) -> Chat {
    let mut chat = Chat::new(node);
    chat.ok(json!({"type": "leave", "room": "lobby"}));
    chat
}

/// The next message of a room; other frames are passed over.
fn message(chat: &mut Chat) -> Value {
    chat.await_kind("message")
}

/// The numbers and contents of the next messages, as many.
fn messages(chat: &mut Chat, count: u64) -> Vec<(u64, Value)> {
    (0..count)
        .map(|_| {
            let message = message(chat);
            (number(&message["seq"]), message["content"].clone())
        })
        .collect()
}

/// Sends a direct message to a client that has just come to another node: it is known here a moment
/// later.
fn tell_newcomer(chat: &mut Chat, direct: &Value) {
    eventually("the client is known", || match chat.ask(direct.clone()) {
        answer if answer["code"] == "not_found" => Err(answer.to_string()),
        answer => {
            assert_eq!(answer["type"], "ok", "{answer}");
            Ok(())
        }
    });
}

/// Publishes until it succeeds, with the same id, for as long as the answer is `overloaded`.
fn publish_at_last(chat: &mut Chat, room: &str, content: &str) -> Value {
    let id = Uuid::new_v4();
    let command = json!({"type": "publish", "room": room, "content": content, "id": id});
    let end = Instant::now() + DEADLINE;
    loop {
        let answer = chat.ask(command.clone());
        if answer["type"] == "ok" {
            return answer;
        }
        assert_eq!(answer["code"], "overloaded", "{answer}");
        assert!(Instant::now() < end, "it never succeeds: {answer}");
        thread::park_timeout(Duration::from_millis(number(&answer["retry_after_ms"])));
    }
}

#[test]
fn all_nodes_see_one_order() {
    let Some((_redis, cluster)) = start(&[]) else { return };
    let mut numbers = Numbers::seeded("all_nodes_see_one_order");
    let (mut readers, mut writers) = (chats(&cluster), chats(&cluster));
    for chat in readers.iter_mut().chain(&mut writers) {
        chat.join("tea");
    }
    // Each writer says all it has to say before it reads an answer.
    for index in 0..MESSAGES {
        let writer = &mut writers[numbers.below(NODES as u64) as usize];
        let content = format!("message {index}");
        writer.say(json!({"type": "publish", "room": "tea", "content": content, "ref": index}));
    }
    let seen: Vec<_> = readers.iter_mut().map(|reader| messages(reader, MESSAGES)).collect();
    let order: Vec<u64> = seen[0].iter().map(|(seq, _)| *seq).collect();
    assert_eq!(order, (1..=MESSAGES).collect::<Vec<_>>());
    let contents: BTreeSet<String> = seen[0].iter().map(|(_, content)| text(content)).collect();
    assert_eq!(contents.len() as u64, MESSAGES, "each message once");
    assert!(seen.iter().all(|other| *other == seen[0]), "all nodes saw the same");
}

#[test]
fn a_history_is_the_same_on_all_nodes() {
    let Some((_redis, cluster)) = start(&[]) else { return };
    let mut chats = chats(&cluster);
    let joined = chats[0].join("tea");
    for index in 1..=5 {
        assert_eq!(chats[0].publish("tea", index), index);
    }
    let other = &mut chats[1];
    let since = json!({"epoch": joined["epoch"], "seq": 2});
    let answer = other.ok(json!({"type": "join", "room": "tea", "since": since}));
    assert_eq!(answer["recovered"], true, "{answer}");
    assert_eq!(answer["epoch"], joined["epoch"]);
    assert_eq!(seqs(&answer["messages"]), [3, 4, 5]);
    let page = other.ok(json!({"type": "history", "room": "tea", "before": 4, "limit": 2}));
    assert_eq!(seqs(&page["messages"]), [2, 3]);
    other.leave("tea");
    let since = json!({"epoch": "0000000000000001", "seq": 2});
    let answer = other.ok(json!({"type": "join", "room": "tea", "since": since}));
    assert_eq!(answer["recovered"], false, "{answer}");
}

#[test]
fn what_is_kept_no_more_is_recovered_on_no_node() {
    let Some((_redis, cluster)) = start(&[("HISTORY", "3"), ("REPLAY", "0")]) else { return };
    let mut chats = chats(&cluster);
    let epoch = chats[0].join("tea")["epoch"].clone();
    for index in 1..=9 {
        assert_eq!(chats[0].publish("tea", index), index);
    }
    // The room comes to the second node now.
    for (seq, messages) in [(2, vec![]), (6, vec![7, 8, 9])] {
        let since = json!({"epoch": epoch, "seq": seq});
        let answer = chats[1].ok(json!({"type": "join", "room": "tea", "since": since}));
        assert_eq!(answer["recovered"], json!(seq == 6), "{answer}");
        assert_eq!(seqs(&answer["messages"]), messages);
        chats[1].leave("tea");
    }
}

#[test]
fn members_of_all_nodes_are_present() {
    let Some((_redis, cluster)) = start(&[]) else { return };
    let mut chats = chats(&cluster);
    let ids: Vec<String> = chats.iter().map(|chat| chat.id.clone()).collect();
    let join =
        |name: &str| json!({"type": "join", "room": "tea", "presence": true, "sender": name});
    assert_eq!(chats[0].ok(join("Anna"))["count"], 1);
    chats[1].ok(join("Ben"));
    // Those of other nodes are known a moment later.
    await_members(&mut chats[1], "tea", 2);
    let answer = chats[1].ok(json!({"type": "presence", "room": "tea"}));
    let members = answer["members"].as_array().unwrap();
    let members: BTreeSet<_> =
        members.iter().map(|one| (text(&one["client_id"]), text(&one["sender"]))).collect();
    let expected = [(ids[0].clone(), "Anna".into()), (ids[1].clone(), "Ben".into())];
    assert_eq!(members, BTreeSet::from(expected));
    assert_eq!(chats[0].expect("joined")["client_id"], ids[1].as_str());
    chats[1].leave("tea");
    assert_eq!(chats[0].expect("left")["client_id"], ids[1].as_str());
    chats[0].expect_silence();
}

#[test]
fn a_direct_message_finds_its_client() {
    let Some((_redis, cluster)) = start(&[]) else { return };
    let mut chats = chats(&cluster);
    let (from, to) = (chats[0].id.clone(), chats[1].id.clone());
    let id = Uuid::new_v4();
    let direct = json!({"type": "direct", "to": to, "content": "a word?", "id": id});
    tell_newcomer(&mut chats[0], &direct);
    let came = chats[1].expect("direct");
    assert_eq!((&came["seq"], &came["content"]), (&json!(1), &json!("a word?")));
    assert_eq!(came["client_id"], from.as_str());
    assert_eq!(chats[0].ok(direct)["repeated"], true);
    chats[1].expect_silence();
    let nobody = json!({"type": "direct", "to": Uuid::new_v4(), "content": "anybody?"});
    assert_eq!(chats[0].fails(nobody), "not_found");
}

#[test]
fn a_session_of_a_node_that_is_killed_goes_on_at_another() {
    let Some((_redis, mut cluster)) = start(&[]) else { return };
    let mut chats = chats(&cluster);
    let epoch = chats[0].join("tea")["epoch"].clone();
    chats[1].join("tea");
    let ids: Vec<Uuid> = (0..3).map(|_| Uuid::new_v4()).collect();
    let said = |id: &Uuid| json!({"type": "publish", "room": "tea", "content": id, "id": id});
    let before: Vec<Value> = ids.iter().map(|id| chats[0].ok(said(id))).collect();
    let mut other = chats.pop().unwrap();
    let lost = chats.pop().unwrap();
    let read = other.publish("tea", "seen");
    let mut lost = lost;
    assert_eq!(number(&message(&mut lost)["seq"]), read);
    cluster.kill(0);
    let missed = [other.publish("tea", "one"), other.publish("tea", "two")];
    other.ok(json!({"type": "direct", "to": lost.id, "content": "where are you?"}));

    let rooms = json!([place("tea", &epoch, read)]);
    let (mut back, answer) = Chat::back(&cluster.nodes[1], &lost.session, rooms);
    assert_eq!(back.id, lost.id);
    let room = room_of(&answer, "tea");
    assert_eq!((&room["recovered"], &room["epoch"]), (&json!(true), &epoch), "{answer}");
    assert_eq!(seqs(&room["messages"]), missed);
    let direct = back.expect("direct");
    assert_eq!(direct["content"], "where are you?");
    // Whoever does not know whether it was heard says it again.
    for (id, first) in ids.iter().zip(&before) {
        let again = back.ok(said(id));
        assert_eq!((&again["repeated"], &again["seq"]), (&json!(true), &first["seq"]));
    }
    assert_eq!(other.publish("tea", "three"), missed[1] + 1);
    assert_eq!(number(&message(&mut back)["seq"]), missed[1] + 1);
    back.expect_silence();
}

/// The sessions of a pool resume at the node that is left, and repeat there what was not answered.
#[test]
fn a_pool_goes_on_when_a_node_is_killed_and_publishes_nothing_twice() {
    const CALLERS: usize = 2;
    const EACH: usize = 150;
    let Some((_redis, mut cluster)) = start(&[]) else { return };
    let urls: Vec<String> =
        cluster.nodes.iter().map(|node| format!("ws://{}/ws", node.program.addr)).collect();
    let settings = Session::builder().without_events().subscription_events_max(10_000);
    let reader = settings.connect(&urls[1]).unwrap();
    let heard = reader.room("tea").subscribe().unwrap();
    let pool = Pool::builder().server(&urls[0]).server(&urls[1]).servers_share_redis(true);
    // Order is kept for as long as it takes.
    let pool = pool.sessions(4).move_after(DEADLINE).publish_timeout(DEADLINE).connect().unwrap();
    eventually("all are connected", || {
        let stats = pool.stats();
        let is_up = |of: &SessionStats| of.health == SessionHealth::Connected;
        if stats.sessions.iter().all(is_up) { Ok(()) } else { Err(format!("{stats:?}")) }
    });
    // A room that has its session on the node that is killed.
    let elsewhere = (0..100).map(|number| format!("room {number}")).find(|room| {
        let before: Vec<u64> = pool.stats().sessions.iter().map(|of| of.published).collect();
        pool.publish(room, "first").unwrap();
        let after = pool.stats().sessions;
        after.iter().zip(before).any(|(of, before)| of.published > before && of.server == urls[0])
    });
    let rooms = ["tea".to_owned(), elsewhere.expect("some room is there")];
    let other = reader.room(&*rooms[1]).subscribe().unwrap();
    thread::scope(|scope| {
        let publish = |caller: usize| {
            let (pool, room) = (pool.clone(), &rooms[caller]);
            move || {
                let publish = |number: usize| {
                    // Spread over the time of the kill.
                    thread::sleep(Duration::from_millis(4));
                    pool.publish_later(room, &number, PublishOptions::default()).unwrap()
                };
                let tickets: Vec<_> = (0..EACH).map(publish).collect();
                for ticket in tickets {
                    ticket.wait(DEADLINE).unwrap();
                }
            }
        };
        let callers: Vec<_> = (0..CALLERS).map(|caller| scope.spawn(publish(caller))).collect();
        let first = heard.recv_timeout(DEADLINE).unwrap();
        assert!(matches!(first, Some(RoomEvent::Message(message)) if message.content.get() == "0"));
        cluster.kill(0);
        callers.into_iter().for_each(|caller| caller.join().unwrap());
    });
    for (heard, from) in [(&heard, 1), (&other, 0)] {
        for number in from..EACH {
            match heard.recv_timeout(DEADLINE).unwrap() {
                Some(RoomEvent::Message(message)) => {
                    assert_eq!(message.content::<usize>().unwrap(), number, "once, and in order");
                }
                other => panic!("{other:?}"),
            }
        }
        let more = heard.recv_timeout(Duration::from_millis(150));
        assert!(more.as_ref().is_err_and(rusty_socks_client::Error::is_timeout), "{more:?}");
    }
    let stats = pool.stats();
    assert!(stats.sessions.iter().all(|of| of.server == urls[1] && of.failed == 0), "{stats:?}");
    pool.close(DEADLINE).unwrap();
}

#[test]
fn a_session_that_never_comes_back_leaves_once() {
    let Some((_redis, mut cluster)) = start(&[("RESUME_WINDOW", "1")]) else { return };
    let mut chats = chats(&cluster);
    chats[1].ok(json!({"type": "join", "room": "tea", "presence": true}));
    chats[0].join("tea");
    let lost = chats[0].id.clone();
    assert_eq!(chats[1].expect("joined")["client_id"], lost.as_str());
    cluster.kill(0);
    // Its lease must run out before.
    assert_eq!(chats[1].expect("left")["client_id"], lost.as_str());
    let answer = chats[1].ok(json!({"type": "presence", "room": "tea"}));
    assert_eq!(answer["count"], 1, "{answer}");
    chats[1].expect_silence();
}

#[test]
fn a_resume_that_is_read_late_takes_nothing_from_a_newer_connection_to_another_node() {
    let Some((_redis, cluster)) = start(&[]) else { return };
    let first = outside(&cluster.nodes[0]);
    let session = first.session.clone();
    first.lose(Loss::Reset);
    // Its client gives this one up, and its resume is still on its way.
    let mut given_up = Chat::new(&cluster.nodes[0]);
    let since = Instant::now();
    // The clocks of two nodes may be apart by 250 ms.
    while since.elapsed() < Duration::from_millis(500) {
        outside(&cluster.nodes[1]).join("tea");
    }
    let (mut back, _) = Chat::back(&cluster.nodes[1], &session, json!([]));
    given_up.say(json!({"type": "resume", "session": session, "ref": 1}));
    assert_eq!(given_up.closed(), (1013, vec![]), "no error, which would end the session");
    assert_eq!(back.ask(json!({"type": "ping"}))["type"], "pong");
    // Whoever it is comes again.
    Chat::back(&cluster.nodes[0], &session, json!([]));
    assert_eq!(back.closed().0, 4010);
}

#[test]
fn a_session_in_two_places_is_closed_in_the_first() {
    let Some((_redis, cluster)) = start(&[]) else { return };
    let mut first = outside(&cluster.nodes[0]);
    let epoch = first.join("tea")["epoch"].clone();
    let rooms = json!([place("tea", &epoch, 0)]);
    let (mut second, _) = Chat::back(&cluster.nodes[1], &first.session, rooms);
    let (code, _) = first.closed();
    assert_eq!(code, 4010);
    assert_eq!(second.id, first.id);
    // And back again, to a node that has been its own.
    let rooms = json!([place("tea", &epoch, 0)]);
    let (mut third, _) = Chat::back(&cluster.nodes[0], &second.session, rooms);
    assert_eq!(second.closed().0, 4010);
    assert_eq!(third.publish("tea", "here"), 1);
}

#[test]
fn a_pattern_matches_rooms_of_all_nodes() {
    let Some((_redis, cluster)) = start(&[]) else { return };
    let mut chats = chats(&cluster);
    chats[0].join("prices.eur");
    let answer = chats[1].join("prices.*");
    assert_eq!(answer["rooms"][0]["room"], "prices.eur", "{answer}");
    chats[0].join("prices.usd");
    let matched = chats[1].expect("matched");
    assert_eq!(matched["pattern"], "prices.*");
    assert_eq!((&matched["room"], &matched["seq"]), (&json!("prices.usd"), &json!(0)));
    assert_eq!(chats[0].publish("prices.usd", 1), 1);
    let came = chats[1].expect("message");
    assert_eq!((&came["room"], &came["seq"]), (&json!("prices.usd"), &json!(1)));
    chats[1].leave("prices.*");
    chats[0].publish("prices.usd", 2);
    chats[1].expect_silence();
}

#[test]
fn a_message_to_several_rooms_comes_once() {
    let Some((_redis, cluster)) = start(&[]) else { return };
    let mut chats = chats_in(&cluster, &["tea", "cake"]);
    chats[1].publish("cake", "first");
    message(&mut chats[0]);
    let both = json!({"type": "publish", "rooms": ["tea", "cake"], "content": "at four"});
    let numbered = json!([{"room": "tea", "seq": 1}, {"room": "cake", "seq": 2}]);
    assert_eq!(chats[0].ok(both)["rooms"], numbered);
    assert_eq!(chats[1].expect("message")["rooms"], numbered);
    chats[1].expect_silence();
}

#[test]
fn a_message_to_several_rooms_waits_for_what_one_of_them_has_missed() {
    let Some((redis, cluster)) = start(&[]) else { return };
    let mut chats = chats_in(&cluster, &["tea", "cake"]);
    for said in 1..=3 {
        let seq = 3 * said - 2;
        chats[1].publish("cake", "heard");
        assert_eq!(number(&message(&mut chats[0])["seq"]), seq);
        assert_eq!(add_untold(&redis, &cluster, "cake"), (seq + 1).to_string());
        let rooms = if said % 2 == 0 { ["tea", "cake"] } else { ["cake", "tea"] };
        chats[1].ok(json!({"type": "publish", "rooms": rooms, "content": "both"}));
        let untold = chats[0].expect("message");
        assert_eq!((&untold["room"], number(&untold["seq"])), (&json!("cake"), seq + 1));
        let both = chats[0].expect("message");
        let numbered =
            |room: &str| both["rooms"].as_array().unwrap().iter().find(|of| of["room"] == room);
        assert_eq!(number(&numbered("tea").unwrap()["seq"]), said);
        assert_eq!(number(&numbered("cake").unwrap()["seq"]), seq + 2);
    }
    chats[0].expect_silence();
}

#[test]
fn a_message_to_several_rooms_waits_for_one_that_redis_refuses_to_open() {
    let Some((redis, cluster)) = start(&[]) else { return };
    let mut chats = chats_in(&cluster, &["tea", "cake"]);
    chats[1].publish("tea", "heard");
    assert_eq!(message(&mut chats[0])["content"], "heard");
    let presence = presence_key(&cluster, "tea");
    let kept = format!("{presence}:kept");
    redis.cli(&["RENAME", &presence, &kept]);
    redis.cli(&["SET", &presence, "no members"]);
    assert_eq!(add_untold(&redis, &cluster, "tea"), "2");
    chats[1].ok(json!({"type": "publish", "rooms": ["cake", "tea"], "content": "both"}));
    // Each node asks for what it has missed of one room, to be told this.
    eventually("two refusals", || {
        let refusals = redis.cli(&["INFO", "errorstats"]);
        let of_kind = refusals.lines().find(|line| line.starts_with("errorstat_WRONGTYPE"));
        match of_kind.is_some_and(|line| !line.trim().ends_with("=1")) {
            true => Ok(()),
            false => Err(refusals),
        }
    });
    chats[0].expect_silence();
    redis.cli(&["RENAME", &kept, &presence]);
    let untold = chats[0].expect("message");
    assert_eq!((&untold["room"], &untold["seq"]), (&json!("tea"), &json!(2)));
    assert_eq!(chats[0].expect("message")["content"], "both");
    chats[0].expect_silence();
}

/// Adds the last message of a room once more, as if it had been published while no node heard it.
/// Returns its number.
fn add_untold(redis: &Redis, cluster: &Cluster, room: &str) -> String {
    let key = |kind| format!("{}:{{{room}}}:{kind}", cluster.prefix);
    redis.cli(&["EVAL", ADD_UNTOLD, "2", &key("m"), &key("h")]).trim().to_owned()
}

#[test]
fn a_broadcast_reaches_all_nodes() {
    let Some((_redis, cluster)) = start(&[("BROADCAST", "true")]) else { return };
    let mut chats = chats(&cluster);
    chats[0].ok(json!({"type": "broadcast", "content": "lunch!"}));
    assert_eq!(chats[1].expect("broadcast")["content"], "lunch!");
    chats[0].expect_silence();
}

#[test]
fn while_redis_is_silent_nothing_is_said_in_its_name() {
    let Some((redis, cluster)) = start(&[]) else { return };
    let mut chats = chats_in(&cluster, &["tea"]);
    redis.pause();
    for node in &cluster.nodes {
        node.await_ready(false);
        assert_eq!(node.get("/health").0, 200, "the process itself is well");
    }
    let id = Uuid::new_v4();
    let publish = json!({"type": "publish", "room": "tea", "content": "lost?", "id": id});
    let answer = chats[0].ask(publish.clone());
    assert_eq!(answer["code"], "overloaded", "{answer}");
    assert!(number(&answer["retry_after_ms"]) > 0, "{answer}");
    // Nothing was delivered on the node of the publisher alone, and nobody is disconnected.
    for chat in &mut chats {
        assert_eq!(chat.ask(json!({"type": "ping"}))["type"], "pong");
    }
    redis.go_on();
    for node in &cluster.nodes {
        node.await_ready(true);
    }
    // Redis may have heard it before it fell silent, so it may be a repetition.
    let answer = chats[0].ok(publish);
    assert_eq!(answer["seq"], 1, "{answer}");
    let came = message(&mut chats[1]);
    assert_eq!((&came["seq"], &came["content"]), (&json!(1), &json!("lost?")));
    assert_eq!(chats[1].publish("tea", "hello"), 2);
    assert_eq!(message(&mut chats[0])["content"], "hello");
}

#[test]
fn redis_without_its_data_makes_rooms_anew_and_disconnects_nobody() {
    let Some((mut redis, cluster)) = start(&[]) else { return };
    let mut chats = chats(&cluster);
    let epoch = chats[0].join("tea")["epoch"].clone();
    chats[1].join("tea");
    for index in 1..=3 {
        chats[0].publish("tea", index);
    }
    messages(&mut chats[1], 3);
    redis.restart();
    publish_at_last(&mut chats[0], "tea", "anew");
    let came = message(&mut chats[1]);
    assert_eq!(came["content"], "anew", "{came}");
    let mut late = outside(&cluster.nodes[1]);
    let since = json!({"epoch": epoch, "seq": 3});
    let answer = late.ok(json!({"type": "join", "room": "tea", "since": since}));
    assert_ne!(answer["epoch"], epoch);
    assert_eq!(answer["recovered"], false, "{answer}");
    for chat in &mut chats {
        assert_eq!(chat.ask(json!({"type": "ping"}))["type"], "pong");
    }
}

#[test]
fn redis_that_keeps_its_data_goes_on_where_it_was() {
    let Some(mut redis) = Redis::start_that_keeps(Keeps::All) else { return };
    let cluster = Cluster::at(&redis.url(), NODES, &[]);
    let mut chats = chats_in(&cluster, &["tea"]);
    chats[0].publish("tea", "before");
    redis.restart();
    assert_eq!(publish_at_last(&mut chats[0], "tea", "after")["seq"], 2);
    let came = messages(&mut chats[1], 2);
    assert_eq!(came, [(1, json!("before")), (2, json!("after"))]);
}

#[test]
fn a_link_that_is_cut_loses_nothing() {
    let Some(redis) = Redis::start() else { return };
    let mut cluster = Cluster::at(&redis.url(), 1, &[]);
    let proxy = Proxy::start(redis.addr());
    cluster.add(&format!("redis://{}", proxy.addr), &[]);
    let mut chats = chats_in(&cluster, &["tea"]);
    for index in 1..=MESSAGES {
        if index % 20 == 0 {
            proxy.cut(index % 40 == 0);
        }
        chats[0].publish("tea", index);
    }
    let came: Vec<u64> = messages(&mut chats[1], MESSAGES).iter().map(|(seq, _)| *seq).collect();
    assert_eq!(came, (1..=MESSAGES).collect::<Vec<_>>());
    cluster.nodes[1].await_ready(true);
}

#[test]
fn a_message_without_an_id_is_stored_once_though_its_answer_was_lost() {
    let Some(redis) = Redis::start() else { return };
    let settings = [("HISTORY", "3"), ("REPLAY", "0")];
    let mut cluster = Cluster::at(&redis.url(), 1, &settings);
    let proxy = Proxy::start(redis.addr());
    cluster.add(&format!("redis://{}", proxy.addr), &settings);
    let mut chats = chats_in(&cluster, &["tea"]);
    proxy.stall(true);
    chats[1].say(json!({"type": "publish", "room": "tea", "content": "once", "ref": "asked"}));
    assert_eq!(messages(&mut chats[0], 1), [(1, json!("once"))]);
    // More than are kept come between.
    for seq in 2..=6 {
        assert_eq!(chats[0].publish("tea", seq), seq);
    }
    proxy.cut(true);
    proxy.stall(false);
    let answer = chats[1].await_kind("ok");
    assert_eq!((&answer["ref"], &answer["seq"]), (&json!("asked"), &json!(1)), "{answer}");
    assert_eq!(answer["repeated"], Value::Null, "{answer}");
    assert_eq!(chats[0].publish("tea", "after"), 7);
}

/// It may be killed before the next beat, and nobody would end its sessions then.
#[test]
fn a_node_has_a_lease_as_soon_as_it_has_a_session() {
    let Some(redis) = Redis::start() else { return };
    let cluster = Cluster::at(&redis.url(), 1, &[]);
    let nodes = format!("{}:nodes", cluster.prefix);
    for room in ["tea", "coffee"] {
        let mut chat = outside(&cluster.nodes[0]);
        chat.join(room);
        chat.publish(room, 1);
        assert_eq!(redis.cli(&["ZCARD", &nodes]), "1", "behind the first message in {room}");
        // As if no beat had been taken yet.
        redis.cli(&["DEL", &nodes]);
    }
}

#[test]
fn a_node_that_writes_a_session_down_renews_its_lease() {
    let Some(redis) = Redis::start() else { return };
    let cluster = Cluster::at(&redis.url(), 1, &[]);
    let nodes = format!("{}:nodes", cluster.prefix);
    let mut chat = outside(&cluster.nodes[0]);
    chat.join("tea");
    chat.publish("tea", 1);
    // As if it had been away for long: others would take its sessions for those of no node.
    let node = redis.cli(&["ZRANGE", &nodes, "0", "-1"]).trim().to_owned();
    redis.cli(&["ZADD", &nodes, "1", &node]);
    chat.join("coffee");
    chat.publish("coffee", 1);
    assert_eq!(redis.cli(&["ZCOUNT", &nodes, "2", "+inf"]).trim(), "1");
}

#[test]
fn a_link_that_says_nothing_is_noticed() {
    let Some(redis) = Redis::start() else { return };
    let mut cluster = Cluster::at(&redis.url(), 1, &[]);
    let proxy = Proxy::start(redis.addr());
    cluster.add(&format!("redis://{}", proxy.addr), &[]);
    let mut chats = chats_in(&cluster, &["tea"]);
    proxy.stall(true);
    chats[0].publish("tea", "meanwhile");
    cluster.nodes[1].await_ready(false);
    proxy.stall(false);
    cluster.nodes[1].await_ready(true);
    assert_eq!(message(&mut chats[1])["content"], "meanwhile");
}

#[test]
fn after_a_failover_all_go_on() {
    let Some(mut redis) = Redis::start() else { return };
    let replica = redis.replica();
    let sentinel = redis.sentinel(SILENCE);
    let cluster = Cluster::at(&sentinel.watched_url(), NODES, &[]);
    let mut chats = chats_in(&cluster, &["tea"]);
    assert_eq!(chats[0].publish("tea", "before"), 1);
    assert_eq!(message(&mut chats[1])["content"], "before");
    redis.await_copy(&replica);
    redis.stop();
    publish_at_last(&mut chats[0], "tea", "after");
    assert_eq!(message(&mut chats[1])["content"], "after");
    assert!(replica.cli(&["INFO", "replication"]).contains("role:master"));
    for chat in &mut chats {
        assert_eq!(chat.ask(json!({"type": "ping"}))["type"], "pong");
    }
}

/// Asks for the members of a room until there are as many.
fn await_members(chat: &mut Chat, room: &str, count: u64) {
    let end = Instant::now() + DEADLINE;
    loop {
        let answer = chat.ok(json!({"type": "presence", "room": room}));
        if number(&answer["count"]) == count {
            return;
        }
        assert!(Instant::now() < end, "there are never {count} members: {answer}");
        thread::park_timeout(Duration::from_millis(100));
    }
}

#[test]
fn what_a_full_redis_refuses_is_done_when_it_has_space() {
    let Some((redis, cluster)) = start(&[]) else { return };
    let mut chats = chats_in(&cluster, &["tea"]);
    await_members(&mut chats[1], "tea", 2);
    chats[0].publish("tea", "before");
    assert_eq!(message(&mut chats[1])["content"], "before");
    redis.cli(&["CONFIG", "SET", "maxmemory", "1"]);
    let publish = json!({"type": "publish", "room": "tea", "content": "refused"});
    assert_eq!(chats[0].fails(publish), "overloaded");
    chats[0].leave("tea");
    redis.cli(&["CONFIG", "SET", "maxmemory", "0"]);
    publish_at_last(&mut chats[1], "tea", "after");
    await_members(&mut chats[1], "tea", 1);
    let stream = format!("{}:{{tea}}:h", cluster.prefix);
    assert_eq!(redis.cli(&["XLEN", &stream]).trim(), "2");
}

/// Two nodes with a client each. Redis shows the second client in the room of the first, where its
/// node does not have it, as one does that takes over late: the client has left, and the node that
/// it was on is gone.
fn with_one_who_has_left() -> Option<(Redis, Cluster, Vec<Chat>)> {
    let (redis, cluster) = start(&[])?;
    let mut chats = chats(&cluster);
    chats[0].join("tea");
    chats[1].join("coffee");
    chats[1].publish("coffee", 1);
    show_by_another_node(&redis, &cluster, "tea", &chats[1].id, 1);
    Some((redis, cluster, chats))
}

/// Has Redis show a client in a room, by a node that is gone.
fn show_by_another_node(redis: &Redis, cluster: &Cluster, room: &str, client: &str, fence: u64) {
    let shown = format!("{fence} {} [null,null]", Uuid::new_v4());
    redis.cli(&["HSET", &presence_key(cluster, room), client, &shown]);
}

fn presence_key(cluster: &Cluster, room: &str) -> String {
    format!("{}:{{{room}}}:p", cluster.prefix)
}

/// Waits until Redis shows so many clients in "tea", and no more.
fn await_shown(redis: &Redis, cluster: &Cluster, count: &str) {
    let key = presence_key(cluster, "tea");
    eventually("Redis shows so many", || match &*redis.cli(&["HLEN", &key]) {
        shown if shown.trim() == count => Ok(()),
        shown => Err(shown.to_owned()),
    });
}

#[test]
fn whose_session_ends_is_shown_no_more_where_redis_still_has_it() {
    let Some((redis, cluster, mut chats)) = with_one_who_has_left() else { return };
    let ending = chats.pop().unwrap();
    // Its session ends before it is written down again.
    let session = format!("{}:s:{}", cluster.prefix, ending.id);
    redis.cli(&["HSET", &session, "m", "coffee\ntea"]);
    ending.close(Some(1000));
    await_shown(&redis, &cluster, "1");
    await_members(&mut chats[0], "tea", 1);
}

#[test]
fn a_session_ends_where_redis_has_lost_that_it_moved() {
    let Some((redis, cluster)) = start(&[]) else { return };
    let mut chats = chats(&cluster);
    let epoch = chats[0].join("tea")["epoch"].clone();
    let (session, id) = (chats[0].session.clone(), chats[0].id.clone());
    let rooms = json!([place("tea", &epoch, 0)]);
    let (mut moved, _) = Chat::back(&cluster.nodes[1], &session, rooms);
    moved.publish("tea", 1);
    // As a Redis that takes over late, which has the fence of the first node.
    let key = format!("{}:s:{id}", cluster.prefix);
    redis.cli(&["HSET", &key, "f", "1"]);
    redis.cli(&["HDEL", &key, "t"]);
    moved.close(Some(1000));
    eventually("its fence alone stays", || match &*redis.cli(&["HKEYS", &key]) {
        fields if fields.trim() == "f" => Ok(()),
        fields => Err(fields.to_owned()),
    });
}

#[test]
fn who_has_left_by_another_node_is_shown_no_more_though_that_is_heard_first() {
    let Some((redis, cluster)) = start(&[]) else { return };
    let mut chats = chats_in(&cluster, &["tea"]);
    await_shown(&redis, &cluster, "2");
    let mut watcher = outside(&cluster.nodes[0]);
    watcher.join("tea");
    // Each is taken up by another node, where it leaves. What tells of the first is on its way.
    let [by_list, mut by_notice] = [chats.remove(0), outside(&cluster.nodes[0])];
    by_notice.join("tea");
    await_members(&mut watcher, "tea", 4);
    let presence = presence_key(&cluster, "tea");
    redis.cli(&["HDEL", &presence, &by_list.id]);
    chats[0].publish("tea", "heard");
    assert_eq!(add_untold(&redis, &cluster, "tea"), "2");
    chats[0].publish("tea", "shows that something was missed");
    while number(&message(&mut watcher)["seq"]) < 3 {}
    tell_elsewhere(&redis, &cluster, "L", &by_notice.id, "tea");
    chats[0].publish("tea", "behind the notice");
    while number(&message(&mut watcher)["seq"]) < 4 {}
    await_members(&mut watcher, "tea", 4);
    // Its node may have written it down again meanwhile, which is refused from now on.
    redis.cli(&["HSET", &format!("{}:s:{}", cluster.prefix, by_notice.id), "f", "2"]);
    tell_elsewhere(&redis, &cluster, "L", &by_notice.id, "tea");
    let nodes = redis.cli(&["PUBSUB", "CHANNELS", &format!("{}:to:*", cluster.prefix)]);
    for (taken_up, left) in [(by_notice, 3), (by_list, 2)] {
        for node in nodes.lines() {
            redis.cli(&["PUBLISH", node.trim(), &format!("X{} 2", taken_up.id)]);
        }
        await_members(&mut watcher, "tea", left);
    }
}

#[test]
fn a_session_that_was_ended_elsewhere_by_mistake_is_written_down_again() {
    let Some((redis, cluster)) = start(&[]) else { return };
    let mut chats = chats_in(&cluster, &["tea"]);
    await_shown(&redis, &cluster, "2");
    // As after a failover, by a node that had taken it up at the old primary.
    redis.cli(&["DEL", &format!("{}:s:{}", cluster.prefix, chats[0].id)]);
    tell_elsewhere(&redis, &cluster, "L", &chats[0].id, "tea");
    await_shown(&redis, &cluster, "2");
    await_members(&mut chats[1], "tea", 2);
    chats[0].publish("tea", "there all the time");
}

#[test]
fn who_is_in_a_room_by_another_node_is_shown_there_though_this_one_has_a_session_of_it() {
    let Some((redis, cluster)) = start(&[]) else { return };
    let [mut watcher, mut publisher] = [0, 1].map(|node| Chat::new(&cluster.nodes[node]));
    publisher.publish("lobby", "heard");
    await_members(&mut watcher, "lobby", 2);
    // For a second its node does not show it, because it may be about to resume another session.
    let silent = Chat::new(&cluster.nodes[0]);
    tell_elsewhere(&redis, &cluster, "P", &silent.id, "lobby");
    publisher.publish("lobby", "behind the notice");
    while number(&message(&mut watcher)["seq"]) < 2 {}
    silent.close(Some(1000));
    await_members(&mut watcher, "lobby", 3);
}

/// Has a client come (`P`) or leave (`L`) by another node, which is not there.
fn tell_elsewhere(redis: &Redis, cluster: &Cluster, kind: &str, client: &str, room: &str) {
    let [hash, presence, channel] =
        ["m", "p", "c"].map(|key| format!("{}:{{{room}}}:{key}", cluster.prefix));
    let eval = ["EVAL", TELL_ELSEWHERE, "2", &hash, &presence, kind, client, &channel];
    assert_eq!(redis.cli(&eval).trim(), NODES.to_string());
}

#[test]
fn a_direct_message_that_was_held_is_refused_when_its_sender_is_elsewhere() {
    let Some((_redis, proxy, cluster)) = with_proxy() else { return };
    let mut chats = chats(&cluster);
    let to = chats[0].id.clone();
    let direct = |content| json!({"type": "direct", "to": to, "content": content});
    chats[1].join("tea");
    tell_newcomer(&mut chats[1], &direct("before"));
    assert_eq!(chats[0].await_kind("direct")["content"], "before");
    let mut first = chats.pop().unwrap();
    proxy.stall(true);
    cluster.nodes[1].await_ready(false);
    // Its node holds it, and does not hear that the session moves.
    first.say(direct("held"));
    let (mut second, _) = Chat::back(&cluster.nodes[0], &first.session, json!([]));
    second.ok(direct("after"));
    assert_eq!(chats[0].await_kind("direct")["content"], "after");
    proxy.cut(true);
    proxy.stall(false);
    cluster.nodes[1].await_ready(true);
    assert_eq!(first.closed().0, 4010);
    second.ok(direct("last"));
    assert_eq!(chats[0].await_kind("direct")["content"], "last");
}

#[test]
fn a_session_that_redis_has_lost_is_written_down_again() {
    let Some((redis, cluster)) = start(&[]) else { return };
    let mut chats = chats(&cluster);
    chats[0].join("tea");
    chats[0].publish("tea", "before");
    let session = format!("{}:s:{}", cluster.prefix, chats[0].id);
    assert_eq!(redis.cli(&["DEL", &session]).trim(), "1");
    assert_eq!(publish_at_last(&mut chats[0], "tea", "after")["seq"], 2);
}

#[test]
fn what_happens_while_a_link_is_lost_is_made_up_for() {
    let Some(redis) = Redis::start() else { return };
    let mut cluster = Cluster::at(&redis.url(), 1, &[]);
    let proxy = Proxy::start(redis.addr());
    cluster.add(&format!("redis://{}", proxy.addr), &[]);
    let mut chats = chats(&cluster);
    let mut leaving = outside(&cluster.nodes[1]);
    for chat in chats.iter_mut().chain([&mut leaving]) {
        chat.join("tea");
    }
    await_members(&mut chats[0], "tea", 3);
    let to = chats[1].id.clone();
    let direct = |content| json!({"type": "direct", "to": to, "content": content});
    chats[0].ok(direct("before"));
    assert_eq!(chats[1].await_kind("direct")["content"], "before");
    proxy.stall(true);
    // What is said of it is on its way when the link is given up.
    leaving.close(Some(1000));
    cluster.nodes[1].await_ready(false);
    chats[0].ok(direct("meanwhile"));
    proxy.cut(true);
    proxy.stall(false);
    cluster.nodes[1].await_ready(true);
    let came = chats[1].await_kind("direct");
    assert_eq!((&came["seq"], &came["content"]), (&json!(2), &json!("meanwhile")));
    for chat in &mut chats {
        await_members(chat, "tea", 2);
    }
}

/// A cluster whose second node reaches Redis through a proxy.
fn with_proxy() -> Option<(Redis, Proxy, Cluster)> {
    let redis = Redis::start()?;
    let mut cluster = Cluster::at(&redis.url(), 1, &[]);
    let proxy = Proxy::start(redis.addr());
    cluster.add(&format!("redis://{}", proxy.addr), &[]);
    Some((redis, proxy, cluster))
}

#[test]
fn a_client_from_a_quicker_node_goes_on_where_it_was() {
    let Some((_redis, proxy, cluster)) = with_proxy() else { return };
    let mut chats = chats(&cluster);
    let (mut joining, mut resuming) = (outside(&cluster.nodes[1]), outside(&cluster.nodes[0]));
    let epoch = chats[0].join("tea")["epoch"].clone();
    chats[1].join("tea");
    resuming.join("tea");
    proxy.stall(true);
    chats[0].publish("tea", 1);
    assert_eq!(chats[0].publish("tea", 2), 2);
    assert_eq!(messages(&mut resuming, 2), [(1, json!(1)), (2, json!(2))]);
    // Both have seen more than the second node.
    let since = json!({"epoch": epoch, "seq": 2});
    joining.say(json!({"type": "join", "room": "tea", "since": since}));
    let session = resuming.session.clone();
    let rooms = json!([place("tea", &epoch, 2)]);
    resuming.lose(Loss::Reset);
    chats[1].ask(json!({"type": "ping"}));
    proxy.stall(false);
    let (mut resumed, answer) = Chat::back(&cluster.nodes[1], &session, rooms);
    let joined = joining.expect("ok");
    for room in [&joined, room_of(&answer, "tea")] {
        assert_eq!((&room["recovered"], &room["seq"]), (&json!(true), &json!(2)), "{room}");
    }
    assert_eq!(chats[0].publish("tea", 3), 3);
    for chat in [&mut joining, &mut resumed] {
        assert_eq!(messages(chat, 1), [(3, json!(3))]);
    }
    assert_eq!(messages(&mut chats[1], 3).len(), 3);
}

/// How many connections the nodes have to Redis, as it sees them.
fn links(redis: &Redis) -> usize {
    redis.cli(&["CLIENT", "LIST"]).matches("name=rusty_socks:").count()
}

#[test]
fn a_resume_that_was_refused_is_not_carried_out_later() {
    let Some((redis, proxy, cluster)) = with_proxy() else { return };
    let mut first = outside(&cluster.nodes[0]);
    let epoch = first.join("tea")["epoch"].clone();
    first.publish("tea", "before");
    let session = first.session.clone();
    first.lose(Loss::Reset);
    let mut tried = Chat::silent(&cluster.nodes[1], "/ws");
    tried.await_kind("welcome");
    let links_before = links(&redis);
    proxy.stall_clients(true);
    let rooms = json!([place("tea", &epoch, 1)]);
    let refused = tried.ask(json!({"type": "resume", "session": session, "rooms": rooms}));
    assert_eq!(refused["code"], "overloaded", "{refused}");
    let (mut back, _) = Chat::back(&cluster.nodes[0], &session, rooms);
    proxy.stall_clients(false);
    cluster.nodes[1].await_ready(true);
    eventually("Redis has read what the lost links had said", || match links(&redis) {
        links if links == links_before => Ok(()),
        links => Err(format!("{links} links")),
    });
    // It is where it was, and its node may be asked again.
    assert_eq!(back.publish("tea", "after"), 2);
    let rooms = json!([place("tea", &epoch, 2)]);
    Chat::back(&cluster.nodes[1], &session, rooms);
    assert_eq!(back.closed().0, 4010);
}

#[test]
fn a_session_that_ended_elsewhere_does_not_come_back() {
    let Some((_redis, proxy, cluster)) = with_proxy() else { return };
    let mut chats = chats(&cluster);
    chats[0].join("tea");
    let epoch = chats[1].join("tea")["epoch"].clone();
    await_members(&mut chats[0], "tea", 2);
    let mut first = chats.pop().unwrap();
    proxy.stall(true);
    // The second node hears neither that its session moves, nor that it ends.
    let rooms = json!([place("tea", &epoch, 0)]);
    let (second, _) = Chat::back(&cluster.nodes[0], &first.session, rooms);
    second.close(Some(1000));
    await_members(&mut chats[0], "tea", 1);
    cluster.nodes[1].await_ready(false);
    proxy.cut(true);
    proxy.stall(false);
    cluster.nodes[1].await_ready(true);
    assert_eq!(first.closed().0, 4010);
    let mut late = outside(&cluster.nodes[1]);
    late.join("tea");
    for chat in [&mut late, &mut chats[0]] {
        await_members(chat, "tea", 2);
    }
}

#[test]
fn direct_messages_go_on_after_redis_has_lost_them() {
    let Some((mut redis, cluster)) = start(&[]) else { return };
    let mut chats = chats(&cluster);
    let to = chats[1].id.clone();
    let direct = |content| json!({"type": "direct", "to": to, "content": content});
    for content in ["one", "two"] {
        tell_newcomer(&mut chats[0], &direct(content));
        assert_eq!(chats[1].await_kind("direct")["content"], content);
    }
    redis.restart();
    let end = Instant::now() + DEADLINE;
    while chats[0].ask(direct("three"))["type"] != "ok" {
        assert!(Instant::now() < end, "it never succeeds");
        thread::park_timeout(Duration::from_millis(100));
    }
    let came = chats[1].await_kind("direct");
    assert_eq!((&came["seq"], &came["content"]), (&json!(3), &json!("three")));
}

#[test]
fn who_has_left_is_shown_no_more_though_redis_has_it_by_an_earlier_node() {
    let Some((redis, cluster, _chats)) = with_one_who_has_left() else { return };
    // The node that has its session opens the room.
    let mut late = outside(&cluster.nodes[1]);
    late.join("tea");
    await_members(&mut late, "tea", 2);
    await_shown(&redis, &cluster, "2");
}

#[test]
fn who_has_left_a_room_that_its_node_has_not_open_is_shown_no_more() {
    let Some((redis, cluster, mut chats)) = with_one_who_has_left() else { return };
    let id = chats[1].id.clone();
    // In another room it is shown by a node that took its session up later.
    show_by_another_node(&redis, &cluster, "milk", &id, 2);
    let session = format!("{}:s:{id}", cluster.prefix);
    redis.cli(&["HSET", &session, "m", "coffee\ntea\nmilk"]);
    chats[1].join("water");
    await_shown(&redis, &cluster, "1");
    await_members(&mut chats[0], "tea", 1);
    for room in ["coffee", "milk", "water"] {
        let presence = presence_key(&cluster, room);
        assert_eq!(redis.cli(&["HEXISTS", &presence, &id]).trim(), "1", "{room}");
    }
}

#[test]
fn a_first_replica_begins_no_epochs() {
    let Some((redis, mut cluster)) = start(&[]) else { return };
    let mut chats = chats(&cluster);
    let epoch = chats[0].join("tea")["epoch"].clone();
    let replica = redis.replica();
    redis.await_copy(&replica);
    let later = cluster.add(&redis.url(), &[]);
    chats.push(outside(&cluster.nodes[later]));
    chats[2].join("tea");
    for index in 0..6 {
        let seq = chats[index % 3 / 2 * 2].publish("tea", index as u64);
        assert_eq!(seq, index as u64 + 1);
    }
    assert_eq!(chats[2].ok(json!({"type": "history", "room": "tea"}))["epoch"], epoch);
}

/// The tests of a cluster are worth what this support is.
#[test]
fn a_redis_is_killed_frozen_and_promoted() {
    let Some(mut redis) = Redis::start_that_keeps(Keeps::All) else { return };
    assert_eq!(redis.cli(&["SET", "a", "1"]), "OK");
    let replica = redis.replica();
    redis.await_copy(&replica);
    assert_eq!(replica.cli(&["GET", "a"]), "1");
    assert!(replica.cli(&["SET", "a", "2"]).starts_with("-READONLY"));
    let sentinel = redis.sentinel(Duration::from_secs(3600));
    let address = sentinel.cli(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", "main"]);
    assert_eq!(address.replace('\n', ":"), redis.addr().to_string());
    redis.restart();
    assert_eq!(redis.cli(&["GET", "a"]), "1");
    replica.promote();
    assert_eq!(replica.cli(&["SET", "a", "2"]), "OK");
    redis.pause();
    redis.go_on();
    assert_eq!(redis.cli(&["MGET", "a", "none", "a"]), "1\n1");

    let mut forgetful = Redis::start().unwrap();
    forgetful.cli(&["SET", "a", "1"]);
    forgetful.restart();
    assert_eq!(forgetful.cli(&["GET", "a"]), "");
}

#[test]
fn the_server_api_of_any_node_is_that_of_all() {
    let Some((redis, mut cluster)) = start(&[]) else { return };
    let mut anna = outside(&cluster.nodes[1]);
    anna.join("tea");
    let first = &cluster.nodes[0];
    // Nobody of the first node is in the room.
    let message = r#"{"room":"tea","content":"from a program"}"#;
    let (status, published) = first.ask("POST", "/v1/publish", message);
    assert_eq!((status, &published["seq"]), (200, &json!(1)), "{published}");
    assert_eq!(message_of(&mut anna), json!("from a program"));
    let lines = "{\"room\":\"tea\",\"content\":1}\n{\"room\":\"tea\",\"content\":2}\n";
    let direct = json!({"to": anna.id, "content": "a word"}).to_string();
    assert_eq!(first.ask("POST", "/v1/publish", &direct).0, 200);
    assert_eq!(anna.await_kind("direct")["content"], "a word");
    for line in lines.lines() {
        assert_eq!(first.ask("POST", "/v1/publish", line).0, 200);
    }
    // An id of the key is known on all nodes.
    let again = json!({"room": "tea", "content": "once", "id": Uuid::new_v4()}).to_string();
    let repeated: Vec<Value> = cluster
        .nodes
        .iter()
        .map(|node| node.ask("POST", "/v1/publish", &again).1["repeated"].clone())
        .collect();
    assert_eq!(repeated, [Value::Null, json!(true)]);
    let (status, page) = first.get("/v1/rooms/tea/history");
    assert_eq!((status, number(&page["seq"])), (200, 4), "{page}");
    let (status, members) = first.get("/v1/rooms/tea/presence");
    assert_eq!((status, &members["count"]), (200, &json!(1)), "{members}");
    assert_eq!(first.get("/v1/rooms/nowhere/history").0, 404);
    eventually("each node knows the other", || {
        let counts: Vec<usize> = cluster.nodes.iter().map(nodes_known).collect();
        if counts == [NODES; NODES] { Ok(()) } else { Err(format!("{counts:?}")) }
    });

    assert_eq!(first.ask("DELETE", "/v1/rooms/tea/history", "").0, 200);
    eventually("the history is gone on both nodes", || {
        let left: Vec<_> = cluster
            .nodes
            .iter()
            .map(|node| node.get("/v1/rooms/tea/history").1["messages"].clone())
            .collect();
        if left.iter().all(|left| *left == json!([])) { Ok(()) } else { Err(format!("{left:?}")) }
    });
    // A node that comes later does not find it either.
    let third = cluster.add(&redis.url(), &[]);
    let page = cluster.nodes[third].get("/v1/rooms/tea/history").1;
    assert_eq!((&page["messages"], &page["seq"]), (&json!([]), &json!(4)), "{page}");

    let path = format!("/v1/sessions/{}/close", anna.id);
    assert_eq!(cluster.nodes[0].ask("POST", &path, "").0, 200);
    assert_eq!(anna.closed().0, 4009);
}

/// What the next message says.
fn message_of(chat: &mut Chat) -> Value {
    message(chat)["content"].clone()
}

fn nodes_known(node: &cluster::Node) -> usize {
    node.get("/v1/nodes").1["nodes"].as_array().map_or(0, Vec::len)
}

#[test]
fn a_full_redis_keeps_what_it_has() {
    let Some(redis) = Redis::start() else { return };
    let cluster = Cluster::at(&redis.url(), 1, &[]);
    let mut chat = outside(&cluster.nodes[0]);
    chat.join("tea");
    for content in ["a", "b", "c"] {
        chat.ok(json!({"type": "publish", "room": "tea", "content": content}));
    }
    let stream = redis.cli(&["KEYS", "*{tea}:h"]);
    // Less than it has used already; nothing is evicted.
    assert_eq!(redis.cli(&["CONFIG", "SET", "maxmemory", "1"]), "OK");
    let refused = chat.ask(json!({"type": "publish", "room": "tea", "content": "d"}));
    assert_eq!(refused["code"], "overloaded", "{refused}");
    assert_eq!(redis.cli(&["XLEN", &stream]), "3");
    cluster.nodes[0].await_ready(false);
    assert_eq!(redis.cli(&["CONFIG", "SET", "maxmemory", "0"]), "OK");
    cluster.nodes[0].await_ready(true);
    assert_eq!(publish_at_last(&mut chat, "tea", "d")["seq"], 4);
    assert_eq!(redis.cli(&["XLEN", &stream]), "4");
}

#[test]
fn a_key_of_a_wrong_kind_is_the_trouble_of_one_room() {
    let Some((redis, cluster)) = start(&[]) else { return };
    let mut chat = outside(&cluster.nodes[0]);
    chat.join("tea");
    chat.join("cake");
    chat.ok(json!({"type": "publish", "room": "tea", "content": 1}));
    let stream = redis.cli(&["KEYS", "*{tea}:h"]);
    redis.cli(&["DEL", &stream]);
    assert_eq!(redis.cli(&["SET", &stream, "no stream"]), "OK");
    let refused = chat.ask(json!({"type": "publish", "room": "tea", "content": 2}));
    assert_eq!(refused["code"], "overloaded", "{refused}");
    assert_eq!(cluster.nodes[0].get("/ready").0, 200);
    chat.ok(json!({"type": "publish", "room": "cake", "content": 1}));
}

#[test]
fn positions_make_no_rooms() {
    let Some((redis, cluster)) = start(&[]) else { return };
    let lost = outside(&cluster.nodes[0]);
    let (session, epoch) = (lost.session.clone(), "0000000000000001");
    // Nobody resumes what is not written down yet.
    let key = format!("{}:s:{}", cluster.prefix, lost.id);
    eventually("Redis has the session", || match &*redis.cli(&["EXISTS", &key]) {
        "1" => Ok(()),
        count => Err(count.to_owned()),
    });
    lost.lose(Loss::Reset);
    let rooms = json!([place("never", &json!(epoch), 1)]);
    let (_back, answer) = Chat::back(&cluster.nodes[1], &session, rooms);
    assert!(room_of(&answer, "never")["error"].is_string(), "{answer}");
    assert_eq!(redis.cli(&["KEYS", "*{never}*"]), "");
}

#[test]
fn a_session_moves_for_its_user_alone() {
    let settings = [("IDENTITY", "optional"), ("TOKEN_HMAC_SECRET", tokens::SECRET)];
    let Some((_redis, cluster)) = start(&settings) else { return };
    let token = |user: &str| tokens::sign(&json!({"sub": user, "exp": tokens::now() + 600}));
    let auth = |user: &str| json!({"type": "auth", "token": token(user)});
    let mut anna = Chat::silent(&cluster.nodes[0], "/ws");
    anna.ok(auth("anna"));
    let session = text(&anna.await_kind("welcome")["session"]);
    anna.join("tea");
    let mut thief = Chat::silent(&cluster.nodes[1], "/ws");
    thief.ok(auth("ben"));
    let resume = json!({"type": "resume", "session": session});
    assert_eq!(thief.ask(resume)["code"], "unrecoverable");
    anna.ok(json!({"type": "publish", "room": "tea", "content": "still here"}));
}

#[test]
fn a_history_has_its_bytes_in_redis_too() {
    const BYTES_MAX: usize = 4000;
    let settings = [("HISTORY_BYTES", "4000"), ("HISTORY", "1000")];
    let Some((redis, cluster)) = start(&settings) else { return };
    let mut chat = outside(&cluster.nodes[0]);
    chat.join("tea");
    let content = "x".repeat(500);
    for seq in 1..=20 {
        assert_eq!(chat.publish("tea", content.as_str()), seq);
    }
    let stream = redis.cli(&["KEYS", "*{tea}:h"]);
    let kept: usize = redis.cli(&["XLEN", &stream]).parse().unwrap();
    assert!((1..=BYTES_MAX / content.len()).contains(&kept), "{kept} messages");
    // What is kept is the newest, on a node that opens the room now, too.
    let mut other = outside(&cluster.nodes[1]);
    other.join("tea");
    let page = other.ok(json!({"type": "history", "room": "tea", "limit": 100}));
    let expected: Vec<u64> = (21 - kept as u64..=20).collect();
    assert_eq!(seqs(&page["messages"]), expected);
}

/// A cluster of which each node reads `text` as its configuration.
fn with_file(text: &str) -> Option<(Redis, Cluster, TempDir, PathBuf)> {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("rusty_socks.toml");
    fs::write(&path, text).unwrap();
    let (redis, cluster) = start(&[("CONFIG", path.to_str().unwrap())])?;
    Some((redis, cluster, dir, path))
}

#[test]
fn a_room_with_a_rule_keeps_its_history_though_its_node_has_nobody_in_it() {
    let text = "replay = 0\nhistory = 2\n[rooms.long]\nhistory = 10\n";
    let Some((_redis, cluster, ..)) = with_file(text) else { return };
    for n in 1..=6 {
        let body = json!({"rooms": ["long"], "content": n}).to_string();
        let (status, answer) = cluster.nodes[0].ask("POST", "/v1/publish", &body);
        assert_eq!(status, 200, "{answer}");
    }
    let mut chat = outside(&cluster.nodes[1]);
    chat.join("long");
    let page = chat.ok(json!({"type": "history", "room": "long", "limit": 100}));
    assert_eq!(seqs(&page["messages"]), [1, 2, 3, 4, 5, 6]);
}

#[test]
fn what_a_node_takes_anew_holds_for_what_is_in_redis() {
    let text = "replay = 0\nmax_rooms_per_conn = 2\ninbox = 1\nhistory = 2\n";
    let Some((redis, cluster, _dir, path)) = with_file(text) else { return };
    fs::write(&path, "replay = 0\nmax_rooms_per_conn = 30\ninbox = 3\nhistory = 20\n").unwrap();
    let node = &cluster.nodes[0];
    let (status, told) = node.ask("POST", "/v1/reload", "");
    assert_eq!((status, &told["needs_restart"]), (200, &json!([])), "{told}");
    for n in 0..20 {
        let body = json!({"rooms": [format!("many.{n}")], "content": n}).to_string();
        assert_eq!(node.ask("POST", "/v1/publish", &body).0, 200);
        let body = json!({"rooms": ["long"], "content": n}).to_string();
        assert_eq!(node.ask("POST", "/v1/publish", &body).0, 200);
    }
    let stream = redis.cli(&["KEYS", "*{long}:h"]);
    assert_eq!(redis.cli(&["XLEN", &stream]), "20");
    let mut chat = outside(node);
    let matched = chat.ok(json!({"type": "join", "room": "many.*"}));
    assert_eq!(matched["rooms"].as_array().map(Vec::len), Some(20), "{matched}");
    let away = outside(node);
    let to = away.id.clone();
    away.lose(Loss::Reset);
    eventually("the client is away", || match node.get("/stats").1 {
        stats if stats["sessions_away"] == 1 => Ok(()),
        stats => Err(stats["sessions_away"].to_string()),
    });
    let mut takes = |content: &u64| {
        let direct = json!({"type": "direct", "to": to, "content": content});
        chat.ask(direct)["type"] == "ok"
    };
    assert_eq!((1..=9).take_while(|content| takes(content)).count(), 3);
}

#[test]
fn a_post_for_a_node_that_is_gone_is_told_at_once() {
    let Some((_redis, mut cluster)) = start(&[]) else { return };
    let mut anna = Stream::open(&cluster.nodes[0]);
    anna.message();
    anna.server = cluster.nodes[1].addr();
    anna.post(&[]);
    cluster.kill(0);
    // Redis hears of a connection's end a moment later.
    eventually("nobody listens any more", || match anna.post_as(&anna.opening(2), &[]) {
        answer if answer.status == 404 => Ok(()),
        answer => Err(format!("{answer:?}")),
    });
    // Whatever a stranger says of nodes is no node.
    let key = format!("{}{}", Uuid::new_v4().simple(), &anna.key[32..]);
    let answer = anna.post_as(&json!({"connection": key, "post": 1}), &[]);
    assert_eq!(answer.status, 404, "{answer:?}");
}

#[test]
fn any_node_takes_a_post_for_an_event_stream() {
    let Some((_redis, cluster)) = start(&[]) else { return };
    let mut anna = Stream::open(&cluster.nodes[0]);
    assert_eq!(anna.message()["type"], "welcome");
    anna.server = cluster.nodes[1].addr();
    let mut bert = outside(&cluster.nodes[1]);
    bert.ok(json!({"type": "join", "room": "tea"}));
    assert_eq!(anna.command(r#"{"type":"join","room":"tea","ref":1}"#)["type"], "ok");
    for content in 0..20 {
        // By either node, as a load balancer likes.
        anna.server = cluster.nodes[content % NODES].addr();
        let publish = json!({"type": "publish", "room": "tea", "content": content, "ref": 1});
        assert_eq!(anna.command(&publish.to_string())["type"], "ok");
        assert_eq!(message(&mut bert)["content"], content);
    }
    anna.server = cluster.nodes[1].addr();
    let ping = r#"{"type":"ping","ref":1}"#;
    assert_eq!(anna.post_as(&anna.opening(anna.posts), &[ping]).status, 204, "sent again");
    assert_eq!(anna.post_as(&anna.opening(anna.posts + 2), &[ping]).status, 409);
    let mut closing = anna.opening(anna.posts + 1);
    closing["close"] = json!({"code": 1000});
    assert_eq!(anna.post_as(&closing, &[]).status, 204);
    assert_eq!(anna.event().0, "closed");
    assert_eq!(anna.post_as(&anna.opening(anna.posts + 2), &[ping]).status, 404);
}
