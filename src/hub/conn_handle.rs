//! The way from a handler's call, and from the hub, to one connection.

use std::{net::SocketAddr, sync::Arc};

use super::{Hub, conn_id::ConnId, room::Room, send_status::SendStatus, session::Session};
use crate::ws::{
    close::CloseReason,
    frame::{Message, PreparedFrame},
};

/// The way to one connection: directly on its worker, or by letter from another thread.
///
/// What the hub asks for takes effect in the order of the letters that the hub posts, so it may be
/// done at once or by a letter. The hub wakes the worker of a handle that it was given, once
/// nothing is locked.
pub(crate) trait ConnHandle {
    fn id(&self) -> ConnId;
    fn hub(&self) -> &Arc<Hub>;
    fn session(&self) -> &Arc<Session>;
    fn remote_addr(&self) -> SocketAddr;
    /// Finds a room that the connection is in, without asking the directory, which everyone shares.
    fn room(&self, name: &str) -> Option<Arc<Room>>;
    fn send(&mut self, message: Message<'_>) -> SendStatus;
    fn send_prepared(&mut self, frame: &PreparedFrame) -> SendStatus;
    /// Closes the connection once what was sent before has gone out.
    fn close(&mut self, reason: CloseReason);
    /// Delivers the messages of `room` after `from_seq`. Called under the room's lock.
    fn enter(&mut self, room: &Arc<Room>, from_seq: u64);
    /// Delivers nothing more of `room`, and gives its count back with [`Hub::uncount`].
    fn exit(&mut self, room: &Arc<Room>);
    /// Goes on with `session`, and is in no room until it enters one.
    fn attach(&mut self, session: &Arc<Session>);
    /// Notes what a request costs beside its message, in microseconds or so, so that the connection
    /// waits for its next turn when it has had its share of this one.
    fn spend(&mut self, cost: usize);
    /// Stops reading from the connection until the deliveries that its session has caused are
    /// made. Called after every lock is released.
    fn await_deliveries(&mut self);
    /// Notes that a mailbox that was posted to is behind. Called after every lock is released.
    fn on_backpressure(&mut self);
}
