//! `rusty_socks connect`: a client for people at a terminal, and for scripts.
//!
//! Read in this order: [`ConnectArgs`] is what was asked for; [`chat`] speaks the chat protocol
//! through a session that reconnects, [`raw`] passes messages to and from any server. [`ui_event`]
//! is all that either waits for, in one queue; [`screen`] is where things are shown, by one thread
//! alone.

// The way in and out.
mod args;
mod attempts;
mod failure;
// What was typed.
mod command;
mod input;
mod line;
// What happens.
mod chat;
mod exit_condition;
mod raw;
mod ui_event;
mod worker;
// What is shown.
mod renderer;
mod screen;
mod text;

use std::io;

use crate::exit::{Exit, PREFIX, say};

use self::failure::{Failure, exit_of};

pub(crate) use self::args::ConnectArgs;

pub(crate) fn run(args: ConnectArgs) -> Exit {
    let url = &args.url;
    match if args.raw { raw::run(&args, url) } else { chat::run(&args, url) } {
        Ok(exit) => exit,
        // Whoever read has seen enough, as `| head` has.
        Err(Failure::Io(error)) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Clean,
        Err(Failure::Io(error)) => ended(&error.to_string(), Exit::Failure),
        Err(Failure::Client(error)) => ended(&error.to_string(), exit_of(&error)),
        Err(Failure::Ended(text, exit)) => ended(&text, exit),
    }
}

fn ended(text: &str, exit: Exit) -> Exit {
    say(&format!("{PREFIX}{}", text::plain(text)));
    exit
}
