//! The admin listener and the server API: every route, every refusal, and what bad bodies get.

#![allow(clippy::unwrap_used, reason = "a test that unwraps fails with a clear message")]

mod support;
#[path = "support/http.rs"]
mod http;

use std::{mem::ManuallyDrop, time::Duration};

use http::{Api, KEY};
use rusty_socks::{
    Config, Context, FIGURES, FigureKind, Message, Server,
    config::{ApiKey, ApiScope, MetricsAccess, Secret},
};
use serde_json::{Value, json};
use support::{DEADLINE, TestServer, config, eventually};

fn start() -> (TestServer, Api) {
    start_with(http::config())
}

fn start_with(config: Config) -> (TestServer, Api) {
    let server = TestServer::start(config);
    let api = Api::of(&server);
    (server, api)
}

fn lines(body: &str) -> Vec<Value> {
    body.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_message_of_the_api_looks_like_any_other() {
    let (server, api) = start();
    let mut client = server.chat();
    let answer = api.post("/v1/publish", r#"{"room":"lobby","content":{"a": 1}}"#);
    assert_eq!(answer.status, 200, "{answer:?}");
    let (published, message) = (answer.json(), client.json());
    assert_eq!(published["room"], "lobby");
    assert_eq!(message["type"], "message");
    assert_eq!((&message["seq"], &message["id"]), (&published["seq"], &published["id"]));
    assert_eq!((&message["content"], &message["sender"]), (&json!({"a": 1}), &json!("api")));
    assert_eq!(message["client_id"], "00000000-0000-0000-0000-000000000000");
    assert!(message["timestamp"].is_string());
    let said = r#"{"room":"lobby","content":1,"sender":"shop","timestamp":"2025-03-15T12:00:00Z"}"#;
    assert_eq!(api.post("/v1/publish", said).status, 200);
    let message = client.json();
    assert_eq!(
        (&message["sender"], &message["timestamp"]),
        (&json!("shop"), &json!("2025-03-15T12:00:00Z"))
    );
}

#[test]
fn a_room_that_nobody_is_in_keeps_what_is_published() {
    let (server, api) = start();
    let answer = api.post("/v1/publish", r#"{"rooms":["a/b","lobby"],"content":"x"}"#).json();
    assert_eq!(answer["rooms"], json!([{"room":"a/b","seq":1},{"room":"lobby","seq":1}]));
    let page = api.get("/v1/rooms/a%2Fb/history").json();
    assert_eq!((&page["seq"], &page["messages"][0]["content"]), (&json!(1), &json!("x")));
    assert_eq!(page["messages"][0]["rooms"][1]["room"], "lobby");
    let mut client = server.chat();
    assert_eq!(client.json()["content"], "x", "the replay");
}

#[test]
fn a_direct_message_reaches_one_and_an_excluded_client_gets_none() {
    let (server, api) = start();
    let (mut anna, mut ben) = (server.chat(), server.chat());
    let anna_id = anna.welcome["client_id"].as_str().unwrap().to_owned();
    let direct = json!({"to": anna_id, "content": "psst"}).to_string();
    let answer = api.post("/v1/publish", &direct).json();
    assert_eq!(answer["to"], anna_id.as_str());
    let message = anna.json();
    assert_eq!((&message["type"], &message["content"]), (&json!("direct"), &json!("psst")));
    let without = json!({"room": "lobby", "content": 1, "exclude": anna_id}).to_string();
    assert_eq!(api.post("/v1/publish", &without).status, 200);
    assert_eq!(api.post("/v1/publish", r#"{"room":"lobby","content":2}"#).status, 200);
    assert_eq!(
        (ben.json()["content"].clone(), ben.json()["content"].clone()),
        (json!(1), json!(2))
    );
    assert_eq!(anna.json()["content"], 2);
    let nobody = json!({"to": "11111111-1111-4111-8111-111111111111", "content": 1}).to_string();
    let answer = api.post("/v1/publish", &nobody);
    assert_eq!((answer.status, &answer.json()["error"]), (404, &json!("not_found")));
}

#[test]
fn a_repeat_is_published_once_for_each_key() {
    let other = "another-key-of-the-test";
    let key = ApiKey {
        name: "other".into(),
        key: Secret::new(other),
        scopes: vec![ApiScope::Publish],
        rooms: vec!["*".into()],
    };
    let (_server, api) = start_with(Config { api_keys: vec![key], ..http::config() });
    let id = "8c7f6a52-9a3e-4a53-9d7f-0b64d1f0c001";
    let body = r#"{"room":"lobby","content":1}"#;
    let with_key = |api: &Api| {
        api.request("POST", "/v1/publish", &format!("Idempotency-Key: {id}\r\n"), body).json()
    };
    let first = with_key(&api);
    assert_eq!(
        (&first["seq"], &first["id"], &first["repeated"]),
        (&json!(1), &json!(id), &Value::Null)
    );
    assert_eq!(with_key(&api)["repeated"], true);
    let in_body = json!({"room": "lobby", "content": 1, "id": id}).to_string();
    assert_eq!(api.post("/v1/publish", &in_body).json()["repeated"], true);
    assert_eq!(with_key(&api.with_key(other))["seq"], 2, "ids of another key are others");
    for wrong in ["x", "00000000-0000-0000-0000-000000000000"] {
        let lines = format!("Idempotency-Key: {wrong}\r\n");
        assert_eq!(api.request("POST", "/v1/publish", &lines, body).status, 400);
    }
    let two = api.request(
        "POST",
        "/v1/publish",
        "Idempotency-Key: 8c7f6a52-9a3e-4a53-9d7f-0b64d1f0c002\r\n",
        &in_body,
    );
    assert_eq!(two.status, 400);
}

#[test]
fn a_batch_answers_each_line_and_bad_ones_stop_nothing() {
    let (server, api) = start_with(Config { history: 1000, ..http::config() });
    let line = |n: usize| match n % 10 {
        3 => "no JSON".to_owned(),
        7 => r#"{"room":"a*","content":1}"#.to_owned(),
        _ => json!({"room": "lobby", "content": n}).to_string(),
    };
    let batch: Vec<String> = (0..1000).map(line).collect();
    let answer = api.post("/v1/batch", &batch.join("\n"));
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("Content-Type"), Some("application/x-ndjson"));
    let answers = lines(&answer.body);
    assert_eq!(answers.len(), 1000);
    let mut seq = 0;
    for (n, answer) in answers.iter().enumerate() {
        match n % 10 {
            3 => assert_eq!(answer["error"], "invalid_json", "{n}: {answer}"),
            7 => assert_eq!(answer["error"], "bad_request", "{n}: {answer}"),
            _ => {
                seq += 1;
                assert_eq!(answer["seq"], seq, "{n}: {answer}");
            }
        }
    }
    let many = "{\"room\":\"lobby\",\"content\":1}\n".repeat(1001);
    let answer = api.post("/v1/batch", &many);
    assert_eq!((answer.status, &answer.json()["error"]), (413, &json!("too_large")));
    assert_eq!(api.get("/v1/rooms/lobby/history?limit=1").json()["seq"], seq, "nothing more");
    assert_eq!(api.post("/v1/batch", "\n").status, 400);
    let id = "Idempotency-Key: 8c7f6a52-9a3e-4a53-9d7f-0b64d1f0c001\r\n";
    let answer = api.request("POST", "/v1/batch", id, r#"{"room":"lobby","content":1}"#);
    assert_eq!(answer.status, 400);
    assert!(answer.body.contains("Idempotency-Key"), "{answer:?}");
    drop(server);
}

#[test]
fn rooms_are_listed_page_by_page_with_what_they_keep() {
    let (server, api) = start();
    let batch: Vec<String> =
        (0..25).map(|n| json!({"room": format!("r.{n:02}"), "content": n}).to_string()).collect();
    assert_eq!(api.post("/v1/batch", &batch.join("\n")).status, 200);
    let mut client = server.chat();
    client.ask(r#"{"type":"join","room":"r.00","ref":1}"#);
    let (mut after, mut names) = (String::new(), Vec::new());
    loop {
        let page = api.get(&format!("/v1/rooms?prefix=r.&limit=10{after}")).json();
        for room in page["rooms"].as_array().unwrap() {
            assert_eq!((&room["seq"], &room["messages"]), (&json!(1), &json!(1)));
            assert_eq!(room["members"], u64::from(room["room"] == "r.00"));
            names.push(room["room"].as_str().unwrap().to_owned());
        }
        match page["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => break,
        }
    }
    let all: Vec<String> = (0..25).map(|n| format!("r.{n:02}")).collect();
    assert_eq!(names, all);
    let cleared = api.request("DELETE", "/v1/rooms/r.00/history", "", "").json();
    assert_eq!((&cleared["room"], &cleared["seq"]), (&json!("r.00"), &json!(1)));
    assert_eq!(api.get("/v1/rooms/r.00/history").json()["messages"], json!([]));
    let next = api.post("/v1/publish", r#"{"room":"r.00","content":1}"#).json();
    assert_eq!(next["seq"], 2, "the numbers go on");
    for target in ["/v1/rooms/none/history", "/v1/rooms/none/presence", "/v1/sessions?room=none"] {
        assert_eq!(api.get(target).status, 404, "{target}");
    }
    for target in [
        "/v1/rooms?limit=0",
        "/v1/rooms?limit=1001",
        "/v1/rooms?limit=-1",
        "/v1/rooms?page=1",
        "/v1/rooms?limit=1&limit=2",
        "/v1/rooms/r.00/history?before=1&after=1",
        "/v1/rooms/r.00/history?before=x",
        "/v1/rooms/r.00/presence?after=x",
        "/v1/nodes?x",
    ] {
        assert_eq!(api.get(target).status, 400, "{target}");
    }
}

#[test]
fn sessions_are_listed_and_closed() {
    let (server, api) = start();
    let mut clients = [server.chat(), server.chat(), server.chat()];
    clients[0].ask(r#"{"type":"join","room":"tea","sender":"Anna","ref":1}"#);
    let mut ids: Vec<String> = clients
        .iter()
        .map(|client| client.welcome["client_id"].as_str().unwrap().to_owned())
        .collect();
    let anna = ids[0].clone();
    ids.sort();
    let (mut after, mut listed) = (String::new(), Vec::new());
    loop {
        let page = api.get(&format!("/v1/sessions?limit=2{after}")).json();
        let sessions = page["sessions"].as_array().unwrap();
        listed.extend(sessions.iter().map(|one| one["client_id"].as_str().unwrap().to_owned()));
        match page["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => break,
        }
    }
    assert_eq!(listed, ids);
    let in_tea = api.get("/v1/sessions?room=tea").json();
    let expected = json!([{"client_id": anna, "sender": "Anna", "away": false, "rooms": 2}]);
    assert_eq!(in_tea["sessions"], expected);
    let members = api.get("/v1/rooms/tea/presence").json();
    assert_eq!(members["members"], json!([{"client_id": anna, "sender": "Anna"}]));
    assert_eq!(members["count"], 1);

    let close = format!("/v1/sessions/{anna}/close");
    for wrong in ["[]", "{", r#"{"code":1001}"#, r#"{"why":1}"#, r#"{"code":"4000"}"#] {
        assert_eq!(api.post(&close, wrong).status, 400, "{wrong}");
    }
    let answer = api.post(&close, r#"{"code":4321,"reason":"for tea"}"#);
    assert_eq!(answer.json()["client_id"], anna.as_str());
    let frame = clients[0].closed().unwrap();
    assert_eq!((u16::from(frame.code), frame.reason.as_str()), (4321, "for tea"));
    let other = clients[1].welcome["client_id"].as_str().unwrap().to_owned();
    assert_eq!(api.post(&format!("/v1/sessions/{other}/close"), "").status, 200);
    assert_eq!(u16::from(clients[1].closed().unwrap().code), 4009);
    assert_eq!(api.post("/v1/sessions/x/close", "").status, 400);
    let nobody = "/v1/sessions/11111111-1111-4111-8111-111111111111/close";
    assert_eq!(api.post(nobody, "").status, 404);
}

#[test]
fn who_is_away_can_be_ended() {
    let window = Duration::from_secs(60);
    let (server, api) = start_with(Config { resume_window: window, ..http::config() });
    let client = server.chat();
    let id = client.welcome["client_id"].as_str().unwrap().to_owned();
    drop(client);
    server.wait_for("it is away", |stats| stats.sessions_away == 1);
    assert_eq!(api.get("/v1/sessions").json()["sessions"][0]["away"], true);
    assert_eq!(api.post(&format!("/v1/sessions/{id}/close"), "").status, 200);
    let stats = server.stats();
    assert_eq!((stats.sessions, stats.sessions_away), (0, 0));
}

#[test]
fn keys_are_asked_for_and_hold_for_their_scopes_and_rooms() {
    let (shop, reader) = ("shop-key-0123456789", "reader-key-0123456789");
    let key = |name: &str, key: &str, scopes: &[ApiScope], rooms: &[&str]| ApiKey {
        name: name.into(),
        key: Secret::new(key),
        scopes: scopes.into(),
        rooms: rooms.iter().map(ToString::to_string).collect(),
    };
    let api_keys = vec![
        key("shop", shop, &[ApiScope::Publish], &["orders.*", "news"]),
        key("reader", reader, &[ApiScope::Read], &["news"]),
    ];
    let (server, api) = start_with(Config { api_keys, ..http::config() });
    let (shop, reader) = (api.with_key(shop), api.with_key(reader));
    let publish = |api: &Api, room: &str| {
        api.post("/v1/publish", &json!({"room": room, "content": 1}).to_string()).status
    };
    assert_eq!((publish(&shop, "orders.1"), publish(&shop, "news")), (200, 200));
    assert_eq!((publish(&shop, "orders"), publish(&shop, "lobby")), (403, 403));
    assert_eq!((publish(&reader, "news"), publish(&api, "lobby")), (403, 200));
    let page = reader.get("/v1/rooms/news/history").json();
    assert_eq!(page["messages"][0]["sender"], "shop");
    assert_eq!(reader.get("/v1/rooms/orders.1/history").status, 403);
    let rooms = reader.get("/v1/rooms").json();
    assert_eq!(rooms["rooms"].as_array().unwrap().len(), 1, "it sees its rooms: {rooms}");
    assert_eq!(reader.get("/v1/sessions").status, 400);
    assert_eq!(reader.get("/v1/sessions?room=news").status, 200);
    assert_eq!(shop.get("/v1/rooms").status, 403);
    assert_eq!(reader.post("/v1/drain", "").status, 403);
    assert!(!server.stats().draining);
    let mixed =
        shop.post("/v1/batch", "{\"room\":\"news\",\"content\":1}\n{\"room\":\"x\",\"content\":1}");
    let mixed = lines(&mixed.body);
    assert_eq!((&mixed[0]["seq"], &mixed[1]["error"]), (&json!(2), &json!("forbidden")));

    let before = server.stats().rejected["api_unauthorized"];
    for (wrong, told) in [("wrong-key-0123456789", "no such key"), ("", "no such key")] {
        let answer = api.with_key(wrong).post("/v1/publish", "{}");
        assert_eq!((answer.status, answer.header("WWW-Authenticate")), (401, Some("Bearer")));
        assert!(answer.body.contains(told) || answer.body.contains("must have"), "{answer:?}");
        assert!(!answer.body.contains("wrong-key"), "{answer:?}");
    }
    assert_eq!(server.stats().rejected["api_unauthorized"], before + 2);
    let (_server, api) = start_with(Config { api_key: Secret::default(), ..http::config() });
    let answer = api.post("/v1/publish", "{}");
    assert_eq!(answer.status, 401);
    assert!(answer.body.contains("set api_key"), "{answer:?}");
}

#[test]
fn a_key_for_some_rooms_learns_of_no_others() {
    let shown = "reader-key-0123456789";
    let key = ApiKey {
        name: "reader".into(),
        key: Secret::new(shown),
        scopes: vec![ApiScope::Read],
        rooms: ["b.*", "b.2", "d", "none"].map(String::from).into(),
    };
    let (_server, api) = start_with(Config { api_keys: vec![key], ..http::config() });
    let rooms = ["a", "b", "b.", "b.1", "b.2", "b.2.x", "b.3", "c", "d", "e"];
    let batch = rooms.map(|room| json!({"room": room, "content": 1}).to_string());
    assert_eq!(api.post("/v1/batch", &batch.join("\n")).status, 200);
    let reader = api.with_key(shown);
    let pages = |query: &str| {
        let (mut after, mut pages) = (String::new(), Vec::new());
        loop {
            let page = reader.get(&format!("/v1/rooms?{query}{after}")).json();
            let names = page["rooms"].as_array().unwrap().iter();
            pages.push(names.map(|room| room["room"].as_str().unwrap().to_owned()).collect());
            let Some(next) = page["next"].as_str() else { return pages };
            assert_eq!(pages.last().and_then(|page: &Vec<_>| page.last()).unwrap(), next);
            after = format!("&after={next}");
        }
    };
    assert_eq!(pages("")[..], [["b.1", "b.2", "b.2.x", "b.3", "d"]]);
    assert_eq!(pages("limit=2")[..], [&["b.1", "b.2"][..], &["b.2.x", "b.3"], &["d"]]);
    assert_eq!(pages("prefix=b.2")[..], [["b.2", "b.2.x"]]);
    assert_eq!(pages("prefix=d")[..], [["d"]]);
    for prefix in ["a", "c", "e", "b.9"] {
        assert!(pages(&format!("prefix={prefix}"))[0].is_empty(), "{prefix}");
    }
    assert_eq!(pages("after=b.3")[..], [["d"]]);
    assert_eq!(reader.get("/v1/nodes").status, 403, "figures are of the whole server");
    assert_eq!(api.get("/v1/nodes").status, 200);
}

/// A server with one worker, and its API for a key that may publish in rooms of the shop alone.
fn shop_server() -> (TestServer, Api) {
    let shown = "shop-key-0123456789";
    let key = ApiKey {
        name: "shop".into(),
        key: Secret::new(shown),
        scopes: vec![ApiScope::Publish],
        rooms: vec!["shop.*".into()],
    };
    let config = Config { api_keys: vec![key], thread_pool_size: 1, ..http::config() };
    let (server, api) = start_with(config);
    let shop = api.with_key(shown);
    (server, shop)
}

#[test]
fn lines_that_fail_cost_turns_too() {
    let (server, shop) = shop_server();
    let rooms: Vec<String> = (0..32).map(|n| n.to_string()).collect();
    let line = json!({"rooms": rooms, "content": 1}).to_string();
    let before = server.stats().turns;
    let answer = shop.post("/v1/batch", &vec![line; 1000].join("\n"));
    assert!(lines(&answer.body).iter().all(|line| line["error"] == "forbidden"));
    let turns = server.stats().turns - before;
    // A turn is for 1,024 of 33,000 rooms that were looked up in the key; some are for the body.
    assert!(turns > 30, "{turns} turns");
}

#[test]
fn requests_that_come_at_once_have_the_budget_of_a_turn_together() {
    let (server, shop) = shop_server();
    let rooms: Vec<String> = (0..32).map(|n| n.to_string()).collect();
    // Almost the budget of 1,024 each: 33 for a line.
    let body = vec![json!({"rooms": rooms, "content": 1}).to_string(); 30].join("\n");
    let length = format!("Content-Length: {}\r\n", body.len());
    let request = shop.head("POST", "/v1/batch", &length) + &body;
    let mut client = shop.raw();
    let before = server.stats().turns;
    client.send(request.repeat(32).as_bytes());
    assert!((0..32).all(|_| lines(&client.answer().body).len() == 30));
    let turns = server.stats().turns - before;
    assert!(turns >= 14, "two requests a turn, not {turns} turns for 32");
}

#[test]
fn figures_are_not_made_anew_for_each_request() {
    let (_server, api) = start_with(Config { thread_pool_size: 1, ..http::config() });
    let begun = std::time::Instant::now();
    let mut client = api.raw();
    client.send(api.head("GET", "/v1/nodes", "").repeat(200).as_bytes());
    let uptimes: std::collections::BTreeSet<String> =
        (0..200).map(|_| client.answer().json()["nodes"][0]["uptime_s"].to_string()).collect();
    let intervals = begun.elapsed().as_millis() / 100 + 2;
    assert!(uptimes.len() as u128 <= 16 * intervals, "{} in {intervals}", uptimes.len());
}

#[test]
fn what_is_no_message_is_told_why() {
    let (server, api) = start();
    for (body, status, error) in [
        ("", 400, "invalid_json"),
        ("{", 400, "invalid_json"),
        ("[]", 400, "bad_request"),
        ("{}", 400, "bad_request"),
        (r#"{"room":"lobby"}"#, 400, "bad_request"),
        (r#"{"content":1}"#, 400, "bad_request"),
        (r#"{"room":"a","rooms":["b"],"content":1}"#, 400, "bad_request"),
        (r#"{"room":"a*","content":1}"#, 400, "bad_request"),
        (r#"{"rooms":["a","a"],"content":1}"#, 400, "bad_request"),
        (r#"{"rooms":[],"content":1}"#, 400, "bad_request"),
        (r#"{"to":"x","content":1}"#, 400, "bad_request"),
        (r#"{"room":"a","content":1,"exclude":1}"#, 400, "bad_request"),
        (r#"{"room":"a","content":1,"sender":1}"#, 400, "bad_request"),
        (r#"{"room":"a","content":1,"exclude":null}"#, 400, "bad_request"),
        (r#"{"room":"a","content":1,"id":"x"}"#, 400, "bad_request"),
        (r#"{"room":"a","content":1,"timestamp":"now"}"#, 400, "bad_request"),
        (
            r#"{"room":"a","content":1,"id":"00000000-0000-0000-0000-000000000000"}"#,
            400,
            "bad_request",
        ),
    ] {
        let answer = api.post("/v1/publish", body);
        assert_eq!((answer.status, &answer.json()["error"]), (status, &json!(error)), "{body}");
        assert!(!answer.json()["message"].as_str().unwrap().is_empty());
    }
    let answer = api.request("POST", "/v1/publish", "", "\u{fffd}");
    assert_eq!(answer.status, 400);
    assert_eq!(api.get("/v1/publish").status, 405);
    let answer = api.request("PUT", "/v1/rooms/a/history", "", "");
    assert_eq!((answer.status, answer.header("Allow")), (405, Some("GET, HEAD, DELETE")));
    assert_eq!(api.get("/v1/nothing").status, 404);
    let nodes = api.get("/v1/nodes").json()["nodes"].clone();
    assert_eq!(nodes.as_array().unwrap().len(), 1);
    assert_eq!(nodes[0]["node"], server.chat().welcome["node"], "clients are told the same");
}

#[test]
fn a_body_comes_in_pieces_in_chunks_or_after_a_question() {
    let (_server, api) = start();
    let body = r#"{"room":"lobby","content":"in pieces"}"#;
    let mut client = api.raw();
    let head = api.head("POST", "/v1/publish", &format!("Content-Length: {}\r\n", body.len()));
    for piece in (head + body).as_bytes().chunks(7) {
        client.send(piece);
    }
    assert_eq!(client.answer().json()["seq"], 1);
    // The same connection goes on.
    client.send(api.head("POST", "/v1/publish", "Transfer-Encoding: chunked\r\n").as_bytes());
    let (one, other) = body.split_at(9);
    for piece in [one, other, ""] {
        client.send(format!("{:x}\r\n{piece}\r\n", piece.len()).as_bytes());
    }
    assert_eq!(client.answer().json()["seq"], 2);
    let lines = format!("Expect: 100-continue\r\nContent-Length: {}\r\n", body.len());
    client.send(api.head("POST", "/v1/publish", &lines).as_bytes());
    assert_eq!(client.answer_head().status, 100);
    client.send(body.as_bytes());
    assert_eq!(client.answer().json()["seq"], 3);
    // Two at once are answered in order.
    let head = api.head("POST", "/v1/publish", &format!("Content-Length: {}\r\n", body.len()));
    client.send((head + body).repeat(2).as_bytes());
    assert_eq!(
        (client.answer().json()["seq"].clone(), client.answer().json()["seq"].clone()),
        (json!(4), json!(5))
    );
}

#[test]
fn bodies_that_are_huge_or_malformed_are_refused_before_they_are_read() {
    let (server, api) = start();
    let refused = |lines: &str, body: &str| {
        let mut client = api.raw();
        client.send((api.head("POST", "/v1/publish", lines) + body).as_bytes());
        let answer = client.answer();
        assert_eq!(answer.header("Connection"), Some("close"));
        client.expect_end();
        answer.status
    };
    assert_eq!(refused("Content-Length: 99999999999\r\n", ""), 413);
    assert_eq!(refused("Content-Length: 65537\r\nExpect: 100-continue\r\n", ""), 413);
    assert_eq!(refused("Transfer-Encoding: chunked\r\n", "FFFFFFFF\r\n"), 413);
    assert_eq!(server.stats().rejected["api_body_too_large"], 3);
    for lines in [
        "Content-Length: -1\r\n",
        "Content-Length: 1\r\nContent-Length: 1\r\n",
        "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: gzip\r\n",
        "Transfer-Encoding: chunked, chunked\r\n",
    ] {
        assert_eq!(refused(lines, ""), 400, "{lines}");
    }
    assert_eq!(refused("Transfer-Encoding: chunked\r\n", "x\r\n"), 400);
    assert_eq!(refused("Expect: tea\r\nContent-Length: 1\r\n", ""), 417);
    assert_eq!(server.stats().api_bodies, 0);
}

#[test]
fn slow_bodies_end_and_are_few() {
    let config = Config {
        api_body_timeout: Duration::from_millis(300),
        max_api_bodies: 2,
        ..http::config()
    };
    let (server, api) = start_with(config);
    let head = api.head("POST", "/v1/publish", "Content-Length: 100\r\n");
    let mut slow = [api.raw(), api.raw()];
    slow.iter_mut().for_each(|client| client.send(head.as_bytes()));
    server.wait_for("both are read", |stats| stats.api_bodies == 2);
    let answer = api.post("/v1/publish", r#"{"room":"lobby","content":1}"#);
    assert_eq!((answer.status, answer.header("Retry-After")), (503, Some("1")), "{answer:?}");
    assert_eq!(api.get("/v1/rooms").status, 200, "what has no body is answered");
    for client in &mut slow {
        assert_eq!(client.answer().status, 408);
        client.expect_end();
    }
    let stats = server.stats();
    assert_eq!((stats.rejected["api_bodies"], stats.rejected["api_body_timeout"]), (1, 2));
    assert_eq!(api.post("/v1/publish", r#"{"room":"lobby","content":1}"#).status, 200);
}

#[test]
fn neither_side_can_lock_the_other_out() {
    let config = Config { max_admin_conn: 4, max_pending_heads: 4, ..http::config() };
    let (server, api) = start_with(config);
    let public: Vec<_> = (0..4).map(|_| server.raw_client()).collect();
    server.wait_for("the public side is full", |stats| stats.pending_heads == 4);
    assert_eq!(api.get("/ready").status, 200);
    drop(public);
    server.wait_for("the places are free", |stats| stats.admin_connections == 0);
    let squatters: Vec<_> = (0..4).map(|_| api.raw()).collect();
    server.wait_for("the admin side is full", |stats| stats.admin_connections == 4);
    let mut client = api.raw();
    let answer = client.answer();
    assert_eq!((answer.status, &answer.json()["error"]), (503, &json!("admin_full")));
    assert!(answer.header("Retry-After").is_some());
    let mut inside = server.chat();
    inside.ask(r#"{"type":"ping","ref":1}"#);
    drop(squatters);
    eventually("there is a place again", || match server.stats().admin_connections {
        0 => Ok(()),
        left => Err(left.to_string()),
    });
    assert_eq!(api.get("/ready").status, 200);
}

#[test]
fn a_long_batch_takes_many_turns_and_those_inside_are_served_between() {
    let config = Config { thread_pool_size: 1, ..http::config() };
    let echo = |ctx: &mut Context<'_, ()>, message: Message<'_>| {
        ctx.send(message);
    };
    let builder =
        Server::builder().route("/echo", echo).admin(rusty_socks::chat::Api::new(&config));
    let mut server = builder.config(config).stepped().unwrap();
    let (client, api) = (server.connect().unwrap(), server.connect_admin().unwrap());
    client.write(support::upgrade_head("/echo").as_bytes());
    server.settle();
    client.read();
    let batch = "{\"room\":\"lobby\",\"content\":1}\n".repeat(1000);
    let head = format!(
        "POST /v1/batch HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {KEY}\r\nContent-Length: {}\r\n\r\n",
        batch.len()
    );
    api.write((head + &batch).as_bytes());
    let mut turns = 0;
    let answer = loop {
        client.write(&support::frame(0x81, b"x"));
        server.turn();
        turns += 1;
        assert_eq!(client.read(), b"\x81\x01x", "turn {turns}");
        let answer = api.read();
        if !answer.is_empty() {
            break String::from_utf8(answer).unwrap();
        }
    };
    // A publish costs 4, and a turn of one connection has 1024.
    assert!(turns >= 4, "{turns}");
    assert_eq!(answer.matches("\"seq\":").count(), 1000);
}

#[test]
fn figures_are_open_on_the_loopback_but_not_to_pages_of_strangers() {
    let (server, api) = start();
    let nobody = api.with_key("nobody");
    for target in ["/health", "/ready", "/stats", "/metrics"] {
        assert_eq!(nobody.get(target).status, 200, "{target}");
        let foreign = "Origin: https://evil.example\r\n";
        assert_eq!(nobody.request("GET", target, foreign, "").status, 403, "{target}");
        assert_eq!(api.request("GET", target, foreign, "").status, 200, "{target}");
        let mut rebound = nobody.raw();
        rebound.send(format!("GET {target} HTTP/1.1\r\nHost: evil.example\r\n\r\n").as_bytes());
        assert_eq!(rebound.answer().status, 403, "{target}");
        let mut by_address = nobody.raw();
        by_address.send(format!("GET {target} HTTP/1.1\r\nHost: {}\r\n\r\n", api.addr).as_bytes());
        assert_eq!(by_address.answer().status, 200, "{target}");
        assert_eq!(nobody.post(target, "").status, 405, "{target}");
    }
    assert_eq!(server.get("/metrics").0, 404, "not on the main port");
    assert_eq!(server.get("/ready").0, 404);
    let config = Config { admin_host: "0.0.0.0".into(), ..http::config() };
    let (_server, mut api) = start_with(config);
    api.addr.set_ip([127, 0, 0, 1].into());
    let nobody = api.with_key("nobody");
    for (target, status) in [("/health", 200), ("/ready", 200), ("/stats", 401), ("/metrics", 401)]
    {
        assert_eq!((nobody.get(target).status, api.get(target).status), (status, 200), "{target}");
    }
}

/// What moves between two requests of one client: they are counted themselves, and memory is looked
/// at from time to time.
const MOVING: [&str; 7] = [
    "admin_requests_total",
    "bytes_in",
    "bytes_out",
    "late_turns",
    "memory_bytes",
    "resident_bytes",
    "turns",
];

#[test]
fn metrics_are_the_figures_of_stats() {
    let config = Config { metrics: MetricsAccess::Public, ..http::config() };
    let (server, api) = start_with(config);
    let mut client = server.chat();
    for _ in 0..3 {
        assert_eq!(api.post("/v1/publish", r#"{"room":"lobby","content":1}"#).status, 200);
        assert_eq!(client.json()["type"], "message");
    }
    server.wait_for("earlier requests are over", |stats| stats.admin_connections == 0);
    let mut admin = api.raw();
    let mut ask = |target: &str| {
        admin.send(api.head("GET", target, "").as_bytes());
        admin.answer()
    };
    let answer = ask("/metrics");
    let stats = ask("/stats").json();
    assert_eq!(answer.header("Content-Type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    let value = |name: &str| {
        let line = answer.body.lines().find_map(|line| line.strip_prefix(name)).expect(name);
        line.trim().parse::<f64>().unwrap()
    };
    assert_eq!(value("rusty_socks_active_connections "), 1.0);
    assert_eq!(value("rusty_socks_accepted_total "), 1.0);
    assert_eq!(value("rusty_socks_refused_total{reason=\"full\"} "), 0.0);
    assert!(value("rusty_socks_turn_seconds_count{worker=\"0\"} ") > 0.0);
    assert!(value("rusty_socks_turn_seconds_bucket{worker=\"0\",le=\"+Inf\"} ") > 0.0);
    assert_eq!(value("rusty_socks_connections{state=\"open\"} "), 1.0);
    assert_eq!(value("rusty_socks_resumes_total{result=\"resumed\"} "), 0.0);
    assert_eq!(value("rusty_socks_drain_remaining "), 0.0);
    let mut differ = Vec::new();
    for figure in FIGURES {
        let suffix = match figure.kind {
            FigureKind::Gauge => "",
            FigureKind::Counter => "_total",
        };
        let name = figure.name.strip_suffix("_total").unwrap_or(figure.name);
        let value = value(&format!("rusty_socks_{name}{suffix} "));
        if !MOVING.contains(&figure.name) && stats[figure.name].as_f64() != Some(value) {
            differ.push((figure.name, value, &stats[figure.name]));
        }
    }
    assert!(differ.is_empty(), "{differ:?}");
    assert!(value("process_start_time_seconds ") > 1.0e9);
    assert!(answer.body.contains("rusty_socks_build_info{version="));
    assert!(!answer.body.contains("lobby") && !answer.body.contains(KEY));
    let mut names = std::collections::BTreeSet::new();
    for line in answer.body.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            assert!(names.insert(rest.split(' ').next().unwrap()), "twice: {line}");
        }
    }
    // Prometheus counts the changes as restarts.
    let start = |body: &str| {
        let line = body.lines().find(|line| line.starts_with("process_start_time_seconds "));
        line.map(str::to_owned)
    };
    assert_eq!(start(&api.get("/metrics").body), start(&answer.body));
    for figure in FIGURES {
        let name = format!("rusty_socks_{}", figure.name.trim_end_matches("_total"));
        let name = if figure.kind == FigureKind::Counter { name + "_total" } else { name };
        assert!(names.contains(name.as_str()), "{name} is missing");
    }
    let (status, on_main_port) = server.get("/metrics");
    assert_eq!(status, 200);
    assert!(on_main_port.contains("rusty_socks_active_connections 1"));
}

#[test]
fn a_full_server_is_not_ready() {
    let config = Config { max_conn: 1, max_queued_tasks: 0, ..http::config() };
    let (server, api) = start_with(config);
    let ready = |answer: &support::Answer| {
        let answer = answer.json();
        // Turns may be late on a machine that is busy.
        assert!(answer["degraded"].is_array(), "{answer}");
        (answer["ready"].clone(), answer["reasons"].clone())
    };
    assert_eq!(ready(&api.get("/ready")), (json!(true), json!([])));
    let _client = server.chat();
    let answer = api.get("/ready");
    assert_eq!(answer.status, 503);
    assert_eq!(ready(&answer), (json!(false), json!(["full"])));
    assert!(answer.header("Retry-After").is_some());
    assert_eq!(api.get("/health").status, 200);
}

/// A worker that hangs in a handler's call is told apart from one that has nothing to do.
#[test]
fn a_late_turn_is_seen_while_it_lasts_and_counted_afterwards() {
    let config = Config { thread_pool_size: 1, ..config() };
    let server = support::BusyServer::start(config);
    let handle = server.handle.clone();
    assert!(handle.await_workers(DEADLINE), "it has nothing to do");
    let late_before = server.stats().late_turns;
    let occupied = server.occupy(server.blocker());
    assert!(!handle.await_workers(Duration::from_millis(150)));
    let client = occupied.release();
    assert!(handle.await_workers(DEADLINE), "it goes on");
    server.wait_for("the turn is counted", |stats| stats.late_turns > late_before);
    drop(client);
}

#[test]
fn a_server_with_late_turns_is_ready_and_degraded() {
    let slow = |ctx: &mut Context<'_, ()>, message: Message<'_>| {
        std::thread::park_timeout(Duration::from_millis(150));
        ctx.send(message);
    };
    let config = Config { thread_pool_size: 1, ..http::config() };
    let builder =
        Server::builder().route("/slow", slow).admin(rusty_socks::chat::Api::new(&config));
    let server = TestServer::run(builder.config(config).bind().unwrap());
    let api = Api::of(&server);
    let mut client = server.connect("/slow");
    client.send("now");
    client.next();
    eventually("it is degraded", || {
        let answer = api.get("/ready").json();
        match (&answer["ready"], &answer["degraded"]) {
            (ready, degraded) if *ready == true && *degraded == json!(["late_turns"]) => Ok(()),
            _ => Err(answer.to_string()),
        }
    });
}

#[test]
fn a_drain_is_asked_for_and_can_be_watched() {
    let (server, api) = start();
    // It does not answer the Close, so the drain goes on.
    let mut client = server.upgrade("/ws");
    assert_eq!(api.post("/v1/drain", "").json(), json!({"draining": true}));
    eventually("it drains", || {
        let answer = api.get("/ready");
        match (answer.status, answer.json()["reasons"] == json!(["draining"])) {
            (503, true) => Ok(()),
            _ => Err(format!("{answer:?}")),
        }
    });
    assert_eq!(api.get("/health").json()["status"], "draining");
    assert_eq!(api.get("/v1/nodes").json()["nodes"][0]["draining"], true);
    client.close_code();
    client.send(&support::close_frame(1001));
    server.handle.join();
}

#[test]
fn before_a_drain_a_load_balancer_has_a_while_to_turn_away() {
    let unready = |api: &Api| {
        eventually("it is not ready", || match api.get("/ready").status {
            503 => Ok(()),
            status => Err(status.to_string()),
        });
    };
    // Not stopped in the test: it ends with the process.
    let config = Config { drain_delay: Duration::from_secs(600), ..http::config() };
    let server = ManuallyDrop::new(TestServer::start(config));
    let api = Api::of(&server);
    server.handle.shutdown(Duration::from_secs(1));
    unready(&api);
    let mut late = server.chat();
    late.send(r#"{"type":"ping"}"#);
    assert_eq!(late.json()["type"], "pong");

    let config = Config { drain_delay: Duration::from_millis(100), ..http::config() };
    let (server, api) = start_with(config);
    let mut client = server.chat();
    server.handle.shutdown(Duration::from_secs(60));
    unready(&api);
    assert_eq!(client.json()["type"], "closing");
    drop(client);
    server.handle.join();
}
