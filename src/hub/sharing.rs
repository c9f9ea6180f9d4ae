//! What a node asks of the engine for its clients, in words that the engine understands.

use std::sync::Arc;

use uuid::Uuid;

use super::{
    Hub,
    conn_handle::ConnHandle,
    envelope::From,
    error::RoomError,
    names::RoomName,
    publish::{Publication, Published},
    publisher::Publisher,
    question::{Answer, By, Publish, Question},
    session::{Attachment, Sender},
    shards::Shards,
};
use crate::{identity::Permissions, store::Position};

impl Hub {
    /// Whether a room must be brought to this node before anything is done in it after `since`. So
    /// it is for each room while its shard of the engine is away, which then says so.
    pub(crate) fn must_bring(&self, name: &RoomName, since: Option<Position>) -> bool {
        let Some(engine) = &self.engine else { return false };
        let is_here = || {
            let room = self.rooms.find(name.as_str())?;
            let state = room.state.lock();
            let is_behind = since.is_some_and(|since| state.is_behind(since));
            Some(state.is_live && !state.is_gone() && !is_behind)
        };
        engine.is_away(engine.shards.of_room(name)) || is_here() != Some(true)
    }

    /// Fails if the client of a connection may not join a room, before that is brought here.
    pub(crate) fn check_join(
        &self,
        conn: &mut dyn ConnHandle,
        name: &RoomName,
    ) -> Result<(), RoomError> {
        self.check_memory()?;
        self.lock_own_session(conn, |locked| {
            if locked.state.membership(name.as_str()).is_some() {
                return Err(RoomError::AlreadyMember);
            }
            if !locked.may_join(name) {
                return Err(self.forbid(Permissions::JOIN));
            }
            if locked.state.memberships.len() >= self.limits.memberships_max() {
                return Err(RoomError::TooManyMemberships);
            }
            if self.rooms.find(name.as_str()).is_some() {
                return Ok(());
            }
            let user = locked.state.shown.shared_user();
            self.spend_room(locked.session, user, locked.conn.remote_addr())
        })
    }

    /// Fails if a connection has used its session already.
    pub(crate) fn check_fresh(&self, conn: &dyn ConnHandle) -> Result<(), RoomError> {
        let state = conn.session().state.lock();
        match state.fresh && state.attachment == Attachment::To(conn.id()) {
            true => Ok(()),
            false => Err(RoomError::NotFresh),
        }
    }

    /// Fails if not all of these rooms are in one shard: no script could number a message in all.
    fn check_together(&self, rooms: &[RoomName]) -> Result<(), RoomError> {
        let shards = self.engine.as_ref().map_or(Shards::ONE, |engine| engine.shards);
        match shards.apart(rooms) {
            None => Ok(()),
            Some((first, second)) => Err(RoomError::RoomsApart { first, second }),
        }
    }

    /// Says whom a message is from: a client of this node, or the nil UUID.
    fn from(&self, client: Uuid) -> From {
        let nth = self.engine.as_ref().map_or(0, |engine| engine.next_message());
        From { node: self.node, client, except: None, without: None, nth }
    }

    /// A message of a session to rooms.
    pub(crate) fn shared_publish(
        &self,
        by: Sender<'_>,
        rooms: Vec<RoomName>,
        publication: &Publication<'_>,
    ) -> Result<Question, RoomError> {
        if rooms.is_empty() {
            return Err(RoomError::NoSuchRoom);
        }
        if has_twice(&rooms) {
            return Err(RoomError::SameRoomTwice);
        }
        self.check_together(&rooms)?;
        self.check_memory()?;
        by.check_not_taken_over()?;
        let except = publication.to_others.then_some(by.conn);
        let from = From { except, ..self.from(by.session.client_id) };
        let message = publication.envelope(&from, several(&rooms));
        let by = By::Session(Arc::clone(by.session));
        let id = publication.dedup_id;
        Ok(Question::Publish(Publish { by, rooms, may_make: false, message, id }))
    }

    /// A message of a publisher outside of any connection, which makes rooms.
    pub(crate) fn shared_publish_from_outside(
        &self,
        publisher: &Publisher,
        rooms: &[RoomName],
        publication: &Publication<'_>,
        without: Option<Uuid>,
    ) -> Result<Question, RoomError> {
        if has_twice(rooms) {
            return Err(RoomError::SameRoomTwice);
        }
        self.check_together(rooms)?;
        self.check_memory()?;
        let from = From { without, ..self.from(Uuid::nil()) };
        let (message, id) = (publication.envelope(&from, several(rooms)), publication.dedup_id);
        let (by, rooms) = (By::Publisher(publisher.name().into()), rooms.to_vec());
        Ok(Question::Publish(Publish { by, rooms, may_make: true, message, id }))
    }

    /// Publishes from outside of any connection to rooms that there are, and waits for the numbers.
    pub(crate) fn publish_shared(
        &self,
        rooms: &[RoomName],
        publication: &Publication<'_>,
    ) -> Result<Published, RoomError> {
        let question =
            match self.shared_publish_from_outside(&Publisher::new(), rooms, publication, None)? {
                Question::Publish(publish) => {
                    Question::Publish(Publish { may_make: false, ..publish })
                }
                other => other,
            };
        match self.ask_engine(question)? {
            Answer::Numbered { seqs, repeated } => {
                let seq = seqs.first().copied().unwrap_or_default();
                Ok(Published { seq, behind: false, repeated })
            }
            Answer::Done => Err(RoomError::EngineAway),
        }
    }

    /// Fails if a session may not send to clients of other rooms.
    fn check_direct(&self, by: Sender<'_>) -> Result<(), RoomError> {
        self.check_memory()?;
        by.check_not_taken_over()?;
        match by.session.state.lock().may_direct {
            true => Ok(()),
            false => Err(self.forbid(Permissions::DIRECT)),
        }
    }

    /// A message of a session to one client.
    pub(crate) fn shared_direct(
        &self,
        by: Sender<'_>,
        to: &Uuid,
        publication: &Publication<'_>,
    ) -> Result<Question, RoomError> {
        self.check_direct(by)?;
        let by = By::Session(Arc::clone(by.session));
        Ok(self.direct_question(by, to, publication))
    }

    /// A message of a publisher outside of any connection to one client.
    pub(crate) fn shared_direct_from_outside(
        &self,
        publisher: &Publisher,
        to: &Uuid,
        publication: &Publication<'_>,
    ) -> Question {
        self.direct_question(By::Publisher(publisher.name().into()), to, publication)
    }

    fn direct_question(&self, by: By, to: &Uuid, publication: &Publication<'_>) -> Question {
        let client = by.session().map_or_else(Uuid::nil, |by| by.client_id);
        let (message, id) = (publication.envelope(&self.from(client), &[]), publication.dedup_id);
        Question::Direct { by, to: *to, message, id }
    }

    /// A message of a session to everyone else of its route.
    pub(crate) fn shared_broadcast(
        &self,
        by: Sender<'_>,
        publication: &Publication<'_>,
    ) -> Result<Question, RoomError> {
        self.check_direct(by)?;
        let from = From { except: Some(by.conn), ..self.from(by.session.client_id) };
        let (route, message) = (by.session.route, publication.envelope(&from, &[]));
        Ok(Question::Broadcast { route, message })
    }
}

fn has_twice(rooms: &[RoomName]) -> bool {
    let mut names: Vec<&str> = rooms.iter().map(RoomName::as_str).collect();
    names.sort_unstable();
    names.windows(2).any(|pair| pair[0] == pair[1])
}

/// The rooms of a message that are written into it.
fn several(rooms: &[RoomName]) -> &[RoomName] {
    if rooms.len() > 1 { rooms } else { &[] }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::Config,
        hub::{
            engine::Engine,
            harness::{Bench, name},
        },
    };

    #[test]
    fn rooms_of_different_shards_get_no_message_in_common() {
        let mut bench = Bench::new(&Config::default(), 1, 1000);
        let places = vec![String::new(), String::new()];
        let (engine, _asked) = Engine::new(Uuid::new_v4(), places, Box::new(|| {}));
        let shards = engine.shards;
        Arc::get_mut(&mut bench.hub).expect("one").engine = Some(Arc::new(engine));
        let rooms: Vec<RoomName> = (0..20).map(|n| name(&format!("room{n}"))).collect();
        let (first, second) = shards.apart(&rooms).expect("they are spread");
        let publish = |rooms: &[RoomName]| {
            let (publisher, publication) = (Publisher::new(), Publication::from("x"));
            let asked =
                bench.hub.shared_publish_from_outside(&publisher, rooms, &publication, None);
            asked.map(drop)
        };
        assert_eq!(publish(&rooms), Err(RoomError::RoomsApart { first, second }));
        let together: Vec<RoomName> =
            rooms.iter().map(|room| name(&format!("{{a}}{room}"))).collect();
        assert_eq!(publish(&together), Ok(()));
    }

    #[test]
    fn a_question_that_finds_no_space_is_counted_as_refused() {
        let mut bench = Bench::new(&Config::default(), 1, 1000);
        let (engine, _asked) = Engine::new(Uuid::new_v4(), vec![String::new()], Box::new(|| {}));
        Arc::get_mut(&mut bench.hub).expect("one").engine = Some(Arc::new(engine));
        let ask = |bytes: usize| {
            let question = Question::Announce(vec![0; bytes].into());
            let asked = bench.hub.begin_asking(question).map(drop);
            (asked, bench.hub.rooms.metrics.engine_refused.value())
        };
        assert_eq!(ask(1), (Ok(()), 0));
        assert_eq!(ask(64 << 20), (Err(RoomError::Overloaded), 1));
        assert_eq!(ask(1), (Ok(()), 1), "it takes no space");
    }
    #[test]
    fn posts_for_other_nodes_leave_space_for_those_inside() {
        let mut bench = Bench::new(&Config::default(), 1, 1000);
        let (engine, _asked) = Engine::new(Uuid::new_v4(), vec![String::new()], Box::new(|| {}));
        Arc::get_mut(&mut bench.hub).expect("one").engine = Some(Arc::new(engine));
        let ask = |question| bench.hub.begin_asking(question).map(drop);
        let message = || vec![0; 1 << 20].into();
        let tell = || Question::Tell { node: Uuid::nil(), message: message() };
        let told = (0..64).take_while(|_| ask(tell()).is_ok()).count();
        assert_eq!(told, 15, "a quarter of 64 MiB");
        assert_eq!(ask(Question::Announce(message())), Ok(()));
    }
}
