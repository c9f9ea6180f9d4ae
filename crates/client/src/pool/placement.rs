//! Which session of a pool has which room and publish.

use std::{cmp::Reverse, collections::VecDeque, sync::Arc, time::Instant};

use crate::{
    ask::{Ask, JoinOptions},
    error::{Error, ErrorKind},
};

use super::{
    dispatcher::Dispatcher,
    member::{MemberRoom, RoomPhase, insert, preference},
    note::Note,
    pending::Given,
};

impl Dispatcher {
    /// Finds a session for a publish, in whose queue it waits then.
    pub(super) fn place(&mut self, number: u64) -> Option<usize> {
        let room = Arc::clone(&self.pending.get(&number)?.room);
        self.unassign(number);
        let Some(member) = self.choose(&room) else {
            let last = self.members.iter().find_map(|member| member.last_error.clone());
            let over = || Error::new(ErrorKind::Closed, "all sessions are over");
            self.answer(number, Err(last.unwrap_or_else(over)));
            return None;
        };
        self.pins.entry(room).or_default().member = Some(member);
        self.members[member].assigned += 1;
        self.members[member].queue(number);
        self.pending.get_mut(&number)?.member = Some(member);
        Some(member)
    }

    /// Takes a publish from its session.
    pub(super) fn unassign(&mut self, number: u64) {
        let Some(pending) = self.pending.get_mut(&number) else { return };
        if let Some(member) = pending.member.take() {
            let member = &mut self.members[member];
            member.assigned -= 1;
            if pending.given.take().is_some()
                && let Some(room) = member.rooms.get_mut(&pending.room)
            {
                // It may have been left and joined anew since.
                room.given = room.given.saturating_sub(1);
            }
        }
    }

    /// The session for a room: the one that has it, while it is connected or its messages there
    /// would be overtaken; else the least loaded. `None` if all have ended.
    fn choose(&self, room: &str) -> Option<usize> {
        let now = Instant::now();
        let pinned = self.pins.get(room).and_then(|pin| pin.member);
        let pinned = pinned.filter(|pinned| !self.members[*pinned].is_over());
        if let Some(pinned) = pinned {
            let member = &self.members[pinned];
            let keeps_order =
                member.has_given(room) && !member.is_away_since(self.settings.move_after, now);
            if member.is_up() || keeps_order {
                return Some(pinned);
            }
        }
        let members = || self.members.iter().enumerate();
        let best = members()
            .filter(|(_, member)| member.is_up())
            .min_by_key(|(index, member)| (member.assigned, Reverse(preference(room, *index))));
        let any = || {
            let members = members().filter(|(_, member)| !member.is_over());
            members.map(|(index, _)| index).max_by_key(|index| preference(room, *index))
        };
        best.map(|(index, _)| index).or(pinned).or_else(any)
    }

    /// Gives a session what waits for it, as much as it may have.
    pub(super) fn pump(&mut self, index: usize) {
        while self.members[index].is_up() && self.members[index].given < self.settings.given_max {
            let Some(number) = self.members[index].queue.pop_front() else { return };
            // It was answered, or has gone elsewhere.
            let Some(pending) = self.pending.get(&number) else { continue };
            if pending.member != Some(index) {
                continue;
            }
            let room = Arc::clone(&pending.room);
            let used = self.next_number();
            let member = &mut self.members[index];
            match member.rooms.get_mut(&room) {
                Some(of) => {
                    of.used = used;
                    match &mut of.phase {
                        RoomPhase::Joining(waiting) => insert(waiting, number),
                        RoomPhase::Joined => self.give(index, number),
                    }
                }
                None => {
                    if !self.make_room(index) {
                        // The next answer makes room.
                        return self.members[index].queue.push_front(number);
                    }
                    let phase = RoomPhase::Joining(VecDeque::from([number]));
                    let of = MemberRoom { phase, given: 0, used };
                    self.members[index].rooms.insert(Arc::clone(&room), of);
                    self.join(index, &room);
                }
            }
        }
    }

    /// Leaves a room if the session is in as many as it may be.
    fn make_room(&mut self, index: usize) -> bool {
        let member = &mut self.members[index];
        if member.rooms.len() < self.settings.rooms_max {
            return true;
        }
        let Some(room) = member.idle_room() else { return false };
        member.rooms.remove(&room);
        let leave = Ask::Leave { room: room.to_string() };
        // If the session is over, so are its rooms.
        member.session.call(leave, Arc::default(), Box::new(drop));
        self.unpin(&room);
        true
    }

    pub(super) fn join(&mut self, index: usize, room: &Arc<str>) {
        let member = &self.members[index];
        let (life, name) = (member.life, Arc::clone(room));
        let callback = Note::callback(&self.notes, move |result| {
            let result = result.map(drop);
            Note::Joined { member: index, life, room: name, result }
        });
        let options = JoinOptions::default();
        let ask = Ask::Join { room: room.to_string(), options, subscriber: None };
        member.session.call(ask, Arc::default(), callback);
    }

    fn give(&mut self, index: usize, number: u64) {
        let attempt = self.next_number();
        let member = &mut self.members[index];
        let Some(pending) = self.pending.get_mut(&number) else { return };
        let (life, fate) = (member.life, Arc::default());
        let callback = Note::callback(&self.notes, move |result| Note::Answered {
            member: index,
            life,
            number,
            attempt,
            result,
        });
        let rooms = vec![pending.room.to_string()];
        let ask = Ask::Publish { rooms, message: pending.message.clone() };
        pending.given = Some(Given { fate: Arc::clone(&fate), attempt });
        member.given += 1;
        if let Some(room) = member.rooms.get_mut(&pending.room) {
            room.given += 1;
        }
        member.session.call(ask, fate, callback);
    }

    pub(super) fn place_again(&mut self, number: u64) {
        if let Some(member) = self.place(number) {
            self.pump(member);
        }
    }

    /// Forgets which session has a room, if nothing depends on it.
    pub(super) fn unpin(&mut self, room: &Arc<str>) {
        let Some(pin) = self.pins.get(room) else { return };
        let is_in = pin.member.is_some_and(|member| self.members[member].rooms.contains_key(room));
        if pin.pending == 0 && !is_in {
            self.pins.remove(room);
        }
    }
}
