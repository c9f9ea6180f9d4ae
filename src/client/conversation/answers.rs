//! What `welcome`, `ok` and `error` change in a session.

use std::{
    mem,
    time::{Duration, Instant},
};

use crate::client::{
    ask::{Answer, Ask, JoinOptions, Request},
    backoff::asked,
    error::Error,
    event::{Entered, Event, Page, Position, Receipt, RoomMessage, Sent},
    frames::{self, InRoom, Inbound},
};

use super::{
    ATTEMPTS_MAX, Conversation, DECLINED_MAX, Errand, FORMER_MAX, Flying, Identity, Membership,
    Phase, Who,
};

/// When `welcome` does not say how often the server pings, or that it does not.
const PING: Duration = Duration::from_secs(30);

/// Other pings than these are not believed: the shortest silence would be no sign of anything, and the longest
/// would never be one.
const PING_MIN: Duration = Duration::from_secs(1);
const PING_MAX: Duration = Duration::from_secs(24 * 3600);

impl Conversation {
    /// A new identity, the first or one in place of a session that is gone. Rooms are joined (again).
    pub(super) fn begin_anew(&mut self, welcome: Inbound) {
        self.heed(&welcome);
        let Some(client_id) = welcome.client_id else { return };
        self.who = Some(Who { client_id: client_id.clone(), room: welcome.room.clone() });
        let me = Identity { client_id: client_id.clone(), session: welcome.session };
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
        for membership in self.rooms.values_mut() {
            membership.is_in = false;
        }
        if let Some(room) = welcome.room {
            if is_first && self.rules.default_room {
                let epoch = welcome.epoch.unwrap_or_default();
                self.orders.greet(&room, &epoch, welcome.seq.unwrap_or(0));
                self.rooms.insert(room, Membership { is_in: true, ..Membership::default() });
            } else {
                // The server joined it by itself, without our position.
                self.errands.push_back((Errand::Unjoin { room }, 0));
            }
        }
        let wanted = self.rooms.iter().filter(|(_, of)| !of.is_in && of.pattern.is_none());
        let rejoin = |(room, _): (&String, _)| (Errand::Rejoin { room: room.clone() }, 0);
        self.errands.extend(wanted.map(rejoin));
        let patterns = self.patterns.iter().cloned();
        self.errands.extend(patterns.map(|pattern| (Errand::RejoinPattern { pattern }, 0)));
    }

    /// What holds on every connection with this server.
    fn heed(&mut self, welcome: &Inbound) {
        let every = welcome.ping_s.and_then(|ping| Duration::try_from_secs_f64(ping).ok());
        let every = every.filter(|every| !every.is_zero()).unwrap_or(PING);
        self.ping = Some(every.clamp(PING_MIN, PING_MAX));
        self.message_bytes_max = welcome.max_message_bytes.unwrap_or(usize::MAX);
    }

    /// `ok` or `error`.
    pub(super) fn answered(&mut self, frame: Inbound, now: Instant) {
        let flying = frame.reference().and_then(|reference| self.flying.remove(&reference));
        let is_ok = frame.kind == "ok";
        match flying {
            Some(Flying::Request(request)) if is_ok => self.granted(request, frame),
            Some(Flying::Request(request)) => self.refused(request, &frame, now),
            Some(Flying::Errand { errand, .. }) if is_ok => self.done(errand, frame),
            Some(Flying::Errand { errand, attempts }) => {
                self.failed(errand, attempts, &frame, now);
            }
            None => log::debug!("an answer to nothing: {frame:?}"),
        }
    }

    /// The server will take it later. `false` if it has said so too often, or has not.
    fn put_off(&mut self, frame: &Inbound, attempts: u32, now: Instant) -> bool {
        let Some(wait) = frame.retry_after_ms.filter(|_| attempts < ATTEMPTS_MAX) else {
            return false;
        };
        let at = now + asked(wait);
        self.window = 1;
        self.not_before = Some(self.not_before.map_or(at, |other| other.max(at)));
        true
    }

    fn granted(&mut self, request: Request, frame: Inbound) {
        self.window = self.rules.in_flight_max.min(2 * self.window);
        let answer = match &request.ask {
            Ask::Publish { rooms, message } => {
                let receipt = receipt(rooms, &message.id, frame);
                if !message.options.echo {
                    for (room, seq) in &receipt.rooms {
                        self.orders.own(room, *seq);
                    }
                }
                Answer::Receipt(receipt)
            }
            Ask::Direct { message, .. } | Ask::Broadcast { message } => Answer::Sent(Sent {
                id: frame.id.unwrap_or_else(|| message.id.clone()),
                repeated: frame.repeated,
            }),
            Ask::Join { room, options } if room.ends_with(".*") => {
                Answer::Entered(self.joined_pattern(room, options, frame))
            }
            Ask::Join { room, options } => Answer::Entered(self.joined(room, options, frame)),
            Ask::Leave { room } => {
                let membership = self.rooms.get(room);
                if membership.is_some_and(|of| of.pattern.is_some())
                    && self.declined.len() < DECLINED_MAX
                {
                    self.declined.insert(room.clone());
                }
                self.gone_from(room);
                Answer::Left
            }
            Ask::History { .. } => Answer::Page(Page {
                position: position(&frame),
                messages: frame.messages.into_iter().map(RoomMessage::from).collect(),
            }),
            Ask::Presence { room, watch } => {
                if let (Some(membership), Some(watch)) = (self.rooms.get_mut(room), watch) {
                    membership.watches = *watch;
                }
                Answer::Members(frames::members(frame.members, frame.count).unwrap_or_default())
            }
        };
        request.answer(Ok(answer));
    }

    fn joined(&mut self, room: &str, options: &JoinOptions, frame: Inbound) -> Entered {
        let membership = Membership {
            is_in: true,
            pattern: None,
            watches: options.presence,
            is_recounted: false,
            sender: options.sender.clone(),
        };
        self.rooms.insert(room.to_owned(), membership);
        self.declined.remove(room);
        let position = position(&frame);
        let latest = frames::is_latest(frame.overflow.as_ref());
        match &options.since {
            Some(since) => {
                self.orders.enter(room, &since.epoch, since.seq, latest);
                let missed = frame.recovered.then(|| self.items_of(frame.messages));
                self.orders.replay(room, &position.epoch, position.seq, latest, missed);
            }
            None => self.orders.enter(room, &position.epoch, position.seq, latest),
        }
        Entered {
            room: room.to_owned(),
            position: Some(position),
            recovered: frame.recovered,
            members: frames::members(frame.members, frame.count),
            rooms: Vec::new(),
        }
    }

    fn joined_pattern(&mut self, pattern: &str, _: &JoinOptions, frame: Inbound) -> Entered {
        self.patterns.insert(pattern.to_owned());
        self.declined.retain(|room| !fits(pattern, room));
        let rooms = frame.rooms.iter().map(|listed| listed.room.clone()).collect();
        self.come_into_all(pattern, frame.rooms);
        Entered { room: pattern.to_owned(), position: None, recovered: false, members: None, rooms }
    }

    fn come_into_all(&mut self, pattern: &str, listed: Vec<InRoom>) {
        for InRoom { room, epoch, seq, overflow, .. } in listed {
            if self.declined.contains(&room) {
                self.errands.push_back((Errand::Unjoin { room }, 0));
                continue;
            }
            if !self.rooms.get(&room).is_some_and(|membership| membership.is_in) {
                let latest = frames::is_latest(overflow.as_ref());
                self.come_in(&room, Some(pattern), &epoch.unwrap_or_default(), seq, latest);
            }
        }
    }

    /// No longer in a room, or in those of a pattern.
    fn gone_from(&mut self, room: &str) {
        self.patterns.remove(room);
        let is_gone =
            |name: &String, of: &Membership| name == room || of.pattern.as_deref() == Some(room);
        let gone: Vec<String> = self
            .rooms
            .iter()
            .filter(|(name, of)| is_gone(name, of))
            .map(|(name, _)| name.clone())
            .collect();
        for name in gone {
            self.rooms.remove(&name);
            self.orders.forget(&name);
        }
    }

    fn refused(&mut self, mut request: Request, frame: &Inbound, now: Instant) {
        request.attempts += 1;
        if self.put_off(frame, request.attempts, now) {
            self.wait_again(request);
            return;
        }
        let code = frame.code.as_deref().unwrap_or("internal");
        match &request.ask {
            // As it should be, by an earlier attempt whose answer was lost.
            Ask::Leave { room } if code == "not_member" => {
                self.gone_from(room);
                request.answer(Ok(Answer::Left));
            }
            _ => {
                let text = frame.message.as_deref().unwrap_or_default();
                request.answer(Err(Error::rejected(code, text)));
            }
        }
    }

    fn done(&mut self, errand: Errand, frame: Inbound) {
        match errand {
            Errand::Resume => self.resumed(frame),
            Errand::Unjoin { .. } => {}
            Errand::Rejoin { room } => {
                if let Some(membership) = self.rooms.get_mut(&room) {
                    membership.is_in = true;
                }
                let Position { epoch, seq } = position(&frame);
                let latest = frames::is_latest(frame.overflow.as_ref());
                let missed = frame.recovered.then(|| self.items_of(frame.messages));
                self.orders.replay(&room, &epoch, seq, latest, missed);
                let members = frames::members(frame.members, frame.count);
                self.events.extend(members.map(|members| Event::Members { room, members }));
            }
            Errand::RejoinPattern { pattern } => self.come_into_all(&pattern, frame.rooms),
            Errand::Fetch { room, .. } => {
                let Position { epoch, seq } = position(&frame);
                let items = self.items_of(frame.messages);
                self.orders.page(&room, &epoch, seq, items);
            }
            Errand::Recount { room } => {
                self.recounted(&room);
                let members = frames::members(frame.members, frame.count);
                self.events.extend(members.map(|members| Event::Members { room, members }));
            }
        }
    }

    fn failed(&mut self, errand: Errand, attempts: u32, frame: &Inbound, now: Instant) {
        let attempts = attempts + 1;
        let is_resume = matches!(errand, Errand::Resume);
        if !is_resume && self.put_off(frame, attempts, now) {
            self.errands.push_front((errand, attempts));
            return;
        }
        let code = frame.code.clone().unwrap_or_default();
        match errand {
            Errand::Resume => {
                let phase = mem::replace(&mut self.phase, Phase::Greeting);
                if let Phase::Resuming { welcome: Some(welcome) } = phase {
                    self.begin_anew(*welcome);
                }
            }
            Errand::Rejoin { room } => {
                self.gone_from(&room);
                self.events.push_back(Event::Excluded { room, code });
            }
            Errand::RejoinPattern { pattern } => {
                self.gone_from(&pattern);
                self.events.push_back(Event::Excluded { room: pattern, code });
            }
            Errand::Fetch { room, .. } => self.orders.page_failed(&room),
            Errand::Recount { room } => self.recounted(&room),
            Errand::Unjoin { .. } => {}
        }
    }

    fn recounted(&mut self, room: &str) {
        if let Some(membership) = self.rooms.get_mut(room) {
            membership.is_recounted = false;
        }
    }

    /// The session goes on: what the server has of it counts.
    fn resumed(&mut self, frame: Inbound) {
        let phase = mem::replace(&mut self.phase, Phase::Rejoining);
        if let Phase::Resuming { welcome: Some(welcome) } = phase {
            self.heed(&welcome);
        }
        let Some(me) = &mut self.me else { return };
        me.client_id = frame.client_id.unwrap_or_else(|| me.client_id.clone());
        me.session = frame.session.or_else(|| me.session.take());
        let client_id = me.client_id.clone();
        self.events.push_back(Event::Connected { client_id, resumed: true });
        if frame.direct.is_some_and(|direct| !direct.recovered) {
            self.events.push_back(Event::DirectLost);
        }
        self.patterns = frame.patterns.into_iter().collect();
        for membership in self.rooms.values_mut() {
            membership.is_in = false;
        }
        for listed in frame.rooms.iter().filter(|listed| listed.error.is_none()) {
            if !self.rooms.contains_key(&listed.room) {
                let pattern = self.patterns.iter().find(|pattern| fits(pattern, &listed.room));
                let membership = Membership { pattern: pattern.cloned(), ..Membership::default() };
                self.rooms.insert(listed.room.clone(), membership);
            }
        }
        for listed in frame.rooms {
            let InRoom { room, epoch, seq, recovered, overflow, messages, members, count, error } =
                listed;
            if let Some(code) = error {
                self.gone_from(&room);
                self.events.push_back(Event::Excluded { room, code });
                continue;
            }
            if let Some(membership) = self.rooms.get_mut(&room) {
                membership.is_in = true;
            }
            let missed = recovered.then(|| self.items_of(messages));
            let latest = frames::is_latest(overflow.as_ref());
            self.orders.replay(&room, &epoch.unwrap_or_default(), seq, latest, missed);
            let members = frames::members(members, count);
            self.events.extend(members.map(|members| Event::Members { room, members }));
        }
        let left_out = self.rooms.iter().filter(|(_, of)| !of.is_in);
        for room in left_out.map(|(room, _)| room.clone()).collect::<Vec<_>>() {
            self.gone_from(&room);
            self.events.push_back(Event::Excluded { room, code: "not_member".into() });
        }
    }

    /// A publish that waits to be sent again, and is in a replay: it got there.
    pub(super) fn settle(&mut self, message: &RoomMessage) {
        let is_it = |request: &Request| match &request.ask {
            Ask::Publish { message: draft, .. } => draft.id == message.id,
            _ => false,
        };
        let Some(at) = self.waiting.iter().position(is_it) else { return };
        if let Some(request) = self.waiting.remove(at) {
            let rooms = match message.rooms.is_empty() {
                true => vec![(message.room.clone(), message.seq)],
                false => message.rooms.clone(),
            };
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

fn position(frame: &Inbound) -> Position {
    Position { epoch: frame.epoch.clone().unwrap_or_default(), seq: frame.seq.unwrap_or(0) }
}

/// Where a message has come to be.
fn receipt(asked: &[String], id: &str, frame: Inbound) -> Receipt {
    let mut rooms: Vec<(String, u64)> =
        frame.rooms.into_iter().map(|place| (place.room, place.seq)).collect();
    if rooms.is_empty() {
        let room = frame.room.or_else(|| asked.first().cloned()).unwrap_or_default();
        rooms.push((room, frame.seq.unwrap_or(0)));
    }
    let (room, seq) = rooms[0].clone();
    let id = frame.id.unwrap_or_else(|| id.to_owned());
    Receipt { room, seq, rooms, id, repeated: frame.repeated }
}

/// `a.*` has in it `a.b` and `a.b.c`, and not `a`.
fn fits(pattern: &str, room: &str) -> bool {
    pattern
        .strip_suffix('*')
        .is_some_and(|prefix| room.len() > prefix.len() && room.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::{Value, json, value::RawValue};

    use crate::client::{
        ask::{Draft, Place, PublishOptions, Ticket},
        backoff::ASKED_MAX,
        frames::SEQ_MAX,
    };

    use super::{super::Rules, *};

    /// A conversation, and what its frames say.
    struct Talk {
        inner: Conversation,
        now: Instant,
    }

    impl Talk {
        fn new() -> Talk {
            let rules = Rules { default_room: true, in_flight_max: 4, rooms_max: 4 };
            Talk { inner: Conversation::new(rules), now: Instant::now() }
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
            let place = Place::take(&Arc::default(), 1).unwrap();
            let (request, ticket) = Request::new(ask, place, read);
            self.inner.submit(request);
            ticket
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
        talk.inner.opened();
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
        talk.inner.opened();
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
        talk.inner.opened();
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
        talk.inner.opened();
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
        talk.inner.opened();
        let mut old = welcome("me");
        old.as_object_mut().unwrap().remove("session");
        talk.hear(old.clone());
        talk.inner.lost();
        talk.inner.opened();
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
        let _joined = talk.ask(
            Ask::Join { room: "p.*".into(), options: JoinOptions::default() },
            Answer::entered,
        );
        let rooms = json!([{"room": "p.a", "epoch": "e", "seq": 1}, {"room": "p.b", "epoch": "e", "seq": 1}]);
        let listed = json!({"type": "ok", "room": "p.*", "rooms": rooms});
        talk.answer(listed.clone());
        let _left = talk.ask(Ask::Leave { room: "p.a".into() }, Answer::left);
        talk.answer(json!({"type": "ok", "room": "p.a"}));
        talk.inner.lost();
        talk.inner.opened();
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
            talk.inner.opened();
            let mut frame = welcome("me");
            frame["ping_s"] = said.clone();
            talk.hear(frame);
            assert_eq!(talk.inner.ping, Some(understood), "{said}");
        }
    }

    #[test]
    fn a_welcome_without_the_essential_is_none_and_one_without_the_rest_will_do() {
        let mut talk = Talk::new();
        talk.inner.opened();
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
        talk.inner.opened();
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
    fn what_the_server_would_close_for_is_not_sent() {
        let mut talk = ready();
        let ticket = talk.publish(&"x".repeat(1000), "a");
        assert!(talk.said().is_empty());
        assert!(ticket.wait(within(0)).unwrap_err().to_string().contains("too large"));
    }
}
