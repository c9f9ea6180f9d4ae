//! Reads a snapshot, before any of it is taken up.

use std::{
    borrow::Cow,
    collections::{HashSet, VecDeque},
    io,
};

use uuid::Uuid;

use crate::{
    hub::{
        Hub,
        inbox::Inbox,
        names::RoomName,
        room::{Owner, Room, RoomState},
        session::saved::is_sound,
    },
    identity::Revocation,
    memory::account::Level,
    snapshot::{Payload, Record, RoomRecord, SessionRecord, SnapshotReader, Unreadable},
    store::{Epoch, History, Position},
    ws::frame::{Kind, PreparedFrame},
};

/// Everything that was read, within the bounds of this server on messages.
#[derive(Default)]
pub(super) struct Contents {
    pub(super) revocations: Vec<Revocation>,
    pub(super) rooms: Vec<ReadRoom>,
    pub(super) sessions: Vec<ReadSession>,
    pub(super) messages_left_out: usize,
    /// Rooms of which messages are missing in the midst.
    pub(super) gaps: Vec<RoomName>,
}

pub(super) struct ReadRoom {
    pub(super) room: Room,
    /// The number of its last message.
    seq: u64,
    /// The number of the last message that was read.
    read: Option<u64>,
    /// Whether there is space for the room.
    is_kept: bool,
    has_gap: bool,
}

pub(super) struct ReadSession {
    pub(super) record: Box<SessionRecord>,
    pub(super) inbox: Option<Box<Inbox>>,
    /// The number of the last direct message that was read.
    read: Option<u64>,
}

/// What is known while a snapshot is read.
struct Reading<'h> {
    hub: &'h Hub,
    now_ms: u64,
    contents: Contents,
    /// The names of the rooms and the ids of the sessions so far.
    names: HashSet<RoomName>,
    ids: HashSet<Uuid>,
    /// How many more rooms find space.
    places_left: usize,
    /// The messages that were kept, oldest first: the places of their rooms, and their numbers.
    by_age: VecDeque<(u32, u64)>,
    /// The bytes of all histories.
    history_bytes: usize,
    /// The messages of this age that several rooms have.
    shared: Vec<PreparedFrame>,
    age_ms: u64,
}

impl Contents {
    /// Reads what was written `elapsed_ms` ago for `hub`, in which nothing is changed.
    pub(super) fn read<R: io::Read>(
        hub: &Hub,
        input: &mut SnapshotReader<R>,
        elapsed_ms: u64,
    ) -> Result<Contents, Unreadable> {
        let mut reading = Reading {
            hub,
            // One time for all: what was stored together stays together.
            now_ms: hub.now_ms().saturating_sub(elapsed_ms),
            contents: Contents::default(),
            names: HashSet::default(),
            ids: HashSet::default(),
            places_left: hub.rooms.places_left(),
            by_age: VecDeque::new(),
            history_bytes: 0,
            shared: Vec::new(),
            age_ms: 0,
        };
        while let Some(record) = input.next()? {
            reading.take(record).map_err(|what| input.malformed(what))?;
        }
        if !reading.contents.sessions.iter().all(ReadSession::is_whole) {
            return Err(input.malformed("direct messages before it of which the last are missing"));
        }
        Ok(reading.finish())
    }
}

impl Reading<'_> {
    fn take(&mut self, record: Record<'_>) -> Result<(), Cow<'static, str>> {
        match record {
            Record::Revocation(revocation) => {
                let of = (&*revocation.of, revocation.is_user);
                let times = (revocation.before_s, revocation.kept_until_s);
                let revocation = Revocation::of_parts(of.0, of.1, times.0, times.1);
                self.contents.revocations.push(revocation);
                Ok(())
            }
            Record::Room(room) => match RoomName::new(&room.name) {
                Ok(name) => self.read_room(name, &room).map_err(Cow::from),
                Err(_) => Err("a room name that is not legal".into()),
            },
            Record::Session(session) => self.read_session(session).map_err(Cow::from),
            Record::Direct { seq, payload } => self.read_direct(seq, &payload).map_err(Cow::from),
            Record::Message { room, seq, age_ms, is_shared, payload } => {
                if age_ms != self.age_ms {
                    self.shared.clear();
                    self.age_ms = age_ms;
                }
                let frame = self.frame_of(&payload);
                if is_shared {
                    self.shared.push(frame.clone());
                }
                self.read_message(room, seq, frame)
            }
            Record::Shared { room, seq, of } => {
                let frame = self.shared.get(of as usize).cloned();
                self.read_message(room, seq, frame.ok_or("a message that is not shared")?)
            }
            Record::End { .. } => Err("an end that is none".into()),
        }
    }

    fn read_room(&mut self, name: RoomName, record: &RoomRecord) -> Result<(), &'static str> {
        let mut room = self.hub.rooms.make(&name);
        let epoch = Epoch::from_bits(record.epoch).ok_or("a room without an epoch")?;
        let state = room.state.get_mut();
        if record.began_seq > record.seq {
            return Err("a room that ends before it began");
        }
        state.history = History::at(Position { epoch, seq: record.seq }, record.began_seq);
        // Which of its messages went to other rooms, too, is not in the file.
        state.last_shared_seq = record.seq;
        state.owner = Owner::from(record.owner);
        let is_there = self.hub.rooms.find(name.as_str()).is_some();
        let is_kept = is_there || self.places_left > 0;
        self.places_left -= usize::from(is_kept && !is_there);
        let (seq, read, has_gap) = (record.seq, None, false);
        self.contents.rooms.push(ReadRoom { room, seq, read, is_kept, has_gap });
        self.names.insert(name).then_some(()).ok_or("a room for the second time")
    }

    fn read_session(&mut self, record: Box<SessionRecord>) -> Result<(), &'static str> {
        if !self.ids.insert(record.client_id) {
            return Err("a session for the second time");
        }
        if !is_sound(&record, self.contents.rooms.len()) {
            return Err("a session that refers to what there is not");
        }
        let inbox = record.inbox.map(|(seq, delivered)| Box::new(Inbox::at(seq, delivered)));
        self.contents.sessions.push(ReadSession { record, inbox, read: None });
        Ok(())
    }

    fn read_direct(&mut self, seq: u64, payload: &Payload<'_>) -> Result<(), &'static str> {
        let frame = self.frame_of(payload);
        let session = self.contents.sessions.last_mut().ok_or("a direct message to nobody")?;
        let ReadSession { record, inbox, read } = session;
        let (Some(inbox), Some((last, delivered))) = (inbox, record.inbox) else {
            return Err("a direct message to nobody");
        };
        let is_next = read.map_or(seq > 0, |read| read.checked_add(1) == Some(seq));
        if !is_next || seq > last {
            return Err("a direct message with a number that is not the next one");
        }
        if read.is_none() {
            **inbox = Inbox::at(seq - 1, delivered);
        }
        *read = Some(seq);
        inbox.push(frame, false, &self.hub.limits.inbox());
        Ok(())
    }

    fn read_message(
        &mut self,
        place: u32,
        seq: u64,
        frame: PreparedFrame,
    ) -> Result<(), Cow<'static, str>> {
        let room = self.contents.rooms.get_mut(place as usize).ok_or("a message to no room")?;
        if seq > room.seq || seq <= room.read.unwrap_or(0) {
            let name = room.room.name.as_str();
            return Err(format!("a message of the room '{name}' out of its order").into());
        }
        let before = room.history().len();
        let bytes = room.history().bytes();
        if room.read != Some(seq - 1) {
            room.has_gap |= room.read.is_some();
            room.begin_behind(seq - 1);
        }
        room.read = Some(seq);
        if room.is_kept {
            let stored_ms = self.now_ms.saturating_sub(self.age_ms);
            let RoomState { history, bounds, .. } = room.room.state.get_mut();
            history.append(frame, stored_ms, bounds);
            self.by_age.push_back((place, seq));
        } else {
            room.history().skip();
        }
        let history = room.history();
        self.history_bytes = self.history_bytes + history.bytes() - bytes;
        self.contents.messages_left_out += before + 1 - history.len();
        self.let_go();
        Ok(())
    }

    /// Lets go of the oldest messages of all rooms, until the others are within the bounds and
    /// newcomers find memory: or nobody could come back.
    fn let_go(&mut self) {
        let bytes_max = self.hub.limits.histories_bytes_max();
        while (self.history_bytes > bytes_max || self.hub.account.weigh() != Level::Normal)
            && let Some((place, seq)) = self.by_age.pop_front()
        {
            let Some(room) = self.contents.rooms.get_mut(place as usize) else { continue };
            let history = room.history();
            let bytes = history.bytes();
            self.contents.messages_left_out += history.forget_until(seq);
            self.history_bytes -= bytes - history.bytes();
        }
    }

    fn frame_of(&self, payload: &Payload<'_>) -> PreparedFrame {
        let (kind, bytes) = match payload {
            Payload::Text(text) => (Kind::Text, text.as_bytes()),
            Payload::Binary(bytes) => (Kind::Binary, bytes.0),
        };
        PreparedFrame::counted(kind, &[bytes], &self.hub.account.frames)
    }

    fn finish(mut self) -> Contents {
        for room in &mut self.contents.rooms {
            if room.read.is_some_and(|read| read != room.seq) {
                room.has_gap = true;
                self.contents.messages_left_out += room.history().len();
                room.begin_behind(room.seq);
            }
            if room.has_gap {
                self.contents.gaps.push(room.room.name.clone());
            }
        }
        self.contents
    }
}

impl ReadRoom {
    fn history(&mut self) -> &mut History {
        &mut self.room.state.get_mut().history
    }

    /// Lets the history begin with the message behind number `seq`.
    fn begin_behind(&mut self, seq: u64) {
        let history = self.history();
        *history = History::at(Position { seq, ..history.position() }, history.beginning().seq);
    }
}

impl ReadSession {
    /// Whether no direct message is missing behind those that were read.
    fn is_whole(&self) -> bool {
        self.read.is_none_or(|read| self.record.inbox.is_some_and(|(last, _)| last == read))
    }
}
