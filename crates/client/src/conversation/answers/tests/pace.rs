//! Tests of how fast is sent, and of what the server puts off.

use super::*;

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
