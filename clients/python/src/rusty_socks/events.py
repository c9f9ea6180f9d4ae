"""What ``Client.events`` yields."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Union

from .errors import End
from .messages import Member, Position


@dataclass(frozen=True)
class Connected:
    """There is a session on a connection, and all rooms are in it again.

    ``resumed`` says that the session is the one from before; otherwise it is a new one, in which
    this client has the id ``client_id`` and had ``previous`` before.
    """

    client_id: str
    resumed: bool
    previous: str | None
    user: str | None


@dataclass(frozen=True)
class Disconnected:
    """A connection has ended, or an attempt at one; the next attempt is in ``delay_s`` seconds."""

    end: End
    delay_s: float


@dataclass(frozen=True)
class Lost:
    """Messages ``first`` to ``last`` of a room will not come.

    ``reason`` is ``not_kept`` (the history no longer has them), ``latest`` (the room sends a slow
    client the newest message alone), or ``epoch``: the room begins anew, and which messages are
    lost cannot be said; then there are no numbers. Without ``room`` they are direct messages.
    """

    room: str | None
    first: int | None
    last: int | None
    reason: str


@dataclass(frozen=True)
class Joined:
    """Another client has joined a room whose presence is watched."""

    room: str
    member: Member


@dataclass(frozen=True)
class Left:
    """Another client has left a room whose presence is watched."""

    room: str
    member: Member


@dataclass(frozen=True)
class PresenceRead:
    """``Room.members`` was read anew, after a lost connection or a gap in the notices."""

    room: str


@dataclass(frozen=True)
class Matched:
    """A room was joined through a pattern."""

    pattern: str
    room: str
    position: Position


@dataclass(frozen=True)
class Unmatched:
    """A room matches a pattern, but the client is in as many rooms as it may be."""

    pattern: str
    room: str


@dataclass(frozen=True)
class Dropped:
    """The client is no longer in a room or pattern, and not of its own accord."""

    room: str
    code: str


@dataclass(frozen=True)
class Direct:
    """A message to this client alone."""

    seq: int
    id: str
    content: Any
    client_id: str
    timestamp: str
    sender: Any
    user: str | None


@dataclass(frozen=True)
class Broadcast:
    """A message to all clients."""

    id: str
    content: Any
    client_id: str
    timestamp: str
    sender: Any
    user: str | None


@dataclass(frozen=True)
class Closing:
    """The server shuts down, and asks to be left alone for so long."""

    reason: str
    reconnect_after_s: float | None


@dataclass(frozen=True)
class Failed:
    """An error that no command of the program's has caused, such as a token that is not renewed."""

    code: str
    message: str


@dataclass(frozen=True)
class Overrun:
    """``count`` events before this one were dropped, because nobody read them."""

    count: int


Event = Union[
    Connected,
    Disconnected,
    Lost,
    Joined,
    Left,
    PresenceRead,
    Matched,
    Unmatched,
    Dropped,
    Direct,
    Broadcast,
    Closing,
    Failed,
    Overrun,
]
