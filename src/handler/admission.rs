//! The verbs of a [`Context`] about a client that is not let in yet.

use super::{context::Context, mode::Mode};
use crate::hub::session_token::SessionToken;

impl<S: 'static, M: Mode> Context<'_, S, M> {
    /// Says that this client must say who it is before anything else. Until
    /// [`set_identity`](Context::set_identity) or [`admit`](Context::admit) it is sent no
    /// broadcasts, and its session ends with its connection.
    pub fn await_identity(&mut self) {
        self.conn.session().set_awaits_identity(true);
    }

    /// Lets in a client that need not say who it is after all: ends what
    /// [`await_identity`](Context::await_identity) has begun.
    pub fn admit(&mut self) {
        self.conn.session().set_awaits_identity(false);
    }

    /// Returns how many rooms the session of `token` is in; `None` if this client has no such
    /// session. They can be more than `max_rooms_per_conn`, which a reload or a restart may lower.
    pub fn session_rooms(&self, token: &SessionToken) -> Option<usize> {
        self.conn.hub().session_rooms(&*self.conn, token)
    }
}
