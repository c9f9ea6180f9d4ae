//! The running games and their players: the data that connections share, behind one lock.

use std::{
    collections::BTreeMap,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use rusty_socks::{Peer, RoomName};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::board::{Board, Cell, Colour, Dropped};

/// The most games at once; more are refused. A table without a bound is a leak.
const GAMES_MAX: usize = 1000;

/// The games, and a condition variable that wakes the referee.
pub(crate) struct Hall {
    games: Mutex<Games>,
    bell: Condvar,
    /// How long a player may be away.
    pub(crate) grace: Duration,
}

#[derive(Default)]
pub(crate) struct Games {
    pub(crate) by_id: BTreeMap<u64, Game>,
    next_id: u64,
    /// Results that the referee has not written to the file yet.
    pub(crate) finished: Vec<String>,
}

pub(crate) struct Game {
    pub(crate) id: u64,
    /// The room of players and spectators, in which the state of the game is published.
    pub(crate) room: RoomName,
    board: Board,
    turn: Colour,
    red: Seat,
    /// Empty until a second player has joined.
    yellow: Option<Seat>,
    over: Option<Over>,
    /// Counts the changes, so that a client knows which of two states is newer.
    version: u64,
    pub(crate) spectators: usize,
}

struct Seat {
    name: String,
    /// The secret with which the player returns.
    token: String,
    at: Presence,
}

enum Presence {
    Here(Peer),
    AwaySince(Instant),
}

struct Over {
    winner: Option<Colour>,
    why: &'static str,
    line: Option<[Cell; 4]>,
}

/// The seat of a connection's player.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) game: u64,
    pub(crate) colour: Colour,
}

impl Hall {
    pub(crate) fn new(grace: Duration) -> Hall {
        Hall { games: Mutex::default(), bell: Condvar::new(), grace }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Games> {
        // Each change is one step, so a panic elsewhere leaves no partial change.
        self.games.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn ring(&self) {
        self.bell.notify_one();
    }

    /// Waits until the referee is woken, at most until `at`.
    pub(crate) fn wait<'h>(
        &'h self,
        games: MutexGuard<'h, Games>,
        at: Option<Instant>,
    ) -> MutexGuard<'h, Games> {
        match at {
            None => self.bell.wait(games).unwrap_or_else(PoisonError::into_inner),
            Some(at) => {
                let left = at.saturating_duration_since(Instant::now());
                let waited = self.bell.wait_timeout(games, left);
                waited.unwrap_or_else(PoisonError::into_inner).0
            }
        }
    }
}

impl Games {
    /// Seats a player opposite the one who has waited longest, or at a new game.
    pub(crate) fn seat(
        &mut self,
        name: String,
        peer: Peer,
    ) -> Result<(Place, String), &'static str> {
        let token = Uuid::new_v4().simple().to_string();
        let seat = Seat { name, token: token.clone(), at: Presence::Here(peer) };
        let waiting = |game: &&mut Game| {
            let is_here = matches!(game.red.at, Presence::Here(_));
            game.yellow.is_none() && game.over.is_none() && is_here
        };
        if let Some(game) = self.by_id.values_mut().find(waiting) {
            game.yellow = Some(seat);
            return Ok((Place { game: game.id, colour: Colour::Yellow }, token));
        }
        if self.by_id.len() >= GAMES_MAX {
            return Err("every table is taken: come back later");
        }
        self.next_id += 1;
        let id = self.next_id;
        let room = RoomName::new(&format!("game.{id}")).map_err(|_| "this game has no room")?;
        let game = Game {
            id,
            room,
            board: Board::default(),
            turn: Colour::Red,
            red: seat,
            yellow: None,
            over: None,
            version: 0,
            spectators: 0,
        };
        self.by_id.insert(id, game);
        Ok((Place { game: id, colour: Colour::Red }, token))
    }

    /// Returns the seat of the token to its player, and the connection that held it, if any.
    pub(crate) fn reseat(&mut self, token: &str, peer: Peer) -> Option<(Place, Option<Peer>)> {
        for game in self.by_id.values_mut() {
            for colour in [Colour::Red, Colour::Yellow] {
                if let Some(seat) = game.seat(colour).filter(|seat| seat.token == token) {
                    let before = std::mem::replace(&mut seat.at, Presence::Here(peer));
                    let held_by = match before {
                        Presence::Here(peer) => Some(peer),
                        Presence::AwaySince(_) => None,
                    };
                    return Some((Place { game: game.id, colour }, held_by));
                }
            }
        }
        None
    }

    /// Removes a game without players and spectators.
    pub(crate) fn tidy(&mut self, id: u64) {
        if self.by_id.get(&id).is_some_and(|game| game.is_over() && !game.has_people()) {
            self.by_id.remove(&id);
        }
    }

    /// Lists the games that can be watched.
    pub(crate) fn list(&self) -> Vec<Value> {
        let on = self.by_id.values().filter(|game| !game.is_over());
        let line = |game: &Game| json!({ "game": game.id, "players": game.names() });
        on.map(line).collect()
    }
}

impl Game {
    fn seat(&mut self, colour: Colour) -> Option<&mut Seat> {
        match colour {
            Colour::Red => Some(&mut self.red),
            Colour::Yellow => self.yellow.as_mut(),
        }
    }

    fn seats(&self) -> impl Iterator<Item = (Colour, &Seat)> {
        let yellow = self.yellow.as_ref().map(|seat| (Colour::Yellow, seat));
        std::iter::once((Colour::Red, &self.red)).chain(yellow)
    }

    pub(crate) fn is_over(&self) -> bool {
        self.over.is_some()
    }

    fn has_people(&self) -> bool {
        self.spectators > 0 || self.seats().any(|(_, seat)| matches!(seat.at, Presence::Here(_)))
    }

    fn names(&self) -> Vec<&str> {
        self.seats().map(|(_, seat)| seat.name.as_str()).collect()
    }

    /// Makes a player's move. The server checks the rules, because a client can send anything.
    pub(crate) fn drop(&mut self, colour: Colour, column: usize) -> Result<(), &'static str> {
        if self.is_over() {
            return Err("the game is over");
        }
        if self.yellow.is_none() {
            return Err("there is nobody to play against yet");
        }
        if colour != self.turn {
            return Err("it is not your turn");
        }
        match self.board.drop(column, colour)? {
            Dropped::GoesOn => self.turn = colour.other(),
            Dropped::Four(line) => self.end(Some(colour), "four in a line", Some(line)),
            Dropped::Full => self.end(None, "the board is full", None),
        }
        Ok(())
    }

    pub(crate) fn resign(&mut self, colour: Colour) {
        let winner = self.yellow.is_some().then(|| colour.other());
        self.end(winner, "resigned", None);
    }

    fn end(&mut self, winner: Option<Colour>, why: &'static str, line: Option<[Cell; 4]>) {
        if self.over.is_none() {
            self.over = Some(Over { winner, why, line });
        }
    }

    /// Marks the player of `colour` as away, unless another connection holds the seat by now.
    pub(crate) fn lose_sight(&mut self, colour: Colour, gone: &Uuid) {
        if let Some(seat) = self.seat(colour)
            && matches!(&seat.at, Presence::Here(peer) if peer.client_id() == *gone)
        {
            seat.at = Presence::AwaySince(Instant::now());
        }
    }

    /// Returns when the first of the away players loses, and its colour.
    pub(crate) fn deadline(&self, grace: Duration) -> Option<(Instant, Colour)> {
        let away = self.seats().filter_map(|(colour, seat)| match seat.at {
            Presence::AwaySince(since) => Some((since + grace, colour)),
            Presence::Here(_) => None,
        });
        away.min_by_key(|(at, _)| *at).filter(|_| !self.is_over())
    }

    /// Ends the game in favour of the player who stayed, if there is one.
    pub(crate) fn forfeit(&mut self, colour: Colour) {
        let winner = self.yellow.is_some().then(|| colour.other());
        self.end(winner, "the other player did not come back", None);
    }

    /// Returns a line for the score file, such as `Anna beat Ben`; `None` if there is no winner.
    pub(crate) fn score(&self) -> Option<String> {
        let winner = self.over.as_ref()?.winner?;
        let name =
            |wanted| self.seats().find(|(colour, _)| *colour == wanted).map(|(_, it)| &it.name);
        Some(format!("{}\t{}\n", name(winner)?, name(winner.other())?))
    }

    /// Returns the whole game as the message to its room. A client that missed a state needs only
    /// the next one.
    pub(crate) fn state(&mut self) -> String {
        self.version += 1;
        let players: Vec<Value> = self
            .seats()
            .map(|(colour, seat)| {
                let is_away = matches!(seat.at, Presence::AwaySince(_));
                json!({ "colour": colour, "name": seat.name, "away": is_away })
            })
            .collect();
        let over = self.over.as_ref();
        let over =
            over.map(|over| json!({ "winner": over.winner, "why": over.why, "line": over.line }));
        json!({
            "type": "game",
            "game": self.id,
            "version": self.version,
            "rows": self.board.rows(),
            "turn": self.turn,
            "players": players,
            "spectators": self.spectators,
            "over": over,
        })
        .to_string()
    }
}
