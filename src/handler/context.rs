//! What a handler is given for a call, and what it may keep.

use std::{net::SocketAddr, sync::Arc};

use uuid::Uuid;

use super::{SendStatus, calls::Link};
use crate::{
    hub::{
        Hub, HubError, Joined, Page, Replay,
        mailbox::{ConnId, Letter, Post},
        presence::Presence,
        publish::{Publication, Published, PublishedTo},
        resume::Resumed,
        rooms::{Room, RoomName, RoomPattern},
        seats::Found,
        sessions::{Session, SessionToken, Speaker},
    },
    store::{Position, Range},
    ws::{
        close::CloseReason,
        frame::{Message, PreparedFrame},
    },
};

/// A connection, for the length of one handler call.
///
/// It cannot be kept, so nothing done through it can come too late; [`Context::peer`] gives what can.
///
/// What may one day be asked of another machine answers through a closure. With the in-memory store it runs before the
/// call returns; with a store on another machine it would run later. Write for either.
pub struct Context<'a, S> {
    state: &'a mut S,
    link: &'a mut dyn Link,
}

impl<'a, S> Context<'a, S> {
    pub(super) fn new(state: &'a mut S, link: &'a mut dyn Link) -> Context<'a, S> {
        Context { state, link }
    }
}

impl<S: 'static> Context<'_, S> {
    /// What the handler remembers about this connection.
    pub fn state(&mut self) -> &mut S {
        self.state
    }

    /// The random id of this client's session.
    pub fn client_id(&self) -> Uuid {
        self.link.session().client_id
    }

    /// The peer of the socket, which may be a proxy.
    pub fn remote_addr(&self) -> SocketAddr {
        self.link.remote_addr()
    }

    /// Sends a message to this client.
    pub fn send<'m>(&mut self, message: impl Into<Message<'m>>) -> SendStatus {
        self.link.send(message.into())
    }

    /// Sends a message that is encoded already. It is shared, not copied.
    pub fn send_prepared(&mut self, frame: &PreparedFrame) -> SendStatus {
        self.link.send_prepared(frame)
    }

    /// Makes this connection a member of `room`; `then` learns from which position on messages come, and
    /// gets the earlier ones that `replay` asks for: none is missed between the two, and none comes twice.
    ///
    /// On a [`Blocking`](crate::Blocking) handler a message of the room may overtake `then`: compare
    /// sequence numbers.
    pub fn join(
        &mut self,
        room: &RoomName,
        replay: Replay,
        then: impl FnOnce(&mut Self, Result<Joined, HubError>) + Send + 'static,
    ) {
        let (hub, session) = self.parties();
        let result = hub.join(&session, self.link, room, replay);
        then(self, result);
    }

    /// Takes this connection out of `room`.
    pub fn leave(&mut self, room: &str) -> Result<(), HubError> {
        let (hub, session) = self.parties();
        hub.leave(&session, self.link, room)
    }

    /// Whether this connection is a member of `room`.
    pub fn is_member(&self, room: &str) -> bool {
        self.link.own_room(room).is_some()
    }

    /// Joins every room that matches `pattern`, and each that is made later as it is made; the latter is
    /// told by [`Notice::Matched`](crate::Notice::Matched). All of them count as rooms of this connection,
    /// and where there is no place for all that exist, none is joined.
    pub fn subscribe(
        &mut self,
        pattern: &RoomPattern,
        then: impl FnOnce(&mut Self, Result<Vec<Found>, HubError>) + Send + 'static,
    ) {
        let (hub, session) = self.parties();
        let result = hub.subscribe(&session, self.link, pattern);
        then(self, result);
    }

    /// Ends a subscription, and leaves the rooms it brought.
    pub fn unsubscribe(&mut self, pattern: &RoomPattern) -> Result<(), HubError> {
        let (hub, session) = self.parties();
        hub.unsubscribe(&session, self.link, pattern)
    }

    /// Asks who is in `room`, in which this connection is. `Some(true)` has it told, by
    /// [`Notice::Joined`](crate::Notice::Joined) and [`Left`](crate::Notice::Left), of every change since
    /// that answer; `Some(false)` ends that; `None` leaves it as it is.
    pub fn presence(
        &mut self,
        room: &str,
        watch: Option<bool>,
        then: impl FnOnce(&mut Self, Result<Presence, HubError>) + Send + 'static,
    ) {
        let (hub, session) = self.parties();
        let result = hub.presence(&session, self.link, room, watch);
        then(self, result);
    }

    /// The name that this client goes by in presence.
    pub fn set_name(&mut self, name: Option<&str>) {
        self.link.hub().set_name(self.link.session(), name);
    }

    /// Publishes to everyone in `room`, this connection included if it is a member.
    ///
    /// The room must exist: someone is in it, or it has history.
    pub fn publish<'m>(
        &mut self,
        room: &str,
        message: impl Into<Publication<'m>>,
        then: impl FnOnce(&mut Self, Result<Published, HubError>) + Send + 'static,
    ) {
        let result = self.publish_in(room, &message.into(), false);
        then(self, result);
    }

    /// Publishes to everyone in `room` but this connection.
    pub fn broadcast<'m>(
        &mut self,
        room: &str,
        message: impl Into<Publication<'m>>,
        then: impl FnOnce(&mut Self, Result<Published, HubError>) + Send + 'static,
    ) {
        let result = self.publish_in(room, &message.into(), true);
        then(self, result);
    }

    fn publish_in(
        &mut self,
        room: &str,
        publication: &Publication<'_>,
        skip_self: bool,
    ) -> Result<Published, HubError> {
        let room = self.room(room)?;
        let except = skip_self.then(|| self.link.conn());
        let by = Some(self.speaker());
        let published = self.link.hub().publish(by, &room, publication, except)?;
        if published.behind {
            self.link.feel_pressure();
        }
        Ok(published)
    }

    /// Publishes to several rooms at one instant: numbered in each, and sent once to everyone who is in any
    /// of them; with `skip_self` not to this connection.
    pub fn publish_to<'m>(
        &mut self,
        rooms: &[&str],
        message: impl Into<Publication<'m>>,
        skip_self: bool,
        then: impl FnOnce(&mut Self, Result<PublishedTo, HubError>) + Send + 'static,
    ) {
        let result = self.publish_in_all(rooms, &message.into(), skip_self);
        then(self, result);
    }

    fn publish_in_all(
        &mut self,
        rooms: &[&str],
        publication: &Publication<'_>,
        skip_self: bool,
    ) -> Result<PublishedTo, HubError> {
        let rooms: Vec<_> = rooms.iter().map(|room| self.room(room)).collect::<Result<_, _>>()?;
        let rooms: Vec<&Room> = rooms.iter().map(AsRef::as_ref).collect();
        let except = skip_self.then(|| self.link.conn());
        let published = self.link.hub().publish_to(self.speaker(), &rooms, publication, except)?;
        if published.behind {
            self.link.feel_pressure();
        }
        Ok(published)
    }

    /// Sends a message to one client, wherever it is connected. [`Published::seq`] counts what that
    /// client was sent like this. Where its handler keeps sessions, it waits there while the client is away.
    pub fn direct<'m>(
        &mut self,
        to: &Uuid,
        message: impl Into<Publication<'m>>,
        then: impl FnOnce(&mut Self, Result<Published, HubError>) + Send + 'static,
    ) {
        let result = self.link.hub().direct(self.speaker(), to, &message.into());
        if result.is_ok_and(|published| published.behind) {
            self.link.feel_pressure();
        }
        then(self, result);
    }

    /// Sends a message to every connection of this handler's route but this one. It is not kept: who is
    /// away misses it.
    pub fn announce<'m>(&mut self, message: impl Into<Publication<'m>>) -> Result<(), HubError> {
        let by = self.speaker();
        let (route, except) = (Some(by.session.route), Some(by.conn));
        self.link.hub().announce_to_all(by, route, &message.into(), except)
    }

    /// Asks for a page of at most `limit` messages of what `room` keeps. A page also ends where it would
    /// fill half of what may wait for one client.
    pub fn history(
        &mut self,
        room: &str,
        range: Range,
        limit: usize,
        then: impl FnOnce(&mut Self, Result<Page, HubError>) + Send + 'static,
    ) {
        let result = self.room(room).map(|room| self.link.hub().history(&room, range, limit));
        then(self, result);
    }

    /// What another connection must show to take this client's session up, if the handler
    /// [keeps sessions](crate::Handler::keeps_sessions).
    pub fn session_token(&self) -> SessionToken {
        self.link.session().token()
    }

    /// Takes up the session of an earlier connection: this connection gets its client id, its rooms, and
    /// what it missed since `positions` and since direct message `direct_seq` (without it, what came while
    /// it was away). A connection that the session was still on is closed with 4010.
    ///
    /// Only with the first message of a connection. The session it began with is gone then, and so are
    /// the rooms it had joined.
    pub fn resume(
        &mut self,
        token: &SessionToken,
        positions: &[(RoomName, Position)],
        direct_seq: Option<u64>,
        then: impl FnOnce(&mut Self, Result<Resumed, HubError>) + Send + 'static,
    ) {
        let (hub, session) = self.parties();
        let result = hub.resume(&session, self.link, token, positions, direct_seq);
        then(self, result);
    }

    /// Closes this connection once the handler has returned. What was sent before still goes out.
    pub fn close(&mut self, reason: CloseReason) {
        self.link.close(reason);
    }

    /// A handle to this connection that can be kept and used from any thread.
    pub fn peer(&self) -> Peer {
        Peer {
            conn: self.link.conn(),
            client_id: self.client_id(),
            post: self.link.hub().post.clone(),
        }
    }

    fn speaker(&self) -> Speaker<'_> {
        Speaker { session: self.link.session(), conn: self.link.conn() }
    }

    fn parties(&self) -> (Arc<Hub>, Arc<Session>) {
        (Arc::clone(self.link.hub()), Arc::clone(self.link.session()))
    }

    fn room(&self, name: &str) -> Result<Arc<Room>, HubError> {
        let own = self.link.own_room(name);
        own.or_else(|| self.link.hub().rooms.find(name)).ok_or(HubError::NoSuchRoom)
    }
}

/// A connection, seen from anywhere. Clones are the same peer; all of it works from any thread, and does
/// nothing once the connection is gone.
#[derive(Clone)]
pub struct Peer {
    pub(crate) conn: ConnId,
    pub(crate) client_id: Uuid,
    pub(crate) post: Post,
}

impl Peer {
    /// The random id of this client's session.
    pub fn client_id(&self) -> Uuid {
        self.client_id
    }

    /// Sends a message to this client. [`SendStatus::Dropped`] says that its worker's mailbox is full;
    /// whether the connection still exists is not known here.
    pub fn send<'m>(&self, message: impl Into<Message<'m>>) -> SendStatus {
        self.send_prepared(&PreparedFrame::new(message.into()))
    }

    /// Sends a message that is encoded already.
    pub fn send_prepared(&self, frame: &PreparedFrame) -> SendStatus {
        match self.post.send(self.conn, frame.clone()) {
            true => SendStatus::Sent,
            false => SendStatus::Dropped,
        }
    }

    /// Closes this connection.
    pub fn close(&self, reason: CloseReason) {
        let letter = Letter::Close { conn: self.conn, reason };
        self.post.tell(usize::from(self.conn.worker), letter);
    }
}

impl std::fmt::Debug for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Peer").field("client_id", &self.client_id).finish_non_exhaustive()
    }
}
