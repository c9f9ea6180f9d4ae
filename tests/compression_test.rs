//! permessage-deflate (RFC 7692), as a client sees it that compresses by itself.

#![allow(clippy::unwrap_used, reason = "a test that unwraps fails with a clear message")]

mod support;

use flate2::{Compress, Compression as Level, Decompress, FlushCompress, FlushDecompress};
use rusty_socks::{Config, config::Compression};
use serde_json::Value;
use support::{Random, RawClient, TestServer, close_frame, config, frame, upgrade_head};

const TEXT: u8 = 0x81;
const BINARY: u8 = 0x82;
const CLOSE: u8 = 0x88;
const PING: u8 = 0x89;
const PONG: u8 = 0x8a;
/// Marks the first frame of a compressed message.
const RSV1: u8 = 0x40;

/// What a sender takes off the end of each message (RFC 7692, 7.2.1).
const TAIL: [u8; 4] = [0, 0, 0xff, 0xff];

/// Below it a message of the default configuration is sent plain.
const THRESHOLD_BYTES: usize = 256;

const BOTH: [Compression; 2] = [Compression::Shared, Compression::Dedicated];

fn server(compression: Compression) -> TestServer {
    TestServer::start(Config { compression, ..config() })
}

/// A client with a compressor of its own.
struct Peer {
    raw: RawClient,
    /// What the server answered to the offer.
    agreed: Option<String>,
    compress: Compress,
    inflate: Decompress,
}

/// A message as it came.
#[derive(Debug, PartialEq, Eq)]
struct Came {
    compressed: bool,
    /// The payload's bytes on the wire.
    wire: Vec<u8>,
    text: String,
}

impl Peer {
    /// Connects and offers; `window_bits` is what the client has to inflate with.
    fn connect(server: &TestServer, path: &str, offer: &str, window_bits: u8) -> Peer {
        let mut raw = server.raw_client();
        let header = format!("\r\nSec-WebSocket-Extensions: {offer}\r\n\r\n");
        raw.send(upgrade_head(path).replace("\r\n\r\n", &header).as_bytes());
        let answer = raw.answer();
        assert_eq!(answer.status, 101, "{answer:?}");
        Peer {
            raw,
            agreed: answer.header("Sec-WebSocket-Extensions").map(str::to_owned),
            compress: Compress::new(Level::new(6), false),
            inflate: Decompress::new_with_window_bits(false, window_bits),
        }
    }

    fn echo(server: &TestServer) -> Peer {
        Peer::connect(server, "/echo", "permessage-deflate", 15)
    }

    /// A member of the lobby, its welcome taken.
    fn chat(server: &TestServer, offer: &str, window_bits: u8) -> Peer {
        let mut peer = Peer::connect(server, "/ws", offer, window_bits);
        assert_eq!(peer.json()["type"], "welcome");
        peer
    }

    fn agreed_on(&self, parameter: &str) -> bool {
        self.agreed.as_ref().is_some_and(|agreed| agreed.contains(parameter))
    }

    fn deflate(&mut self, payload: &[u8]) -> Vec<u8> {
        if self.agreed_on("client_no_context_takeover") {
            self.compress.reset();
        }
        let mut bytes = Vec::with_capacity(payload.len() + 1024);
        self.compress.compress_vec(payload, &mut bytes, FlushCompress::Sync).unwrap();
        if bytes.is_empty() {
            // Nothing was said and nothing was left to flush: an empty block (RFC 7692, 7.2.3.6).
            return vec![0];
        }
        assert!(bytes.ends_with(&TAIL));
        bytes.truncate(bytes.len() - TAIL.len());
        bytes
    }

    /// Sends a message compressed, and returns how many bytes of payload that took.
    fn send(&mut self, first: u8, payload: &[u8]) -> usize {
        let bytes = self.deflate(payload);
        self.raw.send(&frame(first | RSV1, &bytes));
        bytes.len()
    }

    /// The next message; passes over nothing.
    fn came(&mut self) -> Came {
        let (first, wire) = self.raw.frame().expect("a message");
        assert!(matches!(first & !RSV1, TEXT | BINARY), "no message: {first:x} {wire:?}");
        let compressed = first & RSV1 != 0;
        let payload = if compressed { self.inflated(&wire) } else { wire.clone() };
        Came { compressed, wire, text: String::from_utf8(payload).unwrap() }
    }

    fn inflated(&mut self, wire: &[u8]) -> Vec<u8> {
        if self.agreed_on("server_no_context_takeover") {
            self.inflate.reset(false);
        }
        let compressed = [wire, &TAIL].concat();
        let mut rest = &compressed[..];
        let mut payload = Vec::with_capacity(1 << 20);
        while !rest.is_empty() {
            let before = self.inflate.total_in();
            self.inflate.decompress_vec(rest, &mut payload, FlushDecompress::Sync).unwrap();
            let taken = (self.inflate.total_in() - before) as usize;
            assert!(taken > 0, "a message of this test fits");
            rest = &rest[taken..];
        }
        payload
    }

    fn json(&mut self) -> Value {
        serde_json::from_str(&self.came().text).unwrap()
    }
}

/// Text that shrinks, and of which no two seeds give the same.
fn prose(seed: usize, bytes: usize) -> String {
    let words = ["socket", "rusty", "frame", "window", "deflate", "room", "turn", "letter"];
    let mut text = String::new();
    let mut state = seed as u64 + 1;
    while text.len() < bytes {
        // Knuth's constants; what matters is that it is cheap and always the same.
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        text.push_str(words[(state >> 61) as usize]);
        text.push_str(&((state >> 40) % 1000).to_string());
    }
    text.truncate(bytes);
    text
}

#[test]
fn it_is_off_unless_it_is_turned_on() {
    assert_eq!(Config::default().compression, Compression::Off);
    let server = TestServer::start(config());
    let mut peer = Peer::echo(&server);
    assert_eq!(peer.agreed, None);
    let text = prose(1, 5000);
    peer.raw.send(&frame(TEXT, text.as_bytes()));
    assert_eq!(peer.came(), Came { compressed: false, wire: text.clone().into_bytes(), text });
}

#[test]
fn an_offer_is_answered_in_the_servers_terms() {
    let never = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";
    for (compression, offer, agreed) in [
        (Compression::Shared, "permessage-deflate", Some(never)),
        (Compression::Shared, "permessage-deflate; client_max_window_bits", Some(never)),
        (
            Compression::Dedicated,
            "permessage-deflate; client_max_window_bits",
            Some("permessage-deflate"),
        ),
        (
            Compression::Dedicated,
            "permessage-deflate; server_max_window_bits=10; client_no_context_takeover",
            Some("permessage-deflate; client_no_context_takeover; server_max_window_bits=10"),
        ),
        (Compression::Dedicated, "x-webkit-deflate-frame", None),
        (Compression::Shared, "permessage-deflate; who_knows", None),
    ] {
        let server = server(compression);
        let mut peer = Peer::connect(&server, "/echo", offer, 15);
        assert_eq!(peer.agreed.as_deref(), agreed, "{offer}");
        let text = prose(2, 1000);
        match agreed {
            Some(_) => drop(peer.send(TEXT, text.as_bytes())),
            None => peer.raw.send(&frame(TEXT, text.as_bytes())),
        }
        let came = peer.came();
        assert_eq!((came.compressed, came.text), (agreed.is_some(), text), "{offer}");
    }
}

#[test]
fn a_short_message_is_sent_plain_and_taken_either_way() {
    for compression in BOTH {
        let server = server(compression);
        let mut peer = Peer::echo(&server);
        for bytes in [0, 1, 5, THRESHOLD_BYTES - 1, THRESHOLD_BYTES, 10_000] {
            let text = prose(bytes, bytes);
            peer.send(TEXT, text.as_bytes());
            peer.raw.send(&frame(TEXT, text.as_bytes()));
            for _ in 0..2 {
                let came = peer.came();
                assert_eq!((came.compressed, &came.text), (bytes >= THRESHOLD_BYTES, &text));
                assert!(!came.compressed || came.wire.len() < text.len());
            }
        }
    }
    let server = TestServer::start(Config {
        compression: Compression::Shared,
        compression_threshold: 0,
        ..config()
    });
    let mut peer = Peer::echo(&server);
    for text in ["", "a"] {
        peer.send(TEXT, text.as_bytes());
        let came = peer.came();
        assert_eq!((came.compressed, came.text.as_str()), (true, text), "everything is");
    }
}

#[test]
fn what_does_not_shrink_comes_back_as_it_went() {
    for compression in BOTH {
        let server = server(compression);
        let mut peer = Peer::echo(&server);
        let mut random = Random::seeded();
        // As large as the limit, which its compressed form is beyond.
        let noise: String = (0..64 << 10).map(|_| (32 + random.below(95)) as u8 as char).collect();
        peer.send(TEXT, noise.as_bytes());
        assert!(peer.came().text == noise);
    }
}

#[test]
fn random_messages_come_back_as_they_went() {
    for compression in BOTH {
        let server = server(compression);
        let mut peer = Peer::echo(&server);
        let mut random = Random::seeded();
        for number in 0..100 {
            let largest = [10, 300, 5000, 20_000][random.below(4)];
            let text = prose(number, random.below(largest));
            match random.below(4) {
                0 => peer.raw.send(&frame(TEXT, text.as_bytes())),
                1 => drop(peer.send(TEXT, text.as_bytes())),
                _ => {
                    let bytes = peer.deflate(text.as_bytes());
                    let (front, back) = bytes.split_at(random.below(bytes.len() + 1));
                    let parts = [frame(0x01 | RSV1, front), frame(0x80, back)];
                    parts.iter().for_each(|part| peer.raw.send(part));
                }
            }
            assert!(peer.came().text == text, "message {number}");
        }
    }
}

#[test]
fn all_members_get_one_content_whatever_they_agreed_on() {
    for compression in BOTH {
        let server = server(compression);
        let mut wide = Peer::chat(&server, "permessage-deflate", 15);
        let mut wide_too = Peer::chat(&server, "permessage-deflate", 15);
        let mut narrow = Peer::chat(&server, "permessage-deflate; server_max_window_bits=9", 9);
        let mut plain = Peer::chat(&server, "x-none", 15);
        let mut sender = Peer::chat(&server, "permessage-deflate", 15);
        for (number, bytes) in [0, 10, 100, 1000, 30_000].into_iter().enumerate() {
            let content = prose(number, bytes);
            let command = format!("{{\"content\":\"{content}\"}}");
            match number % 2 {
                0 => drop(sender.send(TEXT, command.as_bytes())),
                _ => sender.raw.send(&frame(TEXT, command.as_bytes())),
            }
            let told = [&mut wide, &mut wide_too, &mut narrow, &mut plain].map(Peer::came);
            let message: Value = serde_json::from_str(&told[0].text).unwrap();
            assert_eq!(message["content"], content);
            for other in &told {
                assert_eq!(other.text, told[0].text);
            }
            let compressed = told.each_ref().map(|came| came.compressed);
            let is_long = told[0].text.len() >= THRESHOLD_BYTES;
            assert_eq!(compressed, [is_long, is_long, is_long, false], "{bytes} bytes");
            if compression == Compression::Shared {
                assert_eq!(told[0].wire, told[1].wire, "compressed once");
            }
        }
    }
}

#[test]
fn what_is_kept_is_replayed_to_compressed_members() {
    for compression in BOTH {
        let server = server(compression);
        let contents: Vec<String> = (0..5).map(|number| prose(number, 2000)).collect();
        let mut sender = Peer::chat(&server, "permessage-deflate", 15);
        for (number, content) in contents.iter().enumerate() {
            let command =
                format!("{{\"type\":\"publish\",\"ref\":{number},\"content\":\"{content}\"}}");
            sender.send(TEXT, command.as_bytes());
            assert_eq!(sender.json()["ref"], number);
        }
        for (offer, bits) in [
            ("permessage-deflate", 15),
            ("permessage-deflate; server_max_window_bits=9", 9),
            ("x", 15),
        ] {
            let mut late = Peer::chat(&server, offer, bits);
            for content in &contents {
                let came = late.came();
                assert_eq!(came.compressed, offer != "x");
                let message: Value = serde_json::from_str(&came.text).unwrap();
                assert_eq!(&message["content"], content);
            }
            let ask = br#"{"type":"history","room":"lobby","after":0,"limit":5,"ref":1}"#;
            late.raw.send(&frame(TEXT, ask));
            let page = late.json();
            let kept = page["messages"].as_array().unwrap_or_else(|| panic!("{page}"));
            let kept: Vec<&Value> = kept.iter().map(|message| &message["content"]).collect();
            assert_eq!(kept, contents.iter().collect::<Vec<_>>());
        }
    }
}

#[test]
fn context_makes_the_second_message_smaller_where_it_is_kept() {
    let text = prose(7, 4000);
    for (compression, offer, ours_shrinks, theirs_shrinks) in [
        (Compression::Dedicated, "permessage-deflate", true, true),
        (Compression::Dedicated, "permessage-deflate; client_no_context_takeover", true, false),
        (Compression::Dedicated, "permessage-deflate; server_no_context_takeover", false, true),
        (Compression::Shared, "permessage-deflate", false, false),
    ] {
        let server = server(compression);
        let mut peer = Peer::connect(&server, "/echo", offer, 15);
        let mut sizes = Vec::new();
        for _ in 0..3 {
            let sent = peer.send(TEXT, text.as_bytes());
            let came = peer.came();
            assert!(came.compressed && came.text == text);
            sizes.push((sent, came.wire.len()));
        }
        let is_smaller = |second: usize, first: usize| second < first / 10;
        for later in &sizes[1..] {
            assert_eq!(is_smaller(later.0, sizes[0].0), theirs_shrinks, "{offer}: {sizes:?}");
            assert_eq!(is_smaller(later.1, sizes[0].1), ours_shrinks, "{offer}: {sizes:?}");
        }
    }
}

#[test]
fn a_client_with_a_small_window_can_inflate_what_it_gets() {
    // What repeats itself only farther back than a small window reaches.
    let text = prose(9, 3000).repeat(5);
    for compression in BOTH {
        let server = server(compression);
        for bits in 9..=15 {
            let offer = format!("permessage-deflate; server_max_window_bits={bits}");
            let mut peer = Peer::connect(&server, "/echo", &offer, bits);
            assert!(peer.agreed_on(&format!("server_max_window_bits={bits}")));
            for _ in 0..2 {
                peer.send(TEXT, text.as_bytes());
                let came = peer.came();
                assert!(came.compressed && came.text == text, "{bits} bits");
            }
        }
    }
}

#[test]
fn rsv1_without_an_agreement_is_1002() {
    for (compression, offer) in [
        (Compression::Off, "permessage-deflate"),
        (Compression::Shared, "x-none"),
        (Compression::Dedicated, "permessage-deflate; who_knows"),
    ] {
        let server = server(compression);
        let mut peer = Peer::connect(&server, "/echo", offer, 15);
        peer.send(TEXT, b"hello");
        assert_eq!(peer.raw.close_code(), 1002, "{offer}");
        peer.raw.expect_end();
    }
}

#[test]
fn what_breaks_the_rules_of_compression_is_closed_with_its_code() {
    for compression in BOTH {
        let server = server(compression);
        let mut hello = Peer::echo(&server);
        let hello = hello.deflate(b"hello");
        for (what, bytes, code) in [
            ("RSV1 on a continuation", [frame(0x41, &hello), frame(0xc0, b"")].concat(), 1002),
            ("RSV1 on a ping", frame(PING | RSV1, b""), 1002),
            ("RSV1 on a Close", frame(CLOSE | RSV1, &[3, 232]), 1002),
            ("RSV2", frame(0xa1, b"x"), 1002),
            ("RSV1 and RSV3", frame(0xd1, &hello), 1002),
            ("a message in a message", [frame(0x41, &hello), frame(0xc1, &hello)].concat(), 1002),
            ("a continuation of nothing", frame(0x80, &hello), 1002),
            ("what cannot be inflated", frame(0xc1, &[0xff; 30]), 1007),
        ] {
            let mut peer = Peer::echo(&server);
            peer.raw.send(&bytes);
            assert_eq!(peer.raw.close_code(), code, "{what}");
            peer.raw.expect_end();
        }
        // What is no UTF-8 only when it is inflated.
        let mut peer = Peer::echo(&server);
        peer.send(TEXT, b"\xc3\x28");
        assert_eq!(peer.raw.close_code(), 1007);
    }
}

#[test]
fn the_limit_is_on_what_is_inflated() {
    for compression in BOTH {
        let server = TestServer::start(Config { compression, max_message_bytes: 1000, ..config() });
        let mut peer = Peer::echo(&server);
        let text = "a".repeat(1000);
        peer.send(TEXT, text.as_bytes());
        assert_eq!(peer.came().text, text);
        peer.send(TEXT, "a".repeat(1001).as_bytes());
        assert_eq!(peer.raw.close_code(), 1009);
        peer.raw.expect_end();
    }
}

#[test]
fn pings_and_closes_may_come_between_the_frames_of_a_compressed_message() {
    for compression in BOTH {
        let server = server(compression);
        let mut peer = Peer::echo(&server);
        let text = prose(3, 3000);
        let bytes = peer.deflate(text.as_bytes());
        let (front, back) = bytes.split_at(bytes.len() / 2);
        peer.raw.send(&frame(0x41, front));
        peer.raw.send(&frame(PING, b"still there?"));
        assert_eq!(peer.raw.frame(), Some((PONG, b"still there?".to_vec())));
        peer.raw.send(&frame(0x80, back));
        assert_eq!(peer.came().text, text);
        peer.raw.send(&[frame(0x41, front), close_frame(1000)].concat());
        assert_eq!(peer.raw.close_code(), 1000);
        peer.raw.expect_end();
        server.wait_until_empty();
    }
}

#[test]
fn more_messages_than_may_wait_all_come_back() {
    const MESSAGES: usize = 1000;
    let text = prose(4, 300);
    for compression in BOTH {
        let server = TestServer::start(Config { compression, buffer: 16, ..config() });
        let offer = "permessage-deflate; client_no_context_takeover";
        let mut peer = Peer::connect(&server, "/echo", offer, 15);
        let message = frame(TEXT | RSV1, &peer.deflate(text.as_bytes()));
        peer.raw.send(&message.repeat(MESSAGES));
        for number in 0..MESSAGES {
            let came = peer.came();
            assert!(came.compressed && came.text == text, "message {number}");
        }
        assert_eq!(server.stats().dropped, 0);
    }
}

/// Resident memory of this process, server and all, in bytes.
#[cfg(target_os = "linux")]
fn resident_bytes() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() << 10
}

#[test]
#[cfg(target_os = "linux")]
fn bombs_are_closed_with_1009_and_cost_no_memory() {
    const BOMBS: usize = 50;
    // 50 MiB in 50 KiB: a full flush begins anew, so its output may be repeated.
    let mut compress = Compress::new(Level::new(9), false);
    let (zeros, mut part) = (vec![0; 1 << 20], Vec::with_capacity(2000));
    compress.compress_vec(&zeros, &mut part, FlushCompress::Full).unwrap();
    let bomb = frame(BINARY | RSV1, &part.repeat(50));
    assert!(bomb.len() < 64 << 10, "it is not too long by itself");
    for compression in BOTH {
        let server = server(compression);
        let mut first = Peer::echo(&server);
        first.raw.send(&bomb);
        assert_eq!(first.raw.close_code(), 1009);
        let before = resident_bytes();
        let mut peers: Vec<Peer> = (0..BOMBS).map(|_| Peer::echo(&server)).collect();
        for peer in &mut peers {
            peer.raw.send(&bomb);
            assert_eq!(peer.raw.close_code(), 1009);
        }
        // A message's limit and a window for each would be 5 MiB, their content 2.4 GiB. Other
        // tests run in this process at the same time.
        let grown = resident_bytes().saturating_sub(before);
        assert!(grown < 256 << 20, "{} MiB", grown >> 20);
        assert_eq!(server.closed_with(1009), BOMBS as u64 + 1);
    }
}
