//! Tests of what answers change.

use std::sync::Arc;

use rusty_socks_protocol::SEQ_MAX;
use serde_json::{Value, json, value::RawValue};

use crate::{
    ask::{Draft, PublishOptions, RequestSlot, Ticket},
    backoff::ASKED_MAX,
};

use super::{
    super::state::{DefaultRoom, Rules},
    *,
};

/// A conversation, and what its frames say.
struct Talk {
    inner: Conversation,
    now: Instant,
}

impl Talk {
    fn new() -> Talk {
        let default_room = DefaultRoom::Stay;
        let rules = Rules { default_room, in_flight_max: 4, rooms_max: 4, is_never_twice: false };
        Talk { inner: Conversation::new(rules, Arc::default()), now: Instant::now() }
    }

    fn open(&mut self) {
        self.inner.opened(self.now);
    }

    fn hear(&mut self, frame: Value) {
        self.inner.frame(&frame.to_string(), self.now);
    }

    fn said(&mut self) -> Vec<Value> {
        self.inner.pump(self.now);
        self.inner.frames.drain(..).map(|text| serde_json::from_str(&text).unwrap()).collect()
    }

    /// The answer to the one command that was said.
    fn answer(&mut self, mut frame: Value) -> Value {
        let said = self.said();
        assert_eq!(said.len(), 1, "{said:?}");
        frame["ref"] = said[0]["ref"].clone();
        self.hear(frame);
        said[0].clone()
    }

    fn ask<T>(&mut self, ask: Ask, read: fn(Answer) -> Option<T>) -> Ticket<T> {
        let place = RequestSlot::take(&Arc::default(), 1).unwrap();
        let (request, ticket) = Request::new(ask, place, read);
        self.inner.submit(request);
        ticket
    }

    fn join(&mut self, room: &str) -> Ticket<Entered> {
        let options = JoinOptions::default();
        self.ask(Ask::Join { room: room.into(), options, subscriber: None }, Answer::entered)
    }

    fn leave(&mut self, room: &str) -> Ticket<()> {
        self.ask(Ask::Leave { room: room.into() }, Answer::left)
    }

    fn publish(&mut self, room: &str, id: &str) -> Ticket<Receipt> {
        let message = draft(id, PublishOptions::default());
        self.ask(Ask::Publish { rooms: vec![room.into()], message }, Answer::receipt)
    }

    fn events(&mut self) -> Vec<String> {
        let name = |event: Event| match event {
            Event::Message(message) => message.content.get().to_owned(),
            other => format!("{other:?}").split([' ', '(']).next().unwrap_or_default().into(),
        };
        self.inner.events.drain(..).map(name).collect()
    }
}

fn draft(id: &str, options: PublishOptions) -> Draft {
    let content = RawValue::from_string("1".into()).unwrap();
    Draft { content: content.into(), id: id.into(), options }
}

fn welcome(client: &str) -> Value {
    json!({"type": "welcome", "client_id": client, "session": format!("{client}-token"),
        "room": "lobby", "epoch": "e", "seq": 2, "ping_s": 5, "max_message_bytes": 1000})
}

fn message(seq: u64, client: &str, content: u64) -> Value {
    json!({"type": "message", "room": "lobby", "seq": seq, "id": format!("id{seq}"),
        "content": content, "timestamp": "t", "client_id": client})
}

fn ready() -> Talk {
    let mut talk = Talk::new();
    talk.open();
    assert!(talk.said().is_empty(), "nothing is said before the welcome");
    talk.hear(welcome("me"));
    assert_eq!(talk.inner.ping.take(), Some(Duration::from_secs(5)));
    assert_eq!(talk.events(), ["Connected"]);
    talk
}

fn within(time: u64) -> Duration {
    Duration::from_millis(time)
}

#[test]
fn before_the_answer_to_a_resume_nothing_counts() {
    let mut talk = ready();
    talk.hear(message(3, "you", 3));
    talk.inner.lost();
    talk.open();
    let resume = talk.said().remove(0);
    assert_eq!(resume["type"], "resume");
    assert_eq!(resume["session"], "me-token");
    assert_eq!(resume["rooms"], json!([{"room": "lobby", "epoch": "e", "seq": 3}]));
    assert_eq!(resume["direct"], 0);
    talk.hear(welcome("other"));
    talk.hear(message(5, "you", 5));
    assert_eq!(talk.events(), ["3"]);
    let lobby = json!({"room": "lobby", "epoch": "e", "seq": 5, "recovered": true,
        "messages": [message(4, "me", 4), message(5, "you", 5)]});
    talk.hear(json!({"type": "ok", "ref": resume["ref"], "client_id": "me", "session": "me-token",
        "patterns": [], "rooms": [lobby], "direct": {"seq": 0, "recovered": true}}));
    assert_eq!(talk.events(), ["Connected", "5"], "one's own is not told");
}

#[test]
fn without_recovery_rooms_are_joined_again_from_where_one_was() {
    let mut talk = ready();
    talk.inner.lost();
    talk.open();
    talk.hear(welcome("new"));
    let waiting = talk.publish("lobby", "id4");
    let code = json!({"type": "error", "code": "unrecoverable", "message": "gone"});
    talk.answer(code);
    assert_eq!(talk.events(), ["SessionLost", "Connected"]);
    let said = talk.said();
    let kinds: Vec<_> = said.iter().map(|one| one["type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["leave", "join"], "and the publish waits");
    assert_eq!(said[1]["since"], json!({"epoch": "e", "seq": 2}));
    // The replay of the new connection's own default room comes in between, and is passed over.
    talk.hear(message(3, "you", 3));
    talk.hear(json!({"type": "ok", "ref": said[0]["ref"], "room": "lobby"}));
    talk.hear(json!({"type": "ok", "ref": said[1]["ref"], "room": "lobby", "epoch": "e", "seq": 4,
        "recovered": true, "messages": [message(3, "you", 3), message(4, "me", 4)]}));
    assert_eq!(talk.events(), ["3"]);
    // It got there under the old name, so it is not sent again.
    let receipt = waiting.wait(within(0)).unwrap();
    assert!(receipt.repeated && receipt.seq == 4);
    assert!(talk.said().is_empty());
}

#[test]
fn a_gap_that_a_loss_interrupts_is_closed_by_the_resume() {
    let mut talk = ready();
    talk.hear(json!({"type": "gap", "room": "lobby", "from": 3, "to": 4}));
    talk.hear(message(5, "you", 5));
    let history = talk.said().remove(0);
    assert_eq!((&history["type"], &history["after"]), (&json!("history"), &json!(2)));
    talk.inner.lost();
    talk.open();
    let lobby = json!({"room": "lobby", "epoch": "e", "seq": 5, "recovered": true,
        "messages": [message(3, "you", 3), message(4, "you", 4), message(5, "you", 5)]});
    let resume = talk.answer(json!({"type": "ok", "client_id": "me", "session": "me-token",
        "patterns": [], "rooms": [lobby], "direct": {"seq": 0, "recovered": true}}));
    assert_eq!(resume["rooms"][0]["seq"], 2);
    assert_eq!(talk.events(), ["Connected", "3", "4", "5"]);
}

#[test]
fn a_room_goes_on_where_the_server_says_and_a_loss_is_told() {
    let mut talk = ready();
    talk.hear(json!({"type": "gap", "room": "lobby", "from": 3, "to": 4}));
    let stale = talk.said().remove(0);
    let own = talk.publish("lobby", "id4");
    let publish = talk.said().remove(0);
    talk.hear(json!({"type": "epoch", "room": "nowhere", "epoch": "f", "seq": 9}));
    talk.hear(json!({"type": "epoch", "room": "lobby", "epoch": "f", "seq": 3}));
    talk.hear(json!({"type": "ok", "ref": stale["ref"], "room": "lobby", "epoch": "e", "seq": 4,
        "messages": [message(3, "you", 33), message(4, "you", 34)]}));
    assert_eq!(talk.events(), ["Lost"], "and the page of the earlier epoch is void");
    // Its number may be of the earlier epoch.
    talk.hear(json!({"type": "ok", "ref": publish["ref"], "room": "lobby", "seq": 4, "id": "id4"}));
    assert_eq!(own.wait(within(0)).unwrap().seq, 4);
    talk.hear(message(4, "you", 4));
    let history = talk.answer(json!({"type": "ok", "room": "lobby", "epoch": "f", "seq": 4,
        "messages": [message(3, "you", 3)]}));
    assert_eq!((&history["type"], &history["after"]), (&json!("history"), &json!(2)));
    assert_eq!(talk.events(), ["3", "4"]);
    assert_eq!(talk.inner.reorderer.position("lobby"), Some(("f", 4)));
}

#[test]
fn a_server_without_sessions_is_joined_anew() {
    let mut talk = Talk::new();
    talk.open();
    let mut old = welcome("me");
    old.as_object_mut().unwrap().remove("session");
    talk.hear(old.clone());
    talk.inner.lost();
    talk.open();
    assert!(talk.said().is_empty());
    talk.hear(old);
    assert_eq!(talk.said().len(), 2);
}

#[test]
fn what_is_put_off_is_sent_again_in_its_turn_with_the_same_id() {
    let mut talk = ready();
    let (one, two) = (talk.publish("lobby", "a"), talk.publish("lobby", "b"));
    let said = talk.said();
    let limited = |at: usize| {
        json!({"type": "error", "ref": said[at]["ref"], "code": "rate_limited", "message": "m",
            "retry_after_ms": 100})
    };
    talk.hear(limited(1));
    talk.hear(limited(0));
    let _late = talk.publish("lobby", "c");
    assert!(talk.said().is_empty());
    talk.now += within(100);
    let ok = |seq| json!({"type": "ok", "room": "lobby", "seq": seq});
    assert_eq!(talk.answer(ok(3))["id"], "a", "one at a time, until it is granted");
    let ids: Vec<_> = talk.said().iter().map(|one| one["id"].clone()).collect();
    assert_eq!(ids, ["b", "c"]);
    assert_eq!(one.wait(within(0)).unwrap().seq, 3);
    drop(two);
}

/// What `welcome` tells, in the words of the server.
fn limited(limits: Value) -> Talk {
    let mut talk = Talk::new();
    talk.open();
    let mut frame = welcome("me");
    frame["limits"] = limits;
    talk.hear(frame);
    talk
}

#[test]
fn no_more_is_sent_than_the_welcome_allows() {
    let mut talk = limited(json!({"rate_messages": 3, "max_rooms": 100}));
    let tickets: Vec<_> = (0..6).map(|id| talk.publish("lobby", &id.to_string())).collect();
    let mut times = Vec::new();
    let start = talk.now;
    while times.len() < tickets.len() {
        for command in talk.said() {
            times.push((talk.now - start).as_millis() as u64);
            let seq = times.len();
            talk.hear(json!({"type": "ok", "ref": command["ref"], "seq": seq}));
        }
        if let Some(due) = talk.inner.due() {
            talk.now = due;
        }
    }
    // 2.7 at once, and 2.7 a second from then on.
    assert_eq!(times[..2], [0, 0]);
    for (at, expected) in times[2..].iter().zip([112, 482, 852, 1223]) {
        assert!(at.abs_diff(expected) < 5, "{times:?}");
    }
}

#[test]
fn the_session_s_own_commands_are_paced_too_and_each_connection_by_itself() {
    let mut talk = limited(json!({"rate_messages": 2}));
    let _joined = [talk.join("a"), talk.join("b")];
    assert_eq!(talk.said().len(), 1, "1.8 at once");
    talk.inner.lost();
    talk.open();
    let resume = talk.said();
    assert_eq!((resume.len(), &resume[0]["type"]), (1, &json!("resume")));
    talk.hear(json!({"type": "ok", "ref": resume[0]["ref"]}));
    assert!(talk.said().is_empty(), "the resume has used what there was");
    assert!(talk.inner.due().is_some());
}

#[test]
fn limits_that_make_no_sense_are_none() {
    for limits in [json!({}), json!({"rate_messages": 0, "rate_bytes": -1}), json!(null)] {
        let mut talk = limited(limits.clone());
        let _tickets: Vec<_> = (0..4).map(|id| talk.publish("lobby", &id.to_string())).collect();
        assert_eq!(talk.said().len(), 4, "{limits}");
    }
}

/// A server that does not tell its limits refuses what is on the wire, and nothing after that.
#[test]
fn after_a_refusal_nothing_is_sent_before_its_time() {
    let mut talk = ready();
    let _tickets: Vec<_> = (0..9).map(|id| talk.publish("lobby", &id.to_string())).collect();
    let said = talk.said();
    assert_eq!(said.len(), 4);
    for command in &said {
        talk.hear(json!({"type": "error", "ref": command["ref"], "code": "rate_limited",
            "retry_after_ms": 500}));
        assert!(talk.said().is_empty());
    }
    talk.now += within(499);
    assert!(talk.said().is_empty());
    talk.now += within(1);
    assert_eq!(talk.said()[0]["id"], "0", "and one at a time, in their order");
}

/// After the loss of a session the default room is left and joined again, in this order even if
/// both are put off.
#[test]
fn what_is_put_off_of_a_rejoin_keeps_its_order() {
    let mut talk = ready();
    talk.inner.lost();
    talk.open();
    talk.hear(welcome("new"));
    talk.answer(json!({"type": "error", "code": "unrecoverable"}));
    for command in talk.said() {
        talk.hear(json!({"type": "error", "ref": command["ref"], "code": "overloaded",
            "retry_after_ms": 10}));
    }
    talk.now += within(10);
    let leave = talk.answer(json!({"type": "ok", "room": "lobby"}));
    assert_eq!((&leave["type"], &leave["room"]), (&json!("leave"), &json!("lobby")));
    let join = talk.answer(json!({"type": "ok", "room": "lobby", "epoch": "e", "seq": 2}));
    assert_eq!((&join["type"], &join["room"]), (&json!("join"), &json!("lobby")));
    assert_eq!(talk.events(), ["SessionLost", "Connected"]);
}

#[test]
fn a_leave_counts_from_its_call_on_and_a_join_behind_it_from_its_answer() {
    let mut talk = ready();
    talk.hear(message(3, "you", 3));
    let left = talk.leave("lobby");
    talk.hear(message(4, "you", 4));
    talk.hear(json!({"type": "joined", "room": "lobby", "client_id": "you"}));
    let joined = talk.join("lobby");
    talk.hear(message(5, "you", 5));
    assert!(talk.events().is_empty(), "not even what came before, for nobody has taken it");
    assert_eq!(talk.answer(json!({"type": "ok", "room": "lobby"}))["type"], "leave");
    assert!(left.wait(within(0)).is_ok());
    let ok = json!({"type": "ok", "room": "lobby", "epoch": "e", "seq": 6});
    assert_eq!(talk.answer(ok)["type"], "join", "which has waited for the answer to the leave");
    assert_eq!(joined.wait(within(0)).unwrap().position.unwrap().seq, 6);
    talk.hear(message(7, "you", 7));
    assert_eq!(talk.events(), ["7"]);
}

#[test]
fn changes_of_presence_that_come_together_are_events_one_by_one() {
    let mut talk = ready();
    let anna = json!({"client_id": "anna", "sender": "Anna"});
    let (ben, me) = (json!({"client_id": "ben"}), json!({"client_id": "me"}));
    talk.hear(json!({"type": "presence", "room": "lobby", "joined": [anna, me], "left": [ben]}));
    talk.hear(json!({"type": "presence", "room": "lobby", "joined": [ben], "left": [me]}));
    talk.hear(json!({"type": "presence", "room": "elsewhere", "joined": [anna], "left": [ben]}));
    let mut alone = ready();
    alone.hear(json!({"type": "joined", "room": "lobby", "client_id": "anna",
        "sender": "Anna"}));
    alone.hear(json!({"type": "left", "room": "lobby", "client_id": "ben"}));
    alone.hear(json!({"type": "joined", "room": "lobby", "client_id": "ben"}));
    let events = |talk: &mut Talk| {
        talk.inner.events.drain(..).map(|event| format!("{event:?}")).collect::<Vec<_>>()
    };
    let together = events(&mut talk);
    assert_eq!(together.len(), 3, "the session itself is not news, nor is another room");
    assert_eq!(together, events(&mut alone));

    let _left = talk.leave("lobby");
    talk.hear(json!({"type": "presence", "room": "lobby", "joined": [anna], "left": []}));
    assert!(talk.events().is_empty(), "a room that is being left is silent");
}

#[test]
fn a_room_that_was_left_while_away_does_not_come_back_with_the_resume() {
    let mut talk = ready();
    talk.inner.lost();
    let _left = talk.leave("lobby");
    talk.open();
    let lobby = json!({"room": "lobby", "epoch": "e", "seq": 3, "recovered": true,
        "messages": [message(3, "you", 3)]});
    let resume = talk.answer(json!({"type": "ok", "rooms": [lobby]}));
    assert_eq!(resume["rooms"], json!([]), "or the server would join it");
    assert_eq!(talk.answer(json!({"type": "ok"}))["type"], "leave");
    assert_eq!(talk.events(), ["Connected"]);
    // Nor one that the server has it in though the answer to its leave was lost.
    talk.inner.lost();
    talk.open();
    let lobby = json!({"room": "lobby", "epoch": "e", "seq": 3});
    talk.answer(json!({"type": "ok", "rooms": [lobby]}));
    talk.hear(message(4, "you", 4));
    assert_eq!(talk.events(), ["Connected"]);
    assert_eq!(talk.said()[0]["type"], "leave");
}

#[test]
fn a_room_of_a_pattern_that_is_joined_by_its_name_too_outlives_the_pattern() {
    let mut talk = ready();
    let _pattern = talk.join("p.*");
    let rooms = json!([{"room": "p.a", "epoch": "e", "seq": 1}]);
    talk.answer(json!({"type": "ok", "room": "p.*", "rooms": rooms}));
    let by_name = talk.join("p.a");
    assert!(talk.said().is_empty(), "it is in it");
    assert_eq!(by_name.wait(within(0)).unwrap().position.unwrap().seq, 1);
    let _left = talk.leave("p.*");
    talk.answer(json!({"type": "ok", "room": "p.*"}));
    let join = talk.answer(json!({"type": "ok", "room": "p.a", "epoch": "e", "seq": 1}));
    assert_eq!(join["since"], json!({"epoch": "e", "seq": 1}));
    let mut live = message(2, "you", 2);
    live["room"] = json!("p.a");
    talk.hear(live);
    assert_eq!(talk.events(), ["2"]);
}

#[test]
fn what_is_put_off_for_ever_is_refused() {
    let mut talk = ready();
    let ticket = talk.publish("lobby", "a");
    for _ in 0..ATTEMPTS_MAX {
        talk.now += within(100);
        talk.answer(json!({"type": "error", "code": "overloaded", "retry_after_ms": 100}));
    }
    assert_eq!(ticket.wait(within(0)).unwrap_err().code(), Some("overloaded"));
    assert!(talk.said().is_empty());
}

#[test]
fn only_a_broadcast_is_given_up_with_its_connection() {
    let mut talk = ready();
    let message = draft("a", PublishOptions::default());
    let broadcast = talk.ask(Ask::Broadcast { message }, Answer::sent);
    let publish = talk.publish("lobby", "b");
    assert_eq!(talk.said().len(), 2);
    talk.inner.lost();
    assert!(!broadcast.wait(within(0)).unwrap_err().is_timeout());
    assert!(publish.wait(within(0)).unwrap_err().is_timeout());
    talk.inner.end(&Error::rejected("x", "over"));
    assert_eq!(publish.wait(within(0)).unwrap_err().code(), Some("x"));
}

#[test]
fn a_room_left_one_by_one_does_not_come_back_with_its_pattern() {
    let mut talk = ready();
    let _joined = talk.join("p.*");
    let rooms =
        json!([{"room": "p.a", "epoch": "e", "seq": 1}, {"room": "p.b", "epoch": "e", "seq": 1}]);
    let listed = json!({"type": "ok", "room": "p.*", "rooms": rooms});
    talk.answer(listed.clone());
    let _left = talk.leave("p.a");
    talk.answer(json!({"type": "ok", "room": "p.a"}));
    talk.inner.lost();
    talk.open();
    talk.hear(welcome("new"));
    talk.answer(json!({"type": "error", "code": "unrecoverable"}));
    for command in talk.said() {
        let mut answer = listed.clone();
        answer["ref"] = command["ref"].clone();
        if command["type"] == "join" && command["room"] == "p.*" {
            talk.hear(answer);
        }
    }
    let said = talk.said();
    assert_eq!((&said[0]["type"], &said[0]["room"]), (&json!("leave"), &json!("p.a")));
}

#[test]
fn no_number_of_a_server_makes_one_wait_for_years() {
    let mut talk = ready();
    talk.hear(json!({"type": "closing", "reason": "drain", "reconnect_after_ms": u64::MAX}));
    assert_eq!(talk.inner.closing, Some(ASKED_MAX));
    let _ticket = talk.publish("lobby", "a");
    talk.answer(json!({"type": "error", "code": "overloaded", "retry_after_ms": u64::MAX}));
    assert!(talk.said().is_empty());
    talk.now += ASKED_MAX;
    assert_eq!(talk.said()[0]["id"], "a");
}

#[test]
fn pings_are_believed_within_bounds() {
    let expected = [
        (json!(0), PING),
        (json!(-1), PING),
        (json!(null), PING),
        (json!(1e-9), PING_MIN),
        (json!(90.5), Duration::from_millis(90_500)),
        (json!(1.8e19), PING_MAX),
        (json!(1e300), PING),
    ];
    for (said, understood) in expected {
        let mut talk = Talk::new();
        talk.open();
        let mut frame = welcome("me");
        frame["ping_s"] = said.clone();
        talk.hear(frame);
        assert_eq!(talk.inner.ping, Some(understood), "{said}");
    }
}

#[test]
fn a_welcome_without_the_essential_is_none_and_one_without_the_rest_will_do() {
    let mut talk = Talk::new();
    talk.open();
    talk.hear(json!({"type": "welcome", "max_message_bytes": 1e300, "client_id": "me"}));
    talk.hear(json!({"type": "welcome", "room": "lobby"}));
    assert!(!talk.inner.is_welcome());
    talk.hear(json!({"type": "welcome", "client_id": "me", "max_message_bytes": 0}));
    assert!(talk.inner.is_welcome());
    let ticket = talk.publish("lobby", "a");
    assert!(talk.said().is_empty());
    assert!(ticket.wait(within(0)).unwrap_err().to_string().contains("the server takes 0"));
}

#[test]
fn a_server_that_lists_rooms_without_end_is_left() {
    let matched = |room: &str| json!({"type": "matched", "pattern": "p.*", "room": room, "epoch": "e", "seq": 0});
    let mut talk = ready();
    let _joined = talk.join("p.*");
    talk.answer(json!({"type": "ok", "room": "p.*", "rooms": []}));
    for room in ["p.1", "p.2", "p.3", "p.3"] {
        talk.hear(matched(room));
    }
    assert!(talk.inner.fault.is_none(), "these and the lobby are four");
    talk.hear(matched("p.4"));
    let fault = talk.inner.fault.take().expect("a fault");
    assert!(fault.to_string().contains("more than 4 rooms"), "{fault}");
}

#[test]
fn members_are_asked_for_once_at_a_time() {
    let mut talk = ready();
    let gap = json!({"type": "gap", "room": "lobby", "presence": true});
    for _ in 0..3 {
        talk.hear(gap.clone());
        talk.hear(json!({"type": "gap", "room": "nowhere", "presence": true}));
    }
    talk.answer(json!({"type": "ok", "members": [], "count": 0}));
    talk.hear(gap.clone());
    talk.answer(json!({"type": "error", "code": "internal"}));
    talk.hear(gap.clone());
    assert_eq!(talk.said().len(), 1);
    talk.inner.lost();
    talk.open();
    talk.answer(json!({"type": "ok", "rooms": [{"room": "lobby", "epoch": "e", "seq": 2}]}));
    talk.hear(gap);
    assert_eq!(talk.said()[0]["type"], "presence", "the first question went with its connection");
}

#[test]
fn numbers_beyond_all_counting_are_no_numbers() {
    let mut talk = ready();
    for beyond in [1 << 63, u64::MAX] {
        talk.hear(json!({"type": "gap", "room": "lobby", "from": 0, "to": beyond}));
        talk.hear(message(beyond, "you", 1));
        let mut several = message(3, "you", 1);
        several["rooms"] = json!([{"room": "lobby", "seq": beyond}]);
        talk.hear(several);
    }
    assert!(talk.said().is_empty() && talk.events().is_empty());
    talk.hear(json!({"type": "gap", "room": "lobby", "from": 0, "to": SEQ_MAX}));
    talk.answer(json!({"type": "ok", "epoch": "e", "seq": SEQ_MAX, "messages": []}));
    assert_eq!(talk.events(), ["Lost"]);
    talk.hear(message(SEQ_MAX, "you", 1));
    assert!(talk.said().is_empty() && talk.events().is_empty());
}

#[test]
fn half_of_a_surrogate_pair_hides_no_message() {
    let mut talk = ready();
    let odd = r#""sender":"a\ud800","content":["\udc00"]"#;
    for kind in ["message", "direct", "broadcast"] {
        let mut frame = message(3, "you", 3);
        frame["type"] = json!(kind);
        let frame = frame.to_string().replace(r#""content":3"#, odd);
        talk.inner.frame(&frame, talk.now);
        let (sender, content) = match talk.inner.events.pop_front() {
            Some(Event::Message(message)) => (message.sender, message.content),
            Some(Event::Direct(message) | Event::Broadcast(message)) => {
                (message.sender, message.content)
            }
            other => panic!("{frame}: {other:?}"),
        };
        assert_eq!(sender.as_deref(), Some("a\u{fffd}"));
        assert_eq!(content.get(), r#"["\udc00"]"#, "as it was sent");
    }
}

#[test]
fn an_answer_that_makes_no_sense_is_told_and_an_error_without_it_is_one() {
    let mut talk = ready();
    let ticket = talk.publish("lobby", "a");
    talk.answer(json!({"type": "ok", "seq": -1}));
    assert_eq!(ticket.wait(within(0)).unwrap_err().kind(), ErrorKind::Misbehaved);
    let ticket = talk.publish("lobby", "a");
    talk.answer(json!({"type": "error", "retry_after_ms": "soon"}));
    assert_eq!(ticket.wait(within(0)).unwrap_err().code(), Some("internal"));
    talk.hear(json!({"type": "gap", "room": "lobby", "from": 3, "to": 4}));
    talk.answer(json!({"type": "ok", "epoch": 7}));
    assert_eq!(talk.events(), ["Lost"], "a page that cannot be read cannot be had");
}

#[test]
fn what_the_server_would_close_for_is_not_sent() {
    let mut talk = ready();
    let ticket = talk.publish(&"x".repeat(1000), "a");
    assert!(talk.said().is_empty());
    assert!(ticket.wait(within(0)).unwrap_err().to_string().contains("too large"));
}

/// Both sessions are in the lobby; the answer to the resume is that there is nothing to resume.
fn lose_session(talk: &mut Talk, replay: &[Value]) {
    talk.open();
    let resume = talk.said().remove(0);
    talk.hear(welcome("other"));
    talk.hear(json!({"type": "error", "ref": resume["ref"], "code": "unrecoverable"}));
    for command in talk.said() {
        match command["type"].as_str().unwrap() {
            "leave" => talk.hear(json!({"type": "ok", "ref": command["ref"]})),
            "join" => talk.hear(json!({"type": "ok", "ref": command["ref"], "room": "lobby",
                "epoch": "e", "seq": 2 + replay.len(), "recovered": true, "messages": replay})),
            other => panic!("{other} before the rooms are joined again"),
        }
    }
}

#[test]
fn in_a_new_session_what_may_be_published_is_sent_again_unless_that_is_forbidden() {
    for is_never_twice in [false, true] {
        let mut talk = ready();
        talk.inner.rules.is_never_twice = is_never_twice;
        let sent = talk.publish("lobby", "sent");
        assert_eq!(talk.said().len(), 1);
        talk.inner.lost();
        let waits = talk.publish("lobby", "waits");
        lose_session(&mut talk, &[]);
        let said: Vec<Value> = talk.said().into_iter().map(|one| one["id"].clone()).collect();
        if is_never_twice {
            assert_eq!(said, ["waits"]);
            assert_eq!(sent.wait(Duration::ZERO).unwrap_err().kind(), ErrorKind::Unknown);
        } else {
            assert_eq!(said, ["sent", "waits"]);
            assert!(sent.wait(Duration::ZERO).unwrap_err().is_timeout());
        }
        assert!(waits.wait(Duration::ZERO).unwrap_err().is_timeout());
    }
}

#[test]
fn what_the_replay_of_a_new_session_has_was_published() {
    let mut talk = ready();
    talk.inner.rules.is_never_twice = true;
    let sent = talk.publish("lobby", "id3");
    assert_eq!(talk.said().len(), 1);
    talk.inner.lost();
    lose_session(&mut talk, &[message(3, "me", 3)]);
    let receipt = sent.wait(Duration::ZERO).unwrap();
    assert_eq!((receipt.seq, receipt.repeated), (3, true));
    assert!(talk.said().is_empty());
}

#[test]
fn what_only_a_silent_redis_knows_and_what_an_end_cuts_off_is_unknown() {
    let mut talk = ready();
    talk.inner.rules.is_never_twice = true;
    let refused = talk.publish("lobby", "a");
    talk.answer(json!({"type": "error", "code": "overloaded"}));
    let error = refused.wait(Duration::ZERO).unwrap_err();
    assert_eq!((error.kind(), error.code()), (ErrorKind::Unknown, None), "{error}");
    let refused = talk.publish("lobby", "b");
    talk.answer(json!({"type": "error", "code": "forbidden"}));
    assert_eq!(refused.wait(Duration::ZERO).unwrap_err().code(), Some("forbidden"));
    let sent = talk.publish("lobby", "c");
    assert_eq!(talk.said().len(), 1);
    let waits = talk.publish("lobby", "d");
    talk.inner.end(&Error::new(ErrorKind::Closed, "over"));
    assert_eq!(sent.wait(Duration::ZERO).unwrap_err().kind(), ErrorKind::Unknown);
    assert_eq!(waits.wait(Duration::ZERO).unwrap_err().kind(), ErrorKind::Closed);
}

#[test]
fn what_was_taken_back_is_not_sent_and_what_was_given_up_not_again() {
    let mut talk = ready();
    let taken_back = talk.publish("lobby", "a");
    talk.inner.waiting[0].fate.withdraw();
    assert!(talk.said().is_empty());
    assert_eq!(taken_back.wait(Duration::ZERO).unwrap_err().kind(), ErrorKind::Closed);
    let _given_up = talk.publish("lobby", "b");
    assert_eq!(talk.said().len(), 1);
    for in_flight in talk.inner.in_flight.values() {
        let InFlight::Request(request) = in_flight else { panic!("{in_flight:?}") };
        request.fate.give_up();
    }
    talk.inner.lost();
    assert!(talk.inner.waiting.is_empty());
}

#[test]
fn a_room_that_a_resume_has_as_overloaded_is_joined_again_from_where_one_was() {
    let mut talk = ready();
    talk.hear(message(3, "you", 3));
    assert_eq!(talk.events(), ["3"]);
    talk.inner.lost();
    talk.open();
    talk.hear(welcome("other"));
    let rooms = json!([{"room": "lobby", "error": "overloaded"}]);
    talk.answer(json!({"type": "ok", "client_id": "me", "session": "me-token", "patterns": [],
        "rooms": rooms, "direct": {"seq": 0, "recovered": true}}));
    let join = talk.answer(json!({"type": "ok", "room": "lobby", "epoch": "e", "seq": 4,
        "recovered": true, "messages": [message(4, "you", 4)]}));
    assert_eq!((&join["type"], &join["room"]), (&json!("join"), &json!("lobby")));
    assert_eq!(join["since"], json!({"epoch": "e", "seq": 3}));
    talk.said();
    assert_eq!(talk.events(), ["Connected", "4"]);
}
