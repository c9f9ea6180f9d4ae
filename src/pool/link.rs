//! A handler's way to its connection when it runs on the worker: direct, without a letter.

use std::{net::SocketAddr, sync::Arc};

use super::{core::Core, desk::Desk};
use crate::{
    handler::{SendStatus, calls::Link},
    hub::{Hub, mailbox::ConnId, rooms::Room, seats::Door, sessions::Session},
    ws::{
        close::CloseReason,
        frame::{Message, PreparedFrame},
    },
};

/// One connection and its worker's desk, for the length of one handler call.
pub(super) struct WorkerLink<'a> {
    pub(super) core: &'a mut Core,
    pub(super) desk: &'a mut Desk,
    pub(super) session: &'a mut Arc<Session>,
}

impl Door for WorkerLink<'_> {
    fn conn(&self) -> ConnId {
        self.core.id
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

    fn feel_pressure(&mut self) {
        self.desk.feel_pressure();
    }
}

impl Link for WorkerLink<'_> {
    fn hub(&self) -> &Arc<Hub> {
        &self.desk.shared.hub
    }

    fn session(&self) -> &Arc<Session> {
        self.session
    }

    fn remote_addr(&self) -> SocketAddr {
        self.core.remote
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

    fn own_room(&self, name: &str) -> Option<Arc<Room>> {
        self.desk.members.find(self.core.slot(), name).map(Arc::clone)
    }

    fn close(&mut self, reason: CloseReason) {
        self.core.ask_close(reason, self.desk);
    }
}
