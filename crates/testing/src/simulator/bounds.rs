//! Invariants about what the server holds: bounds while it runs, counts at rest, nothing at the
//! end.

use super::{
    client::{Broken, Verdict},
    invariant::Invariant,
    socket::Socket,
    world::World,
};

/// Steps between two looks at the gauges.
const LOOK_EVERY: u64 = 16;

/// What an outbox may hold beyond its bound: one message, pongs, a Close, and, as an empty outbox
/// takes any answer, a list of members.
const OUTBOX_SLACK_BYTES: usize = 8 << 10;
const MEMBER_BYTES_MAX: usize = 160;

fn broken(promise: &'static str, seen: String) -> Verdict {
    Err(Broken { promise, client: None, seen })
}

/// What is bounded stays within its bound, or within what there was when the bound was lowered.
pub(super) struct Bounds;

impl Invariant for Bounds {
    fn after_step(&mut self, world: &World) -> Verdict {
        let (config, held) = (&world.plan.config, world.server.largest_outbox_bytes());
        let everyone = (world.plan.clients + world.plan.hostile) * MEMBER_BYTES_MAX;
        if held > config.buffer_bytes + OUTBOX_SLACK_BYTES + everyone {
            return broken("an outbox is bounded", format!("{held} bytes"));
        }
        if !world.step.is_multiple_of(LOOK_EVERY) {
            return Ok(());
        }
        let stats = world.stats();
        let (conn_max, queued_max) = world.held_at_reload;
        let bounded = [
            ("connections", stats.active_connections, config.max_conn.max(conn_max)),
            ("the line", stats.queued, config.max_queued_tasks.max(queued_max)),
            ("pending heads", stats.pending_heads, config.max_pending_heads),
            ("sessions that are away", stats.sessions_away, config.max_away_sessions),
            ("rooms beside the default room", stats.rooms.saturating_sub(1), config.max_rooms),
        ];
        match bounded.iter().find(|(_, used, max)| used > max) {
            Some(what) => broken("what is bounded stays within its bound", format!("{what:?}")),
            None => Ok(()),
        }
    }
}

/// The gauges and counters say what clients saw.
pub(super) struct Counts;

impl Invariant for Counts {
    fn at_rest(&mut self, world: &World) -> Verdict {
        if world.server.has_overslept() {
            return broken(
                "a worker sleeps only when nothing waits for it",
                "one overslept".into(),
            );
        }
        let stats = world.stats();
        let waiting: usize = stats.workers.iter().map(|worker| worker.mailbox).sum();
        if waiting > 0 {
            return broken("at rest every mailbox is empty", format!("{waiting} letters wait"));
        }
        let sockets = || world.clients.iter().filter_map(|client| client.socket.as_ref());
        let open = sockets().filter(|socket| socket.is_open()).count();
        let connections = world.server.connections();
        if stats.sockets != connections {
            let seen = format!("{} sockets, {connections} connections", stats.sockets);
            return broken("sockets are counted", seen);
        }
        if stats.active_connections < open {
            let seen = format!("{} permits, {open} open", stats.active_connections);
            return broken("each connection that is served has a permit", seen);
        }
        // What is said to a server that closes, because a token has ended, is not counted.
        if !world.plan.is_calm() || world.plan.has_identity() {
            return Ok(());
        }
        let pending = sockets().filter(|socket| socket.is_in_head()).count();
        let sent: u64 = world
            .clients
            .iter()
            .map(|client| {
                let now = client.socket.as_ref().map_or(0, |socket: &Socket| socket.messages_sent);
                client.messages_sent_before + now
            })
            .sum();
        let heard: u64 = world.clients.iter().map(|client| client.messages_heard).sum();
        let exact = [
            ("active_connections", stats.active_connections as u64, open as u64),
            ("queued", stats.queued as u64, pending as u64),
            ("messages_in", stats.messages_in, sent),
            ("messages_out", stats.messages_out, heard),
            ("read_pauses and dropped", stats.dropped + stats.read_pauses, 0),
        ];
        match exact.iter().find(|(_, counted, seen)| counted != seen) {
            Some((name, counted, seen)) => {
                broken("counters say what clients saw", format!("{name}: {counted}, not {seen}"))
            }
            None => Ok(()),
        }
    }

    fn at_end(&mut self, world: &World) -> Verdict {
        let stats = world.stats();
        // The default room may outlive its members.
        let left = [
            ("connections", world.server.connections()),
            ("active_connections", stats.active_connections),
            ("queued", stats.queued),
            ("pending_heads", stats.pending_heads),
            ("lingering", stats.lingering),
            ("sessions", stats.sessions),
            ("sessions_away", stats.sessions_away),
            ("rooms", stats.rooms.saturating_sub(1)),
            ("history_bytes", stats.history_bytes),
            ("frame_bytes", stats.frame_bytes),
            ("inbox_bytes", stats.inbox_bytes),
            ("outbox_bytes", stats.outbox_bytes),
            ("input_bytes", stats.input_bytes),
            ("session_bytes", stats.session_bytes),
            ("pattern_bytes", stats.pattern_bytes),
            ("room_bytes", stats.room_bytes),
            ("job_bytes", stats.job_bytes),
            ("socket_bytes", stats.socket_bytes),
            ("memory_bytes", stats.memory_bytes),
            ("outbox bytes", world.server.largest_outbox_bytes()),
        ];
        let left: Vec<_> = left.iter().filter(|(_, count)| *count > 0).collect();
        match left.is_empty() {
            true => Ok(()),
            false => broken("nothing is left when everybody has gone", format!("{left:?}")),
        }
    }
}
