//! A board on which everyone sees everyone's pointer.
//!
//! `cargo run --example cursors`, then open the address that it prints in two windows, side by
//! side.
//!
//! The socket is `/board`. A client says `{"type":"enter","name":…}` and then
//! `{"type":"move","x":…,"y":…}` with numbers from 0 to 1. What it is sent is the whole board, at
//! most twenty times a second: who is there and where. So the work grows with the number of people
//! and not with its square, and whoever misses a board needs only the next one.

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
    // Only the newest board is worth keeping, and worth sending to whoever is behind; it is also
    // what a newcomer is shown at once.
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

/// All pointers. Changed by every connection, read by the one thread that publishes.
#[derive(Default)]
struct Board {
    inner: Mutex<Inner>,
    changed: Condvar,
    /// Counts the people who ever came, so that neighbours get different colours.
    came: AtomicU32,
}

#[derive(Default)]
struct Inner {
    pointers: BTreeMap<Uuid, Pointer>,
    /// Something is different from what was published last.
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
        // Each change is one step; a panic elsewhere leaves no half of one behind.
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
            // With nobody left there is no room; with a worker behind, the next board will do.
            let _ = handle.publish(ROOM, &text);
            let next = Instant::now() + FRAME;
            while let Some(left) = next.checked_duration_since(Instant::now()) {
                thread::park_timeout(left);
            }
        }
    }
}

/// The socket.
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
    /// Whether this client has said who it is.
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

    /// A client that reads too slowly gets the newest board, and is told how many it did not get.
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
        // The golden angle: however many come, the newest colour is far from the last ones.
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
