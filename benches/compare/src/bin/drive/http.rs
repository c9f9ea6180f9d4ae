//! The little of HTTP that a load driver needs: an upgrade, and a page for its own use.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use crate::target::Target;

/// How long one step of an exchange may take.
pub(crate) const STEP_TIMEOUT: Duration = Duration::from_secs(10);
const HEAD_BYTES_MAX: usize = 16 * 1024;
const BODY_BYTES_MAX: usize = 1 << 20;
/// Sixteen zero bytes: the server hashes it, and here nobody guards against a cache.
const KEY: &str = "AAAAAAAAAAAAAAAAAAAAAA==";

struct Answer {
    status: u16,
    accept_key: String,
    body_len: usize,
    /// What was read behind the head.
    rest: Vec<u8>,
}

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
    let answer = read_head(&mut socket)?;
    if answer.status != 101 {
        let body = String::from_utf8_lossy(&answer.rest);
        bail!("the upgrade was rejected: {} {body}", answer.status);
    }
    let is_right = answer.accept_key == derive_accept_key(KEY.as_bytes());
    ensure!(is_right, "the answer's Sec-WebSocket-Accept is wrong or missing");
    Ok(answer.rest)
}

/// Asks for a page on a fresh connection, and returns when its whole body is there.
pub(crate) fn get(target: &Target) -> anyhow::Result<Vec<u8>> {
    let mut stream = TcpStream::connect_timeout(&target.address, STEP_TIMEOUT)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(STEP_TIMEOUT))?;
    stream.write_all(request(target, "Connection: close").as_bytes())?;
    let Answer { status, body_len, mut rest, .. } = read_head(&mut stream)?;
    ensure!(status == 200, "{} answers {status}", target.path);
    ensure!(body_len <= BODY_BYTES_MAX, "{} has over {BODY_BYTES_MAX} bytes", target.path);
    let have = rest.len().min(body_len);
    rest.resize(body_len, 0);
    stream.read_exact(&mut rest[have..]).context("the answer is not whole")?;
    Ok(rest)
}

fn read_head(socket: &mut impl Read) -> anyhow::Result<Answer> {
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

        let mut headers = [httparse::EMPTY_HEADER; 64];
        let mut head = httparse::Response::new(&mut headers);
        let httparse::Status::Complete(head_len) =
            head.parse(&have).context("the answer is not HTTP")?
        else {
            ensure!(have.len() < HEAD_BYTES_MAX, "the head is over {HEAD_BYTES_MAX} bytes");
            continue;
        };
        let header = |name: &str| {
            let found = head.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
            found.map_or_else(String::new, |header| String::from_utf8_lossy(header.value).into())
        };
        return Ok(Answer {
            status: head.code.unwrap_or(0),
            accept_key: header("sec-websocket-accept"),
            body_len: header("content-length").parse().unwrap_or(0),
            rest: have.split_off(head_len),
        });
    }
}
