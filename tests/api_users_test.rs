//! Users in the server API: whose sessions there are, closing them, revoking their tokens.

#![allow(clippy::unwrap_used, reason = "a test that unwraps fails with a clear message")]
#![cfg(feature = "identity")]

mod support;
#[path = "support/http.rs"]
mod http;
#[path = "support/tokens.rs"]
mod tokens;

use std::time::Duration;

use http::Api;
use rusty_socks::{
    Config,
    config::{IdentityMode, Secret},
};
use serde_json::{Value, json};
use support::{Client, TestServer, eventually};
use tokens::{SECRET, now, sign};

fn start() -> (TestServer, Api) {
    let config = Config {
        identity: IdentityMode::Optional,
        token_hmac_secret: Secret::new(SECRET),
        resume_window: Duration::from_secs(60),
        ..http::config()
    };
    let server = TestServer::start(config);
    let api = Api::of(&server);
    (server, api)
}

/// A client that has said who it is, with a token of this id and age in seconds.
fn come(server: &TestServer, user: &str, jti: &str, age: u64) -> Client {
    let claims = json!({"sub": user, "jti": jti, "iat": now() - age, "exp": now() + 600});
    let token = sign(&claims);
    let mut client = server.chat();
    let answer = client.ask(&json!({"type": "auth", "token": token, "ref": 1}).to_string());
    match answer["type"].as_str() {
        Some("ok") => assert_eq!(answer["user"], user, "{answer}"),
        _ => client.welcome = answer,
    }
    client
}

fn close_code(mut client: Client) -> u16 {
    client.closed().unwrap().code.into()
}

fn users(page: &Value) -> Vec<&str> {
    let sessions = page["sessions"].as_array().unwrap();
    sessions.iter().map(|session| session["user"].as_str().unwrap_or("nobody")).collect()
}

#[test]
fn the_sessions_of_a_user_are_listed_page_by_page() {
    let (server, api) = start();
    let _clients = ["anna", "ben", "anna", "annabel"].map(|user| come(&server, user, "x", 0));
    let _nobody = server.chat();
    let all = api.get("/v1/sessions").json();
    assert_eq!(users(&all).len(), 5, "{all}");
    let first = api.get("/v1/sessions?user=anna&limit=1").json();
    assert_eq!(users(&first), ["anna"]);
    let after = first["next"].as_str().unwrap();
    let second = api.get(&format!("/v1/sessions?user=anna&limit=5&after={after}")).json();
    assert_eq!(users(&second), ["anna"]);
    assert_ne!(first["sessions"][0]["client_id"], second["sessions"][0]["client_id"]);
    assert_eq!(users(&api.get("/v1/sessions?user=cleo").json()), [""; 0]);
    assert_eq!(api.get("/v1/sessions?user=anna&room=lobby").status, 400);
}

#[test]
fn a_user_is_closed_wherever_it_is() {
    let (server, api) = start();
    let (anna, ben) = (come(&server, "anna", "x", 0), come(&server, "ben", "x", 0));
    // Away, as one whose network is gone; its session could be resumed.
    drop(come(&server, "anna", "x", 0));
    server.wait_for("one is away", |stats| stats.sessions_away == 1);
    let closed = api.post("/v1/users/anna/close", r#"{"code":4444,"reason":"bye"}"#);
    assert_eq!((closed.status, closed.json()), (200, json!({"closed": 2})));
    assert_eq!(close_code(anna), 4444);
    eventually("no session of hers is left", || {
        match users(&api.get("/v1/sessions?user=anna").json()).len() {
            0 => Ok(()),
            left => Err(left.to_string()),
        }
    });
    assert_eq!(users(&api.get("/v1/sessions?user=ben").json()), ["ben"]);
    assert_eq!(api.post("/v1/users/anna/close", "").json(), json!({"closed": 0}));
    assert_eq!(api.post("/v1/users/ben/close", "").json(), json!({"closed": 1}));
    assert_eq!(close_code(ben), 4009);
    for wrong in [r#"{"code":1005}"#, "[]", r#"{"coed":4000}"#] {
        assert_eq!(api.post("/v1/users/anna/close", wrong).status, 400, "{wrong}");
    }
}

#[test]
fn a_revoked_token_closes_and_stays_out() {
    let (server, api) = start();
    let [old, young, other] =
        [("anna", 100), ("anna", 0), ("ben", 100)].map(|(user, age)| come(&server, user, "x", age));
    let before = json!({"user": "anna", "before": now() - 50}).to_string();
    assert_eq!(api.post("/v1/revoke", &before).json(), json!({"closed": 1}));
    assert_eq!(close_code(old), 4001);
    let again = come(&server, "anna", "y", 100);
    assert_eq!(again.welcome["code"], "unauthorized");
    assert_eq!(api.post("/v1/revoke", r#"{"user":"anna"}"#).json(), json!({"closed": 1}));
    assert_eq!(close_code(young), 4001);

    let stolen = come(&server, "ben", "stolen", 0);
    assert_eq!(api.post("/v1/revoke", r#"{"jti":"stolen"}"#).json(), json!({"closed": 1}));
    assert_eq!(close_code(stolen), 4001);
    assert_eq!(come(&server, "ben", "stolen", 0).welcome["code"], "unauthorized");
    assert_eq!(users(&api.get("/v1/sessions?user=ben").json()), ["ben"], "{:?}", other.welcome);
    for wrong in [
        "",
        "{}",
        r#"{"user":"a","jti":"b"}"#,
        r#"{"user":""}"#,
        r#"{"jti":"b","before":-1}"#,
        r#"{"jti":"b","before":null}"#,
    ] {
        let answer = api.post("/v1/revoke", wrong);
        assert_eq!((answer.status, &answer.json()["error"]), (400, &json!("bad_request")));
    }
}
