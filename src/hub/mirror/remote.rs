//! The clients of other nodes, as the rooms of this one show them.

use std::{collections::HashSet, sync::Arc};

use uuid::Uuid;

use crate::{
    hub::{
        Hub,
        mailbox::Deferred,
        presence::{RosterChange, Told, Who},
        room::Room,
        roster::Shown,
    },
    identity::Identity,
};

/// How a client is shown in a room, as the engine keeps it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ShownAs {
    pub(crate) name: Option<String>,
    pub(crate) user: Option<String>,
}

impl ShownAs {
    fn into_shown(self) -> Shown {
        let identity = self.user.map(|user| Arc::new(Identity::new(user)));
        Shown::new(self.name.map(Arc::from), identity)
    }
}

impl Hub {
    /// Shows a client of another node in a room, or how it is shown now.
    pub(crate) fn show_remote(&self, room: &Arc<Room>, client_id: Uuid, shown: ShownAs) {
        let shown = shown.into_shown();
        let mut deferred = Deferred::default();
        let mut state = room.state.lock();
        if state.roster.shown(client_id).is_some() && !state.roster.is_going(client_id) {
            if state.roster.is_remote(client_id) {
                state.roster.set_shown(client_id, shown);
            }
            return;
        }
        state.roster.set_remote(client_id, true);
        if state.roster.is_going(client_id) {
            state.roster.take_back(client_id, shown);
            return;
        }
        let formatter = state.formatter.clone();
        let told = formatter.as_ref().map_or(Told::Now, |formatter| {
            let who = Who { client_id, session: None, formatter };
            let appears = RosterChange::Appears;
            self.notify_watchers(&who, &shown, appears, room, &mut state, &mut deferred)
        });
        match (told, formatter) {
            (Told::Later, Some(formatter)) => {
                state.roster.insert_gathered(client_id, shown, &formatter);
                self.tell_if_many(room, &mut state, &mut deferred);
            }
            _ => state.roster.insert_told(client_id, shown),
        }
        drop(state);
        self.mailboxes.after_unlock(&deferred);
    }

    /// Takes a client of another node out of a room.
    pub(crate) fn hide_remote(&self, room: &Arc<Room>, client_id: Uuid) {
        let mut deferred = Deferred::default();
        let mut state = room.state.lock();
        if !state.roster.is_remote(client_id) {
            return;
        }
        state.roster.set_remote(client_id, false);
        if let Some(shown) = state.roster.remove_untold(client_id) {
            let formatter = state.formatter.clone();
            let told = formatter.as_ref().map_or(Told::Now, |formatter| {
                let who = Who { client_id, session: None, formatter };
                let leaves = RosterChange::Leaves;
                self.notify_watchers(&who, &shown, leaves, room, &mut state, &mut deferred)
            });
            match (told, formatter) {
                (Told::Later, Some(formatter)) => {
                    state.roster.remove_gathered(client_id, &formatter);
                    self.tell_if_many(room, &mut state, &mut deferred);
                }
                _ => state.roster.remove_told(client_id),
            }
        }
        self.rooms.note_vacancy(room, &mut state);
        drop(state);
        self.mailboxes.after_unlock(&deferred);
    }

    /// Lists who is in a room by other nodes, in place of who was. Returns those whom this node
    /// shows in it and who are not among `members`.
    pub(crate) fn set_remote(&self, room: &Arc<Room>, members: Vec<(Uuid, ShownAs)>) -> Vec<Uuid> {
        let now: HashSet<Uuid> = members.iter().map(|(id, _)| *id).collect();
        let state = room.state.lock();
        let before: Vec<Uuid> = state.roster.remote().collect();
        let mut unlisted: Vec<Uuid> = state.roster.shown_by_this_node().collect();
        drop(state);
        unlisted.retain(|client| !now.contains(client));
        for client in before.into_iter().filter(|client| !now.contains(client)) {
            self.hide_remote(room, client);
        }
        for (client, shown) in members {
            let is_ours = self
                .sessions
                .find(&client)
                .is_some_and(|session| session.room(room.name.as_str()).is_some());
            if !is_ours {
                self.show_remote(room, client, shown);
            }
        }
        unlisted
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::Config, hub::harness::Bench};

    #[test]
    fn one_who_comes_back_while_it_is_still_listed_stays() {
        let mut bench = Bench::new(&Config::default(), 1, 1000);
        let (mut watcher, mut client) = (bench.client(0, true), bench.client(0, true));
        watcher.watch("a");
        client.join("a").expect("a place");
        client.leave("a");
        let room = bench.hub.rooms.find("a").expect("somebody is in it");
        let id = client.session.client_id;
        // The engine has listed who is there before it heard that the client has left.
        bench.hub.show_remote(&room, id, ShownAs::default());
        client.join("a").expect("a place");
        // And hears it now.
        bench.hub.hide_remote(&room, id);
        assert_eq!(bench.listed("a"), 2);
        assert!(!room.state.lock().roster.is_remote(id));
        client.leave("a");
        assert_eq!(bench.listed("a"), 1);
    }
}
