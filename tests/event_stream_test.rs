//! Clients without a WebSocket: server-sent events down, posts up.

#![allow(clippy::unwrap_used, reason = "a test that unwraps fails with a clear message")]

mod support;
#[path = "support/event_stream.rs"]
mod event_stream;

use std::{
    io::{BufRead, BufReader, Write},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    time::Duration,
};

use event_stream::{Stream, request};
use parking_lot::Mutex;
use rusty_socks::{
    Config, Context, Handler, MayBlock, Message, Server,
    config::{IdentityMode, Secret},
};
use serde_json::{Value, json};
use support::{DEADLINE, TestServer, config, eventually};

#[test]
fn messages_go_down_as_events_and_come_up_in_posts() {
    let server = TestServer::start(config());
    let mut anna = Stream::open(&server);
    let no_buffer = anna.head.contains("X-Accel-Buffering: no\r\n");
    assert!(
        no_buffer && anna.head.contains("Content-Type: text/event-stream\r\n"),
        "{}",
        anna.head
    );
    assert_eq!(anna.message()["type"], "welcome");
    let mut bert = server.chat();
    let joined = anna.command(r#"{"type":"join","room":"tea","ref":1}"#);
    assert_eq!((&joined["type"], &joined["ref"]), (&json!("ok"), &json!(1)), "{joined}");
    assert_eq!(bert.ask(r#"{"type":"join","room":"tea","ref":1}"#)["type"], "ok");
    // White space of JSON is passed on, whatever its line breaks.
    let with_breaks =
        "{\"type\":\"publish\",\"room\":\"tea\",\"content\":[1,\r\n\"två\"\n,\r3],\"ref\":2}";
    assert_eq!(bert.ask(with_breaks)["type"], "ok");
    assert_eq!(anna.message()["content"], json!([1, "två", 3]));
    // Several messages in one post, and empty lines, which are none.
    let publish =
        |content| format!(r#"{{"type":"publish","room":"tea","content":{content},"ref":1}}"#);
    anna.post(&[&publish(1), "", &(publish(2) + "\r"), &publish(3)]);
    for nth in 1..=3 {
        assert_eq!(bert.json()["content"], nth);
        assert_eq!(anna.message()["type"], "ok");
    }
    let stats = server.stats();
    assert_eq!((stats.event_streams_total, stats.posts_total, stats.posts_refused), (1, 2, 0));
    assert_eq!((stats.active_connections, stats.accepted_total), (2, 2));
    // The client closes.
    let mut closing = anna.opening(3);
    closing["close"] = json!({ "code": 1000, "reason": "bye" });
    assert_eq!(anna.post_as(&closing, &[&publish(4)]).status, 204);
    assert_eq!(anna.message()["type"], "ok");
    assert_eq!(anna.event(), ("closed".into(), json!({ "code": 1000, "reason": "bye" })));
    assert_eq!(bert.json()["content"], 4);
    assert_eq!(anna.rest(), "");
    bert.close();
    assert_eq!(server.closed_with(1000), 1);
    server.wait_until_empty();
}

#[test]
fn a_session_goes_on_where_it_was_on_either_kind_of_connection() {
    let config = Config { resume_window: Duration::from_secs(60), ..config() };
    let server = TestServer::start(config);
    let mut bert = server.chat();
    let mut anna = Stream::open(&server);
    let welcome = anna.message();
    let joined = anna.command(r#"{"type":"join","room":"tea","ref":1}"#);
    bert.ask(r#"{"type":"join","room":"tea","ref":1}"#);
    let (session, epoch) = (&welcome["session"], &joined["epoch"]);
    let resume = |seq: u64| {
        let rooms = json!([{ "room": "tea", "epoch": epoch, "seq": seq }]);
        json!({ "type": "resume", "session": session, "rooms": rooms, "ref": "r" }).to_string()
    };
    let mut say = |content: u64| {
        bert.ask(&format!(r#"{{"type":"publish","room":"tea","content":{content},"ref":1}}"#));
    };
    let missed = |answer: &Value| {
        let mut rooms = answer["rooms"].as_array().unwrap().iter();
        let room = rooms.find(|room| room["room"] == "tea").unwrap();
        assert!(answer["type"] == "ok" && room["recovered"] == true, "{answer}");
        let messages = room["messages"].as_array().unwrap().iter();
        messages.map(|message| message["content"].as_u64().unwrap()).collect::<Vec<_>>()
    };
    // Lost, not closed.
    drop(anna);
    say(1);
    let mut anna = server.chat();
    assert_eq!(missed(&anna.ask(&resume(0))), [1]);
    say(2);
    assert_eq!(anna.json()["content"], 2);
    drop(anna);
    say(3);
    let mut anna = Stream::open(&server);
    anna.message();
    assert_eq!(missed(&anna.command(&resume(2))), [3]);
    // Taken over by another connection while this one is there.
    let mut other = Stream::open(&server);
    other.message();
    assert_eq!(missed(&other.command(&resume(2))), [3]);
    let (name, closed) = anna.event();
    assert_eq!((name.as_str(), closed["code"].as_u64()), ("closed", Some(4010)), "{closed}");
    assert_eq!(server.stats().sessions_resumed, 3);
}

#[test]
fn permits_and_the_line_are_the_same() {
    let server = TestServer::start(Config {
        max_conn: 1,
        max_queued_tasks: 1,
        queue_timeout: Duration::from_secs(30),
        ..config()
    });
    let inside = server.chat();
    let mut waiting = server.socket();
    waiting.write_all(request("/ws", "").as_bytes()).unwrap();
    server.wait_for("one waits", |stats| stats.queued == 1);
    let refused = Stream::ask(&server, &request("/ws", ""));
    assert!(refused.head.starts_with("HTTP/1.1 503"), "{}", refused.head);
    assert!(refused.head.contains("Retry-After: "), "{}", refused.head);
    assert!(refused.rest().contains(r#""error":"full""#));
    inside.close();
    let mut head = String::new();
    let mut waiting = BufReader::new(waiting);
    while !head.ends_with("\r\n\r\n") {
        assert_ne!(waiting.read_line(&mut head).unwrap(), 0, "{head}");
    }
    assert!(head.starts_with("HTTP/1.1 200") && head.contains("Queue-Wait-Ms: "), "{head}");
    drop(waiting);
    server.wait_until_empty();
}

#[test]
fn a_client_says_who_it_is_as_on_a_websocket() {
    let config = Config {
        identity: IdentityMode::Required,
        token_hmac_secret: Secret::new("a secret of thirty-two bytes or so"),
        ..config()
    };
    let server = TestServer::start(config);
    let refused = Stream::ask(&server, &request("/ws", "Authorization: Bearer x.y.z\r\n"));
    assert!(refused.head.starts_with("HTTP/1.1 401"), "{}", refused.head);
    let mut stream = Stream::open(&server);
    stream.post(&[r#"{"type":"auth","token":"x.y.z","ref":1}"#]);
    assert_eq!(stream.message()["code"], "unauthorized");
    let (name, closed) = stream.event();
    assert_eq!((name.as_str(), closed["code"].as_u64()), ("closed", Some(4001)), "{closed}");
}

#[test]
fn only_pages_that_may_connect_are_served_and_can_read_the_answers() {
    let allowed = vec!["https://a.example".to_owned()];
    let server = TestServer::start(Config { allowed_origins: allowed, ..config() });
    let foreign = Stream::ask(&server, &request("/ws", "Origin: https://b.example\r\n"));
    assert!(foreign.head.starts_with("HTTP/1.1 403"), "{}", foreign.head);
    let ours = Stream::open_with(&server, &request("/ws", "Origin: https://a.example\r\n"));
    let may = "Access-Control-Allow-Origin: https://a.example\r\n";
    assert!(ours.head.contains(may) && ours.head.contains("Vary: Origin"), "{}", ours.head);
    for nth in [1, 7] {
        let body = ours.opening(nth).to_string();
        let request =
            ours.request_of(&body).replace("Host: test", "Host: test\r\nOrigin: https://a.example");
        let mut poster = ours.poster();
        poster.send(request.as_bytes());
        let answer = poster.answer();
        assert_eq!(answer.status, if nth == 1 { 204 } else { 409 });
        assert!((answer.head + "\r\n").contains(may));
    }
}

#[test]
fn a_post_is_handled_once_and_in_its_turn() {
    let server = TestServer::start(config());
    let mut stream = Stream::open(&server);
    stream.message();
    let publish = r#"{"type":"publish","room":"lobby","content":1,"ref":1}"#;
    stream.post(&[publish]);
    assert_eq!(stream.message()["seq"], 1);
    // The same again, as if its answer had been lost.
    assert_eq!(stream.post_as(&stream.opening(1), &[publish]).status, 204);
    for wrong in [0, 3, u64::MAX] {
        let answer = stream.post_as(&stream.opening(wrong), &[publish]);
        assert_eq!((answer.status, &answer.json()["error"]), (409, &json!("out_of_order")));
    }
    // Two behind each other on one connection, cut anywhere.
    let bodies = [2, 3].map(|nth| format!("{}\n{publish}", stream.opening(nth)));
    let requests = bodies.map(|body| stream.request_of(&body)).concat();
    let mut poster = stream.poster();
    for piece in requests.as_bytes().chunks(100) {
        poster.send(piece);
    }
    for seq in 2..=3 {
        assert_eq!(poster.answer().status, 204);
        assert_eq!(stream.message()["seq"], seq);
    }
    stream.posts = 3;
    assert_eq!(stream.command(r#"{"type":"ping","ref":1}"#)["type"], "pong");
}

#[test]
fn a_bad_post_is_told_what_is_wrong_and_hurts_nobody() {
    let config = Config {
        handshake_timeout: Duration::from_millis(300),
        timeout: Duration::from_secs(20),
        ..config()
    };
    let max = config.max_message_bytes;
    let server = TestServer::start(config);
    let mut stream = Stream::open(&server);
    stream.message();
    let guessed = |at: usize| {
        let digit = if &stream.key[at..=at] == "0" { "1" } else { "0" };
        let key = [&stream.key[..at], digit, &stream.key[at + 1..]].concat();
        json!({ "connection": key, "post": 1 }).to_string()
    };
    let long = format!("{}\n{}", stream.opening(1), "x".repeat(max + (64 << 10)));
    let ours = stream.opening(1).to_string();
    for (body, status, error) in [
        // Another node, another worker, another slot, another generation, another secret.
        (guessed(0), 404, "no_stream"),
        (guessed(35), 404, "no_stream"),
        (guessed(32), 404, "no_stream"),
        (guessed(43), 404, "no_stream"),
        (guessed(51), 404, "no_stream"),
        (guessed(83), 404, "no_stream"),
        (ours.replace(&stream.key, ""), 404, "no_stream"),
        (String::new(), 400, "bad_request"),
        ("hello".into(), 400, "bad_request"),
        (ours.replace("post", "nth"), 400, "bad_request"),
        (ours.replace("1}", "-1}"), 400, "bad_request"),
        (ours.replace("1}", r#"1,"close":7}"#), 400, "bad_request"),
        (long, 413, "too_large"),
    ] {
        let answer = stream.post_body(&body);
        assert_eq!((answer.status, &answer.json()["error"]), (status, &json!(error)), "{body:.99}");
    }
    let mut poster = stream.poster();
    poster.send(&stream.request_of(&ours).as_bytes()[..60]);
    assert_eq!(poster.answer().status, 408);
    let mut poster = stream.poster();
    poster.send(stream.request_of(&ours).split_once("\r\n\r\n").unwrap().0.as_bytes());
    poster.send(b"\r\n\r\n{");
    assert_eq!(poster.answer().json()["error"], "timeout");
    // What is no command is told down the stream, as on a WebSocket.
    assert_eq!(stream.command("what is this?")["code"], "invalid_json");
    // A Close of a code that may not be sent is a protocol error.
    let mut closing = stream.opening(2);
    closing["close"] = json!({ "code": 1005 });
    assert_eq!(stream.post_as(&closing, &[]).status, 204);
    let (name, closed) = stream.event();
    assert_eq!((name.as_str(), closed["code"].as_u64()), ("closed", Some(1002)), "{closed}");
    assert_eq!(stream.post_as(&stream.opening(3), &[]).status, 404);
    assert!(server.stats().posts_refused >= 14, "{:?}", server.stats());
    drop(stream);
    server.wait_until_empty();
}

#[test]
fn who_answers_no_ping_is_closed_and_who_does_is_not() {
    let config = Config {
        ping: Duration::from_millis(100),
        timeout: Duration::from_millis(500),
        ..config()
    };
    let server = TestServer::start(config);
    let (mut silent, mut alive) = (Stream::open(&server), Stream::open(&server));
    silent.message();
    alive.message();
    let answering = std::thread::spawn(move || {
        for _ in 0..12 {
            assert_eq!(alive.event().0, "ping");
            alive.post(&[]);
        }
        alive
    });
    loop {
        match silent.event() {
            (name, _) if name == "ping" => {}
            (name, closed) => {
                assert_eq!((name.as_str(), closed["code"].as_u64()), ("closed", Some(4201)));
                break;
            }
        }
    }
    let mut alive = answering.join().unwrap();
    assert_eq!(alive.command(r#"{"type":"ping","ref":1}"#)["type"], "pong");
}

#[test]
fn a_drain_ends_a_stream_as_it_ends_a_websocket() {
    let server = TestServer::start(config());
    let mut stream = Stream::open(&server);
    stream.message();
    server.handle.shutdown(Duration::from_secs(5));
    assert_eq!(stream.message()["type"], "closing");
    let (name, closed) = stream.event();
    assert_eq!((name.as_str(), closed["code"].as_u64()), ("closed", Some(1001)), "{closed}");
    assert_eq!(stream.rest(), "");
    server.handle.join();
}

#[test]
fn a_client_that_does_not_read_is_closed_and_its_stream_ends_between_events() {
    let config = Config { buffer: 64, buffer_bytes: 128 << 10, ..config() };
    let server = TestServer::start(config);
    let mut slow = Stream::open(&server);
    slow.message();
    let mut sender = server.chat();
    let content = "x".repeat(8 << 10);
    eventually("it is closed as too slow", || {
        let publish = json!({ "type": "publish", "room": "lobby", "content": content, "ref": 1 });
        sender.ask(&publish.to_string());
        match server.closed_with(4102) {
            0 => Err(format!("{:?}", server.stats())),
            _ => Ok(()),
        }
    });
    // What it had not read is whole up to the last word.
    let mut last = slow.event();
    while last.0 != "closed" {
        last = slow.event();
    }
    assert_eq!(last.1["code"], 4102);
    assert_eq!(slow.rest(), "");
}

#[test]
fn without_the_setting_there_are_no_event_streams() {
    let server = TestServer::start(Config { event_streams: false, ..config() });
    let refused = Stream::ask(&server, &request("/ws", ""));
    assert!(refused.head.starts_with("HTTP/1.1 426"), "{}", refused.head);
    let answer = server.raw(b"POST /ws HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 405"), "{answer}");
    let answer = server.raw(b"POST /ws HTTP/1.1\r\nHost: test\r\nContent-Length: 2\r\n\r\n{}");
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
}

#[test]
fn other_methods_are_told_of_both() {
    let server = TestServer::start(config());
    let answer = server.raw(b"PUT /ws HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 405") && answer.contains("\r\nAllow: GET, POST\r\n"));
}

#[test]
fn old_http_and_proxies_that_speak_it_are_served() {
    let server = TestServer::start(config());
    let request = "GET /ws HTTP/1.0\r\nAccept: a/b, Text/Event-Stream;q=0.9\r\n\r\n";
    let mut stream = Stream::open_with(&server, request);
    assert_eq!(stream.message()["type"], "welcome");
    let chunked = format!(
        "POST /ws HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\nExpect: \
         100-continue\r\n\r\n{:x}\r\n{}\r\n0\r\n\r\n",
        stream.opening(1).to_string().len(),
        stream.opening(1)
    );
    let mut poster = stream.poster();
    poster.send(chunked.as_bytes());
    assert_eq!(poster.answer().status, 100);
    assert_eq!(poster.answer().status, 204);
    // What is refused anyway is not asked for.
    let mut poster = stream.poster();
    poster.send(
        b"POST /ws HTTP/1.1\r\nHost: test\r\nContent-Length: 99999999\r\nExpect: \
          100-continue\r\n\r\n",
    );
    assert_eq!(poster.answer().status, 413);
}

#[test]
fn padding_follows_what_is_written_if_it_is_asked_for() {
    let server = TestServer::start(config());
    for (asked, bytes) in [("padding=8192", 8192), ("q=1; Padding = 999999", 16384), ("x", 0)] {
        let accept = format!("Accept: text/html, text/event-stream; {asked}\r\n");
        let request = request("/ws", "").replace("Accept: text/event-stream\r\n", &accept);
        let mut stream = Stream::open_with(&server, &request);
        assert_eq!(stream.message()["type"], "welcome");
        assert_eq!(stream.command(r#"{"type":"ping","ref":1}"#)["type"], "pong");
        // Behind the connection's name, the welcome and the pong.
        assert!(stream.padding >= 2 * bytes, "{asked}: {}", stream.padding);
        assert!(stream.padding <= 3 * bytes, "{asked}: {}", stream.padding);
    }
}

/// A handler that blocks on each message until it is let go.
struct Gated {
    gate: Mutex<mpsc::Receiver<()>>,
    handled: Arc<AtomicUsize>,
}

impl Handler<MayBlock> for Gated {
    type State = ();

    fn takes_event_streams(&self) -> bool {
        true
    }

    fn on_message(&self, ctx: &mut Context<'_, (), MayBlock>, message: Message<'_>) {
        // An error means that the test has let go of everything.
        let _ = self.gate.lock().recv();
        self.handled.fetch_add(1, Ordering::SeqCst);
        ctx.send(message);
    }
}

#[test]
fn a_post_is_answered_when_its_messages_are_handled() {
    let (open, gate) = mpsc::channel();
    let handled = Arc::new(AtomicUsize::new(0));
    let gated = Gated { gate: Mutex::new(gate), handled: Arc::clone(&handled) };
    let server = Server::builder().config(config()).route("/gate", gated.blocking(1, 4));
    let server = TestServer::run(server.bind().unwrap());
    let mut stream = Stream::open_with(&server, &request("/gate", ""));
    let messages = (0..200).map(|nth| nth.to_string()).collect::<Vec<_>>();
    let body = format!("{}\n{}", stream.opening(1), messages.join("\n"));
    let mut poster = stream.poster();
    poster.send(stream.request_of(&body).as_bytes());
    eventually("messages wait for the handler", || match server.stats().jobs_queued {
        0 => Err(format!("{:?}", server.stats())),
        _ => Ok(()),
    });
    // It is not the turn of another one, nor is the same one handled twice.
    assert_eq!(stream.post_as(&stream.opening(2), &["no"]).status, 409);
    drop(open);
    assert_eq!(poster.answer().status, 204);
    assert!(handled.load(Ordering::SeqCst) >= 100, "{handled:?}");
    for message in &messages {
        assert_eq!(stream.text(), (String::new(), message.clone()));
    }
}

/// Sends what no event can carry.
struct Binary;

impl Handler for Binary {
    type State = ();

    fn takes_event_streams(&self) -> bool {
        true
    }

    fn on_message(&self, ctx: &mut Context<'_, ()>, message: Message<'_>) {
        ctx.send("before");
        ctx.send(Message::Binary(message.as_bytes()));
    }
}

#[test]
fn a_binary_message_closes_the_stream_and_says_why() {
    let server = Server::builder().config(config()).route("/binary", Binary);
    let server = TestServer::run(server.bind().unwrap());
    let mut stream = Stream::open_with(&server, &request("/binary", ""));
    stream.post(&["x"]);
    assert_eq!(stream.text(), (String::new(), "before".into()));
    let (name, closed) = stream.event();
    assert_eq!((name.as_str(), closed["code"].as_u64()), ("closed", Some(1003)), "{closed}");
    assert!(closed["reason"].as_str().unwrap().contains("text"), "{closed}");
}

#[test]
fn a_post_that_is_sent_again_is_answered_where_it_came_last() {
    let (open, gate) = mpsc::channel();
    let gated = Gated { gate: Mutex::new(gate), handled: Arc::default() };
    let server = Server::builder().config(config()).route("/gate", gated.blocking(1, 4));
    let server = TestServer::run(server.bind().unwrap());
    let stream = Stream::open_with(&server, &request("/gate", ""));
    let messages = (0..200).map(|nth| nth.to_string()).collect::<Vec<_>>();
    let body = format!("{}\n{}", stream.opening(1), messages.join("\n"));
    let mut posters = [(); 3].map(|()| stream.poster());
    posters[0].send(stream.request_of(&body).as_bytes());
    eventually("messages wait for the handler", || match server.stats().jobs_queued {
        0 => Err(format!("{:?}", server.stats())),
        _ => Ok(()),
    });
    // Whoever sent it before waits no more, and holds no place among the requests that are due.
    for nth in 1..3 {
        posters[nth].send(stream.request_of(&body).as_bytes());
        assert_eq!(posters[nth - 1].answer().status, 409);
    }
    drop(open);
    assert_eq!(posters[2].answer().status, 204);
}

#[test]
fn a_drain_does_not_wait_for_a_body_that_does_not_come() {
    let long = Duration::from_secs(60);
    let server = TestServer::start(Config { handshake_timeout: long, ..config() });
    let mut stream = Stream::open(&server);
    stream.message();
    let mut stalled = stream.poster();
    let request = stream.request_of(&stream.opening(1).to_string());
    stalled.send(&request.as_bytes()[..request.len() - 1]);
    server.wait_for("the post is on its way", |stats| stats.pending_heads == 1);
    let began = std::time::Instant::now();
    server.handle.shutdown(long);
    assert_eq!(stream.message()["type"], "closing");
    assert_eq!(stream.event().0, "closed");
    drop(stream);
    server.handle.join();
    assert!(began.elapsed() < DEADLINE, "{:?}", began.elapsed());
}

#[test]
fn a_post_may_have_so_many_messages_and_no_more() {
    let server = TestServer::start(Config { rate_messages: 0, max_errors: 0, ..config() });
    let mut stream = Stream::open(&server);
    stream.message();
    let messages = vec!["{}"; 4097];
    let answer = stream.post_as(&stream.opening(1), &messages);
    assert_eq!((answer.status, &answer.json()["error"]), (413, &json!("too_large")));
    let body = format!("{}\n{}", stream.opening(1), messages[1..].join("\n"));
    let mut poster = stream.poster();
    poster.send(stream.request_of(&body).as_bytes());
    for _ in 1..4097 {
        assert_eq!(stream.message()["type"], "error");
    }
    assert_eq!(poster.answer().status, 204);
}
