//! The keys of a JWKS (RFC 7517), fetched by a thread of their own.
//!
//! The address comes from the configuration alone, never from a token. An error keeps the keys that
//! are there.

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use jsonwebtoken::Algorithm;
use parking_lot::Mutex;
use ureq::{Agent, tls::TlsConfig};

use super::{
    keys::{KEYS_MAX, Key},
    token_error::TokenError,
};
use crate::{
    error::{Error, ErrorKind},
    metrics::IdentityMetrics,
};

/// How long the server waits at least before it fetches the keys once more for an unknown `kid`.
const ASK_INTERVAL: Duration = Duration::from_secs(30);

/// How often the keys are fetched without being asked for.
const REFRESH_INTERVAL: Duration = Duration::from_secs(600);

/// How long one fetch may take.
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);

/// The largest JWKS, in bytes.
const JWKS_BYTES_MAX: u64 = 256 << 10;

/// The keys as they were last fetched, and the thread that fetches them. The thread ends when this
/// is dropped.
#[derive(Debug)]
pub(super) struct Jwks {
    shared: Arc<Fetched>,
    ask: Sender<()>,
}

/// Usable from any thread; each lock is held for one look or change.
#[derive(Debug)]
struct Fetched {
    keys: Mutex<Arc<[Key]>>,
    /// When the last fetch ended; `None` while one is being made.
    ended: Mutex<Option<Instant>>,
    metrics: Arc<IdentityMetrics>,
}

impl Jwks {
    /// Starts the thread, which fetches the keys at once.
    pub(super) fn start(url: &str, metrics: &Arc<IdentityMetrics>) -> Result<Jwks, Error> {
        let shared = Arc::new(Fetched {
            keys: Mutex::new([].into()),
            ended: Mutex::new(None),
            metrics: Arc::clone(metrics),
        });
        let (ask, asked) = crossbeam_channel::bounded(1);
        let (fetched, url) = (Arc::clone(&shared), url.to_owned());
        let run = move || fetched.run(&url, &asked);
        thread::Builder::new()
            .name("rusty-socks-jwks".to_owned())
            .spawn(run)
            .map_err(|error| Error::io("cannot start the thread that fetches keys", error))?;
        Ok(Jwks { shared, ask })
    }

    /// Has no keys, and fetches none.
    pub(super) fn empty() -> Jwks {
        let shared = Fetched {
            keys: Mutex::new([].into()),
            ended: Mutex::new(Some(Instant::now())),
            metrics: Arc::default(),
        };
        Jwks { shared: Arc::new(shared), ask: crossbeam_channel::bounded(0).0 }
    }

    /// Fetches the keys now, and never again.
    pub(super) fn once(url: &str) -> Result<Jwks, Error> {
        let keys = fetch(url).map_err(|why| {
            let text = format!("cannot fetch the keys for tokens from {url}: {why}");
            Error::new(ErrorKind::System, text)
        })?;
        let jwks = Jwks::empty();
        *jwks.shared.keys.lock() = keys.into();
        Ok(jwks)
    }

    /// Returns the keys as they were last fetched.
    pub(super) fn keys(&self) -> Arc<[Key]> {
        Arc::clone(&self.shared.keys.lock())
    }

    /// Whether a JWKS may have keys for this algorithm.
    pub(super) fn may_have(algorithm: Algorithm) -> bool {
        matches!(algorithm, Algorithm::RS256 | Algorithm::ES256 | Algorithm::EdDSA)
    }

    /// Answers a token whose key is not there. Has the keys fetched once more, if that was not done
    /// in the last [`ASK_INTERVAL`].
    pub(super) fn miss(&self) -> TokenError {
        let mut ended = self.shared.ended.lock();
        let is_recent = ended.map(|at| at.elapsed() < ASK_INTERVAL);
        match is_recent {
            Some(true) if self.shared.keys.lock().is_empty() => TokenError::KeysUnavailable,
            Some(true) => TokenError::UnknownKey,
            Some(false) => {
                *ended = None;
                let _ = self.ask.try_send(());
                TokenError::KeysUnavailable
            }
            None => TokenError::KeysUnavailable,
        }
    }
}

impl Fetched {
    fn run(&self, url: &str, asked: &Receiver<()>) {
        loop {
            *self.ended.lock() = None;
            let fetched = fetch(url);
            self.metrics.jwks_fetches.add_shared();
            let mut wait = REFRESH_INTERVAL;
            match fetched {
                Ok(keys) => *self.keys.lock() = keys.into(),
                Err(why) => {
                    self.metrics.jwks_failures.add_shared();
                    log::warn!("cannot fetch the keys for tokens from {url}: {why}");
                    // Tokens are refused until there are keys.
                    wait = ASK_INTERVAL;
                }
            }
            *self.ended.lock() = Some(Instant::now());
            match asked.recv_timeout(wait) {
                Ok(()) | Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }
}

/// Fetches the keys, within a bound of time and of bytes, and without following redirects.
fn fetch(url: &str) -> Result<Vec<Key>, String> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = TlsConfig::builder().unversioned_rustls_crypto_provider(provider).build();
    let agent: Agent = Agent::config_builder()
        .timeout_global(Some(FETCH_TIMEOUT))
        .max_redirects(0)
        .proxy(None)
        .tls_config(tls)
        .build()
        .into();
    let mut answer = agent.get(url).call().map_err(|error| error.to_string())?;
    let body = answer.body_mut().with_config().limit(JWKS_BYTES_MAX).read_to_string();
    read(&body.map_err(|error| error.to_string())?)
}

fn read(body: &str) -> Result<Vec<Key>, String> {
    let set: serde_json::Value =
        serde_json::from_str(body).map_err(|error| format!("not JSON: {error}"))?;
    let listed = set.get("keys").and_then(|keys| keys.as_array());
    let listed = listed.ok_or("not a JWKS: there must be a list of keys")?;
    let keys: Vec<Key> = listed.iter().filter_map(Key::of_jwk).take(KEYS_MAX).collect();
    match keys.is_empty() {
        true => Err("no key in it is for RS256, ES256 or EdDSA".to_owned()),
        false => Ok(keys),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_public_keys_for_signatures_are_taken() {
        let keys = |keys: &str| read(&format!("{{\"keys\":[{keys}]}}"));
        let rsa = r#"{"kty":"RSA","kid":"a","n":"sXch","e":"AQAB"}"#;
        let found = keys(&format!(r#"{{"kty":"oct","k":"AAAA"}},{{"kty":"new"}},7,{rsa}"#));
        let found = found.expect("one of them");
        assert_eq!((found.len(), found[0].algorithm), (1, Algorithm::RS256));
        for unfit in [
            r#"{"kty":"RSA","use":"enc","n":"sXch","e":"AQAB"}"#,
            r#"{"kty":"RSA","alg":"HS256","n":"sXch","e":"AQAB"}"#,
            r#"{"kty":"EC","crv":"P-384","x":"AAAA","y":"AAAA"}"#,
        ] {
            assert!(keys(unfit).is_err(), "{unfit}");
        }
        assert!(read("[]").is_err() && read("<html>").is_err());
    }
}
