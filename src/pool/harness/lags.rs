//! Clients that are too slow for their rooms: each gets what its room's policy says, and knows what
//! it missed.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use super::{Harness, Probe, frame, upgrade};
use crate::{
    config::{Config, Overflow, RoomRule},
    handler::{Context, Handler},
    hub::{
        conn_handle::ConnHandle,
        conn_id::ConnId,
        history::Replay,
        names::RoomName,
        notice::Notice,
        publish::Publication,
        room::{Entry, RoomKind},
        session::Sender,
    },
    identity::Permissions,
    pool::{connection::Phase, delivery::Delivery, inline_conn::InlineConn, pauses::PauseReasons},
    ws::frame::{Message, PreparedFrame},
};

/// Echoes what it is sent, and has words for what is missed.
pub(super) struct Teller;

impl Handler for Teller {
    type State = ();

    fn on_message(&self, ctx: &mut Context<'_, ()>, message: Message<'_>) {
        ctx.send(message);
    }

    fn notice(&self, notice: &Notice<'_>) -> Option<PreparedFrame> {
        let words = match notice {
            Notice::Gap { room, from, to } => format!("{room} gap {from} {to}"),
            Notice::PresenceGap { room } => format!("{room} presence"),
            other => unreachable!("{other:?}"),
        };
        Some(PreparedFrame::new(Message::Text(&words)))
    }
}

/// Rooms `gap.*` and `latest.*` of those policies; all others close. Four messages may wait.
pub(super) fn config() -> Config {
    let rule =
        |pattern: &str, overflow| RoomRule { overflow: Some(overflow), ..RoomRule::new(pattern) };
    let rooms = vec![rule("gap.*", Overflow::Gap), rule("latest.*", Overflow::Latest)];
    // A client that is closed is given the time to read why.
    let close_timeout = Duration::from_secs(3600);
    Config { rooms, buffer: 4, close_timeout, ..Config::default() }
}

pub(super) fn open(config: Config, handler: impl Handler) -> Harness {
    let mut harness = Harness::with(config, handler);
    harness.feed(upgrade("").as_bytes());
    assert_eq!(harness.answer().status, 101);
    harness
}

fn conn(harness: &mut Harness) -> InlineConn<'_> {
    let (open, io) = harness.conn.open_mut().expect("it is open");
    open.parts(io, &mut harness.cx).1
}

impl Harness {
    /// Makes the connection a member of a room. Returns the number of the room's last message.
    pub(super) fn enter(&mut self, name: &str) -> u64 {
        let name = RoomName::new(name).expect("a legal name");
        let mut conn = conn(self);
        let joined = Arc::clone(conn.hub()).join(&mut conn, &name, Replay::Nothing);
        joined.expect("a place").position.seq
    }

    pub(super) fn exit(&mut self, name: &str) {
        let mut conn = conn(self);
        Arc::clone(conn.hub()).leave(&mut conn, name).expect("a member");
    }

    /// Publishes to a room, whose members here but `except` get it in turns that follow.
    pub(super) fn publish(&mut self, room: &str, except: Option<ConnId>) -> u64 {
        let (before, after) = (format!("{room} "), "");
        let hub = &self.cx.shared.hub;
        let room = hub.rooms.find(room).expect("a room");
        let publication = Publication::around_seq(&before, after).to_others();
        let session = match &self.conn.phase {
            Phase::Open(open) => Some(&open.session),
            _ => None,
        };
        let by = session.zip(except).map(|(session, conn)| Sender { session, conn });
        let published = hub.publish(by, &room, &publication).expect("a place");
        self.turns();
        published.seq
    }

    fn publish_some(&mut self, room: &str, count: usize) {
        for _ in 0..count {
            self.publish(room, None);
        }
    }

    /// The client stops reading.
    pub(super) fn stall(&mut self) {
        self.wire.lock().write_room = 0;
    }

    /// The client reads all there is. What it got since this was last asked.
    fn texts(&mut self) -> Vec<String> {
        self.make_room(usize::MAX);
        let text = |(_, payload): (u8, Vec<u8>)| String::from_utf8(payload).expect("text");
        self.frames().into_iter().map(text).collect()
    }

    fn code(&mut self) -> Option<u16> {
        self.make_room(usize::MAX);
        let close = self.frames().into_iter().find(|(first, _)| *first == 0x88);
        close.map(|(_, payload)| u16::from_be_bytes([payload[0], payload[1]]))
    }

    fn missed(&self) -> (u64, u64) {
        (self.cx.metrics().missed.value(), self.cx.metrics().gaps.value())
    }
}

#[test]
fn under_gap_the_client_is_told_what_it_missed_before_what_follows() {
    let mut harness = open(config(), Teller);
    harness.enter("gap.a");
    harness.stall();
    harness.publish_some("gap.a", 10);
    let expected = ["gap.a 1", "gap.a 2", "gap.a 3", "gap.a 4", "gap.a gap 5 10"];
    assert_eq!(harness.texts(), expected);
    assert_eq!(harness.missed(), (6, 1));
    harness.publish_some("gap.a", 1);
    assert_eq!(harness.texts(), ["gap.a 11"], "and it is all right again");
    assert!(!harness.has_lags());
}

#[test]
fn a_gap_ends_when_the_outbox_has_nearly_drained() {
    let mut harness = open(config(), Teller);
    harness.enter("gap.a");
    harness.stall();
    harness.publish_some("gap.a", 5);
    // Two of four are left, which is more than a quarter.
    harness.make_room(2 * (2 + "gap.a 1".len()));
    harness.publish_some("gap.a", 1);
    harness.make_room(2 + "gap.a 1".len());
    harness.publish_some("gap.a", 1);
    let expected = ["gap.a 1", "gap.a 2", "gap.a 3", "gap.a 4", "gap.a gap 5 6", "gap.a 7"];
    assert_eq!(harness.texts(), expected);
}

#[test]
fn under_latest_only_the_newest_waits() {
    let mut harness = open(config(), Teller);
    harness.enter("latest.a");
    harness.publish_some("latest.a", 2);
    assert_eq!(harness.texts(), ["latest.a 1", "latest.a 2"]);
    harness.stall();
    harness.publish_some("latest.a", 5);
    let expected = ["latest.a 3", "latest.a gap 4 6", "latest.a 7"];
    assert_eq!(harness.texts(), expected, "3 was on its way when it stalled");
    assert_eq!(harness.missed(), (3, 1));
    harness.stall();
    harness.publish_some("latest.a", 2);
    assert_eq!(harness.texts(), ["latest.a 8", "latest.a 9"], "who waits only is no loss");
    assert_eq!(harness.missed(), (3, 1));
    assert!(!harness.has_lags());
}

#[test]
fn the_newest_goes_when_what_was_before_it_has_gone() {
    let mut harness = open(config(), Teller);
    harness.enter("latest.a");
    harness.enter("gap.a");
    harness.stall();
    harness.publish_some("gap.a", 2);
    harness.publish_some("latest.a", 2);
    harness.publish_some("gap.a", 2);
    // One of the two that were there before it: it does not go yet.
    harness.make_room(2 + "gap.a 1".len());
    harness.publish_some("latest.a", 1);
    // Both, and the outbox has never been empty.
    harness.make_room(2 + "gap.a 1".len());
    harness.publish_some("latest.a", 1);
    let expected = [
        "gap.a 1",
        "gap.a 2",
        "gap.a 3",
        "gap.a 4",
        "latest.a gap 1 2",
        "latest.a 3",
        "latest.a 4",
    ];
    assert_eq!(harness.texts(), expected);
}

#[test]
fn two_rooms_may_lag_at_once() {
    let mut harness = open(config(), Teller);
    for room in ["gap.a", "gap.b", "latest.a", "latest.b"] {
        harness.enter(room);
    }
    harness.stall();
    harness.publish_some("gap.a", 5);
    harness.publish_some("gap.b", 2);
    harness.publish_some("latest.a", 2);
    harness.publish_some("latest.b", 1);
    let texts = harness.texts();
    assert_eq!(texts[..4], ["gap.a 1", "gap.a 2", "gap.a 3", "gap.a 4"]);
    let behind: BTreeSet<&str> = texts[4..].iter().map(String::as_str).collect();
    let expected =
        ["gap.a gap 5 5", "gap.b gap 1 2", "latest.a gap 1 1", "latest.a 2", "latest.b 1"];
    assert_eq!(behind, expected.into());
    assert_eq!(texts.len(), 9);
}

#[test]
fn what_a_room_owes_ends_with_the_membership() {
    for room in ["gap.a", "latest.a"] {
        let mut harness = open(config(), Teller);
        harness.enter(room);
        harness.stall();
        harness.publish_some(room, 6);
        harness.exit(room);
        let texts = harness.texts();
        assert!(texts.iter().all(|text| !text.contains("gap ") && *text != format!("{room} 6")));
        assert!(!harness.has_lags());
        harness.enter(room);
        harness.stall();
        harness.publish_some(room, 6);
        harness.exit(room);
        assert_eq!(harness.enter(room), 12);
        harness.publish(room, None);
        let texts = harness.texts();
        let last = texts.last().map(String::as_str);
        let told = [format!("{room} 13"), format!("{room} gap 13 13")];
        assert!(told.iter().any(|told| last == Some(told)), "{texts:?}");
        let early = &texts[..texts.len() - 1];
        assert!(!early.iter().any(|text| text.contains(" gap ")), "{texts:?}");
        harness.stall();
        harness.publish_some(room, 6);
        harness.exit(room);
        harness.enter(room);
        let texts = harness.texts();
        assert!(!texts.iter().any(|text| text.contains(" gap ")), "{texts:?}");
    }
}

#[test]
fn its_own_messages_are_no_loss() {
    let mut harness = open(config(), Teller);
    harness.enter("gap.a");
    harness.stall();
    harness.publish_some("gap.a", 4);
    let own = Some(harness.conn.io.id);
    harness.publish("gap.a", own);
    assert_eq!(harness.missed(), (0, 0));
    harness.publish("gap.a", None);
    harness.publish("gap.a", own);
    assert_eq!(harness.texts()[4..], ["gap.a gap 6 6"]);
    assert_eq!(harness.missed(), (1, 1));
}

#[test]
fn without_words_nothing_is_left_out() {
    for room in ["gap.a", "latest.a"] {
        let mut harness = open(config(), Probe::default());
        harness.enter(room);
        harness.stall();
        harness.publish_some(room, 4);
        assert!(harness.is_open() && !harness.has_lags());
        harness.publish_some(room, 1);
        assert_eq!(harness.code(), Some(4102), "{room}");
        assert_eq!(harness.missed(), (0, 0));
    }
}

#[test]
fn under_close_the_client_is_closed() {
    let mut harness = open(config(), Teller);
    harness.enter("room");
    harness.stall();
    harness.publish_some("room", 4);
    assert!(harness.is_open());
    harness.publish_some("room", 1);
    assert_eq!(harness.code(), Some(4102));
    // What had not begun, and the one too many.
    assert_eq!(harness.cx.metrics().dropped.value(), 4);
}

#[test]
fn an_answer_that_does_not_fit_closes_whatever_the_room() {
    let mut harness = open(config(), Teller);
    harness.enter("gap.a");
    harness.stall();
    harness.publish_some("gap.a", 6);
    assert!(harness.is_open());
    harness.post("an answer");
    harness.turns();
    assert_eq!(harness.code(), Some(4102));
}

#[test]
fn a_presence_channel_tells_no_more_than_that_something_is_missing() {
    // A newest notice would say nothing about the others, so there is no such thing.
    for room in ["gap.a", "latest.a"] {
        let mut harness = open(config(), Teller);
        let name = RoomName::new(room).expect("a legal name");
        harness.enter(name.as_str());
        let rooms = &harness.cx.shared.hub.rooms;
        let channel = rooms.channel_of(&rooms.find(room).expect("a room"));
        assert_eq!(channel.kind, RoomKind::Presence);
        let (conn, at) = (harness.conn.io.id, Entry { seq: 0, moves: 0 });
        harness.cx.members.add(conn, Arc::clone(&channel), at, Permissions::all());
        let member =
            harness.cx.members.of(channel.key, 1).and_then(|(_, mut members)| members.next());
        let notice = PreparedFrame::new(Message::Text("she came"));
        harness.stall();
        for seq in 1..=6 {
            let member = member.expect("itself");
            harness.deliver(&notice, &Delivery { room: &channel, member, seq });
            harness.turns();
        }
        let texts = harness.texts();
        assert_eq!(texts[..4], ["she came"; 4]);
        assert_eq!(texts[4..], [format!("{room} presence")]);
    }
}

/// Panics instead of finding words.
struct Speechless;

impl Handler for Speechless {
    type State = ();

    fn on_message(&self, _: &mut Context<'_, ()>, _: Message<'_>) {}

    fn notice(&self, _: &Notice<'_>) -> Option<PreparedFrame> {
        panic!("no words")
    }
}

#[test]
fn a_panic_over_the_words_costs_the_connection() {
    let mut harness = open(config(), Speechless);
    harness.enter("gap.a");
    harness.stall();
    harness.publish_some("gap.a", 5);
    assert_eq!(harness.code(), Some(1011));
    assert_eq!(harness.cx.shared.metrics.server.handler_panics.value(), 1);
}

#[test]
fn a_slow_client_that_takes_bytes_is_alive_and_one_that_takes_none_is_closed() {
    let mut harness = open(config(), Teller);
    harness.enter("gap.a");
    harness.stall();
    harness.publish_some("gap.a", 10);
    assert!(harness.conn.io.pauses.has(PauseReasons::OUTBOX));
    let timeout = harness.cx.config().timeout.as_millis() as u64;
    for _ in 0..10 {
        harness.pass(timeout - 1);
        harness.make_room(1);
    }
    assert!(harness.is_open(), "{:?}", harness.code());
    // So little room that the kernel does not call the socket writable.
    for _ in 0..3 {
        harness.wire.lock().write_room += 1;
        harness.pass(timeout);
    }
    assert!(harness.is_open(), "{:?}", harness.code());
    harness.pass(timeout);
    assert_eq!(harness.code(), Some(4102));
}

#[test]
fn a_client_that_does_not_take_the_newest_is_slow_and_not_silent() {
    let mut harness = open(config(), Teller);
    harness.enter("latest.a");
    harness.stall();
    harness.publish_some("latest.a", 3);
    assert!(!harness.conn.io.pauses.has(PauseReasons::OUTBOX));
    harness.pass(2 * harness.cx.config().timeout.as_millis() as u64);
    assert_eq!(harness.code(), Some(4102));
}

#[test]
fn newest_messages_that_wait_come_out_as_the_outbox_takes_them() {
    // Each fills more than half of the bound, so one goes at a time, and nothing is lost or
    // starves.
    let mut harness =
        open(Config { buffer_bytes: 256, max_message_bytes: 125, ..config() }, Teller);
    let rooms: Vec<String> = (0..20).map(|n| format!("latest.{}{n}", "x".repeat(100))).collect();
    for room in &rooms {
        harness.enter(room);
    }
    harness.stall();
    harness.feed(&frame(0x81, b"first"));
    for room in &rooms {
        harness.publish_some(room, 2);
    }
    harness.make_room(2 + "first".len());
    // One that waited, the notice before it, and no other.
    assert!(harness.owes_at_most(2 * (2 + 125)));
    let texts = harness.texts();
    for room in &rooms {
        assert!(texts.contains(&format!("{room} 2")), "{room}");
    }
    assert_eq!(texts.len(), 1 + 2 * rooms.len());
}
