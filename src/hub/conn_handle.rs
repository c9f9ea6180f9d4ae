//! Access to one connection, from a handler's call and from the hub.

use std::{any::Any, net::SocketAddr, sync::Arc, time::Duration};

use super::{
    Hub,
    conn_id::ConnId,
    question::{Outcome, Question},
    room::{Entry, Room},
    send_status::SendStatus,
    session::Session,
    task::{NotDeferred, Task},
};
use crate::{
    identity::Permissions,
    ws::{
        close::CloseReason,
        frame::{Message, PreparedFrame},
    },
};

/// What goes on with an answer of the engine: with the state of the handler, and the connection.
pub(crate) type Continuation = Box<dyn FnOnce(&mut dyn Any, &mut dyn ConnHandle, Outcome) + Send>;

/// Access to one connection: directly on its worker, or by letter from another thread.
///
/// The hub's calls take effect in the order of the hub's letters, so an implementation may act at
/// once or post a letter. The hub wakes the handle's worker after every lock is released.
pub(crate) trait ConnHandle {
    fn id(&self) -> ConnId;
    fn hub(&self) -> &Arc<Hub>;
    fn session(&self) -> &Arc<Session>;
    fn remote_addr(&self) -> SocketAddr;
    /// The time of the hub's clock, or what it was earlier in this turn.
    fn now_ms(&mut self) -> u64 {
        self.hub().now_ms()
    }
    /// Finds a room that the connection is in and what it may do there, without locking the shared
    /// directory.
    fn room(&self, name: &str) -> Option<(Arc<Room>, Permissions)>;
    /// Whether the connection is in a room of that name.
    fn is_member(&self, name: &str) -> bool {
        self.room(name).is_some()
    }
    fn send(&mut self, message: Message<'_>) -> SendStatus;
    fn send_prepared(&mut self, frame: &PreparedFrame) -> SendStatus;
    /// Closes the connection once what was sent before has gone out.
    fn close(&mut self, reason: CloseReason);
    /// Delivers the messages of `room` after `from_seq`, and notes what the connection may do
    /// there. Called under the room's lock.
    fn enter(&mut self, room: &Arc<Room>, at: Entry, permissions: Permissions);
    /// Changes what the connection may do in a room that it is in.
    fn permit(&mut self, room: &Arc<Room>, permissions: Permissions);
    /// Stops delivering messages of `room`, and gives the member's count back with
    /// [`Hub::uncount`].
    fn exit(&mut self, room: &Arc<Room>);
    /// Attaches the connection to `session`. The connection is in no room until it enters one.
    fn attach(&mut self, session: &Arc<Session>);
    /// Adds to the cost of the request that the handler serves, beside that of its message, in
    /// microseconds or so. When the connection has had its share of this turn, it waits for the
    /// next.
    fn spend(&mut self, cost: usize);
    /// Has `task` done on another thread, and does not read from the connection until its answer is
    /// there. A handle of a handler that may block itself has no threads for that.
    fn defer(&mut self, _task: Task) -> Result<(), NotDeferred> {
        Err(NotDeferred::NoThreads)
    }
    /// Asks the engine. Either `next` goes on with the answer later, and the connection is not read
    /// until then; or it is returned with the answer, if that is there at once or was waited for.
    fn ask_engine(
        &mut self,
        question: Question,
        next: Continuation,
    ) -> Option<(Continuation, Outcome)>;
    /// Whether an answer of the engine is awaited.
    fn awaits_engine(&self) -> bool {
        false
    }
    /// Asks for a call of [`Handler::on_wake`](crate::Handler::on_wake) after `wait`, in place of
    /// any that was asked for before.
    fn wake_after(&mut self, wait: Duration);
    /// Stops reading from the connection until what its session has sent is delivered. A handle
    /// that may block waits itself, for a second at most. Called after every lock is released.
    fn await_deliveries(&mut self);
    /// Notes that a mailbox that the hub posted to is behind. Called after every lock is released.
    fn on_backpressure(&mut self);
}
