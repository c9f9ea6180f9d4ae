//! What a client, and everyone at one address, may do in a second or a minute.

// A helper that panics fails its test with a clear message.
#![allow(clippy::unwrap_used)]

mod support;
#[cfg(feature = "identity")]
#[path = "support/tokens.rs"]
mod tokens;

use std::time::Duration;

use rusty_socks::{
    Config, Context, Message, Server,
    chat::Chat,
    config::LimitedAddresses,
    stepped::{MemoryClient, SteppedServer},
};
use serde_json::{Value, json};
use support::{frame, upgrade_head};

/// A server whose clients all seem to be at one address, for which limits hold.
fn server(config: Config) -> SteppedServer {
    server_as_is(Config { limited_addresses: LimitedAddresses::All, max_errors: 0, ..config })
}

fn server_as_is(config: Config) -> SteppedServer {
    let chat = Chat::new(&config).unwrap();
    Server::builder().route("/ws", chat).config(config).stepped().unwrap()
}

fn client(server: &mut SteppedServer) -> MemoryClient {
    let client = server.connect().unwrap();
    client.write(upgrade_head("/ws").as_bytes());
    server.settle();
    client
}

fn say(client: &MemoryClient, text: &str) {
    client.write(&frame(0x81, text.as_bytes()));
}

/// The frames that a client has got since the last look, but for those without JSON.
fn heard(client: &MemoryClient) -> Vec<Value> {
    let text = String::from_utf8_lossy(&client.read()).into_owned();
    let starts = text.match_indices("{\"type\"").map(|(at, _)| at);
    let parse = |at: usize| {
        let mut values = serde_json::Deserializer::from_str(&text[at..]).into_iter::<Value>();
        values.next().unwrap().unwrap()
    };
    starts.map(parse).collect()
}

/// Says `count` things, and returns how many were taken and the wait that the first refusal asks
/// for.
fn pings(server: &mut SteppedServer, client: &MemoryClient, count: usize) -> (usize, u64) {
    heard(client);
    (0..count).for_each(|_| say(client, r#"{"type":"ping"}"#));
    server.settle();
    let answers = heard(client);
    assert_eq!(answers.len(), count, "each is answered");
    let wait_ms = answers.iter().find_map(|answer| answer["retry_after_ms"].as_u64());
    (answers.iter().filter(|answer| answer["type"] == "pong").count(), wait_ms.unwrap_or_default())
}

#[test]
fn a_rate_goes_by_the_clock_of_the_server() {
    let mut server = server(Config { rate_messages: 10, ..Config::default() });
    let client = client(&mut server);
    assert_eq!(pings(&mut server, &client, 12), (10, 100));
    server.advance(Duration::from_millis(300));
    assert_eq!(pings(&mut server, &client, 5), (3, 100));
    assert_eq!(server.handle().stats().rate_limited, 4);
}

#[test]
fn reconnecting_does_not_begin_anew() {
    let limits = Config { rate_messages: 10, rate_messages_per_ip: 40, ..Config::default() };
    let mut server = server(limits);
    let mut taken = 0;
    for _ in 0..20 {
        let client = client(&mut server);
        taken += pings(&mut server, &client, 10).0;
        client.reset();
        server.settle();
    }
    assert_eq!(taken, 40, "an address has what four clients have");
    let stats = server.handle().stats();
    assert_eq!((stats.rate_limited, stats.rate_limited_per_ip), (0, 160));
    server.advance(Duration::from_millis(500));
    let client = client(&mut server);
    assert_eq!(pings(&mut server, &client, 10).0, 10, "it comes back");
}

#[test]
fn rooms_are_made_at_a_rate_and_joined_at_any() {
    let limits = Config { rate_rooms: 6, rate_rooms_per_ip: 9, ..Config::default() };
    let mut server = server(limits);
    let (one, other) = (client(&mut server), client(&mut server));
    let made = |server: &mut SteppedServer, client: &MemoryClient, names: &str| {
        heard(client);
        for nth in 0..8 {
            say(client, &format!(r#"{{"type":"join","room":"{names}{nth}","ref":{nth}}}"#));
        }
        server.settle();
        let answers = heard(client);
        let is_ok = |answer: &&Value| answer["type"] == "ok";
        for refused in answers.iter().filter(|answer| answer["type"] == "error") {
            assert_eq!(refused["code"], "rate_limited");
            assert!(refused["retry_after_ms"].as_u64().unwrap() > 0);
        }
        answers.iter().filter(is_ok).count()
    };
    assert_eq!(made(&mut server, &one, "a"), 6, "its own limit");
    assert_eq!(made(&mut server, &other, "a"), 8, "six are there already");
    assert_eq!(made(&mut server, &other, "b"), 1, "that of its address");
    let stats = server.handle().stats();
    assert_eq!((stats.rooms_rate_limited, stats.rooms_rate_limited_per_ip), (2, 7));
    server.advance(Duration::from_secs(20));
    assert_eq!(made(&mut server, &other, "c"), 3, "a third of a minute of its address");
}

#[test]
fn welcome_names_the_limits_that_hold() {
    let welcome = |config: Config| {
        let chat = Chat::new(&config).unwrap();
        let mut server = Server::builder().route("/ws", chat).config(config).stepped().unwrap();
        let client = client(&mut server);
        heard(&client)[0]["limits"].clone()
    };
    let own =
        json!({"rate_messages": 1000, "rate_bytes": 8 << 20, "rate_rooms": 600, "max_rooms": 100});
    assert_eq!(welcome(Config::default()), own, "the client is on this machine");
    let all = Config { limited_addresses: LimitedAddresses::All, ..Config::default() };
    let mut both = own;
    both["address"] = json!({
        "rate_messages": 10_000, "rate_bytes": 64 << 20, "rate_rooms": 6000,
        "rate_connections": 100, "max_connections": 50,
    });
    assert_eq!(welcome(all), both);
    let off = Config {
        rate_messages: 0,
        rate_bytes: 0,
        rate_rooms: 0,
        limited_addresses: LimitedAddresses::None,
        ..Config::default()
    };
    assert_eq!(welcome(off), json!({"max_rooms": 100}));
}

#[test]
fn a_handler_limits_its_clients_as_the_chat_does() {
    let config = Config { rate_messages: 2, ..Config::default() };
    let picky = |ctx: &mut Context<'_, ()>, message: Message<'_>| {
        let spent = ctx.spend_rate(message.as_bytes().len());
        ctx.send(if spent.is_ok() { "taken" } else { "refused" });
    };
    let mut server = Server::builder().route("/ws", picky).config(config).stepped().unwrap();
    let client = client(&mut server);
    client.read();
    (0..3).for_each(|_| say(&client, "x"));
    server.settle();
    assert_eq!(client.read(), b"\x81\x05taken\x81\x05taken\x81\x07refused");
}

/// Identities: the first message of a client says who it is.
#[cfg(feature = "identity")]
mod of_users {
    use rusty_socks::config::{IdentityMode, Secret};

    use super::{
        tokens::{SECRET, sign},
        *,
    };

    pub(super) fn server(limits: Config) -> SteppedServer {
        let identity = IdentityMode::Optional;
        let limits = Config { limited_addresses: LimitedAddresses::None, ..limits };
        server_as_is(Config {
            identity,
            token_hmac_secret: Secret::new(SECRET),
            max_errors: 0,
            ..limits
        })
    }

    pub(super) fn user(server: &mut SteppedServer, user: &str) -> MemoryClient {
        let claims = json!({"sub": user, "exp": 4_000_000_000_u64, "rooms": [{
            "match": "*", "allow": ["join", "publish"],
        }]});
        let token = sign(&claims);
        let head = upgrade_head("/ws");
        let head = head.trim_end_matches("\r\n");
        let client = server.connect().unwrap();
        client.write(format!("{head}\r\nAuthorization: Bearer {token}\r\n\r\n").as_bytes());
        server.settle();
        client
    }

    #[test]
    fn what_a_user_spends_holds_for_all_its_clients_and_outlives_them() {
        let limits = Config { rate_messages: 10, rate_messages_per_user: 25, ..Config::default() };
        let mut server = server(limits);
        let mut taken = 0;
        for _ in 0..5 {
            let client = user(&mut server, "anna");
            taken += pings(&mut server, &client, 10).0;
            client.reset();
            server.settle();
        }
        assert_eq!(taken, 25);
        let stats = server.handle().stats();
        assert_eq!((stats.rate_limited, stats.rate_limited_per_user), (0, 25));
        let (ben, nobody) = (user(&mut server, "ben"), client(&mut server));
        assert_eq!(pings(&mut server, &ben, 10).0, 10, "another user has its own");
        assert_eq!(pings(&mut server, &nobody, 10).0, 10, "no user, no such limit");
        server.advance(Duration::from_millis(200));
        let (one, other) = (user(&mut server, "anna"), user(&mut server, "anna"));
        let taken = pings(&mut server, &one, 5).0 + pings(&mut server, &other, 5).0;
        assert_eq!(taken, 5, "a fifth of a second for both");
    }

    #[test]
    fn a_client_that_says_later_who_it_is_has_the_limits_of_its_user_from_then_on() {
        let limits = Config { rate_messages_per_user: 3, ..Config::default() };
        let mut server = server(limits);
        let client = client(&mut server);
        assert_eq!(pings(&mut server, &client, 10).0, 10);
        let token = sign(&json!({"sub": "anna", "exp": 4_000_000_000_u64}));
        say(&client, &json!({"type": "auth", "token": token}).to_string());
        server.settle();
        assert_eq!(pings(&mut server, &client, 10).0, 3);
    }

    #[test]
    fn a_client_that_is_welcomed_late_may_send_what_its_welcome_says() {
        let config = |max_message_bytes| Config {
            identity: IdentityMode::Required,
            token_hmac_secret: Secret::new(SECRET),
            max_message_bytes,
            ..Config::default()
        };
        let mut server = server_as_is(config(2048));
        let client = client(&mut server);
        server.handle().reload(&config(4096)).unwrap();
        let token = sign(&json!({"sub": "anna", "exp": 4_000_000_000_u64}));
        say(&client, &json!({"type": "auth", "token": token}).to_string());
        server.settle();
        assert_eq!(heard(&client)[0]["max_message_bytes"], 4096);
        server.handle().reload(&config(2048)).unwrap();
        say(&client, &format!("{{\"type\":\"ping\"}}{}", " ".repeat(4000)));
        server.settle();
        assert_eq!(heard(&client)[0]["type"], "pong");
    }

    #[test]
    fn rooms_that_a_user_makes_are_counted_for_all_its_clients() {
        let mut server = server(Config { rate_rooms_per_user: 3, ..Config::default() });
        let (one, other) = (user(&mut server, "anna"), user(&mut server, "anna"));
        let made = |server: &mut SteppedServer, client: &MemoryClient, name: &str| {
            heard(client);
            for nth in 0..2 {
                say(client, &format!(r#"{{"type":"join","room":"{name}{nth}","ref":{nth}}}"#));
            }
            server.settle();
            heard(client).iter().filter(|answer| answer["type"] == "ok").count()
        };
        assert_eq!((made(&mut server, &one, "a"), made(&mut server, &other, "b")), (2, 1));
        assert_eq!(server.handle().stats().rooms_rate_limited_per_user, 1);
    }
}

#[cfg(feature = "identity")]
#[test]
fn a_user_has_so_many_connections_and_the_next_is_told_why() {
    use of_users::{server, user};

    let mut server = server(Config { max_conn_per_user: 2, ..Config::default() });
    let (first, _second) = (user(&mut server, "anna"), user(&mut server, "anna"));
    let welcome = &heard(&first)[0];
    assert_eq!(
        welcome["limits"]["user"],
        json!({"rate_messages": 10_000, "rate_bytes": 64 << 20, "rate_rooms": 6000,
               "max_connections": 2})
    );
    let refused = user(&mut server, "anna").read();
    let text = String::from_utf8_lossy(&refused);
    assert!(text.contains(r#""code":"limit_exceeded""#), "{text}");
    assert!(refused.windows(2).any(|code| code == 4103_u16.to_be_bytes()), "{text}");
    let stats = server.handle().stats();
    assert_eq!((stats.connections_refused_per_user, stats.closed["4103"]), (1, 1));
    assert_eq!(stats.sessions_away, 0, "nobody knows the session of one who was refused");
    heard(&user(&mut server, "ben"));

    // One that is resumed is one connection all the while.
    let session = welcome["session"].as_str().unwrap();
    first.reset();
    server.settle();
    let back = user(&mut server, "anna");
    say(&back, &json!({"type": "resume", "session": session, "ref": 1}).to_string());
    server.settle();
    assert_eq!(heard(&back).last().unwrap()["type"], "ok");
    assert!(!user(&mut server, "anna").read().is_empty());
    assert_eq!(server.handle().stats().connections_refused_per_user, 2);
    back.reset();
    server.settle();
    let welcome = heard(&user(&mut server, "anna"));
    assert_eq!(welcome[0]["type"], "welcome", "what was resumed is counted out");
}
