//! What the server says of its own accord.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::{Overflow, lenient};

/// What the server says of its own accord.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
#[non_exhaustive]
pub enum Notice<'a> {
    /// Another client is in a watched room now.
    Joined {
        /// The room.
        #[serde(borrow)]
        room: Cow<'a, str>,
        /// The client that came.
        #[serde(borrow)]
        client_id: Cow<'a, str>,
        /// The name that this client goes by.
        #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
        sender: Option<Cow<'a, str>>,
    },
    /// Another client is not in a watched room any more.
    Left {
        /// The room.
        #[serde(borrow)]
        room: Cow<'a, str>,
        /// The client that went.
        #[serde(borrow)]
        client_id: Cow<'a, str>,
        /// The name that this client went by.
        #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
        sender: Option<Cow<'a, str>>,
    },
    /// The client was too slow: for messages `from..=to` of the room, or for its presence.
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
        /// Notices of who came and went are missing.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        presence: bool,
    },
    /// A new room matches a pattern, and the client is in it.
    Matched {
        /// The pattern.
        #[serde(borrow)]
        pattern: Cow<'a, str>,
        /// The room.
        #[serde(borrow)]
        room: Cow<'a, str>,
        /// The life of the room.
        #[serde(borrow, default)]
        epoch: Cow<'a, str>,
        /// Messages after this one are delivered.
        #[serde(default, deserialize_with = "lenient::seq")]
        seq: u64,
        /// What happens to a member that is too slow.
        #[serde(default)]
        overflow: Overflow,
    },
    /// A new room matches a pattern, but the client is in as many rooms as it may be.
    Unmatched {
        /// The pattern.
        #[serde(borrow)]
        pattern: Cow<'a, str>,
        /// The room.
        #[serde(borrow)]
        room: Cow<'a, str>,
    },
    /// The server will close the connection.
    Closing {
        /// Why.
        #[serde(borrow, default)]
        reason: Cow<'a, str>,
        /// After which time the client should come back, if the server says so.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reconnect_after_ms: Option<u64>,
    },
}
