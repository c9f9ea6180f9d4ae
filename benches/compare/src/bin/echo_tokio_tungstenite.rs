//! The first peer: an echo, a broadcast and rooms on `tokio-tungstenite`, written the way its users
//! write them.
//!
//! `--echo-style` has both idioms, because they differ by much once messages arrive in bursts: the
//! loop of `next` and `send` flushes after every message, while `forward` (the crate's own example)
//! flushes when nothing more can be read.

use std::future;
use std::sync::Arc;

use clap::{Parser, ValueEnum};
use futures_util::{SinkExt, StreamExt, TryStreamExt};
use rusty_socks_compare::peer::{LAG_MESSAGES_MAX, Mode, PeerArgs};
use rusty_socks_compare::rooms::Rooms;
use tokio::net::TcpStream;
use tokio::sync::broadcast::{self, error::RecvError};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error, Message};

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

#[derive(Clone, Copy, ValueEnum)]
enum EchoStyle {
    /// A loop of `next().await` and `send().await`.
    Send,
    /// `read.forward(write)`.
    Forward,
}

/// What all connections share.
struct Shared {
    args: Args,
    everyone: broadcast::Sender<Message>,
    rooms: Arc<Rooms<Message>>,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    args.peer.runtime()?.block_on(serve(args))
}

async fn serve(args: Args) -> anyhow::Result<()> {
    let listener = args.peer.listen().await?;
    let (everyone, _) = broadcast::channel(LAG_MESSAGES_MAX);
    let shared = Arc::new(Shared { args, everyone, rooms: Rooms::new(Message::text) });
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let shared = Arc::clone(&shared);
                tokio::spawn(async move {
                    // A client that leaves without a word is everyday business under load.
                    let _ = converse(stream, &shared).await;
                });
            }
            // Most likely `EMFILE`. The other tasks must run for it to pass.
            Err(error) => {
                eprintln!("cannot accept: {error}");
                tokio::task::yield_now().await;
            }
        }
    }
}

async fn converse(stream: TcpStream, shared: &Shared) -> Result<(), Error> {
    stream.set_nodelay(true)?;
    let args = &shared.args;
    let mut config = WebSocketConfig::default();
    if let Some(bytes) = args.read_buffer {
        config = config.read_buffer_size(bytes);
    }
    let socket = tokio_tungstenite::accept_async_with_config(stream, Some(config)).await?;
    match (args.peer.mode, args.echo_style) {
        (Mode::Echo, EchoStyle::Send) => echo_by_send(socket).await,
        (Mode::Echo, EchoStyle::Forward) => echo_by_forward(socket).await,
        (Mode::Broadcast, _) => share(socket, &shared.everyone).await,
        (Mode::Rooms, _) => chat(socket, &shared.rooms).await,
    }
}

async fn echo_by_send(mut socket: WebSocketStream<TcpStream>) -> Result<(), Error> {
    while let Some(message) = socket.next().await {
        let message = message?;
        if message.is_text() || message.is_binary() {
            socket.send(message).await?;
        }
    }
    Ok(())
}

async fn echo_by_forward(socket: WebSocketStream<TcpStream>) -> Result<(), Error> {
    let (write, read) = socket.split();
    read.try_filter(|message| future::ready(message.is_text() || message.is_binary()))
        .forward(write)
        .await
}

/// Passes what this client says to everyone, and to this client what anyone says. A message is
/// shared by reference count; what has gathered while this task slept leaves in one flush.
async fn share(
    mut socket: WebSocketStream<TcpStream>,
    everyone: &broadcast::Sender<Message>,
) -> Result<(), Error> {
    let mut inbox = everyone.subscribe();
    loop {
        tokio::select! {
            said = socket.next() => match said {
                Some(Ok(message)) if message.is_text() || message.is_binary() => {
                    // It fails only without receivers, and this task is one.
                    let _ = everyone.send(message);
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error),
                None => return Ok(()),
            },
            heard = inbox.recv() => match heard {
                Ok(message) => {
                    socket.feed(message).await?;
                    while let Ok(message) = inbox.try_recv() {
                        socket.feed(message).await?;
                    }
                    socket.flush().await?;
                }
                Err(RecvError::Lagged(lost)) => eprintln!("a client lost {lost} messages"),
                Err(RecvError::Closed) => return Ok(()),
            },
        }
    }
}

/// Does what this client asks of the rooms, and passes on what the others say there.
async fn chat(
    mut socket: WebSocketStream<TcpStream>,
    rooms: &Arc<Rooms<Message>>,
) -> Result<(), Error> {
    let (mut client, mut inbox) = rooms.enter();
    loop {
        tokio::select! {
            said = socket.next() => match said {
                Some(Ok(Message::Text(text))) => {
                    if let Some(answer) = client.handle(&text) {
                        socket.send(answer).await?;
                    }
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error),
                None => return Ok(()),
            },
            // The client holds one sender itself, so there is no end to this.
            Some(message) = inbox.recv() => {
                socket.feed(message).await?;
                while let Ok(message) = inbox.try_recv() {
                    socket.feed(message).await?;
                }
                socket.flush().await?;
            }
        }
    }
}
