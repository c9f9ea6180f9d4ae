//! The first peer: an echo, a broadcast and rooms on `tokio-tungstenite`, written the way its users
//! write them.
//!
//! `--echo-style` has both idioms, because they differ by much once messages arrive in bursts: the
//! loop of `next` and `send` flushes after every message, while `forward` (the crate's own example)
//! flushes when nothing more can be read.

use std::future;
use std::sync::Arc;

use clap::{Parser, ValueEnum};
use futures_util::{StreamExt, TryStreamExt};
use rusty_socks_compare::peer::{Mode, PeerArgs, Shared, converse};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

#[derive(Clone, Parser)]
#[command(about = "Echo, broadcast and rooms on tokio-tungstenite, to compare with")]
struct Args {
    #[command(flatten)]
    peer: PeerArgs,
    /// How the echo is written.
    #[arg(long, value_enum, default_value_t = EchoStyle::Send)]
    echo_style: EchoStyle,
    /// tungstenite's read buffer per connection, in bytes; its default (128 KiB) unless told.
    #[arg(long)]
    read_buffer: Option<usize>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum EchoStyle {
    /// A loop of `next().await` and `send().await`.
    Send,
    /// `read.forward(write)`.
    Forward,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let shared = Shared::new(args.peer.mode, Message::text);
    let serve = args.peer.serve(|stream| serve(stream, args.clone(), Arc::clone(&shared)));
    args.peer.runtime()?.block_on(serve)
}

async fn serve(stream: TcpStream, args: Args, shared: Arc<Shared<Message>>) -> anyhow::Result<()> {
    let mut config = WebSocketConfig::default();
    if let Some(bytes) = args.read_buffer {
        config = config.read_buffer_size(bytes);
    }
    let socket = tokio_tungstenite::accept_async_with_config(stream, Some(config)).await?;
    match (args.peer.mode, args.echo_style) {
        (Mode::Echo, EchoStyle::Forward) => {
            let (write, read) = socket.split();
            read.try_filter(|message| future::ready(message.is_text() || message.is_binary()))
                .forward(write)
                .await?;
        }
        _ => converse(socket, &shared).await?,
    }
    Ok(())
}
