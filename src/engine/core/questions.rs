//! What the hub asks, and the answers of Redis.

use bytes::Bytes;
use uuid::Uuid;

use super::{
    Core,
    sent::{Bringing, Held, Numbered, Sent},
    waits::{OWN_ID_KEPT_MS, PATIENCE_MS, REPLICAS_WAIT_MS},
    words::{bytes, flag, new_epoch, number, seqs},
};
use crate::{
    engine::{link::order::Value, scripts},
    hub::{
        engine::Asked,
        error::RoomError,
        inbox::InboxBounds,
        names::RoomName,
        question::{Answer, By, Publish, Question},
        shards::Shards,
    },
};

impl Core {
    /// Asks Redis, or holds the question until it can be asked.
    pub(super) fn ask(&mut self, mut asked: Box<Asked>) {
        asked.since_ms = self.hub.now_ms();
        let shards = self.shards_of(&asked.question);
        if self.are_listening(shards) {
            return self.put(asked, false);
        }
        match self.is_in_vain(shards) {
            true => self.answer(asked, Err(RoomError::EngineAway)),
            false => self.held.push(Held { asked, is_again: false, shards }),
        }
    }

    /// Whether one of these shards was away for so long that nobody waits for it.
    fn is_in_vain(&self, shards: u64) -> bool {
        let now_ms = self.hub.now_ms();
        self.shards.iter().enumerate().any(|(index, shard)| {
            let waited_ms = now_ms.saturating_sub(shard.down_since_ms);
            shards >> index & 1 == 1 && !shard.is_listening && waited_ms > PATIENCE_MS
        })
    }

    /// The shards that a question needs, a bit for each.
    pub(super) fn shards_of(&self, question: &Question) -> u64 {
        if self.spread == Shards::ONE {
            return 1;
        }
        let of_room = |room: &RoomName| 1 << self.shard_of(room);
        match question {
            Question::Bring { pattern: Some(_), .. } => self.spread.all(),
            Question::Bring { rooms, .. } => {
                rooms.iter().fold(0, |shards, (room, _)| shards | of_room(room))
            }
            Question::BringSession { token, positions, .. } => {
                let home = 1 << self.home_of(token.client_id());
                positions.iter().fold(home, |shards, (room, _)| shards | of_room(room))
            }
            Question::Publish(publish) => publish.rooms.first().map_or(1, of_room),
            Question::Direct { to, .. } => 1 << self.home_of(*to),
            Question::Broadcast { .. } | Question::Announce(_) | Question::Tell { .. } => {
                1 << self.speaker()
            }
        }
    }

    pub(super) fn put(&mut self, asked: Box<Asked>, is_again: bool) {
        match &asked.question {
            Question::Bring { .. } => self.begin_bringing(asked),
            Question::BringSession { .. } => self.take_session(asked),
            Question::Publish(_) => self.publish(asked, is_again),
            Question::Direct { .. } => self.direct(asked, is_again),
            Question::Broadcast { route, message, .. } => {
                let head = format!("A{route}\n");
                let payload = [head.as_bytes(), message].concat();
                self.announce(asked, payload.into());
            }
            Question::Announce(payload) => {
                let payload = payload.clone();
                self.announce(asked, payload);
            }
            Question::Tell { node, message } => {
                let (channel, message) = (self.names.node(*node), message.clone());
                self.say(asked, channel, message);
            }
        }
    }

    /// An id for a message whose client gave none, which is the same when it is asked again.
    fn own_id(&self, asked: &Asked) -> Uuid {
        Uuid::from_u64_pair(self.engine.node.as_u64_pair().0, asked.nth)
    }

    /// How long the result of a message is known: by its client's id, or by one of this node, which
    /// alone asks again under that one.
    fn id_kept_ms(&self, id: Option<Uuid>) -> u64 {
        match id {
            Some(_) => self.hub.limits.resume_window_ms().max(OWN_ID_KEPT_MS) * 2,
            None => OWN_ID_KEPT_MS,
        }
    }

    fn announce(&mut self, asked: Box<Asked>, payload: Bytes) {
        self.carry_out_in_redis(&payload);
        self.say(asked, self.names.all(), payload);
    }

    fn say(&mut self, asked: Box<Asked>, channel: Bytes, payload: Bytes) {
        let args = vec![Bytes::from_static(b"PUBLISH"), channel, payload];
        self.command(self.speaker(), args, Sent::Question { asked, is_again: false });
    }

    /// Holds a question until all shards that it needs can be asked.
    pub(super) fn hold_asked(&mut self, asked: Box<Asked>, is_again: bool) {
        let shards = self.shards_of(&asked.question);
        self.held.push(Held { asked, is_again, shards });
        self.may_ask_again = true;
    }

    /// Asks what was held, where all shards that it needs can be asked.
    pub(super) fn put_held(&mut self) {
        for held in std::mem::take(&mut self.held) {
            match self.are_listening(held.shards) {
                true => self.put(held.asked, held.is_again),
                false => self.held.push(held),
            }
        }
    }

    /// Has a bringing begin anew, when all shards that it needs can be asked: what was brought for
    /// it stays.
    pub(super) fn hold_bringing(&mut self, id: u64) {
        if let Some(Bringing { asked, shards, .. }) = self.remove_bringing(id) {
            self.note_unkept(&asked);
            self.held.push(Held { asked, is_again: true, shards });
            // It may have been lost in a shard that it does not need.
            self.may_ask_again = true;
        }
    }

    /// Holds a question whose answer was lost, to ask again.
    pub(super) fn hold(&mut self, shard: usize, sent: Sent) {
        match sent {
            // Nothing would tell that it was broadcast already.
            Sent::Question { asked, .. }
                if matches!(asked.question, Question::Broadcast { .. }) =>
            {
                self.answer(asked, Err(RoomError::EngineAway));
            }
            Sent::Question { asked, .. } => {
                self.hub.rooms.metrics.engine_retries.add_shared();
                self.hold_asked(asked, true);
            }
            Sent::Replicas(numbered) => {
                numbered.into_iter().for_each(|numbered| self.hold_asked(numbered.asked, true));
            }
            Sent::Names { bringing } | Sent::Take { bringing } | Sent::Fence { bringing } => {
                self.hold_bringing(bringing);
            }
            sent => self.note_undone(shard, &sent),
        }
    }

    /// Refuses what waits for the link to a shard and has come before a time.
    pub(super) fn refuse_held(&mut self, shard: usize, before_ms: u64) {
        let is_due =
            |asked: &Asked, shards: u64| shards >> shard & 1 == 1 && asked.since_ms < before_ms;
        let held = self.held.extract_if(.., |held| is_due(&held.asked, held.shards));
        for held in held.collect::<Vec<_>>() {
            self.answer(held.asked, Err(RoomError::EngineAway));
        }
        let waiting = self.bringings.iter();
        let due = waiting.filter(|(_, waiting)| is_due(&waiting.asked, waiting.shards));
        for id in due.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.refuse_bringing(id);
        }
    }

    fn publish(&mut self, asked: Box<Asked>, is_again: bool) {
        let Question::Publish(publish) = &asked.question else { return };
        let Publish { by, rooms, may_make, message, id } = publish;
        let (rooms, may_make, message, id) = (rooms.clone(), *may_make, message.clone(), *id);
        // A room that clients of this node are in exists, whatever Redis has lost.
        let may_make = may_make || rooms.iter().all(|room| self.is_here(room));
        let by = by.clone();
        let shard = rooms.first().map_or(0, |room| self.shard_of(room));
        let Some(fence) = self.fence_of_sender(&by, shard) else {
            return self.answer(asked, Err(RoomError::TakenOver));
        };
        let result_id = id.unwrap_or_else(|| self.own_id(&asked));
        let result = self.names.result(&rooms, &by, result_id);
        let session_key = by.session().map(|by| self.names.session(by.client_id));
        let mut keys = vec![session_key.unwrap_or_else(|| bytes("-")), result];
        let mut args = vec![
            fence,
            self.shards[shard].generation(),
            flag(may_make),
            number(self.id_kept_ms(id)),
            message,
        ];
        let kept_ms = self.kept_ms();
        for room in &rooms {
            let bounds = self.bounds_of(room);
            keys.extend([self.names.hash(room), self.names.stream(room)]);
            args.extend([
                self.names.channel(room),
                new_epoch(),
                number(bounds.messages_max),
                number(bounds.bytes_max),
                number(kept_ms),
                bytes(room.as_str()),
            ]);
        }
        keys.push(self.names.rooms());
        args.push(self.names.new_rooms());
        self.order(shard, &scripts::PUBLISH, keys, args, Sent::Question { asked, is_again });
    }

    /// What a script is given as the fence of a sender's session: nothing for a sender without one,
    /// and `None` if the session is not here any more.
    fn fence_of_sender(&mut self, by: &By, shard: usize) -> Option<Bytes> {
        match by.session() {
            None => Some(Bytes::new()),
            Some(session) => self.fence_of(session, shard).map(number),
        }
    }

    fn direct(&mut self, asked: Box<Asked>, is_again: bool) {
        let Question::Direct { by, to, message, id } = &asked.question else { return };
        let (by, to, message, id) = (by.clone(), *to, message.clone(), *id);
        let shard = self.home_of(to);
        let Some(fence) = self.fence_of_sender(&by, shard) else {
            return self.answer(asked, Err(RoomError::TakenOver));
        };
        // A receiver that has just come is not known to Redis yet.
        if !self.sessions.contains_key(&to)
            && let Some(session) = self.hub.sessions.find(&to)
        {
            self.save(&session, 0);
        }
        let result_id = id.unwrap_or_else(|| self.own_id(&asked));
        let session_key = by.session().map(|by| self.names.session(by.client_id));
        let keys = vec![
            session_key.unwrap_or_else(|| bytes("-")),
            self.names.session(to),
            self.names.inbox(to),
            self.names.direct_result(to, &by, result_id),
        ];
        let InboxBounds { messages_max, bytes_max } = self.inbox_bounds();
        let args = vec![
            fence,
            number(self.id_kept_ms(id)),
            number(messages_max),
            number(bytes_max),
            number(self.session_kept_ms()),
            number(to),
            self.names.prefix(),
            message,
        ];
        self.order(shard, &scripts::DIRECT, keys, args, Sent::Question { asked, is_again });
    }

    /// Goes on with an answer; `None` if Redis has refused.
    pub(super) fn on_sent_answered(&mut self, shard: usize, sent: Sent, answer: Option<Value>) {
        match sent {
            Sent::Question { asked, is_again } => {
                self.on_question_answered(shard, asked, is_again, answer);
            }
            Sent::Open { room, since } => self.on_opened(&room, since, answer),
            Sent::Names { bringing } => self.on_names(bringing, answer.as_ref()),
            Sent::Take { bringing } => self.on_taken(bringing, answer),
            Sent::Fence { bringing } => self.on_fenced(shard, bringing, answer.as_ref()),
            Sent::Save { client, fence } => self.on_saved(shard, client, fence, answer.as_ref()),
            Sent::Own => self.on_own_sessions(shard, answer.as_ref()),
            Sent::Inbox(client) => self.on_inbox(client, answer.as_ref()),
            Sent::Beat => self.on_beat(shard, answer.as_ref()),
            Sent::Mark => self.on_mark(shard, answer.as_ref()),
            Sent::Replicas(numbered) => self.on_replicas(numbered, answer.as_ref()),
            Sent::Revocations => self.on_revocations(shard, answer.as_ref()),
            Sent::Orphan(node) => self.on_orphaned(shard, &node, answer.as_ref()),
            Sent::Reap => self.on_reaped(shard, answer.as_ref()),
            // It is in the room by another node. What that node said was passed over here, because
            // the session was this node's at that time.
            Sent::Hide { room, .. } if answer == Some(Value::Int(-1)) => self.reopen(&room),
            Sent::Show(_)
            | Sent::Hide { .. }
            | Sent::End { .. }
            | Sent::Return(_)
            | Sent::Nothing(_) => {}
        }
    }

    fn on_question_answered(
        &mut self,
        shard: usize,
        asked: Box<Asked>,
        is_again: bool,
        answer: Option<Value>,
    ) {
        let outcome = match (&asked.question, answer) {
            (_, None) => Err(RoomError::EngineAway),
            (Question::Publish(Publish { by: By::Session(by), .. }), Some(answer))
            | (Question::Direct { by: By::Session(by), .. }, Some(answer))
                if says(&answer, NO_SUCH_SESSION) =>
            {
                // Redis has lost it. It is there when the client asks again.
                let by = std::sync::Arc::clone(by);
                self.save(&by, 1 << shard);
                Err(RoomError::EngineAway)
            }
            // Nobody listens under that name: the node is gone.
            (Question::Tell { .. }, Some(Value::Int(0))) => Err(RoomError::NoSuchClient),
            (
                Question::Broadcast { .. } | Question::Announce(_) | Question::Tell { .. },
                Some(_),
            ) => Ok(Answer::Done),
            (Question::Publish(_), Some(answer)) if says(&answer, NO_SUCH_ROOM) => {
                Err(RoomError::NoSuchRoom)
            }
            (Question::Publish(_), Some(answer)) => outcome_of(&answer, is_again, seqs),
            (_, Some(answer)) => {
                outcome_of(&answer, is_again, |text| Some(vec![text.parse().ok()?]))
            }
        };
        if outcome.as_ref().is_ok_and(|of| matches!(of, Answer::Numbered { repeated: true, .. })) {
            self.hub.sessions.metrics.repeats.add_shared();
        }
        if outcome.as_ref().is_err_and(|of| *of == RoomError::ClientBehind) {
            self.hub.sessions.metrics.directs_refused.add_shared();
        }
        match outcome {
            Ok(answer) if self.settings.replicas > 0 => {
                self.shards[shard].unconfirmed.push(Numbered { asked, answer });
            }
            outcome => self.answer(asked, outcome),
        }
    }

    /// Asks Redis to wait until replicas have the messages that were numbered in this turn.
    pub(super) fn await_replicas(&mut self, shard: usize) {
        if self.shards[shard].unconfirmed.is_empty() {
            return;
        }
        let numbered = std::mem::take(&mut self.shards[shard].unconfirmed);
        let args = vec![bytes("WAIT"), number(self.settings.replicas), number(REPLICAS_WAIT_MS)];
        self.command(shard, args, Sent::Replicas(numbered));
    }

    fn on_replicas(&mut self, numbered: Vec<Numbered>, answer: Option<&Value>) {
        let has_enough =
            answer.and_then(Value::u64).is_some_and(|of| of >= self.settings.replicas as u64);
        for Numbered { asked, answer } in numbered {
            let outcome = if has_enough { Ok(answer) } else { Err(RoomError::EngineAway) };
            self.answer(asked, outcome);
        }
    }
}

/// What a script says that numbers a message.
fn outcome_of(
    answer: &Value,
    is_again: bool,
    read: impl Fn(&str) -> Option<Vec<u64>>,
) -> Result<Answer, RoomError> {
    let numbers = |list: &[Value]| {
        let text = list.get(1).and_then(Value::text);
        text.and_then(&read).map(Vec::into_boxed_slice).ok_or(RoomError::EngineAway)
    };
    let list = answer.list().unwrap_or_default();
    match list.first().and_then(Value::int) {
        Some(0) => Ok(Answer::Numbered { seqs: numbers(list)?, repeated: false }),
        // Asked again, it may be a repeat of this node's own doing.
        Some(1) => Ok(Answer::Numbered { seqs: numbers(list)?, repeated: !is_again }),
        Some(2) => Err(RoomError::TakenOver),
        Some(3) => Err(RoomError::NoSuchClient),
        Some(4) => Err(RoomError::InboxFull),
        Some(5) => Err(RoomError::ClientBehind),
        _ => Err(RoomError::EngineAway),
    }
}

/// What the scripts say if they know no such room, or no such session.
const NO_SUCH_ROOM: i64 = 3;
const NO_SUCH_SESSION: i64 = 6;

fn says(answer: &Value, what: i64) -> bool {
    answer.list().and_then(|list| list.first()?.int()) == Some(what)
}
