//! How many files this process may have open: the first thing a load test runs out of.

use std::io;

/// Raises the soft limit towards `wanted` as far as the hard one allows; tells the limit that now
/// holds.
///
/// `None` where there is no such limit to speak of (Windows), or when the system would not say.
#[cfg(unix)]
pub(super) fn raise(wanted: u64) -> Option<u64> {
    rlimit::increase_nofile_limit(wanted).ok()
}

#[cfg(not(unix))]
pub(super) fn raise(_wanted: u64) -> Option<u64> {
    None
}

/// Whether an error says that this process (`EMFILE`) or this machine (`ENFILE`) has no file
/// descriptor left.
///
/// The standard library has no stable name for either, hence the numbers, which all Unixes share.
pub(super) fn exhausted(error: &io::Error) -> bool {
    let codes: &[i32] = if cfg!(windows) { &[10024] } else { &[23, 24] };
    error.raw_os_error().is_some_and(|code| codes.contains(&code))
}
