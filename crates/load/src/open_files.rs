//! How an error shows that this machine has no file descriptor left.

use std::io;

/// Whether an error says that this process (`EMFILE`) or this machine (`ENFILE`) has no file
/// descriptor left.
///
/// The standard library has no stable name for either, hence the numbers, which all Unixes share.
pub(crate) fn exhausted(error: &io::Error) -> bool {
    let codes: &[i32] = if cfg!(windows) { &[10024] } else { &[23, 24] };
    error.raw_os_error().is_some_and(|code| codes.contains(&code))
}
