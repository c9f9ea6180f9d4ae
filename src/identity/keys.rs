//! The keys that tokens are verified with, each for one algorithm alone.

use jsonwebtoken::{
    Algorithm, DecodingKey,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, PublicKeyUse},
};

/// A key, and the one algorithm that it is for. A token that names another algorithm is never held
/// against it, so that a public key cannot be used as the secret of an HMAC.
#[derive(Debug, Clone)]
pub(super) struct Key {
    pub(super) algorithm: Algorithm,
    pub(super) id: Option<String>,
    pub(super) key: DecodingKey,
}

/// The most keys of a JWKS, and of a PEM file.
pub(super) const KEYS_MAX: usize = 64;

/// The bytes of an uncompressed point of P-256.
const P256_POINT_BYTES: usize = 65;

impl Key {
    /// Makes a key for HS256.
    pub(super) fn of_secret(secret: &str) -> Key {
        let key = DecodingKey::from_secret(secret.as_bytes());
        Key { algorithm: Algorithm::HS256, id: None, key }
    }

    /// Reads the public keys of a PEM text: one, or several for a change of keys.
    pub(super) fn of_pem(text: &str) -> Result<Vec<Key>, String> {
        const BEGIN: &str = "-----BEGIN ";
        let mut keys = Vec::new();
        for block in text.split(BEGIN).skip(1) {
            if keys.len() == KEYS_MAX {
                return Err(format!("must have at most {KEYS_MAX} keys"));
            }
            if !block.starts_with("PUBLIC KEY-----") && !block.starts_with("RSA PUBLIC KEY-----") {
                let found = block.split("-----").next().unwrap_or_default();
                let found: String = found.chars().take(40).collect();
                return Err(format!("must be public keys (BEGIN PUBLIC KEY), not {found:?}"));
            }
            keys.push(public_key(format!("{BEGIN}{block}").as_bytes())?);
        }
        match keys.is_empty() {
            true => Err("must be a public key in PEM, which begins with -----BEGIN".to_owned()),
            false => Ok(keys),
        }
    }

    /// Reads one key of a JWKS (RFC 7517). Returns `None` for a key that is not for signatures, of
    /// an algorithm that is not supported, or secret.
    pub(super) fn of_jwk(jwk: &serde_json::Value) -> Option<Key> {
        let jwk: Jwk = serde_json::from_value(jwk.clone()).ok()?;
        let algorithm = match &jwk.algorithm {
            AlgorithmParameters::RSA(_) => Algorithm::RS256,
            AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => {
                Algorithm::ES256
            }
            AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => {
                Algorithm::EdDSA
            }
            _ => return None,
        };
        let is_for_signatures =
            jwk.common.public_key_use.as_ref().is_none_or(|of| *of == PublicKeyUse::Signature);
        let stated = jwk.common.key_algorithm.map(|stated| stated.to_string());
        let is_stated = stated.is_none_or(|stated| stated == format!("{algorithm:?}"));
        if !is_for_signatures || !is_stated {
            return None;
        }
        let key = DecodingKey::from_jwk(&jwk).ok()?;
        Some(Key { algorithm, id: jwk.common.key_id, key })
    }
}

fn public_key(pem: &[u8]) -> Result<Key, String> {
    let key = |algorithm, key| Ok(Key { algorithm, id: None, key });
    if let Ok(rsa) = DecodingKey::from_rsa_pem(pem) {
        return key(Algorithm::RS256, rsa);
    }
    if let Ok(ec) = DecodingKey::from_ec_pem(pem) {
        return match ec.try_get_as_bytes().map(<[u8]>::len) {
            Ok(P256_POINT_BYTES) => key(Algorithm::ES256, ec),
            _ => Err("must be a key of the curve P-256 (ES256)".to_owned()),
        };
    }
    match DecodingKey::from_ed_pem(pem) {
        Ok(ed) => key(Algorithm::EdDSA, ed),
        Err(_) => Err("must be a public key for RS256, ES256 or EdDSA".to_owned()),
    }
}
