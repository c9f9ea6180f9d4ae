//! What an open connection is told by the engine, and by other nodes.

use std::any::Any;

use super::{conn_io::ConnIo, open::Open, pauses::PauseReasons, worker_cx::WorkerCtx};
use crate::{
    handler::erased::CallName,
    hub::{conn_handle::Continuation, notice::Notice, question::Outcome},
};

impl Open {
    /// Goes on with what the handler asked the engine, and reads on if nothing more is asked.
    pub(super) fn on_engine_answered(
        &mut self,
        next: Box<dyn Any + Send>,
        outcome: Outcome,
        io: &mut ConnIo,
        cx: &mut WorkerCtx,
    ) {
        io.last_rx = cx.now;
        io.answers_due = io.answers_due.saturating_sub(1);
        let Ok(next) = next.downcast::<Continuation>() else { return };
        cx.progress.begin_call(CallName::Answer.number(), self.session.route);
        let (dispatch, mut conn) = self.parts(io, cx);
        dispatch.go_on(&mut conn, *next, outcome);
        cx.progress.end_call();
        if io.answers_due == 0 {
            io.pauses.clear(PauseReasons::ENGINE);
        }
        io.list_ready(&mut cx.work);
    }

    /// Tells the client, if its handler has words for it.
    pub(super) fn notify(&mut self, notice: &Notice<'_>, io: &mut ConnIo, cx: &mut WorkerCtx) {
        let (dispatch, mut conn) = self.parts(io, cx);
        if let Some(frame) = dispatch.notice(&mut conn, notice) {
            io.send_prepared(&frame, cx);
        }
    }
}
