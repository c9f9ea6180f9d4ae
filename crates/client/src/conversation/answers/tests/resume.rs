//! Tests of resumes, and of the session that takes the place of one that is gone.

use super::*;

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
