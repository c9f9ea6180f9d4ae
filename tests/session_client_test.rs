//! The session client against the real server, over connections that are cut, reset, stalled and
//! refused.

#![allow(clippy::unwrap_used, reason = "a test that unwraps fails with a clear message")]

mod support;
#[path = "support/proxy.rs"]
mod proxy;

use std::{
    collections::BTreeSet,
    net::TcpListener,
    thread,
    time::{Duration, Instant},
};

use proxy::Proxy;
use rusty_socks::{
    CloseReason, Config, Publication,
    config::{Overflow, RoomRule},
};
use rusty_socks_client::{
    Client, ErrorKind, Event, JoinOptions, Pages, Position, PublishOptions, RoomMessage, Session,
};
use serde_json::{Value, json};
use support::{DEADLINE, Random, TestServer, eventually};

/// For what must not happen.
const A_WHILE: Duration = Duration::from_millis(150);

/// As in life: who is away for a moment is not gone.
fn config() -> Config {
    Config { resume_window: Duration::from_secs(60), ..support::config() }
}

fn url(server: &TestServer) -> String {
    format!("ws://{}/ws", server.addr)
}

fn session(url: &str) -> Session {
    Session::builder().default_room(false).connect(url).unwrap()
}

/// The next event that `pick` wants; others are passed over.
fn wait_for<T>(session: &Session, what: &str, mut pick: impl FnMut(&Event) -> Option<T>) -> T {
    let end = Instant::now() + DEADLINE;
    loop {
        let event = session.recv_timeout(end.saturating_duration_since(Instant::now()));
        let event = event.unwrap_or_else(|error| panic!("no {what}: {error}"));
        let event = event.unwrap_or_else(|| panic!("no {what}: it is over"));
        println!("{event:?}");
        if let Some(picked) = pick(&event) {
            return picked;
        }
    }
}

fn message(session: &Session) -> RoomMessage {
    wait_for(session, "message", |event| match event {
        Event::Message(message) => Some(message.clone()),
        Event::Lost { .. } => panic!("{event:?}"),
        _ => None,
    })
}

fn connected(session: &Session) -> (String, bool) {
    wait_for(session, "connection", |event| match event {
        Event::Connected { client_id, resumed } => Some((client_id.clone(), *resumed)),
        _ => None,
    })
}

/// That no message comes.
fn silence(session: &Session) {
    let end = Instant::now() + A_WHILE;
    while let Ok(event) = session.recv_timeout(end.saturating_duration_since(Instant::now())) {
        assert!(!matches!(event, Some(Event::Message(_) | Event::Lost { .. })), "{event:?}");
    }
}

#[test]
fn what_one_publishes_the_other_gets_byte_for_byte() {
    let server = TestServer::start(config());
    let (anna, ben) = (session(&url(&server)), session(&url(&server)));
    for session in [&anna, &ben] {
        let entered = session.join("tea").unwrap();
        assert_eq!((entered.room.as_str(), entered.position.unwrap().seq), ("tea", 0));
    }
    let content = serde_json::value::RawValue::from_string("{ \"a\" :1.0}".into()).unwrap();
    let options = PublishOptions::default().sender("anna");
    let receipt = anna.publish_with("tea", &content, options).unwrap();
    assert_eq!((receipt.room.as_str(), receipt.seq, receipt.repeated), ("tea", 1, false));
    let got = message(&ben);
    assert_eq!((got.seq, &got.id, got.content.get()), (1, &receipt.id, "{ \"a\" :1.0}"));
    assert_eq!(got.sender.as_deref(), Some("anna"));

    ben.publish("tea", &json!(["any", 1])).unwrap();
    assert_eq!(message(&anna).content::<Value>().unwrap(), json!(["any", 1]));
    let page = ben.history("tea", Pages::Latest, Some(10)).unwrap();
    assert_eq!(page.messages.iter().map(|one| one.seq).collect::<Vec<_>>(), [1, 2]);
    let page = ben.history("tea", Pages::Before(2), None).unwrap();
    assert_eq!((page.messages.len(), page.position.seq), (1, 2));

    let error = ben.publish("coffee", "?").unwrap_err();
    assert_eq!((error.kind(), error.code()), (ErrorKind::Rejected, Some("not_member")));
    let error = ben.publish("tea", &"x".repeat(100_000)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "and it is still there: {error}");
    ben.leave("tea").unwrap();
    assert_eq!(ben.publish("tea", "?").unwrap_err().code(), Some("not_member"));

    anna.close().unwrap();
    wait_until_over(&anna);
    assert_eq!(anna.publish("tea", "?").unwrap_err().kind(), ErrorKind::Closed);
    ben.close().unwrap();
    server.wait_until_empty();
}

/// The shipped server refuses half of a surrogate pair from clients; a program that embeds it, or
/// another server, may pass it on.
#[test]
fn half_of_a_surrogate_pair_hides_no_message() {
    let server = TestServer::start(config());
    let ben = session(&url(&server));
    ben.join("tea").unwrap();
    let head = r#"{"type":"message","room":"tea","seq":"#;
    let tail = concat!(
        r#","id":"67e55044-10b1-426f-9247-bb680e5fe0c8","sender":"a\ud800","content":"\udc00!","#,
        r#""timestamp":"2026-11-21T07:29:01.771Z","#,
        r#""client_id":"3e0f6fb9-34e0-4280-bdc5-d6664a6d83f9"}"#,
    );
    server.handle.publish("tea", Publication::around_seq(head, tail)).unwrap();
    let message = message(&ben);
    assert_eq!(message.sender.as_deref(), Some("a\u{fffd}"));
    assert_eq!(message.content.get(), r#""\udc00!""#);
    assert!(message.content::<String>().is_err(), "that is no Rust text");
    let page = ben.history("tea", Pages::Latest, None).unwrap();
    assert_eq!(page.messages[0].sender.as_deref(), Some("a\u{fffd}"));
    ben.close().unwrap();
}

fn wait_until_over(session: &Session) {
    while session.recv_timeout(DEADLINE).unwrap().is_some() {}
}

#[test]
fn the_default_room_greets_and_echoes_come_back() {
    let server = TestServer::start(config());
    let anna = Session::connect(&url(&server)).unwrap();
    for number in 1..=3 {
        anna.publish("lobby", &number).unwrap();
    }
    let ben = Session::connect(&url(&server)).unwrap();
    for number in 1..=3 {
        assert_eq!(message(&ben).content::<u64>().unwrap(), number);
    }
    assert_eq!(ben.join("lobby").unwrap().position.unwrap().seq, 3, "one is in it already");
    let receipt = ben.publish_with("lobby", "me", PublishOptions::default().echo()).unwrap();
    assert_eq!(message(&ben).id, receipt.id);
    assert_eq!(message(&anna).id, receipt.id);
    silence(&anna);
    silence(&ben);
}

#[test]
fn a_lost_connection_is_resumed_and_nothing_is_missed_or_repeated() {
    let server = TestServer::start(config());
    let proxy = Proxy::start(server.addr);
    let (anna, ben) = (session(&url(&server)), session(&proxy.url()));
    anna.join("tea").unwrap();
    ben.join("tea").unwrap();
    let (id, _) = connected(&ben);
    ben.publish_with("tea", "echo", PublishOptions::default().echo()).unwrap();
    ben.publish("tea", "own").unwrap();
    assert_eq!(message(&ben).content.get(), "\"echo\"");
    for (round, by_reset) in [(0, false), (1, true), (2, false)] {
        anna.publish("tea", &(10 * round)).unwrap();
        proxy.stall(true);
        anna.publish("tea", &(10 * round + 1)).unwrap();
        proxy.cut(by_reset);
        proxy.stall(false);
        anna.publish("tea", &(10 * round + 2)).unwrap();
        // Both in one go: the publish waits until the session is there again.
        ben.publish("tea", "meanwhile").unwrap();
        for number in 0..3 {
            assert_eq!(message(&ben).content::<u64>().unwrap(), 10 * round + number);
        }
    }
    proxy.cut(false);
    assert_eq!(connected(&ben), (id, true));
    silence(&ben);
    assert_eq!(anna.presence("tea").unwrap().count, 2);
}

/// Connections are cut all the time; several threads publish over them, and one watches
/// undisturbed.
#[test]
fn over_a_bad_network_everything_is_published_once_and_received_once_in_order() {
    const EACH: usize = 150;
    const CUTS: usize = 6;
    let server = TestServer::start(Config {
        history: 1000,
        history_bytes: 1 << 20,
        max_errors: 1000,
        ..config()
    });
    let proxy = Proxy::start(server.addr);
    let (steady, shaky) = (session(&url(&server)), session(&proxy.url()));
    for session in [&steady, &shaky] {
        session.join("a").unwrap();
        session.join("b").unwrap();
    }
    let mut random = Random::seeded();
    thread::scope(|scope| {
        let cutter = scope.spawn(|| {
            for cut in 1..=CUTS {
                eventually("it is back", || match proxy.came() {
                    came if came >= cut => Ok(()),
                    came => Err(came.to_string()),
                });
                // What is cut is not an instant but whatever is under way then.
                thread::sleep(Duration::from_millis(5 + random.below(60) as u64));
                proxy.cut(random.below(2) == 0);
            }
        });
        let publish = |session: &Session, from: usize| {
            let session = session.clone();
            scope.spawn(move || {
                let publish = |number: usize| {
                    let rooms: &[&str] = [&["a"][..], &["b"], &["a", "b"]][number % 3];
                    let content = format!("{from}-{number}");
                    // Spread over the time of the cuts.
                    thread::sleep(Duration::from_millis(4));
                    session.publish_later(rooms, &content, PublishOptions::default()).unwrap()
                };
                let tickets: Vec<_> = (0..EACH).map(publish).collect();
                for ticket in tickets {
                    ticket.wait(DEADLINE).unwrap();
                }
            })
        };
        let publishers =
            [publish(&shaky, 0), publish(&shaky, 1), publish(&steady, 2), publish(&steady, 3)];
        for (session, expected) in [(&steady, [0, 1]), (&shaky, [2, 3])] {
            let mut seen = BTreeSet::new();
            let mut last = [0, 0];
            for _ in 0..2 * EACH {
                let got = message(session);
                assert!(seen.insert(got.content::<String>().unwrap()), "again: {got:?}");
                let places = match got.rooms.is_empty() {
                    true => vec![(got.room, got.seq)],
                    false => got.rooms,
                };
                for (room, seq) in places {
                    let last = &mut last[usize::from(room == "b")];
                    assert!(seq > *last, "{room} {seq} after {last}");
                    *last = seq;
                }
            }
            let wanted =
                expected.map(|from| (0..EACH).map(move |number| format!("{from}-{number}")));
            assert_eq!(seen, wanted.into_iter().flatten().collect());
        }
        for publisher in publishers {
            publisher.join().unwrap();
        }
        cutter.join().unwrap();
    });
    silence(&shaky);
    silence(&steady);
}

#[test]
fn after_the_window_the_session_is_lost_but_the_messages_are_not() {
    let server = TestServer::start(Config { resume_window: Duration::ZERO, ..config() });
    let proxy = Proxy::start(server.addr);
    let anna = session(&url(&server));
    let ben = Session::connect(&proxy.url()).unwrap();
    anna.join("lobby").unwrap();
    anna.join("tea").unwrap();
    ben.join("tea").unwrap();
    let (first, _) = connected(&ben);
    ben.publish("tea", "own").unwrap();
    proxy.stall(true);
    anna.publish("tea", "missed").unwrap();
    anna.publish("lobby", "missed too").unwrap();
    proxy.cut(true);
    proxy.stall(false);
    let second = wait_for(&ben, "loss of the session", |event| match event {
        Event::SessionLost { client_id } => Some(client_id.clone()),
        _ => None,
    });
    assert_ne!(first, second);
    let mut got = [message(&ben), message(&ben)].map(|got| got.room);
    got.sort();
    assert_eq!(got, ["lobby", "tea"]);
    anna.publish("tea", "live").unwrap();
    assert_eq!(message(&ben).content.get(), "\"live\"");
    ben.publish("lobby", "still here").unwrap();
    silence(&ben);
}

#[test]
fn after_a_restart_the_loss_is_told_and_life_goes_on() {
    let server = TestServer::start(config());
    let proxy = Proxy::start(server.addr);
    let ben = session(&proxy.url());
    ben.join_with("tea", JoinOptions::default().presence()).unwrap();
    ben.join("prices.*").unwrap();
    ben.publish("tea", "before").unwrap();
    drop(server);
    let server = TestServer::start(config());
    proxy.lead_to(server.addr);
    let is_loss =
        |event: &Event| matches!(event, Event::Lost { room, range: None } if room == "tea");
    wait_for(&ben, "loss", |event| is_loss(event).then_some(()));
    let anna = session(&url(&server));
    anna.join("tea").unwrap();
    let is_newcomer = |event: &Event| matches!(event, Event::Joined { room, .. } if room == "tea");
    wait_for(&ben, "somebody coming in", |event| is_newcomer(event).then_some(()));
    let receipt = anna.publish("tea", "after").unwrap();
    assert_eq!(message(&ben).id, receipt.id);
    anna.join("prices.eur").unwrap();
    anna.publish("prices.eur", &1).unwrap();
    assert_eq!(message(&ben).room, "prices.eur");
}

#[test]
fn who_takes_the_session_over_stops_the_other() {
    let server = TestServer::start(config());
    let proxy = Proxy::start(server.addr);
    let ben = session(&proxy.url());
    ben.join("tea").unwrap();
    let said = proxy.said();
    let token = said.split("\"session\":\"").nth(1).unwrap().split('"').next().unwrap();
    let thief = Client::connect(&url(&server)).unwrap();
    let resume = json!({"type": "resume", "session": token, "rooms": [], "ref": 1});
    thief.send(&resume.to_string()).unwrap();
    let error = loop {
        match ben.recv_timeout(DEADLINE) {
            Ok(Some(_)) => {}
            Ok(None) => panic!("nobody closed it here"),
            Err(error) => break error,
        }
    };
    assert_eq!(error.close_reason().map(CloseReason::code), Some(4010), "{error}");
    assert_eq!(ben.publish("tea", "?").unwrap_err().close_reason().unwrap().code(), 4010);
    assert_eq!(proxy.came(), 1, "it does not come back");
    ben.close().unwrap();
}

fn retry_in(session: &Session) -> Duration {
    wait_for(session, "rest", |event| match event {
        Event::Disconnected { retry_in, .. } => Some(*retry_in),
        _ => None,
    })
}

#[test]
fn a_drain_tells_when_to_come_back_and_is_believed() {
    let server = TestServer::start(config());
    let proxy = Proxy::start(server.addr);
    let ben = session(&proxy.url());
    let handle = server.handle.clone();
    handle.shutdown(DEADLINE);
    let told = wait_for(&ben, "closing", |event| match event {
        Event::Closing { reconnect_after, .. } => *reconnect_after,
        _ => None,
    });
    assert_eq!(retry_in(&ben), told);
    ben.close().unwrap();
}

#[test]
fn a_temporary_refusal_is_waited_for_and_a_403_is_final() {
    let server = TestServer::start(config());
    let proxy = Proxy::start(server.addr);
    let ben = session(&proxy.url());
    proxy.refuse_next("HTTP/1.1 503 Busy\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n");
    proxy.cut(false);
    assert!(retry_in(&ben) <= Duration::from_millis(250), "after the cut");
    let begin = Instant::now();
    let rest = retry_in(&ben);
    assert!(rest >= Duration::from_secs(1) && rest <= Duration::from_millis(1500), "{rest:?}");
    assert!(connected(&ben).1, "resumed: {}", proxy.said());
    assert!(begin.elapsed() >= rest);
    proxy.refuse_next("HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n");
    proxy.cut(false);
    let error = loop {
        match ben.recv_timeout(DEADLINE) {
            Ok(event) => assert!(event.is_some()),
            Err(error) => break error,
        }
    };
    assert_eq!(error.refused().unwrap().status, 403);
}

/// A request that was late, early or one too many says nothing about the next.
#[test]
fn a_408_a_425_and_a_429_are_waited_for_too() {
    let server = TestServer::start(config());
    thread::scope(|scope| {
        for status in ["408 Request Timeout", "425 Too Early", "429 Too Many Requests"] {
            let proxy = Proxy::start(server.addr);
            scope.spawn(move || {
                let ben = session(&proxy.url());
                let answer =
                    format!("HTTP/1.1 {status}\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n");
                proxy.refuse_next(&answer);
                proxy.cut(false);
                assert!(retry_in(&ben) < Duration::from_secs(1), "{status}: after the cut");
                assert!(retry_in(&ben) >= Duration::from_secs(1), "{status}");
                assert!(connected(&ben).1, "{status}");
            });
        }
    });
}

#[test]
fn the_first_attempt_tells_its_failure_unless_one_is_patient() {
    let server = TestServer::start(config());
    let proxy = Proxy::start(server.addr);
    let busy = "HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n";
    proxy.refuse_next(busy);
    assert_eq!(Session::connect(&proxy.url()).unwrap_err().refused().unwrap().status, 503);
    proxy.refuse_next(busy);
    let patient = Session::builder().patient().connect(&proxy.url()).unwrap();
    patient.publish("lobby", "early").unwrap();
    let error = Session::connect(&format!("ws://{}/nowhere", server.addr)).unwrap_err();
    assert_eq!(error.refused().unwrap().status, 404);
    let once = Session::builder().without_reconnect().connect(&proxy.url()).unwrap();
    proxy.cut(false);
    let error = loop {
        match once.recv_timeout(DEADLINE) {
            Ok(event) => assert!(event.is_some()),
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), ErrorKind::Lost);
}

#[test]
fn a_server_that_lists_rooms_without_end_is_left_for_good() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://{}/", listener.local_addr().unwrap());
    let server = thread::spawn(move || {
        let mut socket = tungstenite::accept(listener.accept().unwrap().0).unwrap();
        let mut say = |frame: Value| socket.send(tungstenite::Message::text(frame.to_string()));
        say(json!({"type": "welcome", "client_id": "me", "ping_s": 1.8e19})).unwrap();
        let join = socket.read().unwrap();
        let join: Value = serde_json::from_str(join.to_text().unwrap()).unwrap();
        let mut say = |frame: Value| socket.send(tungstenite::Message::text(frame.to_string()));
        say(json!({"type": "ok", "ref": join["ref"], "room": "a.*", "rooms": []})).unwrap();
        for room in ["a.1", "a.2", "a.3"] {
            say(json!({"type": "matched", "pattern": "a.*", "room": room})).unwrap();
        }
        while !matches!(socket.read(), Ok(tungstenite::Message::Close(_)) | Err(_)) {}
        listener.set_nonblocking(true).unwrap();
        listener
    });
    let ben = Session::builder().rooms_max(2).connect(&url).unwrap();
    ben.join("a.*").unwrap();
    let error = loop {
        match ben.recv_timeout(DEADLINE) {
            Ok(event) => assert!(event.is_some()),
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), ErrorKind::Misbehaved);
    assert!(error.to_string().contains("more than 2 rooms"), "{error}");
    let listener = server.join().unwrap();
    assert!(listener.accept().is_err(), "nobody comes back");
}

#[test]
fn direct_messages_find_who_is_away() {
    let server = TestServer::start(Config { broadcast: true, ..config() });
    let proxy = Proxy::start(server.addr);
    let (anna, ben) = (session(&url(&server)), session(&proxy.url()));
    let (id, _) = connected(&ben);
    let direct = |session: &Session| {
        wait_for(session, "direct message", |event| match event {
            Event::Direct(message) => Some(message.content::<u64>().unwrap()),
            Event::DirectLost => panic!("lost"),
            _ => None,
        })
    };
    anna.direct(&id, &1).unwrap();
    assert_eq!(direct(&ben), 1);
    proxy.refuse_next("HTTP/1.1 503 Busy\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n");
    proxy.cut(true);
    server.wait_for("the cut is seen", |stats| stats.active_connections == 1);
    anna.direct(&id, &2).unwrap();
    anna.direct(&id, &3).unwrap();
    assert_eq!((direct(&ben), direct(&ben)), (2, 3));
    let error = anna.direct("11111111-1111-4111-8111-111111111111", &4).unwrap_err();
    assert_eq!(error.code(), Some("not_found"));
    anna.broadcast("all").unwrap();
    wait_for(&ben, "broadcast", |event| matches!(event, Event::Broadcast(_)).then_some(()));
}

#[test]
fn presence_is_watched_and_patterns_match() {
    let server = TestServer::start(config());
    let (anna, ben) = (session(&url(&server)), session(&url(&server)));
    let entered = anna.join_with("tea", JoinOptions::default().presence().sender("anna")).unwrap();
    assert_eq!(entered.members.unwrap().count, 1);
    ben.join_with("tea", JoinOptions::default().sender("ben")).unwrap();
    let who = |session: &Session, wants_joined: bool| {
        wait_for(session, "presence", |event| match event {
            Event::Joined { member, .. } if wants_joined => member.sender.clone(),
            Event::Left { member, .. } if !wants_joined => member.sender.clone(),
            _ => None,
        })
    };
    assert_eq!(who(&anna, true), "ben");
    let members = ben.watch_presence("tea", true).unwrap();
    assert_eq!((members.count, members.members.len()), (2, 2));
    ben.leave("tea").unwrap();
    assert_eq!(who(&anna, false), "ben");

    ben.join("prices.eur").unwrap();
    assert_eq!(anna.join("prices.*").unwrap().rooms, ["prices.eur"]);
    ben.join("prices.usd").unwrap();
    wait_for(&anna, "match", |event| match event {
        Event::Matched { pattern, room } => Some((pattern.clone(), room.clone())),
        _ => None,
    });
    ben.publish("prices.usd", &2).unwrap();
    assert_eq!(message(&anna).room, "prices.usd");
    let rooms = ["prices.eur", "prices.usd"];
    let ticket = ben.publish_later(&rooms, &3, PublishOptions::default()).unwrap();
    let receipt = ticket.wait(DEADLINE).unwrap();
    assert_eq!(receipt.rooms, [("prices.eur".into(), 1), ("prices.usd".into(), 2)]);
    assert_eq!(message(&anna).rooms, receipt.rooms);
    anna.leave("prices.*").unwrap();
    ben.publish("prices.eur", &4).unwrap();
    silence(&anna);
}

/// What waits to be taken when a room is left is void, and a later stay begins where it begins.
#[test]
fn nothing_of_a_room_comes_after_it_was_left() {
    let server = TestServer::start(config());
    let (anna, ben) = (session(&url(&server)), session(&url(&server)));
    for session in [&anna, &ben] {
        session.join("tea").unwrap();
        session.join_with("cake", JoinOptions::default().presence()).unwrap();
    }
    let presence = anna.presence("cake").unwrap();
    assert_eq!(presence.count, 2);
    for number in 0..20 {
        anna.publish("tea", &number).unwrap();
    }
    let both = anna.publish_later(&["tea", "cake"], "both", PublishOptions::default()).unwrap();
    both.wait(DEADLINE).unwrap();
    // Most of it is there by now, and nobody has taken it.
    let page = ben.history("tea", Pages::Latest, Some(1)).unwrap();
    assert_eq!(page.position.seq, 21);
    anna.publish("tea", "on its way").unwrap();
    ben.leave("tea").unwrap();
    anna.publish("tea", "unheard").unwrap();
    assert_eq!(ben.join("tea").unwrap().position.unwrap().seq, 23);
    anna.publish("tea", "heard").unwrap();
    assert_eq!(message(&ben).content.get(), "\"both\"", "that is in another room too");
    assert_eq!(message(&ben).content.get(), "\"heard\"");
    silence(&ben);
}

/// A slow client of such a room is told of a gap, and gets the missing messages from the history.
#[test]
fn a_gap_is_closed_from_the_history_and_what_is_gone_is_told() {
    for (history, is_lost) in [(1000, false), (20, true)] {
        let rule = RoomRule { overflow: Some(Overflow::Gap), ..RoomRule::new("wide") };
        let server = TestServer::start(Config {
            rooms: vec![rule],
            buffer: 16,
            history,
            history_bytes: 64 << 20,
            ..config()
        });
        let proxy = Proxy::start(server.addr);
        let (anna, ben) = (session(&url(&server)), session(&proxy.url()));
        anna.join("wide").unwrap();
        ben.join("wide").unwrap();
        proxy.stall(true);
        let content = "x".repeat(60_000);
        // More than the buffers of the sockets on the way hold.
        for _ in 0..200 {
            anna.publish("wide", &content).unwrap();
        }
        proxy.stall(false);
        anna.publish("wide", "end").unwrap();
        let mut next = 1;
        let mut lost = 0;
        while next <= 201 {
            next = wait_for_quietly(&ben, |event| match event {
                Event::Message(message) => {
                    assert_eq!(message.seq, next);
                    Some(next + 1)
                }
                Event::Lost { range, .. } => {
                    let (from, to) = range.unwrap();
                    assert_eq!(from, next);
                    lost += to + 1 - from;
                    Some(to + 1)
                }
                _ => None,
            });
        }
        assert_eq!(lost > 0, is_lost, "{lost} lost of 201");
        silence(&ben);
    }
}

fn wait_for_quietly<T>(session: &Session, mut pick: impl FnMut(Event) -> Option<T>) -> T {
    loop {
        let event = session.recv_timeout(DEADLINE).unwrap().unwrap();
        if let Some(picked) = pick(event) {
            return picked;
        }
    }
}

#[test]
fn a_joiner_may_say_since_when() {
    let server = TestServer::start(config());
    let (anna, ben) = (session(&url(&server)), session(&url(&server)));
    let start = anna.join("tea").unwrap().position.unwrap();
    for number in 1..=3 {
        anna.publish("tea", &number).unwrap();
    }
    let since = Position { seq: 1, ..start };
    let entered = ben.join_with("tea", JoinOptions::default().since(since)).unwrap();
    assert!(entered.recovered);
    assert_eq!((message(&ben).seq, message(&ben).seq), (2, 3));
    ben.leave("tea").unwrap();
    let elsewhere = Position { epoch: "1".into(), seq: 1 };
    let entered = ben.join_with("tea", JoinOptions::default().since(elsewhere)).unwrap();
    assert!(!entered.recovered);
    let is_loss = |event: &Event| matches!(event, Event::Lost { range: None, .. });
    wait_for(&ben, "loss", |event| is_loss(event).then_some(()));
}

/// A burst of ten seconds' worth, which the limits of the `welcome` spread over ten seconds.
#[test]
fn a_burst_over_the_rate_arrives_without_a_refusal_or_a_disconnect() {
    const BURST: u64 = 100;
    let limits = Config { rate_messages: 10, rate_bytes: 100_000, ..config() };
    let server = TestServer::start(Config { history: 200, ..limits });
    let proxy = Proxy::start(server.addr);
    let ben = session(&proxy.url());
    ben.join("tea").unwrap();
    let publish =
        |number: u64| ben.publish_later(&["tea"], &number, PublishOptions::default()).unwrap();
    let tickets: Vec<_> = (1..=BURST).map(publish).collect();
    for (seq, ticket) in (1..).zip(tickets) {
        assert_eq!(ticket.wait(DEADLINE).unwrap().seq, seq, "in the order of the calls");
    }
    assert_eq!(proxy.came(), 1, "one connection");
    assert!(!proxy.said().contains("rate_limited"), "the server had nothing to refuse");
}

/// The server's bucket, in a server that speaks for itself: what a burst of `count` publishes
/// costs, as refusals in all and the most of them in a row.
fn burst_at(rate: f64, count: usize, tells_limits: bool) -> (usize, usize) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://{}/", listener.local_addr().unwrap());
    let server = thread::spawn(move || {
        let mut socket = tungstenite::accept(listener.accept().unwrap().0).unwrap();
        let mut welcome = json!({"type": "welcome", "client_id": "me"});
        if tells_limits {
            welcome["limits"] = json!({"rate_messages": rate, "max_rooms": 9});
        }
        socket.send(tungstenite::Message::text(welcome.to_string())).unwrap();
        let (mut bucket, mut at) = (rate, Instant::now());
        let (mut granted, mut refused, mut in_a_row, mut in_a_row_max) = (0, 0, 0, 0);
        while let Ok(frame) = socket.read() {
            let tungstenite::Message::Text(text) = frame else { continue };
            let command: Value = serde_json::from_str(text.as_str()).unwrap();
            bucket = (bucket + at.elapsed().as_secs_f64() * rate).min(rate);
            at = Instant::now();
            let answer = if bucket >= 1.0 {
                (granted, in_a_row, bucket) = (granted + 1, 0, bucket - 1.0);
                json!({"type": "ok", "ref": command["ref"], "room": "tea", "seq": granted})
            } else {
                (refused, in_a_row) = (refused + 1, in_a_row + 1);
                in_a_row_max = in_a_row_max.max(in_a_row);
                let wait = ((1.0 - bucket) / rate * 1000.0).ceil() as u64;
                json!({"type": "error", "ref": command["ref"], "code": "rate_limited",
                    "retry_after_ms": wait})
            };
            socket.send(tungstenite::Message::text(answer.to_string())).unwrap();
        }
        (refused, in_a_row_max)
    });
    let ben = Session::connect(&url).unwrap();
    let publish = |number| ben.publish_later(&["tea"], &number, PublishOptions::default()).unwrap();
    let tickets: Vec<_> = (0..count).map(publish).collect();
    for ticket in tickets {
        ticket.wait(DEADLINE).unwrap();
    }
    ben.close().unwrap();
    server.join().unwrap()
}

#[test]
fn a_server_that_tells_its_limits_has_nothing_to_refuse() {
    assert_eq!(burst_at(25.0, 75, true), (0, 0));
}

/// Ten errors in a row, and a server closes.
#[test]
fn a_server_that_does_not_is_not_pressed_until_it_closes() {
    let (refused, in_a_row) = burst_at(25.0, 75, false);
    assert!(refused > 0 && in_a_row < 10, "{refused} refused, {in_a_row} in a row");
}

#[test]
fn what_is_too_much_is_refused_and_an_end_answers_everyone() {
    let server = TestServer::start(config());
    let proxy = Proxy::start(server.addr);
    let ben = Session::builder().requests_max(3).connect(&proxy.url()).unwrap();
    proxy.stall(true);
    let publish = || ben.publish_later(&["lobby"], "x", PublishOptions::default());
    let tickets: Vec<_> = (0..3).map(|_| publish().unwrap()).collect();
    assert_eq!(publish().unwrap_err().kind(), ErrorKind::Full);
    assert!(tickets[0].wait(A_WHILE).unwrap_err().is_timeout());
    proxy.stall(false);
    for ticket in &tickets {
        ticket.wait(DEADLINE).unwrap();
    }
    proxy.stall(true);
    let ticket = publish().unwrap();
    let closer = ben.clone();
    let closing = thread::spawn(move || closer.close());
    assert_eq!(ticket.wait(DEADLINE).unwrap_err().kind(), ErrorKind::Closed);
    closing.join().unwrap().unwrap();
}

#[test]
fn many_threads_share_a_session() {
    const EACH: u64 = 50;
    let server = TestServer::start(config());
    let (anna, ben) = (session(&url(&server)), session(&url(&server)));
    anna.join("tea").unwrap();
    ben.join("tea").unwrap();
    let mut got: Vec<u64> = thread::scope(|scope| {
        for thread in 0..4 {
            let anna = anna.clone();
            scope.spawn(move || {
                for number in 0..EACH {
                    anna.publish("tea", &(thread * EACH + number)).unwrap();
                }
            });
        }
        let receive =
            || (0..EACH * 2).map(|_| message(&ben).content().unwrap()).collect::<Vec<u64>>();
        let receivers = [scope.spawn(receive), scope.spawn(receive)];
        receivers.into_iter().flat_map(|receiver| receiver.join().unwrap()).collect()
    });
    got.sort_unstable();
    assert_eq!(got, (0..EACH * 4).collect::<Vec<_>>());
    drop(anna);
    eventually("the last handle ends the session", || match server.closed_with(1000) {
        0 => Err("not yet".into()),
        _ => Ok(()),
    });
}

#[test]
fn events_beyond_the_bound_wait_in_the_server() {
    let server = TestServer::start(config());
    let anna = session(&url(&server));
    let ben = Session::builder().default_room(false).events_max(2).connect(&url(&server)).unwrap();
    anna.join("tea").unwrap();
    ben.join("tea").unwrap();
    for number in 0..50u64 {
        anna.publish("tea", &number).unwrap();
    }
    for number in 0..50u64 {
        assert_eq!(message(&ben).content::<u64>().unwrap(), number);
    }
    let deaf = Session::builder().without_events().events_max(2).connect(&url(&server)).unwrap();
    for _ in 0..20 {
        deaf.publish("lobby", "x").unwrap();
    }
}

#[test]
fn handles_are_for_any_thread() {
    fn is_for_any_thread<T: Clone + Send + Sync + 'static>() {}
    is_for_any_thread::<Client>();
    is_for_any_thread::<Session>();
}
