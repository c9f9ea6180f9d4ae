//! Several servers that share several Redises, over which rooms and sessions are spread.

#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test that unwraps fails with a clear message")]

mod support;
#[path = "support/program.rs"]
mod program;
#[path = "support/redis.rs"]
mod redis;
#[path = "support/cluster.rs"]
mod cluster;

use std::{
    thread,
    time::{Duration, Instant},
};

use cluster::{Cluster, KEY, Node};
use program::{PROGRAM, Process, command, outcome};
use redis::Redis;
use serde_json::{Value, json};
use support::{
    DEADLINE, eventually,
    sessions::{Chat, number, place, room_of, seqs},
};
use uuid::Uuid;

/// Messages of the test that is about order.
const MESSAGES: u64 = 50;

/// What is answered sooner has not waited for a Redis that is silent.
const AT_ONCE: Duration = Duration::from_secs(1);

/// Two nodes with two Redises, which are dropped last.
struct Spread {
    cluster: Cluster,
    redises: [Redis; 2],
}

impl Spread {
    /// `None` if there is no Redis here.
    fn start(settings: &[(&str, &str)]) -> Option<Spread> {
        let redises = [Redis::start()?, Redis::start()?];
        let settings: Vec<_> = [("DEFAULT_ROOM", "")].iter().chain(settings).copied().collect();
        let cluster = Cluster::at(&list(&redises), 2, &settings);
        Some(Spread { cluster, redises })
    }

    fn chat(&self, node: usize) -> Chat {
        Chat::new(&self.cluster.nodes[node])
    }

    /// The shards that know a room.
    fn knowing(&self, room: &str) -> Vec<usize> {
        let key = format!("{}:{{{room}}}:m", self.cluster.prefix);
        let knows = |shard: &usize| self.redises[*shard].cli(&["EXISTS", &key]) == "1";
        (0..self.redises.len()).filter(knows).collect()
    }

    /// The shard that has the whole of a client's session.
    fn home_of(&self, chat: &Chat) -> usize {
        let key = format!("{}:s:{}", self.cluster.prefix, chat.id);
        let mut home = None;
        eventually("the session is written down", || {
            let has = |redis: &Redis| !redis.cli(&["HGET", &key, "h"]).is_empty();
            home = self.redises.iter().position(has);
            home.map(drop).ok_or_else(|| "nowhere".to_owned())
        });
        home.unwrap()
    }

    /// A room in each shard, by shard.
    fn rooms(&self) -> [String; 2] {
        let mut chat = self.chat(0);
        let mut rooms = [String::new(), String::new()];
        for n in 0.. {
            let room = format!("room{n}");
            chat.join(&room);
            let [shard] = self.knowing(&room)[..] else { panic!("{room} is not in one shard") };
            chat.leave(&room);
            if rooms[shard].is_empty() {
                rooms[shard] = room;
            }
            if rooms.iter().all(|room| !room.is_empty()) {
                break;
            }
        }
        rooms
    }

    /// The names of the lists that have a client's session, each of a node in a shard.
    fn listing(&self, chat: &Chat) -> Vec<String> {
        let pattern = format!("{}:node:*:s", self.cluster.prefix);
        let lists = |redis: &Redis| {
            let keys = redis.cli(&["KEYS", &pattern]);
            let has = |key: &&str| redis.cli(&["SISMEMBER", key, &chat.id]) == "1";
            keys.lines().filter(has).map(str::to_owned).collect::<Vec<_>>()
        };
        self.redises.iter().flat_map(lists).collect()
    }

    /// A client of a node whose session is in this shard.
    fn chat_of(&self, node: usize, shard: usize) -> Chat {
        loop {
            let chat = self.chat(node);
            if self.home_of(&chat) == shard {
                return chat;
            }
        }
    }
}

fn list(redises: &[Redis]) -> String {
    redises.iter().map(Redis::url).collect::<Vec<_>>().join(",")
}

fn shards_of(node: &Node) -> Value {
    node.get("/stats").1["engine_shards"].clone()
}

/// Publishes until it succeeds, with the same id, for as long as the answer is `overloaded`.
fn publish_at_last(chat: &mut Chat, command: &Value) -> Value {
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
fn rooms_of_all_shards_have_order_history_and_members() {
    let Some(spread) = Spread::start(&[]) else { return };
    let rooms = spread.rooms();
    let mut chats = [spread.chat(0), spread.chat(1)];
    let mut writers = [spread.chat(0), spread.chat(1)];
    for chat in chats.iter_mut().chain(&mut writers) {
        rooms.iter().for_each(|room| _ = chat.join(room));
    }
    for index in 0..MESSAGES {
        let room = &rooms[(index % 2) as usize];
        let writer = &mut writers[(index / 2 % 2) as usize];
        writer.say(json!({"type": "publish", "room": room, "content": index}));
    }
    let seen = chats.each_mut().map(|chat| {
        let mut seen = rooms.each_ref().map(|_| Vec::new());
        for _ in 0..MESSAGES {
            let message = chat.await_kind("message");
            let at = rooms.iter().position(|room| message["room"] == room.as_str()).unwrap();
            seen[at].push((number(&message["seq"]), message["content"].clone()));
        }
        seen
    });
    assert_eq!(seen[0], seen[1], "both nodes saw the same");
    for (shard, messages) in seen[0].iter().enumerate() {
        let order: Vec<u64> = messages.iter().map(|(seq, _)| *seq).collect();
        assert_eq!(order, (1..=MESSAGES / 2).collect::<Vec<_>>());
        let room = &rooms[shard];
        assert_eq!(spread.knowing(room), [shard]);
        let history = chats[1].ok(json!({"type": "history", "room": room, "limit": 1000}));
        assert_eq!(seqs(&history["messages"]), order);
        for chat in &mut chats {
            eventually("all are listed", || {
                let listed = chat.ok(json!({"type": "presence", "room": room}));
                if listed["count"] == 4 { Ok(()) } else { Err(listed.to_string()) }
            });
        }
    }
}

#[test]
fn a_session_with_rooms_in_all_shards_goes_on_at_another_node() {
    for home in 0..2 {
        let Some(mut spread) = Spread::start(&[]) else { return };
        let rooms = spread.rooms();
        let mut lost = spread.chat_of(0, home);
        let mut other = spread.chat(1);
        let epochs = rooms.each_ref().map(|room| lost.join(room)["epoch"].clone());
        rooms.iter().for_each(|room| _ = other.join(room));
        let ids = rooms.each_ref().map(|_| Uuid::new_v4());
        let said = |shard: usize| {
            let (room, id) = (&rooms[shard], ids[shard]);
            json!({"type": "publish", "room": room, "content": id, "id": id})
        };
        let before = [0, 1].map(|shard| lost.ok(said(shard)));
        spread.cluster.kill(0);
        let missed = rooms.each_ref().map(|room| other.publish(room, "missed"));
        other.ok(json!({"type": "direct", "to": lost.id, "content": "where are you?"}));

        let places =
            [0, 1].map(|shard| place(&rooms[shard], &epochs[shard], number(&before[shard]["seq"])));
        let (mut back, answer) = Chat::back(&spread.cluster.nodes[1], &lost.session, json!(places));
        assert_eq!(back.id, lost.id);
        for (room, missed) in rooms.iter().zip(missed) {
            let room = room_of(&answer, room);
            assert_eq!(room["recovered"], true, "{answer}");
            assert_eq!(seqs(&room["messages"]), [missed]);
        }
        assert_eq!(back.expect("direct")["content"], "where are you?");
        for (shard, room) in rooms.iter().enumerate() {
            let again = back.ok(said(shard));
            assert_eq!((&again["repeated"], &again["seq"]), (&json!(true), &before[shard]["seq"]));
            assert_eq!(other.publish(room, "after"), missed[shard] + 1);
            assert_eq!(number(&back.await_kind("message")["seq"]), missed[shard] + 1);
        }
        back.expect_silence();
    }
}

#[test]
fn who_was_taken_over_says_nothing_in_any_shard() {
    for home in 0..2 {
        let Some(spread) = Spread::start(&[]) else { return };
        let rooms = spread.rooms();
        let mut first = spread.chat_of(0, home);
        let epochs = rooms.each_ref().map(|room| first.join(room)["epoch"].clone());
        let places = [0, 1].map(|shard| place(&rooms[shard], &epochs[shard], 0));
        let (mut second, _) = Chat::back(&spread.cluster.nodes[1], &first.session, json!(places));
        assert_eq!(first.closed().0, 4010);
        for (shard, room) in rooms.iter().enumerate() {
            // Each shard knows who has it now, and by which fence.
            let key = format!("{}:s:{}", spread.cluster.prefix, second.id);
            let fence = |shard: usize| spread.redises[shard].cli(&["HGET", &key, "f"]);
            assert_eq!(fence(shard), fence(home));
            assert_ne!(fence(shard), "1");
            assert_eq!(second.publish(room, "here"), 1);
        }
        // And back, to a node that has been its own.
        let places = [0, 1].map(|shard| place(&rooms[shard], &epochs[shard], 1));
        let (mut third, _) = Chat::back(&spread.cluster.nodes[0], &second.session, json!(places));
        assert_eq!(second.closed().0, 4010);
        rooms.iter().for_each(|room| assert_eq!(third.publish(room, "again"), 2));
        for room in &rooms {
            let listed = third.ok(json!({"type": "presence", "room": room}));
            assert_eq!(listed["count"], 1, "{listed}");
        }
    }
}

#[test]
fn a_shard_that_a_session_has_left_hears_that_it_moved() {
    let Some(spread) = Spread::start(&[]) else { return };
    let rooms = spread.rooms();
    let mut first = spread.chat_of(0, 0);
    let epoch = first.join(&rooms[0])["epoch"].clone();
    first.join(&rooms[1]);
    first.publish(&rooms[1], "here");
    first.leave(&rooms[1]);
    let key = format!("{}:s:{}", spread.cluster.prefix, first.id);
    let part =
        |field: &str| spread.redises.each_ref().map(|redis| redis.cli(&["HGET", &key, field]));
    assert_eq!(part("f"), ["1", "1"]);
    let at = json!([place(&rooms[0], &epoch, 0)]);
    let (second, _) = Chat::back(&spread.cluster.nodes[1], &first.session, at);
    assert_eq!(first.closed().0, 4010);
    // What the first node may still send for it is taken in neither.
    let fences = part("f");
    assert_eq!(fences[0], fences[1]);
    assert_ne!(fences[0], "1");
    let nodes = part("n");
    assert_eq!(nodes[0], nodes[1]);
    eventually("its node alone lists it, in both", || match &spread.listing(&second)[..] {
        lists @ [_, _] if lists.iter().all(|list| list.contains(&nodes[0])) => Ok(()),
        lists => Err(lists.join(" ")),
    });
    // And nothing is left of it.
    second.close(Some(1000));
    eventually("both have forgotten it", || match part("n") {
        nodes if nodes == ["", ""] => Ok(()),
        nodes => Err(nodes.join(" ")),
    });
}

#[test]
fn a_session_that_never_comes_back_leaves_the_rooms_of_all_shards() {
    let Some(mut spread) = Spread::start(&[("RESUME_WINDOW", "1")]) else { return };
    let rooms = spread.rooms();
    let (mut lost, mut watcher) = (spread.chat(0), spread.chat(1));
    for room in &rooms {
        watcher.ok(json!({"type": "join", "room": room, "presence": true}));
        lost.join(room);
        assert_eq!(watcher.await_kind("joined")["client_id"], lost.id.as_str());
    }
    spread.cluster.kill(0);
    let mut left: Vec<_> = (0..2).map(|_| watcher.await_kind("left")["room"].clone()).collect();
    left.sort_by_key(Value::to_string);
    let mut expected = rooms.clone().map(Value::from);
    expected.sort_by_key(Value::to_string);
    assert_eq!(left, expected);
    watcher.expect_silence();
    for redis in &spread.redises {
        let key = format!("{}:s:{}", spread.cluster.prefix, lost.id);
        assert_eq!(redis.cli(&["EXISTS", &key]), "0");
    }
}

#[test]
fn direct_messages_and_patterns_find_all_shards() {
    let Some(spread) = Spread::start(&[]) else { return };
    let receivers = [spread.chat_of(1, 0), spread.chat_of(1, 1)];
    for sender in [0, 1] {
        let mut sender = spread.chat_of(0, sender);
        for receiver in &receivers {
            let id = Uuid::new_v4();
            let direct = json!({"type": "direct", "to": receiver.id, "content": "hello", "id": id});
            assert_eq!(sender.ok(direct.clone())["repeated"], Value::Null);
            assert_eq!(sender.ok(direct)["repeated"], true);
        }
    }
    for mut receiver in receivers {
        for seq in 1..=2 {
            assert_eq!(receiver.await_kind("direct")["seq"], seq);
        }
        receiver.expect_silence();
    }
    let (mut maker, mut matcher) = (spread.chat(0), spread.chat(1));
    let rooms: Vec<String> = (0..8).map(|n| format!("prices.{n}")).collect();
    let knowing = |rooms: &[String]| -> Vec<usize> {
        rooms.iter().flat_map(|room| spread.knowing(room)).collect()
    };
    rooms[..4].iter().for_each(|room| _ = maker.join(room));
    let answer = matcher.join("prices.*");
    let mut found: Vec<String> = answer["rooms"]
        .as_array()
        .unwrap()
        .iter()
        .map(|room| room["room"].as_str().unwrap().to_owned())
        .collect();
    found.sort();
    assert_eq!(found, rooms[..4]);
    for room in &rooms[4..] {
        maker.join(room);
        assert_eq!(matcher.expect("matched")["room"], room.as_str());
        assert_eq!(maker.publish(room, "new"), 1);
        assert_eq!(matcher.expect("message")["room"], room.as_str());
    }
    let shards = knowing(&rooms);
    assert!(shards.contains(&0) && shards.contains(&1), "they are spread: {shards:?}");
}

#[test]
fn while_one_shard_is_silent_the_rooms_of_the_others_go_on() {
    let Some(spread) = Spread::start(&[]) else { return };
    let rooms = spread.rooms();
    let mut chats = [spread.chat_of(0, 0), spread.chat_of(1, 0)];
    for chat in &mut chats {
        rooms.iter().for_each(|room| _ = chat.join(room));
    }
    let mut moving = spread.chat_of(0, 0);
    let nodes = &spread.cluster.nodes;
    spread.redises[1].pause();
    let command =
        json!({"type": "publish", "room": rooms[1], "content": "late", "id": Uuid::new_v4()});
    chats[0].say(command.clone());
    // From the first moment on, while the other shard is still waited for.
    let end = Instant::now() + DEADLINE;
    let mut seq = 0;
    loop {
        let began = Instant::now();
        seq += 1;
        assert_eq!(chats[1].publish(&rooms[0], "on time"), seq);
        assert_eq!(chats[0].await_kind("message")["seq"], seq);
        assert!(began.elapsed() < AT_ONCE, "it took {:?}", began.elapsed());
        if nodes.iter().all(|node| shards_of(node)[1]["up"] == false) {
            break;
        }
        assert!(Instant::now() < end, "nobody notices");
    }
    let address = spread.redises[1].addr().to_string();
    for node in nodes {
        let (status, ready) = node.get("/ready");
        assert_eq!((status, &ready["degraded"]), (200, &json!(["engine"])), "{ready}");
        let why = ready["engine"].as_str().unwrap();
        assert!(why.starts_with(&format!("shard 2 ({address}): ")), "{ready}");
        let shards = shards_of(node);
        assert_eq!((&shards[0]["up"], &shards[1]["redis"]), (&json!(true), &json!(address)));
    }
    // What was asked first is refused by now, and later questions are at once.
    assert_eq!(chats[0].await_kind("error")["code"], "overloaded");
    let mut newcomer = spread.chat(0);
    let began = Instant::now();
    for room in [&rooms[1], "room.*"] {
        assert_eq!(newcomer.fails(json!({"type": "join", "room": room})), "overloaded");
    }
    newcomer.join(&rooms[0]);
    assert!(began.elapsed() < AT_ONCE, "it took {:?}", began.elapsed());
    // A session of the shard that is there goes on elsewhere.
    let epoch = moving.join(&rooms[0])["epoch"].clone();
    let at = json!([place(&rooms[0], &epoch, seq)]);
    let (mut moved, _) = Chat::back(&nodes[1], &moving.session, at);
    assert_eq!(moving.closed().0, 4010);
    assert_eq!(moved.publish(&rooms[0], "moved"), seq + 1);

    spread.redises[1].go_on();
    for node in nodes {
        eventually("all is well again", || match node.get("/ready").1 {
            ready if ready["engine"] == Value::Null => Ok(()),
            ready => Err(ready.to_string()),
        });
    }
    let answer = publish_at_last(&mut chats[0], &command);
    assert_eq!(answer["seq"], 1, "{answer}");
    eventually("it comes", || match chats[1].await_kind("message") {
        message if message["room"] == rooms[1].as_str() => {
            assert_eq!((&message["seq"], &message["content"]), (&json!(1), &json!("late")));
            Ok(())
        }
        message => Err(message.to_string()),
    });
    assert_eq!(chats[1].publish(&rooms[1], "after"), 2);
    for room in &rooms {
        eventually("nobody was taken out", || {
            let listed = chats[1].ok(json!({"type": "presence", "room": room}));
            if number(&listed["count"]) >= 2 { Ok(()) } else { Err(listed.to_string()) }
        });
    }
}

#[test]
fn a_session_moves_while_a_shard_without_its_rooms_falls_silent() {
    let Some(spread) = Spread::start(&[]) else { return };
    let rooms = spread.rooms();
    let mut first = spread.chat_of(0, 0);
    let epoch = first.join(&rooms[0])["epoch"].clone();
    // No node has noticed it yet: what is asked there gets no answer.
    spread.redises[1].pause();
    let at = json!([place(&rooms[0], &epoch, 0)]);
    let (mut second, answer) = Chat::back(&spread.cluster.nodes[1], &first.session, at);
    assert_eq!(room_of(&answer, &rooms[0])["recovered"], true, "{answer}");
    assert_eq!(first.closed().0, 4010);
    assert_eq!(second.publish(&rooms[0], "here"), 1);
    spread.redises[1].go_on();
    for node in &spread.cluster.nodes {
        eventually("all is well again", || match node.get("/ready").1 {
            ready if ready["engine"] == Value::Null => Ok(()),
            ready => Err(ready.to_string()),
        });
    }
    second.join(&rooms[1]);
    assert_eq!(second.publish(&rooms[1], "here, too"), 1);
}

#[test]
fn a_session_that_a_shard_has_ended_by_mistake_is_written_down_there_again() {
    let Some(spread) = Spread::start(&[]) else { return };
    let rooms = spread.rooms();
    let (mut one, mut other) = (spread.chat_of(0, 0), spread.chat(1));
    for room in &rooms {
        one.join(room);
        other.join(room);
    }
    // As if another node had taken it up at the old primary of the first shard after a failover,
    // had told the second shard so, and was gone.
    let Cluster { prefix, .. } = &spread.cluster;
    let part = format!("{prefix}:s:{}", one.id);
    let redis = &spread.redises[1];
    let room = format!("{prefix}:{{{}}}", rooms[1]);
    eventually("both are there", || match &*redis.cli(&["HLEN", &format!("{room}:p")]) {
        "2" => Ok(()),
        count => Err(count.to_owned()),
    });
    let changes = || redis.cli(&["HGET", &format!("{room}:m"), "v"]).parse::<u64>().unwrap();
    let before = changes();
    assert_eq!(redis.cli(&["HSET", &part, "n", ""]), "0");
    assert_eq!(redis.cli(&["ZADD", &format!("{prefix}:orphans"), "0", &one.id]), "1");
    eventually("it has left the room and is there again", || match changes() - before {
        2.. => Ok(()),
        changes => Err(format!("{changes} changes")),
    });
    eventually("the other node has heard of it", || {
        match other.ok(json!({"type": "presence", "room": rooms[1]})) {
            listed if listed["count"] == 2 => Ok(()),
            listed => Err(listed.to_string()),
        }
    });
    assert_eq!(one.publish(&rooms[1], "here"), 1);
}

#[test]
fn a_message_is_for_rooms_of_one_shard() {
    let Some(spread) = Spread::start(&[]) else { return };
    let rooms = spread.rooms();
    let tagged = rooms.each_ref().map(|room| [format!("{{{room}}}.a"), format!("b.{{{room}}}")]);
    let mut chats = [spread.chat(0), spread.chat(1)];
    for chat in &mut chats {
        rooms.iter().chain(tagged.iter().flatten()).for_each(|room| _ = chat.join(room));
    }
    for (shard, together) in tagged.iter().enumerate() {
        together.iter().for_each(|room| assert_eq!(spread.knowing(room), [shard], "{room}"));
        let several = json!({"type": "publish", "rooms": together, "content": "both"});
        chats[0].ok(several);
        let came = chats[1].expect("message");
        assert_eq!(came["rooms"].as_array().unwrap().len(), 2, "{came}");
    }
    let answer = chats[0].ask(json!({"type": "publish", "rooms": rooms, "content": "apart"}));
    assert_eq!(answer["code"], "bad_request", "{answer}");
    let message = answer["message"].as_str().unwrap();
    let named = |text: &str| {
        rooms.iter().all(|room| text.contains(&format!("{room:?}"))) && text.contains("{tag}")
    };
    assert!(named(message), "{answer}");
    let body = json!({"rooms": rooms, "content": "apart"}).to_string();
    let (status, answer) = spread.cluster.nodes[0].ask("POST", "/v1/publish", &body);
    assert_eq!(status, 400, "{answer}");
    assert!(named(&answer.to_string().replace('\\', "")), "{answer}");
    chats[1].expect_silence();
}

#[test]
fn a_pattern_brings_no_more_rooms_from_several_shards_than_from_one() {
    let Some(spread) = Spread::start(&[("MAX_ROOMS_PER_CONN", "2")]) else { return };
    let rooms: Vec<String> = (0..20).map(|n| format!("many.{n}")).collect();
    for room in &rooms {
        let body = json!({"rooms": [room], "content": 1}).to_string();
        let (status, answer) = spread.cluster.nodes[0].ask("POST", "/v1/publish", &body);
        assert_eq!(status, 200, "{answer}");
    }
    let shards: Vec<usize> = rooms.iter().flat_map(|room| spread.knowing(room)).collect();
    assert!([0, 1].iter().all(|shard| shards.iter().filter(|of| *of == shard).count() >= 5));
    let answer = spread.chat(1).ask(json!({"type": "join", "room": "many.*"}));
    assert_eq!(answer["code"], "limit_exceeded", "{answer}");
    let (_, listed) = spread.cluster.nodes[1].get("/v1/rooms?prefix=many.");
    assert_eq!(listed["rooms"].as_array().map(Vec::len), Some(5), "{listed}");
}

#[test]
fn a_pattern_that_a_shard_cannot_look_up_is_refused() {
    let Some(spread) = Spread::start(&[]) else { return };
    let mut chats = [spread.chat(0), spread.chat(1)];
    let rooms: Vec<String> = (0..10).map(|n| format!("many.{n}")).collect();
    rooms.iter().for_each(|room| _ = chats[0].join(room));
    let (key, kept) = (format!("{}:rooms", spread.cluster.prefix), "the names of rooms");
    spread.redises[1].cli(&["RENAME", &key, kept]);
    spread.redises[1].cli(&["SET", &key, "of a wrong kind"]);
    let join = json!({"type": "join", "room": "many.*"});
    assert_eq!(chats[1].fails(join.clone()), "overloaded");
    spread.redises[1].cli(&["RENAME", kept, &key]);
    let matched = chats[1].ok(join);
    rooms.iter().for_each(|room| _ = room_of(&matched, room));
}

#[test]
fn a_node_at_work_says_once_that_others_have_another_list() {
    let Some(spread) = Spread::start(&[]) else { return };
    let redis = &spread.redises[1];
    let greeted = || {
        let text = redis.cli(&["INFO", "commandstats"]);
        let calls = |line: &str| {
            let (name, counts) = line.split_once(":calls=")?;
            // Redis 6.2 does not tell one command of clients from another.
            let is_it = ["cmdstat_client|setname", "cmdstat_client"].contains(&name);
            counts.split(',').next().filter(|_| is_it)?.parse().ok()
        };
        text.lines().find_map(calls).unwrap_or(0_u64)
    };
    let mark = format!("{}:list", spread.cluster.prefix);
    redis.cli(&["SET", &mark, "1/3"]);
    let node = &spread.cluster.nodes[0];
    node.program.process.log_line("number 1 of 3 for other nodes");
    let before = greeted();
    eventually("the nodes try again", || match greeted() {
        now if now >= before + 8 => Ok(()),
        now => Err(format!("{before}, {now}")),
    });
    node.await_ready(true);
    redis.cli(&["DEL", &mark]);
    let mut lines = Vec::new();
    loop {
        lines.push(node.program.process.log_line(""));
        if lines.last().is_some_and(|line| line.contains("connected to")) {
            break;
        }
    }
    let errors: Vec<_> = lines.iter().filter(|line| line.contains("ERROR")).collect();
    assert_eq!(errors.len(), 1, "{lines:?}");
}

#[test]
fn nodes_with_other_lists_are_refused() {
    let Some(spread) = Spread::start(&[]) else { return };
    let [first, second] = &spread.redises;
    let third = Redis::start().unwrap();
    let prefix = spread.cluster.prefix.as_str();
    for (list, told) in [
        (first.url(), "it is number 1 of 1 in redis_url, and number 1 of 2 for other nodes"),
        (
            format!("{},{}", second.url(), first.url()),
            "it is number 1 of 2 in redis_url, and number 2 of 2 for other nodes",
        ),
        (
            format!("{},{},{}", third.url(), second.url(), first.url()),
            "it is number 3 of 3 in redis_url, and number 1 of 2 for other nodes",
        ),
    ] {
        let settings = [
            ("RUSTY_SOCKS_ENGINE", "redis"),
            ("RUSTY_SOCKS_REDIS_URL", list.as_str()),
            ("RUSTY_SOCKS_REDIS_PREFIX", prefix),
            ("RUSTY_SOCKS_PORT", "0"),
            ("RUSTY_SOCKS_API_KEY", KEY),
        ];
        let mut node = Process::run(command(PROGRAM).envs(settings));
        assert_ne!(node.exit_code(), Some(0), "{list}");
        let log: Vec<String> = node.log.iter().collect();
        assert!(log.iter().any(|line| line.contains("for other nodes")), "{log:?}");
        let settings = settings.map(|(name, value)| (&name["RUSTY_SOCKS_".len()..], value));
        let (code, said) = outcome(&["check-config", "--connect"], &settings, "");
        assert_eq!(code, Some(2), "{said}");
        assert!(said.contains(told), "{said}");
    }
    // Those at work notice nothing.
    spread.cluster.nodes.iter().for_each(|node| node.await_ready(true));
    let settings =
        [("ENGINE", "redis"), ("REDIS_URL", &list(&spread.redises)), ("REDIS_PREFIX", prefix)];
    let (code, said) = outcome(&["check-config", "--connect"], &settings, "");
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(said.matches("Redis ").count(), 2, "{said}");
}
