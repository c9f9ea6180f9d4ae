//! What connections do once they are served: one kind of work for each mode.

use std::time::Instant;

use rusty_socks_ws::frame::Message;

use super::{connection::Connection, log::Log, pacer::Pacer, websocket::WebSocket};

/// The work of one load thread. The thread owns the sockets and says when something may be done;
/// the work decides what, and writes down what came of it.
///
/// Connections are named by their index within the thread.
pub(crate) trait Work: Send {
    /// A connection was served.
    fn on_served(&mut self, _index: usize, _socket: &mut WebSocket, _log: &mut Log) {}

    /// The work proper may begin: at once where there is a ramp, else when all are ready. `at` is
    /// the beginning of the timetable, the same for all threads.
    fn begin(&mut self, _at: Instant, _connections: &mut [Connection], _log: &mut Log) {}

    /// A message was read at `now`.
    fn on_message(&mut self, _index: usize, _message: Message<'_>, _now: Instant, _log: &mut Log) {}

    /// Everything that could be read was.
    fn after_step(&mut self, _index: usize, _socket: &mut WebSocket, _log: &mut Log) {}

    /// A connection is open no more.
    fn on_ended(&mut self, _index: usize) {}

    /// Sends what the timetable says.
    fn tick(&mut self, _now: Instant, _connections: &mut [Connection], _log: &mut Log) {}

    /// The timetable, once there is one.
    fn pacer(&self) -> Option<&Pacer> {
        None
    }

    /// Whether all that are served are where the work begins.
    fn is_ready(&self) -> bool {
        true
    }

    /// Whether nothing more is to be sent, and nothing awaited.
    fn is_quiet(&self, now: Instant, log: &Log) -> bool;

    /// Counts what never was sent or joined, before the connections are closed.
    fn settle(&self, _log: &mut Log) {}
}

/// Connections that are held, pinged or sent a line now and then; the thread's timers do all of it.
pub(crate) struct Rest;

impl Work for Rest {
    fn is_quiet(&self, now: Instant, log: &Log) -> bool {
        log.is_past(now) && log.traffic.unanswered() == 0
    }
}
