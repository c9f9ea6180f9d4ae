"""Which messages of each room were yielded, and the order in which the rest may be.

A room has a position, an epoch and a ``seq``: everything up to it was yielded, is our own, or was
told to be lost. Above it there is a queue, in the order of ``seq``:

- ``Waiting``: a message, yielded when its turn has come in every room where it waits;
- ``Mark``: all numbers up to it have arrived;
- ``Gap``: a range that was not delivered. It is fetched when it is at the head, and all behind it
  waits;
- ``Missing``: a range that cannot be had.

A message of an answer counts in the room that the answer is about, and in no other: what comes
before it elsewhere may still be on its way, and then it comes there again. An answer to ``resume``
has it in the answer of each of its rooms.

No I/O and no clock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, Union

from .messages import Message


class Held(NamedTuple):
    """A message that waits. ``size`` is what it weighs, and ``is_replay`` that an answer has it."""

    message: Message
    size: int
    is_replay: bool

    @property
    def key(self) -> tuple[str, str, int]:
        """Tells one message from another, whichever room it waits in."""
        first = self.message.rooms[0]
        return (self.message.id, first.room, first.seq)


@dataclass
class Waiting:
    first: int
    held: Held

    @property
    def last(self) -> int:
        return self.first


@dataclass
class Mark:
    last: int

    @property
    def first(self) -> int:
        return self.last


@dataclass
class Gap:
    first: int
    last: int


@dataclass
class Missing:
    first: int
    last: int
    reason: str


Item = Union[Waiting, Mark, Gap, Missing]


@dataclass(eq=False)
class RoomRecord:
    """Where one room stands; ``via`` is the pattern that it was joined through."""

    name: str
    epoch: str
    seq: int
    is_latest: bool = False
    via: str | None = None
    # The welcome's replay may still come, with messages below the position.
    is_greeting: bool = False
    # The connection was lost, and the server has not said yet how the room goes on.
    is_expected: bool = False
    queue: deque[Item] = field(default_factory=deque)
    # Own numbers above the position.
    own: set[int] = field(default_factory=set)
    # What waited when the connection was lost, in case that a history no longer has it.
    spare: dict[int, Held] = field(default_factory=dict)
    is_fetching: bool = False
    # Changes when a page that is under way is not to be taken.
    fetch: int = 0


class Sink(Protocol):
    """What a tracker tells."""

    def deliver(self, held: Held, names: list[str]) -> None:
        """Yields a message in these rooms; it was yielded in none of them before."""

    def lost(self, room: str, first: int | None, last: int | None, reason: str) -> None: ...

    def fetch(self, room: str, after: int, fetch: int) -> None:
        """Asks for a page of history, to be answered by ``fill`` or ``unfilled``."""

    def may_yield(self, room: str) -> bool:
        """Whether the readers of a room have space. When one has again, ``drain`` is called."""


class Tracker:
    def __init__(self, sink: Sink, *, hold_max: int, hold_bytes_max: int) -> None:
        self._sink = sink
        self._hold_max = hold_max
        self._hold_bytes_max = hold_bytes_max
        self._rooms: dict[str, RoomRecord] = {}
        # The rooms with something in their queue, in the order in which it came.
        self._busy: dict[str, RoomRecord] = {}
        self._is_draining = False
        self._bytes_unweighed = 0

    def __contains__(self, name: str) -> bool:
        return name in self._rooms

    def __len__(self) -> int:
        return len(self._rooms)

    def room(self, name: str) -> RoomRecord | None:
        return self._rooms.get(name)

    def rooms(self) -> list[RoomRecord]:
        return list(self._rooms.values())

    def start(
        self,
        name: str,
        epoch: str,
        seq: int,
        *,
        is_latest: bool = False,
        via: str | None = None,
        is_greeting: bool = False,
        is_expected: bool = False,
    ) -> None:
        """Follows a room from this position on."""
        self._busy.pop(name, None)
        self._rooms[name] = RoomRecord(
            name, epoch, seq, is_latest, via, is_greeting=is_greeting, is_expected=is_expected
        )

    def stop(self, name: str) -> None:
        if self._rooms.pop(name, None) is None:
            return
        self._busy.pop(name, None)
        # Rooms that waited for this one to reach a message that they share need not wait any more.
        self.drain()

    def live(self, message: Message, size: int) -> None:
        """Takes a message that has just been published."""
        held = Held(message, size, is_replay=False)
        for place in message.rooms:
            room = self._rooms.get(place.room)
            # A room that one has not come back to yet tells this message with what was missed.
            if room is None or room.is_expected:
                continue
            if room.is_greeting:
                # The first message after the welcome shows how far back the replay goes.
                room.seq = min(room.seq, place.seq - 1)
                room.is_greeting = False
            if place.seq > _reach(room):
                self._append(room, Waiting(place.seq, held))
        self.drain()

    def received(self, size: int) -> None:
        """Counts bytes that have come. If all that waits is too large, the room with the most of it
        drops its own, to be fetched later."""
        self._bytes_unweighed += size
        if self._bytes_unweighed * 4 < self._hold_bytes_max:
            return
        self._bytes_unweighed = 0
        weights = sorted(
            ((_weight(room), room) for room in self._rooms.values()),
            key=lambda pair: pair[0],
            reverse=True,
        )
        total = sum(weight for weight, _ in weights)
        if total <= self._hold_bytes_max:
            return
        for weight, room in weights:
            if total <= self._hold_bytes_max // 2:
                break
            room.spare = {}
            self._collapse(room)
            total -= weight

    def resume(
        self,
        name: str,
        epoch: str,
        seq: int,
        *,
        messages: Iterable[Message] | None,
        size: int = 0,
        is_latest: bool = False,
    ) -> None:
        """Takes the position at which the server goes on with a room.

        ``messages`` is everything after our position, or ``None`` if the server does not have all
        of that. With all of it a new epoch began above our position, and costs nothing. ``size`` is
        the weight of each message.
        """
        room = self._rooms.get(name)
        if room is None:
            return
        room.is_latest = is_latest
        room.is_greeting = room.is_expected = room.is_fetching = False
        room.fetch += 1
        spare, room.spare = room.spare, {}
        self._clear(room)
        if messages is not None:
            room.epoch = epoch
            for message in messages:
                at = seq_of(message, name)
                if at > _reach(room):
                    self._append(room, Waiting(at, Held(message, size, is_replay=True)))
            if seq > _reach(room):
                self._append(room, Mark(seq))
        elif epoch != room.epoch:
            room.epoch, room.seq = epoch, seq
            self._sink.lost(name, None, None, "epoch")
        elif seq > room.seq:
            room.spare = spare
            self._append(room, Gap(room.seq + 1, seq))
        self.drain()

    def epoch(self, name: str, epoch: str, seq: int) -> None:
        """The room goes on at this position. Up to ``seq`` its numbers mean what they meant; what
        is above is of the earlier epoch, and its numbers are given again."""
        room = self._rooms.get(name)
        if room is None or room.is_expected:
            return
        heard = _reach(room)
        known = max([heard, *room.own])
        is_new, room.epoch = room.epoch != epoch, epoch
        # A page that is under way may be of the earlier epoch.
        room.is_greeting = room.is_fetching = False
        room.fetch += 1
        room.seq = min(room.seq, seq)
        room.own = {at for at in room.own if at <= seq}
        room.spare = {at: held for at, held in room.spare.items() if at <= seq}
        kept = [item for item in room.queue if item.first <= seq]
        for item in kept:
            if isinstance(item, (Gap, Missing)):
                item.last = min(item.last, seq)
        self._clear(room)
        for item in kept:
            self._append(room, item)
        if heard < seq:
            self._append_gap(room, heard + 1, seq)
        if known > seq and is_new:
            self._sink.lost(name, None, None, "epoch")
        self.drain()

    def gap(self, name: str, first: int, last: int) -> None:
        """The server says that it did not deliver these."""
        room = self._rooms.get(name)
        if room is None or room.is_expected:
            return
        room.is_greeting = False
        first = max(first, _reach(room) + 1)
        if first <= last:
            self._append_gap(room, first, last)
        self.drain()

    def own(self, name: str, seq: int) -> None:
        """A message of our own has this number, and the server will not send it back."""
        room = self._rooms.get(name)
        if room is None or room.is_expected or seq <= room.seq:
            return
        # All earlier messages of the replay have come before the answer.
        room.is_greeting = False
        # Without it, it is only asked for again.
        if len(room.own) < self._hold_max:
            room.own.add(seq)
        self._pass_own(room)
        self.drain()

    def fill(
        self, name: str, fetch: int, epoch: str, seq: int, messages: list[Message], size: int = 0
    ) -> None:
        """Takes a page of history for the gap at the head of a room."""
        room = self._rooms.get(name)
        if room is None or not room.is_fetching or room.fetch != fetch or not room.queue:
            return
        gap = room.queue[0]
        room.is_fetching = False
        if not isinstance(gap, Gap):
            return
        if epoch != room.epoch:
            self._clear(room)
            room.own, room.spare = set(), {}
            room.epoch, room.seq = epoch, seq
            self._sink.lost(name, None, None, "epoch")
            self.drain()
            return
        # A page begins with the oldest message that is kept: what is missing before one of its
        # messages is gone, and with an empty page all is.
        upto = gap.last
        if messages:
            end = seq_of(messages[-1], name)
            upto = min(upto, end) if end >= gap.first else upto
        found = {at: held for at, held in room.spare.items() if gap.first <= at <= upto}
        # A message of several rooms that waits in another of them is not lost for this one.
        for other in self._busy.values():
            for item in other.queue if other is not room else ():
                if isinstance(item, Waiting) and len(item.held.message.rooms) > 1:
                    at = seq_of(item.held.message, name, or_else=0)
                    if gap.first <= at <= upto:
                        found.setdefault(at, item.held)
        for message in messages:
            at = seq_of(message, name)
            if gap.first <= at <= upto:
                found[at] = Held(message, size, is_replay=True)
        room.spare = {at: held for at, held in room.spare.items() if at > upto}
        room.queue.popleft()
        if upto < gap.last:
            room.queue.appendleft(Gap(upto + 1, gap.last))
        room.queue.extendleft(reversed(_with_holes(room, found, gap.first, upto, "not_kept")))
        self._note(room)
        self.drain()

    def unfilled(self, name: str, fetch: int) -> None:
        """The page cannot be had: the messages of the gap are lost."""
        room = self._rooms.get(name)
        if room is not None:
            self.fill(name, fetch, room.epoch, room.seq, [])

    def interrupt(self) -> None:
        """The connection is gone: what waits is sent again, or fills a gap."""
        for room in self._rooms.values():
            room.is_expected = True
            room.is_fetching = False
            room.fetch += 1
            room.own = set()
            for item in room.queue:
                if isinstance(item, Waiting) and len(room.spare) < self._hold_max:
                    room.spare[item.first] = item.held
            self._clear(room)

    def drain(self) -> None:
        """Yields all that may be yielded."""
        if self._is_draining:
            return
        self._is_draining = True
        try:
            while True:
                moved = False
                for room in list(self._busy.values()):
                    while self._rooms.get(room.name) is room and self._step(room, is_forced=False):
                        moved = True
                if not moved and not self._break_circle():
                    return
        finally:
            self._is_draining = False

    def _break_circle(self) -> bool:
        """Lets one message pass of those that wait for each other.

        No server that numbers a message in all its rooms at one instant has such; one that breaks
        this gets its messages delivered, and not their order.
        """
        if not self._busy or any(room.is_expected for room in self._rooms.values()):
            return False
        may = [room for room in self._busy.values() if self._sink.may_yield(room.name)]
        if any(isinstance(room.queue[0], Gap) for room in may):
            return False
        stuck = [room for room in may if isinstance(room.queue[0], Waiting)]
        return bool(stuck) and self._step(stuck[0], is_forced=True)

    def _step(self, room: RoomRecord, *, is_forced: bool) -> bool:
        """Takes the head of a room's queue if it may be taken, and says whether it was."""
        if not room.queue:
            return False
        head = room.queue[0]
        if isinstance(head, (Mark, Missing)):
            self._take(room, head.last)
            if isinstance(head, Missing):
                self._sink.lost(room.name, head.first, head.last, head.reason)
            return True
        if not self._sink.may_yield(room.name):
            return False
        if isinstance(head, Gap):
            if not room.is_fetching:
                room.is_fetching = True
                self._sink.fetch(room.name, head.first - 1, room.fetch)
            return False
        others = self._others(room, head.held)
        if others is None and not is_forced:
            return False
        moved = [(room, head.first), *(others or [])]
        for place, seq in moved:
            self._take(place, seq)
        self._sink.deliver(head.held, [place.name for place, _ in moved])
        return True

    def _others(self, room: RoomRecord, held: Held) -> list[tuple[RoomRecord, int]] | None:
        """Returns the other rooms in which this message has its turn too, or ``None`` if it must
        wait for one of them."""
        found = []
        for place in held.message.rooms:
            other = self._rooms.get(place.room)
            if other is None or other is room or place.seq <= other.seq:
                continue
            if other.is_expected:
                return None
            if not other.queue or other.queue[0].first > place.seq:
                # What is before it there may be on its way, and then it comes there again.
                continue
            # Readers that are behind there stop nobody here.
            if not self._sink.may_yield(other.name):
                continue
            head = other.queue[0]
            if not isinstance(head, Waiting) or head.held.key != held.key:
                return None
            found.append((other, head.first))
        return found

    def _append(self, room: RoomRecord, item: Item) -> None:
        if len(room.queue) < self._hold_max:
            room.queue.append(item)
        elif isinstance(room.queue[-1], Gap):
            room.queue[-1].last = item.last
        else:
            # The queue is full: from here on, everything is fetched later.
            room.queue.append(Gap(item.first, item.last))
        self._note(room)

    def _append_gap(self, room: RoomRecord, first: int, last: int) -> None:
        if not room.is_latest:
            self._append(room, Gap(first, last))
            return
        for item in _with_holes(room, {}, first, last, "latest"):
            self._append(room, item)

    def _collapse(self, room: RoomRecord) -> None:
        """Makes one gap of all that waits; it begins where a fetch may be under way."""
        if not room.queue:
            return
        head = room.queue[0]
        first = head.first if isinstance(head, Gap) else room.seq + 1
        last = _reach(room)
        room.queue = deque([Gap(first, last)])

    def _take(self, room: RoomRecord, seq: int) -> None:
        """Moves a room's position, and drops what is not above it."""
        room.seq = max(room.seq, seq)
        while room.queue and room.queue[0].last <= room.seq:
            room.queue.popleft()
        self._pass_own(room)
        self._note(room)

    def _pass_own(self, room: RoomRecord) -> None:
        if not room.own:
            return
        room.own = {at for at in room.own if at > room.seq}
        while room.seq + 1 in room.own and not room.queue:
            # What waits further up takes the position past all own numbers below it.
            room.seq += 1
            room.own.discard(room.seq)

    def _clear(self, room: RoomRecord) -> None:
        room.queue = deque()
        self._busy.pop(room.name, None)

    def _note(self, room: RoomRecord) -> None:
        if room.queue:
            self._busy[room.name] = room
        else:
            self._busy.pop(room.name, None)


def seq_of(message: Message, name: str, or_else: int | None = None) -> int:
    """Returns the number of a message in a room."""
    for place in message.rooms:
        if place.room == name:
            return place.seq
    return message.seq if or_else is None else or_else


def _reach(room: RoomRecord) -> int:
    """Returns the highest number that is dealt with or waits."""
    return max(room.seq, room.queue[-1].last) if room.queue else room.seq


def _weight(room: RoomRecord) -> int:
    waiting = sum(item.held.size for item in room.queue if isinstance(item, Waiting))
    return waiting + sum(held.size for held in room.spare.values())


def _with_holes(
    room: RoomRecord, found: dict[int, Held], first: int, last: int, reason: str
) -> list[Item]:
    """Returns what was found of a range, in order, with the rest as missing; own messages are not
    missing."""
    items: list[Item] = []
    here = sorted([*found, *(at for at in room.own if first <= at <= last and at not in found)])
    for at in here:
        if first < at:
            items.append(Missing(first, at - 1, reason))
        items.append(Waiting(at, found[at]) if at in found else Mark(at))
        first = at + 1
    if first <= last:
        items.append(Missing(first, last, reason))
    return items
