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
            self.save(&session, false);
        }
    }

    /// Whether there is more to be written down, and somebody to be told.
    pub(crate) fn has_changes(&self) -> bool {
        self.is_listening && !self.changed.is_empty()
    }

    /// Writes everything down again: Redis may have lost it.
    pub(super) fn save_all(&mut self) {
        let all: Vec<_> = self.sessions.values().map(|kept| Arc::clone(&kept.session)).collect();
        for session in all {
            self.save(&session, true);
        }
    }

    /// Notes a session that was taken from another node.
    pub(super) fn keep_session(&mut self, session: &Arc<Session>, fence: u64, rooms: &[RoomName]) {
        let kept = KeptSession {
            session: Arc::clone(session),
            fence,
            rooms: rooms.iter().cloned().collect(),
            shown: ShownAs::default(),
            written: None,
            renewed_ms: self.hub.now_ms(),
        };
        self.sessions.insert(session.client_id, kept);
    }

    /// Writes a session down, with its rooms. `anew` if all of it may be missing.
    pub(super) fn save(&mut self, session: &Arc<Session>, anew: bool) {
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
                    written: None,
                    renewed_ms: now_ms,
                });
                self.write_session(client, path, *description, anew);
            }
        }
    }

    fn write_session(&mut self, client: Uuid, path: Bytes, what: Description, anew: bool) {
        let Description { session: shared, rooms, shown, away_since_ms, direct_seqs, resumable } =
            what;
        let (last_seq, delivered_seq) = direct_seqs;
        let Ok(record) = postcard::to_allocvec(&shared) else { return };
        let kept_ms = self.session_kept_ms();
        let Some(kept) = self.sessions.get_mut(&client) else { return };
        let node = self.node.clone();
        let away = away_since_ms.map(|since_ms| {
            let ago_ms = self.hub.now_ms().saturating_sub(since_ms);
            self.hub.clock.since_1970().as_millis() as u64 - ago_ms
        });
        let hash = match resumable {
            true => hash_of(&kept.session.token()),
            // Nothing is the hash of nothing.
            false => String::new(),
        };
        let names: Vec<&str> = rooms.iter().map(RoomName::as_str).collect();
        let args = vec![
            number(client),
            bytes(&node),
            number(kept.fence),
            hash.into(),
            path,
            record.into(),
            bytes(&names.join("\n")),
            away.map(number).unwrap_or_default(),
            number(kept_ms),
            number(delivered_seq),
            number(last_seq),
            bytes(shown.user.as_deref().unwrap_or_default()),
            number(LEASE_MS),
        ];
        let written: Bytes = args[5..].concat().into();
        let is_new = kept.written.as_ref() != Some(&written);
        let now: BTreeSet<RoomName> = rooms.into_iter().collect();
        let left: Vec<RoomName> = kept.rooms.difference(&now).cloned().collect();
        let all = anew || kept.shown != shown;
        let shown_in: Vec<RoomName> =
            now.iter().filter(|room| all || !kept.rooms.contains(*room)).cloned().collect();
        let fence = kept.fence;
        kept.written = Some(written);
        kept.rooms = now;
        let text = shown_text(&shown);
        kept.shown = shown;
        kept.renewed_ms = self.hub.now_ms();
        // A room that it has left comes before the list of its rooms, and one that it has joined
        // behind it: what is shown is in the list, and goes with the session, whatever is lost.
        for room in left {
            self.show(&room, client, fence, None);
        }
        if is_new || anew {
            let keys = vec![
                self.names.session(client),
                self.names.sessions_of(&node),
                self.names.orphans(),
                self.names.nodes(),
            ];
            self.order(&scripts::SAVE, keys, args, Sent::Save { client, fence });
        }
        for room in shown_in {
            self.show(&room, client, fence, Some(&text));
        }
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
        ];
        let sent = match shown {
            Some(_) => Sent::Show(client),
            None => Sent::Hide { room: room.clone(), client, fence },
        };
        self.order(&scripts::PRESENCE, keys, args, sent);
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
        self.tell_end(client, kept.fence);
    }

    pub(super) fn tell_end(&mut self, client: Uuid, fence: u64) {
        let node = self.node.clone();
        let keys = vec![
            self.names.session(client),
            self.names.inbox(client),
            self.names.sessions_of(&node),
        ];
        let args = vec![number(client), number(fence)];
        self.order(&scripts::END, keys, args, Sent::End { client, fence });
    }

    /// Takes the answer to a session that was written down.
    pub(super) fn on_saved(&mut self, client: Uuid, fence: u64, answer: Option<&Value>) {
        let Some(answer) = answer.and_then(Value::list) else { return };
        let Some(kept) = self.sessions.get_mut(&client) else { return };
        if answer.first().and_then(Value::int) != Some(0) {
            let last_seq = answer.get(1).and_then(Value::u64).unwrap_or_default();
            if last_seq > kept.session.last_direct() {
                self.read_directs(client);
            }
            return;
        }
        if kept.fence != fence {
            // This node took it up again meanwhile, for another connection. What was shown by the
            // earlier fence was passed over, too.
            let session = Arc::clone(&kept.session);
            self.save(&session, true);
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
            || self.undone.unwritten.contains(&client)
            || self.sent.values().any(is_shown_now);
        self.hub.give_up(&kept.session);
        if is_unsure {
            now.union(&kept.rooms).for_each(|room| self.reopen(room));
        }
    }

    /// The fence of a session that is about to act. One that Redis does not know yet is written
    /// down first.
    pub(super) fn fence_of(&mut self, session: &Arc<Session>) -> Option<u64> {
        if !self.sessions.contains_key(&session.client_id) {
            self.save(session, false);
        }
        self.sessions.get(&session.client_id).map(|kept| kept.fence)
    }

    /// How long a session is kept in Redis that nobody renews: longer than anybody may take it up.
    pub(super) fn session_kept_ms(&self) -> u64 {
        KEPT_MS.max(self.settings.resume_window_ms * 2)
    }

    /// Renews the sessions that were not written down for long.
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
            self.renew(self.names.session(client), kept_ms);
            self.renew(self.names.inbox(client), kept_ms);
        }
    }
}

/// What Redis knows of the secret of a session.
pub(super) fn hash_of(token: &SessionToken) -> String {
    let hash = digest(&SHA256, &token.secret_bytes());
    hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}
