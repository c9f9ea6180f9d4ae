//! The sessions that are away, in the order in which they go for want of space.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use uuid::Uuid;

use super::session::Session;
use crate::limits::owner::Owner;

/// One address has at most such a part of all sessions that may be away: as of all connections.
const OWNER_PART: usize = 2;

/// Sessions without a connection.
#[derive(Default)]
pub(super) struct Away {
    lasting: List,
    /// Those that nobody would miss. They go before any other.
    trivial: List,
    /// Those of each address for which limits hold, the one first that goes first.
    by_owner: BTreeMap<Owner, BTreeSet<Place>>,
}

/// By the millisecond at which they lost their connection.
type List = BTreeMap<(u64, Uuid), Entry>;

/// Whether a session would be missed, since when it is away, and the id of its client.
type Place = (bool, u64, Uuid);

struct Entry {
    session: Arc<Session>,
    /// Whose the lost connection was, if a limit holds for its address.
    owner: Option<Owner>,
}

/// A session that must end for want of space.
pub(super) struct Evicted {
    pub(super) since_ms: u64,
    pub(super) session: Arc<Session>,
    pub(super) is_trivial: bool,
    /// Whether there is space, but not for its address.
    pub(super) is_of_owner: bool,
}

impl Away {
    pub(super) fn len(&self) -> usize {
        self.lasting.len() + self.trivial.len()
    }

    /// Adds a session. If more than `max` are away, or too many of its `owner`, takes off the one
    /// of all or of its owner that goes first.
    pub(super) fn insert(
        &mut self,
        session: &Arc<Session>,
        since_ms: u64,
        is_trivial: bool,
        owner: Option<Owner>,
        max: usize,
    ) -> Option<Evicted> {
        let id = session.client_id;
        let entry = Entry { session: Arc::clone(session), owner: owner.clone() };
        self.list(is_trivial).insert((since_ms, id), entry);
        if let Some(owner) = owner {
            let places = self.by_owner.entry(owner).or_default();
            places.insert((!is_trivial, since_ms, id));
            if places.len() > of_one_owner(max)
                && let Some(&(is_lasting, since_ms, id)) = places.first()
            {
                return self.take(!is_lasting, since_ms, id).map(|session| Evicted {
                    since_ms,
                    session,
                    is_trivial: !is_lasting,
                    is_of_owner: true,
                });
            }
        }
        if self.len() > max { self.pop_longest() } else { None }
    }

    /// Whether `owner` may have one more, if there may be `max` in all.
    pub(super) fn has_place_for(&self, owner: &Owner, max: usize) -> bool {
        self.by_owner.get(owner).map_or(0, BTreeSet::len) < of_one_owner(max)
    }

    /// Returns whose the lost connection of a session was, if a limit holds for its address.
    pub(super) fn owner_of(&self, id: Uuid, since_ms: u64) -> Option<&Owner> {
        let place = (since_ms, id);
        self.lasting.get(&place).or_else(|| self.trivial.get(&place))?.owner.as_ref()
    }

    /// Takes off the trivial session that is away longest, or if none is trivial the one that is
    /// away longest.
    pub(super) fn pop_longest(&mut self) -> Option<Evicted> {
        let is_trivial = !self.trivial.is_empty();
        let (&(since_ms, id), _) = self.list(is_trivial).first_key_value()?;
        let session = self.take(is_trivial, since_ms, id)?;
        Some(Evicted { since_ms, session, is_trivial, is_of_owner: false })
    }

    /// Takes off a session that is away since `since_ms`, if it is there.
    pub(super) fn remove(&mut self, id: Uuid, since_ms: u64) {
        if self.take(false, since_ms, id).is_none() {
            self.take(true, since_ms, id);
        }
    }

    /// Takes off at most `max` sessions that are away since `until_ms` or longer.
    pub(super) fn overdue(&mut self, until_ms: u64, max: usize) -> Vec<(u64, Arc<Session>)> {
        let mut overdue = Vec::new();
        for is_trivial in [false, true] {
            while overdue.len() < max
                && let Some((&(since_ms, id), _)) = self.list(is_trivial).first_key_value()
                && since_ms <= until_ms
                && let Some(session) = self.take(is_trivial, since_ms, id)
            {
                overdue.push((since_ms, session));
            }
        }
        overdue
    }

    fn list(&mut self, is_trivial: bool) -> &mut List {
        if is_trivial { &mut self.trivial } else { &mut self.lasting }
    }

    fn take(&mut self, is_trivial: bool, since_ms: u64, id: Uuid) -> Option<Arc<Session>> {
        let Entry { session, owner } = self.list(is_trivial).remove(&(since_ms, id))?;
        if let Some(owner) = owner
            && let Some(places) = self.by_owner.get_mut(&owner)
        {
            places.remove(&(!is_trivial, since_ms, id));
            if places.is_empty() {
                self.by_owner.remove(&owner);
            }
        }
        Some(session)
    }
}

/// The sessions that one address may have, if there may be `max` in all.
fn of_one_owner(max: usize) -> usize {
    max.div_ceil(OWNER_PART)
}
