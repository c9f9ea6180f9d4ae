"""A room or pattern, as the program has it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Protocol

from .messages import Member, Members, Message, Page, Place, Published
from .subscription import Subscription
from .tracker import Held


class Caller(Protocol):
    """What a room needs of its client."""

    async def publish(
        self,
        room: str | Sequence[str],
        content: object,
        *,
        id: str | None = None,
        sender: str | None = None,
        echo: bool = False,
    ) -> Published: ...

    async def history(
        self,
        room: str,
        *,
        before: int | None = None,
        after: int | None = None,
        limit: int | None = None,
    ) -> Page: ...

    async def presence(
        self,
        room: str,
        *,
        watch: bool | None = None,
        after: str | None = None,
        limit: int | None = None,
    ) -> Members: ...

    async def leave(self, name: str) -> None: ...

    def rooms_of(self, pattern: str) -> tuple[str, ...]: ...


class _Joined:
    """What the program has joined.

    It is an iterator over its messages, each once and in the order of its room. Loops over one that
    follow each other, or run at once, share its messages. A loop ends when the program leaves or
    closes the client, and raises ``RustySocksError`` when the server ends it.
    """

    def __init__(self, caller: Caller, subscription: Subscription) -> None:
        self._caller = caller
        self._subscription = subscription

    @property
    def name(self) -> str:
        return self._subscription.name

    @property
    def waiting(self) -> int:
        """How many messages wait to be read."""
        return len(self._subscription.queue)

    async def leave(self) -> None:
        """Leaves it. From the call on nothing of it is yielded; cancelling the call changes neither
        that nor that the server is told."""
        if not self._subscription.is_left:
            self._subscription.leave()
            await self._caller.leave(self.name)

    async def __anext__(self) -> Message:
        held, room = await self._subscription.queue.next()
        return _in_room(held, room)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}>"


class Room(_Joined):
    """A room that the program has joined; ``async for message in room`` reads it."""

    def __aiter__(self) -> Room:
        return self

    async def publish(
        self,
        content: object,
        *,
        id: str | None = None,
        sender: str | None = None,
        echo: bool = False,
    ) -> Published:
        """As ``Client.publish``."""
        return await self._caller.publish(self.name, content, id=id, sender=sender, echo=echo)

    async def history(
        self, *, before: int | None = None, after: int | None = None, limit: int | None = None
    ) -> Page:
        """As ``Client.history``."""
        return await self._caller.history(self.name, before=before, after=after, limit=limit)

    async def presence(
        self, *, watch: bool | None = None, after: str | None = None, limit: int | None = None
    ) -> Members:
        """As ``Client.presence``."""
        return await self._caller.presence(self.name, watch=watch, after=after, limit=limit)

    @property
    def members(self) -> Mapping[str, Member]:
        """Who is in the room, by client id: of a room whose presence is watched, and of a large one
        those that the server names first and those that came since."""
        return MappingProxyType(self._subscription.members)

    @property
    def member_count(self) -> int:
        return self._subscription.member_count


class Pattern(_Joined):
    """A pattern that the program has joined; ``async for message in pattern`` reads all rooms that
    were joined through it."""

    def __aiter__(self) -> Pattern:
        return self

    @property
    def rooms(self) -> tuple[str, ...]:
        """The rooms that were joined through it."""
        return self._caller.rooms_of(self.name)


def _in_room(held: Held, room: str) -> Message:
    message = held.message
    if message.room == room:
        return message
    seq = next(place.seq for place in message.rooms if place == Place(room, place.seq))
    return dataclasses.replace(message, room=room, seq=seq)
