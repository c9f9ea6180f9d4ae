//! What is asked of the server, and the thread that asks and waits for answers.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, TryRecvError},
    },
    time::Duration,
};

use rusty_socks_client::{
    Error, ErrorKind, JoinOptions, Pages, PublishOptions, Receipt, Session, Ticket,
};

use serde_json::value::{RawValue, to_raw_value};

use super::{
    text,
    ui_event::{UiEvent, UiEvents},
};

/// Requests that may wait to be sent. A pipe is not read beyond it.
pub(super) const JOBS_MAX: usize = 1000;

/// Publishes that may be unanswered. Each is answered in time even where the server allows one a
/// second.
pub(super) const TICKETS_MAX: usize = 100;

/// How long one line may take to be answered, reconnects included.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(120);

/// What is asked of the server, in order.
pub(super) enum Job {
    Say {
        room: String,
        content: Box<RawValue>,
    },
    To {
        client: String,
        text: String,
    },
    Join(String),
    Leave(String),
    History(String, u64),
    Who(String),
    /// A line that cannot be sent, and why.
    Lost(String),
    /// All input has been read.
    End,
}

impl Job {
    /// Publishes a line: as a text, or as the JSON that it has to be then.
    pub(super) fn say(room: String, line: String, is_json: bool) -> Job {
        let content = match is_json {
            true => RawValue::from_string(line),
            false => to_raw_value(&line),
        };
        match content {
            Ok(content) => Job::Say { room, content },
            Err(error) => Job::Lost(format!("a line is not sent: it is no JSON: {error}")),
        }
    }
}

/// With `watches`, to be told who comes and goes too.
pub(super) fn join(
    session: &Session,
    room: &str,
    name: Option<&str>,
    watches: bool,
) -> Result<(), Error> {
    let mut options = JoinOptions::default();
    // A pattern is joined without either.
    if !room.ends_with(".*") {
        options.presence = watches;
        options.sender = name.map(str::to_owned);
    }
    session.join_with(room, options).map(drop)
}

/// The thread that asks, and waits for answers.
pub(super) struct Worker {
    pub(super) session: Session,
    pub(super) name: Option<String>,
    pub(super) events: UiEvents,
    /// Publishes under way, oldest first.
    pub(super) tickets: VecDeque<Ticket<Receipt>>,
    pub(super) has_failed: Arc<AtomicBool>,
}

impl Worker {
    pub(super) fn run(mut self, jobs: &Receiver<Job>) {
        loop {
            let job = match jobs.try_recv() {
                Ok(job) => job,
                Err(TryRecvError::Disconnected) => return,
                // Nothing else to do: see what became of the oldest.
                Err(TryRecvError::Empty) if !self.tickets.is_empty() => {
                    self.finish_oldest();
                    continue;
                }
                Err(TryRecvError::Empty) => match jobs.recv() {
                    Ok(job) => job,
                    Err(_) => return,
                },
            };
            if let Err(error) = self.carry_out(job) {
                self.failed(&error);
            }
        }
    }

    fn finish_oldest(&mut self) {
        if let Some(ticket) = self.tickets.pop_front()
            && let Err(error) = ticket.wait(ANSWER_TIMEOUT)
        {
            self.failed(&error);
        }
    }

    fn failed(&self, error: &Error) {
        self.has_failed.store(true, Ordering::SeqCst);
        // The end of the session is told once, by itself.
        if !self.session.is_over() {
            self.tell(UiEvent::Problem(error.to_string()));
        }
    }

    fn tell(&self, event: UiEvent) {
        drop(self.events.send(event));
    }

    fn options(&self) -> PublishOptions {
        let mut options = PublishOptions::default();
        options.sender.clone_from(&self.name);
        options
    }

    fn carry_out(&mut self, job: Job) -> Result<(), Error> {
        match job {
            Job::Say { room, content } => loop {
                match self.session.publish_later(&[&room], &content, self.options()) {
                    Err(error) if error.kind() == ErrorKind::Full => self.finish_oldest(),
                    outcome => {
                        self.tickets.push_back(outcome?);
                        if self.tickets.len() >= TICKETS_MAX {
                            self.finish_oldest();
                        }
                        break;
                    }
                }
            },
            Job::To { client, text } => {
                self.session.direct_with(&client, &text, self.options())?;
                self.tell(UiEvent::Note(format!("to {client}: {}", text::plain(&text))));
            }
            Job::Join(room) => {
                join(&self.session, &room, self.name.as_deref(), true)?;
                self.tell(UiEvent::Entered(room));
            }
            Job::Leave(room) => {
                self.session.leave(&room)?;
                self.tell(UiEvent::Left(room));
            }
            Job::History(room, count) => {
                let page = self.session.history(&room, Pages::Latest, Some(count))?;
                self.tell(UiEvent::Page(room, page.messages));
            }
            Job::Who(room) => {
                let members = self.session.presence(&room)?;
                self.tell(UiEvent::Members(room, members));
            }
            Job::Lost(text) => {
                self.has_failed.store(true, Ordering::SeqCst);
                self.tell(UiEvent::Problem(text));
            }
            Job::End => {
                while !self.tickets.is_empty() {
                    self.finish_oldest();
                }
                self.tell(UiEvent::InputEnd);
            }
        }
        Ok(())
    }
}
