//! The thread that makes connections, so that the engine's own thread never waits for a name, a
//! handshake or a Sentinel.

use std::{io, sync::Arc, thread};

use crossbeam_channel::{Receiver, Sender};
use mio::Waker;

use super::dial::{DialError, Dialed, Route};

/// The most questions that wait for the thread: one of each kind.
const JOBS_MAX: usize = 2;

/// What the thread is asked to do.
#[derive(Debug)]
enum Job {
    Dial,
    FindPrimary,
}

/// What it has found.
#[derive(Debug)]
pub(super) enum Found {
    Dialed(Result<Box<Dialed>, DialError>),
    /// Where the primary is, as the Sentinels say.
    Primary(Result<String, String>),
}

/// The thread that makes connections. It ends when this is dropped, after what it does.
#[derive(Debug)]
pub(super) struct Dialer {
    jobs: Sender<Job>,
    found: Receiver<Found>,
}

impl Dialer {
    /// Starts the thread, which rings `waker` whenever it has found something.
    pub(super) fn start(route: Route, waker: Arc<Waker>) -> io::Result<Dialer> {
        let (jobs, asked) = crossbeam_channel::bounded(JOBS_MAX);
        let (tell, found) = crossbeam_channel::bounded(JOBS_MAX);
        let run = move || run(route, &asked, &tell, &waker);
        thread::Builder::new().name("rusty-socks-dialer".to_owned()).spawn(run)?;
        Ok(Dialer { jobs, found })
    }

    /// Has it connect; whether it will.
    pub(super) fn dial(&self) -> bool {
        self.jobs.try_send(Job::Dial).is_ok()
    }

    /// Has it ask the Sentinels; whether it will.
    pub(super) fn find_primary(&self) -> bool {
        self.jobs.try_send(Job::FindPrimary).is_ok()
    }

    /// Returns what it has found, in order.
    pub(super) fn found(&self) -> Option<Found> {
        self.found.try_recv().ok()
    }
}

fn run(mut route: Route, asked: &Receiver<Job>, tell: &Sender<Found>, waker: &Waker) {
    for job in asked {
        let found = match job {
            Job::Dial => Found::Dialed(route.dial().map(Box::new)),
            Job::FindPrimary => Found::Primary(route.primary().map(|host| host.to_string())),
        };
        // Otherwise the link is gone.
        if tell.send(found).is_err() || waker.wake().is_err() {
            return;
        }
    }
}
