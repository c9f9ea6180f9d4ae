"""What the client gives to a program: messages, pages of them, members, receipts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Place:
    """A room, and the number that a message has there."""

    room: str
    seq: int


@dataclass(frozen=True)
class Position:
    """A point in a room: all messages up to ``seq`` came before it."""

    epoch: str
    seq: int


@dataclass(frozen=True)
class Message:
    """A message of a room.

    ``room`` and ``seq`` are those of the room that yields it, and ``rooms`` has all rooms that it
    went to. ``sender`` is what its publisher calls itself; ``client_id`` and ``user`` are set by
    the server.
    """

    room: str
    seq: int
    id: str
    content: Any
    client_id: str
    timestamp: str
    sender: Any
    user: str | None
    rooms: tuple[Place, ...]


@dataclass(frozen=True)
class Published:
    """The receipt of a message that was published.

    ``repeated`` says that the server had it already, from before a lost connection.
    """

    room: str
    seq: int
    id: str
    rooms: tuple[Place, ...]
    repeated: bool


@dataclass(frozen=True)
class Page:
    """Messages of a room's history, oldest first, and the room's position when they were read."""

    room: str
    position: Position
    messages: tuple[Message, ...]


@dataclass(frozen=True)
class Member:
    """A client in a room."""

    client_id: str
    sender: Any = None
    user: str | None = None


@dataclass(frozen=True)
class Members:
    """Members of a room, in the order of their ids; ``count`` is that of all."""

    room: str
    members: Mapping[str, Member]
    count: int
