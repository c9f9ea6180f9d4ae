//! What the flags add to the upgrade request.

use std::str::FromStr;

use rusty_socks_client::Target;
use rusty_socks_ws::client_handshake::{ClientRequest, InvalidRequest};

/// The one header of the handshake itself that may be given: the subprotocols to offer.
const SUBPROTOCOLS: &str = "sec-websocket-protocol";

/// A header that may be added to the request: its name and value are legal, and not those of the
/// handshake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    name: String,
    value: String,
}

impl Header {
    /// The header `Origin`.
    pub(crate) fn origin(value: &str) -> Result<Header, InvalidRequest> {
        Header::new("Origin", value)
    }

    fn new(name: &str, value: &str) -> Result<Header, InvalidRequest> {
        let header = Header { name: name.to_owned(), value: value.to_owned() };
        ClientRequest::new("", "/").and_then(|request| header.add_to(request))?;
        Ok(header)
    }

    fn add_to(&self, request: ClientRequest) -> Result<ClientRequest, InvalidRequest> {
        if self.name.eq_ignore_ascii_case(SUBPROTOCOLS) {
            let mut names = self.value.split(',').map(str::trim);
            return names.try_fold(request, ClientRequest::subprotocol);
        }
        request.header(&self.name, &self.value)
    }
}

impl FromStr for Header {
    type Err = String;

    /// Reads `Name: value`.
    fn from_str(line: &str) -> Result<Header, String> {
        let (name, value) = line.split_once(':').ok_or("allowed is 'Name: value'")?;
        Header::new(name.trim(), value.trim()).map_err(|error| error.to_string())
    }
}

/// The upgrade request of all connections. A `Host` among the headers replaces the address: that is
/// how one asks a server for another of its names.
pub(crate) fn request<'a>(
    target: &Target,
    headers: impl IntoIterator<Item = &'a Header>,
) -> Result<ClientRequest, String> {
    let request = ClientRequest::new(&target.authority(), target.path());
    let mut headers = headers.into_iter();
    request
        .and_then(|request| headers.try_fold(request, |request, header| header.add_to(request)))
        .map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(address: &str, headers: &[&str]) -> String {
        let headers: Vec<Header> = headers.iter().map(|line| line.parse().unwrap()).collect();
        let mut bytes = Vec::new();
        request(&Target::parse(address).unwrap(), &headers).unwrap().begin(&mut bytes);
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn a_header_is_sent_as_it_was_given() {
        let text = sent("ws://h:81/ws", &["X-Colour:  blue: dark ", "Sec-WebSocket-Protocol: a,b"]);
        for line in ["GET /ws HTTP", "Host: h:81", "X-Colour: blue: dark", "Protocol: a, b"] {
            assert!(text.contains(line), "no {line:?} in {text}");
        }
        assert_eq!(Header::origin("http://o").unwrap().value, "http://o");
    }

    #[test]
    fn a_host_given_by_hand_replaces_the_urls() {
        let text = sent("ws://127.0.0.1:81/ws", &["Host:chat.example"]);
        assert_eq!(text.matches("Host:").count(), 1);
        assert!(text.contains("Host: chat.example\r\n"));
    }

    #[test]
    fn nothing_can_be_smuggled_into_the_request() {
        for line in
            ["no colon", ": x", "A B: x", "A: x\r\nB: y", "sec-websocket-key: mine", "Upgrade: h2c"]
        {
            assert!(line.parse::<Header>().is_err(), "{line:?}");
        }
    }
}
