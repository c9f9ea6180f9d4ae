//! Events for the operator's backend: gathered without waiting, and sent in batches by a thread of
//! their own.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread::{self, Thread},
    time::{Duration, Instant},
};

use chrono::{DateTime, SecondsFormat, Utc};
use crossbeam_channel::{Receiver, Sender, TryRecvError};
use serde::Serialize;
use uuid::Uuid;

use super::{
    backend::Backend,
    failure::{Failure, FailureLog},
};
use crate::{Config, Error, ServerEvent, chat::json};

/// Events of one batch.
const BATCH_MAX: usize = 100;

/// How often the thread looks for events, and so how long a batch waits for further ones. It does
/// not wait at the queue: events are noted under locks of sessions and rooms, where a wake would be
/// a system call.
const BATCH_WAIT: Duration = Duration::from_millis(100);

/// How long the backend has to take a batch.
const POST_TIMEOUT: Duration = Duration::from_secs(10);

/// The wait after the first failure; it doubles with each further one, up to a bound.
const RETRY_MIN: Duration = Duration::from_millis(500);
const RETRY_MAX: Duration = Duration::from_secs(30);

/// How long a batch is tried again. Then its events are dropped.
const BATCH_AGE_MAX: Duration = Duration::from_secs(300);

/// How long a single event that the backend cannot read is tried again: it may be the backend that
/// is at fault for a moment, with all events.
const REFUSED_AGE_MAX: Duration = Duration::from_secs(3);

/// How long a server that has stopped waits for its last events.
const FLUSH_MAX: Duration = Duration::from_secs(5);

/// Events that wait to be sent, and the thread that sends them. The thread ends when this is
/// dropped. Usable from any thread.
pub(in crate::chat) struct Events {
    /// Whether an event of each name is sent.
    wanted: [bool; NAMES.len()],
    queue: Sender<Note>,
    /// Sends them.
    thread: Thread,
    counts: Arc<EventCounts>,
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events").finish_non_exhaustive()
    }
}

#[derive(Default)]
struct EventCounts {
    sent: AtomicU64,
    /// Events that found the queue full, became too old, or were refused.
    dropped: AtomicU64,
    /// Batches that were not taken, each attempt.
    failed: AtomicU64,
}

enum Note {
    Event(Event),
    /// Send what came before without delay, and tell when that is done.
    Flush(Instant, Sender<()>),
}

/// An event, as it is sent.
#[derive(Serialize)]
struct Event {
    event: &'static str,
    #[serde(serialize_with = "as_rfc3339")]
    time: DateTime<Utc>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_id: Option<Uuid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    room: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sender: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    resumed: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

fn as_rfc3339<S: serde::Serializer>(
    time: &DateTime<Utc>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&time.to_rfc3339_opts(SecondsFormat::Millis, true))
}

/// The body of a request.
#[derive(Serialize)]
struct Batch<'a> {
    /// Names the batch: the same id when it is sent again.
    batch: Uuid,
    /// Events that were dropped since the batch before.
    dropped: u64,
    events: &'a [Event],
}

impl Events {
    /// Starts the thread, if `config` names a backend for events.
    pub(in crate::chat) fn new(config: &Config) -> Result<Option<Events>, Error> {
        if config.events_url.is_empty() || config.events.is_empty() {
            return Ok(None);
        }
        let backend = Backend::new(&config.events_url, &config.events_secret, 1)?;
        let (queue, notes) = crossbeam_channel::bounded(config.events_queue);
        let counts = Arc::new(EventCounts::default());
        let courier = Courier {
            backend,
            notes,
            counts: Arc::clone(&counts),
            log: FailureLog::default(),
            dropped_told: 0,
        };
        let thread = thread::Builder::new()
            .name("rusty-socks-events".to_owned())
            .spawn(move || courier.run())
            .map_err(|error| {
                Error::config(format!("cannot start the thread that sends events: {error}"))
            })?;
        let wanted = NAMES.map(|name| config.events.iter().any(|wanted| wanted == name));
        let thread = thread.thread().clone();
        Ok(Some(Events { wanted, queue, thread, counts }))
    }

    /// Notes an event. Never waits: an event that finds the queue full is dropped and counted.
    pub(in crate::chat) fn note(&self, event: &ServerEvent<'_>) {
        if !self.wanted[number(event)] {
            return;
        }
        if self.queue.is_full() || self.queue.try_send(Note::Event(Event::of(event))).is_err() {
            self.counts.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits until what was noted is sent, or given up, for at most `left` and [`FLUSH_MAX`].
    pub(in crate::chat) fn flush(&self, left: Duration) {
        let deadline = Instant::now() + left.min(FLUSH_MAX);
        let (done, is_done) = crossbeam_channel::bounded(1);
        // A full queue has room for the note once the thread has taken something from it.
        self.thread.unpark();
        if self.queue.send_deadline(Note::Flush(deadline, done), deadline).is_ok() {
            self.thread.unpark();
            let _ = is_done.recv_deadline(deadline);
        }
    }

    /// Returns the counters, by name.
    pub(in crate::chat) fn figures(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let value = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let EventCounts { sent, dropped, failed } = &*self.counts;
        [
            ("events_waiting", self.queue.len() as u64),
            ("events_sent", value(sent)),
            ("events_dropped", value(dropped)),
            ("events_failed_batches", value(failed)),
        ]
        .into_iter()
    }
}

/// The names of the events, by their [numbers](number).
const NAMES: [&str; 5] = ["connected", "disconnected", "joined", "left", "room_empty"];

fn number(event: &ServerEvent<'_>) -> usize {
    match event {
        ServerEvent::Connected { .. } => 0,
        ServerEvent::Disconnected { .. } => 1,
        ServerEvent::Joined { .. } => 2,
        ServerEvent::Left { .. } => 3,
        ServerEvent::RoomEmpty { .. } => 4,
    }
}

impl Event {
    fn of(event: &ServerEvent<'_>) -> Event {
        let mut noted = Event {
            event: NAMES[number(event)],
            time: Utc::now(),
            client_id: None,
            user: None,
            room: None,
            sender: None,
            resumed: None,
            code: None,
            reason: None,
        };
        match *event {
            ServerEvent::Connected { client_id, user, resumed } => {
                (noted.client_id, noted.resumed) = (Some(client_id), Some(resumed));
                noted.user = user.map(str::to_owned);
            }
            ServerEvent::Disconnected { client_id, user, reason } => {
                noted.client_id = Some(client_id);
                noted.user = user.map(str::to_owned);
                (noted.code, noted.reason) = (Some(reason.code()), Some(reason.reason().into()));
            }
            ServerEvent::Joined { room, client_id, name, user }
            | ServerEvent::Left { room, client_id, name, user } => {
                noted.client_id = Some(client_id);
                noted.user = user.map(str::to_owned);
                (noted.room, noted.sender) =
                    (Some(room.as_str().to_owned()), name.map(str::to_owned));
            }
            ServerEvent::RoomEmpty { room } => noted.room = Some(room.as_str().to_owned()),
        }
        noted
    }
}

/// What ends a batch before it is full.
enum Ended {
    /// A flush, which is to be told by when.
    Flush(Instant, Sender<()>),
    /// There will be no events any more.
    Stopped,
}

/// The thread that sends events, in the order in which they were noted.
struct Courier {
    backend: Backend,
    notes: Receiver<Note>,
    counts: Arc<EventCounts>,
    log: FailureLog,
    /// Dropped events that a batch has told of.
    dropped_told: u64,
}

impl Courier {
    fn run(mut self) {
        loop {
            let (events, ended) = self.gather();
            let give_up = match &ended {
                Some(Ended::Flush(deadline, _)) => *deadline,
                Some(Ended::Stopped) | None => Instant::now() + BATCH_AGE_MAX,
            };
            let is_owed = self.counts.dropped.load(Ordering::Relaxed) > self.dropped_told;
            if !events.is_empty() || ended.is_some() && is_owed {
                self.deliver(&events, give_up);
            }
            match ended {
                Some(Ended::Flush(_, done)) => drop(done.send(())),
                Some(Ended::Stopped) => return,
                // Where more waits than one batch takes, the next one follows at once.
                None if events.len() < BATCH_MAX => thread::park_timeout(BATCH_WAIT),
                None => {}
            }
        }
    }

    /// Takes what waits, up to a batch or a flush.
    fn gather(&self) -> (Vec<Event>, Option<Ended>) {
        let mut events = Vec::new();
        while events.len() < BATCH_MAX {
            match self.notes.try_recv() {
                Ok(Note::Event(event)) => events.push(event),
                Ok(Note::Flush(deadline, done)) => {
                    return (events, Some(Ended::Flush(deadline, done)));
                }
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => return (events, Some(Ended::Stopped)),
            }
        }
        (events, None)
    }

    /// Sends a batch, and again after a failure until it is taken or too old. A batch that the
    /// backend cannot read is sent in halves, so that only the event at fault is dropped.
    fn deliver(&mut self, events: &[Event], mut give_up: Instant) {
        let began = Instant::now();
        let dropped = self.counts.dropped.load(Ordering::Relaxed);
        let body = json::text(&Batch {
            batch: Uuid::new_v4(),
            dropped: dropped - self.dropped_told,
            events,
        });
        let mut wait = RETRY_MIN;
        loop {
            let left = give_up.saturating_duration_since(Instant::now());
            match self.backend.post(&body, POST_TIMEOUT.min(left)) {
                Ok(_) => {
                    self.dropped_told = dropped;
                    self.counts.sent.fetch_add(events.len() as u64, Ordering::Relaxed);
                    return;
                }
                Err(failure) => {
                    self.counts.failed.fetch_add(1, Ordering::Relaxed);
                    self.log.note("a batch of events was not taken", &failure);
                    if matches!(failure, Failure::Refused(_)) {
                        if let (first @ [_, ..], second @ [_, ..]) =
                            events.split_at(events.len() / 2)
                        {
                            thread::park_timeout(BATCH_WAIT);
                            self.deliver(first, give_up);
                            return self.deliver(second, give_up);
                        }
                        give_up = give_up.min(began + REFUSED_AGE_MAX);
                    }
                }
            }
            let left = give_up.saturating_duration_since(Instant::now());
            if left <= wait {
                return self.drop_all(events);
            }
            thread::park_timeout(wait);
            wait = (wait * 2).min(RETRY_MAX);
        }
    }

    fn drop_all(&self, events: &[Event]) {
        self.counts.dropped.fetch_add(events.len() as u64, Ordering::Relaxed);
    }
}
