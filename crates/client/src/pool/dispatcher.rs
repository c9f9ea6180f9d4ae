//! The thread behind a pool: it decides which session takes which publish, and what becomes of
//! those whose session is lost.
//!
//! Here is what it is told and what follows from that; `placement.rs` says which session is for
//! which publish. It never blocks but for the next note: what waits for a session waits here, in
//! the order of the calls, and a session is given only as much as keeps it busy. So little has to
//! be taken back when a session loses its connection, and nothing that was sent ever is.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};

use crate::{
    ask::Answer,
    error::{Error, ErrorKind},
    session_shared::Health,
};

use super::{
    bounds::Bounds,
    member::{Member, RoomPhase},
    note::Note,
    outcome::Outcome,
    pending::Pending,
    stats::{PoolStats, SessionHealth},
};

/// Longer than anything waits; the loop comes round then, and sleeps again.
const LONG: Duration = Duration::from_secs(3600);

/// The settings that the thread keeps to.
#[derive(Debug, Clone)]
pub(super) struct DispatcherSettings {
    /// Publishes that one session has at once.
    pub(super) given_max: usize,
    pub(super) rooms_max: usize,
    pub(super) move_after: Duration,
    pub(super) replace_after: Duration,
}

/// Which session has a room.
#[derive(Debug, Default)]
pub(super) struct Pin {
    pub(super) member: Option<usize>,
    /// Publishes to it that are unanswered.
    pub(super) pending: usize,
}

#[derive(Debug)]
pub(super) struct Dispatcher {
    pub(super) settings: DispatcherSettings,
    pub(super) members: Vec<Member>,
    pub(super) notes: Sender<Note>,
    noted: Receiver<Note>,
    bounds: Arc<Bounds>,
    outcome: Arc<Outcome>,
    /// Told once how the beginning went.
    greet: Option<Sender<Result<(), Error>>>,
    /// What is unanswered, by numbers in the order of the calls.
    pub(super) pending: BTreeMap<u64, Pending>,
    deadlines: BTreeSet<(Instant, u64)>,
    /// Each room that something is unanswered to, or that its session is in.
    pub(super) pins: HashMap<Arc<str>, Pin>,
    /// Numbers of publishes, attempts at them and uses of rooms.
    numbers: u64,
    /// Since a close was asked for: until when it waits, and whether nobody can ask for more.
    closing: Option<Option<Instant>>,
    is_abandoned: bool,
}

impl Drop for Dispatcher {
    /// Whoever waits for the end waits no longer, even if the thread has panicked.
    fn drop(&mut self) {
        self.bounds.close();
        let error = Error::new(ErrorKind::Closed, "the pool is over");
        self.outcome.set(Err(error), PoolStats::default());
    }
}

impl Dispatcher {
    pub(super) fn new(
        settings: DispatcherSettings,
        members: Vec<Member>,
        (notes, noted): (Sender<Note>, Receiver<Note>),
        bounds: Arc<Bounds>,
        outcome: Arc<Outcome>,
        greet: Sender<Result<(), Error>>,
    ) -> Dispatcher {
        Dispatcher {
            settings,
            members,
            notes,
            noted,
            bounds,
            outcome,
            greet: Some(greet),
            pending: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            pins: HashMap::new(),
            numbers: 0,
            closing: None,
            is_abandoned: false,
        }
    }

    pub(super) fn run(mut self) {
        loop {
            match self.noted.recv_deadline(self.due()) {
                Ok(note) => self.take(note),
                Err(RecvTimeoutError::Timeout) => {}
                // It has an end of its own.
                Err(RecvTimeoutError::Disconnected) => break,
            }
            let now = Instant::now();
            self.expire(now);
            self.revive(now);
            self.move_on(now);
            let is_late = self.closing.flatten().is_some_and(|deadline| deadline <= now);
            let is_done = self.closing.is_some() || self.is_abandoned;
            if is_late || is_done && self.pending.is_empty() {
                break;
            }
        }
        self.finish();
    }

    /// When there is something to do, if nothing comes before.
    fn due(&self) -> Instant {
        let now = Instant::now();
        let mut due = now + LONG;
        if let Some((deadline, _)) = self.deadlines.first() {
            due = due.min(*deadline);
        }
        if let Some(deadline) = self.closing.flatten() {
            due = due.min(deadline);
        }
        for member in &self.members {
            match member.health {
                SessionHealth::Connected => {}
                SessionHealth::Over => {
                    due = self.replacement_due(member).map_or(due, |at| due.min(at));
                }
                SessionHealth::Disconnected => {
                    let at = member.since.checked_add(self.settings.move_after);
                    if let Some(at) = at.filter(|at| member.assigned > 0 && *at > now) {
                        due = due.min(at);
                    }
                }
            }
        }
        due
    }

    /// When another session takes the place of one that has ended. None does after a close.
    fn replacement_due(&self, ended: &Member) -> Option<Instant> {
        let at = ended.since.checked_add(self.settings.replace_after);
        at.filter(|_| ended.is_over() && self.closing.is_none())
    }

    fn take(&mut self, note: Note) {
        match note {
            Note::Publish(pending) => self.publish(pending),
            Note::Stats(reply) => drop(reply.try_send(self.stats())),
            Note::Close { deadline } => {
                self.closing.get_or_insert(deadline);
            }
            Note::HandlesGone => self.is_abandoned = true,
            Note::Health { member, life, health } if self.members[member].life == life => {
                self.note_health(member, health);
            }
            Note::Joined { member, life, room, result } if self.members[member].life == life => {
                self.joined(member, &room, result);
            }
            Note::Answered { member, life, number, attempt, result } => {
                if self.members[member].life == life {
                    self.members[member].given -= 1;
                }
                self.answered(member, number, attempt, result);
                self.pump(member);
            }
            // Of a session that was replaced.
            Note::Health { .. } | Note::Joined { .. } => {}
        }
    }

    pub(super) fn next_number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    fn publish(&mut self, pending: Pending) {
        if self.closing.is_some() {
            let error = Error::new(ErrorKind::Closed, "the pool is closed");
            return drop(pending.reply.try_send(Err(error)));
        }
        if pending.deadline <= Instant::now() {
            // Else it might be sent, and nobody would know.
            let error = Error::new(ErrorKind::Timeout, "its deadline was over before it was sent");
            return drop(pending.reply.try_send(Err(error)));
        }
        let number = self.next_number();
        self.deadlines.insert((pending.deadline, number));
        let pin = self.pins.entry(Arc::clone(&pending.room)).or_default();
        pin.pending += 1;
        self.pending.insert(number, pending);
        if let Some(member) = self.place(number) {
            self.pump(member);
        }
    }

    fn joined(&mut self, index: usize, room: &Arc<str>, result: Result<(), Error>) {
        self.note_end(index);
        let member = &mut self.members[index];
        let Some(of) = member.rooms.get_mut(room) else { return };
        let RoomPhase::Joining(waiting) = &mut of.phase else { return };
        match result {
            Ok(()) => {
                let waiting: Vec<u64> = waiting.drain(..).collect();
                of.phase = RoomPhase::Joined;
                waiting.into_iter().for_each(|number| member.queue(number));
            }
            Err(error) => {
                let waiting: Vec<u64> = waiting.drain(..).collect();
                member.rooms.remove(room);
                for number in waiting {
                    self.answer(number, Err(error.clone()));
                }
            }
        }
        self.pump(index);
    }

    /// What a session says of a publish.
    fn answered(&mut self, index: usize, number: u64, attempt: u64, result: Result<Answer, Error>) {
        self.note_end(index);
        let Some(pending) = self.pending.get_mut(&number) else { return };
        let Some(given) = pending.given.as_ref().filter(|given| given.attempt == attempt) else {
            return;
        };
        let Err(error) = &result else { return self.answer(number, result) };
        let is_outside = error.code() == Some("not_member") && !pending.was_outside;
        if is_outside {
            // The server has taken the session out of the room. It says why when asked to join.
            pending.was_outside = true;
            let room = Arc::clone(&pending.room);
            let member = &mut self.members[index];
            if let Some(of) = member.rooms.get_mut(&room)
                && matches!(of.phase, RoomPhase::Joined)
            {
                of.phase = RoomPhase::Joining(VecDeque::new());
                self.join(index, &room);
            }
            self.place_again(number);
        } else if error.is_of_the_message() {
            self.answer(number, result);
        } else if given.fate.was_sent() {
            let error = Error::unknown(error.clone());
            self.answer(number, Err(error));
        } else {
            // The session has ended before it was sent: another one will do.
            self.place_again(number);
        }
    }

    /// Answers a publish, which is over then.
    pub(super) fn answer(&mut self, number: u64, result: Result<Answer, Error>) {
        let member = self.pending.get(&number).and_then(|pending| pending.member);
        self.unassign(number);
        let Some(pending) = self.pending.remove(&number) else { return };
        self.deadlines.remove(&(pending.deadline, number));
        if let Some(pin) = self.pins.get_mut(&pending.room) {
            pin.pending -= 1;
        }
        self.unpin(&pending.room);
        if let Some(member) = member {
            self.members[member].count(result.is_ok());
        }
        // There is room for one, and who does not wait any more does not mind.
        let _ = pending.reply.try_send(result);
    }

    /// A session that has ended has said so to all who asked before it says so to us.
    fn note_end(&mut self, index: usize) {
        let member = &self.members[index];
        if member.session.is_over() && !member.is_over() {
            self.end(index, member.session.over());
        }
    }

    fn note_health(&mut self, index: usize, health: Health) {
        let now = Instant::now();
        match health {
            Health::Up => {
                self.members[index].rise(now);
                self.greet(Ok(()));
                self.pump(index);
                for other in 0..self.members.len() {
                    if !self.members[other].is_up() {
                        self.reassign(other, now);
                    }
                }
            }
            Health::Down(error) => {
                log::debug!("session {index} of the pool: {error}");
                self.members[index].fall(SessionHealth::Disconnected, error, now);
                self.reassign(index, now);
            }
            Health::Over(error) => self.end(index, error),
        }
        if self.members.iter().all(|member| member.was_heard) {
            let error = self.members.iter().find_map(|member| member.last_error.clone());
            self.greet(error.map_or(Ok(()), Err));
        }
    }

    fn greet(&mut self, result: Result<(), Error>) {
        if let Some(greet) = self.greet.take() {
            let _ = greet.try_send(result);
        }
    }

    /// A session has ended for good.
    fn end(&mut self, index: usize, error: Error) {
        let now = Instant::now();
        if self.members[index].is_over() {
            return;
        }
        log::warn!("session {index} of the pool has ended: {error}");
        let waiting = self.members[index].take_queue();
        self.members[index].fall(SessionHealth::Over, error, now);
        self.members[index].rooms.clear();
        self.pins.retain(|_, pin| pin.pending > 0 || pin.member != Some(index));
        waiting.into_iter().for_each(|number| self.place_again(number));
    }

    /// Gives what waits for a session without a connection to others, where order allows.
    fn reassign(&mut self, index: usize, now: Instant) {
        if !self.members.iter().any(Member::is_up) {
            return;
        }
        let mut numbers = self.members[index].take_queue();
        if self.members[index].is_away_since(self.settings.move_after, now) {
            let withdrawn = self.pending.iter().filter(|(_, pending)| {
                pending.member == Some(index)
                    && pending.given.as_ref().is_some_and(|given| given.fate.withdraw())
            });
            numbers.extend(withdrawn.map(|(number, _)| *number));
            numbers.sort_unstable();
        }
        numbers.into_iter().for_each(|number| self.place_again(number));
    }

    /// Moves what has waited long enough for its session.
    fn move_on(&mut self, now: Instant) {
        for index in 0..self.members.len() {
            let member = &self.members[index];
            let is_late = member.is_away_since(self.settings.move_after, now);
            if is_late && member.assigned > 0 && !member.was_moved {
                self.members[index].was_moved = true;
                self.reassign(index, now);
            }
        }
    }

    /// Answers what has come to its deadline.
    fn expire(&mut self, now: Instant) {
        while let Some((deadline, number)) = self.deadlines.first().copied()
            && deadline <= now
        {
            let error = Error::new(ErrorKind::Timeout, "no session could send it in time");
            self.give_up(number, error);
        }
    }

    /// Answers a publish with this error if it was not sent; else nobody knows.
    fn give_up(&mut self, number: u64, error: Error) {
        let Some(pending) = self.pending.get(&number) else { return };
        let error = match &pending.given {
            Some(given) if !given.fate.withdraw() => {
                given.fate.give_up();
                Error::unknown(Error::new(ErrorKind::Timeout, "no answer in time"))
            }
            _ => error,
        };
        self.answer(number, Err(error));
    }

    /// Opens sessions in place of those that ended a while ago.
    fn revive(&mut self, now: Instant) {
        for index in 0..self.members.len() {
            if self.replacement_due(&self.members[index]).is_none_or(|due| now < due) {
                continue;
            }
            let member = &mut self.members[index];
            let watch = Note::watch(&self.notes, index, member.life + 1);
            match member.builder.connect_watched(&member.urls[0], Some(watch)) {
                Ok(session) => member.replace(session, now),
                Err(error) => {
                    member.last_error = Some(error);
                    member.since = now;
                }
            }
        }
    }

    fn stats(&self) -> PoolStats {
        let (unanswered, unanswered_bytes) = self.bounds.taken();
        let sessions = self.members.iter().map(Member::stats).collect();
        PoolStats { sessions, unanswered, unanswered_bytes }
    }

    /// Answers what is left, and ends the sessions.
    fn finish(mut self) {
        self.bounds.close();
        let left: Vec<u64> = self.pending.keys().copied().collect();
        for number in &left {
            let error = Error::new(ErrorKind::Closed, "the pool was closed before it was sent");
            self.give_up(*number, error);
        }
        self.members.iter().for_each(|member| member.session.begin_close());
        if let Some(deadline) = self.closing {
            let deadline = deadline.unwrap_or_else(|| Instant::now() + LONG);
            // What does not end in time ends later by itself.
            let ended =
                self.members.iter().all(|member| member.session.await_end(deadline).is_ok());
            log::debug!("all sessions of the pool have ended: {ended}");
        }
        let end = match left.len() {
            0 => Ok(()),
            left => {
                let text = format!("{left} publishes were unanswered when the pool was closed");
                Err(Error::new(ErrorKind::Timeout, text))
            }
        };
        self.outcome.set(end, self.stats());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Session;

    /// Else the thread would look again and again for what it does not do any more.
    #[test]
    fn nothing_is_due_for_a_session_that_ended_before_a_close() {
        let (notes, noted) = crossbeam_channel::unbounded();
        let url = "ws://127.0.0.1:1";
        let builder = Session::builder().patient();
        let session = builder.connect(url).expect("a patient one always begins");
        let settings = DispatcherSettings {
            given_max: 1,
            rooms_max: 1,
            move_after: Duration::ZERO,
            replace_after: Duration::ZERO,
        };
        let mut dispatcher = Dispatcher::new(
            settings,
            vec![Member::new(builder, vec![url.to_owned()], session)],
            (notes, noted),
            Arc::new(Bounds::new(1, 1)),
            Arc::default(),
            crossbeam_channel::bounded(1).0,
        );
        dispatcher.end(0, Error::new(ErrorKind::Closed, "over"));
        assert!(dispatcher.due() <= Instant::now(), "another session takes its place");
        dispatcher.take(Note::Close { deadline: None });
        assert!(dispatcher.due() > Instant::now() + LONG / 2);
    }
}
