//! Where the server has a session, as far as it has said so, and how that is brought to what is
//! wanted.

use std::{collections::BTreeSet, mem};

use rusty_socks_protocol::{
    ErrorCode, Overflow,
    answer::{MatchedRoom, ResumedRoom},
};

use crate::{
    ask::{Answer, Ask, Request},
    error::Error,
    event::{Entered, Event, Position},
    frames,
};

use super::{
    in_flight::{InFlight, InternalCommand, QueuedCommand},
    membership::Membership,
    state::{ATTEMPTS_MAX, Conversation},
    wanted::{fits, overlap},
};

impl Conversation {
    /// Answers a request. What it means for where one is counts from now on.
    pub(crate) fn conclude(&mut self, request: Request, answer: Result<Answer, Error>) {
        if request.ask.moves() {
            self.wanted.answered(request.number, answer.is_ok());
            if let Ask::Join { room, subscriber: Some(queue), .. } = &request.ask
                && answer.is_ok()
            {
                self.add_subscriber(room, queue);
            }
            for name in request.ask.rooms() {
                self.reconcile(name);
                self.note_states(name);
            }
        }
        request.answer(answer);
    }

    pub(crate) fn is_in(&self, room: &str) -> bool {
        self.rooms.get(room).is_some_and(|membership| membership.is_in)
    }

    /// Whether a notice of a room is to be yielded.
    pub(crate) fn hears(&self, room: &str) -> bool {
        self.is_in(room) && self.wanted.hears(room)
    }

    /// Whether an event that waits to be taken is void, because of the call of `leave` with that
    /// number.
    pub(crate) fn is_void(&self, event: &Event, leave: u64) -> bool {
        let is_left = |room: &str| self.wanted.is_left_by(leave, room);
        match event {
            Event::Message(message) if message.rooms.is_empty() => is_left(&message.room),
            Event::Message(message) => {
                message.rooms.iter().any(|(room, _)| is_left(room))
                    && !message.rooms.iter().any(|(room, _)| self.wanted.session_hears(room))
            }
            Event::Matched { pattern, room } | Event::Unmatched { pattern, room } => {
                (is_left(pattern) || is_left(room)) && !self.wanted.session_hears(room)
            }
            Event::Joined { room, .. }
            | Event::Left { room, .. }
            | Event::Members { room, .. }
            | Event::Lost { room, .. }
            | Event::Excluded { room, .. } => is_left(room),
            Event::Connected { .. }
            | Event::Disconnected { .. }
            | Event::SessionLost { .. }
            | Event::Closing { .. }
            | Event::Direct(_)
            | Event::Broadcast(_)
            | Event::DirectLost => false,
        }
    }

    /// Whether a request has to wait for the answer to another: what changes where one is keeps its
    /// place among all that concerns the same rooms, even if the server puts some of it off.
    pub(crate) fn must_wait(&self, ask: &Ask) -> bool {
        let touches = |name: &String| ask.rooms().iter().any(|room| overlap(room, name));
        self.in_flight.values().any(|in_flight| match in_flight {
            InFlight::Request(other) => {
                (ask.moves() || other.ask.moves()) && other.ask.rooms().iter().any(touches)
            }
            InFlight::Internal(QueuedCommand { command, .. }) => match command {
                InternalCommand::Unjoin { room }
                | InternalCommand::Rejoin { room }
                | InternalCommand::RejoinPattern { pattern: room } => touches(room),
                InternalCommand::Resume
                | InternalCommand::Renew { .. }
                | InternalCommand::Fetch { .. }
                | InternalCommand::Recount { .. } => false,
            },
        })
    }

    /// A join of what the server has joined already: a room, by a pattern, as the default room or
    /// by a resume; or a pattern.
    pub(crate) fn answered_from_memory(&mut self, request: Request) -> Option<Request> {
        let Ask::Join { room, options, subscriber } = &request.ask else { return Some(request) };
        let mut entered = Entered::empty(room);
        if self.patterns.contains(room) {
            let of_it = |(name, of): &(&String, &Membership)| of.is_in && fits(room, name);
            entered.rooms = self.rooms.iter().filter(of_it).map(|(name, _)| name.clone()).collect();
        } else if let Some(membership) = self.rooms.get_mut(room).filter(|of| of.is_in) {
            if options.presence {
                let is_first = !membership.watches;
                membership.is_watch_private =
                    subscriber.is_some() && (is_first || membership.is_watch_private);
                membership.watches = true;
                self.recount(room);
            }
            let position = self.reorderer.position(room);
            entered.position = position.map(|(epoch, seq)| Position { epoch: epoch.into(), seq });
        } else {
            return Some(request);
        }
        self.conclude(request, Ok(Answer::Entered(entered)));
        None
    }

    /// The server says that one is there already.
    pub(crate) fn is_there_already(&mut self, request: Request, refusal: Error) {
        if let Some(request) = self.answered_from_memory(request) {
            if request.attempts >= ATTEMPTS_MAX {
                return self.conclude(request, Err(refusal));
            }
            // Since when, nobody knows: out, and in again.
            for room in request.ask.rooms() {
                self.add_internal(InternalCommand::Unjoin { room: room.clone() });
            }
            self.wait_again(request);
        }
    }

    /// The server has joined a pattern, and through it these rooms. With `again`, as it had before:
    /// rooms that are not known were made since.
    pub(crate) fn enter_all(&mut self, pattern: &str, listed: &[MatchedRoom<'_>], again: bool) {
        self.patterns.insert(pattern.to_owned());
        if !self.bound_rooms(listed.len()) {
            return;
        }
        for matched in listed {
            if self.is_in(&matched.room) {
                continue;
            }
            let is_new = !self.rooms.contains_key(&*matched.room);
            self.enter_through(pattern, matched);
            if again && is_new {
                self.announce_created(pattern, &matched.room, matched.seq);
            }
        }
    }

    /// Tells of a room that a pattern matched unseen, and of the messages missed there. Some of
    /// them may have come by way of other rooms, so they are not fetched.
    fn announce_created(&mut self, pattern: &str, room: &str, missed_to: u64) {
        if !self.wanted.hears(room) {
            return;
        }
        let (pattern, room) = (pattern.to_owned(), room.to_owned());
        self.events.push_back(Event::Matched { pattern, room: room.clone() });
        if missed_to > 0 {
            self.yield_lost(room, Some((1, missed_to)));
        }
    }

    /// In a room through a pattern.
    fn enter_through(&mut self, pattern: &str, matched: &MatchedRoom<'_>) {
        let MatchedRoom { room, epoch, seq, overflow } = matched;
        let membership = self.rooms.entry(room.to_string()).or_default();
        membership.is_in = true;
        membership.pattern = Some(pattern.to_owned());
        self.reorderer.replay(room, epoch, *seq, *overflow == Overflow::Latest, None);
        self.note_state(room);
    }

    /// A room was made that a pattern matches.
    pub(crate) fn matched(&mut self, pattern: &str, matched: &MatchedRoom<'_>) {
        // Of a pattern that one has never joined, or whose leave is answered.
        if !self.patterns.contains(pattern) {
            return;
        }
        self.enter_through(pattern, matched);
        self.reconcile(&matched.room);
        if self.hears(&matched.room) {
            let (pattern, room) = (pattern.to_owned(), matched.room.to_string());
            self.events.push_back(Event::Matched { pattern, room });
        }
    }

    /// The server has one no longer in a room, or in those that only this pattern brought.
    pub(crate) fn remove_left(&mut self, name: &str) {
        self.patterns.remove(name);
        let mut gone = Vec::new();
        for (room, membership) in &mut self.rooms {
            if membership.pattern.as_deref() == Some(name) {
                membership.pattern = self.patterns.iter().find(|other| fits(other, room)).cloned();
                if membership.pattern.is_none() {
                    gone.push(room.clone());
                }
            } else if room == name {
                gone.push(room.clone());
            }
        }
        for room in gone {
            match self.rooms.get_mut(&room) {
                // It is to be joined again, from where one was.
                Some(membership) if self.wanted.by_name().contains(&room) && room != name => {
                    (membership.is_in, membership.pattern) = (false, None);
                    self.reorderer.suspend_room(&room);
                }
                _ => self.drop_room(&room),
            }
        }
    }

    fn drop_room(&mut self, room: &str) {
        self.rooms.remove(room);
        self.reorderer.forget(room);
        self.note_state(room);
    }

    /// A room or pattern cannot be had.
    pub(crate) fn exclude(&mut self, name: &str, code: &ErrorCode) {
        let is_heard = self.wanted.session_hears(name) || self.wanted.hears_pattern(name);
        self.wanted.lose(name);
        self.remove_left(name);
        self.end_excluded_subscribers(name, code);
        self.note_states(name);
        if is_heard {
            let (room, code) = (name.to_owned(), code.to_string());
            self.events.push_back(Event::Excluded { room, code });
        }
    }

    /// Has the server brought to what the calls that are answered want of a room, or of a pattern
    /// and its rooms.
    pub(crate) fn reconcile(&mut self, name: &str) {
        let wanted = self.wanted.by_name().iter();
        let wanted = wanted.filter(|room| overlap(name, room) && !self.is_in(room));
        let rejoin: Vec<String> = wanted.cloned().collect();
        let unwanted = self.rooms.iter().filter(|(room, of)| of.is_in && !self.wanted.has(room));
        let unwanted = unwanted.map(|(room, _)| room);
        let patterns = self.patterns.difference(self.wanted.patterns());
        let unjoin = unwanted.chain(patterns).filter(|other| overlap(name, other));
        let unjoin: Vec<String> = unjoin.cloned().collect();
        // A call that is yet to be answered may want it.
        for room in unjoin.into_iter().filter(|room| !self.wanted.is_open(room)).collect::<Vec<_>>()
        {
            self.add_move(InternalCommand::Unjoin { room });
        }
        for room in rejoin {
            self.add_move(InternalCommand::Rejoin { room });
        }
        let patterns = self.wanted.patterns().difference(&self.patterns);
        let patterns: Vec<String> =
            patterns.filter(|other| overlap(name, other)).cloned().collect();
        for pattern in patterns {
            self.add_move(InternalCommand::RejoinPattern { pattern });
        }
    }

    /// Adds an command, unless there is something that will do the same.
    fn add_move(&mut self, command: InternalCommand) {
        let Some(name) = command.moves().map(str::to_owned) else { return };
        let is_same = |task: &QueuedCommand| task.command.moves() == Some(&name);
        let is_in_flight = self.in_flight.values().any(|in_flight| match in_flight {
            InFlight::Internal(task) => is_same(task),
            InFlight::Request(_) => false,
        });
        if !is_in_flight && !self.internal.iter().any(is_same) {
            self.add_internal(command);
        }
    }

    /// The rooms and patterns of a session that goes on: the server has it in these, and in no
    /// others.
    pub(crate) fn adopt_rooms(&mut self, patterns: BTreeSet<String>, listed: Vec<ResumedRoom<'_>>) {
        if !self.bound_rooms(listed.len().max(patterns.len())) {
            return;
        }
        self.patterns = patterns;
        let (mut known, mut left_out) = (BTreeSet::new(), BTreeSet::new());
        for (room, membership) in &mut self.rooms {
            let was_in = mem::take(&mut membership.is_in);
            if was_in {
                known.insert(room.clone());
            }
            if was_in || self.wanted.by_name().contains(room) {
                left_out.insert(room.clone());
            }
        }
        // First where one is, since a message may be in several of them.
        for ResumedRoom { room, epoch, seq, recovered, overflow, error, .. } in &listed {
            left_out.remove(&**room);
            if let Some(code) = error {
                // The server could not just now: it is joined again, from where one was.
                let is_passing = *code == ErrorCode::Overloaded;
                if !is_passing || !self.wanted.by_name().contains(&**room) {
                    self.exclude(room, code);
                }
                continue;
            }
            let is_new = !self.rooms.contains_key(&**room);
            let is_whole = recovered.unwrap_or_default();
            let pattern = self.patterns.iter().find(|pattern| fits(pattern, room)).cloned();
            if let Some(pattern) = pattern.as_ref().filter(|_| is_new) {
                let missed_to = if is_whole { 0 } else { seq.unwrap_or_default() };
                self.announce_created(pattern, room, missed_to);
            }
            if is_new && is_whole {
                // Made while nobody was there for the session: it comes whole.
                let is_latest = *overflow == Some(Overflow::Latest);
                self.reorderer.enter(room, epoch.as_deref().unwrap_or_default(), 0, is_latest);
            }
            let membership = self.rooms.entry(room.to_string()).or_default();
            membership.is_in = true;
            if !known.contains(&**room) {
                // Or by its name. That shows when the pattern is left, and the room joined again.
                membership.pattern = pattern;
            }
            self.note_state(room);
        }
        for listed in listed.into_iter().filter(|listed| listed.error.is_none()) {
            let ResumedRoom { room, epoch, seq, recovered, overflow, messages, .. } = listed;
            let missed = recovered.unwrap_or_default();
            let missed = missed.then(|| self.items_of(&messages.unwrap_or_default()));
            let (epoch, seq) = (epoch.unwrap_or_default(), seq.unwrap_or_default());
            let is_latest = overflow == Some(Overflow::Latest);
            self.reorderer.replay(&room, &epoch, seq, is_latest, missed);
            self.tell_members(&room, frames::members(listed.members, listed.count));
        }
        for room in left_out {
            self.exclude(&room, &ErrorCode::NotMember);
        }
        self.reconcile_all();
    }

    pub(crate) fn reconcile_all(&mut self) {
        let mut names: BTreeSet<String> = self.rooms.keys().cloned().collect();
        names.extend(self.wanted.by_name().union(&self.patterns).cloned());
        names.extend(self.wanted.patterns().iter().cloned());
        for name in names {
            self.reconcile(&name);
        }
    }

    /// An own command that nobody needs any more.
    pub(crate) fn is_obsolete(&self, command: &InternalCommand) -> bool {
        match command {
            InternalCommand::Resume
            | InternalCommand::Renew { .. }
            | InternalCommand::Unjoin { .. } => false,
            InternalCommand::Fetch { room, epoch, .. } => {
                !self.rooms.contains_key(room) || !self.reorderer.expects_page(room, epoch)
            }
            InternalCommand::Recount { room } => !self.rooms.contains_key(room),
            // One that is about to be left is joined all the same: another call may keep some of
            // its rooms.
            InternalCommand::Rejoin { room } => !self.wanted.by_name().contains(room),
            InternalCommand::RejoinPattern { pattern } => !self.wanted.patterns().contains(pattern),
        }
    }

    /// A rejoin is answered by an error.
    pub(crate) fn cannot_rejoin(&mut self, task: QueuedCommand, code: &ErrorCode) {
        let Some(name) = task.command.moves().map(str::to_owned) else { return };
        if *code != ErrorCode::AlreadyMember || task.attempts >= ATTEMPTS_MAX {
            return self.exclude(&name, code);
        }
        // By a pattern, which does as well; or it was not let go yet, as that was put off.
        if !self.is_in(&name) && !self.patterns.contains(&name) {
            self.add_internal(InternalCommand::Unjoin { room: name });
            let number = self.next_number();
            self.internal.push_back(QueuedCommand { number, ..task });
        }
    }
}
