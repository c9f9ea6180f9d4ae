//! A handler with a life of its own: boards that people count on together.
//!
//! `cargo run --example custom_handler -- 3030`, then
//!
//! - `ws://127.0.0.1:3030/board?name=tea&token=let-me-in`: send `+2` or `-1`, and everyone on the
//!   board `tea` is told the new total;
//! - `ws://127.0.0.1:3030/primes`: send `100000`, and learn how many primes are below it.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use rusty_socks::{
    CloseReason, Config, Context, Error, Handler, MayBlock, Message, Refusal, Replay, Request,
    RoomError, RoomName, Server,
};

/// What a client must know to come in. A real server would look it up.
const TOKEN: &str = "let-me-in";

fn main() -> Result<(), Error> {
    let port = std::env::args().nth(1).map_or(Ok(3030), |port| port.parse());
    let port = port.map_err(|_| Error::config("the first argument is the port"))?;
    let config = Config { host: "127.0.0.1".into(), port, ..Config::default() };
    let server = server(config)?;
    println!("listening on ws://{0}/board and ws://{0}/primes", server.local_addr());
    server.run()
}

/// Both routes on one server.
pub fn server(config: Config) -> Result<Server, Error> {
    Server::builder()
        .config(config)
        .route("/board", Boards::default())
        // Counting primes takes as long as it takes. On two threads of its own it delays nobody on
        // a board; at most 64 questions wait, and beyond that the askers' sockets are not read.
        .route("/primes", primes.blocking(2, 64))
        .bind()
}

/// All boards that somebody is on. One handler serves every connection, from several threads at
/// once, so what connections share is behind a lock.
#[derive(Default)]
pub struct Boards {
    by_name: Mutex<HashMap<RoomName, Board>>,
}

#[derive(Default)]
struct Board {
    total: i64,
    /// When the last one leaves, the board goes: a table that only grows is a leak.
    people: usize,
}

/// What belongs to one connection needs no lock: its calls never overlap.
#[derive(Default)]
pub struct Person {
    /// The board that the request named. `Some` from `on_upgrade` on.
    board: Option<RoomName>,
    moves: u32,
}

impl Boards {
    fn lock(&self) -> MutexGuard<'_, HashMap<RoomName, Board>> {
        // A panic elsewhere closed that connection; the numbers are still numbers.
        self.by_name.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Handler for Boards {
    type State = Person;

    /// Whoever is refused here costs no permit and hears why in plain HTTP. The token may stand in
    /// the query because a browser's WebSocket cannot set headers.
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
        // A reply comes to a closure, because it may come later if rooms live on another machine
        // one day.
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
        // Publishing never blocks, so the lock may be held: then totals go out in the order in
        // which they came about.
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

/// The value of `key` in the request's query, as it stands.
fn query<'r>(request: &'r Request<'_>, key: &str) -> Option<&'r str> {
    request
        .query()
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .find_map(|(name, value)| (name == key).then_some(value))
}

/// A function is a handler too, here one that may take its time.
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
