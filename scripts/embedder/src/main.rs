//! Somebody else's server, without cargo features: a setting whose feature is absent is refused
//! with the name of the feature, and everything else works.

use std::{
    io::{Read, Write},
    net::TcpStream,
    path::Path,
    time::Duration,
};

use rusty_socks::{
    Config, Context, Error, Message, Server, chat,
    config::{Engine, IdentityMode, RoomRule, Secret, TlsPair},
};

const NONE: [(&str, &str); 0] = [];

/// How long the answer of a server in this process may take.
const ANSWER_MAX: Duration = Duration::from_secs(10);

fn main() -> Result<(), Error> {
    settings_without_their_feature_are_refused();
    a_file_is_refused_and_variables_are_read()?;
    a_server_serves()
}

fn settings_without_their_feature_are_refused() {
    let pair = || TlsPair { cert: "no.pem".into(), key: "no.key".into() };
    let loopback = || Config { host: "127.0.0.1".into(), port: 0, ..Config::default() };
    let hmac = || Secret::new("0123456789abcdef0123456789abcdef");
    let cases = [
        ("hooks", Config { hook_url: "http://127.0.0.1:1/".into(), ..loopback() }),
        ("hooks", Config { events_url: "http://127.0.0.1:1/".into(), ..loopback() }),
        (
            "identity",
            Config { identity: IdentityMode::Optional, token_hmac_secret: hmac(), ..loopback() },
        ),
        (
            "redis",
            Config {
                engine: Engine::Redis,
                redis_url: Secret::new("redis://127.0.0.1:1"),
                ..loopback()
            },
        ),
        ("snapshot", Config { snapshot: "/no/such/file".into(), ..loopback() }),
        ("tls", Config { tls: vec![pair()], ..loopback() }),
    ];
    for (feature, config) in cases {
        let bound = chat::server(config.clone()).map(drop);
        let told = bound.expect_err("a setting whose feature is absent is refused").to_string();
        let name = format!("cargo feature `{feature}`");
        assert!(told.contains(&name), "{feature}: {told}");
        println!("refused: {told}");
    }
}

fn a_file_is_refused_and_variables_are_read() -> Result<(), Error> {
    let file = Path::new("/no/such/settings.toml");
    let named = [("RUSTY_SOCKS_CONFIG", "/no/such/settings.toml")];
    for loaded in [Config::load_from(Some(file), NONE, NONE), Config::load_from(None, named, NONE)]
    {
        let told = loaded.expect_err("a file is refused without its feature").to_string();
        let name = "\"/no/such/settings.toml\"";
        assert!(told.contains(name) && told.contains("cargo feature `config-file`"), "{told}");
        println!("refused: {told}");
    }
    let variables = [("RUSTY_SOCKS_BUFFER", "7")];
    let config = Config::load_from(None, variables, [("--replay", "3")])?.config;
    assert_eq!((config.buffer, config.replay), (7, 3));
    // What only the file can say, code can say too.
    let rule = RoomRule { history: Some(20), ..RoomRule::new("prices.*") };
    Config { rooms: vec![rule], ..config }.validate()
}

fn a_server_serves() -> Result<(), Error> {
    let echo = |ctx: &mut Context<'_, ()>, message: Message<'_>| {
        ctx.send(message);
    };
    let config = Config { host: "127.0.0.1".into(), port: 0, ..Config::default() };
    let server = Server::builder().config(config).route("/echo", echo).bind()?.spawn()?;
    let answer = health(&server.local_addr().to_string()).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    server.shutdown(Duration::from_secs(1));
    server.join();
    println!("served");
    Ok(())
}

fn health(addr: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(addr)?;
    stream.set_read_timeout(Some(ANSWER_MAX))?;
    stream.write_all(b"GET /health HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}
