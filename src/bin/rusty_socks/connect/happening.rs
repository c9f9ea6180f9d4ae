//! Everything that is waited for, in one queue, from a few threads that each wait for one thing.

use std::{
    io::{self, BufRead, Read},
    sync::mpsc::{self, Receiver, SyncSender},
    thread,
    time::{Duration, Instant},
};

use crossterm::event::{self, KeyEvent};
use rusty_socks::client::{Error, Event, Members, Received, RoomMessage};

/// Happenings that may wait to be shown. Whoever brings one more waits.
const QUEUE_MAX: usize = 1024;

/// The longest line that is read from a pipe, in bytes. A longer one is several.
const LINE_BYTES_MAX: u64 = 16 << 20;

/// What the one thread that shows things waits for.
#[derive(Debug)]
pub(super) enum Happening {
    Key(KeyEvent),
    Resized,
    /// A line from a terminal without a screen.
    Typed(String),
    /// All input is dealt with.
    InputEnd,
    /// A signal asks to end.
    Interrupt,
    Event(Event),
    Received(Received),
    /// The connection or session is over.
    Over(Result<(), Error>),
    /// In a room now, and it becomes the current one.
    Entered(String),
    Left(String),
    Page(String, Vec<RoomMessage>),
    Members(String, Members),
    Note(String),
    Problem(String),
}

/// Where happenings are put. Who finds nobody there any more may end.
pub(super) type Happenings = SyncSender<Happening>;

pub(super) fn queue() -> (Happenings, Receiver<Happening>) {
    let (sender, receiver) = mpsc::sync_channel(QUEUE_MAX);
    let on_signal = sender.clone();
    // A second handler in one process cannot be; without one a signal ends the program at once.
    let _ = ctrlc::set_handler(move || drop(on_signal.try_send(Happening::Interrupt)));
    (sender, receiver)
}

/// The next happening, or `None` when the time has come.
pub(super) fn next(queue: &Receiver<Happening>, until: Option<Instant>) -> Option<Happening> {
    let Some(until) = until else { return queue.recv().ok() };
    queue.recv_timeout(until.saturating_duration_since(Instant::now())).ok()
}

/// Keys of a terminal in raw mode.
pub(super) fn read_keys(happenings: Happenings) {
    thread::spawn(move || {
        loop {
            let happening = match event::read() {
                Ok(event::Event::Key(key)) => Happening::Key(key),
                Ok(event::Event::Resize(..)) => Happening::Resized,
                Ok(_) => continue,
                Err(_) => Happening::InputEnd,
            };
            let is_end = matches!(happening, Happening::InputEnd);
            if happenings.send(happening).is_err() || is_end {
                return;
            }
        }
    });
}

/// Lines of a stream, each given to `take` until it wants no more; then `end`.
pub(super) fn read_lines(
    mut take: impl FnMut(String) -> bool + Send + 'static,
    end: impl FnOnce() + Send + 'static,
) {
    thread::spawn(move || {
        let mut stdin = io::stdin().lock();
        let mut bytes = Vec::new();
        loop {
            bytes.clear();
            match (&mut stdin).take(LINE_BYTES_MAX).read_until(b'\n', &mut bytes) {
                Ok(0) | Err(_) => break,
                Ok(_) => {}
            }
            if bytes.ends_with(b"\n") {
                bytes.pop();
                if bytes.ends_with(b"\r") {
                    bytes.pop();
                }
            }
            if !take(String::from_utf8_lossy(&bytes).into_owned()) {
                break;
            }
        }
        end();
    });
}

/// When to leave once the input has ended.
#[derive(Debug)]
pub(super) struct Stay {
    wait: Option<Duration>,
    /// Messages that are still wanted.
    count: Option<u64>,
    pub(super) until: Option<Instant>,
    pub(super) has_ended: bool,
}

impl Stay {
    pub(super) fn new(wait: Option<Duration>, count: Option<u64>) -> Stay {
        Stay { wait, count, until: None, has_ended: false }
    }

    pub(super) fn input_ended(&mut self) {
        self.has_ended = true;
        self.until = self.wait.map(|wait| Instant::now() + wait);
    }

    pub(super) fn message_came(&mut self) {
        self.count = self.count.map(|count| count.saturating_sub(1));
    }

    /// Nothing more is wanted.
    pub(super) fn is_over(&self) -> bool {
        self.has_ended
            && match (self.count, self.until) {
                (Some(0), _) => true,
                (_, Some(until)) => Instant::now() >= until,
                (Some(_), None) => false,
                (None, None) => true,
            }
    }

    /// Fewer messages came than were wanted.
    pub(super) fn is_short(&self) -> bool {
        self.count.is_some_and(|count| count > 0)
    }
}
