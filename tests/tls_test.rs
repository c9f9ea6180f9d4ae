//! TLS on real sockets, with real counterparts: `rustls` and OpenSSL.

#![allow(clippy::unwrap_used)]

mod support;
#[path = "support/program.rs"]
mod program;

use std::{
    fs,
    io::{self, Read, Write},
    net::TcpStream,
    path::Path,
    process::{Command, Output, Stdio},
    sync::Arc,
    time::Duration,
};

use program::outcome;
use rustls::{
    ClientConfig, ClientConnection, HandshakeKind, StreamOwned,
    pki_types::ServerName,
    version::{TLS12, TLS13},
};
use rusty_socks::{
    Config, Error, Server,
    config::{LimitedAddresses, TlsPair},
};
use rusty_socks_client::{Client, ClientBuilder, CloseReason, ErrorKind, TlsOptions};
use rusty_socks_testing::{
    certificates::{Authority, Pair},
    tls_client::client_config,
};
use support::{DEADLINE, TestServer, config, eventually};
use tempfile::TempDir;

/// An authority, and a directory with what it signed.
struct Certificates {
    authority: Authority,
    dir: TempDir,
}

impl Certificates {
    fn new() -> Certificates {
        let certificates =
            Certificates { authority: Authority::new("test"), dir: TempDir::new().unwrap() };
        let server = certificates.authority.server(&["localhost", "127.0.0.1"]);
        server.write(certificates.path(), "server");
        fs::write(certificates.path().join("ca.pem"), certificates.authority.pem()).unwrap();
        certificates
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn file(&self, name: &str) -> String {
        self.path().join(name).to_str().unwrap().to_owned()
    }

    fn config(&self) -> Config {
        Config { tls_cert: self.file("server.pem"), tls_key: self.file("server.key"), ..config() }
    }

    fn client(&self) -> Arc<ClientConfig> {
        client_config(&self.authority.pem(), &[&TLS13, &TLS12], None)
    }
}

type Tls = StreamOwned<ClientConnection, TcpStream>;

fn tls(server: &TestServer, client: &Arc<ClientConfig>, name: &str) -> Tls {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let conn = ClientConnection::new(Arc::clone(client), name).unwrap();
    StreamOwned::new(conn, server.socket())
}

/// Sends `request` and reads to the end, which must be that of TLS.
fn ask(stream: &mut Tls, request: &str) -> io::Result<String> {
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

const HEALTH: &str = "GET /health HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

/// Who the server's certificate in `stream` was made for.
fn peer_certificate(stream: &Tls) -> Vec<u8> {
    stream.conn.peer_certificates().unwrap()[0].to_vec()
}

#[test]
fn chat_health_and_drain_work_as_without_tls() {
    let certificates = Certificates::new();
    let server = TestServer::start(certificates.config());
    let client = certificates.client();
    let answer = ask(&mut tls(&server, &client, "localhost"), HEALTH).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");

    let stream = tls(&server, &client, "localhost");
    let (mut socket, _) = tungstenite::client("wss://localhost/ws", stream).unwrap();
    assert!(socket.read().unwrap().to_text().unwrap().contains("\"welcome\""));
    let text = "a".repeat(50_000);
    let publish = format!("{{\"content\":\"{text}\",\"echo\":true}}");
    socket.send(tungstenite::Message::text(publish)).unwrap();
    assert!(socket.read().unwrap().to_text().unwrap().contains(&text));

    server.handle.shutdown(DEADLINE);
    let close = loop {
        match socket.read().unwrap() {
            tungstenite::Message::Close(close) => break close,
            _ => continue,
        }
    };
    assert_eq!(u16::from(close.unwrap().code), 1001);
    let ended = loop {
        match socket.read() {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert!(matches!(ended, tungstenite::Error::ConnectionClosed), "{ended}");
    server.handle.join();
}

#[test]
fn metrics_tell_when_the_certificate_ends_and_what_became_of_handshakes() {
    let certificates = Certificates::new();
    let metrics = rusty_socks::config::MetricsAccess::Public;
    let server = TestServer::start(Config { metrics, ..certificates.config() });
    let client = certificates.client();
    let request = HEALTH.replace("/health", "/metrics");
    let answer = ask(&mut tls(&server, &client, "localhost"), &request).unwrap();
    let value = |name: &str| {
        let line = answer.lines().find_map(|line| line.strip_prefix(name)).expect(name);
        line.trim().parse::<f64>().unwrap()
    };
    assert!(value("rusty_socks_tls_certificate_expiry_timestamp_seconds ") > 1.8e9);
    let completed = r#"rusty_socks_tls_handshakes_total{version="1.3",result="completed"} "#;
    assert_eq!(value(completed), 1.0);
}

#[test]
fn refusals_come_through_tls_and_before_a_handshake_as_an_alert() {
    let certificates = Certificates::new();
    let config = Config {
        max_conn: 1,
        max_queued_tasks: 0,
        max_conn_per_ip: 2,
        limited_addresses: LimitedAddresses::All,
        ..certificates.config()
    };
    let server = TestServer::start(config);
    let client = certificates.client();
    let stream = tls(&server, &client, "localhost");
    let (_inside, _) = tungstenite::client("wss://localhost/ws", stream).unwrap();
    let stream = tls(&server, &client, "localhost");
    match tungstenite::client("wss://localhost/ws", stream) {
        Err(tungstenite::HandshakeError::Failure(tungstenite::Error::Http(answer))) => {
            assert_eq!(answer.status(), 503);
            assert!(answer.headers().contains_key("Retry-After"));
        }
        _ => panic!("it is full"),
    }
    eventually("the refused one has gone", || match server.stats().sockets {
        1 => Ok(()),
        sockets => Err(format!("{sockets} sockets")),
    });
    let _second = server.socket();
    eventually("the second is there", || match server.stats().sockets {
        2 => Ok(()),
        sockets => Err(format!("{sockets} sockets")),
    });
    let error = ask(&mut tls(&server, &client, "localhost"), HEALTH).unwrap_err();
    assert!(error.to_string().contains("InternalError"), "{error}");
    assert_eq!(server.stats().rejected["per_ip"], 1);
}

#[test]
fn a_plain_request_gets_a_400_and_tls_on_a_plain_port_too() {
    let certificates = Certificates::new();
    let server = TestServer::start(certificates.config());
    let answer = server.raw(HEALTH.as_bytes());
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    assert!(answer.contains("this port speaks TLS: use https:// or wss://"), "{answer}");
    assert_eq!(server.stats().rejected["bad_request"], 1);

    let plain = TestServer::start(config());
    let mut stream = plain.socket();
    let mut hello = Vec::new();
    let name = ServerName::try_from("localhost").unwrap();
    let mut conn = ClientConnection::new(certificates.client(), name).unwrap();
    conn.write_tls(&mut hello).unwrap();
    stream.write_all(&hello).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.contains("this port does not speak TLS"), "{answer}");
}

#[test]
fn certificates_are_chosen_by_name() {
    let certificates = Certificates::new();
    let other = certificates.authority.server(&["other.example", "*.sub.example"]);
    let [cert, key] = other.write(certificates.path(), "other");
    let [cert, key] = [cert, key].map(|path| path.to_str().unwrap().to_owned());
    let config = Config { tls: vec![TlsPair { cert, key }], ..certificates.config() };
    let server = TestServer::start(config);
    let client = certificates.client();
    for name in ["localhost", "127.0.0.1", "other.example", "a.sub.example"] {
        ask(&mut tls(&server, &client, name), HEALTH).unwrap_or_else(|e| panic!("{name}: {e}"));
    }
    // The first pair is for names that nobody has; the client sees that it does not fit.
    let error = ask(&mut tls(&server, &client, "stranger.example"), HEALTH).unwrap_err();
    assert!(error.to_string().contains("not valid for name"), "{error}");
}

#[test]
fn a_reload_serves_new_connections_and_keeps_open_ones() {
    let certificates = Certificates::new();
    let server = TestServer::start(certificates.config());
    let client = certificates.client();
    let stream = tls(&server, &client, "localhost");
    let (mut inside, _) = tungstenite::client("wss://localhost/echo", stream).unwrap();
    assert!(!server.handle.reload_tls().unwrap(), "nothing has changed");
    let before = peer_certificate(inside.get_ref());

    // The new certificate is there and its key is not yet: the old pair stays.
    let new = certificates.authority.server(&["localhost"]);
    fs::write(certificates.path().join("server.pem"), &new.cert).unwrap();
    let error = server.handle.reload_tls().unwrap_err();
    assert!(error.to_string().contains("must be the key of the first certificate"), "{error}");
    let fresh = certificates.client();
    let mut stream = tls(&server, &fresh, "localhost");
    ask(&mut stream, HEALTH).unwrap();
    assert_eq!(peer_certificate(&stream), before);

    new.write(certificates.path(), "server");
    assert!(server.handle.reload_tls().unwrap());
    let fresh = certificates.client();
    let mut stream = tls(&server, &fresh, "localhost");
    ask(&mut stream, HEALTH).unwrap();
    assert_ne!(peer_certificate(&stream), before);
    inside.send(tungstenite::Message::text("still here")).unwrap();
    assert_eq!(inside.read().unwrap().to_text().unwrap(), "still here");
    // A ticket from before the reload is good after it.
    let mut stream = tls(&server, &client, "localhost");
    ask(&mut stream, HEALTH).unwrap();
    assert_eq!(stream.conn.handshake_kind(), Some(HandshakeKind::Resumed));
    let stats = server.stats();
    assert_eq!((stats.tls_reloads, stats.tls_reloads_failed), (1, 1));
    assert_eq!(stats.tls_handshakes_resumed, 1);
}

#[test]
fn new_settings_may_name_other_files_but_not_end_tls() {
    let certificates = Certificates::new();
    let server = TestServer::start(certificates.config());
    let shown = || {
        let mut stream = tls(&server, &certificates.client(), "localhost");
        ask(&mut stream, HEALTH).unwrap();
        peer_certificate(&stream)
    };
    let before = shown();
    certificates.authority.server(&["localhost"]).write(certificates.path(), "other");
    let of = |name: &str| {
        let path = |end: &str| certificates.path().join(format!("{name}.{end}"));
        let [tls_cert, tls_key] = ["pem", "key"].map(|end| path(end).to_str().unwrap().to_owned());
        Config { tls_cert, tls_key, ..certificates.config() }
    };
    let error = server.handle.reload(&of("missing")).unwrap_err();
    assert!(error.to_string().starts_with("tls_cert = "), "{error}");
    assert_eq!(shown(), before);
    let told = server.handle.reload(&of("other")).unwrap();
    assert_eq!(told.changed, ["tls_cert", "tls_key"]);
    let after = shown();
    assert_ne!(after, before);
    // Under the same name.
    certificates.authority.server(&["localhost"]).write(certificates.path(), "other");
    assert_eq!(server.handle.reload(&of("other")).unwrap().changed, ["tls_cert"]);
    assert_ne!(shown(), after);
    let plain = Config { tls_cert: String::new(), tls_key: String::new(), ..certificates.config() };
    let told = server.handle.reload(&plain).unwrap();
    assert!(told.changed.is_empty() && told.needs_restart == ["tls_cert", "tls_key"]);
    assert_eq!(server.stats().tls_reloads, 2);
}

#[test]
fn a_reload_names_the_authorities_of_clients_alone_if_only_they_have_changed() {
    let certificates = Certificates::new();
    let [first, second] = ["first.pem", "second.pem"].map(|name| certificates.path().join(name));
    for path in [&first, &second] {
        fs::copy(certificates.path().join("ca.pem"), path).unwrap();
    }
    let of = |path: &Path| Config {
        tls_client_ca: path.to_str().unwrap().into(),
        ..certificates.config()
    };
    let server = TestServer::start(of(&first));
    assert_eq!(server.handle.reload(&of(&second)).unwrap().changed, ["tls_client_ca"]);
    let mut text = fs::read_to_string(&second).unwrap();
    text.push('\n');
    fs::write(&second, text).unwrap();
    assert_eq!(server.handle.reload(&of(&second)).unwrap().changed, ["tls_client_ca"]);
    assert!(server.handle.reload(&of(&second)).unwrap().changed.is_empty());
}

#[test]
fn a_changed_file_is_found_without_being_asked_for() {
    let certificates = Certificates::new();
    let server = TestServer::start(certificates.config());
    certificates.authority.server(&["localhost"]).write(certificates.path(), "server");
    eventually("the new pair is in use", || match server.stats().tls_reloads {
        1 => Ok(()),
        reloads => Err(format!("{reloads} reloads")),
    });
}

#[test]
fn a_ticket_is_worth_nothing_under_other_authorities() {
    let certificates = Certificates::new();
    let config = Config { tls_client_ca: certificates.file("ca.pem"), ..certificates.config() };
    let server = TestServer::start(config);
    let pair = certificates.authority.client("client");
    for version in [&TLS12, &TLS13] {
        fs::write(certificates.path().join("ca.pem"), certificates.authority.pem()).unwrap();
        let _ = server.handle.reload_tls().unwrap();
        let client = client_config(&certificates.authority.pem(), &[version], Some(&pair));
        ask(&mut tls(&server, &client, "localhost"), HEALTH).unwrap();
        let other = Authority::new("other").pem();
        fs::write(certificates.path().join("ca.pem"), other).unwrap();
        assert!(server.handle.reload_tls().unwrap());
        ask(&mut tls(&server, &client, "localhost"), HEALTH).expect_err("it should be refused");
    }
}

fn complaint(config: Config) -> String {
    let failed: Result<(), Error> = Server::builder().config(config).check();
    let error = failed.expect_err("this should be refused");
    assert!(error.is_config());
    error.to_string()
}

#[test]
fn bad_files_are_named_with_what_is_wrong() {
    let certificates = Certificates::new();
    let write = |name: &str, text: &str| {
        fs::write(certificates.path().join(name), text).unwrap();
        certificates.file(name)
    };
    let good = certificates.config();
    Server::builder().config(good.clone()).check().unwrap();
    let cert = |tls_cert: String| complaint(Config { tls_cert, ..good.clone() });
    let key = |tls_key: String| complaint(Config { tls_key, ..good.clone() });
    let missing = cert(certificates.file("missing.pem"));
    assert!(missing.starts_with("tls_cert = \""), "{missing}");
    assert!(missing.contains("missing.pem\": cannot read the file: "), "{missing}");
    assert!(cert(certificates.path().to_str().unwrap().to_owned()).contains("cannot read"));
    assert!(cert(write("empty.pem", "")).contains("the file is empty"));
    assert!(cert(certificates.file("server.key")).contains("there is none in the file"));
    assert!(key(write("empty.key", "")).contains("the file is empty"));
    assert!(key(certificates.file("server.pem")).contains("there is none in the file"));
    let encrypted =
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMAA=\n-----END ENCRYPTED PRIVATE KEY-----\n";
    assert!(key(write("encrypted.key", encrypted)).contains("this one is encrypted"));
    let torn = fs::read_to_string(certificates.path().join("server.pem")).unwrap();
    assert!(cert(write("torn.pem", &torn[..100])).contains("must hold PEM certificates"));
    let other: Pair = certificates.authority.server(&["localhost"]);
    let mismatch = key(write("other.key", &other.key));
    assert!(
        mismatch.contains("must be the key of the first certificate in tls_cert"),
        "{mismatch}"
    );
    let tls_client_ca = write("not.pem", "hello");
    let authorities = complaint(Config { tls_client_ca, ..good.clone() });
    assert!(authorities.starts_with("tls_client_ca = "), "{authorities}");
    let other = certificates.file("other.key");
    let arguments = ["check-config", "--tls-cert", &good.tls_cert, "--tls-key", &other];
    let (code, text) = outcome(&arguments, &[], "");
    assert!(code == Some(2) && text.contains("must be the key of"), "{text}");
}

/// Runs `openssl s_client` with `more` arguments; `None` where there is no OpenSSL.
fn openssl(server: &TestServer, more: &[&str], input: &str) -> Option<Output> {
    let mut child = Command::new("openssl")
        .args(["s_client", "-connect", &server.addr.to_string()])
        .args(more)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .ok()?;
    // At its end OpenSSL would not wait for an answer; the server ends the connection anyway.
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    drop(stdin);
    Some(output)
}

#[test]
fn openssl_reads_health_and_gets_no_old_version() {
    let certificates = Certificates::new();
    let server = TestServer::start(certificates.config());
    let ca = certificates.file("ca.pem");
    let verify = ["-CAfile", &ca, "-verify_return_error", "-alpn", "http/1.1"];
    let ask = |version: &str| openssl(&server, &[&verify[..], &[version]].concat(), HEALTH);
    for version in ["-tls1_2", "-tls1_3"] {
        let Some(output) = ask(version) else { return eprintln!("there is no openssl") };
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains("HTTP/1.1 200 OK"), "{version}: {text}");
        assert!(text.contains("ALPN protocol: http/1.1"), "{version}: {text}");
        assert!(text.contains("Verify return code: 0 (ok)"), "{version}: {text}");
    }
    // OpenSSL itself speaks TLS 1.1 only below its default security level.
    let old = openssl(&server, &["-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0"], HEALTH).unwrap();
    let text = String::from_utf8_lossy(&old.stderr);
    assert!(!old.status.success() && text.contains(" alert "), "{text}");
    // A client that asks for a new handshake within one gets none.
    let renegotiates = openssl(&server, &["-tls1_2"], "R\n").unwrap();
    let text = String::from_utf8_lossy(&renegotiates.stderr);
    assert!(text.contains("no renegotiation"), "{text}");
    eventually("the failures are counted", || match server.stats().tls_handshakes_failed {
        1 => Ok(()),
        failed => Err(format!("{failed} failed")),
    });
}

#[test]
fn openssl_needs_a_certificate_where_one_is_needed() {
    let certificates = Certificates::new();
    let config = Config { tls_client_ca: certificates.file("ca.pem"), ..certificates.config() };
    let server = TestServer::start(config);
    let stranger = Authority::new("stranger");
    certificates.authority.client("known").write(certificates.path(), "known");
    stranger.client("stranger").write(certificates.path(), "stranger");
    for (name, is_let_in) in [("known", true), ("stranger", false)] {
        let [cert, key] = ["pem", "key"].map(|kind| certificates.file(&format!("{name}.{kind}")));
        let Some(output) = openssl(&server, &["-cert", &cert, "-key", &key], HEALTH) else {
            return eprintln!("there is no openssl");
        };
        let text = String::from_utf8_lossy(&output.stdout);
        assert_eq!(text.contains("HTTP/1.1 200 OK"), is_let_in, "{name}: {text}");
    }
    let none = openssl(&server, &[], HEALTH).unwrap();
    assert!(!String::from_utf8_lossy(&none.stdout).contains("HTTP/1.1"));
}

#[test]
fn a_storm_of_handshakes_and_of_silence_leaves_nothing() {
    let certificates = Certificates::new();
    let config = Config { handshake_timeout: Duration::from_millis(300), ..certificates.config() };
    let server = TestServer::start(config);
    // More than two turns of two workers.
    let silent: Vec<TcpStream> = (0..20).map(|_| server.socket()).collect();
    let client = certificates.client();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..10 {
                    // A machine under load may take longer than the timeout.
                    let _ = ask(&mut tls(&server, &client, "localhost"), HEALTH);
                }
            });
        }
    });
    assert!(server.stats().tls_handshakes_tls13 > 0);
    server.wait_until_empty();
    drop(silent);
}

/// Runs `health` with the certificates of a server in its settings.
fn health_with(
    certificates: &Certificates,
    server: &TestServer,
    settings: &[(&str, &str)],
) -> (Option<i32>, String) {
    let port = server.addr.port().to_string();
    let (cert, key) = (certificates.file("server.pem"), certificates.file("server.key"));
    let settings = [&[("TLS_CERT", cert.as_str()), ("TLS_KEY", &key)], settings].concat();
    outcome(&["health", "--host", "127.0.0.1", "--port", &port], &settings, "")
}

#[test]
fn the_client_speaks_tls_and_says_what_is_wrong_with_a_certificate() {
    let certificates = Certificates::new();
    let server = TestServer::start(certificates.config());
    let trusting = || Client::builder().tls(TlsOptions::default().ca(certificates.file("ca.pem")));
    let url = format!("wss://{}/echo", server.addr);
    let client = trusting().connect(&url).unwrap();
    let text = "a".repeat(60_000);
    for _ in 0..50 {
        client.send(&text).unwrap();
    }
    for _ in 0..50 {
        let echo = client.recv_timeout(DEADLINE).unwrap().unwrap();
        assert_eq!(echo.as_text(), Some(text.as_str()));
    }
    client.close(CloseReason::NORMAL).unwrap();
    let builder = trusting();
    for resumed in 0..2 {
        builder.connect(&url).unwrap().close(CloseReason::NORMAL).unwrap();
        assert_eq!(server.stats().tls_handshakes_resumed, resumed);
    }

    let fails = |builder: ClientBuilder, url: &str| builder.connect(url).unwrap_err();
    let error = fails(Client::builder(), &url);
    assert_eq!(error.kind(), ErrorKind::Untrusted);
    assert!(error.to_string().contains("unknown authority"), "{error}");
    let error = fails(trusting(), &url.replace("127.0.0.1", "127.0.0.2"));
    assert!(
        error.to_string().contains("Connection refused") || error.kind() == ErrorKind::Unreachable
    );
    let error = fails(Client::builder().tls(TlsOptions::default().ca("missing")), &url);
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    Client::builder().tls(TlsOptions::default().insecure()).connect(&url).unwrap();

    let other = certificates.authority.server(&["other.example"]);
    other.write(certificates.path(), "server");
    server.handle.reload_tls().unwrap();
    let error = fails(trusting(), &url);
    assert_eq!(error.kind(), ErrorKind::Untrusted);
    assert!(error.to_string().contains("is for another name"), "{error}");
    certificates.authority.expired(&["127.0.0.1"]).write(certificates.path(), "server");
    server.handle.reload_tls().unwrap();
    let error = fails(trusting(), &url);
    assert!(error.to_string().contains("has expired"), "{error}");

    let plain = TestServer::start(config());
    let error = fails(trusting(), &format!("wss://{}/echo", plain.addr));
    assert_eq!(error.kind(), ErrorKind::Misbehaved);
    assert!(error.to_string().contains("does not speak TLS"), "{error}");
    let error = fails(trusting(), &url.replace("wss", "ws"));
    assert!(error.to_string().contains("this port speaks TLS"), "{error}");
}

#[test]
fn a_silent_server_costs_a_client_no_more_than_its_timeout() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("wss://{}/", listener.local_addr().unwrap());
    let began = std::time::Instant::now();
    let builder = Client::builder().connect_timeout(Duration::from_millis(200));
    let error = builder.connect(&url).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    assert!(began.elapsed() < DEADLINE);
}

#[test]
fn the_program_speaks_tls_with_each_of_its_commands() {
    let certificates = Certificates::new();
    let server = TestServer::start(certificates.config());
    let url = format!("wss://{}", server.addr);
    let ca = certificates.file("ca.pem");
    let chat = format!("{url}/ws");
    let (code, text) = outcome(&["connect", &chat, "--ca", &ca, "--no-reconnect"], &[], "hello\n");
    assert_eq!(code, Some(0), "{text}");
    let (code, text) = outcome(&["connect", &chat, "--no-reconnect"], &[], "hello\n");
    assert_eq!(code, Some(3), "{text}");
    assert!(text.contains("unknown authority"), "{text}");
    let echo = format!("{url}/echo");
    let raw = ["connect", "--raw", &echo, "--insecure", "--count", "1"];
    let (code, text) = outcome(&raw, &[], "hello\n");
    assert!(code == Some(0) && text.contains("hello"), "{text}");

    let load = ["load", "echo", &echo, "-c", "4", "--messages", "200", "--json"];
    let (code, text) = outcome(&[&load[..], &["--ca", &ca]].concat(), &[], "");
    assert_eq!(code, Some(0), "{text}");
    let (code, text) = outcome(&load, &[], "");
    assert_eq!(code, Some(3), "{text}");
    let fanout =
        ["load", "fanout", &chat, "--subscribers", "20", "--rate", "50", "--duration", "1"];
    let (code, text) = outcome(&[&fanout[..], &["--warmup", "0", "--insecure"]].concat(), &[], "");
    assert_eq!(code, Some(0), "{text}");

    let address = server.addr.to_string();
    let health = format!("https://{address}/health");
    let (code, text) = outcome(&["health", "--url", &health, "--ca", &ca], &[], "");
    assert!(code == Some(0) && text.contains("\"ok\""), "{text}");
    let (code, text) = outcome(&["health", "--url", &health], &[], "");
    assert!(code == Some(1) && text.contains("unknown authority"), "{text}");
    let (code, text) = health_with(&certificates, &server, &[]);
    assert_eq!(code, Some(0), "{text}");
}

/// A config with TLS behind a proxy on the loopback.
fn proxied(certificates: &Certificates) -> Config {
    let trusted_proxies = vec!["127.0.0.1".into()];
    Config { proxy_protocol: true, trusted_proxies, ..certificates.config() }
}

const PROXY_HEADER: &[u8] = b"PROXY TCP4 203.0.113.7 10.0.0.1 4567 443\r\n";

#[test]
fn health_sends_the_header_of_a_proxy_before_tls() {
    let certificates = Certificates::new();
    let server = TestServer::start(proxied(&certificates));
    let ask = |proxy_protocol: &str| {
        health_with(&certificates, &server, &[("PROXY_PROTOCOL", proxy_protocol)]).0
    };
    assert_eq!(ask("true"), Some(0));
    assert_eq!(ask("false"), Some(1));
    assert_eq!(server.stats().rejected["proxy_header"], 1);
}

#[test]
fn behind_a_proxy_the_limit_by_address_holds_before_the_handshake() {
    let certificates = Certificates::new();
    let server = TestServer::start(Config { max_conn_per_ip: 1, ..proxied(&certificates) });
    let client = certificates.client();
    let connect = || {
        let mut stream = tls(&server, &client, "localhost");
        stream.sock.write_all(PROXY_HEADER).unwrap();
        tungstenite::client("wss://localhost/echo", stream).map_err(|error| error.to_string())
    };
    let (mut inside, _) = connect().unwrap();
    inside.send(tungstenite::Message::text("hello")).unwrap();
    assert_eq!(inside.read().unwrap().to_text().unwrap(), "hello");
    let refused = connect().err().unwrap();
    assert!(refused.contains("InternalError"), "{refused}");
    assert_eq!(server.stats().rejected["per_ip"], 1);
}
