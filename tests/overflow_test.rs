//! What a slow client gets: what its rooms say, and nothing is dropped untold.

#![allow(clippy::unwrap_used, reason = "a test that unwraps fails with a clear message")]

mod support;
#[path = "support/program.rs"]
mod program;

use std::{
    net::{SocketAddr, TcpStream},
    thread,
    time::{Duration, Instant},
};

use program::{PROGRAM, Program, command};
use rusty_socks::{
    Config, Context, Handler, MayBlock, Message, Mode, Notice, PreparedFrame, Replay, RoomName,
    Server,
    config::{Overflow, RoomRule},
};
use socket2::{Domain, Socket, Type};
use support::{DEADLINE, RawClient, TestServer, close_frame, config, frame, upgrade_head};

/// Never reached by a test that passes.
const LONG: Duration = Duration::from_secs(60);

/// Together with what a stalled client's sockets hold, its outbox overflows long before the last of
/// these.
const MESSAGES: u64 = 2000;
const CONTENT_BYTES: usize = 8 << 10;

/// Small outboxes, a rule for each policy, and no room that all are in.
fn policies() -> Config {
    let rule =
        |pattern: &str, overflow| RoomRule { overflow: Some(overflow), ..RoomRule::new(pattern) };
    Config {
        rooms: vec![rule("gap.*", Overflow::Gap), rule("latest.*", Overflow::Latest)],
        default_room: String::new(),
        replay: 0,
        buffer: 64,
        buffer_bytes: 512 << 10,
        history: 10_000,
        history_bytes: 64 << 20,
        close_timeout: LONG,
        ..config()
    }
}

/// A chat client in `rooms`.
fn member(address: SocketAddr, rooms: &[&str]) -> RawClient {
    member_on(TcpStream::connect(address).unwrap(), rooms)
}

/// One on a socket that takes little from its peer before it is read.
fn slow_member(address: SocketAddr, rooms: &[&str]) -> RawClient {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
    // Must be set before connecting, or the window is wide already.
    socket.set_recv_buffer_size(4096).unwrap();
    socket.connect(&address.into()).unwrap();
    member_on(socket.into(), rooms)
}

fn member_on(stream: TcpStream, rooms: &[&str]) -> RawClient {
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut client = RawClient::new(stream);
    client.send(upgrade_head("/ws").as_bytes());
    assert_eq!(client.answer().status, 101);
    assert!(client.text().contains("welcome"));
    for room in rooms {
        say(&mut client, &format!(r#"{{"type":"join","room":"{room}","ref":1}}"#));
        assert!(client.text().contains("ok"));
    }
    client
}

fn say(client: &mut RawClient, text: &str) {
    client.send(&frame(0x81, text.as_bytes()));
}

/// Publishes to a room, one after the other.
fn publish(writer: &mut RawClient, room: &str, count: u64) {
    let content = "x".repeat(CONTENT_BYTES);
    for _ in 0..count {
        say(writer, &format!(r#"{{"room":"{room}","content":"{content}","ref":1}}"#));
        match next(writer) {
            Told::Answer(answer) => assert!(answer.contains("\"type\":\"ok\""), "{answer}"),
            told => panic!("{told:?}"),
        }
    }
}

/// What a member is sent.
#[derive(Debug, PartialEq)]
enum Told {
    Message { room: String, seq: u64 },
    Gap { room: String, from: u64, to: u64 },
    Answer(String),
}

/// The value of a field. Parsing all of a frame would take the time of the test.
fn field<'t>(text: &'t str, name: &str) -> &'t str {
    let (_, behind) = text.split_once(&format!("\"{name}\":")).unwrap_or_else(|| panic!("{text}"));
    behind.split([',', '}']).next().unwrap().trim_matches('"')
}

fn number(text: &str, name: &str) -> u64 {
    field(text, name).parse().unwrap()
}

/// The next of what a member is sent. Pings are answered on the way.
fn next(client: &mut RawClient) -> Told {
    loop {
        let text = match client.frame() {
            Some((0x81, text)) => String::from_utf8(text).unwrap(),
            Some((0x89, payload)) => {
                client.send(&frame(0x8a, &payload));
                continue;
            }
            other => panic!("neither text nor a ping: {other:?}"),
        };
        return match field(&text, "type") {
            "message" => {
                Told::Message { room: field(&text, "room").to_owned(), seq: number(&text, "seq") }
            }
            "gap" => Told::Gap {
                room: field(&text, "room").to_owned(),
                from: number(&text, "from"),
                to: number(&text, "to"),
            },
            _ => Told::Answer(text),
        };
    }
}

/// Reads what a room sends, up to message `last`, all of which must be accounted for. Returns the
/// ranges that are missing, and how many messages came.
fn account(
    client: &mut RawClient,
    room: &str,
    last: u64,
    mut pause: impl FnMut(),
) -> (Vec<(u64, u64)>, u64) {
    let (mut reached, mut gaps, mut messages) = (0, Vec::new(), 0);
    while reached < last {
        match next(client) {
            Told::Message { room: of, seq } => {
                assert_eq!((of.as_str(), seq), (room, reached + 1));
                (reached, messages) = (seq, messages + 1);
            }
            Told::Gap { room: of, from, to } => {
                assert_eq!((of.as_str(), from), (room, reached + 1));
                assert!(from <= to, "{from} to {to}");
                gaps.push((from, to));
                reached = to;
            }
            Told::Answer(text) => panic!("{text}"),
        }
        pause();
    }
    assert_eq!(reached, last);
    (gaps, messages)
}

/// Asks for all of a range of numbers, page by page.
fn fetch(client: &mut RawClient, room: &str, from: u64, to: u64) {
    let mut reached = from - 1;
    while reached < to {
        say(
            client,
            &format!(
                r#"{{"type":"history","room":"{room}","after":{reached},"limit":1000,"ref":1}}"#
            ),
        );
        let Told::Answer(page) = next(client) else { panic!("no answer") };
        let seqs: Vec<u64> = page
            .split("\"type\":\"message\"")
            .skip(1)
            .map(|message| number(message, "seq"))
            .collect();
        assert!(!seqs.is_empty(), "{reached} of {from} to {to}: {page:.200}");
        for seq in seqs {
            assert_eq!(seq, reached + 1);
            reached = seq;
        }
    }
}

#[test]
fn under_gap_a_slow_reader_is_told_what_to_fetch_and_never_closed() {
    let (timeout, ping) = (Duration::from_secs(1), Duration::from_millis(200));
    let server = TestServer::start(Config { timeout, ping, ..policies() });
    let room = "gap.a";
    let mut slow = slow_member(server.addr, &[room]);
    let mut fast = member(server.addr, &[room]);
    let mut writer = member(server.addr, &[room]);
    // On a busy machine the fast one may fall behind for a moment too; then it is told as well.
    let mut fast_account = (vec![], 0);
    let (gaps, messages, took) = thread::scope(|scope| {
        let slow = scope.spawn(|| {
            let began = Instant::now();
            // It plays a client on a slow line.
            let pause = || thread::sleep(Duration::from_millis(40));
            let (gaps, messages) = account(&mut slow, room, MESSAGES, pause);
            (gaps, messages, began.elapsed())
        });
        let fast = scope.spawn(|| account(&mut fast, room, MESSAGES, || ()));
        publish(&mut writer, room, MESSAGES);
        fast_account = fast.join().unwrap();
        assert!(!slow.is_finished(), "the slow one delays nobody");
        // From here on it may be silent for longer than the timeout.
        drop(writer);
        slow.join().unwrap()
    });
    let missed: u64 = gaps.iter().map(|(from, to)| to - from + 1).sum();
    assert!(missed > 0 && missed + messages == MESSAGES, "{gaps:?}");
    assert!(took > 2 * timeout, "it was slow for {took:?}");
    let stats = server.stats();
    let (fast_gaps, fast_messages) = fast_account;
    let all_missed = missed + MESSAGES - fast_messages;
    let all_gaps = (gaps.len() + fast_gaps.len()) as u64;
    assert_eq!((stats.missed, stats.gaps, stats.dropped), (all_missed, all_gaps, 0));
    assert!(!stats.closed.contains_key("4102"), "{:?}", stats.closed);
    let (from, to) = gaps[0];
    fetch(&mut slow, room, from, to);
    slow.send(&close_frame(1000));
    assert_eq!(slow.close_code(), 1000);
}

#[test]
fn under_latest_a_stalled_reader_gets_the_newest_and_what_it_skipped() {
    let server = TestServer::start(policies());
    let room = "latest.a";
    let mut stalled = slow_member(server.addr, &[room]);
    let mut fast = member(server.addr, &[room]);
    let mut writer = member(server.addr, &[room]);
    // On a busy machine the fast one may fall behind for a moment too; then it is told as well.
    let (fast_gaps, fast_messages) = thread::scope(|scope| {
        let fast = scope.spawn(|| account(&mut fast, room, MESSAGES, || ()));
        publish(&mut writer, room, MESSAGES);
        fast.join().unwrap()
    });
    server.wait_for("all of it is delivered", |stats| {
        stats.workers.iter().all(|worker| worker.mailbox == 0)
    });
    let (gaps, messages) = account(&mut stalled, room, MESSAGES, || ());
    // What was with the kernel before it was full is not taken back; behind it comes the newest
    // alone.
    assert_eq!(gaps, [(messages, MESSAGES - 1)]);
    // Where the system can be told to, it takes little: what is stale stays out.
    let kernel = if cfg!(target_os = "linux") { 100 } else { MESSAGES / 2 };
    assert!(messages < kernel, "{messages} were with the kernel");
    let stats = server.stats();
    let missed = (MESSAGES - messages) + (MESSAGES - fast_messages);
    assert_eq!((stats.gaps, stats.missed), (1 + fast_gaps.len() as u64, missed));
    assert!(stats.closed.is_empty(), "{:?}", stats.closed);
    publish(&mut writer, room, 1);
    let told = next(&mut stalled);
    assert_eq!(told, Told::Message { room: room.into(), seq: MESSAGES + 1 });
}

#[test]
fn two_rooms_lag_at_once_and_each_is_accounted_for() {
    let server = TestServer::start(policies());
    let rooms = ["gap.a", "gap.b"];
    let mut stalled = slow_member(server.addr, &rooms);
    let mut writer = member(server.addr, &rooms);
    for _ in 0..10 {
        rooms.iter().for_each(|room| publish(&mut writer, room, MESSAGES / 20));
    }
    let last = MESSAGES / 2;
    let mut reached = [0, 0];
    let mut gaps = [0, 0];
    while reached != [last, last] {
        let (room, from, to) = match next(&mut stalled) {
            Told::Message { room, seq } => (room, seq, seq),
            Told::Gap { room, from, to } => (room, from, to),
            Told::Answer(text) => panic!("{text}"),
        };
        let which = usize::from(room == rooms[1]);
        assert_eq!(from, reached[which] + 1, "{room}");
        gaps[which] += u64::from(from < to);
        reached[which] = to;
    }
    assert!(gaps[0] > 0 && gaps[1] > 0, "{gaps:?}");
    assert!(server.stats().closed.is_empty());
}

/// Leaves `room` while it is behind, and reads up to the answer. Returns the last number it was
/// told.
fn leave_behind(room: &str) -> (u64, TestServer) {
    let server = TestServer::start(policies());
    let mut stalled = slow_member(server.addr, &[room]);
    let mut writer = member(server.addr, &[room]);
    publish(&mut writer, room, MESSAGES);
    server.wait_for("it is behind", |stats| stats.missed > 0);
    say(&mut stalled, &format!(r#"{{"type":"leave","room":"{room}","ref":"left"}}"#));
    if room.starts_with("latest") {
        // It is read, for what waits is not much, and it is not in the room any more.
        server.wait_for("it has left", |stats| stats.messages_in > MESSAGES + 2);
    }
    let mut reached = 0;
    loop {
        match next(&mut stalled) {
            Told::Message { seq: from, .. } | Told::Gap { from, .. } if from != reached + 1 => {
                panic!("{from} behind {reached}")
            }
            Told::Message { seq: to, .. } | Told::Gap { to, .. } => reached = to,
            Told::Answer(text) => {
                assert!(text.contains("left") && text.contains("ok"), "{text}");
                break;
            }
        }
    }
    publish(&mut writer, room, 1);
    say(&mut stalled, r#"{"type":"ping","ref":2}"#);
    let told = next(&mut stalled);
    assert!(matches!(&told, Told::Answer(text) if text.contains("pong")), "{told:?}");
    (reached, server)
}

#[test]
fn who_leaves_while_behind_is_told_before_and_nothing_after() {
    // Its command is not read before it has caught up.
    let (reached, server) = leave_behind("gap.a");
    assert_eq!(reached, MESSAGES);
    assert_eq!(server.stats().gaps, 1);
}

#[test]
fn who_leaves_does_not_get_what_waited() {
    let (reached, server) = leave_behind("latest.a");
    assert!(reached < MESSAGES, "{reached}");
    assert_eq!(server.stats().gaps, 0);
}

/// Joins a room, and has words for what is missed where it is told to.
struct Member {
    has_words: bool,
}

impl<M: Mode> Handler<M> for Member {
    type State = ();

    fn on_open(&self, ctx: &mut Context<'_, (), M>) {
        ctx.join(&RoomName::new("gap.a").unwrap(), Replay::Nothing).then(|ctx, joined| {
            assert!(joined.is_ok());
            ctx.send("joined");
        });
    }

    fn on_message(&self, _: &mut Context<'_, (), M>, _: Message<'_>) {}

    fn notice(&self, notice: &Notice<'_>) -> Option<PreparedFrame> {
        match notice {
            Notice::Gap { room, from, to } if self.has_words => {
                Some(PreparedFrame::new(Message::Text(&format!("{room} {from} {to}"))))
            }
            _ => None,
        }
    }
}

/// A client of each route reads nothing until it is behind.
fn embedded(path: &str) -> (TestServer, RawClient) {
    let builder = Server::builder()
        .config(policies())
        .route("/words", Member { has_words: true })
        .route("/blocking", Handler::<MayBlock>::blocking(Member { has_words: true }, 1, 10))
        .route("/none", Member { has_words: false });
    let server = TestServer::run(builder.bind().unwrap());
    let mut client = server.upgrade(path);
    assert_eq!(client.text(), "joined");
    let content = "x".repeat(CONTENT_BYTES);
    server.wait_for("it is behind", |stats| {
        if stats.workers.iter().all(|worker| worker.mailbox == 0) {
            server.handle.publish("gap.a", content.as_str()).unwrap();
        }
        stats.missed > 0 || !stats.closed.is_empty()
    });
    (server, client)
}

#[test]
fn a_handler_with_words_keeps_its_slow_clients_wherever_it_runs() {
    for path in ["/words", "/blocking"] {
        let (server, mut client) = embedded(path);
        let mut messages = 0;
        let gap = loop {
            match client.text() {
                text if text.len() == CONTENT_BYTES => messages += 1,
                text => break text,
            }
        };
        let words: Vec<&str> = gap.split(' ').collect();
        assert_eq!(words[..2], ["gap.a", (messages + 1).to_string().as_str()], "{path}");
        assert!(server.stats().closed.is_empty());
    }
}

#[test]
fn a_handler_without_words_loses_its_slow_clients() {
    let (server, mut client) = embedded("/none");
    assert_eq!(client.close_code(), 4102);
    assert_eq!(server.stats().missed, 0);
    assert_eq!(server.closed_with(4102), 1);
}

#[test]
fn the_rules_of_a_file_hold_room_by_room() {
    // A client that is closed is given the time to read why, on a busy machine too.
    let directory = tempfile::TempDir::new().unwrap();
    let path = directory.path().join("server.toml");
    let file = "host = '127.0.0.1'\nport = 0\ndefault_room = ''\nreplay = 0\nbuffer = 64\n\
         rate_messages = 0\nrate_bytes = 0\nclose_timeout = 60\nbuffer_bytes = '512KiB'\noverflow = 'gap'\n\
         [rooms.'prices.*']\noverflow = 'latest'\nhistory = 1\n\
         [rooms.'prices.fixed']\noverflow = 'close'\n";
    std::fs::write(&path, file).unwrap();
    let server = Program::run(command(PROGRAM).arg("--config").arg(&path));
    let kept = |client: &mut RawClient, room: &str| {
        say(client, &format!(r#"{{"type":"history","room":"{room}","ref":1}}"#));
        let Told::Answer(page) = next(client) else { panic!("no answer") };
        page.matches("\"type\":\"message\"").count()
    };
    for (room, policy) in [
        ("news", Overflow::Gap),
        ("prices.eur", Overflow::Latest),
        ("prices.fixed", Overflow::Close),
    ] {
        let mut stalled = slow_member(server.addr, &[room]);
        let mut writer = member(server.addr, &[room]);
        publish(&mut writer, room, MESSAGES);
        if policy == Overflow::Close {
            assert_eq!(stalled.close_code(), 4102);
            continue;
        }
        let (gaps, messages) = account(&mut stalled, room, MESSAGES, || ());
        let newest_came = gaps[0].1 == MESSAGES - 1;
        assert_eq!(newest_came, policy == Overflow::Latest, "{room}: {gaps:?}");
        assert!(gaps.len() == 1 && messages < MESSAGES);
        assert_eq!(kept(&mut stalled, room) == 1, policy == Overflow::Latest, "{room}");
    }
}
