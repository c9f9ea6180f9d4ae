//! What a client that keeps the protocol does of its own accord.

use super::{
    client::{Client, Scene},
    command::Asked,
    plan::{PATTERNS, ROOMS},
    tokens::Token,
};
use crate::random::Random;

/// Commands that may wait for their answers at once.
const ASKED_MAX: usize = 6;

impl Client {
    /// Does what comes to the client's mind, on a connection that works. `peers` are the ids of
    /// clients, some of which may be gone.
    pub fn act(&mut self, random: &mut Random, peers: &[String], scene: &mut Scene<'_>) {
        if self.asked.len() >= ASKED_MAX {
            return;
        }
        if let Some(token) = self.new_token.take() {
            return self.ask(Asked::Auth { token: Box::new(token), is_first: false }, scene);
        }
        if let Some(asked) = self.retries.pop() {
            return self.ask(asked, scene);
        }
        // One in four that are told so let their token end.
        let must_renew = std::mem::take(&mut self.must_renew) && !random.one_in(4);
        if self.token.is_some() && (must_renew || random.one_in(40)) {
            self.renew(random, scene);
        }
        let Some(session) = self.current() else { return };
        let joined: Vec<String> = session.rooms.keys().cloned().collect();
        let some_room = |random: &mut Random| match joined.is_empty() || random.one_in(12) {
            true => (*random.one_of(&ROOMS)).to_owned(),
            false => random.one_of(&joined).clone(),
        };
        let asked = match random.below(40) {
            0..=4 => {
                let room = (*random.one_of(&ROOMS)).to_owned();
                let since = self.remembered.get(&room).filter(|_| random.one_in(2)).cloned();
                Asked::Join { room, since, watch: random.one_in(3) }
            }
            // What a pattern brought is not known where the connection was lost in between.
            5 | 6 | 9 if session.is_unsure => Asked::Ping { padding: 0 },
            5 | 6 => Asked::JoinPattern { pattern: (*random.one_of(&PATTERNS)).to_owned() },
            7..=8 => Asked::Leave { room: some_room(random) },
            9 => Asked::LeavePattern { pattern: (*random.one_of(&PATTERNS)).to_owned() },
            10..=23 => self.publish(random, &some_room),
            24..=26 => {
                let room = some_room(random);
                let at = session.rooms.get(&room).map_or(0, |view| view.last);
                let near = at.saturating_sub(random.below(12) as u64);
                let (before, after) = match random.below(3) {
                    0 => (None, None),
                    1 => (Some(near), None),
                    _ => (None, Some(near)),
                };
                Asked::History { room, before, after, limit: 1 + random.below(12) as u64 }
            }
            27..=29 => {
                let watch = *random.one_of(&[None, Some(true), Some(true), Some(false)]);
                Asked::Presence { room: some_room(random), watch }
            }
            30..=34 if !peers.is_empty() => {
                Asked::Direct { to: random.one_of(peers).clone(), content: self.content(0) }
            }
            35 => Asked::Broadcast { content: self.content(0) },
            36 => match &self.repeatable {
                Some((asked, ..)) => asked.clone(),
                None => Asked::Ping { padding: 0 },
            },
            // As long as the client was told that it may be.
            37 => Asked::Ping { padding: session.message_bytes_max.saturating_sub(100) },
            _ => Asked::Ping { padding: 0 },
        };
        self.ask(asked, scene);
    }

    /// Gets another token, to be sent with the next command.
    pub(super) fn renew(&mut self, random: &mut Random, scene: &Scene<'_>) {
        let Some(user) = self.user.clone() else { return };
        self.next_number += 1;
        let id = format!("{user}-{}-{}", self.index, self.next_number);
        self.new_token = Some(Token::issue(&user, id, scene.now_ms, scene.revoked, random));
    }

    fn publish(&mut self, random: &mut Random, room: &dyn Fn(&mut Random) -> String) -> Asked {
        let mut rooms = vec![room(random)];
        if random.one_in(3) {
            rooms.extend((0..=random.below(3)).map(|_| room(random)));
            rooms.sort();
            rooms.dedup();
            // Not the order of their names or keys.
            let at = random.below(rooms.len());
            rooms.rotate_left(at);
        }
        let padding = if random.one_in(6) { 300 } else { random.below(40) };
        let id = random.one_in(2).then(|| uuid(random));
        let (echo, content) = (random.one_in(4), self.content(padding));
        // So that whoever hears it knows whether its author is to hear it too.
        let content = if echo { format!("{content}-echo") } else { content };
        Asked::Publish { rooms, echo, id, content }
    }

    /// A text that nobody else says: who says it, and its number, which only grows.
    fn content(&mut self, padding: usize) -> String {
        self.next_number += 1;
        format!("c{}-{}-{}", self.index, self.next_number, "x".repeat(padding))
    }
}

fn uuid(random: &mut Random) -> String {
    let bytes = u128::from(random.number()) << 64 | u128::from(random.number());
    uuid::Builder::from_random_bytes(bytes.to_be_bytes()).into_uuid().to_string()
}

/// The number in a content, and its client.
pub(super) fn author_of(content: &str) -> Option<(usize, u64)> {
    let mut parts = content.strip_prefix('c')?.split('-');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}
