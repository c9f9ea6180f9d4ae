//! The way to one Redis and back: two connections, one for commands and one for subscriptions.
//!
//! `order.rs` is what the core says and hears. A link connects by itself, again and again
//! (`dialer.rs`, a thread, with `dial.rs` and `talk.rs`), so that whoever polls it never waits for
//! anything but the poll. Commands are written in the order in which they were given, many at once,
//! and answered in that order. Whatever is wrong with one of the two connections ends both.

pub(crate) mod address;
mod backoff;
mod dial;
mod dialer;
pub(crate) mod links;
pub(crate) mod order;
mod pipe;
pub(crate) mod settings;
mod stream;
mod talk;
mod trust;
mod wire;

use std::{
    collections::VecDeque,
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use mio::{Registry, Token, Waker, event::Event as Ready};

use address::Place;
use backoff::Backoff;
use dial::{CONNECT_TIMEOUT, DialError, Dialed, Route, SENTINEL_TIMEOUT};
use dialer::{Dialer, Found};
use order::{Code, Event, Order, Refused, Script, ServerFacts, Value};
use pipe::Pipe;
use settings::LinkSettings;
use trust::Trust;

/// How long commands may wait without any answer, and subscriptions without any confirmation. A
/// Redis that has much to do and does it is not given up.
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// How often the Sentinels are asked where the primary is.
pub(crate) const SENTINEL_INTERVAL: Duration = Duration::from_secs(5);

/// How long a link must hold before the waits between attempts are short again.
const STEADY_AFTER: Duration = Duration::from_secs(5);

/// How much is read from a socket at a time, in bytes.
const SCRATCH_BYTES: usize = 64 << 10;

/// The way to one Redis and back. Of one thread, which polls all its [`Links`](links::Links).
#[derive(Debug)]
pub(crate) struct Link {
    settings: Arc<LinkSettings>,
    registry: Registry,
    commands: Token,
    subscriptions: Token,
    dialer: Dialer,
    backoff: Backoff,
    state: State,
    /// What happened since the last poll.
    events: Vec<Event>,
    scratch: Vec<u8>,
}

#[derive(Debug)]
enum State {
    /// The next attempt comes at this time.
    Waiting(Instant),
    Dialing {
        since: Instant,
        /// It was told that the attempt takes long.
        is_told: bool,
    },
    Up(Box<Connected>),
}

/// Both connections, in use.
#[derive(Debug)]
struct Connected {
    commands: Pipe,
    subscriptions: Pipe,
    facts: ServerFacts,
    hashes: Vec<Bytes>,
    /// What was sent and is not answered, the oldest first.
    unanswered: VecDeque<Unanswered>,
    answered_at: Instant,
    /// How many subscriptions are not confirmed, and since when none was.
    unconfirmed: usize,
    confirmed_at: Instant,
    up_since: Instant,
    primary_asked_at: Instant,
}

#[derive(Debug)]
struct Unanswered {
    tag: u64,
    at: Instant,
}

impl Link {
    /// Makes a link, which connects at the first poll. Its sockets have the tokens from `first` on,
    /// and `waker` ends the poll.
    ///
    /// # Errors
    /// The authorities of the settings cannot be read, or the system has no more descriptors or
    /// threads.
    fn new(
        settings: LinkSettings,
        registry: Registry,
        first: usize,
        waker: Arc<Waker>,
    ) -> io::Result<Link> {
        let settings = Arc::new(settings);
        let is_tls = settings.address.is_tls;
        let trust = is_tls.then(|| Trust::new(settings.ca.as_deref())).transpose()?;
        let route = Route::new(Arc::clone(&settings), trust);
        Ok(Link {
            dialer: Dialer::start(route, waker)?,
            settings,
            registry,
            commands: Token(first),
            subscriptions: Token(first + 1),
            backoff: Backoff::new(),
            state: State::Waiting(Instant::now()),
            events: Vec::new(),
            scratch: vec![0; SCRATCH_BYTES],
        })
    }

    /// Connects once, as a link does, and disconnects. Blocks until it is known whether that works.
    pub(crate) fn try_out(settings: LinkSettings) -> Result<ServerFacts, String> {
        let settings = Arc::new(settings);
        let trust = settings.address.is_tls.then(|| Trust::new(settings.ca.as_deref()));
        let trust = trust.transpose().map_err(|error| error.to_string())?;
        Route::new(settings, trust).try_out().map_err(DialError::into_text)
    }

    /// Whether orders are taken.
    #[cfg(test)]
    fn is_up(&self) -> bool {
        matches!(self.state, State::Up(_))
    }

    /// How many bytes wait to be written. There is no bound here: who gives orders looks first.
    fn unsent_bytes(&self) -> usize {
        match &self.state {
            State::Up(up) => up.commands.unsent_bytes() + up.subscriptions.unsent_bytes(),
            _ => 0,
        }
    }

    /// Queues an order; the next poll writes it, with all others. Forgotten if the link is not up.
    fn order(&mut self, order: Order) {
        let State::Up(up) = &mut self.state else { return };
        match order {
            Order::Script { tag, script, keys, args } => {
                let index = self.settings.scripts.iter().position(|known| *known == script);
                up.run_script(tag, script, index, keys, args);
            }
            Order::Command { tag, args } => {
                up.commands.push(args);
                up.unanswered.push_back(Unanswered { tag, at: Instant::now() });
            }
            Order::Subscribe(channels) => up.subscribe(channels),
            Order::Unsubscribe(channels) => {
                if !channels.is_empty() {
                    up.subscriptions.push(named("UNSUBSCRIBE", channels));
                }
            }
        }
    }

    /// Ends both connections and makes them anew, because somebody knows better that they are of
    /// no use. Does nothing if the link is not up.
    fn reconnect(&mut self, why: &str) {
        self.tear_down(why.to_owned());
    }

    /// Begins what is due, and writes what is queued.
    fn begin(&mut self) {
        self.begin_attempt();
        if let State::Up(up) = &mut self.state {
            up.commands.flush();
            up.subscriptions.flush();
        }
    }

    /// Takes what the poll says.
    fn note_ready(&mut self, event: &Ready) {
        let (commands, subscriptions) = (self.commands, self.subscriptions);
        let State::Up(up) = &mut self.state else { return };
        match event.token() {
            token if token == commands => up.commands.on_ready(event),
            token if token == subscriptions => up.subscriptions.on_ready(event),
            _ => {}
        }
    }

    /// Reads what came, and keeps the deadlines. Leaves what has happened in `events`.
    fn finish(&mut self) {
        while let Some(found) = self.dialer.found() {
            self.on_found(found);
        }
        self.exchange();
        self.keep_watch();
    }

    fn begin_attempt(&mut self) {
        let now = Instant::now();
        if matches!(self.state, State::Waiting(at) if at <= now) {
            self.state = State::Dialing { since: now, is_told: false };
            if !self.dialer.dial() {
                self.on_failure("the thread that connects is gone".to_owned());
            }
        }
    }

    /// How long nothing needs to be done, if nobody says anything.
    fn wait(&self) -> Option<Duration> {
        if !self.events.is_empty() {
            return Some(Duration::ZERO);
        }
        let until = match &self.state {
            State::Waiting(at) => Some(*at),
            State::Dialing { is_told: true, .. } => None,
            State::Dialing { since, .. } => Some(*since + self.attempt_max()),
            State::Up(up) if up.has_more() => return Some(Duration::ZERO),
            State::Up(up) => {
                let primary = self.has_sentinels().then(|| up.primary_asked_at + SENTINEL_INTERVAL);
                [up.deadline(), primary].into_iter().flatten().min()
            }
        };
        until.map(|until| until.saturating_duration_since(Instant::now()))
    }

    fn on_found(&mut self, found: Found) {
        match found {
            Found::Dialed(Ok(dialed)) => match self.connected(*dialed) {
                Ok(up) => {
                    self.events.push(Event::Up(up.facts.clone()));
                    self.state = State::Up(Box::new(up));
                }
                Err(error) => self.on_failure(format!("cannot use the connections: {error}")),
            },
            Found::Dialed(Err(DialError::Failed(why))) => self.on_failure(why),
            Found::Dialed(Err(DialError::OtherList(why))) => {
                self.state = State::Waiting(Instant::now() + self.backoff.wait());
                self.events.push(Event::OtherList(why));
            }
            Found::Primary(Ok(primary)) => {
                if let State::Up(up) = &self.state
                    && up.facts.address != primary
                {
                    self.tear_down(format!("the Sentinels say that the primary is {primary}"));
                }
            }
            // A Redis that answers is worth more than Sentinels that do not.
            Found::Primary(Err(why)) => log::debug!("the Sentinels do not answer: {why}"),
        }
    }

    fn connected(&self, dialed: Dialed) -> io::Result<Connected> {
        let Dialed { commands, subscriptions, facts, hashes, .. } = dialed;
        let (registry, now) = (&self.registry, Instant::now());
        Ok(Connected {
            commands: Pipe::new(commands, registry, self.commands)?,
            subscriptions: Pipe::new(subscriptions, registry, self.subscriptions)?,
            facts,
            hashes,
            unanswered: VecDeque::new(),
            answered_at: now,
            unconfirmed: 0,
            confirmed_at: now,
            up_since: now,
            primary_asked_at: now,
        })
    }

    fn on_failure(&mut self, why: String) {
        self.state = State::Waiting(Instant::now() + self.backoff.wait());
        self.events.push(Event::Failed(why));
    }

    /// Reads from both connections, and tells what came.
    fn exchange(&mut self) {
        let State::Up(up) = &mut self.state else { return };
        let outcome = up.exchange(&mut self.scratch, &mut self.events);
        if let Err(why) = outcome {
            self.tear_down(why);
        }
    }

    fn tear_down(&mut self, why: String) {
        let State::Up(up) = &mut self.state else { return };
        up.commands.unwatch(&self.registry);
        up.subscriptions.unwatch(&self.registry);
        if up.up_since.elapsed() >= STEADY_AFTER {
            self.backoff.reset();
        }
        self.state = State::Waiting(Instant::now() + self.backoff.wait());
        self.events.push(Event::Down(why));
    }

    /// Keeps the deadlines, after what came in time was read.
    fn keep_watch(&mut self) {
        let (now, attempt_max) = (Instant::now(), self.attempt_max());
        let has_sentinels = self.has_sentinels();
        match &mut self.state {
            State::Dialing { since, is_told } if !*is_told && *since + attempt_max <= now => {
                *is_told = true;
                let address = &self.settings.address;
                let why = format!("{address}: the system still looks for the address of a name");
                self.events.push(Event::Failed(why));
            }
            State::Up(up) if !up.has_more() && up.deadline().is_some_and(|at| at <= now) => {
                self.tear_down(format!("no answer for {} ms", ANSWER_TIMEOUT.as_millis()));
            }
            State::Up(up) if has_sentinels && up.primary_asked_at + SENTINEL_INTERVAL <= now => {
                up.primary_asked_at = now;
                // Otherwise it still asks.
                self.dialer.find_primary();
            }
            _ => {}
        }
    }

    fn has_sentinels(&self) -> bool {
        matches!(self.settings.address.place, Place::Sentinel { .. })
    }

    /// How long an attempt takes at most, apart from looking up names.
    fn attempt_max(&self) -> Duration {
        let sentinels = match &self.settings.address.place {
            Place::Sentinel { sentinels, .. } => sentinels.len(),
            _ => 0,
        };
        CONNECT_TIMEOUT + SENTINEL_TIMEOUT * u32::try_from(sentinels + 1).unwrap_or(u32::MAX)
    }
}

impl Connected {
    /// Runs a script by its hash, if `index` says that it was loaded, or by its text.
    fn run_script(
        &mut self,
        tag: u64,
        script: &'static Script,
        index: Option<usize>,
        keys: Vec<Bytes>,
        args: Vec<Bytes>,
    ) {
        let (name, what) = match index.and_then(|index| self.hashes.get(index)).cloned() {
            Some(hash) => ("EVALSHA", hash),
            None => ("EVAL", Bytes::from_static(script.text.as_bytes())),
        };
        let front = [Bytes::from_static(name.as_bytes()), what, keys.len().to_string().into()];
        self.commands.push(front.into_iter().chain(keys).chain(args));
        self.unanswered.push_back(Unanswered { tag, at: Instant::now() });
    }

    fn subscribe(&mut self, channels: Vec<Bytes>) {
        if channels.is_empty() {
            return;
        }
        if self.unconfirmed == 0 {
            self.confirmed_at = Instant::now();
        }
        self.unconfirmed += channels.len();
        self.subscriptions.push(named("SUBSCRIBE", channels));
    }

    /// Whether there is more to read, or a connection has ended.
    fn has_more(&self) -> bool {
        let has_more = |pipe: &Pipe| pipe.is_readable() || pipe.ended().is_some();
        has_more(&self.commands) || has_more(&self.subscriptions)
    }

    /// When the Redis is too late.
    fn deadline(&self) -> Option<Instant> {
        let answer = self.unanswered.front().map(|oldest| oldest.at.max(self.answered_at));
        let confirmation = (self.unconfirmed > 0).then_some(self.confirmed_at);
        [answer, confirmation].into_iter().flatten().min().map(|at| at + ANSWER_TIMEOUT)
    }

    /// Reads what came. The error says why the connections are of no use any more.
    fn exchange(&mut self, scratch: &mut [u8], events: &mut Vec<Event>) -> Result<(), String> {
        // Of what is here, messages come before answers: as a rule, who publishes hears the message
        // before its number.
        self.commands.read(scratch);
        self.subscriptions.read(scratch);
        while let Some(reply) = self.subscriptions.reply() {
            self.on_pushed(reply, events)?;
        }
        while let Some(answer) = self.commands.reply() {
            self.on_answer(answer, events)?;
        }
        match self.commands.ended().or(self.subscriptions.ended()) {
            Some(why) => Err(why.to_owned()),
            None => Ok(()),
        }
    }

    fn on_answer(
        &mut self,
        answer: Result<Value, Refused>,
        events: &mut Vec<Event>,
    ) -> Result<(), String> {
        self.answered_at = Instant::now();
        let Some(Unanswered { tag, .. }) = self.unanswered.pop_front() else {
            // A server that is full says so, and hangs up.
            return Err(answer.err().map_or_else(
                || "it answers what nobody asked".to_owned(),
                |refused| refused.text,
            ));
        };
        let outcome = match &answer {
            // Sent once more it would run after what was ordered later. On a link made anew it is
            // loaded, and what is asked again is asked in order.
            Err(refused) if refused.code == Code::NoScript => return Err(refused.text.clone()),
            // The primary is somewhere else now.
            Err(refused) if matches!(refused.code, Code::ReadOnly | Code::MasterDown) => {
                Err(refused.text.clone())
            }
            _ => Ok(()),
        };
        events.push(Event::Answer { tag, answer });
        outcome
    }

    fn on_pushed(
        &mut self,
        reply: Result<Value, Refused>,
        events: &mut Vec<Event>,
    ) -> Result<(), String> {
        let parts = match reply {
            Ok(Value::List(parts)) => <[Value; 3]>::try_from(parts).ok(),
            Ok(_) => None,
            Err(refused) => return Err(format!("cannot subscribe: {}", refused.text)),
        };
        let Some([Value::Bytes(kind), Value::Bytes(channel), third]) = parts else {
            return Err("no message of a subscription".to_owned());
        };
        match (kind.as_ref(), third) {
            (b"message", Value::Bytes(payload)) => events.push(Event::Message { channel, payload }),
            (b"subscribe", _) => {
                self.unconfirmed = self.unconfirmed.saturating_sub(1);
                self.confirmed_at = Instant::now();
                events.push(Event::Subscribed(channel));
            }
            _ => {}
        }
        Ok(())
    }
}

fn named(name: &'static str, rest: Vec<Bytes>) -> impl Iterator<Item = Bytes> {
    std::iter::once(Bytes::from_static(name.as_bytes())).chain(rest)
}

#[cfg(test)]
mod fake;
#[cfg(test)]
mod tests;
