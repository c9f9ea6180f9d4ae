//! Hooks: the operator's backend is asked before a client connects, joins or publishes.
//!
//! The question is a [task](crate::Context::defer): only the connection that asks waits.

mod failure;
mod circuit;
mod counts;
#[cfg(feature = "hooks")]
mod backend;
#[cfg(not(feature = "hooks"))]
#[path = "no_backend.rs"]
mod backend;
mod answer;
mod question;
pub(super) mod events;

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant, UNIX_EPOCH},
};

use crate::{Config, Context, Error, TaskThreads, Waiter, config::HookFail};
pub(super) use answer::Allowed;
use answer::Answered;
use backend::Backend;
use circuit::Circuit;
pub(super) use counts::Hook;
use counts::{Counts, Outcome};
use failure::{Failure, FailureLog};
pub(super) use question::Question;

/// What became of a question.
#[derive(Debug)]
pub(super) enum Verdict {
    /// The client may.
    Allowed(Allowed),
    /// The client may not, for this reason.
    Refused(String),
    /// The backend gave no proper answer, and `hook_fail` is `closed`.
    Unanswered,
}

/// A verdict, and what waits for it.
pub(super) struct Decided<P> {
    pub(super) pending: P,
    pub(super) verdict: Verdict,
}

/// A question on its way to the backend.
struct Asking {
    hook: Hook,
    body: String,
    user: Option<Box<str>>,
    /// Who asks.
    waiter: Waiter,
    asked_at: Instant,
    /// Seconds since 1970 when it was asked: a user that the answer names is of that moment.
    asked_at_s: u64,
}

/// The backend that is asked. Usable from any thread.
pub(super) struct Hooks {
    inner: Arc<Inner>,
    threads: TaskThreads,
}

struct Inner {
    backend: Backend,
    /// By [`Hook`].
    asks: [bool; Hook::ALL.len()],
    timeout: Duration,
    fail: HookFail,
    circuit: Circuit,
    counts: Counts,
    log: FailureLog,
}

impl fmt::Debug for Hooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hooks").finish_non_exhaustive()
    }
}

impl Hooks {
    /// Makes the hooks of `config`; `None` if it has none.
    pub(super) fn new(config: &Config) -> Result<Option<Hooks>, Error> {
        if config.hook_url.is_empty() || config.hooks.is_empty() {
            return Ok(None);
        }
        let backend = Backend::new(&config.hook_url, &config.hook_secret, config.hook_threads)?;
        let inner = Inner {
            backend,
            asks: Hook::ALL.map(|hook| config.hooks.iter().any(|name| name == hook.name())),
            timeout: config.hook_timeout,
            fail: config.hook_fail,
            circuit: Circuit::default(),
            counts: Counts::default(),
            log: FailureLog::default(),
        };
        let threads = TaskThreads { threads: config.hook_threads, queue_max: config.hook_queue };
        Ok(Some(Hooks { inner: Arc::new(inner), threads }))
    }

    /// Returns the threads that the questions need.
    pub(super) fn threads(&self) -> TaskThreads {
        self.threads
    }

    /// Whether the backend is asked about this.
    pub(super) fn asks(&self, hook: Hook) -> bool {
        self.inner.asks[hook as usize]
    }

    /// Returns the counters, by name.
    pub(super) fn figures(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.inner.counts.figures()
    }

    /// Asks the backend. A [`Decided`] with `pending`, which holds `pending_bytes` on the heap,
    /// comes as the answer of a task; or the verdict is returned at once because the backend cannot
    /// be asked.
    pub(super) fn ask<S: 'static, P: Send + 'static>(
        &self,
        ctx: &mut Context<'_, S>,
        question: &Question<'_>,
        pending: P,
        pending_bytes: usize,
    ) -> Result<(), Verdict> {
        let (hook, body) = (question.event, question.body());
        let asked_at = Instant::now();
        let asked_at_s = ctx.time().duration_since(UNIX_EPOCH).unwrap_or_default();
        if !self.inner.circuit.may_ask(asked_at) {
            return Err(self.inner.fail(hook, Outcome::CircuitOpen, &"the backend is down"));
        }
        let inner = Arc::clone(&self.inner);
        let asking = Asking {
            hook,
            body,
            user: question.user.map(Box::from),
            waiter: ctx.waiter(),
            asked_at,
            asked_at_s: asked_at_s.as_secs(),
        };
        let bytes = asking.body.len() + pending_bytes;
        let task = move || Decided { pending, verdict: inner.decide(&asking) };
        ctx.defer_sized(bytes, task).map_err(|why| self.inner.fail(hook, Outcome::PoolFull, &why))
    }
}

impl Inner {
    /// Asks the backend, on a thread that may wait for it.
    fn decide(&self, asking: &Asking) -> Verdict {
        let hook = asking.hook;
        // Clients that come and go must not keep the threads from those that stay.
        if asking.waiter.has_gone() {
            self.counts.add(hook, Outcome::Gone);
            return Verdict::Unanswered;
        }
        let Some(time) = fair_time(self.timeout, asking.asked_at.elapsed()) else {
            return self.fail(hook, Outcome::TimedOut, &"no thread was free in time");
        };
        let posted = self.backend.post(&asking.body, time);
        match &posted {
            Ok(_) | Err(Failure::Refused(_) | Failure::Improper(_)) => self.circuit.note_answer(),
            Err(Failure::TimedOut | Failure::Unreachable(_)) => {
                self.circuit.note_failure(Instant::now());
            }
        }
        let user = asking.user.as_deref();
        match posted.and_then(|body| Answered::read(&body, user, asking.asked_at_s)) {
            Ok(Answered::Allowed(allowed)) => {
                self.counts.add(hook, Outcome::Allowed);
                Verdict::Allowed(allowed)
            }
            Ok(Answered::Refused(reason)) => {
                self.counts.add(hook, Outcome::Refused);
                Verdict::Refused(reason)
            }
            Err(failure @ Failure::TimedOut) => self.fail(hook, Outcome::TimedOut, &failure),
            Err(failure) => self.fail(hook, Outcome::Failed, &failure),
        }
    }

    /// Decides without the backend.
    fn fail(&self, hook: Hook, outcome: Outcome, why: &dyn fmt::Display) -> Verdict {
        self.counts.add(hook, outcome);
        self.log.note(&format!("the hook {} was not answered", hook.name()), why);
        match self.fail {
            HookFail::Open => Verdict::Allowed(Allowed::default()),
            HookFail::Closed => Verdict::Unanswered,
        }
    }
}

/// Returns how long the backend has to answer a question that has `waited` for a thread. `None` if
/// that is no fair time: that no thread was free says nothing about the backend, which must not
/// count as down for it. The wait counts, so that no client waits for longer than the timeout.
fn fair_time(timeout: Duration, waited: Duration) -> Option<Duration> {
    timeout.checked_sub(waited).filter(|left| *left >= timeout / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backend_has_half_of_the_timeout_at_least() {
        let ms = Duration::from_millis;
        let left: Vec<_> = [0, 500, 501, 2000].map(|waited| fair_time(ms(1000), ms(waited))).into();
        assert_eq!(left, [Some(ms(1000)), Some(ms(500)), None, None]);
    }
}
