//! A session as it is written into a snapshot, and as it comes out of one.

use std::sync::Arc;

use rustc_hash::FxHashMap;
use uuid::Uuid;

use super::{
    Attachment, ColdState, RECENT_BYTES_MAX, RECENT_IDS_MAX, RecentId, Recipient, Session,
    SessionMembership, SessionState,
};
use crate::{
    hub::{
        conn_id::ConnId,
        inbox::Inbox,
        names::RoomPattern,
        notice::NoticeFormatter,
        room::{Room, RoomKey},
        roster::Shown,
        sessions::TRIVIAL_AGE_MS,
    },
    identity::{Grant, Identity, Permissions},
    snapshot::{
        GrantRecord, IdentityRecord, MembershipRecord, RecentRecord, RecipientRecord, SessionRecord,
    },
    ws::frame::PreparedFrame,
};

/// Where a room is among the records of rooms.
pub(in crate::hub) type RoomPlaces = FxHashMap<RoomKey, u32>;

/// A session as it is written.
pub(in crate::hub) struct SavedSession {
    pub(in crate::hub) record: Box<SessionRecord>,
    /// Its direct messages, with their numbers.
    pub(in crate::hub) directs: Vec<(u64, PreparedFrame)>,
    /// Since when it has no connection; `None` if its connection was cut off.
    pub(in crate::hub) away_since_ms: Option<u64>,
}

/// What a session record refers to, in a hub that it is to be part of.
pub(in crate::hub) struct RestoredIn<'a> {
    pub(in crate::hub) route: u16,
    pub(in crate::hub) formatter: &'a Arc<dyn NoticeFormatter>,
    /// The rooms by their place; `None` for one that is not there any more.
    pub(in crate::hub) rooms: &'a [Option<Arc<Room>>],
    /// Since when it is away.
    pub(in crate::hub) away_since_ms: u64,
}

impl Session {
    /// Describes a session that outlives its connection, as one that is away. `until_ms` is when
    /// absences ceased to count. What concerns rooms without a place is left out.
    pub(in crate::hub) fn saved(
        &self,
        route: &str,
        rooms: &RoomPlaces,
        until_ms: u64,
    ) -> Option<SavedSession> {
        let state = self.state.lock();
        let away_since_ms = match state.attachment {
            Attachment::Away(since_ms) => Some(since_ms),
            Attachment::To(_) => None,
            Attachment::Ended => return None,
        };
        let since_ms = away_since_ms.unwrap_or(until_ms);
        if !self.resumable || self.awaits_identity() {
            return None;
        }
        let is_young = since_ms.saturating_sub(self.began_ms) < TRIVIAL_AGE_MS;
        let mut record = self.record(&state, route, rooms, until_ms.saturating_sub(since_ms));
        record.secret = self.secret;
        record.is_trivial = (state.fresh || is_young) && state.is_trivial();
        let kept = state.inbox.iter().flat_map(|inbox| inbox.kept());
        let directs = kept.map(|(seq, frame)| (seq, frame.clone())).collect();
        Some(SavedSession { record: Box::new(record), directs, away_since_ms })
    }

    /// Describes the session without its secret. What concerns rooms without a place is left out.
    pub(super) fn record(
        &self,
        state: &SessionState,
        route: &str,
        rooms: &RoomPlaces,
        away_ms: u64,
    ) -> SessionRecord {
        let place = |key: &RoomKey| rooms.get(key).copied();
        let membership = |membership: &SessionMembership| {
            Some(MembershipRecord {
                room: place(&membership.room.key)?,
                watching: membership.watching,
                permissions: membership.permissions.bits(),
                pattern: membership.pattern.as_ref().map(|pattern| pattern.as_str().to_owned()),
            })
        };
        let left_behind = |room: &std::sync::Weak<Room>| place(&room.upgrade()?.key);
        let cold = state.cold();
        SessionRecord {
            client_id: self.client_id,
            secret: [Uuid::nil(); 2],
            route: route.to_owned(),
            away_ms,
            is_trivial: false,
            address: None,
            provisional: state.provisional,
            name: state.shown.name().map(str::to_owned),
            identity: state.identity().map(identity_record),
            memberships: state.memberships.iter().filter_map(membership).collect(),
            patterns: cold.patterns.iter().map(|pattern| pattern.as_str().to_owned()).collect(),
            declined: cold.declined.iter().filter_map(place).collect(),
            left_behind: cold.left_behind.iter().filter_map(left_behind).collect(),
            recent: cold.recent_ids.iter().filter_map(|id| recent_record(id, rooms)).collect(),
            inbox: state.inbox.as_ref().map(|inbox| inbox.seqs()),
        }
    }

    /// Makes a session that is away of a record that was [checked](is_sound), with `inbox`. It is
    /// on no roster yet.
    pub(in crate::hub) fn restored(
        record: SessionRecord,
        inbox: Option<Box<Inbox>>,
        within: &RestoredIn<'_>,
    ) -> Session {
        let RestoredIn { route, formatter, rooms, away_since_ms } = *within;
        let formatter = Arc::clone(formatter);
        let (client_id, none) = (record.client_id, ConnId::NONE);
        let mut session = Session::new(client_id, none, route, true, formatter, (0, 0));
        session.secret = record.secret;
        let room = |place: u32| rooms.get(place as usize)?.as_ref();
        let pattern = |text: &String| RoomPattern::new(text).ok();
        let membership = |membership: &MembershipRecord| {
            Some(SessionMembership {
                room: Arc::clone(room(membership.room)?),
                watching: membership.watching,
                permissions: Permissions::from_bits_truncate(membership.permissions),
                pattern: membership.pattern.as_ref().and_then(pattern),
            })
        };
        let memberships: Vec<SessionMembership> =
            record.memberships.iter().filter_map(membership).collect();
        let state = session.state.get_mut();
        *state = SessionState {
            attachment: Attachment::Away(away_since_ms),
            attached_nth: 0,
            fresh: false,
            provisional: record.provisional,
            memberships,
            shown: Shown::new(
                record.name.map(Arc::from),
                record.identity.map(|identity| Arc::new(restored_identity(identity))),
            ),
            may_direct: false,
            user_token: None,
            inbox,
            cold: None,
        };
        let recent = record.recent.iter().filter_map(|recent| restored_id(recent, rooms));
        let mut cold = ColdState {
            declined: record.declined.iter().filter_map(|at| Some(room(*at)?.key)).collect(),
            left_behind: record
                .left_behind
                .iter()
                .filter_map(|at| room(*at).map(Arc::downgrade))
                .collect(),
            recent_ids: recent.take(RECENT_IDS_MAX).collect(),
            ..ColdState::default()
        };
        let patterns = record.patterns.iter().filter_map(pattern);
        patterns.for_each(|pattern| cold.patterns.insert(pattern));
        cold.recent_bytes = cold.recent_ids.iter().map(RecentId::bytes).sum();
        while cold.recent_bytes > RECENT_BYTES_MAX
            && let Some(oldest) = cold.recent_ids.pop_front()
        {
            cold.recent_bytes -= oldest.bytes();
        }
        let is_bare = cold.patterns.len() == 0
            && cold.declined.is_empty()
            && cold.left_behind.is_empty()
            && cold.recent_ids.is_empty();
        state.cold = (!is_bare).then(|| Box::new(cold));
        session
    }
}

/// Whether a record refers to nothing but `rooms` rooms, and has legal patterns alone.
pub(in crate::hub) fn is_sound(record: &SessionRecord, rooms: usize) -> bool {
    let is_room = |place: &u32| (*place as usize) < rooms;
    let is_pattern = |text: &String| RoomPattern::new(text).is_ok();
    let mut places: Vec<u32> = record.memberships.iter().map(|of| of.room).collect();
    places.sort_unstable();
    places.dedup();
    places.len() == record.memberships.len()
        && record.memberships.iter().all(|membership| {
            is_room(&membership.room) && membership.pattern.as_ref().is_none_or(is_pattern)
        })
        && record.patterns.iter().all(is_pattern)
        && record.declined.iter().chain(&record.left_behind).all(is_room)
        && record.recent.iter().all(|recent| match &recent.to {
            RecipientRecord::Rooms(numbered) => numbered.iter().all(|(place, _)| is_room(place)),
            RecipientRecord::Client(..) => true,
        })
        && record.inbox.is_none_or(|(seq, delivered_seq)| delivered_seq <= seq)
}

fn recent_record(recent: &RecentId, rooms: &RoomPlaces) -> Option<RecentRecord> {
    let to = match &recent.to {
        Recipient::Client(client, seq) => RecipientRecord::Client(*client, *seq),
        Recipient::Rooms { numbered, .. } => {
            let placed = numbered.iter().map(|(key, seq)| Some((*rooms.get(key)?, *seq)));
            RecipientRecord::Rooms(placed.collect::<Option<_>>()?)
        }
    };
    Some(RecentRecord { id: recent.id, to })
}

fn restored_id(recent: &RecentRecord, rooms: &[Option<Arc<Room>>]) -> Option<RecentId> {
    let to = match &recent.to {
        RecipientRecord::Client(client, seq) => Recipient::Client(*client, *seq),
        RecipientRecord::Rooms(numbered) => {
            let room = |place: u32| rooms.get(place as usize)?.as_deref();
            let rooms: Vec<&Room> =
                numbered.iter().map(|(place, _)| room(*place)).collect::<Option<_>>()?;
            let seqs: Vec<u64> = numbered.iter().map(|(_, seq)| *seq).collect();
            Recipient::rooms(&rooms, &seqs)
        }
    };
    Some(RecentId { id: recent.id, to })
}

fn identity_record(identity: &Identity) -> IdentityRecord {
    let grant = |grant: &Grant| {
        let (text, is_prefix) = grant.parts();
        GrantRecord { text: text.to_owned(), is_prefix, allow: grant.allow().bits() }
    };
    IdentityRecord {
        user: identity.user.to_string(),
        name: identity.name.as_deref().map(str::to_owned),
        expires_at: identity.expires_at,
        issued_at: identity.issued_at,
        token_id: identity.token_id.as_deref().map(str::to_owned),
        grants: identity.grants.iter().map(grant).collect(),
    }
}

fn restored_identity(record: IdentityRecord) -> Identity {
    let grant = |grant: &GrantRecord| {
        let allow = Permissions::from_bits_truncate(grant.allow);
        Grant::of_parts(&grant.text, grant.is_prefix, allow)
    };
    Identity {
        user: record.user.into(),
        name: record.name.map(Arc::from),
        expires_at: record.expires_at,
        issued_at: record.issued_at,
        token_id: record.token_id.map(String::into_boxed_str),
        grants: record.grants.iter().map(grant).collect(),
    }
}
