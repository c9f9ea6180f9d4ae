//! The file of a snapshot: there is a whole one or none, and each is read once.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io::{self, BufReader, BufWriter},
    path::{Path, PathBuf},
};

/// The bytes that are read or written at once.
const BUFFER_BYTES: usize = 256 << 10;

/// A snapshot that is being written beside its place. It is removed when dropped.
pub(crate) struct NewFile {
    path: PathBuf,
    written: PathBuf,
    is_committed: bool,
}

impl NewFile {
    /// Makes the file, which only the user of this process may read.
    pub(crate) fn create(path: &Path) -> io::Result<(NewFile, BufWriter<File>)> {
        let written = beside(path, ".tmp");
        // What a process has left that was killed while it wrote.
        remove(&written)?;
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
        sync_directory(&self.path)
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

/// A snapshot that nobody else will read.
pub(crate) struct ClaimedFile {
    path: PathBuf,
    claimed: PathBuf,
    pub(crate) bytes: u64,
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
        let file = File::open(&claimed)?;
        let bytes = file.metadata()?.len();
        let taken = ClaimedFile { path: path.to_owned(), claimed, bytes };
        Ok(Some((taken, BufReader::with_capacity(BUFFER_BYTES, file))))
    }

    /// Removes the file.
    pub(crate) fn remove(self) -> io::Result<()> {
        remove(&self.claimed)
    }

    /// Leaves it for people to look at. Returns where it is.
    pub(crate) fn set_aside(self) -> io::Result<PathBuf> {
        let aside = beside(&self.path, ".bad");
        fs::rename(&self.claimed, &aside)?;
        Ok(aside)
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

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// The name of a file is on the disk only when its directory is.
#[cfg(unix)]
fn sync_directory(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
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
        // Left by one that was killed.
        fs::write(dir.path().join("state.tmp"), "old").expect("a place");
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
