//! Fan-out: what publishers say by a timetable reaches every subscriber of their room.

use std::{
    mem,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use rusty_socks_ws::{encode::Kind, frame::Message};
use serde::Deserialize;

use super::{
    args::{FanoutFlags, Protocol},
    connection::Connection,
    log::Log,
    pacer::Pacer,
    plan::Plan,
    run_state::RunState,
    seat::Seat,
    share::{Share, Turn},
    stamp::{self, Stamps},
    websocket::WebSocket,
    work::Work,
};

/// So many messages leave before deliveries are looked at again; the next tick sends more.
const TURN_MAX: usize = 256;

/// The `ref` by which a join is answered.
const JOIN_REF: &str = "load";

/// The fan-out work of one thread.
pub(crate) struct Fanout {
    protocol: Protocol,
    run: u32,
    publishers: usize,
    members: Vec<Member>,
    /// How many wait for the answer to their join.
    joining: usize,
    /// The connections that publish here, in turn.
    publisher_indexes: Vec<usize>,
    turn: Turn,
    /// Knows how many subscribers each room has, over all threads: what a message owes.
    state: Arc<RunState>,
    stamps: Stamps,
    form: Vec<u8>,
    rate: f64,
    ramp: Duration,
    share: Share,
    pacer: Option<Pacer>,
}

/// One connection and its room.
struct Member {
    room: usize,
    publishes: bool,
    membership: Membership,
    /// The number of the last message seen in the room, where the server numbers them.
    seq: Option<u64>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Membership {
    /// Not served, or over.
    Out,
    /// Has asked to join.
    Joining,
    /// The server would not have it.
    Refused,
    In,
}

/// What is looked at in a frame of the chat protocol that is no stamped message.
#[derive(Deserialize)]
struct Answer {
    #[serde(rename = "type")]
    kind: Option<String>,
    #[serde(rename = "ref")]
    reference: Option<serde_json::Value>,
    code: Option<String>,
}

impl Fanout {
    pub(crate) fn new(
        plan: &Plan,
        fanout: &FanoutFlags,
        share: Share,
        state: &Arc<RunState>,
    ) -> Fanout {
        let publishers = fanout.publishers as usize;
        let member = |index| {
            let Seat { room, publishes, .. } = fanout.seat(share.number(index));
            Member { room, publishes, membership: Membership::Out, seq: None }
        };
        let members: Vec<Member> = (0..share.of(plan.connections as usize)).map(member).collect();
        let publisher_indexes: Vec<usize> =
            (0..members.len()).filter(|index| members[*index].publishes).collect();
        // Publishers are the first, so each thread has its fair part of them, or none.
        let part = publisher_indexes.len() as f64 / publishers as f64;
        Fanout {
            protocol: fanout.protocol,
            run: plan.run,
            publishers,
            members,
            joining: 0,
            publisher_indexes,
            turn: Turn::default(),
            state: Arc::clone(state),
            stamps: Stamps::new(plan.run, state.began),
            form: vec![b'x'; (fanout.size as usize).max(stamp::BYTES)],
            rate: f64::from(fanout.rate) * part,
            ramp: plan.common.ramp,
            share,
            pacer: None,
        }
    }
}

impl Work for Fanout {
    fn pacer(&self) -> Option<&Pacer> {
        self.pacer.as_ref()
    }

    fn on_served(&mut self, index: usize, socket: &mut WebSocket, log: &mut Log) {
        match self.protocol {
            Protocol::Raw => self.enter(index),
            Protocol::Chat => {
                let room = self.room_name(self.members[index].room);
                let join = format!(r#"{{"type":"join","room":"{room}","ref":"{JOIN_REF}"}}"#);
                // If the connection has ended already, so has its joining.
                if socket.send_alone(Kind::Text, join.as_bytes()) {
                    let now = Instant::now();
                    log.count_sent(now, now);
                }
                self.members[index].membership = Membership::Joining;
                self.joining += 1;
            }
        }
    }

    fn begin(&mut self, at: Instant, _: &mut [Connection], _: &mut Log) {
        if self.pacer.is_none() && !self.publisher_indexes.is_empty() {
            self.pacer = Some(Pacer::new(at, self.rate, self.ramp, self.offset()));
        }
    }

    fn on_message(&mut self, index: usize, message: Message<'_>, now: Instant, log: &mut Log) {
        let bytes = message.as_bytes();
        let Some(intended) = self.stamps.read(bytes) else {
            self.on_other(index, bytes, log);
            return;
        };
        let member = &mut self.members[index];
        if self.protocol == Protocol::Chat
            && let Some(seq) = seq_of(bytes)
        {
            match member.seq {
                Some(last) if seq <= last => log.traffic.repeated += 1,
                // A publisher does not get its own messages, so its numbers have holes.
                Some(last) if !member.publishes => log.traffic.holes += seq - last - 1,
                Some(_) | None => {}
            }
            member.seq = Some(member.seq.map_or(seq, |last| last.max(seq)));
        }
        if member.publishes {
            log.traffic.to_publishers += u64::from(log.measures(intended));
        } else {
            log.count_answered(intended, now, bytes.len());
        }
    }

    fn on_ended(&mut self, index: usize) {
        let member = &mut self.members[index];
        match mem::replace(&mut member.membership, Membership::Out) {
            Membership::In if !member.publishes => {
                self.state.audience(member.room).fetch_sub(1, Ordering::Relaxed);
            }
            Membership::Joining => self.joining -= 1,
            Membership::In | Membership::Out | Membership::Refused => {}
        }
    }

    fn tick(&mut self, now: Instant, connections: &mut [Connection], log: &mut Log) {
        let Some(mut pacer) = self.pacer.take() else { return };
        for _ in 0..TURN_MAX {
            let intended = pacer.next_at();
            if intended > now || log.is_past(intended) {
                break;
            }
            let Some(index) = self.next_publisher(connections) else {
                let is_in = |index: &usize| self.members[*index].membership == Membership::In;
                log.traffic.held_back += u64::from(self.publisher_indexes.iter().any(is_in));
                break;
            };
            pacer.advance();
            log.traffic.due += u64::from(log.measures(intended));
            if let Some(socket) = connections[index].socket() {
                self.publish(index, socket, intended, Instant::now(), log);
            }
        }
        self.pacer = Some(pacer);
    }

    fn is_ready(&self) -> bool {
        self.joining == 0
    }

    fn is_quiet(&self, now: Instant, log: &Log) -> bool {
        // Deliveries of this thread's messages come in on all threads, so each looks only at what
        // it has to send; the coordinator sees whether deliveries still come.
        let is_in = |index: &usize| self.members[*index].membership == Membership::In;
        let all_sent = !self.publisher_indexes.iter().any(is_in)
            || self.pacer.as_ref().is_none_or(|pacer| log.is_past(pacer.next_at()));
        log.is_past(now) && all_sent
    }

    fn settle(&self, log: &mut Log) {
        if let Some(pacer) = &self.pacer {
            log.count_due(pacer);
        }
        let outside = |member: &&Member| {
            matches!(member.membership, Membership::Joining | Membership::Refused)
        };
        log.traffic.not_joined = self.members.iter().filter(outside).count() as u64;
    }
}

impl Fanout {
    /// Publishers lie behind each other by their numbers in the run.
    fn offset(&self) -> f64 {
        self.share.thread as f64 / self.share.threads.min(self.publishers) as f64
    }

    fn enter(&mut self, index: usize) {
        let member = &mut self.members[index];
        if mem::replace(&mut member.membership, Membership::In) == Membership::Joining {
            self.joining -= 1;
        }
        if !member.publishes {
            self.state.audience(member.room).fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Something that carries no stamp of this run: an answer, a welcome, or somebody else's.
    fn on_other(&mut self, index: usize, bytes: &[u8], log: &mut Log) {
        if self.protocol == Protocol::Raw {
            log.count_unexpected(&String::from_utf8_lossy(bytes));
            return;
        }
        let Ok(answer) = serde_json::from_slice::<Answer>(bytes) else {
            log.count_unexpected(&String::from_utf8_lossy(bytes));
            return;
        };
        let ours = answer.reference.as_ref().is_some_and(|reference| *reference == JOIN_REF);
        match answer.kind.as_deref() {
            Some("ok") if ours && self.members[index].membership == Membership::Joining => {
                self.enter(index);
            }
            Some("error") => {
                let code = answer.code.unwrap_or_else(|| "without a code".to_owned());
                *log.traffic.errors.entry(code).or_default() += 1;
                if ours && self.members[index].membership == Membership::Joining {
                    self.members[index].membership = Membership::Refused;
                    self.joining -= 1;
                }
            }
            // The welcome, messages of other rooms, and what is yet to be invented.
            Some(_) => {}
            None => log.count_unexpected(&String::from_utf8_lossy(bytes)),
        }
    }

    fn next_publisher(&mut self, connections: &mut [Connection]) -> Option<usize> {
        let (indexes, members) = (&self.publisher_indexes, &self.members);
        let place = self.turn.next(indexes.len(), |place| {
            let index = indexes[*place];
            members[index].membership == Membership::In && connections[index].takes_messages()
        })?;
        Some(indexes[place])
    }

    fn publish(
        &mut self,
        index: usize,
        socket: &mut WebSocket,
        intended: Instant,
        now: Instant,
        log: &mut Log,
    ) {
        self.stamps.write(&mut self.form, intended);
        let content = String::from_utf8_lossy(&self.form);
        let room = self.members[index].room;
        let text = match self.protocol {
            Protocol::Raw => content.into_owned(),
            Protocol::Chat => {
                let name = self.room_name(room);
                format!(r#"{{"type":"publish","room":"{name}","content":"{content}"}}"#)
            }
        };
        if socket.queue(Kind::Text, text.as_bytes()) {
            socket.flush();
            if log.measures(intended) {
                log.traffic.expected +=
                    u64::from(self.state.audience(room).load(Ordering::Relaxed));
                log.traffic.lag.record(now.saturating_duration_since(intended));
            }
            log.count_sent(intended, now);
        }
        if socket.has_ended() {
            log.ended.push(index);
        }
    }

    /// Rooms are this run's own, so that nobody else's messages are heard, nor ours by them.
    fn room_name(&self, room: usize) -> String {
        format!("load-{:08x}-{room}", self.run)
    }
}

/// The number of a room's message. The server writes it before the content, where it is looked for.
fn seq_of(message: &[u8]) -> Option<u64> {
    const KEY: &[u8] = b"\"seq\":";
    let at = message.windows(KEY.len()).position(|window| window == KEY)? + KEY.len();
    let digits = message[at..].iter().take_while(|byte| byte.is_ascii_digit());
    digits
        .map(|byte| u64::from(byte - b'0'))
        .reduce(|number, digit| number.wrapping_mul(10).wrapping_add(digit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_a_message_is_found() {
        assert_eq!(seq_of(br#"{"type":"message","room":"a","seq":412,"content":"x"}"#), Some(412));
        assert_eq!(seq_of(br#"{"type":"message","seq":"no"}"#), None);
        assert_eq!(seq_of(b"[load:"), None);
    }

    fn members(line: &str, thread: usize, threads: usize) -> Vec<(usize, bool)> {
        let plan = Plan::typed(line);
        let crate::plan::Mode::Fanout(fanout) = &plan.mode else { panic!("{line}") };
        let share = Share { thread, threads };
        let fanout = Fanout::new(&plan, fanout, share, &RunState::new(&plan));
        fanout.members.iter().map(|member| (member.room, member.publishes)).collect()
    }

    #[test]
    fn publishers_and_subscribers_are_spread_over_the_rooms() {
        let all = members("fanout --publishers 2 --subscribers 4 --rooms 2", 0, 1);
        assert_eq!(all, [(0, true), (1, true), (0, false), (1, false), (0, false), (1, false)]);
        let second = members("fanout --publishers 2 --subscribers 4 --rooms 2", 1, 2);
        assert_eq!(second, [(1, true), (1, false), (1, false)]);
    }
}
