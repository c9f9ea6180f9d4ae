//! What waits for answers of Redis.

use bytes::Bytes;
use uuid::Uuid;

use crate::{
    hub::{
        engine::Asked,
        error::RoomError,
        names::RoomName,
        question::{Answer, Question},
        session::shared::SharedSession,
    },
    store::Position,
};

/// What an answer belongs to.
pub(super) enum Sent {
    /// A question of the hub that one order answers, and whether it was asked before.
    Question {
        asked: Box<Asked>,
        is_again: bool,
    },
    Open {
        room: RoomName,
        since: Option<Position>,
    },
    /// The names of the rooms that match a pattern.
    Names {
        bringing: u64,
    },
    Take {
        bringing: u64,
    },
    /// What a shard knows of a session that was taken up.
    Fence {
        bringing: u64,
    },
    /// A session that was written down under a fence.
    Save {
        client: Uuid,
        fence: u64,
    },
    /// A client that is shown in a room.
    Show(Uuid),
    /// One that is taken out of it.
    Hide {
        room: RoomName,
        client: Uuid,
        fence: u64,
    },
    End {
        client: Uuid,
        fence: u64,
    },
    Return(Uuid),
    /// The sessions that Redis takes for this node's.
    Own,
    /// The direct messages of a session that this node has missed.
    Inbox(Uuid),
    Beat,
    /// Which of how many Redises this one is.
    Mark,
    /// Messages whose publishers wait for replicas.
    Replicas(Vec<Numbered>),
    /// Revocations that all nodes know.
    Revocations,
    Orphan(String),
    Reap,
    /// Nothing waits for it; the text says what it was.
    Nothing(&'static str),
}

impl Sent {
    pub(super) fn what(&self) -> &'static str {
        match self {
            Sent::Question { asked, .. } => match &asked.question {
                Question::Publish(_) => "publishing",
                Question::Direct { .. } => "a direct message",
                Question::Broadcast { .. } => "a broadcast",
                Question::Announce(_) => "an announcement",
                Question::Tell { .. } => "telling another node",
                Question::Bring { .. } | Question::BringSession { .. } => "bringing a room",
            },
            Sent::Open { .. } => "opening a room",
            Sent::Names { .. } => "matching a pattern",
            Sent::Take { .. } => "taking a session up",
            Sent::Fence { .. } => "telling of a session that was taken up",
            Sent::Save { .. } => "writing a session down",
            Sent::Show(_) => "showing a member",
            Sent::Hide { .. } => "taking a member out",
            Sent::End { .. } => "ending a session",
            Sent::Return(_) => "leaving a session to others",
            Sent::Own => "listing the sessions of this node",
            Sent::Inbox(_) => "reading direct messages",
            Sent::Beat => "renewing the lease",
            Sent::Mark => "looking at the list of shards",
            Sent::Replicas(_) => "waiting for replicas",
            Sent::Revocations => "reading revocations",
            Sent::Orphan(_) => "taking sessions from a node that is gone",
            Sent::Reap => "ending sessions",
            Sent::Nothing(what) => what,
        }
    }
}

/// A question that waits for links.
pub(super) struct Held {
    pub(super) asked: Box<Asked>,
    /// Whether it was asked before.
    pub(super) is_again: bool,
    /// The shards that it needs, a bit for each.
    pub(super) shards: u64,
}

/// A question that waits for rooms.
pub(super) struct Bringing {
    pub(super) asked: Box<Asked>,
    /// The shards that it needs, a bit for each.
    pub(super) shards: u64,
    /// How much it waits for still.
    pub(super) left: usize,
    /// How many rooms may be brought of those that its patterns match, in all shards together.
    pub(super) matches_left: usize,
    pub(super) error: Option<RoomError>,
    /// Direct messages that came for it meanwhile.
    pub(super) directs: Vec<(u64, Bytes)>,
    /// A session that comes with them.
    pub(super) session: Option<Box<ComingSession>>,
}

pub(super) struct ComingSession {
    pub(super) fence: u64,
    /// The fence before it was taken.
    pub(super) fence_before: u64,
    pub(super) shared: SharedSession,
    pub(super) directs: Vec<(u64, Bytes)>,
    pub(super) seqs: (u64, u64),
    /// The shards that know something of it beside its own.
    pub(super) parts: Vec<usize>,
    /// Its rooms there.
    pub(super) rooms_of_parts: Vec<RoomName>,
}

/// A message that has its numbers.
pub(super) struct Numbered {
    pub(super) asked: Box<Asked>,
    pub(super) answer: Answer,
}
