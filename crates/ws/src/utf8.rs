//! Incremental UTF-8 validation of text that arrives in parts (RFC 6455, 8.1).

use std::str::from_utf8;

/// The longest incomplete character, in bytes.
const TAIL_BYTES_MAX: usize = 3;

/// The error for bytes that no later byte can make valid UTF-8.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct InvalidUtf8;

/// A text that is still being received.
#[derive(Debug, Default)]
pub(crate) struct PartialText {
    text: String,
    /// The bytes of an incomplete character at the end.
    tail: [u8; TAIL_BYTES_MAX + 1],
    tail_len: usize,
}

impl PartialText {
    /// Returns the number of bytes received.
    pub(crate) fn len(&self) -> usize {
        self.text.len() + self.tail_len
    }

    /// Returns the bytes that it takes.
    pub(crate) fn held_bytes(&self) -> usize {
        self.text.capacity()
    }

    /// Makes room for `bytes` more, and for as many again as there are.
    pub(crate) fn reserve(&mut self, bytes: usize) {
        self.text.reserve(bytes);
    }

    /// Makes room for `bytes` more, and for no others.
    pub(crate) fn reserve_exact(&mut self, bytes: usize) {
        self.text.reserve_exact(bytes);
    }

    /// Adds the next part.
    pub(crate) fn push(&mut self, mut part: &[u8]) -> Result<(), InvalidUtf8> {
        while self.tail_len > 0
            && let [first, rest @ ..] = part
        {
            part = rest;
            self.tail[self.tail_len] = *first;
            self.tail_len += 1;
            match from_utf8(&self.tail[..self.tail_len]) {
                Ok(character) => {
                    self.text.push_str(character);
                    self.tail_len = 0;
                }
                Err(error) if error.error_len().is_some() => return Err(InvalidUtf8),
                Err(_) => {}
            }
        }
        let Err(error) = from_utf8(part).map(|text| self.text.push_str(text)) else {
            return Ok(());
        };
        if error.error_len().is_some() {
            return Err(InvalidUtf8);
        }
        let (whole, tail) = part.split_at(error.valid_up_to());
        self.text.push_str(from_utf8(whole).map_err(|_| InvalidUtf8)?);
        self.tail[..tail.len()].copy_from_slice(tail);
        self.tail_len = tail.len();
        Ok(())
    }

    /// Returns the text, or an error if it ends within a character.
    pub(crate) fn finish(self) -> Result<String, InvalidUtf8> {
        if self.tail_len == 0 { Ok(self.text) } else { Err(InvalidUtf8) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pushed(bytes: &[u8], step: usize) -> Result<PartialText, InvalidUtf8> {
        let mut text = PartialText::default();
        bytes.chunks(step).try_for_each(|part| text.push(part))?;
        assert_eq!(text.len(), bytes.len());
        Ok(text)
    }

    #[test]
    fn text_is_the_same_however_it_is_cut() {
        let text = "a\u{e9}\u{3ba}\u{1f600}\u{ffff}z\u{1f600}".repeat(20);
        for step in [1, 2, 3, 4, 5, 7, 64, 1000] {
            assert_eq!(
                pushed(text.as_bytes(), step).and_then(PartialText::finish),
                Ok(text.clone())
            );
            let cut = pushed(&text.as_bytes()[..text.len() - 1], step).expect("it may go on");
            assert_eq!(cut.finish(), Err(InvalidUtf8), "half a character is no end");
        }
    }

    #[test]
    fn text_is_refused_at_the_first_byte_that_is_wrong() {
        // Each becomes invalid with its last byte.
        let wrong: [&[u8]; 7] = [
            b"ok\xff",
            b"ok\xc0",
            b"ok\xed\xa0",
            b"\xce\xba\xf4\x90",
            b"\xf5",
            b"\xe2\x82\xc3",
            b"\xce\x20",
        ];
        for bytes in wrong {
            for step in [1, 2, 3, 100] {
                assert_eq!(pushed(bytes, step).map(|_| ()), Err(InvalidUtf8), "{bytes:02x?}");
                let before = &bytes[..bytes.len() - 1];
                assert!(pushed(before, step).is_ok(), "{before:02x?} in steps of {step}");
            }
        }
    }
}
