//! Who is in the rooms of a node, as Redis says.

use std::{collections::BTreeSet, sync::Arc};

use bytes::Bytes;
use uuid::Uuid;

use super::{Core, words::shown_as};
use crate::hub::{mirror::remote::ShownAs, names::RoomName, room::Room};

impl Core {
    /// Takes the list of those who are in a room. `ours` are there by this node, each with the
    /// fence of what is shown.
    pub(super) fn take_members(
        &mut self,
        name: &RoomName,
        room: &Arc<Room>,
        members: Vec<(Uuid, ShownAs)>,
        ours: Vec<(Uuid, u64)>,
    ) {
        let by_this: BTreeSet<Uuid> = ours.iter().map(|(client, _)| *client).collect();
        let listed = members.iter().map(|(client, _)| *client);
        let is_contested =
            |client: &Uuid| !by_this.contains(client) && self.sessions.contains_key(client);
        let elsewhere: Vec<Uuid> = listed.filter(is_contested).collect();
        let unlisted = self.hub.set_remote(room, members);
        by_this.into_iter().for_each(|client| self.note_ours(client, name));
        for client in unlisted.into_iter().chain(elsewhere) {
            self.note_contested(client, name);
        }
        self.hide_strangers(name, ours);
    }

    /// Takes out of a room those whom this node has shown and knows no more: their leaving was
    /// lost, as happens when another server takes over from Redis.
    fn hide_strangers(&mut self, name: &RoomName, ours: Vec<(Uuid, u64)>) {
        for (client, fence) in ours {
            let is_in = self.sessions.get(&client).is_some_and(|kept| kept.rooms.contains(name));
            if !is_in && !self.is_bringing(client) {
                self.show(name, client, fence, None);
            }
        }
    }

    /// Notes, of a client that this node may have the session of, that Redis does not list it in a
    /// room, or lists it there by another node.
    fn note_contested(&mut self, client: Uuid, room: &RoomName) {
        if let Some(kept) = self.sessions.get_mut(&client) {
            kept.contested.insert(room.clone());
        }
    }

    /// Notes that Redis lists a client in a room by this node.
    fn note_ours(&mut self, client: Uuid, room: &RoomName) {
        if let Some(kept) = self.sessions.get_mut(&client) {
            kept.contested.remove(room);
        }
    }

    /// Takes what is said of one who is in a room, or was.
    pub(super) fn on_presence(
        &mut self,
        name: &RoomName,
        is_shown: bool,
        payload: &Bytes,
    ) -> Option<()> {
        let end = payload.iter().position(|byte| *byte == b'\n')?;
        let mut head = std::str::from_utf8(&payload[1..end]).ok()?.split(' ');
        let version: u64 = head.next()?.parse().ok()?;
        let client = Uuid::try_parse(head.next()?).ok()?;
        let node = head.nth(1)?;
        let known = self.rooms.get_mut(name)?;
        if version <= known.version {
            return Some(());
        }
        if version != known.version + 1 {
            self.hold_first(name, payload);
            self.open_anew(name, None);
            return Some(());
        }
        known.version = version;
        let room = Arc::clone(known.room.as_ref()?);
        let is_ours = node == self.node;
        match is_shown {
            true if is_ours => self.note_ours(client, name),
            true => self.hub.show_remote(&room, client, shown_as(&payload[end + 1..])?),
            // Also what this node says: Redis may have listed one that has left while the link was
            // lost, as if it were on another node.
            false => self.hub.hide_remote(&room, client),
        }
        if !is_ours {
            self.note_contested(client, name);
        }
        if !is_shown && !is_ours && self.sessions.contains_key(&client) {
            // Either its session has moved to another node, of which this node is about to hear,
            // and Redis refuses to have it written down by the earlier fence. Or another node had
            // taken the session up at the old primary of a failover, and has ended it at the new
            // one by mistake: then this brings it back.
            let shard = self.shard_of(name);
            self.shards[shard].undone.unwritten.insert(client);
        }
        Some(())
    }
}
