//! What the documents promise, held against what is built: the table of settings, the TOML example,
//! the Rust code, the names of variables and the transcripts.

#![allow(clippy::unwrap_used, reason = "a test that unwraps fails with a clear message")]

mod support;
#[path = "support/links.rs"]
mod links;
#[path = "support/stage.rs"]
mod stage;

use std::{collections::BTreeSet, io::Write, thread};

use rusty_socks::{Config, config::Key};
use rusty_socks_protocol::ErrorCode;
use stage::Stage;

/// The reference of the wire protocol.
const PROTOCOL: &str = "docs/protocol.md";
/// The reference of the settings.
const CONFIGURATION: &str = "docs/configuration.md";

/// A front page that is longer is not read.
const README_LINES_MAX: usize = 160;

fn read(path: &str) -> String {
    let path = format!("{}/{path}", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    // A checkout on Windows may end its lines in two bytes.
    text.replace("\r\n", "\n")
}

/// The code blocks of `text` that are marked with `language`.
fn blocks<'t>(text: &'t str, language: &str) -> Vec<&'t str> {
    let fence = format!("```{language}\n");
    text.split(&fence).skip(1).map(|rest| rest.split("```").next().unwrap()).collect()
}

#[test]
fn the_table_of_settings_is_that_of_the_code() {
    let text = read(CONFIGURATION);
    let rows: Vec<Vec<&str>> = text
        .lines()
        .filter(|line| line.starts_with("| `RUSTY_SOCKS_"))
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
        .collect();
    let wanted = |key: &Key| {
        let unit = match key.unit() {
            "" => String::new(),
            unit => format!(" {unit}"),
        };
        let default = format!("`{}`", key.default());
        [format!("`{}`", key.variable()), default, format!("{}{unit}", key.range())]
    };
    let (shown, wanted): (Vec<String>, Vec<String>) = (
        rows.iter().map(|cells| cells[..3].join(" | ")).collect(),
        Config::keys().iter().map(|key| wanted(key).join(" | ")).collect(),
    );
    for (shown, wanted) in shown.iter().zip(&wanted) {
        assert_eq!(
            shown, wanted,
            "a row of {CONFIGURATION} (left) is not what the code says (right)"
        );
    }
    assert_eq!(shown.len(), wanted.len(), "{CONFIGURATION} has other rows than there are keys");
    assert!(rows.iter().all(|cells| cells.len() == 4 && !cells[3].is_empty()), "no meaning");
}

#[test]
fn every_variable_that_is_named_exists() {
    let mut known: BTreeSet<String> = Config::keys().iter().map(Key::variable).collect();
    known.extend(Config::keys().iter().filter_map(Key::file_variable));
    // The one that names the file, the typing error by which the documents show an error, and the
    // one in which `connect` finds a token.
    known.extend(["CONFIG", "MAX_CON", "TOKEN"].map(|name| format!("RUSTY_SOCKS_{name}")));
    let others = ["README.md", "CONTRIBUTING.md", "Dockerfile"].map(str::to_owned);
    for path in others.into_iter().chain(links::documents("docs")) {
        let text = read(&path);
        for (at, _) in text.match_indices("RUSTY_SOCKS_") {
            let is_part = |c: char| c.is_ascii_uppercase() || c == '_';
            let name = text[at..].split(|c| !is_part(c)).next().unwrap();
            // The prefix alone stands for all of them.
            assert!(name == "RUSTY_SOCKS_" || known.contains(name), "{path} names {name}");
        }
    }
}

#[test]
fn the_toml_examples_are_configurations() {
    let texts = [CONFIGURATION, PROTOCOL, "docs/recipes/backends.md"].map(read);
    let examples = texts.iter().flat_map(|text| blocks(text, "toml"));
    // Others name files that are not here.
    let files: Vec<&str> = examples.filter(|block| !block.contains("/etc/ssl/")).collect();
    assert!(files.len() >= 4, "where are they?");
    for text in files {
        // A secret in a file that is not here.
        let text = text
            .replace("redis_url_file = \"/run/secrets/redis_url\"", "redis_url = \"redis://a\"");
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        let nothing: [(&str, &str); 0] = [];
        let loaded = Config::load_from(Some(file.path()), nothing, nothing).unwrap();
        assert_ne!(loaded.config, Config::default());
    }
}

/// The blocks of Rust are the examples of a session and of `lib.rs`, doc tests both, and one that
/// stands in this file. So all are compiled.
#[test]
fn the_rust_code_is_compiled() {
    let (clients, embedding) = (read("docs/clients.md"), read("docs/embedding.md"));
    let of_docs = |path: &str, sign: &str| -> String {
        let fence = format!("{sign} ```");
        let text = read(path);
        let inside = text.lines().skip_while(|line| !line.starts_with(&fence)).skip(1);
        let inside = inside.take_while(|line| !line.starts_with(&fence));
        inside.map(|line| format!("{}\n", line.trim_start_matches(sign))).collect()
    };
    let of_session = of_docs("crates/client/src/session.rs", "///");
    let of_lib = of_docs("src/lib.rs", "//!");
    let of_test = read("tests/readme_test.rs");
    let of_test = of_test.split("// document begins\n").nth(1).unwrap();
    let of_test = of_test.split("    // document ends").next().unwrap();
    let unindent =
        |text: &str| text.lines().map(|line| format!("{}\n", line.trim_start())).collect();
    let blocks = [blocks(&clients, "rust"), blocks(&embedding, "rust")].concat();
    let shown: Vec<String> = blocks.into_iter().map(unindent).collect();
    assert_eq!(shown, [unindent(&of_session), unindent(&of_lib), unindent(of_test)]);

    // The first page has the session again, in its own room.
    let page = read("src/bin/rusty_socks/first_page/index.html");
    let snippet =
        page.split("data-snippet=\"rust\">").nth(1).unwrap().split("</pre>").next().unwrap();
    let snippet = snippet.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&");
    let session = of_session.replace("127.0.0.1", "localhost").replace("\"tea\"", "\"try\"");
    assert!(unindent(&snippet).ends_with(&unindent(&session)), "the Rust of the first page");
}

mod snippet {
    // document begins
    use rusty_socks::{
        Config, Context, Error, Handler, MayBlock, Message, Refusal, Request, Server,
    };

    struct Lookup;

    impl Handler<MayBlock> for Lookup {
        /// Data of one connection. Its calls never overlap, so it needs no lock.
        type State = u32;

        /// Runs before the 101. A refusal is answered in plain HTTP and costs no permit.
        fn on_upgrade(&self, request: &Request<'_>) -> Result<u32, Refusal> {
            match request.header("Authorization") {
                Some(_) => Ok(0),
                None => Err(Refusal::unauthorized("who are you?")),
            }
        }

        fn on_message(&self, ctx: &mut Context<'_, u32, MayBlock>, message: Message<'_>) {
            *ctx.state() += 1;
            // Stands for a slow database: this handler is mounted with threads of its own.
            std::thread::sleep(std::time::Duration::from_millis(20));
            let answer = format!("answer {} to {:?}", ctx.state(), message.as_text());
            ctx.send(&answer);
        }
    }

    fn server(config: Config) -> Result<Server, Error> {
        // Eight threads. At most 100 messages wait for them; beyond that, the sockets are not read.
        Server::builder().config(config).route("/lookup", Lookup.blocking(8, 100)).bind()
    }
    // document ends

    #[test]
    fn it_binds() {
        let config = Config { host: "127.0.0.1".into(), port: 0, ..Config::default() };
        assert!(server(config).unwrap().local_addr().port() != 0);
    }
}

/// The transcripts of a document, each with the number of its first line.
fn transcripts(document: &str) -> Vec<(usize, &str)> {
    let fence = "```transcript\n";
    let starts = document.match_indices(fence).map(|(at, _)| at + fence.len());
    let line = |start: usize| document[..start].lines().count() + 1;
    starts.map(|at| (line(at), document[at..].split("```").next().unwrap())).collect()
}

#[test]
fn the_transcripts_of_the_protocol_are_true() {
    let document = read(PROTOCOL);
    let transcripts = transcripts(&document);
    assert!(transcripts.len() >= 20, "where are they?");
    // Each has a server of its own, and some wait; the name of a thread that panics is printed.
    let failed = thread::scope(|scope| {
        let play = |(line, transcript): &(usize, &'_ str)| {
            let name = format!("{PROTOCOL}:{line}");
            let transcript = (*transcript).to_owned();
            let run = move || stage::play(&transcript);
            thread::Builder::new().name(name).spawn_scoped(scope, run).unwrap()
        };
        let playing: Vec<_> = transcripts.iter().map(play).collect();
        playing.into_iter().map(thread::ScopedJoinHandle::join).filter(Result::is_err).count()
    });
    assert_eq!(failed, 0, "transcripts that are not true");
}

/// What no transcript shows, and the test that does.
const ELSEWHERE: [(&str, &str, &str); 11] = [
    (
        "epoch",
        "crates/client/src/conversation/answers/tests/resume.rs",
        "a_room_goes_on_where_the_server_says_and_a_loss_is_told",
    ),
    ("4009", "tests/api_test.rs", "sessions_are_listed_and_closed"),
    ("presence", "tests/presence_test.rs", "many_who_come_at_once_are_told_together"),
    (
        "gap",
        "tests/overflow_test.rs",
        "under_gap_a_slow_reader_is_told_what_to_fetch_and_never_closed",
    ),
    (
        "overloaded",
        "tests/chat_test.rs",
        "a_publish_that_finds_a_full_mailbox_is_refused_and_not_stored",
    ),
    ("1011", "tests/library_test.rs", "a_panic_closes_its_own_connection_and_no_other"),
    ("1012", "tests/restart_test.rs", "sessions_rooms_and_messages_outlive_their_server"),
    (
        "4102",
        "tests/slow_client_test.rs",
        "a_client_that_stops_reading_is_closed_with_4102_and_delays_nobody",
    ),
    ("4103", "tests/limits_test.rs", "a_user_has_so_many_connections_and_the_next_is_told_why"),
    ("1013", "tests/identity_test.rs", "an_issuer_that_is_slow_huge_wrong_or_gone_delays_nobody"),
    ("4201", "tests/websocket_test.rs", "a_client_that_answers_no_ping_is_closed_with_4201"),
];

/// What the tables of a section list whose first column is `head`: what there is, and what is
/// reserved.
fn listed(section: &str, head: &str) -> [BTreeSet<String>; 2] {
    let document = read(PROTOCOL);
    let section = document.split(&format!("\n## {section}\n")).nth(1).unwrap();
    let section = section.split("\n## ").next().unwrap();
    let mut listed = [BTreeSet::new(), BTreeSet::new()];
    let mut is_reserved = false;
    for block in section.split("\n\n") {
        is_reserved |= block.starts_with("Reserved");
        if block.trim_start().starts_with(&format!("| {head} |")) {
            let rows = block.trim().lines().skip(2).map(|row| words(row).next().unwrap());
            listed[usize::from(is_reserved)].extend(rows);
        }
    }
    listed
}

fn words(text: &str) -> impl Iterator<Item = String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| !word.is_empty()).map(str::to_owned)
}

/// The words that stand behind any of `prefixes` in `text`.
fn behind<'t>(text: &'t str, prefixes: &'t [&str]) -> impl Iterator<Item = String> + 't {
    let rests = prefixes.iter().flat_map(|prefix| text.split(prefix).skip(1));
    let word = |rest: &str| {
        rest.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next().unwrap().to_owned()
    };
    rests.map(word).filter(|word| !word.is_empty())
}

/// The code of the chat protocol, without white space and without unit tests.
fn chat_source() -> String {
    let files = [
        "answers", "command", "commands", "fault", "greeting", "message", "mod", "notices",
        "standing", "state",
    ];
    let code = files.map(|file| {
        let text = read(&format!("src/chat/{file}.rs"));
        text.split("#[cfg(test)]").next().unwrap().split_whitespace().collect::<String>()
    });
    code.concat()
}

#[test]
fn every_command_frame_error_and_close_code_is_told_and_shown() {
    let document = read(PROTOCOL);
    let played: String =
        transcripts(&document).into_iter().map(|(_, transcript)| transcript).collect();
    let source = chat_source();
    let commands = source.split("fncommand<").nth(1).unwrap().split("fnpublish<").next().unwrap();
    let quoted: Vec<&str> = commands.split('"').collect();
    let arms = quoted.windows(2).filter(|pair| pair[1].starts_with("=>"));
    let closes = read("crates/ws/src/close.rs");
    let none = BTreeSet::new();

    let [told, _] = listed("Commands", "command");
    assert_eq!(told, arms.map(|pair| pair[0].to_owned()).collect(), "commands");
    let mut unseen: BTreeSet<String> = &told - &behind(&played, &["→ {\"type\":\""]).collect();

    let [told, reserved] = listed("What the server sends", "frame");
    let written = behind(&source, &["Answer::", "protocol::Notice::", "{\\\"type\\\":\\\""]);
    let written = written.map(|name| name.to_ascii_lowercase()).collect();
    let in_one_word: BTreeSet<String> = told.iter().map(|frame| frame.replace('_', "")).collect();
    assert_eq!((&in_one_word, &reserved), (&written, &none), "frames");
    unseen.extend(&told - &behind(&played, &["← {\"type\":\""]).collect());

    let [told, reserved] = listed("Errors", "code");
    let names: BTreeSet<String> = behind(&source, &["ErrorCode::"]).collect();
    let is_used = |code: &&ErrorCode| names.contains(&format!("{code:?}"));
    let (used, unused): (Vec<_>, Vec<_>) = ErrorCode::KNOWN.iter().partition(is_used);
    let words = |codes: Vec<&ErrorCode>| codes.into_iter().map(ToString::to_string).collect();
    assert_eq!((&told, &reserved), (&words(used), &words(unused)), "error codes");
    unseen.extend(&told - &behind(&played, &["\"code\":\""]).collect());

    let [told, reserved] = listed("Close codes", "code");
    let is_code = |word: &String| word.len() == 4 && word.bytes().all(|byte| byte.is_ascii_digit());
    let named: BTreeSet<String> = behind(&closes, &[" = "]).filter(is_code).collect();
    assert_eq!(&told | &reserved, named, "close codes");
    assert!(told.is_disjoint(&reserved));
    unseen.extend(&told - &behind(&played, &["← close "]).collect());

    assert_eq!(
        unseen,
        ELSEWHERE.map(|(what, ..)| what.to_owned()).into(),
        "what no transcript shows"
    );
    for (what, file, test) in ELSEWHERE {
        let shows = format!("#[test]\nfn {test}()");
        assert!(read(file).contains(&shows), "{file} has no test of {what} named {test}");
    }
}

/// The sessions with `wscat`: each block is one terminal, and they come one after the other.
#[test]
fn the_sessions_of_the_quickstart_are_true() {
    let text = read("docs/quickstart.md");
    let mut stage = Stage::new(&[]);
    let mut frames = 0;
    for (terminal, session) in blocks(&text, "console").into_iter().enumerate() {
        let terminal = terminal.to_string();
        for line in session.lines() {
            if let Some(typed) = line.strip_prefix("> ") {
                stage.send(&terminal, typed);
            } else if let Some(told) = line.strip_prefix("< ") {
                stage.receive(&terminal, told);
            } else {
                continue;
            }
            frames += 1;
        }
    }
    assert!(frames >= 6, "where are they?");
}

#[test]
fn every_link_of_every_document_leads_somewhere() {
    let mut documents = links::documents(".");
    // Parts of a document in docs/, where their links are right.
    documents.retain(|path| !path.starts_with("benches/compare/report/"));
    assert!(documents.len() >= 25 && documents.contains("docs/recipes/moving.md"), "{documents:?}");
    let mut wrong = Vec::new();
    for document in &documents {
        let broken = links::broken(document);
        wrong.extend(broken.into_iter().map(|target| format!("{document}: {target}")));
    }
    assert!(wrong.is_empty(), "links that lead nowhere:\n  {}", wrong.join("\n  "));
}

#[test]
fn a_link_that_leads_nowhere_is_found() {
    let text = "# One `two`, three\n# A\n## A\n<a id=\"x\"></a>\n[a](#one-two-three) [b](#a-1) [c](#x)\n\
        [d](#a-2) [e](protocol.md#messages) [f](protocol.md#gone) [g](gone.md) [h](../README.md)\n\
        [i](../../x) [j](https://example.com/gone)\n```sh\n[k](gone)\n```\n[l\n](api.md#gone)\n";
    let found = links::broken_in("docs/text.md", text);
    assert_eq!(found, ["#a-2", "protocol.md#gone", "gone.md", "../../x", "api.md#gone"]);
}

#[test]
fn the_book_has_every_document_once_and_the_front_page_is_short() {
    let summary = read("docs/SUMMARY.md");
    let listed = summary.split("](").skip(1).map(|rest| rest.split(')').next().unwrap());
    let mut listed: Vec<String> = listed.map(|path| format!("docs/{path}")).collect();
    listed.push("docs/SUMMARY.md".into());
    listed.sort();
    assert_eq!(listed, links::documents("docs").into_iter().collect::<Vec<_>>());
    let lines = read("README.md").lines().count();
    assert!(
        lines <= README_LINES_MAX,
        "README.md has {lines} lines: what of it is for a document?"
    );
}
