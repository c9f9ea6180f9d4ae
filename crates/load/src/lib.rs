//! A load test for any WebSocket server, and an honest account of what came of it: storms of
//! connections, round trips, fan-out, idle holding. `rusty_socks load` is a front of it.
//!
//! Read in this order: `args` is what was typed, `plan` what it means; `coordinator` runs it,
//! with one `load_thread` on each thread; `handshake` is a connection until its answer,
//! `websocket` after it; `work` is what connections then do; `log` is where each thread
//! writes down what it saw, `report` all of it; `outcome` judges it and `summary` puts it
//! into words, of which `table`, `json` and `page` are made.
//!
//! Nothing here prints or ends the process. The crate shares the protocol with the server, and no
//! other code, so that a fault of the server cannot hide on both sides.

// What was typed, and what it means.
mod args;
mod expect;
mod span;
mod request;
mod seat;
mod plan;
// What is done.
mod coordinator;
mod run_state;
mod load_thread;
mod dial;
mod handshake;
mod retry_after;
mod tls_args;
mod read_buffer;
mod raw;
mod websocket;
mod connection;
mod share;
mod work;
mod echo;
mod fanout;
mod stamp;
mod pacer;
mod ticker;
mod timers;
mod stats;
pub mod http_get;
// What is counted.
mod log;
mod failure;
mod tally;
mod times;
mod series;
mod busy;
mod report;
// What is told.
mod progress;
mod words;
mod outcome;
mod bottleneck;
mod comparison;
mod summary;
pub mod table;
pub mod json;
mod machine;
pub mod page;
mod plots;
mod chart;

pub use args::LoadArgs;
pub use dial::dial;
pub use failure::Failure;
pub use handshake::Handshake;
pub use tls_args::TlsArgs;
pub use websocket::{Ending, Incoming, WebSocket};

pub use coordinator::{StopHandle, run};
pub use outcome::{Outcome, Problem, ProblemKind};
pub use plan::{NoPlan, Plan};
pub use progress::Progress;
pub use read_buffer::ReadBuffer;
pub use report::Report;
pub use summary::Summary;
pub use times::Times;
