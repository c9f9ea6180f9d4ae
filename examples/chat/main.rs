//! A chat: rooms, names, who is there, history, and coming back after a lost connection.
//!
//! `cargo run --example chat`, then open the address that it prints in two windows.
//!
//! The server is the shipped chat protocol, mounted as any handler is, beside the page and the
//! project's JavaScript client that the page imports. All limits are those of `rusty_socks`, by the
//! same names.

#[path = "../common/client.rs"]
mod client;
#[path = "../common/mod.rs"]
mod common;

use std::env;

use rusty_socks::{Config, Error, Server, chat::Chat};

fn main() -> Result<(), Error> {
    // No default room: the page joins its rooms by name, so that it can say who is joining them.
    let config = Config { default_room: String::new(), ..common::config(env::args().skip(1))? };
    let builder = Server::builder()
        .page("/", "text/html; charset=utf-8", include_str!("page.html"))
        .route("/ws", Chat::new(&config)?);
    let server = client::with_client(builder)?.config(config).bind()?;
    common::announce(&server);
    server.run()
}
