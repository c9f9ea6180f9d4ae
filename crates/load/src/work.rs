//! What connections do once they are served: one kind of work for each mode.

use std::{sync::Arc, time::Instant};

use rusty_socks_ws::frame::Message;

use super::{
    connection::Connection,
    echo::Echo,
    fanout::Fanout,
    log::Log,
    pacer::Pacer,
    plan::{Mode, Plan},
    run_state::RunState,
    share::Share,
    websocket::WebSocket,
};

/// The work of one load thread. The thread owns the sockets and says when something may be done;
/// the work decides what, and writes down what came of it.
///
/// Connections are named by their index within the thread.
pub(crate) enum Work {
    /// Held, pinged or sent a line now and then; the thread's timers do all of it.
    Rest,
    Echo(Echo),
    Fanout(Fanout),
}

impl Work {
    pub(crate) fn new(plan: &Plan, share: Share, state: &Arc<RunState>) -> Work {
        match &plan.mode {
            Mode::Storm { .. } | Mode::Idle { .. } => Work::Rest,
            Mode::Echo(echo) => Work::Echo(Echo::new(plan, echo, share)),
            Mode::Fanout(fanout) => Work::Fanout(Fanout::new(plan, fanout, share, state)),
        }
    }

    /// A connection was served.
    pub(crate) fn on_served(&mut self, index: usize, socket: &mut WebSocket, log: &mut Log) {
        match self {
            Work::Rest => {}
            Work::Echo(echo) => echo.on_served(index, socket, log),
            Work::Fanout(fanout) => fanout.on_served(index, socket, log),
        }
    }

    /// The work proper may begin: at once where there is a ramp, else when all are ready.
    pub(crate) fn begin(&mut self, at: Instant, connections: &mut [Connection], log: &mut Log) {
        match self {
            Work::Rest => {}
            Work::Echo(echo) => echo.begin(at, connections, log),
            Work::Fanout(fanout) => fanout.begin(at),
        }
    }

    /// A message was read at `now`.
    pub(crate) fn on_message(
        &mut self,
        index: usize,
        message: Message<'_>,
        now: Instant,
        log: &mut Log,
    ) {
        match self {
            Work::Rest => {}
            Work::Echo(echo) => echo.on_message(index, message, now, log),
            Work::Fanout(fanout) => fanout.on_message(index, message, now, log),
        }
    }

    /// Everything that could be read was.
    pub(crate) fn after_step(&mut self, index: usize, socket: &mut WebSocket, log: &mut Log) {
        if let Work::Echo(echo) = self {
            echo.after_step(index, socket, log);
        }
    }

    /// A connection is open no more.
    pub(crate) fn on_ended(&mut self, index: usize) {
        match self {
            Work::Rest => {}
            Work::Echo(echo) => echo.on_ended(index),
            Work::Fanout(fanout) => fanout.on_ended(index),
        }
    }

    /// Sends what the timetable says.
    pub(crate) fn tick(&mut self, now: Instant, connections: &mut [Connection], log: &mut Log) {
        match self {
            Work::Rest => {}
            Work::Echo(echo) => echo.tick(now, connections, log),
            Work::Fanout(fanout) => fanout.tick(now, connections, log),
        }
    }

    /// The timetable, once there is one.
    pub(crate) fn pacer(&self) -> Option<&Pacer> {
        match self {
            Work::Rest => None,
            Work::Echo(echo) => echo.pacer(),
            Work::Fanout(fanout) => fanout.pacer(),
        }
    }

    /// Whether all that are served are where the work begins.
    pub(crate) fn is_ready(&self) -> bool {
        match self {
            Work::Rest | Work::Echo(_) => true,
            Work::Fanout(fanout) => fanout.is_ready(),
        }
    }

    /// Whether nothing more is to be sent, and nothing awaited.
    pub(crate) fn is_quiet(&self, now: Instant, log: &Log) -> bool {
        match self {
            Work::Rest => log.is_past(now) && log.traffic.unanswered() == 0,
            Work::Echo(echo) => echo.is_quiet(now, log),
            Work::Fanout(fanout) => log.is_past(now) && fanout.is_quiet(log),
        }
    }

    /// Closes the books before the connections are closed: counts what never was sent or joined.
    pub(crate) fn settle(&self, log: &mut Log) {
        match self {
            Work::Rest => {}
            Work::Echo(echo) => echo.settle(log),
            Work::Fanout(fanout) => fanout.settle(log),
        }
    }
}
