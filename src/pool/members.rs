//! The rooms that one worker's connections are in. The hub knows only how many members there are.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use crate::{
    hub::{
        conn_id::ConnId,
        room::{Entry, Room, RoomKey, RoomKind},
    },
    identity::Permissions,
};

/// One worker's part of every room it has members in. Used by one thread.
#[derive(Default)]
pub(crate) struct Members {
    /// Keys are the server's own, so nobody can choose them to collide.
    by_room: FxHashMap<RoomKey, Locals>,
    /// The rooms of each connection, by slot.
    by_slot: Vec<Vec<Membership>>,
}

/// A room and those of its members that are here.
struct Locals {
    room: Arc<Room>,
    members: Vec<LocalMember>,
}

/// A connection in a room.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LocalMember {
    pub(crate) slot: u32,
    /// That of the connection in the slot.
    pub(crate) generation: u32,
    /// Messages up to this one were there before it joined, and are not delivered.
    pub(crate) from_seq: u64,
    /// How often those who were there before had been told of a loss or of a new epoch.
    moves: u32,
}

/// One room and its members.
pub(crate) struct InRoom<'m> {
    pub(crate) room: &'m Arc<Room>,
    members: &'m [LocalMember],
    all: &'m Members,
}

impl InRoom<'_> {
    /// The member that was listed at `place`, if it is still a member and gets the message `seq`.
    /// It may be in another place by now.
    #[inline]
    pub(crate) fn find(&self, place: u32, conn: ConnId, seq: u64) -> Option<LocalMember> {
        let is_it = |member: &&LocalMember| {
            (member.slot, member.generation) == (conn.slot, conn.generation)
        };
        match self.members.get(place as usize).filter(is_it) {
            Some(member) => (member.from_seq < seq).then_some(*member),
            None => self.find_moved(conn, seq),
        }
    }

    #[cold]
    fn find_moved(&self, conn: ConnId, seq: u64) -> Option<LocalMember> {
        let (_, member) = self.all.membership(conn.slot as usize, self.room.key, seq)?;
        (member.generation == conn.generation).then_some(member)
    }
}

struct Membership {
    room: Arc<Room>,
    /// Where the connection stands in the room's list, so that leaving a large room costs no
    /// search.
    index: u32,
    /// What the connection may do in the room.
    permissions: Permissions,
}

impl Members {
    /// Adds a connection that the hub has counted in.
    pub(crate) fn add(
        &mut self,
        conn: ConnId,
        room: Arc<Room>,
        at: Entry,
        permissions: Permissions,
    ) {
        let ConnId { slot, generation, .. } = conn;
        let member = LocalMember { slot, generation, from_seq: at.seq, moves: at.moves };
        let slot = slot as usize;
        if self.by_slot.len() <= slot {
            self.by_slot.resize_with(slot + 1, Vec::new);
        }
        let empty = || Locals { room: Arc::clone(&room), members: Vec::new() };
        let members = &mut self.by_room.entry(room.key).or_insert_with(empty).members;
        let rooms = &mut self.by_slot[slot];
        // Most connections are in one room, and many are idle: no spare capacity for the first.
        if rooms.is_empty() {
            rooms.reserve_exact(1);
        }
        rooms.push(Membership { room, index: members.len() as u32, permissions });
        members.push(member);
    }

    /// Removes a connection from a room, which is returned so that the hub can count it out.
    pub(crate) fn remove(
        &mut self,
        slot: usize,
        is_it: impl Fn(&Room) -> bool,
    ) -> Option<Arc<Room>> {
        let rooms = self.by_slot.get_mut(slot)?;
        let at = rooms.iter().position(|membership| is_it(&membership.room))?;
        let Membership { room, index, .. } = rooms.swap_remove(at);
        self.unlist(&room, index);
        Some(room)
    }

    /// Removes a connection from all its rooms.
    pub(crate) fn remove_all(&mut self, slot: usize) -> Vec<Arc<Room>> {
        let rooms = self.by_slot.get_mut(slot).map(std::mem::take).unwrap_or_default();
        let mut left = Vec::with_capacity(rooms.len());
        for Membership { room, index, .. } in rooms {
            self.unlist(&room, index);
            left.push(room);
        }
        left
    }

    /// Takes the member at `index` off a room's list; the last one takes over its index.
    fn unlist(&mut self, room: &Room, index: u32) {
        let Some(locals) = self.by_room.get_mut(&room.key) else { return };
        let members = &mut locals.members;
        members.swap_remove(index as usize);
        match members.get(index as usize) {
            Some(moved) => {
                let mut rooms = self.by_slot[moved.slot as usize].iter_mut();
                if let Some(membership) = rooms.find(|other| other.room.key == room.key) {
                    membership.index = index;
                }
            }
            None if members.is_empty() => {
                self.by_room.remove(&room.key);
            }
            None => {}
        }
    }

    /// How many members of a room are here.
    pub(crate) fn count(&self, room: RoomKey) -> usize {
        self.by_room.get(&room).map_or(0, |locals| locals.members.len())
    }

    /// A room and the membership of one connection, if that gets the room's message `seq`.
    pub(crate) fn membership(
        &self,
        slot: usize,
        room: RoomKey,
        seq: u64,
    ) -> Option<(&Arc<Room>, LocalMember)> {
        let rooms = self.by_slot.get(slot)?;
        let Membership { index, .. } = rooms.iter().find(|other| other.room.key == room)?;
        let Locals { room, members } = self.by_room.get(&room)?;
        let member = members.get(*index as usize).copied()?;
        (member.from_seq < seq).then_some((room, member))
    }

    /// The members of a room that get its message `seq`, each with its place in the list.
    pub(crate) fn listed(
        &self,
        room: RoomKey,
        seq: u64,
    ) -> impl Iterator<Item = (u32, LocalMember)> {
        let members = self.by_room.get(&room).map(|locals| &locals.members[..]);
        let places = (0..).zip(members.unwrap_or_default().iter().copied());
        places.filter(move |(_, member)| member.from_seq < seq)
    }

    /// A room, to find its members where they were listed.
    pub(crate) fn in_room(&self, room: RoomKey) -> Option<InRoom<'_>> {
        let Locals { room, members } = self.by_room.get(&room)?;
        Some(InRoom { room, members, all: self })
    }

    /// A room, and the members that get its message `seq`.
    pub(crate) fn of(
        &self,
        room: RoomKey,
        seq: u64,
    ) -> Option<(&Arc<Room>, impl Iterator<Item = LocalMember>)> {
        let Locals { room, members } = self.by_room.get(&room)?;
        Some((room, members.iter().copied().filter(move |member| member.from_seq < seq)))
    }

    /// Returns the slots of a room's members to whom its `nth` loss or new epoch is to be told:
    /// those who had joined before. Each of them gets the messages after `seq` from now on, if it
    /// does not get them already.
    pub(crate) fn rewind(&mut self, room: RoomKey, seq: u64, nth: u32) -> Vec<usize> {
        let members = self.by_room.get_mut(&room).map(|locals| &mut locals.members[..]);
        let members = members.unwrap_or_default().iter_mut();
        members
            .filter(|member| (member.moves.wrapping_sub(nth) as i32) < 0)
            .map(|member| {
                member.from_seq = member.from_seq.min(seq);
                member.slot as usize
            })
            .collect()
    }

    /// The rooms that a connection is in, each with the number up to which its messages were there
    /// before.
    pub(crate) fn memberships(&self, slot: usize) -> impl Iterator<Item = (RoomKey, u64)> {
        let rooms = self.by_slot.get(slot).map(Vec::as_slice).unwrap_or_default();
        rooms.iter().filter_map(|Membership { room, index, .. }| {
            let member = self.by_room.get(&room.key)?.members.get(*index as usize)?;
            Some((room.key, member.from_seq))
        })
    }

    /// The room of that name and what the connection may do there, if the connection is in it.
    pub(crate) fn find(&self, slot: usize, name: &str) -> Option<(&Arc<Room>, Permissions)> {
        let rooms = self.by_slot.get(slot)?;
        let is_it = |room: &Room| room.kind == RoomKind::Messages && room.name.as_str() == name;
        let found = rooms.iter().find(|membership| is_it(&membership.room))?;
        Some((&found.room, found.permissions))
    }

    /// Changes what a connection may do in a room.
    pub(crate) fn permit(&mut self, slot: usize, room: RoomKey, permissions: Permissions) {
        let mut rooms = self.by_slot.get_mut(slot).into_iter().flatten();
        if let Some(membership) = rooms.find(|membership| membership.room.key == room) {
            membership.permissions = permissions;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::Config,
        hub::{
            mailbox::{Deferred, MailboxBounds, mailboxes_without_workers},
            names::RoomName,
            rooms::Rooms,
        },
        memory::account::Account,
    };

    #[test]
    fn leaving_keeps_everyone_elses_place() {
        let bounds = MailboxBounds { letters_max: 9, bytes_max: 999 };
        let (mailboxes, _) = mailboxes_without_workers(1, bounds);
        let account = Arc::new(Account::new(1, None, 0));
        let rooms = Rooms::new(&Config::default(), mailboxes, account);
        let room = |name: &str| {
            let name = RoomName::new(name).expect("a legal name");
            rooms.enter(&name, &mut Deferred::default(), |_, _| ()).expect("room for it").0
        };
        let (a, b) = (room("a"), room("b"));
        let mut members = Members::default();
        for slot in 0..4 {
            let conn = ConnId { worker: 0, slot, generation: 7 };
            let at = |seq| Entry { seq, moves: 0 };
            members.add(conn, Arc::clone(&a), at(0), Permissions::all());
            members.add(conn, Arc::clone(&b), at(u64::from(slot)), Permissions::all());
        }
        let of = |members: &Members, room: &Room, seq| {
            let members = members.of(room.key, seq).map(|(_, members)| members);
            let mut slots: Vec<u32> =
                members.into_iter().flatten().map(|member| member.slot).collect();
            slots.sort_unstable();
            slots
        };
        assert_eq!(of(&members, &b, 2), [0, 1], "later members get later messages");
        let listed: Vec<(u32, LocalMember)> = members.listed(b.key, 3).collect();
        assert_eq!(listed.iter().map(|(_, member)| member.slot).collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!(members.memberships(3).collect::<Vec<_>>(), [(a.key, 0), (b.key, 3)]);
        assert!(members.remove(0, |room| room.key == a.key).is_some());
        assert!(members.remove(0, |room| room.key == a.key).is_none());
        assert_eq!(members.remove_all(3).len(), 2);
        assert_eq!(of(&members, &a, 9), [1, 2]);
        assert_eq!(of(&members, &b, 9), [0, 1, 2]);
        members.remove(0, |room| room.key == b.key);
        let found = |members: &Members, at: usize| {
            let (place, LocalMember { slot, generation, .. }) = listed[at];
            let conn = ConnId { worker: 0, slot, generation };
            let found = members.in_room(b.key)?.find(place, conn, 3);
            found.map(|member| member.slot)
        };
        assert_eq!([0, 1, 2].map(|at| found(&members, at)), [None, Some(1), Some(2)], "one moved");
        let other = ConnId { worker: 0, slot: 0, generation: 8 };
        members.add(other, Arc::clone(&b), Entry { seq: 0, moves: 0 }, Permissions::all());
        assert_eq!(found(&members, 0), None, "another connection has its slot");
        assert_eq!(members.remove_all(1).len() + members.remove_all(2).len(), 4);
        assert_eq!(of(&members, &a, 9), [0; 0]);
        assert!(members.find(0, "b").is_some() && members.find(0, "a").is_none());
        assert!(members.find(1, "b").is_none() && members.find(99, "b").is_none());
    }
}
