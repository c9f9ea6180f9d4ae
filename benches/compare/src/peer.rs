//! The command line that all peers on tokio have, and the runtime it asks for.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use anyhow::Context;
use clap::{Parser, ValueEnum};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};

/// Messages a slow client may lag behind before it loses some.
pub const LAG_MESSAGES_MAX: usize = 1024;

#[derive(Clone, Parser)]
pub struct PeerArgs {
    /// Port on 127.0.0.1; 0 picks a free one, which is printed.
    #[arg(long, default_value_t = 0)]
    pub port: u16,
    /// 1 is the current-thread runtime, fit to be pinned to a core; more is the multi-thread one.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub threads: u16,
    /// What to do with a message.
    #[arg(long, value_enum, default_value_t = Mode::Echo)]
    pub mode: Mode,
}

#[derive(Clone, Copy, ValueEnum)]
pub enum Mode {
    /// Back to the client it came from.
    Echo,
    /// To all clients, the sender included.
    Broadcast,
    /// JSON: `join`, `leave` and `publish`, to a room's members without the sender.
    Rooms,
}

impl PeerArgs {
    pub fn runtime(&self) -> std::io::Result<Runtime> {
        let mut builder = match self.threads {
            1 => Builder::new_current_thread(),
            _ => Builder::new_multi_thread(),
        };
        if self.threads > 1 {
            builder.worker_threads(usize::from(self.threads));
        }
        // The clock is for `axum::serve`, which waits after a failed accept.
        builder.enable_all().build()
    }

    /// Listens, and prints where.
    pub async fn listen(&self) -> anyhow::Result<TcpListener> {
        let address = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), self.port);
        let listener = TcpListener::bind(address)
            .await
            .with_context(|| format!("cannot listen on {address}"))?;
        println!("listening on {}", listener.local_addr()?);
        Ok(listener)
    }
}
