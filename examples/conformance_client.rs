//! A client for Autobahn's cases: plain tungstenite, with the limits and close codes of the server.
//!
//! `cargo run --example conformance_client -- 127.0.0.1:9001` plays all the cases of the fuzzing
//! server at that address and asks it for its reports. `scripts/conformance.sh --client` starts
//! both.

use std::{
    error::Error,
    io::Read,
    net::{Shutdown, TcpStream},
    time::{Duration, Instant},
};

use tungstenite::{
    Error as Fault, Message, WebSocket,
    client::client_with_config,
    protocol::{
        CloseFrame, WebSocketConfig,
        frame::{Utf8Bytes, coding::CloseCode},
    },
};

/// Autobahn's largest message (9.1.6).
const MESSAGE_BYTES_MAX: usize = 16 << 20;

/// Longer than the silence in any case.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// How long the server has to answer a close.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(3);

const AGENT: &str = "tungstenite";

fn main() -> Result<(), Box<dyn Error>> {
    let address = std::env::args().nth(1).ok_or("the first argument is the address, HOST:PORT")?;
    let count = case_count(&address)?;
    for case in 1..=count {
        // How a case ends is for the fuzzing server to judge; one that does not begin is ours to
        // tell.
        play(connect(&address, &format!("/runCase?case={case}&agent={AGENT}"))?);
    }
    let mut socket = connect(&address, &format!("/updateReports?agent={AGENT}"))?;
    while socket.read().is_ok() {}
    println!("{count} cases played");
    Ok(())
}

fn connect(address: &str, path: &str) -> Result<WebSocket<TcpStream>, Box<dyn Error>> {
    let stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(SILENCE_MAX))?;
    stream.set_write_timeout(Some(SILENCE_MAX))?;
    let limits = WebSocketConfig::default()
        .max_message_size(Some(MESSAGE_BYTES_MAX))
        .max_frame_size(Some(MESSAGE_BYTES_MAX))
        .max_write_buffer_size(4 * MESSAGE_BYTES_MAX);
    let (socket, _) = client_with_config(format!("ws://{address}{path}"), stream, Some(limits))?;
    Ok(socket)
}

fn case_count(address: &str) -> Result<u32, Box<dyn Error>> {
    let mut socket = connect(address, "/getCaseCount")?;
    let count = socket.read()?.into_text()?.parse()?;
    socket.close(None)?;
    while socket.read().is_ok() {}
    Ok(count)
}

/// Returns every message unchanged, until the end. tungstenite answers pings and closes.
fn play(mut socket: WebSocket<TcpStream>) {
    let fault = loop {
        let outcome = match socket.read() {
            Ok(message @ (Message::Text(_) | Message::Binary(_))) => socket.send(message),
            Ok(_) => Ok(()),
            Err(fault) => break fault,
        };
        if let Err(fault) = outcome {
            break fault;
        }
    };
    if let Some(close) = close_frame(&fault) {
        // tungstenite says what is wrong, and leaves telling the peer to its user.
        let _ = socket.close(Some(close));
        let _ = socket.get_ref().shutdown(Shutdown::Write);
        await_end(socket.get_ref());
    }
}

/// What to tell the peer, where it is the peer that is at fault.
fn close_frame(fault: &Fault) -> Option<CloseFrame> {
    let code = match fault {
        Fault::Protocol(_) => CloseCode::Protocol,
        Fault::Utf8(_) => CloseCode::Invalid,
        Fault::Capacity(_) => CloseCode::Size,
        _ => return None,
    };
    Some(CloseFrame { code, reason: Utf8Bytes::default() })
}

/// Reads past whatever else comes, so that the peer is not reset before it has read why.
fn await_end(mut stream: &TcpStream) {
    let end = Instant::now() + CLOSE_TIMEOUT;
    let mut buffer = [0; 4096];
    let _ = stream.set_read_timeout(Some(CLOSE_TIMEOUT));
    while Instant::now() < end && stream.read(&mut buffer).is_ok_and(|read| read > 0) {}
}
