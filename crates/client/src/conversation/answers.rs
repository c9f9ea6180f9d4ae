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
    event::{Entered, Event, Members, Page, Position, Receipt, RoomMessage, Sent},
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
                self.rooms.insert(room, Membership { is_in: true, ..Membership::default() });
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
        let answer = self.answer_to(&request.ask, text);
        self.conclude(request, answer);
    }

    /// What a request has brought about. An error is a server whose answer makes no sense.
    fn answer_to(&mut self, ask: &Ask, text: &str) -> Result<Answer, Error> {
        Ok(match ask {
            Ask::Publish { rooms, message } => {
                let receipt = receipt(rooms, &message.id, text)?;
                if !message.options.echo {
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
            Ask::Join { room, options } => Answer::Entered(self.joined(room, options, body(text)?)),
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
    }

    fn joined(&mut self, room: &str, options: &JoinOptions, joined: Joined<'_>) -> Entered {
        let Joined { epoch, seq, recovered, overflow, messages, .. } = joined;
        let membership = Membership {
            is_in: true,
            watches: options.presence,
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
            self.wait_again(request);
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
            }
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
            self.events.push_back(Event::Members { room: room.to_owned(), members });
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
            InternalCommand::Fetch { room, .. } => self.reorderer.page_failed(room),
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
mod tests {
    use std::sync::Arc;

    use rusty_socks_protocol::SEQ_MAX;
    use serde_json::{Value, json, value::RawValue};

    use crate::{
        ask::{Draft, PublishOptions, RequestSlot, Ticket},
        backoff::ASKED_MAX,
    };

    use super::{
        super::state::{DefaultRoom, Rules},
        *,
    };

    /// A conversation, and what its frames say.
    struct Talk {
        inner: Conversation,
        now: Instant,
    }

    impl Talk {
        fn new() -> Talk {
            let default_room = DefaultRoom::Stay;
            let rules = Rules { default_room, in_flight_max: 4, rooms_max: 4 };
            Talk { inner: Conversation::new(rules), now: Instant::now() }
        }

        fn open(&mut self) {
            self.inner.opened(self.now);
        }

        fn hear(&mut self, frame: Value) {
            self.inner.frame(&frame.to_string(), self.now);
        }

        fn said(&mut self) -> Vec<Value> {
            self.inner.pump(self.now);
            self.inner.frames.drain(..).map(|text| serde_json::from_str(&text).unwrap()).collect()
        }

        /// The answer to the one command that was said.
        fn answer(&mut self, mut frame: Value) -> Value {
            let said = self.said();
            assert_eq!(said.len(), 1, "{said:?}");
            frame["ref"] = said[0]["ref"].clone();
            self.hear(frame);
            said[0].clone()
        }

        fn ask<T>(&mut self, ask: Ask, read: fn(Answer) -> Option<T>) -> Ticket<T> {
            let place = RequestSlot::take(&Arc::default(), 1).unwrap();
            let (request, ticket) = Request::new(ask, place, read);
            self.inner.submit(request);
            ticket
        }

        fn join(&mut self, room: &str) -> Ticket<Entered> {
            let options = JoinOptions::default();
            self.ask(Ask::Join { room: room.into(), options }, Answer::entered)
        }

        fn leave(&mut self, room: &str) -> Ticket<()> {
            self.ask(Ask::Leave { room: room.into() }, Answer::left)
        }

        fn publish(&mut self, room: &str, id: &str) -> Ticket<Receipt> {
            let message = draft(id, PublishOptions::default());
            self.ask(Ask::Publish { rooms: vec![room.into()], message }, Answer::receipt)
        }

        fn events(&mut self) -> Vec<String> {
            let name = |event: Event| match event {
                Event::Message(message) => message.content.get().to_owned(),
                other => format!("{other:?}").split([' ', '(']).next().unwrap_or_default().into(),
            };
            self.inner.events.drain(..).map(name).collect()
        }
    }

    fn draft(id: &str, options: PublishOptions) -> Draft {
        let content = RawValue::from_string("1".into()).unwrap();
        Draft { content, id: id.into(), options }
    }

    fn welcome(client: &str) -> Value {
        json!({"type": "welcome", "client_id": client, "session": format!("{client}-token"),
            "room": "lobby", "epoch": "e", "seq": 2, "ping_s": 5, "max_message_bytes": 1000})
    }

    fn message(seq: u64, client: &str, content: u64) -> Value {
        json!({"type": "message", "room": "lobby", "seq": seq, "id": format!("id{seq}"),
            "content": content, "timestamp": "t", "client_id": client})
    }

    fn ready() -> Talk {
        let mut talk = Talk::new();
        talk.open();
        assert!(talk.said().is_empty(), "nothing is said before the welcome");
        talk.hear(welcome("me"));
        assert_eq!(talk.inner.ping.take(), Some(Duration::from_secs(5)));
        assert_eq!(talk.events(), ["Connected"]);
        talk
    }

    fn within(time: u64) -> Duration {
        Duration::from_millis(time)
    }

    #[test]
    fn before_the_answer_to_a_resume_nothing_counts() {
        let mut talk = ready();
        talk.hear(message(3, "you", 3));
        talk.inner.lost();
        talk.open();
        let resume = talk.said().remove(0);
        assert_eq!(resume["type"], "resume");
        assert_eq!(resume["session"], "me-token");
        assert_eq!(resume["rooms"], json!([{"room": "lobby", "epoch": "e", "seq": 3}]));
        assert_eq!(resume["direct"], 0);
        talk.hear(welcome("other"));
        talk.hear(message(5, "you", 5));
        assert_eq!(talk.events(), ["3"]);
        let lobby = json!({"room": "lobby", "epoch": "e", "seq": 5, "recovered": true,
            "messages": [message(4, "me", 4), message(5, "you", 5)]});
        talk.hear(
            json!({"type": "ok", "ref": resume["ref"], "client_id": "me", "session": "me-token",
            "patterns": [], "rooms": [lobby], "direct": {"seq": 0, "recovered": true}}),
        );
        assert_eq!(talk.events(), ["Connected", "5"], "one's own is not told");
    }

    #[test]
    fn without_recovery_rooms_are_joined_again_from_where_one_was() {
        let mut talk = ready();
        talk.inner.lost();
        talk.open();
        talk.hear(welcome("new"));
        let waiting = talk.publish("lobby", "id4");
        let code = json!({"type": "error", "code": "unrecoverable", "message": "gone"});
        talk.answer(code);
        assert_eq!(talk.events(), ["SessionLost", "Connected"]);
        let said = talk.said();
        let kinds: Vec<_> = said.iter().map(|one| one["type"].as_str().unwrap()).collect();
        assert_eq!(kinds, ["leave", "join"], "and the publish waits");
        assert_eq!(said[1]["since"], json!({"epoch": "e", "seq": 2}));
        // The replay of the new connection's own default room comes in between, and is passed over.
        talk.hear(message(3, "you", 3));
        talk.hear(json!({"type": "ok", "ref": said[0]["ref"], "room": "lobby"}));
        talk.hear(
            json!({"type": "ok", "ref": said[1]["ref"], "room": "lobby", "epoch": "e", "seq": 4,
            "recovered": true, "messages": [message(3, "you", 3), message(4, "me", 4)]}),
        );
        assert_eq!(talk.events(), ["3"]);
        // It got there under the old name, so it is not sent again.
        let receipt = waiting.wait(within(0)).unwrap();
        assert!(receipt.repeated && receipt.seq == 4);
        assert!(talk.said().is_empty());
    }

    #[test]
    fn a_gap_that_a_loss_interrupts_is_closed_by_the_resume() {
        let mut talk = ready();
        talk.hear(json!({"type": "gap", "room": "lobby", "from": 3, "to": 4}));
        talk.hear(message(5, "you", 5));
        let history = talk.said().remove(0);
        assert_eq!((&history["type"], &history["after"]), (&json!("history"), &json!(2)));
        talk.inner.lost();
        talk.open();
        let lobby = json!({"room": "lobby", "epoch": "e", "seq": 5, "recovered": true,
            "messages": [message(3, "you", 3), message(4, "you", 4), message(5, "you", 5)]});
        let resume = talk.answer(json!({"type": "ok", "client_id": "me", "session": "me-token",
            "patterns": [], "rooms": [lobby], "direct": {"seq": 0, "recovered": true}}));
        assert_eq!(resume["rooms"][0]["seq"], 2);
        assert_eq!(talk.events(), ["Connected", "3", "4", "5"]);
    }

    #[test]
    fn a_server_without_sessions_is_joined_anew() {
        let mut talk = Talk::new();
        talk.open();
        let mut old = welcome("me");
        old.as_object_mut().unwrap().remove("session");
        talk.hear(old.clone());
        talk.inner.lost();
        talk.open();
        assert!(talk.said().is_empty());
        talk.hear(old);
        assert_eq!(talk.said().len(), 2);
    }

    #[test]
    fn what_is_put_off_is_sent_again_in_its_turn_with_the_same_id() {
        let mut talk = ready();
        let (one, two) = (talk.publish("lobby", "a"), talk.publish("lobby", "b"));
        let said = talk.said();
        let limited = |at: usize| {
            json!({"type": "error", "ref": said[at]["ref"], "code": "rate_limited", "message": "m",
                "retry_after_ms": 100})
        };
        talk.hear(limited(1));
        talk.hear(limited(0));
        let _late = talk.publish("lobby", "c");
        assert!(talk.said().is_empty());
        talk.now += within(100);
        let ok = |seq| json!({"type": "ok", "room": "lobby", "seq": seq});
        assert_eq!(talk.answer(ok(3))["id"], "a", "one at a time, until it is granted");
        let ids: Vec<_> = talk.said().iter().map(|one| one["id"].clone()).collect();
        assert_eq!(ids, ["b", "c"]);
        assert_eq!(one.wait(within(0)).unwrap().seq, 3);
        drop(two);
    }

    /// What `welcome` tells, in the words of the server.
    fn limited(limits: Value) -> Talk {
        let mut talk = Talk::new();
        talk.open();
        let mut frame = welcome("me");
        frame["limits"] = limits;
        talk.hear(frame);
        talk
    }

    #[test]
    fn no_more_is_sent_than_the_welcome_allows() {
        let mut talk = limited(json!({"rate_messages": 3, "max_rooms": 100}));
        let tickets: Vec<_> = (0..6).map(|id| talk.publish("lobby", &id.to_string())).collect();
        let mut times = Vec::new();
        let start = talk.now;
        while times.len() < tickets.len() {
            for command in talk.said() {
                times.push((talk.now - start).as_millis() as u64);
                let seq = times.len();
                talk.hear(json!({"type": "ok", "ref": command["ref"], "seq": seq}));
            }
            if let Some(due) = talk.inner.due() {
                talk.now = due;
            }
        }
        // 2.7 at once, and 2.7 a second from then on.
        assert_eq!(times[..2], [0, 0]);
        for (at, expected) in times[2..].iter().zip([112, 482, 852, 1223]) {
            assert!(at.abs_diff(expected) < 5, "{times:?}");
        }
    }

    #[test]
    fn the_session_s_own_commands_are_paced_too_and_each_connection_by_itself() {
        let mut talk = limited(json!({"rate_messages": 2}));
        let _joined = [talk.join("a"), talk.join("b")];
        assert_eq!(talk.said().len(), 1, "1.8 at once");
        talk.inner.lost();
        talk.open();
        let resume = talk.said();
        assert_eq!((resume.len(), &resume[0]["type"]), (1, &json!("resume")));
        talk.hear(json!({"type": "ok", "ref": resume[0]["ref"]}));
        assert!(talk.said().is_empty(), "the resume has used what there was");
        assert!(talk.inner.due().is_some());
    }

    #[test]
    fn limits_that_make_no_sense_are_none() {
        for limits in [json!({}), json!({"rate_messages": 0, "rate_bytes": -1}), json!(null)] {
            let mut talk = limited(limits.clone());
            let _tickets: Vec<_> =
                (0..4).map(|id| talk.publish("lobby", &id.to_string())).collect();
            assert_eq!(talk.said().len(), 4, "{limits}");
        }
    }

    /// A server that does not tell its limits refuses what is on the wire, and nothing after that.
    #[test]
    fn after_a_refusal_nothing_is_sent_before_its_time() {
        let mut talk = ready();
        let _tickets: Vec<_> = (0..9).map(|id| talk.publish("lobby", &id.to_string())).collect();
        let said = talk.said();
        assert_eq!(said.len(), 4);
        for command in &said {
            talk.hear(json!({"type": "error", "ref": command["ref"], "code": "rate_limited",
                "retry_after_ms": 500}));
            assert!(talk.said().is_empty());
        }
        talk.now += within(499);
        assert!(talk.said().is_empty());
        talk.now += within(1);
        assert_eq!(talk.said()[0]["id"], "0", "and one at a time, in their order");
    }

    /// After the loss of a session the default room is left and joined again, in this order even if
    /// both are put off.
    #[test]
    fn what_is_put_off_of_a_rejoin_keeps_its_order() {
        let mut talk = ready();
        talk.inner.lost();
        talk.open();
        talk.hear(welcome("new"));
        talk.answer(json!({"type": "error", "code": "unrecoverable"}));
        for command in talk.said() {
            talk.hear(json!({"type": "error", "ref": command["ref"], "code": "overloaded",
                "retry_after_ms": 10}));
        }
        talk.now += within(10);
        let leave = talk.answer(json!({"type": "ok", "room": "lobby"}));
        assert_eq!((&leave["type"], &leave["room"]), (&json!("leave"), &json!("lobby")));
        let join = talk.answer(json!({"type": "ok", "room": "lobby", "epoch": "e", "seq": 2}));
        assert_eq!((&join["type"], &join["room"]), (&json!("join"), &json!("lobby")));
        assert_eq!(talk.events(), ["SessionLost", "Connected"]);
    }

    #[test]
    fn a_leave_counts_from_its_call_on_and_a_join_behind_it_from_its_answer() {
        let mut talk = ready();
        talk.hear(message(3, "you", 3));
        let left = talk.leave("lobby");
        talk.hear(message(4, "you", 4));
        talk.hear(json!({"type": "joined", "room": "lobby", "client_id": "you"}));
        let joined = talk.join("lobby");
        talk.hear(message(5, "you", 5));
        assert!(talk.events().is_empty(), "not even what came before, for nobody has taken it");
        assert_eq!(talk.answer(json!({"type": "ok", "room": "lobby"}))["type"], "leave");
        assert!(left.wait(within(0)).is_ok());
        let ok = json!({"type": "ok", "room": "lobby", "epoch": "e", "seq": 6});
        assert_eq!(talk.answer(ok)["type"], "join", "which has waited for the answer to the leave");
        assert_eq!(joined.wait(within(0)).unwrap().position.unwrap().seq, 6);
        talk.hear(message(7, "you", 7));
        assert_eq!(talk.events(), ["7"]);
    }

    #[test]
    fn changes_of_presence_that_come_together_are_events_one_by_one() {
        let mut talk = ready();
        let anna = json!({"client_id": "anna", "sender": "Anna"});
        let (ben, me) = (json!({"client_id": "ben"}), json!({"client_id": "me"}));
        talk.hear(
            json!({"type": "presence", "room": "lobby", "joined": [anna, me], "left": [ben]}),
        );
        talk.hear(json!({"type": "presence", "room": "lobby", "joined": [ben], "left": [me]}));
        talk.hear(
            json!({"type": "presence", "room": "elsewhere", "joined": [anna], "left": [ben]}),
        );
        let mut alone = ready();
        alone.hear(json!({"type": "joined", "room": "lobby", "client_id": "anna",
            "sender": "Anna"}));
        alone.hear(json!({"type": "left", "room": "lobby", "client_id": "ben"}));
        alone.hear(json!({"type": "joined", "room": "lobby", "client_id": "ben"}));
        let events = |talk: &mut Talk| {
            talk.inner.events.drain(..).map(|event| format!("{event:?}")).collect::<Vec<_>>()
        };
        let together = events(&mut talk);
        assert_eq!(together.len(), 3, "the session itself is not news, nor is another room");
        assert_eq!(together, events(&mut alone));

        let _left = talk.leave("lobby");
        talk.hear(json!({"type": "presence", "room": "lobby", "joined": [anna], "left": []}));
        assert!(talk.events().is_empty(), "a room that is being left is silent");
    }

    #[test]
    fn a_room_that_was_left_while_away_does_not_come_back_with_the_resume() {
        let mut talk = ready();
        talk.inner.lost();
        let _left = talk.leave("lobby");
        talk.open();
        let lobby = json!({"room": "lobby", "epoch": "e", "seq": 3, "recovered": true,
            "messages": [message(3, "you", 3)]});
        let resume = talk.answer(json!({"type": "ok", "rooms": [lobby]}));
        assert_eq!(resume["rooms"], json!([]), "or the server would join it");
        assert_eq!(talk.answer(json!({"type": "ok"}))["type"], "leave");
        assert_eq!(talk.events(), ["Connected"]);
        // Nor one that the server has it in though the answer to its leave was lost.
        talk.inner.lost();
        talk.open();
        let lobby = json!({"room": "lobby", "epoch": "e", "seq": 3});
        talk.answer(json!({"type": "ok", "rooms": [lobby]}));
        talk.hear(message(4, "you", 4));
        assert_eq!(talk.events(), ["Connected"]);
        assert_eq!(talk.said()[0]["type"], "leave");
    }

    #[test]
    fn a_room_of_a_pattern_that_is_joined_by_its_name_too_outlives_the_pattern() {
        let mut talk = ready();
        let _pattern = talk.join("p.*");
        let rooms = json!([{"room": "p.a", "epoch": "e", "seq": 1}]);
        talk.answer(json!({"type": "ok", "room": "p.*", "rooms": rooms}));
        let by_name = talk.join("p.a");
        assert!(talk.said().is_empty(), "it is in it");
        assert_eq!(by_name.wait(within(0)).unwrap().position.unwrap().seq, 1);
        let _left = talk.leave("p.*");
        talk.answer(json!({"type": "ok", "room": "p.*"}));
        let join = talk.answer(json!({"type": "ok", "room": "p.a", "epoch": "e", "seq": 1}));
        assert_eq!(join["since"], json!({"epoch": "e", "seq": 1}));
        let mut live = message(2, "you", 2);
        live["room"] = json!("p.a");
        talk.hear(live);
        assert_eq!(talk.events(), ["2"]);
    }

    #[test]
    fn what_is_put_off_for_ever_is_refused() {
        let mut talk = ready();
        let ticket = talk.publish("lobby", "a");
        for _ in 0..ATTEMPTS_MAX {
            talk.now += within(100);
            talk.answer(json!({"type": "error", "code": "overloaded", "retry_after_ms": 100}));
        }
        assert_eq!(ticket.wait(within(0)).unwrap_err().code(), Some("overloaded"));
        assert!(talk.said().is_empty());
    }

    #[test]
    fn only_a_broadcast_is_given_up_with_its_connection() {
        let mut talk = ready();
        let message = draft("a", PublishOptions::default());
        let broadcast = talk.ask(Ask::Broadcast { message }, Answer::sent);
        let publish = talk.publish("lobby", "b");
        assert_eq!(talk.said().len(), 2);
        talk.inner.lost();
        assert!(!broadcast.wait(within(0)).unwrap_err().is_timeout());
        assert!(publish.wait(within(0)).unwrap_err().is_timeout());
        talk.inner.end(&Error::rejected("x", "over"));
        assert_eq!(publish.wait(within(0)).unwrap_err().code(), Some("x"));
    }

    #[test]
    fn a_room_left_one_by_one_does_not_come_back_with_its_pattern() {
        let mut talk = ready();
        let _joined = talk.join("p.*");
        let rooms = json!([{"room": "p.a", "epoch": "e", "seq": 1}, {"room": "p.b", "epoch": "e", "seq": 1}]);
        let listed = json!({"type": "ok", "room": "p.*", "rooms": rooms});
        talk.answer(listed.clone());
        let _left = talk.leave("p.a");
        talk.answer(json!({"type": "ok", "room": "p.a"}));
        talk.inner.lost();
        talk.open();
        talk.hear(welcome("new"));
        talk.answer(json!({"type": "error", "code": "unrecoverable"}));
        for command in talk.said() {
            let mut answer = listed.clone();
            answer["ref"] = command["ref"].clone();
            if command["type"] == "join" && command["room"] == "p.*" {
                talk.hear(answer);
            }
        }
        let said = talk.said();
        assert_eq!((&said[0]["type"], &said[0]["room"]), (&json!("leave"), &json!("p.a")));
    }

    #[test]
    fn no_number_of_a_server_makes_one_wait_for_years() {
        let mut talk = ready();
        talk.hear(json!({"type": "closing", "reason": "drain", "reconnect_after_ms": u64::MAX}));
        assert_eq!(talk.inner.closing, Some(ASKED_MAX));
        let _ticket = talk.publish("lobby", "a");
        talk.answer(json!({"type": "error", "code": "overloaded", "retry_after_ms": u64::MAX}));
        assert!(talk.said().is_empty());
        talk.now += ASKED_MAX;
        assert_eq!(talk.said()[0]["id"], "a");
    }

    #[test]
    fn pings_are_believed_within_bounds() {
        let expected = [
            (json!(0), PING),
            (json!(-1), PING),
            (json!(null), PING),
            (json!(1e-9), PING_MIN),
            (json!(90.5), Duration::from_millis(90_500)),
            (json!(1.8e19), PING_MAX),
            (json!(1e300), PING),
        ];
        for (said, understood) in expected {
            let mut talk = Talk::new();
            talk.open();
            let mut frame = welcome("me");
            frame["ping_s"] = said.clone();
            talk.hear(frame);
            assert_eq!(talk.inner.ping, Some(understood), "{said}");
        }
    }

    #[test]
    fn a_welcome_without_the_essential_is_none_and_one_without_the_rest_will_do() {
        let mut talk = Talk::new();
        talk.open();
        talk.hear(json!({"type": "welcome", "max_message_bytes": 1e300, "client_id": "me"}));
        talk.hear(json!({"type": "welcome", "room": "lobby"}));
        assert!(!talk.inner.is_welcome());
        talk.hear(json!({"type": "welcome", "client_id": "me", "max_message_bytes": 0}));
        assert!(talk.inner.is_welcome());
        let ticket = talk.publish("lobby", "a");
        assert!(talk.said().is_empty());
        assert!(ticket.wait(within(0)).unwrap_err().to_string().contains("the server takes 0"));
    }

    #[test]
    fn a_server_that_lists_rooms_without_end_is_left() {
        let matched = |room: &str| json!({"type": "matched", "pattern": "p.*", "room": room, "epoch": "e", "seq": 0});
        let mut talk = ready();
        let _joined = talk.join("p.*");
        talk.answer(json!({"type": "ok", "room": "p.*", "rooms": []}));
        for room in ["p.1", "p.2", "p.3", "p.3"] {
            talk.hear(matched(room));
        }
        assert!(talk.inner.fault.is_none(), "these and the lobby are four");
        talk.hear(matched("p.4"));
        let fault = talk.inner.fault.take().expect("a fault");
        assert!(fault.to_string().contains("more than 4 rooms"), "{fault}");
    }

    #[test]
    fn members_are_asked_for_once_at_a_time() {
        let mut talk = ready();
        let gap = json!({"type": "gap", "room": "lobby", "presence": true});
        for _ in 0..3 {
            talk.hear(gap.clone());
            talk.hear(json!({"type": "gap", "room": "nowhere", "presence": true}));
        }
        talk.answer(json!({"type": "ok", "members": [], "count": 0}));
        talk.hear(gap.clone());
        talk.answer(json!({"type": "error", "code": "internal"}));
        talk.hear(gap.clone());
        assert_eq!(talk.said().len(), 1);
        talk.inner.lost();
        talk.open();
        talk.answer(json!({"type": "ok", "rooms": [{"room": "lobby", "epoch": "e", "seq": 2}]}));
        talk.hear(gap);
        assert_eq!(
            talk.said()[0]["type"],
            "presence",
            "the first question went with its connection"
        );
    }

    #[test]
    fn numbers_beyond_all_counting_are_no_numbers() {
        let mut talk = ready();
        for beyond in [1 << 63, u64::MAX] {
            talk.hear(json!({"type": "gap", "room": "lobby", "from": 0, "to": beyond}));
            talk.hear(message(beyond, "you", 1));
            let mut several = message(3, "you", 1);
            several["rooms"] = json!([{"room": "lobby", "seq": beyond}]);
            talk.hear(several);
        }
        assert!(talk.said().is_empty() && talk.events().is_empty());
        talk.hear(json!({"type": "gap", "room": "lobby", "from": 0, "to": SEQ_MAX}));
        talk.answer(json!({"type": "ok", "epoch": "e", "seq": SEQ_MAX, "messages": []}));
        assert_eq!(talk.events(), ["Lost"]);
        talk.hear(message(SEQ_MAX, "you", 1));
        assert!(talk.said().is_empty() && talk.events().is_empty());
    }

    #[test]
    fn half_of_a_surrogate_pair_hides_no_message() {
        let mut talk = ready();
        let odd = r#""sender":"a\ud800","content":["\udc00"]"#;
        for kind in ["message", "direct", "broadcast"] {
            let mut frame = message(3, "you", 3);
            frame["type"] = json!(kind);
            let frame = frame.to_string().replace(r#""content":3"#, odd);
            talk.inner.frame(&frame, talk.now);
            let (sender, content) = match talk.inner.events.pop_front() {
                Some(Event::Message(message)) => (message.sender, message.content),
                Some(Event::Direct(message) | Event::Broadcast(message)) => {
                    (message.sender, message.content)
                }
                other => panic!("{frame}: {other:?}"),
            };
            assert_eq!(sender.as_deref(), Some("a\u{fffd}"));
            assert_eq!(content.get(), r#"["\udc00"]"#, "as it was sent");
        }
    }

    #[test]
    fn an_answer_that_makes_no_sense_is_told_and_an_error_without_it_is_one() {
        let mut talk = ready();
        let ticket = talk.publish("lobby", "a");
        talk.answer(json!({"type": "ok", "seq": -1}));
        assert_eq!(ticket.wait(within(0)).unwrap_err().kind(), ErrorKind::Misbehaved);
        let ticket = talk.publish("lobby", "a");
        talk.answer(json!({"type": "error", "retry_after_ms": "soon"}));
        assert_eq!(ticket.wait(within(0)).unwrap_err().code(), Some("internal"));
        talk.hear(json!({"type": "gap", "room": "lobby", "from": 3, "to": 4}));
        talk.answer(json!({"type": "ok", "epoch": 7}));
        assert_eq!(talk.events(), ["Lost"], "a page that cannot be read cannot be had");
    }

    #[test]
    fn what_the_server_would_close_for_is_not_sent() {
        let mut talk = ready();
        let ticket = talk.publish(&"x".repeat(1000), "a");
        assert!(talk.said().is_empty());
        assert!(ticket.wait(within(0)).unwrap_err().to_string().contains("too large"));
    }
}
