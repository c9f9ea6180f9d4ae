//! The rules of the house that no compiler keeps: who may import whom, and what is never left
//! behind.
//!
//! Each test lists every violation, not the first. A rule that hurts is changed here and in
//! `ARCHITECTURE.md`, in the same commit as the code that needs it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use syn::{
    Attribute, Item, ItemMod, ItemUse, UseName, UseRename, UseTree,
    visit::{self, Visit},
};

/// The layers, upper ones first. A file imports from its own layer and from those below it.
///
/// The crates below the server, such as `rusty_socks_ws`, are everybody's.
const LAYERS: [&str; 19] = [
    "bin", "lib", "chat", "server", "pool", "engine", "handler", "hub", "limits", "store",
    "memory", "http", "identity", "metrics", "tls", "snapshot", "config", "error", "clock",
];

/// Layers that are written against the public face alone, so that whatever they do an embedder can
/// do too.
const OUTSIDERS: [&str; 1] = ["chat"];

/// A file above this is asking to be two. Unit tests do not count.
const LINES_MAX: usize = 500;

struct SourceFile {
    /// From the root of the repository, with `/` between the parts on every system.
    path: String,
    text: String,
}

impl SourceFile {
    /// Whether all of it is unit tests, those of a file that would be too long with them.
    fn has_tests_alone(&self) -> bool {
        self.tested().is_some()
    }

    /// The path, without its ending, of the file whose tests these are: `tests.rs` below it, or one
    /// of several files in `tests/`.
    fn tested(&self) -> Option<&str> {
        let inside = self.path.find("src/")?;
        let end = self.path[inside..].find("/tests/").map(|at| inside + at);
        end.map(|end| &self.path[..end]).or_else(|| self.path.strip_suffix("/tests.rs"))
    }

    /// The lines before the unit tests, with their numbers.
    fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        let is_tests = self.has_tests_alone();
        let until_tests =
            self.text.lines().take_while(move |line| !is_tests && *line != "#[cfg(test)]");
        until_tests.enumerate().map(|(index, line)| (index + 1, line))
    }

    /// Those lines without comments.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let without = |(number, line): (usize, _)| (number, without_comment(line));
        self.lines().map(without)
    }

    /// Its module, from the root of its crate.
    fn module(&self) -> Vec<String> {
        let inside = self.path.split_once("src/").map_or(self.path.as_str(), |(_, inside)| inside);
        let inside = inside.strip_prefix("bin/rusty_socks/").unwrap_or(inside);
        let name = inside.strip_suffix(".rs").unwrap_or(inside);
        let mut parts: Vec<String> = name.split('/').map(str::to_owned).collect();
        if parts.last().is_some_and(|last| ["mod", "lib", "main"].contains(&last.as_str())) {
            parts.pop();
        }
        parts
    }

    /// The layer this file is in, for a file of the library.
    fn layer(&self) -> Option<&str> {
        let inside = self.path.strip_prefix("src/")?;
        match inside.split_once('/') {
            Some((layer, _)) => Some(layer),
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

/// What the code of a file names of its own crate, tests left out: paths of modules and of what is
/// in them, from the root of the crate.
fn references(file: &SourceFile) -> BTreeSet<Vec<String>> {
    let parsed = syn::parse_file(&file.text).unwrap_or_else(|error| {
        panic!("{}: {error}", file.path);
    });
    let children = parsed.items.iter().filter_map(|item| match item {
        Item::Mod(module) => Some(module.ident.to_string()),
        _ => None,
    });
    let mut reader =
        Reader { module: file.module(), children: children.collect(), found: BTreeSet::new() };
    reader.visit_file(&parsed);
    reader.found
}

struct Reader {
    /// The module that is being read.
    module: Vec<String>,
    /// The modules that its file declares.
    children: BTreeSet<String>,
    found: BTreeSet<Vec<String>>,
}

impl Reader {
    /// Notes a path if it leads into this crate.
    fn note(&mut self, path: &[String]) {
        let mut from_root = match path.first().map(String::as_str) {
            Some("crate") => Vec::new(),
            Some("self" | "super") => self.module.clone(),
            Some(name) if self.children.contains(name) => self.module.clone(),
            _ => return,
        };
        for name in path {
            match name.as_str() {
                "crate" | "self" => {}
                "super" => drop(from_root.pop()),
                name => from_root.push(name.to_owned()),
            }
        }
        self.found.insert(from_root);
    }

    fn note_tree(&mut self, before: &mut Vec<String>, tree: &UseTree) {
        match tree {
            UseTree::Path(path) => {
                before.push(path.ident.to_string());
                self.note_tree(before, &path.tree);
                before.pop();
            }
            UseTree::Group(group) => {
                group.items.iter().for_each(|tree| self.note_tree(before, tree));
            }
            UseTree::Name(UseName { ident, .. }) | UseTree::Rename(UseRename { ident, .. }) => {
                before.push(ident.to_string());
                self.note(before);
                before.pop();
            }
            UseTree::Glob(_) => self.note(before),
        }
    }
}

fn is_for_tests(attributes: &[Attribute]) -> bool {
    let is_cfg = |attribute: &&Attribute| attribute.path().is_ident("cfg");
    attributes
        .iter()
        .filter(is_cfg)
        .any(|cfg| cfg.parse_args::<syn::Path>().is_ok_and(|path| path.is_ident("test")))
}

impl<'a> Visit<'a> for Reader {
    fn visit_item_use(&mut self, item: &'a ItemUse) {
        if !is_for_tests(&item.attrs) {
            self.note_tree(&mut Vec::new(), &item.tree);
        }
    }

    fn visit_item_mod(&mut self, item: &'a ItemMod) {
        if !is_for_tests(&item.attrs) {
            self.module.push(item.ident.to_string());
            visit::visit_item_mod(self, item);
            self.module.pop();
        }
    }

    // `pub(super)` imports nothing.
    fn visit_vis_restricted(&mut self, _: &'a syn::VisRestricted) {}

    fn visit_path(&mut self, path: &'a syn::Path) {
        let names: Vec<String> =
            path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        // One name alone may be that of a variable.
        if names.len() > 1 {
            self.note(&names);
        }
        visit::visit_path(self, path);
    }
}

/// The layers that a file imports from; a name that begins with a capital is one of `lib`.
fn imports(file: &SourceFile) -> BTreeSet<String> {
    references(file).into_iter().filter_map(|path| path.into_iter().next()).collect()
}

/// Which files import which, of one crate. Its root re-exports what is everybody's, and does not
/// count.
fn imported_files(files: &[SourceFile]) -> Vec<BTreeSet<usize>> {
    let by_module: BTreeMap<Vec<String>, usize> =
        files.iter().enumerate().map(|(index, file)| (file.module(), index)).collect();
    let imports = |(index, file): (usize, &SourceFile)| {
        let file_of = |path: Vec<String>| {
            let file = (1..=path.len()).rev().find_map(|len| by_module.get(&path[..len]));
            file.copied().filter(|other| *other != index)
        };
        references(file).into_iter().filter_map(file_of).collect()
    };
    files.iter().enumerate().map(imports).collect()
}

/// The files that can be reached from a file by imports.
fn reached(from: usize, imports: &[BTreeSet<usize>]) -> BTreeSet<usize> {
    let (mut found, mut ahead) = (BTreeSet::new(), vec![from]);
    while let Some(file) = ahead.pop() {
        ahead.extend(imports[file].iter().filter(|next| found.insert(**next)));
    }
    found
}

#[test]
fn no_files_import_each_other_in_a_circle() {
    let mut violations = Vec::new();
    for root in crate_roots() {
        // What is declared for tests alone is no part of the product.
        let all = files(&[&root], &[".rs"]);
        let for_tests = modules_for_tests(&all);
        let files: Vec<SourceFile> = all
            .into_iter()
            .filter(|file| !file.module().is_empty())
            .filter(|file| root != "src" || file.layer() != Some("bin"))
            .filter(|file| !for_tests.iter().any(|module| file.module().starts_with(module)))
            .collect();
        let imports = imported_files(&files);
        let reached: Vec<_> = (0..files.len()).map(|file| reached(file, &imports)).collect();
        let mut told = BTreeSet::new();
        for file in 0..files.len() {
            if reached[file].contains(&file) && !told.contains(&file) {
                let circle: Vec<usize> = reached[file]
                    .iter()
                    .copied()
                    .filter(|other| reached[*other].contains(&file))
                    .collect();
                let arrows = circle.iter().flat_map(|from| {
                    let to = imports[*from].iter().filter(|to| circle.contains(to));
                    to.map(|to| format!("\n    {} -> {}", files[*from].path, files[*to].path))
                });
                violations.push(format!("{} files{}", circle.len(), arrows.collect::<String>()));
                told.extend(circle);
            }
        }
    }
    none("what two files need of each other is a third file", &violations);
}

/// The source folder of every crate of the workspace; the program counts as one.
fn crate_roots() -> Vec<String> {
    let crates = fs::read_dir(root().join("crates")).into_iter().flatten();
    let crates = crates.map(|entry| {
        format!("crates/{}/src", entry.expect("a directory").file_name().to_string_lossy())
    });
    ["src".to_owned(), "src/bin/rusty_socks".to_owned()].into_iter().chain(crates).collect()
}

/// The modules that are declared with `#[cfg(test)]` in files of their own.
fn modules_for_tests(files: &[SourceFile]) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    for file in files {
        for item in syn::parse_file(&file.text).expect("it is Rust").items {
            if let Item::Mod(module) = item
                && module.content.is_none()
                && is_for_tests(&module.attrs)
            {
                let mut path = file.module();
                path.push(module.ident.to_string());
                found.push(path);
            }
        }
    }
    found
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
    let depth = |name: &str| LAYERS.iter().position(|layer| *layer == name);
    let mut violations = Vec::new();
    for file in sources().iter().filter(|file| file.path != "src/lib.rs") {
        let Some(layer) = file.layer().filter(|layer| *layer != "bin") else { continue };
        let Some(own) = depth(layer) else {
            violations.push(format!("{}: the layer '{layer}' is not in LAYERS", file.path));
            continue;
        };
        for name in imports(file) {
            let is_type = name.starts_with(char::is_uppercase);
            match depth(&name) {
                Some(depth) if depth < own => {
                    violations.push(format!("{}: imports {name}, which is above it", file.path));
                }
                None if is_type && !OUTSIDERS.contains(&layer) => {
                    let path = &file.path;
                    violations.push(format!("{path}: imports {name} from lib, which is above it"));
                }
                _ => {}
            }
        }
    }
    none("a file imports only from its own layer and from below", &violations);
}

#[test]
fn the_chat_protocol_and_the_client_use_the_public_face_alone() {
    let modules = modules();
    let mut violations = Vec::new();
    for file in sources() {
        let Some(layer) = file.layer().filter(|layer| OUTSIDERS.contains(layer)) else { continue };
        for name in imports(&file) {
            let is_internal =
                modules.iter().any(|(module, is_public)| *module == name && !is_public);
            if is_internal && name != layer {
                violations.push(format!("{}: imports the internal module {name}", file.path));
            }
        }
    }
    none("what an embedder cannot import, these files do not import", &violations);
}

#[test]
fn every_module_has_its_layer() {
    let missing: Vec<String> = modules()
        .into_iter()
        .map(|(name, _)| name)
        .filter(|name| !LAYERS.contains(&name.as_str()))
        .collect();
    none("a module of lib.rs stands in LAYERS", &missing);
}

#[test]
fn the_map_shows_the_layers_as_they_are() {
    let map = read("ARCHITECTURE.md");
    let rows: Vec<&str> = map
        .lines()
        .skip_while(|line| !line.starts_with("| layer |"))
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
    let library = sources().into_iter().filter(|file| file.layer() != Some("bin"));
    let missing: Vec<String> =
        library.filter(|file| !is_named(file)).map(|file| file.path).collect();
    none("ARCHITECTURE.md says what each file of the library is for", &missing);
}

/// A bound is found by its name, so a name in the map that is in no file misleads.
#[test]
fn the_constants_of_the_map_exist() {
    let map = read("ARCHITECTURE.md");
    let is_constant = |word: &&str| {
        word.contains('_')
            && word.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_')
            // Variables of other programs.
            && !["NOTIFY_SOCKET", "WATCHDOG_USEC", "LISTEN_FDS", "LISTEN_PID"].contains(word)
            && !word.starts_with("RUSTY_SOCKS_")
    };
    let all: Vec<SourceFile> = all_sources();
    let is_there =
        |name: &str| all.iter().any(|file| file.text.contains(&format!("const {name}:")));
    let named = map.split('`').skip(1).step_by(2).filter(is_constant);
    let missing: Vec<String> = named.filter(|name| !is_there(name)).map(str::to_owned).collect();
    none("ARCHITECTURE.md names constants that exist", &missing);
}

/// A list, not code: one field a setting, each with what it means. One struct has one file.
const SETTINGS: &str = "src/config/settings.rs";

/// Otherwise a file with this name would be free of the rules.
#[test]
fn a_file_of_tests_is_compiled_for_tests_alone() {
    let all = all_sources();
    let is_declared = |file: &SourceFile| {
        let above = file.tested().unwrap_or_default();
        let parents = [format!("{above}/mod.rs"), format!("{above}.rs")];
        let mut parent = all.iter().filter(|file| parents.contains(&file.path));
        parent.any(|file| file.text.contains("#[cfg(test)]\nmod tests;"))
    };
    let files = all.iter().filter(|file| file.has_tests_alone());
    let free: Vec<_> =
        files.filter(|file| !is_declared(file)).map(|file| file.path.clone()).collect();
    none("tests.rs is declared with #[cfg(test)]", &free);
}

#[test]
fn no_source_file_is_too_long() {
    let too_long: Vec<String> = all_sources()
        .iter()
        .filter(|file| file.path != SETTINGS)
        .map(|file| (&file.path, file.lines().count()))
        .filter(|(_, lines)| *lines > LINES_MAX)
        .map(|(path, lines)| format!("{path}: {lines} lines before its tests"))
        .collect();
    none(&format!("a file has at most {LINES_MAX} lines before its tests"), &too_long);
}

/// The most packages that an embedder compiles who wants no feature, this one included.
const PACKAGES_MAX: usize = 65;

/// Counts the packages of the library with one feature, or none if it is empty.
fn packages(feature: &str) -> usize {
    // The same on every system on which the tests run.
    let target = ["--target", "x86_64-unknown-linux-gnu"];
    let of = ["--package", "rusty_socks_server", "--no-default-features", "--features", feature];
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--locked", "--edges", "normal", "--prefix", "none"])
        .args(target)
        .args(of)
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let tree = String::from_utf8(output.stdout).expect("text");
    // A package that was shown before has `(*)` behind it.
    let packages: BTreeSet<&str> = tree.lines().map(|line| line.trim_end_matches(" (*)")).collect();
    packages.len()
}

#[test]
fn an_embedder_compiles_what_the_documents_say() {
    let document = read("docs/embedding.md");
    let table =
        document.lines().skip_while(|line| !line.starts_with("| feature | what it brings |"));
    let rows: BTreeMap<&str, &str> = table
        .skip(2)
        .map_while(|row| row.strip_prefix("| ")?.strip_suffix(" |")?.split_once(" | "))
        .map(|(feature, row)| (feature, row.rsplit(" | ").next().unwrap_or_default()))
        .collect();
    let manifest = read("Cargo.toml");
    let features = manifest.lines().skip_while(|line| *line != "[features]").skip(1);
    let features = features
        .take_while(|line| !line.starts_with('['))
        .filter_map(|line| line.split_once(" = ["))
        .map(|(name, _)| name);
    let mut wrong = Vec::new();
    for feature in features {
        let (feature, name) = match feature {
            "default" => ("", "none".to_owned()),
            "cli" => ("cli", "`cli`, the default".to_owned()),
            feature => (feature, format!("`{feature}`")),
        };
        let (counted, told) = (packages(feature), rows.get(name.as_str()));
        if told != Some(&counted.to_string().as_str()) {
            wrong.push(format!("{name}: {counted} packages, not {told:?}"));
        }
        if feature.is_empty() && counted > PACKAGES_MAX {
            wrong.push(format!("{name}: {counted} packages, more than {PACKAGES_MAX}"));
        }
    }
    none("docs/embedding.md has each feature, and the packages that it brings", &wrong);
}

/// Columns of a line of prose: of comments, and of paragraphs of Markdown.
const COLUMNS_MAX: usize = 100;

/// The numbers of the lines of prose in a Markdown `text`: neither in a fence nor of a table.
fn prose_of_markdown(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut in_fence = false;
    text.lines().enumerate().filter_map(move |(index, line)| {
        let start = line.trim_start();
        let is_fence = start.starts_with("```");
        in_fence ^= is_fence;
        let is_prose = !in_fence && !is_fence && !start.starts_with(['|', '#', '<', '[', '!']);
        is_prose.then_some((index + 1, line))
    })
}

#[test]
fn prose_is_wrapped() {
    let mut violations = Vec::new();
    for file in files(&["."], &[".rs", ".md"]) {
        let is_markdown = file.path.ends_with(".md");
        let comments = || file.text.lines().enumerate().map(|(index, line)| (index + 1, line));
        let prose: Vec<(usize, &str)> = match is_markdown {
            true => prose_of_markdown(&file.text).collect(),
            false => comments().filter(|(_, line)| line.trim_start().starts_with("//")).collect(),
        };
        for (number, line) in prose {
            // What has no space to break it at, such as a link, may be as long as it is.
            let breaks = line.trim_start().trim_start_matches(['/', '!', '-', ' ']).contains(' ');
            if line.chars().count() > COLUMNS_MAX && breaks {
                violations.push(format!("{}:{number}", file.path));
            }
        }
    }
    none(&format!("comments and paragraphs have at most {COLUMNS_MAX} columns"), &violations);
}

/// A bug that cannot be planted any more is found by nobody.
#[test]
fn planted_bugs_fit_the_sources() {
    let mut violations = Vec::new();
    for patch in files(&["crates/testing/planted"], &["patch"]) {
        let mut of = None;
        for line in patch.text.lines() {
            if let Some(path) = line.strip_prefix("+++ b/") {
                of = Some(read(path));
            } else if let Some(kept) = line.strip_prefix([' ', '-'])
                && of.as_ref().is_some_and(|of| !of.lines().any(|line| line == kept))
            {
                violations.push(format!("{}: {kept}", patch.path));
            }
        }
    }
    none("patches change lines that there are", &violations);
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
fn the_reader_of_imports_reads_all_paths() {
    assert_eq!(without_comment("let url = \"http://x\"; // why"), "let url = \"http://x\"; ");
    let file = |path: &str, text: &str| SourceFile { path: path.into(), text: text.into() };
    let top = file(
        "src/hub/mod.rs",
        "mod rooms; use super::pool::{X, y::Z}; use rooms::Room; #[cfg(test)] use crate::chat;
         pub(super) fn f() { crate::http::head::parse(); std::mem::drop(1) }",
    );
    let path = |text: &str| text.split("::").map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(
        references(&top),
        ["hub::rooms::Room", "http::head::parse", "pool::X", "pool::y::Z"].map(path).into()
    );
    let deep = file("src/hub/rooms.rs", "use super::HubError; use super::super::pool;");
    assert_eq!(imports(&deep), ["hub".to_owned(), "pool".to_owned()].into());
    assert_eq!(imported_files(&[top, deep])[0], BTreeSet::from([1]));
    assert_eq!(file("src/error.rs", "").layer(), Some("error"));
}
