//! The file of a Unix socket: who may connect, and when it goes.

use std::{
    fs::{self, Metadata, Permissions},
    io,
    os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use socket2::{Domain, SockAddr, Socket, Type};

/// Who may connect: the user of the server, and the group of the file.
const MODE: u32 = 0o660;

/// The file of a socket that is bound. Removed when it is dropped, unless the path has become
/// another's by then.
pub(super) struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
}

impl SocketFile {
    /// Binds `socket` to `path`. A socket that a server left there, and that nobody listens on any
    /// more, is removed before.
    pub(super) fn bind(socket: &Socket, path: PathBuf) -> io::Result<SocketFile> {
        let addr = SockAddr::unix(&path)?;
        if let Err(error) = socket.bind(&addr) {
            if error.kind() != io::ErrorKind::AddrInUse {
                return Err(error);
            }
            remove_stale(&path, &addr)?;
            socket.bind(&addr)?;
        }
        let file = SocketFile { identity: identity(&fs::symlink_metadata(&path)?), path };
        // Nobody can connect before the socket listens.
        fs::set_permissions(&file.path, Permissions::from_mode(MODE))?;
        Ok(file)
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if fs::symlink_metadata(&self.path).is_ok_and(|now| identity(&now) == self.identity) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn identity(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

/// Removes the socket at `path` if nobody listens on it.
fn remove_stale(path: &Path, addr: &SockAddr) -> io::Result<()> {
    if !fs::symlink_metadata(path)?.file_type().is_socket() {
        let message = "there is a file that is not a socket; remove it or choose another path";
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, message));
    }
    let probe = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    probe.set_nonblocking(true)?;
    match probe.connect(addr) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        // A server whose queue is full is one, too.
        Ok(()) => Err(io::Error::new(io::ErrorKind::AddrInUse, "another server listens there")),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            Err(io::Error::new(io::ErrorKind::AddrInUse, "another server listens there"))
        }
        Err(error) => Err(error),
    }
}
