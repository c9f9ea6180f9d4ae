"""What waits for a program to read it: bounded, and ended with a reason."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Generic, TypeVar

from .errors import RustySocksError
from .events import Event, Overrun
from .tracker import Held

T = TypeVar("T")


class Queue(Generic[T]):
    """Items for one reader or several; each is given to one of them. A reader that is cancelled
    takes none."""

    def __init__(self) -> None:
        self._items: deque[T] = deque()
        self._readers: deque[asyncio.Future[None]] = deque()
        self._is_ended = False
        self._error: RustySocksError | None = None

    def __len__(self) -> int:
        return len(self._items)

    def push(self, item: T) -> None:
        if not self._is_ended:
            self._items.append(item)
            self._wake()

    def end(self, error: RustySocksError | None) -> None:
        """Lets readers have what is there, and then ends their loops, with an error if given."""
        if not self._is_ended:
            self._is_ended, self._error = True, error
            for reader in self._readers:
                if not reader.done():
                    reader.set_result(None)
            self._readers.clear()

    def drop(self) -> None:
        """Drops the oldest item."""
        self._items.popleft()

    def discard(self) -> None:
        self._items.clear()

    async def next(self) -> T:
        while not self._items:
            if self._is_ended:
                if self._error is not None:
                    raise self._error
                raise StopAsyncIteration
            reader = asyncio.get_running_loop().create_future()
            self._readers.append(reader)
            try:
                await reader
            except asyncio.CancelledError:
                # Its turn goes to the next one.
                if reader.done() and not reader.cancelled() and self._items:
                    self._wake()
                raise
            finally:
                if reader in self._readers:
                    self._readers.remove(reader)
        return self._items.popleft()

    def _wake(self) -> None:
        while self._readers:
            reader = self._readers.popleft()
            if not reader.done():
                reader.set_result(None)
                return


class MessageQueue:
    """The messages of a room or pattern that wait to be read. A full one holds back its rooms."""

    def __init__(self, *, max_: int, bytes_max: int, has_space: Callable[[], None]) -> None:
        self._queue: Queue[tuple[Held, str]] = Queue()
        self._max = max_
        self._bytes = 0
        self._bytes_max = bytes_max
        self._has_space = has_space
        # The messages of several rooms that were pushed: one that comes through another room again
        # is dropped.
        self._recent: OrderedDict[tuple[str, str, int], None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._queue)

    @property
    def is_full(self) -> bool:
        return len(self._queue) >= self._max or self._bytes >= self._bytes_max

    def push(self, held: Held, room: str) -> None:
        """Takes a message that is yielded in this room."""
        if len(held.message.rooms) > 1:
            if held.key in self._recent:
                return
            self._recent[held.key] = None
            if len(self._recent) > self._max:
                self._recent.popitem(last=False)
        self._bytes += held.size
        self._queue.push((held, room))

    def end(self, error: RustySocksError | None, *, at_once: bool = False) -> None:
        if at_once:
            self._queue.discard()
            self._bytes = 0
        self._queue.end(error)

    async def next(self) -> tuple[Held, str]:
        held, room = await self._queue.next()
        was_full = len(self._queue) + 1 >= self._max or self._bytes >= self._bytes_max
        self._bytes -= held.size
        if was_full and not self.is_full:
            self._has_space()
        return held, room


class EventQueue:
    """The events that wait to be read. The oldest of too many are dropped, and counted."""

    def __init__(self, max_: int) -> None:
        self._queue: Queue[Event] = Queue()
        self._max = max_
        self._dropped = 0

    def push(self, event: Event) -> None:
        if len(self._queue) >= self._max:
            self._queue.drop()
            self._dropped += 1
        self._queue.push(event)

    def end(self, error: RustySocksError | None) -> None:
        self._queue.end(error)

    async def next(self) -> Event:
        if self._dropped:
            count, self._dropped = self._dropped, 0
            return Overrun(count)
        return await self._queue.next()
