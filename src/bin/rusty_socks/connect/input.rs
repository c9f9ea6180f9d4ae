//! Standard input, line by line.

use std::{
    io::{self, BufRead, Read},
    thread,
};

/// The longest line that is read from a pipe, in bytes without its end.
const LINE_BYTES_MAX: u64 = 16 << 20;

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
