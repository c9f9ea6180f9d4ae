//! Presence: the notices of changes of a room's roster to the clients that watch the room.
//!
//! A notice is posted under the lock of the room and then of its channel, so every watcher gets the
//! changes in order. A join is refused if a mailbox has no space for its notice. Notices that
//! follow from an accepted join are posted even beyond the bound, because they could not be
//! repeated; there are never more of them than joins.
//!
//! If there are more changes than the watchers should be told one by one, the roster gathers them,
//! and the next sweep, which is asked to come soon, sends them together.

use std::sync::Arc;

use uuid::Uuid;

use super::{
    Hub,
    charge::Charged,
    conn_handle::ConnHandle,
    error::RoomError,
    event::ServerEvent,
    locked_session::LockedSession,
    mailbox::{Deferred, Letter},
    notice::{Notice, NoticeFormatter},
    present::{MembersPage, PRESENCE_MEMBERS_MAX, Presence, Present},
    room::{Room, RoomState, workers_with_members},
    roster::{CHANGES_MAX, Changes, Shown},
    session::{Session, format_notice, observe},
};
use crate::identity::Permissions;

/// Whether a client gets [`Notice::Joined`], [`Notice::Left`] and [`Notice::PresenceChanged`] for a
/// room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Watch {
    /// As before.
    AsBefore,
    /// Begin with the notices.
    Begin,
    /// Stop the notices.
    End,
}

/// A change of a roster, as watchers see it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum RosterChange {
    /// A session joins the room. The join can be refused and repeated.
    Joins,
    /// A session that is already in the room becomes visible.
    Appears,
    Leaves,
}

/// What became of a notice.
pub(super) enum Told {
    /// It is on its way to everyone who watches, if anyone does.
    Now,
    /// It is to be told with others.
    Later,
    /// A mailbox has no space for it.
    Refused,
}

/// Who comes or goes.
pub(super) struct Who<'a> {
    pub(super) client_id: Uuid,
    /// The session, if it is on this node.
    pub(super) session: Option<&'a Arc<Session>>,
    pub(super) formatter: &'a Arc<dyn NoticeFormatter>,
}

impl<'a> Who<'a> {
    fn of(session: &'a Arc<Session>) -> Who<'a> {
        let formatter = session.formatter();
        Who { client_id: session.client_id, session: Some(session), formatter }
    }
}

impl Hub {
    /// Lists the members of a room, and begins or ends the watch in the same atomic step.
    pub(crate) fn presence(
        &self,
        conn: &mut dyn ConnHandle,
        name: &str,
        watch: Watch,
        page: MembersPage,
    ) -> Result<Presence, RoomError> {
        self.lock_own_session(conn, |locked| {
            let at = locked.state.membership(name).ok_or(RoomError::NotMember)?;
            let membership = &mut locked.state.memberships[at];
            if !membership.permissions.contains(Permissions::PRESENCE) {
                return Err(self.forbid(Permissions::PRESENCE));
            }
            let watched = membership.watching;
            let watching = match watch {
                Watch::AsBefore => watched,
                Watch::Begin => true,
                Watch::End => false,
            };
            membership.watching = watching;
            let room = Arc::clone(&membership.room);
            if watched && !watching {
                locked.exit_channel(&room);
            }
            let mut room_state = room.state.lock();
            // The answer lists hidden sessions too, so show them first: watchers then get a notice
            // when one leaves.
            self.show_all(&room, &mut room_state, None, locked.deferred);
            if !watched && watching {
                locked.enter_channel(&room, &mut room_state);
            }
            let limit = page.limit.min(PRESENCE_MEMBERS_MAX);
            Ok(room_state.roster.page(locked.session.client_id, page.after, limit, None))
        })
    }

    /// Shows a session in the presence of its rooms, once it is unlikely to resume an earlier one
    /// and its client was let in. Returns whether a mailbox was found behind.
    pub(crate) fn confirm(&self, session: &Arc<Session>) -> bool {
        if session.awaits_identity() {
            return false;
        }
        let mut deferred = Deferred::default();
        let mut state = session.state.lock();
        self.note_change(session);
        if std::mem::take(&mut state.provisional) {
            let (client_id, user) = (session.client_id, state.user());
            observe(session, &ServerEvent::Connected { client_id, user, resumed: false });
            for membership in &state.memberships {
                let mut room_state = membership.room.state.lock();
                self.show(session, &membership.room, &mut room_state, &mut deferred);
            }
        }
        drop(state);
        self.mailboxes.after_unlock(&deferred);
        deferred.behind
    }

    /// Sets a session's name in presence. Earlier notices are not corrected.
    pub(crate) fn set_name(&self, session: &Arc<Session>, name: Option<&str>) {
        let mut state = session.state.lock();
        if state.shown.name() == name {
            return;
        }
        state.shown.set_name(name.map(Arc::from));
        self.note_change(session);
        for membership in &state.memberships {
            let mut room_state = membership.room.state.lock();
            room_state.roster.set_shown(session.client_id, state.shown.clone());
        }
    }

    /// Takes a session off a room's roster, and notifies the watchers if the session was shown.
    pub(super) fn remove_from_roster(
        &self,
        session: &Arc<Session>,
        room: &Arc<Room>,
        deferred: &mut Deferred,
    ) {
        let mut room_state = room.state.lock();
        let client = session.client_id;
        let was_known = !room_state.roster.is_provisional(client);
        if was_known && let Some(shown) = room_state.roster.shown(client) {
            let room = &room.name;
            let (name, user) = (shown.name(), shown.user());
            observe(session, &ServerEvent::Left { room, client_id: client, name, user });
        }
        if let Some(shown) = room_state.roster.remove_untold(client) {
            let leaves = RosterChange::Leaves;
            let who = Who::of(session);
            match self.notify_watchers(&who, &shown, leaves, room, &mut room_state, deferred) {
                Told::Now | Told::Refused => room_state.roster.remove_told(client),
                Told::Later => {
                    room_state.roster.remove_gathered(client, session.formatter());
                    self.tell_if_many(room, &mut room_state, deferred);
                }
            }
        }
        if was_known && room_state.roster.is_empty() {
            observe(session, &ServerEvent::RoomEmpty { room: &room.name });
        }
        self.rooms.note_vacancy(room, &mut room_state);
    }

    /// Shows a session on the roster to the watchers, if it is still hidden.
    fn show(
        &self,
        session: &Arc<Session>,
        room: &Arc<Room>,
        room_state: &mut RoomState,
        deferred: &mut Deferred,
    ) {
        let client = session.client_id;
        if !room_state.roster.is_provisional(client) {
            return;
        }
        let shown = room_state.roster.shown(client).cloned().unwrap_or_default();
        let appears = RosterChange::Appears;
        note_joined(session, room, &shown);
        match self.notify_watchers(&Who::of(session), &shown, appears, room, room_state, deferred) {
            Told::Now | Told::Refused => room_state.roster.insert_told(client, shown),
            Told::Later => {
                room_state.roster.insert_gathered(client, shown, session.formatter());
                self.tell_if_many(room, room_state, deferred);
            }
        }
    }

    /// Shows every session on the roster to the watchers, but for `except`, which is about to end.
    pub(super) fn show_all(
        &self,
        room: &Arc<Room>,
        room_state: &mut RoomState,
        except: Option<Uuid>,
        deferred: &mut Deferred,
    ) {
        let mut ids = room_state.roster.provisional();
        ids.retain(|id| Some(*id) != except);
        for session in ids.iter().filter_map(|id| self.sessions.find(id)) {
            self.show(&session, room, room_state, deferred);
        }
    }

    /// Notifies the watchers of a room of a change, in the order of the changes. Returns
    /// [`Told::Refused`] if a join must be refused because a mailbox has no space for its notice.
    pub(super) fn notify_watchers(
        &self,
        who: &Who<'_>,
        shown: &Shown,
        change: RosterChange,
        room: &Arc<Room>,
        room_state: &mut RoomState,
        deferred: &mut Deferred,
    ) -> Told {
        let RoomState { roster, channel, .. } = room_state;
        let Some(watched) = &*channel else { return Told::Now };
        let watchers = watched.state.lock().members_total();
        if watchers == 0 {
            *channel = None;
            drop(roster.take_changes());
            return Told::Now;
        }
        if !roster.may_tell(self.now_ms(), watchers) {
            if roster.gathered() == 0 {
                let mut gathering = self.gathering.lock();
                deferred.sweep_soon |= gathering.is_empty();
                gathering.push(Arc::clone(room));
            }
            return Told::Later;
        }
        let (room, client_id) = (&room.name, who.client_id);
        let (name, user) = (shown.name(), shown.user());
        let notice = match change {
            RosterChange::Joins | RosterChange::Appears => {
                Notice::Joined { room, client_id, name, user }
            }
            RosterChange::Leaves => Notice::Left { room, client_id, name, user },
        };
        let may_refuse = change == RosterChange::Joins;
        match self.tell(watched, who.session, who.formatter, &notice, may_refuse, deferred) {
            true => Told::Now,
            false => Told::Refused,
        }
    }

    /// Posts a notice to every member of `channel`, and charges `payer` for it. Returns `false` if
    /// it may be refused and a mailbox has no space for it.
    fn tell(
        &self,
        channel: &Room,
        payer: Option<&Arc<Session>>,
        formatter: &Arc<dyn NoticeFormatter>,
        notice: &Notice<'_>,
        may_refuse: bool,
        deferred: &mut Deferred,
    ) -> bool {
        let Some(frame) = format_notice(&**formatter, notice) else { return true };
        let frame = frame.count(&self.account.frames);
        let mut channel_state = channel.state.lock();
        let RoomState { members, history, .. } = &mut *channel_state;
        let letters = workers_with_members(members, frame.len());
        if may_refuse {
            if self.mailboxes.reserve_all(letters.clone(), deferred).is_err() {
                return false;
            }
        } else {
            for (worker, bytes) in letters.clone() {
                self.mailboxes.reserve_over_bound(worker, bytes, deferred);
            }
        }
        let (seq, total) = (history.skip(), members.iter().map(|count| *count as usize).sum());
        let charged = Charged::new(payer, frame.len(), total, Some(channel.key));
        for (worker, _) in letters {
            let frame = frame.clone();
            let charge = charged.part(members[worker]);
            let letter = Letter::Deliver { room: channel.key, seq, frame, except: None, charge };
            self.mailboxes.push_reserved(worker, letter, deferred);
        }
        true
    }

    /// Tells what is gathered before there is more of it than one notice has.
    pub(super) fn tell_if_many(
        &self,
        room: &Room,
        room_state: &mut RoomState,
        deferred: &mut Deferred,
    ) {
        if room_state.roster.gathered() >= CHANGES_MAX {
            self.tell_gathered(room, room_state, deferred);
        }
    }

    /// Tells the watchers of a room all changes that were gathered.
    fn tell_gathered(&self, room: &Room, room_state: &mut RoomState, deferred: &mut Deferred) {
        let Some(Changes { joined, left, formatter }) = room_state.roster.take_changes() else {
            return;
        };
        let Some(channel) = &room_state.channel else { return };
        let room = &room.name;
        let notice = match (&joined[..], &left[..]) {
            ([Present { client_id, name, user }], []) => {
                let (client_id, name, user) = (*client_id, name.as_deref(), user.as_deref());
                Notice::Joined { room, client_id, name, user }
            }
            ([], [Present { client_id, name, user }]) => {
                let (client_id, name, user) = (*client_id, name.as_deref(), user.as_deref());
                Notice::Left { room, client_id, name, user }
            }
            (joined, left) => {
                self.sessions.metrics.presence_batches.add_shared();
                Notice::PresenceChanged { room, joined, left }
            }
        };
        self.tell(channel, None, &formatter, &notice, false, deferred);
    }

    /// Tells the watchers of every room what was gathered there. Returns whether a mailbox was
    /// found behind.
    pub(super) fn tell_all_gathered(&self) -> bool {
        let rooms = std::mem::take(&mut *self.gathering.lock());
        let mut deferred = Deferred::default();
        for room in rooms {
            let mut room_state = room.state.lock();
            self.tell_gathered(&room, &mut room_state, &mut deferred);
        }
        self.mailboxes.after_unlock(&deferred);
        deferred.behind
    }
}

fn note_joined(session: &Session, room: &Room, shown: &Shown) {
    let (room, client_id) = (&room.name, session.client_id);
    let (name, user) = (shown.name(), shown.user());
    observe(session, &ServerEvent::Joined { room, client_id, name, user });
}

impl LockedSession<'_> {
    /// Puts the session on the room's roster, and notifies the watchers unless the session is
    /// provisional. Returns `false`, with nothing changed, if a join must be refused.
    pub(super) fn add_to_roster(
        &mut self,
        change: RosterChange,
        room: &Arc<Room>,
        room_state: &mut RoomState,
    ) -> bool {
        let (client, shown) = (self.session.client_id, self.state.shown.clone());
        if room_state.roster.is_remote(client) {
            // The engine has listed it after it had left on this node, and watchers know it so.
            note_joined(self.session, room, &shown);
            room_state.roster.set_remote(client, false);
            room_state.roster.set_shown(client, shown);
        } else if self.state.provisional {
            room_state.roster.insert_provisional(client, shown);
        } else if room_state.roster.is_going(client) {
            note_joined(self.session, room, &shown);
            room_state.roster.take_back(client, shown);
        } else {
            let (hub, session) = (self.hub, self.session);
            let who = Who::of(session);
            let told = hub.notify_watchers(&who, &shown, change, room, room_state, self.deferred);
            if matches!(told, Told::Refused) {
                return false;
            }
            note_joined(session, room, &shown);
            match told {
                Told::Now | Told::Refused => room_state.roster.insert_told(client, shown),
                Told::Later => {
                    room_state.roster.insert_gathered(client, shown, session.formatter());
                    hub.tell_if_many(room, room_state, self.deferred);
                }
            }
        }
        room_state.note_owner(client);
        true
    }

    /// Begins presence notices of the room to the connection.
    pub(super) fn enter_channel(&mut self, room: &Room, room_state: &mut RoomState) {
        let make = || self.hub.rooms.channel_of(room);
        let channel = Arc::clone(room_state.channel.get_or_insert_with(make));
        room_state.formatter.get_or_insert_with(|| Arc::clone(self.session.formatter()));
        let mut channel_state = channel.state.lock();
        channel_state.members[self.worker()] += 1;
        let seq = channel_state.history.position().seq;
        self.conn.enter(&channel, channel.entry_at(seq), Permissions::all());
    }

    pub(super) fn exit_channel(&mut self, room: &Room) {
        let channel = room.state.lock().channel.clone();
        channel.iter().for_each(|channel| self.conn.exit(channel));
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, time::Instant};

    use uuid::Uuid;

    use super::*;
    use crate::{config::Config, hub::harness::Bench, ws::close::CloseReason};

    const LETTERS_MAX: usize = 8;

    /// The ids that a notice has behind `from` and before `to`, as a programmer sees it.
    fn ids(text: &str, from: &str, to: &str) -> Vec<Uuid> {
        let text = text.split_once(from).map_or("", |(_, after)| after);
        let text = text.split_once(to).map_or(text, |(before, _)| before);
        let id = |part: &str| part.get(..36).and_then(|id| Uuid::parse_str(id).ok());
        text.split("client_id: ").filter_map(id).collect()
    }

    #[test]
    fn where_many_come_and_go_watchers_are_told_of_many_at_once_and_of_the_truth() {
        const WATCHERS: usize = 600;
        const STEPS: usize = 1000;
        let mut bench = Bench::new(&Config::default(), 2, 1_000_000);
        let mut watchers: Vec<_> = (0..WATCHERS).map(|_| bench.client(1, false)).collect();
        watchers.iter_mut().for_each(|watcher| watcher.watch("a"));
        bench.hub.sweep();
        bench.texts(1);
        let mut crowd: Vec<_> = (0..20).map(|_| bench.client(0, false)).collect();
        let mut is_in = vec![false; crowd.len()];
        let mut known: BTreeSet<Uuid> = watchers.iter().map(|one| one.session.client_id).collect();
        let seed = Uuid::new_v4().as_u128() as u64;
        println!("seed {seed}");
        let (mut state, mut notices) = (seed, 0);
        let began = Instant::now();
        for _ in 0..STEPS {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let random = (state >> 33) as usize;
            let nth = random % crowd.len();
            match is_in[nth] {
                false => drop(crowd[nth].join("a").expect("a place")),
                true => crowd[nth].leave("a"),
            }
            is_in[nth] = !is_in[nth];
            if random.is_multiple_of(97) {
                bench.hub.sweep();
            }
            let (before, texts) = (known.clone(), bench.texts(1));
            for text in texts {
                notices += 1;
                for id in
                    ids(&text, "Joined", "\n").into_iter().chain(ids(&text, "joined: ", "left: "))
                {
                    assert!(known.insert(id), "{text}: told before");
                }
                for id in ids(&text, "Left", "\n").into_iter().chain(ids(&text, "left: ", "\n")) {
                    assert!(known.remove(&id), "{text}: was not there");
                }
            }
            // An answer is what watchers know, so that what they are told next fits it.
            let page = MembersPage::FIRST;
            let answer = bench.hub.presence(&mut watchers[0].conn, "a", Watch::AsBefore, page);
            let answer = answer.expect("it is a member");
            let listed: BTreeSet<Uuid> = answer.members.iter().map(|one| one.client_id).collect();
            assert_eq!((&listed, listed.len()), (&known, answer.count), "{before:?}");
        }
        bench.hub.sweep();
        for text in bench.texts(1) {
            notices += 1;
            known.extend(
                ids(&text, "Joined", "\n").into_iter().chain(ids(&text, "joined: ", "left: ")),
            );
            for id in ids(&text, "Left", "\n").into_iter().chain(ids(&text, "left: ", "\n")) {
                known.remove(&id);
            }
        }
        let there = crowd.iter().zip(&is_in).filter(|(_, is_in)| **is_in);
        let there: BTreeSet<Uuid> = there.map(|(one, _)| one.session.client_id).collect();
        let crowd: BTreeSet<Uuid> = crowd.iter().map(|one| one.session.client_id).collect();
        assert_eq!(&known & &crowd, there);
        // One at once and one together in each moment, and one for each of the sweeps above.
        let moments = began.elapsed().as_millis() as usize / 100 + 1;
        assert!(notices < STEPS / 97 * 2 + 2 * moments + 40, "{notices} of {STEPS}");
        assert_eq!(bench.listed("a"), WATCHERS + there.len());
    }

    #[test]
    fn the_members_of_a_large_room_come_page_by_page() {
        let mut bench = Bench::new(&Config::default(), 1, 100_000);
        let mut clients: Vec<_> = (0..1500).map(|_| bench.client(0, false)).collect();
        clients.iter_mut().for_each(|client| drop(client.join("a").expect("a place")));
        let mut all: Vec<Uuid> = clients.iter().map(|one| one.session.client_id).collect();
        all.sort_unstable();
        for limit in [1000, 400, 5000] {
            let (mut after, mut listed) = (None, Vec::new());
            loop {
                let page = MembersPage { after, limit };
                let conn = &mut clients[0].conn;
                let page = bench.hub.presence(conn, "a", Watch::AsBefore, page);
                let Presence { members, count } = page.expect("it is a member");
                assert_eq!((count, members.len() <= limit.min(1000)), (1500, true));
                listed.extend(members.iter().map(|one| one.client_id));
                after = match members.last() {
                    Some(last) => Some(last.client_id),
                    None => break,
                };
            }
            assert_eq!(listed, all);
        }
    }

    #[test]
    fn too_many_changes_for_one_notice_are_several() {
        let mut bench = Bench::new(&Config::default(), 2, 1_000_000);
        let mut watchers: Vec<_> = (0..1100).map(|_| bench.client(1, false)).collect();
        for watcher in &mut watchers {
            watcher.watch("a");
            bench.texts(1);
        }
        bench.hub.sweep();
        bench.texts(1);
        let mut crowd: Vec<_> = (0..3 * CHANGES_MAX).map(|_| bench.client(0, false)).collect();
        // On a slow machine some are told one by one, as the window for that begins anew.
        let mut texts = Vec::new();
        for client in &mut crowd {
            drop(client.join("a").expect("a place"));
            texts.extend(bench.texts(1));
        }
        bench.hub.sweep();
        texts.extend(bench.texts(1));
        let joined =
            |text: &String| ids(text, "joined: ", "left: ").len() + ids(text, "Joined", "\n").len();
        let told: Vec<usize> = texts.iter().map(joined).collect();
        assert_eq!(told.iter().sum::<usize>(), crowd.len());
        assert!(told.iter().all(|count| *count <= CHANGES_MAX), "{told:?}");
    }

    #[test]
    fn a_join_that_cannot_be_told_is_refused_and_leaves_no_trace() {
        let mut bench = Bench::new(&Config::default(), 2, LETTERS_MAX);
        let mut watcher = bench.client(1, false);
        watcher.watch("a");
        let mut clients: Vec<_> = (0..=LETTERS_MAX).map(|_| bench.client(0, false)).collect();
        for (waiting, client) in clients[..LETTERS_MAX].iter_mut().enumerate() {
            client.join("a").expect("a place");
            let is_behind = waiting + 1 > LETTERS_MAX / 2;
            assert_eq!(client.conn.pressed > 0, is_behind, "{waiting} waited");
        }
        let outside = &mut clients[LETTERS_MAX];
        assert_eq!(outside.join("a").err(), Some(RoomError::Overloaded));
        assert_eq!(bench.hub.mailboxes.waiting(1), LETTERS_MAX);
        assert_eq!((bench.listed("a"), bench.members("a")), (LETTERS_MAX + 1, LETTERS_MAX + 1));
        assert!(outside.conn.rooms.is_empty() && outside.session.room("a").is_none());
        // A room without watchers refuses nobody.
        outside.join("b").expect("a place");
        assert_eq!(bench.texts(1).len(), LETTERS_MAX);
        outside.join("a").expect("there is a place again");
        assert_eq!(bench.texts(1).len(), 1);
    }

    #[test]
    fn what_follows_from_a_join_is_told_in_any_case() {
        let mut bench = Bench::new(&Config::default(), 2, LETTERS_MAX);
        let mut watcher = bench.client(1, false);
        watcher.watch("a");
        let mut newcomer = bench.client(0, true);
        newcomer.join("a").expect("it is not told yet, so nothing is in its way");
        let mut crowd: Vec<_> = (0..LETTERS_MAX).map(|_| bench.client(0, false)).collect();
        crowd.iter_mut().for_each(|client| drop(client.join("a").expect("a place")));
        assert!(
            bench.hub.confirm(&newcomer.session),
            "who shows it hears that a mailbox is behind"
        );
        let pressed = crowd[0].conn.pressed;
        crowd[0].leave("a");
        assert_eq!(crowd[0].conn.pressed, pressed + 1, "and so does who leaves");
        let gone = &crowd[1];
        assert!(bench.hub.depart(&gone.session, gone.at(), &CloseReason::NORMAL));
        let texts = bench.texts(1);
        assert_eq!(texts.len(), LETTERS_MAX + 3);
        assert!(texts[LETTERS_MAX].starts_with("Joined"), "{texts:?}");
        assert!(texts[LETTERS_MAX + 1..].iter().all(|text| text.starts_with("Left")), "{texts:?}");
    }
}
