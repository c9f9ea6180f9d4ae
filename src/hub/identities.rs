//! Who clients are: the identity of a session, what it may do, and its revocation.

use std::{collections::BTreeMap, sync::Arc};

use uuid::Uuid;

use super::{
    Hub,
    conn_handle::ConnHandle,
    error::RoomError,
    locked_session::LockedSession,
    names::RoomName,
    notice::Notice,
    session::{Session, format_notice},
    survey::ENTRIES_MAX,
};
use crate::{
    identity::{Identity, Permissions, Revocation},
    limits::owners::OwnerToken,
    ws::{close::CloseReason, frame::PreparedFrame},
};

impl Hub {
    /// Says who the client of a connection is. Returns the rooms that it may no longer be in, and
    /// has left.
    pub(crate) fn set_identity(
        &self,
        conn: &mut dyn ConnHandle,
        identity: Identity,
    ) -> Result<Vec<RoomName>, RoomError> {
        self.lock_own_session(conn, |locked| {
            if locked.state.user().is_some_and(|user| *user != *identity.user) {
                return Err(RoomError::OtherUser);
            }
            if locked.state.user_token.is_none() {
                locked.state.user_token = Some(Box::new(self.admit_user(&identity)?));
            }
            let identity = Arc::new(identity);
            let before = locked.state.shown.clone();
            locked.state.shown.set_identity(Some(Arc::clone(&identity)));
            if before.identity().is_none() {
                locked.session.forget_spending_user();
                self.sessions.set_user(locked.session.client_id, Arc::clone(&identity.user));
            }
            // Asked only now: a revocation that is not seen here sees the identity in the session.
            if self.authenticator.is_revoked(&identity) {
                if before.identity().is_none() {
                    self.sessions.unset_user(locked.session.client_id, Arc::clone(&identity.user));
                    locked.state.user_token = None;
                }
                locked.state.shown = before;
                return Err(RoomError::Revoked);
            }
            locked.session.set_awaits_identity(false);
            locked.session.decide_direct(locked.state);
            Ok(locked.decide_permissions())
        })
    }

    /// Decides anew what the client of a connection may do, and takes it out of the rooms that it
    /// may no longer be in. Returns how many rooms it was in, and its handler's notices about those
    /// that it has left.
    pub(crate) fn recheck_permissions(
        &self,
        conn: &mut dyn ConnHandle,
    ) -> (usize, Vec<PreparedFrame>) {
        let checked = self.lock_own_session(conn, |locked| {
            let rooms = locked.state.memberships.len();
            locked.session.decide_direct(locked.state);
            let left = locked.decide_permissions();
            let (client_id, name, user) =
                (locked.session.client_id, locked.state.shown.name(), locked.state.user());
            let notices = left.iter().filter_map(|room| {
                let notice = Notice::Left { room, client_id, name, user };
                format_notice(&**locked.session.formatter(), &notice)
            });
            Ok((rooms, notices.collect()))
        });
        // A connection whose session was taken over is about to close.
        checked.unwrap_or_default()
    }

    /// Counts one more connection of a user, if it may have one.
    fn admit_user(&self, identity: &Identity) -> Result<OwnerToken, RoomError> {
        self.owners.admit_user(&identity.user, self.now_ms()).map_err(|_| {
            self.sessions.metrics.connections_refused_per_user.add_shared();
            RoomError::TooManyConnections
        })
    }

    /// Refuses something for want of a permission, and counts it.
    pub(crate) fn forbid(&self, permission: Permissions) -> RoomError {
        let named = Permissions::NAMED.iter().zip(&self.forbidden);
        for (_, counter) in named.filter(|((_, named), _)| permission.contains(*named)) {
            counter.add_shared();
        }
        RoomError::Forbidden(permission)
    }

    /// Returns how many commands were refused for want of each permission, without those that never
    /// were.
    pub(crate) fn forbidden(&self) -> BTreeMap<&'static str, u64> {
        let named = Permissions::NAMED.iter().zip(&self.forbidden);
        let counted = named.map(|((name, _), counter)| (*name, counter.value()));
        counted.filter(|(_, count)| *count > 0).collect()
    }

    /// Refuses the tokens of a revocation from now on. [`Hub::close_revoked`] closes those who have
    /// them already.
    pub(crate) fn revoke(&self, revocation: &Revocation) {
        self.authenticator.revoke(revocation);
    }

    /// Closes the connections of those who came with a revoked token with 4001, and ends their
    /// sessions if they are away. Looks at one page of sessions, behind `after`.
    pub(crate) fn close_revoked(
        &self,
        revocation: &Revocation,
        after: Option<Uuid>,
    ) -> ClosedSessions {
        let page = match revocation.of_user() {
            Some(user) => self.sessions.list_of_user(user, after, ENTRIES_MAX),
            None => self.sessions.list(after, ENTRIES_MAX),
        };
        let reason = CloseReason::UNAUTHORIZED.because("the token was revoked");
        let concerned =
            |session: &Session| session.identity().is_some_and(|of| revocation.concerns(&of));
        self.close_sessions(&page, concerned, &reason)
    }

    /// Closes the connections of a user, and ends the user's sessions that are away. Looks at one
    /// page of them, behind `after`.
    pub(crate) fn close_user(
        &self,
        user: &str,
        reason: &CloseReason,
        after: Option<Uuid>,
    ) -> ClosedSessions {
        let page = self.sessions.list_of_user(user, after, ENTRIES_MAX);
        self.close_sessions(&page, |_| true, reason)
    }

    fn close_sessions(
        &self,
        page: &[Arc<Session>],
        is_concerned: impl Fn(&Session) -> bool,
        reason: &CloseReason,
    ) -> ClosedSessions {
        let is_full = page.len() == ENTRIES_MAX;
        let next = page.last().filter(|_| is_full).map(|session| session.client_id);
        let concerned = page.iter().filter(|session| is_concerned(session));
        let closed = concerned.filter(|session| self.close_session(session, reason)).count();
        ClosedSessions { looked_at: page.len(), closed, next }
    }
}

/// What became of one page of sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClosedSessions {
    pub(crate) looked_at: usize,
    /// How many were closed or ended.
    pub closed: usize,
    /// The session behind which the next page begins, if there is one.
    pub next: Option<Uuid>,
}

impl ClosedSessions {
    /// Adds up all pages that `page` makes.
    pub(crate) fn all(mut page: impl FnMut(Option<Uuid>) -> ClosedSessions) -> usize {
        let (mut count, mut after) = (0, None);
        loop {
            let ClosedSessions { closed, next, .. } = page(after);
            count += closed;
            after = next;
            if after.is_none() {
                return count;
            }
        }
    }
}

impl LockedSession<'_> {
    /// Decides anew what the client may do in each of its rooms, and leaves those that it may not
    /// be in. Returns their names.
    fn decide_permissions(&mut self) -> Vec<RoomName> {
        let mut left = Vec::new();
        for at in (0..self.state.memberships.len()).rev() {
            let room = Arc::clone(&self.state.memberships[at].room);
            let permissions = self.permissions(&room.name);
            if !permissions.contains(Permissions::JOIN) {
                self.remove_membership(at);
                left.push(room.name.clone());
                continue;
            }
            let membership = &mut self.state.memberships[at];
            membership.permissions = permissions;
            let watches_no_more =
                membership.watching && !permissions.contains(Permissions::PRESENCE);
            membership.watching &= !watches_no_more;
            self.conn.permit(&room, permissions);
            if watches_no_more {
                self.exit_channel(&room);
            }
            room.state.lock().roster.set_shown(self.session.client_id, self.state.shown.clone());
        }
        left.sort();
        left
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::Config, hub::harness::Bench};

    #[test]
    fn a_user_of_more_sessions_than_a_page_is_closed_page_by_page() {
        let config = Config { max_conn_per_user: ENTRIES_MAX + 1, ..Config::default() };
        let mut bench = Bench::new(&config, 1, 1_000_000);
        let mut clients: Vec<_> = (0..ENTRIES_MAX + 1).map(|_| bench.client(0, false)).collect();
        for client in &mut clients {
            bench.hub.set_identity(&mut client.conn, Identity::new("anna")).expect("a user");
        }
        let mut ben = bench.client(0, false);
        bench.hub.set_identity(&mut ben.conn, Identity::new("ben")).expect("a user");
        let first = bench.hub.close_user("anna", &CloseReason::KICKED, None);
        assert_eq!((first.closed, first.next.is_some()), (ENTRIES_MAX, true));
        let close = |after| bench.hub.close_user("anna", &CloseReason::KICKED, after);
        assert_eq!(ClosedSessions::all(close), ENTRIES_MAX + 1);

        let revocation = Revocation::token("stolen");
        bench.hub.revoke(&revocation);
        let mut identity = Identity::new("cleo");
        identity.token_id = Some("stolen".into());
        let mut cleo = bench.client(0, false);
        let refused = bench.hub.set_identity(&mut cleo.conn, identity);
        assert_eq!(refused, Err(RoomError::Revoked));
        assert_eq!(bench.hub.close_user("cleo", &CloseReason::KICKED, None).looked_at, 0);
    }
}
