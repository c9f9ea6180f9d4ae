//! What a client of a cluster does with what comes, and the promises that it can check.

use std::collections::BTreeSet;

use rusty_socks_protocol::{Head, Message, Notice, answer};
use serde::Deserialize;

use super::{
    member::{Member, Scene, Session, View},
    truth::Said,
};
use crate::simulator::{Broken, Verdict, socket::Heard};

/// The delay before a client comes back, in milliseconds.
const RETRY_MS: u64 = 200;

pub(super) const UNTOLD: &str = "no message of a room is missing untold";
pub(super) const AS_NUMBERED: &str = "a member hears what has this number";

/// Reads a frame.
pub(super) fn parse<'a, T: Deserialize<'a>>(member: &Member, text: &'a str) -> Result<T, Broken> {
    serde_json::from_str(text).map_err(|error| {
        member.broken("every frame is one of the protocol", format!("{error}: {text}"))
    })
}

impl Member {
    /// Takes in what came.
    pub fn hear(&mut self, heard: Heard, scene: &mut Scene<'_>) -> Verdict {
        match heard {
            Heard::Status(101) => {
                if let Some(session) = self.session.as_ref().filter(|_| self.is_resuming) {
                    let rooms = session.rooms.iter();
                    let positions =
                        rooms.map(|(room, view)| (room.clone(), (view.epoch.clone(), view.last)));
                    let asked = crate::simulator::command::Asked::Resume {
                        token: session.token.clone(),
                        positions: positions.collect(),
                        direct: session.direct_last,
                    };
                    self.ask(asked, scene);
                }
                Ok(())
            }
            Heard::Status(503) => {
                self.lose("refused", scene);
                self.wait_until_ms = scene.now_ms + RETRY_MS;
                Ok(())
            }
            Heard::Status(status) => {
                Err(self.broken("a proper upgrade is answered 101 or 503", status.to_string()))
            }
            Heard::Text(text) => self.hear_text(&text, scene),
            Heard::Close(code) => self.hear_close(code, scene),
            Heard::Broken(what) => Err(self.broken("the server keeps RFC 6455", what)),
            Heard::End if self.is_leaving || scene.is_draining => {
                self.lose("ended", scene);
                Ok(())
            }
            Heard::End => Err(self.broken("a connection ends with a Close", "it just ended")),
        }
    }

    fn hear_close(&mut self, code: u16, scene: &mut Scene<'_>) -> Verdict {
        scene.transcript.add(Some(self.index), format!("hears close {code}"));
        let is_due = match code {
            1000 => self.is_leaving,
            1012 => scene.is_draining || self.is_leaving,
            // A node that was cut off learns late who is where.
            4010 => scene.is_troubled(),
            // What it said on an earlier connection may arrive late, on a node that has nobody of
            // the session, after this one began.
            1013 => self.has_stray_resume || scene.is_troubled(),
            _ => false,
        };
        if !is_due {
            let promise = "a client that keeps the protocol and reads is not closed";
            return Err(self.broken(promise, format!("close {code}")));
        }
        if code == 1000 {
            self.forget_session();
        }
        self.lose("closed", scene);
        self.wait_until_ms = scene.now_ms + RETRY_MS;
        Ok(())
    }

    fn hear_text(&mut self, text: &str, scene: &mut Scene<'_>) -> Verdict {
        let head: Head<'_> = parse(self, text)?;
        match &*head.kind {
            "welcome" => self.hear_welcome(text, scene),
            "message" => self.hear_message(&parse(self, text)?, scene),
            "direct" => self.hear_direct(&parse(self, text)?, scene),
            "ok" | "pong" | "error" => self.hear_answer(&head, text, scene),
            "closing" => Ok(()),
            _ => self.hear_notice(&parse(self, text)?, scene),
        }
    }

    fn hear_welcome(&mut self, text: &str, scene: &mut Scene<'_>) -> Verdict {
        let welcome: answer::Welcome<'_> = parse(self, text)?;
        let line = format!("hears welcome to {:?} at {:?}", welcome.room, welcome.seq);
        scene.transcript.add(Some(self.index), line);
        let mut session = Session {
            client_id: welcome.client_id.into_owned(),
            token: welcome.session.into_owned(),
            rooms: Default::default(),
            direct_last: 0,
            direct_may_skip: false,
            is_unsure: false,
            lost_ms: None,
            since_ms: scene.now_ms,
        };
        if let (Some(room), Some(epoch), Some(seq)) = (welcome.room, welcome.epoch, welcome.seq) {
            let view = View { replays_to: seq, ..View::new(&epoch, seq) };
            session.rooms.insert(room.into_owned(), view);
        }
        match self.is_resuming {
            true => self.fresh = Some(session),
            false => self.session = Some(session),
        }
        Ok(())
    }

    fn hear_message(&mut self, message: &Message<'_>, scene: &mut Scene<'_>) -> Verdict {
        let mut targets: Vec<(&str, u64)> =
            message.rooms.iter().map(|to| (&*to.room, to.seq)).collect();
        if let (true, Some(room), Some(seq)) = (targets.is_empty(), &message.room, message.seq) {
            targets.push((room, seq));
        }
        let said = Said::find(message.content.get().as_bytes());
        let line = format!("hears message {targets:?} {}", message.content);
        scene.transcript.add(Some(self.index), line);
        let (index, truth, is_to_many) = (self.index, scene.truth, targets.len() > 1);
        let wrong = |promise, seen: String| Err(Broken { promise, client: Some(index), seen });
        let Some(session) = self.current_mut() else { return Ok(()) };
        let mut is_meant = false;
        // A room that is repaired brings again what came by another room before.
        let is_again = scene.plan.to_many
            && is_to_many
            && targets.iter().any(|(room, seq)| {
                session.rooms.get(*room).is_some_and(|view| view.told.contains(seq))
            });
        for (room, seq) in targets {
            let Some(view) = session.rooms.get_mut(room) else { continue };
            if seq <= view.joined_at && seq > view.replays_to && is_to_many {
                continue;
            }
            is_meant = true;
            let is_it = truth.at(room, &view.epoch, seq) == said.as_ref();
            if !is_it {
                let known = truth.at(room, &view.epoch, seq);
                return wrong(AS_NUMBERED, format!("{said:?} as {seq} of {room}, not {known:?}"));
            }
            if seq <= view.replays_to && view.last == view.replays_to {
                continue;
            }
            if seq <= view.last && scene.plan.to_many && (view.told.remove(&seq) || is_again) {
                continue;
            }
            if seq <= view.last {
                return wrong(
                    "a room's messages come in order and none comes twice",
                    format!("message {seq} of {room} behind {}", view.last),
                );
            }
            if let Some(hole) = view.hole(room, seq, index, truth) {
                return wrong(
                    UNTOLD,
                    format!("message {seq} of {room} behind {}, without {hole}", view.last),
                );
            }
            view.last = seq;
        }
        match is_meant {
            true => Ok(()),
            false => {
                let seen = format!("a message to {:?} {:?}", message.room, message.rooms);
                wrong("messages come only from rooms that one is in", seen)
            }
        }
    }

    fn hear_direct(&mut self, message: &Message<'_>, scene: &mut Scene<'_>) -> Verdict {
        let seq = message.seq.unwrap_or(0);
        scene.transcript.add(Some(self.index), format!("hears direct {seq} {}", message.content));
        let said = Said::find(message.content.get().as_bytes());
        let Some(session) = self.current_mut() else { return Ok(()) };
        let last = session.direct_last;
        let may_skip = std::mem::take(&mut session.direct_may_skip);
        session.direct_last = seq;
        // Redis gives numbers anew that it has lost, and forgets ids.
        if scene.lost_ms.is_some() {
            return Ok(());
        }
        if seq <= last || (seq > last + 1 && !may_skip) {
            let seen = format!("direct {seq} behind {last}");
            let promise = "direct messages come in order, once, and none is missing untold";
            return Err(self.broken(promise, seen));
        }
        let nth = said.map_or(0, |said| said.nth);
        let last = self.heard_of.insert(message.client_id.to_string(), nth).unwrap_or(0);
        if nth <= last {
            let seen = format!("{nth} behind {last} of one sender");
            return Err(self.broken("direct messages of one sender come in order and once", seen));
        }
        Ok(())
    }

    fn hear_notice(&mut self, notice: &Notice<'_>, scene: &mut Scene<'_>) -> Verdict {
        let index = self.index;
        let wrong = |promise, seen: String| Err(Broken { promise, client: Some(index), seen });
        let Some(session) = self.current_mut() else { return Ok(()) };
        match notice {
            Notice::Gap { room, from: Some(from), to: Some(to), .. } => {
                let line = format!("hears gap {room} {from} to {to}");
                scene.transcript.add(Some(index), line);
                let Some(view) = session.rooms.get_mut(&**room) else {
                    return wrong("gaps are told of rooms that one is in", format!("{notice:?}"));
                };
                let hole = view.hole(room, *from, index, scene.truth);
                let is_again = scene.plan.to_many && view.told.contains(from);
                if (*from <= view.last && !is_again) || to < from || hole.is_some() {
                    let seen = format!("{from} to {to} of {room} behind {}", view.last);
                    return wrong("a gap names what is missing, and nothing else", seen);
                }
                view.told.extend(*from..=*to);
                view.last = view.last.max(*to);
                Ok(())
            }
            Notice::Epoch { room, epoch, seq } => {
                scene.transcript.add(Some(index), format!("hears epoch {room} at {seq}"));
                let Some(view) = session.rooms.get_mut(&**room) else {
                    return wrong("epochs are told of rooms that one is in", format!("{notice:?}"));
                };
                let common = scene.truth.common(room, &view.epoch, epoch);
                let seen = format!(
                    "{room} goes on at {seq}, its member was at {}, and {common} are the same",
                    view.last
                );
                if !scene.truth.knows(room, epoch) {
                    return wrong("an epoch is one of the room", seen);
                }
                if view.last.min(*seq) > common {
                    return wrong("up to where an epoch begins numbers mean what they meant", seen);
                }
                if *seq < view.last.min(common) {
                    return wrong("an epoch takes nothing away that is not lost", seen);
                }
                (view.epoch, view.last) = (epoch.to_string(), *seq);
                view.joined_at = view.joined_at.min(*seq);
                view.replays_to = view.replays_to.min(*seq);
                Ok(())
            }
            _ => wrong("every notice is one that was asked for", format!("{notice:?}")),
        }
    }
}

impl View {
    /// A room that was joined at `seq`.
    pub fn new(epoch: &str, seq: u64) -> View {
        View {
            epoch: epoch.to_owned(),
            last: seq,
            joined_at: seq,
            replays_to: 0,
            told: BTreeSet::new(),
        }
    }

    /// The first number between the last and `before` that the client has not said itself.
    pub fn hole(&self, room: &str, before: u64, by: usize, truth: &super::Truth) -> Option<u64> {
        let is_own = |seq: &u64| {
            truth.at(room, &self.epoch, *seq).is_some_and(|said| said.by == by && !said.echo)
        };
        (self.last + 1..before).find(|seq| !is_own(seq))
    }
}
