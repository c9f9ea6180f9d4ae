//! What the operator asks of one node and is done by all.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Hub, engine::Asker, identities::ClosedSessions, question::Question};
use crate::{identity::Revocation, ws::close::CloseReason};

/// Something that each node does to the sessions that it has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub(crate) enum Announced {
    Close {
        client_id: Uuid,
        code: u16,
        reason: String,
    },
    CloseUser {
        user: String,
        code: u16,
        reason: String,
    },
    /// The user or the id of a token, and in which seconds since 1970.
    Revoke {
        of: String,
        is_user: bool,
        before_s: u64,
        kept_until_s: u64,
    },
    ClearHistory {
        room: String,
    },
}

impl Announced {
    pub(crate) fn close(client_id: Uuid, reason: &CloseReason) -> Announced {
        let (code, reason) = (reason.code(), reason.reason().to_owned());
        Announced::Close { client_id, code, reason }
    }

    pub(crate) fn close_user(user: &str, reason: &CloseReason) -> Announced {
        let (code, reason) = (reason.code(), reason.reason().to_owned());
        Announced::CloseUser { user: user.to_owned(), code, reason }
    }

    pub(crate) fn revoke(revocation: &Revocation) -> Announced {
        let (of, is_user, before_s, kept_until_s) = revocation.parts();
        Announced::Revoke { of: of.to_owned(), is_user, before_s, kept_until_s }
    }
}

impl Hub {
    /// Has every node do something, this one too. Returns whether there is an engine to tell them.
    pub(crate) fn announce(&self, announced: &Announced) -> bool {
        let mut message = b"C\n".to_vec();
        if serde_json::to_writer(&mut message, announced).is_err() {
            return false;
        }
        self.ask(Question::Announce(message.into()), Asker::Nobody).is_ok()
    }

    /// Does what was asked of one node.
    pub(crate) fn carry_out(&self, announced: Announced) {
        match announced {
            Announced::Close { client_id, code, reason } => {
                let _ = self.close_client(&client_id, CloseReason::new(code, reason));
            }
            Announced::CloseUser { user, code, reason } => {
                let reason = CloseReason::new(code, reason);
                ClosedSessions::all(|after| self.close_user(&user, &reason, after));
            }
            Announced::Revoke { of, is_user, before_s, kept_until_s } => {
                let revocation = Revocation::of_parts(&of, is_user, before_s, kept_until_s);
                self.revoke(&revocation);
                ClosedSessions::all(|after| self.close_revoked(&revocation, after));
            }
            Announced::ClearHistory { room } => {
                let _ = self.clear_history(&room);
            }
        }
    }
}
