//! One session: which connection it is attached to, the rooms it is in, and what it remembers.

pub(super) mod saved;
pub(crate) mod shared;

use std::{
    collections::VecDeque,
    hash::{Hash, Hasher},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;
use rustc_hash::FxHasher;
use uuid::Uuid;

use super::{
    conn_id::ConnId,
    error::RoomError,
    event::ServerEvent,
    inbox::Inbox,
    names::{RoomName, RoomPattern},
    notice::{Notice, NoticeFormatter},
    patterns::Patterns,
    room::{Room, RoomKey},
    roster::Shown,
    session_token::SessionToken,
    traffic::Traffic,
};
use crate::{
    identity::{Identity, Permissions},
    limits::owners::OwnerToken,
    memory::tally::Tally,
    ws::frame::PreparedFrame,
};

/// Published ids that a session remembers, to recognise repeats.
pub(super) const RECENT_IDS_MAX: usize = 128;

/// The most bytes of the remembered ids and the rooms that they went to. All 128 fit if each went
/// to a few rooms; an id of a publish to 32 rooms takes 600 bytes.
pub(super) const RECENT_BYTES_MAX: usize = 16 << 10;

/// Published ids that a publisher outside of any connection remembers, and their bytes. It may
/// publish in batches of 1,000: as many as two such batches, whatever the number of their rooms.
pub(super) const PUBLISHER_RECENT_IDS_MAX: usize = 2048;
pub(super) const PUBLISHER_RECENT_BYTES_MAX: usize = 2 << 20;

/// Estimated bytes of a session, with its entry in the table.
pub(super) const SESSION_BYTES: usize =
    size_of::<Session>() + size_of::<Traffic>() + 2 * size_of::<(Uuid, Arc<Session>)>();

/// Estimated bytes of a membership, with its entry in the room's roster.
pub(super) const MEMBERSHIP_BYTES: usize =
    size_of::<SessionMembership>() + 3 * size_of::<(Uuid, Arc<str>)>();

/// One client's session. Shared by the table of sessions and the connection that the session is
/// attached to.
pub(crate) struct Session {
    pub(crate) client_id: Uuid,
    /// The secret of the [`SessionToken`].
    secret: [Uuid; 2],
    /// The route on which the session began, and on which it may be resumed.
    pub(crate) route: u16,
    /// Whether the session outlives its connection.
    pub(crate) resumable: bool,
    /// When it began, on the clock of the table.
    pub(crate) began_ms: u64,
    /// Its place in the order in which sessions began on connections of this server.
    pub(super) nth: u64,
    formatter: Arc<dyn NoticeFormatter>,
    /// The connection that may publish for the session, as [`ConnId::packed`]. Outside the lock,
    /// so that a publish need not take it.
    sender: AtomicU64,
    /// Whether the client must say who it is before anything else. Outside the lock, so that a
    /// broadcast need not take it.
    awaits_identity: AtomicBool,
    /// Whether the engine is told already that the session is not as it was.
    pub(super) is_noted: AtomicBool,
    /// Made when it is first asked for: many sessions only listen.
    traffic: OnceLock<Box<Traffic>>,
    /// Taken before any room's lock and before the table's. Two sessions are locked in the order
    /// of their client ids.
    pub(super) state: Mutex<SessionState>,
}

/// A connection that publishes or sends for a session.
#[derive(Clone, Copy)]
pub(crate) struct Sender<'a> {
    pub(crate) session: &'a Arc<Session>,
    pub(crate) conn: ConnId,
}

/// The state that the lock of a [`Session`] protects.
pub(super) struct SessionState {
    pub(super) attachment: Attachment,
    /// The place of the session that the connection began with to which this one is attached, or
    /// was last.
    pub(super) attached_nth: u64,
    /// Whether the client has sent nothing yet, and may still resume an earlier session.
    pub(super) fresh: bool,
    /// Whether the session is not shown in presence yet, because its client may still resume
    /// another one.
    pub(super) provisional: bool,
    pub(super) memberships: Vec<SessionMembership>,
    /// How the client is shown in presence, and who it is.
    pub(super) shown: Shown,
    /// Whether the client may send direct messages.
    pub(super) may_direct: bool,
    /// Counts the connection that the session is attached to among those of its user. Boxed,
    /// because few sessions of a server without identities have one.
    pub(super) user_token: Option<Box<OwnerToken>>,
    /// Boxed, like `cold`, so that the many sessions without an inbox do not pay for the space.
    pub(super) inbox: Option<Box<Inbox>>,
    cold: Option<Box<ColdState>>,
}

/// State that few sessions have.
#[derive(Default)]
pub(super) struct ColdState {
    pub(super) patterns: Patterns,
    /// Rooms that match a pattern and were left by name: the latest ones, at most as many as the
    /// session may be in.
    pub(super) declined: VecDeque<RoomKey>,
    /// Rooms that nobody but this session was in and that it has left, with what was said there.
    pub(super) left_behind: VecDeque<Weak<Room>>,
    recent_ids: VecDeque<RecentId>,
    recent_bytes: usize,
    /// Whether more is remembered, for a publisher outside of any connection.
    is_publisher: bool,
}

static EMPTY_COLD_STATE: ColdState = ColdState {
    patterns: Patterns::new(),
    declined: VecDeque::new(),
    left_behind: VecDeque::new(),
    recent_ids: VecDeque::new(),
    recent_bytes: 0,
    is_publisher: false,
};

/// The connection that a session is attached to, if any.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Attachment {
    To(ConnId),
    /// Attached to no connection since this millisecond of the hub's clock.
    Away(u64),
    Ended,
}

/// A room that a session is in.
pub(super) struct SessionMembership {
    pub(super) room: Arc<Room>,
    /// Whether the client gets presence notices.
    pub(super) watching: bool,
    /// What the client may do there.
    pub(super) permissions: Permissions,
    /// The pattern whose subscription joined the room, if any.
    pub(super) pattern: Option<RoomPattern>,
}

/// A publish with an id. A repeat is answered from it.
struct RecentId {
    id: Uuid,
    to: Recipient,
}

impl RecentId {
    fn bytes(&self) -> usize {
        let numbered = match &self.to {
            Recipient::Rooms { numbered, .. } => size_of_val::<[_]>(numbered),
            Recipient::Client(..) => 0,
        };
        size_of::<RecentId>() + numbered
    }
}

/// The rooms or the client that a publish went to, and its number there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Recipient {
    Rooms {
        /// A hash of the names of the rooms.
        names: u64,
        /// In the order of the names.
        numbered: Box<[(RoomKey, u64)]>,
    },
    Client(Uuid, u64),
}

impl Recipient {
    pub(super) fn rooms(rooms: &[&Room], seqs: &[u64]) -> Recipient {
        let (order, names) = by_name(rooms);
        let numbered = order.iter().map(|index| (rooms[*index].key, seqs[*index])).collect();
        Recipient::Rooms { names, numbered }
    }
}

/// Returns the places of rooms in the order of their names, and a hash of the names.
fn by_name(rooms: &[&Room]) -> (Vec<usize>, u64) {
    let mut order: Vec<usize> = (0..rooms.len()).collect();
    order.sort_unstable_by_key(|index| rooms[*index].name.as_str());
    let mut hasher = FxHasher::default();
    order.iter().for_each(|index| rooms[*index].name.as_str().hash(&mut hasher));
    (order, hasher.finish())
}

impl Session {
    /// A session that begins on `conn`.
    pub(super) fn new(
        client_id: Uuid,
        conn: ConnId,
        route: u16,
        resumable: bool,
        formatter: Arc<dyn NoticeFormatter>,
        (began_ms, nth): (u64, u64),
    ) -> Session {
        let session = Session {
            client_id,
            secret: [Uuid::new_v4(), Uuid::new_v4()],
            route,
            resumable,
            began_ms,
            nth,
            formatter,
            sender: AtomicU64::new(conn.packed()),
            awaits_identity: AtomicBool::new(false),
            is_noted: AtomicBool::new(false),
            traffic: OnceLock::new(),
            state: Mutex::new(SessionState {
                attachment: Attachment::To(conn),
                attached_nth: nth,
                fresh: true,
                provisional: resumable,
                memberships: Vec::new(),
                shown: Shown::default(),
                may_direct: true,
                user_token: None,
                inbox: None,
                cold: None,
            }),
        };
        session.decide_direct(&mut session.state.lock());
        session
    }

    /// Decides whether the client may send direct messages.
    pub(super) fn decide_direct(&self, state: &mut SessionState) {
        let may = self.permissions_of(state.identity(), None);
        state.may_direct = may.contains(Permissions::DIRECT);
    }

    /// Returns what the session counts of its traffic, from the first time on that it is asked for.
    pub(crate) fn traffic(&self) -> &Traffic {
        self.traffic.get_or_init(Box::default)
    }

    /// Whether the session has so much on its way that its connection should wait.
    #[inline]
    pub(crate) fn has_too_much_in_flight(&self) -> bool {
        self.traffic.get().is_some_and(|traffic| traffic.in_flight.is_over())
    }

    /// Forgets whose the limits are that the client spends, because it has said who it is.
    pub(super) fn forget_spending_user(&self) {
        if let Some(traffic) = self.traffic.get()
            && let Some(spending) = &mut *traffic.spending.lock()
        {
            spending.forget_user();
        }
    }

    pub(crate) fn token(&self) -> SessionToken {
        SessionToken { client_id: self.client_id, secret: self.secret }
    }

    /// Returns what formats notices for the session's handler, by [`format_notice`].
    pub(super) fn formatter(&self) -> &Arc<dyn NoticeFormatter> {
        &self.formatter
    }

    /// Returns the room `name` and what the client may do there, if the session is in it.
    pub(crate) fn room(&self, name: &str) -> Option<(Arc<Room>, Permissions)> {
        let state = self.state.lock();
        let membership = &state.memberships[state.membership(name)?];
        Some((Arc::clone(&membership.room), membership.permissions))
    }

    /// Returns who the client is, if that is known.
    pub(crate) fn identity(&self) -> Option<Arc<Identity>> {
        self.state.lock().shown.identity().cloned()
    }

    /// Asks the handler what the client may do in a room, or if that is `None`, whether it may send
    /// direct messages.
    pub(crate) fn permissions(&self, room: Option<&RoomName>) -> Permissions {
        self.permissions_of(self.state.lock().identity(), room)
    }

    /// Asks the handler what a client of this identity may do. A panic permits nothing.
    pub(super) fn permissions_of(
        &self,
        identity: Option<&Identity>,
        room: Option<&RoomName>,
    ) -> Permissions {
        let formatter = &self.formatter;
        let decided = catch_unwind(AssertUnwindSafe(|| formatter.permissions(identity, room)));
        decided.unwrap_or_else(|_| {
            log::error!("the handler panicked while deciding permissions for {room:?}");
            Permissions::empty()
        })
    }

    /// Makes `conn` the only connection that may publish for the session.
    pub(super) fn set_sender(&self, conn: ConnId) {
        self.sender.store(conn.packed(), Ordering::Release);
    }

    /// Notes that the client must say who it is before anything else, or that it has.
    pub(crate) fn set_awaits_identity(&self, awaits: bool) {
        self.awaits_identity.store(awaits, Ordering::Release);
    }

    /// Whether the client has not said yet who it is though it must. Such a session is sent no
    /// broadcast, and ends with its connection.
    pub(crate) fn awaits_identity(&self) -> bool {
        self.awaits_identity.load(Ordering::Acquire)
    }

    /// Notes that the client has sent a message, so that it can no longer resume another session.
    pub(crate) fn set_begun(&self) {
        self.state.lock().fresh = false;
    }

    /// Returns the connection that the session is attached to.
    pub(crate) fn conn(&self) -> Option<ConnId> {
        match self.state.lock().attachment {
            Attachment::To(conn) => Some(conn),
            Attachment::Away(_) | Attachment::Ended => None,
        }
    }
}

/// Tells a session's handler what has happened. Catches a panic of the handler, because the caller
/// holds locks.
pub(super) fn observe(session: &Session, event: &ServerEvent<'_>) {
    let observe = AssertUnwindSafe(|| session.formatter.observe(event));
    if catch_unwind(observe).is_err() {
        log::error!("the handler panicked when it was told of {event:?}");
    }
}

/// Formats `notice` for a handler. Catches a panic of the handler and returns `None`, because the
/// caller holds locks whose state must not be left half changed.
pub(super) fn format_notice(
    formatter: &dyn NoticeFormatter,
    notice: &Notice<'_>,
) -> Option<PreparedFrame> {
    let formatted = catch_unwind(AssertUnwindSafe(|| formatter.notice(notice)));
    formatted.unwrap_or_else(|_| {
        log::error!("the handler panicked while formatting {notice:?}");
        None
    })
}

impl Sender<'_> {
    /// Fails if another connection has taken the session over.
    ///
    /// Called under the lock of the session, or of the room that is published to. A takeover locks
    /// the session and enters its rooms before it is answered, so nothing from the old connection
    /// gets through afterwards.
    pub(super) fn check_not_taken_over(&self) -> Result<(), RoomError> {
        match self.session.sender.load(Ordering::Acquire) == self.conn.packed() {
            true => Ok(()),
            false => Err(RoomError::TakenOver),
        }
    }
}

impl SessionState {
    /// Returns who the client is, if that is known.
    pub(super) fn identity(&self) -> Option<&Identity> {
        self.shown.identity().map(|identity| &**identity)
    }

    /// Returns the client's user, if it has one.
    pub(super) fn user(&self) -> Option<&str> {
        self.shown.user()
    }

    pub(super) fn cold(&self) -> &ColdState {
        self.cold.as_deref().unwrap_or(&EMPTY_COLD_STATE)
    }

    pub(super) fn cold_mut(&mut self) -> &mut ColdState {
        self.cold.get_or_insert_default()
    }

    /// Remembers more publishes from now on.
    pub(super) fn set_publisher(&mut self) {
        self.cold_mut().is_publisher = true;
    }

    pub(super) fn clear_cold(&mut self) {
        self.cold = None;
    }

    /// Returns the index of the session's membership in the room `name`.
    pub(super) fn membership(&self, name: &str) -> Option<usize> {
        self.memberships.iter().position(|membership| membership.room.name.as_str() == name)
    }

    /// Returns the number of an earlier message with `id` to `client`.
    pub(super) fn recent_direct(&self, id: Uuid, client: &Uuid) -> Option<u64> {
        self.recent(id).find_map(|to| match to {
            Recipient::Client(other, seq) if other == client => Some(*seq),
            Recipient::Client(..) | Recipient::Rooms { .. } => None,
        })
    }

    /// Returns the numbers of an earlier message with `id` to exactly these rooms. Where one of
    /// them was made anew since, the number is that of the room before: the others must not get
    /// the message twice.
    pub(super) fn recent_publish(&self, id: Uuid, rooms: &[&Room]) -> Option<Box<[u64]>> {
        let mut recent = self.recent(id).peekable();
        recent.peek()?;
        let (order, asked) = by_name(rooms);
        recent.find_map(|to| match to {
            Recipient::Rooms { names, numbered }
                if *names == asked && numbered.len() == rooms.len() =>
            {
                let places = || order.iter().zip(numbered);
                places().find(|(index, (key, _))| rooms[**index].key == *key)?;
                let mut seqs = vec![0; rooms.len()];
                places().for_each(|(index, (_, seq))| seqs[*index] = *seq);
                Some(seqs.into())
            }
            Recipient::Rooms { .. } | Recipient::Client(..) => None,
        })
    }

    fn recent(&self, id: Uuid) -> impl Iterator<Item = &Recipient> {
        let recent = self.cold().recent_ids.iter().rev().filter(move |recent| recent.id == id);
        recent.map(|recent| &recent.to)
    }

    /// Remembers a publish with an id, and forgets the oldest ones beyond the bounds.
    pub(super) fn remember_publish(&mut self, id: Uuid, to: Recipient, tally: &Tally) {
        let ColdState { recent_ids, recent_bytes, is_publisher, .. } = self.cold_mut();
        let (ids_max, bytes_max) = match is_publisher {
            false => (RECENT_IDS_MAX, RECENT_BYTES_MAX),
            true => (PUBLISHER_RECENT_IDS_MAX, PUBLISHER_RECENT_BYTES_MAX),
        };
        let before = *recent_bytes;
        let recent = RecentId { id, to };
        *recent_bytes += recent.bytes();
        recent_ids.push_back(recent);
        while recent_ids.len() > ids_max || *recent_bytes > bytes_max {
            let Some(oldest) = recent_ids.pop_front() else { break };
            *recent_bytes -= oldest.bytes();
        }
        tally.change(before, *recent_bytes);
    }

    /// The bytes that it is counted with, beside those of its inbox and its patterns.
    pub(super) fn counted_bytes(&self) -> usize {
        SESSION_BYTES + self.memberships.len() * MEMBERSHIP_BYTES + self.cold().recent_bytes
    }

    /// Whether nothing would be missed if it were gone when its client comes back: it joined
    /// nothing but the default room, published nothing with an id, and was sent nothing.
    pub(super) fn is_trivial(&self) -> bool {
        let of_default_room =
            |membership: &SessionMembership| membership.room.is_default && !membership.watching;
        self.memberships.iter().all(of_default_room)
            && self.cold.is_none()
            && self.inbox.as_ref().is_none_or(|inbox| inbox.is_empty())
    }

    /// Notes that a room that a pattern matches was left by name, so that a resume does not join it
    /// again.
    pub(super) fn decline(&mut self, room: &Room, max: usize) {
        if self.cold().patterns.matching(&room.name).is_some() {
            let declined = &mut self.cold_mut().declined;
            if declined.len() >= max {
                declined.pop_front();
            }
            declined.push_back(room.key);
        }
    }
}
