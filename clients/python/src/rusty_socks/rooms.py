"""The rooms that a client is in, what is yielded of them, and who is in them. No I/O."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable

from . import events
from .errors import Misbehaved, RustySocksError
from .frames import Frame, frames_in, member_in, messages_in, seq_in, text_in
from .messages import Message, Position
from .names import is_pattern, matches
from .options import Options
from .outbox import Command, Entry, Outbox
from .queues import MessageQueue
from .subscription import Subscription
from .tracker import Held, RoomRecord, Tracker

# Sessions in a row whose messages still count as own.
IDS_MAX = 16


class Rooms:
    def __init__(
        self, options: Options, outbox: Outbox, emit: Callable[[events.Event], None]
    ) -> None:
        self._options = options
        self._outbox = outbox
        self._emit = emit
        self.tracker = Tracker(
            self, hold_max=options.hold_max, hold_bytes_max=options.hold_bytes_max
        )
        # The rooms and patterns that the program has joined and not left.
        self.wanted: dict[str, Subscription] = {}
        self._client_id: str | None = None
        self._ids: OrderedDict[str, None] = OrderedDict()
        self._echoes: OrderedDict[str, None] = OrderedDict()
        # Pages to be asked for, one at a time.
        self._fetches: deque[tuple[str, int, int]] = deque()
        self._is_fetching = False
        # Rooms whose members were asked for.
        self._asked: set[str] = set()

    def identify(self, client_id: str) -> None:
        """Messages of this client are own from now on, and those of its last sessions stay so."""
        self._client_id = client_id
        self._ids[client_id] = None
        if len(self._ids) > IDS_MAX:
            self._ids.popitem(last=False)

    def over(self) -> None:
        """The connection is gone."""
        self._fetches.clear()
        self._is_fetching = False
        self._asked = set()
        # The server may have carried them out, and the next session must not come back to them.
        for entry in self._outbox.all():
            if entry.command.type == "leave":
                self.end(entry.command.fields["room"])
        self.tracker.interrupt()

    def ended(self, error: RustySocksError | None) -> None:
        """There will be no connection any more."""
        for subscription in self.wanted.values():
            subscription.end(error)

    # --- Which there are.

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
                    self.follow(room, epoch, seq, via=name, is_latest=latest)
            return
        position = since or Position(text_in(answer, "epoch"), seq_in(answer))
        self.follow(name, position.epoch, position.seq)
        self.go_on(answer)

    def follow(
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

    def go_on(self, place: Frame) -> None:
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

    def matched(self, frame: Frame) -> None:
        name, pattern = text_in(frame, "room"), text_in(frame, "pattern")
        if pattern not in self.wanted:
            found = self.pattern_of(name)
            if found is None:
                # It was on its way when the pattern was left.
                return
            pattern = found
        epoch, seq = text_in(frame, "epoch"), seq_in(frame)
        latest = frame.get("overflow") == "latest"
        room = self.tracker.room(name)
        if room is None:
            self.follow(name, epoch, seq, via=pattern, is_latest=latest)
        elif room.epoch != epoch:
            self.tracker.resume(name, epoch, seq, messages=None, is_latest=latest)
        self._emit(events.Matched(pattern, name, Position(epoch, seq)))

    def pattern_of(self, name: str) -> str | None:
        """Returns the pattern that keeps the client in a room, if one does."""
        return next((own for own in self.wanted if is_pattern(own) and matches(own, name)), None)

    def is_leaving(self, name: str) -> bool:
        """Whether the server may still be told to leave this room or pattern."""

        def leaves(entry: Entry) -> bool:
            left = entry.command.fields.get("room")
            if entry.command.type != "leave" or not isinstance(left, str):
                return False
            return left == name or is_pattern(left) and matches(left, name)

        return self._outbox.find(leaves) is not None

    def end(self, name: str, error: RustySocksError | None = None) -> None:
        """Forgets a room or pattern, and with a pattern the rooms that no other one matches."""
        subscription = self.wanted.pop(name, None)
        if subscription is not None:
            subscription.end(error)
        self.tracker.stop(name)
        if not is_pattern(name):
            return
        for room in self.tracker.rooms():
            if room.via == name:
                room.via = self.pattern_of(room.name)
                if room.via is None:
                    self.tracker.stop(room.name)

    def dropped(self, name: str, code: str) -> None:
        self.end(name, RustySocksError("left", f"the server took the client out of it: {code}"))
        self._emit(events.Dropped(name, code))

    def excluded(self, name: str) -> None:
        """A new token or new rules do not allow this room."""
        if name in self.tracker:
            self.dropped(name, "forbidden")

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

    def take_epoch(self, name: str, epoch: str, seq: int) -> None:
        for entry in self._outbox.all():
            is_publish = entry.is_sent and entry.command.type == "publish"
            if is_publish and name in entry.command.rooms:
                entry.is_doubtful = True
        self.tracker.epoch(name, epoch, seq)

    # --- Presence.

    def changed(self, name: str, change: str, frame: Frame) -> None:
        member = member_in(frame)
        if member.client_id == self._client_id:
            # Not of our own accord: the rules of the server have changed. In a summary it is we
            # who came.
            if change == "left" and frame.get("type") == "left":
                self.excluded(name)
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

    def ask_presence(self, name: str) -> None:
        if name not in self.wanted or name in self._asked:
            return
        self._asked.add(name)

        def ok(answer: Frame) -> None:
            self._asked.discard(name)
            self._read_members({**answer, "room": name})

        def failed(error: RustySocksError) -> None:
            self._asked.discard(name)

        self._outbox.add_urgent(Entry(Command("presence", room=name), ok=ok, failed=failed))
