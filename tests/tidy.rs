//! The rules of the house that no compiler keeps: who may import whom, and what is never left behind.
//!
//! Each test lists every violation, not the first. A rule that hurts is changed here and in
//! `ARCHITECTURE.md`, in the same commit as the code that needs it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// The rooms of the house, upper floors first. A file imports from its own room and from those below it.
///
/// `metrics` counts closes by their code and so stands on `ws`; `ws` reads the upgrade from a request
/// head and answers with a status, and so stands on `http`.
const LAYERS: [&str; 16] = [
    "bin", "lib", "fuzzing", "replay", "client", "chat", "server", "pool", "handler", "hub",
    "store", "metrics", "ws", "http", "config", "error",
];

/// Rooms that are written against the public face alone, so that whatever they do an embedder can do too.
const OUTSIDERS: [&str; 2] = ["client", "chat"];

/// Rooms in which no two files need each other.
const WITHOUT_CIRCLES: [&str; 4] = ["chat", "handler", "hub", "store"];

/// A file above this is asking to be two. Unit tests do not count.
const LINES_MAX: usize = 500;

struct SourceFile {
    /// From the root of the repository, with `/` between the parts on every system.
    path: String,
    text: String,
}

impl SourceFile {
    /// The lines before the unit tests, with their numbers.
    fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        let until_tests = self.text.lines().take_while(|line| *line != "#[cfg(test)]");
        until_tests.enumerate().map(|(index, line)| (index + 1, line))
    }

    /// Those lines without comments.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let without = |(number, line): (usize, _)| (number, without_comment(line));
        self.lines().map(without)
    }

    /// The room of the house this file is in, for a file of the library.
    fn room(&self) -> Option<&str> {
        let inside = self.path.strip_prefix("src/")?;
        match inside.split_once('/') {
            Some((room, _)) => Some(room),
            None => inside.strip_suffix(".rs"),
        }
    }
}

/// `line` up to a `//` that is not inside a string.
fn without_comment(line: &str) -> &str {
    let mut in_string = false;
    let mut escaped = false;
    for (at, c) in line.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if in_string => escaped = true,
            '"' => in_string = !in_string,
            '/' if !in_string && line[at..].starts_with("//") => return &line[..at],
            _ => {}
        }
    }
    line
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    // A checkout on Windows may end its lines in two bytes.
    fs::read_to_string(root().join(path)).expect(path).replace("\r\n", "\n")
}

/// Every file below `dirs` whose name ends in one of `extensions`.
fn files(dirs: &[&str], extensions: &[&str]) -> Vec<SourceFile> {
    let mut paths = Vec::new();
    for dir in dirs {
        collect(&root().join(dir), extensions, &mut paths);
    }
    paths.sort();
    let file = |path: PathBuf| {
        let relative = path.strip_prefix(root()).expect("below the root");
        let parts: Vec<_> = relative.iter().map(|part| part.to_string_lossy()).collect();
        let path = parts.join("/");
        SourceFile { text: read(&path), path }
    };
    paths.into_iter().map(file).collect()
}

fn collect(path: &Path, extensions: &[&str], found: &mut Vec<PathBuf>) {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    if path.is_file() {
        if extensions.iter().any(|extension| name.ends_with(extension)) {
            found.push(path.to_owned());
        }
    } else if !["target", ".git", "node_modules", "__pycache__"].contains(&name.as_ref()) {
        for entry in fs::read_dir(path).into_iter().flatten() {
            collect(&entry.expect("a readable directory").path(), extensions, found);
        }
    }
}

fn sources() -> Vec<SourceFile> {
    files(&["src"], &[".rs"])
}

/// The sources of the server and of the crates beside it.
fn all_sources() -> Vec<SourceFile> {
    let mut all = sources();
    all.extend(files(&["crates"], &[".rs"]).into_iter().filter(|file| file.path.contains("/src/")));
    all
}

/// Fails with all of `violations`, one a line.
fn none(rule: &str, violations: &[String]) {
    assert!(violations.is_empty(), "{rule}:\n  {}", violations.join("\n  "));
}

/// The first names behind `crate::` and, where it leads to the crate's root, behind `super::`.
fn imports(file: &SourceFile) -> BTreeSet<String> {
    let code: String = file.code().flat_map(|(_, line)| [line, "\n"]).collect();
    let inside = file.path.strip_prefix("src/").unwrap_or(&file.path);
    let is_top =
        !inside.contains('/') || inside.matches('/').count() == 1 && inside.ends_with("/mod.rs");
    let to_root = if is_top { "super::" } else { "super::super::" };
    let mut names = BTreeSet::new();
    for prefix in ["crate::", to_root] {
        for (at, _) in code.match_indices(prefix) {
            let before = code[..at].chars().next_back();
            if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':') {
                continue;
            }
            // An inline module names what is around it with `super::` too; those are types.
            let from_root =
                |name: &String| prefix == "crate::" || name.starts_with(char::is_lowercase);
            names.extend(first_names(&code[at + prefix.len()..]).into_iter().filter(from_root));
        }
    }
    names
}

/// `a` of `a::b`, or `a` and `c` of `{a::b, c::{d, e}}`.
fn first_names(tree: &str) -> Vec<String> {
    let name = |text: &str| {
        text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
    };
    let Some(list) = tree.strip_prefix('{') else { return vec![name(tree)] };
    let mut names = Vec::new();
    let mut depth = 0;
    let mut item_begins = 0;
    for (at, c) in list.char_indices() {
        match c {
            '{' => depth += 1,
            '}' | ',' if depth == 0 => {
                names.push(name(&list[item_begins..at]));
                item_begins = at + 1;
                if c == '}' {
                    break;
                }
            }
            '}' => depth -= 1,
            _ => {}
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

/// The names that are modules of the library, and whether each is public.
fn modules() -> Vec<(String, bool)> {
    let lib = read("src/lib.rs");
    let module = |line: &str| {
        let (is_public, rest) = match line.strip_prefix("pub ") {
            Some(rest) => (true, rest),
            None => (false, line),
        };
        let name = rest.strip_prefix("mod ")?.strip_suffix(';')?;
        Some((name.to_owned(), is_public))
    };
    lib.lines().filter_map(module).collect()
}

#[test]
fn imports_point_downward() {
    let floor = |room: &str| LAYERS.iter().position(|layer| *layer == room);
    let mut violations = Vec::new();
    for file in sources().iter().filter(|file| file.path != "src/lib.rs") {
        let Some(room) = file.room().filter(|room| *room != "bin") else { continue };
        let Some(own) = floor(room) else {
            violations.push(format!("{}: the room '{room}' has no floor in LAYERS", file.path));
            continue;
        };
        for name in imports(file) {
            let is_type = name.starts_with(char::is_uppercase);
            match floor(&name) {
                Some(floor) if floor < own => {
                    violations.push(format!("{}: imports {name}, which is above it", file.path));
                }
                None if is_type && !OUTSIDERS.contains(&room) => {
                    let path = &file.path;
                    violations.push(format!("{path}: imports {name} from lib, which is above it"));
                }
                _ => {}
            }
        }
    }
    none("a file imports only from its own floor and from below", &violations);
}

#[test]
fn the_chat_protocol_and_the_client_use_the_public_face_alone() {
    let modules = modules();
    let mut violations = Vec::new();
    for file in sources() {
        let Some(room) = file.room().filter(|room| OUTSIDERS.contains(room)) else { continue };
        for name in imports(&file) {
            let is_internal =
                modules.iter().any(|(module, is_public)| *module == name && !is_public);
            if is_internal && name != room {
                violations.push(format!("{}: imports the internal module {name}", file.path));
            }
        }
    }
    none("what an embedder cannot import, these files do not import", &violations);
}

#[test]
fn every_module_has_its_floor() {
    let missing: Vec<String> = modules()
        .into_iter()
        .map(|(name, _)| name)
        .filter(|name| !LAYERS.contains(&name.as_str()))
        .collect();
    none("a module of lib.rs stands in LAYERS", &missing);
}

#[test]
fn the_map_shows_the_floors_as_they_are() {
    let map = read("ARCHITECTURE.md");
    let rows: Vec<&str> = map
        .lines()
        .skip_while(|line| !line.starts_with("| floor |"))
        .skip(2)
        .map_while(|line| line.strip_prefix("| `")?.split('`').next())
        .collect();
    assert_eq!(rows, LAYERS, "the layer table of ARCHITECTURE.md, top to bottom");
}

#[test]
fn the_map_names_every_file() {
    let map = read("ARCHITECTURE.md");
    let is_named = |file: &SourceFile| {
        let mut parts = file.path.rsplit('/');
        let name = parts.next().unwrap_or_default();
        let parent = parts.next().unwrap_or_default();
        match name {
            "mod.rs" => map.contains(&format!("{parent}/")),
            name => map.contains(name),
        }
    };
    // What the binary is made of is named by its subcommands, not file by file.
    let library = sources().into_iter().filter(|file| file.room() != Some("bin"));
    let missing: Vec<String> =
        library.filter(|file| !is_named(file)).map(|file| file.path).collect();
    none("ARCHITECTURE.md says what each file of the library is for", &missing);
}

/// The modules of the library that a file imports from, by the names of their files.
fn imported_files(file: &SourceFile, modules: &BTreeSet<String>) -> BTreeSet<String> {
    let own = module_of(file);
    let parent = own.rsplit_once("::").map_or("", |(parent, _)| parent);
    let code: String = file.code().flat_map(|(_, line)| [line, "\n"]).collect();
    let mut paths = Vec::new();
    for (at, _) in code.match_indices("use ") {
        let begins = code[..at].rsplit('\n').next().unwrap_or_default().trim();
        let is_statement = begins.is_empty() || begins.starts_with("pub");
        if let (true, Some(end)) = (is_statement, code[at..].find(';')) {
            expand("", &code[at + "use ".len()..at + end], &mut paths);
        }
    }
    let absolute = |path: &String| match path.strip_prefix("super::") {
        Some(rest) => format!("{parent}::{rest}"),
        None => match path.strip_prefix("crate::") {
            Some(rest) => rest.to_owned(),
            None => format!("{own}::{path}"),
        },
    };
    let module = |path: String| {
        let ends = path.match_indices("::").map(|(end, _)| end).chain([path.len()]);
        ends.map(|end| &path[..end])
            .filter(|name| modules.contains(*name))
            .last()
            .map(str::to_owned)
    };
    paths.iter().map(absolute).filter_map(module).filter(|module| *module != own).collect()
}

/// `a::b` and `a::c` of `a::{b, c}`.
fn expand(before: &str, tree: &str, paths: &mut Vec<String>) {
    let tree = tree.trim();
    let list = tree.strip_suffix('}').and_then(|tree| tree.split_once('{'));
    let Some((head, list)) = list else {
        if !tree.is_empty() {
            paths.push(format!("{before}{tree}"));
        }
        return;
    };
    let before = format!("{before}{}", head.trim());
    let (mut depth, mut begins) = (0, 0);
    for (at, c) in list.char_indices().chain([(list.len(), ',')]) {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                expand(&before, &list[begins..at], paths);
                begins = at + 1;
            }
            _ => {}
        }
    }
}

/// `hub::rooms` of `src/hub/rooms.rs`.
fn module_of(file: &SourceFile) -> String {
    let inside = file.path.strip_prefix("src/").unwrap_or(&file.path);
    let inside = inside.strip_suffix(".rs").unwrap_or(inside);
    inside.strip_suffix("/mod").unwrap_or(inside).replace('/', "::")
}

#[test]
fn no_files_of_a_room_need_each_other() {
    let files: Vec<SourceFile> = sources()
        .into_iter()
        .filter(|file| file.room().is_some_and(|room| WITHOUT_CIRCLES.contains(&room)))
        .collect();
    let modules: BTreeSet<String> = files.iter().map(module_of).collect();
    let mut needs: BTreeMap<String, BTreeSet<String>> =
        files.iter().map(|file| (module_of(file), imported_files(file, &modules))).collect();
    // Files that need none of the others go, until none goes any more.
    while let Some(free) = needs.iter().find(|(_, of)| of.is_empty()).map(|(name, _)| name.clone())
    {
        needs.remove(&free);
        for of in needs.values_mut() {
            of.remove(&free);
        }
    }
    let circle: Vec<String> =
        needs.iter().map(|(name, of)| format!("{name} needs {of:?}")).collect();
    none("what two files need of each other is a third file with a noun for a name", &circle);
}

#[test]
fn no_source_file_is_too_long() {
    let too_long: Vec<String> = all_sources()
        .iter()
        .map(|file| (&file.path, file.lines().count()))
        .filter(|(_, lines)| *lines > LINES_MAX)
        .map(|(path, lines)| format!("{path}: {lines} lines before its tests"))
        .collect();
    none(&format!("a file has at most {LINES_MAX} lines before its tests"), &too_long);
}

#[test]
fn every_module_says_what_it_is_for() {
    let silent: Vec<String> = files(&["src", "crates", "tests", "examples"], &[".rs"])
        .into_iter()
        .filter(|file| !file.text.starts_with("//! "))
        .map(|file| file.path)
        .collect();
    none("a file begins with a //! sentence", &silent);
}

/// Lines of code, tests left out, that hold one of `words`.
fn lines_with(files: &[SourceFile], words: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for file in files {
        for (number, line) in file.code() {
            for word in words.iter().filter(|word| line.contains(**word)) {
                found.push(format!("{}:{number}: {word}", file.path));
            }
        }
    }
    found
}

#[test]
fn nothing_unfinished_is_left_behind() {
    let words = ["dbg!(", "todo!(", "unimplemented!("];
    let files: Vec<SourceFile> = files(&["src", "crates", "tests", "examples"], &[".rs"])
        .into_iter()
        .filter(|file| file.path != "tests/tidy.rs")
        .collect();
    none("finish it or say so in an issue", &lines_with(&files, &words));
}

#[test]
fn nothing_outside_tests_unwraps() {
    none(
        "give an error, or expect() with the reason why it holds",
        &lines_with(&all_sources(), &[".unwrap()"]),
    );
}

#[test]
fn nobody_sleeps() {
    let mut violations = Vec::new();
    for file in files(&["src", "crates", "tests", "examples"], &[".rs"]) {
        let is_library = file.path.contains("src/");
        let mut above = "";
        // Unit tests are no exception, so all lines count; this file only names what it forbids.
        for (index, line) in file.text.lines().enumerate() {
            let code = without_comment(line);
            let sleeps = code.contains("thread::sleep") || code.contains("sleep_ms(");
            // A test may play a slow peer, and says so in the line above. The server never sleeps.
            let has_reason = !is_library && above.trim_start().starts_with("//");
            if sleeps && !has_reason && file.path != "tests/tidy.rs" {
                violations.push(format!("{}:{}", file.path, index + 1));
            }
            above = line;
        }
    }
    none("wait for a condition with a deadline, never for a while", &violations);
}

#[test]
fn no_file_names_somebodys_home() {
    let homes = ["/home/", "/Users/", "/root/", "C:\\Users"];
    let mut violations = Vec::new();
    for file in files(&["."], &[".rs", ".md", ".toml", ".sh", ".py", ".js", ".mjs", ".yml"]) {
        let mut lines = file.text.lines().enumerate();
        if let Some((index, _)) =
            lines.find(|(_, line)| homes.iter().any(|home| line.contains(home)))
            && file.path != "tests/tidy.rs"
        {
            violations.push(format!("{}:{}", file.path, index + 1));
        }
    }
    none("a path of one machine means nothing on another", &violations);
}

#[test]
fn the_reader_of_imports_reads_trees() {
    assert_eq!(first_names("pool::worker::Worker;"), ["pool"]);
    assert_eq!(
        first_names(
            "{\n    config::Config,\n    hub::{Hub, mailbox::{Mailboxes, Letter}},\n    Error,\n};"
        ),
        ["config", "hub", "Error"]
    );
    assert_eq!(without_comment("let url = \"http://x\"; // why"), "let url = \"http://x\"; ");
    let file = |path: &str, text: &str| SourceFile { path: path.into(), text: text.into() };
    let top = file(
        "src/hub/mod.rs",
        "use super::pool::X;\n// crate::server\n#[cfg(test)]\nuse crate::chat;",
    );
    assert_eq!(imports(&top), ["pool".to_owned()].into());
    let deep = file("src/hub/rooms.rs", "use super::Hub;\nuse super::super::pool;");
    assert_eq!(imports(&deep), ["pool".to_owned()].into());
    assert_eq!(deep.room(), Some("hub"));
    let uses = "use super::{\n    Hub,\n    mailbox::{Deferred, Letter},\n    rooms::Room,\n};\nuse crate::hub::names::{self};";
    let modules = ["hub", "hub::mailbox", "hub::rooms", "hub::names"].map(str::to_owned).into();
    let needed = imported_files(&file("src/hub/publish.rs", uses), &modules);
    assert_eq!(needed, modules);
    assert_eq!(file("src/error.rs", "").room(), Some("error"));
}
