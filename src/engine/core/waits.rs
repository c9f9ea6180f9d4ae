//! What the core waits for, and for how long.

/// How long a question waits for a link that was lost. Later ones are refused at once until it is
/// there again.
pub(super) const PATIENCE_MS: u64 = 3000;

/// How long a question is asked again, or waits for rooms, while one link after the other is lost
/// before it is answered. Ids of this node's own are known for longer.
pub(super) const ASKED_AGAIN_MS: u64 = 10_000;

/// Milliseconds that the result of a message is known whose client gave no id: as long as it may
/// be asked again.
pub(super) const OWN_ID_KEPT_MS: u64 = 60_000;

/// Milliseconds that rooms and sessions are kept in Redis though no node asks for them; those that
/// a node has are renewed sooner.
pub(super) const KEPT_MS: u64 = 3_600_000;

/// How often they are renewed.
pub(super) const RENEWED_EVERY_MS: u64 = KEPT_MS / 4;

/// Milliseconds that Redis waits for replicas (`redis_wait_replicas`); nothing else is done on the
/// connection meanwhile.
pub(super) const REPLICAS_WAIT_MS: u64 = 500;
