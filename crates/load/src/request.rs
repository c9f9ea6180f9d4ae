//! The upgrade request: the same for every connection but for its key.

use std::fmt::Write;

use tungstenite::handshake::{client::generate_key, derive_accept_key};

use super::plan::Plan;

/// What all requests of a run share, written once.
pub(crate) struct RequestForm {
    /// Everything up to the value of `Sec-WebSocket-Key`, which comes last.
    before_key: String,
}

/// One connection's request and the proof it expects back.
pub(crate) struct Request {
    pub(crate) bytes: Vec<u8>,
    /// The only right value of `Sec-WebSocket-Accept` in the answer.
    pub(crate) accept: String,
}

impl RequestForm {
    pub(crate) fn new(plan: &Plan) -> RequestForm {
        let mut text = format!("GET {} HTTP/1.1\r\n", plan.target.path());
        // A `Host` given by hand replaces the URL's: that is how one asks a server for another of
        // its names.
        if !plan.headers.iter().any(|header| header.name.eq_ignore_ascii_case("host")) {
            push_line(&mut text, "Host", &plan.target.authority());
        }
        push_line(&mut text, "Connection", "Upgrade");
        push_line(&mut text, "Upgrade", "websocket");
        push_line(&mut text, "Sec-WebSocket-Version", "13");
        for header in plan.origin.iter().chain(&plan.headers) {
            push_line(&mut text, &header.name, &header.value);
        }
        text.push_str("Sec-WebSocket-Key: ");
        RequestForm { before_key: text }
    }

    /// A request with a key of its own.
    pub(crate) fn fill(&self) -> Request {
        let key = generate_key();
        let accept = derive_accept_key(key.as_bytes());
        Request { bytes: format!("{}{key}\r\n\r\n", self.before_key).into_bytes(), accept }
    }
}

fn push_line(text: &mut String, name: &str, value: &str) {
    write!(text, "{name}: {value}\r\n").expect("writing to a String cannot fail");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_request_is_a_proper_upgrade_with_a_fresh_key_each_time() {
        let plan = Plan::typed("ws://h:81/ws --origin http://o -H X-A:b");
        let form = RequestForm::new(&plan);
        let (first, second) = (form.fill(), form.fill());
        assert_ne!(first.accept, second.accept);

        let mut headers = [httparse::EMPTY_HEADER; 16];
        let mut head = httparse::Request::new(&mut headers);
        assert!(head.parse(&first.bytes).unwrap().is_complete());
        assert_eq!((head.method, head.path), (Some("GET"), Some("/ws")));
        let value = |name: &str| {
            head.headers.iter().find(|header| header.name == name).map(|header| header.value)
        };
        assert_eq!(value("Host"), Some("h:81".as_bytes()));
        assert_eq!(value("Origin"), Some("http://o".as_bytes()));
        assert_eq!(value("X-A"), Some("b".as_bytes()));
        assert_eq!(derive_accept_key(value("Sec-WebSocket-Key").unwrap()), first.accept);
    }

    #[test]
    fn a_host_given_by_hand_replaces_the_urls() {
        let plan = Plan::typed("ws://127.0.0.1:81/ws -H Host:chat.example");
        let text = String::from_utf8(RequestForm::new(&plan).fill().bytes).unwrap();
        assert_eq!(text.matches("Host:").count(), 1);
        assert!(text.contains("Host: chat.example\r\n"));
    }
}
