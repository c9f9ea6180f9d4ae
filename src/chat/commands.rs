//! What each command does.

use super::{
    Chat, ChatState, Ctx, answer_ok,
    answers::{
        self, MESSAGE_HEAD, push_joined, push_position, push_presence, push_room, push_string,
    },
    fail,
    frames::{self, Command, Content, Destination, Fault, Reference, Resume},
};
use crate::{
    Position, Presence, Publication, Range, Replay, Reply, RoomError, RoomName, RoomPattern,
    SessionToken, Watch,
};

impl Chat {
    pub(super) fn carry_out(&self, ctx: &mut Ctx<'_>, command: Command<'_>, reference: Reference) {
        match command {
            Command::Publish { to, content, echo } => {
                self.take_name(ctx, &content);
                match to {
                    Destination::Rooms(rooms) => {
                        self.publish_to_rooms(ctx, &rooms, &content, echo, reference);
                    }
                    Destination::Room(room) => {
                        self.publish(ctx, &room, &content, echo, reference);
                    }
                    Destination::DefaultRoom => match &self.default_room {
                        Some(room) => self.publish(ctx, room.as_str(), &content, echo, reference),
                        None => {
                            let fault = Fault::bad_request("there is no default room: name one");
                            self.fail(ctx, &fault, &reference);
                        }
                    },
                }
            }
            Command::Direct { to, content } => {
                self.take_name(ctx, &content);
                let tail = answers::message_tail(ctx.client_id(), &content);
                let publication = Publication::around_seq(DIRECT_HEAD, &tail);
                let (publication, id) = (known_by_id(publication, &content), content.id);
                self.confirm(ctx.direct(&to, publication), reference, move |out, published| {
                    out.push_str(&format!(",\"to\":\"{to}\",\"id\":\"{id}\""));
                    push_repeated(out, published.repeated);
                });
            }
            Command::Broadcast(content) => self.broadcast(ctx, &content, reference),
            Command::Join { room, since, watch, name } => {
                set_name(ctx, name.as_deref());
                self.join(ctx, room, since, watch, reference);
            }
            Command::Leave { room } => {
                let name = room.clone().into_owned();
                self.confirm(ctx.leave(&room), reference, move |out, ()| push_room(out, &name));
            }
            Command::Subscribe { pattern, name } => {
                set_name(ctx, name.as_deref());
                self.subscribe(ctx, pattern, reference);
            }
            Command::Unsubscribe(pattern) => {
                let left = ctx.unsubscribe(&pattern);
                self.confirm(left, reference, move |out, ()| push_room(out, pattern.as_str()));
            }
            Command::History { room, range, limit } => {
                self.history(ctx, &room, range, limit, reference);
            }
            Command::Presence { room, watch } => {
                let name = room.clone().into_owned();
                self.answer(ctx.presence(&room, watch), reference, move |out, presence| {
                    push_room(out, &name);
                    push_presence(out, &presence);
                });
            }
            Command::Resume(resume) => self.resume(ctx, &resume, reference),
            Command::Ping => {
                ctx.state().errors_in_a_row = 0;
                let mut out = answers::answer("pong", reference.as_deref());
                out.push('}');
                ctx.send(&out);
            }
        }
    }

    /// Gives a client that says its name in a message that name in presence too.
    fn take_name(&self, ctx: &mut Ctx<'_>, content: &Content<'_>) {
        if let Some(sender) = content.sender
            && !ctx.state().has_name
        {
            set_name(ctx, frames::name(sender).as_deref());
        }
    }

    fn publish(
        &self,
        ctx: &mut Ctx<'_>,
        room: &str,
        content: &Content<'_>,
        echo: bool,
        reference: Reference,
    ) {
        if !ctx.is_member(room) {
            return self.fail(ctx, &RoomError::NotMember.into(), &reference);
        }
        let head = answers::message_head(room);
        let tail = answers::message_tail(ctx.client_id(), content);
        let publication = addressed(Publication::around_seq(&head, &tail), content, echo);
        let id = content.id;
        // Only what the answer needs is carried over, and most publishes want none.
        let answered_room = reference.is_some().then(|| room.to_owned());
        self.confirm(ctx.publish(room, publication), reference, move |out, published| {
            push_room(out, answered_room.as_deref().unwrap_or_default());
            out.push_str(&format!(",\"seq\":{},\"id\":\"{id}\"", published.seq));
            push_repeated(out, published.repeated);
        });
    }

    /// Publishes one message to several rooms; it says what its number is in each.
    fn publish_to_rooms(
        &self,
        ctx: &mut Ctx<'_>,
        rooms: &[String],
        content: &Content<'_>,
        echo: bool,
        reference: Reference,
    ) {
        if rooms.iter().any(|room| !ctx.is_member(room)) {
            return self.fail(ctx, &RoomError::NotMember.into(), &reference);
        }
        let mut texts = Vec::with_capacity(rooms.len() + 1);
        for (index, room) in rooms.iter().enumerate() {
            let mut text = String::new();
            if index == 0 {
                text.push_str(MESSAGE_HEAD);
                push_room(&mut text, room);
                text.push_str(",\"seq\":");
                texts.push((std::mem::take(&mut text), 0));
                text.push_str(",\"rooms\":[{\"room\":");
            } else {
                text.push_str("},{\"room\":");
            }
            push_string(&mut text, room);
            text.push_str(",\"seq\":");
            texts.push((text, index));
        }
        let pieces: Vec<(&str, usize)> =
            texts.iter().map(|(text, index)| (text.as_str(), *index)).collect();
        let tail = format!("}}]{}", answers::message_tail(ctx.client_id(), content));
        let publication = addressed(Publication::around_seqs(&pieces, &tail), content, echo);
        let id = content.id;
        let answered_rooms = if reference.is_some() { rooms.to_vec() } else { Vec::new() };
        let rooms: Vec<&str> = rooms.iter().map(String::as_str).collect();
        let reply = ctx.publish_to_rooms(&rooms, publication);
        self.confirm(reply, reference, move |out, published| {
            out.push_str(",\"rooms\":[");
            for (index, (room, seq)) in answered_rooms.iter().zip(&published.seqs).enumerate() {
                out.push_str(if index > 0 { ",{\"room\":" } else { "{\"room\":" });
                push_string(out, room);
                out.push_str(&format!(",\"seq\":{seq}}}"));
            }
            out.push_str(&format!("],\"id\":\"{id}\""));
            push_repeated(out, published.repeated);
        });
    }

    fn broadcast(&self, ctx: &mut Ctx<'_>, content: &Content<'_>, reference: Reference) {
        if !self.may_broadcast {
            let fault = Fault::new("forbidden", "clients of this server may not send to everyone");
            return self.fail(ctx, &fault, &reference);
        }
        self.take_name(ctx, content);
        let tail = answers::message_tail(ctx.client_id(), content);
        let (reply, id) = (ctx.broadcast(&format!("{{\"type\":\"broadcast\"{tail}")), content.id);
        self.confirm(reply, reference, move |out, ()| out.push_str(&format!(",\"id\":\"{id}\"")));
    }

    fn join(
        &self,
        ctx: &mut Ctx<'_>,
        room: RoomName,
        since: Option<Position>,
        watch: bool,
        reference: Reference,
    ) {
        let errors_max = self.errors_max;
        let replay = since.map_or(Replay::Nothing, Replay::Since);
        ctx.join(&room.clone(), replay).then(move |ctx, joined| {
            let joined = match joined {
                Ok(joined) => joined,
                Err(error) => return fail(ctx, errors_max, &error.into(), reference.as_deref()),
            };
            let name = room.clone();
            let told = move |ctx: &mut Ctx<'_>, presence: Option<Presence>| {
                // A client that asks what was missed, or who is there, gets the answer without a
                // ref too.
                if reference.is_none() && since.is_none() && presence.is_none() {
                    ctx.state().errors_in_a_row = 0;
                    return;
                }
                answer_ok(ctx, reference.as_deref(), |out| {
                    push_room(out, name.as_str());
                    push_joined(out, &joined);
                    if let Some(presence) = &presence {
                        push_presence(out, presence);
                    }
                });
            };
            if watch {
                // The room was just joined, so there is an answer.
                let watched = ctx.presence(room.as_str(), Watch::Begin);
                watched.then(move |ctx, presence| told(ctx, presence.ok()));
            } else {
                told(ctx, None);
            }
        });
    }

    fn subscribe(&self, ctx: &mut Ctx<'_>, pattern: RoomPattern, reference: Reference) {
        // Which rooms they are and where they stand is known from nowhere else, so it is always
        // answered.
        self.answer(ctx.subscribe(&pattern), reference, move |out, found| {
            push_room(out, pattern.as_str());
            out.push_str(",\"rooms\":[");
            for (index, found) in found.iter().enumerate() {
                out.push_str(if index > 0 { ",{\"room\":" } else { "{\"room\":" });
                push_string(out, found.room.as_str());
                push_position(out, &found.position);
                answers::push_overflow(out, found.overflow);
                out.push('}');
            }
            out.push(']');
        });
    }

    fn history(
        &self,
        ctx: &mut Ctx<'_>,
        room: &str,
        range: Range,
        limit: Option<usize>,
        reference: Reference,
    ) {
        if !ctx.is_member(room) {
            return self.fail(ctx, &RoomError::NotMember.into(), &reference);
        }
        let limit = limit.map_or(self.history_max, |limit| limit.min(self.history_max));
        let name = room.to_owned();
        self.answer(ctx.history(room, range, limit), reference, move |out, page| {
            push_room(out, &name);
            push_position(out, &page.position);
            answers::push_messages(out, &page.messages);
        });
    }

    fn resume(&self, ctx: &mut Ctx<'_>, resume: &Resume<'_>, reference: Reference) {
        if resume.positions.len() > self.rooms_max {
            let message = format!("a client is in at most {} rooms", self.rooms_max);
            return self.fail(ctx, &Fault::new("limit_exceeded", message), &reference);
        }
        // A text that cannot be a token is as unknown as one that was never given out.
        let Ok(token) = resume.session.parse::<SessionToken>() else {
            return self.fail(ctx, &RoomError::NoSuchSession.into(), &reference);
        };
        let errors_max = self.errors_max;
        let reply = ctx.resume(&token, &resume.positions, resume.direct_seq);
        reply.then(move |ctx, resumed| match resumed {
            Ok(resumed) => {
                ctx.state().has_name = resumed.name.is_some();
                answer_ok(ctx, reference.as_deref(), |out| {
                    answers::push_resumed(out, &resumed, &token.to_string());
                });
                for direct in &resumed.directs {
                    ctx.send_prepared(direct);
                }
            }
            Err(error) => fail(ctx, errors_max, &error.into(), reference.as_deref()),
        });
    }

    /// Answers a command that may be answered by silence: with a `ref`, or if it failed.
    fn confirm<T>(
        &self,
        reply: Reply<'_, ChatState, T>,
        reference: Reference,
        fields: impl FnOnce(&mut String, T) + Send + 'static,
    ) {
        let errors_max = self.errors_max;
        reply.then(move |ctx, outcome| match outcome {
            Ok(_) if reference.is_none() => ctx.state().errors_in_a_row = 0,
            Ok(done) => answer_ok(ctx, reference.as_deref(), |out| fields(out, done)),
            Err(error) => fail(ctx, errors_max, &error.into(), reference.as_deref()),
        });
    }

    /// Answers a command that is a question: with a `ref` or without.
    fn answer<T>(
        &self,
        reply: Reply<'_, ChatState, T>,
        reference: Reference,
        fields: impl FnOnce(&mut String, T) + Send + 'static,
    ) {
        let errors_max = self.errors_max;
        reply.then(move |ctx, outcome| match outcome {
            Ok(done) => answer_ok(ctx, reference.as_deref(), |out| fields(out, done)),
            Err(error) => fail(ctx, errors_max, &error.into(), reference.as_deref()),
        });
    }

    fn fail(&self, ctx: &mut Ctx<'_>, fault: &Fault, reference: &Reference) {
        fail(ctx, self.errors_max, fault, reference.as_deref());
    }
}

fn set_name(ctx: &mut Ctx<'_>, name: Option<&str>) {
    if name.is_some() {
        ctx.set_name(name);
        ctx.state().has_name = true;
    }
}

/// How that of a direct message does, up to its number.
const DIRECT_HEAD: &str = "{\"type\":\"direct\",\"seq\":";

/// Lets a repeat of the client's own id be known for one.
fn known_by_id<'a>(publication: Publication<'a>, content: &Content<'_>) -> Publication<'a> {
    match content.is_own_id {
        true => publication.dedup_id(content.id),
        false => publication,
    }
}

/// A message to rooms, which the publisher gets back if it wants an `echo`.
fn addressed<'a>(
    publication: Publication<'a>,
    content: &Content<'_>,
    echo: bool,
) -> Publication<'a> {
    let publication = known_by_id(publication, content);
    if echo { publication } else { publication.to_others() }
}

fn push_repeated(out: &mut String, repeated: bool) {
    if repeated {
        out.push_str(",\"repeated\":true");
    }
}
