//! Converts answers of the hub into types of the protocol. Lists of messages stay empty here;
//! `json.rs` fills in the messages, which are JSON already.

use std::borrow::Cow;

use rusty_socks_protocol::{self as protocol, answer};

use super::fault;
use crate::{
    Joined, MatchedRoom, Page, Position, Presence, Present, Resumed, SessionToken, config::Overflow,
};

pub(super) fn joined<'a>(
    room: &'a str,
    joined: &Joined,
    presence: Option<&'a Presence>,
) -> answer::Joined<'a> {
    answer::Joined {
        room: room.into(),
        epoch: epoch(&joined.position),
        seq: joined.position.seq,
        recovered: joined.recovered,
        overflow: overflow(joined.overflow),
        messages: Vec::new(),
        members: presence.map(|presence| members(&presence.members)),
        count: presence.map(|presence| presence.count),
    }
}

pub(super) fn subscribed<'a>(
    pattern: &'a str,
    matched: &'a [MatchedRoom],
) -> answer::Subscribed<'a> {
    let room = |matched: &'a MatchedRoom| answer::MatchedRoom {
        room: matched.room.as_str().into(),
        epoch: epoch(&matched.position),
        seq: matched.position.seq,
        overflow: overflow(matched.overflow),
    };
    answer::Subscribed { room: pattern.into(), rooms: matched.iter().map(room).collect() }
}

pub(super) fn page<'a>(room: &'a str, page: &Page) -> answer::Page<'a> {
    let Position { seq, .. } = page.position;
    answer::Page { room: room.into(), epoch: epoch(&page.position), seq, messages: Vec::new() }
}

pub(super) fn presence<'a>(room: &'a str, presence: &'a Presence) -> answer::Members<'a> {
    answer::Members {
        room: room.into(),
        members: members(&presence.members),
        count: presence.count,
    }
}

/// Makes the answer to `resume`.
pub(super) fn resumed<'a>(resumed: &'a Resumed, session: &SessionToken) -> answer::Resumed<'a> {
    let rooms = resumed.rooms.iter().map(|room| {
        let joined = room.joined.as_ref().ok();
        answer::ResumedRoom {
            room: room.room.as_str().into(),
            epoch: joined.map(|joined| epoch(&joined.position)),
            seq: joined.map(|joined| joined.position.seq),
            recovered: joined.map(|joined| joined.recovered),
            overflow: joined.map(|joined| overflow(joined.overflow)),
            messages: joined.map(|_| Vec::new()),
            error: room.joined.as_ref().err().map(|error| fault::code(*error)),
            members: room.presence.as_ref().map(|presence| members(&presence.members)),
            count: room.presence.as_ref().map(|presence| presence.count),
        }
    });
    answer::Resumed {
        client_id: resumed.client_id.to_string().into(),
        session: session.to_string().into(),
        rooms: rooms.collect(),
        patterns: resumed.patterns.iter().map(|pattern| pattern.as_str().into()).collect(),
        direct: answer::DirectState {
            seq: resumed.direct_seq,
            recovered: resumed.directs_recovered,
        },
    }
}

pub(super) fn members(members: &[Present]) -> Vec<answer::Member<'_>> {
    let members = members.iter().map(|present| answer::Member {
        client_id: present.client_id.to_string().into(),
        sender: present.name.as_deref().map(Cow::Borrowed),
        user: present.user.as_deref().map(Cow::Borrowed),
    });
    members.collect()
}

pub(super) fn epoch(position: &Position) -> Cow<'static, str> {
    position.epoch.to_string().into()
}

pub(super) fn overflow(overflow: Overflow) -> protocol::Overflow {
    match overflow {
        Overflow::Close => protocol::Overflow::Close,
        Overflow::Gap => protocol::Overflow::Gap,
        Overflow::Latest => protocol::Overflow::Latest,
    }
}
