//! Where things are shown: a terminal with a line being typed at its foot, or plain streams.

use std::io::{self, IsTerminal, Stderr, Stdout, Write};

use crossterm::{
    cursor::MoveToColumn,
    event::KeyEvent,
    queue,
    style::Print,
    terminal::{self, Clear, ClearType},
};

use super::line::{Line, Outcome};

/// One thread owns it, so nothing is torn. Dropping it gives the terminal back as it was.
#[derive(Debug)]
pub(super) enum Screen {
    /// Messages go to standard output, notices to standard error.
    Streams { out: Stdout, err: Stderr },
    /// Both go above the line.
    Terminal { out: Stdout, line: Line, prompt: String },
}

impl Screen {
    /// With a line to type in where both ends are a terminal.
    pub(super) fn open() -> io::Result<Screen> {
        if !io::stdin().is_terminal() || !io::stdout().is_terminal() {
            return Ok(Screen::Streams { out: io::stdout(), err: io::stderr() });
        }
        terminal::enable_raw_mode()?;
        let mut screen =
            Screen::Terminal { out: io::stdout(), line: Line::default(), prompt: "> ".into() };
        screen.draw()?;
        Ok(screen)
    }

    pub(super) fn is_terminal(&self) -> bool {
        matches!(self, Screen::Terminal { .. })
    }

    /// What stands before the line.
    pub(super) fn prompt(&mut self, text: &str) -> io::Result<()> {
        if let Screen::Terminal { prompt, .. } = self {
            *prompt = format!("{text}> ");
        }
        self.draw()
    }

    /// Says a message, in one line or several.
    pub(super) fn say(&mut self, text: &str) -> io::Result<()> {
        match self {
            Screen::Streams { out, .. } => {
                writeln!(out, "{text}").and_then(|()| out.flush()).map_err(unwritten)
            }
            Screen::Terminal { .. } => self.above(text),
        }
    }

    /// Says what is no message. Where that cannot be written, nobody can be told.
    pub(super) fn tell(&mut self, text: &str) {
        let _ = match self {
            Screen::Streams { err, .. } => writeln!(err, "{text}"),
            Screen::Terminal { .. } => self.above(text),
        };
    }

    /// Puts bytes on standard output as they are.
    pub(super) fn pass(&mut self, bytes: &[u8]) -> io::Result<()> {
        let (Screen::Streams { out, .. } | Screen::Terminal { out, .. }) = self;
        out.write_all(bytes).and_then(|()| out.flush()).map_err(unwritten)
    }

    fn above(&mut self, text: &str) -> io::Result<()> {
        if let Screen::Terminal { out, .. } = self {
            queue!(out, MoveToColumn(0), Clear(ClearType::FromCursorDown))?;
            for part in text.split('\n') {
                queue!(out, Print(part), Print("\r\n"))?;
            }
        }
        self.draw()
    }

    /// A key; what it has led to is shown.
    pub(super) fn press(&mut self, key: KeyEvent) -> io::Result<Outcome> {
        let Screen::Terminal { line, .. } = self else { return Ok(Outcome::Changed) };
        let outcome = line.press(key);
        self.draw()?;
        Ok(outcome)
    }

    pub(super) fn draw(&mut self) -> io::Result<()> {
        let Screen::Terminal { out, line, prompt } = self else { return Ok(()) };
        let (columns, _) = terminal::size().unwrap_or((80, 24));
        let (text, cursor) = line.view(usize::from(columns).saturating_sub(prompt.chars().count()));
        let cursor = (prompt.chars().count() + cursor) as u16;
        queue!(
            out,
            MoveToColumn(0),
            Clear(ClearType::FromCursorDown),
            Print(prompt),
            Print(text),
            MoveToColumn(cursor)
        )?;
        out.flush()
    }
}

/// Names what could not be written, and stays of its kind.
fn unwritten(error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("cannot write to standard output: {error}"))
}

impl Drop for Screen {
    fn drop(&mut self) {
        if let Screen::Terminal { out, .. } = self {
            let _ = queue!(out, MoveToColumn(0), Clear(ClearType::FromCursorDown));
            let _ = out.flush();
            let _ = terminal::disable_raw_mode();
        }
    }
}
