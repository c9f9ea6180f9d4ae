//! The session manager: which sessions are there, and on which connection each is.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;
use uuid::Uuid;

use super::mailbox::ConnId;

/// All sessions by client id. Clones share one table; usable from any thread.
#[derive(Clone, Default)]
pub(crate) struct Sessions {
    by_client: Arc<Mutex<HashMap<Uuid, ConnId>>>,
}

/// One client's session. Dropping it takes it out of the table, whatever way its connection ended.
pub(crate) struct Session {
    client_id: Uuid,
    sessions: Sessions,
}

impl Sessions {
    /// Begins a session on `conn`, under a fresh random client id.
    pub(crate) fn begin(&self, conn: ConnId) -> Session {
        let client_id = Uuid::new_v4();
        self.by_client.lock().insert(client_id, conn);
        Session { client_id, sessions: self.clone() }
    }

    /// The connection that a client is on.
    pub(crate) fn find(&self, client_id: &Uuid) -> Option<ConnId> {
        self.by_client.lock().get(client_id).copied()
    }

    pub(crate) fn len(&self) -> usize {
        self.by_client.lock().len()
    }
}

impl Session {
    pub(crate) fn client_id(&self) -> Uuid {
        self.client_id
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.sessions.by_client.lock().remove(&self.client_id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_leaves_the_table_when_it_is_dropped() {
        let sessions = Sessions::default();
        let conn = ConnId { worker: 1, slot: 2, generation: 3 };
        let session = sessions.begin(conn);
        assert_eq!(sessions.find(&session.client_id()), Some(conn));
        drop(session);
        assert_eq!(sessions.len(), 0);
    }
}
