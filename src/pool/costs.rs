//! What one connection may do in a turn, and what that costs.

/// Messages handled for one connection before the others get their turn.
pub(super) const MESSAGES_PER_TURN_MAX: usize = 256;

/// What these may cost, as `WorkerCtx::spent` counts it.
pub(super) const COST_PER_TURN_MAX: usize = 256;

/// What a KiB of a message costs that may have been inflated. One that came as it is costs 1.
const INFLATED_KIB_COST: usize = 16;

/// Bytes that cost 1 to read where they are no messages: of a body, or of no use at all.
pub(super) const BYTES_PER_COST: usize = 512;

/// What a part of a TLS handshake costs: with a certificate of ECDSA about as much as a message a
/// microsecond.
#[cfg(feature = "tls")]
pub(super) const HANDSHAKE_COST: usize = 100;

/// Returns what it costs to read a message.
pub(super) fn cost_of_message(bytes: usize, is_deflating: bool) -> usize {
    1 + bytes / 1024 * if is_deflating { INFLATED_KIB_COST } else { 1 }
}
