//! `POST /v1/batch`: many messages, one a line, each answered by a line.

use std::time::Duration;

use rusty_socks_protocol::ErrorCode;

use super::{
    access::Caller,
    answer::{RETRY_S, error, refusal, status_of},
    publish::{LOOK, PAUSE, PAUSES_MAX, Sent, behind, publish_one},
};
use crate::{AdminAnswer, AdminContext, AdminStep, Request, Status, chat::fault::Fault};

/// The content type of a batch and of its answer: a JSON value a line.
const NDJSON: &str = "application/x-ndjson";

/// The most lines of a batch.
const LINES_MAX: usize = 1000;

/// A batch that is being carried out, over several turns if it is long.
struct Batch {
    caller: Caller,
    message_bytes_max: usize,
    body: String,
    /// Where the next line begins.
    at: usize,
    answers: String,
    pauses_left: u32,
    /// The message of the last line, if its numbers are not there yet.
    sent: Option<Sent>,
}

/// Refuses what a client might take for a promise: each message of a batch has an id of its own.
pub(super) fn check_head(request: &Request<'_>) -> Result<(), AdminAnswer> {
    let message = "a batch has no Idempotency-Key; give each of its messages an id";
    match request.header("Idempotency-Key") {
        None => Ok(()),
        Some(_) => Err(error(Status::BadRequest, "bad_request", message)),
    }
}

/// Begins with the batch in `body`.
pub(super) fn begin(
    ctx: &mut AdminContext<'_>,
    caller: Caller,
    message_bytes_max: usize,
    body: Vec<u8>,
) -> AdminStep {
    let refuse = |fault: &Fault| AdminStep::Answer(refusal(fault));
    let Ok(body) = String::from_utf8(body) else {
        return refuse(&Fault::new(ErrorCode::InvalidJson, "the body must be JSON in UTF-8"));
    };
    if body.lines().count() > LINES_MAX {
        let message = format!("a batch may have at most {LINES_MAX} lines; nothing was published");
        return refuse(&Fault::new(ErrorCode::TooLarge, message));
    }
    if body.trim_ascii().is_empty() {
        return refuse(&Fault::bad_request("a batch must have at least one line"));
    }
    let answers = String::with_capacity(body.len().min(64 << 10));
    Batch { caller, message_bytes_max, body, at: 0, answers, pauses_left: PAUSES_MAX, sent: None }
        .go_on(ctx)
}

impl Batch {
    fn go_on(mut self, ctx: &mut AdminContext<'_>) -> AdminStep {
        let mut has_time = true;
        loop {
            if let Some(sent) = self.sent.take() {
                match sent.outcome() {
                    Ok(published) => self.note(published),
                    Err(sent) => {
                        self.sent = Some(sent);
                        return AdminStep::Continue(LOOK, Box::new(move |ctx| self.go_on(ctx)));
                    }
                }
            }
            if self.at >= self.body.len() {
                break;
            }
            if ctx.is_spent() {
                return AdminStep::Continue(Duration::ZERO, Box::new(move |ctx| self.go_on(ctx)));
            }
            if has_time && ctx.should_wait(&self.caller.publisher) {
                if let Some(left) = self.pauses_left.checked_sub(1) {
                    self.pauses_left = left;
                    return AdminStep::Continue(PAUSE, Box::new(move |ctx| self.go_on(ctx)));
                }
                has_time = false;
            }
            self.next_line(ctx, has_time);
        }
        AdminStep::Answer(AdminAnswer::ok(NDJSON, self.answers))
    }

    fn next_line(&mut self, ctx: &mut AdminContext<'_>, has_time: bool) {
        let rest = &self.body[self.at..];
        let end = rest.find('\n').unwrap_or(rest.len());
        let line = rest[..end].trim_end_matches('\r');
        let published = if line.len() > self.message_bytes_max {
            ctx.spend(1);
            let message = "a message must have at most max_message_bytes";
            Err(Fault::new(ErrorCode::TooLarge, message))
        } else if has_time {
            publish_one(ctx, &self.caller, line, None)
        } else {
            ctx.spend(1);
            Err(behind())
        };
        self.at += (end + 1).min(rest.len());
        match published {
            Ok(sent) => self.sent = Some(sent),
            Err(fault) => self.note(Err(fault)),
        }
    }

    fn note(&mut self, published: Result<String, Fault>) {
        match published {
            Ok(text) => self.answers.push_str(&text),
            Err(fault) => self.answers.push_str(&error_line(&fault)),
        }
        self.answers.push('\n');
    }
}

/// Returns the answer to a line that failed.
fn error_line(fault: &Fault) -> String {
    let mut line = serde_json::json!({ "error": fault.code.as_str(), "message": fault.message() });
    let status = status_of(&fault.code);
    if matches!(status, Status::TooManyRequests | Status::Unavailable) {
        line["retry_after_s"] = RETRY_S.into();
    }
    line.to_string()
}
