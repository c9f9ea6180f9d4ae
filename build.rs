//! What the program needs beyond its own sources: settings of its allocator, and the JavaScript
//! client that it sends to pages.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    #[cfg(feature = "cli")]
    allocator::set();
    #[cfg(feature = "cli")]
    javascript_client::write();
}

/// Sets how the allocator of the program works, for every build of it: one in this repository, an
/// image, and `cargo install` from anywhere. A variable in `.cargo/config.toml` would reach the
/// first alone.
///
/// jemalloc reads its settings from a variable of C, which Rust can define in unsafe code only. So
/// this compiles one line of C, by the compiler that jemalloc needs anyway, and links it.
#[cfg(feature = "cli")]
mod allocator {
    use std::{env, fs, path::Path};

    /// Two arenas, because memory that one thread frees should serve the next one that needs it,
    /// and freed pages go back to the system within a second.
    const SETTINGS: &str = "narenas:2,dirty_decay_ms:1000,muzzy_decay_ms:0,tcache_max:4096";

    pub(super) fn set() {
        if env::var("CARGO_CFG_TARGET_OS").as_deref() != Ok("linux") {
            return;
        }
        let folder = env::var("OUT_DIR").expect("cargo sets it");
        let source = Path::new(&folder).join("malloc_conf.c");
        let line = format!("const char *_rjem_malloc_conf = \"{SETTINGS}\";\n");
        fs::write(&source, line).expect("the folder is for this");
        for object in cc::Build::new().file(source).compile_intermediates() {
            // As an object and not in a library: jemalloc has a weak variable of this name, so
            // nobody would look for another one.
            println!("cargo::rustc-link-arg-bins={}", object.display());
        }
    }
}

/// Joins the modules of `clients/js` into one, which needs no build in a page or in Node.
///
/// Each becomes a function that runs when something first requires it, so that what is for Node
/// alone never runs in a page. The forms of `import` and `export` that the client uses are known
/// here, and every other one fails the build.
#[cfg(feature = "cli")]
mod javascript_client {
    use std::{env, fmt::Write, fs, path::Path};

    const ROOT: &str = "clients/js";

    /// Beside it stand `modules` by file name. `process.getBuiltinModule` came with Node 20.16.
    const REQUIRE: &str = "\
const loaded = new Map();
function require(path) {
  if (path.startsWith('node:')) return process.getBuiltinModule(path);
  const name = path.split('/').pop();
  if (!loaded.has(name)) {
    loaded.set(name, {});
    modules[name](loaded.get(name));
  }
  return loaded.get(name);
}
";

    pub(super) fn write() {
        println!("cargo::rerun-if-changed={ROOT}/index.js");
        println!("cargo::rerun-if-changed={ROOT}/src");
        let folder = env::var("OUT_DIR").expect("cargo sets it");
        fs::write(Path::new(&folder).join("client.js"), join()).expect("the folder is for this");
    }

    fn join() -> String {
        let version = env::var("CARGO_PKG_VERSION").expect("cargo sets it");
        let mut all = format!(
            "// The session client of Rusty Socks {version}, MIT licence: import {{ Client }} from \
             this file, in a page or\n// in Node 20.16 or newer. Made of clients/js.\n\
             const modules = {{\n"
        );
        let listed = fs::read_dir(Path::new(ROOT).join("src")).expect("a folder of the sources");
        let mut paths: Vec<_> = listed.map(|entry| entry.expect("a file of it").path()).collect();
        paths.sort();
        for path in paths {
            let name = path.file_name().expect("a file").display();
            // Writing to a String cannot fail.
            let _ = write!(all, "'{name}'(exports) {{\n{}}},\n", body(&path));
        }
        all += "};\n";
        all += REQUIRE;
        for line in lines(&Path::new(ROOT).join("index.js")) {
            let Some(("export", names, path)) = from(&line) else { panic!("index.js: {line}") };
            let _ = writeln!(all, "export const {names} = require({path});");
        }
        all
    }

    /// The text of a module inside a function that sets `exports`.
    fn body(path: &Path) -> String {
        let mut text = String::new();
        let mut exported = Vec::new();
        for line in lines(path) {
            let line = line.replace("await import('./", "require('./");
            let line = if let Some(("import", names, path)) = from(&line) {
                let names = names.trim_start_matches("* as ").replace(" as ", ": ");
                format!("const {names} = require({path});")
            } else if let Some(item) = line.strip_prefix("export ") {
                exported
                    .push(name_of(item).unwrap_or_else(|| panic!("{}: {line}", path.display())));
                item.to_owned()
            } else {
                line
            };
            let first = line.split_whitespace().next();
            let known = !matches!(first, Some("import" | "export"))
                && !line.contains("import(")
                && !line.contains("import.meta");
            assert!(known, "{}: this form is not known here: {line}", path.display());
            text += &line;
            text.push('\n');
        }
        let _ = writeln!(text, "Object.assign(exports, {{ {} }});", exported.join(", "));
        text
    }

    /// Of `import … from '…';` and `export … from '…';` the first word, what is named, and the path
    /// in its quotes.
    fn from(line: &str) -> Option<(&str, &str, &str)> {
        let (word, rest) = line.split_once(' ')?;
        let (names, path) = rest.strip_suffix(';')?.rsplit_once(" from ")?;
        matches!(word, "import" | "export").then_some((word, names, path))
    }

    /// The name of what is declared, if it is of a known kind.
    fn name_of(item: &str) -> Option<String> {
        let kinds = ["async function ", "function ", "class ", "const "];
        let rest = kinds.iter().find_map(|kind| item.strip_prefix(kind))?;
        let name =
            rest.split(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != '$').next()?;
        (!name.is_empty()).then(|| name.to_owned())
    }

    /// The lines of a file without comments, which have lines of their own there; an import that
    /// takes several lines as one.
    fn lines(path: &Path) -> Vec<String> {
        let text = fs::read_to_string(path).expect("a file of the sources");
        let mut in_comment = false;
        let is_code = |line: &&str| {
            let trimmed = line.trim();
            let opens = trimmed.starts_with("/**");
            let is_comment = in_comment || opens || trimmed.starts_with("//");
            in_comment = (in_comment || opens) && !trimmed.ends_with("*/");
            !is_comment
        };
        let mut joined: Vec<String> = Vec::new();
        for line in text.lines().filter(is_code) {
            match joined.last_mut() {
                Some(last) if last.starts_with("import {") && !last.ends_with(';') => {
                    last.push_str(line.trim_start());
                }
                _ => joined.push(line.to_owned()),
            }
        }
        joined
    }
}
