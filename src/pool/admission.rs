//! Admission: permits, and the line of upgrades that wait for one.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use parking_lot::Mutex;

use crate::hub::{
    conn_id::ConnId,
    mailbox::{Letter, Mailboxes},
};

/// The permits and the line. One per server; usable from any thread.
pub(crate) struct Admission {
    state: Mutex<State>,
    mailboxes: Mailboxes,
}

struct State {
    permits_max: usize,
    line_max: usize,
    /// Permits held by connections, and those set aside for upgrades whose letter is on its way.
    permits_used: usize,
    /// The waiting upgrades by ticket number, which is the order of arrival.
    line: BTreeMap<u64, ConnId>,
    /// Tickets whose permit is set aside.
    granted: BTreeSet<u64>,
    next_ticket: u64,
    /// Nobody is served, permits or not: memory is short.
    held: bool,
    closed: bool,
}

/// The right to be served. Dropping it passes it to the first in line.
pub(crate) struct Permit(Arc<Admission>);

/// A position in the line. Dropping it leaves the line, or passes on the permit that was set aside.
pub(crate) struct Ticket {
    admission: Arc<Admission>,
    number: u64,
    is_for_memory: bool,
}

/// What an upgrade gets.
pub(crate) enum Answer {
    Served(Permit),
    Waits(Ticket),
    Full,
    Draining,
}

impl Admission {
    pub(crate) fn new(permits_max: usize, line_max: usize, mailboxes: Mailboxes) -> Arc<Admission> {
        let state = State {
            permits_max,
            line_max,
            permits_used: 0,
            line: BTreeMap::new(),
            granted: BTreeSet::new(),
            next_ticket: 0,
            held: false,
            closed: false,
        };
        Arc::new(Admission { state: Mutex::new(state), mailboxes })
    }

    /// Asks for a permit on behalf of `conn`. No upgrade overtakes the line.
    pub(crate) fn ask(self: &Arc<Admission>, conn: ConnId) -> Answer {
        let mut state = self.state.lock();
        if state.closed {
            return Answer::Draining;
        }
        let has_permit = state.permits_used < state.permits_max && state.line.is_empty();
        if has_permit && !state.held {
            state.permits_used += 1;
            return Answer::Served(Permit(Arc::clone(self)));
        }
        if state.line.len() >= state.line_max {
            return Answer::Full;
        }
        let number = state.next_ticket;
        state.next_ticket += 1;
        state.line.insert(number, conn);
        let is_for_memory = state.held && state.permits_used < state.permits_max;
        Answer::Waits(Ticket { admission: Arc::clone(self), number, is_for_memory })
    }

    /// Lets every upgrade wait in line, or serves as many of those who wait as there are permits.
    pub(crate) fn set_held(&self, held: bool) {
        self.change(|state| state.held = held);
    }

    /// Changes how many permits there are, and how many may wait. Those beyond it stay: a permit
    /// that comes back then goes to nobody.
    pub(crate) fn set_bounds(&self, permits_max: usize, line_max: usize) {
        self.change(|state| (state.permits_max, state.line_max) = (permits_max, line_max));
    }

    /// Serves as many of those who wait as may be served after `change`.
    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut admitted = Vec::new();
        {
            let mut state = self.state.lock();
            change(&mut state);
            while !state.held
                && state.permits_used < state.permits_max
                && let Some((number, conn)) = state.line.pop_first()
            {
                state.permits_used += 1;
                state.granted.insert(number);
                admitted.push(conn);
            }
        }
        for conn in admitted {
            self.mailboxes.send_control(conn.worker(), Letter::Admitted { conn });
        }
    }

    /// Whether every upgrade waits in line, because memory is short.
    pub(crate) fn is_held(&self) -> bool {
        self.state.lock().held
    }

    /// Whether somebody waits in line for want of memory alone.
    pub(crate) fn waits_for_memory(&self) -> bool {
        let state = self.state.lock();
        state.held && !state.line.is_empty() && state.permits_used < state.permits_max
    }

    /// Admits no more: from now on every upgrade is refused because the server drains.
    pub(crate) fn close(&self) {
        self.state.lock().closed = true;
    }

    /// Permits in use and upgrades waiting.
    pub(crate) fn gauges(&self) -> (usize, usize) {
        let state = self.state.lock();
        (state.permits_used, state.line.len())
    }

    /// Takes a permit back, and hands it to the first in line.
    fn release(&self) {
        let next = {
            let mut state = self.state.lock();
            // The permit stays in use if somebody waits: it only changes hands.
            let is_over = state.permits_used > state.permits_max;
            let first = if state.held || is_over { None } else { state.line.pop_first() };
            match first {
                Some((number, conn)) => {
                    state.granted.insert(number);
                    Some(conn)
                }
                None => {
                    state.permits_used -= 1;
                    None
                }
            }
        };
        if let Some(conn) = next {
            self.mailboxes.send_control(conn.worker(), Letter::Admitted { conn });
        }
    }
}

impl Ticket {
    /// Whether it waits for memory and not for a permit.
    pub(crate) fn is_for_memory(&self) -> bool {
        self.is_for_memory
    }

    /// Turns a ticket whose permit was set aside into that permit; gives it back unchanged
    /// otherwise.
    pub(crate) fn claim(self) -> Result<Permit, Ticket> {
        let granted = self.admission.state.lock().granted.remove(&self.number);
        match granted {
            // The ticket's own drop then finds neither a position in line nor a grant.
            true => Ok(Permit(Arc::clone(&self.admission))),
            false => Err(self),
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let granted = {
            let mut state = self.admission.state.lock();
            state.line.remove(&self.number);
            state.granted.remove(&self.number)
        };
        if granted {
            self.admission.release();
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.release();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::mailbox::{MailboxBounds, MailboxReceiver};

    fn admission(permits: usize, line: usize) -> (Arc<Admission>, MailboxReceiver, mio::Poll) {
        let poll = mio::Poll::new().expect("a poll");
        let waker = mio::Waker::new(poll.registry(), mio::Token(0)).expect("a waker");
        let bounds = MailboxBounds { letters_max: 100, bytes_max: 1000 };
        let (mailboxes, mut receivers) = Mailboxes::new(vec![waker], bounds);
        (Admission::new(permits, line, mailboxes), receivers.remove(0), poll)
    }

    fn conn(slot: u32) -> ConnId {
        ConnId { worker: 0, slot, generation: 0 }
    }

    fn admitted(inbox: &MailboxReceiver) -> Option<u32> {
        match inbox.take() {
            Some(Letter::Admitted { conn }) => Some(conn.slot),
            _ => None,
        }
    }

    fn wait(admission: &Arc<Admission>, slot: u32) -> Ticket {
        match admission.ask(conn(slot)) {
            Answer::Waits(ticket) => ticket,
            _ => panic!("{slot} should wait"),
        }
    }

    fn serve(admission: &Arc<Admission>, slot: u32) -> Permit {
        match admission.ask(conn(slot)) {
            Answer::Served(permit) => permit,
            _ => panic!("{slot} should be served"),
        }
    }

    #[test]
    fn the_line_is_served_in_order_of_arrival() {
        let (admission, inbox, _poll) = admission(1, 2);
        let permit = serve(&admission, 0);
        let (first, second) = (wait(&admission, 1), wait(&admission, 2));
        assert!(matches!(admission.ask(conn(3)), Answer::Full));
        assert_eq!(admission.gauges(), (1, 2));
        let Err(second) = second.claim() else { panic!("not yet") };
        drop(permit);
        assert_eq!(admitted(&inbox), Some(1));
        let Ok(permit) = first.claim() else { panic!("its turn") };
        assert_eq!(admission.gauges(), (1, 1));
        drop(permit);
        assert_eq!(admitted(&inbox), Some(2));
        drop(second.claim());
        assert_eq!(admission.gauges(), (0, 0));
    }

    #[test]
    fn while_it_is_held_nobody_is_served() {
        let (admission, inbox, _poll) = admission(2, 3);
        let permit = serve(&admission, 0);
        admission.set_held(true);
        assert!(!admission.waits_for_memory());
        let tickets = [wait(&admission, 1), wait(&admission, 2), wait(&admission, 3)];
        assert!(tickets[0].is_for_memory() && admission.is_held());
        assert!(admission.waits_for_memory());
        assert!(matches!(admission.ask(conn(4)), Answer::Full));
        drop(permit);
        assert_eq!((admitted(&inbox), admission.gauges()), (None, (0, 3)));
        admission.set_held(false);
        assert_eq!(
            [admitted(&inbox), admitted(&inbox), admitted(&inbox)],
            [Some(1), Some(2), None]
        );
        let served = tickets.map(Ticket::claim);
        assert!(served[0].is_ok() && served[1].is_ok() && served[2].is_err());
        assert_eq!(admission.gauges(), (2, 1));
        drop(served);
        assert_eq!(admission.gauges(), (0, 0));
    }

    #[test]
    fn other_bounds_serve_those_who_wait_and_take_from_nobody() {
        let (admission, inbox, _poll) = admission(1, 2);
        let permit = serve(&admission, 0);
        let tickets = [wait(&admission, 1), wait(&admission, 2)];
        admission.set_bounds(2, 2);
        assert_eq!((admitted(&inbox), admitted(&inbox)), (Some(1), None));
        admission.set_bounds(1, 1);
        assert_eq!(admission.gauges(), (2, 1));
        let [first, second] = tickets;
        let first = first.claim().ok().expect("its turn");
        drop(permit);
        assert_eq!((admitted(&inbox), admission.gauges()), (None, (1, 1)));
        drop(first);
        assert_eq!((admitted(&inbox), admission.gauges()), (Some(2), (1, 0)));
        drop(second);
        assert_eq!(admission.gauges(), (0, 0));
    }

    #[test]
    fn who_hangs_up_leaves_the_line_and_loses_no_permit() {
        let (admission, inbox, _poll) = admission(1, 3);
        let permit = serve(&admission, 0);
        let (first, second, third) =
            (wait(&admission, 1), wait(&admission, 2), wait(&admission, 3));
        drop(first);
        drop(permit);
        assert_eq!(admitted(&inbox), Some(2));
        // Hangs up after the permit was set aside and before it heard.
        drop(second);
        assert_eq!(admitted(&inbox), Some(3));
        drop(third.claim());
        assert_eq!(admission.gauges(), (0, 0));
        drop(serve(&admission, 4));
        admission.close();
        assert!(matches!(admission.ask(conn(5)), Answer::Draining));
    }
}
