//! Echo: each message is to come back as it went. Open loop by a timetable, or closed by depth.

use std::{
    collections::VecDeque,
    io::Write,
    time::{Duration, Instant},
};

use rusty_socks_ws::{encode::Kind, frame::Message};

use super::{
    args::EchoFlags,
    connection::Connection,
    log::Log,
    pacer::Pacer,
    plan::Plan,
    share::{Share, Turn},
    websocket::WebSocket,
    work::Work,
};

/// A message with room for it begins with its number on the connection, in so many hex digits.
const STAMP_BYTES: usize = 16;

/// All that one thread may have on its way in the open loop. Beyond it messages leave late, and the
/// lateness counts.
const IN_FLIGHT_MAX: usize = 1 << 20;
const IN_FLIGHT_BYTES_MAX: usize = 256 * 1024 * 1024;

/// So many messages leave before answers are looked at again; the next tick sends more.
const TURN_MAX: usize = 1024;

/// The echo work of one thread.
pub(crate) struct Echo {
    lanes: Vec<Lane>,
    /// What every message looks like but for its number.
    form: Vec<u8>,
    kind: Kind,
    depth: usize,
    /// The thread's part of `--rate`; `None` in a closed loop.
    rate: Option<f64>,
    ramp: Duration,
    share: Share,
    /// Once the open loop has begun.
    pacer: Option<Pacer>,
    /// The connection whose turn it is in the open loop.
    turn: Turn,
    /// Messages of the measured time still to be sent, where their number ends the run.
    quota: Option<u64>,
    /// Whether the work has begun.
    begun: bool,
    in_flight: usize,
    in_flight_max: usize,
}

/// One connection's messages on their way.
#[derive(Default)]
struct Lane {
    served: bool,
    sent: u64,
    /// The numbers of the messages without an answer and when they were meant to leave, oldest
    /// first.
    waiting: VecDeque<(u64, Instant)>,
}

impl Echo {
    pub(crate) fn new(plan: &Plan, echo: &EchoFlags, share: Share) -> Echo {
        let connections = share.of(plan.connections as usize);
        let part = connections as f64 / f64::from(plan.connections);
        Echo {
            lanes: (0..connections).map(|_| Lane::default()).collect(),
            form: vec![b'x'; echo.size as usize],
            kind: if echo.binary { Kind::Binary } else { Kind::Text },
            depth: echo.depth() as usize,
            rate: echo.rate.map(|rate| f64::from(rate) * part),
            ramp: plan.common.ramp,
            share,
            pacer: None,
            turn: Turn::default(),
            quota: echo.messages.map(|messages| messages_of(messages, share)),
            begun: false,
            in_flight: 0,
            in_flight_max: (IN_FLIGHT_BYTES_MAX / echo.size as usize).clamp(1, IN_FLIGHT_MAX),
        }
    }
}

impl Work for Echo {
    fn pacer(&self) -> Option<&Pacer> {
        self.pacer.as_ref()
    }

    fn on_served(&mut self, index: usize, socket: &mut WebSocket, log: &mut Log) {
        self.lanes[index].served = true;
        if self.begun {
            self.fill(index, socket, log);
        }
    }

    fn begin(&mut self, at: Instant, connections: &mut [Connection], log: &mut Log) {
        if self.begun {
            return;
        }
        self.begun = true;
        self.pacer = self.rate.map(|rate| Pacer::new(at, rate, self.ramp, self.share.offset()));
        for (index, connection) in connections.iter_mut().enumerate() {
            if let Some(socket) = connection.socket() {
                self.fill(index, socket, log);
            }
        }
    }

    fn on_message(&mut self, index: usize, message: Message<'_>, now: Instant, log: &mut Log) {
        let bytes = message.as_bytes();
        let lane = &mut self.lanes[index];
        let place = (bytes.len() == self.form.len() && message.kind() == self.kind)
            .then(|| lane.place_of(bytes))
            .flatten();
        let Some((_, intended)) = place.and_then(|place| {
            log.traffic.out_of_order += u64::from(place > 0);
            lane.waiting.remove(place)
        }) else {
            log.count_unexpected(&String::from_utf8_lossy(bytes));
            return;
        };
        self.in_flight -= 1;
        log.count_answered(intended, now, bytes.len());
    }

    fn after_step(&mut self, index: usize, socket: &mut WebSocket, log: &mut Log) {
        if self.begun {
            self.fill(index, socket, log);
        }
    }

    fn on_ended(&mut self, index: usize) {
        let lane = &mut self.lanes[index];
        lane.served = false;
        self.in_flight -= lane.waiting.len();
        lane.waiting.clear();
    }

    fn tick(&mut self, now: Instant, connections: &mut [Connection], log: &mut Log) {
        let Some(mut pacer) = self.pacer.take() else { return };
        let mut touched = Vec::new();
        for _ in 0..TURN_MAX {
            let intended = pacer.next_at();
            // What was due before the end is still sent after it: late, and counted as late.
            if intended > now || log.is_past(intended) || !self.may_send(intended, log) {
                break;
            }
            let Some(index) = self.next_lane(connections) else {
                log.traffic.held_back += u64::from(self.lanes.iter().any(|lane| lane.served));
                break;
            };
            pacer.advance();
            log.traffic.due += u64::from(log.measures(intended));
            if let Some(socket) = connections[index].socket() {
                self.send(index, socket, intended, Instant::now(), log);
                touched.push(index);
            }
        }
        // One write carries all that a connection was given in this turn.
        touched.sort_unstable();
        touched.dedup();
        for index in touched {
            if let Some(socket) = connections[index].socket() {
                socket.flush();
                if socket.has_ended() {
                    log.ended.push(index);
                }
            }
        }
        self.pacer = Some(pacer);
    }

    fn is_quiet(&self, now: Instant, log: &Log) -> bool {
        let all_sent = match (self.quota, &self.pacer) {
            (Some(quota), _) => log.traffic.sent >= quota || log.is_past(now),
            // The timetable may have messages that were due before the end and could not leave.
            (None, Some(pacer)) => log.is_past(now) && log.is_past(pacer.next_at()),
            (None, None) => log.is_past(now),
        };
        all_sent && self.in_flight == 0
    }

    fn settle(&self, log: &mut Log) {
        match &self.pacer {
            // A closed loop, and one that ends by a count, owes nothing but what it has sent.
            Some(pacer) if self.quota.is_none() => log.count_due(pacer),
            Some(_) | None => log.traffic.due = log.traffic.sent,
        }
    }
}

impl Echo {
    /// Sends until the depth is reached. Nothing to do in an open loop.
    fn fill(&mut self, index: usize, socket: &mut WebSocket, log: &mut Log) {
        if self.rate.is_some() {
            return;
        }
        let mut sent = false;
        while self.lanes[index].waiting.len() < self.depth {
            let now = Instant::now();
            if log.is_past(now) || !self.may_send(now, log) || socket.has_ended() {
                break;
            }
            self.send(index, socket, now, now, log);
            sent = true;
        }
        if sent {
            socket.flush();
            if socket.has_ended() {
                log.ended.push(index);
            }
        }
    }

    /// Whether the number of messages allows one more.
    fn may_send(&self, intended: Instant, log: &Log) -> bool {
        !log.measures(intended) || self.quota.is_none_or(|quota| log.traffic.sent < quota)
    }

    fn send(
        &mut self,
        index: usize,
        socket: &mut WebSocket,
        intended: Instant,
        now: Instant,
        log: &mut Log,
    ) {
        let lane = &mut self.lanes[index];
        number(&mut self.form, lane.sent);
        if !socket.queue(self.kind, &self.form) {
            return;
        }
        lane.waiting.push_back((lane.sent, intended));
        lane.sent += 1;
        self.in_flight += 1;
        if self.rate.is_some() && log.measures(intended) {
            log.traffic.lag.record(now.saturating_duration_since(intended));
        }
        log.count_sent(intended, now);
    }

    /// The next connection that takes a message, if the bounds allow one at all.
    fn next_lane(&mut self, connections: &mut [Connection]) -> Option<usize> {
        if self.in_flight >= self.in_flight_max {
            return None;
        }
        let lanes = &self.lanes;
        let takes = |index: &usize| lanes[*index].served && connections[*index].takes_messages();
        self.turn.next(lanes.len(), takes)
    }
}

impl Lane {
    /// Where in `waiting` the message is that comes back as `bytes`.
    fn place_of(&self, bytes: &[u8]) -> Option<usize> {
        let Some(stamp) = bytes.get(..STAMP_BYTES) else {
            return (!self.waiting.is_empty()).then_some(0);
        };
        let number = u64::from_str_radix(std::str::from_utf8(stamp).ok()?, 16).ok()?;
        self.waiting.binary_search_by_key(&number, |(number, _)| *number).ok()
    }
}

/// A thread's part of a number of messages.
fn messages_of(total: u64, share: Share) -> u64 {
    share.of(usize::try_from(total).unwrap_or(usize::MAX / 2)) as u64
}

/// Writes the number of a message over the beginning of `form`, where there is room for it.
fn number(form: &mut [u8], number: u64) {
    if let Some(mut stamp) = form.get_mut(..STAMP_BYTES) {
        write!(stamp, "{number:016x}").expect("16 digits fit into 16 bytes");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_has_its_size_and_its_number() {
        let (mut form, mut small) = ([b'x'; 20], [b'x'; 3]);
        number(&mut form, 255);
        number(&mut small, 7);
        assert_eq!((&form, &small), (b"00000000000000ffxxxx", b"xxx"));
    }

    #[test]
    fn an_answer_finds_its_message_also_out_of_order() {
        let now = Instant::now();
        let lane = Lane { waiting: [(4, now), (5, now), (9, now)].into(), ..Lane::default() };
        assert_eq!(lane.place_of(b"0000000000000009xx"), Some(2));
        assert_eq!(lane.place_of(b"0000000000000006xx"), None, "answered before, or never sent");
        assert_eq!(lane.place_of(b"{\"type\":\"welcome\"}"), None);
        assert_eq!(lane.place_of(b"short"), Some(0), "without a number the oldest is meant");
        assert_eq!(Lane::default().place_of(b"short"), None);
    }
}
