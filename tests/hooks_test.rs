//! A backend is asked before clients connect, join and publish, and nobody else waits for it.

#![allow(clippy::unwrap_used)]

mod support;

use std::{
    net::TcpListener,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use aws_lc_rs::hmac;
use crossbeam_channel::{Receiver, Sender};
use rusty_socks::{
    Config, Revocation,
    config::{HookFail, IdentityMode, MetricsAccess, Secret},
    identity,
};
use serde_json::{Value, json as value};
use support::{
    Client, DEADLINE, TestServer,
    backend::{Asked, Backend, json, with_status},
    config, eventually, frame,
};

const ALLOW: &str = r#"{"allow":true}"#;
const SECRET: &str = "a secret for these tests";

fn hooked(backend: &Backend, hooks: &str) -> Config {
    Config {
        hook_url: backend.url(),
        hooks: hooks.split(',').map(String::from).collect(),
        hook_timeout: DEADLINE,
        thread_pool_size: 1,
        ..config()
    }
}

fn figure(server: &TestServer, name: &str) -> u64 {
    server.stats().handlers["/ws"][name]
}

fn is_signed(asked: &Asked) -> bool {
    let signature = asked.signature.as_deref().expect("a signature");
    let (time, hex) = signature.strip_prefix("t=").unwrap().split_once(",v1=").unwrap();
    let bytes: Vec<u8> = (0..hex.len() / 2)
        .map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap())
        .collect();
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
    hmac::verify(&key, format!("{time}.{}", asked.text).as_bytes(), &bytes).is_ok()
}

/// A backend that answers what it is told, one answer for each question.
fn scripted() -> (Backend, Sender<String>) {
    let (answer, answers): (_, Receiver<String>) = crossbeam_channel::unbounded();
    let backend = Backend::start(move |_| answers.recv_timeout(DEADLINE).unwrap_or_default());
    (backend, answer)
}

#[test]
fn the_backend_is_told_what_it_is_asked_about() {
    let backend = Backend::start(|_| json(ALLOW));
    let secret = Secret::new(SECRET);
    let config = Config {
        hook_secret: secret,
        metrics: MetricsAccess::Public,
        ..hooked(&backend, "connect,join,publish")
    };
    let server = TestServer::start(config);
    let mut client = server.raw_client();
    let head = support::upgrade_head("/ws?room=1").replace(
        "Host: test\r\n",
        &format!(
            "Host: {}\r\nCookie: a=b\r\nCookie: c=d\r\nAuthorization: Bearer x\r\nX-Other: y\r\n",
            server.addr
        ),
    );
    client.send(head.as_bytes());
    assert_eq!(client.answer().status, 101);
    let asked = backend.next();
    assert_eq!(asked.path, "/hook");
    assert!(is_signed(&asked), "{asked:?}");
    let mut body = asked.body;
    assert!(body["remote_addr"].as_str().unwrap().starts_with("127.0.0.1:"));
    body["remote_addr"].take();
    let client_id = body["client_id"].take();
    let headers = value!({"Cookie": "a=b; c=d", "Authorization": "Bearer x"});
    assert_eq!(
        body,
        value!({"event": "connect", "client_id": null, "path": "/ws", "query": "room=1",
            "headers": headers, "remote_addr": null})
    );

    client.send(&frame(0x81, br#"{"type":"join","room":"tea","sender":"Anna"}"#));
    let asked = backend.next();
    assert!(is_signed(&asked));
    let body = &asked.body;
    assert_eq!((&body["event"], &body["room"]), (&value!("join"), &value!("tea")));
    assert_eq!((&body["client_id"], &body["sender"]), (&client_id, &value!("Anna")));
    client.send(&frame(0x81, br#"{"rooms":["tea","lobby"],"content":{"a":  1.0},"sender":"B"}"#));
    let asked = backend.next();
    assert!(is_signed(&asked));
    assert_eq!(asked.body["event"], "publish");
    assert_eq!(asked.body["rooms"], value!(["tea", "lobby"]));
    assert!(asked.text.contains(r#""content":{"a":  1.0},"sender":"B""#), "{}", asked.text);
    let (status, text) = server.get("/metrics");
    assert_eq!(status, 200);
    let line = "rusty_socks_handler_figure{route=\"/ws\",figure=\"hook_connect_allowed\"} 1\n";
    assert!(text.contains(line), "{text}");
    server.wait_for("all three are counted", |stats| {
        let figures = &stats.handlers["/ws"];
        ["connect", "join", "publish"]
            .iter()
            .all(|hook| figures[format!("hook_{hook}_allowed").as_str()] == 1)
    });
    // What the hooks do not concern, or fails anyway, is not asked about.
    let mut other = server.chat();
    backend.next();
    for (command, answer) in [
        (r#"{"type":"ping","ref":1}"#, "pong"),
        (r#"{"type":"history","room":"lobby","ref":1}"#, "ok"),
        (r#"{"type":"presence","room":"lobby","ref":1}"#, "ok"),
        (r#"{"room":"nowhere","content":1,"ref":1}"#, "error"),
        (r#"{"type":"join","room":"lobby","ref":1}"#, "error"),
        (r#"{"type":"leave","room":"lobby","ref":1}"#, "ok"),
        (r#"{"content":1,"ref":1}"#, "error"),
    ] {
        assert_eq!(other.ask(command)["type"], answer, "{command}");
    }
    assert_eq!(backend.unseen(), 0);
}

#[test]
fn a_refusal_has_the_backends_reason() {
    let backend = Backend::start(|asked| {
        json(match asked.body["query"].as_str() {
            Some("bad") => r#"{"allow":false,"reason":"not you"}"#,
            Some(_) => ALLOW,
            None => r#"{"allow":false}"#,
        })
    });
    let server = TestServer::start(hooked(&backend, "connect,join,publish"));
    let mut refused = server.connect("/ws?bad");
    let error = refused.json();
    assert_eq!((&error["code"], &error["message"]), (&value!("forbidden"), &value!("not you")));
    let close = refused.closed().unwrap();
    assert_eq!((u16::from(close.code), close.reason.as_str()), (4003, "not you"));
    let mut client = server.chat();
    for command in [
        r#"{"type":"join","room":"a","ref":7}"#,
        r#"{"type":"join","room":"a.*","ref":7}"#,
        r#"{"content":1,"ref":7}"#,
    ] {
        let error = client.ask(command);
        assert_eq!((&error["code"], &error["ref"]), (&value!("forbidden"), &value!(7)));
        assert_eq!(error["message"], "the server's backend does not allow this");
    }
    assert_eq!(figure(&server, "hook_connect_refused"), 1);
    assert_eq!(figure(&server, "hook_join_refused"), 2);
    assert_eq!(figure(&server, "hook_publish_refused"), 1);
}

#[test]
fn the_backend_names_the_sender() {
    let backend = Backend::start(|asked| {
        json(match (asked.body["event"].as_str(), &asked.body["content"]) {
            (Some("connect"), _) if asked.body["query"] == "anna" => {
                r#"{"allow":true,"sender":"Anna \"A\""}"#
            }
            (Some("publish"), Value::Number(_)) => r#"{"allow":true,"sender":"the bank"}"#,
            (Some("join"), _) if asked.body["room"] == "named" => {
                r#"{"allow":true,"sender":"Cleo"}"#
            }
            _ => ALLOW,
        })
    });
    let server = TestServer::start(hooked(&backend, "connect,join,publish"));
    let mut anna = server.connect("/ws?anna");
    let id = anna.json()["client_id"].clone();
    let mut ben = server.chat();
    for (content, sender) in [("\"hi\"", "Anna \"A\""), ("5", "the bank")] {
        anna.send(format!(r#"{{"content":{content},"sender":"the queen"}}"#));
        assert_eq!(ben.json()["sender"], sender);
    }
    anna.send(format!(
        r#"{{"type":"direct","to":{},"content":1,"sender":"x"}}"#,
        ben.welcome["client_id"]
    ));
    assert_eq!(ben.json()["sender"], "Anna \"A\"");
    anna.send(r#"{"type":"join","room":"tea","sender":"the queen"}"#);
    ben.send(r#"{"type":"join","room":"tea"}"#);
    let listed = ben.ask(r#"{"type":"presence","room":"lobby","ref":1}"#);
    let members = listed["members"].as_array().unwrap();
    let of_anna = members.iter().find(|member| member["client_id"] == id).unwrap();
    assert_eq!(of_anna["sender"], "Anna \"A\"");
    ben.ask(r#"{"type":"join","room":"named","sender":"Ben","ref":2}"#);
    let listed = ben.ask(r#"{"type":"presence","room":"named","ref":3}"#);
    assert_eq!(listed["members"][0]["sender"], "Cleo");
}

#[test]
fn only_the_one_that_asks_waits() {
    let (backend, answer) = scripted();
    let server = TestServer::start(hooked(&backend, "join"));
    let (mut anna, mut ben) = (server.chat(), server.chat());
    anna.send(r#"{"type":"join","room":"tea","ref":1}"#);
    anna.send(r#"{"type":"ping","ref":2}"#);
    backend.next();
    // On the same worker: a client of the same route, and one of another.
    ben.send(r#"{"content":"hello"}"#);
    let heard = anna.json();
    assert_eq!(heard["content"], "hello", "messages come to the one that waits, too: {heard}");
    assert_eq!(ben.ask(r#"{"type":"ping","ref":3}"#)["type"], "pong");
    let mut other = server.connect("/echo");
    other.send("x");
    assert_eq!(other.next().to_text().unwrap(), "x");
    answer.send(json(ALLOW)).unwrap();
    assert_eq!([anna.json()["ref"].clone(), anna.json()["ref"].clone()], [1, 2]);
}

#[test]
fn a_slow_answer_keeps_the_order_of_a_client() {
    let (backend, answer) = scripted();
    let server = TestServer::start(hooked(&backend, "publish"));
    let (mut anna, mut ben) = (server.chat(), server.chat());
    let id = "0193a5b0-0000-7000-8000-000000000001";
    for n in 1..=3 {
        anna.send(format!(r#"{{"content":{n},"ref":{n}}}"#));
    }
    anna.send(format!(r#"{{"content":4,"id":"{id}","ref":4}}"#));
    anna.send(format!(r#"{{"content":4,"id":"{id}","ref":5}}"#));
    backend.next();
    assert_eq!(backend.unseen(), 0, "one at a time");
    for text in [ALLOW, r#"{"allow":false}"#, ALLOW, ALLOW, ALLOW] {
        answer.send(json(text)).unwrap();
    }
    let heard: Vec<Value> = (0..3).map(|_| ben.json()["content"].clone()).collect();
    assert_eq!(heard, [1, 3, 4]);
    let answers: Vec<Value> = (0..5).map(|_| anna.json()).collect();
    let refs: Vec<_> = answers.iter().map(|answer| answer["ref"].as_u64().unwrap()).collect();
    assert_eq!(refs, [1, 2, 3, 4, 5]);
    assert_eq!(
        (&answers[1]["code"], &answers[4]["repeated"]),
        (&value!("forbidden"), &value!(true))
    );
    assert_eq!(answers[3]["seq"], answers[4]["seq"]);
}

#[test]
fn a_backend_that_lies_decides_nothing() {
    let huge = format!(r#"{{"allow":true,"x":"{}"}}"#, "x".repeat(70_000));
    let elsewhere = Backend::start(|_| json(ALLOW));
    let location = format!("307 Temporary Redirect\r\nLocation: {}", elsewhere.url());
    let answers = [
        json("nonsense"),
        json("{}"),
        json(&huge),
        with_status("500 Internal Server Error", ALLOW),
        with_status(&location, ALLOW),
        "not HTTP\r\n\r\n".into(),
        "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"allow\":true}".into(),
        "".into(),
    ];
    let count = answers.len() as u64;
    let (backend, answer) = scripted();
    let server = TestServer::start(hooked(&backend, "publish"));
    let mut client = server.chat();
    for text in answers {
        answer.send(text.clone()).unwrap();
        let error = client.ask(r#"{"content":1,"ref":1}"#);
        assert_eq!(error["code"], "overloaded", "{text:.100}: {error}");
        assert_eq!(error["retry_after_ms"], 1000);
    }
    assert_eq!((figure(&server, "hook_publish_failed"), elsewhere.unseen()), (count, 0));
    answer.send(json(ALLOW)).unwrap();
    assert_eq!(client.ask(r#"{"content":1,"ref":1}"#)["type"], "ok", "it can still be asked");
}

#[test]
fn a_client_that_is_asked_about_is_not_in_yet() {
    let (backend, answer) = scripted();
    let config = Config { broadcast: true, ..hooked(&backend, "connect") };
    let server = TestServer::start(config);
    answer.send(json(ALLOW)).unwrap();
    let mut ben = server.chat();
    backend.next();
    let mut anna = server.connect("/ws");
    backend.next();
    ben.ask(r#"{"type":"broadcast","content":"early","ref":1}"#);
    answer.send(json(ALLOW)).unwrap();
    assert_eq!(anna.json()["type"], "welcome");
    ben.ask(r#"{"type":"broadcast","content":"now","ref":2}"#);
    assert_eq!(anna.json()["content"], "now");
}

#[test]
fn a_client_that_hangs_up_before_it_is_let_in_is_not_waited_for() {
    let (backend, answer) = scripted();
    let config = Config { resume_window: DEADLINE * 2, ..hooked(&backend, "connect") };
    let server = TestServer::start(config);
    for is_abrupt in [false, true] {
        let gone = server.upgrade("/ws");
        backend.next();
        if is_abrupt {
            socket2::SockRef::from(&gone.stream).set_linger(Some(Duration::ZERO)).unwrap();
        }
        drop(gone);
        // Before the backend has answered.
        server.wait_until_empty();
        answer.send(json(ALLOW)).unwrap();
    }
    answer.send(json(ALLOW)).unwrap();
    server.chat();
    // Another thread may still be with the answer about one who has gone.
    server.wait_for("all three are let in", |stats| {
        stats.handlers["/ws"]["hook_connect_allowed"] == 3
    });
}

#[test]
fn a_client_that_has_gone_is_not_asked_about() {
    let (backend, answer) = scripted();
    let config = Config { hook_threads: 1, ..hooked(&backend, "connect") };
    let server = TestServer::start(config);
    let mut first = server.connect("/ws");
    backend.next();
    // While the only thread waits for the first answer, others come and go.
    for _ in 0..5 {
        server.upgrade("/ws").reset();
    }
    server.wait_for("they have gone", |stats| stats.sessions == 1);
    let mut honest = server.connect("/ws");
    server.wait_for("it waits for the thread", |stats| stats.tasks_queued == 6);
    for _ in 0..2 {
        answer.send(json(ALLOW)).unwrap();
    }
    assert_eq!(first.json()["type"], "welcome");
    assert_eq!(honest.json()["type"], "welcome");
    assert_eq!((figure(&server, "hook_connect_gone"), backend.asked_so_far()), (5, 2));
}

#[test]
fn questions_that_waited_for_a_thread_say_nothing_about_the_backend() {
    let (backend, answer) = scripted();
    let timeout = Duration::from_millis(500);
    let config = Config { hook_threads: 1, hook_timeout: timeout, ..hooked(&backend, "publish") };
    let server = TestServer::start(config);
    let mut clients: Vec<Client> = (0..9).map(|_| server.chat()).collect();
    for client in &mut clients {
        client.send(r#"{"content":1,"ref":1}"#);
    }
    // One question is not answered in time, and the others have waited for its thread meanwhile.
    for client in &mut clients {
        assert_eq!(client.json()["code"], "overloaded");
    }
    assert_eq!(figure(&server, "hook_publish_timed_out"), 9);
    assert_eq!(backend.asked_so_far(), 1, "nobody is asked who has no time to answer");
    answer.send(json(ALLOW)).unwrap();
    answer.send(json(ALLOW)).unwrap();
    assert_eq!(clients[0].ask(r#"{"content":2,"ref":2}"#)["type"], "ok");
    assert_eq!(figure(&server, "hook_publish_circuit_open"), 0);
}

/// An address at which nothing listens.
fn nowhere() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}/", listener.local_addr().unwrap())
}

#[test]
fn a_backend_that_is_down_closes_or_opens_as_configured() {
    for fail in [HookFail::Closed, HookFail::Open] {
        let backend = Backend::start(|_| json(ALLOW));
        let config = Config {
            hook_url: nowhere(),
            hook_fail: fail,
            ..hooked(&backend, "connect,join,publish")
        };
        let server = TestServer::start(config);
        if fail == HookFail::Open {
            let mut client = server.chat();
            assert_eq!(client.ask(r#"{"type":"join","room":"a","ref":1}"#)["type"], "ok");
            assert_eq!(client.ask(r#"{"content":1,"ref":1}"#)["type"], "ok");
            continue;
        }
        for _ in 0..10 {
            let mut client = server.connect("/ws");
            assert_eq!(client.json()["code"], "overloaded");
            assert_eq!(u16::from(client.closed().unwrap().code), 1013);
        }
        // While it is down, one question a second tries it.
        let failed = figure(&server, "hook_connect_failed");
        let open = figure(&server, "hook_connect_circuit_open");
        assert!(failed >= 5 && open >= 1 && failed + open == 10, "{failed} {open}");
    }
}

#[test]
fn a_gateway_without_a_backend_behind_it_is_not_asked_again_at_once() {
    for (status, is_down) in [("502 Bad Gateway", true), ("503 Busy", true), ("500 Oh", false)] {
        let backend = Backend::start(move |_| with_status(status, ""));
        let server = TestServer::start(hooked(&backend, "connect"));
        for _ in 0..10 {
            assert_eq!(server.connect("/ws").json()["code"], "overloaded");
        }
        let failed = figure(&server, "hook_connect_failed");
        let open = figure(&server, "hook_connect_circuit_open");
        assert_eq!(failed + open, 10);
        assert_eq!(open > 0, is_down, "{status}: {open}");
    }
}

#[test]
fn an_answer_that_comes_too_late_is_none() {
    let (backend, answer) = scripted();
    let timeout = Duration::from_millis(300);
    let config = Config { hook_timeout: timeout, ..hooked(&backend, "publish") };
    let server = TestServer::start(config);
    let mut client = server.chat();
    let error = client.ask(r#"{"content":1,"ref":1}"#);
    assert_eq!(error["code"], "overloaded");
    assert_eq!(figure(&server, "hook_publish_timed_out"), 1);
    answer.send(json(ALLOW)).unwrap();
}

#[test]
fn what_the_pool_cannot_take_is_decided_at_once() {
    let (backend, answer) = scripted();
    let config = Config { hook_threads: 1, hook_queue: 1, ..hooked(&backend, "publish") };
    let server = TestServer::start(config);
    let mut clients: Vec<Client> = (0..3).map(|_| server.chat()).collect();
    let long = "x".repeat(10_000);
    for (n, client) in clients[..2].iter_mut().enumerate() {
        client.send(value!({"content": long, "ref": n + 1}).to_string());
        if n == 0 {
            backend.next();
        }
    }
    server.wait_for("one waits", |stats| stats.tasks_queued == 1);
    let job_bytes = server.stats().job_bytes;
    assert!(job_bytes > 40_000, "both questions and commands count as memory: {job_bytes}");
    assert_eq!(clients[2].ask(r#"{"content":3,"ref":3}"#)["code"], "overloaded");
    assert_eq!(figure(&server, "hook_publish_pool_full"), 1);
    for _ in 0..2 {
        answer.send(json(ALLOW)).unwrap();
    }
    assert_eq!(clients[0].ask("{\"type\":\"ping\"}")["ref"], 1);
    assert_eq!(clients[1].ask("{\"type\":\"ping\"}")["ref"], 2);
    server.wait_for("no memory is counted any more", |stats| stats.job_bytes == 0);
}

#[test]
fn a_client_may_leave_and_a_server_drain_while_the_backend_thinks() {
    let (backend, answer) = scripted();
    let server = TestServer::start(hooked(&backend, "connect,join"));
    let mut gone = server.upgrade("/ws");
    backend.next();
    gone.send(&support::close_frame(1000));
    drop(gone);
    answer.send(json(ALLOW)).unwrap();
    server.wait_until_empty();
    answer.send(json(ALLOW)).unwrap();
    let mut client = server.chat();
    backend.next();
    client.send(r#"{"type":"join","room":"a"}"#);
    backend.next();
    server.handle.shutdown(Duration::from_secs(10));
    assert_eq!(u16::from(client.closed().unwrap().code), 1001);
    answer.send(json(ALLOW)).unwrap();
    server.handle.join();
}

#[test]
fn a_resumed_session_is_asked_about_its_new_connection_alone() {
    let backend = Backend::start(|asked| {
        json(if asked.body["room"] == "vault" { r#"{"allow":false}"# } else { ALLOW })
    });
    let config =
        Config { resume_window: Duration::from_secs(60), ..hooked(&backend, "connect,join") };
    let server = TestServer::start(config);
    let mut first = server.chat();
    let tea = first.ask(r#"{"type":"join","room":"tea","ref":1}"#);
    let session = first.welcome["session"].clone();
    let epoch = tea["epoch"].clone();
    drop(first);
    server.wait_for("it is away", |stats| stats.sessions_away == 1);
    for _ in 0..2 {
        backend.next();
    }
    let mut second = server.chat();
    assert_eq!(backend.next().body["event"], "connect");
    let resumed = second.ask(
        &value!({"type": "resume", "session": session, "ref": 2, "rooms": [
            {"room": "tea", "epoch": epoch, "seq": 0},
            {"room": "vault", "epoch": epoch, "seq": 0},
        ]})
        .to_string(),
    );
    let room = |name: &str| {
        let rooms = resumed["rooms"].as_array().unwrap();
        rooms.iter().find(|room| room["room"] == name).unwrap().clone()
    };
    assert_eq!(room("tea")["recovered"], true, "{resumed}");
    assert_eq!(room("vault")["error"], "not_member", "no way around the hook: {resumed}");
    let heard = second.ask(r#"{"type":"history","room":"vault","ref":3}"#);
    assert_eq!(heard["code"], "not_member");
    assert_eq!(backend.unseen(), 0);
}

// ---- users

const TOKEN_SECRET: &str = "a secret for tests that has enough bytes";

fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// A token of this user for these rooms.
fn token(user: &str, rooms: &str) -> String {
    let claims = value!({
        "sub": user, "name": user.to_uppercase(), "iat": now_s(), "exp": now_s() + 600,
        "rooms": [{"match": rooms, "allow": ["join", "publish", "history", "presence"]}],
    });
    identity::sign(&claims, TOKEN_SECRET).unwrap()
}

/// A server that lets in whoever has a user.
fn required(backend: &Backend, hooks: &str) -> Config {
    Config {
        identity: IdentityMode::Required,
        token_hmac_secret: Secret::new(TOKEN_SECRET),
        token_in_query: true,
        default_room: String::new(),
        ..hooked(backend, hooks)
    }
}

fn auth(token: &str) -> String {
    value!({"type": "auth", "token": token, "ref": "a"}).to_string()
}

#[test]
fn the_user_of_a_token_is_in_questions_and_events() {
    let backend = Backend::start(|_| json(ALLOW));
    let hearing = Backend::start(|_| json(ALLOW));
    let config = Config {
        events_url: hearing.url(),
        resume_window: Duration::ZERO,
        ..required(&backend, "connect,join,publish")
    };
    let server = TestServer::start(config);
    let mut client = server.connect(&format!("/ws?token={}", token("anna", "tea")));
    assert_eq!(client.json()["user"], "anna");
    assert_eq!(client.ask(r#"{"type":"join","room":"tea","sender":"x","ref":1}"#)["type"], "ok");
    assert_eq!(client.ask(r#"{"room":"tea","content":1,"sender":"x","ref":1}"#)["type"], "ok");
    for event in ["connect", "join", "publish"] {
        let body = backend.next().body;
        assert_eq!((&body["event"], &body["user"]), (&value!(event), &value!("anna")), "{body}");
        let sender = if event == "connect" { Value::Null } else { value!("ANNA") };
        assert_eq!(body["sender"], sender, "the name that the message will have: {body}");
    }
    // What the token does not allow fails in any case, so nobody is asked.
    for command in [
        r#"{"type":"join","room":"milk","ref":1}"#,
        r#"{"type":"join","room":"milk","presence":true,"ref":1}"#,
    ] {
        assert_eq!(client.ask(command)["code"], "forbidden", "{command}");
    }
    assert_eq!(backend.unseen(), 0);
    client.close();
    let mut heard = Vec::new();
    while heard.len() < 5 {
        heard.extend(hearing.next().body["events"].as_array().unwrap().iter().cloned());
    }
    for event in heard {
        let user = if event["event"] == "room_empty" { Value::Null } else { value!("anna") };
        assert_eq!(event["user"], user, "{event}");
    }
}

#[test]
fn a_client_may_be_asked_about_again_once_its_token_has_come() {
    let backend = Backend::start(|asked| {
        json(match asked.body["user"].as_str() {
            Some("mallory") => r#"{"allow":false,"reason":"not you"}"#,
            _ => ALLOW,
        })
    });
    let server = TestServer::start(required(&backend, "connect"));
    let mut client = server.connect("/ws?room=1");
    assert_eq!(backend.next().body["user"], Value::Null);
    client.send(auth(&token("anna", "tea")));
    let body = backend.next().body;
    let told = (&body["user"], &body["path"], &body["query"]);
    assert_eq!(told, (&value!("anna"), &value!("/ws"), &value!("room=1")));
    let welcome = client.json();
    assert_eq!((&welcome["type"], &welcome["user"]), (&value!("welcome"), &value!("anna")));
    let answer = client.json();
    assert_eq!((&answer["type"], &answer["ref"]), (&value!("ok"), &value!("a")));
    // One that renews is not asked about.
    client.send(auth(&token("anna", "tea")));
    assert_eq!(client.json()["ref"], "a");
    assert_eq!(backend.unseen(), 0);
    let mut refused = server.connect("/ws");
    refused.send(auth(&token("mallory", "tea")));
    let error = refused.json();
    assert_eq!((&error["message"], &error["ref"]), (&value!("not you"), &value!("a")));
    assert_eq!(u16::from(refused.closed().unwrap().code), 4003);
}

#[test]
fn a_backend_may_say_who_a_client_is_and_what_it_may_do() {
    let backend = Backend::start(|asked| {
        json(match asked.body["query"].as_str() {
            Some("nobody") => ALLOW,
            Some(_) => {
                r#"{"allow":true,"user":"u7","sender":"Anna","rooms":[
                    {"match":["chat.*","of.{sub}"],"allow":["join","publish","presence"]},
                    {"match":"look","allow":["join"]}]}"#
            }
            None => ALLOW,
        })
    });
    // No key for tokens is needed.
    let config = Config {
        token_hmac_secret: Secret::default(),
        auth_timeout: Duration::from_millis(300),
        resume_window: Duration::from_secs(60),
        ..required(&backend, "connect,join,publish")
    };
    let server = TestServer::start(config);
    let mut anna = server.connect("/ws?anna");
    let welcome = anna.json();
    assert_eq!(welcome["user"], "u7", "{welcome}");
    backend.next();
    for room in ["chat.a", "of.u7"] {
        let join = value!({"type": "join", "room": room, "ref": 1, "sender": "x"}).to_string();
        assert_eq!(anna.ask(&join)["type"], "ok", "{room}");
        assert_eq!(backend.next().body["user"], "u7");
    }
    assert_eq!(anna.ask(r#"{"type":"join","room":"of.u8","ref":1}"#)["code"], "forbidden");
    anna.ask(r#"{"type":"join","room":"look","ref":1}"#);
    backend.next();
    assert_eq!(anna.ask(r#"{"room":"look","content":1,"ref":1}"#)["code"], "forbidden");
    assert_eq!(backend.unseen(), 0, "what fails in any case is not asked about");
    anna.send(r#"{"room":"chat.a","content":1,"sender":"x","echo":true}"#);
    let heard = anna.json();
    assert_eq!((&heard["user"], &heard["sender"]), (&value!("u7"), &value!("Anna")), "{heard}");
    let listed = anna.ask(r#"{"type":"presence","room":"chat.a","ref":1}"#);
    let member = &listed["members"][0];
    assert_eq!((&member["user"], &member["sender"]), (&value!("u7"), &value!("Anna")));
    // The next connection has the same user, so it may resume.
    drop(anna);
    server.wait_for("it is away", |stats| stats.sessions_away == 1);
    let mut again = server.connect("/ws?anna");
    again.json();
    let resume = value!({"type": "resume", "session": welcome["session"], "rooms": [], "ref": 2});
    assert_eq!(again.ask(&resume.to_string())["type"], "ok");
    // Without a user the rules for tokens hold.
    let mut nobody = server.connect("/ws?nobody");
    assert_eq!(nobody.json()["code"], "unauthorized");
    assert_eq!(u16::from(nobody.closed().unwrap().code), 4001);
    // A user of the backend is revoked like others, until the backend lets it in anew.
    assert_eq!(server.handle.revoke(&Revocation::user("u7")), 1);
    assert_eq!(u16::from(again.closed().unwrap().code), 4001);
    eventually("it is let in again", || {
        let kind = server.connect("/ws?anna").json()["type"].clone();
        if kind == "welcome" { Ok(()) } else { Err(kind.to_string()) }
    });
}

#[test]
fn what_the_backend_has_said_outlives_a_token() {
    let backend = Backend::start(|asked| {
        json(match asked.body["query"].as_str() {
            Some(query) if query.ends_with("other") => r#"{"allow":true,"user":"ben"}"#,
            _ => {
                r#"{"allow":true,"sender":"Anna","rooms":[
                    {"match":"milk","allow":["join","publish"]}]}"#
            }
        })
    });
    let server = TestServer::start(required(&backend, "connect"));
    let mut client = server.connect(&format!("/ws?token={}", token("anna", "tea")));
    client.json();
    for room in ["tea", "milk"] {
        let join = value!({"type": "join", "room": room, "ref": 1}).to_string();
        assert_eq!(client.ask(&join)["type"], "ok", "{room}");
    }
    client.send(auth(&token("anna", "coffee")));
    assert_eq!(client.json()["left"], value!(["tea"]), "what the token alone allowed");
    client.send(r#"{"room":"milk","content":1,"echo":true}"#);
    assert_eq!(client.json()["sender"], "Anna");
    // A backend that takes a client for somebody else gives no proper answer.
    let mut other = server.connect(&format!("/ws?token={}&other", token("anna", "tea")));
    assert_eq!(other.json()["code"], "overloaded");
    assert_eq!(u16::from(other.closed().unwrap().code), 1013);
    assert_eq!(figure(&server, "hook_connect_failed"), 1);
}

#[test]
fn without_an_answer_an_open_server_goes_by_tokens() {
    let backend = Backend::start(|_| json(ALLOW));
    let config = Config {
        hook_url: nowhere(),
        hook_fail: HookFail::Open,
        auth_timeout: Duration::from_millis(300),
        ..required(&backend, "connect,join")
    };
    let server = TestServer::start(config);
    let mut anna = server.connect(&format!("/ws?token={}", token("anna", "tea")));
    assert_eq!(anna.json()["user"], "anna");
    assert_eq!(anna.ask(r#"{"type":"join","room":"tea","ref":1}"#)["type"], "ok");
    assert_eq!(anna.ask(r#"{"type":"join","room":"milk","ref":1}"#)["code"], "forbidden");
    let mut nobody = server.connect("/ws");
    assert_eq!(nobody.json()["code"], "unauthorized");
    assert_eq!(u16::from(nobody.closed().unwrap().code), 4001);
}

#[test]
fn a_backend_may_give_users_where_tokens_are_off_or_optional() {
    for mode in [IdentityMode::Off, IdentityMode::Optional] {
        let backend = Backend::start(|asked| {
            json(match asked.body["query"].as_str() {
                Some("anna") => r#"{"allow":true,"user":"anna"}"#,
                _ => ALLOW,
            })
        });
        let config = Config { identity: mode, ..hooked(&backend, "connect") };
        let server = TestServer::start(config);
        let mut anna = server.connect("/ws?anna");
        assert_eq!(anna.json()["user"], "anna");
        let mut ben = server.chat();
        assert_eq!(ben.welcome["user"], Value::Null);
        anna.send(r#"{"content":1}"#);
        let heard = ben.json();
        assert_eq!((&heard["user"], &heard["sender"]), (&value!("anna"), &value!("anna")));
    }
}

#[test]
fn a_user_who_is_revoked_while_the_backend_thinks_does_not_come_in() {
    let (backend, answer) = scripted();
    let config = Config { identity: IdentityMode::Required, ..hooked(&backend, "connect") };
    let server = TestServer::start(config);
    let mut client = server.connect("/ws");
    backend.next();
    server.handle.revoke(&Revocation::user("u7"));
    answer.send(json(r#"{"allow":true,"user":"u7"}"#)).unwrap();
    assert_eq!(client.json()["code"], "unauthorized");
    assert_eq!(u16::from(client.closed().unwrap().code), 4001);
}

#[test]
fn a_client_that_came_without_a_user_is_asked_about_when_it_has_one() {
    let backend = Backend::start(|asked| {
        json(match asked.body["user"].as_str() {
            Some("mallory") => r#"{"allow":false,"reason":"not you"}"#,
            Some(_) => r#"{"allow":true,"sender":"Anna"}"#,
            None => ALLOW,
        })
    });
    let config = Config { identity: IdentityMode::Optional, ..required(&backend, "connect") };
    let server = TestServer::start(config);
    let mut mallory = server.connect("/ws");
    mallory.json();
    mallory.send(auth(&token("mallory", "tea")));
    let error = mallory.json();
    assert_eq!((&error["message"], &error["ref"]), (&value!("not you"), &value!("a")));
    assert_eq!(u16::from(mallory.closed().unwrap().code), 4003);
    let mut anna = server.connect("/ws?room=1");
    assert_eq!(anna.json()["user"], Value::Null);
    for _ in 0..3 {
        backend.next();
    }
    anna.send(auth(&token("anna", "tea")));
    let body = backend.next().body;
    assert_eq!((&body["user"], &body["query"]), (&value!("anna"), &value!("room=1")));
    let answer = anna.json();
    assert_eq!((&answer["type"], &answer["user"]), (&value!("ok"), &value!("anna")));
    anna.ask(r#"{"type":"join","room":"tea","ref":1}"#);
    anna.send(r#"{"room":"tea","content":1,"echo":true}"#);
    assert_eq!(anna.json()["sender"], "Anna");
    // One that renews is not asked about.
    anna.send(auth(&token("anna", "tea")));
    assert_eq!(anna.json()["ref"], "a");
    assert_eq!(backend.unseen(), 0);
}

/// A server that sends events to a backend, and asks nothing.
fn eventful(backend: &Backend) -> Config {
    Config {
        events_url: backend.url(),
        events_secret: Secret::new(SECRET),
        resume_window: Duration::ZERO,
        default_room: String::new(),
        ..config()
    }
}

#[test]
fn events_come_in_batches_and_again_after_a_failure() {
    let failures = AtomicUsize::new(2);
    let backend = Backend::start(move |_| {
        let fails = failures.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1));
        match fails {
            Ok(_) => with_status("503 Service Unavailable", ""),
            Err(_) => with_status("204 No Content", ""),
        }
    });
    let server = TestServer::start(eventful(&backend));
    let mut client = server.chat();
    let id = client.welcome["client_id"].clone();
    client.ask(r#"{"type":"join","room":"tea","sender":"Anna","ref":1}"#);
    client.ask(r#"{"type":"leave","room":"tea","ref":2}"#);
    client.ask(r#"{"type":"join","room":"milk","ref":3}"#);
    client.close();
    let mut events: Vec<Value> = Vec::new();
    let mut batches = Vec::new();
    while events.len() < 8 || batches.len() < 3 {
        let asked = backend.next();
        assert!(is_signed(&asked));
        if batches.last() != Some(&asked.body["batch"]) {
            events.extend(asked.body["events"].as_array().unwrap().iter().cloned());
        }
        batches.push(asked.body["batch"].clone());
        assert_eq!(asked.body["dropped"], 0);
    }
    assert!(batches[0] == batches[1] && batches[1] == batches[2], "{batches:?}");
    let told: Vec<String> = events
        .iter()
        .map(|event| {
            assert!(event["time"].as_str().unwrap().ends_with('Z'));
            assert!(event["client_id"].is_null() || event["client_id"] == id, "{event}");
            let text = |name: &str| event[name].as_str().unwrap_or_default().to_owned();
            format!("{} {} {}", text("event"), text("room"), text("sender"))
        })
        .collect();
    let expected = [
        "joined tea Anna",
        "connected  ",
        "left tea Anna",
        "room_empty tea ",
        "joined milk Anna",
        "disconnected  ",
        "left milk Anna",
        "room_empty milk ",
    ];
    let (mut told, mut expected) = (told, expected.map(String::from).to_vec());
    // A client is known only once it has spoken, and its first word may be a join.
    told[..2].sort();
    expected[..2].sort();
    assert_eq!(told, expected);
    let closed = events.iter().find(|event| event["event"] == "disconnected").unwrap();
    assert_eq!(closed["code"], 1005);
    server.wait_for("they are counted", |stats| {
        let figures = &stats.handlers["/ws"];
        figures["events_sent"] == 8 && figures["events_failed_batches"] == 2
    });
}

#[test]
fn an_event_that_the_backend_cannot_read_is_dropped_without_the_others() {
    let backend = Backend::start(|asked| {
        let is_odd = asked.text.contains(r#""room":"odd""#);
        with_status(if is_odd { "422 Unprocessable Content" } else { "200 OK" }, "")
    });
    let events = vec!["joined".to_owned()];
    let server = TestServer::start(Config { events, ..eventful(&backend) });
    let mut client = server.chat();
    for room in 0..40 {
        let name = if room == 17 { "odd".to_owned() } else { format!("r{room}") };
        client.ask(&value!({"type": "join", "room": name, "ref": room}).to_string());
    }
    server.wait_for("all others are taken", |stats| {
        let figures = &stats.handlers["/ws"];
        (figures["events_sent"], figures["events_dropped"]) == (39, 1)
    });
    client.ask(r#"{"type":"join","room":"last","ref":"l"}"#);
    let mut told = 0;
    eventually("the next batch says what was dropped", || {
        let asked = backend.next();
        told += asked.body["dropped"].as_u64().unwrap();
        if asked.text.contains(r#""room":"last""#) { Ok(()) } else { Err(asked.text) }
    });
    assert_eq!(told, 1);
}

#[test]
fn a_backend_that_takes_no_events_holds_up_nobody_and_is_told_what_it_missed() {
    let (go, gate) = crossbeam_channel::bounded::<()>(0);
    let gate = Mutex::new(gate);
    let backend = Backend::start(move |_| {
        let _ = gate.lock().unwrap().recv_timeout(DEADLINE);
        with_status("200 OK", "")
    });
    let events = ["joined", "left"].map(String::from).to_vec();
    let server = TestServer::start(Config { events_queue: 5, events, ..eventful(&backend) });
    let mut client = server.chat();
    for _ in 0..200 {
        client.ask(r#"{"type":"join","room":"tea","ref":1}"#);
        client.ask(r#"{"type":"leave","room":"tea","ref":2}"#);
    }
    let dropped = figure(&server, "events_dropped");
    assert!(dropped > 0 && figure(&server, "events_waiting") <= 5);
    drop(go);
    let (mut told, mut kept) = (0, 0);
    eventually("all events are sent or told of", || {
        let body = backend.next().body;
        told += body["dropped"].as_u64().unwrap();
        let batch = body["events"].as_array().unwrap().len() as u64;
        assert!(batch <= 100);
        kept += batch;
        if told + kept < 400 { Err(format!("{told} {kept}")) } else { Ok(()) }
    });
    assert_eq!(told + kept, 400);
}

#[test]
fn a_server_that_stops_sends_its_last_events() {
    let backend = Backend::start(|_| with_status("200 OK", ""));
    let events = vec!["disconnected".to_owned()];
    let server = TestServer::start(Config { events, ..eventful(&backend) });
    let mut client = server.chat();
    assert_eq!(client.ask(r#"{"type":"ping","ref":1}"#)["type"], "pong");
    server.handle.shutdown(Duration::from_secs(10));
    client.closed();
    client.close();
    server.handle.join();
    assert_eq!(backend.unseen(), 1, "it was sent before the server had stopped");
    assert_eq!(backend.next().body["events"][0]["code"], 1001);
}

#[test]
fn the_backend_of_the_documents_runs() {
    let document = std::fs::read_to_string("docs/hooks.md").unwrap();
    let program = document.split("```python\n").nth(1).unwrap().split("```").next().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let program = program.replace("8000", &port.to_string());
    let child = std::process::Command::new("python3")
        .args(["-c", &program])
        .env("HOOK_SECRET", SECRET)
        .stderr(std::process::Stdio::null())
        .spawn();
    let Ok(child) = child else {
        eprintln!("skipped: there is no python3");
        return;
    };
    let child = Arc::new(Mutex::new(child));
    struct Kill(Arc<Mutex<std::process::Child>>);
    impl Drop for Kill {
        fn drop(&mut self) {
            let mut child = self.0.lock().unwrap();
            let _ = child.kill();
            let _ = child.wait();
        }
    }
    let _kill = Kill(child);
    eventually("the backend listens", || {
        let tried = std::net::TcpStream::connect(("127.0.0.1", port));
        tried.map(drop).map_err(|error| error.to_string())
    });
    let server = TestServer::start(Config {
        hook_url: format!("http://127.0.0.1:{port}/"),
        hook_secret: Secret::new(SECRET),
        hook_timeout: DEADLINE,
        ..config()
    });
    let mut client = server.connect("/ws?name=Anna");
    assert_eq!(client.json()["type"], "welcome");
    assert_eq!(client.ask(r#"{"type":"join","room":"tea","ref":1}"#)["type"], "ok");
    let refused = client.ask(r#"{"type":"join","room":"staff.pay","ref":1}"#);
    assert_eq!(
        (&refused["code"], &refused["message"]),
        (&value!("forbidden"), &value!("staff only"))
    );
    assert_eq!(client.ask(r#"{"content":"hi","ref":1}"#)["type"], "ok");
    let mut nameless = server.connect("/ws");
    assert_eq!(nameless.json()["message"], "say your name");
    assert_eq!(u16::from(nameless.closed().unwrap().code), 4003);
    // Without the right signature nobody is served.
    let server = TestServer::start(Config {
        hook_url: format!("http://127.0.0.1:{port}/"),
        hook_secret: Secret::new("another secret than that"),
        hook_timeout: DEADLINE,
        ..config()
    });
    assert_eq!(server.connect("/ws?name=Anna").json()["code"], "overloaded");
}
