//! A WebSocket of the admin listener on which a viewer is shown the figures of the server, once a
//! second.
//!
//! What a viewer costs does not grow with the server: each worker makes the figures once for all of
//! its viewers, and at most one showing waits for each of them.

use super::{
    bound::BoundToken,
    conn_io::ConnIo,
    timers::Millis,
    worker_cx::{LIVE_INTERVAL_MS, WorkerCtx},
};
use crate::{
    handler::KeyCall,
    metrics::Refused,
    ws::{
        close::CloseReason,
        decoder::{Event, ProtocolConfig},
        endpoint::Endpoint,
        frame::Message,
    },
};

/// The largest message that a viewer may send: a key of 256 bytes and what is around it.
const MESSAGE_BYTES_MAX: usize = 1024;

/// A viewer, after the handshake.
pub(super) struct Live {
    endpoint: Endpoint,
    stage: Stage,
    /// The generation of the settings by which its key is judged.
    generation: u64,
}

enum Stage {
    /// Its first message is due, which has the key.
    Key(KeyCall),
    /// It is shown the figures.
    Shown {
        /// Counts it among the viewers.
        _token: BoundToken,
    },
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
    /// Begins with a viewer. If `key` is given, it judges the first message.
    ///
    /// # Errors
    /// There are enough viewers.
    pub(super) fn begin(
        key: Option<KeyCall>,
        io: &mut ConnIo,
        cx: &mut WorkerCtx,
    ) -> Result<Live, (Live, CloseReason)> {
        let is_let_in = key.is_none();
        let stage = Stage::Key(key.unwrap_or_else(|| Box::new(|_| Ok(()))));
        let mut live = Live { endpoint: Endpoint::default(), stage, generation: cx.generation() };
        if is_let_in {
            if let Err(full) = live.let_in(io, cx) {
                return Err((live, full));
            }
        } else {
            io.set_deadline(cx.config().handshake_timeout, cx);
        }
        Ok(live)
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
        let unexpected =
            CloseReason::UNSUPPORTED.because("a viewer sends its key, and nothing else");
        let Some(text) = text else { return Err(unexpected) };
        let nobody: KeyCall = Box::new(|_| Err(CloseReason::UNAUTHORIZED));
        match std::mem::replace(&mut self.stage, Stage::Key(nobody)) {
            Stage::Key(judge) => {
                judge(text).inspect_err(|_| cx.shared.metrics.refuse(Refused::ApiUnauthorized))?;
                self.let_in(io, cx)
            }
            stage @ Stage::Shown { .. } => {
                self.stage = stage;
                Err(unexpected)
            }
        }
    }

    /// Shows the figures from now on, if there may be another viewer.
    fn let_in(&mut self, io: &mut ConnIo, cx: &mut WorkerCtx) -> Result<(), CloseReason> {
        // Viewers stay, and must not take the connections that other requests need.
        let is_scarce = cx.shared.admin_conns.is_scarce();
        let token = cx.shared.live_viewers.take().filter(|_| !is_scarce);
        let Some(token) = token else {
            cx.shared.metrics.refuse(Refused::LiveViewers);
            let full = "there are as many viewers as max_live_viewers or max_admin_conn allows";
            return Err(CloseReason::TRY_AGAIN.because(full));
        };
        self.stage = Stage::Shown { _token: token };
        self.show(io, cx);
        Ok(())
    }

    /// Shows the figures, unless those from before were not read yet, and comes again.
    fn show(&self, io: &mut ConnIo, cx: &mut WorkerCtx) {
        if io.has_unsent() && io.is_blocked() {
            cx.shared.metrics.server.live_skipped_total.add_shared();
        } else if let Some(frame) = cx.live_frame() {
            io.outbox.push_shared(&frame, &mut cx.scratch.spare);
            io.list_dirty(&mut cx.work);
        }
        let next = (cx.now / LIVE_INTERVAL_MS + 1) * LIVE_INTERVAL_MS;
        cx.timers.set(io.slot(), &mut io.deadline, next);
    }

    /// The deadline has passed: shows the figures again, or queues a Close. Returns whether the
    /// viewer stays.
    pub(super) fn on_deadline(&mut self, io: &mut ConnIo, cx: &mut WorkerCtx) -> bool {
        let timeout = cx.config().timeout.as_millis() as Millis;
        let reason = match &self.stage {
            Stage::Key(_) => {
                cx.shared.metrics.refuse(Refused::ApiUnauthorized);
                CloseReason::UNAUTHORIZED.because("the key did not come in time")
            }
            Stage::Shown { .. } if self.generation != cx.generation() => {
                // The key may be good no more.
                CloseReason::RESTART.because("the settings have changed: show the key again")
            }
            Stage::Shown { .. } if io.has_unsent() && cx.now >= io.last_tx + timeout => {
                CloseReason::SLOW_CONSUMER
            }
            Stage::Shown { .. } => {
                self.show(io, cx);
                return true;
            }
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
