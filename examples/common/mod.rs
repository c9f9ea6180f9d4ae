//! What the larger examples share: where they listen, and how they say so.

use std::env;

use rusty_socks::{Config, Error, Server};

/// The settings of the shipped server, by `RUSTY_SOCKS_*` and by flags such as `--port 0`, but
/// listening on this machine alone unless told otherwise. `arguments` are those that the example
/// has not used itself.
pub(crate) fn config(arguments: impl IntoIterator<Item = String>) -> Result<Config, Error> {
    let mut variables: Vec<_> = env::vars_os().collect();
    if env::var_os("RUSTY_SOCKS_HOST").is_none() {
        variables.push(("RUSTY_SOCKS_HOST".into(), "127.0.0.1".into()));
    }
    let mut flags = Vec::new();
    let mut arguments = arguments.into_iter();
    while let Some(flag) = arguments.next() {
        let missing = || Error::config(format!("{flag} wants a value, such as --port 3030"));
        let value = arguments.next().ok_or_else(missing)?;
        flags.push((flag, value));
    }
    Ok(Config::load_from(None, variables, flags)?.config)
}

/// Says where to look, in a line that a program can read too.
pub(crate) fn announce(server: &Server) {
    println!("open http://{}/ in a browser or two", server.local_addr());
}
