//! How a session outlives its connection: going away, coming back, being taken over, running out.

use std::{collections::BTreeMap, sync::Arc};

use uuid::Uuid;

use super::{
    Hub, HubError, Joined, Replay, Swept,
    mailbox::{ConnId, Deferred, Letter},
    notice::Notice,
    presence::{LISTED_MAX, Presence},
    rooms::{RoomName, RoomPattern},
    seats::{Act, Door},
    sessions::{Session, SessionState, SessionToken, Standing},
};
use crate::{
    store::Position,
    ws::{close::CloseReason, frame::PreparedFrame},
};

/// Sessions that run out in one sweep; the next one goes on.
const EXPIRED_PER_SWEEP_MAX: usize = 1000;

/// What a resumed session is told.
#[derive(Debug, Clone)]
pub struct Resumed {
    /// The id that the client has again.
    pub client_id: Uuid,
    /// The name that it goes by in presence.
    pub name: Option<Arc<str>>,
    /// The rooms that it is in, and those that it asked for and could not join.
    pub rooms: Vec<ResumedRoom>,
    /// The patterns it is subscribed to.
    pub patterns: Vec<RoomPattern>,
    /// The direct messages that it did not get, oldest first.
    pub directs: Vec<PreparedFrame>,
    /// The number of the last direct message.
    pub direct_seq: u64,
    /// Whether `directs` are all that it did not get.
    pub directs_recovered: bool,
}

/// One room of a resumed session.
#[derive(Debug, Clone)]
pub struct ResumedRoom {
    /// The room.
    pub room: RoomName,
    /// What was missed there, or why the room could not be joined.
    pub joined: Result<Joined, HubError>,
    /// Who is there, if the session watches the room.
    pub presence: Option<Presence>,
}

impl Hub {
    /// The connection that `door` leads to takes up the session that `token` belongs to, and everything it
    /// missed since `positions`, and since direct message `direct_seq`. What it was before, `fresh`, ends.
    ///
    /// Its rooms are those of the session; a position in any other room is joined as if the client had
    /// asked for it.
    pub(crate) fn resume(
        &self,
        fresh: &Arc<Session>,
        door: &mut dyn Door,
        token: &SessionToken,
        positions: &[(RoomName, Position)],
        direct_seq: Option<u64>,
    ) -> Result<Resumed, HubError> {
        let conn = door.conn();
        let is_fresh = {
            let state = fresh.state.lock();
            state.fresh && state.standing == Standing::On(conn)
        };
        if !is_fresh {
            return Err(HubError::NotFresh);
        }
        let session = self
            .sessions
            .find_by_token(token)
            .filter(|session| session.route == fresh.route && !Arc::ptr_eq(session, fresh))
            .ok_or(HubError::NoSuchSession)?;
        let mut notices = Vec::new();
        let resumed = self.act(&session, door, |act| {
            match act.state.standing {
                Standing::Ended => return Err(HubError::NoSuchSession),
                Standing::Away(since_ms) => self.sessions.unset_away(&session, since_ms),
                Standing::On(earlier) => {
                    self.sessions.metrics.sessions_taken_over.add_shared();
                    self.unsubscribe_all(act.state);
                    let worker = usize::from(earlier.worker);
                    let reason = CloseReason::TAKEN_OVER;
                    self.post.put(worker, Letter::Close { conn: earlier, reason });
                    act.deferred.ring.insert(worker);
                }
            }
            act.state.standing = Standing::On(conn);
            session.set_speaker(conn);
            act.state.fresh = false;
            self.sessions.metrics.sessions_resumed.add_shared();
            act.door.attach(&session);
            let (rooms, unmatched) = act.take_up_rooms(positions);
            for (pattern, room) in &unmatched {
                notices.extend(session.words(&Notice::Unmatched { pattern, room }));
            }
            let patterns = act.state.rare().patterns.clone();
            let (directs, direct_seq, directs_recovered) = act.take_up_inbox(direct_seq);
            let client_id = session.client_id;
            let name = act.state.name.clone();
            Ok(Resumed { client_id, name, rooms, patterns, directs, direct_seq, directs_recovered })
        })?;
        // It may have been lost before anyone was told of it.
        let mut behind = self.confirm(&session);
        // If it was quick, nobody was told of this one, and nobody hears of its end.
        behind |= self.finish(fresh, Standing::On(conn));
        if behind {
            door.feel_pressure();
        }
        for frame in notices {
            // A mailbox that is full loses it; the rooms are in the answer all the same.
            self.post.send(conn, frame);
        }
        Ok(resumed)
    }

    /// The connection of a session has ended: the session waits for another one, or ends too.
    /// Returns whether a mailbox was found behind.
    pub(crate) fn depart(
        &self,
        session: &Arc<Session>,
        conn: ConnId,
        reason: &CloseReason,
    ) -> bool {
        let waits = session.keeps && self.resume_window_ms > 0 && reason.may_resume();
        if !waits {
            return self.finish(session, Standing::On(conn));
        }
        let mut state = session.state.lock();
        if state.standing != Standing::On(conn) {
            return false;
        }
        self.unsubscribe_all(&state);
        let now_ms = self.now_ms();
        state.standing = Standing::Away(now_ms);
        let longest_away = self.sessions.set_away(session, now_ms, self.away_max);
        drop(state);
        longest_away.is_some_and(|(since_ms, session)| {
            self.sessions.metrics.sessions_evicted.add_shared();
            self.finish(&session, Standing::Away(since_ms))
        })
    }

    /// Ends the sessions whose time to come back has run out.
    pub(super) fn expire_sessions(&self) -> Swept {
        let mut swept = Swept::default();
        let Some(until_ms) = self.now_ms().checked_sub(self.resume_window_ms) else { return swept };
        let overdue = self.sessions.overdue(until_ms, EXPIRED_PER_SWEEP_MAX);
        swept.has_more = overdue.len() == EXPIRED_PER_SWEEP_MAX;
        for (since_ms, session) in overdue {
            self.sessions.metrics.sessions_expired.add_shared();
            swept.behind |= self.finish(&session, Standing::Away(since_ms));
        }
        swept
    }

    /// Ends a session if it still stands as expected: it leaves its rooms, and those who watch are told.
    /// Returns whether a mailbox was found behind.
    fn finish(&self, session: &Arc<Session>, expected: Standing) -> bool {
        let mut deferred = Deferred::default();
        let mut state = session.state.lock();
        if state.standing != expected {
            return false;
        }
        self.unsubscribe_all(&state);
        state.standing = Standing::Ended;
        state.rare = None;
        for seat in std::mem::take(&mut state.seats) {
            self.unlist(session, &seat.room, &mut deferred);
        }
        // Last, so that whoever finds it on a roster finds it in the table.
        self.sessions.forget(session);
        drop(state);
        self.post.finish(&deferred);
        deferred.behind
    }

    /// New rooms are nothing to this connection any more.
    fn unsubscribe_all(&self, state: &SessionState) {
        let Standing::On(conn) = state.standing else { return };
        for pattern in &state.rare().patterns {
            self.rooms.unsubscribe(pattern, conn);
        }
    }
}

impl Act<'_> {
    /// Enters every room of the session, those that its patterns match by now, and those asked for. What
    /// all replays and all lists of members may come to together is bounded as for one. Returns also the
    /// first room of each pattern that had no place: more would be as many notices as there are rooms.
    fn take_up_rooms(
        &mut self,
        positions: &[(RoomName, Position)],
    ) -> (Vec<ResumedRoom>, Vec<(RoomPattern, RoomName)>) {
        let mut bytes_max = self.hub.page_bytes_max;
        let mut listed_max = LISTED_MAX;
        let mut rooms = Vec::with_capacity(self.state.seats.len());
        let spend = |bytes_max: &mut usize, joined: &Result<Joined, HubError>| {
            let frames = joined.as_ref().map_or(&[][..], |joined| &joined.replay);
            *bytes_max -= frames.iter().map(PreparedFrame::len).sum::<usize>().min(*bytes_max);
        };
        let mut asked: BTreeMap<&RoomName, Position> =
            positions.iter().map(|(room, since)| (room, *since)).collect();
        for at in 0..self.state.seats.len() {
            let seat = &self.state.seats[at];
            let (room, watching) = (Arc::clone(&seat.room), seat.watching);
            let replay = asked.remove(&room.name).map_or(Replay::Nothing, Replay::Since);
            let mut state = room.state.lock();
            let joined = Ok(self.enter(&room, &mut state, replay, bytes_max));
            let presence = watching.then(|| {
                self.enter_channel(&room, &mut state);
                let presence = state.presence(listed_max);
                listed_max -= presence.members.len();
                presence
            });
            drop(state);
            spend(&mut bytes_max, &joined);
            rooms.push(ResumedRoom { room: room.name.clone(), joined, presence });
        }
        let mut unmatched = Vec::new();
        for pattern in self.state.rare().patterns.clone() {
            // Some were left by name and the others have a place; one that has none is behind these.
            let names_max = self.hub.memberships_max + self.state.rare().declined.len() + 1;
            for room in self.hub.rooms.resubscribe(&pattern, self.door.conn(), names_max) {
                let key = self.hub.rooms.find(room.as_str()).map(|room| room.key);
                let is_declined = key.is_some_and(|key| self.state.rare().declined.contains(&key));
                if is_declined || self.state.seat(room.as_str()).is_some() {
                    continue;
                }
                if self.state.seats.len() >= self.hub.memberships_max {
                    unmatched.push((pattern.clone(), room));
                    break;
                }
                // It was made while the session was away, so all of it was missed.
                let replay = asked.remove(&room).map_or(Replay::FromStart, Replay::Since);
                let by = Some(pattern.clone());
                let joined = self.take_seat(&room, replay, by, bytes_max);
                spend(&mut bytes_max, &joined);
                rooms.push(ResumedRoom { room, joined, presence: None });
            }
        }
        for (room, since) in asked {
            let joined = self.take_seat(room, Replay::Since(since), None, bytes_max);
            spend(&mut bytes_max, &joined);
            rooms.push(ResumedRoom { room: room.clone(), joined, presence: None });
        }
        (rooms, unmatched)
    }

    /// The direct messages behind `since`, or without it those that no connection was there for; the last
    /// one's number; and whether that is all of them.
    fn take_up_inbox(&mut self, since: Option<u64>) -> (Vec<PreparedFrame>, u64, bool) {
        let Some(mail) = &mut self.state.inbox else {
            return (Vec::new(), 0, since.unwrap_or(0) == 0);
        };
        let position = mail.history.position();
        let since = Position { seq: since.unwrap_or(mail.delivered_seq), ..position };
        mail.delivered_seq = position.seq;
        match mail.history.since(since, usize::MAX) {
            Some(missed) => (missed, position.seq, true),
            None => {
                let kept = mail.history.kept_since(since.seq);
                (kept, position.seq, false)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::Config,
        hub::harness::{Bench, name},
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
    fn who_departs_waits_for_no_room() {
        for reason in [CloseReason::LOST, CloseReason::NORMAL] {
            let mut bench = Bench::new(&Config::default(), 1, 1000);
            let client = &mut bench.client(0, true);
            for pattern in ["p.*", "p.q.*"] {
                client.subscribe(pattern).expect("a place");
            }
            assert_eq!(bench.hub.rooms.subscribers(), 2);
            bench.hub.depart(&client.session, client.door.conn(), &reason);
            assert_eq!(bench.hub.rooms.subscribers(), 0, "{reason}");
        }
    }
}
