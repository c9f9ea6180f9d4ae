//! Tests of joins, leaves, patterns and members.

use super::*;

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
