//! The verifier of tokens.

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use jsonwebtoken::{Algorithm, Validation, errors::ErrorKind as Reason};
use serde::Deserialize;

use super::{
    grants,
    jwks::Jwks,
    keys::Key,
    subject::{Identity, is_user},
    token_error::TokenError,
};
use crate::{
    config::{Config, IdentityMode},
    error::{Error, ErrorKind},
    metrics::IdentityMetrics,
};

/// The longest token, in bytes.
pub(super) const TOKEN_BYTES_MAX: usize = 16 << 10;

/// How far the clocks of the issuer and of this server may differ, in seconds.
const LEEWAY_S: f64 = 5.0;

/// The longest name that is shown (claim `name`), in bytes; a longer one is cut.
const NAME_BYTES_MAX: usize = 128;

/// The most keys that one token is held against.
const ATTEMPTS_MAX: usize = 8;

/// Verifies one token with the keys of `config`, whether identity is on or not. Meant for tools:
/// fetches the keys of `token_jwks_url` each time, which may take seconds. Needs the cargo feature
/// `identity`.
///
/// # Errors
/// [`ErrorKind::Config`]: a key cannot be used.
/// [`ErrorKind::System`]: the keys could not be fetched.
/// [`ErrorKind::InvalidInput`]: the token is refused; the message
/// says why.
pub fn verify_once(config: &Config, token: &str) -> Result<Identity, Error> {
    let verifier = Verifier::with_jwks(config, |url| Jwks::once(url).map(Arc::new))?;
    let refused = |why: TokenError| Error::new(ErrorKind::InvalidInput, why.to_string());
    verifier.verify(token, now_s()).0.map_err(refused)
}

/// Checks that the keys of `config` can be used. Fetches none. Needs the cargo feature `identity`.
///
/// # Errors
/// [`ErrorKind::Config`]: a key cannot be used.
pub fn check_keys(config: &Config) -> Result<(), Error> {
    Verifier::with_jwks(config, |_| Ok(Arc::new(Jwks::empty()))).map(drop)
}

/// What holding a token against one key costs, in microseconds or so: 3 for HS256, and up to 63 for
/// RS256.
const VERIFY_COST: usize = 64;

/// Verifies tokens with the keys of the configuration. Usable from any thread; never blocks.
#[derive(Debug)]
pub(super) struct Verifier {
    keys: Vec<Key>,
    jwks: Option<Arc<Jwks>>,
    jwks_url: String,
    audiences: Vec<String>,
    issuer: String,
}

/// The claims that this server reads (RFC 7519, 4.1).
#[derive(Deserialize)]
struct Claims {
    sub: String,
    exp: f64,
    nbf: Option<f64>,
    iat: Option<f64>,
    jti: Option<String>,
    name: Option<serde_json::Value>,
    rooms: Option<serde_json::Value>,
}

impl Verifier {
    /// Makes the verifier of `config`, or `None` if identity is off. Takes over the keys that the
    /// one before has fetched from the same address.
    pub(super) fn new(
        config: &Config,
        metrics: &Arc<IdentityMetrics>,
        before: Option<&Verifier>,
    ) -> Result<Option<Verifier>, Error> {
        if config.identity == IdentityMode::Off {
            return Ok(None);
        }
        let fetched = before.filter(|before| before.jwks_url == config.token_jwks_url);
        let fetch = |url: &str| match fetched.and_then(|before| before.jwks.clone()) {
            Some(jwks) => Ok(jwks),
            None => Jwks::start(url, metrics).map(Arc::new),
        };
        Verifier::with_jwks(config, fetch).map(Some)
    }

    /// Makes the verifier of `config`, whether identity is on or not, with keys that `fetch` gets.
    fn with_jwks(
        config: &Config,
        fetch: impl FnOnce(&str) -> Result<Arc<Jwks>, Error>,
    ) -> Result<Verifier, Error> {
        let secrets = [&config.token_hmac_secret, &config.token_hmac_secret_previous];
        let set = secrets.iter().filter(|secret| !secret.is_empty());
        let mut keys: Vec<Key> = set.map(|secret| Key::of_secret(secret.reveal())).collect();
        if !config.token_public_key.is_empty() {
            let read = Key::of_pem(config.token_public_key.reveal());
            keys.extend(read.map_err(|why| Error::config(format!("token_public_key: {why}")))?);
        }
        let jwks = match config.token_jwks_url.as_str() {
            "" => None,
            url => Some(fetch(url)?),
        };
        let (audiences, issuer) = (config.token_audience.clone(), config.token_issuer.clone());
        let jwks_url = config.token_jwks_url.clone();
        Ok(Verifier { keys, jwks, jwks_url, audiences, issuer })
    }

    /// Verifies a token: its signature by a key for its algorithm, its times, its audience and its
    /// issuer, `now_s` seconds after 1970. Returns also what that cost, in microseconds or so: a
    /// token that names no key is held against several.
    pub(super) fn verify(&self, token: &str, now_s: u64) -> (Result<Identity, TokenError>, usize) {
        let mut attempts = 0;
        let outcome = self.verify_counting(token, now_s, &mut attempts);
        (outcome, attempts.max(1) * VERIFY_COST)
    }

    fn verify_counting(
        &self,
        token: &str,
        now_s: u64,
        attempts: &mut usize,
    ) -> Result<Identity, TokenError> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(TokenError::TooLong);
        }
        let header = jsonwebtoken::decode_header(token).map_err(|error| match error.kind() {
            // An algorithm that is none, such as `none`.
            Reason::Json(error) if error.to_string().starts_with("unknown variant") => {
                TokenError::Algorithm
            }
            _ => TokenError::Malformed,
        })?;
        if header.crit.is_some() {
            // An extension that must be understood (RFC 7515, 4.1.11).
            return Err(TokenError::Malformed);
        }
        let of_algorithm = |key: &&Key| key.algorithm == header.alg;
        let own = self.keys.iter().filter(of_algorithm);
        let fetched = self.jwks.as_deref().map(Jwks::keys);
        let is_it = |key: &&Key| header.kid.is_none() || key.id == header.kid;
        let of_id = || fetched.iter().flat_map(|keys| keys.iter()).filter(is_it);
        // A key of another algorithm is not missing either.
        let is_fetched = match header.kid {
            Some(_) => of_id().next().is_some(),
            None => of_id().any(|key| key.algorithm == header.alg),
        };
        let validation = self.validation(header.alg);
        for key in own.chain(of_id().filter(of_algorithm)).take(ATTEMPTS_MAX) {
            *attempts += 1;
            match jsonwebtoken::decode::<Claims>(token, &key.key, &validation) {
                Ok(data) => return identity(data.claims, now_s),
                Err(error) => match reason(error.kind()) {
                    TokenError::Signature => {}
                    other => return Err(other),
                },
            }
        }
        Err(match &self.jwks {
            // The server's own keys do not tell whether the issuer has another one by now. Only
            // tokens of algorithms that keys may be fetched for make the server ask.
            Some(jwks) if !is_fetched && Jwks::may_have(header.alg) => {
                jwks.miss(header.alg, header.kid.as_deref())
            }
            _ if *attempts == 0 => TokenError::Algorithm,
            _ => TokenError::Signature,
        })
    }

    /// Returns what must hold of a token of this algorithm, beside its signature.
    fn validation(&self, algorithm: Algorithm) -> Validation {
        let mut validation = Validation::new(algorithm);
        // The times are held against the server's clock, once the rest is good.
        validation.validate_exp = false;
        validation.required_spec_claims = ["exp", "sub"].map(str::to_owned).into();
        validation.validate_aud = !self.audiences.is_empty();
        if validation.validate_aud {
            validation.set_audience(&self.audiences);
            validation.required_spec_claims.insert("aud".to_owned());
        }
        if !self.issuer.is_empty() {
            validation.set_issuer(&[&self.issuer]);
            validation.required_spec_claims.insert("iss".to_owned());
        }
        validation
    }
}

fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

fn reason(kind: &Reason) -> TokenError {
    match kind {
        Reason::InvalidAudience => TokenError::Audience,
        Reason::InvalidIssuer => TokenError::Issuer,
        Reason::MissingRequiredClaim(claim) if claim == "aud" => TokenError::Audience,
        Reason::MissingRequiredClaim(claim) if claim == "iss" => TokenError::Issuer,
        Reason::MissingRequiredClaim(_) | Reason::InvalidClaimFormat(_) | Reason::Json(_) => {
            TokenError::Claims
        }
        Reason::InvalidToken | Reason::Base64(_) | Reason::Utf8(_) => TokenError::Malformed,
        Reason::InvalidAlgorithm => TokenError::Algorithm,
        _ => TokenError::Signature,
    }
}

fn identity(claims: Claims, now_s: u64) -> Result<Identity, TokenError> {
    let Claims { sub, exp, nbf, iat, jti, name, rooms } = claims;
    let now = now_s as f64;
    if exp.round() < now - LEEWAY_S {
        return Err(TokenError::Expired);
    }
    if nbf.is_some_and(|nbf| nbf.round() > now + LEEWAY_S) {
        return Err(TokenError::NotYetValid);
    }
    // Some issuers write `"rooms":null`.
    let rooms = rooms.filter(|rooms| !rooms.is_null());
    let grants = rooms.map(|rooms| grants::read(&rooms, &sub)).transpose();
    let (true, Ok(grants)) = (is_user(&sub), grants) else { return Err(TokenError::Claims) };
    let name = name.as_ref().and_then(|name| name.as_str()).map(str::trim);
    let shown = |name: &str| name[..name.floor_char_boundary(NAME_BYTES_MAX)].into();
    Ok(Identity {
        name: name.filter(|name| !name.is_empty()).map(shown),
        user: sub.into(),
        // The conversion saturates.
        expires_at: Some(exp as u64),
        issued_at: iat.map_or(0, |iat| iat as u64),
        token_id: jti.map(Into::into),
        grants: grants.unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Secret;

    #[test]
    fn a_token_costs_as_much_as_there_are_keys_that_it_is_held_against() {
        let secret = |text: &str| Secret::new(text.repeat(32));
        let config = Config {
            token_hmac_secret: secret("a"),
            token_hmac_secret_previous: secret("b"),
            ..Config::default()
        };
        let verifier =
            Verifier::with_jwks(&config, |_| Ok(Arc::new(Jwks::empty()))).expect("good keys");
        let claims = serde_json::json!({"sub": "u", "exp": 1_u64 << 40});
        for (signer, is_good, attempts) in [("a", true, 1), ("b", true, 2), ("c", false, 2)] {
            let token = crate::identity::sign(&claims, &signer.repeat(32)).expect("a token");
            let (outcome, cost) = verifier.verify(&token, 0);
            assert_eq!((outcome.is_ok(), cost), (is_good, attempts * VERIFY_COST), "{signer}");
        }
        assert_eq!(verifier.verify("nonsense", 0).1, VERIFY_COST);
    }
}
