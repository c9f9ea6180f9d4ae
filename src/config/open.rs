//! How files of settings are opened.

use std::{
    fs::{self, File},
    io,
    path::Path,
};

/// A way to open a file of settings.
pub(crate) type Open = fn(&Path) -> io::Result<File>;

/// Opens a file of settings at the start. It may be a pipe, such as `/dev/stdin`.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    File::open(path)
}

/// Opens a file that was read before. Refuses what is no regular file: nothing more comes from a
/// pipe, and to open one without a writer would block for good.
pub(crate) fn open_again(path: &Path) -> io::Result<File> {
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is no regular file, so it cannot be read again"));
    }
    File::open(path)
}
