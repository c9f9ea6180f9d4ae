//! Changes to one session, made under its lock by the connection that acts for it.

use std::sync::Arc;

use super::{
    Hub,
    conn_handle::ConnHandle,
    error::RoomError,
    mailbox::Deferred,
    session::{Attachment, Session, SessionState},
};

/// A session whose lock is held, and the connection that acts for it.
pub(super) struct LockedSession<'a> {
    pub(super) hub: &'a Hub,
    pub(super) session: &'a Arc<Session>,
    pub(super) state: &'a mut SessionState,
    pub(super) conn: &'a mut dyn ConnHandle,
    pub(super) deferred: &'a mut Deferred,
}

impl Hub {
    /// Runs `change` under the lock of `session`, and the deferred work after the lock is released.
    pub(super) fn lock_session<R>(
        &self,
        session: &Arc<Session>,
        conn: &mut dyn ConnHandle,
        change: impl FnOnce(&mut LockedSession<'_>) -> R,
    ) -> R {
        let mut deferred = Deferred::default();
        // `conn` may act by letter to its worker.
        deferred.wake.insert(conn.id().worker());
        let mut state = session.state.lock();
        let result = change(&mut LockedSession {
            hub: self,
            session,
            state: &mut state,
            conn: &mut *conn,
            deferred: &mut deferred,
        });
        drop(state);
        self.note_change(session);
        self.mailboxes.after_unlock(&deferred);
        if deferred.behind {
            conn.on_backpressure();
        }
        if session.has_too_much_in_flight() {
            conn.await_deliveries();
        }
        result
    }

    /// Runs `change` on the session of `conn`, unless another connection has taken the session
    /// over.
    pub(super) fn lock_own_session<R>(
        &self,
        conn: &mut dyn ConnHandle,
        change: impl FnOnce(&mut LockedSession<'_>) -> Result<R, RoomError>,
    ) -> Result<R, RoomError> {
        let session = Arc::clone(conn.session());
        self.lock_session(&session, conn, |locked| match locked.is_attached() {
            true => change(locked),
            false => Err(RoomError::TakenOver),
        })
    }
}

impl LockedSession<'_> {
    /// Whether the session is attached to this connection.
    pub(super) fn is_attached(&self) -> bool {
        self.state.attachment == Attachment::To(self.conn.id())
    }

    pub(super) fn worker(&self) -> usize {
        self.conn.id().worker()
    }
}
