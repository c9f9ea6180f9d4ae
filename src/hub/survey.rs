//! What a program outside of any connection may look at and change: rooms, their members and
//! histories, sessions.
//!
//! Each list is a page with a bound, in an order that does not change, so that it can be read on
//! behind its last entry.

use std::sync::Arc;

use uuid::Uuid;

use super::{
    Hub,
    error::RoomError,
    mailbox::Letter,
    present::{MembersPage, PRESENCE_MEMBERS_MAX, Presence},
    room::Room,
    session::{Attachment, Session},
};
use crate::{
    store::{Position, TakenMessages},
    ws::close::CloseReason,
};

/// The most entries of one page of rooms or sessions.
pub(super) const ENTRIES_MAX: usize = 1000;

/// A room, as it is listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoomSummary {
    /// The room's name.
    pub room: String,
    /// The room's position.
    pub position: Position,
    /// The number of sessions in it, connected or away.
    pub members: usize,
    /// The number of messages in its history.
    pub messages: usize,
    /// The bytes of those messages.
    pub bytes: usize,
}

/// The messages that were taken out of a room.
#[derive(Debug)]
pub struct ClearedHistory {
    /// The room's position.
    pub position: Position,
    taken: TakenMessages,
}

impl ClearedHistory {
    /// Frees at most `max` messages. Returns how many it freed.
    pub(crate) fn free(&mut self, max: usize) -> usize {
        self.taken.free(max)
    }
}

/// Which sessions are listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionsOf<'a> {
    /// All.
    All,
    /// Those of one user.
    User(&'a str),
    /// Those that are in one room.
    Room(&'a str),
}

/// A session, as it is listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionSummary {
    /// The client's id.
    pub client_id: Uuid,
    /// The client's user, if it has one.
    pub user: Option<Arc<str>>,
    /// The client's name in presence, if it set one.
    pub name: Option<Arc<str>>,
    /// Whether it has no connection at the moment, and can be resumed.
    pub is_away: bool,
    /// The number of its rooms.
    pub rooms: usize,
}

/// A page of sessions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionsPage {
    /// The sessions, in the order of their ids.
    pub sessions: Vec<SessionSummary>,
    /// The session behind which the next page begins, if there may be one.
    pub next: Option<Uuid>,
}

impl Session {
    /// `None` if it has ended.
    fn summary(&self) -> Option<SessionSummary> {
        let state = self.state.lock();
        let is_away = match state.attachment {
            Attachment::To(_) => false,
            Attachment::Away(_) => true,
            Attachment::Ended => return None,
        };
        Some(SessionSummary {
            client_id: self.client_id,
            user: state.shown.shared_user(),
            name: state.shown.shared_name(),
            is_away,
            rooms: state.memberships.len(),
        })
    }
}

impl Room {
    pub(crate) fn summary(&self) -> RoomSummary {
        let state = self.state.lock();
        RoomSummary {
            room: self.name.as_str().to_owned(),
            position: state.history.position(),
            members: state.roster.len(),
            messages: state.history.len(),
            bytes: state.history.bytes(),
        }
    }
}

impl Hub {
    /// Lists the rooms whose names begin with `prefix` and come behind `after`, in order.
    pub(crate) fn list_rooms(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Vec<RoomSummary> {
        let rooms = self.rooms.list(prefix, after, limit.min(ENTRIES_MAX));
        rooms.iter().map(|room| room.summary()).collect()
    }

    /// Lists the members of a room, as one that is not among them sees it.
    pub(crate) fn members(&self, room: &str, page: MembersPage) -> Result<Presence, RoomError> {
        let room = self.rooms.find(room).ok_or(RoomError::NoSuchRoom)?;
        let limit = page.limit.min(PRESENCE_MEMBERS_MAX);
        let state = room.state.lock();
        Ok(state.roster.page(Uuid::nil(), page.after, limit, None))
    }

    /// Takes the messages out of a room. Its numbers go on, and its members stay.
    pub(crate) fn clear_history(&self, room: &str) -> Result<ClearedHistory, RoomError> {
        let room = self.rooms.find(room).ok_or(RoomError::NoSuchRoom)?;
        let mut state = room.state.lock();
        let mut taken = TakenMessages::default();
        self.change(&mut state.history, |history| taken = history.take_messages());
        Ok(ClearedHistory { position: state.history.position(), taken })
    }

    /// Lists sessions behind `after`, in the order of their ids: all, those of one user, or those
    /// in one room.
    pub(crate) fn list_sessions(
        &self,
        of: SessionsOf<'_>,
        after: Option<Uuid>,
        limit: usize,
    ) -> Result<SessionsPage, RoomError> {
        let limit = limit.min(ENTRIES_MAX);
        let with_ids = |sessions: Vec<Arc<Session>>| {
            let ids = sessions.iter().map(|session| session.client_id).collect();
            (sessions, ids)
        };
        let (sessions, ids): (Vec<_>, Vec<Uuid>) = match of {
            SessionsOf::All => with_ids(self.sessions.list(after, limit)),
            SessionsOf::User(user) => with_ids(self.sessions.list_of_user(user, after, limit)),
            SessionsOf::Room(room) => {
                let members = self.members(room, MembersPage { after, limit })?.members;
                let ids: Vec<Uuid> = members.iter().map(|member| member.client_id).collect();
                (ids.iter().filter_map(|id| self.sessions.find(id)).collect(), ids)
            }
        };
        // One that has ended meanwhile leaves its page shorter.
        let is_full = ids.len() == limit;
        Ok(SessionsPage {
            sessions: sessions.iter().filter_map(|session| session.summary()).collect(),
            next: ids.last().copied().filter(|_| is_full),
        })
    }

    /// Closes a client's connection, or ends its session if it is away.
    pub(crate) fn close_client(&self, id: &Uuid, reason: CloseReason) -> Result<(), RoomError> {
        let session = self.sessions.find(id).ok_or(RoomError::NoSuchClient)?;
        let is_closed = self.close_session(&session, &reason);
        is_closed.then_some(()).ok_or(RoomError::NoSuchClient)
    }

    /// Closes a session's connection, or ends the session if it is away. Returns whether there was
    /// something to close.
    pub(super) fn close_session(&self, session: &Arc<Session>, reason: &CloseReason) -> bool {
        let attachment = session.state.lock().attachment;
        match attachment {
            Attachment::To(conn) => {
                let letter = Letter::Close { conn, reason: reason.clone() };
                self.mailboxes.send_control(conn.worker(), letter);
                true
            }
            Attachment::Away(_) => {
                self.end_away(session, attachment);
                true
            }
            Attachment::Ended => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::Config, hub::harness::Bench};

    #[test]
    fn sessions_that_end_meanwhile_do_not_end_the_list() {
        let mut bench = Bench::new(&Config::default(), 1, 1000);
        let mut sessions: Vec<_> =
            (0..5).map(|_| Arc::clone(&bench.client(0, false).session)).collect();
        sessions.sort_by_key(|session| session.client_id);
        for ended in &sessions[..2] {
            ended.state.lock().attachment = Attachment::Ended;
        }
        let list = |after| {
            let page = bench.hub.list_sessions(SessionsOf::All, after, 2).expect("a list");
            (page.sessions.len(), page.next)
        };
        let id = |at: usize| Some(sessions[at].client_id);
        assert_eq!(list(None), (0, id(1)));
        assert_eq!(list(id(1)), (2, id(3)));
        assert_eq!(list(id(3)), (1, None));
    }
}
