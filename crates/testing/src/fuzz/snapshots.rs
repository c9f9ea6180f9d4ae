//! Snapshots, as a server finds them at its start.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::OnceLock,
    time::Duration,
};

use flate2::Crc;
use rusty_socks::{Config, Error, ErrorKind, chat, stepped::SteppedServer};
use tempfile::TempDir;

use crate::frames::{TEXT, client_frame, upgrade};

/// What every snapshot begins with.
const MAGIC_BYTES: usize = 8;

/// Magic, version, time and checksum.
const HEADER_BYTES: usize = 24;

/// The length and the checksum of a record.
const FRAMING_BYTES: usize = 8;

/// Fuzzes the file that a server reads at its start: any bytes, a good file of which some are
/// changed or missing, and one whose records are changed and have the right checksums again. The
/// server starts, serves, and can be drained. A file whose checksums are wrong changes nothing, and
/// is set aside; one that does not even begin as a snapshot does is refused and left as it is.
///
/// The first byte says what is done, the rest is the file, or what is changed: where and how, three
/// bytes each.
pub fn snapshots(data: &[u8]) {
    let Some((choice, rest)) = data.split_first() else { return };
    let good = good();
    let changes = rest.chunks_exact(3);
    let place = |change: &[u8]| usize::from(change[0]) << 8 | usize::from(change[1]);
    let mut file = good.to_vec();
    match choice % 4 {
        0 => file = rest.to_vec(),
        1 => {
            for change in changes {
                let at = place(change) % file.len();
                file[at] ^= change[2] | 1;
            }
        }
        2 => {
            let at = rest.first_chunk().map_or(0, |at| u16::from_le_bytes(*at));
            file.truncate(usize::from(at) % (file.len() + 1));
        }
        _ => {
            let mut records = records(good);
            for change in changes {
                let count = records.len();
                let record = &mut records[usize::from(change[0]) % count];
                let at = usize::from(change[1]) % record.len().max(1);
                match record.get_mut(at) {
                    Some(byte) if change[2] % 4 != 0 => *byte = change[2],
                    Some(_) => drop(record.remove(at)),
                    None => record.push(change[2]),
                }
            }
            file = framed(&good[..HEADER_BYTES], &records);
        }
    }
    let is_whole = file == *good || choice % 4 == 3;
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("state");
    fs::write(&path, &file).expect("a place");
    let magic = &good[..MAGIC_BYTES.min(file.len())];
    if !file.starts_with(magic) {
        let refused = try_server(&path).err().map(|error| error.kind());
        assert_eq!(refused, Some(ErrorKind::Config), "it is something else");
        assert_eq!(fs::read(&path).ok().as_deref(), Some(&file[..]), "it is not left alone");
        return;
    }
    let mut server = server(&path);
    assert!(!path.exists(), "it is read once");
    let aside = dir.path().join("state.bad");
    let stats = server.handle().stats();
    if !is_whole {
        assert_eq!((stats.sessions, stats.rooms), (0, 1), "something came of a damaged file");
        assert_eq!(fs::read(&aside).ok().as_deref(), Some(&file[..]), "it is not set aside");
    } else if file == *good {
        assert_eq!((stats.sessions, stats.rooms), (1, 2));
        assert!(!aside.exists());
    }
    // It serves, and leaves a file that the next one takes up.
    join_and_publish(&mut server);
    let sessions = server.handle().stats().sessions;
    server.drain().expect("a place");
    let mut next = self::server(&path);
    assert!(!path.exists());
    assert_eq!(next.handle().stats().sessions, sessions, "nothing is lost on the way");
    // In the end nothing is left.
    next.advance(Duration::from_secs(100_000));
    next.settle();
    next.advance(Duration::from_secs(100_000));
    next.settle();
    let stats = next.handle().stats();
    assert_eq!((stats.sessions, stats.session_bytes, stats.inbox_bytes), (0, 0, 0));
    assert_eq!(stats.history_bytes, 0);
}

fn server(path: &Path) -> SteppedServer {
    try_server(path).expect("a server")
}

fn try_server(path: &Path) -> Result<SteppedServer, Error> {
    let snapshot = path.to_str().expect("a path in UTF-8").to_owned();
    let config = Config { thread_pool_size: 1, snapshot, ..Config::default() };
    let builder = chat::builder(config).expect("a configuration");
    builder.stepped()
}

/// Connects a client that joins a room, publishes there, writes to itself and subscribes.
fn join_and_publish(server: &mut SteppedServer) {
    let client = server.connect().expect("a place");
    client.write(upgrade("/ws", "").as_bytes());
    server.settle();
    let answer = String::from_utf8_lossy(&client.read()).into_owned();
    let id = answer.split("\"client_id\":\"").nth(1).and_then(|rest| rest.get(..36));
    let id = id.expect("a welcome");
    for command in [
        r#"{"type":"join","room":"tea"}"#.to_owned(),
        r#"{"type":"join","room":"p.*"}"#.to_owned(),
        concat!(
            r#"{"type":"publish","room":"tea","content":"x","#,
            r#""id":"67e55044-10b1-426f-9247-bb680e5fe0c8"}"#
        )
        .to_owned(),
        format!(r#"{{"type":"direct","to":"{id}","content":"x"}}"#),
    ] {
        client.write(&client_frame(TEXT, command.as_bytes()));
        server.settle();
    }
    let answers = String::from_utf8_lossy(&client.read()).into_owned();
    assert!(!answers.contains("\"error\""), "{answers}");
    client.reset();
    server.settle();
}

/// A file with one of everything.
fn good() -> &'static [u8] {
    static GOOD: OnceLock<Vec<u8>> = OnceLock::new();
    GOOD.get_or_init(|| {
        let dir = TempDir::new().expect("a directory");
        let path: PathBuf = dir.path().join("state");
        let mut server = server(&path);
        join_and_publish(&mut server);
        server.drain().expect("a place");
        fs::read(&path).expect("it is there")
    })
}

/// The records of a file, without what frames them.
fn records(file: &[u8]) -> Vec<Vec<u8>> {
    let mut rest = &file[HEADER_BYTES..];
    let mut records = Vec::new();
    while let Some(len) = rest.first_chunk() {
        let end = FRAMING_BYTES + u32::from_le_bytes(*len) as usize;
        records.push(rest[FRAMING_BYTES..end].to_vec());
        rest = &rest[end..];
    }
    records
}

/// A file of these records, with their lengths and checksums.
fn framed(header: &[u8], records: &[Vec<u8>]) -> Vec<u8> {
    let mut file = header.to_vec();
    let mut sum = Crc::new();
    sum.update(&header[..HEADER_BYTES - 4]);
    for record in records {
        let len = (record.len() as u32).to_le_bytes();
        sum.update(&len);
        sum.update(record);
        file.extend_from_slice(&len);
        file.extend_from_slice(&sum.sum().to_le_bytes());
        file.extend_from_slice(record);
    }
    file
}
