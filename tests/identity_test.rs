//! Who may come in and what it may do there: tokens of every kind, good and bad.

// A helper that panics fails its test with a clear message.
#![allow(clippy::unwrap_used)]
#![cfg(feature = "identity")]

mod support;
#[path = "support/tokens.rs"]
mod tokens;

use std::{
    net::TcpListener,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};

use jsonwebtoken::{Algorithm, EncodingKey, Header, jwk::Jwk};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519, PKCS_RSA_SHA256};
use rusty_socks::{
    CloseReason, Config, Context, Handler, Identity, Message, Permissions, Refusal, Replay,
    Request, Revocation, RoomError, RoomName, Server,
    config::{Access, IdentityMode, RoomRule, Secret},
};
use rusty_socks_client::{Event, Session};
use serde_json::{Value, json};
use support::{
    Client, DEADLINE, TestServer,
    backend::{self, Backend},
    config, eventually,
};
use tokens::{SECRET, now, sign};
use tungstenite::{client::IntoClientRequest, http::HeaderValue};

fn identity(mode: IdentityMode) -> Config {
    Config { identity: mode, token_hmac_secret: Secret::new(SECRET), ..config() }
}

fn required() -> Config {
    identity(IdentityMode::Required)
}

/// The claims of a user who may do everything, with `more` in them.
fn claims(user: &str, more: Value) -> Value {
    let mut claims = json!({
        "sub": user,
        "iat": now(),
        "exp": now() + 600,
        "rooms": [{"match": "*", "allow": ["join", "publish", "history", "presence", "direct"]}],
    });
    for (name, value) in more.as_object().unwrap() {
        claims[name] = value.clone();
    }
    claims
}

fn token(user: &str) -> String {
    sign(&claims(user, json!({})))
}

/// Connects with a header, or none. The error is the status and body of a refusal.
fn connect(server: &TestServer, path: &str, header: (&'static str, &str)) -> Result<Client, Value> {
    let mut request = format!("ws://{}{path}", server.addr).into_client_request().unwrap();
    if !header.0.is_empty() {
        request.headers_mut().insert(header.0, HeaderValue::from_str(header.1).unwrap());
    }
    match tungstenite::client(request, server.socket()) {
        Ok((socket, response)) => Ok(Client { socket, response, welcome: Value::Null }),
        Err(tungstenite::HandshakeError::Failure(tungstenite::Error::Http(answer))) => {
            let header = answer.headers().get("WWW-Authenticate");
            let body = answer.body().as_deref().unwrap_or_default();
            Err(json!({
                "status": answer.status().as_u16(),
                "authenticate": header.map(|value| value.to_str().unwrap()),
                "body": serde_json::from_slice::<Value>(body).unwrap(),
            }))
        }
        Err(other) => panic!("{other}"),
    }
}

/// Connects with a token in the header, and takes the welcome.
fn chat(server: &TestServer, token: &str) -> Client {
    let mut client = connect(server, "/ws", ("Authorization", &format!("Bearer {token}"))).unwrap();
    client.welcome = client.json();
    assert_eq!(client.welcome["type"], "welcome", "{}", client.welcome);
    client
}

/// Sends a command with a `ref`, and returns the answer to it.
fn ask(client: &mut Client, mut command: Value) -> Value {
    command["ref"] = json!("q");
    client.send(command.to_string());
    loop {
        let answer = client.json();
        if answer["ref"] == "q" {
            return answer;
        }
    }
}

fn code(client: &mut Client, command: Value) -> String {
    let answer = ask(client, command);
    answer["code"].as_str().unwrap_or("ok").to_owned()
}

/// Reads up to a frame of this type.
fn await_kind(client: &mut Client, kind: &str) -> Value {
    loop {
        let frame = client.json();
        if frame["type"] == kind {
            return frame;
        }
    }
}

fn close_code(client: &mut Client) -> u16 {
    client.closed().map_or(1005, |frame| frame.code.into())
}

// ---- the four ways

#[test]
fn a_token_comes_in_a_header_a_subprotocol_a_cookie_or_the_query() {
    let config = Config { token_cookie: "auth".into(), token_in_query: true, ..required() };
    let server = TestServer::start(config);
    let token = token("anna");
    let subprotocols = format!("rusty-socks.v1, rusty-socks.token.{token}");
    let cookies = format!("a=b; auth={token}; c=d");
    let query = format!("/ws?a=b&token={token}");
    for (path, header) in [
        ("/ws", ("Authorization", format!("bearer {token}"))),
        ("/ws", ("Sec-WebSocket-Protocol", subprotocols)),
        ("/ws", ("Cookie", cookies)),
        (&*query, ("", String::new())),
    ] {
        let mut client = connect(&server, path, (header.0, &header.1)).unwrap();
        let welcome = client.json();
        assert_eq!((&welcome["type"], &welcome["user"]), (&json!("welcome"), &json!("anna")));
        assert!(welcome["token_expires_s"].as_u64().is_some_and(|left| left > 500), "{welcome}");
        if header.0 == "Sec-WebSocket-Protocol" {
            let chosen = client.response.headers().get("Sec-WebSocket-Protocol").unwrap();
            assert_eq!(chosen, "rusty-socks.v1", "the token is not echoed");
        }
        client.close();
    }
}

#[test]
fn cookies_and_queries_count_only_where_they_are_switched_on() {
    let server = TestServer::start(required());
    let token = token("anna");
    for (path, header, value) in [
        (format!("/ws?token={token}"), "", String::new()),
        ("/ws".to_owned(), "Cookie", format!("auth={token}")),
        ("/ws".to_owned(), "Authorization", "Basic YTpi".to_owned()),
    ] {
        let mut client = connect(&server, &path, (header, &value)).unwrap();
        client.send(r#"{"content":"hi"}"#);
        assert_eq!(client.json()["code"], "unauthorized");
        assert_eq!(close_code(&mut client), 4001);
    }
}

#[test]
fn a_page_of_any_origin_may_connect_where_only_its_own_token_lets_it_in() {
    let page = ("Origin", "https://elsewhere.example");
    let is_let_in = |config: Config| connect(&TestServer::start(config), "/ws", page).is_ok();
    assert!(is_let_in(required()));
    assert!(!is_let_in(identity(IdentityMode::Optional)));
    // A browser sends cookies for any page.
    assert!(!is_let_in(Config { token_cookie: "token".into(), ..required() }));
    let allowed_origins = vec!["https://other.example".into()];
    assert!(!is_let_in(Config { allowed_origins, ..required() }));
    // Another route asks for no token.
    assert!(connect(&TestServer::start(required()), "/echo", page).is_err());
}

#[test]
fn a_token_comes_in_the_first_frame() {
    let server = TestServer::start(required());
    let mut client = server.connect("/ws");
    client.send(json!({"type": "auth", "token": token("anna"), "ref": 1}).to_string());
    let welcome = client.json();
    assert_eq!((&welcome["type"], &welcome["user"]), (&json!("welcome"), &json!("anna")));
    let answer = client.json();
    assert_eq!((&answer["type"], &answer["ref"]), (&json!("ok"), &json!(1)));
    assert_eq!(answer["user"], "anna");
    assert_eq!(code(&mut client, json!({"type": "publish", "content": 1})), "ok");
}

#[test]
fn a_client_that_must_say_who_it_is_can_do_nothing_else() {
    let server = TestServer::start(required());
    for frame in [r#"{"content":"hi"}"#, r#"{"type":"ping"}"#, "nonsense", r#"{"type":"auth"}"#] {
        let mut client = server.connect("/ws");
        client.send(frame);
        let error = client.json();
        assert_eq!(error["code"], "unauthorized", "{frame}: {error}");
        let close = client.closed().unwrap();
        assert_eq!((u16::from(close.code), close.reason.as_str()), (4001, "a token is required"));
    }
    assert_eq!(server.stats().tokens_refused["missing"], 4);
    assert_eq!(server.stats().rooms, 1, "nobody came into a room");
}

#[test]
fn a_client_that_says_nothing_is_closed_in_time() {
    let auth_timeout = Duration::from_millis(100);
    let server = TestServer::start(Config { auth_timeout, thread_pool_size: 1, ..required() });
    let mut client = server.connect("/ws");
    assert_eq!(client.json()["message"], "no token came in time");
    assert_eq!(close_code(&mut client), 4001);
    assert_eq!(server.stats().tokens_refused["timed_out"], 1);
    // One whose token came is left alone.
    let mut client = chat(&server, &token("anna"));
    // Its deadline is over when that of a later one is.
    assert_eq!(close_code(&mut server.connect("/ws")), 4001);
    assert_eq!(code(&mut client, json!({"type": "publish", "content": 1})), "ok");
}

// ---- hostile tokens

/// A token with whatever header, signed with the secret.
fn with_header(header: &Value, claims: &Value) -> String {
    let part = |value: &Value| base64url(value.to_string().as_bytes());
    let message = format!("{}.{}", part(header), part(claims));
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, Algorithm::HS256).unwrap();
    format!("{message}.{signature}")
}

fn base64url(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let mut bits = [0_u8; 4];
        bits[1..=chunk.len()].copy_from_slice(chunk);
        let bits = u32::from_be_bytes(bits);
        for digit in 0..=chunk.len() {
            text.push(DIGITS[(bits >> (18 - 6 * digit)) as usize & 63] as char);
        }
    }
    text
}

#[test]
fn every_bad_token_has_its_answer_and_its_counter() {
    let config = Config {
        token_audience: vec!["chat".into()],
        token_issuer: "https://id.example".into(),
        ..required()
    };
    let server = TestServer::start(config);
    let good = |more: Value| {
        let mut claims = claims("anna", json!({"aud": "chat", "iss": "https://id.example"}));
        for (name, value) in more.as_object().unwrap() {
            match value.is_null() {
                true => drop(claims.as_object_mut().unwrap().remove(name)),
                false => claims[name] = value.clone(),
            }
        }
        claims
    };
    let plain = json!({"alg": "HS256", "typ": "JWT"});
    let other_secret = rusty_socks::identity::sign(&good(json!({})), &"x".repeat(40)).unwrap();
    let none = |alg: &str| {
        let head = base64url(json!({"alg": alg}).to_string().as_bytes());
        format!("{head}.{}.", base64url(good(json!({})).to_string().as_bytes()))
    };
    let mut tampered = sign(&good(json!({})));
    let at = tampered.find('.').unwrap() + 5;
    let swapped = if &tampered[at..=at] == "A" { "B" } else { "A" };
    tampered.replace_range(at..=at, swapped);
    let cases = [
        ("expired", sign(&good(json!({"exp": now() - 60})))),
        ("not_yet_valid", sign(&good(json!({"nbf": now() + 60})))),
        ("audience", sign(&good(json!({"aud": "others"})))),
        ("audience", sign(&good(json!({"aud": ["others", "more"]})))),
        ("audience", sign(&good(json!({"aud": null})))),
        ("issuer", sign(&good(json!({"iss": "https://evil.example"})))),
        ("issuer", sign(&good(json!({"iss": null})))),
        ("claims", sign(&good(json!({"exp": null})))),
        ("claims", sign(&good(json!({"exp": "tomorrow"})))),
        ("claims", sign(&good(json!({"sub": null})))),
        ("claims", sign(&good(json!({"sub": 7})))),
        ("claims", sign(&good(json!({"sub": ""})))),
        ("claims", sign(&good(json!({"sub": "a\nb"})))),
        ("claims", sign(&good(json!({"sub": "u".repeat(129)})))),
        ("claims", sign(&good(json!({"rooms": "all"})))),
        ("algorithm", none("none")),
        ("algorithm", none("None")),
        ("algorithm", none("HS384")),
        ("algorithm", with_header(&json!({"alg": "RS256"}), &good(json!({})))),
        ("malformed", with_header(&json!({"alg": "HS256", "crit": ["x"]}), &good(json!({})))),
        ("malformed", with_header(&json!({"typ": "JWT"}), &good(json!({})))),
        ("signature", other_secret),
        ("signature", with_header(&plain, &good(json!({}))) + "A"),
        ("malformed", "a.b.c".to_owned()),
        ("malformed", "nothing".to_owned()),
        ("malformed", "..".to_owned()),
    ];
    let mut expected = std::collections::BTreeMap::new();
    for (reason, token) in &cases {
        *expected.entry(*reason).or_insert(0) += 1;
        let header = ("Authorization", &*format!("Bearer {token}"));
        let refused = connect(&server, "/ws", header).err().expect(reason);
        assert_eq!(refused["status"], 401, "{reason}: {refused}");
        assert_eq!(refused["authenticate"], "Bearer");
        assert_eq!(refused["body"]["error"], "unauthorized");
        assert!(!refused.to_string().contains(&token[..token.len().min(9)]), "{refused}");
    }
    let refused = connect(&server, "/ws", ("Authorization", &format!("Bearer {tampered}")));
    assert_eq!(refused.err().unwrap()["status"], 401);
    let stats = server.stats();
    for (reason, count) in expected {
        let counted = stats.tokens_refused[reason];
        // The tampered one is whichever it has become.
        assert!(counted == count || counted == count + 1, "{reason}: {counted}, not {count}");
    }
    assert_eq!(stats.rejected["unauthorized"], cases.len() as u64 + 1);
    assert_eq!((stats.tokens_verified, stats.accepted_total), (0, 0));
    let client = chat(&server, &with_header(&plain, &good(json!({}))));
    assert_eq!(client.welcome["user"], "anna");
}

#[test]
fn a_bad_token_in_a_frame_is_told_and_closes() {
    for mode in [IdentityMode::Required, IdentityMode::Optional] {
        let server = TestServer::start(identity(mode));
        let mut client = server.connect("/ws");
        let expired = sign(&claims("anna", json!({"exp": now() - 60})));
        client.send(json!({"type": "auth", "token": expired, "ref": 1}).to_string());
        let error = await_kind(&mut client, "error");
        assert_eq!((&error["ref"], &error["code"]), (&json!(1), &json!("unauthorized")));
        let close = client.closed().unwrap();
        assert_eq!((u16::from(close.code), close.reason.as_str()), (4001, "the token has expired"));
    }
}

#[test]
fn a_huge_token_is_refused_wherever_it_comes() {
    let server = TestServer::start(Config { max_message_bytes: 100 << 10, ..required() });
    let huge = "a".repeat(64 << 10);
    let refused = connect(&server, "/ws", ("Authorization", &format!("Bearer {huge}")));
    assert_eq!(refused.err().unwrap()["status"], 431);
    let mut client = server.connect("/ws");
    client.send(json!({"type": "auth", "token": huge}).to_string());
    assert_eq!(client.json()["message"], "the token has more than 16 KiB");
    assert_eq!(close_code(&mut client), 4001);
    assert_eq!(server.stats().tokens_refused["too_long"], 1);
}

// ---- keys

/// A key pair, as the signer and the server have it.
struct Keys {
    algorithm: Algorithm,
    signing: EncodingKey,
    public: String,
    raw: Vec<u8>,
}

fn keys() -> Vec<Keys> {
    [
        (&PKCS_RSA_SHA256, Algorithm::RS256),
        (&PKCS_ECDSA_P256_SHA256, Algorithm::ES256),
        (&PKCS_ED25519, Algorithm::EdDSA),
    ]
    .into_iter()
    .map(|(kind, algorithm)| {
        let pair = KeyPair::generate_for(kind).unwrap();
        let pem = pair.serialize_pem();
        let signing = match algorithm {
            Algorithm::RS256 => EncodingKey::from_rsa_pem(pem.as_bytes()),
            Algorithm::ES256 => EncodingKey::from_ec_pem(pem.as_bytes()),
            _ => EncodingKey::from_ed_pem(pem.as_bytes()),
        };
        let (public, raw) = (pair.public_key_pem(), pair.public_key_raw().to_vec());
        Keys { algorithm, signing: signing.unwrap(), public, raw }
    })
    .collect()
}

impl Keys {
    fn sign(&self, kid: Option<&str>, claims: &Value) -> String {
        let header = Header { kid: kid.map(Into::into), ..Header::new(self.algorithm) };
        jsonwebtoken::encode(&header, claims, &self.signing).unwrap()
    }

    fn jwk(&self, kid: &str) -> Value {
        let mut jwk = match self.algorithm {
            Algorithm::EdDSA => {
                json!({"kty": "OKP", "crv": "Ed25519", "x": base64url(&self.raw)})
            }
            algorithm => {
                let jwk = Jwk::from_encoding_key(&self.signing, algorithm).unwrap();
                serde_json::to_value(jwk).unwrap()
            }
        };
        jwk["kid"] = json!(kid);
        jwk
    }
}

#[test]
fn public_keys_of_each_kind_verify_and_none_is_taken_for_a_secret() {
    let all = keys();
    for keys in &all {
        let token_public_key = Secret::new(keys.public.clone());
        let config =
            Config { token_hmac_secret: Secret::default(), token_public_key, ..required() };
        let server = TestServer::start(config);
        let claims = claims("anna", json!({}));
        assert_eq!(chat(&server, &keys.sign(None, &claims)).welcome["user"], "anna");
        // The public key is known to everyone: it is no secret to sign with.
        let secret = EncodingKey::from_secret(keys.public.as_bytes());
        let confused = jsonwebtoken::encode(&Header::default(), &claims, &secret).unwrap();
        let others = all.iter().filter(|other| other.algorithm != keys.algorithm);
        for token in others.map(|other| other.sign(None, &claims)).chain([confused]) {
            let refused = connect(&server, "/ws", ("Authorization", &format!("Bearer {token}")));
            assert_eq!(refused.err().unwrap()["status"], 401);
        }
        assert_eq!(server.stats().tokens_refused["algorithm"], 3);
    }
}

#[test]
fn the_previous_secret_and_several_public_keys_are_good() {
    let old = "the secret before that one, long enough";
    let pair = keys();
    let config = Config {
        token_hmac_secret_previous: Secret::new(old),
        token_public_key: Secret::new(format!("{}\n{}", pair[1].public, pair[2].public)),
        ..required()
    };
    let server = TestServer::start(config);
    let claims = claims("anna", json!({}));
    let by_old = rusty_socks::identity::sign(&claims, old).unwrap();
    for token in [sign(&claims), by_old, pair[1].sign(None, &claims), pair[2].sign(None, &claims)] {
        assert_eq!(chat(&server, &token).welcome["user"], "anna");
    }
}

#[test]
fn keys_that_cannot_be_used_are_named_at_the_start() {
    let bind = |config: Config| rusty_socks::chat::server(config).err().unwrap().to_string();
    let with_key = |pem: &str| Config { token_public_key: Secret::new(pem), ..required() };
    let private = KeyPair::generate_for(&PKCS_ED25519).unwrap().serialize_pem();
    for (config, told) in [
        (
            with_key("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----"),
            "token_public_key",
        ),
        (with_key(&private), "must be public keys (BEGIN PUBLIC KEY), not \"PRIVATE KEY\""),
        (
            Config { token_hmac_secret: Secret::default(), ..required() },
            "must have a key for tokens",
        ),
        (Config { token_hmac_secret: Secret::new("short"), ..required() }, "32 to 4096 bytes"),
        (Config { token_jwks_url: "http://id.example/".into(), ..required() }, "https URL"),
        (
            Config { token_cookie: "a".into(), allowed_origins: vec!["*".into()], ..required() },
            "must not be * where token_cookie",
        ),
    ] {
        let error = bind(config);
        assert!(error.contains(told) && !error.contains("short"), "{error}");
    }
}

// ---- JWKS

/// A server of keys, on the loopback. It answers each request with `answer`.
fn issuer(answer: impl Into<String>) -> Backend {
    let answer = answer.into();
    Backend::start(move |_| answer.clone())
}

fn with_jwks(url: &str) -> TestServer {
    TestServer::start(Config { token_jwks_url: url.to_owned(), ..required() })
}

#[test]
fn keys_are_fetched_and_unknown_ones_asked_for_at_most_once_in_a_while() {
    let all = keys();
    let set = json!({"keys": [
        {"kty": "oct", "kid": "x", "k": base64url(SECRET.as_bytes())},
        all[0].jwk("a"), all[1].jwk("b"), all[2].jwk("c"),
    ]});
    let issuer = issuer(backend::json(&set.to_string()));
    let server = with_jwks(&issuer.url());
    server.wait_for("the keys", |stats| stats.jwks_fetches == 1);
    let claims = claims("anna", json!({}));
    for (keys, kid) in all.iter().zip(["a", "b", "c"]) {
        assert_eq!(chat(&server, &keys.sign(Some(kid), &claims)).welcome["user"], "anna");
        chat(&server, &keys.sign(None, &claims));
    }
    // A flood of unknown keys asks for nothing, because the keys were fetched a moment ago. Each
    // may be that of a user a moment later.
    for number in 0..50 {
        let token = all[1].sign(Some(&format!("unknown-{number}")), &claims);
        let refused = connect(&server, "/ws", ("Authorization", &format!("Bearer {token}")));
        assert_eq!(refused.err().unwrap()["status"], 503);
    }
    assert_eq!(server.stats().tokens_refused["keys_unavailable"], 50);
    assert_eq!(issuer.unseen(), 1);
    // A key that says it is another's algorithm is none.
    let token = all[1].sign(Some("a"), &claims);
    let refused = connect(&server, "/ws", ("Authorization", &format!("Bearer {token}")));
    assert_eq!(refused.err().unwrap()["status"], 401);
}

#[test]
fn a_key_of_the_file_does_not_hide_that_one_of_the_issuer_is_not_fetched_yet() {
    let (all, others) = (keys(), keys());
    let set = json!({"keys": [others[0].jwk("a"), others[1].jwk("b")]});
    let issuer = issuer(backend::json(&set.to_string()));
    let token_public_key = Secret::new(all[1].public.clone());
    let token_jwks_url = issuer.url();
    let server = TestServer::start(Config { token_public_key, token_jwks_url, ..required() });
    server.wait_for("the keys", |stats| stats.jwks_fetches == 1);
    let claims = claims("anna", json!({}));
    for token in [all[1].sign(None, &claims), others[1].sign(Some("b"), &claims)] {
        assert_eq!(chat(&server, &token).welcome["user"], "anna");
    }
    let status = |token: String| {
        let refused = connect(&server, "/ws", ("Authorization", &format!("Bearer {token}")));
        refused.err().unwrap()["status"].clone()
    };
    assert_eq!(status(keys()[1].sign(Some("new"), &claims)), 503, "it may be good later");
    assert_eq!(status(keys()[1].sign(Some("b"), &claims)), 401, "its key is there");
    assert_eq!(status(sign(&claims) + "A"), 401, "no issuer has keys for HS256");
}

#[test]
fn an_issuer_that_is_slow_huge_wrong_or_gone_delays_nobody() {
    let huge = format!("{{\"keys\":[{}]}}", "1,".repeat(1 << 20));
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (end, ended) = crossbeam_channel::bounded::<()>(0);
    let silent = Backend::start(move |_| {
        let _ = ended.recv();
        String::new()
    });
    let answering = [
        backend::json(&huge),
        backend::json("<html>nothing here</html>"),
        backend::json(r#"{"keys":[{"kty":"oct","k":"AAAA"}]}"#),
        backend::with_status("500 Oops", ""),
        backend::with_status("302 Found\r\nLocation: /other", ""),
    ]
    .map(issuer);
    let mut urls = vec![silent.url()];
    urls.extend(answering.iter().map(Backend::url));
    urls.push(format!("http://{gone}/keys"));
    let keys = keys();
    let by_key = keys[1].sign(Some("b"), &claims("anna", json!({})));
    for (number, url) in urls.iter().enumerate() {
        let server = with_jwks(url);
        // Those with another key come in at once.
        let mut inside = chat(&server, &token("ben"));
        let refused = connect(&server, "/ws", ("Authorization", &format!("Bearer {by_key}")));
        let refused = refused.err().unwrap();
        assert_eq!(refused["status"], 503, "issuer {number}: it may be good later: {refused}");
        assert_eq!(code(&mut inside, json!({"type": "publish", "content": 1})), "ok");
        if number > 0 {
            server.wait_for("the failure", |stats| stats.jwks_failures > 0);
        }
        let mut client = server.connect("/ws");
        client.send(json!({"type": "auth", "token": by_key}).to_string());
        let error = client.json();
        assert_eq!(error["code"], "overloaded");
        assert_eq!(close_code(&mut client), 1013, "it is asked to come again");
    }
    drop(end);
}

// ---- a token's end

#[test]
fn a_token_that_ends_is_announced_and_then_closed() {
    let config = Config { token_grace: Duration::from_millis(300), ..required() };
    let server = TestServer::start(config);
    let mut client = chat(&server, &sign(&claims("anna", json!({"exp": now() + 2}))));
    let notice = await_kind(&mut client, "token_expires");
    assert!(notice["expires_s"].as_u64().unwrap() <= 2, "{notice}");
    let close = client.closed().unwrap();
    assert_eq!((u16::from(close.code), close.reason.as_str()), (4203, "token expired"));
    assert!(now() >= 2);
    assert_eq!(server.closed_with(4203), 1);
}

#[test]
fn a_token_is_renewed_in_place() {
    let token_grace = Duration::from_millis(100);
    let server = TestServer::start(Config { token_grace, thread_pool_size: 1, ..required() });
    let short = |user: &str, exp: u64| sign(&claims(user, json!({"exp": exp})));
    let exp = now() + 2;
    let mut client = chat(&server, &short("anna", exp));
    let mut ben = chat(&server, &short("ben", exp));
    assert_eq!(code(&mut client, json!({"type": "join", "room": "a"})), "ok");
    assert_eq!(code(&mut client, json!({"type": "join", "room": "b"})), "ok");
    await_kind(&mut client, "token_expires");
    let rooms = json!([{"match": "b", "allow": ["join"]}]);
    let narrower = sign(&claims("anna", json!({"rooms": rooms})));
    let answer = ask(&mut client, json!({"type": "auth", "token": narrower}));
    assert_eq!(answer["left"], json!(["a", "lobby"]), "{answer}");
    assert!(answer["token_expires_s"].as_u64().unwrap() > 500);
    assert_eq!(
        code(&mut client, json!({"type": "publish", "room": "a", "content": 1})),
        "not_member"
    );
    assert_eq!(
        code(&mut client, json!({"type": "publish", "room": "b", "content": 1})),
        "forbidden"
    );
    assert_eq!(code(&mut client, json!({"type": "join", "room": "a"})), "forbidden");
    // The first token and its grace are over when those of another client are.
    assert_eq!(close_code(&mut ben), 4203);
    assert_eq!(code(&mut client, json!({"type": "ping"})), "ok");
    // And back to more.
    let answer = ask(&mut client, json!({"type": "auth", "token": token("anna")}));
    assert!(answer.get("left").is_none());
    assert_eq!(code(&mut client, json!({"type": "publish", "room": "b", "content": 1})), "ok");
}

#[test]
fn a_connection_keeps_its_user() {
    let server = TestServer::start(required());
    let mut client = chat(&server, &token("anna"));
    client.send(json!({"type": "auth", "token": token("ben")}).to_string());
    assert_eq!(await_kind(&mut client, "error")["code"], "forbidden");
    assert_eq!(close_code(&mut client), 4003);
}

#[test]
fn an_anonymous_client_may_become_a_user() {
    let server = TestServer::start(identity(IdentityMode::Optional));
    let mut client = server.chat();
    assert!(client.welcome.get("user").is_none());
    let answer = ask(&mut client, json!({"type": "auth", "token": token("anna")}));
    assert_eq!((&answer["type"], &answer["user"]), (&json!("ok"), &json!("anna")));
    let mut other = server.chat();
    client.send(json!({"content": 1}).to_string());
    assert_eq!(await_kind(&mut other, "message")["user"], "anna");
}

#[test]
fn where_there_is_no_identity_a_token_is_not_looked_at() {
    let server = TestServer::start(config());
    let mut client = connect(&server, "/ws", ("Authorization", "Bearer nonsense")).unwrap();
    client.json();
    let answer = ask(&mut client, json!({"type": "auth", "token": "nonsense"}));
    assert_eq!(answer["message"], "this server verifies no tokens");
    assert_eq!(code(&mut client, json!({"type": "publish", "content": 1})), "ok");
}

// ---- names and users

#[test]
fn frames_carry_the_user_and_the_name_of_the_token() {
    let server = TestServer::start(required());
    let named = sign(&claims("u-1", json!({"name": "Anna \"A\""})));
    let (mut anna, mut ben) = (chat(&server, &named), chat(&server, &token("u-2")));
    let members = ask(&mut ben, json!({"type": "presence", "room": "lobby", "watch": true}));
    let id = anna.welcome["client_id"].clone();
    let listed = members["members"].as_array().unwrap();
    let listed = listed.iter().find(|member| member["client_id"] == id).unwrap();
    assert_eq!((&listed["sender"], &listed["user"]), (&json!("Anna \"A\""), &json!("u-1")));
    anna.send(json!({"content": 1, "sender": "somebody else"}).to_string());
    let message = await_kind(&mut ben, "message");
    assert_eq!((&message["sender"], &message["user"]), (&json!("Anna \"A\""), &json!("u-1")));
    assert_eq!(message["client_id"], id);
    let to = ben.welcome["client_id"].clone();
    assert_eq!(code(&mut anna, json!({"type": "direct", "to": to, "content": 1})), "ok");
    assert_eq!(await_kind(&mut ben, "direct")["user"], "u-1");
    // A name that a join gives does not count.
    ask(&mut anna, json!({"type": "leave", "room": "lobby"}));
    let left = await_kind(&mut ben, "left");
    assert_eq!((&left["sender"], &left["user"]), (&json!("Anna \"A\""), &json!("u-1")));
    ask(&mut anna, json!({"type": "join", "room": "lobby", "sender": "x"}));
    let joined = await_kind(&mut ben, "joined");
    assert_eq!((&joined["sender"], &joined["user"]), (&json!("Anna \"A\""), &json!("u-1")));
}

// ---- sessions

fn lasting() -> Config {
    Config { resume_window: Duration::from_secs(60), ..required() }
}

#[test]
fn a_session_is_resumed_by_its_user_alone() {
    let server = TestServer::start(lasting());
    let mut anna = chat(&server, &token("anna"));
    ask(&mut anna, json!({"type": "join", "room": "a"}));
    let session = anna.welcome["session"].clone();
    drop(anna);
    server.wait_for("the session is away", |stats| stats.sessions_away == 1);
    let resume = json!({"type": "resume", "session": session});
    let mut ben = chat(&server, &token("ben"));
    assert_eq!(code(&mut ben, resume.clone()), "unrecoverable");
    // With its token in the first frame, and the resume in the second, before any welcome.
    let mut again = server.connect("/ws");
    again.send(json!({"type": "auth", "token": token("anna")}).to_string());
    let answer = ask(&mut again, resume);
    assert_eq!(answer["type"], "ok", "{answer}");
    assert_eq!(answer["rooms"].as_array().unwrap().len(), 2);
    assert_eq!(code(&mut again, json!({"type": "publish", "room": "a", "content": 1})), "ok");
}

#[test]
fn a_resumed_session_is_in_the_rooms_of_its_new_token_alone() {
    let server = TestServer::start(lasting());
    let mut anna = chat(&server, &token("anna"));
    for room in ["a", "b", "p.*"] {
        ask(&mut anna, json!({"type": "join", "room": room}));
    }
    let session = anna.welcome["session"].clone();
    drop(anna);
    server.wait_for("the session is away", |stats| stats.sessions_away == 1);
    let mut ben = chat(&server, &token("ben"));
    for room in ["p.x", "p.y"] {
        ask(&mut ben, json!({"type": "join", "room": room}));
    }
    let rooms = json!([{"match": ["a", "p.x"], "allow": ["join"]}]);
    let mut again = chat(&server, &sign(&claims("anna", json!({"rooms": rooms}))));
    let answer = ask(&mut again, json!({"type": "resume", "session": session}));
    let rooms = answer["rooms"].as_array().unwrap();
    let told = |room: &str| rooms.iter().find(|told| told["room"] == room);
    assert!(told("a").is_some_and(|told| told["error"].is_null()), "{answer}");
    assert!(told("p.x").is_some_and(|told| told["error"].is_null()), "{answer}");
    assert_eq!(told("b").unwrap()["error"], "forbidden");
    assert!(told("p.y").is_none(), "{answer}");
    let b = json!({"type": "publish", "room": "b", "content": 1});
    assert_eq!(code(&mut again, b), "not_member");
}

// ---- revocation

#[test]
fn a_revoked_user_is_closed_and_stays_out_with_older_tokens() {
    let server = TestServer::start(lasting());
    let before = |user: &str| sign(&claims(user, json!({"iat": now() - 100, "jti": "j-1"})));
    let (mut anna, mut ben) = (chat(&server, &before("anna")), chat(&server, &token("ben")));
    let away = chat(&server, &before("anna"));
    drop(away);
    server.wait_for("a session is away", |stats| stats.sessions_away == 1);
    assert_eq!(
        server
            .handle
            .revoke(&Revocation::user("anna").before(SystemTime::now() - Duration::from_secs(50),)),
        2
    );
    let close = anna.closed().unwrap();
    assert_eq!((u16::from(close.code), close.reason.as_str()), (4001, "the token was revoked"));
    server.wait_for("her sessions ended", |stats| stats.sessions == 1);
    let refused = connect(&server, "/ws", ("Authorization", &format!("Bearer {}", before("anna"))));
    assert_eq!(refused.err().unwrap()["body"]["message"], "the token was revoked");
    // A newer token is good, and so is another user's.
    chat(&server, &token("anna"));
    assert_eq!(code(&mut ben, json!({"type": "publish", "content": 1})), "ok");
    // One token, whoever's it is.
    let mut carl = chat(&server, &before("carl"));
    assert_eq!(server.handle.revoke(&Revocation::token("j-1")), 1);
    assert_eq!(close_code(&mut carl), 4001);
    let stats = server.stats();
    assert_eq!((stats.revocations, stats.tokens_refused["revoked"]), (2, 1));
}

#[test]
fn the_connections_of_a_user_are_closed() {
    let server = TestServer::start(required());
    let (mut anna, mut ben) = (chat(&server, &token("anna")), chat(&server, &token("ben")));
    assert_eq!(server.handle.close_user("anna", &CloseReason::KICKED), 1);
    assert_eq!(close_code(&mut anna), 4009);
    assert_eq!(code(&mut ben, json!({"type": "publish", "content": 1})), "ok");
    assert_eq!(server.handle.close_user("nobody", &CloseReason::KICKED), 0);
}

// ---- permissions

#[test]
fn a_broadcast_needs_a_grant_and_reaches_nobody_who_is_not_let_in() {
    let config = Config { broadcast: true, thread_pool_size: 1, ..required() };
    let server = TestServer::start(config);
    let mut outsider = server.connect("/ws");
    let (mut anna, mut ben) = (chat(&server, &token("anna")), chat(&server, &token("ben")));
    let rooms = json!([{"match": "*", "allow": ["join", "publish", "history", "presence"]}]);
    let mut carl = chat(&server, &sign(&claims("carl", json!({"rooms": rooms}))));
    let broadcast = json!({"type": "broadcast", "content": "for those inside"});
    assert_eq!(code(&mut carl, broadcast.clone()), "forbidden");
    assert_eq!(server.stats().forbidden["direct"], 1);
    assert_eq!(code(&mut anna, broadcast), "ok");
    assert_eq!(await_kind(&mut ben, "broadcast")["content"], "for those inside");
    outsider.send(r#"{"type":"ping"}"#);
    let first = outsider.json();
    assert_eq!(first["code"], "unauthorized", "the first that it hears: {first}");
    // One that is let in by its first frame hears the next.
    let mut late = server.connect("/ws");
    late.send(json!({"type": "auth", "token": token("late")}).to_string());
    await_kind(&mut late, "welcome");
    assert_eq!(code(&mut anna, json!({"type": "broadcast", "content": 2})), "ok");
    assert_eq!(await_kind(&mut late, "broadcast")["content"], 2);
}

#[test]
fn a_join_that_would_watch_is_counted_when_it_is_refused() {
    let server = TestServer::start(required());
    let rooms = json!([{"match": "r", "allow": ["join"]}]);
    let mut anna = chat(&server, &sign(&claims("anna", json!({"rooms": rooms}))));
    assert_eq!(
        code(&mut anna, json!({"type": "join", "room": "r", "presence": true})),
        "forbidden"
    );
    assert_eq!(server.stats().forbidden["presence"], 1);
    assert_eq!(
        code(&mut anna, json!({"type": "publish", "room": "r", "content": 1})),
        "not_member"
    );
}

#[test]
fn a_client_that_never_showed_its_token_leaves_no_session_behind() {
    let server = TestServer::start(lasting());
    let (outsider, user) = (server.connect("/ws"), chat(&server, &token("anna")));
    server.wait_for("two sessions", |stats| stats.sessions == 2);
    drop(outsider);
    drop(user);
    server.wait_for("one is away", |stats| stats.sessions_away == 1 && stats.sessions == 1);
}

#[test]
fn a_resume_gets_no_history_that_a_join_would_not_get() {
    let server = TestServer::start(lasting());
    let mut other = chat(&server, &token("other"));
    let joined = ask(&mut other, json!({"type": "join", "room": "r", "presence": true}));
    for n in 0..3 {
        ask(&mut other, json!({"type": "publish", "room": "r", "content": n}));
    }
    let rooms = json!([{"match": "r", "allow": ["join"]}]);
    let reader = sign(&claims("anna", json!({"rooms": rooms})));
    let mut anna = chat(&server, &reader);
    assert_eq!(code(&mut anna, json!({"type": "join", "room": "r"})), "ok");
    let session = anna.welcome["session"].clone();
    drop(anna);
    server.wait_for("the session is away", |stats| stats.sessions_away == 1);
    let since = json!([{"room": "r", "epoch": joined["epoch"], "seq": 0}]);
    let mut again = chat(&server, &reader);
    let answer = ask(&mut again, json!({"type": "resume", "session": session, "rooms": since}));
    let room = &answer["rooms"][0];
    assert_eq!((&room["recovered"], &room["messages"]), (&json!(false), &json!([])), "{answer}");
}

#[test]
fn a_token_grants_each_permission_by_itself() {
    let server = TestServer::start(Config { max_errors: 0, ..required() });
    let mut other = chat(&server, &token("other"));
    ask(&mut other, json!({"type": "join", "room": "r"}));
    for n in 0..3 {
        ask(&mut other, json!({"type": "publish", "room": "r", "content": n}));
    }
    let to = other.welcome["client_id"].clone();
    let commands = [
        ("publish", json!({"type": "publish", "room": "r", "content": 1})),
        ("history", json!({"type": "history", "room": "r"})),
        ("presence", json!({"type": "presence", "room": "r"})),
        ("direct", json!({"type": "direct", "to": to, "content": 1})),
    ];
    let with =
        |allow: Value| sign(&claims("anna", json!({"rooms": [{"match": "r", "allow": allow}]})));
    for (granted, _) in &commands {
        let mut client = chat(&server, &with(json!(["join", granted])));
        assert!(client.welcome.get("room").is_none(), "the default room is not granted");
        let since = json!({"epoch": "0000000000000001", "seq": 0});
        let joined = ask(&mut client, json!({"type": "join", "room": "r", "since": since}));
        assert_eq!(joined["type"], "ok");
        for (name, command) in &commands {
            let expected = if name == granted { "ok" } else { "forbidden" };
            assert_eq!(code(&mut client, command.clone()), expected, "{name} with {granted}");
        }
        let several = json!({"type": "publish", "rooms": ["r"], "content": 1});
        let expected = if *granted == "publish" { "ok" } else { "forbidden" };
        assert_eq!(code(&mut client, several), expected);
        ask(&mut client, json!({"type": "leave", "room": "r"}));
        let watched = json!({"type": "join", "room": "r", "presence": true});
        let expected = if *granted == "presence" { "ok" } else { "forbidden" };
        assert_eq!(code(&mut client, watched), expected, "{granted}");
    }
    let mut nobody = chat(&server, &with(json!([])));
    assert_eq!(code(&mut nobody, json!({"type": "join", "room": "r"})), "forbidden");
    let forbidden = server.stats().forbidden;
    assert_eq!(forbidden["join"], 1);
    for (name, _) in &commands {
        assert!(forbidden[*name] >= 3, "{forbidden:?}");
    }
}

#[test]
fn without_the_permission_a_join_replays_nothing() {
    let server = TestServer::start(required());
    let mut other = chat(&server, &token("other"));
    let joined = ask(&mut other, json!({"type": "join", "room": "r"}));
    ask(&mut other, json!({"type": "publish", "room": "r", "content": "before"}));
    let since = json!({"epoch": joined["epoch"], "seq": 0});
    let join = json!({"type": "join", "room": "r", "since": since});
    for (allow, recovered) in [(json!(["join"]), false), (json!(["join", "history"]), true)] {
        let rooms = json!([{"match": ["r", "lobby"], "allow": allow}]);
        let mut client = chat(&server, &sign(&claims("anna", json!({"rooms": rooms}))));
        let answer = ask(&mut client, join.clone());
        assert_eq!(answer["recovered"], recovered, "{answer}");
        assert_eq!(answer["messages"].as_array().unwrap().len(), usize::from(recovered));
    }
}

#[test]
fn a_pattern_joins_only_the_rooms_that_one_may_join() {
    let server = TestServer::start(required());
    let mut other = chat(&server, &token("other"));
    let join = |client: &mut Client, room: &str| ask(client, json!({"type": "join", "room": room}));
    join(&mut other, "chat.open");
    join(&mut other, "chat.closed");
    let rooms = json!([{"match": ["chat.open", "chat.later"], "allow": ["join"]}]);
    let mut client = chat(&server, &sign(&claims("anna", json!({"rooms": rooms}))));
    let answer = join(&mut client, "chat.*");
    let joined = answer["rooms"].as_array().unwrap();
    assert_eq!((joined.len(), &joined[0]["room"]), (1, &json!("chat.open")), "{answer}");
    join(&mut other, "chat.secret");
    join(&mut other, "chat.later");
    assert_eq!(await_kind(&mut client, "matched")["room"], "chat.later");
    for room in ["chat.secret", "chat.closed", "chat.later"] {
        ask(&mut other, json!({"type": "publish", "room": room, "content": room}));
    }
    assert_eq!(await_kind(&mut client, "message")["room"], "chat.later");
}

#[test]
fn rules_of_the_file_say_who_may() {
    let rules = vec![
        RoomRule {
            join: Some(Access::Everyone),
            publish: Some(Access::Users),
            read_history: Some(Access::Token),
            ..RoomRule::new("news.*")
        },
        RoomRule { join: Some(Access::Users), ..RoomRule::new("news.staff") },
    ];
    let config = Config { rooms: rules, ..identity(IdentityMode::Optional) };
    let server = TestServer::start(config);
    let mut anonymous = server.chat();
    let nothing = sign(&claims("anna", json!({"rooms": null})));
    let mut anna = chat(&server, &nothing);
    let reader = json!({"rooms": [{"match": "news.*", "allow": ["history"]}]});
    let mut reader = chat(&server, &sign(&claims("rita", reader)));
    let commands = [
        json!({"type": "join", "room": "news.a"}),
        json!({"type": "publish", "room": "news.a", "content": 1}),
        json!({"type": "history", "room": "news.a"}),
        json!({"type": "presence", "room": "news.a"}),
        json!({"type": "join", "room": "news.staff"}),
        json!({"type": "join", "room": "other"}),
    ];
    let may = |client: &mut Client| -> Vec<String> {
        commands.iter().map(|command| code(client, command.clone())).collect()
    };
    let no = "forbidden";
    assert_eq!(may(&mut anonymous), ["ok", no, no, "ok", no, "ok"]);
    assert_eq!(may(&mut anna), ["ok", "ok", no, "ok", "ok", "ok"]);
    assert_eq!(may(&mut reader), ["ok", "ok", "ok", "ok", "ok", "ok"]);
}

// ---- the Rust client

/// Waits for an event that `is_it`.
fn event(session: &Session, is_it: impl Fn(&Event) -> bool) -> Event {
    loop {
        let event = session.recv_timeout(DEADLINE).unwrap().expect("the session goes on");
        if is_it(&event) {
            return event;
        }
    }
}

fn ws(server: &TestServer) -> String {
    format!("ws://{}/ws", server.addr)
}

#[test]
fn a_session_renews_its_token_before_it_ends() {
    let config = Config { token_grace: Duration::from_secs(5), ..lasting() };
    let server = TestServer::start(config);
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let provide = move || {
        let life = if count.fetch_add(1, Ordering::SeqCst) == 0 { 2 } else { 600 };
        Ok::<_, std::io::Error>(sign(&claims("anna", json!({"exp": now() + life}))))
    };
    let session = Session::builder().token_provider(provide).connect(&ws(&server)).unwrap();
    session.join("tea").unwrap();
    eventually("the token is renewed", || match server.stats().tokens_verified {
        2 => Ok(()),
        verified => Err(format!("{verified} were verified")),
    });
    let mut other = chat(&server, &token("ben"));
    ask(&mut other, json!({"type": "join", "room": "tea"}));
    session.publish("tea", &"still here").unwrap();
    assert_eq!(await_kind(&mut other, "message")["user"], "anna");
    assert_eq!((asked.load(Ordering::SeqCst), server.closed_with(4203)), (2, 0));
    ask(&mut other, json!({"type": "publish", "room": "tea", "content": 1}));
    let Event::Message(message) = event(&session, |event| matches!(event, Event::Message(_)))
    else {
        unreachable!()
    };
    assert_eq!(message.user.as_deref(), Some("ben"));
}

#[test]
fn a_session_comes_back_with_a_new_token_after_4203() {
    let config = Config { token_grace: Duration::ZERO, ..lasting() };
    let server = TestServer::start(config);
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    // The second is late: it is refused, because the provider has none.
    let provide = move || match count.fetch_add(1, Ordering::SeqCst) {
        0 => Ok(sign(&claims("anna", json!({"exp": now() + 2})))),
        1 => Err("the backend is asleep"),
        _ => Ok(token("anna")),
    };
    let session = Session::builder().token_provider(provide).connect(&ws(&server)).unwrap();
    let gone = event(&session, |event| matches!(event, Event::Disconnected { .. }));
    assert!(matches!(gone, Event::Disconnected { reason, .. } if reason.code() == 4203));
    let back = event(&session, |event| matches!(event, Event::Connected { .. }));
    assert!(matches!(back, Event::Connected { resumed: true, .. }), "{back:?}");
}

#[test]
fn a_session_whose_token_is_refused_ends_and_says_why() {
    let server = TestServer::start(lasting());
    let expired = sign(&claims("anna", json!({"exp": now() - 60})));
    let error = Session::builder().token(expired).connect(&ws(&server)).unwrap_err();
    assert_eq!(error.refused().unwrap().status, 401);
    assert!(error.to_string().contains("the token has expired"), "{error}");
    let error = Session::builder().token("two words").connect(&ws(&server)).unwrap_err();
    assert!(error.to_string().contains("one word"), "{error}");
    let failing = || Err::<String, _>("the backend is asleep");
    let error = Session::builder().token_provider(failing).connect(&ws(&server)).unwrap_err();
    assert!(error.to_string().contains("the backend is asleep"), "{error}");
    // One that is revoked ends too.
    let session = Session::builder().token(token("anna")).connect(&ws(&server)).unwrap();
    server.handle.revoke(&Revocation::user("anna"));
    let error = loop {
        match session.recv_timeout(DEADLINE) {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert_eq!(error.close_reason().unwrap().code(), 4001, "{error}");
}

#[test]
fn a_session_is_told_of_the_rooms_that_a_new_token_does_not_allow() {
    let server = TestServer::start(lasting());
    let asked = AtomicUsize::new(0);
    let rooms = json!([{"match": "lobby", "allow": ["join"]}]);
    let provide = move || {
        Ok::<_, std::io::Error>(match asked.fetch_add(1, Ordering::SeqCst) {
            0 => sign(&claims("anna", json!({"exp": now() + 2}))),
            _ => sign(&claims("anna", json!({"rooms": rooms}))),
        })
    };
    let session = Session::builder().token_provider(provide).connect(&ws(&server)).unwrap();
    session.join("tea").unwrap();
    let out = event(&session, |event| matches!(event, Event::Excluded { .. }));
    assert!(
        matches!(&out, Event::Excluded { room, code } if room == "tea" && code == "forbidden"),
        "{out:?}"
    );
    assert_eq!(session.publish("tea", &1).unwrap_err().code(), Some("not_member"));
    assert_eq!(session.join("tea").unwrap_err().code(), Some("forbidden"));
}

// ---- the program

#[cfg(feature = "cli")]
mod program {
    use std::{
        io::Write,
        process::{Command, Output},
    };

    use super::*;

    fn run(args: &[&str], token: &str) -> Output {
        let program = env!("CARGO_BIN_EXE_rusty_socks");
        let mut command = Command::new(program);
        command.args(args).env("RUSTY_SOCKS_TOKEN_HMAC_SECRET", SECRET);
        if !token.is_empty() {
            command.env("RUSTY_SOCKS_TOKEN", token);
        }
        command.stdin(std::process::Stdio::null()).output().unwrap()
    }

    fn text(bytes: &[u8]) -> String {
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    #[test]
    fn it_makes_tokens_that_the_server_takes() {
        let server = TestServer::start(required());
        let args =
            ["token", "--user", "anna", "--rooms", "chat.*,lobby", "--allow", "join,publish"];
        let made = run(&args, "");
        assert!(made.status.success(), "{}", text(&made.stderr));
        let token = text(&made.stdout);
        assert_eq!(token.lines().count(), 1);
        let mut client = chat(&server, token.trim());
        assert_eq!(client.welcome["user"], "anna");
        assert!(client.welcome["token_expires_s"].as_u64().unwrap() > 3500);
        assert_eq!(code(&mut client, json!({"type": "join", "room": "chat.a"})), "ok");
        assert_eq!(code(&mut client, json!({"type": "history", "room": "chat.a"})), "forbidden");
        for (args, told) in [
            (&["token", "--user", "anna", "--expires", "soon"][..], "--expires soon: must be"),
            (
                &["token", "--user", "anna", "--rooms", "a", "--allow", "fly"],
                "--allow fly: the perm",
            ),
            (&["token", "--user", "anna", "--rooms", "a*"], "a claim is missing or malformed"),
            (&["token"], "--user"),
        ] {
            let refused = run(args, "");
            assert!(!refused.status.success() && refused.stdout.is_empty());
            let error = text(&refused.stderr);
            assert!(error.contains(told) && !error.contains(SECRET), "{error}");
        }
    }

    #[test]
    fn it_explains_who_may_do_what() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let rules = "identity = 'required'\n[rooms.'news.*']\njoin = 'users'\n";
        file.write_all(rules.as_bytes()).unwrap();
        let mut token = tempfile::NamedTempFile::new().unwrap();
        let rooms = json!({"rooms": [{"match": "news.*", "allow": ["publish"]}]});
        token.write_all(sign(&claims("anna", rooms)).as_bytes()).unwrap();
        let config = file.path().to_str().unwrap();
        let explain = ["check-config", "--config", config, "--explain", "news.a"];
        let told = run(&[&explain[..], &["--token", token.path().to_str().unwrap()]].concat(), "");
        assert_eq!(
            text(&told.stdout),
            "anna in news.a, with the token; the rule [rooms.\"news.*\"] holds\n  \
             join      yes  everyone with a user may\n  \
             publish   yes  the token grants it for \"news.*\"\n  \
             history   no   a token must grant it, and none does\n  \
             presence  no   a token must grant it, and none does\n  \
             direct    no   a token must grant it, and none does\n",
            "{}",
            text(&told.stderr)
        );
        let told = text(&run(&explain, "").stdout);
        assert!(told.starts_with("nobody in news.a: identity is required"), "{told}");
        assert!(!told.contains("yes"), "{told}");
        let shown = text(&run(&["check-config", "--config", config], "").stdout);
        assert!(shown.contains("(set)") && !shown.contains(SECRET), "{shown}");
        // What is wrong with a token is told, and with which.
        let bad = run(&["check-config", "--explain", "a", "--token", config], "");
        assert!(text(&bad.stderr).contains("the token is not a signed JWT"));
        assert_eq!(bad.status.code(), Some(2));
    }

    #[test]
    fn it_connects_with_a_token() {
        let server = TestServer::start(required());
        let url = ws(&server);
        let connect = ["connect", &url, "--wait", "0"];
        let with = run(&connect, &token("anna"));
        assert!(with.status.success(), "{}", text(&with.stderr));
        let mut file = tempfile::NamedTempFile::new().unwrap();
        writeln!(file, "{}", token("anna")).unwrap();
        let path = file.path().to_str().unwrap();
        for raw in [&[][..], &["--raw"]] {
            let args = [&connect[..], &["--token-file", path], raw].concat();
            let with = run(&args, "");
            assert!(with.status.success(), "{}", text(&with.stderr));
            let args = [&connect[..], &["--token-file", "no/such"], raw].concat();
            let without = text(&run(&args, "").stderr);
            assert!(without.contains("cannot read no/such"), "{without}");
        }
        let bad = run(&connect, "nonsense");
        assert_eq!(bad.status.code(), Some(4));
        assert!(text(&bad.stderr).contains("401"), "{}", text(&bad.stderr));
    }
}

// ---- embedders

/// A handler with its own way to know who somebody is.
struct Door;

impl Handler for Door {
    type State = Option<Identity>;

    fn on_upgrade(&self, request: &Request<'_>) -> Result<Self::State, Refusal> {
        match request.header("X-User") {
            Some(user) => Ok(Some(Identity::new(user))),
            None => Err(Refusal::unauthorized("who are you?")),
        }
    }

    fn permissions(&self, identity: Option<&Identity>, _: Option<&RoomName>) -> Permissions {
        match identity {
            Some(identity) if &*identity.user == "boss" => Permissions::all(),
            _ => Permissions::JOIN,
        }
    }

    fn on_open(&self, ctx: &mut Context<'_, Self::State>) {
        let Some(identity) = ctx.state().take() else { return };
        ctx.set_identity(identity);
        let room = RoomName::new("hall").unwrap();
        ctx.join(&room, Replay::Nothing).then(|ctx, joined| {
            assert!(joined.is_ok());
            let user = ctx.peer().user().unwrap_or_default().to_owned();
            ctx.send(&user);
        });
        ctx.wake_after(Duration::from_millis(50));
    }

    fn on_wake(&self, ctx: &mut Context<'_, Self::State>) {
        ctx.send("awake");
    }

    fn on_message(&self, ctx: &mut Context<'_, Self::State>, message: Message<'_>) {
        ctx.publish("hall", message).then(|ctx, published| match published {
            Ok(_) => drop(ctx.send("said")),
            Err(RoomError::Forbidden(missing)) => drop(ctx.send(&missing.to_string())),
            Err(other) => drop(ctx.send(&other.to_string())),
        });
    }
}

#[test]
fn an_embedder_says_who_somebody_is_and_what_it_may_do() {
    let server = Server::builder().config(config()).route("/door", Door).bind().unwrap();
    let server = TestServer::run(server);
    assert_eq!(connect(&server, "/door", ("", "")).err().unwrap()["status"], 401);
    for (user, said) in [("guest", "publish"), ("boss", "said")] {
        let mut client = connect(&server, "/door", ("X-User", user)).unwrap();
        assert_eq!(client.next().to_text().unwrap(), user);
        assert_eq!(client.next().to_text().unwrap(), "awake");
        client.send("x");
        assert_eq!(client.next().to_text().unwrap(), said);
        client.close();
    }
}
