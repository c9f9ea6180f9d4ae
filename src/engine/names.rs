//! The names of keys and channels in Redis.

use bytes::Bytes;
use uuid::Uuid;

use crate::hub::{names::RoomName, question::By};

/// The names under one prefix. Everything of a room has the room's name in braces, so that it is in
/// one place wherever that is.
#[derive(Debug, Clone)]
pub(super) struct Names {
    prefix: String,
}

impl Names {
    pub(super) fn new(prefix: &str) -> Names {
        Names { prefix: prefix.to_owned() }
    }

    pub(super) fn prefix(&self) -> Bytes {
        self.prefix.clone().into()
    }

    fn of_room(&self, room: &RoomName, what: &str) -> Bytes {
        format!("{}:{{{}}}:{what}", self.prefix, room.as_str()).into()
    }

    /// The hash of a room: epoch (e), last number (s), generation (g), earlier epochs (o), version
    /// of presence (v), bytes (b).
    pub(super) fn hash(&self, room: &RoomName) -> Bytes {
        self.of_room(room, "m")
    }

    /// Its messages.
    pub(super) fn stream(&self, room: &RoomName) -> Bytes {
        self.of_room(room, "h")
    }

    /// Its members.
    pub(super) fn presence(&self, room: &RoomName) -> Bytes {
        self.of_room(room, "p")
    }

    /// Where the nodes hear of its messages and members.
    pub(super) fn channel(&self, room: &RoomName) -> Bytes {
        self.of_room(room, "c")
    }

    /// The result of a publish to these rooms under an id of who published.
    pub(super) fn result(&self, rooms: &[RoomName], by: &By, id: Uuid) -> Bytes {
        let names: Vec<&str> = rooms.iter().map(RoomName::as_str).collect();
        let (first, others) = names.split_first().unwrap_or((&"", &[]));
        let others = others.join("\n");
        format!("{}:{{{first}}}:i:{by}:{id}:{others}", self.prefix).into()
    }

    /// The result of a direct message.
    pub(super) fn direct_result(&self, to: Uuid, by: &By, id: Uuid) -> Bytes {
        format!("{}:s:{to}:i:{by}:{id}", self.prefix).into()
    }

    /// The names of all rooms.
    pub(super) fn rooms(&self) -> Bytes {
        format!("{}:rooms", self.prefix).into()
    }

    /// Where the nodes hear of new rooms.
    pub(super) fn new_rooms(&self) -> Bytes {
        format!("{}:new", self.prefix).into()
    }

    /// Where all nodes hear of what concerns all.
    pub(super) fn all(&self) -> Bytes {
        format!("{}:all", self.prefix).into()
    }

    /// The revocations that all nodes know, with the seconds since 1970 until which they hold.
    pub(super) fn revocations(&self) -> Bytes {
        format!("{}:revoked", self.prefix).into()
    }

    /// Where one node hears of what concerns it.
    pub(super) fn node(&self, node: Uuid) -> Bytes {
        format!("{}:to:{node}", self.prefix).into()
    }

    /// Which of how many Redises this one is.
    pub(super) fn list(&self) -> Bytes {
        format!("{}:list", self.prefix).into()
    }

    /// The nodes, with the ends of their leases.
    pub(super) fn nodes(&self) -> Bytes {
        format!("{}:nodes", self.prefix).into()
    }

    /// What is known of a node.
    pub(super) fn about_node(&self, node: &str) -> Bytes {
        format!("{}:node:{node}", self.prefix).into()
    }

    /// The sessions of a node.
    pub(super) fn sessions_of(&self, node: &str) -> Bytes {
        format!("{}:node:{node}:s", self.prefix).into()
    }

    /// The sessions that no node has.
    pub(super) fn orphans(&self) -> Bytes {
        format!("{}:orphans", self.prefix).into()
    }

    /// A session: fence (f), node (n), hash of its secret (h), path of its route (p), record (r),
    /// rooms (m), since when it is away (w), numbers of the last direct message and of the last
    /// that was delivered (q, a), bytes that wait (z), when the connection began that it was taken
    /// for last (b), the fence and the number of what was written down last (o).
    pub(super) fn session(&self, client: Uuid) -> Bytes {
        format!("{}:s:{client}", self.prefix).into()
    }

    /// Its direct messages.
    pub(super) fn inbox(&self, client: Uuid) -> Bytes {
        format!("{}:s:{client}:d", self.prefix).into()
    }
}
