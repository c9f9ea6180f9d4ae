//! A WebSocket of the admin listener on which a viewer is shown the figures of the server, once a
//! second.
//!
//! The figures are made once for all viewers, and at most one showing waits for each of them.

use bytes::Bytes;
use serde::Serialize;

use super::{
    bound::BoundToken, conn_io::ConnIo, shared::Shared, timers::Millis, worker_cx::WorkerCtx,
};
use crate::{
    handler::KeyCall,
    metrics::{Readiness, Refused, Snapshot},
    ws::{
        close::CloseReason,
        decoder::{Event, ProtocolConfig},
        endpoint::Endpoint,
        frame::{Kind, Message, PreparedFrame},
    },
};

/// How often viewers are shown the figures.
const INTERVAL_MS: Millis = 1000;

/// The largest message that a viewer may send: a key of 256 bytes and what is around it.
const MESSAGE_BYTES_MAX: usize = 1024;

/// A viewer, after the handshake.
pub(super) struct Live {
    endpoint: Endpoint,
    /// Judges its first message, which is due.
    key: Option<KeyCall>,
    /// Counts it among the viewers, once it is shown the figures.
    token: Option<BoundToken>,
    /// The generation of the settings by which its key is judged.
    generation: u64,
}

/// What viewers are shown.
#[derive(Serialize)]
struct Showing<'a> {
    r#type: &'static str,
    stats: &'a Snapshot,
    ready: Readiness,
    /// When the first certificate in use ends, in seconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    certificates_end_s: Option<i64>,
}

/// What a step has come to.
pub(super) enum LiveStep {
    /// More input is needed.
    Wait,
    /// So many bytes were used.
    Used(usize),
    /// The Close is queued; nothing more is read.
    Over,
}

impl Live {
    /// Begins with a viewer. If `key` is given, it judges the first message. Returns `None` if the
    /// Close is queued instead, because there are enough viewers.
    pub(super) fn begin(key: Option<KeyCall>, io: &mut ConnIo, cx: &mut WorkerCtx) -> Option<Live> {
        let generation = cx.generation();
        let mut live = Live { endpoint: Endpoint::default(), key, token: None, generation };
        if live.key.is_some() {
            io.set_deadline(cx.config().handshake_timeout, cx);
        } else if let Err(full) = live.let_in(io, cx) {
            live.close(&full, io, cx);
            return None;
        }
        Some(live)
    }

    /// Bytes of a message that is not whole.
    pub(super) fn partial_bytes(&self) -> usize {
        self.endpoint.held_bytes()
    }

    /// Handles one message or control frame off the front of `input`.
    pub(super) fn read(
        &mut self,
        input: &mut [u8],
        io: &mut ConnIo,
        cx: &mut WorkerCtx,
    ) -> LiveStep {
        if input.is_empty() {
            return LiveStep::Wait;
        }
        if !io.outbox.fits(0, &cx.limits.outbox) {
            // A viewer that pings must read the pongs before there are more.
            io.has_backlog = true;
            io.list_dirty(&mut cx.work);
            return LiveStep::Wait;
        }
        let len = input.len();
        let mut rest = input;
        let role = cx.limits.protocol(0).role;
        let protocol = ProtocolConfig { role, message_bytes_max: MESSAGE_BYTES_MAX };
        let event = self.endpoint.next(&mut rest, &mut cx.scratch.control, &protocol, None);
        let ended = match event {
            Event::Message(received) => {
                let text = match received.message() {
                    Message::Text(text) => Some(text),
                    Message::Binary(_) => None,
                };
                self.on_message(text, io, cx).err()
            }
            Event::Ping(_) | Event::Pong(_) | Event::NeedMore => None,
            Event::Close(reason) | Event::Failed(reason) => Some(reason),
        };
        let used = len - rest.len();
        io.queue_control(cx);
        match ended {
            None => LiveStep::Used(used),
            Some(reason) => {
                self.close(&reason, io, cx);
                LiveStep::Over
            }
        }
    }

    fn on_message(
        &mut self,
        text: Option<&str>,
        io: &mut ConnIo,
        cx: &mut WorkerCtx,
    ) -> Result<(), CloseReason> {
        let (Some(text), Some(judge)) = (text, self.key.take()) else {
            return Err(
                CloseReason::UNSUPPORTED.because("a viewer sends its key, and nothing else")
            );
        };
        judge(text).inspect_err(|_| cx.shared.metrics.refuse(Refused::ApiUnauthorized))?;
        self.let_in(io, cx)
    }

    /// Shows the figures from now on, if there may be another viewer.
    fn let_in(&mut self, io: &mut ConnIo, cx: &mut WorkerCtx) -> Result<(), CloseReason> {
        // Viewers stay, and must not take the connections that other requests need.
        let is_scarce = cx.shared.admin_conns.is_scarce();
        self.token = cx.shared.live_viewers.take().filter(|_| !is_scarce);
        if self.token.is_none() {
            cx.shared.metrics.refuse(Refused::LiveViewers);
            let full = "there are as many viewers as max_live_viewers or max_admin_conn allows";
            return Err(CloseReason::TRY_AGAIN.because(full));
        }
        show(io, cx);
        Ok(())
    }

    /// The deadline has passed: shows the figures again, or queues a Close. Returns whether the
    /// viewer stays.
    pub(super) fn on_deadline(&mut self, io: &mut ConnIo, cx: &mut WorkerCtx) -> bool {
        let timeout = cx.config().timeout.as_millis() as Millis;
        let reason = if self.token.is_none() {
            cx.shared.metrics.refuse(Refused::ApiUnauthorized);
            CloseReason::UNAUTHORIZED.because("the key did not come in time")
        } else if self.generation != cx.generation() {
            // The key may be good no more.
            CloseReason::RESTART.because("the settings have changed: show the key again")
        } else if io.has_unsent() && cx.now >= io.last_tx + timeout {
            CloseReason::SLOW_CONSUMER
        } else {
            show(io, cx);
            return true;
        };
        self.close(&reason, io, cx);
        false
    }

    /// Queues the Close, unless the endpoint has sent one already.
    pub(super) fn close(&mut self, reason: &CloseReason, io: &mut ConnIo, cx: &mut WorkerCtx) {
        log::debug!("{}: a viewer is closed, {reason}", io.remote);
        let role = cx.limits.protocol(0).role;
        self.endpoint.close(reason, &mut cx.scratch.control, role);
        io.queue_control(cx);
    }
}

/// Shows the figures, unless those from before were not read yet, and comes again.
fn show(io: &mut ConnIo, cx: &mut WorkerCtx) {
    if io.has_unsent() && io.is_blocked() {
        cx.shared.metrics.server.live_skipped_total.add_shared();
    } else if let Some(frame) = frame(cx) {
        io.outbox.push_shared(&frame, &mut cx.scratch.spare);
        io.list_dirty(&mut cx.work);
    }
    // In whole seconds, so that viewers of one worker are shown the same figures.
    let next = (cx.now / INTERVAL_MS + 1) * INTERVAL_MS;
    cx.timers.set(io.slot(), &mut io.deadline, next);
}

/// A message with the figures, encoded once for all viewers.
fn frame(cx: &mut WorkerCtx) -> Option<Bytes> {
    let make = |shared: &Shared| {
        let (stats, ready) = (&shared.snapshot(), shared.readiness());
        let certificates_end_s = shared.certificates_end_s();
        let text = serde_json::to_string(&Showing {
            r#type: "figures",
            stats,
            ready,
            certificates_end_s,
        })?;
        Ok::<_, serde_json::Error>(PreparedFrame::from_parts(Kind::Text, &[text.as_bytes()]))
    };
    let made = cx.figures(|figures| &figures.live, make);
    let made = made.inspect_err(|error| log::error!("the figures cannot be shown: {error}"));
    made.ok().map(|frame| frame.bytes().clone())
}
