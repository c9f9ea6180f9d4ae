//! Messages outside rooms: to one session, and to all connections of a route.

use std::{cmp::Ordering, sync::Arc};

use parking_lot::MutexGuard;
use uuid::Uuid;

use super::{
    Hub,
    charge::Charged,
    error::RoomError,
    inbound_token::InboundToken,
    inbox::Inbox,
    mailbox::{Deferred, Letter},
    publish::{Publication, Published},
    session::{Attachment, Recipient, Sender, Session, SessionState},
};
use crate::identity::Permissions;

/// The sender and the receiver of a direct message, both locked.
struct Parties<'a> {
    from: MutexGuard<'a, SessionState>,
    to: Receiver<'a>,
}

enum Receiver<'a> {
    Other(MutexGuard<'a, SessionState>),
    /// The sender, whose lock is taken once.
    Itself,
    Nobody,
}

impl<'a> Parties<'a> {
    /// Locks both sessions. Two sessions are always locked in the order of their client ids.
    fn lock(from: &'a Session, to: Option<&'a Session>) -> Parties<'a> {
        match to.map(|to| (to, from.client_id.cmp(&to.client_id))) {
            Some((to, Ordering::Less)) => {
                let from = from.state.lock();
                Parties { from, to: Receiver::Other(to.state.lock()) }
            }
            Some((to, Ordering::Greater)) => {
                let to = Receiver::Other(to.state.lock());
                Parties { from: from.state.lock(), to }
            }
            Some((_, Ordering::Equal)) => Parties { from: from.state.lock(), to: Receiver::Itself },
            None => Parties { from: from.state.lock(), to: Receiver::Nobody },
        }
    }

    fn receiver(&mut self) -> Option<&mut SessionState> {
        match &mut self.to {
            Receiver::Other(to) => Some(to),
            Receiver::Itself => Some(&mut self.from),
            Receiver::Nobody => None,
        }
    }
}

impl Hub {
    /// Sends a message to one session, and keeps it in the session's inbox, so that a session that
    /// is away, or whose connection loses the message, gets it when it is resumed.
    pub(crate) fn direct(
        &self,
        by: Sender<'_>,
        to: &Uuid,
        publication: &Publication<'_>,
    ) -> Result<Published, RoomError> {
        self.check_memory()?;
        let receiver = self.sessions.find(to);
        let mut deferred = Deferred::default();
        let mut parties = Parties::lock(by.session, receiver.as_deref());
        let to = (to, receiver.as_ref());
        let result = self.direct_between(by, &mut parties, to, publication, &mut deferred);
        drop(parties);
        self.mailboxes.after_unlock(&deferred);
        result
    }

    /// Sends with both sessions locked, so that neither a repeat nor a takeover can interleave.
    fn direct_between(
        &self,
        by: Sender<'_>,
        parties: &mut Parties<'_>,
        (to, session): (&Uuid, Option<&Arc<Session>>),
        publication: &Publication<'_>,
        deferred: &mut Deferred,
    ) -> Result<Published, RoomError> {
        by.check_not_taken_over()?;
        if !parties.from.may_direct {
            return Err(self.forbid(Permissions::DIRECT));
        }
        if let Some(id) = publication.dedup_id
            && let Some(seq) = parties.from.recent_direct(id, to)
        {
            self.sessions.metrics.repeats.add_shared();
            return Ok(Published { seq, behind: false, repeated: true });
        }
        let session = session.ok_or(RoomError::NoSuchClient)?;
        let receiver = parties.receiver().ok_or(RoomError::NoSuchClient)?;
        let seq = self.deliver_to((session, receiver), by, publication, deferred)?;
        self.sessions.metrics.directs.add_shared();
        if let Some(id) = publication.dedup_id {
            let recipient = Recipient::Client(*to, seq);
            parties.from.remember_publish(id, recipient, &self.account.sessions);
        }
        Ok(Published { seq, behind: deferred.behind, repeated: false })
    }

    /// Puts a message into a session's inbox, and sends it if the session has a connection. Returns
    /// the message's number.
    fn deliver_to(
        &self,
        (session, state): (&Arc<Session>, &mut SessionState),
        by: Sender<'_>,
        publication: &Publication<'_>,
        deferred: &mut Deferred,
    ) -> Result<u64, RoomError> {
        let attachment = state.attachment;
        let inbox = state.inbox.get_or_insert_with(|| Box::new(Inbox::new()));
        let seq = inbox.next_seq();
        let frame = publication.encode(&[seq], &self.account.frames);
        match attachment {
            Attachment::Ended => return Err(RoomError::NoSuchClient),
            Attachment::To(conn) => {
                let (worker, bytes) = (conn.worker(), frame.len());
                let Some(inbound) = InboundToken::take(session, bytes, &self.limits.inbound())
                else {
                    self.sessions.metrics.directs_refused.add_shared();
                    return Err(RoomError::ClientBehind);
                };
                self.mailboxes.reserve_all(std::iter::once((worker, bytes)), deferred)?;
                by.session.traffic().in_flight.note_sent(bytes);
                let charge = Charged::new(Some(by.session), bytes, 1, None).part(1);
                let letter =
                    Letter::Send { conn, frame: frame.clone(), charge, inbound: Some(inbound) };
                self.mailboxes.push_reserved(worker, letter, deferred);
            }
            Attachment::Away(_) if inbox.is_full(frame.len(), &self.limits.inbox()) => {
                return Err(RoomError::InboxFull);
            }
            Attachment::Away(_) => {}
        }
        let before = inbox.bytes();
        inbox.push(frame, matches!(attachment, Attachment::To(_)), &self.limits.inbox());
        self.account.inboxes.change(before, inbox.bytes());
        Ok(seq)
    }

    /// Sends a message to every connection of the sender's route except its own. The message is not
    /// kept. If a mailbox is full, none of them gets it.
    pub(crate) fn broadcast(
        &self,
        by: Sender<'_>,
        publication: &Publication<'_>,
    ) -> Result<(), RoomError> {
        self.check_memory()?;
        let frame = self.compressible(publication.encode(&[0], &self.account.frames));
        let mut deferred = Deferred::default();
        // Held until the message is posted, so that a connection that is taken over meanwhile sends
        // nothing more.
        let state = by.session.state.lock();
        by.check_not_taken_over()?;
        if !state.may_direct {
            return Err(self.forbid(Permissions::DIRECT));
        }
        let everyone = (0..self.mailboxes.workers()).map(|worker| (worker, frame.len()));
        let result = self.mailboxes.reserve_all(everyone, &mut deferred);
        if result.is_ok() {
            let (workers, (connected, _)) = (self.mailboxes.workers(), self.sessions.gauges());
            // How many of them each worker has, only the worker knows.
            let here = (connected / workers) as u32;
            by.session.traffic().in_flight.note_sent(frame.len());
            let charged = Charged::new(Some(by.session), frame.len(), connected, None);
            for worker in 0..workers {
                let charge = charged.part(here);
                let (frame, route, except) = (frame.clone(), by.session.route, by.conn);
                let letter = Letter::Broadcast { route, frame, except, charge };
                self.mailboxes.push_reserved(worker, letter, &mut deferred);
            }
        }
        drop(state);
        self.mailboxes.after_unlock(&deferred);
        result
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;
    use crate::{
        config::Config,
        hub::harness::{Bench, DEADLINE, STUCK},
    };

    #[test]
    fn a_repeat_at_the_same_moment_is_sent_once() {
        let mut bench = Bench::new(&Config::default(), 2, 1000);
        let (a, b) = (bench.client(0, true), bench.client(1, true));
        // Whichever has the smaller id, and whatever is locked first.
        for (from, to, worker) in [(&a, &b, 1), (&b, &a, 0), (&a, &a, 0)] {
            let id = Uuid::new_v4();
            let held = to.session.state.lock();
            let (tell, told) = crossbeam_channel::unbounded();
            for _ in 0..2 {
                let (hub, tell) = (Arc::clone(&bench.hub), tell.clone());
                let (from, conn) = (Arc::clone(&from.session), from.conn());
                let to = to.session.client_id;
                thread::spawn(move || {
                    let by = Sender { session: &from, conn };
                    let _ = tell.send(hub.direct(by, &to, &Publication::from("x").dedup_id(id)));
                });
            }
            assert!(told.recv_timeout(STUCK).is_err(), "both wait for the receiver");
            drop(held);
            let repeated = [(); 2].map(|()| {
                let published = told.recv_timeout(DEADLINE).expect("it goes on");
                usize::from(published.expect("it is sent").repeated)
            });
            assert_eq!((repeated.iter().sum::<usize>(), bench.texts(worker).len()), (1, 1));
        }
    }

    #[test]
    fn two_that_send_to_each_other_do_not_wait_for_each_other() {
        const EACH: usize = 20_000;
        // Nobody delivers them, and all are to be taken.
        let config = Config { buffer: 4 * EACH, ..Config::default() };
        let mut bench = Bench::new(&config, 2, 4 * EACH);
        let (a, b) = (bench.client(0, true), bench.client(1, true));
        let (tell, told) = crossbeam_channel::unbounded();
        for (from, to) in [(&a, &b), (&b, &a)] {
            let (hub, tell) = (Arc::clone(&bench.hub), tell.clone());
            let (from, conn) = (Arc::clone(&from.session), from.conn());
            let to = to.session.client_id;
            thread::spawn(move || {
                let by = Sender { session: &from, conn };
                let sent = (0..EACH).all(|_| hub.direct(by, &to, &"x".into()).is_ok());
                let _ = tell.send(sent);
            });
        }
        for _ in 0..2 {
            assert_eq!(told.recv_timeout(DEADLINE), Ok(true));
        }
    }

    #[test]
    fn who_was_taken_over_says_nothing_more() {
        let mut bench = Bench::new(&Config::default(), 1, 1000);
        let (old, other) = (bench.client(0, true), bench.client(0, true));
        let mut new = bench.client(0, true);
        new.resume(&old.session).expect("it is there");
        bench.letters(0);
        let (hub, to) = (&bench.hub, other.session.client_id);
        let old = Sender { session: &old.session, conn: old.conn() };
        assert_eq!(hub.direct(old, &to, &"x".into()).err(), Some(RoomError::TakenOver));
        let broadcast = hub.broadcast(old, &"x".into());
        assert_eq!(broadcast, Err(RoomError::TakenOver));
        assert!(bench.texts(0).is_empty());
        let new = Sender { session: &new.session, conn: new.conn() };
        assert!(hub.direct(new, &to, &"x".into()).is_ok());
        let nobody = Uuid::new_v4();
        assert_eq!(hub.direct(new, &nobody, &"x".into()).err(), Some(RoomError::NoSuchClient));
    }
}
