//! The link of one node to the Redis of one shard: two connections with their delays, and what is
//! on its way there.

use std::{
    collections::{BTreeSet, VecDeque},
    rc::Rc,
};

use bytes::Bytes;
use rusty_socks::stepped::redis::{Code, Event, Order, Refused, ServerFacts, Value};

use super::cloud::{Cloud, Job};
use crate::{random::Random, redis::Reply};

/// As the server's own link has it.
const ANSWER_TIMEOUT_MS: u64 = 2000;

/// The longest time that anything takes on its way if nothing goes wrong, in milliseconds.
const DELAY_MS: usize = 6;

/// What is done in one step on each way at most.
const AT_ONCE: usize = 12;

/// The link of one node to one shard.
pub(super) struct Link {
    shard: usize,
    /// Which link it is, and how many connections it has made.
    own: (Rc<()>, u64),
    /// The server, and since when, or when the next attempt is made.
    state: Result<Up, u64>,
    /// Nothing passes on a way before these times: jobs, answers, subscriptions, messages.
    pub(super) held_until_ms: [u64; 4],
    /// No attempt succeeds before.
    pub(super) cut_until_ms: u64,
    /// Messages do not come, though the connection stands.
    pub(super) is_mute: bool,
    events: Vec<Event>,
}

/// Both connections.
struct Up {
    server: usize,
    jobs: VecDeque<(u64, Job)>,
    answers: VecDeque<(u64, u64, Result<Value, Refused>)>,
    subscribing: VecDeque<(u64, bool, Bytes)>,
    messages: VecDeque<(u64, Event)>,
    subscribed: BTreeSet<Bytes>,
    /// When what is not answered was sent, and when the last answer came.
    unanswered: VecDeque<u64>,
    answered_ms: u64,
    unconfirmed: usize,
    confirmed_ms: u64,
}

/// What is left of a connection: jobs that the server may still do.
pub(super) struct Stray {
    pub(super) server: usize,
    /// The link, and which of its connections it was.
    of: (Rc<()>, u64),
    pub(super) jobs: VecDeque<Job>,
}

impl Stray {
    /// Takes off all behind the first `count` jobs.
    pub(super) fn split(&mut self, count: usize) -> Stray {
        Stray { server: self.server, of: self.of.clone(), jobs: self.jobs.split_off(count) }
    }
}

impl Link {
    pub(super) fn new(shard: usize) -> Link {
        Link {
            shard,
            own: (Rc::new(()), 0),
            state: Err(0),
            held_until_ms: [0; 4],
            cut_until_ms: 0,
            is_mute: false,
            events: Vec::new(),
        }
    }

    pub(super) fn server(&self) -> Option<usize> {
        self.state.as_ref().ok().map(|up| up.server)
    }

    /// Whether it has ended a connection, as the server's own link does with its last one: what is
    /// left of that is not done any more.
    pub(super) fn has_ended(&self, stray: &Stray) -> bool {
        let (own, last) = (&self.own.0, self.own.1.checked_sub(1));
        let is_last = Rc::ptr_eq(own, &stray.of.0) && last == Some(stray.of.1);
        is_last && self.server() == Some(stray.server)
    }

    /// Whether nothing is on its way.
    pub(super) fn is_quiet(&self) -> bool {
        self.events.is_empty()
            && self.state.as_ref().is_ok_and(|up| {
                up.jobs.is_empty()
                    && up.answers.is_empty()
                    && up.subscribing.is_empty()
                    && up.messages.is_empty()
            })
    }

    /// Ends both connections. Returns what the server has not done.
    pub(super) fn cut(&mut self, why: &str, now_ms: u64, random: &mut Random) -> Option<Stray> {
        let wait_ms = 25 + random.below(500) as u64;
        let up = std::mem::replace(&mut self.state, Err(now_ms + wait_ms)).ok()?;
        self.is_mute = false;
        // Some of what came was read before.
        let read = random.below(up.messages.len() + 1);
        self.events.extend(up.messages.into_iter().take(read).map(|(_, event)| event));
        self.events.push(Event::Down(why.to_owned()));
        let jobs = up.jobs.into_iter().map(|(_, job)| job).collect();
        Some(Stray { server: up.server, of: self.own.clone(), jobs })
    }

    /// Lets time do its work: connects, carries what is due both ways, keeps the deadlines. Returns
    /// what a connection has left that was given up.
    pub(super) fn step(
        &mut self,
        now_ms: u64,
        cloud: &mut Cloud,
        random: &mut Random,
        published: &mut Vec<(usize, Bytes, Bytes)>,
    ) -> Option<Stray> {
        let up = match &mut self.state {
            Err(at_ms) if *at_ms > now_ms => return None,
            Err(at_ms) => {
                let server = cloud.primary(self.shard);
                let takes_writes = server.redis.refuses != crate::redis::Refuses::Writes;
                if !server.is_up || !takes_writes || self.cut_until_ms > now_ms {
                    *at_ms = now_ms + 100 + random.below(1900) as u64;
                    self.events.push(Event::Failed("it cannot be reached".to_owned()));
                    return None;
                }
                server.redis.load_scripts();
                self.events.push(Event::Up(ServerFacts {
                    run_id: server.redis.run_id.clone(),
                    version: "7.0".to_owned(),
                    address: "memory".to_owned(),
                    now_ms: server.redis.now_ms(),
                }));
                self.own.1 += 1;
                self.state = Ok(Up::new(cloud.primary_of(self.shard), now_ms));
                return None;
            }
            Ok(up) => up,
        };
        if !cloud.servers[up.server].is_up || self.cut_until_ms > now_ms {
            // Nobody says so: it is noticed by the silence.
            return self.keep_deadlines(now_ms, random);
        }
        let [jobs, answers, subscribing, messages] = self.held_until_ms;
        for _ in 0..AT_ONCE {
            let is_due = |(due_ms, _): &(u64, Job)| *due_ms <= now_ms && jobs <= now_ms;
            let Some((_, job)) = up.jobs.pop_front_if(|job| is_due(job)) else { break };
            let (reply, said) = cloud.run(up.server, &job);
            published.extend(said.into_iter().map(|(channel, what)| (up.server, channel, what)));
            up.answer(job, reply, now_ms, random);
        }
        for _ in 0..AT_ONCE {
            let is_due = |due_ms: u64| due_ms <= now_ms && subscribing <= now_ms;
            let Some((_, begins, channel)) = up.subscribing.pop_front_if(|one| is_due(one.0))
            else {
                break;
            };
            if !begins {
                up.subscribed.remove(&channel);
                continue;
            }
            up.subscribed.insert(channel.clone());
            up.messages.push_back((later(now_ms, random), Event::Subscribed(channel)));
        }
        for _ in 0..AT_ONCE {
            let is_due = |due_ms: u64| due_ms <= now_ms && messages <= now_ms;
            let Some((_, event)) = up.messages.pop_front_if(|one| is_due(one.0)) else { break };
            if let Event::Subscribed(_) = event {
                up.unconfirmed = up.unconfirmed.saturating_sub(1);
                up.confirmed_ms = now_ms;
            }
            self.events.push(event);
        }
        for _ in 0..AT_ONCE {
            let is_due = |due_ms: u64| due_ms <= now_ms && answers <= now_ms;
            let Some((_, tag, answer)) = up.answers.pop_front_if(|one| is_due(one.0)) else {
                break;
            };
            up.unanswered.pop_front();
            up.answered_ms = now_ms;
            let code = answer.as_ref().err().map(|refused| refused.code);
            if code == Some(Code::NoScript) {
                return self.cut("it has forgotten a script", now_ms, random);
            }
            self.events.push(Event::Answer { tag, answer });
            if code == Some(Code::ReadOnly) {
                return self.cut("it is a replica", now_ms, random);
            }
        }
        self.keep_deadlines(now_ms, random)
    }

    fn keep_deadlines(&mut self, now_ms: u64, random: &mut Random) -> Option<Stray> {
        let up = self.state.as_ref().ok()?;
        let answer_ms = up.unanswered.front().map(|sent_ms| *sent_ms.max(&up.answered_ms));
        let confirmed_ms = (up.unconfirmed > 0).then_some(up.confirmed_ms);
        let since_ms = [answer_ms, confirmed_ms].into_iter().flatten().min()?;
        if since_ms + ANSWER_TIMEOUT_MS > now_ms {
            return None;
        }
        self.cut("no answer", now_ms, random)
    }

    /// Takes what happened.
    pub(super) fn events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    /// A message was published at a server.
    pub(super) fn publish(
        &mut self,
        server: usize,
        channel: &Bytes,
        payload: &Bytes,
        now_ms: u64,
        random: &mut Random,
    ) {
        let Ok(up) = &mut self.state else { return };
        if up.server == server && !self.is_mute && up.subscribed.contains(channel) {
            let event = Event::Message { channel: channel.clone(), payload: payload.clone() };
            up.messages.push_back((later(now_ms, random), event));
        }
    }

    /// Takes what the engine orders. Forgotten if the link is not up.
    pub(super) fn order(&mut self, order: Order, now_ms: u64, random: &mut Random) {
        let Ok(up) = &mut self.state else { return };
        let due_ms = later(now_ms, random);
        match order {
            Order::Script { tag, script, keys, args } => {
                let job = Job::Script { tag, text: script.text, keys, args };
                up.jobs.push_back((due_ms, job));
                up.unanswered.push_back(now_ms);
            }
            Order::Command { tag, args } => {
                up.jobs.push_back((due_ms, Job::Command { tag, args }));
                up.unanswered.push_back(now_ms);
            }
            Order::Subscribe(channels) => {
                if up.unconfirmed == 0 {
                    up.confirmed_ms = now_ms;
                }
                up.unconfirmed += channels.len();
                up.subscribing.extend(channels.into_iter().map(|one| (due_ms, true, one)));
            }
            Order::Unsubscribe(channels) => {
                up.subscribing.extend(channels.into_iter().map(|one| (due_ms, false, one)));
            }
        }
    }
}

impl Up {
    fn new(server: usize, now_ms: u64) -> Up {
        Up {
            server,
            jobs: VecDeque::new(),
            answers: VecDeque::new(),
            subscribing: VecDeque::new(),
            messages: VecDeque::new(),
            subscribed: BTreeSet::new(),
            unanswered: VecDeque::new(),
            answered_ms: now_ms,
            unconfirmed: 0,
            confirmed_ms: now_ms,
        }
    }

    fn answer(&mut self, job: Job, reply: Reply, now_ms: u64, random: &mut Random) {
        let (Job::Script { tag, .. } | Job::Command { tag, .. }) = job;
        self.answers.push_back((later(now_ms, random), tag, answer_of(reply)));
    }
}

/// When something arrives that is sent now. What is on one way keeps its order in any case.
fn later(now_ms: u64, random: &mut Random) -> u64 {
    now_ms + random.below(DELAY_MS) as u64
}

fn answer_of(reply: Reply) -> Result<Value, Refused> {
    Ok(match reply {
        Reply::Nil => Value::Nil,
        Reply::Int(int) => Value::Int(int),
        Reply::Bytes(bytes) => Value::Bytes(bytes),
        Reply::Status(text) => Value::Bytes(Bytes::from_static(text.as_bytes())),
        Reply::Error(text) => return Err(Refused::new(&text)),
        Reply::List(items) => {
            Value::List(items.into_iter().map(answer_of).collect::<Result<_, _>>()?)
        }
    })
}
