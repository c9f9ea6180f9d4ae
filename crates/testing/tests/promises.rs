//! The fuzzed properties, with seeded random cases.

use std::panic::{AssertUnwindSafe, catch_unwind};

use rusty_socks::Config;
use rusty_socks_testing::{
    fuzz::{
        bodies, chat, config, extensions, frames, head, proxies, records, snapshots,
        streams::{MESSAGE_BYTES_MAX, agreement, role},
        token,
    },
    random::{Random, Streams, command},
};

/// Runs `entry` on random inputs, and reports the seed and the input of a failure.
fn try_cases(cases: u64, entry: fn(&[u8]), make: impl Fn(&mut Random) -> Vec<u8>) {
    let seed = Random::seed();
    for case in 0..cases {
        let input = make(&mut Random::new(seed.wrapping_add(case)));
        if catch_unwind(AssertUnwindSafe(|| entry(&input))).is_err() {
            let seed = seed.wrapping_add(case);
            panic!("TEST_SEED={seed} breaks a promise with b\"{}\"", input.escape_ascii());
        }
    }
}

/// Returns random `words` with `separators` between them, and some bytes corrupted.
fn sentence(random: &mut Random, words: &[&str], separators: &[&str]) -> Vec<u8> {
    let mut text = Vec::new();
    for _ in 0..random.below(12) {
        text.extend_from_slice(random.one_of(words).as_bytes());
        text.extend_from_slice(random.one_of(separators).as_bytes());
    }
    random.spoil(&mut text);
    text
}

#[test]
fn heads() {
    const LINES: &[&str] = &[
        "Host: a",
        "Connection: Upgrade",
        "connection: keep-alive, upgrade",
        "Connection: close",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits",
        "Sec-WebSocket-Protocol: rusty-socks.v1, other",
        "Content-Length: 0",
        "Content-Length: 7",
        "Transfer-Encoding: chunked",
        " folded",
        "X-\u{e4}: \u{e4}",
    ];
    try_cases(400, head, |random| {
        let mut bytes = random.bytes(3);
        let method = random.one_of(&["GET", "HEAD", "POST", "G"]);
        let targets = ["/ws", "/echo?a=b#c", "/health", "/stats", "*", "http://h/ws", "/ ws"];
        let (target, version) = (random.one_of(&targets), random.one_of(&["1.1", "1.0", "2"]));
        bytes.extend(format!("{method} {target} HTTP/{version}\r\n").bytes());
        // Mostly a valid upgrade, so that the later checks are reached.
        let proper = if random.one_in(3) { &LINES[..0] } else { &LINES[..7] };
        for line in proper.iter().filter(|line| !line.ends_with("close")) {
            bytes.extend(format!("{line}\r\n").bytes());
        }
        for _ in 0..random.below(4) {
            let end = if random.one_in(9) { "\n" } else { "\r\n" };
            bytes.extend(format!("{}{end}", random.one_of(LINES)).bytes());
        }
        bytes.extend(b"\r\nGET ");
        random.spoil(&mut bytes);
        bytes
    });
}

#[test]
fn request_bodies() {
    const PARTS: &[&str] = &[
        "5\r\nhello\r\n",
        "1f;a=b\r\n{\"room\":\"lobby\",\"content\":\"x\"}\r\n",
        "0\r\n\r\n",
        "0\r\nA: b\r\n\r\n",
        "400\r\n",
        "FFFFFFFFFFFFFFFF\r\n",
        "\r\n",
        "{\"room\":\"lobby\",\"content\":1}\n",
        "{\"to\":\"x\",\"content\":1}\n",
        "GET /health HTTP/1.1\r\nHost: a\r\n\r\n",
        "\u{e4}",
    ];
    try_cases(300, bodies, |random| {
        let mut bytes = random.bytes(3);
        bytes.extend(sentence(random, PARTS, &[""]));
        bytes
    });
}

#[test]
fn words_of_proxies() {
    const HEADERS: &[&[u8]] = &[
        b"PROXY TCP4 1.2.3.4 5.6.7.8 80 443\r\n",
        b"PROXY TCP6 2001:db8::1 ::1 80 443\r\n",
        b"PROXY TCP6 ::ffff:1.2.3.4 ::1 80 443\r\n",
        b"PROXY UNKNOWN\r\n",
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x01\x02\x03\x04\x05\x06\x07\x08\0\x50\x01\xbb",
        b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0",
    ];
    const HOPS: &[&str] =
        &["1.2.3.4", "[2001:db8::9]:55", "127.0.0.1", "0.0.0.0", "unix:", "::", "5.6.7.8:9"];
    try_cases(600, proxies, |random| {
        let mut bytes = random.bytes(3);
        let mut header = random.one_of(HEADERS).to_vec();
        if random.one_in(3) {
            random.spoil(&mut header);
        }
        bytes.extend(header);
        bytes.push(0xff);
        bytes.extend(sentence(random, HOPS, &[",", ", ", " ,", ""]));
        bytes
    });
}

#[test]
fn tls_records() {
    try_cases(40, records, |random| {
        let count = 4 + random.below(20);
        random.bytes(count)
    });
}

#[test]
fn streams() {
    try_cases(2500, frames, |random| {
        let mut bytes = random.bytes(3);
        let compresses = agreement(bytes[0]).is_some();
        let role = role(bytes[0]);
        let streams = Streams { compresses, role, message_bytes: MESSAGE_BYTES_MAX };
        bytes.extend(streams.stream(random));
        bytes
    });
}

#[test]
fn offers() {
    const WORDS: &[&str] = &[
        "permessage-deflate",
        "permessage-deflate; client_max_window_bits",
        "server_no_context_takeover",
        "client_no_context_takeover",
        "server_max_window_bits",
        "server_max_window_bits=8",
        "server_max_window_bits=\"9\"",
        "client_max_window_bits=15",
        "x; y=\"a,b\"",
        "\"",
        "=1",
    ];
    const SEPARATORS: &[&str] = &[";", "; ", ",", ", ", "\n", ";", ",\t", ""];
    try_cases(5000, extensions, |random| sentence(random, WORDS, SEPARATORS));
}

#[test]
fn commands() {
    try_cases(3000, chat, |random| {
        let lines: Vec<Vec<u8>> = (0..=random.below(5)).map(|_| command(random)).collect();
        lines.join(&b'\n')
    });
}

#[test]
fn tokens() {
    const CLAIMS: &[&str] = &[
        r#""sub":"u""#,
        r#""sub":"*""#,
        r#""sub":"a.b""#,
        r#""sub":7"#,
        r#""sub":"\u0007""#,
        r#""exp":9999999999"#,
        r#""exp":1e300"#,
        r#""exp":-1"#,
        r#""exp":"9""#,
        r#""exp":0"#,
        r#""nbf":0"#,
        r#""nbf":9999999999"#,
        r#""iat":-5.5"#,
        r#""jti":"j""#,
        r#""name":"\u00e9""#,
        r#""name":{}"#,
        r#""rooms":null"#,
        r#""rooms":[{"match":["a.*","user.{sub}"],"allow":["join","fly"]}]"#,
        r#""rooms":[{"match":"*","allow":["direct"]},{"match":"{sub}.*","allow":["history"]}]"#,
        r#""rooms":[{"match":"a*","allow":[]}]"#,
        r#""aud":["x"]"#,
    ];
    const PARTS: &[&str] = &[
        "eyJhbGciOiJIUzI1NiJ9",
        "eyJhbGciOiJub25lIn0",
        "eyJhbGciOiJSUzI1NiIsImtpZCI6ImEifQ",
        "eyJzdWIiOiJ1IiwiZXhwIjo5OTk5OTk5OTk5fQ",
        "",
        "e30",
        "AAAA",
    ];
    try_cases(3000, token, |random| {
        let mut input = sentence(random, PARTS, &[".", ".", ".."]);
        input.retain(|byte| *byte != b'\n');
        let mut claims = vec![CLAIMS[0], CLAIMS[5]];
        claims.truncate(if random.one_in(4) { random.below(3) } else { 2 });
        claims.extend((0..random.below(4)).map(|_| *random.one_of(CLAIMS)));
        let mut claims = format!("{{{}}}", claims.join(",")).into_bytes();
        if random.one_in(5) {
            random.spoil(&mut claims);
        }
        input.push(b'\n');
        input.extend(claims);
        input
    });
}

#[test]
fn files_of_an_earlier_server() {
    for choice in 0..4 {
        try_cases(60, snapshots, move |random| {
            let changes = random.below(4);
            let len = match choice {
                0 => random.below(100),
                // Where it is cut off.
                2 => 2,
                _ => 3 * changes,
            };
            let mut input = vec![choice];
            input.extend(random.bytes(len));
            input
        });
    }
}

#[test]
fn settings() {
    const VALUES: &[&str] = &[
        "0",
        "1",
        "7",
        "300",
        "65536",
        "1.5",
        "-1",
        "true",
        "'64KiB'",
        "'1GiB'",
        "'off'",
        "'shared'",
        "'json'",
        "''",
        "[]",
        "['https://a', 'null']",
        "'a=debug'",
        "'\\u0007'",
        "1e9",
        "[[1]]",
        "99999999999999999999",
        "\"\\u0007\"",
        "\"\\u0087\"",
    ];
    try_cases(800, config, |random| {
        let mut text = String::new();
        let keys = Config::keys();
        for _ in 0..random.below(5) {
            let name = random.one_of(keys).name();
            text.push_str(&format!("{name} = {}\n", random.one_of(VALUES)));
        }
        text.push_str("%%\n");
        for _ in 0..random.below(4) {
            let name = random.one_of(keys).name();
            let value = random.one_of(VALUES).trim_matches('\'');
            match random.one_in(2) {
                true => text.push_str(&format!("--{name}={value}\n")),
                false => text.push_str(&format!("{}={value}\n", name.to_uppercase())),
            }
        }
        let mut bytes = text.into_bytes();
        random.spoil(&mut bytes);
        bytes
    });
}
