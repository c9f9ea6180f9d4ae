//! A post: what the client of an event stream has to say, on a connection of its own.
//!
//! Its body is a line of JSON that names the stream, then one text message a line. The messages go
//! to the stream's worker as the frames that a WebSocket client would have sent, and the answer
//! comes when they are handled: a client that posts one after the other is held back as one whose
//! socket is not read.

use std::{borrow::Cow, time::Duration};

use serde::Deserialize;
use tungstenite::protocol::frame::{
    FrameHeader,
    coding::{Control, OpCode},
};

use super::{
    asked::PostRequest,
    conn_io::ConnIo,
    costs::BYTES_PER_COST,
    head::{FIRST_REQUEST_MS, Head},
    timers::Millis,
    worker_cx::WorkerCtx,
};
use crate::{
    http::{
        body::{BadBody, BodyReader, CONTINUE},
        response::{Response, Status, error_body, write_head},
    },
    hub::posted::{PostName, PostOutcome, Posted, Poster},
    ws::encode::{Kind, encode_frame, message_header},
};

/// What a post may have beyond the largest message: its first line, and more messages.
const BYTES_BEYOND_MESSAGE: usize = 64 << 10;

/// The most messages of a post. The rest of a body is moved up with each part of them that is
/// handled, and a frame of a few bytes has a longer header.
const MESSAGES_MAX: usize = 4096;

/// Messages of a body that cost 1 to read, as [`WorkerCtx::spent`] counts it.
const MESSAGES_PER_COST: usize = 16;

/// How long a post waits until it is handled, before its client is told that it is not handled yet.
/// Most proxies wait for a minute.
const HANDLED_WITHIN: Duration = Duration::from_secs(20);

/// After this many seconds a post that could not be handled yet is to be sent again, and one for
/// whose wait there is no space. Clients that ask too soon only give up sooner.
const AGAIN_AFTER_S: u64 = 1;
const AGAIN_WITHOUT_SPACE_AFTER_S: u64 = 5;

/// A frame of a client has a mask (RFC 6455, 5.3). This one changes nothing.
const MASK: Option<[u8; 4]> = Some([0; 4]);

/// The longest reason of a Close, in bytes (RFC 6455, 5.5).
const REASON_BYTES_MAX: usize = 123;

/// A post on the connection on which it comes.
pub(super) struct Post {
    state: State,
    /// The connection ends with the answer.
    closes: bool,
    /// Header lines of the answer, for the page that posts.
    for_page: String,
    /// It counts among the pending heads, and more requests may follow.
    head: Box<Head>,
}

enum State {
    /// More of the body is due.
    Body(Result<BodyReader, BadBody>),
    /// It is with its stream.
    Sent(PostName),
}

/// What a step of a post comes to.
pub(super) enum PostStep {
    /// More input is needed, or none is looked at now.
    Wait,
    /// So many bytes were used.
    Used(usize),
    /// It is to be answered.
    Answer(PostAnswer),
}

/// The answer to a post.
#[derive(Debug)]
pub(super) struct PostAnswer {
    status: Status,
    /// The word for what is wrong; empty if nothing is.
    error: &'static str,
    message: Cow<'static, str>,
    /// After how many seconds it is to be sent again, if at all.
    again_after_s: Option<u64>,
}

impl PostAnswer {
    fn new(status: Status, error: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        PostAnswer { status, error, message: message.into(), again_after_s: None }
    }

    fn malformed(message: impl Into<Cow<'static, str>>) -> PostAnswer {
        PostAnswer::new(Status::BadRequest, "bad_request", message)
    }

    fn too_large(message: impl Into<Cow<'static, str>>) -> PostAnswer {
        PostAnswer::new(Status::ContentTooLarge, "too_large", message)
    }

    /// Has the client send it again.
    pub(super) fn busy() -> PostAnswer {
        let message = "the server is busy with what was posted: send this post again";
        let again_after_s = Some(AGAIN_AFTER_S);
        PostAnswer { again_after_s, ..PostAnswer::new(Status::Unavailable, "busy", message) }
    }

    /// Queues it. `for_page` are more header lines, each with its line end.
    fn write(&self, for_page: &str, closes: bool, io: &mut ConnIo, cx: &mut WorkerCtx) {
        let server = &cx.shared.metrics.server;
        server.posts_total.add_shared();
        let (status, mut out) = (self.status, Vec::with_capacity(512));
        if status == Status::NoContent {
            write_head(&mut out, status, cx.date(), for_page, closes);
        } else {
            server.posts_refused.add_shared();
            let again = self.again_after_s;
            let retry = again.map_or_else(String::new, |s| format!("Retry-After: {s}"));
            let body = error_body(self.error, &self.message, again);
            let headers = [for_page.trim_end(), &retry];
            let response =
                Response { status, body: &body, headers: &headers, closes, head_only: false };
            response.write(&mut out, cx.date());
        }
        io.queue_bytes(&mut out, cx);
    }

    /// Whether nothing that follows on its connection can be understood.
    fn is_last(&self) -> bool {
        matches!(self.status, Status::BadRequest | Status::ContentTooLarge)
    }
}

impl From<PostOutcome> for PostAnswer {
    fn from(outcome: PostOutcome) -> PostAnswer {
        match outcome {
            PostOutcome::Handled => PostAnswer::new(Status::NoContent, "", ""),
            PostOutcome::OutOfOrder => {
                let message = "posts are numbered from 1 up, and sent one after the other's answer";
                PostAnswer::new(Status::Conflict, "out_of_order", message)
            }
            PostOutcome::Unknown => {
                let message = "there is no such event stream, or no more: open another one";
                PostAnswer::new(Status::NotFound, "no_stream", message)
            }
            PostOutcome::Busy => {
                let again_after_s = Some(AGAIN_WITHOUT_SPACE_AFTER_S);
                PostAnswer { again_after_s, ..PostAnswer::busy() }
            }
        }
    }
}

impl From<BadBody> for PostAnswer {
    fn from(bad: BadBody) -> PostAnswer {
        match bad {
            BadBody::TooLarge => {
                PostAnswer::too_large("a post may have max_message_bytes and 64 KiB more")
            }
            BadBody::Malformed(message) => PostAnswer::malformed(message),
        }
    }
}

/// The first line of a post.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Opening {
    connection: String,
    post: u64,
    close: Option<Close>,
}

/// How the client closes its stream.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Close {
    code: u16,
    #[serde(default)]
    reason: String,
}

impl Post {
    /// Awaits the body of a post.
    pub(super) fn begin(
        request: PostRequest,
        head: Box<Head>,
        io: &mut ConnIo,
        cx: &mut WorkerCtx,
    ) -> Post {
        let PostRequest { length, expects_continue, closes, for_page } = request;
        io.set_deadline(cx.config().handshake_timeout, cx);
        let bytes_max = cx.config().max_message_bytes + BYTES_BEYOND_MESSAGE;
        let reader = BodyReader::new(length, bytes_max);
        if expects_continue && reader.is_ok() {
            io.queue_bytes(&mut CONTINUE.to_vec(), cx);
        }
        Post { state: State::Body(reader), closes, for_page, head }
    }

    /// Bytes of a body that is not whole.
    pub(super) fn partial_bytes(&self) -> usize {
        match &self.state {
            State::Body(Ok(reader)) => reader.held_bytes(),
            State::Body(Err(_)) | State::Sent(_) => 0,
        }
    }

    /// Whether it is with its stream, and nothing more is read.
    pub(super) fn is_sent(&self) -> bool {
        matches!(self.state, State::Sent(_))
    }

    /// Whether a drain waits for it: its stream answers soon, and its body may be on its way still.
    pub(super) fn is_expected(&self, io: &ConnIo, now: Millis) -> bool {
        self.is_sent() || now.saturating_sub(io.last_rx) < FIRST_REQUEST_MS
    }

    /// Whether the answer to the post of this name is awaited.
    pub(super) fn awaits(&self, name: PostName) -> bool {
        matches!(self.state, State::Sent(sent) if sent == name)
    }

    /// Reads what there is of the body at the front of `input`, and sends it on when it is whole.
    pub(super) fn read(&mut self, input: &[u8], io: &mut ConnIo, cx: &mut WorkerCtx) -> PostStep {
        let reader = match &mut self.state {
            State::Body(Ok(reader)) => reader,
            State::Body(Err(bad)) => return PostStep::Answer((*bad).into()),
            State::Sent(_) => return PostStep::Wait,
        };
        let used = match reader.read(input) {
            Ok(used) => used,
            Err(bad) => return PostStep::Answer(bad.into()),
        };
        cx.spent += used / BYTES_PER_COST;
        if !reader.is_done() {
            return if used == 0 { PostStep::Wait } else { PostStep::Used(used) };
        }
        match send(reader.bytes(), io, cx) {
            Ok(name) => self.state = State::Sent(name),
            Err(answer) => return PostStep::Answer(answer),
        }
        PostStep::Used(used)
    }

    /// The time within which it was due, or was to be handled, is over.
    pub(super) fn on_deadline(&self) -> PostAnswer {
        match self.state {
            State::Body(_) => {
                let message = "the body did not come in time";
                PostAnswer::new(Status::RequestTimeout, "timeout", message)
            }
            State::Sent(_) => PostAnswer::busy(),
        }
    }

    /// Answers it. Returns the connection's next request.
    pub(super) fn answer(
        self,
        answer: &PostAnswer,
        io: &mut ConnIo,
        cx: &mut WorkerCtx,
    ) -> Box<Head> {
        let Post { closes, for_page, mut head, state } = self;
        let is_cut = matches!(state, State::Body(_)) || answer.is_last();
        let closes = closes || is_cut;
        answer.write(&for_page, closes, io, cx);
        head.go_on(closes, io, cx);
        head
    }
}

/// Sends a whole post to its stream.
fn send(body: &[u8], io: &mut ConnIo, cx: &mut WorkerCtx) -> Result<PostName, PostAnswer> {
    let from = Poster { node: cx.shared.hub.node, conn: io.id };
    let posted = parse(body, from, cx)?;
    let name = posted.name();
    cx.shared.hub.hand_in(posted)?;
    io.set_deadline(HANDLED_WITHIN, cx);
    Ok(name)
}

/// Reads a body.
fn parse(body: &[u8], from: Poster, cx: &mut WorkerCtx) -> Result<Posted, PostAnswer> {
    let text = std::str::from_utf8(body);
    let text = text.map_err(|_| PostAnswer::malformed("the body of a post must be UTF-8"))?;
    let (first, rest) = text.split_once('\n').unwrap_or((text, ""));
    let opening: Opening = serde_json::from_str(first).map_err(|error| {
        let must = "the first line of a post must be {\"connection\":\"…\",\"post\":1}";
        PostAnswer::malformed(format!("{must}, with \"close\" to close: {error}"))
    })?;
    // What is no key is the key of no stream.
    let Ok(key) = opening.connection.parse() else { return Err(PostOutcome::Unknown.into()) };
    let mut frames = Vec::with_capacity(rest.len() + 64);
    let header = FrameHeader { mask: MASK, ..message_header(Kind::Text, false) };
    // An empty line is no message: a body may end with its last line break.
    let mut messages = 0;
    for line in rest.lines().filter(|line| !line.is_empty()) {
        messages += 1;
        if messages > MESSAGES_MAX {
            break;
        }
        encode_frame(&mut frames, &header, line.as_bytes());
    }
    cx.spent += messages / MESSAGES_PER_COST;
    if messages > MESSAGES_MAX {
        let message = format!("a post may have {MESSAGES_MAX} messages");
        return Err(PostAnswer::too_large(message));
    }
    if let Some(Close { code, reason }) = opening.close {
        let end = reason.floor_char_boundary(REASON_BYTES_MAX);
        let payload = [&code.to_be_bytes(), &reason.as_bytes()[..end]].concat();
        let opcode = OpCode::Control(Control::Close);
        let header = FrameHeader { opcode, mask: MASK, ..FrameHeader::default() };
        encode_frame(&mut frames, &header, &payload);
    }
    Ok(Posted { key, nth: opening.post, frames, from })
}
