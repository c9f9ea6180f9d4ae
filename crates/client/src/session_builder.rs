//! What a session should be like, and how it begins.

use std::{convert::Infallible, error, iter, sync::Arc, thread, time::Duration};

use super::{
    conversation::{DefaultRoom, Rules},
    driver::{Channels, Driver, SessionPolicy},
    error::{Error, ErrorKind},
    queue::EventQueue,
    session::{Session, SessionEnds},
    session_shared::{SessionShared, Watch},
    socket::ClientBuilder,
    target::Target,
    token::TokenProvider,
};

/// Defaults of [`SessionBuilder`].
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
const REQUESTS_MAX: usize = 1000;
const EVENTS_MAX: usize = 10_000;
const SUBSCRIPTION_EVENTS_MAX: usize = 1024;
/// Fewer than the errors in a row for which the server closes, should it refuse them all.
const IN_FLIGHT_MAX: usize = 8;

/// As many as a server can be told to allow.
const ROOMS_MAX: usize = 100_000;

/// As many publishes of a session does a server know again when they are repeated.
const KNOWN_AGAIN_MAX: usize = 128;

/// What a session should be like. Made by [`Session::builder`].
#[derive(Debug, Clone)]
pub struct SessionBuilder {
    client: ClientBuilder,
    rules: Rules,
    request_timeout: Duration,
    requests_max: usize,
    events_max: usize,
    subscription_events_max: usize,
    is_patient: bool,
    takes_events: bool,
    reconnects: bool,
    tokens: Option<TokenProvider>,
    other_nodes: Vec<String>,
}

impl Default for SessionBuilder {
    fn default() -> SessionBuilder {
        SessionBuilder {
            client: ClientBuilder::default(),
            rules: Rules {
                default_room: DefaultRoom::Stay,
                in_flight_max: IN_FLIGHT_MAX,
                rooms_max: ROOMS_MAX,
                is_never_twice: false,
            },
            request_timeout: REQUEST_TIMEOUT,
            requests_max: REQUESTS_MAX,
            events_max: EVENTS_MAX,
            subscription_events_max: SUBSCRIPTION_EVENTS_MAX,
            is_patient: false,
            takes_events: true,
            reconnects: true,
            tokens: None,
            other_nodes: Vec::new(),
        }
    }
}

impl SessionBuilder {
    /// Settings of each connection: headers, timeouts, sizes. How long the server may be silent is
    /// what it says itself.
    pub fn client(mut self, client: ClientBuilder) -> Self {
        self.client = client;
        self
    }

    /// Leave the room that the server puts every newcomer in. Stays unless set to `false`.
    pub fn default_room(mut self, stay: bool) -> Self {
        self.rules.default_room = if stay { DefaultRoom::Stay } else { DefaultRoom::Leave };
        self
    }

    /// Leave the room that the server puts every newcomer in, unless it is this one. Where it is,
    /// its last messages come as they do to every newcomer.
    pub fn default_room_only(mut self, room: impl Into<String>) -> Self {
        self.rules.default_room = DefaultRoom::StayIf(room.into());
        self
    }

    /// Says who this client is, with one token (a JWT) for the life of the session. When the token
    /// has ended, so has the session: a [`token_provider`](Self::token_provider) gets new ones.
    ///
    /// A token that the server refuses ends the session with [`Refused`](ErrorKind::Refused) and
    /// the status 401, or with the close code 4001.
    pub fn token(self, token: impl Into<String>) -> Self {
        let token = token.into();
        self.token_provider(move || Ok::<_, Infallible>(token.clone()))
    }

    /// Says who this client is, with a token that `provide` gets: before each connection, and when
    /// the server says that the one before is about to end.
    ///
    /// Called on the session's own thread, where it may block; no frame is handled meanwhile. If it
    /// fails, the attempt to connect has failed, and is made again as after any other failure.
    pub fn token_provider<E>(
        mut self,
        provide: impl Fn() -> Result<String, E> + Send + Sync + 'static,
    ) -> Self
    where
        E: Into<Box<dyn error::Error + Send + Sync>>,
    {
        self.tokens = Some(TokenProvider::new(move || provide().map_err(Into::into)));
        self
    }

    /// How long calls that wait for an answer do so, reconnects included. 30 s.
    pub fn request_timeout(mut self, time: Duration) -> Self {
        self.request_timeout = time;
        self
    }

    /// Requests, publishes above all, that may be unanswered. Beyond it they are refused as
    /// [`Full`](ErrorKind::Full). 1000.
    pub fn requests_max(mut self, requests: usize) -> Self {
        self.requests_max = requests.max(1);
        self
    }

    /// Commands that are on the wire at once. 8, which is fewer than the errors in a row for which
    /// the server closes; more, up to 128, is faster over long distances. Publishes that the
    /// server puts off may be overtaken by those on the wire; with 1 they are not.
    pub fn in_flight_max(mut self, requests: usize) -> Self {
        self.rules.in_flight_max = requests.clamp(1, KNOWN_AGAIN_MAX);
        self
    }

    /// Rooms that the server may put this session in, those of patterns above all. One that names
    /// more ends it, as [`Misbehaved`](ErrorKind::Misbehaved). 100,000.
    pub fn rooms_max(mut self, rooms: usize) -> Self {
        self.rules.rooms_max = rooms.max(1);
        self
    }

    /// Events that may wait to be taken. Beyond it the connection is not read, answers included,
    /// until some are taken. 10,000.
    pub fn events_max(mut self, events: usize) -> Self {
        self.events_max = events.max(1);
        self
    }

    /// Events that may wait in one [`Subscription`](crate::Subscription). Beyond it the oldest go,
    /// and [`RoomEvent::Missed`](crate::RoomEvent::Missed) says so in their place; others are not
    /// held up. 1024.
    pub fn subscription_events_max(mut self, events: usize) -> Self {
        self.subscription_events_max = events.max(1);
        self
    }

    /// For a session that only asks and publishes, or is read by subscriptions alone: its own
    /// events are dropped as they come.
    pub fn without_events(mut self) -> Self {
        self.takes_events = false;
        self
    }

    /// Keep trying even if the very first attempt fails, in the background. Without it
    /// [`connect`](Self::connect) tells of that failure.
    pub fn patient(mut self) -> Self {
        self.is_patient = true;
        self
    }

    /// End with the first connection.
    pub fn without_reconnect(mut self) -> Self {
        self.reconnects = false;
        self
    }

    /// The URL of another server that has the same Redis as the one to connect to: a session that
    /// loses its connection resumes at the next of them. Servers without one Redis do not know each
    /// other's sessions.
    pub fn other_node(mut self, url: impl Into<String>) -> Self {
        self.other_nodes.push(url.into());
        self
    }

    /// Never publishes a message twice, nor sends a direct one twice. If the session cannot be
    /// resumed (its server was away for too long, or has ended), a message that was sent and not
    /// answered may have been published or not. Such a message is sent again in the next session
    /// unless this is set; with it, its answer is the error [`Unknown`](ErrorKind::Unknown).
    pub fn never_twice(mut self) -> Self {
        self.rules.is_never_twice = true;
        self
    }

    /// Connects, and returns once the server has said its welcome.
    pub fn connect(&self, url: &str) -> Result<Session, Error> {
        self.connect_watched(url, None)
    }

    /// Settings for a session of a pool: one that publishes and nothing else.
    pub(crate) fn for_pool(self, requests_max: usize) -> Self {
        let settings = self.default_room(false).without_events().patient().never_twice();
        SessionBuilder { requests_max, reconnects: true, other_nodes: Vec::new(), ..settings }
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.rules.in_flight_max
    }

    /// Connects, and has `watch` called with each change of health.
    pub(crate) fn connect_watched(
        &self,
        url: &str,
        watch: Option<Watch>,
    ) -> Result<Session, Error> {
        let urls = iter::once(url).chain(self.other_nodes.iter().map(String::as_str));
        let nodes = urls.map(Target::parse).collect::<Result<Vec<_>, _>>()?;
        nodes.iter().try_for_each(|node| self.client.check(node))?;
        // Each request in the channel has one of `requests_max` slots.
        let (requests_in, requests) = crossbeam_channel::unbounded();
        let events = Arc::new(EventQueue::new(self.events_max));
        let (greet, greeted) = crossbeam_channel::bounded(1);
        let (wake, woken) = crossbeam_channel::bounded(1);
        let shared = Arc::new(SessionShared::default());
        let driver = Driver::new(
            self.client.clone(),
            nodes,
            self.rules.clone(),
            Arc::clone(&shared),
            Channels { requests, woken, events: Arc::clone(&events), greet },
            SessionPolicy {
                is_patient: self.is_patient,
                takes_events: self.takes_events,
                reconnects: self.reconnects,
                tokens: self.tokens.clone(),
                watch,
            },
        );
        thread::Builder::new()
            .name("rusty-socks-session".into())
            .spawn(move || driver.run())
            .map_err(|error| Error::caused(ErrorKind::System, "cannot begin the session", error))?;
        let inner = SessionEnds {
            shared,
            requests: requests_in,
            wake,
            events,
            under_way: Arc::default(),
            requests_max: self.requests_max,
            request_timeout: self.request_timeout,
            subscription_events_max: self.subscription_events_max,
        };
        let session = Session { inner: Arc::new(inner) };
        if !self.is_patient {
            // Its thread tells how the first attempt went, or ends.
            greeted.recv().unwrap_or_else(|_| Err(session.over()))?;
        }
        Ok(session)
    }
}

impl Session {
    /// Connects to a `ws://` URL, with every setting at its default.
    pub fn connect(url: &str) -> Result<Session, Error> {
        Session::builder().connect(url)
    }

    /// Settings for a session.
    pub fn builder() -> SessionBuilder {
        SessionBuilder::default()
    }
}
