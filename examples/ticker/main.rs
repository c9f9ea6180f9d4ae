//! Prices that change faster than anyone can read, and readers that each get as much as they can
//! take.
//!
//! `cargo run --example ticker`, then open the address that it prints.
//!
//! A thread publishes to the rooms `prices.eur`, `prices.gold` and so on, `TICKER_RATE` times a
//! second (2000) in all. An old price is worth nothing, so these rooms have the overflow policy
//! `latest`: a client that keeps up gets every price; a slow one gets the newest, and a notice of
//! how many it missed. Two readers inside this program show both, one at full speed and one that
//! pauses after each message. Their counts are published to the room `readers`.

#[path = "../common/client.rs"]
mod client;
#[path = "../common/mod.rs"]
mod common;

use std::{
    env, fmt,
    net::{SocketAddr, TcpStream},
    thread,
    time::{Duration, Instant},
};

use chrono::{DateTime, SecondsFormat, Utc};
use rusty_socks::{
    Config, Error, Publication, RoomName, Server, ServerHandle,
    chat::Chat,
    config::{Overflow, RoomRule},
};
use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};
use tungstenite::{Message, WebSocket, client::client_with_config, protocol::WebSocketConfig};
use uuid::Uuid;

const SYMBOLS: [(&str, f64); 8] = [
    ("eur", 1.08),
    ("gbp", 1.27),
    ("chf", 1.13),
    ("jpy", 0.0067),
    ("btc", 67_250.0),
    ("eth", 3_520.0),
    ("gold", 2_330.0),
    ("oil", 81.4),
];

/// The room for the counts of the two readers.
const READERS: &str = "readers";

/// The pause of the slow reader after each message.
const SLOW_PAUSE: Duration = Duration::from_millis(3);

/// The interval at which a reader publishes its counts.
const REPORT_EVERY: Duration = Duration::from_secs(1);

/// The pause between two batches of prices.
const BATCH_EVERY: Duration = Duration::from_millis(10);

fn main() -> Result<(), Error> {
    let rate = match env::var("TICKER_RATE") {
        Ok(rate) => rate.parse().ok().filter(|rate| (1..=1_000_000).contains(rate)),
        Err(_) => Some(2000),
    };
    let rate: u32 = rate.ok_or_else(|| Error::config("TICKER_RATE is 1 to 1000000 a second"))?;
    let latest = |pattern: &str| RoomRule {
        overflow: Some(Overflow::Latest),
        history: Some(1),
        ..RoomRule::new(pattern)
    };
    let config = Config {
        default_room: String::new(),
        replay: 0,
        rooms: vec![latest("prices.*"), latest(READERS)],
        ..common::config(env::args().skip(1))?
    };
    let builder = Server::builder()
        .page("/", "text/html; charset=utf-8", include_str!("page.html"))
        .route("/ws", Chat::new(&config)?);
    let server = client::with_client(builder)?.config(config).bind()?;

    let handle = server.handle();
    // Make all rooms before clients ask for them. They stay while prices are published.
    for (symbol, _) in SYMBOLS {
        handle.open_room(&RoomName::new(&format!("prices.{symbol}"))?).map_err(failed)?;
    }
    handle.open_room(&RoomName::new(READERS)?).map_err(failed)?;
    let publisher = handle.clone();
    thread::spawn(move || publish_prices(&publisher, rate));
    for (name, pause) in [("fast", Duration::ZERO), ("slow", SLOW_PAUSE)] {
        let handle = handle.clone();
        thread::spawn(move || {
            if let Err(error) = read(&handle, name, pause) {
                eprintln!("the {name} reader has stopped: {error}");
            }
        });
    }
    common::announce(&server);
    server.run()
}

fn failed(error: impl fmt::Display) -> Error {
    Error::config(error.to_string())
}

/// Publishes `rate` prices a second, to the symbols in turn.
fn publish_prices(handle: &ServerHandle, rate: u32) {
    let mut prices = SYMBOLS.map(|(_, price)| price);
    // A small generator (xorshift64) is random enough for a market.
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let began = Instant::now();
    let mut published = 0_u64;
    loop {
        // Publish all prices that are due, to make up for a pause that was too long.
        let due = (began.elapsed().as_secs_f64() * f64::from(rate)) as u64;
        while published < due {
            let at = (published % SYMBOLS.len() as u64) as usize;
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let step = (random % 2001) as f64 / 1000.0 - 1.0;
            prices[at] *= 1.0 + step * 0.0005;
            say(handle, &format!("prices.{}", SYMBOLS[at].0), &json!(prices[at]));
            published += 1;
        }
        thread::park_timeout(BATCH_EVERY);
    }
}

/// Publishes a message of the chat protocol, which is JSON with the room's number in it.
fn say(handle: &ServerHandle, room: &str, content: &Value) {
    let before = format!("{{\"type\":\"message\",\"room\":\"{room}\",\"seq\":");
    let after = format!(
        ",\"id\":\"{}\",\"sender\":\"ticker\",\"content\":{content},\"timestamp\":\"{}\",\"client_id\":\"{}\"}}",
        Uuid::new_v4(),
        Utc::now().to_rfc3339_opts(SecondsFormat::Millis, true),
        Uuid::nil(),
    );
    // If a worker is behind, this price is not stored. The next one follows soon.
    let _ = handle.publish(room, Publication::around_seq(&before, &after));
}

/// Reads all prices like any client, with a pause after each message.
fn read(
    handle: &ServerHandle,
    name: &str,
    pause: Duration,
) -> Result<(), Box<dyn std::error::Error>> {
    let mut socket = connect(handle.local_addr(), !pause.is_zero())?;
    for (symbol, _) in SYMBOLS {
        let join = json!({ "type": "join", "room": format!("prices.{symbol}") });
        socket.send(Message::text(join.to_string()))?;
    }
    let (mut received, mut skipped) = (0_u64, 0_u64);
    let mut told = Instant::now();
    loop {
        let Message::Text(text) = socket.read()? else { continue };
        let frame: Value = serde_json::from_str(text.as_str())?;
        match frame["type"].as_str() {
            Some("message") => {
                received += 1;
                if told.elapsed() >= REPORT_EVERY {
                    told = Instant::now();
                    let report = json!({
                        "reader": name,
                        "received": received,
                        "skipped": skipped,
                        "age_ms": age_ms(&frame),
                    });
                    say(handle, READERS, &report);
                }
                if !pause.is_zero() {
                    // Simulates a slow client.
                    thread::sleep(pause);
                }
            }
            // Messages `from..=to` of the room were skipped for newer ones.
            Some("gap") => {
                let number = |field: &str| frame[field].as_u64().unwrap_or_default();
                skipped += (number("to") + 1).saturating_sub(number("from"));
            }
            _ => {}
        }
    }
}

/// Connects a plain client. The slow one has a small receive buffer, as behind a slow network;
/// otherwise megabytes of stale prices would wait in the kernel.
fn connect(
    addr: SocketAddr,
    takes_little: bool,
) -> Result<WebSocket<TcpStream>, Box<dyn std::error::Error>> {
    let mut addr = addr;
    if addr.ip().is_unspecified() {
        addr.set_ip([127, 0, 0, 1].into());
    }
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None)?;
    if takes_little {
        socket.set_recv_buffer_size(4096)?;
    }
    socket.connect(&addr.into())?;
    let stream = TcpStream::from(socket);
    stream.set_nodelay(true)?;
    // Reading answers the server's pings, however slowly.
    let limits = WebSocketConfig::default().read_buffer_size(1 << 10);
    let client = client_with_config(format!("ws://{addr}/ws"), stream, Some(limits));
    Ok(client.map_err(|error| error.to_string())?.0)
}

/// Returns the age of a message in milliseconds.
fn age_ms(frame: &Value) -> i64 {
    let at = frame["timestamp"].as_str().and_then(|at| DateTime::parse_from_rfc3339(at).ok());
    at.map_or(0, |at| (Utc::now() - at.to_utc()).num_milliseconds())
}
