//! Executes commands.

use std::iter;

use rusty_socks_protocol::{Answer, ErrorCode, RoomSeq, answer};
use serde::Serialize;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::{
    Chat, answers,
    asking::given_sender,
    command::{self, Command, Content, Destination, Reference, Resume},
    fault::Fault,
    hooks::Hook,
    json, message, standing,
    state::{ChatState, Ctx, User, answer_ok, fail, user as user_of},
};
use crate::{
    CloseReason, Permissions, Position, PreparedFrame, Presence, Publication, Range, Replay, Reply,
    RoomError, RoomName, RoomPattern, SessionToken, Watch,
};

impl Chat {
    /// Carries out a command. `sender` is the name that a hook has put in place of the client's.
    pub(super) fn carry_out(
        &self,
        ctx: &mut Ctx<'_>,
        command: Command<'_>,
        reference: Reference,
        sender: Option<&str>,
    ) {
        let given = given_sender(ctx);
        let user = user_of(ctx);
        let user = user.as_deref();
        // Whether the client may choose its own name.
        let is_free = user.is_none() && given.is_none();
        match command {
            Command::Publish { to, content, echo } => {
                let sender = sender.map(|sender| json::text(&sender).into_boxed_str()).or(given);
                let content = named(signed(content, user), sender.as_deref());
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
                            let fault = Fault::bad_request(
                                "this server has no default room, so a publish must name a room",
                            );
                            self.fail(ctx, &fault, &reference);
                        }
                    },
                }
            }
            Command::Direct { to, content } => {
                let content = named(signed(content, user), given.as_deref());
                self.take_name(ctx, &content);
                let tail = message::tail(ctx.client_id(), &content);
                let publication = Publication::around_seq(message::DIRECT_HEAD, &tail);
                let (publication, id) = (known_by_id(publication, &content), content.id);
                self.confirm(
                    ctx.direct(&to, publication),
                    reference,
                    move |reference, published| {
                        ok(reference, sent(Some(to), id, published.repeated))
                    },
                );
            }
            Command::Broadcast(content) => {
                let content = named(signed(content, user), given.as_deref());
                self.broadcast(ctx, &content, reference);
            }
            Command::Join { room, since, watch, name } => {
                set_name(ctx, sender.or(name.as_deref().filter(|_| is_free)));
                self.join(ctx, room, since, watch, reference);
            }
            Command::Leave { room } => {
                let name = room.clone().into_owned();
                self.confirm(ctx.leave(&room), reference, move |reference, ()| {
                    ok(reference, answer::Left { room: name.into() })
                });
            }
            Command::Subscribe { pattern, name } => {
                set_name(ctx, sender.or(name.as_deref().filter(|_| is_free)));
                self.subscribe(ctx, pattern, reference);
            }
            Command::Unsubscribe(pattern) => {
                let left = ctx.unsubscribe(&pattern);
                self.confirm(left, reference, move |reference, ()| {
                    ok(reference, answer::Left { room: pattern.as_str().into() })
                });
            }
            Command::History { room, range, limit } => {
                self.history(ctx, &room, range, limit, reference);
            }
            Command::Presence { room, watch, page } => {
                let name = room.clone().into_owned();
                self.answer(
                    ctx.presence_page(&room, watch, page),
                    reference,
                    move |reference, presence| ok(reference, answers::presence(&name, &presence)),
                );
            }
            Command::Resume(resume) => self.resume(ctx, &resume, reference),
            Command::Auth { token } => {
                if let Some(identity) = standing::verify(ctx, &token, &reference) {
                    self.take_identity(ctx, identity, reference);
                }
            }
            Command::Ping => {
                ctx.state().errors_in_a_row = 0;
                ctx.send(&json::text(&Answer::pong(reference.as_deref())));
            }
        }
    }

    /// Uses the `sender` of a client's first named message as its name in presence.
    fn take_name(&self, ctx: &mut Ctx<'_>, content: &Content<'_>) {
        if let Some(sender) = content.sender
            && !ctx.state().has_name
        {
            set_name(ctx, command::name(sender).as_deref());
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
        let (text, at) = message::to_room(room, ctx.client_id(), content);
        let (head, tail) = text.split_at(at);
        let publication = addressed(Publication::around_seq(head, tail), content, echo);
        let id = content.id;
        // Copy only what the answer needs; most publishes have no `ref` and get none.
        let answered_room = reference.is_some().then(|| room.to_owned());
        self.confirm(ctx.publish(room, publication), reference, move |reference, published| {
            ok(
                reference,
                answer::Published {
                    room: answered_room.unwrap_or_default().into(),
                    seq: published.seq,
                    id: id.to_string().into(),
                    repeated: published.repeated,
                },
            )
        });
    }

    /// Publishes one message, which states its number in each room, to several rooms.
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
        let names: Vec<&str> = rooms.iter().map(String::as_str).collect();
        if let Some((first, second)) = ctx.apart(&names) {
            return self.fail(ctx, &Fault::apart(first, second), &reference);
        }
        let (texts, tail) = message::to_rooms(rooms, ctx.client_id(), content);
        let pieces: Vec<(&str, usize)> =
            texts.iter().map(|(text, index)| (text.as_str(), *index)).collect();
        let publication = addressed(Publication::around_seqs(&pieces, &tail), content, echo);
        let id = content.id;
        let answered_rooms = if reference.is_some() { rooms.to_vec() } else { Vec::new() };
        let reply = ctx.publish_to_rooms(&names, publication);
        self.confirm(reply, reference, move |reference, published| {
            let numbered = answered_rooms.into_iter().zip(published.seqs);
            ok(
                reference,
                answer::PublishedToRooms {
                    rooms: numbered.map(|(room, seq)| RoomSeq { room: room.into(), seq }).collect(),
                    id: id.to_string().into(),
                    repeated: published.repeated,
                },
            )
        });
    }

    fn broadcast(&self, ctx: &mut Ctx<'_>, content: &Content<'_>, reference: Reference) {
        if !self.settings.load().may_broadcast {
            let fault = Fault::new(ErrorCode::Forbidden, "this server does not allow broadcasts");
            return self.fail(ctx, &fault, &reference);
        }
        self.take_name(ctx, content);
        let (text, id) = (message::broadcast(ctx.client_id(), content), content.id);
        self.confirm(ctx.broadcast(&text), reference, move |reference, ()| {
            ok(reference, sent(None, id, false))
        });
    }

    fn join(
        &self,
        ctx: &mut Ctx<'_>,
        room: RoomName,
        since: Option<Position>,
        watch: bool,
        reference: Reference,
    ) {
        let errors_max = self.errors_max();
        if watch && !ctx.permissions(&room).contains(Permissions::PRESENCE) {
            let error = ctx.forbid(Permissions::PRESENCE);
            return self.fail(ctx, &error.into(), &reference);
        }
        let replay = since.map_or(Replay::Nothing, Replay::Since);
        ctx.join(&room.clone(), replay).then(move |ctx, joined| {
            let joined = match joined {
                Ok(joined) => joined,
                Err(error) => return fail(ctx, errors_max, &error.into(), reference.as_deref()),
            };
            let name = room.clone();
            let told = move |ctx: &mut Ctx<'_>, presence: Option<Presence>| {
                // `since` and `presence` are questions, so they are answered even without a `ref`.
                if reference.is_none() && since.is_none() && presence.is_none() {
                    ctx.state().errors_in_a_row = 0;
                    return;
                }
                let body = answers::joined(name.as_str(), &joined, presence.as_ref());
                let messages = iter::once(&joined.replay[..]);
                answer_ok(ctx, &ok_with_messages(reference.as_deref(), body, messages));
            };
            if watch {
                // Cannot fail: the room was just joined.
                let watched = ctx.presence(room.as_str(), Watch::Begin);
                watched.then(move |ctx, presence| told(ctx, presence.ok()));
            } else {
                told(ctx, None);
            }
        });
    }

    fn subscribe(&self, ctx: &mut Ctx<'_>, pattern: RoomPattern, reference: Reference) {
        // Always answered, because only the answer lists the matching rooms and their positions.
        self.answer(ctx.subscribe(&pattern), reference, move |reference, matched| {
            ok(reference, answers::subscribed(pattern.as_str(), &matched))
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
        let limit_max = self.settings.load().history_max;
        let limit = limit.map_or(limit_max, |limit| limit.min(limit_max));
        let name = room.to_owned();
        self.answer(ctx.history(room, range, limit), reference, move |reference, page| {
            let messages = iter::once(&page.messages[..]);
            ok_with_messages(reference, answers::page(&name, &page), messages)
        });
    }

    fn resume(&self, ctx: &mut Ctx<'_>, resume: &Resume<'_>, reference: Reference) {
        // A malformed token gets the same answer as an unknown one.
        let Ok(token) = resume.session.parse::<SessionToken>() else {
            return self.fail(ctx, &RoomError::NoSuchSession.into(), &reference);
        };
        let rooms_max = self.settings.load().rooms_max;
        if resume.positions.len() > rooms_max {
            // The bound may have been higher when the session entered its rooms, and the client may
            // not know of each that it has left since.
            let Some(rooms) = ctx.session_rooms(&token) else {
                return self.fail(ctx, &RoomError::NoSuchSession.into(), &reference);
            };
            if resume.positions.len() > rooms + rooms_max {
                let message = format!(
                    "the session is in {rooms} rooms, and a client may be in at most {rooms_max}"
                );
                return self.fail(ctx, &Fault::new(ErrorCode::LimitExceeded, message), &reference);
            }
        }
        let errors_max = self.errors_max();
        let (positions, direct_seq) = (&resume.positions[..], resume.direct_seq);
        let reply = match self.asks(Hook::Join) {
            // The backend was asked about the rooms of the session, and about no others.
            Some(_) => ctx.resume_within(&token, positions, direct_seq),
            None => ctx.resume(&token, positions, direct_seq),
        };
        reply.then(move |ctx, resumed| match resumed {
            Ok(resumed) => {
                ctx.state().has_name = resumed.name.is_some();
                if let Some(sender) = given_sender(ctx) {
                    set_name(ctx, command::name(&sender).as_deref());
                }
                standing::show(ctx);
                let joined = resumed.rooms.iter().filter_map(|room| room.joined.as_ref().ok());
                let messages = joined.map(|joined| &joined.replay[..]);
                let body = answers::resumed(&resumed, &token);
                answer_ok(ctx, &ok_with_messages(reference.as_deref(), body, messages));
                for frame in resumed.notices.iter().chain(&resumed.directs) {
                    ctx.send_prepared(frame);
                }
            }
            // Most likely nobody is there any more. If somebody is, the session is not lost: the
            // next connection is newer. An error would have the client begin another one.
            Err(error @ RoomError::TakenOver) => {
                ctx.close(CloseReason::TRY_AGAIN.because(error.to_string()));
            }
            Err(error) => fail(ctx, errors_max, &error.into(), reference.as_deref()),
        });
    }

    /// Answers a command whose success needs no answer: if it has a `ref`, or if it failed.
    fn confirm<T>(
        &self,
        reply: Reply<'_, ChatState, T>,
        reference: Reference,
        frame: impl FnOnce(Option<&RawValue>, T) -> String + Send + 'static,
    ) {
        let errors_max = self.errors_max();
        match reference {
            Some(_) => self.answer(reply, reference, frame),
            None => reply.then(move |ctx, outcome| match outcome {
                Ok(_) => ctx.state().errors_in_a_row = 0,
                Err(error) => fail(ctx, errors_max, &error.into(), None),
            }),
        }
    }

    /// Answers a command that is a question, with or without a `ref`.
    fn answer<T>(
        &self,
        reply: Reply<'_, ChatState, T>,
        reference: Reference,
        frame: impl FnOnce(Option<&RawValue>, T) -> String + Send + 'static,
    ) {
        let errors_max = self.errors_max();
        reply.then(move |ctx, outcome| match outcome {
            Ok(done) => answer_ok(ctx, &frame(reference.as_deref(), done)),
            Err(error) => fail(ctx, errors_max, &error.into(), reference.as_deref()),
        });
    }

    pub(super) fn fail(&self, ctx: &mut Ctx<'_>, fault: &Fault, reference: &Reference) {
        fail(ctx, self.errors_max(), fault, reference.as_deref());
    }
}

fn set_name(ctx: &mut Ctx<'_>, name: Option<&str>) {
    if name.is_some() {
        ctx.set_name(name);
        ctx.state().has_name = true;
    }
}

/// Puts the name and the user of the client into a message, if the client has a user.
fn signed<'a>(content: Content<'a>, user: Option<&'a User>) -> Content<'a> {
    match user {
        Some(user) => Content { sender: Some(&user.sender), user: &user.field, ..content },
        None => content,
    }
}

/// Puts the name that a hook gave into a message, in place of the client's own.
fn named<'a>(content: Content<'a>, sender: Option<&'a str>) -> Content<'a> {
    Content { sender: sender.or(content.sender), ..content }
}

/// Deduplicates the message by its id, if the client gave one.
fn known_by_id<'a>(publication: Publication<'a>, content: &Content<'_>) -> Publication<'a> {
    match content.is_own_id {
        true => publication.dedup_id(content.id),
        false => publication,
    }
}

/// Addresses a message to all members, or without `echo`, to all except the publisher.
fn addressed<'a>(
    publication: Publication<'a>,
    content: &Content<'_>,
    echo: bool,
) -> Publication<'a> {
    let publication = known_by_id(publication, content);
    if echo { publication } else { publication.to_others() }
}

/// Formats the answer to a command that succeeded.
fn ok(reference: Option<&RawValue>, body: impl Serialize) -> String {
    json::text(&Answer::ok(reference, body))
}

/// Formats the answer to a command that succeeded, with the messages of its lists.
fn ok_with_messages<'a>(
    reference: Option<&RawValue>,
    body: impl Serialize,
    messages: impl Iterator<Item = &'a [PreparedFrame]> + Clone,
) -> String {
    json::text_with_messages(&Answer::ok(reference, body), messages)
}

fn sent(to: Option<Uuid>, id: Uuid, repeated: bool) -> answer::Sent<'static> {
    let text = |id: Uuid| id.to_string().into();
    answer::Sent { to: to.map(text), id: text(id), repeated }
}
