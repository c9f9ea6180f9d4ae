//! `POST /v1/publish`: one message to a room, to several or to one client.

use std::{borrow::Cow, collections::BTreeMap, time::Duration};

use chrono::DateTime;
use rusty_socks_protocol::{CommandFields, ErrorCode, RoomSeq, answer};
use serde_json::value::RawValue;
use uuid::Uuid;

use super::{
    access::Caller,
    answer::{JSON, error, refusal},
};
use crate::{
    AdminAnswer, AdminContext, AdminStep, Pending, Publication, Publisher, Request, RoomName,
    Status,
    chat::{
        command::{self, Content},
        fault::Fault,
        json, message,
    },
};

/// The pause before a publisher is looked at again whose deliveries are not made yet.
pub(super) const PAUSE: Duration = Duration::from_millis(10);

/// How often it is looked at before it is told to come back later.
pub(super) const PAUSES_MAX: u32 = 500;

/// What a message costs before it is known to be one.
const READ_COST: usize = 1;

/// How many bytes of it cost as much again.
const BYTES_PER_COST: usize = 1024;

/// Returns the id in `Idempotency-Key`, which stands for the `id` of the message.
pub(super) fn idempotency_key(request: &Request<'_>) -> Result<Option<Uuid>, AdminAnswer> {
    let Some(text) = request.header("Idempotency-Key") else { return Ok(None) };
    let id = Uuid::try_parse(text.trim_matches('"')).ok().filter(|id| !id.is_nil());
    let message = "Idempotency-Key must be a UUID, and not the nil UUID";
    id.map(Some).ok_or_else(|| error(Status::BadRequest, "bad_request", message))
}

/// Publishes the message in `body`.
pub(super) fn publish(
    ctx: &mut AdminContext<'_>,
    caller: Caller,
    body: Vec<u8>,
    id: Option<Uuid>,
) -> AdminStep {
    let body = match String::from_utf8(body) {
        Ok(body) => body,
        Err(_) => {
            let fault = Fault::new(ErrorCode::InvalidJson, "the body must be JSON in UTF-8");
            return AdminStep::Answer(refusal(&fault));
        }
    };
    publish_when_few(ctx, caller, body, id, PAUSES_MAX)
}

/// Publishes as soon as the deliveries of the caller's earlier messages are few.
fn publish_when_few(
    ctx: &mut AdminContext<'_>,
    caller: Caller,
    body: String,
    id: Option<Uuid>,
    pauses_left: u32,
) -> AdminStep {
    if !ctx.should_wait(&caller.publisher) {
        return match publish_one(ctx, &caller, &body, id) {
            Ok(sent) => answer_when_there(sent),
            Err(fault) => AdminStep::Answer(refusal(&fault)),
        };
    }
    match pauses_left.checked_sub(1) {
        None => AdminStep::Answer(refusal(&behind())),
        Some(left) => {
            let call =
                move |ctx: &mut AdminContext<'_>| publish_when_few(ctx, caller, body, id, left);
            AdminStep::Continue(PAUSE, Box::new(call))
        }
    }
}

/// Answers as soon as the numbers of a message are there.
fn answer_when_there(sent: Sent) -> AdminStep {
    match sent.outcome() {
        Ok(Ok(text)) => AdminStep::Answer(AdminAnswer::ok(JSON, text)),
        Ok(Err(fault)) => AdminStep::Answer(refusal(&fault)),
        Err(sent) => AdminStep::Continue(LOOK, Box::new(|_| answer_when_there(sent))),
    }
}

/// How long a request waits before it looks for the numbers of its message again.
pub(super) const LOOK: Duration = Duration::from_millis(1);

/// A message on its way to its numbers, and how the answer is made of them.
pub(super) struct Sent(Box<dyn FnOnce() -> Result<Result<String, Fault>, Sent> + Send>);

impl Sent {
    fn new<T: Send + 'static>(
        pending: Pending<T>,
        text: impl FnOnce(T) -> String + Send + 'static,
    ) -> Sent {
        Sent(Box::new(move || match pending.outcome() {
            Ok(Ok(done)) => Ok(Ok(text(done))),
            Ok(Err(error)) => Ok(Err(error.into())),
            Err(pending) => Err(Sent::new(pending, text)),
        }))
    }

    /// Returns the answer in JSON, or the message itself if it is not numbered yet.
    pub(super) fn outcome(self) -> Result<Result<String, Fault>, Sent> {
        (self.0)()
    }
}

/// The fault of a publish whose publisher is too fast for those who listen.
pub(super) fn behind() -> Fault {
    let message = "earlier messages of this key are still being delivered";
    Fault::new(ErrorCode::RateLimited, message)
}

/// Where a message goes.
enum To {
    Rooms(Vec<RoomName>),
    Client(Uuid),
}

/// Publishes the message that `text` describes.
pub(super) fn publish_one(
    ctx: &mut AdminContext<'_>,
    caller: &Caller,
    text: &str,
    id: Option<Uuid>,
) -> Result<Sent, Fault> {
    ctx.spend(READ_COST + text.len() / BYTES_PER_COST);
    let fields = command::fields(text)?;
    let to = destination(&fields)?;
    let without = excluded(text)?;
    let mut content = command::content(&fields)?;
    if let Some(id) = id {
        if content.is_own_id && content.id != id {
            let message = "id and Idempotency-Key are two ids of one message; give one of them";
            return Err(Fault::bad_request(message));
        }
        (content.id, content.is_own_id) = (id, true);
    }
    content.sender = content.sender.or(Some(&caller.sender));
    match to {
        To::Client(client) => {
            if !caller.key.allows_all_rooms() {
                let message = "a key for some rooms may not send direct messages";
                return Err(Fault::new(ErrorCode::Forbidden, message));
            }
            Ok(direct(ctx, caller, client, &content))
        }
        To::Rooms(rooms) => {
            ctx.spend(rooms.len());
            rooms.iter().try_for_each(|room| caller.check_room(room.as_str()))?;
            if let Some((first, second)) = ctx.apart(&rooms) {
                return Err(Fault::apart(first.as_str(), second.as_str()));
            }
            Ok(to_rooms(ctx, caller, &rooms, &content, without.as_ref()))
        }
    }
}

fn destination(fields: &CommandFields<'_>) -> Result<To, Fault> {
    let name =
        |text: &str| RoomName::new(text).map_err(|error| Fault::bad_request(error.to_string()));
    match (fields.room, fields.rooms, fields.to) {
        (Some(raw), None, None) => {
            let room: Cow<'_, str> = command::string("room", raw)?;
            Ok(To::Rooms(vec![name(&room)?]))
        }
        (None, Some(raw), None) => {
            let rooms = command::room_list(raw)?;
            let names: Result<Vec<_>, Fault> = rooms.iter().map(|room| name(room)).collect();
            names.map(To::Rooms)
        }
        (None, None, Some(_)) => command::client_id(fields).map(To::Client),
        _ => Err(Fault::bad_request("a message must have one of room, rooms and to")),
    }
}

/// The fields of a message that may be left out, but must be right if they are there.
const OPTIONAL_FIELDS: [&str; 7] = ["room", "rooms", "to", "id", "sender", "timestamp", "exclude"];

/// Returns the client that does not get the message. Refuses what the protocol would pass over in
/// silence: a program that gives a wrong id believes that it may repeat the message.
fn excluded(text: &str) -> Result<Option<Uuid>, Fault> {
    let raw: BTreeMap<Cow<'_, str>, &RawValue> =
        serde_json::from_str(text).map_err(|error| Fault::bad_request(error.to_string()))?;
    if let Some(name) =
        OPTIONAL_FIELDS.iter().find(|name| raw.get(**name).is_some_and(|raw| raw.get() == "null"))
    {
        return Err(Fault::bad_request(format!("{name} must be left out or not be null")));
    }
    let string = |name: &str| -> Option<Option<String>> {
        raw.get(name).map(|raw| serde_json::from_str(raw.get()).ok())
    };
    let id = |name: &str| -> Result<Option<Uuid>, Fault> {
        let wrong = || Fault::bad_request(format!("{name} must be a UUID"));
        let id = |text: Option<String>| text.and_then(|text| Uuid::try_parse(&text).ok());
        string(name).map(|text| id(text).ok_or_else(wrong)).transpose()
    };
    if let Some(time) = string("timestamp")
        && time.is_none_or(|time| DateTime::parse_from_rfc3339(&time).is_err())
    {
        return Err(Fault::bad_request("timestamp must be a time as in RFC 3339"));
    }
    if id("id")?.is_some_and(|id| id.is_nil()) {
        return Err(Fault::bad_request("id must not be the nil UUID"));
    }
    id("exclude")
}

fn known<'a>(publication: Publication<'a>, content: &Content<'_>) -> Publication<'a> {
    match content.is_own_id {
        true => publication.dedup_id(content.id),
        false => publication,
    }
}

fn direct(ctx: &mut AdminContext<'_>, caller: &Caller, to: Uuid, content: &Content<'_>) -> Sent {
    let tail = message::tail(Publisher::CLIENT_ID, content);
    let publication = known(Publication::around_seq(message::DIRECT_HEAD, &tail), content);
    let pending = ctx.direct(&caller.publisher, &to, &publication);
    let id = content.id;
    Sent::new(pending, move |sent| {
        let to = Some(to.to_string().into());
        json::text(&answer::Sent { to, id: id.to_string().into(), repeated: sent.repeated })
    })
}

fn to_rooms(
    ctx: &mut AdminContext<'_>,
    caller: &Caller,
    rooms: &[RoomName],
    content: &Content<'_>,
    without: Option<&Uuid>,
) -> Sent {
    let id = content.id;
    if let [room] = rooms {
        let (text, at) = message::to_room(room.as_str(), Publisher::CLIENT_ID, content);
        let (head, tail) = text.split_at(at);
        let publication = known(Publication::around_seq(head, tail), content);
        let pending = ctx.publish(&caller.publisher, rooms, publication, without);
        let room = room.clone();
        return Sent::new(pending, move |published| {
            let seq = published.seqs.first().copied().unwrap_or_default();
            let (room, id) = (room.as_str().into(), id.to_string().into());
            json::text(&answer::Published { room, seq, id, repeated: published.repeated })
        });
    }
    let names: Vec<String> = rooms.iter().map(|room| room.as_str().to_owned()).collect();
    let (texts, tail) = message::to_rooms(&names, Publisher::CLIENT_ID, content);
    let pieces: Vec<(&str, usize)> =
        texts.iter().map(|(text, index)| (text.as_str(), *index)).collect();
    let publication = known(Publication::around_seqs(&pieces, &tail), content);
    let pending = ctx.publish(&caller.publisher, rooms, publication, without);
    Sent::new(pending, move |published| {
        let numbered = names.into_iter().zip(published.seqs);
        let rooms = numbered.map(|(room, seq)| RoomSeq { room: room.into(), seq }).collect();
        let id = id.to_string().into();
        json::text(&answer::PublishedToRooms { rooms, id, repeated: published.repeated })
    })
}
