//! The links of the documents, as GitHub and mdbook follow them, without a network.

#![allow(clippy::unwrap_used)]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Component, Path, PathBuf},
};

/// Directories that are no part of the repository.
const NOT_OURS: [&str; 4] = ["target", ".git", "node_modules", "__pycache__"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All Markdown files below a directory, by their path from the root.
pub(crate) fn documents(below: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut open = vec![root().join(below)];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(directory).unwrap().map(Result::unwrap) {
            let (path, name) = (entry.path(), entry.file_name());
            if entry.file_type().unwrap().is_dir() {
                if !NOT_OURS.iter().any(|not| name == *not) {
                    open.push(path);
                }
            } else if path.extension().is_some_and(|extension| extension == "md") {
                let path = path.strip_prefix(root()).unwrap().to_str().unwrap();
                found.insert(path.replace('\\', "/"));
            }
        }
    }
    found
}

/// The lines outside of fences, without what stands in backticks.
fn prose(text: &str) -> Vec<String> {
    let mut in_fence = false;
    let mut lines = Vec::new();
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            in_fence = !in_fence;
        } else if !in_fence {
            lines.push(line.to_owned());
        }
    }
    lines
}

/// The names that a link to this document may have behind its `#`.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut anchors = BTreeSet::new();
    let mut times: BTreeMap<String, u32> = BTreeMap::new();
    for line in prose(text) {
        let by_hand = line.split("<a id=\"").skip(1).filter_map(|rest| rest.split('"').next());
        anchors.extend(by_hand.map(str::to_owned));
        let Some(heading) = line.trim_start_matches('#').strip_prefix(' ') else { continue };
        if !line.starts_with('#') {
            continue;
        }
        let kept = heading.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
        let name = kept.collect::<String>().to_lowercase().replace(' ', "-");
        let time = times.entry(name.clone()).or_default();
        anchors.insert(if *time == 0 { name } else { format!("{name}-{time}") });
        *time += 1;
    }
    anchors
}

/// Where the links of a document lead, but for those to other hosts.
fn targets(text: &str) -> Vec<String> {
    // A link may be broken over two lines.
    let text = prose(text).join("\n");
    let inside = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let is_ours = |target: &&str| !target.contains("://") && !target.contains(' ');
    inside.filter(is_ours).map(str::to_owned).collect()
}

/// `a/b/../c` as `a/c`; `None` if it leads out of the repository.
fn resolved(path: &Path) -> Option<PathBuf> {
    let mut resolved = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir if !resolved.pop() => return None,
            Component::ParentDir => {}
            part => resolved.push(part),
        }
    }
    Some(resolved)
}

/// Every link of `document` that leads nowhere.
pub(crate) fn broken(document: &str) -> Vec<String> {
    let text = fs::read_to_string(root().join(document)).unwrap();
    broken_in(document, &text)
}

pub(crate) fn broken_in(document: &str, text: &str) -> Vec<String> {
    let leads_somewhere = |target: &String| {
        let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
        let above = Path::new(document).parent().unwrap();
        let path = if path.is_empty() { PathBuf::from(document) } else { above.join(path) };
        let Some(path) = resolved(&path).map(|path| root().join(path)) else { return false };
        if anchor.is_empty() {
            return path.exists();
        }
        // Of a heading, in this text or in another document.
        match target.starts_with('#') {
            true => anchors(text).contains(anchor),
            false => fs::read_to_string(path).is_ok_and(|text| anchors(&text).contains(anchor)),
        }
    };
    targets(text).into_iter().filter(|target| !leads_somewhere(target)).collect()
}
