//! Rooms with JSON, as an application on tokio keeps them: one directory behind a lock, and for
//! each client an inbox that its own task empties.
//!
//! A client says `{"type":"join","room":…}`, `{"type":"leave","room":…}` and
//! `{"type":"publish","room":…,"content":…}`. The first two are answered, and the other members of
//! a room are sent `{"type":"message","room":…,"seq":…,"content":…}`. That is the least a room
//! server can do: there is no id, no time, no history, and who is too slow loses messages.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::mpsc;

use crate::peer::LAG_MESSAGES_MAX;

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum Command {
    Join { room: String },
    Leave { room: String },
    Publish { room: String, content: Value },
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum Said<'a> {
    Ok { room: &'a str },
    Error { message: &'a str },
    Message { room: &'a str, seq: u64, content: &'a Value },
}

/// All rooms. `M` is what the peer sends, cheap to clone.
pub struct Rooms<M> {
    directory: Mutex<Directory<M>>,
    /// Makes a text message.
    text: fn(String) -> M,
}

struct Directory<M> {
    rooms: HashMap<String, Room<M>>,
    next_id: u64,
}

struct Room<M> {
    seq: u64,
    members: HashMap<u64, mpsc::Sender<M>>,
}

/// One client in the rooms it joined. It leaves them when it is dropped.
pub struct Client<M> {
    rooms: Arc<Rooms<M>>,
    id: u64,
    inbox: mpsc::Sender<M>,
    joined: Vec<String>,
}

impl<M: Clone> Rooms<M> {
    pub fn new(text: fn(String) -> M) -> Arc<Self> {
        let directory = Directory { rooms: HashMap::new(), next_id: 0 };
        Arc::new(Self { directory: Mutex::new(directory), text })
    }

    /// A new client, and what the others have to say to it.
    pub fn enter(self: &Arc<Self>) -> (Client<M>, mpsc::Receiver<M>) {
        let (inbox, outbox) = mpsc::channel(LAG_MESSAGES_MAX);
        let mut directory = self.lock();
        let id = directory.next_id;
        directory.next_id += 1;
        (Client { rooms: Arc::clone(self), id, inbox, joined: Vec::new() }, outbox)
    }
}

impl<M> Rooms<M> {
    fn lock(&self) -> MutexGuard<'_, Directory<M>> {
        // A panic of another task leaves a directory that is still whole.
        self.directory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn say(&self, said: &Said<'_>) -> M {
        (self.text)(serde_json::to_string(said).expect("what is said has only strings as keys"))
    }
}

impl<M: Clone> Client<M> {
    /// Does what the client asks for. What it returns is the answer.
    pub fn handle(&mut self, text: &str) -> Option<M> {
        let rooms = Arc::clone(&self.rooms);
        match serde_json::from_str(text) {
            Ok(Command::Join { room }) => {
                let answer = rooms.say(&Said::Ok { room: &room });
                self.join(room);
                Some(answer)
            }
            Ok(Command::Leave { room }) => {
                rooms.lock().leave(&room, self.id);
                self.joined.retain(|joined| *joined != room);
                Some(rooms.say(&Said::Ok { room: &room }))
            }
            Ok(Command::Publish { room, content }) => match self.publish(&room, &content) {
                true => None,
                false => Some(rooms.say(&Said::Error { message: "not a member of this room" })),
            },
            Err(_) => Some(rooms.say(&Said::Error { message: "this is no command" })),
        }
    }

    fn join(&mut self, room: String) {
        let mut directory = self.rooms.lock();
        let entry = directory.rooms.entry(room.clone());
        let there = entry.or_insert_with(|| Room { seq: 0, members: HashMap::new() });
        if there.members.insert(self.id, self.inbox.clone()).is_none() {
            self.joined.push(room);
        }
    }

    /// Says whether the client is a member.
    fn publish(&self, name: &str, content: &Value) -> bool {
        let mut directory = self.rooms.lock();
        let Some(room) = directory.rooms.get_mut(name) else { return false };
        if !room.members.contains_key(&self.id) {
            return false;
        }
        room.seq += 1;
        let message = self.rooms.say(&Said::Message { room: name, seq: room.seq, content });
        for (id, inbox) in &room.members {
            if *id != self.id && inbox.try_send(message.clone()).is_err() {
                eprintln!("client {id} lost a message");
            }
        }
        true
    }
}

impl<M> Drop for Client<M> {
    fn drop(&mut self) {
        let mut directory = self.rooms.lock();
        for room in &self.joined {
            directory.leave(room, self.id);
        }
    }
}

impl<M> Directory<M> {
    fn leave(&mut self, room: &str, id: u64) {
        if let Entry::Occupied(mut entry) = self.rooms.entry(room.to_owned()) {
            entry.get_mut().members.remove(&id);
            if entry.get().members.is_empty() {
                entry.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_hear_each_other_in_order_and_not_themselves() {
        let rooms = Rooms::new(|text| text);
        let (mut anna, mut to_anna) = rooms.enter();
        let (mut ben, mut to_ben) = rooms.enter();
        let join = r#"{"type":"join","room":"tea","ref":1}"#;
        assert_eq!(anna.handle(join).unwrap(), r#"{"type":"ok","room":"tea"}"#);
        assert!(
            ben.handle(r#"{"type":"publish","room":"tea","content":1}"#).unwrap().contains("not")
        );
        ben.handle(join);
        assert_eq!(anna.handle(r#"{"type":"publish","room":"tea","content":"hi"}"#), None);
        assert_eq!(ben.handle(r#"{"type":"publish","room":"tea","content":{"a":1}}"#), None);
        let heard = to_ben.try_recv().unwrap();
        assert_eq!(heard, r#"{"type":"message","room":"tea","seq":1,"content":"hi"}"#);
        let heard = to_anna.try_recv().unwrap();
        assert_eq!(heard, r#"{"type":"message","room":"tea","seq":2,"content":{"a":1}}"#);
        assert!(to_anna.try_recv().is_err() && to_ben.try_recv().is_err());
        drop((anna, ben));
        assert!(rooms.lock().rooms.is_empty());
    }

    #[test]
    fn what_is_no_command_is_told() {
        let (mut client, _inbox) = Rooms::new(|text| text).enter();
        for wrong in ["", "{}", r#"{"type":"dance"}"#, r#"{"type":"join"}"#] {
            assert!(client.handle(wrong).unwrap().starts_with(r#"{"type":"error""#), "{wrong}");
        }
    }
}
