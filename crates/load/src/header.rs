//! A header that the user adds to the upgrade request.

use tungstenite::http::{HeaderName, HeaderValue};

/// Headers the handshake itself writes; a second one would only make the request malformed.
const RESERVED: [&str; 5] = [
    "upgrade",
    "connection",
    "sec-websocket-key",
    "sec-websocket-version",
    "sec-websocket-extensions",
];

/// A name and a value that may be written into a request as they stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) name: String,
    pub(crate) value: String,
}

impl Header {
    /// Reads `Name: value`.
    pub(crate) fn parse(line: &str) -> Result<Header, String> {
        let Some((name, value)) = line.split_once(':') else {
            return Err("allowed is 'Name: value'".to_owned());
        };
        Header::new(name.trim(), value.trim())
    }

    fn new(name: &str, value: &str) -> Result<Header, String> {
        HeaderName::try_from(name).map_err(|_| format!("'{name}' is no header name"))?;
        HeaderValue::try_from(value).map_err(|_| format!("'{value}' is no header value"))?;
        if RESERVED.iter().any(|reserved| name.eq_ignore_ascii_case(reserved)) {
            return Err(format!("'{name}' is written by the handshake itself"));
        }
        Ok(Header { name: name.to_owned(), value: value.to_owned() })
    }
}

/// Reads the value of `--origin`.
pub(crate) fn parse_origin(value: &str) -> Result<Header, String> {
    Header::new("Origin", value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_becomes_name_and_value() {
        let header = Header::parse("X-Colour:  blue: dark ").unwrap();
        assert_eq!((header.name.as_str(), header.value.as_str()), ("X-Colour", "blue: dark"));
    }

    #[test]
    fn nothing_can_be_smuggled_into_the_request() {
        for line in
            ["no colon", ": x", "A B: x", "A: x\r\nB: y", "sec-websocket-key: mine", "Upgrade: h2c"]
        {
            assert!(Header::parse(line).is_err(), "{line:?}");
        }
    }
}
