//! What the operator does while clients are connected: restarts, reloads, revocations.

use std::time::Duration;

use rusty_socks::{
    Revocation,
    config::{Access, IdentityMode, MemoryMax},
};

use super::{
    client::Verdict,
    fault::Fault,
    plan::ORIGINS,
    tokens::{RULED, since_1970_s},
    world::World,
};
use crate::random::Random;

/// The smallest ceiling of memory there is.
const MEMORY_BYTES_MIN: usize = 16 << 20;

/// Everything that the operator does.
pub(super) fn acts() -> Vec<Box<dyn Fault>> {
    vec![Box::new(Restart), Box::new(Reload), Box::new(Revoke)]
}

/// The server drains, and another one begins, which may take up what the first one has left.
struct Restart;

impl Fault for Restart {
    fn strike(&mut self, world: &mut World, random: &mut Random) -> Verdict {
        if random.one_in(6) { world.restart(random) } else { Ok(()) }
    }
}

/// The server takes other settings.
struct Reload;

impl Fault for Reload {
    fn strike(&mut self, world: &mut World, random: &mut Random) -> Verdict {
        let mut config = world.plan.config.clone();
        let of = |random: &mut Random, small: usize, large: usize| *random.one_of(&[small, large]);
        let everyone = world.plan.clients + world.plan.hostile;
        let has_identity = config.identity != IdentityMode::Off;
        let what = match random.below(9) {
            0 => {
                config.max_conn = of(random, everyone.div_ceil(2), 4 * everyone + 16);
                "max_conn"
            }
            1 => {
                config.max_queued_tasks = of(random, 2, 1000);
                "max_queued_tasks"
            }
            2 => {
                config.max_rooms_per_conn = of(random, 4, 100);
                "max_rooms_per_conn"
            }
            3 => {
                config.max_message_bytes = of(random, 2048, 4096);
                "max_message_bytes"
            }
            4 => {
                config.rate_messages = of(random, 20, 0) as u32;
                "rate_messages"
            }
            5 => {
                config.broadcast = random.one_in(2);
                "broadcast"
            }
            6 => {
                config.memory_max =
                    *random.one_of(&[MemoryMax::Off, MemoryMax::Bytes(MEMORY_BYTES_MIN)]);
                "memory_max"
            }
            7 if has_identity => {
                let all = [None, Some(Access::Everyone), Some(Access::Users), Some(Access::Token)];
                let access = *random.one_of(&all);
                let rule = config.rooms.iter_mut().find(|rule| rule.pattern == RULED);
                if let Some(rule) = rule {
                    (rule.join, rule.publish) = (access, access);
                    (rule.read_history, rule.presence) = (access, access);
                }
                RULED
            }
            _ => {
                config.allowed_origins = vec![(*random.one_of(&ORIGINS)).to_owned()];
                "allowed_origins"
            }
        };
        world.reload(config, what)
    }
}

/// A token is revoked, or those of a user.
struct Revoke;

impl Fault for Revoke {
    fn strike(&mut self, world: &mut World, random: &mut Random) -> Verdict {
        let client = &world.clients[random.below(world.clients.len())];
        let (true, Some(token)) = (client.is_settled(), client.token.clone()) else {
            return Ok(());
        };
        let kept_until = world.server.time() + Duration::from_secs(1_000_000);
        let now_s = since_1970_s(world.now_ms);
        let is_of_user = random.one_in(2);
        let revocation = match is_of_user {
            true => Revocation::user(&token.user).before(world.server.time()),
            false => Revocation::token(&token.id),
        };
        let what = if is_of_user { "the user" } else { "the token" };
        world.transcript.add(None, format!("revokes {what} of {}", token.words()));
        world.server.handle().revoke(&revocation.kept_until(kept_until));
        if is_of_user {
            world.revoked.insert(token.user.clone(), now_s);
        }
        let is_it = |id: &str, user: &str, issued_s: u64| match is_of_user {
            true => user == token.user && issued_s <= now_s,
            false => id == token.id,
        };
        for client in &mut world.clients {
            client.revoke(&is_it);
        }
        Ok(())
    }
}
