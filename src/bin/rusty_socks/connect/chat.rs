//! The chat protocol: rooms, names and history, over a session that reconnects.

use std::{
    collections::VecDeque,
    io::{self, IsTerminal},
    mem,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{self, Receiver, SyncSender, TrySendError},
    },
    thread,
};

use rusty_socks_client::{Error, Event, Member, Session};

use crate::exit::{Exit, PREFIX};

use super::{
    args::ConnectArgs,
    attempts,
    command::{Command, HELP},
    exit_condition::ExitCondition,
    failure::{Failure, exit_of},
    input::{self, Input},
    line::Outcome,
    renderer::{self, Renderer},
    screen::Screen,
    text,
    ui_event::{self, UiEvent},
    worker::{ANSWER_TIMEOUT, JOBS_MAX, Job, Worker, join},
};

/// Others whose ids are remembered, for `/to`.
const OTHERS_MAX: usize = 1000;

pub(super) fn run(args: &ConnectArgs, url: &str) -> Result<Exit, Failure> {
    let is_pipe = !io::stdin().is_terminal();
    let mut builder = Session::builder().client(args.client()).request_timeout(ANSWER_TIMEOUT);
    if let Some(token) = args.token() {
        builder = builder.token_provider(token);
    }
    if args.no_reconnect {
        builder = builder.without_reconnect();
    }
    if let Some(room) = &args.room {
        builder = builder.default_room_only(room);
    }
    let session = attempts::until_served(args, || builder.connect(url))?;
    // A pipe that does not listen needs to know of the connection alone.
    let listens = !is_pipe || args.listens();
    let room = match &args.room {
        Some(room) => {
            join(&session, room, args.name.as_deref(), listens)?;
            Some(room.clone())
        }
        None => session.default_room(),
    };
    let mut renderer = args.renderer();
    renderer.room = room;

    let (events, queue) = ui_event::queue();
    let (jobs, to_do) = mpsc::sync_channel(JOBS_MAX);
    let has_failed = Arc::new(AtomicBool::new(false));
    let worker = Worker {
        session: session.clone(),
        name: args.name.clone(),
        events: events.clone(),
        tickets: VecDeque::new(),
        has_failed: Arc::clone(&has_failed),
    };
    thread::spawn(move || worker.run(&to_do));
    let yielding = session.clone();
    ui_event::forward(events.clone(), move || yielding.recv(), UiEvent::Event);
    let screen = Screen::open()?;
    if screen.is_terminal() {
        ui_event::read_keys(events);
    } else if is_pipe {
        pipe(renderer.room.clone(), args.send_json, jobs.clone());
    } else {
        let ended = events.clone();
        let take = move |input| events.send(UiEvent::Typed(input)).is_ok();
        input::read_lines(take, move || drop(ended.send(UiEvent::InputEnd)));
    }
    let exit_condition = ExitCondition::new(args.wait, args.count);
    let others = VecDeque::new();
    let mut chat = Chat {
        session,
        renderer,
        screen,
        jobs,
        exit_condition,
        others,
        is_pipe,
        sends_json: args.send_json,
        listens,
        was_connected: false,
    };
    match chat.run(&queue)? {
        Exit::Clean if has_failed.load(Ordering::SeqCst) && is_pipe => Ok(Exit::Failure),
        exit => Ok(exit),
    }
}

/// Each line of a pipe is a message, whatever it begins with.
fn pipe(room: Option<String>, sends_json: bool, jobs: SyncSender<Job>) {
    let ended = jobs.clone();
    let take = move |input| match (room.clone(), input) {
        (Some(room), Input::Text(text)) => jobs.send(Job::say(room, text, sends_json)).is_ok(),
        (Some(_), Input::Bytes(_, number)) => {
            let text = format!(
                "line {number} is not sent: it is not UTF-8, and the chat protocol is text"
            );
            jobs.send(Job::Lost(text)).is_ok()
        }
        (Some(_), Input::Lost(text)) => jobs.send(Job::Lost(text)).is_ok(),
        (None, _) => {
            let text = "the server has no default room; say which with --room";
            drop(jobs.send(Job::Lost(text.into())));
            false
        }
    };
    input::read_lines(take, move || drop(ended.send(Job::End)));
}

/// The thread that shows, and takes keys.
struct Chat {
    session: Session,
    renderer: Renderer,
    screen: Screen,
    jobs: SyncSender<Job>,
    exit_condition: ExitCondition,
    /// Clients that were heard of, newest last.
    others: VecDeque<Member>,
    is_pipe: bool,
    /// Whether what is typed is JSON.
    sends_json: bool,
    /// Whether messages are shown, and what happens in rooms.
    listens: bool,
    was_connected: bool,
}

impl Chat {
    fn run(&mut self, queue: &Receiver<UiEvent>) -> Result<Exit, Failure> {
        self.show_room()?;
        let exit = loop {
            // Why the session is over comes last, and is told in any case.
            let is_over = self.session.is_over();
            if self.exit_condition.is_over() && !is_over {
                break match self.exit_condition.is_short() {
                    true => Exit::Failure,
                    false => Exit::Clean,
                };
            }
            let until = self.exit_condition.until.filter(|_| !is_over);
            let Some(event) = ui_event::next(queue, until) else { continue };
            match event {
                UiEvent::Key(key) => match self.screen.press(key)? {
                    Outcome::Changed => {}
                    Outcome::Leave => break Exit::Clean,
                    Outcome::Line(line) => {
                        if self.typed(&line)?.is_some() {
                            break Exit::Clean;
                        }
                    }
                },
                UiEvent::Typed(Input::Text(line)) => {
                    if self.typed(&line)?.is_some() {
                        self.exit_condition.input_ended();
                    }
                }
                UiEvent::Typed(Input::Bytes(..)) => {
                    self.problem("not sent: that is not UTF-8");
                }
                UiEvent::Typed(Input::Lost(text)) => self.problem(&text),
                UiEvent::InputEnd if self.is_pipe => self.exit_condition.input_ended(),
                // What was typed is still under way.
                UiEvent::InputEnd => {
                    self.is_pipe = true;
                    self.ask(Job::End);
                }
                UiEvent::Interrupt => break Exit::Clean,
                UiEvent::Resized => self.screen.draw()?,
                UiEvent::Event(event) => self.event(event)?,
                UiEvent::Over(Ok(())) => return Ok(Exit::Clean),
                UiEvent::Over(Err(error)) => return self.over(&error),
                UiEvent::Entered(room) => {
                    self.renderer.room = Some(room);
                    self.show_room()?;
                }
                UiEvent::Left(room) => {
                    self.note(&format!("left {}", text::plain(&room)));
                    if self.renderer.room.as_ref() == Some(&room) {
                        self.renderer.room = None;
                        self.show_room()?;
                    }
                }
                UiEvent::Page(room, messages) => {
                    let count = text::counted(messages.len() as u64, "message");
                    self.note(&format!("{count} of {}:", text::plain(&room)));
                    for message in messages {
                        self.screen.say(&self.renderer.message(&message))?;
                    }
                    self.note("that was the history");
                }
                UiEvent::Members(room, members) => {
                    self.note(&format!("{} in {}:", members.count, text::plain(&room)));
                    for Member { client_id, sender, .. } in &members.members {
                        self.note(&format!("  {}", renderer::name(sender, client_id)));
                        self.remember(client_id, sender.as_ref());
                    }
                }
                UiEvent::Note(text) => self.note(&text),
                UiEvent::Problem(text) => self.problem(&text),
                UiEvent::Received(_) => {}
            }
        };
        self.close(queue)?;
        Ok(exit)
    }

    /// Closes the session, and tells what has become of its connection until then: the thread that
    /// forwards events may bring those of a reconnect after the answers that came behind them.
    fn close(&mut self, queue: &Receiver<UiEvent>) -> Result<(), Failure> {
        self.listens = false;
        // What can fail is that nobody there answers a Close.
        if self.session.close().is_err() {
            return Ok(());
        }
        loop {
            match queue.recv() {
                Ok(UiEvent::Event(event)) => self.event(event)?,
                Ok(UiEvent::Over(_)) | Err(_) => return Ok(()),
                Ok(_) => {}
            }
        }
    }

    /// The session has ended by itself, which is an end in order only if the server says so.
    fn over(&mut self, error: &Error) -> Result<Exit, Failure> {
        let is_orderly = error.close_reason().is_some_and(|reason| reason.code() == 1000);
        if is_orderly {
            self.note("the server has closed the connection");
            return Ok(Exit::Clean);
        }
        self.problem(&error.to_string());
        Ok(exit_of(error))
    }

    fn event(&mut self, event: Event) -> Result<(), Failure> {
        let is_told = self.listens
            || matches!(
                event,
                Event::Connected { .. }
                    | Event::Disconnected { .. }
                    | Event::SessionLost { .. }
                    | Event::Closing { .. }
                    | Event::Excluded { .. }
            );
        if !is_told {
            return Ok(());
        }
        let text = match &event {
            Event::Message(message) => {
                self.remember(&message.client_id, message.sender.as_ref());
                self.renderer.message(message)
            }
            Event::Direct(message) => {
                self.remember(&message.client_id, message.sender.as_ref());
                self.renderer.private("direct", message)
            }
            Event::Broadcast(message) => self.renderer.private("broadcast", message),
            // A script that connects knows that it does.
            Event::Connected { .. }
                if !mem::replace(&mut self.was_connected, true) && !self.screen.is_terminal() =>
            {
                return Ok(());
            }
            _ => {
                if let Some(text) = renderer::notice(&event) {
                    self.note(&text);
                }
                return Ok(());
            }
        };
        self.screen.say(&text)?;
        self.exit_condition.message_came();
        Ok(())
    }

    /// Carries out a line; `Some` if it was the last.
    fn typed(&mut self, line: &str) -> Result<Option<()>, Failure> {
        match Command::parse(line) {
            Command::Nothing => {}
            Command::Quit => return Ok(Some(())),
            Command::Help => {
                for line in HELP.lines() {
                    self.note(line);
                }
            }
            Command::Wrong(text) => self.problem(&text),
            Command::Room(room) => {
                self.renderer.room = Some(room.to_owned());
                self.show_room()?;
            }
            Command::Join(room) => self.ask(Job::Join(room.to_owned())),
            Command::Leave(Some(room)) => self.ask(Job::Leave(room.to_owned())),
            Command::To(who, text) => match self.find(who) {
                Some(client) => self.ask(Job::To { client, text: text.to_owned() }),
                None => self.problem(&format!("who is {}? /who tells", text::plain(who))),
            },
            Command::Say(_) | Command::Leave(None) | Command::History(_) | Command::Who => {
                let Some(room) = self.renderer.room.clone() else {
                    self.problem("in which room? Say /join ROOM or /room ROOM");
                    return Ok(None);
                };
                match Command::parse(line) {
                    Command::Say(text) => {
                        if self.screen.is_terminal() {
                            let line = format!("me: {}", text::plain(text));
                            self.screen.say(&self.renderer.notice(&line))?;
                        }
                        self.ask(Job::say(room, text.to_owned(), self.sends_json));
                    }
                    Command::Leave(_) => self.ask(Job::Leave(room)),
                    Command::History(count) => self.ask(Job::History(room, count)),
                    _ => self.ask(Job::Who(room)),
                }
            }
        }
        Ok(None)
    }

    fn ask(&mut self, job: Job) {
        if let Err(TrySendError::Full(_)) = self.jobs.try_send(job) {
            self.problem("too much is unanswered; try again later");
        }
    }

    fn note(&mut self, text: &str) {
        let line = match self.screen.is_terminal() {
            true => self.renderer.notice(text),
            false => format!("{PREFIX}{text}"),
        };
        self.screen.tell(&line);
    }

    fn problem(&mut self, text: &str) {
        let text = text::plain(text);
        let line = match self.screen.is_terminal() {
            true => self.renderer.problem(&text),
            false => format!("{PREFIX}{text}"),
        };
        self.screen.tell(&line);
    }

    fn show_room(&mut self) -> Result<(), Failure> {
        let room = self.renderer.room.clone().unwrap_or_default();
        Ok(self.screen.prompt(&text::plain(&room))?)
    }

    fn remember(&mut self, client_id: &str, sender: Option<&String>) {
        self.others.retain(|other| other.client_id != client_id);
        let sender = sender.cloned();
        let member = Member { client_id: client_id.to_owned(), sender, user: None };
        self.others.push_back(member);
        if self.others.len() > OTHERS_MAX {
            self.others.pop_front();
        }
    }

    /// A client by its whole id, or by the name or the beginning of the id of somebody heard of.
    fn find(&self, who: &str) -> Option<String> {
        let is_whole = who.len() == 36 && who.chars().all(|c| c.is_ascii_hexdigit() || c == '-');
        if is_whole {
            return Some(who.to_owned());
        }
        let mut newest_first = self.others.iter().rev();
        let is_it = |other: &&Member| {
            other.sender.as_deref() == Some(who) || other.client_id.starts_with(who)
        };
        newest_first.find(is_it).map(|other| other.client_id.clone())
    }
}
