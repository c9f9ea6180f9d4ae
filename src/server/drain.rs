//! How a drain begins: who is told what, and over what time connections are closed.

use std::time::Duration;

use crate::{hub::mailbox::Letter, pool::shared::Shared};

/// The part of the drain timeout over which closes are spread; the rest is for slow clients.
const SPREAD_PERCENT: u32 = 70;

/// Connections that a drain closes in a second at least: so many come back at once without harm.
const PACE_MIN: u64 = 500;

/// Asks every worker to close its connections within `grace`, once nobody is let in any more.
pub(super) fn begin(shared: &Shared, grace: Duration) {
    if shared.config().leaves_snapshot() {
        shared.hub.stop_absences();
    }
    let open = shared.admission.gauges().0;
    let spread_ms = spread(open, grace).as_millis() as u64;
    for worker in 0..shared.sockets.len() {
        shared.hub.mailboxes.send_control(worker, Letter::Drain { spread_ms });
    }
}

/// The time over which a drain of `open` connections closes them.
fn spread(open: usize, grace: Duration) -> Duration {
    let needed = Duration::from_millis(open as u64 * 1000 / PACE_MIN);
    needed.min(grace / 100 * SPREAD_PERCENT)
}
