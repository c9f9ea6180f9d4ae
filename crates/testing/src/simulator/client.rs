//! A client that keeps the protocol, and what it knows: its session, its rooms, its questions.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use rusty_socks::Config;
use rusty_socks_protocol::{Overflow, answer::Member};

use super::{
    command::{Asked, Command},
    plan::{ORIGINS, Plan},
    socket::Socket,
    tokens::{Revoked, Token},
    transcript::Transcript,
};
use crate::random::Random;

/// A promise of the server that was not kept.
#[derive(Debug, Clone)]
pub struct Broken {
    /// The promise, in a sentence.
    pub promise: &'static str,
    /// The client that found it, if one did.
    pub client: Option<usize>,
    /// What was seen instead.
    pub seen: String,
}

/// Holds a promise against what was seen.
pub type Verdict = Result<(), Broken>;

/// What a client saw that concerns more than itself.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "they are named as in the protocol")]
pub enum Seen {
    /// A message of a room, however it came.
    Message { room: String, epoch: String, seq: u64, id: String, content: String },
    /// A page of history, or what was missed, begins behind these numbers.
    LeftOut { room: String, epoch: String, from: u64, to: u64 },
    /// A publish was answered `ok`: its number in a room.
    Published { room: String, epoch: String, seq: u64, id: String, repeated: bool },
    /// A direct message was answered `ok`.
    DirectSent { to: String, content: String },
    /// A direct message came.
    Direct { to: String, from: String, seq: u64, content: String },
    /// A broadcast came.
    Broadcast { to: String, from: String, content: String },
    /// Direct messages to this client are missing, and the client was told.
    DirectsLost { to: String },
    /// A session was given up: whether the server still lists it is not known for a while.
    SessionLeft { client_id: String },
    /// Who is in a room, as the server answered.
    Census { room: String, members: BTreeSet<String>, count: usize },
}

/// What a client has at hand when it acts and when it hears.
pub struct Scene<'a> {
    /// The run.
    pub plan: &'a Plan,
    /// Milliseconds of simulated time.
    pub now_ms: u64,
    /// What the server closes connections with, if it drains.
    pub drain: Option<u16>,
    /// The server has ended.
    pub is_gone: bool,
    /// Which users' tokens are revoked.
    pub revoked: &'a Revoked,
    /// What is said is written here.
    pub transcript: &'a mut Transcript,
    /// What is seen is left here for the invariants.
    pub seen: &'a mut Vec<Seen>,
}

/// A room as a member sees it.
#[derive(Debug, Clone)]
pub struct View {
    /// The life of the room.
    pub epoch: String,
    /// Where the room stood when it was joined.
    pub joined_at: u64,
    /// All up to this number is accounted for but for what stands in `own`.
    pub last: u64,
    /// Numbers of one's own messages that will not be delivered.
    pub own: BTreeSet<u64>,
    /// What happens when the client is slow.
    pub overflow: Overflow,
    /// A pattern joined it.
    pub by_pattern: bool,
    /// Presence notices are owed.
    pub watching: bool,
    /// Who is there, as told by notices; `None` when notices were missed.
    pub roster: Option<BTreeSet<String>>,
    /// What `welcome` promised to repeat.
    pub replay: Option<Replay>,
}

/// Messages from before a client came.
#[derive(Debug, Clone)]
pub struct Replay {
    /// They go up to here.
    pub to: u64,
    /// The number of the one that comes next; `None` before the first.
    pub next: Option<u64>,
    /// How many have come.
    pub count: usize,
}

impl View {
    /// A room that was joined at `seq`.
    pub fn new(epoch: &str, seq: u64, overflow: Overflow) -> View {
        View {
            epoch: epoch.to_owned(),
            joined_at: seq,
            last: seq,
            own: BTreeSet::new(),
            overflow,
            by_pattern: false,
            watching: false,
            roster: None,
            replay: None,
        }
    }

    /// Takes in who is there, if all who are have been listed: a page has a bound.
    pub fn list(&mut self, members: Option<&[Member<'_>]>, count: Option<usize>) {
        let whole = members.filter(|members| count == Some(members.len()));
        self.roster = whole.map(ids);
    }

    /// The first number behind `last` that nothing accounts for, below `before`.
    pub fn hole(&self, before: u64) -> Option<u64> {
        (self.last + 1..before).find(|seq| !self.own.contains(seq))
    }

    /// How far all is accounted for.
    pub fn position(&self) -> u64 {
        let mut position = self.last;
        while self.own.contains(&(position + 1)) {
            position += 1;
        }
        position
    }

    /// Accounts for everything up to `seq`.
    pub fn advance(&mut self, seq: u64) {
        self.last = seq;
        self.own = self.own.split_off(&(seq + 1));
    }
}

/// What a client is to the server.
#[derive(Debug, Clone)]
pub struct Session {
    /// Its id.
    pub client_id: String,
    /// Its secret.
    pub token: String,
    /// The rooms it is in.
    pub rooms: BTreeMap<String, View>,
    /// The patterns it has joined.
    pub patterns: BTreeSet<String>,
    /// Rooms that were left by name, which patterns do not join again.
    pub declined: BTreeSet<String>,
    /// A room that a pattern matches found no place.
    pub was_full: bool,
    /// The number of the last direct message.
    pub direct_last: u64,
    /// The next direct message may leave some out.
    pub direct_may_skip: bool,
    /// The number up to which direct messages were promised.
    pub direct_owed: u64,
    /// The connection was lost while commands were under way that may have changed its rooms.
    pub is_unsure: bool,
    /// It was taken up again at least once.
    pub was_resumed: bool,
    /// When the connection was lost.
    pub lost_ms: Option<u64>,
    /// The server may have ended it: it was revoked, or its server left nothing to the next one.
    pub is_gone: bool,
    /// From when on the server may have read a token of it too late, which ends it untold.
    pub ends_from_ms: Option<u64>,
    /// The longest message that it was told it may send.
    pub message_bytes_max: usize,
}

/// The ids of members.
pub(super) fn ids(members: &[Member<'_>]) -> BTreeSet<String> {
    members.iter().map(|member| member.client_id.to_string()).collect()
}

/// A client that keeps the protocol.
pub struct Client {
    /// Its number in the run.
    pub index: usize,
    /// Its connection, if it has one.
    pub socket: Option<Socket>,
    /// Its session, from `welcome` to its end.
    pub session: Option<Session>,
    /// The session that a connection began with which is about to resume another.
    pub fresh: Option<Session>,
    /// The connection was made to resume.
    pub is_resuming: bool,
    /// Commands without an answer, oldest first, each with its `ref`.
    pub asked: VecDeque<(u64, Asked)>,
    /// Publishes that may not have arrived, to be sent again with the same id.
    pub retries: Vec<Asked>,
    /// A publish that was answered, to be sent again though it need not be.
    pub repeatable: Option<(Asked, String, u64)>,
    /// Positions in rooms that were left.
    pub remembered: BTreeMap<String, (String, u64)>,
    /// The number of its last command or content.
    pub next_number: u64,
    /// It connects again then.
    pub wait_until_ms: u64,
    /// It has asked for the end of its connection.
    pub is_leaving: bool,
    /// The network was slow on this connection.
    pub was_slow: bool,
    /// The last time that time jumped on this connection.
    pub was_delayed: bool,
    /// Text messages that came on all its connections.
    pub messages_heard: u64,
    /// Text messages that went on connections that are over.
    pub messages_sent_before: u64,
    /// It stays away.
    pub is_retired: bool,
    /// The user whose tokens it has, if it says who it is.
    pub user: Option<String>,
    /// The token that its connection came with, or that renewed it.
    pub token: Option<Token>,
    /// A token of this connection was revoked, though it may have been renewed since.
    pub was_revoked: bool,
    /// It was told that its token ends.
    pub must_renew: bool,
    /// A token that is about to be sent.
    pub new_token: Option<Token>,
    /// What its page says that it is of.
    pub origin: Option<&'static str>,
    /// Its page was allowed by settings that held since it has asked for the upgrade.
    pub was_allowed: bool,
    /// The upgrade of this connection was answered 101.
    pub is_upgraded: bool,
    /// When that was heard.
    pub upgraded_ms: u64,
    /// This connection was told that it is about to close.
    pub is_told: bool,
    /// Its upgrade was not on its way yet when the server ceased to let anybody in.
    pub is_late: bool,
}

impl Client {
    /// A client that has not connected yet.
    pub fn new(index: usize, user: Option<String>) -> Client {
        Client {
            index,
            socket: None,
            session: None,
            fresh: None,
            is_resuming: false,
            asked: VecDeque::new(),
            retries: Vec::new(),
            repeatable: None,
            remembered: BTreeMap::new(),
            next_number: 0,
            wait_until_ms: 0,
            is_leaving: false,
            was_slow: false,
            was_delayed: false,
            messages_heard: 0,
            messages_sent_before: 0,
            is_retired: false,
            user,
            token: None,
            was_revoked: false,
            must_renew: false,
            new_token: None,
            origin: index.is_multiple_of(3).then_some(ORIGINS[0]),
            was_allowed: false,
            is_upgraded: false,
            upgraded_ms: 0,
            is_told: false,
            is_late: false,
        }
    }

    /// A promise that this client saw broken.
    pub fn broken(&self, promise: &'static str, seen: impl Into<String>) -> Broken {
        Broken { promise, client: Some(self.index), seen: seen.into() }
    }

    /// The session that frames are about.
    pub fn current(&self) -> Option<&Session> {
        if self.is_resuming { self.fresh.as_ref() } else { self.session.as_ref() }
    }

    /// The session that frames are about, to change.
    pub fn current_mut(&mut self) -> Option<&mut Session> {
        if self.is_resuming { self.fresh.as_mut() } else { self.session.as_mut() }
    }

    /// Whether it is in a session on a connection that works.
    pub fn is_settled(&self) -> bool {
        let open = self.socket.as_ref().is_some_and(Socket::is_open);
        open && !self.is_leaving && !self.is_resuming && self.session.is_some()
    }

    /// Begins to connect on a new socket.
    pub fn connect(&mut self, mut socket: Socket, random: &mut Random, scene: &mut Scene<'_>) {
        (self.is_upgraded, self.is_told, self.is_late) = (false, false, false);
        (self.was_allowed, self.was_revoked) = (false, false);
        (self.token, self.new_token, self.must_renew) = (None, None, false);
        self.renew(random, scene);
        // Who must say who it is may also do so in its first frame.
        if self.user.is_some() && (!scene.plan.requires_identity() || random.one_in(2)) {
            self.token = self.new_token.take();
        }
        socket.upgrade(self.origin, self.token.as_ref().map(|token| token.text.as_str()));
        self.is_resuming = self.session.is_some();
        (self.fresh, self.is_leaving) = (None, false);
        (self.was_slow, self.was_delayed) = (false, false);
        scene.transcript.add(
            Some(self.index),
            format!("connects{}", if self.is_resuming { " to resume" } else { "" }),
        );
        self.socket = Some(socket);
    }

    /// Sends the command that takes up the session again.
    pub fn send_resume(&mut self, scene: &mut Scene<'_>) {
        let Some(session) = &self.session else { return };
        let rooms = session.rooms.iter();
        let positions =
            rooms.map(|(room, view)| (room.clone(), (view.epoch.clone(), view.position())));
        let asked = Asked::Resume {
            token: session.token.clone(),
            positions: positions.collect(),
            direct: session.direct_last,
        };
        self.ask(asked, scene);
    }

    /// Sends a command with a fresh `ref`.
    pub fn ask(&mut self, asked: Asked, scene: &mut Scene<'_>) {
        let Some(socket) = &mut self.socket else { return };
        self.next_number += 1;
        let reference = self.next_number;
        socket.send(&Command(&asked).text(reference));
        scene.transcript.add(Some(self.index), format!("asks {reference}: {}", asked.words()));
        self.asked.push_back((reference, asked));
    }

    /// Begins to leave for good: its session ends.
    pub fn leave(&mut self, scene: &mut Scene<'_>) {
        if let Some(socket) = &mut self.socket {
            socket.close(1000);
            self.is_leaving = true;
            scene.transcript.add(Some(self.index), "leaves".to_owned());
        }
    }

    /// Gives the connection up, which the server may not know. What is left of it is returned.
    pub fn lose(&mut self, why: &str, scene: &mut Scene<'_>) -> Option<Socket> {
        let socket = self.socket.take()?;
        scene.transcript.add(Some(self.index), format!("has lost its connection: {why}"));
        self.messages_sent_before += socket.messages_sent;
        if let Some(fresh) = self.fresh.take() {
            scene.seen.push(Seen::SessionLeft { client_id: fresh.client_id });
        }
        if self.is_leaving
            && let Some(session) = self.session.take()
        {
            scene.seen.push(Seen::SessionLeft { client_id: session.client_id });
            self.retries.clear();
            self.repeatable = None;
        }
        let asked = std::mem::take(&mut self.asked);
        if let Some(session) = &mut self.session {
            // The server may have closed it long ago, and the client has not read that yet.
            let is_late = self.was_delayed || self.was_slow;
            session.lost_ms.get_or_insert(if is_late { 0 } else { scene.now_ms });
            session.is_unsure |= asked.iter().any(|(_, asked)| asked.changes_rooms());
            // A token that comes too late ends it, and the client does not read that.
            let sent = asked.iter().filter_map(|(_, asked)| match asked {
                Asked::Auth { token, .. } => Some(token.expires_ms),
                _ => None,
            });
            session.ends_from_ms = session.ends_from_ms.into_iter().chain(sent).min();
            // It may have been taken out of rooms, and not have read that.
            session.is_unsure |= !scene.plan.earlier.is_empty();
            let again = asked.into_iter().map(|(_, asked)| asked);
            self.retries.extend(again.filter(Asked::may_be_repeated));
        }
        (self.is_resuming, self.is_leaving) = (false, false);
        self.new_token = None;
        Some(socket)
    }

    /// Whether its page may connect under these settings.
    pub fn is_allowed_by(&self, config: &Config) -> bool {
        self.origin.is_none_or(|origin| config.allowed_origins.iter().any(|one| one == origin))
    }

    /// Begins to say who it is, or to resume, once messages can be sent.
    pub fn introduce(&mut self, scene: &mut Scene<'_>) {
        if let Some(token) = self.new_token.take() {
            self.ask(Asked::Auth { token: Box::new(token), is_first: true }, scene);
        }
        if self.is_resuming {
            self.send_resume(scene);
        }
    }

    /// Whether its token comes with the first command, which has no answer yet.
    pub fn is_introducing(&self) -> bool {
        let first = self.asked.front();
        first.is_some_and(|(_, asked)| matches!(asked, Asked::Auth { is_first: true, .. }))
    }

    /// Notes that tokens are revoked: those of which `is_it` says so by id, user and moment.
    pub fn revoke(&mut self, is_it: &dyn Fn(&str, &str, u64) -> bool) {
        let concerns = |token: &Token| is_it(&token.id, &token.user, token.issued_s);
        if self.token.as_ref().is_some_and(concerns)
            && let Some(session) = &mut self.session
        {
            session.is_gone = true;
        }
        // A session that is away came with an earlier token.
        if let (Some(session), Some(user)) = (&mut self.session, &self.user) {
            session.is_gone |= (self.socket.is_none() || self.is_resuming) && is_it("", user, 0);
        }
        let asked = self.asked.iter_mut().filter_map(|(_, asked)| match asked {
            Asked::Auth { token, .. } => Some(&mut **token),
            _ => None,
        });
        for token in self.token.iter_mut().chain(&mut self.new_token).chain(asked) {
            token.is_revoked |= is_it(&token.id, &token.user, token.issued_s);
            self.was_revoked |= token.is_revoked;
        }
    }

    /// Ends the session as it stands, because the server has said so.
    pub fn forget_session(&mut self, scene: &mut Scene<'_>) {
        for session in self.session.take().into_iter().chain(self.fresh.take()) {
            scene.seen.push(Seen::SessionLeft { client_id: session.client_id });
        }
        (self.repeatable, self.is_resuming) = (None, false);
        self.retries.clear();
    }
}
