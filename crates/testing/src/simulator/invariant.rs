//! Invariants about what clients see of each other: one truth for each room, nothing lost, nothing
//! twice, presence as it is.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::{
    act::author_of,
    client::{Broken, Client, Seen, Session, Verdict, View},
    socket::Socket,
    tokens::Act,
    world::World,
};

/// A promise that concerns more than one client. Each check may fail the run.
pub trait Invariant {
    /// Takes in what a client saw.
    fn seen(&mut self, _: &World, _: &Seen) -> Verdict {
        Ok(())
    }

    /// Holds what must be true after each step.
    fn after_step(&mut self, _: &World) -> Verdict {
        Ok(())
    }

    /// Holds what must be true when nothing is under way.
    fn at_rest(&mut self, _: &World) -> Verdict {
        Ok(())
    }

    /// Holds what must be true when nothing is under way and members have said who is there.
    fn at_census(&mut self, _: &World) -> Verdict {
        Ok(())
    }

    /// Holds what must be true when everybody has gone and all time has passed.
    fn at_end(&mut self, _: &World) -> Verdict {
        Ok(())
    }
}

fn broken(promise: &'static str, client: Option<usize>, seen: String) -> Verdict {
    Err(Broken { promise, client, seen })
}

/// Clients with a working connection, and their sessions.
fn settled(world: &World) -> impl Iterator<Item = (&Client, &Session)> {
    let settled = world.clients.iter().filter(|client| client.is_settled());
    settled.filter_map(|client| client.session.as_ref().map(|session| (client, session)))
}

/// One life of a room.
#[derive(Default)]
struct Life {
    /// Id and content of each message.
    messages: BTreeMap<u64, (String, String)>,
    /// The number of each content of a client that keeps the protocol.
    by_content: HashMap<String, u64>,
    /// The highest number that anybody saw.
    head: u64,
}

/// All members see the same message under the same number, and every message once.
#[derive(Default)]
pub(super) struct OneTruth {
    rooms: HashMap<(String, String), Life>,
}

impl OneTruth {
    fn check_view(&self, client: usize, room: &str, view: &View) -> Verdict {
        let life = self.rooms.get(&(room.to_owned(), view.epoch.clone()));
        let head = life.map_or(0, |life| life.head);
        if view.position() < head {
            return broken(
                "what was published reaches every member, or its member is told",
                Some(client),
                format!("{room} is at {head}, its member at {}", view.position()),
            );
        }
        match &view.replay {
            Some(replay) if replay.next.is_some_and(|next| next != replay.to + 1) => broken(
                "the replay behind welcome goes up to where welcome says",
                Some(client),
                format!("{room}: {replay:?}"),
            ),
            _ => Ok(()),
        }
    }
}

impl Invariant for OneTruth {
    fn seen(&mut self, _: &World, seen: &Seen) -> Verdict {
        let (room, epoch, seq, id) = match seen {
            Seen::Message { room, epoch, seq, id, .. }
            | Seen::Published { room, epoch, seq, id, .. } => (room, epoch, *seq, id),
            Seen::LeftOut { room, epoch, from, to } => {
                let life = self.rooms.get(&(room.clone(), epoch.clone()));
                let there = life.and_then(|life| life.messages.range(from..=to).next());
                return there.map_or(Ok(()), |(seq, _)| {
                    let seen = format!("{seq} of {room} is not in it");
                    broken("an answer has all that is kept and asked for", None, seen)
                });
            }
            _ => return Ok(()),
        };
        let life = self.rooms.entry((room.clone(), epoch.clone())).or_default();
        life.head = life.head.max(seq);
        let content = match seen {
            Seen::Message { content, .. } => content.as_str(),
            _ => "",
        };
        let known = life.messages.entry(seq).or_insert_with(|| (id.clone(), content.to_owned()));
        if known.1.is_empty() {
            known.1 = content.to_owned();
        }
        if known.0 != *id || (!content.is_empty() && known.1 != content) {
            return broken(
                "all members see the same message under a number",
                None,
                format!("{seq} of {room}: {:.20} and {content:.20}", known.1),
            );
        }
        if author_of(content).is_some() {
            let first = *life.by_content.entry(content.to_owned()).or_insert(seq);
            if first != seq {
                return broken(
                    "a message with an id is published once",
                    None,
                    format!("{content:.20} is {first} and {seq} of {room}"),
                );
            }
        }
        Ok(())
    }

    fn at_rest(&mut self, world: &World) -> Verdict {
        let mut epochs: BTreeMap<&str, &str> = BTreeMap::new();
        for (client, session) in settled(world) {
            for (room, view) in &session.rooms {
                self.check_view(client.index, room, view)?;
                let epoch = *epochs.entry(room).or_insert(&view.epoch);
                if epoch != view.epoch {
                    let seen = format!("two epochs of {room}");
                    return broken("a room has one epoch at a time", Some(client.index), seen);
                }
            }
        }
        Ok(())
    }
}

/// Direct messages and broadcasts: those of one sender come in order and once, and all that were
/// answered `ok` come.
#[derive(Default)]
pub(super) struct Letters {
    /// By receiver and sender, the highest number of a content. What a client said in an earlier
    /// session may come later.
    directs: HashMap<(String, String), u64>,
    broadcasts: HashMap<(String, String), u64>,
    /// By receiver, what was answered `ok` and has not come.
    owed: HashMap<String, BTreeSet<String>>,
    /// Receivers that were told since the last rest that some are missing. The `ok` of one that is
    /// missing may be read after that.
    told_of_loss: BTreeSet<String>,
    /// Contents that came before their `ok`.
    early: BTreeSet<String>,
}

impl Invariant for Letters {
    fn seen(&mut self, _: &World, seen: &Seen) -> Verdict {
        let (last, (to, from), content) = match seen {
            Seen::DirectSent { to, content } => {
                if !self.early.remove(content) && !self.told_of_loss.contains(to) {
                    self.owed.entry(to.clone()).or_default().insert(content.clone());
                }
                return Ok(());
            }
            Seen::DirectsLost { to } => {
                self.owed.remove(to);
                self.told_of_loss.insert(to.clone());
                return Ok(());
            }
            Seen::Direct { to, from, content, .. } => {
                if !self.owed.get_mut(to).is_some_and(|owed| owed.remove(content)) {
                    self.early.insert(content.clone());
                }
                (&mut self.directs, (to, from), content)
            }
            Seen::Broadcast { to, from, content } => (&mut self.broadcasts, (to, from), content),
            _ => return Ok(()),
        };
        let Some((_, number)) = author_of(content) else { return Ok(()) };
        let last = last.entry((to.clone(), from.clone())).or_default();
        if number <= *last {
            return broken(
                "messages of one client to another come in order and once",
                None,
                format!("{content} behind number {last}"),
            );
        }
        *last = number;
        Ok(())
    }

    fn at_rest(&mut self, world: &World) -> Verdict {
        self.told_of_loss.clear();
        for (client, session) in settled(world) {
            let owed = self.owed.get(&session.client_id).and_then(BTreeSet::first);
            if let Some(content) = owed {
                return broken(
                    "a direct message that was taken reaches its receiver",
                    Some(client.index),
                    format!("{content} did not come"),
                );
            }
            if session.direct_last < session.direct_owed {
                let seen = format!("{} of {}", session.direct_last, session.direct_owed);
                return broken("resume gives the direct messages", Some(client.index), seen);
            }
        }
        Ok(())
    }
}

/// Who is listed is there, who is there is listed, and watchers know it.
#[derive(Default)]
pub(super) struct Presence {
    /// Sessions that were given up, and until when the server may keep them, in milliseconds in
    /// which absences count.
    left: HashMap<String, u64>,
    censuses: Vec<(String, BTreeSet<String>, usize)>,
}

impl Invariant for Presence {
    fn seen(&mut self, world: &World, seen: &Seen) -> Verdict {
        match seen {
            Seen::SessionLeft { client_id } => {
                let config = &world.plan.config;
                // A connection that only its client knows to be lost, and then the window.
                let kept = config.timeout + config.resume_window + config.close_timeout;
                let until = world.now_ms - world.stood_still_ms + kept.as_millis() as u64 + 5000;
                self.left.insert(client_id.clone(), until);
            }
            Seen::Census { room, members, count } => {
                self.censuses.push((room.clone(), members.clone(), *count));
            }
            _ => {}
        }
        Ok(())
    }

    fn at_rest(&mut self, _: &World) -> Verdict {
        // What was answered while things were under way says nothing about now.
        self.censuses.clear();
        Ok(())
    }

    fn at_census(&mut self, world: &World) -> Verdict {
        self.left.retain(|_, until| *until > world.now_ms - world.stood_still_ms);
        for (room, members, count) in std::mem::take(&mut self.censuses) {
            if count != members.len() {
                let seen = format!("{count} and {} in {room}", members.len());
                return broken("presence counts whom it lists", None, seen);
            }
            for (client, session) in settled(world) {
                let view = session.rooms.get(&room);
                if view.is_some() != members.contains(&session.client_id) {
                    return broken(
                        "presence lists the members",
                        Some(client.index),
                        format!(
                            "{room}: a member {}, listed the contrary among {count}",
                            view.is_some()
                        ),
                    );
                }
                // A watcher of whom hostile clients wait to be confirmed may know fewer.
                let roster = view.and_then(|view| view.roster.as_ref().filter(|_| view.watching));
                if let Some(roster) = roster
                    && *roster != members
                {
                    return broken(
                        "who watches a room knows who is there",
                        Some(client.index),
                        format!(
                            "{room}: known but not there {:?}, there but not known {:?}",
                            roster.difference(&members),
                            members.difference(roster)
                        ),
                    );
                }
            }
            // Hostile clients are in rooms too, and nobody knows their ids.
            let counted_ms = world.now_ms - world.stood_still_ms;
            if world.plan.hostile == 0 && counted_ms > world.strangers_until_ms {
                let is_known = |id: &&String| {
                    let of = |session: &Session| session.client_id == **id;
                    self.left.contains_key(*id)
                        || world.clients.iter().any(|client| {
                            client.session.as_ref().is_some_and(of)
                                || client.fresh.as_ref().is_some_and(of)
                        })
                };
                if let Some(id) = members.iter().find(|id| !is_known(id)) {
                    let seen = format!("{id} in {room}, whose session has ended");
                    return broken("presence lists members alone", None, seen);
                }
            }
        }
        Ok(())
    }
}

/// At rest, every command of a connection that works has its answer.
pub(super) struct Answers;

impl Invariant for Answers {
    fn at_rest(&mut self, world: &World) -> Verdict {
        for client in &world.clients {
            let is_open = client.socket.as_ref().is_some_and(Socket::is_open);
            if let Some((reference, asked)) = client.asked.front()
                && is_open
                && !client.is_leaving
            {
                let seen = format!("{reference}: {}", asked.words());
                return broken("each command is answered", Some(client.index), seen);
            }
            if is_open && client.current().is_none() && !client.is_leaving {
                let seen = "no welcome".to_owned();
                return broken("each client is welcomed", Some(client.index), seen);
            }
        }
        Ok(())
    }
}

/// Who has joined a pattern is in every room that matches, unless there was no place or the client
/// has left the room by name.
pub(super) struct Patterns;

impl Invariant for Patterns {
    fn at_rest(&mut self, world: &World) -> Verdict {
        let rooms: BTreeSet<&String> =
            settled(world).flat_map(|(_, session)| session.rooms.keys()).collect();
        for (client, session) in settled(world) {
            let is_full = session.rooms.len() >= world.plan.config.max_rooms_per_conn;
            if is_full || session.was_full || session.is_unsure {
                continue;
            }
            let is_matched = |room: &str| {
                session.patterns.iter().any(|of| room.starts_with(of.trim_end_matches('*')))
            };
            let is_missing = |room: &&&String| {
                is_matched(room)
                    && !session.rooms.contains_key(**room)
                    && !session.declined.contains(**room)
                    && world.plan.may_surely(client.token.as_ref(), room, Act::Join)
            };
            if let Some(room) = rooms.iter().find(is_missing) {
                let seen = format!("it is not in {room}, with {:?}", session.patterns);
                return broken("a pattern joins every room it matches", Some(client.index), seen);
            }
        }
        Ok(())
    }
}

/// How long a client that comes in with a token that has ended is served, to be told so.
const LEAVING_MS: u64 = 100;

/// At rest, nobody is connected whose token has ended or was revoked, or in a room that it does not
/// allow, or beside too many of its user.
pub(super) struct Permitted;

impl Invariant for Permitted {
    fn at_rest(&mut self, world: &World) -> Verdict {
        let mut of_user: BTreeMap<&str, usize> = BTreeMap::new();
        for (client, session) in settled(world) {
            let (index, token) = (Some(client.index), client.token.as_ref());
            if let Some(token) = token {
                let count = of_user.entry(&token.user).or_default();
                *count += 1;
                if *count > world.plan.config.max_conn_per_user {
                    let seen = format!("{count} of {}", token.user);
                    return broken("a user has so many connections", index, seen);
                }
                if token.is_revoked {
                    let promise = "a revocation closes the connections that came with its tokens";
                    return broken(promise, index, token.words());
                }
                // Who waited in line may come in with a token that has ended meanwhile.
                let end_ms = token.expires_ms + world.plan.token_grace_ms();
                if world.now_ms > end_ms.max(client.upgraded_ms + LEAVING_MS) {
                    let seen = format!("{} at {} ms", token.words(), world.now_ms);
                    let promise = "no connection outlives its token by more than the grace";
                    return broken(promise, index, seen);
                }
            }
            let is_forbidden = |room: &&String| !world.plan.may_somehow(token, room, Act::Join);
            if let Some(room) = session.rooms.keys().find(is_forbidden) {
                return broken("a client is only where it may be", index, room.clone());
            }
        }
        Ok(())
    }
}
