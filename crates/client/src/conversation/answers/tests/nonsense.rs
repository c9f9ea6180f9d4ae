//! Tests of frames that make little sense.

use super::*;

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
