//! What a client of a cluster makes of the answers to its commands.

use rusty_socks_protocol::{ErrorCode, Head, Message, answer};
use serde_json::value::RawValue;

use super::{
    hear::{AS_NUMBERED, parse},
    member::{Member, Scene, Session, View},
    truth::Said,
};
use crate::simulator::{Verdict, command::Asked};

const AGREES: &str = "an answer agrees with its command";

impl Member {
    /// Takes in the answer to the oldest command that has none.
    pub fn hear_answer(&mut self, head: &Head<'_>, text: &str, scene: &mut Scene<'_>) -> Verdict {
        let reference = head.reference.and_then(|reference| reference.get().parse::<u64>().ok());
        let Some(reference) = reference else {
            // The default room may be out of reach for a new client.
            let fault: answer::Error<'_> = parse(self, text)?;
            scene.transcript.add(Some(self.index), format!("hears {} of welcome", fault.code));
            return match scene.is_troubled() && fault.code == ErrorCode::Overloaded {
                true => Ok(()),
                false => Err(self.broken("an answer has the ref of its command", text)),
            };
        };
        let asked = self.asked.pop_front().filter(|(expected, _)| *expected == reference);
        let Some((_, asked)) = asked else {
            let seen = format!("an answer to {reference}");
            return Err(self.broken("each command is answered once, in order", seen));
        };
        if head.kind == "error" {
            let fault: answer::Error<'_> = parse(self, text)?;
            scene.transcript.add(Some(self.index), format!("hears {} to {reference}", fault.code));
            return self.hear_refusal(asked, &fault, scene);
        }
        scene.transcript.add(Some(self.index), format!("hears {} to {reference}", head.kind));
        self.hear_ok(asked, text, scene)
    }

    fn hear_refusal(
        &mut self,
        asked: Asked,
        fault: &answer::Error<'_>,
        scene: &mut Scene<'_>,
    ) -> Verdict {
        let is_unsure = self.session.as_ref().is_some_and(|session| session.is_unsure);
        let away_ms = self.session.as_ref().and_then(|session| session.lost_ms);
        let is_due = match (&fault.code, &asked) {
            (ErrorCode::Overloaded, _) => scene.is_troubled(),
            // Its rooms are in different shards.
            (ErrorCode::BadRequest, Asked::Publish { rooms, .. }) => {
                scene.plan.shards > 1 && rooms.len() > 1
            }
            (ErrorCode::NotFound, Asked::Direct { .. }) => true,
            (ErrorCode::LimitExceeded, Asked::Direct { .. }) => true,
            (ErrorCode::AlreadyMember, Asked::Join { room, .. }) => {
                let session = self.session.as_ref();
                is_unsure || session.is_some_and(|of| of.rooms.contains_key(room))
            }
            (ErrorCode::NotMember, _) => is_unsure || self.has_left(&asked),
            (ErrorCode::Unrecoverable, Asked::Resume { .. }) => {
                // Another of its connections may have ended it, or Redis may have lost it.
                let slack_ms = 2000;
                let is_late = away_ms.is_some_and(|lost_ms| {
                    scene.now_ms + slack_ms >= lost_ms + scene.plan.window_ms()
                });
                is_late || self.has_stray_resume || scene.lost_ms.is_some()
                    // Begun while nothing could be written down.
                    || self.session.as_ref().is_some_and(|of| of.since_ms <= scene.troubled_until_ms)
            }
            // Redis does not know it, or another connection of it has come late.
            (ErrorCode::Forbidden, _) => self.has_stray_resume || scene.is_troubled(),
            _ => false,
        };
        if !is_due {
            let seen = format!("{} to {}", fault.code, asked.words());
            return Err(self.broken("what is asked is done, unless there is a reason", seen));
        }
        match (&fault.code, asked) {
            (ErrorCode::Unrecoverable, _) => {
                let fresh = self.fresh.take();
                self.forget_session();
                self.session = fresh;
            }
            (ErrorCode::Overloaded, Asked::Resume { .. }) => {
                if let Some(mut socket) = self.lose("it resumes later", scene) {
                    socket.reset();
                }
                self.wait_until_ms = scene.now_ms + 500;
            }
            (ErrorCode::Overloaded | ErrorCode::Forbidden, asked) => {
                // It may have been stored.
                if asked.changes_rooms()
                    && let Some(session) = &mut self.session
                {
                    session.is_unsure = true;
                }
                self.note_retry(asked, scene.now_ms);
            }
            _ => {}
        }
        Ok(())
    }

    /// Whether the command is about a room that the client has left meanwhile.
    fn has_left(&self, asked: &Asked) -> bool {
        let rooms = self.session.as_ref().map(|session| &session.rooms);
        let is_in = |room: &String| rooms.is_some_and(|rooms| rooms.contains_key(room));
        match asked {
            Asked::Leave { room } | Asked::Presence { room, .. } => !is_in(room),
            Asked::Publish { rooms, .. } => !rooms.iter().all(is_in),
            _ => false,
        }
    }

    fn hear_ok(&mut self, asked: Asked, text: &str, scene: &mut Scene<'_>) -> Verdict {
        match asked {
            Asked::Join { room, since, .. } => {
                let joined: answer::Joined<'_> = parse(self, text)?;
                let at = (&*joined.epoch, joined.seq);
                let told = (joined.recovered, &joined.messages[..]);
                self.check_recovery(&room, since.as_ref(), at, told, scene)?;
                let view = View::new(&joined.epoch, joined.seq);
                let Some(session) = self.current_mut() else { return Ok(()) };
                session.rooms.insert(room, view);
                session.since_ms = scene.now_ms;
                Ok(())
            }
            Asked::Leave { room } => {
                let Some(session) = self.current_mut() else { return Ok(()) };
                let is_unsure = session.is_unsure;
                session.since_ms = scene.now_ms;
                match session.rooms.remove(&room) {
                    Some(view) => {
                        self.remembered.insert(room, (view.epoch.clone(), view.last));
                        Ok(())
                    }
                    None if is_unsure => Ok(()),
                    None => Err(self.broken(AGREES, format!("left {room}, being elsewhere"))),
                }
            }
            Asked::Publish { rooms, content, .. } => {
                let numbers: Vec<(String, u64)> = match rooms.len() {
                    1 => {
                        let one: answer::Published<'_> = parse(self, text)?;
                        vec![(one.room.into_owned(), one.seq)]
                    }
                    _ => {
                        let many: answer::PublishedToRooms<'_> = parse(self, text)?;
                        let numbers = many.rooms.iter();
                        numbers.map(|to| (to.room.to_string(), to.seq)).collect()
                    }
                };
                let said = Said::find(content.as_bytes()).expect("its own words");
                let is_wrong =
                    |(room, seq): &&(String, u64)| !scene.truth.was_ever(room, *seq, &said);
                match numbers.iter().find(is_wrong) {
                    Some((room, seq)) => Err(self.broken(
                        "a publish is answered with its numbers",
                        format!("{content} is not {seq} of {room}"),
                    )),
                    None => Ok(()),
                }
            }
            Asked::Presence { room, .. } => {
                let told: answer::Members<'_> = parse(self, text)?;
                let ids = told.members.iter().map(|member| member.client_id.to_string());
                self.census.insert(room, ids.collect());
                Ok(())
            }
            Asked::Resume { positions, .. } => {
                let resumed: answer::Resumed<'_> = parse(self, text)?;
                let Some(before) = self.session.take() else { return Ok(()) };
                if resumed.client_id != before.client_id || resumed.session != before.token {
                    return Err(self.broken("a resumed client is who it was", "another id"));
                }
                let mut session = Session {
                    rooms: Default::default(),
                    direct_may_skip: !resumed.direct.recovered,
                    lost_ms: None,
                    since_ms: scene.now_ms,
                    ..before.clone()
                };
                let mut left_out = Vec::new();
                for answer in &resumed.rooms {
                    let room = answer.room.as_ref();
                    let (Some(epoch), Some(seq)) = (&answer.epoch, answer.seq) else {
                        // Redis gave no answer just then: a client would join again.
                        if answer.error == Some(ErrorCode::Overloaded) && scene.is_troubled() {
                            left_out.push(room);
                            continue;
                        }
                        let seen = format!("{room}: {:?}", answer.error);
                        return Err(self.broken("a resumed client is where it was", seen));
                    };
                    let messages = answer.messages.as_deref().unwrap_or_default();
                    let told = (answer.recovered == Some(true), messages);
                    self.check_recovery(room, positions.get(room), (epoch, seq), told, scene)?;
                    let was_written = before.since_ms > scene.troubled_until_ms;
                    if !before.rooms.contains_key(room) && !before.is_unsure && was_written {
                        let seen = format!("in {room}");
                        return Err(self.broken("a resumed client is where it was", seen));
                    }
                    session.rooms.insert(room.to_owned(), View::new(epoch, seq));
                }
                let is_out = |room: &&String| {
                    !session.rooms.contains_key(*room) && !left_out.contains(&room.as_str())
                };
                let missing = before.rooms.keys().find(is_out);
                // What was written down last may be lost.
                if let Some(room) = missing.filter(|_| !before.is_unsure)
                    && scene.lost_ms.is_none()
                    && before.since_ms > scene.troubled_until_ms
                {
                    let seen = format!("not in {room}");
                    return Err(self.broken("a resumed client is where it was", seen));
                }
                session.is_unsure = false;
                (self.session, self.is_resuming, self.fresh) = (Some(session), false, None);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Holds what an answer says was missed against the position that was given.
    fn check_recovery(
        &self,
        room: &str,
        since: Option<&(String, u64)>,
        (epoch, head): (&str, u64),
        (recovered, messages): (bool, &[&RawValue]),
        scene: &Scene<'_>,
    ) -> Verdict {
        let mut seqs = Vec::new();
        for text in messages {
            let message: Message<'_> = parse(self, text.get())?;
            let to = message.rooms.iter().find(|to| to.room == room).map(|to| to.seq);
            let Some(seq) = to.or(message.seq) else {
                return Err(self.broken("an answer has messages of its room", text.get()));
            };
            let said = Said::find(message.content.get().as_bytes());
            if scene.truth.at(room, epoch, seq) != said.as_ref() {
                let known = scene.truth.at(room, epoch, seq);
                let seen = format!("{said:?} as {seq} of {room}, not {known:?}");
                return Err(self.broken(AS_NUMBERED, seen));
            }
            seqs.push(seq);
        }
        let Some((before, seq)) = since.filter(|_| recovered) else { return Ok(()) };
        let common = scene.truth.common(room, before, epoch);
        let is_exact = seqs.iter().copied().eq(seq + 1..=head);
        if !is_exact || *seq > common {
            let seen = format!(
                "{seqs:?} of {room} at {head}, since {seq}, and {common} are the same in both epochs"
            );
            let promise = "what was missed is recovered exactly, or not at all";
            return Err(self.broken(promise, seen));
        }
        Ok(())
    }
}
