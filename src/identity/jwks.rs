//! The keys of a JWKS (RFC 7517), fetched by a thread of their own.
//!
//! The address comes from the configuration alone, never from a token. An error keeps the keys that
//! are there.

use std::{
    collections::BTreeSet,
    hash::{BuildHasher, RandomState},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TrySendError};
use jsonwebtoken::Algorithm;
use parking_lot::Mutex;
use ureq::{Agent, tls::TlsConfig};

use super::{
    keys::{KEYS_MAX, Key},
    token_error::TokenError,
};
use crate::{
    config::shown_address,
    error::{Error, ErrorKind},
    metrics::IdentityMetrics,
};

/// How long the server waits at least before it fetches the keys once more for an unknown `kid`.
const ASK_INTERVAL: Duration = Duration::from_secs(30);

/// The most unknown keys that are remembered from one fetch to the next.
const MISSED_MAX: usize = 1024;

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
    unknown: Mutex<Unknown>,
    /// Hashes the keys that were not there: strangers choose their names, and how long these are.
    hasher: RandomState,
    ask_interval: Duration,
    metrics: Arc<IdentityMetrics>,
}

/// The keys that tokens named and that were not there.
#[derive(Debug, Default)]
struct Unknown {
    /// When the last fetch ended; `None` before the first.
    fetched_at: Option<Instant>,
    /// The keys that were missed since that fetch began.
    missed: BTreeSet<u64>,
    /// The keys that were missed before it, and that it has not brought if they are missed again.
    /// None if it failed.
    asked_for: BTreeSet<u64>,
}

impl Jwks {
    /// Starts the thread, which fetches the keys at once.
    pub(super) fn start(url: &str, metrics: &Arc<IdentityMetrics>) -> Result<Jwks, Error> {
        Jwks::start_with(url, metrics, ASK_INTERVAL)
    }

    fn start_with(
        url: &str,
        metrics: &Arc<IdentityMetrics>,
        ask_interval: Duration,
    ) -> Result<Jwks, Error> {
        let shared = Arc::new(Fetched::new(metrics, ask_interval));
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
        let shared = Arc::new(Fetched::new(&Arc::default(), ASK_INTERVAL));
        Jwks { shared, ask: crossbeam_channel::bounded(0).0 }
    }

    /// Fetches the keys now, and never again.
    pub(super) fn once(url: &str) -> Result<Jwks, Error> {
        let keys = fetch(url).map_err(|why| {
            let text =
                format!("cannot fetch the keys for tokens from {}: {why}", shown_address(url));
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

    /// Answers a token whose key, named `id` or not at all, is not there. Has the keys fetched once
    /// more when the last fetch is [`ASK_INTERVAL`] ago; until then the token may be good later. It
    /// is refused if that fetch has not brought its key either.
    pub(super) fn miss(&self, algorithm: Algorithm, id: Option<&str>) -> TokenError {
        let Fetched { unknown, hasher, ask_interval, .. } = &*self.shared;
        let key = hasher.hash_one((algorithm, id));
        let mut unknown = unknown.lock();
        let is_recent = unknown.fetched_at.is_some_and(|at| at.elapsed() < *ask_interval);
        if is_recent && unknown.asked_for.contains(&key) && !self.keys().is_empty() {
            return TokenError::UnknownKey;
        }
        if unknown.missed.len() < MISSED_MAX {
            unknown.missed.insert(key);
        }
        drop(unknown);
        match self.ask.try_send(()) {
            Ok(()) | Err(TrySendError::Full(())) => TokenError::KeysUnavailable,
            // No further fetch is made.
            Err(TrySendError::Disconnected(())) => TokenError::UnknownKey,
        }
    }
}

impl Fetched {
    fn new(metrics: &Arc<IdentityMetrics>, ask_interval: Duration) -> Fetched {
        Fetched {
            keys: Mutex::new([].into()),
            unknown: Mutex::default(),
            hasher: RandomState::new(),
            ask_interval,
            metrics: Arc::clone(metrics),
        }
    }

    fn run(&self, url: &str, asked: &Receiver<()>) {
        loop {
            let missed = std::mem::take(&mut self.unknown.lock().missed);
            let fetched = fetch(url);
            self.metrics.jwks_fetches.add_shared();
            let mut wait = REFRESH_INTERVAL;
            let mut asked_for = BTreeSet::new();
            match fetched {
                Ok(keys) => {
                    *self.keys.lock() = keys.into();
                    asked_for = missed;
                }
                Err(why) => {
                    self.metrics.jwks_failures.add_shared();
                    log::warn!(
                        "cannot fetch the keys for tokens from {}: {why}",
                        shown_address(url)
                    );
                    // Tokens are refused until there are keys.
                    wait = self.ask_interval;
                }
            }
            let ended = Instant::now();
            let mut unknown = self.unknown.lock();
            (unknown.fetched_at, unknown.asked_for) = (Some(ended), asked_for);
            drop(unknown);
            // A flood of unknown keys asks all the time, and the issuer hears of it once in a
            // while.
            if asked.recv_timeout(wait) == Err(RecvTimeoutError::Disconnected) {
                return;
            }
            while let Some(rest) = self.ask_interval.checked_sub(ended.elapsed()) {
                if asked.recv_timeout(rest) == Err(RecvTimeoutError::Disconnected) {
                    return;
                }
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
    use std::{
        io::{Read, Write},
        net::TcpListener,
    };

    use super::*;

    const DEADLINE: Duration = Duration::from_secs(30);

    /// Between two looks at a condition.
    const PAUSE: Duration = Duration::from_millis(5);

    /// Serves one set of keys after the other, and the last one from then on.
    fn issuer(sets: Vec<String>) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}/", listener.local_addr().expect("an address"));
        thread::spawn(move || {
            let mut sets = sets.into_iter().peekable();
            while let (Ok((mut stream, _)), Some(set)) = (listener.accept(), sets.peek().cloned()) {
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", set.len());
                let _ = stream.read(&mut [0; 4096]);
                let _ = stream.write_all((head + &set).as_bytes());
                if sets.len() > 1 {
                    sets.next();
                }
            }
        });
        url
    }

    fn set(ids: &[&str]) -> String {
        let keys = ids.iter().map(|id| {
            serde_json::json!({"kty": "RSA", "alg": "RS256", "kid": id, "n": "sXch", "e": "AQAB"})
        });
        serde_json::json!({"keys": keys.collect::<Vec<_>>()}).to_string()
    }

    #[test]
    fn a_key_that_is_new_is_found_though_strangers_ask_for_others_all_the_time() {
        let url = issuer(vec![set(&["old"]), set(&["old", "new"])]);
        let (metrics, interval) = (Arc::default(), Duration::from_millis(300));
        let jwks = Jwks::start_with(&url, &metrics, interval).expect("a thread");
        let miss = |id: &str| jwks.miss(Algorithm::RS256, Some(id));
        let (begun, mut asked) = (Instant::now(), 0);
        while jwks.keys().is_empty() {
            assert!(begun.elapsed() < DEADLINE, "the first keys do not come");
            thread::park_timeout(PAUSE);
        }
        while !jwks.keys().iter().any(|key| key.id.as_deref() == Some("new")) {
            assert!(begun.elapsed() < DEADLINE, "the new key does not come");
            asked += 1;
            assert_eq!(miss(&format!("random {asked}")), TokenError::KeysUnavailable);
            assert_eq!(miss("new"), TokenError::KeysUnavailable, "it may come");
            thread::park_timeout(PAUSE);
        }
        let fetches = metrics.jwks_fetches.value();
        let intervals = begun.elapsed().as_millis() / interval.as_millis();
        assert!(u128::from(fetches) <= 2 + intervals, "{fetches} fetches in {intervals} intervals");
    }

    #[test]
    fn a_key_that_a_fetch_has_not_brought_is_refused() {
        let metrics = Arc::default();
        let interval = Duration::from_millis(200);
        let jwks = Jwks::start_with(&issuer(vec![set(&["a"])]), &metrics, interval);
        let jwks = jwks.expect("a thread");
        let begun = Instant::now();
        // A fetch that has not begun yet would look for it too.
        while jwks.keys().is_empty() {
            assert!(begun.elapsed() < DEADLINE, "the keys do not come");
            thread::park_timeout(PAUSE);
        }
        while jwks.miss(Algorithm::RS256, Some("b")) != TokenError::UnknownKey {
            assert!(begun.elapsed() < DEADLINE, "it is not told");
            thread::park_timeout(PAUSE);
        }
        assert!(metrics.jwks_fetches.value() >= 2, "the server has looked for it");
        assert_eq!(Jwks::empty().miss(Algorithm::RS256, None), TokenError::UnknownKey);
    }

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
