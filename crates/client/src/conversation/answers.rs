//! What `welcome`, `ok` and `error` change in a session.

use std::{
    borrow::Cow,
    mem,
    time::{Duration, Instant},
};

use rusty_socks_protocol::{
    ErrorCode, Head, Overflow,
    answer::{self, Joined, PublishedToRooms, Resumed, Subscribed, Welcome},
};
use serde::Deserialize;

use crate::{
    ask::{Answer, Ask, JoinOptions, Request},
    backoff::asked,
    error::{Error, ErrorKind},
    event::{Entered, Event, Members, Page, Position, Receipt, RoomEvent, RoomMessage, Sent},
    frames,
};

use super::{
    in_flight::{InFlight, InternalCommand, QueuedCommand},
    membership::Membership,
    state::{ATTEMPTS_MAX, Conversation, FORMER_MAX, Identity, Phase, Who},
};

/// When `welcome` does not say how often the server pings, or that it does not.
const PING: Duration = Duration::from_secs(30);

/// Other pings than these are not believed: the shortest silence would be no sign of anything, and
/// the longest would never be one.
const PING_MIN: Duration = Duration::from_secs(1);
const PING_MAX: Duration = Duration::from_secs(24 * 3600);

impl Conversation {
    /// The server's first frame.
    pub(crate) fn welcome(&mut self, text: &str) {
        if let Some(welcome) = frames::read::<Welcome<'_>>(text) {
            self.begin_anew(&welcome);
        }
    }

    /// A new identity, the first or one in place of a session that is gone. Rooms are joined
    /// (again).
    fn begin_anew(&mut self, welcome: &Welcome<'_>) {
        self.apply_limits(welcome);
        let client_id = welcome.client_id.to_string();
        let room = welcome.room.as_ref().map(ToString::to_string);
        self.who = Some(Who { client_id: client_id.clone(), room: room.clone() });
        let session = Some(welcome.session.to_string()).filter(|secret| !secret.is_empty());
        let me = Identity { client_id: client_id.clone(), session };
        let former = self.me.replace(me);
        let is_first = former.is_none();
        if let Some(former) = former {
            self.former.push_back(former.client_id);
            if self.former.len() > FORMER_MAX {
                self.former.pop_front();
            }
            self.direct_seq = 0;
            self.orphan();
            self.events.push_back(Event::SessionLost { client_id: client_id.clone() });
        }
        self.events.push_back(Event::Connected { client_id, resumed: false });
        self.phase = Phase::Rejoining;
        self.patterns.clear();
        for (room, membership) in &mut self.rooms {
            membership.is_in = false;
            if self.wanted.by_name().contains(room) {
                membership.pattern = None;
            }
        }
        if let Some(room) = room {
            if is_first && self.rules.default_room.stays_in(&room) {
                let epoch = welcome.epoch.as_deref().unwrap_or_default();
                self.reorderer.greet(&room, epoch, welcome.seq.unwrap_or(0));
                self.wanted.join(room.clone());
                self.rooms
                    .insert(room.clone(), Membership { is_in: true, ..Membership::default() });
                self.note_state(&room);
            } else {
                // The server joined it by itself, without our position.
                self.add_internal(InternalCommand::Unjoin { room });
            }
        }
        for room in self.wanted.by_name().iter().cloned().collect::<Vec<_>>() {
            if !self.is_in(&room) {
                self.add_internal(InternalCommand::Rejoin { room });
            }
        }
        for pattern in self.wanted.patterns().iter().cloned().collect::<Vec<_>>() {
            self.add_internal(InternalCommand::RejoinPattern { pattern });
        }
    }

    /// What holds on every connection with this server.
    fn apply_limits(&mut self, welcome: &Welcome<'_>) {
        let every = Duration::try_from_secs_f64(welcome.ping_s.0).ok();
        let every = every.filter(|every| !every.is_zero()).unwrap_or(PING);
        self.ping = Some(every.clamp(PING_MIN, PING_MAX));
        self.message_bytes_max = welcome.max_message_bytes;
        let limits = welcome.limits;
        self.pace.limit(limits.rate_messages.map(f64::from), limits.rate_bytes.map(f64::from));
    }

    /// `ok` or `error`.
    pub(crate) fn answered(&mut self, head: &Head<'_>, text: &str, now: Instant) {
        let reference = head.reference.and_then(|reference| reference.get().parse().ok());
        let Some(in_flight) = reference.and_then(|number: u64| self.in_flight.remove(&number))
        else {
            return log::debug!("an answer to nothing: {text}");
        };
        if head.kind == "ok" {
            match in_flight {
                InFlight::Request(request) => self.granted(request, text),
                InFlight::Internal(task) => self.done(task, text, now),
            }
            return;
        }
        let error: answer::Error<'_> = frames::read(text).unwrap_or_default();
        match in_flight {
            InFlight::Request(request) => self.refused(request, &error, now),
            InFlight::Internal(task) => self.failed(task, &error, now),
        }
    }

    /// The server will take it later. `false` if it has said so too often, or has not.
    fn put_off(&mut self, error: &answer::Error<'_>, attempts: u32, now: Instant) -> bool {
        let Some(wait) = error.retry_after_ms.filter(|_| attempts < ATTEMPTS_MAX) else {
            return false;
        };
        let at = now + asked(wait);
        self.window = 1;
        self.not_before = Some(self.not_before.map_or(at, |other| other.max(at)));
        true
    }

    fn granted(&mut self, request: Request, text: &str) {
        self.window = self.rules.in_flight_max.min(2 * self.window);
        if let Ask::Leave { room } = &request.ask {
            self.has_left(room, request.number);
            return request.answer(Ok(Answer::Left));
        }
        let answer = self.answer_to(&request, text);
        self.conclude(request, answer);
    }

    /// What a request has brought about. An error is a server whose answer makes no sense.
    fn answer_to(&mut self, request: &Request, text: &str) -> Result<Answer, Error> {
        Ok(match &request.ask {
            Ask::Publish { rooms, message } => {
                let receipt = receipt(rooms, &message.id, text)?;
                if !message.options.echo && !request.is_doubtful {
                    for (room, seq) in &receipt.rooms {
                        self.reorderer.own(room, *seq);
                    }
                }
                Answer::Receipt(receipt)
            }
            Ask::Direct { message, .. } | Ask::Broadcast { message } => {
                let answer::Sent { id, repeated, .. } = body(text)?;
                Answer::Sent(Sent { id: known_id(&id, &message.id), repeated })
            }
            Ask::Join { room, .. } if room.ends_with(".*") => {
                let Subscribed { rooms, .. } = body(text)?;
                self.enter_all(room, &rooms, false);
                let rooms = rooms.into_iter().map(|matched| matched.room.into_owned()).collect();
                Answer::Entered(Entered { rooms, ..Entered::empty(room) })
            }
            Ask::Join { room, options, subscriber } => {
                let is_private = subscriber.is_some();
                Answer::Entered(self.joined(room, options, is_private, body(text)?))
            }
            Ask::Leave { .. } => Answer::Left,
            Ask::History { .. } => {
                let answer::Page { epoch, seq, messages, .. } = body(text)?;
                let position = Position { epoch: epoch.into_owned(), seq };
                let messages = frames::room_messages(&messages);
                Answer::Page(Page { position, messages })
            }
            Ask::Presence { room, watch } => {
                let answer::Members { members, count, .. } = body(text)?;
                if let (Some(membership), Some(watch)) = (self.rooms.get_mut(room), watch) {
                    membership.watches = *watch;
                    membership.is_watch_private = false;
                }
                let members = frames::members(Some(members), Some(count));
                Answer::Members(members.unwrap_or_default())
            }
        })
    }

    fn has_left(&mut self, name: &str, number: u64) {
        self.wanted.answered(number, true);
        self.remove_left(name);
        self.reconcile(name);
        self.note_states(name);
    }

    fn joined(
        &mut self,
        room: &str,
        options: &JoinOptions,
        is_private: bool,
        joined: Joined<'_>,
    ) -> Entered {
        let Joined { epoch, seq, recovered, overflow, messages, .. } = joined;
        let membership = Membership {
            is_in: true,
            watches: options.presence,
            is_watch_private: options.presence && is_private,
            sender: options.sender.clone(),
            ..Membership::default()
        };
        self.rooms.insert(room.to_owned(), membership);
        let is_latest = overflow == Overflow::Latest;
        match &options.since {
            Some(since) => {
                self.reorderer.enter(room, &since.epoch, since.seq, is_latest);
                let missed = recovered.then(|| self.items_of(&messages));
                self.reorderer.replay(room, &epoch, seq, is_latest, missed);
            }
            None => self.reorderer.enter(room, &epoch, seq, is_latest),
        }
        Entered {
            position: Some(Position { epoch: epoch.into_owned(), seq }),
            recovered,
            members: frames::members(joined.members, joined.count),
            ..Entered::empty(room)
        }
    }

    fn refused(&mut self, mut request: Request, error: &answer::Error<'_>, now: Instant) {
        request.attempts += 1;
        if self.put_off(error, request.attempts, now) {
            if !request.fate.is_withdrawn() {
                self.wait_again(request);
            }
            return;
        }
        match (&request.ask, &error.code) {
            // As it should be, by an earlier attempt whose answer was lost.
            (Ask::Leave { room }, ErrorCode::NotMember) => {
                self.has_left(room, request.number);
                request.answer(Ok(Answer::Left));
            }
            (ask, code) => {
                let refusal = Error::rejected(code.as_str(), &error.message);
                match (ask, code) {
                    (Ask::Join { .. }, ErrorCode::AlreadyMember) => {
                        self.is_there_already(request, refusal);
                    }
                    // A node whose Redis was silent does not know either.
                    (ask, ErrorCode::Overloaded) if self.rules.is_never_twice && ask.has_id() => {
                        self.conclude(request, Err(Error::unknown(refusal)));
                    }
                    _ => self.conclude(request, Err(refusal)),
                }
            }
        }
    }

    /// An internal command was carried out. One whose answer makes no sense has failed.
    fn done(&mut self, task: QueuedCommand, text: &str, now: Instant) {
        match self.take_answer(&task.command, text) {
            Ok(()) => {}
            Err(error) => {
                log::debug!("{error}");
                self.failed(task, &answer::Error::default(), now);
            }
        }
    }

    fn take_answer(&mut self, command: &InternalCommand, text: &str) -> Result<(), Error> {
        match command {
            InternalCommand::Resume => self.resumed(body(text)?),
            InternalCommand::Unjoin { room } => self.unjoined(room),
            InternalCommand::Rejoin { room } => {
                let Joined { epoch, seq, recovered, overflow, messages, members, count, .. } =
                    body(text)?;
                let membership = self.rooms.entry(room.clone()).or_default();
                (membership.is_in, membership.pattern) = (true, None);
                let missed = recovered.then(|| self.items_of(&messages));
                let is_latest = overflow == Overflow::Latest;
                self.reorderer.replay(room, &epoch, seq, is_latest, missed);
                self.tell_members(room, frames::members(members, count));
                self.reconcile(room);
            }
            InternalCommand::RejoinPattern { pattern } => {
                let Subscribed { rooms, .. } = body(text)?;
                self.enter_all(pattern, &rooms, true);
                self.reconcile(pattern);
                self.note_states(pattern);
            }
            InternalCommand::Fetch { room, epoch, .. }
                if !self.reorderer.expects_page(room, epoch) => {}
            InternalCommand::Fetch { room, .. } => {
                let answer::Page { epoch, seq, messages, .. } = body(text)?;
                let items = self.items_of(&messages);
                self.reorderer.page(room, &epoch, seq, items);
            }
            InternalCommand::Renew { .. } => {
                let answer::Authenticated { left, .. } = body(text)?;
                for room in left {
                    self.exclude(&room, &ErrorCode::Forbidden);
                }
            }
            InternalCommand::Recount { room } => {
                let answer::Members { members, count, .. } = body(text)?;
                self.recounted(room);
                self.tell_members(room, frames::members(Some(members), Some(count)));
            }
        }
        Ok(())
    }

    /// A room that was let go, to be joined again if it is wanted.
    fn unjoined(&mut self, name: &str) {
        match self.rooms.get_mut(name) {
            Some(membership) if self.wanted.by_name().contains(name) => {
                (membership.is_in, membership.pattern) = (false, None);
                self.reorderer.suspend_room(name);
            }
            _ => self.remove_left(name),
        }
        self.reconcile(name);
    }

    pub(crate) fn tell_members(&mut self, room: &str, members: Option<Members>) {
        if let Some(members) = members.filter(|_| self.hears(room)) {
            self.yield_presence(room, RoomEvent::Members(members));
        }
    }

    fn failed(&mut self, mut task: QueuedCommand, error: &answer::Error<'_>, now: Instant) {
        task.attempts += 1;
        let is_resume = matches!(task.command, InternalCommand::Resume);
        if !is_resume && self.put_off(error, task.attempts, now) {
            self.try_again(task);
            return;
        }
        match &task.command {
            InternalCommand::Resume => {
                let phase = mem::replace(&mut self.phase, Phase::Greeting);
                if let Phase::Resuming { welcome: Some(welcome) } = phase {
                    self.welcome(&welcome);
                }
            }
            InternalCommand::Rejoin { .. } | InternalCommand::RejoinPattern { .. } => {
                self.cannot_rejoin(task, &error.code);
            }
            InternalCommand::Fetch { room, epoch, .. } => {
                if self.reorderer.expects_page(room, epoch) {
                    self.reorderer.page_failed(room);
                }
            }
            InternalCommand::Recount { room } => self.recounted(room),
            InternalCommand::Unjoin { room } if error.code == ErrorCode::NotMember => {
                self.unjoined(room);
            }
            // The server closes the connection, and says why.
            InternalCommand::Renew { .. } | InternalCommand::Unjoin { .. } => {}
        }
    }

    fn recounted(&mut self, room: &str) {
        if let Some(membership) = self.rooms.get_mut(room) {
            membership.is_recounted = false;
        }
    }

    /// The session goes on: what the server has of it counts.
    fn resumed(&mut self, resumed: Resumed<'_>) {
        let phase = mem::replace(&mut self.phase, Phase::Rejoining);
        if let Phase::Resuming { welcome: Some(text) } = phase
            && let Some(welcome) = frames::read(&text)
        {
            self.apply_limits(&welcome);
        }
        let Some(me) = &mut self.me else { return };
        me.client_id = known_id(&resumed.client_id, &me.client_id);
        if !resumed.session.is_empty() {
            me.session = Some(resumed.session.into_owned());
        }
        let client_id = me.client_id.clone();
        self.events.push_back(Event::Connected { client_id, resumed: true });
        if !resumed.direct.recovered {
            self.events.push_back(Event::DirectLost);
        }
        let patterns = resumed.patterns.into_iter().map(Cow::into_owned).collect();
        self.adopt_rooms(patterns, resumed.rooms);
    }

    /// A publish that waits to be sent again, and is in a replay: it got there.
    pub(crate) fn confirm_publish(&mut self, message: &RoomMessage) {
        let is_it = |request: &Request| match &request.ask {
            Ask::Publish { message: draft, .. } => draft.id == message.id,
            _ => false,
        };
        let Some(at) = self.waiting.iter().position(is_it) else { return };
        if let Some(request) = self.waiting.remove(at) {
            let rooms = message.positions();
            request.answer(Ok(Answer::Receipt(Receipt {
                room: message.room.clone(),
                seq: message.seq,
                rooms,
                id: message.id.clone(),
                repeated: true,
            })));
        }
    }
}

/// The fields of an answer that belong to the command.
fn body<'a, B: Deserialize<'a>>(text: &'a str) -> Result<B, Error> {
    let why = "the server's answer is not understood";
    serde_json::from_str(text).map_err(|error| Error::caused(ErrorKind::Misbehaved, why, error))
}

/// The id that the server tells, or the one that is known if it tells none.
fn known_id(told: &str, known: &str) -> String {
    if told.is_empty() { known } else { told }.to_owned()
}

/// Where a message has come to be.
fn receipt(asked: &[String], id: &str, text: &str) -> Result<Receipt, Error> {
    let PublishedToRooms { rooms, id: told, repeated } = body(text)?;
    let mut rooms: Vec<(String, u64)> =
        rooms.into_iter().map(|at| (at.room.into_owned(), at.seq)).collect();
    if rooms.is_empty() {
        let answer::Published { room, seq, .. } = body(text)?;
        let asked = asked.first().map_or("", String::as_str);
        rooms.push((known_id(&room, asked), seq));
    }
    let (room, seq) = rooms[0].clone();
    Ok(Receipt { room, seq, rooms, id: known_id(&told, id), repeated })
}

#[cfg(test)]
mod tests;
