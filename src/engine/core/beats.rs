//! When a node last said that it is there, and last heard something.

/// How long the lease of a node lasts that is not renewed.
pub(in crate::engine) const LEASE_MS: u64 = 10_000;

/// How often it is renewed, and the node says something to itself.
pub(super) const BEAT_MS: u64 = 2500;

/// Silence on the subscriptions after which they count as lost: two beats that were not heard.
pub(super) const SILENCE_MS: u64 = 3 * BEAT_MS;

/// When what was done last.
#[derive(Default)]
pub(super) struct Beats {
    pub(super) beat_ms: u64,
    pub(super) heard_ms: u64,
    pub(super) reaped_ms: u64,
}

impl Beats {
    pub(super) fn begin(&mut self, now_ms: u64) {
        *self = Beats { beat_ms: 0, heard_ms: now_ms, reaped_ms: now_ms };
    }

    pub(super) fn is_silent(&self, now_ms: u64) -> bool {
        now_ms.saturating_sub(self.heard_ms) > SILENCE_MS
    }
}
