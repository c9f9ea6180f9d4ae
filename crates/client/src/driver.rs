//! The thread behind a [`Session`](super::Session): it connects, carries frames, and comes back.

use std::{
    collections::VecDeque,
    mem,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, Select, Sender};
use uuid::Uuid;

use crate::{CloseReason, Message};

use super::{
    ask::Request,
    backoff::{Backoff, Ended, Verdict},
    conversation::{Conversation, Rules},
    error::{Error, ErrorKind},
    event::Event,
    queue::EventQueue,
    received::Received,
    session_shared::{Health, SessionShared, Watch},
    socket::{Client, ClientBuilder},
    target::Target,
    token::TokenProvider,
};

/// How much longer than its interval of pings a server may be silent.
const SILENCE_SPARE: Duration = Duration::from_secs(15);

/// How long a server may take to say its welcome, or to answer a resume.
const WELCOME_TIMEOUT: Duration = Duration::from_secs(15);

/// Longer than anything waits; the loop comes round then, and sleeps again.
const LONG: Duration = Duration::from_secs(3600);

/// The ends that the driver holds.
pub(crate) struct Channels {
    pub(crate) requests: Receiver<Request>,
    pub(crate) woken: Receiver<()>,
    pub(crate) events: Arc<EventQueue>,
    pub(crate) greet: Sender<Result<(), Error>>,
}

impl Drop for Channels {
    /// Whoever waits for an event waits no longer, even if the thread has panicked.
    fn drop(&mut self) {
        self.events.end(VecDeque::new());
    }
}

/// How the session takes its ends.
pub(crate) struct SessionPolicy {
    pub(crate) is_patient: bool,
    pub(crate) takes_events: bool,
    pub(crate) reconnects: bool,
    pub(crate) tokens: Option<TokenProvider>,
    pub(crate) watch: Option<Watch>,
}

pub(crate) struct Driver {
    client: ClientBuilder,
    /// Where it may connect to, and at which of them it is.
    nodes: Vec<Target>,
    at: usize,
    shared: Arc<SessionShared>,
    channels: Channels,
    policy: SessionPolicy,
    conversation: Conversation,
    backoff: Backoff,
    /// The server has known us at least once.
    was_welcome: bool,
}

/// What a wait was ended by.
enum Wake {
    Received(Received),
    /// The connection is over.
    Ended,
    /// Something else, which is already dealt with; or it is time.
    Other,
}

impl Drop for Driver {
    /// Whoever waits for the end waits no longer, even if the thread has panicked: a function that
    /// provides tokens is the caller's.
    fn drop(&mut self) {
        if self.shared.end.get().is_some() {
            return;
        }
        let over = Error::new(ErrorKind::Closed, "the thread of the session has panicked");
        let _ = self.shared.end.set(Err(over.clone()));
        self.shared.rooms.clear();
        *self.shared.is_over.lock() = true;
        self.shared.over.notify_all();
        self.notify(Health::Over(over));
    }
}

impl Driver {
    pub(crate) fn new(
        client: ClientBuilder,
        nodes: Vec<Target>,
        rules: Rules,
        shared: Arc<SessionShared>,
        channels: Channels,
        policy: SessionPolicy,
    ) -> Driver {
        let rooms = Arc::clone(&shared.rooms);
        Driver {
            client,
            nodes,
            at: 0,
            shared,
            channels,
            policy,
            conversation: Conversation::new(rules, rooms),
            backoff: Backoff::default(),
            was_welcome: false,
        }
    }

    pub(crate) fn run(mut self) {
        let end = loop {
            if self.is_closing() {
                break Ok(());
            }
            self.hand_over();
            let (error, lived) = match self.connect() {
                Ok(client) => match self.serve(&client) {
                    Ok(()) => break Ok(()),
                    Err(ended) => ended,
                },
                Err(error) => (error, None),
            };
            self.conversation.lost();
            self.notify(Health::Down(error.clone()));
            let random = (Uuid::new_v4().as_u64_pair().0 >> 16) as f64 / (1u64 << 48) as f64;
            let told = self.conversation.closing.take();
            let verdict = self.backoff.after(&ended(&error), lived, told, random);
            let may_return = self.policy.reconnects
                && self.conversation.fault.is_none()
                && (self.was_welcome || self.policy.is_patient);
            let Verdict::Wait(wait) = verdict else { break Err(error) };
            if !may_return {
                break Err(error);
            }
            let reason = error.close_reason().cloned().unwrap_or_else(|| {
                CloseReason::received(CloseReason::LOST.code(), error.to_string())
            });
            log::debug!("{error}; coming back in {wait:?}");
            // Any node will do, and another one is more likely to be there.
            self.at = (self.at + 1) % self.nodes.len();
            self.tell(Event::Disconnected { reason, retry_in: wait });
            let until = Instant::now() + wait;
            while Instant::now() < until && !self.is_closing() {
                self.wait(None, until);
            }
        };
        self.finish(end);
    }

    /// Connects, with a token if there is a provider.
    fn connect(&self) -> Result<Client, Error> {
        let node = &self.nodes[self.at];
        self.shared.node.store(self.at, Ordering::SeqCst);
        match &self.policy.tokens {
            None => self.client.connect_to(node),
            Some(tokens) => {
                let value = format!("Bearer {}", tokens.token()?);
                self.client.clone().header("Authorization", value).connect_to(node)
            }
        }
    }

    /// Tells whoever watches whether the session is of use.
    fn notify(&self, health: Health) {
        if let Some(watch) = &self.policy.watch {
            watch(health);
        }
    }

    /// Gets a new token in place of the one that is about to end. If there is none to be had, the
    /// server closes the connection in time, and the next one tries again.
    fn renew(&mut self) {
        let Some(tokens) = &self.policy.tokens else { return };
        match tokens.token() {
            Ok(token) => self.conversation.renew(token),
            Err(error) => log::warn!("the token is not renewed: {error}"),
        }
    }

    fn is_closing(&self) -> bool {
        self.shared.close.load(Ordering::SeqCst)
    }

    fn tell(&mut self, event: Event) {
        if self.policy.takes_events {
            self.conversation.events.push_back(event);
        }
    }

    /// Carries frames both ways until the connection ends, `Ok` if that was asked for; else why,
    /// and how long it was of use.
    fn serve(&mut self, client: &Client) -> Result<(), (Error, Option<Duration>)> {
        let mut welcome_since = None;
        let welcome_until = Instant::now() + WELCOME_TIMEOUT;
        self.conversation.opened(Instant::now());
        loop {
            if mem::take(&mut self.conversation.needs_token) {
                self.renew();
            }
            self.conversation.pump(Instant::now());
            for frame in self.conversation.frames.drain(..) {
                // A connection that is over says so when it is read.
                let _ = client.queue(Message::Text(&frame));
            }
            if let Some(ping) = self.conversation.ping.take() {
                let silence_max = ping + SILENCE_SPARE;
                client.expect_signs(silence_max, silence_max / 2);
            }
            if let Some(who) = self.conversation.who.take() {
                *self.shared.who.lock() = who;
            }
            if self.conversation.is_welcome() && welcome_since.is_none() {
                welcome_since = Some(Instant::now());
                self.was_welcome = true;
                let _ = self.channels.greet.try_send(Ok(()));
                self.notify(Health::Up);
            }
            if self.is_closing() {
                // However it ends, it has ended.
                let _ = client.close(CloseReason::NORMAL);
                return Ok(());
            }
            if let Some(fault) = &self.conversation.fault {
                client.begin_close(CloseReason::NORMAL);
                return Err((fault.clone(), None));
            }
            let mut until = Instant::now() + LONG;
            if welcome_since.is_none() {
                until = welcome_until;
                if Instant::now() >= until {
                    client.begin_close(CloseReason::NORMAL);
                    let text = "no welcome: is this a route of the chat protocol?";
                    return Err((Error::new(ErrorKind::Timeout, text), None));
                }
            }
            until = self.conversation.due().map_or(until, |due| due.min(until));
            match self.wait(Some(client), until) {
                Wake::Received(received) => {
                    if let Some(text) = received.as_text() {
                        self.conversation.frame(text, Instant::now());
                    }
                }
                Wake::Ended => {
                    let lived = welcome_since.map(|since: Instant| since.elapsed());
                    return Err((client.ended(), lived));
                }
                Wake::Other => {}
            }
        }
    }

    /// Hands over events until the queue is full; and takes back those of rooms that were left
    /// meanwhile.
    fn hand_over(&mut self) {
        if !self.policy.takes_events {
            self.conversation.events.clear();
        }
        for leave in mem::take(&mut self.conversation.left) {
            self.channels.events.retain(|event| !self.conversation.is_void(event, leave));
        }
        self.channels.events.fill(&mut self.conversation.events);
    }

    /// Sleeps until a request, a frame, a ring, or the time has come. While events wait for room,
    /// frames are not taken.
    fn wait(&mut self, client: Option<&Client>, until: Instant) -> Wake {
        self.hand_over();
        let mut select = Select::new();
        let requests = select.recv(&self.channels.requests);
        let woken = select.recv(&self.channels.woken);
        let client = client.filter(|_| self.conversation.events.is_empty());
        let incoming = client.map(|client| (client, select.recv(client.incoming())));
        let Ok(ready) = select.select_deadline(until) else { return Wake::Other };
        let index = ready.index();
        if index == requests {
            match ready.recv(&self.channels.requests) {
                Ok(request) => self.conversation.submit(request),
                Err(_) => self.shared.close.store(true, Ordering::SeqCst),
            }
        } else if index == woken {
            // A close, there is room for events, or a subscription is gone.
            if ready.recv(&self.channels.woken).is_err() {
                self.shared.close.store(true, Ordering::SeqCst);
            }
            if self.shared.has_dropped_subscriptions.swap(false, Ordering::SeqCst) {
                self.conversation.forget_dropped_subscribers();
            }
        } else if let Some((client, _)) = incoming {
            return match ready.recv(client.incoming()) {
                Ok(received) => Wake::Received(client.taken(received)),
                Err(_) => Wake::Ended,
            };
        }
        Wake::Other
    }

    /// Tells everyone who waits, and hands over the last events.
    fn finish(&mut self, end: Result<(), Error>) {
        let over = match &end {
            Ok(()) => Error::new(ErrorKind::Closed, "the session is closed"),
            Err(error) => error.clone(),
        };
        self.conversation.end_subscribers(&end);
        let _ = self.shared.end.set(end);
        let _ = self.channels.greet.try_send(Err(over.clone()));
        self.conversation.end(&over);
        while let Ok(request) = self.channels.requests.try_recv() {
            request.answer(Err(over.clone()));
        }
        *self.shared.is_over.lock() = true;
        self.shared.over.notify_all();
        self.hand_over();
        self.channels.events.end(mem::take(&mut self.conversation.events));
        self.notify(Health::Over(over));
    }
}

/// What the rules for coming back want to know of an error.
fn ended(error: &Error) -> Ended {
    if let Some(refused) = error.refused() {
        let (is_temporary, retry_after) = (refused.is_temporary(), refused.retry_after);
        return Ended::Refused { is_temporary, retry_after };
    }
    match (error.close_reason(), error.kind()) {
        (Some(reason), _) => Ended::Closed(reason.code()),
        (None, ErrorKind::Unreachable) => Ended::Unreachable,
        (None, _) => Ended::Lost,
    }
}
