//! Request bodies (RFC 9112, 6 and 7), read as they come and bounded in bytes.

/// The answer that asks a client for the body that it has announced (RFC 9110, 10.1.1).
pub(crate) const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// How long the body of a request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BodyLength {
    /// So many bytes; 0 if there is no body.
    Sized(u64),
    /// Until a chunk of no bytes, and the trailers behind it.
    Chunked,
}

/// The longest line with the size of a chunk, its extensions included, in bytes.
const SIZE_LINE_BYTES_MAX: usize = 256;

/// The longest trailers, in bytes. They are passed over.
const TRAILER_BYTES_MAX: usize = 4096;

/// Why a body cannot be read. Nothing that follows on the connection can be understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BadBody {
    /// It has more bytes than are read.
    TooLarge,
    Malformed(&'static str),
}

/// A body on its way. Reads the same whatever pieces it comes in.
#[derive(Debug)]
pub(crate) struct BodyReader {
    bytes: Vec<u8>,
    bytes_max: usize,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// So many bytes are due of a body whose length was said.
    Sized(usize),
    SizeLine,
    /// So many bytes are due of a chunk.
    Chunk(usize),
    ChunkEnd,
    /// So many bytes of trailers were passed over.
    Trailers(usize),
    Done,
}

impl BodyReader {
    /// Returns the bytes that it takes.
    pub(crate) fn held_bytes(&self) -> usize {
        self.bytes.capacity()
    }

    /// Begins a body that may have `bytes_max` bytes.
    pub(crate) fn new(length: BodyLength, bytes_max: usize) -> Result<BodyReader, BadBody> {
        let state = match length {
            BodyLength::Sized(0) => State::Done,
            BodyLength::Sized(bytes) => match usize::try_from(bytes) {
                Ok(bytes) if bytes <= bytes_max => State::Sized(bytes),
                _ => return Err(BadBody::TooLarge),
            },
            BodyLength::Chunked => State::SizeLine,
        };
        // Space is made for what has come, never for what a client says will come.
        Ok(BodyReader { bytes: Vec::new(), bytes_max, state })
    }

    /// Whether the whole body has come.
    pub(crate) fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Returns what has come of the body.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Takes the body, which has come.
    pub(crate) fn finish(self) -> Vec<u8> {
        self.bytes
    }

    /// Reads what there is of the body at the front of `input`. Returns how many bytes were used;
    /// the rest must be there again in the next call, with more behind it.
    pub(crate) fn read(&mut self, input: &[u8]) -> Result<usize, BadBody> {
        let mut used = 0;
        while let Some(step) = self.step(&input[used..])? {
            used += step;
        }
        Ok(used)
    }

    /// Reads one part. `None` if more input is needed, or none.
    fn step(&mut self, input: &[u8]) -> Result<Option<usize>, BadBody> {
        match self.state {
            State::Done => Ok(None),
            State::Sized(due) | State::Chunk(due) => {
                let taken = due.min(input.len());
                if taken == 0 {
                    return Ok(None);
                }
                self.bytes.extend_from_slice(&input[..taken]);
                self.state = match (self.state, due - taken) {
                    (State::Sized(_), 0) => State::Done,
                    (State::Sized(_), due) => State::Sized(due),
                    (_, 0) => State::ChunkEnd,
                    (_, due) => State::Chunk(due),
                };
                Ok(Some(taken))
            }
            State::SizeLine => self.size_line(input),
            State::ChunkEnd => match input {
                [b'\r', b'\n', ..] => {
                    self.state = State::SizeLine;
                    Ok(Some(2))
                }
                [] | [b'\r'] => Ok(None),
                _ => Err(BadBody::Malformed("a chunk must end in CR LF")),
            },
            State::Trailers(passed) => {
                let Some(line) = line(input, TRAILER_BYTES_MAX - passed)
                    .ok_or(BadBody::Malformed("the trailers are too large"))?
                else {
                    return Ok(None);
                };
                self.state = if line == 2 { State::Done } else { State::Trailers(passed + line) };
                Ok(Some(line))
            }
        }
    }

    fn size_line(&mut self, input: &[u8]) -> Result<Option<usize>, BadBody> {
        let bad = BadBody::Malformed("a chunk must begin with its size in hexadecimal digits");
        let Some(used) = line(input, SIZE_LINE_BYTES_MAX).ok_or(bad)? else { return Ok(None) };
        let size = match httparse::parse_chunk_size(&input[..used]) {
            // No digits are no size, though httparse takes them for 0; and a size that ends before
            // its line does would be read another way by somebody else.
            Ok(httparse::Status::Complete((end, size)))
                if end == used && input[0].is_ascii_hexdigit() =>
            {
                size
            }
            _ => return Err(bad),
        };
        let left = self.bytes_max - self.bytes.len();
        self.state = match usize::try_from(size) {
            Ok(0) => State::Trailers(0),
            Ok(size) if size <= left => State::Chunk(size),
            _ => return Err(BadBody::TooLarge),
        };
        Ok(Some(used))
    }
}

/// Returns the length of the line at the front of `input`, its CR LF included: `Some(None)` if it
/// is not all here, `None` if it has a bare line feed or more than `max` bytes.
fn line(input: &[u8], max: usize) -> Option<Option<usize>> {
    match input.iter().take(max).position(|byte| *byte == b'\n') {
        Some(at) if at > 0 && input[at - 1] == b'\r' => Some(Some(at + 1)),
        Some(_) => None,
        None if input.len() >= max => None,
        None => Some(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(length: BodyLength, max: usize, pieces: &[&[u8]]) -> Result<(Vec<u8>, usize), BadBody> {
        let mut reader = BodyReader::new(length, max)?;
        let mut waiting = Vec::new();
        for piece in pieces {
            waiting.extend_from_slice(piece);
            let used = reader.read(&waiting)?;
            waiting.drain(..used);
        }
        assert!(reader.is_done(), "{reader:?}");
        Ok((reader.finish(), waiting.len()))
    }

    #[test]
    fn a_body_ends_where_it_says_however_it_is_cut() {
        let chunked: &[u8] =
            b"5\r\nhello\r\n1;a=\"b\"\r\n \r\n0A\r\n0123456789\r\n0\r\nA: b\r\n\r\nGET";
        let sized: &[u8] = b"hello 0123456789GET";
        for (length, input, body) in [
            (BodyLength::Chunked, chunked, &b"hello 0123456789"[..]),
            (BodyLength::Sized(16), sized, b"hello 0123456789"),
            (BodyLength::Sized(0), b"GET", b""),
        ] {
            for cut in 0..=input.len() {
                let (one, other) = input.split_at(cut);
                assert_eq!(read(length, 16, &[one, other]), Ok((body.to_vec(), 3)), "cut at {cut}");
            }
            let bytes: Vec<&[u8]> = input.chunks(1).collect();
            assert_eq!(read(length, 16, &bytes), Ok((body.to_vec(), 3)));
        }
    }

    #[test]
    fn what_is_too_large_is_known_before_it_has_come() {
        let sized = |bytes| BodyReader::new(BodyLength::Sized(bytes), 16).err();
        assert_eq!((sized(16), sized(17)), (None, Some(BadBody::TooLarge)));
        assert_eq!(sized(u64::MAX), Some(BadBody::TooLarge));
        for input in [&b"11\r\n"[..], b"a\r\n0123456789\r\n7\r\n", b"FFFFFFFFFFFFFFFF\r\n"] {
            assert_eq!(read(BodyLength::Chunked, 16, &[input]), Err(BadBody::TooLarge));
        }
    }

    #[test]
    fn what_is_no_chunk_is_told() {
        let (many, long) = ("A: b\r\n".repeat(1000), "a".repeat(300));
        for input in [
            "\r\n",
            "x\r\n",
            "-1\r\n",
            "+1\r\n",
            "1\nx",
            "1\r\nxy\r\n",
            "1\r\nxab0\r\n\r\n",
            "1\r\nx\n0\r\n\r\n",
            "11111111111111111\r\n",
            &format!("1;{long}\r\n"),
            &format!("0\r\n{many}"),
            "0\r\nA: b\n\r\n",
        ] {
            let read = read(BodyLength::Chunked, 16, &[input.as_bytes()]);
            assert!(matches!(read, Err(BadBody::Malformed(_))), "{input:?}: {read:?}");
        }
    }
}
