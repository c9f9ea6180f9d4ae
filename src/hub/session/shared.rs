//! A session as the engine keeps it, for the nodes on which it may go on.

use std::sync::atomic::Ordering;

use serde::{Deserialize, Serialize};

use super::{Attachment, Session, saved::RoomPlaces};
use crate::{
    hub::{mirror::remote::ShownAs, names::RoomName},
    snapshot::SessionRecord,
};

/// What is kept of a session: its rooms by name, and the record that refers to them.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SharedSession {
    pub(crate) rooms: Vec<String>,
    pub(crate) record: SessionRecord,
}

/// What the engine is told of a session.
pub(crate) enum Described {
    /// It has ended.
    Ended,
    Is(Box<Description>),
}

pub(crate) struct Description {
    pub(crate) session: SharedSession,
    /// The rooms in which others see it.
    pub(crate) rooms: Vec<RoomName>,
    pub(crate) shown: ShownAs,
    /// Since when it is away, on the hub's clock.
    pub(crate) away_since_ms: Option<u64>,
    /// The numbers of the last direct message, and of the last one that a connection was sent.
    pub(crate) direct_seqs: (u64, u64),
    pub(crate) resumable: bool,
}

impl Session {
    /// Describes the session as it is now. It may be noted as changed again from here on.
    pub(crate) fn describe(&self, route: &str) -> Described {
        self.is_noted.store(false, Ordering::Release);
        let state = self.state.lock();
        let away_since_ms = match state.attachment {
            Attachment::Ended => return Described::Ended,
            Attachment::Away(since_ms) => Some(since_ms),
            Attachment::To(_) => None,
        };
        let rooms: Vec<RoomName> =
            state.memberships.iter().map(|of| of.room.name.clone()).collect();
        let keys = state.memberships.iter().map(|of| of.room.key);
        let places: RoomPlaces = keys.zip(0..).collect();
        let shown = ShownAs {
            user: state.shown.user().map(str::to_owned),
            name: state.shown.name().map(str::to_owned),
        };
        let direct_seqs = state.inbox.as_ref().map_or((0, 0), |inbox| inbox.seqs());
        let record = self.record(&state, route, &places, 0);
        let names = rooms.iter().map(|name| name.as_str().to_owned()).collect();
        let session = SharedSession { rooms: names, record };
        let shown_in = if state.provisional { Vec::new() } else { rooms };
        let resumable = self.resumable && !self.awaits_identity();
        Described::Is(Box::new(Description {
            session,
            rooms: shown_in,
            shown,
            away_since_ms,
            direct_seqs,
            resumable,
        }))
    }

    /// The number of the last direct message that this node knows.
    pub(crate) fn last_direct(&self) -> u64 {
        self.state.lock().inbox.as_ref().map_or(0, |inbox| inbox.seqs().0)
    }

    /// Whether the session has ended.
    pub(crate) fn has_ended(&self) -> bool {
        self.state.lock().attachment == Attachment::Ended
    }
}
