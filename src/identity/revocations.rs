//! Revocations: the tokens that are refused before they end.

use std::{
    collections::HashMap,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use parking_lot::Mutex;

use super::subject::Identity;

/// The most revocations that are kept. Beyond it, the one that ends first goes.
pub(super) const REVOCATIONS_MAX: usize = 100_000;

/// How long a revocation is kept if nothing else is said: no token should live longer.
const KEPT_FOR: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// The tokens to refuse: those of a user that were issued up to some moment, or one token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revocation {
    pub(super) of: Revoked,
    /// Tokens that were issued later are good, in seconds since 1970.
    pub(super) before: u64,
    pub(super) kept_until: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Revoked {
    User(Box<str>),
    Token(Box<str>),
}

impl Revocation {
    /// Revokes the tokens of a user (claim `sub`) that were issued (claim `iat`) up to now. A token
    /// that does not say when it was issued counts as issued long ago.
    pub fn user(user: &str) -> Revocation {
        Revocation::of(Revoked::User(user.into()), now_s())
    }

    /// Revokes one token, by its id (claim `jti`), whenever it was issued.
    pub fn token(token_id: &str) -> Revocation {
        Revocation::of(Revoked::Token(token_id.into()), u64::MAX)
    }

    fn of(of: Revoked, before: u64) -> Revocation {
        Revocation { of, before, kept_until: now_s().saturating_add(KEPT_FOR.as_secs()) }
    }

    /// Sets until when issued tokens are revoked. Default: now; for one token: for ever.
    pub fn before(self, before: SystemTime) -> Revocation {
        Revocation { before: seconds(before), ..self }
    }

    /// Forgets the revocation at `until`, in place of 30 days from now. Tokens that live longer are
    /// good again then.
    pub fn kept_until(self, until: SystemTime) -> Revocation {
        Revocation { kept_until: seconds(until), ..self }
    }

    /// Returns the user or the id of a token, whether it is a user, until when issued tokens are
    /// refused, and when the revocation ends.
    pub(crate) fn parts(&self) -> (&str, bool, u64, u64) {
        let (of, is_user) = match &self.of {
            Revoked::User(user) => (user, true),
            Revoked::Token(id) => (id, false),
        };
        (of, is_user, self.before, self.kept_until)
    }

    /// Makes a revocation of its [`parts`](Revocation::parts).
    pub(crate) fn of_parts(of: &str, is_user: bool, before: u64, kept_until: u64) -> Revocation {
        let of = match is_user {
            true => Revoked::User(of.into()),
            false => Revoked::Token(of.into()),
        };
        Revocation { of, before, kept_until }
    }

    /// Returns the user whose tokens are revoked; `None` if it is one token.
    pub(crate) fn of_user(&self) -> Option<&str> {
        match &self.of {
            Revoked::User(user) => Some(user),
            Revoked::Token(_) => None,
        }
    }

    /// Whether this revokes the token of `identity`.
    pub(crate) fn concerns(&self, identity: &Identity) -> bool {
        let is_it = match &self.of {
            Revoked::User(user) => **user == *identity.user,
            Revoked::Token(id) => identity.token_id.as_ref() == Some(id),
        };
        is_it && identity.issued_at <= self.before
    }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Returns the seconds since 1970.
fn now_s() -> u64 {
    seconds(SystemTime::now())
}

/// The revocations that hold. Usable from any thread.
#[derive(Debug, Default)]
pub(super) struct Revocations(Mutex<HashMap<Revoked, Kept>>);

#[derive(Debug, Clone, Copy)]
struct Kept {
    before: u64,
    until: u64,
}

impl Revocations {
    /// Adds a revocation, `now` seconds after 1970. Returns whether another one had to go before
    /// its time.
    pub(super) fn add(&self, revocation: &Revocation, now: u64) -> bool {
        let mut table = self.0.lock();
        let Revocation { of, before, kept_until } = revocation;
        let kept = table.entry(of.clone()).or_insert(Kept { before: 0, until: 0 });
        kept.before = kept.before.max(*before);
        kept.until = kept.until.max(*kept_until);
        if table.len() <= REVOCATIONS_MAX {
            return false;
        }
        table.retain(|_, kept| kept.until > now);
        if table.len() <= REVOCATIONS_MAX {
            return false;
        }
        let first = table.iter().min_by_key(|(_, kept)| kept.until).map(|(of, _)| of.clone());
        if let Some(first) = first {
            table.remove(&first);
        }
        true
    }

    /// Lists those that hold `now` seconds after 1970.
    pub(super) fn list(&self, now: u64) -> Vec<Revocation> {
        let table = self.0.lock();
        let kept = table.iter().filter(|(_, kept)| kept.until > now);
        let whole = |(of, kept): (&Revoked, &Kept)| Revocation {
            of: of.clone(),
            before: kept.before,
            kept_until: kept.until,
        };
        kept.map(whole).collect()
    }

    pub(super) fn len(&self) -> usize {
        self.0.lock().len()
    }

    /// Whether a token is revoked. Asks for the seconds since 1970 only where there are
    /// revocations.
    pub(super) fn is_revoked(&self, identity: &Identity, now: impl FnOnce() -> u64) -> bool {
        let table = self.0.lock();
        if table.is_empty() {
            return false;
        }
        let now = now();
        let holds = |of: &Revoked| {
            let kept = table.get(of).filter(|kept| kept.until > now);
            kept.is_some_and(|kept| identity.issued_at <= kept.before)
        };
        holds(&Revoked::User((&*identity.user).into()))
            || identity.token_id.clone().is_some_and(|id| holds(&Revoked::Token(id)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn issued(user: &str, issued_at: u64) -> Identity {
        Identity { issued_at, token_id: Some("t".into()), ..Identity::new(user) }
    }

    fn is_revoked(table: &Revocations, identity: &Identity) -> bool {
        table.is_revoked(identity, now_s)
    }

    #[test]
    fn older_tokens_of_a_user_are_revoked_and_later_ones_are_not() {
        let table = Revocations::default();
        let moment = UNIX_EPOCH + Duration::from_secs(1000);
        table.add(&Revocation::user("u").before(moment), now_s());
        assert!(is_revoked(&table, &issued("u", 1000)) && is_revoked(&table, &issued("u", 0)));
        assert!(!is_revoked(&table, &issued("u", 1001)) && !is_revoked(&table, &issued("v", 0)));
        table.add(&Revocation::token("t"), now_s());
        assert!(is_revoked(&table, &issued("v", 1001)));
        // The clock of an issuer may be ahead, and a token has one id for good.
        assert!(is_revoked(&table, &issued("v", now_s() + 60)));
        assert!(Revocation::token("t").concerns(&issued("v", now_s() + 60)));
        assert!(!Revocation::token("t").before(moment).concerns(&issued("v", 1001)));
    }

    #[test]
    fn a_revocation_ends_and_a_repeated_one_holds_as_long_as_the_longest() {
        let table = Revocations::default();
        let past = UNIX_EPOCH + Duration::from_secs(5);
        table.add(&Revocation::user("u").kept_until(past), now_s());
        assert!(!is_revoked(&table, &issued("u", 0)));
        table.add(&Revocation::user("u"), now_s());
        table.add(&Revocation::user("u").kept_until(past), now_s());
        assert!(is_revoked(&table, &issued("u", 0)));
        assert_eq!(table.len(), 1);
    }
}
