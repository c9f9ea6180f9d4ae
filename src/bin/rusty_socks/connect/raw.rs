//! Any WebSocket server: what is typed is sent word for word, and what comes is shown word for
//! word.

use std::{
    io::{self, IsTerminal},
    sync::mpsc::{self, Receiver, SyncSender},
    thread,
};

use rusty_socks_client::{Client, CloseReason, Received};

use crate::exit::{Exit, PREFIX};

use super::{
    args::{Binary, ConnectArgs},
    attempts,
    exit_condition::ExitCondition,
    failure::{Failure, exit_of},
    input::{self, Input},
    line::Outcome,
    screen::Screen,
    text,
    ui_event::{self, UiEvent, UiEvents},
};

/// Lines that may wait to be sent. A pipe is not read beyond it.
const LINES_MAX: usize = 1000;

pub(super) fn run(args: &ConnectArgs, url: &str) -> Result<Exit, Failure> {
    let is_pipe = !io::stdin().is_terminal();
    let mut builder = args.client();
    if let Some(token) = args.token() {
        let token = token().map_err(|why| Failure::Ended(why, Exit::BadConfig))?;
        builder = builder.header("Authorization", format!("Bearer {}", token.trim()));
    }
    if let Some(ping) = args.ping {
        builder = builder.ping_after(ping).silence_max(ping * 2);
    }
    let client = attempts::until_served(args, || builder.connect(url))?;
    let (events, queue) = ui_event::queue();
    let (lines, to_send) = mpsc::sync_channel(LINES_MAX);
    send_all(&client, to_send, events.clone());
    let receiving = client.clone();
    ui_event::forward(events.clone(), move || receiving.recv(), UiEvent::Received);
    let screen = Screen::open()?;
    if screen.is_terminal() {
        ui_event::read_keys(events);
    } else {
        let (ended, lines) = (lines.clone(), lines.clone());
        let take = move |input| lines.send(Some(input)).is_ok();
        input::read_lines(take, move || drop(ended.send(None)));
    }
    Raw { args, client, screen, lines, is_pipe, has_failed: false }.run(&queue)
}

/// Sends line by line, what is not UTF-8 as a binary message; `None` is the end of them.
fn send_all(client: &Client, lines: Receiver<Option<Input>>, events: UiEvents) {
    let client = client.clone();
    thread::spawn(move || {
        for line in lines {
            let sent = match line {
                Some(Input::Text(line)) => client.send(&line),
                Some(Input::Bytes(bytes, _)) => client.send(&bytes[..]),
                Some(Input::Lost(text)) => {
                    drop(events.send(UiEvent::Problem(text)));
                    continue;
                }
                None => {
                    drop(events.send(UiEvent::InputEnd));
                    continue;
                }
            };
            match sent {
                Ok(()) => {}
                Err(error) if error.is_timeout() => {
                    drop(events.send(UiEvent::Problem(format!("not sent: {error}"))));
                }
                // The end is told by itself.
                Err(_) => return,
            }
        }
    });
}

struct Raw<'a> {
    args: &'a ConnectArgs,
    client: Client,
    screen: Screen,
    /// Where typed lines go.
    lines: SyncSender<Option<Input>>,
    is_pipe: bool,
    /// A line was not sent.
    has_failed: bool,
}

impl Raw<'_> {
    fn run(mut self, queue: &Receiver<UiEvent>) -> Result<Exit, Failure> {
        let mut exit_condition = ExitCondition::new(self.args.wait, self.args.count);
        let mut is_closing = false;
        self.screen.draw()?;
        loop {
            if exit_condition.is_over() && !is_closing {
                // What comes before the server's Close is still shown.
                is_closing = true;
                exit_condition.until = None;
                let client = self.client.clone();
                thread::spawn(move || drop(client.close(CloseReason::NORMAL)));
            }
            let Some(event) = ui_event::next(queue, exit_condition.until) else { continue };
            match event {
                UiEvent::Key(key) => match self.screen.press(key)? {
                    Outcome::Changed => {}
                    Outcome::Leave => exit_condition = self.leave(),
                    Outcome::Line(line) => {
                        if self.lines.try_send(Some(Input::Text(line))).is_err() {
                            self.screen.tell("* too much is waiting; not sent");
                        }
                    }
                },
                UiEvent::InputEnd => exit_condition.input_ended(),
                UiEvent::Interrupt => exit_condition = self.leave(),
                UiEvent::Resized => self.screen.draw()?,
                UiEvent::Received(received) => {
                    self.show(&received)?;
                    exit_condition.message_came();
                }
                UiEvent::Problem(text) => {
                    self.has_failed = true;
                    self.screen.tell(&format!("{PREFIX}{}", text::plain(&text)));
                }
                UiEvent::Over(outcome) => {
                    let is_short = exit_condition.is_short() || self.has_failed;
                    return self.over(outcome, is_closing, is_short);
                }
                _ => {}
            }
        }
    }

    /// At once, whatever else was wanted.
    fn leave(&self) -> ExitCondition {
        let mut exit_condition = ExitCondition::new(None, None);
        exit_condition.input_ended();
        exit_condition
    }

    fn over(
        &mut self,
        outcome: Result<(), rusty_socks_client::Error>,
        is_ours: bool,
        is_short: bool,
    ) -> Result<Exit, Failure> {
        let done = if is_short { Exit::Failure } else { Exit::Clean };
        if let Err(error) = outcome {
            // All was said; that nobody says goodbye is no failure.
            if is_ours && error.is_timeout() {
                return Ok(done);
            }
            self.screen.tell(&format!("{PREFIX}{}", text::plain(&error.to_string())));
            return Ok(exit_of(&error));
        }
        let reason = self.client.close_reason().unwrap_or(CloseReason::NORMAL);
        let is_orderly = matches!(reason.code(), 1000 | 1005);
        if !is_ours || !is_orderly {
            let text = text::plain(&reason.to_string());
            self.screen.tell(&format!("{PREFIX}the server closed the connection: {text}"));
        }
        Ok(if is_orderly { done } else { Exit::Closed })
    }

    fn show(&mut self, received: &Received) -> io::Result<()> {
        match received {
            // On a terminal, word for word but for what the terminal would obey.
            Received::Text(text) if self.screen.is_terminal() => {
                let lines: Vec<String> = text.split('\n').map(text::plain).collect();
                self.screen.say(&lines.join("\n"))
            }
            Received::Text(text) => self.screen.say(text),
            Received::Binary(bytes) if self.args.binary == Binary::Raw && self.is_pipe => {
                self.screen.pass(bytes)
            }
            Received::Binary(bytes) => self.screen.say(&text::hex(bytes)),
        }
    }
}
