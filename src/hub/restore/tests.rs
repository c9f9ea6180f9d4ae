//! Tests of what a server takes up of a snapshot.

use std::time::Duration;

use super::*;
use crate::{
    clock::Clock,
    config::{Config, LimitedAddresses, MemoryMax},
    hub::{
        harness::{Bench, Client, name},
        history::Replay,
        mailbox::Deferred,
        publish::{Publication, Published},
        resume::Resumed,
        save::Saved,
        session::Sender,
    },
    identity::{Grant, Identity, Permissions, Revocation},
    snapshot::{Payload, Record, RoomRecord, SnapshotWriter},
    store::{Epoch, Position, Range},
    ws::frame::{Message, PreparedFrame},
};
use uuid::Uuid;

const ENOUGH: u64 = 1 << 20;

fn bench(config: &Config) -> Bench {
    Bench::with_clock(config, 1, 1000, Clock::stepped().with_past())
}

fn advance(bench: &Bench, ms: u64) {
    bench.hub.clock.advance(Duration::from_millis(ms));
}

fn publish(bench: &Bench, client: &Client, room: &str, text: &str, id: Uuid) -> Published {
    let by = Sender { session: &client.session, conn: client.conn() };
    let room = bench.hub.rooms.find(room).expect("it is there");
    let publication = Publication::from(text).dedup_id(id);
    let published = bench.hub.publish(Some(by), &room, &publication);
    bench.letters(0);
    published.expect("a place")
}

fn direct(bench: &Bench, from: &Client, to: Uuid, text: &str, id: Uuid) -> Published {
    let by = Sender { session: &from.session, conn: from.conn() };
    let sent = bench.hub.direct(by, &to, &Publication::from(text).dedup_id(id));
    bench.letters(0);
    sent.expect("it is there")
}

fn texts(frames: &[PreparedFrame]) -> Vec<&str> {
    frames.iter().map(|frame| frame.message().as_text().expect("text")).collect()
}

fn kept(bench: &Bench, room: &str) -> (Position, Vec<String>) {
    let Some(room) = bench.hub.rooms.find(room) else {
        return (Position { epoch: Epoch::UNKNOWN, seq: 0 }, Vec::new());
    };
    let page = bench.hub.history(&room, Range::Latest, 1000).expect("memory");
    (page.position, texts(&page.messages).iter().map(|text| (*text).to_owned()).collect())
}

/// Comes back as `session`, with what it knows of one room.
fn come_back(bench: &mut Bench, session: &Session, since: &[(&str, Position)]) -> Resumed {
    let mut conn = bench.client(0, true);
    let since: Vec<_> = since.iter().map(|(room, at)| (name(room), *at)).collect();
    let resumed = bench.hub.resume(&mut conn.conn, &session.token(), &since, None);
    resumed.expect("its session waits")
}

#[test]
fn a_session_finds_everything_that_it_left() {
    let mut old = bench(&Config::default());
    let (mut anna, mut ben) = (old.client(0, true), old.client(0, true));
    for client in [&mut anna, &mut ben] {
        client.join("tea").expect("a place");
        client.join("lobby").expect("a place");
    }
    anna.subscribe("p.*").expect("a place");
    ben.join("p.left").expect("a place");
    anna.join("p.left").expect("a place");
    anna.leave("p.left");
    old.hub.set_name(&anna.session, Some("Anna"));
    let ids = [(); 4].map(|()| Uuid::new_v4());
    let first = publish(&old, &anna, "tea", "one", ids[0]).seq;
    let since = kept(&old, "tea").0;
    direct(&old, &ben, anna.session.client_id, "reached", ids[1]);
    anna.lose();
    publish(&old, &ben, "tea", "two", ids[2]);
    direct(&old, &ben, anna.session.client_id, "waits", ids[3]);
    let left = [kept(&old, "tea"), kept(&old, "lobby"), kept(&old, "p.left")];
    advance(&old, 5000);
    // Ben is still connected: it was cut off.
    let (bytes, saved) = old.save(ENOUGH);
    assert_eq!(saved.written, Amount { rooms: 3, messages: 2, sessions: 2 });
    assert_eq!(saved.left_out, Amount::default());

    let mut new = bench(&Config::default());
    let restored = new.restore(&bytes, 1000).expect("it is whole");
    assert_eq!((restored.taken, restored.left_out), (saved.written, Amount::default()));
    assert_eq!([kept(&new, "tea"), kept(&new, "lobby"), kept(&new, "p.left")], left);
    assert_eq!(new.hub.sessions.gauges(), (2, 2));
    assert_eq!((new.listed("tea"), new.listed("p.left"), new.members("tea")), (2, 1, 0));
    new.hub.rooms.enter(&name("p.new"), &mut Deferred::default(), |_, _| ()).expect("a place");

    let resumed = come_back(&mut new, &anna.session, &[("tea", since)]);
    assert_eq!(
        (resumed.client_id, resumed.name.as_deref()),
        (anna.session.client_id, Some("Anna"))
    );
    let mut rooms: Vec<_> = resumed.rooms.iter().map(|room| room.room.as_str()).collect();
    rooms.sort_unstable();
    assert_eq!(rooms, ["lobby", "p.new", "tea"], "what was left by name is not joined again");
    let tea = resumed.rooms.iter().find(|room| room.room.as_str() == "tea").expect("there");
    let joined = tea.joined.as_ref().expect("it may be in there");
    assert_eq!((joined.recovered, texts(&joined.replay)), (true, vec!["two"]));
    assert_eq!(texts(&resumed.directs), ["waits"]);
    assert_eq!((resumed.direct_seq, resumed.directs_recovered), (2, true));

    // What they said before is known, and what they say now is new.
    let mut ben_again = new.client(0, true);
    ben_again.resume(&ben.session).expect("its session waits");
    let repeated = publish(&new, &ben_again, "tea", "two", ids[2]);
    assert_eq!((repeated.seq, repeated.repeated), (2, true));
    let repeated = direct(&new, &ben_again, anna.session.client_id, "waits", ids[3]);
    assert_eq!((repeated.seq, repeated.repeated), (2, true));
    let published = publish(&new, &ben_again, "tea", "three", Uuid::new_v4());
    assert_eq!((published.seq, published.repeated, first), (3, false, 1));
    let (position, texts) = kept(&new, "tea");
    assert_eq!(
        (position.epoch, texts),
        (since.epoch, ["one", "two", "three"].map(String::from).into())
    );
}

#[test]
fn what_came_back_is_counted_and_counted_out_again() {
    let mut old = bench(&Config::default());
    let mut clients: Vec<Client> = (0..3).map(|_| old.client(0, true)).collect();
    for client in &mut clients {
        client.join("a").expect("a place");
        client.subscribe("p.*").expect("a place");
    }
    publish(&old, &clients[0], "a", "x", Uuid::new_v4());
    direct(&old, &clients[0], clients[1].session.client_id, "x", Uuid::new_v4());
    clients.iter_mut().for_each(Client::lose);
    let before = old.hub.account.balance();
    let new = bench(&Config::default());
    let empty = new.hub.account.balance();
    new.restore(&old.save(ENOUGH).0, 0).expect("it is whole");
    assert_eq!(new.hub.account.balance(), before);
    // Their time is over.
    advance(&new, 61_000);
    new.hub.sweep();
    assert_eq!(new.hub.sessions.gauges(), (0, 0));
    advance(&new, 3_600_000);
    new.hub.sweep();
    assert_eq!(new.hub.account.balance(), empty);
    assert!(new.hub.rooms.find("a").is_none());
}

#[test]
fn ages_go_on_and_the_time_without_a_server_counts_against_nobody() {
    let config = Config { history_age: Duration::from_secs(100), ..Config::default() };
    let mut old = bench(&config);
    let [mut earlier, mut late] = [(); 2].map(|()| old.client(0, true));
    earlier.join("a").expect("a place");
    late.join("a").expect("a place");
    earlier.lose();
    publish(&old, &late, "a", "old", Uuid::new_v4());
    advance(&old, 40_000);
    publish(&old, &late, "a", "young", Uuid::new_v4());
    old.hub.stop_absences();
    // A drain that takes longer than the resume window.
    advance(&old, 10_000);
    late.lose();
    advance(&old, 30_000);
    old.hub.sweep();
    assert_eq!(old.hub.sessions.gauges().1, 2);
    let (bytes, _) = old.save(ENOUGH);

    let new = bench(&config);
    new.restore(&bytes, 15_000).expect("it is whole");
    let ages = |after_ms| {
        advance(&new, after_ms);
        new.hub.sweep();
        (new.hub.sessions.gauges().1, kept(&new, "a").1.len())
    };
    assert_eq!(ages(0), (2, 2));
    assert_eq!(ages(10_000), (2, 1), "80 + 15 + 10 s");
    assert_eq!(ages(15_000), (1, 1), "it was away for 40 s before");
    assert_eq!(ages(40_000), (0, 0), "40 + 15 + 65 s");
}

#[test]
fn the_bounds_are_those_of_the_new_server() {
    let mut old = bench(&Config::default());
    let mut clients: Vec<Client> = (0..6).map(|_| old.client(0, true)).collect();
    for (n, client) in clients.iter_mut().enumerate() {
        for room in 0..3 {
            client.join(&format!("r{room}")).expect("a place");
            publish(&old, client, &format!("r{room}"), &n.to_string(), Uuid::new_v4());
        }
    }
    // These two rooms are left, the second one later.
    for room in ["r0", "r1"] {
        clients.iter_mut().for_each(|client| client.leave(room));
    }
    for client in &mut clients {
        advance(&old, 10);
        client.lose();
    }
    let (bytes, _) = old.save(ENOUGH);
    let config = Config { max_rooms: 2, max_away_sessions: 4, history: 3, ..Config::default() };
    let new = bench(&config);
    let restored = new.restore(&bytes, 0).expect("it is whole");
    assert_eq!(restored.taken, Amount { rooms: 3, messages: 6, sessions: 4 }, "with the lobby");
    assert_eq!(restored.left_out, Amount { rooms: 1, messages: 12, sessions: 2 });
    assert_eq!(kept(&new, "r2").1, ["3", "4", "5"]);
    assert_eq!((kept(&new, "r0").1.len(), kept(&new, "r1").1.len()), (0, 3));
    for (n, client) in clients.iter().enumerate() {
        let is_there = new.hub.sessions.find_by_token(&client.session.token()).is_some();
        assert_eq!(is_there, n >= 2, "those away longest give way: {n}");
    }
    // The room that nobody is in gives way to a new one, as before.
    new.hub.rooms.enter(&name("new"), &mut Deferred::default(), |_, _| ()).expect("a place");
    assert!(new.hub.rooms.find("r1").is_none() && new.hub.rooms.find("r2").is_some());

    let config = Config { history_total_bytes: 13, ..Config::default() };
    let new = bench(&config);
    let restored = new.restore(&bytes, 0).expect("it is whole");
    assert_eq!(restored.taken.messages, 4, "of three bytes each");
    let config = Config { resume_window: Duration::ZERO, ..Config::default() };
    assert_eq!(bench(&config).restore(&bytes, 0).expect("it is whole").ended, 6);
}

#[test]
fn newcomers_find_memory_however_much_was_left() {
    let config = Config { history: 10_000, history_bytes: 64 << 20, ..Config::default() };
    let mut old = bench(&config);
    let mut client = old.client(0, true);
    client.join("a").expect("a place");
    let text = "x".repeat(10_000);
    for _ in 0..5000 {
        publish(&old, &client, "a", &text, Uuid::new_v4());
    }
    let (bytes, saved) = old.save(u64::MAX);
    assert_eq!(saved.written.messages, 5000);
    let memory_max = MemoryMax::Bytes(20 << 20);
    let new = bench(&Config { memory_max, ..config });
    let restored = new.restore(&bytes, 0).expect("it is whole");
    assert!(restored.left_out.messages > 2000, "{restored:?}");
    assert_eq!(restored.taken.messages + restored.left_out.messages, 5000);
    assert_eq!(new.hub.account.level(), Level::Normal);
    // What is kept are the last ones, without a hole.
    let room = new.hub.rooms.find("a").expect("it is there");
    let history = &room.state.lock().history;
    let seqs: Vec<u64> = history.kept_between(0, u64::MAX).map(|(seq, ..)| seq).collect();
    let first = 5001 - seqs.len() as u64;
    assert!(seqs.iter().copied().eq(first..=5000), "{:?}..", seqs.first());
}

#[test]
fn of_all_rooms_the_oldest_messages_are_left_out() {
    let mut old = bench(&Config::default());
    let mut client = old.client(0, true);
    ["a", "b"].iter().for_each(|room| drop(client.join(room).expect("a place")));
    for n in 0..20 {
        let room = if n % 2 == 0 { "a" } else { "b" };
        publish(&old, &client, room, &format!("{n:0>100}"), Uuid::new_v4());
        advance(&old, 10);
    }
    let whole = old.save(ENOUGH).0.len() as u64;
    let (bytes, saved) = old.save(whole - 600);
    assert!(bytes.len() as u64 <= whole - 600);
    let Saved { written, left_out } = saved;
    assert_eq!((written.messages + left_out.messages, written.sessions), (20, 1));
    // No more of them than must be: a message takes 120 bytes or so, and is measured as 148.
    assert!((5..=10).contains(&left_out.messages), "{left_out:?}");
    let new = bench(&Config::default());
    new.restore(&bytes, 0).expect("it is whole");
    let mut numbers: Vec<usize> = ["a", "b"]
        .iter()
        .flat_map(|room| kept(&new, room).1)
        .map(|text| text.parse().expect("a number"))
        .collect();
    numbers.sort_unstable();
    assert!(numbers.iter().copied().eq(left_out.messages..20), "{numbers:?}");
    // Where not even the sessions fit, they are left out before the rooms.
    let (bytes, saved) = old.save(400);
    assert!(bytes.len() <= 400 && saved.left_out.sessions == 1 && saved.written.rooms == 3);
    bench(&Config::default()).restore(&bytes, 0).expect("it is whole");
}

#[test]
fn what_came_out_of_order_of_time_leaves_no_hole_where_space_is_short() {
    let mut old = bench(&Config::default());
    let mut client = old.client(0, true);
    client.join("a").expect("a place");
    let now_ms = old.hub.now_ms();
    {
        let room = old.hub.rooms.find("a").expect("it is there");
        let mut state = room.state.lock();
        let RoomState { history, bounds, .. } = &mut *state;
        for n in 0..20_u64 {
            // Each second one has looked at the clock long before it came.
            let text = format!("{n:0>100}");
            let frame = PreparedFrame::new(Message::Text(&text));
            history.append(frame, now_ms - 100 + n - n % 2 * 10, bounds);
        }
    }
    let whole = old.save(ENOUGH).0.len() as u64;
    for less in (100..2000).step_by(150) {
        let (bytes, saved) = old.save(whole - less);
        let new = bench(&Config::default());
        let restored = new.restore(&bytes, 0).expect("it is whole");
        assert!(restored.gaps.is_empty() && saved.left_out.messages > 0, "{saved:?}");
        assert_eq!(kept(&new, "a").1.len(), saved.written.messages);
        assert_eq!(kept(&new, "a").0.seq, 20);
    }
}

#[test]
fn a_message_of_many_rooms_is_there_once() {
    let mut old = bench(&Config::default());
    let mut client = old.client(0, true);
    let names: Vec<String> = (0..50).map(|n| format!("r{n}")).collect();
    for room in &names {
        client.join(room).expect("a place");
    }
    let find = |room: &String| old.hub.rooms.find(room).expect("it is there");
    let rooms: Vec<Arc<Room>> = names.iter().map(find).collect();
    let rooms: Vec<&Room> = rooms.iter().map(Arc::as_ref).collect();
    for text in ["x", "y"] {
        let by = Sender { session: &client.session, conn: client.conn() };
        let text = text.repeat(10_000);
        let publication = Publication::from(&*text);
        old.hub.publish_to_rooms(by, &rooms, &publication).expect("a place");
        publish(&old, &client, "r7", "of its own", Uuid::new_v4());
    }
    old.letters(0);
    client.lose();
    let before = old.hub.account.balance();
    let (bytes, saved) = old.save(ENOUGH);
    assert_eq!(saved.written.messages, 102);
    assert!(bytes.len() < 30_000, "{}", bytes.len());
    let new = bench(&Config::default());
    new.restore(&bytes, 0).expect("it is whole");
    assert_eq!(new.hub.account.balance(), before, "nor is it more than once in memory");
    for n in 0..50 {
        let room = format!("r{n}");
        assert_eq!(kept(&new, &room), kept(&old, &room));
    }
    // It is measured as what it takes.
    let (bytes, saved) = old.save(28_000);
    assert_eq!((saved.written.messages, saved.left_out.messages), (102, 0), "{}", bytes.len());
}

#[test]
fn of_all_rooms_the_oldest_messages_give_way_where_there_may_be_less() {
    let config = Config { history: 10_000, history_bytes: 64 << 20, ..Config::default() };
    let mut old = bench(&config);
    let mut client = old.client(0, true);
    ["a", "b", "c"].iter().for_each(|room| drop(client.join(room).expect("a place")));
    let text = "x".repeat(10_000);
    // Nothing is younger than what is in the first room, and nothing older than in the last.
    for room in ["c", "b", "a"] {
        for _ in 0..1000 {
            publish(&old, &client, room, &text, Uuid::new_v4());
        }
        advance(&old, 10);
    }
    let (bytes, _) = old.save(u64::MAX);
    let total = Config { history_total_bytes: 15_000_000, ..config.clone() };
    let memory = Config { memory_max: MemoryMax::Bytes(20 << 20), ..config };
    for config in [total, memory] {
        let new = bench(&config);
        let restored = new.restore(&bytes, 0).expect("it is whole");
        assert_eq!(restored.taken.messages + restored.left_out.messages, 3000);
        let counts = ["a", "b", "c"].map(|room| {
            let room = new.hub.rooms.find(room).expect("it is there");
            let state = room.state.lock();
            state.history.len()
        });
        let all = restored.taken.messages;
        assert_eq!(counts, [all.min(1000), all.saturating_sub(1000), 0], "{restored:?}");
        assert!(all > 500, "{restored:?}");
    }
}

#[test]
fn a_hole_in_one_room_takes_nothing_from_others() {
    let mut out = SnapshotWriter::new(Vec::new(), 0, ENOUGH).expect("memory");
    for room in ["a", "b", "c"] {
        let room = RoomRecord {
            name: room.into(),
            epoch: 1,
            began_seq: 0,
            seq: 4,
            owner: OwnerRecord::Many,
        };
        assert!(out.put(&Record::Room(room)).expect("memory"));
    }
    for (room, seqs) in [(0, &[1, 2, 4][..]), (1, &[1, 2, 3, 4]), (2, &[1, 2])] {
        for seq in seqs {
            let (payload, is_shared) = (Payload::Text("x"), false);
            let message = Record::Message { room, seq: *seq, age_ms: 0, is_shared, payload };
            assert!(out.put(&message).expect("memory"));
        }
    }
    let bytes = out.finish().expect("memory").0;
    let new = bench(&Config::default());
    let restored = new.restore(&bytes, 0).expect("its records are whole");
    assert_eq!(restored.gaps, ["a", "c"].map(name));
    assert_eq!((restored.taken.messages, restored.left_out.messages), (5, 4));
    let counts = ["a", "b", "c"].map(|room| (kept(&new, room).0.seq, kept(&new, room).1.len()));
    assert_eq!(counts, [(4, 1), (4, 4), (4, 0)], "a hole is no message, and a number is taken");
}

#[test]
fn one_address_has_no_more_sessions_away_than_before() {
    let limited = LimitedAddresses::All;
    let config = Config { max_away_sessions: 8, limited_addresses: limited, ..Config::default() };
    let mut old = bench(&config);
    let mut clients: Vec<Client> = (0..4).map(|_| old.client(0, true)).collect();
    for client in &mut clients {
        client.join("a").expect("a place");
        advance(&old, 10);
        client.lose();
    }
    let (bytes, _) = old.save(ENOUGH);
    let mut new = bench(&config);
    assert_eq!(new.restore(&bytes, 0).expect("it is whole").taken.sessions, 4);
    // One more of the same address, and the one that is away longest goes.
    let mut more = new.client(0, true);
    more.join("a").expect("a place");
    advance(&new, 6000);
    more.lose();
    assert_eq!(new.hub.sessions.gauges(), (4, 4));
    assert!(new.hub.sessions.find(&clients[0].session.client_id).is_none());
    // Where fewer may be, fewer come back.
    let fewer = bench(&Config { max_away_sessions: 6, ..config });
    let restored = fewer.restore(&bytes, 0).expect("it is whole");
    assert_eq!((restored.taken.sessions, restored.left_out.sessions), (3, 1));
    assert!(fewer.hub.sessions.find(&clients[0].session.client_id).is_none());
}

#[test]
fn a_session_keeps_its_user_and_a_revocation_holds() {
    let mut old = bench(&Config::default());
    let mut user = |id: &str| {
        let mut client = old.client(0, true);
        client.join("a").expect("a place");
        let grants = [
            Grant::new("chat.*", Permissions::all()).expect("a pattern"),
            Grant::of_parts("user.a*", false, Permissions::JOIN),
        ];
        let identity = Identity {
            token_id: Some("t".into()),
            expires_at: Some(5),
            grants: grants.into(),
            ..Identity::new(id)
        };
        old.hub.set_identity(&mut client.conn, identity.clone()).expect("not revoked");
        client.lose();
        (client, identity)
    };
    let ((u, identity), (v, _)) = (user("u"), user("v"));
    old.hub.authenticator.revoke(&Revocation::user("v"));
    old.hub.authenticator.revoke(&Revocation::token("other"));
    let (bytes, saved) = old.save(ENOUGH);
    assert_eq!(saved.written.sessions, 1, "a revoked one is not written");

    let mut new = bench(&Config::default());
    new.restore(&bytes, 0).expect("it is whole");
    assert_eq!(new.hub.authenticator.revocations(), 2);
    assert!(new.hub.authenticator.is_revoked(&Identity::new("v")));
    let there = new.hub.sessions.find(&u.session.client_id).expect("it is there");
    assert_eq!(there.identity().as_deref(), Some(&identity));
    assert_eq!(new.hub.sessions.list_of_user("u", None, 9).len(), 1);
    assert!(new.hub.sessions.find(&v.session.client_id).is_none());
    // It belongs to its user, whoever knows its secret.
    let mut stranger = new.client(0, true);
    assert!(stranger.resume(&u.session).is_err());
    let mut again = new.client(0, true);
    new.hub.set_identity(&mut again.conn, Identity::new("u")).expect("not revoked");
    again.resume(&u.session).expect("its session waits");
    assert_eq!(there.identity().as_deref(), Some(&Identity::new("u")), "the token of now");
}

#[test]
fn a_session_keeps_its_rooms_and_patterns_where_a_client_may_have_fewer_now() {
    let mut old = bench(&Config::default());
    let mut client = old.client(0, true);
    for room in ["a", "b", "c.d"] {
        client.join(room).expect("a place");
    }
    for pattern in ["c.*", "e.*"] {
        client.subscribe(pattern).expect("a place");
    }
    client.lose();
    let config = Config { max_rooms_per_conn: 1, ..Config::default() };
    let mut new = bench(&config);
    new.restore(&old.save(ENOUGH).0, 0).expect("it is whole");
    let mut again = new.client(0, true);
    let resumed = again.resume(&client.session).expect("its session waits");
    let rooms = resumed.rooms.iter().filter(|room| room.joined.is_ok());
    assert_eq!((rooms.count(), resumed.patterns.len()), (3, 2));
    assert!(again.join("f").is_err(), "and no more");
}

#[test]
fn rooms_that_one_client_left_behind_are_still_its_own() {
    let config = Config { max_rooms_per_conn: 2, ..Config::default() };
    let mut old = bench(&config);
    let mut client = old.client(0, true);
    for room in ["a", "b"] {
        client.join(room).expect("a place");
        publish(&old, &client, room, "x", Uuid::new_v4());
        client.leave(room);
    }
    client.lose();
    let mut new = bench(&config);
    new.restore(&old.save(ENOUGH).0, 0).expect("it is whole");
    let mut again = new.client(0, true);
    again.resume(&client.session).expect("its session waits");
    again.join("c").expect("a place");
    publish(&new, &again, "c", "x", Uuid::new_v4());
    again.leave("c");
    let there = ["a", "b", "c"].map(|room| new.hub.rooms.find(room).is_some());
    assert_eq!(there, [false, true, true], "of three it has left, the first one goes");
}

#[test]
fn watchers_are_told_when_one_that_came_back_in_the_file_goes() {
    let mut old = bench(&Config::default());
    let [mut watcher, mut other] = [(); 2].map(|()| old.client(0, true));
    watcher.watch("a");
    other.join("a").expect("a place");
    for client in [&mut watcher, &mut other] {
        old.hub.confirm(&client.session);
        client.lose();
    }
    let mut new = bench(&Config::default());
    new.restore(&old.save(ENOUGH).0, 0).expect("it is whole");
    let room = new.hub.rooms.find("a").expect("it is there");
    assert_eq!(room.state.lock().unshown(), 0, "everybody knows of them");
    drop(room);
    advance(&new, 30_000);
    let resumed = come_back(&mut new, &watcher.session, &[]);
    let presence = resumed.rooms[0].presence.as_ref().expect("it watches");
    assert_eq!((presence.members.len(), presence.count), (2, 2));
    advance(&new, 31_000);
    new.letters(0);
    new.hub.sweep();
    let texts = new.texts(0);
    assert!(texts.len() == 1 && texts[0].starts_with("Left"), "{texts:?}");
}

#[test]
fn a_damaged_snapshot_changes_nothing() {
    let mut old = bench(&Config::default());
    let mut client = old.client(0, true);
    client.join("a").expect("a place");
    publish(&old, &client, "a", "x", Uuid::new_v4());
    client.lose();
    let (bytes, _) = old.save(ENOUGH);
    let new = bench(&Config::default());
    let empty = new.hub.account.balance();
    for end in (0..bytes.len()).step_by(7) {
        assert!(new.restore(&bytes[..end], 0).is_err());
    }
    let mut last = bytes.clone();
    *last.last_mut().expect("a byte") ^= 1;
    assert!(new.restore(&last, 0).is_err());
    assert_eq!((new.hub.account.balance(), new.hub.sessions.gauges()), (empty, (0, 0)));
    assert_eq!(new.hub.rooms.len(), 1, "the default room");
    new.restore(&bytes, 0).expect("it is whole");
    // A join of it finds what was there.
    let mut late = bench(&Config::default());
    late.restore(&bytes, 0).expect("it is whole");
    let mut newcomer = late.client(0, true);
    let joined = late.hub.join(&mut newcomer.conn, &name("a"), Replay::Latest(9));
    assert_eq!(joined.expect("a place").replay.len(), 1);
}
