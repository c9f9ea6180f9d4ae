//! Who calls the server API: the key that a request shows, and what it may be used for.

use std::{fmt, sync::Arc};

use rusty_socks_protocol::ErrorCode;

use super::answer::error;
use crate::{
    AdminAnswer, Config, Publisher, Request, Status,
    chat::fault::Fault,
    config::{ApiKey, ApiScope, RoomRange},
};

/// Every key, with its publisher.
#[derive(Debug)]
pub(super) struct Access {
    callers: Vec<Caller>,
}

/// A program that has shown a key. Clones share the publisher, and so the ids that it remembers.
#[derive(Clone)]
pub(super) struct Caller {
    pub(super) key: Arc<ApiKey>,
    pub(super) publisher: Arc<Publisher>,
    /// The key's name as JSON: the `sender` of messages that give none.
    pub(super) sender: Arc<str>,
    /// Where the rooms of the key are.
    pub(super) ranges: Arc<[RoomRange]>,
}

impl Access {
    /// Makes the callers of `config`. One that has the name of one in `before` shares its
    /// publisher.
    pub(super) fn new(config: &Config, before: Option<&Access>) -> Access {
        let before = before.map_or(&[][..], |before| &before.callers);
        let publisher = |name: &str| {
            let known = before.iter().find(|caller| caller.key.name == name);
            known.map(|caller| Arc::clone(&caller.publisher))
        };
        let caller = |key: ApiKey| Caller {
            sender: serde_json::Value::from(key.name.as_str()).to_string().into(),
            publisher: publisher(&key.name)
                .unwrap_or_else(|| Arc::new(Publisher::named(&key.name))),
            ranges: key.room_ranges().into(),
            key: Arc::new(key),
        };
        Access { callers: config.all_api_keys().into_iter().map(caller).collect() }
    }

    /// Returns who sent `request`, if the key that it shows has `scope`.
    pub(super) fn caller(
        &self,
        request: &Request<'_>,
        scope: Option<ApiScope>,
    ) -> Result<Caller, AdminAnswer> {
        self.caller_with(request.header("Authorization").and_then(bearer), scope)
    }

    /// Returns whose the key is that was `shown`, if it has `scope`.
    pub(super) fn caller_with(
        &self,
        shown: Option<&str>,
        scope: Option<ApiScope>,
    ) -> Result<Caller, AdminAnswer> {
        let mut found = None;
        // All keys are compared, so that the time does not tell which one a guess came near.
        for caller in &self.callers {
            if caller.key.key.is(shown.unwrap_or_default()) {
                found = Some(caller);
            }
        }
        let Some(caller) = found else {
            let message = match (self.callers.is_empty(), shown) {
                (true, _) => {
                    "the server has no key, so nobody may use the API; set api_key or \
                     RUSTY_SOCKS_API_KEY_FILE"
                }
                (false, None) => "the request must have Authorization: Bearer and a key",
                (false, Some(_)) => "no such key",
            };
            let answer = error(Status::Unauthorized, "unauthorized", message);
            return Err(answer.header("WWW-Authenticate", "Bearer"));
        };
        if let Some(scope) = scope
            && !caller.key.scopes.contains(&scope)
        {
            let (name, scope) = (&caller.key.name, scope.as_str());
            let message = format!("the key {name:?} has not the scope {scope}");
            return Err(error(Status::Forbidden, "forbidden", &message));
        }
        Ok(caller.clone())
    }
}

impl Caller {
    /// Checks that the key may be used for `room`.
    pub(super) fn check_room(&self, room: &str) -> Result<(), Fault> {
        match self.key.allows_room(room) {
            true => Ok(()),
            false => {
                let message = format!("the key {:?} may not be used for this room", self.key.name);
                Err(Fault::new(ErrorCode::Forbidden, message))
            }
        }
    }

    /// Checks that the key may be used for what is not confined to some rooms.
    pub(super) fn check_all_rooms(&self) -> Result<(), AdminAnswer> {
        match self.key.allows_all_rooms() {
            true => Ok(()),
            false => {
                let name = &self.key.name;
                let message = format!("the key {name:?} may be used for some rooms only");
                Err(error(Status::Forbidden, "forbidden", &message))
            }
        }
    }
}

impl fmt::Debug for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Caller").field("key", &self.key).finish_non_exhaustive()
    }
}

/// Returns what stands behind `Bearer`, in any case (RFC 9110, 11.1).
fn bearer(value: &str) -> Option<&str> {
    let (scheme, rest) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("Bearer").then(|| rest.trim_start_matches(' '))
}
