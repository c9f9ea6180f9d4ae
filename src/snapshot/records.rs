//! The records of a snapshot. Their order and their fields are the format: whoever changes one
//! raises the version.

use std::net::IpAddr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::Uuid;

/// What every snapshot begins with.
pub(super) const MAGIC: [u8; 8] = *b"rsocks\r\n";

/// The length and the checksum of a record.
pub(super) const FRAMING_BYTES: u64 = 4 + 4;

/// What a message takes beside its payload, at most.
pub(crate) const MESSAGE_OVERHEAD_BYTES: u64 = FRAMING_BYTES + 40;

/// One record. Rooms are referred to by their place among the records of rooms.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Record<'a> {
    Revocation(RevocationRecord),
    Room(RoomRecord),
    Session(Box<SessionRecord>),
    /// A direct message to the session of the record before, oldest first.
    Direct {
        seq: u64,
        #[serde(borrow)]
        payload: Payload<'a>,
    },
    /// A message of a room. Those of all rooms are in the order of their age, oldest first, and
    /// none of a room is left out behind its first one.
    Message {
        room: u32,
        seq: u64,
        age_ms: u64,
        /// Whether other rooms have it too.
        is_shared: bool,
        #[serde(borrow)]
        payload: Payload<'a>,
    },
    /// The same message in a further room: the one in this place among those that are shared and
    /// have the age of the record before.
    Shared {
        room: u32,
        seq: u64,
        of: u32,
    },
    /// The last record.
    End {
        /// How many came before it.
        records: u64,
    },
}

/// What a message says.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Payload<'a> {
    Text(&'a str),
    #[serde(borrow)]
    Binary(Bytes<'a>),
}

/// Bytes that are written as one piece, not one by one.
#[derive(Debug)]
pub(crate) struct Bytes<'a>(pub(crate) &'a [u8]);

impl Serialize for Bytes<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.0)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Bytes<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Bytes<'a>, D::Error> {
        <&[u8]>::deserialize(deserializer).map(Bytes)
    }
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct RevocationRecord {
    /// The user, or the id of one token.
    pub(crate) of: String,
    pub(crate) is_user: bool,
    pub(crate) before_s: u64,
    pub(crate) kept_until_s: u64,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct RoomRecord {
    pub(crate) name: String,
    pub(crate) epoch: u64,
    /// The number after which the epoch began.
    pub(crate) began_seq: u64,
    /// The number of the newest message, kept or not.
    pub(crate) seq: u64,
    pub(crate) owner: OwnerRecord,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) enum OwnerRecord {
    Nobody,
    One { client_id: Uuid, is_left_behind: bool },
    Many,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SessionRecord {
    pub(crate) client_id: Uuid,
    pub(crate) secret: [Uuid; 2],
    /// The path of its route.
    pub(crate) route: String,
    /// How long it is away, without the time in which no server could be reached.
    pub(crate) away_ms: u64,
    /// Whether nobody would miss it.
    pub(crate) is_trivial: bool,
    /// The address whose limits held for it.
    pub(crate) address: Option<IpAddr>,
    pub(crate) provisional: bool,
    pub(crate) name: Option<String>,
    pub(crate) identity: Option<IdentityRecord>,
    pub(crate) memberships: Vec<MembershipRecord>,
    pub(crate) patterns: Vec<String>,
    pub(crate) declined: Vec<u32>,
    pub(crate) left_behind: Vec<u32>,
    /// Oldest first.
    pub(crate) recent: Vec<RecentRecord>,
    /// The number of the last direct message, and of the last one that a connection was sent.
    pub(crate) inbox: Option<(u64, u64)>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct IdentityRecord {
    pub(crate) user: String,
    pub(crate) name: Option<String>,
    pub(crate) expires_at: Option<u64>,
    pub(crate) issued_at: u64,
    pub(crate) token_id: Option<String>,
    pub(crate) grants: Vec<GrantRecord>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct GrantRecord {
    /// A room's name, or the beginning of names.
    pub(crate) text: String,
    pub(crate) is_prefix: bool,
    pub(crate) allow: u8,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct MembershipRecord {
    pub(crate) room: u32,
    pub(crate) watching: bool,
    pub(crate) permissions: u8,
    pub(crate) pattern: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct RecentRecord {
    pub(crate) id: Uuid,
    pub(crate) to: RecipientRecord,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum RecipientRecord {
    /// Rooms, and the number in each.
    Rooms(Vec<(u32, u64)>),
    Client(Uuid, u64),
}
