//! What must hold for any bytes at all: one entry point for each parser that a stranger can reach.
//!
//! Each takes bytes and panics when a promise is broken. `fuzz/` drives them with coverage, the tests at
//! the foot of this file with seeded random cases on a stable compiler. Never part of a server.

mod chat;
mod streams;

use std::{collections::BTreeMap, fs};

use crate::{
    config::Config,
    http::{
        head::{BadHead, HeaderSpace, Request},
        response::{Response, Status, date_now, error_body},
        router::{Target, route},
    },
    ws::{
        extension::{Malformed, Takeover, negotiate},
        handshake::Upgrade,
    },
};

pub use {chat::chat, streams::frames};

// --- Request heads.

/// A request head, whole and cut: the same answer, and one that a client can read.
///
/// The first three bytes choose where it is cut; the rest is the head.
pub fn head(data: &[u8]) {
    let Some((cuts, bytes)) = data.split_first_chunk::<3>() else { return };
    let whole = parsed(bytes);
    let line_ends = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at);
    let chosen = cuts.iter().map(|cut| usize::from(*cut) * (bytes.len() + 1) / 256);
    for cut in line_ends.take(8).flat_map(|at| [at, at + 1]).chain(chosen) {
        let part = parsed(&bytes[..cut.min(bytes.len())]);
        // What is decided stays decided, and nothing is decided before the last byte has come.
        match (&part, &whole) {
            (Ok(None), _) => {}
            (Ok(Some(part)), Ok(Some(whole))) => assert_eq!(part, whole),
            (Err(part), Err(whole)) => assert_eq!(part, whole),
            _ => panic!("{part:?} at {cut} bytes, and then {whole:?}"),
        }
        if let Ok(Some(seen)) = &whole {
            assert_eq!(part.is_ok_and(|part| part.is_some()), cut >= seen.used);
        }
    }
    let Ok(Some(seen)) = whole else { return };
    assert!(seen.used <= bytes.len());
    let text = String::from_utf8_lossy(&bytes[..seen.used]);
    let has_body =
        text.lines().skip(1).filter_map(|line| line.split_once(':')).any(|(name, value)| {
            let name = name.trim();
            name.eq_ignore_ascii_case("Transfer-Encoding")
                || name.eq_ignore_ascii_case("Content-Length") && value.trim() != "0"
        });
    assert!(!has_body, "a body would be read as the next request");
}

/// Everything the server would make of a head.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    used: usize,
    line: [String; 3],
    target: Target,
    keeps_alive: bool,
    upgrades: Vec<Result<Vec<u8>, Status>>,
}

fn parsed(bytes: &[u8]) -> Result<Option<Seen>, BadHead> {
    let mut space = HeaderSpace::default();
    let Some((request, used)) = Request::parse(bytes, &mut space)? else { return Ok(None) };
    let target = route(&request, ["/ws", "/echo"], ["/"]);
    match &target {
        Target::Health => assert_eq!(request.path(), "/health"),
        Target::Stats => assert_eq!(request.path(), "/stats"),
        Target::Socket(at) => assert_eq!(request.path(), ["/ws", "/echo"][*at]),
        Target::Page(_) => assert_eq!(request.path(), "/"),
        Target::MethodNotAllowed => assert!(!["GET", "HEAD"].contains(&request.method())),
        Target::NotFound => assert!(!["/", "/ws", "/echo", "/health"].contains(&request.path())),
    }
    let takeovers = [None, Some(Takeover::Never), Some(Takeover::Allowed)];
    Ok(Some(Seen {
        used,
        line: [request.method(), request.path(), request.query()].map(str::to_owned),
        target,
        keeps_alive: request.keeps_alive(),
        upgrades: takeovers.map(|takeover| answer(&request, takeover)).into(),
    }))
}

/// The answer to an upgrade, once it is known to be well-formed.
fn answer(request: &Request<'_>, takeover: Option<Takeover>) -> Result<Vec<u8>, Status> {
    let mut out = Vec::new();
    let refused = match Upgrade::check(request.upgrade(), takeover) {
        Ok(upgrade) => {
            assert_eq!(request.method(), "GET");
            assert!(request.is_http_1_1() && request.values("Sec-WebSocket-Key").count() == 1);
            assert!(takeover.is_some() || upgrade.compression.is_none());
            upgrade.respond(&mut out, Some(7));
            None
        }
        Err(refusal) => {
            let body = error_body("refused", refusal.reason, None);
            let (status, headers, body) =
                (Status::of_fault(refusal.fault), &[refusal.advice], body.as_str());
            let head_only = request.method() == "HEAD";
            Response { status, body, headers, closes: true, head_only }
                .write(&mut out, &date_now());
            Some(status)
        }
    };
    let mut headers = [httparse::EMPTY_HEADER; 16];
    let mut response = httparse::Response::new(&mut headers);
    let read = response.parse(&out).expect("an answer is HTTP");
    let code = refused.map_or(101, Status::code);
    assert!(read.is_complete() && response.code == Some(code));
    // The date is of the moment, and a refusal is the same one without it.
    refused.map_or(Ok(out), Err)
}

// --- The negotiation of extensions.

/// `Sec-WebSocket-Extensions` headers, one a line: what is agreed was offered, and is what the answer says.
pub fn extensions(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let headers = || text.split('\n');
    for takeover in [Takeover::Never, Takeover::Allowed] {
        let agreed = negotiate(headers(), takeover);
        if agreed.is_ok() {
            let joined = headers().collect::<Vec<_>>().join(",");
            assert_eq!(negotiate([joined.as_str()], takeover), agreed, "one header or several");
        }
        let Ok(Some(agreement)) = agreed else { continue };
        assert!((9..=15).contains(&agreement.server_window_bits));
        let is_alone = agreement.server_no_context_takeover && agreement.client_no_context_takeover;
        assert!(takeover == Takeover::Allowed || is_alone);
        let answer = agreement.header();
        let (name, parameters) = read_answer(&answer);
        assert_eq!(name, "permessage-deflate");
        assert!(text.contains(name));
        for (name, value) in &parameters {
            let was_offered = || text.contains(*name) && text.contains(value.unwrap_or_default());
            match (*name, *value) {
                ("server_no_context_takeover", None) => {
                    assert!(agreement.server_no_context_takeover);
                    assert!(takeover == Takeover::Never || was_offered());
                }
                ("client_no_context_takeover", None) => {
                    assert!(agreement.client_no_context_takeover);
                    assert!(takeover == Takeover::Never || was_offered());
                }
                ("server_max_window_bits", Some(bits)) => {
                    assert_eq!(bits.parse(), Ok(agreement.server_window_bits));
                    assert!(was_offered(), "{answer}");
                }
                other => panic!("answered with {other:?}"),
            }
        }
        let names = parameters.contains_key("server_max_window_bits");
        assert!(names || agreement.server_window_bits == 15, "a smaller window was asked for");
        // The answer read as an offer asks for what was agreed.
        assert_eq!(negotiate([answer.as_str()], takeover), Ok(Some(agreement)));
    }
    // Whether the header is a list at all has nothing to do with what the server wants.
    let [never, allowed] = [Takeover::Never, Takeover::Allowed]
        .map(|takeover| negotiate(headers(), takeover).map(|agreed| agreed.is_some()));
    assert_eq!(never, allowed);
    let is_empty = text.chars().all(|c| " \t\n,".contains(c));
    assert!(never != Err(Malformed) || !is_empty, "an empty list is a list");
}

/// The name and the parameters of an answer, none of them twice.
fn read_answer(answer: &str) -> (&str, BTreeMap<&str, Option<&str>>) {
    let mut parts = answer.split(';').map(str::trim);
    let (name, mut parameters) = (parts.next().unwrap_or_default(), BTreeMap::new());
    for part in parts {
        let (name, value) = match part.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (part, None),
        };
        assert_eq!(parameters.insert(name, value), None, "{answer}");
    }
    (name, parameters)
}

// --- Settings.

/// A TOML file, then behind a line `%%` variables and flags, one a line as `NAME=value`: whatever is
/// accepted is valid, and whatever is refused is told in lines that a terminal can show.
pub fn config(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (toml, rest) = text.split_once("%%\n").unwrap_or((&text, ""));
    let thread = std::thread::current().id();
    let name = format!("rusty_socks-fuzz-{}-{thread:?}.toml", std::process::id());
    let path = std::env::temp_dir().join(name);
    fs::write(&path, toml).expect("a writable directory for temporary files");
    let pairs = rest.lines().filter_map(|line| line.split_once('='));
    let (flags, variables): (Vec<_>, Vec<_>) = pairs.partition(|(name, _)| name.starts_with("--"));
    let variables: Vec<(String, &str)> = variables
        .into_iter()
        .map(|(name, value)| (format!("RUSTY_SOCKS_{}", name.trim()), value))
        .collect();
    let variables = variables.iter().map(|(name, value)| (name.as_str(), *value));
    let loaded = Config::load_from(Some(&path), variables.clone(), flags.iter().copied());
    let again = Config::load_from(Some(&path), variables, flags.iter().copied());
    fs::remove_file(&path).expect("the file is still there");
    match (loaded, again) {
        (Ok(loaded), Ok(again)) => {
            assert_eq!(loaded.config, again.config);
            loaded.config.validate().expect("what was loaded is valid");
            loaded.config.warnings();
            for (key, _) in loaded.entries() {
                let shown = key.show(&loaded.config);
                assert!(!shown.is_empty() && !shown.contains(char::is_control), "{shown:?}");
            }
        }
        (Err(error), Err(again)) => {
            let told = error.to_string();
            assert_eq!(told, again.to_string());
            assert!(error.is_config() && !told.is_empty());
            assert!(told.lines().all(|line| !line.trim().is_empty()), "{told:?}");
            assert!(!told.contains(|c: char| c.is_control() && c != '\n'), "{told:?}");
        }
        _ => panic!("the same sources were accepted once"),
    }
}

#[cfg(test)]
mod random;

#[cfg(test)]
mod differential;

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::{
        random::{Random, Streams, command},
        streams::{MESSAGE_BYTES_MAX, agreement, role},
        *,
    };

    /// Gives `entry` random inputs, and tells the seed and the input that broke a promise.
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

    /// One of `words` after another, `separators` between them, some bytes spoilt.
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
        try_cases(3000, head, |random| {
            let mut bytes = random.bytes(3);
            let method = random.one_of(&["GET", "HEAD", "POST", "G"]);
            let targets = ["/ws", "/echo?a=b#c", "/health", "/stats", "*", "http://h/ws", "/ ws"];
            let (target, version) = (random.one_of(&targets), random.one_of(&["1.1", "1.0", "2"]));
            bytes.extend(format!("{method} {target} HTTP/{version}\r\n").bytes());
            // Mostly a proper upgrade, so that what comes after the first refusal is reached.
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
}
