//! Permits taken and given back, and passed on to those who wait in line.

use std::{collections::VecDeque, sync::Arc};

use super::{Path, Round};
use crate::{
    hub::mailbox::{ConnId, Inbox, Letter, MailboxBounds, post_without_workers},
    pool::admission::{Admission, Answer, Permit, Ticket},
};

pub(super) const PERMIT: Path = Path {
    name: "admission.permit",
    unit: "permit taken and given back",
    units: MANY,
    open: || Box::new(Door::new(MANY as usize)),
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

struct Door {
    admission: Arc<Admission>,
    permits: Vec<Permit>,
    inbox: Inbox,
    served: u64,
}

impl Door {
    fn new(permits_max: usize) -> Door {
        let bounds = MailboxBounds { letters_max: 1000, bytes_max: 1 << 20 };
        let (post, mut inboxes) = post_without_workers(1, bounds);
        let admission = Admission::new(permits_max, 2 * WAITING as usize, post);
        Door { admission, permits: Vec::new(), inbox: inboxes.remove(0), served: 0 }
    }

    fn ask(&self, slot: u32) -> Answer {
        self.admission.ask(ConnId { worker: 0, slot, generation: 0 })
    }
}

impl Round for Door {
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
    door: Door,
    inside: Option<Permit>,
    line: VecDeque<Ticket>,
}

impl Line {
    fn new() -> Line {
        let door = Door::new(1);
        let Answer::Served(permit) = door.ask(0) else { panic!("there is a permit") };
        let mut line = Line { door, inside: Some(permit), line: VecDeque::new() };
        (0..WAITING).for_each(|slot| line.join(slot));
        line
    }

    fn join(&mut self, slot: u32) {
        if let Answer::Waits(ticket) = self.door.ask(slot) {
            self.line.push_back(ticket);
        }
    }
}

impl Round for Line {
    fn play(&mut self) {
        for _ in 0..MANY {
            self.inside = None;
            if let Some(Letter::Admitted { conn }) = self.door.inbox.take()
                && let Some(ticket) = self.line.pop_front()
                && let Ok(permit) = ticket.claim()
            {
                self.inside = Some(permit);
                self.door.served += 1;
                self.join(conn.slot);
            }
        }
    }

    fn done(&mut self) -> u64 {
        assert_eq!(self.door.admission.gauges(), (1, WAITING as usize));
        std::mem::take(&mut self.door.served)
    }
}
