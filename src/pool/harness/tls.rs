//! TLS over a socket that gives and takes as little as it likes: what is said stays the same, and
//! whoever breaks TLS costs nobody else anything.

use std::{
    sync::{Arc, LazyLock},
    time::Duration,
};

use rustls::{
    AlertDescription, ClientConfig, Error, SupportedProtocolVersion,
    version::{TLS12, TLS13},
};
use rusty_socks_testing::{
    certificates::{Authority, Pair},
    tls_client::{TlsClient, client_config},
};
use tempfile::TempDir;

use super::{Harness, Stream, close, frame, upgrade};
use crate::{config::Config, metrics::WorkerMetrics};

const BOTH: [&SupportedProtocolVersion; 2] = [&TLS12, &TLS13];

/// Steps that end inside of record headers, and one that takes all there is.
const STEPS: [usize; 5] = [1, 3, 7, 500, usize::MAX];

/// One authority for all tests; keys take time.
static FILES: LazyLock<(Authority, TempDir)> = LazyLock::new(|| {
    let (authority, dir) = (Authority::new("test"), TempDir::new().expect("a directory"));
    authority.server(&["localhost"]).write(dir.path(), "server");
    std::fs::write(dir.path().join("ca.pem"), authority.pem()).expect("a writable directory");
    (authority, dir)
});

fn path(name: &str) -> String {
    FILES.1.path().join(name).to_str().expect("a path that is text").to_owned()
}

/// `config`, with TLS.
fn secured(config: Config) -> Config {
    Config { tls_cert: path("server.pem"), tls_key: path("server.key"), ..config }
}

fn trusting(version: &'static SupportedProtocolVersion, pair: Option<&Pair>) -> Arc<ClientConfig> {
    client_config(&FILES.0.pem(), &[version], pair)
}

/// A connection and its TLS client.
struct Secured {
    harness: Harness,
    client: TlsClient,
    /// What the client has read.
    plain: Vec<u8>,
}

impl Secured {
    fn new(config: Config, client: Arc<ClientConfig>) -> Secured {
        let mut harness = Harness::new(secured(config));
        // A worker's is as large; that of the other tests is made small on purpose.
        harness.buffer = vec![0; 128 << 10];
        Secured { harness, client: TlsClient::new(client, "localhost"), plain: Vec::new() }
    }

    /// Carries bytes both ways until none are left.
    fn exchange(&mut self) -> Result<(), Error> {
        loop {
            let out = self.client.output();
            if !out.is_empty() {
                self.harness.feed(&out);
            }
            let written = self.harness.written();
            self.plain.extend(self.client.input(&written)?);
            if out.is_empty() && written.is_empty() {
                return Ok(());
            }
            self.harness.cx.tls.begin_turn();
        }
    }

    fn say(&mut self, bytes: &[u8]) {
        self.client.send(bytes);
        self.exchange().expect("proper TLS");
    }

    fn metrics(&self) -> &WorkerMetrics {
        self.harness.cx.metrics()
    }
}

/// A whole life, and what a client without TLS reads in it.
fn life(config: &Config) -> (Vec<u8>, Vec<u8>) {
    let mut said = upgrade("").into_bytes();
    let long: Vec<u8> = (0..40_000).map(|n: u32| n as u8).collect();
    said.extend(frame(0x81, b"hello"));
    said.extend(frame(0x82, &long));
    for number in 0..30 {
        said.extend(frame(0x81, number.to_string().as_bytes()));
    }
    said.extend(close(1000, "bye"));
    let mut harness = Harness::new(config.clone());
    harness.feed(&said);
    harness.expect_nothing_left("without TLS");
    (said, harness.written())
}

#[test]
fn reads_and_writes_of_every_size_say_what_they_say_without_tls() {
    let config = Config { buffer: 4, ..Config::default() };
    let (said, expected) = life(&config);
    for version in BOTH {
        for read_step in STEPS {
            for write_step in STEPS {
                let mut secured = Secured::new(config.clone(), trusting(version, None));
                secured.harness.wire.lock().read_step = read_step;
                secured.harness.wire.lock().write_step = write_step;
                secured.say(&said);
                let steps = format!("{version:?}: {read_step} in, {write_step} out");
                assert!(secured.plain == expected, "{steps}");
                let alerts = secured.client.conn.process_new_packets().expect("proper TLS");
                assert!(alerts.peer_has_closed(), "{steps}: no close_notify");
                secured.harness.expect_nothing_left(&steps);
                assert_eq!(secured.metrics().tls_handshakes_failed.value(), 0);
            }
        }
    }
}

#[test]
fn a_client_that_reads_little_by_little_reads_the_same() {
    let config = Config::default();
    let (said, expected) = life(&config);
    for room in [1, 7, 5000, 20_000] {
        let mut secured = Secured::new(config.clone(), trusting(&TLS13, None));
        secured.harness.wire.lock().write_room = 0;
        secured.client.send(&said);
        while !secured.harness.is_gone() {
            secured.exchange().expect("proper TLS");
            secured.harness.make_room(room);
            secured.harness.wire.lock().write_room = 0;
            let written = secured.harness.written();
            assert!(!written.is_empty(), "stands still after {} bytes", secured.plain.len());
            secured.plain.extend(secured.client.input(&written).expect("proper TLS"));
        }
        assert!(secured.plain == expected, "{room} at a time");
        secured.harness.expect_nothing_left("little by little");
    }
}

#[test]
fn an_open_connection_keeps_no_buffer_and_a_slow_one_a_bounded_one() {
    let mut secured = Secured::new(Config::default(), trusting(&TLS13, None));
    secured.say(upgrade("").as_bytes());
    assert!(secured.harness.is_open() && !secured.harness.conn.io.has_unsent());
    // A whole record but its last byte, and then that one.
    secured.client.send(&frame(0x81, &[b'a'; 10_000]));
    let record = secured.client.output();
    secured.harness.feed(&record[..record.len() - 1]);
    assert!(secured.harness.written().is_empty());
    secured.plain.clear();
    secured.harness.feed(&record[record.len() - 1..]);
    secured.exchange().expect("proper TLS");
    assert_eq!(secured.plain.len(), 10_000 + 4, "the echo");
    // A client that does not read: the outbox waits, and not the ciphertext.
    secured.harness.wire.lock().write_room = 0;
    for _ in 0..10 {
        secured.client.send(&frame(0x82, &[7; 60_000]));
    }
    let out = secured.client.output();
    secured.harness.feed(&out);
    assert!(secured.harness.conn.io.stream.has_unsent());
    assert!(!secured.harness.owes_at_most(100_000), "most waits in the outbox");
}

#[test]
fn many_messages_of_a_turn_go_into_one_record() {
    let mut secured = Secured::new(Config::default(), trusting(&TLS13, None));
    secured.say(upgrade("").as_bytes());
    let said: Vec<u8> = (0..100).flat_map(|_| frame(0x81, &[b'a'; 100])).collect();
    secured.client.send(&said);
    let out = secured.client.output();
    secured.harness.feed(&out);
    let written = secured.harness.written();
    let overhead = written.len() - 100 * 102;
    assert!(overhead < 2 * 64, "{overhead} bytes beyond the messages");
}

#[test]
fn http_on_a_tls_port_gets_an_answer_that_can_be_read() {
    let mut harness = Harness::new(secured(Config::default()));
    harness.buffer = vec![0; 128 << 10];
    harness.feed(b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n");
    let answer = harness.answer();
    assert_eq!(answer.status, 400);
    assert!(answer.body.contains("this port speaks TLS"), "{}", answer.body);
    assert_eq!(harness.cx.metrics().tls_handshakes_failed.value(), 1);
    harness.end();
    harness.expect_nothing_left("after the answer");
}

#[test]
fn garbage_gets_an_alert_and_is_gone() {
    for garbage in [&[0; 600][..], &[0x16, 3, 1, 0xff, 0xff, 0, 0], &[0x16, 3, 1, 0, 4, 1, 0, 0, 0]]
    {
        let mut harness = Harness::new(secured(Config::default()));
        harness.buffer = vec![0; 128 << 10];
        harness.feed(garbage);
        let written = harness.written();
        assert_eq!(written.first(), Some(&21), "{garbage:?} is answered with {written:?}");
        harness.feed(&[b'x'; 10_000]);
        assert!(harness.written().is_empty(), "nothing more is said");
        harness.end();
        harness.expect_nothing_left("after the alert");
        assert_eq!(harness.cx.metrics().tls_handshakes_failed.value(), 1);
    }
}

#[test]
fn garbage_within_a_session_ends_it_and_nothing_goes_out_in_the_clear() {
    for version in BOTH {
        let mut secured = Secured::new(Config::default(), trusting(version, None));
        secured.say(upgrade("").as_bytes());
        secured.harness.wire.lock().write_room = 0;
        secured.client.send(&frame(0x81, b"secret"));
        let out = secured.client.output();
        secured.harness.feed(&out);
        secured.harness.send(&[0x17, 3, 3, 0, 20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        secured.harness.feed(&[0; 10]);
        secured.harness.make_room(100_000);
        let written = secured.harness.written();
        assert!(!written.windows(6).any(|window| window == b"secret"));
        secured.harness.expect_nothing_left("after the garbage");
        assert_eq!(secured.harness.closed(), [1006]);
    }
}

#[test]
fn a_handshake_must_end_in_the_time_for_a_head() {
    let config = Config::default();
    let ms = config.handshake_timeout.as_millis() as u64;
    let mut client = TlsClient::new(trusting(&TLS13, None), "localhost");
    let hello = client.output();
    for part in [&[][..], &hello[..1], &hello[..100], &hello] {
        let mut harness = Harness::new(secured(config.clone()));
        harness.buffer = vec![0; 128 << 10];
        harness.feed(part);
        harness.pass(ms - 1);
        assert!(!harness.is_gone());
        harness.pass(1);
        harness.expect_nothing_left("after the timeout");
        let failed = harness.cx.metrics().tls_handshakes_failed.value();
        assert_eq!(failed, u64::from(!part.is_empty()), "what said nothing tried nothing");
    }
}

#[test]
fn a_proxy_says_for_whom_it_speaks_before_tls() {
    const HEADER: &[u8] = b"PROXY TCP4 1.2.3.4 5.6.7.8 80 443\r\n";
    let config = Config { proxy_protocol: true, ..Config::default() };
    for read_step in [1, 20, HEADER.len(), HEADER.len() + 1, usize::MAX] {
        // With the handshake right behind it, or later.
        for is_at_once in [true, false] {
            let mut secured = Secured::new(config.clone(), trusting(&TLS13, None));
            secured.harness.wire.lock().read_step = read_step;
            let hello = secured.client.output();
            if is_at_once {
                secured.harness.feed(&[HEADER, &hello].concat());
            } else {
                secured.harness.feed(HEADER);
                secured.harness.feed(&hello);
            }
            let written = secured.harness.written();
            secured.client.input(&written).expect("proper TLS");
            secured.say(b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n");
            assert!(secured.plain.starts_with(b"HTTP/1.1 200"), "{read_step}, {is_at_once}");
        }
    }
    let mut harness = Harness::new(secured(config));
    harness.buffer = vec![0; 128 << 10];
    harness.feed(HEADER);
    harness.feed(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(harness.answer().body.contains("this port speaks TLS"));
}

#[test]
fn one_deadline_covers_the_header_of_a_proxy_and_the_handshake() {
    const HEADER: &[u8] = b"PROXY TCP4 1.2.3.4 5.6.7.8 80 443\r\n";
    let config = Config { proxy_protocol: true, ..Config::default() };
    let ms = config.handshake_timeout.as_millis() as u64;
    let mut client = TlsClient::new(trusting(&TLS13, None), "localhost");
    let hello = client.output();
    for (first, second) in [(&HEADER[..10], &HEADER[10..]), (HEADER, &[]), (HEADER, &hello)] {
        let mut harness = Harness::new(secured(config.clone()));
        harness.buffer = vec![0; 128 << 10];
        harness.feed(first);
        harness.pass(ms - 1);
        harness.feed(second);
        assert!(!harness.is_gone());
        harness.pass(1);
        harness.expect_nothing_left("after the timeout");
    }
}

#[test]
fn handshakes_beyond_the_share_of_a_turn_wait_for_the_next() {
    let mut secured = Secured::new(Config::default(), trusting(&TLS13, None));
    secured.harness.cx.tls.spend_handshake_time(Duration::MAX);
    let hello = secured.client.output();
    secured.harness.send(&hello);
    for _ in 0..3 {
        assert!(secured.harness.turn(), "it is listed again");
    }
    assert!(secured.harness.written().is_empty(), "it waits");
    assert_eq!(secured.metrics().tls_handshake_waits.value(), 3);
    secured.harness.cx.tls.begin_turn();
    secured.harness.turns();
    assert!(!secured.harness.written().is_empty(), "it is answered");
}

#[test]
fn a_client_says_that_it_ends_or_is_counted() {
    for version in BOTH {
        // Half a request is lost either way; the alert makes the difference.
        for says in [true, false] {
            let mut secured = Secured::new(Config::default(), trusting(version, None));
            secured.say(b"GET /hea");
            if says {
                secured.client.conn.send_close_notify();
                secured.exchange().expect("proper TLS");
                assert!(secured.harness.is_gone(), "it does not wait for the socket's end");
            }
            secured.harness.end();
            secured.harness.expect_nothing_left("after the end");
            assert_eq!(secured.metrics().tls_truncated.value(), u64::from(!says));
        }
    }
}

#[test]
fn a_request_that_comes_with_the_end_is_answered() {
    let mut secured = Secured::new(Config::default(), trusting(&TLS13, None));
    secured.exchange().expect("proper TLS");
    secured.client.send(b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n");
    secured.client.conn.send_close_notify();
    secured.exchange().expect("proper TLS");
    assert!(secured.plain.starts_with(b"HTTP/1.1 200"));
    secured.harness.expect_nothing_left("after the answer");
}

#[test]
fn handshakes_are_counted_by_version() {
    for (version, expected) in [(&TLS12, [1, 0]), (&TLS13, [0, 1])] {
        let mut secured = Secured::new(Config::default(), trusting(version, None));
        secured.say(b"GET /health HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        assert!(secured.plain.starts_with(b"HTTP/1.1 200"));
        let metrics = secured.metrics();
        let counts = [metrics.tls_handshakes_tls12.value(), metrics.tls_handshakes_tls13.value()];
        assert_eq!(counts, expected);
    }
}

#[test]
fn a_client_without_its_certificate_is_refused_where_one_is_needed() {
    let config = Config { tls_client_ca: path("ca.pem"), ..Config::default() };
    let known = FILES.0.client("client");
    let stranger = Authority::new("someone else").client("client");
    for version in BOTH {
        let request = b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n";
        let mut secured = Secured::new(config.clone(), trusting(version, Some(&known)));
        secured.say(request);
        assert!(secured.plain.starts_with(b"HTTP/1.1 200"));
        for pair in [None, Some(&stranger)] {
            let mut secured = Secured::new(config.clone(), trusting(version, pair));
            secured.client.send(request);
            let error = secured.exchange().expect_err("this should be refused");
            let expected = match pair {
                None => AlertDescription::CertificateRequired,
                Some(_) => AlertDescription::UnknownCA,
            };
            let is_expected = error == Error::AlertReceived(expected);
            // TLS 1.2 has no alert of its own for the missing one.
            assert!(is_expected || pair.is_none(), "{error}");
            assert!(secured.plain.is_empty());
            assert_eq!(secured.metrics().tls_handshakes_failed.value(), 1);
        }
    }
}

#[test]
fn handshakes_that_the_client_ends_are_counted() {
    const CLOSE_NOTIFY: [u8; 7] = [21, 3, 3, 0, 2, 1, 0];
    for is_reset in [true, false] {
        let mut secured = Secured::new(Config::default(), trusting(&TLS12, None));
        let hello = secured.client.output();
        secured.harness.feed(&hello);
        assert_eq!(secured.metrics().tls_handshakes_failed.value(), 0);
        if is_reset {
            secured.harness.lose(std::io::ErrorKind::ConnectionReset);
        } else {
            secured.harness.feed(&CLOSE_NOTIFY);
            secured.harness.end();
        }
        secured.harness.expect_nothing_left("after the end");
        assert_eq!(secured.metrics().tls_handshakes_failed.value(), 1, "reset: {is_reset}");
    }
}

#[test]
fn a_part_of_a_record_costs_less_than_a_handshake() {
    let mut secured = Secured::new(Config::default(), trusting(&TLS13, None));
    let hello = secured.client.output();
    secured.harness.send(&hello);
    secured.harness.turn();
    assert!(secured.harness.cx.spent > 0);
    secured.harness.turns();
    secured.say(upgrade("").as_bytes());
    secured.harness.cx.begin_turn();
    secured.client.send(&frame(0x81, b"hello"));
    let record = secured.client.output();
    secured.harness.send(&record[..10]);
    secured.harness.turn();
    assert_eq!(secured.harness.cx.spent, 0);
}

#[test]
fn a_client_that_takes_nothing_is_not_alive_for_what_it_took_before() {
    let mut secured = Secured::new(Config::default(), trusting(&TLS13, None));
    secured.say(upgrade("").as_bytes());
    secured.harness.wire.lock().write_room = 0;
    secured.say(&frame(0x81, b"hello"));
    let before = secured.harness.conn.io.last_tx;
    secured.harness.pass(100);
    secured.harness.make_room(0);
    assert_eq!(secured.harness.conn.io.last_tx, before, "nothing went");
    secured.harness.make_room(1);
    assert!(secured.harness.conn.io.last_tx > before, "a byte went");
}

#[test]
fn a_connection_goes_away_before_its_key_is_worn() {
    for version in BOTH {
        let mut secured = Secured::new(Config::default(), trusting(version, None));
        secured.say(upgrade("").as_bytes());
        let Stream::Tls(stream) = &mut secured.harness.conn.io.stream else { panic!("no TLS") };
        stream.wear();
        secured.say(&frame(0x81, b"one"));
        assert!(secured.harness.is_open() && secured.plain.ends_with(b"one"));
        secured.say(&frame(0x81, b"two"));
        if *version == TLS13 {
            assert!(secured.harness.is_open(), "its keys are changed");
            continue;
        }
        let end = b"\x81\x03two\x88\x19\x03\xe9server is shutting down";
        assert!(secured.plain.ends_with(end), "{:?}", secured.plain);
        secured.say(&close(1001, ""));
        secured.harness.expect_nothing_left("after the Close");
        assert_eq!(secured.harness.closed(), [1001]);
    }
}

#[test]
fn an_http_connection_ends_with_an_answer_before_its_key_is_worn() {
    for version in BOTH {
        let mut secured = Secured::new(Config::default(), trusting(version, None));
        let ask = |secured: &mut Secured, path: &str| {
            secured.plain.clear();
            secured.say(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes());
            let text = String::from_utf8_lossy(&secured.plain).into_owned();
            assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{text}");
            text.contains("\r\nConnection: close\r\n")
        };
        ask(&mut secured, "/health");
        let Stream::Tls(stream) = &mut secured.harness.conn.io.stream else { panic!("no TLS") };
        stream.wear();
        assert!(!ask(&mut secured, "/health") && !ask(&mut secured, "/stats"), "{version:?}");
        let (is_last, is_worn) = (ask(&mut secured, "/health"), *version != TLS13);
        assert_eq!(is_last, is_worn, "{version:?}");
        assert_eq!(secured.harness.wire.lock().server_ended, is_worn, "{version:?}");
    }
}
