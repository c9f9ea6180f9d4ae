//! The session manager: who is served, on which connection, and who is away for a moment.
//!
//! A session outlives its connection: for a while it keeps the client's id, its rooms and what is sent to
//! it, and another connection that knows its secret may take it up.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;
use uuid::Uuid;

use super::{
    RoomError,
    mailbox::ConnId,
    notice::{Notice, Wording},
    rooms::{Room, RoomKey, RoomPattern},
};
use crate::{metrics::SessionMetrics, store::History, ws::frame::PreparedFrame};

/// Published ids that a session remembers, so that a repeat is known for one.
const TOLD_MAX: usize = 128;

/// All sessions. Usable from any thread. Its lock is taken after a session's, never before.
pub(crate) struct Sessions {
    table: Mutex<Table>,
    pub(crate) metrics: SessionMetrics,
}

#[derive(Default)]
struct Table {
    by_client: HashMap<Uuid, Arc<Session>>,
    /// Those without a connection, by the moment that they lost it.
    away: BTreeMap<(u64, Uuid), Arc<Session>>,
}

/// One client's session. Shared by the table and the connection it is on.
pub(crate) struct Session {
    pub(crate) client_id: Uuid,
    /// Two random UUIDs: 244 bits that nobody guesses.
    secret: [Uuid; 2],
    /// The route it was begun on, and may be resumed on.
    pub(crate) route: u16,
    /// Whether it outlives its connection.
    pub(crate) resumable: bool,
    wording: Arc<dyn Wording>,
    /// The connection that speaks for it, as [`ConnId::packed`] has it; so that each publish need not take the lock.
    speaker: AtomicU64,
    /// Taken before any room's lock and before the table's; together with another session's only in the
    /// order of their client ids.
    pub(super) state: Mutex<SessionState>,
}

/// A connection that says something in a session's name.
#[derive(Clone, Copy)]
pub(crate) struct Speaker<'a> {
    pub(crate) session: &'a Session,
    pub(crate) conn: ConnId,
}

pub(super) struct SessionState {
    pub(super) standing: Standing,
    /// Its client has said nothing yet, and may be about to take up an earlier session.
    pub(super) fresh: bool,
    /// Not shown in presence yet, because of that.
    pub(super) provisional: bool,
    pub(super) seats: Vec<Seat>,
    /// The name it goes by in presence.
    pub(super) name: Option<Arc<str>>,
    /// Direct messages, and which of them no connection was there for.
    pub(super) inbox: Option<Box<Mail>>,
    /// Boxed, so that the many that have none of it do not pay for its place.
    pub(super) rare: Option<Box<Rare>>,
}

/// What few sessions have.
#[derive(Default)]
pub(super) struct Rare {
    pub(super) patterns: Vec<RoomPattern>,
    /// Rooms that match one of them and were left by name; as many as it may be in, the latest ones.
    pub(super) declined: VecDeque<RoomKey>,
    told: VecDeque<Told>,
}

static NOTHING_RARE: Rare =
    Rare { patterns: Vec::new(), declined: VecDeque::new(), told: VecDeque::new() };

/// Where a session is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    On(ConnId),
    /// Away since this millisecond of the hub's clock.
    Away(u64),
    Ended,
}

/// A session's place in a room.
pub(super) struct Seat {
    pub(super) room: Arc<Room>,
    /// It is told who comes and goes.
    pub(super) watching: bool,
    /// The subscription that brought it here, if one did.
    pub(super) pattern: Option<RoomPattern>,
}

pub(super) struct Mail {
    pub(super) history: History,
    /// The last message that was sent to a connection.
    pub(super) delivered_seq: u64,
}

/// A publish that a repeat of it is answered from.
struct Told {
    id: Uuid,
    to: Recipient,
}

/// Whom a publish went to, and the number it got there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Recipient {
    /// In the order of their keys.
    Rooms(Box<[(RoomKey, u64)]>),
    Client(Uuid, u64),
}

impl Recipient {
    pub(super) fn rooms(rooms: &[&Room], seqs: &[u64]) -> Recipient {
        let keys = rooms.iter().map(|room| room.key);
        let mut numbered: Box<[_]> = keys.zip(seqs.iter().copied()).collect();
        numbered.sort_unstable();
        Recipient::Rooms(numbered)
    }
}

/// What a client shows to take up its session again: unguessable, and for that client alone.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SessionToken {
    client_id: Uuid,
    secret: [Uuid; 2],
}

impl fmt::Display for SessionToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [first, second] = &self.secret;
        write!(f, "{}{}{}", self.client_id.simple(), first.simple(), second.simple())
    }
}

impl fmt::Debug for SessionToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // It is a secret, and debug output ends up in logs.
        f.debug_struct("SessionToken").field("client_id", &self.client_id).finish_non_exhaustive()
    }
}

/// A text that is no session token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotAToken;

impl fmt::Display for NotAToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a session token has 96 hexadecimal digits")
    }
}

impl std::error::Error for NotAToken {}

impl std::str::FromStr for SessionToken {
    type Err = NotAToken;

    fn from_str(text: &str) -> Result<SessionToken, NotAToken> {
        if text.len() != 96 || !text.is_ascii() {
            return Err(NotAToken);
        }
        let part = |at: usize| {
            let digits = u128::from_str_radix(&text[at..at + 32], 16);
            // `from_str_radix` takes a sign, which is no digit.
            let is_signed = text.as_bytes()[at] == b'+';
            digits.ok().filter(|_| !is_signed).map(Uuid::from_u128).ok_or(NotAToken)
        };
        Ok(SessionToken { client_id: part(0)?, secret: [part(32)?, part(64)?] })
    }
}

impl Sessions {
    pub(super) fn new() -> Sessions {
        Sessions { table: Mutex::default(), metrics: SessionMetrics::default() }
    }

    /// Begins a session on `conn`, under a fresh random client id. Every session that was begun is given
    /// to [`Hub::depart`](super::Hub::depart) when its connection ends.
    pub(crate) fn begin(
        &self,
        conn: ConnId,
        route: u16,
        resumable: bool,
        wording: Arc<dyn Wording>,
    ) -> Arc<Session> {
        let session = Arc::new(Session {
            client_id: Uuid::new_v4(),
            secret: [Uuid::new_v4(), Uuid::new_v4()],
            route,
            resumable,
            wording,
            speaker: AtomicU64::new(conn.packed()),
            state: Mutex::new(SessionState {
                standing: Standing::On(conn),
                fresh: true,
                provisional: resumable,
                seats: Vec::new(),
                name: None,
                inbox: None,
                rare: None,
            }),
        });
        self.table.lock().by_client.insert(session.client_id, Arc::clone(&session));
        session
    }

    pub(crate) fn find(&self, client_id: &Uuid) -> Option<Arc<Session>> {
        self.table.lock().by_client.get(client_id).cloned()
    }

    /// The session that a token belongs to.
    pub(super) fn find_by_token(&self, token: &SessionToken) -> Option<Arc<Session>> {
        // The secret is compared in whole words, whose time tells nothing that helps to guess 244 bits;
        // all of them are looked at all the same.
        let differs = |session: &Session| {
            let pairs = session.secret.iter().zip(&token.secret);
            pairs.fold(0, |sum, (own, shown)| sum | (own.as_u128() ^ shown.as_u128()))
        };
        self.find(&token.client_id).filter(|session| differs(session) == 0)
    }

    /// Sessions, with those that are away, and how many of them are away.
    pub(crate) fn gauges(&self) -> (usize, usize) {
        let table = self.table.lock();
        (table.by_client.len(), table.away.len())
    }

    pub(super) fn forget(&self, session: &Session) {
        self.table.lock().by_client.remove(&session.client_id);
    }

    /// Lists a session as away. Returns the one that is longest away if there are more than `max`.
    pub(super) fn set_away(
        &self,
        session: &Arc<Session>,
        since_ms: u64,
        max: usize,
    ) -> Option<(u64, Arc<Session>)> {
        let mut table = self.table.lock();
        table.away.insert((since_ms, session.client_id), Arc::clone(session));
        if table.away.len() <= max {
            return None;
        }
        table.away.pop_first().map(|((since_ms, _), session)| (since_ms, session))
    }

    pub(super) fn unset_away(&self, session: &Session, since_ms: u64) {
        self.table.lock().away.remove(&(since_ms, session.client_id));
    }

    /// At most `max` of those who are away since `until_ms` or longer; they are listed no more.
    pub(super) fn overdue(&self, until_ms: u64, max: usize) -> Vec<(u64, Arc<Session>)> {
        let mut table = self.table.lock();
        let mut overdue = Vec::new();
        while overdue.len() < max
            && let Some(entry) = table.away.first_entry()
            && entry.key().0 <= until_ms
        {
            let ((since_ms, _), session) = entry.remove_entry();
            overdue.push((since_ms, session));
        }
        overdue
    }
}

impl Session {
    pub(crate) fn token(&self) -> SessionToken {
        SessionToken { client_id: self.client_id, secret: self.secret }
    }

    /// What its handler says of `notice`. Locks are held here, and what they guard must not be left half
    /// changed, so a panic says nothing.
    pub(super) fn words(&self, notice: &Notice<'_>) -> Option<PreparedFrame> {
        let words = catch_unwind(AssertUnwindSafe(|| self.wording.notice(notice)));
        words.unwrap_or_else(|_| {
            log::error!("the handler panicked at {notice:?}");
            None
        })
    }

    /// A room that it is in.
    pub(crate) fn room(&self, name: &str) -> Option<Arc<Room>> {
        let state = self.state.lock();
        state.seat(name).map(|seat| Arc::clone(&state.seats[seat].room))
    }

    /// From now on `conn` does.
    pub(super) fn set_speaker(&self, conn: ConnId) {
        self.speaker.store(conn.packed(), Ordering::Release);
    }

    /// Its client has spoken, so it takes up no other session any more.
    pub(crate) fn set_begun(&self) {
        self.state.lock().fresh = false;
    }

    /// The connection it is on.
    pub(crate) fn conn(&self) -> Option<ConnId> {
        match self.state.lock().standing {
            Standing::On(conn) => Some(conn),
            Standing::Away(_) | Standing::Ended => None,
        }
    }
}

impl Speaker<'_> {
    /// A connection whose session was taken over has nothing more to say in its name. Asked under the lock of
    /// the session, or of the room that it speaks in: a take-over locks the session and enters its rooms
    /// before it is answered, so there nothing passes after that.
    pub(super) fn must_speak(&self) -> Result<(), RoomError> {
        match self.session.speaker.load(Ordering::Acquire) == self.conn.packed() {
            true => Ok(()),
            false => Err(RoomError::TakenOver),
        }
    }
}

impl SessionState {
    pub(super) fn rare(&self) -> &Rare {
        self.rare.as_deref().unwrap_or(&NOTHING_RARE)
    }

    pub(super) fn rare_mut(&mut self) -> &mut Rare {
        self.rare.get_or_insert_default()
    }

    pub(super) fn seat(&self, name: &str) -> Option<usize> {
        self.seats.iter().position(|seat| seat.room.name.as_str() == name)
    }

    /// The number that an earlier publish of `id` to that client got.
    pub(super) fn told_client(&self, id: Uuid, client: &Uuid) -> Option<u64> {
        let mut told = self.rare().told.iter().rev().filter(|told| told.id == id);
        told.find_map(|told| match &told.to {
            Recipient::Client(other, seq) if other == client => Some(*seq),
            Recipient::Client(..) | Recipient::Rooms(_) => None,
        })
    }

    /// The numbers that an earlier publish of `id` to these rooms, and no others, got.
    pub(super) fn told_rooms(&self, id: Uuid, rooms: &[&Room]) -> Option<Box<[u64]>> {
        let mut told = self.rare().told.iter().rev().filter(|told| told.id == id);
        told.find_map(|told| match &told.to {
            Recipient::Rooms(numbered) if numbered.len() == rooms.len() => {
                let seq = |room: &&Room| {
                    let at = numbered.binary_search_by_key(&room.key, |(key, _)| *key).ok()?;
                    Some(numbered[at].1)
                };
                rooms.iter().map(seq).collect()
            }
            Recipient::Rooms(_) | Recipient::Client(..) => None,
        })
    }

    /// Remembers a publish, and forgets the oldest.
    pub(super) fn tell(&mut self, id: Uuid, to: Recipient) {
        let told = &mut self.rare_mut().told;
        if told.len() == TOLD_MAX {
            told.pop_front();
        }
        told.push_back(Told { id, to });
    }

    /// Notes that a room that a subscription matches was left by name: it must not come back by itself.
    pub(super) fn decline(&mut self, room: &Room, max: usize) {
        if self.rare().patterns.iter().any(|pattern| pattern.matches(&room.name)) {
            let declined = &mut self.rare_mut().declined;
            if declined.len() >= max {
                declined.pop_front();
            }
            declined.push_back(room.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Silent;

    impl Wording for Silent {
        fn notice(&self, _: &Notice<'_>) -> Option<PreparedFrame> {
            None
        }
    }

    fn begin(sessions: &Sessions) -> Arc<Session> {
        let conn = ConnId { worker: 1, slot: 2, generation: 3 };
        sessions.begin(conn, 0, true, Arc::new(Silent))
    }

    #[test]
    fn only_the_whole_token_finds_a_session() {
        let sessions = Sessions::new();
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
        sessions.forget(&session);
        assert_eq!(sessions.gauges(), (0, 0));
    }

    #[test]
    fn those_away_are_bounded_and_overdue_in_order() {
        let sessions = Sessions::new();
        let [a, b, c] = [(); 3].map(|()| begin(&sessions));
        assert!(sessions.set_away(&a, 10, 2).is_none() && sessions.set_away(&b, 20, 2).is_none());
        let (since, longest) = sessions.set_away(&c, 30, 2).expect("one too many");
        assert_eq!((since, longest.client_id), (10, a.client_id));
        sessions.unset_away(&b, 20);
        assert!(sessions.overdue(29, 9).is_empty());
        assert_eq!(sessions.overdue(30, 9).len(), 1);
        assert_eq!(sessions.gauges(), (3, 0));
    }

    #[test]
    fn the_oldest_publish_is_forgotten() {
        let sessions = Sessions::new();
        let session = begin(&sessions);
        let mut state = session.state.lock();
        let (to, other) = (Uuid::new_v4(), Uuid::new_v4());
        let ids: Vec<Uuid> = (0..=TOLD_MAX).map(|_| Uuid::new_v4()).collect();
        for (seq, id) in ids.iter().enumerate() {
            state.tell(*id, Recipient::Client(to, seq as u64));
        }
        assert_eq!(state.told_client(ids[0], &to), None);
        assert_eq!(state.told_client(ids[1], &to), Some(1));
        assert_eq!(state.told_client(ids[1], &other), None, "another client, another message");
    }
}
