//! The negotiation of extensions.

use std::collections::BTreeMap;

use rusty_socks_ws::extension::{Malformed, Takeover, negotiate};

/// Fuzzes `Sec-WebSocket-Extensions` headers, one a line: the agreement was offered, and the answer
/// states it.
pub fn extensions(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let headers = || text.split('\n');
    for takeover in [Takeover::Never, Takeover::Allowed] {
        let agreed = negotiate(headers(), takeover);
        if agreed.is_ok() {
            let joined = headers().collect::<Vec<_>>().join(",");
            assert_eq!(negotiate([joined.as_str()], takeover), agreed, "one header or several");
        }
        let Ok(Some(agreement)) = agreed else { continue };
        assert!((9..=15).contains(&agreement.server_window_bits));
        let is_alone = agreement.server_no_context_takeover && agreement.client_no_context_takeover;
        assert!(takeover == Takeover::Allowed || is_alone);
        let answer = agreement.header();
        let (name, parameters) = read_answer(&answer);
        assert_eq!(name, "permessage-deflate");
        assert!(text.contains(name));
        for (name, value) in &parameters {
            let was_offered = || text.contains(*name) && text.contains(value.unwrap_or_default());
            match (*name, *value) {
                ("server_no_context_takeover", None) => {
                    assert!(agreement.server_no_context_takeover);
                    assert!(takeover == Takeover::Never || was_offered());
                }
                ("client_no_context_takeover", None) => {
                    assert!(agreement.client_no_context_takeover);
                    assert!(takeover == Takeover::Never || was_offered());
                }
                ("server_max_window_bits", Some(bits)) => {
                    assert_eq!(bits.parse(), Ok(agreement.server_window_bits));
                    assert!(was_offered(), "{answer}");
                }
                other => panic!("answered with {other:?}"),
            }
        }
        let names = parameters.contains_key("server_max_window_bits");
        assert!(names || agreement.server_window_bits == 15, "a smaller window was asked for");
        // The answer, parsed as an offer, leads to the same agreement.
        assert_eq!(negotiate([answer.as_str()], takeover), Ok(Some(agreement)));
    }
    // Whether the header is a list does not depend on the server's policy.
    let [never, allowed] = [Takeover::Never, Takeover::Allowed]
        .map(|takeover| negotiate(headers(), takeover).map(|agreed| agreed.is_some()));
    assert_eq!(never, allowed);
    let is_empty = text.chars().all(|c| " \t\n,".contains(c));
    assert!(never != Err(Malformed) || !is_empty, "an empty list is a list");
}

/// Parses the name and the parameters of an answer, and checks that none is repeated.
fn read_answer(answer: &str) -> (&str, BTreeMap<&str, Option<&str>>) {
    let mut parts = answer.split(';').map(str::trim);
    let (name, mut parameters) = (parts.next().unwrap_or_default(), BTreeMap::new());
    for part in parts {
        let (name, value) = match part.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (part, None),
        };
        assert_eq!(parameters.insert(name, value), None, "{answer}");
    }
    (name, parameters)
}
