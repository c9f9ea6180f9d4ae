//! The sessions of a node: written down when they change, taken from other nodes, and given up to
//! them.

use std::{collections::BTreeSet, sync::Arc};

use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use uuid::Uuid;

use super::{
    Core,
    beats::LEASE_MS,
    kept_session::KeptSession,
    sent::Sent,
    waits::{KEPT_MS, RENEWED_EVERY_MS},
    words::{bytes, number, shown_text},
};
use crate::{
    engine::{link::order::Value, scripts},
    hub::{
        mirror::remote::ShownAs,
        names::RoomName,
        session::{
            Session,
            shared::{Described, Description},
        },
        session_token::SessionToken,
        shards::Shards,
    },
};

/// The fence of a session that no other node has had.
const FIRST_FENCE: u64 = 1;

/// The most sessions that are written down in one turn.
const SAVED_MAX: usize = 2048;

impl Core {
    /// Writes down what has changed.
    pub(super) fn save_changed(&mut self) {
        let count = self.changed.len().min(SAVED_MAX);
        let changed: Vec<_> = self.changed.drain(..count).collect();
        for session in changed {
            self.save(&session, 0);
        }
    }

    /// Whether there is more to be written down, and somebody to be told.
    pub(crate) fn has_changes(&self) -> bool {
        self.is_any_listening() && !self.changed.is_empty()
    }

    /// Writes everything of a shard down again: it may have lost it.
    pub(super) fn save_all(&mut self, shard: usize) {
        let all: Vec<_> = self.sessions.values().map(|kept| Arc::clone(&kept.session)).collect();
        for session in all {
            self.save(&session, 1 << shard);
        }
    }

    /// Notes a session that was taken from another node, and the shards that know parts of it.
    pub(super) fn keep_session(
        &mut self,
        session: &Arc<Session>,
        fence: u64,
        rooms: &[RoomName],
        parts: &[usize],
    ) {
        let home = self.home_of(session.client_id);
        let kept = KeptSession {
            session: Arc::clone(session),
            fence,
            rooms: rooms.iter().cloned().collect(),
            shown: ShownAs::default(),
            written: [home].iter().chain(parts).map(|shard| (*shard, None)).collect(),
            renewed_ms: self.hub.now_ms(),
            contested: BTreeSet::new(),
        };
        self.sessions.insert(session.client_id, kept);
    }

    /// Writes a session down, with its rooms. `anew` has a bit for each shard in which all of it
    /// may be missing.
    pub(super) fn save(&mut self, session: &Arc<Session>, anew: u64) {
        let client = session.client_id;
        let Some(route) = self.routes.iter().find(|route| route.index == session.route) else {
            return;
        };
        match session.describe(&route.path) {
            Described::Ended => self.end_session(session),
            Described::Is(description) => {
                let path = bytes(&route.path);
                let now_ms = self.hub.now_ms();
                self.sessions.entry(client).or_insert_with(|| KeptSession {
                    session: Arc::clone(session),
                    fence: FIRST_FENCE,
                    rooms: BTreeSet::new(),
                    shown: ShownAs::default(),
                    written: Vec::new(),
                    renewed_ms: now_ms,
                    contested: BTreeSet::new(),
                });
                self.write_session(client, path, *description, anew);
            }
        }
    }

    fn write_session(&mut self, client: Uuid, path: Bytes, what: Description, anew: u64) {
        let Description { session: shared, rooms, shown, away_since_ms, direct_seqs, resumable } =
            what;
        let (last_seq, delivered_seq) = direct_seqs;
        let Ok(record) = postcard::to_allocvec(&shared) else { return };
        let kept_ms = self.session_kept_ms();
        let spread = self.spread;
        let Some(kept) = self.sessions.get_mut(&client) else { return };
        let away = away_since_ms.map(|since_ms| {
            let ago_ms = self.hub.now_ms().saturating_sub(since_ms);
            self.hub.clock.since_1970().as_millis() as u64 - ago_ms
        });
        let hash = match resumable {
            true => hash_of(&kept.session.token()),
            // Nothing is the hash of nothing.
            false => String::new(),
        };
        let whole = Written {
            client,
            hash: hash.into(),
            path,
            record: record.into(),
            away,
            direct_seqs: (delivered_seq, last_seq),
            user: bytes(shown.user.as_deref().unwrap_or_default()),
            kept_ms,
        };
        let now: BTreeSet<RoomName> = rooms.into_iter().collect();
        let names_by_shard = names_by_shard(&now, spread);
        let left: Vec<RoomName> = kept.rooms.difference(&now).cloned().collect();
        let is_other = kept.shown != shown;
        let is_missing = |room: &&RoomName| anew >> spread.of_room(room) & 1 == 1;
        let shown_in: Vec<RoomName> = now
            .iter()
            .filter(|room| is_other || is_missing(room) || !kept.rooms.contains(*room))
            .cloned()
            .collect();
        let fence = kept.fence;
        kept.rooms = now;
        let text = shown_text(&shown);
        kept.shown = shown;
        kept.renewed_ms = self.hub.now_ms();
        // A room that it has left comes before the list of its rooms, and one that it has joined
        // behind it: what is shown is in the list, and goes with the session, whatever is lost.
        for room in left {
            self.show(&room, client, fence, None);
        }
        for (shard, names) in names_by_shard.iter().enumerate() {
            self.write_in(shard, &whole, names, anew >> shard & 1 == 1);
        }
        for room in shown_in {
            // Else it is shown with everything else when the shard can be asked again.
            if self.is_up(spread.of_room(&room)) {
                self.show(&room, client, fence, Some(&text));
            }
        }
    }

    /// Writes down in a shard what it is to know of a session: all in its own one, and the fence
    /// and the `names` of its rooms there in each other one that has some, or may have had some.
    fn write_in(&mut self, shard: usize, whole: &Written, names: &str, anew: bool) {
        let client = whole.client;
        let (is_up, is_home) = (self.is_up(shard), self.home_of(client) == shard);
        let Some(kept) = self.sessions.get_mut(&client) else { return };
        if !is_home && names.is_empty() && !kept.is_known_to(shard) {
            return;
        }
        if !is_up {
            // It is written down when the shard can be asked again. One that never was there is
            // not noted, so that nothing is left of those who come and go meanwhile.
            if kept.is_known_to(shard) {
                *kept.written_in(shard) = None;
            }
            return;
        }
        let of_home = |text: &Bytes| if is_home { text.clone() } else { Bytes::new() };
        let (delivered_seq, last_seq) = if is_home { whole.direct_seqs } else { (0, 0) };
        let node = self.node.as_str();
        let mut args = vec![
            number(client),
            bytes(node),
            number(kept.fence),
            of_home(&whole.hash),
            of_home(&whole.path),
            of_home(&whole.record),
            bytes(names),
            whole.away.map(number).unwrap_or_default(),
            number(whole.kept_ms),
            number(delivered_seq),
            number(last_seq),
            of_home(&whole.user),
            number(LEASE_MS),
            self.names.prefix(),
        ];
        let written: Bytes = args[5..].concat().into();
        let known = kept.written_in(shard);
        if known.as_ref() == Some(&written) && !anew {
            return;
        }
        *known = Some(written);
        let fence = kept.fence;
        self.saved_count += 1;
        args.push(number(self.saved_count));
        let keys = vec![
            self.names.session(client),
            self.names.sessions_of(node),
            self.names.orphans(),
            self.names.nodes(),
        ];
        self.order(shard, &scripts::SAVE, keys, args, Sent::Save { client, fence });
    }

    /// Shows a client in a room to all nodes, or takes it out.
    pub(super) fn show(
        &mut self,
        room: &RoomName,
        client: Uuid,
        fence: u64,
        shown: Option<&Bytes>,
    ) {
        let names = &self.names;
        let keys = vec![names.hash(room), names.presence(room), names.session(client)];
        let args = vec![
            Bytes::from_static(if shown.is_some() { b"P" } else { b"L" }),
            number(client),
            number(fence),
            bytes(&self.node),
            shown.cloned().unwrap_or_default(),
            self.names.channel(room),
            number(self.kept_ms()),
            bytes(room.as_str()),
        ];
        let sent = match shown {
            Some(_) => Sent::Show(client),
            None => Sent::Hide { room: room.clone(), client, fence },
        };
        self.order(self.shard_of(room), &scripts::PRESENCE, keys, args, sent);
    }

    fn end_session(&mut self, session: &Arc<Session>) {
        let client = session.client_id;
        let is_it = |kept: &KeptSession| Arc::ptr_eq(&kept.session, session);
        if !self.sessions.get(&client).is_some_and(is_it) {
            return;
        }
        let Some(kept) = self.sessions.remove(&client) else { return };
        for room in &kept.rooms {
            self.show(room, client, kept.fence, None);
        }
        for shard in kept.known_to() {
            self.tell_end(shard, client, kept.fence);
        }
        kept.contested.iter().for_each(|room| self.reopen(room));
    }

    pub(super) fn tell_end(&mut self, shard: usize, client: Uuid, fence: u64) {
        let node = self.node.clone();
        let keys = vec![
            self.names.session(client),
            self.names.inbox(client),
            self.names.sessions_of(&node),
        ];
        let args = vec![number(client), number(fence), bytes(&node), self.names.prefix()];
        self.order(shard, &scripts::END, keys, args, Sent::End { client, fence });
    }

    /// Takes the answer to a session that was written down.
    pub(super) fn on_saved(
        &mut self,
        shard: usize,
        client: Uuid,
        fence: u64,
        answer: Option<&Value>,
    ) {
        let Some(answer) = answer.and_then(Value::list) else { return };
        let Some(kept) = self.sessions.get_mut(&client) else { return };
        if answer.first().and_then(Value::int) != Some(0) {
            let last_seq = answer.get(1).and_then(Value::u64).unwrap_or_default();
            if last_seq > kept.session.last_direct() && self.home_of(client) == shard {
                self.read_directs(client);
            }
            return;
        }
        if kept.fence != fence {
            // This node took it up again meanwhile, for another connection. What was shown by the
            // earlier fence was passed over, too.
            let session = Arc::clone(&kept.session);
            self.save(&session, 1 << shard);
            return;
        }
        if let Some(kept) = self.sessions.remove(&client) {
            log::info!("engine: the session of {client} was taken up by another node");
            self.let_session_go(&kept);
            // Or by this one, which never heard that it has: the link was lost before the answer.
            self.note_returned(client);
            // It may have left them since, and what was said of that is lost.
            kept.rooms.iter().for_each(|room| self.reopen(room));
        }
    }

    /// Gives up a session that another node has taken up under `fence`.
    pub(super) fn give_up(&mut self, client: Uuid, fence: u64) {
        if self.sessions.get(&client).is_some_and(|kept| kept.fence < fence)
            && let Some(kept) = self.sessions.remove(&client)
        {
            self.let_session_go(&kept);
        }
    }

    /// Gives up a session that is not kept any more. Its client stays in its rooms; those in which
    /// Redis may not show it are asked for again.
    fn let_session_go(&mut self, kept: &KeptSession) {
        let client = kept.session.client_id;
        let route = self.routes.iter().find(|route| route.index == kept.session.route);
        let now: BTreeSet<RoomName> = match route.map(|route| kept.session.describe(&route.path)) {
            Some(Described::Is(description)) => description.rooms.into_iter().collect(),
            Some(Described::Ended) | None => BTreeSet::new(),
        };
        let is_shown_now = |sent: &Sent| matches!(sent, Sent::Show(of) if *of == client);
        let is_unsure = now != kept.rooms
            || self.shards.iter().any(|shard| {
                shard.undone.unwritten.contains(&client) || shard.sent.values().any(is_shown_now)
            });
        self.hub.give_up(&kept.session);
        let home = self.home_of(client);
        for shard in kept.known_to().filter(|shard| *shard != home) {
            // In vain, unless the node that has it now could not reach this one.
            self.shards[shard].undone.returned.insert(client);
        }
        if is_unsure {
            now.union(&kept.rooms).for_each(|room| self.reopen(room));
        }
        kept.contested.iter().for_each(|room| self.reopen(room));
    }

    /// The fence of a session that is about to act in a shard. One that the shard does not know yet
    /// is written down there first.
    pub(super) fn fence_of(&mut self, session: &Arc<Session>, shard: usize) -> Option<u64> {
        let client = session.client_id;
        if !self.sessions.contains_key(&client) {
            self.save(session, 0);
        }
        let kept = self.sessions.get_mut(&client)?;
        if !kept.is_known_to(shard) {
            *kept.written_in(shard) = None;
            self.save(session, 0);
        }
        self.sessions.get(&client).map(|kept| kept.fence)
    }

    /// How long a session is kept in Redis that nobody renews: longer than anybody may take it up.
    pub(super) fn session_kept_ms(&self) -> u64 {
        KEPT_MS.max(self.hub.limits.resume_window_ms() * 2)
    }

    /// Renews the sessions that were not written down for long, each in all its shards.
    pub(super) fn renew_sessions(&mut self, now_ms: u64) {
        let is_due =
            |kept: &&mut KeptSession| now_ms.saturating_sub(kept.renewed_ms) >= RENEWED_EVERY_MS;
        let due: Vec<Uuid> = self
            .sessions
            .values_mut()
            .filter(is_due)
            .take(SAVED_MAX)
            .map(|kept| {
                kept.renewed_ms = now_ms;
                kept.session.client_id
            })
            .collect();
        for client in due {
            let kept_ms = self.session_kept_ms();
            let known_to: Vec<usize> = match self.sessions.get(&client) {
                Some(kept) => kept.known_to().filter(|shard| self.is_up(*shard)).collect(),
                None => continue,
            };
            for shard in known_to {
                self.renew(shard, self.names.session(client), kept_ms);
                if shard == self.home_of(client) {
                    self.renew(shard, self.names.inbox(client), kept_ms);
                }
            }
        }
    }
}

/// The names of rooms by shard, with a line for each name.
fn names_by_shard(rooms: &BTreeSet<RoomName>, spread: Shards) -> Vec<String> {
    let mut all = vec![String::new(); spread.count()];
    for room in rooms {
        let names = &mut all[spread.of_room(room)];
        if !names.is_empty() {
            names.push('\n');
        }
        names.push_str(room.as_str());
    }
    all
}

/// What is written down of a session.
struct Written {
    client: Uuid,
    hash: Bytes,
    path: Bytes,
    record: Bytes,
    /// Since when it is away, in milliseconds since 1970.
    away: Option<u64>,
    /// The numbers of the last direct message that a connection was sent, and of the last one.
    direct_seqs: (u64, u64),
    user: Bytes,
    kept_ms: u64,
}

/// What Redis knows of the secret of a session.
pub(super) fn hash_of(token: &SessionToken) -> String {
    let hash = digest(&SHA256, &token.secret_bytes());
    hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}
