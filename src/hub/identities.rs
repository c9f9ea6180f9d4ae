//! Who clients are: the identity of a session, what it may do, and its revocation.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    Hub,
    conn_handle::ConnHandle,
    error::RoomError,
    locked_session::LockedSession,
    mailbox::Letter,
    names::RoomName,
    session::{Attachment, Session},
};
use crate::{
    identity::{Identity, Permissions, Revocation},
    ws::close::CloseReason,
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
            let identity = Arc::new(identity);
            let before = locked.state.identity.replace(Arc::clone(&identity));
            // Asked only now: a revocation that is not seen here sees the identity in the session.
            if self.authenticator.is_revoked(&identity) {
                locked.state.identity = before;
                return Err(RoomError::Revoked);
            }
            locked.session.decide_direct(locked.state);
            Ok(locked.decide_permissions())
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

    /// Refuses the tokens of a revocation from now on, closes the connections of those who have
    /// them with 4001, and ends their sessions. Returns how many there were.
    pub(crate) fn revoke(&self, revocation: &Revocation) -> usize {
        // First, so that whoever authenticates meanwhile is refused there or found here.
        self.authenticator.revoke(revocation);
        let concerned =
            |session: &Arc<Session>| session.identity().is_some_and(|of| revocation.concerns(&of));
        let reason = CloseReason::UNAUTHORIZED.because("the token was revoked");
        self.close_sessions(concerned, &reason)
    }

    /// Closes the connections of a user, and ends the user's sessions that are away. Returns how
    /// many there were.
    pub(crate) fn close_user(&self, user: &str, reason: &CloseReason) -> usize {
        let is_of_user =
            |session: &Arc<Session>| session.identity().is_some_and(|of| *of.user == *user);
        self.close_sessions(is_of_user, reason)
    }

    fn close_sessions(
        &self,
        is_concerned: impl Fn(&Arc<Session>) -> bool,
        reason: &CloseReason,
    ) -> usize {
        let mut count = 0;
        for session in self.sessions.all().iter().filter(|session| is_concerned(session)) {
            let attachment = session.state.lock().attachment;
            match attachment {
                Attachment::To(conn) => {
                    let letter = Letter::Close { conn, reason: reason.clone() };
                    self.mailboxes.send_control(conn.worker(), letter);
                }
                Attachment::Away(since_ms) => {
                    self.sessions.unset_away(session, since_ms);
                    self.finish(session, attachment);
                }
                Attachment::Ended => continue,
            }
            count += 1;
        }
        count
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
            room.state.lock().roster.set_shown(self.session.client_id, self.state.shown());
        }
        left.sort();
        left
    }
}
