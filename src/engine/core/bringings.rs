//! Rooms and sessions that the hub asks for.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bytes::Bytes;
use uuid::Uuid;

use super::{
    Core,
    beats::LEASE_MS,
    sent::{Bringing, ComingSession, Sent},
    sessions::hash_of,
    waits::PATIENCE_MS,
    words::{bytes, number, read_inbox},
};
use crate::{
    engine::{link::order::Value, scripts},
    hub::{
        engine::Asked,
        envelope::Envelope,
        error::RoomError,
        mirror::moved::Brought,
        names::{RoomName, RoomPattern},
        question::{Answer, Question},
        room::Room,
        session::{Session, shared::SharedSession},
        session_token::SessionToken,
    },
    store::Position,
};

/// The most rooms of a pattern that are brought for one client.
const MATCHES_MAX: usize = 1024;

impl Core {
    pub(super) fn begin_bringing(&mut self, asked: Box<Asked>) {
        let Question::Bring { rooms, may_make, pattern } = &asked.question else { return };
        let (rooms, may_make, pattern) = (rooms.clone(), *may_make, pattern.clone());
        let bringing = self.new_bringing(asked);
        if let Some(pattern) = pattern {
            self.find_matches(&pattern, bringing);
        }
        self.bring_for(bringing, rooms, may_make);
        self.note_brought(bringing, Ok(()));
    }

    /// A bringing that waits for one thing, which ends when everything is asked for.
    fn new_bringing(&mut self, asked: Box<Asked>) -> u64 {
        self.next_bringing += 1;
        if let Question::BringSession { token, .. } = &asked.question {
            self.bringings_of.insert((token.client_id(), self.next_bringing));
        }
        let shards = self.shards_of(&asked.question);
        let (directs, session) = (Vec::new(), None);
        let (left, matches_left, error) = (1, 0, None);
        let bringing = Bringing { asked, shards, left, matches_left, error, directs, session };
        self.bringings.insert(self.next_bringing, bringing);
        self.next_bringing
    }

    pub(super) fn remove_bringing(&mut self, id: u64) -> Option<Bringing> {
        let bringing = self.bringings.remove(&id)?;
        if let Question::BringSession { token, .. } = &bringing.asked.question {
            self.bringings_of.remove(&(token.client_id(), id));
        }
        Some(bringing)
    }

    /// The bringings of the session of a client: more than one if it asks on several connections.
    fn bringings_of(&self, client: Uuid) -> Vec<u64> {
        self.bringings_of.range((client, 0)..=(client, u64::MAX)).map(|(_, id)| *id).collect()
    }

    fn find_matches(&mut self, pattern: &RoomPattern, bringing: u64) {
        let prefix = pattern.prefix();
        let from = [b"[", prefix.as_bytes()].concat();
        // Behind all names that begin so: no name has this byte.
        let to = [b"(", prefix.as_bytes(), &[0xff]].concat();
        let matches_max =
            MATCHES_MAX.min(self.hub.limits.memberships_max().saturating_mul(2).saturating_add(1));
        if let Some(bringing) = self.bringings.get_mut(&bringing) {
            bringing.matches_left = bringing.matches_left.saturating_add(matches_max);
            bringing.left += self.shards.len();
        }
        // Any shard may have all of them.
        let args = vec![
            bytes("ZRANGEBYLEX"),
            self.names.rooms(),
            from.into(),
            to.into(),
            bytes("LIMIT"),
            bytes("0"),
            number(matches_max),
        ];
        for shard in 0..self.shards.len() {
            self.command(shard, args.clone(), Sent::Names { bringing });
        }
    }

    /// Brings rooms of a shard that match a pattern, as many as may be brought still. Without an
    /// answer nobody knows what matches.
    pub(super) fn on_names(&mut self, id: u64, answer: Option<&Value>) {
        let Some(names) = answer.and_then(Value::list) else {
            return self.refuse_bringing(id);
        };
        let rooms = names.iter().filter_map(|name| RoomName::new(name.text()?).ok());
        let Some(bringing) = self.bringings.get_mut(&id) else { return };
        let rooms: Vec<_> = rooms.take(bringing.matches_left).map(|room| (room, None)).collect();
        bringing.matches_left -= rooms.len();
        self.bring_for(id, rooms, false);
        self.note_brought(id, Ok(()));
    }

    /// Gives a bringing up: what it needs cannot be asked.
    pub(super) fn refuse_bringing(&mut self, id: u64) {
        if let Some(bringing) = self.remove_bringing(id) {
            self.note_unkept(&bringing.asked);
            self.answer(bringing.asked, Err(RoomError::EngineAway));
        }
    }

    /// Brings rooms, each up to its position.
    pub(super) fn bring_for(
        &mut self,
        bringing: u64,
        rooms: impl IntoIterator<Item = (RoomName, Option<Position>)>,
        may_make: bool,
    ) {
        for (room, upto) in rooms {
            if !self.bring(&room, upto, may_make, Some(bringing))
                && let Some(bringing) = self.bringings.get_mut(&bringing)
            {
                bringing.left += 1;
            }
        }
    }

    /// Notes that something that a bringing waits for is here, or cannot be had.
    pub(super) fn note_brought(&mut self, id: u64, result: Result<(), RoomError>) {
        let Some(bringing) = self.bringings.get_mut(&id) else { return };
        if let Err(error) = result {
            bringing.error.get_or_insert(error);
        }
        bringing.left -= 1;
        if bringing.left == 0
            && let Some(bringing) = self.remove_bringing(id)
        {
            self.finish_bringing(bringing);
        }
    }

    fn finish_bringing(&mut self, bringing: Bringing) {
        let Bringing { asked, error, session, directs, .. } = bringing;
        let outcome = match (&asked.question, session, error) {
            // A room of a pattern that went meanwhile matches nothing.
            (Question::Bring { rooms, .. }, _, Some(error)) if !rooms.is_empty() => Err(error),
            (Question::BringSession { token, route, .. }, Some(mut coming), error) => {
                coming.add_directs(directs);
                let outcome = match error {
                    Some(RoomError::EngineAway) => Err(RoomError::EngineAway),
                    // A room that found no space is left, and the answer says so.
                    _ => self.take_up(*coming, token, *route).map(|()| Answer::Done),
                };
                if outcome.is_err() {
                    self.note_returned(token.client_id());
                }
                outcome
            }
            _ => Ok(Answer::Done),
        };
        self.answer(asked, outcome);
    }

    pub(super) fn take_session(&mut self, asked: Box<Asked>) {
        let Question::BringSession { token, route, user, began_ms, .. } = &asked.question else {
            return;
        };
        let began_ms = *began_ms;
        let user = bytes(user.as_deref().unwrap_or_default());
        let Some(path) = self.routes.iter().find(|of| of.index == *route).map(|of| &of.path) else {
            return self.answer(asked, Err(RoomError::NoSuchSession));
        };
        let path = bytes(path);
        let client = token.client_id();
        // It may have changed in this very turn, or be unknown to Redis, which has lost it.
        if let Some(session) = self.hub.sessions.find_by_token(token) {
            self.save(&session, 0);
        }
        let home = self.home_of(client);
        let node = self.node.clone();
        let names = &self.names;
        let keys = vec![
            names.session(client),
            names.inbox(client),
            names.sessions_of(&node),
            names.orphans(),
            names.nodes(),
        ];
        let args = vec![
            number(client),
            bytes(&node),
            hash_of(token).into(),
            path,
            names.prefix(),
            number(self.session_kept_ms()),
            user,
            // No client is told sooner that its node has waited in vain.
            number(self.shards[home].redis_clock.at(self.hub.now_ms()).saturating_add(PATIENCE_MS)),
            number(LEASE_MS),
            number(self.shards[home].redis_clock.at(began_ms)),
        ];
        let bringing = self.new_bringing(asked);
        self.order(home, &scripts::TAKE, keys, args, Sent::Take { bringing });
    }

    pub(super) fn on_taken(&mut self, id: u64, answer: Option<Value>) {
        let Some(bringing) = self.bringings.get(&id) else { return };
        let Question::BringSession { token, positions, .. } = &bringing.asked.question else {
            return;
        };
        let (token, positions) = (*token, positions.clone());
        let read = answer.as_ref().and_then(read_taken);
        let Some(coming) = read else {
            if let Some(bringing) = self.remove_bringing(id) {
                let error = match answer {
                    Some(Value::Int(1)) => RoomError::TakenOver,
                    // Not in time.
                    None | Some(Value::Int(_)) => RoomError::EngineAway,
                    Some(Value::Nil) => RoomError::NoSuchSession,
                    Some(_) => {
                        log::error!("engine: the session of {} cannot be read", token.client_id());
                        self.note_returned(token.client_id());
                        RoomError::NoSuchSession
                    }
                };
                self.answer(bringing.asked, Err(error));
            }
            return;
        };
        let own: BTreeSet<RoomName> =
            coming.shared.rooms.iter().filter_map(|name| RoomName::new(name).ok()).collect();
        let (client, fence) = (token.client_id(), coming.fence);
        // To make a room, a client must join it, which has a limit.
        let positions: BTreeMap<RoomName, Position> = positions.into_iter().collect();
        let others: BTreeSet<RoomName> =
            positions.keys().filter(|room| !own.contains(*room)).cloned().collect();
        let with_position = |room: RoomName| {
            let upto = positions.get(&room).copied();
            (room, upto)
        };
        let patterns = coming.shared.record.patterns.iter();
        let patterns: Vec<_> = patterns.filter_map(|text| RoomPattern::new(text).ok()).collect();
        for other in self.bringings_of(client) {
            // Two connections ask for it, and one of them takes it up.
            let other = self.bringings.get_mut(&other).and_then(|other| other.session.as_mut());
            if let Some(session) = other {
                session.fence = coming.fence;
            }
        }
        match self.sessions.get_mut(&client) {
            // It is here: another connection takes it up, or the same client comes back.
            Some(kept) if kept.fence == coming.fence_before => kept.fence = coming.fence,
            kept => {
                if let Some(kept) = kept {
                    // It was on another node since, of which this one has not heard, and may have
                    // left rooms there.
                    let rooms = kept.rooms.clone();
                    self.give_up(client, coming.fence);
                    rooms.iter().for_each(|room| self.reopen(room));
                }
                if let Some(bringing) = self.bringings.get_mut(&id) {
                    bringing.session = Some(Box::new(coming));
                }
            }
        }
        let needed = match patterns.is_empty() {
            true => own.iter().fold(0, |shards, room| shards | 1 << self.shard_of(room)),
            false => self.spread.all(),
        };
        if let Some(bringing) = self.bringings.get_mut(&id) {
            bringing.shards |= needed;
        }
        self.fence_parts(id, client, fence);
        if !self.are_listening(needed) {
            return self.hold_bringing(id);
        }
        for pattern in patterns {
            self.find_matches(&pattern, id);
        }
        self.bring_for(id, own.into_iter().map(with_position), true);
        self.bring_for(id, others.into_iter().map(with_position), false);
        self.note_brought(id, Ok(()));
    }

    /// Tells the other shards of a session that was taken up in its own. Nothing that an earlier
    /// connection sends is taken any more when they have answered.
    fn fence_parts(&mut self, id: u64, client: Uuid, fence: u64) {
        let home = self.home_of(client);
        for shard in 0..self.shards.len() {
            // One that cannot be reached, and has no rooms of the session as far as is known, is
            // not waited for.
            if shard == home || !self.shards[shard].is_listening {
                continue;
            }
            let Some(bringing) = self.bringings.get_mut(&id) else { return };
            bringing.left += 1;
            let names = &self.names;
            let keys = vec![
                names.session(client),
                names.sessions_of(&self.node),
                names.orphans(),
                names.nodes(),
            ];
            let kept_ms = number(self.session_kept_ms());
            let args =
                vec![number(client), bytes(&self.node), number(fence), kept_ms, number(LEASE_MS)];
            self.order(shard, &scripts::FENCE, keys, args, Sent::Fence { bringing: id });
        }
    }

    pub(super) fn on_fenced(&mut self, shard: usize, id: u64, answer: Option<&Value>) {
        let Some(bringing) = self.bringings.get_mut(&id) else { return };
        let Question::BringSession { token, .. } = &bringing.asked.question else { return };
        let client = token.client_id();
        let Some([is_known, rooms]) = answer.and_then(Value::list) else {
            // If it is this node's, the shard takes nothing of it any more.
            self.shards[shard].undone.unwritten.insert(client);
            return self.note_brought(id, Err(RoomError::EngineAway));
        };
        match &mut bringing.session {
            _ if is_known.int() != Some(1) => {}
            Some(coming) => {
                coming.parts.push(shard);
                let rooms = rooms.text().unwrap_or_default().split('\n');
                coming.rooms_of_parts.extend(rooms.filter_map(|room| RoomName::new(room).ok()));
            }
            // It is at this node already.
            None => self.write_part(shard, client),
        }
        self.note_brought(id, Ok(()));
    }

    fn take_up(
        &mut self,
        coming: ComingSession,
        token: &SessionToken,
        route: u16,
    ) -> Result<(), RoomError> {
        let ComingSession { fence, shared, directs, seqs, parts, rooms_of_parts, .. } = coming;
        let SharedSession { rooms, record } = shared;
        let client = token.client_id();
        if let Some(kept) = self.sessions.get_mut(&client) {
            kept.fence = kept.fence.max(fence);
            return Ok(());
        }
        let route =
            self.routes.iter().find(|of| of.index == route).ok_or(RoomError::NoSuchSession)?;
        let names: Vec<RoomName> =
            rooms.iter().filter_map(|name| RoomName::new(name).ok()).collect();
        if names.len() != rooms.len() {
            return Err(RoomError::NoSuchSession);
        }
        let here: Vec<Option<Arc<Room>>> =
            names.iter().map(|name| self.hub.rooms.find(name.as_str())).collect();
        let frame = |(seq, message): &(u64, Bytes)| {
            let envelope = Envelope::read(message)?;
            Some((*seq, self.hub.frame_of(&envelope, &[*seq])))
        };
        let directs = directs.iter().filter_map(frame).collect();
        let brought = Brought { record, token, route, rooms: &here, directs, seqs };
        let session: Arc<Session> = self.hub.take_up(brought)?;
        self.keep_session(&session, fence, &names, &parts);
        // It is shown as one of this node from now on.
        self.save(&session, self.spread.all());
        for room in rooms_of_parts.iter().filter(|room| !names.contains(room)) {
            // It was joined, or left, while it was taken up.
            self.show(room, client, fence, None);
        }
        Ok(())
    }
}

impl Core {
    /// Whether a session is being brought to this node.
    pub(super) fn is_bringing(&self, client: Uuid) -> bool {
        !self.bringings_of(client).is_empty()
    }

    /// Keeps a direct message for a session that is being brought. Redis bounds how many may come.
    pub(super) fn hold_direct(&mut self, client: Uuid, seq: u64, message: &[u8]) {
        let inbox_max = self.inbox_bounds().messages_max;
        for id in self.bringings_of(client) {
            let bringing = self.bringings.get_mut(&id);
            if let Some(bringing) = bringing.filter(|of| of.directs.len() < inbox_max) {
                bringing.directs.push((seq, Bytes::copy_from_slice(message)));
            }
        }
    }

    /// Notes a session that was asked for in vain.
    pub(super) fn note_unkept(&mut self, asked: &Asked) {
        if let Question::BringSession { token, .. } = &asked.question {
            self.note_returned(token.client_id());
        }
    }
}

impl ComingSession {
    /// Adds the direct messages that came after it was taken.
    fn add_directs(&mut self, later: Vec<(u64, Bytes)>) {
        for (seq, message) in later {
            if seq == self.seqs.0 + 1 {
                self.seqs.0 = seq;
                self.directs.push((seq, message));
            }
        }
    }
}

fn read_taken(answer: &Value) -> Option<ComingSession> {
    let [fence, fence_before, record, _, last_seq, delivered_seq, messages] = answer.list()? else {
        return None;
    };
    let shared: SharedSession = postcard::from_bytes(record.bytes()?).ok()?;
    let directs = read_inbox(messages)?;
    let seqs = (last_seq.u64()?, delivered_seq.u64()?);
    let (fence, fence_before) = (fence.u64()?, fence_before.u64()?);
    let (parts, rooms_of_parts) = (Vec::new(), Vec::new());
    Some(ComingSession { fence, fence_before, shared, directs, seqs, parts, rooms_of_parts })
}
