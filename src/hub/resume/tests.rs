//! Tests of resumed sessions.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use super::*;
use crate::{
    clock::Clock,
    config::Config,
    hub::{
        harness::{Bench, Client, name},
        publish::Publication,
        session::Sender,
    },
    identity::{Identity, Revocation},
};

#[test]
fn a_resume_names_one_room_without_a_place_of_each_pattern() {
    let config = Config { max_rooms_per_conn: 4, ..Config::default() };
    let mut bench = Bench::new(&config, 1, 1000);
    let mut client = bench.client(0, true);
    client.join("own").expect("a place");
    for pattern in ["p.*", "q.*"] {
        client.subscribe(pattern).expect("a place");
    }
    bench.client(0, false).join("p.left").expect("a place");
    client.join("p.left").expect("a place");
    client.leave("p.left");
    client.lose();
    for n in 10..60 {
        for room in ["p", "q"] {
            let room = name(&format!("{room}.{n}"));
            let made = bench.hub.rooms.enter(&room, &mut Deferred::default(), |_, _| ());
            made.expect("there may be as many");
        }
    }
    bench.letters(0);
    let resumed = bench.client(0, true).resume(&client.session).expect("it waits");
    let rooms: Vec<_> = resumed.rooms.iter().map(|room| room.room.as_str()).collect();
    assert_eq!(rooms, ["own", "p.10", "p.11", "p.12"], "the one that was left stays left");
    // They come with the answer, so that no mailbox that is full drops them.
    let notices = resumed.notices.iter().map(|frame| frame.message().as_text().expect("text"));
    let texts: Vec<&str> = notices.collect();
    let expected = [("p.*", "p.13"), ("q.*", "q.10")]
        .map(|(pattern, room)| format!("Unmatched {{ pattern: {pattern:?}, room: {room:?} }}"));
    assert_eq!(texts, expected);
}

#[test]
fn whom_a_resumed_watcher_is_told_of_leaves_with_a_notice() {
    let mut bench = Bench::new(&Config::default(), 1, 1000);
    let mut watcher = bench.client(0, true);
    watcher.watch("a");
    bench.hub.confirm(&watcher.session);
    watcher.lose();
    // Nobody was told of either yet; the second is what the watcher comes back on.
    let [mut newcomer, mut fresh] = [(); 2].map(|()| bench.client(0, true));
    for client in [&mut newcomer, &mut fresh] {
        client.join("a").expect("a place");
    }
    let resumed = fresh.resume(&watcher.session).expect("it waits");
    let presence = resumed.rooms[0].presence.as_ref().expect("it watches");
    let mut listed: Vec<_> = presence.members.iter().map(|member| member.client_id).collect();
    listed.sort_unstable();
    let mut there = [watcher.session.client_id, newcomer.session.client_id];
    there.sort_unstable();
    assert_eq!((&listed[..], presence.count), (&there[..], 2), "not what has just ended");
    bench.hub.confirm(&newcomer.session);
    assert_eq!(bench.texts(0), [""; 0], "it is known already");
    bench.hub.depart(&newcomer.session, newcomer.at(), &CloseReason::NORMAL);
    let texts = bench.texts(0);
    assert!(texts.len() == 1 && texts[0].starts_with("Left"), "{texts:?}");
}

#[test]
fn sessions_that_did_nothing_are_evicted_first() {
    let config = Config { max_away_sessions: 10, ..Config::default() };
    let mut bench = Bench::new(&config, 1, 1000);
    let mut worth: Vec<Client> = (0..4).map(|_| bench.client(0, true)).collect();
    worth[0].join("a").expect("a place");
    worth[1].subscribe("a.*").expect("a place");
    let by = Sender { session: &worth[3].session, conn: worth[3].conn() };
    let to = worth[2].session.client_id;
    let id = Uuid::new_v4();
    bench.hub.direct(by, &to, &Publication::from("x").dedup_id(id)).expect("it is sent");
    worth.iter_mut().for_each(Client::lose);
    for _ in 0..100 {
        let mut trivial = bench.client(0, true);
        trivial.join("lobby").expect("a place");
        trivial.lose();
    }
    let metrics = &bench.hub.sessions.metrics;
    let evicted = [&metrics.sessions_evicted, &metrics.sessions_evicted_trivial];
    assert_eq!(evicted.map(crate::metrics::Counter::value), [94, 94]);
    assert_eq!(bench.hub.sessions.gauges().1, 10);
    for client in &worth {
        let mut back = bench.client(0, true);
        back.resume(&client.session).expect("it was kept");
    }
}

#[test]
fn one_address_has_half_of_the_places_and_its_own_sessions_go_first() {
    let config = Config { max_away_sessions: 7, ..Config::default() };
    let mut bench = Bench::with_clock(&config, 1, 1000, Clock::stepped());
    let [office, other] = ["192.0.2.1", "2001:db8::1"].map(|ip| ip.parse().expect("legal"));
    let mut lose = |ip, is_trivial: bool| {
        let mut client = bench.client(0, true).from(ip);
        if !is_trivial {
            client.join("a").expect("a place");
        }
        client.lose();
        bench.hub.clock.advance(Duration::from_millis(1));
        client.session
    };
    let away = lose(other, true);
    let of_office: Vec<_> = (0..3).map(|_| lose(office, false)).collect();
    let trivial = lose(office, true);
    let more = [(); 2].map(|()| lose(office, false));
    // This machine's has no limit.
    let unlimited: Vec<_> = (0..2).map(|_| lose(IpAddr::from([127, 0, 0, 1]), false)).collect();
    let metrics = &bench.hub.sessions.metrics;
    let evicted = [&metrics.sessions_evicted, &metrics.sessions_evicted_per_ip];
    assert_eq!(evicted.map(crate::metrics::Counter::value), [0, 2]);
    let mut is_there = |session: &Arc<Session>| bench.client(0, true).resume(session).is_ok();
    assert!(is_there(&away) && unlimited.iter().all(&mut is_there));
    assert!(!is_there(&trivial) && !is_there(&of_office[0]));
    assert!(of_office[1..].iter().chain(&more).all(is_there));
}

#[test]
fn what_is_gone_is_counted_no_more() {
    let mut bench = Bench::new(&Config::default(), 1, 1000);
    let before = bench.hub.account.balance();
    let mut clients: Vec<Client> = (0..3).map(|_| bench.client(0, true)).collect();
    for client in &mut clients {
        ["a", "b"].iter().for_each(|room| drop(client.join(room).expect("a place")));
        ["p.*", "p.q.*", "q.*"].iter().for_each(|to| drop(client.subscribe(to)));
        client.leave("a");
    }
    clients[0].join("p.q.r").expect("a place");
    let rooms = ["b", "p.q.r"].map(|room| bench.hub.rooms.find(room).expect("it is there"));
    let by = Sender { session: &clients[0].session, conn: clients[0].conn() };
    for _ in 0..200 {
        let publication = Publication::from("x").dedup_id(Uuid::new_v4());
        let rooms: Vec<&Room> = rooms.iter().map(AsRef::as_ref).collect();
        bench.hub.publish_to_rooms(by, &rooms, &publication).expect("it is published");
        let to = clients[1].session.client_id;
        bench.hub.direct(by, &to, &publication).expect("it is sent");
        bench.letters(0);
    }
    let now = bench.hub.account.balance();
    assert!(now.sessions > before.sessions + 3 * 100 && now.sessions < 60_000, "{now:?}");
    assert!(now.patterns > 0 && now.inboxes > 0 && now.histories > 0, "{now:?}");
    for client in &clients {
        bench.hub.depart(&client.session, client.at(), &CloseReason::NORMAL);
    }
    let now = bench.hub.account.balance();
    assert_eq!((now.sessions, now.patterns, now.inboxes), (0, 0, 0));
}

#[test]
fn a_resume_replays_nothing_to_a_client_without_the_permission() {
    for (permissions, replayed) in
        [(Permissions::all(), 1), (Permissions::all() - Permissions::HISTORY, 0)]
    {
        let mut bench = Bench::new(&Config::default(), 1, 1000);
        let mut client = bench.client_who_may(permissions, 0, true);
        let Position { epoch, .. } = client.join("a").expect("a place").position;
        client.lose();
        let by = bench.client(0, false);
        let by = Sender { session: &by.session, conn: by.conn() };
        let room = bench.hub.rooms.find("a").expect("it is there");
        bench.hub.publish(Some(by), &room, &"x".into()).expect("it is published");
        let mut again = bench.client_who_may(permissions, 0, true);
        let since = [(name("a"), Position { epoch, seq: 0 })];
        let token = client.session.token();
        let resumed = bench.hub.resume(&mut again.conn, &token, &since, None);
        let resumed = resumed.expect("it waits");
        let joined = resumed.rooms[0].joined.as_ref().expect("it may be in there");
        assert_eq!(joined.replay.len(), replayed);
        assert_eq!(joined.recovered, replayed > 0);
    }
}

#[test]
fn a_client_that_never_said_who_it_is_leaves_nothing_behind() {
    let mut bench = Bench::new(&Config::default(), 1, 1000);
    let [mut outsider, mut user] = [(); 2].map(|()| bench.client(0, true));
    outsider.session.set_awaits_identity(true);
    user.session.set_awaits_identity(true);
    let known = bench.hub.set_identity(&mut user.conn, Identity::new("u"));
    known.expect("nothing is revoked");
    outsider.lose();
    assert_eq!(bench.hub.sessions.gauges(), (1, 0));
    user.lose();
    assert_eq!(bench.hub.sessions.gauges(), (1, 1), "it has said it");
}

#[test]
fn a_client_that_sent_nothing_is_evicted_first_however_long_it_stayed() {
    let config = Config { max_away_sessions: 2, ..Config::default() };
    let mut bench = Bench::with_clock(&config, 1, 1000, Clock::stepped());
    let mut clients: Vec<Client> = (0..3).map(|_| bench.client(0, true)).collect();
    clients[0].session.set_begun();
    bench.hub.clock.advance(Duration::from_secs(60));
    clients.iter_mut().for_each(Client::lose);
    bench.client(0, true).resume(&clients[0].session).expect("it was kept");
    assert_eq!(bench.hub.sessions.metrics.sessions_evicted_trivial.value(), 1);
}

#[test]
fn a_revoked_user_resumes_nothing_and_leaves_nothing_behind() {
    let mut bench = Bench::new(&Config::default(), 1, 1000);
    let mut user = || {
        let mut client = bench.client(0, true);
        let identity = Identity::new("u");
        bench.hub.set_identity(&mut client.conn, identity).expect("nothing is revoked");
        client
    };
    let [mut earlier, mut again, mut late] = [user(), user(), user()];
    earlier.lose();
    // As far as a revocation has come that has not looked at the sessions yet.
    bench.hub.authenticator.revoke(&Revocation::user("u"));
    assert_eq!(again.resume(&earlier.session).err(), Some(RoomError::Revoked));
    assert_eq!(bench.hub.sessions.gauges().1, 1, "it is as it was");
    late.lose();
    assert_eq!(bench.hub.sessions.gauges(), (2, 1), "whose Close has not come yet");
}

#[test]
fn what_is_read_late_of_an_earlier_connection_takes_nothing_from_a_later_one() {
    let mut bench = Bench::new(&Config::default(), 2, 1000);
    let lost = bench.client(0, true);
    let [mut given_up, mut next, mut newest] = [1, 0, 1].map(|worker| bench.client(worker, true));
    next.resume(&lost.session).expect("the earlier one is taken over");
    assert_eq!(given_up.resume(&lost.session).err(), Some(RoomError::TakenOver));
    assert_eq!(lost.session.conn(), Some(next.at().0));
    let closed = bench.letters(0).into_iter().chain(bench.letters(1)).filter_map(|letter| {
        let Letter::Close { conn, reason } = letter else { return None };
        Some((conn, reason.code()))
    });
    assert_eq!(closed.collect::<Vec<_>>(), [(lost.at().0, CloseReason::TAKEN_OVER.code())]);
    newest.resume(&lost.session).expect("a duplicate takes over");
    assert_eq!(next.resume(&lost.session).err(), Some(RoomError::NotFresh));
    // Nobody has it, so nothing is taken from anybody.
    newest.lose();
    given_up.resume(&lost.session).expect("it waits for whoever comes");
}

#[test]
fn who_departs_waits_for_no_room() {
    for reason in [CloseReason::LOST, CloseReason::NORMAL] {
        let mut bench = Bench::new(&Config::default(), 1, 1000);
        let client = &mut bench.client(0, true);
        for pattern in ["p.*", "q.*", "p.q.*"] {
            client.subscribe(pattern).expect("a place");
        }
        assert_eq!(bench.hub.rooms.subscribers(), 2);
        bench.hub.depart(&client.session, client.at(), &reason);
        assert_eq!(bench.hub.rooms.subscribers(), 0, "{reason}");
    }
}

#[test]
fn a_resume_is_of_one_instant_in_all_rooms() {
    let mut bench = Bench::new(&Config::default(), 1, 1000);
    let mut client = bench.client(0, true);
    ["a", "b"].iter().for_each(|room| drop(client.join(room).expect("a place")));
    let rooms = ["a", "b"].map(|room| bench.hub.rooms.find(room).expect("it is there"));
    let by = bench.client(0, false);
    let hub = Arc::clone(&bench.hub);
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let rooms: Vec<&Room> = rooms.iter().map(AsRef::as_ref).collect();
            let by = Sender { session: &by.session, conn: by.conn() };
            while !is_over.load(Ordering::Relaxed) {
                // Refused while the mailbox is full.
                let _ = hub.publish_to_rooms(by, &rooms, &"x".into());
            }
        });
        // Also where this test fails, so that the thread ends.
        let seqs = (0..2000).map(|_| {
            client.lose();
            let mut again = bench.client(0, true);
            let resumed = again.resume(&client.session).expect("it waits");
            client = again;
            bench.letters(0);
            let seq = |of: &ResumedRoom| of.joined.as_ref().expect("it is in there").position.seq;
            resumed.rooms.iter().map(seq).collect::<Vec<_>>()
        });
        let torn = seqs.filter(|seqs| seqs.len() != 2 || seqs[0] != seqs[1]).count();
        is_over.store(true, Ordering::Relaxed);
        assert_eq!(torn, 0, "a message was in one room's past, and in the other's future");
    });
    assert!(rooms[0].state.lock().history.position().seq > 0, "nothing was published");
}
