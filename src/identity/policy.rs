//! The policy of the chat protocol: what a client may do in a room, by the rules of the file and by
//! the grants of its token.

use super::{permissions::Permissions, subject::Identity};
use crate::config::{Access, Config, IdentityMode};

/// What a client may do in a room, and who may at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The permission.
    pub permission: Permissions,
    /// Who has it in the room, by the rules of the file. For direct messages, which concern no
    /// room, by whether identity is required.
    pub access: Access,
    /// Whether the client has it.
    pub is_allowed: bool,
}

/// Decides what a client of `identity` may do in `room`, one verdict for each of
/// [`Permissions::NAMED`], in its order.
pub fn explain(config: &Config, identity: Option<&Identity>, room: &str) -> [Verdict; 5] {
    let access = config.room_access(room);
    let granted = identity.map_or(Permissions::empty(), |identity| identity.granted(room));
    let verdict = |permission: Permissions, access| {
        let is_allowed = match access {
            Access::Everyone => true,
            Access::Users => identity.is_some(),
            Access::Token => granted.contains(permission),
        };
        Verdict { permission, access, is_allowed }
    };
    let is_required = config.identity == IdentityMode::Required;
    let direct = Verdict {
        permission: Permissions::DIRECT,
        access: if is_required { Access::Token } else { Access::Everyone },
        is_allowed: !is_required || identity.is_some_and(Identity::may_direct),
    };
    [
        verdict(Permissions::JOIN, access.join),
        verdict(Permissions::PUBLISH, access.publish),
        verdict(Permissions::HISTORY, access.read_history),
        verdict(Permissions::PRESENCE, access.presence),
        direct,
    ]
}

/// Decides what a client of `identity` may do in `room`; without a room, whether it may send
/// direct messages.
pub fn decide(config: &Config, identity: Option<&Identity>, room: Option<&str>) -> Permissions {
    let verdicts = explain(config, identity, room.unwrap_or_default());
    let allowed = verdicts.iter().filter(|verdict| verdict.is_allowed);
    allowed.fold(Permissions::empty(), |sum, verdict| sum | verdict.permission)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::RoomRule, identity::Grant};

    fn user(grants: &[(&str, Permissions)]) -> Identity {
        let grants = grants.iter().map(|(pattern, allow)| Grant::new(pattern, *allow));
        let grants = grants.map(|grant| grant.expect("a legal pattern")).collect();
        Identity { grants, ..Identity::new("u") }
    }

    #[test]
    fn where_identity_is_required_only_what_is_granted_is_allowed() {
        let config = Config { identity: IdentityMode::Required, ..Config::default() };
        let may = |grants: &[(&str, Permissions)], room| decide(&config, Some(&user(grants)), room);
        assert_eq!(may(&[], Some("a")), Permissions::empty());
        let join = Permissions::JOIN | Permissions::DIRECT;
        assert_eq!(may(&[("a", join)], Some("a")), join);
        assert_eq!(may(&[("a", join)], Some("b")), Permissions::DIRECT);
        assert_eq!(may(&[("a", join)], None), Permissions::DIRECT);
    }

    #[test]
    fn rules_of_the_file_say_who_may() {
        let rule = |pattern: &str| RoomRule {
            join: Some(Access::Everyone),
            publish: Some(Access::Users),
            presence: Some(Access::Token),
            ..RoomRule::new(pattern)
        };
        let rooms = vec![rule("a.*"), RoomRule::new("a.b")];
        for (identity, otherwise) in [
            (IdentityMode::Optional, Permissions::all()),
            (IdentityMode::Required, Permissions::empty()),
        ] {
            let config = Config { identity, rooms: rooms.clone(), ..Config::default() };
            let rest = otherwise & Permissions::HISTORY;
            let direct = otherwise & Permissions::DIRECT;
            let anyone = decide(&config, None, Some("a.x"));
            assert_eq!(anyone, Permissions::JOIN | rest | direct);
            let known = decide(&config, Some(&user(&[])), Some("a.x"));
            assert_eq!(known, Permissions::JOIN | Permissions::PUBLISH | rest | direct);
            let granted = user(&[("a.*", Permissions::PRESENCE)]);
            let granted = decide(&config, Some(&granted), Some("a.x"));
            assert_eq!(granted, known | Permissions::PRESENCE);
            // The rule of the name holds alone, and says nothing.
            assert_eq!(decide(&config, None, Some("a.b")), otherwise);
        }
    }
}
