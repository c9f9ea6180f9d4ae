//! The server of the model: rooms, seats and sessions by the rules of `docs/protocol.md`.

use std::{collections::BTreeMap, mem};

use serde_json::{Value, json};

use super::{super::wanted::fits, Kept, ROOMS, Room, World};

/// Messages in a page of history.
const PAGE_MAX: usize = 3;

impl World {
    pub(super) fn say(&mut self, frame: Value) {
        if let Some(connection) = &mut self.connection {
            connection.down.push_back(frame);
        }
    }

    pub(super) fn session(&mut self) -> Option<&mut Kept> {
        self.sessions.get_mut(&self.connection.as_ref()?.token)
    }

    /// A room, made if it is not there: then whoever waits for it is in it.
    pub(super) fn room(&mut self, name: &str) -> &mut Room {
        if !self.rooms.contains_key(name) {
            self.names += 1;
            let epoch = format!("e{}", self.names);
            self.begun_at.insert(name.into(), self.published);
            let (messages, earlier) = (Vec::new(), BTreeMap::new());
            self.rooms.insert(name.into(), Room { epoch: epoch.clone(), messages, earlier });
            let waits = |session: &Kept| {
                let is_it = |pattern: &&String| fits(pattern, name);
                let pattern = session.patterns.iter().find(is_it).cloned();
                pattern.filter(|_| !session.seats.contains_key(name))
            };
            let pattern = self.session().and_then(|session| waits(session));
            if let Some(pattern) = pattern {
                self.seat(name, Some(pattern.clone()));
                self.say(json!({"type": "matched", "pattern": pattern, "room": name,
                    "epoch": epoch, "seq": 0}));
            }
        }
        self.rooms.get_mut(name).expect("it was just made")
    }

    pub(super) fn seat(&mut self, room: &str, pattern: Option<String>) {
        if self.talk.reorderer.position(room).is_none() {
            self.begun_at.insert(room.into(), self.published);
        }
        if let Some(session) = self.session() {
            session.seats.insert(room.into(), pattern);
        }
        self.room(room);
    }

    /// Somebody else publishes, to one room or to several; it may be left out.
    pub(super) fn publish(&mut self) {
        let count = if self.random.one_in(3) { 2 } else { 1 };
        let first = self.random.below(ROOMS.len());
        let names: Vec<&str> = (0..count).map(|more| ROOMS[(first + more) % ROOMS.len()]).collect();
        self.publish_to(&names, "you", &format!("id{}", self.published + 1), false);
    }

    pub(super) fn publish_to(&mut self, names: &[&str], by: &str, id: &str, is_own: bool) -> u64 {
        self.published += 1;
        let number = self.published;
        for name in names {
            self.room(name);
        }
        let seq_in = |world: &World, name: &str| world.rooms[name].messages.len() as u64 + 1;
        let places: Vec<Value> =
            names.iter().map(|name| json!({"room": name, "seq": seq_in(self, name)})).collect();
        let seq = seq_in(self, names[0]);
        let mut message = json!({"type": "message", "room": names[0], "seq": seq, "id": id,
            "content": number, "timestamp": "t", "client_id": by});
        if names.len() > 1 {
            message["rooms"] = json!(places);
        }
        for name in names {
            self.room(name).messages.push(message.clone());
        }
        let seats: Vec<String> = self
            .session()
            .map(|session| session.seats.keys().cloned().collect())
            .unwrap_or_default();
        let is_left_out = self.random.one_in(8) && !self.is_calm;
        if is_own || !names.iter().any(|name| seats.iter().any(|seat| seat == name)) {
        } else if is_left_out {
            for place in places {
                if seats.iter().any(|seat| place["room"] == **seat) {
                    self.say(json!({"type": "gap", "room": place["room"], "from": place["seq"],
                        "to": place["seq"]}));
                }
            }
        } else {
            self.say(message);
        }
        seq
    }

    /// Others come and go where the client is.
    pub(super) fn chatter(&mut self) {
        let seats: Vec<String> = self
            .session()
            .map(|session| session.seats.keys().cloned().collect())
            .unwrap_or_default();
        for room in seats {
            let kind = self.random.pick(&["joined", "left", "presence"]);
            let you = json!({"client_id": "you"});
            self.say(match kind {
                "presence" => json!({"type": kind, "room": room, "joined": [you], "left": [you]}),
                _ => json!({"type": kind, "room": room, "client_id": "you"}),
            });
            self.say(json!({"type": "gap", "room": room, "presence": true}));
        }
    }

    /// A room in which nobody is ages out; made anew, it counts from one.
    pub(super) fn forget_a_room(&mut self) {
        let name = self.random.pick(&ROOMS);
        if self.sessions.values().all(|session| !session.seats.contains_key(name)) {
            self.rooms.remove(name);
        }
    }

    /// The newest messages are lost, or none, and every room goes on in a new epoch. Meanwhile
    /// others may publish what does not reach the client.
    pub(super) fn fail_over(&mut self) {
        let lost = if self.random.one_in(2) { 1 + self.random.below(3) } else { 0 };
        for _ in 0..lost {
            let newest =
                |room: &Room| room.messages.last().and_then(|last| last["content"].as_u64());
            let last = self.rooms.values().filter_map(newest).max();
            for room in self.rooms.values_mut().filter(|room| newest(room) == last) {
                room.messages.pop();
            }
        }
        for name in self.rooms.keys().cloned().collect::<Vec<_>>() {
            self.names += 1;
            let epoch = format!("e{}", self.names);
            let room = self.rooms.get_mut(&name).expect("it is there");
            let begin = room.messages.len();
            room.earlier.values_mut().for_each(|good_to| *good_to = begin.min(*good_to));
            let before = mem::replace(&mut room.epoch, epoch.clone());
            room.earlier.insert(before.clone(), begin);
            for session in self.sessions.values_mut() {
                if session.declined.remove(&before) {
                    session.declined.insert(epoch.clone());
                }
            }
            // Only where no number is given again before the client is told.
            for _ in 0..if lost == 0 { self.random.below(3) } else { 0 } {
                self.published += 1;
                let (number, seq) = (self.published, self.rooms[&name].messages.len() + 1);
                let message = json!({"type": "message", "room": name, "seq": seq,
                    "id": format!("id{number}"), "content": number, "timestamp": "t",
                    "client_id": "you"});
                self.room(&name).messages.push(message);
            }
            if self.is_seated(&name) {
                let seq = self.rooms[&name].messages.len();
                self.note(format!("{name} fails over to {epoch} {seq}"));
                self.say(json!({"type": "epoch", "room": name, "epoch": epoch, "seq": seq}));
            }
        }
    }

    pub(super) fn serve(&mut self, command: Value) {
        self.note(format!("server is told {command}"));
        let kind = command["type"].as_str().expect("a type").to_owned();
        let error = |code: &str| json!({"type": "error", "code": code, "message": code});
        let mut answer = if kind == "resume" {
            self.resume(&command)
        } else if self.random.one_in(12) {
            let mut limited = error("rate_limited");
            limited["retry_after_ms"] = json!(10);
            limited
        } else {
            let room = command["room"].as_str().expect("a room").to_owned();
            let result = match kind.as_str() {
                "join" => self.serve_join(&room, &command),
                "leave" => self.serve_leave(&room),
                _ if !self.is_seated(&room) => Err("not_member"),
                "publish" => {
                    let id = command["id"].as_str().expect("an id").to_owned();
                    let by = self.session().map(|session| session.client_id.clone());
                    let seq = self.publish_to(&[&room], &by.unwrap_or_default(), &id, true);
                    Ok(json!({"seq": seq, "id": id}))
                }
                "history" => {
                    let after = command["after"].as_u64().expect("a number") as usize;
                    let room = self.room(&room);
                    let page = room.messages.iter().skip(after).take(PAGE_MAX);
                    let page: Vec<&Value> = page.collect();
                    Ok(json!({"epoch": room.epoch, "seq": room.messages.len(), "messages": page}))
                }
                "presence" => Ok(json!({"members": [], "count": 0})),
                other => panic!("{other}"),
            };
            match result {
                Ok(mut fields) => {
                    fields["type"] = json!("ok");
                    if fields["room"].is_null() {
                        fields["room"] = json!(room);
                    }
                    fields
                }
                Err(code) => error(code),
            }
        };
        answer["ref"] = command["ref"].clone();
        self.say(answer);
    }

    pub(super) fn is_seated(&mut self, room: &str) -> bool {
        self.session().is_some_and(|session| session.seats.contains_key(room))
    }

    pub(super) fn serve_join(
        &mut self,
        name: &str,
        command: &Value,
    ) -> Result<Value, &'static str> {
        if !name.ends_with('*') {
            if self.is_seated(name) {
                return Err("already_member");
            }
            self.seat(name, None);
            return Ok(self.state_of(name, command.get("since")));
        }
        let session = self.session().expect("a session");
        if session.patterns.iter().any(|pattern| pattern == name) {
            return Err("already_member");
        }
        session.patterns.push(name.into());
        let rooms: Vec<String> =
            self.rooms.keys().filter(|room| fits(name, room)).cloned().collect();
        let mut listed = Vec::new();
        for room in rooms {
            if !self.is_seated(&room) {
                self.seat(&room, Some(name.into()));
                listed.push(self.state_of(&room, None));
            }
        }
        Ok(json!({"rooms": listed}))
    }

    pub(super) fn serve_leave(&mut self, name: &str) -> Result<Value, &'static str> {
        let epoch = self.rooms.get(name).map(|room| room.epoch.clone()).unwrap_or_default();
        let session = self.session().expect("a session");
        if !name.ends_with('*') {
            session.seats.remove(name).ok_or("not_member")?;
            if session.patterns.iter().any(|pattern| fits(pattern, name)) {
                session.declined.insert(epoch);
            }
            return Ok(json!({}));
        }
        let at = session.patterns.iter().position(|pattern| pattern == name);
        session.patterns.remove(at.ok_or("not_member")?);
        let patterns = session.patterns.clone();
        session.seats.retain(|room, by| {
            if by.as_deref() == Some(name) {
                *by = patterns.iter().find(|pattern| fits(pattern, room)).cloned();
                return by.is_some();
            }
            true
        });
        Ok(json!({}))
    }

    /// Where a room stands, and what was missed since, if the server feels like it.
    pub(super) fn state_of(&mut self, name: &str, since: Option<&Value>) -> Value {
        let feels_like_it = self.random.below(3) > 0;
        let room = self.room(name);
        let mut state = json!({"room": name, "epoch": room.epoch, "seq": room.messages.len(),
            "recovered": false});
        if let Some(since) = since
            && let (Some(epoch), Some(seq)) = (since["epoch"].as_str(), since["seq"].as_u64())
            && (epoch == room.epoch
                || room.earlier.get(epoch).is_some_and(|good_to| seq <= *good_to as u64))
            && feels_like_it
        {
            let missed =
                room.messages.iter().skip(since["seq"].as_u64().expect("a number") as usize);
            state["messages"] = json!(missed.collect::<Vec<_>>());
            state["recovered"] = json!(true);
        }
        // One whose join is not answered yet is told of its place there, and not of what is lost.
        let is_elsewhere = since.is_some_and(|since| since["epoch"] != state["epoch"]);
        if is_elsewhere && state["recovered"] == false {
            self.begun_at.insert(name.into(), self.published);
        }
        state
    }

    pub(super) fn resume(&mut self, command: &Value) -> Value {
        let token = command["session"].as_str().expect("a session").to_owned();
        if !self.sessions.contains_key(&token) {
            return json!({"type": "error", "code": "unrecoverable"});
        }
        let fresh =
            mem::replace(&mut self.connection.as_mut().expect("a connection").token, token.clone());
        self.sessions.remove(&fresh);
        let positions = command["rooms"].as_array().expect("rooms").clone();
        let at = |name: &str| positions.iter().find(|position| position["room"] == name);
        let Kept { client_id, seats, patterns, declined } = self.sessions[&token].clone();
        let mut listed = Vec::new();
        for room in seats.keys() {
            if at(room).is_none() {
                self.begun_at.insert(room.clone(), self.published);
            }
            listed.push(self.state_of(room, at(room)));
        }
        for room in self.rooms.keys().cloned().collect::<Vec<_>>() {
            let pattern = patterns.iter().find(|pattern| fits(pattern, &room));
            if let Some(pattern) = pattern
                && !seats.contains_key(&room)
                && !declined.contains(&self.rooms[&room].epoch)
                && at(&room).is_none()
            {
                self.seat(&room, Some(pattern.clone()));
                let begin = json!({"epoch": self.rooms[&room].epoch, "seq": 0});
                listed.push(self.state_of(&room, Some(&begin)));
            }
        }
        for position in &positions {
            let room = position["room"].as_str().expect("a room");
            if !seats.contains_key(room) && !self.is_seated(room) {
                self.seat(room, None);
                listed.push(self.state_of(room, Some(position)));
            }
        }
        json!({"type": "ok", "client_id": client_id, "session": token, "patterns": patterns,
            "rooms": listed, "direct": {"seq": 0, "recovered": true}})
    }
}
