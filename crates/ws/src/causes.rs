//! An error in one line, with its causes.

use std::error::Error;

/// `message` and each cause of `error`, as "outer: cause". Leaves out a cause that the text so far
/// ends with, because some errors of libraries print their cause themselves.
pub fn with_causes(message: &str, error: &dyn Error) -> String {
    let mut text = message.to_owned();
    let mut cause = error.source();
    while let Some(error) = cause {
        let reason = error.to_string();
        if !text.ends_with(&reason) {
            text = format!("{text}: {reason}");
        }
        cause = error.source();
    }
    text
}
