//! Permits taken and given back, and passed on to those who wait in line.

use std::{collections::VecDeque, sync::Arc};

use super::{Path, Round};
use crate::{
    hub::{
        conn_id::ConnId,
        mailbox::{Letter, MailboxBounds, MailboxReceiver, mailboxes_without_workers},
    },
    pool::admission::{Admission, Answer, Permit, Ticket},
};

pub(super) const PERMIT: Path = Path {
    name: "admission.permit",
    unit: "permit taken and given back",
    units: MANY,
    open: || Box::new(Entrance::new(MANY as usize)),
};

pub(super) const LINE: Path = Path {
    name: "admission.line",
    unit: "permit waited for",
    units: MANY,
    open: || Box::new(Line::new()),
};

const MANY: u64 = 64;

/// Those who wait behind whoever comes in, so that the line is one.
const WAITING: u32 = 64;

struct Entrance {
    admission: Arc<Admission>,
    permits: Vec<Permit>,
    mailbox: MailboxReceiver,
    served: u64,
}

impl Entrance {
    fn new(permits_max: usize) -> Entrance {
        let bounds = MailboxBounds { letters_max: 1000, bytes_max: 1 << 20 };
        let (mailboxes, mut receivers) = mailboxes_without_workers(1, bounds);
        let admission = Admission::new(permits_max, 2 * WAITING as usize, mailboxes);
        Entrance { admission, permits: Vec::new(), mailbox: receivers.remove(0), served: 0 }
    }

    fn ask(&self, slot: u32) -> Answer {
        self.admission.ask(ConnId { worker: 0, slot, generation: 0 })
    }
}

impl Round for Entrance {
    fn play(&mut self) {
        for slot in 0..MANY as u32 {
            if let Answer::Served(permit) = self.ask(slot) {
                self.permits.push(permit);
                self.served += 1;
            }
        }
        self.permits.clear();
    }

    fn done(&mut self) -> u64 {
        assert_eq!(self.admission.gauges(), (0, 0));
        std::mem::take(&mut self.served)
    }
}

/// One is inside, and as each of them leaves the first in line comes in and another takes its place.
struct Line {
    entrance: Entrance,
    inside: Option<Permit>,
    line: VecDeque<Ticket>,
}

impl Line {
    fn new() -> Line {
        let entrance = Entrance::new(1);
        let Answer::Served(permit) = entrance.ask(0) else { panic!("there is a permit") };
        let mut line = Line { entrance, inside: Some(permit), line: VecDeque::new() };
        (0..WAITING).for_each(|slot| line.join(slot));
        line
    }

    fn join(&mut self, slot: u32) {
        if let Answer::Waits(ticket) = self.entrance.ask(slot) {
            self.line.push_back(ticket);
        }
    }
}

impl Round for Line {
    fn play(&mut self) {
        for _ in 0..MANY {
            self.inside = None;
            if let Some(Letter::Admitted { conn }) = self.entrance.mailbox.take()
                && let Some(ticket) = self.line.pop_front()
                && let Ok(permit) = ticket.claim()
            {
                self.inside = Some(permit);
                self.entrance.served += 1;
                self.join(conn.slot);
            }
        }
    }

    fn done(&mut self) -> u64 {
        assert_eq!(self.entrance.admission.gauges(), (1, WAITING as usize));
        std::mem::take(&mut self.entrance.served)
    }
}
