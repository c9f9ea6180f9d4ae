//! What a server leaves to the next one: its snapshot, from the disk to the hub and back.

use std::{io, path::Path, sync::Arc, time::Instant};

use crate::{
    config::Config,
    error::Error,
    hub::{
        notice::NoticeFormatter,
        restore::{RestorableRoute, Restored},
        save::{Amount, Saved},
    },
    pool::shared::{Route, Shared},
    snapshot::{
        SnapshotReader, SnapshotWriter, Unreadable,
        disk::{self, ClaimedFile, NewFile},
    },
};

/// Why a snapshot is not taken up.
enum Refused {
    Unreadable(Unreadable),
    TooLarge {
        bytes: u64,
    },
    /// Its age, in milliseconds; negative if it comes from the future.
    Age(i64),
}

impl From<Unreadable> for Refused {
    fn from(error: Unreadable) -> Refused {
        Refused::Unreadable(error)
    }
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Refused::Unreadable(error) => error.fmt(f),
            Refused::TooLarge { bytes } => {
                write!(f, "it has {bytes} bytes, more than snapshot_bytes_max")
            }
            Refused::Age(age_ms) if *age_ms < 0 => {
                write!(f, "it was written {} s in the future", seconds(age_ms.unsigned_abs()))
            }
            Refused::Age(age_ms) => {
                let age = seconds(age_ms.unsigned_abs());
                write!(f, "it was written {age} s ago, before snapshot_max_age")
            }
        }
    }
}

fn seconds(ms: u64) -> f64 {
    ms as f64 / 1000.0
}

/// Checks that a snapshot can be written, so that an error is seen before there is anything to
/// lose.
pub(super) fn check(config: &Config) -> Result<(), Error> {
    if config.snapshot.is_empty() {
        return Ok(());
    }
    let cannot = |error| {
        let message = format!("snapshot: cannot write {}", config.snapshot);
        Error::config(message).with_source(error)
    };
    disk::check(Path::new(&config.snapshot)).map_err(cannot)
}

/// Takes up the snapshot that an earlier server has left, if there is a good one. What is wrong
/// with one is logged; the server begins with nothing then. Returns the file, which must be
/// [forgotten](forget) once the server serves, and stays for the next start if it is dropped.
///
/// # Errors
/// The file is something else than a snapshot.
pub(super) fn take_up(shared: &Shared) -> Result<Option<ClaimedFile>, Error> {
    let config = shared.config();
    if config.snapshot.is_empty() {
        return Ok(None);
    }
    let (began, path) = (Instant::now(), Path::new(&config.snapshot));
    let shown = path.display();
    // What cannot be read is told below.
    if disk::is_foreign(path).unwrap_or(false) {
        let message = format!(
            "snapshot: {shown} is no snapshot of this server, so it is left as it is; \
             remove it, or name another file"
        );
        return Err(Error::config(message));
    }
    match disk::set_aside_unfinished(path) {
        Ok(None) => {}
        Ok(Some(aside)) => log::warn!(
            "snapshot: an earlier start did not come to the end of {shown}; it is in {} now",
            aside.display()
        ),
        Err(error) => log::error!("snapshot: cannot set aside what is left of {shown}: {error}"),
    }
    let (claimed, file) = match ClaimedFile::take(path) {
        Ok(Some(taken)) => taken,
        Ok(None) => {
            log::info!("snapshot: there is no {shown}: rooms and sessions begin anew");
            return Ok(None);
        }
        Err(error) => {
            log::error!("snapshot: cannot read {shown}, so rooms and sessions begin anew: {error}");
            return Ok(None);
        }
    };
    match read(shared, file, claimed.bytes) {
        Ok((age_ms, restored)) => {
            told_of(&restored, age_ms, began);
            Ok(Some(claimed))
        }
        Err(refused) => {
            let aside = match claimed.set_aside() {
                Ok(aside) => format!("it is in {} now", aside.display()),
                Err(error) => format!("it cannot be set aside: {error}"),
            };
            log::error!(
                "snapshot: {shown} is not taken up, so rooms and sessions begin anew: {refused}; {aside}"
            );
            Ok(None)
        }
    }
}

/// Removes a snapshot that was taken up: the server serves, so it is old from now on.
pub(super) fn forget(claimed: Option<ClaimedFile>) {
    if let Some(Err(error)) = claimed.map(ClaimedFile::remove) {
        log::error!("snapshot: cannot remove the file that was read: {error}");
    }
}

fn read(shared: &Shared, file: impl io::Read, bytes: u64) -> Result<(u64, Restored), Refused> {
    let config = shared.config();
    if bytes > config.snapshot_bytes_max as u64 {
        return Err(Refused::TooLarge { bytes });
    }
    let mut reader = SnapshotReader::new(file, bytes)?;
    // A clock that was set back makes a file younger than it is. By no more than this.
    let age_ms = (now_ms(shared) as i64).saturating_sub_unsigned(reader.written_at_ms());
    if age_ms.unsigned_abs() > config.snapshot_max_age.as_millis() as u64 {
        return Err(Refused::Age(age_ms));
    }
    let age_ms = u64::try_from(age_ms).unwrap_or(0);
    let mut restorable = routes(shared);
    restorable.retain(|route| shared.routes[usize::from(route.index)].handler.resumable());
    Ok((age_ms, shared.hub.restore(&mut reader, &restorable, age_ms)?))
}

/// The routes by their paths, which are the same in the next server and on other nodes.
pub(super) fn routes(shared: &Shared) -> Vec<RestorableRoute> {
    let route = |(route, index): (&Route, u16)| {
        let formatter: Arc<dyn NoticeFormatter> = Arc::clone(&route.handler) as _;
        RestorableRoute { path: route.path.clone(), index, formatter }
    };
    shared.routes.iter().zip(0..).map(route).collect()
}

fn told_of(restored: &Restored, age_ms: u64, began: Instant) {
    let Restored { taken, left_out, ended, gaps } = restored;
    log::info!(
        "snapshot: took up {}, written {} s ago, in {} ms",
        listed(taken),
        seconds(age_ms),
        began.elapsed().as_millis()
    );
    if *ended > 0 {
        let ended = counted(*ended, "session");
        log::info!("snapshot: {ended} ended: away for too long, revoked, or of no route");
    }
    if let Some(room) = gaps.first() {
        log::error!(
            "snapshot: messages are missing in {}, such as '{room}'; what came before is left out",
            counted(gaps.len(), "room")
        );
    }
    if *left_out != Amount::default() {
        log::warn!(
            "snapshot: {} found no space within the settings and in memory",
            listed(left_out)
        );
    }
}

/// Writes the snapshot, once nobody changes anything any more.
pub(super) fn leave(shared: &Shared) -> Result<(), Error> {
    let config = shared.config();
    if config.snapshot.is_empty() {
        return Ok(());
    }
    let (began, path) = (Instant::now(), Path::new(&config.snapshot));
    let (saved, bytes) = write(shared, path).map_err(|error| {
        let message = format!("cannot write the snapshot {}", path.display());
        Error::io(message, error)
    })?;
    let took = began.elapsed().as_millis();
    let (written, shown) = (listed(&saved.written), path.display());
    log::info!("snapshot: wrote {written}, {bytes} bytes, to {shown} in {took} ms");
    if saved.left_out != Amount::default() {
        log::warn!(
            "snapshot: {} found no space within snapshot_bytes_max",
            listed(&saved.left_out)
        );
    }
    Ok(())
}

fn write(shared: &Shared, path: &Path) -> io::Result<(Saved, u64)> {
    let (new, file) = NewFile::create(path)?;
    let bytes_max = shared.config().snapshot_bytes_max as u64;
    let mut writer = SnapshotWriter::new(file, now_ms(shared), bytes_max)?;
    let path_of = |route: u16| shared.routes[usize::from(route)].path.as_str();
    let saved = shared.hub.save(&mut writer, &path_of)?;
    let (file, bytes) = writer.finish()?;
    new.commit(file)?;
    Ok((saved, bytes))
}

fn listed(amount: &Amount) -> String {
    let Amount { rooms, messages, sessions } = amount;
    let [rooms, messages, sessions] =
        [(rooms, "room"), (messages, "message"), (sessions, "session")]
            .map(|(count, noun)| counted(*count, noun));
    format!("{rooms}, {messages} and {sessions}")
}

/// A count and its noun, in the plural unless it is one.
fn counted(count: usize, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}

/// Milliseconds since 1970.
fn now_ms(shared: &Shared) -> u64 {
    shared.hub.clock.since_1970().as_millis() as u64
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        time::{Duration, SystemTime},
    };

    use super::*;
    use crate::server::Server;

    #[test]
    fn a_clock_that_jumps_is_believed_up_to_the_age_of_a_snapshot() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("state");
        for (offset_ms, is_read) in
            [(-400_000, false), (-200_000, true), (200_000, true), (400_000, false)]
        {
            let now = Duration::from_secs(1 << 30);
            let written_at_ms = (now.as_millis() as u64).saturating_add_signed(offset_ms);
            let file = fs::File::create(&path).expect("a place");
            let writer = SnapshotWriter::new(file, written_at_ms, 4096).expect("a place");
            writer.finish().expect("a place");
            let snapshot = path.to_str().expect("text").to_owned();
            let config = Config { snapshot, ..Config::default() };
            let time = SystemTime::UNIX_EPOCH + now;
            Server::builder().config(config).stepped_at(time).expect("a server");
            let aside = dir.path().join("state.bad");
            assert_eq!((path.exists(), aside.exists()), (false, !is_read), "{offset_ms}");
            let _ = fs::remove_file(aside);
        }
    }
}
