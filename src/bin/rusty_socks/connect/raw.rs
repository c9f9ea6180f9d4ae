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
    Binary, ConnectArgs, Failure, attempts, exit_of,
    happening::{self, Happening, Happenings, Input, Stay},
    line::Outcome,
    screen::Screen,
    show,
};

/// Lines that may wait to be sent. A pipe is not read beyond it.
const LINES_MAX: usize = 1000;

pub(super) fn run(args: &ConnectArgs, url: &str) -> Result<Exit, Failure> {
    let is_pipe = !io::stdin().is_terminal();
    let mut builder = args.client();
    if let Some(ping) = args.ping {
        builder = builder.ping_after(ping).silence_max(ping * 2);
    }
    let client = attempts::until_served(args, || builder.connect(url))?;
    let (happenings, queue) = happening::queue();
    let (lines, to_send) = mpsc::sync_channel(LINES_MAX);
    send_all(&client, to_send, happenings.clone());
    watch(&client, happenings.clone());
    let screen = Screen::open()?;
    if screen.is_terminal() {
        happening::read_keys(happenings);
    } else {
        let ended = lines.clone();
        let take = move |input| lines.send(Some(input)).is_ok();
        happening::read_lines(take, move || drop(ended.send(None)));
        return Raw { args, client, screen, lines: None, is_pipe, has_failed: false }.run(&queue);
    }
    Raw { args, client, screen, lines: Some(lines), is_pipe, has_failed: false }.run(&queue)
}

/// Sends line by line, what is not UTF-8 as a binary message; `None` is the end of them.
fn send_all(client: &Client, lines: Receiver<Option<Input>>, happenings: Happenings) {
    let client = client.clone();
    thread::spawn(move || {
        for line in lines {
            let sent = match line {
                Some(Input::Text(line)) => client.send(&line),
                Some(Input::Bytes(bytes, _)) => client.send(&bytes[..]),
                Some(Input::Lost(text)) => {
                    drop(happenings.send(Happening::Problem(text)));
                    continue;
                }
                None => {
                    drop(happenings.send(Happening::InputEnd));
                    continue;
                }
            };
            match sent {
                Ok(()) => {}
                Err(error) if error.is_timeout() => {
                    drop(happenings.send(Happening::Problem(format!("not sent: {error}"))));
                }
                // The end is told by itself.
                Err(_) => return,
            }
        }
    });
}

fn watch(client: &Client, happenings: Happenings) {
    let client = client.clone();
    thread::spawn(move || {
        loop {
            let happening = match client.recv() {
                Ok(Some(received)) => Happening::Received(received),
                Ok(None) => Happening::Over(Ok(())),
                Err(error) => Happening::Over(Err(error)),
            };
            let is_over = matches!(happening, Happening::Over(_));
            if happenings.send(happening).is_err() || is_over {
                return;
            }
        }
    });
}

struct Raw<'a> {
    args: &'a ConnectArgs,
    client: Client,
    screen: Screen,
    /// Where typed lines go.
    lines: Option<SyncSender<Option<Input>>>,
    is_pipe: bool,
    /// A line was not sent.
    has_failed: bool,
}

impl Raw<'_> {
    fn run(mut self, queue: &Receiver<Happening>) -> Result<Exit, Failure> {
        let mut stay = Stay::new(self.args.wait, self.args.count);
        let mut is_closing = false;
        self.screen.draw()?;
        loop {
            if stay.is_over() && !is_closing {
                // What comes before the server's Close is still shown.
                is_closing = true;
                stay.until = None;
                let client = self.client.clone();
                thread::spawn(move || drop(client.close(CloseReason::NORMAL)));
            }
            let Some(happening) = happening::next(queue, stay.until) else { continue };
            match happening {
                Happening::Key(key) => match self.screen.press(key)? {
                    Outcome::Changed => {}
                    Outcome::Leave => stay = self.leave(),
                    Outcome::Line(line) => {
                        if let Some(lines) = &self.lines
                            && lines.try_send(Some(Input::Text(line))).is_err()
                        {
                            self.screen.tell("* too much is waiting; not sent");
                        }
                    }
                },
                Happening::InputEnd => stay.input_ended(),
                Happening::Interrupt => stay = self.leave(),
                Happening::Resized => self.screen.draw()?,
                Happening::Received(received) => {
                    self.show(&received)?;
                    stay.message_came();
                }
                Happening::Problem(text) => {
                    self.has_failed = true;
                    self.screen.tell(&format!("{PREFIX}{}", show::plain(&text)));
                }
                Happening::Over(outcome) => {
                    let is_short = stay.is_short() || self.has_failed;
                    return self.over(outcome, is_closing, is_short);
                }
                _ => {}
            }
        }
    }

    /// At once, whatever else was wanted.
    fn leave(&self) -> Stay {
        let mut stay = Stay::new(None, None);
        stay.input_ended();
        stay
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
            self.screen.tell(&format!("{PREFIX}{}", show::plain(&error.to_string())));
            return Ok(exit_of(&error));
        }
        let reason = self.client.close_reason().unwrap_or(CloseReason::NORMAL);
        let is_orderly = matches!(reason.code(), 1000 | 1005);
        if !is_ours || !is_orderly {
            let text = show::plain(&reason.to_string());
            self.screen.tell(&format!("{PREFIX}the server closed the connection: {text}"));
        }
        Ok(if is_orderly { done } else { Exit::Closed })
    }

    fn show(&mut self, received: &Received) -> io::Result<()> {
        match received {
            // On a terminal, word for word but for what the terminal would obey.
            Received::Text(text) if self.screen.is_terminal() => {
                let lines: Vec<String> = text.split('\n').map(show::plain).collect();
                self.screen.say(&lines.join("\n"))
            }
            Received::Text(text) => self.screen.say(text),
            Received::Binary(bytes) if self.args.binary == Binary::Raw && self.is_pipe => {
                self.screen.pass(bytes)
            }
            Received::Binary(bytes) => self.screen.say(&show::hex(bytes)),
        }
    }
}
