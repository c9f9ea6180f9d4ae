//! Connect four for two players and any number of spectators.
//!
//! `cargo run --example game`, then open the address that it prints in two windows.
//!
//! The route is `/play`, with JSON in both directions. A client sends `{"type":"play","name":…}`
//! and gets a seat. `drop` with a `column` makes a move, `watch` with a `game` begins to watch,
//! `leave` resigns or stops watching, and `return` with the client's `seat` resumes the game after
//! a lost connection. The server checks the rules; after each change it publishes the whole game to
//! the game's room.
//!
//! A player who is away for `GAME_GRACE` seconds (30) loses. Results are kept in the file
//! `GAME_SCORES`.

#[path = "../common/mod.rs"]
mod common;

mod board;
mod hall;

use std::{
    collections::BTreeMap,
    env, fs,
    io::Write,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use rusty_socks::{
    CloseReason, Context, Error, Handler, MayBlock, Message, Replay, RoomError, Server,
    ServerHandle,
};
use serde::Deserialize;
use serde_json::json;

use hall::{Game, Hall, Place};

/// The longest name, in characters.
const NAME_MAX: usize = 24;

/// Winners in the table of scores.
const SCORES_MAX: usize = 10;

fn main() -> Result<(), Error> {
    let config = common::config(env::args().skip(1))?;
    let grace = match env::var("GAME_GRACE") {
        Ok(seconds) => seconds.parse().ok().and_then(|s| Duration::try_from_secs_f64(s).ok()),
        Err(_) => Some(Duration::from_secs(30)),
    };
    let grace = grace.ok_or_else(|| Error::config("GAME_GRACE is a number of seconds"))?;
    let default_scores = || env::temp_dir().join("rusty-socks-game-scores.tsv");
    let scores = env::var_os("GAME_SCORES").map_or_else(default_scores, PathBuf::from);

    let hall = Arc::new(Hall::new(grace));
    let server = Server::builder()
        .config(config)
        .page("/", "text/html; charset=utf-8", include_str!("page.html"))
        .route("/play", Play { hall: Arc::clone(&hall) })
        // Reading a file may block, so it has a thread of its own and delays no game.
        .route("/scores", Scores { path: scores.clone() }.blocking(1, 64))
        .bind()?;
    let handle = server.handle();
    thread::spawn(move || referee(&hall, &handle, &scores));
    common::announce(&server);
    server.run()
}

/// The handler of players and spectators. It serves all of them, from several threads at once.
struct Play {
    hall: Arc<Hall>,
}

/// Data of one connection. Its calls never overlap, so it needs no lock.
#[derive(Default)]
struct Visitor {
    at: Option<At>,
}

#[derive(Clone, Copy)]
enum At {
    Playing(Place),
    Watching(u64),
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum Command {
    Play { name: String },
    Return { seat: String },
    Watch { game: u64 },
    Drop { column: usize },
    Leave,
    Games,
}

type Ctx<'a> = Context<'a, Visitor>;

impl Handler for Play {
    type State = Visitor;

    fn on_message(&self, ctx: &mut Ctx<'_>, message: Message<'_>) {
        let text = message.as_text().unwrap_or_default();
        let done = match serde_json::from_str(text) {
            Ok(Command::Play { name }) => self.play(ctx, &name),
            Ok(Command::Return { seat }) => self.come_back(ctx, &seat),
            Ok(Command::Watch { game }) => self.watch(ctx, game),
            Ok(Command::Drop { column }) => self.drop(ctx, column),
            Ok(Command::Leave) => {
                self.leave(ctx);
                Ok(())
            }
            Ok(Command::Games) => {
                let games = self.hall.lock().list();
                say(ctx, &json!({ "type": "games", "games": games }));
                Ok(())
            }
            Err(_) => Err("say play, return, watch, drop, leave or games, in JSON"),
        };
        if let Err(message) = done {
            say(ctx, &json!({ "type": "error", "message": message }));
        }
    }

    /// Marks the player as away. The player can return within the grace period.
    fn on_close(&self, ctx: &mut Ctx<'_>, _reason: &CloseReason) {
        let client_id = ctx.client_id();
        match ctx.state().at.take() {
            Some(At::Playing(place)) => self.change(ctx, place.game, |game| {
                game.lose_sight(place.colour, &client_id);
            }),
            Some(At::Watching(game)) => self.change(ctx, game, |game| game.spectators -= 1),
            None => {}
        }
    }
}

impl Play {
    fn play(&self, ctx: &mut Ctx<'_>, name: &str) -> Result<(), &'static str> {
        let name: String = name.trim().chars().filter(|c| !c.is_control()).take(NAME_MAX).collect();
        if name.is_empty() {
            return Err("a player has a name");
        }
        self.leave(ctx);
        let seated = self.hall.lock().seat(name, ctx.peer());
        let (place, token) = seated?;
        self.sit_down(ctx, place, &token);
        Ok(())
    }

    fn come_back(&self, ctx: &mut Ctx<'_>, token: &str) -> Result<(), &'static str> {
        self.leave(ctx);
        let reseated = self.hall.lock().reseat(token, ctx.peer());
        let Some((place, held_by)) = reseated else {
            say(ctx, &json!({ "type": "gone" }));
            return Ok(());
        };
        if let Some(before) = held_by.filter(|before| before.client_id() != ctx.client_id()) {
            // A 40xx code, so that the other window does not reconnect.
            before.close(CloseReason::new(4010, "your seat was taken over"));
        }
        self.sit_down(ctx, place, token);
        Ok(())
    }

    fn sit_down(&self, ctx: &mut Ctx<'_>, place: Place, token: &str) {
        ctx.state().at = Some(At::Playing(place));
        let Place { game, colour } = place;
        say(ctx, &json!({ "type": "seat", "game": game, "colour": colour, "seat": token }));
        self.enter(ctx, game, |_| {});
    }

    fn watch(&self, ctx: &mut Ctx<'_>, game: u64) -> Result<(), &'static str> {
        self.leave(ctx);
        if !self.hall.lock().by_id.contains_key(&game) {
            return Err("there is no such game");
        }
        ctx.state().at = Some(At::Watching(game));
        self.enter(ctx, game, |game| game.spectators += 1);
        Ok(())
    }

    fn drop(&self, ctx: &mut Ctx<'_>, column: usize) -> Result<(), &'static str> {
        let Some(At::Playing(place)) = ctx.state().at else { return Err("you do not play") };
        self.try_change(ctx, place.game, |game| game.drop(place.colour, column))
    }

    /// Resigns a running game, or stops watching.
    fn leave(&self, ctx: &mut Ctx<'_>) {
        let client_id = ctx.client_id();
        let game = match ctx.state().at.take() {
            Some(At::Playing(Place { game, colour })) => {
                self.change(ctx, game, |game| {
                    game.resign(colour);
                    game.lose_sight(colour, &client_id);
                });
                game
            }
            Some(At::Watching(game)) => {
                self.change(ctx, game, |game| game.spectators -= 1);
                game
            }
            None => return,
        };
        ctx.leave(&format!("game.{game}"));
    }

    /// Joins the game's room, then publishes the state to it.
    fn enter(&self, ctx: &mut Ctx<'_>, id: u64, change: impl FnOnce(&mut Game)) {
        let room = self.hall.lock().by_id.get(&id).map(|game| game.room.clone());
        let Some(room) = room else { return };
        ctx.join(&room, Replay::Nothing).then(|ctx, joined| {
            if let Err(error) = joined {
                ctx.close(CloseReason::new(4000, error.to_string()));
            }
        });
        self.change(ctx, id, change);
    }

    /// Changes a game, if it still exists, and publishes its state.
    fn change(&self, ctx: &mut Ctx<'_>, id: u64, change: impl FnOnce(&mut Game)) {
        let _ = self.try_change(ctx, id, |game| {
            change(game);
            Ok(())
        });
    }

    /// Changes a game like [`Play::change`], but publishes nothing if the change is refused.
    fn try_change(
        &self,
        ctx: &mut Ctx<'_>,
        id: u64,
        change: impl FnOnce(&mut Game) -> Result<(), &'static str>,
    ) -> Result<(), &'static str> {
        let mut games = self.hall.lock();
        let Some(game) = games.by_id.get_mut(&id) else { return Err("this game is gone") };
        let was_over = game.is_over();
        change(game)?;
        let state = game.state();
        // Publishing never blocks, so hold the lock: states are then published in order.
        ctx.publish(game.room.as_str(), &state).then(|ctx, published| {
            if let Err(RoomError::Overloaded) = published {
                let message = "the others were not told: the next move will tell them";
                say(ctx, &json!({ "type": "error", "message": message }));
            }
        });
        let score = if was_over { None } else { game.score() };
        games.finished.extend(score);
        games.tidy(id);
        drop(games);
        self.hall.ring();
        Ok(())
    }
}

fn say(ctx: &mut Ctx<'_>, answer: &serde_json::Value) {
    // The status may be ignored: the server pauses a client that does not read its answers.
    ctx.send(&answer.to_string());
}

/// Ends the games of players who did not return, and writes results to the file.
fn referee(hall: &Hall, handle: &ServerHandle, scores: &Path) {
    let mut games = hall.lock();
    loop {
        let now = Instant::now();
        let mut next: Option<Instant> = None;
        for id in games.by_id.keys().copied().collect::<Vec<_>>() {
            let Some(game) = games.by_id.get_mut(&id) else { continue };
            match game.deadline(hall.grace) {
                Some((at, colour)) if at <= now => {
                    game.forfeit(colour);
                    let state = game.state();
                    // If a worker is behind, the players see the state after the next move.
                    let _ = handle.publish(game.room.as_str(), &state);
                    let score = game.score();
                    games.finished.extend(score);
                    games.tidy(id);
                }
                Some((at, _)) => next = Some(next.map_or(at, |next| next.min(at))),
                None => {}
            }
        }
        let finished = std::mem::take(&mut games.finished).concat();
        if finished.is_empty() {
            games = hall.wait(games, next);
            continue;
        }
        // Release the lock before writing to the disk.
        drop(games);
        let file = fs::OpenOptions::new().append(true).create(true).open(scores);
        if let Err(error) = file.and_then(|mut file| file.write_all(finished.as_bytes())) {
            eprintln!("cannot write {}: {error}", scores.display());
        }
        games = hall.lock();
    }
}

/// Answers every message with the table of scores.
struct Scores {
    path: PathBuf,
}

impl Handler<MayBlock> for Scores {
    type State = ();

    fn on_message(&self, ctx: &mut Context<'_, (), MayBlock>, _message: Message<'_>) {
        let text = fs::read_to_string(&self.path).unwrap_or_default();
        let mut wins: BTreeMap<&str, u32> = BTreeMap::new();
        for (winner, _) in text.lines().filter_map(|line| line.split_once('\t')) {
            *wins.entry(winner).or_default() += 1;
        }
        let mut table: Vec<_> = wins.into_iter().collect();
        table.sort_by_key(|(_, wins)| std::cmp::Reverse(*wins));
        table.truncate(SCORES_MAX);
        ctx.send(&json!({ "type": "scores", "scores": table }).to_string());
    }
}
