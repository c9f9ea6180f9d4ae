//! One server after the other: a drain, what is left, and who comes back.

use std::time::Duration;

use super::{
    client::{Broken, Verdict},
    hostile::Hostile,
    socket::Socket,
    world::{World, server},
};
use crate::random::Random;

/// Clients that are about to ask for an upgrade when a server ceases to let anybody in.
const LATE: usize = 4;

/// A grace within which everything is over by itself if every client reads: longer than the times
/// after which a server waits for nobody.
const AMPLE_GRACE_MS: u64 = 12_000;

impl World {
    /// The server drains and ends, and the next one begins.
    ///
    /// # Errors
    /// Somebody was let in, or was not told, or the server did not end.
    pub fn restart(&mut self, random: &mut Random) -> Verdict {
        let began_ms = self.now_ms;
        self.transcript.add(None, "announces a drain".to_owned());
        self.server.announce_drain();
        for _ in 0..random.below(3) * 10 {
            self.step(random)?;
        }
        self.knock(random);
        let grace_ms = *random.one_of(&[0, 2000, AMPLE_GRACE_MS, AMPLE_GRACE_MS]);
        self.transcript.add(None, format!("drains for at most {grace_ms} ms"));
        self.server.begin_drain(Duration::from_millis(grace_ms));
        let drains_from_ms = self.now_ms;
        self.drain = Some(if self.plan.leaves_snapshot { 1012 } else { 1001 });
        if !random.one_in(4) {
            self.stalled.fill(0);
        }
        let is_hindered = !self.hostile.is_empty()
            || self.stalled.iter().any(|until| *until > self.step)
            || self
                .clients
                .iter()
                .any(|client| client.socket.as_ref().is_some_and(Socket::is_slow));
        let deadline_ms = self.now_ms + grace_ms;
        while !self.server.is_drained() && self.now_ms < deadline_ms {
            self.step(random)?;
            self.pass(random.below(20) as u64);
        }
        let is_cut_off = !self.server.is_drained();
        if is_cut_off && !is_hindered && grace_ms == AMPLE_GRACE_MS {
            let seen = format!("{} connections after {grace_ms} ms", self.server.connections());
            return Err(broken("a server that drains ends when everybody reads", seen));
        }
        self.read_all()?;
        self.is_gone = true;
        if let Err(error) = self.server.end_drain() {
            return Err(broken("a server leaves its snapshot", error.to_string()));
        }
        self.read_all()?;
        for index in 0..self.clients.len() {
            self.abandon(index, is_cut_off)?;
        }
        self.hostile.iter_mut().for_each(Hostile::reset);
        let stats = self.stats();
        // What is not written yet goes with the server's threads, but nobody is served any more.
        if stats.active_connections + stats.queued > 0 {
            let seen = format!("{} permits, {} in line", stats.active_connections, stats.queued);
            return Err(broken("a server that has ended holds nobody", seen));
        }
        self.begin_next(began_ms, drains_from_ms, random);
        Ok(())
    }

    /// Has a few clients connect whose requests are not on their way when the server ceases to let
    /// anybody in.
    fn knock(&mut self, random: &mut Random) {
        for _ in 0..LATE {
            let index = random.below(self.clients.len());
            if self.clients[index].socket.is_none() {
                self.connect(index, 0, random);
            }
        }
        for client in &mut self.clients {
            let socket = client.socket.as_ref();
            client.is_late =
                socket.is_some_and(|socket| socket.is_in_head() && socket.holds_back());
        }
    }

    fn read_all(&mut self) -> Verdict {
        for index in 0..self.clients.len() {
            self.read(index)?;
        }
        Ok(())
    }

    /// Takes what is left of a connection of a server that has ended.
    fn abandon(&mut self, index: usize, is_cut_off: bool) -> Verdict {
        let client = &self.clients[index];
        if client.socket.is_none() {
            return Ok(());
        }
        let is_excused = is_cut_off || client.was_slow || client.is_leaving;
        if client.is_upgraded && !is_excused {
            return Err(client.broken(
                "whoever is connected to a server that drains is told, and gets a Close",
                "it got none",
            ));
        }
        self.with(index, |client, scene| {
            client.lose("the server has ended", scene);
            client.wait_until_ms = scene.now_ms;
        });
        Ok(())
    }

    /// Begins the next server, some time later.
    fn begin_next(&mut self, began_ms: u64, drains_from_ms: u64, random: &mut Random) {
        let max_age_ms = self.plan.config.snapshot_max_age.as_millis() as u64;
        let gap_ms = *random.one_of(&[0, 100, 5000, 30_000, 30_000, max_age_ms + 1000]);
        self.now_ms += gap_ms;
        let is_restored = self.plan.leaves_snapshot && gap_ms <= max_age_ms;
        let what = if is_restored { "takes up what was left" } else { "begins anew" };
        self.transcript.add(None, format!("a server {what} after {gap_ms} ms"));
        self.server = server(&self.plan, self.now_ms);
        (self.drain, self.is_gone, self.held_at_reload) = (None, false, (0, 0));
        self.stalled = vec![0; self.server.workers()];
        let stood_still_ms = self.now_ms - drains_from_ms;
        self.stood_still_ms += self.now_ms - began_ms;
        let kept = self.plan.config.resume_window + Duration::from_secs(5);
        self.strangers_until_ms = self.now_ms - self.stood_still_ms + kept.as_millis() as u64;
        for client in &mut self.clients {
            client.is_late = false;
            let Some(session) = &mut client.session else { continue };
            session.is_gone |= !is_restored;
            // Absences do not count from the drain to the next server.
            let now_ms = self.now_ms;
            session.lost_ms = session.lost_ms.map(|lost_ms| match lost_ms {
                0 => 0,
                lost_ms => (lost_ms + stood_still_ms).min(now_ms),
            });
        }
    }
}

fn broken(promise: &'static str, seen: String) -> Broken {
    Broken { promise, client: None, seen }
}
