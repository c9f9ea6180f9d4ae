//! The file of a Unix socket: who may connect, and when it goes.

use std::{
    fs::{self, Metadata, Permissions},
    io,
    os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use socket2::{Domain, SockAddr, Socket, Type};

/// Who may connect: the user of the server, and the group of the file.
const MODE: u32 = 0o660;

/// How long a server that has just bound its socket may take until it listens.
const LISTEN_WAIT: Duration = Duration::from_millis(50);

/// The file of a socket that is bound. Removed when it is dropped, unless the path has become
/// another's by then.
pub(super) struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
}

impl SocketFile {
    /// Binds `socket` to `path` and listens. A socket that a server left there, and that nobody
    /// listens on any more, is removed before.
    pub(super) fn listen(socket: &Socket, path: PathBuf, backlog: i32) -> io::Result<SocketFile> {
        let file = SocketFile::bind(socket, path)?;
        socket.listen(backlog)?;
        match file.is_there() {
            true => Ok(file),
            // A server that started at the same moment took this one for one that is gone.
            false => Err(io::Error::new(
                io::ErrorKind::AddrInUse,
                "another server has just begun to listen there",
            )),
        }
    }

    fn bind(socket: &Socket, path: PathBuf) -> io::Result<SocketFile> {
        let addr = SockAddr::unix(&path)?;
        if let Err(error) = socket.bind(&addr) {
            if error.kind() != io::ErrorKind::AddrInUse {
                return Err(error);
            }
            remove_stale(&path, &addr, || thread::park_timeout(LISTEN_WAIT))?;
            socket.bind(&addr)?;
        }
        let file = SocketFile { identity: identity(&fs::symlink_metadata(&path)?), path };
        // Nobody can connect before the socket listens.
        fs::set_permissions(&file.path, Permissions::from_mode(MODE))?;
        Ok(file)
    }

    /// Whether the path is that of this socket.
    fn is_there(&self) -> bool {
        fs::symlink_metadata(&self.path).is_ok_and(|now| identity(&now) == self.identity)
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.is_there() {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn identity(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

/// Removes the socket at `path` if nobody listens on it. It is tried twice, and `pause` called in
/// between: a server that starts at the same moment listens by then.
fn remove_stale(path: &Path, addr: &SockAddr, pause: impl FnOnce()) -> io::Result<()> {
    let found = fs::symlink_metadata(path)?;
    if !found.file_type().is_socket() {
        let message = "there is a file that is not a socket; remove it or choose another path";
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, message));
    }
    probe(addr)?;
    pause();
    probe(addr)?;
    match fs::symlink_metadata(path) {
        Ok(now) if identity(&now) == identity(&found) => fs::remove_file(path),
        Ok(_) => Err(io::Error::new(io::ErrorKind::AddrInUse, "another server starts there")),
        // Whoever left it has removed it.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Makes sure that nobody listens at `addr`.
fn probe(addr: &SockAddr) -> io::Result<()> {
    let probe = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    probe.set_nonblocking(true)?;
    match probe.connect(addr) {
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound
            ) =>
        {
            Ok(())
        }
        // A server whose queue is full is one, too.
        Ok(()) => Err(io::Error::new(io::ErrorKind::AddrInUse, "another server listens there")),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            Err(io::Error::new(io::ErrorKind::AddrInUse, "another server listens there"))
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn socket() -> Socket {
        Socket::new(Domain::UNIX, Type::STREAM, None).expect("a socket")
    }

    /// Leaves a socket behind, as a server does that is killed.
    fn leave(path: &Path) {
        let mut file = SocketFile::bind(&socket(), path.to_owned()).expect("a free path");
        file.identity = (0, 0);
    }

    #[test]
    fn a_server_that_has_bound_and_not_begun_to_listen_is_left_alone() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("sock");
        let early = socket();
        let file = SocketFile::bind(&early, path.clone()).expect("a free path");
        let addr = SockAddr::unix(&path).expect("a short path");
        let removed = remove_stale(&path, &addr, || early.listen(1).expect("it is bound"));
        let error = removed.expect_err("it listens by now");
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        assert!(file.is_there());
        drop((file, early));
        leave(&path);
        remove_stale(&path, &addr, || ()).expect("nobody listens");
        assert!(!path.exists());
    }

    #[test]
    fn a_server_that_starts_in_between_is_left_alone() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("sock");
        leave(&path);
        let addr = SockAddr::unix(&path).expect("a short path");
        let mut other = None;
        let removed = remove_stale(&path, &addr, || {
            // Not the same inode again.
            let held = path.with_extension("old");
            fs::rename(&path, held).expect("it is there");
            other = Some(SocketFile::bind(&socket(), path.clone()).expect("a free path"));
        });
        assert_eq!(removed.expect_err("not the same").kind(), io::ErrorKind::AddrInUse);
        assert!(other.is_some_and(|file| file.is_there()));
    }

    #[test]
    fn a_server_whose_path_was_taken_does_not_start_unheard() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("sock");
        let (early, late) = (socket(), socket());
        let file = SocketFile::bind(&early, path.clone()).expect("a free path");
        fs::rename(&path, path.with_extension("old")).expect("it is there");
        let other = SocketFile::listen(&late, path.clone(), 1).expect("a free path");
        assert!(!file.is_there() && other.is_there());
        drop(file);
        assert!(path.exists(), "it is another's");
        drop(other);
        assert!(!path.exists());
    }
}
