//! The smallest server: returns every message unchanged.
//!
//! `cargo run --example echo -- 3030`, then connect to `ws://127.0.0.1:3030/`.

use rusty_socks::{Config, Context, Error, Message, Server};

fn main() -> Result<(), Error> {
    let port = std::env::args().nth(1).map_or(Ok(3030), |port| port.parse());
    let port = port.map_err(|_| Error::config("the first argument is the port"))?;
    let echo = |ctx: &mut Context<'_, ()>, message: Message<'_>| {
        ctx.send(message);
    };
    let config = Config { host: "127.0.0.1".into(), port, ..Config::default() };
    let server = Server::builder().config(config).route("/", echo).bind()?;
    println!("listening on ws://{}/", server.local_addr());
    server.run()
}
