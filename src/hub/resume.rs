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
    rooms::matching::NAMES_PER_COST,
    session::{Attachment, MEMBERSHIP_BYTES, Session, SessionState, format_notice, observe},
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
        let mut notices = Vec::new();
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
                Attachment::To(earlier) => {
                    self.sessions.metrics.sessions_taken_over.add_shared();
                    self.unsubscribe_all(locked.state);
                    let letter = Letter::Close { conn: earlier, reason: CloseReason::TAKEN_OVER };
                    self.mailboxes.push_reserved(earlier.worker(), letter, locked.deferred);
                }
            }
            locked.state.attachment = Attachment::To(id);
            session.set_sender(id);
            locked.state.fresh = false;
            self.sessions.metrics.sessions_resumed.add_shared();
            locked.conn.attach(&session);
            locked.state.identity.clone_from(&identity);
            locked.state.user_token = user_token.take();
            session.decide_direct(locked.state);
            if !locked.state.provisional {
                let (client_id, user) = (session.client_id, locked.state.user());
                observe(&session, &ServerEvent::Connected { client_id, user, resumed: true });
            }
            let (rooms, unmatched) = locked.take_up_rooms(positions, fresh.client_id);
            for (pattern, room) in &unmatched {
                let notice = Notice::Unmatched { pattern, room };
                notices.extend(format_notice(&**session.formatter(), &notice));
            }
            let missed = locked.take_up_inbox(direct_seq);
            Ok(Resumed {
                client_id: session.client_id,
                name: locked.state.name.clone(),
                rooms,
                patterns: locked.state.cold().patterns.iter().cloned().collect(),
                directs: missed.messages,
                direct_seq: missed.seq,
                directs_recovered: missed.is_complete,
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
        for frame in notices {
            // A full mailbox drops this notice. The answer lists the rooms anyway.
            self.mailboxes.send(id, frame);
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
        let session = self.sessions.find_by_token(token)?;
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
        let is_revoked =
            || state.identity.as_ref().is_some_and(|of| self.authenticator.is_revoked(of));
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
        evicted.is_some_and(|evicted| self.evict(&evicted))
    }

    /// Ends a session that is away, before its time.
    fn evict(&self, evicted: &Evicted) -> bool {
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

    /// Ends a session if its attachment is still `expected`. The session leaves its rooms, and
    /// watchers are notified. Returns whether a mailbox was found behind.
    pub(super) fn finish(&self, session: &Arc<Session>, expected: Attachment) -> bool {
        let mut deferred = Deferred::default();
        let mut state = session.state.lock();
        if state.attachment != expected {
            return false;
        }
        self.unsubscribe_all(&state);
        state.attachment = Attachment::Ended;
        state.user_token = None;
        self.account.sessions.subtract(state.counted_bytes());
        self.account.patterns.subtract(state.cold().patterns.bytes());
        self.account.inboxes.subtract(state.inbox.take().map_or(0, |inbox| inbox.bytes()));
        state.clear_cold();
        for membership in std::mem::take(&mut state.memberships) {
            self.remove_from_roster(session, &membership.room, &mut deferred);
        }
        // Last, so that every session on a roster is also in the table.
        self.sessions.forget(session.client_id, state.user());
        drop(state);
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
        let mut at = 0;
        while let Some(membership) = self.state.memberships.get(at) {
            let (room, watching) = (Arc::clone(&membership.room), membership.watching);
            let permissions = self.permissions(&room.name);
            if !permissions.contains(Permissions::JOIN) {
                // The new token grants less than the one before.
                self.drop_membership(at);
                asked.remove(&room.name);
                let joined = Err(self.hub.forbid(Permissions::JOIN));
                rooms.push(ResumedRoom { room: room.name.clone(), joined, presence: None });
                continue;
            }
            let watching = watching && permissions.contains(Permissions::PRESENCE);
            self.state.memberships[at].watching = watching;
            self.state.memberships[at].permissions = permissions;
            at += 1;
            let replay = asked.remove(&room.name).map_or(Replay::Nothing, Replay::Since);
            let mut state = room.state.lock();
            let joined = Ok(self.enter(&room, &mut state, replay, bytes_max, permissions));
            let presence = watching.then(|| {
                // Those who are listed are known from here on, so that their leaving will be told.
                // The session that the connection began with ends without a word.
                self.hub.show_all(&room, &mut state, Some(fresh), self.deferred);
                self.enter_channel(&room, &mut state);
                let own = self.session.client_id;
                let presence = state.roster.page(own, None, members_max, Some(fresh));
                members_max -= presence.members.len();
                presence
            });
            drop(state);
            spend(&mut bytes_max, &joined);
            rooms.push(ResumedRoom { room: room.name.clone(), joined, presence });
        }
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
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        clock::Clock,
        config::Config,
        hub::{
            harness::{Bench, Client, name},
            publish::Publication,
            session::Sender,
        },
        identity::{Identity, Revocation},
    };

    #[test]
    fn a_resume_names_one_room_without_a_place_of_each_pattern() {
        let config = Config { max_rooms_per_conn: 4, ..Config::default() };
        let mut bench = Bench::new(&config, 1, 1000);
        let mut client = bench.client(0, true);
        client.join("own").expect("a place");
        for pattern in ["p.*", "q.*"] {
            client.subscribe(pattern).expect("a place");
        }
        bench.client(0, false).join("p.left").expect("a place");
        client.join("p.left").expect("a place");
        client.leave("p.left");
        client.lose();
        for n in 10..60 {
            for room in ["p", "q"] {
                let room = name(&format!("{room}.{n}"));
                let made = bench.hub.rooms.enter(&room, &mut Deferred::default(), |_, _| ());
                made.expect("there may be as many");
            }
        }
        bench.letters(0);
        let resumed = bench.client(0, true).resume(&client.session).expect("it waits");
        let rooms: Vec<_> = resumed.rooms.iter().map(|room| room.room.as_str()).collect();
        assert_eq!(rooms, ["own", "p.10", "p.11", "p.12"], "the one that was left stays left");
        let texts = bench.texts(0);
        let expected = [("p.*", "p.13"), ("q.*", "q.10")]
            .map(|(pattern, room)| format!("Unmatched {{ pattern: {pattern:?}, room: {room:?} }}"));
        assert_eq!(texts, expected);
    }

    #[test]
    fn whom_a_resumed_watcher_is_told_of_leaves_with_a_notice() {
        let mut bench = Bench::new(&Config::default(), 1, 1000);
        let mut watcher = bench.client(0, true);
        watcher.watch("a");
        bench.hub.confirm(&watcher.session);
        watcher.lose();
        // Nobody was told of either yet; the second is what the watcher comes back on.
        let [mut newcomer, mut fresh] = [(); 2].map(|()| bench.client(0, true));
        for client in [&mut newcomer, &mut fresh] {
            client.join("a").expect("a place");
        }
        let resumed = fresh.resume(&watcher.session).expect("it waits");
        let presence = resumed.rooms[0].presence.as_ref().expect("it watches");
        let mut listed: Vec<_> = presence.members.iter().map(|member| member.client_id).collect();
        listed.sort_unstable();
        let mut there = [watcher.session.client_id, newcomer.session.client_id];
        there.sort_unstable();
        assert_eq!((&listed[..], presence.count), (&there[..], 2), "not what has just ended");
        bench.hub.confirm(&newcomer.session);
        assert_eq!(bench.texts(0), [""; 0], "it is known already");
        bench.hub.depart(&newcomer.session, newcomer.at(), &CloseReason::NORMAL);
        let texts = bench.texts(0);
        assert!(texts.len() == 1 && texts[0].starts_with("Left"), "{texts:?}");
    }

    #[test]
    fn sessions_that_did_nothing_are_evicted_first() {
        let config = Config { max_away_sessions: 10, ..Config::default() };
        let mut bench = Bench::new(&config, 1, 1000);
        let mut worth: Vec<Client> = (0..4).map(|_| bench.client(0, true)).collect();
        worth[0].join("a").expect("a place");
        worth[1].subscribe("a.*").expect("a place");
        let by = Sender { session: &worth[3].session, conn: worth[3].conn() };
        let to = worth[2].session.client_id;
        let id = Uuid::new_v4();
        bench.hub.direct(by, &to, &Publication::from("x").dedup_id(id)).expect("it is sent");
        worth.iter_mut().for_each(Client::lose);
        for _ in 0..100 {
            let mut trivial = bench.client(0, true);
            trivial.join("lobby").expect("a place");
            trivial.lose();
        }
        let metrics = &bench.hub.sessions.metrics;
        let evicted = [&metrics.sessions_evicted, &metrics.sessions_evicted_trivial];
        assert_eq!(evicted.map(crate::metrics::Counter::value), [94, 94]);
        assert_eq!(bench.hub.sessions.gauges().1, 10);
        for client in &worth {
            let mut back = bench.client(0, true);
            back.resume(&client.session).expect("it was kept");
        }
    }

    #[test]
    fn one_address_has_half_of_the_places_and_its_own_sessions_go_first() {
        let config = Config { max_away_sessions: 7, ..Config::default() };
        let mut bench = Bench::with_clock(&config, 1, 1000, Clock::stepped());
        let [office, other] = ["192.0.2.1", "2001:db8::1"].map(|ip| ip.parse().expect("legal"));
        let mut lose = |ip, is_trivial: bool| {
            let mut client = bench.client(0, true).from(ip);
            if !is_trivial {
                client.join("a").expect("a place");
            }
            client.lose();
            bench.hub.clock.advance(Duration::from_millis(1));
            client.session
        };
        let away = lose(other, true);
        let of_office: Vec<_> = (0..3).map(|_| lose(office, false)).collect();
        let trivial = lose(office, true);
        let more = [(); 2].map(|()| lose(office, false));
        // This machine's has no limit.
        let unlimited: Vec<_> = (0..2).map(|_| lose(IpAddr::from([127, 0, 0, 1]), false)).collect();
        let metrics = &bench.hub.sessions.metrics;
        let evicted = [&metrics.sessions_evicted, &metrics.sessions_evicted_per_ip];
        assert_eq!(evicted.map(crate::metrics::Counter::value), [0, 2]);
        let mut is_there = |session: &Arc<Session>| bench.client(0, true).resume(session).is_ok();
        assert!(is_there(&away) && unlimited.iter().all(&mut is_there));
        assert!(!is_there(&trivial) && !is_there(&of_office[0]));
        assert!(of_office[1..].iter().chain(&more).all(is_there));
    }

    #[test]
    fn what_is_gone_is_counted_no_more() {
        let mut bench = Bench::new(&Config::default(), 1, 1000);
        let before = bench.hub.account.balance();
        let mut clients: Vec<Client> = (0..3).map(|_| bench.client(0, true)).collect();
        for client in &mut clients {
            ["a", "b"].iter().for_each(|room| drop(client.join(room).expect("a place")));
            ["p.*", "p.q.*", "q.*"].iter().for_each(|to| drop(client.subscribe(to)));
            client.leave("a");
        }
        clients[0].join("p.q.r").expect("a place");
        let rooms = ["b", "p.q.r"].map(|room| bench.hub.rooms.find(room).expect("it is there"));
        let by = Sender { session: &clients[0].session, conn: clients[0].conn() };
        for _ in 0..200 {
            let publication = Publication::from("x").dedup_id(Uuid::new_v4());
            let rooms: Vec<&crate::hub::Room> = rooms.iter().map(AsRef::as_ref).collect();
            bench.hub.publish_to_rooms(by, &rooms, &publication).expect("it is published");
            let to = clients[1].session.client_id;
            bench.hub.direct(by, &to, &publication).expect("it is sent");
            bench.letters(0);
        }
        let now = bench.hub.account.balance();
        assert!(now.sessions > before.sessions + 3 * 100 && now.sessions < 60_000, "{now:?}");
        assert!(now.patterns > 0 && now.inboxes > 0 && now.histories > 0, "{now:?}");
        for client in &clients {
            bench.hub.depart(&client.session, client.at(), &CloseReason::NORMAL);
        }
        let now = bench.hub.account.balance();
        assert_eq!((now.sessions, now.patterns, now.inboxes), (0, 0, 0));
    }

    #[test]
    fn a_resume_replays_nothing_to_a_client_without_the_permission() {
        for (permissions, replayed) in
            [(Permissions::all(), 1), (Permissions::all() - Permissions::HISTORY, 0)]
        {
            let mut bench = Bench::new(&Config::default(), 1, 1000);
            let mut client = bench.client_who_may(permissions, 0, true);
            let Position { epoch, .. } = client.join("a").expect("a place").position;
            client.lose();
            let by = bench.client(0, false);
            let by = Sender { session: &by.session, conn: by.conn() };
            let room = bench.hub.rooms.find("a").expect("it is there");
            bench.hub.publish(Some(by), &room, &"x".into()).expect("it is published");
            let mut again = bench.client_who_may(permissions, 0, true);
            let since = [(name("a"), Position { epoch, seq: 0 })];
            let token = client.session.token();
            let resumed = bench.hub.resume(&mut again.conn, &token, &since, None);
            let resumed = resumed.expect("it waits");
            let joined = resumed.rooms[0].joined.as_ref().expect("it may be in there");
            assert_eq!(joined.replay.len(), replayed);
            assert_eq!(joined.recovered, replayed > 0);
        }
    }

    #[test]
    fn a_client_that_never_said_who_it_is_leaves_nothing_behind() {
        let mut bench = Bench::new(&Config::default(), 1, 1000);
        let [mut outsider, mut user] = [(); 2].map(|()| bench.client(0, true));
        outsider.session.set_awaits_identity(true);
        user.session.set_awaits_identity(true);
        let known = bench.hub.set_identity(&mut user.conn, Identity::new("u"));
        known.expect("nothing is revoked");
        outsider.lose();
        assert_eq!(bench.hub.sessions.gauges(), (1, 0));
        user.lose();
        assert_eq!(bench.hub.sessions.gauges(), (1, 1), "it has said it");
    }

    #[test]
    fn a_client_that_sent_nothing_is_evicted_first_however_long_it_stayed() {
        let config = Config { max_away_sessions: 2, ..Config::default() };
        let mut bench = Bench::with_clock(&config, 1, 1000, Clock::stepped());
        let mut clients: Vec<Client> = (0..3).map(|_| bench.client(0, true)).collect();
        clients[0].session.set_begun();
        bench.hub.clock.advance(Duration::from_secs(60));
        clients.iter_mut().for_each(Client::lose);
        bench.client(0, true).resume(&clients[0].session).expect("it was kept");
        assert_eq!(bench.hub.sessions.metrics.sessions_evicted_trivial.value(), 1);
    }

    #[test]
    fn a_revoked_user_resumes_nothing_and_leaves_nothing_behind() {
        let mut bench = Bench::new(&Config::default(), 1, 1000);
        let mut user = || {
            let mut client = bench.client(0, true);
            let identity = Identity::new("u");
            bench.hub.set_identity(&mut client.conn, identity).expect("nothing is revoked");
            client
        };
        let [mut earlier, mut again, mut late] = [user(), user(), user()];
        earlier.lose();
        // As far as a revocation has come that has not looked at the sessions yet.
        bench.hub.authenticator.revoke(&Revocation::user("u"));
        assert_eq!(again.resume(&earlier.session).err(), Some(RoomError::Revoked));
        assert_eq!(bench.hub.sessions.gauges().1, 1, "it is as it was");
        late.lose();
        assert_eq!(bench.hub.sessions.gauges(), (2, 1), "whose Close has not come yet");
    }

    #[test]
    fn who_departs_waits_for_no_room() {
        for reason in [CloseReason::LOST, CloseReason::NORMAL] {
            let mut bench = Bench::new(&Config::default(), 1, 1000);
            let client = &mut bench.client(0, true);
            for pattern in ["p.*", "q.*", "p.q.*"] {
                client.subscribe(pattern).expect("a place");
            }
            assert_eq!(bench.hub.rooms.subscribers(), 2);
            bench.hub.depart(&client.session, client.at(), &reason);
            assert_eq!(bench.hub.rooms.subscribers(), 0, "{reason}");
        }
    }
}
