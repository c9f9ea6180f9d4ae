//! Negotiation of extensions (RFC 6455, 9.1).

use std::fmt::Write as _;

use super::headers::{is_token, trim};

/// The only supported extension (RFC 7692).
const PERMESSAGE_DEFLATE: &str = "permessage-deflate";

/// The smallest and the largest LZ77 window in an offer, as powers of two (RFC 7692, 7.1.2).
const WINDOW_BITS_MIN: u8 = 8;
const WINDOW_BITS_MAX: u8 = 15;

/// The smallest window that the compressor supports. An offer that demands a smaller one is
/// declined.
const WINDOW_BITS_SPOKEN_MIN: u8 = 9;

/// The negotiated compression of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Agreement {
    /// Whether the server compresses each message without context.
    pub server_no_context_takeover: bool,
    /// Whether the client compresses each message without context.
    pub client_no_context_takeover: bool,
    /// The largest window of the server's messages, as a power of two: 9 to 15.
    pub server_window_bits: u8,
    /// Whether the client asked for this window, so that the answer must state it.
    server_window_named: bool,
}

/// The server's policy on context takeover.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Takeover {
    /// Compress each message without context in both directions, so that nothing is kept for a
    /// connection.
    Never,
    /// Keep the context if the client agrees, for a better ratio.
    Allowed,
}

/// The error for a header that is not a list of extensions. The handshake fails (RFC 6455, 9.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed;

/// Chooses the first acceptable offer of `permessage-deflate` in the `Sec-WebSocket-Extensions`
/// headers. Skips other extensions, and offers that must be declined (RFC 7692).
pub fn negotiate<'h>(
    headers: impl IntoIterator<Item = &'h str>,
    takeover: Takeover,
) -> Result<Option<Agreement>, Malformed> {
    let mut agreed = None;
    for header in headers {
        for offer in split_outside_quotes(header, ',')? {
            let Some(offer) = Offer::parse(offer)? else { continue };
            if agreed.is_none() && offer.name == PERMESSAGE_DEFLATE {
                agreed = accept(&offer, takeover);
            }
        }
    }
    Ok(agreed)
}

/// An offer: a name and its parameters.
struct Offer<'h> {
    name: &'h str,
    parameters: Vec<(&'h str, Option<&'h str>)>,
}

impl<'h> Offer<'h> {
    /// Parses an offer. Returns `None` for an empty item, which a list may have (RFC 9110,
    /// 5.6.1.2).
    fn parse(item: &'h str) -> Result<Option<Offer<'h>>, Malformed> {
        if item.is_empty() {
            return Ok(None);
        }
        let mut parts = split_outside_quotes(item, ';')?.into_iter();
        let name = parts.next().ok_or(Malformed)?;
        if !is_token(name) {
            return Err(Malformed);
        }
        let parameters = parts.map(parameter).collect::<Result<_, _>>()?;
        Ok(Some(Offer { name, parameters }))
    }
}

fn parameter(part: &str) -> Result<(&str, Option<&str>), Malformed> {
    let (name, value) = match part.split_once('=') {
        Some((name, value)) => (trim(name), Some(unquote(trim(value)))),
        None => (part, None),
    };
    // A quoted value must be a token too (RFC 6455, 9.1).
    match is_token(name) && value.is_none_or(is_token) {
        true => Ok((name, value)),
        false => Err(Malformed),
    }
}

fn unquote(value: &str) -> &str {
    value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(value)
}

/// Splits at each `separator` outside quotes, and trims the parts.
fn split_outside_quotes(text: &str, separator: char) -> Result<Vec<&str>, Malformed> {
    let (mut parts, mut start, mut quoted) = (Vec::new(), 0, false);
    for (at, c) in text.char_indices() {
        if c == '"' {
            quoted = !quoted;
        } else if c == separator && !quoted {
            parts.push(trim(&text[start..at]));
            start = at + 1;
        }
    }
    parts.push(trim(&text[start..]));
    if quoted { Err(Malformed) } else { Ok(parts) }
}

/// Returns the agreement for an offer, or `None` if it must be declined: a parameter is unknown,
/// given twice or has an illegal value (RFC 7692, 7.1), or the window is too small for the
/// compressor.
fn accept(offer: &Offer<'_>, takeover: Takeover) -> Option<Agreement> {
    let mut seen: Vec<&str> = Vec::new();
    let mut agreement = Agreement {
        server_no_context_takeover: takeover == Takeover::Never,
        client_no_context_takeover: takeover == Takeover::Never,
        server_window_bits: WINDOW_BITS_MAX,
        server_window_named: false,
    };
    for (name, value) in &offer.parameters {
        if seen.contains(name) {
            return None;
        }
        seen.push(name);
        match (*name, *value) {
            ("server_no_context_takeover", None) => agreement.server_no_context_takeover = true,
            ("client_no_context_takeover", None) => agreement.client_no_context_takeover = true,
            ("server_max_window_bits", Some(value)) => {
                agreement.server_window_bits = window_bits(value)?;
                agreement.server_window_named = true;
            }
            // The inflater supports every window of the client.
            ("client_max_window_bits", None) => {}
            ("client_max_window_bits", Some(value)) => drop(window_bits(value)?),
            _ => return None,
        }
    }
    (agreement.server_window_bits >= WINDOW_BITS_SPOKEN_MIN).then_some(agreement)
}

/// Parses a number from 8 to 15 without leading zeros (RFC 7692, 7.1.2).
fn window_bits(value: &str) -> Option<u8> {
    let bits = value.parse().ok().filter(|_| !value.starts_with(['0', '+']))?;
    (WINDOW_BITS_MIN..=WINDOW_BITS_MAX).contains(&bits).then_some(bits)
}

impl Agreement {
    /// Returns the value of the `Sec-WebSocket-Extensions` header of the answer.
    pub fn header(&self) -> String {
        let mut header = PERMESSAGE_DEFLATE.to_owned();
        if self.server_no_context_takeover {
            header.push_str("; server_no_context_takeover");
        }
        if self.client_no_context_takeover {
            header.push_str("; client_no_context_takeover");
        }
        if self.server_window_named {
            // Writing to a String cannot fail.
            let _ = write!(header, "; server_max_window_bits={}", self.server_window_bits);
        }
        header
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(offers: &[&str], takeover: Takeover) -> Option<String> {
        let agreed = negotiate(offers.iter().copied(), takeover).expect("a legal header");
        agreed.map(|agreement| agreement.header())
    }

    #[test]
    fn offers_are_answered_in_order() {
        let shared = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";
        for (offer, dedicated, never) in [
            ("permessage-deflate", Some("permessage-deflate"), Some(shared)),
            (
                "permessage-deflate; client_max_window_bits",
                Some("permessage-deflate"),
                Some(shared),
            ),
            (
                "permessage-deflate; server_max_window_bits=\"10\"; server_no_context_takeover",
                Some("permessage-deflate; server_no_context_takeover; server_max_window_bits=10"),
                Some(&*format!("{shared}; server_max_window_bits=10")),
            ),
            (
                "x-webkit-deflate-frame, permessage-deflate",
                Some("permessage-deflate"),
                Some(shared),
            ),
            (
                "permessage-deflate; server_max_window_bits=8, permessage-deflate",
                Some("permessage-deflate"),
                Some(shared),
            ),
            ("permessage-bzip2", None, None),
            ("", None, None),
        ] {
            assert_eq!(answer(&[offer], Takeover::Allowed).as_deref(), dedicated, "{offer}");
            assert_eq!(answer(&[offer], Takeover::Never).as_deref(), never, "{offer}");
        }
        let split = ["permessage-deflate; foo", "permessage-deflate"];
        assert_eq!(answer(&split, Takeover::Allowed).as_deref(), Some("permessage-deflate"));
    }

    #[test]
    fn what_the_rfc_has_us_decline_is_declined() {
        for parameter in [
            "foo",
            "server_no_context_takeover=1",
            "server_no_context_takeover; server_no_context_takeover",
            "server_max_window_bits",
            "server_max_window_bits=7",
            "server_max_window_bits=16",
            "server_max_window_bits=010",
            "server_max_window_bits=+9",
            "client_max_window_bits=x",
            "client_max_window_bits=9; client_max_window_bits=9",
        ] {
            let offer = format!("permessage-deflate; {parameter}");
            assert_eq!(answer(&[&offer], Takeover::Allowed), None, "{offer}");
        }
    }

    #[test]
    fn what_is_no_list_fails() {
        for header in
            ["permessage-deflate;", "a b", "a; b=", "a; =b", "a; b=\"c", "a; b=\"c d\"", "ä"]
        {
            assert_eq!(negotiate([header], Takeover::Allowed), Err(Malformed), "{header}");
        }
    }
}
