//! The line that is being typed: keys go in, lines come out.

use crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use unicode_width::UnicodeWidthChar;

/// Lines that the arrow keys bring back.
const HISTORY_MAX: usize = 500;

/// Longer lines are not typed.
const CHARS_MAX: usize = 32 << 10;

/// What a key has led to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The line may look different.
    Changed,
    Line(String),
    Leave,
}

/// What is typed so far, and the lines before it.
#[derive(Debug, Default)]
pub(super) struct Line {
    chars: Vec<char>,
    at: usize,
    history: Vec<String>,
    /// Which line of the history is shown.
    shown: Option<usize>,
    /// What was typed before that.
    draft: Vec<char>,
}

impl Line {
    pub(super) fn press(&mut self, key: KeyEvent) -> Outcome {
        if key.kind == KeyEventKind::Release {
            return Outcome::Changed;
        }
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return self.press_control(key.code);
        }
        let len = self.chars.len();
        match key.code {
            KeyCode::Enter => return self.enter(),
            KeyCode::Char(c) if !c.is_control() && len < CHARS_MAX => {
                self.chars.insert(self.at, c);
                self.at += 1;
            }
            KeyCode::Backspace if self.at > 0 => {
                self.at -= 1;
                self.chars.remove(self.at);
            }
            KeyCode::Delete if self.at < len => drop(self.chars.remove(self.at)),
            KeyCode::Left => self.at = self.at.saturating_sub(1),
            KeyCode::Right => self.at = len.min(self.at + 1),
            KeyCode::Home => self.at = 0,
            KeyCode::End => self.at = len,
            KeyCode::Up => self.look_back(),
            KeyCode::Down => self.look_forward(),
            KeyCode::Esc => self.put(Vec::new()),
            _ => {}
        }
        Outcome::Changed
    }

    fn press_control(&mut self, code: KeyCode) -> Outcome {
        match code {
            // Like a shell: the first one forgets the line.
            KeyCode::Char('c') if self.chars.is_empty() => return Outcome::Leave,
            KeyCode::Char('c') => self.put(Vec::new()),
            KeyCode::Char('d') if self.chars.is_empty() => return Outcome::Leave,
            KeyCode::Char('d') if self.at < self.chars.len() => drop(self.chars.remove(self.at)),
            KeyCode::Char('j' | 'm') => return self.enter(),
            KeyCode::Char('a') => self.at = 0,
            KeyCode::Char('e') => self.at = self.chars.len(),
            KeyCode::Char('k') => self.chars.truncate(self.at),
            KeyCode::Char('u') => {
                self.chars.drain(..self.at);
                self.at = 0;
            }
            KeyCode::Char('w') => {
                let before = &self.chars[..self.at];
                let word_end = before.iter().rposition(|c| *c != ' ').map_or(0, |at| at + 1);
                let begin =
                    before[..word_end].iter().rposition(|c| *c == ' ').map_or(0, |at| at + 1);
                self.chars.drain(begin..self.at);
                self.at = begin;
            }
            _ => {}
        }
        Outcome::Changed
    }

    fn put(&mut self, chars: Vec<char>) {
        self.at = chars.len();
        self.chars = chars;
    }

    fn enter(&mut self) -> Outcome {
        let line: String = self.chars.iter().collect();
        self.put(Vec::new());
        self.shown = None;
        if !line.trim().is_empty() && self.history.last() != Some(&line) {
            self.history.push(line.clone());
            if self.history.len() > HISTORY_MAX {
                self.history.remove(0);
            }
        }
        Outcome::Line(line)
    }

    fn look_back(&mut self) {
        let next = match self.shown {
            None => self.history.len().checked_sub(1),
            Some(shown) => shown.checked_sub(1),
        };
        if let Some(next) = next {
            if self.shown.is_none() {
                self.draft = std::mem::take(&mut self.chars);
            }
            self.shown = Some(next);
            self.put(self.history[next].chars().collect());
        }
    }

    fn look_forward(&mut self) {
        let Some(shown) = self.shown else { return };
        match self.history.get(shown + 1) {
            Some(line) => {
                self.shown = Some(shown + 1);
                self.put(line.chars().collect());
            }
            None => {
                self.shown = None;
                let draft = std::mem::take(&mut self.draft);
                self.put(draft);
            }
        }
    }

    /// The part around the cursor that fits into `columns`, and the cursor's column in it.
    pub(super) fn view(&self, columns: usize) -> (String, usize) {
        let width = |c: &char| c.width().unwrap_or(0);
        let before: usize = self.chars[..self.at].iter().map(width).sum();
        // One place is for the cursor itself.
        let mut hidden = 0;
        let mut first = 0;
        while before - hidden >= columns.max(2) {
            hidden += width(&self.chars[first]);
            first += 1;
        }
        let mut room = columns.max(2) - 1;
        let fits = |c: &&char| {
            let fits = width(c) <= room;
            room = room.saturating_sub(width(c));
            fits
        };
        (self.chars[first..].iter().take_while(fits).collect(), before - hidden)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn press(line: &mut Line, keys: &[KeyCode]) -> Option<String> {
        let mut last = None;
        for key in keys {
            if let Outcome::Line(text) = line.press(KeyEvent::new(*key, KeyModifiers::NONE)) {
                last = Some(text);
            }
        }
        last
    }

    fn control(line: &mut Line, c: char) -> Outcome {
        line.press(KeyEvent::new(KeyCode::Char(c), KeyModifiers::CONTROL))
    }

    fn type_in(line: &mut Line, text: &str) {
        let keys: Vec<KeyCode> = text.chars().map(KeyCode::Char).collect();
        press(line, &keys);
    }

    #[test]
    fn keys_edit_and_enter_gives_the_line() {
        let mut line = Line::default();
        type_in(&mut line, "hällo wörld");
        press(&mut line, &[KeyCode::Left, KeyCode::Backspace, KeyCode::Home, KeyCode::Delete]);
        assert_eq!(line.view(80), ("ällo wörd".into(), 0));
        press(&mut line, &[KeyCode::End, KeyCode::Char('!')]);
        assert_eq!(press(&mut line, &[KeyCode::Enter]).as_deref(), Some("ällo wörd!"));
        assert_eq!(line.view(80), (String::new(), 0));
    }

    #[test]
    fn control_keys_are_those_of_a_shell() {
        let mut line = Line::default();
        type_in(&mut line, "one two  ");
        control(&mut line, 'w');
        assert_eq!(line.view(80).0, "one ");
        control(&mut line, 'c');
        assert_eq!(line.view(80).0, "");
        assert_eq!(control(&mut line, 'c'), Outcome::Leave);
        assert_eq!(control(&mut line, 'd'), Outcome::Leave);
        type_in(&mut line, "abc");
        control(&mut line, 'a');
        assert_eq!(control(&mut line, 'd'), Outcome::Changed);
        assert_eq!(line.view(80), ("bc".into(), 0));
    }

    #[test]
    fn arrows_bring_lines_back_and_keep_the_draft() {
        let mut line = Line::default();
        for text in ["first", "second"] {
            type_in(&mut line, text);
            press(&mut line, &[KeyCode::Enter]);
        }
        type_in(&mut line, "draft");
        press(&mut line, &[KeyCode::Up, KeyCode::Up, KeyCode::Up]);
        assert_eq!(line.view(80).0, "first");
        press(&mut line, &[KeyCode::Down, KeyCode::Down]);
        assert_eq!(line.view(80).0, "draft");
    }

    #[test]
    fn a_long_line_is_shown_around_the_cursor() {
        let mut line = Line::default();
        type_in(&mut line, "0123456789");
        assert_eq!(line.view(5), ("6789".into(), 4));
        press(&mut line, &[KeyCode::Home]);
        assert_eq!(line.view(5), ("0123".into(), 0));
        let mut wide = Line::default();
        type_in(&mut wide, "漢字漢字");
        assert_eq!(wide.view(5), ("漢字".into(), 4));
    }
}
