//! Pools of sessions against real servers, over connections that are cut, stalled and refused.

#![allow(clippy::unwrap_used, reason = "a test that unwraps fails with a clear message")]

mod support;
#[path = "support/proxy.rs"]
mod proxy;

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use proxy::Proxy;
use rusty_socks::Config;
use rusty_socks_client::{
    ErrorKind, Pool, PoolBuilder, PublishOptions, Receipt, RoomEvent, Session, SessionBuilder,
    SessionHealth, Subscription,
};
use support::{DEADLINE, Random, TestServer, eventually};

/// For what must not happen.
const A_WHILE: Duration = Duration::from_millis(150);

/// As in life: who is away for a moment is not gone. Readers are told all.
fn config() -> Config {
    Config {
        resume_window: Duration::from_secs(60),
        max_errors: 1000,
        history: 10_000,
        history_bytes: 16 << 20,
        ..support::config()
    }
}

fn url(server: &TestServer) -> String {
    format!("ws://{}/ws", server.addr)
}

/// A pool whose publishes have as long as a test waits.
fn pool() -> PoolBuilder {
    Pool::builder().publish_timeout(DEADLINE).sessions(1)
}

fn reader(server: &TestServer) -> Session {
    let settings = Session::builder().without_events().subscription_events_max(100_000);
    settings.connect(&url(server)).unwrap()
}

fn soon() -> Instant {
    Instant::now() + A_WHILE
}

fn content(heard: &Subscription) -> String {
    match heard.recv_timeout(DEADLINE).unwrap() {
        Some(RoomEvent::Message(message)) => message.content().unwrap(),
        other => panic!("{other:?}"),
    }
}

/// That nothing more comes.
fn silence(heard: &Subscription) {
    let error = heard.recv_timeout(A_WHILE).unwrap_err();
    assert!(error.is_timeout(), "{error}");
}

/// The kind of the error that a ticket has in the end.
fn failure(ticket: &rusty_socks_client::Ticket<Receipt>) -> ErrorKind {
    ticket.wait(DEADLINE).unwrap_err().kind()
}

fn later(pool: &Pool, room: &str, content: &str) -> rusty_socks_client::Ticket<Receipt> {
    pool.publish_later(room, content, PublishOptions::default()).unwrap()
}

fn await_connected(pool: &Pool, count: usize) {
    eventually("so many sessions are connected", || {
        let stats = pool.stats();
        let is_up = |of: &&rusty_socks_client::SessionStats| of.health == SessionHealth::Connected;
        let up = stats.sessions.iter().filter(is_up).count();
        if up == count { Ok(()) } else { Err(format!("{stats:?}")) }
    });
}

#[test]
fn messages_get_there_and_rooms_are_spread_over_the_sessions() {
    const ROOMS: usize = 40;
    let server = TestServer::start(config());
    let pool = pool().server(url(&server)).sessions(4).connect().unwrap();
    await_connected(&pool, 4);
    let reader = reader(&server);
    let heard = reader.room("tea").subscribe().unwrap();
    let receipt = pool.publish("tea", "one").unwrap();
    assert_eq!((&*receipt.room, receipt.seq, receipt.repeated), ("tea", 1, false));
    let options = PublishOptions::default().id("67e55044-10b1-426f-9247-bb680e5fe0c8");
    let receipt = pool.publish_with("tea", "two", options).unwrap();
    assert_eq!(receipt.id, "67e55044-10b1-426f-9247-bb680e5fe0c8");
    assert_eq!([content(&heard), content(&heard)], ["one", "two"]);
    assert_eq!(pool.publish("lobby", "three").unwrap().seq, 1, "it is in no room by itself");

    let all = (0..ROOMS * 5).map(|number| (format!("room {}", number % ROOMS), number));
    let receipts: Vec<Receipt> = pool.publish_all(all).into_iter().map(Result::unwrap).collect();
    for (number, receipt) in receipts.iter().enumerate() {
        assert_eq!(receipt.room, format!("room {}", number % ROOMS), "in the order of the calls");
        assert_eq!(receipt.seq as usize, number / ROOMS + 1, "a room has one session");
    }
    let stats = pool.stats();
    let published: Vec<u64> = stats.sessions.iter().map(|session| session.published).collect();
    assert_eq!(published.iter().sum::<u64>() as usize, 3 + 5 * ROOMS);
    assert!(published.iter().all(|count| *count > 0), "{published:?}");
    assert_eq!(stats.sessions.iter().map(|session| session.rooms).sum::<usize>(), ROOMS + 2);
    assert_eq!((stats.unanswered, stats.unanswered_bytes), (0, 0));
    let failed: u64 = stats.sessions.iter().map(|of| of.failed + of.reconnects).sum();
    assert_eq!((failed, &*stats.sessions[0].server), (0, &*url(&server)));
    pool.close(DEADLINE).unwrap();
    drop((heard, reader));
    server.wait_until_empty();
}

/// Connections are cut all the time, while several threads publish over them.
#[test]
fn over_a_bad_network_everything_is_published_once_and_in_order() {
    const EACH: usize = 120;
    const CALLERS: usize = 4;
    const CUTS: usize = 8;
    let server = TestServer::start(config());
    let proxies = [(); 2].map(|()| Proxy::start(server.addr));
    let urls = proxies.each_ref().map(Proxy::url);
    // They lead to one server, so either will do; and order outlives every cut.
    let pool = pool().server(&urls[0]).server(&urls[1]).servers_share_redis(true).sessions(3);
    let pool = pool.move_after(DEADLINE).connect().unwrap();
    let reader = reader(&server);
    let heard = ["a", "b"].map(|room| reader.room(room).subscribe().unwrap());
    let mut random = Random::seeded();
    thread::scope(|scope| {
        let publish = |caller: usize| {
            let pool = pool.clone();
            move || {
                let publish = |number: usize| {
                    // Spread over the time of the cuts.
                    thread::sleep(Duration::from_millis(4));
                    later(&pool, ["a", "b"][number % 2], &format!("{caller} {number}"))
                };
                let tickets: Vec<_> = (0..EACH).map(publish).collect();
                for ticket in tickets {
                    ticket.wait(DEADLINE).unwrap();
                }
            }
        };
        let callers: Vec<_> = (0..CALLERS).map(|caller| scope.spawn(publish(caller))).collect();
        for _ in 0..CUTS {
            // What is cut is not an instant but whatever is under way then.
            thread::sleep(Duration::from_millis(20 + random.below(60) as u64));
            let proxy = &proxies[random.below(2)];
            // Answers that are on their way are lost.
            proxy.stall(true);
            // So many as come in such a time.
            thread::sleep(Duration::from_millis(random.below(20) as u64));
            proxy.cut(random.below(2) == 0);
            proxy.stall(false);
        }
        callers.into_iter().for_each(|caller| caller.join().unwrap());
    });
    for (room, heard) in heard.iter().enumerate() {
        let mut last = BTreeMap::new();
        for _ in 0..CALLERS * EACH / 2 {
            let content = content(heard);
            let (caller, number) = content.split_once(' ').unwrap();
            let number: usize = number.parse().unwrap();
            let before = last.insert(caller.to_owned(), number);
            let expected = before.map_or(room, |before: usize| before + 2);
            assert_eq!(number, expected, "of {caller}: once, and in order");
        }
        silence(heard);
    }
    let stats = pool.stats();
    assert!(stats.sessions.iter().map(|session| session.reconnects).sum::<u64>() > 0, "{stats:?}");
    pool.close(DEADLINE).unwrap();
}

#[test]
fn one_of_two_servers_may_be_gone() {
    const ROOMS: usize = 20;
    let servers = [(); 2].map(|()| TestServer::start(config()));
    let proxies = servers.each_ref().map(|server| Proxy::start(server.addr));
    let pool = pool().server(proxies[0].url()).server(proxies[1].url());
    let pool = pool.move_after(Duration::ZERO).connect().unwrap();
    await_connected(&pool, 2);
    let all = || (0..ROOMS).map(|number| (format!("room {number}"), number));
    let publish = || pool.publish_all(all()).into_iter().filter_map(Result::ok).count();
    assert_eq!(publish(), ROOMS);
    let before = pool.stats().sessions;
    assert!(before.iter().all(|session| session.published > 0), "{before:?}");
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let [first, _second] = servers;
    proxies[0].lead_to(nobody);
    proxies[0].cut(true);
    drop(first);
    await_connected(&pool, 1);
    assert_eq!(publish(), ROOMS);
    let after = pool.stats().sessions;
    assert_eq!(after[0].published, before[0].published);
    assert_eq!(after[1].published, before[1].published + ROOMS as u64);
    assert_eq!(after[0].health, SessionHealth::Disconnected);
    assert!(after[0].last_error.is_some() && after[0].unanswered == 0, "{after:?}");
    // What comes back takes new rooms again.
    let server = TestServer::start(config());
    proxies[0].lead_to(server.addr);
    await_connected(&pool, 2);
    let more = (0..ROOMS).map(|number| (format!("new {number}"), number));
    assert!(pool.publish_all(more).iter().all(Result::is_ok));
    let last = pool.stats().sessions;
    assert!(last[0].published > before[0].published && last[0].reconnects == 1, "{last:?}");
}

/// While what was sent by a session is unanswered, what follows waits for it; for so long as one
/// has said, and then order gives way.
#[test]
fn a_room_moves_when_its_session_is_away_for_too_long() {
    let server = TestServer::start(config());
    let proxies = [(); 2].map(|()| Proxy::start(server.addr));
    let builder = pool().server(proxies[0].url()).server(proxies[1].url());
    let pool = builder.move_after(Duration::from_millis(300)).connect().unwrap();
    await_connected(&pool, 2);
    let reader = reader(&server);
    let heard = reader.room("tea").subscribe().unwrap();
    pool.publish("tea", "one").unwrap();
    let at = usize::from(pool.stats().sessions[1].published == 1);
    proxies[at].stall(true);
    let sent = later(&pool, "tea", "two");
    assert_eq!([content(&heard), content(&heard)], ["one", "two"]);
    // Nothing leads there for a while.
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    proxies[at].lead_to(nobody);
    proxies[at].cut(true);
    proxies[at].stall(false);
    await_connected(&pool, 1);
    let begin = Instant::now();
    assert_eq!(pool.publish("tea", "three").unwrap().seq, 3);
    assert!(begin.elapsed() >= A_WHILE, "it waits: {:?}", begin.elapsed());
    assert_eq!(pool.publish("cake", "other rooms do not").unwrap().seq, 1);
    assert!(sent.wait(A_WHILE).unwrap_err().is_timeout(), "nobody knows yet");
    proxies[at].lead_to(server.addr);
    let receipt = sent.wait(DEADLINE).unwrap();
    assert_eq!((receipt.seq, receipt.repeated), (2, true));
    assert_eq!(content(&heard), "three");
    silence(&heard);
}

#[test]
fn a_session_that_is_lost_leaves_what_it_sent_unknown_and_never_repeats_it() {
    // Nothing is kept: neither the session nor the messages, in which one could see.
    let server = TestServer::start(Config {
        resume_window: Duration::ZERO,
        history: 0,
        replay: 0,
        ..config()
    });
    let proxy = Proxy::start(server.addr);
    let pool = pool().server(proxy.url()).connect().unwrap();
    let reader = reader(&server);
    let heard = reader.room("tea").subscribe().unwrap();
    pool.publish("tea", "before").unwrap();
    proxy.stall(true);
    let sent = later(&pool, "tea", "sent");
    assert_eq!([content(&heard), content(&heard)], ["before", "sent"]);
    proxy.cut(true);
    proxy.stall(false);
    let error = sent.wait(DEADLINE).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unknown, "{error}");
    assert!(error.to_string().contains("may or may not be published"), "{error}");
    pool.publish("tea", "after").unwrap();
    assert_eq!(content(&heard), "after", "not again");
    silence(&heard);
    assert_eq!(pool.stats().sessions[0].failed, 1);
}

#[test]
fn what_is_found_in_the_history_was_published() {
    let server = TestServer::start(Config { resume_window: Duration::ZERO, ..config() });
    let proxy = Proxy::start(server.addr);
    let pool = pool().server(proxy.url()).connect().unwrap();
    pool.publish("tea", "before").unwrap();
    let reader = reader(&server);
    let heard = reader.room("tea").subscribe().unwrap();
    proxy.stall(true);
    let sent = later(&pool, "tea", "sent");
    assert_eq!(content(&heard), "sent");
    proxy.cut(true);
    proxy.stall(false);
    let receipt = sent.wait(DEADLINE).unwrap();
    assert_eq!((receipt.seq, receipt.repeated), (2, true));
    silence(&heard);
}

#[test]
fn a_full_server_is_passed_over_and_waited_for() {
    let full = TestServer::start(Config { max_conn: 1, max_queued_tasks: 0, ..config() });
    let taken = full.chat();
    let error = pool().server(url(&full)).connect().unwrap_err();
    assert_eq!(error.refused().map(|refused| refused.status), Some(503), "{error}");

    let other = TestServer::start(config());
    let pool = pool().server(url(&full)).server(url(&other)).connect().unwrap();
    for number in 0..10 {
        pool.publish(&format!("room {number}"), &number).unwrap();
    }
    let stats = pool.stats();
    assert_eq!((stats.sessions[0].published, stats.sessions[1].published), (0, 10));
    eventually("it says why", || match &pool.stats().sessions[0].last_error {
        Some(error) if error.refused().is_some() => Ok(()),
        other => Err(format!("{other:?}")),
    });
    drop(taken);
    await_connected(&pool, 2);
}

#[test]
fn nobody_there_is_an_error_or_waited_for() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    drop(listener);
    let nobody = format!("ws://{addr}/ws");
    let error = pool().server(&nobody).connect().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unreachable, "{error}");
    assert_eq!(Pool::builder().connect().unwrap_err().kind(), ErrorKind::InvalidInput);
    assert_eq!(
        pool().server("ftp://localhost").connect().unwrap_err().kind(),
        ErrorKind::InvalidInput
    );

    let server = TestServer::start(config());
    let proxy = Proxy::start(addr);
    let pool = pool().server(proxy.url()).patient().connect().unwrap();
    let error = pool.publish_by(soon(), "tea", "early", PublishOptions::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout, "surely not published: {error}");
    let ticket = later(&pool, "tea", "patient");
    proxy.lead_to(server.addr);
    assert_eq!(ticket.wait(DEADLINE).unwrap().seq, 1, "the early one never comes");
}

#[test]
fn what_the_server_refuses_fails_alone() {
    let server = TestServer::start(Config { max_rooms_per_conn: 2, ..config() });
    let pool = pool().server(url(&server)).rooms_max(99).connect().unwrap();
    // One place is the default room's until it is left.
    let reader = reader(&server);
    eventually("the default room is left", || match reader.presence("lobby").unwrap().count {
        1 => Ok(()),
        other => Err(other.to_string()),
    });
    for room in ["tea", "cake"] {
        pool.publish(room, "one").unwrap();
    }
    let error = pool.publish("jam", "one too many").unwrap_err();
    assert_eq!((error.kind(), error.code()), (ErrorKind::Rejected, Some("limit_exceeded")));
    let error = pool.publish("tea", &"x".repeat(100_000)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    let error = pool.publish("no\nname", "?").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Rejected, "{error}");
    let bad_id = PublishOptions::default().id("no id");
    let error = pool.publish_with("tea", "?", bad_id).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    assert_eq!(pool.publish("tea", "two").unwrap().seq, 2, "and it goes on");
    let stats = pool.stats();
    assert_eq!((stats.sessions[0].published, stats.sessions[0].failed), (3, 3), "{stats:?}");
    assert_eq!((stats.unanswered, stats.sessions[0].rooms), (0, 2));
}

#[test]
fn of_many_rooms_those_not_used_for_longest_are_left() {
    const ROOMS: usize = 12;
    let server = TestServer::start(Config { max_rooms_per_conn: 4, ..config() });
    let pool = pool().server(url(&server)).rooms_max(3).connect().unwrap();
    let all = || (0..3 * ROOMS).map(|number| (format!("room {}", number % ROOMS), number));
    for _ in 0..2 {
        // A room that its only member has left may begin anew, so the numbers say nothing.
        for (number, receipt) in pool.publish_all(all()).into_iter().enumerate() {
            assert_eq!(receipt.unwrap().room, format!("room {}", number % ROOMS));
        }
        assert_eq!(pool.stats().sessions[0].rooms, 3);
    }
    let reader = reader(&server);
    eventually("the others are left", || {
        let in_them = (0..ROOMS).filter(|number| {
            let room = reader.room(format!("room {number}"));
            let heard = room.subscribe().unwrap();
            let count = room.presence().unwrap().count;
            drop(heard);
            count == 2
        });
        match in_them.count() {
            3 => Ok(()),
            other => Err(other.to_string()),
        }
    });
}

#[test]
fn bounds_hold_and_are_waited_for() {
    let server = TestServer::start(config());
    let proxy = Proxy::start(server.addr);
    // A string of eight letters is ten bytes of JSON.
    let pool = pool().server(proxy.url()).unanswered_max(3, 30).connect().unwrap();
    pool.publish("tea", "12345678").unwrap();
    proxy.stall(true);
    let by_bytes = [later(&pool, "tea", "12345678"), later(&pool, "tea", "12345678")];
    let begin = Instant::now();
    let refused = |content: &str| {
        pool.publish_by(soon(), "tea", content, PublishOptions::default()).unwrap_err()
    };
    let error = refused("123456789");
    assert_eq!(error.kind(), ErrorKind::Full, "{error}");
    assert!(begin.elapsed() >= A_WHILE, "it waits until its deadline");
    assert!(error.to_string().contains("2 publishes of 20 bytes"), "{error}");
    let last = later(&pool, "tea", "1");
    assert_eq!(refused("1").kind(), ErrorKind::Full);
    let stats = pool.stats();
    assert_eq!((stats.unanswered, stats.unanswered_bytes), (3, 23));
    assert_eq!(stats.sessions[0].unanswered, 3);
    thread::scope(|scope| {
        let waits = scope.spawn(|| pool.publish("tea", "and now"));
        proxy.stall(false);
        assert_eq!(waits.join().unwrap().unwrap().seq, 5, "there was room in time");
    });
    for ticket in by_bytes.iter().chain([&last]) {
        ticket.wait(DEADLINE).unwrap();
    }
    assert_eq!(pool.publish("tea", &"x".repeat(1000)).unwrap().seq, 6, "one always fits");
}

#[test]
fn at_its_deadline_a_publish_is_surely_not_published_or_unknown() {
    let server = TestServer::start(config());
    let proxy = Proxy::start(server.addr);
    let session = SessionBuilder::default().in_flight_max(1);
    let pool = pool().server(proxy.url()).session(session).connect().unwrap();
    let reader = reader(&server);
    let heard = reader.room("tea").subscribe().unwrap();
    pool.publish("tea", "before").unwrap();
    proxy.stall(true);
    thread::scope(|scope| {
        let until = Instant::now() + 3 * A_WHILE;
        let publish = |content: &'static str| {
            let pool = pool.clone();
            move || pool.publish_by(until, "tea", content, PublishOptions::default())
        };
        let sent = scope.spawn(publish("sent"));
        assert_eq!([content(&heard), content(&heard)], ["before", "sent"]);
        let waits = scope.spawn(publish("waits"));
        assert_eq!(sent.join().unwrap().unwrap_err().kind(), ErrorKind::Unknown);
        assert_eq!(waits.join().unwrap().unwrap_err().kind(), ErrorKind::Timeout);
    });
    assert_eq!(pool.stats().unanswered, 0);
    // Neither is sent when the session is back.
    proxy.cut(true);
    proxy.stall(false);
    pool.publish("tea", "after").unwrap();
    assert_eq!(content(&heard), "after");
    silence(&heard);
}

#[test]
fn a_close_waits_for_what_is_unanswered_and_holds_for_all() {
    let server = TestServer::start(config());
    let pool = pool().server(url(&server)).sessions(2).connect().unwrap();
    let tickets: Vec<_> =
        (0..200).map(|number| later(&pool, &format!("room {}", number % 7), "x")).collect();
    let other = pool.clone();
    thread::scope(|scope| {
        let closing = [(); 2].map(|()| scope.spawn(|| other.close(DEADLINE)));
        closing.into_iter().for_each(|closing| closing.join().unwrap().unwrap());
    });
    for ticket in tickets {
        ticket.wait(Duration::ZERO).unwrap();
    }
    let error = pool.publish("tea", "late").unwrap_err();
    assert_eq!(
        (error.kind(), error.to_string().as_str()),
        (ErrorKind::Closed, "the pool is closed")
    );
    pool.close(Duration::ZERO).unwrap();
    assert_eq!(pool.stats().sessions.iter().map(|session| session.published).sum::<u64>(), 200);
    server.wait_until_empty();
}

#[test]
fn a_close_has_a_deadline() {
    let server = TestServer::start(config());
    let proxy = Proxy::start(server.addr);
    let session = SessionBuilder::default().in_flight_max(1);
    let pool = pool().server(proxy.url()).session(session).connect().unwrap();
    pool.publish("tea", "before").unwrap();
    proxy.stall(true);
    let (sent, waits) = (later(&pool, "tea", "sent"), later(&pool, "tea", "waits"));
    eventually("it is sent", || {
        let reader = reader(&server);
        let heard = reader.room("tea").subscribe().unwrap();
        let seq = heard.entered().position.as_ref().unwrap().seq;
        if seq == 2 { Ok(()) } else { Err(seq.to_string()) }
    });
    let error = pool.close(A_WHILE).unwrap_err();
    assert!(error.is_timeout() && error.to_string().starts_with("2 publishes"), "{error}");
    assert!(pool.close(DEADLINE).unwrap_err().is_timeout(), "the same again");
    assert_eq!((failure(&sent), failure(&waits)), (ErrorKind::Unknown, ErrorKind::Closed));
}

#[test]
fn what_is_under_way_outlives_the_handles() {
    let server = TestServer::start(config());
    let pool = pool().server(url(&server)).connect().unwrap();
    let tickets: Vec<_> = (0..100).map(|_| later(&pool, "tea", "x")).collect();
    drop(pool);
    let seqs: BTreeSet<u64> =
        tickets.iter().map(|ticket| ticket.wait(DEADLINE).unwrap().seq).collect();
    assert_eq!(seqs, (1..=100).collect());
    server.wait_until_empty();
}

/// A client that the server does not want at all is told so, and does not wait.
#[test]
fn when_all_sessions_have_ended_publishes_fail_at_once_with_the_reason() {
    let server = TestServer::start(config());
    let proxy = Proxy::start(server.addr);
    let pool = pool().server(proxy.url()).connect().unwrap();
    pool.publish("tea", "one").unwrap();
    proxy.refuse_next("HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n");
    proxy.cut(true);
    eventually("it has ended", || match pool.stats().sessions[0].health {
        SessionHealth::Over => Ok(()),
        other => Err(format!("{other:?}")),
    });
    let error = pool.publish("tea", "two").unwrap_err();
    assert_eq!(error.refused().map(|refused| refused.status), Some(401), "{error}");
    pool.close(DEADLINE).unwrap();
}

#[test]
fn what_makes_no_sense_fails_alone_and_sends_nothing() {
    let server = TestServer::start(config());
    let other = Session::builder().other_node("ws://127.0.0.1:1/ws").requests_max(usize::MAX);
    let pool = pool().server(url(&server)).server(url(&server)).sessions(0).session(other);
    let pool = pool.rooms_max(usize::MAX).unanswered_max(0, 0).connect().unwrap();
    await_connected(&pool, 2);
    let servers = pool.stats().sessions.into_iter().map(|session| session.server);
    assert!(servers.eq([url(&server), url(&server)]), "one named twice is two");
    let reader = reader(&server);
    let heard = reader.room("tea").subscribe().unwrap();
    pool.publish("tea", "one").unwrap();
    assert_eq!(content(&heard), "one");
    // It would be joined, and everything in its rooms sent here for nothing.
    let error = pool.publish("tea.*", "?").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    for _ in 0..200 {
        let options = PublishOptions::default();
        let error = pool.publish_by(Instant::now(), "tea", "late", options).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    }
    assert_eq!(pool.publish("tea", "two").unwrap().seq, 2);
    assert_eq!(content(&heard), "two");
    let stats = pool.stats();
    let rooms: usize = stats.sessions.iter().map(|session| session.rooms).sum();
    assert_eq!((stats.unanswered, rooms), (0, 1), "{stats:?}");
}

/// The function is the caller's, and is called on the session's thread.
#[test]
fn a_token_provider_that_panics_ends_its_session_and_nothing_else() {
    let server = TestServer::start(config());
    let proxy = Proxy::start(server.addr);
    let is_broken = Arc::new(AtomicBool::new(true));
    let provide = {
        let is_broken = Arc::clone(&is_broken);
        move || {
            assert!(!is_broken.load(Ordering::SeqCst), "a mistake of the caller's");
            Ok::<_, Infallible>("token".to_owned())
        }
    };
    let settings = Session::builder().token_provider(provide);
    let session = settings.clone().patient().connect(&proxy.url()).unwrap();
    let error = session.recv_timeout(DEADLINE).unwrap_err();
    assert!(session.is_over() && error.to_string().contains("panicked"), "{error}");
    session.close().unwrap();

    let pool = pool().server(proxy.url()).session(settings).replace_after(2 * A_WHILE);
    let error = pool.connect().unwrap_err();
    assert!(error.to_string().contains("panicked"), "{error}");
    is_broken.store(false, Ordering::SeqCst);
    let pool = pool.connect().unwrap();
    pool.publish("tea", "one").unwrap();
    is_broken.store(true, Ordering::SeqCst);
    proxy.cut(true);
    eventually("it has ended", || match pool.stats().sessions[0].health {
        SessionHealth::Over => Ok(()),
        other => Err(format!("{other:?}")),
    });
    let error = pool.publish("tea", "two").unwrap_err();
    assert!(error.to_string().contains("panicked"), "{error}");
    is_broken.store(false, Ordering::SeqCst);
    await_connected(&pool, 1);
    pool.publish("tea", "three").unwrap();
    pool.close(DEADLINE).unwrap();
}

#[test]
fn another_session_takes_the_place_of_one_that_has_ended() {
    let server = TestServer::start(config());
    let proxy = Proxy::start(server.addr);
    let pool = pool().server(proxy.url()).replace_after(2 * A_WHILE).connect().unwrap();
    pool.publish("tea", "one").unwrap();
    // It ends with the first, and the first that takes its place with the second.
    for _ in 0..2 {
        proxy.refuse_next("HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n");
    }
    let begin = Instant::now();
    proxy.cut(true);
    eventually("another has taken its place", || match &pool.stats().sessions[0] {
        session if session.reconnects > 0 => Ok(()),
        other => Err(format!("{other:?}")),
    });
    assert!(begin.elapsed() >= 4 * A_WHILE, "it is early: {:?}", begin.elapsed());
    assert_eq!(pool.publish("tea", "two").unwrap().room, "tea", "the room is joined anew");
    let session = &pool.stats().sessions[0];
    assert_eq!((session.published, session.rooms, session.reconnects), (2, 1, 1), "{session:?}");
    assert_eq!(session.last_error.as_ref().unwrap().refused().unwrap().status, 401);
    pool.close(DEADLINE).unwrap();
}

/// A server that has taken a session out of a room says so when something is published there; why,
/// it says when asked to let it in again.
#[test]
fn a_room_that_the_session_was_taken_out_of_is_joined_again() {
    const EACH: usize = 10;
    let server = TestServer::start(config());
    let proxy = Proxy::start(server.addr);
    let pool = pool().server(proxy.url()).connect().unwrap();
    for room in ["a", "b"] {
        pool.publish(room, "one").unwrap();
    }
    drop(server);
    // Another one, which lets nobody be in so many rooms.
    let server = TestServer::start(Config { max_rooms_per_conn: 1, ..config() });
    proxy.lead_to(server.addr);
    proxy.cut(true);
    eventually("it is there", || match pool.stats().sessions[0].reconnects {
        0 => Err(format!("{:?}", pool.stats())),
        _ => Ok(()),
    });
    let all = (0..2 * EACH).map(|number| (["a", "b"][number % 2], number));
    let mut codes = BTreeMap::new();
    for result in pool.publish_all(all) {
        let code = result.err().map(|error| error.code().unwrap_or("none").to_owned());
        *codes.entry(code).or_insert(0) += 1;
    }
    let expected = [(None, EACH), (Some("limit_exceeded".to_owned()), EACH)];
    assert_eq!(codes, BTreeMap::from(expected));
    assert_eq!(pool.stats().sessions[0].rooms, 1);
}
