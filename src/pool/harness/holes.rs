//! Random lives of slow clients: whatever comes in whatever order, they are told of all they miss.

use std::collections::BTreeSet;

use super::{
    Harness,
    lags::{Teller, config, open},
};
use crate::config::Config;

/// What one room has told, held against what was published there.
#[derive(Default)]
struct Account {
    is_member: bool,
    /// The number that must come next.
    next: u64,
    own: BTreeSet<u64>,
    last: u64,
}

impl Account {
    fn take(&mut self, text: &str, what: &[&str]) {
        let number = |text: &str| text.parse::<u64>().expect("a number");
        match *what {
            ["joined", seq] => {
                assert!(!self.is_member, "{text}");
                (self.is_member, self.next) = (true, number(seq) + 1);
            }
            ["left"] => self.is_member = false,
            ["gap", from, to] => {
                self.pass_own();
                assert!(self.is_member && number(from) == self.next, "{text}: {}", self.next);
                assert!(number(from) <= number(to), "{text}");
                self.next = number(to) + 1;
            }
            [seq] => {
                self.pass_own();
                let is_next = number(seq) == self.next;
                assert!(self.is_member && is_next, "{text}: {}", self.next);
                self.next += 1;
            }
            _ => panic!("{text}"),
        }
    }

    fn pass_own(&mut self) {
        while self.own.contains(&self.next) {
            self.next += 1;
        }
    }
}

/// Whatever comes in whatever order: each room's messages and gaps are one row of numbers without a
/// hole.
#[test]
fn messages_and_gaps_leave_no_hole() {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let seed = since.map_or(1, |since| since.as_nanos() as u64 | 1);
    println!("seed {seed}");
    let mut state = seed;
    let mut random = move |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below as u64) as usize
    };
    let rooms = ["gap.a", "gap.b", "latest.a", "latest.b"];
    for _ in 0..200 {
        let bytes = [256, 400, 1 << 20][random(3)];
        let config = Config { buffer: 1 + random(8), buffer_bytes: bytes, ..config() };
        let mut harness = open(config, Teller);
        let mut accounts: [Account; 4] = Default::default();
        let mark = |harness: &mut Harness, text: String| {
            let Harness { conn, cx, .. } = harness;
            conn.io.outbox.push_own(0, &mut cx.scratch.spare, |out| {
                out.extend_from_slice(&[0x81, text.len() as u8]);
                out.extend_from_slice(text.as_bytes());
            });
            conn.io.list_dirty(&mut cx.work);
        };
        let mut is_in = [false; 4];
        let mut written = Vec::new();
        harness.stall();
        for _ in 0..300 {
            let which = random(4);
            let room = rooms[which];
            match random(10) {
                0 if is_in[which] => {
                    harness.exit(room);
                    mark(&mut harness, format!("{room} left"));
                    is_in[which] = false;
                }
                0 | 1 if !is_in[which] => {
                    let seq = harness.enter(room);
                    accounts[which].last = seq;
                    mark(&mut harness, format!("{room} joined {seq}"));
                    is_in[which] = true;
                }
                2 if is_in[which] => {
                    let own = Some(harness.conn.io.id);
                    let seq = harness.publish(room, own);
                    accounts[which].own.insert(seq);
                    accounts[which].last = seq;
                }
                3..=7 if is_in[which] => {
                    for _ in 0..random(6) {
                        accounts[which].last = harness.publish(room, None);
                    }
                }
                _ => harness.make_room(random(120)),
            }
            written.extend(harness.written());
        }
        harness.make_room(usize::MAX);
        written.extend(harness.written());
        assert!(harness.is_open() && !harness.has_lags());
        harness.wire.lock().from_server = written;
        for (_, payload) in harness.frames() {
            let text = String::from_utf8(payload).expect("text");
            let words: Vec<&str> = text.split(' ').collect();
            let which = rooms.iter().position(|room| *room == words[0]).expect("a room");
            accounts[which].take(&text, &words[1..]);
        }
        for (account, is_in) in accounts.iter_mut().zip(is_in) {
            account.pass_own();
            assert_eq!(account.is_member, is_in);
            assert!(!is_in || account.next == account.last + 1, "all of it was told");
        }
    }
}
