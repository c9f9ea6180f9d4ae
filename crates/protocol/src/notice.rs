//! Notices, which a server sends without a command.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::{Overflow, answer::Member, lenient};

/// A notice, which a server sends without a command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
#[non_exhaustive]
pub enum Notice<'a> {
    /// Another client joined a watched room.
    Joined {
        /// The room.
        #[serde(borrow)]
        room: Cow<'a, str>,
        /// The client that joined.
        #[serde(borrow)]
        client_id: Cow<'a, str>,
        /// The client's name in presence.
        #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
        sender: Option<Cow<'a, str>>,
        /// The client's user, if it has one.
        #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
        user: Option<Cow<'a, str>>,
    },
    /// Another client left a watched room.
    Left {
        /// The room.
        #[serde(borrow)]
        room: Cow<'a, str>,
        /// The client that left.
        #[serde(borrow)]
        client_id: Cow<'a, str>,
        /// The client's name in presence.
        #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
        sender: Option<Cow<'a, str>>,
        /// The client's user, if it has one.
        #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
        user: Option<Cow<'a, str>>,
    },
    /// Several clients joined or left a watched room within a short time. Each is named once.
    Presence {
        /// The room.
        #[serde(borrow)]
        room: Cow<'a, str>,
        /// The clients that joined. The receiving client may be among them.
        #[serde(borrow)]
        joined: Vec<Member<'a>>,
        /// The clients that left.
        #[serde(borrow)]
        left: Vec<Member<'a>>,
    },
    /// The client was too slow, and did not get messages `from..=to` of the room, or some of its
    /// presence notices.
    Gap {
        /// The room.
        #[serde(borrow)]
        room: Cow<'a, str>,
        /// The first message that was not delivered.
        #[serde(
            default,
            deserialize_with = "lenient::some_seq",
            skip_serializing_if = "Option::is_none"
        )]
        from: Option<u64>,
        /// The last message that was not delivered.
        #[serde(
            default,
            deserialize_with = "lenient::some_seq",
            skip_serializing_if = "Option::is_none"
        )]
        to: Option<u64>,
        /// Whether presence notices are missing.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        presence: bool,
    },
    /// The room goes on at another position: its next message is `seq`+1. The position replaces the
    /// client's, also if the client has seen larger numbers: the room has lost those messages and
    /// gives their numbers anew.
    Epoch {
        /// The room.
        #[serde(borrow)]
        room: Cow<'a, str>,
        /// The epoch of the room from now on.
        #[serde(borrow)]
        epoch: Cow<'a, str>,
        /// Messages after this one are delivered.
        #[serde(deserialize_with = "lenient::seq")]
        seq: u64,
    },
    /// A new room matches a pattern, and the client is now a member.
    Matched {
        /// The pattern.
        #[serde(borrow)]
        pattern: Cow<'a, str>,
        /// The room.
        #[serde(borrow)]
        room: Cow<'a, str>,
        /// The epoch of the room.
        #[serde(borrow, default)]
        epoch: Cow<'a, str>,
        /// Messages after this one are delivered.
        #[serde(default, deserialize_with = "lenient::seq")]
        seq: u64,
        /// The room's policy for a member that is too slow.
        #[serde(default)]
        overflow: Overflow,
    },
    /// A new room matches a pattern, but the client is in as many rooms as allowed and did not
    /// join.
    Unmatched {
        /// The pattern.
        #[serde(borrow)]
        pattern: Cow<'a, str>,
        /// The room.
        #[serde(borrow)]
        room: Cow<'a, str>,
    },
    /// The client's token is about to end: send `auth` with a new one.
    #[serde(rename = "token_expires")]
    TokenExpires {
        /// Seconds until the token ends.
        #[serde(default, deserialize_with = "lenient::seq")]
        expires_s: u64,
        /// Seconds until the connection is closed with 4203 if no new token comes.
        #[serde(default, deserialize_with = "lenient::seq")]
        close_s: u64,
    },
    /// The server is about to close the connection.
    Closing {
        /// The reason.
        #[serde(borrow, default)]
        reason: Cow<'a, str>,
        /// Milliseconds after which the client should reconnect, if the server states them.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reconnect_after_ms: Option<u64>,
    },
}
