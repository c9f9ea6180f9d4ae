//! What was asked for: the arguments of `connect`.

use std::{
    env, fs,
    io::{self, IsTerminal},
    path::PathBuf,
    time::Duration,
};

use clap::{ValueEnum, builder::StringValueParser, builder::TypedValueParser};
use rusty_socks_client::{Client, ClientBuilder};

use rusty_socks_load::TlsArgs;

use super::renderer::Renderer;

/// Talks to a server: what you type is sent, and what comes is shown.
///
/// At a terminal, lines that begin with a slash are commands: /join, /leave, /room, /history, /who,
/// /to, /quit; /help tells more. From a pipe each line is published as it is, without its line end
/// (LF or CR LF), and once all are answered the program ends; --wait and --count show what comes
/// before. Messages go to standard output, everything else to standard error. A lost connection is
/// made anew, and nothing is missed or said twice. A server that is busy (408, 425, 429, 5xx) is
/// asked again after its Retry-After, for as long as --timeout; --no-reconnect asks once.
///
/// Exit code: 0 when it is done, 1 when a line was not sent or refused, when --count was not
/// reached in time or standard output cannot be written, 2 for bad arguments, 3 when nobody answers
/// or the server's certificate cannot be trusted, 4 when the server refused the upgrade (its status
/// is told), 5 when the server closed with an error code or the connection was lost.
#[derive(Debug, clap::Args)]
pub(crate) struct ConnectArgs {
    /// The server: localhost, localhost:4000, ws://host[:port][/path], or wss:// for TLS. Without a
    /// scheme, what is left out is port 3030 and the path /ws.
    #[arg(value_name = "URL", default_value = "ws://127.0.0.1:3030/ws")]
    pub(super) url: String,

    /// Talk to any WebSocket server: what is typed is sent word for word, and what comes is shown
    /// word for word. A line from a pipe that is not UTF-8 is sent as a binary message. No
    /// commands; Ctrl-D ends it.
    #[arg(long)]
    pub(super) raw: bool,

    /// Join this room and talk there, and in no other. Default: the server's default room.
    #[arg(long, value_name = "ROOM", conflicts_with = "raw")]
    pub(super) room: Option<String>,

    /// The name shown to others.
    #[arg(long, value_name = "NAME", conflicts_with = "raw")]
    pub(super) name: Option<String>,

    /// When all input is sent, go on for this long and show what comes.
    #[arg(long, value_name = "SECONDS", value_parser = seconds())]
    pub(super) wait: Option<Duration>,

    /// When all input is sent, go on until this many messages have come, or --wait is over.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) count: Option<u64>,

    /// Show each message as one line of JSON.
    #[arg(long, conflicts_with = "raw")]
    json: bool,

    /// Publish each line as the JSON that it is, and not as a text.
    ///
    /// A line that is not JSON is reported, not sent.
    #[arg(long, conflicts_with = "raw")]
    pub(super) send_json: bool,

    /// Do not show when messages were sent.
    #[arg(long)]
    no_timestamps: bool,

    /// Colours. auto: where standard output is a terminal and NO_COLOR is not set.
    #[arg(long, value_name = "WHEN", value_enum, default_value = "auto")]
    color: Color,

    /// What becomes of a binary message.
    #[arg(long, value_name = "HOW", value_enum, default_value = "hex", requires = "raw")]
    pub(super) binary: Binary,

    /// Ping the server when it was silent for this long, and give it up at twice as much.
    #[arg(long, value_name = "SECONDS", value_parser = seconds(), requires = "raw")]
    pub(super) ping: Option<Duration>,

    /// The file with a token (JWT) that says who you are. It is read for each connection, and when
    /// the token is about to end. Without it, the variable RUSTY_SOCKS_TOKEN may have a token.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,

    /// A header of the upgrade, such as 'Authorization: Bearer …'. May be given several times.
    #[arg(short = 'H', long, value_name = "NAME: VALUE", value_parser = header)]
    header: Vec<(String, String)>,

    #[command(flatten)]
    tls: TlsArgs,

    /// A subprotocol to offer. May be given several times.
    #[arg(long, value_name = "NAME")]
    subprotocol: Vec<String>,

    /// How long an attempt to connect may take, waiting in the server's line included; and for how
    /// long to ask a server again that is busy.
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = seconds())]
    pub(super) timeout: Duration,

    /// End with the first connection, or with the first refusal.
    #[arg(long)]
    pub(super) no_reconnect: bool,
}

/// The variable that may have a token.
const TOKEN_VARIABLE: &str = "RUSTY_SOCKS_TOKEN";

/// Gets a token.
pub(super) type TokenSource = dyn Fn() -> Result<String, String> + Send + Sync;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Color {
    Auto,
    Always,
    Never,
}

/// What becomes of a binary message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Binary {
    /// A line of hexadecimal digits.
    Hex,
    /// As it is, to standard output.
    Raw,
}

impl ConnectArgs {
    /// Settings of each connection.
    pub(super) fn client(&self) -> ClientBuilder {
        let builder = Client::builder().connect_timeout(self.timeout);
        let mut builder = builder.tls(self.tls.options());
        for (name, value) in &self.header {
            builder = builder.header(name, value);
        }
        for name in &self.subprotocol {
            builder = builder.subprotocol(name);
        }
        builder
    }

    /// Where the token of each connection comes from, if one was given.
    pub(super) fn token(&self) -> Option<Box<TokenSource>> {
        if let Some(path) = self.token_file.clone() {
            return Some(Box::new(move || {
                let token = fs::read_to_string(&path);
                token.map_err(|error| format!("cannot read {}: {error}", path.display()))
            }));
        }
        let token = env::var(TOKEN_VARIABLE).ok().filter(|token| !token.trim().is_empty())?;
        Some(Box::new(move || Ok(token.clone())))
    }

    /// How things are shown.
    pub(super) fn renderer(&self) -> Renderer {
        let is_coloured = match self.color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => {
                let is_set = |name| env::var_os(name).is_some_and(|value| !value.is_empty());
                let is_dumb = env::var_os("TERM").is_some_and(|term| term == "dumb");
                io::stdout().is_terminal() && !is_set("NO_COLOR") && !is_dumb
            }
        };
        Renderer {
            is_coloured: is_coloured && !self.json,
            has_times: !self.no_timestamps,
            is_json: self.json,
            room: None,
        }
    }

    /// Whether anything that comes is to be shown, where the input ends by itself.
    pub(super) fn listens(&self) -> bool {
        self.wait.is_some() || self.count.is_some()
    }
}

/// A day is more than anybody waits, and less than what clocks can add.
fn seconds() -> impl TypedValueParser<Value = Duration> {
    StringValueParser::new().try_map(|text| match text.parse::<f64>() {
        Ok(number) if (0.0..=86_400.0).contains(&number) => Ok(Duration::from_secs_f64(number)),
        _ => Err("seconds, 0 to 86400, decimals allowed"),
    })
}

fn header(text: &str) -> Result<(String, String), &'static str> {
    let (name, value) = text.split_once(':').ok_or("a header is NAME: VALUE")?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}
