//! The file of a snapshot: there is a whole one or none, and each is read once.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io::{self, BufReader, BufWriter, Read},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use uuid::Uuid;

use super::records::MAGIC;

/// The bytes that are read or written at once.
const BUFFER_BYTES: usize = 256 << 10;

/// A file that was begun is abandoned if nothing was written to it for so long.
const ABANDONED_AGE: Duration = Duration::from_secs(3600);

/// What the names end with of files that are being written.
const UNFINISHED: &str = ".tmp";

/// A snapshot that is being written beside its place. It is removed when dropped.
pub(crate) struct NewFile {
    path: PathBuf,
    written: PathBuf,
    is_committed: bool,
}

impl NewFile {
    /// Makes the file, which only the user of this process may read, under a name that no other
    /// server writes to. Removes what was left by those that were killed while they wrote.
    pub(crate) fn create(path: &Path) -> io::Result<(NewFile, BufWriter<File>)> {
        remove_abandoned(path);
        let written = beside(path, &format!(".{}{UNFINISHED}", Uuid::new_v4().simple()));
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = options.open(&written)?;
        let new = NewFile { path: path.to_owned(), written, is_committed: false };
        Ok((new, BufWriter::with_capacity(BUFFER_BYTES, file)))
    }

    /// Puts the file in its place, in one step, once it is on the disk.
    pub(crate) fn commit(mut self, file: BufWriter<File>) -> io::Result<()> {
        let file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.sync_all()?;
        fs::rename(&self.written, &self.path)?;
        self.is_committed = true;
        // A directory that may be written to need not be one that may be opened.
        if let Err(error) = sync_directory(&self.path) {
            log::warn!("snapshot: cannot sync its directory, so a power cut may lose it: {error}");
        }
        Ok(())
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if !self.is_committed {
            let _ = fs::remove_file(&self.written);
        }
    }
}

/// Whether a snapshot can be written there. Leaves nothing behind.
pub(crate) fn check(path: &Path) -> io::Result<()> {
    if fs::symlink_metadata(path).is_ok_and(|there| !there.is_file()) {
        return Err(io::Error::other("there is something that is no regular file"));
    }
    NewFile::create(path).map(drop)
}

/// Removes files that were begun for `path` long ago. Another server may be writing younger ones.
fn remove_abandoned(path: &Path) {
    let Some(name) = path.file_name().and_then(|name| name.to_str()) else { return };
    // Whoever cannot list a directory may still write to it.
    let Ok(entries) = fs::read_dir(directory(path)) else { return };
    for entry in entries.map_while(Result::ok) {
        let file = entry.file_name();
        let id = file.to_str().and_then(|file| file.strip_prefix(name)?.strip_prefix('.'));
        let id = id.and_then(|id| Uuid::try_parse(id.strip_suffix(UNFINISHED)?).ok());
        let modified = entry.metadata().and_then(|of| of.modified());
        let age = modified.ok().and_then(|modified| modified.elapsed().ok());
        if id.is_some() && age.is_some_and(|age| age > ABANDONED_AGE) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Whether there is a file that is no snapshot, not even a damaged one.
pub(crate) fn is_foreign(path: &Path) -> io::Result<bool> {
    if !fs::symlink_metadata(path).is_ok_and(|there| there.is_file()) {
        return Ok(false);
    }
    let mut head = Vec::new();
    File::open(path)?.take(MAGIC.len() as u64).read_to_end(&mut head)?;
    Ok(!MAGIC.starts_with(&head))
}

/// A snapshot that nobody else will read. It is put back when dropped, unless that is because of a
/// panic, which the next start might come to as well.
pub(crate) struct ClaimedFile {
    path: PathBuf,
    claimed: PathBuf,
    pub(crate) bytes: u64,
    is_settled: bool,
}

impl ClaimedFile {
    /// Takes the file out of its place, so that no other start reads it, not even the next one
    /// after a crash of this one. `None` if there is none.
    pub(crate) fn take(path: &Path) -> io::Result<Option<(ClaimedFile, BufReader<File>)>> {
        match fs::symlink_metadata(path) {
            Ok(there) if there.is_file() => {}
            Ok(_) => return Err(io::Error::other("it is no regular file")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        }
        let claimed = beside(path, ".reading");
        fs::rename(path, &claimed)?;
        // Put back if it cannot be opened.
        let mut taken = ClaimedFile { path: path.to_owned(), claimed, bytes: 0, is_settled: false };
        let file = File::open(&taken.claimed)?;
        taken.bytes = file.metadata()?.len();
        Ok(Some((taken, BufReader::with_capacity(BUFFER_BYTES, file))))
    }

    /// Removes the file.
    pub(crate) fn remove(mut self) -> io::Result<()> {
        self.is_settled = true;
        remove(&self.claimed)
    }

    /// Leaves it for people to look at. Returns where it is.
    pub(crate) fn set_aside(mut self) -> io::Result<PathBuf> {
        self.is_settled = true;
        let aside = beside(&self.path, ".bad");
        fs::rename(&self.claimed, &aside)?;
        Ok(aside)
    }
}

impl Drop for ClaimedFile {
    fn drop(&mut self) {
        // Another server may have left a younger one meanwhile.
        let is_needed = !self.is_settled && fs::symlink_metadata(&self.path).is_err();
        if !is_needed || thread::panicking() {
            return;
        }
        let shown = self.path.display();
        match fs::rename(&self.claimed, &self.path) {
            Ok(()) => log::info!("snapshot: {shown} stays for the next start"),
            Err(error) => log::error!("snapshot: cannot put {shown} back: {error}"),
        }
    }
}

/// Sets a snapshot aside that an earlier start began to read and did not get to the end of.
/// Returns where it is.
pub(crate) fn set_aside_unfinished(path: &Path) -> io::Result<Option<PathBuf>> {
    let aside = beside(path, ".bad");
    match fs::rename(beside(path, ".reading"), &aside) {
        Ok(()) => Ok(Some(aside)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}

fn directory(path: &Path) -> &Path {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    parent.unwrap_or(Path::new("."))
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// The name of a file is on the disk only when its directory is.
#[cfg(unix)]
fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(directory(path))?.sync_all()
}

#[cfg(not(unix))]
fn sync_directory(_: &Path) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let entries = fs::read_dir(dir).expect("a directory");
        let name = |entry: io::Result<fs::DirEntry>| entry.expect("an entry").file_name();
        let mut names: Vec<String> =
            entries.map(|entry| name(entry).to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_is_there_whole_or_not_at_all_and_is_taken_once() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("state");
        assert!(ClaimedFile::take(&path).expect("it may be looked at").is_none());
        let (new, mut file) = NewFile::create(&path).expect("a place");
        file.write_all(b"half").expect("a place");
        drop((new, file));
        assert!(names(dir.path()).is_empty());

        let (new, mut file) = NewFile::create(&path).expect("a place");
        file.write_all(b"whole").expect("a place");
        new.commit(file).expect("a place");
        assert_eq!(names(dir.path()), ["state"]);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = fs::metadata(&path).expect("it is there").permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
        let (taken, mut file) = ClaimedFile::take(&path).expect("a file").expect("it is there");
        let mut text = String::new();
        file.read_to_string(&mut text).expect("text");
        assert_eq!((text.as_str(), taken.bytes), ("whole", 5));
        assert!(ClaimedFile::take(&path).expect("it may be looked at").is_none());
        taken.set_aside().expect("a place");
        assert_eq!(names(dir.path()), ["state.bad"]);
        assert!(set_aside_unfinished(&path).expect("it may be looked for").is_none());
        fs::write(dir.path().join("state.reading"), "half").expect("a place");
        assert!(set_aside_unfinished(&path).expect("a place").is_some());
        assert_eq!(names(dir.path()), ["state.bad"]);
    }

    #[test]
    fn whoever_starts_leaves_alone_what_another_one_writes() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("state");
        let (new, mut file) = NewFile::create(&path).expect("a place");
        file.write_all(b"whole").expect("a place");
        // Left by one that was killed, and something of somebody else.
        let abandoned = beside(&path, &format!(".{}.tmp", Uuid::new_v4().simple()));
        let other = beside(&path, ".mine.tmp");
        for path in [&abandoned, &other] {
            let made = File::create(path).expect("a place");
            made.set_modified(std::time::UNIX_EPOCH).expect("a time");
        }
        check(&path).expect("a place");
        assert!(!abandoned.exists() && other.exists());
        let (second, mut draft) = NewFile::create(&path).expect("a place");
        draft.write_all(b"half").expect("a place");
        new.commit(file).expect("nobody took it away");
        drop((second, draft));
        assert_eq!(fs::read(&path).expect("it is there"), b"whole");
        assert_eq!(names(dir.path()), ["state", "state.mine.tmp"]);
    }

    #[test]
    fn what_was_claimed_and_not_used_is_put_back() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("state");
        let claim = || ClaimedFile::take(&path).expect("a file").expect("it is there").0;
        fs::write(&path, "one").expect("a place");
        drop(claim());
        assert_eq!(names(dir.path()), ["state"]);
        let claimed = claim();
        fs::write(&path, "younger").expect("a place");
        drop(claimed);
        assert_eq!(fs::read(&path).expect("it is there"), b"younger");
        // One on which a start has died is not tried again.
        let start = || {
            let _claimed = claim();
            panic!("as if a record were more than it can take");
        };
        assert!(std::panic::catch_unwind(start).is_err());
        assert_eq!(names(dir.path()), ["state.reading"]);
    }

    #[test]
    fn a_file_of_somebody_else_is_known() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("state");
        assert!(!is_foreign(&path).expect("it may be looked at"));
        for (bytes, foreign) in
            [(&b""[..], false), (b"rsocks\r\n and more", false), (b"rso", false), (b"{}", true)]
        {
            fs::write(&path, bytes).expect("a place");
            assert_eq!(is_foreign(&path).expect("it may be looked at"), foreign, "{bytes:?}");
        }
    }

    #[test]
    fn what_cannot_be_written_is_known_before() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("state");
        check(&path).expect("a place");
        assert!(names(dir.path()).is_empty());
        fs::create_dir(&path).expect("a place");
        assert!(check(&path).is_err() && ClaimedFile::take(&path).is_err());
        assert!(check(&path.join("nowhere").join("state")).is_err());
    }
}
