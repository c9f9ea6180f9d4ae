//! A board on which everyone sees everyone's pointer.
//!
//! `cargo run --example cursors`, then open the address that it prints in two windows, side by
//! side.
//!
//! The route is `/board`. A client sends `{"type":"enter","name":…}` and then
//! `{"type":"move","x":…,"y":…}` with numbers from 0 to 1. The server sends the whole board, with
//! all names and positions, at most twenty times a second. So the work grows with the number of
//! clients and not with its square, and a client that misses a board needs only the next one.

#[path = "../common/mod.rs"]
mod common;

use std::{
    collections::BTreeMap,
    env,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use rusty_socks::{
    CloseReason, Config, Context, Error, Handler, Message, Notice, PreparedFrame, Replay, RoomName,
    Server, ServerHandle,
    config::{Overflow, RoomRule},
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use uuid::Uuid;

/// The room of everyone on the board.
const ROOM: &str = "board";

/// The pause between two boards.
const FRAME: Duration = Duration::from_millis(50);

/// The longest name, in characters.
const NAME_MAX: usize = 24;

fn main() -> Result<(), Error> {
    // Only the newest board is worth keeping and worth sending to a slow client. New clients get it
    // at once.
    let rule =
        RoomRule { overflow: Some(Overflow::Latest), history: Some(1), ..RoomRule::new(ROOM) };
    let config = Config { rooms: vec![rule], ..common::config(env::args().skip(1))? };
    let board = Arc::new(Board::default());
    let server = Server::builder()
        .config(config)
        .page("/", "text/html; charset=utf-8", include_str!("page.html"))
        .route("/board", Pointers { room: RoomName::new(ROOM)?, board: Arc::clone(&board) })
        .bind()?;
    let handle = server.handle();
    thread::spawn(move || board.publish(&handle));
    common::announce(&server);
    server.run()
}

/// All pointers. Every connection changes them; one thread reads and publishes them.
#[derive(Default)]
struct Board {
    inner: Mutex<Inner>,
    changed: Condvar,
    /// Counts all clients so far, so that consecutive ones get different colours.
    came: AtomicU32,
}

#[derive(Default)]
struct Inner {
    pointers: BTreeMap<Uuid, Pointer>,
    /// Whether something has changed since the last publish.
    is_new: bool,
}

#[derive(Clone, Serialize)]
struct Pointer {
    id: String,
    name: String,
    /// An angle on the colour wheel.
    hue: u32,
    x: f64,
    y: f64,
}

impl Board {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Each change is one step, so a panic elsewhere leaves no partial change.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut BTreeMap<Uuid, Pointer>)) {
        let mut inner = self.lock();
        change(&mut inner.pointers);
        inner.is_new = true;
        drop(inner);
        self.changed.notify_one();
    }

    /// Publishes the board whenever it has changed, but never more often than every [`FRAME`].
    fn publish(&self, handle: &ServerHandle) {
        loop {
            let mut inner = self.lock();
            while !inner.is_new {
                inner = self.changed.wait(inner).unwrap_or_else(PoisonError::into_inner);
            }
            inner.is_new = false;
            let pointers: Vec<Pointer> = inner.pointers.values().cloned().collect();
            drop(inner);
            let text = json!({ "type": "board", "pointers": pointers }).to_string();
            // Errors do not matter: without members there is no room, and if a worker is behind,
            // the next board will do.
            let _ = handle.publish(ROOM, &text);
            let next = Instant::now() + FRAME;
            while let Some(left) = next.checked_duration_since(Instant::now()) {
                thread::park_timeout(left);
            }
        }
    }
}

/// The handler of `/board`.
struct Pointers {
    room: RoomName,
    board: Arc<Board>,
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum Command {
    Enter { name: String },
    Move { x: f64, y: f64 },
}

impl Handler for Pointers {
    /// Whether this client has entered.
    type State = bool;

    fn on_message(&self, ctx: &mut Context<'_, bool>, message: Message<'_>) {
        let id = ctx.client_id();
        match serde_json::from_str(message.as_text().unwrap_or_default()) {
            Ok(Command::Enter { name }) if !*ctx.state() => self.enter(ctx, &name),
            Ok(Command::Move { x, y }) if *ctx.state() => self.board.change(|pointers| {
                if let Some(pointer) = pointers.get_mut(&id) {
                    (pointer.x, pointer.y) = (x.clamp(0.0, 1.0), y.clamp(0.0, 1.0));
                }
            }),
            _ => refuse(ctx, "first enter with a name, then move to x and y from 0 to 1"),
        }
    }

    fn on_close(&self, ctx: &mut Context<'_, bool>, _reason: &CloseReason) {
        let id = ctx.client_id();
        if *ctx.state() {
            self.board.change(|pointers| drop(pointers.remove(&id)));
        }
    }

    /// Tells a client that is too slow how many boards it missed.
    fn notice(&self, notice: &Notice<'_>) -> Option<PreparedFrame> {
        let Notice::Gap { from, to, .. } = notice else { return None };
        let text = json!({ "type": "skipped", "boards": to - from + 1 }).to_string();
        Some(PreparedFrame::new(Message::Text(&text)))
    }
}

impl Pointers {
    fn enter(&self, ctx: &mut Context<'_, bool>, name: &str) {
        let name: String = name.trim().chars().filter(|c| !c.is_control()).take(NAME_MAX).collect();
        if name.is_empty() {
            return refuse(ctx, "who are you?");
        }
        let id = ctx.client_id();
        // The golden angle keeps each new colour far from the previous ones.
        let hue = self.board.came.fetch_add(1, Ordering::Relaxed).wrapping_mul(137) % 360;
        *ctx.state() = true;
        ctx.send(&json!({ "type": "entered", "id": id.to_string() }).to_string());
        ctx.join(&self.room, Replay::Latest(1)).then(|ctx, joined| match joined {
            Ok(joined) => {
                for board in &joined.replay {
                    ctx.send_prepared(board);
                }
            }
            Err(error) => ctx.close(CloseReason::new(4000, error.to_string())),
        });
        let pointer = Pointer { id: id.to_string(), name, hue, x: 0.5, y: 0.5 };
        self.board.change(|pointers| drop(pointers.insert(id, pointer)));
    }
}

fn refuse(ctx: &mut Context<'_, bool>, message: &str) {
    ctx.send(&json!({ "type": "error", "message": message }).to_string());
}
