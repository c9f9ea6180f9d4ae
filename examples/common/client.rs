//! The project's JavaScript client, for the pages that use it.

use std::{fs, path::Path};

use rusty_socks::{Builder, Error};

/// Where the client is, in the repository that this example was built from.
const CLIENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/clients/js");

/// Serves the client's modules under `/client/`, so that a page can `import` `/client/index.js`.
/// They are plain modules that need no build, and are read at the start: a change is one restart
/// away.
pub(crate) fn with_client(mut builder: Builder) -> Result<Builder, Error> {
    let index = Path::new(CLIENT).join("index.js");
    let mut files = vec![(index, "/client/index.js".to_owned())];
    let source = Path::new(CLIENT).join("src");
    let unreadable = |path: &Path, error| Error::config(format!("{}: {error}", path.display()));
    for entry in fs::read_dir(&source).map_err(|error| unreadable(&source, error))? {
        let entry = entry.map_err(|error| unreadable(&source, error))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.ends_with(".js") {
            files.push((entry.path(), format!("/client/src/{name}")));
        }
    }
    for (file, path) in files {
        let text = fs::read(&file).map_err(|error| unreadable(&file, error))?;
        builder = builder.page(&path, "text/javascript; charset=utf-8", text);
    }
    Ok(builder)
}
