//! The authenticator: verifies tokens, remembers revocations, and counts both.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    revocations::{Revocation, Revocations},
    subject::Identity,
    token_error::TokenError,
};
#[cfg(not(feature = "identity"))]
use crate::config::IdentityMode;
use crate::{
    clock::Clock,
    config::Config,
    error::Error,
    metrics::{Counter, IdentityMetrics},
};

/// What the server knows of tokens. One per server; usable from any thread; never blocks.
#[derive(Debug)]
pub(crate) struct Authenticator {
    #[cfg(feature = "identity")]
    verifier: arc_swap::ArcSwapOption<super::verifier::Verifier>,
    revocations: Revocations,
    metrics: Arc<IdentityMetrics>,
    failures: [Counter; TokenError::ALL.len()],
    clock: Arc<Clock>,
}

/// Keys that were found good, and are not in use yet.
#[cfg(feature = "identity")]
pub(crate) struct NewKeys(Option<Arc<super::verifier::Verifier>>);

/// No keys.
#[cfg(not(feature = "identity"))]
pub(crate) struct NewKeys();

impl Authenticator {
    /// Makes the authenticator of `config`, which tells the time by `clock`.
    pub(crate) fn new(config: &Config, clock: Arc<Clock>) -> Result<Authenticator, Error> {
        let metrics: Arc<IdentityMetrics> = Arc::default();
        #[cfg(feature = "identity")]
        let verifier = super::verifier::Verifier::new(config, &metrics, None)?.map(Arc::new);
        #[cfg(not(feature = "identity"))]
        if config.identity != IdentityMode::Off {
            let message = "identity: this build verifies no tokens; build it with the cargo \
                           feature `identity`";
            return Err(Error::config(message));
        }
        Ok(Authenticator {
            #[cfg(feature = "identity")]
            verifier: verifier.into(),
            metrics,
            revocations: Revocations::default(),
            failures: Default::default(),
            clock,
        })
    }

    /// Makes what verifies tokens by the keys of `config`, which is not in use yet. Keys that are
    /// fetched stay if their address does.
    pub(crate) fn prepare(&self, config: &Config) -> Result<NewKeys, Error> {
        #[cfg(feature = "identity")]
        {
            use super::verifier::Verifier;
            let present = self.verifier.load_full();
            let verifier = Verifier::new(config, &self.metrics, present.as_deref())?;
            Ok(NewKeys(verifier.map(Arc::new)))
        }
        #[cfg(not(feature = "identity"))]
        {
            let _ = config;
            Ok(NewKeys())
        }
    }

    /// Verifies tokens by these keys from now on. Those whose token is good already stay.
    pub(crate) fn take(&self, new: NewKeys) {
        #[cfg(feature = "identity")]
        self.verifier.store(new.0);
        #[cfg(not(feature = "identity"))]
        let NewKeys() = new;
    }

    /// Verifies a token, which must not be revoked. Returns also what that cost, in microseconds or
    /// so.
    pub(crate) fn authenticate(&self, token: &str) -> (Result<Identity, TokenError>, usize) {
        #[cfg(feature = "identity")]
        let (outcome, cost) = match &*self.verifier.load() {
            Some(verifier) => verifier.verify(token, self.now_s()),
            None => (Err(TokenError::Off), 0),
        };
        #[cfg(not(feature = "identity"))]
        let (outcome, cost) = {
            let _ = token;
            (Err(TokenError::Off), 0)
        };
        let outcome = outcome.and_then(|identity: Identity| match self.is_revoked(&identity) {
            true => Err(TokenError::Revoked),
            false => Ok(identity),
        });
        match &outcome {
            Ok(_) => self.metrics.tokens_verified.add_shared(),
            Err(error) => self.fail(*error),
        }
        (outcome, cost)
    }

    /// Counts a client that is refused.
    pub(crate) fn fail(&self, error: TokenError) {
        self.failures[error as usize].add_shared();
    }

    pub(crate) fn is_revoked(&self, identity: &Identity) -> bool {
        self.revocations.is_revoked(identity, || self.now_s())
    }

    /// Refuses the tokens of a revocation from now on.
    pub(crate) fn revoke(&self, revocation: &Revocation) {
        if self.revocations.add(revocation, self.now_s()) {
            self.metrics.revocations_evicted.add_shared();
        }
    }

    fn now_s(&self) -> u64 {
        self.clock.since_1970().as_secs()
    }

    pub(crate) fn metrics(&self) -> &IdentityMetrics {
        &self.metrics
    }

    /// Counts the revocations that are kept.
    pub(crate) fn revocations(&self) -> usize {
        self.revocations.len()
    }

    /// Lists the revocations that hold.
    pub(crate) fn list_revocations(&self) -> Vec<Revocation> {
        self.revocations.list(self.now_s())
    }

    /// Returns the refusals so far by reason, without those that never happened.
    pub(crate) fn refused(&self) -> BTreeMap<&'static str, u64> {
        let counted = TokenError::ALL.iter().zip(&self.failures);
        let counted = counted.map(|(error, counter)| (error.name(), counter.value()));
        counted.filter(|(_, count)| *count > 0).collect()
    }
}

#[cfg(test)]
impl Default for Authenticator {
    /// One that knows no key, on the machine's clock.
    fn default() -> Authenticator {
        let clock = Arc::new(Clock::machine());
        Authenticator::new(&Config::default(), clock).expect("identity is off")
    }
}
