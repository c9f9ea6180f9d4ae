//! Tokens: whatever they hold, only what was signed with the secret is good, and within its bounds.

use rusty_socks::{
    Config, Identity,
    config::{IdentityMode, Secret},
    identity::{sign, verify_once},
};

const SECRET: &str = "the secret of the fuzzers, long enough";

/// Verifies the first line as a token, and the second as the claims of one that is signed.
pub fn token(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let (token, claims) = text.split_once('\n').unwrap_or((&text, ""));
    let token_hmac_secret = Secret::new(SECRET);
    let identity = IdentityMode::Required;
    let config = Config { identity, token_hmac_secret, ..Config::default() };
    assert!(verify_once(&config, token).is_err(), "nobody signed it");
    let Ok(claims) = serde_json::from_str::<serde_json::Value>(claims) else { return };
    let Ok(signed) = sign(&claims, SECRET) else { return };
    if let Ok(identity) = verify_once(&config, &signed) {
        check(&identity, &claims);
        // Each byte of a token counts.
        let at = input.len() % signed.len();
        let mut forged = signed.into_bytes();
        forged[at] = if forged[at] == b'A' { b'B' } else { b'A' };
        let forged = String::from_utf8_lossy(&forged);
        // The last digit of a part has bits that mean nothing.
        if let Ok(forged) = verify_once(&config, &forged) {
            assert_eq!(forged, identity, "changed at {at}");
        }
    }
}

fn check(identity: &Identity, claims: &serde_json::Value) {
    assert_eq!(claims["sub"].as_str(), Some(&*identity.user));
    assert!((1..=128).contains(&identity.user.len()) && !identity.user.contains(char::is_control));
    assert!((1..=128).contains(&identity.shown_name().len()));
    assert!(identity.grants.len() <= 100);
    assert!(identity.expires_at.is_some());
    for room in ["", "a", "a.b", "user.u", "*", &identity.user] {
        let granted = identity.granted(room);
        let grants = identity.grants.iter().filter(|grant| grant.matches(room));
        assert!(grants.fold(granted, |rest, grant| rest - grant.allow()).is_empty());
    }
}
