//! The handler of the admin listener: plain HTTP requests that are answered in bounded steps.

use std::{sync::Arc, time::Duration};

use crossbeam_channel::{Receiver, TryRecvError};
use uuid::Uuid;

use super::node::NodeSummary;
use crate::{
    config::{Config, Loaded, Reloaded, ShownSetting},
    error::{Error, ErrorKind},
    http::{
        head::Request,
        response::{JSON, Status, error_body},
    },
    hub::{
        Hub,
        announced::Announced,
        error::RoomError,
        history::Page,
        identities::ClosedSessions,
        names::RoomName,
        present::{MembersPage, Presence},
        publish::{Publication, Published, PublishedToRooms},
        publisher::Publisher,
        question::{Answer, Outcome, Question},
        survey::{ClearedHistory, RoomSummary, SessionsOf, SessionsPage},
    },
    identity::Revocation,
    metrics::Snapshot,
    store::Range,
    ws::close::CloseReason,
};

/// Answers the requests that come to the admin listener, but for `/health`, `/ready`, `/stats` and
/// `/metrics`. Mounted with [`Builder::admin`](crate::Builder::admin).
///
/// Runs on a worker, beside the connections of clients, so no call may block or take long: a
/// request with much to do answers [`AdminStep::Continue`] and goes on in a later turn.
pub trait AdminHandler: Send + Sync + 'static {
    /// Answers a request whose head has come, or says what must come first.
    fn on_request(&self, ctx: &mut AdminContext<'_>, request: &Request<'_>) -> AdminStep;

    /// Whether the request shows that its sender may read the figures of the server. Asked where a
    /// stranger might have sent it: from a page in a browser, or to a listener that is not on the
    /// loopback.
    fn may_read_figures(&self, request: &Request<'_>) -> bool;

    /// Told of new settings that the running server has taken, on the thread of the reload. Does
    /// nothing by default.
    fn on_reload(&self, config: &Config) {
        let _ = config;
    }
}

/// What follows on a request to the admin listener.
pub enum AdminStep {
    /// The answer.
    Answer(AdminAnswer),
    /// Reads the body of the request, which may have so many bytes, and then makes the call. A
    /// larger body is answered with 413.
    Body(usize, BodyCall),
    /// Makes the call after this time; with zero, in the next turn.
    Continue(Duration, LaterCall),
    /// Upgrades the request to a WebSocket, on which the client is shown the figures of the server
    /// once a second. If a call is given, it judges the client's first message, which must come
    /// within [`Config::handshake_timeout`]: a page in a browser can show a key nowhere else. There
    /// are at most [`Config::max_live_viewers`] who are shown the figures, and all are closed with
    /// 1012 when the settings change, because a key may be good no more.
    Live(Option<KeyCall>),
}

/// Judges the key that a client sends to be shown the figures.
pub type KeyCall = Box<dyn FnOnce(&str) -> Result<(), CloseReason> + Send>;

/// Takes the body of a request.
pub type BodyCall = Box<dyn FnOnce(&mut AdminContext<'_>, Vec<u8>) -> AdminStep + Send>;

/// Goes on with a request in a later turn.
pub type LaterCall = Box<dyn FnOnce(&mut AdminContext<'_>) -> AdminStep + Send>;

/// An answer to a request of the admin listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminAnswer {
    pub(crate) status: Status,
    pub(crate) content_type: &'static str,
    pub(crate) body: String,
    /// An additional header line; may be empty.
    pub(crate) header: String,
    pub(crate) retry_after_s: Option<u64>,
}

impl AdminAnswer {
    /// Answers with 200 and a body of this type, such as `application/json`.
    pub fn ok(content_type: &'static str, body: String) -> AdminAnswer {
        let (status, header) = (Status::Ok, String::new());
        AdminAnswer { status, content_type, body, header, retry_after_s: None }
    }

    /// Answers with an error in JSON: a stable word, and a sentence for people. If `retry_after_s`
    /// is given, the answer has a `Retry-After`.
    pub fn error(
        status: Status,
        error: &str,
        message: &str,
        retry_after_s: Option<u64>,
    ) -> AdminAnswer {
        let body = error_body(error, message, retry_after_s);
        AdminAnswer { status, content_type: JSON, body, header: String::new(), retry_after_s }
    }

    /// Adds a header line, without its line end. Replaces the one that was added before.
    pub fn header(self, name: &str, value: &str) -> AdminAnswer {
        let is_legal = |text: &str| !text.contains(|c: char| c.is_control() || !c.is_ascii());
        match is_legal(name) && is_legal(value) {
            true => AdminAnswer { header: format!("{name}: {value}"), ..self },
            false => self,
        }
    }
}

/// The server as a worker knows it.
pub(crate) trait ServerState {
    fn snapshot(&mut self) -> Arc<Snapshot>;
    fn ask_drain(&self);
    /// Begins to read the settings anew, unless that goes on already.
    fn begin_reload(&self) -> Option<Receiver<Result<Reloaded, Error>>>;
    /// The settings that hold now, and what was read last.
    fn settings(&self) -> (Arc<Config>, Option<Arc<Loaded>>);
}

/// A reload of the settings that goes on, on a thread of its own.
#[derive(Debug)]
pub struct PendingReload(Receiver<Result<Reloaded, Error>>);

impl PendingReload {
    /// Returns the outcome, or the reload itself if it goes on. Never blocks.
    ///
    /// # Errors
    /// In the outcome those of
    /// [`ServerHandle::reload_from_source`](crate::ServerHandle::reload_from_source).
    pub fn outcome(self) -> Result<Result<Reloaded, Error>, PendingReload> {
        match self.0.try_recv() {
            Ok(outcome) => Ok(outcome),
            Err(TryRecvError::Empty) => Err(self),
            Err(TryRecvError::Disconnected) => {
                Ok(Err(Error::new(ErrorKind::System, "the reload panicked")))
            }
        }
    }
}

/// The outcome of a call that other machines may have to answer.
#[derive(Debug)]
pub struct Pending<T>(Inner<T>);

#[derive(Debug)]
enum Inner<T> {
    Is(Result<T, RoomError>),
    /// It comes from the engine.
    Comes(Receiver<Outcome>, fn(Box<[u64]>, bool) -> T),
}

impl<T> Pending<T> {
    /// Returns the outcome, or the call itself if it goes on. Never blocks.
    ///
    /// # Errors
    /// The call goes on.
    pub fn outcome(self) -> Result<Result<T, RoomError>, Pending<T>> {
        let (answered, finish) = match self.0 {
            Inner::Is(result) => return Ok(result),
            Inner::Comes(answered, finish) => (answered, finish),
        };
        match answered.try_recv() {
            Ok(Ok(Answer::Numbered { seqs, repeated })) => Ok(Ok(finish(seqs, repeated))),
            Ok(Ok(Answer::Done)) => Ok(Ok(finish(Box::default(), false))),
            Ok(Err(error)) => Ok(Err(error)),
            Err(TryRecvError::Empty) => Err(Pending(Inner::Comes(answered, finish))),
            Err(TryRecvError::Disconnected) => Ok(Err(RoomError::EngineAway)),
        }
    }
}

/// What a call of an [`AdminHandler`] may do.
pub struct AdminContext<'a> {
    hub: &'a Arc<Hub>,
    server: &'a mut dyn ServerState,
    spent: usize,
    behind: bool,
}

/// What the calls of one turn may cost: about a millisecond.
const COST_PER_TURN_MAX: usize = 1024;

/// What a publish costs, in the unit in which a message from a client is 1.
const PUBLISH_COST: usize = 4;

/// How many entries of a list cost 1.
const ENTRIES_PER_COST: usize = 4;

/// What a room in a list costs, with its name of at most 128 bytes and its figures.
const ROOM_COST: usize = 4;

/// The most messages that are freed at a time.
const FREED_MAX: usize = 1024;

/// How many messages that are freed cost 1.
const FREED_PER_COST: usize = 16;

impl<'a> AdminContext<'a> {
    pub(crate) fn new(hub: &'a Arc<Hub>, server: &'a mut dyn ServerState) -> AdminContext<'a> {
        AdminContext { hub, server, spent: 0, behind: false }
    }

    /// Returns what the call has cost so far, and whether it found a mailbox behind.
    pub(crate) fn outcome(&self) -> (usize, bool) {
        (self.spent, self.behind)
    }

    /// Whether the call has cost so much that the rest should wait for the next turn.
    pub fn is_spent(&self) -> bool {
        self.spent >= COST_PER_TURN_MAX
    }

    /// Whether `publisher` should wait before it publishes more: many deliveries of its messages
    /// are not made yet, or a worker was found behind in this call.
    pub fn should_wait(&self, publisher: &Publisher) -> bool {
        self.behind || publisher.is_behind()
    }

    /// Publishes to one room or several in one atomic step. Rooms that do not exist are made. The
    /// client `without`, if any, does not get the message.
    ///
    /// # Errors
    /// [`RoomError::TooManyRooms`], [`RoomError::SameRoomTwice`], [`RoomError::RoomsApart`],
    /// [`RoomError::Overloaded`].
    pub fn publish(
        &mut self,
        publisher: &Publisher,
        rooms: &[RoomName],
        publication: Publication<'_>,
        without: Option<&Uuid>,
    ) -> Pending<PublishedToRooms> {
        self.spent += PUBLISH_COST * rooms.len().max(1);
        if self.hub.engine.is_some() {
            let without = without.copied();
            let question =
                self.hub.shared_publish_from_outside(publisher, rooms, &publication, without);
            return self.ask(question, |seqs, repeated| PublishedToRooms {
                seqs,
                behind: false,
                repeated,
            });
        }
        let result = self.hub.publish_from_outside(publisher, rooms, publication, without);
        self.behind |= result.as_ref().is_ok_and(|published| published.behind);
        Pending(Inner::Is(result))
    }

    /// Two of these rooms that no message can be for at once ([`RoomError::RoomsApart`]), if there
    /// are such.
    pub fn apart<'r>(&self, rooms: &'r [RoomName]) -> Option<(&'r RoomName, &'r RoomName)> {
        let (first, second) = self.hub.engine.as_ref()?.shards.apart(rooms)?;
        Some((&rooms[first], &rooms[second]))
    }

    /// Asks the engine for the numbers of a message.
    fn ask<T>(
        &self,
        question: Result<Question, RoomError>,
        finish: fn(Box<[u64]>, bool) -> T,
    ) -> Pending<T> {
        match question.and_then(|question| self.hub.begin_asking(question)) {
            Ok(answered) => Pending(Inner::Comes(answered, finish)),
            Err(error) => Pending(Inner::Is(Err(error))),
        }
    }

    /// Sends a message to one client, and keeps it while the client is away.
    ///
    /// # Errors
    /// [`RoomError::NoSuchClient`], [`RoomError::InboxFull`], [`RoomError::Overloaded`].
    pub fn direct(
        &mut self,
        publisher: &Publisher,
        to: &Uuid,
        publication: &Publication<'_>,
    ) -> Pending<Published> {
        self.spent += PUBLISH_COST;
        if self.hub.engine.is_some() {
            let question = Ok(self.hub.shared_direct_from_outside(publisher, to, publication));
            return self.ask(question, |seqs, repeated| Published {
                seq: seqs.first().copied().unwrap_or_default(),
                behind: false,
                repeated,
            });
        }
        let result = self.hub.direct_from_outside(publisher, to, publication);
        self.behind |= result.as_ref().is_ok_and(|published| published.behind);
        Pending(Inner::Is(result))
    }

    /// Lists rooms whose names begin with `prefix` and come behind `after`, in order, at most
    /// `limit` and at most 1,000.
    pub fn rooms(&mut self, prefix: &str, after: Option<&str>, limit: usize) -> Vec<RoomSummary> {
        let rooms = self.hub.list_rooms(prefix, after, limit);
        self.spent += 1 + rooms.len() * ROOM_COST;
        rooms
    }

    /// Brings a room to this server, if it is shared with others and there is one of this name, so
    /// that [`history`](AdminContext::history), [`presence`](AdminContext::presence) and the like
    /// find it.
    pub fn bring(&mut self, room: &str) -> Pending<()> {
        self.spent += 1;
        let name = RoomName::new(room).ok().filter(|name| self.hub.must_bring(name, None));
        let Some(name) = name else { return Pending(Inner::Is(Ok(()))) };
        let question =
            Question::Bring { rooms: vec![(name, None)], may_make: false, pattern: None };
        self.ask(Ok(question), |_, _| ())
    }

    /// Looks at one room; `None` if there is no room of this name.
    pub fn room(&mut self, name: &str) -> Option<RoomSummary> {
        self.spent += 1;
        self.hub.rooms.find(name).map(|room| room.summary())
    }

    /// Adds to what this turn has cost, in microseconds or so: what a handler does by itself, such
    /// as reading a body.
    pub fn spend(&mut self, cost: usize) {
        self.spent += cost;
    }

    /// Reads a page of a room's history.
    ///
    /// # Errors
    /// [`RoomError::NoSuchRoom`], or [`RoomError::ShortOfMemory`].
    pub fn history(&mut self, room: &str, range: Range, limit: usize) -> Result<Page, RoomError> {
        let found = self.hub.rooms.find(room).ok_or(RoomError::NoSuchRoom)?;
        let page = self.hub.history(&found, range, limit)?;
        self.spent += 1 + page.messages.len() / ENTRIES_PER_COST;
        Ok(page)
    }

    /// Takes the messages out of a room, whose numbers go on. Many of them take long to free, so
    /// [`AdminContext::free`] does it bit by bit.
    ///
    /// # Errors
    /// [`RoomError::NoSuchRoom`].
    pub fn clear_history(&mut self, room: &str) -> Result<ClearedHistory, RoomError> {
        self.spent += PUBLISH_COST;
        self.hub.announce(&Announced::ClearHistory { room: room.to_owned() });
        self.hub.clear_history(room)
    }

    /// Frees some messages that were taken out of a room. Returns whether there may be more.
    pub fn free(&mut self, cleared: &mut ClearedHistory) -> bool {
        let freed = cleared.free(FREED_MAX);
        self.spent += freed / FREED_PER_COST;
        freed == FREED_MAX
    }

    /// Lists the members of a room.
    ///
    /// # Errors
    /// [`RoomError::NoSuchRoom`].
    pub fn presence(&mut self, room: &str, page: MembersPage) -> Result<Presence, RoomError> {
        let presence = self.hub.members(room, page)?;
        self.spent += 1 + presence.members.len() / ENTRIES_PER_COST;
        Ok(presence)
    }

    /// Lists sessions behind `after`, in the order of their ids, at most `limit` and at most 1,000.
    ///
    /// # Errors
    /// [`RoomError::NoSuchRoom`].
    pub fn sessions(
        &mut self,
        of: SessionsOf<'_>,
        after: Option<Uuid>,
        limit: usize,
    ) -> Result<SessionsPage, RoomError> {
        let page = self.hub.list_sessions(of, after, limit)?;
        self.spent += 1 + page.sessions.len() / ENTRIES_PER_COST;
        Ok(page)
    }

    /// Closes a client's connection, or ends its session if it is away.
    ///
    /// # Errors
    /// [`RoomError::NoSuchClient`].
    pub fn close(&mut self, client_id: &Uuid, reason: CloseReason) -> Result<(), RoomError> {
        self.spent += PUBLISH_COST;
        match self.hub.close_client(client_id, reason.clone()) {
            // It may be at another node, which will see.
            Err(_) if self.hub.announce(&Announced::close(*client_id, &reason)) => Ok(()),
            closed => closed,
        }
    }

    /// Closes the connections of a user, and ends the user's sessions that are away: those of one
    /// page, behind `after`.
    pub fn close_user(
        &mut self,
        user: &str,
        reason: &CloseReason,
        after: Option<Uuid>,
    ) -> ClosedSessions {
        if after.is_none() {
            self.hub.announce(&Announced::close_user(user, reason));
        }
        let closed = self.hub.close_user(user, reason, after);
        self.close_page(closed)
    }

    /// Refuses the tokens of `revocation` from now on. [`AdminContext::close_revoked`] closes those
    /// who came with one of them.
    pub fn revoke(&mut self, revocation: &Revocation) {
        self.spent += PUBLISH_COST;
        self.hub.announce(&Announced::revoke(revocation));
        self.hub.revoke(revocation);
    }

    /// Closes with 4001 those who came with a revoked token, and ends their sessions: those of one
    /// page of sessions, behind `after`.
    pub fn close_revoked(
        &mut self,
        revocation: &Revocation,
        after: Option<Uuid>,
    ) -> ClosedSessions {
        let closed = self.hub.close_revoked(revocation, after);
        self.close_page(closed)
    }

    fn close_page(&mut self, page: ClosedSessions) -> ClosedSessions {
        self.spent += 1 + page.looked_at / ENTRIES_PER_COST + page.closed;
        page
    }

    /// Begins to drain, for at most `drain_timeout`. Later calls change nothing.
    pub fn drain(&mut self) {
        self.server.ask_drain();
    }

    /// Begins to read the settings anew, on a thread of its own. `None` if one does so already.
    pub fn reload(&mut self) -> Option<PendingReload> {
        self.spent += PUBLISH_COST;
        self.server.begin_reload().map(PendingReload)
    }

    /// Lists the settings that hold now, as they may be shown, and where each came from if the
    /// [`ConfigSource`](crate::config::ConfigSource) knows.
    pub fn settings(&mut self) -> Vec<ShownSetting> {
        let (config, loaded) = self.server.settings();
        let settings = config.shown(loaded.as_deref());
        self.spent += 1 + settings.len() / ENTRIES_PER_COST;
        settings
    }

    /// Lists the nodes that share rooms and sessions with this one
    /// ([`Config::engine`](crate::Config::engine)), as they were some seconds ago at most, and this
    /// one as it is.
    pub fn nodes(&mut self) -> Vec<NodeSummary> {
        let own = NodeSummary::new(self.hub.node, &self.server.snapshot());
        let others = self.hub.engine.as_ref().map_or_else(Vec::new, |engine| engine.nodes());
        self.spent += others.len() / ENTRIES_PER_COST;
        let mut nodes: Vec<NodeSummary> =
            others.iter().filter_map(|text| serde_json::from_str(text).ok()).collect();
        nodes.retain(|node| node.node != own.node);
        nodes.push(own);
        nodes.sort_by(|a, b| a.node.cmp(&b.node));
        nodes
    }

    /// Returns every gauge and counter, at most 100 ms old.
    pub fn stats(&mut self) -> Arc<Snapshot> {
        self.server.snapshot()
    }
}

impl std::fmt::Debug for AdminContext<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AdminContext").field("spent", &self.spent).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for AdminStep {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            AdminStep::Answer(answer) => f.debug_tuple("Answer").field(answer).finish(),
            AdminStep::Body(bytes, _) => f.debug_tuple("Body").field(bytes).finish(),
            AdminStep::Continue(after, _) => f.debug_tuple("Continue").field(after).finish(),
            AdminStep::Live(_) => f.write_str("Live"),
        }
    }
}
