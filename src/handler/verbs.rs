//! The verbs of a [`Context`] that concern rooms, sessions and other clients.

use std::{any::Any, sync::Arc};

use uuid::Uuid;

use super::{
    context::Context,
    mode::Mode,
    reply::{Next, Pending, Reply},
};
use crate::{
    hub::{
        Hub,
        conn_handle::ConnHandle,
        error::RoomError,
        history::{Joined, Page, Replay},
        memberships::MatchedRoom,
        names::{RoomName, RoomPattern},
        presence::Watch,
        present::{MembersPage, Presence},
        publish::{Publication, Published, PublishedToRooms},
        question::{Answer, Outcome, Question},
        resume::{Resumed, ResumedRoom},
        room::Room,
        session::Sender,
        session_token::SessionToken,
    },
    identity::{Identity, Permissions},
    store::{Position, Range},
    ws::frame::PreparedFrame,
};

/// What entering a room costs, in microseconds or so.
const JOIN_COST: usize = 4;

/// What an answer with these messages costs, in microseconds or so.
fn cost_of_frames(frames: &[PreparedFrame]) -> usize {
    frames.iter().map(|frame| 1 + frame.len() / 256).sum()
}

impl<S: 'static, M: Mode> Context<'_, S, M> {
    /// Makes this connection a member of `room`, and makes the room if it does not exist. The
    /// answer has the room's position and the earlier messages that `replay` asks for. Messages
    /// after that position are delivered: none is missed between the two, and none comes twice.
    ///
    /// Fails with [`RoomError::AlreadyMember`], [`RoomError::TooManyMemberships`],
    /// [`RoomError::TooManyRooms`] or [`RoomError::Overloaded`].
    ///
    /// In a handler that may block, a message of the room may arrive at the client before what the
    /// handler sends about the answer. Clients compare sequence numbers.
    pub fn join(&mut self, room: &RoomName, replay: Replay) -> Reply<'_, S, Joined, M> {
        let hub = self.hub();
        let since = match replay {
            Replay::Since(position) => Some(position),
            _ => None,
        };
        if !hub.must_bring(room, since) {
            let outcome = join(self.conn, room, replay);
            return self.reply(outcome);
        }
        if let Err(error) = hub.check_join(self.conn, room) {
            return self.reply(Err(error));
        }
        let name = room.clone();
        let question =
            Question::Bring { rooms: vec![(name.clone(), since)], may_make: true, pattern: None };
        self.ask(question, move |conn, outcome| {
            outcome?;
            join(conn, &name, replay)
        })
    }

    /// Takes this connection out of `room`. Fails with [`RoomError::NotMember`].
    pub fn leave(&mut self, room: &str) -> Reply<'_, S, (), M> {
        let outcome = self.hub().leave(self.conn, room);
        self.reply(outcome)
    }

    /// Says who this client is. Its [permissions](crate::Handler::permissions) are decided anew,
    /// and it leaves the rooms that it may no longer be in, which the answer lists.
    ///
    /// A client that has a user keeps it: an identity of another user fails with
    /// [`RoomError::OtherUser`]. A revoked one fails with [`RoomError::Revoked`]. One whose user
    /// has [`max_conn_per_user`](crate::Config::max_conn_per_user) connections fails with
    /// [`RoomError::TooManyConnections`]: close the connection.
    pub fn set_identity(&mut self, identity: Identity) -> Reply<'_, S, Vec<RoomName>, M> {
        let outcome = self.hub().set_identity(self.conn, identity);
        if let Ok(left) = &outcome {
            self.conn.spend(JOIN_COST * (1 + left.len()));
        }
        self.reply(outcome)
    }

    /// Joins every room that matches `pattern`, and every later one as soon as it is made.
    /// [`Notice::Matched`](crate::Notice::Matched) tells the client of each later room. All of them
    /// count towards `max_rooms_per_conn`. If the existing matches exceed it, none is joined and
    /// the answer is [`RoomError::TooManyMemberships`]; if there are too many that the client may
    /// not join, it is [`RoomError::PatternTooWide`].
    pub fn subscribe(&mut self, pattern: &RoomPattern) -> Reply<'_, S, Vec<MatchedRoom>, M> {
        if self.hub().engine.is_none() {
            let outcome = subscribe(self.conn, pattern);
            return self.reply(outcome);
        }
        let pattern = pattern.clone();
        let question =
            Question::Bring { rooms: Vec::new(), may_make: false, pattern: Some(pattern.clone()) };
        self.ask(question, move |conn, outcome| {
            outcome?;
            subscribe(conn, &pattern)
        })
    }

    /// Ends a subscription, and leaves the rooms that only this pattern joined. Fails with
    /// [`RoomError::NotMember`].
    pub fn unsubscribe(&mut self, pattern: &RoomPattern) -> Reply<'_, S, (), M> {
        let outcome = self.hub().unsubscribe(self.conn, pattern);
        self.reply(outcome)
    }

    /// Lists the clients in `room`, of which this connection must be a member. `watch` begins or
    /// ends notices to the client of every change after the answer.
    pub fn presence(&mut self, room: &str, watch: Watch) -> Reply<'_, S, Presence, M> {
        self.presence_page(room, watch, MembersPage::FIRST)
    }

    /// Asks for some of those who are in `room`, as [`presence`](Context::presence) does for the
    /// first: the members of a large room come page by page.
    pub fn presence_page(
        &mut self,
        room: &str,
        watch: Watch,
        page: MembersPage,
    ) -> Reply<'_, S, Presence, M> {
        let outcome = self.hub().presence(self.conn, room, watch, page);
        if let Ok(presence) = &outcome {
            self.conn.spend(2 * presence.members.len());
        }
        self.reply(outcome)
    }

    /// Publishes to all members of `room`, this connection included if it is one.
    ///
    /// Fails with [`RoomError::NoSuchRoom`] if the room has neither members nor history, and with
    /// [`RoomError::Overloaded`] if a mailbox is full; nothing was stored then.
    pub fn publish<'m>(
        &mut self,
        room: &str,
        message: impl Into<Publication<'m>>,
    ) -> Reply<'_, S, Published, M> {
        let publication = message.into();
        if self.conn.hub().engine.is_none() {
            let outcome = self.publish_in(room, &publication);
            return self.reply(outcome);
        }
        match self.shared_publish(&[room], &publication) {
            Err(error) => self.reply(Err(error)),
            Ok(question) => self.ask(question, |_, outcome| {
                let (seqs, repeated) = numbered(outcome?);
                let seq = seqs.first().copied().unwrap_or_default();
                Ok(Published { seq, behind: false, repeated })
            }),
        }
    }

    /// Publishes to all members of `room` except this connection, as [`Publication::to_others`]
    /// does.
    pub fn publish_to_others<'m>(
        &mut self,
        room: &str,
        message: impl Into<Publication<'m>>,
    ) -> Reply<'_, S, Published, M> {
        self.publish(room, message.into().to_others())
    }

    /// Publishes one message to several rooms in one atomic step. The message gets a number in each
    /// room, and each client that is in any of the rooms gets it once.
    pub fn publish_to_rooms<'m>(
        &mut self,
        rooms: &[&str],
        message: impl Into<Publication<'m>>,
    ) -> Reply<'_, S, PublishedToRooms, M> {
        let publication = message.into();
        if self.conn.hub().engine.is_none() {
            let outcome = self.publish_in_all(rooms, &publication);
            return self.reply(outcome);
        }
        match self.shared_publish(rooms, &publication) {
            Err(error) => self.reply(Err(error)),
            Ok(question) => self.ask(question, |_, outcome| {
                let (seqs, repeated) = numbered(outcome?);
                Ok(PublishedToRooms { seqs, behind: false, repeated })
            }),
        }
    }

    /// Sends a message to one client, on whichever worker it is connected. [`Published::seq`]
    /// numbers the direct messages of the receiver. If the receiver's handler is
    /// [resumable](crate::Handler::resumable), the message waits while the client is away.
    pub fn direct<'m>(
        &mut self,
        to: &Uuid,
        message: impl Into<Publication<'m>>,
    ) -> Reply<'_, S, Published, M> {
        let publication = message.into();
        if self.conn.hub().engine.is_some() {
            return match self.conn.hub().shared_direct(self.sender(), to, &publication) {
                Err(error) => self.reply(Err(error)),
                Ok(question) => self.ask(question, |_, outcome| {
                    let (seqs, repeated) = numbered(outcome?);
                    let seq = seqs.first().copied().unwrap_or_default();
                    Ok(Published { seq, behind: false, repeated })
                }),
            };
        }
        let outcome = self.conn.hub().direct(self.sender(), to, &publication);
        self.slow_down(outcome.is_ok_and(|published| published.behind));
        self.reply(outcome)
    }

    /// Sends a message to all other connections of this handler's route, except those whose clients
    /// [must say who they are](Context::await_identity). The message is not kept: clients that are
    /// away miss it. The client needs the permission [`Permissions::DIRECT`].
    pub fn broadcast<'m>(&mut self, message: impl Into<Publication<'m>>) -> Reply<'_, S, (), M> {
        let publication = message.into();
        if self.conn.hub().engine.is_some() {
            return match self.conn.hub().shared_broadcast(self.sender(), &publication) {
                Err(error) => self.reply(Err(error)),
                Ok(question) => self.ask(question, |_, outcome| outcome.map(drop)),
            };
        }
        let outcome = self.conn.hub().broadcast(self.sender(), &publication);
        self.slow_down(false);
        self.reply(outcome)
    }

    /// Reads a page of at most `limit` messages of the history of `room`. A page is also cut off at
    /// half of `buffer_bytes`, so that it fits into the client's outbox.
    #[must_use = "the reply has the page"]
    pub fn history(&mut self, room: &str, range: Range, limit: usize) -> Reply<'_, S, Page, M> {
        let permitted = self.room(room, Permissions::HISTORY);
        let outcome = permitted.and_then(|room| self.conn.hub().history(&room, range, limit));
        if let Ok(page) = &outcome {
            self.conn.spend(cost_of_frames(&page.messages));
        }
        self.reply(outcome)
    }

    /// Resumes the session of an earlier connection. This connection gets the session's client id
    /// and rooms, the messages that the client missed since `positions`, and the direct messages
    /// after number `direct_seq` (if `None`, those that reached no connection). If the session is
    /// still attached to another connection, that one is closed with 4010, unless it began later
    /// than this one: then this one fails with [`RoomError::TakenOver`].
    ///
    /// Allowed only for the first message of a connection; later the answer is
    /// [`RoomError::NotFresh`]. The session that the connection began with ends, and leaves its
    /// rooms.
    #[must_use = "the reply says whether the session was resumed, and what it missed"]
    pub fn resume(
        &mut self,
        token: &SessionToken,
        positions: &[(RoomName, Position)],
        direct_seq: Option<u64>,
    ) -> Reply<'_, S, Resumed, M> {
        self.resume_as(token, positions, direct_seq, false)
    }

    /// Like [`resume`](Context::resume), and joins no room that the session is not in: for such a
    /// position the answer has [`RoomError::NotMember`].
    #[must_use = "the reply says whether the session was resumed, and what it missed"]
    pub fn resume_within(
        &mut self,
        token: &SessionToken,
        positions: &[(RoomName, Position)],
        direct_seq: Option<u64>,
    ) -> Reply<'_, S, Resumed, M> {
        self.resume_as(token, positions, direct_seq, true)
    }

    fn resume_as(
        &mut self,
        token: &SessionToken,
        positions: &[(RoomName, Position)],
        direct_seq: Option<u64>,
        joins_none: bool,
    ) -> Reply<'_, S, Resumed, M> {
        let hub = self.hub();
        if hub.engine.is_none() {
            let outcome = resume(self.conn, token, positions, direct_seq, joins_none);
            return self.reply(outcome);
        }
        if let Err(error) = hub.check_fresh(self.conn) {
            return self.reply(Err(error));
        }
        let (route, began_ms) = (self.conn.session().route, self.conn.session().began_ms);
        let user = self.identity().map(|identity| Arc::clone(&identity.user));
        let (token, positions) = (*token, positions.to_vec());
        let question =
            Question::BringSession { token, route, user, positions: positions.clone(), began_ms };
        self.ask(question, move |conn, outcome| {
            outcome.inspect_err(|_| hub.sessions.metrics.resumes_refused.add_shared())?;
            resume(conn, &token, &positions, direct_seq, joins_none)
        })
    }

    fn publish_in(
        &mut self,
        room: &str,
        publication: &Publication<'_>,
    ) -> Result<Published, RoomError> {
        let room = self.room(room, Permissions::PUBLISH)?;
        let published = self.conn.hub().publish(Some(self.sender()), &room, publication)?;
        self.slow_down(published.behind);
        Ok(published)
    }

    fn publish_in_all(
        &mut self,
        rooms: &[&str],
        publication: &Publication<'_>,
    ) -> Result<PublishedToRooms, RoomError> {
        let rooms: Vec<_> = rooms
            .iter()
            .map(|room| self.room(room, Permissions::PUBLISH))
            .collect::<Result<_, _>>()?;
        let rooms: Vec<&Room> = rooms.iter().map(AsRef::as_ref).collect();
        let published = self.conn.hub().publish_to_rooms(self.sender(), &rooms, publication)?;
        self.conn.spend(rooms.len());
        self.slow_down(published.behind);
        Ok(published)
    }

    /// Reads slower from the client if what it says is more work than is done.
    fn slow_down(&mut self, mailbox_is_behind: bool) {
        if mailbox_is_behind {
            self.conn.on_backpressure();
        }
        if self.conn.session().has_too_much_in_flight() {
            self.conn.await_deliveries();
        }
    }

    /// Two of these rooms that no message can be for at once ([`RoomError::RoomsApart`]), if there
    /// are such.
    pub fn apart<'r>(&self, rooms: &[&'r str]) -> Option<(&'r str, &'r str)> {
        let shards = self.conn.hub().engine.as_ref()?.shards;
        let names = rooms.iter().map(|name| RoomName::new(name)).collect::<Result<Vec<_>, _>>();
        let (first, second) = shards.apart(&names.ok()?)?;
        Some((rooms[first], rooms[second]))
    }

    /// Puts a publish to these rooms into words for the engine.
    fn shared_publish(
        &self,
        rooms: &[&str],
        publication: &Publication<'_>,
    ) -> Result<Question, RoomError> {
        let hub = self.conn.hub();
        let named = |name: &&str| match self.conn.room(name) {
            Some((room, may)) if may.contains(Permissions::PUBLISH) => Ok(room.name.clone()),
            Some(_) => Err(hub.forbid(Permissions::PUBLISH)),
            None => RoomName::new(name).map_err(|_| RoomError::NoSuchRoom),
        };
        let rooms = rooms.iter().map(named).collect::<Result<Vec<_>, _>>()?;
        hub.shared_publish(self.sender(), rooms, publication)
    }

    fn reply<T>(&mut self, outcome: Result<T, RoomError>) -> Reply<'_, S, T, M> {
        let ctx = Context::new(self.state, self.conn);
        Reply { ctx: Some(ctx), outcome: Some(Pending::Is(outcome)) }
    }

    /// Asks the engine. `finish` does what is to be done with its answer on this node.
    fn ask<T: 'static>(
        &mut self,
        question: Question,
        finish: impl FnOnce(&mut dyn ConnHandle, Outcome) -> Result<T, RoomError> + Send + 'static,
    ) -> Reply<'_, S, T, M> {
        let ask = move |ctx: &mut Context<'_, S, M>, next: Option<Next<S, T, M>>| {
            let go_on = move |state: &mut dyn Any, conn: &mut dyn ConnHandle, answer: Outcome| {
                let outcome = finish(conn, answer);
                let state = state.downcast_mut();
                let state: &mut S = state.expect("a state comes back to the handler that made it");
                if let Some(next) = next {
                    next(&mut Context::new(state, conn), outcome);
                }
            };
            if let Some((go_on, answer)) = ctx.conn.ask_engine(question, Box::new(go_on)) {
                go_on(ctx.state, ctx.conn, answer);
            }
        };
        let ctx = Context::new(self.state, self.conn);
        Reply { ctx: Some(ctx), outcome: Some(Pending::Asks(Box::new(ask))) }
    }

    fn sender(&self) -> Sender<'_> {
        Sender { session: self.conn.session(), conn: self.conn.id() }
    }

    fn hub(&self) -> Arc<Hub> {
        Arc::clone(self.conn.hub())
    }

    /// Finds a room for something that needs `permission` where the client is a member.
    fn room(&self, name: &str, permission: Permissions) -> Result<Arc<Room>, RoomError> {
        match self.conn.room(name) {
            Some((room, permissions)) if permissions.contains(permission) => Ok(room),
            Some(_) => Err(self.conn.hub().forbid(permission)),
            None => self.conn.hub().rooms.find(name).ok_or(RoomError::NoSuchRoom),
        }
    }
}

/// Joins a room that is on this node.
fn join(conn: &mut dyn ConnHandle, room: &RoomName, replay: Replay) -> Result<Joined, RoomError> {
    let hub = Arc::clone(conn.hub());
    let joined = hub.join(conn, room, replay)?;
    conn.spend(JOIN_COST + cost_of_frames(&joined.replay));
    Ok(joined)
}

fn subscribe(
    conn: &mut dyn ConnHandle,
    pattern: &RoomPattern,
) -> Result<Vec<MatchedRoom>, RoomError> {
    let hub = Arc::clone(conn.hub());
    let outcome = hub.subscribe(conn, pattern);
    let joined = outcome.as_ref().map_or(0, Vec::len);
    conn.spend(JOIN_COST * (1 + joined));
    outcome
}

/// Resumes a session that is on this node.
fn resume(
    conn: &mut dyn ConnHandle,
    token: &SessionToken,
    positions: &[(RoomName, Position)],
    direct_seq: Option<u64>,
    joins_none: bool,
) -> Result<Resumed, RoomError> {
    let hub = Arc::clone(conn.hub());
    let is_own =
        |(room, _): &&(RoomName, Position)| !joins_none || hub.session_is_in(token, room.as_str());
    let (own, others): (Vec<_>, Vec<_>) = positions.iter().partition(is_own);
    let own: Vec<_> = own.into_iter().cloned().collect();
    let mut resumed = hub.resume(conn, token, &own, direct_seq)?;
    for (room, _) in others {
        // One that a pattern matches by now was joined.
        if resumed.rooms.iter().all(|resumed| resumed.room != *room) {
            let (room, joined) = (room.clone(), Err(RoomError::NotMember));
            resumed.rooms.push(ResumedRoom { room, joined, presence: None });
        }
    }
    let joined = resumed.rooms.iter().filter_map(|room| room.joined.as_ref().ok());
    let replays: usize = joined.map(|joined| JOIN_COST + cost_of_frames(&joined.replay)).sum();
    let told = cost_of_frames(&resumed.notices) + cost_of_frames(&resumed.directs);
    conn.spend(replays + told);
    Ok(resumed)
}

/// The numbers of a message, and whether it is a repeat.
fn numbered(answer: Answer) -> (Box<[u64]>, bool) {
    match answer {
        Answer::Numbered { seqs, repeated } => (seqs, repeated),
        Answer::Done => (Box::default(), false),
    }
}
