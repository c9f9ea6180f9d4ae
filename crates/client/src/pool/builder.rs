//! What a pool should be like, and how it begins.

use std::{sync::Arc, thread, time::Duration};

use crate::{
    error::{Error, ErrorKind},
    session_builder::SessionBuilder,
};

use super::{
    bounds::Bounds,
    dispatcher::{Dispatcher, DispatcherSettings},
    handle::{Pool, PoolEnds},
    member::Member,
    note::Note,
    outcome::Outcome,
};

/// Defaults of [`PoolBuilder`].
const SESSIONS: usize = 4;
const UNANSWERED_MAX: usize = 10_000;
const UNANSWERED_BYTES_MAX: usize = 64 << 20;
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(30);
const MOVE_AFTER: Duration = Duration::from_secs(2);
const REPLACE_AFTER: Duration = Duration::from_secs(30);
/// A server that wants none of these clients is not asked more often.
const REPLACE_AFTER_MIN: Duration = Duration::from_millis(100);
/// One less than a server allows by default: the default room is left a moment after the beginning.
const ROOMS_MAX: usize = 99;

/// What a pool should be like. Made by [`Pool::builder`].
#[derive(Debug, Clone)]
pub struct PoolBuilder {
    servers: Vec<String>,
    servers_share_redis: bool,
    sessions: usize,
    session: SessionBuilder,
    unanswered_max: usize,
    unanswered_bytes_max: usize,
    publish_timeout: Duration,
    move_after: Duration,
    replace_after: Duration,
    rooms_max: usize,
    is_patient: bool,
}

impl Default for PoolBuilder {
    fn default() -> PoolBuilder {
        PoolBuilder {
            servers: Vec::new(),
            servers_share_redis: false,
            sessions: SESSIONS,
            session: SessionBuilder::default(),
            unanswered_max: UNANSWERED_MAX,
            unanswered_bytes_max: UNANSWERED_BYTES_MAX,
            publish_timeout: PUBLISH_TIMEOUT,
            move_after: MOVE_AFTER,
            replace_after: REPLACE_AFTER,
            rooms_max: ROOMS_MAX,
            is_patient: false,
        }
    }
}

impl PoolBuilder {
    /// The URL of a server. There is at least one.
    pub fn server(mut self, url: impl Into<String>) -> Self {
        self.servers.push(url.into());
        self
    }

    /// Whether all these servers share a Redis, and so are one to their clients: a session whose
    /// server is gone resumes at another, and repeats there what was not answered. `false` unless
    /// set: then each session stays with its server, and each server has rooms of its own, in whose
    /// members' stead the pool picks one.
    pub fn servers_share_redis(mut self, share: bool) -> Self {
        self.servers_share_redis = share;
        self
    }

    /// Sessions in all, spread evenly over the servers; at least one a server. A server may limit
    /// how much one client sends (1000 messages a second by default). 4.
    pub fn sessions(mut self, sessions: usize) -> Self {
        self.sessions = sessions.max(1);
        self
    }

    /// Settings of each session: its connection, its token, what it has on the wire at once. What
    /// concerns servers, events and the default room is the pool's.
    pub fn session(mut self, session: SessionBuilder) -> Self {
        self.session = session;
        self
    }

    /// Publishes that may be unanswered, and the bytes of their contents. Beyond either a publish
    /// waits, and fails as [`Full`](ErrorKind::Full) at its deadline; one always fits. 10,000 and
    /// 64 MiB.
    pub fn unanswered_max(mut self, publishes: usize, bytes: usize) -> Self {
        (self.unanswered_max, self.unanswered_bytes_max) = (publishes.max(1), bytes);
        self
    }

    /// How long a publish may take, waiting included. 30 s.
    pub fn publish_timeout(mut self, time: Duration) -> Self {
        self.publish_timeout = time;
        self
    }

    /// How long messages to a room wait for a session that has lost its connection with earlier
    /// ones to that room unanswered. Longer keeps their order over longer outages. 2 s.
    pub fn move_after(mut self, time: Duration) -> Self {
        self.move_after = time;
        self
    }

    /// How long after a session has ended for good, such as by a 401, another takes its place. At
    /// least 100 ms. 30 s.
    pub fn replace_after(mut self, time: Duration) -> Self {
        self.replace_after = time.max(REPLACE_AFTER_MIN);
        self
    }

    /// Rooms that each session is in at most. With more, the one not used for longest is left. It
    /// is no use to set it higher than the server's `max_rooms_per_conn`. 99.
    pub fn rooms_max(mut self, rooms: usize) -> Self {
        self.rooms_max = rooms.max(1);
        self
    }

    /// Begin even if no server can be reached, and keep trying. Without it
    /// [`connect`](Self::connect) tells of that failure.
    pub fn patient(mut self) -> Self {
        self.is_patient = true;
        self
    }

    /// Connects all sessions, and returns once one of them is connected. The others may take their
    /// time. Fails when the first attempt of every session has.
    pub fn connect(&self) -> Result<Pool, Error> {
        if self.servers.is_empty() {
            return Err(Error::new(ErrorKind::InvalidInput, "a pool has at least one server"));
        }
        let (notes, noted) = crossbeam_channel::unbounded();
        let given_max = 2 * self.session.in_flight();
        // Besides the publishes that it has: a join and a leave for each room.
        let requests_max = self.rooms_max.saturating_mul(4).saturating_add(given_max);
        let mut members: Vec<Member> = Vec::new();
        for index in 0..self.sessions.max(self.servers.len()) {
            let urls = self.urls_of(index);
            let mut builder = self.session.clone().for_pool(requests_max);
            for url in &urls[1..] {
                builder = builder.other_node(url);
            }
            let watch = Note::watch(&notes, index, 0);
            let session = builder.connect_watched(&urls[0], Some(watch))?;
            members.push(Member::new(builder, urls, session));
        }
        let bounds = Arc::new(Bounds::new(self.unanswered_max, self.unanswered_bytes_max));
        let outcome = Arc::new(Outcome::default());
        let (greet, greeted) = crossbeam_channel::bounded(1);
        let settings = DispatcherSettings {
            given_max,
            rooms_max: self.rooms_max,
            move_after: self.move_after,
            replace_after: self.replace_after,
        };
        let dispatcher = Dispatcher::new(
            settings,
            members,
            (notes.clone(), noted),
            Arc::clone(&bounds),
            Arc::clone(&outcome),
            greet,
        );
        thread::Builder::new()
            .name("rusty-socks-pool".into())
            .spawn(move || dispatcher.run())
            .map_err(|error| Error::caused(ErrorKind::System, "cannot begin the pool", error))?;
        let publish_timeout = self.publish_timeout;
        let pool = Pool { ends: Arc::new(PoolEnds { notes, bounds, outcome, publish_timeout }) };
        if !self.is_patient {
            let ended = |_| Err(Error::new(ErrorKind::Closed, "the pool is over"));
            greeted.recv().unwrap_or_else(ended)?;
        }
        Ok(pool)
    }

    /// Where a session may connect to, first where it begins.
    fn urls_of(&self, index: usize) -> Vec<String> {
        let mut urls = self.servers.clone();
        urls.rotate_left(index % self.servers.len());
        if !self.servers_share_redis {
            urls.truncate(1);
        }
        urls
    }
}

impl Pool {
    /// Settings for a pool.
    pub fn builder() -> PoolBuilder {
        PoolBuilder::default()
    }
}
