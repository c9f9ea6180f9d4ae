//! A Redis of memory, in the thread of its test: the commands that the server's scripts use, and
//! the scripts themselves, in the same Lua.
//!
//! [`Store`] is what it keeps, [`Redis`] one process that serves it. A `Store` can be cloned: that
//! is a replica, or a file.

mod store;
mod state;
mod commands;
mod scripts;

use std::{cell::RefCell, rc::Rc};

use bytes::Bytes;
pub use commands::Reply;
pub use state::Refuses;
pub use store::Store;

use scripts::Scripts;
use state::State;

/// One process.
pub struct Redis {
    /// Changes whenever a process begins.
    pub run_id: String,
    /// What it refuses at present.
    pub refuses: Refuses,
    state: Rc<RefCell<State>>,
    scripts: Scripts,
    knows_scripts: bool,
}

impl Redis {
    /// Begins a process that serves `store`.
    ///
    /// # Panics
    /// Lua finds no memory.
    pub fn new(run_id: String, store: Store) -> Redis {
        let state = Rc::new(RefCell::new(State {
            store,
            now_micros: 0,
            refuses: Refuses::Nothing,
            has_written: false,
            published: Vec::new(),
        }));
        let scripts = Scripts::new(Rc::clone(&state));
        Redis { run_id, refuses: Refuses::Nothing, state, scripts, knows_scripts: false }
    }

    /// Sets its clock, in microseconds since 1970.
    pub fn set_time(&mut self, now_micros: u64) {
        self.state.borrow_mut().now_micros = now_micros;
    }

    /// What its clock shows, in milliseconds since 1970.
    pub fn now_ms(&self) -> u64 {
        self.state.borrow().now_micros / 1000
    }

    /// What it keeps, as a replica would have it.
    pub fn snapshot(&self) -> Store {
        self.state.borrow().store.clone()
    }

    /// Looks at what it keeps, without what has expired.
    pub fn look<R>(&self, look: impl FnOnce(&mut Store) -> R) -> R {
        let state = &mut *self.state.borrow_mut();
        state.store.set_time(state.now_micros / 1000);
        look(&mut state.store)
    }

    /// Runs a command, whose name comes first.
    pub fn command(&mut self, args: &[Bytes]) -> Reply {
        let state = &mut *self.state.borrow_mut();
        state.begin(self.refuses);
        commands::run(state, args, false)
    }

    /// Runs a script by its hash, which it may not know.
    pub fn run_script(&mut self, text: &'static str, keys: &[Bytes], args: &[Bytes]) -> Reply {
        if !self.knows_scripts {
            return Reply::Error("NOSCRIPT No matching script. Please use EVAL.".to_owned());
        }
        self.state.borrow_mut().begin(self.refuses);
        self.scripts.run(text, keys, args)
    }

    /// Knows all scripts from now on: somebody has loaded them.
    pub fn load_scripts(&mut self) {
        self.knows_scripts = true;
    }

    /// Forgets all scripts.
    pub fn flush_scripts(&mut self) {
        self.knows_scripts = false;
    }

    /// Takes what was published since the last call.
    pub fn take_published(&mut self) -> Vec<(Bytes, Bytes)> {
        std::mem::take(&mut self.state.borrow_mut().published)
    }
}
