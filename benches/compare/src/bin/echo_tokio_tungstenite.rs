//! The first peer: an echo and a broadcast on `tokio-tungstenite`, written the way its users write them.
//!
//! `--echo-style` has both idioms, because they differ by much once messages arrive in bursts: the loop
//! of `next` and `send` flushes after every message, while `forward` (the crate's own example) flushes
//! when nothing more can be read.

use std::future;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use anyhow::Context;
use clap::{Parser, ValueEnum};
use futures_util::{SinkExt, StreamExt, TryStreamExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::broadcast::{self, error::RecvError};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error, Message};

/// Messages a slow client may lag behind in broadcast mode before it loses the oldest.
const BROADCAST_MESSAGES_MAX: usize = 1024;

#[derive(Clone, Parser)]
#[command(about = "Echo and broadcast servers on tokio-tungstenite, to compare with")]
struct Args {
    /// Port on 127.0.0.1; 0 picks a free one, which is printed.
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// 1 is the current-thread runtime, fit to be pinned to a core; more is the multi-thread one.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    threads: u16,
    /// What to do with a message.
    #[arg(long, value_enum, default_value_t = Mode::Echo)]
    mode: Mode,
    /// How the echo is written.
    #[arg(long, value_enum, default_value_t = EchoStyle::Send)]
    echo_style: EchoStyle,
    /// tungstenite's read buffer per connection, in bytes; its default (128 KiB) unless told.
    #[arg(long)]
    read_buffer: Option<usize>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Mode {
    /// Back to the client it came from.
    Echo,
    /// To all clients, the sender included.
    Broadcast,
}

#[derive(Clone, Copy, ValueEnum)]
enum EchoStyle {
    /// A loop of `next().await` and `send().await`.
    Send,
    /// `read.forward(write)`.
    Forward,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let mut builder = match args.threads {
        1 => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    if args.threads > 1 {
        builder.worker_threads(usize::from(args.threads));
    }
    builder.enable_io().build()?.block_on(serve(args))
}

async fn serve(args: Args) -> anyhow::Result<()> {
    let address = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), args.port);
    let listener =
        TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))?;
    println!("listening on {}", listener.local_addr()?);

    let (everyone, _) = broadcast::channel(BROADCAST_MESSAGES_MAX);
    let args = Arc::new(args);
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let (args, everyone) = (Arc::clone(&args), everyone.clone());
                tokio::spawn(async move {
                    // A client that leaves without a word is everyday business under load.
                    let _ = converse(stream, &args, &everyone).await;
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

async fn converse(
    stream: TcpStream,
    args: &Args,
    everyone: &broadcast::Sender<Message>,
) -> Result<(), Error> {
    stream.set_nodelay(true)?;
    let mut config = WebSocketConfig::default();
    if let Some(bytes) = args.read_buffer {
        config = config.read_buffer_size(bytes);
    }
    let socket = tokio_tungstenite::accept_async_with_config(stream, Some(config)).await?;
    match (args.mode, args.echo_style) {
        (Mode::Echo, EchoStyle::Send) => echo_by_send(socket).await,
        (Mode::Echo, EchoStyle::Forward) => echo_by_forward(socket).await,
        (Mode::Broadcast, _) => share(socket, everyone).await,
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

/// Passes what this client says to everyone, and to this client what anyone says. A message is shared
/// by reference count; what has gathered while this task slept leaves in one flush.
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
