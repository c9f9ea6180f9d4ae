//! The limits of the hub that a reload may change while it is used.

use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};

use super::{inbound::InboundBounds, inbox::InboxBounds};
use crate::{config::Config, limits::rates::Rates};

/// The limits of rooms and sessions. Each is a number by itself and no two of them must agree, so
/// they need no lock: a message reads some of them.
#[derive(Default)]
pub(crate) struct HubLimits {
    memberships_max: AtomicUsize,
    histories_bytes_max: AtomicUsize,
    page_bytes_max: AtomicUsize,
    inbox_messages_max: AtomicUsize,
    inbox_bytes_max: AtomicUsize,
    inbound_messages_max: AtomicUsize,
    inbound_bytes_max: AtomicUsize,
    history_ms: AtomicU64,
    resume_window_ms: AtomicU64,
    away_max: AtomicUsize,
    rate_messages: AtomicU32,
    rate_bytes: AtomicU32,
    rate_rooms: AtomicU32,
}

impl HubLimits {
    pub(super) fn new(config: &Config) -> HubLimits {
        let limits = HubLimits::default();
        limits.set(config);
        limits
    }

    /// Takes the limits of `config`, for everyone from now on.
    pub(super) fn set(&self, config: &Config) {
        self.memberships_max.store(config.max_rooms_per_conn, Relaxed);
        self.histories_bytes_max.store(config.history_total_bytes, Relaxed);
        self.page_bytes_max.store(config.buffer_bytes / 2, Relaxed);
        // A resumed client gets its whole inbox at once, after the replays of its rooms, so the
        // inbox must fit the outbox.
        self.inbox_messages_max.store(config.inbox.min(config.buffer / 4), Relaxed);
        self.inbox_bytes_max.store(config.inbox_bytes.min(config.buffer_bytes / 4), Relaxed);
        // With half of an outbox full, all that is on its way fits into the other half.
        self.inbound_messages_max.store(config.buffer / 4, Relaxed);
        self.inbound_bytes_max.store(config.buffer_bytes / 4, Relaxed);
        self.history_ms.store(config.history_age.as_millis() as u64, Relaxed);
        self.resume_window_ms.store(config.resume_window.as_millis() as u64, Relaxed);
        self.away_max.store(config.max_away_sessions, Relaxed);
        self.rate_messages.store(config.rate_messages, Relaxed);
        self.rate_bytes.store(config.rate_bytes, Relaxed);
        self.rate_rooms.store(config.rate_rooms, Relaxed);
    }

    /// The most rooms that one session may be in.
    pub(crate) fn memberships_max(&self) -> usize {
        self.memberships_max.load(Relaxed)
    }

    /// The most bytes that all histories together keep.
    #[inline]
    pub(super) fn histories_bytes_max(&self) -> usize {
        self.histories_bytes_max.load(Relaxed)
    }

    /// The largest page or replay. A larger one could overflow the outbox it is sent to.
    pub(super) fn page_bytes_max(&self) -> usize {
        self.page_bytes_max.load(Relaxed)
    }

    pub(crate) fn inbox(&self) -> InboxBounds {
        InboxBounds {
            messages_max: self.inbox_messages_max.load(Relaxed),
            bytes_max: self.inbox_bytes_max.load(Relaxed),
        }
    }

    pub(super) fn inbound(&self) -> InboundBounds {
        InboundBounds {
            messages_max: self.inbound_messages_max.load(Relaxed),
            bytes_max: self.inbound_bytes_max.load(Relaxed),
        }
    }

    /// How long a message is kept, in milliseconds.
    pub(crate) fn history_ms(&self) -> u64 {
        self.history_ms.load(Relaxed)
    }

    /// How long a session outlives its connection.
    pub(crate) fn resume_window_ms(&self) -> u64 {
        self.resume_window_ms.load(Relaxed)
    }

    pub(super) fn away_max(&self) -> usize {
        self.away_max.load(Relaxed)
    }

    /// Whether neither messages nor bytes of one session are limited.
    #[inline]
    pub(super) fn rates_are_off(&self) -> bool {
        self.rate_messages.load(Relaxed) | self.rate_bytes.load(Relaxed) == 0
    }

    /// The limits of one session.
    pub(super) fn rates(&self) -> Rates {
        let [messages, bytes, rooms] = [&self.rate_messages, &self.rate_bytes, &self.rate_rooms]
            .map(|rate| rate.load(Relaxed));
        Rates::new(messages, bytes, rooms)
    }
}
