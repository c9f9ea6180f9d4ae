//! Tokens of clients, and what they allow.

use std::collections::BTreeMap;

use rusty_socks::{
    Config,
    config::{Access, IdentityMode},
    identity::sign,
};
use serde_json::json;

use crate::random::Random;

/// The time since 1970 at which each run begins, in seconds.
pub(super) const BEGAN_S: u64 = 1_800_000_000;

/// The key of the issuer.
pub(super) const SECRET: &str = "for-the-clients-of-the-simulator";

/// The pattern of the rooms whose rule a reload changes.
pub(super) const RULED: &str = "open.*";

/// What tokens of a kind allow.
#[derive(Debug, PartialEq, Eq)]
struct Grants {
    patterns: &'static [&'static str],
    publish: bool,
    direct: bool,
}

const GRANTS: [Grants; 3] = [
    Grants { patterns: &["*"], publish: true, direct: true },
    Grants { patterns: &["open.*", "gap.*", "lobby", "tea"], publish: true, direct: true },
    Grants { patterns: &["*"], publish: false, direct: false },
];

/// What a client wants to do in a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// Join, read what was said earlier, see who is there.
    Join,
    /// Publish.
    Publish,
}

/// A token, as its client knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// The JWT.
    pub text: String,
    /// Its id.
    pub id: String,
    /// Its user.
    pub user: String,
    /// When it was issued, in seconds since 1970.
    pub issued_s: u64,
    /// When it ends, in milliseconds of simulated time.
    pub expires_ms: u64,
    /// It was revoked.
    pub is_revoked: bool,
    /// The number of its [`Grants`].
    kind: usize,
}

/// The moments up to which tokens of users are revoked, in seconds since 1970.
pub type Revoked = BTreeMap<String, u64>;

/// The seconds since 1970 at a moment of simulated time.
pub(super) fn since_1970_s(now_ms: u64) -> u64 {
    BEGAN_S + now_ms / 1000
}

impl Token {
    /// Makes a token of `user` that is good now and has this id.
    ///
    /// # Panics
    /// Never: the secret is long enough.
    pub fn issue(
        user: &str,
        id: String,
        now_ms: u64,
        revoked: &Revoked,
        random: &mut Random,
    ) -> Token {
        let life_s = *random.one_of(&[1, 4, 15, 3600]);
        let kind = if random.one_in(3) { random.below(GRANTS.len()) } else { 0 };
        let now_s = since_1970_s(now_ms);
        // Issued after what was revoked.
        let issued_s = now_s.max(revoked.get(user).map_or(0, |until| until + 1));
        let grants = &GRANTS[kind];
        let mut allow = vec!["join", "history", "presence"];
        allow.extend(grants.publish.then_some("publish"));
        allow.extend(grants.direct.then_some("direct"));
        let claims = json!({
            "sub": user, "jti": id, "iat": issued_s, "exp": now_s + life_s,
            "rooms": [{"match": grants.patterns, "allow": allow}],
        });
        Token {
            text: sign(&claims, SECRET).expect("a long secret"),
            id,
            user: user.to_owned(),
            issued_s,
            expires_ms: (now_s + life_s - BEGAN_S) * 1000,
            is_revoked: false,
            kind,
        }
    }

    /// Makes a token without an end for a hostile client.
    ///
    /// # Panics
    /// Never: the secret is long enough.
    pub fn of_hostile(index: usize) -> String {
        let all = ["join", "history", "presence", "publish", "direct"];
        let claims = json!({
            "sub": format!("hostile-{index}"), "exp": BEGAN_S + 1_000_000_000,
            "rooms": [{"match": ["*"], "allow": all}],
        });
        sign(&claims, SECRET).expect("a long secret")
    }

    /// What it allows, in words.
    pub fn words(&self) -> String {
        format!("a token of {} of kind {} until {} ms", self.user, self.kind, self.expires_ms)
    }
}

/// Whether `token`, or nobody's, allows an act in a room under these settings.
pub(super) fn may(config: &Config, token: Option<&Token>, room: &str, act: Act) -> bool {
    let of_rule = || config.rooms.iter().find(|rule| rule.pattern == RULED)?.join;
    let is_ruled = is_of(RULED, room);
    let access = is_ruled.then(of_rule).flatten().unwrap_or(match config.identity {
        IdentityMode::Required => Access::Token,
        IdentityMode::Off | IdentityMode::Optional => Access::Everyone,
    });
    match access {
        Access::Everyone => true,
        Access::Users => token.is_some(),
        Access::Token => token.is_some_and(|token| {
            let grants = &GRANTS[token.kind];
            let is_covered = grants.patterns.iter().any(|pattern| is_of(pattern, room));
            is_covered && (act == Act::Join || grants.publish)
        }),
    }
}

/// Whether `token`, or nobody's, allows direct messages.
pub(super) fn may_direct(config: &Config, token: Option<&Token>) -> bool {
    config.identity != IdentityMode::Required
        || token.is_some_and(|token| GRANTS[token.kind].direct)
}

/// Whether a pattern, or a name, concerns a room.
fn is_of(pattern: &str, room: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => room.len() > prefix.len() && room.starts_with(prefix),
        None => room == pattern,
    }
}
