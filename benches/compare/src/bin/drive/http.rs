//! The little of HTTP that a load driver needs: an upgrade, and a page for its own use.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use tokio_tungstenite::tungstenite::handshake::client::Response;
use tokio_tungstenite::tungstenite::handshake::{derive_accept_key, machine::TryParse};
use tokio_tungstenite::tungstenite::http::StatusCode;
use tokio_tungstenite::tungstenite::http::header::{CONTENT_LENGTH, SEC_WEBSOCKET_ACCEPT};

use crate::target::Target;

/// How long one step of an exchange may take.
pub(crate) const STEP_TIMEOUT: Duration = Duration::from_secs(10);
const HEAD_BYTES_MAX: usize = 16 * 1024;
const BODY_BYTES_MAX: usize = 1 << 20;
/// Sixteen zero bytes: the server hashes it, and here nobody guards against a cache.
const KEY: &str = "AAAAAAAAAAAAAAAAAAAAAA==";

pub(crate) fn upgrade_request(target: &Target) -> String {
    let headers = format!(
        "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}"
    );
    request(target, &headers)
}

fn request(Target { address, path }: &Target, headers: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n{headers}\r\n\r\n")
}

/// Reads the answer to an upgrade. Returns what came after it.
pub(crate) fn read_upgrade(mut socket: impl Read) -> anyhow::Result<Vec<u8>> {
    let (head, rest) = read_head(&mut socket)?;
    let status = head.status();
    ensure!(
        status == StatusCode::SWITCHING_PROTOCOLS,
        "the upgrade was rejected: {status} {}",
        String::from_utf8_lossy(&rest)
    );
    let key = head.headers().get(SEC_WEBSOCKET_ACCEPT);
    let is_right = key.is_some_and(|key| *key == derive_accept_key(KEY.as_bytes()));
    ensure!(is_right, "the answer's Sec-WebSocket-Accept is wrong or missing");
    Ok(rest)
}

/// Asks for a page on a fresh connection, and returns when its whole body is there.
pub(crate) fn get(target: &Target) -> anyhow::Result<Vec<u8>> {
    let mut stream = TcpStream::connect_timeout(&target.address, STEP_TIMEOUT)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(STEP_TIMEOUT))?;
    stream.write_all(request(target, "Connection: close").as_bytes())?;
    let (head, mut body) = read_head(&mut stream)?;
    ensure!(head.status() == StatusCode::OK, "{} answers {}", target.path, head.status());
    let len = head.headers().get(CONTENT_LENGTH).context("the answer has no Content-Length")?;
    let len: usize = len.to_str()?.parse().context("the Content-Length is no number")?;
    ensure!(len <= BODY_BYTES_MAX, "{} has over {BODY_BYTES_MAX} bytes", target.path);
    let have = body.len().min(len);
    body.resize(len, 0);
    stream.read_exact(&mut body[have..]).context("the answer is not whole")?;
    Ok(body)
}

/// Reads the head of an answer. Returns it, and what was read behind it.
fn read_head(socket: &mut impl Read) -> anyhow::Result<(Response, Vec<u8>)> {
    let mut have = Vec::with_capacity(4096);
    let mut chunk = [0; 4096];
    loop {
        let n = match socket.read(&mut chunk) {
            Ok(n) => n,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                bail!("no answer within {STEP_TIMEOUT:?}; is there room for it?")
            }
            Err(error) => return Err(error).context("the server broke off before its answer"),
        };
        ensure!(n > 0, "the server hung up before its answer");
        have.extend_from_slice(&chunk[..n]);
        if let Some((len, head)) = Response::try_parse(&have).context("the answer is not HTTP")? {
            return Ok((head, have.split_off(len)));
        }
        ensure!(have.len() < HEAD_BYTES_MAX, "the answer's head is over {HEAD_BYTES_MAX} bytes");
    }
}
