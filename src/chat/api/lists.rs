//! What the server API lists: rooms, histories, members, sessions, nodes. Always page by page.

use std::{borrow::Cow, iter, time::Duration};

use serde::Serialize;

use super::{
    access::Caller,
    answer::{JSON, ok},
    query::Query,
};
use crate::{
    AdminAnswer, AdminContext, AdminStep, ClearedHistory, MembersPage, NodeSummary, Range,
    RoomSummary, SessionsOf,
    chat::{answers, fault::Fault, json},
    config::{RoomRange, ShownSetting},
};

/// Lists the rooms that the key may be used for.
pub(super) fn rooms(
    ctx: &mut AdminContext<'_>,
    caller: &Caller,
    query: &Query,
) -> Result<AdminAnswer, Fault> {
    #[derive(Serialize)]
    struct Room<'a> {
        room: &'a str,
        epoch: Cow<'a, str>,
        seq: u64,
        members: usize,
        messages: usize,
        bytes: usize,
    }
    #[derive(Serialize)]
    struct Rooms<'a> {
        rooms: Vec<Room<'a>>,
        /// What to give as `after` for the next page.
        #[serde(skip_serializing_if = "Option::is_none")]
        next: Option<&'a str>,
    }
    let limit = query.limit()?;
    let prefix = query.text("prefix").unwrap_or_default();
    let mut found = Vec::new();
    // Only the key's own rooms are looked at, so that `next` is one of them too.
    for range in caller.ranges.iter() {
        let left = limit - found.len();
        if left == 0 {
            break;
        }
        found.extend(rooms_of(ctx, range, prefix, query.text("after"), left));
    }
    let rooms = found.iter().map(|room| Room {
        room: &room.room,
        epoch: answers::epoch(&room.position),
        seq: room.position.seq,
        members: room.members,
        messages: room.messages,
        bytes: room.bytes,
    });
    let next = (found.len() == limit).then(|| found.last()).flatten();
    Ok(ok(&Rooms { rooms: rooms.collect(), next: next.map(|room| room.room.as_str()) }))
}

/// Lists the rooms of a range whose names begin with `prefix` and come behind `after`.
fn rooms_of(
    ctx: &mut AdminContext<'_>,
    range: &RoomRange,
    prefix: &str,
    after: Option<&str>,
    limit: usize,
) -> Vec<RoomSummary> {
    let text: &str = &range.text;
    if !range.is_prefix {
        let is_due = text.starts_with(prefix) && after.is_none_or(|after| text > after);
        return is_due.then(|| ctx.room(text)).flatten().into_iter().collect();
    }
    let prefix = match prefix.starts_with(text) {
        true => prefix,
        false if text.starts_with(prefix) => text,
        false => return Vec::new(),
    };
    // A pattern does not match the room whose name is the prefix itself.
    ctx.rooms(prefix, Some(after.unwrap_or_default().max(text)), limit)
}

/// Reads a page of a room's history.
pub(super) fn history(
    ctx: &mut AdminContext<'_>,
    caller: &Caller,
    room: &str,
    query: &Query,
    history_max: usize,
) -> Result<AdminAnswer, Fault> {
    caller.check_room(room)?;
    let range = match (query.seq("before")?, query.seq("after")?) {
        (None, None) => Range::Latest,
        (Some(seq), None) => Range::Before(seq),
        (None, Some(seq)) => Range::After(seq),
        (Some(_), Some(_)) => {
            return Err(Fault::bad_request("the query may have before or after, not both"));
        }
    };
    let page = ctx.history(room, range, query.limit()?.min(history_max))?;
    let messages = iter::once(&page.messages[..]);
    let body = json::text_with_messages(&answers::page(room, &page), messages);
    Ok(AdminAnswer::ok(JSON, body))
}

/// Drops what a room keeps.
pub(super) fn clear_history(
    ctx: &mut AdminContext<'_>,
    caller: &Caller,
    room: String,
) -> Result<AdminStep, Fault> {
    caller.check_room(&room)?;
    let cleared = ctx.clear_history(&room)?;
    Ok(free(ctx, room, cleared))
}

/// Frees the messages of a room, as many in a turn as it may cost, and answers where the room is.
fn free(ctx: &mut AdminContext<'_>, room: String, mut cleared: ClearedHistory) -> AdminStep {
    #[derive(Serialize)]
    struct Cleared<'a> {
        room: &'a str,
        epoch: Cow<'a, str>,
        seq: u64,
    }
    while ctx.free(&mut cleared) {
        if ctx.is_spent() {
            let go_on = move |ctx: &mut AdminContext<'_>| free(ctx, room, cleared);
            return AdminStep::Continue(Duration::ZERO, Box::new(go_on));
        }
    }
    let position = &cleared.position;
    let (epoch, seq) = (answers::epoch(position), position.seq);
    AdminStep::Answer(ok(&Cleared { room: &room, epoch, seq }))
}

/// Lists the members of a room.
pub(super) fn presence(
    ctx: &mut AdminContext<'_>,
    caller: &Caller,
    room: &str,
    query: &Query,
) -> Result<AdminAnswer, Fault> {
    caller.check_room(room)?;
    let page = MembersPage { after: query.after_client()?, limit: query.limit()? };
    let presence = ctx.presence(room, page)?;
    Ok(ok(&answers::presence(room, &presence)))
}

/// Lists sessions: all, those of one user or those in one room.
pub(super) fn sessions(
    ctx: &mut AdminContext<'_>,
    caller: &Caller,
    query: &Query,
) -> Result<AdminAnswer, Fault> {
    #[derive(Serialize)]
    struct Session<'a> {
        client_id: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        user: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        sender: Option<&'a str>,
        away: bool,
        rooms: usize,
    }
    #[derive(Serialize)]
    struct Sessions<'a> {
        sessions: Vec<Session<'a>>,
        #[serde(skip_serializing_if = "Option::is_none")]
        next: Option<String>,
    }
    let of = match (query.text("room"), query.text("user")) {
        (Some(_), Some(_)) => {
            return Err(Fault::bad_request("the query may have room or user, not both"));
        }
        (Some(room), None) => {
            caller.check_room(room)?;
            SessionsOf::Room(room)
        }
        _ if !caller.key.allows_all_rooms() => {
            return Err(Fault::bad_request("a key for some rooms must name a room"));
        }
        (None, Some("")) => return Err(Fault::bad_request("user must not be empty")),
        (None, Some(user)) => SessionsOf::User(user),
        (None, None) => SessionsOf::All,
    };
    let page = ctx.sessions(of, query.after_client()?, query.limit()?)?;
    let sessions = page.sessions.iter().map(|session| Session {
        client_id: session.client_id.to_string(),
        user: session.user.as_deref(),
        sender: session.name.as_deref(),
        away: session.is_away,
        rooms: session.rooms,
    });
    let next = page.next.map(|client_id| client_id.to_string());
    Ok(ok(&Sessions { sessions: sessions.collect(), next }))
}

/// Lists the settings.
pub(super) fn settings(ctx: &mut AdminContext<'_>) -> AdminAnswer {
    #[derive(Serialize)]
    struct Settings {
        settings: Vec<ShownSetting>,
    }
    ok(&Settings { settings: ctx.settings() })
}

/// Says what the key may be used for.
pub(super) fn key(caller: &Caller) -> AdminAnswer {
    #[derive(Serialize)]
    struct Key<'a> {
        name: &'a str,
        scopes: Vec<&'static str>,
        rooms: &'a [String],
    }
    let key = &caller.key;
    let scopes = key.scopes.iter().map(|scope| scope.as_str()).collect();
    ok(&Key { name: &key.name, scopes, rooms: &key.rooms })
}

/// Lists the nodes.
pub(super) fn nodes(ctx: &mut AdminContext<'_>) -> AdminAnswer {
    #[derive(Serialize)]
    struct Nodes {
        nodes: Vec<NodeSummary>,
    }
    ok(&Nodes { nodes: ctx.nodes() })
}
