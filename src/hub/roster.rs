//! The sessions in a room, and what its watchers know of them.
//!
//! Where many come and go in a room with many watchers, changes are collected for a moment and
//! sent together. Until then an entry is pending, and a session that comes and goes within that
//! moment is not announced.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
    sync::Arc,
};

use uuid::Uuid;

use super::{
    notice::NoticeFormatter,
    present::{Presence, Present},
};
use crate::identity::Identity;

/// The moment, in milliseconds, in which the notices of a room are counted.
pub(crate) const WINDOW_MS: u64 = 100;

/// Deliveries of single notices that one room may cause in that moment. One notice may go out in
/// any case.
const DELIVERIES_PER_WINDOW_MAX: usize = 1024;

/// Changes that are sent together, at most. The next one waits for the next batch.
pub(super) const CHANGES_MAX: usize = 256;

/// Every session in a room, by client id. Used under the room's lock.
#[derive(Default)]
pub(super) struct Roster {
    entries: BTreeMap<Uuid, Entry>,
    /// Those that are not shown yet, because they may resume an earlier session.
    provisional: BTreeSet<Uuid>,
    gathered: Gathered,
    /// Of those who are in it, the ones whose sessions are on other nodes.
    remote: BTreeSet<Uuid>,
    /// When the current moment is over, on the hub's clock, and what was sent in it.
    window_ends_ms: u64,
    told: usize,
}

struct Entry {
    shown: Shown,
    known: Known,
}

/// How a client is shown: its name, and who it is. Shared by a session and the rosters of its
/// rooms, and no more than an empty pointer for a client that has neither.
#[derive(Debug, Clone, Default)]
pub(super) struct Shown(Option<Arc<NameAndIdentity>>);

#[derive(Debug, Clone, Default)]
struct NameAndIdentity {
    name: Option<Arc<str>>,
    identity: Option<Arc<Identity>>,
}

impl Shown {
    pub(super) fn new(name: Option<Arc<str>>, identity: Option<Arc<Identity>>) -> Shown {
        let has_any = name.is_some() || identity.is_some();
        Shown(has_any.then(|| Arc::new(NameAndIdentity { name, identity })))
    }

    pub(super) fn name(&self) -> Option<&str> {
        self.0.as_ref()?.name.as_deref()
    }

    pub(super) fn shared_name(&self) -> Option<Arc<str>> {
        self.0.as_ref()?.name.clone()
    }

    pub(super) fn identity(&self) -> Option<&Arc<Identity>> {
        self.0.as_ref()?.identity.as_ref()
    }

    /// Returns the client's user, if it has one.
    pub(super) fn user(&self) -> Option<&str> {
        self.identity().map(|identity| &*identity.user)
    }

    pub(super) fn shared_user(&self) -> Option<Arc<str>> {
        self.identity().map(|identity| Arc::clone(&identity.user))
    }

    pub(super) fn set_name(&mut self, name: Option<Arc<str>>) {
        *self = Shown::new(name, self.identity().cloned());
    }

    pub(super) fn set_identity(&mut self, identity: Option<Arc<Identity>>) {
        *self = Shown::new(self.shared_name(), identity);
    }

    fn present(&self, client_id: Uuid) -> Present {
        Present { client_id, name: self.shared_name(), user: self.shared_user() }
    }
}

/// What watchers know of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    /// Nothing: its client may be about to resume an earlier session.
    Provisional,
    /// Nothing yet: it is announced with other changes.
    Coming,
    Present,
    /// That it is there, though it has gone: its leaving is announced with other changes.
    Going,
}

/// Changes that wait to be announced.
#[derive(Default)]
struct Gathered {
    ids: BTreeSet<Uuid>,
    /// How many of the ids have gone.
    going: usize,
    formatter: Option<Arc<dyn NoticeFormatter>>,
}

/// Changes that are announced together, each client once.
pub(super) struct Changes {
    pub(super) joined: Vec<Present>,
    pub(super) left: Vec<Present>,
    pub(super) formatter: Arc<dyn NoticeFormatter>,
}

impl Roster {
    /// How many are in the room.
    pub(super) fn len(&self) -> usize {
        self.entries.len() - self.gathered.going
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether a session of this node is in the room.
    pub(super) fn has_local(&self) -> bool {
        self.len() > self.remote.len()
    }

    /// Whether a client is in the room whose session is on another node.
    pub(super) fn is_remote(&self, client: Uuid) -> bool {
        self.remote.contains(&client)
    }

    /// The clients in the room whose sessions are on other nodes.
    pub(super) fn remote(&self) -> impl Iterator<Item = Uuid> {
        self.remote.iter().copied()
    }

    /// The clients that are shown in the room and whose sessions are on this node.
    pub(super) fn shown_by_this_node(&self) -> impl Iterator<Item = Uuid> {
        let is_shown = |known| !matches!(known, Known::Provisional | Known::Going);
        let shown = self.entries.iter().filter(move |(_, entry)| is_shown(entry.known));
        shown.map(|(id, _)| *id).filter(|id| !self.is_remote(*id))
    }

    /// Notes that the session of a client that is in the room is on another node, or is not.
    pub(super) fn set_remote(&mut self, client: Uuid, is_remote: bool) {
        match is_remote {
            true => self.remote.insert(client),
            false => self.remote.remove(&client),
        };
    }

    /// Whether the next change may be announced by itself to that many watchers. If so, counts it.
    pub(super) fn may_tell(&mut self, now_ms: u64, watchers: usize) -> bool {
        if now_ms >= self.window_ends_ms {
            (self.window_ends_ms, self.told) = (now_ms + WINDOW_MS, 0);
        }
        // Collected changes are older, and are announced first.
        let told_max = (DELIVERIES_PER_WINDOW_MAX / watchers.max(1)).max(1);
        let may_tell = self.gathered.ids.is_empty() && self.told < told_max;
        self.told += usize::from(may_tell);
        may_tell
    }

    /// Adds a session that is not shown yet.
    pub(super) fn insert_provisional(&mut self, client: Uuid, shown: Shown) {
        self.entries.insert(client, Entry { shown, known: Known::Provisional });
        self.provisional.insert(client);
    }

    /// Adds a session that was announced, or need not be.
    pub(super) fn insert_told(&mut self, client: Uuid, shown: Shown) {
        self.provisional.remove(&client);
        self.entries.insert(client, Entry { shown, known: Known::Present });
    }

    /// Adds a session that is announced later.
    pub(super) fn insert_gathered(
        &mut self,
        client: Uuid,
        shown: Shown,
        formatter: &Arc<dyn NoticeFormatter>,
    ) {
        self.provisional.remove(&client);
        self.entries.insert(client, Entry { shown, known: Known::Coming });
        self.gather(client, formatter);
    }

    /// Whether the leaving of a session was not announced yet.
    pub(super) fn is_going(&self, client: Uuid) -> bool {
        self.gathered.going > 0
            && self.entries.get(&client).is_some_and(|entry| entry.known == Known::Going)
    }

    /// Reverts that leaving.
    pub(super) fn take_back(&mut self, client: Uuid, shown: Shown) {
        self.entries.insert(client, Entry { shown, known: Known::Present });
        self.gathered.going -= 1;
        self.gathered.ids.remove(&client);
    }

    /// Removes a session that was not announced. Returns how one is shown that must be announced
    /// first, and `None` if there is none.
    pub(super) fn remove_untold(&mut self, client: Uuid) -> Option<Shown> {
        let entry = self.entries.get(&client)?;
        match entry.known {
            Known::Present => return Some(entry.shown.clone()),
            Known::Going => return None,
            Known::Provisional => self.provisional.remove(&client),
            Known::Coming => self.gathered.ids.remove(&client),
        };
        self.entries.remove(&client);
        None
    }

    /// Removes a session whose leaving was announced, or need not be.
    pub(super) fn remove_told(&mut self, client: Uuid) {
        self.entries.remove(&client);
    }

    /// Removes a session whose leaving is announced later.
    pub(super) fn remove_gathered(&mut self, client: Uuid, formatter: &Arc<dyn NoticeFormatter>) {
        if let Some(entry) = self.entries.get_mut(&client) {
            entry.known = Known::Going;
            self.gathered.going += 1;
            self.gather(client, formatter);
        }
    }

    fn gather(&mut self, client: Uuid, formatter: &Arc<dyn NoticeFormatter>) {
        self.gathered.ids.insert(client);
        self.gathered.formatter.get_or_insert_with(|| Arc::clone(formatter));
    }

    /// How many changes wait to be announced.
    pub(super) fn gathered(&self) -> usize {
        self.gathered.ids.len()
    }

    /// Takes the changes that wait, which watchers know from now on.
    pub(super) fn take_changes(&mut self) -> Option<Changes> {
        let Gathered { ids, formatter, .. } = std::mem::take(&mut self.gathered);
        let (mut joined, mut left) = (Vec::new(), Vec::new());
        for client_id in ids {
            let Some(entry) = self.entries.get_mut(&client_id) else { continue };
            let present = entry.shown.present(client_id);
            if entry.known == Known::Going {
                self.entries.remove(&client_id);
                left.push(present);
            } else {
                entry.known = Known::Present;
                joined.push(present);
            }
        }
        self.told += 1;
        let is_empty = joined.is_empty() && left.is_empty();
        formatter.filter(|_| !is_empty).map(|formatter| Changes { joined, left, formatter })
    }

    /// The sessions that are not shown yet.
    pub(super) fn provisional(&self) -> Vec<Uuid> {
        self.provisional.iter().copied().collect()
    }

    pub(super) fn is_provisional(&self, client: Uuid) -> bool {
        self.provisional.contains(&client)
    }

    pub(super) fn set_shown(&mut self, client: Uuid, shown: Shown) {
        if let Some(entry) = self.entries.get_mut(&client) {
            entry.shown = shown;
        }
    }

    pub(super) fn shown(&self, client: Uuid) -> Option<&Shown> {
        self.entries.get(&client).map(|entry| &entry.shown)
    }

    /// Lists at most `max` members behind `after`, in the order of their ids, and counts all. The
    /// list is the one that watchers know, so that their next notices fit it, with `asker` added.
    /// `except` is neither listed nor counted if it is not shown yet.
    pub(super) fn page(
        &self,
        asker: Uuid,
        after: Option<Uuid>,
        max: usize,
        except: Option<Uuid>,
    ) -> Presence {
        let except = except.filter(|id| self.is_provisional(*id));
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let is_listed = |(id, entry): &(&Uuid, &Entry)| {
            (entry.known != Known::Coming || **id == asker) && Some(**id) != except
        };
        let present = |(id, entry): (&Uuid, &Entry)| entry.shown.present(*id);
        let entries = self.entries.range((from, Bound::Unbounded)).filter(is_listed);
        let coming = self.gathered.ids.len() - self.gathered.going;
        let is_coming = self.entries.get(&asker).is_some_and(|entry| entry.known == Known::Coming);
        Presence {
            members: entries.take(max).map(present).collect(),
            count: self.entries.len() - coming + usize::from(is_coming)
                - usize::from(except.is_some()),
        }
    }
}
