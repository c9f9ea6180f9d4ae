//! Everything that is waited for, in one queue, from a few threads that each wait for one thing.

use std::{
    io::{self, BufRead, Read},
    sync::mpsc::{self, Receiver, SyncSender},
    thread,
    time::{Duration, Instant},
};

use crossterm::event::{self, KeyEvent};
use rusty_socks_client::{Error, Event, Members, Received, RoomMessage};

/// Happenings that may wait to be shown. Whoever brings one more waits.
const QUEUE_MAX: usize = 1024;

/// The longest line that is read from a pipe, in bytes without its end.
const LINE_BYTES_MAX: u64 = 16 << 20;

/// What the one thread that shows things waits for.
#[derive(Debug)]
pub(super) enum Happening {
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

/// A line of a stream, without its end (LF or CR LF), or why there is none.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Input {
    Text(String),
    /// What is not UTF-8, and the number of its line.
    Bytes(Vec<u8>, u64),
    /// What to tell of a line that cannot be passed on.
    Lost(String),
}

/// Lines of standard input, each given to `take` until it wants no more; then `end`.
pub(super) fn read_lines(
    mut take: impl FnMut(Input) -> bool + Send + 'static,
    end: impl FnOnce() + Send + 'static,
) {
    thread::spawn(move || {
        for input in (Lines { stream: io::stdin().lock(), number: 0 }) {
            if !take(input) {
                break;
            }
        }
        end();
    });
}

struct Lines<R> {
    stream: R,
    /// Of the last line that was read, from 1.
    number: u64,
}

impl<R: BufRead> Lines<R> {
    fn read(&mut self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        // A line may have the whole length, and its end behind it.
        (&mut self.stream).take(LINE_BYTES_MAX + 2).read_until(b'\n', &mut bytes)?;
        Ok(bytes)
    }
}

impl<R: BufRead> Iterator for Lines<R> {
    type Item = Input;

    /// What cannot be read ends the stream, and is told first.
    fn next(&mut self) -> Option<Input> {
        self.number = self.number.checked_add(1)?;
        let number = self.number;
        let unreadable = |error| Input::Lost(format!("cannot read standard input: {error}"));
        let mut bytes = match self.read() {
            Ok(bytes) if bytes.is_empty() => return None,
            Ok(bytes) => bytes,
            Err(error) => {
                self.number = u64::MAX;
                return Some(unreadable(error));
            }
        };
        let ends = bytes.ends_with(b"\n");
        if ends {
            bytes.pop();
            if bytes.ends_with(b"\r") {
                bytes.pop();
            }
        }
        if bytes.len() as u64 > LINE_BYTES_MAX {
            let mut is_whole = ends;
            while !is_whole {
                // The rest of it is not the next line.
                is_whole =
                    self.read().map_or(true, |rest| rest.is_empty() || rest.ends_with(b"\n"));
            }
            let max = LINE_BYTES_MAX >> 20;
            return Some(Input::Lost(format!(
                "line {number} is not sent: it is longer than {max} MiB"
            )));
        }
        Some(match String::from_utf8(bytes) {
            Ok(text) => Input::Text(text),
            Err(error) => Input::Bytes(error.into_bytes(), number),
        })
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(bytes: &[u8]) -> Vec<Input> {
        Lines { stream: bytes, number: 0 }.collect()
    }

    #[test]
    fn a_line_is_passed_on_as_it_is_or_not_at_all() {
        let text = |text: &str| Input::Text(text.into());
        assert_eq!(lines(b"a\r\n\n\rb"), [text("a"), text(""), text("\rb")]);
        assert_eq!(
            lines(b"a\nb\xffc\n\xc3\xa4"),
            [text("a"), Input::Bytes(b"b\xffc".to_vec(), 2), text("\u{e4}"),]
        );
        assert_eq!(lines(b""), []);
    }

    #[test]
    fn a_line_that_is_too_long_is_told_and_the_next_one_is_whole() {
        let max = LINE_BYTES_MAX as usize;
        for (over, is_sent) in [(0, true), (1, false), (2, false), (max, false), (2 * max, false)] {
            let mut bytes = vec![b'x'; max + over];
            bytes.extend(b"\nnext\n");
            let lines = lines(&bytes);
            assert_eq!(lines.len(), 2, "{over}");
            match &lines[0] {
                Input::Text(text) => assert!(is_sent && text.len() == max, "{over}"),
                Input::Lost(text) => {
                    assert!(!is_sent && text.starts_with("line 1 "), "{over}: {text}");
                }
                Input::Bytes(..) => panic!("it is UTF-8"),
            }
            assert_eq!(lines[1], Input::Text("next".into()));
        }
    }
}
