//! The identity of a client.

use std::sync::Arc;

use super::{grants::Grant, permissions::Permissions};

/// The longest user, in bytes.
const USER_BYTES_MAX: usize = 128;

/// Whether this text may be a user.
pub(crate) fn is_user(text: &str) -> bool {
    (1..=USER_BYTES_MAX).contains(&text.len()) && !text.contains(char::is_control)
}

/// The identity of a client: its user, and what the user's token says.
///
/// Made of a token by [`Context::authenticate`](crate::Context::authenticate) and
/// [`Request::authenticate`](crate::Request::authenticate), or by a handler that has its own way
/// to know who somebody is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The user: the claim `sub` of a token.
    pub user: Arc<str>,
    /// The name to show for the user: the claim `name`.
    pub name: Option<Arc<str>>,
    /// When the identity ends, in seconds since 1970: the claim `exp`. `None` for never.
    pub expires_at: Option<u64>,
    /// When the token was issued, in seconds since 1970: the claim `iat`; 0 if it does not say.
    pub issued_at: u64,
    /// The id of the token: the claim `jti`.
    pub token_id: Option<Box<str>>,
    /// What the token grants: the claim `rooms`.
    pub grants: Box<[Grant]>,
}

impl Identity {
    /// Makes an identity of a user that never ends and grants nothing.
    pub fn new(user: impl Into<Arc<str>>) -> Identity {
        Identity {
            user: user.into(),
            name: None,
            expires_at: None,
            issued_at: 0,
            token_id: None,
            grants: Box::default(),
        }
    }

    /// Returns the name to show: that of the token, or else the user.
    pub fn shown_name(&self) -> &Arc<str> {
        self.name.as_ref().unwrap_or(&self.user)
    }

    /// Returns what the token grants in `room`: everything that one of its matching grants allows.
    pub fn granted(&self, room: &str) -> Permissions {
        let of_room = self.grants.iter().filter(|grant| grant.matches(room));
        of_room.fold(Permissions::empty(), |sum, grant| sum | grant.allow())
    }

    /// Whether one of the grants, for whatever rooms, allows direct messages.
    pub fn may_direct(&self) -> bool {
        self.grants.iter().any(|grant| grant.allow().contains(Permissions::DIRECT))
    }
}
