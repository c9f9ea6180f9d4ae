//! A connection as its handler reaches it on the worker: directly, without a letter.

use std::{
    net::SocketAddr,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use super::{core::Core, desk::Desk};
use crate::{
    hub::{
        Hub, conn_handle::ConnHandle, conn_id::ConnId, room::Room, send_status::SendStatus,
        session::Session,
    },
    ws::{
        close::CloseReason,
        frame::{Message, PreparedFrame},
    },
};

/// One connection and its worker's desk, for the length of one handler call.
pub(super) struct InlineConn<'a> {
    pub(super) core: &'a mut Core,
    pub(super) desk: &'a mut Desk,
    pub(super) session: &'a mut Arc<Session>,
}

impl InlineConn<'_> {
    /// Runs handler code. A panic in it costs this one connection and nothing else.
    pub(super) fn call(&mut self, call: impl FnOnce(&mut dyn ConnHandle)) {
        if catch_unwind(AssertUnwindSafe(|| call(self))).is_err() {
            log::error!("{} {}: the handler panicked", self.core.remote, self.session.client_id);
            self.desk.shared.metrics.server.handler_panics.add_shared();
            self.close(CloseReason::INTERNAL);
        }
    }
}

impl ConnHandle for InlineConn<'_> {
    fn id(&self) -> ConnId {
        self.core.id
    }

    fn hub(&self) -> &Arc<Hub> {
        &self.desk.shared.hub
    }

    fn session(&self) -> &Arc<Session> {
        self.session
    }

    fn remote_addr(&self) -> SocketAddr {
        self.core.remote
    }

    fn room(&self, name: &str) -> Option<Arc<Room>> {
        self.desk.members.find(self.core.slot(), name).map(Arc::clone)
    }

    fn send(&mut self, message: Message<'_>) -> SendStatus {
        if !self.core.may_queue(message.as_bytes().len(), self.desk) {
            return SendStatus::Dropped;
        }
        self.core.queue(message, self.desk);
        self.core.sent(self.desk)
    }

    fn send_prepared(&mut self, frame: &PreparedFrame) -> SendStatus {
        if !self.core.may_queue(frame.len(), self.desk) {
            return SendStatus::Dropped;
        }
        self.core.queue_prepared(frame, self.desk);
        self.core.sent(self.desk)
    }

    fn close(&mut self, reason: CloseReason) {
        self.core.ask_close(reason, self.desk);
    }

    fn enter(&mut self, room: &Arc<Room>, from_seq: u64) {
        self.desk.members.add(self.core.slot(), Arc::clone(room), from_seq);
    }

    fn exit(&mut self, room: &Arc<Room>) {
        self.desk.leave(self.core.slot(), room.key);
    }

    fn attach(&mut self, session: &Arc<Session>) {
        self.desk.leave_all(self.core.slot());
        *self.session = Arc::clone(session);
    }

    fn on_backpressure(&mut self) {
        self.desk.on_backpressure();
    }
}
