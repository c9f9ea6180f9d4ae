//! Everything that is waited for, in one queue, from a few threads that each wait for one thing.

use std::{
    sync::mpsc::{self, Receiver, SyncSender},
    thread,
    time::Instant,
};

use crossterm::event::{self, KeyEvent};
use rusty_socks_client::{Error, Event, Members, Received, RoomMessage};

use super::input::Input;

/// Events that may wait to be shown. Whoever brings one more waits.
const QUEUE_MAX: usize = 1024;

/// What the one thread that shows things waits for.
#[derive(Debug)]
pub(super) enum UiEvent {
    Key(KeyEvent),
    Resized,
    /// A line from a terminal without a screen.
    Typed(Input),
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

/// Where events are put. Who finds nobody there any more may end.
pub(super) type UiEvents = SyncSender<UiEvent>;

pub(super) fn queue() -> (UiEvents, Receiver<UiEvent>) {
    let (sender, receiver) = mpsc::sync_channel(QUEUE_MAX);
    let on_signal = sender.clone();
    // A second handler in one process cannot be; without one a signal ends the program at once.
    let _ = ctrlc::set_handler(move || drop(on_signal.try_send(UiEvent::Interrupt)));
    (sender, receiver)
}

/// The next event, or `None` when the time has come.
pub(super) fn next(queue: &Receiver<UiEvent>, until: Option<Instant>) -> Option<UiEvent> {
    let Some(until) = until else { return queue.recv().ok() };
    queue.recv_timeout(until.saturating_duration_since(Instant::now())).ok()
}

/// Keys of a terminal in raw mode.
pub(super) fn read_keys(events: UiEvents) {
    thread::spawn(move || {
        loop {
            let event = match event::read() {
                Ok(event::Event::Key(key)) => UiEvent::Key(key),
                Ok(event::Event::Resize(..)) => UiEvent::Resized,
                Ok(_) => continue,
                Err(_) => UiEvent::InputEnd,
            };
            let is_end = matches!(event, UiEvent::InputEnd);
            if events.send(event).is_err() || is_end {
                return;
            }
        }
    });
}

/// What a connection or session yields, as `event` tells it, and its end.
pub(super) fn forward<T>(
    events: UiEvents,
    next: impl Fn() -> Result<Option<T>, Error> + Send + 'static,
    event: impl Fn(T) -> UiEvent + Send + 'static,
) {
    thread::spawn(move || {
        loop {
            let (event, is_over) = match next() {
                Ok(Some(yielded)) => (event(yielded), false),
                Ok(None) => (UiEvent::Over(Ok(())), true),
                Err(error) => (UiEvent::Over(Err(error)), true),
            };
            if events.send(event).is_err() || is_over {
                return;
            }
        }
    });
}
