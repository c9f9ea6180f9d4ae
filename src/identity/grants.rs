//! Grants: what a token allows in the rooms of some patterns.

use super::permissions::Permissions;

/// The most patterns of one token.
const PATTERNS_MAX: usize = 100;

/// The longest pattern, in bytes, with `{sub}` replaced.
const PATTERN_BYTES_MAX: usize = 512;

/// Permissions for the rooms of one pattern.
///
/// A pattern is the name of a room; or the beginning of names and `.*`, as in `chat.*`; or `*`,
/// which is every room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    pattern: RoomMatch,
    allow: Permissions,
}

/// The rooms that a grant concerns.
#[derive(Debug, Clone, PartialEq, Eq)]
enum RoomMatch {
    /// The room of this name.
    Name(Box<str>),
    /// All rooms whose names begin so and are longer.
    Prefix(Box<str>),
}

impl Grant {
    /// Makes a grant for the rooms of `pattern`.
    ///
    /// # Errors
    /// The pattern is empty, too long, or has a `*` that is not its end.
    pub fn new(pattern: &str, allow: Permissions) -> Result<Grant, &'static str> {
        Grant::for_user(pattern, "", allow)
    }

    /// Makes a grant of a template in which `{sub}` stands for `user`. The template alone decides
    /// whether it is a pattern: a user named `*` gets no more than others.
    pub(super) fn for_user(
        template: &str,
        user: &str,
        allow: Permissions,
    ) -> Result<Grant, &'static str> {
        let illegal = "a match must be a room name, or the beginning of one and .*, or *";
        let (stem, is_prefix) = match template.strip_suffix('*') {
            Some(stem) if stem.is_empty() || (stem.len() > 1 && stem.ends_with('.')) => {
                (stem, true)
            }
            Some(_) => return Err(illegal),
            None => (template, false),
        };
        if stem.contains('*') || (stem.is_empty() && !is_prefix) {
            return Err(illegal);
        }
        let text = stem.replace("{sub}", user);
        if text.len() > PATTERN_BYTES_MAX {
            return Err("a match must have at most 512 bytes");
        }
        let text = text.into_boxed_str();
        let pattern = if is_prefix { RoomMatch::Prefix(text) } else { RoomMatch::Name(text) };
        Ok(Grant { pattern, allow })
    }

    /// Returns the room's name or the beginning of names, and whether it is the latter.
    pub(crate) fn parts(&self) -> (&str, bool) {
        match &self.pattern {
            RoomMatch::Name(name) => (name, false),
            RoomMatch::Prefix(prefix) => (prefix, true),
        }
    }

    /// Makes a grant of its [`parts`](Grant::parts). Unlike in a pattern, nothing in `text` has a
    /// meaning.
    pub(crate) fn of_parts(text: &str, is_prefix: bool, allow: Permissions) -> Grant {
        let pattern = match is_prefix {
            true => RoomMatch::Prefix(text.into()),
            false => RoomMatch::Name(text.into()),
        };
        Grant { pattern, allow }
    }

    /// Whether the grant concerns `room`.
    pub fn matches(&self, room: &str) -> bool {
        match &self.pattern {
            RoomMatch::Name(name) => **name == *room,
            RoomMatch::Prefix(prefix) => room.len() > prefix.len() && room.starts_with(&**prefix),
        }
    }

    /// Returns what the grant allows.
    pub fn allow(&self) -> Permissions {
        self.allow
    }

    /// Returns the pattern, as a token would write it.
    pub fn pattern(&self) -> String {
        match &self.pattern {
            RoomMatch::Name(name) => name.to_string(),
            RoomMatch::Prefix(prefix) => format!("{prefix}*"),
        }
    }
}

/// Reads the claim `rooms`: a list of `{"match": pattern or patterns, "allow": [permissions]}`.
pub(crate) fn read(claim: &serde_json::Value, user: &str) -> Result<Box<[Grant]>, String> {
    let shape = || {
        "the claim rooms must be a list of {\"match\":[\"chat.*\"],\"allow\":[\"join\"]}".to_owned()
    };
    let mut grants = Vec::new();
    for entry in claim.as_array().ok_or_else(shape)? {
        let listed = entry.get("allow").and_then(|allow| allow.as_array()).ok_or_else(shape)?;
        let mut allow = Permissions::empty();
        for name in listed {
            // A permission of a later version grants nothing here.
            let name = name.as_str().ok_or_else(shape)?;
            allow |= name.parse().unwrap_or(Permissions::empty());
        }
        let patterns = entry.get("match").ok_or_else(shape)?;
        let patterns = match patterns.as_array() {
            Some(list) => list.iter().collect(),
            None => vec![patterns],
        };
        for pattern in patterns {
            if grants.len() == PATTERNS_MAX {
                return Err(format!("the claim rooms must have at most {PATTERNS_MAX} patterns"));
            }
            let template = pattern.as_str().ok_or_else(shape)?;
            grants.push(Grant::for_user(template, user, allow)?);
        }
    }
    Ok(grants.into())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn allowed(claim: serde_json::Value, user: &str, room: &str) -> Permissions {
        let grants = read(&claim, user).expect("a legal claim");
        let of_room = grants.iter().filter(|grant| grant.matches(room));
        of_room.fold(Permissions::empty(), |sum, grant| sum | grant.allow())
    }

    #[test]
    fn grants_of_all_matching_patterns_add_up() {
        let claim = json!([
            {"match": ["chat.*", "user.{sub}"], "allow": ["join", "publish"]},
            {"match": "chat.a", "allow": ["history", "of a later version"]},
        ]);
        let join = Permissions::JOIN | Permissions::PUBLISH;
        assert_eq!(allowed(claim.clone(), "u", "chat.a"), join | Permissions::HISTORY);
        assert_eq!(allowed(claim.clone(), "u", "chat.b.c"), join);
        assert_eq!(allowed(claim.clone(), "u", "user.u"), join);
        for room in ["user.v", "chat", "chat.", "xchat.a", "user.u.v"] {
            assert!(allowed(claim.clone(), "u", room).is_empty(), "{room}");
        }
        assert_eq!(
            allowed(json!([{"match": "*", "allow": ["join"]}]), "u", "x"),
            Permissions::JOIN
        );
    }

    #[test]
    fn a_user_cannot_be_named_so_that_it_gets_more() {
        let claim = json!([{"match": "user.{sub}", "allow": ["join"]}]);
        for user in ["*", ".*", "a*"] {
            assert!(allowed(claim.clone(), user, "user.anna").is_empty(), "{user}");
        }
    }

    #[test]
    fn a_claim_that_is_no_list_of_grants_is_refused() {
        for claim in [
            json!({}),
            json!("chat.*"),
            json!([1]),
            json!([{"match": "a"}]),
            json!([{"allow": ["join"]}]),
            json!([{"match": [1], "allow": []}]),
            json!([{"match": "a*", "allow": []}]),
            json!([{"match": "", "allow": []}]),
            json!([{"match": ".*", "allow": []}]),
            json!([{"match": "*.a", "allow": []}]),
            json!([{"match": "a", "allow": [1]}]),
            json!([{"match": vec!["a"; 101], "allow": []}]),
        ] {
            assert!(read(&claim, "u").is_err(), "{claim}");
        }
    }
}
