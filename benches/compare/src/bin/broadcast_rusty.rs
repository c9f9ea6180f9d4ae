//! Rusty Socks with the least handler there is: what a client says goes to everyone, as it came.
//!
//! The peers' broadcast does no more, so this is what the server's own way costs, without the chat
//! protocol on top of it.

use anyhow::Context as _;
use clap::Parser;
use rusty_socks::{Config, Context, Handler, Message, Replay, RoomName, Server};

/// The one room.
const EVERYONE: &str = "everyone";

#[derive(Parser)]
#[command(about = "A broadcast on the library, to compare with")]
struct Args {
    /// Port on 127.0.0.1; 0 picks a free one, which is printed.
    #[arg(long, default_value_t = 0)]
    port: u16,
}

struct Broadcast(RoomName);

impl Handler for Broadcast {
    type State = ();

    fn on_open(&self, ctx: &mut Context<'_, ()>) {
        ctx.join(&self.0, Replay::Nothing).then(|_, joined| {
            if let Err(error) = joined {
                eprintln!("a client is left out: {error}");
            }
        });
    }

    fn on_message(&self, ctx: &mut Context<'_, ()>, message: Message<'_>) {
        ctx.publish(EVERYONE, message).then(|_, published| {
            if let Err(error) = published {
                eprintln!("a message is lost: {error}");
            }
        });
    }
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let config = Config {
        host: "127.0.0.1".into(),
        port: args.port,
        thread_pool_size: 1,
        max_conn: 20_000,
        rate_messages: 0,
        rate_bytes: 0,
        ..Config::default()
    };
    let room = RoomName::new(EVERYONE).context("a legal name")?;
    let server = Server::builder().config(config).route("/", Broadcast(room)).bind()?;
    println!("listening on {}", server.local_addr());
    server.run()?;
    Ok(())
}
