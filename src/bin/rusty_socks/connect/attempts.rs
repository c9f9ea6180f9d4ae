//! The way in: a server that is busy is asked again, for as long as the command line allows.

use std::{
    sync::mpsc,
    time::{Duration, Instant},
};

use rusty_socks_client::Error;

use crate::exit::{Exit, PREFIX, say};

use super::{args::ConnectArgs, failure::Failure, text};

/// The first random wait is at most this, each further one at most twice as much.
const JITTER: Duration = Duration::from_millis(250);

/// No random wait is longer.
const JITTER_MAX: Duration = Duration::from_secs(8);

/// Makes attempts until the server is not busy: until one succeeds, fails for good, or the next one
/// would come after `--timeout`. Tells of each wait.
pub(super) fn until_served<T>(
    args: &ConnectArgs,
    attempt: impl Fn() -> Result<T, Error>,
) -> Result<T, Failure> {
    let begin = Instant::now();
    let mut jitter_max = JITTER;
    loop {
        let error = match attempt() {
            Ok(served) => return Ok(served),
            Err(error) => error,
        };
        let busy = error.refused().filter(|refused| refused.is_temporary());
        let Some(refused) = busy.filter(|_| !args.no_reconnect) else { return Err(error.into()) };
        let why = text::plain(&error.to_string());
        let wait = refused.retry_after.unwrap_or_default() + jitter_max.mul_f64(random());
        if begin.elapsed() + wait > args.timeout {
            let (wait, timeout) = (wait.as_secs_f64(), args.timeout.as_secs_f64());
            let text = format!("{why}; to wait {wait:.1} s more is beyond --timeout {timeout}");
            return Err(Failure::Ended(text, Exit::Refused));
        }
        say(&format!("{PREFIX}{why}; trying again in {:.1} s", wait.as_secs_f64()));
        // Nobody sends. Ctrl-C ends the program at once here, for nothing has begun yet.
        let (_sender, never) = mpsc::channel::<()>();
        let _ = never.recv_timeout(wait);
        jitter_max = (jitter_max * 2).min(JITTER_MAX);
    }
}

/// From 0 to 1, so that clients do not come back together.
fn random() -> f64 {
    let (bits, _) = uuid::Uuid::new_v4().as_u64_pair();
    (bits >> 32) as f64 / f64::from(u32::MAX)
}
