"""What server and client say to each other: a session, over as many connections as it takes.

Frames come in, and commands go into the outbox. No I/O.
"""

from __future__ import annotations

import enum
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Any

from . import events
from .errors import Misbehaved, RustySocksError
from .frames import (
    Frame,
    frames_in,
    member_in,
    message_in,
    messages_in,
    number_in,
    seq_in,
    text_in,
    text_or_none,
    texts_in,
)
from .messages import Message, Position
from .names import is_pattern, matches
from .options import Options
from .outbox import Command, Entry, Outbox
from .queues import MessageQueue
from .subscription import Subscription
from .tracker import Held, RoomRecord, Tracker, seq_of

# Sessions in a row whose messages still count as own.
IDS_MAX = 16


class Phase(enum.Enum):
    GREETING = "there is no session yet"
    RESUMING = "the answer to resume is awaited"
    REJOINING = "rooms are joined again"
    LIVE = "all is as it was"


class Session:
    def __init__(
        self,
        options: Options,
        outbox: Outbox,
        *,
        emit: Callable[[events.Event], None],
        greeted: Callable[[Frame], None],
        live: Callable[[], None],
        renew: Callable[[], None],
    ) -> None:
        self._options = options
        self._outbox = outbox
        self._emit = emit
        self._greeted = greeted
        self._live = live
        self._renew = renew
        self.tracker = Tracker(
            self, hold_max=options.hold_max, hold_bytes_max=options.hold_bytes_max
        )
        self.token: str | None = None
        self.client_id: str | None = None
        self.user: str | None = None
        self.default_room: str | None = None
        # How long the server asks to be left alone.
        self.reconnect_after_s: float | None = None
        # The rooms and patterns that the program has joined and not left.
        self.wanted: dict[str, Subscription] = {}
        self._ids: OrderedDict[str, None] = OrderedDict()
        self._echoes: OrderedDict[str, None] = OrderedDict()
        self._direct = 0
        self._phase = Phase.GREETING
        self._welcome: Frame = {}
        self._connected: events.Connected | None = None
        self._rejoins = 0
        # Rooms of patterns of which the server has said nothing since the session was lost.
        self._unconfirmed: set[str] = set()
        # Pages to be asked for, one at a time.
        self._fetches: deque[tuple[str, int, int]] = deque()
        self._is_fetching = False
        # Rooms whose members were asked for.
        self._asked: set[str] = set()

    # --- The connection.

    def opened(self, auth: str | None) -> None:
        """There is a connection; ``auth`` is a token that it has not shown yet."""
        self.reconnect_after_s = None
        if auth is not None:
            self.authenticate(auth)
        if self.token is None:
            return
        self._phase = Phase.RESUMING
        rooms = [
            {"room": room.name, "epoch": room.epoch, "seq": room.seq}
            for room in self.tracker.rooms()
        ]
        command = Command("resume", session=self.token, rooms=rooms, direct=self._direct)
        self._outbox.add_urgent(Entry(command, ok=self._resumed, failed=self._unrecoverable))

    def over(self) -> None:
        """The connection is gone."""
        self._phase = Phase.GREETING
        self._welcome = {}
        self._rejoins = 0
        self._unconfirmed = set()
        self._fetches.clear()
        self._is_fetching = False
        self._asked = set()
        # The server may have carried them out, and the next session must not come back to them.
        for entry in self._outbox.all():
            if entry.command.type == "leave":
                self._end(entry.command.fields["room"])
        self.tracker.interrupt()

    def authenticate(self, token: str) -> None:
        """Says who this client is. A server that refuses the token says why, and closes."""

        def ok(answer: Frame) -> None:
            for room in texts_in(answer, "left"):
                self._excluded(room)

        def failed(error: RustySocksError) -> None:
            self._emit(events.Failed(error.code, error.message))

        self._outbox.add_urgent(Entry(Command("auth", token=token), ok=ok, failed=failed))

    def ended(self, error: RustySocksError | None) -> None:
        """There will be no connection any more."""
        for subscription in self.wanted.values():
            subscription.end(error)

    def receive(self, frame: Frame, size: int) -> None:
        """Takes one frame of so many bytes."""
        self.tracker.received(size)
        kind = frame.get("type")
        if kind in ("ok", "pong") or kind == "error" and "ref" in frame:
            _weigh(frame, size)
            self._outbox.answered(frame)
        elif kind == "welcome":
            self._welcome = frame
            if self._phase is Phase.GREETING:
                self._begin(frame)
        elif kind == "closing":
            ms = number_in(frame, "reconnect_after_ms")
            self.reconnect_after_s = None if ms is None else ms / 1000
            reason = text_or_none(frame, "reason") or ""
            self._emit(events.Closing(reason, self.reconnect_after_s))
        elif self._phase in (Phase.REJOINING, Phase.LIVE):
            self._notice(kind, frame, size)

    def _notice(self, kind: Any, frame: Frame, size: int) -> None:
        if kind == "message":
            self.tracker.live(message_in(frame), size)
        elif kind == "direct":
            self._take_direct(frame)
        elif kind == "gap":
            if frame.get("presence"):
                self._ask_presence(text_in(frame, "room"))
            else:
                self.tracker.gap(text_in(frame, "room"), seq_in(frame, "from"), seq_in(frame, "to"))
        elif kind == "epoch":
            self._take_epoch(text_in(frame, "room"), text_in(frame, "epoch"), seq_in(frame))
        elif kind == "matched":
            self._matched(frame)
        elif kind == "unmatched":
            pattern = text_in(frame, "pattern")
            if pattern in self.wanted:
                self._emit(events.Unmatched(pattern, text_in(frame, "room")))
        elif kind in ("joined", "left"):
            self._changed(text_in(frame, "room"), kind, frame)
        elif kind == "presence":
            for change in ("joined", "left"):
                for member in frames_in(frame, change):
                    self._changed(text_in(frame, "room"), change, member)
        elif kind == "broadcast":
            self._emit(events.Broadcast(**_spoken(frame)))
        elif kind == "token_expires":
            self._renew()
        elif kind == "error":
            code, message = text_in(frame, "code"), text_or_none(frame, "message")
            self._emit(events.Failed(code, message or ""))

    # --- A new session.

    def _begin(self, welcome: Frame) -> None:
        previous = self.client_id
        self._identify(text_in(welcome, "client_id"), text_or_none(welcome, "session"), welcome)
        self._direct = 0
        self._connected = events.Connected(
            text_in(welcome, "client_id"), False, previous, self.user
        )
        room = text_or_none(welcome, "room")
        if room is not None and previous is None:
            self.default_room = room
            self.wanted[room] = self.subscription(room)
            self._follow(room, text_in(welcome, "epoch"), seq_in(welcome), is_greeting=True)
        elif room is not None:
            # The server joined it regardless of our position, or although we had left it.
            self._leave(room)
        if previous is not None:
            self._unconfirmed = {room.name for room in self.tracker.rooms() if room.via}
            # A room that was joined through a pattern cannot be joined by name.
            for name in sorted(self.wanted, key=is_pattern):
                self._rejoin(name)
        self._maybe_live()

    def _unrecoverable(self, error: RustySocksError) -> None:
        # Whatever the reason, only the session of the welcome is left.
        self._phase = Phase.GREETING
        if self._welcome:
            self._begin(self._welcome)

    def _identify(self, client_id: str, token: str | None, welcome: Frame) -> None:
        self._phase = Phase.REJOINING
        self.client_id, self.token = client_id, token
        self.user = text_or_none(welcome, "user")
        self._ids[client_id] = None
        if len(self._ids) > IDS_MAX:
            self._ids.popitem(last=False)
        limits = welcome.get("limits")
        bytes_max = number_in(welcome, "max_message_bytes")
        self._outbox.greeted(bytes_max, limits if isinstance(limits, dict) else None)
        self._greeted(welcome)

    def _rejoin(self, name: str) -> None:
        wish = self.wanted[name]

        def failed(error: RustySocksError) -> None:
            if self.wanted.get(name) is wish:
                self._dropped(name, error.code)

        if is_pattern(name):

            def matched(answer: Frame) -> None:
                for place in frames_in(answer, "rooms"):
                    self._appear(place, name)

            self._ask(Command("join", room=name), matched, failed)
            return
        room = self.tracker.room(name)
        since = None if room is None else {"epoch": room.epoch, "seq": room.seq}

        def ok(answer: Frame) -> None:
            if name not in self.tracker:
                self._follow(name, text_in(answer, "epoch"), seq_in(answer))
            self._go_on(answer)

        presence = True if wish.presence else None
        command = Command("join", room=name, since=since, presence=presence, sender=wish.sender)
        self._ask(command, ok, failed)

    def _appear(self, place: Frame, pattern: str) -> None:
        """A room of a pattern, in a new session or after a resume."""
        name = text_in(place, "room")
        self._unconfirmed.discard(name)
        if name not in self.tracker:
            # It was made while the client was away, so that all of its messages are new.
            messages = messages_in(place) if place.get("recovered") is True else []
            seq = seq_of(messages[0], name) - 1 if messages else 0
            self._follow(name, text_in(place, "epoch"), seq, via=pattern)
            self._emit(events.Matched(pattern, name, Position(text_in(place, "epoch"), seq)))
        self._go_on(place)

    # --- The session from before.

    def _resumed(self, answer: Frame) -> None:
        client_id = text_in(answer, "client_id")
        previous, token = self.client_id, text_or_none(answer, "session")
        self._identify(client_id, token, self._welcome)
        self._connected = events.Connected(client_id, True, previous, self.user)
        places = frames_in(answer, "rooms")
        patterns = set(texts_in(answer, "patterns"))
        for pattern in patterns:
            if pattern in self.wanted or self._is_leaving(pattern):
                continue
            if not self._settle_join(pattern, places):
                self._leave(pattern)
        missing = {room.name for room in self.tracker.rooms()}
        for place in places:
            missing.discard(text_in(place, "room"))
            self._take_up(place)
        for name in missing:
            if name in self.wanted:
                self._rejoin(name)
            else:
                self._dropped(name, "not_member")
        for name in list(self.wanted):
            if is_pattern(name) and name not in patterns:
                self._rejoin(name)
        direct = answer.get("direct")
        if isinstance(direct, dict) and direct.get("recovered") is False:
            if seq_in(direct) > self._direct:
                # Those that are kept follow, so some of these come after all.
                self._emit(events.Lost(None, self._direct + 1, seq_in(direct), "not_kept"))
        self._maybe_live()

    def _take_up(self, place: Frame) -> None:
        """A room that the server says the session is in, with what was missed."""
        name = text_in(place, "room")
        code = text_or_none(place, "error")
        if code is not None:
            if name in self.tracker:
                self._dropped(name, code)
        elif name in self.tracker:
            self._go_on(place)
        elif self._settle_join(name, [place]) or self._is_leaving(name):
            return
        else:
            pattern = self._pattern_of(name)
            if pattern is None:
                self._leave(name)
            else:
                self._appear(place, pattern)

    def _settle_join(self, name: str, places: list[Frame]) -> bool:
        """Whether a join was carried out whose answer was lost with the connection."""
        entry = self._outbox.find(
            lambda entry: entry.command.type == "join"
            and entry.command.fields["room"] == name
            and entry.sends > 0
        )
        if entry is None:
            return False
        if is_pattern(name):
            known = [place for place in places if place.get("error") is None]
            rooms = [place for place in known if matches(name, text_in(place, "room"))]
            self._outbox.settle(entry, {"room": name, "rooms": rooms})
        else:
            self._outbox.settle(entry, places[0])
        return True

    def _go_on(self, place: Frame) -> None:
        """The server goes on with a room that is known."""
        self.tracker.resume(
            text_in(place, "room"),
            text_in(place, "epoch"),
            seq_in(place),
            messages=messages_in(place) if place.get("recovered") is True else None,
            size=place["size"],
            is_latest=place.get("overflow") == "latest",
        )
        self._read_members(place)

    def _maybe_live(self) -> None:
        if self._phase is not Phase.REJOINING or self._rejoins > 0:
            return
        for name in self._unconfirmed:
            # They ended with the session, and nobody has made them again.
            if name in self.tracker:
                self._dropped(name, "not_member")
        self._unconfirmed = set()
        self._phase = Phase.LIVE
        if self._connected is not None:
            self._emit(self._connected)
        self._outbox.open()
        self._live()

    # --- Rooms.

    def subscription(
        self, name: str, *, presence: bool = False, sender: str | None = None
    ) -> Subscription:
        queue = MessageQueue(
            max_=self._options.queue_max,
            bytes_max=self._options.queue_bytes_max,
            has_space=self.tracker.drain,
        )
        most = self._options.members_max
        return Subscription(name, queue, presence=presence, sender=sender, members_max=most)

    def joined(self, subscription: Subscription, since: Position | None, answer: Frame) -> None:
        """Takes the answer to a join by the program."""
        name = subscription.name
        self.wanted[name] = subscription
        if is_pattern(name):
            for place in frames_in(answer, "rooms"):
                room = text_in(place, "room")
                if room not in self.tracker:
                    latest = place.get("overflow") == "latest"
                    epoch, seq = text_in(place, "epoch"), seq_in(place)
                    self._follow(room, epoch, seq, via=name, is_latest=latest)
            return
        position = since or Position(text_in(answer, "epoch"), seq_in(answer))
        self._follow(name, position.epoch, position.seq)
        self._go_on(answer)

    def unwanted(self, subscription: Subscription) -> None:
        """The server has carried out a join whose caller has gone."""
        name = subscription.name
        if self.wanted.get(name) is subscription:
            self._end(name)
        if name not in self.wanted:
            self._leave(name)

    def left(self, name: str) -> None:
        """The server has carried out a leave."""
        self._end(name)

    def _follow(
        self,
        name: str,
        epoch: str,
        seq: int,
        *,
        via: str | None = None,
        is_latest: bool = False,
        is_greeting: bool = False,
    ) -> None:
        if name not in self.tracker and len(self.tracker) >= self._options.rooms_max:
            raise Misbehaved(f"the client is in more than {self._options.rooms_max} rooms")
        self.tracker.start(
            name, epoch, seq, via=via, is_latest=is_latest, is_greeting=is_greeting
        )

    def _matched(self, frame: Frame) -> None:
        name, pattern = text_in(frame, "room"), text_in(frame, "pattern")
        if pattern not in self.wanted:
            found = self._pattern_of(name)
            if found is None:
                # It was on its way when the pattern was left.
                return
            pattern = found
        epoch, seq = text_in(frame, "epoch"), seq_in(frame)
        latest = frame.get("overflow") == "latest"
        room = self.tracker.room(name)
        if room is None:
            self._follow(name, epoch, seq, via=pattern, is_latest=latest)
        elif room.epoch != epoch:
            self.tracker.resume(name, epoch, seq, messages=None, is_latest=latest)
        self._emit(events.Matched(pattern, name, Position(epoch, seq)))

    def _pattern_of(self, name: str) -> str | None:
        """Returns the pattern that keeps the client in a room, if one does."""
        return next((own for own in self.wanted if is_pattern(own) and matches(own, name)), None)

    def _is_leaving(self, name: str) -> bool:
        """Whether the server may still be told to leave this room or pattern."""

        def leaves(entry: Entry) -> bool:
            left = entry.command.fields.get("room")
            if entry.command.type != "leave" or not isinstance(left, str):
                return False
            return left == name or is_pattern(left) and matches(left, name)

        return self._outbox.find(leaves) is not None

    def _end(self, name: str, error: RustySocksError | None = None) -> None:
        """Forgets a room or pattern, and with a pattern the rooms that no other one matches."""
        subscription = self.wanted.pop(name, None)
        if subscription is not None:
            subscription.end(error)
        self.tracker.stop(name)
        if not is_pattern(name):
            return
        for room in self.tracker.rooms():
            if room.via == name:
                room.via = self._pattern_of(room.name)
                if room.via is None:
                    self.tracker.stop(room.name)

    def _dropped(self, name: str, code: str) -> None:
        self._end(name, RustySocksError("left", f"the server took the client out of it: {code}"))
        self._emit(events.Dropped(name, code))

    def _excluded(self, name: str) -> None:
        """A new token or new rules do not allow this room."""
        if name in self.tracker:
            self._dropped(name, "forbidden")

    def _leave(self, name: str) -> None:
        """The session is in a room that the program is not in."""
        self._ask(Command("leave", room=name), lambda answer: None, lambda error: None)

    def _ask(
        self,
        command: Command,
        ok: Callable[[Frame], None],
        failed: Callable[[RustySocksError], None],
    ) -> None:
        """Sends a command that must be answered before the session is as it was."""
        self._rejoins += 1

        def done(answer: Frame) -> None:
            ok(answer)
            self._rejoins -= 1
            self._maybe_live()

        def not_done(error: RustySocksError) -> None:
            failed(error)
            self._rejoins -= 1
            self._maybe_live()

        self._outbox.add_urgent(Entry(command, ok=done, failed=not_done))

    # --- Messages.

    def deliver(self, held: Held, names: list[str]) -> None:
        message = held.message
        if message.client_id in self._ids:
            if held.is_replay:
                self._confirm(message)
                # The server sends an own message back only in an answer, or with `echo`.
                if message.id not in self._echoes:
                    return
        for name in names:
            subscription = self._reader_of(name)
            if subscription is not None:
                subscription.queue.push(held, name)

    def lost(self, room: str, first: int | None, last: int | None, reason: str) -> None:
        self._emit(events.Lost(room, first, last, reason))

    def may_yield(self, room: str) -> bool:
        subscription = self._reader_of(room)
        return subscription is None or not subscription.queue.is_full

    def _reader_of(self, name: str) -> Subscription | None:
        subscription = self.wanted.get(name)
        if subscription is not None:
            return subscription
        room = self.tracker.room(name)
        return None if room is None or room.via is None else self.wanted.get(room.via)

    def fetch(self, room: str, after: int, fetch: int) -> None:
        self._fetches.append((room, after, fetch))
        self._fetch_next()

    def _fetch_next(self) -> None:
        while self._fetches and not self._is_fetching:
            name, after, fetch = self._fetches.popleft()
            room = self.tracker.room(name)
            # A room that was left, and perhaps joined again, asks for its own gap.
            if room is not None and room.is_fetching and room.fetch == fetch:
                self._fetch_page(room, after)

    def _fetch_page(self, room: RoomRecord, after: int) -> None:
        self._is_fetching = True
        name, fetch = room.name, room.fetch

        def ok(page: Frame) -> None:
            self._is_fetching = False
            epoch, seq, messages = text_in(page, "epoch"), seq_in(page), messages_in(page)
            self.tracker.fill(name, fetch, epoch, seq, messages, page["size"])
            self._fetch_next()

        def failed(error: RustySocksError) -> None:
            self._is_fetching = False
            self.tracker.unfilled(name, fetch)
            self._fetch_next()

        command = Command("history", room=name, after=after)
        self._outbox.add_urgent(Entry(command, ok=ok, failed=failed))

    def expect_echo(self, id_: str) -> None:
        self._echoes[id_] = None
        if len(self._echoes) > self._options.echoes_max:
            self._echoes.popitem(last=False)

    def published(self, entry: Entry, answer: Frame) -> None:
        """An own message has its numbers."""
        if entry.is_doubtful or entry.command.fields.get("echo"):
            return
        for place in frames_in(answer, "rooms") or [answer]:
            self.tracker.own(text_in(place, "room"), seq_in(place))

    def _confirm(self, message: Message) -> None:
        """An own message was among those missed, so the command that published it needs no
        answer."""
        entry = self._outbox.find(
            lambda entry: entry.command.type == "publish"
            and entry.command.fields.get("id") == message.id
        )
        if entry is None:
            return
        places = [{"room": place.room, "seq": place.seq} for place in message.rooms]
        answer = {"rooms": places} if "rooms" in entry.command.fields else places[0]
        self._outbox.settle(entry, {**answer, "repeated": True})

    def _take_epoch(self, name: str, epoch: str, seq: int) -> None:
        for entry in self._outbox.all():
            is_publish = entry.is_sent and entry.command.type == "publish"
            if is_publish and name in entry.command.rooms:
                entry.is_doubtful = True
        self.tracker.epoch(name, epoch, seq)

    def _take_direct(self, frame: Frame) -> None:
        seq = seq_in(frame)
        # Those that are repeated after a resume are known by their number.
        if seq > self._direct:
            self._direct = seq
            self._emit(events.Direct(seq=seq, **_spoken(frame)))

    # --- Presence.

    def _changed(self, name: str, change: str, frame: Frame) -> None:
        member = member_in(frame)
        if member.client_id == self.client_id:
            # Not of our own accord: the rules of the server have changed. In a summary it is we
            # who came.
            if change == "left" and frame.get("type") == "left":
                self._excluded(name)
            return
        subscription = self.wanted.get(name)
        # It was on its way when the room was left.
        if subscription is None or subscription.is_left:
            return
        if change == "joined":
            subscription.joined(member)
            self._emit(events.Joined(name, member))
        else:
            subscription.left(member)
            self._emit(events.Left(name, member))

    def _read_members(self, answer: Frame) -> None:
        if "members" not in answer:
            return
        name = text_in(answer, "room")
        subscription = self.wanted.get(name)
        if subscription is not None:
            members = [member_in(frame) for frame in frames_in(answer, "members")]
            subscription.read_members(members, seq_in(answer, "count"))
            self._emit(events.PresenceRead(name))

    def _ask_presence(self, name: str) -> None:
        if name not in self.wanted or name in self._asked:
            return
        self._asked.add(name)

        def ok(answer: Frame) -> None:
            self._asked.discard(name)
            self._read_members({**answer, "room": name})

        def failed(error: RustySocksError) -> None:
            self._asked.discard(name)

        self._outbox.add_urgent(Entry(Command("presence", room=name), ok=ok, failed=failed))


def _weigh(answer: Frame, size: int) -> None:
    """Writes into an answer, and into the rooms in it, what each of its messages weighs."""
    rooms = answer.get("rooms")
    # What makes no sense is told to whoever asked, when it is read.
    listed = rooms if isinstance(rooms, list) else []
    places = [answer, *(place for place in listed if isinstance(place, dict))]
    lists = (place.get("messages") for place in places)
    count = sum(len(messages) for messages in lists if isinstance(messages, list))
    for place in places:
        place["size"] = size // max(1, count)


def _spoken(frame: Frame) -> dict[str, Any]:
    """Returns the fields that a direct message and a broadcast have in common."""
    return {
        "id": text_in(frame, "id"),
        "content": frame.get("content"),
        "client_id": text_in(frame, "client_id"),
        "timestamp": text_in(frame, "timestamp"),
        "sender": frame.get("sender"),
        "user": text_or_none(frame, "user"),
    }
