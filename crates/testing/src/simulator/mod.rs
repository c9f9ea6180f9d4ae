//! Whole servers with all their clients, in one thread, from one seed: a simulator that looks for
//! broken promises.
//!
//! [`Simulation`] drives a [`SteppedServer`]: several workers whose turns come in random order, a
//! clock that moves when the simulator moves it, clients of memory. A [`Client`] keeps the protocol
//! and knows what it must be told next; a hostile client does not. A [`Fault`] goes wrong now and
//! then, and the operator restarts the server, gives it other settings, and revokes tokens. Every
//! frame that comes is held against what its client knows, and what concerns more
//! than one client against an [`Invariant`].
//!
//! [`SteppedServer`]: rusty_socks::stepped::SteppedServer
//!
//! What a feature promises is one more [`Invariant`]; what may go wrong with it is one more
//! [`Fault`]; both are added with [`Simulation::with`]. All that is random comes from the seed, so
//! a run that fails fails again: `scripts/simulate.sh --seed N --until-step M`.

pub(crate) mod transcript;
mod tokens;
mod plan;
pub mod socket;
mod client;
pub(crate) mod command;
mod act;
mod hear;
mod answers;
mod refusals;
mod hostile;
mod fault;
mod world;
mod restart;
mod operator;
mod invariant;
mod bounds;
mod report;

pub use client::{Broken, Client, Seen, Session, Verdict, View};
pub use fault::Fault;
pub use invariant::Invariant;
pub use plan::Plan;
pub use report::Report;
pub use tokens::{Act, Revoked, Token};
pub use world::World;

use crate::random::Random;
use bounds::{Bounds, Counts};
use fault::faults;
use invariant::{Answers, Letters, OneTruth, Patterns, Permitted, Presence};

/// Rounds in which everything must come to rest.
const ROUNDS_MAX: usize = 20_000;

/// Time after which a part of the changes of presence that are gathered has been told.
const GATHERED_MS: u64 = 100;

/// Clients whose changes such a part has at least.
const GATHERED_CLIENTS: usize = 50;

/// The longest time for which a connection is not read because clients are behind with what it
/// sent.
const HELD_MS: u64 = 1000;

/// Rooms that are counted at each rest.
const CENSUSES: usize = 4;

/// How often they are counted at most, while connections end as they are.
const CENSUS_TRIES_MAX: usize = 5;

/// One run.
pub struct Simulation {
    world: World,
    random: Random,
    faults: Vec<Box<dyn Fault>>,
    acts: Vec<Box<dyn Fault>>,
    invariants: Vec<Box<dyn Invariant>>,
}

impl Simulation {
    /// Makes the server and the clients of a run, with all faults and invariants there are.
    ///
    /// # Panics
    /// The settings are not legal, which is a fault of the plan.
    pub fn new(plan: Plan) -> Simulation {
        let random = Random::new(plan.seed ^ 0x5151_5151);
        Simulation {
            world: World::new(plan),
            random,
            faults: faults(),
            acts: operator::acts(),
            invariants: invariants(),
        }
    }

    /// Adds a fault and an invariant of a feature.
    pub fn with(mut self, fault: Box<dyn Fault>, invariant: Box<dyn Invariant>) -> Simulation {
        self.faults.push(fault);
        self.invariants.push(invariant);
        self
    }

    /// Runs to the end, or to the first promise that is broken.
    pub fn run(mut self) -> Report {
        let broken = self.play().err();
        self.world.report(broken)
    }

    fn play(&mut self) -> Verdict {
        for step in 1..=self.world.plan.steps {
            self.world.begin_step(step);
            let plan = &self.world.plan;
            for (one_in, strikes) in
                [(plan.fault_one_in, &mut self.faults), (plan.act_one_in, &mut self.acts)]
            {
                for fault in strikes {
                    if one_in > 0 && self.random.one_in(one_in) {
                        fault.strike(&mut self.world, &mut self.random)?;
                    }
                }
            }
            self.world.step(&mut self.random)?;
            self.hold(|invariant, world| invariant.after_step(world))?;
            if step % self.world.plan.rest_every == 0 {
                self.rest()?;
            }
        }
        self.world.leave();
        self.settle()?;
        for _ in 0..30 {
            self.world.jump(86_400_000 / 8);
            self.settle()?;
        }
        self.hold(|invariant, world| invariant.at_end(world))
    }

    /// Lets everything that is under way arrive, and counts.
    fn rest(&mut self) -> Verdict {
        for _ in 0..CENSUS_TRIES_MAX {
            self.come_to_rest()?;
            let closes = self.world.closes();
            self.world.ask_who_is_there(CENSUSES, &mut self.random);
            self.settle()?;
            // The answer shows newcomers to all who watch, which may be too much for somebody who
            // does not read. Who goes then was counted, and is not there any more.
            if self.world.closes() == closes {
                break;
            }
        }
        self.hold(|invariant, world| invariant.at_census(world))
    }

    fn come_to_rest(&mut self) -> Verdict {
        self.settle()?;
        let parts = 3 + self.world.clients.len() / GATHERED_CLIENTS;
        if parts > 10 {
            // Who says nothing for so long may be closed.
            self.world.jump(0);
        }
        for _ in 0..parts {
            self.world.pass(GATHERED_MS);
            self.settle()?;
        }
        if self.world.has_unanswered() {
            // A sender may be held for clients that are slow.
            self.world.jump(HELD_MS);
            self.settle()?;
        }
        // What a call asked for without delay comes a millisecond later.
        self.world.pass(1);
        self.settle()?;
        // Nothing that was said under earlier settings is under way any more.
        self.world.plan.earlier.clear();
        self.hold(|invariant, world| invariant.at_rest(world))
    }

    fn settle(&mut self) -> Verdict {
        self.world.open_windows();
        for _ in 0..ROUNDS_MAX {
            let is_busy = self.world.round(&mut self.random)?;
            self.hold_seen()?;
            if !is_busy {
                return Ok(());
            }
        }
        Err(Broken {
            promise: "a server that is asked nothing comes to rest",
            client: None,
            seen: format!("it is still busy after {ROUNDS_MAX} rounds"),
        })
    }

    fn hold_seen(&mut self) -> Verdict {
        for (client, seen) in std::mem::take(&mut self.world.seen) {
            for invariant in &mut self.invariants {
                let verdict = invariant.seen(&self.world, &seen);
                verdict.map_err(|broken| Broken {
                    client: broken.client.or(Some(client)),
                    ..broken
                })?;
            }
        }
        Ok(())
    }

    fn hold(&mut self, check: impl Fn(&mut dyn Invariant, &World) -> Verdict) -> Verdict {
        self.hold_seen()?;
        for invariant in &mut self.invariants {
            check(&mut **invariant, &self.world)?;
        }
        Ok(())
    }
}

/// Every invariant there is.
fn invariants() -> Vec<Box<dyn Invariant>> {
    vec![
        Box::new(OneTruth::default()),
        Box::new(Letters::default()),
        Box::new(Presence::default()),
        Box::new(Answers),
        Box::new(Patterns),
        Box::new(Permitted),
        Box::new(Bounds),
        Box::new(Counts),
    ]
}
