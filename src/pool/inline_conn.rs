//! A connection as its handler reaches it on the worker: directly, without a letter.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use super::{
    conn_io::ConnIo, pauses::PauseReasons, tasks::TaskJob, timers::Millis, worker_cx::WorkerCtx,
};
use crate::{
    hub::{
        Hub,
        conn_handle::{ConnHandle, Continuation},
        conn_id::ConnId,
        engine::Asker,
        question::{Outcome, Question},
        room::{Entry, Room},
        send_status::SendStatus,
        session::Session,
        task::{NotDeferred, Task},
    },
    identity::Permissions,
    ws::{
        close::CloseReason,
        frame::{Message, PreparedFrame},
    },
};

/// One connection and its worker's context, for the length of one handler call.
pub(super) struct InlineConn<'a> {
    pub(super) io: &'a mut ConnIo,
    pub(super) cx: &'a mut WorkerCtx,
    pub(super) session: &'a mut Arc<Session>,
    /// When the handler is to be called without a message; 0 for never.
    pub(super) wake_at: &'a mut Millis,
}

impl ConnHandle for InlineConn<'_> {
    fn id(&self) -> ConnId {
        self.io.id
    }

    fn hub(&self) -> &Arc<Hub> {
        &self.cx.shared.hub
    }

    fn session(&self) -> &Arc<Session> {
        self.session
    }

    fn remote_addr(&self) -> SocketAddr {
        self.io.remote
    }

    fn now_ms(&mut self) -> u64 {
        self.cx.hub_now_ms()
    }

    fn room(&self, name: &str) -> Option<(Arc<Room>, Permissions)> {
        let (room, permissions) = self.cx.members.find(self.io.slot(), name)?;
        Some((Arc::clone(room), permissions))
    }

    fn is_member(&self, name: &str) -> bool {
        self.cx.members.find(self.io.slot(), name).is_some()
    }

    fn send(&mut self, message: Message<'_>) -> SendStatus {
        self.io.send(message, self.cx)
    }

    fn send_prepared(&mut self, frame: &PreparedFrame) -> SendStatus {
        self.io.send_prepared(frame, self.cx)
    }

    fn close(&mut self, reason: CloseReason) {
        self.io.ask_close(reason, &mut self.cx.work);
    }

    fn enter(&mut self, room: &Arc<Room>, at: Entry, permissions: Permissions) {
        self.cx.members.add(self.io.id, Arc::clone(room), at, permissions);
    }

    fn permit(&mut self, room: &Arc<Room>, permissions: Permissions) {
        self.cx.members.permit(self.io.slot(), room.key, permissions);
    }

    fn exit(&mut self, room: &Arc<Room>) {
        self.cx.leave(self.io.slot(), room.key);
    }

    fn attach(&mut self, session: &Arc<Session>) {
        self.cx.leave_all(self.io.slot());
        *self.session = Arc::clone(session);
    }

    fn spend(&mut self, cost: usize) {
        self.cx.spent += cost;
    }

    fn defer(&mut self, task: Task) -> Result<(), NotDeferred> {
        if self.io.pauses.has(PauseReasons::TASK) {
            return Err(NotDeferred::Pending);
        }
        let shared = &self.cx.shared;
        let pool = shared.routes[usize::from(self.session.route)].tasks.as_ref();
        let job = TaskJob { task, conn: self.io.id, hub: Arc::clone(&shared.hub) };
        pool.ok_or(NotDeferred::NoThreads)?.defer(job)?;
        self.io.pauses.set(PauseReasons::TASK);
        Ok(())
    }

    fn ask_engine(
        &mut self,
        question: Question,
        next: Continuation,
    ) -> Option<(Continuation, Outcome)> {
        let asker = Asker::Conn { conn: self.io.id, next: Box::new(next) };
        match self.cx.shared.hub.ask(question, asker) {
            Ok(()) => {
                self.io.answers_due += 1;
                self.io.pauses.set(PauseReasons::ENGINE);
                None
            }
            Err((Asker::Conn { next, .. }, error)) => Some((*next.downcast().ok()?, Err(error))),
            Err(_) => None,
        }
    }

    fn awaits_engine(&self) -> bool {
        self.io.answers_due > 0
    }

    fn wake_after(&mut self, wait: Duration) {
        *self.wake_at = self.cx.after(wait).max(self.cx.now + 1);
        self.io.bring_forward(*self.wake_at, self.cx);
    }

    fn await_deliveries(&mut self) {
        self.io.await_deliveries(self.session, self.cx);
    }

    fn on_backpressure(&mut self) {
        self.cx.on_backpressure();
    }
}
