//! Tests of what becomes of publishes, above all when their connection or session is lost.

use super::*;

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
fn what_the_server_would_close_for_is_not_sent() {
    let mut talk = ready();
    let ticket = talk.publish(&"x".repeat(1000), "a");
    assert!(talk.said().is_empty());
    assert!(ticket.wait(within(0)).unwrap_err().to_string().contains("too large"));
}
