//! A backend of the operator: signed requests, and answers within bounds of time and bytes.

use std::{
    io,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use aws_lc_rs::hmac;
use ureq::{Agent, tls::TlsConfig};

use super::failure::Failure;
use crate::{Error, config::Secret};

/// The largest answer, in bytes.
const ANSWER_BYTES_MAX: u64 = 64 << 10;

/// How long an unused connection to the backend is kept. Shorter than most servers keep theirs, so
/// that few requests meet a connection that is just being closed.
const IDLE_MAX: Duration = Duration::from_secs(4);

/// Name of the header with the signature.
const SIGNATURE: &str = "Rusty-Socks-Signature";

/// A backend at one address. Usable from any thread; each call blocks its thread.
pub(super) struct Backend {
    agent: Agent,
    url: String,
    key: Option<hmac::Key>,
}

impl Backend {
    /// A backend that keeps at most `connections_max` unused connections.
    pub(super) fn new(
        url: &str,
        secret: &Secret,
        connections_max: usize,
    ) -> Result<Backend, Error> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = TlsConfig::builder().unversioned_rustls_crypto_provider(provider).build();
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .proxy(None)
            .user_agent(concat!("rusty_socks/", env!("CARGO_PKG_VERSION")))
            .max_idle_connections(connections_max)
            .max_idle_connections_per_host(connections_max)
            .max_idle_age(IDLE_MAX)
            .tls_config(tls)
            .build()
            .into();
        let key = (!secret.is_empty())
            .then(|| hmac::Key::new(hmac::HMAC_SHA256, secret.reveal().as_bytes()));
        Ok(Backend { agent, url: url.to_owned(), key })
    }

    /// Sends `body`, which is JSON, and returns the body of an answer with a status 2xx. Redirects
    /// are not followed.
    pub(super) fn post(&self, body: &str, time: Duration) -> Result<Vec<u8>, Failure> {
        if time.is_zero() {
            return Err(Failure::TimedOut);
        }
        let request = self.agent.post(&self.url).header("Content-Type", "application/json");
        let request = match &self.key {
            Some(key) => request.header(SIGNATURE, signature(key, body)),
            None => request,
        };
        let request = request.config().timeout_global(Some(time)).build();
        let mut answer = request.send(body).map_err(failure)?;
        match answer.status().as_u16() {
            200..=299 => {}
            status @ (400 | 413 | 422) => return Err(Failure::Refused(status)),
            // What a gateway answers that does not reach the backend behind it.
            status @ 502..=504 => return Err(Failure::Unreachable(format!("status {status}"))),
            status => return Err(Failure::Improper(format!("status {status}"))),
        }
        let read = answer.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_vec();
        read.map_err(failure)
    }
}

fn failure(error: ureq::Error) -> Failure {
    match error {
        ureq::Error::Timeout(_) => Failure::TimedOut,
        ureq::Error::Io(error) if error.kind() == io::ErrorKind::TimedOut => Failure::TimedOut,
        error @ (ureq::Error::Io(_)
        | ureq::Error::HostNotFound
        | ureq::Error::ConnectionFailed
        | ureq::Error::Tls(_)
        | ureq::Error::Rustls(_)) => Failure::Unreachable(error.to_string()),
        ureq::Error::BodyExceedsLimit(_) => {
            Failure::Improper(format!("an answer of more than {ANSWER_BYTES_MAX} bytes"))
        }
        error => Failure::Improper(error.to_string()),
    }
}

/// Formats a signature: the time, and the HMAC of the time, a dot and the body.
fn signature(key: &hmac::Key, body: &str) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    signature_at(key, body, now)
}

fn signature_at(key: &hmac::Key, body: &str, unix_s: u64) -> String {
    let mut signing = hmac::Context::with_key(key);
    signing.update(format!("{unix_s}.").as_bytes());
    signing.update(body.as_bytes());
    let hex: String = signing.sign().as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("t={unix_s},v1={hex}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_covers_the_time_and_the_body() {
        let key = hmac::Key::new(hmac::HMAC_SHA256, b"0123456789abcdef");
        // printf '7.{}' | openssl dgst -sha256 -hmac 0123456789abcdef
        let expected = "t=7,v1=3cd0ad802237a2c96b7ee3b06705b7350cc8cf0ba4123033d13eda91ad9c4ec2";
        assert_eq!(signature_at(&key, "{}", 7), expected);
        assert_ne!(signature_at(&key, "{}", 8)[4..], expected[4..]);
    }
}
