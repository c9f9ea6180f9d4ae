//! What a client makes of the answers to its commands, and what such an answer may say.

use std::collections::BTreeMap;

use rusty_socks_protocol::{ErrorCode, Head, Message, answer};
use serde_json::value::RawValue;

use super::{
    client::{Broken, Client, Scene, Seen, Session, Verdict, View, ids},
    command::Asked,
    hear::{ALLOWED, parse, plain},
    tokens::{Act, Token},
};

/// The longest frame of a message that clients of a run make, in bytes.
const FRAME_BYTES_MAX: usize = 1000;

const AGREES: &str = "an answer agrees with its command";

impl Client {
    /// Takes in the answer to the oldest command that has none.
    pub fn hear_answer(&mut self, head: &Head<'_>, text: &str, scene: &mut Scene<'_>) -> Verdict {
        let reference = head.reference.and_then(|reference| reference.get().parse::<u64>().ok());
        let Some(reference) = reference else {
            if self.current().is_none() && self.user.is_some() {
                // Whose token came with the upgrade is refused without a command. A Close follows.
                let fault: answer::Error<'_> = parse(self, text)?;
                scene.transcript.add(Some(self.index), format!("hears {}", fault.code));
                return Ok(());
            }
            // The default room may have no place for a new client, which is told by an error.
            let fault: answer::Error<'_> = parse(self, text)?;
            let of_welcome = [ErrorCode::LimitExceeded, ErrorCode::Overloaded];
            let is_homeless = self.current().is_some_and(|session| session.rooms.is_empty());
            if is_homeless && of_welcome.contains(&fault.code) {
                scene.transcript.add(Some(self.index), format!("hears {} of welcome", fault.code));
                return Ok(());
            }
            return Err(self.broken("an answer has the ref of its command", text));
        };
        let asked = self.asked.pop_front();
        let Some((_, asked)) = asked.filter(|(expected, _)| *expected == reference) else {
            return Err(self.broken(
                "each command is answered once, in the order of the commands",
                format!("an answer to {reference}"),
            ));
        };
        if head.kind == "error" {
            let fault: answer::Error<'_> = parse(self, text)?;
            scene.transcript.add(Some(self.index), format!("hears {} to {reference}", fault.code));
            return self.hear_refusal(asked, &fault, scene);
        }
        scene.transcript.add(
            Some(self.index),
            format!("hears {} to {reference}, {} bytes", head.kind, text.len()),
        );
        if (head.kind == "pong") != matches!(asked, Asked::Ping { .. }) {
            return Err(self.broken(AGREES, format!("{} to {}", head.kind, asked.words())));
        }
        self.hear_ok(asked, text, scene)
    }

    fn hear_ok(&mut self, asked: Asked, text: &str, scene: &mut Scene<'_>) -> Verdict {
        let token = self.token.clone();
        let forbids = |room: &str, act: Act| !scene.plan.may_somehow(token.as_ref(), room, act);
        match asked {
            Asked::Join { room, .. }
            | Asked::History { room, .. }
            | Asked::Presence { room, .. }
                if forbids(&room, Act::Join) =>
            {
                Err(self.broken(ALLOWED, format!("it may read {room}")))
            }
            Asked::Publish { rooms, .. }
                if rooms.iter().any(|room| forbids(room, Act::Publish)) =>
            {
                Err(self.broken(ALLOWED, format!("it has published to {rooms:?}")))
            }
            Asked::Join { room, since, watch } => {
                let joined: answer::Joined<'_> = parse(self, text)?;
                self.hear_joined(&room, since, watch, &joined, scene)
            }
            Asked::JoinPattern { pattern } => {
                let subscribed: answer::Subscribed<'_> = parse(self, text)?;
                let Some(session) = self.current_mut() else { return Ok(()) };
                session.patterns.insert(pattern);
                for found in subscribed.rooms {
                    if forbids(&found.room, Act::Join) {
                        return Err(self.broken(ALLOWED, format!("it is in {}", found.room)));
                    }
                    let Some(session) = self.current_mut() else { return Ok(()) };
                    let mut view = View::new(&found.epoch, found.seq, found.overflow);
                    view.by_pattern = true;
                    if session.rooms.insert(found.room.to_string(), view).is_some() {
                        let room = found.room.into_owned();
                        return Err(self.broken("a pattern joins what one is not in yet", room));
                    }
                }
                Ok(())
            }
            Asked::Leave { room } => {
                let Some(session) = self.current_mut() else { return Ok(()) };
                let Some(view) = session.rooms.remove(&room) else {
                    return Err(self.broken(AGREES, format!("left {room}, being elsewhere")));
                };
                session.declined.insert(room.clone());
                self.remembered.insert(room, (view.epoch.clone(), view.position()));
                Ok(())
            }
            Asked::LeavePattern { pattern } => {
                let Some(session) = self.current_mut() else { return Ok(()) };
                session.patterns.remove(&pattern);
                let others = session.patterns.clone();
                let is_matched = |room: &str| {
                    others.iter().any(|other| room.starts_with(other.trim_end_matches('*')))
                };
                session.rooms.retain(|room, view| !view.by_pattern || is_matched(room));
                Ok(())
            }
            Asked::Publish { .. } => self.hear_published(asked, text, scene),
            Asked::History { room, before, after, limit } => {
                let page: answer::Page<'_> = parse(self, text)?;
                self.hear_page(&room, (before, after, limit), &page, scene)
            }
            Asked::Presence { room, watch } => {
                let answer: answer::Members<'_> = parse(self, text)?;
                let (members, count) = (ids(&answer.members), answer.count);
                scene.seen.push(Seen::Census { room: room.clone(), members, count });
                let view = self.current_mut().and_then(|session| session.rooms.get_mut(&room));
                if let (Some(view), Some(watch)) = (view, watch) {
                    if watch && !view.watching {
                        view.list(Some(&answer.members), Some(count));
                    }
                    view.watching = watch;
                }
                Ok(())
            }
            Asked::Direct { .. } | Asked::Broadcast { .. }
                if !scene.plan.may_direct(token.as_ref()) =>
            {
                Err(self.broken("who may not send direct messages sends none", "one was taken"))
            }
            Asked::Direct { to, content } => {
                scene.seen.push(Seen::DirectSent { to, content });
                Ok(())
            }
            Asked::Resume { positions, .. } => {
                let resumed: answer::Resumed<'_> = parse(self, text)?;
                self.hear_resumed(&positions, &resumed, scene)
            }
            Asked::Auth { token, .. } => {
                let authenticated: answer::Authenticated<'_> = parse(self, text)?;
                self.hear_authenticated(*token, &authenticated, scene)
            }
            Asked::Broadcast { .. } | Asked::Ping { .. } => Ok(()),
        }
    }

    fn hear_authenticated(
        &mut self,
        token: Token,
        told: &answer::Authenticated<'_>,
        scene: &mut Scene<'_>,
    ) -> Verdict {
        if *told.user != *token.user {
            return Err(self.broken("a client is the user of its token", told.user.to_string()));
        }
        let Some(session) = self.current_mut() else { return Ok(()) };
        let mut positions = Vec::new();
        for room in &told.left {
            if let Some(view) = session.rooms.remove(&**room) {
                session.declined.insert(room.to_string());
                positions.push((room.to_string(), (view.epoch.clone(), view.position())));
            }
        }
        // Its patterns may match rooms that it may be in only now, or may not be in any more.
        session.was_full = true;
        let stays = session.rooms.keys();
        let stays: Vec<&String> =
            stays.filter(|room| !scene.plan.may_somehow(Some(&token), room, Act::Join)).collect();
        if !stays.is_empty() {
            let seen = format!("it stays in {stays:?} with {}", token.words());
            return Err(self.broken(ALLOWED, seen));
        }
        if let Some(room) =
            told.left.iter().find(|room| scene.plan.may_surely(Some(&token), room, Act::Join))
        {
            let seen = format!("it has left {room} with {}", token.words());
            return Err(self.broken("a client stays where it may be", seen));
        }
        self.remembered.extend(positions);
        self.token = Some(token);
        Ok(())
    }

    fn hear_joined(
        &mut self,
        room: &str,
        since: Option<(String, u64)>,
        watch: bool,
        joined: &answer::Joined<'_>,
        scene: &mut Scene<'_>,
    ) -> Verdict {
        let since = since.as_ref().map(|(epoch, seq)| (epoch.as_str(), *seq));
        let at = (&*joined.epoch, joined.seq);
        let messages = (joined.recovered, &joined.messages[..]);
        self.check_recovery(room, since, at, messages, 0, scene)?;
        let mut view = View::new(&joined.epoch, joined.seq, joined.overflow);
        view.watching = watch;
        view.list(joined.members.as_deref(), joined.count);
        if watch != joined.members.is_some() {
            return Err(self.broken(AGREES, format!("members of {room}: {:?}", joined.count)));
        }
        let Some(session) = self.current_mut() else { return Ok(()) };
        match session.rooms.insert(room.to_owned(), view) {
            None => Ok(()),
            Some(_) => Err(self.broken(AGREES, format!("joined {room} twice"))),
        }
    }

    fn hear_published(&mut self, asked: Asked, text: &str, scene: &mut Scene<'_>) -> Verdict {
        let Asked::Publish { rooms, echo, id, .. } = &asked else { return Ok(()) };
        let (numbers, told, repeated): (Vec<(String, u64)>, String, bool) = match rooms.len() {
            1 => {
                let one: answer::Published<'_> = parse(self, text)?;
                (vec![(one.room.into_owned(), one.seq)], one.id.into_owned(), one.repeated)
            }
            _ => {
                let many: answer::PublishedToRooms<'_> = parse(self, text)?;
                let numbers = many.rooms.iter().map(|to| (to.room.to_string(), to.seq));
                (numbers.collect(), many.id.into_owned(), many.repeated)
            }
        };
        let named = numbers.iter().map(|(room, _)| room);
        if !named.eq(rooms.iter()) || id.as_ref().is_some_and(|id| *id != told) {
            return Err(self.broken(AGREES, format!("{text} to {}", asked.words())));
        }
        let earlier = self.repeatable.clone().filter(|(earlier, ..)| *earlier == asked);
        let Some(session) = self.current_mut() else { return Ok(()) };
        let mut first_epoch = None;
        for (room, seq) in &numbers {
            let Some(view) = session.rooms.get_mut(room) else {
                return Err(self.broken(AGREES, format!("published to {room}, being elsewhere")));
            };
            first_epoch.get_or_insert_with(|| view.epoch.clone());
            if !echo && *seq > view.last {
                view.own.insert(*seq);
            }
            scene.seen.push(Seen::Published {
                room: room.clone(),
                epoch: view.epoch.clone(),
                seq: *seq,
                id: told.clone(),
                repeated,
            });
        }
        let (seq, epoch) = (numbers[0].1, first_epoch.unwrap_or_default());
        if let Some((_, before, number)) = earlier
            && before == epoch
            && (!repeated || number != seq)
        {
            let seen = format!("number {seq}, repeated {repeated}; the first was {number}");
            return Err(self.broken("a repeat of a publish is answered as the first", seen));
        }
        if rooms.len() == 1 && id.is_some() {
            self.repeatable = Some((asked, epoch, seq));
        }
        Ok(())
    }

    fn hear_page(
        &mut self,
        room: &str,
        (before, after, limit): (Option<u64>, Option<u64>, u64),
        page: &answer::Page<'_>,
        scene: &mut Scene<'_>,
    ) -> Verdict {
        let seqs = self.list(room, &page.epoch, &page.messages, scene)?;
        let head = page.seq;
        let end = before.map_or(head, |before| before.saturating_sub(1).min(head));
        let kept = scene.plan.history_of(room) as u64;
        let oldest_kept = head.saturating_sub(kept) + 1;
        // The number at which the page begins and the one at which it ends, as far as it must.
        let (first, last) = (seqs.first().copied(), seqs.last().copied());
        let is_legal = seqs.len() as u64 <= limit
            && seqs.len() as u64 <= kept
            && match after {
                Some(after) => {
                    first.is_none_or(|first| first > after) && last.is_none_or(|last| last <= head)
                }
                None => last.is_none_or(|last| last == end),
            };
        // Nothing that is kept and asked for is left out, but for the size of the page.
        let expected = after.map_or(oldest_kept, |after| (after + 1).max(oldest_kept));
        let is_cut = match after {
            Some(_) => last.is_some_and(|last| last < head),
            None => first.is_some_and(|first| first > oldest_kept),
        };
        let may_be_cut = seqs.len() as u64 == limit
            || scene.plan.config.buffer_bytes / 2 <= FRAME_BYTES_MAX * limit as usize;
        let is_whole = !scene.plan.keeps_by_count()
            || match after {
                Some(_) => first.is_none_or(|first| first >= expected) && (!is_cut || may_be_cut),
                None => last.is_none() || end >= oldest_kept,
            };
        let is_from_start = after.is_some() || !may_be_cut || first.is_none();
        let before_first = first.map_or(end, |first| first - 1);
        if scene.plan.keeps_by_count() && is_from_start && expected <= before_first {
            // A room may begin with a larger number, so only who has seen these can tell.
            scene.seen.push(Seen::LeftOut {
                room: room.to_owned(),
                epoch: page.epoch.to_string(),
                from: expected,
                to: before_first,
            });
        }
        if !is_legal || !is_whole {
            let seen = format!(
                "{first:?} to {last:?} of {room} at {head}, asked before {before:?} after {after:?} \
                 limit {limit}, and {kept} are kept"
            );
            return Err(self.broken("a page of history is what was asked for", seen));
        }
        Ok(())
    }

    /// Takes in messages that came in an answer: one behind the other, without a hole.
    fn list(
        &self,
        room: &str,
        epoch: &str,
        messages: &[&RawValue],
        scene: &mut Scene<'_>,
    ) -> Result<Vec<u64>, Broken> {
        let mut seqs: Vec<u64> = Vec::with_capacity(messages.len());
        for text in messages {
            let message: Message<'_> = parse(self, text.get())?;
            let to = message.rooms.iter().find(|to| to.room == room).map(|to| to.seq);
            let one = message.seq.filter(|_| message.room.as_deref() == Some(room));
            let Some(seq) = to.or(one) else {
                return Err(self.broken("an answer has messages of its room", text.get()));
            };
            scene.seen.push(Seen::Message {
                room: room.to_owned(),
                epoch: epoch.to_owned(),
                seq,
                id: message.id.to_string(),
                content: plain(message.content).to_owned(),
            });
            seqs.push(seq);
        }
        match seqs.windows(2).find(|pair| pair[1] != pair[0] + 1) {
            Some(pair) => Err(self.broken(
                "a list of messages has no hole and no repeat",
                format!("{pair:?} of {room}"),
            )),
            None => Ok(seqs),
        }
    }

    /// Holds what an answer says was missed against the position that was given. So many `others`
    /// share the bytes of the answer.
    fn check_recovery(
        &self,
        room: &str,
        since: Option<(&str, u64)>,
        (epoch, head): (&str, u64),
        (recovered, messages): (bool, &[&RawValue]),
        others: usize,
        scene: &mut Scene<'_>,
    ) -> Verdict {
        let seqs = self.list(room, epoch, messages, scene)?;
        let what = format!("{seqs:?} of {room} at {head}, since {:?}", since.map(|at| at.1));
        let promise = "what was missed is recovered exactly, or not at all";
        match since {
            Some((before, seq)) if recovered => {
                let is_exact = before == epoch
                    && seqs.last().is_none_or(|last| *last == head)
                    && seqs.first().is_none_or(|first| *first > seq);
                let (from, to) = (seq + 1, seqs.first().map_or(head, |first| first - 1));
                if from <= to {
                    let (room, epoch) = (room.to_owned(), epoch.to_owned());
                    scene.seen.push(Seen::LeftOut { room, epoch, from, to });
                }
                return if is_exact { Ok(()) } else { Err(self.broken(promise, what)) };
            }
            Some((before, seq)) if before == epoch && seq <= head => {
                let missed = (head - seq) as usize;
                let fits = (missed + others) * FRAME_BYTES_MAX < scene.plan.config.buffer_bytes / 2;
                let is_kept = missed <= scene.plan.history_of(room);
                if !seqs.is_empty() || (fits && is_kept && scene.plan.keeps_by_count()) {
                    return Err(self.broken(promise, format!("not recovered: {what}")));
                }
            }
            Some((before, _)) if before == epoch => {
                return Err(self.broken("a room never goes back within its epoch", what));
            }
            _ => {}
        }
        Ok(())
    }

    fn hear_resumed(
        &mut self,
        positions: &BTreeMap<String, (String, u64)>,
        resumed: &answer::Resumed<'_>,
        scene: &mut Scene<'_>,
    ) -> Verdict {
        let Some(before) = self.session.take() else { return Ok(()) };
        if resumed.client_id != before.client_id || resumed.session != before.token {
            return Err(self.broken("a resumed client is who it was", "another id"));
        }
        let mut session = Session {
            rooms: BTreeMap::new(),
            patterns: resumed.patterns.iter().map(ToString::to_string).collect(),
            direct_may_skip: !resumed.direct.recovered,
            direct_owed: resumed.direct.seq,
            is_unsure: before.is_unsure,
            was_resumed: true,
            lost_ms: None,
            // Its token was revoked since, which may have found the session away again already.
            is_gone: self.was_revoked,
            ends_from_ms: None,
            message_bytes_max: self
                .fresh
                .as_ref()
                .map_or(before.message_bytes_max, |fresh| fresh.message_bytes_max),
            ..before.clone()
        };
        if !before.is_unsure && session.patterns != before.patterns {
            return Err(self.broken("a resumed client has its patterns", "others"));
        }
        let all =
            resumed.rooms.iter().filter_map(|answer| answer.messages.as_ref()).map(Vec::len).sum();
        for answer in &resumed.rooms {
            let room = answer.room.as_ref();
            let (Some(epoch), Some(seq)) = (&answer.epoch, answer.seq) else {
                session.was_full = true;
                let is_forbidden = answer.error.as_ref() == Some(&ErrorCode::Forbidden);
                if is_forbidden && scene.plan.may_surely(self.token.as_ref(), room, Act::Join) {
                    return Err(self.broken("a client stays where it may be", room));
                }
                continue;
            };
            if !scene.plan.may_somehow(self.token.as_ref(), room, Act::Join) {
                return Err(self.broken(ALLOWED, format!("it has resumed in {room}")));
            }
            let recovered = answer.recovered == Some(true);
            let messages = answer.messages.as_deref().unwrap_or_default();
            let since = positions.get(room).map(|(epoch, seq)| (epoch.as_str(), *seq));
            // A room that was made meanwhile and matches a pattern comes whole.
            let is_matched = || {
                let is_of = |pattern: &String| room.starts_with(pattern.trim_end_matches('*'));
                session.patterns.iter().any(is_of)
            };
            let whole = (recovered && since.is_none() && is_matched()).then_some((&**epoch, 0));
            let since = since.or(whole);
            self.check_recovery(room, since, (epoch, seq), (recovered, messages), all, scene)?;
            let overflow = answer.overflow.unwrap_or(rusty_socks_protocol::Overflow::Close);
            let mut view = View::new(epoch, seq, overflow);
            let earlier = before.rooms.get(room);
            if earlier.is_none() && whole.is_none() && !before.is_unsure && !is_matched() {
                return Err(self.broken("a resumed client is where it was", format!("in {room}")));
            }
            view.by_pattern = earlier.map_or_else(is_matched, |view| view.by_pattern);
            view.watching = answer.members.is_some();
            view.list(answer.members.as_deref(), answer.count);
            if !before.is_unsure && earlier.is_some_and(|view| view.watching) != view.watching {
                return Err(self.broken("a resumed client watches what it watched", room));
            }
            session.rooms.insert(room.to_owned(), view);
        }
        let is_there = |room: &String| resumed.rooms.iter().any(|answer| answer.room == *room);
        if let Some(room) = before.rooms.keys().find(|room| !is_there(room))
            && !before.is_unsure
        {
            return Err(self.broken("a resumed client is where it was", format!("not in {room}")));
        }
        if !resumed.direct.recovered {
            scene.seen.push(Seen::DirectsLost { to: session.client_id.clone() });
        }
        if resumed.direct.seq < session.direct_last {
            return Err(self.broken("direct messages keep their numbers", "fewer than were got"));
        }
        if let Some(fresh) = self.fresh.take() {
            scene.seen.push(Seen::SessionLeft { client_id: fresh.client_id });
        }
        (self.session, self.is_resuming) = (Some(session), false);
        Ok(())
    }
}
