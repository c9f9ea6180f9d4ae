//! A custom handler: counters that clients share.
//!
//! `cargo run --example custom_handler -- 3030`, then
//!
//! - `ws://127.0.0.1:3030/board?name=tea&token=let-me-in`: send `+2` or `-1`, and all clients on
//!   the board `tea` get the new total;
//! - `ws://127.0.0.1:3030/primes`: send `100000`, and get the number of primes below it.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use rusty_socks::{
    CloseReason, Config, Context, Error, Handler, MayBlock, Message, Refusal, Replay, Request,
    RoomError, RoomName, Server,
};

/// The token that clients must show. A real server would look it up.
const TOKEN: &str = "let-me-in";

fn main() -> Result<(), Error> {
    let port = std::env::args().nth(1).map_or(Ok(3030), |port| port.parse());
    let port = port.map_err(|_| Error::config("the first argument is the port"))?;
    let config = Config { host: "127.0.0.1".into(), port, ..Config::default() };
    let server = server(config)?;
    println!("listening on ws://{0}/board and ws://{0}/primes", server.local_addr());
    server.run()
}

/// Binds a server with both routes.
pub fn server(config: Config) -> Result<Server, Error> {
    Server::builder()
        .config(config)
        .route("/board", Boards::default())
        // Counting primes takes long. On two threads of its own it delays no board. At most 64
        // messages wait; beyond that, the sockets are not read.
        .route("/primes", primes.blocking(2, 64))
        .bind()
}

/// All boards with clients. One handler serves all connections from several threads at once, so
/// data that they share needs a lock.
#[derive(Default)]
pub struct Boards {
    by_name: Mutex<HashMap<RoomName, Board>>,
}

#[derive(Default)]
struct Board {
    total: i64,
    /// The board is removed when this reaches 0: a table that only grows is a leak.
    people: usize,
}

/// Data of one connection. Its calls never overlap, so it needs no lock.
#[derive(Default)]
pub struct Person {
    /// The board named in the request. `Some` from `on_upgrade` on.
    board: Option<RoomName>,
    moves: u32,
}

impl Boards {
    fn lock(&self) -> MutexGuard<'_, HashMap<RoomName, Board>> {
        // A panic in another connection leaves the numbers valid.
        self.by_name.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Handler for Boards {
    type State = Person;

    /// Checks the token. A refusal costs no permit, and is a plain HTTP answer. The token may be in
    /// the query, because a browser's WebSocket cannot set headers.
    fn on_upgrade(&self, request: &Request<'_>) -> Result<Person, Refusal> {
        let bearer =
            request.header("Authorization").and_then(|value| value.strip_prefix("Bearer "));
        if bearer.or_else(|| query(request, "token")) != Some(TOKEN) {
            return Err(Refusal::unauthorized("a token is needed"));
        }
        let name = query(request, "name").unwrap_or("main");
        let board = RoomName::new(name).map_err(|error| Refusal::bad_request(error.to_string()))?;
        Ok(Person { board: Some(board), moves: 0 })
    }

    fn on_open(&self, ctx: &mut Context<'_, Person>) {
        let Some(board) = ctx.state().board.clone() else { return };
        let total = {
            let mut boards = self.lock();
            let entry = boards.entry(board.clone()).or_default();
            entry.people += 1;
            entry.total
        };
        // The reply is handled in a closure, because one day it may come later, from another
        // machine.
        ctx.join(&board, Replay::Nothing).then(move |ctx, joined| match joined {
            Ok(_) => {
                ctx.send(&format!("total {total}"));
            }
            Err(error) => ctx.close(CloseReason::new(4000, error.to_string())),
        });
    }

    fn on_message(&self, ctx: &mut Context<'_, Person>, message: Message<'_>) {
        let Some(step) = message.as_text().and_then(|text| text.trim().parse::<i64>().ok()) else {
            ctx.send("send a whole number, such as +2");
            return;
        };
        let Some(board) = ctx.state().board.clone() else { return };
        ctx.state().moves += 1;
        let mut boards = self.lock();
        let Some(entry) = boards.get_mut(&board) else { return };
        entry.total = entry.total.saturating_add(step);
        // Publishing never blocks, so hold the lock: totals are then published in order.
        let text = format!("total {}", entry.total);
        ctx.publish(board.as_str(), &text).then(|ctx, published| {
            if let Err(RoomError::Overloaded) = published {
                ctx.send("the others were not told: try again in a moment");
            }
        });
    }

    fn on_close(&self, ctx: &mut Context<'_, Person>, _reason: &CloseReason) {
        let Some(board) = ctx.state().board.take() else { return };
        let moves = ctx.state().moves;
        {
            let mut boards = self.lock();
            if let Some(entry) = boards.get_mut(&board) {
                entry.people -= 1;
                if entry.people == 0 {
                    boards.remove(&board);
                }
            }
        }
        ctx.publish_to_others(board.as_str(), &format!("someone left after {moves} moves"));
    }
}

/// Returns the value of `key` in the request's query, not decoded.
fn query<'r>(request: &'r Request<'_>, key: &str) -> Option<&'r str> {
    request
        .query()
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .find_map(|(name, value)| (name == key).then_some(value))
}

/// Counts primes. A function is a handler too, here one that may block.
fn primes(ctx: &mut Context<'_, (), MayBlock>, message: Message<'_>) {
    let answer = match message.as_text().and_then(|text| text.trim().parse::<u32>().ok()) {
        Some(below) if below <= 5_000_000 => {
            let is_prime =
                |n: &u32| (2..).take_while(|d| d * d <= *n).all(|d| !n.is_multiple_of(d));
            (2..below).filter(is_prime).count().to_string()
        }
        _ => "send a number up to 5000000".to_owned(),
    };
    ctx.send(&answer);
}
