//! Posts: on the connections on which they come, and on the event streams that they are for.

use super::{Connection, Phase};
use crate::{
    hub::posted::{PostName, PostOutcome, Posted},
    pool::{
        asked::PostRequest,
        event_stream::{EventStream, Judged},
        post::{Post, PostAnswer},
        worker_cx::WorkerCtx,
    },
};

impl Connection {
    /// Awaits the body of a post.
    pub(super) fn begin_post(&mut self, request: PostRequest, cx: &mut WorkerCtx) {
        match std::mem::replace(&mut self.phase, Phase::Gone) {
            Phase::Head(head) => {
                let post = Post::begin(request, head, &mut self.io, cx);
                self.phase = Phase::Posting(Box::new(post));
            }
            other => self.phase = other,
        }
    }

    /// Answers the post that came here; another request may follow.
    pub(super) fn answer_post(&mut self, answer: &PostAnswer, cx: &mut WorkerCtx) {
        match std::mem::replace(&mut self.phase, Phase::Gone) {
            Phase::Posting(post) => {
                self.phase = Phase::Head(post.answer(answer, &mut self.io, cx));
            }
            other => self.phase = other,
        }
    }

    /// Answers the post that came here, outside of its turn to be read. What came behind it, which
    /// may be much, is looked at when that is due.
    pub(in crate::pool) fn answer_sent_post(&mut self, answer: &PostAnswer, cx: &mut WorkerCtx) {
        self.answer_post(answer, cx);
        self.io.has_backlog = !self.io.stash.is_empty();
        self.io.list_ready(&mut cx.work);
    }

    /// The stream has answered a post that came here, if that is still awaited.
    pub(in crate::pool) fn on_post_answered(
        &mut self,
        name: PostName,
        outcome: PostOutcome,
        cx: &mut WorkerCtx,
    ) {
        if matches!(&self.phase, Phase::Posting(post) if post.awaits(name)) {
            self.answer_sent_post(&outcome.into(), cx);
        }
    }

    /// Takes what the client of this event stream has posted.
    pub(in crate::pool) fn on_posted(&mut self, posted: Posted, cx: &mut WorkerCtx) {
        let judged = match (&self.phase, self.io.stream.events()) {
            (Phase::Open(_), Some(events)) => events.judge(&posted),
            _ => Judged::Answered(PostOutcome::Unknown),
        };
        match judged {
            Judged::Answered(outcome) => {
                cx.shared.hub.answer_post(posted.from, posted.name(), outcome);
            }
            Judged::Awaited(before) => {
                if let Some((poster, name)) = before {
                    cx.shared.hub.answer_post(poster, name, PostOutcome::OutOfOrder);
                }
                self.dismiss_poster(cx);
            }
            Judged::Taken => {
                // Any post is a sign of life.
                self.io.last_rx = cx.now;
                if let Some(access) = &mut self.io.access {
                    access.bytes_in += posted.frames.len() as u64;
                }
                self.io.stash = posted.frames;
                self.io.has_backlog = true;
                self.io.list_ready(&mut cx.work);
                self.io.count_input(0, cx);
                self.dismiss_poster(cx);
            }
        }
    }

    /// Has whoever waits for what was posted here come again, if this stream is not read at the
    /// moment and such waits leave little space for the requests of others.
    pub(super) fn dismiss_poster(&mut self, cx: &WorkerCtx) {
        if self.io.pauses.is_paused()
            && cx.shared.pending_heads.is_scarce()
            && let Some((poster, name)) =
                self.io.stream.events().and_then(EventStream::dismiss_poster)
        {
            cx.shared.hub.answer_post(poster, name, PostOutcome::Busy);
        }
    }

    /// Tells whoever waits for what was posted here, if this is an event stream, that not all of it
    /// will be handled.
    pub(super) fn drop_posted(&mut self, cx: &mut WorkerCtx) {
        if self.io.stream.is_of_events() {
            self.answer_poster(PostOutcome::Unknown, cx);
        }
    }

    /// Answers whoever waits for what was posted to this event stream.
    pub(super) fn answer_poster(&mut self, outcome: PostOutcome, cx: &mut WorkerCtx) {
        let poster = self.io.stream.events().and_then(EventStream::take_poster);
        if let Some((poster, name)) = poster {
            cx.shared.hub.answer_post(poster, name, outcome);
        }
    }
}
