//! Random inputs for tests, reproducible by their seed: numbers, corrupted bytes, and frame streams
//! and chat commands that are mostly legal, so that they pass the first checks.

use std::time::{SystemTime, UNIX_EPOCH};

use flate2::{Compress, Compression, FlushCompress};
use tungstenite::protocol::Role;

use rusty_socks_ws::encode::encode_frame;

use crate::frames::header_of;

/// A sequence of numbers (SplitMix64), for tests alone.
pub struct Random(u64);

impl Random {
    /// Makes the sequence of `seed`.
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// Returns the seed of this run: `TEST_SEED`, or a new one each time. Prints it, so that a
    /// failure can be reproduced.
    pub fn seed() -> u64 {
        let given = std::env::var("TEST_SEED").ok().and_then(|seed| seed.parse().ok());
        let now =
            || SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |now| now.as_nanos() as u64);
        let seed = given.unwrap_or_else(now);
        println!("TEST_SEED={seed}");
        seed
    }

    /// Returns the next number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Returns a number below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        (self.number() % end as u64) as usize
    }

    /// Returns `true` once in `times` on average.
    pub fn one_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    /// Returns one of the choices.
    pub fn one_of<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.below(choices.len())]
    }

    /// Returns `len` random bytes.
    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.number() as u8).collect()
    }

    /// Returns valid UTF-8 of about `len` bytes, with characters of every length.
    fn text(&mut self, len: usize) -> Vec<u8> {
        let mut text = String::new();
        while text.len() < len {
            let parts: [&str; 8] = ["a", "b ", "é", "κόσμε", "\u{ffff}", "😀", "\0", "{}"];
            text.push_str(parts[self.below(parts.len())]);
        }
        text.into_bytes()
    }

    /// Corrupts one input in three: changes, inserts or removes a byte, or cuts off the end.
    pub fn spoil(&mut self, bytes: &mut Vec<u8>) {
        while !bytes.is_empty() && self.one_in(3) {
            let at = self.below(bytes.len());
            match self.below(5) {
                0 => bytes[at] ^= 1 << self.below(8),
                1 => bytes[at] = self.number() as u8,
                2 => bytes.insert(at, self.number() as u8),
                3 => drop(bytes.remove(at)),
                _ => bytes.truncate(at),
            }
        }
    }
}

/// A generator of frame streams.
pub struct Streams {
    /// The reader's role: a server reads masked frames, a client unmasked ones.
    pub role: Role,
    /// Whether some messages are compressed.
    pub compresses: bool,
    /// The receiver's limit: some messages are around it, some beyond.
    pub message_bytes: usize,
}

impl Streams {
    /// Returns a peer's stream: mostly legal messages and control frames, with some illegal ones.
    pub fn stream(&self, random: &mut Random) -> Vec<u8> {
        let mut stream = Vec::new();
        let mut compress = Compress::new(Compression::fast(), false);
        let keeps_context = random.one_in(2);
        for _ in 0..=random.below(8) {
            match random.below(16) {
                0..=7 => {
                    let (opcode, payload) = self.message(random);
                    if self.compresses && random.one_in(2) {
                        if !keeps_context {
                            compress.reset();
                        }
                        let payload = deflated(&mut compress, &payload);
                        self.fragments(random, 0x40 | opcode, &payload, &mut stream);
                    } else {
                        self.fragments(random, opcode, &payload, &mut stream);
                    }
                }
                8..=11 => self.control(random, &mut stream),
                12 => self.close(random, &mut stream),
                _ => self.wrong(random, &mut stream),
            }
        }
        if random.one_in(6) {
            random.spoil(&mut stream);
        }
        if random.one_in(4) {
            stream.truncate(random.below(stream.len() + 1));
        }
        stream
    }

    /// Returns an opcode and a payload that usually fit each other.
    fn message(&self, random: &mut Random) -> (u8, Vec<u8>) {
        let len = match random.below(8) {
            0 => 0,
            1 => *random.one_of(&[124, 125, 126, 127, 512, 513]),
            2 => self.message_bytes - 1 + random.below(3),
            3 => random.below(self.message_bytes),
            _ => random.below(40),
        };
        match random.below(8) {
            0..=2 => (0x2, random.bytes(len)),
            // Most of it is valid, so that it goes wrong at any place of a frame.
            3 => {
                let mut text = random.text(len);
                let at = random.below(text.len() + 1);
                let wrong: [&[u8]; 6] =
                    [b"\xff", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xce", b"\x80"];
                text.splice(at..at, random.one_of(&wrong).iter().copied());
                (0x1, text)
            }
            _ => (0x1, random.text(len)),
        }
    }

    /// Appends something that RFC 6455 forbids, or that looks like it.
    fn wrong(&self, random: &mut Random, stream: &mut Vec<u8>) {
        let len = *random.one_of(&[0, 1, 5, 125, 126, 300]);
        let payload = match random.one_in(2) {
            true => random.text(len),
            false => random.bytes(len),
        };
        let end = if random.one_in(2) { 0x80 } else { 0 };
        let (opcode, any) = (random.below(3) as u8, random.below(16) as u8);
        match random.below(8) {
            0 => self.frame(random, end | any, &payload, stream),
            1 => self.frame(random, end | opcode | 0x10 << (any % 3), &payload, stream),
            // A continuation of nothing, or a message inside another.
            2 => self.frame(random, end, &payload, stream),
            3 => {
                self.frame(random, 0x01 + any % 2, &payload, stream);
                self.frame(random, end | opcode, &payload, stream);
            }
            // Unmasked, or masked.
            4 => {
                let mask = (self.role == Role::Client).then_some([1, 2, 3, 4]);
                encode_frame(stream, &header_of(end | opcode, mask), &payload);
            }
            // A length beyond the limit, or beyond everything; nothing of the payload may ever
            // come.
            5 => {
                let len =
                    *random.one_of(&[self.message_bytes as u64 + 1, 1 << 31, 1 << 63, u64::MAX]);
                stream.extend([end | opcode, if self.role == Role::Server { 0xff } else { 0x7f }]);
                stream.extend(len.to_be_bytes());
                stream.extend(random.bytes(4));
            }
            // A length in a longer form than it needs.
            6 => {
                let (masked, mask) = match self.role {
                    Role::Server => (0x80, &[9; 4][..]),
                    Role::Client => (0, &[][..]),
                };
                stream.extend([end | 0x02, masked | 0x7f, 0, 0, 0, 0, 0, 0, 0, 3]);
                stream.extend(mask);
                stream.extend(random.bytes(3));
            }
            _ => stream.extend(random.bytes(len)),
        }
    }

    /// Appends one frame, masked as its reader demands.
    fn frame(&self, random: &mut Random, first: u8, payload: &[u8], stream: &mut Vec<u8>) {
        let mask: [u8; 4] = match random.one_in(8) {
            true => [0; 4],
            false => (random.number() as u32).to_le_bytes(),
        };
        let mask = (self.role == Role::Server).then_some(mask);
        encode_frame(stream, &header_of(first, mask), payload);
    }

    /// Appends one message in one frame or several, with control frames between them.
    fn fragments(&self, random: &mut Random, first: u8, payload: &[u8], stream: &mut Vec<u8>) {
        let parts = if random.one_in(2) { 1 } else { 1 + random.below(4) };
        let (mut rest, mut first) = (payload, first);
        for _ in 1..parts {
            let (part, after) = rest.split_at(random.below(rest.len() + 1));
            self.frame(random, first, part, stream);
            (rest, first) = (after, 0);
            if random.one_in(3) {
                self.control(random, stream);
            }
        }
        self.frame(random, 0x80 | first, rest, stream);
    }

    fn control(&self, random: &mut Random, stream: &mut Vec<u8>) {
        let len = *random.one_of(&[0, 1, 4, 30, 124, 125, 125, 126]);
        // Too long is wrong, so it is rare.
        let len = if len == 126 && !random.one_in(8) { 3 } else { len };
        let (first, payload) = (*random.one_of(&[0x89, 0x89, 0x8a]), random.bytes(len));
        self.frame(random, first, &payload, stream);
    }

    /// Appends a Close with any code and any reason.
    fn close(&self, random: &mut Random, stream: &mut Vec<u8>) {
        let code = match random.below(3) {
            0 => 1000,
            1 => 999 + random.below(20) as u16,
            _ => *random.one_of(&[0, 999, 1100, 2000, 2999, 3000, 3999, 4000, 4999, 5000, 65535]),
        };
        let mut payload = code.to_be_bytes().to_vec();
        payload.extend(match random.below(4) {
            0 => random.bytes(5),
            1 => random.text(110),
            _ => Vec::new(),
        });
        // None, or half a code.
        payload.truncate(*random.one_of(&[0, 1, 125, 125, 125, 125]));
        self.frame(random, 0x88, &payload, stream);
    }
}

/// Returns a compressed message without its tail (RFC 7692, 7.2.1).
fn deflated(compress: &mut Compress, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(payload.len() * 2 + 100);
    compress.compress_vec(payload, &mut bytes, FlushCompress::Sync).expect("memory takes all");
    bytes.truncate(bytes.len().saturating_sub(4));
    bytes
}

/// The name of a field of a chat command, and its possible values. The first half is mostly legal.
type Field = (&'static str, &'static [&'static str]);

const REF: Field = ("ref", &["\"r\"", "-7", "1.5e3", "\"\\ud83d\\ude00\"", "[]", "true"]);
const ROOM: Field = (
    "room",
    &[
        "\"lobby\"",
        "\"lobby\"",
        "\"a.b\"",
        "\"a.b.c\"",
        "\"a.*\"",
        "\"a.b.*\"",
        "\"a\"",
        "\"\\u00e4 b\"",
        "\"\\u006cobby\"",
        "\"*\"",
        "\"a.*.b\"",
        "\"a*\"",
        "\"\"",
        "7",
    ],
);
const ROOMS: Field = (
    "rooms",
    &[
        "[\"lobby\"]",
        "[\"a.b\",\"lobby\"]",
        "[\"lobby\",\"a.b\",\"a.b.c\"]",
        "[\"lobby\",\"lobby\"]",
        "[\"a.*\"]",
        "[]",
        "\"lobby\"",
    ],
);
const PLACES: Field = (
    "rooms",
    &[
        "[]",
        "[{\"room\":\"lobby\",\"epoch\":\"ff\",\"seq\":1}]",
        "[{\"room\":\"lobby\",\"epoch\":\"ff\",\"seq\":0},{\"room\":\"a.b\",\"epoch\":\"\",\"seq\":18446744073709551615}]",
        "[{\"room\":\"a.b\",\"epoch\":\"ff\",\"seq\":1},{\"room\":\"a.b\",\"epoch\":\"ff\",\"seq\":1}]",
        "[{\"room\":\"a.*\",\"epoch\":\"ff\",\"seq\":1}]",
        "[[\"lobby\",\"ff\",1]]",
        "[{\"room\":\"lobby\",\"seq\":-1}]",
        "[null]",
    ],
);
const SESSION: Field = (
    "session",
    &[
        "\"f7f4150d613b4719abfd12fd788db22d76e7a52c986840cdaec7effa6b0d3c67b1ab849d924f452c80a60b5ed5929c0a\"",
        "\"000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000\"",
        "\"f7f4150d\"",
        "\"+7f4150d613b4719abfd12fd788db22d76e7a52c986840cdaec7effa6b0d3c67b1ab849d924f452c80a60b5ed5929c0a\"",
        "\"\\u00e4\"",
        "7",
    ],
);
const TO: Field = (
    "to",
    &[
        "\"67e55044-10b1-426f-9247-bb680e5fe0c8\"",
        "\"00000000-0000-0000-0000-000000000000\"",
        "\"67e55044\"",
        "\"\\u0036\"",
        "[]",
    ],
);
const CONTENT: Field = (
    "content",
    &["{\"a\": [1,  2.50, \"\\ud83d\\ude00\", null]}", "null", "[[[]]]", "\"\\ud800\"", "{"],
);
const ID: Field = (
    "id",
    &["\"67e55044-10b1-426f-9247-bb680e5fe0c8\"", "\"00000000-0000-0000-0000-000000000000\"", "1"],
);
const SENDER: Field = ("sender", &["\"\\\"x\\\\\"", "\"anna\"", "null", "\"\\ud800\"", "7"]);
const TIMESTAMP: Field = ("timestamp", &["\"2025-03-15T12:00:00Z\"", "\"noon\""]);
const ECHO: Field = ("echo", &["true", "false", "null", "1"]);
const SINCE: Field = (
    "since",
    &["{\"epoch\":\"ff\",\"seq\":1}", "{\"epoch\":\"\",\"seq\":0}", "null", "[\"ff\",1]", "1"],
);
const BEFORE: Field = ("before", &["3", "18446744073709551615", "-1"]);
const AFTER: Field = ("after", &["0", "3", "\"3\""]);
const LIMIT: Field = ("limit", &["2", "18446744073709551615", "1e2"]);
const PRESENCE: Field = ("presence", &["true", "false", "null", "\"yes\""]);
const WATCH: Field = ("watch", &["true", "false", "null", "1"]);
const DIRECT: Field = ("direct", &["0", "3", "-1", "null"]);
const OTHER: Field = ("other", &["[{}]"]);

const FIELDS: &[Field] = &[
    REF, ROOM, ROOMS, PLACES, SESSION, TO, CONTENT, ID, SENDER, TIMESTAMP, ECHO, SINCE, BEFORE,
    AFTER, LIMIT, PRESENCE, WATCH, DIRECT, OTHER,
];

/// Each command with the fields that belong to it.
const COMMANDS: &[(&str, &[Field])] = &[
    ("", &[CONTENT, SENDER, ID, TIMESTAMP, ECHO]),
    ("\"publish\"", &[ROOM, CONTENT, SENDER, ID, TIMESTAMP, ECHO]),
    ("\"publish\"", &[ROOMS, CONTENT, SENDER, ID, TIMESTAMP, ECHO]),
    ("\"direct\"", &[TO, CONTENT, SENDER, ID]),
    ("\"broadcast\"", &[CONTENT, SENDER, ID]),
    ("\"join\"", &[ROOM, SENDER]),
    ("\"join\"", &[ROOM, SINCE, PRESENCE, SENDER]),
    ("\"leave\"", &[ROOM]),
    ("\"history\"", &[ROOM, BEFORE, AFTER, LIMIT]),
    ("\"presence\"", &[ROOM, WATCH]),
    ("\"resume\"", &[SESSION, PLACES, DIRECT]),
    ("\"pub\\u006cish\"", &[ROOM, CONTENT]),
    ("\"ping\"", &[]),
    ("\"dance\"", &[]),
];

/// Returns one chat command. Most have the right fields; some have random ones, or are corrupted.
pub fn command(random: &mut Random) -> Vec<u8> {
    let (kind, own) = *random.one_of(COMMANDS);
    let mut fields: Vec<Field> = match random.one_in(6) {
        true => (0..random.below(6)).map(|_| *random.one_of(FIELDS)).collect(),
        false => own.iter().filter(|_| !random.one_in(5)).copied().collect(),
    };
    if !random.one_in(3) {
        fields.push(REF);
    }
    if random.one_in(6) {
        fields.push(*random.one_of(FIELDS));
    }
    let mut parts: Vec<String> = Vec::new();
    if !kind.is_empty() {
        parts.push(format!("\"type\":{kind}"));
    }
    for (at, (name, values)) in fields.iter().enumerate() {
        // A repeated field is refused at once, so most commands have none.
        if fields[..at].iter().any(|(known, _)| known == name) && !random.one_in(9) {
            continue;
        }
        let legal = if random.one_in(4) { values } else { &values[..values.len().div_ceil(2)] };
        parts.push(format!("\"{name}\":{}", random.one_of(legal)));
    }
    let mut line = format!("{{{}}}", parts.join(",")).into_bytes();
    random.spoil(&mut line);
    line
}
