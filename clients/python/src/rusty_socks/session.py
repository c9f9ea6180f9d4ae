"""What server and client say to each other: a session, over as many connections as it takes.

Frames come in, and commands go into the outbox. No I/O.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Any

from . import events
from .errors import RustySocksError
from .frames import (
    Frame,
    frames_in,
    message_in,
    messages_in,
    number_in,
    seq_in,
    text_in,
    text_or_none,
    texts_in,
)
from .messages import Position
from .names import is_pattern, matches
from .options import Options
from .outbox import Command, Entry, Outbox
from .rooms import Rooms
from .subscription import Subscription
from .tracker import seq_of


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
        self.rooms = Rooms(options, outbox, emit)
        self.token: str | None = None
        self.client_id: str | None = None
        self.user: str | None = None
        self.default_room: str | None = None
        # How long the server asks to be left alone.
        self.reconnect_after_s: float | None = None
        # The number of the last direct message.
        self._direct = 0
        self._phase = Phase.GREETING
        self._welcome: Frame = {}
        self._connected: events.Connected | None = None
        # Commands that must be answered before the session is as it was.
        self._rejoins = 0
        # Rooms of patterns of which the server has said nothing since the session was lost.
        self._unconfirmed: set[str] = set()

    # --- The connection.

    def opened(self, auth: str | None) -> None:
        """There is a connection; ``auth`` is a token that it has not shown yet."""
        self.reconnect_after_s = None
        self._rejoins = 0
        if auth is not None:
            self.authenticate(auth)
        if self.token is None:
            return
        self._phase = Phase.RESUMING
        rooms = [
            {"room": room.name, "epoch": room.epoch, "seq": room.seq}
            for room in self.rooms.tracker.rooms()
        ]
        command = Command("resume", session=self.token, rooms=rooms, direct=self._direct)
        self._outbox.add_urgent(Entry(command, ok=self._resumed, failed=self._unrecoverable))

    def over(self) -> None:
        """The connection is gone."""
        self._phase = Phase.GREETING
        self._welcome = {}
        self._rejoins = 0
        self._unconfirmed = set()
        self.rooms.over()

    def authenticate(self, token: str) -> None:
        """Says who this client is. A server that refuses the token says why, and closes."""

        def ok(answer: Frame) -> None:
            for room in texts_in(answer, "left"):
                self.rooms.excluded(room)

        def failed(error: RustySocksError) -> None:
            self._emit(events.Failed(error.code, error.message))

        self._outbox.add_urgent(Entry(Command("auth", token=token), ok=ok, failed=failed))

    def receive(self, frame: Frame, size: int) -> None:
        """Takes one frame of so many bytes."""
        self.rooms.tracker.received(size)
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
            self.rooms.tracker.live(message_in(frame), size)
        elif kind == "direct":
            self._take_direct(frame)
        elif kind == "gap":
            if frame.get("presence"):
                self.rooms.ask_presence(text_in(frame, "room"))
            else:
                first, last = seq_in(frame, "from"), seq_in(frame, "to")
                self.rooms.tracker.gap(text_in(frame, "room"), first, last)
        elif kind == "epoch":
            self.rooms.take_epoch(text_in(frame, "room"), text_in(frame, "epoch"), seq_in(frame))
        elif kind == "matched":
            self.rooms.matched(frame)
        elif kind == "unmatched":
            pattern = text_in(frame, "pattern")
            if pattern in self.rooms.wanted:
                self._emit(events.Unmatched(pattern, text_in(frame, "room")))
        elif kind in ("joined", "left"):
            self.rooms.changed(text_in(frame, "room"), kind, frame)
        elif kind == "presence":
            for change in ("joined", "left"):
                for member in frames_in(frame, change):
                    self.rooms.changed(text_in(frame, "room"), change, member)
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
            self.rooms.wanted[room] = self.rooms.subscription(room)
            self.rooms.follow(room, text_in(welcome, "epoch"), seq_in(welcome), is_greeting=True)
        elif room is not None:
            # The server joined it regardless of our position, or although we had left it.
            self._leave(room)
        if previous is not None:
            self._unconfirmed = {room.name for room in self.rooms.tracker.rooms() if room.via}
            # A room that was joined through a pattern cannot be joined by name.
            for name in sorted(self.rooms.wanted, key=is_pattern):
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
        self.rooms.identify(client_id)
        limits = welcome.get("limits")
        bytes_max = number_in(welcome, "max_message_bytes")
        self._outbox.greeted(bytes_max, limits if isinstance(limits, dict) else None)
        self._greeted(welcome)

    def _rejoin(self, name: str) -> None:
        wish = self.rooms.wanted[name]

        def failed(error: RustySocksError) -> None:
            if self.rooms.wanted.get(name) is wish:
                self.rooms.dropped(name, error.code)

        if is_pattern(name):

            def matched(answer: Frame) -> None:
                for place in frames_in(answer, "rooms"):
                    self._appear(place, name)

            self._ask(Command("join", room=name), matched, failed)
            return
        room = self.rooms.tracker.room(name)
        since = None if room is None else {"epoch": room.epoch, "seq": room.seq}

        def ok(answer: Frame) -> None:
            if name not in self.rooms.tracker:
                self.rooms.follow(name, text_in(answer, "epoch"), seq_in(answer))
            self.rooms.go_on(answer)

        presence = True if wish.presence else None
        command = Command("join", room=name, since=since, presence=presence, sender=wish.sender)
        self._ask(command, ok, failed)

    def _appear(self, place: Frame, pattern: str) -> None:
        """A room of a pattern, in a new session or after a resume."""
        name = text_in(place, "room")
        self._unconfirmed.discard(name)
        if name not in self.rooms.tracker:
            # It was made while the client was away, so that all of its messages are new.
            messages = messages_in(place) if place.get("recovered") is True else []
            seq = seq_of(messages[0], name) - 1 if messages else 0
            self.rooms.follow(name, text_in(place, "epoch"), seq, via=pattern)
            self._emit(events.Matched(pattern, name, Position(text_in(place, "epoch"), seq)))
        self.rooms.go_on(place)

    # --- The session from before.

    def _resumed(self, answer: Frame) -> None:
        client_id = text_in(answer, "client_id")
        previous, token = self.client_id, text_or_none(answer, "session")
        self._identify(client_id, token, self._welcome)
        self._connected = events.Connected(client_id, True, previous, self.user)
        places = frames_in(answer, "rooms")
        patterns = set(texts_in(answer, "patterns"))
        for pattern in patterns:
            if pattern in self.rooms.wanted or self.rooms.is_leaving(pattern):
                continue
            if not self._settle_join(pattern, places):
                self._leave(pattern)
        missing = {room.name for room in self.rooms.tracker.rooms()}
        for place in places:
            missing.discard(text_in(place, "room"))
            self._take_up(place)
        for name in missing:
            if name in self.rooms.wanted:
                self._rejoin(name)
            else:
                self.rooms.dropped(name, "not_member")
        for name in list(self.rooms.wanted):
            if is_pattern(name) and name not in patterns:
                self._rejoin(name)
        self._maybe_live()

    def _take_up(self, place: Frame) -> None:
        """A room that the server says the session is in, with what was missed."""
        name = text_in(place, "room")
        code = text_or_none(place, "error")
        if code == "overloaded" and name in self.rooms.wanted:
            # The server could not just now.
            self._rejoin(name)
        elif code is not None:
            if name in self.rooms.tracker:
                self.rooms.dropped(name, code)
        elif name in self.rooms.tracker:
            self.rooms.go_on(place)
        elif self._settle_join(name, [place]) or self.rooms.is_leaving(name):
            return
        else:
            pattern = self.rooms.pattern_of(name)
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

    def _maybe_live(self) -> None:
        if self._phase is not Phase.REJOINING or self._rejoins > 0:
            return
        for name in self._unconfirmed:
            # They ended with the session, and nobody has made them again.
            if name in self.rooms.tracker:
                self.rooms.dropped(name, "not_member")
        self._unconfirmed = set()
        self._phase = Phase.LIVE
        if self._connected is not None:
            self._emit(self._connected)
        self._outbox.open()
        self._live()

    def unwanted(self, subscription: Subscription) -> None:
        """The server has carried out a join whose caller has gone."""
        name = subscription.name
        if self.rooms.wanted.get(name) is subscription:
            self.rooms.end(name)
        if name not in self.rooms.wanted:
            self._leave(name)

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

    def _take_direct(self, frame: Frame) -> None:
        seq = seq_in(frame)
        # Those that are repeated after a resume are known by their number.
        if seq > self._direct:
            if seq > self._direct + 1:
                # They came while the client was away, and the newest of them are kept.
                self._emit(events.Lost(None, self._direct + 1, seq - 1, "not_kept"))
            self._direct = seq
            self._emit(events.Direct(seq=seq, **_spoken(frame)))


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
