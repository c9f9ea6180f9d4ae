//! Sessions that move from one node to another.

use std::sync::Arc;

use crate::{
    hub::{
        Hub,
        conn_id::ConnId,
        error::RoomError,
        inbox::Inbox,
        mailbox::{Deferred, Letter},
        restore::RestorableRoute,
        room::Room,
        session::{
            Attachment, Session,
            saved::{RestoredIn, is_sound},
        },
        session_token::SessionToken,
    },
    snapshot::SessionRecord,
    ws::{close::CloseReason, frame::PreparedFrame},
};

/// A session that comes from another node.
pub(crate) struct Brought<'a> {
    pub(crate) record: SessionRecord,
    /// What its client has shown.
    pub(crate) token: &'a SessionToken,
    pub(crate) route: &'a RestorableRoute,
    /// The rooms of the record by their place; `None` for one that found no space.
    pub(crate) rooms: &'a [Option<Arc<Room>>],
    /// Its direct messages that are kept, with their numbers.
    pub(crate) directs: Vec<(u64, PreparedFrame)>,
    /// The numbers of the last direct message, and of the last one that a connection was sent.
    pub(crate) seqs: (u64, u64),
}

impl Hub {
    /// Gives up a session that another node has taken up: its connection is closed with 4010, and
    /// its client stays in its rooms.
    pub(crate) fn give_up(&self, session: &Arc<Session>) {
        let mut deferred = Deferred::default();
        let mut state = session.state.lock();
        match state.attachment {
            Attachment::Ended => return,
            Attachment::Away(since_ms) => self.sessions.unset_away(session, since_ms),
            Attachment::To(conn) => {
                self.sessions.metrics.sessions_taken_over.add_shared();
                let letter = Letter::Close { conn, reason: CloseReason::TAKEN_OVER };
                self.mailboxes.push_reserved(conn.worker(), letter, &mut deferred);
            }
        }
        // Nothing more is published for it.
        session.set_sender(ConnId::NONE);
        for membership in self.end(&mut state) {
            let mut room_state = membership.room.state.lock();
            room_state.roster.set_remote(session.client_id, true);
            self.rooms.note_vacancy(&membership.room, &mut room_state);
        }
        self.sessions.forget(session.client_id, state.user());
        drop(state);
        self.mailboxes.after_unlock(&deferred);
    }

    /// Takes up a session that comes from another node, as one that is away. Its rooms are here,
    /// in the order of its record.
    pub(crate) fn take_up(&self, brought: Brought<'_>) -> Result<Arc<Session>, RoomError> {
        let Brought { record, token, route, rooms, directs, seqs } = brought;
        if !is_sound(&record, rooms.len()) || record.client_id != token.client_id {
            return Err(RoomError::NoSuchSession);
        }
        let (last_seq, delivered_seq) = seqs;
        let first_seq = directs.first().map_or(last_seq + 1, |(seq, _)| *seq);
        let mut inbox = Inbox::at(first_seq - 1, delivered_seq.min(last_seq));
        for (seq, frame) in directs {
            if inbox.next_seq() == seq {
                inbox.push(frame, false, &self.limits.inbox());
            }
        }
        let inbox = (last_seq > 0).then(|| Box::new(inbox));
        let now_ms = self.now_ms();
        let within = RestoredIn {
            route: route.index,
            formatter: &route.formatter,
            rooms,
            away_since_ms: now_ms,
        };
        let record = SessionRecord { secret: token.secret, provisional: false, ..record };
        let session = Arc::new(Session::restored(record, inbox, &within));
        let mut state = session.state.lock();
        session.decide_direct(&mut state);
        self.count(&state);
        for membership in &state.memberships {
            let mut room_state = membership.room.state.lock();
            let (client, shown) = (session.client_id, state.shown.clone());
            room_state.roster.set_remote(client, false);
            match room_state.roster.is_going(client) {
                true => room_state.roster.take_back(client, shown),
                false => room_state.roster.insert_told(client, shown),
            }
            self.rooms.note_vacancy(&membership.room, &mut room_state);
        }
        let user = state.shown.shared_user();
        self.sessions.put(&session, user);
        let away_max = self.limits.away_max();
        let evicted = self.sessions.set_away(&session, now_ms, false, None, away_max);
        drop(state);
        if let Some(evicted) = evicted {
            self.evict(&evicted);
        }
        Ok(session)
    }
}
