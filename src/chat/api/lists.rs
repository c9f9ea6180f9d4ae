//! What the server API lists: rooms, histories, members, sessions, nodes. Always page by page.

use std::{borrow::Cow, iter};

use serde::Serialize;

use super::{
    access::Caller,
    answer::{JSON, ok},
    query::Query,
};
use crate::{
    AdminAnswer, AdminContext, MembersPage, Range, SessionsOf,
    chat::{about::About, answers, fault::Fault, json},
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
    let found = ctx.rooms(prefix, query.text("after"), limit);
    let allowed = found.iter().filter(|room| caller.key.allows_room(&room.room));
    let rooms = allowed.map(|room| Room {
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
    room: &str,
) -> Result<AdminAnswer, Fault> {
    #[derive(Serialize)]
    struct Cleared<'a> {
        room: &'a str,
        epoch: Cow<'a, str>,
        seq: u64,
    }
    caller.check_room(room)?;
    let position = ctx.clear_history(room)?;
    Ok(ok(&Cleared { room, epoch: answers::epoch(&position), seq: position.seq }))
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
    let found = ctx.sessions(of, query.after_client()?, query.limit()?)?;
    let sessions = found.iter().map(|session| Session {
        client_id: session.client_id.to_string(),
        user: session.user.as_deref(),
        sender: session.name.as_deref(),
        away: session.is_away,
        rooms: session.rooms,
    });
    // A session that has ended meanwhile leaves its page shorter, so a short page says nothing.
    let next = found.last().map(|session| session.client_id.to_string());
    Ok(ok(&Sessions { sessions: sessions.collect(), next }))
}

/// Lists the nodes: this one.
pub(super) fn nodes(ctx: &mut AdminContext<'_>, about: &About) -> AdminAnswer {
    #[derive(Serialize)]
    struct Node<'a> {
        node: &'a str,
        version: &'a str,
        uptime_s: f64,
        draining: bool,
        active_connections: usize,
        sessions: usize,
        rooms: usize,
    }
    #[derive(Serialize)]
    struct Nodes<'a> {
        nodes: [Node<'a>; 1],
    }
    let stats = ctx.stats();
    let node = Node {
        node: &about.node,
        version: stats.version,
        uptime_s: stats.uptime_s,
        draining: stats.draining,
        active_connections: stats.active_connections,
        sessions: stats.sessions,
        rooms: stats.rooms,
    };
    ok(&Nodes { nodes: [node] })
}
