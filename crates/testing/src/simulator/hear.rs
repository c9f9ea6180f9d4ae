//! What a client does with what it is told, and the promises that it can check by itself: order,
//! holes, repeats, answers.

use std::collections::BTreeSet;

use rusty_socks_protocol::{Head, Message, Notice, answer};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    client::{Broken, Client, Replay, Scene, Seen, Session, Verdict, View},
    command::Asked,
    socket::Heard,
    tokens::{Act, Token},
};

pub(super) const ALLOWED: &str =
    "nobody sends or receives in a room where its token and the rules do not allow it";

/// The delay before a client comes back, in milliseconds of simulated time.
const RETRY_MS: u64 = 300;

/// Reads a frame, or says that nothing can.
pub(super) fn parse<'a, T: Deserialize<'a>>(client: &Client, text: &'a str) -> Result<T, Broken> {
    serde_json::from_str(text).map_err(|error| {
        client
            .broken("every frame of the server is one of the protocol", format!("{error}: {text}"))
    })
}

/// A content, which clients write as a JSON string without escapes.
pub(super) fn plain(content: &RawValue) -> &str {
    content.get().trim_matches('"')
}

impl Client {
    /// Takes in what came on its connection.
    pub fn hear(&mut self, heard: Heard, scene: &mut Scene<'_>) -> Verdict {
        match heard {
            Heard::Status(status) => self.hear_status(status, scene),
            Heard::Text(text) => {
                self.messages_heard += 1;
                self.hear_text(&text, scene)
            }
            Heard::Close(code) => self.hear_close(code, scene),
            Heard::Broken(what) => Err(self.broken("the server keeps RFC 6455", what)),
            Heard::End => self.hear_end(scene),
        }
    }

    fn hear_status(&mut self, status: u16, scene: &mut Scene<'_>) -> Verdict {
        scene.transcript.add(Some(self.index), format!("hears status {status}"));
        match status {
            101 => {
                (self.is_upgraded, self.upgraded_ms) = (true, scene.now_ms);
                if self.is_late {
                    let promise = "a server that drains lets nobody in";
                    return Err(self.broken(promise, "an upgrade that came later"));
                }
                let is_allowed = scene.plan.configs().any(|config| self.is_allowed_by(config));
                if !is_allowed && !self.was_allowed {
                    let promise = "a page connects only from an origin that is allowed";
                    return Err(self.broken(promise, "another one"));
                }
                self.introduce(scene);
            }
            503 | 408 => {
                self.lose("refused", scene);
                self.wait_until_ms = scene.now_ms + RETRY_MS;
            }
            401 if self.has_bad_token(scene) => {
                self.lose("unauthorized", scene);
                self.wait_until_ms = scene.now_ms + RETRY_MS;
            }
            403 if !scene.plan.configs().all(|config| self.is_allowed_by(config)) => {
                self.lose("of another origin", scene);
                self.wait_until_ms = scene.now_ms + 3 * RETRY_MS;
            }
            _ => {
                let seen = format!("status {status}");
                return Err(self.broken(
                    "a proper upgrade is answered 101, 408 or 503, and 401 or 403 only with reason",
                    seen,
                ));
            }
        }
        Ok(())
    }

    fn hear_close(&mut self, code: u16, scene: &mut Scene<'_>) -> Verdict {
        scene.transcript.add(Some(self.index), format!("hears close {code}"));
        let is_due = match code {
            1000 => self.is_leaving,
            1001 | 1012 => {
                let told = self.is_told || self.is_leaving;
                told && scene.drain == Some(code)
            }
            4001 => {
                let is_late = self.was_delayed || scene.drain.is_some();
                self.has_bad_token(scene) || (self.is_introducing() && is_late)
            }
            4103 => self.user.is_some() && scene.plan.config.max_conn_per_user < 1000,
            4203 => self.token.as_ref().is_some_and(|token| {
                scene.now_ms >= token.expires_ms + scene.plan.token_grace_ms()
            }),
            4102 => self.was_slow || self.was_delayed || scene.plan.was_tight,
            4201 | 4202 => self.was_delayed || self.was_slow || scene.drain.is_some(),
            // A client has one connection. What it said on an earlier one may arrive late, and
            // takes nothing from a later one.
            _ => false,
        };
        if !is_due {
            return Err(self.broken(
                "a client that keeps the protocol and reads is not closed",
                format!("close {code}"),
            ));
        }
        if matches!(code, 1000 | 4001 | 4010) {
            self.forget_session(scene);
        }
        self.lose("closed", scene);
        self.wait_until_ms = scene.now_ms + RETRY_MS;
        Ok(())
    }

    fn hear_end(&mut self, scene: &mut Scene<'_>) -> Verdict {
        // The last of a drain is cut off, and so is a request that does not come.
        let is_cut_off = scene.is_gone || (scene.drain.is_some() && !self.is_upgraded);
        if !self.is_leaving && !self.was_slow && !self.was_delayed && !is_cut_off {
            return Err(self.broken(
                "a connection of a client that keeps the protocol ends with a Close",
                "it just ended",
            ));
        }
        self.lose("ended", scene);
        self.wait_until_ms = scene.now_ms + RETRY_MS;
        Ok(())
    }

    /// Whether the token that it came with, or that it is about to come with, may be refused.
    fn has_bad_token(&self, scene: &Scene<'_>) -> bool {
        let is_bad = |token: &Token| token.is_revoked || scene.now_ms >= token.expires_ms;
        let asked = self.asked.iter().any(|(_, asked)| match asked {
            Asked::Auth { token, .. } => is_bad(token),
            _ => false,
        });
        asked || self.was_revoked || self.token.as_ref().is_some_and(is_bad)
    }

    fn hear_text(&mut self, text: &str, scene: &mut Scene<'_>) -> Verdict {
        let head: Head<'_> = parse(self, text)?;
        let may_come_first = match &*head.kind {
            "welcome" | "closing" => true,
            "error" => self.user.is_some(),
            _ => false,
        };
        if !may_come_first && self.current().is_none() {
            return Err(self.broken("welcome is the first frame", text));
        }
        match &*head.kind {
            "welcome" => self.hear_welcome(text, scene),
            "message" => self.hear_message(&parse(self, text)?, scene),
            "direct" => self.hear_direct(&parse(self, text)?, scene),
            "broadcast" => self.hear_broadcast(&parse(self, text)?, scene),
            "ok" | "pong" | "error" => self.hear_answer(&head, text, scene),
            "closing" => self.hear_closing(scene),
            _ => self.hear_notice(&parse(self, text)?, scene),
        }
    }

    fn hear_closing(&mut self, scene: &mut Scene<'_>) -> Verdict {
        scene.transcript.add(Some(self.index), "hears closing".to_owned());
        if scene.drain.is_none() || std::mem::replace(&mut self.is_told, true) {
            let promise = "the server says that it closes once, and when it is told to drain";
            return Err(self.broken(promise, "another closing"));
        }
        Ok(())
    }

    fn hear_welcome(&mut self, text: &str, scene: &mut Scene<'_>) -> Verdict {
        let welcome: answer::Welcome<'_> = parse(self, text)?;
        if self.current().is_some() {
            return Err(self.broken("welcome comes once", text));
        }
        let at = (welcome.room, welcome.epoch, welcome.seq);
        scene.transcript.add(
            Some(self.index),
            format!("hears welcome to {:?} at {:?}, {} bytes", at.0, at.2, text.len()),
        );
        if let Some((_, Asked::Auth { token, is_first: true })) = self.asked.front() {
            self.token = Some((**token).clone());
        }
        if welcome.user.as_deref() != self.token.as_ref().and(self.user.as_deref()) {
            return Err(self.broken("a client is the user of its token", text));
        }
        let mut session = Session {
            client_id: welcome.client_id.into_owned(),
            token: welcome.session.into_owned(),
            rooms: Default::default(),
            patterns: BTreeSet::new(),
            declined: BTreeSet::new(),
            was_full: false,
            direct_last: 0,
            direct_may_skip: false,
            direct_owed: 0,
            is_unsure: false,
            was_resumed: false,
            lost_ms: None,
            is_gone: false,
            ends_from_ms: None,
            message_bytes_max: welcome.max_message_bytes,
        };
        if let (Some(room), Some(epoch), Some(seq)) = at {
            let mut view = View::new(&epoch, seq, scene.plan.overflow_of(&room));
            view.replay = Some(Replay { to: seq, next: None, count: 0 });
            session.rooms.insert(room.into_owned(), view);
        }
        match self.is_resuming {
            true => self.fresh = Some(session),
            false => self.session = Some(session),
        }
        Ok(())
    }

    fn hear_message(&mut self, message: &Message<'_>, scene: &mut Scene<'_>) -> Verdict {
        let content = plain(message.content);
        let mut targets: Vec<(&str, u64)> =
            message.rooms.iter().map(|to| (&*to.room, to.seq)).collect();
        if let (true, Some(room), Some(seq)) = (targets.is_empty(), &message.room, message.seq) {
            targets.push((room, seq));
        }
        scene.transcript.add(Some(self.index), format!("hears message {targets:?} {content:.12}"));
        let replayed_max = scene.plan.config.replay;
        let index = self.index;
        let wrong = |promise, seen: String| Err(Broken { promise, client: Some(index), seen });
        let is_in =
            |room: &str| self.current().is_some_and(|session| session.rooms.contains_key(room));
        let forbidden = targets.iter().find(|(room, _)| {
            is_in(room) && !scene.plan.may_somehow(self.token.as_ref(), room, Act::Join)
        });
        if let Some((room, seq)) = forbidden {
            return wrong(ALLOWED, format!("message {seq} of {room}"));
        }
        let Some(session) = self.current_mut() else { return Ok(()) };
        let is_own = message.client_id == session.client_id.as_str();
        let is_to_many = targets.len() > 1;
        let mut is_meant = false;
        for (room, seq) in targets {
            let Some(view) = session.rooms.get_mut(room) else { continue };
            // It may have been numbered before this client came, and be new to it elsewhere.
            if seq <= view.joined_at && view.replay.is_none() && is_to_many {
                continue;
            }
            is_meant = true;
            scene.seen.push(Seen::Message {
                room: room.to_owned(),
                epoch: view.epoch.clone(),
                seq,
                id: message.id.to_string(),
                content: content.to_owned(),
            });
            if let Some(replay) = &mut view.replay
                && seq <= replay.to
            {
                let is_next = replay.next.is_none_or(|next| next == seq);
                if !is_next || view.last > replay.to || replay.count >= replayed_max {
                    return wrong(
                        "the replay behind welcome has no hole, no repeat and no more than it may",
                        format!("message {seq} of {room}, the replay was at {replay:?}"),
                    );
                }
                replay.next = Some(seq + 1);
                replay.count += 1;
                continue;
            }
            if is_own && !content.ends_with("-echo") {
                return wrong(
                    "one's own message comes only if that was asked for",
                    format!("message {seq} of {room}: {content}"),
                );
            }
            if seq <= view.last {
                return wrong(
                    "a room's messages come in order and none comes twice",
                    format!("message {seq} of {room} behind {}", view.last),
                );
            }
            if let Some(hole) = view.hole(seq) {
                return wrong(
                    "no message of a room is missing untold",
                    format!("message {seq} of {room} behind {}, without {hole}", view.last),
                );
            }
            view.advance(seq);
        }
        if !is_meant {
            return wrong(
                "messages come only from rooms that one is in",
                format!("a message to {:?} {:?}", message.room, message.rooms),
            );
        }
        Ok(())
    }

    fn hear_direct(&mut self, message: &Message<'_>, scene: &mut Scene<'_>) -> Verdict {
        let (seq, content) = (message.seq.unwrap_or(0), plain(message.content));
        scene.transcript.add(Some(self.index), format!("hears direct {seq} {content}"));
        let index = self.index;
        let Some(session) = self.current_mut() else { return Ok(()) };
        let last = session.direct_last;
        let may_skip = std::mem::take(&mut session.direct_may_skip);
        if seq <= last || (seq > last + 1 && !may_skip) {
            return Err(Broken {
                promise: "direct messages come in order, once, and none is missing untold",
                client: Some(index),
                seen: format!("direct {seq} behind {last}"),
            });
        }
        session.direct_last = seq;
        scene.seen.push(Seen::Direct {
            to: session.client_id.clone(),
            from: message.client_id.to_string(),
            seq,
            content: content.to_owned(),
        });
        Ok(())
    }

    fn hear_broadcast(&mut self, message: &Message<'_>, scene: &mut Scene<'_>) -> Verdict {
        let content = plain(message.content);
        scene.transcript.add(Some(self.index), format!("hears broadcast {content}"));
        let Some(session) = self.current() else { return Ok(()) };
        // What was said on an earlier connection may be heard on the next.
        let is_own = message.client_id == session.client_id.as_str() && !session.was_resumed;
        if !scene.plan.configs().any(|config| config.broadcast) || is_own {
            return Err(self.broken("a broadcast goes to all others, where it may", content));
        }
        scene.seen.push(Seen::Broadcast {
            to: session.client_id.clone(),
            from: message.client_id.to_string(),
            content: content.to_owned(),
        });
        Ok(())
    }

    fn hear_notice(&mut self, notice: &Notice<'_>, scene: &mut Scene<'_>) -> Verdict {
        let index = self.index;
        let wrong = |promise, seen: String| Err(Broken { promise, client: Some(index), seen });
        if let Notice::TokenExpires { expires_s, close_s } = notice {
            return self.hear_token_expires(*expires_s, *close_s, scene);
        }
        let token = self.token.clone();
        let Some(session) = self.current_mut() else { return Ok(()) };
        if let Notice::Left { room, client_id, .. } = notice
            && **client_id == *session.client_id
        {
            scene.transcript.add(Some(index), format!("hears that it is taken out of {room}"));
            let Some(view) = session.rooms.remove(&**room) else {
                return wrong("a client is taken out of rooms that it is in", room.to_string());
            };
            if scene.plan.may_surely(token.as_ref(), room, Act::Join) {
                return wrong("a client stays where it may be", format!("taken out of {room}"));
            }
            session.declined.insert(room.to_string());
            self.remembered.insert(room.to_string(), (view.epoch.clone(), view.position()));
            return Ok(());
        }
        let mut say = |line| scene.transcript.add(Some(index), line);
        match notice {
            Notice::Joined { room, client_id, .. } | Notice::Left { room, client_id, .. } => {
                let is_join = matches!(notice, Notice::Joined { .. });
                say(format!("hears {} {room}", if is_join { "joined" } else { "left" }));
                let view = session.rooms.get_mut(&**room).filter(|view| view.watching);
                let Some(view) = view else {
                    return wrong(
                        "presence is told to those who watch it",
                        format!("a notice about {room}, which is not watched"),
                    );
                };
                let Some(roster) = &mut view.roster else { return Ok(()) };
                let changed = match is_join {
                    true => roster.insert(client_id.to_string()),
                    false => roster.remove(&**client_id),
                };
                if !changed {
                    return wrong(
                        "presence notices agree with what was told before",
                        format!("{notice:?}, of one that was known so"),
                    );
                }
            }
            Notice::Presence { room, joined, left } => {
                say(format!("hears changes {room}, {} and {}", joined.len(), left.len()));
                let view = session.rooms.get_mut(&**room).filter(|view| view.watching);
                let Some(view) = view else {
                    return wrong(
                        "presence is told to those who watch it",
                        format!("changes of {room}, which is not watched"),
                    );
                };
                let Some(roster) = &mut view.roster else { return Ok(()) };
                // The client itself may be among those who joined, and knows that already.
                let own = session.client_id.as_str();
                let news = |id: &str, roster: &mut BTreeSet<String>| {
                    roster.insert(id.to_owned()) || id == own
                };
                let are_new = joined.iter().all(|member| news(&member.client_id, roster));
                let were_there = left.iter().all(|member| roster.remove(&*member.client_id));
                if !are_new || !were_there {
                    return wrong(
                        "presence notices agree with what was told before",
                        format!("{notice:?}, of one that was known so"),
                    );
                }
            }
            Notice::Gap { room, from: Some(from), to: Some(to), .. } => {
                say(format!("hears gap {room} {from} to {to}"));
                let Some(view) = session.rooms.get_mut(&**room) else {
                    return wrong("gaps are told of rooms that one is in", format!("{notice:?}"));
                };
                if view.overflow == rusty_socks_protocol::Overflow::Close {
                    return wrong("a room that closes slow clients has no gaps", room.to_string());
                }
                if *from <= view.last || to < from || view.hole(*from).is_some() {
                    return wrong(
                        "a gap names what is missing, and nothing else",
                        format!("{from} to {to} of {room} behind {}", view.last),
                    );
                }
                view.advance(*to);
            }
            Notice::Gap { room, .. } => {
                say(format!("hears presence gap {room}"));
                if let Some(view) = session.rooms.get_mut(&**room) {
                    view.roster = None;
                }
            }
            Notice::Matched { pattern, room, epoch, seq, overflow } => {
                say(format!("hears matched {room} at {seq}"));
                if !scene.plan.may_somehow(token.as_ref(), room, Act::Join) {
                    return wrong(ALLOWED, format!("matched {room}"));
                }
                let mut view = View::new(epoch, *seq, *overflow);
                view.by_pattern = true;
                let is_new = session.rooms.insert(room.to_string(), view).is_none();
                if !is_new || !session.patterns.contains(&**pattern) {
                    return wrong(
                        "matched comes once, for a pattern that one has joined",
                        format!("{notice:?}"),
                    );
                }
            }
            Notice::Unmatched { pattern, room } => {
                say(format!("hears unmatched {room}"));
                session.was_full = true;
                let max = scene.plan.configs().map(|config| config.max_rooms_per_conn).min();
                let max = max.unwrap_or_default();
                if session.rooms.len() < max || !session.patterns.contains(&**pattern) {
                    return wrong(
                        "a room is unmatched only where there is no place for it",
                        format!("{notice:?} with {} rooms", session.rooms.len()),
                    );
                }
            }
            _ => return wrong("every notice is one of the protocol", format!("{notice:?}")),
        }
        Ok(())
    }

    fn hear_token_expires(
        &mut self,
        expires_s: u64,
        close_s: u64,
        scene: &mut Scene<'_>,
    ) -> Verdict {
        let index = self.index;
        scene.transcript.add(Some(index), format!("hears that its token ends in {expires_s} s"));
        let Some(token) = &self.token else {
            return Err(self.broken("only a token ends", "it has none"));
        };
        let grace_s = scene.plan.token_grace_ms() / 1000;
        let ends_s = token.expires_ms.saturating_sub(scene.now_ms) / 1000;
        // What is heard late was said earlier; a token that has ended says nothing of its end.
        let is_early = expires_s + 1 < ends_s || expires_s > 60;
        if is_early || (close_s < grace_s && scene.now_ms < token.expires_ms) {
            let seen = format!("{expires_s} s and {close_s} s, {ends_s} s before the end");
            return Err(self.broken("a client is told when its token ends", seen));
        }
        self.must_renew = true;
        Ok(())
    }
}
