//! The table of sessions: all by client id, and those that are away by time.
//!
//! A resumable session outlives its connection: for the resume window it keeps the client's id,
//! rooms and direct messages, and a connection that knows the secret can resume it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    ops::Bound,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;
use uuid::Uuid;

use super::{
    away::{Away, Evicted},
    conn_id::ConnId,
    event::ServerEvent,
    notice::NoticeFormatter,
    session::{SESSION_BYTES, Session, observe},
    session_token::SessionToken,
};
use crate::{
    clock::Clock, limits::owner::Owner, memory::account::Account, metrics::SessionMetrics,
};

/// All sessions. Usable from any thread. The lock of the table is taken after a session's, never
/// before.
pub(crate) struct Sessions {
    table: Mutex<Table>,
    /// Where the ids of clients are counted up instead of drawn: the next one.
    counted_ids: Option<AtomicU64>,
    /// The sessions that have begun on connections.
    begun: AtomicU64,
    clock: Arc<Clock>,
    /// When absences ceased to count; `u64::MAX` while they do.
    absences_end_ms: AtomicU64,
    account: Arc<Account>,
    pub(crate) metrics: SessionMetrics,
}

#[derive(Default)]
struct Table {
    /// In the order of their ids, in which they can be listed page by page.
    by_client: BTreeMap<Uuid, Arc<Session>>,
    /// The sessions that have a user, by its name.
    by_user: BTreeSet<(Arc<str>, Uuid)>,
    /// Sessions without a connection.
    away: Away,
}

/// A session that is younger than this may be one of many that are begun for nothing.
pub(super) const TRIVIAL_AGE_MS: u64 = 5000;

/// The part of a counted id that is the count; the rest says what kind of id it is.
const COUNTED_ID_MAX: u64 = (1 << 62) - 1;

/// The bits of such a count that are of one server; those above are when it began.
const COUNTED_BITS: u32 = 20;

impl Sessions {
    /// A table for sessions under random client ids, or, where the clock is stepped, under ids that
    /// are the same in each run, for tests that must be repeatable.
    pub(super) fn new(account: Arc<Account>, clock: Arc<Clock>) -> Sessions {
        Sessions {
            table: Mutex::default(),
            counted_ids: clock.first_number().map(AtomicU64::new),
            begun: AtomicU64::new(0),
            clock,
            absences_end_ms: AtomicU64::new(u64::MAX),
            account,
            metrics: SessionMetrics::default(),
        }
    }

    /// Counts no absence any more: nobody can come back.
    pub(super) fn stop_absences(&self) {
        self.absences_end_ms.store(self.clock.now_ms(), Ordering::Relaxed);
    }

    /// Returns `now_ms`, or when absences ceased to count.
    pub(super) fn absences_until_ms(&self, now_ms: u64) -> u64 {
        now_ms.min(self.absences_end_ms.load(Ordering::Relaxed))
    }

    /// Whether a session has begun just now.
    pub(super) fn is_young(&self, session: &Session) -> bool {
        self.clock.now_ms().saturating_sub(session.began_ms) < TRIVIAL_AGE_MS
    }

    /// Begins a session on `conn`, with a fresh client id. The caller must pass the session to
    /// [`Hub::depart`](super::Hub::depart) when the connection ends.
    pub(crate) fn begin(
        &self,
        conn: ConnId,
        route: u16,
        resumable: bool,
        formatter: Arc<dyn NoticeFormatter>,
    ) -> Arc<Session> {
        let client_id = self.counted_ids.as_ref().map_or_else(Uuid::new_v4, |next| {
            let count = next.fetch_add(1, Ordering::Relaxed);
            uuid::Builder::from_random_bytes(u128::from(count).to_be_bytes()).into_uuid()
        });
        let began = (self.clock.now_ms(), self.begun.fetch_add(1, Ordering::Relaxed));
        let session = Session::new(client_id, conn, route, resumable, formatter, began);
        let session = Arc::new(session);
        self.account.sessions.add(SESSION_BYTES);
        self.table.lock().by_client.insert(session.client_id, Arc::clone(&session));
        if !resumable {
            let client_id = session.client_id;
            // Nobody has said yet who it is.
            observe(&session, &ServerEvent::Connected { client_id, user: None, resumed: false });
        }
        session
    }

    /// Lists a session with a user, that came out of a snapshot. There must be none with its id.
    pub(super) fn put(&self, session: &Arc<Session>, user: Option<Arc<str>>) {
        let client_id = session.client_id;
        if let Some(next) = &self.counted_ids {
            let count = client_id.as_u64_pair().1 & COUNTED_ID_MAX;
            // Another server, which began at another time, counts on by itself.
            if count >> COUNTED_BITS == next.load(Ordering::Relaxed) >> COUNTED_BITS {
                next.fetch_max(count + 1, Ordering::Relaxed);
            }
        }
        let mut table = self.table.lock();
        let before = table.by_client.insert(client_id, Arc::clone(session));
        debug_assert!(before.is_none(), "each is in a snapshot once");
        table.by_user.extend(user.map(|user| (user, client_id)));
    }

    pub(crate) fn find(&self, client_id: &Uuid) -> Option<Arc<Session>> {
        self.table.lock().by_client.get(client_id).cloned()
    }

    /// Lists at most `limit` sessions behind `after`, in the order of their ids.
    pub(super) fn list(&self, after: Option<Uuid>, limit: usize) -> Vec<Arc<Session>> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let table = self.table.lock();
        let sessions = table.by_client.range((from, Bound::Unbounded)).take(limit);
        sessions.map(|(_, session)| Arc::clone(session)).collect()
    }

    /// Lists at most `limit` sessions of `user` behind `after`, in the order of their ids.
    pub(super) fn list_of_user(
        &self,
        user: &str,
        after: Option<Uuid>,
        limit: usize,
    ) -> Vec<Arc<Session>> {
        let user: Arc<str> = user.into();
        let from = match after {
            None => Bound::Included((Arc::clone(&user), Uuid::nil())),
            Some(after) => Bound::Excluded((Arc::clone(&user), after)),
        };
        let to = Bound::Included((user, Uuid::max()));
        let table = self.table.lock();
        let ids = table.by_user.range((from, to)).take(limit);
        ids.filter_map(|(_, id)| table.by_client.get(id).cloned()).collect()
    }

    /// Notes that a session has a user from now on.
    pub(super) fn set_user(&self, client_id: Uuid, user: Arc<str>) {
        self.table.lock().by_user.insert((user, client_id));
    }

    /// Notes that a session has no user after all.
    pub(super) fn unset_user(&self, client_id: Uuid, user: Arc<str>) {
        self.table.lock().by_user.remove(&(user, client_id));
    }

    /// Finds the session of a token.
    pub(crate) fn find_by_token(&self, token: &SessionToken) -> Option<Arc<Session>> {
        self.find(&token.client_id).filter(|session| session.token().has_secret_of(token))
    }

    /// Counts all sessions, and those that are away.
    pub(crate) fn gauges(&self) -> (usize, usize) {
        let table = self.table.lock();
        (table.by_client.len(), table.away.len())
    }

    pub(super) fn forget(&self, client_id: Uuid, user: Option<&str>) {
        let mut table = self.table.lock();
        table.by_client.remove(&client_id);
        if let Some(user) = user {
            table.by_user.remove(&(user.into(), client_id));
        }
    }

    /// Lists a session as away. `owner` is that of its lost connection. If more than `max` are
    /// away, or too many of the owner, removes and returns the trivial one of those that is away
    /// longest, or if none is trivial the one that is away longest.
    pub(super) fn set_away(
        &self,
        session: &Arc<Session>,
        since_ms: u64,
        is_trivial: bool,
        owner: Option<Owner>,
        max: usize,
    ) -> Option<Evicted> {
        self.table.lock().away.insert(session, since_ms, is_trivial, owner, max)
    }

    /// Whether one more session of `owner` may be away, if `max` of all may.
    pub(super) fn has_place_for(&self, owner: &Owner, max: usize) -> bool {
        self.table.lock().away.has_place_for(owner, max)
    }

    /// Returns the address whose limits hold for a session that is away since `since_ms`.
    pub(super) fn address_of(&self, client_id: Uuid, since_ms: u64) -> Option<IpAddr> {
        match self.table.lock().away.owner_of(client_id, since_ms)? {
            Owner::Address(ip) => Some(*ip),
            Owner::User(_) => None,
        }
    }

    /// Takes the session off the list that must end first for want of space.
    pub(super) fn longest_away(&self) -> Option<Evicted> {
        self.table.lock().away.pop_longest()
    }

    pub(super) fn unset_away(&self, session: &Session, since_ms: u64) {
        self.table.lock().away.remove(session.client_id, since_ms);
    }

    /// Takes at most `max` sessions off the list that have been away since `until_ms` or longer.
    pub(super) fn overdue(&self, until_ms: u64, max: usize) -> Vec<(u64, Arc<Session>)> {
        self.table.lock().away.overdue(until_ms, max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        hub::{
            notice::Notice,
            session::{RECENT_IDS_MAX, Recipient},
            session_token::NotAToken,
        },
        memory::tally::Tally,
        ws::frame::PreparedFrame,
    };

    struct Silent;

    impl NoticeFormatter for Silent {
        fn notice(&self, _: &Notice<'_>) -> Option<PreparedFrame> {
            None
        }
    }

    fn sessions() -> Sessions {
        Sessions::new(Arc::new(Account::new(1, None, 0)), Arc::new(Clock::machine()))
    }

    fn begin(sessions: &Sessions) -> Arc<Session> {
        let conn = ConnId { worker: 1, slot: 2, generation: 3 };
        sessions.begin(conn, 0, true, Arc::new(Silent))
    }

    #[test]
    fn only_the_whole_token_finds_a_session() {
        let sessions = sessions();
        let session = begin(&sessions);
        let text = session.token().to_string();
        let token: SessionToken = text.parse().expect("a token");
        assert!(sessions.find_by_token(&token).is_some());
        for at in [0, 32, 95] {
            let digit = if &text[at..=at] == "0" { "1" } else { "0" };
            let forged = format!("{}{digit}{}", &text[..at], &text[at + 1..]);
            let forged: SessionToken = forged.parse().expect("it looks like a token");
            assert!(sessions.find_by_token(&forged).is_none(), "digit {at} differs");
        }
        for bad in ["", "x", &text[1..], &format!("+{}", &text[1..]), &"ü".repeat(48)] {
            assert_eq!(bad.parse::<SessionToken>(), Err(NotAToken), "{bad:?}");
        }
        assert!(!format!("{token:?}").contains(&text[40..60]), "a secret is not for logs");
        sessions.forget(session.client_id, None);
        assert_eq!(sessions.gauges(), (0, 0));
    }

    #[test]
    fn those_away_are_bounded_and_overdue_in_order() {
        let sessions = sessions();
        let [a, b, c] = [(); 3].map(|()| begin(&sessions));
        let set_away = |session, since_ms| sessions.set_away(session, since_ms, false, None, 2);
        assert!(set_away(&a, 10).is_none() && set_away(&b, 20).is_none());
        let longest = set_away(&c, 30).expect("one too many");
        assert_eq!((longest.since_ms, longest.session.client_id), (10, a.client_id));
        sessions.unset_away(&b, 20);
        assert!(sessions.overdue(29, 9).is_empty());
        assert_eq!(sessions.overdue(30, 9).len(), 1);
        assert_eq!(sessions.gauges(), (3, 0));
    }

    #[test]
    fn the_oldest_publish_is_forgotten() {
        let sessions = sessions();
        let session = begin(&sessions);
        let mut state = session.state.lock();
        let (to, other) = (Uuid::new_v4(), Uuid::new_v4());
        let ids: Vec<Uuid> = (0..=RECENT_IDS_MAX).map(|_| Uuid::new_v4()).collect();
        for (seq, id) in ids.iter().enumerate() {
            let recipient = Recipient::Client(to, seq as u64);
            state.remember_publish(*id, recipient, &Tally::default());
        }
        assert_eq!(state.recent_direct(ids[0], &to), None);
        assert_eq!(state.recent_direct(ids[1], &to), Some(1));
        assert_eq!(state.recent_direct(ids[1], &other), None, "another client, another message");
    }
}
