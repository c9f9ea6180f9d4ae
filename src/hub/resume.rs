//! Sessions that outlive their connection: away, resumed, taken over, expired.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use uuid::Uuid;

use super::{
    Hub, Swept,
    away::Evicted,
    conn_handle::ConnHandle,
    conn_id::ConnId,
    error::RoomError,
    event::ServerEvent,
    history::{Joined, Replay},
    inbox::Missed,
    locked_session::LockedSession,
    mailbox::{Deferred, Letter},
    names::{RoomName, RoomPattern},
    notice::Notice,
    present::{PRESENCE_MEMBERS_MAX, Presence},
    room::Room,
    rooms::matching::NAMES_PER_COST,
    session::{
        Attachment, MEMBERSHIP_BYTES, Session, SessionMembership, SessionState, format_notice,
        observe,
    },
    session_token::SessionToken,
};
use crate::{
    identity::Permissions,
    store::Position,
    ws::{close::CloseReason, frame::PreparedFrame},
};

/// The most sessions that one sweep ends; the next sweep continues.
const EXPIRED_PER_SWEEP_MAX: usize = 1000;

/// The result of a resume.
#[derive(Debug, Clone)]
pub struct Resumed {
    /// The client id of the session, which the client has again.
    pub client_id: Uuid,
    /// The client's name in presence, if it set one.
    pub name: Option<Arc<str>>,
    /// The rooms of the session, and the requested rooms that could not be joined.
    pub rooms: Vec<ResumedRoom>,
    /// The patterns that the session is subscribed to.
    pub patterns: Vec<RoomPattern>,
    /// The direct messages that the client missed, oldest first.
    pub directs: Vec<PreparedFrame>,
    /// The number of the last direct message.
    pub direct_seq: u64,
    /// Whether `directs` has all direct messages that the client missed.
    pub directs_recovered: bool,
    /// For each pattern that matches a room which the session could not join for want of a place,
    /// what the handler makes of a [`Notice::Unmatched`]: to be sent behind the answer.
    pub notices: Vec<PreparedFrame>,
}

/// One room of a resumed session.
#[derive(Debug, Clone)]
pub struct ResumedRoom {
    /// The room.
    pub room: RoomName,
    /// The messages that the client missed there, or the reason why the room could not be joined.
    pub joined: Result<Joined, RoomError>,
    /// The members of the room, if the session watches it.
    pub presence: Option<Presence>,
}

impl Hub {
    /// Attaches `conn` to the session of `token`, and returns what the session missed since
    /// `positions` and since direct message `direct_seq`. The session that the connection began
    /// with ends.
    ///
    /// Of several connections that ask for a session, the one that began last has it.
    ///
    /// The connection enters the rooms of the session. A room in `positions` that is not among them
    /// is joined, as if the client had sent a join.
    pub(crate) fn resume(
        &self,
        conn: &mut dyn ConnHandle,
        token: &SessionToken,
        positions: &[(RoomName, Position)],
        direct_seq: Option<u64>,
    ) -> Result<Resumed, RoomError> {
        let resumed = self.try_resume(conn, token, positions, direct_seq);
        resumed.inspect_err(|_| self.sessions.metrics.resumes_refused.add_shared())
    }

    fn try_resume(
        &self,
        conn: &mut dyn ConnHandle,
        token: &SessionToken,
        positions: &[(RoomName, Position)],
        direct_seq: Option<u64>,
    ) -> Result<Resumed, RoomError> {
        let (id, fresh) = (conn.id(), Arc::clone(conn.session()));
        let is_fresh = {
            let state = fresh.state.lock();
            state.fresh && state.attachment == Attachment::To(id)
        };
        if !is_fresh {
            return Err(RoomError::NotFresh);
        }
        let session = self
            .sessions
            .find_by_token(token)
            .filter(|session| session.route == fresh.route && !Arc::ptr_eq(session, &fresh))
            .ok_or(RoomError::NoSuchSession)?;
        let identity = fresh.identity();
        let user = identity.as_ref().map(|identity| &*identity.user);
        // The connection is one of its user's, whichever session it is attached to.
        let mut user_token = fresh.state.lock().user_token.take();
        let resumed = self.lock_session(&session, conn, |locked| {
            // A session belongs to its user, whoever knows its secret. The answer does not tell
            // that there is one.
            if locked.state.user() != user {
                return Err(RoomError::NoSuchSession);
            }
            // Asked under the lock: a revocation that is not seen here finds the session attached.
            if identity.as_ref().is_some_and(|of| self.authenticator.is_revoked(of)) {
                return Err(RoomError::Revoked);
            }
            match locked.state.attachment {
                Attachment::Ended => return Err(RoomError::NoSuchSession),
                Attachment::Away(since_ms) => self.sessions.unset_away(&session, since_ms),
                // A client gave that connection up before it came back on another one, and only now
                // its resume is read.
                Attachment::To(_) if fresh.nth < locked.state.attached_nth => {
                    return Err(RoomError::TakenOver);
                }
                Attachment::To(earlier) => {
                    self.sessions.metrics.sessions_taken_over.add_shared();
                    self.unsubscribe_all(locked.state);
                    let letter = Letter::Close { conn: earlier, reason: CloseReason::TAKEN_OVER };
                    self.mailboxes.push_reserved(earlier.worker(), letter, locked.deferred);
                }
            }
            locked.state.attachment = Attachment::To(id);
            locked.state.attached_nth = fresh.nth;
            session.set_sender(id);
            locked.state.fresh = false;
            self.sessions.metrics.sessions_resumed.add_shared();
            locked.conn.attach(&session);
            locked.state.shown.set_identity(identity.clone());
            locked.state.user_token = user_token.take();
            session.decide_direct(locked.state);
            if !locked.state.provisional {
                let (client_id, user) = (session.client_id, locked.state.user());
                observe(&session, &ServerEvent::Connected { client_id, user, resumed: true });
            }
            let (rooms, unmatched) = locked.take_up_rooms(positions, fresh.client_id);
            let unmatched = unmatched.iter().filter_map(|(pattern, room)| {
                format_notice(&**session.formatter(), &Notice::Unmatched { pattern, room })
            });
            let notices = unmatched.collect();
            let missed = locked.take_up_inbox(direct_seq);
            Ok(Resumed {
                client_id: session.client_id,
                name: locked.state.shown.shared_name(),
                rooms,
                patterns: locked.state.cold().patterns.iter().cloned().collect(),
                directs: missed.messages,
                direct_seq: missed.seq,
                directs_recovered: missed.is_complete,
                notices,
            })
        });
        fresh.state.lock().user_token = user_token;
        let resumed = resumed?;
        // The session may have lost its connection before it was shown in presence.
        let mut behind = self.confirm(&session);
        // A fresh session that was not shown yet ends without notices.
        behind |= self.finish(&fresh, Attachment::To(id));
        if behind {
            conn.on_backpressure();
        }
        Ok(resumed)
    }

    /// Whether the session of `token` is in a room of this name.
    pub(crate) fn session_is_in(&self, token: &SessionToken, room: &str) -> bool {
        let session = self.sessions.find_by_token(token);
        session.is_some_and(|session| session.room(room).is_some())
    }

    /// Returns how many rooms the session of `token` is in; `None` if it is not of the user of
    /// `conn`, or there is none.
    pub(crate) fn session_rooms(
        &self,
        conn: &dyn ConnHandle,
        token: &SessionToken,
    ) -> Option<usize> {
        let Some(session) = self.sessions.find_by_token(token) else {
            // It may be on another node, and is found there.
            return self.engine.as_ref().map(|_| self.limits.memberships_max());
        };
        let identity = conn.session().identity();
        let state = session.state.lock();
        let is_own = state.user() == identity.as_ref().map(|identity| &*identity.user);
        is_own.then_some(state.memberships.len())
    }

    /// Notes that the connection of a session, from `ip`, has ended. The session is away from then
    /// on, or ends if it is not resumable. Returns whether a mailbox was found behind.
    pub(crate) fn depart(
        &self,
        session: &Arc<Session>,
        (conn, ip): (ConnId, IpAddr),
        reason: &CloseReason,
    ) -> bool {
        let waits = session.resumable
            && self.limits.resume_window_ms() > 0
            && reason.may_resume()
            && !session.awaits_identity();
        let mut state = session.state.lock();
        if state.attachment != Attachment::To(conn) {
            return false;
        }
        if !state.provisional {
            let (client_id, user) = (session.client_id, state.user());
            observe(session, &ServerEvent::Disconnected { client_id, user, reason });
        }
        // The connection was lost before the Close of a revocation has reached it. One that is not
        // seen here finds the session away.
        let is_revoked = || state.identity().is_some_and(|of| self.authenticator.is_revoked(of));
        if !waits || is_revoked() {
            drop(state);
            return self.finish(session, Attachment::To(conn));
        }
        self.unsubscribe_all(&state);
        let now_ms = self.now_ms();
        state.attachment = Attachment::Away(now_ms);
        state.user_token = None;
        let is_trivial = (state.fresh || self.sessions.is_young(session)) && state.is_trivial();
        let owner = self.owners.owner_of(ip);
        let away_max = self.limits.away_max();
        let evicted = self.sessions.set_away(session, now_ms, is_trivial, owner, away_max);
        drop(state);
        self.note_change(session);
        evicted.is_some_and(|evicted| self.evict(&evicted))
    }

    /// Ends a session that is away, before its time.
    pub(super) fn evict(&self, evicted: &Evicted) -> bool {
        let metrics = &self.sessions.metrics;
        match evicted.is_of_owner {
            false => metrics.sessions_evicted.add_shared(),
            true => metrics.sessions_evicted_per_ip.add_shared(),
        }
        if evicted.is_trivial {
            metrics.sessions_evicted_trivial.add_shared();
        }
        self.finish(&evicted.session, Attachment::Away(evicted.since_ms))
    }

    /// Ends at most `max` of the sessions that are away, those that nobody would miss and those
    /// that are away longest first. Returns how many ended, and whether a mailbox was found behind.
    pub(super) fn shed_away(&self, max: usize) -> (usize, bool) {
        let (mut ended, mut behind) = (0, false);
        while ended < max
            && let Some(evicted) = self.sessions.longest_away()
        {
            behind |= self.evict(&evicted);
            ended += 1;
        }
        (ended, behind)
    }

    /// Ends the sessions that were away for longer than the resume window.
    pub(super) fn expire_sessions(&self) -> Swept {
        let mut swept = Swept::default();
        let now_ms = self.sessions.absences_until_ms(self.now_ms());
        let Some(until_ms) = now_ms.checked_sub(self.limits.resume_window_ms()) else {
            return swept;
        };
        let overdue = self.sessions.overdue(until_ms, EXPIRED_PER_SWEEP_MAX);
        swept.has_more = overdue.len() == EXPIRED_PER_SWEEP_MAX;
        for (since_ms, session) in overdue {
            self.sessions.metrics.sessions_expired.add_shared();
            swept.behind |= self.finish(&session, Attachment::Away(since_ms));
        }
        swept
    }

    /// Ends a session that is away as `expected`. The pressure that this makes is left to the next
    /// sweep.
    pub(super) fn end_away(&self, session: &Arc<Session>, expected: Attachment) {
        if let Attachment::Away(since_ms) = expected {
            self.sessions.unset_away(session, since_ms);
            self.finish(session, expected);
        }
    }

    /// Marks a session as ended, and gives back what it is counted with. Returns the rooms that it
    /// is in still.
    pub(super) fn end(&self, state: &mut SessionState) -> Vec<SessionMembership> {
        self.unsubscribe_all(state);
        state.attachment = Attachment::Ended;
        state.user_token = None;
        self.account.sessions.subtract(state.counted_bytes());
        self.account.patterns.subtract(state.cold().patterns.bytes());
        self.account.inboxes.subtract(state.inbox.take().map_or(0, |inbox| inbox.bytes()));
        state.clear_cold();
        std::mem::take(&mut state.memberships)
    }

    /// Ends a session if its attachment is still `expected`. The session leaves its rooms, and
    /// watchers are notified. Returns whether a mailbox was found behind.
    pub(super) fn finish(&self, session: &Arc<Session>, expected: Attachment) -> bool {
        let mut deferred = Deferred::default();
        let mut state = session.state.lock();
        if state.attachment != expected {
            return false;
        }
        for membership in self.end(&mut state) {
            self.remove_from_roster(session, &membership.room, &mut deferred);
        }
        // Last, so that every session on a roster is also in the table.
        self.sessions.forget(session.client_id, state.user());
        drop(state);
        self.note_change(session);
        self.mailboxes.after_unlock(&deferred);
        deferred.behind
    }

    /// Ends the subscriptions of the connection that the session is attached to.
    fn unsubscribe_all(&self, state: &SessionState) {
        let Attachment::To(conn) = state.attachment else { return };
        self.rooms.exchange(conn, &state.cold().patterns.uncovered(), &[]);
    }
}

impl LockedSession<'_> {
    /// Enters every room of the session, the rooms that its patterns match by now, and the
    /// requested ones. One bound holds for all replays together, and one for all lists of members.
    /// Also returns, for each pattern, the first room that the session could not join: one notice
    /// each, because there may be as many such rooms as the server has.
    fn take_up_rooms(
        &mut self,
        positions: &[(RoomName, Position)],
        fresh: Uuid,
    ) -> (Vec<ResumedRoom>, Vec<(RoomPattern, RoomName)>) {
        let mut bytes_max = self.hub.limits.page_bytes_max();
        let mut members_max = PRESENCE_MEMBERS_MAX;
        let mut rooms = Vec::with_capacity(self.state.memberships.len());
        let spend = |bytes_max: &mut usize, joined: &Result<Joined, RoomError>| {
            let frames = joined.as_ref().map_or(&[][..], |joined| &joined.replay);
            *bytes_max -= frames.iter().map(PreparedFrame::len).sum::<usize>().min(*bytes_max);
        };
        let mut asked: BTreeMap<&RoomName, Position> =
            positions.iter().map(|(room, since)| (room, *since)).collect();
        for (room, error) in self.drop_forbidden() {
            asked.remove(&room.name);
            let joined = Err(error);
            rooms.push(ResumedRoom { room: room.name.clone(), joined, presence: None });
        }
        let members: Vec<(Arc<Room>, bool, Permissions)> = (self.state.memberships.iter())
            .map(|of| (Arc::clone(&of.room), of.watching, of.permissions))
            .collect();
        // All of them at one instant, in the order in which publishing to several locks them: a
        // message to several rooms must not be in the replay of one whose number in another is
        // ahead of messages that are still to be delivered there.
        let mut states: Vec<_> = members.iter().map(|(room, ..)| room).collect();
        states.sort_unstable_by_key(|room| room.key);
        let mut states: Vec<_> =
            states.into_iter().map(|room| (room.key, room.state.lock())).collect();
        for (room, watching, permissions) in &members {
            let Ok(at) = states.binary_search_by_key(&room.key, |(key, _)| *key) else { continue };
            let state = &mut *states[at].1;
            let replay = asked.remove(&room.name).map_or(Replay::Nothing, Replay::Since);
            let joined = Ok(self.enter(room, state, replay, bytes_max, *permissions));
            let presence = watching.then(|| {
                // Those who are listed are known from here on, so that their leaving will be told.
                // The session that the connection began with ends without a word.
                self.hub.show_all(room, state, Some(fresh), self.deferred);
                self.enter_channel(room, state);
                let own = self.session.client_id;
                let presence = state.roster.page(own, None, members_max, Some(fresh));
                members_max -= presence.members.len();
                presence
            });
            spend(&mut bytes_max, &joined);
            rooms.push(ResumedRoom { room: room.name.clone(), joined, presence });
        }
        drop(states);
        let mut unmatched = Vec::new();
        // A pattern that another one covers matches no other rooms.
        for pattern in self.state.cold().patterns.uncovered() {
            // Enough names to find the first room that cannot be joined, behind those that were
            // left by name and those that can be joined.
            let names_max =
                self.hub.limits.memberships_max() + self.state.cold().declined.len() + 1;
            let conn = self.conn.id();
            let may_join = |room: &RoomName| self.may_join(room);
            let (names, looked_at) =
                self.hub.rooms.resubscribe(&pattern, conn, names_max, &may_join);
            self.conn.spend(looked_at / NAMES_PER_COST);
            for room in names {
                let key = self.hub.rooms.find(room.as_str()).map(|room| room.key);
                let is_declined = key.is_some_and(|key| self.state.cold().declined.contains(&key));
                if is_declined || self.state.membership(room.as_str()).is_some() {
                    continue;
                }
                if self.state.memberships.len() >= self.hub.limits.memberships_max() {
                    unmatched.push((pattern.clone(), room));
                    break;
                }
                // The room was made while the session was away, so the client missed all its
                // messages.
                let replay = asked.remove(&room).map_or(Replay::FromStart, Replay::Since);
                let by = Some(pattern.clone());
                let joined = self.add_membership(&room, replay, by, bytes_max);
                spend(&mut bytes_max, &joined);
                rooms.push(ResumedRoom { room, joined, presence: None });
            }
        }
        for (room, since) in asked {
            let joined = self.add_membership(room, Replay::Since(since), None, bytes_max);
            spend(&mut bytes_max, &joined);
            rooms.push(ResumedRoom { room: room.clone(), joined, presence: None });
        }
        (rooms, unmatched)
    }

    /// Takes the session, whose connection has entered no room yet, out of those that its new token
    /// does not grant, and notes what it does grant.
    fn drop_forbidden(&mut self) -> Vec<(Arc<Room>, RoomError)> {
        let mut dropped = Vec::new();
        let mut at = 0;
        while let Some(membership) = self.state.memberships.get(at) {
            let room = Arc::clone(&membership.room);
            let permissions = self.permissions(&room.name);
            if permissions.contains(Permissions::JOIN) {
                let membership = &mut self.state.memberships[at];
                membership.watching &= permissions.contains(Permissions::PRESENCE);
                membership.permissions = permissions;
                at += 1;
            } else {
                self.drop_membership(at);
                dropped.push((room, self.hub.forbid(Permissions::JOIN)));
            }
        }
        dropped
    }

    /// Takes the session, whose connection has entered no room yet, out of one.
    fn drop_membership(&mut self, at: usize) {
        self.hub.account.sessions.subtract(MEMBERSHIP_BYTES);
        let membership = self.state.memberships.swap_remove(at);
        self.hub.remove_from_roster(self.session, &membership.room, self.deferred);
    }

    /// Returns the direct messages after `since`, or if `None`, those that reached no connection.
    fn take_up_inbox(&mut self, since: Option<u64>) -> Missed {
        match &mut self.state.inbox {
            Some(inbox) => inbox.take(since),
            None => Missed { messages: Vec::new(), seq: 0, is_complete: since.unwrap_or(0) == 0 },
        }
    }
}

#[cfg(test)]
mod tests;
