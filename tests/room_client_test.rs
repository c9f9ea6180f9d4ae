//! Rooms of the session client against the real server: one subscription a room, however many
//! users.

#![allow(clippy::unwrap_used, reason = "a test that unwraps fails with a clear message")]

mod support;
#[path = "support/proxy.rs"]
mod proxy;

use std::{
    thread,
    time::{Duration, Instant},
};

use proxy::Proxy;
use rusty_socks::Config;
use rusty_socks_client::{
    ErrorKind, Event, JoinOptions, Pages, PublishOptions, RoomEvent, RoomMessage, RoomState,
    Session, Subscription,
};
use support::{DEADLINE, TestServer, eventually};

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

fn next(heard: &Subscription) -> RoomEvent {
    heard.recv_deadline(Instant::now() + DEADLINE).unwrap().expect("an event")
}

fn message(heard: &Subscription) -> RoomMessage {
    match next(heard) {
        RoomEvent::Message(message) => message,
        other => panic!("{other:?}"),
    }
}

fn text(heard: &Subscription) -> String {
    message(heard).content().unwrap()
}

/// That nothing comes.
fn silence(heard: &Subscription) {
    let error = heard.recv_timeout(A_WHILE).unwrap_err();
    assert!(error.is_timeout(), "{error}");
}

/// That the session yields nothing of rooms.
fn silence_of(session: &Session) {
    let end = Instant::now() + A_WHILE;
    while let Ok(event) = session.recv_timeout(end.saturating_duration_since(Instant::now())) {
        let event = event.expect("it is not over");
        assert!(matches!(event, Event::Connected { .. } | Event::Disconnected { .. }), "{event:?}");
    }
}

fn session_message(session: &Session) -> RoomMessage {
    let end = Instant::now() + DEADLINE;
    loop {
        let event = session.recv_timeout(end.saturating_duration_since(Instant::now())).unwrap();
        if let Event::Message(message) = event.expect("it is not over") {
            return message;
        }
    }
}

fn await_members(session: &Session, room: &str, count: u64) {
    eventually("so many are in the room", || match session.presence(room) {
        Ok(members) if members.count == count => Ok(()),
        other => Err(format!("{other:?}")),
    });
}

fn await_state(session: &Session, room: &str, state: RoomState) {
    eventually("the room is in that state", || match session.room(room).state() {
        found if found == state => Ok(()),
        other => Err(format!("{other:?}")),
    });
}

#[test]
fn all_users_of_a_room_hear_each_message_and_the_last_one_leaves() {
    let server = TestServer::start(config());
    let (anna, ben) = (session(&url(&server)), session(&url(&server)));
    anna.join("tea").unwrap();
    let tea = ben.room("tea");
    assert_eq!((tea.name(), tea.state()), ("tea", RoomState::Out));
    assert_eq!(tea.publish("?").unwrap_err().code(), Some("not_member"));
    let (first, second) = (tea.subscribe().unwrap(), tea.clone().subscribe().unwrap());
    assert_eq!(first.entered().position.as_ref().unwrap().seq, 0);
    assert_eq!((tea.state(), tea.presence().unwrap().count), (RoomState::Joined, 2));
    anna.publish("tea", "one").unwrap();
    assert_eq!([text(&first), text(&second)], ["one", "one"]);
    assert_eq!(tea.publish("two").unwrap().seq, 2);
    let receipt = tea.publish_with("three", PublishOptions::default().echo()).unwrap();
    assert_eq!([message(&first).id, message(&second).id], [receipt.id.clone(), receipt.id]);
    let page = tea.history(Pages::Latest, None).unwrap();
    assert_eq!(page.messages.iter().map(|one| one.seq).collect::<Vec<_>>(), [1, 2, 3]);
    drop(first);
    anna.publish("tea", "four").unwrap();
    assert_eq!(text(&second), "four");
    assert_eq!((second.room().name(), tea.state()), ("tea", RoomState::Joined));
    drop(second);
    await_members(&anna, "tea", 1);
    await_state(&ben, "tea", RoomState::Out);
    silence_of(&ben);
    // And in again.
    let third = tea.subscribe().unwrap();
    anna.publish("tea", "five").unwrap();
    assert_eq!(text(&third), "five");
}

#[test]
fn a_room_of_the_session_stays_the_sessions() {
    let server = TestServer::start(config());
    let (anna, ben) = (session(&url(&server)), session(&url(&server)));
    anna.join("tea").unwrap();
    ben.join("tea").unwrap();
    let heard = ben.room("tea").subscribe().unwrap();
    anna.publish("tea", "one").unwrap();
    assert_eq!(text(&heard), "one");
    assert_eq!(session_message(&ben).content.get(), "\"one\"");
    drop(heard);
    anna.publish("tea", "two").unwrap();
    assert_eq!(session_message(&ben).content.get(), "\"two\"");
    assert_eq!(
        (anna.presence("tea").unwrap().count, ben.room("tea").state()),
        (2, RoomState::Joined)
    );
    // The other way round: what a subscription began the session takes over.
    anna.join("cake").unwrap();
    let heard = ben.room("cake").subscribe().unwrap();
    anna.publish("cake", "three").unwrap();
    assert_eq!(text(&heard), "three");
    ben.join("cake").unwrap();
    drop(heard);
    anna.publish("cake", "four").unwrap();
    assert_eq!(session_message(&ben).content.get(), "\"four\"");
    // Whoever leaves for the session does so for all.
    let heard = ben.room("cake").subscribe().unwrap();
    anna.publish("cake", "five").unwrap();
    assert_eq!(session_message(&ben).content.get(), "\"five\"");
    ben.leave("cake").unwrap();
    assert!(heard.recv_timeout(DEADLINE).unwrap().is_none(), "nothing of it from the leave on");
    assert!(heard.recv().unwrap().is_none());
    await_members(&anna, "cake", 1);
}

#[test]
fn the_default_room_and_rooms_of_a_pattern_are_the_sessions_too() {
    let server = TestServer::start(config());
    let anna = Session::connect(&url(&server)).unwrap();
    let ben = Session::connect(&url(&server)).unwrap();
    anna.join("prices.eur").unwrap();
    ben.join("prices.*").unwrap();
    for room in ["lobby", "prices.eur"] {
        assert_eq!(ben.room(room).state(), RoomState::Joined, "{room}");
        let heard = ben.room(room).subscribe().unwrap();
        anna.publish(room, "one").unwrap();
        assert_eq!(text(&heard), "one");
        assert_eq!(session_message(&ben).room, room);
        drop(heard);
        anna.publish(room, "two").unwrap();
        assert_eq!(session_message(&ben).content.get(), "\"two\"");
    }
    let heard = ben.room("prices.eur").subscribe().unwrap();
    ben.leave("prices.*").unwrap();
    assert!(heard.recv_timeout(DEADLINE).unwrap().is_none(), "it was there by the pattern");
    assert_eq!(ben.room("prices.eur").state(), RoomState::Out);
    let error = ben.room("prices.*").subscribe().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
}

#[test]
fn a_message_to_several_rooms_has_its_number_in_each() {
    let server = TestServer::start(config());
    let (anna, ben) = (session(&url(&server)), session(&url(&server)));
    for room in ["tea", "cake", "jam"] {
        anna.join(room).unwrap();
    }
    anna.publish("cake", "before").unwrap();
    let [tea, cake] = ["tea", "cake"].map(|room| ben.room(room).subscribe().unwrap());
    let publish = |rooms: &[&str], content: &str| {
        let later = anna.publish_later(rooms, content, PublishOptions::default());
        later.unwrap().wait(DEADLINE).unwrap();
    };
    publish(&["tea", "cake"], "both");
    let (in_tea, in_cake) = (message(&tea), message(&cake));
    assert_eq!(
        ((&*in_tea.room, in_tea.seq), (&*in_cake.room, in_cake.seq)),
        (("tea", 1), ("cake", 2))
    );
    silence_of(&ben);
    ben.join("jam").unwrap();
    publish(&["tea", "jam"], "for both");
    assert_eq!(text(&tea), "for both");
    assert_eq!(session_message(&ben).content.get(), "\"for both\"");
    silence(&cake);
}

#[test]
fn presence_is_told_to_those_who_asked_for_it() {
    let server = TestServer::start(config());
    let (anna, ben) = (session(&url(&server)), session(&url(&server)));
    let tea = ben.room("tea");
    let blind = tea.subscribe().unwrap();
    let options = || JoinOptions::default().presence().sender("ben");
    let seeing = tea.subscribe_with(options()).unwrap();
    assert!(matches!(next(&seeing), RoomEvent::Members(members) if members.count == 1));
    anna.join_with("tea", JoinOptions::default().sender("anna")).unwrap();
    let RoomEvent::Joined(member) = next(&seeing) else { panic!("nobody came") };
    assert_eq!(member.sender.as_deref(), Some("anna"));
    anna.leave("tea").unwrap();
    assert!(matches!(next(&seeing), RoomEvent::Left(gone) if gone == member));
    silence(&blind);
    silence_of(&ben);
    drop((seeing, blind));
    await_state(&ben, "tea", RoomState::Out);
    let seeing = tea.subscribe_with(options()).unwrap();
    let members = seeing.entered().members.as_ref().unwrap();
    assert_eq!(members.members[0].sender.as_deref(), Some("ben"));
}

#[test]
fn subscriptions_outlive_connections_and_miss_nothing() {
    let server = TestServer::start(config());
    let proxy = Proxy::start(server.addr);
    let anna = session(&url(&server));
    let ben = Session::builder().without_events().connect(&proxy.url()).unwrap();
    anna.join("tea").unwrap();
    let heard = ben.room("tea").subscribe().unwrap();
    let dropped = ben.room("cake").subscribe().unwrap();
    for round in 0..3 {
        proxy.stall(true);
        anna.publish("tea", &format!("missed {round}")).unwrap();
        proxy.cut(round == 1);
        proxy.stall(false);
        anna.publish("tea", &format!("live {round}")).unwrap();
        assert_eq!(text(&heard), format!("missed {round}"));
        assert_eq!(text(&heard), format!("live {round}"));
        assert_eq!(ben.room("tea").state(), RoomState::Joined);
    }
    // What is dropped while there is no connection is left all the same.
    anna.join("cake").unwrap();
    proxy.refuse_next("HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n");
    proxy.cut(false);
    drop(dropped);
    await_members(&anna, "cake", 1);
    ben.close().unwrap();
    assert!(heard.recv_timeout(DEADLINE).unwrap().is_none());
    assert_eq!(ben.room("tea").state(), RoomState::Out);
    assert_eq!(ben.room("tea").subscribe().unwrap_err().kind(), ErrorKind::Closed);
}

#[test]
fn a_lost_session_keeps_its_subscriptions() {
    let server = TestServer::start(Config { resume_window: Duration::ZERO, ..config() });
    let proxy = Proxy::start(server.addr);
    let (anna, ben) = (session(&url(&server)), session(&proxy.url()));
    anna.join("tea").unwrap();
    let heard = ben.room("tea").subscribe().unwrap();
    proxy.stall(true);
    anna.publish("tea", "missed").unwrap();
    proxy.cut(true);
    proxy.stall(false);
    assert_eq!(text(&heard), "missed");
    drop(server);
    let server = TestServer::start(config());
    proxy.lead_to(server.addr);
    assert!(matches!(next(&heard), RoomEvent::Lost { range: None }), "the room begins anew");
    let anna = session(&url(&server));
    anna.join("tea").unwrap();
    eventually("it is back", || match anna.presence("tea").unwrap().count {
        2 => Ok(()),
        other => Err(other.to_string()),
    });
    anna.publish("tea", "after").unwrap();
    assert_eq!(text(&heard), "after");
}

/// One who is slow holds up neither the others nor the session.
#[test]
fn a_full_queue_loses_the_oldest_and_says_so() {
    const MAX: usize = 4;
    let server = TestServer::start(config());
    let anna = session(&url(&server));
    anna.join("tea").unwrap();
    let builder = Session::builder().default_room(false).subscription_events_max(MAX);
    let ben = builder.connect(&url(&server)).unwrap();
    let tea = ben.room("tea");
    let (slow, quick) = (tea.subscribe().unwrap(), tea.subscribe().unwrap());
    for number in 1..=10 {
        anna.publish("tea", &format!("{number}")).unwrap();
        assert_eq!(text(&quick), format!("{number}"));
    }
    let RoomEvent::Missed { events, messages } = next(&slow) else { panic!("it says nothing") };
    assert_eq!((events, messages), (6, Some((1, 6))));
    for number in 7..=10 {
        assert_eq!(message(&slow).seq, number);
    }
    silence(&slow);
}

#[test]
fn what_the_server_refuses_or_takes_back_ends_a_subscription_with_its_reason() {
    let server = TestServer::start(Config { max_rooms_per_conn: 1, ..config() });
    let ben = Session::builder().default_room(false).connect(&url(&server)).unwrap();
    let heard = ben.room("tea").subscribe().unwrap();
    let error = ben.room("cake").subscribe().unwrap_err();
    assert_eq!(error.code(), Some("limit_exceeded"));
    assert_eq!(ben.room("cake").state(), RoomState::Out);
    // A refused one is not counted, and what is dropped makes room.
    drop(heard);
    eventually("there is room", || {
        ben.room("cake").subscribe().map(drop).map_err(|error| error.to_string())
    });
    await_state(&ben, "cake", RoomState::Out);
    let heard = ben.room("jam").subscribe().unwrap();
    // A session that ends for a reason tells it to its subscriptions.
    drop(server);
    let waits = thread::spawn(move || heard.recv_timeout(A_WHILE).unwrap_err().is_timeout());
    assert!(waits.join().unwrap(), "it may come back");
}

/// Users come and go on several threads, while others watch: what is called last holds.
#[test]
fn users_may_come_and_go_at_once() {
    const ROUNDS: usize = 40;
    let server = TestServer::start(config());
    let (anna, ben) = (session(&url(&server)), session(&url(&server)));
    anna.join("tea").unwrap();
    let kept = ben.room("tea").subscribe().unwrap();
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                for round in 0..ROUNDS {
                    let room = if round % 2 == 0 { "tea" } else { "cake" };
                    let heard = ben.room(room).subscribe().unwrap();
                    assert_eq!(ben.room(room).state(), RoomState::Joined);
                    drop(heard);
                }
            });
        }
        for number in 0..ROUNDS {
            anna.publish("tea", &format!("{number}")).unwrap();
        }
    });
    for number in 0..ROUNDS {
        assert_eq!(text(&kept), format!("{number}"));
    }
    await_state(&ben, "cake", RoomState::Out);
    drop(kept);
    await_members(&anna, "tea", 1);
}
