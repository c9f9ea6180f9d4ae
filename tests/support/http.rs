//! A client for the admin listener: plain requests with bodies, on one connection each.

#![allow(clippy::unwrap_used, dead_code, unreachable_pub)]

use std::net::{SocketAddr, TcpStream};

use crate::support::{Answer, DEADLINE, RawClient};

/// A key with every scope, as [`config`] has it.
pub const KEY: &str = "0123456789abcdef-of-the-test";

/// A configuration with an admin listener and a key.
pub fn config() -> rusty_socks::Config {
    rusty_socks::Config {
        admin_port: Some(0),
        api_key: rusty_socks::config::Secret::new(KEY),
        ..crate::support::config()
    }
}

/// Asks the admin listener at `addr`.
#[derive(Clone)]
pub struct Api {
    pub addr: SocketAddr,
    pub key: String,
}

impl Api {
    pub fn of(server: &crate::support::TestServer) -> Api {
        Api { addr: server.handle.admin_addr().unwrap(), key: KEY.to_owned() }
    }

    pub fn with_key(&self, key: &str) -> Api {
        Api { key: key.to_owned(), ..self.clone() }
    }

    /// A socket with nothing said yet.
    pub fn raw(&self) -> RawClient {
        let stream = TcpStream::connect(self.addr).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.set_nodelay(true).unwrap();
        RawClient::new(stream)
    }

    /// The head of a request, whose last header lines are `lines`.
    pub fn head(&self, method: &str, target: &str, lines: &str) -> String {
        let key = &self.key;
        format!(
            "{method} {target} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {key}\r\n{lines}\r\n"
        )
    }

    pub fn request(&self, method: &str, target: &str, lines: &str, body: &str) -> Answer {
        let mut client = self.raw();
        let lines = format!("{lines}Content-Length: {}\r\n", body.len());
        client.send((self.head(method, target, &lines) + body).as_bytes());
        client.answer()
    }

    pub fn get(&self, target: &str) -> Answer {
        self.request("GET", target, "", "")
    }

    pub fn post(&self, target: &str, body: &str) -> Answer {
        self.request("POST", target, "", body)
    }
}
