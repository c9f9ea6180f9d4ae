//! Each frame is read as it was written, and written as it was read: byte for byte.

use rusty_socks_protocol::{
    Answer, Command, CommandFields, Content, ErrorCode, Head, Message, Notice, Overflow, Position,
    Request, RoomPosition, SEQ_MAX, Seconds,
    answer::{self, Kind},
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

fn read<'a, T: Deserialize<'a>>(text: &'a str) -> T {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn write(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("it can be written")
}

/// Reads an answer as a client does, and writes it as a server does.
fn round<'a, B: Deserialize<'a> + Serialize>(kind: Kind, text: &'a str) {
    let head: Head<'_> = read(text);
    assert_eq!(write(&kind), format!("\"{}\"", head.kind));
    let answer = Answer { kind, reference: head.reference, body: read::<B>(text) };
    assert_eq!(write(&answer), text);
}

const MESSAGE: &str = r#"{"type":"message","room":"tea","seq":7,"id":"i","sender":"\ud800","content":{"a": [1,  2.50]},"timestamp":"2026-11-21T07:29:01.771Z","client_id":"c"}"#;

#[test]
fn answers_survive_the_round() {
    round::<answer::Welcome<'_>>(
        Kind::Welcome,
        r#"{"type":"welcome","client_id":"c","session":"s","room":"lobby","epoch":"e","seq":0,"server":"rusty_socks/0.1.0","node":"n","ping_s":30,"max_message_bytes":65536,"resume_window_s":0.5,"limits":{"rate_messages":5,"max_rooms":100}}"#,
    );
    round::<answer::Published<'_>>(
        Kind::Ok,
        r#"{"type":"ok","ref":"a\u0020\"b","room":"é\n","seq":1,"id":"i"}"#,
    );
    round::<answer::PublishedToRooms<'_>>(
        Kind::Ok,
        r#"{"type":"ok","ref":1.50,"rooms":[{"room":"a","seq":1},{"room":"b","seq":2}],"id":"i","repeated":true}"#,
    );
    round::<answer::Sent<'_>>(Kind::Ok, r#"{"type":"ok","to":"c","id":"i","repeated":true}"#);
    round::<answer::Sent<'_>>(Kind::Ok, r#"{"type":"ok","id":"i"}"#);
    let joined = format!(
        r#"{{"type":"ok","room":"tea","epoch":"e","seq":7,"recovered":true,"overflow":"gap","messages":[{MESSAGE},{MESSAGE}],"members":[{{"client_id":"c","sender":"anna"}},{{"client_id":"d"}}],"count":2}}"#
    );
    round::<answer::Joined<'_>>(Kind::Ok, &joined);
    round::<answer::Left<'_>>(Kind::Ok, r#"{"type":"ok","ref":2,"room":"tea"}"#);
    round::<answer::Subscribed<'_>>(
        Kind::Ok,
        r#"{"type":"ok","room":"a.*","rooms":[{"room":"a.b","epoch":"e","seq":3,"overflow":"latest"}]}"#,
    );
    let page =
        format!(r#"{{"type":"ok","room":"tea","epoch":"e","seq":7,"messages":[{MESSAGE}]}}"#);
    round::<answer::Page<'_>>(Kind::Ok, &page);
    round::<answer::Members<'_>>(Kind::Ok, r#"{"type":"ok","room":"tea","members":[],"count":0}"#);
    let resumed = format!(
        r#"{{"type":"ok","client_id":"c","session":"s","patterns":["a.*"],"rooms":[{{"room":"tea","epoch":"e","seq":7,"recovered":false,"overflow":"close","messages":[{MESSAGE}],"members":[],"count":0}},{{"room":"b","error":"limit_exceeded"}}],"direct":{{"seq":4,"recovered":true}}}}"#
    );
    round::<answer::Resumed<'_>>(Kind::Ok, &resumed);
    round::<answer::Pong>(Kind::Pong, r#"{"type":"pong","ref":3}"#);
    round::<answer::Error<'_>>(
        Kind::Error,
        r#"{"type":"error","ref":3,"code":"rate_limited","message":"slow \"down\"","retry_after_ms":80}"#,
    );
}

#[test]
fn messages_and_notices_survive_the_round() {
    for text in [
        MESSAGE,
        r#"{"type":"message","room":"a","seq":1,"rooms":[{"room":"a","seq":1},{"room":"b","seq":2}],"id":"i","content":null,"timestamp":"t","client_id":"c"}"#,
        r#"{"type":"direct","seq":1,"id":"i","content":1e400,"timestamp":"t","client_id":"c"}"#,
        r#"{"type":"broadcast","id":"i","content":"","timestamp":"t","client_id":"c"}"#,
    ] {
        assert_eq!(write(&read::<Message<'_>>(text)), text);
    }
    for text in [
        r#"{"type":"joined","room":"tea","client_id":"c","sender":"anna"}"#,
        r#"{"type":"left","room":"tea","client_id":"c"}"#,
        r#"{"type":"presence","room":"tea","joined":[{"client_id":"c","sender":"anna"}],"left":[]}"#,
        r#"{"type":"gap","room":"tea","from":3,"to":4}"#,
        r#"{"type":"gap","room":"tea","presence":true}"#,
        r#"{"type":"epoch","room":"tea","epoch":"e","seq":10}"#,
        r#"{"type":"matched","pattern":"a.*","room":"a.b","epoch":"e","seq":0,"overflow":"close"}"#,
        r#"{"type":"unmatched","pattern":"a.*","room":"a.b"}"#,
        r#"{"type":"closing","reason":"drain","reconnect_after_ms":3141}"#,
    ] {
        assert_eq!(write(&read::<Notice<'_>>(text)), text);
    }
}

#[test]
fn what_is_not_known_is_passed_over() {
    let text = r#"{"type":"ok","ref":1,"room":"tea","new":{"in":["a","later"]},"seq":1,"id":"i"}"#;
    assert_eq!(read::<answer::Published<'_>>(text).seq, 1);
    let text = r#"{"type":"error","code":"teapot","message":""}"#;
    let error: answer::Error<'_> = read(text);
    assert_eq!(error.code, ErrorCode::Other("teapot".into()));
    assert_eq!(write(&Answer::error(None, error)), text);
    assert!(serde_json::from_str::<Notice<'_>>(r#"{"type":"later"}"#).is_err());
    for code in ErrorCode::KNOWN {
        assert_eq!(&ErrorCode::from(code.as_str()), code);
    }
}

#[test]
fn a_field_that_is_missing_or_makes_no_sense_does_not_spoil_a_frame() {
    let welcome: answer::Welcome<'_> = read(
        r#"{"type":"welcome","client_id":"c","ping_s":null,"limits":{"rate_messages":-1,"rate_bytes":0.5}}"#,
    );
    assert_eq!((welcome.ping_s, welcome.max_message_bytes), (Seconds(0.0), usize::MAX));
    assert_eq!(welcome.limits, answer::Limits::default());
    assert_eq!(read::<answer::Welcome<'_>>(r#"{"client_id":"c","limits":null}"#).session, "");
    let joined: answer::Joined<'_> = read(r#"{"room":"a","overflow":"later"}"#);
    assert_eq!((joined.overflow, joined.seq, joined.recovered), (Overflow::Close, 0, false));
    assert!(read::<answer::Resumed<'_>>("{}").direct.recovered);
    assert_eq!(read::<answer::Error<'_>>("{}").code, ErrorCode::Internal);
    assert!(serde_json::from_str::<answer::Welcome<'_>>("{}").is_err(), "the essential");
}

#[test]
fn numbers_beyond_all_counting_are_not_read() {
    for (seq, is_read) in [(SEQ_MAX, true), (SEQ_MAX + 1, false)] {
        let text = format!(r#"{{"type":"gap","room":"a","from":1,"to":{seq}}}"#);
        assert_eq!(serde_json::from_str::<Notice<'_>>(&text).is_ok(), is_read);
        let text = MESSAGE.replace(r#""seq":7"#, &format!(r#""seq":{seq}"#));
        assert_eq!(serde_json::from_str::<Message<'_>>(&text).is_ok(), is_read);
        let text = format!(r#"{{"room":"a","epoch":"e","seq":{seq}}}"#);
        assert_eq!(serde_json::from_str::<answer::Page<'_>>(&text).is_ok(), is_read);
    }
}

#[test]
fn reading_copies_nothing_that_needs_no_unescaping() {
    let text = r#"{"type":"ok","room":"tea","seq":1,"id":"i"}"#;
    let within = text.as_bytes().as_ptr_range();
    let room = read::<answer::Published<'_>>(text).room;
    assert!(within.contains(&room.as_ptr()));
    let content = read::<Message<'_>>(MESSAGE).content.get();
    assert!(MESSAGE.as_bytes().as_ptr_range().contains(&content.as_ptr()));
}

#[test]
fn seconds_are_whole_where_they_can_be() {
    let written = [0.0, 30.0, 0.2, 1.5, 2_f64.powi(53), 2_f64.powi(60)].map(|s| write(&Seconds(s)));
    let whole = (1_u64 << 53).to_string();
    assert_eq!(written, ["0", "30", "0.2", "1.5", &whole, "1.152921504606847e+18"]);
    assert_eq!(read::<Seconds>("30"), Seconds(30.0));
}

fn fields(command: Command<'_>) -> String {
    let text = write(&Request { command, reference: Some(7) });
    let fields: CommandFields<'_> = read(&text);
    assert_eq!(fields.reference.map(RawValue::get), Some("7"), "{text}");
    text
}

#[test]
fn commands_are_written_as_the_reference_has_them() {
    let raw: &RawValue = read("null");
    let content =
        || Content { content: raw, id: None, sender: Some("anna".into()), timestamp: None };
    let (room, rooms) = (Some("tea".into()), Some(vec!["a".into(), "b".into()]));
    let publish = Command::Publish { room, rooms: None, content: content(), echo: true };
    let to_rooms = Command::Publish { room: None, rooms, content: content(), echo: false };
    let since = Some(Position { epoch: "e".into(), seq: 3 });
    let sender = Some("anna".into());
    let join = Command::Join { room: "tea".into(), since, presence: true, sender };
    let rooms = vec![RoomPosition { room: "tea".into(), epoch: "e".into(), seq: 3 }];
    let (before, after, limit) = (None, Some(3), Some(10));
    let expected = [
        (
            publish,
            r#"{"type":"publish","room":"tea","content":null,"sender":"anna","echo":true,"ref":7}"#,
        ),
        (
            to_rooms,
            r#"{"type":"publish","rooms":["a","b"],"content":null,"sender":"anna","ref":7}"#,
        ),
        (
            Command::Direct { to: "c".into(), content: content() },
            r#"{"type":"direct","to":"c","content":null,"sender":"anna","ref":7}"#,
        ),
        (
            Command::Broadcast { content: content() },
            r#"{"type":"broadcast","content":null,"sender":"anna","ref":7}"#,
        ),
        (
            join,
            r#"{"type":"join","room":"tea","since":{"epoch":"e","seq":3},"presence":true,"sender":"anna","ref":7}"#,
        ),
        (Command::Leave { room: "tea".into() }, r#"{"type":"leave","room":"tea","ref":7}"#),
        (
            Command::History { room: "tea".into(), before, after, limit },
            r#"{"type":"history","room":"tea","after":3,"limit":10,"ref":7}"#,
        ),
        (
            Command::Presence { room: "tea".into(), watch: Some(false) },
            r#"{"type":"presence","room":"tea","watch":false,"ref":7}"#,
        ),
        (
            Command::Resume { session: "s".into(), rooms, direct: Some(4) },
            r#"{"type":"resume","session":"s","rooms":[{"room":"tea","epoch":"e","seq":3}],"direct":4,"ref":7}"#,
        ),
        (Command::Ping, r#"{"type":"ping","ref":7}"#),
    ];
    for (command, text) in expected {
        assert_eq!(fields(command), text);
    }
}
