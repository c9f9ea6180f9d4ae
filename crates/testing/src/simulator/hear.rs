//! What a client does with what it is told, and the promises that it can check by itself: order,
//! holes, repeats, answers.

use std::collections::BTreeSet;

use rusty_socks_protocol::{Head, Message, Notice, answer};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    client::{Broken, Client, Replay, Scene, Seen, Session, Verdict, View},
    socket::Heard,
};

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
            101 if self.is_resuming => self.send_resume(scene),
            101 => {}
            503 | 408 => {
                self.lose("refused", scene);
                self.wait_until_ms = scene.now_ms + RETRY_MS;
            }
            _ => {
                let seen = format!("status {status}");
                return Err(self.broken("a proper upgrade is answered 101, 408 or 503", seen));
            }
        }
        Ok(())
    }

    fn hear_close(&mut self, code: u16, scene: &mut Scene<'_>) -> Verdict {
        scene.transcript.add(Some(self.index), format!("hears close {code}"));
        let is_due = match code {
            1000 => self.is_leaving,
            4102 => self.was_slow || self.was_delayed,
            4201 | 4202 => self.was_delayed || self.was_slow,
            // A client has one connection, but what it said on an earlier one may arrive late.
            4010 => self.has_stray_resume,
            _ => false,
        };
        if !is_due {
            return Err(self.broken(
                "a client that keeps the protocol and reads is not closed",
                format!("close {code}"),
            ));
        }
        if code == 1000 || code == 4010 {
            self.forget_session(scene);
        }
        self.lose("closed", scene);
        self.wait_until_ms = scene.now_ms + RETRY_MS;
        Ok(())
    }

    fn hear_end(&mut self, scene: &mut Scene<'_>) -> Verdict {
        if !self.is_leaving && !self.was_slow && !self.was_delayed {
            return Err(self.broken(
                "a connection of a client that keeps the protocol ends with a Close",
                "it just ended",
            ));
        }
        self.lose("ended", scene);
        self.wait_until_ms = scene.now_ms + RETRY_MS;
        Ok(())
    }

    fn hear_text(&mut self, text: &str, scene: &mut Scene<'_>) -> Verdict {
        let head: Head<'_> = parse(self, text)?;
        if head.kind != "welcome" && self.current().is_none() {
            return Err(self.broken("welcome is the first frame", text));
        }
        match &*head.kind {
            "welcome" => self.hear_welcome(text, scene),
            "message" => self.hear_message(&parse(self, text)?, scene),
            "direct" => self.hear_direct(&parse(self, text)?, scene),
            "broadcast" => self.hear_broadcast(&parse(self, text)?, scene),
            "ok" | "pong" | "error" => self.hear_answer(&head, text, scene),
            _ => self.hear_notice(&parse(self, text)?, scene),
        }
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
        if !scene.plan.config.broadcast || is_own {
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
        let Some(session) = self.current_mut() else { return Ok(()) };
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
                let max = scene.plan.config.max_rooms_per_conn;
                if session.rooms.len() < max || !session.patterns.contains(&**pattern) {
                    return wrong(
                        "a room is unmatched only where there is no place for it",
                        format!("{notice:?} with {} rooms", session.rooms.len()),
                    );
                }
            }
            _ => return wrong("the server drains only when it is told to", format!("{notice:?}")),
        }
        Ok(())
    }
}
