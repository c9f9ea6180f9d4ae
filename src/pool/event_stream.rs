//! A client without a WebSocket: what it is sent goes out as server-sent events, and what it says
//! comes in posts on other connections.
//!
//! To everything above its stream it is a connection like any other. What is queued for it are
//! frames, of which events are made on their way out; what it posts becomes the frames that it
//! would have sent.

use std::io::{self, IoSlice, Write};

use crate::{
    http::event_stream::{EVENT_STREAM, EventEncoder},
    hub::{
        posted::{PostName, PostOutcome, Posted, Poster},
        stream_key::StreamKey,
    },
};

/// Frames that are put into events for one write. What the kernel does not take of them is kept.
const BYTES_PER_WRITE_MAX: usize = 64 << 10;

/// The most that may be asked to follow each write, in bytes.
const PADDING_BYTES_MAX: usize = 16 << 10;

/// What is decided about a post.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Judged {
    /// Its frames are to be handled; then it is answered.
    Taken,
    /// It is being handled already; whoever sent it last is answered when it is. Whoever waited
    /// for that before is answered now.
    Awaited(Option<(Poster, PostName)>),
    Answered(PostOutcome),
}

/// What makes events of frames, above the stream that carries them. Owned by its connection.
pub(super) struct EventStream {
    encoder: EventEncoder,
    /// What the stream below did not take, of which `unsent_sent` bytes went later.
    unsent: Vec<u8>,
    unsent_sent: usize,
    has_progress: bool,
    is_left_out_told: bool,
    /// What follows each write, so that a proxy which fills a buffer before it passes anything on
    /// passes the events on.
    padding: usize,
    key: StreamKey,
    /// The number of the last post that was taken.
    last_post: u64,
    /// Where a post waits until it is handled, and which one.
    poster: Option<(Poster, PostName)>,
    /// Not all of the last post is handled.
    is_handling: bool,
}

impl EventStream {
    /// A stream whose client posts under this name. `unsent` is the head of the answer to its
    /// request, behind what was not written of earlier answers; so many bytes of `padding` are to
    /// follow each write.
    pub(super) fn new(key: StreamKey, mut unsent: Vec<u8>, padding: usize) -> EventStream {
        let padding = padding.min(PADDING_BYTES_MAX);
        EventEncoder::begin(&key.to_string(), &mut unsent);
        append_padding(padding, &mut unsent);
        EventStream {
            encoder: EventEncoder::default(),
            unsent,
            unsent_sent: 0,
            has_progress: false,
            is_left_out_told: false,
            padding,
            key,
            last_post: 0,
            poster: None,
            is_handling: false,
        }
    }

    /// Decides about a post.
    pub(super) fn judge(&mut self, posted: &Posted) -> Judged {
        let is_last = posted.nth == self.last_post && self.last_post > 0;
        let is_next = posted.nth == self.last_post + 1 && !self.is_handling;
        if !self.key.has_secret_of(&posted.key) {
            Judged::Answered(PostOutcome::Unknown)
        } else if is_last && !self.is_handling {
            // It was sent again because its answer was lost.
            Judged::Answered(PostOutcome::Handled)
        } else if is_last {
            let before = self.poster.replace((posted.from, posted.name()));
            // A connection may have sent it twice.
            Judged::Awaited(before.filter(|(conn, _)| *conn != posted.from))
        } else if is_next {
            (self.last_post, self.is_handling) = (posted.nth, true);
            self.poster = Some((posted.from, posted.name()));
            Judged::Taken
        } else {
            Judged::Answered(PostOutcome::OutOfOrder)
        }
    }

    /// Takes out who waits for what was posted. It is still to be handled.
    pub(super) fn dismiss_poster(&mut self) -> Option<(Poster, PostName)> {
        self.poster.take()
    }

    /// Notes that all that was posted is handled. Returns who waits for that.
    pub(super) fn take_poster(&mut self) -> Option<(Poster, PostName)> {
        self.is_handling = false;
        self.poster.take()
    }

    /// Whether a binary message was left out, and that was not told yet.
    pub(super) fn take_left_out(&mut self) -> bool {
        self.encoder.has_left_out() && !std::mem::replace(&mut self.is_left_out_told, true)
    }

    /// Whether events wait for the stream below.
    pub(super) fn has_unsent(&self) -> bool {
        !self.unsent.is_empty()
    }

    /// Bytes that take the events that wait.
    pub(super) fn unsent_bytes(&self) -> usize {
        self.unsent.capacity()
    }

    /// Whether the stream below took something since the last call.
    pub(super) fn take_progress(&mut self) -> bool {
        std::mem::take(&mut self.has_progress)
    }

    /// Puts the front of `slices` into events, and gives `below` what it takes. Returns how many
    /// bytes of frames that were.
    // Out of the way of WebSockets.
    #[inline(never)]
    pub(super) fn write(
        &mut self,
        slices: &[IoSlice<'_>],
        below: &mut impl Write,
    ) -> io::Result<usize> {
        self.flush(below)?;
        let mut taken = 0;
        for slice in slices {
            let now = &slice[..slice.len().min(BYTES_PER_WRITE_MAX - taken)];
            self.encoder.encode(now, &mut self.unsent);
            taken += now.len();
        }
        if self.encoder.is_between() {
            append_padding(self.padding, &mut self.unsent);
        }
        match self.flush(below) {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
            // What is left goes with the next write.
            _ => Ok(taken),
        }
    }

    /// Gives `below` what waits. `WouldBlock` if something is left.
    pub(super) fn flush(&mut self, below: &mut impl Write) -> io::Result<()> {
        while self.unsent_sent < self.unsent.len() {
            match below.write(&self.unsent[self.unsent_sent..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(sent) => {
                    self.unsent_sent += sent;
                    self.has_progress = true;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        (self.unsent, self.unsent_sent) = (Vec::new(), 0);
        below.flush()
    }
}

/// Appends a comment, which clients pass over.
fn append_padding(bytes: usize, out: &mut Vec<u8>) {
    if bytes > 0 {
        out.push(b':');
        out.resize(out.len() + bytes, b' ');
        out.extend_from_slice(b"\n\n");
    }
}

/// Appends the head of the answer to `out`. `date` is the value of the `Date` header, `lines` are
/// more header lines, each with its line end.
pub(super) fn write_head(out: &mut Vec<u8>, date: &str, lines: &str) {
    // Its end is that of the connection, which HTTP/1.0 and every proxy understand (RFC 9112, 6.3).
    // `X-Accel-Buffering` has nginx pass each event on at once.
    let parts = [
        "HTTP/1.1 200 OK\r\nDate: ",
        date,
        "\r\nContent-Type: ",
        EVENT_STREAM,
        "\r\nCache-Control: no-store, no-transform\r\nX-Accel-Buffering: no\r\n",
        lines,
        "Connection: close\r\n\r\n",
    ];
    parts.iter().for_each(|part| out.extend_from_slice(part.as_bytes()));
}
